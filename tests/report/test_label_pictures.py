"""Pictures of the first images with their labels."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image as PillowImage
from skimage.io import imsave

from nucleate.errors import DatasetError, OutputError
from nucleate.io.formats.image_tiff import write_labels
from nucleate.report.label_pictures import write_pictures


def data_set(folder, count, labels=None):
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        imsave(folder / f"images/{number}.png", np.full((30, 40), 7 + number, np.uint8), check_contrast=False)
        if labels is not None:
            write_labels(folder / f"masks/{number}.tif", labels)
    return folder


def test_the_first_three_are_drawn_with_outlines_and_what_is_unknown_is_hatched(tmp_path):
    labels = np.zeros((30, 40), np.int32)
    labels[5:12, 5:12], labels[:, 30:] = 1, -1
    folder = data_set(tmp_path / "data", 5, labels)
    written = write_pictures(folder, tmp_path / "out")
    assert [path.name for path in written] == ["0_check.png", "1_check.png", "2_check.png"]
    picture = imagecodecs.png_decode(written[0].read_bytes())
    assert picture.shape == (30, 40, 3) and (picture[5, 5] != picture[8, 8]).any()
    assert len(np.unique(picture[:, 30:])) > 1 and len(np.unique(picture[15:, :29])) == 1
    with PillowImage.open(written[0]) as theirs:
        assert theirs.text == {"Software": "nucleate"}
    before = written[0].read_bytes()
    assert write_pictures(folder, tmp_path / "out") == written and written[0].read_bytes() == before


def test_without_masks_images_are_drawn_and_nothing_else_is_replaced(tmp_path):
    folder = data_set(tmp_path / "data", 1)
    (path,) = write_pictures(folder, tmp_path / "out")
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="did not write it: choose another folder"):
        write_pictures(folder, tmp_path / "out")
    (folder / "images/0.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match="No image"):
        write_pictures(folder, tmp_path / "out")
