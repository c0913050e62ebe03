# SPDX-License-Identifier: Apache-2.0
"""Sigma's files: what they become, and every mistake in them with its line."""

import json
import time
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.events.errors import UsageError
from bpfsnoop.rules.engine import Engine
from bpfsnoop.rules.rule import Correlation
from rule_texts import correlation, detection, event, rules, told, with_another_part


def mistakes(*texts: str, **lists: list[str]) -> list[str]:
    """What is wrong with these files, as the user reads it."""
    with pytest.raises(UsageError) as caught:
        rules(*map(dedent, texts), lists=lists)
    return list(map(str, caught.value.mistakes))


# --- What a rule becomes -----------------------------------------------------------------


def test_all_that_a_rule_says_of_itself_is_kept() -> None:
    (rule,) = rules(
        dedent("""\
            # a comment
            title: A rule
            name: a_rule
            id: 5d1b3a52-4b3e-4f0f-9a39-0c2f7b6a1e01
            status: experimental
            level: critical
            description: What it is about
            author: Somebody
            date: 2026-11-01
            modified: 2026-11-02
            references: [https://example.org]
            tags: [attack.t1014, attack.stealth]
            falsepositives: [agents]
            fields: [process.args, bpf.prog]
            examples: [{event.action: prog_load}]
            logsource: {product: linux}
            detection:
              it: {event.action: prog_load}
              condition: it
            """)
    )
    assert (rule.title, rule.name, rule.level) == ("A rule", "a_rule", "critical")
    assert (rule.id, rule.status) == ("5d1b3a52-4b3e-4f0f-9a39-0c2f7b6a1e01", "experimental")
    assert (rule.description, rule.author) == ("What it is about", "Somebody")
    assert (rule.date, rule.modified) == ("2026-11-01", "2026-11-02")
    assert (rule.references, rule.falsepositives) == (("https://example.org",), ("agents",))
    assert (rule.tags, rule.fields) == (
        ("attack.t1014", "attack.stealth"), ("process.args", "bpf.prog"),
    )  # fmt: skip
    assert (rule.path, rule.line, rule.filters) == ("1.yml", 2, ())


def test_several_rules_stand_in_one_file() -> None:
    text = detection({"user.id": 0}, name="a") + "---\n" + detection({"user.id": 1}, name="b")
    assert [(rule.name, rule.line) for rule in rules(text, "---\n")] == [("a", 1), ("b", 3)]


def test_one_of_several_conditions_is_enough() -> None:
    text = dedent("""\
        title: t
        logsource: {product: linux}
        detection:
          a: {user.id: 0}
          b: {user.id: 1}
          condition: [a, b]
        """)
    engine = Engine(rules(text))
    assert [bool(engine.feed(event(user__id=uid), 0)) for uid in ("0", "1", "2")] == [
        True, True, False,
    ]  # fmt: skip


def test_a_list_of_items_is_matched_by_one_of_them() -> None:
    text = dedent("""\
        title: t
        logsource: {product: linux}
        detection:
          a:
            - user.id: 0
              process.name: x
            - process.name: y
          condition: a
        """)
    engine = Engine(rules(text))
    assert not engine.feed(event(user__id="0"), 0)
    assert engine.feed(event(user__id="0", process__name="x"), 0)
    assert engine.feed(event(user__id="7", process__name="y"), 0)


# --- Filters -----------------------------------------------------------------------------


