"""Folders in every layout, and the folders that are no data set."""

import random
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data.dataset import find, images_in, pair
from nucleate.data.inspect import inspect
from nucleate.errors import DatasetError, ImageError
from nucleate.io.formats import FORMATS
from nucleate.types import Nucleus, Sample


def make(folder: Path, *names: str) -> Path:
    """A folder of files; their content does not matter to finding them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> tuple[str, dict[str, tuple[str, str | None]]]:
    dataset = find(folder)
    assert dataset.root == folder
    assert all(s.mask is not None for s in dataset.labelled) and all(s.mask is None for s in dataset.unlabelled)
    samples = [*dataset.labelled, *dataset.unlabelled]
    names = {s.name: (str(s.image.relative_to(folder)), s.mask and str(s.mask.relative_to(folder))) for s in samples}
    assert len(names) == len(samples)
    return dataset.layout, names


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_images_and_masks(tmp_path, masks):
    make(tmp_path, "images/a.png", "images/b.OME.TIF", "images/c.jpg", f"{masks}/a.tif", f"{masks}/b.png", "loose.png")
    make(tmp_path, "images/.hidden.png", "images/notes.txt", "images/Thumbs.db", f"{masks}/.a.png")
    assert found(tmp_path) == (
        "images + masks",
        {
            "a": ("images/a.png", f"{masks}/a.tif"),
            "b": ("images/b.OME.TIF", f"{masks}/b.png"),
            "c": ("images/c.jpg", None),
        },
    )


def test_side_by_side(tmp_path):
    make(tmp_path, "a.tif", "a_masks.tif", "b_img.tif", "b_masks.png", "c.png", "c_cp_masks.png", "d.tif", "e_img.tif")
    make(tmp_path, "a_flows.tif", "a_seg.npy", "lone_flows.tif")
    assert found(tmp_path) == (
        "side by side",
        {
            "a": ("a.tif", "a_masks.tif"),
            "b": ("b_img.tif", "b_masks.png"),
            "c": ("c.png", "c_cp_masks.png"),
            "d": ("d.tif", None),
            "e_img": ("e_img.tif", None),
            "lone_flows": ("lone_flows.tif", None),
        },
    )


def test_nnunet(tmp_path):
    make(tmp_path, "imagesTr/case_1_0000.tif", "imagesTr/case_2_0000.png", "labelsTr/case_1.tif", "dataset.json")
    assert found(tmp_path) == (
        "nnU-Net",
        {"case_1": ("imagesTr/case_1_0000.tif", "labelsTr/case_1.tif"), "case_2": ("imagesTr/case_2_0000.png", None)},
    )


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_images_only(tmp_path, prefix):
    make(tmp_path, f"{prefix}b.png", f"{prefix}a.tif")
    assert found(tmp_path) == ("images only", {"a": (f"{prefix}a.tif", None), "b": (f"{prefix}b.png", None)})


@settings(deadline=None, max_examples=30)
@given(
    labelled=st.sets(st.text("abcxyz-0123", min_size=1, max_size=6), max_size=6),
    bare=st.sets(st.text("ABCXYZ", min_size=1, max_size=6), max_size=6),
    seed=st.integers(0, 99),
)
def test_every_image_is_found_once_in_order_whatever_the_order_of_creation(tmp_path_factory, labelled, bare, seed):
    folder = tmp_path_factory.mktemp("data")
    # Some file systems hold a.png and A.png to be one; the sets here differ beyond case.
    bare -= {name.upper() for name in labelled}
    if not labelled | bare:
        return
    names = [f"images/{name}.png" for name in labelled | bare] + [f"masks/{name}.tif" for name in labelled]
    random.Random(seed).shuffle(names)
    dataset = find(make(folder, "masks/.keep", *names))
    assert [s.name for s in dataset.labelled] == sorted(labelled)
    assert [s.name for s in dataset.unlabelled] == sorted(bare)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["notes.txt", ".a.png"], "holds no image"),
        (["images/notes.txt"], "holds no image"),
        (["images/a.png", "images/a.tif", "masks/a.png"], r"a\.png and a\.tif have the same name"),
        (["images/a.png", "masks/a.png", "masks/a.tif"], r"masks/a\.png and a\.tif mask the same image"),
        (["images/a.png", "masks/a.png", "masks/a_labels.tif"], r"masks/a\.png and a_labels\.tif mask the same image"),
        (["images/a.png", "labels/a.geojson", "labels/a_rois.zip"], "mask the same image"),
        (["images/a.png", "masks/b.png"], r"masks/b\.png has no image named b: add"),
        (
            ["images/a.png", "masks/b.png", "masks/c.png"],
            r"masks/b\.png has no image named b \(and 1 more mask has none\)",
        ),
        (["images/a.png", "masks/a.png", "labels/a.png"], "labels/ and masks/"),
        (["masks/a.png"], "no images/"),
        (["a.png", "b_masks.png"], "no image named b"),
        (["a_masks.png"], "no image named a"),
        (["a.png", "a.tif", "a_masks.png"], "same name"),
        (["a.png", "a_img.png", "a_masks.png"], "share the mask"),
        (["a.png", "a_masks.png", "a_cp_masks.png"], "mask the same image"),
        (["imagesTr/a_0000.tif", "imagesTr/a_0001.tif", "labelsTr/a.tif"], r"case a as a_0000\.tif, a_0001\.tif"),
        (["imagesTr/a_0001.tif"], r"case a as a_0001\.tif"),
        (["imagesTr/a.tif"], r"name it a_0000\.tif"),
        (["imagesTr/a_0000.tif", "labelsTr/b.tif"], "no image named b"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, names, says):
    with pytest.raises(DatasetError, match=says) as caught:
        find(make(tmp_path, *names))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["gone", "file.png"])
def test_what_is_no_folder(tmp_path, name):
    make(tmp_path, "file.png")
    with pytest.raises(DatasetError, match=name):
        find(tmp_path / name)


def test_a_folder_named_like_an_image_is_no_image(tmp_path):
    make(tmp_path, "a.png", "b.tif/inner.png")
    assert [s.name for s in find(tmp_path).unlabelled] == ["a"]


def test_pair_reads_both_and_compares_their_sizes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 7), np.uint8))
    tifffile.imwrite(tmp_path / "a_masks.tif", np.eye(5, 7, dtype=np.uint16))
    image, labels = pair(find(tmp_path).labelled[0])
    assert image.pixels.shape == (5, 7, 1)
    np.testing.assert_array_equal(labels, np.eye(5, 7))
    tifffile.imwrite(tmp_path / "a_masks.tif", np.eye(7, 5, dtype=np.uint16))
    with pytest.raises(ImageError, match=r"a_masks\.tif is 5 x 7 pixels and its image 7 x 5"):
        pair(find(tmp_path).labelled[0])


@pytest.mark.parametrize("kind", ["tif", "zarr", "geojson", "roi"])
@pytest.mark.parametrize("layout", ["images", "imagesTr", "side by side"])
def test_every_format_that_is_written_is_a_mask(tmp_path, memory_instances, kind, layout):
    labels = np.zeros((40, 60), np.int32)
    labels[3:9, 4:12], labels[20:25, 30:31] = 1, 2
    image, mask = {
        "images": ("images/a.tif", f"masks/{FORMATS[kind].file('a')}"),
        "imagesTr": ("imagesTr/a_0000.tif", f"labelsTr/{FORMATS[kind].file('a')}"),
        "side by side": ("a.tif", f"a_masks{Path(FORMATS[kind].file('a')).suffix}"),
    }[layout]
    (tmp_path / image).parent.mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / image, np.arange(2400, dtype=np.uint16).reshape(40, 60))
    rows = [Nucleus(number, 1.0, 1.0, 1, 1.0, 1.0, 0.5) for number in (1, 2)]
    FORMATS[kind].write(tmp_path / mask, memory_instances("a", labels, rows))
    (sample,) = find(tmp_path).labelled
    np.testing.assert_array_equal(pair(sample)[1], labels)
    assert inspect(tmp_path).nuclei == 2


def test_pair_needs_a_mask(tmp_path):
    with pytest.raises(DatasetError, match="no mask"):
        pair(Sample("a", tmp_path / "a.tif"))


def test_images_in_files_and_folders(tmp_path):
    make(
        tmp_path, "flat/b.png", "flat/a.tif", "flat/a_masks.tif", "flat/a_flows.tif", "flat/notes.txt", "flat/sub/c.png"
    )
    make(tmp_path, "set/images/d.png", "set/masks/d.png", "nn/imagesTr/e_0000.tif", "one.data")
    flat, one = tmp_path / "flat", tmp_path / "one.data"
    assert images_in([flat]) == [flat / "a.tif", flat / "b.png"]
    assert images_in([tmp_path / "set"]) == [tmp_path / "set/images/d.png"]
    assert images_in([tmp_path / "nn"]) == [tmp_path / "nn/imagesTr/e_0000.tif"]
    assert images_in([one, flat, flat / "b.png", one]) == [one, flat / "a.tif", flat / "b.png"]
    assert images_in([flat / "a_masks.tif"]) == [flat / "a_masks.tif"], "a file that is named is meant"


def test_images_in_nothing(tmp_path):
    make(tmp_path, "empty/notes.txt", "only/a.csv")
    for paths, says in (
        ([], "No image"),
        ([tmp_path / "gone"], "gone does not exist"),
        ([tmp_path / "empty"], "no image"),
    ):
        with pytest.raises(DatasetError, match=says):
            images_in(paths)
    with pytest.raises(DatasetError, match="holds no image"):
        images_in([tmp_path / "only"])


ROOT = Path(__file__).parents[2]
SHARED = ROOT / ".." / "shared" / "data" / "bbbc038"


@pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs images of BBBC038v1, which are not in the project: {SHARED.relative_to(ROOT)}"
)
@pytest.mark.parametrize(("folder", "count"), [("fluorescence/val", 37), ("brightfield/val", 7)])
def test_real_images(folder, count):
    dataset = find(SHARED / folder)
    assert (dataset.layout, len(dataset.labelled), len(dataset.unlabelled)) == ("images + masks", count, 0)
    for sample in dataset.labelled:
        image, labels = pair(sample)
        assert image.pixels.dtype == np.uint8 and labels.max() > 0
