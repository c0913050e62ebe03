# SPDX-License-Identifier: Apache-2.0
"""Events as documents: what a rule or a SIEM finds in them, and under which name."""

import json
import re

import pytest

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs
from bpfsnoop.events.call import (
    COMMON_ATTRS,
    RESULT,
    Blob,
    Call,
    CommandCount,
    Object,
    PartState,
    Totals,
)
from bpfsnoop.events.notice import Notice, Reason
from bpfsnoop.events.object import Described
from bpfsnoop.events.value import JSON
from bpfsnoop.events.wire import COMMAND_OTHER
from calls import (
    ATTR_ADDRESS,
    attr,
    blob,
    btf_of,
    call_of,
    image_of,
    link_of,
    map_of,
    process_of,
    prog_of,
    without_task,
)
from documents import DECODER, ORIGIN, checked, document_of

FREEZE = attr("i", 3)


def attr_of(cmd: int, entry: bytes, exit_: bytes | None = None) -> JSON:
    return document_of(call_of(cmd, entry, exit_))["bpf"]["attr"]


# --- A whole document --------------------------------------------------------------------

# Of pid 1234, which was started at 700000003 ns, and of its parent.
BOOT = ORIGIN.boot_id.replace("-", "")
ENTITY = f"{BOOT}-4d2-29b92703"
PARENT = f"{BOOT}-4b0-11e1a301"

HOST = {
    "name": "host.example",
    "hostname": "host.example",
    "os": {"type": "linux"},
    "id": "0123456789abcdef0123456789abcdef",
    "boot": {"id": "8a7e5b1c-0d2f-4e3a-9b6c-112233445566"},
}


def test_document_of_a_call_that_succeeded() -> None:
    call = call_of(0, attr("5I", 1, 4, 8, 1024, 1), retval=5)
    process = process_of(call, image_of())
    time_ns = 1_785_492_306 * 10**9 + 7
    document = checked(
        ecs.event_document(DECODER.decode(call), process, ORIGIN, time_ns=time_ns, sequence=42)
    )
    assert document == {
        "@timestamp": "2026-07-31T10:05:06.000000007Z",
        "ecs": {"version": "8.17.0"},
        "event": {
            "kind": "event",
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.call",
            "action": "map_create",
            "category": ["api"],
            "type": ["creation"],
            "outcome": "success",
            "duration": 31_337,
            "sequence": 42,
        },
        "host": HOST,
        "process": {
            "pid": 1_234,
            "name": "loader",
            "thread": {
                "id": 1_235,
                "name": "loader",
                "capabilities": {"effective": ["CAP_PERFMON", "CAP_BPF"]},
            },
            "entity_id": ENTITY,
            "start": "2026-07-31T10:05:05.700000003Z",
            "executable": "/usr/bin/loader",
            "args": ["loader", "-v", "x"],
            "parent": {"pid": 1_200, "name": "bash", "entity_id": PARENT},
        },
        "user": {"id": "1000", "group": {"id": "100"}, "effective": {"id": "7"}},
        "bpf": {
            "cmd": "BPF_MAP_CREATE",
            "size": 20,
            "retval": 5,
            "via": "syscall",
            "probe": "tracepoint",
            "process": {
                "cgroup_id": 4_242,
                "exec_id": 5,
                "pid_namespace": 4_026_531_836,
                "mount_namespace": 4_026_531_841,
                "user_namespace": 4_026_531_837,
                "cap_bpf": True,
                "login_uid": "1001",
                "exe_deleted": False,
                "exe_memfd": False,
                "exe_uid": "0",
                "exe_mode": "0755",
                "exe_authentic": True,
                "argv0": "loader",
                "absent": {
                    "working_directory": "not_told",
                    "ancestors": "not_told",
                    "cgroup": "not_told",
                },
            },
            "attr_address": hex(ATTR_ADDRESS),
            "attr": {
                "map_type": "BPF_MAP_TYPE_HASH",
                "key_size": 4,
                "value_size": 8,
                "max_entries": 1024,
                "map_flags": ["BPF_F_NO_PREALLOC"],
            },
        },
    }


