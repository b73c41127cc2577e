"""The command `nucleate` with a small network and short epochs, for tests of whole runs; it prints each step.

FAULT=RANK:memory lets that rank run out of memory after its third step; FAULT=0:mpi hides mpi4py from all.
"""

import os
import sys
from functools import partial

from nucleate import __main__
from nucleate.parallel.launch import rank_of_launcher
from nucleate.report.training_progress import TrainingProgress
from nucleate.training import config


def main() -> None:
    # Names of a module and of a class are given other values, and None stands for a package that is missing: Python
    # documents both, and types have no way to say it.
    rank, _, fault = os.environ.get("FAULT", "").partition(":")
    if fault == "mpi":
        sys.modules["mpi4py"] = None  # type: ignore[assignment]
    config.TrainingConfig = partial(config.TrainingConfig, samples=12, widths=(16, 16))  # type: ignore[misc, assignment]
    observe = TrainingProgress.observe

    def told(self, state, loss):
        print("step", state.step, flush=True)
        if fault and state.step == 3 and rank_of_launcher() == int(rank):
            raise MemoryError
        observe(self, state, loss)

    TrainingProgress.observe = told  # type: ignore[method-assign]
    __main__.main()


if __name__ == "__main__":
    main()
