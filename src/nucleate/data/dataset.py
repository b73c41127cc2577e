"""A folder to labelled and unlabelled images, in the layouts that people already have.

    images/x.png     + masks/x.tif  (or labels/x.tif)    equal names, any ending
    x.tif or x_img.tif + x_masks.tif                     side by side, as Cellpose keeps them
    imagesTr/x_0000.tif + labelsTr/x.tif                 nnU-Net, one channel
    x.tif                                                no mask anywhere: all unlabelled

An image without a mask is unlabelled. An image may be an OME-Zarr folder. A mask may be of any format that `nucleate
predict` writes: OME-Zarr labels, GeoJSON, ImageJ regions of interest (x_rois.zip). In a folder of masks its name may
end in _labels, _masks or _rois. Hidden files and files that are no images are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.ome_zarr import holds_labels, is_zarr
from nucleate.io.reader import holds_outlines, is_image, read_image, read_labels, unmarked
from nucleate.types import Dataset, Image, Labels, Sample

_MASK_ENDING = re.compile(r"(.+?)(_cp)?_masks")
_FLOWS_ENDING = re.compile(r"(.+)_flows")
_NNUNET = re.compile(r"(.+)_(\d{4})")


def find(folder: Path) -> Dataset:
    """The data set in a folder; `layout` is one of "images + masks", "side by side", "nnU-Net" and "images only".

    Raises `DatasetError` for a folder that is missing or holds no image, for a mask without an image, and for two
    images or two masks of one name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for file in ("a.tif", "a_masks.tif", "b.tif", "notes.txt"):
    ...         (Path(name) / file).touch()
    ...     dataset = find(Path(name))
    >>> dataset.layout, [s.name for s in dataset.labelled], [s.name for s in dataset.unlabelled]
    ('side by side', ['a'], ['b'])
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that exists: give the folder that holds the images.")
    mask_folders = [folder / name for name in ("masks", "labels") if (folder / name).is_dir()]
    if (folder / "imagesTr").is_dir():
        layout, (images, masks) = "nnU-Net", _nnunet(folder)
    elif (folder / "images").is_dir():
        if len(mask_folders) == 2:
            raise DatasetError(f"{folder} has masks/ and labels/: keep one of them.")
        layout = "images + masks" if mask_folders else "images only"
        images = _named(_files(folder / "images"))
        masks = _masks_of(images, [file for one in mask_folders for file in _files(one, masks=True)])
    elif mask_folders:
        raise DatasetError(
            f"{folder} has {mask_folders[0].name}/ and no images/: put the images in {folder / 'images'}."
        )
    else:
        images, masks = _side_by_side(folder)
        layout = "side by side" if masks else "images only"
    return _dataset(folder, layout, images, masks)


def pair(sample: Sample) -> tuple[Image, Labels]:
    """Read a labelled sample: its image, and its labels of the same size.

    Raises:
        ImageError: a file cannot be read, or the mask's size is not the image's.
        DatasetError: the sample has no mask.
    """
    if sample.mask is None:
        raise DatasetError(f"{sample.image} has no mask: label it first.")
    image = read_image(sample.image)
    height, width = image.pixels.shape[:2]
    labels = read_labels(sample.mask, (height, width))
    if labels.shape != (height, width):
        mask_height, mask_width = labels.shape
        raise ImageError(
            f"{sample.image} is {width} x {height} pixels and its mask {sample.mask} is {mask_width} x {mask_height}:"
            " export both at the same size."
        )
    return image, labels


