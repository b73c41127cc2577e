"""Cross entropy for labels of which some are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.losses.options import Normalize, Reduction, Share
from nucleate.losses.reduction import held, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, class_target, class_weights, position_weights, weigh
from nucleate.losses.validation import checking, require_between, require_choice

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["generalized_cross_entropy"]


@loss("cross entropy", "sum w t (1 - softmax(x)^q) / q", "0..1/q", "some labels are wrong")
def generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: Share = 0.7,
    class_dim: int = 1,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    normalize: Normalize = "weight",
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_c w_c t_c (1 - p_c^q) / q with p = softmax(logits): a wrong label costs at most 1 / q; range 0..1/q.

    Between `cross_entropy` (q = 0) and the probability of the other classes (q = 1): the larger q, the less a wrong
    label pulls, and the slower is the beginning.

    Args:
        q: how much single labels are distrusted, in 0..1.

    >>> import torch
    >>> logits = torch.tensor([[0.25, 0.75]]).log()
    >>> generalized_cross_entropy(logits, torch.tensor([0]), q=0.5).item()  # (1 - 1/2) / (1/2)
    1.0

    Source: Zhang and Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy labels
    (2018).
    """
    name = "generalized_cross_entropy"
    require_choice(name, "normalize", normalize, ("weight", "count"))
    require_between(name, "q", q, 0.0, 1.0)
    read = checking(check, logits)
    dim, _, positions = class_axis(name, logits, class_dim)
    w = class_weights(name, class_weight, logits, dim, read)
    each = position_weights(name, weight, positions, read)
    t = class_target(
        name, logits, target, class_dim=dim, mask=mask, ignore_index=ignore_index, read=read, weight=each,
        class_weight=w,
    )  # fmt: skip
    log_p = F.log_softmax(select(held(logits), t.selected_rows), dim)
    if t.index is not None:
        values = _lack(log_p.gather(dim, t.index.unsqueeze(dim)).squeeze(dim), q)
        values = values if t.share is None else times(t.share, values)
    else:
        assert t.soft is not None
        soft = held(t.soft) if w is None else held(t.soft) * w
        values = times(soft, _lack(log_p, q)).sum(dim)
    values, weights = weigh(values, t.share, t.selected, each, normalize)
    return reduce(name, values, weights, reduction=reduction, check=read, group=group)


def _lack(log_p: Tensor, q: float) -> Tensor:
    """(1 - p^q) / q, and -log p for q = 0."""
    return -log_p if q == 0 else -torch.expm1(q * log_p) / q
