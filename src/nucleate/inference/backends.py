"""What runs the network: image -> maps, and nothing else of the prediction.

PyTorch and OpenVINO. OpenVINO reads the graph that `onnx_graph` writes, with height and width open, so that it
compiles once for all images; for a size of which many are expected it compiles anew, which takes less time and memory.
It runs on the processor; its packages are optional (`pip install 'nucleate[engines]'`) and loaded when needed.
"""

from __future__ import annotations

import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nucleate.errors import InputError
from nucleate.inference.sliding_window import SlidingWindow
from nucleate.networks.decode import to_maps
from nucleate.networks.graph import reach
from nucleate.networks.runtime import autocast, device, place, prefers_bfloat16
from nucleate.networks.unet import Architecture, UNet
from nucleate.types import Box, Maps


class Backend(ABC):
    """Runs a network. Called with a normalised image (channels, H, W) of any size from 1 x 1, it gives its `Maps`.

    Where the nuclei are small, the image is enlarged for the network, where they are large it is reduced, and the maps
    are brought back to its own size; see `postprocess.rescale`. An engine may be called by several threads at
    once. Each call uses as many threads as PyTorch has in the thread that calls (`torch.set_num_threads`), and its
    result does not depend on the others.
    """

    name: str
    """What `--engine` calls it."""

    def __init__(self, architecture: Architecture, *, bfloat16: bool) -> None:
        self.architecture, self.bfloat16 = architecture, bfloat16

    @property
    def number_format(self) -> str:
        """Of the products: float32, bfloat16 or int8."""
        return "bfloat16" if self.bfloat16 else "float32"

    def describe(self) -> dict[str, str]:
        """What the result depends on besides the model and the image, for JSON."""
        return {"engine": self.name, "number_format": self.number_format}

    @abstractmethod
    def run(self, image: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W) of an image (1, channels, H, W), float32; H and W are multiples of
        the network's stride."""

    def expect(self, height: int, width: int) -> None:  # noqa: B027 - not abstract: most engines need not get ready
        """Many images of this size, multiples of the network's stride, follow one another: an engine that is faster
        when it knows gets ready for them."""

    @torch.inference_mode()
    def raw(self, image: Tensor) -> Tensor:
        """Network output (1, classes + 4, H, W), float32, of an image (1, channels, H, W).

        The image is padded with zeros to a multiple of the network's stride, which is also what convolutions see
        beyond the border.
        """
        height, width = image.shape[-2:]
        stride = self.architecture.stride
        return self.run(F.pad(image, (0, -width % stride, 0, -height % stride)))[..., :height, :width]

    def __call__(self, image: NDArray[np.float32]) -> Maps:
        return to_maps(self.zoomed(torch.from_numpy(image)[None]), self.architecture.classes)

    def zoomed(self, image: Tensor) -> Tensor:
        """As `raw`, of the image resized by the factor that suits its nuclei; for the image's own pixels."""
        shape = image.shape[-2], image.shape[-1]

        def read(box: Box) -> Tensor:
            return image[..., *box.within(Box(0, 0, *shape))]

        return SlidingWindow.plan(self, shape, read).whole(read)

    @cached_property
    def reach(self) -> int:
        """Pixels beyond a pixel that the output there depends on; see `networks.graph`."""
        with torch.random.fork_rng(devices=()):
            network = UNet(self.architecture)
        return reach(network, self.architecture.channels, self.architecture.stride)


class TorchBackend(Backend):
    """Runs a network with PyTorch: channels-last, in bfloat16 where that is faster (or where `bfloat16` says so)."""

    name = "torch"

    def __init__(self, network: UNet, *, bfloat16: bool | None = None) -> None:
        self.device = device()
        super().__init__(network.architecture, bfloat16=prefers_bfloat16(self.device) if bfloat16 is None else bfloat16)
        self.network = place(network.folded(), self.device)

    @torch.inference_mode()
    def run(self, image: Tensor) -> Tensor:
        placed = image.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, bfloat16=self.bfloat16):
            maps: Tensor = self.network(placed)
        return maps.float()


