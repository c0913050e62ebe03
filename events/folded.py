# SPDX-License-Identifier: Apache-2.0
"""Many calls that are told as one."""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from . import ecs
from .call import Call
from .ecs import Document, Origin
from .event import action_of
from .object import Described
from .process import Process
from .text import errno_name

INVENTORY: Final = "inventory"
"""``event.action`` of what is of many commands: somebody looks at what there is."""
_COUNT_MAX: Final = (1 << 63) - 1
_SHOWN_ERRORS: Final = 3
_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000


class Reason(Enum):
    """Why they are told as one; the value is what documents call it."""

    AGGREGATE = "aggregate"
    """They work on the contents of maps or walk over objects."""
    RATE_LIMIT = "rate_limit"
    """Their process made more calls than are told one by one."""


class Who(NamedTuple):
    """Who made them."""

    call: Call
    """The first of them, without what it was about."""
    process: Process
    clock_offset_ns: int
    """Wall-clock time minus boot time then."""


class Folded(NamedTuple):
    """Calls of one process, command and map, besides those that are told by themselves."""

    reason: Reason
    command: str
    """``BPF_MAP_LOOKUP_ELEM``; empty if nobody can name it, or of an inventory."""
    who: Who | None
    """None: they are of many processes."""
    map: Described | None
    """The map that they are about."""
    many_maps: bool
    """They are about many."""
    notes: tuple[str, ...]
    """``bpf.notes`` of each of them."""
    start_ns: int
    """When the first began, ns since the epoch."""
    end_ns: int
    """When the last returned, ns since the epoch."""
    calls: int
    unended: int
    """Of these: nobody saw how they ended."""
    failed: int
    errors: Mapping[int, int]
    """Calls by errno; of those that failed in many ways not all."""
    bytes: int | None
    """Of keys and values, see :func:`decoders.tally.moved`; None: not known, or there are none."""
    met: Mapping[str, int] | None = None
    """Of an inventory: how many objects of each kind were met."""
    met_cut: bool = False
    """There may have been more."""

    @property
    def action(self) -> str:
        """``event.action``"""
        return INVENTORY if self.met is not None else action_of(self.command)

    @property
    def outcome(self) -> str:
        """``event.outcome``: unknown if some failed and some did not."""
        if self.failed == self.calls:
            return "failure"
        return "unknown" if self.failed or self.unended else "success"

    def __str__(self) -> str:
        """For people: ``bpf(BPF_MAP_LOOKUP_ELEM) of map:12 hash "conns" x 512 in 9.9s, 3 ENOENT,
        8192 bytes``
        """
        several = f" in {_span(self.end_ns - self.start_ns)}" if self.calls > 1 else ""
        parts = [f"{self._what()} x {self.calls}{several}"]
        parts += [_counted(number, kind) for kind, number in (self.met or {}).items()]
        if self.met_cut:
            parts.append("perhaps more")
        known = sorted(self.errors.items(), key=lambda each: -each[1])[:_SHOWN_ERRORS]
        parts += [f"{number} {_errno(error)}" for error, number in known]
        if others := self.failed - sum(number for _, number in known):
            parts.append(f"{others} other errors")
        if self.bytes is not None:
            parts.append(f"{self.bytes} bytes")
        if self.reason is Reason.RATE_LIMIT:
            parts.append("over the rate limit")
        return ", ".join([*parts, *self.notes])

    def _what(self) -> str:
        if self.met is not None:
            return INVENTORY
        about = " of many maps" if self.many_maps else f" of {self.map}" if self.map else ""
        return f"bpf({self.command or '/* BPF_??? */'}){about}"


def folded_document(
    folded: Folded, origin: Origin, *, sequence: int, message: str = ""
) -> Document:
    """:param sequence: number of the document in its stream.
    :param message: the line for people, if it shall be in the document.
    """
    document: Document = {
        "@timestamp": ecs.timestamp(folded.end_ns),
        "ecs": {"version": ecs.ECS_VERSION},
        "event": {
            "kind": "event",
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.folded",
            "action": folded.action,
            **(ecs.INFO if folded.met is not None else ecs.kinds(folded.command)),
            "outcome": folded.outcome,
            "start": ecs.timestamp(folded.start_ns),
            "end": ecs.timestamp(folded.end_ns),
            "sequence": sequence,
        },
        "host": ecs.host_document(origin),
    }
    bpf: Document = {"probe": origin.probe}
    if folded.command:
        bpf["cmd"] = folded.command
    if folded.who:
        call, process, offset_ns = folded.who
        about = ecs.shared(call, process, origin, offset_ns)
        document |= about.caller
        bpf["process"] = about.process
    if folded.map:
        bpf["map"] = folded.map.document()
    if folded.notes:
        bpf["notes"] = list(folded.notes)
    bpf["folded"] = _counts(folded)
    if folded.met is not None:
        bpf["inventory"] = {**folded.met, **({"cut": True} if folded.met_cut else {})}
    document["bpf"] = bpf
    if message:
        document["message"] = message
    return document


def _counts(folded: Folded) -> Document:
    counts: Document = {
        "reason": folded.reason.value,
        "calls": folded.calls,
        "failed": folded.failed,
    }
    if folded.errors:
        counts["errors"] = [
            {"errno": _errno(error), "calls": number} for error, number in folded.errors.items()
        ]
    if folded.bytes is not None:  # a caller may have said that its batch is as large as it likes
        counts["bytes"] = min(folded.bytes, _COUNT_MAX)
    if folded.many_maps:
        counts["many_maps"] = True
    if folded.who is None:
        counts["many_processes"] = True
    return counts


def _span(ns: int) -> str:
    # A clock that was set in between may make it less than nothing.
    return f"{ns / _SECOND:.1f}s" if ns >= _SECOND else f"{max(0, ns) / _MILLISECOND:.1f}ms"


def _errno(number: int) -> str:
    return errno_name(number) or str(number)


def _counted(number: int, kind: str) -> str:
    return f"{number} {kind}{'s' * (number != 1 and kind != 'btf')}"
