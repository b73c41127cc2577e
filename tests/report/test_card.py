"""The card and the curves of a model folder."""

from pathlib import Path

import numpy as np
import pytest

from nucleate.data.synthetic import fluorescence
from nucleate.networks import store
from nucleate.networks.manifest import TrainingPart
from nucleate.report.card import card, run_curves
from nucleate.report.model_files import model_files
from nucleate.training.fit import Trained


@pytest.mark.parametrize(
    ("stop", "over_fitting", "shown"),
    [(None, None, (None, None)), (0, None, (None, None)), (3, None, (3, None)), (3, 2, (3, (2, 3)))],
)
def test_curves_show_the_end_where_they_have_it(stop, over_fitting, shown):
    """An end that was decided within the first epoch would stand at an epoch 0, which there is not."""
    history = [{"epoch": epoch, "train_loss": 1.0, "valid_loss": 1.0, "score": 0.5} for epoch in range(1, 5)]
    training = TrainingPart(
        seed=0, loss="cross_entropy", epochs=4, steps=8, seconds=1, best_epoch=4, stopped="It was enough.",
        stop_epoch=stop, over_fitting=over_fitting,
    )  # fmt: skip
    drawn = run_curves(history, training)
    assert (drawn.stop, drawn.over_fitting) == shown and drawn.kept == 4 and len(drawn.epochs) == 4


@pytest.mark.parametrize("name", store.EMBEDDED)
def test_the_card_of_an_embedded_model_is_made_from_its_manifest(name):
    folder = store.locate(name)
    manifest = store.read_manifest(folder)
    assert card(manifest, name, "test") == (folder / store.CARD).read_text()
    text = card(manifest, name)
    assert "Scores on the validation images" in text and manifest.data.licence in text
    assert f"Panoptic quality {manifest.scores['validation']['panoptic_quality']:.3f}" in text


def test_the_files_are_those_of_a_model_folder():
    folder = store.locate("fluorescence")
    image, truth = fluorescence(seed=1, height=96, width=96)
    pair = (image.pixels.transpose(2, 0, 1) / np.float32(255), truth)
    trained = Trained(
        Path("my model"), store.read_manifest(folder), store.read_history(folder), [pair], ["a.tif"], [truth]
    )
    files = model_files(trained)
    assert files.keys() == {store.CARD, store.CURVES, store.REPORT}
    assert files[store.CURVES].startswith(b"\x89PNG")
    assert b"nucleate predict 'my model' IMAGES --out DIR" in files[store.CARD]
    report = files[store.REPORT].decode()
    assert "a.tif" in report and "Average precision over IoU: AP 1.00 at IoU 0.5" in report
    assert "panoptic quality 1.000" in report and "http" not in report.replace("http-equiv", "")
