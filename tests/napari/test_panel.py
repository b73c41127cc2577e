"""The widget, offscreen, in the layers of a real napari, with a real model: `make test-napari`."""

import os

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("napari", reason="napari is not installed: make test-napari runs this in an environment of its own")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed: make test-napari has it")

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

import nucleate
from nucleate.napari.panel import STEPS, Panel
from nucleate.napari.samples import fluorescence_sample, tissue_sample

WAIT = 60_000  # milliseconds; what the slowest machine takes to load torch


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def panel(qtbot, viewer):
    found = Panel(viewer)
    qtbot.addWidget(found)
    yield found
    qtbot.waitUntil(lambda: found._worker is None, timeout=WAIT)


@pytest.fixture
def said():
    """The notifications of napari during a test: their severity and message."""
    found = []

    def keep(notification):
        found.append((str(notification.severity), notification.message))

    notification_manager.notification_ready.connect(keep)
    yield found
    notification_manager.notification_ready.disconnect(keep)


def run(qtbot, panel):
    panel.go.click()
    assert not panel.go.isEnabled() and panel.cancel.isEnabled()
    qtbot.waitUntil(lambda: panel._worker is None, timeout=WAIT)
    assert panel.go.isEnabled() and not panel.cancel.isEnabled()


def test_the_labels_and_the_table_are_those_of_the_package(qtbot, viewer, panel, said):
    image = fluorescence_sample()[0][0][:160, :200]
    viewer.add_image(image, name="cells", scale=(0.5, 0.5), translate=(3, 4))
    shares = []
    panel.progressed.connect(shares.append)
    run(qtbot, panel)
    wanted = nucleate.load("fluorescence").segment(image)
    layer = viewer.layers[-1]
    assert layer.name == "cells nuclei" and len(wanted) > 5
    np.testing.assert_array_equal(layer.data, wanted.labels)
    np.testing.assert_array_equal(layer.scale, (0.5, 0.5))
    np.testing.assert_array_equal(layer.translate, (3, 4))
    assert list(layer.features["index"]) == list(range(1, len(wanted) + 1))
    for name in wanted.table.dtype.names[1:]:
        np.testing.assert_array_equal(layer.features[name], wanted.table[name])
    status = layer.get_status(np.argwhere(wanted.labels == 1)[0] * 0.5 + (3, 4), world=True)
    assert f"area: {wanted.table['area'][0]}" in status["value"]
    assert shares == sorted(shares) and shares[-1] == 1 and panel.bar.value() == STEPS
    assert panel.said.text().startswith(f"{len(wanted)} nuclei.")
    assert [severity for severity, _ in said if severity == "error"] == []


def test_of_a_stack_the_plane_that_is_shown_is_segmented_and_lies_there(qtbot, viewer, panel):
    plane = fluorescence_sample()[0][0][:96, :96]
    viewer.add_image(np.stack([0 * plane, plane[::-1], plane]), name="stack", scale=(2, 0.5, 0.5))
    viewer.dims.set_current_step(0, 2)
    run(qtbot, panel)
    layer = viewer.layers[-1]
    np.testing.assert_array_equal(layer.data[0], nucleate.load("fluorescence").segment(plane).labels)
    assert layer.data.shape == (1, 96, 96) and layer.data.any()
    np.testing.assert_array_equal(layer.translate, (4, 0, 0))


def test_colour_and_several_resolutions(qtbot, viewer, panel):
    image = tissue_sample()[0][0][:96, :128]
    viewer.add_image([image, image[::2, ::2]], name="slide", rgb=True, multiscale=True)
    panel.model.setEditText("brightfield")
    run(qtbot, panel)
    np.testing.assert_array_equal(viewer.layers[-1].data, nucleate.load("brightfield").segment(image).labels)


def test_an_image_without_nuclei_gives_an_empty_layer(qtbot, viewer, panel):
    viewer.add_image(np.full((64, 64), 7, np.uint8))
    run(qtbot, panel)
    assert not viewer.layers[-1].data.any() and panel.said.text().startswith("0 nuclei.")


def test_it_can_be_cancelled(qtbot, viewer, panel):
    viewer.add_image(np.tile(fluorescence_sample()[0][0], (8, 8)), name="large")
    panel.tile.setValue(256)
    panel.go.click()
    qtbot.waitUntil(lambda: panel.bar.value() > 0, timeout=WAIT)
    panel.cancel.click()
    assert panel.said.text() == "Ending …"
    qtbot.waitUntil(lambda: panel._worker is None, timeout=WAIT)
    assert panel.said.text() == "Cancelled." and [layer.name for layer in viewer.layers] == ["large"]
    assert panel.bar.value() == 0 and panel.go.isEnabled()


@pytest.mark.parametrize(
    ("model", "pixels", "words"),
    [
        ("nowhere", np.zeros((64, 64)), "nowhere"),
        ("fluorescence", np.full((64, 64), np.nan), "NaN"),
    ],
)
def test_what_is_wrong_is_one_sentence(qtbot, viewer, panel, said, model, pixels, words):
    viewer.add_image(pixels, contrast_limits=(0, 1))
    panel.model.setEditText(model)
    run(qtbot, panel)
    errors = [message for severity, message in said if severity == "error"]
    assert len(errors) == 1 and words in errors[0] and "Traceback" not in errors[0]
    assert panel.said.text() == errors[0] and len(viewer.layers) == 1


def test_a_fault_of_the_program_is_shown_as_one(qtbot, viewer, panel, said, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a fault")

    viewer.add_image(np.zeros((64, 64)))
    monkeypatch.setattr(panel._finder, "find", broken)
    run(qtbot, panel)
    assert ("error", "a fault") in [(severity, message.split("\n")[-1]) for severity, message in said]


def test_the_layers_that_are_offered_are_those_that_there_are(viewer, panel):
    assert not panel.go.isEnabled()
    first = viewer.add_image(np.zeros((8, 8)), name="first")
    viewer.add_labels(np.zeros((8, 8), int))
    second = viewer.add_image(np.zeros((8, 8)), name="second")

    def offered():
        return [panel.layer.itemText(i) for i in range(panel.layer.count())]

    assert offered() == ["first", "second"] and panel.layer.currentText() == "second" and panel.go.isEnabled()
    viewer.layers.selection.active = first
    assert panel.layer.currentText() == "first"
    viewer.layers.remove(first)
    assert offered() == ["second"]
    viewer.layers.remove(second)
    assert offered() == [] and not panel.go.isEnabled()
