# ruff: noqa: F401, F403, F405, RUF022
"""The modules of losses, for type checkers and editors; written by tests/losses/stub.py."""

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor

from nucleate.losses.distribution import Distribution
from nucleate.losses.options import *
from nucleate.losses.registry import Loss
from nucleate.parallel.communicator import Group

__all__ = [
    "ArcFace",
    "BYOL",
    "BarlowTwins",
    "BinaryCrossEntropy",
    "Boundary",
    "CLIPLoss",
    "Circle",
    "ClDice",
    "CosFace",
    "CrossEntropy",
    "DINO",
    "Decoupled",
    "DenseInfoNCE",
    "Dice",
    "Exponential",
    "Focal",
    "FocalTversky",
    "GaussianNLL",
    "GeneralizedCrossEntropy",
    "GeneralizedDice",
    "GeneralizedKL",
    "HausdorffDT",
    "Hellinger",
    "Hinge",
    "Huber",
    "InfoNCE",
    "Jaccard",
    "JensenShannon",
    "KLDivergence",
    "L1",
    "LinearCrossEntropy",
    "LogCosh",
    "Logistic",
    "LovaszHinge",
    "LovaszSoftmax",
    "MSE",
    "MarginRanking",
    "ModifiedHuber",
    "MultiSimilarity",
    "MulticlassHinge",
    "NTXent",
    "Ordinal",
    "Perceptron",
    "PoissonNLL",
    "Quantile",
    "Ramp",
    "Renyi",
    "SigLIP",
    "SigmoidFocal",
    "SimSiam",
    "SmoothL1",
    "SmoothedHinge",
    "SquaredHinge",
    "SupCon",
    "TopKCrossEntropy",
    "TotalVariation",
    "TripletMargin",
    "Tversky",
    "VICReg",
    "Wasserstein1D",
    "ZeroOne",
]

