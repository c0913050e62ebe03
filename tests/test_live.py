# SPDX-License-Identifier: Apache-2.0
"""What a traced program did, as documents and as lines, against what it says it did."""

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import stimulus
from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.uapi import ENUMS
from bpfsnoop.events import ecs
from bpfsnoop.events.ecs import Origin
from bpfsnoop.tracer import btf
from calls import call_of, process_of
from running import (
    COMM,
    PREEMPTIBLE,
    STIMULUS,
    Document,
    Trace,
    bpfsnoop_run,
    calls_of,
    identity,
)
from stimulus import MadeCall

pytestmark = pytest.mark.live

LOST = 3
"""The status of --strict, also if a probe was left out for any process of the host."""


class Run(NamedTuple):
    """A traced stimulus."""

    made: list[MadeCall]
    out: Path
    """What bpfsnoop wrote."""
    recording: Path

    @property
    def trace(self) -> Trace:
        return Trace.of(self.out.read_bytes())

    def lines(self, *options: str) -> list[str]:
        """A line a call, as a replay shows them."""
        return self.replay("-q", *options).decode().splitlines()

    def replay(self, *options: str) -> bytes:
        finished = bpfsnoop_run("replay", self.recording, *options)
        assert (finished.status, finished.err) == (0, "")
        return finished.out


def _run(directory: Path, *arguments: str, options: tuple[str, ...]) -> Run:
    out, recording = directory / "out", directory / "recording"
    finished = bpfsnoop_run(
        "--record", recording, "-o", out, "--strict", *options, "--", *STIMULUS, *arguments
    )
    assert finished.err == ""
    assert finished.status == 0 or (PREEMPTIBLE and finished.status == LOST)
    return Run(calls_of(finished.out), out, recording)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every command, as documents."""
    return _run(tmp_path_factory.mktemp("every"), "every", options=("--json", "--message"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every command, as lines."""
    return _run(tmp_path_factory.mktemp("text"), "every", options=("-ttt", "-T", "-v"))


# --- Nothing is missing, nothing is added ------------------------------------------------


def test_23_calls_are_23(tmp_path: Path) -> None:
    run = _run(tmp_path, "count", "23", options=("--json",))
    trace = run.trace
    assert [identity(document) for document in trace.events] == [*map(identity, run.made)]
    assert trace.map_names() == [f"n{number}" for number in range(23)]
    assert (trace.seen, trace.lost) == (23, 0)
    assert trace.loss["bpf"]["loss"]["commands"] == [
        {"cmd": "BPF_MAP_CREATE", "seen": 23, "lost": 0, "incomplete": 0}
    ]


def test_a_burst_of_thousands_is_complete(tmp_path: Path) -> None:
    """What bpftool's probe does with this kernel is the same each time, so strace can tell."""
    # It may complain, such as about a kernel configuration that it cannot find.
    bpftool = "sh", "-c", "exec bpftool feature probe 2>/dev/null"
    count, out = tmp_path / "strace", tmp_path / "out"
    strace = "strace", "-f", "-c", "-e", "trace=bpf", "-o", str(count)
    subprocess.run([*strace, *bpftool], stdout=subprocess.DEVNULL, check=True)
    calls, errors = map(int, re.findall(r"(\d+) +(\d+) +bpf$", count.read_text(), re.MULTILINE)[0])

    # Not --strict: a probe run that the kernel leaves out for another process at this time
    # is told, for bpfsnoop cannot know whose it was. The number of calls shows it.
    finished = bpfsnoop_run("--json", "-o", out, "--", *bpftool)
    assert finished.status == 0
    trace = Trace.of(out.read_bytes(), validate_each=20)
    assert (trace.seen, trace.lost) == (len(trace.events), 0)
    assert len(trace.events) == calls > 4000
    outcomes = Counter(document["event"]["outcome"] for document in trace.events)
    assert outcomes["failure"] + outcomes["unknown"] == errors
    assert PREEMPTIBLE or not outcomes["unknown"]
    assert {document["process"]["name"] for document in trace.events} == {"bpftool"}


