"""The ranks of a torch.distributed process group."""

from __future__ import annotations

import json
import math
from typing import TypeVar, final

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, all_gather, all_reduce, barrier, get_backend

from nucleate.parallel.communicator import Communicator, counts_of_rows, summed_in

Value = TypeVar("Value")


@final
class ProcessGroupCommunicator(Communicator):
    """A process group of any backend: gloo, NCCL, or MPI where PyTorch was built with it."""

    def __init__(self, of: ProcessGroup) -> None:
        self.of = of
        self.rank, self.size = of.rank(), of.size()

    def sum(self, values: Tensor) -> Tensor:
        total = values.detach().to(
            self._device, summed_in(values.dtype), copy=True, memory_format=torch.contiguous_format
        )
        all_reduce(total, group=self.of)
        return total.to(values.device, values.dtype)

    def gather(self, rows: Tensor) -> list[Tensor]:
        counts = counts_of_rows(self._integers(len(rows), rows.element_size() * math.prod(rows.shape[1:])))
        # Collectives want equal shapes: pad to the longest rank, cut afterwards.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]), device=self._device)
        padded[: len(rows)] = rows.detach()
        every = [torch.empty_like(padded) for _ in counts]
        all_gather(every, padded, group=self.of)
        return [held[:n].to(rows.device) for held, n in zip(every, counts, strict=True)]

    def agree(self, value: Value) -> Value:
        return self.all(value)[0]

    def all(self, value: Value) -> list[Value]:
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self._device)
        return [json.loads(one.cpu().numpy().tobytes()) for one in self.gather(text)]

    def barrier(self) -> None:
        barrier(group=self.of)

    def send(self, to: int, value: object) -> None:
        raise NotImplementedError("messages between single ranks go by MPI")

    def receive(self) -> None:
        raise NotImplementedError("messages between single ranks go by MPI")

    def survivors(self) -> Communicator:
        raise NotImplementedError("a process group cannot go on without one of its ranks")

    def _integers(self, *numbers: int) -> list[list[int]]:
        mine = torch.tensor(numbers, device=self._device)
        every = [torch.zeros_like(mine) for _ in range(self.size)]
        all_gather(every, mine, group=self.of)
        return [one.tolist() for one in every]

    @property
    def _device(self) -> torch.device:
        """Where messages must lie: NCCL carries device memory only."""
        nccl = get_backend(self.of) == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
