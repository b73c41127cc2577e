"""One rank of the test in test_distributed.py: every loss on this rank's rows, values and gradients to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nucleate import losses

ROWS = 7
SPLITS = {1: [7], 2: [5, 2], 3: [4, 0, 3]}
Inputs = dict[str, Tensor]


def all_cases() -> dict[str, tuple[str, Inputs, tuple[str, ...], dict[str, Any]]]:
    """name -> (loss, inputs with rows along the first axis, those with a gradient, options)."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    logits, target = normal(ROWS, 3, 4), torch.randint(0, 3, (ROWS, 4), generator=g)
    target[1] = 0
    mask = torch.rand(ROWS, 4, generator=g) > 0.4
    mask[5:] = False  # with two ranks the second one holds nothing that counts
    score, label = normal(ROWS, 5), torch.randint(0, 2, (ROWS, 5), generator=g)
    a, b = normal(ROWS, 6), normal(ROWS, 6)
    labels = torch.tensor([0, 1, 2, 0, 3, 1, 0])
    match = torch.randint(-1, 4, (ROWS, 4), generator=g)
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    field = {"prediction": logits, "target": target}
    two = {"first": a, "second": b}
    cases: dict[str, tuple[str, Inputs, tuple[str, ...], dict[str, Any]]] = {
        "cross_entropy": ("cross_entropy", {"logits": logits, "target": target, "mask": mask}, ("logits",),
                          {"class_weight": weight, "label_smoothing": 0.1}),
        "focal": ("focal", {"logits": logits, "target": target}, ("logits",), {"ignore_index": 0}),
        "binary_cross_entropy": ("binary_cross_entropy", {"logits": score, "target": label}, ("logits",), {}),
        "jensen_shannon": ("jensen_shannon", {"p": logits, "q": logits.flip(1), "mask": mask}, ("p", "q"), {}),
        "calibration": ("expected_calibration_error", {"p": logits, "target": target}, (), {"bins": 4}),
        "hinge": ("hinge", {"score": score, "target": label}, ("score",), {}),
        "boundary": ("boundary", field, ("prediction",), {}),
        "vicreg": ("vicreg", two, ("first", "second"), {}),
        "barlow_twins": ("barlow_twins", two, ("first", "second"), {}),
        "sup_con": ("sup_con", {"features": a, "labels": labels}, ("features",), {}),
        "info_nce_masked": ("info_nce", {"query": a, "key": b, "mask": labels > 0}, ("query", "key"), {}),
    }  # fmt: skip
    for over in ("image", "batch"):
        for loss in ("dice", "generalized_dice", "lovasz_softmax"):
            cases[f"{loss}_{over}"] = (loss, {**field, "mask": mask}, ("prediction",), {"over": over})
        cases[f"lovasz_hinge_{over}"] = ("lovasz_hinge", {"score": score, "target": label}, ("score",), {"over": over})
    for loss in ("clip_loss", "nt_xent", "siglip", "decoupled"):
        cases[loss] = (loss, two, ("first", "second"), {"temperature": 0.2})
    cases["info_nce"] = ("info_nce", {"query": a, "key": b}, ("query", "key"), {"temperature": 0.05})
    for negatives in ("image", "batch"):
        dense = {"query": normal(ROWS, 3, 4), "key": normal(ROWS, 3, 4), "match": match}
        cases[f"dense_{negatives}"] = (
            "dense_info_nce",
            dense,
            ("query", "key"),
            {"negatives": negatives, "temperature": 0.2},
        )
    return cases


def evaluate(rank: int, world: int, group: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The value of every loss and the gradient at this rank's rows."""
    begin = sum(SPLITS[world][:rank])
    rows = slice(begin, begin + SPLITS[world][rank])
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, (loss, inputs, grad, options) in all_cases().items():
        mine = {k: v[rows].clone().requires_grad_(k in grad) for k, v in inputs.items()}
        heat = torch.tensor(options.get("temperature", 0.1), dtype=torch.float64, requires_grad=True)
        learnt = {"temperature": heat} if "temperature" in options else {}
        fn = losses.by_name(loss)
        found[f"{name}/pair"] = losses.total_and_weight(fn, **mine, **{**options, **learnt}, group=group)
        found[f"{name}/pair"] = torch.stack(found[f"{name}/pair"]).detach().numpy()
        value = fn(**mine, **{**options, **learnt}, group=group)
        found[f"{name}/value"] = value.detach().numpy()
        if grad:
            value.backward()
        for k in grad:
            found[f"{name}/{k}"] = mine[k].grad.numpy()
        if learnt:
            if group is not None:
                torch.distributed.all_reduce(heat.grad, group=group)
            found[f"{name}/temperature"] = heat.grad.numpy()
    found["accumulated/value"], found["accumulated/gradient"] = _accumulate(rows, group)
    return found


def _accumulate(rows: slice, group: Any) -> tuple[Any, Any]:
    """Two accumulation steps of ragged sizes on this rank; the second may be empty."""
    _, inputs, _, options = all_cases()["cross_entropy"]
    w = torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True)
    steps = losses.Accumulation(group)
    mine = {k: v[rows] for k, v in inputs.items()}
    for part in (slice(0, 3), slice(3, None)):
        x = mine["logits"][part] * w
        pair = losses.total_and_weight(
            losses.cross_entropy, x, mine["target"][part], mask=mine["mask"][part], **options
        )
        steps.backward(pair)
    value = steps.finish([w])
    return np.array(value), w.grad.numpy()


def main(folder: Path, rank: int | None = None, world: int | None = None) -> None:
    """With rank and number of ranks over gloo; without, started by MPI, over MPI."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meet"
    if rank is None or world is None:
        from mpi_group import join

        rank, world = join(meeting)
    else:
        torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=world)
    found = evaluate(rank, world, torch.distributed.group.WORLD)
    np.savez(folder / f"{rank}.npz", **found)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
