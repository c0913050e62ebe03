# SPDX-License-Identifier: Apache-2.0
"""The life of the package, in order, from installation to purge: runs in the guest, with the
packages old.deb and new.deb beside it.
"""

import ctypes
import grp
import http.client
import json
import os
import pwd
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EVENTS = Path("/var/log/bpfsnoop/events.json")
CONFIG = Path("/etc/bpfsnoop/config.yaml")
CACHE = Path("/var/cache/bpfsnoop")
METRICS = "/run/bpfsnoop/metrics"
PLACES = ("/etc", "/lib/systemd", "/run/systemd", "/usr", "/var/lib", "/var/log", "/var/cache")

PATIENCE_S = 240
"""Far more than it takes, but an emulated host may be slow."""

# Capability numbers, include/uapi/linux/capability.h.
DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN = 1 << 2, 1 << 19, 1 << 21

libc = ctypes.CDLL(None, use_errno=True)


def ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{journal()}"
    return done.stdout


def journal() -> str:
    command = "journalctl", "--unit=bpfsnoop", "--no-pager", "--lines=40"
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shown(name: str) -> str:
    """A property of the unit."""
    return ran("systemctl", "show", "--property", name, "--value", "bpfsnoop").strip()


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S} s\n{journal()}"
        time.sleep(0.2)
    return found


def make_map(name: str) -> None:
    """BPF_MAP_CREATE of an array of one number, of this name."""
    attr = struct.pack("=5I", 2, 4, 4, 1, 0) + bytes(8) + name.encode().ljust(16, b"\0")
    fd = libc.syscall(321, 0, attr, len(attr))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    os.close(fd)


