# SPDX-License-Identifier: Apache-2.0
"""The line for people: strace's spelling, for every command and at every edge.

``golden`` has a line of each command. The rows here are about what is special:
structs that are cut short, names, errors, other ways to show constants, what the
kernel wrote. Like those, they are strace's lines unless a comment says otherwise.
"""

import errno
import re
from typing import NamedTuple

import pytest

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.links import LINK_CREATE
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import text
from bpfsnoop.events.call import COMMON_ATTRS, RESULT, Blob, Call, CallFlag, Object, PartState
from bpfsnoop.events.event import ATTR_READ_AT_EXIT, OUTPUT_UNREADABLE, PARTS_MISSING
from bpfsnoop.events.value import Style, Xlat, escape, printable
from bpfsnoop.events.wire import CALL_NO_ROOM, COMMAND_OTHER
from calls import (
    ATTR_ADDRESS,
    attr,
    blob,
    btf_of,
    call_of,
    link_of,
    map_of,
    prog_of,
)
from golden import ROWS, Row

PAGE = 4096
ADDRESS = hex(ATTR_ADDRESS)

DECODER = Decoder()


def line_of(call: Call, xlat: Xlat = Xlat.ABBREV, *, verbose: bool = False) -> str:
    event = DECODER.decode(call)
    return f"{text.call(event, Style(xlat, verbose))} = {text.result(event)}"


every_row = pytest.mark.parametrize("row", ROWS, ids=str)


# --- Every command -----------------------------------------------------------------------


def test_every_command_has_a_row() -> None:
    assert {row.cmd for row in ROWS} == set(COMMANDS)
    assert {row.cmd: row.command for row in ROWS} == {
        number: command.name for number, command in COMMANDS.items()
    }


def test_every_arm_of_link_create_has_a_row() -> None:
    shown = " ".join(row.shown for row in ROWS if row.cmd == LINK_CREATE.number)
    for arm in LINK_CREATE.arms:
        assert not arm.name or f", {arm.name}={{" in shown
    assert ", iter_info=" in shown
    assert ", target_btf_id=" in shown


@every_row
def test_line(row: Row) -> None:
    assert line_of(call_of(row.cmd, row.attr)) == row.line
    assert line_of(call_of(row.cmd, row.attr), verbose=True) == row.line


# --- The edges of attr -------------------------------------------------------------------


@every_row
def test_null_attr_shows_as_null(row: Row) -> None:
    call = call_of(row.cmd, size=len(row.attr), attr_addr=0)
    assert line_of(call) == f"bpf({row.command}, NULL, {len(row.attr)}) = 0"


@every_row
def test_size_zero_shows_the_address(row: Row) -> None:
    assert line_of(call_of(row.cmd)) == f"bpf({row.command}, {ADDRESS}, 0) = 0"


@every_row
def test_attr_that_ends_in_unmapped_memory_shows_the_address(row: Row) -> None:
    call = call_of(row.cmd, row.attr[:-1], size=len(row.attr), retval=-errno.EFAULT)
    fault = "-1 EFAULT (Bad address)"
    assert line_of(call) == f"bpf({row.command}, {ADDRESS}, {len(row.attr)}) = {fault}"


@every_row
def test_attr_that_we_could_not_read_though_the_kernel_did_is_shown_as_far_as_we_could(
    row: Row,
) -> None:
    """Else whoever makes the end of it vanish would hide all of it."""
    size = len(row.attr) + 100
    call = call_of(row.cmd, row.attr, size=size)
    assert line_of(call) == row.line.replace(
        f", {len(row.attr)}) = 0", f", {size}) = 0 /* attr_partly_read */"
    )


def test_fields_of_which_we_read_only_a_part_are_left_out() -> None:
    whole = attr("IIQQIIQII16s", 1, 2, 0xA, 0, 0, 0, 0, 0, 0, b"watch")
    for size in range(1, len(whole)):
        line = line_of(call_of(5, whole[:size], size=len(whole)))
        assert ("insn_cnt=2" in line) == (size >= 8)
        assert ("insns=0xa" in line) == (size >= 16)
        assert "prog_name" not in line


@every_row
def test_attr_that_is_mapped_during_the_call_shows_what_it_was_at_exit(row: Row) -> None:
    call = call_of(row.cmd, row.attr[:-1], row.attr, size=len(row.attr))
    assert line_of(call) == row.line
    assert DECODER.decode(call).notes == (ATTR_READ_AT_EXIT,)


# Those whose struct the kernel writes into: without its bytes at exit something is missing.
ROWS_WITH_OUTPUT = {
    "prog_load", "prog_test_run", "prog_get_next_id", "map_get_next_id", "btf_get_next_id",
    "link_get_next_id", "obj_get_info_by_fd", "prog_query", "prog_query-of_netdev", "btf_load",
    "task_fd_query", "map_lookup_batch", "map_lookup_and_delete_batch", "map_update_batch",
    "map_delete_batch",
}  # fmt: skip


@every_row
def test_attr_that_is_unmapped_during_the_call_shows_what_it_was_at_entry(row: Row) -> None:
    call = call_of(row.cmd, row.attr, b"", size=len(row.attr))
    assert line_of(call) == row.line
    expected = (OUTPUT_UNREADABLE,) if row.name in ROWS_WITH_OUTPUT else ()
    assert DECODER.decode(call).notes == expected


@every_row
@pytest.mark.parametrize("more", [1, 8, 200])
def test_zeros_behind_the_last_field_say_nothing(row: Row, more: int) -> None:
    call = call_of(row.cmd, row.attr.ljust(len(row.attr) + more, b"\0"))
    assert line_of(call) == f"bpf({row.command}, {row.shown}, {len(row.attr) + more}) = 0"


@every_row
def test_bytes_behind_the_last_field_show_as_dots_and_with_verbose_in_full(row: Row) -> None:
    call = call_of(row.cmd, row.attr + b"\0\xde\0")
    known, size = len(row.attr), len(row.attr) + 3
    shown = row.shown.removesuffix("}")
    assert line_of(call) == f"bpf({row.command}, {shown}, ...}}, {size}) = 0"
    assert line_of(call, verbose=True) == (
        f'bpf({row.command}, {shown}, extra_data="\\x00\\xde\\x00"'
        f" /* bytes {known}..{size - 1} */}}, {size}) = 0"
    )


@every_row
def test_a_page_is_shown_and_a_page_plus_one_is_not(row: Row) -> None:
    page = row.attr.ljust(PAGE, b"\0")
    assert line_of(call_of(row.cmd, page)) == f"bpf({row.command}, {row.shown}, 4096) = 0"
    call = call_of(row.cmd, page, size=PAGE + 1)
    assert line_of(call) == f"bpf({row.command}, {ADDRESS}, 4097) = 0"


# --- Structs that are cut short ----------------------------------------------------------