def site(about: str, product: str = "linux") -> str:
    return f"title: Site\nname: site\nlogsource: {{product: {product}}}\nfilter: {about}\n"


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        (site("{rules: [a], us: {user.id: 7}, condition: not us}"), {"a"}),
        (site("{rules: any, us: {user.id: 7}, condition: not us}"), {"a", "b"}),
        (site("{rules: any, us: {user.id: 7}, condition: not us}", "windows"), set()),
        (site("{rules: [a, b], us: {user.id: 7}, them2: {user.id: 8}, condition: not 1 of them}"),
         {"a", "b"}),
    ],
)  # fmt: skip
def test_a_filter_excludes_events_of_the_rules_that_it_names(text: str, filtered: set[str]) -> None:
    """Wherever it stands."""
    loads = {"event.action": "prog_load"}
    made = rules(detection(loads, name="a"), text, detection(loads, name="b"))
    assert {rule.name for rule in made if rule.filters == ("site",)} == filtered
    engine = Engine(made)
    ours = engine.feed(event(event__action="prog_load", user__id="7"), 0)
    assert {name for name, _ in told(ours)} == {"a", "b"} - filtered
    assert len(engine.feed(event(event__action="prog_load", user__id="9"), 0)) == 2


def test_rules_are_the_same_each_time_whatever_filters_are_called_inside() -> None:
    texts = [detection({"user.id": 0}, name="a"),
             site("{rules: [a], us: {user.id: 7}, condition: not us}")]  # fmt: skip
    assert rules(*texts) == rules(*texts)


# --- Mistakes ----------------------------------------------------------------------------


def test_every_mistake_in_every_file_is_told_at_once_with_its_line() -> None:
    first = """\
        title: First
        titel: First
        level: hihg
        logsource: {product: linux}
        detection:
          a:
            event.actoin: prog_load
            process.exe|cased: [/a, /b]
            process.name|contians: x
            process.args|expand: '%trustd%'
          b:
            - user.id: 0
            - user.idd: 0
          c: [some, words]
          condition: a and b and d
        """
    second = """\
        title: Second
        correlation:
          type: value_sum
          rules: [nobody]
          group-by: [process.pdi]
          timespan: 1x
          condition: {lt: 3}
        ---
        title: Third
        title: Again
        correlation:
          type: event_count
          rules: first
          timespan: 1m
          condition: {gte: 3}
        """
    assert mistakes(first, second, "a: [", trusted=["/a"]) == [
        "1.yml:2: titel: unknown; did you mean title?",
        "1.yml:3: 'hihg' is not a valid Sigma rule level",
        "1.yml:7: event.actoin: there is no field event.actoin; did you mean event.action?",
        "1.yml:8: process.exe|cased: there is no field process.exe; did you mean"
        " process.executable?",
        "1.yml:9: process.name|contians: there is no modifier contians; did you mean contains?",
        "1.yml:10: process.args|expand: there is no list trustd; did you mean trusted?",
        "1.yml:13: user.idd: there is no field user.idd; did you mean user.id?",
        "1.yml:14: must have fields and their values",
        "1.yml:15: Detection 'd' not defined in detections",
        "2.yml:3: type: must be event_count, value_count, temporal or temporal_ordered",
        "2.yml:4: there is no rule nobody",
        "2.yml:5: group-by: there is no field process.pdi; did you mean process.pid?",
        "2.yml:6: timespan: must be such as 30s, 5m, 2h or 1d, 366d at most",
        "2.yml:7: condition: must be gte, gt or eq: what has not happened yet still may",
        "2.yml:10: title stands here twice",
        "2.yml:13: there is no rule first",
        "3.yml:1: not YAML: expected the node content, but found '<stream end>'",
    ]


