"""The TorchScript file gives the labels of `nucleate predict`, and needs PyTorch alone."""

import dataclasses
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.test_export import small

from nucleate.data.synthetic import microscopy
from nucleate.inference import reduced, scripted, sliding_window, tiling
from nucleate.inference.export import metadata
from nucleate.inference.predictor import Predictor
from nucleate.inference.torchscript import FACTS, example, labelling, packed, planes
from nucleate.io.axes import RGB
from nucleate.io.base import MemoryReader
from nucleate.networks.manifest import CorrectionsPart
from nucleate.networks.store import EMBEDDED, locate, read
from nucleate.postprocess import kernels, rescale
from nucleate.types import Box, Image, Maps

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "bbbc038"
DRAW = {"fluorescence": microscopy.fluorescence, "brightfield": microscopy.tissue}


@pytest.fixture(scope="module", params=EMBEDDED)
def both(request):
    """The name of a model of the package, what runs its file, and what predicts as `nucleate predict` does."""
    model = read(locate(request.param))
    content = labelling(model, metadata(model)).content
    return request.param, torch.jit.load(io.BytesIO(content)), Predictor(model, engine="torch", bfloat16=False)


def labels_of(script, pixels):
    """The labels of an image (channels, H, W)."""
    with torch.inference_mode():
        found = script(torch.from_numpy(np.ascontiguousarray(pixels))[None])
    assert found.dtype == torch.int32 and found.shape == (1, 1, *pixels.shape[1:])
    return found[0, 0].numpy()


@pytest.mark.parametrize(
    ("shape", "diameter", "nuclei"),
    [((256, 256), 28, 15), ((131, 410), 12, 30), ((450, 420), 60, 5), ((900, 900), 160, 5)],
)
def test_labels_of_drawn_images_are_those_of_predict(both, shape, diameter, nuclei):
    name, script, predictor = both
    image, _ = DRAW[name](1, *shape, diameter=diameter)
    expected = predictor.segment(image).labels
    assert expected.max() >= nuclei
    np.testing.assert_array_equal(labels_of(script, planes(image)), expected)


def test_each_way_of_sizes_is_taken(both):
    name, _, predictor = both
    plain = scripted.Scripted(predictor.model)
    ways = set()
    for diameter, side in ((28, 256), (12, 256), (60, 500), (160, 900)):
        pixels = torch.from_numpy(planes(DRAW[name](1, side, side, diameter=diameter)[0])).double()
        low, high = (scripted.percentile(plain.mixed(pixels), q) for q in (plain.low, plain.high))
        factor = plain.reduction(pixels, low, high)
        seen = plain.normalised(scripted.reduced(pixels, factor), low, high)
        zoom = plain.zoom(plain.judge(seen, False)[0])
        ways.add("reduced" if factor > 1 else "enlarged" if zoom > 1 else "shrunk" if zoom < 1 else "same")
    assert ways == {"reduced", "enlarged", "shrunk", "same"}


@pytest.mark.parametrize("kind", ["uint16", "float32", "int32"])
def test_types_of_pixels(both, kind):
    name, script, predictor = both
    image, _ = DRAW[name](3, 200, 190)
    pixels = (image.pixels.astype(np.float64) * 100 + 7).astype(kind)
    if kind == "float32":
        pixels = (pixels / np.float32(30000) - np.float32(0.2)).astype(kind)
    fits = Image(image.name, pixels if kind != "int32" else pixels.astype(np.uint16), image.channels)
    expected = predictor.segment(fits).labels
    assert expected.max() > 5
    np.testing.assert_array_equal(labels_of(script, np.moveaxis(pixels, 2, 0)), expected)


