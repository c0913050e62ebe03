# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody thought of: everything between the ring and a line is total.

Whoever is traced chooses the bytes, and whoever looks on must neither crash nor be
fooled: no input may raise anything unforeseen, end a line early, or put a control
character on a terminal.
"""

import json
import re
import struct
from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.strace_view import View
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs, text, wire
from bpfsnoop.events.call import (
    COMMON_ATTRS,
    RESULT,
    Blob,
    Call,
    CallFlag,
    Image,
    Object,
    PartState,
)
from bpfsnoop.events.errors import WireError
from bpfsnoop.events.event import Event
from bpfsnoop.events.lines import JsonLines
from bpfsnoop.events.process import Process
from bpfsnoop.events.value import Style, Xlat, escape, printable
from bpfsnoop.tracer.assembly import Assembly
from bpfsnoop.tracer.names import HostNames
from calls import call_of, call_record, process_of, process_record, records_of
from documents import ORIGIN, VALIDATOR

fuzz = settings(max_examples=800, deadline=None)

U16 = st.integers(0, (1 << 16) - 1)
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
S64 = st.integers(-(1 << 63), (1 << 63) - 1)

# Mostly commands that there are; sometimes with the bit, sometimes neither.
COMMAND = st.one_of(
    st.sampled_from([*COMMANDS, 28, 28, 28]),
    st.sampled_from([*COMMANDS]).map(COMMON_ATTRS.__or__),
    U32,
)

# Numbers that mean something, so that conditions are met and names are found.
WORD = st.one_of(st.sampled_from([0, 0xFFFF_FFFF]), st.integers(0, 70), U32)
ATTR = st.one_of(
    st.binary(max_size=200),
    st.lists(WORD, max_size=46).map(lambda words: struct.pack(f"={len(words)}I", *words)),
    st.binary(max_size=20).map(lambda data: data.ljust(4096, b"\0")),
)
RETVAL = st.one_of(st.integers(-600, 5), S64)
COMM = st.binary(max_size=16)


NAME = st.binary(max_size=16).map(lambda name: name.partition(b"\0")[0])
OBJECT = st.builds(
    Object,
    st.integers(1, 4),
    U32,
    WORD,
    U32,
    U32,
    U32,
    U32,
    NAME,
    st.binary(min_size=8, max_size=8),
)


@st.composite
def blobs(draw: st.DrawFn) -> Blob:
    """Memory as the kernel program describes it, or nearly."""
    data = draw(st.binary(max_size=80) | st.just(b"\x95\0\0\0\0\0\0\0" * 40))
    state = draw(st.integers(0, 31))
    lost = draw(st.integers(0, 1)) * draw(st.integers(0, 5)) if state & PartState.CHUNKED else 0
    return Blob(data, draw(st.just(len(data)) | U64), state, len(data) + lost)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Any call that the kernel programs could record, and some that they could not."""
    entry = draw(ATTR)
    exit_ = draw(st.one_of(st.just(entry), ATTR))
    size = draw(st.one_of(st.just(len(entry)), st.integers(0, 180), st.just(4097), U32))
    cmd = draw(COMMAND)
    common = cmd & COMMON_ATTRS
    slots = sorted(slots_of(cmd & ~COMMON_ATTRS)) or [0]
    slot = st.sampled_from(slots)
    flags = draw(U16)
    copied = bool(flags & CallFlag.SAME_ATTR)
    return Call(
        flags=flags,
        start_ns=draw(U64),
        duration_ns=draw(U64),
        retval=draw(RETVAL),
        attr_addr=draw(st.one_of(st.just(0x7FFE_0000), U64)),
        common_addr=draw(U64) if common else 0,
        cgroup_id=draw(U64),
        process_start_ns=draw(st.just(0) | U64),
        exec_id=draw(U64),
        capabilities=draw(U64),
        common_size=draw(U32) if common else 0,
        cmd=cmd,
        size=size,
        tgid=draw(U32),
        tid=draw(U32),
        uid=draw(U32),
        gid=draw(U32),
        euid=draw(U32),
        login_uid=draw(st.just((1 << 32) - 1) | U32),
        pid_namespace=draw(st.just(0) | U32),
        mount_namespace=draw(U32),
        user_namespace=draw(st.just(0) | U32),
        entry_ns=draw(U32),
        comm=draw(COMM).partition(b"\0")[0],
        entry=entry[:size],
        exit=exit_[:size],
        objects=draw(st.dictionaries(slot | st.just(RESULT), OBJECT, max_size=3)),
        memory=draw(st.dictionaries(slot, blobs(), max_size=4)),
        objects_after=draw(st.dictionaries(slot, OBJECT, max_size=2)),
        kernel=entry[:size] if copied else draw(st.none() | st.binary(max_size=80)),
        aside=draw(st.dictionaries(slot, blobs(), max_size=2)),
    )


