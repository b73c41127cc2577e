"""The contract that every loss of the catalogue keeps, and derivatives checked in every target form."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from nucleate import losses

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One way to call a loss: `grad` names the inputs with a gradient, `masked` those that `mask` silences."""

    loss: str
    form: str
    inputs: Inputs
    grad: tuple[str, ...]
    mask: tuple[int, ...] = ()
    masked: tuple[str, ...] = ()
    options: Inputs = field(default_factory=dict)
    twice: bool = True

    def __str__(self) -> str:
        return f"{self.loss}-{self.form}"

    def call(self, **changes: Any) -> Tensor:
        return losses.by_name(self.loss)(**{**self.inputs, **self.options, **changes})

    def leaves(self, dtype: torch.dtype = torch.float64) -> Inputs:
        return {name: self.inputs[name].detach().clone().to(dtype).requires_grad_() for name in self.grad}


def _make_cases() -> list[Case]:
    g = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def simplex(*shape: int) -> Tensor:
        return (normal(*shape)).softmax(1)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=g)

    def hot(index: Tensor, classes: int) -> Tensor:
        return torch.nn.functional.one_hot(index, classes).movedim(-1, 1).double()

    def positive(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64) + 0.5

    cases: list[Case] = []

    def add(
        loss: str, form: str, inputs: Inputs, grad: str, mask: tuple[int, ...], masked: str = "", **rest: Any
    ) -> None:
        names = tuple(grad.split())
        cases.append(Case(loss, form, inputs, names, mask, tuple(masked.split()) or names, **rest))

    index, logits, at = integers(4, 2, 3), normal(2, 4, 3), (2, 3)
    for loss in ("cross_entropy", "focal"):
        weighed = {"class_weight": positive(4), "weight": positive(2, 3)}
        extra = [{}] if loss == "cross_entropy" else [{"gamma": v} for v in (0.0, 0.5, 1.0, 2.0)]
        for n, options in enumerate(extra):
            add(loss, f"index{n}", {"logits": logits, "target": index}, "logits", at, options=options)
            add(loss, f"soft{n}", {"logits": logits, "target": simplex(2, 4, 3)}, "logits target", at, "logits",
                options={**options, "check": False})  # fmt: skip
            add(loss, f"hot{n}", {"logits": logits, "target": hot(index, 4)}, "logits", at, options=options)
        add(loss, "weighed", {"logits": logits, "target": index}, "logits", at, options=weighed)
        add(loss, "weighed-soft", {"logits": logits, "target": simplex(2, 4, 3)}, "logits target", at, "logits",
            options={**weighed, "check": False})  # fmt: skip
    smooth = {"label_smoothing": 0.2, "class_weight": positive(4)}
    add("cross_entropy", "smooth", {"logits": logits, "target": index}, "logits", at, options=smooth)
    add("cross_entropy", "smooth-soft", {"logits": logits, "target": simplex(2, 4, 3)}, "logits", at, options=smooth)
    add("cross_entropy", "last", {"logits": normal(2, 3, 4), "target": index}, "logits", at, options={"class_dim": -1})
    layer = {"features": normal(2, 5, 3), "projection": normal(4, 5), "target": index, "bias": normal(4)}
    add("linear_cross_entropy", "index", layer, "features projection bias", at, "features")
    add("linear_cross_entropy", "soft", {**layer, "target": simplex(2, 4, 3)}, "features projection bias", at,
        "features", options={"label_smoothing": 0.1})  # fmt: skip
    yes = {"logits": normal(2, 3), "target": torch.rand(2, 3, generator=g, dtype=torch.float64)}
    add("binary_cross_entropy", "soft", yes, "logits target", at, "logits", options={"check": False})
    add("binary_cross_entropy", "hard", {**yes, "target": integers(2, 2, 3)}, "logits", at,
        options={"positive_weight": 3.0, "label_smoothing": 0.1, "weight": positive(2, 3)})  # fmt: skip

    for n, options in enumerate(({"alpha": None, "gamma": 0.0}, {}, {"alpha": 0.6, "gamma": 1.5})):
        add("sigmoid_focal", f"soft{n}", yes, "logits target", at, "logits", options={**options, "check": False})
        add("sigmoid_focal", f"hard{n}", {**yes, "target": integers(2, 2, 3)}, "logits", at,
            options={**options, "weight": positive(2, 3)})  # fmt: skip

    forms = {
        "logits": (normal(2, 4, 3), normal(2, 4, 3)),
        "probabilities": (simplex(2, 4, 3), simplex(2, 4, 3)),
        "logs": (simplex(2, 4, 3).log(), simplex(2, 4, 3).log()),
    }
    said = {"logits": losses.Logits, "probabilities": losses.Probabilities, "logs": losses.LogProbabilities}
    divergences = ("kl_divergence", "jensen_shannon", "total_variation", "hellinger", "renyi", "wasserstein_1d")
    for form, (p, q) in forms.items():
        for loss in divergences:
            add(loss, form, {"p": p, "q": q}, "p q", at, options={"said": said[form], "check": False})
        for loss in ("entropy", "perplexity"):
            add(loss, form, {"p": p}, "p", at, options={"said": said[form], "check": False})
        add("information", form, {"p": p, "outcome": index}, "p", at, options={"said": said[form], "check": False})
    for alpha in (1.0, 3.0):
        add("renyi", f"alpha{alpha:g}", {"p": forms["logits"][0], "q": forms["logits"][1]}, "p q", at,
            options={"alpha": alpha})  # fmt: skip
    add("wasserstein_1d", "squared", {"p": normal(2, 4, 3), "q": normal(2, 4, 3)}, "p q", at, options={"power": 2.0})
    add("generalized_kl", "amounts", {"p": positive(2, 4, 3), "q": positive(2, 4, 3)}, "p q", at)
    add("mutual_information", "logits", {"predictions": normal(3, 2, 4, 3)}, "predictions", at)
    add("expected_calibration_error", "logits", {"p": logits, "target": index}, "", at, "p", twice=False)

    score, yes_no = normal(2, 3) * 2, integers(2, 2, 3)
    for loss in ("hinge", "squared_hinge", "smoothed_hinge", "modified_huber", "logistic", "exponential",
                 "perceptron", "ramp", "zero_one"):  # fmt: skip
        grad = "" if loss == "zero_one" else "score"
        add(loss, "binary", {"score": score, "target": yes_no}, grad, at, "score", options={"weight": positive(2, 3)})
        add(loss, "signed", {"score": score, "target": 2 * yes_no - 1}, grad, at, "score", options={"labels": "signed"})
    for kind in ("crammer-singer", "weston-watkins"):
        for form, target in (("index", index), ("hot", hot(index, 4))):
            add("multiclass_hinge", f"{kind}-{form}", {"logits": logits, "target": target}, "logits", at,
                options={"kind": kind, "class_weight": positive(4)})  # fmt: skip
    pair = {"first": normal(2, 3), "second": normal(2, 3), "target": yes_no}
    add("margin_ranking", "binary", pair, "first second", at, options={"margin": 0.3})
    triplet = {"anchor": normal(4, 5), "positive": normal(4, 5), "negative": normal(4, 5)}
    for form, options in (("euclid", {}), ("swap", {"swap": True}), ("power3", {"power": 3.0})):
        add("triplet_margin", form, triplet, "anchor positive negative", (4,), options={"margin": 3.0, **options})

    field_logits, field_index = normal(2, 3, 5), integers(3, 2, 5)
    soft_labels = simplex(2, 3, 5)
    for loss in ("dice", "jaccard", "tversky", "focal_tversky", "generalized_dice"):
        for over in ("image", "batch"):
            add(loss, f"index-{over}", {"prediction": field_logits, "target": field_index}, "prediction", (2, 5),
                options={"over": over, "class_weight": positive(3), "weight": positive(2, 5)})  # fmt: skip
        add(loss, "soft", {"prediction": field_logits, "target": soft_labels}, "prediction target", (2, 5),
            "prediction", options={"check": False})  # fmt: skip
        add(loss, "multilabel", {"prediction": normal(2, 1, 5), "target": integers(2, 2, 1, 5)}, "prediction", (2, 5),
            options={"multilabel": True})  # fmt: skip
        add(loss, "probabilities", {"prediction": simplex(2, 3, 5), "target": field_index}, "prediction", (2, 5),
            options={"said": losses.Probabilities, "check": False})  # fmt: skip
    for over in ("image", "batch"):
        add("lovasz_softmax", f"index-{over}", {"prediction": field_logits, "target": field_index}, "prediction",
            (2, 5), options={"over": over})  # fmt: skip
        add("lovasz_hinge", f"binary-{over}", {"score": normal(2, 6), "target": integers(2, 2, 6)}, "score", (2, 6),
            options={"over": over})  # fmt: skip
    add("lovasz_softmax", "hot", {"prediction": field_logits, "target": hot(field_index, 3)}, "prediction", (2, 5))
    add("boundary", "index", {"prediction": field_logits, "target": field_index}, "prediction", (2, 5))
    add("boundary", "given", {"prediction": field_logits, "target": field_index, "distance": normal(2, 3, 5)},
        "prediction distance", (2, 5), "prediction distance",
        options={"class_weight": positive(3), "weight": positive(2, 5)})  # fmt: skip

    square = {"prediction": normal(2, 3, 3, 4), "target": integers(3, 2, 3, 4)}
    weighed = {"class_weight": positive(3), "weight": positive(2, 3, 4)}
    for loss in ("cl_dice", "hausdorff_dt"):
        given = {} if loss == "cl_dice" else {"distance": normal(2, 3, 3, 4), "predicted_distance": normal(2, 3, 3, 4)}
        for over in ("image", "batch"):
            options = {"over": over, **weighed, **given}
            add(loss, f"given-{over}" if given else f"index-{over}", square, "prediction", (2, 3, 4), options=options)
        add(loss, "read-multilabel", {"prediction": normal(2, 1, 5), "target": integers(2, 2, 1, 5)}, "prediction",
            (2, 5), options={"multilabel": True})  # fmt: skip
        add(loss, "read-soft", {"prediction": field_logits, "target": soft_labels}, "prediction target", (2, 5),
            "prediction", options={"check": False})  # fmt: skip
        add(loss, "read-probabilities", {"prediction": simplex(2, 3, 5), "target": field_index}, "prediction", (2, 5),
            options={"said": losses.Probabilities, "check": False})  # fmt: skip
    add("cl_dice", "volume", {"prediction": normal(1, 2, 3, 3, 3), "target": integers(2, 1, 3, 3, 3)}, "prediction",
        (1, 3, 3, 3), options={"iterations": 1, "smooth": 1.0, "ignore_index": 7})  # fmt: skip

    rows = {"first": normal(5, 3), "second": normal(5, 3)}
    heat = torch.tensor(0.4, dtype=torch.float64)
    pairs = {"query": rows["first"], "key": rows["second"], "temperature": heat, "weight": positive(5)}
    for form, options in (("rows", {}), ("hard", {"hardness": 0.5})):
        add("info_nce", form, pairs, "query key temperature weight", (5,), "query key", options=options)
    queue = {**pairs, "negatives": normal(4, 3)}
    moco = {"in_batch": False}
    for form, options in (("queue", {}), ("moco", moco), ("moco-hard", {**moco, "hardness": 2.0})):
        add("info_nce", form, queue, "query key temperature negatives", (5,), "query key", options=options)
    for loss in ("clip_loss", "nt_xent", "siglip", "decoupled"):
        add(loss, "rows", {**rows, "temperature": heat}, "first second temperature", (5,), "first second")
        add(loss, "dot", {**rows, "temperature": heat}, "first second", (5,), options={"similarity": "dot"})
    labels = torch.tensor([0, 1, 0, 2, 1])
    add("sup_con", "rows", {"features": rows["first"], "labels": labels, "temperature": heat}, "features temperature",
        (5,), "features")  # fmt: skip
    match = torch.tensor([[[0, -1], [3, 2]], [[1, 1], [-1, 0]]])
    for negatives in ("image", "batch"):
        add("dense_info_nce", negatives,
            {"query": normal(2, 3, 2, 2), "key": normal(2, 3, 2, 2), "match": match, "temperature": heat},
            "query key temperature", (2, 2, 2), "query", options={"negatives": negatives})  # fmt: skip
    views = {name: normal(5, 3) for name in ("first_prediction", "first_projection", "second_prediction",
                                             "second_projection")}  # fmt: skip
    add("simsiam", "rows", views, "first_prediction second_prediction", (5,), " ".join(views),
        options={"weight": positive(5)})  # fmt: skip
    taught = {"prediction": normal(5, 3), "target": normal(5, 3)}
    add("byol", "rows", taught, "prediction", (5,), "prediction target", options={"weight": positive(5)})
    for form, at in (("rows", (5,)), ("pixels", (2, 3))):
        crops = {"student": normal(at[0], 4, *at[1:]), "teacher": normal(at[0], 4, *at[1:])}
        add("dino", form, crops, "student", at, "student teacher",
            options={"center": normal(4), "teacher_temperature": 0.5, "weight": positive(*at)})  # fmt: skip
    layer = {"features": normal(5, 3), "projection": normal(4, 3), "target": integers(4, 5)}
    weighed = {"class_weight": positive(4), "weight": positive(5), "scale": 4.0}
    for loss, options in (("cosface", {}), ("arcface", {}), ("arcface", {"easy_margin": True})):
        form = "easy" if options else "index"
        add(loss, form, layer, "features projection", (5,), "features", options={**weighed, **options})
    add("cosface", "hot", {**layer, "target": hot(layer["target"], 4)}, "features projection", (5,), "features",
        options={"scale": 4.0, "normalize": "count"})  # fmt: skip
    alike = {"features": normal(5, 3), "labels": labels}
    add("circle", "rows", alike, "features", (5,), options={"scale": 5.0, "weight": positive(5)})
    for form, mining in (("rows", None), ("mined", 0.1)):
        add("multi_similarity", form, alike, "features", (5,), options={"beta": 5.0, "mining": mining})
    for loss in ("barlow_twins", "vicreg"):
        add(loss, "rows", {"first": normal(5, 3), "second": normal(5, 3)}, "first second", (5,))

    pair, each = {"prediction": normal(2, 2, 3), "target": normal(2, 2, 3)}, (2, 2, 3)
    both = "prediction target"
    for loss, own in {"l1": {}, "mse": {}, "huber": {"delta": 0.6}, "smooth_l1": {"beta": 0.6}, "log_cosh": {},
                      "quantile": {"q": 0.2}}.items():  # fmt: skip
        add(loss, "elements", pair, both, each, options={"weight": positive(2, 2, 3), **own})
        add(loss, "positions", pair, both, (2, 3), options={"channel_dim": 1, "weight": positive(2, 3), **own})
    counts = {"prediction": normal(2, 2, 3), "target": integers(5, 2, 2, 3)}
    add("poisson_nll", "logarithm", counts, "prediction", each, options={"full": True})
    add("poisson_nll", "amount", {"prediction": positive(2, 2, 3), "target": positive(2, 2, 3)}, both, (2, 3),
        options={"log_input": False, "channel_dim": 1, "weight": positive(2, 3)})  # fmt: skip
    add("gaussian_nll", "variance", {**pair, "variance": positive(2, 2, 3)}, f"{both} variance", each,
        options={"full": True})  # fmt: skip
    add("gaussian_nll", "logarithm", {**pair, "variance": normal(2, 2, 3)}, f"{both} variance", (2, 3),
        options={"log_variance": True, "channel_dim": 1})  # fmt: skip

    pixels = {"logits": normal(2, 4, 6), "target": integers(4, 2, 6)}
    for over in ("image", "batch"):
        add("topk_cross_entropy", f"index-{over}", pixels, "logits", (2, 6),
            options={"k": 0.4, "over": over, "class_weight": positive(4), "weight": positive(2, 6)})  # fmt: skip
    add("topk_cross_entropy", "soft", {"logits": normal(2, 4, 6), "target": simplex(2, 4, 6)}, "logits target", (2, 6),
        "logits", options={"k": 0.5, "check": False})  # fmt: skip
    for q in (0.0, 0.7):
        add("generalized_cross_entropy", f"index-{q:g}", pixels, "logits", (2, 6),
            options={"q": q, "class_weight": positive(4), "weight": positive(2, 6)})  # fmt: skip
    add("generalized_cross_entropy", "soft", {**pixels, "target": simplex(2, 4, 6)}, "logits target", (2, 6), "logits",
        options={"check": False})  # fmt: skip
    grades = {"logits": normal(2, 3, 5), "target": integers(4, 2, 5)}
    add("ordinal", "index", grades, "logits", (2, 5), options={"class_weight": positive(4), "weight": positive(2, 5)})
    add("ordinal", "hot", {**grades, "target": hot(integers(4, 2, 5), 4)}, "logits", (2, 5))
    add("ordinal", "soft", {**grades, "target": simplex(2, 4, 5)}, "logits target", (2, 5), "logits",
        options={"class_weight": positive(4), "check": False})  # fmt: skip
    return cases


