# SPDX-License-Identifier: Apache-2.0
"""``--strace-compat``: the lines of strace 7.2, made from bytes.

tests/test_live_strace.py holds them against strace itself.
"""

import errno

import pytest

from bpfsnoop.decoders.capture import plans
from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.strace import COMMANDS
from bpfsnoop.decoders.strace_view import View
from bpfsnoop.decoders.table import COMMANDS as OURS
from bpfsnoop.events import text
from bpfsnoop.events.call import COMMON_ATTRS, RESULT, Blob, Call, CallFlag, PartState
from bpfsnoop.events.value import Style, Xlat
from bpfsnoop.events.wire import SLOT_INSIDE
from calls import ATTR_ADDRESS, attr, blob, btf_of, call_of, link_of, map_of, prog_of
from golden import ROWS, Row

PAGE = 4096
ADDRESS = hex(ATTR_ADDRESS)
UNREADABLE = PartState.UNREADABLE


class Names:
    """What a host may know."""

    def descriptor(self, tid: int, fd: int) -> bytes:
        files = {0: b"/dev/null", 3: b"/a<b>\x01", 5: b"/gone (deleted)", -100: b"/root"}
        return files.get(fd, b"") if tid == call_of(0).tid else b""

    def interface(self, index: int) -> bytes:
        return {1: b"lo", 2: b"eth0", 9: b'e"\n'}.get(index, b"")

    def time_of_day(self, time_ns: int) -> str:
        return f"at {time_ns}"


def line_of(call: Call, style: Style = Style(), *, descriptors: bool = False) -> str:  # noqa: B008
    """Of a call that began a second past the epoch, on a host that was booted with it."""
    return " = ".join(View(Names(), descriptors=descriptors).line(call, style, call.start_ns))


VERBOSE = Style(verbose=True)
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


# --- Every command at the edges of attr --------------------------------------------------


def test_every_command_of_ours_has_its_counterpart() -> None:
    assert list(COMMANDS) == list(OURS)
    assert {n: (c.name, c.wrapper) for n, c in COMMANDS.items()} == {
        n: (c.name, c.wrapper) for n, c in OURS.items()
    }


def trailing(row: Row) -> bool:
    """strace shows an end of it as bytes that it does not know."""
    return row.instead[1].endswith("...")


@every_row
def test_line(row: Row) -> None:
    assert line_of(call_of(row.cmd, row.attr)) == row.strace_line


@every_row
@pytest.mark.parametrize("xlat", [Xlat.RAW, Xlat.VERBOSE])
def test_constants_are_spelled_as_in_our_lines(row: Row, xlat: Xlat) -> None:
    call, style = call_of(row.cmd, row.attr), Style(xlat)
    event = Decoder().decode(call)
    ours = f"{text.call(event, style)} = {text.result(event)}"
    if xlat is Xlat.RAW:  # of what it has other names for, the numbers are the same
        differs = trailing(row) or row.name == "link_create-struct_ops"
    else:
        differs = bool(row.instead[0])
    assert (line_of(call, style) == ours) is not differs


@every_row
def test_line_with_all_that_is_left_out_by_default(row: Row) -> None:
    line = line_of(call_of(row.cmd, row.attr), VERBOSE)
    if trailing(row):
        shown, _, _ = row.strace_line.partition(", ...")
        data = "".join(f"\\x{byte:02x}" for byte in row.attr[16:])
        last = len(row.attr) - 1
        assert line.startswith(f'{shown}, extra_data="{data}" /* bytes 16..{last} */')
    else:
        assert line == row.strace_line


@every_row
def test_attr_that_is_not_there(row: Row) -> None:
    size = len(row.attr)
    command = row.command
    absent = call_of(row.cmd, size=size, attr_addr=0)
    assert line_of(absent) == f"bpf({command}, NULL, {size}) = 0"
    assert line_of(call_of(row.cmd)) == f"bpf({command}, {ADDRESS}, 0) = 0"
    cut = call_of(row.cmd, row.attr[:-1], size=size, retval=-errno.EFAULT)
    assert line_of(cut) == f"bpf({command}, {ADDRESS}, {size}) = -1 EFAULT (Bad address)"


