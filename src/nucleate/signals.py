"""How Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end a command.

The first one raises KeyboardInterrupt, whereupon what is in work is put in order. The second ends the process at once:
files are there whole or not at all at any moment, so nothing is lost. The exit code is 128 and the signal's number.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Those that ask a program to end. A job scheduler can send SIGUSR1 before a time limit, and `mpirun` passes it on to
ranks; on SIGTERM it kills them within a second."""

_SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides

_received: int | None = None
_ending = False
_left_to_first = False


@contextmanager
def handled() -> Iterator[None]:
    """Within it, signals are handled; afterwards as before. Where they are handled already, nothing changes."""
    global _received
    main = threading.current_thread() is threading.main_thread()
    if not main or any(signal.getsignal(number) is _handle for number in SIGNALS):
        yield
        return
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    listen()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook, _received = hook, None


def listen() -> None:
    """Handle signals from now on. One that is ignored, as SIGHUP is below `nohup`, remains so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _raise_later


def leave(code: int, *, at_once: bool = False) -> None:
    """The last call of a process. After an interruption, or with `at_once`, it ends here, without waiting for threads.

    Otherwise a signal that still comes, while Python ends, ends it at once.
    """
    global _ending
    _ending = True
    if _received is not None or at_once:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


@contextmanager
def held() -> Iterator[None]:
    """Within it nothing interrupts the calling thread; a signal that comes is handled at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number in handlers:
        signal.signal(number, lambda *signal: came.append(signal))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came[:1]:
            handler = handlers[number]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                os.kill(os.getpid(), number)


def leave_to_first() -> None:
    """From now on the first signal is noted, no more: the launcher sends it to all ranks, and rank 0 ends them when it
    has saved its work. The second one ends the process without a word."""
    global _left_to_first
    _left_to_first = True


def interrupted() -> bool:
    """Whether a signal has come."""
    return _received is not None


def verdict() -> tuple[str, int]:
    """What to say of the interruption, and the exit code."""
    number = _received or signal.SIGINT
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"nucleate: {how}.", 128 + number


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None and not _ending:
        _received = number
        if _left_to_first:
            return
        raise KeyboardInterrupt
    if _left_to_first:
        os._exit(128 + number)
    with suppress(OSError):
        cursor = _SHOW_CURSOR if os.isatty(2) else ""
        os.write(2, f"{cursor}nucleate: ended at once; what was finished is kept.\n".encode())
    os._exit(128 + number)


def _raise_later(unraisable: sys.UnraisableHookArgs) -> None:
    """Where KeyboardInterrupt was raised in what cannot pass it on, a destructor or a callback, it comes once more."""
    global _received
    if unraisable.exc_type is not KeyboardInterrupt or _received is None:
        sys.__unraisablehook__(unraisable)
        return
    number, _received = _received, None
    again = threading.Timer(0.02, os.kill, (os.getpid(), number))
    again.daemon = True
    with suppress(RuntimeError):
        again.start()
