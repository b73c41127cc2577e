"""What `nucleate info` shows of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from nucleate.networks.graph import halo, nodes
from nucleate.networks.store import Model


def render(model: Model, history: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the card, the run, the scores and the nodes."""
    manifest, network = model.manifest, model.network
    data, training, thresholds = manifest.data, manifest.training, manifest.thresholds
    facts = Table(title=manifest.name, show_header=False, title_justify="left")
    facts.add_row("data", f"{data.source} {data.licence}".strip())
    facts.add_row(
        "", f"{data.labelled} labelled images, {data.nuclei} nuclei, median diameter {data.median_diameter} px"
    )
    facts.add_row("validation", data.validation)
    facts.add_row("pixel size", f"{manifest.pixel_size} µm" if manifest.pixel_size else "not known")
    facts.add_row("channels", ", ".join(data.channels))
    facts.add_row(
        "training", f"{training.epochs} epochs, {training.seconds:.0f} s, {training.loss}, seed {training.seed}"
    )
    facts.add_row("", f"{training.stopped} Kept: epoch {training.best_epoch}.")
    facts.add_row("thresholds", ", ".join(f"{name} {value:g}" for name, value in thresholds.model_dump().items()))
    facts.add_row("versions", ", ".join(f"{name} {value}" for name, value in manifest.versions.items()))
    if manifest.engines:
        qualities = (f"{name} {score:.3f}" for name, score in manifest.engines.panoptic_quality.items())
        facts.add_row("engines", f"panoptic quality on the validation images: {', '.join(qualities)}")
    console.print(facts)
    for name, scores in manifest.scores.items():
        console.print(_scores(name, scores))
    console.print(_history(history))
    architecture = network.architecture
    console.print(_nodes(model))
    reach = halo(network, architecture.channels, architecture.stride)
    console.print(f"Tiles are cut on multiples of {architecture.stride} pixels and need a halo of {reach} pixels.")


def _scores(name: str, scores: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"Scores ({name}): panoptic quality {scores['panoptic_quality']:.3f}, AJI {scores['aji']:.3f}",
        title_justify="left",
    )
    for head in ("IoU", "precision", "recall", "F1", "AP"):
        table.add_column(head, justify="right")
    for row in scores["thresholds"]:
        table.add_row(f"{row['threshold']:g}", *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1", "ap")))
    return table


def _history(history: Sequence[Mapping[str, Any]]) -> Table:
    """At most twelve epochs, spread over the run, the last one among them."""
    table = Table(title="History", title_justify="left")
    keys = ("epoch", "train_loss", "valid_loss", "score", "panoptic_quality")
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    every = max(1, -(-len(history) // 12))
    for row in history[::-1][::every][::-1]:
        table.add_row(str(row["epoch"]), *(f"{row[key]:.4f}" for key in keys[1:]))
    return table


def _nodes(model: Model) -> Table:
    found = nodes(model.network, model.network.architecture.channels)
    table = Table(
        title=f"Nodes, for 256 x 256 pixels: {sum(n.parameters for n in found):,} parameters, "
        f"{sum(n.multiply_adds for n in found) / 1e9:.2f} G multiply-adds",
        title_justify="left",
    )
    for head in ("node", "operation", "inputs", "outputs", "shape", "parameters", "multiply-adds", "sees"):
        table.add_column(head, justify="right" if head in ("parameters", "multiply-adds", "sees") else "left")
    for node in found:
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
