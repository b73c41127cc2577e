"""What `--measure all` writes is what scikit-image measures on the label image."""

import csv

import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops_table

from nucleate.data.synthetic import fluorescence
from nucleate.errors import InputError
from nucleate.inference.image_input import Selection
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.inference.region_measurements import INTENSITY, LENGTHS, SHAPE, RegionMeasurements
from nucleate.io.base import MemoryReader
from nucleate.io.formats import FORMATS
from nucleate.io.label_file import read_labels
from nucleate.networks.store import locate, read
from nucleate.types import Image, Nucleus

LABELS = np.kron(np.array([[1, 0, 2, 2], [1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 4, 4]]), np.ones((3, 4), int)).astype(
    np.int32
)
LABELS[0, 0] = LABELS[-1, 0] = 0
LABELS[-1, -1], LABELS[6, 6] = 5, 6  # of a single pixel, where a hull and axes are nothing


def table_of(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {name: np.array([float(row[place]) for row in rows]) for place, name in enumerate(header)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [("grey",), ("DAPI", "GFP"), ("red", "green", "blue")])
def test_they_are_those_of_scikit_image(tmp_path, memory_instances, channels):
    pixels = np.random.default_rng(0).integers(0, 4000, (*LABELS.shape, len(channels))).astype(np.uint16)
    rows = [Nucleus(number, 1.0, 1.0, 1, 1.0, 1.0, 0.5) for number in range(1, LABELS.max() + 1)]
    nuclei = memory_instances("x", LABELS, rows, pixel_size=0.5)
    nuclei.further = RegionMeasurements(MemoryReader(Image("x", pixels, channels)), (0, 0), 0.5)
    FORMATS["csv"].write(tmp_path / "x.csv", nuclei)
    found = table_of(tmp_path / "x.csv")
    expected = regionprops_table(LABELS, properties=SHAPE)
    for name in SHAPE:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in LENGTHS:
        np.testing.assert_allclose(found[f"{name}_um"], 0.5 * expected[name])
    for place, channel in enumerate(channels):
        end = f"_{channel}" if len(channels) > 1 else ""
        expected = regionprops_table(LABELS, pixels[..., place], properties=INTENSITY)
        for name in INTENSITY:
            np.testing.assert_allclose(found[name + end], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("region", [None, (10, 20, 60, 70)])
def test_predicted_tables_have_them_in_each_format(tmp_path, region):
    image, _ = fluorescence(seed=0, height=96, width=128)
    tifffile.imwrite(tmp_path / "a.tif", image.pixels[..., 0])
    predictor = Predictor(read(locate("fluorescence")), engine="torch")
    selection = Selection.of(None, None, region)
    predict(predictor, [tmp_path / "a.tif"], tmp_path / "out", Request(selection, measure="all"))
    found, labels = table_of(tmp_path / "out/a.csv"), read_labels(tmp_path / "out/a_labels.tif")
    y, x, height, width = region or (0, 0, *labels.shape)
    pixels = image.pixels[y : y + height, x : x + width, 0]
    expected = regionprops_table(labels, pixels, properties=(*SHAPE, *INTENSITY))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=name)
    assert len(found["id"]) == labels.max() > 0
    predict(predictor, [tmp_path / "a.tif"], tmp_path / "plain", Request(selection))
    plain = table_of(tmp_path / "plain/a.csv")
    assert not set(SHAPE) & set(plain) and all((found[name] == plain[name]).all() for name in plain)


def test_parquet_holds_the_table(tmp_path, memory_instances):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [Nucleus(number, 1.5, 2.25, 9, 3.5, 1.0, 0.5) for number in range(1, LABELS.max() + 1)]
    nuclei = memory_instances("x", LABELS, rows, pixel_size=0.25)
    nuclei.further = RegionMeasurements(MemoryReader(Image("x", LABELS[..., None], ("grey",))), (0, 0), 0.25)
    for kind in ("csv", "parquet"):
        FORMATS[kind].write(tmp_path / f"x.{kind}", nuclei)
    found, expected = parquet.read_table(tmp_path / "x.parquet"), table_of(tmp_path / "x.csv")
    assert found.column_names == list(expected) and str(found.schema.field("id").type) == "int64"
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].to_numpy(), values)
    before = (tmp_path / "x.parquet").read_bytes()
    FORMATS["parquet"].write(tmp_path / "x.parquet", nuclei)
    assert (tmp_path / "x.parquet").read_bytes() == before
    FORMATS["parquet"].write(tmp_path / "none.parquet", memory_instances("x", 0 * LABELS, []))
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_what_cannot_be_measured_or_written_is_refused(monkeypatch):
    with pytest.raises(InputError, match="no --measure most: choose one of basic, all"):
        Request(measure="most")
    monkeypatch.setattr("nucleate.io.formats.parquet.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'nucleate\[parquet\]'"):
        Request(formats=("parquet",))
