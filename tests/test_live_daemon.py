# SPDX-License-Identifier: Apache-2.0
"""The daemon: what it gives up, what it survives, what it tells of itself."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from running import NOBODY, Document, Stimulus, bpfsnoop_run, identity, stimulate
from service import Daemon, alerting_rules, directory, documents_in, once, until, user

pytestmark = pytest.mark.live

PTRACE, SEARCH, ADMIN = 1 << 19, 1 << 2, 1 << 21
BPF = 1 << 39


@pytest.fixture
def home() -> Path:
    return directory()


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    with Daemon(home) as running:
        yield running.ready()


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)[key].strip()


def _numbers(daemon: Daemon) -> list[int]:
    return [document["event"]["sequence"] for document in daemon.documents()]


def test_each_call_becomes_a_document_between_a_start_and_a_closing_record(daemon: Daemon) -> None:
    made = stimulate("every")
    finished = daemon.stop()
    assert (finished.status, finished.err) == (0, "")
    documents = daemon.documents()
    calls = [one for one in documents if one["event"]["dataset"] == "bpfsnoop.call"]
    pids = {call.tgid for call in made}
    assert [identity(one) for one in calls if one["process"]["pid"] in pids] == [
        *map(identity, made)
    ]
    actions = [document["event"]["action"] for document in documents]
    assert actions[0] == "daemon_start"
    assert actions[-2:] == ["daemon_stop", "loss"]
    loss = documents[-1]["bpf"]["loss"]
    assert (loss["final"], loss["lost"], loss.get("undelivered")) == (True, 0, None)
    assert all(after == before + 1 for before, after in pairwise(_numbers(daemon)))
    assert daemon.file.stat().st_mode & 0o777 == 0o640


def test_it_gives_up_what_it_does_not_need(daemon: Daemon) -> None:
    wanted = PTRACE | SEARCH | ADMIN
    tracing, delivering = daemon.pid, daemon.delivery_pid()
    for name in ("CapEff", "CapPrm", "CapBnd"):
        left = int(_status(tracing, name), 16)
        assert left & ~BPF == wanted, name  # BPF before Linux 5.19
    for name in ("CapInh", "CapAmb"):
        assert int(_status(tracing, name), 16) == 0
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(_status(delivering, name), 16) == 0, name
    for pid in (tracing, delivering):
        assert _status(pid, "NoNewPrivs") == "1"
        if user():
            assert _status(pid, "Uid").split() == [str(NOBODY)] * 4
            assert _status(pid, "Gid").split() == [str(NOBODY)] * 4


def test_without_types_of_maps_it_has_no_leave_to_administer(home: Path) -> None:
    with Daemon(home, map_types=False) as daemon:
        daemon.ready()
        assert int(_status(daemon.pid, "CapEff"), 16) & ~BPF == PTRACE | SEARCH
        stimulate("count", "3")
        daemon.stop()
    assert daemon.documents("map_create")


def test_what_proc_and_cgroups_say_of_others_is_known_all_the_same(daemon: Daemon) -> None:
    """Of a process of root's, while the daemon is nobody."""
    with Stimulus("sleepy", under=("env", "-C", "/proc")) as sleepy:
        (made,) = sleepy.poke(1)
        (document,) = until(
            lambda: [one for one in daemon.documents() if "process" in one
                     and one["process"]["pid"] == made.tgid], "its call",
        )  # fmt: skip
    process = document["process"]
    assert process["working_directory"] == "/proc"
    assert process["ancestors"]
    assert document["bpf"]["process"]["cgroup"].startswith("/")
    assert document["bpf"]["process"]["exe_authentic"] in (True, False)


def test_a_second_one_on_the_same_state_is_refused(daemon: Daemon) -> None:
    finished = bpfsnoop_run("daemon", "-c", daemon.config)
    assert finished.status == 1
    assert finished.complaint == (
        f"bpfsnoop: another bpfsnoop daemon (process {daemon.pid}) has the state directory"
        f" {daemon.home}/state: stop it, or give this one another 'state'"
    )


