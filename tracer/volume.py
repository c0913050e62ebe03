# SPDX-License-Identifier: Apache-2.0
"""How much is told: which calls are told by themselves, and which with others as one.

Folded are calls on the contents of maps, for each process, command and map; those that look at
what there is, for each process; and what a process makes of other calls beyond its rate. The
first call on a map is told by itself: it is the news, and has a key and a value to show. The
others are told when the interval is over, with how many there were. Who goes on is told of once
an interval, and not by a first call again.

Intervals are by the clock of the calls, so a replay folds as the live run did.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from ..decoders.table import COMMANDS
from ..decoders.tally import WALKS
from ..events.call import Call, Object
from ..events.event import Event
from ..events.folded import INVENTORY, Folded
from ..events.object import Described
from ..events.process import Process
from .config import Config
from .group import Group, Key, Room, map_of
from .rate import Rate
from .selection import DATA, NO_COMMANDS, CommandSet, command_set
from .source import Seen

GROUPS_MAX: Final = 2048
"""Groups with a map of their own. Beyond, the maps of a process are told as one; beyond twice
as many, so are the processes."""
OF_PROCESS_MAX: Final = 256
"""The same of one process, so that it leaves room for others."""
PROCESSES_MAX: Final = 512
"""Processes that have groups of their own."""
MET_MAX: Final = 65_536
"""Objects that all groups keep, to count each once."""
GRACE_NS: Final = 1_000_000_000
"""So long after an interval it is waited for calls that are still on their way."""

_RATE_INTERVAL_NS: Final = 10_000_000_000
_NEVER: Final = 1 << 64


class Folding(NamedTuple):
    """What is to be folded."""

    interval_ns: int
    """Within which calls on contents of maps, and walks, are told as one; 0: never."""
    rate: int
    """Other calls a second of a process that are told by themselves; 0: all."""
    full: CommandSet = NO_COMMANDS
    """Commands whose calls are told by themselves in any case."""

    @property
    def wanted(self) -> bool:
        """Whether anything is."""
        return bool(self.interval_ns or self.rate)

    @classmethod
    def of(cls, options: Config, newer: Callable[[], Mapping[int, str]]) -> "Folding":
        """What the options say.

        :param newer: see :func:`command_set`.
        :raises UsageError: with every name of a command that nobody knows.
        """
        full = command_set(options.full, newer, "--full") if options.full else NO_COMMANDS
        return cls(options.aggregate, options.rate_limit, full)


NOTHING: Final = Folding(0, 0)


class Volume:
    """Groups of calls that are open.

    :param describe: gives a map the names of what it is.
    """

    def __init__(self, folding: Folding, describe: Callable[[Object], Described]) -> None:
        wanted = [number for number in COMMANDS if number not in folding.full]
        massed = wanted if folding.interval_ns else ()
        self._walks = WALKS.intersection(massed)
        self._massed = (WALKS | DATA).intersection(massed)
        self._full = folding.full
        self._rate = Rate(folding.rate) if folding.rate else None
        self._interval_ns = folding.interval_ns or _RATE_INTERVAL_NS
        self._describe = describe
        self._groups: OrderedDict[Key, Group] = OrderedDict()
        """The one that ends next comes first: all intervals are as long."""
        self._of_process: Counter[Process] = Counter()
        self._room = Room(MET_MAX)
        self._now_ns = 0
        self._next_ns = _NEVER

    def masses(self, call: Call) -> bool:
        """Whether the call is of those that come by the million, and are not told one by one."""
        return call.command in self._massed

    def group(self, seen: Seen, event: Event | None) -> Group | None:
        """Where a call belongs; None: it is to be told by itself. To be asked once a call.

        :param event: None if the decoder says that it is plain; for those of ``masses`` only.
        """
        number = seen.call.command
        if number in self._walks:
            return self._placed(_key(seen, event, INVENTORY))[0]
        if number in self._massed:
            found = map_of(seen.call)
            key = _key(seen, event, COMMANDS[number].name, found.id if found else 0)
            group, is_first = self._placed(key)
            return None if is_first else group
        if self._rate is None or event is None or number in self._full or number in DATA:
            return None
        if _changed(seen.call) or self._rate.allows(seen.call):
            return None
        return self._placed(_key(seen, event, event.command, failed=event.failed))[0]

    def due(self, now_ns: int) -> Iterable[Folded]:
        """What has been open for an interval.

        :param now_ns: by the clock of the calls, ``CLOCK_BOOTTIME``.
        """
        self._now_ns = max(self._now_ns, now_ns)
        return self._ended() if self._next_ns <= self._now_ns else ()

    def rest(self) -> Iterable[Folded]:
        """What is still open, at the end."""
        groups = [group for group in self._groups.values() if not group.is_empty]
        self._groups.clear()
        self._of_process.clear()
        self._next_ns = _NEVER
        return [group.folded(self._describe) for group in groups]

    def _ended(self) -> list[Folded]:
        told = []
        while self._next_ns <= self._now_ns:
            key, group = self._groups.popitem(last=False)
            if group.is_empty:
                self._forget(key)
            else:
                # It goes on, if another call comes before the next interval is over.
                self._groups[key] = Group(key, group.until_ns + self._interval_ns, self._room)
                told.append(group.folded(self._describe))
            self._next_ns = next((each.until_ns for each in self._groups.values()), _NEVER)
        return told

    def _placed(self, key: Key) -> tuple[Group, bool]:
        # The group, and whether it is new and the call's own.
        known = self._groups.get(key)
        if known:
            return known, False
        if self._has_room(key.process, 1):
            return self._opened(key), True
        key = key.without_map()
        if key not in self._groups and not self._has_room(key.process, 2):
            key = key.without_process()
        return self._groups.get(key) or self._opened(key), False

    def _has_room(self, process: Process | None, times: int) -> bool:
        of_process = self._of_process.get(process, 0) if process else 0
        return (
            len(self._groups) < times * GROUPS_MAX
            and of_process < times * OF_PROCESS_MAX
            and (of_process > 0 or len(self._of_process) < PROCESSES_MAX)
        )

    def _opened(self, key: Key) -> Group:
        group = self._groups[key] = Group(key, self._now_ns + self._interval_ns, self._room)
        self._next_ns = min(self._next_ns, group.until_ns)
        if key.process:
            self._of_process[key.process] += 1
        return group

    def _forget(self, key: Key) -> None:
        if key.process:
            self._of_process[key.process] -= 1
            if not self._of_process[key.process]:
                del self._of_process[key.process]


def _key(
    seen: Seen, event: Event | None, command: str, map_id: int = 0, *, failed: bool | None = None
) -> Key:
    call, process = seen
    notes = event.remarks if event else ()
    return Key(process, command, failed, map_id, (call.uid, call.euid), notes)


def _changed(call: Call) -> bool:
    # What runs in the kernel is other than before, or may be for all that anybody knows. Such a
    # call must not be hidden among others.
    command = COMMANDS.get(call.command)
    return call.retval >= 0 and (command is None or command.vital)
