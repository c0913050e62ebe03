# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of its delivery process, with a real one at the other."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bpfsnoop.events import service
from bpfsnoop.events.errors import CannotStart
from bpfsnoop.events.service import Told, service_document
from bpfsnoop.tracer.daemon import courier as module
from bpfsnoop.tracer.daemon.courier import Courier
from bpfsnoop.tracer.delivery import frames
from bpfsnoop.tracer.delivery.frames import Frame
from bpfsnoop.tracer.delivery.settings import Settings, SinkSettings
from bpfsnoop.tracer.watch import Watch
from documents import ORIGIN, checked
from running import PATIENCE_S


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch([]) as watching:
        watching.pulse_s = 0.05
        yield watching


def _settings(tmp_path: Path, *names: str) -> Settings:
    sinks = tuple(
        SinkSettings(name, "file", 1 << 16, 1 << 20, {
            "path": str(tmp_path / name), "rotate_size": 0, "rotate_every": 0, "keep": 0,
        }) for name in names
    )  # fmt: skip
    (tmp_path / "spool").mkdir(exist_ok=True, mode=0o700)
    return Settings(sinks, {name: at for at, name in enumerate(names)}, str(tmp_path / "spool"), "")


def _line(number: int) -> bytes:
    return b'{"number":%d}\n' % number


def _until(watch: Watch, courier: Courier, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        watch.wait()
        courier.flush()


def test_lines_arrive_in_order_each_at_its_sinks(tmp_path: Path, watch: Watch) -> None:
    courier = Courier(_settings(tmp_path, "a", "b"), None, pytest.fail)
    courier.watched_by(watch)
    for number in range(1000):
        courier.line(_line(number), sinks=1 + number % 3, severity=6, time_ns=0)
        courier.flush()
    courier.end()
    a, b = ((tmp_path / name).read_bytes() for name in "ab")
    assert a == b"".join(_line(n) for n in range(1000) if (1 + n % 3) & 1)
    assert b == b"".join(_line(n) for n in range(1000) if (1 + n % 3) & 2)
    assert courier.lost == 0
    assert courier.progress["a"]["delivered"] == a.count(b"\n")
    assert courier.pid == 0


def test_settings_that_do_not_hold_keep_it_from_starting(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"cannot write to .*/nowhere/a"):
        Courier(_settings(tmp_path, "nowhere/a"), None, pytest.fail)


def test_new_settings_are_answered(tmp_path: Path, watch: Watch) -> None:
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    answers: list[list[str]] = []
    courier.offer(_settings(tmp_path, "a", "b"), lambda wrong: answers.append(list(wrong)))
    bad = Settings(
        (SinkSettings("c", "file", 1 << 16, 0, {
            "path": "/proc/x", "rotate_size": 0, "rotate_every": 0, "keep": 0,
        }),), {"c": 0}, str(tmp_path / "spool"), "",
    )  # fmt: skip
    courier.offer(bad, lambda wrong: answers.append(list(wrong)))
    _until(watch, courier, lambda: len(answers) == 2)
    courier.line(_line(1), sinks=2, severity=6, time_ns=0)
    courier.end()
    assert answers[0] == []
    assert "/proc/x" in answers[1][0]
    assert (tmp_path / "b").read_bytes() == _line(1)


def test_one_that_is_killed_is_started_again_and_given_what_it_may_not_have_put_anywhere(
    tmp_path: Path, watch: Watch
) -> None:
    said: list[str] = []
    courier = Courier(_settings(tmp_path, "a"), None, said.append)
    courier.watched_by(watch)
    number = 0
    for _ in range(2):
        for _ in range(500):
            courier.line(_line(number), sinks=1, severity=6, time_ns=0)
            courier.flush()
            number += 1
        first = courier.pid
        os.kill(first, signal.SIGKILL)
        _until(watch, courier, lambda: courier.pid not in (0, first))  # noqa: B023 - called here
    courier.line(_line(number), sinks=1, severity=6, time_ns=0)
    courier.end()
    lines = (tmp_path / "a").read_bytes().splitlines(keepends=True)
    assert list(dict.fromkeys(lines)) == [_line(each) for each in range(number + 1)]
    assert len(said) == 2
    assert all(one.startswith("the delivery process ended, and is started again") for one in said)
    assert courier.lost == 0


def test_an_offer_that_dies_with_it_is_refused(tmp_path: Path, watch: Watch) -> None:
    courier = Courier(_settings(tmp_path, "a"), None, lambda sentence: None)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGSTOP)
    answers: list[list[str]] = []
    courier.offer(_settings(tmp_path, "a", "b"), lambda wrong: answers.append(list(wrong)))
    courier.flush()
    os.kill(courier.pid, signal.SIGKILL)
    _until(watch, courier, lambda: answers)
    courier.end()
    assert answers == [["the delivery process has just ended"]]


