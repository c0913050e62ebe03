# SPDX-License-Identifier: Apache-2.0
"""Keys and values of maps, spelled as the BTF of their maps has them."""

import errno
import json
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.map_types import KnownMap, MapBtf, Types
from bpfsnoop.events import ecs, text
from bpfsnoop.events import memory as contents
from bpfsnoop.events.call import Blob, Call, PartState
from bpfsnoop.events.event import Event
from bpfsnoop.events.lines import JsonLines
from bpfsnoop.events.memory import InMap, Memory
from bpfsnoop.events.typed import DOCUMENT_MAX, Type, Typed
from bpfsnoop.events.value import Style, Xlat
from bpfsnoop.tracer import own
from bpfsnoop.tracer.map_types import AskedTypes, KnownTypes
from calls import attr, blob, call_of, map_of, process_of
from documents import ORIGIN, checked
from made_btf import BOOL, CHAR, KEY, KEY_TEXT, SIGNED, VALUE, VALUE_TEXT, MadeBtf, of_a_map

PLAIN = Style()
VERBOSE = Style(verbose=True)
HASH, PERCPU_ARRAY = 1, 6


def type_of(data: bytes, number: int) -> Type:
    found = Types(data).built(number).type
    assert found
    return found


def as_typed(type_: Type | None, size: int = 0, *, listed: bool = False) -> Typed:
    stride = size or (type_.size if type_ else 1)
    return Typed(contents.KEYS if listed else contents.KEY, lambda: type_, stride, listed=listed)


def typed(btf: MadeBtf, number: int, *, listed: bool = False) -> Typed:
    return as_typed(type_of(btf.data(), number), listed=listed)


def spelled(btf: MadeBtf, number: int, data: bytes, style: Style = PLAIN) -> str:
    return typed(btf, number).text(blob(data), style, "...")


# --- Types -------------------------------------------------------------------------------

Make = Callable[[MadeBtf], int]


