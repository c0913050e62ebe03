# SPDX-License-Identifier: Apache-2.0
"""From calls to sinks, in one loop."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..decoders.decode import Decoder
from ..events.call import Totals
from .selection import Selection
from .sinks import Output, Sink
from .source import Source


class Outcome(NamedTuple):
    """What became of a run."""

    totals: Totals | None
    """None if nobody knows them, for the reason in ``problem``."""
    names: Mapping[int, str]
    """Of the counter slots in ``totals``."""
    problem: str
    """One sentence on why the source was over early; mostly empty."""


def run(
    source: Source,
    selection: Selection,
    sinks: Sequence[Sink],
    output: Output,
    *,
    max_events: int = 0,
) -> Outcome:
    """Every call of the source, decoded, to every sink, until the source is over.

    :param max_events: ends it after so many; 0 for no limit.
    :raises OutputError, BrokenPipeError: the output takes no more.
    """
    decoder = Decoder(source.kernel_names)
    shown = 0
    for calls, clock_offset_ns in source.batches():
        for call, process in calls:
            if max_events and shown == max_events:
                break
            if not selection.wants(call):
                continue
            event = decoder.decode(call)
            time_ns = call.start_ns + clock_offset_ns
            shown += 1
            for sink in sinks:
                sink.event(event, process, time_ns, shown)
        output.flush()
        if max_events and shown == max_events:
            source.finish()
    end = source.end()
    names = decoder.slot_names()
    for sink in sinks:
        sink.end(end.totals, names, shown + 1)
    output.flush()
    return Outcome(end.totals, names, end.problem)
