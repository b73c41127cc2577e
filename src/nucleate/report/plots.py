"""Learning curves by matplotlib: as a PNG file, and as an SVG element inside the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO, StringIO
from math import isfinite
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nucleate.curves.curves import Curves
from nucleate.io.atomic import atomic
from nucleate.postprocess.scores import Scores
from nucleate.sentences import count

TRAINING, VALIDATION, TEST, SCORE, MARK, OVER_FITTING = "#1f6fc5", "#d1560f", "#7a4fb0", "#0f7f6b", "#5f6b7a", "#fbe3e4"
"""Colours of the curves, the epoch kept and the stop, and the part judged over-fitting; the first two differ in
lightness too."""

_INCHES = 6.0, 3.75
"""Width and height of a chart of the report."""

_INK, _GRID = "#1a2029", "#e3e7ec"
_STYLE = {
    TRAINING: "--train",
    VALIDATION: "--valid",
    SCORE: "--score",
    MARK: "--quiet",
    OVER_FITTING: "--over-fitting",
    _INK: "--ink",
    _GRID: "--rule",
}
"""Colour -> the variable of the page's style that stands for it, so that a chart follows a dark page."""

Series = Mapping[str, tuple[str, str]]
"""Attribute of `Epoch` -> name and colour of its curve."""

LOSS: Series = {
    "train_loss": ("training", TRAINING),
    "valid_loss": ("validation", VALIDATION),
    "test_loss": ("test", TEST),
}
MEAN_AP: Series = {"score": ("score", SCORE)}


def plot_curves(runs: Sequence[Curves], path: Path, score: str = "Mean AP") -> None:
    """Write `curves_png` to a file.

    Raises:
        OutputError: `path` cannot be written.
    """
    with atomic(path) as file:
        file.write(curves_png(runs, score))


def curves_png(runs: Sequence[Curves], score: str = "Mean AP") -> bytes:
    """Loss and score against epoch as a PNG, a row a run: epoch kept and stop marked, over-fitting shaded.

    Args:
        runs: what is drawn. What is missing leaves a gap; a run without a score has no panel for it.
        score: which score it is.

    Returns:
        The content of the file; the same curves give the same bytes.
    """
    panels = [("Loss", LOSS)] + [(score, MEAN_AP)] * any(_finite(run, "score") for run in runs)
    figure = _figure(runs, panels, (5 * max(len(panels), 1.4), 4 * len(runs)))
    file = BytesIO()
    # The version of the plotting library is left out of the file.
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": "nucleate"})
    return file.getvalue()


def curves_svg(run: Curves, title: str, series: Series) -> str:
    """One panel as an `svg` element, with a text for those who cannot see it; "" where no value is finite.

    >>> from nucleate.curves.curves import curves
    >>> chart = curves_svg(curves([{"train_loss": 2.0}, {"train_loss": 1.0}], kept=2), "Loss", LOSS)
    >>> chart.count("<svg"), "training from 2 to 1; kept epoch 2" in chart
    (1, True)
    """
    if not any(_finite(run, name) for name in series):
        return ""
    return _svg(_figure([run], [(title, series)], _INCHES), title, _describe(title, run, series))


def accuracy_svg(scores: Scores) -> str:
    """Average precision, precision and recall against the IoU threshold as an `svg` element; "" of one threshold.

    >>> from nucleate.postprocess.matching import match
    >>> from nucleate.postprocess.scores import pool
    >>> labels = np.array([[1, 1, 0, 2]])
    >>> "AP 1.00 at IoU 0.5" in accuracy_svg(pool([match(labels, labels)]))
    True
    """
    if len(scores.at) < 2:
        return ""
    figure = Figure(figsize=_INCHES, dpi=144, layout="constrained", facecolor="white")
    axes, thresholds = figure.subplots(), [row.threshold for row in scores.at]
    for name, colour, width in (("precision", TRAINING, 1.5), ("recall", VALIDATION, 1.5), ("ap", SCORE, 2.5)):
        values = [getattr(row, name) for row in scores.at]
        label = "AP" if name == "ap" else name
        axes.plot(thresholds, values, color=colour, label=label, linewidth=width, marker="o", markersize=3.5)
    axes.set_ylim(-0.03, 1.03)
    _dress(axes, "Average precision over IoU", "IoU threshold")
    said = ", ".join(f"{row.ap:.2f} at IoU {row.threshold:g}" for row in scores.at)
    return _svg(figure, "accuracy", f"Average precision over IoU: AP {said}")


