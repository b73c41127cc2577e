"""One rank of the test in test_accumulation.py: two losses accumulated under each wrapper, gradients to a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nucleate import losses

ROWS = {0: [2, 1], 1: [1, 3]}  # of each rank, the images in its two parts
IMAGES = 7


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1)).double()


def images() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(IMAGES, 2, 5, 6, generator=g, dtype=torch.float64)
    target = torch.randint(0, 3, (IMAGES, 5, 6), generator=g)
    target[0, 1:] = 255
    target[4:6, :, 2:] = 255
    return x, target


def parts(rank: int) -> list[tuple[Tensor, Tensor]]:
    x, target = images()
    begin = sum(sum(ROWS[r]) for r in range(rank))
    sizes = ROWS[rank]
    rows = [slice(begin + sum(sizes[:i]), begin + sum(sizes[: i + 1])) for i in range(len(sizes))]
    return [(x[r], target[r]) for r in rows]


def loss(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    cross = losses.cross_entropy(logits, target, ignore_index=255, **options)
    return cross + 0.5 * losses.dice(logits, target, ignore_index=255, **options)


def whole(of: Callable[..., Tensor] = loss) -> dict[str, Any]:
    """One pass of one process over everything."""
    net, (x, target) = model(), images()
    value = of(net(x), target)
    value.backward()
    return {"value": value.item(), **{name: p.grad.numpy() for name, p in net.named_parameters()}}


def accumulate_one(net: nn.Module, rank: int) -> float:
    """Cross entropy alone, whose weight need not be known beforehand."""
    steps = losses.Accumulation(torch.distributed.group.WORLD)
    for x, target in parts(rank):
        steps.backward(losses.total_and_weight(losses.cross_entropy, net(x), target, ignore_index=255))
    return steps.finish(net.parameters(), averaged=True)


def accumulate(net: nn.Module, rank: int, synced: str, known: bool, averaged: bool) -> float:
    """`synced`: in which parts the wrapper averages gradients: "all", "last" or "none"."""
    mine = parts(rank)
    group = torch.distributed.group.WORLD
    weights = [sum(int((t != 255).sum()) for _, t in mine), sum(3 * len(t) for _, t in mine)]
    steps = losses.Accumulation(group, factors=(1.0, 0.5), weights=weights if known else None)
    for i, (x, target) in enumerate(mine):
        quiet = synced == "none" or (synced == "last" and i < len(mine) - 1)
        if quiet and hasattr(net, "set_requires_gradient_sync"):
            net.set_requires_gradient_sync(False)
        elif hasattr(net, "set_requires_gradient_sync"):
            net.set_requires_gradient_sync(True)
        with net.no_sync() if quiet and hasattr(net, "no_sync") else nullcontext():
            logits = net(x)
            pairs = [losses.total_and_weight(fn, logits, target, ignore_index=255)
                     for fn in (losses.cross_entropy, losses.dice)]  # fmt: skip
            steps.backward(*pairs)
    return steps.finish(net.parameters(), averaged=averaged)


def ddp(**options: Any) -> Callable[[], nn.Module]:
    return lambda: DistributedDataParallel(model(), **options)


def fsdp1(**options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(model(), device_id=torch.device("cpu"), **options)

    return make


def fsdp2() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    net = model()
    for layer in (net[0], net[2], net):
        fully_shard(layer)
    return net


# name -> wrapper, parts in which it averages, weights known beforehand, finish(averaged=)
CASES: dict[str, tuple[Callable[[], nn.Module], str, bool, bool]] = {
    "none": (model, "all", False, False),
    "none, known": (model, "all", True, False),
    **{
        f"{name}, {synced}, {'known' if known else 'apart'}, {'averaged' if averaged else 'sent'}":
        (make, synced, known, averaged)
        for name, make in (("ddp", ddp()), ("ddp views", ddp(gradient_as_bucket_view=True)))
        for synced in ("all", "last", "none")
        for known in (False, True)
        for averaged in (False, True)
        if (known or not averaged) and not (averaged and synced == "none")
    },
    **{
        f"{name}, {synced}": (make, synced, True, True)
        for name, make in (("fsdp1", fsdp1()), ("fsdp1 original", fsdp1(use_orig_params=True)), ("fsdp2", fsdp2))
        for synced in ("all", "last")
    },
}  # fmt: skip


def gradients(net: nn.Module) -> dict[str, Any]:
    """The full gradient of each parameter, under its own name."""
    if type(net).__name__ == "FullyShardedDataParallel":
        from torch.distributed.fsdp import FullyShardedDataParallel

        with torch.no_grad():  # one step of gradient descent shows what the gradient was, sharded or not
            for p in net.parameters():
                if p.grad is not None:
                    p.add_(p.grad)
        with FullyShardedDataParallel.summon_full_params(net):
            moved = {n.replace("_fsdp_wrapped_module.", ""): p.detach().clone() for n, p in net.named_parameters()}
        return {n: (moved[n] - p.detach()).numpy() for n, p in model().named_parameters()}
    full = {n.removeprefix("module."): p.grad for n, p in net.named_parameters()}
    return {n: (g.full_tensor() if hasattr(g, "full_tensor") else g).numpy() for n, g in full.items()}


def refusals(rank: int) -> list[str]:
    """What is said of gradients that cannot be made right."""
    said = []
    for known, averaged in ((False, False), (False, True), (True, False)):
        for make in (fsdp1(use_orig_params=True), fsdp1(), fsdp2):
            try:
                accumulate(make(), rank, "all", known, averaged)
            except losses.LossInputError as error:
                said.append(str(error))
            else:
                said.append("nothing")
    try:
        accumulate(ddp()(), rank, "all", False, True)
    except losses.LossInputError as error:
        said.append(str(error))
    return said


def main(folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    found: dict[str, Any] = {}
    for name, (make, synced, known, averaged) in CASES.items():
        net = make()
        found[f"{name}/value"] = accumulate(net, rank, synced, known, averaged)
        found |= {f"{name}/{key}": value for key, value in gradients(net).items()}
    for name, make in (("fsdp1", fsdp1()), ("fsdp2", fsdp2), ("ddp", ddp())):
        net = make()
        found[f"{name}, one loss/value"] = accumulate_one(net, rank)
        found |= {f"{name}, one loss/{key}": value for key, value in gradients(net).items()}
    # Without accumulation: the loss of all ranks, times their number where the wrapper averages.
    net, group = DistributedDataParallel(model()), torch.distributed.group.WORLD
    (x, target) = (torch.cat(y) for y in zip(*parts(rank), strict=True))
    value = loss(net(x), target, group=group)
    (value * world).backward()
    found |= {"plain/value": value.item(), **{f"plain/{key}": g for key, g in gradients(net).items()}}
    found["said"] = np.array(refusals(rank))
    np.savez(folder / f"{rank}.npz", **found)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
