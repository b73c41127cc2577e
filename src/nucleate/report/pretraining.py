"""The files of a pre-trained model's folder that people read: what it learnt, shown on the crops that were held out."""

from __future__ import annotations

from html import escape

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.embeddings import unit
from nucleate.networks import store
from nucleate.report.card import run_curves
from nucleate.report.html import document, facts, section
from nucleate.report.pictures import drawing, image_element
from nucleate.report.plots import LOSS, curves_png, curves_svg, lines_svg
from nucleate.sentences import command, count
from nucleate.training.pretrain import Pretrained
from nucleate.types import Pixels

SHOWN, NEAREST = 6, 5
"""Crops whose neighbours are shown, and how many of them."""

_THUMBNAIL = 40
"""Pixels; the side of a picture on the map of 700 x 500."""

_STYLE = """
.neighbours { display: grid; grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); gap: 8px; margin-top: 12px; }
.neighbours .right svg { outline: 3px solid var(--score); }
"""


def pretraining_files(pretrained: Pretrained) -> dict[str, bytes]:
    """The card, the picture of the curves and the report, by the names of their files; see `training.pretrain`."""
    manifest = pretrained.manifest
    return {
        store.CARD: _card(pretrained).encode(),
        store.CURVES: curves_png([run_curves(pretrained.history, manifest.training)], "Top-1"),
        store.REPORT: pretraining_report(pretrained).encode(),
    }


def _sentence(pretrained: Pretrained) -> str:
    number = len(pretrained.after.embeddings)
    return (
        f"The other view of a held-out crop is the nearest of {number} in {pretrained.after.score:.1%} of all cases:"
        f" {pretrained.before.score:.1%} before the training, {1 / number:.1%} by chance."
    )


def _card(pretrained: Pretrained) -> str:
    manifest, training = pretrained.manifest, pretrained.manifest.training
    return f"""# {manifest.name}

Pre-trained on images without labels: it finds no nuclei yet. Train a model from it:

    {command("train", "FOLDER", "--from", pretrained.folder, "--out", "MODEL")}

## Data
{manifest.data.source}: {count(manifest.data.unlabelled, "image")}, channels {", ".join(manifest.data.channels)}.
{manifest.data.validation}

## What it learnt
{_sentence(pretrained)}

## Training
{count(training.epochs, "epoch")}, {count(training.steps, "step")}, {training.seconds:.0f} s, loss {training.loss}, seed
{training.seed}; the weights of epoch {training.best_epoch} are kept. {training.stopped}

![curves]({store.CURVES})
"""


def pretraining_report(pretrained: Pretrained) -> str:
    """The report as one HTML file: curves, neighbours of a few crops, and a map of the images."""
    manifest, training, after = pretrained.manifest, pretrained.manifest.training, pretrained.after
    number, history = len(after.embeddings), pretrained.history
    curves = run_curves(history, training)
    charts = (
        curves_svg(curves, "Loss", LOSS),
        lines_svg("Top-1", {"top-1": [row["score"] for row in history]}, ("chance", 1 / number)),
        lines_svg("Spread", {"spread": [row["spread"] for row in history]}),
        lines_svg("Effective rank", {"effective rank": [row["effective_rank"] for row in history]}),
    )
    known = (
        ("Training", f"{count(training.epochs, 'epoch')} in {training.seconds:.0f} s, loss {training.loss}"),
        ("Learnt from", f"{count(manifest.data.unlabelled, 'image')} of {manifest.data.source}, without labels"),
        ("Held out", manifest.data.validation),
        ("Kept", f"the weights of epoch {training.best_epoch}. {training.stopped}"),
    )
    headline = (
        (f"Top-1 among {number} crops", after.score),
        ("before the training", pretrained.before.score),
        ("by chance", 1 / number),
        ("Spread (0: collapsed)", after.spread),
        (f"Effective rank of {after.embeddings.shape[2]}", after.effective_rank),
    )
    panels = "".join(f"<figure>{chart}</figure>" for chart in charts if chart)
    about = (
        '<p class="summary">Each row: a crop, then the crops whose other views are nearest to it. The framed one is the'
        " same crop.</p>"
    )
    return document(
        f"Nucleate: the pre-trained model {manifest.name}",
        f"It finds no nuclei yet: a training starts from it. {_sentence(pretrained)}",
        headline,
        [
            facts(known),
            section("Learning curves", f'<div class="charts">{panels}</div>'),
            section("Nearest neighbours", about + _neighbours(pretrained)),
            section("Map of the images", _map(pretrained)),
        ],
        _STYLE,
    )


