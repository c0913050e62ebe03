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

from bpfsnoop.events import wire
from bpfsnoop.events.call import Call, CommandCount, Totals
from bpfsnoop.events.errors import RecordingError
from bpfsnoop.tracer.cli import main
from bpfsnoop.tracer.recording import CALL, CLOCK, END, HEADER, Header, Recorder, Recording
from bpfsnoop.tracer.source import Replay
from calls import call_of
from documents import VALIDATOR

MAGIC = b"\x93bpfsnoop recording 1\n"
KERNEL_NAMES = {"bpf_cmd": {0: "BPF_MAP_CREATE", 70: "BPF_MAP_TELEPORT"}}
ABOUT = Header("Linux 6.1 x86_64", "host", "0123", "tracepoint", KERNEL_NAMES)
TOTALS = Totals({0: CommandCount(5, 2), 63: CommandCount(1, 0)}, 0, 0, 0, 1_700_000_000 * 10**9)

CALLS = [
    call_of(0, bytes(92)),
    call_of(22, b"\3\0\0\0", retval=-9),
    call_of(70, b"", attr_addr=0),
    call_of(5, bytes(range(100)), comm=b"\x1b[2J"),
]


def _record(call: Call) -> bytes:
    *fixed, comm, entry, exit_ = call
    head = wire.CALL_RECORD.pack(wire.RECORD_CALL, *fixed, len(entry), len(exit_), comm, 0)
    return head + entry + exit_


def _frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack("=BII", kind[0], len(payload), crc32(payload, kind[0])) + payload


def _recorded() -> bytes:
    """Two calls, a change of the clock, two more."""
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.clock(100)
    recorder.calls([_record(CALLS[0]), _record(CALLS[1])])
    recorder.clock(-200)
    recorder.calls([_record(CALLS[2]), _record(CALLS[3])])
    recorder.end(TOTALS)
    return file.getvalue()


RECORDED = _recorded()


def _header(**changes: Any) -> bytes:
    about = {"wire": wire.WIRE_VERSION, "byteorder": sys.byteorder, **ABOUT._asdict(), **changes}
    return _frame(HEADER, json.dumps(about).encode())


def _replayed(data: bytes) -> tuple[list[Call], str]:
    """The calls that come out, and what is said about it."""
    try:
        source = Replay(io.BytesIO(data), "FILE")
    except RecordingError as error:
        return [], str(error)
    calls = [call for batch in source.batches() for call in batch.calls]
    return calls, source.end().problem


# --- All is well -------------------------------------------------------------------------


def test_what_was_recorded_is_read() -> None:
    recording = Recording(io.BytesIO(RECORDED), "FILE")
    assert recording.header == ABOUT
    kinds = b"".join(frame.kind for frame in recording.frames())
    assert kinds == CLOCK + CALL + CALL + CLOCK + CALL + CALL + END


def test_a_replay_is_the_run() -> None:
    source = Replay(io.BytesIO(RECORDED), "FILE")
    assert source.origin == ("host", "0123", "tracepoint")
    assert source.kernel_names == KERNEL_NAMES
    batches = [(calls, offset) for calls, offset in source.batches() if calls]
    assert batches == [(CALLS[:2], 100), (CALLS[2:], -200)]
    assert source.end() == (TOTALS, "")


def test_a_long_recording_is_not_read_at_once() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, ABOUT)
    recorder.calls([_record(CALLS[1])] * 10_000)
    recorder.end(TOTALS)
    batches = [calls for calls, _ in Replay(io.BytesIO(file.getvalue()), "FILE").batches()]
    assert sum(map(len, batches)) == 10_000
    assert max(map(len, batches)) < 5_000


def test_enough_is_enough_but_the_totals_are_those_of_the_run() -> None:
    source = Replay(io.BytesIO(RECORDED), "FILE")
    seen = []
    for calls, _ in source.batches():
        seen += calls
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
    assert _replayed(MAGIC + _header(**changes) + _frame(CALL, _record(CALLS[2]))) == ([], NONSENSE)


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
    assert problem == "FILE: has an end that makes no sense"


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (_frame(CLOCK, b"1234567"), "has a clock record of the wrong size"),
        (_frame(CALL, b""), f"a record of 0 bytes; the shortest has {wire.CALL_RECORD.size}"),
        (_frame(CALL, struct.pack("=I", 9).ljust(wire.CALL_RECORD.size, b"\0")),
         "a record of unknown kind 9"),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense(frame: bytes, problem: str) -> None:
    start = FRAMES[4][0]
    assert _replayed(RECORDED[:start] + frame) == (CALLS[:2], f"FILE: {problem}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON, st.sampled_from(["wire", "byteorder", *Header._fields]))
def test_any_header_is_read_or_refused(value: object, key: str) -> None:
    try:
        header = Recording(io.BytesIO(MAGIC + _header(**{key: value})), "FILE").header
    except RecordingError:
        return
    names = [name for constants in header.kernel_names.values() for name in constants.values()]
    for text in (header.hostname, header.host_id, header.probe, *names):
        assert text.isascii()
        assert text.isprintable()


# --- As the user sees it -----------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "calls.rec"
    path.write_bytes(RECORDED)
    return path


def _shown(capfd: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, list[str], str]:
    status = main(["replay", *map(str, argv)])
    out, err = capfd.readouterr()
    return status, out.splitlines(), err


def test_a_replay_shows_what_was_recorded(
    recording: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, lines, err = _shown(capfd, recording, "-a", "0")
    assert status == 0
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
    assert _shown(capfd, recording, "--strict")[0] == 3


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
        status, lines, err = _shown(capfd, recording, *options)
        assert status == 1
        assert len(lines) == 2
        assert err.startswith(f"bpfsnoop: {recording}: ")
        assert err.endswith(f"byte {at}{' on' * (ending == 'corrupt')}\n")
        assert err.count("\n") == 1
        if options == ("--json",):
            for line in lines:
                VALIDATOR.validate(json.loads(line))
    status, lines, _ = _shown(capfd, recording, "-c")
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
    assert _shown(capfd, name, "-o", "out") == (1, [], f"bpfsnoop: {told}\n")
    assert Path("out").read_text() == "precious"


def test_a_mistake_is_told_before_the_output_is_touched(
    recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    status, _, err = _shown(capfd, recording, "-o", out, "-e", "prog_laod")
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
    status, _, err = _shown(capfd, recording, "-o", out)
    assert status == 2
    assert err == f"bpfsnoop: -o {out} is the recording itself\n"
    assert recording.read_bytes() == RECORDED
