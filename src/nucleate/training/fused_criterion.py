"""The fast twin of `SegmentationCriterion.derivative`: a compiled pass over the packed maps, on the calling thread."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nucleate.losses.kernels import layout_of, plain_cpu_tensor, words
from nucleate.networks.unet import UNIT
from nucleate.postprocess.targets import Targets


@functools.cache
def _kernels() -> ModuleType | None:
    """Compiled at the first call, or loaded from the cache; None where there is no numba."""
    try:
        from nucleate.training import kernels
    except (ImportError, RuntimeError):
        return None
    return kernels


def derivative(packed: Tensor, targets: Targets, shares: Mapping[str, float]) -> tuple[dict[str, float], Tensor] | None:
    """As `SegmentationCriterion.derivative`, for two classes and cross entropy; None where only the plain one can."""
    at = layout_of(packed, 1) if plain_cpu_tensor(packed) else None
    module = _kernels() if at is not None and at.rows else None
    if at is None or module is None:
        return None
    images, _, height, width = packed.shape
    gradient = torch.empty_like(packed)
    totals = np.zeros(4)
    module.objective_rows(
        words(packed, True, 1), words(gradient, True, 1), packed.dtype == torch.bfloat16, height, width,
        _flat(targets.classes), _flat(targets.known), _flat(targets.heat), _flat(targets.offset),
        _flat(targets.radius), _flat(targets.weight), np.float32(UNIT), np.array(list(shares.values()), np.float32), 0,
        images * height, totals,
    )  # fmt: skip
    return dict(zip(shares, totals.tolist(), strict=True)), gradient


def _flat(x: Tensor) -> NDArray[np.generic]:
    flat: NDArray[np.generic] = x.contiguous().view(-1).numpy()
    return flat
