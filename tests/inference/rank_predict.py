"""One rank of the tests of prediction: a predictor for which images above 96 pixels are large.

MODEL IMAGES OUT [--resume] [--stop NAME] [--slow]; --stop ends every rank where an image of that name is begun.
"""

import argparse
import time
from pathlib import Path

import torch

from nucleate.inference.predict import Request, predict
from nucleate.inference.predictor import Predictor
from nucleate.io.formats import FORMATS
from nucleate.networks import store
from nucleate.parallel import launch
from nucleate.parallel.mpi import MPICommunicator


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs=3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stop", default="")
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, images, out = options.folders

    class Watched(Predictor):
        def run(self, reader, *args, **others):
            time.sleep(options.slow)
            if options.stop and reader.name == options.stop:
                raise KeyboardInterrupt
            return super().run(reader, *args, **others)

    ready = Watched(store.read(model), bfloat16=False, engine="torch", side=96)
    request = Request(tile=64, formats=tuple(FORMATS), entropy=True, overlay=True, resume=options.resume)
    try:
        done = predict(ready, sorted(images.iterdir()), out, request, ranks=MPICommunicator())
        print(len(done.results), sum(done.nuclei.values()), len(done.failed))
    except BaseException as error:
        launch.end_others(error, 1)
        raise


if __name__ == "__main__":
    main()