def test_message_is_the_line_if_there_is_one() -> None:
    assert document_of(call_of(22, FREEZE), message="bpf(...) = 0")["message"] == "bpf(...) = 0"
    assert "message" not in document_of(call_of(22, FREEZE))


def test_host_has_no_ids_that_are_not_known() -> None:
    call = call_of(22, FREEZE)
    origin = ORIGIN._replace(host_id="", boot_id="")
    event = DECODER.decode(call)
    document = checked(ecs.event_document(event, process_of(call), origin, time_ns=0, sequence=1))
    assert document["host"] == {name: HOST[name] for name in ("name", "hostname", "os")}


@pytest.mark.parametrize(
    ("retval", "errno"),
    [
        (-1, "EPERM"),
        (-95, "EOPNOTSUPP"),
        (-524, "ENOTSUPP"),
        (-512, "ERESTARTSYS"),
        (-600, "600"),
        (-5000, "5000"),
    ],
)
def test_failure_has_an_errno(retval: int, errno: str) -> None:
    document = document_of(call_of(22, FREEZE, retval=retval))
    assert document["event"]["outcome"] == "failure"
    assert document["bpf"]["retval"] == retval
    assert document["bpf"]["errno"] == errno


def test_success_has_none() -> None:
    document = document_of(call_of(22, FREEZE, retval=7))
    assert document["event"]["outcome"] == "success"
    assert "errno" not in document["bpf"]


@pytest.mark.parametrize(
    ("cmd", "category", "type_"),
    [
        (1, ["api"], ["access"]),
        (3, ["api"], ["deletion"]),
        (5, ["api", "driver"], ["start"]),
        (9, ["api", "driver"], ["end"]),
        (21, ["api"], ["access", "deletion"]),
        (28, ["api", "driver"], ["start"]),
        (60, ["api"], ["access"]),
    ],
)
def test_category_and_type(cmd: int, category: list[str], type_: list[str]) -> None:
    event = document_of(call_of(cmd, attr("i", 3)))["event"]
    assert (event["category"], event["type"]) == (category, type_)


# --- Times -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_ns", "shown"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (999_999_999, "1970-01-01T00:00:00.999999999Z"),
        (1_000_000_000, "1970-01-01T00:00:01.000000000Z"),
        (951_782_400 * 10**9, "2000-02-29T00:00:00.000000000Z"),
        (4_102_444_799_123_456_789, "2099-12-31T23:59:59.123456789Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        ((1 << 64) - 1, "2554-07-21T23:34:33.709551615Z"),
    ],
)
def test_timestamps_are_utc_and_exact_to_the_nanosecond(time_ns: int, shown: str) -> None:
    assert ecs.timestamp(time_ns) == shown


# --- attr --------------------------------------------------------------------------------


def test_constants_are_names_and_flags_are_lists() -> None:
    shown = attr_of(0, attr("5I", 36, 4, 8, 1, 0x8000_0005))
    assert shown["map_type"] == "0x24"
    assert shown["map_flags"] == ["BPF_F_NO_PREALLOC", "BPF_F_NUMA_NODE", "0x80000000"]
    assert attr_of(0, attr("5I", 1, 4, 8, 1, 0))["map_flags"] == []
    assert attr_of(1, attr("iQQQ", 3, 0, 0, 0))["flags"] == []
    assert attr_of(33, attr("iI", 3, 5))["flags"] == ["0x5"]


def test_numbers_are_numbers_but_those_of_64_bits_are_strings() -> None:
    shown = attr_of(
        0, attr("7I16s5IQ", 1, 4, 8, 1, 4, 0, (1 << 32) - 1, b"", 1, *[0] * 4, (1 << 64) - 1)
    )
    assert shown["numa_node"] == 0xFFFF_FFFF
    assert shown["map_ifindex"] == 1
    assert shown["map_extra"] == "0xffffffffffffffff"
    assert attr_of(1, attr("iQQ", -1, 0, (1 << 64) - 1)) == {
        "map_fd": -1,
        "key": "0x0",
        "value": "0xffffffffffffffff",
    }
    assert attr_of(6, attr("QiIi", 0xCAFE, 3, 0x4000, -100))["path_fd"] == -100