@cache
def slots_of(cmd: int) -> set[int]:
    """The offsets in attr at which something may be described."""
    command = COMMANDS.get(cmd)
    if command is None:
        return set()
    layouts = [command.layout, *(layout for _, layout in command.arm_layouts)]
    return {slot.offset for layout in layouts for slot in layout.slots}


def assembled(records: list[bytes]) -> list[Call]:
    assembly = Assembly()
    return [call for record in records if (call := assembly.feed(record))]


@fuzz
@given(calls(), st.binary(max_size=8))
def test_records_give_back_the_call_whatever_follows_them(call: Call, padding: bytes) -> None:
    assert assembled([record + padding for record in records_of(call)]) == [call]


PROGRAM = st.builds(
    Image, U32, U64, U64, U64, U64, U32, U32, U32, U32, U32, U32, NAME,
    st.just(b"/usr/bin/x") | st.just(b"/\xff\x1b"), st.binary(max_size=40),
)  # fmt: skip


@fuzz
@given(PROGRAM, st.binary(max_size=8))
def test_a_record_gives_back_the_process(program: Image, padding: bytes) -> None:
    flags = program.flags & ~(wire.PROCESS_EXE_PSEUDO | wire.PROCESS_EXE_CUT)
    program = program._replace(flags=flags)
    assert wire.parse(process_record(program) + padding) == program


def _overwritten(record: bytes, at: int, data: bytes) -> bytes:
    at = min(at, len(record))
    return record[:at] + data + record[at + len(data) :]


ANY_RECORD = st.one_of(
    calls().flatmap(lambda call: st.sampled_from(records_of(call))), PROGRAM.map(process_record)
)
RECORDS = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda kind, rest: struct.pack("=I", kind) + rest, st.integers(1, 3),
              st.binary(max_size=400)),
    st.builds(_overwritten, ANY_RECORD, st.integers(0, 400), st.binary(max_size=8)),
    st.builds(_overwritten, ANY_RECORD, st.integers(0, 400), st.just(b"\xff" * 4)),
)  # fmt: skip


@fuzz
@given(RECORDS)
def test_other_bytes_are_refused_and_nothing_worse(record: bytes) -> None:
    try:
        thing = wire.parse(record)
    except WireError:
        return
    if isinstance(thing, Call):
        packed = call_record(thing, b"")
        assert packed[:6] == record[:6], "up to parts_len"
        assert packed[8:-20] == record[8 : len(packed) - 20], "up to reserved"
        shown(thing)
    elif isinstance(thing, Image):
        who = Process(thing.tgid, thing.start_ns, thing, None)
        assert VALIDATOR.is_valid(documented(CALL, who))
    else:
        assert thing.data in record


