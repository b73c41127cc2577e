"""The kernels of yes and no, of the focal loss and of targets of any type, against their plain versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses.binary import yes_or_no


@pytest.fixture(autouse=True, scope="module")
def compiled() -> Iterator[None]:
    assert losses.warm_up("binary_cross_entropy", "focal", "cross_entropy", "dice")
    yield


Call = Callable[[Tensor], Tensor]
SHAPE = (3, 4, 70, 60)
TYPES = [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float32, torch.bfloat16]
layouts = pytest.mark.parametrize("layout", ["planes", "rows", "bfloat16"])
types = pytest.mark.parametrize("dtype", TYPES, ids=str)


def laid(x: Tensor, layout: str) -> Tensor:
    if layout == "bfloat16":
        return x.to(torch.bfloat16)
    return x.to(memory_format=torch.channels_last) if layout == "rows" else x


def kernel_node(value: Tensor) -> bool:
    node = value.grad_fn
    while node is not None:
        if node.name() in ("TotalBackward", "_CountsBackward"):
            return True
        node = next((n for n, _ in node.next_functions if n is not None and n.name() != "AccumulateGrad"), None)
    return False


def agree(call: Call, x: Tensor) -> None:
    """Value and gradient of the kernel against the plain version in float64, and the layout of the gradient."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = call(leaf)
    assert kernel_node(value)
    value.backward()
    wide = x.detach().double().requires_grad_()
    with losses.use_kernels(False):
        exact = call(wide)
        exact.backward()
    assert leaf.grad is not None
    assert wide.grad is not None
    assert leaf.grad.stride() == x.stride()
    torch.testing.assert_close(value.double(), exact, rtol=4e-6, atol=1e-9)
    error = (leaf.grad.double() - wide.grad).norm() / wide.grad.norm()
    assert error <= (4e-3 if x.dtype == torch.bfloat16 else 2e-6)


@layouts
@types
def test_binary_cross_entropy_of_a_target_of_any_type(layout: str, dtype: torch.dtype) -> None:
    target = (torch.rand(SHAPE) < 0.3).to(dtype)
    options: dict[str, Any] = {"mask": torch.rand(SHAPE) > 0.2, "weight": torch.rand(SHAPE), "label_smoothing": 0.1}
    x = laid(4 * torch.randn(SHAPE), layout)
    agree(lambda a: losses.binary_cross_entropy(a, target, positive_weight=2.5, **options), x)


@layouts
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("normalize", ["weight", "count"])
def test_sigmoid_focal_and_a_weight_of_each_class(layout: str, gamma: float, normalize: Any) -> None:
    target, costs, weight = torch.rand(SHAPE), torch.rand(1, 4, 1, 1) * 3, torch.rand(SHAPE) + 0.1
    x = laid(4 * torch.randn(SHAPE), layout)
    agree(lambda a: losses.sigmoid_focal(a, target, gamma=gamma, normalize=normalize, weight=weight), x)
    agree(
        lambda a: yes_or_no("l", a, target, costs, 1.0, gamma, 0.0, None, None, None, normalize, "sum", None, None), x
    )


def test_extreme_scores_and_what_is_not_selected() -> None:
    x = torch.randn(SHAPE)
    x[0], x[1, 0] = torch.inf, -torch.inf
    target = (x > 0).float()
    for call in (losses.binary_cross_entropy, losses.sigmoid_focal):
        agree(lambda a, call=call: call(a, target), x)
    x[2] = torch.nan
    mask = ~x.isnan()
    for call in (losses.binary_cross_entropy, losses.sigmoid_focal):
        leaf = x.clone().requires_grad_()
        call(leaf, target, mask=mask).backward()
        assert leaf.grad is not None
        assert (leaf.grad[2] == 0).all()
        with pytest.raises(losses.LossInputError, match="NaN"):
            call(x, target)
        with pytest.raises(losses.LossInputError, match=r"0\.\.1"):
            call(x, 2 * target, mask=mask)
        assert call(x, target, mask=torch.zeros_like(mask)) == 0


def test_a_small_loss_keeps_its_digits() -> None:
    x = torch.full((4096,), 20.0)
    assert losses.binary_cross_entropy(x, torch.ones(4096)).item() == pytest.approx(2.0611536e-9, rel=1e-6)


@layouts
@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(layout: str, classes: int, gamma: float) -> None:
    x, t = laid(3 * torch.randn(3, classes, 90, 70), layout), torch.randint(0, classes, (3, 90, 70))
    agree(lambda a: losses.focal(a, t, gamma=gamma), x)
    options: dict[str, Any] = {
        "mask": torch.rand(t.shape) > 0.2, "weight": torch.rand(t.shape), "class_weight": torch.rand(classes),
        "ignore_index": 1, "reduction": "sum",
    }  # fmt: skip
    agree(lambda a: losses.focal(a, t, gamma=gamma, **options), x)


