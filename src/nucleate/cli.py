"""The command line: one command is one call of a function of the package, a progress bar, and a last word.

Everything heavy is imported inside the commands, so that `nucleate --help` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleate import __version__, out_of_memory, signals
from nucleate.errors import InputError, NucleateError, NucleateWarning, printable
from nucleate.parallel import launch
from nucleate.sentences import command, count
from nucleate.shell import session, sum_up, with_common_options

app = typer.Typer(
    help="Train a nucleus segmenter on your own microscope images, and use it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="Folder of images and masks.", show_default=False)]
MasksOption = Annotated[
    str,
    typer.Option(
        help="auto: refuse what surely is a mistake; labels: each number is one nucleus; binary: each piece is one;"
        " colours: each colour is one."
    ),
]
SceneOption = Annotated[
    str | None, typer.Option(help="Of files with several images this one, by name or by number from 1; else all.")
]
ZOption = Annotated[
    str | None, typer.Option("--z", help="Of stacks of planes: max, mean, best (in focus), each, or a number from 1.")
]
TOption = Annotated[str | None, typer.Option("--t", help="Of series in time: each, or the number of a frame from 1.")]
LOOPBACK = "127.0.0.1"
Port = Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0 takes a free one.")]
Host = Annotated[
    str, typer.Option(help="Address to listen on; another than 127.0.0.1 lets other machines in, with the token.")
]
SOME_FAILED = 1
"""Exit code where some of many images could not be done."""
WITHOUT_TORCH = ("check", "convert", "evaluate", "view", "report", "curves")
"""The commands that need little memory."""
UNUSABLE = 2
"""Exit code where nothing could."""
INTERRUPTED = 130
"""Exit code that typer gives a command that was interrupted by whatever signal."""


def command_of(function: Callable[..., None]) -> None:
    """Make the function a command."""
    app.command()(with_common_options(function))


def serving(function: Callable[..., None]) -> None:
    """The same for one that a person ends, and which has nothing to sum up."""
    app.command()(with_common_options(function, summary=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; whatever a person can mend is one sentence on standard error and exit code 2.

    `arguments` are those of the process unless given.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a console that lacks a character of a file's name shows its number
            stream.reconfigure(errors="backslashreplace")
    with signals.handled(), warnings.catch_warnings(), session():
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        try:
            with launch.one_voice():
                app(arguments, prog_name="nucleate")
        except BaseException as error:
            sentence, code = _ended(error)
            if sentence is not None:
                with suppress(OSError):  # of a terminal that is gone
                    print(launch.as_said_by_rank(sentence), file=sys.stderr, flush=True)
            launch.end_others(error, code)
            if sentence is not None:
                raise SystemExit(code) from None
            raise


def _show_warning(others: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A warning of ours as one sentence; `others` shows those of libraries."""
    if issubclass(category, NucleateWarning):
        print(f"nucleate: {printable(message)}", file=sys.stderr, flush=True)
    else:
        others(message, category, *where)


def _ended(error: BaseException) -> tuple[str | None, int]:
    """What to say of an error that ended a command, and the exit code; None where it stands for itself."""
    if isinstance(error, SystemExit) and error.code != INTERRUPTED:
        return None, 0
    # Libraries turn an interruption that meets them into errors of their own.
    if isinstance(error, KeyboardInterrupt | SystemExit) or signals.interrupted():
        return signals.verdict()
    if isinstance(error, NucleateError):
        return f"nucleate: {error}", UNUSABLE
    memory = out_of_memory.sentence(error)
    return (None if memory is None else f"nucleate: {memory}"), UNUSABLE


def _version(asked: bool) -> None:
    if asked:
        from nucleate.doctor import versions

        print(f"nucleate {__version__}")
        for name, value in versions():
            print(f"{name}: {value}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show it, and those of torch, engines and MPI."
        ),
    ] = False,
) -> None:
    """Train a nucleus segmenter on your own microscope images, and use it."""
    if context.invoked_subcommand not in WITHOUT_TORCH:
        out_of_memory.refuse_below()


