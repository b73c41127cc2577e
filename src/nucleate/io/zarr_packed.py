"""How large a packed chunk becomes, told before it is unpacked: the codecs themselves take whatever memory it asks for.

Formats: RFC 1950 and 1952 (zlib, gzip), RFC 8878 (Zstandard), the headers of c-blosc 1 and of numcodecs' LZ4.
"""

from __future__ import annotations

import zlib

import imagecodecs

from nucleate.io.cache import LARGEST_PIECE

_DEFLATE_BEST = 1032  # times longer than its stream is no deflated text


def unpacks_beyond(data: bytes, codec: str, most: int = LARGEST_PIECE) -> bool:
    """Whether a chunk becomes longer than `most` bytes; False for one that is broken, which its codec says.

    >>> [unpacks_beyond(zlib.compress(bytes(5000)), "zlib", most) for most in (4999, 5000)]
    [True, False]
    """
    if codec in ("gzip", "zlib"):
        return len(data) * _DEFLATE_BEST > most and _inflates_beyond(data, most)
    if codec == "zstd":
        return _zstd_beyond(data, most)
    at = {"blosc": 4, "lz4": 0}.get(codec)
    return at is not None and int.from_bytes(data[at : at + 4], "little") > most


def _inflates_beyond(data: bytes, most: int) -> bool:
    length = 0
    try:
        while data:  # gzip may hold several streams, one behind the other
            stream = zlib.decompressobj(47)
            while not stream.eof and length <= most:
                part = stream.decompress(data, 2**20)
                length, data = length + len(part), stream.unconsumed_tail
                if not part and not data:
                    return False
            if length > most:
                return True
            data = stream.unused_data
    except zlib.error:
        return False
    return False


def _zstd_beyond(data: bytes, most: int) -> bool:
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        return False
    flag, single = data[4] >> 6, data[4] >> 5 & 1
    size = (single, 2, 4, 8)[flag]
    at = 6 - single + (0, 1, 2, 4)[data[4] & 3]
    if size:
        return int.from_bytes(data[at : at + size], "little") + (256 if flag == 1 else 0) > most
    try:  # a frame that does not say how long it is
        imagecodecs.zstd_decode(data, out=most)
    except (imagecodecs.ZstdError, ValueError):
        return True
    return False
