# SPDX-License-Identifier: Apache-2.0
"""From calls to sinks, in one loop."""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ..decoders.decode import Decoder
from ..events.call import Call, Totals
from ..events.ecs import Cause
from ..events.event import Event, action_of
from ..events.folded import Folded
from ..events.notice import Notice
from ..events.process import Process
from ..rules.alert import Alert
from .functions import sees_inside
from .group import Group
from .guard import Guard
from .judge import Judge
from .output import Output
from .selection import Selection
from .sinks import Sink
from .source import Batch, Seen, Source
from .volume import GRACE_NS, NOTHING, Folding, Volume

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
    folding: Folding = NOTHING,
    max_events: int = 0,
    listings: bool = False,
) -> Outcome:
    """Every call of the source, decoded, to every sink, until the source is over.

    :param judge: of calls and notices, if there are rules.
    :param folding: which calls are told as one.
    :param max_events: ends it after so many calls, folded ones too; 0 for no limit.
    :param listings: disassemble programs that are loaded.
    :raises OutputError, BrokenPipeError: the output takes no more.
    """
    collect_seldom()
    stream = Stream(
        source, selection, sinks, judge,
        folding=folding, max_events=max_events, listings=listings,
    )  # fmt: skip
    for batch in source.batches():
        stream.take(batch)
        output.flush()
        if stream.is_full:
            source.finish()
    end = source.end()
    stream.end(end.totals)
    output.flush()
    return Outcome(end.totals, stream.names, end.problem, judge.forgotten if judge else 0)


class Stream:
    """Numbers what goes to the sinks; a gap in the numbers is as wide as what was lost.

    :param clock: gives the number to begin with, and grows faster than numbers are used: a gap
        does not go beyond. None: they begin with 1.
    """

    def __init__(
        self,
        source: Source,
        selection: Selection,
        sinks: Sequence[Sink],
        judge: Judge | None,
        *,
        folding: Folding = NOTHING,
        max_events: int = 0,
        listings: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._decoder = Decoder(
            source.kernel_names, sees_inside=sees_inside(source.origin.probe), listings=listings,
            of_map=source.types.of,
        )  # fmt: skip
        self.names = self._decoder.slot_names()
        self._guard = Guard(source.own)
        self._selection = selection
        self._sinks = sinks
        self.judge = judge
        """May be put in the place of another between two batches."""
        self._folding = NOTHING
        self._volume: Volume | None = None
        self.fold(folding)
        self._max_events = max_events
        self._shown = 0
        self._clock = clock
        self._sequence = clock() - 1 if clock else 0
        self._lost = 0

    @property
    def is_full(self) -> bool:
        """Whether as many calls were shown, or folded, as there are to be."""
        return bool(self._max_events) and self._shown == self._max_events

    def fold(self, folding: Folding) -> None:
        """What is told as one from here on; what was held for that is told now."""
        if folding == self._folding:
            return
        if self._volume:
            self._folded(self._volume.rest())
        self._folding = folding
        self._volume = Volume(folding, self._decoder.described) if folding.wanted else None

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
        if self._volume:
            self._folded(self._volume.due(batch.now_ns - GRACE_NS))
        if self.judge:
            self._alerts(self.judge.due(batch.now_ns))
        if batch.totals:
            self.losses(batch.totals, final=False)

    def rest(self) -> None:
        """What was held back is told now."""
        if self._volume:
            self._folded(self._volume.rest())
        if self.judge:
            self._alerts(self.judge.rest())

    def end(self, totals: Totals | None) -> None:
        self.rest()
        if totals:
            self.losses(totals, final=True)
        for sink in self._sinks:
            sink.end()

    def _call(self, seen: Seen, clock_offset_ns: int) -> None:
        call, process = seen
        self._shown += 1
        if self._volume is None:
            self._judged(self._decoder.decode(call), process, clock_offset_ns)
            return
        self._folded(self._volume.due(call.returned_ns))
        event = None if self._is_dull(self._volume, call) else self._decoder.decode(call)
        group = self._volume.group(seen, event)
        if group and event is None:
            group.add(call, clock_offset_ns)
        else:
            self._judged(event or self._decoder.decode(call), process, clock_offset_ns, group)

    def _is_dull(self, volume: Volume, call: Call) -> bool:
        """Whether nobody has to look at what the call says."""
        return (
            volume.masses(call)
            and not self._guard.is_touched(call)
            and self._decoder.is_plain(call)
            and not (self.judge and self.judge.concerns(action_of(self.names[call.command])))
        )

    def _judged(
        self, event: Event, process: Process, clock_offset_ns: int, group: Group | None = None
    ) -> None:
        """:param group: where the call is folded, if nothing is found in it."""
        time_ns = event.call.start_ns + clock_offset_ns
        sequence = self._sequence + 1
        if not group:
            self._event(event, process, time_ns)
        alerts: Sequence[Alert] = ()
        if self.judge:
            alerts = self.judge.event(
                event, process, time_ns=time_ns, sequence=sequence, told=not group
            )
        notice = self._guard.noticed(event)
        if group and (alerts or notice):
            self._event(event, process, time_ns)
        elif group:
            group.add(event.call, clock_offset_ns)
        self._alerts(alerts)
        if notice:
            self._notice(notice, Cause(event, process, sequence), clock_offset_ns)

    def _event(self, event: Event, process: Process, time_ns: int) -> None:
        sequence = self.number()
        for sink in self._sinks:
            sink.event(event, process, time_ns, sequence)

    def _folded(self, told: Iterable[Folded]) -> None:
        for folded in told:
            sequence = self.number()
            for sink in self._sinks:
                sink.folded(folded, sequence)

    def _notice(self, notice: Notice, cause: Cause | None, clock_offset_ns: int) -> None:
        time_ns = notice.time_ns + clock_offset_ns
        sequence = self.number()
        for sink in self._sinks:
            sink.notice(notice, cause, time_ns, sequence)
        if self.judge:
            self._alerts(self.judge.notice(notice, cause, time_ns=time_ns, sequence=sequence))

    def _alerts(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            sequence = self.number()
            for sink in self._sinks:
                sink.alert(alert, sequence)

    def losses(self, totals: Totals, *, final: bool) -> None:
        gap = max(0, totals.lost - self._lost)
        if self._clock:
            gap = min(gap, max(0, self._clock() - self._sequence))
        self._sequence += gap
        self._lost = max(self._lost, totals.lost)
        sequence = self.number()
        for sink in self._sinks:
            sink.losses(totals, self.names, sequence, final=final)

    def number(self) -> int:
        """The next one, for what the sinks are told by somebody else."""
        self._sequence += 1
        return self._sequence