@command_of
def check(
    folder: Folder,
    masks: MasksOption = "auto",
    validation: Annotated[Path | None, typer.Option(help="Folder for validation: what both hold is named.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Also write the first three images with their labels to this folder.")
    ] = None,
    scene: SceneOption = None,
    z: ZOption = None,
    t: TOption = None,
) -> None:
    """Say what a folder holds and what is odd in it."""
    from rich.console import Console

    from nucleate.data.inspect import inspect
    from nucleate.data.masks import choice
    from nucleate.io.stack import Choice
    from nucleate.report.console import print_folder_report

    stacks = Choice(scene, z, t)
    with _busy("reading the images"):
        report = inspect(folder, choice(masks), validation, stacks)
    print_folder_report(report, Console())
    sum_up(report=report)
    if pictures is not None:
        from nucleate.report.label_pictures import write_pictures

        for path in write_pictures(folder, pictures, choice(masks)):
            print(f"Wrote {printable(path)}.")


@command_of
def convert(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder to write to: a new one.", show_default=False)],
    to: Annotated[
        str, typer.Option(help="Layout to write: nucleate (images/ and masks/), cellpose, nnunet, qupath or coco.")
    ] = "nucleate",
    masks: MasksOption = "auto",
) -> None:
    """Write images and masks of any layout in that of another program."""
    from nucleate.data.convert import convert
    from nucleate.data.masks import choice

    with _busy("converting"):
        done = convert(folder, out, to, choice(masks))
    for note in done.notes:
        _warn(note)
    print(f"Wrote {count(done.images, 'image')} with {count(done.nuclei, 'nucleus', 'nuclei')} to {printable(out)}.")
    sum_up(out=out, images=done.images, nuclei=done.nuclei, notes=done.notes)
    if to == "nucleate":
        print(f"Next: {command('check', out)}")


