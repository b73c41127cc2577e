"""Folders with labels in the forms that other programs write: found, read and named."""

import json
import zipfile

import numpy as np
import pytest
import shapely
import tifffile
from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from shapely.geometry import mapping
from skimage.io import imsave

from nucleate.data.dataset import find, pair
from nucleate.data.inspect import inspect, labelled
from nucleate.data.masks import interpret
from nucleate.errors import DatasetError, ImageError
from nucleate.io.formats import imagej_roi
from nucleate.io.label_file import of_colours, read_label_file, read_labels

SHAPE = (30, 40)
LABELS = np.zeros(SHAPE, np.int32)
LABELS[3:9, 4:12], LABELS[15:25, 20:30] = 1, 2


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.arange(1200, dtype=np.uint16).reshape(SHAPE) % 251 * 9, check_contrast=False)


def rectangle(box):
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=box[0], left=box[1], bottom=box[2], right=box[3])
    return roi.tobytes()


def rois(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.roi", rectangle((3, 4, 9, 12)))
        archive.writestr("2.roi", rectangle((15, 20, 25, 30)))


def geojson(path, *more):
    boxes = [shapely.box(4, 3, 12, 9), shapely.box(20, 15, 30, 25)]
    features = [{"type": "Feature", "properties": {}, "geometry": mapping(box)} for box in boxes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*features, *more]}))


def coco(path, *names):
    images = [{"id": n, "file_name": name, "height": 30, "width": 40} for n, name in enumerate(names)]
    boxes = [[4, 3, 12, 3, 12, 9, 4, 9], [20, 15, 30, 15, 30, 25, 20, 25]]
    annotations = [{"image_id": one["id"], "segmentation": [box]} for one in images for box in boxes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def pages(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.stack([(n == LABELS) * np.uint8(255) for n in (1, 2)]), photometric="minisblack")


def one_each(folder):
    folder.mkdir(parents=True)
    for number in (1, 2):
        imsave(folder / f"{number}.png", (number == LABELS) * np.uint8(255), check_contrast=False)


FORMS = {
    "geojson beside": ("a.png", lambda root: geojson(root / "a.geojson"), "side by side, masks as GeoJSON"),
    "named as QuPath names it": ("a.png", lambda root: geojson(root / "a.png.geojson"), "masks as GeoJSON"),
    "annotations": ("a.png", lambda root: geojson(root / "annotations/a.geojson"), "images + masks, masks as GeoJSON"),
    "annotations beside images": ("images/a.png", lambda root: geojson(root / "annotations/a.geojson"), "as GeoJSON"),
    "rois": ("a.png", lambda root: rois(root / "a_rois.zip"), "side by side, masks as ImageJ regions"),
    "roiset": ("a.png", lambda root: rois(root / "RoiSet.zip"), "side by side, masks as ImageJ regions"),
    "roiset of a plate": ("A01/a.png", lambda root: rois(root / "A01/RoiSet.zip"), "masks as ImageJ regions"),
    "roiset in masks": ("images/a.png", lambda root: rois(root / "masks/RoiSet.zip"), "masks as ImageJ regions"),
    "coco": ("images/a.png", lambda root: coco(root / "annotations.json", "a.png"), "masks as COCO"),
    "coco in annotations": ("images/a.png", lambda root: coco(root / "annotations/instances.json", "a.png"), "COCO"),
    "coco beside": ("train/a.png", lambda root: coco(root / "train/_annotations.coco.json", "a.png"), "COCO"),
    "bowl": ("x1/images/x1.png", lambda root: one_each(root / "x1/masks"), "one mask a nucleus"),
    "masks of each image": ("images/a.png", lambda root: one_each(root / "masks/a"), "one mask a nucleus"),
    "pages": ("images/a.png", lambda root: pages(root / "masks/a.tif"), "images + masks"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_and_read(tmp_path, form):
    path, write, layout = FORMS[form]
    image(tmp_path / path)
    write(tmp_path)
    dataset = find(tmp_path)
    assert layout in dataset.layout and dataset.notes == ()
    (sample,) = dataset.labelled
    np.testing.assert_array_equal(pair(sample)[1], LABELS)
    report = inspect(tmp_path)
    assert report.nuclei == 2 and report.sound, report
    ((_, labels),) = labelled(tmp_path).pairs
    np.testing.assert_array_equal(labels, LABELS)


def test_a_roiset_of_several_images_is_not_guessed(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    rois(tmp_path / "RoiSet.zip")
    dataset = find(tmp_path)
    assert not dataset.labelled and "name it a_rois.zip" in dataset.notes[0]


def test_images_that_a_coco_file_names_and_that_are_not_there_are_named(tmp_path):
    image(tmp_path / "images/a.png")
    coco(tmp_path / "annotations.json", "a.png", "gone.png", "b.png")
    dataset = find(tmp_path)
    assert len(dataset.labelled) == 1
    assert dataset.notes == (
        f"{tmp_path / 'annotations.json'} names 2 images that are not here, such as gone.png: add them, or export the"
        " annotations again.",
    )
    coco(tmp_path / "more.json", "a.png")
    with pytest.raises(DatasetError, match=r"mask the same image, a\.png"):
        find(tmp_path)


def test_an_image_of_a_coco_file_without_annotations_has_no_nuclei(tmp_path):
    image(tmp_path / "images/a.png")
    entry = {"id": 1, "file_name": "a.png", "height": 30, "width": 40}
    (tmp_path / "annotations.json").write_text(json.dumps({"images": [entry], "annotations": []}))
    assert pair(find(tmp_path).labelled[0])[1].max() == 0


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"1.png": np.eye(5, dtype=np.uint8) * 3}, "is 5 x 5 pixels where 40 x 30 are needed"),
        ({"1.png": LABELS.astype(np.uint8)}, "holds 3 values where one nucleus is needed"),
    ],
)
def test_masks_of_single_nuclei_that_are_none(tmp_path, files, says):
    image(tmp_path / "images/a.png")
    (tmp_path / "masks/a").mkdir(parents=True)
    for name, values in files.items():
        imsave(tmp_path / "masks/a" / name, values, check_contrast=False)
    with pytest.raises(ImageError, match=says):
        pair(find(tmp_path).labelled[0])


