"""Every error that Nucleate raises on purpose, as one tree.

    NucleateError                a person can mend it; the message is one sentence that says how
    ├── InputError               what was given cannot be used
    │   ├── ImageError           an image or mask file
    │   ├── DatasetError         a folder of images
    │   ├── ModelError           a model folder
    │   └── LossInputError       arguments of a loss function (also a ValueError)
    ├── OutputError              what was asked for cannot be written
    └── TrainingError            a run that cannot go on (a loss that is not finite)

The command line prints the message of a NucleateError and exits with code 2, and that of a NucleateWarning and goes
on.
"""

import re

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """A text as it may be shown on a terminal: what steers it, turns the line round or is no character, as the names of
    files may hold, becomes its escape.

    >>> print(printable("cells" + chr(27) + "[31m.tif"))
    cells\\x1b[31m.tif
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


class NucleateError(Exception):
    """The root of the tree: its message is written for the person who reads it, and `printable`."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class InputError(NucleateError):
    """Something that was given cannot be used as it is."""


class ImageError(InputError):
    """An image or a mask that cannot be read, or whose content cannot be used."""


class DatasetError(InputError):
    """A folder whose content does not make a data set."""


class ModelError(InputError):
    """A model folder that is incomplete, altered or of another format."""


class LossInputError(InputError, ValueError):
    """Arguments of a loss function that do not fit together."""


class OutputError(NucleateError):
    """Something that cannot be written: no space, no permission, a folder in the way."""


class TrainingError(NucleateError):
    """A training run that cannot go on."""


class NucleateWarning(UserWarning):
    """Something that takes longer or gives less than it could; the message is written for the person who reads it."""


class CacheWarning(NucleateWarning):
    """A cache that cannot be used."""
