"""The package for bioimage.io: what its description names is there, and its test run passes."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile

import imagecodecs
import numpy as np
import onnxruntime
import pytest
import torch
from tests.inference.test_export import small

from nucleate.errors import InputError
from nucleate.inference.bioimageio import EMBEDDED, Credits, _documentation, title
from nucleate.inference.export import export
from nucleate.networks.store import CARD, locate, read
from nucleate.training.telling import with_part

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The packages of a small model of three classes and two channels, and of one inside Nucleate."""
    folder = tmp_path_factory.mktemp("packages")
    credits = Credits(("Ada Lovelace", "Jan Purkyně"), "CC-BY-4.0", ("10.1038/s41592-019-0612-7", "https://a.org/b"))
    export(small(3), "bioimageio", folder / "small.zip", credits=credits)
    export(read(locate("fluorescence")), "bioimageio", folder / "fluorescence.zip")
    return folder


def opened(path):
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(files["rdf.yaml"]), files


@pytest.mark.parametrize("name", ["small", "fluorescence"])
def test_every_file_is_described_and_weights_give_the_test_output(written, name):
    description, files = opened(written / f"{name}.zip")
    assert next(iter(files)) == "rdf.yaml" and description["format_version"].startswith("0.5.")
    described = [
        *description["covers"],
        *description["attachments"],
        *description["weights"].values(),
        *(tensor["test_tensor"] for tensor in (*description["inputs"], *description["outputs"])),
        description["documentation"],
    ]
    assert {one["source"] for one in described} == files.keys() - {"rdf.yaml"}
    assert all(hashlib.sha256(files[one["source"]]).hexdigest() == one["sha256"] for one in described)

    steps = {step["id"]: step["kwargs"] for step in description["inputs"][0]["preprocessing"]}
    image, maps = (np.load(io.BytesIO(files[one]), allow_pickle=False) for one in ("image.npy", "maps.npy"))
    scale, clip = steps["scale_range"], steps["clip"]
    low, high = np.percentile(image, (scale["min_percentile"], scale["max_percentile"]))
    seen = np.clip((image - low) / (high - low), clip["min"], clip["max"]).astype(np.float32)
    session = onnxruntime.InferenceSession(files["network.onnx"], providers=["CPUExecutionProvider"])
    found = [
        session.run(None, {"image": seen})[0],
        torch.jit.load(io.BytesIO(files["network.pt"]))(torch.from_numpy(seen)),
    ]
    for one in found:
        np.testing.assert_allclose(np.asarray(one), maps, rtol=1e-3, atol=1e-3)
    names = description["outputs"][0]["axes"][1]["channel_names"]
    assert maps.shape[1] == len(names) and image.shape[1] == len(description["inputs"][0]["axes"][1]["channel_names"])
    height, width, depth = imagecodecs.png_decode(files["cover.png"]).shape
    assert (width, depth) == (2 * height, 3) and len(files["cover.png"]) < 500_000
    assert "## Validation" in files["README.md"].decode()


def test_the_attached_file_gives_labels(written):
    _, files = opened(written / "fluorescence.zip")
    image = torch.from_numpy(np.load(io.BytesIO(files["image.npy"]), allow_pickle=False))
    assert torch.jit.load(io.BytesIO(files["labels.pt"]))(image).max() == 40


def test_who_made_it(written):
    description, files = opened(written / "small.zip")
    assert description["authors"] == [{"name": "Ada Lovelace"}, {"name": "Jan Purkyně"}]
    assert description["license"] == "CC-BY-4.0"
    assert [sorted(one) for one in description["cite"]] == [["doi", "text"], ["text", "url"]]
    assert "Authors: Ada Lovelace, Jan Purkyně. Licence: CC-BY-4.0." in files["README.md"].decode()
    description, files = opened(written / "fluorescence.zip")
    assert description["license"] == EMBEDDED.licence and "![" not in files["README.md"].decode()
    assert "## Scores" in files["README.md"].decode()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"authors": ("a/b",)}, "--author is 'a/b': give a name, without a slash"),
        ({"authors": (" ",)}, "--author is ' '"),
        ({"licence": "CC BY"}, "--licence is 'CC BY': give an identifier of https://spdx.org/licenses"),
        ({"cite": ("Caicedo 2019",)}, "--cite is 'Caicedo 2019': give a DOI"),
    ],
)
def test_credits_that_the_format_does_not_take(given, sentence):
    with pytest.raises(InputError, match=sentence):
        Credits(**given)


def test_credits_are_for_packages_alone(tmp_path):
    with pytest.raises(InputError, match="are for --to bioimageio: leave them out for onnx"):
        export(small(2), "onnx", tmp_path / "m.onnx", credits=Credits(("Ada",)))


@pytest.mark.parametrize("name", ["", "x" * 200, "Zellkerne/ä: 2"])
def test_names_fit(name):
    assert 5 <= len(title(name)) <= 64 and title(name).isascii() and "/" not in title(name)


@pytest.mark.parametrize("name", ["small", "fluorescence"])
def test_bioimageio_core_takes_it(written, name, tmp_path):
    if importlib.util.find_spec("bioimageio") is None:
        pytest.skip("needs bioimageio.core, which the package and its other tests do without")
    script = (
        "import sys; from bioimageio.core import test_model\n"
        "summary = test_model(sys.argv[1], determinism='seed_only')\n"
        "print(summary.status, *(d.loc[-1] for d in summary.details if d.status == 'passed' and d.loc))"
    )
    environment = {**os.environ, "BIOIMAGEIO_CACHE_PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", script, written / f"{name}.zip"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "passed" and {"onnx", "torchscript"} <= set(done.stdout.split()), done.stderr


def test_the_documentation_tells_of_corrections(tmp_path):
    model = read(locate("fluorescence"))
    card = (model.folder / CARD).read_bytes()
    (tmp_path / CARD).write_bytes(with_part(card, b"## Corrections\nMany.\n\n", b"## "))
    facts = {"outputs": "[]"}
    plain = _documentation(model, facts, EMBEDDED)
    told = _documentation(dataclasses.replace(model, folder=tmp_path), facts, EMBEDDED)
    assert told == plain.replace("## Data\n", "## Corrections\nMany.\n\n## Data\n") != plain
