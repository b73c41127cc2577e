"""The names that the library offers, the catalogue, and the modules that are made from functions."""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from tests.losses import stub
from torch import Tensor, nn

from nucleate import losses
from nucleate.losses import registry

CLASSES = [
    c
    for c in (*vars(losses).values(), *vars(losses.measures).values())
    if inspect.isclass(c) and issubclass(c, losses.Loss) and c is not losses.Loss
]
# What the library offers beside the losses and their modules.
OTHERS = {
    *("Accumulation", "TotalAndWeight", "mean_of", "total_and_weight"),
    *("Distribution", "LogProbabilities", "Logits", "Probabilities"),
    *("Entry", "Loss", "LossInputError", "by_name", "catalogue", "measures"),
    *("DINOCenter", "Queue", "signed_distance", "use_checks", "use_kernels", "warm_up"),
}


def test_the_library_offers_every_loss_its_module_and_little_else() -> None:
    entries = [entry for entry in losses.catalogue() if entry.name not in losses.measures.__all__]
    names = OTHERS.union(*((entry.name, entry.module.__name__) for entry in entries))
    assert losses.__all__ == sorted(names)
    assert all(hasattr(losses, name) for name in names)


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
        assert losses.by_name(entry.name) is entry.function
        room = losses.measures if entry.name in losses.measures.__all__ else losses
        assert getattr(room, entry.name) is entry.function
        assert entry.function.__name__ == entry.name
        assert getattr(room, entry.module.__name__) is entry.module
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
    arguments = text[text.index("Args:") : text.index("Returns:")]
    assert all(re.search(rf"^    (\w+, )*{name}(, \w+)*: ", arguments, re.MULTILINE) for name in options)
    assert "Raises:" in text
    assert "Source:" in text
    keyword = [p for p in options.values() if p.default is not p.empty]
    assert all(p.kind is p.KEYWORD_ONLY for p in keyword)


def test_a_module_gives_what_its_function_gives() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 255])
    options = {"class_weight": torch.tensor([1.0, 2.0, 3.0]), "ignore_index": 255, "label_smoothing": 0.1}
    assert losses.CrossEntropy(**options)(logits, target) == losses.cross_entropy(logits, target, **options)
    mask = torch.tensor([True, False, True, False])
    assert losses.CrossEntropy()(logits, target, mask=mask) == losses.cross_entropy(logits, target, mask=mask)
    p, q = torch.randn(2, 3), torch.randn(2, 3)
    assert losses.KLDivergence()(p=p, q=q) == losses.kl_divergence(p=p, q=q)


def test_tensors_move_with_the_module_and_parameters_learn() -> None:
    criterion = losses.CrossEntropy(class_weight=torch.ones(3))
    assert criterion.double().class_weight.dtype == torch.float64
    assert list(criterion.state_dict()) == ["class_weight"]
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
        "print(*sorted(m for m in sys.modules if m.startswith('nucleate') and 'losses' not in m))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [
        "['nucleate']",
        "nucleate nucleate.code_folder nucleate.errors nucleate.parallel nucleate.parallel.communicator",
    ]


def test_the_stub_says_what_the_functions_say() -> None:
    def words(text: str) -> str:
        return re.sub(r",(?=[)\]])", "", re.sub(r"\s", "", text)).replace("'", '"')

    assert words(stub.PATH.read_text(encoding="utf-8")) == words(stub.text())


def test_options_are_attributes_checked_when_they_are_set() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    criterion = losses.CrossEntropy()
    assert (criterion.reduction, criterion.ignore_index, criterion.class_weight) == ("mean", None, None)
    criterion.reduction, criterion.ignore_index = "none", 0
    criterion.class_weight = torch.tensor([1.0, 2.0, 3.0])
    again = losses.cross_entropy(
        logits, target, reduction="none", ignore_index=0, class_weight=torch.tensor([1.0, 2.0, 3.0])
    )
    assert torch.equal(criterion(logits, target), again)
    assert list(criterion.state_dict()) == ["class_weight"]
    criterion.class_weight = None
    assert list(criterion.state_dict()) == []
    for name, value, sentence in (
        ("reduction", "avg", "must be one of 'mean', 'sum', 'none', 'pair', got 'avg'"),
        ("label_smoothing", 7, "must be a number in 0..1, got 7"),
        ("ignore_index", 0.5, "must be a whole number or None, got 0.5"),
        ("class_dim", "1", "must be a whole number, got '1'"),
    ):
        with pytest.raises(losses.LossInputError, match=re.escape(f"CrossEntropy: {name} {sentence}")):
            losses.CrossEntropy(**{name: value})
        with pytest.raises(losses.LossInputError, match=name):
            setattr(criterion, name, value)
    with pytest.raises(losses.LossInputError, match=re.escape("must be a number above 0 or a Tensor, got 0.0")):
        losses.InfoNCE(temperature=0.0)


