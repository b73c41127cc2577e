"""How many images a model of the package names as unlike its training images: of others, and of its own kind.

    python benchmarks/unlike.py --data DATA [--model fluorescence]

Others are the images of the other modality, and drawn ones: noise (white, smooth, salt and pepper), text-like and
textures like those of electron microscopy, each 40 of 256 x 256 by a seed. Own images are those of `val` and `test`;
the threshold was set on `train` alone. Aim: 95% of others named, 5% of `test` at most.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleate.data.normalization import normalise
from nucleate.io.prediction_json import is_unlike
from nucleate.io.reader import read_image
from nucleate.networks import store
from nucleate.networks.embedding import embed_array
from nucleate.types import Image

SIDE, DRAWN = 256, 40


def white(draw: np.random.Generator) -> NDArray[np.float64]:
    return draw.normal(120, draw.uniform(10, 50), (SIDE, SIDE))


def smooth(draw: np.random.Generator) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(draw.normal(0, 1, (SIDE, SIDE)), draw.uniform(1, 4))
    return 120 + 40 * noise / noise.std()


def salt(draw: np.random.Generator) -> NDArray[np.float64]:
    return np.where(draw.random((SIDE, SIDE)) < draw.uniform(0.02, 0.3), 230.0, 20.0)


def text(draw: np.random.Generator) -> NDArray[np.float64]:
    """Dark strokes in lines of words on white paper."""
    paper = np.full((SIDE, SIDE), 235.0) + draw.normal(0, 4, (SIDE, SIDE))
    height = int(draw.integers(8, 20))
    for top in range(4, SIDE - height, height + int(draw.integers(4, 10))):
        left = 6
        while left < SIDE - 12:
            for _ in range(int(draw.integers(2, 9))):  # letters of a word
                letter = ndimage.binary_dilation(draw.random((height, max(3, height // 2))) < 0.12)
                part = paper[top : top + height, left : left + letter.shape[1]]
                part[letter[:, : part.shape[1]]] = draw.uniform(10, 60)
                left += letter.shape[1] + 2
            left += height // 2
    return paper


def electron(draw: np.random.Generator) -> NDArray[np.float64]:
    """Grey cytoplasm with dark membranes between cells and dark granules."""
    places = draw.uniform(0, SIDE, (int(draw.integers(20, 80)), 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    away = np.sort(np.hypot(y[..., None] - places[:, 0], x[..., None] - places[:, 1]), axis=-1)
    image = np.where(away[..., 1] - away[..., 0] < draw.uniform(2, 5), 60.0, 150.0)
    image[ndimage.gaussian_filter(draw.normal(0, 1, (SIDE, SIDE)), 2) > 0.25] -= 40
    return ndimage.gaussian_filter(image, 0.8) + draw.normal(0, 14, (SIDE, SIDE))


KINDS: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "white noise": white,
    "smooth noise": smooth,
    "salt and pepper": salt,
    "text-like": text,
    "EM-like": electron,
}


def drawn(kind: str) -> Iterable[Image]:
    for seed in range(DRAWN):
        pixels = KINDS[kind](np.random.default_rng((seed, *kind.encode())))
        yield Image(kind, np.clip(pixels, 0, 255).astype(np.uint8)[..., None], ("grey",))


def files(folder: Path) -> Iterable[Image]:
    return map(read_image, sorted((folder / "images").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=store.EMBEDDED, default="fluorescence")
    options = parser.parse_args()
    model = store.read(store.locate(options.model))
    assert model.prototypes is not None
    (other,) = set(store.EMBEDDED) - {options.model}
    groups = {f"{options.model} {split}": files(options.data / options.model / split) for split in ("val", "test")}
    groups |= {f"{other} {split}": files(options.data / other / split) for split in ("train", "val", "test")}
    groups |= {kind: drawn(kind) for kind in KINDS}
    print(model.prototypes.measured.sentence())
    print(
        "| images | number | named | novelty: lowest | median | highest |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for name, images in groups.items():
        channels = model.manifest.architecture.channels
        points = [embed_array(model.network, normalise(image, channels, model.normalisation)) for image in images]
        found = [one for one in map(model.prototypes.novelty, points) if one is not None]
        named = np.mean([is_unlike(one) for one in found])
        low, middle, high = np.percentile(found, (0, 50, 100))
        print(f"| {name} | {len(found)} | {named:.1%} | {low:.2f} | {middle:.2f} | {high:.2f} |")


if __name__ == "__main__":
    main()
