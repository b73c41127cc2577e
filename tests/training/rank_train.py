"""One rank of the tests of training: a small network on discs. Writes RANK.safetensors and RANK.json, its history.

RANK STEP of --kill end that rank after that step.
"""

import argparse
import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.training.test_trainer import SHORT, task_of

from nucleate import signals
from nucleate.networks.unet import Architecture
from nucleate.parallel import launch
from nucleate.training.checkpoint import Checkpoint
from nucleate.training.config import Limits
from nucleate.training.trainer import Trainer, new_network


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 16])
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--kill", type=int, nargs=2, action="append", default=[], help="rank, and the step after which")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds that a rank's number is multiplied by, at first"
    )
    options = parser.parse_args()

    torch.set_num_threads(1)
    ranks = launch.join()
    first = ranks.rank
    time.sleep(options.pause * ranks.rank)
    # Of eight channels, a bias before a standardised kernel changes nothing, and rounding alone would move it.
    config = dataclasses.replace(
        SHORT, widths=tuple(options.widths), epochs=options.epochs, samples=options.samples, batch=options.batch
    )
    config = dataclasses.replace(config, warm_up=options.warm_up)

    def observe(state, loss):
        print(f"step {state.step}", flush=True)
        if [first, state.step] in options.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def clock():
        """Another one on each rank."""
        return time.monotonic() * (1 + first)

    try:
        trainer = Trainer(
            new_network(Architecture(widths=config.widths), config.seed),
            task_of(config),
            config,
            limits=Limits(config, clock=clock),
            ranks=ranks,
            bfloat16=options.bfloat16,
            checkpoint=Checkpoint(options.out) if options.checkpoint else None,
            observe=observe,
        )
        result = trainer.train(resume=options.resume)
        options.out.mkdir(exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in result.network.state_dict().items()}
        save_file(weights, options.out / f"{first}.safetensors")
        (options.out / f"{first}.json").write_text(json.dumps(result.state.history))
        trainer.ranks.barrier()
    except BaseException as error:
        launch.end_others(error, 1)
        raise
    signals.leave(0, at_once=launch.has_lost())


if __name__ == "__main__":
    main()
