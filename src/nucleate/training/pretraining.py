"""The task of pre-training: pairs of views of unlabelled images to learn from, and crops that are held out to judge by.

What was learnt is measured without a label: of N held-out crops, how often is the other view of the same crop the
nearest of N? By chance once in N.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nucleate import losses
from nucleate.data.views import VISIBLE, Place, ViewConfig, Views, ViewSampler, contrast_at
from nucleate.io.digest import digest_of_arrays
from nucleate.losses.embeddings import unit
from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.runtime import autocast
from nucleate.networks.unet import UNet
from nucleate.parallel import Communicator, SingleProcess
from nucleate.training.collapse import effective_rank, require_spread, spread
from nucleate.training.config import TrainingConfig
from nucleate.training.contrast import PairBackpropagation, PretrainingConfig, PretrainingCriterion
from nucleate.training.parallel import Parallel, Serial
from nucleate.training.trainer import Backward
from nucleate.training.unlabelled import Pixels

_HELD_OUT_SEED = 2**31
"""Added to the seed of a run, so that held-out pairs are other ones than those that are learnt from."""


def held_out_places(images: Sequence[Tensor], crop: int, most: int, seed: int) -> list[Place]:
    """At most so many places, side by side in the images, a crop each; those that show nothing are left out, unless
    all do.

    >>> held_out_places([torch.rand(1, 64, 40)], 32, 9, seed=0)
    [(0, 15.5, 19.5), (0, 47.5, 19.5)]
    """
    places: list[Place] = []
    for index, image in enumerate(images):
        along = [_centres(side, crop) for side in image.shape[1:]]
        places += [(index, y, x) for y in along[0] for x in along[1]]
    shown = [place for place in places if contrast_at(images[place[0]], *place[1:], crop) >= VISIBLE]
    places = shown if len(shown) > 1 else places
    order = np.random.default_rng([seed, _HELD_OUT_SEED]).permutation(len(places))
    return [places[number] for number in order[:most]]


def _centres(side: int, crop: int) -> list[float]:
    """The middles of as many crops as fit beside one another, one at least, about the middle of a side."""
    count = max(1, side // crop)
    return [(side - 1) / 2 + crop * (number - (count - 1) / 2) for number in range(count)]


def retrieval(embeddings: Tensor) -> float:
    """How often the other view of the same crop is the nearest by cosine, of embeddings (N, 2, D), in both directions:
    1 / N by chance.

    >>> rows = torch.eye(4)
    >>> retrieval(torch.stack([rows, rows], 1)), retrieval(torch.stack([rows, rows.roll(1, 0)], 1))
    (1.0, 0.0)
    """
    first, second = unit(embeddings.float()).unbind(1)
    alike, own = first @ second.T, torch.arange(len(first), device=first.device)
    return float(torch.stack([(alike.argmax(axis) == own).float().mean() for axis in (0, 1)]).mean())


@dataclass(frozen=True, slots=True)
class PretrainingResult:
    """What the held-out crops say: `loss`; `score`, how often the other view is the nearest; spread and effective rank
    of the `embeddings` (N, 2, D); and each term of the loss."""

    loss: float
    score: float
    spread: float
    effective_rank: float
    terms: Mapping[str, float]
    embeddings: Tensor

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the history tells besides."""
        return {"spread": self.spread, "effective_rank": self.effective_rank, **self.terms}