def test_the_names_of_version_0_1_work_with_a_warning() -> None:
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    weight, each = torch.tensor([1.0, 2.0, 3.0]), torch.rand(4)
    expected = losses.cross_entropy(logits, target, class_weight=weight, weight=each)
    with pytest.warns(FutureWarning, match="position_weight= is called weight= since"):
        assert losses.cross_entropy(logits, target, weight=weight, position_weight=each) == expected
    with pytest.warns(FutureWarning, match="position_weight= is called weight= since"):
        assert losses.CrossEntropy(weight=weight, position_weight=each)(logits, target) == expected
    with pytest.warns(FutureWarning, match="one weight per class is class_weight= since"):
        again = losses.cross_entropy(logits, target, weight=weight)
    assert again == losses.cross_entropy(logits, target, class_weight=weight)
    with pytest.warns(FutureWarning, match="one weight per class is class_weight= since") as said:
        losses.dice(logits, target, weight=weight, over="batch")
    assert len(said) == 1
    with warnings.catch_warnings():  # as many positions as classes: one weight each, without a word
        warnings.simplefilter("error")
        few = losses.cross_entropy(logits[:3], target[:3], weight=weight)
    torch.testing.assert_close(
        few, losses.total_and_weight(losses.cross_entropy, logits[:3], target[:3], weight=weight)[0] / 6
    )
    with pytest.warns(FutureWarning, match=r"losses.entropy is called losses\.measures\.entropy since"):
        assert losses.entropy is losses.measures.entropy
    with pytest.warns(FutureWarning, match=r"losses.clip is called losses\.clip_loss since"):
        assert losses.clip is losses.clip_loss


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda e: e.name)
def test_an_option_of_another_type_is_refused_with_its_name_and_value(entry: losses.Entry) -> None:
    parameters = inspect.signature(entry.function).parameters.values()
    inputs = {p.name: torch.zeros(2, 3) for p in parameters if p.default is p.empty}
    for p in parameters:
        if p.default is p.empty or "Tensor" in p.annotation or p.name == "group":
            continue
        for wrong in (object(), [1]):
            with pytest.raises(losses.LossInputError, match=re.escape(f"{entry.name}: {p.name} must be ")):
                entry.function(**inputs, **{p.name: wrong})


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda e: e.name)
def test_what_is_no_group_is_refused(entry: losses.Entry) -> None:
    parameters = inspect.signature(entry.function).parameters.values()
    inputs = {p.name: torch.zeros(2, 3) for p in parameters if p.default is p.empty}
    for wrong, kind in (("a", "str"), (3, "int"), ([1], "list"), (torch.ones(2), "Tensor"), (np.ones(2), "ndarray")):
        said = f"group must be a torch process group, a communicator of mpi4py or None, got {kind}"
        with pytest.raises(losses.LossInputError, match=f"^{entry.name}: {said}$"):
            entry.function(**inputs, group=wrong)
        with pytest.raises(losses.LossInputError, match=f"^{entry.module.__name__}: {said}$"):
            entry.module(group=wrong)


def test_options_at_the_call_of_a_module_by_their_earlier_names() -> None:
    logits, target, each = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.rand(4)
    weight = torch.tensor([1.0, 5.0, 9.0])
    criterion = losses.CrossEntropy(class_weight=weight)
    with pytest.warns(FutureWarning, match="^CrossEntropy: position_weight= is called weight= since") as warned:
        found = criterion(logits, target, position_weight=each)
    assert found == losses.cross_entropy(logits, target, class_weight=weight, weight=each)
    assert [w.filename for w in warned] == [__file__]
    assert repr(copy.deepcopy(losses.CrossEntropy())) == "CrossEntropy()"
