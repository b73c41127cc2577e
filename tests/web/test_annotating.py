"""The page with the model that really learns: a correction of the page is one of the journal."""

import time

import numpy as np
import pytest
import tifffile
from tests.training.online_models import small_model

from nucleate.annotating import annotating
from nucleate.data.synthetic import fluorescence
from nucleate.errors import NucleateError
from nucleate.training.online import OnlineLearner


@pytest.fixture
def model(tmp_path):
    """A small model that can learn."""
    folder = tmp_path / "model"
    small_model(folder)
    return folder


def test_a_tile_of_the_page_is_learnt_from_and_another_process_is_refused(model, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    image, truth = fluorescence(seed=4, height=64, width=80, diameter=12.0)
    tifffile.imwrite(images / "cells.tif", image.pixels)
    with annotating(str(model), images, order="random") as work:
        place = work.next()
        end = time.monotonic() + 120
        while (guess := work.guess(place.id)) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert guess.labels.shape == truth.shape and 0 <= guess.mean <= 1
        with work.sheet(place.id) as sheet:
            flat = truth.reshape(-1)[: 40 * 80]
            sheet.apply("stroke-0", "polygon", [v for at, label in enumerate(flat.tolist()) for v in (at, 1, label)])
        with pytest.raises(NucleateError, match="another process"), annotating(str(model), images):
            pass
        assert work.finish(place.id)
        while not work.report()["corrections"]:
            assert time.monotonic() < end and work.report()["problem"] is None
            time.sleep(0.01)
    with OnlineLearner.open(model) as learner:
        (update,) = learner.log()
        assert learner.waiting() == [] and update.nuclei == len(np.unique(flat)) - 1
        assert update.name.startswith("cells.tif_y0_x0_r1")
    with annotating(str(model), images) as work:
        assert work.report()["done"] == work.report()["corrections"] == 1 and work.report()["waiting"] == 0
