"""The front door in Python: load a model, segment arrays and files, train, evaluate.

The command line calls the same functions.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nucleate.errors import InputError
from nucleate.inference.block_store import FolderBlockStore, MemoryBlockStore
from nucleate.inference.hints import remarks
from nucleate.inference.image_input import OpenImage, Selection, open_image, select_region
from nucleate.inference.novelty import novelty_of, remark
from nucleate.inference.pipeline import Pipeline
from nucleate.inference.predictor import Predictor
from nucleate.io.array import ArrayReader
from nucleate.io.formats.table import intensity_columns
from nucleate.io.reader import scenes
from nucleate.io.stack import EACH, Choice, planes
from nucleate.networks.manifest import Manifest
from nucleate.networks.store import Model, locate, read
from nucleate.parallel import Communicator
from nucleate.types import Box, Plane

if TYPE_CHECKING:
    from nucleate.evaluation import Evaluation
    from nucleate.training.config import TrainingConfig
    from nucleate.training.contrast import PretrainingConfig
    from nucleate.training.fit import Phase
    from nucleate.training.journal import Update
    from nucleate.training.stream import Judged, StreamResult
    from nucleate.training.trainer import Observer

__all__ = ["Result", "Segmenter", "evaluate", "learn", "load", "pretrain", "stream", "train", "undo"]

COLUMNS: tuple[tuple[str, type[np.generic]], ...] = (
    ("id", np.int64),
    ("y", np.float64),
    ("x", np.float64),
    ("area", np.int64),
    ("diameter", np.float64),
    ("mean_intensity", np.float64),
    ("score", np.float64),
)
"""The columns of `Result.table`, lengths in pixels; `entropy`, in bits, comes last where it was asked for."""

NUMBER_FORMATS = {"auto": None, "float32": False, "bfloat16": True}
"""What `load(number_format=)` takes: whether products are in bfloat16, None for what suits the processor."""


class Result:
    """The nuclei of one image, or of a region of it.

    What was found in a large image is kept in a temporary folder as long as the result lives. `labels` and `entropy`
    are made into arrays when they are asked for; `read` gives a part of the labels of an image that does not fit into
    memory.

    `notes` are sentences that a person should know of: which channel was taken, why there may be no nucleus. `novelty`
    says how far the image lies from those that the model was trained on: above 1 it looks unlike them; None where the
    model does not know.
    """

    def __init__(
        self, name: str, pipeline: Pipeline, model: Model, pixel_size: float | None, folder: Path | None
    ) -> None:
        self._pipeline = pipeline
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._instances = pipeline.instances(name, pixel_size=pixel_size)
        self.novelty = novelty_of(pipeline, model)
        # Now, while the image is still open.
        found = remarks(pipeline, model.manifest, len(self))
        self.notes: tuple[str, ...] = (*pipeline.notes, *found, *remark(self.novelty))
        self.pixel_size = pixel_size

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the labels."""
        return self._instances.shape

    def __len__(self) -> int:
        """How many nuclei there are."""
        return self._instances.count

    def __repr__(self) -> str:
        return f"<Result: {len(self)} nuclei in {self.shape[0]} x {self.shape[1]} pixels>"

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The label image, int32 of shape (H, W): 0 background, 1..N one nucleus each."""
        return self.read(0, 0, *self.shape)

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.int32]:
        """The labels of a part, int32 of shape (height, width), counted from the first pixel of the region."""
        box = Box(y, x, height, width)
        if min(y, x) < 0 or min(height, width) < 1 or box.bottom > self.shape[0] or box.right > self.shape[1]:
            raise InputError(f"The result has {self.shape[0]} x {self.shape[1]} pixels and does not hold {box}.")
        return self._instances.read(box).astype(np.int32)

    @cached_property
    def table(self) -> NDArray[np.void]:
        """One row a nucleus, in the order of the labels.

        A structured array with the columns id, y and x (the centroid), area, diameter, mean_intensity, score, for each
        of several channels mean_intensity_NAME and, where it was asked for, entropy; lengths are in pixels.
        `pandas.DataFrame(result.table)` takes it.
        """
        named = [(name, np.float64) for name in intensity_columns(self._instances.channels)]
        entropy = [("entropy", np.float64)] if self._pipeline.config.entropy else []
        rows = np.zeros(len(self), dtype=[*COLUMNS, *named, *entropy])
        for index, nucleus in enumerate(self._instances.measurements()):
            values = [getattr(nucleus, name) for name, _ in COLUMNS]
            rows[index] = (*values, *nucleus.channel_means, *((nucleus.entropy,) if entropy else ()))
        return rows

    @cached_property
    def entropy(self) -> NDArray[np.float32] | None:
        """How unsure the model is of the class of each pixel, in bits, float32 (H, W); None unless asked for."""
        config = self._pipeline.config
        return self._pipeline.entropy(config.region).astype(np.float32) if config.entropy else None


class Segmenter:
    """A trained model, ready to segment; `load` makes it. Its weights are read once."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def manifest(self) -> Manifest:
        """What the model is: its data, training, scores and thresholds."""
        return self.predictor.model.manifest

    def __repr__(self) -> str:
        channels = ", ".join(self.manifest.data.channels)
        return f"<Segmenter {self.manifest.name}: channels {channels}; {self.predictor.engine.name}>"

    def segment(
        self,
        image: Any,
        *,
        channel_axis: int | None = None,
        channel: str | int | None = None,
        region: Sequence[int] | None = None,
        level: int | None = None,
        pixel_size: float | None = None,
        series: int | None = None,
        scene: str | int | None = None,
        z: str | int | None = None,
        t: int | None = None,
        entropy: bool = False,
        tile: int = 1024,
        observe: Callable[[float], None] | None = None,
    ) -> Result:
        """Find the nuclei of an image.

        Args:
            image: an array, (H, W), (H, W, C), or with `channel_axis` the channels on that axis; from numpy, torch,
                dask, zarr or anything else with `__array__`; of any type of number. Or the path of an image file or of
                an OME-Zarr folder. Both of any size: only parts of it are in memory.
            channel_axis: the axis of an array that holds the channels; the last by default.
            channel: which channel is segmented, by its name or its number from 1, where there are several. By default
                the model's own, by its name; see `nucleate.data.channels.choose_channels`.
            region: only this part: first row, first column, height, width, in pixels.
            level: of a file with a pyramid this level; 0 is the whole image.
            pixel_size: micrometres. Of a file with a pyramid, the level whose pixels are nearest to it is taken; of any
                other image it says how large the pixels are.
            series: of a file that holds several images, such as the positions of a stage, this one, from 1.
            scene: the same, by its name or its number from 1.
            z: of a stack of planes the one of this number, from 1, the one in best focus ("best"), or their maximum or
                mean ("max", "mean"). By default what the model was trained on.
            t: of a series in time the frame of this number, from 1.
            entropy: also give how unsure the model is of each pixel.
            tile: pixels; the side of the parts in which nuclei are collected. No result depends on it.
            observe: is told the share of the work that is done, from 0 to 1.

        Returns:
            The labels and the table of the nuclei; none where the image is constant.

        Raises:
            ImageError: the array or the file cannot be used: its axes, its channels, NaN, a broken file.
            InputError: an option does not fit the image.

        >>> import nucleate
        >>> from nucleate.data.synthetic import fluorescence
        >>> image, _ = fluorescence(seed=0, height=96, width=128)
        >>> result = nucleate.load("fluorescence").segment(image.pixels)
        >>> result.labels.shape, result.labels.max().item() == len(result), result.table.dtype.names[:4]
        ((96, 128), True, ('id', 'y', 'x', 'area'))
        """
        selection = Selection.of(level, pixel_size, None if region is None else cast(Any, tuple(map(int, region))))
        if isinstance(image, (str, PathLike)):
            if channel_axis is not None:
                raise InputError("channel_axis is for arrays: a file says itself where its channels are.")
            opened = open_image(Path(image), selection, self._plane(Path(image), scene or series, z, t))
        else:
            opened = _open_array(image, channel_axis, selection)
        with closing(opened):
            reader = opened.reader
            folder = None if self.predictor.is_small(reader) else Path(tempfile.mkdtemp(prefix="nucleate-"))
            try:
                store = MemoryBlockStore() if folder is None else FolderBlockStore(folder)
                pipeline = self.predictor.run(
                    reader,
                    store,
                    region=opened.region,
                    tile=tile,
                    entropy=entropy,
                    channel=channel,
                    observe=observe,
                )
                return Result(reader.name, pipeline, self.predictor.model, opened.pixel_size, folder)
            except BaseException:
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def _plane(self, path: Path, scene: str | int | None, z: str | int | None, t: int | None) -> Plane:
        """Which image of a file is meant."""
        known = self.manifest.data.stacks
        words = [None if word is None else str(word) for word in (scene, z or known.get("z"), t or known.get("t"))]
        choice = Choice(*words)
        if EACH in (choice.z, choice.t):  # which is said of many images, and may be remembered of the training
            choice = Choice(choice.scene, *(None if word == EACH else word for word in (choice.z, choice.t)))
        return choice.plane() if scene is None else next(planes(scenes(path), choice, path))[1]