@pytest.mark.parametrize(
    ("number", "previous"), [(signal.SIGTERM, "stopped"), (signal.SIGKILL, "killed")]
)
def test_the_next_one_knows_how_it_ended_and_goes_on_counting(
    home: Path, number: int, previous: str
) -> None:
    with Daemon(home) as first:
        first.ready().stop(number)  # its delivery process may have some seconds left
    before = _numbers(first)
    with Daemon(home) as second:
        second.ready().stop()
    starts = second.documents("daemon_start")
    assert "previous" not in starts[0]["bpf"]["daemon"]
    assert starts[1]["bpf"]["daemon"]["previous"] == previous
    after = [number for number in _numbers(second) if number not in before]
    assert min(after) > max(before)


# --- What it tells systemd -----------------------------------------------------------------


def test_systemd_hears_when_it_traces_lives_reloads_and_stops(daemon: Daemon) -> None:
    assert daemon.told[-1]["STATUS"].endswith(" rules")
    daemon.until_told("WATCHDOG", "1")
    daemon.until_told("WATCHDOG", "1")
    daemon.process.send_signal(signal.SIGHUP)
    assert int(daemon.until_told("RELOADING")["MONOTONIC_USEC"]) > 0
    daemon.until_told("READY", "1")
    daemon.stop()
    daemon.until_told("STOPPING", "1")


def test_it_is_not_ready_before_it_traces(home: Path) -> None:
    """What is called once it is ready is seen."""
    with Daemon(home) as daemon:
        daemon.ready()
        made = stimulate("count", "3")
        daemon.stop()
    pids = {call.tgid for call in made}
    seen = [one for one in daemon.documents() if one.get("process", {}).get("pid") in pids]
    assert len(seen) == len(made)


def test_a_heartbeat_says_how_it_is(home: Path) -> None:
    with Daemon(home, heartbeat="100ms") as daemon:
        daemon.ready()
        beats = until(lambda: daemon.documents("heartbeat")[1:3], "heartbeats")
    about = beats[0]["bpf"]["daemon"]
    assert about["interval"] == 0.1
    assert about["rules"] == alerting_rules()
    assert about["memory"] > 1 << 20
    assert [sink["name"] for sink in about["sinks"]] in ([], ["file"])  # known within a second


# --- SIGHUP --------------------------------------------------------------------------------


def test_a_reload_takes_rules_and_sinks(daemon: Daemon) -> None:
    other = daemon.home / "other.json"
    rule = daemon.home / "mine.yml"
    rule.write_text(
        "title: A map\nname: a_map\nstatus: test\nlevel: high\n"
        "logsource: {product: linux, service: bpfsnoop}\n"
        "detection: {made: {event.action: map_create}, condition: made}\n"
    )
    daemon.configure(rules=[str(rule)], sinks=[
        {"type": "file", "path": str(daemon.file), "rules": ["a_mop"]},
        {"type": "file", "name": "alerts", "path": str(other), "actions": [], "levels": ["high"]},
    ])  # fmt: skip
    done = daemon.hang_up()
    assert (done["event"]["outcome"], done["message"]) == (
        "success", "reloaded: 1 rules, 2 sinks; changed: rules, sinks",
    )  # fmt: skip
    assert "sink file: there is no rule 'a_mop'; did you mean a_map?" in daemon.said()
    stimulate("count", "3")
    daemon.stop()
    assert {one["rule"]["name"] for one in documents_in(other)} == {"a_map"}


def _first_reload(path: Path) -> list[Document]:
    return documents_in(path, "daemon_reload")[:1]