RULE = "title: t\nlogsource: {product: linux}\ndetection: {a: {user.id: 0}, condition: a}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just words", "1.yml:1: must be a rule"),
        ("- a\n- b", "1.yml:1: must be a rule"),
        ("title: t", "1.yml:1: must have a detection, a correlation or a filter"),
        (RULE + "filter: {}", "1.yml:1: must have a detection, a correlation or a filter"),
        ("a: &x 1\nb: *x", "1.yml:2: not YAML: aliases are not supported"),
        ("a: 1\n<<: {b: 2}", "1.yml:2: this key is not text"),
        ("a: 1\n? [b]\n: 2", "1.yml:2: this key is not text"),
        ("a: 1\n7: 2", "1.yml:2: this key is not text"),
        ("a: 1\nb: !!python/name:os.system x", "1.yml:2: x is not of the YAML type"),
        ("a: 1\nb: 2024-02-31", "1.yml:2: 2024-02-31 is not of the YAML type"),
        ("a: 1\nb: \x01", "1.yml:2: not YAML: a character that may not be there"),
        ("a: 1\n b: 2", "1.yml:2: not YAML"),
        ("a: 1\nb: 'x", "1.yml:2: not YAML"),
        ("a: " + "[" * 5_000, "1.yml:1: not YAML: nested too deeply"),
        ("a: " + "{b: " * 40 + "}" * 40, "1.yml:1: not YAML: nested too deeply"),
        (RULE.replace("title: t", "x_own: t"), "1.yml:1: Sigma rule must have a title"),
        (RULE.replace("product: linux", ""), "1.yml:2: Sigma log source can't be empty"),
        (RULE.replace("logsource", "x_source"), "Sigma rule must have a log source"),
        (RULE + "id: 7", "1.yml:4: id: must be text"),
        (RULE + "tags: [x]", "1.yml:4:"),
        (RULE + "tags: 7", "1.yml:4:"),
        (RULE + "date: yesterday", "1.yml:4:"),
        (RULE + "status: done", "1.yml:4:"),
        (RULE + "fields: [user.id, user.idd]", "1.yml:4: fields: there is no field user.idd"),
        (RULE.replace("condition: a", "condition: a and"), "1.yml:3: "),
        (RULE.replace("condition: a", "condition: '1 of x*'"), "1.yml:3: Selector"),
        (RULE.replace("condition: a", "condition: a | count() > 3"), "1.yml:3: "),
        (RULE.replace("condition: a", "condition: 7"), "1.yml:3: the condition must be text"),
        (RULE.replace(", condition: a", ""), "1.yml:3: "),
        (RULE.replace("condition: a", "timeframe: 1m, condition: a"), "1.yml:3: a time frame is"),
        (RULE.replace("condition: a", f"condition: {'(' * 17}a{')' * 17}"), "too long"),
        (RULE.replace("condition: a", f"condition: {'not ' * 201}a"), "too long"),
        (RULE.replace("{user.id: 0}", "{}"), "1.yml:3: must have fields and their values"),
        (RULE.replace("{user.id: 0}", "2024-01-01"), "1.yml:3: must have fields"),
        (RULE.replace("0}", "2024-01-01}"), "1.yml:3: user.id: must be text, a number"),
        (RULE.replace("user.id:", f"user.name{'|wide' * 30}:"), "a modifier stands here twice"),
        (RULE.replace("user.id: 0", "user.name|re|startswith: a"), "says itself, by ^ and $"),
        (RULE.replace("user.id: 0", "user.name|re|endswith: a"), "says itself, by ^ and $"),
        (RULE.replace("0}", ".inf}"), "1.yml:3: user.id: "),
        (RULE.replace("0}", f"{(1 << 64) - 1}}}"), "1.yml:3: user.id: pySigma rounds"),
        (RULE.replace("0}", "[1, 0x20000000000001]}"), "1.yml:3: user.id: pySigma rounds"),
        (RULE.replace("0}", f"0x{'f' * 9_000}}}"), "1.yml:3: user.id: pySigma rounds"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(text: str, expected: str) -> None:
    assert any(expected in mistake for mistake in mistakes(text)), mistakes(text)


LOAD = detection({"event.action": "prog_load"}, name="load")


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"rules": ["laod"]}, "there is no rule laod; did you mean load?"),
        ({"rules": ["load", "it"]}, "the correlation refers to itself"),
        ({"rules": []}, "rules: must be a list of names or ids"),
        ({"rules": [["load"]]}, "rules: must be a list of names or ids"),
        ({"type": "value_count"}, "a value_count needs the field"),
        ({"type": "value_count", "condition": {"gte": 3, "field": "us"}}, "no field us"),
        ({"condition": {"gte": 3, "field": "user.id"}}, "only a value_count has a field"),
        ({"condition": {"gte": 3, "lte": 5}}, "exactly one condition item"),
        ({"condition": {"gte": "many"}}, "no valid"),
        ({"condition": {"gte": 0}}, "must be reached at a number from 1 to 10000"),
        ({"condition": {"gte": 1e9}}, "must be reached at a number from 1 to 10000"),
        ({"condition": {"neq": 3}}, "must be gte, gt or eq"),
        ({"condition": None}, "must be a number, such as"),
        ({"condition": "a and b"}, "must be a number, such as"),
        ({"type": "temporal", "condition": {"gte": 2}}, "must be reached at a number from 1 to 1"),
        ({"type": "temporal_ordered", "rules": ["load", "pin"], "condition": {"gte": 1}},
         "must be reached at a number from 2 to 2"),
        ({"type": "temporal_ordered", "rules": ["load"] * 17, "condition": {"gte": 17}},
         "a temporal_ordered has 16 rules at most"),
        ({"timespan": "0s"}, "timespan: must be such as"),
        ({"timespan": "10y"}, "timespan: must be such as"),
        ({"timespan": "9" * 5_000 + "s"}, "timespan: must be such as"),
        ({"timespan": 5}, "timespan: must be such as"),
        ({"group_by": 7}, "group-by: must be a list of fields"),
        ({"aliases": ["a"]}, "aliases: must be names"),
        ({"aliases": {"a": "user.id"}}, "a must have a field for each rule"),
        ({"rules": ["load", "pin"], "aliases": {"a": {"load": "user.id"}}},
         "the alias a has no field for pin"),
        ({"aliases": {"a": {"load": "user.idd"}}}, "there is no field user.idd"),
        ({"aliases": {"a": {"lod": "user.id"}}}, "there is no rule lod"),
        ({"aliases": {"a": {"pin": "user.id"}}}, "which is not among the correlation's rules"),
        ({"generate": "yes"}, "generate: must be true or false"),
        ({"timespn": "1m"}, "timespn: no part of a correlation; did you mean timespan?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_correlation_is_told(about: dict[str, Any], expected: str) -> None:
    given = {"type": "event_count", "rules": ["load"], "condition": {"gte": 3}} | about
    pin = detection({"event.action": "obj_pin"}, name="pin")
    found = mistakes(LOAD, pin, correlation("it", **given))
    assert [mistake for mistake in found if expected in mistake], found
    assert all(mistake.startswith("3.yml:1: ") for mistake in found)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ("{rules: [laod], us: {user.id: 7}, condition: not us}", "4: there is no rule laod; did"),
        ("{rules: [site], us: {user.id: 7}, condition: not us}", "4: there is no rule site"),
        ("{rules: [all], us: {user.id: 7}, condition: not us}", "4: all is a correlation"),
        ("{rules: [other], us: {user.id: 7}, condition: not us}", "4: other has another log"),
        ("{rules: [], us: {user.id: 7}, condition: not us}", "4: rules: must be any"),
        ("{us: {user.id: 7}, condition: not us}", "4: Sigma filter must have a 'rules' field"),
        ("{rules: any, us: {user.idd: 7}, condition: not us}", "4: user.idd: there is no field"),
        ("{rules: any, us: {user.id: 7}, condition: not them2}", "4: Detection"),
        ("{rules: any, us: {user.id: 7}}", "4: "),
        ("7", "4: "),
        ("[]", "4: "),
    ],
)
def test_a_mistake_in_a_filter_is_told(about: str, expected: str) -> None:
    other = detection({"user.id": 0}, name="other").replace("linux", "windows")
    found = mistakes(LOAD, site(about), other, correlation("all", type="temporal", rules=["load"]))
    assert [mistake for mistake in found if mistake.startswith(f"2.yml:{expected}")], found


