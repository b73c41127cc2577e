"""Zarr by boxes: any box of an array is what the library that wrote it reads; what is broken gets a sentence."""

import gzip
import json
import shutil
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from nucleate.errors import ImageError
from nucleate.io.zarr_chunks import ChunkedArray

DTYPES = [*(f"{order}{kind}" for order in "<>" for kind in ("u2", "i4", "u8", "f2", "f4", "f8")), "|u1", "|i1", "|b1"]
COMPRESSORS = {
    2: [None, Blosc("zstd"), Blosc("lz4", shuffle=2), Zlib(), GZip(), Zstd(), LZ4()],
    3: [
        *(None, BloscCodec(cname="zstd"), BloscCodec(cname="zlib", shuffle="bitshuffle"), GzipCodec(), ZstdCodec()),
        *([Crc32cCodec()], [ZstdCodec(), Crc32cCodec()], [Crc32cCodec(), GzipCodec()], [ZstdCodec(checksum=True)]),
    ],
}


@st.composite
def arrays(draw):
    """A shape, and how `zarr.create_array` is to store it."""
    shape = draw(st.lists(st.integers(1, 20), min_size=2, max_size=4).map(tuple))
    chunks = tuple(draw(st.integers(1, side + 2)) for side in shape)
    version = draw(st.sampled_from([2, 3]))
    dtype = draw(st.sampled_from(DTYPES))
    options = {
        "zarr_format": version,
        "dtype": dtype,
        "chunks": chunks,
        "compressors": draw(st.sampled_from(COMPRESSORS[version])),
        "fill_value": draw(st.sampled_from([0, 1, *([float("nan"), 0.5] if "f" in dtype else [])])),
        "chunk_key_encoding": draw(
            st.sampled_from(
                [{"name": name, "separator": by} for name in ("v2", "default")[: version - 1] for by in "./"]
            )
        ),
    }
    if version == 2:
        options["order"] = draw(st.sampled_from("CF"))
        return shape, options
    if draw(st.booleans()):
        options["filters"] = [TransposeCodec(order=draw(st.permutations(range(len(shape)))))]
    if dtype[0] != "|":
        options["serializer"] = BytesCodec(endian=draw(st.sampled_from(["little", "big"])))
    if draw(st.booleans()):
        per_file = [draw(st.integers(1, 3)) for _ in shape]
        options["shards"] = {
            "shape": tuple(side * n for side, n in zip(chunks, per_file, strict=True)),
            "index_location": draw(st.sampled_from(["start", "end"])),
        }
    return shape, options


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@settings(deadline=None, max_examples=150)
@given(how=arrays(), data=st.data())
def test_a_box_of_an_array_is_the_box_of_the_whole(tmp_path_factory, how, data):
    shape, options = how
    folder = tmp_path_factory.getbasetemp() / "law.zarr"
    written = zarr.create_array(folder, shape=shape, overwrite=True, **options)
    begin = tuple(data.draw(st.integers(0, side - 1)) for side in shape)
    part = tuple(slice(b, data.draw(st.integers(b, side))) for b, side in zip(begin, shape, strict=True))
    values = (np.arange(np.prod(shape)).reshape(shape) % 101).astype(options["dtype"])
    written[part] = values[part]  # the rest stays the fill value, and chunks of nothing else are left out
    array = ChunkedArray(folder)
    expected = written[:]
    assert array.shape == shape
    for _ in range(2):
        start = tuple(data.draw(st.integers(0, side - 1)) for side in shape)
        stop = tuple(data.draw(st.integers(b + 1, side)) for b, side in zip(start, shape, strict=True))
        found = array.read(start, stop)
        assert found.dtype == expected.dtype.newbyteorder("=") and found.dtype.isnative
        np.testing.assert_array_equal(found, expected[tuple(map(slice, start, stop))])


@pytest.fixture
def folder(tmp_path):
    """An array of one chunk, uncompressed, in which a test puts what it likes."""
    zarr.create_array(tmp_path / "a", shape=(8, 8), chunks=(8, 8), dtype="u1", compressors=None, zarr_format=2)[:] = 5
    return tmp_path / "a"


def compressed_with(folder, name):
    about = json.loads((folder / ".zarray").read_text())
    (folder / ".zarray").write_text(json.dumps({**about, "compressor": name and {"id": name}}))


