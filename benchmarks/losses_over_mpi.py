"""Messages and losses over ranks: MPI beside gloo, in turn, in one job.

    mpirun -n 2 python benchmarks/losses_over_mpi.py --repeats 200

Each line is the median time of a call on rank 0, with its quartiles, by MPI and by gloo: the sum of a gradient of 0.5 M
numbers in float32 (what losses and training call, and the bare calls of mpi4py and torch), of two numbers, a gather of
rows; then losses with group=, forward and backward, beside the same loss without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from mpi4py import MPI

from nucleate import losses
from nucleate.parallel import communicator_of

world = MPI.COMM_WORLD
Work = Callable[[], object]


def in_turn(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """The microseconds of each call, in an order that changes from round to round.

    All ranks meet before it by what sends its messages: MPI waits busily, and would take a core from gloo's thread.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for n in range(repeats + 5):
        for name in sorted(works, reverse=n % 2 == 1):
            meet = dist.barrier if name.startswith("gloo") else world.Barrier
            meet()
            begin = time.perf_counter()
            works[name]()
            if n >= 5:
                taken[name].append(1e6 * (time.perf_counter() - begin))
    return taken


def show(title: str, works: dict[str, Work], repeats: int) -> None:
    for name, taken in in_turn(works, repeats).items():
        low, middle, high = statistics.quantiles(taken, n=4)
        if world.Get_rank() == 0:
            print(f"{title:34} {name:12} {middle:10.1f} us  ({low:.1f} to {high:.1f})", flush=True)


def step(loss: Callable[..., torch.Tensor], inputs: list[torch.Tensor], group: object) -> Work:
    def call() -> None:
        inputs[0].grad = None
        loss(*inputs, group=group).backward()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(world.Get_rank())
    folder = communicator_of(world).agree(tempfile.mkdtemp())
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=world.Get_rank(), world_size=world.Get_size())
    gloo = dist.group.WORLD
    assert gloo is not None
    by_mpi, by_gloo = communicator_of(world), communicator_of(gloo)

    gradient, received = torch.randn(500_000), torch.empty(500_000)
    works: dict[str, Work] = {
        "mpi": lambda: by_mpi.sum(gradient),
        "gloo": lambda: by_gloo.sum(gradient),
        "mpi, bare": lambda: world.Allreduce(gradient.numpy(), received.numpy()),
        "mpi, in place": lambda: world.Allreduce(MPI.IN_PLACE, received.numpy()),
        "gloo, bare": lambda: dist.all_reduce(received, group=gloo),
    }
    show("sum of 500,000 float32", works, repeats)
    two, rows = torch.ones(2), torch.randn(64 + world.Get_rank(), 128)
    show("sum of 2 float32", {"mpi": lambda: by_mpi.sum(two), "gloo": lambda: by_gloo.sum(two)}, repeats)
    show("gather of (64, 128)", {"mpi": lambda: by_mpi.gather(rows), "gloo": lambda: by_gloo.gather(rows)}, repeats)

    logits, target = torch.randn(2, 3, 256, 256, requires_grad=True), torch.randint(0, 3, (2, 256, 256))
    few, labels = torch.randn(8, 3, requires_grad=True), torch.randint(0, 3, (8,))
    first, second = torch.randn(256, 128, requires_grad=True), torch.randn(256, 128)
    cases: dict[str, tuple[Callable[..., torch.Tensor], list[torch.Tensor]]] = {
        "cross_entropy (2, 3, 256, 256)": (losses.cross_entropy, [logits, target]),
        "cross_entropy (8, 3)": (losses.cross_entropy, [few, labels]),
        "dice (2, 3, 256, 256)": (losses.dice, [logits, target]),
        "clip_loss (256, 128)": (losses.clip_loss, [first, second]),
    }
    for title, (loss, inputs) in cases.items():
        groups = {"mpi": world, "gloo": gloo, "no group": None}
        show(title, {name: step(loss, inputs, group) for name, group in groups.items()}, repeats)
    dist.destroy_process_group()
    if world.Get_rank() == 0:
        (Path(folder) / "meet").unlink(missing_ok=True)
        Path(folder).rmdir()


if __name__ == "__main__":
    main()
