"""A model folder: what is read is what was written, or an error that names the file."""

import hashlib
import io
import json
import math

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load as load_file
from safetensors.torch import save as save_file

import nucleate
from nucleate.data.normalization import Normalisation
from nucleate.errors import ModelError
from nucleate.networks import store
from nucleate.networks.manifest import (
    Ancestor,
    DataPart,
    EnginesPart,
    Manifest,
    NormalisationPart,
    ThresholdsPart,
    TrainingPart,
    architecture_part,
)
from nucleate.networks.unet import Architecture, UNet
from nucleate.report.console import print_model
from nucleate.types import Thresholds

HISTORY = [
    {"epoch": epoch, "train_loss": 2.5 / epoch, "valid_loss": 3.0, "score": 0.25, "panoptic_quality": 0.5}
    for epoch in (1, 2)
]


TRAINING = TrainingPart(seed=7, loss="focal", epochs=2, steps=20, seconds=1.5, best_epoch=2, stopped="It was enough.")


def network(seed=0):
    torch.manual_seed(seed)
    made = UNet(Architecture(channels=2, classes=3, widths=(8, 16)))
    torch.nn.init.normal_(made.heads.maps.weight)
    return made


def manifest(weights, architecture):
    return Manifest(
        name="small",
        architecture=architecture_part(architecture),
        normalisation=NormalisationPart(low=0.5, high=99.5),
        thresholds=ThresholdsPart(foreground=0.4, peak_threshold=0.2, nms_radius=0.7, assign_radius=0.8, min_area=9),
        pixel_size=0.25,
        data=DataPart(
            source="drawn", labelled=3, nuclei=41, median_diameter=17.5, validation="none", channels=("DAPI", "GFP")
        ),
        trainings=(TRAINING,),
        scores={"validation": {"panoptic_quality": 0.5, "aji": 0.4, "thresholds": []}},
        versions={"nucleate": nucleate.__version__},
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )


@pytest.fixture
def folder(tmp_path):
    made = network()
    weights = store.encode_weights(made)
    store.write(tmp_path / "small", manifest(weights, made.architecture), weights, HISTORY, {store.CARD: b"# small\n"})
    return tmp_path / "small"


def test_round_trip(folder):
    made, read = network(), store.read(folder)
    assert read.folder == folder
    assert read.network.architecture == made.architecture
    image = torch.randn(1, 2, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.network(image), made(image), atol=1e-5, rtol=1e-5)
        assert torch.equal(read.network(image), made.folded()(image))
    assert read.thresholds == Thresholds(
        foreground=0.4, peak_threshold=0.2, nms_radius=0.7, assign_radius=0.8, min_area=9, seed_foreground=0.0
    )
    assert read.normalisation == Normalisation(low=0.5, high=99.5)
    assert read.manifest == manifest((folder / store.WEIGHTS).read_bytes(), made.architecture)
    assert store.read_history(folder) == HISTORY
    assert (folder / store.CARD).read_text() == "# small\n"


def test_a_comparison_of_engines_is_read_as_it_was_written(folder):
    read = store.read(folder)
    assert read.manifest.engines is None  # as in a folder from before engines were compared
    engines = EnginesPart(panoptic_quality={"torch": 0.5, "openvino": 0.25})
    assert engines.ranges == {}  # as in a folder from before there were integers
    engines = engines.model_copy(update={"ranges": {"decoder.blocks.0.first": (0.0, 1.5)}})
    path = folder / store.MANIFEST
    path.write_text(read.manifest.model_copy(update={"engines": engines}).model_dump_json())
    assert store.read_manifest(folder).engines == engines


def with_engines(folder, **engines):
    path = folder / store.MANIFEST
    document = json.loads(path.read_text())
    document["engines"] = engines
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "quality", [{}, {"openvino": 0.5}, {"torch": 1.5}, {"torch": "good"}, {"torch": 0.5, "tensorrt": 0.5}, None, [0.5]]
)
def test_a_comparison_of_engines_that_was_altered_is_refused(folder, quality):
    with_engines(folder, panoptic_quality=quality)
    with pytest.raises(ModelError, match=r"model\.json is cut or altered at engines"):
        store.read(folder)


@pytest.mark.parametrize("limits", [[1.0, 0.5], [0.0], [0.0, 1.0, 2.0], [0.0, "much"], [0.0, float("inf")]])
def test_ranges_that_were_altered_are_refused(folder, limits):
    with_engines(folder, panoptic_quality={"torch": 0.5}, ranges={"decoder.blocks.0.first": limits})
    with pytest.raises(ModelError, match=r"model\.json is cut or altered at engines"):
        store.read(folder)


