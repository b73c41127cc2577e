"""What is said at the end of a training: how good the model is, what it lacks, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from nucleate.data.dataset import find, pair
from nucleate.data.masks import Masks, interpret
from nucleate.data.outlines import outlines_fit, pieces
from nucleate.errors import NucleateError
from nucleate.networks import store
from nucleate.networks.manifest import Manifest
from nucleate.report.card import IMAGES, known
from nucleate.sentences import command, count
from nucleate.types import Image, Labels

ENOUGH = 20
"""Nuclei; a score of fewer says little."""

USABLE = 0.2
"""Panoptic quality; a model below it finds hardly a nucleus."""

_LOOKED_AT = 12  # images, where a cause is looked for
_PIECES = 2.0  # pieces a number, from which on the nuclei of a mask are taken for not numbered
_SETTLED = 0.02  # part by which validation error fell over the last half, from which on the curve still falls


def last_words(
    manifest: Manifest,
    history: Sequence[Mapping[str, Any]],
    folder: Path,
    out: Path,
    masks: Masks = "auto",
    options: Sequence[str | Path] = (),
) -> list[str]:
    """The lines that end a training on the labelled images of `folder`, which wrote the model `out`.

    `masks` says what the masks hold, and `options` are the others that a training of these images needs.
    """
    training, scores = manifest.training, manifest.scores.get("validation")
    lines = [f"{training.stopped} The weights of epoch {training.best_epoch} are kept."]
    if manifest.data.channels != ("grey",):
        lines.insert(0, f"It learnt from {' + '.join(manifest.data.channels)}.")
    if known(scores):
        held_out = count(scores["n_true"], "held-out nucleus", "held-out nuclei")
        quality = scores["panoptic_quality"]
        lines.append(f"Panoptic quality {quality:.3f} on {held_out}. {manifest.data.validation}")
        better = better_pretrained(manifest)
        if better is not None:
            other = manifest.scores[better]["panoptic_quality"]
            lines.append(
                f"The model {better} of the package does better on the same nuclei: {other:.3f} against {quality:.3f}."
            )
    else:
        better = None
        said = "no score" in manifest.data.validation
        lines.append(manifest.data.validation if said else f"There is no score. {manifest.data.validation}")
    if training.stopped.startswith("The limit") and still_falling(history):
        lines.append("Validation error was still falling at the limit: a longer training would give a better model.")
    lines.append(f"Wrote {out}; {out / store.REPORT} shows what it finds.")
    if known(scores) and scores["n_true"] >= ENOUGH and scores["panoptic_quality"] >= USABLE:
        return [*lines, f"Next: {command('predict', better or out, folder, '--out', Path('found'))}"]
    cause, mend, next_command = _cause(manifest, history, folder, out, masks, options)
    return [*lines, f"This model is not usable yet. The likeliest cause: {cause}.", mend, f"Next: {next_command}"]


def better_pretrained(manifest: Manifest) -> str | None:
    """The model of the package that does best on the validation images, where it does better than this one."""
    quality = {name: scores["panoptic_quality"] for name, scores in manifest.scores.items() if name not in IMAGES}
    best = max(quality, key=lambda name: quality[name], default=None)
    return best if best is not None and quality[best] > manifest.scores["validation"]["panoptic_quality"] else None


def _cause(
    manifest: Manifest,
    history: Sequence[Mapping[str, Any]],
    folder: Path,
    out: Path,
    masks: Masks,
    options: Sequence[str | Path],
) -> tuple[str, str, str]:
    """The likeliest cause of a useless score, how it is mended, and the next command."""
    meant = [] if masks == "auto" else ["--masks", masks]
    scores, check = manifest.scores.get("validation"), command("check", folder, *meant)
    again = command("train", folder, "--out", _free(out), *meant, *options)
    if known(scores) and scores["panoptic_quality"] < USABLE:
        looked_at = list(islice(_pairs(folder, masks), _LOOKED_AT))
        numbers, apart = (
            sum(found) for found in zip((0, 0), *(pieces(labels) for _, labels in looked_at), strict=True)
        )
        if apart > _PIECES * numbers:
            cause = f"nuclei are not numbered: {count(apart, 'piece')} have {count(numbers, 'number')} in the masks"
            return cause, "Give each nucleus of a mask a number of its own, then train again.", check
        if not outlines_fit(looked_at):
            cause = "the outlines do not fit the images: masks are moved, mirrored, turned, or of other images"
            return cause, "Lay the masks over their images, mend them, then train again.", check
        if still_falling(history):
            cause = f"too short: after {count(len(history), 'epoch')} validation error was still falling"
            return cause, "Train longer: without --minutes and --epochs a run ends by itself.", again
    held_out = scores["n_true"] if known(scores) else 0
    if held_out < ENOUGH or manifest.data.nuclei < 5 * ENOUGH:
        labelled = f"{count(manifest.data.nuclei, 'nucleus', 'nuclei')} labelled, {held_out} of them held out"
        cause = f"too few nuclei: {labelled}; a score of fewer than {ENOUGH} says little"
        return cause, f"Label {5 * ENOUGH} nuclei or more, in five images or more that differ, then train again.", again
    cause = "the outlines do not fit the images well, or nuclei in them are not labelled"
    return cause, f"Look at {out / store.REPORT}, mend the masks, then train again.", check


def still_falling(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether validation error still fell in the last half of a run; of fewer than four epochs it is taken for granted.

    >>> still_falling([{"valid_loss": 1 / epoch} for epoch in range(1, 9)])
    True
    >>> still_falling([{"valid_loss": 1.0}] * 8)
    False
    """
    errors = [row["valid_loss"] for row in history]
    if len(errors) < 4:
        return True
    half = len(errors) // 2
    return bool(min(errors[half:]) < (1 - _SETTLED) * min(errors[:half]))


def _pairs(folder: Path, masks: Masks) -> Iterator[tuple[Image, Labels]]:
    with suppress(NucleateError):
        for image, labels in map(pair, find(folder).labelled):
            yield image, interpret(labels, masks).labels


def _free(out: Path) -> Path:
    """A folder beside `out` that is not there yet."""
    return next(path for n in range(2, 10**6) if not (path := Path(f"{out}-{n}")).exists())
