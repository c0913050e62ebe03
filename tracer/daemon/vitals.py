# SPDX-License-Identifier: Apache-2.0
"""How the daemon is doing, in numbers: for its heartbeat, for metrics and for systemd."""

import os
import time
from typing import Any, Final

from ...events.call import Totals
from ...events.ecs import Document
from ...events.value import printable
from ..judge import Judge
from ..loader import RING_NAMES
from ..program import Program
from ..version import VERSION
from .courier import Courier
from .dispatch import Dispatch

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SECOND_NS: Final = 1_000_000_000


class Vitals:
    """Asked for now and then; nothing is counted twice for them."""

    def __init__(
        self, program: Program, judge: Judge, dispatch: Dispatch, courier: Courier
    ) -> None:
        self._program = program
        self._judge = judge
        self._dispatch = dispatch
        self._courier = courier
        self._since_ns = time.time_ns()
        self._began_ns = time.monotonic_ns()

    def totals(self) -> Totals:
        """What was seen and lost so far."""
        return self._program.totals(time.time_ns())

    def sentence(self) -> str:
        """For whoever looks at ``systemctl status``."""
        events, alerts = self._dispatch.events.total(), self._dispatch.alerts.total()
        down = [name for name, about in self._courier.progress.items() if not about["up"]]
        away = f"; away: {', '.join(down)}" if down else ""
        return f"{events} events, {alerts} alerts by {len(self._judge.telling)} rules{away}"

    def about(self) -> Document:
        """``bpf.daemon`` of documents: how long it has run, what it saw, and how its sinks are."""
        totals = self.totals()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uptime": (time.monotonic_ns() - self._began_ns) // _SECOND_NS,
            "rules": len(self._judge.telling),
            "seen": totals.seen,
            "lost": totals.lost,
            "events": self._dispatch.events.total(),
            "folded": self._dispatch.folded_calls,
            "alerts": self._dispatch.alerts.total(),
            "memory": resident_bytes(),
            "sinks": [
                {
                    "name": name,
                    **about,
                    "problem": printable(about["problem"].encode("utf-8", "replace")),
                }
                for name, about in self._courier.progress.items()
            ],
        }

    def status(self) -> dict[str, Any]:
        """The STATUS frame of delivery/frames.py."""
        totals = self.totals()
        fills = self._program.rings.fills()
        return {
            "since_ns": self._since_ns,
            "time_ns": time.time_ns(),
            "ready": not self._program.silent(),
            "events": dict(self._dispatch.events),
            "folded": self._dispatch.folded_calls,
            # All of them: increase() does not see the first of a series that was not there.
            "alerts": {name: self._dispatch.alerts[name] for name in self._judge.telling},
            "rules": len(self._judge.telling),
            "rule_seconds": self._judge.spent_ns / _SECOND_NS,
            "drops": {
                "kernel": totals.lost,
                "incomplete": totals.incomplete,
                "missed_runs": totals.missed_runs,
                "delivery": self._courier.lost,
            },
            "rings": {RING_NAMES[number].removesuffix("_ring"): round(fill, 4)
                      for number, fill in fills.items()},
            "rss": resident_bytes(),
        }  # fmt: skip


def resident_bytes() -> int:
    """Of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE
