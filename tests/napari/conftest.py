"""What `nucleate predict` wrote of three drawn images."""

import pytest
import tifffile

from nucleate.cli import main
from nucleate.data.synthetic import fluorescence


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A folder of results: of `a` the whole, of `b` a region of level 1, of `empty` no nucleus."""
    folder = tmp_path_factory.mktemp("napari")
    pixels = fluorescence(3, 256, 256)[0].pixels[..., 0]
    tifffile.imwrite(folder / "a.tif", pixels[:128, :160])
    tifffile.imwrite(folder / "empty.tif", 0 * pixels[:64, :64])
    double = pixels.repeat(2, axis=0).repeat(2, axis=1)
    with tifffile.TiffWriter(folder / "b.tif") as file:
        file.write(double, subifds=1, tile=(128, 128))
        file.write(double[::2, ::2], subfiletype=1, tile=(128, 128))
    every = ["--format", "tif,zarr,csv", "--out", str(folder)]
    main_ends(["predict", "fluorescence", str(folder / "a.tif"), str(folder / "empty.tif"), *every])
    part = ["--level", "1", "--region", "20", "40", "200", "180"]
    main_ends(["predict", "fluorescence", str(folder / "b.tif"), *part, *every])
    return folder


def main_ends(words):
    """Run the command line, which is to end well."""
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
