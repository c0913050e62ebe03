# SPDX-License-Identifier: Apache-2.0
"""Where events go: files, lines with what stands in front and behind, the table."""

import argparse
import json
import os
import pty
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events import ecs
from bpfsnoop.events.call import COMMON_ATTRS, Call, CallFlag, CommandCount, Totals
from bpfsnoop.events.ecs import Cause
from bpfsnoop.events.errors import OutputError
from bpfsnoop.events.notice import Notice, Reason
from bpfsnoop.events.object import Described
from bpfsnoop.events.process import Process
from bpfsnoop.events.value import Style, Xlat
from bpfsnoop.rules.alert import Alert
from bpfsnoop.rules.rule import Ask, Rule
from bpfsnoop.tracer import sinks
from bpfsnoop.tracer.config import configured
from bpfsnoop.tracer.names import ReplayNames
from bpfsnoop.tracer.output import Output
from bpfsnoop.tracer.saved import SavedPrograms
from bpfsnoop.tracer.say import say
from bpfsnoop.tracer.sinks import (
    AlertsOnly,
    JsonSink,
    SummarySink,
    TextSink,
    TextStyle,
    sinks_for,
    spelling,
)
from calls import attr, blob, call_of, image_of, map_of, process_of, prog_of
from documents import DECODER, ORIGIN, VALIDATOR

FREEZE = call_of(22, b"\3\0\0\0")
FAILED = FREEZE._replace(retval=-1)
WHO = process_of(FREEZE)
LINE = "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4)"
NOON = 1_700_000_000_123_456_789

DEFAULTS = configured(argparse.Namespace())
PLAIN = TextStyle(
    calls=Style(), timestamps="none", relative=False, syscall_times=False,
    column=40, color=False, process=False,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def output(path: Path) -> Iterator[Output]:
    made = Output(str(path))
    made.begin()
    yield made
    made.end()


def _lines(path: Path, output: Output, style: TextStyle, *events: tuple[Call, int]) -> list[str]:
    sink = TextSink(output, style)
    for sequence, (call, time_ns) in enumerate(events, 1):
        sink.event(DECODER.decode(call), process_of(call), time_ns, sequence)
    output.flush()
    return path.read_text().splitlines()


# --- Files -------------------------------------------------------------------------------


def test_a_file_is_made_and_filled(path: Path) -> None:
    output = Output(str(path))
    output.begin()
    output.write(b"line\n")
    output.flush()
    assert path.read_bytes() == b"line\n"
    output.end()


def test_what_was_in_a_file_goes_when_the_run_begins(path: Path) -> None:
    """But not before: a run that cannot start destroys nothing."""
    path.write_bytes(b"precious\n" * 100)
    output = Output(str(path))
    assert path.read_bytes() == b"precious\n" * 100
    output.begin()
    output.write(b"new\n")
    output.end()
    assert path.read_bytes() == b"new\n"


def test_a_file_made_for_a_run_that_never_began_goes(path: Path) -> None:
    Output(str(path)).end()
    assert not path.exists()
    path.write_bytes(b"precious")
    Output(str(path)).end()
    assert path.read_bytes() == b"precious"


def test_a_file_may_be_for_the_owner_only(path: Path) -> None:
    old = os.umask(0)
    try:
        output = Output(str(path), mode=0o600)
    finally:
        os.umask(old)
    output.begin()
    output.end()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "reason"),
    [(".", "Is a directory"), ("no/such", "No such file or directory"),
     ("x" * 300, "File name too long")],
)  # fmt: skip
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str, reason: str) -> None:
    target = tmp_path / name
    with pytest.raises(OutputError) as error:
        Output(str(target))
    assert str(error.value) == f"cannot open {target}: {reason}"


def test_a_full_disk_is_told_when_it_is_noticed() -> None:
    output = Output("/dev/full")
    output.begin()
    output.write(b"line\n")
    with pytest.raises(OutputError) as error:
        output.flush()
    assert str(error.value) == "cannot write to /dev/full: No space left on device"
    with pytest.raises(OutputError):
        output.write(b"x" * (1 << 20))
    output.end()


