"""A folder to labelled and unlabelled images, in the layouts that people already have.

    images/x.png     + masks/x.tif                       two folders, as `names.is_image_folder` knows
    x.tif            + x_masks.tif, x.geojson, x.zip     side by side, with one of the marks that `names` knows
    imagesTr/x_0000.tif + labelsTr/x.tif                 nnU-Net, one channel
    A01/x.tif, A02/x.tif                                 plates: a layout in each subfolder; names keep the subfolder
    train/...                                            the same one folder further down
    x.tif            + RoiSet.zip                        one image, and what ImageJ calls its regions
    images/x.png     + masks/x/1.png, masks/x/2.png      one mask for each nucleus; also x/images/x.png, x/masks/*.png
    images/x.png     + annotations.json                  COCO, also in annotations/ or beside the images
    x.tif                                                no mask anywhere: all unlabelled

An image without a mask is unlabelled. An image may be an OME-Zarr folder. A mask may be of any format that
`io.label_file` reads: OME-Zarr labels, GeoJSON, ImageJ regions of interest. What prediction wrote beside an image,
known by its NAME.json, is a mask of it and never an image. What is in a folder and not read is told in `Dataset.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nucleate.data import names
from nucleate.data.contents import LABEL_FORMATS, coco_file, current, skipped
from nucleate.data.layouts import Index, Part, files_below, no_image, parts_of
from nucleate.data.masks import size_mistake
from nucleate.errors import DatasetError, ImageError
from nucleate.io.axes import name_of
from nucleate.io.formats import coco
from nucleate.io.label_file import read_label_file
from nucleate.io.ome_zarr import is_zarr
from nucleate.io.reader import read_image
from nucleate.types import Dataset, Image, Labels, Sample


def find(folder: Path) -> Dataset:
    """The data set in a folder; `layout` names the convention that was found.

    Raises `DatasetError` for a folder that is missing or holds no image, for a mask without an image, and for two
    masks of one image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for file in ("a.tif", "a_masks.tif", "b.tif", "notes.txt"):
    ...         (Path(name) / file).touch()
    ...     dataset = find(Path(name))
    >>> dataset.layout, [s.name for s in dataset.labelled], [s.name for s in dataset.unlabelled]
    ('side by side', ['a'], ['b'])
    """
    parts = parts_of(folder)
    samples = sorted((sample for part in parts for sample in _matched(part)), key=lambda sample: sample.name)
    labelled = tuple(sample for sample in samples if sample.mask is not None)
    layouts = list(dict.fromkeys(part.layout for part in parts))
    layout = " and ".join(one for one in layouts if one != "images only" or len(layouts) == 1)
    if not labelled and layout == "side by side":
        layout = "images only"
    if forms := sorted({form for sample in labelled if sample.mask and (form := _form(sample.mask))}):
        layout += f", masks as {' and '.join(forms)}"
    if any(part.prefix for part in parts):
        layout += f", in {len({part.prefix for part in parts})} subfolders"
    unlabelled = tuple(sample for sample in samples if sample.mask is None)
    return Dataset(folder, layout, labelled, unlabelled, tuple(note for part in parts for note in part.notes))


def pair(sample: Sample) -> tuple[Image, Labels]:
    """Read a labelled sample: its image, and its labels of the same size, as they are (see `inspect` for their sense).

    Raises:
        ImageError: a file cannot be read, or the mask's size is not the image's.
        DatasetError: the sample has no mask.
    """
    if sample.mask is None:
        raise DatasetError(f"{sample.image} has no mask: label it first.")
    image = read_image(sample.image, sample.plane)
    labels = read_label_file(sample.mask, image.pixels.shape[:2], image=sample.image, plane=sample.mask_plane).labels
    if wrong := size_mistake(image.pixels.shape[:2], labels.shape):
        raise ImageError(wrong.sentence(str(sample.mask)))
    return image, labels


def images_in(paths: Sequence[Path]) -> list[Path]:
    """The images to segment: files and OME-Zarr folders as they are given, and the images in other folders, by name.

    Of a folder, the images are those that `find` sees, in subfolders where it holds none itself. Masks of images
    beside them and results of prediction are left out. A file named twice comes once.

    Raises `DatasetError` for a path that does not exist and for a folder without images.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir() and not is_zarr(path):
            images = [image for part in parts_of(path, only_images=True) for image in part.images]
            if not images:
                raise no_image(path)
            found.update(dict.fromkeys(images))
        elif path.exists():
            found[path] = None
        else:
            raise DatasetError(f"{path} does not exist: check the path.")
    if not found:
        raise DatasetError("No image was given: name files or folders of PNG, JPEG, TIFF or OME-Zarr images.")
    return list(found)


