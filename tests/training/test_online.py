"""The laws of on-line learning, in the manner of river's checks, on small models."""

import dataclasses
import shutil

import numpy as np
import pytest
import tifffile
import torch
from tests.training.online_models import SMALL, contents, drawn, small_model, unknown

from nucleate.data.inspect import labelled
from nucleate.data.normalization import normalise
from nucleate.errors import ImageError, ModelError, OutputError
from nucleate.inference.predictor import Predictor
from nucleate.networks import store
from nucleate.networks.unet import GroupConvolution
from nucleate.training import lesson, online, update
from nucleate.training.journal import JOURNAL, Journal, corrections_of
from nucleate.training.online import OnlineLearner
from nucleate.types import Box, Image


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model")


def learn(folder, *numbers, config=SMALL):
    """Learn drawn tiles, in a process that opens the folder for each."""
    for number in numbers:
        with OnlineLearner.open(folder, config) as learner:
            image, labels = drawn(number)
            learner.learn(learner.record(image, labels, f"tile{number}"))


def test_predict_has_no_effect(model):
    learn(model, 0)
    with OnlineLearner.open(model, SMALL) as learner:
        before, tensors = contents(model), {k: t.clone() for k, t in learner.state.tensors.items()}
        image = normalise(drawn(5)[0], 1)
        first, second = learner.predict(image), learner.predict(image)
        assert contents(model) == before
        assert all(torch.equal(tensors[name], one) for name, one in learner.state.tensors.items())
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].foreground, second[1].foreground)


def test_predict_is_what_the_folder_predicts(model):
    learn(model, 0, 1)
    image = drawn(5)[0]
    with OnlineLearner.open(model, SMALL) as learner:
        found = learner.predict(normalise(image, 1))[0]
    predictor = Predictor(store.read(model), engine="torch")
    np.testing.assert_array_equal(predictor.segment(image).labels > 0, found > 0)


