"""The network as a graph of nodes: units of computation, each with its inputs and its outputs.

`nodes(network)` traces a network once and gives every node with its shape, its cost and its receptive field; `halo`
is what the tiles of a large image must overlap by, and follows from the receptive field of the last node.

A node's receptive field is kept exactly, per axis, as three numbers (Araujo, Norris, Sim, "Computing receptive fields
of convolutional neural networks", 2019, in a form that also holds for sub-pixel rearrangement): element i of the node
sees no other input pixels than jump * i + low ... jump * i + high.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Field:
    """Element i sees input pixels `jump * i + low` to `jump * i + high`, along each axis."""

    jump: Fraction
    low: Fraction
    high: Fraction

    @property
    def size(self) -> int:
        """Width of the receptive field in pixels of the image."""
        return int(self.high - self.low) + 1

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Field:
        """After a convolution or pooling: out[i] reads in[stride * i - padding + dilation * (0 ... kernel - 1)]."""
        return Field(
            self.jump * stride,
            self.low - self.jump * padding,
            self.high + self.jump * (dilation * (kernel - 1) - padding),
        )

    def enlarged(self, factor: int) -> Field:
        """After nearest-neighbour enlargement or sub-pixel rearrangement: out[i] reads in[i // factor]."""
        jump = self.jump / factor
        return Field(jump, self.low - jump * (factor - 1), self.high)

    def united(self, other: Field) -> Field:
        """After an operation that takes two inputs of equal resolution."""
        if self.jump != other.jump:
            raise ValueError(f"inputs at {self.jump} and {other.jump} pixels an element cannot be combined")
        return Field(self.jump, min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Node:
    """One unit of computation.

    `inputs` and `outputs` are the names of the nodes it takes from and gives to; `shape` (channels, height, width)
    for the image size that was traced; `multiply_adds` and `parameters` are counts.
    """

    name: str
    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    field: Field


_tracing = threading.Lock()


class _Tracer(fx.Tracer):
    """Convolutions are nodes; what they do inside (their weights' standardisation) is not.

    While PyTorch traces, each call of a module and each look at its parameters comes here, from other threads, too,
    whose networks have nothing to do with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(network: nn.Module) -> fx.Graph:
    """The operations of a network in the order of computation; a convolution is one."""
    with _tracing:  # of two at once the first to end would leave PyTorch with the other's hooks
        return _Tracer().trace(network)


_ELEMENTWISE: dict[Callable[..., Any], str] = {
    operator.add: "add",
    torch.add: "add",
    F.relu: "relu",
    torch.relu: "relu",
    torch.sqrt: "square root",
    torch.cat: "concatenate",
}


def nodes(network: nn.Module, channels: int, size: int = 256) -> tuple[Node, ...]:
    """The nodes of a network in the order of computation, for images (channels, size, size).

    Raises ValueError where an operation is met whose receptive field is not known here.

    >>> chain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1))
    >>> [(node.name, node.inputs, node.field.size) for node in nodes(chain, channels=1, size=8)]
    [('input_1', (), 1), ('_0', ('input_1',), 3), ('_1', ('_0',), 5)]
    """
    graph = trace(network)
    modules = dict(network.named_modules())
    like = next(network.parameters(), torch.zeros(()))
    shapes = _shapes(network, graph, like.new_zeros(1, channels, size, size))
    fields: dict[fx.Node, Field] = {}
    found = []
    for node in graph.nodes:
        if node.op == "output":
            continue
        sources = node.all_input_nodes
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        operation, fields[node] = _field(node, module, [fields[source] for source in sources])
        _, *shape = shapes[node]
        parameters = sum(p.numel() for p in module.parameters()) if module is not None else 0
        # Of the kernel that is applied, which a module may make from fewer numbers.
        kernel = 0
        if isinstance(module, nn.Conv2d):
            kernel = module.out_channels * module.in_channels // module.groups * math.prod(module.kernel_size)
        found.append(
            Node(
                name=node.name,
                operation=operation,
                inputs=tuple(source.name for source in sources),
                outputs=tuple(user.name for user in node.users if user.op != "output"),
                shape=(shape[0], shape[1], shape[2]),
                parameters=parameters,
                multiply_adds=kernel * shape[1] * shape[2],
                field=fields[node],
            )
        )
    return tuple(found)


def reach(network: nn.Module, channels: int, stride: int) -> int:
    """Pixels of the image beyond a pixel, on any side, that the output there depends on."""
    field = nodes(network, channels, 8 * stride)[-1].field
    # The last node has one element a pixel, but the field of an element may lean to one side by its place in the
    # stride: `low` and `high` hold for every place.
    return int(-(-max(-field.low, field.high) // 1))


def halo(network: nn.Module, channels: int, stride: int) -> int:
    """Pixels that a tile must be read beyond its border: `reach`, rounded up to the network's stride.

    A tile that starts on a multiple of the stride and has this much around it gives, inside, the output that the
    whole image gives.
    """
    return -(-reach(network, channels, stride) // stride) * stride


def _field(node: fx.Node, module: nn.Module | None, inputs: list[Field]) -> tuple[str, Field]:
    if node.op == "placeholder":
        return "image", Field(Fraction(1), Fraction(0), Fraction(0))
    if isinstance(module, nn.Conv2d) and _is_plain(module):
        kernel, stride, padding, dilation = (
            int(value[0]) for value in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        name = f"convolve {kernel}x{kernel}" + (f" / {stride}" if stride > 1 else "")
        return name, inputs[0].through(kernel, stride, padding, dilation)
    if node.target in _ELEMENTWISE:
        united = inputs[0]
        for other in inputs[1:]:
            united = united.united(other)
        return _ELEMENTWISE[node.target], united
    if node.target is F.interpolate and node.kwargs.get("mode") == "nearest":
        scale = node.kwargs.get("scale_factor")
        if isinstance(scale, float | int) and scale >= 1 and scale == int(scale):
            return f"enlarge x{int(scale)}", inputs[0].enlarged(int(scale))
    if node.target in (F.pixel_shuffle, torch.pixel_shuffle):
        factor = cast(int, node.args[1])
        return f"rearrange x{factor}", inputs[0].enlarged(factor)
    raise ValueError(f"the receptive field of node {node.name} ({node.target}) is not known")


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether a convolution is the same along both axes and pads with zeros, a given number of them."""
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    return module.padding_mode == "zeros" and all(not isinstance(p, str) and p[0] == p[1] for p in pairs)


def _shapes(network: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                shapes[n] = tuple(result.shape)
            return result

    with torch.no_grad():
        Recorder(fx.GraphModule(network, graph)).run(example)
    return shapes
