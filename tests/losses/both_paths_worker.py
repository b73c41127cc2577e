"""One of three ranks of the test in test_both_paths.py: losses at the sizes of kernels, on both paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nucleate import losses

ROWS = (3, 0, 1)
Inputs = dict[str, Tensor]


def cases() -> list[tuple[str, Inputs, tuple[str, ...], dict[str, Any]]]:
    """(loss, inputs with rows along the first axis, those with a gradient, options)."""
    g = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    n, pixels = sum(ROWS), 1 << 14
    x, y = normal(n, 2, pixels), normal(n, 2, pixels)
    index = torch.randint(0, 2, (n, pixels), generator=g)
    mask = torch.rand(n, pixels, generator=g) > 0.3
    weight = torch.rand(n, pixels, generator=g).masked_fill(mask, 0.0)
    some = {"mask": mask, "weight": weight.flip(1)}
    field = {"prediction": x, "target": index}
    a, b = normal(n * 300, 8), normal(n * 300, 8)
    by_class = {"class_weight": torch.tensor([0.3, 2.0])}
    return [
        ("cross_entropy", {"logits": x, "target": index, **some}, ("logits",), by_class),
        ("cross_entropy", {"logits": x, "target": y.softmax(1), **some}, ("logits",), {"label_smoothing": 0.1}),
        ("kl_divergence", {"p": x, "q": y, **some}, ("p", "q"), {}),
        ("jensen_shannon", {"p": x, "q": y}, ("p", "q"), {}),
        ("dice", {**field, "mask": mask}, ("prediction",), {"over": "image"}),
        ("dice", {**field, "mask": mask}, ("prediction",), {"over": "batch", **by_class}),
        ("generalized_dice", field, ("prediction",), {"over": "batch"}),
        ("lovasz_softmax", field, ("prediction",), {"over": "batch"}),
        ("lovasz_hinge", {"score": x[:, 0], "target": index}, ("score",), {}),
        ("info_nce", {"query": a, "key": b}, ("query", "key"), {"temperature": 0.3}),
        ("clip_loss", {"first": a, "second": b}, ("first", "second"), {"temperature": 0.3}),
    ]


def main(folder: Path, rank: int | None = None) -> None:
    """With a rank over gloo, without over MPI."""
    torch.set_num_threads(1)
    group: Any
    if rank is None:
        from mpi4py import MPI

        group = MPI.COMM_WORLD
        rank = group.Get_rank()
    else:
        torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(ROWS))
        group = torch.distributed.group.WORLD
    assert losses.warm_up()
    for name, inputs, grad, options in cases():
        loss, rows = losses.by_name(name), len(next(iter(inputs.values())))
        begin, end = sum(ROWS[:rank]) * rows // sum(ROWS), sum(ROWS[: rank + 1]) * rows // sum(ROWS)
        for fast in (True, False):
            with losses.use_kernels(fast):
                whole = {k: x.clone().requires_grad_(k in grad) for k, x in inputs.items()}
                expected = loss(**whole, **options)
                expected.backward()
                mine = {k: x[begin:end].clone().requires_grad_(k in grad) for k, x in inputs.items()}
                found = loss(**mine, **options, group=group)
                found.backward()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
            for k in grad:
                x, y = mine[k].grad, whole[k].grad[begin:end]
                assert (x - y).norm() <= 1e-4 * y.norm(), (name, fast, k)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