def test_ranges_of_a_convolution_that_is_not_there_are_refused(folder):
    ranges = {"decoder.blocks.0.first": [0.0, 1.0]}
    with_engines(folder, panoptic_quality={"torch": 0.5}, ranges=ranges)
    assert store.read(folder).manifest.engines.ranges == {"decoder.blocks.0.first": (0.0, 1.0)}
    with_engines(folder, panoptic_quality={"torch": 0.5}, ranges=ranges | {"decoder.blocks.7.first": [0.0, 1.0]})
    with pytest.raises(ModelError, match=r"model\.json .*no convolution decoder\.blocks\.7\.first.*copy the model"):
        store.read(folder)


MODULES_1 = {
    "encoder.stem": "stem",
    "encoder.down": "down",
    "encoder.blocks": "encode",
    "decoder.up": "up",
    "decoder.blocks": "decode",
    "heads.maps": "head",
}


def as_format_1(folder):
    """The same model as versions before wrote it."""

    def old(name):
        return next(other + name.removeprefix(new) for new, other in MODULES_1.items() if name.startswith(new))

    document = json.loads((folder / store.MANIFEST).read_text())
    weights = save_file({old(n): t for n, t in load_file((folder / store.WEIGHTS).read_bytes()).items()})
    (folder / store.WEIGHTS).write_bytes(weights)
    thresholds = {"foreground": 0.4, "heat": 0.2, "separation": 0.7, "reach": 0.8, "smallest": 9}
    part = {"panoptic_quality": 0.5, "megapixels_per_second": 2.0, "seconds_to_start": 1.5}
    measured = dict.fromkeys(("torch", "openvino", "onnx"), part)
    engines = {"processor": "x86_64 AVX2", "measured": measured, "ranges": {"decode.0.first": [0.0, 1.5]}}
    architecture = {key: value for key, value in document["architecture"].items() if key != "parts"}
    others = {key: document[key] for key in ("name", "normalisation", "pixel_size", "data", "scores", "versions")}
    before = {
        **others,
        "format": 1,
        "architecture": architecture,
        "thresholds": thresholds,
        "training": document["trainings"][0],
        "engines": engines,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    (folder / store.MANIFEST).write_text(json.dumps(before))
    return before


def test_a_folder_of_format_1_is_read_as_before(folder):
    now = store.read(folder)
    as_format_1(folder)
    before = store.read(folder)
    same = {"weights_sha256": now.manifest.weights_sha256, "engines": None}
    assert before.manifest.model_copy(update=same) == now.manifest
    assert before.manifest.engines.panoptic_quality == {"torch": 0.5, "openvino": 0.5}
    assert before.manifest.engines.ranges == {"decoder.blocks.0.first": (0.0, 1.5)}
    image = torch.randn(1, 2, 12, 16)
    with torch.no_grad():
        assert torch.equal(before.network(image), now.network(image))


@pytest.mark.parametrize("key", ["thresholds", "training", "engines", "architecture"])
@pytest.mark.parametrize("value", [None, 5, [1], {"torch": 5}, {"measured": {"torch": 5}}])
def test_a_manifest_of_format_1_that_was_altered_is_refused(folder, key, value):
    document = as_format_1(folder)
    document[key] = value
    (folder / store.MANIFEST).write_text(json.dumps(document))
    if key == "engines" and value is None:
        assert store.read(folder).manifest.engines is None
        return
    with pytest.raises(ModelError, match=r"model\.json is cut or altered at"):
        store.read(folder)


@pytest.mark.parametrize("parts", [("encoder",), ("encoder", "decoder")])
def test_a_model_may_hold_a_part_of_a_network(folder, parts):
    made, whole = network(), store.read(folder)
    weights = store.encode_weights(made, parts=parts)
    assert len(weights) < len(store.encode_weights(made))
    part = whole.manifest.architecture.model_copy(update={"parts": parts})
    update = {"architecture": part, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    store.write(folder, whole.manifest.model_copy(update=update), weights, HISTORY, "")
    with pytest.raises(ModelError, match=f"holds the {' and '.join(parts)} of a network alone"):
        store.read(folder)
    read = store.read(folder, whole=False)
    for name, tensor in read.network.state_dict().items():
        assert torch.equal(tensor, whole.network.state_dict()[name]) or name.partition(".")[0] not in parts


def test_a_part_that_is_not_named_is_refused(folder):
    document = json.loads((folder / store.MANIFEST).read_text())
    for parts, match in ((["encoder"], store.WEIGHTS), (["decoder"], "parts"), ([], "parts")):
        document["architecture"]["parts"] = parts
        (folder / store.MANIFEST).write_text(json.dumps(document))
        with pytest.raises(ModelError, match=match):
            store.read(folder, whole=False)


def test_lineage_and_several_trainings_are_kept(folder):
    read = store.read(folder)
    ancestors = (Ancestor(name="fluorescence", weights_sha256="a" * 64),)
    second = TRAINING.model_copy(update={"epochs": 1, "stopped": "Again."})
    manifest = read.manifest.model_copy(update={"lineage": ancestors, "trainings": (TRAINING, second)})
    store.write(folder, manifest, (folder / store.WEIGHTS).read_bytes(), [*HISTORY, HISTORY[0]], "")
    again = store.read_manifest(folder)
    assert again == manifest and again.training == second
    assert store.read_history(folder) == [*HISTORY, HISTORY[0]]


def test_written_twice_is_the_same_bytes(folder, tmp_path):
    read = store.read(folder)
    weights = store.encode_weights(read.network)
    store.write(tmp_path / "again", read.manifest, weights, store.read_history(folder), {store.CARD: b"# small\n"})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files
    assert files.keys() == {store.WEIGHTS, store.MANIFEST, store.HISTORY, store.CARD}


def test_parameters_are_counted(folder):
    read = store.read(folder)
    assert read.manifest.architecture.parameters == sum(p.numel() for p in read.network.parameters())


def test_half_precision_is_half_the_size_and_nearly_the_same(folder):
    made = network()
    whole, half = store.encode_weights(made), store.encode_weights(made, half=True)
    tensors = sum(p.numel() for p in made.folded().parameters())
    assert len(whole) - len(half) == pytest.approx(2 * tensors, abs=64)
    store.write(folder, manifest(half, made.architecture), half, HISTORY)
    read = store.read(folder)
    assert all(p.dtype == torch.float32 for p in read.network.parameters())
    image = torch.randn(1, 2, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(read.network(image), made(image), atol=2e-2, rtol=2e-2)


def test_manifest_fits_its_own_schema(folder):
    content = json.loads((folder / store.MANIFEST).read_text())
    schema = Manifest.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    assert content["format"] == 2
    for broken in ({**content, "format": 3}, {**content, "extra": 1}, {**content, "weights_sha256": "0"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


@pytest.mark.parametrize("name", [store.WEIGHTS, store.MANIFEST])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        store.read(folder)


def test_a_missing_history_is_named(folder):
    (folder / store.HISTORY).unlink()
    store.read(folder)
    with pytest.raises(ModelError, match=store.HISTORY):
        store.read_history(folder)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", [store.WEIGHTS, store.MANIFEST])
def test_a_cut_file_is_named(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * (len(content) - 1))])
    with pytest.raises(ModelError, match=name):
        store.read(folder)


@pytest.mark.parametrize("keep", [0, 1, 10, len(json.dumps(HISTORY[0])), len(json.dumps(HISTORY[0])) + 1])
def test_a_cut_history_is_named(folder, keep):
    content = (folder / store.HISTORY).read_bytes()
    (folder / store.HISTORY).write_bytes(content[:keep])
    with pytest.raises(ModelError, match=store.HISTORY):
        store.read_history(folder)


@pytest.mark.parametrize("content", [b"1\n2\n", b"{}\n{}\n{}\n", b"[]\n{}\n", b"\xff\xfe\n{}\n", b"{'a': 1}\n{}\n"])
def test_an_altered_history_is_named(folder, content):
    (folder / store.HISTORY).write_bytes(content)
    with pytest.raises(ModelError, match=store.HISTORY):
        store.read_history(folder)


def test_any_altered_byte_of_the_weights_is_noticed(folder):
    path = folder / store.WEIGHTS
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        altered = bytearray(content)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ModelError, match=store.WEIGHTS):
            store.read(folder)


def altered(folder, *keys, value):
    path = folder / store.MANIFEST
    content = json.loads(path.read_text())
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("format",), 3),
        (("name",), 5),
        (("architecture", "name"), "transformer"),
        (("architecture", "channels"), 0),
        (("architecture", "widths"), []),
        (("architecture", "widths"), [0, 8]),
        (("architecture", "widths"), [-8, 8]),
        (("architecture", "widths"), [8, 2**30]),
        (("architecture", "widths"), [8.5]),
        (("architecture", "widths"), [12]),
        (("normalisation", "low"), 99.5),
        (("normalisation", "high"), 101),
        (("thresholds", "peak_threshold"), 0),
        (("thresholds", "min_area"), -1),
        (("thresholds", "another"), 0.5),
        (("pixel_size",), 0),
        (("trainings",), None),
        (("weights_sha256",), "abc"),
    ],
    ids=str,
)
def test_an_altered_manifest_names_file_and_place(folder, keys, value):
    altered(folder, *keys, value=value)
    with pytest.raises(ModelError, match=keys[-1] if keys[-1] not in ("low", "widths") else keys[0]) as caught:
        store.read(folder)
    assert str(folder / store.MANIFEST) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("architecture", "widths"), [8, 24]),
        (("architecture", "channels"), 1),
        (("architecture", "classes"), 2),
        (("weights_sha256",), "0" * 64),
    ],
    ids=str,
)
def test_a_manifest_of_other_weights_names_the_weights(folder, keys, value):
    altered(folder, *keys, value=value)
    with pytest.raises(ModelError, match=store.WEIGHTS):
        store.read(folder)


