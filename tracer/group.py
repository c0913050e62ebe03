# SPDX-License-Identifier: Apache-2.0
"""Calls that have something in common and will be told as one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..decoders import tally
from ..events.call import Call, Object, ObjectKind
from ..events.folded import INVENTORY, Folded, Reason, Who
from ..events.object import Described
from ..events.process import Process

ERRNOS_MAX: Final = 16
"""Different errors that a group counts apart."""
MANY: Final = -1
"""In the place of the id of a map."""

_KINDS: Final = {kind.value: kind.name.lower() for kind in ObjectKind}
_MAP: Final = int(ObjectKind.MAP)


class Key(NamedTuple):
    """What the calls of a group have in common."""

    process: Process | None
    """None: they are of many."""
    command: str
    """``INVENTORY``; empty if nobody can name it."""
    failed: bool | None
    """Whether they failed, of those beyond the rate; None: they are none of these."""
    map_id: int
    """0: none; ``MANY``"""
    rights: tuple[int, int]
    """Real and effective user."""
    notes: tuple[str, ...]

    def without_map(self) -> "Key":
        """For those of a process that are about too many maps."""
        return self._replace(map_id=MANY if self.map_id else 0)

    def without_process(self) -> "Key":
        """For those of too many processes."""
        return self.without_map()._replace(process=None, rights=(0, 0))


@dataclass(slots=True)
class Room:
    """For objects that are kept to count each once: as many as all groups may have more."""

    left: int


class Group:
    """What is known of them all, in little room.

    :param until_ns: when they are to be told, ``CLOCK_BOOTTIME``.
    :param room: what it takes of that it gives back.
    """

    __slots__ = (
        "_bytes", "_calls", "_end_ns", "_errors", "_failed", "_key", "_map", "_met", "_met_cut",
        "_room", "_start_ns", "_unended", "_who", "until_ns",
    )  # fmt: skip

    def __init__(self, key: Key, until_ns: int, room: Room) -> None:
        self.until_ns = until_ns
        self._room = room
        self._key = key
        self._who: Who | None = None
        self._map: Object | None = None
        self._start_ns = self._end_ns = 0
        self._calls = self._unended = self._failed = 0
        self._errors: dict[int, int] = {}
        self._bytes: int | None = None
        self._met: set[tally.Met] = set()
        self._met_cut = False

    @property
    def is_empty(self) -> bool:
        return not self._calls

    def add(self, call: Call, clock_offset_ns: int) -> None:
        """One more of them.

        :param clock_offset_ns: wall-clock time minus boot time."""
        start_ns = call.start_ns + clock_offset_ns
        end_ns = call.returned_ns + clock_offset_ns
        if not self._calls:
            self._begin(call, clock_offset_ns)
            self._start_ns, self._end_ns = start_ns, end_ns
        self._calls += 1
        self._start_ns = min(self._start_ns, start_ns)
        self._end_ns = max(self._end_ns, end_ns)
        if call.retval < 0:
            self._fail(-call.retval)
        elif not call.returned:
            self._unended += 1
        if self._key.command == INVENTORY:
            self._meet(tally.met(call))
        elif (moved := tally.moved(call)) is not None:
            self._bytes = moved + (self._bytes or 0)

    def folded(self, describe: Callable[[Object], Described]) -> Folded:
        """All of them, as they are told. It is of no use after that.

        :param describe: gives a map the names of what it is.
        """
        key = self._key
        self._room.left += len(self._met)
        inventory = key.command == INVENTORY
        return Folded(
            Reason.AGGREGATE if key.failed is None else Reason.RATE_LIMIT,
            "" if inventory else key.command, self._who,
            describe(self._map) if self._map else None, key.map_id == MANY, key.notes,
            self._start_ns, self._end_ns, self._calls, self._unended, self._failed,
            self._errors, self._bytes, self._counted() if inventory else None, self._met_cut,
        )  # fmt: skip

    def _begin(self, call: Call, clock_offset_ns: int) -> None:
        if self._key.process:
            # What it was about may be large, and is not told.
            lean = call._replace(
                entry=b"", exit=b"", objects={}, memory={}, objects_after={}, kernel=None,
                maps=None, aside={},
            )  # fmt: skip
            self._who = Who(lean, self._key.process, clock_offset_ns)
        if self._key.map_id > 0:
            self._map = map_of(call)

    def _fail(self, error: int) -> None:
        self._failed += 1
        if error in self._errors or len(self._errors) < ERRNOS_MAX:
            self._errors[error] = self._errors.get(error, 0) + 1

    def _meet(self, met: tally.Met | None) -> None:
        if met is None or met in self._met:
            return
        if self._room.left:
            self._room.left -= 1
            self._met.add(met)
        else:
            self._met_cut = True

    def _counted(self) -> dict[str, int]:
        kinds = [kind for kind, _ in self._met]
        return {name: kinds.count(kind) for kind, name in _KINDS.items() if kind in kinds}


def map_of(call: Call) -> Object | None:
    """The map that a call is about."""
    for found in call.objects.values():
        if found.kind == _MAP:
            return found
    return None
