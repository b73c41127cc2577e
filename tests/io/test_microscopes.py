"""Files as microscopes write them, read by the library that is kept for each.

The CZI files are written by Zeiss' own library; the ND2 and LIF files, which no library writes, by hand, after what the
packages `nd2` and `liffile` read.
"""

import struct
import sys

import numpy as np
import pytest

from nucleate.errors import ImageError
from nucleate.io.reader import is_image, open_reader, read_image, scenes
from nucleate.io.stack import Choice, planes
from nucleate.types import Box, Plane

RNG = np.random.default_rng(5)
FRAMES, PLANES, CHANNELS, HEIGHT, WIDTH = 2, 3, 2, 40, 50
PIXELS = RNG.integers(1, 4000, (2, FRAMES, PLANES, CHANNELS, HEIGHT, WIDTH), dtype=np.uint16)
"""Scene, T, Z, C, Y, X."""


_BOOL, _UNSIGNED, _DOUBLE, _TEXT, _LEVEL = 1, 3, 6, 8, 11
_MAGIC, _ALIGNED, _NAME = 0x0ABECEDA, 4096, 4096 - 24


def write_czi(path, scenes, *, names=("DAPI", "GFP"), pixel_size=0.25, tile=(20, 25), step=1000):
    """Scenes of shape (T, Z, C, Y, X), each in tiles of its own place on the stage; colours (T, Z, 1, Y, X, 3)."""
    from pylibCZIrw.czi import create_czi

    with create_czi(str(path)) as file:
        for number, pixels in enumerate(scenes):
            for t, z, c in np.ndindex(*pixels.shape[:3]):
                plane = pixels[t, z, c] if pixels.ndim == 6 else pixels[t, z, c, ..., None]
                for y in range(0, plane.shape[0], tile[0]):
                    for x in range(0, plane.shape[1], tile[1]):
                        part = np.ascontiguousarray(plane[y : y + tile[0], x : x + tile[1], ::-1])  # blue first
                        place = {"T": t, "Z": z, "C": c}
                        how = "zstd1:ExplicitLevel=2"
                        file.write(part, (x + step * number, y + 7), place, how, number)
        scale = pixel_size * 1e-6
        file.write_metadata("cells", channel_names=dict(enumerate(names)), scale_x=scale, scale_y=scale)


