"""The names that the library offers, the catalogue, and the modules that are made from functions."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from nucleate import losses
from nucleate.losses import registry

CLASSES = [
    c for c in vars(losses).values() if inspect.isclass(c) and issubclass(c, losses.Loss) and c is not losses.Loss
]
NAMES = [
    "Accumulation",
    "ArcFace",
    "BYOL",
    "BarlowTwins",
    "BinaryCrossEntropy",
    "Boundary",
    "CLIP",
    "Circle",
    "ClDice",
    "CosFace",
    "CrossEntropy",
    "DINO",
    "DINOCenter",
    "Decoupled",
    "DenseInfoNCE",
    "Dice",
    "Distribution",
    "Entropy",
    "Entry",
    "ExpectedCalibrationError",
    "Exponential",
    "Focal",
    "FocalTversky",
    "GeneralizedDice",
    "GeneralizedKL",
    "HausdorffDT",
    "Hellinger",
    "Hinge",
    "InfoNCE",
    "Information",
    "Jaccard",
    "JensenShannon",
    "KLDivergence",
    "LinearCrossEntropy",
    "LogProbabilities",
    "Logistic",
    "Logits",
    "Loss",
    "LossInputError",
    "LovaszHinge",
    "LovaszSoftmax",
    "MarginRanking",
    "ModifiedHuber",
    "MultiSimilarity",
    "MulticlassHinge",
    "MutualInformation",
    "NTXent",
    "Perceptron",
    "Perplexity",
    "Probabilities",
    "Ramp",
    "Renyi",
    "SigLIP",
    "SimSiam",
    "SmoothedHinge",
    "SquaredHinge",
    "SupCon",
    "TotalAndWeight",
    "TotalVariation",
    "TripletMargin",
    "Tversky",
    "VICReg",
    "Wasserstein1D",
    "ZeroOne",
    "arcface",
    "barlow_twins",
    "binary_cross_entropy",
    "boundary",
    "by_name",
    "byol",
    "catalogue",
    "checks",
    "circle",
    "cl_dice",
    "clip",
    "cosface",
    "cross_entropy",
    "decoupled",
    "dense_info_nce",
    "dice",
    "dino",
    "entropy",
    "expected_calibration_error",
    "exponential",
    "fast",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "generalized_kl",
    "hausdorff_dt",
    "hellinger",
    "hinge",
    "info_nce",
    "information",
    "jaccard",
    "jensen_shannon",
    "kl_divergence",
    "linear_cross_entropy",
    "logistic",
    "lovasz_hinge",
    "lovasz_softmax",
    "margin_ranking",
    "mean_of",
    "modified_huber",
    "multi_similarity",
    "multiclass_hinge",
    "mutual_information",
    "nt_xent",
    "perceptron",
    "perplexity",
    "prepare",
    "ramp",
    "renyi",
    "siglip",
    "signed_distance",
    "simsiam",
    "smoothed_hinge",
    "squared_hinge",
    "sup_con",
    "total_and_weight",
    "total_variation",
    "triplet_margin",
    "tversky",
    "vicreg",
    "wasserstein_1d",
    "zero_one",
    "use_checks",
    "use_kernels",
    "warm_up",
]


def test_the_names_of_the_library_are_what_they_were() -> None:
    assert losses.__all__ == sorted(NAMES)
    assert all(hasattr(losses, name) for name in NAMES)


def test_a_module_can_be_copied_and_is_found_by_its_name() -> None:
    again = copy.deepcopy(losses.KLDivergence(base=2.0))
    assert type(again) is losses.KLDivergence
    assert again.base == 2.0
    assert all(getattr(sys.modules[c.__module__], c.__qualname__) is c for c in CLASSES)


def test_a_new_loss_needs_its_decorator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))

    @registry.loss("margin", "|z|", "0..inf", "a test", module="TheDistance")
    def distance(score: Tensor, *, reduction: str = "mean") -> Tensor:
        return score.abs().mean()

    entry = losses.catalogue()[-1]
    assert (entry.name, entry.kind, entry.function) == ("distance", "margin", distance)
    assert losses.by_name("distance") is distance
    assert repr(entry.module(reduction="sum")) == "TheDistance(reduction='sum')"
    assert entry.module()(torch.tensor([-2.0])) == 2
    with pytest.raises(losses.LossInputError, match="no option 'weight'; it has reduction"):
        entry.module(weight=1)


def test_every_loss_has_one_module_and_one_name() -> None:
    functions = {c.function.__name__ for c in CLASSES}
    assert functions == {entry.name for entry in losses.catalogue()}
    assert len(CLASSES) == len(losses.catalogue())
    for entry in losses.catalogue():
        assert losses.by_name(entry.name) is entry.function is getattr(losses, entry.name)
        assert entry.function.__name__ == entry.name
        assert getattr(losses, entry.module.__name__) is entry.module
        assert all((entry.formula, entry.range, entry.use, entry.kind))


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda e: e.name)
def test_every_function_is_documented_with_range_and_example(entry: losses.Entry) -> None:
    text = inspect.getdoc(entry.function)
    assert text is not None
    assert ">>>" in text
    assert any(word in text.split("\n\n")[0] + text for word in ("range", "0..inf", "any sign"))
    options = inspect.signature(entry.function).parameters
    assert options["reduction"].default == "mean"
    assert {"mask", "check", "group"} <= set(options)
    keyword = [p for p in options.values() if p.default is not p.empty]
    assert all(p.kind is p.KEYWORD_ONLY for p in keyword)


def test_a_module_gives_what_its_function_gives() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 255])
    options = {"weight": torch.tensor([1.0, 2.0, 3.0]), "ignore_index": 255, "label_smoothing": 0.1}
    assert losses.CrossEntropy(**options)(logits, target) == losses.cross_entropy(logits, target, **options)
    mask = torch.tensor([True, False, True, False])
    assert losses.CrossEntropy()(logits, target, mask=mask) == losses.cross_entropy(logits, target, mask=mask)
    p, q = torch.randn(2, 3), torch.randn(2, 3)
    assert losses.KLDivergence()(p=p, q=q) == losses.kl_divergence(p=p, q=q)


def test_tensors_move_with_the_module_and_parameters_learn() -> None:
    criterion = losses.CrossEntropy(weight=torch.ones(3))
    assert criterion.double().weight.dtype == torch.float64
    assert list(criterion.state_dict()) == ["weight"]
    heat = nn.Parameter(torch.tensor(0.2))
    contrast = losses.InfoNCE(temperature=heat)
    assert next(iter(contrast.parameters())) is heat
    contrast(torch.randn(4, 3), torch.randn(4, 3)).backward()
    assert isinstance(heat.grad, Tensor)


def test_only_torch_and_numpy_are_imported() -> None:
    program = (
        "import sys; before = set(sys.modules); import torch, numpy; known = {'openvino_telemetry', *sys.modules};"
        "from nucleate import losses; new = {m.split('.')[0] for m in set(sys.modules) - known};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'torch', 'numpy'}));"
        "print(sorted(m for m in sys.modules if m.startswith('nucleate') and 'losses' not in m))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["['nucleate']", "['nucleate', 'nucleate.errors']"]
