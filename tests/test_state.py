# SPDX-License-Identifier: Apache-2.0
"""The daemon's directory, and what it tells systemd."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer.daemon import drop
from bpfsnoop.tracer.daemon.notify import Notify
from bpfsnoop.tracer.daemon.state import State
from bpfsnoop.tracer.rights import Account
from running import NOBODY

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "made" / "state")


def test_it_is_made_and_nobody_else_can_look_into_it(path: str) -> None:
    state = State(path, None)
    assert Path(path).stat().st_mode & 0o777 == 0o700
    assert Path(state.spool).stat().st_mode & 0o777 == 0o700
    state.close()


def test_a_full_disk_is_no_reason(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    state = State(path, None)
    with pytest.raises(CannotStart, match=r"another bpfsnoop daemon .* has"):
        State(path, None)
    state.close()


def test_there_is_one_of_it_as_long_as_it_is_held(path: str) -> None:
    first = State(path, None)
    with pytest.raises(
        CannotStart, match=rf"another bpfsnoop daemon \(process {os.getpid()}\) has"
    ):
        State(path, None)
    first.close()
    State(path, None).close()


@pytest.mark.parametrize(
    ("mark", "previous"),
    [
        (None, ""),
        ({"ended": True, "boot_id": BOOT}, "stopped"),
        ({"ended": True, "boot_id": "another"}, "stopped"),
        ({"ended": False, "boot_id": BOOT}, "killed"),
        ({"ended": False, "boot_id": "another"}, "rebooted"),
        ({}, "killed"),
        ([], "killed"),
        ("", "killed"),
    ],
)
def test_the_next_one_learns_how_it_ended(path: str, mark: object, previous: str) -> None:
    state = State(path, None)
    if mark is not None:
        Path(path, "running").write_text(json.dumps(mark) if mark != "" else "{cut")
    assert state.previous_end() == previous
    state.close()


def test_it_marks_that_it_runs_and_that_it_ended(path: str) -> None:
    state = State(path, None)
    state.mark(ended=False)
    assert state.previous_end() == "killed"
    state.mark(ended=True)
    assert state.previous_end() == "stopped"
    state.close()


@pytest.mark.parametrize("name", ["no-such-user", "\u00b2", "9" * 30])
def test_a_user_that_is_none_is_a_sentence(name: str) -> None:
    with pytest.raises(CannotStart, match=f"there is no user {name} to go on as"):
        drop.account(name)


def test_a_user_has_all_of_its_groups() -> None:
    who = drop.account("root")
    assert (who.uid, who.gid) == (0, 0)
    assert set(who.groups) == set(os.getgrouplist("root", 0))


def test_a_directory_that_others_can_write_to_is_not_used(path: str) -> None:
    os.makedirs(path)
    os.chmod(path, 0o777)
    with pytest.raises(CannotStart, match="cannot use the state directory"):
        State(path, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give anything away")
def test_what_has_other_things_in_it_is_not_given_away(path: str) -> None:
    os.makedirs(path)
    who = Account(NOBODY, NOBODY, (NOBODY,))
    Path(path, "passwd").touch()
    with pytest.raises(CannotStart, match="other things are in it"):
        State(path, who)
    assert os.stat(path).st_uid == 0
    Path(path, "passwd").unlink()
    for _ in range(2):
        state = State(path, who)
        assert os.stat(path).st_uid == NOBODY
        state.mark(ended=True)
        state.close()


@pytest.mark.parametrize("name", ["lock", "running", "spool"])
def test_nothing_is_followed_out_of_it(path: str, tmp_path: Path, name: str) -> None:
    """Whoever was its user once may have left links there."""
    os.makedirs(path, 0o700)
    victim = tmp_path / "victim"
    if name == "spool":
        victim.mkdir()
    else:
        victim.write_text("precious")
    os.symlink(victim, Path(path, name))
    if name == "running":
        state = State(path, None)
        with pytest.raises(OSError, match="symbolic links"):
            state.mark(ended=False)
        state.close()
        assert victim.read_text() == "precious"
    else:
        with pytest.raises(CannotStart, match="cannot use the state directory"):
            State(path, None)


# --- systemd -------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield server


def test_what_systemd_is_told(manager: socket.socket) -> None:
    notify = Notify()
    assert notify.watchdog_s == 3.0
    notify.ready("well")
    assert manager.recv(999) == b"READY=1\nSTATUS=well"
    notify.reloading()
    first, second = manager.recv(999).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdigit()
    notify.alive("well")
    assert manager.recv(999) == b"WATCHDOG=1\nSTATUS=well"
    notify.stopping("stopping")
    assert manager.recv(999) == b"STOPPING=1\nSTATUS=stopping"
    notify.close()


def test_children_cannot_speak_for_us(manager: socket.socket) -> None:
    Notify().close()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


@pytest.mark.parametrize("pid", ["1", "x"])
def test_a_watchdog_of_somebody_else_is_none_of_ours(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, pid: str
) -> None:
    monkeypatch.setenv("WATCHDOG_PID", pid)
    notify = Notify()
    assert notify.watchdog_s is None
    notify.close()


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/notify", "@nobody-listens"])
def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify = Notify()
    notify.ready("well")
    notify.close()
    notify.alive("closed")