def _open_array(array: Any, channel_axis: int | None, selection: Selection) -> OpenImage:
    if selection.level:
        raise InputError(f"level is {selection.level}, but an array has no pyramid: give the array of that level.")
    reader = ArrayReader(array, channel_axis, pixel_size=selection.pixel_size)
    return OpenImage(reader, select_region(reader, selection.region), selection.pixel_size)


def load(
    model: str | PathLike[str],
    *,
    engine: str = "auto",
    number_format: str = "auto",
    tta: int = 1,
    min_area: int | None = None,
) -> Segmenter:
    """Load a trained model.

    Args:
        model: a model folder, or the name of a model in the package: fluorescence or brightfield.
        engine: what runs the network: auto, torch, openvino or openvino-int8; auto is the fastest on this kind of
            processor of those that agree with torch.
        number_format: of products: auto, float32 or bfloat16.
        tta: test-time augmentation, 1, 2 or 4: the mean over so many shifted copies of an image; slower and a little
            more accurate.
        min_area: pixels; nuclei below it are left out. By default as the model says.

    Raises:
        ModelError: there is no such model, or its folder is incomplete or altered.
        InputError: the engine is unknown or cannot be used here, or an option is out of its range.

    >>> import nucleate
    >>> nucleate.load("fluorescence", engine="torch")
    <Segmenter fluorescence: channels grey; torch>
    """
    if number_format not in NUMBER_FORMATS:
        raise InputError(f"number_format is {number_format!r}: choose one of {', '.join(NUMBER_FORMATS)}.")
    predictor = Predictor(
        read(locate(str(model))), engine=engine, tta=tta, min_area=min_area, bfloat16=NUMBER_FORMATS[number_format]
    )
    return Segmenter(predictor)


