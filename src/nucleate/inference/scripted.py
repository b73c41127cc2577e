"""The whole prediction of one image as a module that TorchScript can hold: pixels in, labels out.

What `Predictor.segment` does to an image that is one block of the network (`sliding_window.WHOLE`), in operations on
tensors: the percentiles of the image, the judgement of its nuclei's size, the network, the instances. A larger image is
one block here, too. TorchScript reads this file itself: see `postprocess.in_tensors`.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nucleate.data.normalization import HIGHEST, LOWEST
from nucleate.inference.reduced import CONTRAST, is_reduced
from nucleate.inference.sliding_window import APART, GLANCE, JUDGED, LARGE, WHOLE
from nucleate.networks.decode import LARGEST_RADIUS
from nucleate.networks.store import Model
from nucleate.networks.unet import UNIT, UNet
from nucleate.postprocess import rescale
from nucleate.postprocess.in_tensors import instances, numbered, pieces


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation of planes (1, C, H, W) to `height` x `width`, as `sliding_window` does it: down the
    columns, then along the rows.

    >>> resized(torch.tensor([[[[0.0, 1.0]]]]), 1, 4).tolist()
    [[[[0.0, 0.25, 0.75, 1.0]]]]
    """
    for axis, out in [(2, height), (3, width)]:
        of = x.shape[axis]
        place = ((2 * torch.arange(out, device=x.device) + 1) * of - out).clamp_min(0)
        low = torch.div(place, 2 * out, rounding_mode="floor")
        share = ((place - low * 2 * out).double() / (2 * out)).float()
        if axis == 2:
            share = share[:, None]
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, (low + 1).clamp_max(of - 1)) * share
    return x.contiguous()


def reduced(pixels: Tensor, factor: int) -> Tensor:
    """Means, float32, of factor x factor pixels (C, H, W), of fewer at the lower and right border.

    >>> reduced(torch.tensor([[[1, 3, 5], [1, 3, 5]]]), 2).tolist()
    [[[2.0, 5.0]]]
    """
    height, width = pixels.shape[1], pixels.shape[2]
    padded = F.pad(pixels.float(), [0, -width % factor, 0, -height % factor])
    sums: Tensor = padded.unflatten(1, [-1, factor]).sum(2).unflatten(2, [-1, factor]).sum(3)
    high = (height - torch.arange(0, height, factor, device=pixels.device)).clamp_max(factor)
    wide = (width - torch.arange(0, width, factor, device=pixels.device)).clamp_max(factor)
    return (sums.double() / (high[:, None] * wide[None, :])).float()


