"""The true masks that a person has of images, to be drawn beside what was predicted."""

from __future__ import annotations

from pathlib import Path

from nucleate.data.dataset import find
from nucleate.errors import DatasetError, InputError
from nucleate.io.axes import name_of
from nucleate.io.reader import holds_outlines, is_image, unmarked


class TrueMasks:
    """The masks in a folder: a data set of images and masks, or masks alone, by the names of their images.

    Raises `InputError` where the folder holds no mask.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._of_image: dict[Path, Path] = {}
        self._of_name: dict[str, Path] = {}
        try:
            labelled = find(folder).labelled
        except DatasetError:
            labelled = ()
        for sample in labelled:
            assert sample.mask is not None  # as it is labelled
            self._of_image[sample.image.resolve()] = self._of_name[sample.name] = sample.mask
        if not labelled:
            self._of_name = _masks(folder)
        if not self._of_name:
            raise InputError(
                f"{folder} holds no true masks: give --truth a folder of label images, named as the images."
            )

    def of(self, name: str, image: Path) -> Path | None:
        """The mask of the result of this name, which was predicted of that image; None where there is none."""
        names = (name, name.rpartition("/")[2], name_of(image))
        return self._of_image.get(image) or next((self._of_name[one] for one in names if one in self._of_name), None)


def _masks(folder: Path) -> dict[str, Path]:
    places = [one for one in (folder, folder / "masks", folder / "labels") if one.is_dir()]
    try:
        files = [file for place in places for file in sorted(place.iterdir()) if is_image(file) or holds_outlines(file)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): check who may read it.") from error
    return {unmarked(name_of(file)): file for file in files}
