"""A model and image files to label images and tables.

The model is made by hand: a pixel is nucleus where it is brighter than half of the image's range, and a centre where
it is brightest. So what must be found in an image of domes is known without any training.
"""

import csv
import hashlib
import math

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops

from nucleate.errors import ImageError, OutputError
from nucleate.inference.image_input import open_image
from nucleate.inference.measurements import measure
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.summary import Failed, Segmented, Skipped
from nucleate.io.formats.table import COLUMNS
from nucleate.io.label_file import read_labels
from nucleate.io.prediction_json import read_record
from nucleate.networks import store
from nucleate.networks.manifest import (
    DataPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.unet import UNIT, Architecture, UNet
from nucleate.postprocess.instances_from_maps import Candidates
from nucleate.types import Box, Image

RADIUS = 12.0


def brightness_network(gain=16.0):
    """The stem copies the four pixels of each cell, the head turns each into its own maps."""
    network = UNet(Architecture(widths=(8,))).folded()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for cell, (down, right) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            network.encoder.stem.weight[cell, 0, 1 + down, 1 + right] = 1
            for channel, weight in ((0, -gain / 2), (1, gain / 2), (2, gain)):
                network.heads.maps.weight[4 * channel + cell, cell] = weight
                network.heads.maps.bias[4 * channel + cell] = -weight / 2
            network.heads.maps.bias[20 + cell] = math.log(RADIUS / UNIT)
    return network


def manifest(weights, network, **changes):
    return Manifest(
        name="brightness",
        architecture=architecture_part(network.architecture),
        normalisation=NormalisationPart(low=1.0, high=99.8),
        thresholds=ThresholdsPart(foreground=0.5, peak_threshold=0.5, nms_radius=0.6, assign_radius=1.0, min_area=5),
        data=DataPart(
            source="by hand", labelled=0, nuclei=0, median_diameter=20, validation="none", channels=("DAPI",)
        ),
        trainings=(
            TrainingPart(
                seed=0, loss="none", epochs=0, steps=0, seconds=0, best_epoch=0, stopped="It was never begun."
            ),
        ),
        scores={},
        versions={},
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **changes,
    )


def write_model(folder):
    """The model folder of `brightness_network`."""
    network = brightness_network()
    weights = store.encode_weights(network)
    store.write(folder, manifest(weights, network), weights, [])
    return folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder, network = tmp_path_factory.mktemp("model"), brightness_network()
    weights = store.encode_weights(network)
    store.write(folder, manifest(weights, network), weights, [])
    return Predictor(store.read(folder), bfloat16=False)


def domes(places, shape=(64, 80), top=240, dtype=np.uint8):
    """Discs (y, x, radius) that are brightest in their middle, and their labels in reading order of the centres."""
    y, x = np.indices(shape)
    pixels, labels = np.full(shape, 10.0), np.zeros(shape, np.int32)
    for number, (cy, cx, radius) in enumerate(sorted(places), start=1):
        distance = np.hypot(y - cy, x - cx)
        own = distance <= radius
        pixels[own] = (top - 40 * (distance / radius) ** 2)[own]
        labels[own] = number
    return pixels.astype(dtype)[..., None], labels


PLACES = [(14, 15, 9), (16, 50, 10), (45, 30, 8), (48, 66, 7)]


def image_of(pixels, name="cells", channels=("grey",)):
    return Image(name, pixels, channels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_domes_are_found_as_drawn(predictor, dtype):
    pixels, labels = domes(PLACES, dtype=dtype)
    found = predictor.segment(image_of(pixels))
    np.testing.assert_array_equal(found.labels, labels)
    assert [row.id for row in found.nuclei] == [1, 2, 3, 4]
    for row, (cy, cx, radius) in zip(found.nuclei, sorted(PLACES), strict=True):
        assert (row.y, row.x) == (cy, cx)
        assert row.diameter == pytest.approx(2 * radius, rel=0.05)
        assert 0.9 < row.score <= 1


@settings(deadline=None, max_examples=15)
@given(factor=st.floats(0.1, 50), shift=st.floats(-100, 1000))
def test_units_of_intensity_do_not_matter(predictor, factor, shift):
    pixels, labels = domes(PLACES, dtype=np.float32)
    found = predictor.segment(image_of((factor * pixels + shift).astype(np.float32)))
    np.testing.assert_array_equal(found.labels, labels)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 6), channels=st.integers(1, 3))
