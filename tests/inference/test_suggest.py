"""Which images to label first: spread out, unsure ones first once there are labels, never one picture twice."""

import json

import numpy as np
import pytest
import tifffile

from nucleate.cli import main
from nucleate.data.synthetic import STYLES, fluorescence
from nucleate.errors import DatasetError, ImageError
from nucleate.inference import suggest as module
from nucleate.inference.suggest import BOTH, COVERAGE, fitting, suggest
from nucleate.networks import store


@pytest.fixture(scope="module")
def model():
    return store.read(store.locate("fluorescence"))


def write(folder, name, pixels, mask=None):
    for part, values in (("images", pixels), ("masks", mask)):
        if values is not None:
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", values)


def nuclei(seed, size=96):
    image, mask = fluorescence(seed=seed, height=size, width=size)
    return image.pixels[..., 0], mask.astype(np.uint16)


def noise(seed, size=96):
    return np.random.default_rng(seed).integers(0, 4000, (size, size), dtype=np.uint16)


@pytest.fixture
def folder(tmp_path):
    """Five images of nuclei, one of them twice, and two of noise."""
    for seed in range(5):
        write(tmp_path / "cells", f"n{seed}", nuclei(seed)[0])
    write(tmp_path / "cells", "turned", np.rot90(nuclei(2)[0]))
    for seed in range(2):
        write(tmp_path / "cells", f"z{seed}", noise(seed))
    return tmp_path / "cells"


def test_without_labels_the_middle_comes_first_and_then_what_differs(folder, model):
    found = suggest(folder, model, 3)
    assert found.rule == COVERAGE and (found.labelled, found.unlabelled) == (0, 8)
    first, second, third = found.images
    assert first.distance is None and "nearest to the middle of 7 images" in first.reason
    assert {one.name[0] for one in found.images} == {"n", "z"}  # both kinds are there
    assert second.distance >= third.distance > 0 and first.entropy is None
    assert found.notes == ("Left out, as near-duplicates of labelled images or of one another: 1 image.",)


def test_no_picture_comes_twice_and_none_that_is_labelled(folder, model):
    write(folder, "n2", *nuclei(2))
    found = suggest(folder, model, 20)
    names = [one.name for one in found.images]
    assert sorted(names) == ["n0", "n1", "n3", "n4", "z0", "z1"]
    assert found.notes[-1] == "No more than 6 can be suggested."


def test_with_labels_it_is_distance_times_rank_of_entropy(folder, model, monkeypatch):
    for seed in (0, 1):
        write(folder, f"n{seed}", *nuclei(seed))
    unsure = {"n2": 0.5, "n3": 0.4, "n4": 0.3, "z0": 0.2, "z1": 0.1}
    monkeypatch.setattr(module, "_entropy", lambda sample, *_: unsure[sample.name])
    found = suggest(folder, model, 5)
    assert found.rule == BOTH and [one.entropy for one in found.images] == [unsure[one.name] for one in found.images]
    monkeypatch.setattr(module, "_entropy", lambda sample, *_: 1.0)
    alone = {one.name: one for one in suggest(folder, model, 1).images}
    ((farthest, one),) = alone.items()
    assert farthest[0] == "z" and "place 1 of 5" in one.reason  # noise is farthest from nuclei
    monkeypatch.setattr(module, "_entropy", lambda sample, *_: float(sample.name != farthest))
    (best,) = suggest(folder, model, 1).images
    assert best.name != farthest and best.name[0] == "z"  # the other one of noise, of which the model is less sure


def test_the_entropy_is_that_of_the_model(folder, model):
    write(folder, "n0", *nuclei(0))
    bits = [one.entropy for one in suggest(folder, model, 9).images]
    assert all(0 < one < 1 for one in bits) and len(set(bits)) > 1


def test_the_same_folder_gives_the_same(folder, model):
    assert suggest(folder, model, 4) == suggest(folder, model, 4)


def test_images_that_are_all_alike_give_one(tmp_path, model):
    for name in "abc":
        write(tmp_path, name, nuclei(3)[0])
    found = suggest(tmp_path, model, 5)
    (one,) = found.images
    assert one.name == "a" and one.reason == "the only one there is" and len(found.notes) == 2


def test_what_cannot_be_used_is_named(tmp_path, model):
    write(tmp_path, "flat", np.zeros((40, 40), np.uint8))
    with pytest.raises(DatasetError, match=r"None of the unlabelled images of .* can be used\. flat is left out"):
        suggest(tmp_path, model, 5)
    (tmp_path / "images" / "cut.tif").write_bytes(b"II*\0")
    write(tmp_path, "good", nuclei(1)[0])
    found = suggest(tmp_path, model, 1)
    assert [one.name for one in found.images] == ["good"] and len(found.notes) == 2


def test_folders_without_images_to_label_are_refused(tmp_path, model):
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        suggest(tmp_path / "none", model, 5)
    write(tmp_path / "done", "a", *nuclei(0))
    with pytest.raises(DatasetError, match="holds 1 image and no unlabelled one"):
        suggest(tmp_path / "done", model, 5)


def test_a_model_of_other_channels_is_refused(tmp_path, model):
    (tmp_path / "images").mkdir()
    two = np.stack([noise(seed) for seed in range(2)])
    tifffile.imwrite(tmp_path / "images" / "a.ome.tif", two, metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match="choose one by name or number"):
        suggest(tmp_path, model, 5)
    assert [one.name for one in suggest(tmp_path, model, 5, "2").images] == ["a"]


def test_the_model_of_the_package_that_fits(tmp_path):
    write(tmp_path / "cells", "a", nuclei(0)[0])
    write(tmp_path / "grey as colours", "a", nuclei(0)[0][..., None].repeat(3, axis=2).astype(np.uint8))
    write(tmp_path / "tissue", "a", STYLES["tissue"](0, height=96, width=96)[0].pixels)
    found = [fitting(tmp_path / name) for name in ("cells", "grey as colours", "tissue")]
    assert found == ["fluorescence", "fluorescence", "brightfield"]


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / "found.json"
    with pytest.raises(SystemExit) as end:
        main(["suggest", str(folder), "-n", "2", "--json", str(out)])
    assert not end.value.code
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["kind"] == "nucleate summary" and found["model"] == "fluorescence"
    for one in found["images"]:
        assert one["name"] in printed and (folder / "images" / f"{one['name']}.tif").samefile(one["file"])
    assert printed.rstrip().splitlines()[-2].startswith("Label every nucleus of these images. Then: nucleate train")
    out.write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["suggest", str(folder), "--json", str(out)])
    assert end.value.code == 2 and "did not write it" in capsys.readouterr().err