def test_weights_that_are_no_safetensors_are_named(folder):
    content = b"no tensors"
    (folder / store.WEIGHTS).write_bytes(content)
    altered(folder, "weights_sha256", value=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match=store.WEIGHTS):
        store.read(folder)


def test_a_folder_in_place_of_a_file_is_named(folder):
    (folder / store.WEIGHTS).unlink()
    (folder / store.WEIGHTS).mkdir()
    with pytest.raises(ModelError, match=store.WEIGHTS):
        store.read(folder)


def test_no_folder_says_what_there_is(tmp_path):
    with pytest.raises(ModelError, match="nothing here") as caught:
        store.read(tmp_path / "nothing here")
    assert all(name in str(caught.value) for name in store.EMBEDDED)


def test_a_model_folder_comes_before_an_embedded_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in store.EMBEDDED:
        (tmp_path / name).mkdir()  # of images, perhaps
        assert store.locate(name).is_absolute() and not store.is_hidden(name)
        assert store.locate(f"./{name}").resolve() == (tmp_path / name).resolve()
        (tmp_path / name / store.MANIFEST).touch()
        assert store.locate(name).resolve() == (tmp_path / name).resolve() and store.is_hidden(name)
    assert store.locate("runs/mine").as_posix() == "runs/mine"


def test_a_run_that_is_not_finished_is_told_from_a_broken_model(tmp_path):
    (tmp_path / store.UNFINISHED).touch()
    with pytest.raises(ModelError, match=r"holds a training that is not finished: .* --resume\.$"):
        store.read(tmp_path)
    (tmp_path / store.UNFINISHED).unlink()
    with pytest.raises(ModelError, match=r"model\.json is missing"):
        store.read(tmp_path)


