"""A report as one HTML file that needs nothing else: no network, no script, pictures and style inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from math import isfinite
from pathlib import Path
from string import Template

from nucleate.curves.curves import Curves, Epoch
from nucleate.io.atomic import write_text
from nucleate.postprocess.scores import Scores
from nucleate.report.collect import Report, Table, Value
from nucleate.report.pictures import article, legend
from nucleate.report.plots import LOSS, MEAN_AP, accuracy_svg, curves_svg

WRITTEN_BY = 'name="generator" content="Nucleate"'
"""Stands at the beginning of each report."""

_EPOCH_HEAD = {
    "epoch": "Epoch",
    "train_loss": "Training loss",
    "valid_loss": "Validation loss",
    "score": "Mean AP",
    "learning_rate": "Learning rate",
    "seconds": "Seconds",
}


def render(report: Report, path: Path) -> None:
    """Write `report` to `path` as one HTML file.

    Raises:
        OutputError: `path` cannot be written.
    """
    write_text(path, page(report))


def page(report: Report) -> str:
    """The report as HTML.

    >>> "<h1>Run &lt;3&gt;</h1>" in page(Report(title="Run <3>"))
    True
    """
    parts = [facts(report.facts)] if report.facts else []
    parts += [section("Scores", _accuracy(report.accuracy) + table_of(report.scores))] if report.scores else []
    parts += [section("Images", table_of(report.images))] if report.images else []
    parts += [section("Learning curves", _curves(report.curves))] if report.curves and report.curves.epochs else []
    if report.pictures:
        rows = [article(picture, number) for number, picture in enumerate(report.pictures, start=1)]
        parts.append(section("Pictures", legend(report.pictures) + "\n".join(rows)))
    return document(report.title, report.summary, report.headline, parts)


def document(
    title: str, summary: str, headline: Sequence[tuple[str, Value]], sections: Sequence[str], style: str = ""
) -> str:
    """A whole page: its head, and below it `sections` as `section` makes them; `style` is added to that of all."""
    here = files("nucleate.report")
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(here / "page.css").read_text(encoding="utf-8") + style,
        summary=f'<p class="summary">{escape(summary)}</p>' if summary else "",
        headline=_headline(headline),
        body="\n".join(sections),
    )


def shown(value: Value) -> str:
    """A value as text: three decimals or significant digits, thousands apart, a dash for what is not finite.

    >>> [shown(value) for value in (0.91234, 1234, 0.00012, 1234.5, float("nan"), "a<b", 0.0)]
    ['0.912', '1,234', '0.00012', '1,234.5', '–', 'a&lt;b', '0.000']
    """
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not isfinite(value):
        return "–"
    if value != 0 and not abs(value) >= 0.001:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def section(title: str, content: str) -> str:
    """A part of a page under its title; `content` is HTML."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>"


def _headline(numbers: Sequence[tuple[str, Value]]) -> str:
    if not numbers:
        return ""
    tiles = "".join(f"<div><dt>{escape(label)}</dt><dd>{shown(value)}</dd></div>" for label, value in numbers)
    return f'<dl class="headline">{tiles}</dl>'


def facts(known: Sequence[tuple[str, Value]]) -> str:
    """Names and values as a part of a page."""
    rows = "".join(f"<div><dt>{escape(label)}</dt><dd>{shown(value)}</dd></div>" for label, value in known)
    return section("The run", f'<dl class="facts">{rows}</dl>')


def table_of(table: Table) -> str:
    """A table as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    rows = "".join(
        f'<tr><th scope="row">{shown(row[0])}</th>' + "".join(f"<td>{shown(cell)}</td>" for cell in row[1:]) + "</tr>\n"
        for row in table.rows
    )
    # A wide table scrolls by itself, and can be reached by keyboard to do so.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _accuracy(scores: Scores | None) -> str:
    chart = accuracy_svg(scores) if scores else ""
    return f'<div class="charts"><figure>{chart}</figure></div>' if chart else ""


def _curves(curves: Curves) -> str:
    charts = (curves_svg(curves, title, series) for title, series in (("Loss", LOSS), ("Mean AP", MEAN_AP)))
    panels = "".join(f"<figure>{chart}</figure>" for chart in charts if chart)
    known = [name for name in _EPOCH_HEAD if any(isfinite(getattr(epoch, name)) for epoch in curves.epochs)]
    table = Table(
        caption="Every epoch",
        head=tuple(_EPOCH_HEAD[name] for name in known),
        rows=tuple(_row(epoch, known) for epoch in curves.epochs),
    )
    return (
        f'<div class="charts">{panels}</div><details><summary>The same as a table</summary>{table_of(table)}</details>'
    )


def _row(epoch: Epoch, names: list[str]) -> tuple[Value, ...]:
    return tuple(getattr(epoch, name) for name in names)