def test_a_sink_that_goes_or_hears_less_is_told_before(home: Path) -> None:
    """Else whoever may change the configuration can have it fall silent without a word."""
    sinks: Any = [
        {"name": name, "type": "file", "path": str(home / f"{name}.json")}
        for name in ("events", "siem", "alerts")
    ]
    with Daemon(home, sinks=sinks) as daemon:
        daemon.ready()
        daemon.configure(sinks=[sinks[0], {**sinks[2], "actions": []}])
        done = daemon.hang_up()
        assert done["message"].endswith(" rules, 2 sinks; changed: sinks")
        before = done["event"]["sequence"] - 1
        for sink in sinks:
            path = Path(sink["path"])
            (last,) = until(partial(_first_reload, path), "its last word")
            assert (last["event"]["sequence"], last["event"]["outcome"]) == (before, "unknown")
            assert last["message"] == "about to reload: sink siem goes; sink alerts changes"
        daemon.hang_up()
        assert len(daemon.documents("daemon_reload")) == 3  # nothing of sinks to tell
        daemon.stop()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rules": ["/nowhere.yml"]}, "/nowhere.yml: cannot read it: No such file or directory"),
        ({"ring_size": "4M"}, "ring_size: takes a restart"),
        ({"sinks": [{"type": "file", "path": "/proc/nothing/x"}]}, "cannot"),
        ({"sinks": [{"type": "tape"}]}, "type: must be stdout, file, syslog, socket or kafka"),
    ],
)
def test_a_reload_that_is_wrong_changes_nothing(
    daemon: Daemon, changes: dict[str, object], what: str
) -> None:
    daemon.configure(**{"heartbeat": "5h", **changes})
    done = daemon.hang_up()
    assert done["event"]["outcome"] == "failure"
    assert what in done["message"]
    assert what in daemon.said()
    stimulate("count", "3")
    daemon.stop()
    assert daemon.documents("map_create")
    assert all(after == before + 1 for before, after in pairwise(_numbers(daemon)))


def test_one_while_it_starts_is_not_forgotten(home: Path) -> None:
    with Daemon(home) as daemon:
        until((home / "state" / "lock").exists, "its state directory")
        daemon.configure(heartbeat="5h")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.ready()
        until(lambda: daemon.documents("daemon_reload"), "the document of a reload")
        daemon.stop()


def test_a_file_that_was_moved_away_is_opened_anew(daemon: Daemon) -> None:
    moved = daemon.home / "moved.json"
    daemon.file.rename(moved)
    daemon.hang_up()
    daemon.stop()
    assert documents_in(moved)[0]["event"]["action"] == "daemon_start"
    assert daemon.documents()[-1]["event"]["action"] == "loss"
    numbers = [one["event"]["sequence"] for one in documents_in(moved)] + _numbers(daemon)
    assert all(after == before + 1 for before, after in pairwise(numbers))


def test_a_thousand_hangups_under_load_lose_and_leak_nothing(daemon: Daemon) -> None:
    def held() -> tuple[int, int, int]:
        return (
            len(os.listdir(f"/proc/{daemon.pid}/fd")),
            len(os.listdir(f"/proc/{daemon.delivery_pid()}/fd")),
            len(os.listdir(f"/proc/{daemon.pid}/task")),
        )

    daemon.hang_up()
    before = held()
    with Stimulus("sleepy") as sleepy:
        made = []
        for _ in range(1000):
            daemon.process.send_signal(signal.SIGHUP)
            made += sleepy.poke(3)
        pid = sleepy.pid
    daemon.hang_up()
    assert held() == before
    daemon.stop()
    calls = [one for one in daemon.documents() if one.get("process", {}).get("pid") == pid]
    assert [identity(one) for one in calls] == [*map(identity, made)]
    assert len(daemon.documents("daemon_reload")) > 3
    assert all(one["event"]["outcome"] == "success" for one in daemon.documents("daemon_reload"))
    assert all(after == before + 1 for before, after in pairwise(_numbers(daemon)))


# --- What it survives ----------------------------------------------------------------------


def test_a_delivery_process_that_is_killed_is_started_again(daemon: Daemon) -> None:
    made = stimulate("every")
    first = daemon.delivery_pid()
    os.kill(first, signal.SIGKILL)
    made += stimulate("every")
    until(lambda: daemon.delivery_pid() not in (0, first), "another one")
    made += stimulate("every")
    finished = daemon.stop()
    assert finished.status == 0
    assert "the delivery process ended, and is started again in" in finished.err
    pids = {call.tgid for call in made}
    calls = [one for one in once(daemon.documents()) if one.get("process", {}).get("pid") in pids]
    assert {identity(one) for one in calls} == {*map(identity, made)}
    assert daemon.documents("delivery_restart")
    (loss,) = [one for one in daemon.documents("loss") if one["bpf"]["loss"]["final"]]
    assert "undelivered" not in loss["bpf"]["loss"]


