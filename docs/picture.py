"""Draws docs/picture.png: two drawn images, and the outlines that the embedded models find in them.

python docs/picture.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import imagecodecs
import numpy as np

from nucleate.data.synthetic.microscopy import STYLES
from nucleate.inference.predictor import Predictor
from nucleate.io.atomic import atomic
from nucleate.io.bitmap import read_bitmap
from nucleate.networks.store import locate, read
from nucleate.report.overlay import write_overlay

SHOWN = (("fluorescence", "fluorescence", 11), ("tissue", "brightfield", 4))
"""Style of the drawn image, model, seed."""


def main() -> None:
    panels = []
    with tempfile.TemporaryDirectory() as folder:
        for style, name, seed in SHOWN:
            image, truth = STYLES[style](seed, height=300, width=300)
            found = Predictor(read(locate(name))).segment(image).labels
            for labels in (np.zeros_like(truth), found):
                path = Path(folder) / "panel.png"
                write_overlay(path, image, labels)
                panels.append(np.asarray(read_bitmap(path))[..., :3])
            print(f"{name}: {truth.max()} drawn, {found.max()} found")
    gap = np.full((300, 6, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    with atomic(Path(__file__).parent / "picture.png") as file:
        file.write(imagecodecs.png_encode(np.ascontiguousarray(row)))


if __name__ == "__main__":
    main()