CASES = _make_cases()
STOPPED = {"circle"}
"""No gradient flows through the weights that these give to their own inputs."""
WHOLE = {"expected_calibration_error", "barlow_twins", "vicreg"}


def call(case: Case, **changes: Any) -> Tensor:
    """Call with distributions said as the case says."""
    said = case.options.get("said")
    inputs = {**case.inputs, **case.options, **changes}
    inputs.pop("said", None)
    if said is not None:
        for name in ("p", "q", "prediction"):
            if name in inputs:
                inputs[name] = said(inputs[name])
    return losses.by_name(case.loss)(**inputs)


every_case = pytest.mark.parametrize("case", CASES, ids=str)
differentiable = pytest.mark.parametrize("case", [c for c in CASES if c.grad], ids=str)


def test_every_loss_of_the_catalogue_has_a_case() -> None:
    assert {case.loss for case in CASES} == {entry.name for entry in losses.catalogue()}


@pytest.mark.parametrize("case", [c for c in CASES if c.grad and c.loss not in STOPPED], ids=str)
def test_first_and_second_derivative(case: Case) -> None:
    leaves = case.leaves()
    names = list(leaves)

    def run(*values: Tensor) -> Tensor:
        return call(case, **dict(zip(names, values, strict=True)))

    assert gradcheck(run, tuple(leaves.values()))
    assert gradgradcheck(run, tuple(leaves.values()), atol=1e-4)


