"""What the losses of yes and no on one raw score have in common: binary cross entropy, and its focal form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.kernels import kernels
from nucleate.losses.kernels.memory import common_order
from nucleate.losses.options import Normalize, Reduction
from nucleate.losses.reduction import REDUCTIONS, finish, held, reduce, select, times
from nucleate.losses.targets import labelled, mix, selection, weigh
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
    transforming,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

_FEWEST = 1 << 11  # numbers, below which the call of the kernel costs more than the plain version


def yes_or_no(
    name: str,
    logits: Tensor,
    target: Tensor,
    yes: float | Tensor,
    no: float,
    gamma: float,
    smoothing: float,
    mask: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    normalize: Normalize,
    reduction: Reduction,
    check: bool | None,
    group: Group | None,
) -> Tensor:
    """-yes t (1 - p)^gamma log p - no (1 - t) p^gamma log(1 - p) with p = s(x), the loss `name`.

    `yes` is a number, or a tensor with the axes of the logits and as long as they are along one of them at most.
    """
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_choice(name, "reduction", reduction, REDUCTIONS)
    require_between(name, "label_smoothing", smoothing, 0.0, 1.0)
    require_between(name, "gamma", gamma, 0.0, math.inf)
    require_floating(name, "logits", logits)
    read = checking(check, logits)
    require_shape(name, "target", target, shape(logits), "the logits")
    if mask is not None:
        require_mask(name, mask, shape(logits), "the logits")
    if weight is not None:
        require_weights(name, "weight", weight, shape(logits), "the logits", read)
    mask = selection(labelled(name, target, mask, ignore_index), weight, [logits])

    def plain(scores: Tensor) -> tuple[Tensor, Tensor | None]:
        x = select(held(scores), mask)
        t = select(target.to(x.dtype), mask)
        if read:
            require_range(name, "target", t, 0.0, 1.0, "labels of -1 and +1 are for the margin losses")
        if smoothing:
            t = mix(t, torch.full_like(t, 0.5), smoothing)
        log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)
        a, b = (t, 1 - t) if gamma == 0 else (t * (gamma * log_q).exp(), (1 - t) * (gamma * log_p).exp())
        return weigh(-times(a * yes, log_p) - times(b * no, log_q), None, mask, weight, normalize)

    total = None
    if reduction != "none":
        constants = target, mask, weight, yes if isinstance(yes, Tensor) else None
        order = None if transforming() or logits.numel() < _FEWEST else common_order(logits, constants)
        module = None if order is None else kernels("binary")
        if module is not None:
            amount = _amount(logits, mask, weight, normalize)
            alone = reduction == "mean" and group is None
            total = module.binary_total(
                order, logits, target, mask, weight, yes, no, gamma, smoothing, amount, alone, read,
                lambda x: plain(x)[0].sum(),
            )  # fmt: skip
    if total is not None:
        return finish(name, total, amount, reduction=reduction, check=read, group=group)
    return reduce(name, *plain(logits), reduction=reduction, check=read, group=group)


def _amount(logits: Tensor, mask: Tensor | None, weight: Tensor | None, normalize: Normalize) -> float:
    """What the plain version's weights sum to."""
    if weight is None or normalize == "count":
        return logits.numel() if mask is None else int(mask.count_nonzero())
    return float(select(held(weight), mask).sum())
