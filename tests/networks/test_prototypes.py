"""Prototypes: chosen as the plain rule says, the same from run to run, refused where altered."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nucleate.errors import ModelError
from nucleate.networks import store
from nucleate.networks.prototypes import FEWEST, KEPT, Measured, Prototypes, k_centre, standardised

POINTS = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(-20, 20))


def away(one, other):
    return float(np.sqrt(np.mean((np.asarray(one) - other) ** 2)))


def plain(points, count, covered, weights):
    """The rule in words: each time the point whose distance to all chosen, times its weight, is the largest."""
    chosen, far = [], []
    if not len(covered):
        middle = [away(one, points.mean(0)) for one in points]
        chosen, far = [middle.index(min(middle))], [0.0]
    while len(chosen) < count:
        taken = [*covered, *(points[i] for i in chosen)]
        nearest = [min(away(one, other) for other in taken) for one in points]
        value = [d * w for d, w in zip(nearest, weights, strict=True)]
        best = value.index(max(value))
        if not nearest[best]:
            break
        chosen.append(best)
        far.append(nearest[best])
    return chosen, far


@given(POINTS, st.integers(1, 15), st.data())
def test_k_centre_is_the_plain_rule(points, count, data):
    size = points.shape[1]
    covered = data.draw(arrays(np.float64, (data.draw(st.integers(0, 3)), size), elements=st.integers(-20, 20)))
    weights = data.draw(arrays(np.float64, len(points), elements=st.integers(1, 5)))
    chosen, far = k_centre(points, count, covered, weights)
    expected, distances = plain(points, count, covered, weights)
    assert chosen == expected and np.allclose(far, distances)
    assert len(set(chosen)) == len(chosen) <= count


@given(POINTS)
def test_all_chosen_cover_all(points):
    chosen, far = k_centre(points, len(points))
    assert len({tuple(point) for point in points}) == len(chosen)
    assert far[1:] == sorted(far[1:], reverse=True)


@given(POINTS)
def test_standardised_points_can_be_given_back(points):
    scaled, mean, spread = standardised(points)
    assert (spread > 0).all() and np.isfinite(scaled).all()
    assert np.allclose(scaled * spread + mean, points, atol=1e-4)


def images(number, seed=0, size=6, tiles=2):
    draw = np.random.default_rng(seed)
    return [draw.normal(3, 2, (tiles, size)).astype(np.float32) for _ in range(number)]


def test_few_images_give_no_threshold_and_say_so():
    few, enough = Prototypes.of(images(FEWEST - 1)), Prototypes.of(images(FEWEST))
    assert few.measured.threshold is None and few.novelty(images(1)[0]) is None
    assert few.measured.sentence().startswith("No image is named")
    assert enough.measured.threshold > 0 and "few" in enough.measured.sentence()
    assert "few" not in Prototypes.of(images(40)).measured.sentence()
    assert Prototypes.of([]) is None and Prototypes.of([np.zeros((0, 6), np.float32)] * 9) is None


def test_images_that_are_all_the_same_give_no_threshold():
    found = Prototypes.of([images(1)[0]] * 8)
    assert len(found.points) == 2 and found.measured.threshold is None


def test_about_as_many_images_are_named_as_the_quantile_says():
    found = Prototypes.of(images(300))
    assert len(found.points) == KEPT and found.measured == Measured(300, 600, 300, found.measured.threshold)
    named = np.mean([found.novelty(one) > 1 for one in images(400, seed=1)])
    assert named <= 0.05
    assert all(found.novelty(one + 30) > 1 for one in images(20, seed=2))


def test_a_distance_is_the_median_over_tiles():
    found = Prototypes(
        np.zeros((1, 4), np.float32), np.ones(4, np.float32), np.full(4, 2, np.float32), Measured(9, 9, 9, 0.5)
    )
    assert found.distance(np.array([[1] * 4, [3] * 4, [21] * 4], np.float32)) == 1
    assert found.novelty(np.array([[3] * 4], np.float32)) == 2
    assert found.novelty(np.zeros((0, 4), np.float32)) is None


def test_a_file_gives_them_back_and_is_the_same_each_time():
    found = Prototypes.of(images(30))
    content = found.encoded()
    assert all(Prototypes.of(images(30)).encoded() == content for _ in range(4))
    again, half = Prototypes.decoded(content), Prototypes.decoded(found.encoded(half=True))
    assert again.measured == half.measured == found.measured and np.array_equal(again.points, found.points)
    assert np.allclose(half.points, found.points, atol=5e-3) and np.array_equal(half.mean, found.mean)


@pytest.fixture
def folder(tmp_path):
    source = store.locate("fluorescence")
    for name in (store.WEIGHTS, store.MANIFEST, store.HISTORY, store.PROTOTYPES):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    return tmp_path


def described(folder, content):
    """Put a file in the place of the prototypes, with its checksum in the manifest."""
    (folder / store.PROTOTYPES).write_bytes(content)
    manifest = json.loads((folder / store.MANIFEST).read_text())
    manifest["prototypes_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / store.MANIFEST).write_text(json.dumps(manifest))


def test_a_model_of_before_has_none(folder):
    manifest = json.loads((folder / store.MANIFEST).read_text())
    del manifest["prototypes_sha256"]
    (folder / store.MANIFEST).write_text(json.dumps(manifest))
    (folder / store.PROTOTYPES).unlink()
    assert store.read(folder).prototypes is None


def test_a_file_that_was_altered_or_is_missing_is_named(folder):
    path = folder / store.PROTOTYPES
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"prototypes.safetensors is not the file that model.json describes"):
        store.read(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"prototypes.safetensors is missing"):
        store.read(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0\0\0\0\0\0\0{}      ",
        Prototypes.of(images(30)).encoded(),  # of another network
        Prototypes(
            *(np.full((1, 200), np.nan, np.float32), *np.ones((2, 200), np.float32)), Measured(1, 1, 0, None)
        ).encoded(),
        Prototypes(
            *(np.ones((1, 200), np.float32), *np.zeros((2, 200), np.float32)), Measured(1, 1, 0, None)
        ).encoded(),
        Prototypes(*(np.ones((1, 200), np.float32), *np.ones((2, 200), np.float32)), Measured(1, 0, 0, -1.0)).encoded(),
    ],
    ids=["empty", "nothing", "other widths", "no numbers", "no spread", "no threshold"],
)
def test_a_file_of_something_else_is_named(folder, content):
    described(folder, content)
    with pytest.raises(ModelError, match="does not fit the architecture"):
        store.read(folder)
