"""The front door in Python: arrays of every kind and paths give the same nuclei; wrong input is one sentence."""

import subprocess
import sys
import tempfile

import dask.array
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import zarr

import nucleate
from nucleate.data.synthetic import fluorescence, tissue, write_folder
from nucleate.errors import ImageError, InputError, ModelError


@pytest.fixture(scope="module")
def model():
    return nucleate.load("fluorescence", engine="torch")


@pytest.fixture(scope="module")
def drawn():
    image, truth = fluorescence(3, 150, 170)
    return image.pixels[..., 0], truth


@pytest.fixture(scope="module")
def expected(model, drawn):
    return model.segment(drawn[0], entropy=True)


def same(found, expected):
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels, expected.labels)
    columns = [name for name in found.table.dtype.names if name in expected.table.dtype.names]
    assert len(columns) > 6
    assert found.table[columns].tolist() == expected.table[columns].tolist()


class Foreign:
    """An array of a library that nobody knows."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


KINDS = {
    "rows": lambda a: a[..., None],
    "channel first": lambda a: a[None],
    "list": lambda a: a.tolist(),
    "torch": torch.from_numpy,
    "torch with a gradient": lambda a: torch.from_numpy(a).float().requires_grad_(),
    "torch, half": lambda a: torch.from_numpy(a).bfloat16(),
    "dask": lambda a: dask.array.from_array(a, chunks=(40, 50)),
    "zarr": lambda a: zarr.array(a, chunks=(64, 64)),
    "__array__": Foreign,
    "not contiguous": lambda a: np.asfortranarray(np.repeat(a, 2, axis=1))[:, ::2],
    "int64": lambda a: a.astype(np.int64),
    "uint16": lambda a: a.astype(np.uint16),
    "float64": lambda a: a.astype(np.float64),
    "big-endian": lambda a: a.astype(">u2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array_gives_the_same_nuclei(model, drawn, expected, kind):
    options = {"channel_axis": 0} if kind == "channel first" else {}
    same(model.segment(KINDS[kind](drawn[0]), **options), expected)


def test_a_path_gives_the_nuclei_of_its_array(model, drawn, expected, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", drawn[0])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(drawn[0]))
    same(model.segment(tmp_path / "a.tif"), expected)
    same(model.segment(str(tmp_path / "a.png")), expected)


def test_the_table_and_the_labels_tell_the_same(expected):
    table, labels = expected.table, expected.labels
    assert table.dtype.names == ("id", "y", "x", "area", "diameter", "mean_intensity", "score", "entropy")
    assert len(table) == len(expected) == labels.max() > 5
    assert table["id"].tolist() == list(range(1, len(table) + 1))
    assert table["area"].tolist() == np.bincount(labels.ravel())[1:].tolist()
    for row in table:
        y, x = np.nonzero(labels == row["id"])
        assert (row["y"], row["x"]) == pytest.approx((y.mean(), x.mean()), abs=1e-3)
        assert row["entropy"] == pytest.approx(expected.entropy[y, x].mean(), abs=1e-3)
    assert expected.entropy.dtype == np.float32 and expected.entropy.shape == labels.shape == expected.shape


def test_entropy_only_where_it_is_asked_for(model, drawn):
    found = model.segment(drawn[0])
    assert found.entropy is None and "entropy" not in found.table.dtype.names


def test_a_region_is_the_whole_cut_out(model, drawn, expected):
    found = model.segment(drawn[0], region=(20, 30, 90, 100))
    assert found.shape == (90, 100)
    np.testing.assert_array_equal(found.labels > 0, expected.labels[20:110, 30:130] > 0)
    np.testing.assert_array_equal(found.read(5, 6, 7, 8), found.labels[5:12, 6:14])


def test_a_large_image_is_segmented_in_parts_and_its_folder_goes_with_the_result(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small = nucleate.load("fluorescence", engine="torch")
    small.predictor.side = 320
    image = np.tile(drawn[0], (4, 3))
    asked = []

    class Watched:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, place):
            part = image[place]
            asked.append(part.size)
            return part

    shares = []
    found = small.segment(Watched(), tile=256, observe=shares.append)
    # The statistics of so small an image are read in one go; the network sees parts.
    assert sum(size < image.size for size in asked) > 10 and shares[-1] == 1.0 and shares == sorted(shares)
    same(found, small.segment(image, tile=100))
    assert len(list(tmp_path.iterdir())) == 1
    del found
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        small.segment(image, observe=lambda share: 1 // 0)
    assert list(tmp_path.iterdir()) == []


def test_a_constant_image_has_no_nuclei(model):
    found = model.segment(np.full((40, 50), 7, np.uint8))
    assert len(found) == 0 and not found.labels.any() and found.table.shape == (0,)


def test_a_file_without_nuclei_has_a_note_that_says_why(model, tmp_path):
    path = tmp_path / "bright.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(200, 210, (64, 64), np.uint8), compression="zlib")
    result = model.segment(path)
    assert not len(result) and "no nucleus was found." in result.notes[0]


def test_colours_and_channels(model, drawn, expected):
    grey = np.stack([drawn[0]] * 3, axis=2)
    np.testing.assert_array_equal(model.segment(grey).labels, expected.labels)
    two = np.stack([np.zeros_like(drawn[0]), drawn[0]])
    same(model.segment(two, channel_axis=0, channel=2), expected)
    same(model.segment(two, channel_axis=0, channel="channel 2"), expected)
    stained, _ = tissue(1, 90, 100)
    assert nucleate.load("brightfield", engine="torch").segment(stained.pixels).shape == (90, 100)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros(5), {}, r"has 1 axes \(shape \(5,\)\): give one image"),
        (np.zeros((1, 2, 3, 4, 5)), {}, r"has 5 axes"),
        (np.zeros((0, 5)), {}, "has no pixels"),
        (np.array([[0.0, np.nan]]), {}, "The array holds 1 values that are NaN"),
        (np.array([[0.0, np.inf, np.inf]]), {}, "The array holds 1 values|The array holds 2 values"),
        (np.array([["a", "b"]]), {}, "The array has pixels of type"),
        (np.zeros((4, 5), complex), {}, "The array has pixels of type complex"),
        ([[1, 2], [3]], {}, "is no array"),
        (np.zeros((2, 30, 40), np.uint8), {}, r"has 40 channels and 2 x 30 pixels, .* needs 1: name the axis"),
        (np.zeros((30, 40, 4), np.uint8), {}, "has 4 channels and 30 x 40 pixels"),
        (np.zeros((30, 40), np.uint8), {"channel_axis": 0}, "channel_axis=0 does not fit"),
        (np.zeros((30, 40, 2), np.uint8), {"channel_axis": 3}, "channel_axis=3 does not fit"),
        (np.zeros((30, 40, 2), np.uint8), {"channel": 3}, "has no channel"),
        (np.zeros((30, 40), np.uint8), {"level": 1}, "an array has no pyramid"),
        (np.zeros((30, 40), np.uint8), {"region": (0, 0, 31, 40)}, "reaches out of"),
        (np.zeros((30, 40), np.uint8), {"region": (-1, 0, 3, 4)}, "region"),
        (np.zeros((30, 40), np.uint8), {"pixel_size": 0.0}, "pixel-size"),
    ],
    ids=lambda value: None if isinstance(value, np.ndarray) else str(value)[:40],
)
def test_what_cannot_be_used_is_one_sentence(model, array, options, message):
    with pytest.raises((ImageError, InputError), match=message) as refused:
        model.segment(array, **options)
    assert "\n" not in str(refused.value)


def test_a_channel_axis_is_for_arrays(model, tmp_path):
    with pytest.raises(InputError, match="channel_axis is for arrays"):
        model.segment(tmp_path / "a.tif", channel_axis=0)
    with pytest.raises(ImageError, match="does not exist"):
        model.segment(tmp_path / "a.tif")


def test_a_result_does_not_hold_what_lies_outside(expected):
    for place in ((0, 0, 151, 3), (-1, 0, 3, 3), (0, 0, 0, 3)):
        with pytest.raises(InputError, match="does not hold"):
            expected.read(*place)


def test_load_refuses_what_is_not_there():
    with pytest.raises(ModelError, match="There is no model nowhere"):
        nucleate.load("nowhere")
    with pytest.raises(InputError, match="no --engine tensorrt"):
        nucleate.load("fluorescence", engine="tensorrt")
    with pytest.raises(InputError, match="number_format is 'int4': choose one of auto, float32, bfloat16"):
        nucleate.load("fluorescence", number_format="int4")


def test_train_and_evaluate(tmp_path):
    write_folder(tmp_path / "cells", "fluorescence", 2, 5, height=96, width=96)
    steps = []
    model = nucleate.train(
        tmp_path / "cells", tmp_path / "model", minutes=0.05, observe=lambda state, loss: steps.append(loss)
    )
    assert steps and model.manifest.training.steps == len(steps)
    assert {"model.json", "weights.safetensors", "README.md", "curves.png", "history.jsonl"} <= {
        path.name for path in (tmp_path / "model").iterdir()
    }
    image, truth = fluorescence(9, 96, 96)
    found = model.segment(image.pixels)
    scores = nucleate.evaluate(found.labels, truth).scores
    assert 0 <= scores.panoptic_quality <= 1 and scores.n_true == truth.max()
    assert nucleate.evaluate(truth, truth).scores.panoptic_quality == 1


def test_importing_the_package_loads_no_torch_and_its_names_are_there():
    script = "import sys, nucleate; assert 'torch' not in sys.modules; print(*dir(nucleate)); nucleate.load"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(nucleate.__all__) <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="has no attribute 'segment'"):
        nucleate.segment  # noqa: B018
    assert repr(nucleate.load("fluorescence", engine="torch")) == "<Segmenter fluorescence: channels grey; torch>"