def test_an_offer_while_there_is_none_is_answered_by_the_next_one(
    tmp_path: Path, watch: Watch
) -> None:
    said: list[str] = []
    courier = Courier(_settings(tmp_path, "a"), None, said.append)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGKILL)
    _until(watch, courier, lambda: said)
    assert not courier.pid
    answers: list[list[str]] = []
    courier.offer(_settings(tmp_path, "a", "b"), lambda wrong: answers.append(list(wrong)))
    _until(watch, courier, lambda: answers)
    courier.line(_line(1), sinks=2, severity=6, time_ns=0)
    courier.end()
    assert answers == [[]]
    assert (tmp_path / "b").read_bytes() == _line(1)


def test_what_the_next_one_gets_is_not_lost_however_often_it_ends(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    courier = Courier(_settings(tmp_path, "a"), None, lambda sentence: None)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGSTOP)
    line = b'"%s"\n' % (b"x" * 10_000)
    for _ in range(60):
        courier.line(line, sinks=1, severity=6, time_ns=0)
        courier.flush()
    for _ in range(2):
        pid = courier.pid
        os.kill(pid, signal.SIGKILL)
        _until(watch, courier, lambda: courier.pid not in (0, pid))  # noqa: B023 - called here
        os.kill(courier.pid, signal.SIGSTOP)
    assert courier.lost == 0
    os.kill(courier.pid, signal.SIGCONT)
    courier.end()
    assert courier.lost == 0
    assert (tmp_path / "a").read_bytes() == line * 60


