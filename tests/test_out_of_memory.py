"""Too little memory, in the words of each library, is one sentence with what is known of the need."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nucleate import out_of_memory
from nucleate.errors import NucleateError
from nucleate.out_of_memory import refuse_below, sentence

resource = pytest.importorskip("resource")

HUGE = 2**46


def raised(call):
    with pytest.raises(BaseException) as error:
        call()
    return error.value


def nested():
    try:
        raise MemoryError
    except MemoryError as error:
        raise ImportError("initialization failed") from error


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: np.empty(HUGE, np.uint8), "64.0 TiB more were needed"),
        (lambda: torch.empty(HUGE, dtype=torch.uint8), "65536.0 GiB more were needed"),
        (lambda: bytearray(HUGE), "not enough memory:"),
        (nested, "not enough memory:"),
    ],
    ids=["numpy", "torch", "python", "nested"],
)
def test_what_libraries_raise_is_understood(call, words):
    found = sentence(raised(call))
    assert words in found and found.endswith(".") and "\n" not in found


@pytest.mark.parametrize(("size", "words"), [(3 << 30, "3.0 GiB"), (700 << 20, "700 MiB"), (5000, "1 MiB")])
def test_what_was_asked_for_is_said_in_a_fitting_unit(size, words):
    error = RuntimeError(
        f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {size} bytes. Error code 12"
    )
    assert f"{words} more" in sentence(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("Exception from src/inference/src/cpp/core.cpp:110:\nstd::bad_alloc\n"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
    ids=str,
)
def test_what_libraries_say_is_understood(error):
    assert sentence(error).startswith("there is not enough memory")


@pytest.mark.parametrize(
    "error", [ValueError("bad_alloc"), RuntimeError("shape"), OSError(errno.ENOENT, "no"), KeyError()]
)
def test_other_errors_stand_for_themselves(error):
    assert sentence(error) is None


def test_a_limit_that_is_too_low_is_named(monkeypatch):
    unclear = RuntimeError("Unable to read the model. Please check if the model format is supported.")
    monkeypatch.setattr(out_of_memory, "_limit", lambda: 2**60)
    assert sentence(unclear) is None
    monkeypatch.setattr(out_of_memory, "_limit", lambda: 2**29)
    assert "the process may take 0.5 GiB" in sentence(MemoryError())
    # A process that holds PyTorch takes more than that already.
    assert (sentence(unclear) is not None) == Path("/proc/self/status").exists()
    with pytest.raises(NucleateError, match=r"may take 0\.5 GiB, see ulimit -v, and this needs 1\.0 GiB at least"):
        refuse_below()
    refuse_below(2**29)


@pytest.mark.parametrize("megabytes", [300, 600, 900])
def test_a_command_under_a_limit_ends_in_one_sentence(tmp_path, megabytes):
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    command = [sys.executable, "-m", "nucleate", "predict", "fluorescence", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nucleate: there is not enough memory") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