def test_a_pipe_that_nobody_reads_is_no_error_of_ours(path: Path) -> None:
    """It is told apart, because '| head' is how it happens."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = Output(str(path))
    output.begin()
    os.close(reader)
    output.write(b"line\n")
    with pytest.raises(BrokenPipeError):
        output.flush()
    output.end()


def test_a_terminal_gets_each_line_at_once() -> None:
    ours, theirs = pty.openpty()
    output = Output(os.ttyname(theirs))
    output.begin()
    assert output.is_terminal
    output.write(b"line\n")
    assert os.read(ours, 100) == b"line\r\n"
    output.end()
    os.close(ours)
    os.close(theirs)


# --- Lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, f"{LINE}      = 0"),
        ({"column": 0}, f"{LINE} = 0"),
        ({"column": 35}, f"{LINE} = 0"),
        ({"column": 36}, f"{LINE}  = 0"),
        ({"column": 200}, f"{LINE:200}= 0"),
        ({"process": True}, f"loader[1234] {LINE} = 0"),
        ({"process": True, "column": 60}, f"{f'loader[1234] {LINE}':60}= 0"),
        ({"syscall_times": True}, f"{LINE}      = 0 <0.000031>"),
        ({"calls": Style(Xlat.RAW)}, "bpf(0x16, {map_fd=3}, 4)                = 0"),
        ({"timestamps": "epoch"}, f"1700000000.123456 {LINE} = 0"),
        ({"relative": True}, f"     0.000000 {LINE} = 0"),
        ({"timestamps": "epoch", "relative": True},
         f"1700000000.123456 (+     0.000000) {LINE} = 0"),
        ({"process": True, "timestamps": "epoch"},
         f"loader[1234] 1700000000.123456 {LINE} = 0"),
    ],
)  # fmt: skip
def test_line(path: Path, output: Output, changes: dict[str, object], line: str) -> None:
    style = replace(PLAIN, **changes)  # type: ignore[arg-type]
    assert _lines(path, output, style, (FREEZE, NOON)) == [line]


@pytest.mark.parametrize(
    ("zone", "stamps"),
    [
        ("UTC0", ["22:13:20", "22:13:20.123456", "1700000000.123456"]),
        ("IST-5:30", ["03:43:20", "03:43:20.123456", "1700000000.123456"]),
    ],
)
def test_the_clock_is_the_local_one(
    path: Path, output: Output, monkeypatch: pytest.MonkeyPatch, zone: str, stamps: list[str]
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for timestamps in ("seconds", "microseconds", "epoch"):
            lines = _lines(path, output, replace(PLAIN, timestamps=timestamps), (FREEZE, NOON))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert lines == [f"{stamp} {LINE} = 0" for stamp in stamps]


def test_time_since_the_call_before(path: Path, output: Output) -> None:
    """Calls come as they return, so one may have begun before the one in front of it."""
    lines = _lines(
        path, output, replace(PLAIN, relative=True),
        (FREEZE, NOON), (FREEZE, NOON + 1_500), (FREEZE, NOON - 2_000_001_000),
        (FREEZE, NOON + 12_345 * 10**9),
    )  # fmt: skip
    assert [line.split(" bpf")[0] for line in lines] == [
        "     0.000000", "     0.000001", "    -2.000002", " 12347.000001",
    ]  # fmt: skip


def test_long_calls_have_seconds(path: Path, output: Output) -> None:
    call = FREEZE._replace(duration_ns=65_000_000_999)
    (line,) = _lines(path, output, replace(PLAIN, syscall_times=True), (call, NOON))
    assert line.endswith(" = 0 <65.000000>")


# --- Who it is ---------------------------------------------------------------------------

SEVERAL = replace(PLAIN, process=True, introduce=True, column=0)
PREFIXED = f"loader[1234] {LINE} = 0"
INTRODUCED = (
    '--- loader[1234] {exe="/usr/bin/loader", args=["loader", "-v", "x"], uid=1000, euid=7,'
    " parent=bash[1200]} ---"
)


def _told(path: Path, output: Output, style: TextStyle, *calls: tuple[Call, Process]) -> list[str]:
    sink = TextSink(output, style)
    for sequence, (call, process) in enumerate(calls, 1):
        sink.event(DECODER.decode(call), process, NOON, sequence)
    output.flush()
    return path.read_text().splitlines()


def test_a_process_is_introduced_before_its_first_call(path: Path, output: Output) -> None:
    process = process_of(FREEZE, image_of())
    other = FREEZE._replace(tgid=5, comm=b"x\x1b[2J", uid=0, euid=0)
    calls = (FREEZE, process), (other, process_of(other)), (FREEZE, process)
    assert _told(path, output, SEVERAL, *calls) == [
        INTRODUCED, PREFIXED,
        r"--- x\33[2J[5] {uid=0} ---", PREFIXED.replace("loader[1234]", r"x\33[2J[5]"),
        PREFIXED,
    ]  # fmt: skip


def test_what_a_pid_stands_for_now_is_said_again(path: Path, output: Output) -> None:
    """After execve(2), and when another process has its pid."""
    first, second = process_of(FREEZE, image_of()), process_of(FREEZE, image_of(exe=b"/bin/x"))
    lines = _told(path, output, SEVERAL, (FREEZE, first), (FREEZE, second), (FREEZE, second))
    assert lines == [
        INTRODUCED, PREFIXED, INTRODUCED.replace("/usr/bin/loader", "/bin/x"), PREFIXED, PREFIXED,
    ]  # fmt: skip


def test_other_rights_are_said_before_the_first_call_with_them(path: Path, output: Output) -> None:
    process = process_of(FREEZE, image_of())
    dropped = FREEZE._replace(uid=5, euid=5)
    lines = _told(path, output, SEVERAL, *((call, process) for call in (FREEZE, dropped, dropped)))
    assert lines == [
        INTRODUCED, PREFIXED, INTRODUCED.replace("uid=1000, euid=7", "uid=5"), PREFIXED, PREFIXED,
    ]  # fmt: skip


def test_a_single_process_needs_no_introduction(path: Path, output: Output) -> None:
    process = process_of(FREEZE, image_of())
    quiet = replace(SEVERAL, introduce=False)
    assert _told(path, output, quiet, (FREEZE, process)) == [PREFIXED]


@pytest.mark.parametrize(
    ("quiet", "several", "introduce"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
def test_several_processes_are_introduced_unless_quiet(
    quiet: bool, several: bool, introduce: bool
) -> None:
    style = TextStyle.of(replace(DEFAULTS, quiet=quiet), terminal=False, several=several)
    assert (style.introduce, style.process) == (introduce, several)


def test_lines_as_strace_has_them(path: Path, output: Output) -> None:
    """Nobody is introduced, and the message is the line."""
    config = replace(DEFAULTS, strace_compat=True, column=0)
    style = TextStyle.of(config, terminal=False, several=True)
    assert not style.introduce
    fd = call_of(22, attr("i", 3), objects={0: map_of()})
    as_json = replace(config, format="json", message=True)
    for options, expected in (
        (config, f"loader[1234] {LINE} = 0\n"),
        (as_json, f'"message":"{LINE} = 0"'),
    ):
        sink, *_ = sinks_for(options, output, ORIGIN, several=True, names=ReplayNames())
        sink.event(DECODER.decode(fd), WHO, NOON, 1)
        output.flush()
        assert expected in path.read_text()


def test_introductions_of_many_processes_are_not_kept_for_ever(
    path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_INTRODUCED_MAX", 3)
    calls = [FREEZE._replace(tgid=tgid) for tgid in range(1, 6)]
    pairs = [(call, process_of(call)) for call in calls]
    lines = _told(path, output, SEVERAL, *pairs, *pairs[2:], pairs[0])
    assert sum(line.startswith("--- ") for line in lines) == 5 + 1


def test_an_introduction_is_dim_where_there_are_colours(path: Path, output: Output) -> None:
    style = replace(SEVERAL, color=True)
    first, _ = _told(path, output, style, (FREEZE, process_of(FREEZE, image_of())))
    assert first == f"\x1b[2m{INTRODUCED}\x1b[0m"


def test_documents_say_in_each_who_it_is(path: Path, output: Output) -> None:
    process = process_of(FREEZE, image_of())
    sink = JsonSink(output, ORIGIN, spelling(DEFAULTS, ReplayNames()))
    sink.event(DECODER.decode(FREEZE), process, NOON, 1)
    sink.event(DECODER.decode(FREEZE), process, NOON, 2)
    output.flush()
    for line in path.read_bytes().splitlines():
        document = json.loads(line)
        VALIDATOR.validate(document)
        assert document["process"]["executable"] == "/usr/bin/loader"
        assert document["message"] == f"{LINE} = 0"


def test_the_options_say_how_much_of_a_string_is_shown(path: Path, output: Output) -> None:
    load = call_of(5, attr("IIQQ", 1, 1, 1, 2), memory={16: blob(b"Dual BSD/GPL\0")})
    for strings, shown in ((4, '"Dual"...'), (12, '"Dual BSD/GPL"'), (0, '""...')):
        style = TextStyle.of(replace(DEFAULTS, strings=strings), terminal=False, several=False)
        assert f"license={shown}}}" in _lines(path, output, style, (load, NOON))[-1]


# --- Colours -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("color", "terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),  # "present and not an empty string"
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    color: str,
    terminal: bool,
    environment: dict[str, str],
    expected: bool,
) -> None:
    """See https://no-color.org."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    style = TextStyle.of(replace(DEFAULTS, color=color), terminal=terminal, several=True)
    assert style.color is expected


