"""What pre-training makes small, and its gradient.

Terms, each a mean over the views of all parts of a batch, and of all ranks:

    views           `nt_xent` of the embeddings of views: which of all other views shows the same place
    places          `dense_info_nce` of matched places in the decoder's features, in both directions
    reconstruction  |image - reconstruction| where the view was hidden, and a little where it was not
    variance        every number of an embedding varies over the batch    (of VICReg)
    covariance      no two numbers of it say the same                     (of VICReg)

The first two need all embeddings at once, however a batch is spread over threads and ranks: so embeddings are computed
part by part, the terms and their gradient at the embeddings once, and the gradient is carried back part by part (Gao
et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nucleate import losses
from nucleate.data.views import ViewConfig, Views
from nucleate.errors import InputError
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.runtime import autocast
from nucleate.parallel import Communicator, SingleProcess
from nucleate.training.gradient import Backpropagation, across, require_finite
from nucleate.training.parallel import Parallel, Serial


@dataclass(frozen=True, slots=True)
class PretrainingConfig:
    """What is learnt without labels: the weight of each term of `contrast`, 0 for none, and what views are.

    Args:
        views: telling views of other places apart, at the bottleneck.
        places: telling places in a view apart, in the decoder's features.
        reconstruction: of hidden and noisy pixels.
        variance, covariance: against collapse; they count only beside a contrast.
        temperature: of both contrasts.
        crops: held-out crops, at most, among which the other view of each is looked for.
        view: see `ViewConfig`.
    """

    views: float = 1.0
    places: float = 0.3
    reconstruction: float = 1.0
    variance: float = 0.2
    covariance: float = 0.01
    temperature: float = 0.1
    crops: int = 256
    view: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        for name in ("views", "places", "reconstruction", "variance", "covariance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"The weight {name} is {getattr(self, name):g}: give a number from 0.")
        if not (self.views or self.places or self.reconstruction):
            raise InputError("Contrast and reconstruction are both 0, so nothing would be learnt: give one a weight.")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"The temperature is {self.temperature:g}: give a number above 0.")

    @classmethod
    def of(cls, contrast: float = 1.0, reconstruction: float = 1.0) -> PretrainingConfig:
        """The usual weights, those of each kind times a factor.

        >>> PretrainingConfig.of(contrast=0.0).places, PretrainingConfig.of(reconstruction=2.0).reconstruction
        (0.0, 2.0)
        """
        if not (contrast >= 0 and reconstruction >= 0):
            raise InputError(
                f"--contrast is {contrast:g} and --reconstruction {reconstruction:g}: give numbers from 0."
            )
        own = cls()
        contrasts = {name: contrast * getattr(own, name) for name in ("views", "places", "variance", "covariance")}
        return cls(**contrasts, reconstruction=reconstruction * own.reconstruction)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the network makes of N pairs: embeddings of their views (N, 2, D) and of their places (N, 2, E, P), and the
    total of the reconstruction over the `weight` of its pixels."""

    views: Tensor
    places: Tensor
    total: Tensor
    weight: float


class PretrainingCriterion:
    """The terms of the module, by their names."""

    def __init__(self, config: PretrainingConfig) -> None:
        self.config = config

    @property
    def terms(self) -> Mapping[str, float]:
        """The weight of each term that counts."""
        named = ("views", "places", "variance", "covariance", "reconstruction")
        return {name: getattr(self.config, name) for name in named if getattr(self.config, name)}

    def contrasts(self, group: Communicator | None) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """All terms but the reconstruction, as functions of the embeddings of views and places; with `group` of those
        of all ranks."""
        t = self.config.temperature

        def views(views: Tensor, places: Tensor) -> Tensor:
            return losses.nt_xent(views[:, 0], views[:, 1], temperature=t, check=False, group=group)

        def places(views: Tensor, places: Tensor) -> Tensor:
            first, second = places[:, 0], places[:, 1]
            match = torch.arange(places.shape[3], device=places.device).expand(len(places), -1)
            values = (
                losses.dense_info_nce(*pair, match, temperature=t, negatives="batch", check=False, group=group)
                for pair in ((first, second), (second, first))
            )
            return torch.stack(list(values)).mean()

        def variance(views: Tensor, places: Tensor) -> Tensor:
            return _vicreg(views, places, group, variance=1.0, covariance=0.0)

        def covariance(views: Tensor, places: Tensor) -> Tensor:
            return _vicreg(views, places, group, variance=0.0, covariance=1.0)

        made = {"views": views, "places": places, "variance": variance, "covariance": covariance}
        return {name: one for name, one in made.items() if name in self.terms}

    def embed(self, network: PretrainingNetwork, batch: Views) -> Embedded:
        """The embeddings of a batch, and the total of its reconstruction."""
        pairs = batch.image.shape[:2]
        images = batch.image.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        views, places, maps = network.views(images, batch.points.flatten(0, 1))
        weight = batch.weight.flatten(0, 1)
        channels = batch.clean.shape[2]
        total = losses.l1(maps, batch.clean.flatten(0, 1), channel_dim=1, weight=weight, reduction="sum", check=False)
        return Embedded(views.unflatten(0, pairs), places.unflatten(0, pairs), total, channels * float(weight.sum()))

    def values(self, batches: Sequence[Embedded]) -> dict[str, float]:
        """Each term, unweighted, of the batches together."""
        views, places = (torch.cat([getattr(one, name) for one in batches]) for name in ("views", "places"))
        found = {name: float(term(views, places).detach()) for name, term in self.contrasts(None).items()}
        if "reconstruction" in self.terms:
            found["reconstruction"] = sum(float(one.total.detach()) for one in batches) / sum(
                one.weight for one in batches
            )
        return found

    def loss(self, values: Mapping[str, float]) -> float:
        """The sum of the terms by their weights."""
        return sum(weight * values[name] for name, weight in self.terms.items())


