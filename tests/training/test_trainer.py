"""A training run: the same whether interrupted or not, and as long as it was asked to be."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nucleate.data.augment import AugmentationConfig, TrainingImage
from nucleate.errors import ModelError, TrainingError
from nucleate.inference.backends import TorchEngine
from nucleate.networks.unet import Architecture
from nucleate.training import checkpoint, trainer
from nucleate.training.criterion import LOSSES, Objective
from nucleate.training.stopping_rules import FixedNumber
from nucleate.training.trainer import Settings, train
from nucleate.training.validation import Validation
from nucleate.types import Thresholds

SMALL = Architecture(widths=(8, 8))
VARIATION = dataclasses.replace(AugmentationConfig.suited(2), crop=32)
SHORT = Settings(epochs=3, samples=8, batch=4, warm_up=3, cool_down=0.5, variation=VARIATION)


def discs(seed, side=48):
    """Bright discs on a dark ground: an image and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, (cy, cx) in enumerate([(10, 10), (12, 34), (34, 14), (36, 36)], start=1):
        labels[np.hypot(y - cy - rng.normal(), x - cx - rng.normal()) < rng.uniform(6, 8)] = number
    image = (labels > 0) + rng.normal(0, 0.05, labels.shape)
    return image[None].astype(np.float32), labels


def run(settings=SHORT, **options):
    sources = [TrainingImage.of(*discs(seed)) for seed in range(2)]
    return train(sources, Validation([discs(7)]), SMALL, settings, **options)


def without_times(state):
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in state.history]
    return dataclasses.replace(state, history=history, seconds=0.0)


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


def test_a_run_interrupted_before_its_first_epoch_has_nothing_to_go_on_from(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(1))
    assert not (tmp_path / checkpoint.FILE).exists()
    with pytest.raises(ModelError, match="--resume"):
        run(folder=tmp_path, resume=True)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_keeps_the_number_format_in_which_it_began(monkeypatch, tmp_path, begun):
    """Also where the trial of formats ends otherwise when the run is continued."""
    monkeypatch.setattr(trainer, "has_bfloat16", lambda where: True)
    monkeypatch.setattr(trainer, "prefers_bfloat16", lambda where: begun)
    formats, straight = [], run()
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(3))
    monkeypatch.setattr(trainer, "prefers_bfloat16", lambda where: not begun)
    engine = TorchEngine.__init__

    def spied(self, network, **options):
        engine(self, network, **options)
        formats.append(self.bfloat16)

    monkeypatch.setattr(TorchEngine, "__init__", spied)
    assert_same(run(folder=tmp_path, resume=True), straight)
    assert formats == [begun, begun], "the epochs left are judged in it as well"


