# SPDX-License-Identifier: Apache-2.0
"""Recordings: what is whole is shown, whatever became of the rest of the file."""

import io
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import made_btf
from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.map_types import MapBtf
from bpfsnoop.events import ecs, wire
from bpfsnoop.events.call import Call, CommandCount, Object, ObjectKind, PartState, Totals
from bpfsnoop.events.ecs import Origin
from bpfsnoop.events.errors import RecordingError
from bpfsnoop.events.memory import KEY as ONE_KEY
from bpfsnoop.events.notice import Notice, Reason
from bpfsnoop.events.process import Ancestor, Container, Missing, Surroundings
from bpfsnoop.events.text import process as process_line
from bpfsnoop.events.value import Style
from bpfsnoop.rules import correlate
from bpfsnoop.tracer.callers import Key
from bpfsnoop.tracer.facts import Facts
from bpfsnoop.tracer.loader import Loaded
from bpfsnoop.tracer.recording import (
    BTF,
    CALL,
    CLOCK,
    END,
    HEADER,
    MAP_BTF,
    PROCESS,
    Frame,
    Header,
    Recorder,
    Recording,
    parse_notice,
    parse_process,
)
from bpfsnoop.tracer.rings import Drained
from bpfsnoop.tracer.source import Live, Replay
from calls import (
    blob,
    call_of,
    image_of,
    process_of,
    process_record,
    record_of,
    records_of,
    without_task,
)
from documents import ORIGIN, VALIDATOR, checked, document_of
from rule_texts import correlation, detection
from terminal import shown

MAGIC = b"\x93bpfsnoop recording 1\n"
KERNEL_NAMES = {"bpf_cmd": {0: "BPF_MAP_CREATE", 70: "BPF_MAP_TELEPORT"}}
BOOT_ID = "8a7e5b1c-0d2f-4e3a-9b6c-112233445566"
ABOUT = Header(
    "Linux 6.1 x86_64", "host", "0123", BOOT_ID, "tracepoint", KERNEL_NAMES,
    mount_namespace=4_026_531_841,
)  # fmt: skip
TOTALS = Totals({0: CommandCount(5, 2), 63: CommandCount(1, 0)}, 0, 0, 0, 1_700_000_000 * 10**9)

CALLS = [
    call_of(0, bytes(92)),
    call_of(22, b"\3\0\0\0", retval=-9),
    call_of(70, b"", attr_addr=0),
    call_of(5, bytes(range(100)), comm=b"\x1b[2J"),
]


def _frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack("=BII", kind[0], len(payload), crc32(payload, kind[0])) + payload


def _recorded() -> bytes:
    """Two calls, a change of the clock, two more."""
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.clock(100)
    recorder.calls([record_of(CALLS[0]), record_of(CALLS[1])])
    recorder.clock(-200)
    recorder.calls([record_of(CALLS[2]), record_of(CALLS[3])])
    recorder.end(TOTALS)
    return file.getvalue()


RECORDED = _recorded()


def _header(**changes: Any) -> bytes:
    about = {"wire": wire.WIRE_VERSION, "byteorder": sys.byteorder, **ABOUT._asdict()}
    about |= {"own": sorted(ABOUT.own), **changes}
    return _frame(HEADER, json.dumps(about).encode())


def _replayed(data: bytes) -> tuple[list[Call], str]:
    """The calls that come out, and what is said about it."""
    try:
        source = Replay(io.BytesIO(data), "FILE")
    except RecordingError as error:
        return [], str(error)
    calls = [call for batch in source.batches() for call, _ in batch.calls]
    return calls, source.end().problem


# --- All is well -------------------------------------------------------------------------


def test_what_was_recorded_is_read() -> None:
    recording = Recording(io.BytesIO(RECORDED), "FILE")
    assert recording.header == ABOUT
    kinds = b"".join(frame.kind for frame in recording.frames())
    assert kinds == CLOCK + CALL + CALL + CLOCK + CALL + CALL + END


def test_a_replay_is_the_run() -> None:
    source = Replay(io.BytesIO(RECORDED), "FILE")
    assert source.origin == Origin("host", "0123", "tracepoint", BOOT_ID, 4_026_531_841)
    assert source.kernel_names == KERNEL_NAMES
    batches = [([seen.call for seen in batch.calls], batch.clock_offset_ns)
               for batch in source.batches() if batch.calls]  # fmt: skip
    assert batches == [(CALLS[:2], 100), (CALLS[2:], -200)]
    assert source.end() == (TOTALS, "")


