"""Folders in every layout, and the folders that are no data set."""

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.data.dataset import find, images_in, pair, skipped_in
from nucleate.data.inspect import inspect, labelled
from nucleate.errors import DatasetError, ImageError
from nucleate.io.formats import FORMATS
from nucleate.io.prediction_json import PredictionRecord, write_record
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


NEAR_MISSES = [
    ("a_image.tif", "a_mask.tif"),
    ("a_img.tif", "a_masks.tif"),
    ("a.tif", "a_labels.tif"),
    ("a.tif", "a_Label.png"),
    ("a.tif", "a-labelled.png"),
    ("image_001.tif", "mask_001.tif"),
    ("img001.png", "mask001.png"),
    ("slide [x=0,y=0,w=9,h=9].tif", "slide [x=0,y=0,w=9,h=9]-labelled.png"),
    ("a.tif", "a.geojson"),
    ("a.tif", "masks/a.tif"),
    ("Images/a.tif", "Masks/a.tif"),
    ("IMAGES/a.tif", "LABELS/a.tif"),
    ("image/a.tif", "label/a.tif"),
    ("images/a.tif", "labels/a.tif"),
    ("x/a.tif", "y/a.tif"),
    ("images/a.tif", "masks/a_mask.png"),
    ("images/a.tif", "masks/a_masks.png"),
    ("images/a.tif", "masks/a_labels.tif"),
    ("images/a_img.tif", "masks/a_mask.tif"),
    ("images/img_7.tif", "masks/mask_7.tif"),
    ("images/a.tif", "images/a_masks.tif"),
    ("train/images/a.tif", "train/masks/a.tif"),
    ("Train/image/a.tif", "Train/label/a.tif"),
    ("train/a.tif", "train/a_masks.tif"),
    ("A01/a.tif", "A01/a_masks.tif"),
    ("A01/images/a.tif", "A01/masks/a.tif"),
    ("images/A01/a.tif", "masks/A01/a.tif"),
]


@pytest.mark.parametrize(("image", "mask"), NEAR_MISSES)
def test_layouts_with_one_meaning_are_read(tmp_path, image, mask):
    others = [(image.replace("a", "b", 1), mask.replace("a", "b", 1))] if Path(image).name[0] == "a" else []
    if any("/" in one for one in (image, mask)):
        others = [tuple(str(Path(one).parent / Path(one).name.replace("a", "b", 1)) for one in (image, mask))]
        others = others if Path(image).name[0] == "a" else []
    make(tmp_path, image, mask, *(one for pair_ in others for one in pair_))
    dataset = find(tmp_path)
    assert not dataset.unlabelled and len(dataset.labelled) == 1 + len(others) and dataset.notes == ()
    assert (dataset.labelled[0].image, dataset.labelled[0].mask) == (tmp_path / image, tmp_path / mask)
    assert images_in([tmp_path]) == sorted(sample.image for sample in dataset.labelled)


def test_the_usual_names_go_before_others(tmp_path):
    make(tmp_path, "images/a.tif", "raw/b.tif", "masks/a.tif", "annotations/a.geojson", "labels/notes.txt")
    assert [one.mask for one in find(tmp_path).labelled] == [tmp_path / "masks/a.tif"]
    assert find(tmp_path).unlabelled == ()


def test_many_files_are_matched_in_a_moment(tmp_path):
    make(tmp_path, *(f"images/cell_{number}_img.tif" for number in range(3000)))
    make(tmp_path, *(f"masks/cell_{number}_mask.tif" for number in range(3000)))
    start = time.process_time()
    assert len(find(tmp_path).labelled) == 3000
    assert time.process_time() - start < 5


def test_plates_keep_their_subfolders(tmp_path):
    make(tmp_path, "A01/f1.tif", "A02/f1.tif", "A02/f1_masks.tif", "A03/f1.tif", "model/model.json", "model/curves.png")
    dataset = find(tmp_path)
    assert dataset.layout == "side by side, in 3 subfolders"
    assert [one.name for one in dataset.labelled] == ["A02/f1"]
    assert [one.name for one in dataset.unlabelled] == ["A01/f1", "A03/f1"]
    assert images_in([tmp_path]) == [tmp_path / f"A0{number}/f1.tif" for number in (1, 2, 3)]


def test_equal_stems_keep_their_endings(tmp_path):
    make(tmp_path, "A01.tif", "A01.jpg", "b.tif", "b_masks.tif")
    assert [one.name for one in find(tmp_path).unlabelled] == ["A01.jpg", "A01.tif"]