def write_nd2(path, pixels, *, names=("DAPI", "GFP"), positions=("A1", "B2"), pixel_size=0.25):
    """Pixels of shape (T, P, Z, C, Y, X) as an ND2 file of version 3: chunks with names, and a map of them at its end;
    a frame holds all channels of a plane."""
    frames, points, planes, channels, height, width = pixels.shape
    width_bytes = width * channels * pixels.itemsize
    bits = 8 * pixels.itemsize
    attributes = {
        "uiWidth": width,
        "uiWidthBytes": width_bytes,
        "uiHeight": height,
        "uiComp": channels,
        "uiBpcInMemory": bits,
        "uiBpcSignificant": bits,
        "uiSequenceCount": frames * points * planes,
        "eCompression": 2,
    }
    named = {
        f"a{n}": {"sDescription": name, "uiCompCount": 1, "pFluorescentProbe": {"uiKind": 1}}
        for n, name in enumerate(names)
    }
    metadata = {
        "bCalibrated": True,
        "dCalibration": float(pixel_size),
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": named},
    }
    stack = {"eType": 4, "uLoopPars": {"uiCount": planes, "dZStep": 0.5}}
    points_of = {f"i{n:010}": {"dPosX": float(n), "dPosName": name} for n, name in enumerate(positions)}
    stage = {"eType": 2, "uLoopPars": {"Points": points_of}, "ppNextLevelEx": {"i0000000000": stack}}
    times = {"uiCount": frames, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0}
    experiment = {"eType": 1, "uLoopPars": times, "ppNextLevelEx": {"i0000000000": stage}}
    chunks = {
        "ImageAttributesLV!": _variants({"SLxImageAttributes": attributes}),
        "ImageMetadataSeqLV|0!": _variants({"SLxPictureMetadata": metadata}),
        "ImageMetadataLV!": _variants({"SLxExperiment": experiment}),
    }
    for number, at in enumerate(np.ndindex(frames, points, planes)):
        frame = np.ascontiguousarray(np.moveaxis(pixels[at], 0, 2)).tobytes()
        chunks[f"ImageDataSeq|{number}!"] = struct.pack("<d", float(number)) + frame
    out = bytearray(struct.pack("<IIQ32s64s", _MAGIC, 32, 64, b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0"))
    places = {}
    for name, data in chunks.items():
        out += bytes(-len(out) % _ALIGNED)
        places[name] = len(out), len(data)
        # The pixels of a frame begin 4096 bytes behind its chunk, with a time of 8 bytes before them.
        out += struct.pack("<IIQ", _MAGIC, _NAME, len(data)) + name.encode().ljust(_NAME, b"\0") + data
    out += bytes(-len(out) % _ALIGNED)
    where = len(out)
    content = b"".join(name.encode() + struct.pack("<QQ", *place) for name, place in places.items())
    content += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", where)
    out += struct.pack("<IIQ", _MAGIC, 32, len(content)) + b"ND2 FILEMAP SIGNATURE NAME 0001!" + content
    path.write_bytes(bytes(out))


def _variants(values):
    """A dictionary as ND2 stores it: for each value its type, the length of its name, the name, and itself."""
    out = bytearray()
    for name, value in values.items():
        text = (name + "\0").encode("utf-16-le")
        kinds = ((bool, _BOOL), (int, _UNSIGNED), (float, _DOUBLE), (str, _TEXT), (dict, _LEVEL))
        kind = next(code for one, code in kinds if isinstance(value, one))
        head = struct.pack("<BB", kind, len(text) // 2) + text
        if kind == _LEVEL:
            inner = _variants(value)
            head += struct.pack("<IQ", len(value), len(head) + 12 + len(inner))
            out += head + inner + bytes(8 * len(value))
        elif kind == _TEXT:
            out += head + (value + "\0").encode("utf-16-le")
        else:
            out += head + struct.pack({_BOOL: "<B", _UNSIGNED: "<I", _DOUBLE: "<d"}[kind], value)
    return bytes(out)


def write_lif(path, series, *, names=("DAPI", "GFP"), pixel_size=0.25):
    """Series by name, each of shape (T, Z, C, Y, X), as a LIF file of version 2: an XML header, then one block each."""
    blocks = [np.ascontiguousarray(pixels).tobytes() for pixels in series.values()]
    elements = "".join(
        _lif_element(name, pixels, f"MemBlock_{n}", len(block), names, pixel_size)
        for n, ((name, pixels), block) in enumerate(zip(series.items(), blocks, strict=True))
    )
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="project" UniqueID="0"><Children>{elements}</Children>'
        "</Element></LMSDataContainerHeader>"
    )
    out = struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le")
    for n, block in enumerate(blocks):
        name = f"MemBlock_{n}".encode("utf-16-le")
        out += struct.pack("<IIBQBI", 0x70, 14 + len(name), 0x2A, len(block), 0x2A, len(name) // 2) + name + block
    path.write_bytes(out)


def _lif_element(name, pixels, block, size, channels, pixel_size):
    frames, planes, count, height, width = pixels.shape
    value = pixels.itemsize
    plane = height * width * value
    axes = [
        (1, width, value),
        (2, height, width * value),
        (3, planes, plane * count),
        (4, frames, plane * count * planes),
    ]
    lengths = {1: (width - 1) * pixel_size * 1e-6, 2: (height - 1) * pixel_size * 1e-6, 3: 1e-6, 4: 1.0}
    described = "".join(
        f'<DimensionDescription DimID="{axis}" NumberOfElements="{number}" Origin="0" Length="{lengths[axis]}"'
        f' Unit="{"s" if axis == 4 else "m"}" BytesInc="{step}" BitInc="0"/>'
        for axis, number, step in axes
    )
    named = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * value}" NameOfMeasuredQuantity="" Min="0"'
        f' Max="65535" Unit="" LUTName="{channel}" IsLUTInverted="0" BytesInc="{n * plane}" BitInc="0"/>'
        for n, channel in enumerate(channels[:count])
    )
    return (
        f'<Element Name="{name}" UniqueID="{name}"><Data><Image><ImageDescription><Channels>{named}</Channels>'
        f"<Dimensions>{described}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{size}" MemoryBlockID="{block}"/></Element>'
    )


def nd2(path):
    write_nd2(path, np.moveaxis(PIXELS, 0, 1))
    return ["A1", "B2"]


def lif(path):
    write_lif(path, {"Series001": PIXELS[0], "Series002": PIXELS[1]})
    return ["Series001", "Series002"]


def czi(path):
    write_czi(path, PIXELS)
    return ["", ""]


@pytest.fixture(scope="module", params=[nd2, lif, czi], ids=lambda one: one.__name__)
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("microscope") / f"cells.{request.param.__name__}"
    return path, request.param(path)


def test_every_plane_of_every_scene_comes_back_with_names_and_size(file):
    path, names = file
    assert is_image(path)
    found = scenes(path)
    assert [scene.name for scene in found] == names
    assert all(dict(scene.stack) == {"T": FRAMES, "Z": PLANES} for scene in found)
    for scene, t, z in np.ndindex(2, FRAMES, PLANES):
        image = read_image(path, Plane(scene + 1, z + 1, t + 1))
        np.testing.assert_array_equal(image.pixels, np.moveaxis(PIXELS[scene, t, z], 0, 2))
        assert image.pixels.dtype == np.uint16 and image.channels == ("DAPI", "GFP")
        assert image.pixel_size == pytest.approx(0.25)


def test_boxes_and_projections(file):
    path, _ = file
    box = Box(11, 17, 20, 19)
    with open_reader(path, plane=Plane(2, "max", 1)) as reader:
        expected = np.moveaxis(PIXELS[1, 0].max(axis=0), 0, 2)
        np.testing.assert_array_equal(reader.read(box), expected[box.within(reader.box)])


def test_scenes_are_chosen_by_number_and_where_they_have_one_by_name(file):
    path, names = file
    assert [plane for _, plane in planes(scenes(path), Choice("2", "1", "1"), path)] == [Plane(2, 1, 1)]
    if names[1]:
        assert [plane for _, plane in planes(scenes(path), Choice(names[1], "1", "1"), path)] == [Plane(2, 1, 1)]
    with pytest.raises(ImageError, match="has no scene '3'"):
        list(planes(scenes(path), Choice("3"), path))
    with pytest.raises(ImageError, match=r"holds 2 images .* and one is needed here"):
        open_reader(path)


def test_a_missing_library_is_named_with_the_way_to_it(file, monkeypatch):
    path, _ = file
    for library in ("nd2", "liffile", "pylibCZIrw"):
        monkeypatch.setitem(sys.modules, library, None)
    assert len(scenes(path)) == 1
    with pytest.raises(ImageError, match=r"is read by the package \w+, which is not there: pip install 'nucleate\[mic"):
        open_reader(path)


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_cut_off_is_refused(file, tmp_path):
    path, _ = file
    whole = path.read_bytes()
    for length in (16, len(whole) // 3, len(whole) - 50):
        cut = tmp_path / path.name
        cut.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cells\."):
            read_image(cut, Plane(2, PLANES, FRAMES))


def test_a_colour_czi(tmp_path):
    colour = RNG.integers(0, 256, (1, 1, 1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_czi(tmp_path / "slide.czi", [colour], names=("RGB",))
    image = read_image(tmp_path / "slide.czi")
    np.testing.assert_array_equal(image.pixels, colour[0, 0, 0])
    assert image.channels == ("red", "green", "blue")


def test_an_nd2_frame_that_is_not_there_is_no_black_image(tmp_path):
    pixels = np.moveaxis(PIXELS, 0, 1).copy()
    pixels[1, 1, 2] = 0
    write_nd2(tmp_path / "a.nd2", pixels)
    with pytest.raises(ImageError, match=r"a frame without any light, at .*: it was not acquired, or lost"):
        read_image(tmp_path / "a.nd2", Plane(2, 3, 2))


def test_of_a_czi_only_the_box_is_read(tmp_path, monkeypatch):
    write_czi(tmp_path / "a.czi", PIXELS[:1])
    from pylibCZIrw.czi import CziReader

    asked = []
    real = CziReader.read

    def read(self, roi=None, **options):
        asked.append(roi)
        return real(self, roi=roi, **options)

    monkeypatch.setattr(CziReader, "read", read)
    with open_reader(tmp_path / "a.czi", plane=Plane(None, 1, 1)) as reader:
        reader.read(Box(3, 4, 5, 6))
    assert {roi[2:] for roi in asked} == {(1, 1), (6, 5)}
