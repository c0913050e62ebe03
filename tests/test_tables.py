# SPDX-License-Identifier: Apache-2.0
"""The tables against the kernel's own words: its header and the BTF of the running kernel.

Two things here say what the kernel says elsewhere, because they must: decoders/ (fields
and constants of bpf(2)) and events/wire.py (the records of events/wire.h). A compiler
compares them with the headers, a reader of BTF with the kernel, which is often newer.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from struct import Struct, calcsize
from typing import TypeVar

import pytest

from bpfsnoop.decoders import uapi
from bpfsnoop.decoders.layout import Layout
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import wire
from bpfsnoop.events.call import COMMON_ATTRS, Call, CommandCount, Image, Object
from bpfsnoop.events.value import DirFd, Enum, Flags
from bpfsnoop.tracer import own
from btf_reader import Btf, Member

VMLINUX = Path("/sys/kernel/btf/vmlinux")
WIRE_H = Path(wire.__file__).with_name("wire.h")

Release = tuple[int, int]

OLDEST: Release = (6, 1)
NEWEST: Release = (7, 2)
"""The tables are those of this release."""

# What came after OLDEST, by the release that had it at the latest. A struct stands for
# its members. Header and kernel may lack a name only if they are older than that, so
# that a misspelt name in a table cannot pass for a new one.
NEWER: Mapping[Release, str] = {
    (6, 2): "BPF_MAP_TYPE_CGRP_STORAGE",
    (6, 3): "BPF_F_XDP_DEV_BOUND_ONLY",
    (6, 4): """
        BPF_NETFILTER BPF_PROG_TYPE_NETFILTER BPF_LINK_TYPE_NETFILTER link_create.netfilter
        BPF_STRUCT_OPS BPF_F_LINK link_create.map_fd log_true_size btf_log_true_size
    """,
    (6, 5): "BPF_F_PATH_FD path_fd",
    (6, 6): """
        BPF_F_BEFORE BPF_F_AFTER BPF_F_ID relative_fd relative_id expected_revision
        BPF_TCX_INGRESS BPF_TCX_EGRESS BPF_LINK_TYPE_TCX link_create.tcx target_ifindex
        query.target_ifindex query.link_ids query.link_attach_flags query.revision
        BPF_TRACE_UPROBE_MULTI BPF_LINK_TYPE_UPROBE_MULTI BPF_F_UPROBE_MULTI_RETURN
        link_create.uprobe_multi BPF_F_NETFILTER_IP_DEFRAG
        BPF_PERF_EVENT_UNSPEC BPF_PERF_EVENT_UPROBE BPF_PERF_EVENT_URETPROBE
        BPF_PERF_EVENT_KPROBE BPF_PERF_EVENT_KRETPROBE BPF_PERF_EVENT_TRACEPOINT
        BPF_PERF_EVENT_EVENT
    """,
    (6, 7): """
        BPF_NETKIT_PRIMARY BPF_NETKIT_PEER BPF_LINK_TYPE_NETKIT link_create.netkit
        BPF_CGROUP_UNIX_CONNECT BPF_CGROUP_UNIX_SENDMSG BPF_CGROUP_UNIX_RECVMSG
        BPF_CGROUP_UNIX_GETPEERNAME BPF_CGROUP_UNIX_GETSOCKNAME
    """,
    (6, 8): "BPF_F_TEST_REG_INVARIANTS",
    (6, 9): """
        BPF_TOKEN_CREATE BPF_F_TOKEN_FD token_create map_token_fd prog_token_fd
        btf_token_fd btf_flags BPF_F_VTYPE_BTF_OBJ_FD value_type_btf_obj_fd
        BPF_MAP_TYPE_ARENA BPF_F_SEGV_ON_FAULT BPF_F_NO_USER_CONV
    """,
    (6, 10): "BPF_TRACE_KPROBE_SESSION BPF_LINK_TYPE_SOCKMAP raw_tracepoint.cookie",
    (6, 11): "BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
    (6, 13): "BPF_TRACE_UPROBE_SESSION",
    (6, 14): "fd_array_cnt",
    (6, 15): "BPF_F_PREORDER fd_by_id_token_fd",
    (6, 17): "BPF_PROG_STREAM_READ_BY_FD prog_stream_read link_create.cgroup",
    (6, 18): "excl_prog_hash excl_prog_hash_size signature signature_size keyring_id",
    (6, 19): "BPF_F_RB_OVERWRITE BPF_MAP_TYPE_INSN_ARRAY",
    (7, 0): """
        BPF_PROG_ASSOC_STRUCT_OPS prog_assoc_struct_ops BPF_F_CPU BPF_F_ALL_CPUS
        BPF_TRACE_FSESSION
    """,
    (7, 2): """
        BPF_COMMON_ATTRS BPF_MAP_TYPE_RHASH
        BPF_TRACE_FENTRY_MULTI BPF_TRACE_FEXIT_MULTI BPF_TRACE_FSESSION_MULTI
        BPF_LINK_TYPE_TRACING_MULTI link_create.tracing_multi
        BPF_F_UPROBE_MULTI_PATH_FD link_create.uprobe_multi.path_fd
    """,
}

# Members of union bpf_attr that are another's second name.
ALIASES = {
    "attach_btf_obj_fd": "attach_prog_fd; only the object behind it tells",
    "query.count": "query.prog_cnt, for links",
    "link_update.new_map_fd": "link_update.new_prog_fd; only the link tells",
    "link_update.old_map_fd": "link_update.old_prog_fd; only the link tells",
}

ENUMS = (
    "bpf_cmd", "bpf_map_type", "bpf_prog_type", "bpf_attach_type", "bpf_link_type",
    "bpf_perf_event_type", "bpf_task_fd_type", "bpf_stats_type",
)  # fmt: skip

# Their constants that we do not print: second names and counts.
UNPRINTED = re.compile(r"__MAX_BPF_\w+|BPF_PROG_RUN|\w+_DEPRECATED")

# Flags have no enum with a name; these are in the enums that do have the others.
FLAG_ENUMS = (
    "BPF_ANY", "BPF_F_NO_PREALLOC", "BPF_F_KPROBE_MULTI_RETURN", "BPF_F_UPROBE_MULTI_RETURN",
)  # fmt: skip

T = TypeVar("T")


# --- What the tables say -----------------------------------------------------------------


def _once(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    # Commands share structs and flags; each mention must say the same.
    found: dict[str, T] = {}
    for name, value in pairs:
        assert found.setdefault(name, value) == value, f"{name} is said twice and differs"
    return found


def _fields_of(layout: Layout, prefix: str) -> Iterator[tuple[str, Member]]:
    for slot in layout.slots:
        for field in slot.fields:
            yield prefix + field.name, Member(slot.offset, field.ctype.size)


def _every_field() -> Iterator[tuple[str, Member]]:
    for command in COMMANDS.values():
        prefix = f"{command.wrapper}." if command.wrapper else ""
        yield from _fields_of(command.layout, prefix)
        for arm, layout in command.arm_layouts:
            yield from _fields_of(layout, f"{prefix}{arm.name}." if arm.name else prefix)


def _every_constant() -> Iterator[tuple[str, int]]:
    yield "BPF_COMMON_ATTRS", COMMON_ATTRS
    yield "AT_FDCWD", DirFd.AT_FDCWD
    for command in COMMANDS.values():
        yield command.name, command.number
    for name, thing in vars(uapi).items():
        if isinstance(thing, Enum | Flags):
            yield from ((constant, number) for number, constant in thing.names.items())
        if isinstance(thing, Flags) and thing.zero:
            yield thing.zero, 0
        if isinstance(thing, int) and name.startswith("BPF_"):
            yield name, thing


FIELDS = _once(_every_field())
"""By C path in ``union bpf_attr``, such as ``link_create.tcx.relative_fd``."""

CONSTANTS = _once(_every_constant())


def _release_of(name: str) -> Release:
    # The newest release of which an entry is the name or a struct that holds it.
    holders = {name}
    while "." in name:
        name = name.rpartition(".")[0]
        holders.add(name)
    return max((r for r, names in NEWER.items() if holders & set(names.split())), default=OLDEST)


def _unexplained(lacking: Iterable[str], release: Release) -> list[str]:
    return sorted(name for name in lacking if _release_of(name) <= release)


def test_nothing_is_listed_as_newer_that_is_not_in_a_table() -> None:
    listed = {name for names in NEWER.values() for name in names.split()}
    structs = {path.rpartition(".")[0] for path in FIELDS}
    assert listed <= {*FIELDS, *CONSTANTS, *structs}


# --- Against the headers -----------------------------------------------------------------


def _compiled(
    checks: Mapping[str, str], headers: Sequence[str], *options: str
) -> tuple[set[str], set[str]]:
    """The names of checks that are false, and of those that are about unknown things.

    :param checks: a constant expression of C by the name of what it is about.
    """
    lines = [f"#include {header}" for header in ("<stddef.h>", *headers)]
    names = list(checks)
    start = len(lines) + 1
    lines += [f'_Static_assert({checks[name]}, "");' for name in names]
    compiler = ["gcc", "-x", "c", "-fsyntax-only", "-fmax-errors=0", *options, "-"]
    source = "\n".join(lines) + "\n"
    done = subprocess.run(compiler, input=source, capture_output=True, text=True, check=False)
    errors = re.findall(r"^<stdin>:(\d+):\d+: error: (.*)$", done.stderr, re.MULTILINE)
    assert bool(errors) == bool(done.returncode), done.stderr
    at_line = [(names[int(line) - start], message) for line, message in errors]
    unknown = {name for name, message in at_line if "static assertion" not in message}
    return {name for name, _ in at_line} - unknown, unknown


def _header_release() -> Release:
    source = "#include <linux/version.h>\nLINUX_VERSION_CODE\n"
    done = subprocess.run(
        ["gcc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True
    )
    code = int(done.stdout.split()[-1])
    return code >> 16, code >> 8 & 0xFF


def test_tables_agree_with_the_header(
    record_property: Callable[[str, object], None],
) -> None:
    release = _header_release()
    if release < OLDEST:
        pytest.skip(f"<linux/bpf.h> is of Linux {release}: too old to tell much")
    attr = "((union bpf_attr *)0)"
    checks = {
        path: f"offsetof(union bpf_attr, {path}) == {member.offset}"
        f" && sizeof({attr}->{path}) == {member.size}"
        for path, member in FIELDS.items()
    }
    checks |= {name: f"{name} == {value}" for name, value in CONSTANTS.items()}
    wrong, lacking = _compiled(checks, ["<linux/bpf.h>", "<linux/if_link.h>", "<linux/fcntl.h>"])
    record_property("not in the header", " ".join(sorted(lacking)))
    assert not {name: checks[name] for name in wrong}
    assert not _unexplained(lacking, release), "misspelt, or missing in NEWER?"


def test_a_wrong_table_would_be_found() -> None:
    wrong, lacking = _compiled(
        {
            "right": "offsetof(union bpf_attr, link_create.flags) == 12",
            "wrong": "offsetof(union bpf_attr, link_create.flags) == 16",
            "misspelt field": "offsetof(union bpf_attr, link_create.flogs) == 12",
            "misspelt constant": "BPF_MAP_TYPE_HUSH == 1",
        },
        ["<linux/bpf.h>"],
    )
    assert wrong == {"wrong"}
    assert lacking == {"misspelt field", "misspelt constant"}
    assert _unexplained(["link_create.flogs", "signature"], OLDEST) == ["link_create.flogs"]


# --- Against the running kernel ----------------------------------------------------------


@cache
def _btf() -> Btf:
    if not VMLINUX.exists():
        assert os.environ.get("BPFSNOOP_LIVE") != "1", f"{VMLINUX} is missing"
        pytest.skip(f"this kernel has no {VMLINUX}")
    return Btf(VMLINUX)


def _kernel_release() -> Release:
    major, minor = platform.release().split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


def test_fields_agree_with_the_running_kernel() -> None:
    members = _btf().union("bpf_attr")
    assert members
    assert not {
        path: (member, members[path])
        for path, member in FIELDS.items()
        if members.get(path, member) != member
    }
    lacking = FIELDS.keys() - members.keys()
    assert not _unexplained(lacking, _kernel_release()), "misspelt, or missing in NEWER?"


def test_constants_agree_with_the_running_kernel() -> None:
    values: dict[str, set[int]] = {}
    for enum in _btf().enums():
        for name, value in enum.items():
            values.setdefault(name, set()).add(value)
    assert not {
        name: (value, values[name])
        for name, value in CONSTANTS.items()
        if value not in values.get(name, {value})
    }
    # Flags may be macros, which BTF has not, but the whole of an enum is there.
    ours = {thing.c_type: thing.names for thing in vars(uapi).values() if isinstance(thing, Enum)}
    ours["bpf_cmd"] = {number: command.name for number, command in COMMANDS.items()}
    assert ours.keys() == set(ENUMS)
    names = {name for enum in ENUMS if _btf().enum(enum) for name in ours[enum].values()}
    assert {"BPF_MAP_CREATE", "BPF_MAP_TYPE_HASH", "BPF_PROG_TYPE_XDP", "BPF_LSM_MAC"} <= names
    lacking = names - values.keys()
    assert not _unexplained(lacking, _kernel_release()), "misspelt, or missing in NEWER?"


def test_the_running_kernel_has_nothing_that_the_tables_lack() -> None:
    btf = _btf()
    found = btf.union("bpf_attr").keys() - FIELDS.keys() - ALIASES.keys()
    for name in ENUMS:
        found |= {constant for constant in btf.enum(name) if constant not in CONSTANTS}
    for enum in btf.enums():
        if not enum.keys().isdisjoint(FLAG_ENUMS):
            found |= enum.keys() - CONSTANTS.keys()
    found = {name for name in found if not UNPRINTED.fullmatch(name)}
    if found and _kernel_release() > NEWEST:
        pytest.skip(f"this kernel is newer than the tables, and has {sorted(found)}")
    assert not found


# --- The records from our own kernel programs --------------------------------------------

# The members in the order of wire.h, as wire.py hands them on.
RECORDS = {
    "call_record": (
        wire.CALL_RECORD,
        ["kind", "flags", "parts_len", *Call._fields[1:-9], "reserved", "comm"],
    ),
    "part": (wire.PART, ["kind", "state", "slot", "len", "wanted"]),
    "object": (wire.OBJECT, [*Object._fields[:-2], "reserved", "name", "tag"]),
    "chunk_record": (
        wire.CHUNK_RECORD,
        ["kind", "tid", "start_ns", "part", "reserved", "slot", "offset", "len", "reserved2"],
    ),
    "process_record": (
        wire.PROCESS_RECORD,
        ["kind", *Image._fields[:-3], "exe_len", "args_len", "reserved", "parent_comm"],
    ),
    "memory_row": (
        wire.MEMORY_ROW,
        ["choices", "unit", "limit", "pointer", "count", "choice", "shape", "when"],
    ),
    "command_plan": (
        wire.COMMAND_PLAN,
        ["fd_count", "row_count", "returns_fd", "has_special", "special", "ring",
         "fds", "value_flags", "rows"],
    ),
    "call_count": (wire.CALL_COUNT, list(CommandCount._fields)),
    "traced_process": (wire.TRACED_PROCESS, ["flags", "threads"]),
    "tracer_config": (
        wire.TRACER_CONFIG,
        ["commands", "running", "filters", "self", "cgroups", "pid_namespace", "nsfs", "bulk_size"],
    ),
}  # fmt: skip

MACROS = {
    name: value
    for name, value in vars(wire).items()
    if isinstance(value, int) and re.fullmatch("[A-Z][A-Z_]+", name) and name != "RESULT"
} | {"COMMON_ATTRS": COMMON_ATTRS}


def _member_checks(struct: str, packing: Struct, names: list[str]) -> Iterator[tuple[str, str]]:
    codes = re.findall(r"\d*[a-zA-Z]", packing.format)
    before = packing.format[0]
    for name, code in zip(names, codes, strict=True):
        member = f"((struct {struct} *)0)->{name}"
        check = f"offsetof(struct {struct}, {name}) == {calcsize(before)}"
        check += f" && sizeof({member}) == {calcsize(code)}"
        if not code[0].isdigit():
            check += f" && ((__typeof__({member}))-1 < 0) == {int(code.islower())}"
        elif code[-1] != "s":
            check += f" && sizeof({member}[0]) == {calcsize(f'={code[-1]}')}"
        yield f"{struct}.{name}", check
        before += code
    yield struct, f"sizeof(struct {struct}) == {packing.size}"


def test_records_agree_with_wire_h() -> None:
    checks = {name: f"{name} == {value}" for name, value in MACROS.items()}
    for struct, (packing, names) in RECORDS.items():
        checks.update(_member_checks(struct, packing, names))
    wrong, lacking = _compiled(checks, [f'"{WIRE_H.name}"'], f"-I{WIRE_H.parent}", "-Wall")
    assert not {name: checks[name] for name in wrong}
    assert not lacking


def test_all_of_wire_h_is_mirrored() -> None:
    header = WIRE_H.read_text()
    assert set(re.findall(r"^struct (\w+) \{", header, re.MULTILINE)) == RECORDS.keys()
    constants = re.findall(r"^(?:#define |\t)([A-Z_0-9]+)[ \t]+(?:= )?\S", header, re.MULTILINE)
    assert set(constants) == MACROS.keys()


def test_what_wire_h_says_fits() -> None:
    """What is counted in so many bits, and records that the verifier must know the ends of."""
    header = [f'"{WIRE_H.name}"']
    checks = {
        "a part of attr": "ATTR_INLINE % 8 == 0 && ATTR_INLINE < ATTR_MAX",
        "slots": "(COMMAND_SLOTS & (COMMAND_SLOTS - 1)) == 0 && COMMAND_SLOTS <= 64",
        "counts and pointers": "COUNT_ONE > ATTR_MAX && COUNT_RETVAL > ATTR_MAX",
        "lengths of a process": "EXE_MAX < 1 << 16 && ARGS_MAX < 1 << 16",
        "padding": "sizeof(struct call_record) % 8 == 0 && sizeof(struct object) % 8 == 0"
        " && sizeof(struct chunk_record) % 8 == 0 && sizeof(struct process_record) % 8 == 0"
        " && sizeof(struct part) % 8 == 0",
    }
    assert _compiled(checks, header, f"-I{WIRE_H.parent}") == (set(), set())


def test_what_the_tracer_reads_of_its_own_programs_is_where_the_header_says() -> None:
    member = "recursion_misses"
    offset = own.RECURSION_MISSES.size - calcsize("=Q")
    check = f"offsetof(struct bpf_prog_info, {member}) == {offset}"
    assert _compiled({member: check}, ["<linux/bpf.h>"]) == (set(), set())