def test_the_same_journal_gives_the_same_model(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    learn(model, 0, 1, 2)
    with OnlineLearner.open(other, SMALL) as learner:  # recorded in advance, and learnt at once
        for number in (0, 1, 2):
            learner.record(*drawn(number), f"tile{number}")
        learner.learn(3)
    assert contents(model) == contents(other)
    assert {one.number for one in Journal(other).updates()} == {1, 2, 3}


def test_the_number_of_threads_does_not_matter(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    learn(model, 0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(2, threads))
        learn(other, 0)
    finally:
        torch.set_num_threads(threads)
    assert contents(model) == contents(other)


def test_the_order_of_corrections_matters(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    learn(model, 0, 1)
    learn(other, 1, 0)
    assert contents(model) != contents(other)


def test_undo_gives_back_the_model_before_bit_for_bit(model):
    def files():
        return {one.name: one.read_bytes() for one in model.iterdir() if one.is_file()}

    before = files()
    learn(model, 0, 1)
    assert files()["model.json"] != before["model.json"]
    with OnlineLearner.open(model, SMALL) as learner:
        learner.undo()
        assert learner.waiting() == []
    assert files() == before
    assert len(list((model / "corrections").glob("*_masks.tif"))) == 2


def test_a_damaged_state_is_named_and_can_be_undone(model):
    before = (model / store.MANIFEST).read_bytes()
    learn(model, 0)
    state = model / store.read_manifest(model).corrections.state
    state.write_bytes(state.read_bytes()[:-9] + b"123456789")
    with pytest.raises(ModelError, match=r"state-0.safetensors is damaged .*: go back"):
        OnlineLearner.open(model, SMALL)
    online.undo(model)
    assert (model / store.MANIFEST).read_bytes() == before
    learn(model, 1)


def test_after_undo_the_first_correction_is_learnt_from_the_base(model, tmp_path):
    learn(model, 0)
    with OnlineLearner.open(model, SMALL) as learner:
        learner.undo()
        assert learner.catch_up() == []
        number = learner.record(*drawn(1), "again")
        assert number == 2 and learner.learn(number).number == 2
    numbers = store.read_manifest(model).corrections
    assert (numbers.through, numbers.learnt) == (2, 1)


def test_an_update_with_an_all_unknown_mask_changes_nothing(model):
    weights = model / store.WEIGHTS
    image, labels = drawn(0)
    with OnlineLearner.open(model, SMALL) as learner:
        told = learner.learn(learner.record(image, unknown(labels), "nothing"))
        assert learner.state.reservoir.seen == 0
    assert told.before is None and told.after is None and not told.taken_back
    assert (model / store.read_manifest(model).corrections.weights).read_bytes() == weights.read_bytes()
    learn(model, 1)
    one = {name: t.clone() for name, t in learner_state(model).items()}
    with OnlineLearner.open(model, SMALL) as learner:
        learner.learn(learner.record(image, unknown(labels), "nothing"))
    assert all(torch.equal(one[name], t) for name, t in learner_state(model).items())


def learner_state(folder):
    with OnlineLearner.open(folder, SMALL) as learner:
        return learner.state.tensors


def test_what_is_unknown_is_not_learnt(model, tmp_path):
    """Whatever stands in the labels of unknown pixels, the weights are the same."""
    other = shutil.copytree(model, tmp_path / "other")
    image, labels = drawn(0, side=64)
    labels[:, 32:] = -1
    different = labels.copy()
    different[:, 32:] = -7
    for folder, one in ((model, labels), (other, different)):
        with OnlineLearner.open(folder, SMALL) as learner:
            learner.learn(learner.record(image, one, "half"))
    assert contents(model) == contents(other)


def test_an_update_is_taken_back_where_too_much_is_lost(model, monkeypatch):
    learn(model, 0)
    before, weights = learner_state(model), store.read_manifest(model).weights_sha256
    scores = iter([0.2] * len(lesson.SHARES))
    monkeypatch.setattr(lesson, "sentinel_score", lambda *_: next(scores))
    with OnlineLearner.open(model, dataclasses.replace(SMALL, tolerance=0.05)) as learner:
        numbers = dataclasses.replace(learner.state.numbers, sentinel=0.9, sentinel_base=0.9)
        learner.state = dataclasses.replace(learner.state, numbers=numbers)
        told = learner.learn(learner.record(*drawn(1), "harmful"))
    assert told.taken_back and told.sentinel == told.sentinel_before == 0.9
    after = learner_state(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    manifest = store.read_manifest(model)
    assert manifest.weights_sha256 == weights and manifest.corrections.taken_back == 1
    store.read(model)


def test_of_an_update_that_costs_too_much_a_part_is_kept(model, tmp_path, monkeypatch):
    learn(model, 0)
    whole, before = shutil.copytree(model, tmp_path / "whole"), learner_state(model)
    learn(whole, 1)
    scores = iter([0.2, 0.2, 0.87])
    monkeypatch.setattr(lesson, "sentinel_score", lambda *_: next(scores))
    with OnlineLearner.open(model, dataclasses.replace(SMALL, tolerance=0.05)) as learner:
        numbers = dataclasses.replace(learner.state.numbers, sentinel=0.9, sentinel_base=0.9)
        learner.state = dataclasses.replace(learner.state, numbers=numbers)
        told = learner.learn(learner.record(*drawn(1), "costly"))
    assert not told.taken_back and told.sentinel == 0.87
    after, far = learner_state(model), learner_state(whole)
    for name in before:
        if name.startswith(("network/", "average/")):
            torch.testing.assert_close(after[name], before[name].lerp(far[name], 0.25))


def test_a_loss_that_is_not_finite_is_taken_back(model):
    wild = dataclasses.replace(SMALL, learning_rate=float("nan"))
    with OnlineLearner.open(model, wild) as learner:
        told = learner.learn(learner.record(*drawn(1), "wild"))
    assert told.taken_back
    store.read(model)


def test_a_killed_process_loses_nothing(model, tmp_path, monkeypatch):
    """Whichever write is the last that is done, the next start ends where an undisturbed run does."""
    straight = shutil.copytree(model, tmp_path / "straight")
    learn(straight, 0, 1)
    learn(model, 0)

    class Killed(BaseException):
        pass

    steps = [(online.Journal, "add"), (online, "commit"), (lesson, "improve"), (lesson, "sentinel_score")]
    for number, (where, name) in enumerate(steps):
        folder = shutil.copytree(model, tmp_path / f"killed{number}")
        opened = OnlineLearner.open(folder, SMALL)
        with monkeypatch.context() as patch, pytest.raises(Killed), opened as learner:
            correction = learner.record(*drawn(1), "tile1")

            def kill(*_, **__):
                raise Killed

            patch.setattr(where, name, kill)
            learner.learn(correction)
        store.read(folder)
        with OnlineLearner.open(folder, SMALL) as learner:
            learner.catch_up()
        assert contents(folder) == contents(straight), name
        assert [one.number for one in Journal(folder).updates()] == [1, 2]


@pytest.mark.parametrize("last", range(1, 5))
def test_a_kill_between_the_files_of_a_commit_loses_nothing(model, tmp_path, monkeypatch, last):
    straight = shutil.copytree(model, tmp_path / "straight")
    learn(straight, 0)
    from nucleate.training import learner_state as module

    done, write = [], module._write

    def some(path, content):
        if len(done) == last - 1:
            raise KeyboardInterrupt
        done.append(path)
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_write", some)
        learn(model, 0)
    store.read(model)
    assert store.read_manifest(model).corrections is None
    with OnlineLearner.open(model, SMALL) as learner:
        assert [one.number for one in learner.catch_up()] == [1]
    assert contents(model) == contents(straight)


def test_an_undo_that_was_killed_is_done_at_the_next_start(model, monkeypatch):
    before = (model / store.MANIFEST).read_bytes()
    learn(model, 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(online, "restore_base", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with OnlineLearner.open(model, SMALL) as learner:
            learner.undo()
    with OnlineLearner.open(model, SMALL) as learner:
        assert learner.waiting() == []
    assert (model / store.MANIFEST).read_bytes() == before


def test_a_line_that_was_not_ended_is_cut_off(model):
    learn(model, 0)
    with (model / JOURNAL).open("a") as file:
        file.write('{"correction": {"numb')
    learn(model, 1)
    assert [one.number for one in Journal(model).updates()] == [1, 2]


def test_a_second_process_is_refused_in_a_sentence(model):
    refused = pytest.raises(OutputError, match="is learning in another process: wait for its end")
    with OnlineLearner.open(model, SMALL), refused:
        OnlineLearner.open(model, SMALL)
    OnlineLearner.open(model, SMALL).close()


def test_cost_and_memory_of_an_update_are_bounded(model, monkeypatch):
    monkeypatch.setattr("nucleate.training.replay.CAPACITY", 3)
    sizes = []
    for number in range(4):
        learn(model, number)
        sizes.append((model / store.read_manifest(model).corrections.state).stat().st_size)
    with OnlineLearner.open(model, SMALL) as learner:
        assert len(learner.state.reservoir.kept) == 3 and learner.state.reservoir.seen == 8
        assert learner.state.numbers.steps == 4 * SMALL.steps
    assert abs(sizes[3] - sizes[2]) < 2000
    assert len(list((model / "online").glob("*.safetensors"))) == 4


def test_corrections_are_open_files_that_training_reads(model):
    image, labels = drawn(0)
    labels[:10] = -1
    with OnlineLearner.open(model, SMALL) as learner:
        learner.record(image, labels, "well A1/cells_masks")
        learner.record(*drawn(1), "plain")
    folder = corrections_of(model)
    found = labelled(folder, "labels")
    assert len(found.pairs) == 2
    read, mask = found.pairs[0]
    np.testing.assert_array_equal(read.pixels, image.pixels)
    assert (mask[:10] == -1).all()
    np.testing.assert_array_equal(mask > 0, labels > 0)
    assert tifffile.imread(sorted(folder.glob("*plain_masks.tif"))[0]).dtype == np.uint16


def test_a_tile_of_a_larger_image_is_normalised_as_the_whole(model):
    image, labels = drawn(0, side=96)
    box = Box(10, 20, 48, 40)
    with OnlineLearner.open(model, SMALL) as learner:
        number = learner.record(image, labels[10:58, 20:60], "part", box)
        pixels, known = learner.tile(number)
        window = learner.journal.standing().corrections[number].window
        tile = Image("part", image.pixels[10:58, 20:60], image.channels)
        again = learner.record(tile, labels[10:58, 20:60], "part", box, window)
        np.testing.assert_array_equal(learner.tile(again)[0], pixels)
    np.testing.assert_array_equal(pixels, normalise(image, 1)[:, 10:58, 20:60])
    assert known.shape == (48, 40) and known.max() == np.unique(known[known > 0]).size


def test_what_does_not_fit_is_refused_and_not_recorded(model):
    image, labels = drawn(0)
    with OnlineLearner.open(model, SMALL) as learner:
        with pytest.raises(ImageError, match="give both at one size"):
            learner.record(image, labels[:-1], "short")
        with pytest.raises(ModelError, match="holds no correction 1"):
            learner.learn(1)
        learner.record(image, labels, "good")
        next((model / "corrections").glob("*_masks.tif")).unlink()
        with pytest.raises(ModelError, match="put it back"):
            learner.learn(1)
        learner.undo()
        assert learner.waiting() == []


def test_a_model_of_the_package_is_never_changed():
    with pytest.raises(ModelError, match="belongs to the package"):
        OnlineLearner.open(store.locate("fluorescence"))


def test_a_model_without_crops_is_reminded_by_drawn_images(tmp_path):
    folder, said = small_model(tmp_path / "model", replay=False), []
    with OnlineLearner.open(folder, SMALL, said.append) as learner:
        assert len(learner.teacher.memory.sentinel) > 5
    assert len(said) == 1 and "drawn images take their place" in said[0]


def test_the_manifest_tells_of_the_corrections(model):
    before = store.read_manifest(model)
    learn(model, 0, 1)
    manifest = store.read_manifest(model)
    assert manifest.corrections.learnt == 2 and manifest.corrections.nuclei > 2
    assert manifest.lineage[-1].weights_sha256 == before.weights_sha256
    assert manifest.scores == {} and manifest.engines is None and manifest.prototypes_sha256 is None


def test_kernels_are_given_their_length_back(model):
    network = update.network_of(learner_state(model), "network", store.read(model).network.architecture)
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        before = network(image)
        grown = [one for one in network.modules() if isinstance(one, GroupConvolution)]
        for one in grown:
            one.weight.mul_(7.0)
        update.renormalise(network)
        assert torch.allclose(network(image), before, atol=1e-5)
    lengths = torch.cat([one.weight.flatten(1).norm(dim=1) for one in grown])
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
