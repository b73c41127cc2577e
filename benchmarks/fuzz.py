"""Files that were altered, of every format that is read and of our own: each is read, or refused in a sentence.

    python benchmarks/fuzz.py [--count 100000] [--seed 0] [--jobs 2] [--keep FOLDER] [--only TARGET ...]

Case N of a seed is always the same file. It is read in a process of its own kind, which may take 1 GiB beyond what it
begins with, and 10 seconds. What counts as a failure: an error that is no NucleateError, a process that dies, one that
takes longer, one that needs more memory. The file of each failure goes to `--keep`, with what it raised.

Prints a table of the targets, and as its last line JSON. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz_targets import IMAGES, TARGETS, Files

from nucleate.errors import NucleateError

MEMORY, SECONDS = 2**30, 10.0
"""What a case may take: bytes beyond those that its process begins with, and time."""

# What is altered ---------------------------------------------------------------------------------------------------

_EDGES = (0, 1, 2, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63)
_TOKENS = (
    *(
        b"1e999",
        b"-1",
        b"0",
        b"99999999999999999999",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b'""',
        b"[]",
        b"{}",
        b"1.5",
    ),
    *(
        b'"\\u0000"',
        b"[" * 5000,
        b'{"a":' * 3000,
        b'"../../x"',
        b"-0.0",
        b"[[1]]",
        b"\xff",
        b"1" * 5000,
        b'"' + b"x" * 200000,
    ),
)
_TEXT = re.compile(rb'"[^"\n]{0,80}"|-?\d+\.?\d*|[\[\]{},:]|\w+')


def altered(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file with one to four changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if not changed:
            break
        if b"\0" not in data[:64] and chance.random() < 0.7:
            _alter_text(changed, chance)
        else:
            _alter_bytes(changed, chance)
    return _with_checksums(bytes(changed)) if data[:4] == b"\x89PNG" and chance.random() < 0.7 else bytes(changed)


def _alter_text(data: bytearray, chance: random.Random) -> None:
    tokens = [match.span() for match in _TEXT.finditer(bytes(data[:100_000]))]
    if tokens:
        begin, end = chance.choice(tokens)
        data[begin:end] = chance.choice((*_TOKENS, b"", bytes(data[begin:end]) * 2))


def _alter_bytes(data: bytearray, chance: random.Random) -> None:
    reach = chance.choice((64, 400, len(data)))
    at = chance.choice((chance.randrange(min(reach, len(data))), max(0, len(data) - 1 - chance.randrange(reach))))
    way = chance.randrange(8)
    if way == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif way == 1:
        data[at] = chance.randrange(256)
    elif way in (2, 3, 4):
        size = chance.choice((2, 4, 8))
        value = (chance.choice(_EDGES) - chance.choice((0, 0, 1))) % 2 ** (8 * size)
        data[at : at + size] = struct.pack(chance.choice("<>") + {2: "H", 4: "I", 8: "Q"}[size], value)
    elif way == 5:
        del data[at : at + chance.choice((1, 4, 12, 100, len(data)))]
    elif way == 6:
        data[at:at] = data[at : at + chance.choice((1, 12, 100))]
    else:
        other = chance.randrange(len(data))
        data[at : at + 12] = data[other : other + 12]


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that what is in them is looked at."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]


@cache
def _sound(name: str) -> list[Files]:
    return TARGETS[name].make()


def case(seed: int, number: int, names: tuple[str, ...], folder: Path) -> str:
    """Write case `number` into a folder that is made anew; the name of its target."""
    chance = random.Random(f"{seed} {number}")
    name = chance.choice(names)
    files = chance.choice(_sound(name))
    choices = [one for one in sorted(files) if re.fullmatch(TARGETS[name].altered or ".*", one)]
    broken = chance.choice(choices)
    shutil.rmtree(folder, ignore_errors=True)
    for place, data in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(altered(data, chance) if place == broken else data)
    if name == "model" and broken == "weights.safetensors":  # who alters the weights can alter their checksum
        manifest, now = folder / "model.json", hashlib.sha256((folder / broken).read_bytes()).hexdigest()
        manifest.write_text(re.sub(r'(?<="weights_sha256": ")\w+', now, manifest.read_text()))
    return name


def attempt(name: str, folder: Path) -> str | None:
    """What a case raised that is no sentence; None where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[name].act(folder)
    except NucleateError as error:
        if "does not fit in memory" in str(error):
            return f"memory: {error}"
    except MemoryError as error:
        return f"memory: {error!r}"
    except Exception:
        return f"traceback: {traceback.format_exc()}"
    return None


