"""The network as an ONNX graph, node for node: what OpenVINO and other programs read.

ONNX (Open Neural Network Exchange, opset 17) describes the same graph of nodes as `networks.graph` walks: each
convolution, addition and enlargement becomes the ONNX operator of that meaning. Batch, height and width stay open.
With ranges, convolutions are in 8-bit integers: see `inference.quantize`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional as F

import nucleate
from nucleate.inference.backends import Ranges
from nucleate.inference.quantize import input_scale, quantised
from nucleate.networks.graph import trace
from nucleate.networks.unet import UNet

OPSET, IR_VERSION = 17, 8
"""Of 2022: read by every runtime since, and rich enough for this network."""

INPUT, OUTPUT = "image", "maps"
"""The names of the graph's input (batch, channels, height, width) and output (batch, classes + 4, height, width)."""

_OPERATORS: dict[Callable[..., Any], str] = {
    operator.add: "Add",
    torch.add: "Add",
    F.relu: "Relu",
    torch.relu: "Relu",
    torch.sqrt: "Sqrt",
}
"""Operations of one meaning whose arguments are all tensors."""


def to_onnx(
    network: UNet, metadata: Mapping[str, str] | None = None, *, ranges: Ranges | None = None
) -> onnx.ModelProto:
    """The folded network as an ONNX model, with `metadata` in its `metadata_props`; the convolutions that `ranges`
    names are in 8-bit integers.

    >>> from nucleate.networks.unet import Architecture
    >>> model = to_onnx(UNet(Architecture(channels=3, widths=(8, 8))))
    >>> [dimension.dim_param or dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    ['batch', 3, 'height', 'width']

    Raises ValueError where the network holds an operation that has no counterpart here.
    """
    architecture = network.architecture
    graph = _Builder(network.folded().cpu(), ranges or {})
    body = helper.make_graph(
        graph.nodes,
        "nucleate",
        [_open(INPUT, architecture.channels)],
        [_open(OUTPUT, architecture.outputs)],
        graph.constants,
    )
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nucleate",
        producer_version=nucleate.__version__,
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def _open(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, "height", "width"])


class _Builder:
    """Walks the traced nodes in the order of computation; `nodes` and `constants` are those of the ONNX graph."""

    def __init__(self, network: nn.Module, ranges: Ranges) -> None:
        self.ranges = ranges
        self.modules = dict(network.named_modules())
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names: dict[fx.Node, str] = {}
        for node in trace(network).nodes:
            if node.op != "output":
                last = any(user.op == "output" for user in node.users)
                self.names[node] = INPUT if node.op == "placeholder" else OUTPUT if last else node.name
            if node.op in ("call_module", "call_function"):
                self._add(node, self.modules.get(str(node.target)))

    def _add(self, node: fx.Node, module: nn.Module | None) -> None:
        tensors = [argument for argument in node.args if isinstance(argument, fx.Node)]
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            self._convolution(node, tensors, module)
        elif node.target in _OPERATORS and len(tensors) == len(node.args):
            self._node(_OPERATORS[node.target], node, tensors)
        elif node.target is torch.cat:
            self._node("Concat", node, node.args[0], axis=node.kwargs["dim"])
        elif node.target is F.interpolate and node.kwargs["mode"] == "nearest":
            factor = node.kwargs["scale_factor"]
            scales = self._constant(f"{node.name}.scales", np.array([1, 1, factor, factor], np.float32))
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            self._node("Resize", node, tensors, "", scales, **how)
        elif node.target is F.pixel_shuffle:
            self._node("DepthToSpace", node, tensors, blocksize=node.args[1], mode="CRD")
        else:
            raise ValueError(f"node {node.name} ({node.target}) has no counterpart in ONNX here")

    def _convolution(self, node: fx.Node, tensors: list[fx.Node], module: nn.Conv2d) -> None:
        x, weight = self.names[tensors[0]], module.weight.detach().numpy()
        bias = np.zeros(len(weight), np.float32) if module.bias is None else module.bias.detach().numpy()
        limits = self.ranges.get(str(node.target))
        if limits is None:
            kernel = self._constant(f"{node.name}.weight", weight)
        else:
            x, kernel = self._by_integers(node.name, x, weight, limits)
            # Where all are 0, OpenVINO 2026.4 leaves the bias out, and then scales one of two branches twice.
            bias = np.where(bias.any(), bias, np.finfo(np.float32).tiny)
        padding = [int(padding) for padding in module.padding]
        how = {"strides": module.stride, "dilations": module.dilation, "group": module.groups}
        self._node(
            "Conv", node, [], x, kernel, self._constant(f"{node.name}.bias", bias), pads=padding + padding, **how
        )

    def _by_integers(
        self, name: str, x: str, weight: NDArray[np.float32], limits: tuple[float, float]
    ) -> tuple[str, str]:
        """What a convolution reads in place of its input x and its kernel: the numbers that 8-bit integers stand for.
        A runtime that finds both multiplies the integers themselves."""
        scale, kind = input_scale(*limits)
        grid = self._grid(f"{name}.input", np.asarray(scale), np.zeros((), kind))
        x = self._step(f"{name}.quantised", "QuantizeLinear", x, *grid)
        x = self._step(f"{name}.input", "DequantizeLinear", x, *grid)
        integers, scales = quantised(weight)
        grid = self._grid(f"{name}.kernel", scales, np.zeros(scales.shape, np.int8))
        stored = self._constant(f"{name}.weight", integers)
        return x, self._step(f"{name}.kernel", "DequantizeLinear", stored, *grid, axis=0)

    def _grid(self, name: str, scale: NDArray[np.float32], zero: NDArray[Any]) -> tuple[str, str]:
        """The scale of integers, and the one that stands for 0, in their type."""
        return self._constant(f"{name}.scale", scale), self._constant(f"{name}.zero", zero)

    def _step(self, name: str, operation: str, *inputs: str, **attributes: Any) -> str:
        """A node that the network itself does not have, and its output."""
        self.nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def _node(self, operation: str, node: fx.Node, tensors: Any, *constants: str, **attributes: Any) -> None:
        inputs = [*(self.names[tensor] for tensor in tensors), *constants]
        self.nodes.append(helper.make_node(operation, inputs, [self.names[node]], name=node.name, **attributes))
