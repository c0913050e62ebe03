# SPDX-License-Identifier: Apache-2.0
"""The engine: which rules are asked at all, what a match says, what it takes for a document."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import UsageError
from bpfsnoop.rules.condition import condition, possible
from bpfsnoop.rules.engine import Engine, can_match
from bpfsnoop.rules.rule import OPERATORS, All, AnyOf, Ask, Correlation, Node, Not, Rule
from rule_texts import correlation, detection, event, rules, told

LOAD = Ask("event.action", "equals", "prog_load")
ROOT = Ask("user.id", "number", 0)


# --- Which rules are asked ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "can"),
    [
        (LOAD, {"prog_load"}),
        (All((LOAD, ROOT)), {"prog_load"}),
        (ROOT, {"prog_load", "map_create", "map_freeze", None}),
        (AnyOf((LOAD, Ask("event.action", "like", "map_*e"))),
         {"prog_load", "map_create", "map_freeze"}),
        (AnyOf((LOAD, ROOT)), {"prog_load", "map_create", "map_freeze", None}),
        (Not(LOAD), {"map_create", "map_freeze", None}),
        (Not(All((LOAD, ROOT))), {"prog_load", "map_create", "map_freeze", None}),
        (Not(AnyOf((LOAD, ROOT))), {"map_create", "map_freeze", None}),
        (All((LOAD, Ask("event.action", "equals", "map_create"))), set()),
        (Ask("event.action", "matches", "^map"), {"map_create", "map_freeze"}),
        (Ask("event.action", "exists", value=False), {None}),
        (Ask("event.action", "field", "process.name"),
         {"prog_load", "map_create", "map_freeze", None}),
    ],
)  # fmt: skip
def test_the_actions_that_a_rule_can_match_are_known(node: Node, can: set[str | None]) -> None:
    actions = ("prog_load", "map_create", "map_freeze", None)
    assert {action for action in actions if possible(node, action)[0]} == can


def test_a_rule_for_another_action_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([Rule("a", All((LOAD, ROOT))), Rule("b", All((LOAD, Not(ROOT))))])
    assert engine.feed(event(event__action="map_create", user__id="0"), 0) == []
    monkeypatch.setattr(Engine, "_holds", lambda *_: pytest.fail("it was asked"))
    assert engine.feed(event(event__action="map_create", user__id="0"), 0) == []


def test_a_listing_can_ask_for_the_actions_of_a_rule() -> None:
    assert can_match(Rule("a", LOAD), "prog_load")
    assert not can_match(Rule("a", LOAD), "map_create")
    assert not can_match(Rule("a", Correlation("temporal", ("b",), 60, 1)), "prog_load")


@pytest.mark.parametrize("action", [None, 7, ["prog_load"], {"a": 1}, [], ["x", "prog_load"]])
def test_an_action_that_is_no_text_keeps_no_rule_from_being_asked(action: Any) -> None:
    engine = Engine([Rule("a", Not(ROOT)), Rule("b", LOAD)])
    found = told(engine.feed({"event": {"action": action}}, 0))
    assert found[0] == ("a", ())
    assert (len(found) == 2) is (isinstance(action, list) and "prog_load" in action)


def test_ever_new_actions_take_no_more_room() -> None:
    engine = Engine([Rule("a", ROOT)])
    for number in range(3_000):
        assert engine.feed({"event": {"action": f"a{number}"}, "user": {"id": "0"}}, 0)
    assert len(engine._index) <= 1_000


# --- What a match says -------------------------------------------------------------------


def test_a_match_says_which_values_made_it() -> None:
    text = detection(
        {
            "event.action": "prog_load",
            "bpf.prog.helpers": ["probe_write_user", "override_return"],
            "process.ancestors.name|contains": "ssh",
            "process.args|neq": "--quiet",
        }
    )
    (match,) = Engine(rules(text)).feed(
        event(
            42,
            event__action="prog_load",
            bpf__prog__helpers=["map_lookup_elem", "override_return", "probe_write_user"],
            process__ancestors=[{"name": "bash"}, {"name": "sshd"}, {"name": "sshd"}],
        ),
        1_000,
    )
    assert match.rule.name == "rule"
    assert match.sequences == (42,)
    assert match.time_ns == 1_000
    assert match.matched == {
        "event.action": ["prog_load"],
        "bpf.prog.helpers": ["override_return", "probe_write_user"],
        "process.ancestors.name": ["sshd"],
    }


def test_matches_come_in_the_order_of_the_rules_then_correlations() -> None:
    loads = {"event.action": "prog_load"}
    engine = Engine(
        rules(
            correlation("twice", type="temporal", rules=["b", "a"], generate=True),
            detection(loads, name="b"),
            detection(loads, name="a"),
        )
    )
    found = told(engine.feed(event(1, event__action="prog_load"), 0))
    assert found == [("b", (1,)), ("a", (1,)), ("twice", (1,))]


# --- All or nothing ----------------------------------------------------------------------


def test_an_engine_says_all_that_is_wrong_with_its_rules() -> None:
    broken = [
        Rule("a", Ask("process.name", "matches", "("), name="a", path="x.yml", line=3),
        Rule("b", Ask("source.ip", "cidr", "nowhere"), name="b", path="x.yml", line=9),
        Rule("c", ROOT, name="a", path="y.yml", line=1),
        Rule("d", Correlation("temporal", ("bb", "d"), 60, 2, line=5), name="d", path="z.yml"),
    ]
    with pytest.raises(UsageError) as caught:
        Engine(broken)
    told_of = sorted((mistake.path, mistake.line) for mistake in caught.value.mistakes)
    assert told_of == [("x.yml", 3), ("x.yml", 9), ("y.yml", 1), ("z.yml", 5), ("z.yml", 5)]


def test_correlations_may_not_go_round_in_circles() -> None:
    circle = [
        Rule("a", Correlation("temporal", ("b",), 60, 1), name="a"),
        Rule("b", Correlation("temporal", ("c",), 60, 1), name="b"),
        Rule("c", Correlation("temporal", ("a",), 60, 1), name="c"),
    ]
    with pytest.raises(UsageError, match="refers to itself"):
        Engine(circle)


# --- Documents of any shape --------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NAMES = st.sampled_from(["event", "action", "process", "name", "user", "id", "a", "sequence"])
SHAPES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(NAMES, SHAPES, max_size=4)
FIELDS = st.sampled_from(["event.action", "process.name", "user.id", "a", "a.id.name.a", "event"])
OPERANDS: Mapping[str, Any] = {
    "matches": "^a|b", "cidr": "::/0", "field": "user.id", "exists": True, "boolean": False,
}  # fmt: skip


def _operand(op: str) -> Any:
    return OPERANDS.get(op, 1 if OPERATORS[op] == (int, float) else "a*?")


NODES: st.SearchStrategy[Node] = st.recursive(
    st.builds(
        lambda field, op, cased: Ask(field, op, _operand(op), cased),
        FIELDS, st.sampled_from(sorted(OPERATORS)), st.booleans(),
    ),
    lambda inner: st.builds(Not, inner)
    | st.builds(lambda nodes: All(tuple(nodes)), st.lists(inner, min_size=1, max_size=4))
    | st.builds(lambda nodes: AnyOf(tuple(nodes)), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=10,
)  # fmt: skip


@given(NODES, DOCUMENTS)
def test_any_document_can_be_judged(node: Node, document: dict[str, Any]) -> None:
    judged = condition(node)
    assert judged.holds(document) in (True, False)
    assert condition(Not(node)).holds(document) is not judged.holds(document)
    for field, _ in judged.evidence(document):
        assert isinstance(field, str)


@given(NODES, DOCUMENTS, st.sampled_from(["prog_load", "a", ""]))
def test_the_index_leaves_no_match_out(node: Node, document: dict[str, Any], action: str) -> None:
    document = {**document, "event": {"action": action}}
    if condition(node).holds(document):
        assert possible(node, action)[0]
    else:
        assert possible(node, action)[1]


KINDS: Sequence[Correlation] = [
    Correlation("event_count", ("r",), 60, 2, group_by=("user.id",)),
    Correlation("value_count", ("r",), 60, 2, fields=("a",)),
    Correlation("value_count", ("r",), 60, 2, fields=("a", "user.id")),
    Correlation(
        "temporal", ("r", "s"), 60, 2, group_by=("g",), aliases={"g": {"r": "user.id", "s": "a"}}
    ),
    Correlation("temporal_ordered", ("r", "s"), 60, 2),
]


@given(st.lists(st.tuples(DOCUMENTS, st.integers(-(10**12), 10**12)), max_size=8))
def test_any_documents_can_be_correlated(events: list[tuple[dict[str, Any], int]]) -> None:
    made = [Rule(str(n), body, name=f"c{n}") for n, body in enumerate(KINDS)]
    always = Ask("event.nothing", "exists", value=False)
    engine = Engine([Rule("r", always, name="r"), Rule("s", always, name="s"), *made])
    for document, when in events:
        for match in engine.feed(document, when):
            assert all(type(number) is int for number in match.sequences)


# --- What a hostile pattern or text costs ------------------------------------------------


@pytest.mark.parametrize(
    ("op", "pattern"),
    [
        ("matches", "(a+)+$"),
        ("matches", "(a|a)*b"),
        ("matches", "a*a*a*a*a*a*b"),
        ("matches", "(.*)*x"),
        ("matches", r"^(\w+\s?)*$"),
        ("like", "*a" * 400 + "b"),
        ("like", "*" * 900 + "b"),
        ("like", "*?" * 400 + "b"),
        ("like", "*" + "a" * 900 + "b*"),
    ],
)
def test_no_pattern_stalls_the_engine(op: str, pattern: str) -> None:
    """Python's own expressions would take longer than the universe will last."""
    judged = condition(Ask("process.name", op, pattern))
    before = time.process_time()
    judged.holds({"process": {"name": "a" * 100_000 + "!"}})
    assert time.process_time() - before < 10