def skipped_in(paths: Sequence[Path]) -> list[str]:
    """Sentences on the files in these folders that are images and cannot be read."""
    folders = [path for path in paths if path.is_dir() and not is_zarr(path)]
    return [note for folder in folders for note in skipped(files_below(folder))]


def _matched(part: Part) -> list[Sample]:
    """Each image with its mask, under the name that both have in common."""
    index = Index.of(part.images)
    masks: dict[Path, Path] = {}
    for mask in part.masks:
        image = _image_of(mask, part, index)
        if image is not None:
            masks[image] = _better(masks[image], mask, part) if image in masks else mask
    for file in part.coco:
        _match_coco(file, part, masks)
    return [
        Sample(part.prefix + _sample_name(image, masks.get(image), part, index), image, masks.get(image))
        for image in part.images
    ]


def _match_coco(file: Path, part: Part, masks: dict[Path, Path]) -> None:
    """The images that a COCO file has the masks of, where they have no other."""
    try:
        found = coco.load(file)
    except ImageError as error:
        raise DatasetError(error) from error
    here = {name: image for image in part.images if (name := found.of(image)) is not None}
    for image in here.values():
        if masks.get(image, file).suffix.lower() == ".json" and image in masks:
            raise DatasetError(f"{file} and {masks[image].name} mask the same image, {image.name}: remove one of them.")
        masks.setdefault(image, file)
    missing = [name for name in found.images if name not in here]
    if missing:
        part.notes.append(
            f"{file} names {len(missing)} {'image that is' if len(missing) == 1 else 'images that are'} not here, such"
            f" as {missing[0]}: add {'it' if len(missing) == 1 else 'them'}, or export the annotations again."
        )


def _form(mask: Path) -> str | None:
    """The form of a mask that is no label image, in words."""
    if mask.suffix.lower() in (".zip", ".roi"):
        return "ImageJ regions"
    if mask.name.lower().endswith((".geojson", ".geojson.gz")):
        return "GeoJSON"
    return None if mask.suffix.lower() != ".json" else "COCO" if coco_file(mask) else "GeoJSON"


def _sample_name(image: Path, mask: Path | None, part: Part, index: Index) -> str:
    name = name_of(image)
    if part.layout == "nnU-Net":
        return name[:-5]
    if len(index.by_name[name]) > 1:
        return image.name  # keeps the ending, which alone tells it from the other
    marked = names.of_mask(name_of(mask)) if mask is not None and part.layout == "side by side" else None
    return marked if marked is not None and marked not in index.by_name else name


def _image_of(mask: Path, part: Part, index: Index) -> Path | None:
    if mask in part.of:
        return part.of[mask]
    found = index.images_of(mask)
    if part.layout == "side by side" and names.of_mask(name_of(mask)) is not None:
        found = index.by_core.get(names.core(name_of(mask)), found)  # x.tif and x_img.tif cannot share x_masks.tif
    if len(found) > 1:
        same = name_of(found[0]) == name_of(found[1])
        what = "have the same name, and" if same else "share the mask"
        end = f"{mask.name} is a mask of one of them" if same else mask.name
        raise DatasetError(f"{found[0]} and {found[1].name} {what} {end}: rename or remove one of them.")
    if found:
        return found[0]
    if mask.name in part.results:
        return None  # the result of an image that is elsewhere
    others = sum(not index.images_of(one) for one in part.masks) - 1
    more = f" (and {others} more {'mask has' if others == 1 else 'masks have'} none)" if others > 0 else ""
    name = name_of(mask)
    raise DatasetError(f"{mask} has no image named {names.of_mask(name) or name}{more}: add it or remove the mask.")


def _better(one: Path, other: Path, part: Part) -> Path:
    """Of two masks of one image, the one that was not written by prediction; of two results, the `current` one."""
    written = [part.results.get(mask.name) for mask in (one, other)]
    if written[0] and written[1] and written[0][0] == written[1][0]:
        order = [LABEL_FORMATS.index(result[1]) for result in written if result]
        return current([one, other] if order[0] <= order[1] else [other, one])
    if bool(written[0]) != bool(written[1]):
        return other if written[0] else one
    raise DatasetError(f"{one} and {other.name} mask the same image: remove one of them.")
