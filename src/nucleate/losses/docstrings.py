"""What every loss's docstring says of the arguments that several losses share: written once, here.

`completed` adds what a docstring leaves out, so that `help(losses.hinge)` lists every argument, the result and the
errors, and a loss's own text holds only what is its own.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

ARGUMENTS = {
    "logits": "raw scores with the classes along `class_dim`: (N, C), (N, C, H, W), (N, C, D, H, W), ...; any real "
    "number.",
    "prediction": "logits (N, C, ...) with the classes along `class_dim`, or Probabilities(p), LogProbabilities(l).",
    "target": "class indices 0..C-1 of any integer type, the shape of the prediction without its class axis; or "
    "one-hot or soft labels in the shape of the prediction.",
    "score": "raw scores s of any shape; any real number.",
    "p": "a distribution with its classes along `class_dim`: logits (a bare tensor), or said as Probabilities or "
    "LogProbabilities.",
    "q": "another one, of the shape of `p`.",
    "query": "embeddings, shape (N, D).",
    "key": "the embeddings that belong to them, row by row, shape (N, D).",
    "first": "embeddings of one view, shape (N, D).",
    "second": "embeddings of the other view, row by row, shape (N, D).",
    "features": "embeddings, shape (N, D).",
    "labels": 'how `target` is written: "binary" for 0 and 1 (or bool), "signed" for -1 and +1.',
    "temperature": "what the similarities are divided by: a positive number, or a tensor of one element that may be "
    "learnt.",
    "similarity": '"cosine" scales each row to length 1; "dot" takes rows as they are.',
    "base": "the base of the logarithm: e (None or math.e) gives nats, 2 bits.",
    "class_dim": "the axis of the classes.",
    "multilabel": "each channel is a yes or no of its own, and the target has the shape of the prediction.",
    "over": '"image" gives one value for each image and class, "batch" one for each class of all images (and of all '
    "ranks of `group`).",
    "empty": 'a class without a labelled pixel is counted with what was predicted in vain ("penalize") or left out '
    '("skip").',
    "smooth": "pixels added to numerator and denominator; at least 0.",
    "mask": "boolean, one value for each position; True selects. What stands at the others is never read.",
    "class_weight": "one weight for each class, shape (C,); finite, at least 0.",
    "weight": "one weight for each position; finite, at least 0.",
    "ignore_index": "an index in `target` that leaves its position out.",
    "label_smoothing": "e in 0..1; the target becomes (1 - e) t + e / C.",
    "normalize": 'what "mean" divides by: "weight", the sum of the weights of the selected positions, or "count", '
    "their number.",
    "reduction": '"mean", "sum", "none" for one value at each position, or "pair" for the tensor (total, weight) whose '
    "quotient is the mean.",
    "check": "read the values for mistakes; None follows `losses.use_checks`.",
    "group": "the ranks over which the mean or the sum is taken: a torch process group, or a communicator of mpi4py. "
    "Every rank makes the same call, one without rows too.",
}
OF_FAMILY = {
    "margin": {
        "target": "labels of two values, written as `labels` says, in the shape of the score.",
        "mask": "boolean, the shape of the score; True selects. What stands at the others is never read.",
        "weight": "one weight for each score, the same shape; finite, at least 0. The mean divides by their sum.",
    },
    "regression": {
        "prediction": "numbers x of any shape and any size.",
        "target": "the true numbers t, in the shape of the prediction and of any type.",
        "channel_dim": "the axis that `mask` and `weight` do not have, as 1 for a mask (N, H, W) of offsets "
        "(N, 2, H, W); None where they have the shape of the prediction.",
        "mask": "boolean, the shape of the prediction, without `channel_dim` where that is given; True selects. What "
        "stands at the others is never read.",
        "weight": "numbers of that same shape; finite, at least 0, where 0 selects nothing. The mean divides by their "
        "sum over the elements.",
    },
}
RETURNS = (
    "A scalar (or one value for each position), float32, or float64 for float64 inputs; 0 with a zero gradient where "
    "nothing is selected."
)
RAISES = "LossInputError: shapes, types or values that do not fit."


def completed(function: Callable[..., Any], kind: str) -> str:
    """The docstring of a loss with every argument, the result and the errors in it."""
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    begin, end = _section(lines, "Args:")
    said = _entries(lines[begin:end])
    shared = {**ARGUMENTS, **OF_FAMILY.get(kind, {})}
    listed = ["Args:"]
    for name in inspect.signature(function).parameters:
        if name in said:
            listed += said.pop(name)
        elif name in shared:
            listed += textwrap.wrap(f"{name}: {shared[name]}", 112, initial_indent=" " * 4, subsequent_indent=" " * 8)
    for heading, text in (("Returns:", RETURNS), ("Raises:", RAISES)):
        if heading not in lines:
            listed += ["", heading, *textwrap.wrap(text, 112, initial_indent=" " * 4, subsequent_indent=" " * 4)]
    before, after = lines[:begin], lines[end:]
    return "\n".join([*before, *listed, *([""] if after and after[0] else []), *after])


def _section(lines: list[str], heading: str) -> tuple[int, int]:
    """Where the section begins and ends; where there is none, both are the line before which it belongs."""
    if heading in lines:
        begin = lines.index(heading)
        end = next((n for n in range(begin + 1, len(lines)) if lines[n] and lines[n][0] != " "), len(lines))
        while not lines[end - 1]:
            end -= 1
        return begin, end
    example = next((n for n, line in enumerate(lines) if re.match(r">>>|Returns:|Raises:|Source:", line)), len(lines))
    # The sentence that introduces an example stays with it.
    while example > 0 and lines[example - 1] and lines[example].startswith(">>>"):
        example -= 1
    return example, example


def _entries(lines: list[str]) -> dict[str, list[str]]:
    """The lines of each argument; `a, b: text` stands for both and is kept at the first."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in lines[1:]:
        entry = re.match(r"    (\w+(?:, \w+)*): ", line)
        if entry:
            names = entry[1].split(", ")
            found.update({name: [] for name in names})
        if names and line:
            found[names[0]].append(line)
    return found
