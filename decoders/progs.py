# SPDX-License-Identifier: Apache-2.0
"""Commands on programs: loading, attaching, running, asking."""

from ..events.memory import Log
from ..events.value import DecimalFlags, Fd, ForeignFd, Hex, IfIndex, KernelVersion, Kind, Signed
from ..events.wire import CHUNK_MAX, COUNT_RETVAL, ROW_ENTRY, ROW_NO_LIMIT, ROW_SUCCESS
from . import uapi
from .insn import instructions
from .layout import (
    FILLED,
    S32,
    U32,
    Command,
    Hole,
    Moment,
    Rows,
    Union,
    among,
    any_of,
    array,
    data,
    fd,
    has,
    log,
    never,
    obj_name,
    pointer,
    s32,
    string,
    u32,
    u64,
)

PROG_LOAD = Command(5, "BPF_PROG_LOAD", [
    [
        u32("prog_type", uapi.PROG_TYPE),
        u32("insn_cnt"),
        pointer("insns", instructions("insn_cnt")),
        pointer("license", string(128)),
    ],
    [
        u32("log_level"),
        u32("log_size"),
        pointer("log_buf", log("log_size", "log_true_size")),
    ],
    u32("kern_version", KernelVersion()),
    u32("prog_flags", uapi.PROG_FLAGS),
    obj_name("prog_name"),
    u32("prog_ifindex", IfIndex()),
    u32("expected_attach_type", uapi.ATTACH_TYPE),
    [
        fd("prog_btf_fd", zero=any_of("func_info_cnt", "line_info_cnt", "core_relo_cnt")),
        u32("func_info_rec_size"),
        pointer("func_info"),
        u32("func_info_cnt"),
        u32("line_info_rec_size"),
        pointer("line_info"),
        u32("line_info_cnt"),
    ],
    u32("attach_btf_id"),
    # Or attach_btf_obj_fd: which one it is shows only in what the fd refers to.
    fd("attach_prog_fd", zero=never),
    u32("core_relo_cnt"),
    pointer("fd_array", array(Fd(), S32, "fd_array_cnt")),
    [
        pointer("core_relos"),
        u32("core_relo_rec_size"),
    ],
    u32("log_true_size", moment=Moment.EXIT),
    fd("prog_token_fd", zero=never),
    u32("fd_array_cnt"),
    [
        pointer("signature", data("signature_size", limit=1024)),
        u32("signature_size"),
        s32("keyring_id", Signed()),
    ],
], returns_fd=True, vital=True)  # fmt: skip

_TARGET = Union(
    u32("target_ifindex", IfIndex(), when=among("attach_type", uapi.TO_NETDEV)),
    fd("target_fd"),
)

_ATTACH: Rows = [
    [
        _TARGET,
        fd("attach_bpf_fd"),
        u32("attach_type", uapi.ATTACH_TYPE),
        u32("attach_flags", uapi.ATTACH_FLAGS),
    ],
    fd("replace_bpf_fd", zero=has("attach_flags", uapi.BPF_F_REPLACE)),
    [
        Union(
            u32("relative_id", when=has("attach_flags", uapi.BPF_F_ID)),
            fd("relative_fd", zero=has("attach_flags", uapi.BPF_F_LINK)),
        ),
        u64("expected_revision"),
    ],
]

PROG_ATTACH = Command(8, "BPF_PROG_ATTACH", _ATTACH, vital=True)

PROG_DETACH = Command(9, "BPF_PROG_DETACH", _ATTACH, vital=True)

_HEAD = 256  # of test data as much as a packet's headers

