"""Eight-bit integers: what each stands for, which range they span, and a network of them against a plain one."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from nucleate.data.synthetic.microscopy import fluorescence, tissue
from nucleate.inference.backends import Int8Backend, TorchBackend
from nucleate.inference.onnx_graph import to_onnx
from nucleate.inference.predictor import Predictor
from nucleate.inference.quantize import CLIPPED, FLOATING, MOST, calibrate, input_scale, quantised
from nucleate.networks.runtime import processor
from nucleate.networks.store import locate, read
from nucleate.networks.unet import Architecture, UNet
from nucleate.postprocess.matching import match

FINITE = st.floats(-100, 100, width=32)
WEIGHTS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=4, max_dims=4, max_side=4), elements=FINITE)

needs_vnni = pytest.mark.skipif(
    not processor().int8,
    reason="needs VNNI or AMX; without them sums of 8-bit products overflow, so no engine uses them",
)


def network(channels=1, widths=(8, 16)):
    torch.manual_seed(0)
    made = UNet(Architecture(channels, 2, widths))
    nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def images(count, channels=1, side=48):
    generator = np.random.default_rng(0)
    return [generator.random((channels, side, side), np.float32) * (1 + k) for k in range(count)]


def convolutions(made):
    return {name: module for name, module in made.named_modules() if isinstance(module, nn.Conv2d)}


@settings(deadline=None)
@given(low=FINITE, high=FINITE)
def test_every_value_of_the_range_is_within_half_a_step_and_zero_is_zero(low, high):
    low, high = min(low, high), max(low, high, 0.0)
    scale, kind = input_scale(low, high)
    limits = np.iinfo(kind)
    values = np.linspace(low, high, 1001)
    integers = np.clip(np.rint(values / scale), limits.min, limits.max)
    assert np.abs(integers * scale - values).max() <= 0.501 * scale
    assert kind == (np.uint8 if low >= 0 else np.int8)


def test_all_integers_are_used():
    for low, high in ((0.0, 3.0), (-3.0, 1.0), (-1.0, 3.0)):
        scale, kind = input_scale(low, high)
        assert max(-low, high) / scale == pytest.approx(255 if kind == np.uint8 else 127)
    assert input_scale(0.0, 0.0)[0] > 0, "also where there is nothing"


@settings(deadline=None)
@given(WEIGHTS)
def test_weights_are_within_half_a_step_of_their_output(weight):
    integers, scale = quantised(weight)
    assert integers.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == weight.shape[:1]
    assert np.abs(integers.astype(int)).max() <= 127
    steps = scale[:, None, None, None]
    assert (np.abs(integers * steps - weight) <= 0.501 * steps).all()
    np.testing.assert_array_equal(quantised(-weight)[0], -integers)


def test_each_output_has_a_scale_of_its_own():
    weight = np.float32([[[[1.0, -0.5]]], [[[0.001, 0.0005]]]])
    integers, _ = quantised(weight)
    np.testing.assert_array_equal(integers.reshape(2, 2), [[127, -64], [127, 64]])


def test_ranges_are_the_quantiles_of_what_each_convolution_sees():
    made, (image,) = network(), images(1)
    found = calibrate(made, [image])
    assert found.keys() == set(convolutions(made)) - {FLOATING}
    x, folded = {}, made.folded()
    for name, module in convolutions(folded).items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: x.update({name: inputs[0].numpy().ravel()}))
    with torch.no_grad():
        folded(torch.from_numpy(image)[None])
    for name, (low, high) in found.items():
        outside = np.array([np.mean(x[name] < low), np.mean(x[name] > high)])
        assert (outside <= CLIPPED).all(), name
        inside = np.array([np.mean(x[name] <= low), np.mean(x[name] >= high)])
        assert (inside >= min(CLIPPED, 1 / x[name].size)).all(), name
        assert name.endswith(("first", "second", "maps")) == (low >= 0), "after a rectifier"


def test_ranges_are_the_widest_over_the_images_whatever_their_order():
    made, several = network(), images(3)
    together, alone = calibrate(made, several), [calibrate(made, [image]) for image in several]
    for name, (low, high) in together.items():
        assert low == min(found[name][0] for found in alone) and high == max(found[name][1] for found in alone)
    assert calibrate(made, several[::-1]) == together


def test_few_images_are_looked_at_and_they_are_spread(monkeypatch):
    seen = []
    monkeypatch.setattr(TorchBackend, "zoomed", lambda self, image: seen.append(float(image.max())))
    for count in (1, MOST, MOST + 1, 10 * MOST):
        seen.clear()
        calibrate(network(), [np.full((1, 8, 8), k, np.float32) for k in range(count)])
        assert len(seen) <= MOST and seen[0] == 0 and seen[-1] >= 0.8 * (count - 1)
        assert len(set(np.diff(seen))) <= 1
    with pytest.raises(ValueError, match="at least one image"):
        calibrate(network(), [])


def test_the_network_is_left_as_it_was():
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    calibrate(made, images(1))
    assert made.training and all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert not any(module._forward_pre_hooks for module in made.modules())


def plain(made, ranges):
    """The twin: PyTorch in float64, with weights and inputs rounded to the numbers that integers stand for."""
    folded = made.folded().double()
    for name, module in convolutions(folded).items():
        if name in ranges:
            integers, scale = quantised(module.weight.float().numpy())
            module.weight.copy_(torch.from_numpy(integers * scale.astype(np.float64)[:, None, None, None]))
            step, kind = input_scale(*ranges[name])
            limits = np.iinfo(kind)

            def rounded(_, inputs, step=float(step), limits=limits):
                return (torch.clamp(torch.round(inputs[0] / step), limits.min, limits.max) * step,)

            module.register_forward_pre_hook(rounded)
    return folded


@pytest.fixture(scope="module", params=[(1, (8, 8), 0.0), (1, (8, 16), 0.1), (3, (16, 16, 24), 0.0)])
def case(request):
    """A network, its ranges, an image that goes beyond them, and the twin's output for it."""
    channels, widths, bias = request.param
    made = network(channels, widths)
    for module in convolutions(made).values():
        nn.init.normal_(module.bias, std=bias)
    ranges = calibrate(made, images(3, channels))
    generator = torch.Generator().manual_seed(1)
    image = 4 * torch.rand(1, channels, 64, 80, generator=generator) - 0.5
    with torch.no_grad():
        return made, ranges, image, plain(made, ranges)(image.double()).float()


