"""A prediction by several ranks: small images are dealt out, then each large one is done by all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from nucleate.errors import NucleateError
from nucleate.inference.image_input import OpenImage
from nucleate.inference.run import Run
from nucleate.inference.scheduler import thread_pool
from nucleate.inference.sources import Source
from nucleate.inference.summary import Failed, ImageResult, from_json, to_json
from nucleate.parallel import Communicator, RanksLost
from nucleate.parallel.deal import InOrder, deal
from nucleate.parallel.launch import without_lost


class SharedRun:
    """One call of `predict` by several ranks."""

    def __init__(self, run: Run, images: Sequence[Source]) -> None:
        self._run, self._images = run, {one.name: one for one in images}
        self._known: dict[str, Any] = {}  # what this rank knows to be done, by name, as JSON; None of a large image

    def results(self, ranks: Communicator) -> dict[str, ImageResult]:
        """What became of each image, on every rank."""
        while True:
            try:
                self._small(ranks)
                for name in [name for name in self._images if self._known[name] is None]:
                    self._known[name] = to_json(self._large(ranks, self._images[name]))
                ranks.barrier()
                return {name: from_json(one) for name, one in self._known.items()}
            except RanksLost:
                ranks = without_lost(ranks)

    def _small(self, ranks: Communicator) -> None:
        """Segment what is small, and note what is large."""
        self._share(ranks)
        left = [name for name in self._images if name not in self._known]

        def done(name: str, result: Any) -> None:
            if result is not None:
                self._run.told(self._images[name], from_json(result))

        threads = torch.get_num_threads()
        with thread_pool(threads, 1) as pool:
            deal(ranks, InOrder(left, done), self._try, pool, threads)
        self._share(ranks)

    def _share(self, ranks: Communicator) -> None:
        """What any rank knows is known to all."""
        for known in ranks.all(self._known):
            self._known |= known

    def _try(self, name: str) -> Any:
        _, result = self._run.start(self._images[name])
        if isinstance(result, OpenImage):
            result.close()
            self._known[name] = None
        else:
            self._known[name] = to_json(result)
        return self._known[name]

    def _large(self, ranks: Communicator, source: Source) -> ImageResult:
        try:
            image = ranks.together(partial(self._run.open, source))
        except RanksLost:
            raise
        except NucleateError as error:
            return Failed(str(error))
        result = self._run.finish(source, image, ranks)
        if ranks.rank == 0:
            self._run.told(source, result)
        return result
