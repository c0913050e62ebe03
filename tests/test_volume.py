# SPDX-License-Identifier: Apache-2.0
"""How much is told: what is folded, what never is, and that all of it is counted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import count, pairwise
from pathlib import Path
from struct import pack
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.decoders import tally
from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs
from bpfsnoop.events.call import RESULT, Call, CallFlag, CommandCount, ObjectKind, Totals
from bpfsnoop.events.ecs import Cause
from bpfsnoop.events.event import Event
from bpfsnoop.events.folded import Folded, folded_document
from bpfsnoop.events.notice import Notice
from bpfsnoop.events.process import Process
from bpfsnoop.rules.alert import Alert, alert_document
from bpfsnoop.rules.engine import Engine
from bpfsnoop.tracer import group, rate, volume
from bpfsnoop.tracer.judge import Judge
from bpfsnoop.tracer.output import Output
from bpfsnoop.tracer.pipeline import Stream
from bpfsnoop.tracer.recording import Header, Recorder
from bpfsnoop.tracer.selection import NO_COMMANDS, Selection, command_set
from bpfsnoop.tracer.sinks import AlertsOnly, JsonSink, TextSink, TextStyle
from bpfsnoop.tracer.source import Batch, Replay, Seen
from bpfsnoop.tracer.volume import Folding
from calls import attr, blob, btf_of, call_of, image_of, link_of, map_of, process_of, prog_of
from documents import ORIGIN, checked
from rule_texts import SECOND, correlation, detection, rules
from test_sinks import PLAIN

OFFSET: Final = 1_700_000_000 * SECOND
TEN: Final = Folding(10 * SECOND, 0)
LIMITED: Final = Folding(0, 2)
TOTALS: Final = Totals({1: CommandCount(1, 0)}, 0, 0, 0, 0)
MAP_FD: Final = 3
LOOKUP, UPDATE, LOAD, NEXT_PROG, PROG_BY_ID, INFO, FREEZE = 1, 2, 5, 11, 13, 15, 22
KEY_AND_VALUE: Final = {8: blob(bytes(4)), 16: blob(bytes(8))}
KEY_ALONE: Final = {8: blob(bytes(4))}


class Told:
    """A sink that keeps what it is told, as documents that were checked."""

    def __init__(self) -> None:
        self.documents: list[ecs.Document] = []

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        self._keep(ecs.event_document(event, process, ORIGIN, time_ns=time_ns, sequence=sequence))

    def folded(self, folded: Folded, sequence: int) -> None:
        self._keep(folded_document(folded, ORIGIN, sequence=sequence, message=str(folded)))

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        self._keep(
            ecs.notice_document(notice, ORIGIN, time_ns=time_ns, sequence=sequence, cause=cause)
        )

    def alert(self, alert: Alert, sequence: int) -> None:
        self._keep(alert_document(alert, sequence=sequence))

    def losses(self, totals: Totals, names: Any, sequence: int, *, final: bool) -> None:
        self._keep(ecs.loss_document(totals, names, ORIGIN, sequence=sequence, final=final))

    def end(self) -> None:
        pass

    def _keep(self, document: ecs.Document) -> None:
        self.documents.append(checked(document))


def source(own: frozenset[tuple[int, int]] = frozenset()) -> Replay:
    """One of which only the surroundings of its calls are of use."""
    file = BytesIO()
    Recorder(file, Header("", "host", "", "", "tracepoint", {}, own))
    return Replay(BytesIO(file.getvalue()), "")


def stream(
    sink: Any, folding: Folding, judge: Judge | None = None, *, max_events: int = 0
) -> Stream:
    return Stream(source(), Selection(), [sink], judge, folding=folding, max_events=max_events)


def told(
    calls: Sequence[Call], folding: Folding = TEN, judge: Judge | None = None
) -> list[ecs.Document]:
    """What a run of these calls tells, all in one batch; the last one is about losses."""
    sink = Told()
    through = stream(sink, folding, judge)
    through.take(Batch(seen(calls), OFFSET))
    through.end(TOTALS)
    return sink.documents


def seen(calls: Sequence[Call]) -> list[Seen]:
    """With a process each, the same for the same pid."""
    processes: dict[tuple[int, int], Process] = {}
    return [
        Seen(call, processes.setdefault((call.tgid, call.exec_id), process_of(call, image_of())))
        for call in calls
    ]


def judge_of(*texts: str, interval_ns: int = 0) -> Judge:
    return Judge(Engine(rules(*texts)), ORIGIN, interval_ns)


def at(call: Call, seconds: float) -> Call:
    """The same, later."""
    return call._replace(start_ns=call.start_ns + round(seconds * SECOND))


def elem(cmd: int = LOOKUP, *, number: int = 12, **about: Any) -> Call:
    """A call on an element of a map."""
    about.setdefault("memory", KEY_ALONE if about.get("retval") else KEY_AND_VALUE)
    return call_of(
        cmd, attr("IQQQ", MAP_FD, 0x1000, 0x2000, 0), objects={0: map_of(id=number)}, **about
    )


def next_id(cmd: int, start: int, found: int | None) -> Call:
    """One step of a walk over ids."""
    return call_of(
        cmd, attr("III", start, 0, 0), attr("III", start, found or 0, 0),
        retval=0 if found else -2,
    )  # fmt: skip


def load(retval: int = -22, **about: Any) -> Call:
    objects = {RESULT: prog_of()} if retval >= 0 else {}
    return call_of(LOAD, attr("IIQQ", 1, 1, 0, 0), retval=retval, objects=objects, **about)


def of(documents: Sequence[ecs.Document], dataset: str) -> list[Any]:
    return [each for each in documents if each["event"]["dataset"] == f"bpfsnoop.{dataset}"]


# --- Calls on maps -----------------------------------------------------------------------


def test_the_first_call_is_told_at_once_and_the_others_as_one() -> None:
    lookups = [at(elem(), 0.5 * n) for n in range(4)]
    missed = at(elem(retval=-2), 3)
    first, others, _ = told([*lookups, missed])
    assert first["event"]["dataset"] == "bpfsnoop.call"
    assert first["bpf"]["memory"]["key"]["hex"] == "00000000"
    started, ended = lookups[1].start_ns + OFFSET, missed.returned_ns + OFFSET
    assert others["event"] == {
        "kind": "event", "module": "bpfsnoop", "dataset": "bpfsnoop.folded",
        "action": "map_lookup_elem", "category": ["api"], "type": ["access"],
        "outcome": "unknown", "start": ecs.timestamp(started), "end": ecs.timestamp(ended),
        "sequence": 2,
    }  # fmt: skip
    assert others["@timestamp"] == ecs.timestamp(ended)
    assert others["bpf"]["folded"] == {
        "reason": "aggregate", "calls": 4, "failed": 1,
        "errors": [{"errno": "ENOENT", "calls": 1}], "bytes": 3 * 12 + 4,
    }  # fmt: skip
    for field in ("process", "user", "host"):
        assert others[field] == first[field]
    for field in ("cmd", "map", "process", "probe"):
        assert others["bpf"][field] == first["bpf"][field]
    assert not {"attr", "memory", "retval", "notes"} & set(others["bpf"])


def test_each_process_command_and_map_is_told_of_by_itself() -> None:
    calls = [
        elem(), elem(UPDATE), elem(number=13), elem()._replace(tgid=77),
        elem()._replace(euid=0), elem()._replace(exec_id=6),
    ]  # fmt: skip
    documents = told(calls * 3)
    assert len(of(documents, "call")) == len(calls)
    assert [each["bpf"]["folded"]["calls"] for each in of(documents, "folded")] == [2] * len(calls)
    who = [
        (each["event"]["action"], each["bpf"]["map"]["id"], each["process"]["pid"],
         each["user"]["effective"]["id"], each["bpf"]["process"]["exec_id"])
        for each in of(documents, "folded")
    ]  # fmt: skip
    assert who == [
        ("map_lookup_elem", 12, 1234, "7", 5), ("map_update_elem", 12, 1234, "7", 5),
        ("map_lookup_elem", 13, 1234, "7", 5), ("map_lookup_elem", 12, 77, "7", 5),
        ("map_lookup_elem", 12, 1234, "0", 5), ("map_lookup_elem", 12, 1234, "7", 6),
    ]  # fmt: skip


def test_an_interval_is_over_by_the_clock_of_the_calls_and_goes_on() -> None:
    """Who goes on is told of once an interval; who begins anew, at once."""
    busy = [at(elem(), 0.5 * n) for n in range(50)]  # until 24.5 s
    again = [at(elem(), 60), at(elem(), 61)]
    documents = told([*busy, *again])
    kinds = [each["event"]["dataset"].removeprefix("bpfsnoop.") for each in documents]
    assert kinds == ["call", "folded", "folded", "folded", "call", "folded", "loss"]
    counts = [each["bpf"]["folded"]["calls"] for each in of(documents, "folded")]
    assert sum(counts) == 50 - 1 + 1
    assert counts == [19, 20, 10, 1]


def test_nothing_waits_for_the_next_call() -> None:
    sink = Told()
    through = stream(sink, TEN)
    through.take(Batch(seen([elem(), elem()]), OFFSET, now_ns=2 * SECOND))
    assert not of(sink.documents, "folded")
    through.take(Batch([], OFFSET, now_ns=elem().returned_ns + 10 * SECOND + volume.GRACE_NS))
    assert len(of(sink.documents, "folded")) == 1


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ([elem(), elem()], "success"),
        ([elem(retval=-1), elem(retval=-13)], "failure"),
        ([elem(), elem(retval=-1)], "unknown"),
        ([elem(flags=CallFlag.NO_EXIT)] * 2, "unknown"),
    ],
)
def test_the_outcome_is_that_of_all(calls: Sequence[Call], outcome: str) -> None:
    first = elem()._replace(flags=calls[0].flags)
    (folded,) = of(told([first, *calls]), "folded")
    assert folded["event"]["outcome"] == outcome


def test_calls_that_are_remarkable_are_told_apart() -> None:
    """Somebody who changes attr during the call is not lost among those who do not."""
    other = attr("IQQQ", MAP_FD, 0x1000, 0x2000, 4)
    changed = elem()._replace(exit=other)
    documents = told([elem(), elem(), changed, elem(), changed, changed])
    assert [each["bpf"].get("notes") for each in of(documents, "call")] == [
        None, ["toctou_suspect"],
    ]  # fmt: skip
    assert [
        (each["bpf"].get("notes"), each["bpf"]["folded"]["calls"])
        for each in of(documents, "folded")
    ] == [(None, 2), (["toctou_suspect"], 2)]


def test_bytes_are_those_of_keys_and_values() -> None:
    percpu = elem(memory={8: blob(bytes(4)), 16: blob(bytes(64), 4096)})
    assert tally.moved(percpu) == 4 + 4096
    batch = attr("QQQQIIQQ", 0x10, 0x20, 0x30, 0x40, 8, MAP_FD, 0, 0)
    memory = {0: blob(bytes(4)), 8: blob(bytes(4)), 16: blob(bytes(12)), 24: blob(bytes(24))}
    end = call_of(24, batch, retval=-2, objects={36: map_of()}, memory=memory)
    assert tally.moved(end) == 12 + 24
    assert tally.moved(end._replace(retval=-14)) == 0
    assert tally.moved(elem(memory={})) is None
    assert tally.moved(load(0)) is None
    assert "bytes" not in of(told([elem(memory={})] * 2), "folded")[0]["bpf"]["folded"]


def test_a_size_that_somebody_made_up_breaks_nothing() -> None:
    huge = elem(memory={16: blob(b"", (1 << 64) - 1)})
    (folded,) = of(told([huge] * 9), "folded")
    assert folded["bpf"]["folded"]["bytes"] == (1 << 63) - 1


def test_of_many_errors_some_are_told_apart_and_all_counted() -> None:
    failures = [elem(retval=-number) for number in range(1, 60)]
    (folded,) = of(told([elem(), *failures]), "folded")
    about = folded["bpf"]["folded"]
    assert (about["calls"], about["failed"]) == (59, 59)
    assert len(about["errors"]) == group.ERRNOS_MAX
    assert "43 other errors" not in folded["message"]
    assert "56 other errors" in folded["message"]


# --- Walks -------------------------------------------------------------------------------


def walk() -> Iterator[Call]:
    """As bpftool makes them: each program and its map, then the end."""
    for number in (7, 8, 9):
        yield next_id(NEXT_PROG, number - 1, number)
        prog = prog_of(id=number)
        yield call_of(PROG_BY_ID, attr("III", number, 0, 0), retval=4, objects={RESULT: prog})
        yield call_of(INFO, attr("IIQ", 4, 88, 0x1000), objects={0: prog})
    yield call_of(INFO, attr("IIQ", 5, 88, 0x1000), objects={0: map_of()})
    yield call_of(INFO, attr("IIQ", 6, 88, 0x1000), objects={0: link_of()})
    yield call_of(INFO, attr("IIQ", 7, 88, 0x1000), objects={0: btf_of()})
    yield next_id(NEXT_PROG, 9, None)


def test_walks_become_one_inventory() -> None:
    inventory, _ = told([*walk(), *walk()])
    assert inventory["event"]["action"] == "inventory"
    assert inventory["event"]["type"] == ["info"]
    assert "cmd" not in inventory["bpf"]
    assert inventory["bpf"]["inventory"] == {"prog": 3, "map": 1, "link": 1, "btf": 1}
    assert inventory["bpf"]["folded"] == {
        "reason": "aggregate", "calls": 26, "failed": 2,
        "errors": [{"errno": "ENOENT", "calls": 2}],
    }  # fmt: skip
    assert inventory["message"] == (
        "inventory x 26 in 0.0ms, 1 map, 3 progs, 1 link, 1 btf, 2 ENOENT"
    )


def test_all_commands_that_walk_are_walks() -> None:
    names = {COMMANDS[number].name.removeprefix("BPF_") for number in tally.WALKS}
    kinds = [kind.name for kind in ObjectKind]
    assert names == {
        "OBJ_GET_INFO_BY_FD", *(f"{kind}_GET_NEXT_ID" for kind in kinds),
        *(f"{kind}_GET_FD_BY_ID" for kind in kinds),
    }  # fmt: skip
    folded = {number for number, command in COMMANDS.items() if command.data} | tally.WALKS
    assert not [COMMANDS[number].name for number in folded if COMMANDS[number].vital]


def test_what_cannot_be_told_apart_any_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "MET_MAX", 5)
    many = [next_id(NEXT_PROG, n, n + 1) for n in range(20)]
    later = [at(call, 30) for call in many[:3]]
    first, second, _ = told([*many, *many, *later])
    assert first["bpf"]["inventory"] == {"prog": 5, "cut": True}
    assert first["bpf"]["folded"]["calls"] == 40
    assert second["bpf"]["inventory"] == {"prog": 3}


# --- What is told all the same -----------------------------------------------------------

FULL_OF_NINES = detection({"event.action": "map_update_elem", "bpf.memory.key.hex": "09000000"})


def test_rules_see_every_call_and_what_they_find_is_told_before_the_alert() -> None:
    marked = elem(UPDATE, memory={8: blob(pack("=I", 9)), 16: blob(bytes(8))})
    documents = told(
        [*[elem(UPDATE)] * 5, marked, *[elem(UPDATE)] * 5], TEN, judge_of(FULL_OF_NINES)
    )
    kinds = [each["event"]["dataset"].removeprefix("bpfsnoop.") for each in documents]
    assert kinds == ["call", "call", "alert", "folded", "loss"]
    _, evidence, alert, folded, _ = documents
    assert evidence["bpf"]["memory"]["key"]["hex"] == "09000000"
    assert alert["bpf"]["alert"]["events"] == [evidence["event"]["sequence"]]
    assert folded["bpf"]["folded"]["calls"] == 9


def test_an_alert_names_no_event_that_has_no_document() -> None:
    """What was folded has no number, and nothing else's number is taken for it."""
    texts = (
        detection({"event.action": "map_update_elem"}, name="write"),
        correlation(
            "many", type="event_count", rules=["write"], group_by=["process.pid"],
            condition={"gte": 4},
        ),
    )  # fmt: skip
    documents = told([elem(UPDATE)] * 4, TEN, judge_of(*texts))
    (alert,) = of(documents, "alert")
    assert alert["bpf"]["alert"]["events"] == [each["event"]["sequence"]
                                               for each in of(documents, "call")]  # fmt: skip
    assert len(of(documents, "call")) == 2
    assert of(documents, "folded")[0]["bpf"]["folded"]["calls"] == 2


