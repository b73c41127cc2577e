"""A thread that predicts or learns behind the page's strokes."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

NICE = 10
"""How far the thread steps back behind those that answer the page (see nice(2))."""


def step_back() -> None:
    """Let the calling thread step back. On Linux it has a priority of its own, which those that it starts inherit."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Worker:
    """Does one thing at a time, in the order in which they were given.

    Args:
        idle: is called again and again while nothing is to be done, as long as it gives True.
    """

    def __init__(self, idle: Callable[[], bool] = lambda: False) -> None:
        self._idle, self._ended, self._more = idle, False, True
        self._todo: deque[tuple[str, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self.doing: str | None = None
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="learning", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, what: str, task: Callable[[], None]) -> None:
        """Have something done, whose name is shown while it is; one of the same name that waits is not added."""
        with self._changed:
            if any(name == what for name, _ in self._todo):
                return
            self._todo.append((what, task))
            self._changed.notify_all()

    def waiting(self) -> list[str]:
        """What is to be done, the next first."""
        with self._changed:
            return [name for name, _ in self._todo]

    def wake(self) -> None:
        """Look again whether there is something to do in idle moments."""
        with self._changed:
            self._more = True
            self._changed.notify_all()

    def close(self) -> None:
        """End once what is being done is done; what waits is not done."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        step_back()
        while True:
            with self._changed:
                while not (self._ended or self._todo or self._more):
                    self._changed.wait()
                if self._ended:
                    return
                task = self._todo.popleft() if self._todo else None
                self._more = task is not None
                self.doing = None if task is None else task[0]
            try:
                if task is not None:
                    task[1]()
                    self.problem = None
                elif self._idle():
                    self.wake()
            except Exception as error:  # whatever it is: the page says it, and what comes next is done
                self.problem = str(error) or "The memory does not suffice."
            finally:
                self.doing = None