# Command, how many of its bytes were passed, and what the line shows of them. A
# field is there if its first byte is (or its group's); what is missing is zero.
CUTS = (
    ("map_create", 1, "{map_type=BPF_MAP_TYPE_HASH, key_size=0, value_size=0, max_entries=0}"),
    ("map_create", 7, "{map_type=BPF_MAP_TYPE_HASH, key_size=4253261, "
                      "value_size=0, max_entries=0}"),
    ("map_create", 17, "{…, max_entries=3735941133, "
                       "map_flags=BPF_F_NUMA_NODE|BPF_F_RDONLY_PROG}"),
    ("map_create", 20, "{…, map_flags=BPF_F_NUMA_NODE|BPF_F_RDONLY_PROG|BPF_F_RB_OVERWRITE}"),
    ("map_create", 24, "{…, inner_map_fd=-559038737}"),
    ("map_create", 25, "{…, inner_map_fd=-559038737, numa_node=222}"),
    ("map_create", 29, '{…, numa_node=3735929054, map_name=""...}'),
    ("map_create", 31, '{…, numa_node=3735929054, map_name="od"...}'),
    ("map_create", 44, '{…, numa_node=3735929054, map_name="odd_map"}'),
    ("map_create", 49, '{…, map_ifindex=if_nametoindex("lo"), btf_fd=190, '
                       "btf_key_type_id=0, btf_value_type_id=0}"),
    ("map_create", 61, "{…, btf_value_type_id=4207869677, btf_vmlinux_value_type_id=13}"),
    ("map_create", 64, "{…, btf_vmlinux_value_type_id=3405705229}"),
    ("map_create", 65, "{…, btf_vmlinux_value_type_id=3405705229, map_extra=239}"),
    ("map_create", 76, "{…, value_type_btf_obj_fd=-1153374643}"),
    ("map_create", 81, "{…, map_token_fd=-1576685468, excl_prog_hash=0xed, "
                       "excl_prog_hash_size=0}"),
    ("map_lookup_elem", 4, "{map_fd=-559038737, key=NULL, value=NULL}"),
    ("map_lookup_elem", 24, "{…, value=0xdeadf00dcafe1234}"),
    ("map_lookup_elem", 25, "{…, value=0xdeadf00dcafe1234, flags=BPF_F_ALL_CPUS|BPF_F_LOCK}"),
    ("map_update_elem", 24, "{…, value=0xdeadf00dcafe1234, flags=BPF_ANY}"),
    ("prog_load", 24, "{…, license=0xdeadf00dcafe1234}"),
    ("prog_load", 25, "{…, log_level=77, log_size=0, log_buf=NULL}"),
    ("prog_load", 40, "{…, log_buf=0x1badc0dedeadbeef}"),
    ("prog_load", 42, "{…, kern_version=KERNEL_VERSION(0, 240, 13)}"),
    ("prog_load", 45, "{…, kern_version=KERNEL_VERSION(51966, 240, 13), "
                      "prog_flags=BPF_F_SLEEPABLE|BPF_F_XDP_DEV_BOUND_ONLY|"
                      "BPF_F_TEST_REG_INVARIANTS}"),
    ("prog_load", 72, "{…, expected_attach_type=BPF_LSM_MAC}"),
    ("prog_load", 73, "{…, prog_btf_fd=239, func_info_rec_size=0, func_info=NULL, "
                      "func_info_cnt=0, line_info_rec_size=0, line_info=NULL, line_info_cnt=0}"),
    ("prog_load", 116, "{…, attach_btf_id=3740978897, attach_prog_fd=-889275714}"),
    # strace leaves core_relo_cnt out up to size 128.
    ("prog_load", 120, "{…, attach_prog_fd=-889275714, core_relo_cnt=3135025150}"),
    ("prog_load", 124, "{…, core_relo_cnt=3135025150, fd_array=0x90abcdef}"),
    ("prog_load", 129, "{…, fd_array=0x1234567890abcdef, core_relos=0x10, core_relo_rec_size=0}"),
    ("prog_load", 140, "{…, core_relo_rec_size=3735927486}"),
    ("prog_load", 144, "{…, log_true_size=4277009102}"),
    ("prog_load", 152, "{…, prog_token_fd=-1153374643, fd_array_cnt=2576980378}"),
    ("prog_load", 157, "{…, signature=0x1e5e1f1e55, signature_size=0, keyring_id=0}"),
    ("obj_get", 12, "{pathname=0xfacefeedbadc0ded, bpf_fd=-559038737}"),
    ("obj_get", 16, "{…, bpf_fd=-559038737, file_flags=BPF_F_RDONLY}"),
    ("prog_attach", 16, "{…, attach_flags=BPF_F_BEFORE|BPF_F_LINK}"),
    ("prog_attach", 20, "{…, replace_bpf_fd=-1153374643}"),
    ("prog_attach", 21, "{…, relative_fd=237, expected_revision=0}"),
    ("prog_test_run", 8, "{test={prog_fd=-559038737, retval=3735941133, data_size_in=0, "
                         "data_size_out=0, data_in=NULL, data_out=NULL, repeat=0, duration=0}}"),
    ("prog_test_run", 40, "{…, duration=3203386110}}"),
    ("prog_test_run", 44, "{…, ctx_size_in=2880220587, ctx_size_out=0, ctx_in=NULL, "
                          "ctx_out=NULL}}"),
    ("prog_test_run", 72, "{…, flags=BPF_F_TEST_SKB_CHECKSUM_COMPLETE, cpu=2576980378}}"),
    ("map_get_next_id", 4, "{start_id=2718281828, next_id=0}"),
    ("map_get_fd_by_id", 8, "{map_id=3141592653}"),
    ("btf_get_fd_by_id", 9, "{btf_id=3141592653, open_flags=0, fd_by_id_token_fd=0}"),
    ("obj_get_info_by_fd", 4, "{info={bpf_fd=-559038737, info_len=0, info=NULL}}"),
    ("prog_query", 32, "{…, prog_ids=0xfacefeedbadc0ded, prog_cnt=3141592653}}"),
    ("prog_query", 40, "{…, prog_attach_flags=0xdeadf00dcafe1234}}"),
    ("prog_query", 41, "{…, link_ids=0xef, link_attach_flags=NULL, revision=0}}"),
    ("raw_tracepoint_open", 16, "{raw_tracepoint={name=0xfacefeedbadc0ded, prog_fd=-559038737}}"),
    # strace shows the cookie only if all of it is there.
    ("raw_tracepoint_open", 18, "{…, prog_fd=-559038737, cookie=0x1234}}"),
    ("btf_load", 28, "{…, btf_log_level=3735941133}"),
    ("btf_load", 32, "{…, btf_log_true_size=3134983661}"),
    ("btf_load", 33, "{…, btf_log_true_size=3134983661, btf_flags=0, btf_token_fd=0}"),
    ("task_fd_query", 16, "{task_fd_query={pid=-559026163, fd=-559038737, flags=3134983661, "
                          "buf_len=3141592653, buf=NULL, prog_id=0, "
                          "fd_type=BPF_FD_TYPE_RAW_TRACEPOINT, probe_offset=0, probe_addr=0}}"),
    ("link_create-tcx", 4, "{link_create={prog_fd=-559038737, target_fd=0, "
                           "attach_type=BPF_CGROUP_INET_INGRESS, flags=0}}"),
    ("link_create-tcx", 16, "{…, attach_type=BPF_TCX_INGRESS, flags=BPF_F_BEFORE|BPF_F_ID}}"),
    ("link_create-tcx", 17, "{…, tcx={relative_id=13, expected_revision=0}}}"),
    ("link_create-cgroup_freplace", 17, "{…, flags=0, target_btf_id=13}}"),
    ("link_create-iter", 24, "{…, iter_info=0xfacefeedbadc0ded, iter_info_len=0}}"),
    ("link_create-kprobe_multi", 20, "{…, kprobe_multi={flags=BPF_F_KPROBE_MULTI_RETURN|0x2, "
                                     "cnt=0, syms=NULL, addrs=NULL, cookies=NULL}}}"),
    ("link_create-uprobe_multi", 60, "{…, pid=-559026163}}}"),
    ("link_create-uprobe_multi", 61, "{…, pid=-559026163, path_fd=77}}}"),
    ("link_update", 8, "{link_update={link_fd=-559038737, new_prog_fd=-889275714, flags=0}}"),
    ("token_create", 4, "{token_create={flags=0xdeadf00d, bpffs_fd=0}}"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "size", "shown"), CUTS)
