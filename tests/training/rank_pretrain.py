"""One rank of the tests of pre-training: a small network on drawn textures. Writes RANK.safetensors and RANK.json."""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.training.test_pretraining import SHORT, WHAT, textures

from nucleate.networks.pretraining import PretrainingNetwork
from nucleate.networks.unet import Architecture
from nucleate.parallel import launch
from nucleate.training.pretraining import HeldOut, PretrainingTask
from nucleate.training.trainer import Trainer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ranks = launch.join()
    torch.manual_seed(0)
    config = dataclasses.replace(SHORT, batch=options.batch)
    # Of eight channels, a bias before a standardised kernel changes nothing, and rounding alone would move it.
    network = PretrainingNetwork(Architecture(widths=(16, 16)))
    held_out = HeldOut(textures(2 * options.batch, seed=1, side=32), WHAT, 0, options.batch)
    task = PretrainingTask(textures(6), held_out, config, WHAT)
    result = Trainer(network, task, config, ranks=ranks, bfloat16=False).train()
    options.out.mkdir(exist_ok=True)
    save_file(result.network.state_dict(), options.out / f"{ranks.rank}.safetensors")
    (options.out / f"{ranks.rank}.json").write_text(json.dumps(result.state.history))
    ranks.barrier()


if __name__ == "__main__":
    main()