@fuzz
@given(ANY_RECORD, st.data())
def test_a_record_that_is_cut_short_is_refused(record: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(WireError):
        wire.parse(record[:length])


@given(st.lists(RECORDS, max_size=10))
def test_any_records_are_put_together_or_refused(records: list[bytes]) -> None:
    assembly = Assembly()
    for record in records:
        try:
            call = assembly.feed(record)
        except WireError:
            continue
        if call:
            assembly.image(call)
            shown(call)


NAMES: Mapping[str, Mapping[int, str]] = {
    "bpf_cmd": {number: f"BPF_COMMAND_{number}" for number in range(60)},
    "bpf_map_type": {number: f"BPF_MAP_TYPE_{number}" for number in range(100)},
    "bpf_attach_type": {number: f"BPF_ATTACH_{number}" for number in range(100)},
}
DECODERS = (Decoder(), Decoder(NAMES))

ONE_LINE = re.compile(r"[ -~]+")


def events_of(call: Call) -> list[Event]:
    return [decoder.decode(call) for decoder in DECODERS]


STYLES = [
    Style(xlat, verbose, strings)
    for xlat in Xlat
    for verbose in (False, True)
    for strings in (0, 1, 32, 1 << 20)
]
CALL = call_of(22, b"\3\0\0\0")


def documented(call: Call, who: Process, message: str = "") -> ecs.Document:
    """As its reader has it."""
    document = ecs.event_document(
        DECODERS[0].decode(call), who, ORIGIN, time_ns=0, sequence=1, message=message
    )
    line = ecs.json_line(document)
    assert re.fullmatch(rb"[ -~]+\n", line)
    read: ecs.Document = json.loads(line)
    assert read == document
    return read


def shown(call: Call) -> None:
    """A line in every style and a document: neither crashes, nor is it more than a line."""
    for event in events_of(call):
        for style in STYLES:
            assert ONE_LINE.fullmatch(text.call(event, style))
        assert ONE_LINE.fullmatch(text.result(event))
    read = documented(call, process_of(call))
    assert VALIDATOR.is_valid(read), [error.message for error in VALIDATOR.iter_errors(read)]


@fuzz
@given(calls())
def test_any_call_has_a_line_of_printable_ascii(call: Call) -> None:
    for event in events_of(call):
        for style in STYLES:
            assert ONE_LINE.fullmatch(text.call(event, style))
        assert ONE_LINE.fullmatch(text.result(event))


@fuzz
@given(calls(), st.integers(0, 1 << 64))
def test_any_call_has_a_line_as_strace_has_it(call: Call, time_ns: int) -> None:
    view = View(HostNames(), descriptors=True)
    for style in STYLES:
        assert all(ONE_LINE.fullmatch(part) for part in view.line(call, style, time_ns))


@fuzz
@given(calls(), st.integers(0, 1 << 64), U64)
def test_any_call_has_a_document_that_the_schema_allows(
    call: Call, time_ns: int, sequence: int
) -> None:
    for event in events_of(call):
        message = f"{text.call(event, Style(verbose=True))} = {text.result(event)}"
        document = ecs.event_document(
            event, process_of(call), ORIGIN, time_ns=time_ns, sequence=sequence, message=message
        )
        line = ecs.json_line(document)
        assert re.fullmatch(rb"[ -~]+\n", line)
        read = json.loads(line)
        assert read == document
        assert VALIDATOR.is_valid(read), [error.message for error in VALIDATOR.iter_errors(read)]


@fuzz
@given(st.lists(calls(), min_size=1, max_size=5), st.integers(0, 1 << 60))
def test_a_line_is_its_document_whatever_came_before(seen: list[Call], time_ns: int) -> None:
    """What several documents have in common is spelled only once."""
    lines = JsonLines(ORIGIN)
    who = {call.tgid: process_of(call) for call in seen}
    for call in [*seen, *seen]:
        event, process = DECODERS[1].decode(call), who[call.tgid]
        at = time_ns + call.start_ns
        document = ecs.event_document(event, process, ORIGIN, time_ns=at, sequence=7)
        line = lines.event(event, process, time_ns=at, sequence=7)
        assert line == ecs.json_line(document)


# --- Strings -----------------------------------------------------------------------------

ESCAPES = {"f": 12, "n": 10, "r": 13, "t": 9, "v": 11, '"': 34, "\\": 92}
_TOKEN = re.compile(r'\\(?P<octal>[0-7]{1,3})|\\(?P<short>[fnrtv"\\])|(?P<plain>[ !-\[\]-~])')


def as_c_reads(literal: str) -> bytes:
    """The bytes of a C string literal, as a compiler takes it: octal takes all it can."""
    data = bytearray()
    at = 0
    while at < len(literal):
        token = _TOKEN.match(literal, at)
        assert token, f"not C at {at}: {literal}"
        if token["octal"]:
            data.append(int(token["octal"], 8))
        else:
            data.append(ESCAPES[token["short"]] if token["short"] else ord(token["plain"]))
        at = token.end()
    return bytes(data)


DIGITS_AND_CONTROLS = st.lists(st.sampled_from(b'\0\1\7\n\x1b"\\0178 \x7f\xff')).map(bytes)


@fuzz
@given(st.one_of(st.binary(max_size=64), DIGITS_AND_CONTROLS))
def test_an_escaped_string_reads_back_as_the_bytes_it_was_made_of(data: bytes) -> None:
    escaped = escape(data)
    assert re.fullmatch("[ -~]*", escaped)
    assert re.search(r'(?<!\\)(\\\\)*"', escaped) is None, "a quote would end the literal"
    assert as_c_reads(escaped) == data
    assert re.fullmatch("[ -~]*", printable(data))
    assert as_c_reads(printable(data)) == data
