"""`--format cellprofiler`: the names of CellProfiler, values by another way than the package's, the tables of a run."""

import csv
import math

import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops_table

import nucleate
from nucleate.data.synthetic import fluorescence
from nucleate.errors import OutputError
from nucleate.inference.image_input import Selection
from nucleate.inference.predict import Request, predict

REQUEST = Request(formats=("cellprofiler",))


@pytest.fixture(scope="module")
def predictor():
    return nucleate.load("fluorescence").predictor


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    """Two images, one of 8 bits with one channel, one of 16 with two, and an empty one; and what is written of them."""
    folder = tmp_path_factory.mktemp("cellprofiler")
    one = fluorescence(1, 96, 128)[0].pixels[..., 0]
    two = np.stack([fluorescence(2, 96, 96, depth=16)[0].pixels[..., 0], np.full((96, 96), 513, np.uint16)])
    tifffile.imwrite(folder / "a.tif", one)
    tifffile.imwrite(folder / "b.tif", two, imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    tifffile.imwrite(folder / "c.tif", 0 * one)
    done = predict(predictor, [folder / f"{name}.tif" for name in "abc"], folder / "out", REQUEST)
    assert not done.failed
    return folder


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(labels, channels, largest):
    """CellProfiler's own way: `regionprops_table` on the whole label image, and its names."""
    names = (
        *("label", "area", "area_bbox", "bbox", "centroid", "eccentricity", "equivalent_diameter_area", "euler_number"),
        *("extent", "axis_major_length", "axis_minor_length", "perimeter", "solidity", "orientation"),
    )
    props = regionprops_table(labels, properties=names)
    found = {
        "ObjectNumber": props["label"],
        "AreaShape_Area": props["area"],
        "AreaShape_BoundingBoxArea": props["area_bbox"],
        "AreaShape_BoundingBoxMinimum_X": props["bbox-1"],
        "AreaShape_BoundingBoxMinimum_Y": props["bbox-0"],
        "AreaShape_BoundingBoxMaximum_X": props["bbox-3"],
        "AreaShape_BoundingBoxMaximum_Y": props["bbox-2"],
        "AreaShape_Center_X": props["centroid-1"],
        "AreaShape_Center_Y": props["centroid-0"],
        "Location_Center_X": props["centroid-1"],
        "Location_Center_Y": props["centroid-0"],
        "AreaShape_Eccentricity": props["eccentricity"],
        "AreaShape_EquivalentDiameter": props["equivalent_diameter_area"],
        "AreaShape_EulerNumber": props["euler_number"],
        "AreaShape_Extent": props["extent"],
        "AreaShape_MajorAxisLength": props["axis_major_length"],
        "AreaShape_MinorAxisLength": props["axis_minor_length"],
        "AreaShape_Perimeter": props["perimeter"],
        "AreaShape_Solidity": props["solidity"],
        "AreaShape_Orientation": props["orientation"] * 180 / math.pi,
        "AreaShape_FormFactor": 4 * math.pi * props["area"] / props["perimeter"] ** 2,
    }
    for name, pixels in channels.items():
        inside = [pixels[labels == number] / largest for number in props["label"]]
        for kind, of in (("Integrated", np.sum), ("Mean", np.mean), ("Std", np.std), ("Min", np.min), ("Max", np.max)):
            found[f"Intensity_{kind}Intensity_{name}"] = np.array([of(values) for values in inside])
    return found


@pytest.mark.parametrize(("name", "channels", "largest"), [("a", ["grey"], 255), ("b", ["DAPI", "GFP"], 65535)])
def test_values_are_those_of_cellprofiler_on_the_label_image(folder, name, channels, largest):
    labels = tifffile.imread(folder / "out" / f"{name}_labels.tif")
    pixels = tifffile.imread(folder / f"{name}.tif").reshape(-1, *labels.shape)
    found = rows(folder / "out" / f"{name}_cellprofiler.csv")
    wanted = expected(labels, dict(zip(channels, pixels, strict=True)), largest)
    assert len(found) == labels.max() > 3 and {row["ImageNumber"] for row in found} == {"1"}
    assert set(found[0]) == {"ImageNumber", *wanted} and [*found[0]][:2] == ["ImageNumber", "ObjectNumber"]
    for column, values in wanted.items():
        np.testing.assert_allclose([float(row[column]) for row in found], values, rtol=1e-9, atol=1e-9, err_msg=column)


def test_the_tables_of_a_run_number_its_images(folder):
    images, nuclei = (rows(folder / "out" / f"CellProfiler_{name}.csv") for name in ("Image", "Nuclei"))
    assert [row["ImageNumber"] for row in images] == ["1", "2", "3"] and images[2]["Count_Nuclei"] == "0"
    assert {row["ImageNumber"] for row in nuclei} == {"1", "2"} and len(nuclei) == sum(
        int(row["Count_Nuclei"]) for row in images
    )
    b = [row for row in nuclei if row["ImageNumber"] == "2"]
    own = rows(folder / "out" / "b_cellprofiler.csv")
    assert [{name: row[name] for name in own[0] if name != "ImageNumber"} for row in b] == [
        {name: value for name, value in row.items() if name != "ImageNumber"} for row in own
    ]
    assert b[0]["Intensity_MeanIntensity_grey"] == ""
    assert float(b[0]["Intensity_MeanIntensity_GFP"]) == pytest.approx(513 / 65535)


def test_the_files_that_cellprofiler_is_told_of_are_there(folder):
    for row, name, channel in zip(
        rows(folder / "out" / "CellProfiler_Image.csv"), "abc", ("grey", "GFP", "grey"), strict=True
    ):
        image = folder / "out" / row[f"PathName_{channel}"] / row[f"FileName_{channel}"]
        labels = folder / "out" / row["ObjectsPathName_Nuclei"] / row["ObjectsFileName_Nuclei"]
        assert image.samefile(folder / f"{name}.tif")
        assert tifffile.imread(labels).max(initial=0) == int(row["Count_Nuclei"])


def test_an_image_without_nuclei_has_a_head_alone(folder):
    lines = (folder / "out" / "c_cellprofiler.csv").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ImageNumber,ObjectNumber,Location_Center_X")


def test_a_second_run_and_resuming_give_the_same_bytes(predictor, folder):
    def written():
        return {path.name: path.read_bytes() for path in (folder / "out").glob("*.csv")}

    before = written()
    images = [folder / f"{name}.tif" for name in "abc"]
    for request in (REQUEST, Request(formats=("cellprofiler",), resume=True)):
        predict(predictor, images, folder / "out", request)
        assert written() == before


def test_a_table_of_someone_else_stays(predictor, folder, tmp_path):
    (tmp_path / "CellProfiler_Image.csv").write_text("mine\n")
    with pytest.raises(OutputError, match=r"CellProfiler_Image\.csv is there already .* --overwrite"):
        predict(predictor, [folder / "a.tif"], tmp_path, REQUEST)
    assert [path.name for path in tmp_path.iterdir()] == ["CellProfiler_Image.csv"]
    predict(predictor, [folder / "a.tif"], tmp_path, Request(formats=("cellprofiler",), overwrite=True))
    assert rows(tmp_path / "CellProfiler_Image.csv")[0]["ImageNumber"] == "1"


def test_of_a_region_places_count_from_the_label_image(predictor, folder, tmp_path):
    request = Request(Selection.of(None, None, (20, 30, 60, 80)), formats=("cellprofiler",))
    predict(predictor, [folder / "a.tif"], tmp_path, request)
    labels = tifffile.imread(tmp_path / "a_labels.tif")
    pixels = tifffile.imread(folder / "a.tif")[20:80, 30:110]
    for column, values in expected(labels, {"grey": pixels}, 255).items():
        found = [float(row[column]) for row in rows(tmp_path / "a_cellprofiler.csv")]
        np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-9, err_msg=column)
