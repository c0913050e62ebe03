# SPDX-License-Identifier: Apache-2.0
"""From calls to sinks, in one loop."""

import gc
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ..decoders.decode import Decoder
from ..events.call import Totals
from ..events.ecs import Cause
from ..events.notice import Notice
from ..rules.alert import Alert
from .functions import sees_inside
from .guard import Guard
from .judge import Judge
from .selection import Selection
from .sinks import Output, Sink
from .source import Batch, Seen, Source

_COLLECT_AFTER: Final = 100_000  # objects more than went


class Outcome(NamedTuple):
    """What became of a run."""

    totals: Totals | None
    """None if nobody knows them, for the reason in ``problem``."""
    names: Mapping[int, str]
    """Of the counter slots in ``totals``."""
    problem: str
    """One sentence on why the source was over early; mostly empty."""
    forgotten: int = 0
    """Groups of correlated events that had to make room: so many alerts may be missing."""


def collect_seldom() -> None:
    """Garbage: what a call leaves behind is no cycle, and looking for some takes time."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def run(
    source: Source,
    selection: Selection,
    sinks: Sequence[Sink],
    output: Output,
    *,
    judge: Judge | None = None,
    max_events: int = 0,
    listings: bool = False,
) -> Outcome:
    """Every call of the source, decoded, to every sink, until the source is over.

    :param judge: of calls and notices, if there are rules.
    :param max_events: ends it after so many; 0 for no limit.
    :param listings: disassemble programs that are loaded.
    :raises OutputError, BrokenPipeError: the output takes no more.
    """
    collect_seldom()
    stream = _Stream(source, selection, sinks, judge, max_events, listings=listings)
    for batch in source.batches():
        stream.take(batch)
        output.flush()
        if stream.is_full:
            source.finish()
    end = source.end()
    stream.end(end.totals)
    output.flush()
    return Outcome(end.totals, stream.names, end.problem, judge.forgotten if judge else 0)


class _Stream:
    """Numbers what goes to the sinks; a gap in the numbers is as wide as what was lost."""

    def __init__(
        self,
        source: Source,
        selection: Selection,
        sinks: Sequence[Sink],
        judge: Judge | None,
        max_events: int,
        *,
        listings: bool,
    ) -> None:
        self._decoder = Decoder(
            source.kernel_names, sees_inside=sees_inside(source.origin.probe), listings=listings,
            of_map=source.types.of,
        )  # fmt: skip
        self.names = self._decoder.slot_names()
        self._guard = Guard(source.own)
        self._selection = selection
        self._sinks = sinks
        self._judge = judge
        self._max_events = max_events
        self._shown = 0
        self._sequence = 0
        self._lost = 0

    @property
    def is_full(self) -> bool:
        """Whether as many calls were shown as there are to be."""
        return bool(self._max_events) and self._shown == self._max_events

    def take(self, batch: Batch) -> None:
        for seen in batch.calls:
            if self.is_full:
                break
            if self._selection.wants(seen.call):
                self._call(seen, batch.clock_offset_ns)
        if self.is_full:
            return
        for notice in batch.notices if self._selection.wants_notices else ():
            self._notice(notice, None, batch.clock_offset_ns)
        if self._judge:
            self._alerts(self._judge.due(batch.now_ns))
        if batch.totals:
            self._losses(batch.totals, final=False)

    def end(self, totals: Totals | None) -> None:
        if self._judge:
            self._alerts(self._judge.rest())
        if totals:
            self._losses(totals, final=True)
        for sink in self._sinks:
            sink.end()

    def _call(self, seen: Seen, clock_offset_ns: int) -> None:
        event = self._decoder.decode(seen.call)
        time_ns = seen.call.start_ns + clock_offset_ns
        self._shown += 1
        sequence = self._next()
        for sink in self._sinks:
            sink.event(event, seen.process, time_ns, sequence)
        if self._judge:
            self._alerts(self._judge.event(event, seen.process, time_ns=time_ns, sequence=sequence))
        notice = self._guard.noticed(event)
        if notice:
            self._notice(notice, Cause(event, seen.process, sequence), clock_offset_ns)

    def _notice(self, notice: Notice, cause: Cause | None, clock_offset_ns: int) -> None:
        time_ns = notice.time_ns + clock_offset_ns
        sequence = self._next()
        for sink in self._sinks:
            sink.notice(notice, cause, time_ns, sequence)
        if self._judge:
            self._alerts(self._judge.notice(notice, cause, time_ns=time_ns, sequence=sequence))

    def _alerts(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            sequence = self._next()
            for sink in self._sinks:
                sink.alert(alert, sequence)

    def _losses(self, totals: Totals, *, final: bool) -> None:
        self._sequence += max(0, totals.lost - self._lost)
        self._lost = max(self._lost, totals.lost)
        sequence = self._next()
        for sink in self._sinks:
            sink.losses(totals, self.names, sequence, final=final)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
