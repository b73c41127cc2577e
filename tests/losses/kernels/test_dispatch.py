"""When kernels are used: the first loss decides for the whole process, from what the cache holds, and never waits."""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.losses.test_every_loss import CASES, call

from nucleate import losses
from nucleate.code_folder import NAME
from nucleate.losses import binary, lovasz
from nucleate.losses.kernels import background, blocks, dispatch, memory, row_blocks

CALL = """
import hashlib, sys
import torch
from nucleate import losses
torch.manual_seed(0)
x, t = torch.randn(2, 3, 120, 100, requires_grad=True), torch.randint(0, 3, (2, 120, 100))

def bits():
    (gradient,) = torch.autograd.grad(value := losses.lovasz_softmax(x, t), x)
    return hashlib.sha256(value.detach().numpy().tobytes() + gradient.numpy().tobytes()).hexdigest()
"""


def run(program: str, cache: Path, **changed: str) -> list[str]:
    """What the program writes, word by word; it must not write any warning."""
    own = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(cache)}
    environment = {**own, "NUCLEATE_BACKGROUND": "0", **changed}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@dataclass(frozen=True)
class Warm:
    """A cache that holds the kernels of Lovász, the bits of the process that compiled them, and the plain ones."""

    cache: Path
    compiled: str
    plain: str


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    cache = tmp_path_factory.mktemp("warm")
    program = "print(bits(), losses.warm_up('lovasz_hinge'), bits())\nwith losses.use_kernels(False): print(bits())"
    before, ready, compiled, plain = run(CALL + program, cache)
    assert [before, ready] == [plain, "True"]
    assert plain != compiled  # else this would say nothing of the kernels
    return Warm(cache, compiled, plain)


def test_without_kernels_at_the_first_loss_the_plain_version_does_all_the_work(warm: Warm, tmp_path: Path) -> None:
    """Also when they lie in the cache a moment later; `warm_up` alone changes it."""
    late = f"""
import os, pathlib, shutil
print(bits(), 'numba' in sys.modules)
shutil.copytree({str(warm.cache)!r}, os.environ['NUMBA_CACHE_DIR'], dirs_exist_ok=True)
print(bits(), losses.warm_up('lovasz_softmax'), bits())
"""
    assert run(CALL + late, tmp_path) == [warm.plain, "False", warm.plain, "True", warm.compiled]


