"""Nucleate: train a nucleus segmenter on your own microscope images.

    import nucleate

    model = nucleate.load("fluorescence")
    result = model.segment(array)
    result.labels, result.table

`load`, `train` and `evaluate` are what the command line calls, too. `from nucleate import losses` gives the loss
functions alone. Importing this package loads nothing else: torch comes with the first of these names.
"""

import sys
from typing import TYPE_CHECKING, Any

# OpenVINO imports this package to write an identifier into the home folder and to send what is used to a server. With
# None here it does not find it, and goes on without. Python documents None in sys.modules; its types leave it out.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nucleate.api import Result, Segmenter, evaluate, learn, load, pretrain, stream, train, undo

__all__ = ["Result", "Segmenter", "__version__", "evaluate", "learn", "load", "pretrain", "stream", "train", "undo"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nucleate import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
