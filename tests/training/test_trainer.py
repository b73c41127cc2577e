"""A training run: the same whether interrupted or not, and as long as it was asked to be."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nucleate.curves.rules import FixedNumber
from nucleate.data.augment import AugmentationConfig
from nucleate.errors import ModelError, TrainingError
from nucleate.inference.backends import TorchBackend
from nucleate.networks.unet import Architecture
from nucleate.parallel import SingleProcess
from nucleate.training.checkpoint import Checkpoint, encode
from nucleate.training.config import Limits, TrainingConfig
from nucleate.training.criterion import SegmentationCriterion
from nucleate.training.parallel import Serial, Threads
from nucleate.training.segmentation import SegmentationTask, ValidationSet
from nucleate.training.trainer import MAX_GRADIENT_NORM, Trainer, new_network
from nucleate.types import Thresholds

VARIATION = dataclasses.replace(AugmentationConfig.suited(2), crop=32)
SHORT = TrainingConfig(epochs=3, samples=8, batch=4, warm_up=3, cool_down=0.5, variation=VARIATION, widths=(8, 8))


def discs(seed, side=48):
    """Bright discs on a dark ground: an image and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, (cy, cx) in enumerate([(10, 10), (12, 34), (34, 14), (36, 36)], start=1):
        labels[np.hypot(y - cy - rng.normal(), x - cx - rng.normal()) < rng.uniform(6, 8)] = number
    image = (labels > 0) + rng.normal(0, 0.05, labels.shape)
    return image[None].astype(np.float32), labels


def task_of(config=SHORT):
    return SegmentationTask([discs(seed) for seed in range(2)], ValidationSet([discs(7)]), config)


def trainer(config=SHORT, *, folder=None, task=None, **options):
    network = new_network(Architecture(widths=config.widths), config.seed)
    checkpoint = None if folder is None else Checkpoint(folder)
    return Trainer(network, task or task_of(config), config, checkpoint=checkpoint, **options)


def run(config=SHORT, *, resume=False, parallel=None, **options):
    """In two threads, as a run of two cores would be."""
    if parallel is not None:
        return trainer(config, parallel=parallel, **options).train(resume=resume)
    with Threads() as threads:
        return trainer(config, parallel=threads, **options).train(resume=resume)


class Unlabelled:
    """A task around another one's samples, whose evaluations are given: `losses` and `scores` of the epochs."""

    def __init__(self, losses, scores=None, config=SHORT):
        self.inner, self.losses, self.scores = task_of(config), losses, scores
        self.backward, self.identity, self.batch = self.inner.backward, self.inner.identity, self.inner.batch
        self.formats, self.networks = [], []

    def evaluate(self, network, *, bfloat16, parallel, ranks):
        epoch = len(self.formats)
        self.formats.append(bfloat16)
        self.networks.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        score = epoch / 10 if self.scores is None else self.scores[epoch]
        return SimpleNamespace(loss=self.losses[epoch], score=score, metrics={})


def without_times(state):
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in state.history]
    return dataclasses.replace(state, history=history, seconds=0.0, validation_seconds=0.0)