def test_every_call_is_there_in_its_place(every: Run) -> None:
    assert [identity(document) for document in every.trace.events] == [*map(identity, every.made)]
    numbers = {made.cmd & ~stimulus.BPF_COMMON_ATTRS for made in every.made}
    assert numbers == {*range(39), 63, 4000}


# --- Every value is the one that was passed ----------------------------------------------

# By command number.
STRUCTS: Mapping[int, stimulus.Struct] = {
    stimulus.BPF_MAP_CREATE: stimulus.MAP_CREATE,
    **dict.fromkeys((1, 2, 3, 4, 21), stimulus.MAP_ELEM),
    stimulus.BPF_PROG_LOAD: stimulus.PROG_LOAD,
    **dict.fromkeys((6, 7), stimulus.OBJ_PIN),
    **dict.fromkeys((8, 9), stimulus.PROG_ATTACH),
    stimulus.BPF_PROG_TEST_RUN: stimulus.TEST,
    **dict.fromkeys((11, 12, 13, 14, 19, 23, 30, 31), stimulus.GET_ID),
    stimulus.BPF_OBJ_GET_INFO_BY_FD: stimulus.INFO,
    stimulus.BPF_PROG_QUERY: stimulus.QUERY,
    stimulus.BPF_RAW_TRACEPOINT_OPEN: stimulus.RAW_TRACEPOINT,
    stimulus.BPF_BTF_LOAD: stimulus.BTF_LOAD,
    stimulus.BPF_TASK_FD_QUERY: stimulus.TASK_FD_QUERY,
    stimulus.BPF_MAP_FREEZE: stimulus.MAP_FREEZE,
    **dict.fromkeys((24, 25, 26, 27), stimulus.BATCH),
    stimulus.BPF_LINK_CREATE: stimulus.LINK_CREATE,
    stimulus.BPF_LINK_UPDATE: stimulus.LINK_UPDATE,
    stimulus.BPF_ENABLE_STATS: stimulus.ENABLE_STATS,
    stimulus.BPF_ITER_CREATE: stimulus.ITER_CREATE,
    stimulus.BPF_LINK_DETACH: stimulus.LINK_DETACH,
    stimulus.BPF_PROG_BIND_MAP: stimulus.PROG_BIND_MAP,
    stimulus.BPF_TOKEN_CREATE: stimulus.TOKEN_CREATE,
    stimulus.BPF_PROG_STREAM_READ_BY_FD: stimulus.PROG_STREAM_READ,
    stimulus.BPF_PROG_ASSOC_STRUCT_OPS: stimulus.PROG_ASSOC_STRUCT_OPS,
}

# Fields that only the kernel writes, so that what counts is what it wrote.
OUTPUTS: Mapping[int, set[str]] = {
    stimulus.BPF_PROG_LOAD: {"log_true_size"},
    stimulus.BPF_PROG_TEST_RUN: {"retval", "duration"},
    **{number: {"next_id"} for number in (11, 12, 23, 31)},
    stimulus.BPF_PROG_QUERY: {"attach_flags", "revision"},
    stimulus.BPF_BTF_LOAD: {"btf_log_true_size"},
    stimulus.BPF_TASK_FD_QUERY: {"prog_id", "fd_type", "probe_offset", "probe_addr"},
}


def _number(shown: Any) -> int | None:
    # What a document shows of a field; None if it takes a table to tell.
    if isinstance(shown, str) and shown.startswith("0x"):
        return int(shown, 16)
    if isinstance(shown, str):
        shown = getattr(stimulus, shown, None)
    return 0 if shown == [] else shown if isinstance(shown, int) else None