def test_a_short_attr_shows_the_fields_it_reaches_into(name: str, size: int, shown: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    line = line_of(call_of(row.cmd, row.attr[:size]))
    before, _, after = shown.partition("…")
    assert line.startswith(f"bpf({row.command}, {before}")
    assert line.endswith(f"{after}, {size}) = 0")


# --- Fields in detail --------------------------------------------------------------------


def field_of(name: str, call: Call, xlat: Xlat = Xlat.ABBREV) -> str:
    """The value of one field as it stands in the line."""
    found = re.search(rf"[ {{]{name}=(.*?)(?=, \w+=|}})", line_of(call, xlat))
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"fifteen_letters\0", '"fifteen_letters"'),
        (b"sixteen__letters", '"sixteen__letter"...'),
        (b"abc\0invisible\0\0\0", '"abc"'),
        (b"\0" * 16, '""'),
        (b"abc", '"ab"...'),
        (b"ab\0", '"ab"'),
        (b"a", '""...'),
        (b"\0", '""'),
        (b'a"b\\c\t\n\r\v\f\0', r'"a\"b\\c\t\n\r\v\f"'),
        (b"\x1b[2J\x07\x7f\xff\0", r'"\33[2J\7\177\377"'),
        (b"\x011\x018\x01a\0", r'"\0011\18\1a"'),
        ("naïve\0".encode(), r'"na\303\257ve"'),
    ],
)
def test_names(name: bytes, shown: str) -> None:
    assert field_of("map_name", call_of(0, attr("7I", *[0] * 7) + name)) == shown
    assert field_of("prog_name", call_of(5, attr("12I", *[0] * 12) + name)) == shown


@pytest.mark.parametrize(
    ("cmd", "flags", "shown"),
    [
        (1, 0, "BPF_ANY"),
        (1, 0x1F, "BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|0x3"),
        (1, 0x3, "0x3 /* BPF_??? */"),
        (2, 0, "BPF_ANY"),
        (2, 0x1, "BPF_NOEXIST"),
        (2, 0x3F, "BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|BPF_EXIST|BPF_NOEXIST|0x20"),
        # The number of a CPU is in the upper half.
        (2, 0x7_0000_000A, "BPF_F_CPU|BPF_EXIST|0x700000000"),
        (2, 0xF00D_0000_0000, "0xf00d00000000 /* BPF_??? */"),
    ],
)
def test_flags_of_elements_start_with_the_highest_bit(cmd: int, flags: int, shown: str) -> None:
    assert field_of("flags", call_of(cmd, attr("iQQQ", 3, 0, 0, flags))) == shown


_LINK = "BPF_F_LINK|BPF_F_SEGV_ON_FAULT|BPF_F_NO_USER_CONV|BPF_F_RB_OVERWRITE|0xc0d00000"

# Command, field, attr, and the field by default, with -X raw and with -X verbose.
CONSTANTS: tuple[tuple[int, str, bytes, str, str, str], ...] = (
    (0, "map_type", attr("I", 35),
     "BPF_MAP_TYPE_RHASH", "0x23", "0x23 /* BPF_MAP_TYPE_RHASH */"),
    (0, "map_type", attr("I", 36),
     "0x24 /* BPF_MAP_TYPE_??? */", "0x24", "0x24 /* BPF_MAP_TYPE_??? */"),
    (0, "map_type", attr("I", 0),
     "BPF_MAP_TYPE_UNSPEC", "0", "0 /* BPF_MAP_TYPE_UNSPEC */"),
    (0, "map_flags", attr("5I", 1, 4, 8, 1, 0),
     "0", "0", "0"),
    (0, "map_flags", attr("5I", 1, 4, 8, 1, 0xFFF00000),
     "0xfff00000 /* BPF_F_??? */", "0xfff00000", "0xfff00000 /* BPF_F_??? */"),
    # strace knows the first 14 bits.
    (0, "map_flags", attr("5I", 1, 4, 8, 1, 0xC0DE2000),
     _LINK, "0xc0de2000", f"0xc0de2000 /* {_LINK} */"),
    (0, "numa_node", attr("7I", 1, 4, 8, 1, 4, 0, 0xFFFFFFFF),
     "4294967295 /* NUMA_NO_NODE */", "4294967295", "4294967295 /* NUMA_NO_NODE */"),
    (0, "map_ifindex", attr("7I16sI", 1, 4, 8, 1, 0, 0, 0, b"", 1),
     'if_nametoindex("lo")', "1", '1 /* if_nametoindex("lo") */'),
    (0, "map_ifindex", attr("7I16sI", 1, 4, 8, 1, 0, 0, 0, b"", 0),
     "0", "0", "0"),
    (0, "map_extra", attr("7I16s5IQ", 1, 4, 8, 1, *[0] * 3, b"", *[0] * 5, (1 << 64) - 1),
     "UINT64_MAX", "18446744073709551615", "18446744073709551615 /* UINT64_MAX */"),
    (2, "flags", attr("iQQQ", 3, 0, 0, 0),
     "BPF_ANY", "0", "0 /* BPF_ANY */"),
    (2, "flags", attr("iQQQ", 3, 0, 0, 6),
     "BPF_F_LOCK|BPF_EXIST", "0x6", "0x6 /* BPF_F_LOCK|BPF_EXIST */"),
    (5, "prog_type", attr("I", 33),
     "0x21 /* BPF_PROG_TYPE_??? */", "0x21", "0x21 /* BPF_PROG_TYPE_??? */"),
    (5, "kern_version", attr("IIQQIIQI", 1, 2, 0, 0, 0, 0, 0, 0xCAFEF00D),
     "KERNEL_VERSION(51966, 240, 13)", "0xcafef00d",
     "0xcafef00d /* KERNEL_VERSION(51966, 240, 13) */"),
    (5, "kern_version", attr("IIQQIIQI", 1, 2, 0, 0, 0, 0, 0, 0),
     "KERNEL_VERSION(0, 0, 0)", "0", "0 /* KERNEL_VERSION(0, 0, 0) */"),
    (6, "path_fd", attr("QIIi", 0, 3, 0x4000, -100),
     "AT_FDCWD", "-100", "-100 /* AT_FDCWD */"),
    (6, "bpf_fd", attr("QiIi", 0, -100, 0, 0),
     "-100", "-100", "-100"),
    (8, "attach_type", attr("4I", 0, 0, 62, 0),
     "0x3e /* BPF_??? */", "0x3e", "0x3e /* BPF_??? */"),
    (16, "query_flags", attr("3I", 0, 0, 2),
     "0x2 /* BPF_F_QUERY_??? */", "0x2", "0x2 /* BPF_F_QUERY_??? */"),
    (32, "type", attr("I", 0xDEADF00D),
     "0xdeadf00d /* BPF_STATS_??? */", "0xdeadf00d", "0xdeadf00d /* BPF_STATS_??? */"),
    (33, "flags", attr("iI", 3, 0xDEADF00D),
     "0xdeadf00d", "0xdeadf00d", "0xdeadf00d"),
)  # fmt: skip


