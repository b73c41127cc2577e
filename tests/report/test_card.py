"""The card and the curves of a model folder."""

import pytest

from nucleate.networks import store
from nucleate.networks.manifest import TrainingPart
from nucleate.report.card import card, card_files, run_curves


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
    assert card(manifest, "test") == (folder / store.CARD).read_text()
    text = card(manifest)
    assert "Scores on the validation images" in text and manifest.data.licence in text
    assert f"Panoptic quality {manifest.scores['validation']['panoptic_quality']:.3f}" in text


def test_the_files_are_those_of_a_model_folder():
    folder = store.locate("fluorescence")
    files = card_files(store.read_manifest(folder), store.read_history(folder))
    assert files.keys() == {store.CARD, store.CURVES}
    assert files[store.CURVES].startswith(b"\x89PNG")
