"""Products in blocks: the same as all at once, in value, gradient and second derivative, and little memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from nucleate import losses
from nucleate.losses.kernels import row_blocks

Inputs = dict[str, Any]
Call = tuple[str, Inputs, tuple[str, ...]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time, from the first row on."""
    monkeypatch.setattr(row_blocks, "FEWEST", 1)
    monkeypatch.setattr(row_blocks, "_BLOCK", 16)
    monkeypatch.setattr(row_blocks, "_ROWS", 3)


def calls() -> dict[str, Call]:
    """name -> (loss, arguments, those that may have a gradient)."""
    g = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def positive(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64) + 0.1

    n = 7
    mask = torch.tensor([True, True, False, True, True, True, False])
    learnt = {"temperature": torch.tensor(0.4, dtype=torch.float64), "weight": positive(n)}
    found: dict[str, Call] = {}
    pair = {"query": normal(n, 4), "key": normal(n, 4), **learnt}
    found["info_nce"] = ("info_nce", pair, tuple(pair))
    queue = {**pair, "negatives": normal(3, 4)}
    found["queue"] = ("info_nce", {**queue, "mask": mask}, tuple(queue))
    found["hard"] = ("info_nce", {**queue, "hardness": 0.7}, tuple(queue))
    found["moco"] = ("info_nce", {**queue, "in_batch": False}, tuple(queue))
    two = {"first": normal(n, 4), "second": normal(n, 4), **learnt}
    for loss in ("clip_loss", "nt_xent", "decoupled"):
        found[loss] = (loss, two, tuple(two))
    found["nt_xent masked"] = ("nt_xent", {**two, "mask": mask}, tuple(two))
    bias = {**two, "bias": torch.tensor(-1.0, dtype=torch.float64)}
    found["siglip"] = ("siglip", bias, tuple(bias))
    one = {"features": normal(n, 4), **learnt}
    found["sup_con"] = ("sup_con", {**one, "labels": torch.tensor([0, 1, 0, 2, 1, 1, 3])}, tuple(one))
    match = torch.randint(-1, 6, (2, 3, 2), generator=g)
    dense = {"query": normal(2, 4, 3, 2), "key": normal(2, 4, 3, 2), **learnt, "weight": positive(2, 3, 2)}
    for negatives in ("image", "batch"):
        found[f"dense {negatives}"] = (
            "dense_info_nce",
            {**dense, "match": match, "negatives": negatives},
            tuple(dense),
        )
    layer = {"features": normal(2, 4, 3, 2), "projection": normal(5, 4), "bias": normal(5),
             "class_weight": positive(5), "weight": positive(2, 3, 2)}  # fmt: skip
    index = torch.randint(0, 5, (2, 3, 2), generator=g)
    found["index"] = ("linear_cross_entropy", {**layer, "target": index, "ignore_index": 2}, tuple(layer))
    smooth = {"label_smoothing": 0.2, "normalize": "count", "mask": index != 1}
    found["smooth"] = ("linear_cross_entropy", {**layer, "target": index, **smooth}, tuple(layer))
    soft = {**layer, "target": normal(2, 5, 3, 2).softmax(1)}
    found["soft"] = ("linear_cross_entropy", {**soft, "label_smoothing": 0.3, "check": False}, tuple(soft))
    last = {"features": normal(6, 4), "projection": normal(5, 4), "target": normal(6, 5).softmax(1)}
    found["rows"] = ("linear_cross_entropy", {**last, "check": False}, tuple(last))
    return found