def test_labels_of_real_images_are_those_of_predict(both):
    name, script, predictor = both
    if not REAL.exists():
        pytest.skip("needs the images of BBBC038 in ../shared/data")
    files = sorted((REAL / name / "test" / "images").glob("*.png"))
    files = files[:: max(1, len(files) // 4)]
    assert len(files) > 1
    total = 0
    for file in files:
        pixels = np.atleast_3d(imagecodecs.imread(file))[..., :3]
        image = Image(file.stem, pixels, RGB if pixels.shape[2] == 3 else ("grey",))
        expected = predictor.segment(image).labels
        np.testing.assert_array_equal(labels_of(script, np.moveaxis(pixels, 2, 0)), expected, err_msg=file.name)
        total += expected.max()
    assert total > 50


def test_batches_grey_for_colours_and_colours_for_grey(both):
    name, script, _ = both
    image, _ = DRAW[name](4, 120, 150)
    one = torch.from_numpy(planes(image))
    flat = torch.full_like(one, 9.0)
    found = script(torch.stack([one, flat, one]))
    assert torch.equal(found[0], found[2]) and found[0].max() > 0 and not found[1].any()
    grey = one.mean(0, keepdim=True).round()
    assert torch.equal(script(grey[None]), script(grey.expand(3, -1, -1)[None]))


def test_what_is_no_image_of_the_model_is_refused(both):
    script = both[1]
    with pytest.raises(torch.jit.Error, match="channels, height, width"):
        script(torch.zeros(8, 8))
    with pytest.raises(torch.jit.Error, match="another number of channels"):
        script(torch.zeros(1, 2, 8, 8))


@pytest.fixture(scope="module")
def untrained():
    """By their number of classes, small networks with weights at random."""
    models = {classes: small(classes) for classes in (2, 3)}
    return {
        classes: (scripted.Scripted(model), Predictor(model, engine="torch", bfloat16=False))
        for classes, model in models.items()
    }


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.sampled_from([2, 3]))
def test_any_image_and_network(untrained, seed, height, width, classes):
    plain, predictor = untrained[classes]
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (-(-height // 6), -(-width // 6), 2)).repeat(6, 0).repeat(6, 1)[:height, :width]
    image = Image("any", (coarse // 2 + rng.integers(0, 99, coarse.shape)).astype(np.uint8), ("DAPI", "µ"))
    np.testing.assert_array_equal(labels_of(plain, planes(image)), predictor.segment(image).labels)


def test_pytorch_alone_runs_it(tmp_path):
    model = read(locate("fluorescence"))
    (tmp_path / "m.pt").write_bytes(labelling(model, metadata(model)).content)
    np.save(tmp_path / "image.npy", planes(example(model))[None])
    script = (
        "import sys, json, numpy, torch; sys.modules['nucleate'] = None; facts = {'nucleate.json': ''}\n"
        "model = torch.jit.load('m.pt', _extra_files=facts); image = torch.from_numpy(numpy.load('image.npy'))\n"
        "print(int(model(image).max()), json.loads(facts['nucleate.json'])['name'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["40", "fluorescence"] and FACTS == "nucleate.json"


def test_same_command_same_bytes_and_no_folder_of_this_machine(tmp_path):
    command = [sys.executable, "-m", "nucleate", "export", "fluorescence", "--to", "torchscript", "--out"]
    runs = [subprocess.Popen([*command, tmp_path / f"{n}.pt"], stdout=subprocess.DEVNULL) for n in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    one, other = ((tmp_path / f"{n}.pt").read_bytes() for n in range(2))
    assert one == other
    assert os.fsencode(Path(scripted.__file__).parents[2]) not in one and os.fsencode(tmp_path) not in one
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert not [name for name in archive.namelist() if "debug" in name]


def test_packed_files_are_read_back():
    files = {"a/b.txt": b"1" * 1000, "ä": b""}
    with zipfile.ZipFile(io.BytesIO(packed(files))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9), st.integers(2, 7))
def test_enlarged_labels(seed, height, width, factor):
    labels = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.int32)
    found = scripted.enlarged(torch.from_numpy(labels).long(), factor)
    np.testing.assert_array_equal(found.numpy(), reduced.enlarge(np.pad(labels, 1, mode="edge"), factor))


@given(st.integers(0, 999), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_reduced_images(seed, height, width, factor):
    pixels = np.random.default_rng(seed).integers(0, 65536, (height, width, 2)).astype(np.uint16)
    reader = reduced.ReducedReader(MemoryReader(Image("any", pixels, ("a", "b"))), factor)
    found = scripted.reduced(torch.from_numpy(np.moveaxis(pixels, 2, 0).astype(np.float64)), factor)
    np.testing.assert_array_equal(np.moveaxis(found.numpy(), 0, 2), reader.read(reader.box))


@given(st.integers(0, 999), *(st.integers(1, 30) for _ in range(4)))
def test_resized_images(seed, height, width, high, wide):
    planes = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    taps = [
        (low, above, part.astype(np.float32))
        for low, above, part in (tiling.taps(0, out, out=out, of=of) for out, of in ((high, height), (wide, width)))
    ]
    found = scripted.resized(torch.from_numpy(planes)[None], high, wide)[0]
    np.testing.assert_array_equal(found.numpy(), kernels.resample_bilinear(planes, *taps))


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_windows(height, width):
    large = max(height, width) > sliding_window.LARGE
    apart, most = (sliding_window.WHOLE, 8) if large else (sliding_window.APART, 3)
    for longest, places in zip((384,) if large else (192, 384), sliding_window.windows((height, width)), strict=False):
        rows, columns = (scripted.starts(length, longest, apart, most) for length in (height, width))
        sides = min(height, longest), min(width, longest)
        assert places == tuple(Box(y, x, *sides) for y in rows for x in columns)


@given(st.lists(st.floats(0.25, 300, width=32), max_size=30), st.floats(0, 100))
def test_diameters_and_percentiles(values, q):
    radius = np.array(values, np.float32)
    maps = Maps(np.ones((1, len(values)), np.float32), None, None, radius[None])
    assert scripted.median_diameter(torch.from_numpy(radius), rescale.MIDDLE) == rescale.predicted_diameter([maps])
    if values:
        expected = np.percentile(radius.astype(np.float64), q)
        np.testing.assert_allclose(float(scripted.percentile(torch.from_numpy(radius), q)), expected, rtol=1e-12)


def test_a_model_that_was_corrected_on_dark_nuclei_sees_them_inverted():
    model = read(locate("fluorescence"))
    files = {"weights": "online/weights-0.safetensors", "state": "online/state-0.safetensors"}
    part = CorrectionsPart(through=1, learnt=1, taken_back=0, nuclei=9, levels=(0.02, 0.9), **files)
    model = dataclasses.replace(model, manifest=model.manifest.model_copy(update={"corrections": part}))
    script, predictor = scripted.Scripted(model), Predictor(model, engine="torch", bfloat16=False)
    image = microscopy.fluorescence(1, 200, 180)[0]
    dark = dataclasses.replace(image, pixels=np.iinfo(image.pixels.dtype).max - image.pixels)
    for one in (image, dark):
        expected = predictor.segment(one).labels
        assert expected.max() > 5, "with the nuclei either way"
        np.testing.assert_array_equal(labels_of(script, planes(one)), expected)
