# SPDX-License-Identifier: Apache-2.0
"""What is looked at while calls come in: whether all of them do."""

import os
from collections.abc import Iterable
from typing import Final

from ..events.call import Call, Totals
from ..events.notice import Notice, Reason
from .lives import GRACE_NS, Lives
from .program import Program
from .witness import Witness, online_cpus

_BEAT_NS: Final = 5_000_000_000
_LOSSES_NS: Final = 1_000_000_000
_SECOND: Final = 1_000_000_000


class Checks:
    """Holds what was seen against the kernel's word, and our programs to their work.

    :param witness: closed by whoever opened it; None: nobody bears witness.
    :param since_ns: ``CLOCK_BOOTTIME`` from which calls are seen.
    """

    def __init__(self, program: Program, witness: Witness | None, since_ns: int) -> None:
        self._program = program
        self._witness = witness
        self._lives = Lives(since_ns, os.getpid())
        self._beat_ns = since_ns
        self._silent: set[str] = set()
        self._told_ns = 0
        self._told = 0

    @property
    def pause_s(self) -> float:
        """Look again after so long, though nothing happens."""
        return (GRACE_NS if self._lives.waiting else _BEAT_NS) / _SECOND

    def after(self, calls: Iterable[Call], now_ns: int) -> list[Notice]:
        """What is to be told after these calls.

        :param now_ns: ``CLOCK_BOOTTIME``.
        """
        notices = []
        if self._witness:
            notices += self._lives.feed(self._witness.drain(), calls, now_ns)
        if now_ns - self._beat_ns > _BEAT_NS:
            self._beat_ns = now_ns
            notices += self._beat(now_ns)
        return notices

    def end(self) -> list[Notice]:
        """The same when no call will come any more."""
        return self._lives.end()

    def losses(self, time_ns: int) -> Totals | None:
        """What was seen and lost, once a second if more was lost since it was told.

        :param time_ns: now, ns since the epoch.
        """
        if time_ns - self._told_ns < _LOSSES_NS:
            return None
        self._told_ns = time_ns
        totals = self._program.totals(time_ns)
        lost = totals.lost + totals.incomplete
        if lost == self._told:
            return None
        self._told = lost
        return totals

    def _beat(self, now_ns: int) -> list[Notice]:
        if self._witness:
            self._witness.follow(online_cpus())
        silent = set(self._program.silent())
        new = sorted(silent - self._silent)
        self._silent = silent
        return [Notice(Reason.PROBE_SILENT, now_ns, probe=name) for name in new]
