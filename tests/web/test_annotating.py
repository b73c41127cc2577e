"""The page with the model that really learns: a correction of the page is one of the journal."""

import os
import sys
import threading
import time

import numpy as np
import pytest
import tifffile
from tests.training.online_models import drawn, small_model

from nucleate.annotating import annotating
from nucleate.data.synthetic import fluorescence
from nucleate.errors import NucleateError
from nucleate.training.online import OnlineLearner
from nucleate.web.annotation.worker import NICE


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_what_computes_steps_back_behind_the_page(model, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "cells.tif", drawn(0)[0].pixels)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    before = {thread.ident for thread in threading.enumerate()}
    with annotating(str(model), images):
        started = [thread for thread in threading.enumerate() if thread.ident not in before]
        end = time.monotonic() + 60
        while priorities(started) != {max(own, NICE)}:
            assert time.monotonic() < end, priorities(started)
            time.sleep(0.01)
    assert {thread.name.partition("_")[0] for thread in started} == {"nucleate-core", "learning"}
    assert own == os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def priorities(threads):
    return {os.getpriority(os.PRIO_PROCESS, thread.native_id) for thread in threads}
