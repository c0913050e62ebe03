# SPDX-License-Identifier: Apache-2.0
"""Knowing when it is over: by time, by signals, with the last of some processes."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bpfsnoop.tracer.watch import Watch

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Whoever waits in vain would wait forever, deaf to the signals that end other tests."""

    def hangs(number: int, frame: object) -> None:
        raise AssertionError("waited in vain")

    old = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """What is waited for in these tests, in place of a ring."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def watch(pipe: tuple[int, int]) -> Iterator[Watch]:
    with Watch([pipe[0]]) as made:
        yield made


def _elapsed(watch: Watch) -> float:
    """How long it took until it was over."""
    start = time.monotonic()
    while not watch.over:
        watch.wait()
    return time.monotonic() - start


def test_it_waits_for_the_descriptor(watch: Watch, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    watch.wait()
    assert not watch.over


def test_it_is_over_when_it_is_said_so(watch: Watch) -> None:
    watch.finish()
    assert watch.over


def test_it_is_over_after_so_long(watch: Watch) -> None:
    watch.until(0.05)
    assert 0.05 <= _elapsed(watch) < 5


def test_it_is_over_in_time_though_there_is_always_something(
    watch: Watch, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"x")
    watch.until(0.05)
    assert 0.05 <= _elapsed(watch) < 5


def test_any_time_will_do(watch: Watch, pipe: tuple[int, int]) -> None:
    """A century is more than epoll_wait(2) takes, and than it needs to."""
    os.write(pipe[1], b"x")
    watch.until(3600 * 24 * 36500)
    watch.wait()
    assert not watch.over


# --- Signals -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it(watch: Watch, number: int) -> None:
    os.kill(os.getpid(), number)
    assert not watch.over  # but only where it is looked for
    watch.wait()
    assert watch.over


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_may_do_something_else_once(watch: Watch, number: int) -> None:
    """The second one means it, whichever it is."""
    heard: list[int] = []
    watch.on_signal(heard.append)
    os.kill(os.getpid(), number)
    watch.wait()
    assert (heard, watch.over) == ([number], False)
    os.kill(os.getpid(), signal.SIGTERM)
    watch.wait()
    assert (heard, watch.over) == ([number], True)


def test_two_signals_at_once_are_two(watch: Watch) -> None:
    heard: list[int] = []
    watch.on_signal(heard.append)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    watch.wait()
    assert (len(heard), watch.over) == (1, True)


def test_only_the_second_signal_insists(watch: Watch) -> None:
    """It may be over for another reason, and there may still be something to wait for."""
    watch.finish()
    os.kill(os.getpid(), signal.SIGTERM)
    watch.wait()
    assert not watch.insisted
    os.kill(os.getpid(), signal.SIGTERM)
    watch.wait()
    assert watch.insisted


def test_a_hangup_that_is_ignored_stays_ignored(pipe: tuple[int, int]) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Watch([pipe[0]]) as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            os.write(pipe[1], b"x")
            watch.wait()
            assert not watch.over
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_other_signals_are_not_ours(watch: Watch, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(pipe[1], b"x")
        watch.wait()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert (seen, watch.over) == ([signal.SIGUSR1], False)


def test_afterwards_signals_are_what_they_were(pipe: tuple[int, int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Watch([pipe[0]]):
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_it_leaves_no_descriptor_behind(pipe: tuple[int, int]) -> None:
    before = os.listdir("/proc/self/fd")
    with Watch([pipe[0]]):
        pass
    assert os.listdir("/proc/self/fd") == before


# --- Processes ---------------------------------------------------------------------------


class Child:
    """A process that ends when it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        self.pidfd = os.pidfd_open(self._process.pid)

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    def close(self) -> None:
        self.end()
        self._process.wait()
        os.close(self.pidfd)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    with ExitStack() as stack:
        made = [Child(), Child()]
        for child in made:
            stack.callback(child.close)
        yield made


def test_it_is_over_with_the_last_process(watch: Watch, children: list[Child]) -> None:
    ended: list[int] = []
    one, other = children
    watch.while_alive([one.pidfd, other.pidfd], ended.append, None)
    one.end()
    watch.wait()
    assert (ended, watch.over) == ([one.pidfd], False)
    other.end()
    watch.wait()
    assert (ended, watch.over) == ([one.pidfd, other.pidfd], True)


def test_the_end_of_a_process_need_not_end_it(watch: Watch, children: list[Child]) -> None:
    ended: list[int] = []
    child, other = children
    watch.on_exit(child.pidfd, ended.append)
    watch.while_alive([other.pidfd], ended.append, None)
    child.end()
    watch.wait()
    assert (ended, watch.over) == ([child.pidfd], False)
    other.end()
    assert _elapsed(watch) < 5
    assert ended == [child.pidfd, other.pidfd]


def test_it_is_over_when_nothing_of_the_family_is_left(watch: Watch, children: list[Child]) -> None:
    """Nobody says when that is, so it is looked at now and then."""
    child, _ = children
    alive = True

    def family() -> bool:
        return alive

    watch.while_alive([child.pidfd], lambda pidfd: None, family)
    child.end()
    for _ in range(3):
        watch.wait()
        assert not watch.over
    alive = False
    assert _elapsed(watch) < 5


def test_a_process_that_had_ended_already_ends_it(watch: Watch, children: list[Child]) -> None:
    child, _ = children
    child.end()
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    watch.while_alive([child.pidfd], lambda pidfd: None, None)
    assert _elapsed(watch) < 5


def test_released_it_waits_for_processes_only() -> None:
    """What was watched may be readable and the time be up: nobody spins on that."""
    ours, theirs = os.pipe()
    os.write(theirs, b"readable")
    ended: list[int] = []
    with subprocess.Popen(["sleep", "0.2"]) as process, Watch([ours]) as watch:
        watch.until(0)
        pidfd = os.pidfd_open(process.pid)
        watch.on_exit(pidfd, ended.append)
        watch.release()
        watch.wait()
        assert ended == [pidfd]
    for fd in (pidfd, ours, theirs):
        os.close(fd)