CALLS = calls()
every = pytest.mark.parametrize("name", CALLS)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def function(name: str, reduction: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    loss, inputs, grad = CALLS[name]

    def run(*values: Tensor) -> Tensor:
        return losses.by_name(loss)(**{**inputs, **dict(zip(grad, values, strict=True))}, reduction=reduction)

    return run, [inputs[k].clone().requires_grad_() for k in grad]


def in_blocks(value: Tensor) -> bool:
    """Whether a node of the blocks stands in the graph of `value`."""
    seen, names = [value.grad_fn], set()
    while seen:
        node = seen.pop()
        if node is not None:
            names.add(type(node).__name__)
            seen += [n for n, _ in node.next_functions]
    return "_InBlocksBackward" in names


@every
@reductions
def test_value_and_gradient_are_those_of_all_products_at_once(name: str, reduction: str) -> None:
    found = []
    for fast in (True, False):
        run, leaves = function(name, reduction)
        with losses.use_kernels(fast):
            value = run(*leaves)
            assert in_blocks(value) == fast
            given = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
            found.append((value.detach(), torch.autograd.grad(value, leaves, given)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


@every
def test_first_and_second_derivative(name: str) -> None:
    run, leaves = function(name, "mean" if len(name) % 2 else "none")
    assert gradcheck(run, tuple(leaves), check_batched_grad=True)
    assert gradgradcheck(run, tuple(leaves), atol=1e-4)


@every
def test_a_second_backward_pass_and_another_factor(name: str) -> None:
    run, leaves = function(name, "mean")
    value = run(*leaves)
    first = [g.clone() for g in torch.autograd.grad(value, leaves, retain_graph=True)]
    second = torch.autograd.grad(value, leaves)
    torch.testing.assert_close(second, tuple(first))
    for factor in (3.0, 0.0):
        again = torch.autograd.grad(factor * run(*leaves), leaves)
        torch.testing.assert_close(again, tuple(factor * g for g in first))


@every
def test_strided_and_expanded_inputs(name: str) -> None:
    run, leaves = function(name, "sum")
    expected = torch.autograd.grad(run(*leaves), leaves)
    strided = [torch.stack((x, x), -1)[..., 0].detach().requires_grad_() for x in leaves]
    torch.testing.assert_close(torch.autograd.grad(run(*strided), strided), expected)
    same = [x.detach().flatten()[0].expand(x.shape).requires_grad_() for x in leaves]
    held = [x.detach().clone().requires_grad_() for x in same]
    with losses.use_checks(False), losses.use_kernels(False):
        value = run(*held)
        slopes = torch.autograd.grad(value, held)
    with losses.use_checks(False):
        torch.testing.assert_close(run(*same), value)
        torch.testing.assert_close(torch.autograd.grad(run(*same), same), slopes)


def test_a_constant_that_was_changed_in_place_is_an_error() -> None:
    for name, constant in (("sup_con", "labels"), ("soft", "target")):
        loss, inputs, grad = CALLS[name]
        held = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs.items()}
        held[grad[0]].requires_grad_()
        value = losses.by_name(loss)(**held, reduction="none").sum()
        held[constant].zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.parametrize("loss", [losses.info_nce, losses.clip_loss, losses.nt_xent])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
def test_the_second_derivative_where_queries_and_keys_are_one_tensor(loss: Any, hardness: float) -> None:
    options = {"hardness": hardness} if loss is losses.info_nce else {}
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for fast in (True, False):
        with losses.use_kernels(fast):
            (slope,) = torch.autograd.grad(loss(x, x, similarity="dot", **options), x, create_graph=True)
            found.append((slope.detach(), torch.autograd.grad(slope.square().sum(), x)[0]))
    torch.testing.assert_close(*found)


def test_what_is_not_selected_reaches_no_gradient() -> None:
    """NaN in a feature that is masked or of weight 0 must not come into the gradient of the layer."""
    x, layer, y = torch.randn(9, 3), torch.randn(4, 3, requires_grad=True), torch.arange(9) % 4
    y[2] = 255
    w, mask = torch.ones(9), torch.ones(9, dtype=torch.bool)
    w[3], mask[4] = 0, False
    bad = x.clone()
    bad[2:5] = torch.nan
    bad.requires_grad_()
    kept = torch.tensor([0, 1, 5, 6, 7, 8])
    for smoothing in (0.0, 0.1):
        for fast in (True, False):
            with losses.use_kernels(fast):
                value = losses.linear_cross_entropy(
                    bad, layer, y, ignore_index=255, weight=w, mask=mask, label_smoothing=smoothing
                )
            expected = losses.linear_cross_entropy(x[kept], layer, y[kept], label_smoothing=smoothing)
            torch.testing.assert_close(value, expected)
            by_rows, by_layer = torch.autograd.grad(value, (bad, layer))
            torch.testing.assert_close(by_layer, torch.autograd.grad(expected, layer)[0])
            assert (by_rows[2:5] == 0).all()


def test_targets_are_checked_in_every_block() -> None:
    x, layer, soft = torch.randn(40, 3), torch.randn(4, 3), torch.full((40, 4), 0.25)
    soft[-1, 0] = 0.5
    with pytest.raises(losses.LossInputError, match="sum to 1"):
        losses.linear_cross_entropy(x, layer, soft)
    mask = torch.arange(40) < 39
    losses.linear_cross_entropy(x, layer, soft, mask=mask)
    with pytest.raises(losses.LossInputError, match="class 4"):
        losses.linear_cross_entropy(x, layer, torch.full((40,), 4), label_smoothing=0.1)
    with pytest.raises(losses.LossInputError, match=r"\(40, 3\)"):
        losses.linear_cross_entropy(x, layer, soft[:, :3])


def peak(run: Callable[[], object]) -> int:
    """The most bytes of tensors that `run` holds at once."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    kept = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            kept += event.nbytes()
            most = max(most, kept)
    return most


N = 1200


def large(reduction: str) -> dict[str, Callable[[], Tensor]]:
    """Losses of so many rows that all their products are 5.8 MB."""

    def rows(*shape: int) -> Tensor:
        return torch.randn(*(shape or (N, 8)), requires_grad=True)

    a, b, w = rows(), rows(), torch.rand(N, requires_grad=True)
    label, soft = torch.arange(N) // 8, torch.full((N, N), 1 / N)
    options: dict[str, Any] = {"reduction": reduction, "check": False}
    pixels = rows(1, 8, N), rows(1, 8, N), torch.arange(N).view(1, N)
    return {
        "info_nce": lambda: losses.info_nce(a, b, weight=w, **options),
        "hard": lambda: losses.info_nce(a, b, hardness=1.0, **options),
        "clip_loss": lambda: losses.clip_loss(a, b, weight=w, **options),
        "nt_xent": lambda: losses.nt_xent(a, b, **options),
        "decoupled": lambda: losses.decoupled(a, b, **options),
        "siglip": lambda: losses.siglip(a, b, **options),
        "sup_con": lambda: losses.sup_con(a, label, **options),
        "dense": lambda: losses.dense_info_nce(*pixels, **options),
        "smooth": lambda: losses.linear_cross_entropy(a, b, label, label_smoothing=0.1, **options),
        "soft": lambda: losses.linear_cross_entropy(a, b, soft, label_smoothing=0.1, mask=label > 3, **options),
        "learnt": lambda: losses.linear_cross_entropy(a, b, label, class_weight=w, **options),
    }


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", large("mean"))
def test_no_more_than_a_few_blocks_are_held(name: str, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "_BLOCK", 1 << 14)
    call = large(reduction)[name]
    products = 4 * N * N
    assert peak(lambda: call().sum().backward()) < 0.5 * products
    with losses.use_kernels(False):
        assert peak(lambda: call().sum().backward()) > 2 * products
