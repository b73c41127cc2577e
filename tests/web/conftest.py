"""Folders as prediction leaves them: an image, its labels, its table and the record of it."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
import tifffile
import uvicorn
from scipy import ndimage

from nucleate.data.normalization import Normalisation
from nucleate.data.synthetic.microscopy import tissue
from nucleate.io.axes import GREY
from nucleate.io.formats import FORMATS
from nucleate.io.prediction_json import PredictionRecord, record_file, write_record
from nucleate.types import Image, Maps, Nucleus
from nucleate.web import app
from nucleate.web.access import Access
from nucleate.web.annotation.learner import Input
from nucleate.web.gallery import Gallery
from nucleate.web.limits import Limits


def table_of(labels):
    rows = []
    for number in range(1, labels.max(initial=0) + 1):
        y, x = np.nonzero(labels == number)
        rows.append(Nucleus(number, round(float(y.mean()), 3), round(float(x.mean()), 3), y.size, 5.0, 9.5, 0.75))
    return rows


@pytest.fixture(scope="session")
def predicted(memory_instances):
    """What leaves a folder as prediction does."""

    def write(folder, name, pixels, labels, *, formats=("tif", "csv"), downsample=1.0, **place):
        """Write an image into `folder`/images and what was predicted of it into `folder`."""
        image = folder / "images" / f"{name}.tif"
        image.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(image, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", tile=(64, 64))
        nuclei = memory_instances(name, labels.astype(np.int32), table_of(labels), downsample=downsample, **place)
        files = {kind: FORMATS[kind].file(name) for kind in formats}
        for kind, file in files.items():
            FORMATS[kind].write(folder / file, nuclei)
        write_record(folder / record_file(name), PredictionRecord.of(nuclei, image, 0, files))
        return folder

    return write


@dataclass(frozen=True)
class Served:
    """Where a folder is shown."""

    origin: str
    token: str

    @property
    def page(self):
        """The address that a person opens."""
        return f"{self.origin}/?token={self.token}"

    @contextmanager
    def client(self):
        """A client that has been let in."""
        with httpx.Client(base_url=self.origin, timeout=60, follow_redirects=True) as client:
            assert client.get(self.page).status_code == 200
            yield client


@contextmanager
def serving(folder, truth=None):
    """A folder is shown, by a server in a thread."""
    gallery = Gallery(folder, truth)
    with serving_app(app.make_app(gallery)) as served:
        yield served
    gallery.close()


@contextmanager
def serving_app(application, port=0):
    """An application behind a token, by a server in a thread."""
    with app._listening(port) as listener:
        access = Access(Limits(application), f"nucleate-{listener.getsockname()[1]}")
        server = uvicorn.Server(app.configuration(access))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", access.token)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session", name="serving")
def _serving():
    return serving


@pytest.fixture(scope="session")
def shown(tmp_path_factory, predicted):
    """Two predictions: drawn tissue of 600 x 900 pixels, and squares in a region at half the resolution."""
    folder = tmp_path_factory.mktemp("shown")
    image, labels = tissue(3, 600, 900)
    predicted(folder, "tissue", image.pixels, labels, pixel_size=0.25)
    pixels = np.full((400, 500), 1000, np.uint16)
    pixels[:, 250:] = 3000
    squares = np.zeros((100, 120), np.int32)
    squares[10:30, 20:50], squares[60:90, 70:75] = 1, 2
    predicted(folder, "squares", pixels, squares, origin=(40, 60), downsample=2.0)
    return folder


TAKES = Input(Normalisation(), 1, GREY)


@dataclass(frozen=True)
class Update:
    number: int
    name: str
    nuclei: int
    before: float | None = 0.5
    after: float | None = 0.6
    sentinel_before: float = 0.7
    sentinel: float = 0.7
    taken_back: bool = False
    drift: bool = False
    seconds: float = 0.1


@dataclass
class StandIn:
    """In place of the model that learns: it finds bright pieces, and keeps what it is told. `seconds` is how long an
    update takes; `recorded` are the corrections in order."""

    seconds: float = 0.0
    recorded: list[tuple[Image, np.ndarray, str, tuple[float, float]]] = field(default_factory=list)
    learnt: list[Update] = field(default_factory=list)
    predicted: int = 0
    fails: bool = False

    def predict(self, image, median=None):
        self.predicted += 1
        plane = ndimage.gaussian_filter(image[0], 1.5)
        foreground = (1 / (1 + np.exp(-8 * (plane - 0.4)))).astype(np.float32)
        labels = ndimage.label(foreground > 0.5)[0].astype(np.int32)
        empty = np.zeros_like(foreground)
        return labels, Maps(foreground, empty, np.stack([empty, empty]), empty)

    def record(self, image, labels, name, box=None, window=None):
        assert window is not None and image.pixels.shape[:2] == labels.shape
        self.recorded.append((image, labels, name, window))
        return len(self.recorded) - 1

    def learn(self, number):
        if self.fails:
            raise RuntimeError("the update failed")
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            np.sort(np.arange(200_000)[::-1])
        _, labels, name, _ = self.recorded[number]
        update = Update(number, name, int(labels.max()), before=0.5 + 0.02 * number, sentinel=0.7 + 0.003 * number)
        self.learnt.append(update)
        return update

    def log(self):
        return list(self.learnt)


@pytest.fixture(scope="session")
def stand_in():
    """The class of stand-ins for a model that learns."""
    return StandIn


@pytest.fixture(scope="session")
def takes():
    """What it takes."""
    return TAKES


@pytest.fixture(scope="session", name="serving_app")
def _serving_app():
    return serving_app
