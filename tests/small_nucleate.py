"""The command `nucleate` with a small network and short epochs, for tests of whole runs; it prints each step."""

from functools import partial

from nucleate import __main__
from nucleate.report.training_progress import TrainingProgress
from nucleate.training import config


def main() -> None:
    config.TrainingConfig = partial(config.TrainingConfig, samples=12, widths=(16, 16))  # type: ignore[misc, assignment]
    observe = TrainingProgress.observe

    def told(self, state, loss):
        print("step", state.step, flush=True)
        observe(self, state, loss)

    TrainingProgress.observe = told  # type: ignore[method-assign]
    __main__.main()


if __name__ == "__main__":
    main()
