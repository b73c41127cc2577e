"""What became of each image of a prediction, and what there is to say of them together."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from nucleate.io.prediction_json import is_unlike


@dataclass(frozen=True, slots=True)
class Segmented:
    """An image that was segmented: how many nuclei it holds, how many of them may be larger than what was found,
    sentences for the person who asked, the files of an earlier run that no longer fit and were removed, remarks on the
    result, which NAME.json has, too, and the `novelty` of the image, how far it lies from those of the training."""

    count: int
    megapixels: float
    bounded: int = 0
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    novelty: float | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that an earlier run had segmented already, with the same model and options."""

    count: int
    megapixels: float
    novelty: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that cannot be used, and why."""

    reason: str


ImageResult = Segmented | Skipped | Failed


def to_json(result: ImageResult) -> dict[str, Any]:
    """A result as JSON can hold it.

    >>> from_json(to_json(Failed("x.tif is cut.")))
    Failed(reason='x.tif is cut.')
    """
    return {"kind": type(result).__name__, **asdict(result)}


def from_json(sent: dict[str, Any]) -> ImageResult:
    """The result of which `to_json` was sent."""
    kinds: dict[str, Callable[..., ImageResult]] = {kind.__name__: kind for kind in (Segmented, Skipped, Failed)}
    values: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in sent.items() if name != "kind"
    }
    return kinds[sent["kind"]](**values)


@dataclass(frozen=True, slots=True)
class Summary:
    """What `predict` did: the result for each image, by the name of its files, in their order; `said` is what there is
    to say of all together."""

    results: dict[str, ImageResult]
    said: tuple[str, ...] = ()

    @property
    def nuclei(self) -> dict[str, int]:
        """How many nuclei each image has, by its name."""
        return {name: one.count for name, one in self.results.items() if not isinstance(one, Failed)}

    @property
    def failed(self) -> list[str]:
        """A sentence for each image that could not be used."""
        return [one.reason for one in self.results.values() if isinstance(one, Failed)]

    @property
    def notes(self) -> list[str]:
        """What else there is to say."""
        segmented = [one for one in self.results.values() if isinstance(one, Segmented)]
        notes = [*self.said, *(note for one in segmented for note in one.notes), *self._remarks()]
        removed = [file for one in segmented for file in one.removed]
        if removed:
            files = f"{removed[0]} was" if len(removed) == 1 else f"{len(removed)} files, {removed[0]} among them, were"
            notes.append(f"{files} of an earlier run with another model or other options, and so removed.")
        return notes

    def _remarks(self) -> list[str]:
        """Those on all images; what is so of many is said once, with the numbers of the first."""
        said: dict[str, list[tuple[str, str]]] = {}
        for name, one in self.results.items():
            for remark in one.remarks if isinstance(one, Segmented) else ():
                said.setdefault(re.sub(r"\d[\d.]*", "0", remark), []).append((name, remark))
        alike = [(len(found), *found[0]) for found in said.values()]
        return [
            f"{name}: {remark}" if count == 1 else f"{count} images, such as {name}: {remark}"
            for count, name, remark in alike
        ]

    @property
    def unlike(self) -> list[str]:
        """The images that look unlike anything that the model was trained on, the most unlike first."""
        known = {name: one.novelty or 0.0 for name, one in self.results.items() if not isinstance(one, Failed)}
        return sorted((name for name in known if is_unlike(known[name])), key=lambda name: -known[name])

    @property
    def bounded(self) -> dict[str, int]:
        """By image with such nuclei, how many may be larger than what was found of them."""
        segmented = {name: one for name, one in self.results.items() if isinstance(one, Segmented)}
        return {name: one.bounded for name, one in segmented.items() if one.bounded}
