"""The embedded models on drawn images: their accuracy, and digests of all that they give.

The accuracy fails where a step of post-processing is broken. The digests hold a change of form against what was
computed before it, to the last bit. Rounding differs between kinds of processor and releases of torch, so they are kept
for some of them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import repack_fields

import nucleate
from nucleate.api import COLUMNS
from nucleate.data.synthetic import STYLES
from nucleate.postprocess.matching import match
from nucleate.postprocess.scores import pool

MODELS = {"fluorescence": ("fluorescence", 0.90), "brightfield": ("tissue", 0.845)}
"""Each embedded model, the style of the drawn images for it, and the panoptic quality that it has at least on them."""

DIGESTS = json.loads((Path(__file__).parent / "golden.json").read_text())
KEY = f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


@pytest.fixture(scope="module")
def found():
    """Of each model the results on three drawn images and their truth, by PyTorch in float32."""
    found = {}
    for name, (style, _) in MODELS.items():
        model = nucleate.load(name, engine="torch", number_format="float32")
        drawn = [STYLES[style]((17, index), height=200, width=240) for index in range(3)]
        found[name] = [(model.segment(image.pixels, entropy=True), truth) for image, truth in drawn]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_nuclei_of_drawn_images_are_found(found, name):
    scores = pool(match(truth, result.labels) for result, truth in found[name])
    assert scores.panoptic_quality >= MODELS[name][1]


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.mark.skipif(KEY not in DIGESTS, reason=f"no digests are kept for {KEY}")
@pytest.mark.parametrize("name", MODELS)
def test_labels_tables_and_entropy_are_those_that_were_recorded(found, name):
    columns = [*(column for column, _ in COLUMNS), "entropy"]
    tables = [repack_fields(r.table[columns]) for r, _ in found[name]]
    digests = [
        [digest(one) for one in (r.labels, table, r.entropy)] for (r, _), table in zip(found[name], tables, strict=True)
    ]
    assert digests == DIGESTS[KEY][name]