@pytest.mark.parametrize("row", CONSTANTS, ids=lambda row: f"{row[1]}={row[3]}")
def test_constants(row: tuple[int, str, bytes, str, str, str]) -> None:
    cmd, name, entry, *shown = row
    call = call_of(cmd, entry)
    assert [field_of(name, call, xlat) for xlat in Xlat] == shown


# --- The command -------------------------------------------------------------------------

_ATTR = f"{ADDRESS}, 4"

# The number, and the arguments by default, with -X raw and with -X verbose.
COMMAND_ROWS = (
    (22, "BPF_MAP_FREEZE, {map_fd=3}, 4",
     "0x16, {map_fd=3}, 4", "0x16 /* BPF_MAP_FREEZE */, {map_fd=3}, 4"),
    (0, "BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_PROG_ARRAY, key_size=0, value_size=0, "
     "max_entries=0}, 4",
     "0, {map_type=0x3, key_size=0, value_size=0, max_entries=0}, 4",
     "0 /* BPF_MAP_CREATE */, {map_type=0x3 /* BPF_MAP_TYPE_PROG_ARRAY */, key_size=0, "
     "value_size=0, max_entries=0}, 4"),
    (60, f"0x3c /* BPF_??? */, {_ATTR}", f"0x3c, {_ATTR}", f"0x3c /* BPF_??? */, {_ATTR}"),
    (0xCAFEF00D, f"0xcafef00d /* BPF_??? */, {_ATTR}",
     f"0xcafef00d, {_ATTR}", f"0xcafef00d /* BPF_??? */, {_ATTR}"),
    # strace knows neither the bit nor the arguments that come with it.
    (22 | COMMON_ATTRS, "BPF_MAP_FREEZE|BPF_COMMON_ATTRS, {map_fd=3}, 4, 0xabad1dea, 24",
     "0x10016, {map_fd=3}, 4, 0xabad1dea, 24",
     "0x10016 /* BPF_MAP_FREEZE|BPF_COMMON_ATTRS */, {map_fd=3}, 4, 0xabad1dea, 24"),
    # The bit of a number that nobody knows may be noise, as in -1, and so the arguments.
    (60 | COMMON_ATTRS, f"0x1003c /* BPF_??? */, {_ATTR}",
     f"0x1003c, {_ATTR}", f"0x1003c /* BPF_??? */, {_ATTR}"),
)  # fmt: skip


@pytest.mark.parametrize("row", COMMAND_ROWS, ids=lambda row: hex(row[0]))
def test_commands(row: tuple[int, str, str, str]) -> None:
    cmd, *shown = row
    common = (0xABAD1DEA, 24) if cmd & COMMON_ATTRS else (0, 0)
    call = call_of(cmd, attr("i", 3), common=common)
    assert [line_of(call, xlat) for xlat in Xlat] == [f"bpf({line}) = 0" for line in shown]


def test_common_attrs_that_are_not_there() -> None:
    line = line_of(call_of(22 | COMMON_ATTRS, attr("i", 3)))
    assert line == "bpf(BPF_MAP_FREEZE|BPF_COMMON_ATTRS, {map_fd=3}, 4, NULL, 0) = 0"


def test_constants_of_a_newer_kernel_show_by_its_names() -> None:
    decoder = Decoder({
        "bpf_cmd": {0: "BPF_OTHER", 60: "BPF_NEW_COMMAND", COMMON_ATTRS: "BPF_COMMON_ATTRS"},
        "bpf_map_type": {1: "BPF_MAP_TYPE_OTHER", 36: "BPF_MAP_TYPE_NEW"},
        "bpf_attach_type": {62: "BPF_NEW_HOOK"},
        "bpf_link_type": {16: "BPF_LINK_TYPE_NEW"},
        "bpf_reg_type": {1: "NOT_INIT"},
    })  # fmt: skip

    def call(cmd: int, entry: bytes) -> str:
        return text.call(decoder.decode(call_of(cmd, entry)))

    assert call(0, attr("4I", 36, 4, 8, 1)) == (
        "bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_NEW, key_size=4, value_size=8, "
        "max_entries=1}, 16)"
    )
    assert call(0, attr("4I", 1, 4, 8, 1)).startswith(
        "bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, "
    )
    assert "attach_type=BPF_NEW_HOOK" in call(28, attr("4I", 3, 4, 62, 0))
    assert "attach_type=BPF_NEW_HOOK" in call(8, attr("4I", 3, 4, 62, 0))
    assert call(60, attr("i", 3)) == f"bpf(BPF_NEW_COMMAND, {_ATTR})"
    assert call(40, attr("i", 3)) == f"bpf(0x28 /* BPF_??? */, {_ATTR})"
    names = decoder.slot_names()
    assert names[0] == "BPF_MAP_CREATE"
    assert names.keys() == {*COMMANDS, 60, COMMAND_OTHER}, "COMMON_ATTRS is a bit, not a command"


# --- What the kernel wrote ---------------------------------------------------------------


