# SPDX-License-Identifier: Apache-2.0
"""Commands as strace 7.2 sees them: our tables, and where it differs from them.

What is not stated here is as in our tables, but that a pointer leads nowhere unless
:data:`_FOLLOWED` says so, and that a descriptor 0 is one like any other.

Found by making the same calls under it; tests/test_live_strace.py does so again.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from ..events.memory import Content
from ..events.value import Fd, Hex, IfIndex, Kind
from ..events.wire import CHUNK_MAX, ROW_ENTRY, ROW_NO_LIMIT
from . import links, uapi
from .insn import instructions
from .layout import (
    ALWAYS,
    Arm,
    Command,
    Field,
    Moment,
    Target,
    Union,
    Values,
    among,
    data,
    fd,
    longer_than,
    string,
    strings,
    u32,
)
from .strace_info import MAP_FLAGS, PROG_INFO, first_bits
from .strace_memory import Answers, Counted, Data, Elements, Instructions, IterInfo, Text
from .table import COMMANDS as OURS

# --- Constants that it does not know -----------------------------------------------------

_PROG_FLAGS: Final = first_bits(uapi.PROG_FLAGS, 8)
_OPEN_FLAGS: Final = first_bits(uapi.OPEN_FLAGS, 5)
_TEST_RUN_FLAGS: Final = first_bits(uapi.TEST_RUN_FLAGS, 2)

# --- Where pointers lead -----------------------------------------------------------------

_PATH: Final = replace(string(4096), content=Text(4095, whole=True))


def _with(content: Any, count: str, limit: int = CHUNK_MAX, **more: Any) -> Target:
    return replace(data(count, limit, ALWAYS, content=content), **more)


def _numbers(kind: Kind, code: str, size: int, count: str) -> Target:
    return _with(Elements(kind, code), count, unit=size)


def _answers(kind: Kind) -> Target:
    """As many as the kernel says there are, whether the caller had room for them or not."""
    return _with(Answers(kind, "I"), "prog_cnt", unit=4, when=ALWAYS | ROW_NO_LIMIT, aside=True)


_IDS: Final = _answers(Kind())
_ATTACH_FLAGS: Final = _answers(uapi.ATTACH_FLAGS)
_COOKIES: Final = _numbers(Hex(), "Q", 8, "cnt")

_FOLLOWED: Final[Mapping[tuple[str, str], Target]] = {
    ("BPF_PROG_LOAD", "insns"): replace(instructions("insn_cnt"), content=Instructions()),
    ("BPF_PROG_LOAD", "license"): replace(string(128), content=Text()),
    # What was there before the verifier wrote.
    ("BPF_PROG_LOAD", "log_buf"): _with(Counted(), "log_size", when=ROW_ENTRY, aside=True),
    ("BPF_PROG_LOAD", "signature"): _with(Data(hex_=True), "signature_size", 1024),
    ("BPF_OBJ_PIN", "pathname"): _PATH,
    ("BPF_OBJ_GET", "pathname"): _PATH,
    ("BPF_RAW_TRACEPOINT_OPEN", "name"): replace(string(128), content=Text(128)),
    ("BPF_BTF_LOAD", "btf"): _with(Data(), "btf_size", 256),
    ("BPF_TASK_FD_QUERY", "buf"): _with(Counted(), "buf_len", aside=True),
    # All of the buffer, however little was written into it.
    ("BPF_PROG_STREAM_READ_BY_FD", "stream_buf"): _with(Data(), "stream_buf_len", aside=True),
    ("BPF_PROG_QUERY", "prog_ids"): _IDS,
    ("BPF_PROG_QUERY", "prog_attach_flags"): _ATTACH_FLAGS,
    ("BPF_PROG_QUERY", "link_ids"): _IDS,
    ("BPF_PROG_QUERY", "link_attach_flags"): _ATTACH_FLAGS,
    # What was there before, for the members that the kernel changes.
    ("BPF_OBJ_GET_INFO_BY_FD", "info"): _with(
        Content(), "info_len", when=ROW_ENTRY, aside=True, inside=PROG_INFO
    ),
    # Bytes taken for elements of four bytes.
    ("BPF_LINK_CREATE", "iter_info"): _with(IterInfo(), "iter_info_len", unit=4, aside=True),
    ("BPF_LINK_CREATE", "ids"): _numbers(Kind(), "I", 4, "cnt"),
    ("BPF_LINK_CREATE", "syms"): strings("cnt"),
    ("BPF_LINK_CREATE", "addrs"): _COOKIES,
    ("BPF_LINK_CREATE", "offsets"): _COOKIES,
    ("BPF_LINK_CREATE", "ref_ctr_offsets"): _COOKIES,
    ("BPF_LINK_CREATE", "cookies"): _COOKIES,
    ("BPF_LINK_CREATE", "path"): _PATH,
}

# --- Fields ------------------------------------------------------------------------------

_FIELDS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("BPF_MAP_CREATE", "map_flags"): {"kind": MAP_FLAGS},
    ("BPF_PROG_LOAD", "prog_flags"): {"kind": _PROG_FLAGS},
    ("BPF_PROG_LOAD", "core_relo_cnt"): {"when": longer_than(128)},
    ("BPF_PROG_TEST_RUN", "flags"): {"kind": _TEST_RUN_FLAGS},
    ("BPF_PROG_TEST_RUN", "retval"): {"moment": Moment.ENTRY},
    ("BPF_PROG_TEST_RUN", "data_size_out"): {"moment": Moment.ENTRY},
    ("BPF_PROG_TEST_RUN", "duration"): {"moment": Moment.ENTRY},
    ("BPF_PROG_TEST_RUN", "ctx_size_out"): {"moment": Moment.ENTRY},
    ("BPF_PROG_QUERY", "attach_flags"): {"moment": Moment.ENTRY},
    ("BPF_RAW_TRACEPOINT_OPEN", "cookie"): {"when": longer_than(23)},
    ("BPF_MAP_GET_FD_BY_ID", "open_flags"): {"kind": _OPEN_FLAGS},
    ("BPF_BTF_GET_FD_BY_ID", "open_flags"): {"kind": _OPEN_FLAGS},
    ("BPF_TASK_FD_QUERY", "fd"): {"kind": Fd()},
}

# --- Links -------------------------------------------------------------------------------

# Attach types of which it shows the rest as trailing bytes.
_UNSEEN: Final = uapi.attach_types(
    "LSM_CGROUP", "TRACE_RAW_TP", "TRACE_KPROBE_SESSION", "TRACE_UPROBE_SESSION"
)


def _seen(arm: Arm) -> Arm:
    def when(values: Values) -> bool:
        return values["attach_type"] not in _UNSEEN and arm.when(values)

    return replace(arm, when=when)


# It has neither the map of struct_ops nor the flags of XDP.
_LINK_CREATE: Final = replace(links.LINK_CREATE, rows=[[
    fd("prog_fd"),
    Union(
        u32("target_ifindex", IfIndex(), when=among("attach_type", uapi.TO_NETDEV)),
        fd("target_fd"),
    ),
    u32("attach_type", uapi.ATTACH_TYPE),
    u32("flags", uapi.ATTACH_FLAGS),
]], arms=tuple(map(_seen, links.LINK_CREATE.arms)))  # fmt: skip

# --- Descriptors -------------------------------------------------------------------------

DESCRIPTORS: Final[Mapping[str, bytes]] = dict.fromkeys((
    "BPF_MAP_CREATE", "BPF_PROG_LOAD", "BPF_OBJ_PIN", "BPF_OBJ_GET", "BPF_PROG_GET_FD_BY_ID",
    "BPF_MAP_GET_FD_BY_ID", "BPF_BTF_LOAD", "BPF_BTF_GET_FD_BY_ID", "BPF_LINK_CREATE",
    "BPF_PROG_BIND_MAP",
), b"") | {
    "BPF_LINK_GET_FD_BY_ID": b"anon_inode:bpf-link",
    "BPF_ENABLE_STATS": b"anon_inode:bpf-stats",
    "BPF_ITER_CREATE": b"anon_inode:bpf_iter",
    "BPF_TOKEN_CREATE": b"anon_inode:bpf-token",
}  # fmt: skip
"""Commands of which it takes the result for a descriptor: pins and bound maps as well, whose 0
is none, and raw tracepoints not. With the name of the file, if it is no object's.
"""

# --- All of them -------------------------------------------------------------------------


def _changes(name: str) -> Callable[[Field], Field]:
    def change(field: Field) -> Field:
        place = name, field.name
        target = _FOLLOWED.get(place) if field.target or place in _FOLLOWED else None
        return replace(field, **{"zero": None, "target": target, **_FIELDS.get(place, {})})

    return change


def _as_seen(command: Command) -> Command:
    return command.changed(_changes(command.name))


COMMANDS: Final[Mapping[int, Command]] = {
    **{number: _as_seen(command) for number, command in OURS.items()},
    links.LINK_CREATE.number: _as_seen(_LINK_CREATE),
}
"""By number; with the bit for common attributes in it, a command is unknown."""
