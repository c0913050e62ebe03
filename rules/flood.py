# SPDX-License-Identifier: Apache-2.0
"""The same alert again and again: told once, and then how often it came."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from .alert import Alert, lean, together
from .document import getter
from .rule import Rule

PROCESSES_MAX: Final = 20
"""Alerts of one rule, each of another process, that are told within the interval."""
_ANY: Final = "any"  # in the place of a process, for the others

_entity: Final = getter("process.entity_id")
_pid: Final = getter("process.pid")
_start: Final = getter("process.start")


@dataclass
class _Told:
    """What one rule found in one process, since an alert was told."""

    rule: Rule
    held: Alert | None = None
    """Those after it, as one."""

    def hold(self, alert: Alert) -> None:
        if self.held is None:
            self.held = lean(alert)._replace(since=str(alert.document["@timestamp"]))
        else:
            self.held = together(self.held, alert)


class Flood:
    """Lets the first alert of a rule and process through, and holds back those that follow.

    What was held back is told as one alert when the interval is over. A rule that finds
    something in ever more processes has the same done to it as a whole, so nobody can hide
    one alert among thousands, or fill the memory with what is held back.

    :param interval_ns: 0: everything is let through.
    """

    def __init__(self, interval_ns: int) -> None:
        self.interval_ns = interval_ns
        self._told: dict[Hashable, _Told] = {}
        self._ends: list[tuple[int, int, Hashable]] = []
        """Of the interval of each, as a heap: the time, a number of its own, the key."""
        self._number = count()
        self._processes: dict[int, int] = {}

    def take(self, alert: Alert) -> Sequence[Alert]:
        """What is to be told now: this one or not, and before it what has waited long enough."""
        if not self.interval_ns:
            return [alert]
        due = list(self.due(alert.time_ns))
        rule = id(alert.rule)
        key = rule, _process(alert)
        if key not in self._told and self._processes.get(rule, 0) >= PROCESSES_MAX:
            key = rule, _ANY
        told = self._told.get(key)
        if told is None:
            told = self._told[key] = _Told(alert.rule)
            self._wait(key, alert.time_ns)
            self._processes[rule] = self._processes.get(rule, 0) + 1
            if key[1] != _ANY:
                return [*due, alert]
        told.hold(alert if key[1] != _ANY else alert._replace(many_processes=True))
        return due

    def due(self, now_ns: int) -> Iterator[Alert]:
        """What has waited long enough.

        :param now_ns: by the clock of ``Alert.time_ns``.
        """
        while self._ends and self._ends[0][0] <= now_ns:
            end_ns, _, key = heappop(self._ends)
            told = self._told[key]
            if told.held is None:
                del self._told[key]
                self._forget(id(told.rule))
            else:
                # It goes on: the next ones wait again, if they come before the next interval
                # is over, whenever somebody asks.
                self._wait(key, end_ns)
                held, told.held = told.held, None
                yield held

    def rest(self) -> Iterator[Alert]:
        """What still waits, at the end."""
        for told in self._told.values():
            if told.held is not None:
                yield told.held
        self._told.clear()
        self._ends.clear()
        self._processes.clear()

    def _wait(self, key: Hashable, since_ns: int) -> None:
        heappush(self._ends, (since_ns + self.interval_ns, next(self._number), key))

    def _forget(self, rule: int) -> None:
        self._processes[rule] -= 1
        if not self._processes[rule]:
            del self._processes[rule]


def _process(alert: Alert) -> Any:
    document = alert.document
    return _entity(document) or (_pid(document), _start(document))