def test_alerts_that_are_held_back_do_not_undo_it() -> None:
    rule = detection({"event.action": "map_update_elem"})
    documents = told([elem(UPDATE)] * 9, TEN, judge_of(rule, interval_ns=60 * SECOND))
    told_of, rest = of(documents, "alert")
    assert (told_of["bpf"]["alert"]["matches"], rest["bpf"]["alert"]["matches"]) == (1, 8)
    assert rest["bpf"]["alert"]["events"] == []
    assert len(of(documents, "call")) == 1
    assert of(documents, "folded")[0]["bpf"]["folded"]["calls"] == 8


def test_who_touches_what_is_ours_is_told() -> None:
    sink = Told()
    through = Stream(
        source(frozenset({(ObjectKind.MAP, 666)})), Selection(), [sink], None, folding=TEN
    )
    through.take(Batch(seen([*[elem(UPDATE)] * 3, *[elem(UPDATE, number=666)] * 3]), OFFSET))
    through.end(None)
    notices = of(sink.documents, "notice")
    assert len(notices) == 3  # each change is told
    numbers = [each["bpf"]["integrity"]["sequence"] for each in notices]
    ours = [each for each in of(sink.documents, "call") if each["bpf"]["map"]["id"] == 666]
    assert numbers == [each["event"]["sequence"] for each in ours]


