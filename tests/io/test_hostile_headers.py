"""Files whose headers promise what no microscope makes: a sentence for each, in seconds and in bounded memory."""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[2] / "src"

SHORT, LONG, LONG8, ASCII, BYTE = 3, 4, 16, 2, 1
SIZES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", LONG8: "Q"}


def page(tags, after=0, at=16):
    """A page of a BigTIFF that begins at `at`, as bytes; tags are (code, type, count, value or offset)."""
    body = struct.pack("<Q", len(tags))
    for code, form, count, value in sorted(tags):
        body += struct.pack("<HHQ", code, form, count)
        body += struct.pack("<Q", value) if isinstance(value, int) else value.ljust(8, b"\0")
    return body + struct.pack("<Q", after)


def big_tiff(tags, more=b"", size=None, path=None):
    """A BigTIFF of one page, with what follows it; `size` makes a sparse file of it."""
    data = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + page(tags) + more
    path.write_bytes(data)
    if size is not None:
        os.truncate(path, size)


def described(width, height, *, bits=8, samples=1, form=1, strip=None, places=None, compression=1, more=()):
    """The tags of an image in strips, of which the offset and the length are in `places`."""
    count = -(-height // (strip or height))
    offset, length = places or (1024, 64)
    return [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 1, bits),
        (259, SHORT, 1, compression),
        (262, SHORT, 1, 1),
        (273, LONG8, count, offset),
        (277, SHORT, 1, samples),
        (278, LONG, 1, strip or height),
        (279, LONG8, count, length),
        (339, SHORT, 1, form),
        *more,
    ]


def ome(sizes, planes="", more="", name="Image"):
    z, c, t = sizes
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="{z}" SizeC="{c}" SizeT="{t}">'
        f"{planes or '<TiffData/>'}</Pixels></Image>{more}</OME>"
    )


def with_text(path, text):
    tifffile.imwrite(path, np.arange(64, dtype=np.uint8).reshape(8, 8), description=text, metadata=None)


def wide_strip(path, width, samples=1, bits=8, form=1):
    tags = described(width, 4, bits=bits, samples=samples, form=form)
    big_tiff(tags, b"\7" * 4096, path=path)


def sparse_wide(path, width, samples, bits, form):
    line = width * samples * bits // 8
    big_tiff(
        described(width, 2, bits=bits, samples=samples, form=form, places=(4096, 2 * line)), b"", 4096 + 2 * line, path
    )


def circle(path, count):
    one = len(page(described(8, 8)))
    pages = [page(described(8, 8), 16 + (number + 1) % count * one) for number in range(count)]
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + b"".join(pages) + bytes(2048))


def many_kinds(path, count):
    one = len(page(described(8, 8)))
    pages = [page(described(8 + number, 8), 16 + (number + 1) * one) for number in range(count)]
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + b"".join(pages) + bytes(4096))


def many_tags(path, count):
    tags = described(8, 8) + [(40_000 + number, SHORT, 1, 1) for number in range(4000)]
    one = len(page(tags))
    pages = [page(tags, 16 + (number + 1) * one) for number in range(count)]
    path.write_bytes(b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + b"".join(pages) + bytes(4096))


