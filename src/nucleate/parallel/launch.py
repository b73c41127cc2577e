"""How this process was started: alone, or as one of the ranks that `mpirun` or `srun` started."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from nucleate import signals
from nucleate.errors import NucleateError, NucleateWarning, OutputError
from nucleate.parallel.communicator import Communicator, RanksLost, SingleProcess
from nucleate.sentences import count

_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
"""Where Open MPI, MPICH and its kin, PMIx and Slurm say which rank a process is."""

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where they say how many ranks there are."""

_LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_TASKS_PER_NODE")


Made = TypeVar("Made")

LATE = 15.0
"""Seconds that a file of another machine may take to appear."""

GRACE = 1.0
"""Seconds that the other ranks leave rank 0 for a sentence that all of them have."""


def launched() -> bool:
    """Whether a launcher of MPI started this process. Nothing is imported for the answer."""
    # A batch script of Slurm has SLURM_PROCID, too; only what srun starts has the number of tasks of its step.
    return any(name in os.environ for name in _RANKS[:3]) or _number("SLURM_STEP_NUM_TASKS", 1) > 1


def rank_of_launcher() -> int:
    """The rank as the launcher says it, before MPI is started; 0 where there is none."""
    return next((_number(name, 0) for name in _RANKS if launched() and name in os.environ), 0)


def join() -> Communicator:
    """The ranks that this process belongs to: those of MPI where a launcher started it, else itself alone.

    Torch is given the threads of a rank; rank 0 warns where each has fewer cores than it could.

    Raises:
        NucleateError: MPI cannot be loaded, or the launcher's ranks do not know of one another.
    """
    if not launched():
        return SingleProcess()
    try:
        from nucleate.parallel.mpi import MPICommunicator
    except (ImportError, RuntimeError) as error:
        raise _of_all(
            f"this was started by mpirun or srun, but MPI cannot be loaded ({error}): pip install 'nucleate[mpi]'."
        ) from error
    ranks, begun = MPICommunicator.of_job(), launched_size()
    if ranks.size == 1 and begun > 1:
        raise _of_all(
            f"{begun} ranks were started, but each of them is alone for MPI: start them by the mpirun of the MPI that "
            f"mpi4py uses, {Path(sys.executable).with_name('mpirun')} where that is installed by pip, or by "
            "srun --mpi=pmix."
        )
    import torch

    torch.set_num_threads(threads() or torch.get_num_threads())
    sentence = too_tightly_bound()
    if sentence is not None and ranks.rank == 0:
        warnings.warn(sentence, NucleateWarning, stacklevel=2)
    if ranks.rank > 0:
        signals.leave_to_first()
    return ranks


def launched_size() -> int:
    """How many ranks the launcher says it started; 1 where there is none."""
    return next((_number(name, 1) for name in _SIZES if name in os.environ), 1)


def threads() -> int | None:
    """The threads that each rank should take: what Slurm gives a task, else this machine's cores over its ranks; None
    where this process is alone, or OMP_NUM_THREADS says it."""
    if not launched() or "OMP_NUM_THREADS" in os.environ:
        return None
    return min(_cores(), _number("SLURM_CPUS_PER_TASK", 0) or _share())


def local_size() -> int:
    """The ranks on this machine."""
    return next((_number(name, 1) for name in _LOCAL_SIZES if name in os.environ), 1)


def too_tightly_bound() -> str | None:
    """A sentence where the launcher bound this rank to fewer cores than it could have, as Open MPI does by itself."""
    allowed, could = _cores(), _share()
    if not launched() or allowed >= could or "SLURM_CPUS_PER_TASK" in os.environ:
        return None
    return (
        f"each rank may use {count(allowed, 'core')}, though {could} are there for each: start with "
        f"mpirun --bind-to none, or --map-by slot:PE={could}."
    )


@contextmanager
def one_voice() -> Iterator[None]:
    """Within it, all but rank 0 say nothing: they would say the same."""
    if rank_of_launcher() == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


_has_lost = False


def has_lost() -> bool:
    """Whether a rank ended and others went on.

    At its end MPI may then wait for ever for the one that is gone: a process should leave by os._exit when it is done.
    """
    return _has_lost


