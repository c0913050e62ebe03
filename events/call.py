# SPDX-License-Identifier: Apache-2.0
"""One bpf(2) call as the kernel saw it: raw, no opinion."""

from collections.abc import Mapping
from typing import NamedTuple

COMMON_ATTRS = 1 << 16
"""The bit of ``cmd`` that says arguments 4 and 5 are there (``enum bpf_cmd``)."""


class Call(NamedTuple):
    """A bpf(2) call that returned. Made by :func:`events.wire.parse`.

    The fields stand in the order of ``struct call_record`` (events/wire.h), which
    says what each of them is.
    """

    cpu: int
    start_ns: int
    """``CLOCK_BOOTTIME`` at entry, ns."""
    duration_ns: int
    retval: int
    """``>= 0``, or ``-errno``."""
    cgroup_id: int
    attr_addr: int
    common_addr: int
    common_size: int
    cmd: int
    """``__u32``, with ``COMMON_ATTRS`` if the caller set it."""
    size: int
    tgid: int
    tid: int
    uid: int
    gid: int
    comm: bytes
    """As the task had it at exit, without the NUL."""
    entry: bytes
    """The part of attr that could be read at entry: at most ``size`` bytes."""
    exit: bytes
    """The same at exit."""

    @property
    def command(self) -> int:
        """The command number without ``COMMON_ATTRS``."""
        return self.cmd & ~COMMON_ATTRS

    @property
    def has_common_attrs(self) -> bool:
        return bool(self.cmd & COMMON_ATTRS)


class CommandCount(NamedTuple):
    """What became of the calls of one command (``struct call_count``).

    seen == arrived + lost + unfinished
    """

    seen: int
    lost: int


class Totals(NamedTuple):
    """What a run saw, and what of it did not arrive."""

    counts: Mapping[int, CommandCount]
    """By counter slot: the command's number, or ``COMMAND_OTHER`` of events/wire.h."""
    unfinished: int
    """Calls that had begun and neither arrived nor were lost when it was over."""
    missed_runs: int
    """Times that the kernel passed a probe without running it, each perhaps a lost call."""
    unfollowed: int
    """Children of traced processes that were to be followed but found no room."""
    time_ns: int
    """When this was counted, ns since the epoch."""

    @property
    def seen(self) -> int:
        return sum(count.seen for count in self.counts.values())

    @property
    def lost(self) -> int:
        return sum(count.lost for count in self.counts.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing as far as anybody knows."""
        return not (self.lost or self.unfinished or self.missed_runs or self.unfollowed)
