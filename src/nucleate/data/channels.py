"""Which of an image's channels a network sees: the one that a person names, or the one whose name or pixels leave no
choice. Where they do, an error asks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nucleate.data.colours import is_grey, is_table, of_colours, sample
from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import GREY, RGB, numbered, uncounted
from nucleate.io.base import Reader
from nucleate.types import Image

ALL = "all"
"""What is given for a channel to learn from all of them."""

STAINS = frozenset({"dapi", "hoechst", "draq5", "draq7", "h2b"})
"""Words in the names of channels that show nuclei, whatever else the name says."""

NUCLEI = frozenset({"nuclei", "nucleus", "nuclear", "nuc", "dna", "blue", "405", "33342", "33258"})
"""The same where the rest of the name says nothing: "405 nm", but not "Alexa 405"."""

_SAYS_NOTHING = frozenset(
    {
        *("c", "ch", "channel", "confocal", "em", "ex", "fluorescence", "h", "laser", "marker", "nm", "stain"),
        *("staining", "widefield"),
    }
)
_WORD = re.compile(r"h2b|draq\d|[^\W\d_]+|\d+")

_LISTED = 12  # an image of more channels is one whose axes are wrong


def plain(name: str) -> str:
    """The name of a channel without what programs add to it: case, counters, punctuation. The name itself, in lower
    case, where nothing else is in it.

    >>> plain("DAPI - c:1/2"), plain("Ch1-Hoechst_33342"), plain("channel 2"), plain("w1DAPI")
    ('dapi', 'hoechst 33342', 'channel 2', 'dapi')
    """
    return " ".join(_words(name)) or name.lower()


def shows_nuclei(name: str) -> bool:
    """Whether a channel of this name shows nuclei, as far as names tell.

    >>> [shows_nuclei(name) for name in ("Hoechst 33342", "405 nm", "Nuclei", "GFP", "Alexa 405", "anti-DAPI")]
    [True, True, True, False, False, False]
    """
    words = {word for word in _words(name) if len(word) > 2 or not word.isdecimal()}
    if words & {"anti", "non", "no", "not"}:
        return False
    return bool(words & STAINS) or bool(words & NUCLEI and words <= NUCLEI | _SAYS_NOTHING)


def _words(name: str) -> list[str]:
    return _WORD.findall(uncounted(name).lower())


def listed(channels: Sequence[str]) -> str:
    """Channels by name and number.

    >>> listed(("DAPI", "GFP"))
    'DAPI (1), GFP (2)'
    """
    return ", ".join(f"{name} ({number})" for number, name in enumerate(channels, 1))


def index_of(channel: str | int, channels: Sequence[str], where: object) -> int:
    """The place among `channels` of the one given by its name, case and counters aside, or by its number from 1.

    >>> [index_of(one, ("DAPI - c:1/2", "GFP - c:2/2"), "cells.tif") for one in ("gfp", "DAPI - c:1/2", 2)]
    [1, 0, 1]
    """
    wanted = str(channel)
    found = _named(wanted, channels)
    if found is not None:
        return found
    if wanted.isdecimal() and 1 <= int(wanted) <= len(channels):
        return int(wanted) - 1
    if len(channels) == 1:
        raise ImageError(f"{where} has no channel {wanted!r}, but one alone: leave --channel out.")
    raise ImageError(f"{where} has no channel {wanted!r}: choose one of {listed(channels)}, by name or by number.")


def _named(wanted: str, channels: Sequence[str]) -> int | None:
    """The place of the only channel of that name."""
    for form in (str, str.lower, plain):
        places = [place for place, name in enumerate(channels) if form(name) == form(wanted)]
        if len(places) == 1:
            return places[0]
    return None


def pick(image: Image, channel: str | int) -> Image:
    """The image with one of its channels, given as for `index_of`; all of it for `ALL`.

    Raises `ImageError` naming the channels that there are.

    >>> image = Image("cells", np.zeros((4, 5, 2), np.uint8), ("DAPI", "GFP"))
    >>> pick(image, "dapi").channels, pick(image, 2).channels
    (('DAPI',), ('GFP',))
    """
    if channel == ALL:
        return image
    return with_places(image, (index_of(channel, image.channels, image.path or image.name),))


def with_places(image: Image, places: Sequence[int]) -> Image:
    """The image with the channels at these places, in this order."""
    channels = tuple(image.channels[place] for place in places)
    return replace(image, pixels=np.ascontiguousarray(image.pixels[..., list(places)]), channels=channels)


def ordered(channels: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """The places among `channels` of all that are `wanted`, by their names; None where one is missing.

    >>> ordered(("GFP", "DAPI - c:2/2"), ("DAPI", "GFP")), ordered(("GFP", "RFP"), ("DAPI", "GFP"))
    ((1, 0), None)
    """
    places = [_named(name, channels) for name in wanted]
    found = tuple(place for place in places if place is not None)
    return found if len(found) == len(set(found)) == len(wanted) else None


def choose_channels(
    reader: Reader, trained: Sequence[str], count: int, channel: str | int | None = None
) -> tuple[tuple[int, ...], str | None]:
    """Which channels of an image a network takes that sees `count` of them, those named `trained` when it was trained.

    A channel that is named is taken. Without, the model's own channels are taken by their names; by a model of one
    channel for nuclei, the only channel whose name says that it shows nuclei; and of colours, all where they show one
    thing or stained tissue, the only one that shows something where the others are empty.

    Returns:
        The places of the channels, in the order in which the model takes them; several for a model of one are seen as
        their mean. And a sentence, where a person should know which were taken.

    Raises:
        ImageError: it is for a person to say which.
    """
    names = reader.channels
    every = tuple(range(len(names)))
    if channel is not None:
        return (index_of(channel, names, reader.path or f"The {reader.name}"),), None
    if len(names) == 1 and (count == 1 or tuple(trained) == RGB):
        return every, None
    own = ordered(names, trained)
    if own is not None and len(own) == count:
        return own, f"{' + '.join(names[i] for i in own)} of {', '.join(names)} is taken." if own != every else None
    if count > 1:
        return _several(reader, trained, count)
    if names == RGB:
        return _colours(reader)
    kin = [place for place, name in enumerate(names) if shows_nuclei(name)]
    if len(kin) == 1 and (trained[0] in GREY or shows_nuclei(trained[0])):
        return (kin[0],), f"{names[kin[0]]} of {', '.join(names)} is taken."
    raise ImageError(f"{_has(reader)}, and the model needs 1: {_ask(reader)}")


def _has(reader: Reader) -> str:
    names = reader.channels
    if _is_array(reader):
        return f"The {reader.name} has {len(names)} channels and {reader.shape[0]} x {reader.shape[1]} pixels"
    if names == numbered(len(names)) or len(names) > _LISTED:
        return f"{reader.path or reader.name} has {len(names)} channels{' without names' * (len(names) <= _LISTED)}"
    return f"{reader.path or reader.name} has the channels {listed(names)}"


def _is_array(reader: Reader) -> bool:
    """Whether it is an array, which names no channels; its axes may be wrong."""
    return reader.path is None and reader.channels in (RGB, numbered(len(reader.channels)))


def _ask(reader: Reader) -> str:
    if _is_array(reader):
        return "name the axis of the channels with channel_axis, or choose one channel with channel."
    return f"choose one by name or number, such as --channel {_example(reader.channels)}; numbers count from 1."


def _example(names: Sequence[str]) -> str:
    """A channel as it is typed."""
    kin = [place for place, name in enumerate(names) if shows_nuclei(name)] or [0]
    name = names[kin[0]]
    return name if re.fullmatch(r"[\w.]+", name) else str(kin[0] + 1)


def _several(reader: Reader, trained: Sequence[str], count: int) -> tuple[tuple[int, ...], str | None]:
    """The channels for a model of several, where not all of them are found by their names."""
    names = reader.channels
    every = tuple(range(len(names)))
    unnamed = tuple(names) == numbered(len(names)) or tuple(trained) in (RGB, numbered(count))
    if len(names) == count and unnamed and (tuple(trained) == RGB) == (tuple(names) == RGB):
        return every, f"{', '.join(names)} are taken, in this order, for {', '.join(trained)}."
    raise ImageError(
        f"{_has(reader)}, and the model needs {count}, {', '.join(trained)}: export the image with these channels, or"
        " choose one channel or another model."
        if not _is_array(reader)
        else f"{_has(reader)}, and the model needs {count}: {_ask(reader)}"
    )


def _colours(reader: Reader) -> tuple[tuple[int, ...], str | None]:
    """The channels that a model of one takes of colours."""
    pixels = sample(reader)
    shown = of_colours(pixels)
    if shown is None and is_table(pixels):
        return (0, 1, 2), "its colours come from a table, and their mean is taken: save it in grey to be sure."
    if shown is None:
        raise ImageError(f"{reader.path or reader.name} is a colour image {_DIFFER} {_ask(reader)}")
    return shown, f"only {RGB[shown[0]]} shows something, and it is taken." if len(shown) == 1 else None


_DIFFER = "whose red, green and blue show different things on a dark ground, as several stains do:"


def question(image: Image) -> str | None:
    """What is to be asked about the channels of an image; None where they leave no choice."""
    if image.channels == RGB and of_colours(image.pixels) is None and not is_table(image.pixels):
        return f"This is a colour image {_DIFFER} choose one with --channel red, green or blue."
    return None


def common(images: Sequence[Image], where: object, channel: str | int | None) -> tuple[list[Image], tuple[str, ...]]:
    """Images with the channels to learn from, the same in each, and the names of these.

    The one that is given; else one where every image is grey, also if stored as red = green = blue, and where only one
    of the colours of each shows something; else all, in the order of the first image that has several. A grey image
    among images of several channels stays as it is.

    Raises:
        DatasetError: the images have other channels, or another number of them.
        ImageError: an image lacks the channel, or is a colour image of several stains and none is given.
    """
    images = [image if channel is None else pick(image, channel) for image in images]
    several = [
        image for image in images if not (len(image.channels) == 1 or (image.channels == RGB and is_grey(image.pixels)))
    ]
    if not several:
        return images, next((image.channels for image in images if len(image.channels) == 1), GREY)
    if len(counts := {len(image.channels) for image in several}) > 1:
        raise DatasetError(f"{where} mixes images of {sorted(counts)} channels: choose one with --channel.")
    if channel is None and all(image.channels == RGB for image in several):
        shown = {id(image): _shown(image) for image in several}
        if all(len(places) == 1 for places in shown.values()):
            single = [with_places(image, shown.get(id(image), (0,))) for image in images]
            names = {RGB[places[0]] for places in shown.values()}
            return single, (names.pop(),) if len(names) == 1 else GREY
    first = several[0]
    placed = {id(image): ordered(image.channels, first.channels) for image in several}
    for image in several:
        if placed[id(image)] is None:
            raise DatasetError(
                f"{where} mixes images of the channels {', '.join(first.channels)} and {', '.join(image.channels)}:"
                " choose one with --channel, or name them alike."
            )
    return [with_places(image, placed.get(id(image)) or range(len(image.channels))) for image in images], first.channels


def _shown(image: Image) -> tuple[int, ...]:
    """The colours to learn from."""
    places = of_colours(image.pixels)
    if places is None and not is_table(image.pixels):
        raise ImageError(
            f"{image.path or image.name} is a colour image {_DIFFER} choose one with --channel red, green or blue, or"
            " learn from them together with --channel all."
        )
    return places or (0, 1, 2)
