"""Kills `nucleate predict` and `nucleate train` at random moments; each is resumed and must come to the same bytes.

    python benchmarks/kills.py [--predict 100] [--train 50] [--signals 100] [--fresh 20] [--seed 0]

A kill is SIGKILL, after which nothing of the process runs. `--signals` of each command are sent Ctrl-C, SIGTERM or
SIGHUP instead, half of them twice: it must end with the signal's exit code and without a traceback, and be resumed
likewise. Nothing may be left over: no passing file, no work folder. These processes are forked from one that has
imported everything; `--fresh` more begin anew, and are sent signals while they load their libraries.

Prints each failure, and as its last line JSON; exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import nucleate.__main__
import nucleate.api  # it and the others: all is loaded before the fork
import nucleate.report.card
import nucleate.report.prediction_progress
import nucleate.report.training_progress
import nucleate.training.fit
from nucleate.data.augment import AugmentationConfig
from nucleate.data.synthetic import write_folder
from nucleate.inference.predictor import Predictor
from nucleate.training import config

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FOREIGN = re.compile("Traceback|terminate called|Exception ignored|Fatal")
"""What is no sentence of ours."""

LIMIT = 120.0
"""Seconds after which a process hangs."""


def shorten(side: int) -> None:
    """Small networks and few steps to train; in prediction, an image of a few blocks takes the way of a slide."""
    short = {"samples": 8, "widths": (8, 16), "variation": AugmentationConfig(crop=64)}
    # A class is replaced by a function that makes it: enough for the command line, and no type that mypy could name.
    config.TrainingConfig = partial(config.TrainingConfig, **short)  # type: ignore[misc,assignment]
    Predictor.__init__.__kwdefaults__["side"] = side


class Command:
    """A command whose runs are interrupted; the files of its first run, which is not, are what the others must give."""

    def __init__(self, arguments: list[str], folder: Path, chance: random.Random) -> None:
        self.arguments, self.folder, self.chance = arguments, folder, chance
        begin = time.monotonic()
        failed = self.complete(folder / "straight")
        if failed:
            sys.exit(failed)
        self.seconds = time.monotonic() - begin
        self.expected = self.contents(folder / "straight")

    def start(self, out: Path, *options: str) -> int:
        """Fork a process that runs the command; its number."""
        child = os.fork()
        if child:
            return child
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["nucleate", *self.arguments, "--out", str(out), *options]
        code: object = 0
        try:
            nucleate.__main__.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)

    def complete(self, out: Path) -> str | None:
        """Run or resume it to its end; what it printed where that failed."""
        if (out / "model.json").exists():
            return None
        begun = self.arguments[0] == "predict" or (out / "training.safetensors").exists()
        code = ended(self.start(out, *(["--resume"] if begun else [])))
        return f"exit code {code}: {printed(out)}" if code else None

    def contents(self, out: Path) -> dict[str, bytes]:
        """The files, save for what tells how long a training took."""
        files = {str(one.relative_to(out)): one.read_bytes() for one in out.rglob("*") if one.is_file()}
        if self.arguments[0] == "train":
            rows = [json.loads(line) for line in files["history.jsonl"].splitlines()]
            files["history.jsonl"] = json.dumps([{**row, "seconds": 0} for row in rows]).encode()
            files |= dict.fromkeys(("model.json", "README.md", "curves.png", "report.html"), b"")
        return files

    def interrupt(self, number: int, signals: tuple[int, ...]) -> list[str]:
        """Send a run these signals and resume it: what went wrong."""
        out = self.folder / f"{number}-{'-'.join(signal.Signals(one).name for one in signals)}"
        process = self.start(out)
        time.sleep(self.chance.uniform(0.0, self.seconds))
        found = send(process, signals, self.chance)
        wrong = [*found, *foreign(out)]
        failed = self.complete(out)
        if failed:
            return [*wrong, f"resumed: {failed}"]
        contents = self.contents(out)
        names = contents.keys() | self.expected.keys()
        differs = sorted(name for name in names if contents.get(name) != self.expected.get(name))
        return [*wrong, f"other files: {differs}"] if differs else wrong


def send(process: int, signals: tuple[int, ...], chance: random.Random) -> list[str]:
    """Send a process the signals in turn, and wait for its end: what is wrong with that."""
    for one in signals:
        os.kill(process, one)
        time.sleep(chance.uniform(0.0, 0.3) if len(signals) > 1 else 0.0)
    code = ended(process)
    expected = -signal.SIGKILL if signal.SIGKILL in signals else 128 + signals[-1]
    return [] if code in (0, expected) else [f"exit code {code}"]


def ended(process: int) -> int:
    """Wait for a process: its exit code, negative for the signal that killed it. One that hangs is killed."""
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -1000


def printed(out: Path) -> str:
    log = out.with_suffix(".log")
    return log.read_text()[-3000:] if log.exists() else ""


def foreign(out: Path) -> list[str]:
    return [printed(out)] if FOREIGN.search(printed(out)) else []


def interrupt_fresh(arguments: list[str], out: Path, signals: tuple[int, ...], chance: random.Random) -> list[str]:
    """Send a process that begins anew the signals, while it loads its libraries: what went wrong."""
    command = [sys.executable, "-m", "nucleate", *arguments, "--out", str(out)]
    with out.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_handlers(process)
    time.sleep(chance.uniform(0.0, 5.7))
    return [*send(process.pid, signals, chance), *foreign(out)]


def wait_for_handlers(process: subprocess.Popen[bytes]) -> None:
    """Until it catches SIGTERM: Python itself takes a while to begin, longer on a busy machine, and until then a
    signal simply kills it."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():  # no Linux: time must do
        time.sleep(1.0)
        return
    while process.poll() is None:
        found = re.search(r"^SigCgt:\s*([0-9a-f]+)", status.read_text(), re.MULTILINE)
        if found and int(found[1], 16) >> signal.SIGTERM - 1 & 1:
            return
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("predict", 100), ("train", 50), ("signals", 100), ("fresh", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--model", default="fluorescence")
    parser.add_argument("--slide", type=Path, help="a large image; one is drawn by default")
    parser.add_argument("--side", type=int, default=288, help="pixels of a block of the network")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    counts, failures = Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        # A process that has computed something must not be forked, so another one draws.
        child = os.fork()
        if child == 0:
            write_folder(here / "cells", "fluorescence", count=4, seed=0, labelled=3, height=96, width=96)
            if options.slide is None:
                write_folder(here / "slide", "fluorescence", count=1, seed=1, labelled=0, height=480, width=440)
            os._exit(0)
        assert ended(child) == 0
        shorten(options.side)
        formats = ["--format", "tif,csv,zarr,roi,geojson", "--entropy", "--overlay", "--tile", "64"]
        images = [str(here / "cells" / "images"), str(options.slide or here / "slide" / "images")]
        arguments = {
            "predict": ["predict", options.model, *images, *formats],
            "train": ["train", str(here / "cells"), "--epochs", "4"],
        }
        for command, given in arguments.items():
            folder = here / command
            folder.mkdir()
            runs = Command(given, folder, chance)
            print(f"{command} takes {runs.seconds:.1f} s", flush=True)
            trials: list[tuple[int, ...]] = [(signal.SIGKILL,)] * getattr(options, command)
            for number in range(options.signals):
                one = chance.choice(SIGNALS)
                trials.append((one,) if number % 2 else (one, one))
            for number, signals in enumerate(trials):
                wrong = runs.interrupt(number, signals)
                counts[f"{command}, {'killed' if signal.SIGKILL in signals else 'interrupted'}"] += 1
                failures += bool(wrong)
                for sentence in wrong:
                    print(f"{command} {number}, {signals}: {sentence}", flush=True)
            for number in range(options.fresh):
                one = chance.choice(SIGNALS)
                wrong = interrupt_fresh(given, folder / f"fresh{number}", (one, one)[: 1 + number % 2], chance)
                counts[f"{command}, begun anew"] += 1
                failures += bool(wrong)
                for sentence in wrong:
                    print(f"{command} fresh {number}, {one}: {sentence}", flush=True)
    print(json.dumps({**counts, "failures": failures}))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