def test_mistakes_on_one_line_keep_their_order() -> None:
    items = {f"user.{letter}": 0 for letter in "zyxwvutsrq"}
    found = mistakes(detection(items))
    assert [mistake.split(": ")[1] for mistake in found] == list(items)


def test_two_rules_may_not_have_one_name() -> None:
    other = LOAD.replace('"Load"', '"Other"')
    assert mistakes(LOAD, other) == ["2.yml:1: another rule is called load already (1.yml:1)"]


def test_references_to_rules_with_mistakes_are_no_mistakes() -> None:
    broken = LOAD.replace("event.action", "event.actoin")
    count = correlation("it", type="event_count", rules=["load"], condition={"gte": 3})
    assert len(mistakes(broken, count)) == 1


def test_correlations_that_go_round_in_circles_are_told_both() -> None:
    circle = [correlation(a, type="temporal", rules=[b]) for a, b in ("ab", "bc", "ca")]
    assert [mistake.partition(": ")[2] for mistake in mistakes(*circle)] == [
        "the correlation refers to itself"
    ] * 3


# --- Anything at all ---------------------------------------------------------------------

WORDS = st.sampled_from([
    "title", "detection", "correlation", "filter", "condition", "logsource", "rules", "type",
    "event_count", "user.id", "process.name|re", "a|contains|all", "1 of them", "a and b", "%x%",
    "timespan", "1m", "gte", "group-by", "aliases", "id", "tags", "level", "fields", "any", "",
])  # fmt: skip
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


