# SPDX-License-Identifier: Apache-2.0
"""Matches as ECS documents: what somebody needs who reads one alert and nothing else."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from ..events.ecs import Document
from ..events.value import printable
from . import attack
from .document import getter, text, values
from .rule import Correlation, Rule

SEVERITIES: Final[Mapping[str, int]] = {
    "critical": 99, "high": 73, "medium": 47, "low": 21, "informational": 1, "": 1,
}  # fmt: skip
"""``event.severity`` of each level of Sigma's, on the scale from 0 to 100 that SIEMs have."""

LEVELS: Final = tuple(filter(None, SEVERITIES))
"""The highest first."""

_COPIED: Final = ("@timestamp", "ecs", "host", "process", "user", "container", "orchestrator")
_LARGE: Final = ("memory", "attr", "attr_after", "attr_trailing")
"""Parts of ``bpf`` that the document of the event has: ``bpf.alert.events`` says which one."""
_KNOWN: Final = (
    "event.action", "event.outcome", "event.kind", "event.module", "process.entity_id",
    "process.pid", "process.name", "process.executable", "user.id",
)  # fmt: skip
"""Fields that the line for people leaves out, because they are in it anyway, or in that of the
call above it."""
_EVENTS_MAX: Final = 32
_VALUES_MAX: Final = 32
_VALUE_MAX: Final = 1_024  # characters
_SHOWN_VALUES: Final = 3
_SHOWN_FIELDS: Final = 4
_SHOWN_TEXT: Final = 100


class Alert(NamedTuple):
    """What a rule found: one match of it, or many that are told as one."""

    rule: Rule
    document: Document
    """Of the event that completed the match; of several, of the last one."""
    matched: Mapping[str, Sequence[Any]]
    """Field -> values that made the rule match; of a correlation, what the events share."""
    events: tuple[int, ...]
    """``event.sequence`` of those that caused it and were told by themselves, at most 32: the
    last ones."""
    time_ns: int
    """When the last of them happened, ``CLOCK_BOOTTIME``."""
    matches: int = 1
    """How many matches it stands for, besides those that were told before."""
    since: str = ""
    """``@timestamp`` of the first of those that were held back; empty if it was not."""
    many_processes: bool = False
    """The matches are of many processes; the document is that of one of them."""

    def after(self, sequence: int) -> "Alert":
        """The same, of which the last event got this number after it was judged."""
        return self._replace(events=latest((*self.events, sequence)))

    @property
    def level(self) -> str:
        """Sigma's; a rule that has none is informational."""
        return self.rule.level or "informational"

    @property
    def label(self) -> str:
        """Which rule it was, and the techniques that it is about."""
        techniques = (" ".join(technique) for technique in attack.techniques(self.rule.tags))
        return ", ".join([_printable(self.rule.label), *techniques])

    def __str__(self) -> str:
        """One line for people: what happened, by which facts, who it was."""
        parts = [_printable(self.rule.title), *_facts(self), *_who(self)]
        return "; ".join(filter(None, parts))


def latest(events: Sequence[int]) -> tuple[int, ...]:
    """As many as an alert names."""
    return tuple(events[-_EVENTS_MAX:])


def lean(alert: Alert) -> Alert:
    """The same, with no more of what is large in its event than is told of it."""
    bpf = alert.document.get("bpf", {})
    shown = {tuple(field.split(".")[1:3]) for field in alert.rule.fields}
    small = {
        part: inner
        if part not in _LARGE
        else {name: inner[name] for name in inner if (part, name) in shown}
        for part, inner in bpf.items()
    }
    return alert._replace(document={**alert.document, "bpf": small})


def together(held: Alert, alert: Alert) -> Alert:
    """Many matches of a rule and one more, as one alert: its facts are those of all."""
    alert = lean(alert)
    matched = {
        field: [*held.matched.get(field, ()), *alert.matched.get(field, ())]
        for field in {**held.matched, **alert.matched}
    }
    last = max(held, alert, key=lambda one: str(one.document["@timestamp"]))
    return alert._replace(
        document=last.document,
        matched={field: _texts(dict.fromkeys(_texts(found))) for field, found in matched.items()},
        events=latest(tuple(dict.fromkeys((*held.events, *alert.events)))),
        matches=held.matches + alert.matches,
        since=min(held.since, str(alert.document["@timestamp"])),
    )


