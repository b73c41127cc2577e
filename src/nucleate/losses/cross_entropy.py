"""Cross entropy: of classes, and of yes and no."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.binary import yes_or_no
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout, is_small
from nucleate.losses.options import Normalize, Reduction, Share
from nucleate.losses.reduction import REDUCTIONS, finish, held, reduce, select, times
from nucleate.losses.registry import POSITION_WEIGHT, loss
from nucleate.losses.targets import (
    ClassTarget,
    class_axis,
    class_target,
    class_weights,
    mix,
    position_weights,
    positions_of,
    separate_weights,
    smoothed,
    weigh,
)
from nucleate.losses.validation import (
    checking,
    require_between,
    require_choice,
    require_floating,
    require_mask,
    require_tensor,
    require_weights,
    shape,
    sum_tolerance,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

_NO_LABEL = -(1 << 62)  # PyTorch's own default leaves labels of -100 out

__all__ = ["binary_cross_entropy", "cross_entropy"]


@loss(
    "cross entropy",
    "-sum w t log softmax(x)",
    "0..inf",
    "one class out of several: the first choice",
    renamed=POSITION_WEIGHT,
)
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_dim: int = 1,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: Share = 0.0,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The cross entropy of classes, -sum_c w_c t_c log softmax(logits)_c, in nats; range 0..inf.

    Args:
        logits: raw scores with the classes along `class_dim`: (N, C), (N, C, H, W), (N, C, D, H, W), ...
        target: class indices of any integer type, the shape of the logits without the class axis; or probabilities
            (one-hot too) in the shape of the logits.
        mask: boolean, the shape of the positions; True selects.
        class_weight: one weight for each class, shape (C,).
        weight: one weight for each position.
        ignore_index: an index in `target` that leaves its position out; for probabilities use `mask`.
        label_smoothing: e in 0..1; the target becomes (1 - e) t + e / C.
        normalize: what "mean" divides by: "weight", the sum of w_c t_c over the selected positions, or "count",
            their number. The rule is the same for indices and for probabilities.
        reduction: "mean", "sum", or "none" for the weighted value of each position, 0 where not selected.
        check: read the values for mistakes; None follows `losses.use_checks`.

    Returns:
        float32, or float64 for float64 logits. 0 with a zero gradient where nothing is selected.

    Raises:
        LossInputError: shapes, types or values that do not fit.

    A label B and the predictions 0.228, 0.619 and 0.153 give -ln 0.619:

    >>> import torch
    >>> logits = torch.tensor([[0.228, 0.619, 0.153]], dtype=torch.float64).log()
    >>> round(cross_entropy(logits, torch.tensor([1])).item(), 5)
    0.47965

    Source: I. J. Good, Rational decisions (1952).
    """
    return cross_entropy_of(
        "cross_entropy", logits, target, class_dim, mask, class_weight, weight, ignore_index, label_smoothing,
        normalize, reduction, check, group,
    )  # fmt: skip


