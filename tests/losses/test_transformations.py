"""Every loss inside PyTorch's transformations, at its default settings: the same values, and nothing is refused."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.losses.test_every_loss import CASES, Case, call
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.proxy_tensor import make_fx

from nucleate import losses
from nucleate.losses import LossInputError

READS = {"boundary-index", "hausdorff_dt-read-multilabel", "hausdorff_dt-read-soft", "hausdorff_dt-read-probabilities"}
"""Distances are computed from the values of the labels."""

pytestmark = [
    # PyTorch's own: its forward mode uses what it deprecates, and vmap says what it does in a loop.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]

cases = [case for case in CASES if case.grad]
every = pytest.mark.parametrize("case", [case for case in cases if str(case) not in READS], ids=str)


class Function:
    """A case as a function of its differentiable inputs alone, without `check`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.inputs = tuple(x.detach() for x in case.leaves().values())

    def __call__(self, *values: Tensor) -> Tensor:
        return call(self.case, **dict(zip(self.case.grad, values, strict=True)), check=None)


@every
def test_vmap_is_a_loop(case: Case) -> None:
    f = Function(case)
    several = tuple(torch.stack([x, x.flip(-1).contiguous()]) for x in f.inputs)
    expected = torch.stack([f(*(x[k] for x in several)) for k in range(2)])
    torch.testing.assert_close(torch.func.vmap(f)(*several), expected)


@every
def test_gradients_by_example(case: Case) -> None:
    f = Function(case)
    numbers = tuple(range(len(f.inputs)))
    leaves = [x.clone().requires_grad_() for x in f.inputs]
    expected = torch.autograd.grad(f(*leaves), leaves)
    found = torch.func.vmap(torch.func.grad(f, argnums=numbers))(*(x.unsqueeze(0) for x in f.inputs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[0], other)


@every
def test_forward_mode_agrees_with_the_backward_pass(case: Case) -> None:
    f = Function(case)
    leaves = [x.clone().requires_grad_() for x in f.inputs]
    slope = sum((g.sum() for g in torch.autograd.grad(f(*leaves), leaves)), torch.zeros((), dtype=torch.float64))
    value, along = torch.func.jvp(f, f.inputs, tuple(torch.ones_like(x) for x in f.inputs))
    torch.testing.assert_close(value, f(*f.inputs))
    torch.testing.assert_close(along, slope)


@every
def test_batched_gradients_are_those_of_a_loop(case: Case) -> None:
    f = Function(case)

    def first(x: Tensor) -> Tensor:
        return f(x, *f.inputs[1:])

    loop, batched = (torch.autograd.functional.hessian(first, f.inputs[0], vectorize=v) for v in (False, True))
    torch.testing.assert_close(batched, loop)


@every
def test_traced_graphs_read_their_inputs(case: Case) -> None:
    f = Function(case)
    graphs = make_fx(f)(*f.inputs), torch.jit.trace(lambda *values: f(*values), f.inputs, check_trace=False)
    others = tuple(x.flip(-1).contiguous() for x in f.inputs)
    for graph in graphs:
        torch.testing.assert_close(graph(*others), f(*others))


@pytest.mark.parametrize("loss", sorted({case.loss for case in cases} - {"boundary", "dense_info_nce"}))
def test_compiled_without_a_break_in_the_graph(loss: str) -> None:
    # `dense_info_nce` takes the pixels of each nucleus apart: the sizes depend on the labels.
    f = Function(next(case for case in cases if case.loss == loss))
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*f.inputs), f(*f.inputs))


@pytest.mark.parametrize("case", [case for case in cases if str(case) in READS], ids=str)
def test_distances_say_how_they_are_had_inside_a_transformation(case: Case) -> None:
    f = Function(case)
    with pytest.raises(LossInputError, match="give it as distance="):
        torch.func.vmap(f)(*(x.unsqueeze(0) for x in f.inputs))


def large(**changes: Any) -> dict[str, Any]:
    """Arguments at which `cross_entropy` runs by a kernel."""
    logits, target = torch.randn(2, 3, 96, 96), torch.randint(0, 3, (2, 96, 96))
    return {"logits": logits, "target": target, **changes}


@pytest.fixture
def kernels() -> None:
    if not losses.warm_up("cross_entropy", "dice", "kl_divergence"):
        pytest.skip("There is no compiler of kernels.")