FORMS = {
    "Cellpose": (["a.tif", "a_seg.npy"], "Cellpose"),
    "NumPy": (["images/a.tif", "masks/a.npy"], "imwrite"),
    "MATLAB": (["images/a.tif", "labels/a.mat"], "MATLAB"),
    "labelme": (["a.png", "a.json"], "own-images.md"),
    "XML annotations": (["a.png", "a.xml"], "GeoJSON"),
    "YOLO": (["images/a.png", "labels/a.txt"], "YOLO"),
}
TEXTS = {
    "a.json": '{"shapes": [{"points": [[1, 2]]}]}',
    "a.xml": "<Annotations><Annotation/></Annotations>",
    "a.txt": "0 0.1 0.2 0.3 0.4\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_masks_in_another_form_are_named_with_the_way_out(tmp_path, form):
    files, way = FORMS[form]
    make(tmp_path, *files)
    for file in files:
        (tmp_path / file).write_text(TEXTS.get(Path(file).name, ""))
    dataset = find(tmp_path)
    assert dataset.layout == form and not dataset.labelled and len(dataset.unlabelled) == 1
    assert any(way in note for note in dataset.notes)
    with pytest.raises(DatasetError, match="no mask that can be read: .*" + re.escape(way)):
        labelled(tmp_path)


@pytest.mark.parametrize("form", [".txt", ".xml", ".json"])
def test_notes_of_a_microscope_are_no_masks(tmp_path, form):
    make(tmp_path, "a.tif")
    (tmp_path / f"a{form}").write_text('{"exposure": 3}')
    assert find(tmp_path).notes == ()


def test_what_cannot_be_read_is_counted_by_kind(tmp_path):
    make(
        tmp_path, "images/a.tif", *(f"images/{name}.oib" for name in "bcd"), "images/e.bmp", "images/f.BMP", "notes.txt"
    )
    oib, bmp = find(tmp_path).notes
    assert "3 OIB" in oib and "Bio-Formats" in oib and "2 BMP" in bmp
    assert skipped_in([tmp_path]) == [oib, bmp] and skipped_in([tmp_path / "images/a.tif"]) == []
    make(tmp_path, "raw/x.oif")
    with pytest.raises(DatasetError, match=r"holds no image.* 1 OIF"):
        images_in([tmp_path / "raw"])


def predicted(folder, *stems, formats=("tif", "csv")):
    """What prediction writes: records, and files as they are told there."""
    for stem in stems:
        files = {kind: FORMATS[kind].file(stem) for kind in formats}
        record = PredictionRecord(str(folder / f"{stem}.tif"), 0, (0, 0), (9, 9), 1.0, None, 0, files)
        write_record(folder / f"{stem}.json", record)
        make(folder, *files.values(), f"{stem}_overlay.png", f"{stem}_entropy.tif")


def test_results_are_masks_of_their_images_and_never_images(tmp_path):
    make(tmp_path, "a.tif", "b.tif", "elsewhere/keep.txt")
    predicted(tmp_path, "a", "gone")
    dataset = find(tmp_path)
    assert [(one.name, one.mask and one.mask.name) for one in dataset.labelled] == [("a", "a_labels.tif")]
    assert [one.name for one in dataset.unlabelled] == ["b"] and dataset.notes == ()
    assert images_in([tmp_path]) == [tmp_path / "a.tif", tmp_path / "b.tif"]
    predicted(tmp_path / "elsewhere", "a")
    with pytest.raises(DatasetError, match="holds no image"):
        images_in([tmp_path / "elsewhere"])


def test_a_mask_of_ones_own_goes_before_a_result_and_one_format_before_the_others(tmp_path):
    make(tmp_path, "a.tif", "a_masks.tif", "b.tif")
    predicted(tmp_path, "a", "b", formats=("geojson", "roi", "tif"))
    assert [one.mask.name for one in find(tmp_path).labelled] == ["a_masks.tif", "b_labels.tif"]


def test_files_that_are_named_like_masks_are_images_where_nothing_else_is(tmp_path):
    make(tmp_path, "cells_masks.png", "exp1_labels.png", "n_overlay.png", "DAPI_label.png")
    assert len(images_in([tmp_path])) == 4


def test_outlines_of_another_name_and_images_in_other_places_are_told(tmp_path):
    make(tmp_path, "a.tif", "tissue.geojson")
    (note,) = find(tmp_path).notes
    assert "tissue.geojson" in note and "a.geojson" in note
    make(tmp_path, "set/images/a.tif", "set/b.tif", "set/masks/a.tif")
    (note,) = find(tmp_path / "set").notes
    assert note.startswith("1 image beside images/ was not read")
    make(tmp_path, "split/train/images/a.tif", "split/train/masks/a.tif", "split/test/images/b.tif")
    (note,) = find(tmp_path / "split").notes
    assert "Only train/ was read, and not test/" in note


@settings(deadline=None, max_examples=30)
@given(
    masked=st.sets(st.text("abcxyz-0123", min_size=1, max_size=6), max_size=6),
    bare=st.sets(st.text("ABCXYZ", min_size=1, max_size=6), max_size=6),
    seed=st.integers(0, 99),
)
def test_every_image_is_found_once_in_order_whatever_the_order_of_creation(tmp_path_factory, masked, bare, seed):
    folder = tmp_path_factory.mktemp("data")
    # Some file systems hold a.png and A.png to be one; the sets here differ beyond case.
    bare -= {name.upper() for name in masked}
    if not masked | bare:
        return
    names = [f"images/{name}.png" for name in masked | bare] + [f"masks/{name}.tif" for name in masked]
    random.Random(seed).shuffle(names)
    dataset = find(make(folder, "masks/.keep", *names))
    assert [s.name for s in dataset.labelled] == sorted(masked)
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
