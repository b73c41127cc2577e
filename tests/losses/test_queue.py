"""Further negatives, hard ones, and the queue that holds them, against the formulas of their papers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses import LossInputError


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def test_further_negatives_are_further_columns() -> None:
    q, k, extra = doubles(5, 3), doubles(5, 3), doubles(7, 3)
    logits = unit(q) @ unit(torch.cat((k, extra))).T / 0.2
    expected = F.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(losses.info_nce(q, k, negatives=extra, temperature=0.2), expected)


def test_negatives_of_the_queue_alone_are_the_loss_of_moco() -> None:
    q, k, extra = doubles(5, 3), doubles(5, 3), doubles(7, 3)
    positive = (unit(q) * unit(k)).sum(1, keepdim=True)
    logits = torch.cat((positive, unit(q) @ unit(extra).T), 1) / 0.07
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    found = losses.info_nce(q, k, negatives=extra, in_batch=False, temperature=0.07)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("in_batch", [True, False])
def test_hard_negatives_weigh_as_in_the_paper(in_batch: bool) -> None:
    q, k, extra, t, beta = doubles(4, 3), doubles(4, 3), doubles(6, 3), 0.3, 1.5
    expected = []
    for i in range(4):
        others = torch.cat([k[:i], k[i + 1 :], extra] if in_batch else [extra])
        negative = (unit(others) @ unit(q)[i] / t).exp()
        positive = (unit(q)[i] @ unit(k)[i] / t).exp()
        importance = negative**beta
        reweighed = (importance * negative).sum() / importance.mean()
        expected.append(-(positive / (positive + reweighed)).log())
    options = {"negatives": extra, "in_batch": in_batch, "temperature": t, "reduction": "none"}
    torch.testing.assert_close(losses.info_nce(q, k, hardness=beta, **options), torch.stack(expected))
    plain = losses.info_nce(q, k, hardness=1e-12, **options)
    torch.testing.assert_close(plain, losses.info_nce(q, k, **options))


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_without_a_negative_there_is_nothing_to_lose(hardness: float) -> None:
    q = doubles(1, 3).requires_grad_()
    for options in ({}, {"negatives": doubles(0, 3), "in_batch": False}):
        value = losses.info_nce(q, q, hardness=hardness, **options)
        (slope,) = torch.autograd.grad(value, q)
        assert value == 0
        assert (slope == 0).all()


def test_decoupled_is_the_cited_loss() -> None:
    """Of both views: -s / T + log of the sum over all rows of other pairs."""
    a, b, t = doubles(4, 3), doubles(4, 3), 0.3
    z = unit(torch.stack((a, b)))
    values = []
    for i in range(4):
        for k in range(2):
            others = [z[w, j] @ z[k, i] / t for w in range(2) for j in range(4) if j != i]
            values.append(torch.stack(others).logsumexp(0) - z[k, i] @ z[1 - k, i] / t)
    torch.testing.assert_close(losses.decoupled(a, b, temperature=t), torch.stack(values).mean())
    alone = losses.total_and_weight(losses.decoupled, a[:1], b[:1])
    assert (alone.total, alone.weight) == (0, 0)


def test_what_negatives_may_not_be() -> None:
    x = doubles(3, 4)
    with pytest.raises(LossInputError, match="in_batch=False leaves no negatives"):
        losses.info_nce(x, x, in_batch=False)
    with pytest.raises(LossInputError, match=r"negatives must have shape \(K, 4\)"):
        losses.info_nce(x, x, negatives=doubles(3, 5))
    with pytest.raises(LossInputError, match="hardness"):
        losses.info_nce(x, x, hardness=-1.0)


def test_a_row_of_weight_0_takes_no_part() -> None:
    a, b = doubles(6, 3), doubles(6, 3)
    w = torch.tensor([1.0, 0, 2, 0, 1, 3], dtype=torch.float64)
    kept = w > 0
    for loss in (losses.info_nce, losses.clip_loss, losses.nt_xent, losses.decoupled, losses.siglip):
        x, y = (torch.where(kept.unsqueeze(1), v, torch.nan).requires_grad_() for v in (a, b))
        value = loss(x, y, weight=w)
        torch.testing.assert_close(value, loss(a[kept], b[kept], weight=w[kept]))
        for slope in torch.autograd.grad(value, (x, y)):
            assert (slope[~kept] == 0).all()


@pytest.mark.parametrize("name", ["info_nce", "clip_loss", "nt_xent", "decoupled", "siglip", "sup_con"])
def test_rows_that_are_masked_inside_a_transformation_are_left_out(name: str) -> None:
    """There shapes must not depend on values, and the rows are excluded by their scores instead."""
    a, b = doubles(6, 3), doubles(6, 3)
    mask, w = torch.tensor([True, False, True, True, False, True]), torch.rand(6, dtype=torch.float64)
    other = torch.tensor([0, 1, 0, 1, 1, 1]) if name == "sup_con" else b
    x = torch.where(mask.unsqueeze(1), a, torch.nan)

    def loss(v: Tensor) -> Tensor:
        return losses.by_name(name)(v, other, mask=mask, weight=w)

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    slope, value = torch.func.grad_and_value(loss)(x)
    torch.testing.assert_close(value, loss(x))
    torch.testing.assert_close(slope, expected)
    several = torch.func.vmap(loss)(torch.stack((x, x)))
    torch.testing.assert_close(several, value.expand(2))


def test_a_queue_is_first_in_first_out() -> None:
    queue = losses.Queue(5, features=2)
    rows = torch.arange(32.0).reshape(16, 2)
    assert queue.keys().shape == (0, 2)
    seen = 0
    for size in (2, 0, 2, 3, 7, 1):
        queue.enqueue(rows[seen : seen + size])
        seen += size
        held = queue.keys()
        assert sorted(held[:, 0].tolist()) == rows[max(0, seen - 5) : seen, 0].tolist()
    again = losses.Queue(5, features=2)
    again.load_state_dict(copy.deepcopy(queue.state_dict()))
    for one in (queue, again):
        one.enqueue(rows[:3])
    assert torch.equal(queue.keys(), again.keys())
    assert repr(queue) == "Queue(5, features=2)"


def test_keys_of_a_queue_do_not_change_before_the_backward_pass() -> None:
    queue = losses.Queue(8, features=3)
    queue.enqueue(torch.randn(8, 3))
    q, k = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    value = losses.info_nce(q, k, negatives=queue.keys(), in_batch=False, similarity="dot")
    queue.enqueue(k)
    value.backward()
    assert not queue.keys().requires_grad


def test_what_a_queue_may_not_be() -> None:
    with pytest.raises(LossInputError, match="at least 1, got 0"):
        losses.Queue(0, features=2)
    with pytest.raises(LossInputError, match=r"shape \(N, 2\)"):
        losses.Queue(4, features=2).enqueue(torch.zeros(3, 3))
