"""Every case of the catalogue through the kernels and the plain versions: one value, one gradient, one error."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.losses.test_every_loss import CASES, Case, call
from tests.ranks import environment, mpirun, needs_mpi
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nucleate import losses
from nucleate.losses import LossInputError

TIMES = 24
"""How often the last axis is repeated: the kernels take no class of fewer than 64 pixels."""

BY_KERNEL = {
    "cross_entropy", "linear_cross_entropy", "kl_divergence", "jensen_shannon", "dice", "jaccard", "tversky",
    "focal_tversky", "generalized_dice", "lovasz_softmax", "lovasz_hinge", "info_nce", "clip_loss",
}  # fmt: skip
"""What has a fast version, in the simplest of its cases; the rest may have one."""


FINITE = {"sigmoid_focal"}
"""At infinite logits its kernel has the limit of the slope, where the plain version multiplies 0 and infinity."""


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels, of tensors however small."""
    if not losses.warm_up():
        pytest.skip("There is no compiler of kernels.")
    for name, module in list(sys.modules.items()):
        if name.startswith("nucleate.losses.") and hasattr(module, "_FEWEST"):
            monkeypatch.setattr(module, "_FEWEST", 0)


def axis_of(case: Case, x: Tensor) -> int | None:
    """The last axis of positions in `x`, or None where it has none."""
    positions = len(case.mask)
    if x.ndim <= positions:
        return positions - 1 if tuple(x.shape) == case.mask else None
    if case.options.get("class_dim") == -1:
        return x.ndim - 2
    return x.ndim - 1 if positions > 1 else 0


def grown(case: Case) -> Case:
    """The case in float32 with more positions, no two of them alike."""
    g = torch.Generator().manual_seed(1)

    def grow(name: str, x: Any) -> Any:
        axis = axis_of(case, x) if isinstance(x, Tensor) and name != "projection" else None  # that has no positions
        more = x if axis is None else torch.cat([x] * TIMES, axis)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return more
        if axis is not None and name in case.masked and "said" not in case.options:
            more = more + 0.1 * torch.rand(more.shape, generator=g, dtype=more.dtype)
        return more.float()

    inputs, options = ({k: grow(k, x) for k, x in some.items()} for some in (case.inputs, case.options))
    return replace(case, inputs=inputs, options=options, mask=(*case.mask[:-1], case.mask[-1] * TIMES))


def bare(case: Case) -> Case:
    """The case with weights of classes alone, which every kernel takes."""
    options = {name: x for name, x in case.options.items() if name != "weight"}
    return replace(case, form=f"{case.form}-bare", options=options)


GROWN = [grown(case) for case in CASES]
GROWN += [grown(bare(case)) for case in CASES if "weight" in case.options]
every = pytest.mark.parametrize("case", GROWN, ids=str)
differentiable = pytest.mark.parametrize("case", [case for case in GROWN if case.grad], ids=str)


def tensors(case: Case) -> dict[str, Tensor]:
    return {name: x for name, x in {**case.inputs, **case.options}.items() if isinstance(x, Tensor)}


def takes(case: Case, name: str) -> bool:
    return name in inspect.signature(losses.by_name(case.loss)).parameters


def accepts(case: Case) -> dict[str, Tensor]:
    """A mask, and weights of positions with zeros among them where the loss takes such."""
    g = torch.Generator().manual_seed(2)
    found = {"mask": torch.rand(case.mask, generator=g) > 0.3}
    if not takes(case, "weight"):
        return found
    weight = torch.rand(case.mask, generator=g)
    weight = weight.masked_fill(torch.rand(case.mask, generator=g) < 0.2, 0.0)
    return {**found, "weight": weight}


def as_is(x: Tensor) -> Tensor:
    return x


