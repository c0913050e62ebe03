# SPDX-License-Identifier: Apache-2.0
"""Rules as JSON, and JSON that is none."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.rules.engine import Engine
from bpfsnoop.rules.rule import All, AnyOf, Ask, Correlation, Not, Rule, from_json, to_json
from rule_texts import with_another_part

ASK = Ask("process.name", "startswith", "a", cased=True)
RULE = Rule(
    "A rule", All((ASK, Not(AnyOf((Ask("user.id", "number", 0), Ask("a", "exists", value=True)))))),
    name="a", id="5d1b3a52", level="high", tags=("attack.t1014",), filters=("site",),
    path="a.yml", line=3,
)  # fmt: skip
BODY = Correlation("temporal", ("a", "b"), 60, 2, ("who",), {"who": {"a": "user.id"}}, line=4)
BOTH = (RULE, Rule("Two", BODY, name="c"))


def test_rules_survive_being_written_and_read() -> None:
    assert from_json(json.loads(json.dumps(to_json(BOTH)))) == BOTH


def _changed(change: Callable[[Any], None]) -> Any:
    data = json.loads(json.dumps(to_json(BOTH)))
    change(data)
    return data


def _set(*path: Any) -> Callable[[Any], None]:
    *inner, last, value = path

    def change(data: Any) -> None:
        for key in inner:
            data = data[key]
        data[last] = value

    return change


DEEP: Any = {"field": "a", "op": "equals", "value": "", "cased": False}
for _ in range(70):
    DEEP = {"not": DEEP}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(0, 7), r"\[0\]: must be an object with title"),
        (_set(0, "title", 7), r"\[0\]: title: must be a string"),
        (_set(0, "extra", 7), "must be an object with"),
        (_set(0, "line", -1), "line: must be a whole number"),
        (_set(0, "line", True), "line: must be a whole number"),
        (_set(0, "tags", ["a", None]), r"tags: \[1\]: must be a string"),
        (_set(0, "body", 7), "body: must be a test"),
        (_set(0, "body", {}), "body: must be an object with field"),
        (_set(0, "body", {"all": []}), "all: must be a list that is not empty"),
        (_set(0, "body", "all", 0, "op", "eval"), r"body: all: \[0\]: op: must be one of"),
        (_set(0, "body", "all", 0, "op", ["equals"]), "op: must be one of"),
        (_set(0, "body", "all", 0, "value", 7), "value: must be str"),
        (_set(0, "body", "all", 0, "value", None), "value: must be str"),
        (_set(0, "body", "all", 1, "not", "any", 0, "value", True), "value: must be int or float"),
        (_set(0, "body", DEEP), "nested too deeply"),
        (_set(1, "body", "kind", "value_sum"), "kind: must be one of"),
        (_set(1, "body", "rules", []), "rules: must be a list that is not empty"),
        (_set(1, "body", "timespan_s", 0), "timespan_s: must be a whole number"),
        (_set(1, "body", "at_least", 1 << 40), "at_least: must be a whole number"),
        (_set(1, "body", "aliases", {"who": {"a": 7}}), "aliases: who: a: must be a string"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(
    change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(_changed(change))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(VALUES)
def test_any_json_is_rules_or_refused(data: Any) -> None:
    try:
        taken = from_json(data)
    except ValueError:
        return
    assert taken == ()


@given(st.data())
def test_rules_with_anything_in_them_are_rules_or_refused(data: st.DataObject) -> None:
    """And what is taken can be judged by."""
    whole = json.loads(json.dumps(to_json((RULE,))))
    try:
        taken = from_json(with_another_part(data, whole, VALUES))
    except ValueError:
        return
    Engine(taken).feed({"event": {"action": "a"}}, 0)


def test_no_part_of_a_rule_is_forgotten_in_json() -> None:
    other = replace(RULE, name="z", status="test", description="d", author="me", date="2026-01-01",
                    modified="2026-01-02", references=("r",), falsepositives=("f",),
                    fields=("user.id",))  # fmt: skip
    assert from_json(to_json((other,))) == (other,)