def _vicreg(views: Tensor, places: Tensor, group: Communicator | None, *, variance: float, covariance: float) -> Tensor:
    """The mean of these terms of `vicreg` over the embeddings of views and those of places."""
    values = (
        losses.vicreg(
            pair[0], pair[1], invariance=0.0, variance=variance, covariance=covariance, check=False, group=group
        )
        for pair in (views.unbind(1), places.permute(1, 0, 3, 2).flatten(1, 2).unbind(0))
    )
    return torch.stack(list(values)).mean()


class PairBackpropagation(Backpropagation):
    """Takes the gradient of a `PretrainingCriterion` at the parameters of a `PretrainingNetwork`."""

    _folded: PretrainingNetwork

    def __init__(self, network: PretrainingNetwork, criterion: PretrainingCriterion) -> None:
        super().__init__(network)
        self.criterion = criterion

    def of_pairs(
        self,
        batches: Sequence[Views],
        *,
        bfloat16: bool,
        parallel: Parallel | None = None,
        ranks: Communicator | None = None,
    ) -> float:
        """As `Backpropagation.backward`: add the gradient over the batches of all ranks, and give the value.

        Raises:
            TrainingError: the value is not finite.
        """
        parallel, ranks = parallel or Serial(), ranks or SingleProcess()
        batches = [batch.to(self._leaves[0].device) for batch in batches]
        made = self.make_kernels(parallel)

        def embed(batch: Views) -> Embedded:
            with torch.enable_grad(), autocast(batch.image.device, bfloat16=bfloat16):
                return self.criterion.embed(self._folded, batch)

        parts = parallel.map(embed, batches)
        values, (of_views, of_places) = self._at_embeddings(parts, ranks)
        terms = {"total": sum(float(one.total.detach()) for one in parts), "weight": sum(one.weight for one in parts)}
        terms, share = across(terms, ranks), 0.0
        if self.criterion.config.reconstruction and terms["weight"] > 0:
            values["reconstruction"] = terms["total"] / terms["weight"]
            share = self.criterion.config.reconstruction / terms["weight"]
        value = sum(weight * values.get(name, 0.0) for name, weight in self.criterion.terms.items())
        counts = [len(one.views) for one in parts]
        given = zip(parts, of_views.split(counts), of_places.split(counts), strict=True) if parts else ()

        def back(part: tuple[Embedded, Tensor, Tensor]) -> tuple[Tensor, ...]:
            own, views, places = part
            outputs, inputs = [own.views, own.places, own.total], [views, places, torch.full_like(own.total, share)]
            found = torch.autograd.grad(outputs, self._leaves, inputs, allow_unused=True, materialize_grads=True)
            return found

        require_finite(value)
        self.add_gradient(made, parallel.map(back, given), parallel, ranks)
        return value

    def _at_embeddings(
        self, parts: Sequence[Embedded], ranks: Communicator
    ) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
        """The values of the contrasts, and the gradient of their weighted sum at all embeddings of this rank."""
        example = self._empty() if not parts else None
        joined = [
            torch.cat([getattr(one, name).detach() for one in parts]) if example is None else example[index]
            for index, name in enumerate(("views", "places"))
        ]
        gradients = [torch.zeros_like(one) for one in joined]
        values = {}
        # One after the other, as ranks meet in each backward pass.
        for name, term in self.criterion.contrasts(ranks if ranks.size > 1 else None).items():
            inputs = [one.requires_grad_() for one in joined]
            value = term(*inputs)
            values[name] = float(value.detach())
            found = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
            weight = self.criterion.terms[name]
            gradients = [before + weight * one for before, one in zip(gradients, found, strict=True)]
        return values, (gradients[0], gradients[1])

    def _empty(self) -> tuple[Tensor, Tensor]:
        """The embeddings of a rank without a pair."""
        points = self.criterion.config.view.points
        views, places = self._folded.of_views.last.out_channels, self._folded.of_places.last.out_channels
        where = self._leaves[0].device
        return torch.zeros(0, 2, views, device=where), torch.zeros(0, 2, places, points, device=where)
