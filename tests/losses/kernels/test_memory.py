"""Memory that is used again."""

from __future__ import annotations

import pytest
import torch

from nucleate.losses.kernels import memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_memory_of_a_gradient_serves_the_next_one_of_its_size_and_never_two_at_once(dtype: torch.dtype) -> None:
    like = torch.empty(2, 3, 1024, 1024, dtype=dtype).to(memory_format=torch.channels_last)
    memory.release_memory()
    first = memory.empty_like(like)
    assert (first.shape, first.stride(), first.dtype) == (like.shape, like.stride(), like.dtype)
    second = memory.empty_like(like)
    place = first.data_ptr()
    assert second.data_ptr() != place
    view = first.flatten(2)
    del first
    assert memory.empty_like(like).data_ptr() != place  # a view still holds it
    memory.release_memory()
    del view
    assert memory.empty_like(like).data_ptr() == place
