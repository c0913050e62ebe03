# SPDX-License-Identifier: Apache-2.0
"""One bpf(2) call as the kernel saw it: raw, no opinion."""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import NamedTuple

COMMON_ATTRS = 1 << 16
"""The bit of ``cmd`` that says arguments 4 and 5 are there (``enum bpf_cmd``)."""

RESULT = -1
"""Stands for the returned descriptor where others are named by their offset in attr."""


class ObjectKind(IntEnum):
    """``enum object_kind``"""

    MAP = 1
    PROG = 2
    LINK = 3
    BTF = 4


class Object(NamedTuple):
    """A BPF object behind a descriptor (``struct object``)."""

    kind: int
    """:class:`ObjectKind`"""
    id: int
    type: int
    """``enum bpf_map_type``, ``bpf_prog_type`` or ``bpf_link_type``; 0 for BTF."""
    key_size: int
    value_size: int
    max_entries: int
    prog_id: int
    """Of a link; 0: it has none."""
    name: bytes
    tag: bytes
    """Of a program: 8 bytes."""


class ProgramMaps(NamedTuple):
    """The maps that a program which was loaded refers to, as the verifier found them."""

    ids: tuple[int, ...]
    """In the order in which the verifier came upon them."""
    total: int
    """As many as there are."""


class PartState(IntFlag):
    """``PART_...`` of events/wire.h: why data is not simply all there."""

    CUT = 1 << 0
    UNREADABLE = 1 << 1
    CHUNKED = 1 << 2
    """They came in chunks; that one was lost shows in what is missing."""
    AT_EXIT = 1 << 3
    TAIL = 1 << 4
    KERNEL = 1 << 5
    """The kernel's own copy."""


class CallFlag(IntFlag):
    """``CALL_...`` of events/wire.h."""

    NO_ROOM = 1 << 0
    DATA_LOST = 1 << 1
    NO_ENTRY = 1 << 2
    KERNEL = 1 << 3
    COMPAT = 1 << 4
    SAME_ATTR = 1 << 5
    NO_EXIT = 1 << 6


# The enum's own & takes ten times as long.
_KERNEL, _COMPAT, _NO_EXIT = map(int, (CallFlag.KERNEL, CallFlag.COMPAT, CallFlag.NO_EXIT))
_UNTIMED = _NO_EXIT | int(CallFlag.NO_ENTRY)


class Blob(NamedTuple):
    """Memory of the caller: what could be read of what there is."""

    data: bytes
    """A prefix; with ``TAIL`` a suffix."""
    wanted: int
    """Bytes that there are as far as the caller says; of an array of strings, elements."""
    state: int
    """:class:`PartState`"""
    read: int
    """Bytes that were read: all of ``data``, unless some were lost on the way."""

    @property
    def lost(self) -> bool:
        return len(self.data) < self.read


