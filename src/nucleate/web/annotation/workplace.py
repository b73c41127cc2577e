"""What `nucleate annotate` works on: the tiles, what a person says of them, and the model that learns from it."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.errors import InputError
from nucleate.types import Labels
from nucleate.web.annotation.guesses import Guess, Guesses, Order
from nucleate.web.annotation.learner import Input, Learner, entropy
from nucleate.web.annotation.pictures import Pictures
from nucleate.web.annotation.places import SIDE, Place, Places
from nucleate.web.annotation.sheet import UNKNOWN, Sheet, tile_of
from nucleate.web.annotation.worker import Worker

STORE = "annotation"
"""The folder in that of the model in which the strokes are kept."""

_OPEN = 16  # sheets
_SHOWN = 30  # tiles that were done, and updates, on the page


class Workplace:
    """The tiles of the images in `folder`; what is said of them is kept in `store`. May be used by several threads.

    Args:
        learner: the model. One thread records and learns, another predicts.
        takes: what it takes.
        order, seed: which tile comes next; see `Guesses`.
        channel: of several the one to look at.
        side: pixels; the longest side of a tile.
    """

    def __init__(
        self,
        folder: Path,
        learner: Learner,
        takes: Input,
        store: Path,
        *,
        order: Order = "entropy",
        seed: int = 0,
        channel: str | None = None,
        side: int = SIDE,
    ) -> None:
        self.places = Places(folder, side)
        self.notes = list(self.places.notes)
        self.pictures = Pictures(self.places.sources, takes, channel)
        self._store, self._learner, self._lock = store, learner, threading.RLock()
        self._log = list(learner.log())
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()
        self._known: dict[str, Place] = {}
        self._state: dict[str, str] = {}  # of each tile that was touched: open, skipped, done
        self._visited: dict[str, None] = {}  # in order
        self._handed: set[int] = set()
        self._taken: set[int] = set()
        self._guesses = Guesses(self.places.shuffled(seed), order, self._predict)
        pending = self._resume()
        # A person who waits for a suggestion does not wait for a learning pass.
        self._learning, self._looking = Worker(self._has_learnt), Worker(self._look_ahead)
        for place, mark in pending:
            self._have_learnt(place, mark)
        self._learning.start()
        self._looking.start()

    def close(self) -> None:
        """End; a learning pass that has begun is finished, and those that wait are done at the next start."""
        self._looking.close()
        self._learning.close()
        self.pictures.close()

    def place(self, tile: str) -> Place:
        """The tile of this id; raises `InputError` for one that was not handed out."""
        if tile not in self._known:
            raise InputError("There is no such tile.")
        return self._known[tile]

    @contextmanager
    def sheet(self, tile: str) -> Iterator[Sheet]:
        """What was said of a tile, for one thread at a time."""
        place = self.place(tile)
        with self._lock:
            yield self._sheet(place)

    def next(self) -> Place | None:
        """The tile that a page shows next; no tile that is done comes again.

        One that was begun before the start comes first.
        """
        with self._lock:
            begun = (self._known[tile].number for tile, state in self._state.items() if state == "open")
            number = next((number for number in begun if number not in self._handed), None)
            if number is None:
                number = self._guesses.best(self._taken | self._handed)
            if number is None:  # but what a page was given and left
                number = min(self._handed - self._taken, default=None)
            if number is None:
                return None
            self._handed.add(number)
            place = self._know(number)
        self._looking.wake()
        return place

    def about(self, tile: str) -> dict[str, Any]:
        """What the page must know of a tile."""
        with self.sheet(tile) as sheet:
            place, tab, revision = self.place(tile), sheet.new_tab(), sheet.revision
            edits = [edit.as_json() for edit in sheet.recent()]
        with self.pictures.image(place.image) as picture:
            image = picture.about()
        box = [place.box.y, place.box.x, place.box.height, place.box.width]
        return {"tile": tile, "image": place.image, "box": box, "tab": tab, "revision": revision, "edits": edits} | {
            "picture": image
        }

    def guess(self, tile: str) -> Guess | None:
        """What the model finds in a tile; None while it is not known."""
        number = self.place(tile).number
        guess = self._guesses.get(number)
        why = self._guesses.failed(number)
        if why is not None:
            raise InputError(f"The model cannot look at this tile. {why}")
        if guess is None or guess.version < len(self._log):
            self._looking.do(f"looking at tile {number}", lambda: self._look(number))
        return guess

    def finish(self, tile: str) -> bool:
        """A person has said of a tile what there is to say: it is learnt from. Where nothing was said, it is left."""
        with self.sheet(tile) as sheet:
            place = self.place(tile)
            state = "done" if sheet.said else "skipped"
            done = [mark for mark in sheet.marks if mark.get("mark") in ("done", "skipped")]
            again = bool(done) and done[-1]["revision"] == sheet.revision and done[-1]["mark"] == state
            if not again:
                mark = {"mark": state, "revision": sheet.revision}
                sheet.mark(**mark)
                if state == "done":
                    self._have_learnt(place, mark)
            self._note(place, state)
        return state == "done"

    def report(self) -> dict[str, Any]:
        """For the side panel."""
        log, learning = self._log, self._learning
        scores = [one.before for one in log]
        known = [score for score in scores if score is not None]
        last = log[-1] if log else None
        with self._lock:
            earlier = [
                {"tile": one, "name": self._title(self._known[one]), "state": self._state.get(one, "open")}
                for one in list(self._visited)[-_SHOWN:]
            ]
            counts = {"tiles": len(self.places), "done": sum(state == "done" for state in self._state.values())}
        return {
            **counts,
            "earlier": earlier,
            "corrections": len(log),
            "nuclei": sum(one.nuclei for one in log),
            "scores": scores[-_SHOWN:],
            "prequential": sum(known) / len(known) if known else None,
            "sentinel": None if last is None else last.sentinel,
            "sentinelBefore": None if last is None else last.sentinel_before,
            "takenBack": last is not None and last.taken_back,
            "drift": any(one.drift for one in log),
            "seconds": None if last is None else last.seconds,
            "learning": learning.doing is not None,
            "waiting": len(learning.waiting()),
            "problem": learning.problem or self._looking.problem,
            "order": self._guesses.order,
        }

    def _title(self, place: Place) -> str:
        source, box = self.places.sources[place.image], place.box
        return source.name if box.shape == source.shape else f"{source.name}, {box.y} {box.x}"

    def _know(self, number: int) -> Place:
        place = self.places[number]
        self._known[place.id] = place
        self._visited[place.id] = None
        return place

    def _note(self, place: Place, state: str) -> None:
        self._state[place.id] = state
        self._handed.add(place.number)
        self._taken.add(place.number)

    def _sheet(self, place: Place) -> Sheet:
        sheet = self._sheets.get(place.id)
        if sheet is None:
            source, box = self.places.sources[place.image], place.box
            about = {"image": source.name, "series": source.series, "box": [box.y, box.x, box.height, box.width]}
            sheet = Sheet(self._store / f"{place.id}.jsonl", {"tile": place.number, **about}, box.shape)
        self._sheets[place.id] = sheet
        self._sheets.move_to_end(place.id)
        while len(self._sheets) > _OPEN:
            self._sheets.popitem(last=False)
        return sheet

    def _resume(self) -> list[tuple[Place, dict[str, Any]]]:
        """Find the tiles of which something was said before, and what is not learnt from yet."""
        if not self._store.is_dir():
            return []
        pending: list[tuple[Place, dict[str, Any]]] = []
        learnt = {one.name for one in self._log}
        for file in sorted(self._store.glob("*.jsonl")):
            number = tile_of(file)
            if number >= len(self.places) or self.places[number].id != file.stem:
                self.notes.append(f"{file.name} is of an image that is not in this folder as it was: it is left alone.")
                continue
            place = self._know(number)
            marks = self._sheet(place).marks
            states = [mark for mark in marks if mark.get("mark") in ("done", "skipped")]
            if not states:
                self._state[place.id] = "open"
                continue
            self._note(place, "done" if any(mark["mark"] == "done" for mark in states) else "skipped")
            recorded = {mark["revision"] for mark in marks if mark.get("mark") == "recorded"}
            pending += [
                (place, mark)
                for mark in states
                if mark["mark"] == "done"
                and mark["revision"] not in recorded
                and self._name(place, mark["revision"]) not in learnt
            ]
        return pending

    def _name(self, place: Place, revision: int) -> str:
        """The name of a correction, which may be that of a file."""
        plain = re.sub(r"[^\w.-]+", "_", self.places.sources[place.image].name)
        return f"{plain}_y{place.box.y}_x{place.box.x}_r{revision}"

    def _have_learnt(self, place: Place, mark: dict[str, Any]) -> None:
        revision = int(mark["revision"])
        self._learning.do(self._name(place, revision), lambda: self._learn(place, revision))

    def _learn(self, place: Place, revision: int) -> None:
        with self._lock:
            labels = numbered(self._sheet(place).at(revision))
        with self.pictures.image(place.image) as picture:
            image, window = picture.crop(place.box), picture.window
        number = self._learner.record(image, labels, self._name(place, revision), place.box, window)
        with self._lock:
            self._sheet(place).mark(mark="recorded", revision=revision, number=number)
        self._learner.learn(number)
        self._log = list(self._learner.log())

    def _has_learnt(self) -> bool:
        """Nothing is left to be learnt from: the other thread may look ahead."""
        self._looking.wake()
        return False

    def _predict(self, number: int) -> Guess:
        place, version = self.places[number], len(self._log)
        with self.pictures.image(place.image) as picture:
            labels, maps = self._learner.predict(picture.normalised(place.box), picture.median)
        return Guess(labels, entropy(maps.foreground), version)

    def _look(self, number: int) -> None:
        guess = self._guesses.get(number)
        if guess is None or guess.version < len(self._log):
            self._guesses.make(number)

    def _look_ahead(self) -> bool:
        """Predict one tile of those that may come next; not while the model learns, as it will be another then."""
        if self._learning.doing is not None or self._learning.waiting():
            return False
        with self._lock:
            number = self._guesses.oldest(self._taken | self._handed, len(self._log))
        if number is None:
            return False
        self._guesses.make(number)
        return True


def numbered(labels: Labels) -> Labels:
    """Labels whose nuclei are numbered from 1 in the order of their old numbers.

    >>> numbered(np.array([[-1, 0, 65537, 9]], np.int32)).tolist()
    [[-1, 0, 2, 1]]
    """
    found = np.unique(labels[labels > 0])
    dense = np.where(labels > 0, np.searchsorted(found, labels) + 1, np.where(labels < 0, UNKNOWN, 0))
    return dense.astype(np.int32)