# What was passed, what it had become when the call returned, and what the line shows.
OUTPUTS = (
    (11, attr("II", 5, 0), attr("II", 5, 6), "{start_id=5, next_id=6}"),
    (15, attr("iIQ", 3, 232, 0xCAFE), attr("iIQ", 3, 228, 0xCAFE),
     "{info={bpf_fd=3, info_len=232 => 228, info=0xcafe}}"),
    (18, attr("QQIIII", 0xCAFE, 0, 24, 0, 0, 0), attr("QQIIII", 0xCAFE, 0, 24, 0, 0, 333),
     "{btf=0xcafe, btf_log_buf=NULL, btf_size=24, btf_log_size=0, btf_log_level=0, "
     "btf_log_true_size=333}"),
    (20, attr("IiIIQIIQQ", 77, 3, 0, 32, 0xCAFE, 0, 0, 0, 0),
     attr("IiIIQIIQQ", 77, 3, 0, 9, 0xCAFE, 45, 2, 0x40, 0xFFFF8000),
     "{task_fd_query={pid=77, fd=3, flags=0, buf_len=32 => 9, buf=0xcafe, prog_id=45, "
     "fd_type=BPF_FD_TYPE_KPROBE, probe_offset=0x40, probe_addr=0xffff8000}}"),
    (24, attr("QQQQIiQQ", 0, 1, 2, 3, 1000, 5, 0, 0),
     attr("QQQQIiQQ", 0, 1, 2, 3, 17, 5, 0, 0),
     "{batch={in_batch=NULL, out_batch=0x1, keys=0x2, values=0x3, count=1000, map_fd=5, "
     "elem_flags=BPF_ANY, flags=0}} => {batch={count=17}}"),
    (27, attr("QQQQIiQQ", 0, 0, 2, 0, 1000, 5, 0, 7) + b"\1",
     attr("QQQQIiQQ", 0, 0, 2, 0, 0, 5, 0, 7) + b"\1",
     "{batch={keys=0x2, count=1000, map_fd=5, elem_flags=BPF_ANY, flags=0x7}, ...} "
     "=> {batch={count=0}}"),
    # strace shows retval and duration as they were passed, and no change of the sizes.
    (10, attr("iIIIQQIIIIQQ", 3, 0, 14, 64, 0xA, 0xB, 5, 0, 2, 8, 0xC, 0xD),
     attr("iIIIQQIIIIQQ", 3, 2, 14, 14, 0xA, 0xB, 5, 99, 2, 4, 0xC, 0xD),
     "{test={prog_fd=3, retval=2, data_size_in=14, data_size_out=64 => 14, data_in=0xa, "
     "data_out=0xb, repeat=5, duration=99, ctx_size_in=2, ctx_size_out=8 => 4, ctx_in=0xc, "
     "ctx_out=0xd}}"),
    # strace shows attach_flags as they were passed.
    (16, attr("iIIIQIIQQQQ", 3, 6, 0, 0, 0xA, 8, 0, 0xB, 0xC, 0xD, 0),
     attr("iIIIQIIQQQQ", 3, 6, 0, 2, 0xA, 1, 0, 0xB, 0xC, 0xD, 5),
     "{query={target_fd=3, attach_type=BPF_CGROUP_DEVICE, query_flags=0, "
     "attach_flags=BPF_F_ALLOW_MULTI, prog_ids=0xa, prog_cnt=8 => 1, "
     "prog_attach_flags=0xb, link_ids=0xc, link_attach_flags=0xd, revision=0x5}}"),
)  # fmt: skip


@pytest.mark.parametrize(("cmd", "entry", "exit_", "shown"), OUTPUTS)
def test_what_the_kernel_wrote(cmd: int, entry: bytes, exit_: bytes, shown: str) -> None:
    line = line_of(call_of(cmd, entry, exit_))
    assert line == f"bpf({COMMANDS[cmd].name}, {shown}, {len(entry)}) = 0"


def test_what_changed_under_the_kernel_is_marked() -> None:
    """Nobody but the caller writes it: what is shown may not be what the kernel acted on."""
    swapped = call_of(22, attr("i", 3), attr("i", 4))
    assert line_of(swapped) == (
        "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = 0 /* toctou_suspect: map_fd */"
    )


def test_a_call_of_which_only_the_end_was_seen_is_marked() -> None:
    late = call_of(22, b"", attr("i", 3), size=4, flags=CallFlag.NO_ENTRY)
    assert line_of(late) == "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = 0 /* entry_unseen */"


def test_a_call_of_which_the_end_was_not_seen_has_no_result() -> None:
    lost = call_of(22, b"", attr("i", 3), size=4, flags=CallFlag.NO_EXIT)
    assert line_of(lost) == "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = ? /* exit_unseen */"


def test_length_of_the_verifier_log() -> None:
    entry = next(row for row in ROWS if row.name == "prog_load").attr[:144]
    call = call_of(5, entry, entry[:140] + attr("I", 143), retval=-13)
    assert field_of("log_true_size", call) == "143"


# --- What pointers lead to ---------------------------------------------------------------

LOAD = attr("IIQQIIQ", 1, 3, 0x1000, 0x2000, 1, 500, 0x3000)
PIN = attr("Qi", 0x1000, 5)
ELEM = attr("iQQQ", 3, 0x1000, 0x2000, 0)
QUERY = attr("iIIIQIIQ", 3, 6, 0, 0, 0x1000, 3, 0, 0x2000)
KPROBES = attr("iiII", 3, 0, 42, 0) + attr("IIQQQ", 0, 3, 0x1000, 0x2000, 0x3000)
UPROBES = attr("iiII", 3, 0, 48, 0) + attr("QQQQIIi", 0x1000, 0x2000, 0, 0x3000, 3, 0, 7)
OPEN = attr("QiI", 0x1000, 3, 0)
STREAM = attr("QIIi", 0x1000, 9000, 1, 3)
BTF = attr("QQIII", 0x1000, 0x2000, 300, 500, 1)
FD_ARRAY = LOAD.ljust(120, b"\0") + attr("Q", 0x1000)
SIGNED = LOAD.ljust(152, b"\0") + attr("QI", 0x1000, 40)

CUT, UNREADABLE, TAIL = PartState.CUT, PartState.UNREADABLE, PartState.TAIL
REFUSED = b"0: (bf) r0 = r3\nR3 !read_ok\nprocessed 1 insns (limit 1000000)\n\0"
FORTY = b"0123456789" * 4
NUMBERS = attr("3I", 1, 22, 0xFFFFFFFF)
WIDE = attr("3Q", 1, 0x10, (1 << 64) - 1)
MANY = attr("40I", *range(40))


class Led(NamedTuple):
    """A pointer, what it leads to, and how that is spelled."""

    cmd: int
    attr: bytes
    slot: int
    pointer: str
    """As the line would have it otherwise."""
    blob: Blob
    shown: str
    style: Style = Style()