def test_every_field_is_what_its_bytes_say(every: Run) -> None:
    """Byte by byte by the stimulus's own layout of union bpf_attr, which shares no table."""
    compared = 0
    for made, document in zip(every.made, every.trace.events, strict=True):
        number = made.cmd & ~stimulus.BPF_COMMON_ATTRS
        struct = STRUCTS.get(number)
        if struct is None:
            assert number in (63, 4000)
            continue
        for name, shown in document["bpf"]["attr"].items():
            data = made.exit if name in OUTPUTS.get(number, ()) else made.entry
            offset, kind = struct.fields[name]
            if kind == "char16":
                assert data[offset : offset + 16].split(b"\0")[0] == shown.encode()
            elif (value := _number(shown)) is not None:
                passed = struct.get(data, name)
                assert value in (passed, passed - (1 << 32)), (document["bpf"]["cmd"], name)
                compared += 1
    assert compared > 250


def test_every_command_has_its_name(every: Run) -> None:
    for made, document in zip(every.made, every.trace.events, strict=True):
        number = made.cmd & ~stimulus.BPF_COMMON_ATTRS
        bpf, event = document["bpf"], document["event"]
        if number in (63, 4000):
            assert (bpf["cmd"], event["action"]) == (hex(number), "unknown")
            assert bpf["notes"] == ["command_unknown"]
        else:
            assert getattr(stimulus, bpf["cmd"]) == number
            assert f"BPF_{event['action'].upper()}" == bpf["cmd"]


def test_every_document_is_what_its_bytes_decode_to(every: Run) -> None:
    """All that is in attr; what it leads to is for test_live_objects.py and ..._memory.py."""
    decoder = Decoder(btf.kernel_names(ENUMS))
    origin = Origin("", "", every.trace.loss["bpf"]["probe"])
    for made, document in zip(every.made, every.trace.events, strict=True):
        call = call_of(
            made.cmd, made.entry, made.exit, size=made.size, retval=made.retval,
            attr_addr=made.attr_addr, common=(made.common_addr, made.common_size),
        )  # fmt: skip
        expected = ecs.event_document(
            decoder.decode(call), process_of(call), origin, time_ns=0, sequence=1
        )
        beyond = {"process", "map", "prog", "link", "btf", "fd", "memory"}
        shown = {key: value for key, value in document["bpf"].items() if key not in beyond}
        assert shown == {key: expected["bpf"][key] for key in expected["bpf"] if key not in beyond}


def test_what_the_kernel_wrote_is_told_from_what_was_passed(every: Run) -> None:
    by_cmd = {document["bpf"]["cmd"]: document["bpf"] for document in every.trace.events}
    made = {made.cmd: made for made in every.made}
    count = stimulus.QUERY.get(made[stimulus.BPF_PROG_QUERY].exit, "prog_cnt")
    assert by_cmd["BPF_PROG_QUERY"]["attr"]["prog_cnt"] == 64
    assert by_cmd["BPF_PROG_QUERY"]["attr_after"] == {"prog_cnt": count}
    length = stimulus.INFO.get(made[stimulus.BPF_OBJ_GET_INFO_BY_FD].exit, "info_len")
    assert by_cmd["BPF_OBJ_GET_INFO_BY_FD"]["attr"]["info_len"] == 256
    assert by_cmd["BPF_OBJ_GET_INFO_BY_FD"]["attr_after"] == {"info_len": length}


def test_the_arguments_of_common_attrs_are_there(every: Run) -> None:
    with_common = [made for made in every.made if made.cmd & stimulus.BPF_COMMON_ATTRS]
    documents = [d["bpf"] for d in every.trace.events if "common_attrs" in d["bpf"]]
    assert [bpf["common_attrs"] for bpf in documents] == [
        {"address": hex(made.common_addr), "size": made.common_size} for made in with_common
    ]
    assert [bpf["attr"]["prog_name"] for bpf in documents] == ["every_common"]
    assert with_common[0].common_addr


