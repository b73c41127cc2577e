"""Arguments that are no tensors, of another kind or of another shape: one sentence, with the mend, in every loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.losses.test_every_loss import CASES, Case, call
from torch import Tensor

from nucleate import losses
from nucleate.losses import LossInputError, Probabilities

ONE_EACH = list({case.loss: case for case in CASES}.values())
NUMBERS = ("temperature", "positive_weight", "bias")
"""Tensors that may be plain numbers, too."""


def tensors(case: Case) -> dict[str, Tensor]:
    """The tensor arguments of a case, its options and a mask."""
    given = {**case.inputs, **case.options, "mask": torch.ones(case.mask, dtype=torch.bool)}
    return {name: x for name, x in given.items() if isinstance(x, Tensor)}


def refused(case: Case, name: str, value: object) -> str:
    with pytest.raises(LossInputError) as raised:
        call(case, **{name: value}, **({"said": None} if case.options.get("said") else {}))
    said = str(raised.value)
    assert said.startswith(f"{case.loss}: ")
    assert name in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_what_is_no_tensor_is_refused_with_its_type_and_the_mend(case: Case) -> None:
    for name, x in tensors(case).items():
        if name == "predictions":  # a sequence is welcome
            continue
        assert "ndarray" in refused(case, name, x.numpy())
        if name not in NUMBERS:
            assert f"of shape {tuple(x.shape)}; torch.from_numpy({name})" in refused(case, name, x.numpy())
        if name not in NUMBERS or x.numel() > 1:
            assert "float; torch.tensor(" in refused(case, name, 1.0)
        assert "list" in refused(case, name, x.tolist() if x.ndim else [0.5])
        if name not in ("p", "q", "prediction"):
            assert "Probabilities" in refused(case, name, Probabilities(x))


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_no_imaginary_part_is_dropped(case: Case) -> None:
    if isinstance(x := case.inputs.get("target"), Tensor):
        assert "target must be real, got torch.complex64; take" in refused(case, "target", x.to(torch.complex64))


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_what_must_be_floating_point_is_said(case: Case) -> None:
    for name in case.masked:
        if name == "target":  # counts and other whole numbers are welcome there
            assert "torch.complex128" in refused(case, name, case.inputs[name].to(torch.complex128))
        elif name != "predictions":
            assert "torch.int64" in refused(case, name, case.inputs[name].long())
            assert "torch.complex128" in refused(case, name, case.inputs[name].to(torch.complex128))


LOGITS = torch.zeros(2, 3)
IMAGE = torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda: losses.cross_entropy(LOGITS, torch.tensor([[0], [1]])), ["(2, 1)", "(2, 3)", "target.squeeze(1)"]),
        (lambda: losses.focal(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)), ["target.squeeze(1)"]),
        (lambda: losses.cross_entropy(torch.zeros(2, 8, 9, 3), torch.zeros(2, 8, 9).long()),
         ["(2, 8, 9)", "(2, 8, 9, 3)", "class_dim=-1", "movedim(-1, 1)"]),
        (lambda: losses.dice(torch.zeros(2, 8, 9, 3), torch.zeros(2, 8, 9).long()), ["class_dim=-1"]),
        (lambda: losses.cross_entropy(torch.zeros(2, 3, 8, 9), torch.zeros(2, 8, 9, 3)), ["target.movedim(-1, 1)"]),
        (lambda: losses.dice(IMAGE, torch.zeros(2, 1, 8, 8)), ["multilabel=True", "(2, 1, 8, 8)", "as it is"]),
        (lambda: losses.boundary(IMAGE, torch.zeros(2, 8, 8)), ["multilabel=True", "target.unsqueeze(1)"]),
        (lambda: losses.lovasz_softmax(IMAGE, torch.zeros(2, 8, 8).long()), ["lovasz_hinge"]),
        (lambda: losses.lovasz_softmax(torch.zeros(3, 8, 9), torch.zeros(8, 9).long(), class_dim=0), ["over='batch'"]),
        (lambda: losses.lovasz_softmax(torch.zeros(4, 3), torch.zeros(4).long()), ["(4, 3)", "over='batch'"]),
    ],
)  # fmt: skip
def test_a_shape_that_tells_the_mend(run: Callable[[], Tensor], said: list[str]) -> None:
    with pytest.raises(LossInputError) as raised:
        run()
    assert [part for part in said if part not in str(raised.value)] == []


def test_classes_first_over_the_batch_are_one_image() -> None:
    x, t = torch.randn(3, 8, 9), torch.randint(0, 3, (8, 9))
    for loss in (losses.lovasz_softmax, losses.dice):
        torch.testing.assert_close(loss(x, t, class_dim=0, over="batch"), loss(x[None], t[None]))
        rows = loss(x.flatten(1).T, t.flatten(), over="batch")
        torch.testing.assert_close(rows, loss(x[None], t[None]))


# positive_weight
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1.0, "0..inf"),
        (torch.tensor(-1.0), "at least 0"),
        (torch.ones(4), r"shape \(4,\) .* shape \(3,\)"),
        (torch.ones(3, 1, 1), r"shape \(3, 1, 1\) .* shape \(3,\)"),
        (torch.ones(3).long(), "floating-point"),
        ([1.0, 2.0, 3.0], "list"),
        (np.ones(3), "ndarray"),
    ],
)
def test_a_positive_weight_that_does_not_fit_is_refused(value: Any, said: str) -> None:
    with pytest.raises(LossInputError, match=f"positive_weight .*{said}"):
        losses.binary_cross_entropy(torch.zeros(2, 3, 3, 3), torch.ones(2, 3, 3, 3), positive_weight=value)


@pytest.mark.parametrize("class_dim", [1, -1])
def test_a_positive_weight_of_each_class_is_learnt(class_dim: int) -> None:
    x, t = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.rand(2, 3, 4, 5, dtype=torch.float64)
    v = torch.rand(x.shape[class_dim], dtype=torch.float64, requires_grad=True)
    along = v if class_dim == -1 else v.reshape(3, 1, 1)
    plain = (-along * t * x.sigmoid().log() - (1 - t) * (-x).sigmoid().log()).mean()
    found = losses.binary_cross_entropy(x, t, positive_weight=v, class_dim=class_dim)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(found, v), torch.autograd.grad(plain, v))


# labels of yes and no that leave their element out
@pytest.mark.parametrize(
    ("loss", "inputs"),
    [("binary_cross_entropy", 1), ("hinge", 1), ("logistic", 1), ("margin_ranking", 2), ("lovasz_hinge", 1)],
)
def test_an_ignored_label_is_masked_away(loss: str, inputs: int) -> None:
    scores = [torch.randn(3, 7) for _ in range(inputs)]
    target = torch.randint(0, 2, (3, 7), dtype=torch.uint8)
    out = torch.rand(3, 7) < 0.3
    spoilt = [torch.where(out, torch.nan, x).requires_grad_() for x in scores]
    found = losses.by_name(loss)(*spoilt, target.masked_fill(out, 255), ignore_index=255)
    torch.testing.assert_close(found, losses.by_name(loss)(*scores, target, mask=~out))
    assert all((g[out] == 0).all() for g in torch.autograd.grad(found, spoilt))
    for name, x in (("-1", target.masked_fill(out, 255)), ("255", target.to(torch.int8).masked_fill(out, -1))):
        with pytest.raises(LossInputError, match="holds"):  # a label that the type cannot hold leaves nothing out
            losses.by_name(loss)(*scores, x, ignore_index=int(name))
    with pytest.raises(LossInputError, match=r"ignore_index=255 .* mask="):
        losses.by_name(loss)(*scores, target.float(), ignore_index=255)


@pytest.mark.parametrize("loss", ["dice", "jaccard", "generalized_dice", "tversky", "boundary"])
@pytest.mark.parametrize("over", ["image", "batch"])
def test_a_mask_for_each_channel(loss: str, over: str) -> None:
    options = {"multilabel": True} if loss == "boundary" else {"multilabel": True, "over": over}
    x, t = torch.randn(2, 3, 4, 5), torch.randint(0, 2, (2, 3, 4, 5))
    mask = torch.rand(x.shape) > 0.3
    mask[:, 2] = False  # a channel without labels
    mask[0, 1] = True
    if loss == "boundary":
        options["distance"] = torch.randn(x.shape)
    spoilt = torch.where(mask, x, torch.nan).requires_grad_()
    found = losses.by_name(loss)(spoilt, t, mask=mask, **options)
    (slope,) = torch.autograd.grad(found, spoilt)
    assert (slope[~mask] == 0).all()
    torch.testing.assert_close(
        losses.by_name(loss)(spoilt, t.masked_fill(~mask, 255), ignore_index=255, **options), found
    )
    if loss not in ("generalized_dice", "boundary"):  # a channel by itself is the mean over channels
        values = losses.by_name(loss)(spoilt, t, mask=mask, **options, reduction="none")
        for c in range(2):
            alone = losses.by_name(loss)(x[:, c : c + 1], t[:, c : c + 1], mask=mask[:, c], **options, reduction="none")
            torch.testing.assert_close(values[:, c : c + 1], alone)
        assert (values[:, 2] == 0).all()
        torch.testing.assert_close(found, values[:, :2].mean())


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_a_batch_of_nothing_is_zero(case: Case) -> None:
    if case.loss == "lovasz_hinge":
        case = next(c for c in CASES if str(c) == "lovasz_hinge-binary-image")
    first = case.masked[0]
    along = case.mask[0]
    empty = {
        k: x[:0].clone().requires_grad_(k in case.grad)
        for k, x in tensors(case).items()
        if k != "mask" and x.ndim and x.shape[0] == along and k not in ("projection", "predictions")
    }
    if first == "predictions":
        empty = {first: case.inputs[first][:, :0].clone().requires_grad_()}
    found = call(case, **empty)
    assert found == 0
    if case.grad:
        found.backward()
