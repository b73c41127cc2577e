"""The predictions of a folder: which there are, and what is said of those that cannot be shown."""

import json
import threading

import numpy as np
import pytest
import tifffile

from nucleate.errors import InputError
from nucleate.inference.resume import work_folder
from nucleate.io.formats import entropy_tiff
from nucleate.types import Box
from nucleate.web import gallery as galleries
from nucleate.web.gallery import Gallery


def about_of(gallery, number=0):
    with gallery.image(number) as shown:
        return shown.about()


@pytest.fixture
def opened():
    """Opens galleries, and closes them at the end."""
    made = []
    yield lambda folder, truth=None: made.append(Gallery(folder, truth)) or made[-1]
    for gallery in made:
        gallery.close()


@pytest.fixture
def folder(tmp_path, predicted):
    labels = np.zeros((30, 40), np.int32)
    labels[5:9, 5:9] = 1
    return predicted(tmp_path / "out", "cells", np.ones((30, 40), np.uint8), labels, pixel_size=0.5)


def test_images_are_listed_by_name_and_opened_by_number(opened, shown):
    gallery = opened(shown)
    assert gallery.names == ["squares", "tissue"] and gallery.notes == []
    about = about_of(gallery)
    assert (about["height"], about["width"], about["depth"]) == (400, 500, 1)
    assert (about["origin"], about["shape"], about["downsample"]) == ((40, 60), (100, 120), 2.0)
    assert about["pixelSize"] is None and about["count"] == 2 and about["outlines"] and about["measured"]
    assert about_of(gallery, 1)["pixelSize"] == 0.25
    with gallery.image(1) as first, gallery.image(1) as second:
        assert first is second


@pytest.mark.parametrize("number", [-1, 2, 10**20])
def test_there_are_no_other_images(opened, shown, number):
    with pytest.raises(InputError, match="no image"):
        about_of(opened(shown), number)


def test_pixel_size_is_that_of_the_whole_slide(opened, folder):
    record = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps({**record, "downsample": 4.0}))
    assert about_of(opened(folder))["pixelSize"] == 0.125


def test_a_record_that_cannot_be_used_does_not_hide_the_others(opened, folder):
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"some": "settings"}')
    gallery = opened(folder)
    assert gallery.names == ["cells"]
    assert len(gallery.notes) == 1 and "broken.json is not JSON" in gallery.notes[0]


