"""The ONNX graph: the same nodes, the same numbers, and the refusal of what has no counterpart."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import nucleate
from nucleate.inference.onnx_graph import IR_VERSION, OPSET, to_onnx
from nucleate.networks.graph import nodes
from nucleate.networks.unet import Architecture, UNet


def network(channels=1, classes=2, widths=(8, 16)):
    torch.manual_seed(0)
    made = UNet(Architecture(channels, classes, widths))
    nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def run(graph, image):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (maps,) = session.run(["maps"], {"image": image.numpy()})
    return torch.from_numpy(maps)


@settings(deadline=None, max_examples=15)
@given(
    channels=st.integers(1, 3),
    classes=st.integers(2, 4),
    widths=st.lists(st.sampled_from([8, 16, 24]), min_size=1, max_size=4),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    batch=st.integers(1, 3),
)
def test_the_graph_is_the_network(channels, classes, widths, sides, batch):
    made = network(channels, classes, tuple(widths))
    stride = made.architecture.stride
    image = torch.randn(batch, channels, sides[0] * stride, sides[1] * stride)
    with torch.no_grad():
        expected = made(image)
    torch.testing.assert_close(run(to_onnx(made), image), expected, atol=1e-4, rtol=1e-4)


def test_each_node_of_the_network_is_one_node_of_the_graph():
    made = UNet()
    walked = nodes(made, made.architecture.channels, made.architecture.stride)
    graph = to_onnx(made).graph
    assert [node.name for node in graph.node] == [node.name for node in walked[1:]]
    weights = sum(int(np.prod(constant.dims)) for constant in graph.initializer if "scales" not in constant.name)
    assert weights == sum(node.parameters for node in nodes(made.folded(), made.architecture.channels))


def test_what_the_file_says_of_itself():
    model = onnx.load_from_string(to_onnx(network(3), {"name": "small", "stride": "4"}).SerializeToString())
    assert (model.producer_name, model.producer_version) == ("nucleate", nucleate.__version__)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"name": "small", "stride": "4"}
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 6, "height", "width"]]


def test_the_network_is_left_as_it_was():
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    to_onnx(made)
    assert made.training and all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


class Other(nn.Module):
    """A network of one further operation."""

    def __init__(self, operation):
        super().__init__()
        self.architecture = Architecture(widths=(8,))
        self.convolution = nn.Conv2d(1, 6, 3, padding=1)
        self.operation = operation

    def forward(self, image):
        return self.operation(self.convolution(image))

    def folded(self):
        return self


@pytest.mark.parametrize(
    "operation",
    [
        torch.tanh,
        lambda x: x + 1.0,
        lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_what_has_no_counterpart_is_refused(operation):
    with pytest.raises(ValueError, match="has no counterpart"):
        to_onnx(Other(operation))


def test_a_sum_of_one_thing_with_itself_counts_it_twice():
    made, image = Other(lambda x: x + x), torch.randn(1, 1, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(run(to_onnx(made), image), made(image), atol=1e-5, rtol=1e-5)