def test_who_called_and_when(every: Run) -> None:
    events = every.trace.events
    for document in events:
        assert document["process"]["name"] == COMM
        assert document["user"] == {
            "id": str(os.getuid()),
            "group": {"id": str(os.getgid())},
            "effective": {"id": str(os.geteuid())},
        }
        assert document["event"]["outcome"] == (
            "failure" if document["bpf"]["retval"] < 0 else "success"
        )
        assert 0 < document["event"]["duration"] < 10**9
    times = [_time(document) for document in events]
    assert times == sorted(times)
    assert 0 < time.time() - times[-1] < 600
    for (before, earlier), later in zip(pairwise(times), events, strict=False):
        assert before + later["event"]["duration"] / 1e9 <= earlier + 1e-6


def _time(document: Document) -> float:
    # Python knows microseconds only.
    seconds, nanoseconds = document["@timestamp"].removesuffix("Z").split(".")
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + int(nanoseconds) / 1e9


# --- Attr in odd places and of odd sizes -------------------------------------------------


class Seen(NamedTuple):
    """What is to be seen of an edge."""

    line: str
    """``ADDR`` stands for its address."""
    notes: tuple[str, ...] = ()


ARRAY = (
    "map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=1, map_flags=0,"
    ' inner_map_fd=0, map_name="edge", map_ifindex=0, btf_fd=0, btf_key_type_id=0,'
    " btf_value_type_id=0, btf_vmlinux_value_type_id=0, map_extra=0, value_type_btf_obj_fd=0,"
    " map_token_fd=0, excl_prog_hash=NULL, excl_prog_hash_size=0"
)
CUT = (
    "map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=1, map_flags=0,"
    ' inner_map_fd=0, map_name="e"...'
)
EFAULT = "-1 EFAULT (Bad address)"
E2BIG = "-1 E2BIG (Argument list too long)"
EDGES: Mapping[str, Seen] = {
    "page_end": Seen(f"{{{ARRAY}}}, 92) = FD"),
    "past_page": Seen(f"ADDR, 92) = {EFAULT}", ("attr_unreadable",)),
    "untouched": Seen(f"{{{ARRAY}}}, 92) = FD", ("attr_read_at_exit",)),
    "null": Seen(f"NULL, 92) = {EFAULT}", ("attr_null",)),
    "wild": Seen(f"ADDR, 92) = {EFAULT}", ("attr_unreadable",)),
    "kernel": Seen(f"ADDR, 92) = {EFAULT}", ("attr_unreadable",)),
    "size_0": Seen("ADDR, 0) = -1 EINVAL (Invalid argument)", ("attr_empty",)),
    "cut_field": Seen(f"{{{CUT}}}, 30) = FD"),
    "size_page": Seen(f"{{{ARRAY}}}, 4096) = FD"),
    "size_page_plus_1": Seen(f"ADDR, 4097) = {E2BIG}", ("attr_oversize",)),
    "size_max": Seen(f"ADDR, 4294967295) = {E2BIG}", ("attr_oversize",)),
    "dirty_tail": Seen(f"{{{ARRAY}, ...}}, 4096) = {E2BIG}"),
    "high_bits": Seen(f"{{{ARRAY}}}, 92) = FD"),
}


class Edges(NamedTuple):
    run: Run
    made: dict[str, MadeCall]
    documents: dict[str, Document]
    lines: dict[str, str]


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Edges:
    directory = tmp_path_factory.mktemp("edges")
    run = _run(directory, "edges", options=("--json",))
    names = list(EDGES)
    lines = run.lines("-a", "0")
    return Edges(
        run,
        dict(zip(names, run.made, strict=True)),
        dict(zip(names, run.trace.events, strict=True)),
        dict(zip(names, lines, strict=True)),
    )


