"""One rank of the test in test_distributed.py: every loss on this rank's rows, values and gradients to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses.kernels import row_blocks
from nucleate.parallel import communicator_of

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
        "smooth_l1": ("smooth_l1", {"prediction": logits, "target": logits.flip(1), "mask": mask}, ("prediction",),
                      {"channel_dim": 1}),
        "ordinal": ("ordinal", {"logits": logits[:, :2], "target": target, "mask": mask}, ("logits",),
                    {"class_weight": weight}),
        "info_nce_masked": ("info_nce", {"query": a, "key": b, "mask": labels > 0}, ("query", "key"), {}),
    }  # fmt: skip
    for over in ("image", "batch"):
        hardest = {"logits": logits, "target": target, "mask": mask}
        cases[f"topk_{over}"] = ("topk_cross_entropy", hardest, ("logits",), {"k": 0.4, "over": over})
        for loss in ("dice", "generalized_dice", "lovasz_softmax"):
            cases[f"{loss}_{over}"] = (loss, {**field, "mask": mask}, ("prediction",), {"over": over})
        cases[f"lovasz_hinge_{over}"] = ("lovasz_hinge", {"score": score, "target": label}, ("score",), {"over": over})
    views = {"first_prediction": a, "first_projection": b, "second_prediction": b.flip(1), "second_projection": a + 1}
    vectors = {"projection": normal(4, 6), "class_weight": torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=torch.float64)}
    cases |= {
        "byol": ("byol", {"prediction": a, "target": b, "mask": labels > 0}, ("prediction",), {}),
        "simsiam": ("simsiam", views, ("first_prediction", "second_prediction"), {}),
        "dino": ("dino", {"student": logits, "teacher": logits.flip(0), "mask": mask}, ("student",), {}),
        "cosface": ("cosface", {"features": a, "target": labels}, ("features",), vectors),
        "arcface": ("arcface", {"features": a, "target": labels}, ("features",), vectors),
        "circle": ("circle", {"features": a, "labels": labels}, ("features",), {"scale": 4.0}),
        "multi_similarity": ("multi_similarity", {"features": a, "labels": labels}, ("features",), {"mining": 0.1}),
    }
    for over in ("image", "batch"):
        for loss in ("cl_dice", "hausdorff_dt"):
            cases[f"{loss}_{over}"] = (loss, {**field, "mask": mask}, ("prediction",), {"over": over})
    for loss in ("clip_loss", "nt_xent", "siglip", "decoupled"):
        cases[loss] = (loss, two, ("first", "second"), {"temperature": 0.2})
    cases["info_nce"] = ("info_nce", {"query": a, "key": b}, ("query", "key"), {"temperature": 0.05})
    cases["queue"] = ("info_nce", {"query": a, "key": b}, ("query", "key"),
                      {"temperature": 0.2, "negatives": normal(5, 6), "hardness": 0.5})  # fmt: skip
    for negatives in ("image", "batch"):
        dense = {"query": normal(ROWS, 3, 4), "key": normal(ROWS, 3, 4), "match": match}
        cases[f"dense_{negatives}"] = (
            "dense_info_nce",
            dense,
            ("query", "key"),
            {"negatives": negatives, "temperature": 0.2},
        )
    shares = {"p": logits, "q": logits.flip(1), "mask": mask}
    for loss in ("entropy", "perplexity"):
        cases[loss] = (loss, {"p": shares["p"], "mask": mask}, ("p",), {})
    for loss in ("kl_divergence", "total_variation", "hellinger", "renyi", "wasserstein_1d"):
        cases[loss] = (loss, shares, ("p", "q"), {})
    amounts = {"p": logits.exp(), "q": logits.flip(1).exp(), "mask": mask}
    cases["generalized_kl"] = ("generalized_kl", amounts, ("p", "q"), {})
    binary = {"score": score, "target": label}
    for loss in ("squared_hinge", "smoothed_hinge", "modified_huber", "logistic", "exponential", "perceptron", "ramp"):
        cases[loss] = (loss, binary, ("score",), {})
    measured = {"prediction": score, "target": score.flip(1).abs()}
    for loss in ("l1", "mse", "huber", "log_cosh", "quantile", "poisson_nll"):
        cases[loss] = (loss, measured, ("prediction",), {})
    for loss in ("jaccard", "tversky", "focal_tversky"):
        cases[loss] = (loss, {**field, "mask": mask}, ("prediction",), {"over": "batch"})
    for loss in ("generalized_cross_entropy", "multiclass_hinge"):
        cases[loss] = (loss, {"logits": logits, "target": target, "mask": mask}, ("logits",), {"class_weight": weight})
    features = {"features": normal(ROWS, 6, 4), "target": target, "mask": mask}
    return cases | {
        "information": ("information", {"p": shares["p"], "outcome": target, "mask": mask}, ("p",), {}),
        "zero_one": ("zero_one", binary, (), {}),
        "sigmoid_focal": ("sigmoid_focal", {"logits": score, "target": label}, ("logits",), {}),
        "linear_cross_entropy": ("linear_cross_entropy", features, ("features",), {"projection": normal(3, 6)}),
        "margin_ranking": ("margin_ranking", {"first": a, "second": b, "target": (a > b).long()}, ("first",), {}),
        "triplet_margin": ("triplet_margin", {"anchor": a, "positive": b, "negative": a.flip(1)}, ("anchor",), {}),
        "gaussian_nll": ("gaussian_nll", {**measured, "variance": score.abs() + 1}, ("prediction", "variance"), {}),
    }


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
            found[f"{name}/temperature"] = communicator_of(group).sum(heat.grad).numpy()
    shares = all_cases()["kl_divergence"][1]
    members = torch.stack([shares["p"], shares["q"]])[:, rows]  # the rows are those of the second axis
    found["mutual_information/value"] = losses.by_name("mutual_information")(members, group=group).numpy()
    center = losses.DINOCenter(3).double()
    for _ in range(2):
        center.update(all_cases()["dino"][1]["teacher"][rows], mask=all_cases()["dino"][1]["mask"][rows], group=group)
    found["center/value"] = center.value.numpy()
    found.update(_in_blocks(rows, group))
    queue = losses.Queue(9, features=6)
    for _ in range(2):
        queue.enqueue(all_cases()["info_nce"][1]["key"][rows], group=group)
    found["kept keys/value"] = queue.keys().numpy()
    found["accumulated/value"], found["accumulated/gradient"] = _accumulate(rows, group)
    return found


def _in_blocks(rows: slice, group: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The losses of many rows once more, a few rows at a time."""
    found = {}
    names = ("info_nce", "clip_loss", "nt_xent", "decoupled", "siglip", "sup_con", "dense_image", "dense_batch")
    before = row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS
    row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS = 1, 8, 2
    for name in names:
        loss, inputs, grad, options = all_cases()[name]
        mine = {k: v[rows].clone().requires_grad_(k in grad) for k, v in inputs.items()}
        value = losses.by_name(loss)(**mine, **options, group=group)
        value.backward()
        found[f"{name}, blocks/value"] = value.detach().numpy()
        found.update({f"{name}, blocks/{k}": mine[k].grad.numpy() for k in grad})
    row_blocks.FEWEST, row_blocks._BLOCK, row_blocks._ROWS = before
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
    group: Any
    if rank is None or world is None:
        from mpi4py import MPI

        group = MPI.COMM_WORLD
        rank, world = group.Get_rank(), group.Get_size()
    else:
        torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
        group = torch.distributed.group.WORLD
    np.savez(folder / f"{rank}.npz", **evaluate(rank, world, group))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