class CrossEntropy(Loss):
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    label_smoothing: Share
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class BinaryCrossEntropy(Loss):
    mask: Tensor | None
    weight: Tensor | None
    positive_weight: float | Tensor
    class_dim: int
    ignore_index: int | None
    label_smoothing: Share
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        positive_weight: float | Tensor = ...,
        class_dim: int = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        positive_weight: float | Tensor = ...,
        class_dim: int = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Focal(Loss):
    gamma: NotNegative
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        gamma: NotNegative = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        gamma: NotNegative = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SigmoidFocal(Loss):
    gamma: NotNegative
    alpha: Share | None
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        gamma: NotNegative = ...,
        alpha: Share | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        gamma: NotNegative = ...,
        alpha: Share | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class TopKCrossEntropy(Loss):
    k: Share
    over: Over
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    label_smoothing: Share
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        k: Share = ...,
        over: Over = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        k: Share = ...,
        over: Over = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class GeneralizedCrossEntropy(Loss):
    q: Share
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        q: Share = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        q: Share = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Ordinal(Loss):
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class LinearCrossEntropy(Loss):
    bias: Tensor | None
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    label_smoothing: Share
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        bias: Tensor | None = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        projection: Tensor,
        target: Tensor,
        *,
        bias: Tensor | None = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        label_smoothing: Share = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class KLDivergence(Loss):
    class_dim: int
    base: float
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        base: float = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        class_dim: int = ...,
        base: float = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class JensenShannon(Loss):
    class_dim: int
    base: float
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        base: float = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        class_dim: int = ...,
        base: float = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class TotalVariation(Loss):
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Hellinger(Loss):
    squared: bool
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        squared: bool = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        squared: bool = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Renyi(Loss):
    alpha: float
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        alpha: float = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        alpha: float = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class GeneralizedKL(Loss):
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor,
        q: Tensor,
        *,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Wasserstein1D(Loss):
    power: float
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        power: float = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        p: Tensor | Distribution,
        q: Tensor | Distribution,
        *,
        power: float = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Hinge(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SquaredHinge(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SmoothedHinge(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class ModifiedHuber(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Logistic(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Exponential(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Perceptron(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Ramp(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class ZeroOne(Loss):
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class MulticlassHinge(Loss):
    kind: Literal["crammer-singer", "weston-watkins"]
    margin: NotNegative
    class_dim: int
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        kind: Literal["crammer-singer", "weston-watkins"] = ...,
        margin: NotNegative = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        kind: Literal["crammer-singer", "weston-watkins"] = ...,
        margin: NotNegative = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class MarginRanking(Loss):
    margin: float
    labels: Labels
    mask: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        margin: float = ...,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        target: Tensor,
        *,
        margin: float = ...,
        labels: Labels = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class TripletMargin(Loss):
    margin: float
    power: float
    swap: bool
    dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        margin: float = ...,
        power: float = ...,
        swap: bool = ...,
        dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        anchor: Tensor,
        positive: Tensor,
        negative: Tensor,
        *,
        margin: float = ...,
        power: float = ...,
        swap: bool = ...,
        dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class L1(Loss):
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class MSE(Loss):
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Huber(Loss):
    delta: Positive
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        delta: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        delta: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SmoothL1(Loss):
    beta: NotNegative
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        beta: NotNegative = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        beta: NotNegative = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class LogCosh(Loss):
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Quantile(Loss):
    q: Share
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        q: Share = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        q: Share = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class PoissonNLL(Loss):
    log_input: bool
    full: bool
    eps: Positive
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        log_input: bool = ...,
        full: bool = ...,
        eps: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        log_input: bool = ...,
        full: bool = ...,
        eps: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class GaussianNLL(Loss):
    log_variance: bool
    full: bool
    eps: Positive
    channel_dim: int | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        log_variance: bool = ...,
        full: bool = ...,
        eps: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        variance: Tensor,
        *,
        log_variance: bool = ...,
        full: bool = ...,
        eps: Positive = ...,
        channel_dim: int | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Dice(Loss):
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    smooth: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class GeneralizedDice(Loss):
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Jaccard(Loss):
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    smooth: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Tversky(Loss):
    false_positives: NotNegative
    false_negatives: NotNegative
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    smooth: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        false_positives: NotNegative = ...,
        false_negatives: NotNegative = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        false_positives: NotNegative = ...,
        false_negatives: NotNegative = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class FocalTversky(Loss):
    false_positives: NotNegative
    false_negatives: NotNegative
    gamma: Positive
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    smooth: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        false_positives: NotNegative = ...,
        false_negatives: NotNegative = ...,
        gamma: Positive = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        false_positives: NotNegative = ...,
        false_negatives: NotNegative = ...,
        gamma: Positive = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class LovaszHinge(Loss):
    labels: Labels
    over: Over
    empty: Empty
    mask: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        labels: Labels = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        score: Tensor,
        target: Tensor,
        *,
        labels: Labels = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class LovaszSoftmax(Loss):
    class_dim: int
    over: Over
    empty: Empty
    mask: Tensor | None
    class_weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        class_dim: int = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        class_dim: int = ...,
        over: Over = ...,
        empty: Empty = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Boundary(Loss):
    distance: Tensor | None
    class_dim: int
    multilabel: bool
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        distance: Tensor | None = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        distance: Tensor | None = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class ClDice(Loss):
    iterations: int
    class_dim: int
    multilabel: bool
    over: Over
    empty: Empty
    smooth: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        iterations: int = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        iterations: int = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        empty: Empty = ...,
        smooth: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class HausdorffDT(Loss):
    distance: Tensor | None
    predicted_distance: Tensor | None
    alpha: Positive
    class_dim: int
    multilabel: bool
    over: Over
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        distance: Tensor | None = ...,
        predicted_distance: Tensor | None = ...,
        alpha: Positive = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor | Distribution,
        target: Tensor,
        *,
        distance: Tensor | None = ...,
        predicted_distance: Tensor | None = ...,
        alpha: Positive = ...,
        class_dim: int = ...,
        multilabel: bool = ...,
        over: Over = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class InfoNCE(Loss):
    negatives: Tensor | None
    in_batch: bool
    hardness: NotNegative
    temperature: Positive | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        negatives: Tensor | None = ...,
        in_batch: bool = ...,
        hardness: NotNegative = ...,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        *,
        negatives: Tensor | None = ...,
        in_batch: bool = ...,
        hardness: NotNegative = ...,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class CLIPLoss(Loss):
    temperature: Positive | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class NTXent(Loss):
    temperature: Positive | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Decoupled(Loss):
    temperature: Positive | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SigLIP(Loss):
    temperature: Positive | Tensor
    bias: float | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        bias: float | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        bias: float | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SupCon(Loss):
    temperature: Positive | Tensor
    similarity: Similarity
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class DenseInfoNCE(Loss):
    temperature: Positive | Tensor
    similarity: Similarity
    negatives: Negatives
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        negatives: Negatives = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        match: Tensor,
        *,
        temperature: Positive | Tensor = ...,
        similarity: Similarity = ...,
        negatives: Negatives = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class BarlowTwins(Loss):
    off_diagonal: NotNegative
    mask: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        off_diagonal: NotNegative = ...,
        mask: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        off_diagonal: NotNegative = ...,
        mask: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class VICReg(Loss):
    invariance: NotNegative
    variance: NotNegative
    covariance: NotNegative
    deviation: float
    mask: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        invariance: NotNegative = ...,
        variance: NotNegative = ...,
        covariance: NotNegative = ...,
        deviation: float = ...,
        mask: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first: Tensor,
        second: Tensor,
        *,
        invariance: NotNegative = ...,
        variance: NotNegative = ...,
        covariance: NotNegative = ...,
        deviation: float = ...,
        mask: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class BYOL(Loss):
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class SimSiam(Loss):
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        first_prediction: Tensor,
        first_projection: Tensor,
        second_prediction: Tensor,
        second_projection: Tensor,
        *,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class DINO(Loss):
    center: Tensor | None
    student_temperature: Positive
    teacher_temperature: Positive
    class_dim: int
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        center: Tensor | None = ...,
        student_temperature: Positive = ...,
        teacher_temperature: Positive = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        center: Tensor | None = ...,
        student_temperature: Positive = ...,
        teacher_temperature: Positive = ...,
        class_dim: int = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class Circle(Loss):
    margin: Share
    scale: Positive
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        margin: Share = ...,
        scale: Positive = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        margin: Share = ...,
        scale: Positive = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class MultiSimilarity(Loss):
    alpha: Positive
    beta: Positive
    threshold: Annotated[float, Between(-1.0, 1.0)]
    mining: NotNegative | None
    mask: Tensor | None
    weight: Tensor | None
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        alpha: Positive = ...,
        beta: Positive = ...,
        threshold: Annotated[float, Between(-1.0, 1.0)] = ...,
        mining: NotNegative | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        alpha: Positive = ...,
        beta: Positive = ...,
        threshold: Annotated[float, Between(-1.0, 1.0)] = ...,
        mining: NotNegative | None = ...,
        mask: Tensor | None = ...,
        weight: Tensor | None = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class CosFace(Loss):
    scale: Positive
    margin: NotNegative
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        scale: Positive = ...,
        margin: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        projection: Tensor,
        target: Tensor,
        *,
        scale: Positive = ...,
        margin: NotNegative = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...

class ArcFace(Loss):
    scale: Positive
    margin: Angle
    easy_margin: bool
    mask: Tensor | None
    class_weight: Tensor | None
    weight: Tensor | None
    ignore_index: int | None
    normalize: Normalize
    reduction: Reduction
    check: bool | None
    group: Group | None
    def __init__(
        self,
        *,
        scale: Positive = ...,
        margin: Angle = ...,
        easy_margin: bool = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> None: ...
    def __call__(
        self,
        features: Tensor,
        projection: Tensor,
        target: Tensor,
        *,
        scale: Positive = ...,
        margin: Angle = ...,
        easy_margin: bool = ...,
        mask: Tensor | None = ...,
        class_weight: Tensor | None = ...,
        weight: Tensor | None = ...,
        ignore_index: int | None = ...,
        normalize: Normalize = ...,
        reduction: Reduction = ...,
        check: bool | None = ...,
        group: Group | None = ...,
    ) -> Tensor: ...
