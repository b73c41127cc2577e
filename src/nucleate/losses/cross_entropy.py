"""Cross entropy: of classes, of yes and no, and focused on what is still hard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.binary import yes_or_no
from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_layout
from nucleate.losses.reduction import REDUCTIONS, finish, held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import (
    ClassTarget,
    class_axis,
    class_target,
    class_weights,
    position_weights,
    positions_of,
    weigh,
)
from nucleate.losses.validation import (
    checking,
    require_between,
    require_choice,
    require_floating,
    require_mask,
    require_range,
    require_shape,
    require_weights,
    shape,
    sum_tolerance,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["binary_cross_entropy", "cross_entropy", "focal"]


@loss("cross entropy", "-sum w t log softmax(x)", "0..inf", "one class out of several: the first choice")
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    position_weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    normalize: str = "weight",
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """The cross entropy of classes, -sum_c w_c t_c log softmax(logits)_c, in nats; range 0..inf.

    Args:
        logits: raw scores with the classes along `class_dim`: (N, C), (N, C, H, W), (N, C, D, H, W), ...
        target: class indices of any integer type, the shape of the logits without the class axis; or probabilities
            (one-hot too) in the shape of the logits.
        mask: boolean, the shape of the positions; True selects.
        weight: one weight for each class, shape (C,).
        position_weight: one weight for each position.
        ignore_index: an index in `target` that leaves its position out; for probabilities use `mask`.
        label_smoothing: e in 0..1; the target becomes (1 - e) t + e / C.
        normalize: what "mean" divides by: "weight", the sum of w_c t_c over the selected positions, or "count",
            their number. The rule is the same for indices and for probabilities.
        reduction: "mean", "sum", or "none" for the weighted value of each position, 0 where not selected.
        check: read the values for mistakes; None follows `losses.use_checks`.
        group: the ranks over which the mean or the sum is taken.

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
        "cross_entropy", logits, target, class_dim, mask, weight, position_weight, ignore_index, label_smoothing,
        normalize, reduction, check, group,
    )  # fmt: skip


def cross_entropy_of(
    name: str,
    logits: Tensor,
    target: Tensor,
    class_dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    position_weight: Tensor | None,
    ignore_index: int | None,
    label_smoothing: float,
    normalize: str,
    reduction: str,
    check: bool | None,
    group: ProcessGroup | None,
) -> Tensor:
    """`cross_entropy` for the loss `name`, which is what its messages say."""
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_between(name, "label_smoothing", label_smoothing, 0.0, 1.0)
    require_choice(name, "reduction", reduction, REDUCTIONS)
    read = checking(check, logits)
    dim, _, positions = class_axis(name, logits, class_dim)
    w = class_weights(name, weight, logits, dim, read)
    each = position_weights(name, position_weight, positions, "position_weight", read)

    def plain(x: Tensor) -> tuple[Tensor, Tensor | None]:
        t = class_target(name, x, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read)
        values, weights = _expected_surprisal(x, t, w, label_smoothing)
        return weigh(values, weights, t.selected, each, normalize)

    def twin(x: Tensor) -> Tensor:
        return plain(x)[0].sum()

    pair = None
    if reduction != "none" and (mask is None or (mask.dtype == torch.bool and mask.shape == positions)):
        tolerance = sum_tolerance(target.dtype) if read else math.inf
        alone = reduction == "mean" and group is None
        pair = _by_kernel(
            ignore_index, tolerance, logits, target, dim, mask, weight, each, label_smoothing, normalize, alone, twin
        )
    if pair is not None:
        return finish(name, *pair, reduction=reduction, check=read, group=group)
    return reduce(name, *plain(logits), reduction=reduction, check=read, group=group)


def _by_kernel(
    ignore_index: int | None,
    tolerance: float,
    logits: Tensor,
    target: Tensor,
    dim: int,
    mask: Tensor | None,
    weight: Tensor | None,
    each: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, Tensor] | None:
    """(total, weight) by the kernel of class indices or that of probabilities, or None where neither will do."""
    constants = target, mask, weight, each
    own: float | None = ignore_index
    module = None
    if target.shape == positions_of(logits, dim) and not (target.is_floating_point() or target.is_complex()):
        layout = common_layout([logits], dim, constants)
        module = None if layout is None else kernels("cross_entropy")
    elif target.shape == logits.shape and ignore_index is None:
        layout, own = common_layout([logits], dim, constants, tiles=3), tolerance
        module = None if layout is None else kernels("soft_cross_entropy")
    if module is None:
        return None
    pair: tuple[Tensor, Tensor] | None = module.fused_total(layout, own, logits, target, dim, mask, weight, each, *rule)
    return pair


def _expected_surprisal(
    logits: Tensor, t: ClassTarget, w: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor | None]:
    """sum_c w_c t_c (-log q_c) and sum_c w_c t_c at each position; the second is None where it is 1 everywhere."""
    surprisal = -F.log_softmax(select(held(logits), t.selected_rows), t.dim)
    if t.index is None:
        assert t.soft is not None
        soft = held(t.soft)
        soft = soft if smoothing == 0 else torch.lerp(soft, torch.full_like(soft, 1 / t.classes), smoothing)
        soft = soft if w is None else soft * w
        return times(soft, surprisal).sum(t.dim), None if w is None else soft.sum(t.dim)
    rows = t.index.unsqueeze(t.dim)
    values = surprisal.gather(t.dim, rows).squeeze(t.dim)
    weights = None if w is None else w.flatten().to(values.dtype)[t.index]
    values = values if weights is None else times(weights, values)
    if smoothing == 0:
        return values, weights
    spread = surprisal if w is None else times(w.to(surprisal.dtype), surprisal)
    # lerp keeps a smoothing of exactly 0 or 1 exact and free of 0 * inf.
    values = _mix(values, spread.mean(t.dim), smoothing)
    return values, None if weights is None or w is None else _mix(weights, w.mean().expand_as(weights), smoothing)


