"""The type of a result is that of the predictions alone; a shift of all logits changes no bit, in any type."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.test_every_loss import CASES, Case, call
from torch import Tensor

from nucleate import losses

# What the result takes its type from; all else (targets, weights, distances, temperatures) is a constant beside it.
PREDICTIONS = {
    "logits", "prediction", "score", "p", "q", "first", "second", "query", "key", "features", "anchor", "positive",
    "negative", "projection", "predictions", "student",
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_constants_of_float64_do_not_widen_the_result(case: Case, dtype: torch.dtype) -> None:
    said = {
        name: x.to(dtype)
        if (name in PREDICTIONS or name.endswith("_prediction")) and isinstance(x, Tensor) and x.is_floating_point()
        else x
        for name, x in {**case.inputs, **case.options}.items()
    }
    reductions = ["mean", "pair"] if case.loss in ("barlow_twins", "vicreg") or not case.grad else ["mean", "none"]
    for reduction in reductions:
        assert call(case, **{**said, "reduction": reduction, "check": False}).dtype == torch.float32


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_default_type_does_not_widen_the_result(case: Case) -> None:
    try:
        torch.set_default_dtype(torch.float64)
        test_constants_of_float64_do_not_widen_the_result(case, torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["info_nce", "clip_loss", "nt_xent", "siglip", "dense_info_nce"])
def test_weights_of_another_type_in_blocks(name: str, reduction: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1100, 8, generator=g, dtype=torch.float64) for _ in range(2))
    w = torch.rand(1100, generator=g)
    more = {}
    if name == "dense_info_nce":
        x, y, w, more = x.T.unsqueeze(0), y.T.unsqueeze(0), w.unsqueeze(0), {"match": torch.arange(1100).unsqueeze(0)}
    x.requires_grad_()
    results = [losses.by_name(name)(x, y, weight=v, reduction=reduction, **more) for v in (w, w.double())]
    torch.testing.assert_close(*(torch.autograd.grad(r, x)[0] for r in results))


OF_LABELS = {"margin_ranking": {"target": torch.ones(4, 3)}, "dense_info_nce": {"match": torch.arange(3).expand(4, 3)}}


@pytest.mark.parametrize("name", [
    "kl_divergence", "jensen_shannon", "renyi", "generalized_kl", "margin_ranking", "info_nce", "clip_loss", "siglip",
    "dense_info_nce", "barlow_twins",
])  # fmt: skip
def test_two_predictions_give_the_wider_type(name: str) -> None:
    wide, narrow = torch.rand(4, 3).double() + 0.1, torch.rand(4, 3) + 0.1
    if name == "dense_info_nce":
        wide, narrow = wide.unsqueeze(1), narrow.unsqueeze(1)
    label = OF_LABELS.get(name, {})
    keys = [key for key in inspect.signature(losses.by_name(name)).parameters if key in PREDICTIONS][:2]
    for pair in ((wide, narrow), (narrow, wide)):
        assert losses.by_name(name)(**dict(zip(keys, pair, strict=True)), **label).dtype == torch.float64


Call = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
OF_CLASSES: dict[str, Call] = {
    "cross_entropy": lambda x, y, t, s: losses.cross_entropy(x, t),
    "cross_entropy smoothed": lambda x, y, t, s: losses.cross_entropy(x, t, label_smoothing=0.1),
    "cross_entropy soft": lambda x, y, t, s: losses.cross_entropy(x, s),
    "focal": lambda x, y, t, s: losses.focal(x, t),
    "multiclass_hinge": lambda x, y, t, s: losses.multiclass_hinge(x, t),
    "dice": lambda x, y, t, s: losses.dice(x, t),
    "lovasz_softmax": lambda x, y, t, s: losses.lovasz_softmax(x, t),
    "entropy": lambda x, y, t, s: losses.measures.entropy(x),
    **{
        name: partial(lambda fn, x, y, t, s: fn(p=x, q=y), losses.by_name(name))
        for name in ("kl_divergence", "jensen_shannon", "total_variation", "hellinger", "renyi", "wasserstein_1d")
    },
}
STEPS = {torch.float32: (0.125, 17), torch.float16: (0.125, 6), torch.bfloat16: (1.0, 6)}  # spacing, largest shift 2^n


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, 99), st.sampled_from(list(STEPS)), st.floats(-1, 1), st.sampled_from([3, 9]), st.booleans()
)  # fmt: skip
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_shift_that_the_type_holds_changes_no_bit(
    name: str, fast: bool, seed: int, dtype: torch.dtype, share: float, classes: int, last: bool
) -> None:
    spacing, power = STEPS[dtype]
    shift = round(share * 2**power / spacing) * spacing if dtype != torch.bfloat16 else round(share * 2**power)
    g = torch.Generator().manual_seed(seed)
    side = 128 if fast else 6  # the kernels begin at some size
    x, y = ((torch.randn(1, classes, side, side, generator=g) * 3 / spacing).round() * spacing for _ in range(2))
    x, y = (v.to(dtype).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
            for v in (x, y))  # fmt: skip
    target = torch.randint(0, classes, (1, side, side), generator=g)
    soft = torch.randn(x.shape, generator=g).softmax(1).contiguous()
    if fast:
        losses.warm_up()
    found = []
    with losses.use_kernels(fast):
        for by in (0.0, shift):
            a, b = ((v + by).requires_grad_() for v in (x, y))
            assert torch.equal(a - by, x)
            value = OF_CLASSES[name](a, b, target, soft)
            value.backward()
            found.append([value, a.grad, *([] if b.grad is None else [b.grad])])
    for before, after in zip(*found, strict=True):
        assert torch.equal(before, after)