PROG_TEST_RUN = Command(10, "BPF_PROG_TEST_RUN", [
    [
        fd("prog_fd"),
        u32("retval", moment=Moment.EXIT),
        u32("data_size_in"),
        u32("data_size_out", moment=Moment.BOTH),
        pointer("data_in", data("data_size_in", _HEAD, ROW_ENTRY)),
        pointer("data_out", data("data_size_out", _HEAD, FILLED | ROW_NO_LIMIT)),
        u32("repeat"),
        u32("duration", moment=Moment.EXIT),
    ],
    [
        u32("ctx_size_in"),
        u32("ctx_size_out", moment=Moment.BOTH),
        pointer("ctx_in", data("ctx_size_in", _HEAD, ROW_ENTRY)),
        pointer("ctx_out", data("ctx_size_out", _HEAD, ROW_SUCCESS)),
    ],
    [
        u32("flags", uapi.TEST_RUN_FLAGS),
        u32("cpu"),
    ],
    u32("batch_size"),
], wrapper="test")  # fmt: skip

PROG_QUERY = Command(16, "BPF_PROG_QUERY", [
    [
        _TARGET,
        u32("attach_type", uapi.ATTACH_TYPE),
        u32("query_flags", uapi.QUERY_FLAGS),
        u32("attach_flags", uapi.ATTACH_FLAGS, moment=Moment.EXIT),
        pointer("prog_ids", array(Kind(), U32, "prog_cnt", FILLED)),
        u32("prog_cnt", moment=Moment.BOTH),
        Hole(),
    ],
    pointer("prog_attach_flags", array(uapi.ATTACH_FLAGS, U32, "prog_cnt", FILLED)),
    [
        pointer("link_ids", array(Kind(), U32, "prog_cnt", FILLED)),
        pointer("link_attach_flags", array(uapi.ATTACH_FLAGS, U32, "prog_cnt", FILLED)),
        u64("revision", Hex(), moment=Moment.EXIT),
    ],
], wrapper="query")  # fmt: skip

RAW_TRACEPOINT_OPEN = Command(17, "BPF_RAW_TRACEPOINT_OPEN", [
    [
        pointer("name", string(128)),
        fd("prog_fd"),
        Hole(),
    ],
    u64("cookie", Hex()),
], wrapper="raw_tracepoint", returns_fd=True, vital=True)  # fmt: skip

TASK_FD_QUERY = Command(20, "BPF_TASK_FD_QUERY", [[
    s32("pid", Signed()),
    s32("fd", ForeignFd()),
    u32("flags", DecimalFlags()),
    u32("buf_len", moment=Moment.BOTH),
    pointer("buf", string(CHUNK_MAX, FILLED)),
    u32("prog_id", moment=Moment.EXIT),
    u32("fd_type", uapi.FD_TYPE, moment=Moment.EXIT),
    u64("probe_offset", Hex(), moment=Moment.EXIT),
    u64("probe_addr", Hex(), moment=Moment.EXIT),
]], wrapper="task_fd_query")  # fmt: skip

PROG_BIND_MAP = Command(35, "BPF_PROG_BIND_MAP", [[
    fd("prog_fd"),
    fd("map_fd"),
    u32("flags", uapi.NO_FLAGS),
]], wrapper="prog_bind_map", vital=True)  # fmt: skip

PROG_STREAM_READ_BY_FD = Command(37, "BPF_PROG_STREAM_READ_BY_FD", [[
    pointer("stream_buf", data(COUNT_RETVAL, CHUNK_MAX, ROW_SUCCESS, content=Log())),
    u32("stream_buf_len"),
    u32("stream_id"),
    fd("prog_fd"),
]], wrapper="prog_stream_read")  # fmt: skip

PROG_ASSOC_STRUCT_OPS = Command(38, "BPF_PROG_ASSOC_STRUCT_OPS", [[
    fd("map_fd"),
    fd("prog_fd"),
    u32("flags", uapi.NO_FLAGS),
]], wrapper="prog_assoc_struct_ops", vital=True)  # fmt: skip

COMMANDS = (
    PROG_LOAD,
    PROG_ATTACH,
    PROG_DETACH,
    PROG_TEST_RUN,
    PROG_QUERY,
    RAW_TRACEPOINT_OPEN,
    TASK_FD_QUERY,
    PROG_BIND_MAP,
    PROG_STREAM_READ_BY_FD,
    PROG_ASSOC_STRUCT_OPS,
)
