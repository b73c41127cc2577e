"""OME-Zarr labels: valid by the OME models, every level nearest to the first, in its place on the slide."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ome_zarr_models.v05 import ImageLabel

from nucleate.errors import OutputError
from nucleate.io.formats import label_zarr

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 9))


def opened(path):
    group = zarr.open_group(path, mode="r")
    return group, ImageLabel.from_zarr(group).ome_attributes


@settings(deadline=None, max_examples=20)
@given(labels=LABELS)
def test_every_level_holds_every_second_pixel_of_the_one_before(tmp_path_factory, nuclei_of, labels):
    path = tmp_path_factory.mktemp("labels") / "x.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_zarr, "CHUNK", 8)
        nuclei = nuclei_of(labels)
        label_zarr.write(path, nuclei)
    group, about = opened(path)
    datasets = about.multiscales[0].datasets
    for number, dataset in enumerate(datasets):
        level = group[dataset.path]
        np.testing.assert_array_equal(level[:], nuclei.labels[:: 2**number, :: 2**number])
        assert level.dtype == np.uint16 and max(level.chunks) <= 8
    assert max(level.shape) <= 8 and len(list(group.array_keys())) == len(datasets)


def test_the_metadata_say_what_it_is_and_where(tmp_path, field):
    nuclei = field(60, 3)  # 2400 x 120 pixels
    nuclei.origin = (7, 20)
    label_zarr.write(tmp_path / "x.zarr", nuclei)
    group, about = opened(tmp_path / "x.zarr")
    assert group.metadata.zarr_format == 3 and about.version == "0.5" and about.image_label is not None
    (multiscale,) = about.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    for number, dataset in enumerate(multiscale.datasets):
        scale, translation = dataset.coordinateTransformations
        assert scale.scale == [0.5 * 2**number] * 2 and translation.translation == [3.5, 10.0]
    assert multiscale.name == "field" and multiscale.type == "nearest"


def test_without_a_pixel_size_the_unit_is_the_pixel(tmp_path, nuclei_of):
    label_zarr.write(tmp_path / "x.zarr", nuclei_of(np.eye(3, dtype=np.int32), origin=(2, 3)))
    (multiscale,) = opened(tmp_path / "x.zarr")[1].multiscales
    assert [axis.unit for axis in multiscale.axes] == [None, None]
    scale, translation = multiscale.datasets[0].coordinateTransformations
    assert scale.scale == [1.0, 1.0] and translation.translation == [2.0, 3.0]


def test_many_nuclei_need_32_bits_and_background_no_file(tmp_path, field):
    nuclei = field(52, 52)  # 2080 x 2080 pixels
    nuclei.count = 65536
    read = nuclei.read
    nuclei.read = lambda box: read(box) * (box.y < 1024)
    label_zarr.write(tmp_path / "x.zarr", nuclei)
    assert opened(tmp_path / "x.zarr")[0]["0"].dtype == np.uint32
    assert sorted(path.name for path in (tmp_path / "x.zarr" / "0" / "c").iterdir()) == ["0"]


def test_a_link_to_a_folder_elsewhere_is_not_followed(tmp_path, nuclei_of):
    one = nuclei_of(np.eye(3, dtype=np.int32))
    label_zarr.write(tmp_path / "a.zarr", one)
    (tmp_path / "b.zarr").symlink_to(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match=r"b\.zarr is there already and is something else"):
        label_zarr.write(tmp_path / "b.zarr", one)
    assert opened(tmp_path / "a.zarr")


def test_an_empty_folder_is_taken(tmp_path, nuclei_of):
    (tmp_path / "x.zarr").mkdir()
    label_zarr.write(tmp_path / "x.zarr", nuclei_of(np.eye(3, dtype=np.int32)))
    assert opened(tmp_path / "x.zarr")


def test_a_rename_that_fails_leaves_the_old_one(tmp_path, nuclei_of, monkeypatch):
    path = tmp_path / "x.zarr"
    label_zarr.write(path, nuclei_of(np.eye(3, dtype=np.int32)))
    rename = type(path).rename

    def refused(self, target):
        if self.suffix == ".part":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", refused)
    with pytest.raises(OutputError, match=r"x\.zarr cannot be written \(Input/output error\)"):
        label_zarr.write(path, nuclei_of(np.ones((3, 3), dtype=np.int32)))
    assert [one.name for one in tmp_path.iterdir()] == ["x.zarr"]
    np.testing.assert_array_equal(opened(path)[0]["0"][:], np.eye(3))