def _mix(a: Tensor, b: Tensor, share: float) -> Tensor:
    return b if share == 1 else (1 - share) * a + share * b


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
    label_smoothing: float = 0.0,
    normalize: str = "weight",
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """The cross entropy of yes and no on one raw score: -v t log s(x) - (1 - t) log s(-x), s the sigmoid; 0..inf.

    Args:
        logits: raw scores x, any shape.
        target: the probability of yes in 0..1 (or bool, or 0 and 1 of an integer type), the same shape.
        mask: boolean, the same shape; True selects.
        weight: one weight for each element, the same shape.
        positive_weight: v, what a yes costs against a no: a number, or a tensor of one element.
        label_smoothing: e in 0..1; the target becomes (1 - e) t + e / 2.
        normalize: what "mean" divides by: "weight", the sum of `weight`, or "count", the number of selected elements.
        reduction, check, group: as in `cross_entropy`.

    >>> import torch
    >>> binary_cross_entropy(torch.tensor([-1e4, 1e4]), torch.tensor([1, 1])).item()
    5000.0
    """
    return yes_or_no(
        "binary_cross_entropy", logits, target, positive_weight, 1.0, 0.0, label_smoothing, mask, weight, normalize,
        reduction, check, group,
    )  # fmt: skip


@loss("cross entropy", "-sum w t (1 - q)^g log q", "0..inf", "most pixels are easy and drown the hard ones")
def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    position_weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: str = "weight",
    reduction: str = "mean",
    check: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Cross entropy that looks away from what is already right: -sum_c w_c t_c (1 - q_c)^gamma log q_c; 0..inf.

    q is softmax(logits); gamma = 0 gives `cross_entropy`. Any gamma >= 0 has a finite gradient, also below 1 where
    q reaches 1, because 1 - q is the sum of the other probabilities and is held as a logarithm. The other arguments
    and the result are those of `cross_entropy`. A sigmoid is a softmax of the two logits 0 and x.

    >>> import torch
    >>> logits = torch.tensor([[0.228, 0.619, 0.153]]).log()
    >>> round(focal(logits, torch.tensor([1]), gamma=2.0).item(), 4)  # 0.381^2 * 0.4797
    0.0696

    Source: Lin et al., Focal loss for dense object detection (2017).
    """
    name = "focal"
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_choice(name, "reduction", reduction, REDUCTIONS)
    require_between(name, "gamma", gamma, 0.0, math.inf)
    read = checking(check, logits)
    dim, _, positions = class_axis(name, logits, class_dim)
    w = class_weights(name, weight, logits, dim, read)
    each = position_weights(name, position_weight, positions, "position_weight", read)

    def plain(x: Tensor) -> tuple[Tensor, Tensor | None]:
        t = class_target(name, x, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read)
        values, weights = _focused(x, t, w, gamma)
        return weigh(values, weights, t.selected, each, normalize)

    pair = None
    if reduction != "none" and (mask is None or (mask.dtype == torch.bool and mask.shape == positions)):
        if target.shape == positions and not (target.is_floating_point() or target.is_complex()):
            layout = common_layout([logits], dim, (target, mask, weight, each))
            module = None if layout is None else kernels("focal")
            if module is not None:
                pair = module.fused_total(
                    gamma, layout, ignore_index, logits, target, dim, mask, weight, each, 0.0, normalize,
                    reduction == "mean" and group is None, lambda x: plain(x)[0].sum(),
                )  # fmt: skip
    if pair is not None:
        return finish(name, *pair, reduction=reduction, check=read, group=group)
    return reduce(name, *plain(logits), reduction=reduction, check=read, group=group)


def _focused(logits: Tensor, t: ClassTarget, w: Tensor | None, gamma: float) -> tuple[Tensor, Tensor | None]:
    """sum_c w_c t_c (1 - q_c)^gamma (-log q_c) and sum_c w_c t_c at each position, as `_expected_surprisal`."""
    log_q = F.log_softmax(select(held(logits), t.selected_rows), t.dim)
    log_other = log_complement(log_q, t.dim)
    if t.index is not None:
        rows = t.index.unsqueeze(t.dim)
        log_q, log_other = (x.gather(t.dim, rows).squeeze(t.dim) for x in (log_q, log_other))
        weights = None if w is None else w.flatten().to(log_q.dtype)[t.index]
        values = -times(torch.exp(gamma * log_other), log_q)
        return values if weights is None else times(weights, values), weights
    assert t.soft is not None
    soft = held(t.soft) if w is None else held(t.soft) * w
    # A class with no share in the target is taken out first: the slope of the factor would be 0 * log 0.
    values = (soft * torch.exp(gamma * log_other) * -log_q.masked_fill((soft == 0) & log_q.isinf(), 0)).sum(t.dim)
    return values, None if w is None else soft.sum(t.dim)


def log_complement(log_q: Tensor, dim: int) -> Tensor:
    """log(1 - q) from log q along the class axis, without cancellation and with a finite gradient everywhere.

    Only the most probable class can come near 1; for it the other classes are summed. The rest are at most 1/2.
    """
    lowest = -1e30  # instead of -inf, whose differences are NaN; its exponential is 0 all the same
    top = torch.zeros_like(log_q, dtype=torch.bool).scatter(dim, log_q.detach().argmax(dim, keepdim=True), 1)
    others = torch.logsumexp(log_q.clamp(min=lowest).masked_fill(top, lowest), dim, keepdim=True)
    return torch.where(top, others, torch.log1p(-log_q.exp().masked_fill(top, 0.0)))
