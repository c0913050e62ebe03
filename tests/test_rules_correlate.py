# SPDX-License-Identifier: Apache-2.0
"""Correlations: what several events come to, and what that may cost."""

import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bpfsnoop.rules import correlate
from bpfsnoop.rules.engine import Engine
from rule_texts import SECOND, correlation, detection, event, rules, told

LOAD = detection({"event.action": "prog_load"}, name="load")
PIN = detection({"event.action": "obj_pin"}, name="pin")
LINK = detection({"event.action": "link_create"}, name="link")

Step = tuple[float, str, int]
"""When, in seconds; what; which process."""


def results(about: Mapping[str, Any], steps: Sequence[Step], *more: str) -> list[tuple[int, ...]]:
    """The events of each result of a correlation over these, which are numbered from 0."""
    engine = Engine(rules(LOAD, PIN, LINK, correlation("it", **about), *more))
    found = []
    for number, (when, action, pid) in enumerate(steps):
        document = event(number, event__action=action, process__pid=pid)
        found += told(engine.feed(document, round(when * SECOND)))
    return [sequences for name, sequences in found if name == "it"]


def _loads(*times: float, pid: int = 1) -> list[Step]:
    return [(when, "prog_load", pid) for when in times]


def counting(least: int = 3, **about: Any) -> dict[str, Any]:
    return {"type": "event_count", "rules": ["load"], "condition": {"gte": least}, **about}


def ordered(**about: Any) -> dict[str, Any]:
    return {"type": "temporal_ordered", "rules": ["load", "link", "pin"], **about}


# --- event_count -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([0, 1, 2], [(0, 1, 2)]),
        ([0, 1], []),
        ([0, 30, 60], [(0, 1, 2)]),
        ([0, 30, 60.1], []),
        ([0, 30, 60.1, 61], [(1, 2, 3)]),
        ([0, 1, 2, 3, 4], [(0, 1, 2)]),
        ([0, 1, 2, 3, 4, 5], [(0, 1, 2), (3, 4, 5)]),
        ([10, 5, 0], [(2, 1, 0)]),
        ([100, 99, 0, 101], [(1, 0, 3)]),
    ],
    ids=str,
)
def test_so_many_events_within_a_time(times: list[float], found: list[tuple[int, ...]]) -> None:
    """Late ones count where they belong. After a result, counting begins anew."""
    assert results(counting(), _loads(*times)) == found


@pytest.mark.parametrize(
    ("limit", "times"),
    [({"gte": 2}, 2), ({"gt": 1}, 2), ({"eq": 2}, 2), ({"gte": 1}, 1), ({"gte": 1.5}, 2)],
)
def test_the_number_can_be_said_in_several_ways(limit: Mapping[str, Any], times: int) -> None:
    about = counting(condition=limit)
    assert results(about, _loads(*range(times))) == [tuple(range(times))]
    assert results(about, _loads(*range(times - 1))) == []


def test_groups_are_told_apart() -> None:
    steps = [(n, "prog_load", pid) for n, pid in enumerate([1, 2, 1, 2, 1, 3])]
    assert results(counting(group_by=["process.pid"]), steps) == [(0, 2, 4)]
    assert results(counting(group_by="process.pid"), steps) == [(0, 2, 4)]
    assert results(counting(), steps) == [(0, 1, 2), (3, 4, 5)]


def test_an_event_without_a_field_of_the_group_belongs_to_none() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(group_by=["container.id"]))))
    for number in range(5):
        assert not engine.feed(event(number, event__action="prog_load"), 0)


def test_other_events_do_not_count() -> None:
    steps = [(0, "prog_load", 1), (1, "obj_pin", 1), (2, "prog_load", 1), (3, "map_create", 1)]
    assert results(counting(), steps) == []
    assert results(counting(rules=["load", "pin"]), steps) == [(0, 1, 2)]


