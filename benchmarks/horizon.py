"""When should a run end? The rule of Nucleate beside the known ones, on 1,432 training curves of six tasks.

    python benchmarks/horizon.py CURVES [--plot pareto.png] [--json out.json] [--cross-validate] [--synthetic]
    python benchmarks/horizon.py                         # drawn runs of 400 epochs alone, as --synthetic adds them

CURVES holds one `<task>.npz` for each task, with `loss` of shape (runs, epochs, 3): training, validation and test loss
(TaskSet, Metz et al. 2020, in the selection of DyHPO, Wistuba et al. 2022). Runs whose values are not all finite, or
whose validation loss never falls below 0.95 of the first, are left out.

Each rule is shown the training and validation loss, epoch by epoch, and gives the best epoch that it has seen. The
test loss there is compared with

- `excess`: the test loss at the best validation loss of the full budget (mean over runs, each cut off at +50%);
- `regret`: the lowest test loss of the run (90th percentile over runs).

`share` is the mean part of the budget that was used. Less is better in all three. The rule was designed on DESIGN;
the three other tasks are HELD OUT.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nucleate.curves.rules import (
    Correlation,
    FixedNumber,
    GeneralisationLoss,
    Patience,
    ProgressQuotient,
    SuccessiveStrips,
    pearson,
)
from nucleate.training.early_stopping import EarlyStopping
from nucleate.training.stopping_rule import StoppingRule, Verdict

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Factory = Callable[[], StoppingRule]

DESIGN = (
    "imdb_patch128_LSTM128_embed128_bs64",
    "imdb_patch32_IRNN64_relu_last_bs128",
    "imdb_patch32_VRNN64_relu_avg_bs128",
)
TARGET = (0.72, 0.35, 2.0)
OURS = "Horizon (default)"


@final
class StripMeans(StoppingRule):
    """Stop when the mean of the last 5 validation errors is above that of the 5 before, and, if a threshold is given,
    training and validation error correlate by less than it over the last 12 epochs."""

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.threshold = threshold

    def _judge(self) -> Verdict:
        if self.epoch < 10 or sum(self.valid[-5:]) <= sum(self.valid[-10:-5]):
            return Verdict(False, "going on", "the mean does not rise")
        if self.threshold is None:
            return Verdict(True, "rule", "the mean rises")
        broken = self.epoch >= 12 and pearson(self.train[-12:], self.valid[-12:]) < self.threshold
        return Verdict(broken, "rule", "the mean rises")


def known_rules(epochs: int) -> dict[str, Factory]:
    """Every rule of the table, by name; each call makes a fresh one."""
    rules: dict[str, Factory] = {OURS: EarlyStopping, f"fixed {epochs}": lambda: FixedNumber(epochs)}
    for n in (20, 30, 40):
        rules[f"fixed {n}"] = lambda n=n: FixedNumber(n)
    for n in (3, 5, 8, 10, 12, 15, 20):
        rules[f"patience {n}"] = lambda n=n: Patience(n)
    for alpha in (1.0, 2.0, 3.0, 5.0):
        rules[f"GL {alpha:g}"] = lambda a=alpha: GeneralisationLoss(a)
    for alpha in (0.5, 0.75, 1.0, 2.0, 3.0):
        rules[f"PQ {alpha:g}"] = lambda a=alpha: ProgressQuotient(a)
    for n in (1, 2, 3, 4):
        rules[f"UP {n}"] = lambda n=n: SuccessiveStrips(n)
    for window, threshold in itertools.product((8, 12), (0.0, 0.3, 0.6)):
        rules[f"correlation {window} < {threshold:g}"] = lambda w=window, c=threshold: Correlation(w, c)
    rules["strip mean rises"] = StripMeans
    rules["strip mean rises, correlation 12 < 0.3"] = lambda: StripMeans(0.3)
    return rules


@dataclass(frozen=True)
class Curves:
    """All runs of all tasks; `task` says which each belongs to."""

    names: tuple[str, ...]
    task: Integers
    train: Floats
    valid: Floats
    test: Floats

    @classmethod
    def load(cls, folder: Path) -> Curves:
        files = sorted(folder.glob("*.npz"))
        if not files:
            raise SystemExit(f"{folder} holds no .npz file")
        kept = []
        for file in files:
            with np.load(file) as archive:
                loss = archive["loss"].astype(np.float64)
            loss = loss[np.isfinite(loss).all(axis=(1, 2))]
            kept.append(loss[loss[:, :, 1].min(axis=1) < 0.95 * loss[:, 0, 1]])
        task = np.repeat(np.arange(len(files)), [len(runs) for runs in kept])
        return cls(tuple(file.stem for file in files), task, *np.moveaxis(np.concatenate(kept), 2, 0))

    def of(self, names: tuple[str, ...] | list[str]) -> NDArray[np.bool_]:
        return np.isin(self.task, [self.names.index(name) for name in names])


@dataclass(frozen=True)
class Outcome:
    """Where one rule ended each run, and what that cost."""

    share: Floats
    excess: Floats
    regret: Floats

    @classmethod
    def of(cls, factory: Factory, curves: Curves) -> Outcome:
        used, best = np.array([_run(factory(), *pair) for pair in zip(curves.train, curves.valid, strict=True)]).T
        rows = np.arange(len(used))
        got, full = curves.test[rows, best - 1], curves.test[rows, curves.valid.argmin(axis=1)]
        excess = np.minimum(got / full - 1, 0.5)
        return cls(used / curves.valid.shape[1], 100 * excess, 100 * (got / curves.test.min(axis=1) - 1))

    def score(self, runs: NDArray[np.bool_]) -> tuple[float, float, float]:
        regret = float(np.percentile(self.regret[runs], 90))
        return float(self.share[runs].mean()), float(self.excess[runs].mean()), regret


def _run(rule: StoppingRule, train: Floats, valid: Floats) -> tuple[int, int]:
    for errors in zip(train.tolist(), valid.tolist(), strict=True):
        decision = rule.update(*errors)
        if decision.stop:
            break
    return decision.epoch, decision.best_epoch


def better(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether a is better than b in all at once."""
    return all(x < y for x, y in zip(a, b, strict=True))


