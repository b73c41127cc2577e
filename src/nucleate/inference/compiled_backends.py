"""Engines that compile the network's graph first: ONNX Runtime and OpenVINO.

Both read the graph that `onnx_graph` writes, with height and width open, so that each compiles once for all images;
OpenVINO does so anew for the size of which many are expected, which takes less time and memory. They run on the
processor. The packages are optional (`pip install 'nucleate[engines]'`) and loaded with the first engine.
"""

from __future__ import annotations

import importlib
import threading
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nucleate.errors import InputError
from nucleate.inference.backends import Engine
from nucleate.inference.quantize import Ranges
from nucleate.networks.runtime import prefers_bfloat16
from nucleate.networks.unet import UNet


def load(package: str) -> ModuleType:
    """An optional package. Raises `InputError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"The package {package} is not installed: pip install 'nucleate[engines]'.") from error


Size = tuple[int, int]


class CompiledEngine(Engine):
    """An engine that compiles the network's ONNX graph, once for each number of threads that a call may use."""

    def __init__(self, network: UNet, ranges: Ranges | None = None) -> None:
        super().__init__(network.architecture)
        load("onnx")
        from nucleate.inference.onnx_graph import to_onnx

        self.graph = to_onnx(network, ranges=ranges).SerializeToString()
        self.most = torch.get_num_threads()
        self._lock = threading.Lock()
        self._expected: Size | None = None
        self._compiled: dict[tuple[int, Size | None], Any] = {}
        self.compiled()

    @abstractmethod
    def compile(self, threads: int, size: Size | None) -> Any:
        """What runs the graph for images of this height and width, or of any, in any number of calls at once, each on
        this many threads."""

    def compiled(self, size: Size | None = None) -> Any:
        """That for the calling thread and an image of this size."""
        with self._lock:
            key = torch.get_num_threads(), size if size == self._expected else None
            if key not in self._compiled:
                self._compiled[key] = self.compile(*key)
            return self._compiled[key]


class OnnxEngine(CompiledEngine):
    """Runs a network with ONNX Runtime, in float32."""

    def compile(self, threads: int, size: Size | None) -> Any:
        onnxruntime = load("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def run(self, image: Tensor) -> Tensor:
        (maps,) = self.compiled().run(None, {"image": image.contiguous().numpy()})
        return torch.from_numpy(maps)


class OpenVinoEngine(CompiledEngine):
    """Runs a network with OpenVINO, in bfloat16 where that is faster (or where `bfloat16` says so)."""

    def __init__(self, network: UNet, ranges: Ranges | None = None, *, bfloat16: bool | None = None) -> None:
        self.bfloat16 = bfloat16
        self._requests = threading.local()
        super().__init__(network, ranges)

    def expect(self, height: int, width: int) -> None:
        # The memory of open sizes is twice that of a fixed one. The numbers are the same.
        with self._lock:
            self._expected = height, width
            self._compiled = {key: kept for key, kept in self._compiled.items() if key[1] in (None, self._expected)}

    def compile(self, threads: int, size: Size | None) -> Any:
        core = load("openvino").Core()
        has = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        graph = core.read_model(self.graph)
        if size is not None:
            graph.reshape([1, self.architecture.channels, *size])
        return core.compile_model(graph, "CPU", self.settings(threads, has and prefers_bfloat16(torch.device("cpu"))))

    def settings(self, threads: int, faster: bool) -> dict[str, Any]:
        """OpenVINO's settings for calls of so many threads each; `faster`: bfloat16 is."""
        bfloat16 = faster if self.bfloat16 is None else self.bfloat16
        # A stream is one call at a time; of calls that use fewer threads, as many run at once as threads allow.
        streams = max(1, self.most // threads)
        return {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            # Threads bound to a core wait for it where another process is bound to the same one.
            "ENABLE_CPU_PINNING": False,
        }

    def run(self, image: Tensor) -> Tensor:
        tensor = load("openvino").Tensor
        # Both stay named until the end: OpenVINO works in their memory and does not hold it.
        pixels = image.contiguous().numpy()
        maps = torch.empty(len(image), self.architecture.outputs, *image.shape[-2:])
        request = self._request(image.shape)
        request.set_input_tensor(tensor(pixels, shared_memory=True))
        request.set_output_tensor(tensor(maps.numpy(), shared_memory=True))
        request.infer()
        return maps

    def _request(self, shape: Sequence[int]) -> Any:
        """The calling thread's own; what it takes for its layers serves the next image, too."""
        one, _, height, width = shape
        compiled, held = self.compiled((height, width) if one == 1 else None), self._requests.__dict__
        if held.get("of") is not compiled:
            held.update(of=compiled, request=compiled.create_infer_request())
        return held["request"]


class Int8Engine(OpenVinoEngine):
    """Runs a network with OpenVINO, its convolutions in 8-bit integers and the rest in float32; `ranges` are those of
    `quantisation.calibrate`."""

    def __init__(self, network: UNet, ranges: Ranges) -> None:
        super().__init__(network, ranges, bfloat16=False)
