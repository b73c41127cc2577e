"""The look through a folder: numbers that are right, each oddity named once, nothing raised for one bad file."""

import dataclasses
import io
import json

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from nucleate.data.contents import current
from nucleate.data.inspect import inspect, labelled
from nucleate.errors import DatasetError
from nucleate.evaluation import evaluate
from nucleate.io.digest import digest_of
from nucleate.io.prediction_json import PredictionRecord, write_record
from nucleate.report.console import print_folder_report

RNG = np.random.default_rng(5)


def noise(height=40, width=50, dtype=np.uint8):
    return RNG.normal(100, 15, (height, width)).astype(dtype)


def discs(*areas, height=40, width=50):
    """A mask of bars, `areas` pixels each, on rows of their own."""
    labels = np.zeros((height, width), np.uint16)
    for number, area in enumerate(areas, start=1):
        rows, rest = divmod(area, 10)
        top = (number - 1) * 6
        labels[top : top + rows, :10] = number
        labels[top + rows, :rest] = number
    return labels


def save(folder, name, image, mask=None):
    for part, values in (("images", image), ("masks", mask)):
        (folder / part).mkdir(exist_ok=True)
        if values is not None:
            tifffile.imwrite(folder / part / f"{name}.tif", values)


def printed(report, width=200):
    out = io.StringIO()
    print_folder_report(report, Console(file=out, width=width))
    return out.getvalue()


def oddities(folder):
    """All sentences on a folder of one image."""
    report = inspect(folder)
    (image,) = report.images
    assert report.unreadable == report.oddities == ()
    assert report.sound == (not image.oddities and not image.mistakes)
    return [*image.mistakes, *image.oddities]


def test_a_sound_folder(tmp_path):
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "\u00b5m", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "\u00b5m"}
    save(tmp_path, "a", noise(), discs(20, 30, 40))
    save(tmp_path, "b", noise())
    tifffile.imwrite(tmp_path / "images/c.ome.tif", noise(30, 60), metadata={"axes": "YX", **size})
    report = inspect(tmp_path)
    a, b, c = report.images
    assert (a.name, a.width, a.height, a.channels, a.dtype) == ("a", 50, 40, ("grey",), "uint8")
    assert (a.labelled, a.nuclei, a.pixel_size) == (True, 3, None)
    assert a.diameters == pytest.approx(np.percentile(2 * np.sqrt(np.array([20, 30, 40]) / np.pi), (5, 50, 95)))
    assert (b.labelled, b.nuclei, b.diameters) == (False, None, None)
    assert c.pixel_size == pytest.approx(0.5)
    assert report.sound and report.nuclei == 3 and report.diameters == a.diameters
    text = printed(report)
    assert "3: 1 labelled, 2 unlabelled" in text and "30 x 60" not in text and "60 x 30" in text
    assert "Nothing odd was found." in text


def test_the_report_goes_through_json(tmp_path):
    save(tmp_path, "a", noise(), discs(20))
    save(tmp_path, "b", noise(dtype=np.float32))
    (tmp_path / "images/c.png").write_bytes(b"text")
    report = dataclasses.asdict(inspect(tmp_path))
    read = json.loads(json.dumps(report, allow_nan=False))
    assert read["images"][0]["nuclei"] == 1 and len(read["unreadable"]) == 1


@settings(deadline=None, max_examples=15)
@given(areas=st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_areas_are_counted_whatever_the_numbers_are(tmp_path_factory, areas):
    folder = tmp_path_factory.mktemp("check")
    mask = discs(*areas).astype(np.uint32)
    save(folder, "a", noise(), mask * 1_000_003)
    report = inspect(folder)
    assert report.nuclei == len(areas)
    assert report.diameters == pytest.approx(np.percentile(2 * np.sqrt(np.array(areas) / np.pi), (5, 50, 95)))
    small = sum(area < 10 for area in areas)
    sentence = f"{small} {'nucleus' if small == 1 else 'nuclei'} of fewer than 10 pixels."
    assert report.images[0].oddities == ((sentence,) if small else ())


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.full((9, 9), 7, np.uint8), "The image is constant: every pixel is 7."),
        (np.full((9, 9), 0, np.uint16), "The image is constant: every pixel is 0."),
        (np.full((1, 1), 7, np.uint8), "The image is a single pixel."),
    ],
)
def test_images_with_nothing_to_see(tmp_path, image, says):
    save(tmp_path, "a", image)
    assert oddities(tmp_path) == [says]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.float32, 1)])
