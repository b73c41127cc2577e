"""One rank of the test in test_distributed.py: every loss on this rank's rows, values and derivatives to a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.losses.rank_cases import CASES, SPLITS, Case
from tests.losses.rank_traps import check
from torch import Tensor

from nucleate import losses
from nucleate.losses.kernels import row_blocks
from nucleate.parallel import communicator_of

Found = dict[str, np.ndarray[Any, Any]]
"""A name that ends in "/rows" holds this rank's rows, in "/shared" this rank's term of a sum; others are the same on
all ranks."""

BLOCKS = ("info_nce", "clip_loss", "nt_xent", "decoupled", "siglip", "sup_con", "dense_info_nce, image",
          "dense_info_nce, batch")  # fmt: skip


def evaluate(rank: int, world: int, group: Any) -> Found:
    begin = sum(SPLITS[world][:rank])
    rows, found = slice(begin, begin + SPLITS[world][rank]), {}

    def add(title: str, more: Found) -> None:
        found.update({f"{title}/{name}": x for name, x in more.items()})

    for name, case in CASES.items():
        add(f"float64/{name}", derivatives(case, rows, torch.float64, group))
        add(f"float64/{name}, masked", derivatives(case, rows, torch.float64, group, mask=case.mask()[rows]))
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            add(f"{str(dtype)[6:]}/{name}", derivatives(case, rows, dtype, group))
    before = row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS
    row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS = 1, 8, 2  # the losses of many rows, a few at a time
    for name in BLOCKS:
        add(f"float64/{name}, blocks", derivatives(CASES[name], rows, torch.float64, group))
    row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS = before
    add("float64/kept", kept(rows, group))
    for how in ("one", "several", "known", "averaged"):
        add(f"float64/accumulated, {how}", accumulated(rows, group, how))
    return found


def derivatives(case: Case, rows: slice, dtype: torch.dtype, group: Any, **mask: Tensor) -> Found:
    """Pair, value and first derivatives; in float64 also the derivatives of their product with fixed numbers."""
    mine, shared = case.on_rows(rows, dtype), case.in_common(dtype)
    given, fn = {**mine, **shared, **case.options, **mask}, losses.by_name(case.loss)
    value = fn(**given, group=group)
    pair = losses.total_and_weight(fn, **given, group=group)
    found = {"pair": torch.stack(pair).detach().numpy(), "value": value.detach().numpy()}
    wanted = {name: mine[name] for name in case.grad} | shared

    def keep(title: str, gradients: Sequence[Tensor]) -> None:
        for name, x in zip(wanted, gradients, strict=True):
            held = x.detach().double().numpy(force=True)
            found[f"{title} by {name}/{'shared' if name in shared else 'rows'}"] = (
                held if name in shared else np.moveaxis(held, case.axis, 0)
            )

    def gradients(of: Tensor, again: bool) -> Sequence[Tensor]:
        every = list(wanted.values())
        return torch.autograd.grad(of, every, create_graph=again, allow_unused=True, materialize_grads=True)

    if wanted:
        first = gradients(value, again=dtype == torch.float64)
        keep("first", first)
        whole = {**case.inputs, **shared}
        numbers = {name: torch.arange(whole[name].numel()).cos().reshape(whole[name].shape) for name in wanted}
        along = [x if name in shared else x.movedim(case.axis, 0)[rows].movedim(0, case.axis)
                 for name, x in numbers.items()]  # fmt: skip
        product = torch.stack([(x * y).sum() for x, y in zip(first, along, strict=True)]).sum()
        if product.requires_grad:
            keep("second", gradients(product, again=False))
    return found


def kept(rows: slice, group: Any) -> Found:
    """What is remembered from call to call, and a mean over parts."""
    case = CASES["dino"]
    center, queue = losses.DINOCenter(3).double(), losses.Queue(9, features=6).double()
    for _ in range(2):
        center.update(case.inputs["teacher"][rows], mask=case.mask()[rows], group=group)
        queue.enqueue(CASES["info_nce"].inputs["key"][rows], group=group)
    mine = CASES["cross_entropy"].on_rows(rows, torch.float64)
    parts = [{name: x[part] for name, x in mine.items()} for part in (slice(0, 3), slice(3, None))]
    mean = losses.mean_of([losses.total_and_weight(losses.cross_entropy, **part) for part in parts], group)
    (gradient,) = torch.autograd.grad(mean, [mine["logits"]])
    return {
        "center": center.value.numpy(),
        "queue": queue.keys().numpy(),
        "mean_of": mean.detach().numpy(),
        "mean_of by logits/rows": gradient.numpy(),
    }


def accumulated(rows: slice, group: Any, how: str) -> Found:
    """Two parts of ragged sizes on this rank, the second of which may be empty, of one or two losses."""
    case, ranks = CASES["cross_entropy"], communicator_of(group)
    mine, mask = {name: x[rows] for name, x in case.inputs.items()}, case.mask()[rows]
    fns = (losses.cross_entropy, losses.dice)[: 1 if how == "one" else 2]
    w = torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True)

    def pairs(logits: Tensor, part: slice) -> list[losses.TotalAndWeight]:
        return [losses.total_and_weight(fn, logits, mine["target"][part], mask=mask[part]) for fn in fns]

    known = [pair.weight for pair in pairs(mine["logits"], slice(None))] if how in ("known", "averaged") else None
    steps = losses.Accumulation(group, factors=(1.0, 0.5)[: len(fns)], weights=known)
    for part in (slice(0, 3), slice(3, None)):
        steps.backward(*pairs(mine["logits"][part] * w, part))
    averaged = how == "averaged" and group is not None
    if averaged:  # as a wrapper does
        assert w.grad is not None
        w.grad.copy_(ranks.sum(w.grad) / ranks.size)
    value = steps.finish([w], averaged=averaged)
    assert w.grad is not None
    return {"value": np.array([value, *steps.means]), "gradient": w.grad.numpy()}


def main(folder: Path, rank: int | None = None, world: int | None = None) -> None:
    """With rank and number of ranks over gloo; without, started by MPI, over MPI."""
    torch.set_num_threads(1)
    group: Any
    if rank is None or world is None:
        from mpi4py import MPI

        group = MPI.COMM_WORLD
        rank, world = group.Get_rank(), group.Get_size()
    else:
        torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
        group = torch.distributed.group.WORLD
    np.savez(folder / f"{rank}.npz", **evaluate(rank, world, group))
    check(group)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
