# SPDX-License-Identifier: Apache-2.0
"""The same call, understood."""

from enum import Enum
from typing import NamedTuple

from .call import Call
from .memory import Memory
from .object import Described
from .program import Program
from .value import Items


class Absence(Enum):
    """Why an event has no attr fields; the value is the note in its document."""

    NULL = "attr_null"
    """The caller passed a NULL pointer."""
    EMPTY = "attr_empty"
    """The caller passed size 0."""
    OVERSIZE = "attr_oversize"
    """Larger than a page of 4096 bytes: more than is captured, and than most kernels take."""
    UNREADABLE = "attr_unreadable"
    """None of it could be read, neither at entry nor at exit; or not all, and the kernel could
    not either.
    """
    UNKNOWN_COMMAND = "command_unknown"
    """We do not know what this command's attr looks like."""


ATTR_READ_AT_EXIT = "attr_read_at_exit"
"""Note: attr was not in memory at entry; what is shown was read when the call returned."""

ATTR_PARTLY_READ = "attr_partly_read"
"""Note: memory ended within attr, or was missing; only fields before that are shown."""

OUTPUT_UNREADABLE = "attr_output_unreadable"
"""Note: attr could not be read at exit; fields that the kernel writes show what was passed."""


ENTRY_UNSEEN = "entry_unseen"
"""Note: the call was seen only when it returned; its time is of then."""

EXIT_UNSEEN = "exit_unseen"
"""Note: the call was seen when it began, but not when it returned: how it ended is unknown, and
so is what it wrote. It is over, for its thread has made another one or is gone.
"""

TOCTOU_SUSPECT = "toctou_suspect"
"""Note: memory of the caller changed during the call. The fields in ``differs`` are not, or
perhaps not, what the kernel acted on, unless it is its own copy that is shown.
"""

INNER_CALLS_UNSEEN = "inner_calls_unseen"
"""Note: the program that was run may call bpf(2) inside the kernel, and the probe is blind to
that.
"""

UNPROVEN = "attr_unproven"
"""Note: the probe reads the kernel's own copy of attr, but missed that of this call; what is
shown was read from the caller's memory.
"""

PARTS_MISSING = "parts_missing"
"""Note: the record of the call had no room for something that belongs to it."""


def action_of(command: str) -> str:
    """A command as ECS has it in ``event.action``: ``map_create``.

    :param command: ``BPF_MAP_CREATE``, or empty if nobody can name it.
    """
    return command.removeprefix("BPF_").lower() or "unknown"


class Trailing(NamedTuple):
    """Bytes behind the last field that we know, of which at least one is not zero."""

    offset: int
    data: bytes


class Behind(NamedTuple):
    """A descriptor in attr and the BPF object behind it."""

    field: str
    described: Described


class Event(NamedTuple):
    """A call with its command's name and the fields of its attr. Made by ``decode``."""

    call: Call
    command: str
    """``BPF_MAP_CREATE``, or empty if nobody can name it."""
    attr: Items | None
    """In C order; None for the reason in ``absence``."""
    absence: Absence | None
    wrapper: str = ""
    """The member of ``union bpf_attr`` that holds this command's fields, if it has a name."""
    after: Items = ()
    """Fields that the kernel changed and that are shown behind the struct."""
    trailing: Trailing | None = None
    behind: tuple[Behind, ...] = ()
    """The BPF objects behind descriptors in attr."""
    result: Described | None = None
    """The BPF object behind the returned descriptor."""
    memory: tuple[tuple[str, Memory], ...] = ()
    """What pointers lead to, by the name of the field."""
    notes: tuple[str, ...] = ()
    """What a reader should know about how far to trust this event."""
    differs: tuple[str, ...] = ()
    """Fields of which the kernel has something else than was passed, or may have."""
    simple: bool = False
    """It succeeded, and there is nothing to be said beside what its fields, the objects and the
    memory say. Its attr comes without these two: they are in ``behind`` and ``memory`` alone.
    """
    program: Program | None = None
    """Of a load: what its instructions show."""
    reason: str = ""
    """Why a call failed, in a few words; empty if it did not, or if nobody knows."""

    @property
    def action(self) -> str:
        """``event.action``"""
        return action_of(self.command)

    @property
    def remarks(self) -> tuple[str, ...]:
        """``bpf.notes``: why there is no attr, and the notes."""
        return (self.absence.value, *self.notes) if self.absence else self.notes

    @property
    def failed(self) -> bool:
        return self.call.retval < 0