def load(package: str) -> ModuleType:
    """An optional package. Raises `InputError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"The package {package} is not installed: pip install 'nucleate[engines]'.") from error


Size = tuple[int, int]
Ranges = Mapping[str, tuple[float, float]]
"""By a convolution's name, the lowest and the highest value of its input that is not clipped; see `quantize`."""


class OpenVinoBackend(Backend):
    """Runs a network with OpenVINO, in bfloat16 where that is faster (or where `bfloat16` says so)."""

    name = "openvino"

    def __init__(self, network: UNet, ranges: Ranges | None = None, *, bfloat16: bool | None = None) -> None:
        load("onnx")
        from nucleate.inference.onnx_graph import to_onnx

        super().__init__(network.architecture, bfloat16=_faster_in_bfloat16() if bfloat16 is None else bfloat16)
        self.graph = to_onnx(network, ranges=ranges).SerializeToString()
        self.most = torch.get_num_threads()
        self._lock = threading.Lock()
        self._idle: list[tuple[Any, Any]] = []  # what was compiled, and a request of it that no thread is using
        self._expected: Size | None = None
        self._compiled: dict[tuple[int, Size | None], Any] = {}
        self.compiled()

    def compiled(self, size: Size | None = None) -> Any:
        """What runs the graph on as many threads as the calling thread may use, for an image of this size or of any."""
        with self._lock:
            key = torch.get_num_threads(), size if size == self._expected else None
            if key not in self._compiled:
                self._compiled[key] = self._compile(*key)
            return self._compiled[key]

    def expect(self, height: int, width: int) -> None:
        # The memory of open sizes is twice that of a fixed one. The numbers are the same.
        with self._lock:
            self._expected = height, width
            self._compiled = {key: kept for key, kept in self._compiled.items() if key[1] in (None, self._expected)}

    def _compile(self, threads: int, size: Size | None) -> Any:
        core = load("openvino").Core()
        graph = core.read_model(self.graph)
        if size is not None:
            graph.reshape([1, self.architecture.channels, *size])
        return core.compile_model(graph, "CPU", self.settings(threads))

    def settings(self, threads: int) -> dict[str, Any]:
        """OpenVINO's settings for calls of so many threads each."""
        # A stream is one call at a time; of calls that use fewer threads, as many run at once as threads allow.
        streams = max(1, self.most // threads)
        return {
            "INFERENCE_PRECISION_HINT": "bf16" if self.bfloat16 else "f32",
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
        one, _, height, width = image.shape
        with self._request(self.compiled((height, width) if one == 1 else None)) as request:
            request.set_input_tensor(tensor(pixels, shared_memory=True))
            request.set_output_tensor(tensor(maps.numpy(), shared_memory=True))
            request.infer()
        return maps

    @contextmanager
    def _request(self, compiled: Any) -> Iterator[Any]:
        """A request for this thread alone; what it takes for its layers serves the next image, too."""
        # None is left to be freed at the end of its thread: in a thread that Qt or C has made, that ends the process.
        with self._lock:
            self._idle = [one for one in self._idle if one[0] is compiled]
            request = self._idle.pop()[1] if self._idle else None
        request = request or compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._idle.append((compiled, request))


class Int8Backend(OpenVinoBackend):
    """Runs a network with OpenVINO, its convolutions in 8-bit integers and the rest in float32; `ranges` are those of
    `quantize.calibrate`."""

    name = "openvino-int8"
    number_format = "int8"

    def __init__(self, network: UNet, ranges: Ranges) -> None:
        super().__init__(network, ranges, bfloat16=False)


def _faster_in_bfloat16() -> bool:
    """Whether OpenVINO, too, can compute in bfloat16 on this processor, where that is the faster format."""
    capabilities = load("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities and prefers_bfloat16(torch.device("cpu"))
