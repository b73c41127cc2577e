"""What differs on Windows and macOS, as far as it can be simulated here: missing modules and functions, encodings, file
names, and links. The wheel is pure Python."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucleate.data.synthetic import write_folder

SOURCES = sorted((Path(__file__).parent.parent / "src" / "nucleate").rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty"}
POSIX_NAMES = {
    "os": {"fork", "geteuid", "getuid", "sched_getaffinity", "sysconf", "mkfifo", "chown", "O_NOFOLLOW", "O_NONBLOCK"},
    "signal": {"SIGHUP", "SIGUSR1", "SIGKILL", "SIGALRM", "pause", "sigwait"},
}
ELSEWHERE = """
import builtins, io, os, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty"):
    sys.modules[name] = None
for name in ("fork", "geteuid", "getuid", "sched_getaffinity", "sysconf", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGKILL"):
    delattr(signal, name)
"""
"""Python as it is on Windows, in what Nucleate could stumble over."""


def elsewhere(code, folder, **more):
    """Run the code in a process without what only POSIX has; a text file without a named encoding is an error there."""
    script = folder / "script.py"
    script.write_text(ELSEWHERE + textwrap.dedent(code), encoding="utf-8")
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning:nucleate", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=os.environ | more)


def guarded(node, parents):
    """Whether an enclosing function, or a condition or `try` about the node, asks for the name first."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.Try | ast.If | ast.IfExp | ast.With):
            return True
        if isinstance(node, ast.FunctionDef):
            return bool(re.search(r"fcntl is None|hasattr|sys\.platform", ast.unparse(node)))
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_only_posix_has_is_asked_for_first(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and POSIX_MODULES & {one.name for one in node.names}:
            assert guarded(node, parents), f"{path}:{node.lineno}"
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if named and node.attr in POSIX_NAMES.get(node.value.id, ()):
            assert guarded(node, parents), f"{path}:{node.lineno}: {node.value.id}.{node.attr}"


def test_a_model_is_trained_predicts_and_learns_without_them(tmp_path):
    write_folder(tmp_path / "cells", "fluorescence", count=3, seed=0, labelled=3, height=64, width=64)
    done = elsewhere(
        """
        from pathlib import Path
        import nucleate
        from nucleate.data.augment import AugmentationConfig
        from nucleate.errors import OutputError
        from nucleate.inference.predict import Request, predict
        from nucleate.io.lock import Lock
        from nucleate.training.config import TrainingConfig

        config = TrainingConfig(epochs=1, samples=8, widths=(8, 16), variation=AugmentationConfig(crop=32))
        nucleate.train("cells", "model", config=config, warn=lambda _: None)
        images = sorted(Path("cells/images").iterdir())
        done = predict(nucleate.load("model").predictor, images, Path("out"), Request())
        assert len(done.nuclei) == 3 and not done.failed
        print(len(list(Path("out").iterdir())))
        lock = Lock(Path("lock"), "in use")
        try:
            Lock(Path("lock"), "in use")
        except OutputError as error:
            print(error)
        lock.release()
        Lock(Path("lock"), "in use").release()
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    files, refused = done.stdout.splitlines()
    assert files == "9" and refused.startswith("in use")


def test_a_console_that_lacks_characters_shows_names_all_the_same(tmp_path):
    (tmp_path / "cells").mkdir()
    tifffile.imwrite(tmp_path / "cells" / "細胞 µ.tif", np.zeros((40, 40), np.uint8))
    code = "from nucleate.cli import main\nmain(['check', 'cells', '--json', 'found.json'])"
    done = elsewhere(code, tmp_path, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert "Traceback" not in done.stderr and done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["report"]["images"][0]["name"] == "細胞 µ"


def test_no_file_of_ours_has_a_name_that_another_system_refuses():
    root = Path(__file__).parent.parent
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    names = (
        tracked.stdout.splitlines() if tracked.returncode == 0 else [str(path.relative_to(root)) for path in SOURCES]
    )
    reserved = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
    for name in names:
        for part in Path(name).parts:
            assert not re.search(r'[<>:"|?*\\]|[. ]$', part) and part.split(".")[0].lower() not in reserved, name
    assert len({name.lower() for name in names}) == len(names), "two that differ in capitals alone"
