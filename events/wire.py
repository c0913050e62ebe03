# SPDX-License-Identifier: Apache-2.0
"""The mirror of events/wire.h: bytes from the kernel to what they are.

A test compiles sizes, offsets and constants of this file against the header.
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .call import (
    RESULT,
    Blob,
    Call,
    CallFlag,
    Chunk,
    CommandCount,
    Image,
    Object,
    ObjectKind,
    PartState,
    ProgramMaps,
)
from .errors import WireError

WIRE_VERSION: Final = 5
ATTR_MAX: Final = 4096
ATTR_INLINE: Final = 192
COMM_LEN: Final = 16
COMMAND_SLOTS: Final = 64
COMMAND_OTHER: Final = COMMAND_SLOTS - 1

RECORD_CALL: Final = 1
RECORD_CHUNK: Final = 2
RECORD_PROCESS: Final = 3

CALL_NO_ROOM: Final = int(CallFlag.NO_ROOM)
CALL_DATA_LOST: Final = int(CallFlag.DATA_LOST)
CALL_NO_ENTRY: Final = int(CallFlag.NO_ENTRY)
CALL_KERNEL: Final = int(CallFlag.KERNEL)
CALL_COMPAT: Final = int(CallFlag.COMPAT)
CALL_SAME_ATTR: Final = int(CallFlag.SAME_ATTR)
CALL_NO_EXIT: Final = int(CallFlag.NO_EXIT)

RING_DATA: Final = 0
RING_CONTROL: Final = 1
RING_VITAL: Final = 2
RING_BULK: Final = 3
RINGS: Final = 4
BULK_SHARES: Final = 16
BULK_WINDOW_NS: Final = 1_000_000_000

PART_ATTR_ENTRY: Final = 1
PART_ATTR_EXIT: Final = 2
PART_OBJECT: Final = 3
PART_RESULT: Final = 4
PART_MEMORY: Final = 5
PART_OBJECT_EXIT: Final = 6
PART_ATTR_KERNEL: Final = 7
PART_MAPS: Final = 8
PROG_MAPS_MAX: Final = 32
PART_ASIDE: Final = 9

PART_CUT: Final = int(PartState.CUT)
PART_UNREADABLE: Final = int(PartState.UNREADABLE)
PART_CHUNKED: Final = int(PartState.CHUNKED)
PART_AT_EXIT: Final = int(PartState.AT_EXIT)
PART_TAIL: Final = int(PartState.TAIL)
PART_KERNEL: Final = int(PartState.KERNEL)

OBJECT_MAP: Final = int(ObjectKind.MAP)
OBJECT_PROG: Final = int(ObjectKind.PROG)
OBJECT_LINK: Final = int(ObjectKind.LINK)
OBJECT_BTF: Final = int(ObjectKind.BTF)
OBJECT_KINDS: Final = 5
OBJECT_NAME_LEN: Final = 16
TAG_LEN: Final = 8

CHUNK_MAX: Final = 4096
EXE_MAX: Final = 2048
ARGS_MAX: Final = 512

PROCESS_KERNEL: Final = 1 << 0
PROCESS_EXE_GONE: Final = 1 << 1
PROCESS_EXE_PSEUDO: Final = 1 << 2
PROCESS_EXE_CUT: Final = 1 << 3
PROCESS_ARGS_CUT: Final = 1 << 4
PROCESS_ARGS_UNREAD: Final = 1 << 5

OWN_ENTRY: Final = 0
OWN_EXIT: Final = 1
OWN_INSIDE: Final = 2
OWN_RETURN: Final = 3
OWN_COPIED: Final = 4
OWN_CHECKED: Final = 5
OWN_OUTCOME: Final = 6
OWN_RUNS: Final = 7

FILTER_PID: Final = 1 << 0
FILTER_UID: Final = 1 << 1
FILTER_COMM: Final = 1 << 2
FILTER_CGROUP: Final = 1 << 3
FILTER_PIDNS: Final = 1 << 4
CGROUPS_MAX: Final = 8
FILTER_LIST_MAX: Final = 256
ANNOUNCE_AGAIN: Final = 1024

TRACE_PROCESS: Final = 1 << 0
TRACE_CHILDREN: Final = 1 << 1
TRACE_NAMED: Final = 1 << 2

SHAPE_BYTES: Final = 0
SHAPE_STRING: Final = 1
SHAPE_STRINGS: Final = 2
SHAPE_LOG: Final = 3
SHAPE_BULK: Final = 4
SHAPES: Final = 5

UNIT_KEY: Final = 0xFFFFFFF1
UNIT_VALUE: Final = 0xFFFFFFF2
UNIT_CURSOR: Final = 0xFFFFFFF3

COUNT_ONE: Final = 0xFFF1
COUNT_RETVAL: Final = 0xFFF2

ROW_ENTRY: Final = 1 << 0
ROW_SUCCESS: Final = 1 << 1
ROW_ENOENT: Final = 1 << 2
ROW_ENOSPC: Final = 1 << 3
ROW_FAILURE: Final = 1 << 4
ROW_NO_LIMIT: Final = 1 << 5
ROW_ASIDE: Final = 1 << 6
ROW_INSIDE: Final = 1 << 7
SLOT_INSIDE: Final = 0x8000

STRING_MAX: Final = 128
FDS_MAX: Final = 6
ROWS_MAX: Final = 12

CALL_RECORD: Final = Struct("=IHHQQqQQQQQQIIIIIIIIIIIIII16s")
"""``struct call_record``: what precedes the parts."""

PART: Final = Struct("=BBHIQ")
"""``struct part``: kind, state, slot, len, wanted."""

OBJECT: Final = Struct("=IIIIIIII16s8s")
"""``struct object``"""

CHUNK_RECORD: Final = Struct("=IIQBBHIII")
"""``struct chunk_record``"""

PROCESS_RECORD: Final = Struct("=IIQQQQIIIIIIHHI16s")
"""``struct process_record``"""

CALL_COUNT: Final = Struct("=QQQ")
"""``struct call_count``"""

TRACED_PROCESS: Final = Struct("=Ii")
"""``struct traced_process``: flags, threads."""

TRACER_CONFIG: Final = Struct("=QIIIIIIQ")
"""``struct tracer_config``: commands, running, filters, self, cgroups, pid_namespace, nsfs,
bulk_size."""

MEMORY_ROW: Final = Struct("=QIIHHHBB")
"""``struct memory_row``: choices, unit, limit, pointer, count, choice, shape, when."""

COMMAND_PLAN: Final = Struct(f"=BBBB{SHAPES}sB{FDS_MAX}HH{ROWS_MAX * MEMORY_ROW.size}s")
"""``struct command_plan``: fd_count, row_count, returns_fd, has_special, special, ring,
fds, value_flags, rows."""

_KIND: Final = Struct("=I")
_ENTRY_NS_AT: Final = CALL_RECORD.size - COMM_LEN - 8
_unpack_times = Struct(f"=8xQQ{_ENTRY_NS_AT - 24}xI").unpack_from
_unpack = CALL_RECORD.unpack_from
_unpack_part = PART.unpack_from
_FIXED = CALL_RECORD.size
_new = tuple.__new__  # as the class itself, but that no argument is looked at once more
_PART = PART.size
_ID = Struct("=I")
_OBJECT_KINDS = frozenset(map(int, ObjectKind))
_NO_OBJECTS: Mapping[int, Object] = MappingProxyType({})
_NO_MEMORY: Mapping[int, Blob] = MappingProxyType({})

Record = Call | Chunk | Image


def parse(record: bytes) -> Record:
    """A record from the ring, with or without padding behind it.

    :raises WireError: its kind is unknown, or it is shorter than it says.
    """
    if len(record) < _KIND.size:
        raise WireError(f"a record of {len(record)} bytes")
    kind = _KIND.unpack_from(record)[0]
    if kind == RECORD_CALL:
        return _call(record)
    if kind == RECORD_CHUNK:
        return _chunk(record)
    if kind == RECORD_PROCESS:
        return _process(record)
    raise WireError(f"a record of unknown kind {kind}")


def record_kind(record: bytes) -> int:
    """``enum record_kind`` of a record from the ring."""
    kind: int = _KIND.unpack_from(record)[0]
    return kind


def returned_ns(record: bytes) -> int:
    """``CLOCK_BOOTTIME`` at which the call of a record returned."""
    start_ns: int
    duration_ns: int
    entry_ns: int
    start_ns, duration_ns, entry_ns = _unpack_times(record)
    return start_ns + duration_ns + entry_ns


def _call(record: bytes) -> Call:
    if len(record) < _FIXED:
        raise WireError(f"a call of {len(record)} bytes; the shortest has {_FIXED}")
    fixed = _unpack(record)
    flags, comm = fixed[1], fixed[-1]
    end = _FIXED + fixed[2]
    if end > len(record):
        raise WireError(f"a record of {len(record)} bytes that claims {end}")
    entry = b""
    objects: dict[int, Object] = {}
    memory: dict[int, Blob] = {}
    others: list[_Part] = []
    at = _FIXED
    while at + _PART <= end:
        kind, state, slot, length, wanted = _unpack_part(record, at)
        at += _PART
        if kind <= PART_ATTR_EXIT:
            held = min(length, ATTR_INLINE)
        else:
            held = 0 if state & PART_CHUNKED else length
        data = record[at : at + held]
        if len(data) < held or at + held > end:
            raise WireError(f"a part of {held} bytes where {end - at} are left")
        at += held + 7 & ~7
        if kind == PART_MEMORY:
            memory[slot] = _new(Blob, (data, wanted, state, length))
        elif kind == PART_ATTR_ENTRY:
            entry = data
        elif kind == PART_OBJECT and held == OBJECT.size:
            objects[slot] = _object(data)
        else:
            others.append(_Part(kind, slot, data, Blob(data, wanted, state, length)))
    same = entry if flags & CALL_SAME_ATTR else None
    parts = (
        comm.partition(b"\0")[0], entry, entry, objects or _NO_OBJECTS, memory or _NO_MEMORY,
        _NO_OBJECTS, same, None, _NO_MEMORY,
    )  # fmt: skip
    call = _new(Call, (flags, *fixed[3:-2], *parts))
    return _with_others(call, others) if others else call


class _Part(NamedTuple):
    """One of those that few calls have."""

    kind: int
    slot: int
    data: bytes
    blob: Blob


def _with_others(call: Call, parts: list[_Part]) -> Call:
    found: dict[str, Any] = {}
    for kind, slot, data, blob in parts:
        if kind == PART_ATTR_EXIT:
            found["exit"] = data
        elif kind == PART_ATTR_KERNEL:
            found.setdefault("kernel", data)
        elif kind == PART_ASIDE:
            found.setdefault("aside", {})[slot] = blob
        elif kind == PART_RESULT and len(data) == OBJECT.size:
            found["objects"] = {**found.get("objects", call.objects), RESULT: _object(data)}
        elif kind == PART_OBJECT_EXIT and len(data) == OBJECT.size:
            found.setdefault("objects_after", {})[slot] = _object(data)
        else:
            found["maps"] = _maps(kind, data, blob.wanted)
    if call.kernel is not None:  # as at entry, whatever else is there
        found.pop("kernel", None)
    return call._replace(**found)


def _maps(kind: int, data: bytes, wanted: int) -> ProgramMaps:
    if kind != PART_MAPS or len(data) % _ID.size:
        raise WireError(f"a part of unknown kind {kind}")
    return ProgramMaps(tuple(number for (number,) in _ID.iter_unpack(data)), wanted)


@lru_cache(maxsize=4096)
def _object(data: bytes) -> Object:
    kind, number, type_, key_size, value_size, entries, prog_id, _, name, tag = OBJECT.unpack(data)
    if kind not in _OBJECT_KINDS:
        raise WireError(f"an object of unknown kind {kind}")
    return Object(kind, number, type_, key_size, value_size, entries, prog_id, _name(name), tag)


def _chunk(record: bytes) -> Chunk:
    if len(record) < CHUNK_RECORD.size:
        raise WireError(f"a chunk of {len(record)} bytes")
    _, tid, start_ns, part, _, slot, offset, length, _ = CHUNK_RECORD.unpack_from(record)
    data = record[CHUNK_RECORD.size : CHUNK_RECORD.size + length]
    if len(data) < length:
        raise WireError(f"a chunk of {len(record)} bytes that claims {length}")
    return Chunk(tid, start_ns, part, slot, offset, data)


def _process(record: bytes) -> Image:
    fixed = PROCESS_RECORD.size
    if len(record) < fixed:
        raise WireError(f"a process of {len(record)} bytes")
    _, *middle, exe_len, args_len, _, parent = PROCESS_RECORD.unpack_from(record)
    if fixed + exe_len + args_len > len(record):
        raise WireError(f"a process of {len(record)} bytes that claims {exe_len} and {args_len}")
    exe = record[fixed : fixed + exe_len]
    args = record[fixed + exe_len : fixed + exe_len + args_len]
    image = Image._make((*middle, _name(parent), exe, args))
    return image._replace(exe=_path(exe, image.flags))


def _path(names: bytes, flags: int) -> bytes:
    # They come from the file to the root.
    parts = names.split(b"\0")[:-1]
    if flags & PROCESS_EXE_PSEUDO:
        return b"".join(parts)
    path = b"/".join(reversed(parts))
    return path if flags & PROCESS_EXE_CUT else b"/" + path if parts else b""


def _name(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def parse_counts(values: bytes) -> CommandCount:
    """The value of one slot of ``counts``: one ``struct call_count`` per possible CPU."""
    seen, lost, incomplete = map(sum, zip(*CALL_COUNT.iter_unpack(values), strict=True))
    return CommandCount(seen, lost, incomplete)
