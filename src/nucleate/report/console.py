"""What the commands print: tables of scores, of a folder, of a model, of stopping rules and of losses."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nucleate.errors import printable
from nucleate.postprocess.scores import mean_ap
from nucleate.sentences import count

# For the types alone: `nucleate evaluate` and `nucleate check` need no torch.
if TYPE_CHECKING:
    from nucleate.curves.compare import Outcome
    from nucleate.curves.history import History
    from nucleate.data.inspect import FolderReport, ImageReport, Range
    from nucleate.evaluation import Evaluation
    from nucleate.inference.suggest import Suggestions
    from nucleate.losses import Entry
    from nucleate.networks.graph import Node
    from nucleate.networks.store import Model

_LISTED = 30
"""A folder of more images is summed up."""


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the scores, one row for each IoU threshold, and the qualities below."""
    scores = evaluation.scores
    predicted = count(scores.n_predicted, "predicted nucleus", "predicted nuclei")
    table = Table(title=f"{count(scores.images, 'image')}, {scores.n_true:,} true and {predicted}")
    _columns(table, "IoU ≥", "TP", "FP", "FN", "precision", "recall", "F1", "AP", "AP, mean of images")
    for row in scores.at:
        ratios = (row.precision, row.recall, row.f1, row.ap, row.mean_ap)
        counts = (str(row.tp), str(row.fp), str(row.fn))
        table.add_row(f"{row.threshold:g}", *counts, *(f"{ratio:.3f}" for ratio in ratios))
    console.print(table)
    if {0.5, 0.6, 0.7, 0.8, 0.9} <= {row.threshold for row in scores.at}:
        over_images = mean_ap(scores, over_images=True)
        console.print(f"mean AP, 0.5 to 0.9    {mean_ap(scores):.3f} pooled, {over_images:.3f} mean of images")
    console.print(
        f"panoptic quality       {scores.panoptic_quality:.3f} = {scores.segmentation_quality:.3f} segmentation "
        f"x {scores.recognition_quality:.3f} recognition"
    )
    console.print(f"aggregated Jaccard     {scores.aji:.3f} pooled, {scores.mean_aji:.3f} mean of images")
    if evaluation.left_out:
        number, example = len(evaluation.left_out), evaluation.left_out[0]
        console.print(f"left out, without true labels: {number} (the first is {example})", markup=False)


def print_folder_report(report: FolderReport, console: Console) -> None:
    """Print what a folder holds, each image of a small folder, then what is odd."""
    console.print(_folder_summary(report))
    if len(report.images) <= _LISTED:
        console.print(_each_image(report))
    if report.sound:
        console.print("Nothing odd was found.")
        return
    table = Table(title="What is odd", title_justify="left", show_header=False)
    for sentence in (*report.unreadable, *report.oddities):
        table.add_row("", Text(printable(sentence)))
    for image in report.images:
        for sentence in (*image.mistakes, *image.oddities):
            table.add_row(Text(printable(image.name)), Text(printable(sentence)))
    console.print(table)
    if wrong := sum(bool(image.mistakes) for image in report.images):
        console.print(f"Training and evaluation refuse {'this mask' if wrong == 1 else f'these {wrong} masks'}.")


def print_suggestions(found: Suggestions, console: Console) -> None:
    """Print which images to label first, in their order, with the reason of each."""
    of = f"{count(found.unlabelled, 'unlabelled image')}, {found.labelled} labelled; seen by {found.model}"
    table = Table(title=Text(f"{printable(found.folder)}: {of}"), title_justify="left")
    table.add_column("")
    table.add_column("image", overflow="fold")
    table.add_column("why")
    for place, one in enumerate(found.images, start=1):
        table.add_row(str(place), Text(printable(one.name)), one.reason)
    console.print(table)
    console.print(found.rule, soft_wrap=True, highlight=False, markup=False)
    for note in found.notes:
        console.print(printable(note), soft_wrap=True, highlight=False, markup=False)


def _folder_summary(report: FolderReport) -> Table:
    images = report.images
    labelled = sum(image.labelled for image in images)
    table = Table(title=Text(printable(report.folder)), title_justify="left", show_header=False)
    table.add_row("layout", report.layout)
    table.add_row("images", f"{len(images)}: {labelled} labelled, {len(images) - labelled} unlabelled")
    if report.unreadable:
        table.add_row("unreadable", str(len(report.unreadable)))
    if images:
        table.add_row("sizes", _sizes(images))
        table.add_row("channels", Text(_several(" + ".join(image.channels) for image in images)))
        table.add_row("type", _several(image.dtype for image in images))
        table.add_row("pixel size", _several(_micrometres(image.pixel_size) for image in images))
    table.add_row("nuclei", str(report.nuclei))
    if report.diameters:
        table.add_row("diameter", f"{_range(report.diameters)} pixels (5, 50, 95 %)")
    return table