def test_an_event_counts_once_however_many_of_the_rules_it_matches() -> None:
    other = detection({"process.pid": 1}, name="other")
    assert results(counting(rules=["load", "other"]), _loads(0, 1, 2), other) == [(0, 1, 2)]
    assert results(counting(rules=["load", "load"]), _loads(0, 1, 2)) == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("timespan", "apart"), [("2s", 2), ("2m", 120), ("1h", 3600), ("1d", 86_400), ("1w", 604_800)]
)
def test_time_spans_have_units(timespan: str, apart: int) -> None:
    about = counting(2, timespan=timespan)
    assert results(about, _loads(0, apart)) == [(0, 1)]
    assert results(about, _loads(0, apart + 1)) == []


# --- value_count -------------------------------------------------------------------------


def _values(*given: Any, field: Any = "process.name", least: int = 3) -> list[tuple[int, ...]]:
    about = {"type": "value_count", "rules": ["load"], "condition": {"gte": least, "field": field}}
    engine = Engine(rules(LOAD, correlation("it", **about)))
    found = []
    for number, (when, value) in enumerate(given):
        fields = {} if value is None else {"process__name": value}
        document = event(number, event__action="prog_load", process__pid=number % 2, **fields)
        found += told(engine.feed(document, round(when * SECOND)))
    return [sequences for _, sequences in found]


def test_so_many_different_values() -> None:
    assert _values((0, "a"), (1, "b"), (2, "c")) == [(0, 1, 2)]
    assert _values((0, "a"), (1, "b"), (2, "a"), (3, "b")) == []
    assert _values((0, "a"), (1, "b"), (2, None), (3, "c")) == [(0, 1, 3)]
    assert _values((0, "a"), (50, "b"), (61, "c")) == []
    assert _values((0, "a"), (50, "b"), (55, "a"), (61, "c")) == [(1, 2, 3)], "its last event"
    assert _values((60, "a"), (50, "b"), (55, "c")) == [(1, 2, 0)], "late"
    assert _values((0, "b"), (70, "a"), (9, "c"), (71, "d"), (72, "e")) == [(1, 3, 4)]


def test_of_a_list_each_value_counts() -> None:
    assert _values((0, ["a", "b"]), (1, ["b", "c"])) == [(0, 1)]
    assert _values((0, ["a", "a"]), (1, ["b", []])) == []


def test_several_fields_count_together() -> None:
    fields = ["process.name", "process.pid"]
    assert _values((0, "a"), (1, "a"), (2, "b"), (3, "a"), field=fields) == [(0, 1, 2)]
    assert _values((0, "a"), (1, "a"), (2, "a"), field=fields) == []


# --- temporal ----------------------------------------------------------------------------


def test_all_of_the_rules_in_any_order() -> None:
    about = {"type": "temporal", "rules": ["load", "link", "pin"]}
    steps = [(0, "obj_pin", 1), (1, "prog_load", 1), (2, "prog_load", 1), (3, "link_create", 1)]
    assert results(about, steps) == [(0, 2, 3)]
    assert results(about, [*steps[:3], (61, "link_create", 1)]) == []
    assert results(about, [(3, "prog_load", 1), *steps[:1], (2, "link_create", 1)]) == [(1, 2, 0)]


def test_some_of_the_rules() -> None:
    about = {"type": "temporal", "rules": ["load", "link", "pin"], "condition": {"gte": 2}}
    assert results(about, [(0, "obj_pin", 1), (1, "prog_load", 1)]) == [(0, 1)]
    assert results(about, _loads(0, 1)) == []


