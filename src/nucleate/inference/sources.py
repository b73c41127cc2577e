"""What is to be segmented: each image of each file, and the name that its results bear."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nucleate.errors import ImageError
from nucleate.io.axes import name_of
from nucleate.io.reader import scenes
from nucleate.io.stack import Choice, Scene, planes
from nucleate.types import Plane

_AT_ONCE = 8  # files whose beginnings are read; each may wait for a disk far away


@dataclass(frozen=True, slots=True)
class Source:
    """One image: its file, the `name` of its results, with the folder below --out that they go to before it, and which
    image of the file it is. `stack` is the name of the results of all planes of a stack together, None where it is no
    part of one; `refused` a sentence where there is no such image."""

    path: Path
    name: str
    plane: Plane = field(default_factory=Plane)
    stack: str | None = None
    refused: str | None = None

    @property
    def stem(self) -> str:
        """How the names of its files begin."""
        return self.name.rpartition("/")[2]

    def folder(self, out: Path) -> Path:
        """Where its results go."""
        return out / self.name.rpartition("/")[0]


def sources(
    images: Sequence[Path], choice: Choice | None = None, remembered: Choice | None = None
) -> tuple[list[Source], list[str]]:
    """Every image of these files that is asked for, and a sentence for each file that holds several; where the `choice`
    says nothing of stacks, what is `remembered` counts.

    Those of a file that holds several are named NAME_s1, NAME_s2 and so on; the planes of a stack, where each of them
    is asked for, NAME_planes/NAME_t1_z1 and so on.
    """
    asked = choice or Choice()
    choice = asked.over(remembered or Choice())
    images = [*{os.path.abspath(path): path for path in images}.values()]  # noqa: PTH100 - resolve() would follow links
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        held = list(pool.map(scenes, images))
    found, notes, names = list[Source](), list[str](), unique_names(images)
    for path, name, inner in zip(images, names, held, strict=True):
        if len(inner) > 1 and any(f"{name}_s{number}" in names for number in range(1, len(inner) + 1)):
            name = name.removesuffix(name_of(path)) + path.name
        try:
            found += [_source(path, name, end, plane) for end, plane in planes(inner, choice, path)]
        except ImageError as error:
            found.append(Source(path, name, refused=str(error)))
            continue
        if len(inner) > 1 and choice.scene is None:
            notes.append(_several(path, name, inner))
    if choice != asked and any(scene.stack for inner in held for scene in inner):
        words = " ".join(choice.words())
        notes.append(f"Stacks are taken as those that the model was trained on, as with {words}.")
    if stacks := len({one.stack for one in found} - {None}):
        what = "The stack is" if stacks == 1 else f"{stacks} stacks are"
        notes.append(
            f"{what} segmented plane by plane: nothing is linked between planes, and numbers begin at 1 in each."
        )
    return found, notes


def _source(path: Path, name: str, end: str, plane: Plane) -> Source:
    """One image of a file; `end` tells it from the others."""
    scene = f"_s{plane.series}" if plane.series else ""
    if end == scene:
        return Source(path, name + scene, plane)
    stack = name + scene
    return Source(path, f"{stack}_planes/{stack.rpartition('/')[2]}{end.removeprefix(scene)}", plane, stack)


def _several(path: Path, name: str, inner: Sequence[Scene]) -> str:
    named = ", ".join(
        f"{one.name} ({name}_s{number})" if one.name else f"{name}_s{number}" for number, one in enumerate(inner, 1)
    )
    return f"{path} holds {len(inner)} images, each of which has its own results: {named}."


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file that no other has: its own without the ending where that will do.

    Where files of different folders are named alike, all names begin with the folders below the one that holds them
    all. Where files of one folder are, theirs keep the ending. Capitals alone tell no files apart, as on some disks.

    >>> unique_names([Path("a/x.tif"), Path("b/y.ome.tif")])
    ['x', 'y']
    >>> unique_names([Path("plate/1/A01.tif"), Path("plate/2/A01.tif"), Path("plate/2/A02.tif")])
    ['1/A01', '2/A01', '2/A02']
    >>> unique_names([Path("A01.tif"), Path("A01.jpg"), Path("A02.tif")])
    ['A01.tif', 'A01.jpg', 'A02']
    """
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - resolve() would follow links
    names = [name_of(path) for path in paths]
    folders = {(name.casefold(), path.parent) for name, path in zip(names, whole, strict=True)}
    if len({name for name, _ in folders}) < len(folders):
        common = os.path.commonpath([path.parent for path in whole])
        names = [(path.parent.relative_to(common) / name_of(path)).as_posix() for path in whole]
    full = [name.removesuffix(name_of(path)) + path.name for name, path in zip(names, paths, strict=True)]
    while shared := {name for name, count in Counter(map(str.casefold, names)).items() if count > 1}:
        longer = [end if name.casefold() in shared else name for name, end in zip(names, full, strict=True)]
        if longer == names:
            break  # they differ in their capitals alone
        names = longer
    return names
