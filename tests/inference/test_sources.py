"""Which images there are in the files that are given, and the names of their results."""

from pathlib import Path

import numpy as np
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from nucleate.inference.sources import sources, unique_names
from nucleate.io.axes import name_of

FILES = st.builds(
    lambda folder, stem, ending: Path("/data", *folder, stem + ending),
    st.lists(st.sampled_from(["p1", "p2", "images"]), max_size=2),
    st.sampled_from(["A01", "a01", "A01.tif", "A02", "x"]),
    st.sampled_from([".tif", ".png", ".ome.tif", ".jpg"]),
)


@given(st.lists(FILES, min_size=1, max_size=12, unique=True))
def test_names_are_unique_and_plain_where_that_will_do(paths):
    names = unique_names(paths)
    assert len(names) == len(paths) == len(set(names))
    assert all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in names)
    assert all(Path(name).name in (name_of(path), path.name) for name, path in zip(names, paths, strict=True))
    plain = [name_of(path) for path in paths]
    if len({name.casefold() for name in plain}) == len(paths):
        assert names == plain


@given(st.lists(FILES, min_size=1, max_size=12, unique=True), st.randoms())
def test_the_order_of_the_images_does_not_matter(paths, random):
    named = dict(zip(paths, unique_names(paths), strict=True))
    random.shuffle(paths)
    assert dict(zip(paths, unique_names(paths), strict=True)) == named


def write_series(path, count):
    with tifffile.TiffWriter(path, ome=True) as file:
        for number in range(count):
            file.write(np.full((20, 30), number, np.uint8), metadata={"axes": "YX", "Name": f"pos{number}"})


def test_every_image_of_a_file_has_a_name_of_its_own(tmp_path):
    write_series(tmp_path / "a.ome.tif", 3)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 30), np.uint8))
    (tmp_path / "c.tif").write_bytes(b"broken")
    found, notes = sources([tmp_path / "a.ome.tif", tmp_path / "b.tif", tmp_path / "c.tif", tmp_path / "gone.tif"])
    assert [(one.name, one.plane.series) for one in found] == [
        *(("a_s1", 1), ("a_s2", 2), ("a_s3", 3)),
        *(("b", None), ("c", None), ("gone", None)),
    ]
    (note,) = notes
    assert "a.ome.tif holds 3 images" in note and "pos2 (a_s3)" in note


def test_a_file_named_like_an_image_of_another_is_no_rival(tmp_path):
    write_series(tmp_path / "a.ome.tif", 2)
    tifffile.imwrite(tmp_path / "a_s1.tif", np.zeros((20, 30), np.uint8))
    found, _ = sources([tmp_path / "a.ome.tif", tmp_path / "a_s1.tif"])
    assert [one.name for one in found] == ["a.ome.tif_s1", "a.ome.tif_s2", "a_s1"]


def test_a_file_given_twice_comes_once(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 30), np.uint8))
    found, _ = sources([tmp_path / "b.tif", tmp_path / "sub" / ".." / "b.tif"])
    assert [one.name for one in found] == ["b"]


def test_the_images_of_a_zarr_folder(tmp_path):
    for name, multiscales in (("plain", 1), ("several", 2)):
        group = zarr.create_group(tmp_path / f"{name}.zarr", zarr_format=3)
        group.create_array("0", shape=(20, 30), dtype="u1", chunks=(20, 30))[:] = 1
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale(f"m{n}") for n in range(multiscales)]}
    group = zarr.create_group(tmp_path / "converted.zarr", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number in range(3):
        inner = group.create_group(str(number))
        inner.create_array("0", shape=(20, 30), dtype="u1", chunks=(20, 30))[:] = number
        inner.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale("")]}
    found, _ = sources(sorted(tmp_path.iterdir()))
    assert [one.name for one in found] == [
        *("converted_s1", "converted_s2", "converted_s3"),
        *("plain", "several_s1", "several_s2"),
    ]


def multiscale(name):
    scale = {"type": "scale", "scale": [1.0, 1.0]}
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    return {"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
