"""A training run: the same whether interrupted or not, and as long as it was asked to be."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nucleate.errors import ModelError
from nucleate.networks.unet import Architecture
from nucleate.objects.grouping import Thresholds
from nucleate.prediction.engine import TorchEngine
from nucleate.tiles.augment import Source
from nucleate.tiles.sample import Variation
from nucleate.training import checkpoint, offline
from nucleate.training.offline import Settings, train
from nucleate.training.step import LOSSES, Objective
from nucleate.training.validation import Validation

SMALL = Architecture(widths=(8, 8))
SHORT = Settings(epochs=3, samples=8, batch=4, warm_up=3, cool_down=0.5, variation=Variation(crop=32))


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
    sources = [Source.of(*discs(seed)) for seed in range(2)]
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
    monkeypatch.setattr(offline, "time", Clock(tick))
    settings = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)
    state = run(settings).state
    assert 0.6 * 30 <= state.seconds <= 30
    assert "0.5 minutes" in state.why
    assert state.cool_start < state.cool_end == state.step
    assert state.history[-1]["step"] == state.step
    assert 0 < state.history[-1]["learning_rate"] < settings.learning_rate / 2


def test_a_limit_of_minutes_counts_across_interruptions(monkeypatch, tmp_path):
    monkeypatch.setattr(offline, "time", Clock(0.5))
    settings = dataclasses.replace(SHORT, epochs=None, minutes=0.5, warm_up=2)
    with pytest.raises(KeyboardInterrupt):
        run(settings, folder=tmp_path, observe=stopping_at(9))
    saved = checkpoint.read(tmp_path)[1]["state"]["seconds"]
    monkeypatch.setattr(offline, "time", Clock(0.5))
    state = run(settings, folder=tmp_path, resume=True).state
    assert 0 < saved < state.seconds <= 30
    assert state.seconds >= 0.6 * 30


def test_the_first_of_two_limits_ends_the_run(monkeypatch):
    monkeypatch.setattr(offline, "time", Clock(0.01))
    state = run(dataclasses.replace(SHORT, minutes=60.0)).state
    assert len(state.history) == 3 and "3 epochs" in state.why


def test_without_a_limit_the_rule_ends_the_run(monkeypatch):
    seen = []

    def decide(train_errors, valid_errors):
        seen.append((list(train_errors), list(valid_errors)))
        return SimpleNamespace(stop=len(seen) == 3, reason="It was enough.")

    monkeypatch.setattr(offline, "decide", decide)
    state = run(dataclasses.replace(SHORT, epochs=None)).state
    assert len(seen) == 3
    assert seen[2] == (
        [row["train_loss"] for row in state.history[:3]],
        [row["valid_loss"] for row in state.history[:3]],
    )
    assert state.cool_start == 3 * SHORT.steps < state.cool_end == state.step
    assert state.why.startswith("It was enough")
    assert state.history[-1]["step"] == state.step


def test_the_best_weights_are_those_that_are_given():
    # A validation that likes the second epoch best.
    class Partial(Validation):
        def judge(self, *arguments):
            judgement = super().judge(*arguments)
            self.epoch = getattr(self, "epoch", 0) + 1
            self.kept = getattr(self, "kept", [])
            self.kept.append({k: v.clone() for k, v in arguments[0].network.state_dict().items()})
            return SimpleNamespace(loss=judgement.loss, scores=judgement.scores, score=float(self.epoch == 2))

    validation = Partial([discs(7)])
    result = train([Source.of(*discs(0))], validation, SMALL, SHORT)
    assert (result.state.best_epoch, result.state.best_score) == (2, 1.0)
    folded = result.network.folded().state_dict()
    assert all(torch.equal(folded[name], tensor) for name, tensor in validation.kept[1].items())
    assert any(not torch.equal(folded[name], tensor) for name, tensor in validation.kept[2].items())


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


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_learns(loss):
    settings = dataclasses.replace(SHORT, loss=loss, epochs=4, samples=80, learning_rate=5e-3)
    rows = run(settings).state.history
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert rows[-1]["valid_loss"] < 0.8 * rows[0]["valid_loss"]


def test_every_step_is_observed():
    seen = []
    run(observe=lambda state, loss: seen.append((state.step, loss)))
    assert [step for step, _ in seen] == list(range(1, 7))
    assert all(loss > 0 for _, loss in seen)
