"""Learning curves as a PNG file, for slides and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nucleate.curves.curves import Curves
from nucleate.io.atomic import atomic

TRAINING, VALIDATION, TEST, SCORE, MARK, OVER_FITTING = "#1f6fc5", "#d1560f", "#7a4fb0", "#0f7f6b", "#5f6b7a", "#fbe3e4"
"""Colours of the curves, the epoch kept and the stop, and the part judged over-fitting; the first two differ in
lightness too."""

_LOSS = {
    "train_loss": ("training", TRAINING),
    "valid_loss": ("validation", VALIDATION),
    "test_loss": ("test", TEST),
}
_SCORE = {"score": ("score", SCORE)}


def plot_curves(runs: Sequence[Curves], path: Path, score: str = "Mean AP") -> None:
    """Write `curves_png` to `path`.

    Raises:
        OutputError: `path` cannot be written.
    """
    with atomic(path) as file:
        file.write(curves_png(runs, score))


def curves_png(runs: Sequence[Curves], score: str = "Mean AP") -> bytes:
    """Loss and score against epoch as a PNG, a row a run: epoch kept and stop marked, over-fitting shaded.

    `score` says which score it is. What is missing leaves a gap; a run without a score has no panel for it.
    """
    panels = [("Loss", _LOSS)]
    if any(np.isfinite(epoch.score) for run in runs for epoch in run.epochs):
        panels.append((score, _SCORE))
    size = (5 * max(len(panels), 1.4), 4 * len(runs))
    figure = Figure(figsize=size, dpi=144, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    rows = figure.subplots(len(runs), len(panels), squeeze=False)
    for run, row in zip(runs, rows, strict=True):
        for axes, (title, series) in zip(row, panels, strict=True):
            _draw(axes, f"{title}, {run.name}" if run.name else title, run, series)
    file = BytesIO()
    # The version of the plotting library is left out, so that the same curves give the same bytes.
    canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, title: str, drawn: Curves, series: dict[str, tuple[str, str]]) -> None:
    epochs = [epoch.epoch for epoch in drawn.epochs]
    few = len(epochs) <= 40
    known = [name for name in series if any(np.isfinite(getattr(epoch, name)) for epoch in drawn.epochs)]
    axes.set_visible(bool(known) or series is _LOSS)
    if drawn.over_fitting is not None:
        axes.axvspan(*drawn.over_fitting, color=OVER_FITTING, label="over-fitting", linewidth=0, zorder=0)
    for attribute in known:
        name, colour = series[attribute]
        values = np.array([getattr(epoch, attribute) for epoch in drawn.epochs], float)
        values[~np.isfinite(values)] = np.nan
        axes.plot(epochs, values, color=colour, label=name, linewidth=2, marker="o" if few else "", markersize=3.5)
    for epoch, name, style in ((drawn.kept, "kept", (0, (4, 3))), (drawn.stop, "end decided", (0, (1, 1.5)))):
        if epoch is not None:
            axes.axvline(epoch, color=MARK, linewidth=1.2, linestyle=style, label=f"{name}: epoch {epoch}")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e3e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