def front(scores: dict[str, tuple[float, float, float]]) -> list[str]:
    """The rules that no other is better than in all three at once, from the smallest share."""
    names = [name for name, own in scores.items() if not any(better(other, own) for other in scores.values())]
    return sorted(names, key=lambda name: scores[name])


def render(outcomes: dict[str, Outcome], curves: Curves, console: Console) -> None:
    held_out = [name for name in curves.names if name not in DESIGN]
    groups = {"all": curves.of(curves.names), "design": curves.of(DESIGN), "held out": curves.of(held_out)}
    table = Table(title=f"{len(curves.task)} runs: share of budget / mean excess % / 90th percentile of regret %")
    table.add_column("rule")
    for name, runs in groups.items():
        table.add_column(f"{name} ({runs.sum()})", justify="right")
    table.add_column("Pareto")
    scores = {name: outcome.score(groups["all"]) for name, outcome in outcomes.items()}
    best = front(scores)
    for name in sorted(outcomes, key=lambda n: scores[n]):
        cells = ["{:.3f} {:6.3f} {:6.2f}".format(*outcomes[name].score(runs)) for runs in groups.values()]
        table.add_row(name, *cells, "yes" if name in best else "", style="bold" if name == OURS else None)
    console.print(table)
    tasks = Table(title=f"{OURS}, task by task")
    for heading in ("task", "runs", "share", "excess %", "regret %", "regret % of the full budget"):
        tasks.add_column(heading, justify="left" if heading == "task" else "right")
    full = Outcome.of(lambda: FixedNumber(curves.valid.shape[1]), curves)
    for name in curves.names:
        runs = curves.of([name])
        share, excess, regret = outcomes[OURS].score(runs)
        cells = (str(runs.sum()), f"{share:.3f}", f"{excess:.3f}", f"{regret:.2f}", f"{full.score(runs)[2]:.2f}")
        tasks.add_row(name, *cells)
    console.print(tasks)
    met = all(x <= limit for x, limit in zip(scores[OURS], TARGET, strict=True))
    console.print("target {:.2f} {:.2f} {:.1f}: {}".format(*TARGET, "met" if met else "not met"))
    rivals = [name for name, score in scores.items() if better(score, scores[OURS])]
    console.print(f"better than {OURS} on all three at once: {', '.join(rivals) or 'none'}")