def test_the_graph_holds_the_integers(case):
    made, ranges, _, _ = case
    graph = to_onnx(made, ranges=ranges).graph
    stored = {constant.name: constant for constant in graph.initializer}
    kinds = {node.name: node.op_type for node in graph.node}
    for name, module in convolutions(made.folded()).items():
        own = name.replace(".", "_")
        integers = stored[f"{own}.weight"].data_type == onnx.TensorProto.INT8
        assert integers == (name in ranges)
        assert (f"{own}.quantised" in kinds) == (name in ranges)
        assert list(stored[f"{own}.weight"].dims) == list(module.weight.shape)
    floats = to_onnx(made).graph
    assert len(graph.node) == len(floats.node) + 3 * len(ranges)


def assert_rounded(found, case):
    """Far nearer to the plain network of rounded numbers than rounding is to the network itself; not the same, as what
    lies on the edge between two integers may fall to either."""
    made, _, image, expected = case
    exact = TorchBackend(made, bfloat16=False).raw(image).cpu()
    rounding = (expected - exact).abs().mean()
    assert (found - expected).abs().mean() < 0.1 * rounding
    assert rounding < 0.1 * exact.abs().mean()


@needs_vnni
def test_the_engine_is_the_plain_network_of_rounded_numbers(case):
    made, ranges, image, _ = case
    assert_rounded(Int8Backend(made, ranges).raw(image), case)


def test_so_is_the_graph_on_any_processor(case):
    """Run node by node, in floating point."""
    made, ranges, image, _ = case
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = to_onnx(made, ranges=ranges).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    assert_rounded(torch.from_numpy(found), case)


@needs_vnni
def test_it_has_the_symmetries_of_the_network():
    made = network()
    engine = Int8Backend(made, calibrate(made, images(3)))
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    found, turned = engine.raw(image), engine.raw(image.rot90(1, (2, 3))).rot90(-1, (2, 3))
    logits = slice(0, 3)  # of which none has a direction
    assert (found - turned)[:, logits].abs().mean() < 0.02 * found[:, logits].abs().mean()


@needs_vnni
@pytest.mark.parametrize(("name", "drawn"), [("fluorescence", fluorescence), ("brightfield", tissue)])
def test_an_embedded_model_finds_the_same_nuclei_by_integers(name, drawn):
    model = read(locate(name))
    predictors = [Predictor(model, engine=engine, bfloat16=False) for engine in ("torch", "openvino-int8")]
    same, nuclei = 0, 0
    for seed in range(1, 6):  # on one image alone chance decides
        image = drawn(seed, 256, 256)[0]
        exact, found = (predictor.segment(image).labels for predictor in predictors)
        same += match(exact, found, (0.8,)).tp[0]
        nuclei += max(exact.max(), found.max())
    assert same >= 0.95 * nuclei > 150
