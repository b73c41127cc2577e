"""Every engine gives what PyTorch gives, whoever else runs, on images of any size."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nucleate.data.normalization import normalise
from nucleate.data.synthetic.microscopy import fluorescence, tissue
from nucleate.errors import InputError
from nucleate.inference import backends
from nucleate.inference.backends import Int8Backend, OpenVinoBackend, TorchBackend, load
from nucleate.inference.quantize import calibrate
from nucleate.networks.unet import Architecture, UNet

COMPILED = (OpenVinoBackend,)
BFLOAT16 = 0.05
"""Of the largest output: how far bfloat16, whose numbers have 8 bits, may be from float32."""


def network(channels=1, classes=2, widths=(8, 16)):
    torch.manual_seed(0)
    made = UNet(Architecture(channels, classes, widths))
    nn.init.normal_(made.heads.maps.weight, std=0.3)
    return made


def exact(kind, made):
    """An engine of this kind in float32."""
    return kind(made, bfloat16=False)


@pytest.fixture(scope="module", params=COMPILED)
def pair(request):
    """An engine and PyTorch's, of one network, in float32."""
    made = network()
    return exact(request.param, made), TorchBackend(made, bfloat16=False)


def ranges():
    return calibrate(network(), [2 * np.ones((1, 32, 32), np.float32)])


@pytest.fixture(scope="module", params=[*COMPILED, Int8Backend])
def engine(request):
    """An engine of each kind, also of the one that does not give PyTorch's numbers."""
    return Int8Backend(network(), ranges()) if request.param is Int8Backend else exact(request.param, network())


