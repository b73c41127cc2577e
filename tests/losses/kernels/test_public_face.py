"""What stands outside the losses takes the kernels' parts from one place, and pays for numba only where it uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nucleate
from nucleate.losses import kernels


def test_nothing_outside_the_losses_imports_below_the_public_face() -> None:
    root = Path(nucleate.__file__).parent
    outside = [path for path in root.rglob("*.py") if not path.is_relative_to(root / "losses")]
    assert len(outside) > 20
    assert [str(path) for path in outside if "nucleate.losses.kernels." in path.read_text(encoding="utf-8")] == []


def test_numba_is_loaded_with_the_first_loop_primitive() -> None:
    program = (
        "import sys; from nucleate.losses.kernels import kernels, layout_of, use_kernels, warm_up, words;"
        "print('numba' in sys.modules); from nucleate.losses.kernels import step; print('numba' in sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]


def test_every_name_of_the_public_face_is_there() -> None:
    assert all(getattr(kernels, name) is not None for name in kernels.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = kernels.absent