def test_what_is_asked_for_in_full_is_told_in_full() -> None:
    full = command_set(["map_update_elem", "prog_get_next_id", "prog_load"], dict)
    calls = [elem(UPDATE), next_id(NEXT_PROG, 1, 2), load(), elem()]
    documents = told(calls * 9, Folding(10 * SECOND, 1, full))
    actions = [each["event"]["action"] for each in of(documents, "call")]
    for name in ("map_update_elem", "prog_get_next_id", "prog_load"):
        assert actions.count(name) == 9
    assert [each["event"]["action"] for each in of(documents, "folded")] == ["map_lookup_elem"]


def test_without_an_interval_maps_and_walks_are_told_in_full() -> None:
    documents = told([*[elem()] * 5, *walk()], LIMITED)
    assert [each["event"]["action"] for each in of(documents, "folded")] == []


# --- The rate ----------------------------------------------------------------------------


def test_beyond_its_rate_calls_of_a_process_are_folded() -> None:
    """After a burst of five seconds' worth; another process has its own."""
    flood = [at(load(-n), 0.01 * n) for n in range(1, 101)]
    other = at(load(), 1)._replace(tgid=77)
    documents = told([*flood, other], LIMITED)
    in_full = [each["process"]["pid"] for each in of(documents, "call")]
    assert in_full.count(77) == 1
    assert in_full.count(1234) == rate.BURST_S * 2 + 1  # in this second, two more were due
    (folded,) = of(documents, "folded")
    assert folded["event"]["action"] == "prog_load"
    assert folded["event"]["outcome"] == "failure"
    assert folded["bpf"]["folded"]["reason"] == "rate_limit"
    assert folded["bpf"]["folded"]["calls"] == 100 - 11
    assert folded["message"].endswith("over the rate limit")