def documents() -> list[dict[str, Any]]:
    """All that is in the file, and in those that it was before."""
    files = sorted(EVENTS.parent.glob("events*.json*"), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def event_of(name: str) -> dict[str, Any]:
    """The event of making a map of this name, when it has come."""
    found: list[dict[str, Any]] = until(
        lambda: [
            document
            for document in documents()
            if document.get("bpf", {}).get("attr", {}).get("map_name") == name
            and document["event"]["kind"] == "event"
        ],
        f"the event of {name}",
    )
    assert len(found) == 1
    return found[0]


def pid() -> int:
    return int(shown("MainPID"))


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def processes_of(user: str) -> list[str]:
    return [path.name for path in Path("/proc").glob("[0-9]*") if path.owner() == user]


def restarted_from(old: int) -> None:
    until(lambda: pid() not in (0, old) and shown("ActiveState") == "active", "the restart")


def test_installing_it_starts_it() -> None:
    ran("dpkg", "--install", str(HERE / "old.deb"))
    assert shown("ActiveState") == "active", journal()
    assert shown("UnitFileState") == "enabled"
    assert ran("systemctl", "status", "--no-pager", "bpfsnoop")


def test_the_first_call_after_the_start_is_seen() -> None:
    """It is active only once it traces."""
    ran("systemctl", "stop", "bpfsnoop")
    ran("systemctl", "start", "--no-block", "bpfsnoop")
    states = set()
    while (state := shown("ActiveState")) != "active":
        states.add(state)
        assert state in ("inactive", "activating"), journal()
    make_map("first_of_all")
    assert "activating" in states
    assert event_of("first_of_all")


def test_its_hardening_hides_nothing_of_callers() -> None:
    """It has a mount namespace of its own, and sees /proc and files as if it had none."""
    make_map("who_is_it")
    event = event_of("who_is_it")
    process, ours = event["process"], event["bpf"]["process"]
    assert process["pid"] == os.getpid()
    assert process["executable"] == os.path.realpath("/usr/bin/python3")
    assert process["working_directory"] == os.getcwd()
    assert process["ancestors"][-1]["pid"] == 1
    assert ours["exe_authentic"] is True
    assert ours["cgroup"].endswith("/guest.service")
    assert "absent" not in ours
    assert event["bpf"]["probe"] == "fentry"
    assert event["host"]["id"] == Path("/etc/machine-id").read_text().strip()
    assert shown("NRestarts") == "0"


def test_it_is_no_longer_root() -> None:
    user = pwd.getpwnam("bpfsnoop")
    status = status_of(pid())
    assert {int(number) for number in status["Uid"].split()} == {user.pw_uid}
    assert {int(number) for number in status["Gid"].split()} == {user.pw_gid}
    held = int(status["CapEff"], 16)
    assert held & ~(DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    children = Path(f"/proc/{pid()}/task/{pid()}/children").read_text().split()
    assert children
    for child in map(int, children):
        status = status_of(child)
        assert {int(number) for number in status["Uid"].split()} == {user.pw_uid}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


def test_who_may_read_what_it_writes() -> None:
    about = EVENTS.stat()
    assert pwd.getpwuid(about.st_uid).pw_name == "bpfsnoop"
    assert grp.getgrgid(about.st_gid).gr_name == "adm"
    assert about.st_mode & 0o777 == 0o640
    assert CONFIG.stat().st_mode & 0o007 == 0
    assert CACHE.stat().st_mode & 0o077 == 0
    assert CACHE.owner() == "root"


def test_it_tells_metrics() -> None:
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(METRICS)
    client.request("GET", "/metrics")
    assert b"bpfsnoop" in client.getresponse().read()
    client.close()


def test_a_reload_takes_up_the_configuration() -> None:
    old = pid()
    CONFIG.write_text(CONFIG.read_text() + "\nmessage: true\n")
    ran("systemctl", "reload", "bpfsnoop")
    until(lambda: _has_message("reloaded"), "a document with a message")
    assert pid() == old


def _has_message(name: str) -> bool:
    """Tries again, as a reload may still be under way when systemctl returns."""
    unique = f"{name}_{time.monotonic_ns() % 10**6}"[:15]
    make_map(unique)
    return "message" in event_of(unique)


def test_a_broken_configuration_changes_nothing() -> None:
    old, text = pid(), CONFIG.read_text()
    CONFIG.write_text(text + "\nno_such_key: 1\n")
    subprocess.run(["systemctl", "reload", "bpfsnoop"], capture_output=True, check=False)
    until(lambda: "no_such_key" in journal(), "a word about the mistake")
    make_map("still_there")
    assert "message" in event_of("still_there")
    assert (pid(), shown("ActiveState")) == (old, "active")
    CONFIG.write_text(text)


@pytest.mark.parametrize("hours", [2, -3])
def test_a_clock_that_is_set_changes_what_comes_after_and_nothing_else(hours: int) -> None:
    old = pid()
    time.clock_settime(time.CLOCK_REALTIME, time.time() + hours * 3600)
    make_map(f"at_{time.monotonic_ns() % 10**6}")
    name = f"then_{time.monotonic_ns() % 10**6}"
    make_map(name)
    event = event_of(name)
    began = datetime.fromisoformat(event["@timestamp"][:26] + "+00:00").timestamp()
    assert abs(began - time.time()) < PATIENCE_S
    numbers = [one["event"]["sequence"] for one in documents()]
    assert event["event"]["sequence"] == max(numbers)
    assert (pid(), shown("ActiveState")) == (old, "active")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_it_comes_back(number: signal.Signals) -> None:
    """One that is stopped is found out by the watchdog."""
    old = pid()
    os.kill(old, number)
    restarted_from(old)
    make_map(f"after_{number.name}")
    assert event_of(f"after_{number.name}")


def test_what_waits_in_memory_outlives_a_daemon_that_is_killed() -> None:
    """Who delivers it is left the time to put it on disk."""
    text = CONFIG.read_text()
    spool = Path("/var/lib/bpfsnoop/spool/hung")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        where = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sink = f"  - {{name: hung, type: socket, address: '{where}'}}"
        CONFIG.write_text(text.replace("\nsinks:\n", f"\nsinks:\n{sink}\n"))
        ran("systemctl", "reload", "bpfsnoop")
        with server.accept()[0]:  # and never read
            make_map("in_memory")
            assert event_of("in_memory")
            assert not _has(spool, b"in_memory")
            old = pid()
            os.kill(old, signal.SIGKILL)
            restarted_from(old)
            assert _has(spool, b"in_memory"), journal()
    CONFIG.write_text(text)
    ran("systemctl", "reload", "bpfsnoop")


def _has(spool: Path, what: bytes) -> bool:
    return any(what in path.read_bytes() for path in spool.glob("0*"))


def test_an_upgrade_restarts_it_and_keeps_the_configuration() -> None:
    old, text = pid(), CONFIG.read_text()
    ran("dpkg", "--install", str(HERE / "new.deb"))
    assert shown("ActiveState") == "active", journal()
    assert pid() != old
    assert CONFIG.read_text() == text
    assert text.endswith("\nmessage: true\n")
    make_map("upgraded")
    assert event_of("upgraded")


def test_documents_are_told_apart_over_all_restarts() -> None:
    """None is lost on the way to the file by a restart, and a SIEM can drop what comes twice."""
    every = [(one["host"]["boot"]["id"], one["event"]["sequence"]) for one in documents()]
    assert len(every) == len(set(every))


def test_its_hardening_has_a_figure() -> None:
    exposure = ran("systemd-analyze", "security", "--no-pager", "bpfsnoop").splitlines()[-1]
    figure = float(exposure.split(": ")[1].split()[0])
    assert figure < 4, exposure
    print(exposure)


def test_a_stop_leaves_the_closing_record() -> None:
    ran("systemctl", "stop", "bpfsnoop")
    assert shown("Result") == "success"
    last = documents()[-1]
    assert last["event"]["action"] == "loss"
    assert last["bpf"]["loss"]["final"] is True


def test_removing_it_keeps_what_it_wrote() -> None:
    ran("systemctl", "start", "bpfsnoop")
    ran("dpkg", "--remove", "bpfsnoop")
    assert processes_of("bpfsnoop") == []
    assert EVENTS.exists()
    assert CONFIG.exists()


def test_purging_it_leaves_nothing_but_the_user() -> None:
    ran("dpkg", "--purge", "bpfsnoop")
    left = ran("find", *PLACES, "-xdev", "-name", "*bpfsnoop*").split()
    assert left == []
    assert pwd.getpwnam("bpfsnoop")