def test_colours_mark_the_command_and_failures(path: Path, output: Output) -> None:
    style = replace(PLAIN, color=True, process=True, column=0)
    assert _lines(path, output, style, (FREEZE, NOON), (FAILED, NOON)) == [
        "\x1b[2mloader[1234] \x1b[0mbpf(\x1b[36mBPF_MAP_FREEZE\x1b[0m, {map_fd=3}, 4) = 0",
        "\x1b[2mloader[1234] \x1b[0mbpf(\x1b[36mBPF_MAP_FREEZE\x1b[0m, {map_fd=3}, 4)"
        " \x1b[31m= -1 EPERM (Operation not permitted)\x1b[0m",
    ]


COMMS = st.binary(max_size=15).filter(lambda comm: b"\0" not in comm)
ANY_CALL = st.builds(
    lambda cmd, attr, comm, retval, size: call_of(cmd, attr, comm=comm, retval=retval, size=size),
    st.sampled_from([0, 5, 22, 28, 63, 4000]).map(int) | st.just(5 | COMMON_ATTRS),
    st.binary(max_size=150) | st.just(b"\x1b[31m" * 24),
    COMMS | st.just(b"\x1b[31m\n"),
    st.integers(-600, 3),
    st.none() | st.integers(0, 5000),
)


