# SPDX-License-Identifier: Apache-2.0
"""What waits for a sink, against a list in memory."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bpfsnoop.tracer.delivery.backlog import OVERHEAD, Backlog, Numbered
from bpfsnoop.tracer.delivery.outlet import Line
from bpfsnoop.tracer.delivery.spool import Spool

QUEUE = 4_000
SPOOL = 16_000
NOW = 0.0  # s: not to wait for a line


def line(number: int, severity: int = 6, size: int = 100) -> Numbered:
    return number, Line(b"%0*d\n" % (size - 1, number), severity, number)


def number(text: Line) -> int:
    return text.time_ns


def take_all(backlog: Backlog) -> list[int]:
    numbers: list[int] = []
    while lines := backlog.take(1 << 20, NOW):
        numbers += map(number, lines)
    return numbers


class Waiting(RuleBasedStateMachine):
    """Lines are numbered, so what is right can be seen off the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.generation = 0
        self.last = 0
        self.pending: list[int] = []  # the first of these are taken
        self.taken = 0
        self.begin()

    def begin(self) -> None:
        self.delivered = self.dropped = 0
        self.backlog = Backlog(QUEUE, str(self.place / str(self.generation)), SPOOL)

    def teardown(self) -> None:
        self.backlog.close()
        shutil.rmtree(self.place)

    @rule(severity=st.integers(0, 7), sizes=st.lists(st.integers(20, 1500), max_size=10))
    def put(self, severity: int, sizes: list[int]) -> None:
        first = self.last + 1
        self.last += len(sizes)
        before = self.backlog.counts()["dropped"]
        lines = [line(at, severity, size) for at, size in enumerate(sizes, first)]
        for one in lines:  # each by itself: which of them are dropped is seen by that
            self.backlog.put([one])
            after = self.backlog.counts()["dropped"]
            assert after - before in (0, 1)
            if after == before:
                self.pending.append(one[0])
            else:
                self.dropped += 1
            before = after

    @rule(size=st.integers(1, 5000))
    def take(self, size: int) -> None:
        got = list(map(number, self.backlog.take(size, NOW)))
        assert got == self.pending[self.taken : self.taken + len(got)]
        assert got or self.taken == len(self.pending)
        self.taken += len(got)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, self.taken))
        refused = data.draw(st.integers(0, count))
        self.backlog.confirm(count, refused)
        del self.pending[:count]
        self.taken -= count
        self.delivered += count - refused
        self.dropped += refused

    @rule()
    def again(self) -> None:
        self.backlog.again()
        self.taken = 0

    @rule()
    def park(self) -> None:
        self.backlog.park()

    @rule()
    def end_and_begin(self) -> None:
        """What has found no room on disk is the newest, and counted."""
        before = self.backlog.counts()["dropped"]
        self.backlog.close()
        lost = self.backlog.counts()["dropped"] - before
        del self.pending[len(self.pending) - lost :]
        self.taken = 0
        self.begin()

    @rule()
    def be_killed(self) -> None:
        """Nothing that was called safe is missing."""
        unsafe = self.backlog.first_unsafe()
        safe = [at for at in self.pending if unsafe is None or at < unsafe]
        self.generation += 1
        after = self.place / str(self.generation)
        shutil.copytree(self.place / str(self.generation - 1), after)
        self.backlog.close()
        spool = Spool(str(after), SPOOL)
        there = list(map(number, spool.take(1 << 30)))
        spool.close()
        assert there[: len(safe)] == safe
        assert there == self.pending[: len(there)]
        self.pending, self.taken = there, 0
        self.begin()

    @invariant()
    def it_counts_right_and_keeps_within_its_bounds(self) -> None:
        counts = self.backlog.counts()
        assert (counts["delivered"], counts["dropped"]) == (self.delivered, self.dropped)
        assert counts["queued"] <= QUEUE
        assert counts["spooled"] <= SPOOL


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_flood_does_not_crowd_out_an_alert(tmp_path: Path) -> None:
    for spool in (0, SPOOL):
        backlog = Backlog(QUEUE, str(tmp_path / str(spool)), spool)
        flood = [line(at) for at in range(1, 1000)]
        backlog.put(flood)
        assert backlog.counts()["dropped"] > 500
        backlog.put([line(1000, severity=3)])
        got = take_all(backlog)
        assert got == [*range(1, len(got)), 1000]
        backlog.close()