@every_case
def test_mean_is_total_over_weight(case: Case) -> None:
    fn = losses.by_name(case.loss)
    inputs = {**case.inputs, **case.options}
    said = inputs.pop("said", None)
    if said is not None:
        inputs = {k: said(v) if k in ("p", "q", "prediction") else v for k, v in inputs.items()}
    total, weight = losses.total_and_weight(fn, **inputs)
    assert weight > 0
    torch.testing.assert_close(call(case), total / weight)
    torch.testing.assert_close(call(case, reduction="sum"), total)
    if case.loss not in WHOLE:
        torch.testing.assert_close(call(case, reduction="none").sum(), total)


def _mask(case: Case) -> Tensor:
    mask = torch.ones(case.mask, dtype=torch.bool)
    mask.view(-1)[::3] = False
    return mask


def _rows(case: Case, x: Tensor, mask: Tensor) -> Tensor:
    return mask if x.ndim == mask.ndim else mask.unsqueeze(case.options.get("class_dim", 1))


def _outside(case: Case, mask: Tensor, value: float) -> Inputs:
    """The masked inputs with `value` wherever the mask is False."""
    changed = {}
    for name in case.masked:
        x = case.inputs[name]
        rows = _rows(case, x, mask)
        changed[name] = torch.where(rows, x, value).requires_grad_(name in case.grad)
    return changed


