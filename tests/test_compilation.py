"""Compiled code and its cache: whatever is done to the files, a function is compiled, and altered code is never run."""

import os
import resource
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from nucleate import code_folder, compilation
from nucleate.errors import CacheWarning


def double(x):
    return 2 * x


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of its own; the second place is where code is kept if the first one will not do."""
    monkeypatch.setattr(code_folder, "places", lambda: [tmp_path / "first", tmp_path / "second"])
    forget()
    yield tmp_path / "first" / code_folder.NAME
    forget()


def forget():
    code_folder.folder.cache_clear()
    compilation._warn.cache_clear()


def compile_again():
    """As the next process does it: whether the code was loaded."""
    forget()
    made = compilation.compiled(double, "int64(int64)")
    assert made(21) == 42
    return bool(made.stats.cache_hits)


def test_code_is_compiled_once_and_loaded_from_then_on(place):
    assert [compile_again(), compile_again()] == [False, True]
    assert sorted(path.suffix for path in place.iterdir()) == [".nbc", ".nbi"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_numba_can_be_told_where(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert next(code_folder.places()) == tmp_path


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def folder_in_its_place(path):
    path.unlink()
    path.mkdir()


HARMS = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "first byte": lambda path: flip(path, 0),
    "middle": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1),
    "unreadable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("harm", HARMS)
def test_what_was_harmed_is_compiled_again_and_kept_anew(place, harm, suffix):
    compile_again()
    (path,) = place.glob(f"*{suffix}")
    HARMS[harm](path)
    if harm == "unreadable" and os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert [compile_again(), compile_again()] == [False, True]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_folder_in_the_place_of_a_file_is_said_once(place, suffix):
    compile_again()
    (path,) = place.glob(f"*{suffix}")
    folder_in_its_place(path)
    with pytest.warns(CacheWarning, match="cannot be kept .*so every start takes"):
        assert not compile_again()
    assert path.is_dir()


def file(place):
    place.parent.mkdir()
    place.write_text("mine")


def link(place):
    (place.parent.parent / "elsewhere").mkdir()
    place.parent.mkdir()
    place.symlink_to(place.parent.parent / "elsewhere")


def open_to(mode):
    def made(place):
        place.mkdir(parents=True)
        place.chmod(mode)

    return made


OBSTACLES = {"file": file, "link": link, "770": open_to(0o770), "707": open_to(0o707), "1777": open_to(0o1777)}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_place_that_is_no_folder_of_this_user_alone_is_passed_over(place, obstacle, tmp_path):
    OBSTACLES[obstacle](place)
    assert [compile_again(), compile_again()] == [False, True]
    assert code_folder.folder() == tmp_path / "second" / code_folder.NAME
    assert not list((tmp_path / "elsewhere").glob("*"))


def test_code_that_another_user_keeps_is_not_run(place, monkeypatch):
    compile_again()
    monkeypatch.setattr(os, "geteuid", lambda: place.stat().st_uid + 1)
    with pytest.warns(CacheWarning, match="belongs to this user alone"):
        assert not compile_again()


def test_a_full_disk_is_said_and_ends_nothing(place):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        try:
            assert not compile_again()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (warning,) = seen
    assert f"({place}: File too large)" in str(warning.message) and warning.category is CacheWarning
    assert [compile_again(), compile_again()] == [False, True]


def test_what_a_killed_process_was_writing_is_removed_after_an_hour(place):
    compile_again()
    old, new = place / "double-1.py311.nbi.tmp.0123", place / "double-1.py311.nbi.tmp.4567"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    assert compile_again()
    assert new.exists() and not old.exists()


KERNELS = """
import sys
import numba, numpy as np
from nucleate import compilation

def made_of(amount):
    @numba.njit(no_cpython_wrapper=True)
    def step(x, n):  # long, and called twice: it stays a function of its own
        total = 0.0
        for i in range(n):
            total += np.exp(x[i]) * np.sin(x[i])
        for i in range(n):
            total -= np.exp(x[i]) * np.sin(x[i])
        return total + amount
    return step

for number in sys.argv[1:]:
    step = made_of(int(number))
    def run(x):
        return step(x, x.size) + step(x, x.size - 1)
    run.__qualname__ = "kernel" + number
    made = compilation.compiled(run, "float64(float64[::1])")
    print(made(np.zeros(9)), bool(made.stats.cache_hits))
"""


def test_a_kernel_calls_the_functions_that_it_was_made_of(tmp_path):
    """Not those of another kernel that happen to have the same name and came first."""
    file = tmp_path / "kernels.py"
    file.write_text(KERNELS)
    environment = {"PYTHONPATH": ":".join(sys.path), "NUMBA_CACHE_DIR": str(tmp_path)}

    def run(*numbers):
        command = [sys.executable, str(file), *numbers]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert run("1") == ["2.0", "False"]
    assert run("2") == ["4.0", "False"]
    assert run("1", "2") == ["2.0", "True", "4.0", "True"]


def test_only_loading_refuses_to_compile_and_harms_nothing(place):
    with compilation.loading_only(), pytest.raises(compilation.NotKept, match=r"double.* is not in "):
        compile_again()
    assert not compile_again()
    with compilation.loading_only():
        assert compile_again()


def test_no_place_is_looked_for_in_a_home_that_is_not_there(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert [path.name for path in code_folder.places()] == ["__pycache__"]
