"""The losses beside JAX and optax, compiled by `jax.jit` for the processor: forward and backward, CPU time, one thread.

    python -m venv OTHER && OTHER/bin/pip install "jax[cpu]" optax
    python benchmarks/peers/losses_jax.py --jax OTHER/bin/python [--only dice] [--runs 9]

Run with the Python of Nucleate; JAX works in a process of its own Python, on the same numbers. The two take turns on
one core, so that a slow moment of the machine falls on both; the ratio is that of the median CPU times, JAX's over
ours.
JAX gets what it compiles best: the loss of optax where it has one, else the formula, as one jitted function of value
and gradient. That both give the same value is checked. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = tuple[list[np.ndarray], list[np.ndarray]]  # what has a gradient, and constants


def image(images: int, classes: int, side: int, last: bool = False) -> Callable[[np.random.Generator], Arrays]:
    def make(random: np.random.Generator) -> Arrays:
        shape = (images, side, side, classes) if last else (images, classes, side, side)
        return [random.standard_normal(shape, np.float32)], [random.integers(0, classes, (images, side, side))]

    return make


def with_mask(random: np.random.Generator) -> Arrays:
    (x,), (t,) = image(8, 3, 512)(random)
    return [x], [t, random.random(t.shape) > 0.2]


def two(random: np.random.Generator) -> Arrays:
    return [random.standard_normal((8, 32, 128, 128), np.float32) for _ in range(2)], []


def soft(random: np.random.Generator) -> Arrays:
    x, t = random.standard_normal((2, 8, 3, 512, 512), np.float32)
    t = np.exp(t)
    return [x], [t / t.sum(1, keepdims=True)]


def binary(random: np.random.Generator) -> Arrays:
    shape = (8, 1, 512, 512)
    return [random.standard_normal(shape, np.float32)], [(random.random(shape) < 0.3).astype(np.float32)]


def pairs(rows: int) -> Callable[[np.random.Generator], Arrays]:
    def make(random: np.random.Generator) -> Arrays:
        a = random.standard_normal((rows, 128), np.float32)
        return [a, a + random.standard_normal(a.shape, np.float32)], []

    return make


def layer(random: np.random.Generator) -> Arrays:
    x, w = random.standard_normal((2048, 256), np.float32), random.standard_normal((8192, 256), np.float32) / 16
    return [x, w], [random.integers(0, len(w), len(x))]


def lovasz(classes: int, pixels: int) -> Callable[[np.random.Generator], Arrays]:
    def make(random: np.random.Generator) -> Arrays:
        shape = (1, classes, pixels) if classes > 1 else (1, pixels)
        target = random.integers(0, classes, (1, pixels)) if classes > 1 else (random.random(shape) < 0.3).astype(int)
        return [random.standard_normal(shape, np.float32)], [target]

    return make


def rows(random: np.random.Generator) -> Arrays:
    return [random.standard_normal((32, 10), np.float32)], [random.integers(0, 10, 32)]


CASES: dict[str, tuple[str, Callable[[np.random.Generator], Arrays]]] = {
    "cross_entropy 8x3x512x512 planes": ("cross_entropy", image(8, 3, 512)),
    "cross_entropy 8x3x512x512 channels-last": ("cross_entropy_last", image(8, 3, 512, True)),
    "cross_entropy 8x32x128x128 planes": ("cross_entropy", image(8, 32, 128)),
    "cross_entropy 8x32x128x128 channels-last": ("cross_entropy_last", image(8, 32, 128, True)),
    "cross_entropy 8x3x512x512 label smoothing": ("smooth", image(8, 3, 512)),
    "cross_entropy 8x3x512x512 mask": ("masked", with_mask),
    "cross_entropy 8x3x512x512 soft targets": ("soft", soft),
    "cross_entropy 32x10": ("cross_entropy", rows),
    "focal 8x3x512x512": ("focal", image(8, 3, 512)),
    "binary_cross_entropy 8x1x512x512": ("binary", binary),
    "kl_divergence 8x32x128x128": ("kl", two),
    "jensen_shannon 8x32x128x128": ("js", two),
    "clip_loss N=2,048 D=128": ("clip", pairs(2048)),
    "clip_loss N=4,096 D=128": ("clip", pairs(4096)),
    "linear_cross_entropy 2,048x256, 8,192 classes": ("linear", layer),
    "lovasz_hinge 2^20 pixels": ("lovasz_hinge", lovasz(1, 1 << 20)),
    "lovasz_softmax 2^18 x 19": ("lovasz_softmax", lovasz(19, 1 << 18)),
    "dice 8x3x512x512": ("dice", image(8, 3, 512)),
    "tversky 8x3x512x512": ("tversky", image(8, 3, 512)),
    "dice of sigmoids 8x1x512x512": ("sigmoid_dice", binary),
}


def ours() -> Callable[[str, Arrays], Callable[[], float]]:
    import torch

    from nucleate import losses

    torch.set_num_threads(1)
    assert losses.warm_up(), "the kernels cannot be compiled here"
    table: dict[str, Callable[..., Any]] = {
        "cross_entropy": losses.cross_entropy,
        "cross_entropy_last": lambda x, t: losses.cross_entropy(x, t, class_dim=-1),
        "smooth": lambda x, t: losses.cross_entropy(x, t, label_smoothing=0.1),
        "masked": lambda x, t, mask: losses.cross_entropy(x, t, mask=mask),
        "soft": losses.cross_entropy,
        "focal": losses.focal,
        "binary": losses.binary_cross_entropy,
        "kl": lambda p, q: losses.kl_divergence(p=p, q=q),
        "js": lambda p, q: losses.jensen_shannon(p=p, q=q),
        "clip": losses.clip_loss,
        "linear": losses.linear_cross_entropy,
        "lovasz_hinge": losses.lovasz_hinge,
        "lovasz_softmax": losses.lovasz_softmax,
        "dice": losses.dice,
        "tversky": losses.tversky,
        "sigmoid_dice": lambda x, t: losses.dice(x, t, multilabel=True),
    }

    def prepared(name: str, arrays: Arrays) -> Callable[[], float]:
        leaves = [torch.from_numpy(x).requires_grad_() for x in arrays[0]]
        constants = [torch.from_numpy(x) for x in arrays[1]]

        def run() -> float:
            value = table[name](*leaves, *constants)
            value.backward()
            for x in leaves:
                x.grad = None
            return float(value)

        return run

    return prepared


def theirs() -> Callable[[str, Arrays], Callable[[], float]]:
    import jax
    import jax.numpy as jnp
    import optax

    indexed = optax.softmax_cross_entropy_with_integer_labels

    def of_classes(value: Callable[..., Any]) -> Callable[..., Any]:
        """Mean over images and classes of an overlap loss of (both, predicted, labelled)."""

        def loss(x: Any, t: Any) -> Any:
            p, hot = jax.nn.softmax(x, 1), jax.nn.one_hot(t, x.shape[1], axis=1)
            return value((p * hot).sum((2, 3)), p.sum((2, 3)), hot.sum((2, 3))).mean()

        return loss

    def focal(x: Any, t: Any) -> Any:
        surprisal = indexed(x, t, axis=1)
        return ((1 - jnp.exp(-surprisal)) ** 2 * surprisal).mean()

    def js(p: Any, q: Any) -> Any:
        p, q = jax.nn.log_softmax(p, 1), jax.nn.log_softmax(q, 1)
        m = jnp.logaddexp(p, q) - math.log(2)
        return sum(optax.losses.kl_divergence_with_log_targets(m, x, axis=1).mean() for x in (p, q)) / 2

    def clip(a: Any, b: Any) -> Any:
        a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        logits, own = a @ b.T / 0.1, jnp.arange(len(a))
        return (indexed(logits, own).mean() + indexed(logits.T, own).mean()) / 2

    def extension(errors: Any, positive: Any) -> Any:
        """The Lovász extension of the Jaccard loss as published: sort, gather, cumulative sums, differences."""
        order = jnp.argsort(-errors)
        hot = positive[order].astype(errors.dtype)
        jaccard = 1 - (hot.sum() - hot.cumsum()) / (hot.sum() + (1 - hot).cumsum())
        return jnp.dot(jax.nn.relu(errors[order]), jnp.diff(jaccard, prepend=0.0))

    def lovasz_softmax(x: Any, t: Any) -> Any:
        p = jax.nn.softmax(x, 1)[0]
        hot = jax.nn.one_hot(t[0], len(p), axis=0)
        return jax.vmap(extension)(jnp.abs(hot - p), hot).mean()

    def sigmoid_dice(x: Any, t: Any) -> Any:
        p = jax.nn.sigmoid(x)
        both, all_of_both = (p * t).sum((2, 3)), p.sum((2, 3)) + t.sum((2, 3))
        return (1 - 2 * both / all_of_both).mean()

    table: dict[str, Callable[..., Any]] = {
        "cross_entropy": lambda x, t: indexed(x, t, axis=1).mean(),
        "cross_entropy_last": lambda x, t: indexed(x, t).mean(),
        "smooth": lambda x, t: optax.softmax_cross_entropy(
            x, optax.smooth_labels(jax.nn.one_hot(t, x.shape[1], axis=1).swapaxes(1, -1), 0.1).swapaxes(1, -1), axis=1
        ).mean(),
        "masked": lambda x, t, mask: jnp.where(mask, indexed(x, t, axis=1), 0).sum() / mask.sum(),
        "soft": lambda x, t: optax.softmax_cross_entropy(x, t, axis=1).mean(),
        "focal": focal,
        "binary": lambda x, t: optax.sigmoid_binary_cross_entropy(x, t).mean(),
        "kl": lambda p, q: optax.losses.kl_divergence_with_log_targets(
            jax.nn.log_softmax(q, 1), jax.nn.log_softmax(p, 1), axis=1
        ).mean(),
        "js": js,
        "clip": clip,
        "linear": lambda x, w, t: indexed(x @ w.T, t).mean(),
        "lovasz_hinge": lambda x, t: extension(1 - x[0] * (2.0 * t[0] - 1), t[0]),
        "lovasz_softmax": lovasz_softmax,
        "dice": of_classes(lambda both, predicted, labelled: 1 - 2 * both / (predicted + labelled)),
        "tversky": of_classes(
            lambda both, predicted, labelled: 1 - both / (both + 0.3 * (predicted - both) + 0.7 * (labelled - both))
        ),
        "sigmoid_dice": sigmoid_dice,
    }

    def prepared(name: str, arrays: Arrays) -> Callable[[], float]:
        leaves, constants = ([jax.device_put(x) for x in part] for part in arrays)
        both = jax.jit(jax.value_and_grad(table[name], argnums=tuple(range(len(leaves)))))
        return lambda: float(jax.block_until_ready(both(*leaves, *constants))[0])

    return prepared


def serve(prepared: Callable[[str, Arrays], Callable[[], float]]) -> None:
    """Answer each line of input, the name of a case or nothing for one more pass, with [milliseconds, value]."""
    run: Callable[[], float] | None = None
    for line in sys.stdin:
        if name := line.strip():
            loss, make = CASES[name]
            run = prepared(loss, make(np.random.default_rng(0)))
            run()  # what is compiled or made once is no part of it
        assert run is not None
        often = 1
        while True:
            start = time.process_time()
            for _ in range(often):
                value = run()
            took = time.process_time() - start
            if took > 0.01:  # shorter ones are repeated, or the clock would be too coarse
                break
            often *= 4
        print(json.dumps([took / often * 1e3, value]), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jax", metavar="PYTHON", help="the Python of an environment that JAX and optax are in")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(ours() if chosen.serve == "ours" else theirs())
        return 0
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sides = {
        side: subprocess.Popen(
            [python, __file__, "--serve", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for side, python in (("ours", sys.executable), ("theirs", chosen.jax))
    }

    def ask(side: str, line: str = "") -> tuple[float, float]:
        sides[side].stdin.write(line + "\n")
        sides[side].stdin.flush()
        took, value = json.loads(sides[side].stdout.readline())
        return took, value

    print(f"{'':50}{'ours ms':>9}{'JAX ms':>9}{'ratio':>7}")
    found = {}
    for name in (name for name in CASES if chosen.only in name):
        values = [ask(side, name)[1] for side in sides]
        assert math.isclose(*values, rel_tol=2e-3), f"{name}: {values}"
        passes = [[ask(side)[0] for side in sides] for _ in range(chosen.runs)]
        mine, other = map(statistics.median, zip(*passes, strict=True))
        found[name] = {"ours": mine, "jax": other, "ratio": other / mine}
        print(f"{name:50}{mine:9.2f}{other:9.2f}{other / mine:7.2f}", flush=True)
    for side in sides.values():
        side.stdin.close()
        side.wait()
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