@given(ANY_CALL, st.sampled_from(list(Xlat)), st.booleans())
def test_colours_come_from_us_only(call: Call, xlat: Xlat, verbose: bool) -> None:
    """Without ours, the line is the one without colours: printable ASCII and nothing else."""
    ours, theirs = os.pipe()
    output = Output(f"/proc/self/fd/{theirs}")
    style = replace(PLAIN, process=True, calls=Style(xlat, verbose), syscall_times=True)
    for color in (False, True):
        sink = TextSink(output, replace(style, color=color))
        sink.event(DECODER.decode(call), process_of(call), NOON, 1)
    output.flush()
    plain, colored, rest = os.read(ours, 1 << 16).decode("ascii").split("\n")
    output.end()
    os.close(ours)
    os.close(theirs)
    assert plain.isprintable()
    assert re.sub(r"\x1b\[(?:0|2|31|36)m", "", colored) == plain
    assert rest == ""


# --- What the options ask for ------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, [TextSink]),
        ({"summary": "only"}, [SummarySink]),
        ({"summary": "also"}, [TextSink, SummarySink]),
        ({"format": "json"}, [JsonSink]),
        ({"format": "json", "message": True}, [JsonSink]),
    ],
)
def test_the_sinks_that_options_ask_for(
    path: Path, output: Output, options: dict[str, Any], kinds: list[type]
) -> None:
    config = replace(DEFAULTS, **options)
    made = sinks_for(config, output, ORIGIN, several=False, names=ReplayNames())
    assert [*map(type, made)] == kinds
    made[0].event(DECODER.decode(FREEZE), WHO, NOON, 1)
    output.flush()
    assert (b'"message":' in path.read_bytes()) == ("message" in options)