@pytest.mark.parametrize(
    ("actions", "found"),
    [
        (["prog_load", "link_create", "obj_pin"], [(0, 1, 2)]),
        (["prog_load", "obj_pin", "link_create"], []),
        (["link_create", "prog_load", "obj_pin", "link_create"], []),
        (["prog_load", "obj_pin", "link_create", "obj_pin"], [(0, 2, 3)]),
        (["prog_load", "link_create", "prog_load", "obj_pin"], [(0, 1, 3)]),
        (["prog_load", "prog_load", "link_create", "link_create", "obj_pin"], [(1, 3, 4)]),
    ],
)
def test_one_after_the_other(actions: list[str], found: list[tuple[int, ...]]) -> None:
    steps = [(when, action, 1) for when, action in enumerate(actions)]
    assert results(ordered(), [(float(when), what, pid) for when, what, pid in steps]) == found


def test_one_after_the_other_in_time_not_in_arrival() -> None:
    late = [(0.0, "prog_load", 1), (20.0, "obj_pin", 1), (10.0, "link_create", 1)]
    assert results(ordered(), late) == [(0, 2, 1)]
    assert (
        results(ordered(), [(0, "prog_load", 1), (20, "obj_pin", 1), (30, "link_create", 1)]) == []
    )
    assert (
        results(ordered(), [(0, "prog_load", 1), (20, "link_create", 1), (61, "obj_pin", 1)]) == []
    )


@pytest.mark.parametrize("flood", ["prog_load", "link_create", "obj_pin"])
def test_a_flood_in_between_hides_no_chain(flood: str) -> None:
    """Whoever knows the rule could make so many of its events that the first are forgotten."""
    head = [(0.0, "obj_pin", 1), (1.0, "prog_load", 1), (2.0, "link_create", 1)]
    masses = [(3.0 + n / 1_000, flood, 1) for n in range(1_000)]
    assert results(ordered(rules=["pin", "load", "link", "freeze"]),
                   [*head, *masses, (5.0, "map_freeze", 1)],
                   detection({"event.action": "map_freeze"}, name="freeze"))  # fmt: skip


def test_what_comes_after_it_can_arrive_before_it() -> None:
    every = [(2.0, "obj_pin", 1), (1.0, "link_create", 1), (0.0, "prog_load", 1)]
    assert results(ordered(), every) == [(2, 1, 0)]


def test_an_event_does_not_follow_itself() -> None:
    about = {"type": "temporal_ordered", "rules": ["load", "load"]}
    assert results(about, _loads(0)) == []
    assert results(about, _loads(0, 1)) == [(0, 1)]


# --- Aliases, chains, output -------------------------------------------------------------


def test_an_alias_is_another_field_for_each_rule() -> None:
    about = {
        "type": "temporal",
        "rules": ["load", "pin"],
        "group-by": ["who"],
        "aliases": {"who": {"load": "process.pid", "pin": "process.parent.pid"}},
    }
    engine = Engine(rules(LOAD, PIN, correlation("it", **about)))
    pin = {"event__action": "obj_pin", "process__parent__pid": 7}
    assert not engine.feed(event(1, event__action="prog_load", process__pid=7), 0)
    assert not engine.feed(event(2, **{**pin, "process__parent__pid": 8}, process__pid=7), 0)
    (match,) = engine.feed(event(3, **pin), 0)
    assert match.sequences == (1, 3)
    assert match.matched == {"who": [7]}


@pytest.mark.parametrize("order", [["load", "one"], ["one", "load"]])
def test_an_event_without_the_field_of_one_rule_counts_by_another(order: list[str]) -> None:
    about = counting(
        2,
        rules=order,
        group_by=["who"],
        aliases={"who": {"load": "process.parent.pid", "one": "process.pid"}},
    )
    one = detection({"process.pid": 1}, name="one")
    assert results(about, _loads(0, 1), one) == [(0, 1)]


def test_a_correlation_can_be_part_of_another() -> None:
    """All the events that led to it are named."""
    burst = correlation("burst", **counting(2, group_by=["process.pid"]))
    about = {"type": "temporal_ordered", "rules": ["burst", "pin"], "group-by": ["process.pid"]}
    steps = [*_loads(0, 1), (2.0, "obj_pin", 2), (3.0, "obj_pin", 1)]
    assert results(about, steps, burst) == [(0, 1, 3)]