def test_focal_where_the_label_is_nearly_certain() -> None:
    x = torch.zeros(40000, 2)
    x[:, 0] = torch.linspace(0, 80, 40000)
    label = torch.zeros(40000, dtype=torch.long)
    for gamma in (0.5, 1.0, 2.0):
        agree(lambda a, gamma=gamma: losses.focal(a, label, gamma=gamma), x)


@layouts
@types
@pytest.mark.parametrize("order", ["planes", "rows"])
def test_cross_entropy_of_one_hot_labels_of_any_type_and_order(layout: str, dtype: torch.dtype, order: str) -> None:
    hot = F.one_hot(torch.randint(0, 4, (3, 70, 60)), 4).movedim(-1, 1).to(dtype)
    hot = hot.contiguous() if order == "planes" else hot
    x, mask = laid(torch.randn(SHAPE), layout), torch.rand(3, 70, 60) > 0.2
    agree(lambda a: losses.cross_entropy(a, hot, mask=mask, label_smoothing=0.1), x)


@layouts
@types
@pytest.mark.parametrize("classes", [1, 4])
def test_dice_of_several_labels(layout: str, dtype: torch.dtype, classes: int) -> None:
    shape = (3, classes, 120, 100)
    target = (torch.rand(shape) < 0.3).to(dtype)
    mask, x = torch.rand(3, 120, 100) > 0.2, laid(2 * torch.randn(shape), layout)
    agree(lambda a: losses.dice(a, target, multilabel=True), x)
    agree(lambda a: losses.tversky(a, target, multilabel=True, mask=mask, over="batch"), x)


def test_dice_of_soft_labels() -> None:
    target, x = torch.rand(SHAPE), 2 * torch.randn(SHAPE)
    agree(lambda a: losses.dice(a, target, multilabel=True), x)
    with pytest.raises(losses.LossInputError, match=r"0\.\.1"):
        losses.dice(x, 2 * target, multilabel=True)


CALLS: dict[str, Call] = {
    "binary": lambda a: losses.binary_cross_entropy(a, _yes(a)),
    "sigmoid focal": lambda a: losses.sigmoid_focal(a, _yes(a)),
    "focal": lambda a: losses.focal(a, _yes(a)[:, 0].long()),
    "one-hot": lambda a: losses.cross_entropy(a, F.one_hot(_yes(a)[:, 0].long(), 4).movedim(-1, 1)),
    "dice": lambda a: losses.dice(a, _yes(a), multilabel=True),
}


def _yes(x: Tensor) -> Tensor:
    return torch.arange(x.numel()).reshape(x.shape) % 3 == 0


@pytest.mark.parametrize("name", CALLS)
def test_derivatives_beside_the_first_go_through_the_plain_version(name: str) -> None:
    call, x = CALLS[name], torch.randn(SHAPE)
    found = []
    for fast in (True, False):
        leaf = x.clone().requires_grad_()
        with losses.use_kernels(fast):
            value = call(leaf)
            assert kernel_node(value) == fast
            given = torch.tensor([1.0, 3.0])
            (several,) = torch.autograd.grad(value, leaf, given, retain_graph=True, is_grads_batched=True)
            (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
            slope.square().sum().backward()
            (again,) = torch.autograd.grad(65536 * call(leaf), leaf)
        found.append((several, slope.detach(), leaf.grad, again / 65536))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize("name", CALLS)
def test_threads_change_nothing(name: str) -> None:
    x, before, found = torch.randn(SHAPE), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            value = CALLS[name](leaf)
            value.backward()
            found.append((value.detach(), leaf.grad))
    finally:
        torch.set_num_threads(before)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["binary", "sigmoid focal", "focal", "one-hot"])
def test_backward_hands_over_the_memory_that_forward_wrote(name: str) -> None:
    leaf = torch.randn(SHAPE).requires_grad_()
    value = CALLS[name](leaf)
    node = value.grad_fn.next_functions[0][0]
    written = node.made[0].data_ptr()
    del node
    value.backward()
    assert leaf.grad.data_ptr() == written


def test_the_common_call_with_few_numbers_is_that_of_pytorch() -> None:
    x, t = torch.randn(32, 10, requires_grad=True), torch.randint(0, 10, (32,))
    for reduction in ("mean", "sum"):
        assert losses.cross_entropy(x, t, reduction=reduction) == F.cross_entropy(x, t, reduction=reduction)
    t[3] = -100
    with pytest.raises(losses.LossInputError, match="class -100"):
        losses.cross_entropy(x, t)
    with pytest.raises((IndexError, RuntimeError)):
        losses.cross_entropy(x, t, check=False)
    assert losses.cross_entropy(x[:0], t[:0]) == 0
