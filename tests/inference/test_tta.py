"""Test-time augmentation: what the mean is, that blocks do not change it, and what `--tta` does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.errors import InputError
from nucleate.inference import tta
from nucleate.inference.backends import TorchBackend
from nucleate.inference.predictor import Predictor
from nucleate.inference.sliding_window import SlidingWindow
from nucleate.networks.store import locate, read
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Box


def engine_of():
    """A network with biases, as trained ones have: so what lies beyond a border counts."""
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 8)))
    torch.nn.init.normal_(network.heads.maps.weight, std=0.2)
    for name, bias in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.3)
    return TorchBackend(network, bfloat16=False)


ENGINE = engine_of()


def image_of(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape), dtype=np.float32))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), count=st.sampled_from([2, 4]))
def test_it_is_the_mean_over_the_moved_images(seed, shape, count):
    image = image_of(seed, *shape)
    moved = [ENGINE.raw(F.pad(image, (2 * x, 2 - 2 * x, 2 * y, 2 - 2 * y))) for y, x in tta.SHIFTS[count]]
    found = tta.TestTimeAugmentation(ENGINE, count).raw(image)
    cut = [
        raw[..., 2 * y :, 2 * x :][..., : shape[0], : shape[1]]
        for raw, (y, x) in zip(moved, tta.SHIFTS[count], strict=True)
    ]
    torch.testing.assert_close(found, sum(cut) / count, atol=1e-5, rtol=1e-5)
    if count == 4 and min(shape) > 2:
        assert not torch.allclose(cut[0], cut[3], atol=1e-4), "outputs that are alike would be worth nothing"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), shape=st.tuples(st.integers(110, 160), st.integers(110, 160)))
def test_blocks_give_the_whole(seed, shape):
    image, augmented = image_of(seed, *shape), tta.TestTimeAugmentation(ENGINE, 4)
    whole = Box(0, 0, *shape)

    def read(box):
        return image[..., *box.within(whole)]

    pieces, piece = (SlidingWindow.plan(augmented, shape, read, side=side) for side in (64, 10**4))
    assert len(pieces.blocks) > len(piece.blocks) == 1
    torch.testing.assert_close(pieces.whole(read), piece.whole(read), atol=1e-5, rtol=1e-5)


def test_the_engine_is_told_the_shape_that_it_will_see():
    told, seen = [], []

    class Told(TorchBackend):
        def expect(self, height, width):
            told.append((height, width))

        def run(self, image):
            seen.append(tuple(image.shape[-2:]))
            return super().run(image)

    augmented = tta.TestTimeAugmentation(Told(UNet(Architecture(widths=(8, 8))), bfloat16=False), 4)
    augmented.expect(32, 48)
    augmented.raw(torch.zeros(1, 1, 32, 48))
    assert set(seen) == set(told) and len(seen) == 4


@pytest.mark.parametrize("count", [0, 3, 8, -1])
def test_another_number_is_refused(count):
    with pytest.raises(InputError, match=f"--tta is {count}: choose from 1, 2, 4"):
        tta.TestTimeAugmentation(ENGINE, count)


def test_a_predictor_finds_about_the_same_with_it_and_says_so():
    model, image = read(locate("fluorescence")), fluorescence(0, 160, 160)[0]
    one, four = (Predictor(model, engine="torch", bfloat16=False, tta=count) for count in (1, 4))
    found, better = one.segment(image).labels, four.segment(image).labels
    assert abs(int(found.max()) - int(better.max())) <= 3 < found.max()
    assert 0 < ((found > 0) != (better > 0)).mean() < 0.02
    # So an unfinished run of one is not resumed by the other.
    assert one.identity() != four.identity()