def test_measures_are_those_of_regionprops(seed, count, channels):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count + 1, (12, 17)).astype(np.int32)
    labels.ravel()[:count] = np.arange(1, count + 1)
    pixels = rng.integers(0, 65536, (12, 17, channels)).astype(np.uint16)
    score = rng.random(count).astype(np.float32)
    centres = Candidates(np.argwhere(labels)[:count] * 0, score, score)
    box = Box(100, 30, 12, 17)
    own = rng.random(count) < 0.8
    rows = measure(labels, box, centres, own, pixels).rows
    labels[~np.concatenate([[True], own])[labels]] = 0
    score = score[own]
    expected = regionprops(labels, pixels)
    assert len(rows) == len(expected) == own.sum()
    for row, props, value in zip(rows, expected, score, strict=True):
        assert (row["area"], row["score"]) == (props.label * 0 + props.area, value)
        assert (row["y"] - 100, row["x"] - 30) == pytest.approx(props.centroid, abs=1e-6)
        assert row["mean"] == pytest.approx(np.mean(props.intensity_mean))
        top, left, bottom, right = props.bbox
        assert (row["top"] - 100, row["left"] - 30) == (top, left)
        assert (row["height"], row["width"]) == (bottom - top, right - left)
        assert np.isnan(row["entropy"]) and not row["bounded"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (40, 50)])
@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_hold_no_nucleus(predictor, shape, value):
    found = predictor.segment(image_of(np.full((*shape, 1), value, np.uint8)))
    assert found.labels.shape == shape and not found.labels.any() and found.nuclei == ()


def test_constant_images_hold_no_nucleus_whatever_the_network_says(tmp_path):
    network = brightness_network()
    torch.nn.init.constant_(network.heads.maps.bias[4:12], 9.0)
    weights = store.encode_weights(network)
    store.write(tmp_path, manifest(weights, network), weights, [])
    predictor = Predictor(store.read(tmp_path), min_area=0)
    assert predictor.segment(image_of(domes(PLACES)[0])).nuclei
    assert predictor.segment(image_of(np.full((30, 30, 1), 7, np.uint8))).nuclei == ()
    pink = np.broadcast_to(np.array([230, 150, 180], np.uint8), (20, 30, 3))
    assert predictor.segment(image_of(pink, channels=("red", "green", "blue"))).labels.tolist() == [[0] * 30] * 20


def test_one_bright_pixel_does_not_fail(predictor):
    pixels = np.zeros((5, 5, 1), np.uint8)
    pixels[2, 2] = 255
    assert predictor.segment(image_of(pixels)).labels.shape == (5, 5)


def test_the_smallest_area_is_respected(predictor):
    pixels, labels = domes([(14, 15, 9), (16, 50, 3)])
    areas = np.bincount(labels.ravel())[1:].tolist()
    for smallest, count in ((0, 2), (min(areas), 2), (min(areas) + 1, 1), (max(areas), 1), (max(areas) + 1, 0)):
        found = Predictor(predictor.model, min_area=smallest, bfloat16=False).segment(image_of(pixels))
        assert len(found.nuclei) == count
        assert all(row.area >= smallest for row in found.nuclei)


def test_the_channel_of_the_training_is_taken_where_it_is_there(predictor):
    pixels, labels = domes(PLACES)
    other = np.random.default_rng(0).integers(0, 255, pixels.shape).astype(np.uint8)
    both = np.concatenate([other, pixels], axis=2)
    found = predictor.segment(image_of(both, channels=("GFP", "DAPI")))
    np.testing.assert_array_equal(found.labels, labels)
    assert found.nuclei[0].mean_intensity > 150
    with pytest.raises(ImageError, match="GFP"):
        predictor.segment(image_of(both, channels=("GFP", "RFP")))