def test_masks_of_single_nuclei_that_overlap_are_counted(tmp_path):
    for number, box in enumerate([slice(0, 6), slice(5, 9)]):
        mask = np.zeros(SHAPE, np.uint8)
        mask[box, :4] = 1
        imsave(tmp_path / f"{number}.png", mask, check_contrast=False)
    assert read_label_file(tmp_path, SHAPE).notes == (
        "1 mask overlaps earlier ones, on 4 pixels: the later one is on top.",
    )


def test_a_stack_is_no_masks_of_single_nuclei(tmp_path):
    stack = np.zeros((3, *SHAPE), np.uint8)
    stack[:, 3:9, 4:12] = 1
    tifffile.imwrite(tmp_path / "z.tif", stack, photometric="minisblack")
    with pytest.raises(ImageError, match="one plane is needed"):
        read_labels(tmp_path / "z.tif")


def test_whole_numbers_in_floats_are_labels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.float32))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), LABELS)


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255)])
def test_colours_are_nuclei_when_said(tmp_path, ground):
    image(tmp_path / "a.png")
    colours = np.array([ground, (255, 0, 0), (0, 9, 200)], np.uint8)
    imsave(tmp_path / "a_masks.png", colours[LABELS], check_contrast=False)
    with pytest.raises(DatasetError, match="--masks colours"):
        labelled(tmp_path)
    ((_, labels),) = labelled(tmp_path, "colours").pairs
    np.testing.assert_array_equal(labels > 0, LABELS > 0)
    assert len(np.unique(labels[LABELS == 1])) == len(np.unique(labels[LABELS == 2])) == 1 and labels.max() >= 2


def test_colours_of_a_jpeg_are_refused_and_one_colour_in_two_places_is_said(tmp_path):
    imsave(tmp_path / "a.jpg", np.zeros((*SHAPE, 3), np.uint8), check_contrast=False)
    with pytest.raises(ImageError, match="is a JPEG, which changes colours"):
        read_label_file(tmp_path / "a.jpg", colours=True)
    labels = of_colours((LABELS > 0)[..., None] * np.array([5, 6, 7]))
    assert any("far apart" in oddity for oddity in interpret(labels, "colours").oddities)


