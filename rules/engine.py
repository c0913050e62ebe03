# SPDX-License-Identifier: Apache-2.0
"""Documents in, matches out."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ..events.ecs import Document
from ..events.errors import Mistake, UsageError
from . import check
from .condition import Condition, condition, possible
from .correlate import Correlator, Seen
from .document import getter, values
from .rule import Correlation, Node, Rule

_ACTIONS_MAX: Final = 1_000
_action: Final = getter("event.action")


class Match(NamedTuple):
    """A rule and what made it match."""

    rule: Rule
    sequences: tuple[int, ...]
    """``event.sequence`` of the events, as they happened; the last one is not always the one
    that was fed last."""
    matched: Mapping[str, Sequence[Any]]
    """Field -> values of the event that was fed last; of a correlation, what the events have in
    common."""
    time_ns: int
    """When the last of the events happened."""


class _Step(NamedTuple):
    """Where the matches of a rule are wanted."""

    correlation: int
    """Its place among the rules."""
    number: int


@dataclass
class _Entry:
    """A rule at work."""

    rule: Rule
    condition: Condition | None = None
    correlator: Correlator | None = None
    steps: tuple[_Step, ...] = ()
    silent: bool = False
    """It only serves correlations."""


class Engine:
    """All rules, ready to judge.

    Building one is all or nothing: whoever reloads rules keeps the old engine until the
    new one is there.

    :param before: an engine that is not used any more. Correlations that are as they were
        there go on with what they had, or else a reload would make attackers unseen.
    :raises UsageError: with every mistake in any of the rules.
    """

    def __init__(self, rules: Sequence[Rule], before: "Engine | None" = None) -> None:
        mistakes = list(check.mistakes(rules))
        self._entries = [_entry(rule, mistakes) for rule in rules]
        if mistakes:
            raise UsageError(mistakes)
        _wire(self._entries)
        if before:
            self._go_on(before)
        self._detections = [n for n, entry in enumerate(self._entries) if entry.condition]
        self._index: dict[str | None, list[int]] = {}

    @property
    def rules(self) -> Sequence[Rule]:
        return [entry.rule for entry in self._entries]

    @property
    def telling(self) -> list[str]:
        """Names of the rules that may match by themselves; others only serve correlations."""
        return [entry.rule.label for entry in self._entries if not entry.silent]

    @property
    def forgotten(self) -> int:
        """Groups of correlated events that had to make room: so many results may be missing."""
        return sum(entry.correlator.forgotten for entry in self._entries if entry.correlator)

    def concerns(self, action: str) -> bool:
        """Whether an event with this ``event.action`` can match any rule; else it need not be
        made into a document."""
        return bool(self._candidates(action))

    def feed(self, document: Document, time_ns: int) -> list[Match]:
        """What this event brings about: detections in the order of the rules, then correlations.

        :param time_ns: when it happened, by a clock that all events share. The one that
            calls are timed by is better than the wall clock, which may be set.
        """
        action: Any = _action(document)
        if action is not None and type(action) is not str:
            candidates = self._detections
        else:
            candidates = self._candidates(action)
        if not candidates:
            return []
        found = [n for n in candidates if self._holds(n, document)]
        return self._judged(found, document, time_ns) if found else []

    def _go_on(self, before: "Engine") -> None:
        known = {entry.rule.label: entry for entry in before._entries if entry.correlator}
        for entry in self._entries:
            old = known.get(entry.rule.label)
            if entry.correlator and old and _same(entry.rule.body, old.rule.body):
                entry.correlator = old.correlator

    def _holds(self, place: int, document: Document) -> bool:
        judged = self._entries[place].condition
        return judged is not None and judged.holds(document)

    def _candidates(self, action: str | None) -> list[int]:
        # The rules that can match an event with this action, found out when it comes first.
        known = self._index.get(action)
        if known is not None:
            return known
        candidates = [n for n in self._detections if _can_hold(self._entries[n].rule.body, action)]
        if len(self._index) < _ACTIONS_MAX:
            self._index[action] = candidates
        return candidates

    def _judged(self, found: Sequence[int], document: Document, time_ns: int) -> list[Match]:
        seen = Seen(time_ns, tuple(_sequences(document)))
        had: set[int] = set()  # what this event cannot add to any more
        results = [(n, seen, _evidence(self._entries[n], document)) for n in found]
        for place, what, _ in results:  # it grows by the correlations that have one
            for correlation, number in self._entries[place].steps:
                correlator = self._entries[correlation].correlator
                if correlator is None or correlation in had:
                    continue
                events = correlator.add(what, number, document)
                if events or (events is not None and correlator.counts):
                    had.add(correlation)
                if events:
                    group = correlator.group(number, document)
                    results.append((correlation, _together(events), group))
        return [
            Match(self._entries[place].rule, what.sequences, matched, what.time_ns)
            for place, what, matched in results
            if not self._entries[place].silent
        ]


def can_match(rule: Rule, action: str) -> bool:
    """Whether an event with this ``event.action`` can match; of a correlation, never."""
    return not isinstance(rule.body, Correlation) and _can_hold(rule.body, action)


def _can_hold(body: Node | Correlation, action: str | None) -> bool:
    return not isinstance(body, Correlation) and possible(body, action)[0]


def _entry(rule: Rule, mistakes: list[Mistake]) -> _Entry:
    if isinstance(rule.body, Correlation):
        return _Entry(rule, correlator=Correlator(rule.body))
    try:
        return _Entry(rule, condition(rule.body))
    except ValueError as error:
        mistakes.append(Mistake(str(error), rule.path, rule.line))
        return _Entry(rule)


def _same(one: Node | Correlation, other: Node | Correlation) -> bool:
    # Wherever they stand in their files.
    if not isinstance(one, Correlation) or not isinstance(other, Correlation):
        return False
    return replace(one, line=0) == replace(other, line=0)


def _wire(entries: Sequence[_Entry]) -> None:
    # Tells each rule which correlations wait for it.
    places = {id(entry.rule): n for n, entry in enumerate(entries)}
    known = check.by_reference([entry.rule for entry in entries])
    steps: dict[int, list[_Step]] = defaultdict(list)
    for at, entry in enumerate(entries):
        body = entry.rule.body
        if isinstance(body, Correlation):
            for number, reference in enumerate(body.rules):
                place = places[id(known[reference])]
                steps[place].append(_Step(at, number))
                entries[place].silent |= not body.generate
    for place, wanted in steps.items():
        entries[place].steps = tuple(wanted)


def _sequences(document: Document) -> list[int]:
    return [one for one in values(_sequence(document)) if type(one) is int]


_sequence: Final[Callable[[Document], Any]] = getter("event.sequence")


def _together(events: Sequence[Seen]) -> Seen:
    sequences = dict.fromkeys(number for seen in events for number in seen.sequences)
    return Seen(events[-1].time_ns, tuple(sequences))


def _evidence(entry: _Entry, document: Document) -> Mapping[str, Sequence[Any]]:
    matched: dict[str, list[Any]] = {}
    if entry.condition and not entry.silent:
        for field, value in entry.condition.evidence(document):
            known = matched.setdefault(field, [])
            if value not in known:
                known.append(value)
    return matched