def test_one_who_takes_slowly_gets_all_in_order_from_memory_and_disk(tmp_path: Path) -> None:
    backlog = Backlog(QUEUE, str(tmp_path), 100 * SPOOL)
    got: list[int] = []

    def take() -> None:
        while len(got) < 5000:
            lines = backlog.take(700, 10)
            got.extend(map(number, lines))
            backlog.confirm(len(lines))

    taker = Thread(target=take)
    taker.start()
    for first in range(1, 5001, 50):
        backlog.put([line(at) for at in range(first, first + 50)])
    taker.join()
    assert got == list(range(1, 5001))
    assert backlog.counts() == {"delivered": 5000, "dropped": 0, "queued": 0, "spooled": 0}
    backlog.close()


def test_what_was_taken_from_memory_is_ahead_on_disk(tmp_path: Path) -> None:
    backlog = Backlog(QUEUE, str(tmp_path), SPOOL)
    backlog.put([line(1), line(2), line(3)])
    assert len(backlog.take(150, NOW)) == 2
    assert backlog.first_unsafe() == 1
    backlog.park()
    assert backlog.first_unsafe() is None
    assert backlog.counts()["queued"] == 0
    assert list(map(number, backlog.take(1, NOW))) == [3]
    backlog.confirm(1)
    backlog.close()
    backlog = Backlog(QUEUE, str(tmp_path), SPOOL)
    assert take_all(backlog) == [2, 3]
    backlog.close()


def test_a_line_longer_than_the_queue_goes_by_itself_or_not_at_all(tmp_path: Path) -> None:
    backlog = Backlog(QUEUE, str(tmp_path / "with"), 10 * QUEUE)
    backlog.put([line(1, size=2 * QUEUE)])
    assert take_all(backlog) == [1]
    backlog.close()
    backlog = Backlog(QUEUE, str(tmp_path / "without"), 0)
    backlog.put([line(1, size=2 * QUEUE), line(2)])
    assert take_all(backlog) == [2]
    assert backlog.counts()["dropped"] == 1
    backlog.close()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone."""

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    return monkeypatch


def test_a_full_disk_is_a_problem_until_nothing_waits(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    backlog = Backlog(QUEUE, str(tmp_path), SPOOL)
    backlog.put([line(at) for at in range(1, 100)])
    there = 99 - backlog.counts()["dropped"]
    for at in range(1, there):
        assert list(map(number, backlog.take(1, NOW))) == [at]
        assert backlog.problem == "No space left on device"
    assert list(map(number, backlog.take(1, NOW))) == [there]
    assert backlog.problem == ""
    full_disk.undo()
    backlog.close()


def test_a_disk_that_was_full_a_moment_ago_takes_the_last_lines(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    backlog = Backlog(QUEUE, str(tmp_path), SPOOL)
    backlog.put([line(1), line(2)])
    backlog.park()
    assert backlog.counts()["spooled"] == 0
    full_disk.undo()
    backlog.close()
    assert backlog.counts()["dropped"] == 0
    backlog = Backlog(QUEUE, str(tmp_path), SPOOL)
    assert take_all(backlog) == [1, 2]
    backlog.close()


def test_it_can_be_made_smaller_and_larger(tmp_path: Path) -> None:
    backlog = Backlog(QUEUE, str(tmp_path), 0)
    count = QUEUE * 3 // 4 // (100 + OVERHEAD)
    backlog.put([line(at) for at in range(1, count + 1)])
    backlog.resize(100, 0)
    backlog.put([line(count + 1)])
    backlog.prepare(SPOOL)
    backlog.resize(100, SPOOL)
    backlog.put([line(count + 2)])
    assert take_all(backlog) == [*range(1, count + 1), count + 2]
    assert backlog.counts()["dropped"] == 1
    backlog.close()
