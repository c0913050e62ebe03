"""From calls to sinks, in one loop."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..decoders.decode import Decoder
from ..events.call import CommandCount
from ..events.wire import COMMAND_OTHER
from .selection import Selection
from .sinks import Output, Sink
from .source import Source


class Outcome(NamedTuple):
    """What became of a run."""

    shown: int
    """Events that went to the sinks."""
    counts: Mapping[str, CommandCount]
    """By command name."""
    problem: str
    """One sentence on why the source was over early; mostly empty."""

    @property
    def lost(self) -> int:
        return sum(count.lost for count in self.counts.values())

    @property
    def seen(self) -> int:
        return sum(count.seen for count in self.counts.values())


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
        for call in calls:
            if max_events and shown == max_events:
                break
            if not selection.wants(call):
                continue
            event = decoder.decode(call)
            time_ns = call.start_ns + clock_offset_ns
            shown += 1
            for sink in sinks:
                sink.event(event, time_ns, shown)
        output.flush()
        if max_events and shown == max_events:
            source.finish()
    end = source.end()
    counts = _by_name(end.counts, decoder.command_names())
    for sink in sinks:
        sink.end(counts, end.time_ns, shown + 1)
    output.flush()
    return Outcome(shown, counts, end.problem)


def _by_name(
    counts: Mapping[int, CommandCount], names: Mapping[int, str]
) -> dict[str, CommandCount]:
    return {
        "other" if slot == COMMAND_OTHER else names.get(slot, hex(slot)): count
        for slot, count in counts.items()
    }