@command_of
def suggest(
    folder: Folder,
    model: Annotated[
        str | None,
        typer.Option(help="Model folder, or fluorescence or brightfield; by default the one of these that fits."),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many images to suggest.")] = 5,
    channel: Annotated[
        str | None, typer.Option(help="Of several the channel that is looked at, by name or by number from 1.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that nucleate did not write.")] = False,
) -> None:
    """Say which unlabelled images of a folder to label first, and why."""
    from dataclasses import asdict

    from rich.console import Console

    from nucleate.inference.suggest import fitting, suggest
    from nucleate.networks.store import locate, read
    from nucleate.report.console import print_suggestions

    with _busy("looking at the images"):
        model = model or fitting(folder)
        found = suggest(folder, read(locate(model)), number, channel)
    _say_which(model)
    sum_up(**asdict(found))
    print_suggestions(found, Console())
    more: list[str | Path] = [] if channel is None else ["--channel", channel]
    print(f"Label every nucleus of these images. Then: {command('train', folder, '--out', Path('model'), *more)}")


@command_of
def train(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder to write the model to.", show_default=False)],
    parent: Annotated[
        str,
        typer.Option(
            "--from",
            help="What to start from: a model folder, fluorescence, brightfield, scratch (none of them), or auto: what"
            " helps most.",
        ),
    ] = "auto",
    unlabelled: Annotated[
        str, typer.Option(help="What is done with images that have no labels: no, pretrain, pseudo or auto.")
    ] = "no",
    replay: Annotated[
        Path | None, typer.Option(help="Labelled images that --from has learnt from, so that it does not forget them.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="Folder of labelled images to choose on.")] = None,
    loss: Annotated[
        str,
        typer.Option(help="Loss of the pixel classes: a name that nucleate losses marks, or cross_entropy+0.5*dice."),
    ] = "cross_entropy",
    minutes: Annotated[float | None, typer.Option(min=0.05, help="Train no longer than this.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train no longer than this many epochs.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples a step, which the ranks of MPI share.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same run.")] = 0,
    channel: Annotated[
        str | None,
        typer.Option(help="Of several the channel to learn from, by name or by number from 1; all for all of them."),
    ] = None,
    masks: MasksOption = "auto",
    scene: SceneOption = None,
    z: ZOption = None,
    t: TOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
) -> None:
    """Train on the labelled images of a folder. Without a limit, the run decides when it is enough."""
    with _busy():
        from nucleate import api
        from nucleate.data.masks import choice
        from nucleate.io.stack import Choice
        from nucleate.networks.store import read_history
        from nucleate.report.last_words import last_words
        from nucleate.report.training_progress import TrainingProgress
        from nucleate.training.config import TrainingConfig

    config = TrainingConfig(seed=seed, loss=loss, minutes=minutes, epochs=epochs, batch=batch)
    ranks = launch.join()
    with TrainingProgress(config, out) as progress:
        model = api.train(
            folder,
            out,
            config=config,
            validation=validation,
            channel=channel,
            masks=masks,
            resume=resume,
            observe=progress.observe,
            phase=progress.phase,
            warn=_warn,
            ranks=ranks,
            parent=parent,
            unlabelled=unlabelled,
            replay=replay,
            scene=scene,
            z=z,
            t=t,
        )
    needed: list[str | Path] = [] if channel is None else ["--channel", channel]
    needed += Choice(scene, z, t).words()
    needed += [] if validation is None else ["--validation", validation]
    words = last_words(model.manifest, read_history(out), folder, out, choice(masks), needed)
    sum_up(out=out, model=model.manifest.model_dump(mode="json"))
    print("\n".join(map(printable, words)))


@command_of
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Folder of images; masks are not read.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.", show_default=False)],
    parent: Annotated[
        str | None, typer.Option("--from", help="Start from this model folder, or fluorescence or brightfield.")
    ] = None,
    contrast: Annotated[float, typer.Option(help="Weight of telling images and places apart; 0 leaves it out.")] = 1.0,
    reconstruction: Annotated[
        float, typer.Option(help="Weight of reconstructing hidden and noisy parts; 0 leaves it out.")
    ] = 1.0,
    minutes: Annotated[float | None, typer.Option(min=0.05, help="Train no longer than this.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train no longer than this many epochs.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same run.")] = 0,
    channel: Annotated[
        str | None,
        typer.Option(help="Of several the channel to learn from, by name or by number from 1; all for all of them."),
    ] = None,
    scene: SceneOption = None,
    z: ZOption = None,
    t: TOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
) -> None:
    """Learn from images without labels; train --from starts from what was learnt."""
    with _busy():
        from nucleate import api
        from nucleate.networks.store import REPORT, read_history
        from nucleate.report.training_progress import TrainingProgress
        from nucleate.training.contrast import PretrainingConfig
        from nucleate.training.pretrain import run_config

    what = PretrainingConfig.of(contrast, reconstruction)
    config = run_config(seed=seed, minutes=minutes, epochs=epochs)
    ranks = launch.join()
    with TrainingProgress(config, out) as progress:
        manifest = api.pretrain(
            folder,
            out,
            config=config,
            what=what,
            channel=channel,
            resume=resume,
            observe=progress.observe,
            phase=progress.phase,
            warn=_warn,
            ranks=ranks,
            parent=parent,
            scene=scene,
            z=z,
            t=t,
        )
    sum_up(out=out, model=manifest.model_dump(mode="json"))
    training = manifest.training
    print(f"{training.stopped} The weights of epoch {training.best_epoch} are kept.")
    score = read_history(out)[training.best_epoch - 1]["score"]
    print(f"The other view of a held-out crop is the nearest in {score:.1%} of all cases.")
    print(f"Wrote {printable(out)}; {printable(out / REPORT)} shows what it learnt.")
    print(f"Next: {command('train', folder, '--from', out, '--out', Path('model'))}")


@command_of
def predict(
    model: Annotated[str, typer.Argument(help="Model folder, or fluorescence or brightfield.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Images or folders of images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write the results to.", show_default=False)],
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="What to write: tif, zarr, geojson, roi, csv, parquet, cellprofiler, with commas between."
        ),
    ] = "tif,csv",
    level: Annotated[
        int | None, typer.Option(help="Of an image with a pyramid this level; 0 is the whole image.")
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            help="Micrometres: take the level whose pixels are nearest to it; or what the file does not say of its own."
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="Of several the channel to segment, by name or by number from 1; else the model's own."),
    ] = None,
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="Only this part of the level, in pixels.", metavar="Y X HEIGHT WIDTH"),
    ] = None,
    scene: SceneOption = None,
    z: ZOption = None,
    t: TOption = None,
    engine: Annotated[
        str, typer.Option(help="What runs the network: auto, torch, openvino or openvino-int8.")
    ] = "auto",
    tta: Annotated[
        int,
        typer.Option(
            help="Test-time augmentation: the mean over 1, 2 or 4 moved images; slower, a little more accurate."
        ),
    ] = 1,
    views: Annotated[int | None, typer.Option(hidden=True, help="The old name of --tta.")] = None,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="Also write how unsure the model is of each pixel, in bits.")
    ] = False,
    measure: Annotated[
        str, typer.Option(help="What the table holds: basic, or all, also of the shape and of each channel.")
    ] = "basic",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write each image with the outlines drawn in.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Also write the labels of an OME-Zarr image into it, as labels/nuclei.")
    ] = False,
    min_size: Annotated[
        int | None, typer.Option(min=0, max=2**31, help="Leave out nuclei below this area, in pixels.")
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles of a large image, in pixels; no result differs.")] = (
        1024
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in the way that nucleate predict did not write.")
    ] = False,
) -> None:
    """Find the nuclei in images of any size: a label image and a table for each, or other formats."""
    with _busy():
        from nucleate import api
        from nucleate.data.dataset import images_in, skipped_in
        from nucleate.inference.image_input import Selection
        from nucleate.inference.predict import Request, predict
        from nucleate.io.stack import Choice
        from nucleate.report.prediction_progress import PredictionProgress, sentences

    selection = Selection.of(level, pixel_size, region)
    names = tuple(name.strip() for name in formats.split(",") if name.strip())
    request = Request(
        selection,
        tile,
        names,
        overlay=overlay,
        entropy=entropy,
        resume=resume,
        overwrite=overwrite,
        channel=channel,
        stacks=Choice(scene, z, t),
        in_place=in_place,
        measure=measure,
    )
    files = images_in(images)
    for sentence in skipped_in(images):
        _warn(sentence)
    tta = tta if views is None else views
    _say_which(model)
    ranks = launch.join()
    predictor = api.load(model, engine=engine, tta=tta, min_area=min_size).predictor
    facts = {"version": __version__, "options": str((request, tta)), "images": str([path.name for path in files])}
    launch.require_same(ranks, {**facts, "model or engine": str((predictor.identity(), predictor.engine.describe()))})
    with PredictionProgress(files, out) as progress:
        done = predict(predictor, files, out, request, observe=progress.observe, ranks=ranks)
    for sentence in sentences(done):
        print(f"nucleate: {printable(sentence)}", file=sys.stderr)
    sum_up(out=out, nuclei=done.nuclei, failed=done.failed)
    if done.nuclei:
        nuclei = count(sum(done.nuclei.values()), "nucleus", "nuclei")
        print(f"{nuclei} in {count(len(done.nuclei), 'image')}. Wrote {out}. Next: {command('view', out)}")
    _name_failures(done.failed, len(done.results))