def train(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    loss: str = "cross_entropy",
    config: TrainingConfig | None = None,
    validation: str | PathLike[str] | None = None,
    channel: str | int | None = None,
    masks: str = "auto",
    resume: bool = False,
    observe: Observer | None = None,
    phase: Phase | None = None,
    warn: Callable[[str], None] = warnings.warn,
    ranks: Communicator | None = None,
    parent: str | PathLike[str] | None = "auto",
    unlabelled: str = "no",
    replay: str | PathLike[str] | None = None,
    scene: str | int | None = None,
    z: str | int | None = None,
    t: str | int | None = None,
) -> Segmenter:
    """Train a model on the labelled images of a folder; without a limit, the run decides when it is enough.

    Args:
        folder: holds images and masks, in one of the layouts that `nucleate check` knows.
        out: the model folder to write.
        minutes, epochs: train no longer than this.
        seed: the same seed gives the same run.
        loss: of the pixel classes: a name that `nucleate losses` marks, or a sum, as "cross_entropy+0.5*dice".
        config: everything about how the run goes, in place of the four options before.
        validation: a folder of labelled images to choose epoch and thresholds on; by default a part of `folder`.
        channel: the channel to learn from, by its name or its number from 1, where images have several.
        masks: how masks are taken: auto refuses what surely is a mistake, labels takes each number as one nucleus,
            binary makes each connected piece of a class mask a nucleus.
        resume: resume the interrupted run in `out`.
        observe: called after each step with the state of the run and the loss.
        phase: is told, in a few words, which part of the work begins.
        warn: told each thing that may be wrong with the images, as a sentence.
        ranks: the processes that train together, as `parallel.launch.join` gives them; the first one writes.
        parent: what training starts from: "auto", the model of the package that helps most, or none
            (`training.choice.choose_start`), and none where `config` asks for other widths than theirs; a model folder,
            whose corrections (`learn`) are learnt from, too; fluorescence or brightfield; None or "scratch", random
            weights.
        unlabelled: what is done with the images that have no labels: no; pretrain, the network first learns from all
            images without labels; pseudo, a first model labels them for a second one; auto, the same where the first
            model is good enough (`training.self_training`).
        replay: a folder of labelled images from which `parent` has learnt: half of each batch is drawn from them, so
            that they are not forgotten.
        scene: of files that hold several images the one of this name or number, from 1; by default all.
        z: of stacks of planes their maximum or mean ("max", "mean"), the plane in best focus ("best"), each plane as an
            image ("each"), or the plane of this number, from 1. The model remembers it.
        t: of series in time each frame as an image ("each"), or the frame of this number, from 1.

    Returns:
        The trained model, ready to segment.

    Raises:
        NucleateError: the images cannot be used, or the folder not written.
    """
    # Training is loaded where it is asked for: prediction starts a second earlier without it.
    from nucleate.data.masks import choice
    from nucleate.networks.unet import Architecture
    from nucleate.report.model_files import model_files
    from nucleate.training.config import TrainingConfig
    from nucleate.training.self_training import chosen, train_in_stages

    run = config or TrainingConfig(seed=seed, loss=loss, minutes=minutes, epochs=epochs)
    start: Path | Literal["auto"] | None = None
    if parent == "auto" and run.widths == Architecture().widths:
        start = "auto"
    elif parent not in (None, "scratch", "auto"):
        start = locate(str(parent))
    train_in_stages(
        Path(folder),
        Path(out),
        run,
        chosen(unlabelled),
        validation=None if validation is None else Path(validation),
        channel=channel,
        masks=choice(masks),
        resume=resume,
        observe=observe,
        phase=phase,
        warn=warn,
        extra_files=model_files,
        ranks=ranks,
        parent=start,
        replay=None if replay is None else Path(replay),
        stacks=_choice(scene, z, t),
    )
    return load(out)