@pytest.mark.parametrize(
    ("make", "data", "shown"),
    [
        (lambda b: b.integer("int", 4, SIGNED), struct.pack("=i", -3), "-3"),
        (lambda b: b.integer("unsigned int", 4), struct.pack("=i", -3), "4294967293"),
        (lambda b: b.integer("__int128", 16), b"\xff" * 16, str((1 << 128) - 1)),
        (lambda b: b.integer("_Bool", 1, BOOL), b"\1", "true"),
        (lambda b: b.integer("_Bool", 1, BOOL), b"\0", "false"),
        (lambda b: b.integer("_Bool", 1, BOOL), b"\7", "7"),
        (lambda b: b.integer("char", 1, SIGNED), b"a", "'a'"),
        (lambda b: b.integer("char", 1, SIGNED), b"'", "'\\''"),
        (lambda b: b.integer("char", 1), b"\xe4", "228"),
        (lambda b: b.integer("c", 1, CHAR), b"\\", "'\\\\'"),
        (lambda b: b.integer("wide", 32), b"\1" * 32, '"' + "\\x01" * 32 + '"'),
        (lambda b: b.pointer(), struct.pack("=Q", 0xFFFF8880_00001234), "0xffff888000001234"),
        (lambda b: b.pointer(), bytes(8), "NULL"),
        (lambda b: b.real("float", 4), struct.pack("=f", 1.5), "1.5"),
        (lambda b: b.real("double", 8), struct.pack("=d", -0.1), "-0.1"),
        (lambda b: b.real("half", 2), b"\0\x3c", r'"\x00\x3c"'),
        (lambda b: b.enum("e", 4, [("A", 0), ("B", 7)]), struct.pack("=I", 7), "B"),
        (lambda b: b.enum("e", 4, [("A", 0)]), struct.pack("=I", 5), "5"),
        (lambda b: b.enum("e", 1, [("A", 0xFF)]), b"\xff", "A"),
        (lambda b: b.enum("e", 4, [("NO", -1)], signed=True), b"\xff" * 4, "NO"),
        (lambda b: b.enum("e", 4, [("A", 0)], signed=True), b"\xfe" + b"\xff" * 3, "-2"),
        (lambda b: b.enum64("e", [("BIG", 1 << 40)]), struct.pack("=Q", 1 << 40), "BIG"),
        (lambda b: b.array(b.integer("char", 1), 8), b"ab\0\0\0\0\0\0", '"ab"'),
        (lambda b: b.array(b.integer("char", 1), 8), b"abcdefgh", '"abcdefgh"'),
        (lambda b: b.array(b.integer("char", 1), 4), b'a\0"\0', r'"a\0\""'),
        (lambda b: b.array(b.integer("unsigned char", 1), 4), b"\1\2\0\0", r'"\x01\x02\x00\x00"'),
        (lambda b: b.array(b.integer("u16", 2), 3), struct.pack("=HHH", 1, 2, 3), "[1, 2, 3]"),
        (
            lambda b: b.array(b.array(b.integer("u16", 2), 2), 2),
            struct.pack("=4H", 1, 2, 3, 4),
            "[[1, 2], [3, 4]]",
        ),
        (
            lambda b: b.const(b.typedef("pid_t", b.integer("int", 4, SIGNED))),
            struct.pack("=i", 9),
            "9",
        ),
        (
            lambda b: b.struct("s", 8, [("a", b.integer("u32", 4), 0), ("b", 1, 32)]),
            struct.pack("=II", 1, 2),
            "{a=1, b=2}",
        ),
        (
            lambda b: b.struct("s", 4, [
                ("", b.struct("", 4, [
                    ("u", b.integer("u32", 4), 0), ("h", b.integer("u16", 2), 0),
                ], union=True), 0),
            ]),
            struct.pack("=HH", 5, 0),
            "{{u=5, h=5}}",
        ),
        (lambda b: b.struct("empty", 0, []), b"", "{}"),
        (lambda b: b.integer("char", 1, SIGNED), b"\xff", "-1"),
        (lambda b: b.enum("e", 4, [("FIRST", 0), ("ALIAS", 0)]), bytes(4), "FIRST"),
        (lambda b: b.integer("part", 4, offset=8, bits=8), struct.pack("<I", 0x4200), "66"),
        (
            lambda b: b.struct("old", 4, [
                ("a", b.integer("three", 4, bits=3), 0), ("b", b.integer("five", 4, bits=5), 3),
                ("c", b.integer("__int8", 1, SIGNED), 8),
            ]),
            bytes([5 | 9 << 3, 0xFE, 0, 0]),
            "{a=5, b=9, c=-2}",
        ),
        (
            lambda b: b.section(".bss", 12, [
                (b.variable("count", b.integer("u64", 8)), 0, 8),
                (b.variable("later", b.integer("u32", 4)), 8, 4),
            ]),
            struct.pack("=QI", 6, 1),
            "{count=6, later=1}",
        ),
    ],
)  # fmt: skip
def test_a_value_is_spelled_as_its_type_has_it(make: Make, data: bytes, shown: str) -> None:
    btf = MadeBtf()
    assert spelled(btf, make(btf), data) == shown


def test_bits_of_a_word() -> None:
    btf = MadeBtf()
    u32, s32 = btf.integer("u32", 4), btf.integer("int", 4, SIGNED)
    flag = btf.integer("_Bool", 1, BOOL)
    number = btf.bitfields("s", 8, [
        ("a", u32, 0, 3), ("b", s32, 3, 5), ("ok", flag, 8, 1), ("across", u32, 9, 20),
        ("whole", u32, 32, 0),
    ])  # fmt: skip
    bits = 5 | (-3 & 0x1F) << 3 | 1 << 8 | 0xABCDE << 9
    data = struct.pack("<II", bits, 77)
    assert spelled(btf, number, data) == f"{{a=5, b=-3, ok=true, across={0xABCDE}, whole=77}}"


def test_constants_are_shown_as_dash_x_has_it() -> None:
    btf = MadeBtf()
    number = btf.enum("e", 4, [("IDLE", 0), ("BUSY", 1)])
    data = struct.pack("=I", 1)
    assert spelled(btf, number, data, Style(xlat=Xlat.RAW)) == "1"
    assert spelled(btf, number, data, Style(xlat=Xlat.VERBOSE)) == "1 /* BUSY */"


# --- Not all of it -----------------------------------------------------------------------


def _many(btf: MadeBtf) -> int:
    u32 = btf.integer("u32", 4)
    return btf.struct("s", 400, [(f"m{n}", u32, 32 * n) for n in range(100)])