def test_that_touching_nuclei_of_a_binary_mask_are_one_is_said():
    found = interpret((LABELS > 0).astype(np.int32) * 255, "binary")
    assert found.oddities == ("Each of 2 pieces was taken as one nucleus: two that touch are one.",)
    assert interpret(LABELS, "binary").oddities == ()


def test_seg_npy_is_refused_with_the_way_out(tmp_path):
    image(tmp_path / "a.png")
    np.save(tmp_path / "a_seg.npy", {"masks": LABELS}, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"File > Save masks as PNG/TIF \(NAME_cp_masks.png\)"):
        labelled(tmp_path)
    with pytest.raises(ImageError, match=r"_cp_masks\.png"):
        read_labels(tmp_path / "a_seg.npy")


def roi_of(kind, ring):
    roi = ImagejRoi.frompoints(ring)
    roi.roitype = kind
    return roi


@pytest.mark.parametrize("kind", [ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED])
def test_polygons_of_imagej_are_those_of_shapely(tmp_path, kind):
    ring = np.array(shapely.Point(20, 15).buffer(8.3, quad_segs=6).exterior.coords)[:-1]
    (tmp_path / "a.roi").write_bytes(roi_of(kind, ring).tobytes())
    drawn = ImagejRoi.frombytes((tmp_path / "a.roi").read_bytes()).coordinates()
    y, x = np.indices(SHAPE) + 0.5
    np.testing.assert_array_equal(
        read_labels(tmp_path / "a.roi", SHAPE), shapely.contains_xy(shapely.Polygon(drawn), x, y)
    )


def test_ovals_of_imagej_are_ellipses_and_composites_have_holes(tmp_path):
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, top=2, left=4, bottom=26, right=36)
    (tmp_path / "a.roi").write_bytes(oval.tobytes())
    y, x = np.indices(SHAPE) + 0.5
    distance = ((x - 20) / 16) ** 2 + ((y - 14) / 12) ** 2
    labels = read_labels(tmp_path / "a.roi", SHAPE)
    assert (labels[distance < 0.998] == 1).all() and (labels[distance > 1] == 0).all()
    path = [0, 4, 3, 1, 12, 3, 1, 12, 9, 1, 4, 9, 4, 0, 6, 5, 1, 8, 5, 1, 8, 7, 1, 6, 7, 4]
    hole = ImagejRoi(roitype=ROI_TYPE.RECT, top=3, left=4, bottom=9, right=12)
    hole.multi_coordinates = np.array(path, np.float32)
    hole.shape_roi_size = len(path)
    (tmp_path / "b.roi").write_bytes(hole.tobytes())
    expected = np.minimum(LABELS, 1)
    expected[15:], expected[5:7, 6:8] = 0, 0
    np.testing.assert_array_equal(read_labels(tmp_path / "b.roi", SHAPE), expected)


def test_lines_are_left_out_and_a_bomb_is_refused(tmp_path, monkeypatch):
    line = ImagejRoi.frompoints([[1, 1], [9, 9], [3, 4]])
    line.roitype = ROI_TYPE.POLYLINE
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.roi", line.tobytes())
        archive.writestr("2.roi", rectangle((3, 4, 9, 12)))
    found = read_label_file(tmp_path / "a.zip", SHAPE)
    assert found.labels.sum() == 48 and found.notes == ("1 point or line is left out, having no area.",)
    monkeypatch.setattr(imagej_roi, "LARGEST_PIECE", 10**5)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.roi", b"Iout" + bytes(10**6))
    with pytest.raises(ImageError, match=r"b\.zip unpacks to 1000004 bytes of regions, above the limit"):
        read_labels(tmp_path / "b.zip")


def test_a_region_that_ellipses_are_stored_as_is_its_polygon(tmp_path):
    ring = np.array(shapely.Point(20, 15).buffer(9).exterior.coords)[:-1]
    roi = roi_of(ROI_TYPE.FREEHAND, ring)
    roi.subtype = ROI_SUBTYPE.ELLIPSE
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    assert abs(int(read_labels(tmp_path / "a.roi", SHAPE).sum()) - np.pi * 81) < 8