# They are strace's but for keys, values and packets, and for logs, of which strace shows
# the beginning before the call.
LED = (
    # Strings: up to the NUL, and not more than -s of it.
    Led(5, LOAD, 16, "license=0x2000", blob(b"GPL\0"), '"GPL"'),
    Led(5, LOAD, 16, "license=0x2000", blob(b"GPL\0", state=CUT), '"GPL"'),
    Led(5, LOAD, 16, "license=0x2000", blob(b"\0"), '""'),
    Led(5, LOAD, 16, "license=0x2000", blob(b"Dual\0", read=9), '"Dual"'),
    Led(5, LOAD, 16, "license=0x2000", blob(FORTY + b"\0"), f'"{FORTY[:32].decode()}"...'),
    Led(5, LOAD, 16, "license=0x2000", blob(FORTY[:32] + b"\0"), f'"{FORTY[:32].decode()}"'),
    Led(5, LOAD, 16, "license=0x2000", blob(b"GPL\0"), '"GP"...', Style(strings=2)),
    Led(5, LOAD, 16, "license=0x2000", blob(b"GPL\0"), '"GPL"', Style(strings=3)),
    Led(5, LOAD, 16, "license=0x2000", blob(b"GPL\0"), '""...', Style(strings=0)),
    Led(5, LOAD, 16, "license=0x2000", blob(FORTY + b"\0"), f'"{FORTY.decode()}"',
        Style(strings=40)),
    Led(5, LOAD, 16, "license=0x2000", blob(FORTY[:20], state=CUT), f'"{FORTY[:20].decode()}"...'),
    Led(5, LOAD, 16, "license=0x2000", blob(b'a"\n\x1b[2J\xff1\0'), r'"a\"\n\33[2J\3771"'),
    # Memory that ends before the string does.
    Led(5, LOAD, 16, "license=0x2000", blob(b"GP", state=UNREADABLE), '"GP"... /* 0x2002 */'),
    Led(5, LOAD, 16, "license=0x2000", blob(FORTY, state=UNREADABLE),
        f'"{FORTY[:32].decode()}"...'),
    Led(17, OPEN, 0, "name=0x1000", blob(b"task_rename\0"), '"task_rename"'),
    # Paths are whole whatever -s says.
    Led(6, PIN, 0, "pathname=0x1000", blob(b"/sys/fs/bpf/" + FORTY + b"\0"),
        f'"/sys/fs/bpf/{FORTY.decode()}"'),
    Led(7, PIN, 0, "pathname=0x1000", blob(b"/a\0"), '"/a"', Style(strings=0)),
    Led(6, PIN, 0, "pathname=0x1000", blob(b"/" * 4096, state=CUT), f'"{"/" * 4096}"...'),
    Led(6, PIN, 0, "pathname=0x1000", blob(b"/a", state=UNREADABLE), '"/a"... /* 0x1002 */'),
    Led(28, UPROBES, 16, "path=0x1000", blob(b"/usr/lib/libc.so.6\0"), '"/usr/lib/libc.so.6"'),
    # Nothing could be read, or it was lost: the address says so.
    Led(5, LOAD, 16, "license=0x2000", blob(b"", state=UNREADABLE), "0x2000"),
    Led(6, PIN, 0, "pathname=0x1000", blob(b"", state=UNREADABLE), "0x1000"),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(b"", 12, UNREADABLE), "0x1000"),
    Led(2, ELEM, 16, "value=0x2000", blob(b"", 4096, read=4096), "0x2000"),
    # Keys, values and what has no structure that we know.
    Led(2, ELEM, 8, "key=0x1000", blob(b"\0\x7f\xffA"), r'"\x00\x7f\xff\x41"'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(40)), '"' + r"\x00" * 32 + '"...'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(32)), '"' + r"\x00" * 32 + '"'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(4), 9, CUT), '"' + r"\x00" * 4 + '"...'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(4), 9, UNREADABLE),
        '"' + r"\x00" * 4 + '"... /* 0x2004 */'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(4), 9, UNREADABLE), r'"\x00"...',
        Style(strings=1)),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(4), 9, UNREADABLE, read=6),
        '"' + r"\x00" * 4 + '"...'),
    Led(2, ELEM, 16, "value=0x2000", blob(bytes(40)), '"' + r"\x00" * 32 + '"...',
        Style(verbose=True)),
    Led(18, BTF, 0, "btf=0x1000", blob(b"\x9f\xeb", 300, CUT), r'"\237\353"...'),
    Led(5, SIGNED, 152, "signature=0x1000", blob(bytes(40)), '"' + r"\x00" * 32 + '"...'),
    # Arrays: -s counts elements, and -v has all.
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS), "[1, 22, 4294967295]"),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(b""), "[]"),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS), "[1, 22, ...]", Style(strings=2)),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS), "[1, 22, 4294967295]", Style(strings=3)),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS), "[...]", Style(strings=0)),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(MANY),
        f"[{', '.join(map(str, range(32)))}, ...]"),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(MANY),
        f"[{', '.join(map(str, range(40)))}]", Style(verbose=True)),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS, 400, CUT),
        "[1, 22, 4294967295, ...]", Style(verbose=True)),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS[:8], 12, UNREADABLE),
        "[1, 22, ... /* 0x1008 */]"),
    # The address is that of the element that is not all there.
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS[:10], 12, UNREADABLE),
        "[1, 22, ... /* 0x1008 */]"),
    Led(16, QUERY, 16, "prog_ids=0x1000", blob(NUMBERS[:8], 12, UNREADABLE),
        "[1, ...]", Style(strings=1)),
    Led(16, QUERY, 32, "prog_attach_flags=0x2000", blob(attr("3I", 0, 3, 1 << 31)),
        "[0, BPF_F_ALLOW_OVERRIDE|BPF_F_ALLOW_MULTI, 0x80000000 /* BPF_F_??? */]"),
    Led(16, QUERY, 32, "prog_attach_flags=0x2000", blob(attr("2I", 0, 2)),
        "[0, 0x2 /* BPF_F_ALLOW_MULTI */]", Style(Xlat.VERBOSE)),
    Led(28, KPROBES, 40, "cookies=0x3000", blob(WIDE), "[0x1, 0x10, 0xffffffffffffffff]"),
    Led(28, KPROBES, 32, "addrs=0x2000", blob(attr("2Q", 0xFFFFFFFF81000000, 0)),
        "[0xffffffff81000000, 0]"),
    Led(28, UPROBES, 24, "offsets=0x2000", blob(attr("2Q", 0x1040, 0)), "[0x1040, 0]"),
    Led(28, UPROBES, 40, "cookies=0x3000", blob(WIDE[:9], 24, UNREADABLE),
        "[0x1, ... /* 0x3008 */]"),
    Led(5, FD_ARRAY, 120, "fd_array=0x1000", blob(attr("2i", 4, -1)), "[4, -1]"),
    # Strings that an array of pointers leads to; what is missing is a pointer there.
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"vfs_read\0vfs_write\0", 2),
        '["vfs_read", "vfs_write"]'),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"\0a\0", 2), '["", "a"]'),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"vfs_read\0", 3, CUT), '["vfs_read", ...]'),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"a\0b\0c\0", 3), '["a", "b", ...]',
        Style(strings=2)),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"abcd\0", 1), '["abc"...]', Style(strings=3)),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b"vfs_read\0vfs_write\0", 3, UNREADABLE),
        '["vfs_read", "vfs_write", ... /* 0x1010 */]'),
    Led(28, KPROBES, 24, "syms=0x1000", blob(b'\x1b"\0', 1), r'["\33\""]'),
    # A log has its end, and with -v all that came of it.
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"processed 2 insns\n\0"), r'"processed 2 insns\n"'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(FORTY + b"\0"), f'..."{FORTY[8:].decode()}"'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(FORTY + b"\0"), f'"{FORTY.decode()}"',
        Style(verbose=True)),
    # Why it was refused stands before what was counted.
    Led(5, LOAD, 32, "log_buf=0x3000", blob(REFUSED), r'"0: (bf) r0 = r3\nR3 !read_ok\n"...'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(REFUSED), r'..."R3 !read_ok\n"...', Style(strings=12)),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(REFUSED), f'"{escape(REFUSED[:-1])}"',
        Style(strings=99)),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(REFUSED), f'"{escape(REFUSED[:-1])}"',
        Style(verbose=True)),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"end\0", state=TAIL), '..."end"'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"end\0", state=TAIL), '..."end"',
        Style(verbose=True)),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"", 0), '""'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"abc", 9, UNREADABLE), '"abc"...'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"abc\0", 9, UNREADABLE), '"abc"'),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"abc\0"), '..."c"', Style(strings=1)),
    Led(5, LOAD, 32, "log_buf=0x3000", blob(b"abc\0"), '...""', Style(strings=0)),
    Led(18, BTF, 8, "btf_log_buf=0x2000", blob(b"magic: 0xeb9f\n\0"), r'"magic: 0xeb9f\n"'),
    Led(37, STREAM, 0, "stream_buf=0x1000", blob(b"hello\n"), r'"hello\n"'),
    Led(37, STREAM, 0, "stream_buf=0x1000", blob(b"hello", 9000, CUT), '"hello"...'),
    # Only -v shows what the kernel tells of an object.
    Led(15, attr("iIQ", 3, 8, 0x1000), 8, "info=0x1000", blob(b"\1\2"), "0x1000"),
    Led(15, attr("iIQ", 3, 8, 0x1000), 8, "info=0x1000", blob(b"\1\2"), r'"\x01\x02"',
        Style(verbose=True)),
)  # fmt: skip


