# SPDX-License-Identifier: Apache-2.0
"""The form of a line in a spool's files.

::

    mark 4 | u32 crc32 of all that follows | u32 length | u8 severity | 3 zero | u64 time | text

The mark is no UTF-8, so it is in no text: after a damaged stretch reading goes on at the next one.
"""

import zlib
from struct import Struct
from typing import Final

from .frames import PAYLOAD_MAX
from .outlet import Line

MARK: Final = b"\xff\xfeLN"
_HEADER: Final = Struct("=4sI")
_ABOUT: Final = Struct("=IB3xQ")  # under the checksum, as the text is
OVERHEAD: Final = _HEADER.size + _ABOUT.size
"""Bytes of a record beside its text."""


def record(line: Line) -> bytes:
    body = _ABOUT.pack(len(line.text), line.severity, line.time_ns) + line.text
    return _HEADER.pack(MARK, zlib.crc32(body)) + body


def parse(data: bytes, at: int) -> tuple[Line | None, int]:
    """The line of the record at this place, and where the next one begins.

    There is no line in a damaged stretch: it ends where a record may begin, or with the data.
    """
    text = at + OVERHEAD
    if text <= len(data):
        mark, checksum = _HEADER.unpack_from(data, at)
        length, severity, time_ns = _ABOUT.unpack_from(data, at + _HEADER.size)
        end = text + length
        if mark == MARK and length <= PAYLOAD_MAX and end <= len(data):
            with memoryview(data)[at + _HEADER.size : end] as body:
                if zlib.crc32(body) == checksum:
                    return Line(data[text:end], severity, time_ns), end
    found = data.find(MARK, at + 1)
    return None, len(data) if found < 0 else found
