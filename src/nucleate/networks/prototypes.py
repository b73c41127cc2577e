"""What a model was trained on, as a few points, and how far from them an image may lie before it is named.

Points are those of `networks.embedding`, each statistic divided by its spread over the training tiles. `k_centre`
chooses those that are kept. The distance of an image is the median over its tiles of that to the nearest one:

    d(image) = median_t min_p sqrt(mean_i (t_i - p_i)^2)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from nucleate.networks.embedding import Points, embed_array
from nucleate.networks.unet import UNet

KEPT = 256
"""Prototypes at most."""

FOLDS = 10
"""Parts of the training images that are held out in turn."""

FEWEST = 5
"""Training images from which on there is a threshold."""

QUANTILE, MARGIN = 0.975, 1.1
"""The threshold is this quantile of the distances of held-out training images, times this. Chosen on `val` images:
there and with 5 to 40 training images 2% to 5% of images alike were named, and 70% or more of others
(`benchmarks/unlike.py`)."""

_FLAT = 1e-3  # of the mean spread: a statistic that varies less over the training tiles is not magnified further


@dataclass(frozen=True, slots=True)
class Measured:
    """What prototypes stand on: so many training `images` and `tiles`; the `threshold` for the distance of an image,
    None where there were too few to hold any out, which was measured on `held_out` images."""

    images: Annotated[int, Field(ge=0)]
    tiles: Annotated[int, Field(ge=1)]
    held_out: Annotated[int, Field(ge=0)]
    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None

    def sentence(self) -> str:
        """The same for a person.

        >>> Measured(images=2, tiles=3, held_out=0, threshold=None).sentence()
        'No image is named as unlike: 2 training images are too few to tell, and 5 the fewest.'
        """
        if self.threshold is None:
            return (
                f"No image is named as unlike: {self.images} training image{'s are' if self.images != 1 else ' is'} too"
                f" few to tell, and {FEWEST} the fewest."
            )
        unsure = ", which is few: take what it names as a hint" if self.images < 4 * FEWEST else ""
        return (
            f"An image is named as unlike above a distance of {self.threshold:.3g}, which rests on {self.images}"
            f" training images{unsure}."
        )


_MEASURED = TypeAdapter(Measured)


@dataclass(frozen=True, slots=True, eq=False)
class Prototypes:
    """Points that stand for the training images.

    `points` (prototypes, statistics) are in units of the spread of each statistic, `mean` and `spread` (statistics).
    """

    points: Points
    mean: Points
    spread: Points
    measured: Measured

    @classmethod
    def of(cls, images: Sequence[Points]) -> Prototypes | None:
        """The prototypes of training images, each given as the points of its tiles; None where none shows anything.

        The threshold is measured by holding out each of `FOLDS` parts of the images in turn, parts that follow one
        another in the order given, as neighbours may be of one slide.

        >>> draw = np.random.default_rng(0)
        >>> found = Prototypes.of([draw.normal(size=(2, 8)).astype(np.float32) for _ in range(40)])
        >>> found.points.shape, found.measured.images, found.novelty(np.zeros((1, 8), np.float32)) < 1
        ((80, 8), 40, True)
        >>> found.novelty(np.full((1, 8), 9, np.float32)) > 1
        True
        """
        shown = [points for points in images if len(points)]
        if not shown:
            return None
        distances = np.array(_held_out(shown)) if len(shown) >= FEWEST else np.zeros(0)
        threshold = None
        if distances.size and distances.max() > 0:
            threshold = round(MARGIN * float(np.quantile(distances, QUANTILE)), 4) or None
        tiles = sum(map(len, shown))
        return cls(*_centres(shown), Measured(len(shown), tiles, distances.size, threshold))

    def distance(self, tiles: Points) -> float:
        """That of an image, given as the points of its tiles, of which there must be one or more."""
        scaled = (tiles.astype(np.float64) - self.mean) / self.spread
        return float(np.median([_distances(self.points, tile).min() for tile in scaled]))

    def novelty(self, tiles: Points) -> float | None:
        """The distance of an image divided by the threshold, above 1 where it is unlike the training images; None where
        there is no threshold, or the image shows nothing."""
        threshold = self.measured.threshold
        return None if threshold is None or not len(tiles) else round(self.distance(tiles) / threshold, 2)

    def encoded(self, *, half: bool = False) -> bytes:
        """A safetensors file; `half` stores the points in float16."""
        kinds = {"points": torch.float16 if half else torch.float32}
        tensors = {
            name: torch.from_numpy(np.array(value)).to(kinds.get(name, torch.float32))
            for name, value in (("points", self.points), ("mean", self.mean), ("spread", self.spread))
        }
        # One text: the order of several would differ from run to run.
        found: bytes = save_tensors(tensors, {"measured": json.dumps(asdict(self.measured))})
        return found

    @classmethod
    def decoded(cls, content: bytes) -> Prototypes:
        """Those of a file. Raises SafetensorError, KeyError, TypeError or ValueError where it is another."""
        tensors = {name: value.float().numpy() for name, value in load_tensors(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        points, mean, spread = (tensors[name] for name in ("points", "mean", "spread"))
        if points.ndim != 2 or not len(points) or mean.shape != points.shape[1:] or spread.shape != mean.shape:
            raise ValueError("other shapes")
        if not all(np.isfinite(one).all() for one in (points, mean, spread)) or not (spread > 0).all():
            raise ValueError("no numbers to divide by")
        return cls(points, mean, spread, _MEASURED.validate_json(header["measured"]))


def prototypes_of(network: UNet, images: Iterable[NDArray[np.float32]]) -> Prototypes | None:
    """Those of training images, normalised, (channels, H, W); None where none shows anything."""
    plain = network.folded().cpu()
    return Prototypes.of([embed_array(plain, image) for image in images])


def k_centre(
    points: NDArray[Any],
    count: int,
    covered: NDArray[Any] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> tuple[list[int], list[float]]:
    """Greedy k-centre: of these points (N, D) so many, each the farthest from all that were chosen before.

    What is chosen covers all within twice the radius that the best choice would need (Gonzalez, "Clustering to minimize
    the maximum intercluster distance", 1985).

    Args:
        points: to choose from; the first of two that are as far.
        count: of points to choose at most; none is chosen that equals another one.
        covered: (M, D), points that count as chosen; without one the first is the nearest to the mean.
        weights: (N,), above 0; with them the point is chosen whose distance times its weight is the largest.

    Returns:
        The rows that were chosen, in their order, and how far each was from those before: root mean square over D; 0 of
        the first where nothing was covered.

    >>> k_centre(np.array([[0.0], [1.0], [9.0], [5.0]]), 3)
    ([3, 0, 2], [0.0, 5.0, 4.0])
    >>> k_centre(np.array([[0.0], [1.0], [9.0]]), 3, covered=np.array([[9.0]]))
    ([0, 1], [9.0, 1.0])
    """
    if not len(points) or count < 1:
        return [], []
    if covered is None or not len(covered):
        chosen, far = [int(_distances(points, points.mean(0)).argmin())], [0.0]
        nearest = _distances(points, points[chosen[0]])
    else:
        chosen, far = [], []
        nearest = np.min([_distances(points, one) for one in covered], axis=0)
    value = np.ones(len(points)) if weights is None else weights
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(int((nearest * value).argmax()))
        far.append(float(nearest[chosen[-1]]))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1]]))
    return chosen, far


def standardised(points: NDArray[Any]) -> tuple[NDArray[np.float64], Points, Points]:
    """Points (N, D) less their mean and divided by their standard deviation, and both; a statistic that hardly varies
    is not magnified."""
    mean, spread = points.mean(0, dtype=np.float64), points.std(0, dtype=np.float64)
    spread = np.maximum(spread, _FLAT * spread.mean()) if spread.any() else np.ones_like(spread)
    kept = mean.astype(np.float32), spread.astype(np.float32)
    return (points.astype(np.float64) - kept[0]) / kept[1], *kept


def _distances(points: NDArray[Any], one: NDArray[Any]) -> NDArray[np.float64]:
    # Not by products of matrices, whose last bits depend on the number of threads.
    return np.asarray(np.sqrt(np.square(points - one).mean(1, dtype=np.float64)))


def _centres(images: Sequence[Points]) -> tuple[Points, Points, Points]:
    scaled, mean, spread = standardised(np.concatenate(images))
    return scaled[k_centre(scaled, KEPT)[0]].astype(np.float32), mean, spread


def _held_out(images: Sequence[Points]) -> list[float]:
    """The distance of each image from the prototypes of those of other parts."""
    found, parts = list[float](), min(FOLDS, len(images))
    for part in range(parts):
        begin, end = (len(images) * place // parts for place in (part, part + 1))
        others = Prototypes(*_centres([*images[:begin], *images[end:]]), Measured(0, 1, 0, None))
        found += [others.distance(points) for points in images[begin:end]]
    return found
