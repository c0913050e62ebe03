# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call on its way, on one core: put together, decoded, judged, spelled.

Rounds are taken in turn and the least counts: the machine may be at something else.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice, starmap
from typing import Any, Final

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.events import ecs, text
from bpfsnoop.events.event import Event
from bpfsnoop.events.folded import Folded, folded_document
from bpfsnoop.events.lines import JsonLines
from bpfsnoop.events.process import Process
from bpfsnoop.rules.alert import Alert, alert_document
from bpfsnoop.rules.engine import Engine
from bpfsnoop.rules.rule import Rule
from bpfsnoop.tracer.assembly import Assembly
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.callers import Callers
from bpfsnoop.tracer.judge import Judge
from bpfsnoop.tracer.pipeline import Stream, collect_seldom
from bpfsnoop.tracer.recording import Header, Recorder
from bpfsnoop.tracer.rule_files import load
from bpfsnoop.tracer.selection import Selection
from bpfsnoop.tracer.source import Batch, Replay
from bpfsnoop.tracer.source import Seen as SeenCall
from bpfsnoop.tracer.volume import NOTHING, Folding
from stream import records

STREAM: Final = 50_000
ROUNDS: Final = 9
BATCH: Final = 500
TEN_SECONDS: Final = Folding(10 * 10**9, 0)
ORIGIN: Final = ecs.Origin("host", "", "fentry")
ALERT_INTERVAL_NS: Final = 60 * 10**9

Seen = tuple[Event, Process]
Stage = tuple[Callable[[Any], object], Iterable[Any]]
"""What is done to each of these."""


def main() -> None:
    collect_seldom()
    rules = load(["default"], {}, Cache(""))
    stream = records(STREAM)
    print("one core, 90 % lookups and updates, 9 % others, 1 % loads:")
    for name, seconds in least(lambda: _on_the_way(rules, stream)).items():
        print(f"  {name:<32} {STREAM / seconds:10,.0f} calls/s")
    print(f"judging alone, by the {len(rules)} rules of the pack:")
    for name, seconds in least(lambda: _judging(rules, list(_decoded(stream)))).items():
        print(f"  {name:<32} {STREAM / seconds:10,.0f} calls/s")
    batches, recording = list(_batches(stream)), _nothing_recorded()
    print("from calls that are put together to JSON lines:")
    for name, seconds in least(lambda: _told(rules, batches, recording)).items():
        print(f"  {name:<32} {STREAM / seconds:10,.0f} calls/s")
    loads = [seen for seen in _decoded(stream) if seen[0].action == "prog_load"]
    print("of one program load:")
    for name, seconds in least(lambda: _judging(rules, loads)).items():
        print(f"  {name:<32} {seconds / len(loads) * 1e6:10.1f} us")


def documents(action: str, count: int) -> Iterator[ecs.Document]:
    """Of calls of this command in the stream."""
    calls = (seen for seen in _decoded(records(STREAM)) if seen[0].action == action)
    return starmap(_document, islice(calls, count))


def least(stages: Callable[[], Mapping[str, Stage]]) -> dict[str, float]:
    """CPU seconds of each stage; all start anew in each round."""
    seconds: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, (stage, things) in stages().items():
            begin = time.process_time()
            for thing in things:
                stage(thing)
            taken = time.process_time() - begin
            seconds[name] = min(taken, seconds.get(name, taken))
    return seconds


