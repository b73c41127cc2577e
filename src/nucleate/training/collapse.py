"""Whether embeddings still tell anything apart: their spread and their effective rank.

A network that gives every image the same embedding has nothing to say, and a contrast without negatives is least just
there. So both numbers are watched after each epoch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nucleate.errors import TrainingError
from nucleate.losses.embeddings import unit

SPREAD, RANK = 0.02, 1.5
"""Below either, embeddings have collapsed: to one point, or onto one line."""


def spread(embeddings: Tensor) -> float:
    """The standard deviation of the numbers of embeddings (N, D) of length 1, in the mean over D and times sqrt(D): 0
    where all are one, near 1 where they fill the sphere.

    >>> spread(torch.ones(8, 4))
    0.0
    >>> round(spread(torch.cat([torch.eye(4), -torch.eye(4)])), 3)
    1.0
    """
    rows = unit(embeddings.double())
    return float(rows.std(0, correction=0).mean()) * math.sqrt(rows.shape[1])


def effective_rank(embeddings: Tensor) -> float:
    """exp(H), H the entropy of the singular values of the centred embeddings (N, D) of length 1, divided by their sum:
    from 1, where they lie on a line, to D, where they reach equally far in all directions; 0 where all are one.

    >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 3)
    4.0
    >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 3)
    1.0

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO 2007).
    """
    rows = unit(embeddings.double())
    values = torch.linalg.svdvals(rows - rows.mean(0))
    total = float(values.sum())
    if total <= 1e-9 * len(rows):
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def require_spread(embeddings: Tensor, before: tuple[float, float] | None = None) -> tuple[float, float]:
    """Spread and effective rank of embeddings.

    Args:
        embeddings: (N, D).
        before: Both of the network that training began with. With random weights all images look rather alike, which
            is no collapse: that is a fall below half of it.

    Raises:
        TrainingError: They have collapsed.
    """
    found, bounds = (spread(embeddings), effective_rank(embeddings)), (SPREAD, RANK)
    if before is not None:
        bounds = min(SPREAD, before[0] / 2), min(RANK, before[1] / 2)
    if found[0] >= bounds[0] and found[1] >= bounds[1]:
        return found
    raise TrainingError(
        f"The embeddings have collapsed: to the network all crops look alike (spread {found[0]:.3f}, effective rank "
        f"{found[1]:.1f} of {embeddings.shape[1]}), so nothing more is learnt. Give images that differ more, or "
        "another --contrast."
    )