def test_bfloat16_is_not_imitated_by_the_processor_that_continues_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "has_bfloat16", lambda where: True)
    monkeypatch.setattr(trainer, "prefers_bfloat16", lambda where: True)
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, observe=stopping_at(3))
    monkeypatch.setattr(trainer, "has_bfloat16", lambda where: False)
    assert run(folder=tmp_path, resume=True).state.bfloat16 is False


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
    settings = dataclasses.replace(SHORT, epochs=12, samples=4, warm_up=4, cool_down=0.5, learning_rate=1e-3)
    rates = np.array([row["learning_rate"] for row in run(settings).state.history]) / settings.learning_rate
    assert len(rates) == 12
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(rates[4:6], 1)
    # Six steps from 1 down to 0, which the step after the last one would have.
    np.testing.assert_allclose(rates[6:], [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


class Clock:
    """Each look at it takes so many seconds, so that a run's length does not depend on the machine."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def monotonic(self):
        self.now += self.tick
        return self.now


@pytest.mark.parametrize("tick", [0.2, 1.0])
def test_minutes_end_the_run_in_time_and_cooled_down(monkeypatch, tick):
    monkeypatch.setattr(trainer, "time", Clock(tick))
    settings = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)
    state = run(settings).state
    assert 0.6 * 30 <= state.seconds <= 30
    assert "0.5 minutes" in state.why
    assert state.cool_start < state.cool_end == state.step
    assert state.history[-1]["step"] == state.step
    assert 0 < state.history[-1]["learning_rate"] < settings.learning_rate / 2


@pytest.mark.parametrize("slower", [3, 30])
def test_minutes_are_kept_where_the_machine_slows_down_in_the_cool_down(monkeypatch, slower):
    clock = Clock(0.1)
    monkeypatch.setattr(trainer, "time", clock)
    rates = []

    def observe(state, loss):
        if state.cool_start is not None:
            clock.tick = 0.1 * slower
            rates.append((state.cool_end - state.step) / (state.cool_end - state.cool_start))

    settings = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)
    state = run(settings, observe=observe).state
    # At most a step and a validation too long: six looks at the clock.
    assert 0.6 * 30 <= state.seconds <= 30 + 6 * clock.tick
    assert state.step == state.cool_end and "0.5 minutes" in state.why
    assert rates == sorted(rates, reverse=True) and rates[-1] == 0


@pytest.mark.parametrize("rule", [False, True])
def test_minutes_cut_short_a_cool_down_that_something_else_began(monkeypatch, rule):
    clock = Clock(0.01)
    monkeypatch.setattr(trainer, "time", clock)
    if rule:
        monkeypatch.setattr(Settings, "rule", lambda settings: FixedNumber(20))

    def observe(state, loss):
        clock.tick = 0.01 if state.cool_start is None else 1.0

    state = run(dataclasses.replace(SHORT, epochs=40, minutes=0.5, warm_up=2), observe=observe).state
    assert state.seconds <= 30 + 6 * clock.tick
    assert state.step < 40 * SHORT.steps
    assert state.why == ("Epoch 20 of 20." if rule else "The limit of 0.5 minutes was reached.")


def test_a_limit_of_minutes_counts_across_interruptions(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer, "time", Clock(0.5))
    settings = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)
    with pytest.raises(KeyboardInterrupt):
        run(settings, folder=tmp_path, observe=stopping_at(9))
    saved = checkpoint.read(tmp_path)[1]["state"]["seconds"]
    monkeypatch.setattr(trainer, "time", Clock(0.5))
    state = run(settings, folder=tmp_path, resume=True).state
    assert 0 < saved < state.seconds <= 30
    assert state.seconds >= 0.6 * 30


def test_the_first_of_two_limits_ends_the_run(monkeypatch):
    monkeypatch.setattr(trainer, "time", Clock(0.01))
    state = run(dataclasses.replace(SHORT, minutes=60.0)).state
    assert len(state.history) == 3 and "3 epochs" in state.why


def test_without_a_limit_the_rule_ends_the_run(monkeypatch):
    monkeypatch.setattr(Settings, "rule", lambda settings: FixedNumber(3))
    state = run(dataclasses.replace(SHORT, epochs=None)).state
    assert state.cool_start == 3 * SHORT.steps < state.cool_end == state.step
    assert (state.stop_epoch, state.over_fitting) == (3, None)
    assert state.why == "Epoch 3 of 3."
    assert state.history[-1]["step"] == state.step


def test_the_rule_ends_a_run_before_its_limit_and_the_cool_down_still_takes_place(monkeypatch):
    monkeypatch.setattr(Settings, "rule", lambda settings: FixedNumber(2))
    state = run(dataclasses.replace(SHORT, epochs=20)).state
    assert len(state.history) == 3 < 20 and state.stop_epoch == 2
    assert state.step == state.cool_end == 3 * SHORT.steps
    rates = [row["learning_rate"] for row in state.history]
    assert rates[2] < rates[1] == SHORT.learning_rate


def test_up_to_a_limit_the_epochs_are_paid_for():
    """Gains far below the price of an epoch end a run without limits, and not one that has its time."""
    slow = [(1 + 0.01 * (t % 2), 1 - 1e-5 * t) for t in range(30)]
    stops = {}
    for name, limits in {"none": {}, "epochs": {"epochs": 50}, "minutes": {"minutes": 9.0}}.items():
        rule = Settings(**limits).rule()
        stops[name] = [rule.update(*errors).stop for errors in slow]
    assert any(stops["none"]) and not any(stops["epochs"]) and not any(stops["minutes"])
    rule = Settings(epochs=50, minimum=20).rule()
    assert [rule.update(1, 1 + t).stop for t in range(20)] == [False] * 19 + [True]


def test_a_run_resumed_under_the_rule_comes_to_the_same_end(monkeypatch, tmp_path):
    monkeypatch.setattr(Settings, "rule", lambda settings: FixedNumber(3))
    settings = dataclasses.replace(SHORT, epochs=None)
    whole = run(settings)
    with pytest.raises(KeyboardInterrupt):
        run(settings, folder=tmp_path, observe=stopping_at(7))
    assert_same(run(settings, folder=tmp_path, resume=True), whole)


def test_over_fitting_is_noted_from_the_epoch_of_lowest_validation_error():
    one = trainer.Run(SMALL, dataclasses.replace(SHORT, epochs=None))
    errors = [{"train_loss": 1 / t, "valid_loss": 1 / t + 0.004 * t} for t in range(1, 40)]
    one.state.step = 39 * SHORT.steps
    one.state.history = [row | {"score": 0.01 * t} for t, row in enumerate(errors)]
    one.ask()
    assert one.state.stop_epoch is None  # the score still rises
    one.state.history = [row | {"score": 0.5} for row in errors]
    one.ask()
    assert one.state.over_fitting == 16 and one.state.stop_epoch == 39
    assert one.state.why.startswith("Validation error has not fallen since epoch 16 while training error fell")
    assert one.state.why.endswith("over-fitting began.")
    assert one.state.cool_end - one.state.cool_start == round(SHORT.cool_down * 39 * SHORT.steps)


class Broken(Validation):
    """Its loss is not finite from the third epoch on, and its score the highest then."""

    def judge(self, *arguments):
        judgement = super().judge(*arguments)
        self.epoch = getattr(self, "epoch", 0) + 1
        loss = judgement.loss if self.epoch < 3 else float("nan")
        return SimpleNamespace(loss=loss, scores=judgement.scores, score=self.epoch / 10)


@pytest.mark.parametrize("limits", [{}, {"minimum": 9}])
def test_a_validation_error_that_is_not_finite_ends_the_run_with_the_last_good_weights(limits):
    result = train(
        [TrainingImage.of(*discs(0))], Broken([discs(7)]), SMALL, dataclasses.replace(SHORT, epochs=20, **limits)
    )
    assert len(result.state.history) == 3 and result.state.best_epoch == 2
    assert result.state.why == "Validation error is not finite at epoch 3."
    assert all(torch.isfinite(tensor).all() for tensor in result.network.state_dict().values())


@pytest.mark.parametrize("step", [1, 5])
def test_a_training_error_that_is_not_finite_ends_the_run_with_the_last_good_weights(monkeypatch, step):
    def backward(*arguments, **options):
        calls.append(None)
        if len(calls) > step:
            raise TrainingError("The loss is not finite any more.")
        return step_of_training(*arguments, **options)

    calls, step_of_training = [], trainer.backward
    monkeypatch.setattr(trainer, "backward", backward)
    if step < SHORT.steps:
        with pytest.raises(TrainingError):
            run(dataclasses.replace(SHORT, epochs=20))
        return
    result = run(dataclasses.replace(SHORT, epochs=20))
    assert len(result.state.history) == 2 and result.state.best_epoch in (1, 2)
    assert result.state.why == "Training error is not finite any more in epoch 3."


def test_the_weights_of_the_epoch_that_is_kept_are_those_that_are_given():
    # A validation whose error rises after the second epoch.
    class Rising(Validation):
        losses = iter([2.0, 1.0, 9.0])
        seen = ()

        def judge(self, *arguments):
            judgement = super().judge(*arguments)
            self.seen = (*self.seen, {k: v.clone() for k, v in arguments[0].network.state_dict().items()})
            return SimpleNamespace(loss=next(self.losses), scores=judgement.scores, score=len(self.seen) / 10)

    validation = Rising([discs(7)])
    result = train([TrainingImage.of(*discs(0))], validation, SMALL, SHORT)
    assert (result.state.best_epoch, result.state.best_score) == (2, 0.2)
    folded = result.network.folded().state_dict()
    assert all(torch.equal(folded[name], tensor) for name, tensor in validation.seen[1].items())
    assert any(not torch.equal(folded[name], tensor) for name, tensor in validation.seen[2].items())


def test_what_is_given_is_judged_as_the_history_says(straight):
    judgement = Validation([discs(7)]).judge(TorchEngine(straight.network), Objective(), Thresholds())
    row = straight.state.history[straight.state.best_epoch - 1]
    assert judgement.score == row["score"] == straight.state.best_score
    assert judgement.loss == pytest.approx(row["valid_loss"], rel=1e-6)


def test_history_is_one_plain_row_an_epoch(straight):
    rows = straight.state.history
    assert json.loads(json.dumps(rows)) == rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_a_run_that_was_varied_otherwise_is_not_continued(tmp_path, monkeypatch):
    settings = dataclasses.replace(SHORT, variation=None)
    with pytest.raises(KeyboardInterrupt):
        run(settings, folder=tmp_path, observe=stopping_at(3))
    monkeypatch.setattr(AugmentationConfig, "suited", classmethod(lambda cls, images: cls(crop=64)))
    with pytest.raises(ModelError, match="variation"):
        run(settings, folder=tmp_path, resume=True)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_learns(loss):
    settings = dataclasses.replace(SHORT, loss=loss, epochs=8, samples=80, learning_rate=5e-2)
    rows = run(settings).state.history
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert rows[-1]["valid_loss"] < 0.8 * rows[0]["valid_loss"]


def test_every_step_is_observed():
    seen = []
    run(observe=lambda state, loss: seen.append((state.step, loss)))
    assert [step for step, _ in seen] == list(range(1, 7))
    assert all(loss > 0 for _, loss in seen)


def test_an_unfinished_run_of_other_kernels_is_not_gone_on_with(tmp_path):
    run(folder=tmp_path)
    tensors, saved = checkpoint.read(tmp_path)
    del saved["identity"]["symmetry"]  # as versions before it wrote
    checkpoint.write(tmp_path, tensors, saved)
    with pytest.raises(ModelError, match="another choice of symmetry"):
        run(folder=tmp_path, resume=True)


@pytest.mark.parametrize(("length", "expected"), [(100.0, 8**0.5), (2.0, 2.0)])
def test_only_a_long_gradient_is_shortened(monkeypatch, length, expected):
    one, norms = trainer.Run(SMALL, SHORT), []
    parameters = list(one.network.parameters())
    count = sum(parameter.numel() for parameter in parameters)

    def backward(network, *_, **__):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, length / count**0.5)
        return 0.0

    def step(rate):
        norms.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm().item())

    monkeypatch.setattr(trainer, "backward", backward)
    monkeypatch.setattr(one.optimiser, "step", step)
    one.learn(Objective(), [])
    assert norms == [pytest.approx(expected, rel=1e-4)]
