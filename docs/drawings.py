"""Draws the pictures of README and docs from drawn images and the embedded models: python docs/drawings.py"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from nucleate import losses
from nucleate.curves.curves import curves
from nucleate.data.synthetic import STYLES, fluorescence
from nucleate.inference.predictor import Predictor
from nucleate.inference.tiling import cover
from nucleate.io.atomic import atomic
from nucleate.networks.store import locate, read, read_history
from nucleate.postprocess.targets import whole
from nucleate.report.overlay import boundary, draw_outlines
from nucleate.report.plots import plot_curves

HERE = Path(__file__).parent / "images"
SHOWN = (("fluorescence", "fluorescence", 11), ("tissue", "brightfield", 4))
"""Style of the drawn image, model, seed."""

BLUE, ORANGE, GREY = "#1f6fc5", "#d1560f", "#5f6b7a"


def main() -> None:
    HERE.mkdir(exist_ok=True)
    picture()
    targets()
    network()
    tiling()
    stopping()
    losses_of_embeddings()
    losses_of_classes()
    losses_of_overlap()
    divergences()


def picture() -> None:
    """Two drawn images, and the outlines that the embedded models find in them."""
    panels = []
    for style, name, seed in SHOWN:
        image, truth = STYLES[style](seed, height=300, width=300)
        found = Predictor(read(locate(name))).segment(image).labels
        panels += [draw_outlines(image, labels) for labels in (np.zeros_like(truth), found)]
        print(f"{name}: {truth.max()} drawn, {found.max()} found")
    gap = np.full((300, 6, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    with atomic(HERE / "picture.png") as file:
        file.write(imagecodecs.png_encode(np.ascontiguousarray(row)))


def targets() -> None:
    """What the network learns to give at each pixel."""
    image, labels = fluorescence(seed=3, height=72, width=72)
    target = whole(labels)
    heat, offset, radius = target.heat[0, 0].numpy(), target.offset[0].numpy(), target.radius[0, 0].numpy()
    figure, axes = _figure(5, 15, 3.4)
    for axis, title in zip(axes, ("image and outlines", "nucleus", "heat", "offset", "radius, pixels"), strict=True):
        axis.set_title(title, fontsize=12)
        axis.set_axis_off()
    axes[0].imshow(np.where(boundary(labels), np.nan, image.pixels[..., 0]), cmap="gray")
    axes[1].imshow(target.classes[0], cmap="gray")
    axes[2].imshow(heat, cmap="magma")
    axes[3].imshow(target.classes[0], cmap="Greys", alpha=0.25)
    y, x = np.nonzero(labels)
    every = (y % 4 == 1) & (x % 4 == 1)
    y, x = y[every], x[every]
    axes[3].quiver(x, y, *offset[::-1, y, x], angles="xy", scale_units="xy", scale=1.6, color=BLUE, width=0.006)
    axes[4].imshow(np.where(labels > 0, radius, 0), cmap="viridis")
    _save(figure, "targets.png")


def network() -> None:
    """The levels of the U-Net, each at half the resolution of the one before."""
    widths = (32, 64, 128, 176)
    figure, (axes,) = _figure(1, 10, 3.6)
    axes.set(xlim=(0, 10), ylim=(0, 5.1))
    axes.set_axis_off()
    _block(axes, 0.1, 4.2, 1.1, "image", GREY)
    for level, width in enumerate(widths):
        y, name = 3.2 - level, f"{width} channels\n1/{2 ** (level + 1)}"
        _block(axes, 1.5 + 0.8 * level, y, 1.5, name, BLUE)
        if level < len(widths) - 1:
            _block(axes, 7.0 - 0.8 * level, y, 1.5, name, ORANGE)
            _arrow(axes, (3.05 + 0.8 * level, y + 0.35), (6.95 - 0.8 * level, y + 0.35))
            _arrow(axes, (2.3 + 0.8 * level, y - 0.02), (3.0 + 0.8 * level, y - 0.28))
            start = (5.5, 0.55) if level == len(widths) - 2 else (7.0 - 0.8 * (level + 1) + 0.75, y - 0.28)
            _arrow(axes, start, (7.4 - 0.8 * level, y - 0.02))
    _arrow(axes, (0.9, 4.18), (1.7, 3.92))
    _block(axes, 8.6, 4.2, 1.3, "6 maps", GREY)
    _arrow(axes, (8.0, 3.92), (8.9, 4.18))
    axes.text(1.5, 4.75, "encoder", color=BLUE, fontsize=12, fontweight="bold")
    axes.text(7.0, 4.75, "decoder", color=ORANGE, fontsize=12, fontweight="bold")
    _save(figure, "network.png")


def tiling() -> None:
    """Blocks that overlap by a halo: what each reads, and what each writes."""
    image, _ = fluorescence(seed=5, height=300, width=420)
    rows, columns = (cover(length, 192, halo=32, stride=16) for length in (300, 420))
    figure, (axes,) = _figure(1, 6.4, 4.6)
    axes.imshow(image.pixels[..., 0], cmap="gray")
    for row in rows:
        for column in columns:
            corner, size = (column.first, row.first), (column.last - column.first, row.last - row.first)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.2))
    row, column = rows[1], columns[1]
    for box, colour in (((column.begin, column.end, row.begin, row.end), "#ffd60a"),):
        left, right, top, bottom = box
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2.4))
    size = (column.last - column.first, row.last - row.first)
    axes.add_patch(Rectangle((column.first, row.first), *size, color="#ffd60a", alpha=0.3, linewidth=0))
    axes.set_axis_off()
    _save(figure, "tiling.png")


def stopping() -> None:
    """The learning curves of the embedded fluorescence model."""
    model = read(locate("fluorescence"))
    training = model.manifest.training
    run = curves(read_history(model.folder), training.best_epoch, training.stop_epoch)
    plot_curves([run], HERE / "stopping.png")


def losses_of_embeddings() -> None:
    """By the cosine of one pair among others at right angles; and by the angle of a row to its class."""

    def pair(s: Tensor) -> tuple[Tensor, Tensor]:
        away = torch.tensor([0.0, 0.0, 1.0]).expand(7, 3)
        partner = torch.stack((s, (1 - s * s).clamp(min=1e-9).sqrt(), torch.zeros(())))
        return torch.cat((torch.eye(3)[:1], away)), torch.cat((partner.unsqueeze(0), away))

    def labelled(loss: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        label = torch.tensor([0, *range(1, 8)] * 2)
        return lambda s: loss(torch.cat(pair(s)), label, reduction="none")[0]

    def at_angle(loss: Callable[..., Tensor], **options: float) -> Callable[[Tensor], Tensor]:
        classes, label = torch.eye(3)[::2], torch.zeros(1, dtype=torch.long)

        def value(a: Tensor) -> Tensor:
            row = torch.stack((a.cos(), a.sin(), torch.zeros(()))).unsqueeze(0)
            return loss(row, classes, label, scale=8.0, **options)

        return value

    pairs: dict[str, Callable[[Tensor], Tensor]] = {
        "info_nce, T = 0.1": lambda s: losses.info_nce(*pair(s), temperature=0.1, reduction="none")[0],
        "info_nce, T = 0.5": lambda s: losses.info_nce(*pair(s), temperature=0.5, reduction="none")[0],
        "byol": lambda s: losses.byol(*reversed(pair(s)), reduction="none")[0],
        "sup_con, T = 0.1": labelled(losses.sup_con),
        "circle / 10": lambda s: labelled(losses.circle)(s) / 10,
        "multi_similarity": labelled(losses.multi_similarity),
    }
    angles = {
        "no margin": at_angle(losses.cosface, margin=0.0),
        "cosface, 0.35": at_angle(losses.cosface),
        "arcface, 0.5": at_angle(losses.arcface),
        "arcface, 0.5, easy": at_angle(losses.arcface, easy_margin=True),
    }
    figure, axes = _figure(4, 16, 3.6)
    for (value, slope), kinds, range_, along in (
        (axes[:2], pairs, (-0.99, 0.99), "cosine of the pair"),
        (axes[2:], angles, (0.01, math.pi), "angle to the row's own class"),
    ):
        for name, loss in kinds.items():
            at = torch.linspace(*range_, 200).requires_grad_()
            found = torch.stack([loss(x).reshape(()) for x in at])
            value.plot(at.detach(), found.detach(), label=name)
            slope.plot(at.detach(), torch.autograd.grad(found.sum(), at)[0])
        value.set(title="value", xlabel=along)
        slope.set(title="slope", xlabel=along)
        value.legend(fontsize=8)
    _save(figure, "losses-contrastive.png")


Values = Callable[[Tensor], Tensor]
"""The loss of each entry of a row."""

EACH: dict[str, Any] = {"reduction": "none", "check": False}


def losses_of_classes() -> None:
    """Cross entropy and focal by the log-odds of the label's class; margin losses by the margin."""
    z = torch.linspace(-3, 4, 401)
    yes = torch.ones(len(z), dtype=torch.long)
    focal: dict[str, Values] = {
        f"focal, gamma {gamma:g}": lambda x, g=gamma: losses.focal(_two(x), yes, gamma=g, **EACH)
        for gamma in (1.0, 2.0, 5.0)
    }
    cross: dict[str, Values] = {"cross entropy": lambda x: losses.cross_entropy(_two(x), yes, **EACH)}
    margins: dict[str, Values] = {
        name.replace("_", " "): lambda x, n=name: losses.by_name(n)(x, yes, **EACH)
        for name in ("hinge", "squared_hinge", "modified_huber", "logistic", "exponential", "perceptron", "ramp")
    }
    figure, axes = _figure(4, 16, 3.6)
    _value_and_slope(axes[:2], z, cross | focal, "log-odds of the label's class")
    _value_and_slope(axes[2:], z, margins, "margin z = y s")
    axes[2].set_ylim(-0.2, 6)
    axes[3].set_ylim(-6, 0.3)
    _save(figure, "losses-classification.png")