def test_as_much_is_shown_as_of_other_things() -> None:
    """``-s``, and ``-v`` for all."""
    btf = MadeBtf()
    number = _many(btf)
    assert spelled(btf, number, bytes(400)).endswith("m31=0, ...}")
    assert spelled(btf, number, bytes(400), Style(strings=2)) == "{m0=0, m1=0, ...}"
    assert spelled(btf, number, bytes(400), VERBOSE).endswith("m99=0}")
    name = btf.array(btf.integer("char", 1), 40)
    assert spelled(btf, name, b"x" * 40) == '"' + "x" * 32 + '"...'


@pytest.mark.parametrize(
    ("length", "shown"),
    [(20, KEY_TEXT), (19, '{pid=42, comm="sshd"...}'), (4, "{pid=42, ...}"), (3, "{pid=..., ...}")],
)
def test_what_was_not_read_is_missing(length: int, shown: str) -> None:
    data, key, _ = of_a_map()
    assert as_typed(type_of(data, key)).text(blob(KEY[:length], 20), PLAIN, "...") == shown


def test_where_memory_ended_its_address_says() -> None:
    data, key, _ = of_a_map()
    memory = Memory(as_typed(type_of(data, key)), blob(KEY[:4], 20, PartState.UNREADABLE))
    assert memory.text(0x1000, "0x1000", PLAIN) == "{pid=42, ... /* 0x1004 */}"


def test_several_in_a_row() -> None:
    btf = MadeBtf()
    content = typed(btf, btf.integer("u32", 4), listed=True)
    data = struct.pack("=III", 1, 2, 3)
    assert content.text(blob(data[:4]), PLAIN, "...") == "[1]"
    assert content.text(blob(data), PLAIN, "...") == "[1, 2, 3]"
    assert content.text(blob(data, 20), PLAIN, "...") == "[1, 2, 3, ...]"
    assert content.text(blob(data), Style(strings=2), "...") == "[1, 2, ...]"


def _known_map(about: MapBtf, data: bytes) -> KnownMap:
    types = Types(data)
    return KnownMap(about, lambda _, number: types.built(number).type)


@pytest.mark.parametrize(
    ("content", "flags", "data", "shown"),
    [
        (contents.VALUE, 0, "I4xI4x", "[11, 22]"),
        (contents.VALUES, 0, "I4xI4x", "[11, 22]"),
        (contents.VALUE, 8, "I", "11"),
        (contents.VALUE, 16, "I", "11"),
        (contents.VALUES, 8, "II", "[11, 22]"),
        (contents.KEY, 0, "I", "11"),
        (contents.KEYS, 0, "II", "[11, 22]"),
    ],
)
def test_of_each_cpu(content: InMap, flags: int, data: str, shown: str) -> None:
    """They take multiples of 8 bytes, whatever the type does; but not if it is one for all."""
    btf = MadeBtf()
    u32 = btf.integer("u32", 4)
    known = _known_map(MapBtf(PERCPU_ARRAY, 12, 4, 4, 7, u32, u32), btf.data())
    numbers = (11, 22)[: data.count("I")]
    memory = blob(struct.pack(f"={data}", *numbers))
    spelling = known.instead_of(content, one_value=bool(flags))
    assert spelling.text(memory, PLAIN, "...") == shown


@pytest.mark.parametrize(
    "about",
    [
        MapBtf(HASH, 12, 20, 24, 7, 0, 0),
        MapBtf(HASH, 12, 20, 24, 7, 99, 99),
        MapBtf(HASH, 12, 21, 25, 7, 9, 10),  # not as large as its types
        MapBtf(HASH, 12, 0, 0, 7, 9, 10),
    ],
)
def test_what_does_not_fit_stays_bytes(about: MapBtf) -> None:
    data, key, value = of_a_map()
    assert (key, value) == (9, 10)
    known = _known_map(about, data)
    for content in (contents.KEY, contents.VALUE):
        spelling = known.instead_of(content, one_value=False)
        assert spelling.text(blob(KEY), PLAIN, "...").startswith(r'"\x2a\x00')
        assert "typed" not in spelling.document(blob(KEY))


# --- In events ---------------------------------------------------------------------------

UPDATE = attr("IQQQ", 3, 0x1000, 0x2000, 0)