def test_a_process_at_its_rate_is_told_in_full_for_ever() -> None:
    documents = told([at(load(), 0.5 * n) for n in range(500)], LIMITED)
    assert len(of(documents, "call")) == 500


def test_a_flood_hides_nothing_that_changed_what_runs() -> None:
    flood = [load()] * 100
    calls = [*flood, load(5), *flood, call_of(999, bytes(8), retval=0), call_of(FREEZE, bytes(4))]
    documents = told(calls, LIMITED)
    passed = [
        each["event"]["action"]
        for each in of(documents, "call")
        if each["event"]["outcome"] == "success"
    ]
    assert passed == ["prog_load", "unknown"]
    folded = of(documents, "folded")
    assert {(each["event"]["action"], each["event"]["outcome"]) for each in folded} == {
        ("prog_load", "failure"), ("map_freeze", "success"),
    }  # fmt: skip


def test_commands_that_do_not_exist_are_one() -> None:
    documents = told([call_of(1000 + n, bytes(8), retval=-22) for n in range(500)], LIMITED)
    (folded,) = of(documents, "folded")
    assert folded["event"]["action"] == "unknown"
    assert "cmd" not in folded["bpf"]
    assert folded["bpf"]["folded"]["calls"] == 500 - rate.BURST_S * 2