def test_a_folder_without_predictions_is_refused(opened, tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no prediction: give the --out of nucleate predict"):
        opened(tmp_path)
    with pytest.raises(InputError, match="none cannot be read"):
        opened(tmp_path / "none")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json is not JSON"):
        opened(tmp_path)


def test_an_image_that_is_gone_is_named_and_found_again(opened, folder):
    gallery = opened(folder)
    image = folder / "images" / "cells.tif"
    image.rename(folder / "moved.tif")
    with pytest.raises(
        InputError, match=r"cells\.tif does not exist: put the image back there, or run nucleate predict"
    ):
        about_of(gallery)
    (folder / "moved.tif").rename(image)
    assert about_of(gallery)["width"] == 40


def test_labels_of_another_size_are_refused(opened, folder):
    tifffile.imwrite(folder / "cells_labels.tif", np.zeros((3, 3), np.uint16))
    with pytest.raises(InputError, match=r"cells_labels\.tif is not of the size"):
        about_of(opened(folder))


def test_outlines_come_from_zarr_where_there_is_no_tiff(opened, tmp_path, predicted):
    labels = np.zeros((300, 400), np.int32)
    labels[5:9, 5:9], labels[200:260, 300:333] = 1, 2
    folder = predicted(tmp_path / "out", "cells", np.ones((300, 400), np.uint8), labels, formats=("zarr",))
    gallery = opened(folder)
    assert about_of(gallery)["outlines"]
    with gallery.image(0) as image:
        tile = image.labels.tile(0, 0, 0)
    np.testing.assert_array_equal(tile[1:-1, 1:-1], labels[: tile.shape[0] - 2, : tile.shape[1] - 2])


def test_what_was_not_written_is_not_shown(opened, folder):
    (folder / "cells_labels.tif").unlink()
    (folder / "cells.csv").unlink()
    about = about_of(opened(folder))
    assert not about["outlines"] and not about["measured"]


def test_outlines_come_from_geojson_and_regions_of_interest_where_there_is_no_label_image(opened, tmp_path, predicted):
    labels = np.zeros((30, 40), np.int32)
    labels[5:9, 5:9], labels[20:26, 30:33] = 1, 2
    for kind in ("geojson", "roi"):
        folder = predicted(
            tmp_path / kind, "cells", np.ones((90, 90), np.uint8), labels, formats=(kind,), origin=(7, 8)
        )
        with opened(folder).image(0) as shown:
            np.testing.assert_array_equal(shown.labels.tile(0, 0, 0)[1:31, 1:41], labels)
            assert shown.about()["labelsFile"] == shown.record.files[kind] and shown.about()["origin"] == (7, 8)


def test_the_outlines_of_a_large_image_are_not_filled(opened, tmp_path, predicted, monkeypatch):
    monkeypatch.setattr(galleries, "FILLED", 99)
    labels = np.eye(10, dtype=np.int32)
    folder = predicted(tmp_path, "cells", np.ones((10, 10), np.uint8), labels, formats=("geojson",))
    assert not about_of(opened(folder))["outlines"]


def test_results_in_folders_of_the_folder_are_found(opened, tmp_path, predicted):
    labels = np.eye(9, dtype=np.int32)
    for plate in ("plate1", "plate2"):
        predicted(tmp_path / plate, "A01", np.ones((9, 9), np.uint8), labels)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.json").write_text("{")
    gallery = opened(tmp_path)
    assert gallery.names == ["plate1/A01", "plate2/A01"] and gallery.notes == []
    assert about_of(gallery, 1)["count"] == 1


def test_images_that_are_not_finished_are_named(opened, folder):
    (work_folder(folder, "slide.1") / "blocks").mkdir(parents=True)
    tifffile.imwrite(folder / "images" / "more.tif", np.ones((3, 3), np.uint8))
    notes = opened(folder).notes
    assert notes[0].startswith("Not finished: slide.1; the same nucleate predict command with --resume")
    assert notes[1].startswith(f"1 of 2 images in {folder / 'images'} have no result here: more.tif; ")
    (folder / "cells.json").unlink()
    with pytest.raises(InputError, match=r"^Not finished: slide\.1; .* --resume"):
        opened(folder)


def test_few_images_are_open_at_once_but_none_is_closed_while_it_is_used(opened, tmp_path, predicted):
    labels = np.eye(9, dtype=np.int32)
    for number in range(galleries.OPENED + 3):
        predicted(tmp_path, f"cells{number}", np.full((9, 9), number, np.uint8), labels)
    gallery = opened(tmp_path)
    with gallery.image(0) as first:
        for number in range(1, galleries.OPENED + 3):
            about_of(gallery, number)
        assert list(gallery._places) == [0, *range(4, galleries.OPENED + 3)]
        assert first.tiles.tile(0, 0, 0).shape == (9, 9, 3)
    about_of(gallery, 1)
    assert len(gallery._places) == galleries.OPENED and 0 not in gallery._places


@pytest.mark.parametrize("layout", ["images + masks", "masks alone", "outlines"])
def test_true_masks_are_found_in_the_layouts_of_data_sets(opened, folder, tmp_path, layout, predicted):
    truth = np.zeros((30, 40), np.int32)
    truth[5:9, 6:12] = 3
    places = {
        "images + masks": "data/masks/cells.tif",
        "masks alone": "data/cells_masks.tif",
        "outlines": "data/cells.geojson",
    }
    path = tmp_path / places[layout]
    path.parent.mkdir(parents=True)
    if layout == "outlines":
        other = predicted(
            tmp_path / "by hand", "cells", np.ones((30, 40), np.uint8), np.minimum(truth, 1), formats=("geojson",)
        )
        (other / "cells.geojson").rename(path)
    else:
        tifffile.imwrite(path, truth.astype(np.uint16))
    if layout == "images + masks":
        (tmp_path / "data" / "images").mkdir()
        (tmp_path / "data" / "images" / "cells.tif").write_bytes((folder / "images" / "cells.tif").read_bytes())
    with opened(folder, tmp_path / "data").image(0) as shown:
        about = shown.about()
        assert about["truth"] == {"origin": (0, 0), "shape": (30, 40), "downsample": 1.0} and about["notes"] == []
        np.testing.assert_array_equal(shown.truth.tile(0, 0, 0)[1:31, 1:41] > 0, truth > 0)


def test_true_masks_that_do_not_fit_are_said(opened, folder, tmp_path):
    (tmp_path / "truth").mkdir()
    with pytest.raises(InputError, match="truth holds no true masks: give --truth a folder of label images"):
        opened(folder, tmp_path / "truth")
    tifffile.imwrite(tmp_path / "truth" / "other.tif", np.zeros((30, 40), np.uint16))
    about = about_of(opened(folder, tmp_path / "truth"))
    assert about["truth"] is None and about["notes"] == [f"{tmp_path / 'truth'} has no true labels of cells."]
    tifffile.imwrite(tmp_path / "truth" / "cells.tif", np.zeros((3, 4), np.uint16))
    about = about_of(opened(folder, tmp_path / "truth"))
    assert about["truth"] is None and "cells.tif is not of the size of cells" in about["notes"][0]
    (tmp_path / "truth" / "cells.tif").write_bytes(b"no image")
    about = about_of(opened(folder, tmp_path / "truth"))
    assert about["truth"] is None and "cells.tif is not a PNG, JPEG or TIFF" in about["notes"][0]


def test_the_entropy_is_shown_where_it_was_written(opened, folder):
    record = json.loads((folder / "cells.json").read_text())
    record["files"]["entropy"] = "cells_entropy.tif"
    (folder / "cells.json").write_text(json.dumps(record))
    bits = np.linspace(0, 1, 30 * 40, dtype=np.float16).reshape(30, 40)
    entropy_tiff.write(
        folder / "cells_entropy.tif", Box(0, 0, 30, 40), lambda box: bits[box.y : box.bottom, box.x : box.right]
    )
    with opened(folder).image(0) as shown:
        tile = shown.entropy.tile(0, 0, 0)
        assert tile.shape == (30, 40, 4) and (np.diff(tile[:, 20, 3].astype(int)) > 0).all()
        assert shown.about()["entropy"]["shape"] == (30, 40)


def test_an_image_that_takes_long_to_open_holds_up_no_other(opened, shown, monkeypatch):
    slow, seen = threading.Event(), []
    gallery = opened(shown)
    opening = Gallery._open

    def open_slowly(self, number):
        if number == 0:
            slow.wait(60)
        return opening(self, number)

    monkeypatch.setattr(Gallery, "_open", open_slowly)
    waiting = threading.Thread(target=lambda: seen.append(about_of(gallery)["width"]))
    waiting.start()
    assert about_of(gallery, 1)["width"] == 900 and seen == []
    slow.set()
    waiting.join()
    assert seen == [500]


def test_results_that_were_moved_with_their_images_are_shown(opened, folder, tmp_path):
    record = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps({**record, "relative": "images/cells.tif"}))
    folder.rename(tmp_path / "elsewhere")
    gallery = opened(tmp_path / "elsewhere")
    assert about_of(gallery)["width"] == 40 and gallery.notes == []


def test_each_image_of_a_file_that_holds_several_is_shown(opened, tmp_path, predicted):
    folder = predicted(tmp_path, "cells", np.ones((30, 40), np.uint8), np.eye(30, 40, dtype=np.int32))
    with tifffile.TiffWriter(folder / "images" / "cells.tif", ome=True) as file:
        file.write(np.ones((20, 20), np.uint8))
        file.write(np.ones((30, 40), np.uint8))
    record = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps({**record, "series": 2}))
    gallery = opened(folder)
    assert (about_of(gallery)["height"], about_of(gallery)["width"]) == (30, 40) and gallery.notes == []


def test_an_image_whose_name_no_system_allows_is_said(opened, folder):
    record = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps({**record, "image": "/" + "x" * 5000}))
    with pytest.raises(InputError, match="does not exist: put the image back"):
        about_of(opened(folder))
