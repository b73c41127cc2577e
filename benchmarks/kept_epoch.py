"""Whether another choice of the epoch would lack less panoptic quality than `select_epoch`, and how little any can.

    python benchmarks/kept_epoch.py

Reads the recorded runs of benchmarks/curves (see own_curves.py) and takes each to its end. Every rule looks at what a
run knows of itself: training error, validation error, validation score (mean AP) and panoptic quality, smoothed over
the epochs before. Where it takes ranks, noise or two curves it looks at the whole run, and so would need the weights of
every epoch; only the latest within a part of the lowest is known as the run goes. Regret as in own_curves.py: plain, in
brackets crossed.

Three tables. What no run can know: oracles that know the curve of panoptic quality on these very images, but smooth,
without the noise of the single epoch; and one that reads the epoch off one half of the images held back and is judged
on the other. Then the best rule of each form over all runs, which flatters it: there are hundreds. Last, what is left
of that: the best rule on some runs and its regret on the others; once one rule for all, and once one for runs of one
and two labelled images and one for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from own_curves import CURVES, PLANS, Run, load, regrets
from rich.console import Console
from rich.table import Table

from nucleate.training.early_stopping import select_epoch

Floats = NDArray[np.float64]
Rule = Callable[[Run], int]
Smoothing = Callable[[Floats], Floats]
STANDING = "`select_epoch`"
STRIPS, PARTS = (1, 3, 5, 7, 9, 12), (0, 0.01, 0.02, 0.03, 0.05)

CURVES_OF: dict[str, Callable[[Run], Floats]] = {
    "validation error": lambda run: run["valid"],
    "negative score": lambda run: -run["valid_score"],
    "negative PQ": lambda run: -run["valid_pq"],
    "error (1 - PQ)": lambda run: run["valid"] * (1 - run["valid_pq"]),
    "error + half of training error": lambda run: run["valid"] + 0.5 * run["train"],
}


def smoothings() -> dict[str, Smoothing]:
    """By the last epochs alone: means, medians, exponential means."""
    found: dict[str, Smoothing] = {}
    for strip in STRIPS:
        found[f"mean of {strip}"] = lambda x, n=strip: _over(np.mean, x, n)
        if strip > 1:
            found[f"median of {strip}"] = lambda x, n=strip: _over(np.median, x, n)
    for part in (0.1, 0.2, 0.3, 0.5):
        found[f"exponential mean, {part}"] = lambda x, a=part: _exponential(x, a)
    return found


def rules() -> Iterator[tuple[str, str, Rule]]:
    """Form, name and rule."""
    yield "as it is", STANDING, lambda run: select_epoch(run["valid"].tolist())
    yield "the last", "the last", lambda run: len(run["valid"])
    for (name, curve), (way, smooth), part in product(CURVES_OF.items(), smoothings().items(), PARTS):
        yield (
            f"latest within a part of the lowest {name}",
            f"{way}, {part:.0%}",
            lambda run, c=curve, s=smooth, p=part: _latest(s(c(run)), p),
        )
    for way, smooth in smoothings().items():
        for score in ("valid_score", "valid_pq"):
            yield (
                "lowest sum of the ranks of error and score",
                f"{score}, {way}",
                lambda run, s=smooth, q=score: _first_lowest(_ranks(s(run["valid"])) + _ranks(-s(run[q]))),
            )
            for part in PARTS[1:]:
                yield (
                    "highest score of those within a part of the lowest error",
                    f"{score}, {way}, {part:.0%}",
                    lambda run, s=smooth, q=score, p=part: _decided(s(run["valid"]), -s(run[q]), p),
                )
                yield (
                    "lowest error of those within a part of the highest score",
                    f"{score}, {way}, {part:.0%}",
                    lambda run, s=smooth, q=score, p=part: _decided(-s(run[q]), s(run["valid"]), p),
                )
        for share in (0.5, 1, 2):
            yield (
                "latest within the error's own noise",
                f"{way}, {share} standard deviations",
                lambda run, s=smooth, k=share: _within_noise(run["valid"], s, k),
            )


def _over(function: Callable[[Floats], np.floating], values: Floats, strip: int) -> Floats:
    return np.array([float(function(values[max(0, end - strip) : end])) for end in range(1, len(values) + 1)])


def _exponential(values: Floats, part: float) -> Floats:
    found = [values[0]]
    for value in values[1:]:
        found.append((1 - part) * found[-1] + part * value)
    return np.array(found)


def _latest(errors: Floats, part: float) -> int:
    return int(np.flatnonzero(errors <= errors.min() + part * abs(errors.min()))[-1]) + 1


def _first_lowest(errors: Floats) -> int:
    return int(errors.argmin()) + 1


def _ranks(errors: Floats) -> Floats:
    return np.argsort(np.argsort(errors, kind="stable")).astype(float)


def _decided(bounding: Floats, deciding: Floats, part: float) -> int:
    """The lowest in one curve of the epochs that are within a part of the lowest of another; the latest of equals."""
    allowed = bounding <= bounding.min() + part * abs(bounding.min())
    left = np.where(allowed, deciding, np.inf)
    return int(np.flatnonzero(left == left.min())[-1]) + 1


def _within_noise(errors: Floats, smooth: Smoothing, share: float) -> int:
    """Noise is the standard deviation of an epoch's error, from the steps between epochs after the first third."""
    noise = float(np.diff(errors[len(errors) // 3 :]).std()) / 2**0.5
    means = smooth(errors)
    return int(np.flatnonzero(means <= means.min() + share * noise)[-1]) + 1


def _around(values: Floats, reach: int, itself: bool) -> Floats:
    """The mean of the epochs around each, with it or without."""
    found = []
    for middle in range(len(values)):
        near = np.arange(max(0, middle - reach), min(len(values), middle + reach + 1))
        found.append(values[near if itself else near[near != middle]].mean())
    return np.array(found)


def floors(runs: dict[tuple[str, str], Run], long: NDArray[np.bool_], console: Console) -> None:
    """Print what oracles lack."""
    table = Table(title="What oracles lack of the best epoch, and `select_epoch`")
    for head in ("epoch", "all runs", "long runs"):
        table.add_column(head)
    rows: dict[str, list[tuple[float, float]]] = {
        STANDING: [regrets(r, select_epoch(r["valid"].tolist())) for r in runs.values()]
    }
    rows["lowest loss on the images held back themselves"] = [
        regrets(run, _first_lowest(run["test"])) for run in runs.values()
    ]
    for itself, reach in product((False, True), (1, 2, 4)):
        name = (
            f"highest mean PQ of {2 * reach} neighbours" if not itself else f"highest mean PQ of {2 * reach + 1} epochs"
        )
        rows[name] = [regrets(run, _first_lowest(-_around(run["test_pq"], reach, itself))) for run in runs.values()]
    for name, found in rows.items():
        plain = np.array(found)
        table.add_row(name, *("{:.4f} ({:+.4f})".format(*plain[group].mean(axis=0)) for group in (long | True, long)))
    for name, choose in (
        (
            "one half of the images held back judged alone: `select_epoch`",
            lambda run, _: select_epoch(run["valid"].tolist()),
        ),
        ("the same: the best epoch of the other half", lambda run, other: _first_lowest(-run[other])),
    ):
        ways = (("test_pq_a", "test_pq_b"), ("test_pq_b", "test_pq_a"))
        lacks = [np.mean([r[on].max() - r[on][choose(r, by) - 1] for on, by in ways]) for r in runs.values()]
        table.add_row(name, *(f"{np.array(lacks)[group].mean():.4f}" for group in (long | True, long)))
    console.print(table)


def main() -> None:
    console = Console(width=150)
    runs = {(plan, path.stem): load(path) for plan in PLANS for path in sorted((CURVES / plan).glob("*.csv"))}
    long = np.array([plan == "long" for plan, _ in runs])
    few = np.array([name.split("-")[0] in ("1", "2") for _, name in runs])
    floors(runs, long, console)
    forms, names, choices = zip(*rules(), strict=True)
    found = np.array([[regrets(run, choose(run)) for run in runs.values()] for choose in choices])
    plain = found[..., 0]

    table = Table(title=f"The best of each form over all runs, out of {len(names)} rules")
    for head in ("form", "rules", "best", "all runs", "the 40", "the 12 long", "better / worse by .0005"):
        table.add_column(head)
    for form in dict.fromkeys(forms):
        own = [index for index, other in enumerate(forms) if other == form]
        best = min(own, key=lambda index: plain[index].mean())
        cells = ("{:.4f} ({:+.4f})".format(*found[best][group].mean(axis=0)) for group in (long | True, ~long, long))
        change = plain[best] - plain[0]
        table.add_row(form, str(len(own)), names[best], *cells, f"{(change < -5e-4).sum()} / {(change > 5e-4).sum()}")
    console.print(table)

    seeds = np.array([int(name[-1]) for _, name in runs])
    splits = {f"seeds {some}": np.isin(seeds, some) for some in ((0, 1, 2), (3, 4), (0, 2, 4), (1, 3))}
    splits |= {"1 and 2 labels": few, "5 and more": ~few, "the 40": ~long, "the 12 long": long}
    table = Table(title="The best rule on some runs, and its regret on the others; in brackets that of `select_epoch`")
    for head in ("chosen on", "rule", "others", "of them long", "one for few, one for many", "of them long"):
        table.add_column(head)
    for name, some in splits.items():
        best = _best(plain, some)
        cells = [_beside(plain[best], plain[0], group) for group in (~some, ~some & long)]
        if name.startswith("seeds"):
            two = np.where(few, plain[_best(plain, some & few)], plain[_best(plain, some & ~few)])
            cells += [_beside(two, plain[0], group) for group in (~some, ~some & long)]
        table.add_row(name, f"{forms[best]}: {names[best]}", *cells)
    console.print(table)


def _best(regret: Floats, runs: NDArray[np.bool_]) -> int:
    return int(regret[:, runs].mean(axis=1).argmin())


def _beside(own: Floats, standing: Floats, runs: NDArray[np.bool_]) -> str:
    return f"{own[runs].mean():.4f} ({standing[runs].mean():.4f})" if runs.any() else "-"


if __name__ == "__main__":
    main()