def enlarged(labels: Tensor, factor: int) -> Tensor:
    """Labels (H, W) `factor` times as large: a pixel takes, of the four nearest labels, the one with most weight in
    bilinear interpolation, as `inference.reduced.enlarge` does it.

    >>> enlarged(torch.tensor([[1, 2]]), 2).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    framed = F.pad(labels[None, None].double(), [1, 1, 1, 1], "replicate")[0, 0].long()
    near: list[Tensor] = []
    weights: list[Tensor] = []
    y = 2 * torch.arange(labels.shape[0] * factor, device=labels.device) + 1 + factor
    x = 2 * torch.arange(labels.shape[1] * factor, device=labels.device) + 1 + factor
    above, left = torch.div(y, 2 * factor, rounding_mode="floor"), torch.div(x, 2 * factor, rounding_mode="floor")
    down, across = (y % (2 * factor)).double() / (2 * factor), (x % (2 * factor)).double() / (2 * factor)
    for i in range(2):
        for j in range(2):
            near.append(framed[above + i][:, left + j])
            weights.append((1 - i - down).abs()[:, None] * (1 - j - across).abs()[None, :])
    votes: list[Tensor] = []
    for one in near:
        total = torch.zeros_like(weights[0])
        for k in range(4):
            total = total + weights[k] * (one == near[k])
        votes.append(total)
    return torch.stack(near).gather(0, torch.stack(votes).argmax(0)[None])[0]


def percentile(values: Tensor, q: float) -> Tensor:
    """The percentile of all values together, float64, in linear interpolation.

    >>> float(percentile(torch.tensor([5.0, 1.0, 3.0, 2.0]), 50.0))
    2.5
    """
    flat = values.flatten().double()
    position = q / 100 * (len(flat) - 1)
    below = math.floor(position)
    low, high = flat.kthvalue(below + 1)[0], flat.kthvalue(min(below + 2, len(flat)))[0]
    return low + (high - low) * (position - below)


def median_diameter(radius: Tensor, middle: float) -> float:
    """About the median diameter of nuclei, from the radius at each of their pixels: see `rescale.predicted_diameter`.

    >>> median_diameter(torch.full((5,), 7.0), 0.45), median_diameter(torch.zeros(0), 0.45)
    (14.0, 0.0)
    """
    if len(radius) == 0:
        return 0.0
    ordered = radius.sort()[0]
    part = (1.0 / ordered.clamp_min(1.0) ** 2).double().cumsum(0)
    return 2 * float(ordered[torch.searchsorted(part, middle * part[-1])])


def starts(length: int, longest: int, apart: int, most: int) -> list[int]:
    """Where the windows of `sliding_window.windows` begin along one axis.

    >>> starts(1000, 192, 300, 3), starts(100, 192, 300, 3)
    ([70, 404, 737], [0])
    """
    side, count = min(length, longest), min(most, max(1, length // max(apart, longest)))
    return [((2 * k + 1) * length - count * side) // (2 * count) for k in range(count)]


def traced(network: UNet) -> torch.jit.ScriptModule:
    """The folded network, of any height and width that are multiples of its stride, as TorchScript holds it: the
    operations themselves. A script of `F.interpolate` would name all of its modes, and older releases lack some."""
    architecture, plain = network.architecture, network.folded().cpu()
    # As `TorchBackend` has it, so that convolutions round alike; PyTorch's types know no memory format without a dtype.
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, architecture.channels, 2 * architecture.stride, 3 * architecture.stride)
    with warnings.catch_warnings():
        # PyTorch advises against TorchScript in favour of what QuPath, Fiji and bioimage.io do not read.
        warnings.simplefilter("ignore", DeprecationWarning)
        with torch.no_grad():
            found: torch.jit.ScriptModule = torch.jit.trace(plain, image)
    return found


class Scripted(nn.Module):
    """Images (N, C, H, W) of any type to labels (N, 1, H, W), int32: 0 background, 1..N the nuclei of each image.

    C is the number of channels of the model; 1 does for a model of several, and 3 for a model of one, which sees their
    mean. On one kind of processor the labels are those of `Predictor(model, engine="torch", bfloat16=False)`, up to the
    rounding of the network's sums.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        architecture, thresholds = model.network.architecture, model.thresholds
        self.network = traced(model.network)
        self.channels, self.classes, self.stride = architecture.channels, architecture.classes, architecture.stride
        self.low, self.high = model.normalisation.low, model.normalisation.high
        self.foreground, self.peak, self.sure = (
            thresholds.foreground,
            thresholds.peak_threshold,
            thresholds.seed_foreground,
        )
        self.nms_radius, self.assign_radius = thresholds.nms_radius, thresholds.assign_radius
        self.min_area = thresholds.min_area
        self.reduces = is_reduced(model.manifest)
        levels = None if model.manifest.corrections is None else model.manifest.corrections.levels
        self.turns = levels is not None
        self.own_level, self.inverted_level = levels or (0.0, 0.0)
        # Names outside the class are not seen by TorchScript.
        self.lowest, self.highest, self.tiny = LOWEST, HIGHEST, float(np.finfo(np.float64).tiny)
        self.unit, self.log_unit, self.largest_radius = UNIT, math.log(UNIT), LARGEST_RADIUS
        self.glance, self.judged, self.apart, self.large, self.whole = GLANCE, JUDGED, APART, LARGE, WHOLE
        self.seen_sure, self.middle, self.contrast = rescale.SURE, rescale.MIDDLE, CONTRAST
        self.smallest_diameter, self.largest_diameter = rescale.DIAMETERS
        self.smallest_factor, self.largest_factor = rescale.FACTORS
        self.worthwhile, self.largest, self.seen = rescale.WORTHWHILE, float(rescale.LARGEST), float(rescale.SEEN)

    def forward(self, image: Tensor) -> Tensor:
        if image.dim() != 4:
            raise ValueError("Give images as (N, channels, height, width).")
        have = image.shape[1]
        if have != self.channels and have != 1 and not (self.channels == 1 and have == 3):
            raise ValueError("The image has another number of channels than the model.")
        return torch.stack([self.segment(one)[None] for one in image.unbind(0)])

    def segment(self, image: Tensor) -> Tensor:
        """Pixels (C, H, W) to labels (H, W)."""
        pixels = image.double()
        if bool((pixels == pixels[:, :1, :1]).all()):
            return torch.zeros(pixels.shape[1:], dtype=torch.int32, device=pixels.device)
        mixed = self.mixed(pixels)
        low, high = percentile(mixed, self.low), percentile(mixed, self.high)
        if self.turns and bool(high > low):
            level = (percentile(mixed, 50.0) - low) / (high - low)
            if bool((level - self.inverted_level).abs() < (level - self.own_level).abs()):
                low, high = high, low
        factor = self.reduction(pixels, low, high)
        normalised = self.normalised(reduced(pixels, factor) if factor > 1 else pixels, low, high)
        foreground, heat, offset, radius = self.maps(self.zoomed(normalised))
        labels = instances(
            foreground,
            heat,
            offset,
            radius,
            self.foreground,
            self.peak,
            self.sure,
            self.nms_radius,
            self.assign_radius,
            -(-self.min_area // (factor * factor)),
        )
        if factor > 1:
            labels = enlarged(labels, factor)[: pixels.shape[1], : pixels.shape[2]]
        return numbered(labels)

    def mixed(self, pixels: Tensor) -> Tensor:
        """One channel from red, green and blue is their sum; scale is free."""
        if pixels.shape[0] == 3 and self.channels == 1:
            pixels = pixels.double()
            return (pixels[0] + pixels[1] + pixels[2])[None]
        return pixels

    def normalised(self, pixels: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Pixels (C, H, W) as the network sees them, (1, channels, H, W)."""
        span = high - low
        scaled = (self.mixed(pixels).double() - low) / torch.where(span == 0, torch.full_like(span, self.tiny), span)
        return scaled.clamp(self.lowest, self.highest).float().expand(self.channels, -1, -1)[None].contiguous()

    def raw(self, image: Tensor) -> Tensor:
        """The network's output (1, classes + 4, H, W) of (1, channels, H, W), zeros beyond its border."""
        height, width = image.shape[2], image.shape[3]
        padded = F.pad(image, [0, -width % self.stride, 0, -height % self.stride])
        output: Tensor = self.network(padded.contiguous(memory_format=torch.channels_last))
        return output.float()[:, :, :height, :width]

    def maps(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Foreground, heat (H, W), offset (2, H, W) and radius (H, W): see `networks.decode.to_maps`."""
        logits, heat, offset, log_radius = raw.split([self.classes, 1, 2, 1], dim=1)
        foreground = 1 - logits[0].softmax(0)[0] if self.classes > 2 else torch.sigmoid(logits[0, 1] - logits[0, 0])
        radius = (log_radius + self.log_unit)[0, 0].exp().clamp(max=self.largest_radius)
        return foreground, heat[0, 0].sigmoid(), (offset * self.unit)[0], radius

    def zoomed(self, image: Tensor) -> Tensor:
        """As `raw`, of the image resized by the factor that suits its nuclei; for the image's own pixels."""
        height, width = image.shape[2], image.shape[3]
        factor = self.zoom(self.judge(image, False)[0])
        if factor == 1.0:
            return self.raw(image)
        size = int(round(factor * height)), int(round(factor * width))  # noqa: RUF046 - in TorchScript a float
        raw = self.raw(resized(image, size[0], size[1]))
        raw = resized(raw, height, width)
        raw[:, self.classes + 1 : self.classes + 3] /= factor
        raw[:, self.classes + 3] -= math.log(factor)
        return raw

    def zoom(self, diameter: float) -> float:
        """See `rescale.zoom`."""
        if diameter <= 0:
            return 1.0
        factor = min(max(1.0, self.smallest_diameter / diameter), self.largest_diameter / diameter)
        factor = min(max(factor, self.smallest_factor), self.largest_factor)
        return factor if max(factor, 1 / factor) >= self.worthwhile else 1.0

    def judge(self, image: Tensor, distinct: bool) -> tuple[float, float]:
        """The median diameter of nuclei in windows of the image (0 for no nuclei), if `distinct` that of
        `rescale.distinct_diameter`; and the range of intensities that the windows show, at most."""
        height, width = image.shape[2], image.shape[3]
        large = max(height, width) > self.large
        apart, most = (self.whole, 8) if large else (self.apart, 3)
        diameter, contrast = 0.0, 0.0
        for longest in [self.glance, self.judged]:
            if diameter > 0 or (large and longest != self.judged):
                continue
            radii: list[Tensor] = []
            areas: list[Tensor] = []
            for y in starts(height, longest, apart, most):
                for x in starts(width, longest, apart, most):
                    window = image[:, :, y : y + longest, x : x + longest]
                    foreground, _, _, radius = self.maps(self.raw(window))
                    sure = foreground > self.seen_sure
                    radii.append(radius[sure])
                    contrast = max(contrast, float(percentile(window, 99.0) - percentile(window, 1.0)))
                    if distinct:
                        areas.append(torch.bincount(pieces(sure.long())[sure]))
            diameter = median_diameter(torch.cat(radii), self.middle)
            if distinct and diameter > 0:
                area = torch.cat(areas).sort()[0]
                half = area[torch.searchsorted(area.cumsum(0).double(), area.sum().double() / 2)]
                diameter = min(diameter, 2 * math.sqrt(float(half) / math.pi))
        return diameter, contrast

    def reduction(self, pixels: Tensor, low: Tensor, high: Tensor) -> int:
        """By which whole factor an image is reduced before all else: see `rescale.reduction`."""
        if not self.reduces or max(pixels.shape[1], pixels.shape[2]) <= self.largest:
            return 1
        quarter = self.diameter(pixels, 4, low, high)
        if quarter < self.smallest_diameter * 2 / 3 or self.diameter(pixels, 2, low, high) < self.smallest_diameter:
            return 1
        diameter = max(4 * quarter, 8 * self.diameter(pixels, 8, low, high))
        return int(round(diameter / self.seen)) if diameter > self.largest else 1  # noqa: RUF046 - as above

    def diameter(self, pixels: Tensor, factor: int, low: Tensor, high: Tensor) -> float:
        """The median diameter that is seen in the image reduced by a factor; 0 where it shows too little contrast."""
        image = self.normalised(reduced(pixels, factor), low, high)
        diameter, contrast = self.judge(image, factor > 2)
        return diameter if contrast > self.contrast else 0.0
