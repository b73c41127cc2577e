"""The last linear layer and its cross entropy in one, so that the logits of many classes are never held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.checking import require_floating, require_shape, shape
from nucleate.losses.cross_entropy import cross_entropy_of
from nucleate.losses.reduction import held

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def linear_cross_entropy(
    features: Tensor,
    projection: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
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
    """`cross_entropy` of the logits `projection` @ features + `bias`; range 0..inf.

    Args:
        features: (N, D), (N, D, H, W), ... with the D features along `class_dim`.
        projection: (C, D), one row for each class, as `torch.nn.Linear` holds it; with `bias` (C,).
        target: class indices in the shape of the features without `class_dim`, or probabilities with C there.

    The other arguments and the result are those of `cross_entropy`.

    >>> import torch
    >>> x, w, label = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    >>> round(linear_cross_entropy(x, w, label).item(), 4)  # log(1 + e^-2)
    0.1269
    """
    name = "linear_cross_entropy"
    require_floating(name, "features", features)
    require_floating(name, "projection", projection)
    if not -features.ndim <= class_dim < features.ndim:
        raise LossInputError(f"{name}: class_dim={class_dim} is not a dimension of features of shape {shape(features)}")
    dim = class_dim % features.ndim
    if projection.ndim != 2 or projection.shape[1] != features.shape[dim]:
        raise LossInputError(
            f"{name}: projection of shape {shape(projection)} must be (classes, {features.shape[dim]}) to fit features "
            f"of shape {shape(features)} along dimension {dim}"
        )
    if bias is not None:
        require_shape(name, "bias", bias, (len(projection),), "the classes")
    with torch.autocast(features.device.type, enabled=False):
        kind = torch.promote_types(held(features).dtype, held(projection).dtype)
        logits = F.linear(
            features.to(kind).movedim(dim, -1), projection.to(kind), None if bias is None else bias.to(kind)
        ).movedim(-1, dim)
    return cross_entropy_of(
        name, logits, target, dim, mask, weight, position_weight, ignore_index, label_smoothing, normalize, reduction,
        check, group,
    )  # fmt: skip
