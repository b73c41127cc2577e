"""Learning curves as a PNG file, for slides and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nucleate.images.writer import atomic
from nucleate.report.collect import Curves, curves

TRAINING, VALIDATION, SCORE, BEST = "#1f6fc5", "#d1560f", "#0f7f6b", "#5f6b7a"
"""Colours of the curves; those of training and validation differ in lightness too."""


def plot_curves(history: Iterable[Mapping[str, float]], path: Path, best: int | None = None) -> None:
    """Write loss and score against epoch to `path`, with the best epoch marked.

    `history` and `best` are those of `nucleate.report.collect.curves`. What is missing leaves a gap.

    Raises:
        OutputError: `path` cannot be written.
    """
    drawn = curves(history, best)
    figure = Figure(figsize=(10, 4), dpi=144, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    loss, score = figure.subplots(1, 2)
    _draw(loss, "Loss", drawn, {"train_loss": ("training", TRAINING), "valid_loss": ("validation", VALIDATION)})
    _draw(score, "Mean AP", drawn, {"score": ("validation", SCORE)})
    with atomic(path) as file:
        # The version of the plotting library is left out, so that the same curves give the same bytes.
        canvas.print_png(file, metadata={"Software": None})


def _draw(axes: Axes, title: str, drawn: Curves, series: dict[str, tuple[str, str]]) -> None:
    epochs = [epoch.epoch for epoch in drawn.epochs]
    few = len(epochs) <= 40
    for attribute, (name, colour) in series.items():
        values = np.array([getattr(epoch, attribute) for epoch in drawn.epochs], float)
        values[~np.isfinite(values)] = np.nan
        if not np.isnan(values).all():
            axes.plot(epochs, values, color=colour, label=name, linewidth=2, marker="o" if few else "", markersize=3.5)
    if drawn.best is not None:
        axes.axvline(drawn.best, color=BEST, linewidth=1.2, linestyle=(0, (4, 3)), label=f"best: epoch {drawn.best}")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