class Call(NamedTuple):
    """A bpf(2) call that is over. Made by :func:`events.wire.parse`.

    The fields from ``start_ns`` to ``comm`` stand in the order of ``struct call_record``
    (events/wire.h), which says what each of them is.
    """

    flags: int
    """:class:`CallFlag`"""
    start_ns: int
    """``CLOCK_BOOTTIME`` at entry, ns."""
    duration_ns: int
    """Without ``entry_ns``; until it was given up if its end was not seen."""
    retval: int
    """``>= 0``, or ``-errno``; 0 if :attr:`returned` is not."""
    attr_addr: int
    common_addr: int
    cgroup_id: int
    process_start_ns: int
    """``CLOCK_BOOTTIME``, ns; 0 if not known, as all down to ``user_namespace``."""
    exec_id: int
    capabilities: int
    """Effective ones, as bits."""
    common_size: int
    cmd: int
    """``__u32``, with ``COMMON_ATTRS`` if the caller set it."""
    size: int
    tgid: int
    tid: int
    uid: int
    gid: int
    euid: int
    login_uid: int
    pid_namespace: int
    """0 also if it could not be read."""
    mount_namespace: int
    user_namespace: int
    """That of its credentials, in which ``capabilities`` hold; 0 also if it could not be read."""
    entry_ns: int
    """What the tracer itself took at entry."""
    comm: bytes
    """As the task had it at entry, without the NUL."""
    entry: bytes
    """The part of attr that could be read at entry: at most ``size`` bytes."""
    exit: bytes
    """The same at exit."""
    objects: Mapping[int, Object]
    """By offset of the descriptor in attr, or :data:`RESULT`."""
    memory: Mapping[int, Blob]
    """By offset of the pointer in attr."""
    objects_after: Mapping[int, Object]
    """As ``objects`` without the result, when the call returned; only of those that changed
    something.
    """
    kernel: bytes | None
    """The kernel's own copy of attr: what it acted on. None if there was none to be had."""
    maps: ProgramMaps | None = None
    """Of the program that was loaded; None: it was none, or they could not be read."""
    aside: Mapping[int, Blob] = MappingProxyType({})
    """As ``memory``, but a second look: at another moment, or at another length."""

    @property
    def via(self) -> str:
        """By which way it came: ``syscall``, ``compat`` or ``kernel``."""
        flags = self.flags
        if not flags:
            return "syscall"
        if flags & _KERNEL:
            return "kernel"
        return "compat" if flags & _COMPAT else "syscall"

    @property
    def who(self) -> tuple[object, ...]:
        """All that the call says of its thread: the same in its other calls."""
        return (self[_WHO_FROM:_WHO_TO], self[_RIGHTS_FROM:_RIGHTS_TO], self.comm)

    @property
    def returned(self) -> bool:
        """Whether its end was seen, and so the result is known."""
        return not self.flags & _NO_EXIT

    @property
    def timed(self) -> bool:
        """Whether both its ends were seen."""
        return not self.flags & _UNTIMED

    @property
    def returned_ns(self) -> int:
        """``CLOCK_BOOTTIME`` at exit, ns."""
        return self.start_ns + self.entry_ns + self.duration_ns

    @property
    def command(self) -> int:
        """The command number without ``COMMON_ATTRS``."""
        return self.cmd & ~COMMON_ATTRS

    @property
    def has_common_attrs(self) -> bool:
        return bool(self.cmd & COMMON_ATTRS)

    @property
    def has_task(self) -> bool:
        """Whether ``process_start_ns`` to ``user_namespace`` are known."""
        return self.process_start_ns != 0


_WHO_FROM, _WHO_TO = (Call._fields.index(name) for name in ("cgroup_id", "common_size"))
_RIGHTS_FROM, _RIGHTS_TO = (Call._fields.index(name) for name in ("tgid", "entry_ns"))


class Chunk(NamedTuple):
    """Data that came ahead of its call (``struct chunk_record``)."""

    tid: int
    start_ns: int
    part: int
    """``enum part_kind``"""
    slot: int
    """As in :attr:`Call.memory`."""
    offset: int
    data: bytes


class Image(NamedTuple):
    """What a process runs, told ahead of its first call (``struct process_record``)."""

    tgid: int
    start_ns: int
    """``CLOCK_BOOTTIME``, ns."""
    exec_id: int
    """Counts the process's execve(2)."""
    parent_start_ns: int
    exe_ino: int
    """The number of the inode of its file."""
    parent_tgid: int
    flags: int
    """``PROCESS_...`` of events/wire.h."""
    exe_uid: int
    """The owner of the file, in the initial user namespace."""
    exe_mode: int
    """``st_mode`` of the file, its kind included; 0: nothing is known but its path."""
    exe_dev: int
    """The device of its file system, as the kernel encodes it: 20 bits of minor number."""
    exe_mount_namespace: int
    """The namespace of the mount that it was executed from; 0: none, as of a mount that was
    never put into one, or taken away since."""
    parent_comm: bytes
    exe: bytes
    """The path of the executable, in its mount namespace; ``memfd:NAME`` if it has none."""
    args: bytes
    """The start of the arguments, NUL behind each."""


class CommandCount(NamedTuple):
    """What became of the calls of one command (``struct call_count``).

    seen == arrived + lost + unfinished
    """

    seen: int
    lost: int
    incomplete: int = 0
    """Of those that arrived: some data of them was lost."""


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
    def incomplete(self) -> int:
        return sum(count.incomplete for count in self.counts.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing as far as anybody knows."""
        missing = self.lost, self.incomplete, self.unfinished, self.missed_runs, self.unfollowed
        return not any(missing)
