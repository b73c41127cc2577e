"""Which image a file belongs to, by its name: the marks that people's programs put before and after it."""

from __future__ import annotations

import re

_IMAGE_FOLDER = re.compile(
    r"((raw|train|tissue)[ _-]?)?(images?|imgs?)|x|raw|inputs?|originals?|source|imagestr", re.IGNORECASE
)
_MASK_FOLDER = re.compile(
    r"((train|label|instance)[ _-]?)?(masks?|labels?)|y|gt|ground[ _-]?truth|segmentations?|annotations?|rois?|targets?"
    r"|instances|labelstr|instancestr",
    re.IGNORECASE,
)
_MASK = (
    r"cp_masks?|masks?|labels?|labell?ed|rois?|roiset|gt|ground_?truth|seg|segmentations?|annotations?|instances?"
    r"|simple[ _]segmentation|object[ _]identities"  # as ilastik names what it exports
)
_IMAGE = r"images?|imgs?|im|raw"
_MASK_END = re.compile(rf"(.+?)[ _.-](?:{_MASK})", re.IGNORECASE)
_MASK_START = re.compile(r"(?:masks?|labels?|gt|seg)(?:[ _.-]|(?=\d))(.+)", re.IGNORECASE)
_IMAGE_END = re.compile(rf"(.+?)(?:[ _.-](?:{_IMAGE})|_0000)", re.IGNORECASE)
_IMAGE_START = re.compile(rf"(?:{_IMAGE})(?:[ _.-]|(?=\d))(.+)", re.IGNORECASE)
_SURE = re.compile(r".+?_(?:cp_)?masks?|.+?_labels", re.IGNORECASE)


def is_image_folder(name: str) -> bool:
    """Whether a folder of this name is one of images.

    >>> is_image_folder("Images"), is_image_folder("raw_images"), is_image_folder("plate1")
    (True, True, False)
    """
    return _IMAGE_FOLDER.fullmatch(name) is not None


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name is one of masks.

    >>> is_mask_folder("Masks"), is_mask_folder("ground truth"), is_mask_folder("plate1")
    (True, True, False)
    """
    return _MASK_FOLDER.fullmatch(name) is not None


def of_mask(name: str) -> str | None:
    """The name of the image that a mask of this name is of; None for a name without such a mark.

    >>> of_mask("cells_cp_masks"), of_mask("tile [x=0]-labelled"), of_mask("mask_001"), of_mask("cells")
    ('cells', 'tile [x=0]', '001', None)
    >>> of_mask("cells_Simple Segmentation"), of_mask("cells-data_Object Identities")
    ('cells', 'cells-data')
    """
    match = _MASK_END.fullmatch(name) or _MASK_START.fullmatch(name)
    return match[1] if match else None


def is_surely_mask(name: str) -> bool:
    """Whether it is named as no image is, so that its image must be missing where there is none.

    >>> is_surely_mask("cells_masks"), is_surely_mask("DAPI_label")
    (True, False)
    """
    return _SURE.fullmatch(name) is not None


def core(name: str) -> str:
    """What the names of an image and of its mask have in common, for comparing.

    >>> core("Cells_image"), core("cells_Mask"), core("img_001"), core("mask001"), core("case_0000")
    ('cells', 'cells', '001', '001', 'case')
    """
    name = of_mask(name) or name
    match = _IMAGE_END.fullmatch(name) or _IMAGE_START.fullmatch(name)
    return (match[1] if match else name).casefold()
