"""The types of the options that several losses share: type checkers, modules and messages all read them here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

Reduction = Literal["mean", "sum", "none", "pair"]
Normalize = Literal["weight", "count"]
Labels = Literal["binary", "signed"]
Over = Literal["image", "batch"]
Empty = Literal["penalize", "skip"]
Similarity = Literal["cosine", "dot"]
Negatives = Literal["image", "batch"]


@dataclass(frozen=True, slots=True)
class Between:
    """The range of a number, both ends included."""

    low: float
    high: float


Share = Annotated[float, Between(0.0, 1.0)]
NotNegative = Annotated[float, Between(0.0, math.inf)]