def without_lost(ranks: Communicator) -> Communicator:
    """After `RanksLost`: the ranks that live, the first of which says so and speaks from now on."""
    global _has_lost
    _has_lost, left = True, ranks.survivors()
    if left.rank == 0:
        sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr
        ended = ranks.size - left.size
        print(f"nucleate: {ended} of {ranks.size} ranks ended; going on with {left.size}.", file=sys.stderr, flush=True)
    return left


def done_by_living(ranks: Communicator, work: Callable[[Communicator], Made]) -> tuple[Communicator, Made]:
    """What `work` gives to each of the ranks, and these: begun anew by those that live as often as one of them ended.

    A rank may have done its part when another hears of the loss, so all must have done theirs before any goes on.
    """
    while True:
        try:
            found = work(ranks)
            ranks.barrier()
            return ranks, found
        except RanksLost:
            ranks = without_lost(ranks)


def as_said_by_rank(sentence: str) -> str:
    """The last sentence of this rank; others than rank 0 first give it the time to say the same, and so to end all."""
    rank = rank_of_launcher()
    if rank == 0:
        return sentence
    time.sleep(GRACE)
    return sentence.replace("nucleate: ", f"nucleate: rank {rank}: ", 1)


def end_others(error: BaseException, code: int) -> None:
    """End every rank, as this one cannot go on: without it the others would wait for its messages for ever."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized() or mpi.COMM_WORLD.Get_size() == 1:
        return
    if isinstance(error, SystemExit) and not code:
        if not error.code:
            return
        code = error.code if isinstance(error.code, int) else 1
    elif not code:
        traceback.print_exception(error)
    sys.stdout.flush()
    mpi.COMM_WORLD.Abort(code or 1)


def require_same(ranks: Communicator, facts: Mapping[str, str]) -> None:
    """Refuse to go on where a rank differs from rank 0 in one of these facts.

    Raises:
        NucleateError: the odd rank and the fact are named.
    """
    every = ranks.all({**facts, "host": platform.node()})
    for name in facts:
        odd = [rank for rank, one in enumerate(every) if one[name] != every[0][name]]
        if odd:
            listed = ", ".join(f"{rank} on {every[rank]['host']}" for rank in odd[:5]) + (" ..." if odd[5:] else "")
            raise NucleateError(
                f"rank {listed} has other {name} than rank 0: give every rank the same, from one shared folder."
            )


def require_shared(ranks: Communicator, folder: Path) -> None:
    """Refuse a folder that does not show every rank what rank 0 writes there.

    Raises:
        NucleateError: ranks that do not see it are named, with their machines.
    """
    if ranks.size == 1:
        return
    mark = folder / f".shared-{ranks.agree(os.getpid())}"
    ranks.by_first(partial(_touch, mark))
    seen = ranks.all([platform.node(), _appears(mark)])
    ranks.barrier()
    if ranks.rank == 0:
        mark.unlink(missing_ok=True)
    blind = [f"{rank} on {node}" for rank, (node, found) in enumerate(seen) if not found]
    if blind:
        raise NucleateError(
            f"{folder} is not the same folder for all machines: rank {', '.join(blind[:3])} does not see what rank 0 "
            f"on {seen[0][0]} writes there; give a folder that they share."
        )


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise OutputError(f"{path.parent} cannot be written ({error.strerror}): choose another --out.") from error


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes within some seconds: a network file system may show it late."""
    until = time.monotonic() + LATE
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
        with suppress(OSError), os.scandir(path.parent):
            pass  # asks the server anew
    return path.exists()


def _of_all(sentence: str) -> BaseException:
    """The error for what each rank meets before it can talk to the others: rank 0 says it for all."""
    if rank_of_launcher() == 0:
        return NucleateError(sentence)
    time.sleep(GRACE)  # the launcher ends every rank as soon as one fails
    return SystemExit(2)


def _share() -> int:
    """The cores of this machine that each of its ranks could have: those of the launcher, which is not bound."""
    return max(1, _cores(os.getppid()) // local_size())


def _cores(process: int = 0) -> int:
    """The cores that a process may use, by default this one."""
    try:
        return len(os.sched_getaffinity(process))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _number(name: str, otherwise: int) -> int:
    """The number at the beginning of a variable: Slurm writes "4(x2)" for four tasks on each of two nodes."""
    text = os.environ.get(name, "")
    digits = text[: next((n for n, c in enumerate(text) if not c.isdigit()), len(text))]
    return int(digits) if digits else otherwise