@command_of
def learn(
    model: Annotated[
        str, typer.Argument(help="Model folder; with --out also fluorescence or brightfield.", show_default=False)
    ],
    image: Annotated[
        Path | None, typer.Argument(help="Image, or folder of images and masks.", show_default=False)
    ] = None,
    mask: Annotated[Path | None, typer.Argument(help="Corrected label image of the image.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Let a copy of the model learn, in this new folder.")] = None,
    masks: MasksOption = "auto",
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="Only this part was corrected, in pixels.", metavar="Y X HEIGHT WIDTH"),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to before any correction.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Show what was learnt, when, and with which effect.")] = False,
) -> None:
    """Let a model learn from a correction, or from a folder of them in turn; what it learnt is kept with it."""
    with _busy():
        from rich.console import Console

        from nucleate import api
        from nucleate.networks.store import locate
        from nucleate.report import online
        from nucleate.training.journal import Journal

    if undo + log + (image is not None) > 1 or ((undo or log) and out is not None):
        raise InputError("Give an image and its mask, --undo or --log, one of them at a time.")
    if undo:
        api.undo(model)
        print(online.undone(locate(model)))
        sum_up(model=locate(model), undone=True)
    elif log:
        journal = Journal(locate(model))
        online.print_log(journal, Console(width=None if sys.stdout.isatty() else 160))
        sum_up(model=locate(model), updates=journal.updates())
    else:
        found = api.learn(
            model,
            image,
            mask,
            out=out,
            masks=masks,
            region=region,
            warn=_warn,
            observe=lambda one: print(online.line(one)),
        )
        learner = locate(model) if out is None else out
        print("\n".join(online.learnt(found, learner)))
        sum_up(model=learner, updates=found)


