"""The predictions of a folder: which there are, and what is said of those that cannot be shown."""

import json

import numpy as np
import pytest
import tifffile

from nucleate.errors import ImageError, InputError
from nucleate.web.gallery import Gallery


@pytest.fixture
def opened():
    """Opens galleries, and closes them at the end."""
    made = []
    yield lambda folder: made.append(Gallery(folder)) or made[-1]
    for gallery in made:
        gallery.close()


@pytest.fixture
def folder(tmp_path, predicted):
    labels = np.zeros((30, 40), np.int32)
    labels[5:9, 5:9] = 1
    return predicted(tmp_path / "out", "cells", np.ones((30, 40), np.uint8), labels, pixel_size=0.5)


def test_images_are_listed_by_name_and_opened_by_number(opened, shown):
    gallery = opened(shown)
    assert gallery.names == ["squares", "tissue"] and gallery.problems == []
    about = gallery[0].about()
    assert (about["height"], about["width"], about["depth"]) == (400, 500, 1)
    assert (about["origin"], about["shape"], about["downsample"]) == ((40, 60), (100, 120), 2.0)
    assert about["pixelSize"] is None and about["count"] == 2 and about["outlines"] and about["measured"]
    assert gallery[1].about()["pixelSize"] == 0.25
    assert gallery[1] is gallery[1]


@pytest.mark.parametrize("number", [-1, 2, 10**20])
def test_there_are_no_other_images(opened, shown, number):
    with pytest.raises(InputError, match="no image"):
        opened(shown)[number]


def test_pixel_size_is_that_of_the_whole_slide(opened, folder):
    record = json.loads((folder / "cells.json").read_text())
    (folder / "cells.json").write_text(json.dumps({**record, "downsample": 4.0}))
    assert opened(folder)[0].about()["pixelSize"] == 0.125


def test_a_record_that_cannot_be_used_does_not_hide_the_others(opened, folder):
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"some": "settings"}')
    gallery = opened(folder)
    assert gallery.names == ["cells"]
    assert len(gallery.problems) == 1 and "broken.json is not JSON" in gallery.problems[0]


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
    with pytest.raises(ImageError, match=r"cells\.tif does not exist"):
        gallery[0]
    (folder / "moved.tif").rename(image)
    assert gallery[0].about()["width"] == 40


def test_labels_of_another_size_are_refused(opened, folder):
    tifffile.imwrite(folder / "cells_labels.tif", np.zeros((3, 3), np.uint16))
    with pytest.raises(InputError, match=r"cells_labels\.tif is not of the size"):
        opened(folder)[0]


def test_outlines_come_from_zarr_where_there_is_no_tiff(opened, tmp_path, predicted):
    labels = np.zeros((300, 400), np.int32)
    labels[5:9, 5:9], labels[200:260, 300:333] = 1, 2
    folder = predicted(tmp_path / "out", "cells", np.ones((300, 400), np.uint8), labels, formats=("zarr",))
    gallery = opened(folder)
    assert gallery[0].about()["outlines"]
    tile = gallery[0].labels.tile(0, 0, 0)
    np.testing.assert_array_equal(tile[1:-1, 1:-1], labels[: tile.shape[0] - 2, : tile.shape[1] - 2])


def test_what_was_not_written_is_not_shown(opened, folder):
    (folder / "cells_labels.tif").unlink()
    (folder / "cells.csv").unlink()
    about = opened(folder)[0].about()
    assert not about["outlines"] and not about["measured"]