@every_case
def test_masked_values_are_selected_away_not_multiplied(case: Case) -> None:
    mask = _mask(case)
    nan, zero = _outside(case, mask, torch.nan), _outside(case, mask, 0.25)
    with_nan, with_zero = call(case, mask=mask, **nan), call(case, mask=mask, **zero)
    torch.testing.assert_close(with_nan, with_zero, rtol=0, atol=0)
    if not case.grad:
        return
    with_nan.backward()
    with_zero.backward()
    for name in set(case.masked) & set(case.grad):
        x = nan[name]
        rows = _rows(case, x, mask)
        assert x.grad is not None
        torch.testing.assert_close(x.grad, zero[name].grad, rtol=0, atol=0)
        assert (x.grad.masked_fill(rows, 0) == 0).all()


@every_case
def test_nothing_selected_is_zero_over_zero_with_a_zero_gradient(case: Case) -> None:
    mask = torch.zeros(case.mask, dtype=torch.bool)
    inputs = _outside(case, mask, torch.nan)
    pair = call(case, mask=mask, reduction="pair", **inputs)
    assert pair.tolist() == [0.0, 0.0]
    mean = call(case, mask=mask, **inputs)
    assert mean.item() == 0.0
    if case.grad:
        mean.backward()
        assert all((inputs[name].grad == 0).all() for name in set(case.masked) & set(case.grad))


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_held_in_float32(case: Case, dtype: torch.dtype) -> None:
    half = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in case.inputs.items()}
    wide = {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in half.items()}
    options = {"check": False} if "said" in case.options or "soft" in case.form else {}
    result = call(case, **half, **options)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, call(case, **wide, **options), rtol=1e-5, atol=1e-6)


