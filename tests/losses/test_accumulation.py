"""Parts of any size give the loss and the gradient of one pass, for sums of losses and under every wrapper."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nucleate import losses
from nucleate.losses import Accumulation, LossInputError, TotalAndWeight, total_and_weight

TERMS = (losses.cross_entropy, losses.dice, partial(losses.lovasz_softmax, empty="penalize"))
FACTORS = (1.0, 0.5, 2.0)


def inputs(images: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 3, 4, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, 3, (images, 4, 5), generator=g)
    target[0, 1:] = 255
    target[-1] = 255
    return x, target


def factor() -> Tensor:
    return torch.tensor([[[1.0]], [[0.5]], [[-2.0]]], dtype=torch.float64, requires_grad=True)


def pairs_of(x: Tensor, target: Tensor, terms: int = 3) -> list[TotalAndWeight]:
    return [total_and_weight(fn, x, target, ignore_index=255) for fn in TERMS[:terms]]


def one_pass(x: Tensor, target: Tensor, terms: int = 3) -> tuple[float, Tensor]:
    w = factor()
    means = [fn(x * w, target, ignore_index=255) for fn in TERMS[:terms]]
    value = sum(f * mean for f, mean in zip(FACTORS, means, strict=False))
    value.backward()
    return value.item(), w.grad


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_parts_of_any_size_are_one_pass(sizes: list[int], terms: int, known: bool, seed: int) -> None:
    x, target = inputs(max(sum(sizes), 1), seed)
    value, expected = one_pass(x, target, terms)
    w = factor()
    weights = [pair.weight for pair in pairs_of(x, target, terms)] if known else None
    steps = Accumulation(factors=FACTORS[:terms], weights=weights)
    for _ in range(2):  # the second time it starts anew
        w.grad = None
        for part in zip(*(y.split([*sizes, len(x) - sum(sizes)]) for y in (x, target)), strict=True):
            steps.backward(*pairs_of(part[0] * w, part[1], terms))
        assert steps.finish([w]) == pytest.approx(value, rel=1e-13)
        torch.testing.assert_close(w.grad, expected, rtol=1e-12, atol=1e-15)


def test_means_are_those_of_each_loss_without_its_factor() -> None:
    x, target = inputs()
    steps, w = Accumulation(factors=FACTORS), factor()
    steps.backward(*pairs_of(x * w, target))
    steps.finish([w])
    assert steps.means == pytest.approx([fn(x * w, target, ignore_index=255).item() for fn in TERMS])


def test_a_part_without_one_of_the_losses_gives_zeros() -> None:
    x, target = inputs()
    w, expected = factor(), factor()
    (losses.cross_entropy(x * expected, target, ignore_index=255) + losses.dice(x[1:] * expected, target[1:],
     ignore_index=255)).backward()  # fmt: skip
    nothing = TotalAndWeight(torch.zeros(()), torch.zeros(()))
    steps = Accumulation()
    steps.backward(pairs_of(x[:1] * w, target[:1], 1)[0], nothing)
    steps.backward(*pairs_of(x[1:] * w, target[1:], 2))
    steps.finish([w])
    torch.testing.assert_close(w.grad, expected.grad)


@pytest.mark.parametrize("known", [False, True])
def test_gradients_carry_the_factor_of_a_grad_scaler_until_unscale(known: bool) -> None:
    x, target = inputs()
    value, expected = one_pass(x, target)
    w = factor()
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.optim.SGD([w], lr=0.1)
    weights = [pair.weight for pair in pairs_of(x, target)] if known else None
    steps = Accumulation(factors=FACTORS, weights=weights, scaler=scaler)
    for rows in (slice(0, 1), slice(1, None)):
        steps.backward(*pairs_of(x[rows] * w, target[rows]))
    assert steps.finish([w]) == pytest.approx(value)
    torch.testing.assert_close(w.grad, 1024 * expected)
    scaler.unscale_(optimizer)
    torch.testing.assert_close(w.grad, expected)
    nn.utils.clip_grad_norm_([w], 1e-3)
    before = w.detach().clone()
    scaler.step(optimizer)
    torch.testing.assert_close(before - w.detach(), 0.1 * w.grad)
    assert w.grad.norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_that_overflows_in_any_loss_skips_the_step(which: int) -> None:
    x, target = inputs()
    w = factor()
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.optim.SGD([w], lr=0.1)
    steps = Accumulation(scaler=scaler)
    pairs = pairs_of(x * w, target, 2)
    pairs[which] = TotalAndWeight(pairs[which].total + (w * 0).sum().exp() * torch.inf, pairs[which].weight)
    steps.backward(*pairs)
    steps.finish([w])
    before = w.detach().clone()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(w, before)
    assert scaler.get_scale() == 512


@pytest.mark.parametrize("known", [False, True])
def test_activation_checkpointing(known: bool) -> None:
    x, target = inputs()
    _, expected = one_pass(x, target)
    w = factor()
    weights = [pair.weight for pair in pairs_of(x, target)]
    steps = Accumulation(factors=FACTORS, weights=weights if known else None)
    for rows in (slice(0, 4), slice(4, None)):
        part = checkpoint(lambda a, b: a * b, x[rows], w, use_reentrant=False)
        steps.backward(*pairs_of(part, target[rows]))
    steps.finish([w])
    torch.testing.assert_close(w.grad, expected)
    if not known:
        with pytest.raises(LossInputError, match="use_reentrant"):
            steps.backward(*pairs_of(checkpoint(lambda a, b: a * b, x, w, use_reentrant=True), target))


def test_what_cannot_be_right_is_refused() -> None:
    x, target = inputs()
    w = factor()
    cross, dice = pairs_of(x * w, target, 2)
    batch = total_and_weight(losses.Dice(over="batch", ignore_index=255), x * w, target)
    rows = torch.randn(4, 2, requires_grad=True)
    twins = total_and_weight(losses.barlow_twins, rows, rows.roll(1, 0))
    with pytest.raises(LossInputError, match="not added"):
        Accumulation().backward((cross.total + dice.total, cross.weight + dice.weight))
    with pytest.raises(LossInputError, match="are not added"):
        _ = cross + dice
    with pytest.raises(LossInputError, match="got 1 pairs after 2"):
        Accumulation(factors=(1, 2)).backward(cross)
    for pair in (batch, twins):
        steps = Accumulation()
        steps.backward(pair)  # one part is the whole batch
        with pytest.raises(LossInputError, match="whole batch"):
            steps.backward(pair)
        with pytest.raises(LossInputError, match="whole batch"):
            losses.mean_of([pair, pair])
    steps = Accumulation(weights=(7, 6))
    steps.backward(*pairs_of(x * w, target, 2))
    with pytest.raises(LossInputError, match="weights said 7 for loss 0, but its parts weigh 85"):
        steps.finish([w])
    steps = Accumulation()
    steps.backward(*pairs_of(x * w, target, 2))
    with pytest.raises(LossInputError, match="not given"):
        steps.finish([])
    with pytest.raises(LossInputError, match="2 numbers and weights 1"):
        Accumulation(factors=(1, 2), weights=(1,))
    with pytest.raises(RuntimeError, match="does not require grad"):
        Accumulation().backward(pairs_of(x, target, 1)[0])


@pytest.mark.parametrize("terms", [1, 2])
def test_tied_weights_and_a_lone_tensor_are_one_parameter(terms: int) -> None:
    x, target = inputs()
    _, expected = one_pass(x, target, terms)
    for give in (lambda w: [w], lambda w: [w, w], lambda w: iter([w]), lambda w: w):
        steps, w = Accumulation(factors=FACTORS[:terms]), factor()
        steps.backward(*pairs_of(x * w, target, terms))
        for missing in ([], [factor()]):
            with pytest.raises(LossInputError, match="not given"):
                steps.finish(missing)
        steps.finish(give(w))
        torch.testing.assert_close(w.grad, expected)


def test_a_part_whose_backward_pass_fails_is_not_counted() -> None:
    x, target = inputs()
    value, expected = one_pass(x, target, 1)
    steps, w = Accumulation(), factor()
    (pair,) = pairs_of(x * w, target, 1)
    failing = pair.total * 1
    failing.register_hook(lambda gradient: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        steps.backward(pair._replace(total=failing))
    steps.backward(pair)
    assert steps.finish([w]) == pytest.approx(value)
    torch.testing.assert_close(w.grad, expected)


whole_dice = partial(losses.dice, over="batch")


@pytest.mark.parametrize(
    "fn",
    [
        losses.Dice(over="batch"),
        losses.Dice(over="batch").forward,
        partial(losses.Dice(over="batch")),
        lambda *given, **options: losses.dice(*given, over="batch", **options),
        torch.compile(whole_dice, backend="eager"),
        torch.compile(whole_dice, backend="aot_eager"),
    ],
)
def test_a_pair_of_a_whole_batch_says_so_however_the_loss_was_called(fn: Any) -> None:
    x, target = inputs()
    x.requires_grad_()
    pair, image = (total_and_weight(f, x, target, ignore_index=255) for f in (fn, losses.dice))
    assert pair.of_batch
    assert pair._replace(weight=pair.weight).of_batch
    assert not image.of_batch
    torch.testing.assert_close(pair.total / pair.weight, fn(x, target, ignore_index=255))
    steps = Accumulation()
    steps.backward(pair)
    steps.backward((0, 0))
    with pytest.raises(LossInputError, match="whole batch"):
        steps.backward(image)


@pytest.mark.parametrize("fn", [losses.barlow_twins, losses.vicreg])
def test_statistics_of_all_rows_are_of_the_whole_batch(fn: Any) -> None:
    assert total_and_weight(lambda **options: fn(torch.eye(4), torch.eye(4), **options)).of_batch


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factors": ("a", 1)}, "factors must hold"),
        ({"factors": 1.0}, "factors must hold"),
        ({"factors": (torch.nan,)}, "factors must hold"),
        ({"factors": ()}, "factors must hold"),
        ({"weights": (torch.nan, 6)}, "weights must hold"),
        ({"weights": (-1.0,)}, "weights must hold one finite number of at least 0"),
        ({"weights": torch.tensor(6.0)}, "weights must hold"),
        ({"group": (1.0, 2.0)}, "group must be a process group"),
    ],
)
def test_the_constructor_says_what_it_takes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(LossInputError, match=said):
        Accumulation(**options)


def test_what_has_no_meaning_is_refused() -> None:
    x, target = inputs()
    (pair,) = pairs_of(x * factor(), target, 1)
    for call in (lambda: pair * 2, lambda: 2 * pair):
        with pytest.raises(LossInputError, match="factors="):
            call()
    with pytest.raises(LossInputError, match="not added"):
        sum([pair])
    for weights in (None, (1.0, 2.0)):
        with pytest.raises(LossInputError, match="after backward"):
            Accumulation(weights=weights).finish([factor()])
    steps = Accumulation()
    steps.backward(pair)
    with pytest.raises(LossInputError, match="must be tensors"):
        steps.finish([("name", factor())])
    with pytest.raises(LossInputError, match=r"give \[pair\]"):
        losses.mean_of(pair)
    with pytest.raises(LossInputError, match="two tensors each"):
        losses.mean_of([(1.0, 2.0)])
    assert losses.mean_of([pair, (0, 0)]) == losses.mean_of([pair])
    assert losses.mean_of([(0, 0)]) == 0
    with pytest.raises(LossInputError, match="hands reduction= on"):
        total_and_weight(nn.functional.cross_entropy, x, target)
    with pytest.raises(LossInputError, match="hands reduction= on"):
        total_and_weight(nn.CrossEntropyLoss(), x, target)
    with pytest.raises(LossInputError, match="hands reduction= on"):
        total_and_weight(lambda *given, **options: x.mean(), x, target)


WORKER = Path(__file__).with_name("parallel_worker.py")


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parallel_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wrappers_give_the_gradient_of_one_process(worker: ModuleType, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, WORKER, tmp_path, str(rank), "2"], env=environment) for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    both: dict[str, Any] = worker.whole()
    alone = worker.whole(partial(losses.cross_entropy, ignore_index=255))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz", allow_pickle=False) as found:
            names = {name.rpartition("/")[0] for name in found.files} - {""}
            assert len(names) >= 25
            for name in names:
                for key, value in (alone if "one loss" in name else both).items():
                    np.testing.assert_allclose(found[f"{name}/{key}"], value, rtol=1e-12, atol=1e-15, err_msg=name)
            several, averaged, sent = found["said"][:6], found["said"][-1], found["said"][6:-1]
            assert all("a backward pass each" in said for said in several), several
            assert all("sharded" in said for said in sent), sent
            assert "weights=..." in averaged


PAGE = Path(__file__).parents[2] / "docs" / "losses-in-parallel.md"


def test_the_script_of_the_page_runs_on_two_ranks(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = "\n".join(block for block in blocks if "mpi4py" not in block)
    assert text.count("\ncheck(") >= 7
    meet = "torch.distributed.init_process_group"
    started = []
    for rank in range(2):
        # A file to meet in, where torchrun would give a free port.
        place = f'"gloo", init_method="file://{(tmp_path / "meet").as_posix()}", rank={rank}, world_size=2'
        script = tmp_path / f"script{rank}.py"
        script.write_text(text.replace(f'{meet}("gloo")', f"{meet}({place})"), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([sys.executable, script], env=environment))
    assert [process.wait(timeout=300) for process in started] == [0, 0]