def test_a_long_recording_is_not_read_at_once() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.calls([record_of(CALLS[1])] * 10_000)
    recorder.end(TOTALS)
    batches = [batch.calls for batch in Replay(io.BytesIO(file.getvalue()), "FILE").batches()]
    assert sum(map(len, batches)) == 10_000
    assert max(map(len, batches)) < 5_000


def test_enough_is_enough_but_the_totals_are_those_of_the_run() -> None:
    source = Replay(io.BytesIO(RECORDED), "FILE")
    seen = []
    for batch in source.batches():
        seen += [call for call, _ in batch.calls]
        if seen:
            source.finish()
    assert seen == CALLS[:2]
    assert source.end() == (TOTALS, "")


def test_records_of_a_later_kind_are_left_out() -> None:
    """So that a frame can be added without another version."""
    at = RECORDED.index(_frame(CLOCK, struct.pack("=q", -200)))
    data = RECORDED[:at] + _frame(b"?", b"news") + RECORDED[at:]
    assert _replayed(data) == (CALLS, "")


# --- Not all of it is there --------------------------------------------------------------


def _frames() -> Iterator[tuple[int, bytes]]:
    # Where each begins, and its kind.
    at = len(MAGIC)
    while at < len(RECORDED):
        yield at, RECORDED[at : at + 1]
        at += 9 + struct.unpack_from("=I", RECORDED, at + 1)[0]


FRAMES = [*_frames(), (len(RECORDED), b"")]
AHEAD = [0, *accumulate(kind == CALL for _, kind in FRAMES)]
"""How many calls stand in front of each frame."""


def _problem_of_a_cut(length: int) -> str:
    if not length:
        return "is empty"
    if length <= len(MAGIC):
        return "a recording without a header: it was never begun"
    if length in dict(FRAMES):
        return (
            "has no end: the recording was cut short at a whole record,"
            " and what was lost while it was made is not known"
        )
    return f"cut short in the record at byte {max(at for at, _ in FRAMES if at < length)}"


def test_cut_short_at_any_byte() -> None:
    """Every call that is whole is shown, and it is said that it is not all."""
    for length in range(len(RECORDED)):
        calls, problem = _replayed(RECORDED[:length])
        whole = sum(at <= length for at, _ in FRAMES[1:])
        assert calls == CALLS[: AHEAD[whole]], length
        assert problem == f"FILE: {_problem_of_a_cut(length)}", length


@settings(deadline=None, max_examples=1000)
@given(st.integers(0, len(RECORDED) - 1), st.integers(1, 255))
@example(len(MAGIC) - 2, ord("1") ^ ord("2"))
def test_a_wrong_byte_is_noticed(at: int, flip: int) -> None:
    """What stands in front of it is shown, and it is said where it is wrong."""
    data = bytearray(RECORDED)
    data[at] ^= flip
    calls, problem = _replayed(bytes(data))
    intact = sum(start <= at for start, _ in FRAMES)
    assert calls == CALLS[: AHEAD[max(0, intact - 1)]]
    if at < len(MAGIC):
        assert problem in (
            "FILE: is not a recording of bpfsnoop",
            "FILE: was recorded in another version of the format:"
            " replay it with the bpfsnoop that made it",
        )
    else:
        start = max(start for start, _ in FRAMES if start <= at)
        assert problem in (
            f"FILE: corrupt from byte {start} on",
            f"FILE: cut short in the record at byte {start}",
        )


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(FRAMES) - 1))
def test_any_bytes_behind_whole_frames_are_survived(rest: bytes, frames: int) -> None:
    start = FRAMES[frames][0]
    calls, problem = _replayed(RECORDED[:start] + rest)
    assert calls == CALLS[: AHEAD[frames]]
    assert problem or frames == len(FRAMES) - 1


