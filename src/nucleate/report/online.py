"""What is said of on-line learning on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nucleate.errors import printable
from nucleate.sentences import command, count
from nucleate.training.journal import FOLDER, Correction, Journal, Undo, Update


def score(value: float | None) -> str:
    """A score in three decimals; a dash where there was nothing to score.

    >>> score(0.5), score(None)
    ('0.500', '-')
    """
    return "-" if value is None else f"{value:.3f}"


def line(update: Update) -> str:
    """One update in a line.

    >>> line(Update(3, "cells", "2026-01-01T00:00:00+00:00", 12, 0.5, 0.75, 0.8, 0.79, False, False, 2.0, "nucleate"))
    '3 cells: 12 nuclei; AP at IoU 0.5 was 0.500 and is 0.750; on what it knew 0.790; 2.0 s'
    """
    nuclei = count(update.nuclei, "nucleus", "nuclei")
    parts = [f"{update.number} {printable(update.name)}: {nuclei}"]
    if update.taken_back:
        parts.append("taken back, as it would have cost too much of what the model knew")
    elif update.before is not None:
        parts.append(f"AP at IoU 0.5 was {score(update.before)} and is {score(update.after)}")
    parts.append(f"on what it knew {score(update.sentinel)}")
    return "; ".join([*parts, f"{update.seconds:.1f} s"])


def learnt(updates: Sequence[Update], model: Path) -> list[str]:
    """The last words of a run that learnt."""
    if not updates:
        return [f"{printable(model)} has learnt all that was recorded."]
    again = command("train", "FOLDER", "--from", model, "--out", "BETTER")
    kept = [one for one in updates if not one.taken_back]
    nuclei = count(sum(one.nuclei for one in kept), "nucleus", "nuclei")
    lines = [f"{printable(model)} learnt {nuclei} of {count(len(kept), 'correction')}."]
    if len(kept) < len(updates):
        back = count(len(updates) - len(kept), "update")
        lines.append(f"{back} taken back. The corrections are kept: train off-line with them, {again}.")
    if any(one.drift for one in updates):
        lines.append(
            f"The errors have risen for good, the images are of another kind than before: train off-line, {again}."
        )
    return lines


def undone(model: Path) -> str:
    """What is said after going back."""
    kept = len(list((model / FOLDER).glob("*_masks.tif")))
    back = f"{printable(model)} is what it was before any correction."
    if not kept:
        return back
    stay = f"{count(kept, 'correction')} stay{'s' * (kept == 1)} in {printable(model / FOLDER)}"
    return f"{back} {stay}, and train --from learns from what lies there: delete what was wrong."


def print_log(journal: Journal, console: Console) -> None:
    """Print what was learnt, when and with which effect."""
    table = Table(title=Text(f"Corrections of {printable(journal.folder)}"), title_justify="left")
    for head in ("", "image", "recorded"):
        table.add_column(head, overflow="fold")
    for head in ("nuclei", "before", "after", "sentinel", "seconds"):
        table.add_column(head, justify="right")
    table.add_column("")
    rows: dict[int, tuple[str, ...]] = {}
    entries = list(journal.entries())
    undone = max((entry.through for entry in entries if isinstance(entry, Undo)), default=0)
    for entry in entries:
        if isinstance(entry, Correction):
            rows[entry.number] = (str(entry.nuclei), "", "", "", "", "not learnt yet")
        elif isinstance(entry, Update):
            notes = [note for note, said in (("taken back", entry.taken_back), ("drift", entry.drift)) if said]
            rows[entry.number] = (
                str(entry.nuclei), score(entry.before), score(entry.after), score(entry.sentinel),
                f"{entry.seconds:.1f}", ", ".join(notes),
            )  # fmt: skip
    for entry in entries:
        if isinstance(entry, Correction):
            *cells, note = rows[entry.number]
            note = "undone" if entry.number <= undone else note
            table.add_row(str(entry.number), Text(printable(entry.name)), entry.time, *cells, note)
    console.print(table)
    console.print("before, after, sentinel: average precision at an IoU of 0.5", highlight=False)
