# SPDX-License-Identifier: Apache-2.0
"""Rules at work on a stream: events in, alerts out."""

from collections.abc import Iterable, Sequence
from time import perf_counter_ns
from typing import Final

from ..events import ecs
from ..events.ecs import Cause, Document, Origin
from ..events.event import Event
from ..events.notice import Notice
from ..events.process import Process
from ..rules.alert import Alert, latest
from ..rules.engine import Engine
from ..rules.flood import Flood
from ..rules.rule import Rule
from .cache import Cache, Keeper
from .config import Config

_NOTHING: Final[Sequence[Alert]] = ()


def rules_of(options: Config, cache: Keeper) -> Sequence[Rule]:
    """The rules that the options name.

    :raises UsageError: with every mistake in any of them.
    """
    if not options.rules:
        return ()
    from .rule_files import load  # noqa: PLC0415 - what starts a parser

    return load(options.rules, options.rule_lists, cache)


def engine_of(options: Config) -> Engine | None:
    """These rules, ready; None if there are none.

    :raises UsageError: with every mistake in any of them.
    """
    rules = rules_of(options, Cache(options.cache))
    return Engine(rules) if rules else None


def judge_for(options: Config, engine: Engine | None, origin: Origin) -> "Judge | None":
    """:param origin: of the stream that is judged."""
    return Judge(engine, origin, options.alert_interval) if engine else None


class Judge:
    """Makes documents of the events that a rule may be about, and judges them.

    :param interval_ns: within which alerts of one rule and process are told as one; 0 for never.
    """

    def __init__(self, engine: Engine, origin: Origin, interval_ns: int) -> None:
        self._engine = engine
        self._origin = origin
        self._flood = Flood(interval_ns)
        self._newest_ns = 0
        self.spent_ns = 0
        """In making documents to judge, and judging them."""

    @property
    def telling(self) -> list[str]:
        """Names of the rules that bring about alerts."""
        return self._engine.telling

    @property
    def forgotten(self) -> int:
        """Groups of correlated events that had to make room: so many alerts may be missing."""
        return self._engine.forgotten

    def replace(self, rules: Sequence[Rule], interval_ns: int) -> None:
        """All rules, by these; correlations that are the same go on with what they have.

        :param interval_ns: as of a new one.
        :raises UsageError: with every mistake in any of them. Then all stays as it was.
        """
        self._engine = Engine(rules, self._engine)
        self._flood.interval_ns = interval_ns

    def concerns(self, action: str) -> bool:
        """Whether an event with this ``event.action`` can match any rule."""
        return self._engine.concerns(action)

    def event(
        self, event: Event, process: Process, *, time_ns: int, sequence: int, told: bool = True
    ) -> Sequence[Alert]:
        """:param time_ns: when the call began, ns since the epoch.
        :param sequence: number of its document.
        :param told: there is one in any case; else only if this brings about an alert, and no
            alert names what has no document.
        """
        if not self.concerns(event.action):
            return _NOTHING
        began_ns = perf_counter_ns()
        document = ecs.event_document(
            event, process, self._origin, time_ns=time_ns, sequence=sequence
        )
        if not told:
            del document["event"]["sequence"]
        alerts = self._judged(document, event.call.returned_ns)
        self.spent_ns += perf_counter_ns() - began_ns
        # Those that had waited are not of this call.
        return alerts if told else [one if one.since else one.after(sequence) for one in alerts]

    def notice(
        self, notice: Notice, cause: Cause | None, *, time_ns: int, sequence: int
    ) -> Sequence[Alert]:
        """:param time_ns: when it happened, ns since the epoch."""
        if not self._engine.concerns(notice.action):
            return _NOTHING
        document = ecs.notice_document(
            notice, self._origin, time_ns=time_ns, sequence=sequence, cause=cause
        )
        return self._judged(document, notice.time_ns)

    def due(self, now_ns: int) -> Iterable[Alert]:
        """What was held back for long enough.

        :param now_ns: ``CLOCK_BOOTTIME``; of a replay, 0: the newest event tells.
        """
        return self._flood.due(now_ns or self._newest_ns)

    def rest(self) -> Iterable[Alert]:
        """What is still held back, at the end."""
        return self._flood.rest()

    def _judged(self, document: Document, time_ns: int) -> list[Alert]:
        self._newest_ns = max(self._newest_ns, time_ns)
        alerts = [
            Alert(match.rule, document, match.matched, latest(match.sequences), match.time_ns)
            for match in self._engine.feed(document, time_ns)
        ]
        return [told for alert in alerts for told in self._flood.take(alert)]