def _taken_or_told(text: str) -> None:
    try:
        made = rules(text)
    except UsageError as error:
        told_of = error.mistakes
    else:
        told_of = ()
        Engine(made).feed(event(event__action="prog_load"), 0)
    assert all(mistake.message and mistake.line for mistake in told_of)


@given(st.text() | st.text("a:-[]{}\n &*!|'\"%?#, "))
def test_any_text_is_rules_or_mistakes(text: str) -> None:
    _taken_or_told(text)


@settings(deadline=None)
@given(st.dictionaries(WORDS, SHAPES, max_size=6))
def test_any_yaml_is_rules_or_mistakes(data: dict[str, Any]) -> None:
    _taken_or_told(json.dumps(data))


@settings(deadline=None)
@given(st.data())
def test_rules_with_anything_in_them_are_rules_or_mistakes(data: st.DataObject) -> None:
    whole = json.loads(
        data.draw(
            st.sampled_from(
                [LOAD, correlation("it", type="temporal", rules=["it"], group_by=["user.id"])]
            )
        )
    )
    _taken_or_told(json.dumps(with_another_part(data, whole, SHAPES)))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\n" + "\n".join(f"b{n}: &b{n} [{'*a,' * 9}]" for n in range(9)),
        "a: &a [*a]",
        "- " * 10_000,
        "[" * 100_000,
        "{" * 100_000,
        "? " * 10_000,
        "a: " + "x" * 200_000,
        RULE.replace("condition: a", f"condition: {'a or ' * 390}a"),
        RULE.replace("condition: a", f"condition: {'(not ' * 16}a{')' * 16}"),
        RULE.replace("{user.id: 0}", json.dumps({"user.id": ["x"] * 20_000})),
        "\n---\n".join([RULE] * 400),
    ],
    ids=range(11),
)
def test_no_file_takes_long(text: str) -> None:
    before = time.process_time()
    _taken_or_told(text)
    assert time.process_time() - before < 20


def test_lists_that_multiply_are_refused() -> None:
    text = detection({"process.name|expand": "%a%%a%%a%%a%"})
    assert "more than 10000 values" in mistakes(text, a=[str(n) for n in range(11)])[0]


def test_a_correlation_keeps_what_it_says() -> None:
    about = {"group_by": ["user.id"], "timespan": "5m", "generate": True}
    text = correlation("it", type="event_count", rules=["load"], condition={"gt": 3}, **about)
    assert rules(LOAD, text)[1].body == Correlation(
        "event_count", ("load",), 300, 4, group_by=("user.id",), generate=True, line=1
    )
