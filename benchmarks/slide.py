"""Slides to measure on: a mosaic of real and drawn nuclei of any size, and a huge one that is a small file.

    python benchmarks/slide.py --data DATA --out slide.tif [--shape 6000 6000] [--seed 0]
    python benchmarks/slide.py --data DATA --out huge.tif --repeat --shape 100000 100000 [--empty 0.5]

The mosaic is made of pieces, 160 to 256 pixels high and at most 520 wide, of the fluorescence images that models are
not trained on (`val` and `test` of DATA, see protocol.py; each as often as it has nuclei) and of drawn ones, half and
half, turned and mirrored, brought to one exposure. Its rows pass by one piece at a time, so it may be of any size. The
same seed gives the same file. Nothing of it lines up with tiles: pieces end at rows and columns that tiles do not.

With `--repeat`, one mosaic of 4096 x 4096 pixels is stored once and again and again named in the file's index, so that
10,000 megapixels are a file of some megabytes; `--empty` leaves out that share of the mosaics, which then read as 0.

Both are tiled, compressed with Deflate. Prints a line of JSON: shape, bytes of the file and, for the mosaic, the true
nuclei in it.
"""

from __future__ import annotations

import argparse
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image

TILE = 512
PATTERN = 4096  # pixels; the side of the mosaic that is repeated, a multiple of TILE
DRAWN = 24
LOWEST, HIGHEST, WIDEST = 160, 256, 520  # pixels; the pieces of the mosaic

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """One image with its true nuclei, at least HIGHEST pixels on each side."""

    pixels: Plane
    labels: NDArray[np.integer]

    @property
    def nuclei(self) -> int:
        return len(np.unique(self.labels)) - 1


def pieces(data: Path, seed: int) -> tuple[list[Piece], list[Piece]]:
    """Real and drawn ones."""
    masks = [mask for split in ("val", "test") for mask in sorted((data / "fluorescence" / split / "masks").glob("*"))]
    real = [
        Piece(exposed(read_image(mask.parent.parent / "images" / mask.name).pixels[..., 0]), read_labels(mask))
        for mask in masks
    ]
    drawn = []
    for k in range(DRAWN):
        image, labels = fluorescence((seed, k), 640, 640, diameter=18 + 8 * k / DRAWN, cover=0.4)
        drawn.append(Piece(exposed(image.pixels[..., 0]), labels))
    return real, drawn


def exposed(pixels: NDArray[np.generic]) -> Plane:
    """Stretched so that the darkest and the brightest pixels (1 % and 99.8 %) of every image are the same."""
    low, high = np.percentile(pixels, (1, 99.8))
    stretched = 10 + 220 * (pixels.astype(np.float32) - low) / max(float(high - low), 1.0)
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


class Mosaic:
    """Rows of pieces; `nuclei` counts the true ones that have passed by, those of at least 12 pixels."""

    def __init__(self, data: Path, seed: int) -> None:
        self.real, self.drawn = pieces(data, seed)
        weights = np.array([piece.nuclei for piece in self.real], dtype=np.float64)
        self.odds = weights / weights.sum()
        self.seed, self.nuclei = seed, 0

    def shelves(self, width: int) -> Iterator[Plane]:
        """Without end: pieces side by side, (160 to 256, width)."""
        random = np.random.default_rng(self.seed)
        while True:
            shelf = np.zeros((int(random.integers(LOWEST, HIGHEST + 1)), width), dtype=np.uint8)
            x = 0
            while x < width:
                pixels, labels = self._cut(random, shelf.shape[0], width - x)
                shelf[:, x : x + pixels.shape[1]] = pixels
                self.nuclei += int((np.bincount(labels.ravel())[1:] >= 12).sum())
                x += pixels.shape[1]
            yield shelf

    def _cut(self, random: np.random.Generator, height: int, most: int) -> tuple[Plane, NDArray[np.integer]]:
        if random.random() < 0.5:
            piece = self.real[random.choice(len(self.real), p=self.odds)]
        else:
            piece = self.drawn[random.integers(len(self.drawn))]
        turns, mirrored = int(random.integers(4)), random.random() < 0.5
        pixels, labels = (np.rot90(plane, turns)[:, :: -1 if mirrored else 1] for plane in (piece.pixels, piece.labels))
        width = min(int(random.integers(LOWEST, WIDEST + 1)), pixels.shape[1], most)
        y, x = (int(random.integers(n - m + 1)) for n, m in zip(pixels.shape, (height, width), strict=True))
        return pixels[y : y + height, x : x + width], labels[y : y + height, x : x + width]

    def rows(self, shape: tuple[int, int], count: int = TILE) -> Iterator[Plane]:
        """The mosaic of this shape, `count` rows at a time, the last ones fewer."""
        left, waiting = shape[0], np.zeros((0, shape[1]), dtype=np.uint8)
        for shelf in self.shelves(shape[1]):
            waiting = np.concatenate([waiting, shelf])
            while len(waiting) >= min(count, left):
                yield waiting[: min(count, left)]
                left -= min(count, left)
                if left == 0:
                    return
                waiting = waiting[count:]