def test_a_sink_that_the_next_one_cannot_make_holds_up_no_other(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    home = tmp_path / "home"
    home.mkdir()
    courier = Courier(_settings(tmp_path, "home/a", "b"), None, lambda sentence: None)
    courier.watched_by(watch)
    home.rename(tmp_path / "away")
    os.kill(courier.pid, signal.SIGKILL)
    courier.line(_line(1), sinks=3, severity=6, time_ns=0)
    _until(watch, courier, lambda: courier.progress.get("b", {}).get("delivered"))
    a = courier.progress["home/a"]
    assert (a["up"], a["delivered"]) == (False, 0)
    assert "cannot write to" in a["problem"]
    # Settings that do without it are taken, those that do not are not.
    answers: list[list[str]] = []
    for names in ("home/a", "b"), ("b",):
        courier.offer(_settings(tmp_path, *names), lambda wrong: answers.append(list(wrong)))
    _until(watch, courier, lambda: len(answers) == 2)
    assert "cannot write to" in answers[0][0]
    assert answers[1] == []
    (tmp_path / "away").rename(home)
    courier.offer(_settings(tmp_path, "home/a", "b"), lambda wrong: answers.append(list(wrong)))
    _until(watch, courier, lambda: courier.progress.get("home/a", {}).get("delivered"))
    courier.end()
    assert (home / "a").read_bytes() == (tmp_path / "b").read_bytes() == _line(1)
    assert courier.lost == 0


def test_who_takes_the_port_of_metrics_meanwhile_keeps_no_lines_from_sinks(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{other.getsockname()[1]}"
    settings = replace(_settings(tmp_path, "a"), metrics=where)
    said: list[str] = []
    courier = Courier(settings, None, said.append)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGKILL)
    while courier.pid:
        watch.wait()
    with socket.create_server(("127.0.0.1", int(where.rpartition(":")[2]))):
        courier.line(_line(1), sinks=1, severity=6, time_ns=0)
        _until(watch, courier, lambda: courier.progress.get("a", {}).get("delivered"))
    courier.end()
    assert (tmp_path / "a").read_bytes() == _line(1)
    assert f"cannot listen at {where}" in capfd.readouterr().err
    assert len(said) == 1


def test_one_that_can_put_nothing_anywhere_is_tried_again_until_it_can(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    said: list[str] = []
    home = tmp_path / "home"
    home.mkdir()
    (home / "kept").mkdir()
    settings = _settings(tmp_path, "a")
    courier = Courier(replace(settings, spool=str(home / "kept")), None, said.append)
    courier.watched_by(watch)
    home.rename(tmp_path / "away")
    home.touch()  # no directory for spools can be made there
    os.kill(courier.pid, signal.SIGKILL)
    courier.line(_line(1), sinks=1, severity=6, time_ns=0)
    _until(watch, courier, lambda: any("does not take its settings any more" in s for s in said))
    _until(watch, courier, lambda: "the delivery process ended" in said[-1])
    home.unlink()
    (tmp_path / "away").rename(home)
    _until(watch, courier, lambda: courier.progress.get("a", {}).get("delivered"))
    courier.end()
    assert (tmp_path / "a").read_bytes() == _line(1)
    assert courier.lost == 0


def test_drops_are_counted_across_delivery_processes(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    settings = _settings(tmp_path, "a")
    without = replace(settings.sinks[0], spool=0)
    courier = Courier(replace(settings, sinks=(without,)), None, lambda sentence: None)
    courier.watched_by(watch)
    too_long = b'"%s"\n' % (b"x" * (1 << 17))
    for count in (2, 4):
        for _ in range(2):
            courier.line(too_long, sinks=1, severity=6, time_ns=0)
        _until(watch, courier, lambda: courier.dropped["a"] >= count)  # noqa: B023 - called here
        first = courier.pid
        os.kill(first, signal.SIGKILL)
        _until(watch, courier, lambda: courier.pid not in (0, first))  # noqa: B023 - called here
    courier.end()
    assert courier.dropped["a"] >= 4  # those may be given it again that it had just dropped


def test_one_that_hangs_is_noticed_by_a_single_line(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    said: list[str] = []
    courier = Courier(_settings(tmp_path, "a"), None, said.append)
    courier.watched_by(watch)
    hung = courier.pid
    os.kill(hung, signal.SIGSTOP)
    courier.line(_line(1), sinks=1, severity=2, time_ns=0)
    courier.flush()
    monkeypatch.setattr(module, "_HUNG_S", 0.1)
    _until(watch, courier, lambda: said)
    monkeypatch.setattr(module, "_HUNG_S", PATIENCE_S)
    _until(watch, courier, lambda: courier.progress.get("a", {}).get("delivered"))
    courier.end()
    assert (tmp_path / "a").read_bytes() == _line(1)


@pytest.mark.parametrize("kept", [100, 1 << 20])
def test_the_end_counts_what_a_hung_one_had_taken_kept_or_not(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(module, "_END_S", 0.2)
    monkeypatch.setattr(module, "KEPT_MAX", kept)
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGSTOP)
    for number in range(10):
        courier.line(_line(number), sinks=1, severity=6, time_ns=0)
        courier.flush()
    courier.end()
    assert courier.lost == 10


def test_who_was_frozen_with_it_does_not_take_it_for_hung(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(asleep_s))
    monkeypatch.setattr(module, "time", clock)
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    first = courier.pid
    os.kill(first, signal.SIGSTOP)
    courier.line(_line(1), sinks=1, severity=6, time_ns=0)
    courier.flush()
    asleep_s.append(60.0)
    courier.flush()
    os.kill(first, signal.SIGCONT)
    _until(watch, courier, lambda: courier.progress.get("a", {}).get("delivered"))
    assert courier.pid == first
    courier.end()


def test_an_answer_that_comes_at_the_end_is_nobodys(tmp_path: Path, watch: Watch) -> None:
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    courier.offer(_settings(tmp_path, "a", "b"), lambda wrong: pytest.fail("there was one"))
    courier.end()
    assert courier.lost == 0


def test_one_that_does_not_read_costs_lines_and_not_memory(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 1 << 16)
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGSTOP)
    for number in range(100_000):
        courier.line(_line(number), sinks=1, severity=6, time_ns=0)
        courier.flush()
    assert courier.lost > 0
    os.kill(courier.pid, signal.SIGCONT)
    courier.end()
    arrived = (tmp_path / "a").read_bytes().splitlines(keepends=True)
    assert arrived == [_line(number) for number in range(len(arrived))]
    assert len(arrived) + courier.lost == 100_000


def test_one_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_S", 0.2)
    courier = Courier(_settings(tmp_path, "a"), None, pytest.fail)
    courier.watched_by(watch)
    os.kill(courier.pid, signal.SIGSTOP)
    for _ in range(10_000):
        courier.line(_line(1) * 100, sinks=1, severity=6, time_ns=0)
    courier.end()
    assert courier.pid == 0
    assert courier.lost > 0


@pytest.mark.parametrize("action", sorted(service.KINDS))
@pytest.mark.parametrize("outcome", ["success", "failure", "unknown"])
def test_documents_of_the_daemon(action: str, outcome: str) -> None:
    sink = {
        "name": "a", "delivered": 1, "dropped": 0, "queued": 0, "spooled": 0, "up": True,
        "problem": "",
    }  # fmt: skip
    about: dict[str, Any] = {
        "version": "1", "pid": 1, "uptime": 0, "rules": 1, "seen": 0, "lost": 0, "events": 1,
        "folded": 0, "alerts": 0, "memory": 1, "sinks": [sink], "previous": "killed",
        "interval": 60.0,
    }  # fmt: skip
    told = Told(action, "a sentence", about, outcome)
    document = checked(service_document(told, ORIGIN, time_ns=1, sequence=7))
    assert document["event"]["outcome"] == outcome
    assert document["bpf"]["daemon"] == about


def _progress_of(name: str, count: int, done: int = 1) -> bytes:
    about = {"delivered": 0, "dropped": count, "queued": 0, "spooled": 0, "up": 1, "problem": ""}
    return json.dumps({"done": done, "sinks": {name: about}}).encode()


def test_counts_stay_such_that_documents_can_have_them(tmp_path: Path, watch: Watch) -> None:
    courier = Courier(_settings(tmp_path, "a"), None, lambda sentence: None)
    courier.watched_by(watch)
    for count in ((1 << 63) - 1, 0, (1 << 63) - 1):
        courier._heard(Frame(frames.PROGRESS, _progress_of("a", count, done=0)))
    assert courier.dropped == {"a": (1 << 63) - 1}
    courier.end()


@pytest.mark.parametrize("endless", [
    bytes(Frame(frames.PROGRESS, _progress_of("a", 0, done=0))) * 2000,
    bytes(Frame(frames.REFUSED, b"[" + b"1," * (1 << 22) + b"1]")),
])  # fmt: skip
def test_one_that_does_not_stop_talking_is_heard_in_turns(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, endless: bytes
) -> None:
    monkeypatch.setattr(module, "_spawned", lambda who: _talker(endless))
    ended: list[str] = []
    courier = Courier(_settings(tmp_path, "a"), None, ended.append)
    courier.watched_by(watch)
    courier.line(_line(1), sinks=1, severity=6, time_ns=0)
    courier.flush()
    for _ in range(20):
        began = time.monotonic()
        watch.wait()
        assert time.monotonic() - began < PATIENCE_S / 10
    assert len(courier._reader._buffer) <= 2 * module._SAID_MAX
    monkeypatch.setattr(module, "_END_S", 0.0)
    courier.end()


def _talker(endless: bytes) -> tuple[socket.socket, int, int]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            theirs.recv(1 << 16)  # settings
            theirs.sendall(bytes(Frame(frames.ACCEPTED)))
            theirs.recv(1 << 16)  # a line
            while True:
                theirs.sendall(endless)
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return ours, pid, os.pidfd_open(pid)


@pytest.mark.parametrize("kind", [frames.PROGRESS, frames.REFUSED])
@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b"7", b'{"done":1}', b'{"done":"x","sinks":{}}', b'{"done":1,"sinks":[]}',
     b'{"done":1,"sinks":{"a":{}}}', b'{"done":1e999,"sinks":{}}', b"[" * 100_000,
     b'{"done":1,"sinks":{"a":{"delivered":[],"dropped":0,"queued":0,"spooled":0}}}',
     _progress_of("a", 1 << 63), _progress_of("a", -1), _progress_of("nobody", 1),
     _progress_of("\ud800", 1), _progress_of("a", 1, done=1 << 40)],
)  # fmt: skip
def test_one_that_talks_nonsense_is_started_again(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, kind: int, said: bytes
) -> None:
    """Whoever speaks to networks may have been taken over."""
    courier = Courier(_settings(tmp_path, "a"), None, lambda sentence: None)
    courier.watched_by(watch)
    monkeypatch.setattr(courier._reader, "feed", lambda data: [Frame(kind, said)])
    courier.line(_line(1), sinks=1, severity=6, time_ns=0)
    first = courier.pid
    if kind == frames.PROGRESS:
        _until(watch, courier, lambda: courier.pid not in (0, first))
    courier.end()
    assert (tmp_path / "a").read_bytes().startswith(_line(1))