@command_of
def stream(
    model: Annotated[str, typer.Argument(help="Model folder, or fluorescence or brightfield.", show_default=False)],
    folder: Folder,
    report: Annotated[Path, typer.Option(help="Folder for the report, the table and the copy that learns.")],
    masks: MasksOption = "auto",
) -> None:
    """Judge on-line learning on a sequence of labelled images: predict, score, then learn, one after the other."""
    with _busy():
        from nucleate import api
        from nucleate.report import online
        from nucleate.report.stream import REPORT, sentence

    _say_which(model)
    found = api.stream(
        model, folder, report, masks=masks, warn=_warn, observe=lambda one: print(online.line(one.update))
    )
    print(f"{sentence(found)}\nWrote {printable(report / REPORT)}: open it in a browser.")
    sum_up(report=report / REPORT, tiles=found.rows)


@serving
def view(
    folder: Annotated[Path, typer.Argument(help="What predict wrote: its --out.", show_default=False)],
    truth: Annotated[Path | None, typer.Option(help="Folder of true masks, to draw them, too.")] = None,
    port: Port = 0,
    host: Host = LOOPBACK,
    browser: Annotated[bool, typer.Option("--open", help="Also open it in the browser.")] = False,
) -> None:
    """Look at images and their nuclei in the browser, until Ctrl-C."""
    from nucleate.web.app import serve
    from nucleate.web.gallery import Gallery

    gallery = Gallery(folder, truth)
    for note in gallery.notes:
        print(f"nucleate: {note}", file=sys.stderr)
    serve(gallery, port, host=host, browser=browser, announce=_announce)


