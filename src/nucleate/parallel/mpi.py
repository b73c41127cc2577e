"""The ranks of an MPI job, by mpi4py. No other module of the package imports it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar, final

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from nucleate.parallel.communicator import Communicator, RanksLost, counts_of_rows, summed_in

Given = ParamSpec("Given")
Value = TypeVar("Value")


_LOST = "a rank of this job ended: start again with --resume."

LOST = {MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED}
"""The classes of errors by which MPI says that a rank ended."""

MOST = 2**31 - 1
"""How far MPI counts in one message; newer ones count further."""

MESSAGE = 1
"""The tag of messages between two ranks."""


def _told_of_losses(call: Callable[Given, Value]) -> Callable[Given, Value]:
    """The same call, with `RanksLost` for MPI's own words for it."""

    @wraps(call)
    def told(*args: Given.args, **options: Given.kwargs) -> Value:
        try:
            return call(*args, **options)
        except MPI.Exception as error:
            if error.Get_error_class() not in LOST:
                raise
            raise RanksLost(_LOST) from error

    return told


@final
class MPICommunicator(Communicator):
    """A communicator of mpi4py, by default all ranks that `mpirun` started.

    Tensors go through main memory: wheels of MPI know nothing of a GPU's. Values are sent as JSON, never pickled.
    """

    def __init__(self, of: MPI.Intracomm | None = None) -> None:
        self.of = MPI.COMM_WORLD if of is None else of
        self.rank, self.size = self.of.Get_rank(), self.of.Get_size()
        self._agreed = False  # whether this rank said in `barrier` how it ended
        self._sent: list[tuple[MPI.Request, bytes]] = []  # messages under way, whose bytes must not move

    @classmethod
    def of_job(cls) -> MPICommunicator:
        """All ranks that `mpirun` started, apart from what others send on MPI.COMM_WORLD."""
        own = MPI.COMM_WORLD.Dup()
        own.Set_errhandler(MPI.ERRORS_RETURN)
        return cls(own)

    @_told_of_losses
    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().to("cpu", summed_in(values.dtype), copy=True, memory_format=torch.contiguous_format)
        for part in (total,) if total.numel() <= MOST else total.view(-1).split(MOST):
            self.of.Allreduce(MPI.IN_PLACE, part.numpy(), op=MPI.SUM)
        return total.to(values.device, values.dtype)

    @_told_of_losses
    def gather(self, rows: Tensor) -> list[Tensor]:
        sent = rows.detach().cpu().contiguous()
        width = sent.element_size() * math.prod(sent.shape[1:])
        counts = counts_of_rows(self._integers(len(sent), width))
        every = torch.empty((sum(counts), *sent.shape[1:]), dtype=sent.dtype)
        if every.numel():
            # By rows of bytes: MPI has no name for bfloat16, and counts no further than MOST.
            kind = MPI.BYTE.Create_contiguous(width).Commit()
            try:
                self.of.Allgatherv([_bytes(sent), len(sent), kind], [_bytes(every), counts, kind])
            finally:
                kind.Free()
        return list(every.to(rows.device).split(counts))

    @_told_of_losses
    def agree(self, value: Value) -> Value:
        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = np.array([len(text)], np.int64)
        self.of.Bcast(length, 0)
        held = np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(int(length[0]), np.uint8)
        self.of.Bcast([held, MPI.BYTE], 0)
        agreed: Value = json.loads(held.tobytes())
        return agreed

    @_told_of_losses
    def all(self, value: Value) -> list[Value]:
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(one.numpy().tobytes()) for one in self.gather(text)]

    @_told_of_losses
    def barrier(self) -> None:
        # Asked now and then: MPI's own waiting takes a core, which the others may need.
        request, pause = self.of.Ibarrier(), 1e-5
        while not request.Test():
            time.sleep(pause)
            pause = min(0.05, 1.5 * pause)
        if tolerant() and self.size > 1:
            # The wait may end well here and not elsewhere, so all say how it ended; see `survivors`.
            self._agreed = True
            if not self.of.Agree(1):
                raise RanksLost(_LOST)
            self._agreed = False

    @_told_of_losses
    def exclusive_scan(self, amount: int) -> int:
        return sum(n for (n,) in self._integers(amount)[: self.rank])

    @_told_of_losses
    def send(self, to: int, value: object) -> None:
        self._sent = [(request, held) for request, held in self._sent if not request.Test()]
        text = json.dumps(value).encode()
        self._sent.append((self.of.Isend([text, MPI.BYTE], to, MESSAGE), text))

    @_told_of_losses
    def receive(self) -> tuple[int, Any] | None:
        status = MPI.Status()
        message = self.of.Improbe(MPI.ANY_SOURCE, MESSAGE, status)
        if message is None:
            return None
        held = np.empty(status.Get_count(MPI.BYTE), np.uint8)
        message.Recv([held, MPI.BYTE])
        return status.Get_source(), json.loads(held.tobytes())

    def survivors(self) -> MPICommunicator:
        # Who waits in another call is woken by the revocation. Who comes out of `barrier` unharmed asks there whether
        # all did; this is the answer, given once by each rank that lives, before they shrink together.
        self.of.Revoke()
        if not self._agreed:
            with suppress(MPI.Exception):
                self.of.Agree(0)
        shrunk = self.of.Shrink()
        assert isinstance(shrunk, MPI.Intracomm)
        shrunk.Set_errhandler(MPI.ERRORS_RETURN)
        return MPICommunicator(shrunk)

    def _integers(self, *mine: int) -> list[list[int]]:
        every = np.empty((self.size, len(mine)), np.int64)
        self.of.Allgather(np.array(mine, np.int64), every)
        found: list[list[int]] = every.tolist()
        return found


def _bytes(tensor: Tensor) -> MPI.buffer:
    """The memory of a contiguous tensor."""
    return MPI.buffer.fromaddress(tensor.data_ptr(), tensor.nbytes)


def tolerant() -> bool:
    """Whether ranks live on where another one ends: Open MPI started with `mpirun --with-ft ulfm`."""
    return os.environ.get("OMPI_MCA_mpi_ft_enable", "0") not in ("0", "false")  # noqa: SIM112 - Open MPI spells it so


def described() -> str:
    """The MPI that mpi4py uses: its name and version, how many ranks it has, and what it can do."""
    level = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
    ulfm = "on" if tolerant() else "off"
    library = MPI.Get_library_version().split(",")[0].split("\n")[0].strip("\0 ")
    threads = level.get(MPI.Query_thread(), "multiple")
    return f"{library}, ranks {MPI.COMM_WORLD.Get_size()}, threads {threads}, ULFM {ulfm}"
