"""Without a compiler, and while it is at work, the plain versions do everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALL = """
import torch
from nucleate import losses
torch.manual_seed(0)
x, t = torch.randn(1, 3, 120, 100, requires_grad=True), torch.randint(0, 3, (1, 120, 100))
for loss in (losses.cross_entropy, losses.dice, losses.lovasz_softmax):
    value = loss(x, t)
    value.backward()
    print(loss.__name__, round(value.item(), 5))
print(losses.kl_divergence(p=x, q=x.flip(1)).isfinite().item())
"""


def run(program: str, **environment: str) -> list[str]:
    every = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=every, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_without_numba() -> None:
    missing = "import sys; sys.modules['numba'] = None\n"
    found = run(missing + CALL + "print(losses.warm_up())")
    assert found[-1] == "False"
    assert found[:-1] == run("from nucleate import losses; losses.warm_up()\n" + CALL)


def test_without_a_folder_for_the_cache(tmp_path: pytest.TempPathFactory) -> None:
    refused = (
        "import numba.core.caching as c\n"
        "def no(*a, **k): raise RuntimeError('cannot cache function: no locator available')\n"
        "c.CacheImpl.__init__ = no\n"
    )
    assert run(refused + CALL + "print(losses.warm_up())")[-1] == "False"


def test_the_first_call_does_not_wait_for_the_compiler() -> None:
    """The import of the kernels is held up; the loss has its value all the same, and uses them afterwards."""
    held = """
import importlib, threading
from nucleate.losses.kernels import dispatch
gate, real = threading.Event(), importlib.import_module
def wait(name, *more):
    if name.startswith("nucleate"):
        gate.wait()
    return real(name, *more)
dispatch.importlib.import_module = wait
"""
    after = """
assert losses.cross_entropy(x, t).grad_fn.next_functions[0][0].name() != "TotalBackward"
gate.set()
for thread in threading.enumerate():
    if thread.name == "nucleate-losses-compiler":
        thread.join()
print(losses.cross_entropy(x, t).grad_fn.next_functions[0][0].name())
"""
    assert run(held + CALL + after)[-1] == "TotalBackward"
