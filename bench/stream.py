# SPDX-License-Identifier: Apache-2.0
"""A stream of records like those of a busy host, made from bytes.

90 % are lookups and updates of map elements, 9 % other commands, 1 % program loads.
"""

import hashlib
from struct import pack

from bpfsnoop.events.wire import (
    CALL_RECORD,
    CALL_SAME_ATTR,
    CHUNK_RECORD,
    OBJECT,
    OBJECT_MAP,
    OBJECT_PROG,
    PART,
    PART_ATTR_ENTRY,
    PART_CHUNKED,
    PART_MEMORY,
    PART_OBJECT,
    PART_RESULT,
    PROCESS_RECORD,
    RECORD_CALL,
    RECORD_CHUNK,
    RECORD_PROCESS,
)

_ELEM = pack("=I4xQQQ", 5, 0x7FFC37884350, 0x7FFC37884358, 0)
_NEXT_ID = pack("=III", 41, 42, 0)
_INFO = pack("=IIQ", 5, 88, 0x7FFC37884350)
_NEXT_KEY = pack("=I4xQQ", 5, 0x7FFC37884350, 0x7FFC37884358)
_MAP_CREATE = pack("=IIIIIII16sIIIII", 1, 4, 8, 1024, 0, 0, 0, b"sessions", 0, 0, 0, 0, 0)
_PROG_LOAD = pack(
    "=IIQQIIQII16sII", 6, 64, 0x7F00, 0x7F80, 0, 0, 0, 0, 0, b"count_packets", 0, 0
) + bytes(96)

_MIX: tuple[tuple[int, bytes], ...] = (
    *((1, _ELEM),) * 60,
    *((2, _ELEM),) * 30,
    *((11, _NEXT_ID),) * 2,
    *((15, _INFO),) * 3,
    *((4, _NEXT_KEY),) * 3,
    (0, _MAP_CREATE),
    (5, _PROG_LOAD),
)


_MAP = OBJECT.pack(OBJECT_MAP, 12, 1, 4, 8, 1024, 0, 0, b"sessions", b"")
_KEY = (PART_MEMORY, 8, b"\1\2\3\4")
_VALUE = (PART_MEMORY, 16, b"\1\2\3\4\5\6\7\x08")
_BEHIND = (PART_OBJECT, 0, _MAP)
_INSNS = bytes.fromhex("b700000000000000") * 63 + bytes.fromhex("9500000000000000")
_TAG = hashlib.sha256(_INSNS).digest()[:8]  # as the kernel has it, or the load would be suspect
_PROG = OBJECT.pack(OBJECT_PROG, 31, 6, 0, 0, 0, 0, 0, b"count_packets", _TAG)
_PARTS: dict[int, tuple[tuple[int, int, bytes], ...]] = {
    0: ((PART_RESULT, 0, _MAP),),
    1: (_BEHIND, _KEY, _VALUE),
    2: (_BEHIND, _KEY, _VALUE),
    4: (_BEHIND, _KEY, _VALUE),
    5: ((PART_RESULT, 0, _PROG), (PART_MEMORY, 16, b"GPL\0")),
    15: (_BEHIND, (PART_MEMORY, 8, bytes(88))),
}
_BULK = 8, len(_INSNS)  # of a program: where the pointer to it is in attr


def _part(kind: int, slot: int, data: bytes) -> bytes:
    return PART.pack(kind, 0, slot, len(data), len(data)) + data + bytes(-len(data) % 8)


def record(number: int, cmd: int, attr: bytes) -> list[bytes]:
    """The records of one call as the kernel program writes them: itself, and what goes ahead.

    :param number: of the call in its stream; makes the records differ.
    """
    start_ns = 10**12 + number * 1000
    pid = 1000 + number % 50
    parts = _part(PART_ATTR_ENTRY, 0, attr)
    parts += b"".join(_part(*part) for part in _PARTS.get(cmd, ()))
    ahead = []
    if cmd == 5:
        slot, size = _BULK
        parts += PART.pack(PART_MEMORY, PART_CHUNKED, slot, size, size)
        head = CHUNK_RECORD.pack(RECORD_CHUNK, pid, start_ns, PART_MEMORY, 0, slot, 0, size, 0)
        ahead.append(head + _INSNS)
    fixed = CALL_RECORD.pack(
        RECORD_CALL, CALL_SAME_ATTR, len(parts), start_ns, 650, 0, 0x7FFC37884300, 0, 4711,
        10**9, 1, (1 << 41) - 1, 0, cmd, len(attr), pid, pid, 0, 0, 0, 1000,
        4026531836, 4026531841, 4026531837, 700, 0, b"agent",
    )  # fmt: skip
    return [*ahead, fixed + parts]


def process(number: int) -> bytes:
    """The record of a process that is told ahead of its first call."""
    exe, args = b"agent\0bin\0usr\0", b"/usr/bin/agent\0--all\0"
    return PROCESS_RECORD.pack(
        RECORD_PROCESS, 1000 + number, 10**9, 1, 10**8, 77, 1, 0, 0, 0o100755, 8 << 20 | 1,
        4026531841,
        len(exe), len(args), 0, b"systemd",
    ) + exe + args  # fmt: skip


def records(count: int) -> list[bytes]:
    """Those of ``count`` calls of the mix, in an order that repeats every hundred."""
    order = sorted(range(100), key=lambda position: position * 37 % 100)
    stream = [process(number) for number in range(50)]
    for n in range(count):
        stream += record(n, *_MIX[order[n % 100]])
    return stream