def learn(
    model: str | PathLike[str],
    image: Any = None,
    mask: Any = None,
    *,
    out: str | PathLike[str] | None = None,
    masks: str = "auto",
    region: Sequence[int] | None = None,
    name: str = "array",
    observe: Callable[[Update], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> list[Update]:
    """Let a model learn on-line from a correction, at once and for good.

    Args:
        model: a model folder, which changes; or with `out` any model, also one of the package, of which a copy learns.
        image: an image file or an array, (H, W) or (H, W, C); or a folder of images and masks, taken in the order of
            their names. None learns what was recorded and not learnt, as after a crash.
        mask: its label image, a file or an array (H, W): 0 background, above 0 a nucleus each, below 0 unknown.
        out: the folder of the copy, a new one.
        masks: how masks are taken; see `train`.
        region: what was corrected, first row, first column, height, width; all else is unknown.
        name: of an array, in the log.
        observe: is told each update when it is done.
        warn: told what a person should know, as a sentence.

    Returns:
        What each correction did; also those that were left from before.

    Raises:
        NucleateError: a file or the model cannot be used, or another process is learning in the folder.

    >>> import tempfile
    >>> from nucleate.data.synthetic import fluorescence
    >>> image, truth = fluorescence(seed=0, height=64, width=64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     copy = f"{folder}/copy"
    ...     update, = learn("fluorescence", image.pixels, truth, out=copy, warn=lambda _: None)
    ...     undo(copy)
    >>> update.number, update.nuclei == int(truth.max()), update.taken_back
    (1, True, False)
    """
    from nucleate.data.masks import choice
    from nucleate.training.copying import copied
    from nucleate.training.online import OnlineLearner
    from nucleate.training.stream import array_correction, corrections

    box = None if region is None else Box(*map(int, region))
    tiles: Any = ()
    if isinstance(image, (str, PathLike)):
        tiles = corrections(Path(image), None if mask is None else Path(mask), choice(masks), box)
    elif image is not None:
        tiles = [array_correction(image, mask, name, choice(masks), box)]
    folder = locate(str(model)) if out is None else copied(str(model), Path(out))
    updates, told = list[Any](), observe or (lambda _: None)
    with OnlineLearner.open(folder, warn=warn) as learner:
        for number in learner.waiting():
            updates.append(learner.learn(number))
            told(updates[-1])
        for tile, labels in tiles:
            updates.append(learner.learn(learner.record(tile, labels, tile.name)))
            told(updates[-1])
    return updates


def undo(model: str | PathLike[str]) -> None:
    """Give back the model before any correction, bit for bit; the corrections stay in its folder as files.

    Args:
        model: a model folder.

    Raises:
        NucleateError: there is no such model, or another process is learning in it.
    """
    from nucleate.training.online import undo

    undo(locate(str(model)))


def stream(
    model: str | PathLike[str],
    folder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    masks: str = "auto",
    observe: Callable[[Judged], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> StreamResult:
    """Judge on-line learning on a sequence of labelled images: predict, score, learn, image after image.

    Args:
        model: a model folder, or the name of a model in the package; a copy of it learns.
        folder: images and masks, taken in the order of their names.
        out: the folder to write: `model` the copy, `stream.csv` the table, `report.html`.
        masks: how masks are taken; see `train`.
        observe: is told each image when it is done.
        warn: told what a person should know, as a sentence.

    Returns:
        What each image did, beside the score of the model that does not learn.

    Raises:
        NucleateError: a file or the model cannot be used, or `out` holds a model already.
    """
    from nucleate.data.masks import choice
    from nucleate.report.stream import write_stream
    from nucleate.training.copying import copied
    from nucleate.training.online import OnlineLearner
    from nucleate.training.stream import corrections, judge

    tiles = corrections(Path(folder), None, choice(masks))
    copy = copied(str(model), Path(out) / "model")
    with OnlineLearner.open(copy, warn=warn) as learner:
        found = judge(learner, tiles, observe)
    write_stream(found, Path(out), str(model), str(folder))
    return found


def _choice(scene: str | int | None, z: str | int | None, t: str | int | None) -> Choice:
    return Choice(*(None if word is None else str(word) for word in (scene, z, t)))


def pretrain(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    contrast: float = 1.0,
    reconstruction: float = 1.0,
    config: TrainingConfig | None = None,
    what: PretrainingConfig | None = None,
    channel: str | int | None = None,
    resume: bool = False,
    observe: Observer | None = None,
    phase: Phase | None = None,
    warn: Callable[[str], None] = warnings.warn,
    ranks: Communicator | None = None,
    parent: str | PathLike[str] | None = None,
    scene: str | int | None = None,
    z: str | int | None = None,
    t: str | int | None = None,
) -> Manifest:
    """Learn from all images of a folder, without their labels; `train(parent=out)` starts from what was learnt.

    Args:
        folder: holds images, in one of the layouts that `nucleate check` knows; masks are not read.
        out: the model folder to write.
        minutes, epochs: train no longer than this.
        seed: the same seed gives the same run.
        contrast: weight of telling views of images, and places in them, apart; 0 leaves it out.
        reconstruction: weight of reconstructing what was hidden in a view, or noisy; 0 leaves it out.
        config: how the run goes, in place of minutes, epochs and seed.
        what: what is learnt, in place of contrast and reconstruction.
        channel: the channel to learn from, by its name or its number from 1, where images have several.
        resume: resume the interrupted run in `out`.
        observe: called after each step with the state of the run and the loss.
        phase: is told, in a few words, which part of the work begins.
        warn: told each thing that may be wrong with the images, as a sentence.
        ranks: the processes that train together, as `parallel.launch.join` gives them; the first one writes.
        parent: the model to start from, a folder or fluorescence or brightfield; by default none.
        scene, z, t: what is taken of files that hold several images and of stacks, as of `train`.

    Returns:
        The manifest of the model, which cannot segment yet.

    Raises:
        NucleateError: the images cannot be used, the folder not written, or the embeddings collapsed.
    """
    from nucleate.report.pretraining import pretraining_files
    from nucleate.training.contrast import PretrainingConfig
    from nucleate.training.pretrain import pretrain, run_config

    return pretrain(
        Path(folder),
        Path(out),
        config or run_config(seed=seed, minutes=minutes, epochs=epochs),
        what or PretrainingConfig.of(contrast, reconstruction),
        channel=channel,
        resume=resume,
        observe=observe,
        phase=phase,
        warn=warn,
        extra_files=pretraining_files,
        ranks=ranks,
        parent=None if parent is None else locate(str(parent)),
        stacks=_choice(scene, z, t),
    )


def evaluate(predicted: Any, truth: Any, *, masks: str = "auto") -> Evaluation:
    """Score predicted nuclei against true ones.

    Args:
        predicted: a label image (H, W), its path, or a folder of label images.
        truth: the same of the true nuclei, the files named alike; negative labels are unknown.
        masks: how masks are taken: auto refuses what surely is a mistake, labels takes each number as one nucleus,
            binary makes each connected piece of a class mask a nucleus.

    Returns:
        The pooled scores, and what was matched in each image; see `nucleate.evaluation`.

    Raises:
        NucleateError: a file or an array is no label image, two of a pair differ in size, or a partner is missing.

    >>> import numpy as np
    >>> import nucleate
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> nucleate.evaluate(np.array([[1, 1, 0, 0]]), truth).scores.at[0].recall
    0.5
    """
    from nucleate.data.masks import choice
    from nucleate.evaluation import evaluate

    return evaluate(predicted, truth, masks=choice(masks))
