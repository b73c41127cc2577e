"""The manifest, by npe2's own validator; samples and the reader, through npe2 and into layers of napari."""

import os
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("napari", reason="napari is not installed: make test-napari runs this in an environment of its own")

from napari.layers import Layer
from npe2 import PluginManifest, io_utils
from npe2.cli import app
from typer.testing import CliRunner

from nucleate.inference.request import LARGEST_TILE, SMALLEST_TILE
from nucleate.napari import prediction
from nucleate.networks.store import EMBEDDED

MANIFEST = Path(str(files("nucleate.napari") / "napari.yaml"))


def test_the_entry_point_leads_to_the_manifest():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, file = project["entry-points"]["napari.manifest"]["nucleate"].partition(":")
    assert files(module).joinpath(file).read_bytes() == MANIFEST.read_bytes()


def test_the_validator_of_npe2_passes():
    done = CliRunner().invoke(app, ["validate", "--imports", str(MANIFEST)])
    assert done.exit_code == 0 and "valid" in done.output, done.output


@pytest.fixture
def plugins(npe2pm):
    """npe2 with this plugin alone."""
    npe2pm.register(PluginManifest.from_file(MANIFEST))
    return npe2pm


def test_the_samples_are_drawn(plugins):
    commands = [one.command for _, every in plugins.iter_sample_data() for one in every]
    assert commands == ["nucleate.fluorescence", "nucleate.tissue"]
    for command, axes in zip(commands, (2, 3), strict=True):
        image, labels = (Layer.create(*data) for data in plugins.commands.execute(command))
        assert image.data.ndim == axes and image.rgb == (axes == 3) and labels.data.max() > 50


@pytest.mark.parametrize(("name", "kinds"), [("b_labels.tif", ["Labels"]), ("b.json", ["Image", "Labels"])])
def test_what_predict_wrote_is_read_through_npe2(plugins, results, name, kinds):
    made = [Layer.create(*data) for data in io_utils.read([str(results / name)], stack=False)]
    assert [type(layer).__name__ for layer in made] == kinds
    assert list(made[-1].features["index"]) == list(range(1, made[-1].data.max() + 1))
    assert all((layer.extent.world == made[0].extent.world).all() for layer in made)


def test_a_zarr_of_labels_is_read_through_npe2(plugins, results):
    ((labels, _, kind),) = io_utils.read([str(results / "a_labels.zarr")], stack=False)
    assert kind == "labels" and labels.any()


@pytest.mark.parametrize("name", ["x.json", "x_labels.tif"])
def test_what_others_wrote_is_left_to_other_readers(plugins, tmp_path, name):
    shutil.copy(MANIFEST, tmp_path / name)
    with pytest.raises(ValueError, match="No readers returned data"):
        io_utils.read([str(tmp_path / name)], stack=False)


def test_the_numbers_are_those_of_the_package():
    assert EMBEDDED == prediction.MODELS
    assert (SMALLEST_TILE, LARGEST_TILE) == (prediction.SMALLEST_TILE, prediction.LARGEST_TILE)