def _each_image(report: FolderReport) -> Table:
    """A row for each image. What is the same for all of them stands in the summary and not here, to save width."""
    images = report.images
    columns: list[tuple[str, list[str]]] = [
        ("size", [_size(image) for image in images]),
        ("channels", [" + ".join(image.channels) for image in images]),
        ("type", [image.dtype for image in images]),
        ("pixel size", [_micrometres(image.pixel_size) for image in images]),
    ]
    columns = [(heading, cells) for heading, cells in columns if len(set(cells)) > 1]
    columns += [
        (
            "nuclei",
            ["unlabelled" if not one.labelled else "?" if one.nuclei is None else str(one.nuclei) for one in images],
        ),
        ("diameter", [_range(one.diameters) if one.diameters else "" for one in images]),
    ]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    # A name that is cut short is of no use: a long one continues in the next line. No other word is broken.
    longest = max((len(printable(image.name)) for image in images), default=0)
    table.add_column("image", overflow="fold", width=max(5, min(longest, 24)))
    for heading, cells in columns:
        longest = max(len(word) for cell in (heading, *cells) for word in [*cell.split(), ""])
        table.add_column(heading, min_width=longest)
    for index, image in enumerate(images):
        table.add_row(Text(printable(image.name)), *(Text(cells[index]) for _, cells in columns))
    return table


def _several(values: Iterable[str]) -> str:
    """Each value once; the first four of many."""
    distinct = sorted(set(values))
    return ", ".join(distinct[:4]) + (" ..." if len(distinct) > 4 else "")


def _size(image: ImageReport) -> str:
    return f"{image.width} x {image.height}"


def _sizes(images: Sequence[ImageReport]) -> str:
    ordered = sorted(images, key=lambda image: image.width * image.height)
    smallest, largest = _size(ordered[0]), _size(ordered[-1])
    return smallest if len(set(map(_size, images))) == 1 else f"{smallest} to {largest}"


def _micrometres(pixel_size: float | None) -> str:
    return "not given" if pixel_size is None else f"{pixel_size:.4g} µm"


