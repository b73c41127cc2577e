"""A model as a file for other programs: what is read back is the model, and nothing is half written."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch

import nucleate
from nucleate.errors import InputError, OutputError
from nucleate.inference import export as module
from nucleate.inference import torchscript
from nucleate.inference.export import SUFFIX, TOLERANCE, USE, Exported, export, metadata
from nucleate.networks.manifest import (
    DataPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.store import Model, encode_weights
from nucleate.networks.unet import Architecture, UNet


def small(classes):
    """A small model of two channels, its weights at random."""
    torch.manual_seed(0)
    network = UNet(Architecture(channels=2, classes=classes, widths=(8, 16)))
    torch.nn.init.normal_(network.heads.maps.weight, std=0.3)
    manifest = Manifest(
        name="small",
        architecture=architecture_part(network.architecture),
        normalisation=NormalisationPart(low=0.5, high=99.5),
        thresholds=ThresholdsPart(foreground=0.4, peak_threshold=0.2, nms_radius=0.7, assign_radius=0.8, min_area=9),
        pixel_size=0.25,
        data=DataPart(
            source="drawn", labelled=3, nuclei=41, median_diameter=17.5, validation="none", channels=("DAPI", "µ")
        ),
        trainings=(
            TrainingPart(seed=7, loss="focal", epochs=2, steps=20, seconds=1.5, best_epoch=2, stopped="It was enough."),
        ),
        scores={},
        versions={},
        weights_sha256=hashlib.sha256(encode_weights(network)).hexdigest(),
    )
    return Model(network.folded(), manifest, Path("small"))


@pytest.fixture(scope="module", params=[2, 3])
def model(request):
    return small(request.param)


def read_onnx(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    return lambda image: session.run(None, {"image": image})[0], facts


def read_openvino(path):
    read = openvino.Core().read_model(path)
    facts = {key: value.astype(str) for key, value in read.get_rt_info("nucleate").astype(dict).items()}
    compiled = openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled([image])[0], facts


READ = {"onnx": read_onnx, "openvino": read_openvino}


@pytest.mark.parametrize("to", READ)
def test_what_is_read_back_is_the_network(model, tmp_path, to):
    out = tmp_path / "folder" / f"small{SUFFIX[to]}"
    done = export(model, to, out)
    assert set(done.files) == set(out.parent.iterdir()) and done.files[0] == out
    run, facts = READ[to](out)
    assert facts == metadata(model)
    for shape in ((1, 2, 8, 12), (3, 2, 20, 4)):
        image = torch.randn(shape)
        with torch.no_grad():
            expected = model.network(image).numpy()
        found = run(image.numpy())
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert 0 <= done.difference < 1e-4


def test_metadata_tell_what_a_program_needs(model):
    facts = metadata(model)
    architecture = model.network.architecture
    assert all(isinstance(value, str) for value in facts.values())
    assert (facts["name"], facts["nucleate"]) == ("small", nucleate.__version__)
    assert facts["weights_sha256"] == model.manifest.weights_sha256
    assert json.loads(facts["stride"]) == architecture.stride
    assert json.loads(facts["thresholds"]) == model.manifest.thresholds.model_dump()
    normalisation = json.loads(facts["normalisation"])
    assert (normalisation["low"], normalisation["high"]) == (0.5, 99.5)
    outputs = json.loads(facts["outputs"])
    assert len(outputs) == architecture.outputs
    assert [outputs[0], outputs[-4][:8]] == ["logit of background", "logit of"]
    assert json.loads(facts["channels"]) == ["DAPI", "µ"] and json.loads(facts["pixel_size"]) == 0.25


@pytest.mark.parametrize("to", READ)
def test_written_over_an_older_one(model, tmp_path, to):
    image = torch.randn(1, 2, 4, 4)
    out = tmp_path / f"small{SUFFIX[to]}"
    for path in (out, out.with_suffix(".bin")):
        path.write_bytes(b"older")
    with pytest.raises(OutputError, match=r"small\..* is there already"):
        export(model, to, out)
    export(model, to, out, overwrite=True)
    np.testing.assert_allclose(READ[to](out)[0](image.numpy()), model.network(image), atol=1e-4, rtol=1e-4)


def test_another_format_or_name_is_refused(model, tmp_path):
    with pytest.raises(
        InputError, match="There is no format tensorrt: export --to onnx, openvino, torchscript or bioimageio"
    ):
        export(model, "tensorrt", tmp_path / "small.onnx")
    for to, name, better in (
        ("onnx", "small.xml", "small.onnx"),
        ("openvino", "small.onnx", "small.xml"),
        ("onnx", "", "onnx"),
        ("openvino", "small.bin", "small.xml"),
        ("torchscript", "small.pth", "small.pt"),
        ("bioimageio", "small.yaml", "small.zip"),
    ):
        with pytest.raises(InputError, match=f"does not end as files for {to} do: give --out .*{better}"):
            export(model, to, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["onnx", "openvino", "bioimageio"])
def test_a_file_whose_output_differs_is_refused(model, tmp_path, monkeypatch, to):
    out = tmp_path / f"small{SUFFIX[to]}"
    for name in ("_with_onnx_runtime", "_with_openvino"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *files, real=real: lambda image: real(*files)(image) + 10 * TOLERANCE)
    with pytest.raises(OutputError, match=r"is not written: its output differs from PyTorch's by 0\.01"):
        export(model, to, out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", SUFFIX)
def test_a_place_that_cannot_be_written_is_refused(model, tmp_path, to):
    (tmp_path / "file").write_text("kept")
    (tmp_path / f"folder{SUFFIX[to]}").mkdir()
    for out in (tmp_path / "file" / f"small{SUFFIX[to]}", tmp_path / f"folder{SUFFIX[to]}"):
        with pytest.raises(OutputError, match="cannot be written"):
            export(model, to, out)
    assert (tmp_path / "file").read_text() == "kept"
    assert not list(tmp_path.rglob("*.part"))


def test_where_openvino_cannot_write_is_named(model, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", broken)
    with pytest.raises(OutputError, match="free some space there"):
        export(model, "openvino", tmp_path / "small.xml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["onnx", "openvino", "torchscript"])
def test_its_use_runs_as_it_is_printed(model, tmp_path, to):
    out = tmp_path / f"small{SUFFIX[to]}"
    export(model, to, out)
    lines = [line.strip() for line in USE[to].format(out=json.dumps(str(out))).splitlines()[1:]]
    before = "import numpy, onnxruntime, openvino, torch; image = numpy.zeros((1, 2, 8, 8), numpy.float32)"
    if to == "torchscript":
        before, lines = f"{before}; image = torch.from_numpy(image)", [*lines, "maps = labels"]
    script = "\n".join([before, *lines, "print(*maps.shape)"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    many = 1 if to == "torchscript" else model.network.architecture.outputs
    assert done.stdout.split() == ["1", str(many), "8", "8"]


def test_labels_that_differ_are_refused(model, tmp_path, monkeypatch):
    real = torchscript.Predictor.segment

    def other(self, image):
        found = real(self, image)
        return dataclasses.replace(found, labels=1 - np.minimum(found.labels, 1))

    monkeypatch.setattr(torchscript.Predictor, "segment", other)
    for to in ("torchscript", "bioimageio"):
        with pytest.raises(OutputError, match="labels of the TorchScript file differ from those of nucleate predict"):
            export(model, to, tmp_path / f"small{SUFFIX[to]}")
    assert list(tmp_path.iterdir()) == []


def test_what_the_comparison_showed():
    assert Exported((), 0.0, labels=True).checked.endswith("predict are the same.")
    assert Exported((), 0.00234, labels=True).checked.endswith("the same at all but 0.2% of the pixels.")
    assert Exported((), 1.2e-5).checked == "Its output is PyTorch's within 1e-05."
