# SPDX-License-Identifier: Apache-2.0
"""The rings of the kernel program, read as one stream in the order in which calls returned."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from ..events.wire import RECORD_CALL, RING_BULK, record_kind, returned_ns
from .ring import Ring

_LIMIT: Final = 1 << 18  # bytes of one ring at a time
_NEVER: Final = 1 << 64


class Drained(NamedTuple):
    records: list[bytes]
    """Whatever belongs to a call comes before it."""
    held: bool
    """More is there, and waits for its turn."""
    until_ns: int
    """All calls that returned up to here have come."""


class _Stream:
    """One ring of calls."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._last_ns = 0
        self.calls: deque[tuple[int, bytes]] = deque()
        """That wait, with the time at which they returned."""

    def drain(self, ahead: list[bytes]) -> int:
        """Takes more if none wait.

        :param ahead: gets what is no call.
        :returns: the time up to which all that returned has come by now.
        """
        if self.calls:
            return self._last_ns
        records, whole = self._ring.drain(_LIMIT)
        for record in records:
            if record_kind(record) == RECORD_CALL:
                # Those of several CPUs may stand a little out of order.
                now_ns = returned_ns(record)
                self._last_ns = max(self._last_ns, now_ns)
                self.calls.append((now_ns, record))
            else:
                ahead.append(record)
        return _NEVER if whole else self._last_ns

    def take(self, horizon_ns: int) -> list[tuple[int, bytes]]:
        """Those that returned no later."""
        due = []
        while self.calls and self.calls[0][0] <= horizon_ns:
            due.append(self.calls.popleft())
        return due


class Rings:
    """Merges them, so that a thread's calls stay in their order whatever ring they are in.

    A call is held back while an earlier one may still be in another ring: at most for as
    long as it takes to read what was there when it came.

    :param rings: by ``RING_...``; closed by :meth:`close`.
    :param now_ns: the clock of the records, ``CLOCK_BOOTTIME``.
    :param taken: called with the bytes of bulk that were taken out.
    """

    def __init__(
        self, rings: Mapping[int, Ring], now_ns: Callable[[], int], taken: Callable[[int], None]
    ) -> None:
        self._rings = rings
        self._bulk = rings[RING_BULK]
        self._streams = [_Stream(ring) for number, ring in rings.items() if number != RING_BULK]
        self._now_ns = now_ns
        self._until_ns = 0
        self._taken = taken

    def drain(self) -> Drained:
        """What is there, about a quarter of a megabyte of each ring."""
        horizon_ns = self._now_ns()
        ahead: list[bytes] = []
        for stream in self._streams:
            horizon_ns = min(horizon_ns, stream.drain(ahead))
        # After the calls: of these, all of it has been sent by now.
        bulk, whole = self._bulk.drain(_NEVER)
        if bulk:
            self._taken(sum(map(len, bulk)))
        if whole:
            self._until_ns = max(self._until_ns, horizon_ns)
        due = [stream.take(self._until_ns) for stream in self._streams]
        held = any(stream.calls for stream in self._streams)
        return Drained([*bulk, *ahead, *_merged(due)], held, self._until_ns)

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()


def _merged(due: Sequence[list[tuple[int, bytes]]]) -> list[bytes]:
    several = [calls for calls in due if calls]
    if len(several) > 1:
        everything = sorted((call for calls in several for call in calls), key=_time)
        return [record for _, record in everything]
    return [record for calls in several for _, record in calls]


def _time(call: tuple[int, bytes]) -> int:
    return call[0]
