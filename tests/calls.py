# SPDX-License-Identifier: Apache-2.0
"""Calls as the kernel would have recorded them, for tests that need no kernel."""

import struct
from collections.abc import Mapping
from typing import Any

from bpfsnoop.events.call import (
    RESULT,
    Blob,
    Call,
    CallFlag,
    Image,
    Object,
    ObjectKind,
    PartState,
)
from bpfsnoop.events.process import Missing, Process, Surroundings

ATTR_ADDRESS = 0x7FFD_BADC_0DE8

INLINE = 192
PAGE = 4096
"""As much of an attr or a part as travels in one record, and in one chunk."""


def attr(layout: str, *values: int | bytes) -> bytes:
    """The bytes of a C struct.

    :param layout: of its members, as the ``struct`` module has them. They are
        aligned as C aligns them, so this is a second opinion on every offset.
    """
    return struct.pack(f"@{layout}", *values)


def call_of(
    cmd: int,
    entry: bytes = b"",
    exit_: bytes | None = None,
    *,
    size: int | None = None,
    retval: int = 0,
    attr_addr: int = ATTR_ADDRESS,
    common: tuple[int, int] = (0, 0),
    comm: bytes = b"loader",
    objects: Mapping[int, Object] | None = None,
    memory: Mapping[int, Blob] | None = None,
    flags: int = 0,
) -> Call:
    """A call that passed ``entry``; ``exit_`` is what attr held when it returned.

    :param size: argument 3, if it is not the length of ``entry``.
    :param common: arguments 4 and 5.
    """
    return Call(
        flags=flags,
        start_ns=1_000_000_007,
        duration_ns=31_337,
        retval=retval,
        attr_addr=attr_addr,
        common_addr=common[0],
        cgroup_id=4_242,
        process_start_ns=700_000_003,
        exec_id=5,
        capabilities=1 << 39 | 1 << 38,
        common_size=common[1],
        cmd=cmd,
        size=len(entry) if size is None else size,
        tgid=1_234,
        tid=1_235,
        uid=1_000,
        gid=100,
        euid=7,
        login_uid=1_001,
        pid_namespace=4_026_531_836,
        mount_namespace=4_026_531_841,
        user_namespace=4_026_531_837,
        entry_ns=811,
        comm=comm,
        entry=entry,
        exit=entry if exit_ is None else exit_,
        objects=objects or {},
        memory=memory or {},
        objects_after={},
        kernel=None,
    )


def without_task(call: Call) -> Call:
    """The same on a kernel that has no BTF."""
    return call._replace(
        process_start_ns=0, exec_id=0, capabilities=0, euid=0, login_uid=0,
        pid_namespace=0, mount_namespace=0, user_namespace=0,
    )  # fmt: skip


# --- What came with a call ---------------------------------------------------------------


def blob(
    data: bytes, wanted: int | None = None, state: int = 0, *, read: int | None = None
) -> Blob:
    """Memory of which all was read, unless the arguments say otherwise."""
    wanted = len(data) if wanted is None else wanted
    return Blob(data, wanted, state, len(data) if read is None else read)


def map_of(**changes: Any) -> Object:
    """``map:12 hash "config"``"""
    return Object(ObjectKind.MAP, 12, 1, 4, 8, 1024, 0, b"config", bytes(8))._replace(**changes)


def prog_of(**changes: Any) -> Object:
    """``prog:31 kprobe "watch"``"""
    tag = bytes.fromhex("f0f1f2f3f4f5f6f7")
    return Object(ObjectKind.PROG, 31, 2, 0, 0, 0, 0, b"watch", tag)._replace(**changes)


def link_of(**changes: Any) -> Object:
    """``link:4 perf_event prog:31``"""
    return Object(ObjectKind.LINK, 4, 7, 0, 0, 0, 31, b"", bytes(8))._replace(**changes)


def btf_of(**changes: Any) -> Object:
    """``btf:7``"""
    return Object(ObjectKind.BTF, 7, 0, 0, 0, 0, 0, b"", bytes(8))._replace(**changes)


# --- Who made it -------------------------------------------------------------------------


def image_of(**changes: Any) -> Image:
    """What the process of :func:`call_of` runs."""
    return Image(
        tgid=1_234,
        start_ns=700_000_003,
        exec_id=5,
        parent_start_ns=300_000_001,
        exe_ino=77_001,
        parent_tgid=1_200,
        flags=0,
        exe_uid=0,
        exe_mode=0o100755,
        exe_dev=8 << 20 | 1,
        exe_mount_namespace=4_026_531_841,
        parent_comm=b"bash",
        exe=b"/usr/bin/loader",
        args=b"loader\0-v\0x\0",
    )._replace(**changes)