@pytest.mark.parametrize("name", EDGES)
def test_edge(edges: Edges, name: str) -> None:
    made, document, line = edges.made[name], edges.documents[name], edges.lines[name]
    expected = EDGES[name].line.replace("ADDR", hex(made.attr_addr))
    name_of_map = "ed" if name == "cut_field" else "edge"
    line = re.sub(rf'<map:[1-9]\d* array "{name_of_map}">$', "<MAP>", line)
    expected = expected.replace("= FD", f"= {made.retval}<MAP>")
    line = re.sub(r"(= -1 .*\)) /\* .* \*/$", r"\1", line)  # why, see test_why.py
    assert line == f"{COMM}[{made.tgid}] bpf(BPF_MAP_CREATE, {expected}"
    assert document["bpf"].get("notes", []) == [*EDGES[name].notes]
    assert document["bpf"]["attr_address"] == hex(made.attr_addr)
    assert document["bpf"]["size"] == made.size & 0xFFFFFFFF
    assert ("attr" in document["bpf"]) == line.startswith(
        f"{COMM}[{made.tgid}] bpf(BPF_MAP_CREATE, {{"
    )


def test_bytes_behind_the_last_field_are_all_there(edges: Edges) -> None:
    """The whole page, up to the single byte at its end that is not zero."""
    trailing = edges.documents["dirty_tail"]["bpf"]["attr_trailing"]
    data = edges.made["dirty_tail"].entry
    assert bytes.fromhex(trailing["hex"]) == data[trailing["offset"] :]
    assert data.endswith(b"\0\xff")
    shown = edges.run.lines("-v", "-a", "0")[[*EDGES].index("dirty_tail")]
    assert rf'\x00\xff" /* bytes {trailing["offset"]}..4095 */' in shown


# --- A recording is as good as the run ---------------------------------------------------


def test_replay_gives_the_same_documents(every: Run) -> None:
    assert every.replay("--json", "--message") == every.out.read_bytes()


def test_replay_gives_the_same_lines(text: Run) -> None:
    assert text.replay("-ttt", "-T", "-v") == text.out.read_bytes()


def test_a_recording_is_for_its_owner_only(every: Run) -> None:
    """What will be in it one day are keys and values of other people's maps."""
    assert every.recording.stat().st_mode & 0o777 == 0o600


def test_the_message_is_the_line(every: Run) -> None:
    lines = every.lines("-a", "0")
    documents = every.trace.events
    assert [f"{COMM}[{every.made[0].tgid}] {d['message']}" for d in documents] == lines
    alone = [json.loads(line) for line in every.replay("--json").splitlines()]
    assert not any("message" in document for document in alone)


# --- Lines -------------------------------------------------------------------------------

RESULT = r"(?:\d+(?:<(?:map|prog|link|btf):\d+.*>)?|-1 E[A-Z0-9]+ \([^)]+\)(?: /\* .+ \*/)?)"
CALL = rf"bpf\((?:BPF_[A-Z0-9_|]+|0x[0-9a-f]+ /\* BPF_\?\?\? \*/), .*\) += {RESULT}"
WHO = rf"{COMM}\[\d+\] "

LINES: Mapping[str, str] = {
    "": f"{WHO}{CALL}",
    "-t": rf"{WHO}\d\d:\d\d:\d\d {CALL}",
    "-tt": rf"{WHO}\d\d:\d\d:\d\d\.\d{{6}} {CALL}",
    "-t -t": rf"{WHO}\d\d:\d\d:\d\d\.\d{{6}} {CALL}",
    "-ttt": rf"{WHO}\d{{10}}\.\d{{6}} {CALL}",
    "-tttt": rf"{WHO}\d{{10}}\.\d{{6}} {CALL}",
    "-r": rf"{WHO} {{5}}0\.\d{{6}} {CALL}",
    "-t -r": rf"{WHO}\d\d:\d\d:\d\d \(\+ {{5}}0\.\d{{6}}\) {CALL}",
    "-T": rf"{WHO}{CALL} <0\.\d{{6}}>",
    "-X raw": rf"{WHO}bpf\((?:0|0x[0-9a-f]+), .*\) += {RESULT}",
    "-X verbose": rf"{WHO}bpf\((?:0|0x[0-9a-f]+) /\* BPF_[A-Z_?|]+ \*/, .* += .+",
    "--color always": rf"\x1b\[2m{WHO}\x1b\[0mbpf\(\x1b\[36m.+\x1b\[0m, .*"
    rf" +(?:\x1b\[31m= -1 .+\x1b\[0m|= {RESULT})",
}


