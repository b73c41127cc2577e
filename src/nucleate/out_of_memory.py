"""What every library says in its own way when memory does not suffice, as one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from nucleate.errors import NucleateError

LIBRARIES = 2**30
"""Bytes of address space that PyTorch and what belongs to it take when they are loaded. With less they end in the
middle of it, some of them without an error that could be explained."""

_WORDS = re.compile(
    r"not enough memory|out of memory|allocate memory|bad_alloc|failed to map segment|start new thread"
    r"|memory allocation|unable to allocate",
    re.IGNORECASE,
)
"""Of PyTorch, numpy, OpenVINO, LLVM, the loader of shared libraries, and threads."""

_ASKED = re.compile(r"allocate ([0-9.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)


met = False
"""Whether memory did not suffice; what Python does at its end may then not succeed."""


def sentence(error: BaseException) -> str | None:
    """What to say where an error comes from too little memory; None where it does not.

    >>> sentence(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."))
    'there is not enough memory (3.0 GiB more were needed): close other programs, or ask for less at a time.'
    >>> sentence(ValueError("no")) is None
    True
    """
    global met
    causes = list(_causes(error))
    if not any(map(_is_of_memory, causes)) and not _is_near_limit():
        return None
    met = True
    asked = next((found for cause in causes if (found := _ASKED.search(str(cause)))), None)
    facts = [] if asked is None else [f"{_readable(asked)} more were needed"]
    limit = _limit()
    if limit is not None:
        facts.append(f"the process may take {limit / 2**30:.1f} GiB, see ulimit -v")
    known = f" ({'; '.join(facts)})" if facts else ""
    mend = "close other programs" if limit is None else "raise the limit"
    return f"there is not enough memory{known}: {mend}, or ask for less at a time."


def refuse_below(needed: int = LIBRARIES) -> None:
    """Raise where the system does not allow this process the bytes that are needed."""
    limit = _limit()
    if limit is not None and limit < needed:
        raise NucleateError(
            f"there is not enough memory (the process may take {limit / 2**30:.1f} GiB, see ulimit -v, and this needs"
            f" {needed / 2**30:.1f} GiB at least): raise the limit."
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and bool(_WORDS.search(str(error)))


def _is_near_limit() -> bool:
    """Whether nearly all was taken that the system allows: some libraries then fail without saying why."""
    limit, status = _limit(), Path("/proc/self/status")
    if limit is None or not status.exists():
        return False
    peak = re.search(r"VmPeak:\s*(\d+) kB", status.read_text())
    return peak is not None and 1024 * int(peak[1]) > 0.8 * limit


def _readable(asked: re.Match[str]) -> str:
    number, unit = asked.groups()
    if unit.lower() != "bytes" or not number.isdigit():
        return f"{number} {unit}"
    size = int(number)
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(1, size >> 20)} MiB"


def _limit() -> int | None:
    """Bytes of address space that the system allows this process; None for no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