def test_kernel_version_is_dotted() -> None:
    entry = attr("IIQQIIQI", 1, 2, 0, 0, 0, 0, 0, 6 << 16 | 18 << 8 | 44)
    assert attr_of(5, entry)["kern_version"] == "6.18.44"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"abc\0def", "abc"),
        (b"sixteen__letters", "sixteen__letters"),
        (b"cut", "cut"),
        (b"", ""),
        (b'say "hi"\\', 'say "hi"\\\\'),
        (b"\x1b[2J\n\xff", "\\33[2J\\n\\377"),
    ],
)
def test_names_are_whole_and_harmless(name: bytes, shown: str) -> None:
    entry = attr("7I", *[0] * 7) + (name or b"\0")
    assert attr_of(0, entry)["map_name"] == shown


def test_the_struct_of_the_command_is_left_out_and_its_arm_is_not() -> None:
    entry = attr("iiII", 3, 0, 42, 0) + attr("IIQQQ", 1, 2, 0xA, 0xB, 0xC)
    assert attr_of(28, entry) == {
        "prog_fd": 3,
        "target_fd": 0,
        "attach_type": "BPF_TRACE_KPROBE_MULTI",
        "flags": [],
        "kprobe_multi": {
            "flags": ["BPF_F_KPROBE_MULTI_RETURN"],
            "cnt": 2,
            "syms": "0xa",
            "addrs": "0xb",
            "cookies": "0xc",
        },
    }
    assert attr_of(28, attr("iiIIQI", 3, 0, 28, 0, 0xA, 1))["iter_info"] == "0xa"
    assert attr_of(34, attr("i", 9)) == {"link_fd": 9}


def test_fields_that_were_not_passed_are_absent() -> None:
    assert attr_of(0, attr("4I", 1, 4, 8, 1)).keys() == {
        "map_type", "key_size", "value_size", "max_entries",
    }  # fmt: skip
    assert "numa_node" not in attr_of(0, attr("7I", 1, 4, 8, 1, 0, 0, 7))


def test_what_only_the_kernel_writes_is_in_attr() -> None:
    document = document_of(call_of(11, attr("II", 5, 0), attr("II", 5, 6)))
    assert document["bpf"]["attr"] == {"start_id": 5, "next_id": 6}
    assert "attr_after" not in document["bpf"]


@pytest.mark.parametrize(
    ("cmd", "entry", "exit_", "passed", "after"),
    [
        (15, attr("iIQ", 3, 232, 1), attr("iIQ", 3, 228, 1), {"info_len": 232}, {"info_len": 228}),
        (10, attr("iIII", 3, 0, 14, 64), attr("iIII", 3, 2, 14, 0),
         {"data_size_out": 64, "retval": 2}, {"data_size_out": 0}),
        # In text this one stands behind the struct; here it makes no difference.
        (24, attr("QQQQIi", 0, 1, 2, 3, 1000, 5), attr("QQQQIi", 0, 1, 2, 3, 17, 5),
         {"count": 1000}, {"count": 17}),
    ],
)  # fmt: skip
def test_what_the_kernel_changed_is_in_attr_after(
    cmd: int, entry: bytes, exit_: bytes, passed: JSON, after: JSON
) -> None:
    bpf = document_of(call_of(cmd, entry, exit_))["bpf"]
    assert bpf["attr"] | passed == bpf["attr"]
    assert bpf["attr_after"] == after
    assert "attr_after" not in document_of(call_of(cmd, entry))["bpf"]


def test_bytes_behind_the_last_field() -> None:
    bpf = document_of(call_of(22, FREEZE + b"\0\xde\xad\0"))["bpf"]
    assert bpf["attr"] == {"map_fd": 3}
    assert bpf["attr_trailing"] == {"offset": 4, "hex": "00dead00"}
    assert "attr_trailing" not in document_of(call_of(22, FREEZE + bytes(8)))["bpf"]


