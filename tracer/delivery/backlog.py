# SPDX-License-Identifier: Apache-2.0
"""What waits for one sink: lines in memory and, ahead of them, lines on disk.

::

    put -> memory -> take -> confirm
             |        ^
             v        |
            spool ----+      when memory is full, or the sink is away

The spool never holds a line that is newer than one in memory, so the order is kept whatever
becomes of this process. Lines that were taken and are not confirmed are the oldest; they move to
the spool with the rest.
"""

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from threading import Condition
from typing import Final

from .outlet import Line
from .spool import Spool

Numbered = tuple[int, Line]
"""A line, and its number in the stream of all."""

OVERHEAD: Final = 300
"""Bytes that a line takes in memory beside its text, about."""

_RESERVE: Final = 8
"""This part of all room is for lines that matter, so that a flood of others finds it full first."""
_SERIOUS: Final = 4
"""The highest severity (syslog's, the lower the worse) of those: alerts and losses are below."""


class Backlog:
    """First in, first out, in bounds; for any threads.

    :param queue: bytes in memory.
    :param spool_limit: bytes in the spool; 0 for none.
    :param dropped: lines that another one dropped in its place.
    :raises OSError: there can be no such spool.
    """

    def __init__(self, queue: int, path: str, spool_limit: int, dropped: int = 0) -> None:
        self._changed = Condition()
        self._spool = Spool(path, spool_limit)
        self._room = queue
        self._limit = queue + spool_limit
        self._taken: deque[Numbered] = deque()  # from memory, not confirmed
        self._waiting: deque[Numbered] = deque()
        self._bytes = 0  # of both
        self._delivered, self._dropped = 0, dropped
        self._away = self._closed = self._awake = False
        self._full = False  # nearly, since any line was confirmed or came again

    # --- in ------------------------------------------------------------------------------

    def put(self, lines: Iterable[Numbered]) -> None:
        """What finds no room is counted as dropped: the newest, and sooner what matters less."""
        with self._changed:
            for line in lines:
                if self._closed or not self._find_room(line[1]):
                    self._dropped += 1
                    self._full = True
                    continue
                self._waiting.append(line)
                self._bytes += _cost(line)
                if self._bytes > self._room // 2 and not self._spool.has_room(line[1]):
                    self._full = True
            if self._away or not self._spool.empty:
                self._spill()
            self._changed.notify_all()

    def _find_room(self, line: Line) -> bool:
        size = len(line.text) + OVERHEAD
        part = _RESERVE if line.severity <= _SERIOUS else _RESERVE - 1
        if self._spool.bytes_used + self._bytes + size > self._limit * part // _RESERVE:
            return False
        room = self._room * part // _RESERVE
        if self._bytes + size > room:
            self._spill()
        # One that is longer than the queue may be the only one there, if it may go to the spool.
        return self._bytes + size <= room or not self._bytes

    def _spill(self) -> None:
        # The oldest first, and what was taken with them: to us it is as unsafe as the rest.
        for queue in (self._taken, self._waiting):
            if queue and not self._spool.has_room(queue[0][1]):
                return
            lines = [line for _, line in queue]
            moved = self._spool.append(lines, taken=queue is self._taken)
            for _ in range(moved):
                self._bytes -= _cost(queue.popleft())
            if queue:
                return

    # --- out -----------------------------------------------------------------------------

    def take(self, max_bytes: int, timeout_s: float) -> list[Line]:
        """The next lines, about so many bytes of them; waits for one, or for :meth:`wake`.

        :raises OSError: those on disk cannot be read now. They go on waiting.
        """
        with self._changed:
            lines = self._next(max_bytes)
            if not lines and not self._awake and not self._closed:
                self._changed.wait(timeout_s)
                lines = self._next(max_bytes)
            self._awake = False
            return lines

    def _next(self, max_bytes: int) -> list[Line]:
        if self._closed:
            return []
        if lines := self._spool.take(max_bytes):
            return lines
        self._away = False
        while self._waiting and max_bytes > 0:
            entry = self._waiting.popleft()
            self._taken.append(entry)
            lines.append(entry[1])
            max_bytes -= len(entry[1].text)
        if not self._waiting:
            self._spool.problem = ""  # it is not needed any more
        return lines

    def wake(self) -> None:
        """Ends the waiting of :meth:`take`, also that which is about to begin."""
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def confirm(self, count: int, refused: int = 0) -> None:
        """The oldest lines that were taken are done with.

        :param refused: of them, those that the sink cannot carry: they count as dropped.
        """
        with self._changed:
            if self._closed:
                return
            on_disk = min(count, self._spool.taken)
            self._spool.confirm(on_disk)
            for _ in range(count - on_disk):
                self._bytes -= _cost(self._taken.popleft())
            self._delivered += count - refused
            self._dropped += refused
            self._full = self._full and not count

    def again(self) -> None:
        """What was taken and is not confirmed will be taken again."""
        with self._changed:
            self._again()

    def _again(self) -> None:
        self._spool.again()
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()
        self._full = False

    def park(self) -> None:
        """Moves to disk what it can, and what comes, until all has been taken from there."""
        with self._changed:
            self._away = True
            self._spill()

    # --- between -------------------------------------------------------------------------

    def prepare(self, spool_limit: int) -> None:
        """Makes the spool that :meth:`resize` will want.

        :raises OSError: it cannot be made.
        """
        with self._changed:
            self._spool.prepare(spool_limit)

    def resize(self, queue: int, spool_limit: int) -> None:
        """What is there stays, also if it is more than that."""
        with self._changed:
            self._room = queue
            self._limit = queue + spool_limit
            self._spool.limit = spool_limit

    def close(self) -> None:
        """All goes to disk, for the next one with this path; what finds no room is dropped."""
        with self._changed:
            if self._closed:
                return
            self._again()
            self._spool.hurry()
            self._spill()
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._closed = True
            self._changed.notify_all()
            self._spool.close()

    def sync(self) -> None:
        """Has the disk keep what is in the spool, without holding up anybody."""
        with self._changed:
            descriptors = [] if self._closed else self._spool.unsynced()
        for fd in descriptors:
            with suppress(OSError):  # the kernel will try again
                os.fdatasync(fd)
            os.close(fd)

    # --- how it is -----------------------------------------------------------------------

    def first_unsafe(self) -> int | None:
        """The number of the oldest line that is in memory alone; of none, None."""
        with self._changed:
            for queue in (self._taken, self._waiting):
                if queue:
                    return queue[0][0]
            return None

    @property
    def problem(self) -> str:
        """Why lines could not go to disk, or empty."""
        return self._spool.problem

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def stuck(self) -> bool:
        """Room is short, and lines that were taken and are not confirmed have it all."""
        with self._changed:
            return self._full and not self._waiting and bool(self._taken or self._spool.taken)

    def counts(self) -> dict[str, int]:
        """``delivered``, ``dropped``, ``queued`` and ``spooled``, as PROGRESS has them."""
        with self._changed:
            return {
                "delivered": self._delivered,
                "dropped": self._dropped + self._spool.damaged,
                "queued": self._bytes,
                "spooled": self._spool.bytes_waiting,
            }


def _cost(line: Numbered) -> int:
    return len(line[1].text) + OVERHEAD