@pytest.mark.parametrize("led", LED, ids=lambda led: f"{led.pointer} {led.shown[:40]}")
def test_what_a_pointer_leads_to(led: Led) -> None:
    plain = line_of(call_of(led.cmd, led.attr), led.style.xlat, verbose=led.style.verbose)
    assert plain.count(led.pointer) == 1
    name = led.pointer.partition("=")[0]
    event = DECODER.decode(call_of(led.cmd, led.attr, memory={led.slot: led.blob}))
    assert text.call(event, led.style) + " = 0" == plain.replace(led.pointer, f"{name}={led.shown}")
    assert [field for field, _ in event.memory] == [name]


def test_memory_that_came_for_another_field_is_not_shown() -> None:
    """Of the arms of a union only one applies, and numbers lead nowhere."""
    for slot in (0, 8, 16, 40, 4000):
        call = call_of(28, attr("iiIIQ", 3, 0, 41, 0, 0x1000), memory={slot: blob(b"abcd")})
        assert line_of(call) == line_of(call._replace(memory={}))
        assert DECODER.decode(call).memory == ()


def test_batches_show_what_their_pointers_lead_to_and_their_count() -> None:
    entry = attr("QQQQIiQQ", 0x1000, 0x2000, 0x3000, 0x4000, 2, 5, 0, 0)
    exit_ = attr("QQQQIiQQ", 0x1000, 0x2000, 0x3000, 0x4000, 1, 5, 0, 0)
    memory = {0: blob(b"\1"), 8: blob(b"\2"), 16: blob(b"\3"), 24: blob(b"\4")}
    assert line_of(call_of(24, entry, exit_, memory=memory)) == (
        r'bpf(BPF_MAP_LOOKUP_BATCH, {batch={in_batch="\x01", out_batch="\x02", keys="\x03", '
        r'values="\x04", count=2, map_fd=5, elem_flags=BPF_ANY, flags=0}} => {batch={count=1}}, '
        "56) = 0"
    )


# --- Instructions ------------------------------------------------------------------------

LOAD_OF = attr("IIQQ", 1, 2, 0x1000, 0)


def insns_of(data: bytes, style: Style, wanted: int | None = None, state: int = 0) -> str:
    """How a line shows the instructions of a program."""
    call = call_of(5, LOAD_OF, memory={8: blob(data, wanted, state)})
    line = text.call(DECODER.decode(call), style)
    found = re.search(r"insns=(.*), license=", line)
    assert found
    return found[1]


EXIT = bytes.fromhex("9500000000000000")


def test_instructions_are_an_address_without_verbose() -> None:
    assert insns_of(EXIT, Style()) == "0x1000"
    assert insns_of(EXIT, Style(strings=1000)) == "0x1000"


@pytest.mark.parametrize(
    ("data", "wanted", "state", "shown"),
    [
        (EXIT[:7], 16, 0, "[...]"),
        (EXIT, 16, CUT, "[EXIT, ...]"),
        (EXIT, 16, UNREADABLE, "[EXIT, ... /* 0x1008 */]"),
        (EXIT * 2, 16, 0, "[EXIT, EXIT]"),
        (b"", 0, 0, "[]"),
        (b"", 16, UNREADABLE, "0x1000"),
    ],
)
def test_instructions_that_are_missing(data: bytes, wanted: int, state: int, shown: str) -> None:
    one = "{code=BPF_JMP|BPF_K|BPF_EXIT, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0}"
    expected = shown.replace("EXIT", one)
    assert insns_of(data, Style(verbose=True), wanted, state) == expected


# --- Objects behind descriptors ----------------------------------------------------------