# --- What is not there, and why ----------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "note"),
    [
        (call_of(22, size=4, attr_addr=0), "attr_null"),
        (call_of(22), "attr_empty"),
        (call_of(22, FREEZE.ljust(4096, b"\0"), size=4097), "attr_oversize"),
        (call_of(22, b"\3\0\0", size=4, retval=-14), "attr_unreadable"),
        (call_of(99, FREEZE), "command_unknown"),
    ],
)
def test_an_attr_that_cannot_be_shown_has_a_note(call: Call, note: str) -> None:
    bpf = document_of(call)["bpf"]
    assert "attr" not in bpf
    assert bpf["notes"] == [note]
    assert bpf["attr_address"] == hex(call.attr_addr)
    assert bpf["size"] == call.size


@pytest.mark.parametrize(
    ("entry", "exit_", "note"),
    [
        (b"", attr("iIQ", 3, 232, 1), "attr_read_at_exit"),
        (attr("iIQ", 3, 232, 1), b"", "attr_output_unreadable"),
    ],
)
def test_an_attr_that_was_there_for_half_the_call_has_a_note(
    entry: bytes, exit_: bytes, note: str
) -> None:
    bpf = document_of(call_of(15, entry, exit_, size=16))["bpf"]
    assert bpf["attr"] == {"bpf_fd": 3, "info_len": 232, "info": "0x1"}
    assert bpf["notes"] == [note]


def test_nothing_to_note() -> None:
    assert "notes" not in document_of(call_of(22, FREEZE))["bpf"]


# --- What pointers lead to ---------------------------------------------------------------

ELEM = attr("iQQQ", 3, 0xA, 0xB, 0)
LOAD = attr("IIQQIIQ", 1, 3, 0xA, 0xB, 1, 500, 0xC)
QUERY = attr("iIIIQIIQ", 3, 6, 0, 0, 0xA, 3, 0, 0xB)
KPROBES = attr("iiII", 3, 0, 42, 0) + attr("IIQQQ", 0, 3, 0xA, 0xB, 0xC)

CUT, UNREADABLE, CHUNKED = PartState.CUT, PartState.UNREADABLE, PartState.CHUNKED
AT_EXIT, TAIL = PartState.AT_EXIT, PartState.TAIL


@pytest.mark.parametrize(
    ("cmd", "entry", "slot", "memory", "shown"),
    [
        (1, ELEM, 8, blob(b"\0\xff"), {"key": {"hex": "00ff", "size": 2}}),
        (2, ELEM, 16, blob(b""), {"value": {"hex": "", "size": 0}}),
        (5, LOAD, 8, blob(b"\x95" + bytes(7)), {"insns": {"hex": "9500000000000000", "size": 8}}),
        (5, LOAD, 16, blob(b"GPL\0"), {"license": {"text": "GPL", "size": 4}}),
        (5, LOAD, 16, blob(b'a"\n\xff\0'), {"license": {"text": 'a"\\n\\377', "size": 5}}),
        (5, LOAD, 32, blob(b"end\0", 4, TAIL),
         {"log_buf": {"text": "end", "size": 4, "missing": ["cut_in_front"]}}),
        (16, QUERY, 16, blob(attr("3I", 1, 2, 3)), {"prog_ids": {"values": [1, 2, 3], "size": 12}}),
        (16, QUERY, 32, blob(attr("2I", 0, 3)),
         {"prog_attach_flags": {
             "values": [[], ["BPF_F_ALLOW_OVERRIDE", "BPF_F_ALLOW_MULTI"]], "size": 8}}),
        (28, KPROBES, 24, blob(b"vfs_read\0\0", 2),
         {"syms": {"values": ["vfs_read", ""], "size": 2}}),
        (28, KPROBES, 40, blob(attr("2Q", 1, 1 << 63)),
         {"cookies": {"values": ["0x1", "0x8000000000000000"], "size": 16}}),
        # Why it is not all there.
        (1, ELEM, 8, blob(b"ab", 9, CUT),
         {"key": {"hex": "6162", "size": 9, "missing": ["cut"]}}),
        (1, ELEM, 8, blob(b"", 9, UNREADABLE),
         {"key": {"hex": "", "size": 9, "missing": ["unreadable"]}}),
        (1, ELEM, 8, blob(b"a", 9, CHUNKED, read=5),
         {"key": {"hex": "61", "size": 9, "missing": ["lost"]}}),
        (1, ELEM, 8, blob(b"a", 9, CUT | UNREADABLE | CHUNKED | AT_EXIT, read=5),
         {"key": {"hex": "61", "size": 9, "missing": ["cut", "unreadable", "lost"],
                  "read_at_exit": True}}),
        (1, ELEM, 8, blob(b"a", 1, AT_EXIT),
         {"key": {"hex": "61", "size": 1, "read_at_exit": True}}),
        (1, ELEM, 8, blob(b"a", 1, CHUNKED), {"key": {"hex": "61", "size": 1}}),
        # Numbers that are not whole are left out.
        (16, QUERY, 16, blob(attr("I", 7) + b"\1\2", 12, UNREADABLE),
         {"prog_ids": {"values": [7], "size": 12, "missing": ["unreadable"]}}),
    ],
)  # fmt: skip
def test_memory(cmd: int, entry: bytes, slot: int, memory: Blob, shown: JSON) -> None:
    bpf = document_of(call_of(cmd, entry, memory={slot: memory}))["bpf"]
    assert bpf["memory"] == shown
    # The pointers are there all the same.
    assert bpf["attr"] == document_of(call_of(cmd, entry))["bpf"]["attr"]


