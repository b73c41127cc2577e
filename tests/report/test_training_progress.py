"""The live line of a run."""

import re

import pytest

from nucleate.report.training_progress import TrainingProgress
from nucleate.training.checkpoint import FILE, TrainingState
from nucleate.training.config import TrainingConfig
from nucleate.training.self_training import STAGE


def line(progress):
    task = progress.bar.tasks[0]
    return task.fields["epoch"], task.fields["text"], task.completed, task.total


def test_epochs_bar_runs_from_nothing_to_all(tmp_path):
    config = TrainingConfig(epochs=3, samples=8, batch=4)
    progress, shares = TrainingProgress(config, tmp_path), []
    for step in range(1, 7):
        progress.observe(TrainingState(step=step, seconds=2.0 * step), 1.0)
        epoch, text, completed, total = line(progress)
        assert epoch == (step + 1) // 2
        assert "2.0 images/s" in text and "loss 1.000" in text
        assert f"0:{2 * (6 - step):02d} left" in text
        shares.append(completed / total)
    assert shares == pytest.approx([step / 6 for step in range(1, 7)])


def test_minutes_bar_follows_the_clock(tmp_path):
    progress = TrainingProgress(TrainingConfig(minutes=10), tmp_path)
    progress.observe(TrainingState(step=7, seconds=150), 1.0)
    _, text, completed, total = line(progress)
    assert completed / total == pytest.approx(0.25) and "7:30 left" in text


def test_the_nearer_of_two_limits_counts(tmp_path):
    progress = TrainingProgress(TrainingConfig(minutes=1, epochs=100, samples=8, batch=4), tmp_path)
    progress.observe(TrainingState(step=2, seconds=30), 1.0)
    assert line(progress)[2] / line(progress)[3] == pytest.approx(0.5)


def test_without_a_limit_there_is_no_promise_until_the_end_is_decided(tmp_path):
    progress = TrainingProgress(TrainingConfig(), tmp_path)
    progress.observe(TrainingState(step=40, seconds=60), 1.0)
    assert "left" not in line(progress)[1] and line(progress)[3] is None
    progress.observe(TrainingState(step=60, seconds=60, cool_start=50, cool_end=80), 1.0)
    assert line(progress)[2] / line(progress)[3] == pytest.approx(0.75)
    assert "0:20 left" in line(progress)[1]


def test_loss_is_smoothed_and_the_score_is_shown(tmp_path):
    progress = TrainingProgress(TrainingConfig(epochs=9), tmp_path)
    shown = []
    for loss in [1.0, 1.0, 2.0, 2.0]:
        progress.observe(TrainingState(step=1, seconds=1), loss)
        shown.append(float(re.search(r"loss ([\d.]+)", line(progress)[1])[1]))
    assert shown[:2] == [1, 1] and 1 < shown[2] < shown[3] < 2
    assert "score" not in line(progress)[1]
    history = [{"score": 0.25, "train_loss": 1.0, "valid_loss": 1.0}]
    progress.observe(TrainingState(step=1, seconds=1, history=history, best_score=0.5), 1.0)
    assert "score 0.250 (kept 0.500)" in line(progress)[1]


def test_a_second_line_tells_the_trend_of_both_errors_and_the_gain_of_going_on(tmp_path):
    progress, state = TrainingProgress(TrainingConfig(samples=8, batch=4), tmp_path), TrainingState(seconds=1)
    for step in range(1, 21):
        state.step = step
        progress.observe(state, 1.0)
        first, *second = line(progress)[1].splitlines()
        assert "loss 1.000" in first
        if step <= 4:
            assert second == []
        elif step > 18:
            # The median slopes of the last eight of the nine epochs before, as parts of their last and lowest errors.
            assert second == ["an epoch: training error -3.2%, validation +9.1% | another may win 0.0%"]
        if step % 2 == 0:
            epoch = step // 2
            errors = {"train_loss": 2.0 - 0.1 * epoch * 0.5, "valid_loss": 1.0 + 0.1 * epoch}
            state.history.append({"epoch": epoch, "score": 0.5, **errors})
    state.cool_end, state.why = 30, "The limit of 15 epochs was reached."
    progress.observe(state, 1.0)
    assert line(progress)[1].splitlines()[1] == "cooling down: The limit of 15 epochs was reached."


@pytest.mark.parametrize("stage", ["", STAGE])
def test_interruption_says_how_to_go_on(stage, tmp_path, capsys):
    (tmp_path / stage).mkdir(exist_ok=True)
    (tmp_path / stage / FILE).touch()
    with pytest.raises(KeyboardInterrupt), TrainingProgress(TrainingConfig(epochs=1), tmp_path):
        raise KeyboardInterrupt
    captured = capsys.readouterr()
    assert "--resume" in captured.err and captured.out == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_promised_where_nothing_was_saved(tmp_path, capsys, error):
    if error is ValueError:
        (tmp_path / FILE).touch()
    with pytest.raises(error), TrainingProgress(TrainingConfig(epochs=1), tmp_path):
        raise error
    assert "--resume" not in capsys.readouterr().err


def test_nothing_goes_to_standard_output(tmp_path, capsys):
    with TrainingProgress(TrainingConfig(epochs=1), tmp_path) as progress:
        progress.observe(TrainingState(step=1, seconds=1), 1.0)
    assert capsys.readouterr().out == ""


def test_lines_tell_the_start_each_part_and_the_end_where_there_is_no_terminal(tmp_path, capsys):
    with TrainingProgress(TrainingConfig(epochs=1, minutes=2), tmp_path) as progress:
        progress.phase("reading the images")
        progress.phase("training on 1 labelled image with 3 nuclei")
        for part in ("choosing thresholds", "comparing engines"):
            progress.phase(part)
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "training on 1 labelled image with 3 nuclei, for 2 min or 1 epoch at most",
        "choosing thresholds",
        "comparing engines",
    ]


def test_a_beat_tells_epoch_loss_score_and_time_left(tmp_path):
    progress = TrainingProgress(TrainingConfig(minutes=10), tmp_path)
    history = [{"score": 0.25, "train_loss": 1.0, "valid_loss": 1.0}]
    progress.observe(TrainingState(step=7, seconds=150, history=history, best_score=0.5), 1.0)
    assert re.fullmatch(
        r"epoch 1 \| loss 1\.000 \| [\d.]+ images/s \| score 0\.250 \(kept 0\.500\) \| 7:30 left", progress.text
    )


def test_no_time_is_left_is_never_said(tmp_path):
    """The last step is followed by a validation, thresholds and engines, which are parts of their own."""
    config = TrainingConfig(epochs=1, samples=8, batch=4)
    progress = TrainingProgress(config, tmp_path)
    for step in (1, 2):
        progress.observe(TrainingState(step=step, seconds=step, cool_end=2), 1.0)
    assert "left" not in line(progress)[1] and "judging the last epoch" in line(progress)[1]
    progress.phase("choosing thresholds")
    assert line(progress)[1] == "choosing thresholds" and line(progress)[3] is None


def test_an_unlimited_run_says_how_it_ends_and_what_such_runs_took(tmp_path, capsys):
    with TrainingProgress(TrainingConfig(), tmp_path) as progress:
        progress.phase("training on 5 labelled images with 90 nuclei")
    said = capsys.readouterr().err
    assert "ends by itself" in said and "8 minutes with 5 images" in said and "--minutes" in said
