# SPDX-License-Identifier: Apache-2.0
"""The rings of the kernel program, read as one stream in the order in which calls returned."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ..events.wire import RECORD_CALL, RING_BULK, record_kind, returned_ns
from .ring import Ring

_AT_A_TIME: Final = 256  # records, so that the rings are looked after every few milliseconds


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
        self.last_ns = 0
        """When the last of those that were read returned."""
        self.calls: deque[tuple[int, bytes]] = deque()
        """That wait, with the time at which they returned."""
        self.size = 0
        """Of those, bytes."""

    def drain(self, ahead: list[bytes]) -> bool:
        """Takes what is there.

        :param ahead: gets what is no call.
        :returns: whether that is all; else there may be more that returned after the last.
        """
        records, whole = self._ring.drain()
        for record in records:
            if record_kind(record) == RECORD_CALL:
                # Those of several CPUs may stand a little out of order.
                now_ns = returned_ns(record)
                self.last_ns = max(self.last_ns, now_ns)
                self.calls.append((now_ns, record))
                self.size += len(record)
            else:
                ahead.append(record)
        return whole

    def take(self, horizon_ns: int) -> list[tuple[int, bytes]]:
        """Those that returned no later."""
        due = []
        while self.calls and self.calls[0][0] <= horizon_ns:
            due.append(self.calls.popleft())
            self.size -= len(due[-1][1])
        return due


class Rings:
    """Merges them, so that a thread's calls stay in their order whatever ring they are in.

    A call is held back while an earlier one may still be in another ring: at most for as
    long as it takes to read what was there when it came. Taking records out of the rings
    is much quicker than making events of them, so what comes in a burst waits here: the
    rings need only be as large as what comes between two looks.

    :param rings: by ``RING_...``; closed by :meth:`close`.
    :param now_ns: the clock of the records, ``CLOCK_BOOTTIME``.
    :param taken: called with the bytes of bulk that were taken out.
    :param backlog: bytes that may wait here, besides what is in the rings at one time.
    """

    def __init__(
        self,
        rings: Mapping[int, Ring],
        now_ns: Callable[[], int],
        taken: Callable[[int], None],
        backlog: int,
    ) -> None:
        self._rings = rings
        self._bulk = rings[RING_BULK]
        self._streams = [_Stream(ring) for number, ring in rings.items() if number != RING_BULK]
        self._now_ns = now_ns
        self._taken = taken
        self._backlog = backlog
        self._ready: deque[bytes] = deque()
        self._ready_size = 0
        self._ready_until_ns = 0
        self._until_ns = 0

    def drain(self) -> Drained:
        """A few of those that are there, oldest first."""
        self._read()
        records = [self._ready.popleft() for _ in range(min(_AT_A_TIME, len(self._ready)))]
        self._ready_size -= sum(map(len, records))
        if not self._ready:
            self._until_ns = self._ready_until_ns
        elif calls := [record for record in records if record_kind(record) == RECORD_CALL]:
            # Others may have returned at the same time as the last of these.
            self._until_ns = max(self._until_ns, returned_ns(calls[-1]) - 1)
        held = bool(self._ready) or any(stream.calls for stream in self._streams)
        return Drained(records, held, self._until_ns)

    def _read(self) -> None:
        waiting = self._ready_size + sum(stream.size for stream in self._streams)
        if self._ready and waiting >= self._backlog:
            return
        horizon_ns = self._now_ns()
        ahead: list[bytes] = []
        for stream in self._streams:
            # A record that is long in being written may hold back all that is behind it.
            full = stream.calls and waiting >= self._backlog
            if full or not stream.drain(ahead):
                horizon_ns = min(horizon_ns, stream.last_ns)
        # After the calls: of these, all of it has been sent by now.
        bulk, whole = self._bulk.drain()
        if bulk:
            self._taken(sum(map(len, bulk)))
        if whole:
            self._ready_until_ns = max(self._ready_until_ns, horizon_ns)
        due = [call for stream in self._streams for call in stream.take(self._ready_until_ns)]
        due.sort(key=_time)
        ready = [*bulk, *ahead, *(record for _, record in due)]
        self._ready.extend(ready)
        self._ready_size += sum(map(len, ready))

    def fills(self) -> dict[int, float]:
        """See :meth:`.ring.Ring.fill`, by ``RING_...``."""
        return {number: ring.fill() for number, ring in self._rings.items()}

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()


def _time(call: tuple[int, bytes]) -> int:
    return call[0]
