"""The scripts for QuPath and Fiji: the very command lines that they call are run, and what they read is there.

Neither program is here. What the scripts say is taken from them, word by word.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile

from nucleate.cli import main
from nucleate.data.synthetic import fluorescence, tissue

EXAMPLES = Path(__file__).parents[1] / "examples"


def words(script, start, end, values):
    """The words of the command between `start` and `end` in a script; its variables have these values."""
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    said = re.search(re.escape(start) + r"(.*?)" + re.escape(end), text)[1]
    return [word.strip('"') if word[0] == '"' else str(values[word]) for word in re.findall(r'"[^"]*"|[\w.()]+', said)]


def run(arguments):
    program, *arguments = arguments
    assert program == "nucleate"
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, shlex.join(arguments)


def write_as_qupath(path, pixels):
    """As QuPath's OMEPyramidWriter does: OME-TIFF in tiles, packed, with a pyramid and the pixel size."""
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    options = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb" if pixels.ndim == 3 else "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=1, metadata=size, **options)
        file.write(pixels[::4, ::4], subfiletype=1, **options)


def centres(path):
    """The middle of the box of each detection, (x, y), and its measurements."""
    features = json.loads(path.read_text())["features"]
    assert all(one["properties"]["objectType"] == "detection" for one in features)
    rings = [np.array(one["geometry"]["coordinates"][0]) for one in features if one["geometry"]["type"] == "Polygon"]
    return np.array([(ring.min(axis=0) + ring.max(axis=0)) / 2 for ring in rings]), [
        one["properties"]["measurements"] for one in features
    ]


COMMAND = ("def command = [", "] + options")


def test_qupath_reads_the_nuclei_of_a_selection(tmp_path):
    image, found = tmp_path / "region.ome.tif", tmp_path / "found"
    pixels = fluorescence(3, 300, 280)[0].pixels[..., 0]
    write_as_qupath(image, pixels)
    values = {"nucleate": "nucleate", "model": "fluorescence", "image.getPath()": image, "found.getPath()": found}
    run(words("qupath/nucleate_selection.groovy", *COMMAND, values))
    places, measured = centres(found / "region.geojson")
    assert len(places) > 10 and (places > 0).all() and (places < (280, 300)).all()
    assert all(one["Area µm^2"] > 0 for one in measured)
    # Outlines are in pixels of what was written, so that QuPath has but to scale and shift them.
    inside = pixels[places[:, 1].astype(int), places[:, 0].astype(int)]
    assert np.median(inside) > 1.5 * np.median(pixels)


def test_qupath_reads_the_nuclei_of_each_core(tmp_path):
    images, found = tmp_path / "cores", tmp_path / "found"
    images.mkdir()
    for index in range(2):
        write_as_qupath(images / f"core{index}.ome.tif", tissue(index, 160, 160)[0].pixels)
    values = {"nucleate": "nucleate", "model": "brightfield", "images.getPath()": images, "found.getPath()": found}
    run(words("qupath/nucleate_tma_cores.groovy", *COMMAND, values))
    for index in range(2):
        places, _ = centres(found / f"core{index}.geojson")
        assert len(places) > 3


def test_fiji_opens_labels_outlines_and_table(tmp_path):
    image, found = tmp_path / "image.tif", tmp_path / "found"
    tifffile.imwrite(image, fluorescence(3, 128, 128)[0].pixels[..., 0], imagej=True)
    values = {"nucleate": "nucleate", "model": "fluorescence", "image": image, "found": found}
    run(words("fiji/nucleate.ijm", "said = exec(", ");", values))
    text = (EXAMPLES / "fiji" / "nucleate.ijm").read_text()
    labels, outlines, table = (found / name for name in ("image_labels.tif", "image_rois.zip", "image.csv"))
    assert all(f'"{path.name}"' in text for path in (labels, outlines, table))
    count = tifffile.imread(labels).max()
    assert count > 3 and len(roifile.roiread(outlines)) == count == len(table.read_text().splitlines()) - 1


@pytest.mark.parametrize("script", sorted((EXAMPLES / "qupath").glob("*.groovy")), ids=lambda path: path.stem)
def test_the_brackets_of_a_script_match(script):
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"[^"\n]*"', "", script.read_text(encoding="utf-8"), flags=re.DOTALL)
    for opening, closing in ("()", "[]", "{}"):
        assert text.count(opening) == text.count(closing) > 0
