"""Every fast version against its plain version: value, gradient, second derivative, and when it steps aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nucleate import losses
from nucleate.losses import LossInputError, Probabilities
from nucleate.losses.kernels import matrix_unit, products


@pytest.fixture(autouse=True, scope="module")
def compiled() -> Iterator[None]:
    assert losses.warm_up()
    yield


Result = tuple[Tensor, list[Tensor]]
layouts = pytest.mark.parametrize("layout", ["planes", "rows"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
SIZES = [(2, 3, 90, 70), (3, 12, 65, 31), (1, 5, 7001)]
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def laid(x: Tensor, layout: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same numbers with the classes in planes, or together at each pixel."""
    x = x.to(dtype)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if layout == "rows" else x


def both(call: Callable[..., Tensor], *inputs: Tensor) -> tuple[Result, Result]:
    """(fast, exact): the fast version as given, the plain version in float64."""
    found = []
    for fast, wide in ((True, False), (False, True)):
        leaves = [
            (x.detach().double() if wide else x.detach()).clone(memory_format=torch.preserve_format).requires_grad_()
            for x in inputs
        ]
        with losses.use_kernels(fast):
            value = call(*leaves)
            value.backward()
        found.append((value.detach(), [x.grad for x in leaves]))
    return found[0], found[1]


def agree(fast: Result, exact: Result, inputs: list[Tensor], bound: float) -> None:
    torch.testing.assert_close(fast[0].double(), exact[0].double(), rtol=4e-6, atol=1e-9)
    for g, e, x in zip(fast[1], exact[1], inputs, strict=True):
        assert g.dtype == x.dtype
        assert g.stride() == x.stride()
        assert (g.double() - e).norm() <= bound * e.norm()


def bound_of(dtype: torch.dtype) -> float:
    return 4e-3 if dtype == torch.bfloat16 else 2e-6


def uses_kernel(value: Tensor) -> bool:
    """Whether a node of the fast versions stands in the graph of `value`."""
    seen, names = [value.grad_fn], []
    while seen:
        node = seen.pop()
        if node is not None:
            names.append(type(node).__name__)
            seen += [n for n, _ in node.next_functions]
    return bool({"TotalBackward", "_CountsBackward", "_ExtensionBackward"} & set(names))


OPTIONS = ["plain", "weight", "smooth", "mask", "ignore", "position", "everything"]