@pytest.mark.usefixtures("kernels")
def test_batched_gradients_through_a_kernel() -> None:
    inputs = large()
    for loss in (losses.cross_entropy, losses.dice):
        x = inputs["logits"].clone().requires_grad_()
        (one,) = torch.autograd.grad(loss(x, inputs["target"]), x)
        y = loss(x, inputs["target"])
        (several,) = torch.autograd.grad(y, x, torch.tensor([1.0, -2.0]), is_grads_batched=True)
        torch.testing.assert_close(several, torch.stack([one, -2 * one]))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", ["target", "mask", "weight"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_constant_that_was_changed_in_place_is_an_error_and_no_other_gradient(name: str, soft: bool) -> None:
    inputs = large(mask=torch.rand(2, 96, 96) > 0.2, weight=torch.rand(2, 96, 96))
    inputs["logits"].requires_grad_()
    if soft:
        inputs["target"] = torch.randn(2, 3, 96, 96).softmax(1)
    y = losses.cross_entropy(**inputs)
    inputs[name].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.usefixtures("kernels")
def test_labels_that_were_changed_in_place_are_an_error_in_overlap_losses() -> None:
    inputs = large()
    y = losses.dice(inputs["logits"].requires_grad_(), inputs["target"])
    inputs["target"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.usefixtures("kernels")
def test_constants_that_were_made_in_inference_mode() -> None:
    x = torch.randn(2, 3, 96, 96, requires_grad=True)
    with torch.inference_mode():
        labels, soft = torch.randint(0, 3, (2, 96, 96)), torch.rand(2, 3, 96, 96)
        mask, weight = torch.rand(2, 96, 96) > 0.2, torch.rand(2, 96, 96)
    for loss, target, more in (
        (losses.dice, labels, {"mask": mask}),
        (partial(losses.dice, multilabel=True), soft, {}),
        (losses.cross_entropy, labels, {"mask": mask, "weight": weight}),
        (losses.cross_entropy, soft, {"check": False}),
        (losses.binary_cross_entropy, soft, {}),
        (lambda p, q: losses.kl_divergence(p=p, q=q), soft, {}),
    ):
        gradients = []
        for y in (target, target.clone()):
            (g,) = torch.autograd.grad(loss(x, y, **more), x)
            gradients.append(g)
        assert torch.equal(*gradients)


def elements(n: int) -> tuple[Tensor, ...]:
    return torch.randn(2, n, n, 3).movedim(-1, 1), torch.ones(2, 3, n, n)


def pixels(n: int) -> tuple[Tensor, ...]:
    return torch.randn(2, 3, n, n), torch.randint(0, 3, (2, n, n))


def embedded(n: int) -> tuple[Tensor, ...]:
    return torch.randn(12 * n, 8), torch.randn(12 * n, 8)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("loss", "inputs"), [
    ("binary_cross_entropy", elements), ("sigmoid_focal", elements), ("cross_entropy", pixels), ("dice", pixels),
    ("lovasz_softmax", pixels), ("info_nce", embedded),
])  # fmt: skip
def test_one_graph_for_few_numbers_and_for_many(loss: str, inputs: Callable[[int], tuple[Tensor, ...]]) -> None:
    """No fast version looks at strides or sizes there, which the graph would hold on to."""
    f, counter = losses.by_name(loss), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend=counter, dynamic=True)
    for n in (96, 200, 20, 8):
        given = inputs(n)
        torch.testing.assert_close(compiled(*given), f(*given))
    assert counter.frame_count == 1
    for n in (8, 96):
        batch = torch.export.Dim("batch", min=2, max=1 << 20)
        torch.export.export(Module(f), inputs(n), dynamic_shapes=(({0: batch}, {0: batch}),))


@pytest.mark.usefixtures("kernels")
def test_class_weights_of_any_strides() -> None:
    soft = torch.randn(2, 3, 96, 96).softmax(1)
    for weight in (torch.rand(3, 2)[:, 0], torch.ones(1).expand(3)):
        for target in (soft, large()["target"]):
            inputs = large(target=target, class_weight=weight)
            with losses.use_kernels(False):
                plain = losses.cross_entropy(**inputs)
            torch.testing.assert_close(losses.cross_entropy(**inputs), plain)


