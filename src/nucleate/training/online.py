"""On-line (incremental) learning: predict, score, then learn from one corrected tile; the cost does not grow.

A correction is on the disk (`journal`) before it is learnt from. An update (`update`) is a bounded number of steps, and
a function of the state before and of the correction alone; its result takes the place of the state before in one
renaming (`learner_state`). So a process that is killed at any moment leaves the model before or the model after, and
the next one learns what is left, to the same weights, bit for bit.

The prequential score, that of each tile before it is learnt, is that of Dawid, Statistical theory: the prequential
approach, J. R. Statist. Soc. A 147 (1984) 278.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nucleate.data.channels import choose_channels, with_places
from nucleate.data.normalization import between, inverted, percentiles, with_channels
from nucleate.errors import ImageError, ModelError
from nucleate.io.atomic import atomic
from nucleate.io.lock import Lock
from nucleate.io.reader import MemoryReader
from nucleate.networks import store
from nucleate.networks.manifest import Manifest
from nucleate.networks.runtime import device, keep_memory, place, prefers_bfloat16
from nucleate.networks.unfold import unfolded
from nucleate.postprocess.instances_from_maps import instances_from_maps
from nucleate.training.hold_out import Pair
from nucleate.training.journal import Correction, Journal, Undo, Update, now
from nucleate.training.learner_state import FOLDER, LearnerState, Numbers, commit, read_state, restore_base
from nucleate.training.lesson import Teacher
from nucleate.training.parallel import Threads
from nucleate.training.polarity import is_opposite, seen
from nucleate.training.replay import Memory, Reservoir, renumbered
from nucleate.training.telling import tell
from nucleate.training.update import OnlineConfig, tensors_of
from nucleate.types import Box, Image, Labels, Maps

__all__ = ["OnlineConfig", "OnlineLearner", "Update"]

LARGEST = 4096 * 4096
"""Pixels of a correction."""

DRAWN = "online/replay.safetensors"
"""Crops of drawn images, of a model that was saved without crops of its own."""


class OnlineLearner:
    """A model folder that learns from corrections; one process at a time.

    Use it in a `with` block, which holds the folder's lock and the threads.

    Args:
        folder: the model folder.
        config: how an update goes; the same for all updates of a model, for they are repeated after a crash.
        warn: is told what a person should know, as a sentence.

    Raises:
        ModelError: the folder is none, belongs to the package, or its model cannot learn on.
        OutputError: another process holds it.
    """

    @classmethod
    def open(
        cls, folder: Path, config: OnlineConfig | None = None, warn: Callable[[str], None] | None = None
    ) -> OnlineLearner:
        """As the constructor, which see."""
        return cls(folder, config, warn)

    def __init__(
        self, folder: Path, config: OnlineConfig | None = None, warn: Callable[[str], None] | None = None
    ) -> None:
        self.folder, self.config, self._warn = folder, config or OnlineConfig(), warn or (lambda _: None)
        manifest = store.read_manifest(folder)
        self._lock = _lock(folder)
        try:
            self.journal = Journal(folder)
            self._standing = self.journal.standing()
            before = manifest.corrections
            if before is not None and before.through <= self._standing.undone:
                restore_base(folder)  # a process was killed after it wrote of this, and before it was done
            self._threads = Threads()
            self._load()
        except BaseException:
            self._lock.release()
            raise
        keep_memory()

    def _load(self) -> None:
        """The model and the state as the folder holds them."""
        self.model = model = store.read(self.folder)
        self.architecture = model.network.architecture
        if self.architecture.classes != 2:
            raise ModelError(
                f"{self.folder} tells {self.architecture.classes} classes of pixels apart: on-line learning knows two."
            )
        self.teacher = Teacher(
            self._read_memory(), model.thresholds, self.config, prefers_bfloat16(device()), self._threads
        )
        state = read_state(self.folder, model.manifest)
        if state is None:
            network = place(unfolded(model.network), device())
            numbers = Numbers(through=self._standing.undone)
            self.state = LearnerState(tensors_of(network, network, None), Reservoir(), numbers)
        else:
            self.state = state
            through = state.numbers.through
            if through in self._standing.corrections and through not in self._standing.learnt:
                self._log()  # a process was killed after the update and before it noted it
        self.serving = self.teacher.serving(model.network)
        self._tell(model.manifest)  # as one may have been killed before it did

    def _read_memory(self) -> Memory:
        manifest, channels = self.model.manifest, self.architecture.channels
        if manifest.replay_sha256 is not None:
            path = self.folder / store.REPLAY
            return Memory.decoded(store.described(path, manifest.replay_sha256), path, channels)
        path = self.folder / DRAWN
        if not path.exists():
            self._warn(
                f"{self.folder} holds no images of its training: drawn images take their place, to remind it and to"
                " watch over what it forgets."
            )
            with atomic(path) as file:
                file.write(Memory.drawn(channels).encoded())
        return Memory.decoded(path.read_bytes(), path, channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back and end the threads."""
        self._threads.__exit__(None, None, None)
        self._lock.release()

    def predict(self, image: NDArray[np.float32], median: float | None = None) -> tuple[Labels, Maps]:
        """The nuclei of a normalised image (channels, H, W), by the averaged weights; no effect on the state.

        `median` is that of the whole image, normalised, where `image` is a tile of it; see `polarity`.
        """
        maps = self.serving(seen(image, self.state.numbers.levels, median))
        return instances_from_maps(maps, self.model.thresholds).labels, maps

    def record(
        self,
        image: Image,
        labels: Labels,
        name: str,
        box: Box | None = None,
        window: tuple[float, float] | None = None,
    ) -> int:
        """Put a correction on the disk; it is durable when this returns. Gives its number.

        Args:
            image: the tile, or with `box` the whole image, of which the tile is cut.
            labels: (H, W) of the tile: 0 background, above 0 a nucleus each, below 0 unknown.
            name: of the tile.
            box: where the tile lies in its image.
            window: the intensities that become 0 and 1; by default those of the pixels of `image`.

        Raises:
            ImageError: image and labels do not fit together, or the image does not fit the model.
        """
        manifest, channels = self.model.manifest, self.architecture.channels
        places, _ = choose_channels(MemoryReader(image), manifest.data.channels, channels)
        image = with_places(image, places)
        if window is None:
            pixels = with_channels(image.pixels, image.channels, channels, image.name)
            levels = self.model.normalisation.low, self.model.normalisation.high
            low, high = percentiles(pixels, levels).tolist()
            window = low, high
        if box is not None and image.pixels.shape[:2] != labels.shape:
            image = replace(image, pixels=image.pixels[box.y : box.bottom, box.x : box.right])
        if image.pixels.shape[:2] != labels.shape:
            (height, width), (rows, columns) = image.pixels.shape[:2], labels.shape
            raise ImageError(
                f"{name}: the mask is {columns} x {rows} pixels, its image {width} x {height}: give both at one size."
            )
        if labels.size > LARGEST:
            raise ImageError(f"{name} has more than {LARGEST:,} pixels: correct a part of it, and give that.")
        labels, number = renumbered(labels), self._standing.number + 1
        tile = between(with_channels(image.pixels, image.channels, channels, image.name), *window, channels), labels
        if is_opposite(tile, self.teacher.memory.contrast):
            window = window[1], window[0]
        correction = self.journal.record(number, image, labels, name, window, box)
        self._standing.number = number
        self._standing.corrections[number] = correction
        return number

    @property
    def recorded(self) -> int:
        """The number of the last correction; 0 where there is none."""
        return self._standing.number

    def waiting(self) -> list[int]:
        """The numbers of the corrections that are recorded and not learnt, in their order."""
        return sorted(one for one in self._standing.corrections if one > self.state.numbers.through)

    def catch_up(self) -> list[Update]:
        """Learn the corrections that were recorded and not learnt, as after a crash."""
        return [self.learn(number) for number in self.waiting()]

    def learn(self, number: int) -> Update:
        """Learn from a recorded correction, in bounded time; what was recorded before it is learnt first.

        Raises:
            ModelError: there is no such correction, or its files were changed.
        """
        if number not in self._standing.corrections:
            raise ModelError(f"{self.folder} holds no correction {number} that could be learnt: record it first.")
        for one in self.waiting():
            if one <= number:
                self._learn(self._standing.corrections[one])
        return next(update for update in reversed(self.log()) if update.number == number)

    def tile(self, number: int) -> Pair:
        """A recorded correction as the network learns from it: normalised, inverted where its nuclei are dark and those
        of the training bright, or the reverse (`polarity`); and its labels, 1..N, -1 where unknown."""
        correction, channels = self._standing.corrections[number], self.architecture.channels
        image, labels = self.journal.read(correction)
        pixels = with_channels(image.pixels, image.channels, channels, image.name)
        return between(pixels, *correction.window, channels), renumbered(labels)

    def plain(self, number: int) -> NDArray[np.float32]:
        """A recorded correction, normalised and not inverted."""
        turned = self._standing.corrections[number].window
        image = self.tile(number)[0]
        return inverted(image) if turned[0] > turned[1] else image

    def _learn(self, correction: Correction) -> None:
        begin = time.monotonic()
        tile = self.tile(correction.number)
        turned = correction.window[0] > correction.window[1]
        state, average = self.teacher.lesson(
            self.state, self.serving, tile, correction.number, correction.nuclei, turned=turned
        )
        # It goes on from what the disk holds, as another process would.
        manifest = commit(self.folder, state, average)
        self.state = read_state(self.folder, manifest) or state
        if average is not None:
            self.serving = self.teacher.serving(average)
        self._log(time.monotonic() - begin)
        self._tell(manifest)

    def _log(self, seconds: float = 0.0) -> None:
        """Note the last update in the journal."""
        numbers = self.state.numbers
        correction = self._standing.corrections[numbers.through]
        assert numbers.sentinel is not None and numbers.sentinel_before is not None
        update = Update(
            number=correction.number,
            name=correction.name,
            time=correction.time,
            nuclei=correction.nuclei,
            before=numbers.before,
            after=numbers.after,
            sentinel_before=numbers.sentinel_before,
            sentinel=numbers.sentinel,
            taken_back=numbers.last_taken_back,
            drift=numbers.drift,
            seconds=round(seconds, 3),
            software=correction.software,
        )
        self.journal.add(update)
        self._standing.learnt[update.number] = update

    def _tell(self, manifest: Manifest) -> None:
        tell(self.folder, manifest.corrections, list(self._standing.learnt.values()))

    def undo(self) -> None:
        """Back to before any correction, bit for bit. The corrections stay as files, for off-line training."""
        _undo(self.folder)
        self._standing = self.journal.standing()
        self._load()

    def log(self) -> list[Update]:
        """All updates, in their order."""
        return self.journal.updates()


def undo(folder: Path) -> None:
    """As `OnlineLearner.undo`, also of a model whose state is damaged."""
    store.read_manifest(folder)
    lock = _lock(folder)
    try:
        _undo(folder)
    finally:
        lock.release()


def _undo(folder: Path) -> None:
    journal = Journal(folder)
    standing = journal.standing()
    if standing.number > standing.undone:
        journal.add(Undo(now(), standing.number))
    restore_base(folder)
    tell(folder, None, ())


def _lock(folder: Path) -> Lock:
    if folder.resolve() in store.embedded_folders():
        raise ModelError(
            f"{folder.name} belongs to the package and is never changed: say with --out where a copy should learn."
        )
    return Lock(folder / FOLDER / "lock", f"{folder} is learning in another process: wait for its end")
