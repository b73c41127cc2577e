"""How fast and how small the losses are on a CUDA GPU, forward and backward, beside PyTorch's and Liger-Kernel's.

    python benchmarks/losses_cuda.py [--runs 20] [--json out.json]

Both sides run in turn, after three passes to warm up; times are CUDA events', the ratio is that of the medians. Memory
is the peak that PyTorch's allocator held above the inputs, gradients included. Liger-Kernel (liger-kernel on PyPI) is
measured where it is installed. Nothing else should use the GPU. Prints a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from losses import Pass, backward
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses

DEVICE = "cuda"


def cross_entropy(classes: int, side: int) -> dict[str, Pass]:
    x = torch.randn(8, classes, side, side, device=DEVICE)
    t = torch.randint(0, classes, (8, side, side), device=DEVICE)
    return {
        "ours": backward(lambda a: losses.cross_entropy(a, t, check=False), x),
        "torch": backward(lambda a: F.cross_entropy(a, t), x),
    }


def many_classes() -> dict[str, Pass]:
    x, t = torch.randn(8192, 32768, device=DEVICE), torch.randint(0, 32768, (8192,), device=DEVICE)
    passes = {
        "ours": backward(lambda a: losses.cross_entropy(a, t, check=False), x),
        "torch": backward(lambda a: F.cross_entropy(a, t), x),
    }
    if liger():
        from liger_kernel.transformers import LigerCrossEntropyLoss

        # Liger writes the gradient into the logits: a copy for each pass keeps them what they are.
        passes["liger"] = backward(lambda a: LigerCrossEntropyLoss()(a * 1.0, t), x)
    return passes


def linear(dtype: torch.dtype) -> dict[str, Pass]:
    x = torch.randn(8192, 1024, device=DEVICE, dtype=dtype)
    w = (torch.randn(65536, 1024, device=DEVICE) / 32).to(dtype)
    t = torch.randint(0, 65536, (8192,), device=DEVICE)
    passes = {
        "ours": backward(lambda a, b: losses.linear_cross_entropy(a, b, t, check=False), x, w),
        "torch": backward(lambda a, b: F.cross_entropy(F.linear(a, b).float(), t), x, w),
    }
    if liger():
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        passes["liger"] = backward(lambda a, b: LigerFusedLinearCrossEntropyLoss()(b, a, t), x, w)
    return passes


def kl_divergence() -> dict[str, Pass]:
    a, b = (torch.randn(8192, 32768, device=DEVICE) for _ in range(2))
    passes = {
        "ours": backward(lambda q: losses.kl_divergence(p=b, q=q, check=False), a),
        "torch": backward(
            lambda q: F.kl_div(q.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean"), a
        ),
    }
    if liger():
        from liger_kernel.transformers import LigerKLDIVLoss

        layer = LigerKLDIVLoss(reduction="batchmean", log_target=True)
        passes["liger"] = backward(lambda q: layer(q.log_softmax(1), b.log_softmax(1)), a)
    return passes


def clip() -> dict[str, Pass]:
    a = torch.randn(16384, 128, device=DEVICE)
    b = a + torch.randn_like(a)

    def plain(p: Tensor, q: Tensor) -> Tensor:
        logits = F.normalize(p) @ F.normalize(q).T / 0.1
        own = torch.arange(len(p), device=DEVICE)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return {"ours": backward(lambda p, q: losses.clip_loss(p, q, check=False), a, b), "torch": backward(plain, a, b)}


def liger() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None


CASES: dict[str, Callable[[], dict[str, Pass]]] = {
    "cross_entropy 8x3x1024x1024": lambda: cross_entropy(3, 1024),
    "cross_entropy 8x32x512x512": lambda: cross_entropy(32, 512),
    "cross_entropy 8,192 x 32,768": many_classes,
    "linear_cross_entropy 8,192x1,024, 65,536 classes, float32": lambda: linear(torch.float32),
    "linear_cross_entropy 8,192x1,024, 65,536 classes, bfloat16": lambda: linear(torch.bfloat16),
    "kl_divergence 8,192 x 32,768": kl_divergence,
    "clip N=16,384 D=128": clip,
}


def timed(run: Pass) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def peak_mib(run: Pass) -> float:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(passes: dict[str, Pass], runs: int) -> dict[str, dict[str, float]]:
    for run in passes.values():
        for _ in range(3):
            run()
    memory = {name: peak_mib(run) for name, run in passes.items()}
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(runs):
        for name, run in passes.items():
            times[name].append(timed(run))
    return {name: {"ms": statistics.median(times[name]), "mib": memory[name]} for name in passes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no CUDA GPU here.")
    rows: dict[str, dict[str, dict[str, float]]] = {}
    print("| | " + " | ".join(f"{who}, ms | MiB" for who in ("ours", "torch", "liger")) + " |")
    print("| --- |" + " ---: |" * 6)
    for name, setup in CASES.items():
        torch.manual_seed(0)
        torch.cuda.empty_cache()
        rows[name] = measure(setup(), options.runs)
        cells = [rows[name].get(who) for who in ("ours", "torch", "liger")]
        print(f"| {name} | " + " | ".join(f"{c['ms']:.2f} | {c['mib']:.0f}" if c else "- | -" for c in cells) + " |")
    report = json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows})
    if options.json:
        options.json.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
