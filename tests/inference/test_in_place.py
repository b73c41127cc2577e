"""Labels written into the OME-Zarr image that they are of, and read by the models of the specification."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v04.image_label import ImageLabelAttrs
from ome_zarr_models.v05 import ImageLabel

from nucleate.data.synthetic import fluorescence
from nucleate.errors import InputError, OutputError
from nucleate.inference.image_input import Selection
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.summary import Skipped
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.io.stack import Choice
from nucleate.networks import store
from nucleate.types import Plane

HEIGHT, WIDTH, PLANES = 90, 120, 2


@pytest.fixture(scope="module")
def predictor():
    return Predictor(store.read(store.locate("fluorescence")), engine="torch")


def write_image(path, version, planes=1):
    """An image of axes t, c, z, y, x with two levels, the second a third as large."""
    pixels = np.stack(
        [fluorescence(seed=z, height=HEIGHT, width=WIDTH, diameter=16)[0].pixels[..., 0] for z in range(planes)]
    )
    pixels = np.stack([pixels, pixels[:, ::-1]])[None]
    group = zarr.create_group(path, zarr_format=version)
    for name, level in (("0", pixels), ("1", pixels[..., ::3, ::3])):
        group.create_array(name, shape=level.shape, dtype=level.dtype, chunks=(1, 1, 1, 64, 64))[:] = level
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": axis, "type": kinds.get(axis, "space")} for axis in "tczyx"]
    axes = [{**axis, "unit": "micrometer"} if axis["type"] == "space" else axis for axis in axes]
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 2.0, 0.5 * f, 0.5 * f]}]}
        for name, f in (("0", 1), ("1", 3))
    ]
    multiscale = {"axes": axes, "datasets": datasets}
    if version == 2:
        group.attrs["multiscales"] = [{**multiscale, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def run(predictor, image, out, **options):
    return predict(predictor, [image], out, Request(channel="1", in_place=True, **options))


@pytest.mark.parametrize("version", [2, 3])
def test_labels_lie_in_the_image_with_its_levels_and_axes(predictor, tmp_path, version):
    image = write_image(tmp_path / "cells.zarr", version)
    done = run(predictor, image, tmp_path / "out")
    found = read_labels(tmp_path / "out" / "cells_labels.tif")
    assert done.nuclei["cells"] == found.max() > 3
    group = zarr.open_group(image / "labels" / "nuclei", mode="r")
    if version == 3:
        ImageLabel.from_zarr(group)
    else:
        ImageLabelAttrs.model_validate(group.attrs.asdict())
    np.testing.assert_array_equal(group["0"][0, 0], found)
    np.testing.assert_array_equal(group["1"][0, 0], found[1::3, 1::3])
    ome = group.attrs.get("ome", group.attrs)
    assert ome["image-label"]["source"] == {"image": "../../"}
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["t", "z", "y", "x"]
    assert multiscale["datasets"][1]["coordinateTransformations"][0]["scale"] == [1.0, 2.0, 1.5, 1.5]
    labels = zarr.open_group(image / "labels", mode="r").attrs
    assert labels.get("ome", labels)["labels"] == ["nuclei"]
    assert read_image(image).pixels.shape == (HEIGHT, WIDTH, 2)
    np.testing.assert_array_equal(read_labels(image / "labels" / "nuclei"), found)


def test_each_plane_of_a_stack_has_its_labels(predictor, tmp_path):
    image = write_image(tmp_path / "cells.zarr", 3, planes=PLANES)
    run(predictor, image, tmp_path / "out", stacks=Choice(z="each"))
    stack = tifffile.imread(tmp_path / "out" / "cells_labels.tif")
    labels = zarr.open_group(image / "labels" / "nuclei", mode="r")["0"]
    assert labels.shape == (1, PLANES, HEIGHT, WIDTH)
    np.testing.assert_array_equal(labels[0], stack)
    np.testing.assert_array_equal(read_labels(image / "labels" / "nuclei", plane=Plane(z=2)), stack[1])


def test_what_is_not_of_the_whole_image_is_not_written_in_place(predictor, tmp_path):
    image = write_image(tmp_path / "cells.zarr", 3, planes=PLANES)
    done = run(predictor, image, tmp_path / "out", stacks=Choice(z="max"))
    assert any("not segmented plane by plane" in note for note in done.notes)
    assert not (image / "labels").exists()
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint8))
    done = run(predictor, tmp_path / "a.tif", tmp_path / "out")
    assert any("a.tif is no OME-Zarr: its labels lie in --out alone" in note for note in done.notes)
    for options in ({"selection": Selection(level=1)}, {"formats": ("csv",)}):
        with pytest.raises(InputError, match="--in-place writes the labels of whole images"):
            Request(in_place=True, **options)


def test_labels_of_others_stay_and_our_own_are_written_again(predictor, tmp_path):
    image = write_image(tmp_path / "cells.zarr", 2)
    (image / "labels" / "hand").mkdir(parents=True)
    (image / "labels" / ".zattrs").write_text(json.dumps({"labels": ["hand"]}))
    run(predictor, image, tmp_path / "out")
    run(predictor, image, tmp_path / "out")
    assert json.loads((image / "labels" / ".zattrs").read_text())["labels"] == ["hand", "nuclei"]
    zattrs = image / "labels" / "nuclei" / ".zattrs"
    zattrs.write_text(zattrs.read_text().replace("nucleate", "somebody"))
    with pytest.raises(OutputError, match=r"nuclei is there already and nucleate did not write it"):
        run(predictor, image, tmp_path / "out")
    assert run(predictor, image, tmp_path / "out", overwrite=True).nuclei


def test_labels_in_place_do_not_make_it_another_image(predictor, tmp_path):
    image = write_image(tmp_path / "cells.zarr", 3)
    run(predictor, image, tmp_path / "out")
    done = run(predictor, image, tmp_path / "out", resume=True)
    assert isinstance(done.results["cells"], Skipped)
