"""What sentences for people are made of: counts, and commands that work as they are printed."""

from __future__ import annotations

import os
import shlex
from os import PathLike


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun; `many` is the plural where it is more than an s.

    >>> count(1, "epoch"), count(2, "epoch"), count(12_345, "nucleus", "nuclei")
    ('1 epoch', '2 epochs', '12,345 nuclei')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def command(*arguments: str | PathLike[str]) -> str:
    """A call of nucleate that does in a shell what it says, whatever the names of files in it.

    Texts are the words of the command; a path is quoted where it must be, and never taken for an option.

    >>> from pathlib import Path
    >>> command("predict", Path("my model"), Path("-a.tif"), "--out", Path("o'clock"))
    'nucleate predict \\'my model\\' ./-a.tif --out \\'o\\'"\\'"\\'clock\\''
    """
    return " ".join(["nucleate", *map(_word, arguments)])


def _word(argument: str | PathLike[str]) -> str:
    word = os.fspath(argument)
    if not isinstance(argument, str) and word.startswith("-"):
        word = f"./{word}"
    if word.isprintable():
        return shlex.quote(word)
    # A line break, an escape of the terminal, or bytes that are no text: bash and zsh read this form.
    return "$'" + "".join(_escaped(character) for character in word) + "'"


def _escaped(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