NAMES = ["plate 0", "plate 1", "plate 2"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        tifffile.imwrite(folder / f"plate {index}.tif", domes(PLACES[: index + 1])[0][..., 0])
    return sorted(folder.iterdir())


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("overlay", [False, True])
def test_files_of_a_run(predictor, images, tmp_path, overlay):
    seen = []
    request = Request(overlay=overlay)
    summary = predict(
        predictor, images, tmp_path / "a" / "out", request, observe=lambda name, share, size: seen.append((name, share))
    )
    assert summary.nuclei == {"plate 0": 1, "plate 1": 2, "plate 2": 3} and summary.failed == []
    assert [*summary.results] == NAMES and all(isinstance(one, Segmented) for one in summary.results.values())
    assert seen[:3] == [(name, 0.0) for name in NAMES] and sorted(seen[3:]) == [(name, 1.0) for name in NAMES]
    endings = ["_labels.tif", ".csv", ".json"] + ["_overlay.png"] * overlay
    assert {path.name for path in (tmp_path / "a" / "out").iterdir()} == {
        f"plate {index}{ending}" for index in range(3) for ending in endings
    }
    for index in range(3):
        labels = domes(PLACES[: index + 1])[1]
        np.testing.assert_array_equal(read_labels(tmp_path / "a" / "out" / f"plate {index}_labels.tif"), labels)
        with (tmp_path / "a" / "out" / f"plate {index}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == COLUMNS
        assert [int(row["area"]) for row in rows] == np.bincount(labels.ravel())[1:].tolist()


def test_the_same_images_give_the_same_bytes(predictor, images, tmp_path):
    for name in ("one", "two"):
        predict(predictor, images, tmp_path / name, Request(overlay=True))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_an_image_does_not_depend_on_those_beside_it(predictor, images, tmp_path):
    predict(predictor, images, tmp_path / "all")
    predict(predictor, images[1:2], tmp_path / "one")
    one = files_of(tmp_path / "one")
    assert one.items() <= files_of(tmp_path / "all").items()


def test_one_broken_image_is_named_and_the_others_are_done(predictor, images, tmp_path):
    content = images[1].read_bytes()
    images[1].write_bytes(content[: len(content) // 2])
    seen = []
    summary = predict(predictor, images, tmp_path / "out", observe=lambda name, share, size: seen.append((name, share)))
    assert summary.nuclei == {"plate 0": 1, "plate 2": 3}
    (sentence,) = summary.failed
    assert str(images[1]) in sentence and summary.results["plate 1"] == Failed(sentence)
    assert sorted(seen[3:]) == [(name, 1.0) for name in NAMES] and [*summary.results] == NAMES
    assert not list((tmp_path / "out").glob("plate 1*"))


def test_a_file_in_the_way_is_an_output_error(predictor, images, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OutputError, match="taken"):
            predict(predictor, images, out)
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_output_that_cannot_be_written_ends_the_run(predictor, images, tmp_path):
    (tmp_path / "out" / "plate 0.csv" / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"plate 0\.csv cannot be written"):
        predict(predictor, images, tmp_path / "out", Request(overwrite=True))
    # Images that were in work at the same time may be done; nothing is left half written.
    assert {path.suffix for path in (tmp_path / "out").iterdir()} - {".json", ".work"} == {".tif", ".csv"}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_images_at_once_give_the_files_of_one_after_the_other(predictor, images, tmp_path, threads, count):
    threads(1)
    seen = [[], []]
    expected = predict(
        predictor, images, tmp_path / "expected", observe=lambda name, share, size: seen[0].append((name, share))
    )
    threads(count)
    found = predict(
        predictor, images, tmp_path / "found", observe=lambda name, share, size: seen[1].append((name, share))
    )
    assert found == expected
    assert sorted(seen[0]) == sorted(seen[1]) and len(seen[0]) == 6
    assert files_of(tmp_path / "found") == files_of(tmp_path / "expected")
    assert torch.get_num_threads() == count


def test_the_number_of_threads_is_given_back_after_an_error(predictor, images, tmp_path, threads):
    (tmp_path / "out" / "plate 0.csv" / "in the way").mkdir(parents=True)
    threads(2)
    with pytest.raises(OutputError):
        predict(predictor, images, tmp_path / "out", Request(overwrite=True))
    assert torch.get_num_threads() == 2


def test_nothing_to_do(predictor, tmp_path):
    summary = predict(predictor, [], tmp_path / "out")
    assert summary.nuclei == {} and summary.failed == []


def test_the_record_says_with_what_an_image_was_segmented(predictor, images, tmp_path):
    predict(predictor, images, tmp_path / "out")
    environment = read_record(tmp_path / "out" / "plate 0.json").environment
    assert (environment.engine, environment.number_format) == ("torch", "float32")
    assert environment.versions.keys() >= {"nucleate", "torch", "numpy"}
    assert environment.versions["numpy"] == np.__version__


def test_what_was_segmented_with_another_engine_or_format_is_not_kept(predictor, images, tmp_path):
    out, again = tmp_path / "out", Request(resume=True)
    predict(predictor, images, out)
    assert all(isinstance(one, Skipped) for one in predict(predictor, images, out, again).results.values())
    for changes in ({"bfloat16": True}, {"bfloat16": False, "tta": 2}):
        other = Predictor(predictor.model, **changes)
        assert all(isinstance(one, Segmented) for one in predict(other, images, out, again).results.values())
        assert predict(other, images, out, again).nuclei == {"plate 0": 1, "plate 1": 2, "plate 2": 3}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_image_is_opened_once_and_few_at_a_time(predictor, images, tmp_path, threads, monkeypatch, count):
    """Of small images and large ones in turn."""
    opened, closed, most = [], [], 0

    def counting(path, selection, series):
        nonlocal most
        image = open_image(path, selection, series)
        opened.append(path)
        most = max(most, len(opened) - len(closed))
        close = image.reader.close
        image.reader.close = lambda: (closed.append(path), close())
        return image

    pixels = domes(PLACES)[0][..., 0]
    for number in range(12):
        large = number % 3 == 0
        tifffile.imwrite(images[0].parent / f"mixed {number:02}.tif", np.tile(pixels, (3, 3)) if large else pixels)
    threads(count)
    monkeypatch.setattr("nucleate.inference.run.open_image", counting)
    mixed = sorted(images[0].parent.glob("mixed*"))
    summary = predict(Predictor(predictor.model, bfloat16=False, side=96), mixed, tmp_path / "out")
    assert [*summary.results] == [path.stem for path in mixed] and summary.failed == []
    assert [one.count for one in summary.results.values()] == [36, 4, 4] * 4
    assert sorted(opened) == sorted(closed) == mixed and most <= count + 2
