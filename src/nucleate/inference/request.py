"""What is asked of each image of a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nucleate.errors import InputError
from nucleate.inference.image_input import Selection
from nucleate.inference.region_measurements import MEASURES
from nucleate.io.formats import FORMATS, entropy_tiff, parquet
from nucleate.io.stack import Choice
from nucleate.report import overlay

SMALLEST_TILE, LARGEST_TILE = 64, 4096
"""Pixels; the side of a tile."""

Observe = Callable[[str, float, float], None]
"""Is told of an image, by the name of its results, which share of the work is done, and how many megapixels it has."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each image.

    Args:
        selection: what of the image is segmented.
        tile: pixels; the side of the tiles of a large image. No result depends on it.
        formats: which files are written, of `io.formats.FORMATS`; cellprofiler brings tif with it.
        overlay: also write the image with the outlines drawn in.
        entropy: also write the predictive entropy of each pixel, and its mean for each nucleus.
        resume: continue what an interrupted run left.
        overwrite: replace files of the results' names that no earlier run wrote.
        channel: which of several channels is segmented, by its name or its number from 1.
        stacks: what is segmented of files with several images and of stacks.
        in_place: also write the labels of an OME-Zarr image into it (`inference.in_place`).
        measure: what is measured of each nucleus, one of `region_measurements.MEASURES`.

    Raises:
        InputError: for a tile out of range, for an unknown format, and where labels in place would not be those of
            the whole image.
    """

    selection: Selection = field(default_factory=Selection)
    tile: int = 1024
    formats: tuple[str, ...] = ("tif", "csv")
    overlay: bool = False
    entropy: bool = False
    resume: bool = False
    overwrite: bool = False
    channel: str | None = None
    stacks: Choice = field(default_factory=Choice)
    in_place: bool = False
    measure: str = "basic"

    def __post_init__(self) -> None:
        if not SMALLEST_TILE <= self.tile <= LARGEST_TILE:
            raise InputError(f"--tile is {self.tile}: give pixels, from {SMALLEST_TILE} to {LARGEST_TILE}.")
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"There is no --format {name}: choose from {', '.join(FORMATS)}, with commas between.")
        if "cellprofiler" in self.formats and "tif" not in self.formats:  # CellProfiler reads the labels as TIFF
            object.__setattr__(self, "formats", ("tif", *self.formats))
        if "parquet" in self.formats:
            parquet.require()
        if self.measure not in MEASURES:
            raise InputError(f"There is no --measure {self.measure}: choose one of {', '.join(MEASURES)}.")
        if not self.formats:
            raise InputError(f"--format is empty: choose from {', '.join(FORMATS)}, with commas between.")
        if self.in_place and (self.selection != Selection() or not {"tif", "zarr"} & set(self.formats)):
            raise InputError(
                "--in-place writes the labels of whole images, as --format tif or zarr has them: add one of these, and"
                " leave --level, --pixel-size and --region out."
            )

    def identity(self) -> dict[str, Any]:
        """What the nuclei and their files depend on, for JSON."""
        region = self.selection.region
        return {
            "level": self.selection.level,
            "pixel size": self.selection.pixel_size,
            "region": None if region is None else asdict(region),
            "entropy": self.entropy,
            "channel": self.channel,
            **({"measure": self.measure} if self.measure != "basic" else {}),
        }

    def files(self, name: str, *, drawn: bool = True) -> dict[str, str]:
        """The files to write for an image of this name, by format; an overlay of those that are `drawn`."""
        files = {one: FORMATS[one].file(name) for one in FORMATS if one in self.formats}
        files |= {"entropy": name + entropy_tiff.ENDING} if self.entropy else {}
        return files | ({"overlay": name + overlay.ENDING} if self.overlay and drawn else {})
