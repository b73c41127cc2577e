"""Stacks of planes (Z) and of frames (T): what a person asks of them, and the one plane that is read for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from nucleate.errors import ImageError, InputError
from nucleate.io.axes import UNNAMED
from nucleate.io.base import Reader
from nucleate.io.focus import best_plane
from nucleate.types import Box, Pixels, Plane

EACH, MAX, MEAN, BEST = "each", "max", "mean", "best"

Z_WORDS, T_WORDS = (MAX, MEAN, BEST, EACH), (EACH,)
"""What is said of planes and of frames besides a number."""


class StackReader(Reader):
    """An image that may be a stack: `stack` has the lengths of its axes beyond one plane, by their letters, in the
    order of a place. An image of one plane has none, and is read as any other."""

    stack: Mapping[str, int]

    @abstractmethod
    def read_plane(self, place: tuple[int, ...], box: Box) -> Pixels:
        """The pixels (height, width, channels) of a box of the plane at this place, one number from 0 for each axis of
        `stack`."""

    def read(self, box: Box) -> Pixels:
        return self.read_plane(tuple(0 for _ in self.stack), box)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person asks of files that hold several images: `scene`, by its name or its number from 1; `z`, one of
    max, mean, best, each or the number of a plane; `t`, each or the number of a frame. None where nothing is said.

    Raises:
        InputError: another word, or a number below 1.

    >>> Choice(z="6").plane()
    Plane(series=None, z=6, t=None)
    >>> Choice(z="sum")
    Traceback (most recent call last):
    nucleate.errors.InputError: --z is sum: give max, mean, best, each, or the number of a plane, from 1.
    """

    scene: str | None = None
    z: str | None = None
    t: str | None = None

    def __post_init__(self) -> None:
        for option, word, words, one in (("z", self.z, Z_WORDS, "plane"), ("t", self.t, T_WORDS, "frame")):
            if word is not None and word not in words and not _is_number(word):
                raise InputError(f"--{option} is {word}: give {', '.join(words)}, or the number of a {one}, from 1.")

    def __bool__(self) -> bool:
        return self != Choice()

    def plane(self, series: int | None = None) -> Plane:
        """What is asked of each image, where it is one plane of each stack."""
        z = int(self.z) if self.z is not None and _is_number(self.z) else self.z
        return Plane(series, None if z == EACH else z, int(self.t) if self.t and _is_number(self.t) else None)

    def over(self, other: Choice) -> Choice:
        """The same, with what the `other` says where this says nothing."""
        return Choice(self.scene or other.scene, self.z or other.z, self.t or other.t)

    def of_stacks(self) -> dict[Literal["z", "t"], str]:
        """What is said of planes and frames, for a manifest."""
        said: dict[Literal["z", "t"], str | None] = {"z": self.z, "t": self.t}
        return {name: word for name, word in said.items() if word is not None}

    def words(self) -> list[str]:
        """The options that say the same on the command line."""
        said = (("--scene", self.scene), ("--z", self.z), ("--t", self.t))
        return [word for name, value in said if value is not None for word in (name, value)]


@dataclass(frozen=True, slots=True)
class Scene:
    """One of the images that a file holds: its name, empty where it has none, and its `stack` as of `StackReader`."""

    name: str = ""
    stack: tuple[tuple[str, int], ...] = ()


def planes(scenes: Sequence[Scene], choice: Choice, path: Path) -> Iterator[tuple[str, Plane]]:
    """Each image that is asked for of a file with these scenes: what tells its name from the others', and the image.

    Raises:
        ImageError: the file has no such scene.

    >>> [name for name, _ in planes([Scene("", (("Z", 2),)), Scene()], Choice(z="each"), Path("a.tif"))]
    ['_s1_z1', '_s1_z2', '_s2']
    """
    for number in _scenes(scenes, choice.scene, path):
        several = len(scenes) > 1
        asked, stack = choice.plane(number if several else None), dict(scenes[number - 1].stack)
        axes = meant(stack, asked, choice)
        zs = range(1, stack[axes["z"]] + 1) if "z" in axes and choice.z == EACH else [asked.z]
        ts = range(1, stack[axes["t"]] + 1) if "t" in axes and choice.t == EACH else [asked.t]
        for frame, plane in product(ts, zs):
            ends = [f"_s{number}"] * several + [f"_t{frame}"] * (len(ts) > 1) + [f"_z{plane}"] * (len(zs) > 1)
            yield "".join(ends), Plane(asked.series, plane, frame)


def _scenes(scenes: Sequence[Scene], wanted: str | None, path: Path) -> list[int]:
    """The numbers of the scenes that are asked for, from 1."""
    if wanted is None:
        return list(range(1, len(scenes) + 1))
    named = [number for number, scene in enumerate(scenes, 1) if scene.name == wanted]
    if len(named) == 1:
        return named
    if _is_number(wanted) and int(wanted) <= len(scenes):
        return [int(wanted)]
    listed = ", ".join(
        f"{scene.name} ({number})" if scene.name else f"{number}" for number, scene in enumerate(scenes[:6], 1)
    )
    more = ", ..." if len(scenes) > 6 else ""
    raise ImageError(f"{path} has no scene {wanted!r}: it holds {listed}{more}; give one of them.")