@every_row
@pytest.mark.parametrize("more", [1, 8, 200])
def test_zeros_behind_the_last_field_say_nothing(row: Row, more: int) -> None:
    size = len(row.attr) + more
    expected = row.strace_line.replace(f", {len(row.attr)}) = 0", f", {size}) = 0")
    assert line_of(call_of(row.cmd, row.attr.ljust(size, b"\0"))) == expected


@every_row
def test_bytes_behind_the_last_field(row: Row) -> None:
    call = call_of(row.cmd, row.attr + b"\0\xde\0")
    shown = row.strace_line[: row.strace_line.rindex("}")].removesuffix(", ...")
    assert line_of(call) == f"{shown}, ...}}, {len(row.attr) + 3}) = 0"
    if not trailing(row):
        first, last = len(row.attr), len(row.attr) + 2
        extra = f'extra_data="\\x00\\xde\\x00" /* bytes {first}..{last} */'
        assert line_of(call, VERBOSE) == f"{shown}, {extra}}}, {last + 1}) = 0"


@every_row
def test_a_page_is_shown_and_a_page_plus_one_is_not(row: Row) -> None:
    page = row.attr.ljust(PAGE, b"\0")
    expected = row.strace_line.replace(f", {len(row.attr)}) = 0", f", {PAGE}) = 0")
    assert line_of(call_of(row.cmd, page)) == expected
    more = call_of(row.cmd, page, size=PAGE + 1)
    assert line_of(more) == f"bpf({row.command}, {ADDRESS}, 4097) = 0"


# Command, how many of its bytes were passed, and what the line shows of them, where it is
# something else than ours.
CUTS = (
    ("prog_load", 116, "attach_btf_id=3740978897, attach_prog_fd=-889275714}"),
    ("prog_load", 120, "attach_btf_id=3740978897, attach_prog_fd=-889275714}"),
    ("prog_load", 124, "attach_prog_fd=-889275714, fd_array=0x90abcdef}"),
    ("prog_load", 128, "attach_prog_fd=-889275714, fd_array=0x1234567890abcdef}"),
    ("prog_load", 129, "core_relo_cnt=3135025150, fd_array=0x1234567890abcdef, core_relos=0x10, "
                       "core_relo_rec_size=0}"),
    ("raw_tracepoint_open", 23, "prog_fd=-559038737}}"),
    ("raw_tracepoint_open", 24, "prog_fd=-559038737, cookie=0xdeadf00dcafe1234}}"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "size", "shown"), CUTS)