# --- Bounds ------------------------------------------------------------------------------


def folded_calls(documents: Sequence[ecs.Document]) -> int:
    return sum(each["bpf"]["folded"]["calls"] for each in of(documents, "folded"))


def test_one_process_with_many_maps_leaves_room_for_others() -> None:
    maps = range(1, 3 * volume.OF_PROCESS_MAX)
    calls = [elem(number=number) for number in maps for _ in range(2)]
    other = [elem()._replace(tgid=77)] * 3
    documents = told([*calls, *other])
    many = [each for each in of(documents, "folded") if each["bpf"]["folded"].get("many_maps")]
    assert len(many) == 1
    assert "map" not in many[0]["bpf"]
    assert "of many maps" in many[0]["message"]
    assert many[0]["process"]["pid"] == 1234
    last = of(documents, "folded")[-1]
    assert (last["process"]["pid"], last["bpf"]["map"]["id"]) == (77, 12)
    assert len(of(documents, "call")) + folded_calls(documents) == len(calls) + len(other)


def test_too_many_processes_are_one() -> None:
    pids = range(1000, 1000 + 2 * volume.PROCESSES_MAX)
    calls = [elem()._replace(tgid=pid) for pid in pids for _ in range(3)]
    documents = told(calls)
    (many,) = [each for each in of(documents, "folded")
               if each["bpf"]["folded"].get("many_processes")]  # fmt: skip
    assert not {"process", "user"} & set(many)
    assert many["bpf"]["folded"]["calls"] == 3 * volume.PROCESSES_MAX
    assert len(of(documents, "call")) == volume.PROCESSES_MAX
    assert len(of(documents, "call")) + folded_calls(documents) == len(calls)


