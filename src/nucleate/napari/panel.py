"""The widget: model, layer, tile, go; progress, and a button that ends the work.

What takes long is done in a thread of napari's; only this one touches layers.
"""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from napari.qt.threading import FunctionWorker, create_worker
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from nucleate import out_of_memory
from nucleate.errors import NucleateError
from nucleate.napari.prediction import LARGEST_TILE, MODELS, SMALLEST_TILE, TILE, Cancelled, Finder, Plane
from nucleate.napari.samples import LayerData

STEPS = 1000
"""Of the progress bar."""


class Panel(QWidget):
    """Finds the nuclei of an image layer, and adds them as a layer of labels with their measurements.

    Args:
        napari_viewer: whose layers are offered; napari gives it.
    """

    progressed = Signal(float)
    """The share of the work that is done; sent by the thread that does it."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer, self._finder, self._worker = napari_viewer, Finder(), None
        self.model = QComboBox(editable=True)
        self.model.addItems(MODELS)
        self.model.setToolTip("A model of the package, or the folder of a model of your own.")
        self.model.setMinimumContentsLength(12)
        self.browse = QPushButton("Folder…")
        self.browse.setToolTip("Choose the folder of a model of your own.")
        self.layer = QComboBox()
        self.layer.setToolTip("The image; of a stack, the plane that is shown.")
        self.layer.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.layer.setMinimumContentsLength(12)
        self.tile = QSpinBox(minimum=SMALLEST_TILE, maximum=LARGEST_TILE, singleStep=64, value=TILE, suffix=" px")
        self.tile.setToolTip("Side of the parts in which a large image is segmented; no result depends on it.")
        self.go, self.cancel = QPushButton("Find nuclei"), QPushButton("Cancel")
        self.bar = QProgressBar(minimum=0, maximum=STEPS, value=0)
        self.said = QLabel(wordWrap=True)
        self._lay_out()
        self.browse.clicked.connect(self._choose_folder)
        self.go.clicked.connect(self.find)
        self.cancel.clicked.connect(self.end)
        self.progressed.connect(self._show_share)
        for event in ("inserted", "removed", "reordered"):
            getattr(self._viewer.layers.events, event).connect(self._list_layers)
        self._viewer.layers.selection.events.active.connect(self._take_active)
        self._list_layers()
        self._take_active()
        self._set_running(False)

    def _lay_out(self) -> None:
        model = QHBoxLayout()
        model.addWidget(self.model, 1)
        model.addWidget(self.browse)
        form = QFormLayout()
        form.addRow("Model", model)
        form.addRow("Image", self.layer)
        form.addRow("Tile", self.tile)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        buttons = QHBoxLayout()
        buttons.addWidget(self.go, 2)
        buttons.addWidget(self.cancel, 1)
        whole = QVBoxLayout(self)
        whole.addLayout(form)
        whole.addLayout(buttons)
        whole.addWidget(self.bar)
        whole.addWidget(self.said)
        whole.addStretch()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)

    def find(self) -> None:
        """Begin with the layer that is chosen."""
        layer = self.layer.currentData()
        if layer is None:
            show_error("There is no image layer: open an image first.")
            return
        try:
            plane = Plane.of(layer, self._viewer.dims.point)
        except NucleateError as error:
            show_error(str(error))
            return

        def tell(share: float) -> None:
            if worker.abort_requested:
                raise Cancelled
            self.progressed.emit(share)

        worker: FunctionWorker = create_worker(
            self._finder.find, self.model.currentText().strip(), plane, self.tile.value(), tell, _ignore_errors=True
        )
        worker.returned.connect(self._add)
        worker.errored.connect(self._tell_of)
        worker.finished.connect(self._finished)
        self._worker = worker
        self._set_running(True)
        self.said.setText(f"Looking for nuclei in {layer.name} …")
        worker.start()

    def end(self) -> None:
        """End the work, at the next block of the image."""
        if self._worker is not None:
            self._worker.quit()
            self.cancel.setEnabled(False)
            self.said.setText("Ending …")

    def closeEvent(self, event: Any) -> None:
        """The work ends with the window."""
        self.end()
        super().closeEvent(event)

    def _add(self, found: tuple[LayerData, list[str]]) -> None:
        (labels, options, _), said = found
        self._viewer.add_labels(labels, **options)
        self.said.setText("\n".join(said))
        self.bar.setValue(STEPS)
        if len(said) > 1:
            show_info(" ".join(said[1:]))

    def _tell_of(self, error: Exception) -> None:
        self.bar.setValue(0)
        if isinstance(error, Cancelled):
            self.said.setText("Cancelled.")
            return
        sentence = str(error) if isinstance(error, NucleateError) else out_of_memory.sentence(error)
        self.said.setText("Nothing was found, because of an error." if sentence is None else sentence)
        if sentence is None:  # a fault of the program: napari shows where it happened
            notification_manager.receive_error(type(error), error, error.__traceback__)
        else:
            show_error(sentence)

    def _finished(self) -> None:
        if self._worker is not None and self._worker.abort_requested:
            self._tell_of(Cancelled())
        self._worker = None
        self._set_running(False)

    def _set_running(self, running: bool) -> None:
        self.cancel.setEnabled(running)
        self.go.setEnabled(not running and self.layer.count() > 0)
        if running:
            self.bar.setValue(0)

    def _show_share(self, share: float) -> None:
        self.bar.setValue(round(share * STEPS))

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if folder:
            self.model.setEditText(folder)

    def _list_layers(self, event: Any = None) -> None:
        """Offer the image layers that there are, the chosen one still chosen."""
        chosen = self.layer.currentData()
        self.layer.clear()
        for layer in self._viewer.layers:
            if isinstance(layer, Image):
                self.layer.addItem(layer.name, layer)
        self._choose(chosen)
        self.go.setEnabled(self._worker is None and self.layer.count() > 0)

    def _take_active(self, event: Any = None) -> None:
        """Choose the image layer that a person has clicked on."""
        self._choose(self._viewer.layers.selection.active)

    def _choose(self, layer: Any) -> None:
        place = next((i for i in range(self.layer.count()) if self.layer.itemData(i) is layer), None)
        if place is not None:
            self.layer.setCurrentIndex(place)