def test_saturation_is_seen_at_the_camera_s_own_maximum(tmp_path, dtype, top):
    image = (RNG.random((100, 100)) * top * 0.9).astype(dtype)
    image[:4] = top
    save(tmp_path, "a", image)
    assert oddities(tmp_path) == []
    image[:10] = top
    save(tmp_path, "a", image)
    (sentence,) = oddities(tmp_path)
    assert sentence.startswith("10% of grey is at its maximum, ")


def test_the_white_ground_of_stained_tissue_is_no_saturation(tmp_path):
    image = RNG.integers(0, 255, (50, 50, 3), dtype=np.uint8)
    image[:25] = 255
    save(tmp_path, "a", image)
    assert oddities(tmp_path) == []


def test_a_mask_without_a_nucleus(tmp_path):
    save(tmp_path, "a", noise(), np.zeros((40, 50), np.uint8))
    assert oddities(tmp_path) == ["The mask has no nucleus."]
    save(tmp_path, "a", noise(), np.full((40, 50), -1, np.int32))
    assert oddities(tmp_path) == ["The mask has no nucleus."]


@pytest.mark.parametrize(("value", "bars", "odd"), [(255, 1, True), (255, 3, True), (1, 3, True), (1, 1, False)])
def test_a_mask_of_one_value(tmp_path, value, bars, odd):
    save(tmp_path, "a", noise(), (discs(*[30] * bars) > 0).astype(np.uint8) * value)
    found = oddities(tmp_path)
    assert len(found) == odd
    if odd:
        mask = "The mask" if bars == 1 else "a.tif"
        assert found[0].startswith(f"{mask} has the single value {value} in {bars} piece{'s' if bars > 1 else ''}")
        assert (bars > 1) == bool(inspect(tmp_path).images[0].mistakes)


