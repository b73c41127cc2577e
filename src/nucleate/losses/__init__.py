"""Loss functions for PyTorch: exact, fast, and each a sum with a weight.

    from nucleate import losses
    loss = losses.cross_entropy(logits, target, ignore_index=255)
    total, weight = losses.total_and_weight(losses.cross_entropy, logits, target)

Only torch and numpy are needed.
"""

from nucleate.errors import LossInputError
from nucleate.losses.checking import checks
from nucleate.losses.cross_entropy import binary_cross_entropy, cross_entropy, focal
from nucleate.losses.reduction import Accumulation, TotalAndWeight, mean_of, total_and_weight

__all__ = [
    "Accumulation",
    "LossInputError",
    "TotalAndWeight",
    "binary_cross_entropy",
    "checks",
    "cross_entropy",
    "focal",
    "mean_of",
    "total_and_weight",
]