def test_documents_have_all_of_it_whatever_lines_show() -> None:
    memory = {16: blob(bytes(4096), 9000, CUT)}
    shown = document_of(call_of(2, ELEM, memory=memory))["bpf"]["memory"]["value"]
    assert shown == {"hex": "00" * 4096, "size": 9000, "missing": ["cut"]}


def test_memory_of_an_attr_that_cannot_be_shown_is_not_shown_either() -> None:
    bpf = document_of(call_of(2, size=len(ELEM), memory={8: blob(b"a")}))["bpf"]
    assert bpf["notes"] == ["attr_unreadable"]
    assert "memory" not in bpf


# --- Objects behind descriptors ----------------------------------------------------------

MAP = {
    "id": 12, "type": "BPF_MAP_TYPE_HASH", "name": "config", "key_size": 4, "value_size": 8,
    "max_entries": 1024,
}  # fmt: skip
PROG = {"id": 31, "type": "BPF_PROG_TYPE_KPROBE", "name": "watch", "tag": "f0f1f2f3f4f5f6f7"}
LINK = {"id": 4, "type": "BPF_LINK_TYPE_PERF_EVENT", "prog_id": 31}


def objects_of(call: Call) -> JSON:
    bpf = document_of(call)["bpf"]
    return {key: bpf[key] for key in ("map", "prog", "link", "btf", "fd") if key in bpf}


def test_the_object_that_a_call_is_about() -> None:
    frozen = call_of(22, FREEZE, objects={0: map_of()})
    assert objects_of(frozen) == {"map": MAP, "fd": [{"name": "map_fd", "kind": "map", "id": 12}]}
    assert objects_of(call_of(22, FREEZE)) == {}


def test_what_was_returned_comes_first() -> None:
    entry = attr("12I16sII", *[0] * 12, b"", 0, 0) + attr("iIQIIQIIi", 3, 0, 0, 0, 0, 0, 0, 0, 4)
    objects = {72: btf_of(), 112: prog_of(id=1), RESULT: prog_of()}
    assert objects_of(call_of(5, entry, retval=6, objects=objects)) == {
        "prog": PROG,
        "btf": {"id": 7},
        "fd": [
            {"name": "result", "kind": "prog", "id": 31},
            {"name": "prog_btf_fd", "kind": "btf", "id": 7},
            {"name": "attach_prog_fd", "kind": "prog", "id": 1, "prog": {**PROG, "id": 1}},
        ],
    }


def test_objects_of_every_kind() -> None:
    objects = {0: prog_of(), 4: map_of(), RESULT: link_of()}
    found = objects_of(call_of(28, attr("iiII", 3, 4, 41, 0), retval=9, objects=objects))
    assert (found["link"], found["prog"], found["map"]) == (LINK, PROG, MAP)
    assert [fd["name"] for fd in found["fd"]] == ["result", "prog_fd", "target_fd"]


