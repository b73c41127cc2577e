"""Probabilities given as a bare tensor are taken as logits, and a warning says so once for each loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses import distribution

CALLS: dict[str, Callable[[Any], Tensor]] = {
    **{
        name: partial(lambda fn, p: fn(p=p, q=torch.randn(2, 3, 40, 40)), losses.by_name(name))
        for name in ("kl_divergence", "jensen_shannon", "total_variation", "hellinger", "renyi", "wasserstein_1d")
    },
    **{name: losses.by_name(name) for name in ("entropy", "perplexity")},
    **{
        name: partial(lambda fn, p: fn(p, torch.zeros(2, 40, 40, dtype=torch.long)), losses.by_name(name))
        for name in (
            "information", "expected_calibration_error", "dice", "generalized_dice", "jaccard", "tversky",
            "focal_tversky", "lovasz_softmax", "boundary",
        )
    },
    "mutual_information": lambda p: losses.measures.mutual_information([p, p]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_was_warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(distribution, "_warned", set())
    yield


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_softmax_is_warned_of_once(name: str, fast: bool) -> None:
    p = torch.randn(2, 3, 40, 40).softmax(1)
    if fast:
        losses.warm_up()
    with losses.use_kernels(fast), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name](p)
        CALLS[name](p)
    assert len(caught) == 1
    assert caught[0].category is UserWarning
    assert name in str(caught[0].message)
    assert "Probabilities(" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_said_where_it_is_said_or_logits_or_not_read(name: str) -> None:
    p = torch.randn(2, 3, 40, 40).softmax(1)
    almost = p.clone()
    almost[1, 0, 20, 20] += 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for said in (losses.Logits, losses.Probabilities):
            CALLS[name](said(p))
        CALLS[name](almost)
        CALLS[name](torch.rand(2, 3, 40, 40))
        CALLS[name](torch.zeros(2, 3, 40, 40))
        with losses.use_checks(False):
            CALLS[name](p)


def test_a_channel_of_its_own_need_not_sum_to_one() -> None:
    p = torch.ones(2, 1, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.dice(p, p, multilabel=True)
        losses.dice(torch.full((2, 2, 8), 0.5), torch.ones(2, 2, 8), multilabel=True)
