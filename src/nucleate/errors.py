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


class NucleateError(Exception):
    """The root of the tree: its message is written for the person who reads it."""


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