def _range(values: Range) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def print_model(model: Model, history: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a model's card, its run, its scores and the nodes of its network."""
    from nucleate.networks.graph import halo, nodes

    manifest, network = model.manifest, model.network
    data, training, thresholds = manifest.data, manifest.training, manifest.thresholds
    facts = Table(title=manifest.name, show_header=False, title_justify="left")
    facts.add_row("data", f"{data.source} {data.licence}".strip())
    labelled = f"{count(data.labelled, 'labelled image')}, {count(data.nuclei, 'nucleus', 'nuclei')}"
    without = f"{count(data.unlabelled, 'image')} without labels: pre-trained, it finds no nuclei yet"
    facts.add_row("", without if data.unlabelled else f"{labelled}, median diameter {data.median_diameter} px")
    facts.add_row("validation", data.validation)
    facts.add_row("pixel size", f"{manifest.pixel_size} µm" if manifest.pixel_size else "not known")
    facts.add_row("channels", ", ".join(data.channels))
    facts.add_row(
        "training",
        f"{count(training.epochs, 'epoch')}, {training.seconds:.0f} s, {training.loss}, seed {training.seed}",
    )
    facts.add_row("", f"{training.stopped} Kept: epoch {training.best_epoch}.")
    if (own := manifest.corrections) is not None:
        learnt = f"{count(own.learnt, 'correction')} with {count(own.nuclei, 'nucleus', 'nuclei')} learnt"
        facts.add_row("on-line", f"{learnt}, {own.taken_back} taken back; the scores before say nothing of it")
    facts.add_row("thresholds", ", ".join(f"{name} {value:g}" for name, value in thresholds.model_dump().items()))
    facts.add_row("versions", ", ".join(f"{name} {value}" for name, value in manifest.versions.items()))
    if manifest.engines:
        qualities = (f"{name} {score:.3f}" for name, score in manifest.engines.panoptic_quality.items())
        facts.add_row("engines", f"panoptic quality on the validation images: {', '.join(qualities)}")
    if model.prototypes is not None:
        facts.add_row("unlike images", model.prototypes.measured.sentence())
    console.print(facts)
    for name, scores in manifest.scores.items():
        console.print(_model_scores(name, scores))
    console.print(_epochs(history, scored=bool(manifest.scores)))
    channels, stride = network.architecture.channels, network.architecture.stride
    console.print(_node_table(nodes(network, channels)))
    reach = halo(network, channels, stride)
    console.print(f"Tiles are cut on multiples of {stride} pixels and need a halo of {reach} pixels.")


def _model_scores(name: str, scores: Mapping[str, Any]) -> Table:
    whose = name if name in ("validation", "test") else f"{name} of the package, on the validation images"
    title = f"Scores ({whose}): panoptic quality {scores['panoptic_quality']:.3f}, AJI {scores['aji']:.3f}"
    table = Table(title=title, title_justify="left")
    _columns(table, "IoU", "precision", "recall", "F1", "AP")
    for row in scores["thresholds"]:
        table.add_row(f"{row['threshold']:g}", *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1", "ap")))
    return table


def _epochs(history: Sequence[Mapping[str, Any]], *, scored: bool) -> Table:
    """At most twelve epochs, spread over the run, the last one among them; with their scores on held-out nuclei."""
    table = Table(title="History", title_justify="left")
    more = ("score", "panoptic_quality") if scored else ("score", "spread", "effective_rank")
    keys = ("epoch", "train_loss", "valid_loss", *(more if all(key in row for row in history for key in more) else ()))
    _columns(table, *(key.replace("_", " ") for key in keys))
    every = max(1, -(-len(history) // 12))
    for row in history[::-1][::every][::-1]:
        table.add_row(str(row["epoch"]), *(f"{row[key]:.4f}" for key in keys[1:]))
    return table


def _node_table(nodes: Sequence[Node]) -> Table:
    table = Table(
        title=f"Nodes, for 256 x 256 pixels: {sum(node.parameters for node in nodes):,} parameters, "
        f"{sum(node.multiply_adds for node in nodes) / 1e9:.2f} G multiply-adds",
        title_justify="left",
    )
    for head in ("node", "operation", "inputs", "outputs", "shape"):
        table.add_column(head)
    _columns(table, "parameters", "multiply-adds", "sees")
    for node in nodes:
        table.add_row(
            node.name,
            node.operation,
            ", ".join(node.inputs),
            ", ".join(node.outputs),
            " x ".join(map(str, node.shape)),
            f"{node.parameters:,}",
            f"{node.multiply_adds:,}",
            str(node.field.size),
        )
    return table


def print_stopping(history: History, found: Sequence[Outcome], console: Console) -> None:
    """Print what the first rule says of a run in a sentence, and a table of all rules."""
    epochs, ours = len(history.valid), found[0].decision
    # The rule names the epoch of lowest error, which need not be the one that is kept.
    reason = ours.keeping(found[0].kept) if ours.stop else ours.reason
    after = f"after {ours.epoch} of {count(epochs, 'epoch')}"
    console.print(f"{history.name}, {after}. {reason}", highlight=False, markup=False)
    if history.first != 1:
        console.print(f"The file counts its epochs from {history.first}; here they count from 1.", highlight=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("rule", no_wrap=True)
    _columns(table, "stops after", "share", "keeps epoch", f"regret, {'test' if history.test else 'validation'}")
    _columns(table, *["regret, score"] * bool(history.score))
    for outcome in found:
        decision = outcome.decision
        cells = [str(decision.epoch) if decision.stop else "not yet", f"{decision.epoch / epochs:.0%}"]
        cells += [str(outcome.kept or "none"), _finite(outcome.regret, ".2%")]
        cells += [_finite(outcome.score_regret, ".3f")] * bool(history.score)
        table.add_row(outcome.rule, *cells)
    console.print(table)


def print_facts(facts: Iterable[tuple[str, str]], console: Console) -> None:
    """Print names and values in two columns."""
    table = Table(show_header=False)
    for name, value in facts:
        table.add_row(name, Text(value))
    console.print(table)


def print_losses(entries: Iterable[Entry], trained: Container[str], console: Console) -> None:
    """Print the loss functions: name, formula, range and use; `trained` are those that `nucleate train` takes."""
    table = Table(show_lines=True)
    for head in ("loss", "train", "formula", "range", "when to use it"):
        table.add_column(head, no_wrap=head == "loss")
    for entry in entries:
        mark = "yes" if entry.name in trained else ""
        table.add_row(*(Text(text) for text in (entry.name, mark, entry.formula, entry.range, entry.use)))
    console.print(table)
    console.print(
        "Those with yes are for nucleate train --loss, alone or added up: cross_entropy+0.5*dice.", soft_wrap=True
    )


def _columns(table: Table, *heads: str) -> None:
    """Columns of numbers."""
    for head in heads:
        table.add_column(head, justify="right")


def _finite(value: float, form: str) -> str:
    return format(value, form) if isfinite(value) else "-"
