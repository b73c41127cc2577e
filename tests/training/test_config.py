"""When a run ends: decisions that follow from its state alone."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.errors import InputError
from nucleate.training.checkpoint import TrainingState
from nucleate.training.config import Limits, TrainingConfig

CONFIG = TrainingConfig(samples=8, batch=4, cool_down=0.5)


def test_up_to_a_limit_the_epochs_are_paid_for():
    """Gains far below the price of an epoch end a run without limits, and not one that has its time."""
    slow = [(1 + 0.01 * (t % 2), 1 - 1e-5 * t, 1e-5 * t - 1) for t in range(30)]
    stops = {}
    for name, limits in {"none": {}, "epochs": {"epochs": 50}, "minutes": {"minutes": 9.0}}.items():
        stopping = Limits(TrainingConfig(**limits)).stopping()
        stops[name] = [stopping.update(*row).stop for row in slow]
    assert any(stops["none"]) and not any(stops["epochs"]) and not any(stops["minutes"])
    stopping = Limits(TrainingConfig(epochs=50, minimum=20)).stopping()
    assert [stopping.update(1, 1 + t, -1 - t).stop for t in range(20)] == [False] * 19 + [True]


def test_over_fitting_is_noted_from_the_epoch_of_lowest_validation_error():
    errors = [{"train_loss": 1 / t, "valid_loss": 1 / t + 0.004 * t} for t in range(1, 40)]
    state = TrainingState(step=39 * CONFIG.steps)
    state.history = [row | {"score": 0.01 * t} for t, row in enumerate(errors)]
    Limits(CONFIG).ask_rule(state)
    assert state.stop_epoch is None  # the score still rises
    state.history = [row | {"score": 0.5} for row in errors]
    Limits(CONFIG).ask_rule(state)
    assert state.over_fitting == 16 and state.stop_epoch == 39
    assert state.why.startswith("Validation error has not fallen since epoch 16 while training error fell")
    assert state.why.endswith("over-fitting began.")
    assert state.cool_end - state.cool_start == round(CONFIG.cool_down * 39 * CONFIG.steps)
    decided = dataclasses.replace(state)
    Limits(CONFIG).ask_rule(state)
    assert state == decided  # what is decided stays


@settings(deadline=None)
@given(epochs=st.integers(1, 60), cool_down=st.floats(0, 1), samples=st.integers(1, 40))
def test_a_limit_of_epochs_is_kept_to_the_step(epochs, cool_down, samples):
    config = TrainingConfig(epochs=epochs, cool_down=cool_down, samples=samples, batch=1)
    state, limits = TrainingState(), Limits(config)
    while not state.finished:
        limits.plan_end(state)
        state.step += 1
    assert state.step == epochs * samples
    assert state.cool_end - state.cool_start == max(1, min(round(cool_down * state.step), state.step))


@settings(deadline=None)
@given(
    minutes=st.floats(0.1, 2),
    seconds=st.lists(st.floats(0.05, 2), min_size=1, max_size=5),
    validation=st.floats(0, 1),
)
def test_a_limit_of_minutes_is_overstepped_by_no_more_than_a_step(minutes, seconds, validation):
    """However the time of a step varies: one step and one validation at most."""
    config = TrainingConfig(minutes=minutes, cool_down=0.3)
    state, limits = TrainingState(validation_seconds=validation), Limits(config)
    while not state.finished:
        limits.plan_end(state)
        state.seconds += seconds[state.step % len(seconds)]
        state.step += 1
        assert state.seconds <= 60 * minutes + 2 * max(seconds)
    assert state.why == f"The limit of {minutes:g} minutes was reached."


def test_a_stopwatch_goes_on_from_the_seconds_before():
    times = iter([100.0, 101.5, 130.0])
    elapsed = Limits(CONFIG, clock=lambda: next(times)).stopwatch(40.0)
    assert [elapsed(), elapsed()] == [41.5, 70.0]


@pytest.mark.parametrize("options", [{"batch": 0}, {"batch": 9, "samples": 8}, {"loss": "guess"}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(InputError):
        TrainingConfig(**options)


@pytest.mark.parametrize("widths", [(), (8,) * 9, (12,), (0,), (-8,), (1032,), ("8",)])
def test_widths_that_no_model_folder_can_hold_are_refused_at_once(widths):
    with pytest.raises(InputError, match="widths are"):
        TrainingConfig(widths=widths)
