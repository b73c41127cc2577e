"""Losses without negatives: a student predicts what a teacher gives, and no gradient reaches the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleate.errors import LossInputError
from nucleate.losses.distributed import require_group, sum_across
from nucleate.losses.embeddings import rows, unit
from nucleate.losses.options import Positive, Reduction, Share
from nucleate.losses.reduction import held, quotient, reduce, select, times
from nucleate.losses.registry import loss
from nucleate.losses.targets import class_axis, positions_of, weigh, without_zeros
from nucleate.losses.validation import (
    checking,
    require_between,
    require_floating,
    require_mask,
    require_positive,
    require_shape,
    shape,
)

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["DINOCenter", "byol", "dino", "simsiam"]


@loss("contrastive", "2 - 2 cos(prediction, target)", "0..4", "no negatives; a slow copy is the teacher", module="BYOL")
def byol(
    prediction: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """|p / |p| - t / |t||^2 = 2 - 2 cos(p, t) for each row; range 0..4. No gradient flows to `target`.

    The loss alone would fall to 0 with one and the same embedding for all. What keeps it from there is outside: a
    predictor on the student's side only, and a teacher whose weights are the moving average of the student's. For
    the symmetric loss of the paper add byol(prediction_2, target_1). A row of zeros stays 0 and has a loss of 1.

    Args:
        prediction: (N, D), what the student's predictor makes of one view, one embedding a row.
        target: (N, D), the teacher's projection of the other view.
        weight: one weight for each row, (N,); a row of weight 0 is not selected.

    >>> import torch
    >>> byol(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()  # a right angle
    2.0

    Source: Grill et al., Bootstrap your own latent (2020).
    """
    (p, t), selected, read = _directions("byol", {"prediction": prediction, "target": target}, mask, weight, check)
    values = (p - t.detach().to(p.dtype)).square().sum(1)
    return reduce(
        "byol", *weigh(values, None, selected, weight, "weight"), reduction=reduction, check=read, group=group
    )


@loss("contrastive", "-cos(prediction, projection)", "-1..1", "no negatives, no second network", module="SimSiam")
def simsiam(
    first_prediction: Tensor,
    first_projection: Tensor,
    second_prediction: Tensor,
    second_projection: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """-(cos(p1, z2) + cos(p2, z1)) / 2 for each row, p predictions and z projections of two views; range -1..1.

    No gradient flows to a projection: the stop-gradient is in here, and z is given with its graph. It is what keeps
    the embeddings from becoming one; the encoder learns through the predictions. A row of zeros has the cosine 0.

    Args:
        first_prediction: (N, D), the predictor's output for the first view, one embedding a row.
        first_projection: (N, D), the projector's output for the first view, which the predictor took.
        second_prediction: (N, D), of the second view.
        second_projection: (N, D), of the second view.
        weight: one weight for each row, (N,); a row of weight 0 is not selected.

    >>> import torch
    >>> x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    >>> simsiam(x, x, x, x).item(), simsiam(x, x, x, y).item()
    (-1.0, -0.5)

    Source: Chen and He, Exploring simple siamese representation learning (2020).
    """
    named = {
        "first_prediction": first_prediction,
        "first_projection": first_projection,
        "second_prediction": second_prediction,
        "second_projection": second_projection,
    }
    (p, z, q, y), selected, read = _directions("simsiam", named, mask, weight, check)
    values = -((p * y.detach().to(p.dtype)).sum(1) + (q * z.detach().to(q.dtype)).sum(1)) / 2
    pair = weigh(values, None, selected, weight, "weight")
    return reduce("simsiam", *pair, reduction=reduction, check=read, group=group)


def _directions(
    name: str, named: dict[str, Tensor], mask: Tensor | None, weight: Tensor | None, check: bool | None
) -> tuple[list[Tensor], Tensor | None, bool]:
    """The rows of each input at length 1; which are selected; whether values may be read.

    Rows meet their partner only, so none has to be taken out: the shape stays, and holds inside vmap and compile.
    Those that are not selected become ones, whose derivatives are all finite.
    """
    every, read = rows(name, named, "dot", None, None, check)
    selected = without_zeros(name, mask, weight, (every[0].shape[0],), read, every, 1)
    chosen = None if selected is None else selected.unsqueeze(1)
    kind = held(next(iter(named.values()))).dtype  # that of the prediction; its target is a constant
    return [unit(select(x.to(kind), chosen, fill=1.0)) for x in every], selected, read


@loss(
    "contrastive",
    "-sum softmax((t - c) / T) log softmax(s / S)",
    "0..inf",
    "no negatives; clusters without labels, many crops",
    module="DINO",
)
def dino(
    student: Tensor,
    teacher: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: Positive = 0.1,
    teacher_temperature: Positive = 0.04,
    class_dim: int = 1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
    group: Group | None = None,
) -> Tensor:
    """-sum_k softmax((teacher - center) / T)_k log softmax(student / S)_k at each position; range 0..inf.

    T is `teacher_temperature`, S `student_temperature`. No gradient flows to `teacher` or `center`. A T below S
    sharpens the teacher and keeps it from the uniform answer, the centre keeps it from one answer for all: both are
    needed. With several crops the loss is the mean over all pairs of a student's and a teacher's crop but those of
    the same crop, one call each. Equal scores give ln K.

    Args:
        student: scores (N, K), or (N, K, H, W) and so on with the K scores along `class_dim`.
        teacher: scores in the same shape, of another view of the same images.
        center: (K,), what is subtracted from the teacher's scores, as `DINOCenter` keeps it; None subtracts nothing.
        student_temperature: S, above 0.
        teacher_temperature: T, above 0.
        class_dim: the axis of the K scores.
        weight: one weight for each position; a position of weight 0 is not selected.

    >>> import torch
    >>> round(dino(torch.zeros(2, 8), torch.randn(2, 8)).item(), 4)  # ln 8
    2.0794

    Source: Caron et al., Emerging properties in self-supervised vision transformers (2021).
    """
    name = "dino"
    require_positive(name, "student_temperature", student_temperature)
    require_positive(name, "teacher_temperature", teacher_temperature)
    dim, scores, positions = class_axis(name, student, class_dim, name="student")
    require_floating(name, "teacher", teacher)
    require_shape(name, "teacher", teacher, shape(student), "student")
    read = checking(check, student)
    selected = without_zeros(name, mask, weight, positions, read, [student, teacher], dim)
    chosen = None if selected is None else selected.unsqueeze(dim)
    said = select(held(student), chosen) / student_temperature
    taught = select(held(teacher.detach()), chosen)
    if center is not None:
        require_shape(name, "center", center, (scores,), "the scores of one position")
        taught = taught - center.detach().to(taught.dtype).reshape(scores, *[1] * (student.ndim - dim - 1))
    share = F.softmax(taught / teacher_temperature, dim)
    values = -times(share.to(said.dtype), F.log_softmax(said, dim)).sum(dim)
    pair = weigh(values, None, selected, weight, "weight")
    return reduce(name, *pair, reduction=reduction, check=read, group=group)


class DINOCenter(nn.Module):
    """The centre of a teacher's scores for `dino`: their moving average, a buffer that is saved with the model.

    Over the ranks of `group` all rows count alike, also where ranks hold different numbers of them, so that every rank
    has the centre of one process that holds all rows. It starts at 0, and is updated after the loss was computed.

    Args:
        scores: K, how many scores a position has.
        momentum: in 0..1, the share of the old centre that an update keeps.

    >>> import torch
    >>> from nucleate import losses
    >>> center = losses.DINOCenter(2, momentum=0.5)
    >>> teacher = torch.tensor([[1.0, 3.0], [3.0, 5.0]])
    >>> loss = losses.dino(torch.zeros(2, 2), teacher, center=center.value)
    >>> center.update(teacher)
    >>> center.value.tolist()
    [1.0, 2.0]

    Source: Caron et al., Emerging properties in self-supervised vision transformers (2021).
    """

    value: Tensor

    def __init__(self, scores: int, *, momentum: Share = 0.9) -> None:
        super().__init__()
        require_between("DINOCenter", "momentum", momentum, 0.0, 1.0)
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(scores))

    @torch.no_grad()
    def update(
        self, teacher: Tensor, *, class_dim: int = 1, mask: Tensor | None = None, group: Group | None = None
    ) -> None:
        """Move the centre towards the mean of `teacher` over its selected positions and the ranks of `group`.

        Args:
            teacher: scores, as given to `dino`.
            class_dim: the axis of the K scores.
            mask: boolean, the shape of the positions; True selects. Without a selected position nothing changes.
            group: the ranks; each must make this call, one without rows too.

        Raises:
            LossInputError: shapes or types that do not fit.
        """
        name, scores = "DINOCenter", len(self.value)
        require_group(name, group)
        require_floating(name, "teacher", teacher)
        if not -teacher.ndim <= class_dim < teacher.ndim or teacher.shape[class_dim] != scores:
            raise LossInputError(
                f"{name}: teacher must have {scores} scores along dimension {class_dim}, got shape {shape(teacher)}"
            )
        positions = positions_of(teacher, class_dim % teacher.ndim)
        if mask is not None:
            require_mask(name, mask, positions, "the positions of the teacher")
        every = held(teacher).movedim(class_dim, -1).reshape(-1, scores)
        selected = every.new_ones(len(every), 1, dtype=torch.bool) if mask is None else mask.reshape(-1, 1)
        sums = torch.cat((select(every, selected).sum(0), selected.sum(0).to(every.dtype)))
        sums = sum_across(sums, group)
        mean = quotient(sums[:-1], sums[-1]).to(self.value.dtype)
        self.value.copy_(torch.where(sums[-1] > 0, torch.lerp(mean, self.value, self.momentum), self.value))

    def extra_repr(self) -> str:
        return f"{len(self.value)}, momentum={self.momentum}"
