# SPDX-License-Identifier: Apache-2.0
"""The mirror of events/wire.h: bytes from the kernel to :class:`Call`.

A test compiles sizes, offsets and constants of this file against the header.
"""

from struct import Struct
from typing import Final

from .call import Call, CommandCount
from .errors import WireError

WIRE_VERSION: Final = 1
ATTR_MAX: Final = 4096
COMM_LEN: Final = 16
COMMAND_SLOTS: Final = 64
COMMAND_OTHER: Final = COMMAND_SLOTS - 1

RECORD_CALL: Final = 1

FILTER_PID: Final = 1 << 0
FILTER_UID: Final = 1 << 1
FILTER_COMM: Final = 1 << 2

TRACE_PROCESS: Final = 1 << 0
TRACE_CHILDREN: Final = 1 << 1
TRACE_NAMED: Final = 1 << 2

CALL_RECORD: Final = Struct("=IIQQqQQQIIIIIIIII16sI")
"""``struct call_record``: what precedes the two copies of attr."""

CALL_COUNT: Final = Struct("=QQ")
"""``struct call_count``"""

TRACED_PROCESS: Final = Struct("=Ii")
"""``struct traced_process``: flags, threads."""

TRACER_CONFIG: Final = Struct("=QIIII")
"""``struct tracer_config``: commands, running, filters, self, reserved."""

_unpack = CALL_RECORD.unpack_from
_FIXED = CALL_RECORD.size


def parse(record: bytes) -> Call:
    """A record from the ring, with or without padding behind it.

    :raises WireError: its kind is unknown, or it is shorter than it says.
    """
    if len(record) < _FIXED:
        raise WireError(f"a record of {len(record)} bytes; the shortest has {_FIXED}")
    kind, *fixed, entry_len, exit_len, comm, _ = _unpack(record)
    if kind != RECORD_CALL:
        raise WireError(f"a record of unknown kind {kind}")
    middle = _FIXED + entry_len
    end = middle + exit_len
    if end > len(record):
        raise WireError(f"a record of {len(record)} bytes that claims {end}")
    name = comm.partition(b"\0")[0]
    return Call._make((*fixed, name, record[_FIXED:middle], record[middle:end]))


def parse_counts(values: bytes) -> CommandCount:
    """The value of one slot of ``counts``: one ``struct call_count`` per possible CPU."""
    seen = lost = 0
    for cpu_seen, cpu_lost in CALL_COUNT.iter_unpack(values):
        seen += cpu_seen
        lost += cpu_lost
    return CommandCount(seen, lost)
