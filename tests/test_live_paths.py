# SPDX-License-Identifier: Apache-2.0
"""Every way into bpf(2), and those who would rather that nobody looked."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from bpfsnoop.tracer.functions import sees_inside
from hostile import Attack, Told, hostile
from running import Document, Running, Trace, Tracer, bpfsnoop_run
from service import Daemon, directory, until

pytestmark = pytest.mark.live


def attacked(directory: Path, *attack: str) -> tuple[list[Told], Trace]:
    """What it did, and what was seen of its process alone."""
    out = directory / "out"
    finished = bpfsnoop_run("--json", "-o", out, "--", hostile(directory), *attack)
    if finished.status == 77:
        pytest.skip(finished.err.strip())
    assert (finished.status, finished.err) == (0, "")
    return [json.loads(line) for line in finished.lines], Trace.of(out.read_bytes())


def probe_of(trace: Trace) -> str:
    probe: str = trace.loss["bpf"]["probe"]
    return probe


def seen_as(trace: Trace, via: str) -> list[tuple[str, int]]:
    return [(event["event"]["action"], event["bpf"]["retval"])
            for event in trace.events if event["bpf"]["via"] == via]  # fmt: skip


ACTIONS = {0: "map_create", 5: "prog_load"}


@pytest.mark.parametrize("door", ["int80", "x32"])
def test_calls_of_the_other_abis(tmp_path: Path, door: str) -> None:
    told, trace = attacked(tmp_path, door)
    made = [line for line in told if line.get("via") == door]
    assert len(made) == 3
    expected = [(ACTIONS[line["cmd"]], line["retval"]) for line in made]
    if probe_of(trace) == "tracepoint":
        assert seen_as(trace, "compat") == []
        return
    assert seen_as(trace, "compat") == expected
    created, loaded, _ = (event for event in trace.events if event["bpf"]["via"] == "compat")
    assert created["bpf"]["attr"]["map_name"] == created["bpf"]["map"]["name"] == "other_door"
    assert loaded["bpf"]["prog"]["tag"] == made[1]["tag"]
    assert loaded["bpf"]["memory"]["license"]["text"] == "GPL"
    assert "differs" not in loaded["bpf"]


def test_calls_that_the_kernel_makes_for_a_loader_program(tmp_path: Path) -> None:
    told, trace = attacked(tmp_path, "loader")
    inner = [line for line in told if line.get("via") == "kernel"]
    (run,) = (event for event in trace.events if event["event"]["action"] == "prog_test_run")
    if not sees_inside(probe_of(trace)):
        assert run["bpf"]["notes"] == ["inner_calls_unseen"]
        assert seen_as(trace, "kernel") == []
        return
    assert "notes" not in run["bpf"]
    assert seen_as(trace, "kernel") == [(ACTIONS[line["cmd"]], line["retval"]) for line in inner]
    created, loaded = (event for event in trace.events if event["bpf"]["via"] == "kernel")
    assert created["bpf"]["attr"]["map_name"] == created["bpf"]["map"]["name"] == "inner_map"
    assert loaded["bpf"]["attr"]["prog_name"] == loaded["bpf"]["prog"]["name"] == "inner_prog"
    assert loaded["bpf"]["prog"]["tag"] == inner[1]["tag"]
    insns = loaded["bpf"]["memory"]["insns"]
    assert len(insns["hex"]) // 16 == loaded["bpf"]["attr"]["insn_cnt"]
    order = [event["event"]["action"] for event in trace.events if event["bpf"]["via"] == "kernel"]
    assert order == ["map_create", "prog_load"]
    assert trace.events.index(loaded) < trace.events.index(run)


def test_calls_with_common_attributes(tmp_path: Path) -> None:
    told, trace = attacked(tmp_path, "common")
    made = [line for line in told if "common_addr" in line]
    shown = [event["bpf"] for event in trace.events if "common_attrs" in event["bpf"]]
    assert [(bpf["common_attrs"], bpf["retval"]) for bpf in shown] == [
        ({"address": hex(line["common_addr"]), "size": line["common_size"]}, line["retval"])
        for line in made
    ]


# --- The kernel's own word ---------------------------------------------------------------


def traced(directory: Path, program: Path, *attack: str) -> tuple[list[Told], Trace]:
    """The same by a tracer of the whole host."""
    out = directory / "out"
    with Tracer("--json", "-o", out) as tracer:
        tracer.ready()
        with Attack(program, *attack) as running:
            told = running.end()
        finished = tracer.stop()
    assert finished.status == 0
    return told, Trace.of(out.read_bytes())


def notices(trace: Trace, reason: str) -> list[Document]:
    return [
        notice
        for notice in trace.notices
        if notice["bpf"].get("integrity", {}).get("reason") == reason
    ]


def test_every_load_has_its_call_and_every_program_its_end(tmp_path: Path) -> None:
    told, trace = traced(tmp_path, hostile(tmp_path), "loads", "50")
    loads = [line for line in told if line["what"] == "load"]
    assert notices(trace, "load_unseen") == []
    gone = {
        notice["bpf"]["prog"]["id"]: notice["bpf"]["prog"]
        for notice in trace.notices
        if notice["event"]["action"] == "prog_unload"
    }
    assert {load["id"] for load in loads} <= gone.keys()
    for load in loads:
        made = {key: load[key] for key in ("id", "name", "tag")}
        assert gone[load["id"]] == made


def test_a_load_that_no_probe_sees_is_told_all_the_same(tmp_path: Path) -> None:
    told, trace = traced(tmp_path, hostile(tmp_path), "loader")
    (inner,) = (line for line in told if line["what"] == "inner_prog")
    found = notices(trace, "load_unseen")
    if sees_inside(probe_of(trace)):
        assert found == []
        return
    (notice,) = found
    assert notice["bpf"]["integrity"]["during"] == "BPF_PROG_TEST_RUN"
    assert notice["bpf"]["prog"] == {"id": inner["id"], "tag": inner["tag"]}
    assert notice["process"] == {"pid": inner["pid"], "thread": {"id": inner["tid"]}}


def test_without_the_witness_nothing_of_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Tracer("--json", "--no-witness", "-o", out) as tracer:
        tracer.ready()
        with Attack(hostile(tmp_path), "loader") as running:
            running.end()
        tracer.stop()
    trace = Trace.of(out.read_bytes())
    assert not [n for n in trace.notices if n["event"]["action"] == "prog_unload"]
    assert notices(trace, "load_unseen") == []


# --- Ourselves ---------------------------------------------------------------------------


def bpftool(*arguments: str) -> str:
    done = subprocess.run(["bpftool", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def map_of(tracer: Running, name: str) -> str:
    """The id of a map of the tracer's, by its name."""
    shown = json.loads(bpftool("-j", "map", "show"))
    (number,) = (
        (
            each["id"]
            for each in shown
            if each.get("name") == name
            and any(p["pid"] == tracer.pid for p in each.get("pids", []))
        )
        if any("pids" in each for each in shown)
        else (max(each["id"] for each in shown if each.get("name") == name),)
    )
    return str(number)