def shared_tile(path, side, tile, compression):
    count = (side // tile) ** 2
    data = zlib.compress(bytes(tile * tile)) if compression == 8 else bytes(tile * tile)
    tags = [
        *((256, LONG, 1, side), (257, LONG, 1, side), (258, SHORT, 1, 8), (259, SHORT, 1, compression)),
        *((262, SHORT, 1, 1), (277, SHORT, 1, 1), (322, LONG, 1, tile), (323, LONG, 1, tile)),
        *((324, LONG8, count, 1024), (325, LONG, count, 1024 + 8 * count)),
    ]
    at = 1024 + 12 * count
    start = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + page(tags)
    offsets = np.full(count, at, "<u8").tobytes() + np.full(count, len(data), "<u4").tobytes()
    path.write_bytes(start.ljust(1024, b"\0") + offsets + data)


def levels(path, count):
    tags = described(64, 64, more=[(330, LONG8, count, 1024)])
    smaller = len(b"II+\0" + bytes(12) + page(tags))
    assert smaller < 1024
    start = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + page(tags)
    sub = 1024 + 8 * count
    offsets = np.full(count, sub, "<u8").tobytes()
    path.write_bytes(start.ljust(1024, b"\0") + offsets + page(described(64, 64)) + bytes(8192))


def png(path, width, height, depth, colour, samples):
    line = 1 + -(-width * depth * samples // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(line * rows)) for rows in [256] * (height // 256) + [height % 256])
    data += packer.flush()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        for kind, value in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def jpeg_tile(path, side):
    tags = [
        *((256, LONG, 1, 64), (257, LONG, 1, 64), (258, SHORT, 1, 8), (259, SHORT, 1, 7), (262, SHORT, 1, 1)),
        *((277, SHORT, 1, 1), (322, LONG, 1, side), (323, LONG, 1, side), (324, LONG8, 1, 1024), (325, LONG8, 1, 64)),
    ]
    big_tiff(tags, bytes(4096), path=path)


CASES = {
    "strips 65536 wide": lambda path: wide_strip(path, 65_536),
    "strips 2**28 wide": lambda path: wide_strip(path, 2**28),
    "strips 2**28 wide, float64": lambda path: wide_strip(path, 2**28, bits=64, form=3),
    "strips of 65535 samples": lambda path: wide_strip(path, 65_536, samples=65_535),
    "a hole 2**28 wide, float64": lambda path: sparse_wide(path, 2**28, 1, 64, 3),
    "a hole of 1000 samples": lambda path: sparse_wide(path, 2**20, 1000, 32, 3),
    "packed strips 2**28 wide": lambda path: big_tiff(described(2**28, 4, compression=8), bytes(4096), path=path),
    "a circle of 150": lambda path: circle(path, 150),
    "a circle of 1": lambda path: circle(path, 1),
    "5000 sizes of pages": lambda path: many_kinds(path, 5000),
    "tags by the million": lambda path: many_tags(path, 300),
    "OME stack": lambda path: with_text(path, ome((10**8, 1, 1))),
    "OME stack on three axes": lambda path: with_text(path, ome((10**4, 10**4, 10**4))),
    "OME planes": lambda path: with_text(path, ome((1, 1, 1), '<TiffData IFD="0" PlaneCount="100000000"/>')),
    "OME first plane": lambda path: with_text(path, ome((1, 1, 1), '<TiffData FirstZ="100000000" IFD="0"/>')),
    "OME entities": lambda path: with_text(
        path, ome((1, 1, 1)).replace("<OME", '<!DOCTYPE a [<!ENTITY b "c">]><OME', 1)
    ),
    "OME modulo": lambda path: with_text(
        path,
        ome(
            (1, 1, 1),
            more='<StructuredAnnotations><XMLAnnotation ID="A" Namespace="openmicroscopy.org/omero/dimension/modulo">'
            '<Value><Modulo><ModuloAlongZ Type="phase" Start="0" End="1e12" Step="1e-3"/></Modulo></Value>'
            "</XMLAnnotation></StructuredAnnotations>",
        ),
    ),
    "ImageJ stack": lambda path: with_text(
        path, "ImageJ=1.11a\nimages=100000000\nchannels=100000000\nmode=grayscale\n"
    ),
    "ImageJ metadata": lambda path: big_tiff(
        described(8, 8, more=[(270, ASCII, 8, b"ImageJ=1"), (50838, LONG, 2**28, 2048), (50839, BYTE, 2**40, 2048)]),
        bytes(4096),
        path=path,
    ),
    "offsets in a hole": lambda path: big_tiff(described(8, 2**30, strip=1, places=(4096, 4096)), b"", 2**40, path),
    "a text in a hole": lambda path: big_tiff(described(8, 8, more=[(270, ASCII, 2**38, 4096)]), b"", 2**40, path),
    "numbers in a hole": lambda path: big_tiff(described(8, 8, more=[(258, SHORT, 2**36, 4096)]), b"", 2**40, path),
    "JPEG tile of 65500": lambda path: jpeg_tile(path, 65_504),
    "one tile for 2**36 pixels": lambda path: shared_tile(path, 2**18, 2**9, 1),
    "one tile for 2**36 pixels, packed": lambda path: shared_tile(path, 2**18, 2**9, 8),
    "one tile for 2**40 pixels": lambda path: shared_tile(path, 2**20, 2**12, 8),
    "300 levels": lambda path: levels(path, 300),
    "10 million levels": lambda path: levels(path, 10**6),
    "tifffile's own shape": lambda path: with_text(
        path, json.dumps({"shape": [10**9, 8, 8], "axes": "CYX", "truncated": True})
    ),
    "PNG of 46340 bits": lambda path: png(path.with_suffix(".png"), 46_340, 46_340, 1, 0, 1),
    "PNG of 20000, RGBA of 16 bits": lambda path: png(path.with_suffix(".png"), 20_000, 20_000, 16, 6, 4),
}
"""What is written, by its name; each is refused."""

SCRIPT = """
import resource, sys, time
from pathlib import Path
from nucleate.data.normalization import Statistics
from nucleate.errors import ImageError
from nucleate.io.reader import open_reader, read_image
import nucleate.io.zarr_chunks, imagecodecs
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (5 << 28), resource.RLIM_INFINITY))
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun, said = time.monotonic(), []
    for read in (read_image, open_reader):
        try:
            with read(path) if read is open_reader else open_reader(path) as reader:
                read_image(path) if read is read_image else Statistics.of(reader, len(reader.channels))
            said.append("read")
        except ImageError as error:
            said.append(str(error).replace(chr(10), " "))
    print(path.name, round(time.monotonic() - begun, 1), *said, sep="|", flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each file is answered with, how long that took: read in a process of its own with little memory."""
    folder = tmp_path_factory.mktemp("hostile")
    names = {}
    for number, (name, write) in enumerate(CASES.items()):
        path = folder / f"{number:02}.tif"
        write(path)
        names[path.stem] = name
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines()]
    return {names[Path(name).stem]: (float(seconds), said) for name, seconds, *said in lines}


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="the memory of a process cannot be bounded here")
@pytest.mark.parametrize("name", CASES)
def test_a_header_that_promises_is_refused_in_bounded_time_and_memory(answers, name):
    seconds, said = answers[name]
    assert seconds < 10
    assert [one == "read" for one in said] == [False, False], said
    assert all("does not fit in memory" not in one for one in said), said
