"""One rank of the test of communicators: it raises where a law does not hold."""

import sys

import pytest
import torch
from torch import Tensor

from nucleate.parallel import Communicator


def check(ranks: Communicator) -> None:
    sizes = [(5, 0, 2, 1)[rank % 4] for rank in range(ranks.size)]
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8):
        for shape in ((), (3,), (2, 3)):
            rows = [_rows(n, shape, dtype, rank) for rank, n in enumerate(sizes)]
            found = ranks.gather(rows[ranks.rank])
            assert len(found) == ranks.size
            for one, expected in zip(found, rows, strict=True):
                assert one.dtype == dtype
                assert torch.equal(one, expected)
    column = torch.arange(12.0).reshape(4, 3)[:, :1]  # contiguous, though its last step in memory is 3
    assert all(torch.equal(one, column) for one in ranks.gather(column))
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64):
        mine = torch.full((3, 4), 1.0 + ranks.rank, dtype=dtype).T
        expected = torch.full((4, 3), ranks.size * (ranks.size + 1) / 2, dtype=dtype)
        assert torch.equal(ranks.sum(mine), expected)
        assert (mine == 1 + ranks.rank).all()
    for rows in (torch.ones(ranks.rank, 0), torch.ones(0, 7).T, torch.ones(1, 7).T, torch.ones(4, 3, 2)[:, 1].T):
        assert torch.equal(ranks.gather(rows)[ranks.rank], rows)  # whatever their strides
    if ranks.size > 1:
        with pytest.raises(ValueError, match="the rows of rank 1 have 8 bytes and those of rank 0 4"):
            ranks.gather(torch.ones(2, 2 if ranks.rank == 1 else 1))
    thirds = torch.full((1001,), 1 / 3 + ranks.rank)
    assert all(torch.equal(one, ranks.sum(thirds)) for one in ranks.gather(ranks.sum(thirds)[None]) for one in one)
    said = {"seconds": 0.5 * ranks.rank, "why": "Ångström"}
    assert ranks.agree(said) == {"seconds": 0.0, "why": "Ångström"}
    assert ranks.all(ranks.rank) == list(range(ranks.size))
    assert ranks.all(None) == [None] * ranks.size
    assert ranks.exclusive_scan(10 + ranks.rank) == sum(10 + rank for rank in range(ranks.rank))
    ranks.barrier()


def check_messages(ranks: Communicator) -> None:
    """Every rank sends every other one two messages; they come in the order in which they were sent."""
    others = [rank for rank in range(ranks.size) if rank != ranks.rank]
    for number in range(2):
        for other in others:
            ranks.send(other, {"number": number, "from": ranks.rank, "long": "x" * 100_000 * number})
    found: dict[int, list[int]] = {other: [] for other in others}
    while sum(map(len, found.values())) < 2 * len(others):
        came = ranks.receive()
        if came is not None:
            assert came[1]["from"] == came[0]
            found[came[0]].append(came[1]["number"])
    assert all(numbers == [0, 1] for numbers in found.values())
    ranks.barrier()
    assert ranks.receive() is None


def _rows(n: int, shape: tuple[int, ...], dtype: torch.dtype, rank: int) -> Tensor:
    return (torch.arange(n * 6).reshape(n, 2, 3)[(slice(None), *[0] * (2 - len(shape)))] + rank).to(dtype)


if __name__ == "__main__":
    if sys.argv[1] == "mpi":
        from nucleate.parallel import mpi
        from nucleate.parallel.mpi import MPICommunicator

        check(MPICommunicator())
        mpi.MOST = 5  # sums in several messages
        check(MPICommunicator())
        check_messages(MPICommunicator())
    else:
        import torch.distributed as dist

        from nucleate.parallel.process_group import ProcessGroupCommunicator

        rank, world = map(int, sys.argv[3:])
        dist.init_process_group("gloo", sys.argv[2], rank=rank, world_size=world)
        check(ProcessGroupCommunicator(dist.group.WORLD))
        dist.destroy_process_group()