# --- Whole, but not what we read ---------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x7fELF" * 20, "is not a recording of bpfsnoop"),
        (b"\n", "is not a recording of bpfsnoop"),
        (MAGIC.replace(b"1", b"2") + RECORDED[len(MAGIC) :],
         "was recorded in another version of the format: replay it with the bpfsnoop that made it"),
        (MAGIC + _frame(END, b"{}"), "a recording without a header: it was never begun"),
        (MAGIC + _header(wire=99, news=1),
         f"holds records of version 99, this bpfsnoop reads {wire.WIRE_VERSION}:"
         " replay it with the bpfsnoop that made it"),
        (MAGIC + _header(byteorder="middle"), "was recorded on a middle-endian machine"),
    ],
)  # fmt: skip
def test_what_we_do_not_read_is_said_so(data: bytes, problem: str) -> None:
    assert _replayed(data) == ([], f"FILE: {problem}")


NONSENSE = "FILE: has a header that makes no sense"


@pytest.mark.parametrize(
    "changes",
    [
        {"news": 1},
        {"kernel": 6.1},
        {"hostname": None},
        {"hostname": "\ud800"},
        {"host_id": 7},
        {"boot_id": b"\x1b".decode()},
        {"boot_id": None},
        {"mount_namespace": None},
        {"mount_namespace": -1},
        {"mount_namespace": 1 << 32},
        {"probe": ["tracepoint"]},
        {"probe": "\x1b[2J"},
        {"kernel_names": []},
        {"kernel_names": {"bpf_cmd": []}},
        {"kernel_names": {"bpf_cmd": {"one": "BPF_ONE"}}},
        {"kernel_names": {"bpf_cmd": {"1": None}}},
        {"kernel_names": {"bpf_cmd": {"1": "BPF_\x1b[2J"}}},
        {"kernel_names": {"bpf_cmd": {"1": "BPF_ONE\nfake[1] bpf()"}}},
        {"kernel_names": {"bpf_cmd": {"1": "\ud800"}}},
        {"kernel_names": {"bpf_cmd": {"1": ""}}},
    ],
)
def test_a_header_that_makes_no_sense(changes: dict[str, Any]) -> None:
    """Nothing of it reaches a terminal, a document or a crash."""
    assert _replayed(MAGIC + _header(**changes) + _frame(CALL, record_of(CALLS[2]))) == (
        [],
        NONSENSE,
    )


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b"{}", b"null", b'{"wire": 1', b"[" * 100_000, b"1e999"]
)
def test_a_header_that_is_no_object(payload: bytes) -> None:
    assert _replayed(MAGIC + _frame(HEADER, payload)) == ([], NONSENSE)


NUMBERS: Mapping[str, int] = {"unfinished": 0, "missed_runs": 0, "unfollowed": 0, "time_ns": 1}


@pytest.mark.parametrize(
    "end",
    [
        None,
        [],
        {},
        {**NUMBERS, "counts": []},
        {**NUMBERS, "counts": {"x": [1, 2]}},
        {**NUMBERS, "counts": {"1": [1]}},
        {**NUMBERS, "counts": {"1": 1}},
        {**NUMBERS, "counts": {"1": [1, -2]}},
        {**NUMBERS, "counts": {"1": [1 << 64, 0]}},
        {**NUMBERS, "counts": {"1": [float("inf"), 0]}},
        {**NUMBERS, "counts": {}, "news": 1},
        {**NUMBERS, "counts": {}, "time_ns": 10**30},
        {**NUMBERS, "counts": {}, "time_ns": -1},
        {**NUMBERS, "counts": {}, "time_ns": float("nan")},
    ],
)
def test_an_end_that_makes_no_sense(end: object) -> None:
    start = FRAMES[-2][0]
    calls, problem = _replayed(RECORDED[:start] + _frame(END, json.dumps(end).encode()))
    assert calls == CALLS
    assert problem == "FILE: has totals that make no sense"


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (_frame(CLOCK, b"1234567"), "has a clock record of the wrong size"),
        (_frame(MAP_BTF, bytes(27)), "has a map of the wrong size"),
        (_frame(BTF, b"123"), "has BTF without an id"),
        (_frame(BTF, b"1234nonsense"), "has BTF that is none: too short for BTF"),
        (_frame(CALL, b""), "a record of 0 bytes"),
        (_frame(CALL, struct.pack("=I", 1)),
         f"a call of 4 bytes; the shortest has {wire.CALL_RECORD.size}"),
        (_frame(CALL, struct.pack("=I", 9).ljust(wire.CALL_RECORD.size, b"\0")),
         "a record of unknown kind 9"),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense(frame: bytes, problem: str) -> None:
    start = FRAMES[4][0]
    assert _replayed(RECORDED[:start] + frame) == (CALLS[:2], f"FILE: {problem}")