@pytest.mark.parametrize("options", LINES)
def test_every_line_is_of_this_form(text: Run, options: str) -> None:
    lines = text.lines(*options.split())
    assert len(lines) == len(text.made)
    for line in lines:
        assert re.fullmatch(LINES[options], line), line


def test_the_result_stands_in_its_column(text: Run) -> None:
    lines = text.lines("-a", "72")
    columns = {line.rindex(" = ") + 1 for line in lines if len(line.split(" = ")[0].rstrip()) < 72}
    assert columns == {72}


def test_the_process_is_named_only_if_there_may_be_several(text: Run) -> None:
    pid = str(text.made[0].tgid)
    lines = text.lines("-p", pid)
    assert len(lines) == len(text.made)
    assert all(line.startswith("bpf(") for line in lines)
    assert all(line.startswith(f"{COMM}[{pid}] ") for line in text.lines("-p", f"{pid},1"))
    assert text.replay("-p", "1") == b""


def test_times_are_those_of_the_documents(text: Run) -> None:
    events = Trace.of(text.replay("--json")).events
    begun = [_time(document) for document in events]

    seconds = [int(begin) for begin in begun]
    fractions = [document["@timestamp"][20:26] for document in events]

    epoch = [line.split()[1] for line in text.lines("-ttt")]
    assert epoch == [f"{s}.{f}" for s, f in zip(seconds, fractions, strict=True)]
    clock = [line.split()[1] for line in text.lines("-tt")]
    local = [time.strftime("%H:%M:%S", time.localtime(second)) for second in seconds]
    assert clock == [f"{s}.{f}" for s, f in zip(local, fractions, strict=True)]
    since = [float(line.split()[1]) for line in text.lines("-r")]
    assert since == pytest.approx(
        [0.0, *(later - earlier for earlier, later in pairwise(begun))], abs=2e-6
    )
    spent = ["<" + line.rsplit("<", 1)[1] for line in text.lines("-T")]
    durations = [document["event"]["duration"] // 1000 for document in events]
    assert spent == [f"<0.{duration:06}>" for duration in durations]


# --- The table ---------------------------------------------------------------------------


def test_a_summary_counts_what_the_documents_show(every: Run) -> None:
    """-c: a row a command with its calls and errors, and their sum."""
    events = every.trace.events
    table = every.replay("-c").decode()
    rows = {line.split()[-1]: line.split()[3:-1] for line in table.splitlines()[2:]}
    for name in {document["bpf"]["cmd"] for document in events}:
        results = [d["bpf"]["retval"] for d in events if d["bpf"]["cmd"] == name]
        failed = sum(result < 0 for result in results)
        assert rows[name] == [str(len(results)), *[str(failed)] * bool(failed)]
    failed = sum(document["bpf"]["retval"] < 0 for document in events)
    assert rows["total"] == [str(len(events)), str(failed)]


def test_a_summary_also_follows_the_lines(every: Run) -> None:
    """-C: lines first, then the same table."""
    both = every.replay("-C").decode()
    assert both == every.replay().decode() + every.replay("-c").decode()


def test_the_summary_of_a_live_run_is_one_table() -> None:
    finished = bpfsnoop_run("-c", "--", "sh", "-c", '"$0" "$@" >/dev/null', *STIMULUS, "count", "5")
    assert (finished.status, finished.err) == (0, "")
    assert [line.split()[3:] for line in finished.lines if "BPF" in line or "total" in line] == [
        ["5", "BPF_MAP_CREATE"], ["5", "total"],
    ]  # fmt: skip
