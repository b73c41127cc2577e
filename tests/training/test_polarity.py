"""Nuclei that are dark where those of the training were bright: such corrections are learnt from inverted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.online_models import SMALL, contents, drawn, small_model

from nucleate.data.normalization import Statistics, between, inverted, is_inverted, normalise, percentiles
from nucleate.inference.predictor import Predictor
from nucleate.io.reader import MemoryReader
from nucleate.networks import store
from nucleate.training.online import OnlineLearner
from nucleate.training.polarity import is_opposite
from nucleate.training.replay import Memory


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


def dark(number, **more):
    """A drawn tile with dark nuclei on bright ground."""
    image, labels = drawn(number, **more)
    most = np.iinfo(image.pixels.dtype).max
    return dataclasses.replace(image, pixels=most - image.pixels), labels


def learn(learner, image, labels):
    return learner.learn(learner.record(image, labels, "tile"))


@given(st.integers(0, 255), st.integers(1, 255), st.lists(st.integers(0, 255), min_size=1, max_size=9))
def test_an_exchanged_window_inverts(low, span, values):
    pixels = np.array(values, np.uint8).reshape(1, -1, 1)
    plain, turned = between(pixels, low, low + span, 1), between(pixels, low + span, low, 1)
    inside = (plain > -1) & (plain < 2)
    np.testing.assert_allclose(turned[inside], 1 - plain[inside], atol=1e-6)
    np.testing.assert_allclose(inverted(plain)[inside], turned[inside], atol=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 4))
def test_one_of_two_levels_is_nearer(own, other, level):
    assert not (is_inverted(level, (own, other)) and is_inverted(level, (other, own)))
    assert own == other or is_inverted(other, (own, other))


def test_the_median_of_an_image_is_that_of_all_its_values():
    image = drawn(3)[0]
    found = Statistics.of(MemoryReader(image), 1)
    assert [found.low, found.median, found.high] == percentiles(image.pixels, (1, 50, 99.8)).tolist()


def test_which_tiles_are_opposite():
    usual = Memory.drawn(1).contrast
    for number in range(4):
        image, labels = drawn(number)
        assert not is_opposite((normalise(image, 1), labels), usual)
        assert is_opposite((normalise(dark(number)[0], 1), labels), usual)
        assert not is_opposite((normalise(image, 1), labels * 0), usual), "no nuclei say nothing"


def test_images_with_dark_nuclei_are_inverted_once_one_was_corrected(model):
    (image, labels), (other, _) = dark(0), dark(5)
    with OnlineLearner.open(model, dataclasses.replace(SMALL, learning_rate=0.0)) as learner:
        unseen = learner.predict(normalise(other, 1))[1].foreground
        assert learner.model.manifest.corrections is None
        learn(learner, *drawn(1))
        assert store.read_manifest(model).corrections.levels is None, "its nuclei are bright"
        learn(learner, image, labels)
        own, turned = store.read_manifest(model).corrections.levels
        assert own < 0.4 < 0.6 < turned
        found = learner.predict(normalise(other, 1))
        bright = learner.predict(inverted(normalise(other, 1)))
        np.testing.assert_allclose(found[1].foreground, bright[1].foreground, atol=1e-5)
        assert np.abs(found[1].foreground - unseen).max() > 0.01
    # Another process, a stored model and an image of any size see it likewise.
    np.testing.assert_array_equal(Predictor(store.read(model), engine="torch").segment(other).labels > 0, found[0] > 0)


def test_the_score_before_is_that_of_a_model_that_does_not_know_the_labels(model):
    image, labels = dark(0)
    with OnlineLearner.open(model, dataclasses.replace(SMALL, learning_rate=0.0)) as learner:
        number = learner.record(image, labels, "first")
        plain = learner.teacher.score(learner.serving, (learner.plain(number), labels))
        turned = learner.teacher.score(learner.serving, learner.tile(number))
        assert learner.learn(number).before == plain
        assert learn(learner, image, labels).before == turned, "it is known by now"


def test_undo_forgets_it(model):
    before = contents(model)
    with OnlineLearner.open(model, SMALL) as learner:
        learn(learner, *dark(0))
        learner.undo()
        assert learner.state.numbers.levels is None
    assert contents(model)["model.json"] == before["model.json"]
