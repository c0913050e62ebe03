# SPDX-License-Identifier: Apache-2.0
"""How many calls a process makes in a second."""

from typing import Final

from ..events.call import Call
from .recent import Recent

BURST_S: Final = 5
"""Seconds of its rate that a process may use up at once."""
KEPT: Final = 4096
"""Processes; one that is forgotten begins with a burst."""

_SECOND: Final = 1_000_000_000


class Rate:
    """Lets so many calls of each process through, by the time at which they returned.

    :param most: a second.
    """

    def __init__(self, most: int) -> None:
        self._each_ns = _SECOND // most
        self._burst_ns = BURST_S * _SECOND
        # Of each process, when all it made would have been made at its rate (the "theoretical
        # arrival time" of ITU-T I.371): one number does for a bucket of tokens.
        self._until: Recent[tuple[int, int], int] = Recent(KEPT)

    def allows(self, call: Call) -> bool:
        """Whether the call is within the rate of its process; then it counts."""
        process, now_ns = (call.tgid, call.process_start_ns), call.returned_ns
        until_ns = max(self._until.get(process) or 0, now_ns) + self._each_ns
        if until_ns - now_ns > self._burst_ns:
            return False
        self._until[process] = until_ns
        return True