def alert_document(alert: Alert, *, sequence: int) -> Document:
    """:param sequence: number of the alert in its stream."""
    event = alert.document
    about: Document = {
        "kind": "alert",
        "module": "bpfsnoop",
        "dataset": "bpfsnoop.alert",
        "action": _text(event, "event.action"),
        "category": ["intrusion_detection"],
        "type": ["info"],
        "severity": SEVERITIES[alert.level],
        "sequence": sequence,
    }
    if outcome := _text(event, "event.outcome"):
        about["outcome"] = outcome
    if alert.since:
        about |= {"start": alert.since, "end": max(alert.since, event["@timestamp"])}
    document: Document = {key: event[key] for key in _COPIED if key in event}
    document |= {"event": about, "message": str(alert), "rule": _rule(alert.rule)}
    if threat := _threat(alert.rule):
        document["threat"] = threat
    told = lean(alert).document["bpf"].items()
    document["bpf"] = {key: value for key, value in told if key not in _LARGE or value}
    document["bpf"]["alert"] = _found(alert)
    return document


def _found(alert: Alert) -> Document:
    found: Document = {
        "level": alert.level,
        "matched": [
            {"field": field, "values": _texts(found)} for field, found in alert.matched.items()
        ],
        "events": list(alert.events),
        "matches": alert.matches,
    }
    if alert.many_processes:
        found["many_processes"] = True
    if isinstance(alert.rule.body, Correlation):
        found["correlation"] = alert.rule.body.kind
    return found


def _rule(rule: Rule) -> Document:
    about: Document = {
        "name": _printable(rule.label),
        "description": _printable(rule.title),
    }
    if rule.id:
        about["id"] = _printable(rule.id)
    if rule.author:  # Sigma has one text, ECS a list
        about["author"] = [_printable(rule.author)]
    if rule.references:
        about["reference"] = _printable(rule.references[0])
    return about


def _threat(rule: Rule) -> Document:
    threat: Document = {}
    if techniques := attack.techniques(rule.tags):
        threat["technique"] = _named(attack.above(techniques))
        if parts := [technique for technique in techniques if "." in technique.id]:
            threat["technique"]["subtechnique"] = _named(parts)
    if tactics := attack.tactics(rule.tags):
        threat["tactic"] = {"name": tactics}
    return {"framework": "MITRE ATT&CK", **threat} if threat else {}


def _named(techniques: Iterable[attack.Technique]) -> Document:
    ids, names = zip(*techniques, strict=True)
    return {"id": [*ids], "name": [*names]}


# --- For people --------------------------------------------------------------------------


def _facts(alert: Alert) -> Iterator[str]:
    if alert.matches > 1:
        yield f"{alert.matches} times"
    elif isinstance(alert.rule.body, Correlation):
        yield f"{len(alert.events)} event{'s' * (len(alert.events) != 1)}"
    shown: dict[str, Sequence[Any]] = {
        field: found for field, found in alert.matched.items() if field not in _KNOWN
    }
    for field in alert.rule.fields:
        if field in shown or field in _KNOWN:
            continue
        if there := list(values(getter(field)(alert.document))):
            shown[field] = there
    told = ((field, _several(found)) for field, found in shown.items())
    yield from islice((f"{field}={text}" for field, text in told if text), _SHOWN_FIELDS)


def _several(found: Sequence[Any]) -> str:
    texts = [_shortened(one) for one in _texts(found[:_SHOWN_VALUES])]
    return ",".join(texts) + (",..." if len(found) > _SHOWN_VALUES else "")


def _who(alert: Alert) -> Iterator[str]:
    event = alert.document
    if alert.many_processes:
        yield "in many processes"
        return
    pid = _text(event, "process.pid")
    if not pid:
        return
    yield " ".join(filter(None, [
        f"{_text(event, 'process.name')}[{pid}]",
        _shortened(_text(event, "process.executable")),
        f"user {user}" if (user := _text(event, "user.id")) else "",
        f"container {_text(event, 'container.id')[:12]}" if "container" in event else "",
    ]))  # fmt: skip


def _texts(found: Iterable[Any]) -> list[str]:
    spelled = (text(value) for value in found)
    return [one[:_VALUE_MAX] for one in spelled if one is not None][:_VALUES_MAX]


def _text(document: Document, field: str) -> str:
    return text(getter(field)(document)) or ""


def _shortened(value: str) -> str:
    return value if len(value) <= _SHOWN_TEXT else value[:_SHOWN_TEXT] + "..."


def _printable(words: str) -> str:
    # The author of a rule may have used any letters.
    return printable(words.encode("utf-8", "replace"))