@pytest.mark.parametrize("name", ["class_weight", "weight"])
def test_learnt_weights_of_many_scores_have_their_gradient(name: str) -> None:
    f, projection, y = torch.randn(4096, 16), torch.randn(300, 16), torch.randint(0, 300, (4096,))
    w = torch.linspace(0.1, 1, 300 if name == "class_weight" else 4096, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(losses.linear_cross_entropy(f, projection, y, **{name: w}), w)[0]

    with losses.use_kernels(False):
        plain = gradient()
    torch.testing.assert_close(gradient(), plain)


@pytest.mark.parametrize("loss", [losses.info_nce, losses.clip_loss])
def test_learnt_weights_of_pairs_have_their_gradient(loss: Any) -> None:
    a, b, w = torch.randn(1100, 8), torch.randn(1100, 8), torch.rand(1100, requires_grad=True)
    with losses.use_kernels(False):
        (plain,) = torch.autograd.grad(loss(a, b, weight=w), w)
    torch.testing.assert_close(torch.autograd.grad(loss(a, b, weight=w), w)[0], plain)


def test_settings_of_overlapping_threads_end_with_them() -> None:
    started, ended = threading.Barrier(2), threading.Barrier(2)

    def user(first: bool) -> None:
        with losses.use_checks(False):
            started.wait()
            if first:
                ended.wait()
        if not first:
            ended.wait()

    threads = [threading.Thread(target=user, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(LossInputError, match="NaN"):
        losses.cross_entropy(torch.full((1, 2), float("nan")), torch.tensor([0]))


def selecting(case: Case) -> Case:
    """The case with a mask, and with weights of positions that hold zeros where the loss takes such."""
    mask = torch.ones(case.mask, dtype=torch.bool)
    mask.view(-1)[::3] = False
    more: dict[str, Any] = {"mask": mask}
    if "weight" in inspect.signature(losses.by_name(case.loss)).parameters:
        weight = torch.rand(case.mask, dtype=torch.float64)
        weight.view(-1)[1] = 0.0
        more["weight"] = weight
    return replace(case, options={**case.options, **more})


one_each = pytest.mark.parametrize(
    "case", list({case.loss: case for case in cases if str(case) not in READS}.values()), ids=str
)


@one_each
def test_vmap_with_a_mask_and_weights_of_zero(case: Case) -> None:
    test_vmap_is_a_loop(selecting(case))


@one_each
def test_forward_mode_with_a_mask_and_weights_of_zero(case: Case) -> None:
    test_forward_mode_agrees_with_the_backward_pass(selecting(case))


@one_each
def test_one_graph_with_a_mask_and_weights_of_zero(case: Case) -> None:
    if case.loss == "dense_info_nce":
        pytest.skip("It takes the pixels of each nucleus apart: the sizes depend on the labels.")
    if case.loss in ("barlow_twins", "vicreg"):
        pytest.skip("It is 0 of fewer than two rows: how many there are depends on the mask.")
    f = Function(selecting(case))
    expected = f(*f.inputs)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend="eager")(*f.inputs), expected)


class Module(torch.nn.Module):
    def __init__(self, f: Callable[..., Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, *values: Tensor) -> Tensor:
        return self.f(*values)


@one_each
def test_export(case: Case) -> None:
    if case.loss == "dense_info_nce":
        pytest.skip("It takes the pixels of each nucleus apart: the sizes depend on the labels.")
    f = Function(case)
    exported = torch.export.export(Module(f), f.inputs)
    torch.testing.assert_close(exported.module()(*f.inputs), f(*f.inputs))


@pytest.mark.parametrize("check", [None, False])
@every
def test_without_checks_no_value_is_read(case: Case, check: bool | None) -> None:
    """On the meta device there are no values; what reads one there waits for an accelerator."""
    if case.loss == "dense_info_nce":
        pytest.skip("It takes the pixels of each nucleus apart: the sizes depend on the labels.")
    given = {**case.inputs, **{k: x for k, x in case.options.items() if isinstance(x, Tensor)}}
    moved = {k: x.to("meta") if isinstance(x, Tensor) else x for k, x in given.items()}
    assert call(case, **moved, check=check).device.type == "meta"