def test_room_is_given_back() -> None:
    pids = range(1000, 1000 + volume.PROCESSES_MAX)
    calls = [elem()._replace(tgid=pid) for pid in pids]
    documents = told([*calls, *(at(elem()._replace(tgid=pid + 10_000), 60) for pid in pids)])
    assert len(of(documents, "call")) == 2 * volume.PROCESSES_MAX


# --- Whatever comes ----------------------------------------------------------------------

COMMANDS_TRIED: Final = (LOOKUP, UPDATE, 4, 24, LOAD, NEXT_PROG, PROG_BY_ID, INFO, FREEZE, 999)
ANY_CALL = st.builds(
    lambda cmd, tgid, number, retval, flags, gap, entry, exit_: at(
        call_of(
            cmd, entry, exit_, retval=0 if flags & CallFlag.NO_EXIT else retval, flags=flags,
            objects={0: map_of(id=number)} if number else {}, memory=KEY_ALONE,
        ),
        gap,
    )._replace(tgid=tgid),
    st.sampled_from(COMMANDS_TRIED),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from([0, 0, 0, 3, -1, -2, -22]),
    st.sampled_from([0, 0, 0, int(CallFlag.NO_EXIT), int(CallFlag.NO_ENTRY)]),
    st.floats(0, 5),
    st.sampled_from([bytes(32), bytes(12), b""]),
    st.none() | st.binary(max_size=40),
)  # fmt: skip
FOLDINGS = st.builds(
    lambda seconds, limit, full: Folding(
        seconds * SECOND, limit, command_set(full, dict) if full else NO_COMMANDS
    ),
    st.sampled_from([0, 1, 10]), st.sampled_from([0, 1, 50]),
    st.sampled_from([[], ["@data"], ["map_update_elem"]]),
)  # fmt: skip
WRITES = detection({"event.action": "map_update_elem", "bpf.map.id": 3})


