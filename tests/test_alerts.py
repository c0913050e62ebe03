# SPDX-License-Identifier: Apache-2.0
"""Alerts: what a reader of one has, as a document and as a line; and floods of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events import ecs
from bpfsnoop.events.errors import UsageError
from bpfsnoop.events.notice import Notice, Reason
from bpfsnoop.events.object import Described
from bpfsnoop.rules.alert import Alert, alert_document
from bpfsnoop.rules.attack import Technique, tactics, techniques
from bpfsnoop.rules.engine import Engine
from bpfsnoop.rules.flood import PROCESSES_MAX, Flood
from bpfsnoop.rules.rule import Ask, Rule
from bpfsnoop.tracer.judge import Judge
from calls import call_of, map_of, process_of
from documents import DECODER, ORIGIN, checked, document_of
from rule_texts import SECOND, correlation, detection, rules

FREEZE = call_of(22, b"\3\0\0\0")
WHO = process_of(FREEZE)
MINUTE = 60 * SECOND
FROZEN = """\
title: A map was frozen
name: frozen
id: 0a7c1e2e-35a6-4c55-8cbb-0d2e7d9f3a10
author: Somebody
references: [https://example.org/frozen, https://example.org/more]
level: high
tags: [attack.stealth, attack.t1014, attack.t1685]
logsource: {product: linux, service: bpfsnoop}
detection:
  it:
    event.action: map_freeze
    bpf.attr.map_fd: 3
  condition: it
fields: [bpf.size, bpf.map.name]
"""


def judge(*texts: str, interval_ns: int = 0) -> Judge:
    return Judge(Engine(rules(*texts)), ORIGIN, interval_ns)


def judged(by: Judge, *calls: Any) -> list[Alert]:
    """The alerts that calls raise."""
    numbers = count(1)
    return [
        alert
        for call in calls
        for alert in by.event(
            DECODER.decode(call), process_of(call), time_ns=call.start_ns, sequence=next(numbers)
        )
    ]


# --- One alert ---------------------------------------------------------------------------


def test_a_document_says_all_that_a_reader_needs() -> None:
    (alert,) = judged(judge(FROZEN), FREEZE)
    document = checked(alert_document(alert, sequence=8))
    event = document_of(FREEZE, time_ns=FREEZE.start_ns)
    assert document["event"] == {
        "kind": "alert", "module": "bpfsnoop", "dataset": "bpfsnoop.alert",
        "action": "map_freeze", "category": ["intrusion_detection"], "type": ["info"],
        "outcome": "success", "severity": 73, "sequence": 8,
    }  # fmt: skip
    assert document["rule"] == {
        "id": "0a7c1e2e-35a6-4c55-8cbb-0d2e7d9f3a10", "name": "frozen",
        "description": "A map was frozen", "author": ["Somebody"],
        "reference": "https://example.org/frozen",
    }  # fmt: skip
    assert document["threat"] == {
        "framework": "MITRE ATT&CK",
        "technique": {
            "id": ["T1014", "T1685"], "name": ["Rootkit", "Disable or Modify Tools"],
        },
        "tactic": {"name": ["Stealth"]},
    }  # fmt: skip
    assert document["bpf"]["alert"] == {
        "level": "high",
        "matched": [
            {"field": "event.action", "values": ["map_freeze"]},
            {"field": "bpf.attr.map_fd", "values": ["3"]},
        ],
        "events": [1],
        "matches": 1,
    }
    for part in ("@timestamp", "host", "process", "user"):
        assert document[part] == event[part]
    assert document["bpf"]["cmd"] == "BPF_MAP_FREEZE"
    assert "attr" not in document["bpf"]


def test_fields_of_a_rule_are_in_its_document_also_those_of_attr() -> None:
    (alert,) = judged(judge(FROZEN.replace("bpf.map.name", "bpf.attr.map_fd")), FREEZE)
    assert checked(alert_document(alert, sequence=8))["bpf"]["attr"] == {"map_fd": 3}


def test_the_line_says_what_by_which_facts_and_who() -> None:
    (alert,) = judged(judge(FROZEN), FREEZE)
    assert str(alert) == ("A map was frozen; bpf.attr.map_fd=3; bpf.size=4; loader[1234] user 1000")
    assert alert.label == "frozen, T1014 Rootkit, T1685 Disable or Modify Tools"


def test_a_line_stays_one_line_whoever_wrote_the_rule_and_whatever_it_matched() -> None:
    title = "Two\nlines \x1b[31m, caf\u00e9"
    rule = Rule(title, Ask("process.args", "exists", value=True), level="low")
    args = ["a\\342\\200\\256"] + ["x" * 5000] * 50
    document = {
        **document_of(FREEZE), "process": {"pid": 7, "name": "x", "executable": "/" + "y" * 4000},
    }  # fmt: skip
    alert = Alert(rule, document, {"process.args": args}, (1,), 0)
    assert str(alert).isascii()
    assert str(alert).isprintable()
    assert len(str(alert)) < 700


@pytest.mark.parametrize("level", ["critical", "high", "medium", "low", "informational", ""])
def test_a_level_is_a_severity(level: str) -> None:
    rule = Rule("x", Ask("event.action", "equals", "a"), level=level)
    document = checked(alert_document(Alert(rule, document_of(FREEZE), {}, (), 0), sequence=1))
    assert document["bpf"]["alert"]["level"] == (level or "informational")
    severities = {"critical": 99, "high": 73, "medium": 47, "low": 21}
    assert document["event"]["severity"] == severities.get(level, 1)
    assert document["rule"] == {"name": "x", "description": "x"}
    assert "threat" not in document


def test_a_notice_raises_alerts_too() -> None:
    rule = detection({"event.action": "integrity", "bpf.integrity.reason": "own_object_changed"})
    notice = Notice(Reason.OWN_CHANGED, 5, touched=Described(map_of(), "BPF_MAP_TYPE_HASH"))
    event = DECODER.decode(FREEZE)
    cause = ecs.Cause(event, WHO, 3)
    (alert,) = judge(rule).notice(notice, cause, time_ns=6, sequence=4)
    document = checked(alert_document(alert, sequence=5))
    assert document["event"]["action"] == "integrity"
    assert document["bpf"]["integrity"]["reason"] == "own_object_changed"
    assert document["process"]["pid"] == FREEZE.tgid
    silent = Notice(Reason.PROBE_SILENT, 5, probe="enter_bpf")
    assert not judge(rule).notice(silent, None, time_ns=6, sequence=4)
    blind = detection({"bpf.integrity.reason": "probe_silent"})
    (alert,) = judge(blind).notice(silent, None, time_ns=6, sequence=4)
    assert "process" not in checked(alert_document(alert, sequence=5))


def test_a_correlation_says_what_its_events_share() -> None:
    texts = (
        FROZEN,
        correlation(
            "often", type="event_count", rules=["frozen"], group_by=["user.id"],
            condition={"gte": 3},
        ),
    )  # fmt: skip
    (alert,) = judged(judge(*texts), *[FREEZE] * 3)
    document = checked(alert_document(alert, sequence=8))
    assert document["bpf"]["alert"] == {
        "level": "informational",
        "matched": [{"field": "user.id", "values": ["1000"]}],
        "events": [1, 2, 3],
        "matches": 1,
        "correlation": "event_count",
    }
    assert str(alert).startswith("often; 3 events; loader[1234]")


def test_an_event_that_no_rule_is_about_is_not_made_into_a_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = judge(FROZEN)
    monkeypatch.setattr(ecs, "event_document", lambda *_, **__: pytest.fail("it was"))
    assert judged(by, call_of(0, b"\1\0\0\0")) == []


# --- Other rules -------------------------------------------------------------------------


def test_rules_are_replaced_all_or_none() -> None:
    by = judge(FROZEN)
    broken = Rule("b", Ask("bpf.cmd", "matches", "("))
    with pytest.raises(UsageError):
        by.replace([Rule("a", Ask("event.action", "exists", value=True)), broken], 0)
    assert [alert.rule.name for alert in judged(by, FREEZE)] == ["frozen"]
    by.replace(rules(detection({"event.action": "map_create"}, name="made")), 0)
    assert judged(by, FREEZE) == []


def test_a_count_goes_on_with_other_rules() -> None:
    """Else a reload would be a good time for an attacker."""
    about: dict[str, Any] = {"type": "event_count", "rules": ["frozen"], "condition": {"gte": 3}}
    before = (FROZEN, correlation("often", **about))
    by = judge(*before)
    assert judged(by, FREEZE, FREEZE) == []
    by.replace(rules(detection({"user.id": 5}, name="new"), *before), 0)
    assert [alert.rule.label for alert in judged(by, FREEZE)] == ["often"]
    assert judged(by, FREEZE, FREEZE) == []
    by.replace(rules(FROZEN, correlation("often", **about | {"condition": {"gte": 4}})), 0)
    assert judged(by, FREEZE, FREEZE, FREEZE) == []  # another one: it begins anew


# --- Floods ------------------------------------------------------------------------------

RULE = Rule("flooded", Ask("event.action", "equals", "a"), name="flooded")


def alert_at(seconds: float, pid: int = 1, rule: Rule = RULE) -> Alert:
    document = {
        "@timestamp": ecs.timestamp(round(seconds * SECOND)),
        "process": {"pid": pid, "start": "2026"},
    }
    number = round(seconds * 1000)
    return Alert(rule, document, {}, (number,), round(seconds * SECOND))


def taken(flood: Flood, alerts: Sequence[Alert]) -> list[tuple[int, float]]:
    """Of what is told: the matches, and the time of the last one in seconds."""
    told = [told for alert in alerts for told in flood.take(alert)]
    return [(alert.matches, alert.time_ns / SECOND) for alert in told]


def test_the_first_is_told_at_once_and_the_others_as_one() -> None:
    flood = Flood(MINUTE)
    assert taken(flood, [alert_at(second) for second in range(1, 51)]) == [(1, 1)]
    assert list(flood.due(60 * SECOND)) == []
    (rest,) = flood.due(61 * SECOND)
    assert (rest.matches, rest.since, rest.events) == (
        49, ecs.timestamp(2 * SECOND), tuple(second * 1000 for second in range(19, 51)),
    )  # fmt: skip
    assert list(flood.rest()) == []


def test_what_is_told_as_one_has_the_facts_of_all() -> None:
    """Whoever raises a rule with something harmless first hides nothing by it."""
    flood = Flood(MINUTE)
    helpers = [["a"], ["b"], ["b", "rare"], ["c"], ["x" * 5000], *[[str(n)] for n in range(50)]]
    for second, found in enumerate(helpers, 1):
        list(flood.take(alert_at(second)._replace(matched={"bpf.prog.helpers": found})))
    (rest,) = flood.rest()
    values = rest.matched["bpf.prog.helpers"]
    assert values[:4] == ["b", "rare", "c", "x" * 1024]
    assert len(values) == 32


def test_the_end_is_not_before_the_start() -> None:
    """A long call may return last, though it began first."""
    flood = Flood(MINUTE)
    full = document_of(FREEZE)
    for second in (1, 9, 5):
        alert = alert_at(second)
        document = {**full, "@timestamp": alert.document["@timestamp"]}
        list(flood.take(alert._replace(document=document)))
    (rest,) = flood.rest()
    about = checked(alert_document(rest, sequence=1))["event"]
    assert (about["start"], about["end"]) == (
        ecs.timestamp(5 * SECOND), ecs.timestamp(9 * SECOND),
    )  # fmt: skip


def test_what_goes_on_is_told_once_in_each_interval() -> None:
    flood = Flood(MINUTE)
    assert taken(flood, [alert_at(second) for second in range(1, 200)]) == [
        (1, 1), (59, 60), (60, 120), (60, 180),
    ]  # fmt: skip
    assert [alert.matches for alert in flood.rest()] == [19]
    assert list(flood.rest()) == []


def test_what_is_over_begins_anew() -> None:
    flood = Flood(MINUTE)
    assert taken(flood, [alert_at(1), alert_at(100), alert_at(200)]) == [
        (1, 1), (1, 100), (1, 200),
    ]  # fmt: skip


def test_what_waited_does_not_make_the_next_one_wait() -> None:
    """Nobody may have looked meanwhile, as in a replay of what came hours apart."""
    flood = Flood(MINUTE)
    assert taken(flood, [alert_at(1), alert_at(2), alert_at(3600)]) == [(1, 1), (1, 2), (1, 3600)]
    assert taken(flood, [alert_at(3610), alert_at(3661)]) == [(1, 3610)]
    assert [alert.matches for alert in flood.rest()] == [1]


@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 3)), max_size=60),
    st.lists(st.integers(0, 600), max_size=20),
)
def test_the_same_is_told_however_often_somebody_looks(
    alerts: list[tuple[int, int]], looks: list[int]
) -> None:
    """Live it is done all the time, in a replay only when events come."""
    live, replay = Flood(MINUTE), Flood(MINUTE)
    told: list[Alert] = []
    for second, pid in sorted([*alerts, *((second, -1) for second in looks)]):
        told += live.take(alert_at(second, pid)) if pid >= 0 else live.due(second * SECOND)
    again = [told for second, pid in sorted(alerts) for told in replay.take(alert_at(second, pid))]
    assert Counter(map(counted, [*told, *live.rest()])) == Counter(
        map(counted, [*again, *replay.rest()])
    )


def counted(alert: Alert) -> tuple[int, int, str, int]:
    return alert.document["process"]["pid"], alert.matches, alert.since, alert.time_ns


def test_processes_and_rules_are_told_apart() -> None:
    flood = Flood(MINUTE)
    other = Rule("other", RULE.body)
    alerts = [alert_at(1, 1), alert_at(1, 2), alert_at(1, 1, other), alert_at(2, 2)]
    assert taken(flood, alerts) == [(1, 1)] * 3


def test_ever_new_processes_hide_no_other_rule_and_fill_no_memory() -> None:
    flood = Flood(MINUTE)
    many = [alert_at(1 + n / 1000, pid=n) for n in range(5_000)]
    assert len(taken(flood, many)) == PROCESSES_MAX
    other = Rule("other", RULE.body)
    assert taken(flood, [alert_at(7, 1, other)]) == [(1, 7)]
    told = [alert for alert in flood.due(MINUTE * 2) if alert.matches > 1]
    assert [alert.matches for alert in told] == [5_000 - PROCESSES_MAX]
    assert "in many processes" in str(told[0])
    assert taken(flood, [alert_at(400, pid=9)]) == [(1, 400)]


def test_of_what_waits_only_what_is_told_of_it_is_kept() -> None:
    """The instructions of a program may be megabytes, and there may be a thousand that wait."""
    rule = replace(RULE, fields=("bpf.memory.pathname.text", "bpf.attr.map_fd"))
    memory = {"pathname": {"text": "/sys/fs/bpf/x"}, "insns": {"data": "00" * 1_000_000}}
    found = alert_at(1, rule=rule)
    found.document["bpf"] = {"size": 4, "memory": memory, "attr": {"map_fd": 3, "bpf_fd": 4}}
    flood = Flood(MINUTE)
    assert taken(flood, [found, found]) == [(1, 1)]
    (held,) = flood.rest()
    assert held.document["bpf"] == {
        "size": 4, "memory": {"pathname": {"text": "/sys/fs/bpf/x"}}, "attr": {"map_fd": 3},
    }  # fmt: skip
    assert str(held) == str(found)
    assert alert_document(held, sequence=1)["bpf"] == alert_document(found, sequence=1)["bpf"]
    assert len(found.document["bpf"]["memory"]) == 2


def test_without_an_interval_each_is_told() -> None:
    assert len(taken(Flood(0), [alert_at(1)] * 5)) == 5


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=200))
def test_every_match_is_told_once(alerts: list[tuple[int, int]]) -> None:
    flood = Flood(MINUTE)
    found = [alert_at(second, pid) for second, pid in sorted(alerts)]
    told = [told for alert in found for told in flood.take(alert)]
    told += flood.rest()
    assert sum(alert.matches for alert in told) == len(found)


# --- ATT&CK ------------------------------------------------------------------------------


def test_a_subtechnique_stands_where_ecs_has_it() -> None:
    tags = ("attack.t1036.005", "attack.t1014", "attack.t1036")
    rule = Rule("x", Ask("event.action", "equals", "a"), tags=tags)
    document = checked(alert_document(Alert(rule, document_of(FREEZE), {}, (), 0), sequence=1))
    assert document["threat"]["technique"] == {
        "id": ["T1036", "T1014"],
        "name": ["Masquerading", "Rootkit"],
        "subtechnique": {
            "id": ["T1036.005"], "name": ["Match Legitimate Resource Name or Location"],
        },
    }  # fmt: skip


def test_tags_are_techniques_and_tactics() -> None:
    tags = (
        "attack.t1036.005", "attack.T1014", "attack.t9999", "attack.t1014", "attack.stealth",
        "attack.defense_impairment", "attack.g0001", "cve.2021-3490", "attack.tactic",
    )  # fmt: skip
    assert techniques(tags) == [
        Technique("T1036.005", "Match Legitimate Resource Name or Location"),
        Technique("T1014", "Rootkit"),
        Technique("T9999", "T9999"),
    ]
    assert tactics(tags) == ["Stealth", "Defense Impairment"]
