"""Where in a folder the images and the masks lie: the layouts that people already have, found from the top down."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nucleate.data import names
from nucleate.data.contents import Contents, contents, skipped, unread_annotations
from nucleate.errors import DatasetError
from nucleate.io.axes import name_of
from nucleate.io.formats.mask_stack import holds_masks, is_mask_file

_ONE_EACH = "one mask a nucleus"
_ROISET = ("roiset", "rois")  # what ImageJ calls a ZIP of regions, whatever the image


@dataclass(slots=True)
class Part:
    """Images of one place, with the masks of the same, both by file; `prefix` is what their names begin with.

    `masks` were put into a folder for masks, or bear the mark of one; `of` says of which image those are whose name
    does not; `coco` are files with the masks of many images; `notes` say what was not read.
    """

    layout: str
    images: list[Path]
    masks: list[Path] = field(default_factory=list)
    results: dict[str, tuple[str, str]] = field(default_factory=dict)
    prefix: str = ""
    notes: list[str] = field(default_factory=list)
    of: dict[Path, Path] = field(default_factory=dict)
    coco: list[Path] = field(default_factory=list)


def parts_of(folder: Path, *, only_images: bool = False) -> list[Part]:
    """The places in a folder that hold images, found from the top down."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that exists: give the folder that holds the images.")
    parts = _places(folder, only_images=only_images)
    if not any(part.images or part.masks for part in parts):
        raise no_image(folder)
    if notes := skipped(files_below(folder)):
        parts[0].notes += notes
    return parts


def _places(folder: Path, *, only_images: bool, deeper: bool = True) -> list[Part]:
    here = contents(folder)
    image_folders = [path for path in here.folders if names.is_image_folder(path.name)]
    mask_folders = [path for path in here.folders if names.is_mask_folder(path.name)]
    nnunet = [path for path in image_folders if path.name.lower() == "imagestr"]
    if nnunet and not (only_images and here.images):
        labels = [path for path in mask_folders if path.name.lower() == "instancestr"]
        labels = labels or [path for path in mask_folders if path.name.lower() == "labelstr"]
        return [_nnunet(nnunet[0], labels, only_images=only_images)]
    if only_images and here.images:
        return [_beside(here, only_images=only_images)]
    if image_folders:
        return _two_folders(here, image_folders, mask_folders, only_images=only_images)
    if here.images:
        part = _beside(here, only_images=only_images)
        if mask_folders:
            part.layout = "images + masks"
            _add_masks(part, _one(here, mask_folders))
        return [part]
    if mask_folders and not only_images:
        raise DatasetError(
            f"{folder} has {mask_folders[0].name}/ and no images/: put the images in {folder / 'images'}."
        )
    return _below(here, only_images=only_images) if deeper else []


def _below(here: Contents, *, only_images: bool) -> list[Part]:
    """The parts in the subfolders of a folder without images: of train/, or of every one, as plates have them."""
    training = [path for path in here.folders if path.name.lower() in ("train", "training")]
    if training and not only_images:
        parts = _places(training[0], only_images=only_images)
        others = [f"{one.name}/" for one in here.folders if one != training[0] and _holds_images(one)]
        if parts and others:
            parts[0].notes.append(
                f"Only {training[0].name}/ was read, and not {', '.join(others)}: name it to read it."
            )
        return parts
    parts = []
    for sub in here.folders:
        if (sub / "model.json").exists() or names.is_mask_folder(sub.name):
            continue
        for part in _places(sub, only_images=only_images, deeper=False):
            single = len(part.images) == 1 and name_of(part.images[0]) == sub.name
            part.prefix = "" if single else f"{sub.name}/{part.prefix}"
            parts.append(part)
    if parts and not only_images:
        parts[0].coco += here.coco
    return parts


