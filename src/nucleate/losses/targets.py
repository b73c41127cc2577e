"""What a classification loss is compared with: class indices or probabilities, and the positions that count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.options import Normalize
from nucleate.losses.reduction import held, select, times
from nucleate.losses.validation import (
    outdated,
    require_floating,
    require_mask,
    require_shape,
    require_simplex,
    require_weights,
    shape,
)


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """Either `index` (int64, shape of the positions) or `soft` (shape of the logits); 0 where not selected.

    `dim` is the class axis, counted from the front; `selected` None selects every position.
    """

    dim: int
    classes: int
    positions: tuple[int, ...]
    index: Tensor | None
    soft: Tensor | None
    selected: Tensor | None

    @property
    def selected_rows(self) -> Tensor | None:
        """`selected` with a class axis of length 1, to select logits with."""
        return None if self.selected is None else self.selected.unsqueeze(self.dim)

    def dense(self, like: Tensor) -> Tensor:
        """The target as probabilities in the type of `like`; rows that are not selected hold zeros."""
        if self.soft is not None:
            return self.soft
        assert self.index is not None
        hot = torch.zeros_like(like).scatter(self.dim, self.index.unsqueeze(self.dim), 1.0)
        return select(hot, self.selected_rows)


def class_axis(
    loss: str, logits: Tensor, class_dim: int, fewest: int = 2, name: str = "logits"
) -> tuple[int, int, tuple[int, ...]]:
    """The class axis counted from the front, its length, and the shape of the positions."""
    require_floating(loss, name, logits)
    if not -logits.ndim <= class_dim < logits.ndim:
        raise LossInputError(f"{loss}: class_dim={class_dim} is not a dimension of {name} of shape {shape(logits)}")
    dim = class_dim % logits.ndim
    if logits.shape[dim] < fewest:
        raise LossInputError(
            f"{loss}: {name} of shape {shape(logits)} holds {logits.shape[dim]} class along dimension {dim} but needs "
            f"at least {fewest}; one score a position is what binary_cross_entropy and the margin losses take"
        )
    return dim, logits.shape[dim], positions_of(logits, dim)


def positions_of(x: Tensor, dim: int) -> tuple[int, ...]:
    """The shape of `x` without its class axis."""
    return (*x.shape[:dim], *x.shape[dim + 1 :])


def of_indices(logits: Tensor, target: Tensor, dim: int, mask: Tensor | None) -> bool:
    """Whether these are logits with class indices, and nothing to say about shapes and types."""
    positions = positions_of(logits, dim)
    fits = mask is None or (mask.dtype == torch.bool and mask.shape == positions)
    return fits and target.shape == positions and not (target.is_floating_point() or target.is_complex())


def class_target(
    loss: str,
    logits: Tensor,
    target: Tensor,
    *,
    class_dim: int,
    mask: Tensor | None,
    ignore_index: int | None,
    read: bool,
    fewest: int = 2,
) -> ClassTarget:
    """Check `target` against `logits` and say which positions count."""
    dim, classes, positions = class_axis(loss, logits, class_dim, fewest)
    if mask is not None:
        require_mask(loss, mask, positions, "the positions of the logits")
    if target.ndim == logits.ndim:
        if ignore_index is not None:
            raise LossInputError(
                f"{loss}: ignore_index={ignore_index} names a class index, but target of shape {shape(target)} holds "
                "probabilities; say which positions count with mask="
            )
        require_shape(loss, "target", target, shape(logits), "the logits")
        rows = None if mask is None else mask.unsqueeze(dim)
        soft = select(target if target.is_floating_point() else target.to(logits.dtype), rows)
        if read:
            uniform = soft if rows is None else torch.where(rows, soft.detach(), 1.0 / classes)
            require_simplex(loss, "target", uniform, dim)
        return ClassTarget(dim, classes, positions, None, soft, mask)
    if target.is_floating_point() or target.is_complex():
        raise LossInputError(
            f"{loss}: target of shape {shape(target)} and type {target.dtype} is neither class indices (an integer "
            f"type, shape {positions}) nor probabilities (shape {shape(logits)})"
        )
    require_shape(loss, "target", target, positions, f"the positions of logits of shape {shape(logits)}")
    index = target.long()
    selected = mask
    if ignore_index is not None:
        kept = index != ignore_index
        selected = kept if mask is None else mask & kept
    if selected is not None:
        index = torch.where(selected, index, 0)
    if read:
        _require_classes(loss, index, classes)
    return ClassTarget(dim, classes, positions, index, None, selected)


def hard_target(loss: str, target: ClassTarget, read: bool) -> Tensor:
    """The class index of each position; probabilities are accepted where they are one-hot."""
    if target.index is not None:
        return target.index
    assert target.soft is not None
    if read and target.soft.numel():
        soft = target.soft.detach()
        between = soft[(soft != 0) & (soft != 1)]
        if between.numel():
            raise LossInputError(f"{loss}: target must be class indices or one-hot, but holds {float(between[0]):g}")
    return target.soft.argmax(target.dim)


def _require_classes(loss: str, index: Tensor, classes: int) -> None:
    if not index.numel():
        return
    low, high = (int(v) for v in torch.aminmax(index))
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise LossInputError(
            f"{loss}: target holds class {wrong}, but the logits have classes 0..{classes - 1}; "
            f"leave positions out with ignore_index={wrong} or mask=, or check class_dim"
        )


def class_weights(loss: str, weight: Tensor | None, logits: Tensor, dim: int, read: bool) -> Tensor | None:
    """The weight of each class, shaped to broadcast along the class axis."""
    if weight is None:
        return None
    require_weights(loss, "class_weight", weight, (logits.shape[dim],), "the classes, one weight each", read)
    along = [1] * logits.ndim
    along[dim] = logits.shape[dim]
    return weight.to(held(logits).dtype).reshape(along)


def position_weights(loss: str, weight: Tensor | None, positions: tuple[int, ...], read: bool) -> Tensor | None:
    """The weight of each position, checked."""
    if weight is not None:
        require_weights(loss, "weight", weight, positions, "the positions, one weight each", read)
    return weight


def separate_weights(
    loss: str, class_weight: Tensor | None, weight: Tensor | None, classes: int, positions: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """(class_weight, weight), where what fits the classes alone is the weight= of version 0.1, one for each class."""
    if class_weight is not None or weight is None or tuple(weight.shape) != (classes,):
        return class_weight, weight
    if positions != (classes,):
        outdated(f"{loss}: weight= is one weight per position; one weight per class is class_weight= since version 0.2")
        return weight, None
    outdated(f"{loss}: weight= weighs the {classes} positions; one weight per class is class_weight= since version 0.2")
    return None, weight


def weigh(
    values: Tensor, weights: Tensor | None, selected: Tensor | None, each: Tensor | None, normalize: Normalize
) -> tuple[Tensor, Tensor | None]:
    """Apply the weight and the selection of positions; the second result is what "mean" divides by."""
    if each is not None:
        each = each.to(values.dtype)
        values = times(each, values)
        weights = each if weights is None else weights * each
    if normalize == "count":
        weights = None
    if selected is not None:
        values = select(values, selected)
        weights = selected.to(values.dtype) if weights is None else select(weights, selected)
    return values, weights
