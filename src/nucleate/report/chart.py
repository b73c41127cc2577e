"""Learning curves as inline SVG: sharp at any size, in the colours of the page, with a note under the pointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import isfinite

from matplotlib.ticker import MaxNLocator

from nucleate.curves.curves import Curves, Epoch

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 14, 42

Series = Sequence[tuple[str, str]]
"""(attribute of `Epoch`, name shown); the attribute is also the class that the page's style colours."""


def line_chart(title: str, drawn: Curves, series: Series) -> str:
    """One panel: each of `series` against epoch, with the marks of `drawn`. A value that is not finite leaves a gap.

    Returns an `svg` element with a text for those who cannot see it, or "" where no value is finite.

    >>> series = [("train_loss", "training")]
    >>> run = Curves((Epoch(1, train_loss=2.0), Epoch(2, train_loss=1.0)), kept=2)
    >>> chart = line_chart("Loss", run, series)
    >>> chart.count("<svg"), "training from 2 to 1" in chart
    (1, True)
    """
    epochs, kept = drawn.epochs, drawn.kept
    values = [value for name, _ in series for epoch in epochs if isfinite(value := getattr(epoch, name))]
    if not values:
        return ""
    rows = MaxNLocator(5, min_n_ticks=3).tick_values(min(values), max(values))
    low, high = float(rows[0]), float(rows[-1])
    first, last = min(epoch.epoch for epoch in epochs), max(epoch.epoch for epoch in epochs)
    span = max(last - first, 1)

    def x(epoch: float) -> float:
        place = 0.5 if first == last else (epoch - first) / span
        return _LEFT + place * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_over_fitting(drawn, x)] if drawn.over_fitting else []
    parts.append(_grid(y, [float(row) for row in rows]))
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{tick:g}</text>'
        for tick in MaxNLocator(6, integer=True).tick_values(first, last)
        if first <= tick <= last
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">Epoch</text>')
    parts += [
        f'<path class="{name}" d="M{x(epoch):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
        for name, epoch in (("kept", kept), ("stop", drawn.stop))
        if epoch is not None and first <= epoch <= last
    ]
    for name, _ in series:
        points = [(x(epoch.epoch), y(getattr(epoch, name))) for epoch in epochs]
        parts.append(f'<path class="line {name}" d="{_line(points)}"/>')
        parts += [
            f'<circle class="dot {name}" cx="{x(kept):.1f}" cy="{y(getattr(epoch, name)):.1f}" r="4"/>'
            for epoch in epochs
            if epoch.epoch == kept and isfinite(getattr(epoch, name))
        ]
    parts.append(_notes(epochs, series, [x(epoch.epoch) for epoch in epochs]))
    label = escape(_describe(title, drawn, series))
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _over_fitting(drawn: Curves, x: Callable[[float], float]) -> str:
    start, end = (x(epoch) for epoch in drawn.over_fitting or (0, 0))
    return (
        f'<rect class="over-fitting" x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"/>'
    )


def _grid(y: Callable[[float], float], rows: list[float]) -> str:
    digits = max(len(f"{row:.6g}".partition(".")[2]) for row in rows)
    return "".join(
        f'<path class="grid" d="M{_LEFT} {y(row):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{y(row) + 4:.1f}" text-anchor="end">{row:.{digits}f}</text>'
        for row in rows
    )


def _line(points: list[tuple[float, float]]) -> str:
    """Path data that starts anew after each gap; a point alone becomes a dot (round caps draw a line of length 0)."""
    data, drawing = [], False
    for x, y in points:
        if isfinite(y):
            data.append(f"L{x:.1f} {y:.1f}" if drawing else f"M{x:.1f} {y:.1f}h0")
        drawing = isfinite(y)
    return "".join(data)


def _notes(epochs: Sequence[Epoch], series: Series, places: list[float]) -> str:
    """A strip over each epoch that shows its numbers under the pointer."""
    width = (_WIDTH - _LEFT - _RIGHT) / len(epochs)
    strips = []
    for epoch, place in zip(epochs, places, strict=True):
        known = [(name, getattr(epoch, key)) for key, name in series]
        text = ", ".join(f"{name} {value:.4g}" for name, value in known if isfinite(value))
        if text:
            strips.append(
                f'<rect class="note" x="{place - width / 2:.1f}" y="{_TOP}" width="{width:.1f}" '
                f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>Epoch {epoch.epoch}: {escape(text)}</title></rect>'
            )
    return "".join(strips)


def _describe(title: str, drawn: Curves, series: Series) -> str:
    """The chart in words: where each line starts and ends, and the marks."""
    words = []
    for key, name in series:
        known = [value for epoch in drawn.epochs if isfinite(value := getattr(epoch, key))]
        if known:
            words.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}")
    marks = f"; kept epoch {drawn.kept}" if drawn.kept is not None else ""
    marks += f"; end decided after epoch {drawn.stop}" if drawn.stop is not None else ""
    marks += "; over-fitting from epoch {} to {}".format(*drawn.over_fitting) if drawn.over_fitting else ""
    return f"{title} over {len(drawn.epochs)} epochs: {', '.join(words)}{marks}"
