# SPDX-License-Identifier: Apache-2.0
"""Correlations: what several events come to.

Time is that of the events, so a replay has the results of the live run. Whoever makes
events chooses by how many groups they are told apart, so all that is kept has bounds, and
what goes because of them is counted.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ..events.ecs import Document
from .document import getter, text, values
from .rule import SECOND, Correlation

GROUPS_MAX: Final = 10_000
"""Of each correlation."""
EVENTS_MAX: Final = 50_000
"""Of each correlation, in all of its groups together."""
_STEP_MAX: Final = 16  # events kept of each rule whose order counts
_TEXT_MAX: Final = 256
_ITEMS_MAX: Final = 64


class Seen(NamedTuple):
    """An event that a rule matched; they sort as they happened."""

    time_ns: int
    sequences: tuple[int, ...]
    """``event.sequence``; several if the rule is a correlation itself."""


class Group(Protocol):
    """What is kept of the events that belong together."""

    size: int
    """Events kept."""

    def add(self, seen: Seen, step: int, counted: Sequence[Hashable]) -> Sequence[Seen]:
        """The events that together are what the correlation is about; mostly none.

        :param step: number of the rule, among those of the correlation.
        :param counted: values of the fields whose values are counted.
        """


class _EventCount:
    """So many events within the time span."""

    def __init__(self, about: Correlation) -> None:
        self._span, self._least = about.timespan_s * SECOND, about.at_least
        self._events: list[Seen] = []
        self.size = 0

    def add(self, seen: Seen, step: int, counted: Sequence[Hashable]) -> Sequence[Seen]:
        events = self._events
        insort(events, seen)
        if len(events) == self._least:
            if events[-1].time_ns - events[0].time_ns <= self._span:
                return events
            del events[0]
        self.size = len(events)
        return ()


class _ValueCount:
    """So many different values; of each, its last event is kept."""

    def __init__(self, about: Correlation) -> None:
        self._span, self._least = about.timespan_s * SECOND, about.at_least
        self._last: OrderedDict[Hashable, Seen] = OrderedDict()
        self._newest = 0
        self.size = 0

    def add(self, seen: Seen, step: int, counted: Sequence[Hashable]) -> Sequence[Seen]:
        last = self._last
        for value in counted:
            if value not in last or last[value] < seen:
                last[value] = seen
                last.move_to_end(value)
        self._newest = max(self._newest, seen.time_ns)
        while last and self._over(next(iter(last.values()))):
            last.popitem(last=False)
        if len(last) >= self._least:  # those that came late are not in their place
            for value in [value for value, one in last.items() if self._over(one)]:
                del last[value]
        self.size = len(last)
        return sorted(set(last.values())) if len(last) >= self._least else ()

    def _over(self, seen: Seen) -> bool:
        return self._newest - seen.time_ns > self._span


class _Temporal:
    """Events of so many different rules, in any order; of each rule, its last is kept."""

    def __init__(self, about: Correlation) -> None:
        self._span, self._least = about.timespan_s * SECOND, about.at_least
        self._last: dict[int, Seen] = {}
        self.size = 0

    def add(self, seen: Seen, step: int, counted: Sequence[Hashable]) -> Sequence[Seen]:
        self._last[step] = max(seen, self._last.get(step, seen))
        self.size = len(self._last)
        newest = max(self._last.values()).time_ns
        recent = [one for one in self._last.values() if newest - one.time_ns <= self._span]
        return sorted(set(recent)) if len(recent) >= self._least else ()


class _Link(NamedTuple):
    """An event and those of the rules before it."""

    event: Seen
    chain: tuple[Seen, ...]
    """Itself last; empty if there is nothing for it to follow yet."""


class _TemporalOrdered:
    """An event of each rule, one after the other.

    Each event takes along what it follows: of all that it could follow, what begins last, for
    that is the most likely to be within the time span. So events that are made in masses in
    between can push nothing out that a chain has in it.
    """

    def __init__(self, about: Correlation) -> None:
        self._span = about.timespan_s * SECOND
        self._steps: list[list[_Link]] = [[] for _ in about.rules]
        self.size = 0

    def add(self, seen: Seen, step: int, counted: Sequence[Hashable]) -> Sequence[Seen]:
        insort(self._steps[step], _Link(seen, ()))
        for at in range(step, len(self._steps)):  # also those that came before what they follow
            self._steps[at] = [
                self._linked(at, link) if link.event >= seen else link for link in self._steps[at]
            ]
        links = self._steps[step]
        if len(links) > _STEP_MAX:
            del links[next((at for at, link in enumerate(links) if not link.chain), 0)]
        self.size = sum(map(len, self._steps))
        for link in reversed(self._steps[-1]):
            if link.chain and link.event.time_ns - link.chain[0].time_ns <= self._span:
                return link.chain
        return ()

    def _linked(self, at: int, link: _Link) -> _Link:
        if at == 0:
            return _Link(link.event, (link.event,))
        before = (one.chain for one in self._steps[at - 1] if one.chain and one.event < link.event)
        best = max(before, default=())
        if not best or (link.chain and link.chain[0] >= best[0]):
            return link
        return _Link(link.event, (*best, link.event))


_GROUPS: Final[Mapping[str, Callable[[Correlation], Group]]] = {
    "event_count": _EventCount,
    "value_count": _ValueCount,
    "temporal": _Temporal,
    "temporal_ordered": _TemporalOrdered,
}


class Correlator:
    """One correlation at work."""

    def __init__(self, about: Correlation) -> None:
        self._about = about
        self._span = about.timespan_s * SECOND
        self.counts = about.kind in ("event_count", "value_count")
        """An event counts once, however many of the rules it matches."""
        self._keys = [
            [getter(about.aliases.get(name, {}).get(rule, name)) for name in about.group_by]
            for rule in about.rules
        ]
        self._counted = list(map(getter, about.fields))
        self._groups: OrderedDict[Hashable, tuple[Group, int]] = OrderedDict()
        self._held = 0
        self._newest = 0
        self.forgotten = 0
        """Groups that had to make room before their time was over: results may be missing."""

    def add(self, seen: Seen, step: int, document: Document) -> Sequence[Seen] | None:
        """The events that together are what the correlation is about; mostly none.

        None: by this rule the event belongs to no group. A group that has had a result begins anew.

        :param step: number of the rule that matched, among those of the correlation.
        """
        key = self._key(document, step)
        counted = self._values(document)
        if key is None or (self._counted and not counted):
            return None
        self._newest = max(self._newest, seen.time_ns)
        group, latest = self._take(key)
        self._held -= group.size
        found = group.add(seen, step, counted)
        if not found:
            self._groups[key] = group, max(latest, seen.time_ns)
            self._held += group.size
        self._make_room()
        return found

    def group(self, step: int, document: Document) -> Mapping[str, Sequence[Any]]:
        """What tells the group of this event from others: by the names of ``group-by``."""
        getters = zip(self._about.group_by, self._keys[step], strict=True)
        return {name: list(values(get(document))) for name, get in getters}

    def _take(self, key: Hashable) -> tuple[Group, int]:
        if key in self._groups:
            return self._groups.pop(key)
        return _GROUPS[self._about.kind](self._about), 0

    def _make_room(self) -> None:
        while self._groups:
            group, latest = next(iter(self._groups.values()))
            over = self._newest - latest > self._span
            if not over and len(self._groups) <= GROUPS_MAX and self._held <= EVENTS_MAX:
                return
            self._groups.popitem(last=False)
            self._held -= group.size
            self.forgotten += not over

    def _key(self, document: Document, step: int) -> Hashable | None:
        # None: one of the fields is not there, so nobody knows where the event belongs.
        key = [_kept(get(document)) for get in self._keys[step]]
        return None if None in key else tuple(key)

    def _values(self, document: Document) -> Sequence[Hashable]:
        # Of one field, each of its values counts; of several, what they are together.
        if not self._counted:
            return []
        found = [get(document) for get in self._counted]
        if len(found) == 1:
            several = [_kept(one) for one in list(values(found[0]))[:_ITEMS_MAX]]
            return [kept for kept in several if kept is not None]
        together = tuple(map(_kept, found))
        return [] if None in together else [together]


def _kept(found: Any) -> Hashable | None:
    # In a form that takes little room, whatever an attacker calls his files.
    if isinstance(found, list):
        items = [text(one) for one in values(found)]
        if not items or None in items:
            return None
        kept = tuple(items)
        short = sum(len(one or "") for one in items) + len(items) <= _TEXT_MAX
        return kept if short else (len(kept), hash(kept))
    spelled = text(found)
    if spelled is None or len(spelled) <= _TEXT_MAX:
        return spelled
    return len(spelled), hash(spelled)