def losses_of_overlap() -> None:
    """By the part of a small nucleus that is found; and by how far a disc has been moved."""
    label = torch.zeros(1, 400, dtype=torch.long)
    label[:, :20] = 1

    def by_part(name: str) -> Values:
        def values(x: Tensor) -> Tensor:
            inside = torch.cat([x[:, None].expand(-1, 20), torch.full((len(x), 380), 0.01)], 1)
            said = losses.Probabilities(torch.stack([1 - inside, inside], 1))
            return losses.by_name(name)(said, label.expand(len(x), -1), **EACH)[:, 1]

        return values

    x = torch.linspace(0.01, 0.98, 195)
    names = ("dice", "jaccard", "tversky", "focal_tversky", "lovasz_softmax")
    figure, axes = _figure(3, 13, 3.6)
    kinds = {name.replace("_", " "): by_part(name) for name in names}
    _value_and_slope(axes[:2], x, kinds, "probability inside a nucleus of 20 of 400 pixels")
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((rows - 32).square() + (columns - 20).square() < 64).long()[None]
    moved = range(25)
    said = [((rows - 32).square() + (columns - 20 - k).square() < 64).float()[None] for k in moved]
    both = [losses.Probabilities(torch.stack([1 - one, one], 1)) for one in said]
    for name, colour in (("dice", BLUE), ("boundary", ORANGE)):
        values = [float(losses.by_name(name)(one, disc)) for one in both]
        axes[2].plot(moved, [(v - values[0]) / (values[-1] - values[0]) for v in values], label=name, color=colour)
    axes[2].set(title="value, from 0 to 1", xlabel="pixels that a disc of radius 8 is off")
    axes[2].legend(fontsize=8)
    _save(figure, "losses-overlap.png")


