"""Module classes, names and the catalogue."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from nucleate import losses

CLASSES = [
    c for c in vars(losses).values() if inspect.isclass(c) and issubclass(c, losses.Loss) and c is not losses.Loss
]


def test_every_loss_has_one_module_and_one_name() -> None:
    functions = {c.function.__name__ for c in CLASSES}
    assert functions == {entry.name for entry in losses.catalogue()}
    assert len(CLASSES) == len(losses.catalogue())
    for entry in losses.catalogue():
        assert losses.by_name(entry.name) is entry.function is getattr(losses, entry.name)
        assert entry.function.__name__ == entry.name
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
        "import sys; before = set(sys.modules); import torch, numpy; known = set(sys.modules);"
        "from nucleate import losses; new = {m.split('.')[0] for m in set(sys.modules) - known};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'torch', 'numpy'}));"
        "print(sorted(m for m in sys.modules if m.startswith('nucleate') and 'losses' not in m))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["['nucleate']", "['nucleate', 'nucleate.errors']"]