PROG = Object(ObjectKind.PROG, 31, 17, 0, 0, 0, 0, b"evil \x80", bytes(range(8)))
NOTICES = [
    Notice(Reason.PROG_UNLOADED, 1_000, PROG),
    Notice(Reason.LOAD_UNSEEN, 1_001, PROG._replace(name=b""), 7, 8, "BPF_PROG_TEST_RUN"),
    Notice(Reason.PROBE_SILENT, 1_002, probe="enter_bpf"),
]


def test_the_types_of_maps_are_read_as_they_were_written() -> None:
    data, key, value = made_btf.of_a_map()
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.btf(7, data)
    recorder.map_btf(MapBtf(1, 12, 20, 24, 7, key, value))
    recorder.map_btf(MapBtf(1, 13, 20, 24, 8, key, value))
    recorder.end(TOTALS)
    file.seek(0)
    source = Replay(file, "FILE")
    assert [*source.batches()]
    assert source.end().problem == ""
    known = source.types.of(12)
    assert known
    keys = known.instead_of(ONE_KEY, one_value=False)
    assert keys.text(blob(made_btf.KEY), Style(), "...") == made_btf.KEY_TEXT
    assert source.types.of(13) is None


def test_what_was_noticed_is_read_as_it_was_written() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.calls([record_of(CALLS[1])])
    for notice in NOTICES:
        recorder.notice(notice)
    recorder.end(TOTALS)
    batches = [*Replay(io.BytesIO(file.getvalue()), "FILE").batches()]
    assert [notice for batch in batches for notice in batch.notices] == NOTICES
    assert next(len(batch.calls) for batch in batches if batch.notices) == 1, "in its place"


def test_losses_are_told_where_they_were() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.calls([record_of(CALLS[1])])
    recorder.losses(TOTALS)
    recorder.end(TOTALS)
    batches = [*Replay(io.BytesIO(file.getvalue()), "FILE").batches()]
    assert next((len(batch.calls), batch.totals) for batch in batches) == (1, TOTALS)


def test_whose_objects_are_the_tracers_is_kept() -> None:
    own = frozenset({(1, 12), (2, 31)})
    file = io.BytesIO()
    Recorder(file, ABOUT._replace(own=own)).end(TOTALS)
    assert Replay(io.BytesIO(file.getvalue()), "FILE").own == own


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON, st.integers(-1, 7))
def test_any_notice_is_read_or_refused(value: object, place: int) -> None:
    payload: list[object] = ["load_unseen", 1, None, 7, 8, "", None, ""]
    if place >= 0:
        payload[place] = value
    try:
        notice = parse_notice(json.dumps(payload if place >= 0 else value).encode(), "FILE")
    except RecordingError:
        return
    checked(ecs.notice_document(notice, ORIGIN, time_ns=1, sequence=1))


@settings(deadline=None)
@given(JSON, st.none() | st.sampled_from(list(Surroundings._fields)))
@example({"news": "unreadable"}, "missing")
def test_any_process_is_read_or_refused(value: object, name: str | None) -> None:
    payload = value if name is None else _process_payload(**{name: value})
    try:
        _, surroundings = parse_process(json.dumps(payload).encode(), "FILE")
    except RecordingError:
        return
    process = process_of(CALLS[1], None, surroundings)
    document = document_of(CALLS[1], process)
    line = process_line(process, CALLS[1])
    assert line.isascii()
    assert line.isprintable()
    assert document["process"]["pid"] == 1_234


@settings(deadline=None)
@given(JSON, st.sampled_from(["wire", "byteorder", *Header._fields]))
def test_any_header_is_read_or_refused(value: object, key: str) -> None:
    try:
        header = Recording(io.BytesIO(MAGIC + _header(**{key: value})), "FILE").header
    except RecordingError:
        return
    names = [name for constants in header.kernel_names.values() for name in constants.values()]
    for text in (header.hostname, header.host_id, header.boot_id, header.probe, *names):
        assert text.isascii()
        assert text.isprintable()


# --- Who made the calls ------------------------------------------------------------------