# --- Alerts --------------------------------------------------------------------------------

FROZEN = Alert(
    Rule("Frozen", Ask("event.action", "exists", value=True), "frozen", level="high",
         tags=("attack.t1014",)),
    {"@timestamp": "2026-11-22T03:18:13.639159083Z", "ecs": {"version": "8.17.0"},
     "event": {"action": "map_freeze", "outcome": "success"}, "host": ecs.host_document(ORIGIN),
     "bpf": {"probe": "fentry"}},
    {}, (3,), 0,
)  # fmt: skip


@pytest.mark.parametrize("level", ["critical", "high", "medium", "low", "informational"])
def test_an_alert_is_a_line_in_the_colour_of_its_level(
    path: Path, output: Output, level: str
) -> None:
    alert = FROZEN._replace(rule=replace(FROZEN.rule, level=level))
    TextSink(output, PLAIN).alert(alert, 2)
    TextSink(output, replace(PLAIN, color=True)).alert(alert, 2)
    output.flush()
    plain, colored = path.read_text().splitlines()
    assert plain == f"*** {level}: Frozen [frozen, T1014 Rootkit] ***"
    assert re.fullmatch(rf"(\x1b\[[0-9;]+m){re.escape(plain)}\x1b\[0m", colored)


def test_levels_have_colours_of_their_own(path: Path, output: Output) -> None:
    sink = TextSink(output, replace(PLAIN, color=True))
    for level in ("critical", "high", "medium", "low"):
        sink.alert(FROZEN._replace(rule=replace(FROZEN.rule, level=level)), 2)
    output.flush()
    assert len({line.partition("m")[0] for line in path.read_text().splitlines()}) == 4


def test_an_alert_is_a_document(path: Path, output: Output) -> None:
    JsonSink(output, ORIGIN, None).alert(FROZEN, 2)
    output.flush()
    document = json.loads(path.read_bytes())
    VALIDATOR.validate(document)
    assert (document["event"]["kind"], document["event"]["sequence"]) == ("alert", 2)


@pytest.mark.parametrize(("alone", "said"), [(True, 1), (False, 0)])
def test_beside_a_table_alerts_are_told_once(
    output: Output, capfd: pytest.CaptureFixture[str], alone: bool, said: int
) -> None:
    SummarySink(output, alone=alone).alert(FROZEN, 2)
    assert capfd.readouterr().err == "bpfsnoop: high: Frozen\n" * said


@pytest.mark.parametrize("format_", ["text", "json"])
def test_alerts_may_be_all_that_is_shown(path: Path, output: Output, format_: str) -> None:
    options = replace(DEFAULTS, format=format_, rules=("default",), alerts_only=True)
    (sink,) = sinks_for(options, output, ORIGIN, several=True, names=ReplayNames())
    sink.event(DECODER.decode(FREEZE), WHO, NOON, 1)
    sink.notice(Notice(Reason.PROG_UNLOADED, 5, prog=prog_of()), None, NOON, 2)
    sink.notice(Notice(Reason.PROBE_SILENT, 5, probe="enter_bpf"), None, NOON, 2)
    sink.alert(FROZEN, 3)
    sink.losses(Totals({3: CommandCount(5, 1, 0)}, 0, 0, 0, 0), {}, 4, final=False)
    sink.end()
    output.flush()
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert "calls go unseen" in lines[0]
    assert "Frozen" in lines[1]


def test_programs_are_saved_though_only_alerts_are_shown(output: Output, tmp_path: Path) -> None:
    options = replace(
        DEFAULTS, rules=("default",), alerts_only=True, save_progs=str(tmp_path / "kept")
    )
    made = sinks_for(options, output, ORIGIN, several=True, names=ReplayNames())
    assert [*map(type, made)] == [SavedPrograms, AlertsOnly]


# --- Documents ---------------------------------------------------------------------------