def test_pieces_far_apart_and_pieces_side_by_side(tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[0:6, 0:6] = mask[0:6, 7:13] = 1  # cut by a line of one pixel: still one nucleus
    mask[10:14, 0:4] = mask[30:34, 40:44] = 2
    save(tmp_path, "a", noise(), mask)
    assert oddities(tmp_path) == ["1 nucleus in pieces far apart: give each piece a number of its own."]


def test_sizes_that_differ(tmp_path):
    save(tmp_path, "a", noise(40, 50), discs(20, height=50, width=40))
    assert oddities(tmp_path) == [
        "a.tif is 40 x 50 pixels and its image 50 x 40: turn one of them by 90 degrees, and export both at one size."
    ]


def test_mixed_folders_and_copies(tmp_path):
    save(tmp_path, "a", noise())
    (tmp_path / "images/copy.tif").write_bytes((tmp_path / "images/a.tif").read_bytes())
    save(tmp_path, "b", noise(dtype=np.uint16))
    save(tmp_path, "c", RNG.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    report = inspect(tmp_path)
    assert report.oddities == (
        "The folder mixes channels: 3 images of grey, 1 image of red + green + blue.",
        "The folder mixes types of number: 3 images of uint8, 1 image of uint16.",
        "a, copy are the same file.",
    )
    assert all(sentence in printed(report) for sentence in report.oddities)


def test_unreadable_files_are_collected(tmp_path):
    save(tmp_path, "a", noise(), discs(20))
    save(tmp_path, "b", noise(), discs(20))
    save(tmp_path, "c", noise(), discs(20))
    cut = (tmp_path / "images/a.tif").read_bytes()[:600]
    (tmp_path / "images/a.tif").write_bytes(cut)
    (tmp_path / "masks/b.tif").write_bytes(cut)
    report = inspect(tmp_path)
    assert [image.name for image in report.images] == ["b", "c"]
    assert len(report.unreadable) == 1 and "images/a.tif" in report.unreadable[0]
    b, c = report.images
    assert (b.labelled, b.nuclei) == (True, None) and "masks/b.tif" in b.oddities[0]
    assert (c.nuclei, c.oddities, report.nuclei) == (1, (), 1)
    assert "unreadable" in printed(report)


def test_a_folder_of_unreadable_files_only(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    report = inspect(tmp_path)
    assert report.images == () and len(report.unreadable) == 1 and not report.sound
    assert "not a PNG" in printed(report)


def test_what_is_no_data_set_is_raised(tmp_path):
    with pytest.raises(DatasetError):
        inspect(tmp_path)


def test_a_large_folder_is_summed_up_and_only_odd_images_listed(tmp_path):
    for number in range(40):
        save(tmp_path, f"cell{number:03}", noise(8, 8))
    save(tmp_path, "cell017", np.zeros((8, 8), np.uint8))
    text = printed(inspect(tmp_path))
    assert "cell017" in text and "cell016" not in text and "40: 0 labelled, 40 unlabelled" in text


def test_names_are_printed_as_they_are(tmp_path):
    save(tmp_path, "[red]a[bold]", np.zeros((8, 8), np.uint8))
    assert "[red]a[bold]" in printed(inspect(tmp_path))


def test_images_that_are_folders_and_copies_of_them(tmp_path):
    for name in ("a", "b"):
        group = zarr.create_group(tmp_path / f"{name}.zarr", zarr_format=3)
        group.create_array("0", shape=(40, 50), chunks=(20, 50), dtype="u1")[:] = discs(20, 30)
        scale = [{"type": "scale", "scale": [1.0, 1.0]}]
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    report = inspect(tmp_path)
    assert [(one.name, one.width, one.height) for one in report.images] == [("a", 50, 40), ("b", 50, 40)]
    assert report.oddities == ("a, b are the same file.",)


def class_mask():
    return (discs(30, 30, 30) > 0).astype(np.uint8) * 255


def test_training_takes_what_is_sound_and_warns_of_what_may_be_wrong(tmp_path):
    save(tmp_path, "a", noise(), discs(20, 30, 5))
    save(tmp_path, "b", noise(), np.zeros((40, 50), np.uint8))
    save(tmp_path, "c", noise(dtype=np.uint16), np.zeros((40, 50), np.uint8))
    save(tmp_path, "d", noise(), discs(20))
    (tmp_path / "images/d.tif").write_bytes(b"II*\0")
    found = labelled(tmp_path)
    assert [image.name for image, _ in found.pairs] == ["a", "b", "c"]
    assert found.warnings[0].startswith("d is left out: ") and "d.tif" in found.warnings[0]
    assert found.warnings[1:] == (
        "The folder mixes types of number: 2 images of uint8, 1 image of uint16.",
        "a: 1 nucleus of fewer than 10 pixels.",
        "b, c: The mask has no nucleus.",
    )


def test_training_refuses_what_surely_is_a_mistake_and_says_how_often(tmp_path):
    save(tmp_path, "a", noise(), discs(20))
    for name in "bcd":
        save(tmp_path, name, noise(), class_mask())
    with pytest.raises(
        DatasetError, match=r"masks/b\.tif has the single value 255 .*\(and 2 more of 4 masks"
    ) as caught:
        labelled(tmp_path)
    assert "--masks binary" in str(caught.value)
    assert [labels.max() for _, labels in labelled(tmp_path, "binary").pairs] == [1, 3, 3, 3]
    assert [labels.max() for _, labels in labelled(tmp_path, "labels").pairs] == [1, 255, 255, 255]


def test_check_says_what_training_refuses(tmp_path):
    save(tmp_path, "a", noise(), discs(20))
    save(tmp_path, "b", noise(), class_mask())
    save(tmp_path, "c", noise(), noise())
    report = inspect(tmp_path)
    assert [image.nuclei for image in report.images] == [1, None, None] and report.nuclei == 1
    assert [len(image.mistakes) for image in report.images] == [0, 1, 1] and not report.sound
    text = printed(report)
    assert "Training and evaluation refuse these 2 masks." in text and "as an image does" in text
    assert inspect(tmp_path, "binary").images[1].nuclei == 3


def test_a_folder_of_which_nothing_can_be_read_is_no_training_set(tmp_path):
    save(tmp_path, "a", noise(), discs(20))
    (tmp_path / "images/a.tif").write_bytes(b"II*\0")
    with pytest.raises(DatasetError, match=r"No labelled image of .* can be read.*a\.tif"):
        labelled(tmp_path)


def test_a_mask_that_is_an_unchanged_result_is_named(tmp_path):
    labels = np.zeros((32, 32), np.uint16)
    labels[4:14, 4:14], labels[18:28, 18:28] = 1, 2
    pixels = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    digests = {"tif": digest_of(tmp_path / "a_labels.tif")}
    files = {"tif": "a_labels.tif"}
    record = PredictionRecord(
        str(tmp_path / "a.tif"), 0, (0, 0), (32, 32), downsample=1.0, pixel_size=None, count=2, files=files,
        digests=digests,
    )  # fmt: skip
    write_record(tmp_path / "a.json", record)

    def said():
        return " ".join(oddity for image in inspect(tmp_path).images for oddity in image.oddities)

    assert "nobody has changed it" in said()
    mine = tmp_path / "b.tif"
    tifffile.imwrite(mine, labels)
    assert any("no true mask" in one for one in evaluate(mine, tmp_path / "a_labels.tif").warnings)
    assert any("with itself" in one for one in evaluate(mine, mine).warnings)
    labels[20, 20] = 0
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    assert "nobody has changed it" not in said()
    assert not any("no true mask" in one for one in evaluate(mine, tmp_path / "a_labels.tif").warnings)


def test_cell_types_in_place_of_numbers_are_refused(tmp_path):
    y, x = np.mgrid[:200, :200]
    labels = np.zeros((200, 200), np.uint16)
    for number in range(12):
        cy, cx = 30 + 50 * (number // 4), 25 + 50 * (number % 4)
        labels[np.hypot(y - cy, x - cx) < 9] = number % 5 + 1
    tifffile.imwrite(tmp_path / "a.tif", (labels > 0) * np.uint8(100) + noise(200, 200) // 4)
    tifffile.imwrite(tmp_path / "a_masks.tif", labels)
    with pytest.raises(DatasetError, match="classes of pixels"):
        labelled(tmp_path)
    assert labelled(tmp_path, "binary").pairs[0][1].max() == 12


@pytest.mark.parametrize("changed", ["a_labels.tif", "a_labels.zarr"])
def test_of_a_result_in_two_formats_the_corrected_one_counts(tmp_path, changed):
    results, true = tmp_path / "results", np.zeros((32, 32), np.uint16)
    true[4:14, 4:14], true[18:28, 18:28] = 1, 2
    found, results_of = np.where(true == 2, 0, true).astype(np.uint16), {}
    results.mkdir()
    names = {"tif": "a_labels.tif", "zarr": "a_labels.zarr"}
    tifffile.imwrite(results / names["tif"], found)
    zarr.save_array(results / names["zarr"], found)
    for kind in ("tif", "zarr"):
        results_of[kind] = digest_of(results / names[kind])
    files = {kind: names[kind] for kind in results_of}
    record = PredictionRecord(
        str(tmp_path / "a.tif"),
        0,
        (0, 0),
        (32, 32),
        downsample=1.0,
        pixel_size=None,
        count=1,
        files=files,
        digests=results_of,
    )
    write_record(results / "a.json", record)
    if changed.endswith("tif"):
        tifffile.imwrite(results / changed, true)
    else:
        (results / changed / "note").write_text("corrected")
    assert current([results / file for file in files.values()]) == results / changed
    other = next(file for file in files.values() if file != changed)
    if other.endswith("tif"):
        tifffile.imwrite(results / other, true)
    else:
        (results / other / "note").write_text("corrected")
    with pytest.raises(DatasetError, match="were both changed"):
        current([results / file for file in files.values()])