SURROUNDINGS = Surroundings(
    args=(b"loader", b"-v", b"\xff\0"),
    args_cut=False,
    cwd=b"/root \x80",
    ancestors=(Ancestor(1_200, b"bash", b"/bin/bash", 30), Ancestor(1, b"init", None, 0)),
    ancestors_cut=False,
    cgroup=b"/docker/x",
    container=Container("0123456789abcdef" * 4, "docker", ""),
    missing={},
)
UNKNOWN = Surroundings(
    None, args_cut=False, cwd=None, ancestors=(), ancestors_cut=False, cgroup=None,
    container=None, missing={"args": Missing.GONE, "ancestors": Missing.REPLACED},
    exe_on_host=True,
)  # fmt: skip


class FakeRings:
    """Gives what the kernel program sent, in as many batches as there are lists."""

    def __init__(self, batches: list[list[bytes]]) -> None:
        self._batches = iter(batches)

    def drain(self) -> Drained:
        return Drained(next(self._batches, []), held=False, until_ns=0)


class FakeProgram:
    def __init__(self, batches: list[list[bytes]]) -> None:
        self.rings = FakeRings(batches)

    def stop(self) -> None:
        pass

    def totals(self, time_ns: int) -> Totals:
        return Totals({0: CommandCount(1000, 0)}, 0, 0, 0, time_ns)

    def silent(self) -> list[str]:
        return []


class FakeWatch:
    over = True


class FakeProc:
    """Finds each time something else, as it would of a process that changes.

    But not of one whose start is not known, which is looked up again for each call.
    """

    def __init__(self) -> None:
        self._asked = 0

    def surroundings(
        self, pid: int, start_ns: int, cgroup_id: int, exec_id: int, parent: tuple[int, int] | None
    ) -> Surroundings:
        self._asked += 1
        number = self._asked if start_ns else pid
        return SURROUNDINGS._replace(cwd=b"/%d" % number) if number % 3 else UNKNOWN


def _live(batches: list[list[bytes]], file: io.BytesIO, proc: FakeProc) -> Live:
    program: Any = FakeProgram(batches)
    watch: Any = FakeWatch()
    looks: Any = proc
    known = Facts(KERNEL_NAMES, {}, 0, frozenset(), {}, {}, "")
    return Live(program, Loaded({}, known, [], "tracepoint"), watch, looks, record=file)


def _documents(source: Live | Replay) -> list[ecs.Document]:
    decoder = Decoder(source.kernel_names)
    return [
        ecs.event_document(
            decoder.decode(call), process, source.origin, time_ns=call.start_ns, sequence=1
        )
        for batch in source.batches()
        for call, process in batch.calls
    ]


def _another(call: Call, number: int) -> Call:
    """The same of another process; every third is on a kernel that does not tell."""
    call = call._replace(tgid=number, process_start_ns=number, tid=number)
    return call if number % 3 else without_task(call)


LONG = call_of(5, bytes(range(256)) * 3, memory={8: blob(b"insn" * 4000, state=PartState.CHUNKED)})


def test_a_replay_is_the_run_document_for_document() -> None:
    """With chunks, processes that are told once, twice or never, and what /proc said."""
    calls = [_another(call, number) for number in range(1, 8) for call in (*CALLS, LONG)]
    told = [
        process_record(image_of(tgid=call.tgid, start_ns=call.process_start_ns))
        for call in calls
        if call.tgid % 2
    ]
    records = [record for call in calls for record in records_of(call)]
    file, proc = io.BytesIO(), FakeProc()
    live = _documents(_live([told, records[:9], records[9:], [*told, *records]], file, proc))
    assert len(live) == 2 * len(calls)
    found = [document["bpf"]["process"] for document in live]
    assert {about.get("absent", {}).get("ancestors") for about in found} >= {None, "pid_reused"}
    file.seek(0)
    source = Replay(file, "FILE")
    assert _documents(source) == live
    assert source.end().problem == ""


@pytest.mark.parametrize("surroundings", [SURROUNDINGS, UNKNOWN])
def test_what_was_found_out_is_read_as_it_was_written(surroundings: Surroundings) -> None:
    file = io.BytesIO()
    key = Key(1_234, 700_000_003, 5, (1 << 64) - 1)
    Recorder(file, ABOUT).process(key, surroundings)
    file.seek(0)
    (frame,) = _frames_of(file)
    assert frame.kind == PROCESS
    assert parse_process(frame.payload, "FILE") == (key, surroundings)


