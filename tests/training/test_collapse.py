"""Collapse has a number and a name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nucleate.errors import TrainingError
from nucleate.training.collapse import effective_rank, require_spread, spread


def rows(seed, count=64, width=8):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_neither_number_depends_on_lengths_or_on_the_axes(seed, factor):
    x = rows(seed)
    turn = torch.linalg.qr(rows(seed + 1, 8))[0]
    assert effective_rank(factor * x @ turn) == pytest.approx(effective_rank(x), rel=1e-4)
    assert spread(factor * x) == pytest.approx(spread(x), rel=1e-5)
    assert 1 <= effective_rank(x) <= 8 and 0 <= spread(x) <= 1


def test_effective_rank_is_the_exponential_of_the_entropy():
    x = rows(3)
    unit = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    values = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(x) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_what_lies_in_fewer_dimensions_has_that_rank(width):
    x = torch.zeros(4000, 8)
    x[:, :width] = rows(0, 4000, width)
    assert effective_rank(x) == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize(
    "collapsed",
    [torch.ones(16, 8), torch.ones(16, 8) + 1e-3 * rows(0, 16), torch.tensor([[1.0, 0.0], [-1.0, 0.0]] * 8)],
    ids=["a point", "nearly a point", "a line"],
)
def test_collapse_is_named(collapsed):
    with pytest.raises(TrainingError, match="collapsed"):
        require_spread(collapsed)


def test_what_spreads_is_let_through():
    assert require_spread(rows(0)) == (spread(rows(0)), effective_rank(rows(0)))
