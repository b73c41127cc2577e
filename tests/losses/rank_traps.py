"""What goes wrong between ranks: it ends in the same error on each of them, or it is right after all."""

from __future__ import annotations

from typing import Any


def check(group: Any) -> None:
    """Raises where a promise does not hold."""