STRANGE_ONE = st.sampled_from(
    [None, True, -1, 2**63, 10**400, 1e308, math.inf, math.nan, "", "\ud800", "a\n", [], {}, [[1]], {"a": None}]
)


def places(value, at=()):
    """Every place in a JSON document, as the keys that lead there."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def changed(document, at, value):
    """The document with another value there."""
    if not at:
        return value
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return copy


def shown(folder):
    """All that `nucleate info` does with a model."""
    print_model(store.read(folder), store.read_history(folder), Console(file=io.StringIO()))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_model_whose_files_hold_other_values_is_shown_or_refused_in_a_sentence(folder, data):
    name = data.draw(st.sampled_from([store.MANIFEST, store.HISTORY]))
    before = (folder / name).read_text()
    lines = before.splitlines() if name == store.HISTORY else [before]
    document = json.loads(lines[0])
    lines[0] = json.dumps(changed(document, data.draw(st.sampled_from(list(places(document)))), data.draw(STRANGE_ONE)))
    (folder / name).write_text("\n".join(lines) + "\n")
    try:
        shown(folder)
    except ModelError as error:
        assert "/small" in str(error) and str(error).endswith(".") and "\n" not in str(error)
    finally:
        (folder / name).write_text(before)


@pytest.mark.parametrize("name", [store.MANIFEST, store.HISTORY])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "1" * 5000, '{"epoch": 1e999}'])
def test_deep_nesting_and_other_kinds_of_json_are_refused_in_a_sentence(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=rf"{name} is cut or altered at .*: copy the model again\.$"):
        shown(folder)


def test_a_network_is_not_made_larger_than_its_file(folder, monkeypatch):
    document = json.loads((folder / store.MANIFEST).read_text())
    document["architecture"]["widths"] = [1024] * 8
    (folder / store.MANIFEST).write_text(json.dumps(document))
    monkeypatch.setattr(store, "UNet", None)
    with pytest.raises(ModelError, match=r"weights\.safetensors does not fit the architecture"):
        store.read(folder)