def _known() -> KnownTypes:
    data, key, value = of_a_map()
    known = KnownTypes()
    known.learn_btf(7, data)
    known.learn_map(MapBtf(HASH, 12, 20, 24, 7, key, value))
    return known


def _document(event: Event) -> ecs.Document:
    process = process_of(event.call)
    return checked(ecs.event_document(event, process, ORIGIN, time_ns=0, sequence=1))


def test_lines_and_documents_have_them() -> None:
    call = call_of(2, UPDATE, objects={0: map_of()}, memory={8: blob(KEY), 16: blob(VALUE)})
    decoder = Decoder(of_map=_known().of)
    for _ in range(2):  # the second time from a template
        event = decoder.decode(call)
        assert f"key={KEY_TEXT}, value={VALUE_TEXT}, flags=BPF_ANY" in text.call(event)
        memory = _document(event)["bpf"]["memory"]
        assert memory["key"] == {"hex": KEY.hex(), "typed": KEY_TEXT, "size": 20}
        assert memory["value"]["typed"] == VALUE_TEXT


def test_a_stream_has_each_one_as_it_is() -> None:
    decoder, lines = Decoder(of_map=_known().of), JsonLines(ORIGIN)
    for count in range(4):
        value = VALUE.replace(b"\7", bytes([count]), 1)
        memory = {8: blob(KEY), 16: blob(value)}
        event = decoder.decode(call_of(2, UPDATE, objects={0: map_of()}, memory=memory))
        line = lines.event(event, process_of(event.call), time_ns=0, sequence=1)
        assert json.loads(line) == _document(event)
        assert f"{{count={count}, " in json.loads(line)["bpf"]["memory"]["value"]["typed"]


def test_of_another_map_they_are_bytes() -> None:
    call = call_of(2, UPDATE, objects={0: map_of(id=13)}, memory={8: blob(KEY)})
    event = Decoder(of_map=_known().of).decode(call)
    assert r'key="\x2a\x00\x00' in text.call(event)
    assert "typed" not in _document(event)["bpf"]["memory"]["key"]


def test_of_a_batch() -> None:
    batch = attr("QQQQIIQQ", 0, 0, 0x1000, 0x2000, 2, 3, 0, 0)
    memory = {16: blob(KEY * 2), 24: blob(VALUE * 2)}
    call = call_of(26, batch, objects={36: map_of()}, memory=memory)
    line = text.call(Decoder(of_map=_known().of).decode(call))
    assert f"keys=[{KEY_TEXT}, {KEY_TEXT}], values=[{VALUE_TEXT}, {VALUE_TEXT}]" in line


def test_of_one_cpu_the_flags_say() -> None:
    btf = MadeBtf()
    u32 = btf.integer("u32", 4)
    known = KnownTypes()
    known.learn_btf(7, btf.data())
    known.learn_map(MapBtf(PERCPU_ARRAY, 12, 4, 4, 7, u32, u32))
    memory = {8: blob(struct.pack("=I", 1)), 16: blob(struct.pack("=I", 22))}
    for flags, shown in ((8, "22"), (0, "[22]")):
        passed = attr("IQQQ", 3, 0x1000, 0x2000, flags)
        event = Decoder(of_map=known.of).decode(call_of(1, passed, objects={0: map_of()},
                                                        memory=memory))  # fmt: skip
        assert f"key=1, value={shown}, flags=" in text.call(event)


# --- Bytes that nobody thought of --------------------------------------------------------

fuzz = settings(max_examples=400, deadline=None)


def _looked_at(data: bytes, content: bytes) -> None:
    try:
        types = Types(data)
    except ValueError:
        return
    for number in range(12):
        type_ = types.built(number).type
        memory = Blob(content, len(content), 0, len(content))
        for listed in (False, True):
            spelling = as_typed(type_, max(1, type_.size if type_ else 0), listed=listed)
            for style in (PLAIN, VERBOSE, Style(strings=0)):
                shown = spelling.text(memory, style, "...")
                assert shown.isascii()
                assert shown.isprintable()
            assert len(spelling.document(memory).get("typed", "")) < 2 * DOCUMENT_MAX


@fuzz
@given(st.binary(max_size=200), st.binary(max_size=64))
def test_any_bytes_as_types(types: bytes, content: bytes) -> None:
    strings = b"\0a\0b\x1b[0m\0" + b"c" * 40
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    _looked_at(header + types + strings, content)