def divergences() -> None:
    """Of (0.8, 0.2) and (x, 1 - x)."""
    x = torch.linspace(0.02, 0.98, 385)

    def between(name: str, turned: bool = False) -> Values:
        def values(q: Tensor) -> Tensor:
            one = losses.Probabilities(torch.tensor([[0.8, 0.2]]).expand(len(q), -1))
            other = losses.Probabilities(torch.stack([q, 1 - q], 1))
            return losses.by_name(name)(p=other if turned else one, q=one if turned else other, **EACH)

        return values

    kinds = {"KL(p, q)": between("kl_divergence"), "KL(q, p)": between("kl_divergence", turned=True)}
    kinds |= {"Rényi 1/2": between("renyi"), "Jensen-Shannon": between("jensen_shannon")}
    kinds |= {"Hellinger": between("hellinger"), "total variation": between("total_variation")}
    figure, axes = _figure(2, 9, 3.6)
    _value_and_slope(axes, x, kinds, "x, where p = (0.8, 0.2) and q = (x, 1 - x)")
    axes[0].set_ylim(0, 1.5)
    axes[1].set_ylim(-4, 4)
    _save(figure, "losses-divergence.png")


def _two(x: Tensor) -> Tensor:
    """Logits of two classes, of which x is the log-odds."""
    return torch.stack([torch.zeros_like(x), x], 1)


def _value_and_slope(axes: Sequence[Axes], x: Tensor, kinds: Mapping[str, Values], along: str) -> None:
    for name, values in kinds.items():
        at = x.clone().requires_grad_()
        found = values(at)
        (slope,) = torch.autograd.grad(found.sum(), at)
        axes[0].plot(x.numpy(), found.detach().numpy(), label=name)
        axes[1].plot(x.numpy(), slope.numpy(), label=name)
    for axis, title in zip(axes, ("value", "slope"), strict=True):
        axis.set(title=title, xlabel=along)
    axes[0].legend(fontsize=8)


def _figure(columns: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _block(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), width, 0.7, facecolor=colour, edgecolor="none"))
    axes.text(x + width / 2, y + 0.35, text, ha="center", va="center", color="white", fontsize=9)


def _arrow(axes: Axes, begin: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, begin, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.3})


def _save(figure: Figure, name: str) -> None:
    with atomic(HERE / name) as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


if __name__ == "__main__":
    main()
