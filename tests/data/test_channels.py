"""Which channels a network sees: names, numbers, colours, and questions."""

from pathlib import Path

import numpy as np
import pytest

from nucleate.data.channels import choose_channels, common, index_of, pick, question, shows_nuclei
from nucleate.data.synthetic import STYLES, fluorescence
from nucleate.errors import DatasetError, ImageError
from nucleate.io.base import MemoryReader
from nucleate.types import Image

RGB = ("red", "green", "blue")


def image(pixels, channels, name="cells"):
    return Image(name, pixels, channels, path=Path(f"{name}.tif"))


def blank(*channels):
    return image(np.zeros((6, 8, len(channels)), np.uint8), channels)


def planes(*seeds):
    return np.stack([fluorescence(seed=seed, height=80, width=90)[0].pixels[..., 0] for seed in seeds], axis=2)


def chosen(channels, trained=("grey",), count=1, channel=None):
    return choose_channels(MemoryReader(blank(*channels)), trained, count, channel)[0]


@pytest.mark.parametrize(("channel", "index"), [("DAPI", 0), ("gfp", 1), (1, 0), (2, 1), ("2", 1)])
@pytest.mark.parametrize("names", [("DAPI", "GFP"), ("DAPI - c:1/2", "GFP - c:2/2"), ("Ch1-dapi", "w2GFP")])
def test_pick_by_name_or_number(channel, index, names):
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    picked = pick(image(pixels, names), channel)
    assert picked.channels == (names[index],)
    np.testing.assert_array_equal(picked.pixels, pixels[..., index : index + 1])


@pytest.mark.parametrize("channel", ["RFP", 0, 3, -1, ""])
def test_pick_names_the_choice(channel):
    with pytest.raises(ImageError, match=r"cells.tif has no channel .*choose one of DAPI \(1\), GFP \(2\)"):
        pick(blank("DAPI", "GFP"), channel)


def test_a_name_comes_before_a_number():
    assert index_of("1", ("2", "1"), "cells") == 1


@pytest.mark.parametrize(
    "name",
    [
        *("DAPI", "dapi", "DAPI - c:1/2", "c:3/3 - DAPI", "Hoechst", "HOECHST 33342", "Hoechst33342", "H33342"),
        *("Ch1-DAPI", "DAPI-T1", "nuclei", "Nucleus", "blue", "405", "405 nm", "Confocal 405", "DRAQ5", "H2B-mCherry"),
        "w1DAPI",
    ],
)
def test_names_of_nuclei(name):
    assert shows_nuclei(name)
    assert chosen(("GFP", name, "RFP")) == (1,)
    assert chosen(("GFP", name), trained=("DAPI",)) == (1,)


@pytest.mark.parametrize(
    "name", ["GFP", "Alexa 405", "channel 1", "Ch1-T1", "nuclear envelope", "S100", "TRITC", "細胞"]
)
def test_names_of_something_else(name):
    assert not shows_nuclei(name)


def test_a_models_own_channel_is_taken_by_name():
    assert chosen(("DAPI", "GFP"), trained=("gfp",)) == (1,)
    assert chosen(("DAPI - c:1/2", "GFP - c:2/2"), trained=("GFP",)) == (1,)
    assert chosen(RGB, trained=("green",)) == (1,)
    assert chosen(("DAPI", "GFP"), trained=("GFP", "DAPI"), count=2) == (1, 0)
    assert chosen(("x", "GFP", "DAPI"), trained=("DAPI", "GFP"), count=2) == (2, 1)
    assert chosen(("DAPI", "GFP"), trained=("GFP",), channel="DAPI") == (0,)


@pytest.mark.parametrize(
    ("names", "trained", "sentence"),
    [
        (("GFP", "RFP"), ("grey",), r"has the channels GFP \(1\), RFP \(2\), and the model needs 1: choose one"),
        (("DAPI", "Hoechst"), ("grey",), "choose one by name or number, such as --channel DAPI"),
        (("GFP", "DAPI"), ("CD45",), "such as --channel DAPI"),
        (("channel 1", "channel 2"), ("grey",), "has 2 channels without names.*--channel 1; numbers count from 1"),
        (("GFP", "405 nm", "405"), ("grey",), "such as --channel 2"),
        (("RFP", "GFP", "DAPI"), RGB, "and the model needs 3, red, green, blue"),
        (("grey",), ("DAPI", "GFP"), "the model needs 2, DAPI, GFP"),
    ],
)
def test_what_leaves_a_choice_is_asked(names, trained, sentence):
    with pytest.raises(ImageError, match=sentence):
        chosen(names, trained, len(trained))


def test_colours_of_several_stains_are_asked_for_and_others_are_taken():
    composite = image(planes(1, 2, 3), RGB)
    with pytest.raises(ImageError, match=r"cells.tif is a colour image.*several stains.*--channel blue"):
        choose_channels(MemoryReader(composite), ("grey",), 1)
    assert "--channel red, green or blue" in question(composite)
    assert choose_channels(MemoryReader(composite), ("grey",), 1, "blue") == ((2,), None)
    assert choose_channels(MemoryReader(composite), RGB, 3) == ((0, 1, 2), None)
    tinted = image(planes(1, 2, 3) * np.array([0, 0, 1], np.uint8), RGB)
    assert choose_channels(MemoryReader(tinted), ("grey",), 1) == ((2,), "only blue shows something, and it is taken.")
    assert question(tinted) is None
    grey = image(planes(1).repeat(3, 2), RGB)
    assert choose_channels(MemoryReader(grey), ("grey",), 1) == ((0, 1, 2), None)


def test_training_learns_from_what_all_images_have():
    composite, grey = image(planes(1, 2, 3), RGB), image(planes(4), ("grey",))
    with pytest.raises(ImageError, match=r"several stains.*--channel red, green or blue.*--channel all"):
        common([grey, composite], "folder", None)
    images, names = common([composite], "folder", "blue")
    assert names == ("blue",)
    np.testing.assert_array_equal(images[0].pixels, composite.pixels[..., 2:])
    assert common([composite], "folder", "all")[1] == RGB
    tinted = image(planes(1, 2, 3) * np.array([0, 0, 1], np.uint8), RGB)
    images, names = common([grey, tinted], "folder", None)
    assert names == ("blue",) and [one.pixels.shape[2] for one in images] == [1, 1]
    tissue = STYLES["tissue"](0, height=80, width=90)[0]
    assert common([tissue, grey], "folder", None)[1] == RGB


def test_channels_in_another_order_are_put_in_order_and_others_refused():
    pixels = planes(1, 2)
    images, names = common(
        [image(pixels, ("DAPI", "GFP")), image(pixels[..., ::-1], ("GFP - c:1/2", "dapi"))], "folder", None
    )
    assert names == ("DAPI", "GFP")
    np.testing.assert_array_equal(images[0].pixels, images[1].pixels)
    with pytest.raises(DatasetError, match="folder mixes images of the channels DAPI, GFP and DAPI, RFP"):
        common([image(pixels, ("DAPI", "GFP")), image(pixels, ("DAPI", "RFP"))], "folder", None)