def _two_folders(
    here: Contents, image_folders: list[Path], mask_folders: list[Path], *, only_images: bool
) -> list[Part]:
    """images/ and masks/, or subfolders of the same names in both."""
    images, masks = contents(_one(here, image_folders)), None
    if mask_folders and not only_images:
        masks = contents(_one(here, mask_folders))
    if images.images or not images.folders:
        part = _beside(images, only_images=only_images)
        if here.images and not only_images:
            beside = f"{_images(len(here.images))} beside {images.folder.name}/"
            part.notes.append(f"{beside} {'was' if len(here.images) == 1 else 'were'} not read: move them into it.")
        if masks is not None:
            part.layout = "images + masks"
            _add_masks(part, masks.folder)
        elif not only_images:
            _note_annotations(part, [*here.others, *images.others])
        part.coco += here.coco if not only_images else ()
        return [part]
    if masks is not None and masks.masks:
        raise DatasetError(
            f"{images.folder} has subfolders and {masks.folder} has none: put the masks into subfolders of those names."
        )
    parts = []
    for sub in images.folders:
        part = _beside(contents(sub), only_images=only_images)
        part.prefix = f"{sub.name}/"
        if masks is not None and (masks.folder / sub.name).is_dir():
            part.layout = "images + masks"
            _add_masks(part, masks.folder / sub.name)
        parts.append(part)
    return parts


def _beside(here: Contents, *, only_images: bool) -> Part:
    """The images of a folder, and the masks beside them: those with a mark, outlines, and what prediction wrote.

    A file with the mark of a mask is one where its image is there. Where it is not, the mark may be part of an image's
    name, which only some marks are not (`names.is_surely_mask`).
    """
    known = {name_of(path) for path in here.images}
    plain = {names.core(name) for name in known if names.of_mask(name) is None}

    def is_mask(path: Path) -> bool:
        name = name_of(path)
        of = names.of_mask(name)
        there = of is not None and (of in known or names.core(name) in plain)
        return there or (names.is_surely_mask(name) and not only_images)

    images = [path for path in here.images if not is_mask(path) and not _is_of_cellpose(path, known)]
    part = Part("side by side", images, results=here.results, coco=[] if only_images else list(here.coco))
    index, files = Index.of(images), set(here.images)
    part.masks = [path for path in here.masks if is_mask(path) or (path not in files and index.images_of(path))]
    if not only_images:
        _add_roisets(part, here.masks)
        part.notes += _loose_outlines(here, part)
        _note_annotations(part, here.others)
    return part


def _loose_outlines(here: Contents, part: Part) -> list[str]:
    """Outlines beside images that bear no image's name."""
    known = {*here.images, *part.masks}
    loose = [path.name for path in here.masks if path not in known and path.stem.lower() not in _ROISET]
    loose = [name for name in loose if name not in here.results]
    if not loose or not part.images:
        return []
    more = "" if len(loose) == 1 else f" and {len(loose) - 1} more"
    example = name_of(part.images[0]) + Path(loose[0]).suffix
    return [f"{loose[0]}{more} may hold nuclei, but no image has that name: name it as its image, such as {example}."]


@dataclass(frozen=True, slots=True)
class Index:
    """Images by their names, with and without the ending, and by what their names have in common with their masks'."""

    by_name: dict[str, list[Path]]
    by_core: dict[str, list[Path]]

    @classmethod
    def of(cls, images: Iterable[Path]) -> Index:
        by_name, by_core = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
        for image in images:
            for name in {image.name, name_of(image)}:
                by_name[name].append(image)
            by_core[names.core(name_of(image))].append(image)
        return cls(dict(by_name), dict(by_core))

    def images_of(self, mask: Path) -> list[Path]:
        """The images that a mask may be of: of its own name, else of its name without the mark, else alike but for
        marks."""
        name = name_of(mask)
        exact = [image for image in self.by_name.get(name, ()) if image != mask]
        marked = self.by_name.get(names.of_mask(name) or name, [])
        return exact or marked or self.by_core.get(names.core(name), [])


def _is_of_cellpose(path: Path, known: set[str]) -> bool:
    """Whether a file is what Cellpose leaves beside the image it trained on or segmented."""
    name = name_of(path)
    return any(name.endswith(end) and name.removesuffix(end) in known for end in ("_flows", "_cp_output", "_outlines"))