@serving
def annotate(
    model: Annotated[
        str, typer.Argument(help="Model folder, which learns; or fluorescence or brightfield.", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Where the copy of fluorescence or brightfield learns.")] = None,
    order: Annotated[
        str, typer.Option(help="The next tile: entropy, of which the model is least sure; random.")
    ] = "entropy",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same order.")] = 0,
    channel: Annotated[
        str | None, typer.Option(help="Of several the channel that is looked at, by name or by number from 1.")
    ] = None,
    port: Port = 0,
    host: Host = LOOPBACK,
    browser: Annotated[bool, typer.Option("--open", help="Also open it in the browser.")] = False,
) -> None:
    """Correct what a model finds, in the browser; it learns from each tile, until Ctrl-C."""
    from nucleate.annotating import annotating
    from nucleate.web.annotation.routes import make_annotator
    from nucleate.web.app import serve_app

    with annotating(model, folder, out, order=order, seed=seed, channel=channel) as work:
        for note in work.notes:
            print(f"nucleate: {note}", file=sys.stderr)
        serve_app(make_annotator(work), "nucleate annotate", port, host=host, browser=browser, announce=_announce)


def _announce(address: str) -> None:
    print(f"{address}  (Ctrl-C ends it)", flush=True)


@command_of
def report(
    folder: Annotated[Path, typer.Argument(help="What predict wrote: its --out.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write; by default report.html in the folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that nucleate did not write.")] = False,
) -> None:
    """Write one HTML page of a prediction: counts, sizes, intensities, a contact sheet, what failed."""
    from nucleate.io.atomic import write_text
    from nucleate.io.ownership import refuse_replacing
    from nucleate.report.html import WRITTEN_BY
    from nucleate.report.prediction import prediction_report

    path = out or folder / "report.html"
    refuse_replacing(path, WRITTEN_BY.encode(), overwrite=overwrite)
    with _busy("writing the report"):
        write_text(path, prediction_report(folder))
    sum_up(report=path)
    print(f"Wrote {path}: open it in a browser.")


@command_of
def export(
    model: Annotated[str, typer.Argument(help="Model folder, or fluorescence or brightfield.", show_default=False)],
    to: Annotated[str, typer.Option(help="onnx, openvino, torchscript or bioimageio.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write: NAME.onnx, .xml, .pt or .zip.", show_default=False)],
    author: Annotated[list[str] | None, typer.Option(help="For bioimageio: who made the model; repeatable.")] = None,
    licence: Annotated[str | None, typer.Option(help="For bioimageio: such as CC-BY-4.0.")] = None,
    cite: Annotated[list[str] | None, typer.Option(help="For bioimageio: a DOI or an address; repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that nucleate did not write.")] = False,
) -> None:
    """Write a model as a file for other programs, checked against PyTorch."""
    from json import dumps

    from nucleate.inference.bioimageio import Credits
    from nucleate.inference.export import USE, export
    from nucleate.networks.store import locate, read

    given = Credits(tuple(author or ()), licence, tuple(cite or ())) if author or licence or cite else None
    _say_which(model)
    with _busy("writing and checking the model"):
        done = export(read(locate(model)), to, out, overwrite=overwrite, credits=given)
    sum_up(files=done.files, difference=done.difference)
    print(f"Wrote {' and '.join(map(str, done.files))}. {done.checked}")
    print(USE[to].format(out=dumps(str(out))))


@command_of
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Predicted label image, or a folder of them.", show_default=False)],
    true: Annotated[Path, typer.Argument(help="True label image, or a folder of them.", show_default=False)],
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML page: scores, and each image with truth and prediction.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images for --report, where they are not found otherwise.")
    ] = None,
    masks: MasksOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that nucleate did not write.")] = False,
) -> None:
    """Compare predicted nuclei with true ones."""
    from rich.console import Console

    from nucleate.data.masks import choice
    from nucleate.evaluation import evaluate, summary
    from nucleate.io.ownership import refuse_replacing
    from nucleate.report.console import print_evaluation

    if report is not None:
        from nucleate.report.html import WRITTEN_BY, render
        from nucleate.report.own_data import evaluation_report

        refuse_replacing(report, WRITTEN_BY.encode(), overwrite=overwrite)
    with _busy("comparing the nuclei"):
        found = evaluate(predicted, true, masks=choice(masks))
    for sentence in found.warnings:
        _warn(sentence)
    sum_up(**summary(found))
    if report is not None:
        with _busy("writing the report"):
            render(evaluation_report(found, true, images, choice(masks)), report)
    print_evaluation(found, Console())
    if report is not None:
        print(f"Wrote {report}.")
    _name_failures(list(found.failed), len(found.failed) + len(found.images))


@command_of
def info(
    model: Annotated[str, typer.Argument(help="Model folder, or fluorescence or brightfield.", show_default=False)],
) -> None:
    """Show a model: its card, training, scores and network nodes."""
    from rich.console import Console

    from nucleate.networks.store import locate, read, read_history
    from nucleate.report.console import print_model

    _say_which(model)
    folder = locate(model)
    # The table of nodes is wide; what is piped to a file or a pager is not bound to a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else 160)
    found, history = read(folder, whole=False), read_history(folder)
    print_model(found, history, console)
    sum_up(folder=folder, model=found.manifest.model_dump(mode="json"), history=history)


