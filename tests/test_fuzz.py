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

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs, text, wire
from bpfsnoop.events.call import COMMON_ATTRS, Call
from bpfsnoop.events.errors import WireError
from bpfsnoop.events.event import Event
from bpfsnoop.events.value import Xlat, escape, printable
from documents import ORIGIN, VALIDATOR

fuzz = settings(max_examples=800, deadline=None)

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


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Any call that the kernel programs could record, and some that they could not."""
    entry = draw(ATTR)
    exit_ = draw(st.one_of(st.just(entry), ATTR))
    size = draw(st.one_of(st.just(len(entry)), st.integers(0, 180), st.just(4097), U32))
    cmd = draw(COMMAND)
    common = cmd & COMMON_ATTRS
    return Call(
        cpu=draw(U32),
        start_ns=draw(U64),
        duration_ns=draw(U64),
        retval=draw(RETVAL),
        cgroup_id=draw(U64),
        attr_addr=draw(st.one_of(st.just(0x7FFE_0000), U64)),
        common_addr=draw(U64) if common else 0,
        common_size=draw(U32) if common else 0,
        cmd=cmd,
        size=size,
        tgid=draw(U32),
        tid=draw(U32),
        uid=draw(U32),
        gid=draw(U32),
        comm=draw(COMM).partition(b"\0")[0],
        entry=entry[:size],
        exit=exit_[:size],
    )


LAYOUT = "@IIQQqQQQIIIIIIIII16sI"
FIXED = struct.calcsize(LAYOUT)


def packed(call: Call) -> bytes:
    """The record that ``struct call_record`` of wire.h would be."""
    *fixed, comm, entry, exit_ = call
    head = struct.pack(LAYOUT, 1, *fixed, len(entry), len(exit_), comm, 0)
    return head + entry + exit_


@fuzz
@given(calls(), st.binary(max_size=8))
def test_a_record_gives_back_the_call_whatever_follows_it(call: Call, padding: bytes) -> None:
    assert wire.parse(packed(call) + padding) == call


def _overwritten(record: bytes, at: int, data: bytes) -> bytes:
    return record[:at] + data + record[at + len(data) :]


RECORDS = st.one_of(
    st.binary(max_size=400),
    st.builds(_overwritten, calls().map(packed), st.integers(0, FIXED), st.binary(max_size=8)),
)


@fuzz
@given(RECORDS)
def test_other_bytes_are_refused_and_nothing_worse(record: bytes) -> None:
    try:
        call = wire.parse(record)
    except WireError:
        return
    up_to_comm = FIXED - 20
    assert packed(call)[:up_to_comm] == record[:up_to_comm]


@fuzz
@given(calls(), st.data())
def test_a_record_that_is_cut_short_is_refused(call: Call, data: st.DataObject) -> None:
    record = packed(call)
    length = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(WireError):
        wire.parse(record[:length])


NAMES: Mapping[str, Mapping[int, str]] = {
    "bpf_cmd": {number: f"BPF_COMMAND_{number}" for number in range(60)},
    "bpf_map_type": {number: f"BPF_MAP_TYPE_{number}" for number in range(100)},
    "bpf_attach_type": {number: f"BPF_ATTACH_{number}" for number in range(100)},
}
DECODERS = (Decoder(), Decoder(NAMES))

ONE_LINE = re.compile(r"[ -~]+")


def events_of(call: Call) -> list[Event]:
    return [decoder.decode(call) for decoder in DECODERS]


@fuzz
@given(calls())
def test_any_call_has_a_line_of_printable_ascii(call: Call) -> None:
    for event in events_of(call):
        for xlat in Xlat:
            for verbose in (False, True):
                assert ONE_LINE.fullmatch(text.call(event, xlat, verbose=verbose))
        assert ONE_LINE.fullmatch(text.result(event))


@fuzz
@given(calls(), st.integers(0, 1 << 64), U64)
def test_any_call_has_a_document_that_the_schema_allows(
    call: Call, time_ns: int, sequence: int
) -> None:
    for event in events_of(call):
        message = f"{text.call(event, verbose=True)} = {text.result(event)}"
        document = ecs.event_document(
            event, ORIGIN, time_ns=time_ns, sequence=sequence, message=message
        )
        line = ecs.json_line(document)
        assert re.fullmatch(rb"[ -~]+\n", line)
        read = json.loads(line)
        assert read == document
        assert VALIDATOR.is_valid(read), [error.message for error in VALIDATOR.iter_errors(read)]


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
