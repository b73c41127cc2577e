"""What may go wrong between ranks: it ends in one error on each of them, or it is right after all."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tests.losses.rank_cases import CASES, SPLITS
from torch import Tensor

from nucleate import losses
from nucleate.parallel import communicator_of

MEETING = ("cross_entropy", "dice, batch", "lovasz_softmax, batch", "vicreg", "info_nce", "dense_info_nce, batch")
"""Of each way in which a loss sums and gathers, one."""


def check(group: Any) -> None:
    """Raises where a promise is not kept."""
    ranks = communicator_of(group)
    begin = sum(SPLITS[ranks.size][: ranks.rank])
    rows = slice(begin, begin + SPLITS[ranks.size][ranks.rank])
    for name in MEETING:
        one_asks_for_a_gradient(name, rows, group)
    for loss in (losses.cross_entropy, losses.info_nce) if ranks.size == 2 else ():
        compiled(loss, group)
    refusals(group)
    modules(group)
    if hasattr(group, "Dup"):
        communicators_of_mpi(group)
    ranks.barrier()


def one_asks_for_a_gradient(name: str, rows: slice, group: Any) -> None:
    """Rank 0 alone needs a gradient; the others take part in its backward pass."""
    case = CASES[name]
    whole, mine = case.on_rows(slice(None), torch.float64), case.on_rows(rows, torch.float64)
    fn, rank = losses.by_name(case.loss), communicator_of(group).rank
    fn(**whole, **case.options).backward()
    if rank:
        mine = {name: x.detach() for name, x in mine.items()}
    fn(**mine, **case.options, group=group).backward()
    for k in case.grad if rank == 0 else ():
        torch.testing.assert_close(mine[k].grad, whole[k].grad[rows])  # type: ignore[index]


def compiled(loss: Any, group: Any) -> None:
    """Inside torch.compile the messages break the graph, and are sent all the same."""
    rank = communicator_of(group).rank
    x, more = _logits(rank), torch.arange(4) % 3 if loss is losses.cross_entropy else _logits(rank + 1)
    apart = x.detach().clone().requires_grad_()
    expected = loss(x, more, group=group)
    found = torch.compile(lambda a: loss(a, more, group=group), backend="aot_eager")(apart)
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(apart.grad, x.grad)


def _logits(seed: int) -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def refusals(group: Any) -> None:
    """Every rank says the same, and the next call finds them together."""
    rank, x = communicator_of(group).rank, _logits(0)
    target = torch.zeros(4, dtype=torch.long)
    without = pytest.raises(losses.LossInputError, match=r"some ranks compute this loss under torch\.no_grad")
    with without, torch.set_grad_enabled(rank == 0):
        losses.info_nce(x, x, group=group)
    with pytest.raises(losses.LossInputError, match="the rows of rank 1 have 8 bytes and those of rank 0 12"):
        losses.info_nce(*[x[:, : 3 - (rank == 1)]] * 2, group=group)
    for transform in (torch.func.grad, torch.func.vmap):
        with pytest.raises(losses.LossInputError, match=r"^cross_entropy: group= sends values, and vmap"):
            transform(lambda a: losses.cross_entropy(a, target, group=group))(x.expand(2, 4, 3))
    # A rank without rows does not know the type of the others.
    wide = torch.zeros(0, 3) if rank else x.double()
    value = losses.cross_entropy(wide, target[: len(wide)], group=group)
    torch.testing.assert_close(value.double(), losses.cross_entropy(x.double(), target))


def modules(group: Any) -> None:
    """A copy speaks to the same group."""
    criterion = losses.CrossEntropy(group=group, class_weight=torch.ones(3))
    x, target = _logits(0), torch.zeros(4, dtype=torch.long)
    copied = copy.deepcopy(torch.nn.ModuleList([criterion, criterion]))
    assert copied[0] is copied[1]
    assert copied[0].group is group
    assert copied[0].class_weight is not criterion.class_weight
    assert copied[0](x, target) == criterion(x, target)
    assert repr(criterion).startswith("CrossEntropy(class_weight=tensor([1., 1., 1.]), group=<")
    criterion.group = None
    assert _again(criterion)(x, target) == losses.cross_entropy(x, target)


def _again(criterion: losses.Loss) -> Any:
    return pickle.loads(pickle.dumps(criterion))  # noqa: S301 - what this process wrote


def communicators_of_mpi(world: Any) -> None:
    """A part of the ranks; this package's own face; what was freed; what joins two groups."""
    rank, target = world.Get_rank(), torch.zeros(4, dtype=torch.long)
    part = world.Split(rank % 2)
    same = torch.cat([_logits(other) for other in range(rank % 2, world.Get_size(), 2)])
    expected = losses.cross_entropy(same, target.repeat(len(same) // 4))
    for group in (part, communicator_of(part)):
        torch.testing.assert_close(losses.cross_entropy(_logits(rank), target, group=group), expected)
    between = part.Create_intercomm(0, world, 1 - rank % 2)
    part.Free()
    made = [lambda g: losses.cross_entropy(_logits(0), target, group=g), lambda g: losses.CrossEntropy(group=g)]
    made += [losses.Accumulation, lambda g: losses.mean_of([(0, 0)], g)]
    made += [lambda g: losses.Queue(2, features=3).enqueue(_logits(0), group=g)]
    made += [lambda g: losses.DINOCenter(3).update(_logits(0), group=g)]
    for call, name in zip(made, ("cross_entropy", "CrossEntropy", "Accumulation", "mean_of", "Queue", "DINOCenter"),
                          strict=True):  # fmt: skip
        with pytest.raises(losses.LossInputError, match=f"^{name}: group is a communicator of MPI that was freed"):
            call(part)
        with pytest.raises(losses.LossInputError, match=rf"^{name}: group joins two groups.*Merge\(\)"):
            call(between)
    between.Free()
    assert _again(losses.CrossEntropy(group=world)).group == world