def _neighbours(pretrained: Pretrained) -> str:
    first, second = unit(pretrained.after.embeddings).unbind(1)
    order = (first @ second.T).argsort(dim=1, descending=True, stable=True)
    chosen = np.linspace(0, len(first) - 1, min(SHOWN, len(first))).round().astype(int).tolist()
    rows = []
    for number in chosen:
        figures = [_figure(pretrained.crops[number, 0], f"crop-{number}", f"crop {number + 1}", "")]
        for rank, other in enumerate(order[number, :NEAREST].tolist(), start=1):
            kind, name = "right" if other == number else "", f"near-{number}-{rank}"
            figures.append(_figure(pretrained.crops[other, 1], name, f"{rank}: crop {other + 1}", kind))
        rows.append(f'<div class="neighbours">{"".join(figures)}</div>')
    return "\n".join(rows)


def _figure(crop: Tensor, name: str, caption: str, kind: str) -> str:
    pixels = _pixels(crop)
    picture = drawing(image_element(pixels, name), (pixels.shape[0], pixels.shape[1]), caption)
    return f'<figure class="{kind}">{picture}<figcaption>{escape(caption)}</figcaption></figure>'


def _pixels(crop: Tensor) -> Pixels:
    """A normalised crop (channels, H, W), as 8-bit pixels."""
    pixels: Pixels = np.rint(255 * np.clip(crop.numpy(), 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return pixels


def _map(pretrained: Pretrained) -> str:
    """A crop of each held-out image, where the mean of the embeddings of its crops lies in the plane in which they
    differ most."""
    numbers = sorted(set(pretrained.images))
    firsts = [pretrained.images.index(number) for number in numbers]
    places = plane(
        torch.stack(
            [
                unit(pretrained.after.embeddings)
                .mean(1)[[i for i, one in enumerate(pretrained.images) if one == number]]
                .mean(0)
                for number in numbers
            ]
        )
    )
    # The same part of the map for each axis, with the pictures inside.
    low, high = places.min(axis=0), places.max(axis=0)
    around = np.array([700.0 - _THUMBNAIL, 500.0 - _THUMBNAIL])
    at = (places - low) / np.where(high > low, high - low, 1.0) * around
    size = f'width="{_THUMBNAIL}" height="{_THUMBNAIL}"'
    elements = []
    for (x, y), first in zip(at.tolist(), firsts, strict=True):
        pixels = _pixels(pretrained.crops[first, 0])[::2, ::2]
        picture = image_element(pixels, f"map-{first}")
        elements.append(
            f'<svg x="{x:.1f}" y="{y:.1f}" {size} viewBox="0 0 {pixels.shape[1]} {pixels.shape[0]}">{picture}</svg>'
        )
    picture = drawing("".join(elements), (500, 700), f"Map of {count(len(numbers), 'held-out image')}")
    about = f"A crop of each of {count(len(numbers), 'held-out image')}; alike ones lie near one another."
    return f'<p class="summary">{about} The axes are the first two principal components of the embeddings.</p>{picture}'


def plane(rows: Tensor) -> NDArray[np.float64]:
    """The first two principal components of rows (N, D), (N, 2); the sign of each is that of its largest number.

    >>> plane(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0]])).round(2).tolist()
    [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]]
    """
    values = rows.double().numpy()
    values = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(values, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    found = values @ axes.T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