def _frames_of(file: io.BytesIO) -> list[Frame]:
    frames: list[Frame] = []
    with pytest.raises(RecordingError, match="has no end"):
        frames.extend(Recording(file, "FILE").frames())
    return frames


PLAIN: dict[str, Any] = {
    "args": None, "args_cut": False, "cwd": None, "ancestors": [], "ancestors_cut": False,
    "cgroup": None, "container": None, "missing": {}, "exe_on_host": None,
}  # fmt: skip
KEY = [1, 2, 3, 4]


def _process_payload(key: object = KEY, **changes: object) -> object:
    return [*key, list((PLAIN | changes).values())] if isinstance(key, list) else key


@pytest.mark.parametrize(
    "process",
    [
        None, {}, [], 5, KEY, [*KEY, []], [*KEY, 5], [*KEY, None],
        _process_payload([1, 2, 3]),
        _process_payload([1, 2, 3, 4, 5]),
        _process_payload([1, 2, 3, -1]),
        _process_payload([1, 2, 3, 1 << 64]),
        _process_payload([1, 2, 3, 1.5]),
        _process_payload([1, 2, 3, "4"]),
        _process_payload(args=[5]),
        _process_payload(args=["\u20ac"]),
        _process_payload(args=5),
        _process_payload(cwd=5),
        _process_payload(cwd="\ud800"),
        _process_payload(cgroup=["/"]),
        _process_payload(ancestors=None),
        _process_payload(ancestors=[[1, "init", None]]),
        _process_payload(ancestors=[[-1, "init", None, 0]]),
        _process_payload(ancestors=[[1, None, None, 0]]),
        _process_payload(ancestors=[[1, "init", 5, 0]]),
        _process_payload(ancestors=[[1, "init", None, 1 << 64]]),
        _process_payload(container=["id"]),
        _process_payload(container=["\u001b[2J", "docker", ""]),
        _process_payload(container=[5, "docker", ""]),
        _process_payload(missing=[]),
        _process_payload(missing={"args": "a whim"}),
        _process_payload(missing={"args": None}),
        _process_payload(missing={"\u001b[2J": "unreadable"}),
        _process_payload(exe_on_host=1),
        _process_payload(exe_on_host="yes"),
    ],
)  # fmt: skip
def test_a_process_that_makes_no_sense(process: object) -> None:
    start = FRAMES[4][0]
    frame = _frame(PROCESS, json.dumps(process).encode())
    problem = "FILE: has a process that makes no sense"
    assert _replayed(RECORDED[:start] + frame) == (CALLS[:2], problem)


# --- As the user sees it -----------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "calls.rec"
    path.write_bytes(RECORDED)
    return path


