"""The types of the options that several losses share: type checkers, modules and messages all read them here."""

from __future__ import annotations

import math
import types
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"in {self.low:g}..{self.high:g}"


@dataclass(frozen=True, slots=True)
class Above:
    """The range of a finite number greater than `low`."""

    low: float

    def __contains__(self, value: float) -> bool:
        return self.low < value < math.inf

    def __str__(self) -> str:
        return f"above {self.low:g}"


Share = Annotated[float, Between(0.0, 1.0)]
NotNegative = Annotated[float, Between(0.0, math.inf)]
Positive = Annotated[float, Above(0.0)]
Angle = Annotated[float, Between(0.0, math.pi / 2)]


def accepts(kind: Any, value: Any) -> bool:
    """Whether `value` is of the annotated type `kind`, within its range."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin in (Union, types.UnionType):
        return any(accepts(part, value) for part in parts)
    if origin is Annotated:
        return accepts(parts[0], value) and all(value in limit for limit in parts[1:])
    if kind in (float, int):  # a bool is neither here, though Python counts it as an int
        return isinstance(value, Real if kind is float else Integral) and not isinstance(value, bool)
    return value is None if kind in (None, type(None)) else isinstance(value, origin or kind)


def is_of(kind: Any, value: Any) -> bool:
    """Whether `value` is of a type of `kind`, of whatever range: the losses look at ranges themselves."""
    classes = classes_of(kind)
    if type(value).__name__ in ("SymInt", "SymFloat"):  # a number that torch.compile does not know yet
        return float in classes or int in classes
    return isinstance(value, tuple(classes)) and (bool in classes or not isinstance(value, bool))


def classes_of(kind: Any) -> frozenset[type]:
    """The classes that values of `kind` have."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return frozenset(map(type, parts))
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(classes_of, parts))
    if origin is Annotated:
        return classes_of(parts[0])
    many = {float: (float, int, Real), int: (int, Integral), None: (type(None),)}
    return frozenset(many.get(kind, (origin or kind,)))


def described(kind: Any) -> str:
    """The type as a message names it, such as "one of 'mean', 'sum'" or "a number in 0..1"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin in (Union, types.UnionType):
        return " or ".join(described(part) for part in parts)
    if origin is Annotated:
        return f"{described(parts[0])} {parts[1]}"
    names = {float: "a number", int: "a whole number", bool: "True or False", type(None): "None"}
    return names.get(kind) or f"a {getattr(origin or kind, '__name__', kind)}"
