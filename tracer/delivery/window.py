# SPDX-License-Identifier: Apache-2.0
"""Which lines may not have arrived, on a connection whose other end says nothing.

That the other kernel has bytes does not mean that anybody read them: who kills a receiver loses
what waits there for it. So a line counts as arrived once the other kernel has so much that was
sent after it that the line cannot still be waiting, and as long as it does not look as if nobody
read there at all: then much more may wait (net.ipv4.tcp_rmem, 32 MB since Linux 6.17).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_MOST: Final = 1 << 26
"""Bytes: more than any receiver's kernel has waiting, whatever it looks like."""


class _Sent(NamedTuple):
    lines: int
    size: int
    time_s: float


class Window:
    """:param limit: bytes that may wait at the other end."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._sent: deque[_Sent] = deque()
        self._size = 0

    def add(self, lines: int, size: int) -> None:
        """These were sent, all at once."""
        self._sent.append(_Sent(lines, size, self._clock()))
        self._size += size

    def arrived(self, on_the_way: int, unread: int) -> int:
        """How many lines have, that had not when it was asked last.

        :param on_the_way: bytes that the other kernel does not have yet.
        :param unread: bytes that wait there, by an estimate that may be too low by as much again.
        """
        needed = on_the_way + (self._limit if unread <= self._limit // 2 else _MOST)
        return self._take(lambda sent: self._size - sent.size >= needed)

    def older_than(self, age_s: float) -> int:
        """Lines that were sent so long ago: they have arrived, somebody else says."""
        limit = self._clock() - age_s
        return self._take(lambda sent: sent.time_s <= limit)

    def all(self) -> int:
        """Every line: they have arrived, somebody else says."""
        return self._take(lambda sent: True)

    def _take(self, arrived: Callable[[_Sent], bool]) -> int:
        lines = 0
        while self._sent and arrived(self._sent[0]):
            sent = self._sent.popleft()
            lines += sent.lines
            self._size -= sent.size
        return lines