def tiles(rows: Iterator[Plane]) -> Iterator[Plane]:
    """Tiles of TILE x TILE, filled up with 0 at the right and at the bottom."""
    for band in rows:
        band = np.pad(band, ((0, TILE - band.shape[0]), (0, -band.shape[1] % TILE)))
        yield from (band[:, x : x + TILE] for x in range(0, band.shape[1], TILE))


def write_mosaic(path: Path, data: Path, shape: tuple[int, int], seed: int) -> int:
    """Write a mosaic, BigTIFF where it is large; gives the true nuclei in it."""
    mosaic = Mosaic(data, seed)
    with tifffile.TiffWriter(path, bigtiff=shape[0] * shape[1] > 2**31) as tiff:
        tiff.write(
            (zlib.compress(tile.tobytes(), 6) for tile in tiles(mosaic.rows(shape))),
            shape=shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            resolution=(20_000, 20_000),  # pixels a centimetre: 0.5 micrometres a pixel
            resolutionunit="centimeter",
            metadata=None,
        )
    return mosaic.nuclei


def write_repeated(path: Path, data: Path, shape: tuple[int, int], seed: int, empty: float = 0.0) -> None:
    """Write a BigTIFF of this shape, whose tiles are those of one mosaic, over and over; see the top."""
    across = PATTERN // TILE
    stored = [zlib.compress(t.tobytes(), 6) for t in tiles(Mosaic(data, seed).rows((PATTERN, PATTERN)))]
    starts = 16 + np.cumsum([0, *map(len, stored)])
    rows, columns = (np.arange(-(-side // TILE)) for side in shape)
    index = (rows[:, None] % across) * across + columns[None, :] % across
    here = np.random.default_rng(seed).random((len(rows) // across + 1, len(columns) // across + 1)) >= empty
    filled = here[np.ix_(rows // across, columns // across)]
    offsets = np.where(filled, starts[index], 0).astype("<u8").tobytes()
    counts = np.where(filled, np.array([len(tile) for tile in stored])[index], 0).astype("<u4").tobytes()
    end = int(starts[-1])
    number = filled.size
    fraction = struct.pack("<II", 20_000, 1)
    tags = [  # number, type (3 SHORT, 4 LONG, 5 RATIONAL, 16 LONG8), count, value or where it lies
        (256, 4, 1, struct.pack("<Q", shape[1])),  # ImageWidth
        (257, 4, 1, struct.pack("<Q", shape[0])),  # ImageLength
        (258, 3, 1, struct.pack("<Q", 8)),  # BitsPerSample
        (259, 3, 1, struct.pack("<Q", 8)),  # Compression: Deflate
        (262, 3, 1, struct.pack("<Q", 1)),  # PhotometricInterpretation: black is 0
        (277, 3, 1, struct.pack("<Q", 1)),  # SamplesPerPixel
        (282, 5, 1, fraction),  # XResolution
        (283, 5, 1, fraction),  # YResolution
        (296, 3, 1, struct.pack("<Q", 3)),  # ResolutionUnit: centimetre
        (322, 3, 1, struct.pack("<Q", TILE)),  # TileWidth
        (323, 3, 1, struct.pack("<Q", TILE)),  # TileLength
        (324, 16, number, value_or_place(offsets, end)),  # TileOffsets
        (325, 4, number, value_or_place(counts, end + len(offsets))),  # TileByteCounts
    ]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, end + len(offsets) + len(counts)))
        file.writelines(stored)
        file.write(offsets + counts)
        file.write(struct.pack("<Q", len(tags)))
        file.writelines(struct.pack("<HHQ", *tag[:3]) + tag[3] for tag in tags)
        file.write(struct.pack("<Q", 0))


def value_or_place(values: bytes, place: int) -> bytes:
    """A tag holds values of up to 8 bytes itself, and of longer ones their place in the file."""
    return values.ljust(8, b"\0") if len(values) <= 8 else struct.pack("<Q", place)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", type=int, nargs=2, default=(6000, 6000), metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--empty", type=float, default=0.0, help="share of the repeated mosaics that is left out")
    options = parser.parse_args(arguments)
    shape = (options.shape[0], options.shape[1])
    report: dict[str, object] = {"shape": shape}
    if options.repeat:
        write_repeated(options.out, options.data, shape, options.seed, options.empty)
    else:
        report["true nuclei"] = write_mosaic(options.out, options.data, shape, options.seed)
    print(json.dumps({**report, "bytes": options.out.stat().st_size}))


if __name__ == "__main__":
    main()
