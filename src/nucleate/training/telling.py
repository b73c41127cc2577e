"""What the card and the report of a model folder say of its corrections.

It stands between two comments. All else in these files stays as it is, bit for bit, so that the files before are given
back by taking it out; and it follows from model.json and the journal alone, so that a process that was killed before it
wrote it leaves nothing that the next one cannot mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nucleate.io.atomic import atomic
from nucleate.networks import store
from nucleate.networks.manifest import CorrectionsPart
from nucleate.sentences import count
from nucleate.training.journal import Update

BEGIN, END = b"<!-- corrections -->\n", b"<!-- end of corrections -->\n"

NOTE = f"<p>The model has learnt from corrections since. All on this page is of before; {store.CARD} says more.</p>\n"


def tell(folder: Path, corrections: CorrectionsPart | None, updates: Sequence[Update]) -> None:
    """Make the card and the report say what was learnt on-line, or no more that anything was.

    Args:
        folder: the model folder; what it lacks of the two files is not made.
        corrections: those of its manifest.
        updates: of the journal since the last undo, in their order.

    Raises:
        OutputError: a file cannot be written.
    """
    card, note = ("", "") if corrections is None else (section(corrections, updates), NOTE)
    for name, text, place in ((store.CARD, card, b"## "), (store.REPORT, note, b"</header>")):
        path = folder / name
        if not path.is_file():
            continue
        before = path.read_bytes()
        after = with_part(before, text.encode(), place)
        if after != before:
            with atomic(path) as file:
                file.write(after)


def with_part(content: bytes, text: bytes, place: bytes) -> bytes:
    """A file with this text in place of what was said of corrections; nothing is, where it is empty.

    It stands before the first line that begins with `place`, or else first.

    >>> told = with_part(b"# cells", b"It learnt.", b"## ")
    >>> with_part(told, b"", b"## ")
    b'# cells'
    """
    head, _, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    plain = head + tail if end else content
    at = plain.find(b"\n" + place) + 1
    return plain[:at] + BEGIN + text + END + plain[at:] if text else plain


def section(corrections: CorrectionsPart, updates: Sequence[Update]) -> str:
    """The section of the card."""
    learnt = f"{count(corrections.learnt, 'correction')} with {count(corrections.nuclei, 'nucleus', 'nuclei')}"
    last = f", the last of {updates[-1].time[:10]}" if updates else ""
    back = f"; {count(corrections.taken_back, 'update')} taken back" if corrections.taken_back else ""
    return f"""## Corrections
After its training the model learnt {learnt}{last}{back}.
The other sections are of the model before them.

{_scores(updates)}`nucleate learn MODEL --log` lists them; `nucleate learn MODEL --undo` gives back the model before.

"""


def _scores(updates: Sequence[Update]) -> str:
    before = [one.before for one in updates if one.before is not None]
    parts = [f"{sum(before) / len(before):.3f} on the corrected tiles, each before it was learnt"] if before else []
    if updates:
        first, last = updates[0].sentinel_before, updates[-1].sentinel
        parts.append(f"{last:.3f} on what the model knew, {first:.3f} before any correction")
    return f"Average precision at an IoU of 0.5: {'; '.join(parts)}.\n\n" if parts else ""
