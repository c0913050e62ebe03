# SPDX-License-Identifier: Apache-2.0
"""Which documents are for which sinks."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

from ...decoders.table import COMMANDS
from ...events import service

_COMMANDS: Final[Mapping[str, bool]] = {
    command.name.removeprefix("BPF_").lower(): command.data for command in COMMANDS.values()
} | {"unknown": False, "inventory": True, "prog_unload": False}
"""Whether it is about data. What nobody knows is not: it must not be left out with the masses."""
_OWN: Final = ("integrity", "loss", *service.KINDS)
ACTIONS: Final = (*_COMMANDS, *_OWN)
"""``event.action`` of all documents but alerts."""
SETS: Final = ("@control", "@data", "@daemon")
"""The last one is what bpfsnoop says of itself."""

_KEPT: Final = 1024
_BITS: Final = 64  # of a frame


class Filter(NamedTuple):
    """What a sink wants; None: all of it."""

    actions: tuple[str, ...] | None
    """Of events that are no alerts: names, with ``*`` and ``?``, or one of :data:`SETS`; what
    follows ``!`` is left out. All but that, if nothing else is there.
    """
    levels: tuple[str, ...] | None
    """Of alerts."""
    rules: tuple[str, ...] | None
    """Of alerts: names, with ``*`` and ``?``."""

    def takes_action(self, action: str) -> bool:
        if self.actions is None:
            return True
        wanted = [pattern for pattern in self.actions if not pattern.startswith("!")]
        unwanted = [pattern[1:] for pattern in self.actions if pattern.startswith("!")]
        if any(_fits(action, pattern) for pattern in unwanted):
            return False
        if not wanted:
            return bool(unwanted)
        return any(_fits(action, pattern) for pattern in wanted)

    def takes_alert(self, level: str, rule: str) -> bool:
        return (self.levels is None or level in self.levels) and (
            self.rules is None or any(fnmatchcase(rule, pattern) for pattern in self.rules)
        )

    def idle_patterns(self, rules: Collection[str]) -> list[str]:
        """Those of :attr:`rules` that none of these names fits."""
        return [
            pattern for pattern in self.rules or ()
            if not any(fnmatchcase(rule, pattern) for rule in rules)
        ]  # fmt: skip


def _fits(action: str, pattern: str) -> bool:
    if pattern == "@daemon":
        return action in _OWN
    if pattern in SETS:
        data = _COMMANDS.get(action, False)  # a newer kernel's is not in our tables
        return action not in _OWN and data == (pattern == "@data")
    return fnmatchcase(action, pattern)


def bits_for(names: Sequence[str], before: Mapping[str, int]) -> Mapping[str, int]:
    """Which bit stands for which sink.

    :param before: what it was. A name keeps its bit, and no other one gets that of a sink which
        has just gone: lines for it may be on their way.
    """
    free = iter(sorted(set(range(_BITS)) - set(before.values())))
    return {name: before[name] if name in before else next(free) for name in names}


class Routes:
    """For each document the sinks that want it, as a set of bits.

    :param filters: with the bit of each sink.
    """

    def __init__(self, filters: Iterable[tuple[int, Filter]]) -> None:
        self._filters = tuple(filters)
        self.of_action = lru_cache(_KEPT)(self._of_action)
        self.of_alert = lru_cache(_KEPT)(self._of_alert)

    def _of_action(self, action: str) -> int:
        return sum(1 << bit for bit, each in self._filters if each.takes_action(action))

    def _of_alert(self, level: str, rule: str) -> int:
        return sum(1 << bit for bit, each in self._filters if each.takes_alert(level, rule))
