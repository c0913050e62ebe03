# SPDX-License-Identifier: Apache-2.0
"""How often a sink is tried again."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from bpfsnoop.tracer.delivery import worker as module
from bpfsnoop.tracer.delivery.backlog import Backlog
from bpfsnoop.tracer.delivery.outlet import Line
from bpfsnoop.tracer.delivery.worker import Worker

HOUR_S = 3600.0


class Time:
    """Passes when somebody waits, and then at once."""

    def __init__(self, over_s: float) -> None:
        self.now_s = 0.0
        self.over_s = over_s
        self.end: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, timeout_s: float) -> bool:
        self.now_s += timeout_s
        if self.now_s > self.over_s:
            self.end()
        return False

    def set(self) -> None: ...

    def clear(self) -> None: ...


class Failing:
    """A destination that is there from some time on, and ends each connection with the first lines.

    :param takes: of the lines that it is sent, how many it confirms before.
    """

    refused = 0
    problem = ""

    def __init__(self, time: Time, *, there_s: float, takes: int) -> None:
        self.time = time
        self.there_s = there_s
        self.takes = takes
        self.tried: list[float] = []

    def open(self) -> None:
        self.tried.append(self.time.now_s)
        if self.time.now_s < self.there_s:
            raise ConnectionRefusedError(0, "nobody there")

    def send(self, lines: Sequence[Line]) -> int:
        if self.takes and self.tried[-1] == self.time.now_s:
            self.time.now_s += 0.01
            return self.takes
        raise ConnectionResetError(0, "gone again")

    def settle(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None: ...


def tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there_s: float, takes: int = 0,
    over_s: float = HOUR_S,
) -> list[float]:  # fmt: skip
    """At which times."""
    time = Time(over_s)
    monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(module, "BATCH", 1)  # a line
    monkeypatch.setattr(module, "Event", lambda: time)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    backlog = Backlog(1 << 20, str(tmp_path), 1 << 20)
    backlog.put([(at, Line(b"x\n", 6, at)) for at in range(500)])
    outlet = Failing(time, there_s=there_s, takes=takes)
    worker = Worker("it", outlet, backlog)
    time.end = lambda: worker.finish(time.now_s)
    worker.start()
    worker.join(60)
    assert not worker.alive
    backlog.close()
    return [at for at in outlet.tried if at < over_s]


def gaps(times: Sequence[float]) -> list[float]:
    return [round(after - before, 1) for before, after in pairwise(times)]


def test_one_that_is_away_is_tried_twice_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = tries(tmp_path, monkeypatch, there_s=2 * HOUR_S)
    assert gaps(times)[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert set(gaps(times)[7:]) == {30}


def test_one_that_is_back_is_tried_often_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = tries(tmp_path, monkeypatch, there_s=HOUR_S / 2)
    back = next(at for at in times if at >= HOUR_S / 2)
    soon = [at for at in times if back <= at < back + 60]
    assert set(gaps(soon)) == {2}
    late = [at for at in times if at > back + 120]
    assert set(gaps(late)) == {30}


def test_one_that_takes_some_lines_each_time_is_tried_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = tries(tmp_path, monkeypatch, there_s=0, takes=1, over_s=60)
    assert set(gaps(times)) == {0.5}
