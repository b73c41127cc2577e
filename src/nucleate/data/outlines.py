"""Whether the outlines of a mask lie on what the image shows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from nucleate.types import Image, Labels

_SIDE = 512  # pixels; of a larger image the middle is looked at
_NONE, _HALF = 0.1, 0.5  # correlations: below it there is none; below this part of another position's it is misplaced


def outlines_fit(pairs: Iterable[tuple[Image, Labels]]) -> bool:
    """Whether nuclei are brighter or darker than their ground where the masks say that they are.

    The mask of each image is correlated with it as it lies, and mirrored, turned and moved in all ways. Where, in the
    middle of all images, it correlates with nothing as it lies, or twice as well elsewhere, the outlines do not fit.

    >>> from nucleate.data.synthetic import fluorescence
    >>> image, labels = fluorescence(seed=0)
    >>> outlines_fit([(image, labels)]), outlines_fit([(image, labels[::-1])])
    (True, False)
    """
    found = [one for image, labels in pairs if (one := _correlations(image, labels)) is not None]
    if not found:
        return True
    here, anywhere = np.median(found, axis=0)
    return bool(here >= _NONE and here >= _HALF * anywhere)


def pieces(labels: Labels) -> tuple[int, int]:
    """How many numbers a mask holds, and into how many pieces that do not touch its nuclei fall.

    Where the pieces are many more, the nuclei are not numbered.

    >>> pieces(np.array([[1, 0, 1, 0, 1]]))
    (1, 3)
    """
    return np.unique(labels[labels > 0]).size, int(ndimage.label(labels > 0)[1])


def _correlations(image: Image, labels: Labels) -> tuple[float, float] | None:
    """The correlation of mask and image as they lie, and the best one of any other position; None of one value."""
    rows, columns = (slice((side - min(side, _SIDE)) // 2, (side + min(side, _SIDE)) // 2) for side in labels.shape)
    grey = _standard(image.pixels[rows, columns].astype(np.float32).mean(axis=2))
    mask = _standard((labels[rows, columns] > 0).astype(np.float32))
    if grey is None or mask is None:
        return None
    spectrum = fft.rfft2(grey)
    turned = [mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1]]
    if mask.shape[0] == mask.shape[1]:
        turned += [one.T for one in turned]
    moved = [np.abs(fft.irfft2(spectrum * fft.rfft2(one).conj(), grey.shape)).max() for one in turned]
    return abs(float((grey * mask).mean())), float(max(moved)) / grey.size


def _standard(values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """With mean 0 and variance 1."""
    spread = values.std()
    return None if not spread > 0 else (values - values.mean()) / spread
