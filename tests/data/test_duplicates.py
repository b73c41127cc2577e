"""Images of one picture are found, whatever was done to it, and no others."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data import duplicates
from nucleate.data.duplicates import FINE, Thumbnail, near_duplicates
from nucleate.data.inspect import inspect, labelled
from nucleate.data.synthetic import fluorescence
from nucleate.io.reader import read_image
from nucleate.training.fit import load_labelled

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "bbbc038"


@pytest.fixture(scope="module")
def drawn():
    """Drawn images of different nuclei, (height, width, 1)."""
    return [fluorescence(seed=seed, height=160, width=200)[0].pixels for seed in range(6)]


def groups(*images):
    return near_duplicates([Thumbnail.of(np.atleast_3d(image)) for image in images])


def jpeg(image):
    return imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(np.ascontiguousarray(image[..., 0]), level=60))


CHANGED = {
    "the same": lambda image: image,
    "turned": lambda image: np.rot90(image),
    "mirrored and turned": lambda image: np.rot90(image[:, ::-1], 3),
    "brighter": lambda image: image * 0.4 + 60,
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "three channels": lambda image: image.repeat(3, axis=2),
    "re-encoded": jpeg,
    "half": lambda image: image.reshape(80, 2, 100, 2, 1).mean((1, 3)),
    "noisy": lambda image: image + np.random.default_rng(0).normal(0, 4, image.shape),
    "a row less": lambda image: image[1:],
}


@pytest.mark.parametrize("how", CHANGED)
def test_a_changed_copy_is_found(how, drawn):
    first, *others = drawn
    image = first if first.dtype == np.uint8 else (first / first.max() * 255).astype(np.uint8)
    assert groups(*others, image, CHANGED[how](image)) == [[5, 6]]


def test_other_images_of_one_kind_are_not(drawn):
    assert groups(*drawn) == []


def test_noise_under_one_uneven_lamp_is_not():
    y, x = np.mgrid[-1:1:200j, -1:1:260j]
    draw = np.random.default_rng(1)
    fields = [1000 * (2 - y**2 - x**2) + draw.normal(0, 20, y.shape) for _ in range(4)]
    coarse = [Thumbnail.of(np.atleast_3d(field)).coarse.ravel() for field in fields]
    assert (np.array(coarse) @ np.array(coarse).T > duplicates.ALIKE).all()  # else the detail is not what tells
    assert groups(*fields) == []


def test_what_shows_nothing_is_like_nothing():
    black = np.zeros((50, 50, 1), np.uint8)
    assert groups(black, black, black + 7, np.ones((1, 1, 1), np.uint8)) == []
    assert groups() == []


def test_blocks_are_no_matter(drawn, monkeypatch):
    many = [*drawn, *(np.rot90(image) for image in drawn), drawn[2] * 2.0]
    whole = groups(*many)
    monkeypatch.setattr(duplicates, "_BLOCK", 2)
    assert groups(*many) == whole == [[0, 6], [1, 7], [2, 8, 12], [3, 9], [4, 10], [5, 11]]


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_grids_are_the_means_of_equal_parts(height, width, seed):
    """The plain twin: as many copies of each pixel as there are cells, then the means of whole blocks."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 1), dtype=np.uint8)
    rows = pixels[..., 0].astype(float).repeat(FINE, axis=0).reshape(FINE, height, width).mean(1)
    plain = rows.repeat(FINE, axis=1).reshape(FINE, FINE, width).mean(2)
    fast = duplicates._averaged(duplicates._averaged(pixels[..., 0].astype(float), FINE).T, FINE).T
    assert np.allclose(fast, plain, atol=1e-9)


def write(folder, name, image, mask=None):
    for part, values in (("images", image), ("masks", mask)):
        if values is not None:
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", values)


@pytest.fixture
def folders(tmp_path):
    """Training: a, b, and c, which is a turned; validation: b made brighter, and d."""
    drawn = {name: fluorescence(seed=seed, height=96, width=96) for seed, name in enumerate("abd")}
    image = {name: one.pixels[..., 0] for name, (one, _) in drawn.items()}
    labels = {name: mask.astype(np.uint16) for name, (_, mask) in drawn.items()}
    train, val = tmp_path / "mine", tmp_path / "val"
    write(train, "a", image["a"], labels["a"])
    write(train, "b", image["b"], labels["b"])
    write(train, "c", np.rot90(image["a"]))
    write(val, "bright", image["b"].astype(np.float32) * 1.5 + 3, labels["b"])
    write(val, "d", image["d"], labels["d"])
    return train, val


def test_check_names_near_duplicates_and_what_validation_shares(folders):
    train, val = folders
    (found,) = inspect(train).oddities
    assert found.startswith("a, c show the same picture or nearly so")
    leak, again = inspect(train, validation=val).oddities
    assert leak.startswith("b and, for validation, bright show the same picture") and again == found


def test_training_warns_of_what_validation_shares(folders):
    train, val = folders
    warnings = load_labelled(train, val).warnings
    assert [one for one in warnings if "for validation, bright" in one]
    assert not [one for one in load_labelled(train).warnings if "validation" in one]


def test_copies_of_a_file_are_named_once(tmp_path):
    image, mask = fluorescence(seed=1, height=80, width=80)
    for name in "ab":
        write(tmp_path / "one", name, image.pixels[..., 0], mask.astype(np.uint16))
    assert inspect(tmp_path / "one").oddities == ("a, b are the same file.",)
    write(tmp_path / "two", "z", image.pixels[..., 0], mask.astype(np.uint16))
    leak, copies = inspect(tmp_path / "one", validation=tmp_path / "two").oddities
    assert leak.startswith("a, b and, for validation, z show") and copies == "a, b are the same file."
    assert labelled(tmp_path / "one").warnings == ("a, b are the same file.",)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_of_real_images_only_two_moments_of_one_embryo_are_named():
    paths = [p for split in ("val", "test") for p in sorted((REAL / "fluorescence" / split / "images").glob("*.png"))]
    paths += [REAL / "fluorescence" / "train" / "images" / "cb4df20a83b2.png"]
    found = near_duplicates([Thumbnail.of(read_image(path).pixels) for path in paths])
    assert [[paths[number].stem for number in group] for group in found] == [["20b20ab04937", "cb4df20a83b2"]]