@pytest.fixture
def threads():
    """Two threads, also where the process was given one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 10**6))
def test_any_image_gives_what_pytorch_gives(pair, height, width, seed):
    image = 2 * torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    found, expected = (engine.raw(image).cpu() for engine in pair)
    assert found.dtype == torch.float32 and found.shape == (1, 6, height, width)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize(("draw", "channels", "classes"), [(fluorescence, 1, 2), (tissue, 3, 3)])
def test_drawn_images_give_the_maps_that_pytorch_gives(kind, draw, channels, classes):
    made = network(channels, classes, widths=(16, 16, 16))
    image = normalise(draw(3, 90, 110)[0], channels)
    found, expected = (engine(image) for engine in (exact(kind, made), TorchBackend(made, bfloat16=False)))
    for name in ("foreground", "heat", "offset", "radius"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-3)


def test_the_default_network_is_run_by_all():
    made, image = UNet(), torch.rand(1, Architecture().channels, 3 * Architecture().stride, 40)
    expected = TorchBackend(made, bfloat16=False).raw(image).cpu()
    for kind in COMPILED:
        torch.testing.assert_close(exact(kind, made).raw(image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bfloat16", [True, None])
def test_bfloat16_is_near_float32(bfloat16):
    made, image = network(), torch.randn(1, 1, 64, 48)
    found = OpenVinoBackend(made, bfloat16=bfloat16).raw(image)
    expected = TorchBackend(made, bfloat16=False).raw(image).cpu()
    assert (found - expected).abs().max() < BFLOAT16 * expected.abs().max()


def test_results_are_the_same_bits_whoever_else_runs(engine, threads):
    images = [torch.rand(1, 1, 32 + 8 * n, 40) for n in range(6)]
    alone = [engine.raw(image) for image in images]
    together = threading.Barrier(3)

    def work(image):
        together.wait(timeout=60)
        return engine.raw(image)

    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for found, expected in zip(pool.map(work, images), alone, strict=True):
            assert torch.equal(found, expected)


def test_a_result_outlives_the_next_call(engine):
    first = engine.raw(torch.ones(1, 1, 16, 16))
    before = first.clone()
    engine.raw(torch.zeros(1, 1, 16, 16))
    assert torch.equal(first, before)


def test_an_image_that_is_a_part_of_another_is_read_where_it_is(pair):
    large = torch.rand(1, 1, 40, 60)
    part = large[..., 8:24, 20:44]
    found, expected = (engine.run(part).cpu() for engine in pair)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_compiled_once_for_each_number_of_threads(threads):
    compiled = []

    class Counting(OpenVinoBackend):
        def _compile(self, threads, size):
            compiled.append(threads)
            return super()._compile(threads, size)

    engine, image = Counting(network()), torch.zeros(1, 1, 8, 8)
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(engine.raw, [image] * 8))
    engine.raw(image)
    assert compiled == [2, 1]


@pytest.mark.parametrize("numbers", ["bfloat16", "float32", "integers"])
def test_a_size_that_is_expected_is_compiled_for_itself_and_gives_the_same_bits(numbers):
    compiled = []

    class Counting(OpenVinoBackend):
        def _compile(self, threads, size):
            compiled.append(size)
            return super()._compile(threads, size)

    engine = Counting(network(), ranges() if numbers == "integers" else None, bfloat16=numbers == "bfloat16")
    images = [torch.randn(1, 1, *size) for size in ((24, 40), (40, 24), (32, 32))]
    before = [engine.raw(image) for image in images]
    for size in ((24, 40), (32, 32), (24, 40)):
        engine.expect(*size)
        assert all(torch.equal(engine.raw(image), found) for image, found in zip(images, before, strict=True))
        assert torch.equal(engine.raw(torch.cat([images[0], images[0]]))[1:], before[0]), "and several at once"
    assert compiled == [None, (24, 40), (32, 32), (24, 40)], "one is kept beside that for all sizes"


@pytest.mark.parametrize(("each", "streams"), [(2, 1), (1, 2), (4, 1)])
def test_a_stream_for_each_call_that_runs_at_once(threads, each, streams):
    found = OpenVinoBackend(network()).settings(each)
    assert (found["NUM_STREAMS"], found["INFERENCE_NUM_THREADS"]) == (streams, streams * each)


@pytest.mark.parametrize("asked", [True, False, None])
@pytest.mark.parametrize("faster", [True, False])
def test_bfloat16_where_it_is_faster_or_where_asked_for(monkeypatch, asked, faster):
    """Whether OpenVINO has it on this processor or not, it is not used where float32 is faster."""
    monkeypatch.setattr(backends, "prefers_bfloat16", lambda where: faster)
    has = "BF16" in load("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    expected = has and faster if asked is None else asked
    engine = OpenVinoBackend(network(), bfloat16=asked)
    assert engine.settings(1)["INFERENCE_PRECISION_HINT"] == ("bf16" if expected else "f32")
    assert engine.describe() == {"engine": "openvino", "number_format": "bfloat16" if expected else "float32"}


@pytest.mark.parametrize("missing", ["onnx", "openvino"])
def test_a_package_that_is_not_installed_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError) as refused:
        OpenVinoBackend(network())
    assert str(refused.value) == f"The package {missing} is not installed: pip install 'nucleate[engines]'."


def test_every_engine_says_what_its_results_depend_on():
    found = [one.describe() for one in (TorchBackend(network(), bfloat16=False), Int8Backend(network(), ranges()))]
    assert found == [
        {"engine": "torch", "number_format": "float32"},
        {"engine": "openvino-int8", "number_format": "int8"},
    ]


def test_what_is_installed_is_loaded():
    assert load("json").loads("[1]") == [1]


IN_A_THREAD_OF_C = """
import ctypes, threading
import torch
from nucleate.inference.backends import OpenVinoBackend
from nucleate.networks.unet import Architecture, UNet

engine = OpenVinoBackend(UNet(Architecture(1, 2, (8, 16))), bfloat16=False)
done = threading.Event()

@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def work(_):
    print(tuple(engine.run(torch.ones(1, 1, 32, 32)).shape), flush=True)

thread = ctypes.c_ulong()
assert ctypes.CDLL(None).pthread_create(ctypes.byref(thread), None, work, None) == 0
ctypes.CDLL(None).pthread_join(thread, None)
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="makes its thread with the C library of Linux")
def test_threads_that_python_did_not_make_end_well():
    """As those of Qt: what Python frees at their end must hold nothing of OpenVINO, which would end the process."""
    done = subprocess.run([sys.executable, "-c", IN_A_THREAD_OF_C], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[1] == "went on"