def cross_entropy_of(
    name: str,
    logits: Tensor,
    target: Tensor,
    class_dim: int,
    mask: Tensor | None,
    class_weight: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    label_smoothing: Share,
    normalize: Normalize,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
) -> Tensor:
    """`cross_entropy` for the loss `name`, which is what its messages say."""
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_between(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    require_choice(name, "reduction", reduction, REDUCTIONS)
    read = checking(check, logits)
    dim, classes, positions = class_axis(name, logits, class_dim)
    require_tensor(name, "target", target)
    if mask is not None:
        require_mask(name, mask, positions, "the positions of the logits")
    class_weight, weight = separate_weights(name, class_weight, weight, classes, positions)
    w = class_weights(name, class_weight, logits, dim, read)
    each = position_weights(name, weight, positions, read)
    plain_call = dim == 1 and label_smoothing == 0 and reduction in ("mean", "sum")
    options = (mask, class_weight, weight, ignore_index, group)
    if plain_call and all(option is None for option in options) and _are_few(logits, target, positions):
        found = _by_one_call(logits, target, reduction, read)
        if found is not None:
            return finish(name, found, 1, reduction=reduction, check=read)

    def plain(x: Tensor) -> tuple[Tensor, Tensor | None]:
        return weighed_surprisal(name, x, target, dim, mask, w, each, ignore_index, label_smoothing, normalize, read)

    def twin(x: Tensor) -> Tensor:
        return plain(x)[0].sum()

    pair = None
    if reduction != "none":
        tolerance = sum_tolerance(target.dtype) if read else math.inf
        alone = reduction == "mean" and group is None
        pair = _by_kernel(
            ignore_index,
            tolerance,
            logits,
            target,
            dim,
            mask,
            class_weight,
            each,
            label_smoothing,
            normalize,
            alone,
            twin,
        )
    if pair is not None:
        return finish(name, *pair, reduction=reduction, check=read, group=group)
    return reduce(name, *plain(logits), reduction=reduction, check=read, group=group)


def _are_few(logits: Tensor, target: Tensor, positions: tuple[int, ...]) -> bool:
    return target.dtype == torch.long and target.shape == positions and is_small(logits)


def _by_one_call(logits: Tensor, target: Tensor, reduction: Reduction, read: bool) -> Tensor | None:
    """What is asked for most often by PyTorch's own function; None for labels out of range, if they are looked at."""
    try:
        return F.cross_entropy(held(logits), target, reduction=reduction, ignore_index=_NO_LABEL)
    except IndexError:
        if not read:
            raise
        return None


def weighed_surprisal(
    name: str,
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    w: Tensor | None,
    each: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
    normalize: Normalize,
    read: bool,
) -> tuple[Tensor, Tensor | None]:
    """The plain version: the weighted value of each position, and the weights, None where they are 1 everywhere.

    `w` are class weights shaped to broadcast along the class axis, `each` those of positions.
    """
    t = class_target(
        name, logits, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
        class_weight=w, smoothing=smoothing,
    )  # fmt: skip
    return weigh(_expected_surprisal(logits, t, w, smoothing), t.share, t.selected, each, normalize)


def _by_kernel(
    ignore_index: int | None,
    tolerance: float,
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    class_weight: Tensor | None,
    each: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, float] | None:
    """(total, weight) by the kernel of class indices or that of probabilities, or None where neither will do."""
    constants = target, mask, class_weight, each
    own: float | None = ignore_index
    module = None
    if target.shape == positions_of(logits, dim) and not (target.is_floating_point() or target.is_complex()):
        layout = common_layout([logits], dim, constants)
        module = None if layout is None else kernels("cross_entropy")
    elif target.shape == logits.shape and ignore_index is None:
        mixed = target.is_contiguous() and not logits.is_contiguous()
        layout, own = common_layout([logits], dim, constants, tiles=3, by_image=mixed), tolerance
        module = None if layout is None else kernels("soft_cross_entropy")
    if module is None:
        return None
    pair: tuple[Tensor, float] | None = module.fused_total(
        layout, own, logits, target, dim, mask, class_weight, each, *rule
    )
    return pair


def _expected_surprisal(logits: Tensor, t: ClassTarget, w: Tensor | None, smoothing: float) -> Tensor:
    """sum_c w_c t_c (-log q_c) at each position."""
    log_q = F.log_softmax(select(held(logits), t.selected_rows), t.dim)
    if t.index is None:
        soft = smoothed(t, smoothing)
        return times(soft if w is None else soft * w, -log_q).sum(t.dim)
    values = -log_q.gather(t.dim, t.index.unsqueeze(t.dim)).squeeze(t.dim)
    values = values if w is None else times(w.flatten()[t.index], values)
    if smoothing == 0:
        return values
    spread = -log_q if w is None else times(w, -log_q)
    return mix(values, spread.mean(t.dim), smoothing)


@loss(
    "cross entropy",
    "-v t log s(x) - (1 - t) log s(-x)",
    "0..inf",
    "yes or no, or several answers that do not exclude each other",
)
def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    positive_weight: float | Tensor = 1.0,
    class_dim: int = 1,
    ignore_index: int | None = None,
    label_smoothing: Share = 0.0,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """The cross entropy of yes and no on one raw score: -v t log s(x) - (1 - t) log s(-x), s the sigmoid; 0..inf.

    Args:
        logits: raw scores x, any shape.
        target: the probability of yes in 0..1 (or bool, or 0 and 1 of an integer type), the same shape.
        mask: boolean, the same shape; True selects.
        weight: one weight for each element, the same shape; an element of weight 0 is not selected.
        positive_weight: v, what a yes costs against a no, at least 0: a number, a tensor of one element, or one for
            each class, shape (C,) for logits with C classes along `class_dim`. A tensor may be learnt.
        class_dim: the axis that `positive_weight` of shape (C,) belongs to.
        ignore_index: a label in `target`, of an integer type, that leaves its element out.
        label_smoothing: e in 0..1; the target becomes (1 - e) t + e / 2.
        normalize: what "mean" divides by: "weight", the sum of `weight`, or "count", the number of selected elements.

    >>> import torch
    >>> binary_cross_entropy(torch.tensor([-1e4, 1e4]), torch.tensor([1, 1])).item()
    5000.0

    Source: D. R. Cox, The regression analysis of binary sequences (1958).
    """
    name = "binary_cross_entropy"
    read = checking(check, logits)
    require_floating(name, "logits", logits)
    v = _positive_weight(name, positive_weight, logits, class_dim, read)
    return yes_or_no(
        name, logits, target, 1.0 if v is None else v, 1.0, 0.0, label_smoothing, mask, weight, ignore_index,
        normalize, reduction, check, group,
    )  # fmt: skip


def _positive_weight(name: str, v: float | Tensor, logits: Tensor, class_dim: int, read: bool) -> float | Tensor | None:
    """What a yes costs, as a number or shaped to broadcast along the classes; None for 1."""
    if not isinstance(v, Tensor):
        require_between(name, "positive_weight", v, 0.0, math.inf)
        return None if v == 1 else v
    if v.numel() == 1:
        require_weights(name, "positive_weight", v.reshape(()), (), "a number", read)
        return v.reshape(()).to(held(logits).dtype)
    if not -logits.ndim <= class_dim < logits.ndim:
        raise LossInputError(
            f"{name}: class_dim={class_dim} is not a dimension of logits of shape {shape(logits)}; it says which axis "
            f"positive_weight of shape {shape(v)} belongs to"
        )
    classes = logits.shape[class_dim]
    of = f"the classes along class_dim={class_dim} of logits of shape {shape(logits)}, one for each, or one element"
    require_weights(name, "positive_weight", v, (classes,), of, read)
    along = [1] * logits.ndim
    along[class_dim] = classes
    return v.to(held(logits).dtype).reshape(along)