@fuzz
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.binary(max_size=64))
def test_btf_of_which_some_bytes_are_others(at: int, other: bytes, content: bytes) -> None:
    data = of_a_map()[0]
    at %= len(data)
    _looked_at(data[:at] + other + data[at + len(other) :], content)


_WORDS = st.lists(
    st.one_of(
        st.integers(0, 12),
        st.builds(
            lambda kind, vlen, flag: flag << 31 | kind << 24 | vlen,
            st.integers(1, 19), st.integers(0, 4), st.booleans(),
        ),
    ),
    max_size=60,
)  # fmt: skip


@fuzz
@given(_WORDS, st.binary(max_size=64))
def test_words_that_may_well_be_types(words: list[int], content: bytes) -> None:
    types = struct.pack(f"={len(words)}I", *words)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), 1)
    _looked_at(header + types + b"\0", content)


def test_a_type_within_itself_is_none() -> None:
    btf = MadeBtf()
    btf.struct("s", 4, [("again", 1, 0), ("once_more", 1, 0)])
    assert Types(btf.data()).built(1).type is None


def test_as_deep_as_the_kernel_lets_them_be() -> None:
    btf = MadeBtf()
    inner = btf.integer("u32", 4)
    for _ in range(32):
        inner = btf.struct("s", 4, [("m", inner, 0)])
    assert spelled(btf, inner, struct.pack("=I", 7)) == "{m=" * 32 + "7" + "}" * 32


@pytest.mark.parametrize("before", [0, 4000])
def test_what_is_too_much_is_not_shown_in_part(before: int) -> None:
    """Else members could be hidden behind others."""
    btf = MadeBtf()
    u32 = btf.integer("u32", 4)
    names = [(f"CONSTANT_{n}", n) for n in range(before)]
    kind = btf.enum("many", 4, names)
    number = btf.struct("s", 8, [("e", kind, 0), ("secret", u32, 32)])
    found = Types(btf.data()).built(number).type
    shown = as_typed(found, 8).text(blob(struct.pack("=II", 0, 2)), PLAIN, "...")
    assert shown == (r'"\x00\x00\x00\x00\x02\x00\x00\x00"' if before else "{e=0, secret=2}")


def test_one_type_that_is_too_much_does_not_spoil_others() -> None:
    btf = MadeBtf()
    u32 = btf.integer("u32", 4)
    huge = btf.struct("huge", 4, [(f"m{n}", u32, 0) for n in range(5000)])
    types = Types(btf.data())
    assert types.built(huge).type is None
    assert types.built(u32).type


def test_one_value_does_not_make_a_document_of_megabytes() -> None:
    btf = MadeBtf()
    array = btf.array(btf.integer("u16", 2), 2048)
    members = [(f"{'m' * 500}{n}", array, 0) for n in range(50)]
    content = typed(btf, btf.struct("u", 4096, members, union=True))
    shown = content.document(blob(b"\x7f" * 4096))["typed"]
    assert len(shown) < 2 * DOCUMENT_MAX
    assert "..." in shown
    assert len(content.text(blob(b"\x7f" * 4096), VERBOSE, "...")) < 1 << 16
    octets = typed(btf, btf.array(btf.integer("u8", 1), 4096))
    assert len(octets.document(blob(b"\x7f" * 4096))["typed"]) < 2 * DOCUMENT_MAX


@pytest.mark.parametrize("count", [0xFFFFFFFF, 1 << 20])
def test_an_array_that_has_no_end(count: int) -> None:
    btf = MadeBtf()
    nothing = btf.struct("nothing", 0, [])
    for element in (nothing, btf.array(nothing, count), btf.integer("u32", 4)):
        number = btf.array(element, count)
        content = as_typed(type_of(btf.data(), number), 64)
        assert len(content.document(blob(bytes(64)))["typed"]) < 2 * DOCUMENT_MAX


def _of_members(number: int) -> bytes:
    """BTF of about the largest size that is looked at, each with another name."""
    btf = MadeBtf()
    u32 = btf.integer("u32", 4)
    members = [(f"{number}_{n}_{'x' * 200}", u32, 32 * n) for n in range(100)]
    btf.struct("s", 400, members)
    for n in range(200):
        btf.struct("other", 4, [(f"unused_{n}_{'y' * 400}", u32, 0)])
    return btf.data()