@differentiable
def test_gradient_does_not_depend_on_memory_format(case: Case) -> None:
    name = case.masked[0]
    x = case.inputs[name]
    if x.ndim < 3:
        return
    plain = x.detach().clone().requires_grad_()
    last = x.movedim(1, -1).contiguous().movedim(-1, 1).detach().requires_grad_()
    for leaf in (plain, last):
        call(case, **{name: leaf}).backward()
    assert plain.grad is not None
    assert last.grad is not None
    torch.testing.assert_close(last.grad, plain.grad)


@every_case
def test_a_mask_of_another_shape_is_refused_with_both_shapes(case: Case) -> None:
    wrong = (*case.mask[:-1], case.mask[-1] + 1)
    with pytest.raises(losses.LossInputError) as raised:
        call(case, mask=torch.ones(wrong, dtype=torch.bool))
    assert str(wrong) in str(raised.value)
    assert str(case.mask) in str(raised.value)
    with pytest.raises(losses.LossInputError, match="boolean"):
        call(case, mask=torch.ones(case.mask))


@every_case
def test_nan_at_a_selected_position_is_refused(case: Case) -> None:
    name = case.masked[0]
    bad = case.inputs[name].clone()
    bad.view(-1)[0] = torch.nan
    with pytest.raises(losses.LossInputError, match=case.loss):
        call(case, **{name: bad, "check": True})