def _add_masks(part: Part, folder: Path) -> None:
    """The masks of a folder for masks."""
    here = contents(folder)
    part.results = part.results | here.results
    part.coco += here.coco
    stems = {name_of(image): image for image in part.images}
    own = {one: stems[one.name] for one in here.folders if one.name in stems and holds_masks(one)}
    if _is_one_each(part, here):
        own = {folder: part.images[0]}
    else:
        part.masks += [mask for mask in here.masks if mask.stem.lower() not in _ROISET]
        _add_roisets(part, here.masks)
    if own:
        part.layout = _ONE_EACH
        part.masks += own
        part.of |= own
    _note_annotations(part, here.others)


def _add_roisets(part: Part, masks: Sequence[Path]) -> None:
    """ZIPs under the name that ImageJ proposes, which belong to the only image; of several, to none."""
    found = [mask for mask in masks if mask.stem.lower() in _ROISET and mask not in part.masks]
    if len(part.images) == 1:
        part.masks += found
        part.of |= dict.fromkeys(found, part.images[0])
    elif found and part.images:
        example = name_of(part.images[0])
        part.notes.append(f"{found[0]} does not say which image it is of: name it {example}_rois.zip, as its image.")


def _is_one_each(part: Part, masks: Contents) -> bool:
    """Whether the masks are those of the single nuclei of one image: NAME/images/NAME.png, NAME/masks/1.png, ..."""
    index = Index.of(part.images)
    if len(part.images) != 1 or not masks.masks or any(index.images_of(mask) for mask in masks.masks):
        return False
    if not all(map(is_mask_file, masks.masks)):
        return False
    return len(masks.masks) > 2 or masks.folder.parent.name == name_of(part.images[0])


def _note_annotations(part: Part, files: Sequence[Path]) -> None:
    stems = {name_of(image) for image in part.images}
    if found := unread_annotations(files, stems):
        form, paths, way = found
        what = f"{paths[0].name} holds" if len(paths) == 1 else f"{len(paths)} files such as {paths[0].name} hold"
        part.notes.append(f"{what} masks in the form of {form}, which is not read: {way}.")
        if not part.masks:
            part.layout = form


def _nnunet(images: Path, labels: list[Path], *, only_images: bool) -> Part:
    here, cases = contents(images), dict[str, list[Path]]()
    for file in here.images if not only_images else ():
        name, number = name_of(file)[:-5], name_of(file)[-5:]
        if not (name and number[0] == "_" and number[1:].isdecimal()):
            raise DatasetError(f"{file} does not end in a channel number: name it {name_of(file)}_0000{file.suffix}.")
        cases.setdefault(name, []).append(file)
    for name, files in cases.items():
        if len(files) > 1 or not name_of(files[0]).endswith("_0000"):
            listed = ", ".join(file.name for file in files)
            raise DatasetError(
                f"{images.parent} has the case {name} as {listed}, and one file _0000 a case is read: choose one."
            )
    part = Part("nnU-Net", list(here.images), results=here.results)
    if labels and not only_images:
        _add_masks(part, labels[0])
    return part


def _one(here: Contents, folders: list[Path]) -> Path:
    """The only one of these that holds something; the usual names go before others, such as raw/ beside images/."""
    full = [folder for folder in folders if (inner := contents(folder)).masks or inner.folders]
    full = [folder for folder in full if folder.name.lower() in ("images", "masks", "labels")] or full
    if len(full) > 1:
        raise DatasetError(f"{here.folder} has {' and '.join(f'{one.name}/' for one in full)}: keep one of them.")
    return (full or folders)[0]


def _holds_images(folder: Path) -> bool:
    here = contents(folder)
    return bool(here.images) or any(contents(sub).images for sub in here.folders)


def files_below(folder: Path, depth: int = 2) -> list[Path]:
    """The files that are neither images nor read as masks, in a folder and in those below that may be read for it."""
    here = contents(folder)
    known = [sub for sub in here.folders if names.is_image_folder(sub.name) or names.is_mask_folder(sub.name)]
    below = [] if not depth else known if here.images else here.folders
    return [*here.others, *(file for sub in below if os.access(sub, os.R_OK) for file in files_below(sub, depth - 1))]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def no_image(folder: Path) -> DatasetError:
    notes = " ".join(skipped(files_below(folder)))
    return DatasetError(
        f"{folder} holds no image: put PNG, JPEG, TIFF or OME-Zarr images in it.{notes and ' ' + notes}"
    )
