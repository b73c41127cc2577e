"""Distance-based losses against PyTorch, arbitrary precision and the laws that each of them has."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import LossInputError

DISTANCES: dict[str, dict[str, Any]] = {
    "l1": {}, "mse": {}, "huber": {"delta": 0.7}, "smooth_l1": {"beta": 0.7}, "log_cosh": {}, "quantile": {"q": 0.3},
}  # fmt: skip
distances = pytest.mark.parametrize("name", DISTANCES)
numbers = st.floats(-1e3, 1e3)


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True), torch.randn(*shape, dtype=torch.float64)


def value(name: str, x: float, t: float, **options: float) -> float:
    x, t = (torch.tensor([v], dtype=torch.float64) for v in (x, t))
    return float(losses.by_name(name)(x, t, **{**DISTANCES[name], **options}))


# against PyTorch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_gradients_are_pytorchs(reduction: Any) -> None:
    x, t = pair(4, 5)
    v, how = torch.rand(4, 5, dtype=torch.float64) + 0.1, {"reduction": reduction}
    count = torch.randint(0, 2, (4, 5)).double()  # above 1 PyTorch approximates the factorial
    same = {
        "l1": (losses.l1(x, t, **how), F.l1_loss(x, t, **how)),
        "mse": (losses.mse(x, t, **how), F.mse_loss(x, t, **how)),
        "huber": (losses.huber(x, t, delta=0.7, **how), F.huber_loss(x, t, delta=0.7, **how)),
        "smooth_l1": (losses.smooth_l1(x, t, beta=0.7, **how), F.smooth_l1_loss(x, t, beta=0.7, **how)),
        "kink": (losses.smooth_l1(x, t, beta=0, **how), F.l1_loss(x, t, **how)),
        "counts": (losses.poisson_nll(x, count, full=True, **how), F.poisson_nll_loss(x, count, full=True, **how)),
        "rates": (
            losses.poisson_nll(x.abs(), count, log_input=False, **how),
            F.poisson_nll_loss(x.abs(), count, log_input=False, **how),
        ),
        "normal": (losses.gaussian_nll(x, t, v, full=True, **how), F.gaussian_nll_loss(x, t, v, full=True, **how)),
        "log v": (losses.gaussian_nll(x, t, v.log(), log_variance=True, **how), F.gaussian_nll_loss(x, t, v, **how)),
    }
    for name, (ours, theirs) in same.items():
        torch.testing.assert_close(ours, theirs, msg=name)
        gradients = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (ours, theirs))
        torch.testing.assert_close(*gradients, msg=name)


def test_a_weighted_mean_divides_by_the_weights_as_pytorchs_does() -> None:
    x, t = pair(4, 5)
    w = torch.rand(4, 5, dtype=torch.float64)
    torch.testing.assert_close(losses.mse(x, t, weight=w), F.mse_loss(x, t, weight=w))
    torch.testing.assert_close(losses.l1(x, t, weight=w), F.l1_loss(x, t, weight=w))


def test_the_named_differences_from_pytorch() -> None:
    two = torch.tensor([2.0])
    exact = losses.poisson_nll(torch.zeros(1), two, full=True)
    assert exact.item() == pytest.approx(1 + math.log(2))
    assert abs(F.poisson_nll_loss(torch.zeros(1), two, full=True) - exact) > 0.03
    below = torch.tensor([1e-9], requires_grad=True)
    losses.gaussian_nll(torch.ones(1), torch.zeros(1), below).backward()
    assert below.grad == 0
    for name in DISTANCES:
        with pytest.raises(LossInputError, match=r"\(4,\) but must have shape \(4, 1\)"):
            losses.by_name(name)(torch.zeros(4, 1), torch.zeros(4))


# against arbitrary precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("r", [0.0, 1e-20, -1e-6, 1e-3, 0.3, -0.9999, 1.0, -1.5, 20.0, -90.0, 1e4])
def test_log_cosh_and_its_slope_at_any_distance(r: float, dtype: torch.dtype) -> None:
    x = torch.tensor([r], dtype=dtype, requires_grad=True)
    found = losses.log_cosh(x, torch.zeros(1))
    found.backward()
    with mp.workdps(60):
        held = mpf(x.item())
        exact, slope = mpmath.log(mpmath.cosh(held)), mpmath.tanh(held)
        tiny = mpf(torch.finfo(dtype).tiny)
        assert abs(mpf(found.item()) - exact) <= 8 * torch.finfo(dtype).eps * exact + tiny
        assert abs(mpf(x.grad.item()) - slope) <= 8 * torch.finfo(dtype).eps * abs(slope) + tiny


@pytest.mark.parametrize("log_rate", [-30.0, 0.0, 5.0, 80.0])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_poisson(log_rate: float, count: int) -> None:
    x, t = torch.tensor([log_rate], dtype=torch.float64), torch.tensor([count])
    exact = mpmath.exp(mpf(log_rate)) - count * mpf(log_rate) + mpmath.log(mpmath.factorial(count))
    assert losses.poisson_nll(x, t, full=True).item() == pytest.approx(float(exact), rel=1e-12)


def test_normal_with_variances_that_no_type_holds() -> None:
    s = torch.tensor([-150.0, 150.0], requires_grad=True)  # exp(150) is infinite in float32
    losses.gaussian_nll(torch.zeros(2), torch.zeros(2), s, log_variance=True, reduction="sum").backward()
    assert s.grad.tolist() == [0.5, 0.5]


# laws
@distances
@given(numbers, numbers, st.floats(0, 1))
def test_distances_are_convex_and_zero_only_at_the_target(name: str, a: float, b: float, share: float) -> None:
    at_a, at_b, between = (value(name, r, 0.0) for r in (a, b, share * a + (1 - share) * b))
    assert between <= share * at_a + (1 - share) * at_b + 1e-9 * (1 + at_a + at_b)
    assert at_a >= 0
    assert value(name, a, a) == 0
    assert at_a > 0 or abs(a) < 1e-150


@distances
@given(numbers, numbers)
def test_distances_see_the_difference_alone(name: str, x: float, t: float) -> None:
    r = x - t
    assert value(name, x, t) == value(name, r, 0.0)
    mirrored = {"q": 1 - DISTANCES[name]["q"]} if name == "quantile" else {}
    assert value(name, -r, 0.0, **mirrored) == pytest.approx(value(name, r, 0.0), rel=1e-12)


@given(numbers, st.floats(1e-3, 1e3))
def test_huber_is_delta_times_smooth_l1(r: float, delta: float) -> None:
    h, s = value("huber", r, 0.0, delta=delta), value("smooth_l1", r, 0.0, beta=delta)
    assert h == pytest.approx(delta * s, rel=1e-12, abs=1e-300)
    assert h <= value("mse", r, 0.0) / 2 * (1 + 1e-12)
    assert s <= value("l1", r, 0.0) * (1 + 1e-12)


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_best_constant_prediction_is_the_quantile(q: float) -> None:
    t = torch.randn(101, dtype=torch.float64)
    tried = t.sort().values
    sums = torch.stack([losses.quantile(x.expand(101), t, q=q) for x in tried])
    assert sums.min() == pytest.approx(losses.quantile(t.quantile(q).expand(101), t, q=q).item())
    if 0 < q < 1:
        assert tried[sums.argmin()] == t.quantile(q)


def test_half_of_l1_is_the_pinball_loss_of_the_median() -> None:
    x, t = pair(6)
    t[0] = x[0].detach()
    (half,), (full,) = (torch.autograd.grad(y, x) for y in (losses.quantile(x, t), losses.l1(x, t)))
    torch.testing.assert_close(half, full / 2, rtol=0, atol=0)


# positions and elements
@pytest.mark.parametrize("name", [*DISTANCES, "poisson_nll", "gaussian_nll"])
def test_a_mask_of_positions_is_that_of_their_channels(name: str) -> None:
    x, t = pair(2, 3, 4)
    more = {"variance": torch.rand(2, 3, 4, dtype=torch.float64) + 0.1} if name == "gaussian_nll" else {}
    mask, weight = torch.rand(2, 4) > 0.4, torch.rand(2, 4, dtype=torch.float64)
    inputs = {"prediction": x, "target": t.abs(), **more}
    loss = losses.by_name(name)
    wide = {"mask": mask.unsqueeze(1).expand_as(x), "weight": weight.unsqueeze(1).expand_as(x)}
    for reduction in ("pair", "none", "mean"):
        found = loss(**inputs, channel_dim=1, mask=mask, weight=weight, reduction=reduction)
        torch.testing.assert_close(found, loss(**inputs, **wide, reduction=reduction))
    assert loss(**inputs, channel_dim=-2, mask=mask) == loss(**inputs, channel_dim=1, mask=mask)
    assert loss(**inputs, channel_dim=1) == loss(**inputs)
    with pytest.raises(LossInputError, match="channel_dim=3 is not a dimension"):
        loss(**inputs, channel_dim=3)
    with pytest.raises(LossInputError, match=r"\(2, 4\) but must have shape \(2, 3, 4\)"):
        loss(**inputs, mask=mask)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*DISTANCES, "poisson_nll", "gaussian_nll"])
def test_a_weight_of_zero_selects_nothing(name: str, bad: float) -> None:
    x, t = torch.randn(5, requires_grad=True), torch.rand(5)
    more = {"variance": torch.rand(5) + 0.1} if name == "gaussian_nll" else {}
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0], requires_grad=True)
    spoilt = {k: v.detach().clone() for k, v in {"prediction": x, "target": t, **more}.items()}
    for v in spoilt.values():
        v[2] = bad
    spoilt["prediction"].requires_grad_()
    ours, plain = losses.by_name(name)(**spoilt, weight=weight), losses.by_name(name)(x, t, **more, weight=weight)
    assert ours == plain
    (g, gw), (e, ew) = (
        torch.autograd.grad(ours, (spoilt["prediction"], weight)),
        torch.autograd.grad(plain, (x, weight)),
    )
    torch.testing.assert_close(g, e, rtol=0, atol=0)
    assert ew[2] != 0  # a learnt weight of 0 has a slope, but where what stands there is not finite
    torch.testing.assert_close(gw, ew.index_fill(0, torch.tensor([2]), 0.0), rtol=0, atol=0)
    assert g[2] == 0


def test_a_float64_target_does_not_widen_the_result() -> None:
    for name in DISTANCES:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            found = losses.by_name(name)(torch.ones(3, dtype=dtype), torch.zeros(3, dtype=torch.float64))
            assert found.dtype == torch.float32
    assert losses.mse(torch.full((2,), 300.0).half(), torch.zeros(2)) == 90_000  # above float16's largest number


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: losses.huber(x, x, delta=0.0), "delta must be a number above 0, got 0.0"),
        (lambda x: losses.smooth_l1(x, x, beta=-1.0), "beta must be a number in 0..inf"),
        (lambda x: losses.quantile(x, x, q=1.5), "q must be a number in 0..1"),
        (lambda x: losses.poisson_nll(x, -x), "target must lie in 0..inf, but holds -1; it holds counts"),
        (lambda x: losses.poisson_nll(-x, x, log_input=False), "log_input=True"),
        (lambda x: losses.poisson_nll(x, x, eps=0.0), "eps must be a number above 0"),
        (lambda x: losses.gaussian_nll(x, x, -x), "log_variance=True"),
        (lambda x: losses.gaussian_nll(x, x, x[:1]), r"variance has shape \(1,\)"),
        (lambda x: losses.l1(x.long(), x), "floating-point"),
        (lambda x: losses.l1(x, x.to(torch.complex64)), "target must be real, got torch.complex64"),
        (lambda x: losses.Huber(delta=0.0), "Huber: delta must be a number above 0"),
    ],
)
def test_mistakes_are_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(LossInputError, match=said) as raised:
        call(torch.ones(2))
    assert "\n" not in str(raised.value)
