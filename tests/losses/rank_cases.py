"""Every loss with inputs of seven rows, which the ranks of the test in test_distributed.py share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

ROWS = 7
SPLITS = {1: [7], 2: [5, 2], 3: [4, 0, 3]}
MASKED = 4
"""The row from which on nothing is selected where there is a mask: one rank or more has nothing that counts."""
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """`inputs` have rows along `axis` (those that are named in `grad` have a gradient), `shared` are the same on all
    ranks, and each has one, whose sum over the ranks is looked at."""

    loss: str
    inputs: Inputs
    grad: tuple[str, ...]
    positions: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    shared: Inputs = field(default_factory=dict)
    axis: int = 0

    def mask(self) -> Tensor:
        mask = torch.rand(self.positions, generator=torch.Generator().manual_seed(5)) > 0.4
        mask[0], mask[MASKED:] = True, False
        return mask

    def on_rows(self, rows: slice, dtype: torch.dtype) -> Inputs:
        taken = {name: x.movedim(self.axis, 0)[rows].movedim(0, self.axis) for name, x in self.inputs.items()}
        return {name: _leaf(x, dtype, name in self.grad) for name, x in taken.items()}

    def in_common(self, dtype: torch.dtype) -> Inputs:
        return {name: _leaf(x, dtype, True) for name, x in self.shared.items()}


def _leaf(x: Tensor, dtype: torch.dtype, grad: bool) -> Tensor:
    return (x.to(dtype) if x.is_floating_point() else x).clone().requires_grad_(grad)


def _numbers() -> tuple[Any, Any, Any]:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def positive(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=g)

    return normal, positive, integers


def pixels_cases() -> dict[str, Case]:
    """Losses of positions (7, 4) or (7, 5)."""
    normal, positive, integers = _numbers()
    logits, target, score, label = normal(7, 3, 4), integers(3, 7, 4), normal(7, 5), integers(2, 7, 5)
    target[1] = 0
    weight, at, dots = {"class_weight": torch.tensor([0.2, 1.0, 3.0])}, (7, 4), (7, 5)
    classes, scores = {"logits": logits, "target": target}, {"score": score, "target": label}
    grades = {"logits": logits[:, :2], "target": target}
    cases = {
        "cross_entropy": Case("cross_entropy", classes, ("logits",), at, {**weight, "label_smoothing": 0.1}),
        "focal": Case("focal", classes, ("logits",), at, {"ignore_index": 0}),
        "generalized_cross_entropy": Case("generalized_cross_entropy", classes, ("logits",), at, weight),
        "multiclass_hinge": Case("multiclass_hinge", classes, ("logits",), at, weight),
        "ordinal": Case("ordinal", grades, ("logits",), at, weight),
        "margin_ranking": Case("margin_ranking", {"first": score, "second": normal(7, 5), "target": label},
                               ("first", "second"), dots),
        "information": Case("information", {"p": logits, "outcome": target}, ("p",), at),
        "expected_calibration_error": Case("expected_calibration_error", {"p": logits, "target": target}, (), at),
        "mutual_information": Case("mutual_information", {"predictions": normal(3, 7, 3, 4)}, ("predictions",), at,
                                   axis=1),
        "generalized_kl": Case("generalized_kl", {"p": positive(7, 3, 4), "q": positive(7, 3, 4)}, ("p", "q"), at),
        "linear_cross_entropy": Case("linear_cross_entropy", {"features": normal(7, 6, 4), "target": target},
                                     ("features",), at, shared={"projection": normal(3, 6), "bias": normal(3)}),
        "dino": Case("dino", {"student": logits, "teacher": logits.flip(0)}, ("student",), at),
        "boundary": Case("boundary", {"prediction": logits, "target": target}, ("prediction",), at),
        "smooth_l1, channels": Case("smooth_l1", {"prediction": logits, "target": logits.flip(1)}, ("prediction",), at,
                                    {"channel_dim": 1}),
        "gaussian_nll": Case("gaussian_nll", {"prediction": score, "target": normal(7, 5), "variance": positive(7, 5)},
                             ("prediction", "variance"), dots),
        "poisson_nll": Case("poisson_nll", {"prediction": score, "target": integers(5, 7, 5)}, ("prediction",), dots),
    }  # fmt: skip
    for loss in ("binary_cross_entropy", "sigmoid_focal"):
        cases[loss] = Case(loss, {"logits": score, "target": label}, ("logits",), dots)
    for loss in ("hinge", "squared_hinge", "smoothed_hinge", "modified_huber", "logistic", "exponential", "perceptron",
                 "ramp", "zero_one"):  # fmt: skip
        cases[loss] = Case(loss, scores, () if loss == "zero_one" else ("score",), dots)
    for loss in ("kl_divergence", "jensen_shannon", "total_variation", "hellinger", "renyi", "wasserstein_1d"):
        cases[loss] = Case(loss, {"p": logits, "q": normal(7, 3, 4)}, ("p", "q"), at)
    for loss in ("entropy", "perplexity"):
        cases[loss] = Case(loss, {"p": logits}, ("p",), at)
    for loss in ("l1", "mse", "huber", "smooth_l1", "log_cosh", "quantile"):
        cases[loss] = Case(loss, {"prediction": score, "target": normal(7, 5)}, ("prediction", "target"), dots)
    for over in ("image", "batch"):
        by = {"over": over}
        cases[f"topk_cross_entropy, {over}"] = Case("topk_cross_entropy", classes, ("logits",), at, {"k": 0.4, **by})
        cases[f"lovasz_hinge, {over}"] = Case("lovasz_hinge", scores, ("score",), dots, by)
        for loss in ("dice", "generalized_dice", "jaccard", "tversky", "focal_tversky", "lovasz_softmax", "cl_dice",
                     "hausdorff_dt"):  # fmt: skip
            cases[f"{loss}, {over}"] = Case(loss, {"prediction": logits, "target": target}, ("prediction",), at, by)
    return cases


def rows_cases() -> dict[str, Case]:
    """Losses of rows (7, 6)."""
    normal, _, integers = _numbers()
    a, b, labels, at = normal(7, 6), normal(7, 6), torch.tensor([0, 1, 2, 0, 3, 1, 0]), (7,)
    heat = {"temperature": torch.tensor(0.2)}
    two, both = {"first": a, "second": b}, ("first", "second")
    alike, pair = {"features": a, "labels": labels}, {"query": a, "key": b}
    views = {"first_prediction": a, "first_projection": b, "second_prediction": b.flip(1), "second_projection": a + 1}
    vectors = {"shared": {"projection": normal(4, 6)}, "options": {"class_weight": torch.tensor([0.2, 1.0, 3.0, 0.5])}}
    sides = {"anchor": a, "positive": b, "negative": normal(7, 6)}
    cases = {
        "triplet_margin": Case("triplet_margin", sides, tuple(sides), at, {"margin": 3.0}),
        "byol": Case("byol", {"prediction": a, "target": b}, ("prediction",), at),
        "simsiam": Case("simsiam", views, ("first_prediction", "second_prediction"), at),
        "circle": Case("circle", alike, ("features",), at, {"scale": 4.0}),
        "multi_similarity": Case("multi_similarity", alike, ("features",), at, {"mining": 0.1}),
        "sup_con": Case("sup_con", alike, ("features",), at, shared=heat),
        "info_nce": Case("info_nce", pair, ("query", "key"), at, shared=heat),
        "info_nce, queue": Case("info_nce", pair, ("query", "key"), at, {"hardness": 0.5},
                                {**heat, "negatives": normal(5, 6)}),
        "info_nce, queue alone": Case("info_nce", pair, ("query", "key"), at, {"in_batch": False},
                                      {**heat, "negatives": normal(5, 6)}),
    }  # fmt: skip
    for loss in ("cosface", "arcface"):
        cases[loss] = Case(loss, {"features": a, "target": labels}, ("features",), at, **vectors)
    for loss in ("vicreg", "barlow_twins"):
        cases[loss] = Case(loss, two, both, at)
    for loss in ("clip_loss", "nt_xent", "siglip", "decoupled"):
        cases[loss] = Case(loss, two, both, at, shared=heat)
    for negatives in ("image", "batch"):
        dense = {"query": normal(7, 3, 4), "key": normal(7, 3, 4), "match": integers(5, 7, 4) - 1}
        cases[f"dense_info_nce, {negatives}"] = Case(
            "dense_info_nce", dense, ("query", "key"), (7, 4), {"negatives": negatives}, heat
        )
    return cases


CASES = pixels_cases() | rows_cases()