def later_and_later(calls: Sequence[Call]) -> list[Call]:
    passed = 0
    spread = []
    for call in calls:
        passed += call.start_ns
        spread.append(call._replace(start_ns=passed))
    return spread


@settings(deadline=None)
@given(st.lists(ANY_CALL, max_size=40), FOLDINGS, st.booleans(), st.booleans())
def test_every_call_is_told_or_counted(
    calls: list[Call], folding: Folding, judged: bool, crowded: bool
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        if crowded:
            for name in ("GROUPS_MAX", "PROCESSES_MAX", "OF_PROCESS_MAX", "MET_MAX"):
                patched.setattr(volume, name, 2)
        documents = told(later_and_later(calls), folding, judge_of(WRITES) if judged else None)
    assert len(of(documents, "call")) + folded_calls(documents) == len(calls)
    numbers = [each["event"]["sequence"] for each in documents]
    assert numbers == list(range(1, len(documents) + 1))
    assert documents[-1]["event"]["action"] == "loss"
    in_full = {each["event"]["sequence"] for each in of(documents, "call")}
    for alert in of(documents, "alert"):
        assert set(alert["bpf"]["alert"]["events"]) <= in_full
        assert alert["event"]["sequence"] - 1 in in_full
    bound = [each["bpf"]["folded"] for each in of(documents, "folded")]
    assert all(each["failed"] <= each["calls"] for each in bound)


@settings(deadline=None)
@given(st.lists(ANY_CALL, max_size=30), FOLDINGS, st.lists(st.integers(0, 30), max_size=4))
def test_a_replay_tells_the_same_as_the_live_run(
    calls: list[Call], folding: Folding, cuts: list[int]
) -> None:
    """However the calls come in batches, and although only a live run knows what time it is."""
    calls = later_and_later(calls)
    live = Told()
    through = stream(live, folding)
    places = sorted({0, len(calls), *(cut for cut in cuts if cut < len(calls))})
    all_seen = seen(calls)
    for begin, end in pairwise(places):
        newest = calls[end - 1].returned_ns
        through.take(Batch(all_seen[begin:end], OFFSET, now_ns=newest + SECOND // 2))
    through.end(TOTALS)
    assert live.documents == told(calls, folding)


@settings(deadline=None)
@given(ANY_CALL, st.booleans(), st.booleans())
def test_of_a_plain_call_there_is_nothing_to_say(
    call: Call, sees_inside: bool, copied: bool
) -> None:
    decoder = Decoder(sees_inside=sees_inside)
    call = call._replace(kernel=call.entry if copied else None)
    event = decoder.decode(call)
    if decoder.is_plain(call):
        assert not event.remarks
        assert not event.differs
        assert event.attr is not None


def test_most_calls_are_plain() -> None:
    """Else the test above would say little."""
    decoder = Decoder(sees_inside=False)
    assert decoder.is_plain(elem())
    assert decoder.is_plain(elem(retval=-2))
    assert decoder.is_plain(call_of(INFO, attr("IIQ", 5, 88, 0x1000), objects={0: map_of()}))


# --- As they are shown -------------------------------------------------------------------


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(str(tmp_path / "out"))
    made.begin()
    yield made
    made.end()


def lines(output: Output, style: TextStyle, calls: Sequence[Call], folding: Folding) -> list[str]:
    through = stream(TextSink(output, style), folding)
    through.take(Batch(seen(calls), OFFSET))
    through.end(None)
    output.flush()
    return Path(f"/proc/self/fd/{output.fileno()}").resolve().read_text().splitlines()


def test_a_line_for_people(output: Output) -> None:
    calls = [at(elem(UPDATE), 0.5 * n) for n in range(9)] + [at(elem(UPDATE, retval=-7), 4.5)]
    style = replace(PLAIN, process=True)
    first, others = lines(output, style, calls, TEN)
    assert first.startswith("loader[1234] bpf(BPF_MAP_UPDATE_ELEM, {map_fd=3<map:12")
    assert others == (
        '+++ loader[1234] bpf(BPF_MAP_UPDATE_ELEM) of map:12 hash "config" x 9 in 4.0s,'
        " 1 E2BIG, 96 bytes +++"
    )


def test_who_walks_is_introduced(output: Output) -> None:
    style = replace(PLAIN, process=True, introduce=True, color=True)
    who, inventory = lines(output, style, list(walk()), TEN)
    assert '--- loader[1234] {exe="/usr/bin/loader"' in who
    assert inventory == (
        "\x1b[2m+++ loader[1234] inventory x 13 in 0.0ms, 1 map, 3 progs, 1 link, 1 btf,"
        " 1 ENOENT +++\x1b[0m"
    )


def test_many_processes_have_no_name(output: Output) -> None:
    calls = [elem()._replace(tgid=pid) for pid in range(1, volume.PROCESSES_MAX + 2)]
    *_, last = lines(output, replace(PLAIN, process=True), calls, TEN)
    assert last == "+++ many processes bpf(BPF_MAP_LOOKUP_ELEM) of many maps x 1, 12 bytes +++"


def test_alerts_alone_are_alone() -> None:
    sink = Told()
    through = stream(AlertsOnly(sink), TEN)
    through.take(Batch(seen([elem()] * 5), OFFSET))
    through.end(TOTALS)
    assert [each["event"]["action"] for each in sink.documents] == ["loss"]


def test_the_line_is_in_the_document_only_if_asked_for(output: Output) -> None:
    through = stream(JsonSink(output, ORIGIN, None), TEN)
    through.take(Batch(seen([elem()] * 3), OFFSET))
    through.end(None)
    output.flush()
    text = Path(f"/proc/self/fd/{output.fileno()}").resolve().read_text()
    assert "bpfsnoop.folded" in text
    assert "message" not in text


def test_a_limit_of_events_counts_what_is_folded() -> None:
    sink = Told()
    through = stream(sink, TEN, max_events=7)
    numbers = count()
    while not through.is_full:
        through.take(Batch(seen([elem()] * 3), OFFSET))
        assert next(numbers) < 3
    through.end(TOTALS)
    assert len(of(sink.documents, "call")) + folded_calls(sink.documents) == 7


def test_no_number_is_used_twice_however_much_was_lost() -> None:
    """By a daemon and the one after it, each of which begins with the time."""
    now = 1_000
    sinks = Told(), Told()
    for sink in sinks:
        through = Stream(source(), Selection(), [sink], None, clock=lambda: now)  # noqa: B023
        now += 500  # numbers that there may be by now
        for lost in 100, 1_000_000:
            counts = {1: CommandCount(lost + 1, lost)}
            through.losses(TOTALS._replace(counts=counts), final=False)
        now += 10
    numbers = [[one["event"]["sequence"] for one in sink.documents] for sink in sinks]
    assert numbers[0] == [1_100, 1_501]
    assert max(numbers[0]) < 1_510 <= min(numbers[1])