def strided(x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim > 1 else x


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x


def sliced(x: Tensor) -> Tensor:
    return torch.cat([x, x], -1)[..., : x.shape[-1]] if x.ndim else x


def expanded(x: Tensor) -> Tensor:
    return x.narrow(0, 0, 1).expand_as(x) if x.ndim and not x.is_floating_point() else x


Outcome = dict[str, Any]


def outcome(case: Case, given: dict[str, Tensor], learnt: tuple[str, ...], fast: bool, **options: Any) -> Outcome:
    """The value, the gradients by `learnt` and the operations of one path; or its error."""
    leaves = {name: x.detach().requires_grad_(name in learnt) for name, x in given.items()}
    with losses.use_kernels(fast):
        try:
            value = call(case, **leaves, **options)
        except LossInputError as error:
            return {"error": str(error)}
        found: Outcome = {"value": value.detach(), "differentiable": value.requires_grad, "names": names(value)}
        if value.requires_grad:
            wanted = [leaves[name] for name in learnt]
            found["slopes"] = torch.autograd.grad(value.sum(), wanted, allow_unused=True)
    return found


def names(value: Tensor) -> set[str]:
    """The nodes of the graph behind `value`."""
    seen, found = [value.grad_fn], set()
    while seen:
        node = seen.pop()
        if node is not None and node not in found:
            found.add(node)
            seen += [n for n, _ in node.next_functions]
    return {type(node).__name__ for node in found}


def both(case: Case, given: dict[str, Tensor], learnt: tuple[str, ...], bound: float = 2e-5, **options: Any) -> Outcome:
    """The outcome by the kernels, after it was compared with that of the plain version."""
    one, other = (outcome(case, given, learnt, fast, **options) for fast in (True, False))
    assert one.keys() == other.keys(), (one, other)
    if "error" in one:
        assert one["error"] == other["error"]
        return one
    assert one["differentiable"] == other["differentiable"]
    assert one["value"].dtype == other["value"].dtype
    torch.testing.assert_close(one["value"], other["value"], rtol=bound, atol=bound, equal_nan=True)
    for name, x, y in zip(learnt, one.get("slopes", ()), other.get("slopes", ()), strict="slopes" in one):
        assert (x is None) == (y is None), name
        if x is not None:
            assert x.dtype == y.dtype
            if case.loss in FINITE:
                assert (x.isfinite() | ~y.isfinite()).all(), name
                x = x.where(y.isfinite(), 0.0)
            else:
                assert torch.equal(x.isfinite(), y.isfinite()), name
            x, y = (z.nan_to_num(0.0, 0.0, 0.0) for z in (x, y))
            assert (x - y).norm() <= 5 * bound * y.norm() + 1e-7, (name, x, y)
    return one


@pytest.mark.parametrize("laid", [as_is, strided, transposed, channels_last, sliced, expanded])
@every
def test_value_and_gradient_in_every_layout(case: Case, laid: Callable[[Tensor], Tensor]) -> None:
    given = {name: laid(x) for name, x in tensors(case).items()}
    both(case, given, case.grad)
    both(case, {**given, **{name: laid(x) for name, x in accepts(case).items()}}, case.grad)


@every
def test_gradients_by_everything_that_can_have_one(case: Case) -> None:
    given = {**tensors(case), **accepts(case)}
    learnt = tuple(name for name, x in given.items() if x.is_floating_point() and (case.grad or name in case.masked))
    checks = {"check": False} if "target" in learnt or "said" in case.options else {}
    both(case, given, learnt, **checks)
    for name in learnt:
        both(case, given, (name,), **checks)


@pytest.mark.parametrize("reduction", ["sum", "none", "pair"])
@every
def test_other_reductions(case: Case, reduction: str) -> None:
    both(case, tensors(case), case.grad, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@every
def test_other_types(case: Case, dtype: torch.dtype) -> None:
    if case.loss.startswith("lovasz") and dtype != torch.float64:
        pytest.skip("Rounded errors are equal, and their order is not given.")
    wide = {k for k in case.masked + case.grad if case.inputs[k].ndim > 1 and k != "target"}
    given = {k: x.to(dtype) if k in wide else x for k, x in tensors(case).items()}
    both(case, given, case.grad, 4e-3, check=False)


def test_the_kernels_were_at_work() -> None:
    found = set()
    for case in GROWN:
        if case.grad:
            one, other = (outcome(case, tensors(case), case.grad, fast, check=False) for fast in (True, False))
            found |= {case.loss} if one["names"] != other["names"] else set()
    assert found >= BY_KERNEL


@every
def test_one_error_for_one_mistake(case: Case) -> None:
    given, more = tensors(case), accepts(case)
    for value in (torch.nan, torch.inf, -torch.inf):
        spoilt = given[case.masked[0]].clone()
        spoilt.view(-1)[0] = value
        for check in (True, False):
            both(case, {**given, case.masked[0]: spoilt}, case.grad, check=check)
    for name, x in {**given, **more}.items():
        both(case, {**given, **more, name: x[..., :-1] if x.ndim else x.expand(2)}, ())
        wrong = []
        if name in ("target", "outcome") and not x.is_floating_point() and case.loss != "poisson_nll":  # counts
            wrong = [x.index_fill(-1, torch.tensor([1]), label) for label in (77, -1, 255)]
        elif "weight" in name:
            wrong = [torch.full_like(x, value) for value in (-1.0, torch.nan, torch.inf)]
        for bad in wrong:
            if case.options.get("labels") != "signed" or not bool((bad == -1).any()):
                assert "error" in both(case, {**given, name: bad}, (), check=True)
    if "target" in given:
        both(case, {**given, "target": 2 * given["target"]}, (), check=True)
    assert "error" in both(case, {**given, "mask": more["mask"].long()}, ())


@every
def test_a_weight_of_zero_is_not_selected(case: Case) -> None:
    more = accepts(case)
    if "weight" not in more:
        pytest.skip("It has no weights of positions.")
    given, options = tensors(case), {"normalize": "count"} if takes(case, "normalize") else {}
    weight = given.pop("weight", torch.ones(case.mask))
    weight = weight.masked_fill(~more["mask"], 0.0)
    for value in (torch.nan, torch.inf, -torch.inf):
        spoilt = {k: torch.where(rows_of(case, given[k], more["mask"]), given[k], value) for k in case.masked}
        for extra in ({}, options):
            known = outcome(case, {**given, "mask": more["mask"], "weight": weight}, case.grad, False, **extra)
            found = both(case, {**given, **spoilt, "weight": weight}, case.grad, **extra)
            torch.testing.assert_close(found["value"], known["value"])
            for x, y in zip(found.get("slopes", ()), known.get("slopes", ()), strict=True):
                torch.testing.assert_close(x, y)


def rows_of(case: Case, x: Tensor, mask: Tensor) -> Tensor:
    return mask if x.ndim == mask.ndim else mask.unsqueeze(case.options.get("class_dim", 1))


@differentiable
def test_a_constant_changed_before_the_backward_pass_never_gives_another_gradient(case: Case) -> None:
    given = {**tensors(case), **accepts(case)}
    for name in given.keys() - set(case.grad):
        for fast in (True, False):
            known = outcome(case, given, case.grad, fast)["slopes"]
            fresh = {k: x.detach().clone().requires_grad_(k in case.grad) for k, x in given.items()}
            with losses.use_kernels(fast):
                value = call(case, **fresh)
                fresh[name].copy_(~fresh[name] if fresh[name].dtype == torch.bool else fresh[name].flip(-1))
                try:
                    found = torch.autograd.grad(value, [fresh[k] for k in case.grad])
                except RuntimeError as error:
                    assert "modified by an inplace operation" in str(error)
                else:
                    torch.testing.assert_close(found, known)


@differentiable
def test_activation_checkpointing_changes_nothing(case: Case) -> None:
    given = tensors(case)
    expected = outcome(case, given, case.grad, fast=True)["slopes"]
    leaves = {name: x.detach().requires_grad_(name in case.grad) for name, x in given.items()}
    wanted = [leaves[name] for name in case.grad]
    value = checkpoint(lambda *x: call(case, **{**leaves, **dict(zip(case.grad, x, strict=True))}), *wanted,
                       use_reentrant=False)  # fmt: skip
    for one, other in zip(torch.autograd.grad(value.sum(), wanted, allow_unused=True), expected, strict=True):
        assert one is other is None or torch.equal(one, other)


# at the real thresholds
def sizes() -> Iterator[tuple[str, dict[str, Tensor]]]:
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    for pixels in (16383, 16384, 16385):  # 2^15 numbers
        x, y = normal(1, 2, pixels), normal(1, 2, pixels)
        index = torch.randint(0, 2, (1, pixels), generator=g)
        yield "cross_entropy", {"logits": x, "target": index}
        yield "cross_entropy", {"logits": x, "target": y.softmax(1)}
        yield "focal", {"logits": x, "target": index}
        yield "binary_cross_entropy", {"logits": x, "target": y.sigmoid()}
        yield "dice", {"prediction": x, "target": index}
        yield "kl_divergence", {"p": x, "q": y}
    for pixels in (4095, 4096):  # 2^13 errors
        index = torch.randint(0, 2, (1, pixels), generator=g)
        yield "lovasz_softmax", {"prediction": normal(1, 2, pixels), "target": index}
    for rows in (1023, 1024):  # 2^20 scores
        yield "info_nce", {"query": normal(rows, 4), "key": normal(rows, 4)}
        yield "clip_loss", {"first": normal(rows, 4), "second": normal(rows, 4)}
        target = torch.randint(0, 1024, (rows,), generator=g)
        yield "linear_cross_entropy", {"features": normal(rows, 4), "projection": normal(1024, 4), "target": target}
        wide = normal(rows, 1024)  # 2^20 numbers
        yield "sup_con", {"features": wide, "labels": torch.arange(rows) // 2}
    for classes in (254, 255, 256, 512, 513):  # of labels in bytes, and of the kernels
        target = torch.randint(0, classes, (1, 200), generator=g)
        yield "cross_entropy", {"logits": normal(1, classes, 200), "target": target}
        yield "dice", {"prediction": normal(1, classes, 200), "target": target}


@pytest.mark.parametrize(("loss", "given"), list(sizes()), ids=lambda x: x if isinstance(x, str) else "")
def test_sizes_around_the_thresholds(loss: str, given: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    learnt = tuple(name for name, x in given.items() if x.is_floating_point() and name != "target")
    case = Case(loss, "large", {}, learnt)
    both(case, given, learnt)
    constants = [name for name in given if name not in learnt]
    for name in constants:
        fresh = {k: x.clone().requires_grad_(k in learnt) for k, x in given.items()}
        value = call(case, **fresh)
        with torch.no_grad():
            fresh[name].zero_()
        known = outcome(case, given, learnt, True)["slopes"]
        try:
            found = torch.autograd.grad(value, [fresh[k] for k in learnt])
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
        else:
            torch.testing.assert_close(found, known)


# over ranks
WORKER = Path(__file__).with_name("both_paths_worker.py")


def test_ranks_give_on_both_paths_what_one_process_gives(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, WORKER, tmp_path, str(rank)], env=environment(), stderr=subprocess.PIPE,
                         text=True)
        for rank in range(3)
    ]  # fmt: skip
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(errors)


@needs_mpi
def test_ranks_of_mpi_give_on_both_paths_what_one_process_gives(tmp_path: Path) -> None:
    done = mpirun(3, ["-m", "mpi4py", WORKER, tmp_path])
    assert done.returncode == 0, done.stderr