class _Way:
    """From records to what is wanted of a call."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._assembly = Assembly()
        self._callers = Callers(lambda key: None)
        self._decoder = Decoder(sees_inside=True)
        self._lines = JsonLines(ORIGIN)
        self._judge = Judge(Engine(rules), ORIGIN, ALERT_INTERVAL_NS)

    def decoded(self, record: bytes) -> Seen | None:
        call = self._assembly.feed(record)
        if call is None:
            return None
        return self._decoder.decode(call), self._callers.of(call, self._assembly.image(call))

    def text(self, record: bytes) -> None:
        if seen := self.decoded(record):
            text.call(seen[0])
            text.result(seen[0])

    def line(self, record: bytes) -> None:
        if seen := self.decoded(record):
            event, process = seen
            self._lines.event(event, process, time_ns=event.call.start_ns, sequence=1)

    def judged(self, record: bytes) -> None:
        if seen := self.decoded(record):
            event, process = seen
            self._judge.event(event, process, time_ns=event.call.start_ns, sequence=1)

    def judged_line(self, record: bytes) -> None:
        if seen := self.decoded(record):
            event, process = seen
            self._lines.event(event, process, time_ns=event.call.start_ns, sequence=1)
            self._judge.event(event, process, time_ns=event.call.start_ns, sequence=1)


class _Lines:
    """A sink of JSON lines that nobody keeps."""

    def __init__(self) -> None:
        self._lines = JsonLines(ORIGIN)

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        self._lines.event(event, process, time_ns=time_ns, sequence=sequence)

    def folded(self, folded: Folded, sequence: int) -> None:
        ecs.json_line(folded_document(folded, ORIGIN, sequence=sequence))

    def notice(self, *_: object) -> None:
        raise AssertionError("nobody touches what is ours")

    def alert(self, alert: Alert, sequence: int) -> None:
        ecs.json_line(alert_document(alert, sequence=sequence))

    def losses(self, *_: object, **__: object) -> None:
        raise AssertionError("nothing is lost")

    def end(self) -> None:
        pass


def _batches(stream: Iterable[bytes]) -> Iterator[Batch]:
    assembly, callers = Assembly(), Callers(lambda key: None)
    calls = [
        SeenCall(call, callers.of(call, assembly.image(call)))
        for record in stream
        if (call := assembly.feed(record))
    ]
    for at in range(0, len(calls), BATCH):
        yield Batch(calls[at : at + BATCH], 0)


def _told(rules: tuple[Rule, ...], batches: Iterable[Batch], recording: bytes) -> dict[str, Stage]:
    def taken(folding: Folding, judge: Judge | None = None) -> Stage:
        source = Replay(BytesIO(recording), "")
        return Stream(source, Selection(), [_Lines()], judge, folding=folding).take, batches

    def judge() -> Judge:
        return Judge(Engine(rules), ORIGIN, ALERT_INTERVAL_NS)

    return {
        "one by one": taken(NOTHING),
        "with --aggregate 10s": taken(TEN_SECONDS),
        "one by one, and judged": taken(NOTHING, judge()),
        "with --aggregate 10s, and judged": taken(TEN_SECONDS, judge()),
    }


def _nothing_recorded() -> bytes:
    file = BytesIO()
    Recorder(file, Header("", ORIGIN.hostname, "", "", ORIGIN.probe, {}))
    return file.getvalue()


def _on_the_way(rules: tuple[Rule, ...], stream: Iterable[bytes]) -> dict[str, Stage]:
    return {
        "put together": (Assembly().feed, stream),
        "and decoded": (_Way(rules).decoded, stream),
        "... and judged": (_Way(rules).judged, stream),
        "... to a text line": (_Way(rules).text, stream),
        "... to a JSON line": (_Way(rules).line, stream),
        "... to a JSON line, and judged": (_Way(rules).judged_line, stream),
    }


def _decoded(stream: Iterable[bytes]) -> Iterable[Seen]:
    return filter(None, map(_Way(()).decoded, stream))


def _judging(rules: tuple[Rule, ...], calls: Iterable[Seen]) -> dict[str, Stage]:
    engine = Engine(rules)
    judge = Judge(engine, ORIGIN, ALERT_INTERVAL_NS)
    documents = [(_document(*seen), seen[0].call.returned_ns) for seen in calls]

    for action in {event.action for event, _ in calls}:
        engine.concerns(action)  # it finds out once which rules these are

    def judged(seen: Seen) -> None:
        event, process = seen
        judge.event(event, process, time_ns=event.call.start_ns, sequence=1)

    def fed(document: tuple[ecs.Document, int]) -> None:
        engine.feed(*document)

    return {
        "the engine, on documents": (fed, documents),
        "the judge, on decoded calls": (judged, calls),
    }


def _document(event: Event, process: Process) -> ecs.Document:
    return ecs.event_document(event, process, ORIGIN, time_ns=event.call.start_ns, sequence=1)


if __name__ == "__main__":
    main()