def process_of(
    call: Call,
    image: Image | None = None,
    surroundings: Surroundings | None = None,
    untold: Missing = Missing.NOT_TOLD,
) -> Process:
    """The process of the call, of which nobody said more than the arguments do."""
    return Process(call.tgid, call.process_start_ns, image, surroundings, untold)


# --- As the kernel program writes it -----------------------------------------------------
# A second opinion on events/wire.py: C's alignment, and numbers as wire.h has them.

CALL_LAYOUT = "@IHHQQqQQQQQQ13I4x16s"
_PART = "@BBHIQ"
_OBJECT = "@8I16s8s"
_CHUNK = "@IIQBBHIII"
_PROCESS = "@IIQQQQ6IHHI16s"


def records_of(call: Call) -> list[bytes]:
    """The records that say what the call does: chunks, and behind them the call."""
    chunks: list[bytes] = []
    parts = _attr_part(call, 1, call.entry, chunks)
    if call.exit != call.entry or len(call.entry) > INLINE:
        parts += _attr_part(call, 2, call.exit, chunks)
    for slot, found in call.objects.items():
        kind, at = (4, 0) if slot == RESULT else (3, slot)
        parts += part(kind, object_bytes(found), slot=at)
    if call.kernel is not None and not call.flags & CallFlag.SAME_ATTR:
        parts += part(7, call.kernel)
    for slot, found in call.objects_after.items():
        parts += part(6, object_bytes(found), slot=slot)
    if call.maps is not None:
        ids = call.maps.ids
        parts += part(8, struct.pack(f"{len(ids)}I", *ids), wanted=call.maps.total)
    for kind, blobs in (5, call.memory), (9, call.aside):
        for slot, memory in blobs.items():
            data = memory.data
            if memory.state & PartState.CHUNKED:
                chunks += chunks_of(call, kind, slot, data)
                data = b""
            parts += part(
                kind, data, slot=slot, state=memory.state, length=memory.read,
                wanted=memory.wanted,
            )  # fmt: skip
    return [*chunks, call_record(call, parts)]


def record_of(call: Call) -> bytes:
    """The record of a call that needs no chunks."""
    (record,) = records_of(call)
    return record


def call_record(call: Call, parts: bytes) -> bytes:
    flags, *fixed, comm, _, _, _, _, _, _, _, _ = call
    return struct.pack(CALL_LAYOUT, 1, flags, len(parts), *fixed, comm) + parts


def part(
    kind: int,
    data: bytes,
    *,
    slot: int = 0,
    state: int = 0,
    length: int | None = None,
    wanted: int | None = None,
) -> bytes:
    """One part, padded as the next one needs it."""
    length = len(data) if length is None else length
    head = struct.pack(_PART, kind, state, slot, length, length if wanted is None else wanted)
    return head + data + bytes(-len(data) % 8)


def object_bytes(found: Object) -> bytes:
    *numbers, name, tag = found
    return struct.pack(_OBJECT, *numbers, 0, name, tag)


def chunk_record(call: Call, kind: int, slot: int, offset: int, data: bytes) -> bytes:
    head = struct.pack(_CHUNK, 2, call.tid, call.start_ns, kind, 0, slot, offset, len(data), 0)
    return head + data


def chunks_of(call: Call, kind: int, slot: int, data: bytes, start: int = 0) -> list[bytes]:
    """The data as chunks of a page."""
    return [
        chunk_record(call, kind, slot, at, data[at : at + PAGE])
        for at in range(start, len(data), PAGE)
    ]


def process_record(image: Image) -> bytes:
    """:param image: with a plain path as its executable."""
    names = b"".join(name + b"\0" for name in reversed(image.exe.split(b"/")[1:]))
    *numbers, parent_comm, _, args = image
    head = struct.pack(
        _PROCESS, 3, *numbers, len(names), len(args), 0, parent_comm
    )  # fmt: skip
    return head + names + args


def _attr_part(call: Call, kind: int, data: bytes, chunks: list[bytes]) -> bytes:
    if len(data) > INLINE:
        chunks += chunks_of(call, kind, 0, data, INLINE)
    state = PartState.CHUNKED if len(data) > INLINE else 0
    return part(kind, data[:INLINE], state=state, length=len(data), wanted=call.size)
