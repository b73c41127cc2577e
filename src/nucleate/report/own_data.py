"""The report of one's own data: scores, and each image with truth and prediction side by side, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleate.curves.curves import Curves
from nucleate.data.dataset import find, images_in
from nucleate.data.masks import Masks, interpret, is_outlines
from nucleate.errors import NucleateError
from nucleate.evaluation import Evaluation, ImageEvaluation, read_both
from nucleate.io.axes import name_of
from nucleate.io.prediction_json import PredictionRecord, is_unlike, read_record, record_file
from nucleate.io.reader import open_reader, unmarked
from nucleate.postprocess.matching import Matching
from nucleate.postprocess.scores import Scores, pool
from nucleate.report.collect import Picture, Report, Table, Value, classes, headline, score_table
from nucleate.report.pictures import SIDE
from nucleate.sentences import count
from nucleate.types import Box, Labels, Pixels

SHOWN = 30
"""So many images are shown in a report, the worst; the table names all."""

ReadPart = Callable[[Box], tuple[Pixels | None, str]]
"""The pixels of a part of an image; None, with a sentence that says why, where there are none."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """An image whose nuclei were matched; its labels are read when it is shown."""

    name: str
    matching: Matching
    labels: Callable[[], tuple[Labels, Labels]]
    pixels: ReadPart

    @property
    def scores(self) -> Scores:
        return pool([self.matching])


def evaluation_report(evaluation: Evaluation, truth: Path, images: Path | None = None, masks: Masks = "auto") -> Report:
    """What `evaluate` found.

    Args:
        evaluation: the scores, of files.
        truth: the true masks, or the data set that they are in.
        images: folder of the images. Without one, an image is found by the record beside the prediction (NAME.json), or
            in the data set of the masks.
        masks: how masks were taken; see `data.masks`.
    """
    beside = _images_of(images) if images is not None else _data_set(truth)
    scored = [
        Scored(one.name, one.matching, _labels(one, masks), _file(one, beside, chosen=images is not None))
        for one in evaluation.images
    ]
    facts: list[tuple[str, Value]] = [("Truth", str(truth))]
    if evaluation.left_out:
        facts.append(("Left out", f"{count(len(evaluation.left_out), 'prediction')} without true labels"))
    records = [(one.name, _record(one.predicted)) for one in evaluation.images]
    if unlike := [name for name, record in records if record is not None and is_unlike(record.novelty)]:
        facts.append(("Unlike the training images", f"{count(len(unlike), 'image')}: {', '.join(unlike)}"))
    return report_of("Nucleate: predicted and true nuclei", "", tuple(facts), scored)


def report_of(
    title: str,
    summary: str,
    facts: tuple[tuple[str, Value], ...],
    scored: Sequence[Scored],
    curves: Curves | None = None,
) -> Report:
    """The report of these images, the worst first."""
    scored = sorted(scored, key=lambda one: one.scores.panoptic_quality)
    scores = pool(one.matching for one in scored) if scored else None
    judged = scores is not None and scores.n_true > 0
    said = [summary] if summary else []
    if len(scored) > SHOWN:
        said.append(f"The {SHOWN} worst of {len(scored)} images are shown.")
    if not judged:
        said.append("There is no score: no true nucleus is there to compare with.")
    return Report(
        title=title,
        summary=" ".join(said),
        headline=headline(scores) if judged and scores else (),
        facts=facts,
        scores=score_table(scores) if judged and scores else None,
        accuracy=scores if judged else None,
        images=_image_table(scored) if judged else None,
        curves=curves,
        pictures=tuple(_picture(one) for one in scored[:SHOWN]),
    )


def _image_table(scored: Sequence[Scored]) -> Table:
    def row(one: Scored) -> tuple[Value, ...]:
        scores = one.scores
        return (one.name, scores.n_true, scores.n_predicted, scores.panoptic_quality, scores.at[0].ap, scores.aji)

    return Table(
        caption="Each image, the worst first",
        head=(
            "Image",
            "True nuclei",
            "Found",
            "Panoptic quality",
            f"AP at {scored[0].scores.at[0].threshold:g}",
            "AJI",
        ),
        rows=tuple(map(row, scored)),
    )


def _picture(one: Scored) -> Picture:
    truth, predicted = one.labels()
    kinds = classes(truth, predicted, one.matching)
    part, about = _part(truth, predicted, kinds[1], kinds[2])
    box = Box(part[0].start, part[1].start, part[0].stop - part[0].start, part[1].stop - part[1].start)
    pixels, problem = one.pixels(box)
    if pixels is None:
        pixels = np.zeros((*box.shape, 1), np.uint8)
    score = f"panoptic quality {one.scores.panoptic_quality:.3f}" if one.matching.n_true else "no true nucleus"
    caption = " · ".join(note for note in (score, about, problem) if note)
    return Picture(one.name, pixels, predicted[part], truth[part], *kinds, caption)


def _part(
    truth: Labels, predicted: Labels, false_positive: NDArray[np.integer], missed: NDArray[np.integer]
) -> tuple[tuple[slice, slice], str]:
    """The part of an image that is shown: what is known of it, and of that, where it is large, most errors."""
    known = truth >= 0
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    top, left, bottom, right = 0, 0, *truth.shape
    if rows.size:
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    wrong = np.isin(truth[top:bottom, left:right], missed) | np.isin(predicted[top:bottom, left:right], false_positive)
    y, x = top + _window(wrong.sum(axis=1)), left + _window(wrong.sum(axis=0))
    part = slice(int(y), int(min(bottom, y + SIDE))), slice(int(x), int(min(right, x + SIDE)))
    shape = truth[part].shape
    if shape == truth.shape:
        return part, ""
    return part, f"shown: {shape[1]} × {shape[0]} of {truth.shape[1]} × {truth.shape[0]} pixels"


def _window(errors: NDArray[np.integer]) -> int:
    """Where a window of `SIDE` begins that holds the most errors along an axis; the middle where there are none."""
    if errors.size <= SIDE:
        return 0
    if not errors.any():
        return (errors.size - SIDE) // 2
    before = np.concatenate([[0], np.cumsum(errors)])
    return int(np.argmax(before[SIDE:] - before[:-SIDE]))


def _labels(one: ImageEvaluation, masks: Masks) -> Callable[[], tuple[Labels, Labels]]:
    def read() -> tuple[Labels, Labels]:
        assert one.truth is not None and one.predicted is not None  # only files are reported
        predicted, truth = read_both(one.predicted, one.truth, masks)
        if _record(one.predicted) is None:
            predicted = interpret(predicted, masks, outlines=is_outlines(one.predicted)).labels
        return interpret(truth, masks, outlines=is_outlines(one.truth)).labels, predicted

    return read


def _file(one: ImageEvaluation, beside: Mapping[str, Path], *, chosen: bool) -> ReadPart:
    """The pixels of an image that was evaluated, from its file."""

    def read(box: Box) -> tuple[Pixels | None, str]:
        record = None if chosen else _record(one.predicted)
        path = record.locate(one.predicted.parent) if record and one.predicted else None
        if path is None or not path.exists():
            record, path = None, beside.get(one.name)
        if path is None:
            return None, "its image was not found: say with --images FOLDER where it is"
        level, plane, (y, x) = (record.level, record.plane, record.origin) if record else (0, None, (0, 0))
        try:
            with closing(open_reader(path, level, plane=plane)) as reader:
                return reader.read(Box(y + box.y, x + box.x, box.height, box.width)), ""
        except NucleateError as error:
            return None, str(error)

    return read


def _record(predicted: Path | None) -> PredictionRecord | None:
    if predicted is None:
        return None
    try:
        return read_record(predicted.parent / record_file(unmarked(name_of(predicted))))
    except (NucleateError, OSError):
        return None


def _images_of(folder: Path) -> dict[str, Path]:
    """The images of a folder by the names that their masks may have."""
    found = {name_of(path): path for path in images_in([folder])}
    endings = ("_img", "_0000")
    return {name.removesuffix(ending): path for ending in endings for name, path in found.items()} | found


def _data_set(truth: Path) -> dict[str, Path]:
    """The images beside the masks, where those are a data set."""
    for folder in (truth, truth.parent):
        try:
            labelled = find(folder).labelled
        except NucleateError:
            continue
        return {unmarked(name_of(sample.mask)): sample.image for sample in labelled if sample.mask is not None}
    return {}
