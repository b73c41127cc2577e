"""Centre lines and distances of regions, beside those that SciPy's filters give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from nucleate import losses
from nucleate.losses import LossInputError, Probabilities
from nucleate.losses.topology import soft_skeleton

Image = NDArray[np.float64]
SIDES = {1: (9,), 2: (7, 8), 3: (4, 5, 6)}


def skeleton(x: Image, iterations: int) -> Image:
    """The iterated opening of one image."""
    cross = ndimage.generate_binary_structure(x.ndim, 1)
    result = np.zeros_like(x)
    for _ in range(iterations + 1):
        smaller = ndimage.minimum_filter(x, footprint=cross, mode="nearest")
        removed = np.maximum(x - ndimage.maximum_filter(smaller, size=3, mode="nearest"), 0)
        result = result + np.maximum(removed - result * removed, 0)
        x = smaller
    return result


def contour(region: NDArray[np.bool_]) -> Image:
    """How far each pixel lies from the nearest one of the other kind."""
    if region.all() or not region.any():
        return np.zeros(region.shape)
    return ndimage.distance_transform_edt(region) + ndimage.distance_transform_edt(~region)


def drawn(seed: int, axes: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(2, classes, *SIDES[axes], generator=g, dtype=torch.float64)).softmax(1)
    return p, torch.randint(0, classes, (2, *SIDES[axes]), generator=g)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_the_soft_skeleton_is_the_iterated_opening(axes: int, iterations: int) -> None:
    p, _ = drawn(0, axes)
    found = soft_skeleton(p, iterations)
    for n in range(2):
        for c in range(3):
            np.testing.assert_allclose(found[n, c].numpy(), skeleton(p[n, c].numpy(), iterations), atol=1e-14)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_cl_dice_is_its_formula(axes: int, smooth: float) -> None:
    p, target = drawn(1, axes)
    found = losses.cl_dice(Probabilities(p), target, smooth=smooth, iterations=2, reduction="none")
    sums = []
    for n in range(2):
        for c in range(3):
            x, t = p[n, c].numpy(), (target[n] == c).double().numpy()
            line, true_line = skeleton(x, 2), skeleton(t, 2)
            sums.append([(line * t).sum(), line.sum(), (true_line * x).sum(), true_line.sum()])
            precision = (sums[-1][0] + smooth) / (sums[-1][1] + smooth)
            sensitivity = (sums[-1][2] + smooth) / (sums[-1][3] + smooth)
            exact = 1 - 2 * precision * sensitivity / (precision + sensitivity)
            assert found[n, c].item() == pytest.approx(exact, abs=1e-12)
    hit, line, met, true_line = np.array(sums).reshape(2, 3, 4).sum(0).T + smooth
    whole = losses.cl_dice(Probabilities(p), target, smooth=smooth, iterations=2, over="batch", reduction="none")
    np.testing.assert_allclose(whole[0].numpy(), 1 - 2 / (line / hit + true_line / met))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_dt_is_its_formula(axes: int, alpha: float) -> None:
    p, target = drawn(2, axes, 2)
    weight = torch.rand(target.shape, dtype=torch.float64)
    weight[0, 0] = 0
    found = losses.hausdorff_dt(Probabilities(p), target, alpha=alpha, reduction="none")
    weighed = losses.hausdorff_dt(
        Probabilities(p), target, alpha=alpha, weight=weight, reduction="none", **given_of(p, target)
    )
    for n in range(2):
        for c in range(2):
            x, t = p[n, c].numpy(), (target[n] == c).numpy()
            errors = (x - t) ** 2 * (contour(x > 0.5) ** alpha + contour(t) ** alpha)
            assert found[n, c].item() == pytest.approx(errors.mean(), rel=1e-6)
            assert weighed[n, c].item() == pytest.approx(np.average(errors, weights=weight[n].numpy()), rel=1e-6)
    torch.testing.assert_close(losses.hausdorff_dt(Probabilities(p), target, alpha=alpha), found.mean())


def given_of(p: Tensor, target: Tensor) -> dict[str, Tensor]:
    hot = torch.nn.functional.one_hot(target, p.shape[1]).movedim(-1, 1)
    return {"distance": losses.signed_distance(hot), "predicted_distance": losses.signed_distance(p)}


def test_distances_that_are_given_are_those_that_are_computed() -> None:
    p, target = drawn(3, 2)
    found = losses.hausdorff_dt(Probabilities(p), target, **given_of(p, target))
    torch.testing.assert_close(found, losses.hausdorff_dt(Probabilities(p), target))


@given(st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_bounds_and_perfect_predictions(seed: int, axes: int) -> None:
    p, target = drawn(seed, axes)
    hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    value = losses.cl_dice(Probabilities(p), target, reduction="none")
    assert ((value >= -1e-12) & (value <= 1)).all()
    assert (losses.hausdorff_dt(Probabilities(p), target, reduction="none") >= 0).all()
    assert losses.hausdorff_dt(Probabilities(hot), target) == 0
    assert losses.cl_dice(Probabilities(hot), target).item() == pytest.approx(0, abs=1e-12)
    other = torch.nn.functional.one_hot(target.roll(1, 1), 3).movedim(-1, 1).double()
    swapped = [losses.hausdorff_dt(Probabilities(a), b) for a, b in ((hot, target.roll(1, 1)), (other, target))]
    torch.testing.assert_close(*swapped)


@pytest.mark.parametrize("loss", [losses.cl_dice, losses.hausdorff_dt])
def test_the_class_axis_may_lie_anywhere_but_first(loss: Any) -> None:
    p, target = drawn(4, 2)
    weights = {"class_weight": torch.tensor([0.0, 1.0, 2.0]).double(), "weight": torch.rand(2, 7, 8).double()}
    expected = loss(Probabilities(p), target, **weights)
    torch.testing.assert_close(loss(Probabilities(p.movedim(1, -1)), target, class_dim=-1, **weights), expected)
    with pytest.raises(LossInputError, match=r"images first, got shape \(3, 7, 8\).*unsqueeze"):
        loss(Probabilities(p[0]), target[0], class_dim=0)


@pytest.mark.parametrize("loss", [losses.cl_dice, losses.hausdorff_dt])
@pytest.mark.parametrize("name", ["weight", "mask", "ignore_index"])
def test_what_is_not_selected_changes_nothing(loss: Any, name: str) -> None:
    logits, target = torch.randn(2, 3, 7, 8, dtype=torch.float64), drawn(5, 2)[1]
    out = torch.zeros(2, 7, 8, dtype=torch.bool)
    out[:, 2:4, 3:6] = True
    options = {"weight": {"weight": (~out).double()}, "mask": {"mask": ~out}, "ignore_index": {"ignore_index": 9}}[name]
    found = []
    for fill, label in ((torch.nan, 9), (3.0, 9)):
        label = label if name == "ignore_index" else 0
        x = logits.masked_fill(out.unsqueeze(1), fill).requires_grad_()
        value = loss(x, target.masked_fill(out, label), **options)
        value.backward()
        found += [value.detach(), x.grad]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert (found[1].masked_fill(~out.unsqueeze(1), 0) == 0).all()


def test_an_empty_class_costs_its_predicted_line_or_nothing() -> None:
    line = torch.zeros(1, 1, 5, 9)
    line[0, 0, 2, :4] = 1
    empty = torch.zeros_like(line)
    options = {"multilabel": True, "reduction": "pair"}
    assert losses.cl_dice(Probabilities(line), empty, **options).tolist() == pytest.approx([4 / 6, 1])
    assert losses.cl_dice(Probabilities(line), empty, empty="skip", **options).tolist() == [0, 0]
    assert losses.cl_dice(Probabilities(empty), line, **options).tolist() == [1, 1]
    assert losses.cl_dice(Probabilities(empty), empty, **options).tolist() == [0, 1]


def test_a_gap_costs_more_than_a_thinner_line() -> None:
    """Both miss 8 of 96 pixels; only one breaks the line, which `dice` cannot see."""
    line = torch.zeros(1, 1, 14, 24)
    line[0, 0, 5:9] = 1
    gap, thin = line.clone(), line.clone()
    gap[..., 11:13] = 0
    thin[0, 0, 5, 8:16] = 0
    thick, broken = (Probabilities(x) for x in (thin, gap))
    dice = [losses.dice(x, line, multilabel=True).item() for x in (thick, broken)]
    assert dice[0] == dice[1]
    a, b = (losses.cl_dice(x, line, multilabel=True).item() for x in (thick, broken))
    assert a < b


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x, t: losses.cl_dice(x, t, empty="none"), "empty"),
        (lambda x, t: losses.cl_dice(x, t, over="row"), "over"),
        (lambda x, t: losses.cl_dice(x, t, iterations=-1), "iterations"),
        (lambda x, t: losses.hausdorff_dt(x, t, alpha=0.0), "alpha"),
        (lambda x, t: losses.hausdorff_dt(x, t, distance=torch.zeros(2, 1, 5)), r"distance.*\(2, 1, 5\).*\(2, 3, 5\)"),
        (lambda x, t: losses.hausdorff_dt(x, t, weight=torch.ones(2, 3, 5)), r"weight.*\(2, 3, 5\).*\(2, 5\)"),
        (lambda x, t: losses.hausdorff_dt(x, t, class_weight=torch.ones(2)), r"\(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, said: str) -> None:
    with pytest.raises(LossInputError, match=said):
        call(torch.zeros(2, 3, 5), torch.zeros(2, 5).long())
