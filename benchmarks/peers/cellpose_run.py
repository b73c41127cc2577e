"""Cellpose 3.1.1.3, trained from scratch and run with several tile sizes; with the Python of its own environment.

    python benchmarks/peers/cellpose_run.py train --plan plan.json --out FILE --minutes 8 [--seed 0]
    python benchmarks/peers/cellpose_run.py slide --model FILE --image slide.tif --out DIR [--side 3000]
                                                  [--tiles 224 256 512 1000]

    python3 -m venv cellpose && cellpose/bin/pip install torch==2.13.0 cellpose==3.1.1.3

`plan.json` is that of stardist_run.py. Training is as short as may be: AdamW with a learning rate of 0.002, batches of
4, bfloat16 where the network runs, a mean diameter of 17 pixels. It shows what tiles do, not how good Cellpose can be.
`slide` segments the upper left `side` x `side` pixels of the
image once for each `bsize`, everything else at its default (`tile_overlap` 0.1), and writes DIR/TILE.tif; the intensity
is normalised over the whole crop in each case. The last line printed is JSON.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from cellpose import models, train
from cellpose.io import imread

DIAMETER = 17.0
CHANNELS = [0, 0]


def read_image(path):
    image = imread(path)
    return (image if image.ndim == 2 else image[..., :3].mean(-1)).astype(np.float32)


def train_model(options):
    # Of the weights at the beginning; samples are drawn after np.random.seed(epoch), which Cellpose calls by itself.
    torch.manual_seed(options.seed)
    pairs = json.loads(Path(options.plan).read_text())["train"]
    images = [read_image(image) for image, _ in pairs]
    masks = [imread(mask).astype(np.int32) for _, mask in pairs]
    model = models.CellposeModel(gpu=False, pretrained_model=False, diam_mean=DIAMETER, mkldnn=False)
    begin, steps, forward = None, 0, model.net.forward

    def timed(batch):
        """Cellpose has no callback; the network is left as the last step made it."""
        nonlocal begin, steps
        begin = begin or time.monotonic()
        if time.monotonic() - begin > options.minutes * 60:
            raise TimeoutError
        steps += 1
        with torch.autocast("cpu", torch.bfloat16):
            maps, *rest = forward(batch)
        return maps.float(), *rest

    model.net.forward = timed
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(TimeoutError):
        train.train_seg(
            model.net,
            train_data=images,
            train_labels=masks,
            channels=CHANNELS,
            SGD=False,
            learning_rate=0.002,
            weight_decay=1e-4,
            batch_size=4,
            n_epochs=100_000,
            nimg_per_epoch=40,
            min_train_masks=1,
            save_every=10**9,
            save_path=str(out.parent),
        )
    model.net.forward = forward
    model.net.save_model(str(out))
    print(json.dumps({"steps": steps, "seconds": time.monotonic() - begin}))


def segment_slide(options):
    model = models.CellposeModel(gpu=False, pretrained_model=options.model, diam_mean=DIAMETER)
    image = imread(options.image)[: options.side, : options.side].astype(np.float32)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for tile in options.tiles:
        begin = time.monotonic()
        labels = model.eval(image, channels=CHANNELS, diameter=DIAMETER, bsize=tile)[0]
        seconds[tile] = time.monotonic() - begin
        tifffile.imwrite(out / f"{tile}.tif", labels.astype(np.int32), compression="zlib")
        print(f"bsize {tile}: {int(labels.max())} nuclei, {seconds[tile]:.1f} s", flush=True)
    print(json.dumps({"side": options.side, "seconds": seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("train")
    sub.add_argument("--plan", required=True)
    sub.add_argument("--out", required=True)
    sub.add_argument("--minutes", type=float, required=True)
    sub.add_argument("--seed", type=int, default=0)
    sub.set_defaults(run=train_model)
    sub = commands.add_parser("slide")
    sub.add_argument("--model", required=True)
    sub.add_argument("--image", required=True)
    sub.add_argument("--out", required=True)
    sub.add_argument("--side", type=int, default=3000)
    sub.add_argument("--tiles", type=int, nargs="+", default=[224, 256, 512, 1000])
    sub.set_defaults(run=segment_slide)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
