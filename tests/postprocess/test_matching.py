"""`match` and `pool` against a brute-force reference, the laws that scores obey, and worked examples."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nucleate.errors import InputError
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import mean_ap, pool

LOW = (0.1, 0.3, 0.5, 0.75)
"""Thresholds at which one nucleus can have several candidates, so that the assignment has something to decide."""


def label_images(lowest=-1, highest=3):
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
    pixels = st.integers(lowest, highest)
    return shapes.flatmap(
        lambda shape: st.tuples(arrays(np.int32, shape, elements=pixels), arrays(np.int32, shape, elements=pixels))
    )


def masks(labels):
    return {int(i): labels == i for i in np.unique(labels) if i > 0}


def known_masks(true, predicted):
    """The masks of both sides by the words of the docstring: unknown pixels out, predictions mostly on them ignored."""
    known = true >= 0
    kept = {i: m for i, m in masks(predicted).items() if 2 * (m & ~known).sum() <= m.sum()}
    return masks(true), {i: m & known for i, m in kept.items()}


def best_by_brute_force(iou, threshold):
    """Number of pairs and sum of IoU of the best one-to-one matching, by trying every one."""
    rows, columns = iou.shape
    if rows > columns:
        return best_by_brute_force(iou.T, threshold)
    best = (0, 0.0)
    for chosen in itertools.permutations(range(columns), rows):
        taken = [iou[i, j] for i, j in enumerate(chosen) if iou[i, j] >= threshold]
        best = max(best, (len(taken), sum(taken)))
    return best


def aji_by_brute_force(true, predicted):
    """Kumar et al. (2017), Algorithm 1; None where equal IoU makes the prediction that is taken a matter of choice."""
    intersection = union = 0
    taken = set()
    for g in true.values():
        jaccard = {i: (g & s).sum() / (g | s).sum() for i, s in predicted.items()}
        top = max(jaccard.values(), default=0)
        if top == 0:
            union += g.sum()
            continue
        best = [i for i, value in jaccard.items() if value == top]
        if len(best) > 1:
            return None
        intersection += (g & predicted[best[0]]).sum()
        union += (g | predicted[best[0]]).sum()
        taken.add(best[0])
    return intersection, union + sum(s.sum() for i, s in predicted.items() if i not in taken)


@given(label_images())
def test_equals_every_assignment_tried(images):
    true, predicted = images
    trues, predictions = known_masks(true, predicted)
    iou = np.array([[(g & s).sum() / (g | s).sum() for s in predictions.values()] for g in trues.values()])
    iou = iou.reshape(len(trues), len(predictions))
    found = match(true, predicted, LOW)
    assert (found.n_true, found.n_predicted) == iou.shape
    for k, threshold in enumerate(LOW):
        tp, iou_sum = best_by_brute_force(iou, threshold)
        assert found.tp[k] == tp
        assert found.iou_sum[k] == pytest.approx(iou_sum, abs=1e-12)
        assert (found.fp[k], found.fn[k]) == (len(predictions) - tp, len(trues) - tp)


@given(label_images())
def test_aggregated_jaccard_equals_algorithm_1(images):
    expected = aji_by_brute_force(*known_masks(*images))
    found = match(*images)
    if expected is not None:
        assert (found.intersection, found.union) == expected
    assert 0 <= found.aji <= 1


@given(label_images())
def test_pairs_are_the_matching_at_one_half(images):
    trues, predictions = known_masks(*images)
    found = match(*images, thresholds=(0.5,))
    assert len(found.pairs) == found.tp[0]
    assert len({t for t, _, _ in found.pairs}) == len({p for _, p, _ in found.pairs}) == found.tp[0]
    for t, p, iou in found.pairs:
        assert iou == pytest.approx((trues[t] & predictions[p]).sum() / (trues[t] | predictions[p]).sum())
        assert iou >= 0.5


@given(label_images(), st.permutations([5, 17, 2**31 - 1]), st.permutations([1, 900, 70_000]))
def test_names_of_nuclei_change_nothing(images, true_names, predicted_names):
    true, predicted = images
    renamed = (
        np.where(true > 0, np.array([0, *true_names])[true], true),
        np.where(predicted > 0, np.array([0, *predicted_names])[predicted], predicted),
    )
    before, after = match(true, predicted, LOW), match(*renamed, LOW)
    assert (before.tp, before.intersection, before.union) == (after.tp, after.intersection, after.union)
    assert before.iou_sum == after.iou_sum
    assert {(t, p, iou) for t, p, iou in after.pairs} == {
        (true_names[t - 1], predicted_names[p - 1], iou) for t, p, iou in before.pairs
    }


@given(label_images())
def test_a_perfect_prediction_gives_all_ones(images):
    true, _ = images
    scores = pool([match(true, true)])
    assert scores.panoptic_quality == scores.segmentation_quality == scores.recognition_quality == 1
    assert scores.aji == scores.mean_aji == 1
    assert all(row.precision == row.recall == row.f1 == row.ap == row.mean_ap == 1 for row in scores.at)


@given(label_images(lowest=0))
def test_swapping_the_images_exchanges_false_positives_and_negatives(images):
    forth, back = match(*images, LOW), match(*reversed(images), LOW)
    assert (forth.tp, forth.fp, forth.fn) == (back.tp, back.fn, back.fp)
    assert forth.iou_sum == pytest.approx(back.iou_sum)


@given(label_images())
def test_scores_do_not_rise_with_the_threshold(images):
    found = match(*images, LOW)
    rows = pool([found]).at
    for name in ("ap", "mean_ap", "f1", "precision", "recall"):
        values = [getattr(row, name) for row in rows]
        assert values == sorted(values, reverse=True)


@given(label_images())
def test_quality_is_the_product_of_segmentation_and_recognition(images):
    scores = pool([match(*images)])
    assert scores.panoptic_quality == pytest.approx(scores.segmentation_quality * scores.recognition_quality)


@given(label_images(), st.integers(2, 4))
def test_pooling_copies_of_one_image_changes_no_ratio(images, copies):
    one, many = pool([match(*images)]), pool([match(*images)] * copies)
    assert many.images == copies
    for name in ("panoptic_quality", "segmentation_quality", "recognition_quality", "aji", "mean_aji"):
        assert getattr(many, name) == pytest.approx(getattr(one, name))
    for a, b in zip(one.at, many.at, strict=True):
        assert (b.tp, b.fp, b.fn) == (copies * a.tp, copies * a.fp, copies * a.fn)
        assert b.ap == pytest.approx(a.ap)
        assert b.mean_ap == pytest.approx(a.ap)


@given(label_images(lowest=0), st.data())
def test_unknown_pixels_have_no_say(images, data):
    """Rows of unknown pixels below an image change nothing, whatever lies on them, but for a nucleus mostly there."""
    true, predicted = images
    below = data.draw(arrays(np.int32, true.shape, elements=st.sampled_from([0, *range(1, 4), 9])))
    mostly_there = [i for i in (1, 2, 3) if (below == i).sum() > (predicted == i).sum()]
    below = np.where(np.isin(below, mostly_there), 0, below)
    extended = match(np.vstack([true, np.full_like(true, -1)]), np.vstack([predicted, below]), LOW)
    assert extended == match(true, predicted, LOW)


def test_a_prediction_mostly_on_unknown_pixels_is_ignored():
    true = np.array([[1, 1, 0, 0, -1, -1, -1]])
    half = match(true, np.array([[1, 1, 2, 2, 2, 2, 0]]))
    assert (half.n_predicted, half.fp[0]) == (2, 1)
    most = match(true, np.array([[1, 1, 2, 2, 2, 2, 2]]))
    assert (most.n_predicted, most.fp[0], most.aji) == (1, 0, 1.0)


def test_a_true_nucleus_is_compared_on_known_pixels_only():
    found = match(np.array([[3, 3, -1, -1]]), np.array([[8, 8, 8, 8]]))
    assert found.pairs == ((3, 8, 1.0),)


def test_a_shift_of_one_pixel_has_the_iou_of_geometry():
    """A 10 x 10 square moved by one: intersection 90, union 110, IoU 9 / 11 = 0.818."""
    true = np.zeros((30, 30), np.int32)
    true[5:15, 5:15] = 1
    found = match(true, np.roll(true, 1, axis=1))
    assert dict(zip(found.thresholds, found.tp, strict=True)) == {0.5: 1, 0.6: 1, 0.7: 1, 0.75: 1, 0.8: 1, 0.9: 0}
    assert found.pairs[0][2] == found.aji == 9 / 11
    scores = pool([found])
    assert scores.panoptic_quality == pytest.approx(9 / 11)
    assert mean_ap(scores) == mean_ap(scores, over_images=True) == pytest.approx(4 / 5)


def test_a_threshold_is_reached_when_it_is_met_exactly():
    true = np.array([[1] * 10])
    for count, threshold in ((5, 0.5), (6, 0.6), (7, 0.7), (9, 0.9)):
        predicted = np.array([[1] * count + [0] * (10 - count)])
        assert match(true, predicted, (threshold,)).tp == (1,)


def test_the_most_pairs_come_before_the_best_pair():
    """Greedy takes (1, 1) at 3/5 and leaves the two others alone; both can be matched, at 1/4 each."""
    true = np.array([[1, 1, 1, 1, 2, 0]])
    predicted = np.array([[2, 1, 1, 1, 1, 0]])
    found = match(true, predicted, (0.2,))
    assert found.tp == (2,)
    assert found.iou_sum[0] == pytest.approx(1 / 4 + 1 / 4)


def test_a_split_nucleus_at_exactly_one_half_is_matched_once():
    found = match(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]), (0.5, 0.6))
    assert (found.tp, found.fp, found.fn) == ((1, 0), (1, 2), (0, 1))
    assert (found.intersection, found.union) == (2, 4 + 2)


def test_merged_nuclei_may_take_one_prediction_twice_in_the_aggregated_index():
    found = match(np.array([[1, 1, 1, 2, 2, 0]]), np.array([[4, 4, 4, 4, 4, 0]]))
    assert (found.intersection, found.union) == (3 + 2, 5 + 5)


def test_images_without_nuclei():
    nothing, something = np.zeros((4, 4), np.int32), np.eye(4, dtype=np.int32)
    empty = pool([match(nothing, nothing)])
    assert (empty.n_true, empty.panoptic_quality, empty.aji, empty.at[0].ap, empty.at[0].mean_ap) == (0, 1, 1, 1, 1)
    for scores in (pool([match(something, nothing)]), pool([match(nothing, something)])):
        assert scores.panoptic_quality == scores.segmentation_quality == scores.aji == 0
        assert all(row.precision == row.recall == row.f1 == row.ap == row.mean_ap == 0 for row in scores.at)
    both = pool([match(nothing, nothing), match(something, nothing)])
    assert (both.at[0].ap, both.at[0].mean_ap, both.aji, both.mean_aji) == (0, 0.5, 0, 0.5)
    assert match(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.int32)).n_true == 0


def test_bad_input_is_refused_in_one_sentence():
    labels = np.ones((2, 3), np.int32)
    with pytest.raises(InputError, match=r"\(2, 3\).*\(3, 2\)"):
        match(labels, labels.T)
    with pytest.raises(InputError, match=r"\(2, 3, 1\)"):
        match(labels[..., None], labels[..., None])
    with pytest.raises(InputError, match="float64"):
        match(labels, labels.astype(float))
    with pytest.raises(InputError, match="not 0"):
        match(labels, labels, (0,))
    with pytest.raises(InputError, match="no image"):
        pool([])
    with pytest.raises(InputError, match="different IoU thresholds"):
        pool([match(labels, labels), match(labels, labels, (0.5,))])
    with pytest.raises(InputError, match=r"0\.55"):
        mean_ap(pool([match(labels, labels)]), (0.55,))