@pytest.mark.parametrize(
    ("found", "kind", "shown"),
    [
        (map_of(type=0xDEAD), "map", {"type": "0xdead"}),
        (map_of(name=b"\x1b\n\xff"), "map", {"name": "\\33\\n\\377"}),
        (prog_of(name=b""), "prog", {"name": ""}),
    ],
)
def test_what_objects_are_called(found: Object, kind: str, shown: dict[str, JSON]) -> None:
    document = objects_of(call_of(22, FREEZE, objects={0: found}))[kind]
    assert document | shown == document


def test_a_link_may_have_no_program() -> None:
    call = call_of(34, attr("i", 3), objects={0: link_of(prog_id=0)})
    assert "prog_id" not in objects_of(call)["link"]


def test_a_returned_object_is_there_without_attr() -> None:
    found = objects_of(call_of(13, size=4, retval=7, objects={RESULT: prog_of(), 0: map_of()}))
    assert found == {"prog": PROG, "fd": [{"name": "result", "kind": "prog", "id": 31}]}


# --- Who made it -------------------------------------------------------------------------


def test_who_logged_in_is_there_if_somebody_did() -> None:
    assert document_of(call_of(22, FREEZE))["bpf"]["process"]["login_uid"] == "1001"
    nobody = call_of(22, FREEZE)._replace(login_uid=0xFFFF_FFFF)
    assert "login_uid" not in document_of(nobody)["bpf"]["process"]


def test_the_start_of_a_process_is_in_the_time_of_its_calls() -> None:
    """The clock may be set while it lives, so both are told by the same one."""
    call = call_of(22, FREEZE)
    at = document_of(call, time_ns=5_000_000_007)
    assert at["@timestamp"] == "1970-01-01T00:00:05.000000007Z"
    assert at["process"]["start"] == "1970-01-01T00:00:04.700000003Z"


def test_without_the_task_there_is_none_of_it() -> None:
    document = document_of(without_task(call_of(22, FREEZE)))
    assert document["process"].keys() == {"pid", "name", "thread"}
    assert document["process"]["thread"].keys() == {"id", "name"}
    assert document["user"].keys() == {"id", "group"}
    assert document["bpf"]["process"].keys() == {"cgroup_id", "absent"}


# --- Commands ----------------------------------------------------------------------------


def test_unknown_command() -> None:
    document = document_of(call_of(0xCAFCF00D, FREEZE))
    assert document["event"]["action"] == "unknown"
    assert document["bpf"]["cmd"] == "0xcafcf00d"


def test_command_that_only_the_kernel_knows() -> None:
    call = call_of(60, FREEZE)
    event = Decoder({"bpf_cmd": {60: "BPF_NEW_COMMAND"}}).decode(call)
    document = checked(ecs.event_document(event, process_of(call), ORIGIN, time_ns=0, sequence=1))
    assert document["event"]["action"] == "new_command"
    assert document["bpf"]["cmd"] == "BPF_NEW_COMMAND"
    assert document["bpf"]["notes"] == ["command_unknown"]


def test_common_attrs_are_there_if_the_caller_passed_them() -> None:
    call = call_of(22 | COMMON_ATTRS, FREEZE, common=(0xABAD1DEA, 24))
    document = document_of(call)
    assert document["event"]["action"] == "map_freeze"
    assert document["bpf"]["cmd"] == "BPF_MAP_FREEZE"
    assert document["bpf"]["common_attrs"] == {"address": "0xabad1dea", "size": 24}
    null = document_of(call_of(22 | COMMON_ATTRS, FREEZE))
    assert null["bpf"]["common_attrs"] == {"address": "0x0", "size": 0}
    assert "common_attrs" not in document_of(call_of(22, FREEZE))["bpf"]


# --- Names that a process gave itself ----------------------------------------------------


@pytest.mark.parametrize(
    ("comm", "name"),
    [
        (b"bpftool", "bpftool"),
        (b"", ""),
        (b"my prog", "my prog"),
        (b"\x1b]0;owned\x07", "\\33]0;owned\\7"),
        (b"\x9b31mred", "\\23331mred"),
        (b'a"}\n{"b":1', 'a"}\\n{"b":1'),
        (b"\xff\xfe\xc3\x28", "\\377\\376\\303("),
        ("naïve".encode(), "na\\303\\257ve"),
        (b"\x7f\x80\x9f\xa0", "\\177\\200\\237\\240"),
        (b"back\\slash", "back\\\\slash"),
    ],
)
def test_a_hostile_name_is_spelled_out(comm: bytes, name: str) -> None:
    call = call_of(22, FREEZE, comm=comm)
    assert document_of(call)["process"]["name"] == name
    event = DECODER.decode(call)
    line = ecs.json_line(ecs.event_document(event, process_of(call), ORIGIN, time_ns=0, sequence=1))
    assert re.fullmatch(rb"[ -~]+\n", line)


