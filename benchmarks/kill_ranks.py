"""Ranks that are killed at random moments of training and of prediction, and what becomes of the others.

    python benchmarks/kill_ranks.py training --trials 100 --ulfm
    python benchmarks/kill_ranks.py prediction --trials 100

With --ulfm (Open MPI) the others must finish with a right result; without, all must end within 30 s, and the same
command with --resume must finish. Small data and a small network, drawn here. Needs `pip install 'nucleate[mpi]'`. A
trial whose run was over before the rank was killed is repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nucleate import signals
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.io.formats import FORMATS
from nucleate.networks import store
from nucleate.parallel import launch
from nucleate.training import fit
from nucleate.training.config import TrainingConfig

LONGEST = 30.0
"""Seconds within which the ranks must end when one is gone."""

RESULT = {"training": store.MANIFEST, "prediction": ""}
"""A file that is there at the end."""

CONFIG = TrainingConfig(epochs=6, samples=32, batch=4, variation=AugmentationConfig(crop=64), widths=(16, 16))


def work(what: str, data: Path, out: Path, *, resume: bool) -> None:
    """What one rank does."""
    ranks = launch.join()
    (out.parent / f"{out.name}.{ranks.rank}.pid").write_text(str(os.getpid()))
    try:
        if what == "training":
            fit.fit(data / "cells", out, CONFIG, resume=resume, ranks=ranks)
        else:
            ready = Predictor(store.read(data / "model"), engine="torch", bfloat16=False, side=96)
            images = sorted((data / "cells" / "images").iterdir())
            request = Request(tile=64, formats=tuple(FORMATS), resume=resume)
            predict(ready, images, out, request, ranks=ranks)
    except BaseException as error:
        launch.end_others(error, 1)
        raise
    signals.leave(0, at_once=launch.has_lost())


@dataclass(frozen=True)
class Job:
    """One command on some ranks; `ulfm` lets the others live when one ends."""

    what: str
    data: Path
    ranks: int
    ulfm: bool

    def start(self, out: Path, *, resume: bool = False, ranks: int | None = None) -> subprocess.Popen[str]:
        launcher = Path(sys.executable).with_name("mpirun")
        options = ["--with-ft", "ulfm"] if self.ulfm else []
        command = [launcher, *options, "-n", str(ranks or self.ranks), sys.executable, __file__, self.what]
        return subprocess.Popen(
            [*command, "--work", self.data, out, *["--resume"] * resume],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
                "PRTE_MCA_hwloc_default_binding_policy": "none",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fault(self, out: Path, expected: Path) -> str | None:
        """What is wrong with a result, compared with that of one process."""
        if self.what == "prediction":
            found, wanted = contents(out), contents(expected)
            differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            return f"{', '.join(differing[:3])} differ" if differing else None
        store.read(out)
        rows, wanted_rows = store.read_history(out), store.read_history(expected)
        if len(rows) != len(wanted_rows):
            return f"{len(rows)} epochs in place of {len(wanted_rows)}"
        far = max(abs(row["valid_loss"] / one["valid_loss"] - 1) for row, one in zip(rows, wanted_rows, strict=True))
        return f"a validation loss is off by {far:.1e}" if far > 1e-3 else None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trial(job: Job, out: Path, expected: Path, wait: float, victim: int) -> tuple[str | None, float] | None:
    """A fault, if any, and the seconds from the kill to the end; None where the run was over before."""
    begun = job.start(out)
    pid = out.parent / f"{out.name}.{victim}.pid"
    while begun.poll() is None and not pid.exists():
        time.sleep(0.01)
    time.sleep(wait)
    if begun.poll() is not None:
        return None
    try:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    except ProcessLookupError:
        begun.wait()
        return None
    killed = time.monotonic()
    try:
        _, said = begun.communicate(timeout=300 if job.ulfm else LONGEST)
    except subprocess.TimeoutExpired:
        begun.kill()
        return "it did not end", time.monotonic() - killed
    seconds = time.monotonic() - killed
    if job.ulfm and not (out / RESULT[job.what]).exists():
        return f"it ended with code {begun.returncode} and no result: {said[-2000:]}", seconds
    if not job.ulfm:
        again = job.start(out, resume=unfinished(job, out), ranks=random.choice([1, 2, 3]))
        _, said = again.communicate(timeout=600)
        if again.returncode:
            return f"it was not resumed: {said[-300:]}", seconds
    return job.fault(out, expected), seconds


def unfinished(job: Job, out: Path) -> bool:
    """Whether there is something to resume: a run may be killed before it wrote anything."""
    return job.what == "prediction" or (out / store.UNFINISHED).exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "prediction"))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ulfm", action="store_true")
    parser.add_argument("--work", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.what, *options.work, resume=options.resume)
        return
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        write_folder(data / "cells", "fluorescence", 8, seed=0, labelled=6, height=160, width=160, diameter=16)
        fit.fit(data / "cells", data / "model", CONFIG)
        job = Job(options.what, data, options.ranks, options.ulfm)
        expected = Path(place) / "expected"
        begin = time.monotonic()
        assert job.start(expected, ranks=1).wait() == 0
        length = time.monotonic() - begin
        faults, seconds, done = list[str](), list[float](), 0
        while done < options.trials:
            out = Path(place) / f"run{done}-{random.random()}"
            found = trial(job, out, expected, random.uniform(0, length), random.randrange(options.ranks))
            if found is None:
                continue
            done += 1
            faults += [f"trial {done}: {found[0]}"] if found[0] else []
            seconds.append(found[1])
            print(f"{done}/{options.trials}: {found[0] or 'right'}, {found[1]:.1f} s", flush=True)
    how = "the others went on" if options.ulfm else "all ended and were resumed"
    print(f"\n| {options.what}, {how} | trials | right | longest end, s | median end, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    right, median = options.trials - len(faults), statistics.median(seconds)
    print(f"| {options.ranks} ranks | {options.trials} | {right} | {max(seconds):.1f} | {median:.1f} |")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
