"""One rank of the tests of prediction: a predictor for which images above 96 pixels are large.

MODEL IMAGES OUT [--resume] [--stop NAME] [--kill RANK MOMENT]; --stop interrupts where an image of that name is begun,
--kill ends that rank at its first image, when it begins the slide, or when the files of the slide are to be written.
"""

import argparse
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import torch

from nucleate import signals
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
    parser.add_argument("--kill", nargs=2, default=("", ""))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, images, out = options.folders

    ranks = MPICommunicator.of_job()

    def end_at(moment):
        if options.kill == [str(ranks.rank), moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    class Watched(Predictor):
        def run(self, reader, *args, **others):
            end_at("first")
            if reader.name == "slide":
                end_at("slide")
            if options.stop and reader.name == options.stop:
                raise KeyboardInterrupt
            pipeline = super().run(reader, *args, **others)
            instances = pipeline.instances

            def numbered(*args, **others):
                found = instances(*args, **others)
                if reader.name == "slide":
                    end_at("writing")
                return found

            pipeline.instances = numbered
            return pipeline

    ready = Watched(store.read(model), bfloat16=False, engine="torch", side=96)
    formats = tuple(name for name in FORMATS if name != "parquet" or find_spec("pyarrow"))
    request = Request(tile=64, formats=formats, entropy=True, overlay=True, resume=options.resume)
    try:
        done = predict(ready, sorted(images.iterdir()), out, request, ranks=ranks)
        print(len(done.results), sum(done.nuclei.values()), len(done.failed))
    except BaseException as error:
        launch.end_others(error, 1)
        raise
    signals.leave(0, at_once=launch.has_lost())


if __name__ == "__main__":
    main()
