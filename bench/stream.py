# SPDX-License-Identifier: Apache-2.0
"""A stream of records like those of a busy host, made from bytes.

90 % are lookups and updates of map elements, 9 % other commands, 1 % program loads.
"""

from struct import pack

from bpfsnoop.events.wire import CALL_RECORD, RECORD_CALL

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


def record(number: int, cmd: int, attr: bytes) -> bytes:
    """One record as the kernel program writes it.

    :param number: of the call in its stream; makes the records differ.
    """
    size = len(attr)
    fixed = CALL_RECORD.pack(
        RECORD_CALL, number % 8, 10**12 + number * 1000, 650, 0, 4711, 0x7FFC37884300,
        0, 0, cmd, size, 1000 + number % 50, 1000 + number % 50, 0, 0, size, size,
        b"agent", 0,
    )  # fmt: skip
    return fixed + attr + attr


def records(count: int) -> list[bytes]:
    """``count`` records of the mix, in an order that repeats every hundred."""
    order = sorted(range(100), key=lambda position: position * 37 % 100)
    return [record(n, *_MIX[order[n % 100]]) for n in range(count)]
