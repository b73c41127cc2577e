"""Lines where no bar can be shown: standard error is a file, a pipe, or the log of a cluster."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

EVERY = 30.0
"""Seconds: no pause between two lines is longer."""

FIRST = 2.0
"""Seconds to the first line: a mistake that is found before is answered by its sentence alone."""


Stream = TextIO | io.TextIOBase
_output: ContextVar[Stream | None] = ContextVar("output", default=None)


@contextmanager
def lines_to(output: Stream) -> Iterator[None]:
    """Within it the lines go there in place of standard error."""
    token = _output.set(output)
    try:
        yield
    finally:
        _output.reset(token)


class Heartbeat:
    """Says where the work stands, at least every `EVERY` seconds, as lines on standard error that begin with the time.

    Args:
        text: gives the line; an empty one is not printed.
        first: seconds to the first line.
        every: seconds to each further one.
        enabled: whether anything is printed at all.
    """

    def __init__(
        self, text: Callable[[], str], first: float = FIRST, every: float = EVERY, *, enabled: bool = True
    ) -> None:
        self.text, self.first, self.every, self.enabled = text, first, every, enabled
        self._begin = self._next = time.monotonic()
        self._output = _output.get()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._begin = time.monotonic()
        self._next = self._begin + self.first
        if self.enabled:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def say(self, line: str) -> None:
        """Print a line now; the next one of itself comes `every` seconds later."""
        if not self.enabled or not line:
            return
        now = time.monotonic()
        self._next = now + self.every
        minutes, seconds = divmod(int(now - self._begin), 60)
        # That nobody reads it must not end the work.
        with suppress(OSError, ValueError):
            print(f"[{minutes}:{seconds:02d}] {line}", file=self._output or sys.stderr, flush=True)

    def _beat(self) -> None:
        while not self._ended.wait(max(0.05, self._next - time.monotonic())):
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + self.every
                self.say(self.text())