def test_unmounting_tracefs_and_bpffs_changes_nothing(home: Path) -> None:
    """In a mount namespace of its own."""
    script = (
        "mount --make-rprivate /; for each in tracefs:/sys/kernel/tracing bpf:/sys/fs/bpf; do"
        " mountpoint -q ${each#*:} || mount -t ${each%%:*} none ${each#*:} || exit 9; done;"
        ' exec "$@"'
    )
    with Daemon(home, under=("unshare", "-m", "sh", "-c", script, "sh")) as daemon:
        daemon.ready()
        for path in ("/sys/kernel/tracing", "/sys/fs/bpf"):
            subprocess.run(
                ["nsenter", "-t", str(daemon.pid), "-m", "umount", "-l", path], check=True
            )
        made = stimulate("count", "3")
        daemon.stop()
    pids = {call.tgid for call in made}
    calls = [one for one in daemon.documents() if one.get("process", {}).get("pid") in pids]
    assert len(calls) == len(made)


def test_the_log_says_when_a_sink_is_away_and_when_it_is_back(home: Path) -> None:
    path = home / "socket"
    sink: Any = {"type": "socket", "name": "siem", "address": f"unix://{path}"}
    with Daemon(home, sinks=[sink]).ready() as daemon, socket.socket(socket.AF_UNIX) as server:
        until(lambda: "sink siem: No such file or directory\n" in daemon.said(), "the reason")
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        until(lambda: "sink siem: all is well again\n" in daemon.said(), "its return")
        daemon.stop()
    assert daemon.said().count("sink siem: No such file") == 1


def test_lines_of_a_sink_that_has_another_name_now_are_told_at_the_start(home: Path) -> None:
    away: Any = {"type": "socket", "name": "old", "address": "unix:///nowhere/x"}
    with Daemon(home, sinks=[away]).ready() as daemon:
        stimulate("count", "3")
        daemon.stop()
    with Daemon(home, sinks=[{**away, "name": "new"}]).ready() as daemon:
        assert f"bytes wait in {home}/state/spool/old for a sink of that name" in daemon.said()
        daemon.stop()


def test_a_start_that_fails_says_why_and_leaves_nothing(home: Path) -> None:
    with Daemon(home, sinks=[{"type": "file", "path": "/proc/nothing/x"}]) as daemon:
        assert daemon.process.wait(60) == 1
        assert "/proc/nothing/x" in daemon.said()
        assert "Traceback" not in daemon.said()
    with Daemon(home, user="no-such-user") as daemon:
        assert daemon.process.wait(60) == 1
        assert "there is no user no-such-user to go on as: make one" in daemon.said()


def test_check_says_what_is_wrong_and_does_nothing(home: Path) -> None:
    config = home / "c.yaml"
    config.write_text("sinks: [{type: file}]\nrules: [/nowhere]\n")
    finished = bpfsnoop_run("daemon", "--check", "-c", config)
    assert (finished.status, finished.complaint) == (
        2, f"bpfsnoop: {config}:1: sinks[0]: a sink of type file needs path",
    )  # fmt: skip
    config.write_text("sinks: [{type: stdout, rules: [bpf_nothing]}]\n")
    finished = bpfsnoop_run("daemon", "--check", "-c", config)
    assert finished.status == 0
    assert finished.complaint.startswith("bpfsnoop: sink stdout: there is no rule 'bpf_nothing'")
    assert finished.out.endswith(b" rules, 1 sinks: it can start all the same\n")
    config.write_text("sinks: [{type: stdout}]\n")
    finished = bpfsnoop_run("daemon", "--check", "-c", config)
    assert finished.out.endswith(b" rules, 1 sinks: nothing is wrong\n")
