# SPDX-License-Identifier: Apache-2.0
"""Who made a call: what the kernel told of the process, with what else could be found out."""

from collections.abc import Callable
from typing import Final, NamedTuple

from ..events.call import Call, Image
from ..events.process import Missing, Process, Surroundings
from .recent import Recent

KEPT: Final = 2048
"""Processes; one that has been forgotten is put together again."""
KEPT_BYTES: Final = 8 << 20
"""What they take, about."""


class Key(NamedTuple):
    """What tells one process from all others, and its program from what it ran before."""

    pid: int
    start_ns: int
    exec_id: int
    cgroup_id: int


class Callers:
    """The processes of a stream of calls, each of them once.

    :param look: what to find out besides, or None for nothing.
    """

    def __init__(self, look: Callable[[Key], Surroundings | None]) -> None:
        self._look = look
        self._known: Recent[Key, Process] = Recent(KEPT, KEPT_BYTES, _size)

    def of(self, call: Call, image: Image | None) -> Process:
        """:param image: as the kernel told it; None if it did not."""
        same = call.tgid, call.process_start_ns, call.exec_id, call.cgroup_id
        known = self._known.get(same)  # type: ignore[arg-type] # equal to a Key, and cheaper
        nothing_new = known is not None and (
            image is known.image or image is None or image == known.image
        )
        if known is not None and nothing_new and call.process_start_ns:
            return known
        key = Key(*same)
        found = self._look(key)
        # Without a start, another process may have the same key.
        if known is not None and nothing_new and found == known.surroundings:
            return known
        untold = Missing.NOT_TOLD if call.has_task else Missing.NO_BTF
        known = Process(key.pid, key.start_ns, image, found, untold)
        self._known[key] = known
        return known


def _size(process: Process) -> int:
    return process.surroundings.size if process.surroundings else 0
