"""Drawn images: the same seed gives the same bytes, every mask is valid, and the images look as their style says."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucleate.data.synthetic.microscopy import STYLES, fluorescence, tissue, write_folder
from nucleate.data.synthetic.shapes import SMALLEST_AREA
from nucleate.errors import InputError

styles = st.sampled_from(sorted(STYLES))
seeds = st.integers(0, 2**40)
sides = st.integers(32, 140)


def assert_valid(labels: np.ndarray) -> None:
    """Labels are 1..N, each one 4-connected piece of SMALLEST_AREA pixels or more."""
    assert labels.dtype == np.int32
    areas = np.bincount(labels.ravel(), minlength=2)
    assert areas[1:].min() >= SMALLEST_AREA
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[box] == number)[1] == 1


@given(styles, seeds, sides, sides)
@settings(max_examples=40, deadline=None)
def test_same_seed_same_bytes_and_valid_masks(style: str, seed: int, height: int, width: int) -> None:
    image, labels = STYLES[style](seed, height, width)
    np.random.random()  # noqa: NPY002 - moves the global generator, which must not matter
    again, labels_again = STYLES[style](seed, height, width)
    assert image.pixels.tobytes() == again.pixels.tobytes()
    assert np.array_equal(labels, labels_again)
    assert image.pixels.shape == (height, width, len(image.channels))
    assert labels.shape == (height, width)
    assert_valid(labels)


@given(styles, seeds, st.sampled_from([(64, 64), (256, 256), (700, 500)]), st.floats(10, 30))
@settings(max_examples=12, deadline=None)
def test_the_number_of_nuclei_follows_the_cover(style: str, seed: int, shape: tuple[int, int], diameter: float) -> None:
    _, labels = STYLES[style](seed, *shape, diameter=diameter, cover=0.2)
    assert_valid(labels)
    covered = np.mean(labels > 0)
    # The last nucleus may overshoot; gaps and crowding may fall short.
    largest = np.bincount(labels.ravel())[1:].max() / labels.size
    assert 0.06 < covered < 0.2 + largest + 1e-9
    mean_area = covered * labels.size / labels.max()
    if labels.max() >= 8:  # of a few, one large nucleus may be most
        assert 0.25 < mean_area / (np.pi / 4 * diameter**2) < 2


def test_different_seeds_and_styles_differ() -> None:
    drawn = {fluorescence(seed, 64, 64)[0].pixels.tobytes() for seed in (0, 1, (0, 1), (1, 0))}
    assert len(drawn) == 4


@pytest.mark.parametrize("style", sorted(STYLES))
def test_touching_nuclei_and_nuclei_cut_by_the_border_occur(style: str) -> None:
    touching = cut = 0
    for seed in range(4):
        _, labels = STYLES[style](seed)
        left, right = labels[:, :-1], labels[:, 1:]
        touches = (left != right) & (left > 0) & (right > 0)
        touching += len(set(zip(left[touches].tolist(), right[touches].tolist(), strict=True)))
        cut += len(set(labels[0]) | set(labels[-1])) - 1
    assert touching >= 8
    assert cut >= 8


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_nuclei_are_brighter_than_the_ground_in_fluorescence(seed: int) -> None:
    image, labels = fluorescence(seed)
    grey = image.pixels[..., 0].astype(float)
    ground = grey[labels == 0]
    means = ndimage.mean(grey, labels, np.arange(1, labels.max() + 1))
    assert np.mean(means) > 2 * ground.mean()
    assert means.max() / means.min() > 2  # faint and bright ones
    assert np.mean(grey == 255) < 0.005  # hardly any pixel is saturated
    assert ground.std() > 0  # a ground with noise


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_nuclei_are_darker_and_bluer_than_the_ground_in_tissue(seed: int) -> None:
    image, labels = tissue(seed)
    red, green, blue = np.moveaxis(image.pixels.astype(float), -1, 0)
    inside = labels > 0
    assert red[inside].mean() < red[~inside].mean() - 30
    assert (blue - red)[inside].mean() > (blue - red)[~inside].mean() + 10
    assert green.mean() < red.mean()  # pink and purple, never green


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_fewer_photons_are_noisier(seed: int) -> None:
    def roughness(photons: float) -> float:
        pixels = fluorescence(seed, 96, 96, photons=photons, depth=16)[0].pixels[..., 0].astype(float)
        return float(np.std(np.diff(pixels, n=2)))

    assert roughness(20) > 1.5 * roughness(2000)


def test_sixteen_bit_is_filled_as_a_twelve_bit_camera_does() -> None:
    image, _ = fluorescence(3, depth=16)
    assert image.pixels.dtype == np.uint16
    assert 2500 < image.pixels.max() <= 4095


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_written_folder_reads_back_as_drawn(style: str, tmp_path) -> None:
    samples = write_folder(tmp_path, style, count=3, seed=5, labelled=2, height=64, width=80)
    assert [sample.mask is not None for sample in samples] == [True, True, False]
    for index, sample in enumerate(samples):
        image, labels = STYLES[style]((5, index), 64, 80)
        pixels = imagecodecs.png_decode(sample.image.read_bytes())
        assert np.array_equal(pixels.reshape(image.pixels.shape), image.pixels)
        if sample.mask is not None:
            mask = imagecodecs.png_decode(sample.mask.read_bytes())
            assert mask.dtype == np.uint16
            assert np.array_equal(mask, labels)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert len(written) == 5
    assert all(path.startswith(("images/", "masks/")) for path in written)


@pytest.mark.parametrize(
    "arguments",
    [
        {"height": 31},
        {"diameter": 5.0},
        {"cover": 0.0},
        {"cover": 0.6},
        {"blur": -1.0},
        {"depth": 12},
        {"photons": 0.0},
        {"seed": -1},
        {"blur": float("nan")},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        fluorescence(**{"seed": 0, **arguments})


@pytest.mark.parametrize(("style", "labelled"), [("brightfield", None), ("tissue", 3)])
def test_a_folder_of_unknown_style_or_too_many_labels_is_refused(style: str, labelled: int | None, tmp_path) -> None:
    with pytest.raises(InputError, match="give a style"):
        write_folder(tmp_path, style, count=2, seed=0, labelled=labelled)
    assert not list(tmp_path.iterdir())
