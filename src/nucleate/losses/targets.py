"""What a classification loss is compared with: class indices or probabilities, and the positions that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.options import Normalize
from nucleate.losses.reduction import held, select, times
from nucleate.losses.validation import (
    outdated,
    require_floating,
    require_mask,
    require_simplex,
    require_tensor,
    require_weights,
    shape,
    wants_gradient,
)


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """Either `index` (int64, shape of the positions) or `soft` (shape and type of the logits); 0 where not selected.

    `dim` is the class axis, counted from the front; `selected` None selects every position. `share` is what a position
    weighs by its classes, sum_c w_c t_c, None for 1.
    """

    dim: int
    classes: int
    positions: tuple[int, ...]
    index: Tensor | None
    soft: Tensor | None
    selected: Tensor | None
    share: Tensor | None = None

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
    fits = mask is None or (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == positions)
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
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> ClassTarget:
    """Check `target` against `logits` and say which positions count: those whose weight is not 0.

    `weight` and `class_weight` come out of `position_weights` and `class_weights`; `smoothing` mixes the target with
    the uniform distribution in `share` alone.
    """
    dim, classes, positions = class_axis(loss, logits, class_dim, fewest)
    if mask is not None:
        require_mask(loss, mask, positions, "the positions of the logits")
    require_tensor(loss, "target", target)
    if target.ndim == logits.ndim:
        if shape(target) != shape(logits):
            raise _wrong_shape(loss, logits, target, dim)
        if ignore_index is not None:
            raise LossInputError(
                f"{loss}: ignore_index={ignore_index} names a class index, but target of shape {shape(target)} holds "
                "probabilities; say which positions count with mask="
            )
        selected = selection(mask, weight, [logits, target], dim)
        rows = None if selected is None else selected.unsqueeze(dim)
        soft = select(target if target.is_floating_point() else target.to(logits.dtype), rows)
        if read:
            uniform = soft if rows is None else torch.where(rows, soft.detach(), 1.0 / classes)
            require_simplex(loss, "target", uniform, dim)
        soft = soft.to(held(logits).dtype)
        return _shared(ClassTarget(dim, classes, positions, None, soft, selected), logits, class_weight, smoothing)
    if target.is_floating_point() or target.is_complex():
        raise LossInputError(
            f"{loss}: target of shape {shape(target)} and type {target.dtype} is neither class indices (an integer "
            f"type, shape {positions}) nor probabilities (shape {shape(logits)})"
        )
    if shape(target) != positions:
        raise _wrong_shape(loss, logits, target, dim)
    index = target.long()
    selected = selection(mask, weight, [logits], dim)
    if ignore_index is not None:
        kept = index != ignore_index
        selected = kept if selected is None else selected & kept
    if selected is not None:
        index = torch.where(selected, index, 0)
    if read:
        _require_classes(loss, index, classes)
    return _shared(ClassTarget(dim, classes, positions, index, None, selected), logits, class_weight, smoothing)


def _wrong_shape(loss: str, logits: Tensor, target: Tensor, dim: int) -> LossInputError:
    """What is wrong with the shape of a target, and the mend where the shapes tell it."""
    positions, given, of = positions_of(logits, dim), shape(target), shape(logits)
    mend = f"give class indices of shape {positions} or probabilities of shape {of}"
    if logits.ndim > 2 and dim != logits.ndim - 1 and given == of[:-1]:
        mend = f"if the logits have their classes last, say class_dim=-1 or pass logits.movedim(-1, {dim})"
    elif len(given) == len(of) and given[dim] == 1 and positions_of(target, dim) == positions:
        mend = f"class indices have no class axis: pass target.squeeze({dim})"
    elif len(given) == len(of) and given == (*positions, of[dim]):
        mend = f"move the target's class axis to where the logits have theirs: target.movedim(-1, {dim})"
    return LossInputError(
        f"{loss}: target has shape {given} but must have shape {positions}, the positions of logits of shape {of} with "
        f"classes along dimension {dim}; {mend}"
    )


def _shared(t: ClassTarget, logits: Tensor, w: Tensor | None, smoothing: float) -> ClassTarget:
    """`t` with what its positions weigh by their classes; those that weigh nothing are not selected."""
    if w is None:
        return t
    if t.index is not None:
        share = w.flatten()[t.index]
        share = share if smoothing == 0 else mix(share, w.mean().expand_as(share), smoothing)
    else:
        share = (smoothed(t, smoothing) * w).sum(t.dim)
    return replace(t, share=share, selected=selection(t.selected, share, [logits], t.dim))


def smoothed(t: ClassTarget, smoothing: float) -> Tensor:
    """Soft targets mixed with the uniform distribution."""
    assert t.soft is not None
    soft = held(t.soft)
    return soft if smoothing == 0 else torch.lerp(soft, torch.full_like(soft, 1 / t.classes), smoothing)


def mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) a + share b; exact and free of 0 * inf at a share of 0 or 1."""
    return b if share == 1 else (1 - share) * a + share * b


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


