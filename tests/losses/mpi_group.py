"""A process group of PyTorch whose messages are MPI's, with the two collectives that the losses need.

PyTorch's wheels are built without MPI. A group may be written in Python, too, and so the losses can be put before real
MPI: this one passes each collective on to mpi4py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mpi4py import MPI
from torch import Tensor

NAME = "mpi4py"


class Done(dist._Work):
    """A message that has arrived already."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._future: Any = torch.futures.Future()
        self._future.set_result(result)

    def wait(self, timeout: Any = None) -> bool:
        return True

    def get_future(self) -> Any:
        return self._future


class MpiGroup(dist.ProcessGroup):
    def __init__(self, communicator: MPI.Comm) -> None:
        super().__init__(communicator.Get_rank(), communicator.Get_size())
        self.communicator = communicator

    def getBackendName(self) -> str:
        return NAME

    def allreduce(self, tensors: list[Tensor], options: Any) -> Done:
        assert options.reduceOp == dist.ReduceOp.SUM
        for tensor in tensors:
            values = np.array(tensor.numpy(), order="C")
            self.communicator.Allreduce(MPI.IN_PLACE, values, op=MPI.SUM)
            tensor.copy_(torch.from_numpy(values))
        return Done(tensors)

    def allgather(self, received: list[list[Tensor]], sent: list[Tensor], options: Any) -> Done:
        for parts, tensor in zip(received, sent, strict=True):
            values = np.array(tensor.numpy(), order="C")
            every = np.empty((self.size(), *values.shape), values.dtype)
            self.communicator.Allgather(values, every)
            for part, one in zip(parts, every, strict=True):
                part.copy_(torch.from_numpy(one))
        return Done(received)


def join(meeting: str) -> tuple[int, int]:
    """Make MPI's world PyTorch's; rank and size."""
    world = MPI.COMM_WORLD
    dist.Backend.register_backend(NAME, lambda *_: MpiGroup(world), extended_api=True, devices=["cpu"])
    dist.init_process_group(NAME, init_method=meeting, rank=world.Get_rank(), world_size=world.Get_size())
    return world.Get_rank(), world.Get_size()