def test_documents_and_the_last_one(path: Path, output: Output) -> None:
    sink = JsonSink(output, ORIGIN, None)
    sink.event(DECODER.decode(FREEZE), WHO, NOON, 1)
    sink.event(DECODER.decode(FAILED), WHO, NOON + 1, 2)
    totals = Totals({22: CommandCount(5, 3)}, 0, 0, 0, NOON)
    sink.losses(totals, {22: "BPF_MAP_FREEZE"}, 3, final=True)
    sink.end()
    output.flush()
    documents = [json.loads(line) for line in path.read_bytes().splitlines()]
    for document in documents:
        VALIDATOR.validate(document)
    assert [document["event"]["sequence"] for document in documents] == [1, 2, 3]
    assert [document["event"]["outcome"] for document in documents[:2]] == ["success", "failure"]
    assert documents[2]["bpf"]["loss"]["complete"] is False
    assert documents[1]["@timestamp"] == "2023-11-14T22:13:20.123456790Z"
    assert documents[2]["bpf"]["loss"]["commands"] == [
        {"cmd": "BPF_MAP_FREEZE", "seen": 5, "lost": 3, "incomplete": 0}
    ]


NOTICES = [
    (Notice(Reason.PROG_UNLOADED, 5, prog_of()),
     '+++ program 31 "watch", tag f0f1f2f3f4f5f6f7, unloaded +++'),
    (Notice(Reason.LOAD_UNSEEN, 5, prog_of(name=b""), 7, 8, "BPF_PROG_TEST_RUN"),
     "!!! program 31, tag f0f1f2f3f4f5f6f7, loaded by process 7 within its BPF_PROG_TEST_RUN,"
     " unseen !!!"),
    (Notice(Reason.OWN_CHANGED, 5, touched=Described(map_of(), "BPF_MAP_TYPE_HASH")),
     '!!! an object of this tracer was changed: map:12 hash "config" !!!'),
    (Notice(Reason.PROBE_SILENT, 5, probe="enter_bpf"),
     "!!! the kernel does not run enter_bpf any more: calls go unseen !!!"),
]  # fmt: skip


@pytest.mark.parametrize(("notice", "line"), NOTICES)
def test_what_is_no_call(path: Path, output: Output, notice: Notice, line: str) -> None:
    TextSink(output, TextStyle.of(DEFAULTS, terminal=False, several=True)).notice(
        notice, None, NOON, 1
    )
    JsonSink(output, ORIGIN, None).notice(notice, None, NOON, 2)
    output.flush()
    shown, written = path.read_bytes().splitlines()
    assert shown.decode() == line
    document = json.loads(written)
    VALIDATOR.validate(document)
    assert document["message"] == line[4:-4]
    assert document["event"]["action"] == ("prog_unload" if line[0] == "+" else "integrity")


def test_who_touched_what_is_the_tracers(path: Path, output: Output) -> None:
    cause = Cause(DECODER.decode(FREEZE), WHO, 41)
    JsonSink(output, ORIGIN, None).notice(NOTICES[2][0], cause, NOON, 42)
    output.flush()
    document = json.loads(path.read_bytes())
    VALIDATOR.validate(document)
    assert document["process"]["pid"] == FREEZE.tgid
    assert document["bpf"]["integrity"] == {
        "reason": "own_object_changed", "cmd": "BPF_MAP_FREEZE", "retval": 0, "sequence": 41,
        "object": {"kind": "map", "id": 12, "type": "BPF_MAP_TYPE_HASH", "name": "config",
                   "key_size": 4, "value_size": 8, "max_entries": 1024},
    }  # fmt: skip


def test_losses_are_told_while_they_happen(path: Path, output: Output) -> None:
    totals = Totals({22: CommandCount(5, 3, 1)}, 0, 0, 0, NOON)
    TextSink(output, TextStyle.of(DEFAULTS, terminal=False, several=True)).losses(
        totals, {}, 1, final=False
    )
    JsonSink(output, ORIGIN, None).losses(totals, {}, 2, final=False)
    output.flush()
    shown, written = path.read_bytes().splitlines()
    assert shown == b"!!! 4 calls lost or incomplete so far !!!"
    document = json.loads(written)
    VALIDATOR.validate(document)
    assert document["bpf"]["loss"]["final"] is False


