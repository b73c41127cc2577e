"""A folder that one process at a time may change."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nucleate.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_NONE = -1


class Lock:
    """Holds the lock file `path`, made with its folder, until `release` or the end of the process.

    Where the system has no `fcntl`, the file's being there is the lock, and what a killed process left must be removed
    by hand.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = Lock(Path(folder) / "lock", "busy")
    ...     try:
    ...         Lock(Path(folder) / "lock", "busy")
    ...     except OutputError as error:
    ...         print(error)
    ...     first.release()
    ...     Lock(Path(folder) / "lock", "busy").release()
    busy.

    Raises:
        OutputError: another one holds it, said as the sentence `busy`; or the file cannot be made.
    """

    def __init__(self, path: Path, busy: str) -> None:
        self._path, self._descriptor = path, _NONE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_EXCL if fcntl is None else 0), 0o666)
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.is_file():
                raise OutputError(f"{busy}; if no other process runs, delete {path}.") from error
            if self._descriptor != _NONE:
                os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise OutputError(f"{busy}.") from error
            raise OutputError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor == _NONE:
            return
        if fcntl is None:
            with suppress(OSError):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = _NONE
