"""Drawn images of nuclei with their true masks: seeded, so the same seed gives the same bytes.

Two styles. `fluorescence` adds up light: bright nuclei on a dark, uneven ground. `tissue` adds up stain
(Beer-Lambert): purple nuclei in pink tissue. Both follow the same order as a microscope does: objects, optics
(blur by a Gaussian point spread function), illumination, photons (Poisson), camera (read noise, quantisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, exp, pi, sin, sqrt
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import dctn, idctn

from nucleate.data.synthetic.shapes import FloatImage, NucleusKind, Patch, label_image, place
from nucleate.errors import InputError, OutputError
from nucleate.io.atomic import atomic
from nucleate.types import Image, Labels, Sample

# Optical density of each stain in red, green and blue (Ruifrok and Johnston 2001, unit length).
_HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
_EOSIN = np.array([0.072, 0.990, 0.105])


def fluorescence(
    seed: int | Sequence[int],
    height: int = 256,
    width: int = 256,
    *,
    diameter: float = 24.0,
    cover: float = 0.22,
    blur: float = 1.3,
    photons: float = 300.0,
    depth: int = 8,
) -> tuple[Image, Labels]:
    """Draw stained nuclei seen in a fluorescence microscope.

    Args:
        seed: an integer of 0 or more, or a sequence of them such as (seed, image number).
        height, width: size in pixels, 32 or more.
        diameter: median diameter of a nucleus in pixels, 6 or more; sizes are log-normal.
        cover: the share of the image that nuclei aim to cover, above 0 and up to 0.5.
        blur: standard deviation of the point spread function in pixels.
        photons: photons that a nucleus of usual brightness gives a pixel; fewer are noisier.
        depth: 8 gives uint8, 16 gives uint16 filled as a 12-bit camera does.

    Returns:
        The image, pixels (height, width, 1), and its labels: 0 background, 1..N, each one 4-connected piece.

    Raises:
        InputError: an argument is outside its range.

    >>> image, labels = fluorescence(seed=0, height=64, width=96)
    >>> image.pixels.shape, image.pixels.dtype.name, labels.shape
    ((64, 96, 1), 'uint8', (64, 96))
    """
    rng = _generator(seed)
    _check_size(height, width, diameter, cover, blur)
    if depth not in (8, 16) or not photons > 0:
        raise InputError(f"depth={depth}, photons={photons}: give a depth of 8 or 16 and photons above 0")
    shape = (height, width)
    interphase, faint, bright = NucleusKind(), NucleusKind(strength=0.3), NucleusKind(strength=1.5, clumps=0.3)
    mitotic = NucleusKind(size=0.62, aspect=2.3, strength=2.2, clumps=0.1, roughness=0.08)
    fragment = NucleusKind(size=0.4, aspect=1.1, strength=1.8, clumps=0.05)
    kinds, odds = (interphase, faint, bright, mitotic, fragment), (0.70, 0.12, 0.12, 0.04, 0.02)

    def choose(y: float, x: float) -> tuple[NucleusKind, float]:
        return kinds[rng.choice(len(kinds), p=odds)], rng.uniform(0, pi)

    patches = place(rng, shape, diameter, cover, clustering=0.5, choose=choose)
    light = _emission(rng, shape, patches)
    haze = 0.16 * _blur(light, 1.3 * diameter) + 0.05 * np.maximum(_field(rng, shape, 1.5 * diameter) - 0.5, 0)
    ground = 0.07 * (1 + 0.2 * _field(rng, shape, 4 * diameter))
    expected = (_blur(light, blur) + haze + np.maximum(ground, 0.02)) * _illumination(rng, shape, 0.35)
    electrons = rng.poisson(np.maximum(expected, 0) * photons) + rng.normal(0, 2.5, shape)
    # The exposure is set as a person does it: the brightest pixels just short of saturation.
    gain = rng.uniform(0.75, 0.95) / (np.quantile(expected, 0.999) * photons)
    top, offset = (255, 6) if depth == 8 else (4095, 100)
    values = np.clip(np.rint(offset + (top - offset) * gain * electrons), 0, top)
    pixels = values.astype(np.uint8 if depth == 8 else np.uint16)[..., None]
    return Image(_name("fluorescence", seed), pixels, ("DAPI",), pixel_size=12.0 / diameter), label_image(
        shape, patches
    )


def tissue(
    seed: int | Sequence[int],
    height: int = 256,
    width: int = 256,
    *,
    diameter: float = 18.0,
    cover: float = 0.22,
    blur: float = 0.8,
) -> tuple[Image, Labels]:
    """Draw a section of tissue stained with haematoxylin and eosin, seen in transmitted light.

    Light falls as I = I0 exp(-sum of concentration x optical density) with the stain vectors of Ruifrok and
    Johnston, "Quantification of histochemical staining by color deconvolution" (2001). Arguments, labels and
    errors are those of `fluorescence`; pixels are (height, width, 3) uint8.

    >>> image, labels = tissue(seed=0, height=64, width=96)
    >>> image.pixels.shape, image.channels
    ((64, 96, 3), ('red', 'green', 'blue'))
    """
    rng = _generator(seed)
    _check_size(height, width, diameter, cover, blur)
    shape = (height, width)
    layout = _field(rng, shape, 2.2 * diameter)
    # A gap takes at most a quarter of the image, so that a small image is never only gap.
    edge = max(1.05, float(np.quantile(layout, 0.75)))
    fibres, angles = _fibres(rng, shape, diameter)
    epithelium = NucleusKind(size=1.1, aspect=1.25, strength=0.75, clumps=0.45, rim=0.5)
    pale = NucleusKind(size=1.2, aspect=1.25, strength=0.45, clumps=0.5, rim=0.7)
    lymphocyte = NucleusKind(size=0.72, aspect=1.08, strength=1.35, clumps=0.3, roughness=0.03)
    spindle = NucleusKind(size=0.85, aspect=2.9, strength=1.1, clumps=0.3)

    def choose(y: float, x: float) -> tuple[NucleusKind, float] | None:
        row, column = int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))
        if layout[row, column] > edge - 0.12:
            return None
        if layout[row, column] < -0.1 and rng.random() < 0.75:
            return spindle, angles[row, column] + rng.normal(0, 0.2)
        return (epithelium, pale, lymphocyte)[rng.choice(3, p=(0.55, 0.2, 0.25))], rng.uniform(0, pi)

    patches = place(rng, shape, diameter, cover, clustering=0.35, choose=choose)
    haematoxylin, eosin = _stains(rng, shape, patches, fibres, layout)
    ragged = layout + 0.04 * _field(rng, shape, 3.0)
    tissue_share = 1 / (1 + np.exp(np.clip((ragged - edge) / 0.03, -50, 50)))
    strengths = rng.uniform(0.85, 1.15, 2)
    density = [_blur(plane, blur) for plane in (haematoxylin * strengths[0], eosin * tissue_share * strengths[1])]
    vectors = np.stack([_HAEMATOXYLIN, _EOSIN]) * rng.normal(1, 0.04, (2, 3))
    passed = 0.95 * np.exp(-np.tensordot(np.stack(density, axis=-1), vectors, axes=1))
    passed *= _illumination(rng, shape, 0.06)[..., None]
    # At 3000 photons a pixel, shot noise (Poisson) is Gaussian to well below one grey level; read noise joins it.
    passed += rng.normal(size=passed.shape) * np.sqrt(passed / 3000 + 0.004**2)
    pixels = np.clip(np.rint(255 * passed), 0, 255).astype(np.uint8)
    channels = ("red", "green", "blue")
    return Image(_name("tissue", seed), pixels, channels, pixel_size=9.0 / diameter), label_image(shape, patches)


STYLES: dict[str, Callable[..., tuple[Image, Labels]]] = {"fluorescence": fluorescence, "tissue": tissue}


def write_folder(
    folder: Path, style: str, count: int, seed: int, labelled: int | None = None, **options: float
) -> tuple[Sample, ...]:
    """Write `count` drawn images to `folder`/images and masks of the first `labelled` (all) to `folder`/masks.

    Images are PNG, masks 16-bit PNG of the same name. `options` go to the style's function. Image i is drawn from
    (seed, i), so folders with different seeds share no image.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     samples = write_folder(Path(folder), "tissue", count=2, seed=7, labelled=1, height=64, width=64)
    >>> [(sample.name, sample.mask is not None) for sample in samples]
    [('tissue_7_0', True), ('tissue_7_1', False)]
    """
    labelled = count if labelled is None else labelled
    if style not in STYLES or not 0 <= labelled <= count:
        raise InputError(
            f"style={style!r}, count={count}, labelled={labelled}: give a style of {', '.join(STYLES)} "
            "and no more labelled images than images"
        )
    samples = []
    for index in range(count):
        image, labels = STYLES[style]((seed, index), **options)
        path = folder / "images" / f"{image.name}.png"
        mask = folder / "masks" / f"{image.name}.png" if index < labelled else None
        _write_png(path, image.pixels)
        if mask is not None:
            if labels.max() > 65535:
                raise OutputError(f"{mask}: {labels.max()} nuclei do not fit a 16-bit mask; draw smaller images")
            _write_png(mask, labels.astype(np.uint16))
        samples.append(Sample(image.name, path, mask))
    return tuple(samples)


def _write_png(path: Path, pixels: NDArray[np.generic]) -> None:
    with atomic(path) as file:
        file.write(imagecodecs.png_encode(np.squeeze(pixels)))


def _generator(seed: int | Sequence[int]) -> Generator:
    try:
        first, *rest = seed if isinstance(seed, Sequence) else [seed]
        # A spawn key keeps (1, 0) apart from 1; numpy pads plain sequences with zeros, so they would be the same.
        return np.random.default_rng(np.random.SeedSequence(first, spawn_key=rest))
    except (TypeError, ValueError):
        raise InputError(f"seed={seed!r}: give a seed that is an integer of 0 or more") from None


def _check_size(height: int, width: int, diameter: float, cover: float, blur: float) -> None:
    if min(height, width) < 32:
        raise InputError(f"height={height}, width={width}: give both as 32 pixels or more")
    if not (diameter >= 6 and 0 < cover <= 0.5 and blur >= 0):
        raise InputError(
            f"diameter={diameter}, cover={cover}, blur={blur}: give a diameter of 6 pixels or more, "
            "a cover above 0 and up to 0.5, and a blur of 0 or more"
        )


def _name(style: str, seed: int | Sequence[int]) -> str:
    return "_".join([style, *map(str, seed if isinstance(seed, Sequence) else [seed])])


def _emission(rng: Generator, shape: tuple[int, int], patches: list[Patch]) -> FloatImage:
    """Light from each pixel in focus: a nucleus of usual brightness gives 1. Where two overlap, their light adds."""
    light = np.zeros(shape)
    chromatin = (_field(rng, shape, 2.2) + 0.7 * _field(rng, shape, 4.5)) / sqrt(1.49)
    for patch in patches:
        # A nucleus is a flattened ball: the light path through it is longest at its centre.
        dome = 0.6 + 0.4 * np.sqrt(np.clip(1 - patch.level**2, 0, 1))
        texture = np.maximum(1 + patch.kind.clumps * chromatin[patch.box], 0.2)
        texture *= 1 - 0.45 * _nucleoli(rng, patch)
        light[patch.box] += patch.kind.strength * exp(rng.normal(0, 0.22)) * patch.cover * dome * texture
    return light


def _stains(
    rng: Generator, shape: tuple[int, int], patches: list[Patch], fibres: FloatImage, layout: FloatImage
) -> tuple[FloatImage, FloatImage]:
    """Haematoxylin and eosin at each pixel, before the gaps of the tissue are cut out of the eosin."""
    fine, coarse = _field(rng, shape, 1.1), _field(rng, shape, 2.4)
    chromatin = 0.6 * coarse + 0.35 * fine
    stroma = 1 / (1 + np.exp(4 * (layout + 0.1)))
    cytoplasm = np.zeros(shape)
    nuclei = np.zeros(shape)
    for patch in patches:
        kind, level = patch.kind, patch.level
        near = np.exp(-(np.maximum(level - 1, 0) ** 2) / 0.18)
        cytoplasm[patch.box] = np.maximum(cytoplasm[patch.box], near)
        texture = 1 + kind.clumps * chromatin[patch.box]
        # Heterochromatin lines the nuclear membrane, so a pale nucleus has a dark rim.
        texture += kind.rim * (np.exp(-(((level - 0.93) / 0.12) ** 2)) - 0.2) + 1.2 * kind.rim * _nucleoli(rng, patch)
        nuclei[patch.box] += kind.strength * exp(rng.normal(0, 0.15)) * patch.cover * np.maximum(texture, 0.15)
    fibrous = 0.30 + 0.20 * fibres
    cellular = 0.30 + 0.14 * cytoplasm + 0.04 * fine + 0.03 * coarse
    eosin = np.maximum(stroma * fibrous + (1 - stroma) * cellular, 0.03) * (1 - 0.5 * np.minimum(nuclei, 1))
    haematoxylin = 0.9 * nuclei + (1 - stroma) * 0.08 * cytoplasm
    return haematoxylin, eosin


def _nucleoli(rng: Generator, patch: Patch) -> FloatImage:
    """One to three small round bodies inside a nucleus, 1 at the centre of each and 0 outside."""
    rows, columns = (np.arange(side.start, side.stop) for side in patch.box)
    spots = np.zeros(patch.level.shape)
    inside = np.flatnonzero(patch.level < 0.6)
    for _ in range(rng.integers(1, 4) if inside.size else 0):
        row, column = np.unravel_index(rng.choice(inside), spots.shape)
        radius = max(patch.radius * rng.uniform(0.12, 0.2), 0.7)
        down, across = (rows - rows[row]) / radius, (columns - columns[column]) / radius
        spots = np.maximum(spots, np.exp(-(down**2))[:, None] * np.exp(-(across**2))[None, :])
    return spots


def _fibres(rng: Generator, shape: tuple[int, int], diameter: float) -> tuple[FloatImage, FloatImage]:
    """Wavy fibres, about -1.5 to 1.5, and at each pixel the direction (radians) in which they run."""
    angle = rng.uniform(0, pi)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    along = columns * cos(angle) + rows * sin(angle)
    across = rows * cos(angle) - columns * sin(angle) + 0.5 * diameter * _field(rng, shape, 2.5 * diameter)
    side = int(np.hypot(*shape)) + 1
    texture = _field(rng, (side, side), (1.2, 14.0)) + _field(rng, (side, side), (3.5, 25.0))
    fibres = ndimage.map_coordinates(texture, [across, along], order=1, mode="mirror") / sqrt(2)
    slope_down, slope_across = np.gradient(across)
    return fibres, np.arctan2(slope_across, -slope_down) + pi


def _field(rng: Generator, shape: tuple[int, int], scale: float | tuple[float, float]) -> FloatImage:
    """Smooth Gaussian noise of mean 0 and variance 1 at every pixel, whatever the image's size.

    White noise on a grid of spacing `scale` (rows, columns) is interpolated by a Gaussian of that width, one axis
    after the other; each pixel's weights are scaled to sum to 1 in squares, which keeps the variance at 1.
    """
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    weights = []
    for side, spacing in zip(shape, scales, strict=True):
        knots = np.arange(-3 * spacing, side + 3 * spacing, spacing)
        weight = np.exp(-0.5 * ((np.arange(side)[:, None] - knots) / spacing) ** 2)
        weights.append(weight / np.sqrt((weight**2).sum(axis=1, keepdims=True)))
    noise = rng.normal(size=(weights[0].shape[1], weights[1].shape[1]))
    field: FloatImage = weights[0] @ noise @ weights[1].T
    return field


def _blur(plane: FloatImage, sigma: float) -> FloatImage:
    """Gaussian blur that reflects at the border: a product in the cosine transform, as fast for any sigma."""
    rows, columns = (np.exp(-0.5 * (sigma * pi * np.arange(side) / side) ** 2) for side in plane.shape)
    blurred: FloatImage = idctn(dctn(plane, type=2) * np.outer(rows, columns), type=2)
    return blurred


def _illumination(rng: Generator, shape: tuple[int, int], fall: float) -> FloatImage:
    """Relative brightness of the lamp: 1 at a centre somewhat off the image's own, less by `fall` at the corners."""
    y, x = (np.linspace(-1, 1, side) - rng.uniform(-0.3, 0.3) for side in shape)
    bright: FloatImage = 1 - fall * (y[:, None] ** 2 + x[None, :] ** 2) / 2
    return bright
