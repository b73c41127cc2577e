"""How a network is judged on what is held out, and how thresholds are tuned there."""

import numpy as np
import pytest
import torch
from torch import nn

from nucleate.data.synthetic.microscopy import fluorescence
from nucleate.inference.backends import TorchBackend
from nucleate.networks.unet import UNIT, Architecture, UNet
from nucleate.postprocess.scores import mean_ap
from nucleate.postprocess.targets import whole
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion, sum_terms, weighted_mean
from nucleate.training.hold_out import hold_out
from nucleate.training.parallel import Serial, Threads
from nucleate.training.segmentation import FEW, GRID, SegmentationTask, ValidationSet, tune_thresholds
from nucleate.types import Maps, Thresholds

PLAIN = Thresholds(
    foreground=0.5, peak_threshold=0.3, nms_radius=0.6, assign_radius=0.7, min_area=1, seed_foreground=0.0
)


def pair_of(labels):
    return np.zeros((1, *labels.shape), np.float32), np.ascontiguousarray(labels, np.int32)


def drawn(count, height=64, width=64, seed=0):
    return [pair_of(fluorescence((seed, i), height, width, diameter=14)[1]) for i in range(count)]


class Perfect:
    """Gives what the labels say, as a network without error would; `noise` is added to it."""

    def __init__(self, validation, noise=0.0):
        self.maps = iter([self._maps(targets, noise) for targets in validation.targets])

    def raw(self, image):
        return next(self.maps)

    zoomed = raw

    @staticmethod
    def _maps(t, noise):
        nucleus = 40.0 * t.classes[:, None] - 20
        heat = torch.logit(t.heat, eps=1e-6)
        parts = [-nucleus / 2, nucleus / 2, heat, t.offset / UNIT, (t.radius / UNIT).log()]
        maps = torch.cat([part.float() for part in parts], dim=1)
        return maps + noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))


def test_a_perfect_network_is_judged_perfect():
    validation = ValidationSet(drawn(3))
    judgement = validation.evaluate(Perfect(validation), SegmentationCriterion(), PLAIN)
    assert judgement.score == 1 and judgement.scores.n_true > 10
    worse = validation.evaluate(Perfect(validation, noise=3.0), SegmentationCriterion(), PLAIN)
    assert worse.score < 1 and worse.loss > judgement.loss
    assert len(judgement.maps) == 3


def test_what_is_not_held_out_counts_nothing():
    _, held, _ = hold_out(drawn(2, 64, 120))
    validation = ValidationSet(held)
    clean = validation.evaluate(Perfect(validation), SegmentationCriterion(), PLAIN)
    engine = Perfect(validation)
    spoilt = []
    for maps, (_, labels) in zip(engine.maps, held, strict=True):
        unknown = torch.from_numpy(labels < 0)
        # Every channel says the opposite where nothing is known.
        spoilt.append(torch.where(unknown & (torch.rand(labels.shape) < 0.5), -maps, maps))
    engine.maps = iter(spoilt)
    judgement = validation.evaluate(engine, SegmentationCriterion(), PLAIN)
    assert judgement.loss == pytest.approx(clean.loss, rel=1e-6)
    assert judgement.scores.n_true == clean.scores.n_true == sum(len(set(h[h > 0])) for _, h in held)


def test_the_loss_is_the_mean_over_all_pixels_of_all_images():
    pairs = [*drawn(1, 32, 32), *drawn(1, 96, 64, seed=1)]
    validation, criterion = ValidationSet(pairs), SegmentationCriterion()
    maps = [torch.randn(1, 6, *labels.shape) for _, labels in pairs]
    engine = Perfect(validation)
    engine.maps = iter(maps)
    totals = [
        {k: float(v) for k, v in criterion.totals(m, whole(labels)).items()}
        for m, (_, labels) in zip(maps, pairs, strict=True)
    ]
    weights = sum_terms(criterion.weights(whole(labels)) for _, labels in pairs)
    expected = weighted_mean(sum_terms(totals), weights, criterion.terms)
    assert validation.evaluate(engine, criterion, PLAIN).loss == pytest.approx(expected)