def images_in(paths: Sequence[Path]) -> list[Path]:
    """The images to segment: files and OME-Zarr folders as they are given, and the images in other folders, by name.

    Of a folder that holds no image itself, `images/` or `imagesTr/` is taken. Masks are left out. A file named twice
    comes once.

    Raises `DatasetError` for a path that does not exist and for a folder without images.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir() and not is_zarr(path):
            found.update(dict.fromkeys(_images_of(path)))
        elif path.exists():
            found[path] = None
        else:
            raise DatasetError(f"{path} does not exist: check the path.")
    if not found:
        raise DatasetError("No image was given: name files or folders of PNG, JPEG, TIFF or OME-Zarr images.")
    return list(found)


def _images_of(folder: Path) -> list[Path]:
    for place in (folder, folder / "images", folder / "imagesTr"):
        files = _files(place) if place.is_dir() else []
        images = [file for file in files if not _MASK_ENDING.fullmatch(name_of(file)) and not _is_flows(file, files)]
        if images:
            return images
    raise _no_image(folder)


def _files(folder: Path, *, masks: bool = False) -> list[Path]:
    """The images of a folder, or all that may be masks."""
    fits = _may_be_mask if masks else _may_be_image
    try:
        return sorted(path for path in folder.iterdir() if fits(path))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}): check who may read it.") from error


def _may_be_image(path: Path) -> bool:
    """Whether it is named like an image, and a folder is OME-Zarr and not the labels of an image beside it."""
    if not is_image(path) or path.is_file():
        return is_image(path)
    try:
        return is_zarr(path) and not holds_labels(path)
    except ImageError:
        return True  # what is wrong with it is said where it is read


def _may_be_mask(path: Path) -> bool:
    if path.is_dir():
        return is_image(path) and is_zarr(path)
    return is_image(path) or holds_outlines(path)


def _no_image(folder: Path) -> DatasetError:
    return DatasetError(f"{folder} holds no image: put PNG, JPEG, TIFF or OME-Zarr images in it.")


def _named(files: Iterable[Path]) -> dict[str, Path]:
    """Files by the name of their image, which must be unique."""
    named: dict[str, Path] = {}
    for file in files:
        name = name_of(file)
        if name in named:
            raise DatasetError(f"{named[name]} and {file.name} have the same name: rename or remove one of them.")
        named[name] = file
    return named


def _masks_of(images: Iterable[str], files: Iterable[Path]) -> dict[str, Path]:
    """Masks by the name of their image, which they may bear with a mark; unique."""
    known = set(images)
    named: dict[str, Path] = {}
    for file in files:
        name, plain = name_of(file), unmarked(name_of(file))
        name = plain if name not in known and plain in known else name
        if named.setdefault(name, file) != file:
            raise DatasetError(f"{named[name]} and {file.name} mask the same image: remove one of them.")
    return named


def _is_flows(file: Path, beside: list[Path]) -> bool:
    """Whether a file is what Cellpose leaves beside the image it trained on."""
    match = _FLOWS_ENDING.fullmatch(name_of(file))
    return match is not None and any(name_of(other) == match[1] for other in beside)


def _side_by_side(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    files = _files(folder)
    images = [file for file in files if not _MASK_ENDING.fullmatch(name_of(file)) and not _is_flows(file, files)]
    masks: dict[str, Path] = {}
    for file in _files(folder, masks=True):
        match = _MASK_ENDING.fullmatch(name_of(file))
        if match is not None and masks.setdefault(match[1], file) != file:
            raise DatasetError(f"{masks[match[1]]} and {file.name} mask the same image: remove one of them.")
    named = _named(images)
    for name in masks:
        if f"{name}_img" in named:
            if name in named:
                raise DatasetError(f"{named[name]} and {named[f'{name}_img'].name} share a mask: remove one of them.")
            named[name] = named.pop(f"{name}_img")
    return named, masks


def _nnunet(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    cases: dict[str, list[Path]] = {}
    for file in _files(folder / "imagesTr"):
        match = _NNUNET.fullmatch(name_of(file))
        if match is None:
            raise DatasetError(f"{file} does not end in a channel number: name it {name_of(file)}_0000{file.suffix}.")
        cases.setdefault(match[1], []).append(file)
    for name, files in cases.items():
        if len(files) > 1 or not name_of(files[0]).endswith("_0000"):
            names = ", ".join(file.name for file in files)
            raise DatasetError(
                f"{folder} has the case {name} as {names}, and one file _0000 a case is read: choose one."
            )
    labels = folder / "labelsTr"
    masks = _files(labels, masks=True) if labels.is_dir() else []
    return {name: files[0] for name, files in cases.items()}, _masks_of(cases, masks)


def _dataset(folder: Path, layout: str, images: dict[str, Path], masks: dict[str, Path]) -> Dataset:
    if not images and not masks:
        raise _no_image(folder)
    lonely = sorted(masks.keys() - images.keys())
    if lonely:
        others = f" (and {len(lonely) - 1} more masks)" if len(lonely) > 1 else ""
        raise DatasetError(
            f"{masks[lonely[0]]} has no image named {lonely[0]}{others}: add the image or remove the mask."
        )
    samples = [Sample(name, images[name], masks.get(name)) for name in sorted(images)]
    return Dataset(
        folder,
        layout,
        tuple(sample for sample in samples if sample.mask is not None),
        tuple(sample for sample in samples if sample.mask is None),
    )
