"""A folder of QuPath annotations, rectangles with three nuclei in each, trains, and learns nothing outside them."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.io import imsave

from nucleate.data.augment import AugmentationConfig
from nucleate.data.dataset import find, pair
from nucleate.data.synthetic import fluorescence
from nucleate.errors import DatasetError
from nucleate.io.formats.geojson import shape
from nucleate.networks import store
from nucleate.postprocess.targets import whole
from nucleate.training import fit
from nucleate.training.config import TrainingConfig
from nucleate.training.criterion import SegmentationCriterion

SMALL = TrainingConfig(epochs=1, samples=8, batch=4, widths=(8, 8), variation=AugmentationConfig(crop=64))
SIZE = (96, 128)


def annotation(mask, name=None):
    return shape(mask, 0, 0, "annotation", {"name": name} if name else {})


def rectangle(labels, numbers):
    """The box around these nuclei, three pixels wider on each side."""
    rows, columns = np.nonzero(np.isin(labels, numbers))
    mask = np.zeros(labels.shape, bool)
    mask[max(0, rows.min() - 3) : rows.max() + 4, max(0, columns.min() - 3) : columns.max() + 4] = True
    return mask


def nearest_three(labels, first):
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1)))
    return np.argsort(np.linalg.norm(centres - centres[first], axis=1))[:3] + 1


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two images with a rectangle for training and one for validation each, and the nuclei in them and no others."""
    folder, inside = tmp_path_factory.mktemp("qupath"), {}
    (folder / "annotations").mkdir()
    for name, seed in (("a", 3), ("b", 4)):
        image, labels = fluorescence(seed=seed, height=SIZE[0], width=SIZE[1], diameter=14)
        centre = ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1))
        left, right = np.argmin([x for _, x in centre]), np.argmax([x for _, x in centre])
        three = [nearest_three(labels, first) for first in (left, right)]
        parts = [rectangle(labels, numbers) for numbers in three]
        objects = [annotation(part, kind) for part, kind in zip(parts, ("Training", "Validation"), strict=True)]
        objects += [annotation(labels == number) for number in np.concatenate(three)]
        (folder / "annotations" / f"{name}.geojson").write_text(json.dumps(objects))
        imsave(folder / f"{name}.png", image.pixels[..., 0], check_contrast=False)
        inside[name] = parts
    return folder, inside


def test_labels_outside_are_unknown_and_validation_is_apart(drawn):
    folder, inside = drawn
    data = fit.load_labelled(folder)
    assert len(data.training) == len(data.validation) == 2 and data.names == ("a", "b")
    assert "held out for validation: those in Validation rectangles of 2 of 2 labelled images" in data.rule
    for pairs, which in ((data.training, 0), (data.validation, 1)):
        for (_, labels), parts in zip(pairs, inside.values(), strict=True):
            assert (labels[~parts[which]] == -1).all()
            assert np.unique(labels[labels > 0]).size >= 3 or which == 0


def test_the_gradient_outside_is_zero(drawn):
    folder, _ = drawn
    for sample in find(folder).labelled:
        labels = pair(sample)[1]
        targets = whole(labels)
        maps = torch.randn(1, 6, *SIZE, generator=torch.Generator().manual_seed(1)).requires_grad_()
        totals = SegmentationCriterion().totals(maps, targets)
        (gradient,) = torch.autograd.grad(sum(totals.values()), maps)
        known = torch.from_numpy(labels >= 0)
        assert (gradient[0][:, ~known] == 0).all() and (gradient[0][:, known] != 0).any()
        assert 0 < known.float().mean() < 0.8


def test_it_trains_and_says_what_was_held_out(drawn, tmp_path):
    folder, _ = drawn
    manifest = fit.fit(folder, tmp_path / "model", SMALL)
    assert "Validation rectangles" in manifest.data.validation
    assert store.read(tmp_path / "model").manifest.data.labelled == 2


def test_nothing_that_is_drawn_outside_changes_the_weights(drawn, tmp_path):
    """A nucleus that was drawn outside all rectangles, where nobody says that the others were."""
    folder, inside = drawn
    other = tmp_path / "data"
    (other / "annotations").mkdir(parents=True)
    for name in ("a", "b"):
        (other / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
        objects = json.loads((folder / "annotations" / f"{name}.geojson").read_text())
        free = ~ndimage.binary_dilation(np.logical_or(*inside[name]), iterations=2)
        mask = np.zeros(SIZE, bool)
        mask[40:50, 55:65] = True
        assert (mask & free).any()
        objects.append(annotation(mask & free))
        (other / "annotations" / f"{name}.geojson").write_text(json.dumps(objects))
    ours, theirs = (fit.fit(one, tmp_path / one.name / "model", SMALL) for one in (folder, other))
    assert ours.weights_sha256 == theirs.weights_sha256


def test_with_a_folder_for_validation_nothing_is_learnt_from_the_rectangles_for_it(drawn):
    folder, inside = drawn
    data = fit.load_labelled(folder, folder)
    for (_, labels), parts in zip(data.training, inside.values(), strict=True):
        assert (labels[parts[1] & ~parts[0]] == -1).all()
    assert "were given for validation" in data.rule


def test_rectangles_for_validation_alone_are_refused(drawn, tmp_path):
    folder, _ = drawn
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes())
    objects = json.loads((folder / "annotations/a.geojson").read_text())
    for name, says in (("Validation", "all in rectangles of the class Validation"), ("Training", None)):
        for one in objects[:2]:
            one["properties"]["classification"]["name"] = name
        (tmp_path / "a.geojson").write_text(json.dumps(objects))
        if says:
            with pytest.raises(DatasetError, match=says):
                fit.load_labelled(tmp_path)
        else:
            assert "of 6 nuclei" in fit.load_labelled(tmp_path).rule