def test_a_message_is_the_line_without_its_padding(path: Path, output: Output) -> None:
    config = replace(DEFAULTS, constants="raw", column=80)
    sink = JsonSink(output, ORIGIN, spelling(config, ReplayNames()))
    sink.event(DECODER.decode(FREEZE), WHO, NOON, 1)
    output.flush()
    assert json.loads(path.read_bytes())["message"] == "bpf(0x16, {map_fd=3}, 4) = 0"


# --- The table ---------------------------------------------------------------------------


def _table(path: Path, output: Output, *calls: Call) -> list[str]:
    sink = SummarySink(output)
    for sequence, call in enumerate(calls, 1):
        sink.event(DECODER.decode(call), WHO, NOON, sequence)
    sink.end()
    output.flush()
    return path.read_text().splitlines()


def test_the_table_is_straces(path: Path, output: Output) -> None:
    """Its columns and their widths, the dearest command first."""
    lookup = call_of(1, bytes(32))._replace(duration_ns=1_000)
    load = call_of(5, bytes(100), retval=-13)._replace(duration_ns=3_999_000)
    unknown = call_of(4000, b"")._replace(duration_ns=0)
    assert _table(path, output, lookup, load, lookup, unknown, load._replace(retval=4)) == [
        "% time     seconds  usecs/call     calls    errors command",
        "------ ----------- ----------- --------- --------- ----------------",
        " 99.97    0.007998        3999         2         1 BPF_PROG_LOAD",
        "  0.03    0.000002           1         2           BPF_MAP_LOOKUP_ELEM",
        "  0.00    0.000000           0         1           0xfa0",
        "------ ----------- ----------- --------- --------- ----------------",
        "100.00    0.008000        1600         5         1 total",
    ]


def test_the_table_counts_no_time_that_nobody_knows(path: Path, output: Output) -> None:
    calls = [
        call_of(1, bytes(32), flags=flags)._replace(duration_ns=1_000)
        for flags in (0, CallFlag.NO_ENTRY, CallFlag.NO_EXIT)
    ]
    assert _table(path, output, *calls)[2] == (
        "100.00    0.000001           1         3           BPF_MAP_LOOKUP_ELEM"
    )


def test_a_table_of_nothing(path: Path, output: Output) -> None:
    assert _table(path, output)[2:] == [
        "------ ----------- ----------- --------- --------- ----------------",
        "  0.00    0.000000           0         0           total",
    ]


@given(st.lists(st.tuples(st.sampled_from([0, 1, 5, 4000]), st.booleans(), st.integers(0, 10**9))))
def test_the_table_adds_up(calls: list[tuple[int, bool, int]]) -> None:
    ours, theirs = os.pipe()
    output = Output(f"/proc/self/fd/{theirs}")
    sink = SummarySink(output)
    for cmd, failed, duration in calls:
        call = call_of(cmd, b"", retval=-failed)._replace(duration_ns=duration)
        sink.event(DECODER.decode(call), WHO, NOON, 1)
    sink.end()
    output.end()
    os.close(theirs)
    with os.fdopen(ours) as file:
        rows = [line.split() for line in file.read().splitlines()[2:] if line[0] != "-"]
    *commands, total = rows
    assert len(commands) == len({cmd for cmd, _, _ in calls})
    assert sum(int(row[3]) for row in commands) == int(total[3]) == len(calls)
    failures = sum(failed for _, failed, _ in calls)
    assert total[4:] == ([str(failures)] if failures else []) + ["total"]
    if sum(duration for *_, duration in calls):
        assert sum(float(row[0]) for row in commands) == pytest.approx(100, abs=0.05)
    seconds = [float(row[1]) for row in commands]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(seconds) == pytest.approx(float(total[1]), abs=1e-5)


# --- What is said to a person ------------------------------------------------------------


def test_what_is_said_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a file name or a recording brought into it."""
    say("cannot open \x1b[2J\n\udcff\N{EURO SIGN}: No such file or directory")
    said = capsys.readouterr().err
    assert said == (
        "bpfsnoop: cannot open \\x1b[2J\\n\\udcff\N{EURO SIGN}: No such file or directory\n"
    )