def options_of(kind: str, size: tuple[int, ...], target: Tensor) -> dict[str, Any]:
    positions = (size[0], *size[2:])
    every = {
        "class_weight": torch.rand(size[1]),
        "label_smoothing": 0.3,
        "mask": torch.rand(positions) > 0.4,
        "weight": torch.rand(positions),
        "ignore_index": 1,
    }
    chosen = {
        "plain": (), "weight": ("class_weight",), "smooth": ("label_smoothing",), "mask": ("mask",),
        "ignore": ("ignore_index",), "position": ("weight",), "everything": tuple(every),
    }[kind]  # fmt: skip
    options = {name: every[name] for name in chosen}
    if kind == "position":
        options["normalize"] = "count"
    if target.is_floating_point():
        options.pop("ignore_index", None)
    return options


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
@layouts
@dtypes
@sizes
def test_cross_entropy(size: tuple[int, ...], dtype: torch.dtype, layout: str, soft: bool, kind: str) -> None:
    x = torch.randn(size) * 3
    target = torch.randn(size).softmax(1) if soft else torch.randint(0, size[1], (size[0], *size[2:]))
    options = options_of(kind, size, target)
    mask = options.get("mask")
    if mask is not None:  # what is masked may hold anything
        x = torch.where(mask.unsqueeze(1), x, torch.nan)
        target = torch.where(mask.unsqueeze(1), target, torch.nan) if soft else torch.where(mask, target, 99)
    x = laid(x, layout, dtype)
    target = laid(target, layout) if soft else target
    for reduction in ("mean", "sum"):

        def call(a: Tensor, reduction: str = reduction) -> Tensor:
            t = target.to(a.dtype) if soft and a.dtype == torch.float64 else target
            wide = {k: v.to(a.dtype) if "weight" in k and a.dtype == torch.float64 else v for k, v in options.items()}
            return losses.cross_entropy(a, t, reduction=reduction, **wide)

        assert uses_kernel(call(x.clone().requires_grad_()))
        agree(*both(call, x), [x], bound_of(dtype))
    pair = losses.total_and_weight(losses.cross_entropy, x, target, **options)
    with losses.use_kernels(False):
        plain = losses.total_and_weight(losses.cross_entropy, x, target, **options)
    torch.testing.assert_close(pair, plain, rtol=4e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_labels_of_any_integer_type(kind: torch.dtype) -> None:
    x, t = torch.randn(2, 5, 60, 60), torch.randint(0, 5, (2, 60, 60))
    assert losses.cross_entropy(x, t.to(kind)) == losses.cross_entropy(x, t)


@pytest.mark.parametrize("name", ["kl_divergence", "jensen_shannon"])
@pytest.mark.parametrize("kind", ["plain", "bits", "masked"])
@layouts
@dtypes
@sizes
def test_divergence(size: tuple[int, ...], dtype: torch.dtype, layout: str, kind: str, name: str) -> None:
    mask = torch.rand(size[0], *size[2:]) > 0.4
    p, q = torch.randn(size) * 3, torch.randn(size) * 3
    options: dict[str, Any] = {"base": 2.0} if kind == "bits" else {}
    if kind == "masked":
        p = torch.where(mask.unsqueeze(1), p, torch.nan)
        options = {"mask": mask, "weight": torch.rand(mask.shape)}
    p, q = laid(p, layout, dtype), laid(q, layout, dtype)

    def call(a: Tensor, b: Tensor) -> Tensor:
        return losses.by_name(name)(p=a, q=b, **options)

    assert uses_kernel(call(p.clone().requires_grad_(), q))
    agree(*both(call, p, q), [p, q], 3 * bound_of(dtype))


@pytest.mark.parametrize("name", ["dice", "jaccard", "focal_tversky", "generalized_dice"])
@pytest.mark.parametrize("kind", ["plain", "mask", "batch"])
@pytest.mark.parametrize("classes", [2, 3, 6])  # up to three are done in registers
@layouts
@dtypes
def test_overlap(dtype: torch.dtype, layout: str, classes: int, kind: str, name: str) -> None:
    size = (3, classes, 131, 101)
    x, t = torch.randn(size) * 3, torch.randint(0, max(1, classes - 1), (3, 131, 101))  # the last class has no pixel
    options: dict[str, Any] = {}
    if kind == "mask":
        options["mask"] = torch.rand(t.shape) > 0.4
        x = torch.where(options["mask"].unsqueeze(1), x, torch.nan)
        t = torch.where(options["mask"], t, 77)
    if kind == "batch":
        options = {"over": "batch", "ignore_index": min(2, classes - 1)}
    x = laid(x, layout, dtype)

    def call(a: Tensor) -> Tensor:
        return losses.by_name(name)(a, t, **options)

    assert uses_kernel(call(x.clone().requires_grad_()))
    agree(*both(call, x), [x], bound_of(dtype))


@pytest.mark.parametrize("classes", [254, 255, 300])
def test_overlap_of_about_as_many_classes_as_a_byte_holds(classes: int) -> None:
    """The second pass reads labels of one byte where 255 is left to say that a pixel is not selected."""
    x, t = torch.randn(2, classes, 400), torch.randint(0, classes, (2, 400))
    t[:, -6:] = torch.tensor([classes - 1, classes - 2, 253, 0, 1, 2])
    mask = torch.rand(t.shape) > 0.2
    mask[:, -6:] = torch.tensor([True, True, True, False, False, False])

    def call(a: Tensor) -> Tensor:
        return losses.dice(a, t, mask=mask, ignore_index=1)

    assert uses_kernel(call(x.clone().requires_grad_()))
    agree(*both(call, x), [x], 1e-5)


@pytest.mark.parametrize("positive", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["image", "batch", "mask"])
def test_lovasz_hinge(kind: str, positive: float) -> None:
    score, label = torch.randn(3, 9000), torch.rand(3, 9000) < positive
    options: dict[str, Any] = {"over": "batch"} if kind == "batch" else {}
    if kind == "mask":
        options["mask"] = torch.rand(3, 9000) > 0.3

    def call(a: Tensor) -> Tensor:
        return losses.lovasz_hinge(a, label, **options)

    assert uses_kernel(call(score.clone().requires_grad_()))
    # Errors that are equal in float32 may differ in float64, and then stand in another order.
    agree(*both(call, score), [score], 2e-5)


@pytest.mark.parametrize("step", [2.0**-14, 2.0**-21])
def test_one_large_row_of_lovasz_by_all_threads(step: float) -> None:
    """Errors far apart and close together, no two of them the same, nor rounded."""
    n = 150_000
    score, label = (torch.randperm(n) - n // 2 + 0.25).unsqueeze(0) * step, torch.rand(1, n) < 0.3
    agree(*both(lambda a: losses.lovasz_hinge(a, label), score), [score], 2e-6)


def test_one_large_row_of_lovasz_with_errors_all_the_same() -> None:
    label = torch.rand(1, 150_000) < 0.3
    fast, exact = both(lambda a: losses.lovasz_hinge(a, label), torch.zeros(1, 150_000))
    torch.testing.assert_close(fast[0].double(), exact[0])
    hit, passed = (losses.lovasz_hinge(torch.full(label.shape, s), ~label ^ label) for s in (2.0, -1.0))
    assert (hit.item(), passed.item()) == (0.0, 2.0)


def test_lovasz_softmax() -> None:
    x, t = torch.randn(2, 5, 5000), torch.randint(0, 5, (2, 5000))
    agree(*both(lambda a: losses.lovasz_softmax(a, t), x), [x], 2e-5)


@pytest.fixture(params=["unit", "blocks"])
def exactness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """With the processor's matrix unit, where it has one, and without; the gradient's relative error to be met."""
    if request.param == "unit" and products.at_hand():
        return 1e-4
    monkeypatch.setattr(products, "_LARGEST", -1.0)
    return 1e-5


@pytest.mark.parametrize("name", ["info_nce", "clip_loss"])
@pytest.mark.parametrize("heat", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("kind", ["plain", "dot", "masked"])
def test_contrastive(name: str, heat: float, kind: str, exactness: float) -> None:
    a = torch.randn(1100, 16)
    b = torch.randn(1100, 16) + a / 2
    options: dict[str, Any] = {"similarity": "dot"} if kind == "dot" else {}
    if kind == "masked":
        options = {"mask": torch.rand(1100) > 0.02, "weight": torch.rand(1100)}
    temperature = torch.tensor(heat)

    def call(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return losses.by_name(name)(x, y, temperature=t, **options)

    inputs = [a, b, temperature]
    leaf = a.clone().requires_grad_()
    assert uses_kernel(call(leaf, b, temperature))
    agree(*both(call, *inputs), inputs, exactness)


@pytest.mark.parametrize("kind", ["plain", "bias", "weighed"])
def test_linear_cross_entropy(kind: str, exactness: float) -> None:
    x, w, b = torch.randn(6, 24, 700), torch.randn(300, 24), torch.randn(300)
    t = torch.randint(0, 300, (6, 700))
    options: dict[str, Any] = {}
    if kind == "weighed":
        options = {"class_weight": torch.rand(300), "mask": torch.rand(6, 700) > 0.3, "ignore_index": 7}

    def call(features: Tensor, layer: Tensor, *bias: Tensor) -> Tensor:
        return losses.linear_cross_entropy(features, layer, t, bias=bias[0] if bias else None, **options)

    inputs = [x, w, b] if kind == "bias" else [x, w]
    assert uses_kernel(call(*[v.clone().requires_grad_() for v in inputs]))
    agree(*both(call, *inputs), inputs, exactness)


@pytest.fixture(params=["at once", "in turn"])
def slopes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both derivatives from one look at each product, or one after the other, as where the first takes much memory."""
    if request.param == "in turn":
        monkeypatch.setattr(products, "_AT_ONCE", 0)
    monkeypatch.delattr(products, "_slopes" if request.param == "at once" else "_both_slopes")


needs_matrix_unit = pytest.mark.skipif(
    not matrix_unit.at_hand(), reason="needs AMX, which this processor lacks or this system forbids"
)


@needs_matrix_unit
@pytest.mark.usefixtures("slopes")
@pytest.mark.parametrize(("n", "m", "depth"), [(1, 33, 1), (70, 300, 40), (33, 8300, 20), (130, 4200, 33)])
def test_products_on_the_matrix_unit(n: int, m: int, depth: int) -> None:
    """Rows, columns and features that do not fill a tile, and more columns than are packed at a time."""
    rows, columns, own = torch.randn(n, depth), torch.randn(m, depth), torch.randint(0, m, (n,))
    weights = torch.rand(n)
    found = products.softmax_total(rows, columns, own, weights, 0.5, wanted=True)
    assert found is not None
    leaves = [x.double().requires_grad_() for x in (rows, columns)]
    plain = torch.nn.functional.cross_entropy(leaves[0] @ leaves[1].T, own, reduction="none")
    value = (plain * weights).sum()
    (0.5 * value).backward()
    torch.testing.assert_close(found[0], value.detach(), rtol=1e-5, atol=1e-7)
    for g, x in zip(found[1], leaves, strict=True):
        assert g.shape == x.shape
        assert (g - x.grad).norm() <= 1e-4 * x.grad.norm()


@needs_matrix_unit
@pytest.mark.usefixtures("slopes")
def test_a_pair_that_is_nearly_certain_keeps_its_gradient_on_the_matrix_unit() -> None:
    """1 - p is 7e-5, which float32 holds to 8e-4; taken after p was rounded to bfloat16 parts it would be lost."""
    a = torch.eye(64) * 3.7
    found = products.softmax_total(a, a, torch.arange(64), None, 1.0, wanted=True)
    assert found is not None
    leaf = a.double().requires_grad_()
    torch.nn.functional.cross_entropy(leaf @ a.double().T, torch.arange(64), reduction="sum").backward()
    for by_one in found[1]:  # of a symmetric matrix both are the same
        assert (by_one - leaf.grad).norm() <= 8e-4 * leaf.grad.norm()


def test_products_that_are_too_large_for_the_matrix_unit() -> None:
    x = torch.full((64, 2), 10.0)
    assert products.softmax_total(x, x, torch.arange(64), None, 1.0, wanted=False) is None
    assert products.softmax_total(x, x * torch.nan, torch.arange(64), None, 1.0, wanted=False) is None


CALLS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "cross_entropy": (lambda x: losses.cross_entropy(x, _labels(x)), (1, 3, 120, 100)),
    "soft": (lambda x: losses.cross_entropy(x, torch.full_like(x, 1 / 3)), (1, 3, 120, 100)),
    "kl": (lambda x: losses.kl_divergence(p=x, q=x.detach().flip(1)), (1, 3, 120, 100)),
    "js": (lambda x: losses.jensen_shannon(p=x.detach().flip(1), q=x), (1, 3, 120, 100)),
    "dice": (lambda x: losses.dice(x, _labels(x)), (1, 3, 120, 100)),
    "info_nce": (lambda x: losses.info_nce(x, x.detach().flip(1)), (1100, 8)),
    "clip_loss": (lambda x: losses.clip_loss(x, x.detach().flip(1)), (1100, 8)),
    "linear": (lambda x: losses.linear_cross_entropy(x, _layer(), _rows(x)), (2000, 8)),
}  # fmt: skip


def _labels(x: Tensor) -> Tensor:
    return torch.arange(x[:, 0].numel()).reshape(x[:, 0].shape) % 3


def _layer() -> Tensor:
    return torch.randn(600, 8, generator=torch.Generator().manual_seed(5))


def _rows(x: Tensor) -> Tensor:
    return torch.arange(len(x)) % 600


@pytest.mark.parametrize("name", CALLS)
def test_second_derivative_goes_through_the_twin(name: str) -> None:
    call, shape = CALLS[name]
    found = []
    for fast in (True, False):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with losses.use_kernels(fast):
            value = call(x)
            assert uses_kernel(value) == fast
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            slope.square().sum().backward()
        found.append((slope.detach(), x.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", CALLS)
def test_a_second_backward_pass_and_another_factor(name: str) -> None:
    call, shape = CALLS[name]
    x = torch.randn(shape, requires_grad=True)
    value = call(x)
    value.backward(retain_graph=True)
    first = x.grad.clone()
    x.grad = None
    (3 * value).backward()
    assert (x.grad - 3 * first).norm() <= 1e-5 * x.grad.norm()
    x.grad = None
    (call(x) * 65536.0).backward()
    assert (x.grad - 65536 * first).norm() <= 1e-5 * x.grad.norm()


@pytest.mark.parametrize("name", CALLS)
def test_no_gradient_where_none_is_wanted(name: str) -> None:
    call, shape = CALLS[name]
    x = torch.randn(shape)
    value = call(x)
    assert not value.requires_grad
    with torch.no_grad():
        assert call(x.requires_grad_()) == value


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, on make_dual
def test_it_steps_aside_for_other_types_transformations_and_small_inputs() -> None:
    t = torch.zeros(1, 120, 100, dtype=torch.long)
    for x in (torch.zeros(1, 3, 120, 100, dtype=torch.float64), torch.zeros(1, 3, 120, 100, dtype=torch.float16)):
        assert not uses_kernel(losses.cross_entropy(x.requires_grad_(), t))
    assert not uses_kernel(losses.cross_entropy(torch.zeros(1, 3, 9, requires_grad=True), t[:, 0, :9]))
    x = torch.randn(1, 3, 120, 100)
    slope = torch.func.grad(lambda a: losses.cross_entropy(a, t, check=False))(x)
    leaf = x.clone().requires_grad_()
    losses.cross_entropy(leaf, t).backward()
    torch.testing.assert_close(slope, leaf.grad)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(losses.cross_entropy(dual, t)).tangent
        assert abs(tangent) < 1e-6
    strided = torch.randn(1, 6, 120, 100)[:, ::2].requires_grad_()
    assert not uses_kernel(losses.cross_entropy(strided, t))


def test_bad_input_is_said_as_by_the_twin() -> None:
    x, t = torch.randn(1, 3, 120, 100), torch.zeros(1, 120, 100, dtype=torch.long)
    t[0, 5, 5] = 3
    with pytest.raises(LossInputError, match=r"class 3, .*0\.\.2"):
        losses.cross_entropy(x, t)
    with pytest.raises(LossInputError, match="class 3"):
        losses.dice(x, t)
    with pytest.raises(LossInputError, match="sum to 1"):
        losses.cross_entropy(x, torch.rand_like(x))
    x[0, 1, 3, 3] = torch.nan
    for call in (
        lambda: losses.cross_entropy(x, t.clamp(max=2)),
        lambda: losses.dice(x, t.clamp(max=2)),
        lambda: losses.kl_divergence(p=x, q=torch.zeros_like(x)),
        lambda: losses.lovasz_hinge(x.flatten(1), torch.zeros(1, 36000)),
        lambda: losses.lovasz_softmax(x, t.clamp(max=2)),
    ):
        with pytest.raises(LossInputError, match="NaN"):
            call()


@layouts
def test_infinite_and_extreme_logits(layout: str) -> None:
    x = torch.randn(1, 3, 120, 100)
    x[0, 1, :, :50] = -torch.inf
    x[0, :, :, 50:70] *= 1e4
    x = laid(x, layout)
    t = torch.zeros(1, 120, 100, dtype=torch.long)
    fast, exact = both(lambda a: losses.cross_entropy(a, t), x)
    agree(fast, exact, [x], 2e-6)
    assert (fast[1][0][0, 1, :, :50] == 0).all()
    soft = laid(torch.nn.functional.one_hot(t, 3).movedim(-1, 1).float(), layout)
    agree(*both(lambda a: losses.cross_entropy(a, soft.to(a.dtype)), x), [x], 2e-6)
    agree(*both(lambda a: losses.dice(a, t), x), [x], 4e-6)
    y = laid(torch.randn(1, 3, 120, 100), layout)
    agree(*both(lambda a: losses.kl_divergence(p=a, q=y.to(a.dtype)), x), [x], 1e-5)
    agree(*both(lambda a: losses.jensen_shannon(p=a, q=y.to(a.dtype)), x), [x], 1e-5)


def test_everything_ignored() -> None:
    x, t = torch.randn(1, 3, 120, 100, requires_grad=True), torch.full((1, 120, 100), 255, dtype=torch.uint8)
    value = losses.cross_entropy(x, t, ignore_index=255)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()
    x.grad = None
    value = losses.dice(x, t, ignore_index=255)
    value.backward()
    assert value == 0
    assert (x.grad == 0).all()


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    x, t = torch.randn(2, 3, 200, 200), torch.randint(0, 3, (2, 200, 200))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            value = losses.cross_entropy(leaf, t)
            value.backward()
            found.append((value.detach(), leaf.grad))
    finally:
        torch.set_num_threads(before)
    for value, gradient in found[1:]:
        assert value == found[0][0]
        assert torch.equal(gradient, found[0][1])


def test_memory_of_a_pass_is_the_gradient() -> None:
    """The tensor that backward hands over is the one that forward wrote: no copy of its size is made."""
    x, t = torch.randn(1, 3, 200, 200, requires_grad=True), torch.randint(0, 3, (1, 200, 200))
    value = losses.cross_entropy(x, t)
    node = value.grad_fn.next_functions[0][0]
    written = node.made[0].data_ptr()
    del node
    value.backward()
    assert x.grad.data_ptr() == written


def test_a_prediction_said_as_probabilities_takes_the_plain_way() -> None:
    p = torch.randn(1, 3, 120, 100).softmax(1).requires_grad_()
    t = torch.zeros(1, 120, 100, dtype=torch.long)
    assert not uses_kernel(losses.dice(Probabilities(p), t))