WHOLE = bytes(range(64))
PACKED = {
    "blosc": imagecodecs.blosc_encode(WHOLE, typesize=1),
    "gzip": gzip.compress(WHOLE),
    "lz4": LZ4().encode(WHOLE),
    "zlib": zlib.compress(WHOLE),
    "zstd": imagecodecs.zstd_encode(WHOLE),
    None: WHOLE,
}


@pytest.mark.parametrize("name", PACKED)
def test_a_chunk_that_is_cut_off_or_broken(folder, name):
    compressed_with(folder, name)
    (folder / "0.0").write_bytes(PACKED[name])
    assert ChunkedArray(folder).read((7, 6), (8, 8)).tolist() == [[62, 63]]
    for data in (b"", PACKED[name][:-3], PACKED[name][:5], b"\xff" * len(PACKED[name]) * 2, bytes(8)):
        (folder / "0.0").write_bytes(data)
        says = r"a has a chunk that cannot be decoded, at \(0, 0\) \(.+\): |0\.0 is cut|0\.0 has a chunk that becomes"
        with pytest.raises(ImageError, match=says):
            ChunkedArray(folder).read((0, 0), (8, 8))


def sharded(folder, **options):
    shards = {"shape": (8, 8), "index_location": "end"}
    options = {"compressors": None, "chunks": (4, 4), "shards": shards, "dtype": "u1"} | options
    zarr.create_array(folder, shape=(8, 8), **options)[:] = np.arange(64).reshape(8, 8)
    return folder / "c" / "0" / "0"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[:50], "checksum do not match"),
        (lambda data: data[:-68] + bytes(68), "checksum do not match"),
        (lambda data: data[:-5] + b"?" + data[-4:], "checksum do not match"),
    ],
)
def test_a_shard_that_is_broken(tmp_path, spoil, says):
    file = sharded(tmp_path / "a")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ImageError, match=says):
        ChunkedArray(tmp_path / "a").read((0, 0), (8, 8))


@pytest.mark.parametrize(("offset", "length"), [(2**40, 16), (0, 2**40), (2**64 - 1, 16), (16, 2**64 - 1), (0, 15)])
def test_a_shard_whose_list_points_anywhere(tmp_path, offset, length):
    file = sharded(tmp_path / "a")
    about = json.loads((tmp_path / "a/zarr.json").read_text())
    about["codecs"][0]["configuration"]["index_codecs"].pop()
    (tmp_path / "a/zarr.json").write_text(json.dumps(about))
    file.write_bytes(file.read_bytes()[:64] + struct.pack("<8Q", offset, length, *[2**64 - 1] * 6))
    with pytest.raises(ImageError, match=r"cut off|cannot be decoded|above the limit"):
        ChunkedArray(tmp_path / "a").read((0, 0), (8, 8))


def test_a_chunk_that_is_left_out_is_the_fill_value_unless_all_is_gone(folder):
    array, later = ChunkedArray(folder), ChunkedArray(folder)
    (folder / "0.0").unlink()
    assert array.read((0, 0), (8, 8)).max() == 0
    shutil.rmtree(folder)
    with pytest.raises(ImageError, match="is not there any more: was it moved"):
        later.read((0, 0), (8, 8))


def test_only_metadata(folder):
    ChunkedArray(folder).check_stored()
    (folder / "0.0").unlink()
    with pytest.raises(ImageError, match="holds no chunk of it"):
        ChunkedArray(folder).check_stored()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", [GZip(), Zlib(), Zstd(), LZ4(), Blosc()], ids=lambda codec: codec.codec_id)
def test_a_chunk_that_becomes_larger_than_it_may_be(tmp_path, version, codec):
    compressor = (
        codec if version == 2 else {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}.get(codec.codec_id)
    )
    if compressor is None:
        pytest.skip("format 3 has no such codec of its own")
    array = zarr.create_array(
        tmp_path / "a", shape=(8, 8), chunks=(8, 8), dtype="u1", compressors=compressor, zarr_format=version
    )
    array[:] = 7
    path = tmp_path / "a" / ("0.0" if version == 2 else "c/0/0")
    assert path.is_file()
    path.write_bytes(codec.encode(bytes(10_000_000)))
    with pytest.raises(ImageError, match="becomes larger than it may be"):
        ChunkedArray(tmp_path / "a").read((0, 0), (8, 8))
