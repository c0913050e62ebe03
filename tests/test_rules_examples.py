# SPDX-License-Identifier: Apache-2.0
"""``examples`` and ``counterexamples`` beside a rule, and what ``bpfsnoop rules test`` says."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import UsageError
from bpfsnoop.rules.rule import Example, Rule, Step, from_json, to_json
from bpfsnoop.rules.sigma.detection import Known
from bpfsnoop.rules.sigma.read import read
from bpfsnoop.rules.trial import faults
from rule_texts import FIELDS, correlation, detection
from terminal import shown

LOAD = {"event.action": "prog_load", "user.id": "1000"}
FREEZE = {"event.action": "map_freeze"}


def with_examples(text: str, **examples: Any) -> str:
    return f"{json.dumps(json.loads(text) | examples)}\n"


def found(*texts: str) -> tuple[Rule, ...]:
    files = [(f"{number}.yml", text) for number, text in enumerate(texts, 1)]
    return read(files, Known(FIELDS, {}), with_examples=True)


def wrong(*texts: str) -> list[str]:
    """What examples say of rules."""
    return [mistake.message for mistake in faults(found(*texts))]


RULE = detection({"event.action": "prog_load"}, name="load")
OFTEN = correlation("often", type="event_count", rules=["load"], condition={"gte": 3})


def test_examples_that_are_as_they_should_be() -> None:
    assert wrong(with_examples(RULE, examples=[LOAD], counterexamples=[FREEZE])) == []


def test_an_example_that_is_not_found_and_a_counterexample_that_is() -> None:
    assert wrong(with_examples(RULE, examples=[LOAD, FREEZE], counterexamples=[FREEZE, LOAD])) == [
        "example 2 raises no load",
        "counterexample 2 raises load",
    ]


def test_a_rule_without_examples_is_told() -> None:
    assert wrong(RULE) == ["load has no examples"]


def test_what_is_wrong_has_its_line() -> None:
    text = """\
title: Load
name: load
logsource: {product: linux}
detection: {it: {event.action: prog_load}, condition: it}
examples:
  - event.action: prog_load
  - - event.action: map_create
    - event.action: map_freeze
"""
    (fault,) = faults(found(text))
    assert str(fault) == "1.yml:7: example 2 raises no load"


def test_a_correlation_has_sequences_as_examples() -> None:
    """And the rules that it is over are judged by their own, silent or not."""
    often = with_examples(
        OFTEN,
        examples=[[{**LOAD, "times": 3}], [LOAD, LOAD, FREEZE, LOAD]],
        counterexamples=[
            [LOAD, LOAD], LOAD, [{**LOAD, "times": 3, "after": "31s"}],
            [{**LOAD, "times": 2}, {**LOAD, "after": "2m"}],
        ],
    )  # fmt: skip
    rule = with_examples(RULE, examples=[LOAD])
    assert wrong(rule, often) == []
    assert wrong(rule, often, with_examples(OFTEN.replace("often", "twice").replace("3", "2"),
                                            examples=[[{**LOAD, "times": 2}]])) == []  # fmt: skip


def test_events_may_happen_at_once() -> None:
    """As many as a second has: hundreds fit into a short time span."""
    at_once = [{**LOAD, "times": 500, "after": "0s"}]
    soon = correlation("soon", type="event_count", rules=["load"], condition={"gte": 500},
                       timespan="10s")  # fmt: skip
    assert (
        wrong(with_examples(RULE, examples=[LOAD]), with_examples(soon, examples=[at_once])) == []
    )


def test_a_correlation_over_a_correlation() -> None:
    twice = correlation("twice", type="event_count", rules=["often"], condition={"gte": 2})
    texts = (
        with_examples(RULE, examples=[LOAD]),
        with_examples(OFTEN, examples=[[{**LOAD, "times": 3}]]),
        with_examples(
            twice, examples=[[{**LOAD, "times": 6}]], counterexamples=[[{**LOAD, "times": 5}]]
        ),
    )
    assert wrong(*texts) == []


def test_lists_are_values_of_a_field() -> None:
    rule = detection({"bpf.prog.helpers|all": ["a", "b"], "process.ancestors.name": "sh"})
    example = {"bpf.prog.helpers": ["b", "x", "a"], "process.ancestors.name": ["sh", "init"]}
    assert wrong(with_examples(rule, examples=[example])) == []


@pytest.mark.parametrize(
    ("examples", "mistake"),
    [
        ({"event.action": "x"}, "examples: must be a list of events"),
        ([[]], "examples: has no event"),
        ([7], "examples: must be fields with their values"),
        ([{}], "examples: must be fields with their values"),
        ([{"event.acton": "x"}],
         "examples: there is no field event.acton; did you mean event.action?"),
        ([{"event": "x"}], "examples: event has no value itself, only fields in it"),
        ([{"event.action": {"a": 1}}], "examples: event.action: must be a value, or a list of"),
        ([{"event.action": None}], "examples: event.action: must be a value, or a list of values"),
        ([{**LOAD, "times": 0}], "examples: times: must be a whole number from 1 to 10000"),
        ([{**LOAD, "times": "3"}], "examples: times: must be a whole number from 1 to 10000"),
        ([{**LOAD, "after": "soon"}], "examples: after: must be such as 30s, 5m, 2h or 1d"),
        ([{**LOAD, "after": "9999d"}], "examples: after: must be such as 30s, 5m, 2h or 1d"),
    ],
)  # fmt: skip
def test_examples_that_are_none(examples: Any, mistake: str) -> None:
    """They are wrong for whoever does not want them, too."""
    text = with_examples(RULE, examples=examples)
    for wanted in (False, True):
        with pytest.raises(UsageError) as error:
            read([("1.yml", text)], Known(FIELDS, {}), with_examples=wanted)
        assert error.value.mistakes[0].message.startswith(mistake)


def test_whoever_does_not_ask_for_them_has_none() -> None:
    text = with_examples(RULE, examples=[LOAD], counterexamples=[FREEZE])
    (rule,) = read([("1.yml", text)], Known(FIELDS, {}))
    assert (rule.examples, rule.counterexamples) == ((), ())


def test_they_cross_as_json() -> None:
    often = with_examples(OFTEN, examples=[[{**LOAD, "times": 3, "after": "2m"}, FREEZE]])
    rules = found(RULE, often)
    assert rules[1].examples == (Example((Step(LOAD, 3, 120.0), Step(FREEZE)), 1),)
    assert from_json(json.loads(json.dumps(to_json(rules)))) == rules


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event.action", "times", "after", "x"]), inner, max_size=3
        )
    ),
)


@given(JSON)
def test_anything_is_examples_or_mistakes(examples: Any) -> None:
    try:
        rules = found(with_examples(RULE, examples=examples))
    except UsageError:
        return
    list(faults(rules))


def test_the_command_says_what_is_wrong_and_how_many_there_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    right = with_examples(RULE, examples=[LOAD], counterexamples=[FREEZE])
    (tmp_path / "load.yml").write_text(right)
    status, lines, _ = shown(capfd, "rules", "test", tmp_path)
    assert (status, lines) == (
        0, ["1 rule, 0 correlations; 1 example, 1 counterexample: all are as they should be"],
    )  # fmt: skip
    (tmp_path / "load.yml").write_text(right.replace("map_freeze", "prog_load"))
    status, lines, _ = shown(capfd, "rules", "test", tmp_path)
    assert status == 1
    assert lines == [
        f"{tmp_path}/load.yml:1: counterexample 1 raises load",
        "1 rule, 0 correlations; 1 example, 1 counterexample: 1 wrong",
    ]
