"""Engines that compile the network's graph first: ONNX Runtime and OpenVINO.

Both read the graph that `onnx_graph` writes and leave height and width open, so each compiles once for all images. They
run on the processor. The packages are optional (`pip install 'nucleate[engines]'`) and loaded with the first engine.
"""

from __future__ import annotations

import importlib
import threading
from abc import abstractmethod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nucleate.errors import InputError
from nucleate.networks.unet import UNet
from nucleate.prediction.engine import Engine


def load(package: str) -> ModuleType:
    """An optional package. Raises `InputError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"The package {package} is not installed: pip install 'nucleate[engines]'.") from error


class CompiledEngine(Engine):
    """An engine that compiles the network's ONNX graph, once for each number of threads that a call may use."""

    def __init__(self, network: UNet) -> None:
        super().__init__(network.architecture)
        load("onnx")
        from nucleate.prediction.onnx_graph import to_onnx

        self.graph = to_onnx(network).SerializeToString()
        self.most = torch.get_num_threads()
        self._lock = threading.Lock()
        self._compiled: dict[int, Any] = {}
        self.compiled()

    @abstractmethod
    def compile(self, threads: int) -> Any:
        """What runs the graph, in any number of calls at once, each on this many threads."""

    def compiled(self) -> Any:
        """That for the calling thread."""
        threads = torch.get_num_threads()
        with self._lock:
            if threads not in self._compiled:
                self._compiled[threads] = self.compile(threads)
            return self._compiled[threads]


class OnnxEngine(CompiledEngine):
    """Runs a network with ONNX Runtime, in float32."""

    def compile(self, threads: int) -> Any:
        onnxruntime = load("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def run(self, image: Tensor) -> Tensor:
        (maps,) = self.compiled().run(None, {"image": image.contiguous().numpy()})
        return torch.from_numpy(maps)


class OpenVinoEngine(CompiledEngine):
    """Runs a network with OpenVINO, in bfloat16 where the processor has it (or where `bfloat16` says so)."""

    def __init__(self, network: UNet, *, bfloat16: bool | None = None) -> None:
        self.bfloat16 = bfloat16
        self._requests = threading.local()
        super().__init__(network)

    def compile(self, threads: int) -> Any:
        core = load("openvino").Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return core.compile_model(core.read_model(self.graph), "CPU", self.settings(threads, native))

    def settings(self, threads: int, native: bool) -> dict[str, Any]:
        """OpenVINO's settings for calls of so many threads each; `native`: the processor has bfloat16."""
        bfloat16 = native if self.bfloat16 is None else self.bfloat16
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
        request = self._request()
        request.set_input_tensor(tensor(pixels, shared_memory=True))
        request.set_output_tensor(tensor(maps.numpy(), shared_memory=True))
        request.infer()
        return maps

    def _request(self) -> Any:
        """The calling thread's own; what it takes for its layers serves the next block, too."""
        compiled, held = self.compiled(), self._requests.__dict__
        if held.get("of") is not compiled:
            held.update(of=compiled, request=compiled.create_infer_request())
        return held["request"]