def assert_same(one, other):
    assert without_times(one.state) == without_times(other.state)
    pairs = zip(one.network.state_dict().items(), other.network.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def stopping_at(*steps):
    """Interrupts the run after each of these steps, once."""
    left = set(steps)

    def observe(state, loss):
        if state.step in left:
            left.remove(state.step)
            raise KeyboardInterrupt

    return observe


@pytest.fixture(scope="module")
def straight():
    return run()


def test_a_run_can_be_repeated(straight, tmp_path):
    # With a folder to write to, and without.
    assert_same(run(folder=tmp_path), straight)


@pytest.mark.parametrize("steps", [(3,), (4,), (5,), (6,), (3, 5), (4, 5)])
def test_an_interrupted_run_comes_to_the_same_weights(straight, tmp_path, steps):
    observe = stopping_at(*steps)
    for resume in [False] + [True] * (len(steps) - 1):
        with pytest.raises(KeyboardInterrupt):
            run(folder=tmp_path, resume=resume, observe=observe)
    assert_same(run(folder=tmp_path, resume=True), straight)


def test_an_interruption_loses_no_step(straight, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(1))
    steps = []
    resumed = run(folder=tmp_path, resume=True, observe=lambda state, loss: steps.append(state.step))
    assert steps == list(range(2, straight.state.step + 1))
    assert_same(resumed, straight)


def dropped(tensors, name):
    del tensors[name]


def of_another_shape(tensors, name):
    tensors[name] = torch.zeros(3, 5)


def renamed(tensors, name):
    tensors[name + "x"] = tensors.pop(name)


def of_another_type(tensors, name):
    tensors[name] = tensors[name].double()


def without_its_part(tensors, name):
    tensors["all"] = tensors.pop(name)


@pytest.mark.parametrize("part", ["network/", "average/", "best/", "kernels.", "others."])
@pytest.mark.parametrize("harm", [dropped, of_another_shape, of_another_type, renamed, without_its_part])
def test_tensors_that_are_not_those_of_the_network_are_refused(tmp_path, part, harm):
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(3), parallel=Serial())
    one = trainer(folder=tmp_path, parallel=Serial())
    tensors, state = one.checkpoint.read(one.identity)
    harm(tensors, next(name for name in tensors if name.startswith(part)))
    one.checkpoint.write(tensors, state, one.identity)
    with pytest.raises(ModelError, match=r"not those of the network\): delete it and train without --resume\.$"):
        one.train(resume=True)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_run_is_evaluated_in_its_number_format_and_resumed_in_no_other(tmp_path, bfloat16):
    task = Unlabelled([3.0, 2.0, 1.0])
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, task=task, bfloat16=bfloat16, observe=stopping_at(3))
    names = ("bfloat16", "float32") if bfloat16 else ("float32", "bfloat16")
    with pytest.raises(ModelError, match=r"number format \({} then, {} now\)".format(*names)):
        run(folder=tmp_path, task=task, bfloat16=not bfloat16, resume=True)
    task.losses = [0.0, 2.0, 1.0]
    run(folder=tmp_path, task=task, bfloat16=bfloat16, resume=True)
    assert task.formats == [bfloat16] * 3


class Several(Serial):
    """In turn, but in so many parts."""

    def __init__(self, count):
        self.count = count


def test_a_run_may_be_resumed_with_other_threads(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, parallel=Several(2), observe=stopping_at(3))
    resumed, straight = run(folder=tmp_path, parallel=Several(3), resume=True), run(parallel=Several(2))
    assert [row["train_loss"] for row in resumed.state.history] == pytest.approx(
        [row["train_loss"] for row in straight.state.history], rel=1e-3
    )


def test_side_by_side_is_in_turn():
    one, other = (run(parallel=Several(2)), run(parallel=Several(2)))
    assert_same(one, other)
    with Threads() as threads:
        if threads.count == 2:
            both = run(parallel=threads).state.history
            assert [row["train_loss"] for row in both] == pytest.approx(
                [row["train_loss"] for row in one.state.history], rel=1e-3
            )


class Second(SingleProcess):
    """Alone, but told the time of another process."""

    def __init__(self):
        self.agreed = []

    def agree(self, value):
        self.agreed.append(value)
        return 0.25 * len(self.agreed)


def test_the_time_is_that_of_the_first_process():
    ranks = Second()
    state = run(ranks=ranks, limits=Limits(SHORT, clock=Clock(1000.0))).state
    assert state.seconds == 0.25 * len(ranks.agreed) < 1000


def test_a_finished_run_resumed_is_finished(straight, tmp_path):
    run(folder=tmp_path)
    seen = []
    assert_same(run(folder=tmp_path, resume=True, observe=lambda state, loss: seen.append(loss)), straight)
    assert seen == []


