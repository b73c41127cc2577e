"""What every command can do beside its own work: `--quiet`, `--log FILE`, and a summary for programs, `--json FILE`.

A command says what it found with `sum_up`; whether anybody wants it is decided here.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from nucleate.errors import OutputError
from nucleate.parallel import launch
from nucleate.report.heartbeat import Stream, lines_to

SUMMARY = "nucleate summary"
STANDARD_OUTPUT = "-"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


_found: ContextVar[dict[str, Any] | None] = ContextVar("found", default=None)


def sum_up(**facts: Any) -> None:
    """Say what a command found, as values that JSON knows, data classes and paths.

    >>> sum_up(nuclei=3)  # outside a command nobody listens
    """
    if (found := _found.get()) is not None:
        found.update(facts)


_session: ContextVar[ExitStack | None] = ContextVar("session", default=None)


@contextmanager
def session() -> Iterator[None]:
    """From within it to its end, what is said may go elsewhere, the sentence of an error, too."""
    with ExitStack() as stack:
        token = _session.set(stack)
        try:
            yield
        finally:
            _session.reset(token)


Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but warnings and errors.")]
Log = Annotated[
    str | None, typer.Option("--log", metavar="<path>", help="Also add all that is said to this file, with the time.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="<path>", help="Also write what was found to this file, for programs; - prints it."),
]


def with_common_options(function: Callable[..., None], *, summary: bool = True) -> Callable[..., None]:
    """A command with the options of all commands; `summary` says whether --json is one of them."""

    @wraps(function)
    def command(*, quiet: bool, json: str | None = None, **given: Any) -> None:
        if json is not None and json != STANDARD_OUTPUT:
            _refuse(Path(json), overwrite=bool(given.get("overwrite")))
        log = None if "log" in own.parameters else given.pop("log")
        with ExitStack() as here:
            output, found = sys.stdout, dict[str, Any]()
            token = _found.set(found)
            (_session.get() or here).enter_context(speaking(quiet=quiet, log=log, free_output=json == STANDARD_OUTPUT))
            try:
                function(**given)
            finally:  # also where some images failed
                _found.reset(token)
                if json is not None and found and launch.rank_of_launcher() == 0:
                    _write({"kind": SUMMARY, "command": function.__name__, **found}, json, output)

    own = inspect.signature(function, eval_str=True)
    options = {"quiet": (Quiet, False), "log": (Log, None)} | ({"json": (Json, None)} if summary else {})
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
        if name not in own.parameters  # `learn --log` shows what was learnt
    ]
    # typer reads both; mypy knows of no function that has a signature of its own.
    command.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*own.parameters.values(), *more)}
    return command


@contextmanager
def speaking(*, quiet: bool, log: str | None, free_output: bool) -> Iterator[None]:
    """Send what is said where it is wanted.

    Args:
        quiet: nothing but warnings and errors is shown.
        log: all of it is added to this file, too, each line with its time.
        free_output: standard output is for a program: what is said goes to standard error.

    Raises:
        OutputError: the file cannot be written.
    """
    if launch.rank_of_launcher() or not (quiet or log or free_output):
        yield
        return
    with ExitStack() as stack:
        lines = None if log is None else stack.enter_context(_open_log(Path(log)))
        errors: Stream = sys.stderr
        out = errors if free_output else sys.stdout
        if quiet or lines is not None:
            # No terminal any more: a bar would fill the file.
            stack.enter_context(lines_to(Speech(None if quiet else errors, lines)))
            out, errors = Speech(None if quiet else out, lines), Speech(errors, lines)
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(errors))
        yield


class Speech(io.TextIOBase):
    """A stream that passes text on to another one and, as whole lines with the time, to a log; either may be None.

    >>> log = io.StringIO()
    >>> print("3 nuclei", file=Speech(None, log))
    >>> log.getvalue()[4:5], log.getvalue()[19:]
    ('-', ' 3 nuclei\\n')
    """

    def __init__(self, shown: Stream | None, log: Stream | None) -> None:
        self._shown, self._log, self._line = shown, log, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # that of the stream below
        """That of what is shown."""
        return getattr(self._shown, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Pass it on; the log has it once its line is whole."""
        if self._shown is not None:
            self._shown.write(text)
        if self._log is not None:
            *whole, self._line = (self._line + text).split("\n")
            for line in whole:
                if plain := _CONTROL.sub("", line).rstrip():
                    self._log.write(f"{datetime.now().isoformat(timespec='seconds')} {plain}\n")
        return len(text)

    def flush(self) -> None:
        """Of both."""
        for stream in (self._shown, self._log):
            if stream is not None:
                with suppress(ValueError):  # closed
                    stream.flush()


@contextmanager
def _open_log(path: Path) -> Iterator[TextIO]:
    try:
        file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise OutputError(f"The log {path} cannot be written ({error.strerror}): choose another file.") from error
    with file:
        print("$", shlex.join(["nucleate", *sys.argv[1:]]), file=Speech(None, file))
        yield file


def _refuse(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError where the summary cannot take this place, before anything is computed."""
    from nucleate.io.ownership import refuse_replacing

    if path.is_dir() or any(folder.is_file() for folder in path.parents):
        raise OutputError(f"{path} cannot be written, as a folder or a file is in its place: choose another name.")
    refuse_replacing(path, b'"kind": "nucleate ', overwrite=overwrite)


def _write(summary: dict[str, Any], where: str, output: Stream) -> None:
    text = json.dumps(_plain(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if where == STANDARD_OUTPUT:
        output.write(text)
        output.flush()
        return
    from nucleate.io.atomic import write_text

    write_text(Path(where), text)
    print(f"Wrote {where}.")


def _plain(value: Any) -> Any:
    """As JSON knows it: no number (NaN) is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