def test_a_short_attr(name: str, size: int, shown: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    assert line_of(call_of(row.cmd, row.attr[:size])).endswith(f"{shown}, {size}) = 0")


def test_a_command_with_the_bit_of_common_attributes_is_unknown() -> None:
    call = call_of(22 | COMMON_ATTRS, attr("i", 3), common=(0xABAD1DEA, 24))
    assert line_of(call) == f"bpf(0x10016 /* BPF_??? */, {ADDRESS}, 4) = 0"
    assert line_of(call, Style(Xlat.RAW)) == f"bpf(0x10016, {ADDRESS}, 4) = 0"
    assert line_of(call_of(60, attr("i", 3))) == f"bpf(0x3c /* BPF_??? */, {ADDRESS}, 4) = 0"


def test_no_remarks() -> None:
    """What is to be distrusted is not strace's to say."""
    call = call_of(22, attr("i", 3), flags=CallFlag.NO_EXIT)
    assert line_of(call) == "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = ?"


# --- What the kernel wrote ---------------------------------------------------------------


def test_what_a_test_run_gives_back_is_not_looked_at() -> None:
    entry = attr("iIIIQQII", 3, 0, 64, 64, 1, 2, 1, 0)
    exit_ = attr("iIIIQQII", 3, 7, 64, 48, 1, 2, 1, 99)
    assert line_of(call_of(10, entry, exit_)) == (
        "bpf(BPF_PROG_TEST_RUN, {test={prog_fd=3, retval=0, data_size_in=64, data_size_out=64,"
        " data_in=0x1, data_out=0x2, repeat=1, duration=0}}, 40) = 0"
    )


def test_what_a_batch_did_stands_behind_it() -> None:
    entry = attr("QQQQIiQQ", 0, 1, 2, 3, 16, 4, 0, 0)
    exit_ = attr("QQQQIiQQ", 0, 1, 2, 3, 5, 4, 0, 0)
    line = line_of(call_of(24, entry, exit_, retval=-errno.ENOENT))
    assert line.endswith("}} => {batch={count=5}}, 56) = -1 ENOENT (No such file or directory)")


# --- What pointers lead to ---------------------------------------------------------------

LICENSE = attr("IIQQ", 1, 0, 0, 0xA0)
BTF = attr("QQI", 0xA0, 0, 40)


def license_of(shown: Blob) -> str:
    line = line_of(call_of(5, LICENSE, memory={16: shown}))
    return line[line.index("license=") + 8 : line.index("}")]


def test_a_string_is_shown_whole_or_not_at_all() -> None:
    assert license_of(blob(b"GPL\0")) == '"GPL"'
    assert license_of(blob(b"x" * 32 + b"\0")) == f'"{"x" * 32}"'
    assert license_of(blob(b"x" * 33 + b"\0")) == f'"{"x" * 32}"...'
    assert license_of(blob(b"", 0, UNREADABLE)) == "0xa0"
    assert license_of(blob(b"it ends with its page", 21, UNREADABLE)) == "0xa0"
    assert license_of(blob(b"x" * 32, 32, UNREADABLE)) == "0xa0"
    assert license_of(blob(b"x" * 33, 33, UNREADABLE)) == f'"{"x" * 32}"...'


def btf_shown(shown: Blob) -> str:
    line = line_of(call_of(18, BTF, memory={0: shown}))
    return line[line.index("btf=") + 4 : line.index(", btf_log_buf")]


def test_so_are_bytes_that_are_counted() -> None:
    assert btf_shown(blob(b"\x9f\xeb\1\0")) == r'"\237\353\1\0"'
    assert btf_shown(blob(b"x" * 40)) == f'"{"x" * 32}"...'
    assert btf_shown(blob(b"x" * 16, 40, UNREADABLE)) == "0xa0"
    assert btf_shown(blob(b"x" * 36, 40, UNREADABLE)) == f'"{"x" * 32}"...'
    assert btf_shown(blob(b"", 0)) == '""'


def test_the_log_is_what_the_buffer_held_before() -> None:
    entry = attr("IIQQIIQ", 1, 0, 0, 0, 1, 64, 0xA0)

    def log(aside: Blob | None, size: int = 64) -> str:
        told = attr("IIQQIIQ", 1, 0, 0, 0, 1, size, 0xA0) if size != 64 else entry
        call = call_of(5, told, memory={32: blob(b"refused\n\0", state=PartState.TAIL)})
        line = line_of(call._replace(aside={32: aside} if aside else {}))
        return line[line.index("log_buf=") + 8 : line.index("}")]

    assert log(blob(bytes(64))) == '""'
    assert log(blob(b"of the load before\0".ljust(64, b"x"))) == '"of the load before"'
    assert log(blob(b"o" * 64)) == f'"{"o" * 32}"...'
    assert log(blob(b"o" * 8), 8) == '"oooooooo"...'
    assert log(blob(b""), 0) == '""'
    assert log(blob(b"", 64, UNREADABLE)) == "0xa0"
    # A recording that was made without the option has only what it held afterwards.
    assert log(None) == "0xa0"


def test_a_recording_that_was_made_without_the_option_shows_addresses() -> None:
    """Where what was taken is not what strace reads."""
    for cmd, entry, shown in (
        (15, attr("iIQ", 3, 64, 0xA0), "info=0xa0"),
        (20, attr("iiIIQ", 3, 4, 0, 8, 0xA0), "buf=0xa0"),
        (28, attr("iiIIQI", 3, 0, 28, 0, 0xA0, 16), "iter_info=0xa0"),
        (37, attr("QII", 0xA0, 16, 1), "stream_buf=0xa0"),
    ):
        memory = dict.fromkeys((0, 8, 16), blob(b"0123456789abcdef"))
        call = call_of(cmd, entry, memory=memory, objects={0: map_of()})
        assert shown in line_of(call, VERBOSE)
    ids = call_of(16, attr("iIIIQI", 3, 0, 0, 0, 0xA0, 1), memory={16: blob(attr("I", 7))})
    assert "prog_ids=[7]" in line_of(ids)


def test_contents_of_maps_stay_addresses() -> None:
    call = call_of(2, attr("iQQQ", 3, 0xA, 0xB, 0), objects={0: map_of()},
                   memory={8: blob(b"key_"), 16: blob(b"value___")})  # fmt: skip
    assert line_of(call) == (
        "bpf(BPF_MAP_UPDATE_ELEM, {map_fd=3, key=0xa, value=0xb, flags=BPF_ANY}, 32) = 0"
    )


def test_the_length_of_iter_info_is_taken_for_a_number_of_descriptors() -> None:
    entry = attr("iiIIQI", 3, 0, 28, 0, 0xA0, 3)
    aside = blob(attr("iiI", 3, 9, 0), 12)
    call = call_of(28, entry)._replace(aside={16: aside})
    infos = "[{map={map_fd=3}}, {map={map_fd=9}}, {map={map_fd=0}}]"
    assert f"iter_info={infos}, iter_info_len=3}}}}" in line_of(call)
    named = line_of(call, descriptors=True)
    assert r"iter_info=[{map={map_fd=3</a\74b\76\1>}}, {map={map_fd=9}}" in named
    assert "{map={map_fd=0</dev/null>}}]" in named


def test_answers_are_shown_if_the_query_succeeded() -> None:
    entry, exit_ = (attr("iIIIQI", 3, 0, 0, 0, 0xA0, count) for count in (0, 2))
    aside = {16: blob(attr("II", 7, 8))}
    done = call_of(16, entry, exit_)._replace(aside=aside)
    assert "prog_ids=[7, 8], prog_cnt=0 => 2}}" in line_of(done)
    failed = done._replace(retval=-errno.ENOSPC)
    assert "prog_ids=0xa0, prog_cnt=0 => 2}}" in line_of(failed)
    none = call_of(16, entry, retval=-errno.EBADF)._replace(aside={16: blob(b"")})
    assert "prog_ids=[], prog_cnt=0}}" in line_of(none)


EXIT = bytes.fromhex("9500000000000000")
INSNS = bytes.fromhex("b70100000000000096000000010000000600000000000000")


@pytest.mark.parametrize(
    ("xlat", "codes"),
    [
        (Xlat.ABBREV, ["BPF_ALU64|BPF_K|BPF_MOV", "BPF_JMP32|0x90 /* BPF_??? */", "BPF_JMP32"]),
        (Xlat.RAW, ["0x7|0|0xb0", "0x6|0x90 /* BPF_??? */", "0x6"]),
        (Xlat.VERBOSE, ["0x7 /* BPF_ALU64 */|0 /* BPF_K */|0xb0 /* BPF_MOV */",
                        "0x6 /* BPF_JMP32 */|0x90 /* BPF_??? */", "0x6 /* BPF_JMP32 */"]),
    ],
)  # fmt: skip
def test_instructions(xlat: Xlat, codes: list[str]) -> None:
    call = call_of(5, attr("IIQQ", 1, 3, 0xA0, 0), memory={8: blob(INSNS)})
    line = line_of(call, Style(xlat, verbose=True))
    assert [part.partition(", dst")[0] for part in line.split("{code=")[1:]] == codes
    assert "insns=0xa0" in line_of(call, Style(xlat))


# --- What OBJ_GET_INFO_BY_FD says --------------------------------------------------------

MAP_INFO = attr("6I16sIIQQ", 1, 12, 4, 8, 64, 0x4000, b"config", 0, 0, 0x803, 7)
PROG_INFO = attr("II8sIIQQQIIQ16s", 6, 31, b"\1tag\0\0\0\2", 30, 32, 0xA1, 0, 5, 0xFFFFFFFF, 1, 0,
                 b"watch")  # fmt: skip


def info_of(before: bytes, after: bytes, kind: str, retval: int = 0) -> str:
    entry, exit_ = (attr("iIQ", 3, len(each), 0xA0) for each in (before, after))
    call = call_of(15, entry, exit_, retval=retval, memory={} if retval else {8: blob(after)},
                   objects={0: map_of() if kind == "map" else prog_of()})  # fmt: skip
    line = line_of(call._replace(aside={8: blob(before)}), VERBOSE)
    assert line_of(call).count("info=0xa0")
    return line[line.index("info_len=") : line.index("}}")]


def test_info_of_a_map() -> None:
    assert info_of(bytes(100), MAP_INFO, "map") == (
        "info_len=100 => 64, info={type=BPF_MAP_TYPE_HASH, id=12, key_size=4, value_size=8,"
        ' max_entries=64, map_flags=0x4000 /* BPF_F_??? */, name="config", ifindex=0,'
        " btf_vmlinux_value_type_id=0, netns_dev=makedev(0x8, 0x3), netns_ino=7"
    )


def test_info_of_a_program() -> None:
    assert info_of(bytes(len(PROG_INFO)), PROG_INFO, "prog") == (
        "info_len=80, info={type=BPF_PROG_TYPE_XDP, id=31,"
        r' tag="\x01\x74\x61\x67\x00\x00\x00\x02", jited_prog_len=0 => 30, jited_prog_insns=0xa1,'
        " xlated_prog_len=0 => 32, xlated_prog_insns=NULL, load_time=5 /* at 5 */,"
        ' created_by_uid=-1, nr_map_ids=0 => 1, map_ids=NULL, name="watch"'
    )


def test_what_the_info_of_a_program_points_to() -> None:
    """Of instructions and maps as many as there was room for, of machine code all."""
    before, after = (
        attr("II8sIIQQQIIQ", 6, 31, bytes(8), jited, xlated, 0xA1, 0xA2, 0, 0, maps, 0xA3)
        for jited, xlated, maps in ((4, 8, 1), (5, 16, 2))
    )
    aside = {
        8: blob(before),
        SLOT_INSIDE | 24: blob(b"\x0f\x1f\0\0\xc3"),
        SLOT_INSIDE | 32: blob(EXIT + EXIT),
        SLOT_INSIDE | 56: blob(attr("II", 7, 8)),
    }
    entry = attr("iIQ", 3, len(before), 0xA0)
    call = call_of(15, entry, memory={8: blob(after)}, objects={0: prog_of()})
    line = line_of(call._replace(aside=aside), VERBOSE)
    one = "{code=BPF_JMP|BPF_K|BPF_EXIT, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0}"
    assert r'jited_prog_len=4 => 5, jited_prog_insns="\x0f\x1f\x00\x00\xc3"' in line
    assert f"xlated_prog_len=8 => 16, xlated_prog_insns=[{one}], load" in line
    assert "nr_map_ids=1 => 2, map_ids=[7], name=" in line
    # Of a map the same bytes are something else.
    assert "type=BPF_MAP_TYPE_PERCPU_ARRAY" in line_of(
        call._replace(aside=aside, objects={0: map_of()}), VERBOSE
    )


def test_info_that_was_refused_is_what_was_passed() -> None:
    shown = info_of(MAP_INFO + bytes(36) + b"\1", MAP_INFO + bytes(36) + b"\1", "map", -errno.E2BIG)
    assert shown.endswith(r', extra_data="\x01" /* bytes 100..100 */')


# --- Descriptors -------------------------------------------------------------------------


def test_descriptors_lead_to_files() -> None:
    entry = attr("iiI", 7, 8, 0)
    call = call_of(35, entry, objects={0: prog_of(), 4: map_of()})
    plain = "bpf(BPF_PROG_BIND_MAP, {prog_bind_map={prog_fd=7, map_fd=8, flags=0}}, 12) = 0"
    assert line_of(call) == plain
    # What succeeded is taken for a descriptor.
    assert (
        line_of(call, descriptors=True)
        == plain.replace("7", "7<anon_inode:bpf-prog>").replace("8", "8<anon_inode:bpf-map>")
        + "</dev/null>"
    )


@pytest.mark.parametrize(
    ("fd", "shown"),
    [
        (0, "0</dev/null>"),
        (3, r"3</a\74b\76\1>"),
        (5, "5</gone>(deleted)"),
        (6, "6"),
        (-1, "-1"),
        (-100, "-100"),
    ],
)
def test_other_files(fd: int, shown: str) -> None:
    line = line_of(call_of(22, attr("i", fd)), descriptors=True)
    assert line == f"bpf(BPF_MAP_FREEZE, {{map_fd={shown}}}, 4) = 0"


def test_the_working_directory() -> None:
    line = line_of(call_of(7, attr("QiIi", 0, 0, 0, -100)), descriptors=True)
    assert line.endswith("path_fd=AT_FDCWD</root>}, 20) = 0</dev/null>")


@pytest.mark.parametrize(
    ("cmd", "found", "shown"),
    [
        (0, map_of(), "<anon_inode:bpf-map>"),
        (18, btf_of(), "<anon_inode:btf>"),
        (28, link_of(), "<anon_inode:bpf_link>"),
        (30, link_of(), "<anon_inode:bpf-link>"),
        (32, None, "<anon_inode:bpf-stats>"),
        (33, None, "<anon_inode:bpf_iter>"),
        (17, link_of(), ""),
    ],
)
def test_a_result_that_is_a_descriptor(cmd: int, found: object, shown: str) -> None:
    objects = {RESULT: found} if found else {}
    call = call_of(cmd, bytes(24), retval=9, objects=objects)  # type: ignore[arg-type]
    assert line_of(call, descriptors=True).endswith(f") = 9{shown}")
    assert line_of(call).endswith(") = 9")
    assert line_of(call._replace(attr_addr=0), descriptors=True).endswith("NULL, 24) = 9")


def test_interfaces_have_the_names_of_this_host() -> None:
    def target(index: int, xlat: Xlat = Xlat.ABBREV) -> str:
        line = line_of(call_of(8, attr("IiII", index, 3, 37, 0)), Style(xlat))
        return line[line.index("ifindex=") + 8 : line.index(", attach_bpf")]

    assert target(2) == 'if_nametoindex("eth0")'
    assert target(2, Xlat.RAW) == "2"
    assert target(2, Xlat.VERBOSE) == '2 /* if_nametoindex("eth0") */'
    assert target(3) == "3"
    assert target(9) == r'if_nametoindex("e\"\n")'


# --- What the kernel program is told -----------------------------------------------------


def test_a_second_look_at_pointers_is_taken_only_if_it_is_asked_for() -> None:
    plain, more = plans(64), plans(64, COMMANDS)
    assert {number for number in plain if plain[number] != more[number]} == {5, 15, 16, 20, 28, 37}
