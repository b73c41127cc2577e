"""The boundary loss: how far from the labelled contour the predicted mass lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.distribution import Distribution, warn_of_simplex
from nucleate.losses.options import Reduction
from nucleate.losses.reduction import reduce, select
from nucleate.losses.regions import regions
from nucleate.losses.registry import loss
from nucleate.losses.targets import selection, weigh
from nucleate.losses.validation import require_floating, require_shape, shape, transforming

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["boundary", "signed_distance"]


@loss(
    "overlap",
    "sum p D, D the signed distance to the contour",
    "any",
    "contours matter; together with dice or cross entropy",
)
def boundary(
    prediction: Tensor | Distribution,
    target: Tensor,
    *,
    distance: Tensor | None = None,
    class_dim: int = 1,
    multilabel: bool = False,
    mask: Tensor | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """sum_c w_c p_c D_c at each pixel, D_c the signed distance in pixels to the contour of class c; any sign.

    D is negative inside the labelled region and positive outside, so the loss falls as mass moves inside; its
    least value is the sum of the negative distances. The mean is over the selected pixels, by their weight. Best used
    together with `dice` or `cross_entropy`: a class without labelled pixels has distance 0 everywhere.

    Args:
        distance: D in the prediction's shape, as made by `signed_distance`; None computes it from `target` (hard
            labels).
        class_weight: one weight for each class, shape (C,); 0 leaves a class, such as background, out.

    >>> import torch
    >>> label = torch.tensor([[[0, 0, 1, 1]]])
    >>> from nucleate import losses
    >>> right = losses.Probabilities(torch.tensor([[[[1.0, 1, 0, 0]], [[0.0, 0, 1, 1]]]]))
    >>> wrong = losses.Probabilities(torch.tensor([[[[0.0, 0, 1, 1]], [[1.0, 1, 0, 0]]]]))
    >>> boundary(right, label).item(), boundary(wrong, label).item()
    (-1.5, 1.5)

    Source: Kervadec et al., Boundary loss for highly unbalanced segmentation (2019).
    """
    name = "boundary"
    r = regions(name, prediction, target, class_dim, multilabel, mask, class_weight, weight, ignore_index, check)
    dim = r.dim
    if r.read and not multilabel:
        warn_of_simplex(name, "prediction", prediction, dim)
    if distance is None:
        # Without an image axis in front of the classes the rest is one image.
        distance = signed_distance(r.t, [a for a in range(r.t.ndim) if a != dim and (a or dim == 0)])
    else:
        require_floating(name, "distance", distance)
        require_shape(name, "distance", distance, shape(r.p), "the prediction")
    w = r.class_weight
    rows = selection(r.rows, None if w is None else w.expand_as(r.p), [r.p, distance])
    terms = select(r.p, rows) * select(distance.to(r.p.dtype), rows)
    values = (terms if w is None else terms * w).sum(dim)
    values, weights = weigh(values, None, None if r.rows is None else r.rows.any(dim), r.weight, "weight")
    return reduce(name, values, weights, reduction=reduction, check=r.read, group=group)


def signed_distance(labels: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The exact Euclidean distance in pixels to the nearest pixel of the other kind, negative inside; float32.

    `labels` holds 0 and 1 for each class (one-hot); `axes` are the spatial axes, by default all after (N, C). 0
    everywhere where a class has no labelled pixel, or no other.

    >>> import torch
    >>> signed_distance(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])).tolist()
    [[[2.0, 1.0, -1.0, -2.0]]]
    """
    along = list(range(2, labels.ndim)) if axes is None else list(axes)
    if not along:
        raise LossInputError(f"signed_distance: needs at least one spatial axis, got labels of shape {shape(labels)}")
    if transforming():
        raise LossInputError(
            "signed_distance: reads the labels, which hold no values inside vmap, compile and the like; compute it "
            "beforehand and give it as distance="
        )
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise LossInputError(
            "signed_distance: needs scipy, which is not installed; pip install scipy, or give distance="
        ) from error
    last = tuple(range(-len(along), 0))
    inside = (labels.detach() > 0.5).movedim(along, last)
    if not inside.numel():
        return torch.zeros_like(labels, dtype=torch.float32)
    images = inside.reshape(-1, *inside.shape[-len(along) :]).cpu().numpy()
    found = np.zeros(images.shape, np.float32)
    for image, distance in zip(images, found, strict=True):
        if image.any() and not image.all():
            distance[:] = distance_transform_edt(~image) - distance_transform_edt(image)
    return torch.from_numpy(found).to(labels.device).reshape(inside.shape).movedim(last, along).contiguous()
