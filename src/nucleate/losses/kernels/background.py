"""A process of its own that compiles the kernels, so that the next program finds them in the cache.

It is started by the first loss of a program where the cache holds no kernels, once: a lock in the folder of the cache
lets a single one run, however many programs (or ranks of one) start. It is nobody's child, has the lowest priority,
writes nothing but the cache, and ends by itself within an hour, or sooner where the folder goes; ended at any moment,
it leaves whole files only. Where `use_kernels(False)` holds, or NUCLEATE_BACKGROUND=0 is in the environment, where
there is no folder to keep code in, and on Windows, none is started: `warm_up` compiles, and nothing else does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from nucleate.code_folder import folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_LOCK = "background.tmp.lock"  # the name of passing files: a forgotten one is removed after an hour
_LONGEST = 3600  # seconds


@cache
def version() -> str:
    """Which kernels these are: a digest of all that they are made of, which is a part of the names in the cache."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def begun() -> bool:
    """Whether the cache holds any of these kernels."""
    place = folder()
    return place is not None and next(place.glob(f"*_{version()}-*.nbc"), None) is not None


@cache
def start() -> None:
    """Start the process, once, unless one runs or must not; this takes as long as Python needs to start."""
    place = folder()
    if fcntl is None or place is None or not _may_start():
        return
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path)),
        "NUMBA_CACHE_DIR": str(place.parent),
    }
    with suppress(OSError, subprocess.TimeoutExpired), (place / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock is held as long as any process has the file open: from here on that is the one that compiles.
        command = [sys.executable, "-P", __file__, str(place / _LOCK)]
        subprocess.run(
            command, env=environment, pass_fds=[lock.fileno()], start_new_session=True, timeout=20,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _may_start() -> bool:
    """Not in a program that brings a Python of its own, whose executable would be the program once more."""
    python = not hasattr(sys, "frozen") and Path(sys.executable or "").name.startswith("python")
    switched_on = os.environ.get("NUCLEATE_BACKGROUND") != "0"
    return python and switched_on and importlib.util.find_spec("numba") is not None


def _main(lock: Path) -> None:
    if number := os.fork():
        lock.write_text(str(number))
        os._exit(0)  # so that the other is no child of the program, which might wait for all that it has
    signal.alarm(_LONGEST)
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this ends and not the program
    from nucleate.losses.kernels.dispatch import MODULES

    for name in MODULES:
        if not lock.exists():
            return
        importlib.import_module(f"nucleate.losses.kernels.{name}")
    lock.unlink(missing_ok=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
