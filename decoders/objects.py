# SPDX-License-Identifier: Apache-2.0
"""Commands that serve every kind of object: pins, ids, descriptors, information."""

from ..events.value import DirFd
from ..events.wire import ROW_SUCCESS
from . import uapi
from .info import ANY
from .layout import Command, Hole, Moment, Rows, data, fd, never, path, pointer, s32, u32

_PIN: Rows = [
    [
        pointer("pathname", path()),
        fd("bpf_fd"),
    ],
    u32("file_flags", uapi.FILE_FLAGS),
    s32("path_fd", DirFd()),
]

# OBJ_GET leaves bpf_fd 0.
_GET: Rows = [[pointer("pathname", path()), fd("bpf_fd", zero=never)], *_PIN[1:]]

OBJ_PIN = Command(6, "BPF_OBJ_PIN", _PIN, vital=True)

OBJ_GET = Command(7, "BPF_OBJ_GET", _GET, returns_fd=True)

OBJ_GET_INFO_BY_FD = Command(15, "BPF_OBJ_GET_INFO_BY_FD", [[
    fd("bpf_fd"),
    u32("info_len", moment=Moment.BOTH),
    pointer("info", data("info_len", 512, ROW_SUCCESS, content=ANY)),
]], wrapper="info", data=True)  # fmt: skip


def _next_id(number: int, name: str) -> Command:
    rows = [[u32("start_id"), u32("next_id", moment=Moment.EXIT)]]
    return Command(number, name, rows, data=True)


PROG_GET_NEXT_ID = _next_id(11, "BPF_PROG_GET_NEXT_ID")
MAP_GET_NEXT_ID = _next_id(12, "BPF_MAP_GET_NEXT_ID")
BTF_GET_NEXT_ID = _next_id(23, "BPF_BTF_GET_NEXT_ID")
LINK_GET_NEXT_ID = _next_id(31, "BPF_LINK_GET_NEXT_ID")

PROG_GET_FD_BY_ID = Command(13, "BPF_PROG_GET_FD_BY_ID", [u32("prog_id")], returns_fd=True)

# next_id lies between the id and the flags, and nobody reads it here.
MAP_GET_FD_BY_ID = Command(14, "BPF_MAP_GET_FD_BY_ID", [
    [u32("map_id"), Hole()],
    u32("open_flags", uapi.OPEN_FLAGS),
], returns_fd=True)  # fmt: skip

BTF_GET_FD_BY_ID = Command(19, "BPF_BTF_GET_FD_BY_ID", [
    [u32("btf_id"), Hole()],
    [u32("open_flags", uapi.OPEN_FLAGS), fd("fd_by_id_token_fd", zero=never)],
], returns_fd=True)  # fmt: skip

LINK_GET_FD_BY_ID = Command(30, "BPF_LINK_GET_FD_BY_ID", [u32("link_id")], returns_fd=True)

ENABLE_STATS = Command(
    32, "BPF_ENABLE_STATS", [u32("type", uapi.STATS_TYPE)], wrapper="enable_stats"
)

TOKEN_CREATE = Command(36, "BPF_TOKEN_CREATE", [[
    u32("flags", uapi.NO_FLAGS),
    fd("bpffs_fd"),
]], wrapper="token_create", vital=True)  # fmt: skip

COMMANDS = (
    OBJ_PIN,
    OBJ_GET,
    PROG_GET_NEXT_ID,
    MAP_GET_NEXT_ID,
    PROG_GET_FD_BY_ID,
    MAP_GET_FD_BY_ID,
    OBJ_GET_INFO_BY_FD,
    BTF_GET_FD_BY_ID,
    BTF_GET_NEXT_ID,
    LINK_GET_FD_BY_ID,
    LINK_GET_NEXT_ID,
    ENABLE_STATS,
    TOKEN_CREATE,
)