def noisy_maps(validation, seed, noise):
    rng = np.random.default_rng(seed)
    found = []
    for t in validation.targets:
        shape = tuple(t.known.shape[1:])
        foreground = np.clip(t.classes[0].numpy() * 0.6 + 0.2 + noise * rng.normal(size=shape), 0, 1)
        heat = np.clip(t.heat[0, 0].numpy() * 0.7 + noise * rng.normal(size=shape), 0, 1)
        offset = t.offset[0].numpy() + 10 * noise * rng.normal(size=(2, *shape))
        found.append(Maps(*(m.astype(np.float32) for m in (foreground, heat, offset)), t.radius[0, 0].numpy()))
    return found


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.05), (1, 0.15), (2, 0.4)])
@pytest.mark.parametrize("start", [PLAIN, Thresholds(0.95, 0.95, 2.0, 0.1, 500, 0.0)], ids=["usual", "absurd"])
@pytest.mark.parametrize("names", [tuple(GRID), FEW], ids=["all", "few"])
def test_tuning_never_lowers_the_score(seed, noise, start, names):
    validation = ValidationSet(drawn(2, 48, 64, seed=seed))
    maps = noisy_maps(validation, seed, noise)
    before = validation.scores(maps, start)
    best, scores = tune_thresholds(validation, maps, start, names)
    assert mean_ap(scores) >= mean_ap(before)
    assert scores == validation.scores(maps, best)
    for name, values in GRID.items():
        value = getattr(best, name)
        assert (value in values and name in names) or value == getattr(start, name)
        assert type(value) is type(getattr(start, name))


def test_tuning_leaves_what_is_perfect():
    validation = ValidationSet(drawn(2, 48, 64))
    maps = noisy_maps(validation, 0, 0.0)
    if mean_ap(validation.scores(maps, PLAIN)) < 1:
        pytest.fail("the maps were meant to be perfect")
    assert tune_thresholds(validation, maps, PLAIN)[0] == PLAIN


def test_images_side_by_side_are_judged_as_in_turn():
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 8)))
    nn.init.normal_(network.heads.maps.weight, std=0.3)
    draw = np.random.default_rng(0)
    pairs = [(draw.random((1, 64, 64), np.float32), labels) for _, labels in drawn(5)]
    engine, validation = TorchBackend(network), ValidationSet(pairs)
    expected = validation.evaluate(engine, SegmentationCriterion(), PLAIN)
    with Threads() as threads:
        found = validation.evaluate(engine, SegmentationCriterion(), PLAIN, threads)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert len(found.maps) == 5
    for one, other in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(one.foreground, other.foreground, atol=1e-5)
    assert found.scores.n_true == expected.scores.n_true > 0


def test_the_task_evaluates_in_the_number_format_asked_for_and_tells_its_images_apart():
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 8)))
    nn.init.normal_(network.heads.maps.weight, std=0.3)
    draw = np.random.default_rng(0)
    pairs = [(draw.random((1, 64, 64), np.float32), labels) for _, labels in drawn(2)]
    task = SegmentationTask(pairs[:1], ValidationSet(pairs[1:]), TrainingConfig(loss="focal"))
    found = {bfloat16: task.evaluate(network, bfloat16=bfloat16, parallel=Serial()) for bfloat16 in (False, True)}
    plain = task.validation.evaluate(TorchBackend(network, bfloat16=False), SegmentationCriterion(loss="focal"), PLAIN)
    assert found[False].loss == plain.loss != found[True].loss == pytest.approx(plain.loss, rel=0.05)
    assert found[False].metrics == {"panoptic_quality": found[False].scores.panoptic_quality}
    changed = [(pairs[0][0] + np.float32(0.1), pairs[0][1])]
    tasks = [SegmentationTask(one, task.validation, TrainingConfig()) for one in (pairs[:1], changed)]
    assert [one.identity["images"] == task.identity["images"] for one in tasks] == [True, False]
    batch = task.batch(range(3, 5))
    assert torch.equal(batch.image, task.batch(range(2, 5)).image[1:])
