"""The main job on drawn images: train, predict, evaluate, report. Nothing but this package is needed."""

from __future__ import annotations

from pathlib import Path

from nucleate.data.dataset import find, pair
from nucleate.data.synthetic.microscopy import write_folder
from nucleate.errors import OutputError
from nucleate.inference.predictor import Predictor
from nucleate.networks.store import locate, read, read_history
from nucleate.postprocess.matching import Matching, match
from nucleate.postprocess.scores import pool
from nucleate.report.card import run_curves
from nucleate.report.collect import Picture, Report, headline, picture, score_table
from nucleate.report.html import render
from nucleate.report.model_files import model_files
from nucleate.sentences import count
from nucleate.training.config import TrainingConfig
from nucleate.training.fit import Phase, fit
from nucleate.training.trainer import Observer


def run(
    out: Path,
    config: TrainingConfig,
    *,
    style: str = "fluorescence",
    observe: Observer | None = None,
    phase: Phase | None = None,
) -> Path:
    """Draw `out`/train and `out`/test, train `out`/model, and write `out`/report.html, whose path is returned."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} is not an empty folder: delete it, or choose another --out.")
    write_folder(out / "train", style, 12, config.seed)
    write_folder(out / "test", style, 6, config.seed + 1)
    fit(
        out / "train",
        out / "model",
        config,
        observe=observe,
        phase=phase,
        source="drawn images",
        extra_files=model_files,
    )
    model = read(locate(str(out / "model")))
    predictor = Predictor(model)
    matchings: list[Matching] = []
    pictures: list[Picture] = []
    for sample in find(out / "test").labelled:
        image, truth = pair(sample)
        predicted = predictor.segment(image).labels
        matchings.append(match(truth, predicted))
        pictures.append(picture(image, predicted, truth, matchings[-1]))
    scores = pool(matchings)
    data, training = model.manifest.data, model.manifest.training
    learnt = f"{count(data.labelled, 'drawn image')} with {count(data.nuclei, 'nucleus', 'nuclei')}"
    report = Report(
        title="Nucleate: the main job on drawn images",
        summary=f"{learnt} to learn from, {count(len(pictures), 'other')} to be judged on.",
        headline=headline(scores),
        facts=(
            ("Training", f"{count(training.epochs, 'epoch')} in {training.seconds:.0f} s, loss {training.loss}"),
            ("Validation", data.validation),
            ("Kept", f"the weights of epoch {training.best_epoch}. {training.stopped}"),
            ("Nuclei", f"{scores.n_true} true, {scores.n_predicted} found"),
        ),
        scores=score_table(scores),
        accuracy=scores,
        curves=run_curves(read_history(model.folder), training),
        pictures=tuple(pictures),
    )
    path = out / "report.html"
    render(report, path)
    return path
