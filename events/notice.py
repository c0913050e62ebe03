# SPDX-License-Identifier: Apache-2.0
"""What is to be told that is no call: programs that go, and signs that we are being fooled."""

from enum import Enum
from typing import NamedTuple

from .call import Object
from .object import Described
from .value import printable


class Reason(Enum):
    """What happened; the value is what documents call it."""

    PROG_UNLOADED = "prog_unloaded"
    """A program is gone: nothing refers to it any more."""
    LOAD_UNSEEN = "load_unseen"
    """The kernel says that a program was loaded, and no call was seen to do it."""
    OWN_OPENED = "own_object_opened"
    """Somebody got a descriptor of a map, program or link of this tracer."""
    OWN_READ = "own_object_read"
    """Somebody used one, and changed nothing."""
    OWN_CHANGED = "own_object_changed"
    """Somebody wrote to one, froze, pinned or detached it, or tried to."""
    WITNESS_LOST = "witness_lost"
    """Some of the kernel's word on programs found no room: loads may be among it."""
    WITNESS_GONE = "witness_gone"
    """The kernel's word on programs is not to be had any more."""
    PROBE_SILENT = "probe_silent"
    """The kernel does not run a program of this tracer any more."""


class Notice(NamedTuple):
    reason: Reason
    time_ns: int
    """``CLOCK_BOOTTIME``."""
    prog: Object | None = None
    """The program that came or went: id and tag; name and type if its load was seen."""
    pid: int = 0
    """Of the process that loaded it; 0 if that is not known."""
    tid: int = 0
    during: str = ""
    """The command within which it was loaded, if that is known: ``BPF_PROG_TEST_RUN``."""
    touched: Described | None = None
    """The object of ours."""
    probe: str = ""
    """The program of ours that is not run; of the witness, how much was lost or why it is gone."""

    @property
    def action(self) -> str:
        """``event.action``"""
        return "prog_unload" if self.reason is Reason.PROG_UNLOADED else "integrity"

    def __str__(self) -> str:
        """For people, without what they see in the line above."""
        if self.reason is Reason.PROG_UNLOADED:
            return f"{_program(self.prog)} unloaded"
        if self.reason is Reason.LOAD_UNSEEN:
            within = f" within its {self.during}" if self.during else ""
            return f"{_program(self.prog)} loaded by process {self.pid}{within}, unseen"
        if self.reason is Reason.PROBE_SILENT:
            return f"the kernel does not run {self.probe} any more: calls go unseen"
        if self.reason is Reason.WITNESS_LOST:
            return f"{self.probe} of the kernel on programs were lost: a load may be among them"
        if self.reason is Reason.WITNESS_GONE:
            return f"the kernel's own records on programs cannot be read any more: {self.probe}"
        verb = self.reason.value.rpartition("_")[2]
        return f"an object of this tracer was {verb}: {self.touched}"


def _program(prog: Object | None) -> str:
    if prog is None:
        return "a program"
    name = f' "{printable(prog.name)}"' if prog.name else ""
    return f"program {prog.id}{name}, tag {prog.tag.hex()},"
