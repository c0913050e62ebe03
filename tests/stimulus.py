# SPDX-License-Identifier: Apache-2.0
"""Real bpf(2) calls, made with nothing but ctypes: what the live tests let the tracer see.

No libbpf, no BCC, nothing of bpfsnoop: whoever checks the tracer must not share its tables.
One function of this module is one bpf(2) call, no more and no less: nothing probes, retries or
asks behind the caller's back, so that tests can count.

As a program it makes known calls in a process of its own and prints them as JSON lines::

    python tests/stimulus.py count 23
"""

import argparse
import ctypes
import json
import mmap
import os
import platform
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]

# enum bpf_cmd
BPF_MAP_CREATE = 0
BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_MAP_GET_NEXT_KEY = 4
BPF_PROG_LOAD = 5
BPF_OBJ_PIN = 6
BPF_OBJ_GET = 7
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_TEST_RUN = 10
BPF_PROG_GET_NEXT_ID = 11
BPF_MAP_GET_NEXT_ID = 12
BPF_PROG_GET_FD_BY_ID = 13
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_PROG_QUERY = 16
BPF_RAW_TRACEPOINT_OPEN = 17
BPF_BTF_LOAD = 18
BPF_BTF_GET_FD_BY_ID = 19
BPF_TASK_FD_QUERY = 20
BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21
BPF_MAP_FREEZE = 22
BPF_BTF_GET_NEXT_ID = 23
BPF_MAP_LOOKUP_BATCH = 24
BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25
BPF_MAP_UPDATE_BATCH = 26
BPF_MAP_DELETE_BATCH = 27
BPF_LINK_CREATE = 28
BPF_LINK_UPDATE = 29
BPF_LINK_GET_FD_BY_ID = 30
BPF_LINK_GET_NEXT_ID = 31
BPF_ENABLE_STATS = 32
BPF_ITER_CREATE = 33
BPF_LINK_DETACH = 34
BPF_PROG_BIND_MAP = 35
BPF_TOKEN_CREATE = 36
BPF_PROG_STREAM_READ_BY_FD = 37
BPF_PROG_ASSOC_STRUCT_OPS = 38
BPF_COMMON_ATTRS = 1 << 16

# enum bpf_map_type
BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2

# enum bpf_prog_type
BPF_PROG_TYPE_SOCKET_FILTER = 1
BPF_PROG_TYPE_XDP = 6
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
BPF_PROG_TYPE_FLOW_DISSECTOR = 22

# enum bpf_attach_type
BPF_FLOW_DISSECTOR = 17
BPF_XDP = 37

# enum bpf_stats_type
BPF_STATS_RUN_TIME = 0

# enum bpf_func_id
BPF_FUNC_map_lookup_elem = 1

# enum xdp_action
XDP_PASS = 2

# sched.h, sys/mount.h, sys/prctl.h
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
PR_SET_NAME = 15
PROT_NONE = 0

PAGE_SIZE = mmap.PAGESIZE
LO_IFINDEX = 1  # the first interface of every network namespace
COMM_LEN = 16

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

Buffer = ctypes.Array[ctypes.c_char]
Value = int | bytes | Buffer


# The system call.

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 5


class MadeCall(NamedTuple):
    """One bpf(2) call that was made, its fields named as in events/call.py."""

    cmd: int
    size: int
    retval: int
    """``>= 0``, or ``-errno``."""
    attr_addr: int
    entry: bytes
    """The readable part of attr before the call: at most ``size`` bytes."""
    exit: bytes
    """The same after it."""
    common_addr: int
    common_size: int
    tgid: int
    tid: int

    def check(self) -> "MadeCall":
        """Itself, or OSError if the call failed."""
        if self.retval < 0:
            raise OSError(-self.retval, f"bpf command {self.cmd}: {os.strerror(-self.retval)}")
        return self

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "entry": self.entry.hex(), "exit": self.exit.hex()}


_recordings: list[list[MadeCall]] = []


@contextmanager
def recorded() -> Iterator[list[MadeCall]]:
    """Collect every call this module makes meanwhile, in order; :func:`raw_bpf` stays apart."""
    calls: list[MadeCall] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings.pop()


def raw_bpf(cmd: int, address: int, size: int, arg4: int = 0, arg5: int = 0) -> int:
    """The bare system call, all 64 bits of each argument: its result, or ``-errno``."""
    result: int = _libc.syscall(SYS_BPF, cmd, address, size, arg4, arg5)
    return result if result >= 0 else -ctypes.get_errno()


def call(
    cmd: int, attr: bytes, size: int | None = None, common: tuple[int, int] | None = None
) -> MadeCall:
    """Make one bpf(2) call and report it; a failure is a result like any other.

    :param size: told to the kernel instead of ``len(attr)``; zeros fill what attr lacks
    :param common: address and size of a ``struct bpf_common_attr``: arguments 4 and 5
    """
    size = len(attr) if size is None else size
    memory = ctypes.create_string_buffer(attr, max(len(attr), size, 1))
    address = ctypes.addressof(memory)
    entry = memory.raw[:size]
    retval = raw_bpf(cmd, address, size, *(common or ()))
    made = MadeCall(
        cmd, size, retval, address, entry, memory.raw[:size],
        *(common or (0, 0)), os.getpid(), threading.get_native_id(),
    )  # fmt: skip
    for calls in _recordings:
        calls.append(made)
    return made


def bpf(
    cmd: int, attr: bytes, size: int | None = None, common: tuple[int, int] | None = None
) -> int:
    """:func:`call` for those who only want the result, and OSError if there is none."""
    return call(cmd, attr, size, common).check().retval


