"""What on-line learning did over a sequence of images: a table, and a page that shows it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from nucleate.io.atomic import write_text
from nucleate.postprocess.matching import match
from nucleate.report.collect import Picture, Table, Value, picture
from nucleate.report.html import document, facts, section, table_of
from nucleate.report.pictures import article, legend, middle
from nucleate.report.plots import lines_svg
from nucleate.sentences import count
from nucleate.training.stream import Judged, Shown, StreamResult, running_mean

TABLE, REPORT = "stream.csv", "report.html"

COLUMNS = ("number", "name", "nuclei", "frozen", "before", "after", "sentinel", "taken_back", "drift", "seconds")


def write_stream(found: StreamResult, out: Path, model: str, folder: str) -> None:
    """Write the table and the page to the folder `out`."""
    write_text(out / TABLE, stream_csv(found))
    write_text(out / REPORT, stream_page(found, model, folder))


def stream_csv(found: StreamResult) -> str:
    """A row for each image: scores are AP at an IoU of 0.5, empty where there was nothing to score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in found.rows:
        values = {name: getattr(row.update, name) for name in COLUMNS if name != "frozen"} | {"frozen": row.frozen}
        cells = [values[name] for name in COLUMNS]
        writer.writerow(
            ["" if value is None else f"{value:.4f}" if isinstance(value, float) else value for value in cells]
        )
    return text.getvalue()


def means(found: StreamResult) -> tuple[float, float, float]:
    """Mean AP of the learning model before each image was learnt, of the frozen one, and the last sentinel score."""
    online = running_mean([row.update.before for row in found.rows])[-1]
    return online, running_mean([row.frozen for row in found.rows])[-1], found.rows[-1].update.sentinel


def sentence(found: StreamResult) -> str:
    """The result, for a person."""
    online, frozen, sentinel = means(found)
    first = found.rows[0].update.sentinel_before
    taken = sum(row.update.taken_back for row in found.rows)
    drift = [row.update.name for row in found.rows if row.update.drift]
    said = (
        f"Over {count(len(found.rows), 'image')}, each scored before it was learnt, AP at an IoU of 0.5 is {online:.3f}"
        f" on the mean, and {frozen:.3f} without learning. On what the model knew before it went from {first:.3f} to"
        f" {sentinel:.3f}."
    )
    said += (
        f" {count(taken, 'update')} would have cost too much of that and {'were' if taken != 1 else 'was'} taken back."
        * bool(taken)
    )
    return said + (f" The errors rose for good at {drift[-1]}: train off-line again." if drift else "")


def stream_page(found: StreamResult, model: str, folder: str) -> str:
    """The page as HTML."""
    online, frozen, sentinel = means(found)
    updates = [row.update for row in found.rows]
    charts = (
        lines_svg(
            "Running mean of AP at 0.5",
            {
                "learning, before each image is learnt": running_mean([one.before for one in updates]),
                "frozen": running_mean([row.frozen for row in found.rows]),
            },
            below="Image",
        ),
        lines_svg(
            "Sentinel: AP at 0.5 on what was known before",
            {"sentinel": [one.sentinel for one in updates]},
            ("before any correction", updates[0].sentinel_before),
            below="Image",
        ),
    )
    panels = "".join(f"<figure>{chart}</figure>" for chart in charts)
    shown = [_picture(one) for one in found.worst]
    rows = [article(one, number) for number, one in enumerate(shown, start=1)]
    known: tuple[tuple[str, Value], ...] = (
        ("Model", model),
        ("Images", f"{count(len(updates), 'image')} of {folder}, in the order of their names"),
        ("Corrected", count(sum(one.nuclei for one in updates), "nucleus", "nuclei")),
        ("Learning took", f"{sum(one.seconds for one in updates):.1f} s"),
        ("Taken back", count(sum(one.taken_back for one in updates), "update")),
    )
    parts = [
        facts(known),
        section("Scores over the sequence", f'<div class="charts">{panels}</div>'),
        section("Images", table_of(_table(found.rows))),
    ]
    if shown:
        parts.append(section("The lowest scores, before they were learnt", legend(shown) + "\n".join(rows)))
    headline = (("AP, learning", online), ("AP, frozen", frozen), ("Sentinel", sentinel))
    return document("Nucleate: on-line learning", sentence(found), headline, parts)


def _table(rows: tuple[Judged, ...]) -> Table:
    def score(value: float | None) -> Value:
        return float("nan") if value is None else value

    return Table(
        caption="Each image in its order; AP at an IoU of 0.5",
        head=("Image", "Nuclei", "Frozen", "Before learning", "After", "Sentinel", "Taken back", "Drift", "Seconds"),
        rows=tuple(
            (
                row.update.name, row.update.nuclei, score(row.frozen), score(row.update.before),
                score(row.update.after), row.update.sentinel, "yes" * row.update.taken_back, "yes" * row.update.drift,
                row.update.seconds,
            )
            for row in rows
        ),
    )  # fmt: skip


def _picture(shown: Shown) -> Picture:
    part = middle(*shown.labels.shape)
    truth, predicted = shown.labels[part], shown.predicted[part]
    image = replace(shown.image, pixels=shown.image.pixels[part])
    return picture(image, predicted, truth, match(truth, predicted), f"AP at 0.5: {shown.score:.3f}")
