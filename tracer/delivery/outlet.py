# SPDX-License-Identifier: Apache-2.0
"""What every destination can do, whatever it is."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Line(NamedTuple):
    """A document on its way."""

    text: bytes
    """JSON with its newline."""
    severity: int
    """syslog's, 0 to 7."""
    time_ns: int
    """When it happened, ns since the epoch."""


class Outlet(Protocol):
    """A destination, used by one thread.

    ``send`` and ``settle`` say how many lines are confirmed by now, always the oldest of those
    that were sent and not confirmed: they have arrived, or are as good as that. After an
    ``OSError`` (of any method) the outlet is closed, opened again after a while, and sent all
    that was not confirmed once more, in the same order.

    Its class is called with the ``options`` of a sink, and may raise ``BpfsnoopError`` or
    ``OSError`` where these can never do: a file that cannot be written to, a package that is
    missing. A network that is away is none of that, and :meth:`open` is what finds out.
    """

    @property
    def refused(self) -> int:
        """Of the lines that were confirmed, those that it can never carry, such as one that is
        longer than a message may be. They are counted as dropped."""

    @property
    def problem(self) -> str:
        """What is wrong though it is open: why lines do not get through, or why one was refused
        last; or empty."""

    def open(self) -> None:
        """Makes it ready, within some seconds."""

    def send(self, lines: Sequence[Line]) -> int:
        """Takes all of them, within some seconds; once a second also none, to see how it is."""

    def settle(self, timeout_s: float) -> int:
        """Waits until all that was sent is confirmed, but no longer than that."""

    def close(self) -> None:
        """Never raises. What was not confirmed may or may not have arrived."""
