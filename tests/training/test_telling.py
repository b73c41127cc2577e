"""What the card and the report of a model say of its corrections."""

import dataclasses

import pytest
from tests.training.online_models import SMALL, drawn, small_model, unknown

from nucleate.networks import store
from nucleate.networks.manifest import CorrectionsPart
from nucleate.report.card import card
from nucleate.report.collect import Report
from nucleate.report.html import page
from nucleate.training import online, telling
from nucleate.training.journal import Update
from nucleate.training.online import OnlineLearner
from nucleate.training.telling import section, with_part


def files(folder):
    return [(folder / name).read_bytes() for name in (store.CARD, store.REPORT)]


@pytest.fixture
def model(tmp_path):
    folder = small_model(tmp_path / "model")
    (folder / store.CARD).write_text(card(store.read_manifest(folder), folder))
    (folder / store.REPORT).write_text(page(Report(title="small", summary="It finds nothing.")))
    return folder


def learn(folder, number):
    with OnlineLearner.open(folder, SMALL) as learner:
        return learner.learn(learner.record(*drawn(number), f"tile{number}"))


def test_card_and_report_tell_of_each_update_until_it_is_undone(model):
    before = files(model)
    first = learn(model, 0)
    once, report = (one.decode() for one in files(model))
    assert once.index("## Corrections") < once.index("## Data") and report.index("</header>") > report.index("since")
    assert f"learnt 1 correction with {first.nuclei} nuclei, the last of {first.time[:10]}.\n" in once
    learn(model, 1)
    twice = (model / store.CARD).read_text()
    assert "learnt 2 corrections" in twice and twice.count("## Corrections") == 1
    assert (model / store.REPORT).read_text() == report, "written once"
    with OnlineLearner.open(model, SMALL) as learner:
        learner.undo()
    assert files(model) == before
    learn(model, 2)
    assert "learnt 1 correction " in (model / store.CARD).read_text()
    online.undo(model)
    assert files(model) == before


def test_what_a_person_wrote_stays(model):
    learn(model, 0)
    with (model / store.CARD).open("a") as file:
        file.write("My notes.\n")
    learn(model, 1)
    online.undo(model)
    assert (model / store.CARD).read_text() == card(store.read_manifest(model), model) + "My notes.\n"


def test_files_that_are_not_there_are_not_made(model):
    for name in (store.CARD, store.REPORT):
        (model / name).unlink()
    learn(model, 0)
    online.undo(model)
    assert not (model / store.CARD).exists() and not (model / store.REPORT).exists()


@pytest.mark.parametrize("undone", [False, True])
def test_what_a_killed_process_did_not_tell_is_told_at_the_next_start(model, monkeypatch, undone):
    before = files(model)

    def kill(*_):
        raise KeyboardInterrupt

    if undone:
        learn(model, 0)
    with OnlineLearner.open(model, SMALL) as learner:
        number = 0 if undone else learner.record(*drawn(0), "tile0")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(online, "tell", kill)
            learner.undo() if undone else learner.learn(number)
    assert (files(model) != before) == undone
    OnlineLearner.open(model, SMALL).close()
    assert (files(model) != before) != undone


PART = CorrectionsPart(
    through=3, learnt=2, taken_back=1, nuclei=42,
    weights="online/weights-0.safetensors", state="online/state-0.safetensors",
)  # fmt: skip
ONE = Update(1, "a", "2026-01-30T08:00:00+00:00", 40, 0.5, 0.75, 0.8, 0.79, False, False, 2.0, "nucleate")
TWO = dataclasses.replace(ONE, before=0.75, sentinel_before=0.79, sentinel=0.78, time="2026-02-01T09:00:00+00:00")


def test_the_scores_are_the_mean_before_and_the_sentinel_of_now():
    text = section(PART, [ONE, dataclasses.replace(ONE, before=None), TWO])
    assert "learnt 2 corrections with 42 nuclei, the last of 2026-02-01; 1 update taken back.\n" in text
    assert "0.625 on the corrected tiles, each before it was learnt; 0.780 on what the model knew, 0.800 before" in text


def test_nothing_is_said_of_scores_that_there_are_not():
    assert "corrected tiles" not in section(PART, [dataclasses.replace(ONE, before=None)])
    assert "precision" not in section(PART, [])


def test_an_update_that_learns_nothing_is_told_of(model):
    image, labels = drawn(0)
    with OnlineLearner.open(model, SMALL) as learner:
        learner.learn(learner.record(image, unknown(labels), "nothing"))
    assert "learnt 0 corrections with 0 nuclei" in (model / store.CARD).read_text()


@pytest.mark.parametrize("content", [b"", b"cells", b"# a\r\n\r\n## b\r\n", b"\xff\xfe\n## b", b"## b\n## c\n"])
def test_any_file_is_given_back(content):
    told = with_part(content, b"One.\n", b"## ")
    again = with_part(told, b"Two.\n", b"## ")
    assert telling.BEGIN + b"Two.\n" + telling.END in again and b"One." not in again
    assert with_part(again, b"", b"## ") == content
