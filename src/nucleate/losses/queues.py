"""Keys of earlier batches, kept as negatives: many of them without a large batch (MoCo)."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from nucleate.errors import LossInputError
from nucleate.losses.distributed import gather, require_group
from nucleate.losses.validation import require_floating, shape

if TYPE_CHECKING:
    from nucleate.parallel.communicator import Group

__all__ = ["Queue"]


@final
class Queue(nn.Module):
    """The last `length` keys, first in, first out: the negatives of `info_nce`.

    Args:
        length: how many keys are kept.
        features: D, the numbers of a key.

    Both buffers are in `state_dict` and move with `.to(device)`.

    >>> import torch
    >>> from nucleate import losses
    >>> queue = losses.Queue(4, features=2)
    >>> query, key = torch.eye(2), torch.eye(2)
    >>> for _ in range(3):
    ...     loss = losses.info_nce(query, key, negatives=queue.keys(), in_batch=False)
    ...     queue.enqueue(key)  # after the loss: a query's own key is no negative
    >>> queue.keys().shape
    torch.Size([4, 2])

    Source: He et al., Momentum contrast for unsupervised visual representation learning (2020).
    """

    rows: Tensor
    count: Tensor

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        if length < 1 or features < 1:
            raise LossInputError(f"Queue: length and features must be at least 1, got {length} and {features}")
        self.register_buffer("rows", torch.zeros(length, features))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def keys(self) -> Tensor:
        """What is in the queue, (K, D) with K at most `length`: a copy, which a later `enqueue` does not change."""
        return self.rows[: min(int(self.count), len(self.rows))].clone()

    @torch.no_grad()
    def enqueue(self, keys: Tensor, *, group: Group | None = None) -> None:
        """Take the place of the oldest keys, without a gradient.

        Args:
            keys: (N, D).
            group: the ranks whose keys enter, in the order of the ranks, so that all hold the same queue. Every rank
                must call, also one without keys.
        """
        require_group("Queue", group)
        require_floating("Queue", "keys", keys)
        if keys.ndim != 2 or keys.shape[1] != self.rows.shape[1]:
            raise LossInputError(
                f"Queue: keys must have shape (N, {self.rows.shape[1]}), one key a row, got {shape(keys)}"
            )
        every = gather(keys.detach(), group).to(self.rows)
        length, first = len(self.rows), int(self.count)
        kept = every[-length:] if len(every) > length else every
        end = first + len(every)
        places = torch.arange(end - len(kept), end, device=self.rows.device) % length
        self.rows[places] = kept
        self.count.fill_(end)

    def extra_repr(self) -> str:
        return f"{len(self.rows)}, features={self.rows.shape[1]}"