class HeldOut:
    """Held-out crops, each in two views, which nothing is learnt from.

    Args:
        images: what is held out.
        config: the crops' number and views. For the search nothing is hidden in them.
        seed: of the run.
        group: pairs among which the loss is taken, as many as in a step of training.
    """

    GROUPS = 4
    """So many groups of pairs are enough to tell the loss."""

    def __init__(self, images: Sequence[Pixels], config: PretrainingConfig, seed: int, group: int) -> None:
        self.images = [torch.from_numpy(image) for image in images]
        self.criterion, self.group = PretrainingCriterion(config), group
        self.places = held_out_places(self.images, config.view.variation.crop, config.crops, seed)
        self._whole = self._sampler(seed, dataclasses.replace(config.view, hidden=0.0))
        self._hidden = self._sampler(seed, config.view)

    def _sampler(self, seed: int, view: ViewConfig) -> ViewSampler:
        return ViewSampler(self.images, seed + _HELD_OUT_SEED, view, self.places)

    def __len__(self) -> int:
        return len(self.places)

    def views(self) -> Views:
        """All crops as they are searched for."""
        return self._whole.batch(range(len(self)))

    @torch.inference_mode()
    def evaluate(
        self,
        network: PretrainingNetwork,
        *,
        bfloat16: bool,
        parallel: Parallel,
        ranks: Communicator,
    ) -> PretrainingResult:
        """The groups of pairs are dealt out to `ranks`, all of which get the same result."""
        folded = network.folded()
        assert isinstance(folded, PretrainingNetwork)
        where = next(folded.parameters()).device
        parts = [range(begin, min(begin + self.group, len(self))) for begin in range(0, len(self), self.group)]
        # A contrast of few pairs is another loss: the last group may be a small one.
        judged = len([part for part in parts if len(part) == self.group]) or 1

        def one(number: int) -> tuple[Tensor, dict[str, float]]:
            with torch.inference_mode(), autocast(where, bfloat16=bfloat16):
                image = self._whole.batch(parts[number]).image.to(where)
                found = folded.embedding(image.flatten(0, 1)).unflatten(0, image.shape[:2]).cpu()
                if number >= min(judged, self.GROUPS):
                    return found, {}
                embedded = self.criterion.embed(folded, self._hidden.batch(parts[number]).to(where))
                return found, self.criterion.values([embedded])

        mine = range(ranks.rank, len(parts), ranks.size)
        made = parallel.map(one, mine)
        embeddings = self._across([rows for rows, _ in made], ranks, len(parts))
        rows = ranks.all([values for _, values in made])
        every = [rows[number % ranks.size][number // ranks.size] for number in range(len(parts))]
        known = [values for values in every if values]
        terms = {name: sum(values[name] for values in known) / len(known) for name in known[0]}
        flat = embeddings.flatten(0, 1)
        found = spread(flat), effective_rank(flat)
        return PretrainingResult(self.criterion.loss(terms), retrieval(embeddings), *found, terms, embeddings)

    def _across(self, made: Sequence[Tensor], ranks: Communicator, parts: int) -> Tensor:
        """The embeddings of all parts in their order, of which each rank made every one of its turn."""
        if ranks.size == 1:
            return torch.cat(list(made))
        # Rank 0 made the first part; others may have made none.
        width = ranks.agree(list(made[0].shape[1:]) if made else [])
        own = torch.cat(list(made)) if made else torch.zeros(0, *width)
        gathered = [list(rows.split(self.group)) for rows in ranks.gather(own)]
        return torch.cat([gathered[number % ranks.size][number // ranks.size] for number in range(parts)])


class PretrainingTask:
    """Learn from images without labels: what `Trainer` needs to know of them.

    Args:
        training: images to learn from.
        held_out: what the network is evaluated on after each epoch.
        config: seed and batch of the run.
        what: what is learnt.
        before: what the held-out crops said of the network that training begins with, if that is known.
    """

    def __init__(
        self,
        training: Sequence[Pixels],
        held_out: HeldOut,
        config: TrainingConfig,
        what: PretrainingConfig,
        before: PretrainingResult | None = None,
    ) -> None:
        losses.warm_up("nt_xent", "dense_info_nce", "vicreg", "l1")
        images = [torch.from_numpy(image) for image in training]
        self.sampler, self.held_out = ViewSampler(images, config.seed, what.view), held_out
        self.criterion = PretrainingCriterion(what)
        self._before = None if before is None else (before.spread, before.effective_rank)
        self.identity: dict[str, Any] = {
            "pretraining": asdict(what),
            "images": digest_of_arrays(training),
            "held-out crops": len(held_out),
        }

    def batch(self, samples: range) -> Views:
        """The pairs of these numbers."""
        return self.sampler.batch(samples)

    def backward(self, network: UNet) -> Backward[Views]:
        """The gradient of the criterion."""
        assert isinstance(network, PretrainingNetwork)
        return PairBackpropagation(network, self.criterion).of_pairs

    def evaluate(
        self, network: UNet, *, bfloat16: bool, parallel: Parallel | None = None, ranks: Communicator | None = None
    ) -> PretrainingResult:
        """How well the other view of a held-out crop is found.

        Raises:
            TrainingError: the embeddings have collapsed.
        """
        assert isinstance(network, PretrainingNetwork)
        found = self.held_out.evaluate(
            network, bfloat16=bfloat16, parallel=parallel or Serial(), ranks=ranks or SingleProcess()
        )
        require_spread(found.embeddings.flatten(0, 1), self._before)
        return found