def test_who_touches_what_is_the_tracers_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Tracer("--json", "-o", out) as tracer:
        tracer.ready()
        number = map_of(tracer, "announced")
        zero = "key", *["0"] * 4, "value", *["0"] * 8
        bpftool("map", "update", "id", number, *zero)
        bpftool("map", "update", "id", number, *zero)
        tracer.stop()
    trace = Trace.of(out.read_bytes())
    changed = notices(trace, "own_object_changed")
    assert [notice["bpf"]["integrity"]["object"]["id"] for notice in changed] == [int(number)] * 2
    for notice in changed:
        assert notice["bpf"]["integrity"]["cmd"] == "BPF_MAP_UPDATE_ELEM"
        assert notice["process"]["name"] == "bpftool"
        cause = notice["bpf"]["integrity"]["sequence"]
        (call,) = (event for event in trace.events if event["event"]["sequence"] == cause)
        assert call["process"] == notice["process"]
    pids = {notice["process"]["pid"] for notice in trace.notices if "process" in notice}
    assert tracer.pid not in pids
    for reason in ("own_object_opened", "own_object_read"):
        who = [notice["process"]["pid"] for notice in notices(trace, reason)]
        assert len(who) == len(set(who)) > 0


def switch_off(tracer: Running) -> None:
    """As whoever may write to its maps can."""
    number = map_of(tracer, "config")
    (entry,) = json.loads(bpftool("-j", "map", "dump", "id", number))
    running = slice(8, 12)  # of struct tracer_config
    value = entry["value"]
    value[running] = ["0x00"] * 4
    bpftool("map", "update", "id", number, "key", *["0"] * 4, "value", *value)


def test_a_tracer_that_is_switched_off_notices() -> None:
    """Not in silence."""
    with Tracer("--json") as tracer:
        tracer.ready()
        switch_off(tracer)
        said = tracer.read_until(tracer.process.stdout, "probe_silent", times=2)
        finished = tracer.stop()
    trace = Trace.of(said.encode() + finished.out)
    programs = {notice["bpf"]["integrity"]["program"] for notice in notices(trace, "probe_silent")}
    assert programs == {"enter_bpf", "exit_bpf"}
    assert notices(trace, "own_object_changed")


def test_a_daemon_that_is_switched_off_is_not_ready() -> None:
    """It says so to who watches it, not in its stream alone."""
    home = directory()
    metrics = str(home / "metrics")
    with Daemon(home, metrics=f"unix://{metrics}") as daemon:
        daemon.ready()
        until(lambda: answer(metrics, "/ready").startswith(b"HTTP/1.1 200 "), "its readiness")
        switch_off(daemon)
        until(lambda: answer(metrics, "/ready").startswith(b"HTTP/1.1 503 "), "its blindness")
        assert answer(metrics, "/health").startswith(b"HTTP/1.1 200 ")
        assert b"\nbpfsnoop_ready 0.0\n" in answer(metrics, "/metrics")
        daemon.stop()


def answer(path: str, page: str) -> bytes:
    """What is served at a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(1 << 16), b""))