@command_of
def doctor() -> None:
    """Show what this machine has, and which engine is used on it."""
    from rich.console import Console

    from nucleate.doctor import examine, examine_ranks
    from nucleate.report.console import print_facts

    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = [*examine(), *(examine_ranks(launch.join()) if launch.launched() else ())]
    print_facts(facts, console)
    sum_up(facts=dict(facts))


@command_of
def curves(
    histories: Annotated[
        list[Path],
        typer.Argument(help="CSV or JSON lines with epoch, train, valid; or model folders.", show_default=False),
    ],
    plot: Annotated[Path | None, typer.Option(help="Also draw the curves to this PNG file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that nucleate did not write.")] = False,
) -> None:
    """Say where training runs should have ended, by each of the known rules, and at what regret."""
    from rich.console import Console

    from nucleate.curves.compare import drawn, outcomes
    from nucleate.curves.history import read
    from nucleate.io.ownership import refuse_replacing
    from nucleate.report.console import print_stopping

    if plot is not None:
        refuse_replacing(plot, b"Software\0nucleate", overwrite=overwrite)
    console, judged = Console(), [(history := read(path), outcomes(history)) for path in histories]
    for history, found in judged:
        print_stopping(history, found, console)
    sum_up(runs=[{"name": history.name, "epochs": len(history.valid), "rules": found} for history, found in judged])
    if plot is not None:
        from nucleate.report.plots import plot_curves

        plot_curves([drawn(history, found[0]) for history, found in judged], plot, score="Score")
        print(f"Wrote {plot}.")


@command_of
def losses() -> None:
    """List the loss functions: formula, range, when to use each, and whether training takes it."""
    from rich.console import Console

    from nucleate.losses import catalogue
    from nucleate.report.console import print_losses
    from nucleate.training.pixel_loss import pixel_losses

    entries, trained = catalogue(), pixel_losses()
    print_losses(entries, trained, Console())
    facts = ("name", "kind", "formula", "range", "use")
    sum_up(losses=[{name: getattr(one, name) for name in facts} | {"trains": one.name in trained} for one in entries])


@command_of
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.05, help="How long to train.")] = 2.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the images and of the training.")] = 0,
) -> None:
    """Train, segment and score on drawn images; write a report."""
    from nucleate.demo import run
    from nucleate.report.training_progress import TrainingProgress
    from nucleate.training.config import TrainingConfig

    config = TrainingConfig(seed=seed, minutes=minutes)
    with TrainingProgress(config, out / "model") as progress:
        report = run(out, config, observe=progress.observe, phase=progress.phase)
    sum_up(report=report)
    print(f"Wrote {report}: open it in a browser.")
    print(f"Next: {command('predict', out / 'model', out / 'test', '--out', out / 'found')}")


@contextmanager
def _busy(what: str = "loading; the first time on a machine this takes some 20 seconds longer") -> Iterator[None]:
    """A line on the terminal while something is done; elsewhere one after ten seconds, and then every 30."""
    from rich.console import Console

    from nucleate.report.heartbeat import Heartbeat

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what.capitalize()):
            yield
    else:
        with Heartbeat(lambda: what, first=10):
            yield


def _warn(sentence: str) -> None:
    print(f"nucleate: {sentence}", file=sys.stderr)


def _say_which(model: str) -> None:
    """Say so where a model folder has the name of a model in the package."""
    from nucleate.networks.store import is_hidden

    if is_hidden(model):
        print(f"nucleate: the model in ./{model} is used, not the one of that name in the package.", file=sys.stderr)


def _name_failures(sentences: list[str], total: int) -> None:
    if not sentences:
        return
    print(f"nucleate: {len(sentences)} of {count(total, 'image')} could not be done:", file=sys.stderr)
    for sentence in sentences:
        print(f"  {sentence}", file=sys.stderr)
    raise typer.Exit(SOME_FAILED if len(sentences) < total else UNUSABLE)