def test_correlations_over_correlations_do_not_multiply() -> None:
    """Each would have two results for each of those below it: a million on top."""
    pairs = [
        correlation(f"{side}{n}", type="temporal", rules=[f"a{n - 1}", f"b{n - 1}"],
                    condition={"gte": 1}, generate=True)
        for n in range(1, 21) for side in "ab"
    ]  # fmt: skip
    ground = [detection({"event.action": "prog_load"}, name=f"{side}0") for side in "ab"]
    found = Engine(rules(*ground, *pairs)).feed(event(1, event__action="prog_load"), 0)
    assert len(found) == 42


@pytest.mark.parametrize("generate", [False, True])
def test_rules_that_serve_a_correlation_are_silent_unless_it_says_otherwise(
    generate: bool,
) -> None:
    engine = Engine(rules(LOAD, PIN, correlation("it", **counting(2), generate=generate)))
    found = [told(engine.feed(event(n, event__action="prog_load"), 0)) for n in range(2)]
    own = [[("load", (0,))], [("load", (1,))]] if generate else [[], []]
    assert found == [own[0], [*own[1], ("it", (0, 1))]]
    assert told(engine.feed(event(3, event__action="obj_pin"), 0)) == [("pin", (3,))]


def test_a_result_says_which_group_it_is_about() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(1, group_by=["process.pid"]))))
    (match,) = engine.feed(event(5, event__action="prog_load", process__pid=9), 7)
    assert (match.matched, match.time_ns) == ({"process.pid": [9]}, 7)


# --- Bounds ------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [1, 64])
def test_ever_new_groups_take_no_more_room(names: int) -> None:
    """Whoever makes them chooses names as long as he likes, and as many."""
    engine = Engine(rules(LOAD, correlation("it", **counting(2, group_by=["process.args"]))))
    tracemalloc.start()
    for number in range(50_000):
        args = [f"{number}" + "x" * (2_000 // names)] * names
        engine.feed(event(number, event__action="prog_load", process__args=args), number)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert engine.forgotten == 50_000 - correlate.GROUPS_MAX
    assert peak < 40 << 20


def test_long_names_that_begin_the_same_are_other_groups() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(2, group_by=["process.args"]))))
    for args in (["x" * 999 + "a"], ["x" * 999 + "b"], ["x" * 300] * 3, ["x" * 300] * 4, ["xa"]):
        assert not engine.feed(event(0, event__action="prog_load", process__args=args), 0)
    again = event(1, event__action="prog_load", process__args=["x" * 300] * 4)
    assert told(engine.feed(again, 1)) == [("it", (0, 1))]


def test_a_group_takes_no_more_room_than_it_counts() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(10_000))))
    (correlator,) = (entry.correlator for entry in engine._entries if entry.correlator)
    for number in range(30_000):  # a second apart: never so many within the minute
        assert not engine.feed(event(number, event__action="prog_load"), number * SECOND)
    assert correlator._held <= 10_000
    assert engine.forgotten == 0


def test_many_large_groups_share_the_room() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(5_000, group_by=["process.pid"]))))
    (correlator,) = (entry.correlator for entry in engine._entries if entry.correlator)
    for number in range(4_000 * 14):
        document = event(number, event__action="prog_load", process__pid=number // 4_000)
        engine.feed(document, number)
    assert correlator._held <= correlate.EVENTS_MAX
    assert engine.forgotten == 2


def test_groups_whose_time_is_over_go_uncounted() -> None:
    engine = Engine(rules(LOAD, correlation("it", **counting(2, group_by=["process.pid"]))))
    (correlator,) = (entry.correlator for entry in engine._entries if entry.correlator)
    for number in range(1_000):
        document = event(number, event__action="prog_load", process__pid=number)
        engine.feed(document, number * SECOND)
    assert len(correlator._groups) <= 61
    assert engine.forgotten == 0