# Many of them ------------------------------------------------------------------------------------------------------


def _work_off(line: Connection, seed: int, names: tuple[str, ...], folder: Path) -> None:
    """Read the cases whose numbers come down the line, with little memory."""
    for name in set(names):
        _sound(name)
        case(seed, 0, (name,), folder)
        attempt(name, folder)  # what is loaded on the way is no memory of a case
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    line.send("ready")
    while (number := line.recv()) is not None:
        name = case(seed, number, names, folder)
        line.send((name, attempt(name, folder)))


class _Worker:
    def __init__(self, seed: int, names: tuple[str, ...], folder: Path) -> None:
        self.folder, self._line = folder, None
        self._begin = lambda: self._start(seed, names)

    def _start(self, seed: int, names: tuple[str, ...]) -> None:
        context = multiprocessing.get_context("fork")
        self._line, end = context.Pipe()
        self._process = context.Process(target=_work_off, args=(end, seed, names, self.folder), daemon=True)
        self._process.start()
        end.close()
        self._line.recv()

    def run(self, number: int, names: tuple[str, ...], seed: int) -> tuple[str, str | None]:
        if self._line is None:
            self._begin()
        assert self._line is not None
        self._line.send(number)
        try:
            if self._line.poll(SECONDS):
                return self._line.recv()
            what = f"hang: more than {SECONDS:g} s"
        except EOFError:
            self._process.join()
            what = f"crash: exit code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        self._line = None
        return case(seed, number, names, self.folder), what


def run(count: int, seed: int, names: tuple[str, ...], keep: Path | None, first: int = 0) -> dict[str, Counter[str]]:
    """Work off the cases, one after the other; by target how many went how."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        worker = _Worker(seed, names, Path(scratch) / "case")
        for number in range(first, first + count):
            name, failure = worker.run(number, names, seed)
            kind = failure.partition(":")[0] if failure else "well"
            found.setdefault(name, Counter())[kind] += 1
            if failure and keep is not None:
                place = keep / f"{name}-{number}-{kind}"
                shutil.copytree(worker.folder, place, dirs_exist_ok=True)
                (place / "failure.txt").write_text(failure)
    return found


def _share(arguments: tuple[int, int, tuple[str, ...], Path | None, int]) -> dict[str, Counter[str]]:
    return run(*arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    options = parser.parse_args()
    begun, names = time.monotonic(), tuple(options.only)
    weighted = tuple(name for name in (*IMAGES, *TARGETS) if name in names)
    each = -(-options.count // options.jobs)
    shares = [(each, options.seed, weighted, options.keep, options.first + job * each) for job in range(options.jobs)]
    found: dict[str, Counter[str]] = {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(options.jobs) as pool:
        for part in pool.map(_share, shares):
            for name, counts in part.items():
                found.setdefault(name, Counter()).update(counts)
    kinds = ("well", "traceback", "crash", "hang", "memory")
    print("target      " + "".join(f"{kind:>11}" for kind in kinds))
    for name, counts in sorted(found.items()):
        print(f"{name:12}" + "".join(f"{counts[kind]:11}" for kind in kinds))
    failed = sum(counts.total() - counts["well"] for counts in found.values())
    print(json.dumps({"cases": each * options.jobs, "failed": failed, "seconds": round(time.monotonic() - begun, 1)}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
