"""Starting ranks by the MPI that is installed beside this Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

LAUNCHER = Path(sys.executable).with_name("mpiexec")

needs_mpi = pytest.mark.skipif(sys.platform == "win32", reason="no wheel brings an MPI for Windows")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """One thread a rank, and what Open MPI asks for where the user is root or cores are fewer than ranks; other MPIs
    do not know it."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        **(more or {}),
    }


def start(
    count: int, command: Sequence[str | Path], *, options: Sequence[str] = (), more: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """So many ranks of `python COMMAND`, begun; `options` are those of mpiexec, `more` goes into the environment."""
    assert LAUNCHER.exists(), "mpiexec is missing: pip install 'nucleate[mpi]'"
    return subprocess.Popen(
        [LAUNCHER, *options, "-n", str(count), sys.executable, *command],
        env=environment(more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def mpirun(
    count: int,
    command: Sequence[str | Path],
    *,
    options: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """The same, ended; ranks that hang are killed, and the test fails."""
    started = start(count, command, options=options, more=more)
    try:
        out, said = started.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        out, said = started.communicate()
        pytest.fail(f"{count} ranks did not end within {timeout} s:\n{out[-2000:]}\n{said[-2000:]}")
    return subprocess.CompletedProcess(list(map(str, command)), started.returncode, out, said)


def open_mpi() -> bool:
    """Whether it is Open MPI, by what its wheel installs."""
    return LAUNCHER.with_name("ompi_info").exists()
