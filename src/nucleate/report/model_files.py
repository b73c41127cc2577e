"""The files of a model folder that people read: the card, the curves and the report."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from nucleate.networks import store
from nucleate.postprocess.matching import match
from nucleate.report.card import card, run_curves
from nucleate.report.collect import Report
from nucleate.report.html import page
from nucleate.report.own_data import Scored, report_of
from nucleate.report.plots import curves_png
from nucleate.sentences import count
from nucleate.training.fit import Trained
from nucleate.types import Box, Labels, Pixels


def model_files(trained: Trained) -> dict[str, bytes]:
    """The card, the picture of the curves and the report, by the names of their files; see `training.fit.fit`."""
    return {
        store.CARD: card(trained.manifest, trained.folder).encode(),
        store.CURVES: curves_png([run_curves(trained.history, trained.manifest.training)]),
        store.REPORT: page(training_report(trained)).encode(),
    }


def training_report(trained: Trained) -> Report:
    """What a model finds in the images that were held out from its training."""
    manifest, training = trained.manifest, trained.manifest.training
    scored = [
        Scored(name, match(truth, found), partial(_labels, truth, found), partial(_pixels, image))
        for name, (image, truth), found in zip(trained.names, trained.held_out, trained.found, strict=True)
    ]
    facts: tuple[tuple[str, str], ...] = (
        ("Training", f"{count(training.epochs, 'epoch')} in {training.seconds:.0f} s, loss {training.loss}"),
        ("Learnt from", f"{count(manifest.data.labelled, 'labelled image')} of {manifest.data.source}"),
        ("Validation", manifest.data.validation),
        ("Kept", f"the weights of epoch {training.best_epoch}. {training.stopped}"),
    )
    if training.reasons:
        facts += (("Choices", " ".join(training.reasons)),)
    summary = "What the model finds in images, or parts of them, that it did not learn from."
    curves = run_curves(trained.history, training)
    return report_of(f"Nucleate: the model {manifest.name}", summary, facts, scored, curves)


def _labels(truth: Labels, found: Labels) -> tuple[Labels, Labels]:
    return truth, found


def _pixels(image: NDArray[np.float32], box: Box) -> tuple[Pixels, str]:
    """A part of a normalised image (channels, H, W), as 8-bit pixels."""
    part = image[:, box.y : box.bottom, box.x : box.right]
    return np.rint(255 * np.clip(part, 0, 1)).astype(np.uint8).transpose(1, 2, 0), ""
