"""OME-Zarr 0.4 and 0.5 by boxes: levels, channels, pixel sizes; what is no image, and hostile metadata."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from nucleate.data.dataset import images_in
from nucleate.errors import ImageError
from nucleate.io.ome_zarr import OmeZarrReader
from nucleate.io.reader import open_reader, read_image
from nucleate.types import Box

PIXELS = np.random.default_rng(5).integers(0, 60000, (3, 75, 90), dtype=np.uint16)


def write(path, version, levels, axes, unit="micrometer", scale=0.25, **more):
    """An image as its format has it; `more` are keys beside the multiscales."""
    group = zarr.create_group(path, zarr_format=version)
    datasets = []
    for number, level in enumerate(levels):
        chunks = (1,) * (level.ndim - 2) + (32, 16)
        shards = {"shards": (*level.shape[:-2], 64, 32)} if version == 3 else {}
        group.create_array(str(number), shape=level.shape, dtype=level.dtype, chunks=chunks, **shards)[:] = level
        sizes = [1.0] * (level.ndim - 2) + [scale * 2**number] * 2
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": sizes}]})
    kinds = {"c": "channel", "t": "time"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": unit} if unit and axis in "zyx" else {})}
        for axis in axes
    ]
    ome = {"multiscales": [{"axes": named, "datasets": datasets, "version": "0.4"}], **more}
    group.attrs.update(ome if version == 2 else {"ome": {"version": "0.5", **ome}})
    return path


def metadata(path, version):
    return path / (".zattrs" if version == 2 else "zarr.json")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tczyx"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_level_and_its_boxes(tmp_path, version, axes, level):
    whole = {"yx": PIXELS[0], "cyx": PIXELS, "tczyx": PIXELS[None, :, None]}[axes]
    levels = [whole, whole[..., ::2, ::2]]
    names = [{"label": label} for label in ("DAPI", "GFP", "RFP")]
    path = write(tmp_path / "a.ome.zarr", version, levels, axes, omero={"channels": names})
    expected = np.moveaxis(levels[level].reshape(-1, *levels[level].shape[-2:]), 0, 2)
    with OmeZarrReader(path, level) as reader:
        assert (reader.name, reader.shape, reader.dtype) == ("a", expected.shape[:2], np.uint16)
        assert reader.channels == (("grey",) if axes == "yx" else ("DAPI", "GFP", "RFP"))
        assert [one.downsample for one in reader.levels] == [1, 2] and reader.piece == (32, 16)
        assert reader.pixel_size == pytest.approx(0.25 * 2**level)
        boxes = [reader.box, Box(31, 15, 2, 2), Box(0, 40, 38, 5), *reader.pieces(500)]
        with ThreadPoolExecutor(4) as threads:
            for box, found in zip(boxes, threads.map(reader.read, boxes), strict=True):
                np.testing.assert_array_equal(found, expected[box.within(reader.box)])
    if level == 0:
        np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [("nanometer", 250, 0.25), (None, 0.25, None), ("micrometer", 0, None), ("micrometer", float("nan"), None)],
)
def test_pixel_size(tmp_path, unit, scale, expected):
    path = write(tmp_path / "a.zarr", 2, [PIXELS[0]], "yx", unit, scale)
    assert OmeZarrReader(path).pixel_size == (expected and pytest.approx(expected))


def test_what_bioformats2raw_makes(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write(tmp_path / "a.zarr" / "0", 2, [PIXELS], "cyx")
    assert OmeZarrReader(tmp_path / "a.zarr").shape == (75, 90)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"image-label": {}}, "holds labels"),
        ({"plate": {}}, "a plate"),
        ({"multiscales": []}, "broken OME-Zarr metadata"),
        ({"multiscales": 7}, "broken OME-Zarr metadata"),
    ],
)
def test_what_is_no_image(tmp_path, version, more, says):
    with pytest.raises(ImageError, match=says):
        OmeZarrReader(write(tmp_path / "a.zarr", version, [PIXELS[0]], "yx", **more))


def test_a_stack_a_level_that_is_not_there_and_no_zarr(tmp_path):
    with pytest.raises(ImageError, match="where one plane is needed"):
        open_reader(write(tmp_path / "a.zarr", 3, [PIXELS], "zyx"))
    with pytest.raises(ImageError, match=r"has no level 1: its levels are 0 \(75 x 90\)"):
        OmeZarrReader(write(tmp_path / "b.zarr", 3, [PIXELS], "cyx"), 1)
    with pytest.raises(ImageError, match="is no OME-Zarr image"):
        OmeZarrReader(tmp_path)


@pytest.mark.parametrize("name", ["../b", "/etc", "0/../../b", "..\\b", "link"])
def test_a_part_that_lies_outside(tmp_path, name):
    path = write(tmp_path / "a.zarr", 2, [PIXELS[0]], "yx")
    write(tmp_path / "b", 2, [PIXELS[0]], "yx")
    (path / "link").symlink_to(tmp_path / "b" / "0")
    text = (path / ".zattrs").read_text()
    (path / ".zattrs").write_text(text.replace('"path": "0"', f'"path": {json.dumps(name)}'))
    with pytest.raises(ImageError, match="lies outside of it"):
        OmeZarrReader(path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"compressor": {"id": "pickle"}}, "codec pickle, which is not read"),
        ({"compressor": {"id": "zfpy"}}, "codec zfpy"),
        ({"filters": [{"id": "json2"}]}, "filter json2"),
        ({"filters": [{"id": "vlen-utf8"}]}, "filter vlen-utf8"),
        ({"dtype": "|O"}, "values of type"),
        ({"dtype": [["a", "<u2"]]}, "values of type"),
        ({"shape": [2**30, 2**30]}, "above the limit"),
        ({"chunks": [2**20, 2**20]}, "more than 268435456 bytes"),
        ({"chunks": [0, 16]}, "broken Zarr metadata"),
        ({"shape": [75, -1]}, "broken Zarr metadata"),
        ({"fill_value": "x"}, "broken Zarr metadata"),
        ({"order": "Q"}, "broken Zarr metadata"),
        ({"dimension_separator": "/../"}, "broken Zarr metadata"),
    ],
)
def test_hostile_metadata(tmp_path, changed, says):
    path = write(tmp_path / "a.zarr", 2, [PIXELS[0]], "yx")
    about = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps({**about, **changed}))
    with pytest.raises(ImageError, match=says):
        OmeZarrReader(path)


def test_folders_are_images_but_not_where_they_are_labels(tmp_path):
    image = write(tmp_path / "a.ome.zarr", 3, [PIXELS], "cyx")
    write(tmp_path / "a_labels.zarr", 3, [PIXELS[0]], "yx", **{"image-label": {}})
    assert images_in([tmp_path]) == images_in([image]) == [image]
