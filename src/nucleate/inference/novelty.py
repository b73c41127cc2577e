"""How far an image lies from those that its model was trained on."""

from __future__ import annotations

from nucleate.inference.pipeline import Pipeline
from nucleate.io.prediction_json import is_unlike
from nucleate.networks.embedding import embed
from nucleate.networks.store import Model


def novelty_of(pipeline: Pipeline, model: Model) -> float | None:
    """The distance of an image to the prototypes of the model, where 1 is the threshold (`networks.prototypes`).

    Of a large image a few tiles are read, the same whatever region of it is segmented. None where the model has no
    threshold, or every tile has one value throughout.
    """
    prototypes = model.prototypes
    if prototypes is None or prototypes.measured.threshold is None or pipeline.statistics.constant:
        return None
    return prototypes.novelty(embed(model.network, pipeline.seen.shape, pipeline.read_seen))


def remark(novelty: float | None) -> tuple[str, ...]:
    """What there is to say of it.

    >>> remark(0.7), remark(2.3)[0][:62]
    ((), 'it looks unlike anything that the model was trained on (2.3 ti')
    """
    if novelty is None or not is_unlike(novelty):
        return ()
    return (
        f"it looks unlike anything that the model was trained on ({novelty:.3g} times the distance that is allowed):"
        " look at what was found, and label such images to train on them.",
    )
