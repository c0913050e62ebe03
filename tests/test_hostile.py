# SPDX-License-Identifier: Apache-2.0
"""The attackers do what they say.

Without any tracer: that their lines hold, and that the kernel took what it was to take.
"""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

import stimulus
from hostile import Attack, Told, hostile

pytestmark = pytest.mark.live

EINVAL, EACCES = 22, 13


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile(tmp_path_factory.mktemp("hostile"))


def attack(program: Path, *args: str) -> list[Told]:
    """What it did, from start to end."""
    with Attack(program, *args) as running:
        calls = running.end()
        assert {call["pid"] for call in calls} == {running.pid}
    return calls


def by_what(calls: list[Told]) -> dict[str, Told]:
    """The calls that are named; the questions asked in between are not."""
    return {call["what"]: call for call in calls if call["what"] != "info"}


def tags(insns: str) -> set[str]:
    """Of these instructions: kernels before 6.18 take SHA-1."""
    data = bytes.fromhex(insns)
    return {digest(data).hexdigest()[:16] for digest in (hashlib.sha1, hashlib.sha256)}


def test_swap(program: Path) -> None:
    calls = attack(program, "swap", "2000")
    names = Counter(call["name"] for call in calls if call["what"] == "swap")
    assert names.total() == 2000
    assert names["benign"]
    assert names["evil"]


@pytest.mark.parametrize("name", ["stall", "stall-tail"])
def test_stall(program: Path, name: str) -> None:
    calls = by_what(attack(program, name))
    benign, stalled = calls["benign"], calls[name]
    assert (benign["name"], benign["insn_cnt"]) == ("benign", 2)
    assert benign["tag"] in tags(stalled["shown_insns"])
    assert (stalled["shown_name"], stalled["name"], stalled["insn_cnt"]) == ("benign", "evil", 3)
    assert stalled["tag"] in tags(stalled["insns"])
    assert stalled["id"] != benign["id"]


def test_stall_map(program: Path) -> None:
    stalled = by_what(attack(program, "stall-map"))["stall-map"]
    assert (stalled["shown_name"], stalled["shown_max_entries"]) == ("benign", 1)
    assert (stalled["name"], stalled["max_entries"]) == ("evil", 23)


def test_fdswap(program: Path) -> None:
    calls = by_what(attack(program, "fdswap"))
    benign, evil = calls["benign"]["id"], calls["evil"]["id"]
    opened, bound = calls["open"], calls["bind"]
    assert [bound[when] for when in ("before", "during", "after")] == [benign, evil, evil]
    assert [opened[when] for when in ("before", "during", "after")] == [benign, evil, benign]
    assert opened["prog_id"] == evil


@pytest.mark.parametrize("door", ["int80", "x32"])
def test_other_doors(program: Path, door: str) -> None:
    calls = by_what(attack(program, door))
    assert {what: call["cmd"] for what, call in calls.items()} == {
        "map": stimulus.BPF_MAP_CREATE,
        "prog": stimulus.BPF_PROG_LOAD,
        "refused": stimulus.BPF_MAP_CREATE,
    }
    assert {call["via"] for call in calls.values()} == {door}
    assert calls["map"]["name"] == calls["prog"]["name"] == "other_door"
    assert calls["refused"]["retval"] == -EINVAL
    assert all(call["attr_addr"] < 1 << 32 for call in calls.values())


def test_loader(program: Path) -> None:
    calls = by_what(attack(program, "loader"))
    inner_map, inner_prog = calls["inner_map"], calls["inner_prog"]
    assert (inner_map["name"], inner_map["max_entries"]) == ("inner_map", 5)
    assert (inner_prog["name"], inner_prog["insn_cnt"]) == ("inner_prog", 3)
    assert {what for what, call in calls.items() if call.get("via") == "kernel"} == {
        "inner_map",
        "inner_prog",
    }
    assert calls["run"]["cmd"] == stimulus.BPF_PROG_TEST_RUN


def test_common(program: Path) -> None:
    calls = by_what(attack(program, "common"))
    assert {what: call["cmd"] for what, call in calls.items()} == {
        "map": stimulus.BPF_MAP_CREATE | stimulus.BPF_COMMON_ATTRS,
        "bad_map": stimulus.BPF_MAP_CREATE | stimulus.BPF_COMMON_ATTRS,
        "refused": stimulus.BPF_PROG_LOAD | stimulus.BPF_COMMON_ATTRS,
    }
    assert calls["bad_map"]["retval"] == -EINVAL
    if calls["map"]["retval"] < 0:  # before 7.0: it does not know such commands
        assert calls["map"]["retval"] == calls["refused"]["retval"] == -EINVAL
    else:
        assert calls["refused"]["retval"] == -EACCES
        assert "R0 !read_ok" in calls["refused"]["log"]


def test_flood(program: Path) -> None:
    with Attack(program, "flood", "30") as running:
        running.wait_for("ready")
        flooders = [call for call in running.end() if "calls" in call]
    assert [(call["cmd"], call["retval"], call["others"]) for call in flooders] == [
        (stimulus.BPF_MAP_LOOKUP_ELEM, 0, 0),
        (stimulus.BPF_MAP_LOOKUP_ELEM, 0, 0),
        (stimulus.BPF_PROG_LOAD, -EACCES, 0),
    ]
    assert len({call["pid"] for call in flooders}) == 3
    assert all(call["calls"] for call in flooders)


def test_denied(program: Path) -> None:
    """Loads that seccomp(2) answers: all of them seem to succeed."""
    with Attack(program, "denied", "30") as running:
        running.wait_for("ready")
        flooders = [call for call in running.end() if "calls" in call]
    assert [(call["cmd"], call["retval"], call["others"]) for call in flooders] == [
        (stimulus.BPF_PROG_LOAD, 0, 0)
    ] * 3


def test_flood_ends_by_itself(program: Path) -> None:
    with Attack(program, "flood", "1") as running:
        assert running.process.wait(timeout=30) == 0


@pytest.mark.parametrize("insn_cnt", [3, 4000])
def test_loads(program: Path, insn_cnt: int) -> None:
    calls = attack(program, "loads", "20", str(insn_cnt))
    loads = [call for call in calls if call["what"] == "load"]
    assert [call["name"] for call in loads] == [f"load{number}" for number in range(20)]
    assert {call["insn_cnt"] for call in loads} == {insn_cnt}
    assert len({call["tag"] for call in loads}) == len({call["id"] for call in loads}) == 20


@pytest.mark.parametrize("threads", [1, 5000])
def test_park(program: Path, threads: int) -> None:
    with Attack(program, "park", str(threads)) as running:
        running.wait_for(f"parked {threads}")
        tasks = [
            task
            for task in Path(f"/proc/{running.pid}/task").iterdir()
            if task.name != str(running.pid)
        ]
        assert len(tasks) == threads
        calls = {(task / "syscall").read_text().split()[0] for task in tasks}
        assert calls == {str(stimulus.SYS_BPF)}
        *parked, returned = running.end()
    assert {call["tid"] for call in parked} == {int(task.name) for task in tasks}
    assert (returned["succeeded"], returned["failed"]) == (threads, 0)