def test_a_kernel_that_was_harmed_is_not_compiled_by_a_loss(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(mode=0o700)
    for path in (warm.cache / NAME).iterdir():
        (tmp_path / NAME / path.name).write_bytes(b"" if "survey" in path.name else path.read_bytes())
    assert run(CALL + "print(bits())", tmp_path) == [warm.plain]


@pytest.mark.parametrize(
    "without",
    [
        "sys.modules['numba'] = None",
        "import os; os.environ['NUMBA_DISABLE_JIT'] = '1'",
        "import numba.core.caching as c\ndef no(*a): raise RuntimeError('no locator')\nc.CacheImpl.__init__ = no",
    ],
    ids=["no numba", "no JIT", "no locator"],
)
def test_without_a_compiler(warm: Warm, without: str) -> None:
    program = f"import sys; {without}\n{CALL}print(bits(), losses.warm_up(), losses.warm_up('hinge'))"
    assert run(program, warm.cache) == [warm.plain, "False", "True"]


def test_every_process_thread_fork_and_worker_computes_the_same_bits(warm: Warm) -> None:
    """The bits of the process that compiled; the first calls come from several threads at once."""
    program = """
from concurrent.futures import ThreadPoolExecutor
import multiprocessing as mp
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads

class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return bits()

def in_a_fork():
    with mp.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:  # more hang in torch itself
        return pool.starmap_async(bits, [()] * 4).get(60)

def from_a_loader():
    loader = torch.utils.data.DataLoader(Data(), num_workers=2, timeout=60, multiprocessing_context="fork")
    return [one for batch in loader for one in batch]

with ThreadPoolExecutor(4) as pool:
    print(*pool.map(lambda _: bits(), range(8)))
for threads in (2, 1):
    torch.set_num_threads(threads)
    print(bits(), *in_a_fork(), *from_a_loader())  # one after the other: torch hangs where it is forked in the middle
"""
    assert {*run(CALL + program, warm.cache)} == {warm.compiled}


def test_a_fork_waits_for_a_thread_that_makes_kernels_ready() -> None:
    """It would inherit locks that nobody opens again; here a module of kernels is a slow one."""
    program = """
import os, threading, time
from nucleate.losses.kernels import dispatch
reached = threading.Event()

def slowly(name):
    reached.set()
    time.sleep(0.5)
    return threading

dispatch._imported = slowly
other = threading.Thread(target=losses.warm_up, args=("dice",))
other.start()
reached.wait()
child = os.fork()
if child == 0:
    os._exit(0 if dispatch.kernels("overlap") is threading else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run("import warnings; warnings.simplefilter('ignore')\n" + CALL + program, Path(os.devnull)) == ["0"]


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Path]:
    """The lock of the process that compiles in the background; where it runs, it is ended."""
    path = tmp_path / NAME / "background.tmp.lock"
    yield path
    if path.exists() and (number := path.read_text()):
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def test_the_first_loss_starts_one_process_that_compiles_for_the_next_program(lock: Path, tmp_path: Path) -> None:
    first = run(CALL + "print(bits())", tmp_path, NUCLEATE_BACKGROUND="1")
    number = int(lock.read_text())
    assert [os.getpriority(os.PRIO_PROCESS, number), os.getsid(number) == os.getsid(0), is_free(lock)] == [
        19,
        False,
        False,
    ]
    again = run(CALL + "print(bits())", tmp_path, NUCLEATE_BACKGROUND="1")
    assert [again, int(lock.read_text())] == [first, number]  # and no second one beside it
    os.kill(number, signal.SIGKILL)
    for _ in range(200):
        if is_free(lock):
            return
        time.sleep(0.05)
    pytest.fail("a process that was killed keeps its lock")


def test_it_ends_where_the_folder_is_gone(lock: Path, tmp_path: Path) -> None:
    lock.parent.mkdir()
    command = [sys.executable, "-P", background.__file__, str(lock)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(command, env=environment, check=True)
    number = int(lock.read_text())
    shutil.rmtree(lock.parent)
    for _ in range(400):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            assert not lock.parent.exists()
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


@pytest.fixture
def started(lock: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands that `start` runs, in place of running them."""
    commands: list[list[str]] = []
    lock.parent.mkdir()
    monkeypatch.setenv("NUCLEATE_BACKGROUND", "1")
    monkeypatch.setattr(background, "folder", lambda: lock.parent)
    monkeypatch.setattr(background.subprocess, "run", lambda command, **_: commands.append(command))
    background.start.cache_clear()
    yield commands
    background.start.cache_clear()


def refuse(*_: object) -> None:
    raise PermissionError


PREVENTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "switched off": lambda patch: patch.setenv("NUCLEATE_BACKGROUND", "0"),
    "a program with a Python of its own": lambda patch: patch.setattr(sys, "executable", "/opt/program"),
    "a frozen program": lambda patch: patch.setattr(sys, "frozen", True, raising=False),
    "no numba": lambda patch: patch.setitem(sys.modules, "numba", None),
    "no folder": lambda patch: patch.setattr(background, "folder", lambda: None),
    "a folder that may not be written": lambda patch: patch.setattr(Path, "open", refuse),
    "no locks": lambda patch: patch.setattr(background, "fcntl", None),
}


@pytest.mark.parametrize("prevent", PREVENTED.values(), ids=list(PREVENTED))
def test_none_is_started(
    prevent: Callable[[pytest.MonkeyPatch], None], started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prevent(monkeypatch)
    background.start()
    assert started == []


def test_none_is_started_where_kernels_are_turned_off(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_loaded", {})
    monkeypatch.setattr(dispatch, "_found", None)
    logits, target = torch.randn(2, 3, 120, 100), torch.randint(0, 3, (2, 120, 100))
    with losses.use_kernels(False):
        losses.dice(logits, target)
    assert started == []
    for _ in range(2):
        losses.dice(logits, target)
    assert len(started) == 1


def test_the_kernels_of_each_loss_are_those_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case of the catalogue, as if it were large; none is at hand, so the plain versions do the work."""

    class Asked(dict[str, None]):
        def __contains__(self, name: object) -> bool:
            found[case.loss].add(str(name))
            return True

    found: dict[str, set[str]] = defaultdict(set)
    monkeypatch.setattr(dispatch, "_loaded", Asked())
    monkeypatch.setattr(memory, "layout_of", lambda *_: memory.Layout(True, 1, 1, 1, 2, 1))
    monkeypatch.setattr(lovasz, "_FEWEST", 0)
    monkeypatch.setattr(binary, "_FEWEST", 0)
    for case, fewest in itertools.product(CASES, (0, math.inf)):
        monkeypatch.setattr(blocks, "_FEWEST", fewest)
        monkeypatch.setattr(row_blocks, "FEWEST", fewest)
        unweighed = {"weight": None} if "weight" in case.options else {}
        call(case, **{name: x.detach() for name, x in case.leaves(torch.float32).items()}, **unweighed)
    assert found == {loss: {*modules} for loss, modules in dispatch._USED.items()}


def test_a_name_that_is_no_loss_is_refused() -> None:
    with pytest.raises(losses.LossInputError, match="no loss named 'cross_entrpy'; did you mean cross_entropy"):
        losses.warm_up("cross_entrpy")
    with pytest.raises(losses.LossInputError, match="no loss named 'overlap'"):  # which is a module of kernels
        losses.warm_up("overlap")
