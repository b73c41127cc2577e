"""How fast and how small the losses are, forward and backward, against torch.nn.functional or the method named.

    OMP_NUM_THREADS=2 python benchmarks/losses.py                 # the whole table
    python benchmarks/losses.py --only info_nce --runs 3 --json out.json
    python benchmarks/losses.py --monai OTHER/bin/python          # Dice and Tversky against MONAI itself

Both sides run in turn, so that a slow moment of the machine falls on both; the ratio is that of the medians. Memory
is the peak of the resident set above what it was before the pass (Linux), gradients included. Nothing else should
run at the same time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nucleate import losses
from nucleate.losses.kernels import release_memory

Pass = Callable[[], None]
Setup = Callable[[], tuple[Pass, Pass | None]]


@dataclass(frozen=True)
class Case:
    """`setup` makes (ours, theirs); `wanted` is the ratio to reach; theirs None where it would not fit in memory."""

    name: str
    against: str
    wanted: float | None
    setup: Setup


@dataclass(frozen=True)
class Row:
    name: str
    against: str
    ours_ms: float
    theirs_ms: float | None
    ratio: float | None
    wanted: float | None
    ours_mib: float | None
    theirs_mib: float | None


def backward(loss: Callable[..., Tensor], *leaves: Tensor) -> Pass:
    """One forward and backward pass from fresh gradients."""
    held = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in leaves]

    def run() -> None:
        loss(*held).backward()
        for x in held:
            x.grad = None

    return run


def pixels(classes: int, side: int, last: bool, options: str = "plain") -> Setup:
    def setup() -> tuple[Pass, Pass]:
        x, t = torch.randn(8, classes, side, side), torch.randint(0, classes, (8, side, side))
        if last:
            x = x.to(memory_format=torch.channels_last)
        weight, mask = torch.rand(classes) + 0.5, torch.rand(t.shape) > 0.2
        soft = torch.randn_like(x).softmax(1)
        one_byte, ignored = t.to(torch.uint8), t.masked_fill(~mask, -100)
        ours, theirs = {
            "plain": (lambda a: losses.cross_entropy(a, t), lambda a: F.cross_entropy(a, t)),
            "bytes": (lambda a: losses.cross_entropy(a, one_byte), lambda a: F.cross_entropy(a, t)),
            "smooth": (
                lambda a: losses.cross_entropy(a, t, label_smoothing=0.1),
                lambda a: F.cross_entropy(a, t, label_smoothing=0.1),
            ),
            "weight": (
                lambda a: losses.cross_entropy(a, t, class_weight=weight),
                lambda a: F.cross_entropy(a, t, weight=weight),
            ),
            "mask": (
                lambda a: losses.cross_entropy(a, t, mask=mask),
                lambda a: F.cross_entropy(a, ignored),
            ),
            "soft": (lambda a: losses.cross_entropy(a, soft), lambda a: F.cross_entropy(a, soft)),
        }[options]
        return backward(ours, x), backward(theirs, x)

    return setup


def bfloat16(classes: int, side: int) -> Setup:
    def setup() -> tuple[Pass, Pass]:
        x = torch.randn(8, classes, side, side).to(torch.bfloat16, memory_format=torch.channels_last)
        t = torch.randint(0, classes, (8, side, side))
        return backward(lambda a: losses.cross_entropy(a, t), x), backward(lambda a: F.cross_entropy(a.float(), t), x)

    return setup


def divergence(symmetric: bool) -> Setup:
    def plain(a: Tensor, b: Tensor) -> Tensor:
        p, q = a.log_softmax(1), b.log_softmax(1)
        count = a.numel() / a.shape[1]
        if not symmetric:
            return F.kl_div(q, p, log_target=True, reduction="sum") / count
        m = torch.logaddexp(p, q) - 0.6931471805599453
        return sum(F.kl_div(m, x, log_target=True, reduction="sum") for x in (p, q)) / (2 * count)

    def setup() -> tuple[Pass, Pass]:
        a, b = torch.randn(8, 32, 256, 256), torch.randn(8, 32, 256, 256)
        fn = losses.jensen_shannon if symmetric else losses.kl_divergence
        return backward(lambda p, q: fn(p=p, q=q), a, b), backward(plain, a, b)

    return setup


def info_nce(rows: int, compare: bool) -> Setup:
    def plain(a: Tensor, b: Tensor) -> Tensor:
        logits = F.normalize(a) @ F.normalize(b).T / 0.1
        own = torch.arange(len(a))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def setup() -> tuple[Pass, Pass | None]:
        a = torch.randn(rows, 128)
        b = a + torch.randn(rows, 128)
        return backward(losses.clip_loss, a, b), backward(plain, a, b) if compare else None

    return setup


def linear() -> tuple[Pass, Pass]:
    x, w, t = torch.randn(4096, 256), torch.randn(32768, 256) / 16, torch.randint(0, 32768, (4096,))

    def native(a: Tensor, b: Tensor) -> Tensor:
        fn = getattr(F, "linear_cross_entropy", None)
        return fn(a, b, t) if fn is not None else F.cross_entropy(F.linear(a, b), t)

    return backward(lambda a, b: losses.linear_cross_entropy(a, b, t), x, w), backward(native, x, w)


def published_lovasz(errors: Tensor, label: Tensor) -> Tensor:
    """The method of the reference implementation: sort, gather, cumulative sums, differences."""
    ordered, order = errors.sort(descending=True)
    hot = label[order].float()
    total = hot.sum()
    jaccard = 1 - (total - hot.cumsum(0)) / (total + (1 - hot).cumsum(0))
    step = torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
    return torch.dot(F.relu(ordered), step)


def lovasz_hinge() -> tuple[Pass, Pass]:
    x, t = torch.randn(1, 1 << 20), (torch.rand(1, 1 << 20) < 0.3).long()

    def theirs(a: Tensor) -> Tensor:
        return published_lovasz(1 - a[0] * (2.0 * t[0] - 1), t[0])

    return backward(lambda a: losses.lovasz_hinge(a, t), x), backward(theirs, x)


def lovasz_softmax() -> tuple[Pass, Pass]:
    x, t = torch.randn(1, 19, 1 << 18), torch.randint(0, 19, (1, 1 << 18))

    def theirs(a: Tensor) -> Tensor:
        p = a.softmax(1)[0]
        return sum(published_lovasz(((t[0] == c).float() - p[c]).abs(), t[0] == c) for c in range(19)) / 19

    return backward(lambda a: losses.lovasz_softmax(a, t), x), backward(theirs, x)


def overlap(name: str, last: bool) -> Setup:
    def plain(a: Tensor, t: Tensor) -> Tensor:
        p = a.softmax(1)
        hot = F.one_hot(t, 3).movedim(-1, 1).to(p.dtype)
        both, predicted, labelled = (v.flatten(2).sum(2) for v in (p * hot, p, hot))
        if name == "dice":
            return (1 - (2 * both + 1e-5) / (predicted + labelled + 1e-5)).mean()
        wrong = 0.3 * (predicted - both) + 0.7 * (labelled - both)
        return (1 - (both + 1e-5) / (both + wrong + 1e-5)).mean()

    def setup() -> tuple[Pass, Pass]:
        x, t = torch.randn(8, 3, 512, 512), torch.randint(0, 3, (8, 512, 512))
        if last:
            x = x.to(memory_format=torch.channels_last)
        try:
            from monai.losses import DiceLoss, TverskyLoss

            made = DiceLoss if name == "dice" else TverskyLoss
            layer = made(softmax=True, to_onehot_y=True)
            theirs = backward(lambda a: layer(a, t.unsqueeze(1)), x)
        except ImportError:
            theirs = backward(lambda a: plain(a, t), x)
        return backward(lambda a: losses.by_name(name)(a, t), x), theirs

    return setup


def hardest() -> tuple[Pass, Pass]:
    x, t = torch.randn(8, 3, 512, 512), torch.randint(0, 3, (8, 512, 512))

    def theirs(a: Tensor) -> Tensor:
        return F.cross_entropy(a, t, reduction="none").flatten(1).topk(26215, dim=1, sorted=False).values.mean()

    return backward(lambda a: losses.topk_cross_entropy(a, t), x), backward(theirs, x)


def regression(name: str, options: str = "plain") -> Setup:
    """Offsets of 8 images, (8, 2, 512, 512), against the function of PyTorch, or its formula where there is none."""

    def setup() -> tuple[Pass, Pass]:
        x, t = torch.randn(8, 2, 512, 512), torch.randn(8, 2, 512, 512)
        v, counts = torch.rand_like(x) + 0.1, torch.randint(0, 9, x.shape).float()
        mask, weight = torch.rand(8, 512, 512) > 0.2, torch.rand(8, 2, 512, 512) + 0.1
        given = {
            "plain": {},
            "mask": {"mask": mask, "channel_dim": 1},
            "weight": {"weight": weight},
            "full": {"full": True},
        }[options]
        unmasked = ~mask.unsqueeze(1)
        theirs = {
            "log_cosh": lambda a: torch.log(torch.cosh(a - t)).mean(),
            "quantile": lambda a: torch.maximum(0.9 * (t - a), -0.1 * (t - a)).mean(),
            "poisson_nll": lambda a: F.poisson_nll_loss(a, counts, **given),
            "gaussian_nll": lambda a, b: F.gaussian_nll_loss(a, t, b),
        }.get(name, lambda a: getattr(F, f"{name}_loss")(a, t, **given))
        if options == "mask":
            elements = getattr(F, f"{name}_loss")

            def theirs(a: Tensor) -> Tensor:
                return elements(a, t, reduction="none").masked_fill(unmasked, 0).sum() / (2 * mask.sum())

        truth = counts if name == "poisson_nll" else t
        own = {"q": 0.9} if name == "quantile" else given
        leaves = (x, v) if name == "gaussian_nll" else (x,)
        ours = backward(lambda a, *more: losses.by_name(name)(a, truth, *more, **own), *leaves)
        return ours, backward(theirs, *leaves)

    return setup


def focal() -> tuple[Pass, Pass]:
    x, t = torch.randn(8, 3, 512, 512), torch.randint(0, 3, (8, 512, 512))

    def theirs(a: Tensor) -> Tensor:
        values = F.cross_entropy(a, t, reduction="none")
        return ((1 - torch.exp(-values)) ** 2 * values).mean()

    return backward(lambda a: losses.focal(a, t), x), backward(theirs, x)


def binary(name: str) -> Setup:
    def sigmoid_focal(a: Tensor, t: Tensor) -> Tensor:
        """As torchvision writes it."""
        p, values = a.sigmoid(), F.binary_cross_entropy_with_logits(a, t, reduction="none")
        right = p * t + (1 - p) * (1 - t)
        return ((0.25 * t + 0.75 * (1 - t)) * values * (1 - right) ** 2).mean()

    def dice(a: Tensor, t: Tensor) -> Tensor:
        """As MONAI writes it."""
        p = a.sigmoid()
        both, predicted, labelled = ((p * t).sum((2, 3)), p.sum((2, 3)), t.sum((2, 3)))
        return (1 - (2 * both + 1e-5) / (predicted + labelled + 1e-5)).mean()

    def setup() -> tuple[Pass, Pass]:
        x, t = torch.randn(8, 3, 512, 512), (torch.rand(8, 3, 512, 512) < 0.3).float()
        theirs = {"binary_cross_entropy": F.binary_cross_entropy_with_logits, "sigmoid_focal": sigmoid_focal}
        if name == "dice":
            return backward(lambda a: losses.dice(a, t, multilabel=True), x), backward(lambda a: dice(a, t), x)
        return backward(lambda a: losses.by_name(name)(a, t), x), backward(lambda a: theirs[name](a, t), x)

    return setup


def one_hot() -> tuple[Pass, Pass]:
    x, t = torch.randn(8, 3, 512, 512), torch.randint(0, 3, (8, 512, 512))
    hot = F.one_hot(t, 3).movedim(-1, 1)
    return backward(lambda a: losses.cross_entropy(a, hot), x), backward(lambda a: F.cross_entropy(a, hot.float()), x)


def small(name: str, check: bool) -> Setup:
    """A hundred passes, which alone would be too short to be timed."""

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return F.kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean")

    def setup() -> tuple[Pass, Pass]:
        x, y, t = torch.randn(32, 10), torch.randn(32, 10), torch.randint(0, 10, (32,))
        yes = (torch.rand(32, 10) < 0.3).float()
        signs = 2 * yes - 1
        passes: dict[str, tuple[Pass, Pass]] = {
            "cross_entropy": (
                backward(lambda a: losses.cross_entropy(a, t, check=check), x),
                backward(lambda a: F.cross_entropy(a, t), x),
            ),
            "binary_cross_entropy": (
                backward(lambda a: losses.binary_cross_entropy(a, yes, check=check), x),
                backward(lambda a: F.binary_cross_entropy_with_logits(a, yes), x),
            ),
            "hinge": (
                backward(lambda a: losses.hinge(a, signs, labels="signed", check=check), x),
                backward(lambda a: F.relu(1 - signs * a).mean(), x),
            ),
            "kl_divergence": (
                backward(lambda a, b: losses.kl_divergence(p=a, q=b, check=check), x, y),
                backward(kl, x, y),
            ),
        }
        ours, theirs = passes[name]
        return lambda: _repeat(ours, 100), lambda: _repeat(theirs, 100)

    return setup


def _repeat(run: Pass, times: int) -> None:
    for _ in range(times):
        run()


TORCH, MONAI = "torch.nn.functional", "MONAI, or its method where it is not installed"
CASES = [
    Case("cross_entropy 8x3x512x512 planes", TORCH, 4, pixels(3, 512, False)),
    Case("cross_entropy 8x3x512x512 channels-last", TORCH, 4, pixels(3, 512, True)),
    Case("cross_entropy 8x32x256x256 planes", TORCH, 5, pixels(32, 256, False)),
    Case("cross_entropy 8x32x256x256 channels-last", TORCH, 8, pixels(32, 256, True)),
    Case("cross_entropy 8x3x512x512 labels of one byte", TORCH, None, pixels(3, 512, False, "bytes")),
    Case("cross_entropy 8x3x512x512 label smoothing", TORCH, None, pixels(3, 512, False, "smooth")),
    Case("cross_entropy 8x3x512x512 class weights", TORCH, None, pixels(3, 512, False, "weight")),
    Case("cross_entropy 8x3x512x512 mask", TORCH, None, pixels(3, 512, False, "mask")),
    Case("cross_entropy 8x3x512x512 soft targets", TORCH, None, pixels(3, 512, False, "soft")),
    Case("cross_entropy 8x3x512x512 bfloat16 channels-last", TORCH, None, bfloat16(3, 512)),
    Case("kl_divergence 8x32x256x256", TORCH, 4, divergence(False)),
    Case("jensen_shannon 8x32x256x256", TORCH, 4, divergence(True)),
    Case("info_nce both ways N=4,096 D=128", TORCH, None, info_nce(4096, True)),
    Case("info_nce both ways N=16,384 D=128", TORCH, 8, info_nce(16384, True)),
    Case("info_nce both ways N=65,536 D=128", "would need 80 GiB", None, info_nce(65536, False)),
    Case("linear_cross_entropy 4,096x256, 32,768 classes", "F.linear_cross_entropy", 2, linear),
    Case("lovasz_hinge 2^20 pixels", "the published method", 5, lovasz_hinge),
    Case("lovasz_softmax 2^18 x 19", "the published method", 5, lovasz_softmax),
    Case("dice 8x3x512x512 planes", MONAI, 3, overlap("dice", False)),
    Case("dice 8x3x512x512 channels-last", MONAI, 3, overlap("dice", True)),
    Case("tversky 8x3x512x512 planes", MONAI, 3, overlap("tversky", False)),
    Case("l1 8x2x512x512", TORCH, 1, regression("l1")),
    Case("mse 8x2x512x512", TORCH, 1, regression("mse")),
    Case("mse 8x2x512x512 weights", TORCH, 1, regression("mse", "weight")),
    Case("huber 8x2x512x512", TORCH, 1, regression("huber")),
    Case("smooth_l1 8x2x512x512", TORCH, 1, regression("smooth_l1")),
    Case("smooth_l1 8x2x512x512 mask of positions", TORCH, 1, regression("smooth_l1", "mask")),
    Case("log_cosh 8x2x512x512", "log(cosh), which overflows", None, regression("log_cosh")),
    Case("quantile 8x2x512x512", "the larger of two lines", 1, regression("quantile")),
    Case("poisson_nll 8x2x512x512", TORCH, 1, regression("poisson_nll")),
    Case("poisson_nll 8x2x512x512 full", TORCH, 1, regression("poisson_nll", "full")),
    Case("gaussian_nll 8x2x512x512", TORCH, 1, regression("gaussian_nll")),
    Case("topk_cross_entropy 8x3x512x512", "cross entropy, topk", 1, hardest),
    Case("focal 8x3x512x512", "its four lines of PyTorch", 2, focal),
    Case("binary_cross_entropy 8x3x512x512", TORCH, 2, binary("binary_cross_entropy")),
    Case("sigmoid_focal 8x3x512x512", "the lines of torchvision", 2, binary("sigmoid_focal")),
    Case("dice 8x3x512x512 sigmoid", "the lines of MONAI", 2, binary("dice")),
    Case("cross_entropy 8x3x512x512 one-hot integers", TORCH, 2, one_hot),
    *(
        Case(
            f"{name} 32x10, a hundred times, {'' if check else 'un'}checked",
            TORCH,
            1 / 3 if check else 0.5,
            small(name, check),
        )
        for name in ("cross_entropy", "binary_cross_entropy", "hinge", "kl_divergence")
        for check in (False, True)
    ),
]


def peak_mib(run: Pass) -> float | None:
    """The peak of the resident set above its level before; None where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    run()  # what is made once, such as threads, is no part of it
    gc.collect()
    release_memory()  # the memory that is kept for the next gradient is
    # What the allocator keeps for later would hide what the pass takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        reset.write_text("5")
    except OSError:
        return None

    def kib(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    before = kib("VmRSS")
    run()
    return (kib("VmHWM") - before) / 1024


def timed(run: Pass, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return (clock() - start) * 1e3


def measure(case: Case, runs: int, clock: Callable[[], float]) -> Row:
    torch.manual_seed(0)
    ours, theirs = case.setup()
    memory = peak_mib(ours), None if theirs is None else peak_mib(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        times[0].append(timed(ours, clock))
        if theirs is not None:
            times[1].append(timed(theirs, clock))
    mine = statistics.median(times[0])
    other = statistics.median(times[1]) if times[1] else None
    ratio = None if other is None else other / mine
    return Row(case.name, case.against, mine, other, ratio, case.wanted, *memory)


def show(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--monai", metavar="PYTHON", help="the Python of an environment that MONAI is installed in")
    chosen = parser.parse_args()
    if chosen.monai is not None:
        # Behind everything of this environment: of the other only what is missing here, MONAI, is taken.
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        found = subprocess.run([chosen.monai, "-c", where], check=True, capture_output=True, text=True)
        sys.path.append(found.stdout.strip())
    torch.set_num_threads(chosen.threads)
    clock = time.process_time if chosen.threads == 1 else time.perf_counter  # of one thread others take no time
    start = time.perf_counter()
    compiled = losses.warm_up()
    print(f"kernels {'ready' if compiled else 'not available'} after {time.perf_counter() - start:.1f} s")
    print(f"{'':52}{'ours ms':>9}{'theirs':>9}{'ratio':>7}{'wanted':>7}{'MiB':>7}{'theirs':>8}")
    rows = []
    for case in CASES:
        if chosen.only not in case.name:
            continue
        row = measure(case, chosen.runs, clock)
        rows.append(row)
        print(
            f"{row.name:52}{row.ours_ms:9.1f}{show(row.theirs_ms, '.1f'):>9}{show(row.ratio, '.1f'):>7}"
            f"{show(row.wanted, '.2g'):>7}{show(row.ours_mib, '.0f'):>7}{show(row.theirs_mib, '.0f'):>8}",
            flush=True,
        )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