def test_the_seed_decides(straight):
    other = run(dataclasses.replace(SHORT, seed=1))
    assert other.state.history[0]["train_loss"] != straight.state.history[0]["train_loss"]


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_epochs_gives_exactly_so_many(epochs):
    state = run(dataclasses.replace(SHORT, epochs=epochs)).state
    assert [row["epoch"] for row in state.history] == list(range(1, epochs + 1))
    assert [row["step"] for row in state.history] == [SHORT.steps * epoch for epoch in range(1, epochs + 1)]
    assert state.step == epochs * SHORT.steps
    assert str(epochs) in state.why


def test_learning_rate_warms_up_stays_and_goes_to_zero():
    config = dataclasses.replace(SHORT, epochs=12, samples=4, warm_up=4, cool_down=0.5, learning_rate=1e-3)
    rates = np.array([row["learning_rate"] for row in run(config).state.history]) / config.learning_rate
    assert len(rates) == 12
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(rates[4:6], 1)
    # Six steps from 1 down to 0, which the step after the last one would have.
    np.testing.assert_allclose(rates[6:], [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


class Clock:
    """Each look at it takes so many seconds, so that a run's length does not depend on the machine."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


TIMED = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)


@pytest.mark.parametrize("tick", [0.4, 2.0])
def test_minutes_end_the_run_in_time_and_cooled_down(tick):
    state = run(TIMED, limits=Limits(TIMED, clock=Clock(tick))).state
    assert 0.6 * 30 <= state.seconds <= 30
    assert "0.5 minutes" in state.why
    assert state.cool_start < state.cool_end == state.step
    assert state.history[-1]["step"] == state.step
    assert 0 < state.history[-1]["learning_rate"] < TIMED.learning_rate / 2


@pytest.mark.parametrize("slower", [3, 30])
def test_minutes_are_kept_where_the_machine_slows_down_in_the_cool_down(slower):
    clock, rates = Clock(0.2), []

    def observe(state, loss):
        if state.cool_start is not None:
            clock.tick = 0.2 * slower
            rates.append((state.cool_end - state.step) / (state.cool_end - state.cool_start))

    state = run(TIMED, limits=Limits(TIMED, clock=clock), observe=observe).state
    # At most a step and a validation too long: three looks at the clock.
    assert 0.6 * 30 <= state.seconds <= 30 + 3 * clock.tick
    assert state.step == state.cool_end and "0.5 minutes" in state.why
    assert rates == sorted(rates, reverse=True) and rates[-1] == 0


@pytest.mark.parametrize("rule", [False, True])
def test_minutes_cut_short_a_cool_down_that_something_else_began(rule):
    clock, config = Clock(0.02), dataclasses.replace(TIMED, epochs=40)

    def observe(state, loss):
        clock.tick = 0.02 if state.cool_start is None else 2.0

    limits = Limits(config, rule=(lambda: FixedNumber(20)) if rule else None, clock=clock)
    state = run(config, limits=limits, observe=observe).state
    assert state.seconds <= 30 + 3 * clock.tick
    assert state.step < 40 * SHORT.steps
    assert state.why == ("Epoch 20 of 20." if rule else "The limit of 0.5 minutes was reached.")


def test_a_limit_of_minutes_counts_across_interruptions(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(TIMED, folder=tmp_path, limits=Limits(TIMED, clock=Clock(1.0)), observe=stopping_at(9))
    seen = []

    def observe(state, loss):
        seen.append(state.seconds)

    resumed = {"limits": Limits(TIMED, clock=Clock(1.0)), "observe": observe}
    state = run(TIMED, folder=tmp_path, resume=True, **resumed).state
    assert 10 < seen[0] < state.seconds <= 30
    assert state.seconds >= 0.6 * 30


def test_the_first_of_two_limits_ends_the_run():
    config = dataclasses.replace(SHORT, minutes=60.0)
    state = run(config, limits=Limits(config, clock=Clock(0.01))).state
    assert len(state.history) == 3 and "3 epochs" in state.why


def fixed(config, epochs):
    return {"limits": Limits(config, rule=lambda: FixedNumber(epochs))}


UNLIMITED = dataclasses.replace(SHORT, epochs=None)


def test_without_a_limit_the_rule_ends_the_run():
    state = run(UNLIMITED, **fixed(UNLIMITED, 3)).state
    assert state.cool_start == 3 * SHORT.steps < state.cool_end == state.step
    assert (state.stop_epoch, state.over_fitting) == (3, None)
    assert state.why == "Epoch 3 of 3."
    assert state.history[-1]["step"] == state.step


def test_the_rule_ends_a_run_before_its_limit_and_the_cool_down_still_takes_place():
    config = dataclasses.replace(SHORT, epochs=20)
    state = run(config, **fixed(config, 2)).state
    assert len(state.history) == 3 < 20 and state.stop_epoch == 2
    assert state.step == state.cool_end == 3 * SHORT.steps
    rates = [row["learning_rate"] for row in state.history]
    assert rates[2] < rates[1] == SHORT.learning_rate


def test_a_run_resumed_under_the_rule_comes_to_the_same_end(tmp_path):
    whole = run(UNLIMITED, **fixed(UNLIMITED, 3))
    with pytest.raises(KeyboardInterrupt):
        run(UNLIMITED, folder=tmp_path, observe=stopping_at(7), **fixed(UNLIMITED, 3))
    assert_same(run(UNLIMITED, folder=tmp_path, resume=True, **fixed(UNLIMITED, 3)), whole)


@pytest.mark.parametrize("limits", [{}, {"minimum": 9}])
def test_a_validation_error_that_is_not_finite_ends_the_run_with_the_last_good_weights(limits):
    task = Unlabelled([2.0, 1.0, float("nan")])
    result = run(dataclasses.replace(SHORT, epochs=20, **limits), task=task)
    assert len(result.state.history) == 3 and result.state.best_epoch == 2
    assert result.state.why == "Validation error is not finite at epoch 3."
    assert all(torch.equal(t, task.networks[1][name]) for name, t in result.network.state_dict().items())


class Failing(SegmentationCriterion):
    """Its totals are not finite any more after so many steps."""

    __slots__ = ("left",)

    def derivative(self, packed, targets, shares):
        totals, gradient = super().derivative(packed, targets, shares)
        if self.left == 0:
            return dict.fromkeys(totals, float("nan")), gradient
        object.__setattr__(self, "left", self.left - 1)
        return totals, gradient


@pytest.mark.parametrize("step", [1, 5])
def test_a_training_error_that_is_not_finite_ends_the_run_with_the_last_good_weights(step):
    task, config = task_of(), dataclasses.replace(SHORT, epochs=20)
    task.criterion = Failing()
    object.__setattr__(task.criterion, "left", step)
    if step < SHORT.steps:
        with pytest.raises(TrainingError):
            run(config, task=task, parallel=Serial())
        return
    result = run(config, task=task, parallel=Serial())
    assert len(result.state.history) == 2 and result.state.best_epoch in (1, 2)
    assert result.state.why == "Training error is not finite any more in epoch 3."


def test_the_weights_of_the_epoch_that_is_kept_are_those_that_are_given():
    task = Unlabelled([2.0, 1.0, 9.0])
    result = run(task=task)
    assert (result.state.best_epoch, result.state.best_score) == (2, 0.1)
    weights = result.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in task.networks[1].items())
    assert any(not torch.equal(weights[name], tensor) for name, tensor in task.networks[2].items())


def test_what_is_given_is_judged_as_the_history_says(straight):
    engine = TorchBackend(straight.network)
    judgement = ValidationSet([discs(7)]).evaluate(engine, SegmentationCriterion(), Thresholds())
    row = straight.state.history[straight.state.best_epoch - 1]
    assert judgement.score == row["score"] == straight.state.best_score
    assert judgement.loss == pytest.approx(row["valid_loss"], rel=1e-6)


def test_history_is_one_plain_row_an_epoch(straight):
    rows = straight.state.history
    assert json.loads(json.dumps(rows)) == rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_a_run_that_was_varied_otherwise_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(3))
    other = dataclasses.replace(SHORT, variation=dataclasses.replace(VARIATION, gamma=0.1))
    with pytest.raises(ModelError, match="another choice of variation"):
        run(other, folder=tmp_path, resume=True)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "hinge", "lovasz_softmax", "cross_entropy+0.5*dice"])
def test_a_run_learns(loss):
    config = dataclasses.replace(SHORT, loss=loss, epochs=8, samples=80, learning_rate=5e-2)
    rows = run(config).state.history
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert rows[-1]["valid_loss"] < 0.8 * rows[0]["valid_loss"]


def test_every_step_is_observed():
    seen = []
    run(observe=lambda state, loss: seen.append((state.step, loss)))
    assert [step for step, _ in seen] == list(range(1, 7))
    assert all(loss > 0 for _, loss in seen)


@pytest.mark.parametrize(("length", "expected"), [(100.0, MAX_GRADIENT_NORM), (2.0, 2.0)])
def test_only_a_long_gradient_is_clipped(length, expected):
    one, norms = trainer(), []
    parameters = list(one.network.parameters())
    count = sum(parameter.numel() for parameter in parameters)

    def backward(*_, **__):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, length / count**0.5)
        return 0.0

    def step(rate):
        norms.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm().item())

    one.backward, one.optimiser = backward, SimpleNamespace(step=step)
    one.step([])
    assert norms == [pytest.approx(expected, rel=1e-4)]


def test_a_run_is_resumed_with_the_same_loss_however_it_is_typed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(SHORT, loss="cross_entropy+0.5*dice"), folder=tmp_path, observe=stopping_at(3))
    with pytest.raises(ModelError, match="another choice of loss"):
        run(dataclasses.replace(SHORT, loss="cross_entropy+0.6*dice"), folder=tmp_path, resume=True)
    same = dataclasses.replace(SHORT, loss="1*cross_entropy + .5*dice")
    assert run(same, folder=tmp_path, resume=True).state.finished


class Behind(SingleProcess):
    """Lost a rank, and lives on beside one that is ahead: `ahead` is its trainer."""

    def __init__(self, ahead):
        self.ahead, self.size = ahead, 2

    def survivors(self):
        self.size = 1
        return self

    def all(self, value):
        state = self.ahead.state
        return [value, [state.step, len(state.history)]]

    def gather(self, rows):
        assert len(rows) == 0, "one that is behind sends nothing"
        content = encode(self.ahead.tensors(), self.ahead.state, self.ahead.identity)
        return [rows, torch.frombuffer(bytearray(content), dtype=torch.uint8)]


def test_after_the_loss_of_a_rank_one_that_is_behind_takes_the_state_of_the_furthest():
    ahead, one = trainer(), trainer()
    for _ in range(3):
        ahead.step(ahead.batches())
    one.step(one.batches())
    one.network.encoder.stem.bias.grad = torch.ones_like(one.network.encoder.stem.bias)
    one.ranks = Behind(ahead)
    one._go_on_without()
    assert one.state == ahead.state and one.state.step == 3
    assert all(torch.equal(own, ahead.tensors()[name]) for name, own in one.tensors().items())
    assert all(parameter.grad is None for parameter in one.network.parameters())
    for each in (ahead, one):
        each.ranks = SingleProcess()
        each.step(each.batches())
    assert all(torch.equal(own, ahead.tensors()[name]) for name, own in one.tensors().items())