def test_a_replay_shows_what_was_recorded(
    recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, lines, err = shown(capfd, "replay", recording, "-a", "0")
    assert status == 0
    who, *lines = lines
    assert who == "--- loader[1234] {uid=1000, euid=7} ---"
    assert [line.split("(")[1].split(",")[0] for line in lines] == [
        "BPF_MAP_CREATE", "BPF_MAP_FREEZE", "BPF_MAP_TELEPORT", "BPF_PROG_LOAD",
    ]  # fmt: skip
    assert lines[3].startswith(r"\33[2J[1234] bpf(")
    assert err == (
        "bpfsnoop: lost 2 of 6 calls (BPF_MAP_CREATE 2):"
        " narrow the filter or give a larger --ring-size\n"
    )


def test_strictly_a_replay_of_losses_is_a_failure(
    recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shown(capfd, "replay", recording, "--strict")[0] == 3


@pytest.mark.parametrize("ending", ["cut", "corrupt"])
def test_what_is_whole_is_shown_and_the_rest_told(
    recording: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    """In documents too: but not that nothing was lost, for nobody knows."""
    data = bytearray(RECORDED)
    at = FRAMES[5][0]
    if ending == "cut":
        del data[at + 3 :]
    else:
        data[at + 20] ^= 1
    recording.write_bytes(data)
    for options in ((), ("--json",), ("--strict",)):
        status, lines, err = shown(capfd, "replay", recording, *options)
        assert status == 1
        assert len(lines) == 2 + (options != ("--json",))  # the process, then its calls
        assert err.startswith(f"bpfsnoop: {recording}: ")
        assert err.endswith(f"byte {at}{' on' * (ending == 'corrupt')}\n")
        assert err.count("\n") == 1
        if options == ("--json",):
            for line in lines:
                VALIDATOR.validate(json.loads(line))
    status, lines, _ = shown(capfd, "replay", recording, "-c")
    assert (status, len(lines)) == (1, 2 + 2 + 2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "cannot open missing: No such file or directory"),
        (".", "cannot open .: Is a directory"),
        ("/dev/null", "/dev/null: is empty"),
        ("/proc/self/mem", "cannot read /proc/self/mem: Input/output error"),
        ("/etc/passwd", "/etc/passwd: is not a recording of bpfsnoop"),
    ],
)
def test_a_file_that_is_no_recording(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    told: str,
) -> None:
    """And nothing becomes of the output."""
    monkeypatch.chdir(tmp_path)
    Path("out").write_text("precious")
    assert shown(capfd, "replay", name, "-o", "out") == (1, [], f"bpfsnoop: {told}\n")
    assert Path("out").read_text() == "precious"


def test_a_mistake_is_told_before_the_output_is_touched(
    recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    status, _, err = shown(capfd, "replay", recording, "-o", out, "-e", "prog_laod")
    assert (status, out.read_text()) == (2, "precious")
    assert err == "bpfsnoop: -e prog_laod: there is no such command; did you mean prog_load?\n"


@pytest.mark.parametrize("how", ["same", "link"])
def test_a_recording_is_not_overwritten_by_its_replay(
    recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    out = recording
    if how == "link":
        out = tmp_path / "link"
        os.link(recording, out)
    status, _, err = shown(capfd, "replay", recording, "-o", out)
    assert status == 2
    assert err == f"bpfsnoop: -o {out} is the recording itself\n"
    assert recording.read_bytes() == RECORDED


# --- Rules -------------------------------------------------------------------------------


@pytest.fixture
def by_loader(tmp_path: Path) -> Path:
    path = tmp_path / "by_loader.yml"
    path.write_text(detection({"process.name|cased|expand": "%loaders%"}, name="by_loader"))
    return path


def test_a_replay_is_judged(
    recording: Path, by_loader: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first alert below its call, and at the end how often it came again."""
    options = ("--rules", by_loader, "--rule-list", "loaders=loader,other")
    status, lines, _ = shown(capfd, "replay", recording, *options)
    assert status == 0
    found = [at for at, line in enumerate(lines) if line.startswith("*** informational: By_loa")]
    assert "BPF_MAP_CREATE" in lines[found[0] - 1]
    assert "; 2 times;" in lines[found[1]]
    assert found == [2, len(lines) - 1]
    _, only, _ = shown(capfd, "replay", recording, *options, "--alerts-only")
    assert only == [lines[at] for at in found]
    each = shown(capfd, "replay", recording, *options, "--alerts-only", "--alert-interval", "0")
    assert len(each[1]) == 3


def test_rules_that_are_wrong_end_a_replay_before_it_begins(
    recording: Path, by_loader: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(detection({"event.acton": "x"}))
    status, lines, err = shown(
        capfd, "replay", recording, "--rules", by_loader, "--rules", broken,
        "--rule-list", "mine=%trusted_bpf_loader%",
    )  # fmt: skip
    assert (status, lines) == (2, [])
    assert err.splitlines() == [
        "bpfsnoop: rule_lists: mine: there is no list trusted_bpf_loader;"
        " did you mean trusted_bpf_loaders?",
        f"bpfsnoop: {by_loader}:1: process.name|cased|expand: there is no list loaders",
        f"bpfsnoop: {broken}:1: event.acton: there is no field event.acton;"
        " did you mean event.action?",
    ]


def test_alerts_only_is_nothing_without_rules(
    recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "bpfsnoop: --alerts-only shows what rules find: add --rules default\n"
    assert shown(capfd, "replay", recording, "--alerts-only") == (2, [], said)


def test_correlations_that_may_be_missing_are_told(
    recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(correlate, "GROUPS_MAX", 1)
    rules = tmp_path / "often.yml"
    often = correlation("often", type="event_count", rules=["it"], group_by=["bpf.cmd"],
                        condition={"gte": 2})  # fmt: skip
    rules.write_text(detection({"bpf.size|exists": True}, name="it") + "---\n" + often)
    _, _, err = shown(capfd, "replay", recording, "--rules", rules)
    said = "bpfsnoop: 3 groups of events had to make room: a correlation may be missing"
    assert said in err.splitlines()