def selection(
    mask: Tensor | None, weight: Tensor | None, inputs: Sequence[Tensor] = (), dim: int | None = None
) -> Tensor | None:
    """The positions that count: those of `mask` whose weight is not 0; None for all of them.

    The slope by a weight is the value of its position, also where the weight is 0. So where a gradient by the weights
    is wanted, of the positions of weight 0 only those are left out where one of `inputs` (classes along `dim`) holds
    NaN or an infinity.
    """
    if weight is None:
        return mask
    kept = weight != 0
    if inputs and wants_gradient(weight):
        finite = [x.isfinite() if dim is None else x.isfinite().all(dim) for x in inputs]
        kept = kept | torch.stack(finite).all(0)
    return kept if mask is None else mask & kept


def labelled(loss: str, target: Tensor, mask: Tensor | None, ignore_index: int | None) -> Tensor | None:
    """The elements of `mask` whose label of yes or no is not `ignore_index`; None for all of them."""
    if ignore_index is None:
        return mask
    require_tensor(loss, "target", target)
    if target.is_floating_point():
        raise LossInputError(
            f"{loss}: ignore_index={ignore_index} names a label of an integer type, but target is {target.dtype}; say "
            "which positions count with mask="
        )
    return without_label(target, mask, ignore_index)


def without_label(target: Tensor, mask: Tensor | None, ignore_index: int) -> Tensor | None:
    """`mask` without the label `ignore_index`. What their type cannot hold is none of them: -1 is not 255."""
    if not (target.dtype == torch.bool or target.is_floating_point() or target.is_complex()):
        kind = torch.iinfo(target.dtype)
        if not kind.min <= ignore_index <= kind.max:
            return mask
    kept = target != ignore_index
    return kept if mask is None else mask & kept


def separate_weights(
    loss: str, class_weight: Tensor | None, weight: Tensor | None, classes: int, positions: tuple[int, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """(class_weight, weight), where what fits the classes alone is the weight= of version 0.1, one for each class."""
    if weight is not None:
        require_tensor(loss, "weight", weight)
    if class_weight is not None or weight is None or tuple(weight.shape) != (classes,) or positions == (classes,):
        return class_weight, weight
    outdated(f"{loss}: weight= is one weight per position; one weight per class is class_weight= since version 0.2")
    return weight, None


def weigh(
    values: Tensor, weights: Tensor | None, selected: Tensor | None, each: Tensor | None, normalize: Normalize
) -> tuple[Tensor, Tensor | None]:
    """Apply the weight and the selection of positions; the second result is what "mean" divides by.

    `values` hold the classes' weights already, whose sum is `weights`. A position of weight 0 is not counted.
    """
    if each is not None:
        each = each.to(values.dtype)
        values = times(each, values)
        weights = each if weights is None else weights * each
    if normalize == "count" and weights is not None:
        weights = (weights != 0).to(values.dtype)
    if selected is not None:
        values = select(values, selected)
        weights = selected.to(values.dtype) if weights is None else select(weights, selected)
    return values, weights


def without_zeros(
    loss: str,
    mask: Tensor | None,
    weight: Tensor | None,
    positions: tuple[int, ...],
    read: bool,
    inputs: Sequence[Tensor] = (),
    dim: int | None = None,
) -> Tensor | None:
    """The mask of all that counts, checked: the `selection`."""
    if mask is not None:
        require_mask(loss, mask, positions, "the positions")
    return selection(mask, position_weights(loss, weight, positions, read), inputs, dim)