def meant(stack: Mapping[str, int], plane: Plane, choice: Choice | None = None) -> dict[str, str]:
    """The axes of a stack that are meant by z and by t; one that the file does not name is the one that is spoken of.

    >>> meant({"T": 5, "Z": 3}, Plane()), meant({"Q": 9}, Plane(t=2)), meant({"Q": 9}, Plane())
    ({'z': 'Z', 't': 'T'}, {'t': 'Q'}, {})
    """
    choice = choice or Choice()
    unnamed = [axis for axis in stack if axis in UNNAMED]
    found = {}
    for word, said in (("z", plane.z is not None or choice.z), ("t", plane.t is not None or choice.t)):
        if word.upper() in stack:
            found[word] = word.upper()
        elif unnamed and said:
            found[word] = unnamed.pop()
    return found


class PlaneReader(Reader):
    """One plane of a stack, or one that is made of its planes; `plane` says which, and `note` is a sentence on it.

    Only boxes are in memory: of a projection two at a time. The maximum is in the type of the stack, the mean in
    float32.

    Args:
        reader: the stack, which is closed with this.
        plane: what is read of it.
        labels: whether it is a label image, of which no projection is read.

    Raises:
        ImageError: the stack has no such plane, or it is not said which.
    """

    def __init__(self, reader: StackReader, plane: Plane, *, labels: bool = False) -> None:
        self.reader, self.note = reader, None
        self.name, self.path, self.channels, self.dtype = reader.name, reader.path, reader.channels, reader.dtype
        self.levels, self.level, self.piece = reader.levels, reader.level, reader.piece
        self.pixel_size = reader.pixel_size
        axes = meant(reader.stack, plane)
        z, t = axes.get("z"), axes.get("t")
        at: dict[str, int | str | None] = dict.fromkeys(reader.stack)
        _check_number(reader.path, "plane", "--z", reader.stack[z] if z else 1, plane.z)
        _check_number(reader.path, "frame", "--t", reader.stack[t] if t else 1, plane.t)
        at |= ({z: plane.z} if z else {}) | ({t: plane.t} if t else {})
        if None in at.values():
            raise ImageError(_question(reader, at, labels))
        if labels and isinstance(plane.z, str) and z:
            raise ImageError(
                f"{reader.path} is a stack of labels, of which --z {plane.z} says nothing: give labels of one plane."
            )
        if z and plane.z == BEST:
            at[z] = 1 + best_plane([PlaneReader(reader, replace(plane, z=1 + n)) for n in range(reader.stack[z])])
            self.note = f"{reader.path}: plane {at[z]} of {reader.stack[z]} is in best focus and is taken."
        if at.get(z or "") == MEAN:
            self.dtype = np.dtype(np.float32)
        self._mean = at.get(z or "") == MEAN
        self._places = list(product(*(self._numbers(axis, value) for axis, value in at.items())))
        self.plane = Plane(plane.series, at[z] if z else None, plane.t if t else None)

    def _numbers(self, axis: str, value: int | str | None) -> range:
        return range(value - 1, value) if isinstance(value, int) else range(self.reader.stack[axis])

    def read(self, box: Box) -> Pixels:
        self.check_inside(box)
        found = (self.reader.read_plane(place, box) for place in self._places)
        if not self._mean:
            return reduce(np.maximum, found)
        total = np.zeros((*box.shape, len(self.channels)), np.float64)
        for pixels in found:
            total += pixels.astype(np.float64)
        return np.asarray(total / len(self._places), np.float32)

    def close(self) -> None:
        self.reader.close()


def one_plane(reader: StackReader, plane: Plane, *, labels: bool = False) -> Reader:
    """The reader of one plane; the reader itself where it is no stack. Raises as `PlaneReader`, and closes it then."""
    try:
        if reader.stack:
            return PlaneReader(reader, plane, labels=labels)
        refuse_other_planes(reader.path, plane)
        return reader
    except BaseException:
        reader.close()
        raise


def refuse_other_planes(path: Path | None, plane: Plane) -> None:
    """Raise `ImageError` where another plane or frame is asked for of an image that has one alone."""
    _check_number(path, "plane", "--z", 1, plane.z)
    _check_number(path, "frame", "--t", 1, plane.t)


def _check_number(path: Path | None, one: str, option: str, count: int, number: int | str | None) -> None:
    if isinstance(number, int) and number > count:
        has = f"{count} {one}s" if count > 1 else f"one {one} alone"
        raise ImageError(f"{path} has no {one} {number}: it has {has}; say another number with {option}.")


def _question(reader: StackReader, at: Mapping[str, int | str | None], labels: bool) -> str:
    """What a stack holds, and what to write, where it is not said which of it is meant."""
    what = {"Z": "planes (Z)", "T": "frames (T)"}
    held = " and ".join(f"{n} {what.get(axis, 'pages')}" for axis, n in reader.stack.items())
    ways, open_axes = [], [axis for axis, value in at.items() if value is None]
    for axis in sorted(open_axes, reverse=True):
        count = reader.stack[axis]
        words = "each" if labels else "max, mean, best, each"
        if axis != "T":
            ways.append(f"--z {words} or a plane from 1 to {count}")
        else:
            ways.append(f"--t each or a frame from 1 to {count}")
    said = " and ".join(ways)
    if open_axes[0] in UNNAMED:
        said += " (--t each or a number if they are frames in time; channels belong on an axis named C)"
    return f"{reader.path} is a stack of {held} where one plane is needed: say {said}."


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and 1 <= int(word) < 2**31