def test_a_document_is_one_line_of_json() -> None:
    call = call_of(22, FREEZE)
    event = DECODER.decode(call)
    document = ecs.event_document(event, process_of(call), ORIGIN, time_ns=0, sequence=1)
    line = ecs.json_line(document)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == document


# --- The closing record ------------------------------------------------------------------


def test_loss_is_counted_by_command_and_in_all() -> None:
    counts = {2: CommandCount(1000, 17), 5: CommandCount(3, 0, 2), 60: CommandCount(4, 0, 4)}
    counts[COMMAND_OTHER] = CommandCount(1, 1)
    totals = Totals(counts, unfinished=4, missed_runs=2, unfollowed=1, time_ns=5)
    document = checked(ecs.loss_document(totals, DECODER.slot_names(), ORIGIN, sequence=99))
    assert document == {
        "@timestamp": "1970-01-01T00:00:00.000000005Z",
        "ecs": {"version": "8.17.0"},
        "event": {
            "kind": "metric",
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.loss",
            "action": "loss",
            "category": ["host"],
            "type": ["info"],
            "sequence": 99,
        },
        "host": HOST,
        "bpf": {
            "probe": "tracepoint",
            "loss": {
                "final": True,
                "complete": False,
                "seen": 1008,
                "lost": 18,
                "incomplete": 6,
                "unfinished": 4,
                "missed_runs": 2,
                "unfollowed": 1,
                "commands": [
                    {"cmd": "BPF_MAP_UPDATE_ELEM", "seen": 1000, "lost": 17, "incomplete": 0},
                    {"cmd": "BPF_PROG_LOAD", "seen": 3, "lost": 0, "incomplete": 2},
                    {"cmd": "0x3c", "seen": 4, "lost": 0, "incomplete": 4},
                    {"cmd": "other", "seen": 1, "lost": 1, "incomplete": 0},
                ],
            },
        },
    }


@pytest.mark.parametrize(
    ("counts", "others", "complete"),
    [
        ({}, (0, 0, 0), True),
        ({0: CommandCount(3, 0)}, (0, 0, 0), True),
        ({0: CommandCount(3, 1)}, (0, 0, 0), False),
        ({}, (1, 0, 0), False),
        ({}, (0, 1, 0), False),
        ({}, (0, 0, 1), False),
    ],
)
def test_any_kind_of_loss_makes_it_incomplete(
    counts: dict[int, CommandCount], others: tuple[int, int, int], complete: bool
) -> None:
    totals = Totals(counts, *others, time_ns=0)
    document = checked(ecs.loss_document(totals, {}, ORIGIN, sequence=1))
    assert document["bpf"]["loss"]["complete"] is complete
    assert "outcome" not in document["event"], "a measurement neither succeeds nor fails"


def test_a_notice_says_as_much_of_a_process_as_the_call_that_it_is_about() -> None:
    call = call_of(22, FREEZE, objects={0: map_of()})
    process = process_of(call, image_of())
    notice = Notice(Reason.OWN_CHANGED, 5, touched=Described(map_of(), "BPF_MAP_TYPE_HASH"))
    cause = ecs.Cause(DECODER.decode(call), process, 3)
    document = checked(ecs.notice_document(notice, ORIGIN, time_ns=6, sequence=4, cause=cause))
    assert document["bpf"]["process"] == document_of(call, process)["bpf"]["process"]
    silent = Notice(Reason.PROBE_SILENT, 5, probe="enter_bpf")
    document = checked(ecs.notice_document(silent, ORIGIN, time_ns=6, sequence=4))
    assert "process" not in document["bpf"]


def test_every_command_has_its_event_type() -> None:
    assert {command.name for command in COMMANDS.values()} == ecs.TYPED_COMMANDS