def test_many_maps_with_many_types_take_no_more_than_some() -> None:
    """A process may make as many as it likes, and use each of them once."""
    known = KnownTypes()
    made = [_of_members(number) for number in range(30)]
    tracemalloc.start()
    try:
        for number in range(600):
            known.learn_btf(number, bytes(bytearray(made[number % 30])))
            known.learn_map(MapBtf(HASH, number, 4, 400, number, 1, 2))
            in_map = known.of(number)
            assert in_map
            value = in_map.instead_of(contents.VALUE, one_value=False)
            assert value.text(blob(bytes(400)), PLAIN, "...").startswith("{")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 48 << 20


# --- Asking ------------------------------------------------------------------------------


class Kernel:
    """What it says of maps, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, maps: dict[int, MapBtf | OSError]) -> None:
        self.asked: list[int] = []
        self.btfs: list[int] = []
        self.maps = maps
        monkeypatch.setattr(own, "btf_of_map", self._of_map)
        monkeypatch.setattr(own, "btf_data", self._data)

    def _of_map(self, number: int) -> MapBtf:
        self.asked.append(number)
        about = self.maps[number]
        if isinstance(about, OSError):
            raise about
        return about

    def _data(self, number: int, most: int) -> bytes | None:
        self.btfs.append(number)
        return of_a_map()[0] if number == 7 else None


def _update(number: int) -> Call:
    return call_of(2, UPDATE, objects={0: map_of(id=number)}, memory={8: blob(KEY)})


def _typed_map(number: int) -> MapBtf:
    return MapBtf(HASH, number, 20, 24, 7, 9, 10)


def test_a_map_is_asked_for_once_and_its_btf_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, {
        12: _typed_map(12), 13: MapBtf(HASH, 13, 20, 8, 7, 9, 0),
        14: MapBtf(HASH, 14, 20, 8, 0, 0, 0), 15: MapBtf(HASH, 15, 20, 8, 8, 9, 0),
        16: OSError(errno.ENOENT, "gone"),
    })  # fmt: skip
    asked = AskedTypes(None)
    calls = [_update(number) for number in (12, 13, 14, 15, 16)]
    asked.look(calls, 0)
    asked.look(calls, 0)
    assert kernel.asked == [12, 13, 14, 15, 16]
    assert kernel.btfs == [7, 8]
    known = {number for number in kernel.asked if asked.of(number)}
    assert known == {12, 13}  # of the others there is none, or too much of it


def test_a_new_map_is_asked_for_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, {12: _typed_map(12)})
    create = call_of(0, bytes(72), retval=3, objects={-1: map_of()})
    AskedTypes(None).look([create], 0)
    assert kernel.asked == [12]


def test_a_map_that_is_only_opened_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, {})
    opened = call_of(14, attr("III", 12, 0, 0), retval=3, objects={-1: map_of()})
    AskedTypes(None).look([opened], 0)
    assert not kernel.asked


def test_a_map_that_is_forbidden_is_only_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A security module may protect some of them."""
    denied = OSError(errno.EPERM, "Operation not permitted")
    kernel = Kernel(monkeypatch, {12: denied, 13: _typed_map(13)})
    asked = AskedTypes(None)
    asked.look([_update(12), _update(13), _update(12)], 0)
    assert kernel.asked == [12, 13]
    assert asked.of(13)


def test_what_failed_for_now_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, {12: OSError(errno.EMFILE, "Too many open files")})
    asked = AskedTypes(None)
    asked.look([_update(12)], 0)
    assert asked.of(12) is None
    kernel.maps[12] = _typed_map(12)
    asked.look([_update(12)], 0)
    assert asked.of(12)


def test_who_makes_many_maps_does_not_keep_us_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are still in use a second later are asked for then."""
    kernel = Kernel(monkeypatch, {number: _typed_map(number) for number in range(5000)})
    asked = AskedTypes(None)
    calls = [_update(number) for number in range(3000)]
    asked.look(calls, 0)
    first = len(kernel.asked)
    assert 0 < first < 3000
    assert asked.of(2999) is None
    asked.look(calls[first:], 1_000_000_000)
    assert len(kernel.asked) == 2 * first