def test_a_descriptor_shows_the_object_behind_it() -> None:
    call = call_of(
        28,
        attr("iiIIQ", 3, 4, 41, 0, 0x77),
        retval=5,
        objects={0: prog_of(), 4: map_of(), RESULT: link_of()},
    )
    assert line_of(call) == (
        'bpf(BPF_LINK_CREATE, {link_create={prog_fd=3<prog:31 kprobe "watch">, '
        'target_fd=4<map:12 hash "config">, attach_type=BPF_PERF_EVENT, flags=0, '
        "perf_event={bpf_cookie=0x77}}}, 24) = 5<link:4 perf_event prog:31>"
    )


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (map_of(), 'map:12 hash "config"'),
        (map_of(name=b""), "map:12 hash"),
        (map_of(type=27), 'map:12 ringbuf "config"'),
        (map_of(type=0xDEAD), 'map:12 0xdead "config"'),
        (map_of(name=b'\x1b[2J>"\n\xff'), r'map:12 hash "\33[2J>\"\n\377"'),
        (prog_of(type=31), 'prog:31 syscall "watch"'),
        (link_of(prog_id=0), "link:4 perf_event"),
        (link_of(type=2), "link:4 tracing prog:31"),
        (btf_of(), "btf:7"),
        (btf_of(name=b"vmlinux"), 'btf:7 "vmlinux"'),
    ],
)
def test_objects(found: Object, shown: str) -> None:
    opened = call_of(7, attr("QII", 0x1000, 0, 0), retval=5, objects={RESULT: found})
    assert line_of(opened).endswith(f", 16) = 5<{shown}>")
    frozen = call_of(22, attr("i", 3), objects={0: found})
    assert line_of(frozen) == f"bpf(BPF_MAP_FREEZE, {{map_fd=3<{shown}>}}, 4) = 0"


def test_a_returned_object_is_shown_though_attr_is_not() -> None:
    call = call_of(13, size=4, retval=7, objects={RESULT: prog_of(), 0: map_of()})
    assert line_of(call) == (
        f'bpf(BPF_PROG_GET_FD_BY_ID, {ADDRESS}, 4) = 7<prog:31 kprobe "watch">'
    )


def test_a_number_is_not_taken_for_a_descriptor() -> None:
    """TCX links name an interface where others have a descriptor."""
    call = call_of(28, attr("iiII", 3, 4, 46, 0), objects={4: map_of(), 8: map_of()})
    assert line_of(call) == line_of(call._replace(objects={}))
    assert DECODER.decode(call).behind == ()


def test_types_of_a_newer_kernel_show_by_its_names() -> None:
    decoder = Decoder({"bpf_map_type": {77: "BPF_MAP_TYPE_NEW_THING"}})
    event = decoder.decode(call_of(22, attr("i", 3), objects={0: map_of(type=77)}))
    assert "map_fd=3<map:12 new_thing " in text.call(event)


# --- The result --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retval", "shown"),
    [
        (0, "0"),
        (3, "3"),
        (0x7FFFFFFF, "2147483647"),
        (1 << 40, "1099511627776"),
        (-1, "-1 EPERM (Operation not permitted)"),
        (-2, "-1 ENOENT (No such file or directory)"),
        (-7, "-1 E2BIG (Argument list too long)"),
        (-11, "-1 EAGAIN (Resource temporarily unavailable)"),
        (-22, "-1 EINVAL (Invalid argument)"),
        # Numbers with two names.
        (-35, "-1 EDEADLK (Resource deadlock avoided)"),
        (-95, "-1 EOPNOTSUPP (Operation not supported)"),
        (-524, "-1 ENOTSUPP (Unknown error 524)"),
        (-41, "-1 (errno 41)"),
        (-600, "-1 (errno 600)"),
        (-4095, "-1 (errno 4095)"),
        (-512, "? ERESTARTSYS (To be restarted if SA_RESTART is set)"),
        (-513, "? ERESTARTNOINTR (To be restarted)"),
        (-514, "? ERESTARTNOHAND (To be restarted if no handler)"),
        (-516, "? ERESTART_RESTARTBLOCK (Interrupted by signal)"),
        # No error any more; strace takes it for an unsigned number.
        (-4096, "-4096"),
    ],
)
def test_results(retval: int, shown: str) -> None:
    """Behind them may be why it failed, see test_why.py."""
    line = line_of(call_of(22, attr("i", 3), retval=retval)).partition(" /* ")[0]
    assert line == f"bpf(BPF_MAP_FREEZE, {{map_fd=3}}, 4) = {shown}"


def test_why_it_failed_stands_behind_the_result() -> None:
    line = line_of(call_of(22, attr("i", 3), retval=-524))
    assert line.endswith(
        " = -1 ENOTSUPP (Unknown error 524) /* maps of this type cannot be frozen */"
    )


def test_what_a_caller_wrote_into_its_log_does_not_end_the_remark() -> None:
    load = call_of(
        5, attr("IIQQIIQ", 1, 1, 1, 2, 1, 64, 3), retval=-13, memory={32: blob(b"x */ = 3")}
    )
    assert line_of(load).endswith("/* x * / = 3 */")


# --- Strings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "escaped"),
    [
        (b"", ""),
        (b"plain ASCII, ~!@#$%^&*()", "plain ASCII, ~!@#$%^&*()"),
        (b'"\\', r"\"\\"),
        (b"\0", r"\0"),
        (b"\x000", r"\0000"),
        (b"\0\0", r"\0\0"),
        (b"\x007", r"\0007"),
        (b"\x008", r"\08"),
        (b"\x1b]0;owned\x07", r"\33]0;owned\7"),
        (b"\x9b31m", r"\23331m"),
        (b"\xff", r"\377"),
        (b"\n0", r"\n0"),
    ],
)
def test_bytes_are_spelled_as_in_a_c_string(data: bytes, escaped: str) -> None:
    assert escape(data) == escaped
    assert printable(data) == escaped.replace(r"\"", '"')


def test_a_record_without_room_for_all_says_so() -> None:
    call = call_of(22, attr("i", 3))._replace(flags=CALL_NO_ROOM)
    assert Decoder().decode(call).notes == (PARTS_MISSING,)
    assert Decoder().decode(call._replace(flags=0)).notes == ()


# --- Descriptor 0 ------------------------------------------------------------------------

OF_MAPS, REPLACE, BTF_TYPES = 12, 1 << 2, 1


@pytest.mark.parametrize(
    ("cmd", "passed", "at", "shown"),
    [
        (0, attr("6I", 1, 4, 4, 1, 0, 0), 20, "inner_map_fd=0}"),
        (0, attr("6I", OF_MAPS, 4, 4, 1, 0, 0), 20, "inner_map_fd=0<map:"),
        (0, attr("5I28x3I", 1, 4, 4, 1, 0, 0, 0, 0), 48, "btf_fd=0,"),
        (0, attr("5I28x3I", 1, 4, 4, 1, 0, 0, 0, BTF_TYPES), 48, "btf_fd=0<map:"),
        (8, attr("5I", 3, 4, 0, 0, 0), 16, "replace_bpf_fd=0}"),
        (8, attr("5I", 3, 4, 0, REPLACE, 0), 16, "replace_bpf_fd=0<map:"),
        (22, attr("I", 0), 0, "map_fd=0<map:"),
    ],
)
def test_descriptor_0_is_one_where_the_kernel_takes_it_for_one(
    cmd: int, passed: bytes, at: int, shown: str
) -> None:
    """Most commands have it mean none, and then it is no matter what is open there."""
    event = DECODER.decode(call_of(cmd, passed, objects={at: map_of()}))
    assert shown in f"{text.call(event)}"