def attempt(
    function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
) -> _Result | None:
    """What the function returns, or None where the kernel refuses."""
    try:
        return function(*args, **kwargs)
    except OSError:
        return None


# union bpf_attr: its members in its order, each as long as its last field.


class Attr(bytes):
    """The bytes of an attr, and the memory they point to: alive as long as they are."""

    memory: tuple[Buffer, ...]

    def __new__(cls, data: bytes, memory: tuple[Buffer, ...]) -> Self:
        attr = super().__new__(cls, data)
        attr.memory = memory
        return attr


_SIZES = {"u32": 4, "s32": 4, "u64": 8, "ptr": 8, "char16": 16}


class Struct:
    """A C struct declared as in C: ``u32 map_fd, flags``, with ``|`` between union members."""

    def __init__(self, declaration: str) -> None:
        self.size = 0
        self.fields: dict[str, tuple[int, str]] = {}
        for line in declaration.strip().splitlines():
            kind, names = line.split(maxsplit=1)
            for name in names.split(","):
                self._append(kind, name)

    def _append(self, kind: str, names: str) -> None:
        size = _SIZES[kind]
        alignment = 1 if kind == "char16" else size
        offset = -(-self.size // alignment) * alignment
        for name in names.split("|"):
            self.fields[name.strip()] = (offset, kind)
        self.size = offset + size

    def pack(self, **values: Value) -> Attr:
        """The struct with these values and zeros; bytes in a ``ptr`` become memory pointed to."""
        data = bytearray(self.size)
        memory = []
        for name, given in values.items():
            offset, kind = self.fields[name]
            size = _SIZES[kind]
            value = given
            if kind == "ptr" and isinstance(value, bytes):
                value = ctypes.create_string_buffer(value)
            if isinstance(value, ctypes.Array):
                memory.append(value)
                value = ctypes.addressof(value)
            if isinstance(value, int):
                value = (value & ((1 << 8 * size) - 1)).to_bytes(size, sys.byteorder)
            if len(value) > size:
                raise ValueError(f"{name} has room for {size} bytes")
            data[offset : offset + len(value)] = value
        return Attr(bytes(data), tuple(memory))

    def get(self, data: bytes, name: str) -> int:
        """The unsigned number in a field."""
        offset, kind = self.fields[name]
        return int.from_bytes(data[offset : offset + _SIZES[kind]], sys.byteorder)


MAP_CREATE = Struct("""
    u32 map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node
    char16 map_name
    u32 map_ifindex, btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id
    u64 map_extra
    s32 value_type_btf_obj_fd, map_token_fd
    ptr excl_prog_hash
    u32 excl_prog_hash_size
""")
MAP_ELEM = Struct("""
    u32 map_fd
    ptr key, value|next_key
    u64 flags
""")
MAP_FREEZE = Struct("""
    u32 map_fd
""")
BATCH = Struct("""
    ptr in_batch, out_batch, keys, values
    u32 count, map_fd
    u64 elem_flags, flags
""")
PROG_LOAD = Struct("""
    u32 prog_type, insn_cnt
    ptr insns, license
    u32 log_level, log_size
    ptr log_buf
    u32 kern_version, prog_flags
    char16 prog_name
    u32 prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size
    ptr func_info
    u32 func_info_cnt, line_info_rec_size
    ptr line_info
    u32 line_info_cnt, attach_btf_id, attach_prog_fd|attach_btf_obj_fd, core_relo_cnt
    ptr fd_array, core_relos
    u32 core_relo_rec_size, log_true_size
    s32 prog_token_fd
    u32 fd_array_cnt
    ptr signature
    u32 signature_size
    s32 keyring_id
""")
OBJ_PIN = Struct("""
    ptr pathname
    u32 bpf_fd, file_flags
    s32 path_fd
""")
PROG_ATTACH = Struct("""
    u32 target_fd|target_ifindex, attach_bpf_fd, attach_type, attach_flags, replace_bpf_fd
    u32 relative_fd|relative_id
    u64 expected_revision
""")
TEST = Struct("""
    u32 prog_fd, retval, data_size_in, data_size_out
    ptr data_in, data_out
    u32 repeat, duration, ctx_size_in, ctx_size_out
    ptr ctx_in, ctx_out
    u32 flags, cpu, batch_size
""")
GET_ID = Struct("""
    u32 start_id|prog_id|map_id|btf_id|link_id, next_id, open_flags
    s32 fd_by_id_token_fd
""")
INFO = Struct("""
    u32 bpf_fd, info_len
    ptr info
""")
QUERY = Struct("""
    u32 target_fd|target_ifindex, attach_type, query_flags, attach_flags
    ptr prog_ids
    u32 prog_cnt|count
    ptr prog_attach_flags, link_ids, link_attach_flags
    u64 revision
""")
RAW_TRACEPOINT = Struct("""
    ptr name
    u32 prog_fd
    u64 cookie
""")
BTF_LOAD = Struct("""
    ptr btf, btf_log_buf
    u32 btf_size, btf_log_size, btf_log_level, btf_log_true_size, btf_flags
    s32 btf_token_fd
""")
TASK_FD_QUERY = Struct("""
    u32 pid, fd, flags, buf_len
    ptr buf
    u32 prog_id, fd_type
    u64 probe_offset, probe_addr
""")
LINK_CREATE = Struct("""
    u32 prog_fd|map_fd, target_fd|target_ifindex, attach_type, flags
""")
_RELATIVE = Struct("""
    u32 relative_fd|relative_id
    u64 expected_revision
""")
LINK_CREATE_ARMS = {
    "target_btf_id": Struct("""
        u32 target_btf_id
    """),
    "iter": Struct("""
        ptr iter_info
        u32 iter_info_len
    """),
    "perf_event": Struct("""
        u64 bpf_cookie
    """),
    "kprobe_multi": Struct("""
        u32 flags, cnt
        ptr syms, addrs, cookies
    """),
    "tracing": Struct("""
        u32 target_btf_id
        u64 cookie
    """),
    "netfilter": Struct("""
        u32 pf, hooknum
        s32 priority
        u32 flags
    """),
    "tcx": _RELATIVE,
    "uprobe_multi": Struct("""
        ptr path, offsets, ref_ctr_offsets, cookies
        u32 cnt, flags, pid, path_fd
    """),
    "netkit": _RELATIVE,
    "cgroup": _RELATIVE,
    "tracing_multi": Struct("""
        ptr ids, cookies
        u32 cnt
    """),
}
LINK_UPDATE = Struct("""
    u32 link_fd, new_prog_fd|new_map_fd, flags, old_prog_fd|old_map_fd
""")
LINK_DETACH = Struct("""
    u32 link_fd
""")
ENABLE_STATS = Struct("""
    u32 type
""")
ITER_CREATE = Struct("""
    u32 link_fd, flags
""")
PROG_BIND_MAP = Struct("""
    u32 prog_fd, map_fd, flags
""")
TOKEN_CREATE = Struct("""
    u32 flags, bpffs_fd
""")
PROG_STREAM_READ = Struct("""
    ptr stream_buf
    u32 stream_buf_len, stream_id, prog_fd
""")
PROG_ASSOC_STRUCT_OPS = Struct("""
    u32 map_fd, prog_fd, flags
""")
COMMON_ATTR = Struct("""
    ptr log_buf
    u32 log_size, log_level, log_true_size
""")


# The commands, in the order of enum bpf_cmd. Each takes the fields it needs; the others by name.


def map_create(
    map_type: int, key_size: int, value_size: int, max_entries: int, **fields: Value
) -> int:
    return bpf(
        BPF_MAP_CREATE,
        MAP_CREATE.pack(
            map_type=map_type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            **fields,
        ),
    )


def _lookup(cmd: int, map_fd: int, key: bytes, value_size: int, flags: int) -> bytes:
    value = ctypes.create_string_buffer(value_size)
    bpf(cmd, MAP_ELEM.pack(map_fd=map_fd, key=key, value=value, flags=flags))
    return value.raw


def map_lookup_elem(map_fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes:
    return _lookup(BPF_MAP_LOOKUP_ELEM, map_fd, key, value_size, flags)


def map_update_elem(map_fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    bpf(BPF_MAP_UPDATE_ELEM, MAP_ELEM.pack(map_fd=map_fd, key=key, value=value, flags=flags))


def map_delete_elem(map_fd: int, key: bytes) -> None:
    bpf(BPF_MAP_DELETE_ELEM, MAP_ELEM.pack(map_fd=map_fd, key=key))


def map_get_next_key(map_fd: int, key: bytes | None, key_size: int) -> bytes:
    """The key after this one, the first one after None; ENOENT after the last."""
    following = ctypes.create_string_buffer(key_size)
    attr = MAP_ELEM.pack(map_fd=map_fd, key=0 if key is None else key, next_key=following)
    bpf(BPF_MAP_GET_NEXT_KEY, attr)
    return following.raw


def prog_load(prog_type: int, insns: bytes, log: Buffer | None = None, **fields: Value) -> int:
    """Load instructions, under the GPL unless ``license`` says otherwise.

    :param log: filled by the verifier, also when it says no
    """
    return bpf(BPF_PROG_LOAD, prog_load_attr(prog_type, insns, log, **fields))


def prog_load_attr(
    prog_type: int, insns: bytes, log: Buffer | None = None, **fields: Value
) -> Attr:
    if log is not None:
        fields = {"log_level": 1, "log_size": len(log), "log_buf": log, **fields}
    return PROG_LOAD.pack(
        prog_type=prog_type,
        insn_cnt=len(insns) // INSN_SIZE,
        insns=insns,
        **{"license": b"GPL", **fields},
    )


def obj_pin(pathname: str | bytes, bpf_fd: int, **fields: Value) -> None:
    bpf(BPF_OBJ_PIN, OBJ_PIN.pack(pathname=os.fsencode(pathname), bpf_fd=bpf_fd, **fields))


def obj_get(pathname: str | bytes, **fields: Value) -> int:
    return bpf(BPF_OBJ_GET, OBJ_PIN.pack(pathname=os.fsencode(pathname), **fields))


def _attach(
    cmd: int, target_fd: int, attach_bpf_fd: int, attach_type: int, fields: dict[str, Value]
) -> None:
    attr = PROG_ATTACH.pack(
        target_fd=target_fd, attach_bpf_fd=attach_bpf_fd, attach_type=attach_type, **fields
    )
    bpf(cmd, attr)


def prog_attach(target_fd: int, attach_bpf_fd: int, attach_type: int, **fields: Value) -> None:
    """Attach a program without a link.

    :param target_fd: or target_ifindex
    """
    _attach(BPF_PROG_ATTACH, target_fd, attach_bpf_fd, attach_type, fields)


def prog_detach(target_fd: int, attach_bpf_fd: int, attach_type: int, **fields: Value) -> None:
    """Detach such a program.

    :param target_fd: or target_ifindex
    """
    _attach(BPF_PROG_DETACH, target_fd, attach_bpf_fd, attach_type, fields)


def prog_test_run(prog_fd: int, data_in: bytes, **fields: Value) -> int:
    """What the program returned."""
    attr = TEST.pack(prog_fd=prog_fd, data_in=data_in, data_size_in=len(data_in), **fields)
    return TEST.get(call(BPF_PROG_TEST_RUN, attr).check().exit, "retval")


def _next_id(cmd: int, start_id: int) -> int:
    """ENOENT after the last id."""
    return GET_ID.get(call(cmd, GET_ID.pack(start_id=start_id)).check().exit, "next_id")


def prog_get_next_id(start_id: int) -> int:
    return _next_id(BPF_PROG_GET_NEXT_ID, start_id)


def map_get_next_id(start_id: int) -> int:
    return _next_id(BPF_MAP_GET_NEXT_ID, start_id)


def prog_get_fd_by_id(prog_id: int, **fields: Value) -> int:
    return bpf(BPF_PROG_GET_FD_BY_ID, GET_ID.pack(prog_id=prog_id, **fields))


def map_get_fd_by_id(map_id: int, **fields: Value) -> int:
    return bpf(BPF_MAP_GET_FD_BY_ID, GET_ID.pack(map_id=map_id, **fields))


def obj_get_info_by_fd(bpf_fd: int, info_len: int = 256) -> bytes:
    """The struct of the object's kind, as long as this kernel knows it."""
    info = ctypes.create_string_buffer(info_len)
    attr = INFO.pack(bpf_fd=bpf_fd, info_len=info_len, info=info)
    made = call(BPF_OBJ_GET_INFO_BY_FD, attr).check()
    return info.raw[: INFO.get(made.exit, "info_len")]


def prog_query(target_fd: int, attach_type: int, room: int = 64, **fields: Value) -> list[int]:
    """The ids of at most ``room`` programs.

    :param target_fd: or target_ifindex
    """
    ids = ctypes.create_string_buffer(4 * room)
    attr = QUERY.pack(
        target_fd=target_fd, attach_type=attach_type, prog_ids=ids, prog_cnt=room, **fields
    )
    made = call(BPF_PROG_QUERY, attr).check()
    return list(struct.unpack_from(f"={QUERY.get(made.exit, 'prog_cnt')}I", ids))


def raw_tracepoint_open(name: bytes | None, prog_fd: int, cookie: int = 0) -> int:
    attr = RAW_TRACEPOINT.pack(name=0 if name is None else name, prog_fd=prog_fd, cookie=cookie)
    return bpf(BPF_RAW_TRACEPOINT_OPEN, attr)


def btf_load(btf: bytes, **fields: Value) -> int:
    return bpf(BPF_BTF_LOAD, BTF_LOAD.pack(btf=btf, btf_size=len(btf), **fields))


def btf_get_fd_by_id(btf_id: int, **fields: Value) -> int:
    return bpf(BPF_BTF_GET_FD_BY_ID, GET_ID.pack(btf_id=btf_id, **fields))


def task_fd_query(pid: int, fd: int, room: int = 64) -> tuple[bytes, int, int]:
    """What the perf event or raw tracepoint is attached to, prog_id and fd_type."""
    buf = ctypes.create_string_buffer(room)
    attr = TASK_FD_QUERY.pack(pid=pid, fd=fd, buf=buf, buf_len=room)
    made = call(BPF_TASK_FD_QUERY, attr).check()
    get = TASK_FD_QUERY.get
    return buf.value, get(made.exit, "prog_id"), get(made.exit, "fd_type")


def map_lookup_and_delete_elem(map_fd: int, key: bytes, value_size: int, flags: int = 0) -> bytes:
    return _lookup(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map_fd, key, value_size, flags)


def map_freeze(map_fd: int) -> None:
    bpf(BPF_MAP_FREEZE, MAP_FREEZE.pack(map_fd=map_fd))


def btf_get_next_id(start_id: int) -> int:
    return _next_id(BPF_BTF_GET_NEXT_ID, start_id)


def _lookup_batch(
    cmd: int, map_fd: int, sizes: tuple[int, int], count: int, fields: dict[str, Value]
) -> tuple[bytes, bytes]:
    key_size, value_size = sizes
    keys = ctypes.create_string_buffer(key_size * count)
    values = ctypes.create_string_buffer(value_size * count)
    # A hash table's position is a __u32, that of other maps a key.
    out_batch = ctypes.create_string_buffer(max(4, key_size))
    attr = BATCH.pack(
        map_fd=map_fd, keys=keys, values=values, count=count, **{"out_batch": out_batch, **fields}
    )
    done = BATCH.get(call(cmd, attr).check().exit, "count")
    return keys.raw[: key_size * done], values.raw[: value_size * done]


def map_lookup_batch(
    map_fd: int, key_size: int, value_size: int, count: int, **fields: Value
) -> tuple[bytes, bytes]:
    """At most ``count`` keys and their values; ENOENT with the last of them."""
    return _lookup_batch(BPF_MAP_LOOKUP_BATCH, map_fd, (key_size, value_size), count, fields)


def map_lookup_and_delete_batch(
    map_fd: int, key_size: int, value_size: int, count: int, **fields: Value
) -> tuple[bytes, bytes]:
    """The same, and they are gone."""
    cmd = BPF_MAP_LOOKUP_AND_DELETE_BATCH
    return _lookup_batch(cmd, map_fd, (key_size, value_size), count, fields)


def map_update_batch(map_fd: int, keys: bytes, values: bytes, count: int, **fields: Value) -> None:
    attr = BATCH.pack(map_fd=map_fd, keys=keys, values=values, count=count, **fields)
    bpf(BPF_MAP_UPDATE_BATCH, attr)


def map_delete_batch(map_fd: int, keys: bytes, count: int, **fields: Value) -> None:
    bpf(BPF_MAP_DELETE_BATCH, BATCH.pack(map_fd=map_fd, keys=keys, count=count, **fields))


def link_create(
    prog_fd: int, target_fd: int, attach_type: int, flags: int = 0, **arm: dict[str, Value]
) -> int:
    """Attach by a link.

    :param target_fd: or target_ifindex
    :param arm: one of LINK_CREATE_ARMS: ``tracing={"cookie": 7}``
    """
    attr = LINK_CREATE.pack(
        prog_fd=prog_fd, target_fd=target_fd, attach_type=attach_type, flags=flags
    )
    for name, fields in arm.items():
        tail = LINK_CREATE_ARMS[name].pack(**fields)
        attr = Attr(attr + tail, attr.memory + tail.memory)
    return bpf(BPF_LINK_CREATE, attr)


def link_update(link_fd: int, new_prog_fd: int, **fields: Value) -> None:
    bpf(BPF_LINK_UPDATE, LINK_UPDATE.pack(link_fd=link_fd, new_prog_fd=new_prog_fd, **fields))


def link_get_fd_by_id(link_id: int, **fields: Value) -> int:
    return bpf(BPF_LINK_GET_FD_BY_ID, GET_ID.pack(link_id=link_id, **fields))


def link_get_next_id(start_id: int) -> int:
    return _next_id(BPF_LINK_GET_NEXT_ID, start_id)


def enable_stats(stats_type: int) -> int:
    """Statistics are on, for the whole host, until the descriptor is closed."""
    return bpf(BPF_ENABLE_STATS, ENABLE_STATS.pack(type=stats_type))


def iter_create(link_fd: int, flags: int = 0) -> int:
    return bpf(BPF_ITER_CREATE, ITER_CREATE.pack(link_fd=link_fd, flags=flags))


def link_detach(link_fd: int) -> None:
    bpf(BPF_LINK_DETACH, LINK_DETACH.pack(link_fd=link_fd))


def prog_bind_map(prog_fd: int, map_fd: int, flags: int = 0) -> None:
    bpf(BPF_PROG_BIND_MAP, PROG_BIND_MAP.pack(prog_fd=prog_fd, map_fd=map_fd, flags=flags))


def token_create(bpffs_fd: int, flags: int = 0) -> int:
    return bpf(BPF_TOKEN_CREATE, TOKEN_CREATE.pack(bpffs_fd=bpffs_fd, flags=flags))


def prog_stream_read_by_fd(prog_fd: int, stream_id: int, room: int = 64) -> bytes:
    buf = ctypes.create_string_buffer(room)
    attr = PROG_STREAM_READ.pack(
        prog_fd=prog_fd, stream_id=stream_id, stream_buf=buf, stream_buf_len=room
    )
    return buf.raw[: bpf(BPF_PROG_STREAM_READ_BY_FD, attr)]


def prog_assoc_struct_ops(map_fd: int, prog_fd: int, flags: int = 0) -> None:
    attr = PROG_ASSOC_STRUCT_OPS.pack(map_fd=map_fd, prog_fd=prog_fd, flags=flags)
    bpf(BPF_PROG_ASSOC_STRUCT_OPS, attr)


# Instructions: the macros of the kernel's include/linux/filter.h. Programs are their sum.

INSN_SIZE = 8
BPF_PSEUDO_MAP_FD = 1
BPF_REG_0, BPF_REG_1, BPF_REG_2, BPF_REG_3 = range(4)
BPF_REG_10 = 10
BPF_W, BPF_DW = 0x00, 0x18
BPF_ADD, BPF_JEQ = 0x00, 0x10


def raw_insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, off, imm)


def mov64_imm(dst: int, imm: int) -> bytes:
    return raw_insn(0xB7, dst, imm=imm)


def mov64_reg(dst: int, src: int) -> bytes:
    return raw_insn(0xBF, dst, src)


def alu64_imm(op: int, dst: int, imm: int) -> bytes:
    return raw_insn(0x07 | op, dst, imm=imm)


def jmp_imm(op: int, dst: int, imm: int, off: int) -> bytes:
    return raw_insn(0x05 | op, dst, off=off, imm=imm)


def ldx_mem(size: int, dst: int, src: int, off: int) -> bytes:
    return raw_insn(0x61 | size, dst, src, off)


def st_mem(size: int, dst: int, off: int, imm: int) -> bytes:
    return raw_insn(0x62 | size, dst, off=off, imm=imm)


def atomic_op(size: int, op: int, dst: int, src: int, off: int) -> bytes:
    return raw_insn(0xC3 | size, dst, src, off, op)


def ld_map_fd(dst: int, map_fd: int) -> bytes:
    return raw_insn(0x18, dst, BPF_PSEUDO_MAP_FD, imm=map_fd) + raw_insn(0)


def emit_call(func_id: int) -> bytes:
    return raw_insn(0x85, imm=func_id)


def exit_insn() -> bytes:
    return raw_insn(0x95)


RETURN_0 = mov64_imm(BPF_REG_0, 0) + exit_insn()


def minimal_btf() -> bytes:
    """BTF that holds one type: int."""
    kind_int, encoding_signed = 1, 1
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, kind_int << 24, 4, encoding_signed << 24 | 32)
    magic, version, flags, header_len = 0xEB9F, 1, 0, 24
    header = struct.pack(
        "=HBBIIIII", magic, version, flags, header_len, 0, len(types), len(types), len(strings)
    )
    return header + types + strings


# Memory for the edges.


def _checked(function: Callable[..., int], *args: object) -> None:
    if function(*args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Page:
    """A page of memory, and behind it one that faults."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * PAGE_SIZE)
        self.address = _address(self._memory)
        self.end = self.address + PAGE_SIZE
        # Not munmap: the next allocation of any thread would fill so handy a hole.
        _checked(_libc.mprotect, ctypes.c_void_p(self.end), ctypes.c_size_t(PAGE_SIZE), PROT_NONE)

    def put_at_end(self, data: bytes, beyond: int = 0) -> int:
        """Lay data out so that its last ``beyond`` bytes fall on the other page: its address."""
        start = PAGE_SIZE - len(data) + beyond
        self._memory[start:PAGE_SIZE] = data[: len(data) - beyond]
        return self.address + start


class UntouchedPage:
    """Data in a page that the process has mapped but not yet touched.

    The kernel can fault it in; a BPF program, which must not sleep, cannot.
    """

    def __init__(self, data: bytes) -> None:
        fd = os.memfd_create("untouched")
        try:
            os.write(fd, data.ljust(PAGE_SIZE, b"\0"))
            self._memory = mmap.mmap(fd, PAGE_SIZE)
        finally:
            os.close(fd)
        self.address = _address(self._memory)


# Surroundings.


@contextmanager
def closed(*fds: int) -> Iterator[None]:
    """Close these descriptors afterwards."""
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


@contextmanager
def _unshared(namespace: str, flag: int) -> Iterator[None]:
    """Move the calling thread into a new namespace and, afterwards, back."""
    with ExitStack() as opened:
        home = os.open(f"/proc/thread-self/ns/{namespace}", os.O_RDONLY)
        opened.callback(os.close, home)
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, directory)
        _checked(_libc.unshare, flag)
        # They run last one first: entering a mount namespace leads to its root directory.
        opened.callback(os.fchdir, directory)
        opened.callback(_checked, _libc.setns, home, flag)
        yield


@contextmanager
def private_bpffs(directory: str = "/sys/fs/bpf") -> Iterator[str]:
    """An empty BPF file system that only the calling thread sees, gone afterwards."""
    with _unshared("mnt", CLONE_NEWNS):
        _checked(_libc.mount, None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        _checked(_libc.mount, b"bpf", os.fsencode(directory), b"bpf", ctypes.c_ulong(0), None)
        yield directory


@contextmanager
def private_netns() -> Iterator[None]:
    """A network that holds nothing but ``lo``: what is attached to it harms nobody."""
    with _unshared("net", CLONE_NEWNET):
        yield


def cgroup_root() -> Path:
    """Where cgroup2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise OSError("no cgroup2 file system is mounted")


@contextmanager
def temporary_cgroup(parent: Path | None = None) -> Iterator[Path]:
    """A cgroup of our own; whoever is still in it afterwards goes to where we are."""
    path = Path(tempfile.mkdtemp(prefix="bpfsnoop-test-", dir=parent or cgroup_root()))
    try:
        yield path
    finally:
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (path.parent / "cgroup.procs").write_text(pid)
        path.rmdir()


def set_comm(name: bytes) -> None:
    """prctl(PR_SET_NAME): the kernel keeps 15 bytes of it, whatever they are."""
    _checked(_libc.prctl, PR_SET_NAME, ctypes.c_char_p(name))


def fdinfo(fd: int, key: str) -> int:
    """A number from /proc/self/fdinfo, such as ``prog_id``: no bpf(2) call; 0 if absent."""
    try:
        lines = Path(f"/proc/thread-self/fdinfo/{fd}").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(dict(line.split(":", 1) for line in lines).get(key, 0))


# Every command.


class _Opened(ExitStack):
    """Descriptors that are closed at the end."""

    def fd(
        self, function: Callable[_Params, int], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> int:
        """The new descriptor, or -1 where the kernel refuses."""
        fd = attempt(function, *args, **kwargs)
        if fd is None:
            return -1
        self.callback(os.close, fd)
        return fd


def every_command() -> list[MadeCall]:
    """Call every command number of the newest kernel harmlessly: what was called, in order.

    Each once, save PROG_LOAD: with a program to attach, one for a raw tracepoint, and one with
    BPF_COMMON_ATTRS. Two numbers that nobody has follow. What this kernel can do without a trace
    left behind succeeds, the rest fails; everything is closed, detached and unpinned at return.
    """
    with recorded() as calls, private_netns(), private_bpffs() as bpffs, _Opened() as opened:
        map_fd = _every_map_command(opened)
        prog_fd = _every_prog_command(opened, map_fd, f"{bpffs}/every_prog")
        _every_attachment(opened, prog_fd)
        _every_tracepoint_command(opened)
        _every_btf_command(opened)
        attempt(prog_assoc_struct_ops, map_fd, prog_fd)
        opened.fd(enable_stats, BPF_STATS_RUN_TIME)
        opened.fd(token_create, opened.fd(os.open, bpffs, os.O_RDONLY))
        _load_with_common_attrs(opened)
        for unknown in (63, 4000):
            call(unknown, bytes(range(1, 33)))
    return calls


def _every_map_command(opened: _Opened) -> int:
    map_fd = opened.fd(map_create, BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"every_map")
    # Enough of them that a batch of 16 is not the whole map, which would end in ENOENT.
    keys = [struct.pack("=I", number) for number in range(48)]
    attempt(map_update_batch, map_fd, b"".join(keys), bytes(8 * len(keys)), len(keys))
    attempt(map_update_elem, map_fd, keys[0], b"abcdefgh")
    attempt(map_lookup_elem, map_fd, keys[0], 8)
    attempt(map_get_next_key, map_fd, None, 4)
    attempt(map_delete_elem, map_fd, keys[0])
    attempt(map_lookup_and_delete_elem, map_fd, keys[1], 8)
    attempt(map_delete_batch, map_fd, keys[2] + keys[3], 2)
    attempt(map_lookup_batch, map_fd, 4, 8, 16)
    attempt(map_lookup_and_delete_batch, map_fd, 4, 8, 16)
    attempt(map_freeze, map_fd)
    map_id = fdinfo(map_fd, "map_id")
    attempt(map_get_next_id, map_id - 1)
    opened.fd(map_get_fd_by_id, map_id)
    return map_fd


def _every_prog_command(opened: _Opened, map_fd: int, path: str) -> int:
    # A flow dissector is run, attached, linked and queried with nothing but a network namespace.
    prog_fd = opened.fd(prog_load, BPF_PROG_TYPE_FLOW_DISSECTOR, RETURN_0, prog_name=b"every_prog")
    attempt(prog_test_run, prog_fd, bytes(64))
    prog_id = fdinfo(prog_fd, "prog_id")
    attempt(prog_get_next_id, prog_id - 1)
    opened.fd(prog_get_fd_by_id, prog_id)
    attempt(obj_get_info_by_fd, prog_fd)
    attempt(obj_pin, path, prog_fd)
    opened.fd(obj_get, path)
    attempt(prog_bind_map, prog_fd, map_fd)
    attempt(prog_stream_read_by_fd, prog_fd, 1)
    return prog_fd


def _every_attachment(opened: _Opened, prog_fd: int) -> None:
    netns = opened.fd(os.open, "/proc/thread-self/ns/net", os.O_RDONLY)
    attempt(prog_attach, 0, prog_fd, BPF_FLOW_DISSECTOR)
    attempt(prog_query, netns, BPF_FLOW_DISSECTOR)
    attempt(prog_detach, 0, prog_fd, BPF_FLOW_DISSECTOR)
    link_fd = opened.fd(link_create, prog_fd, netns, BPF_FLOW_DISSECTOR)
    attempt(link_update, link_fd, prog_fd)
    link_id = fdinfo(link_fd, "link_id")
    attempt(link_get_next_id, link_id - 1)
    opened.fd(link_get_fd_by_id, link_id)
    opened.fd(iter_create, link_fd)
    attempt(link_detach, link_fd)


def _every_tracepoint_command(opened: _Opened) -> None:
    prog_fd = opened.fd(prog_load, BPF_PROG_TYPE_RAW_TRACEPOINT, RETURN_0, prog_name=b"every_tp")
    # One that every kernel has and that hardly ever fires.
    link_fd = opened.fd(raw_tracepoint_open, b"task_rename", prog_fd)
    attempt(task_fd_query, os.getpid(), link_fd)


def _every_btf_command(opened: _Opened) -> None:
    btf_fd = opened.fd(btf_load, minimal_btf())
    btf_id = fdinfo(btf_fd, "btf_id")
    attempt(btf_get_next_id, btf_id - 1)
    opened.fd(btf_get_fd_by_id, btf_id)


def _load_with_common_attrs(opened: _Opened) -> None:
    log = ctypes.create_string_buffer(256)
    common_attr = COMMON_ATTR.pack(log_buf=log, log_size=len(log), log_level=1)
    memory = ctypes.create_string_buffer(common_attr, len(common_attr))
    attr = prog_load_attr(BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0, prog_name=b"every_common")
    common = (ctypes.addressof(memory), len(memory))
    opened.fd(bpf, BPF_PROG_LOAD | BPF_COMMON_ATTRS, attr, common=common)


# The program: each subcommand yields what it did, for main() to print.

Lines = Iterator[dict[str, Any]]


def _create(name: str) -> MadeCall:
    """The call most subcommands make: MAP_CREATE of an array, closed at once."""
    made = call(BPF_MAP_CREATE, _array(name))
    if made.retval >= 0:
        os.close(made.retval)
    return made


def _array(name: str) -> Attr:
    return MAP_CREATE.pack(
        map_type=BPF_MAP_TYPE_ARRAY,
        key_size=4,
        value_size=8,
        max_entries=1,
        map_name=name.encode(),
    )


def count(calls: int) -> Lines:
    """Create N maps, named n0 and so on."""
    for number in range(calls):
        yield _create(f"n{number}").as_json()


def every() -> Lines:
    """Call every command."""
    for made in every_command():
        yield made.as_json()


def fork(depth: int) -> Lines:
    """Create a map in this process and in N generations of descendants, named gN to g0."""
    yield _create(f"g{depth}").as_json()
    if depth == 0:
        return
    child = os.fork()
    if child == 0:
        _print(fork(depth - 1))
        os._exit(0)
    os.waitpid(child, 0)


def threads(number: int) -> Lines:
    """Create a map in each of N threads that live at the same time, named t0 and so on."""
    # They wait for each other twice: a thread that ended would lend its tid to the next.
    together = threading.Barrier(number)
    made: dict[int, MadeCall] = {}

    def work(index: int) -> None:
        together.wait()
        made[index] = _create(f"t{index}")
        together.wait()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(number):
        yield made[index].as_json()


def crowd(number: int) -> Lines:
    """Create three maps in turn in each of N threads that live at the same time."""
    rounds = 3
    together = threading.Barrier(number)
    made: dict[tuple[int, int], MadeCall] = {}

    def work(index: int) -> None:
        for turn in range(rounds):
            together.wait()
            made[turn, index] = _create(f"c{turn}_{index}")
        together.wait()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for call_made in made.values():
        yield call_made.as_json()


class Edge(NamedTuple):
    """A MAP_CREATE whose arguments are odd, and what could be read: a page at most."""

    name: str
    attr_addr: int
    size: int
    data: bytes
    cmd: int = BPF_MAP_CREATE


def edges() -> Lines:
    """Create maps with attr in odd places and of odd sizes."""
    attr = _array("edge")
    page, beyond, untouched = Page(), Page(), UntouchedPage(attr)
    long_enough = ctypes.create_string_buffer(attr, 2 * PAGE_SIZE)
    plain = ctypes.addressof(long_enough)
    dirty = ctypes.create_string_buffer(attr.ljust(PAGE_SIZE - 1, b"\0") + b"\xff", PAGE_SIZE)
    cut = MAP_CREATE.fields["map_name"][0] + 2
    for edge in (
        Edge("page_end", page.put_at_end(attr), len(attr), attr),
        Edge("past_page", beyond.put_at_end(attr, beyond=1), len(attr), attr[:-1]),
        Edge("untouched", untouched.address, len(attr), attr),
        Edge("null", 0, len(attr), b""),
        Edge("wild", 0xDEAD0000, len(attr), b""),
        Edge("kernel", 0xFFFF_8000_0000_0000, len(attr), b""),
        Edge("size_0", plain, 0, b""),
        Edge("cut_field", plain, cut, attr[:cut]),
        Edge("size_page", plain, PAGE_SIZE, long_enough.raw[:PAGE_SIZE]),
        Edge("size_page_plus_1", plain, PAGE_SIZE + 1, long_enough.raw[:PAGE_SIZE]),
        Edge("size_max", plain, 0xFFFFFFFF, long_enough.raw[:PAGE_SIZE]),
        Edge("dirty_tail", ctypes.addressof(dirty), PAGE_SIZE, dirty.raw),
        Edge("high_bits", plain, 1 << 32 | len(attr), attr, 1 << 32 | BPF_MAP_CREATE),
    ):
        yield _make_edge(edge)


def _make_edge(edge: Edge) -> dict[str, Any]:
    retval = raw_bpf(edge.cmd, edge.attr_addr, edge.size)
    if retval >= 0:
        os.close(retval)
    made = MadeCall(
        edge.cmd, edge.size, retval, edge.attr_addr, edge.data, edge.data,
        0, 0, os.getpid(), threading.get_native_id(),
    )  # fmt: skip
    return {"edge": edge.name, **made.as_json()}


def flood(seconds: float) -> Lines:
    """Look up one element as fast as possible for some seconds."""
    map_fd = map_create(BPF_MAP_TYPE_ARRAY, 4, 8, 1, map_name=b"flood")
    attr = MAP_ELEM.pack(map_fd=map_fd, key=bytes(4), value=bytes(8))
    memory = ctypes.create_string_buffer(attr, len(attr))
    arguments = (SYS_BPF, BPF_MAP_LOOKUP_ELEM, ctypes.addressof(memory), len(attr), 0, 0)
    syscall, calls, start = _libc.syscall, 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        for _ in range(1000):
            syscall(*arguments)
        calls += 1000
    elapsed = time.perf_counter() - start
    os.close(map_fd)
    yield {"map_create": 1, "map_lookup_elem": calls, "seconds": elapsed}


def comm(name: str) -> Lines:
    """Take this name, however hostile, and create a map."""
    given = os.fsencode(name)
    set_comm(given)
    yield {"comm": given[: COMM_LEN - 1].hex(), **_create("comm").as_json()}


def sleepy() -> Lines:
    """Print ready, then create a map for each line of standard input, named s0 and so on."""
    _say_ready()
    for number, _ in enumerate(sys.stdin):
        yield _create(f"s{number}").as_json()


def _say_ready() -> None:
    os.write(1, b"ready\n")


class Subcommand(NamedTuple):
    function: Callable[..., Lines]
    argument: str = ""
    kind: type = str


SUBCOMMANDS = (
    Subcommand(count, "N", int),
    Subcommand(every),
    Subcommand(fork, "N", int),
    Subcommand(threads, "N", int),
    Subcommand(crowd, "N", int),
    Subcommand(edges),
    Subcommand(flood, "SECONDS", float),
    Subcommand(comm, "NAME"),
    Subcommand(sleepy),
)


def _print(lines: Lines) -> None:
    for line in lines:
        # One write: lines of parent and child do not mix, and nothing is left to flush twice.
        os.write(1, json.dumps(line).encode() + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make known bpf(2) calls.")
    parser.add_argument(
        "--wait", action="store_true", help="print ready and wait for a line on standard input"
    )
    subparsers = parser.add_subparsers(required=True)
    for function, argument, kind in SUBCOMMANDS:
        subparser = subparsers.add_parser(function.__name__, help=function.__doc__)
        subparser.set_defaults(function=function, arguments=[])
        if argument:
            subparser.add_argument("arguments", metavar=argument, type=kind, nargs=1)
    options = parser.parse_args()
    if options.wait:
        _say_ready()
        sys.stdin.readline()
    _print(options.function(*options.arguments))


if __name__ == "__main__":
    main()
