"""Losses as modules, those of single positions: options at construction, tensors at the call.

    criterion = losses.CrossEntropy(ignore_index=255, label_smoothing=0.1)
    loss = criterion(logits, target)

A module takes the options of the function of its name. Tensors among them become buffers, and so move with
`.to(device)`; an `nn.Parameter` is learnt, as in InfoNCE(temperature=nn.Parameter(torch.tensor(0.1))).
"""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable
from typing import Any, ClassVar, final

from torch import Tensor, nn

from nucleate.errors import LossInputError
from nucleate.losses.cross_entropy import binary_cross_entropy, cross_entropy, focal
from nucleate.losses.divergence import (
    generalized_kl,
    hellinger,
    jensen_shannon,
    kl_divergence,
    renyi,
    total_variation,
    wasserstein_1d,
)
from nucleate.losses.entropy import entropy, expected_calibration_error, information, mutual_information, perplexity
from nucleate.losses.linear_cross_entropy import linear_cross_entropy
from nucleate.losses.margin import (
    exponential,
    hinge,
    logistic,
    modified_huber,
    perceptron,
    ramp,
    smoothed_hinge,
    squared_hinge,
    zero_one,
)
from nucleate.losses.ranking import margin_ranking, multiclass_hinge, triplet_margin


class Loss(nn.Module, ABC):
    """What the modules below share. Options given at the call go before those given at construction.

    >>> import torch
    >>> criterion = CrossEntropy(weight=torch.tensor([1.0, 3.0]), ignore_index=255)
    >>> criterion
    CrossEntropy(weight=tensor([1., 3.]), ignore_index=255)
    >>> round(criterion(torch.zeros(2, 2), torch.tensor([1, 255])).item(), 4)
    0.6931
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        allowed = [p.name for p in inspect.signature(self.function).parameters.values() if p.default is not p.empty]
        self._options = tuple(options)
        for name, value in options.items():
            if name not in allowed:
                raise LossInputError(f"{type(self).__name__}: has no option {name!r}; it has {', '.join(allowed)}")
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Tensor, **named: Any) -> Tensor:
        options = {name: getattr(self, name) for name in self._options}
        return self.function(*inputs, **{**options, **named})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)


@final
class Entropy(Loss):
    """`entropy` as a module."""

    function = staticmethod(entropy)


@final
class Perplexity(Loss):
    """`perplexity` as a module."""

    function = staticmethod(perplexity)


@final
class Information(Loss):
    """`information` as a module."""

    function = staticmethod(information)


@final
class MutualInformation(Loss):
    """`mutual_information` as a module."""

    function = staticmethod(mutual_information)


@final
class ExpectedCalibrationError(Loss):
    """`expected_calibration_error` as a module."""

    function = staticmethod(expected_calibration_error)


@final
class CrossEntropy(Loss):
    """`cross_entropy` as a module."""

    function = staticmethod(cross_entropy)


@final
class BinaryCrossEntropy(Loss):
    """`binary_cross_entropy` as a module."""

    function = staticmethod(binary_cross_entropy)


@final
class Focal(Loss):
    """`focal` as a module."""

    function = staticmethod(focal)


@final
class LinearCrossEntropy(Loss):
    """`linear_cross_entropy` as a module."""

    function = staticmethod(linear_cross_entropy)


@final
class KLDivergence(Loss):
    """`kl_divergence` as a module."""

    function = staticmethod(kl_divergence)


@final
class JensenShannon(Loss):
    """`jensen_shannon` as a module."""

    function = staticmethod(jensen_shannon)


@final
class TotalVariation(Loss):
    """`total_variation` as a module."""

    function = staticmethod(total_variation)


@final
class Hellinger(Loss):
    """`hellinger` as a module."""

    function = staticmethod(hellinger)


@final
class Renyi(Loss):
    """`renyi` as a module."""

    function = staticmethod(renyi)


@final
class GeneralizedKL(Loss):
    """`generalized_kl` as a module."""

    function = staticmethod(generalized_kl)


@final
class Wasserstein1D(Loss):
    """`wasserstein_1d` as a module."""

    function = staticmethod(wasserstein_1d)


@final
class Hinge(Loss):
    """`hinge` as a module."""

    function = staticmethod(hinge)


@final
class SquaredHinge(Loss):
    """`squared_hinge` as a module."""

    function = staticmethod(squared_hinge)


@final
class SmoothedHinge(Loss):
    """`smoothed_hinge` as a module."""

    function = staticmethod(smoothed_hinge)


@final
class ModifiedHuber(Loss):
    """`modified_huber` as a module."""

    function = staticmethod(modified_huber)


@final
class Logistic(Loss):
    """`logistic` as a module."""

    function = staticmethod(logistic)


@final
class Exponential(Loss):
    """`exponential` as a module."""

    function = staticmethod(exponential)


@final
class Perceptron(Loss):
    """`perceptron` as a module."""

    function = staticmethod(perceptron)


@final
class Ramp(Loss):
    """`ramp` as a module."""

    function = staticmethod(ramp)


@final
class ZeroOne(Loss):
    """`zero_one` as a module."""

    function = staticmethod(zero_one)


@final
class MulticlassHinge(Loss):
    """`multiclass_hinge` as a module."""

    function = staticmethod(multiclass_hinge)


@final
class MarginRanking(Loss):
    """`margin_ranking` as a module."""

    function = staticmethod(margin_ranking)


@final
class TripletMargin(Loss):
    """`triplet_margin` as a module."""

    function = staticmethod(triplet_margin)
