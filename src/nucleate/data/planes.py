"""The images of a data set where a file holds several, or a stack: one sample for each that is asked for, with the
plane of its mask that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from nucleate.data.masks import is_outlines
from nucleate.errors import DatasetError, ImageError
from nucleate.io.reader import open_reader, scenes
from nucleate.io.stack import BEST, EACH, Choice, PlaneReader, Scene, meant, planes
from nucleate.types import Dataset, Plane, Sample


def expanded(dataset: Dataset, choice: Choice | None = None) -> Dataset:
    """The data set with a sample for each image that is asked for of each file.

    Raises:
        DatasetError: a file has no such scene, or a mask not the planes of its image.
    """
    labelled, unlabelled = (tuple(each_plane(group, choice)) for group in (dataset.labelled, dataset.unlabelled))
    return replace(dataset, labelled=labelled, unlabelled=unlabelled)


def each_plane(samples: Iterable[Sample], choice: Choice | None = None) -> Iterator[Sample]:
    """A sample for each image that is asked for of each file. One of a plane that is not there fails where it is read.

    Raises:
        DatasetError: a file has no such scene, or a mask not the planes of its image.
    """
    choice = choice or Choice()
    for sample in samples:
        held = scenes(sample.image)
        try:
            found = list(planes(held, choice, sample.image))
        except ImageError as error:
            raise DatasetError(str(error)) from error
        several = len({plane.series for _, plane in found}) > 1
        masks = _masks(sample, held, several=several)
        for end, plane in found:
            named = replace(sample, name=sample.name + end, plane=plane)
            if sample.mask is not None:
                series = plane.series if len(masks) > 1 else None
                stack, mask = dict(held[(plane.series or 1) - 1].stack), dict(masks[(series or 1) - 1].stack)
                named = _with_mask(replace(named, mask_plane=Plane(series)), stack, mask, choice)
            yield named


def _masks(sample: Sample, held: Sequence[Scene], *, several: bool) -> Sequence[Scene]:
    """The images of the mask file: as many as the image file holds, or one where one of those is asked for."""
    if sample.mask is None or is_outlines(sample.mask):
        masks: Sequence[Scene] = (Scene(),)
    else:
        masks = scenes(sample.mask, labels=True)
    if sample.mask is not None and len(masks) != len(held) and (several or len(masks) > 1):
        raise DatasetError(
            f"{sample.image} holds {_images(len(held))} and its mask {sample.mask} {_images(len(masks))}: give a mask"
            " file with as many images, or say with --scene which of them a mask of one image is of."
        )
    return masks


def _images(number: int) -> str:
    return f"{number} image" if number == 1 else f"{number} images"


def _with_mask(sample: Sample, stack: Mapping[str, int], mask: Mapping[str, int], choice: Choice) -> Sample:
    """The sample with the plane of its mask. The plane in best focus is found where the mask has one of its own."""
    axes, mine = (meant(one, sample.plane, choice) for one in (stack, mask))
    if [len(axes), len(mine)] == [1, 1] and axes.keys() != mine.keys():
        mine = dict(zip(axes, mine.values(), strict=True))  # a stack is a stack, whatever a program calls its axis
    if sample.plane.z == BEST and "z" in mine:
        sample = replace(sample, plane=_in_focus(sample))
    at: dict[str, int] = {}
    for word in ("z", "t"):
        asked = getattr(sample.plane, word)
        if word not in mine:
            if word in axes and getattr(choice, word) == EACH:
                raise DatasetError(
                    f"{sample.mask} has one plane, and --{word} each takes all {stack[axes[word]]} of {sample.image}:"
                    f" give a stack of labels, or say another --{word}."
                )
            continue
        if isinstance(asked, str) or mask[mine[word]] != (stack[axes[word]] if word in axes else 1):
            raise DatasetError(
                f"{sample.mask} is a stack of {mask[mine[word]]} planes, which are not those that are read of"
                f" {sample.image}: give labels of one plane, or a stack as long and --{word} each."
            )
        if asked is not None:
            at["z" if mine[word] != "T" else "t"] = asked
    return replace(sample, mask_plane=replace(sample.mask_plane, **at))


def _in_focus(sample: Sample) -> Plane:
    """The plane with the number of the one in best focus."""
    with closing(open_reader(sample.image, plane=sample.plane)) as reader:
        return reader.plane if isinstance(reader, PlaneReader) else sample.plane
