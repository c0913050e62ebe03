# SPDX-License-Identifier: Apache-2.0
"""Programs that try to hide from the tracer, or to drown it (tests/hostile.c)."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from bpfsnoop.tracer.functions import sees_inside
from hostile import Attack, Told, hostile
from running import PREEMPTIBLE, Document, Trace, Tracer, bpfsnoop_run

pytestmark = pytest.mark.live

SUSPECT = "toctou_suspect"


def attacked(directory: Path, *attack: str) -> tuple[list[Told], list[Document]]:
    """What an attack did, and what was seen of it: each of its calls, once."""
    out = directory / "out"
    program = hostile(directory)
    finished = bpfsnoop_run("--json", "--ring-size", "16M", "-o", out, "--", program, *attack)
    assert (finished.status, finished.err) == (0, "")
    told = [json.loads(line) for line in finished.lines]
    trace = Trace.of(out.read_bytes())
    _is_complete(trace)
    return told, trace.events


def _is_complete(trace: Trace) -> None:
    loss = trace.loss["bpf"]["loss"]
    assert loss["complete"] or (PREEMPTIBLE and loss["missed_runs"])
    assert not any(loss[kind] for kind in ("lost", "incomplete", "unfinished", "unfollowed"))


def seen_of(told: Told, events: Iterable[Document]) -> Document:
    (document,) = [
        event
        for event in events
        if (event["bpf"]["attr_address"], event["bpf"]["retval"], event["bpf"]["size"])
        == (hex(told["attr_addr"]), told["retval"], told["size"])
        and event["event"]["action"] in ("map_create", "prog_load")
    ]
    return document


def of_kind(told: list[Told], what: str) -> Told:
    (found,) = [line for line in told if line["what"] == what]
    return found


# --- Memory that changes under the kernel ------------------------------------------------


@pytest.mark.parametrize("attack", ["stall", "stall-tail"])
def test_a_program_other_than_the_one_that_was_shown(tmp_path: Path, attack: str) -> None:
    """Whoever reads memory of the caller reads the other one, before and after."""
    told, events = attacked(tmp_path, attack)
    truth = of_kind(told, attack)
    assert (truth["name"], truth["shown_name"]) == ("evil", "benign")
    bpf = seen_of(truth, events)["bpf"]
    made = {key: bpf["prog"][key] for key in ("id", "name", "tag")}
    assert made == {key: truth[key] for key in made}
    assert SUSPECT in bpf["notes"]
    assert "prog_name" in bpf["differs"]
    if sees_inside(bpf["probe"]):
        assert bpf["attr"]["prog_name"] == "evil"
        assert bpf["attr"]["insn_cnt"] == truth["insn_cnt"]
        assert bpf["memory"]["insns"]["hex"] == truth["insns"]
    elif attack == "stall":
        assert "insns" in bpf["differs"]


def test_a_map_other_than_the_one_that_was_shown(tmp_path: Path) -> None:
    told, events = attacked(tmp_path, "stall-map")
    truth = of_kind(told, "stall-map")
    bpf = seen_of(truth, events)["bpf"]
    assert bpf["map"]["name"] == truth["name"] == "evil"
    assert bpf["map"]["max_entries"] == truth["max_entries"]
    assert set(bpf["differs"]) == {"map_name", "max_entries"}


def test_an_honest_call_is_not_suspected(tmp_path: Path) -> None:
    told, events = attacked(tmp_path, "loads", "20")
    loads = [line for line in told if line["what"] == "load"]
    shown = [event["bpf"] for event in events if event["event"]["action"] == "prog_load"]
    assert [bpf["prog"]["tag"] for bpf in shown] == [load["tag"] for load in loads]
    assert [bpf["attr"]["prog_name"] for bpf in shown] == [load["name"] for load in loads]
    assert not any("notes" in bpf for bpf in shown)


def test_a_name_that_another_thread_writes_all_the_time(tmp_path: Path) -> None:
    """Right, or suspected; and what the kernel has is there in any case."""
    told, events = attacked(tmp_path, "swap", "3000")
    made = [line for line in told if line["what"] == "swap"]
    shown = [event["bpf"] for event in events if event["event"]["action"] == "map_create"]
    assert [bpf["map"]["name"] for bpf in shown] == [line["name"] for line in made]
    assert not [
        bpf
        for bpf in shown
        if bpf["attr"]["map_name"] != bpf["map"]["name"] and SUSPECT not in bpf.get("notes", ())
    ]


def test_a_descriptor_that_led_elsewhere_when_the_kernel_looked(tmp_path: Path) -> None:
    told, events = attacked(tmp_path, "fdswap")
    shown = {event["event"]["action"]: event["bpf"] for event in events}
    for action in ("prog_bind_map", "raw_tracepoint_open"):
        assert SUSPECT in shown[action]["notes"]
        assert shown[action]["differs"] == ["prog_fd"]
    assert shown["raw_tracepoint_open"]["link"]["prog_id"] == of_kind(told, "open")["prog_id"]


# --- Too much ----------------------------------------------------------------------------


class Flooded(NamedTuple):
    """Loads that went well while others made calls at full speed."""

    loads: list[Told]
    made: list[Told]
    """What the others did."""
    trace: Trace


def _flooded(directory: Path, flood: str, count: int) -> Flooded:
    out = directory / "out"
    program = hostile(directory)
    with Tracer("--json", "-o", out) as tracer:
        tracer.ready()
        with Attack(program, flood, "60") as others:
            others.wait_for("ready")
            with Attack(program, "loads", str(count)) as attack:
                loads = [line for line in attack.end() if line["what"] == "load"]
            made = others.end()
        assert tracer.stop().status == 0
    assert len(loads) == count
    return Flooded(loads, made, _trace_with_losses(out))


def _all_loads_are_told(flooded: Flooded) -> None:
    """In full; or where the kernel left out probes, with what it had to say."""
    pid = flooded.loads[0]["pid"]
    shown = {
        event["bpf"]["attr"]["prog_name"]: event["bpf"]
        for event in flooded.trace.of_processes({pid})
        if event["event"]["action"] == "prog_load"
    }
    unseen = {notice["bpf"]["prog"]["tag"] for notice in flooded.trace.notices
              if notice["bpf"].get("integrity", {}).get("reason") == "load_unseen"}  # fmt: skip
    # Of two calls with the same arguments the one may be begun with and the other ended: then
    # the object is the other one's, and the note says that something is wrong.
    unseen |= {bpf["prog"]["tag"] for bpf in shown.values() if "tag" in bpf.get("prog", {})}
    for load in flooded.loads:
        bpf = shown.get(load["name"])
        if bpf is None and PREEMPTIBLE:
            assert load["tag"] in unseen
            continue
        assert bpf, load
        assert "missing" not in bpf["memory"]["insns"]
        notes = set(bpf.get("notes", ()))
        if not notes & {"exit_unseen", SUSPECT}:
            assert bpf["prog"]["tag"] == load["tag"]
        assert not notes or PREEMPTIBLE, bpf


def test_floods_do_not_crowd_out_what_matters(tmp_path: Path) -> None:
    """Lookups and loads that fail, at full speed; of those that succeed none is lost."""
    flooded = _flooded(tmp_path, "flood", 400)
    _all_loads_are_told(flooded)
    _adds_up(flooded.trace, flooded.made)


def test_calls_that_never_get_into_the_kernel_do_not_crowd_out_either(tmp_path: Path) -> None:
    """What seccomp(2) answers costs nothing and looks like a load that succeeded."""
    flooded = _flooded(tmp_path, "denied", 100)
    _all_loads_are_told(flooded)
    pid = flooded.loads[0]["pid"]
    denied = [event["bpf"] for event in flooded.trace.events
              if (event["event"]["action"], event["process"]["name"]) == ("prog_load", "hostile")
              and event["process"]["pid"] != pid]  # fmt: skip
    assert denied
    assert all("entry_unseen" in bpf["notes"] for bpf in denied)


def _trace_with_losses(out: Path) -> Trace:
    """Not each of many thousands is held against the schema."""
    return Trace.of(out.read_bytes(), validate_each=97)


def _adds_up(trace: Trace, made: list[Told]) -> None:
    loss = trace.loss["bpf"]["loss"]
    arrived = Counter(event["bpf"]["cmd"] for event in trace.events)
    counts = {row["cmd"]: row for row in loss["commands"]}
    for cmd, row in counts.items():
        assert row["seen"] == arrived[cmd] + row["lost"] or loss["unfinished"], cmd
    assert sum(row["seen"] for row in counts.values()) == loss["seen"]
    assert loss["seen"] == len(trace.events) + loss["lost"] + loss["unfinished"]
    left_out = loss["missed_runs"]
    assert PREEMPTIBLE or not left_out
    lookups = sum(line["calls"] for line in made if line["what"] == "lookup")
    assert counts["BPF_MAP_LOOKUP_ELEM"]["seen"] >= lookups - left_out
    failed = sum(line["calls"] for line in made if line["what"] == "load" and "calls" in line)
    assert counts["BPF_PROG_LOAD"]["seen"] >= failed + 400 - left_out


def test_threads_that_never_return_do_not_take_all_the_room(tmp_path: Path) -> None:
    """Five thousand of them are in the middle of a call; the next ones are seen all the same."""
    out = tmp_path / "out"
    program = hostile(tmp_path)
    with Tracer("--json", "-o", out) as tracer:
        tracer.ready()
        with Attack(program, "park", "5000") as parked:
            parked.wait_for("parked 5000")
            with Attack(program, "loads", "10") as attack:
                loads = [line for line in attack.end() if line["what"] == "load"]
            threads = [line for line in parked.end() if line["what"] == "park"]
        finished = tracer.stop()
    assert finished.status == 0
    trace = _trace_with_losses(out)
    shown = trace.of_processes({loads[0]["pid"]})
    tags = [
        event["bpf"]["prog"]["tag"] for event in shown if event["event"]["action"] == "prog_load"
    ]
    assert tags == [load["tag"] for load in loads]
    assert all(
        {"attr_read_at_exit", "entry_unseen"} <= set(event["bpf"]["notes"]) for event in shown
    )
    assert all("duration" not in event["event"] for event in shown)
    seen = Counter(map(_key, trace.of_processes({threads[0]["pid"]})))
    parked_calls = Counter(
        (line["pid"], line["tid"], hex(line["attr_addr"]), line["size"]) for line in threads
    )
    if PREEMPTIBLE:  # of those without room, the return may be left out when all end at once
        loss = trace.loss["bpf"]["loss"]
        assert (parked_calls - seen).total() <= loss["unfinished"] + loss["missed_runs"]
        return
    assert finished.complaint.count("tracing") == 1
    _is_complete(trace)
    assert not parked_calls - seen


def _key(event: Document) -> tuple[int, int, str, int]:
    process, bpf = event["process"], event["bpf"]
    return process["pid"], process["thread"]["id"], bpf["attr_address"], bpf["size"]
