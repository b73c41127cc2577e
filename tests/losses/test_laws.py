"""Laws that hold for every input, tried on inputs that hypothesis chooses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nucleate import losses
from nucleate.losses import Probabilities

settings.register_profile("losses", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("losses")

seeds = st.integers(0, 2**31 - 1)
classes = st.integers(2, 9)
spread = st.sampled_from([1e-3, 0.3, 1.0, 10.0, 100.0])
SHARP = 1e-10


def logits(seed: int, k: int, scale: float, rows: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, k, generator=g, dtype=torch.float64) * scale


def each(name: str, **inputs: Any) -> Tensor:
    return losses.by_name(name)(**inputs, reduction="none")


@given(seeds, classes, spread)
def test_entropy_lies_between_nothing_and_ln_k(seed: int, k: int, scale: float) -> None:
    h = each("entropy", p=logits(seed, k, scale))
    assert (h >= 0).all()
    assert (h <= math.log(k) + SHARP).all()
    torch.testing.assert_close(losses.measures.entropy(torch.zeros(1, k)).item(), math.log(k), rtol=1e-6, atol=0)
    torch.testing.assert_close(each("perplexity", p=logits(seed, k, scale)), h.exp())


@given(seeds, classes, spread)
def test_kl_is_positive_and_zero_only_when_equal(seed: int, k: int, scale: float) -> None:
    p, q = logits(seed, k, scale), logits(seed + 1, k, scale)
    kl = each("kl_divergence", p=p, q=q)
    assert (kl >= -1e-15).all()
    assert (each("kl_divergence", p=p, q=p + 3.0).abs() < SHARP).all()
    far = (p.softmax(1) - q.softmax(1)).abs().amax(1) > 1e-4
    assert (kl[far] > 0).all()


@given(seeds, classes, spread)
def test_pinsker(seed: int, k: int, scale: float) -> None:
    pair = {"p": logits(seed, k, scale), "q": logits(seed + 1, k, scale)}
    tv = each("total_variation", **pair)
    assert (2 * tv**2 <= each("kl_divergence", **pair) + SHARP).all()
    h = each("hellinger", **pair)
    assert (h**2 <= tv + SHARP).all()
    assert (tv <= math.sqrt(2) * h + SHARP).all()


@given(seeds, classes, spread)
def test_symmetric_divergences_and_their_bounds(seed: int, k: int, scale: float) -> None:
    p, q = logits(seed, k, scale), logits(seed + 1, k, scale)
    top = {"jensen_shannon": math.log(2), "total_variation": 1, "hellinger": 1, "wasserstein_1d": k - 1}
    for name, bound in top.items():
        d = each(name, p=p, q=q)
        assert (d >= -1e-15).all()
        assert (d <= bound + SHARP).all()
        torch.testing.assert_close(each(name, p=q, q=p), d)
        assert (each(name, p=p, q=p) < 1e-7).all()


@given(seeds, classes, spread)
def test_renyi_grows_with_alpha_and_is_kl_at_one(seed: int, k: int, scale: float) -> None:
    pair = {"p": logits(seed, k, min(scale, 10)), "q": logits(seed + 1, k, min(scale, 10))}
    grown = torch.stack([each("renyi", **pair, alpha=a) for a in (0.2, 0.5, 0.99999, 1, 1.00001, 2, 5)])
    # Close to 1 a logarithm near 0 is divided by alpha - 1, and its rounding with it.
    assert (grown.diff(dim=0) >= -1e-7 * grown[-1] - 1e-10).all()
    torch.testing.assert_close(grown[2], grown[3], rtol=1e-3, atol=1e-8)


@given(seeds, classes, spread)
def test_cross_entropy_is_entropy_plus_divergence(seed: int, k: int, scale: float) -> None:
    p, q = logits(seed, k, scale), logits(seed + 1, k, scale)
    cross = each("cross_entropy", logits=q, target=p.softmax(1))
    torch.testing.assert_close(cross, each("entropy", p=p) + each("kl_divergence", p=p, q=q), rtol=1e-9, atol=1e-9)


@given(seeds, classes, spread, st.integers(2, 5))
def test_mutual_information_is_bounded_by_classes_and_members(seed: int, k: int, scale: float, m: int) -> None:
    members = [logits(seed + i, k, scale) for i in range(m)]
    value = each("mutual_information", predictions=members)
    assert (value >= -1e-15).all()
    assert (value <= math.log(min(k, m)) + SHARP).all()
    mean = torch.stack([x.softmax(1) for x in members]).mean(0)
    gap = each("entropy", p=Probabilities(mean)) - torch.stack([each("entropy", p=x) for x in members]).mean(0)
    torch.testing.assert_close(value, gap, rtol=1e-7, atol=1e-9)


@given(seeds, classes, spread, st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(seed: int, k: int, scale: float, shift: float) -> None:
    x, target = logits(seed, k, scale), torch.randint(0, k, (6,), generator=torch.Generator().manual_seed(seed))
    for name in ("cross_entropy", "focal", "multiclass_hinge"):
        moved = each(name, logits=x + shift, target=target)
        torch.testing.assert_close(moved, each(name, logits=x, target=target), rtol=1e-9, atol=1e-9)


@given(seeds, classes, spread)
def test_a_permutation_of_classes_or_positions_changes_nothing(seed: int, k: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x, target = logits(seed, k, scale), torch.randint(0, k, (6,), generator=g)
    order, rows = torch.randperm(k, generator=g), torch.randperm(6, generator=g)
    for name in ("cross_entropy", "focal", "multiclass_hinge"):
        value = each(name, logits=x, target=target)
        torch.testing.assert_close(each(name, logits=x[:, order], target=order.argsort()[target]), value)
        torch.testing.assert_close(each(name, logits=x[rows], target=target[rows]), value[rows])
    p, q = x, logits(seed + 1, k, scale)
    for name in ("kl_divergence", "jensen_shannon", "hellinger", "total_variation"):
        torch.testing.assert_close(each(name, p=p[:, order], q=q[:, order]), each(name, p=p, q=q))


@given(seeds, classes, spread)
def test_gradient_of_cross_entropy_is_softmax_minus_label(seed: int, k: int, scale: float) -> None:
    x = logits(seed, k, scale).requires_grad_()
    target = torch.randint(0, k, (6,), generator=torch.Generator().manual_seed(seed))
    losses.cross_entropy(x, target, reduction="sum").backward()
    expected = x.detach().softmax(1) - torch.nn.functional.one_hot(target, k)
    torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-12)
    assert (x.grad.sum(1).abs() < 1e-12).all()


CONVEX = {
    "hinge": 1.0, "squared_hinge": 1.0, "smoothed_hinge": 2.0, "modified_huber": 1.0, "logistic": 1 / math.log(2),
    "exponential": 1.0, "perceptron": None,
}  # fmt: skip


@pytest.mark.parametrize("name", CONVEX)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1))
def test_margin_losses_are_convex_and_fall(name: str, a: float, b: float, share: float) -> None:
    z = torch.tensor([a, b, share * a + (1 - share) * b], dtype=torch.float64)
    at_a, at_b, between = each(name, score=z, target=torch.ones(3)).tolist()
    slack = 1e-12 * (1 + max(at_a, at_b))
    assert between <= share * at_a + (1 - share) * at_b + slack
    assert (at_a >= at_b - slack) if a <= b else (at_b >= at_a - slack)


@pytest.mark.parametrize("name", [*CONVEX, "ramp"])
@given(st.floats(-30, 30))
def test_margin_losses_bound_zero_one_from_above(name: str, z: float) -> None:
    score = torch.tensor([z], dtype=torch.float64)
    scale = CONVEX.get(name, 1.0)
    wrong = each("zero_one", score=score, target=torch.ones(1)).item()
    value = each(name, score=score, target=torch.ones(1)).item()
    if scale is not None:  # the perceptron is 0 at a score of 0 whatever its scale
        assert scale * value >= wrong - 1e-12
    flipped = each(name, score=-score, target=torch.zeros(1)).item()
    assert flipped == pytest.approx(value)


def _sets(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, 12, generator=g) > 0.5, torch.rand(1, 12, generator=g) > 0.4


@given(seeds)
def test_lovasz_is_the_set_jaccard_at_zero_one_points(seed: int) -> None:
    predicted, labelled = _sets(seed)
    either = (predicted | labelled).sum().item()
    jaccard = (predicted & labelled).sum().item() / either if either else 1.0
    p = torch.stack([~predicted, predicted], 1).double()
    value = losses.lovasz_softmax(Probabilities(p), labelled.long(), reduction="none", empty="penalize")
    assert value[0, 1].item() == pytest.approx(1 - jaccard, abs=1e-12)
    # A score of y has the error 0, a score of 0 the error 1.
    score = torch.where(predicted == labelled, 2.0 * labelled - 1, 0.0).double()
    assert losses.lovasz_hinge(score, labelled).item() == pytest.approx(1 - jaccard, abs=1e-12)


@given(seeds)
def test_lovasz_is_convex_and_above_every_jaccard_step(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    label = torch.rand(1, 9, generator=g) > 0.5
    a, b = (torch.randn(1, 9, generator=g, dtype=torch.float64) * 2 for _ in range(2))
    middle = losses.lovasz_hinge((a + b) / 2, label)
    assert middle <= (losses.lovasz_hinge(a, label) + losses.lovasz_hinge(b, label)) / 2 + 1e-12


@given(seeds)
def test_dice_and_jaccard_of_sets(seed: int) -> None:
    predicted, labelled = _sets(seed)
    p = Probabilities(torch.stack([~predicted, predicted], 1).double())
    d, j = (1 - each(name, prediction=p, target=labelled.long(), empty="skip") for name in ("dice", "jaccard"))
    torch.testing.assert_close(d, 2 * j / (1 + j))
    x, t = logits(seed, 3, 1.0).reshape(2, 3, 3), torch.randint(0, 3, (2, 3))
    d, j = (1 - each(name, prediction=x, target=t, empty="skip") for name in ("dice", "jaccard"))
    torch.testing.assert_close(d, 2 * j / (1 + j))


@given(seeds)
def test_tversky_contains_dice_and_jaccard(seed: int) -> None:
    x, t = logits(seed, 3, 1.0).reshape(2, 3, 3), torch.randint(0, 3, (2, 3))
    for name, share in (("dice", 0.5), ("jaccard", 1.0)):
        options = {"false_positives": share, "false_negatives": share}
        torch.testing.assert_close(losses.tversky(x, t, **options), losses.by_name(name)(x, t))
        torch.testing.assert_close(losses.focal_tversky(x, t, gamma=1.0, **options), losses.by_name(name)(x, t))


@given(st.integers(1, 40), st.integers(1, 5), st.floats(0.01, 5))
def test_equal_embeddings_give_the_log_of_the_number_of_candidates(n: int, d: int, heat: float) -> None:
    x = torch.ones(n, d, dtype=torch.float64)
    for name, candidates in (("info_nce", n), ("clip_loss", n), ("nt_xent", 2 * n - 1), ("decoupled", 2 * n - 2)):
        expected = math.log(candidates) if candidates else 0.0
        assert losses.by_name(name)(x, x, temperature=heat).item() == pytest.approx(expected, abs=1e-9)


@given(seeds, st.integers(2, 8))
def test_contrastive_losses_do_not_see_the_order_of_pairs_or_the_length_of_rows(seed: int, n: int) -> None:
    a, b = logits(seed, 4, 1.0, n), logits(seed + 1, 4, 1.0, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for name in ("info_nce", "clip_loss", "nt_xent", "siglip", "decoupled"):
        loss = losses.by_name(name)
        torch.testing.assert_close(loss(a[order], b[order]), loss(a, b))
        torch.testing.assert_close(loss(3 * a, b / 7), loss(a, b))


@given(seeds, st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_parts_add_up_to_the_whole(seed: int, sizes: list[int]) -> None:
    x = logits(seed, 3, 2.0, sum(sizes))
    t = torch.randint(0, 4, (sum(sizes),), generator=torch.Generator().manual_seed(seed))
    options = {"ignore_index": 3, "class_weight": torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)}
    parts = [
        losses.total_and_weight(losses.cross_entropy, a, b, **options)
        for a, b in zip(x.split(sizes), t.split(sizes), strict=True)
    ]
    torch.testing.assert_close(losses.mean_of(parts), losses.cross_entropy(x, t, **options))


@given(seeds, st.integers(1, 3))
def test_signed_distance_is_the_nearest_pixel_of_the_other_kind(seed: int, axes: int) -> None:
    g = torch.Generator().manual_seed(seed)
    side = {1: 9, 2: 6, 3: 4}[axes]
    label = torch.rand(1, 1, *[side] * axes, generator=g) > 0.7
    found = losses.signed_distance(label.float())[0, 0].flatten()
    inside = label.flatten()
    at = torch.cartesian_prod(*[torch.arange(side)] * axes).reshape(-1, axes).float()
    if inside.any() and not inside.all():
        gaps = torch.cdist(at, at)
        outer, inner = gaps[:, inside].amin(1), gaps[:, ~inside].amin(1)
        torch.testing.assert_close(found, outer - inner)
    else:
        assert (found == 0).all()
