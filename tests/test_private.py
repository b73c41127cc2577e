"""Nothing is sent anywhere, and nothing is written but results, the caches of SECURITY.md and temporary files.

The commands run in processes of their own, with an empty home folder, and Python's audit hook writes down every socket
and every file that is opened for writing, in them and in the Python processes that they start.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

CACHES = {".cache/matplotlib", ".config/matplotlib", ".cache/nucleate"}
"""Below the home folder, as SECURITY.md lists them."""

HOOK = """
import json, os, sys

log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SENDS = ("connect", "sendto", "getaddrinfo", "gethostbyname", "bind")
SENDS = (*("socket." + name for name in SENDS), "urllib.Request")
CHANGES = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")  # to remove takes to have made
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def hook(event, args):
    if event in SENDS:
        found = [event, repr(args[-1] if event in ("socket.connect", "socket.bind") else args)]
    elif event == "open" and args[2] is not None and args[2] & WRITES and isinstance(args[0], (str, bytes)):
        found = ["write", os.path.abspath(os.fsdecode(args[0]))]
    elif event in CHANGES and isinstance(args[0], (str, bytes)):
        found = ["write", os.path.abspath(os.fsdecode(args[0]))]
    else:
        return
    os.write(log, (json.dumps(found) + "\\n").encode())


sys.addaudithook(hook)
"""


@pytest.fixture
def place(tmp_path):
    """An empty home, a temporary folder, images with masks, and the hook."""
    for name in ("home", "temp", "site", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOOK)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    for number in range(2):
        labels = np.zeros((96, 96), np.uint16)
        for nucleus, (cy, cx) in enumerate([(20, 20), (20, 70), (70, 20), (70, 70), (45, 45)], 1):
            labels[np.hypot(y - cy, x - cx) < 9] = nucleus
        image = np.clip(rng.normal(20, 4, (96, 96)) + 150 * (labels > 0), 0, 255).astype(np.uint8)
        tifffile.imwrite(tmp_path / "new" / f"a{number}.tif", image)
        tifffile.imwrite(tmp_path / "new" / f"a{number}_masks.tif", labels)
    return tmp_path


def run(place, *arguments):
    """Run a command; its sockets, and the files that it wrote outside `out` and the temporary folder."""
    log = place / "log"
    log.unlink(missing_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "MPL", "NUMBA", "TORCHINDUCTOR"))
    }
    environment = kept | {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "temp"),
        "AUDIT_LOG": str(log),
        "PYTHONPATH": os.pathsep.join([str(place / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nucleate", *arguments], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in log.read_text().splitlines()]
    sockets = [what for event, what in found if event != "write" and "127.0.0.1" not in what]
    allowed = [place / "out", place / "temp", Path("/dev")]
    allowed += [place / "home" / cache for cache in CACHES]
    written = {Path(what) for event, what in found if event == "write"}
    # The caches of compiled sources and of compiled code lie beside the sources.
    strange = {path for path in written if "__pycache__" not in path.parts} - {one.parent for one in allowed}
    return sockets, [path for path in strange if not any(path.is_relative_to(one) for one in allowed)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "fluorescence", "new/a0.tif", "--out", "out/cells", "--overlay", "--entropy"),
        ("train", "new", "--out", "out/model", "--minutes", "0.05", "--epochs", "2"),
        ("export", "fluorescence", "--to", "openvino", "--out", "out/model.xml"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_sent_and_nothing_written_elsewhere(place, arguments):
    (place / "out").mkdir()
    sockets, strange = run(place, *arguments)
    assert sockets == []
    assert strange == []
    # Native code is seen by no hook: what lies in the home folder at the end tells.
    left = {str(path.relative_to(place / "home")) for path in (place / "home").rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith(tuple(f"{cache}/" for cache in CACHES))} == set()


def test_the_hook_sees_a_socket_and_a_file(place):
    log = place / "log"
    environment = os.environ | {"AUDIT_LOG": str(log), "PYTHONPATH": str(place / "site")}
    code = (
        "import socket; s = socket.socket(); s.setblocking(False); s.connect_ex(('192.0.2.1', 9)); open('stray', 'w')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=place, env=environment, check=True)
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert ["socket.connect", "('192.0.2.1', 9)"] in found
    assert ["write", str(place / "stray")] in found
