# SPDX-License-Identifier: Apache-2.0
"""What is looked at while calls come in: whether all of them do."""

import os
from collections.abc import Iterable
from typing import Final

from ..events.call import Call, Totals
from ..events.errors import BpfsnoopError
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
        self._beat_ns: int | None = since_ns
        self._silent: set[str] = set()
        self._witness_lost = 0
        self._told_ns = 0
        self._told = 0, 0, 0, 0

    @property
    def pause_s(self) -> float:
        """Look again after so long, though nothing happens."""
        return (GRACE_NS if self._lives.waiting else _BEAT_NS) / _SECOND

    def after(self, calls: Iterable[Call], until_ns: int, now_ns: int) -> list[Notice]:
        """What is to be told after these calls.

        :param until_ns: all calls that returned up to this ``CLOCK_BOOTTIME`` have come.
        :param now_ns: that time now.
        """
        notices = self._by_witness(calls, until_ns, now_ns)
        if self._beat_ns is not None and now_ns - self._beat_ns > _BEAT_NS:
            self._beat_ns = now_ns
            notices += self._beat(now_ns)
        return notices

    def stop(self, at_ns: int) -> None:
        """Calls that begin from here on are not seen, and our programs are silent."""
        self._lives.stop(at_ns)
        self._beat_ns = None

    def end(self, now_ns: int) -> list[Notice]:
        """The same when no call will come any more."""
        return self._lives.end() + self._losses_of_witness(now_ns)

    def losses(self, now_ns: int, time_ns: int) -> Totals | None:
        """What was seen and lost, once a second if more was lost since it was told.

        :param now_ns: ``CLOCK_BOOTTIME``.
        :param time_ns: now, ns since the epoch.
        """
        if now_ns - self._told_ns < _LOSSES_NS:
            return None
        self._told_ns = now_ns
        totals = self._program.totals(time_ns)
        lost = totals.lost, totals.incomplete, totals.missed_runs, totals.unfollowed
        if lost == self._told:
            return None
        self._told = lost
        return totals

    def _by_witness(self, calls: Iterable[Call], until_ns: int, now_ns: int) -> list[Notice]:
        if not self._witness:
            return []
        try:
            lives = self._witness.drain()
        except BpfsnoopError as error:
            return self._without_witness(error, now_ns)
        return self._lives.feed(lives, calls, until_ns)

    def _without_witness(self, error: BpfsnoopError, now_ns: int) -> list[Notice]:
        # What it was worth is over; calls still come.
        self._witness = None
        return [*self._lives.end(), Notice(Reason.WITNESS_GONE, now_ns, probe=str(error))]

    def _beat(self, now_ns: int) -> list[Notice]:
        notices = self._losses_of_witness(now_ns)
        if self._witness:
            try:
                self._witness.follow(online_cpus())
            except BpfsnoopError as error:
                notices += self._without_witness(error, now_ns)
        silent = set(self._program.silent())
        new = sorted(silent - self._silent)
        self._silent = silent
        return notices + [Notice(Reason.PROBE_SILENT, now_ns, probe=name) for name in new]

    def _losses_of_witness(self, now_ns: int) -> list[Notice]:
        lost = self._witness.lost if self._witness else self._witness_lost
        if lost == self._witness_lost:
            return []
        new, self._witness_lost = lost - self._witness_lost, lost
        return [Notice(Reason.WITNESS_LOST, now_ns, probe=f"{new} records")]