def cross_validate(curves: Curves, console: Console) -> None:
    """Choose the settings on some tasks by one stated rule, score them on the tasks left out."""
    grid = list(itertools.product((6, 8, 10), (0.0005, 0.0008, 0.0012), (0.3, 0.5, 0.7)))
    outcomes = [Outcome.of(lambda s=setting: EarlyStopping(*s), curves) for setting in grid]
    full = Outcome.of(lambda: FixedNumber(curves.valid.shape[1]), curves)
    patience = {n: Outcome.of(lambda n=n: Patience(n), curves) for n in (10, 15)}
    default = Outcome.of(EarlyStopping, curves)

    def chosen(runs: NDArray[np.bool_]) -> int:
        """The smallest share with at most 0.25% of excess and a regret at most 0.35 points above the full budget's."""
        allowed = full.score(runs)[2] + 0.35
        scores = [outcome.score(runs) for outcome in outcomes]
        fit = [i for i, (_, excess, regret) in enumerate(scores) if excess <= 0.25 and regret <= allowed]
        return min(fit or range(len(grid)), key=lambda i: scores[i][0] if fit else scores[i][1])

    pooled = [np.empty(len(curves.task)) for _ in range(3)]
    for t, name in enumerate(curves.names):
        left_out = curves.task == t
        pick = chosen(~left_out)
        console.print(f"without {name}: recent, price, concordance = {grid[pick]}", highlight=False)
        for into, source in zip(
            pooled, (outcomes[pick].share, outcomes[pick].excess, outcomes[pick].regret), strict=True
        ):
            into[left_out] = source[left_out]
    score = Outcome(*pooled).score(np.ones(len(curves.task), bool))
    console.print("leave one task out, pooled: {:.3f} {:.3f} {:.2f}".format(*score))
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for three in itertools.combinations(range(len(curves.names)), 3):
        runs = np.isin(curves.task, three)
        rows.setdefault("chosen on the other three", []).append(outcomes[chosen(runs)].score(~runs))
        rows.setdefault(OURS, []).append(default.score(~runs))
        for n, outcome in patience.items():
            rows.setdefault(f"patience {n}", []).append(outcome.score(~runs))
        rows.setdefault("full budget", []).append(full.score(~runs))
    console.print("mean over all 20 halves of the tasks, scored on the other half:")
    for name, values in rows.items():
        console.print("  {:28s} {:.3f} {:.3f} {:.2f}".format(name, *np.mean(values, axis=0)), highlight=False)


def synthetic(console: Console, epochs: int = 400, runs: int = 150) -> None:
    """Score on drawn runs of a length that no setting was chosen on, whose true error is known.

    Error falls as t ** -c to a floor; in three quarters of the runs it rises again from epoch 40, 100 or 250. What the
    rule is shown has log-normal noise of the size given.
    """
    rules: dict[str, Factory] = {OURS: EarlyStopping, "Horizon, price 0.0004": lambda: EarlyStopping(price=0.0004)}
    rules |= {name: known_rules(epochs)[name] for name in ("patience 10", "patience 20", "PQ 0.75")}
    rules |= {"fixed 100": lambda: FixedNumber(100), "fixed 400": lambda: FixedNumber(400)}
    t = np.arange(1, epochs + 1)
    for noise in (0.002, 0.01, 0.03, 0.1):
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in rules}
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            power, floor, best = rng.uniform(0.4, 1.2), rng.uniform(0.1, 0.5), rng.choice([40, 100, 250, np.inf])
            true = floor + t**-power + power * best**-power / (2 * best**2) * t**2
            train = (t**-power * rng.uniform(0.7, 1) + floor * 0.5 * np.exp(-t / 150)) * rng.normal(1, 0.01, epochs)
            valid = true * np.exp(rng.normal(0, noise, epochs))
            for name, factory in rules.items():
                used, chosen = _run(factory(), train, valid)
                rows[name].append((used, 100 * (true[chosen - 1] / true.min() - 1)))
        console.print(f"drawn runs of {epochs} epochs, noise {noise:.1%}: mean epochs, mean regret %, 90th percentile")
        for name, values in rows.items():
            used, regret = np.array(values).T
            numbers = (used.mean(), regret.mean(), np.percentile(regret, 90))
            console.print("  {:24s} {:4.0f} {:6.2f} {:6.2f}".format(name, *numbers), highlight=False)


