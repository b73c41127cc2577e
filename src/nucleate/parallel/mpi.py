"""The ranks of an MPI job, by mpi4py. No other module of the package imports it."""

from __future__ import annotations

import json
import time
from typing import Any, TypeVar, final

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from nucleate.parallel.communicator import Communicator, summed_in

Value = TypeVar("Value")


@final
class MPICommunicator(Communicator):
    """A communicator of mpi4py, by default all ranks that `mpirun` started.

    Tensors go through main memory: wheels of MPI know nothing of a GPU's. Values are sent as JSON, never pickled.
    """

    def __init__(self, of: MPI.Intracomm | None = None) -> None:
        self.of = MPI.COMM_WORLD if of is None else of
        self.rank, self.size = self.of.Get_rank(), self.of.Get_size()

    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().to("cpu", summed_in(values.dtype)).clone(memory_format=torch.contiguous_format)
        self.of.Allreduce(MPI.IN_PLACE, total.numpy(), op=MPI.SUM)
        return total.to(values.device, values.dtype)

    def gather(self, rows: Tensor) -> list[Tensor]:
        sent = rows.detach().cpu().contiguous()
        counts = self._integers(len(sent))
        row = sent[:1].nbytes if len(sent) else sent.new_empty((1, *sent.shape[1:])).nbytes
        every = torch.empty((sum(counts), *sent.shape[1:]), dtype=sent.dtype)
        # As bytes: MPI has no name for bfloat16.
        kind = MPI.BYTE.Create_contiguous(max(row, 1)).Commit()
        try:
            begins = np.concatenate(([0], np.cumsum(counts)[:-1]))
            self.of.Allgatherv([_bytes(sent), len(sent), kind], [_bytes(every), counts, begins, kind])
        finally:
            kind.Free()
        return list(every.to(rows.device).split(counts))

    def agree(self, value: Value) -> Value:
        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = np.array([len(text)], np.int64)
        self.of.Bcast(length, 0)
        held = np.frombuffer(text, np.uint8).copy() if self.rank == 0 else np.empty(int(length[0]), np.uint8)
        self.of.Bcast([held, MPI.BYTE], 0)
        agreed: Value = json.loads(held.tobytes())
        return agreed

    def all(self, value: Value) -> list[Value]:
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(one.numpy().tobytes()) for one in self.gather(text)]

    def barrier(self) -> None:
        # Asked now and then: MPI's own waiting takes a core, which the others may need.
        request, pause = self.of.Ibarrier(), 1e-5
        while not request.Test():
            time.sleep(pause)
            pause = min(0.05, 1.5 * pause)

    def exclusive_scan(self, amount: int) -> int:
        return sum(self._integers(amount)[: self.rank])

    def _integers(self, number: int) -> list[int]:
        every = np.empty(self.size, np.int64)
        self.of.Allgather(np.array([number], np.int64), every)
        return [int(n) for n in every]


def _bytes(tensor: Tensor) -> Any:
    return tensor.view(torch.uint8).numpy() if tensor.ndim else tensor.reshape(1).view(torch.uint8).numpy()
