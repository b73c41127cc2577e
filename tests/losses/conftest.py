from collections.abc import Iterator

import pytest
import torch

from nucleate import losses


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Each test draws the same numbers whatever ran before it, and leaves the checks as it found them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with losses.use_checks(None):
            yield
