"""A ZIP archive of any number of small files, written in constant memory."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_16, _32 = 0xFFFF, 0xFFFFFFFF
_DEFLATED = 8
_UTF8 = 0x800
_MIDNIGHT, _FIRST_DAY = 0, 0x21  # 1 January 1980, where the time of ZIP begins: the same content is the same file


class ZipStream:
    """Adds files to `file`, an archive by PKWARE's APPNOTE 6.3.10, with its 64-bit fields where they are needed.

    The standard library's `zipfile` keeps what it knows of each member in memory until the end; here the directory
    grows in a passing file in `folder`, and is appended when the block ends.

    >>> import io, zipfile
    >>> from pathlib import Path
    >>> out = io.BytesIO()
    >>> with ZipStream(out, Path(".")) as archive:
    ...     archive.add("a.txt", b"whole")
    >>> zipfile.ZipFile(out).read("a.txt")
    b'whole'
    """

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file, self._folder, self._count = file, folder, 0

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryFile(dir=self._folder)
        return self

    def add(self, name: str, data: bytes) -> None:
        """Add a file of less than 4 GiB; a name that was added before is not noticed."""
        encoded = name.encode("utf-8")
        squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = squeeze.compress(data) + squeeze.flush()
        offset = self._file.tell()
        extra = struct.pack("<HHQ", 1, 8, offset) if offset >= _32 else b""
        version = 45 if extra else 20
        about = struct.pack(
            "<HHHHIIIH",
            *(_UTF8, _DEFLATED, _MIDNIGHT, _FIRST_DAY),
            *(zlib.crc32(data), len(packed), len(data), len(encoded)),
        )
        self._file.write(b"PK\3\4" + struct.pack("<H", version) + about + struct.pack("<H", 0) + encoded + packed)
        place = struct.pack("<HHHHII", len(extra), 0, 0, 0, 0, min(offset, _32))
        self._directory.write(b"PK\1\2" + struct.pack("<HH", version, version) + about + place + encoded + extra)
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._directory:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        begin, size = self._file.tell(), self._directory.tell()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file)
        if self._count >= _16 or begin >= _32 or size >= _32:
            record = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, self._count, self._count, size, begin)
            self._file.write(b"PK\6\6" + record)
            self._file.write(b"PK\6\7" + struct.pack("<IQI", 0, begin + size, 1))
        count = min(self._count, _16)
        self._file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, min(size, _32), min(begin, _32), 0))