def lines_svg(
    title: str, lines: Mapping[str, Sequence[float]], level: tuple[str, float] | None = None, below: str = "Epoch"
) -> str:
    """Values against the epoch, or what `below` names, from 1, as an `svg` element; `level` is drawn across, by its
    name.

    >>> "spread from 0.5 to 0.25" in lines_svg("Spread", {"spread": [0.5, 0.25]})
    True
    """
    figure = Figure(figsize=_INCHES, dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for (name, values), colour in zip(lines.items(), (SCORE, TRAINING, VALIDATION), strict=False):
        epochs = range(1, len(values) + 1)
        dots = "o" if len(values) <= 40 else ""
        axes.plot(epochs, values, color=colour, label=name, linewidth=2, marker=dots, markersize=3.5)
    if level is not None:
        axes.axhline(level[1], color=MARK, linewidth=1.2, linestyle=(0, (4, 3)), label=level[0])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(axes, title, below)
    said = ", ".join(f"{name} from {values[0]:.4g} to {values[-1]:.4g}" for name, values in lines.items())
    return _svg(figure, title, f"{title} over {count(max(map(len, lines.values())), below.lower())}: {said}")


def histogram_svg(title: str, below: str, values: NDArray[np.floating], edges: NDArray[np.floating]) -> str:
    """How many nuclei have values between these edges, as an `svg` element; the median is marked.

    >>> "median 2 of 3 nuclei" in histogram_svg("Size", "pixels", np.array([1.0, 2, 9]), np.array([0.0, 5, 10]))
    True
    """
    figure = Figure(figsize=_INCHES, dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.hist(values, bins=list(edges), color=TRAINING)
    middle = float(np.median(values))
    axes.axvline(middle, color=MARK, linewidth=1.2, linestyle=(0, (4, 3)), label=f"median {middle:.4g}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(axes, title, below)
    said = f"median {middle:.4g} of {count(values.size, 'nucleus', 'nuclei')}"
    low, high = np.percentile(values, (5, 95))
    return _svg(figure, title, f"{title} ({below}): {said}, 90 % of them from {low:.4g} to {high:.4g}")


def _svg(figure: Figure, salt: str, description: str) -> str:
    """A figure as an `svg` element in the style of the page."""
    text = StringIO()
    figure.patch.set_visible(False)
    figure.axes[0].patch.set_visible(False)
    # Two charts of a page may not share a name; the same chart has the same names each time.
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, _, content = text.getvalue().partition("<svg ")
    content = content[content.index(">") + 1 : content.index("</svg>")]
    # The drawing's own style would hold for the whole page, and its names of groups would occur twice.
    content = re.sub(r"<style.*?</style>|<defs>\s*</defs>", "", content, flags=re.DOTALL)
    content = re.sub(r'<g id="[^"]*"', "<g", content).replace("xlink:href", "href")
    for colour, variable in _STYLE.items():
        content = content.replace(colour, f"var({variable})")
    # An inch is 72 units of the drawing.
    size = f'viewBox="0 0 {72 * _INCHES[0]:g} {72 * _INCHES[1]:g}"'
    return f'<svg class="chart" {size} role="img" aria-label="{escape(description)}">{content}</svg>'


def _figure(runs: Sequence[Curves], panels: Sequence[tuple[str, Series]], inches: tuple[float, float]) -> Figure:
    """A row of `panels` for each run."""
    figure = Figure(figsize=inches, dpi=144, layout="constrained", facecolor="white")
    rows = figure.subplots(len(runs), len(panels), squeeze=False)
    for run, row in zip(runs, rows, strict=True):
        for axes, (title, series) in zip(row, panels, strict=True):
            _draw(axes, f"{title}, {run.name}" if run.name else title, run, series)
    return figure


def _draw(axes: Axes, title: str, run: Curves, series: Series) -> None:
    epochs = [epoch.epoch for epoch in run.epochs]
    known = [name for name in series if _finite(run, name)]
    axes.set_visible(bool(known) or series is LOSS)
    if run.over_fitting is not None:
        axes.axvspan(*run.over_fitting, color=OVER_FITTING, label="over-fitting", linewidth=0, zorder=0)
    for attribute in known:
        name, colour = series[attribute]
        values = np.array([getattr(epoch, attribute) for epoch in run.epochs], float)
        values[~np.isfinite(values)] = np.nan
        dots = "o" if len(epochs) <= 40 else ""
        axes.plot(epochs, values, color=colour, label=name, linewidth=2, marker=dots, markersize=3.5)
    for epoch, name, style in ((run.kept, "kept", (0, (4, 3))), (run.stop, "end decided", (0, (1, 1.5)))):
        if epoch is not None:
            axes.axvline(epoch, color=MARK, linewidth=1.2, linestyle=style, label=f"{name}: epoch {epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    _dress(axes, title, "Epoch")


def _dress(axes: Axes, title: str, below: str) -> None:
    """Title, the name of what lies along the axis, grid and legend."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK)
    axes.set_xlabel(below, color=_INK)
    axes.tick_params(colors=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=_INK)


def _finite(run: Curves, name: str) -> list[float]:
    return [value for epoch in run.epochs if isfinite(value := getattr(epoch, name))]


def _describe(title: str, run: Curves, series: Series) -> str:
    """The chart in words: where each curve starts and ends, and the marks."""
    words = [
        f"{name} from {known[0]:.4g} to {known[-1]:.4g}"
        for attribute, (name, _) in series.items()
        if (known := _finite(run, attribute))
    ]
    marks = f"; kept epoch {run.kept}" if run.kept is not None else ""
    marks += f"; end decided after epoch {run.stop}" if run.stop is not None else ""
    marks += "; over-fitting from epoch {} to {}".format(*run.over_fitting) if run.over_fitting else ""
    return f"{title} over {count(len(run.epochs), 'epoch')}: {', '.join(words)}{marks}"
