"""Prediction by several ranks: the files of one process, byte for byte."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
from tests.inference.test_predict import domes, write_model
from tests.inference.test_slides import write_slide
from tests.ranks import mpirun, needs_mpi, open_mpi

from nucleate.inference.summary import Failed, Segmented, Skipped, from_json, to_json
from nucleate.networks import store
from nucleate.networks.embedding import statistics
from nucleate.networks.prototypes import Measured, Prototypes

pytestmark = needs_mpi
RANK = "tests/inference/rank_predict.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that knows how far images lie from those of its training."""
    folder = write_model(tmp_path_factory.mktemp("model"))
    before = store.read(folder)
    size = statistics(before.manifest.architecture.widths)
    zeros, ones = np.zeros((1, size), np.float32), np.ones(size, np.float32)
    content = Prototypes(zeros, zeros[0], ones, Measured(9, 9, 9, 0.05)).encoded()
    manifest = before.manifest.model_copy(update={"prototypes_sha256": hashlib.sha256(content).hexdigest()})
    weights = (folder / store.WEIGHTS).read_bytes()
    store.write(folder, manifest, weights, store.read_history(folder), {store.PROTOTYPES: content})
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five small images, one that is cut, and a slide of 300 x 400 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(5):
        places = [(y, x, 8 + number % 3) for y in (20, 60) for x in (15 + 2 * number, 50)]
        tifffile.imwrite(folder / f"small{number}.tif", domes(places, (80, 70 + number))[0][..., 0])
    (folder / "cut.tif").write_bytes((folder / "small0.tif").read_bytes()[:40])
    write_slide(folder / "slide.tif")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(count, *command, **options):
    return mpirun(count, [RANK, *command], **options)


@pytest.fixture(scope="module")
def expected(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    done = run(1, model, images, out)
    assert done.returncode == 0 and done.stdout.split() == ["7", "130", "1"], done.stderr
    found = contents(out)
    assert all(json.loads(found[f"{name}.json"])["novelty"] > 0 for name in ("small0", "small4", "slide"))
    return found


def test_the_files_are_those_of_one_process(model, images, expected, tmp_path):
    count = 3
    done = run(count, model, images, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    # The launcher may mix what ranks print at the same moment.
    assert sorted(done.stdout) == sorted("7 130 1\n" * count)
    found = contents(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_what_was_interrupted_is_resumed_by_another_number_of_ranks(model, images, expected, tmp_path):
    out = tmp_path / "out"
    assert run(2, model, images, out, "--stop", "slide").returncode != 0
    assert run(3, model, images, out, "--resume").returncode == 0
    assert contents(out) == expected


@pytest.mark.skipif(not open_mpi(), reason="only Open MPI goes on when a rank ended")
@pytest.mark.parametrize(("victim", "moment"), [(1, "slide"), (0, "writing")])
def test_with_ulfm_the_others_do_the_work_of_one_that_ended(victim, moment, model, images, expected, tmp_path):
    done = run(3, model, images, tmp_path / "out", "--kill", str(victim), moment, options=["--with-ft", "ulfm"])
    assert done.stdout.splitlines() == ["7 130 1"] * 2 and "going on with 2" in done.stderr, done.stderr
    assert contents(tmp_path / "out") == expected


def test_results_are_sent_whole():
    for result in (Failed("why"), Skipped(3, 0.5), Segmented(3, 0.5, 1, ("a",), ("b", "c"), ())):
        assert from_json(json.loads(json.dumps(to_json(result)))) == result


def test_images_are_not_alike(images):
    shapes = {tifffile.imread(path).shape for path in images.glob("small*.tif")}
    assert len(shapes) == 5 and np.ptp(tifffile.imread(images / "slide.tif")) > 0
