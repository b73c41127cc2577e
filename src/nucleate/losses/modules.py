"""Every loss as a module class, made from its function by `@loss`; modules.pyi tells type checkers and editors of them.

`python tests/losses/stub.py` writes modules.pyi anew after an option was added; a test compares the two.
"""

from nucleate.losses.registry import catalogue

_MODULES = {
    entry.module.__name__: entry.module for entry in catalogue() if entry.module.__module__ == "nucleate.losses"
}
globals().update(_MODULES)
__all__ = list(_MODULES)