def plot(outcomes: dict[str, Outcome], path: Path) -> None:
    """Draw share against excess and against regret, a dot a rule: filled and numbered those of the Pareto front."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    *panels, key = figure.subplots(1, 3, width_ratios=(5, 5, 3))
    everything = np.ones(len(next(iter(outcomes.values())).share), bool)
    scores = {name: outcome.score(everything) for name, outcome in outcomes.items()}
    best = front(scores)
    names = ("mean excess of test loss, % (linear below 0.1)", "90th percentile of regret, %")
    for column, (axes, label) in enumerate(zip(panels, names, strict=True), start=1):
        for name, score in scores.items():
            colour = "#d1560f" if name == OURS else "#1f6fc5"
            place = score[0], score[column]
            axes.scatter(*place, s=36, edgecolors=colour, facecolors=colour if name in best else "none", zorder=3)
            if name in best:
                number = str(1 + best.index(name))
                axes.annotate(number, place, fontsize=8, xytext=(4, 4), textcoords="offset points")
        axes.plot([0, TARGET[0], TARGET[0]], [TARGET[column], TARGET[column], 0], color="0.6", lw=1, label="the aim")
        axes.set(xlabel="share of the budget", ylabel=label, xlim=(0.3, 1.06))
        axes.set_yscale("symlog", linthresh=0.1) if column == 1 else axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    panels[0].set_ylim(bottom=-0.05)
    key.axis("off")
    lines = [f"{number}  {name}" for number, name in enumerate(best, start=1)]
    key.text(0, 1, "\n".join(["The Pareto front:", *lines]), va="top", fontsize=9, linespacing=1.6)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("curves", type=Path, nargs="?", help="folder of <task>.npz; without it, drawn runs alone")
    parser.add_argument("--plot", type=Path, help="write the Pareto plot here")
    parser.add_argument("--json", type=Path, help="write every score here")
    parser.add_argument("--cross-validate", action="store_true", help="choose settings on some tasks, score on others")
    parser.add_argument("--synthetic", action="store_true", help="score on drawn runs of 400 epochs as well")
    arguments = parser.parse_args()
    console = Console(width=140)
    if arguments.curves is None:
        synthetic(console)
        return
    curves = Curves.load(arguments.curves)
    outcomes = {name: Outcome.of(factory, curves) for name, factory in known_rules(curves.valid.shape[1]).items()}
    render(outcomes, curves, console)
    console.print(f"one update of {OURS} takes {_microseconds():.0f} us (median)")
    if arguments.cross_validate:
        cross_validate(curves, console)
    if arguments.synthetic:
        synthetic(console)
    if arguments.plot:
        plot(outcomes, arguments.plot)
    if arguments.json:
        everything = np.ones(len(curves.task), bool)
        columns = ("share", "excess", "regret")
        table = {n: dict(zip(columns, o.score(everything), strict=True)) for n, o in outcomes.items()}
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


def _microseconds() -> float:
    rng, rule, spent = np.random.default_rng(0), EarlyStopping(), []
    for errors in (1 / np.arange(1, 1001)[:, None] + 0.1 * rng.random((1000, 2))).tolist():
        start = time.perf_counter()
        rule.update(*errors)
        spent.append(time.perf_counter() - start)
    return 1e6 * float(np.median(spent))


if __name__ == "__main__":
    main()