@every_case
def test_an_unknown_reduction_is_refused(case: Case) -> None:
    with pytest.raises(losses.LossInputError, match="reduction"):
        call(case, reduction="average")


@every_case
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and PyTorch finds none")
def test_a_gpu_gives_the_value_and_the_gradients_of_the_processor(case: Case) -> None:
    def leaves(device: str) -> Inputs:
        moved = {k: v.detach().to(device) if isinstance(v, Tensor) else v for k, v in both.items()}
        return {k: v.requires_grad_() if k in case.grad else v for k, v in moved.items()}

    both = {**case.inputs, **{k: v for k, v in case.options.items() if k != "said"}}
    here, there = leaves("cpu"), leaves("cuda")
    expected, found = call(case, **here), call(case, **there)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected)
    if case.grad:
        expected.backward()
        found.backward()
    for name in case.grad:
        torch.testing.assert_close(there[name].grad.cpu(), here[name].grad)


TOGETHER = {"topk_cross_entropy", "circle", "multi_similarity"}
TOGETHER |= {"info_nce", "clip_loss", "nt_xent", "siglip", "decoupled", "sup_con", "dense_info_nce"}
TOGETHER |= {entry.name for entry in losses.catalogue() if entry.kind == "overlap"}
"""What weighs nothing takes no part in the loss of the others, either: there is no slope by a weight of 0."""


@pytest.mark.parametrize("name", ["weight", "class_weight"])
@every_case
def test_a_learnt_weight_of_zero_has_the_slope_of_any_other(case: Case, name: str) -> None:
    accepted = inspect.signature(losses.by_name(case.loss)).parameters
    by_position = name == "weight" and name in accepted and case.loss not in TOGETHER
    by_class = name == "class_weight" and name in case.options and case.loss != "topk_cross_entropy"
    if not case.grad or not (by_position or by_class):
        pytest.skip("It has no such weights.")
    rule = {"normalize": "weight"} if "normalize" in case.options else {}
    slopes = []
    for least in (0.0, 1e-9):
        given = torch.ones(case.mask if by_position else case.options[name].shape, dtype=torch.float64)
        given.view(-1)[1] = least
        given.requires_grad_()
        slopes += torch.autograd.grad(call(case, **{name: given}, **rule), given)
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)
    if by_position:  # what is not finite there is left out all the same
        mask = given.detach() == 1
        given = mask.double().requires_grad_()
        value = call(case, **_outside(case, mask, torch.nan), weight=given)
        torch.testing.assert_close(value, call(case, weight=given))
        assert torch.autograd.grad(value, given)[0].view(-1)[1] == 0
