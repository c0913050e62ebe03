# SPDX-License-Identifier: Apache-2.0
"""Sigma's correlations -> ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor
from typing import Any, Final

from sigma.correlations import (
    SigmaCorrelationCondition,
    SigmaCorrelationRule,
    SigmaCorrelationTimespan,
)
from sigma.exceptions import SigmaError

from ...events.errors import Mistake
from ..check import nearest
from ..fields import Fields
from ..rule import COUNT_MAX, KINDS, TIMESPAN_MAX_S, Correlation
from .detection import field_fault
from .lines import Lined

_SECTION: Final = "correlation"
_ORDERED_MAX: Final = 16  # of each of them, events are kept and linked with those before


STAND_IN: Final[Mapping[str, Any]] = {
    "type": "event_count", "rules": ["any"], "timespan": "1s", "condition": {"gte": 1},
}  # fmt: skip
"""In the place of one that is broken, so that pySigma says what else is."""


def shape_mistakes(document: Lined, fields: Fields) -> Iterator[Mistake]:
    """All that is wrong with a correlation, but for what it refers to."""
    about = document.value[_SECTION]
    if not isinstance(about, Mapping):
        yield document.mistake("must have a type, rules, a time span and so on", _SECTION)
        return
    for key in about:
        if key not in _CHECKS:
            message = f"{key}: no part of a correlation{nearest(key, _CHECKS.keys())}"
            yield document.mistake(message, _SECTION, key)
    for key, check in _CHECKS.items():
        for where, fault in check(about.get(key), about, fields):
            yield document.mistake(f"{key}: {fault}", _SECTION, key, *where)


Faults = Iterator[tuple[tuple[str, ...], str]]
"""Below which keys, and what."""


def _type(kind: Any, _: Any, __: Any) -> Faults:
    if kind not in KINDS:
        yield (), f"must be {', '.join(KINDS[:-1])} or {KINDS[-1]}"


def _rules(rules: Any, about: Any, __: Any) -> Faults:
    if not _texts(rules):
        yield (), "must be a list of names or ids"
    elif about.get("type") == "temporal_ordered" and len(names(rules)) > _ORDERED_MAX:
        yield (), f"a temporal_ordered has {_ORDERED_MAX} rules at most"


def _generate(generate: Any, _: Any, __: Any) -> Faults:
    if not isinstance(generate, bool | None):
        yield (), "must be true or false"


def _timespan(timespan: Any, _: Any, __: Any) -> Faults:
    try:
        seconds = SigmaCorrelationTimespan(str(timespan)).seconds
    except (SigmaError, ValueError):  # of thousands of digits
        seconds = 0
    if not 1 <= seconds <= TIMESPAN_MAX_S:
        yield (), f"must be such as 30s, 5m, 2h or 1d, {TIMESPAN_MAX_S // 86_400}d at most"


def _group_by(groups: Any, about: Mapping[str, Any], fields: Fields) -> Faults:
    if groups is not None and not _texts(groups):
        yield (), "must be a list of fields"
        return
    aliases = about.get("aliases")
    known = aliases if isinstance(aliases, Mapping) else {}
    for name in names(groups):
        if name not in known and (fault := field_fault(name, fields)):
            yield (), fault


def _aliases(aliases: Any, _: Any, fields: Fields) -> Faults:
    if not isinstance(aliases, Mapping | None):
        yield (), "must be names, with a field for each rule"
        return
    for alias, mapping in (aliases or {}).items():
        if not isinstance(mapping, Mapping) or not mapping:
            yield (alias,), f"{alias} must have a field for each rule"
            continue
        for rule, field in mapping.items():
            if fault := field_fault(str(field), fields):
                yield (alias, rule), fault


def _condition(condition: Any, about: Mapping[str, Any], fields: Fields) -> Faults:
    kind = str(about.get("type"))
    if condition is None and kind.startswith("temporal"):
        return
    if not isinstance(condition, Mapping):
        yield (), "must be a number, such as 'gte: 3'"
        return
    if kind == "value_count" and "field" not in condition:
        yield (), "a value_count needs the field whose values it counts"
    if kind != "value_count" and "field" in condition:
        yield ("field",), "only a value_count has a field"
    if "field" in condition and not _texts(condition["field"]):
        yield ("field",), "must be the name of a field"
    for name in names(condition.get("field")):
        if fault := field_fault(name, fields):
            yield ("field",), fault
    try:
        counted = SigmaCorrelationCondition.from_dict(dict(condition))
        _at_least(counted, *_bounds(kind, names(about.get("rules"))))
    except (ValueError, TypeError) as error:
        yield (), str(error)


def _bounds(kind: str, rules: Sequence[str]) -> tuple[int, int]:
    # Of the number that is counted to.
    if kind == "temporal_ordered":  # else it would have to be said which may be missing
        return len(rules), len(rules)
    return 1, len(rules) if kind == "temporal" else COUNT_MAX


def names(given: Any) -> Sequence[str]:
    """One name, or a list of them; none if it is neither."""
    if not _texts(given):
        return ()
    return (given,) if isinstance(given, str) else given


_CHECKS: Final[Mapping[str, Callable[[Any, Mapping[str, Any], Fields], Faults]]] = {
    "type": _type,
    "rules": _rules,
    "group-by": _group_by,
    "timespan": _timespan,
    "aliases": _aliases,
    "condition": _condition,
    "generate": _generate,
}


def _texts(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and one for one in value)
    return isinstance(value, str) and bool(value)


def correlation(rule: SigmaCorrelationRule, line: int) -> Correlation:
    """:param line: where it says which rules.
    :raises ValueError: something in it is not supported; :func:`shape_mistakes` tells first.
    """
    if not isinstance(rule.condition, SigmaCorrelationCondition) or not rule.rules:
        raise ValueError("the condition must be a number")
    counted = rule.condition.fieldref or ()
    rules = tuple(reference.reference for reference in rule.rules)
    kind = rule.type.name.lower()
    return Correlation(
        kind=kind,
        rules=rules,
        timespan_s=rule.timespan.seconds,
        at_least=_at_least(rule.condition, *_bounds(kind, rules)),
        group_by=tuple(rule.group_by or ()),
        aliases={
            alias.alias: {reference.reference: field for reference, field in alias.mapping.items()}
            for alias in rule.aliases
        },
        fields=(counted,) if isinstance(counted, str) else tuple(counted),
        generate=rule.generate,
        line=line,
    )


def _at_least(condition: SigmaCorrelationCondition, lowest: int, most: int) -> int:
    match condition.op.name:
        case "GTE" | "EQ":  # who counts events as they come reaches a number before the next one
            least = ceil(condition.count)
        case "GT":
            least = floor(condition.count) + 1
        case _:
            raise ValueError("must be gte, gt or eq: what has not happened yet still may")
    if not lowest <= least <= most:
        raise ValueError(f"must be reached at a number from {lowest} to {most}")
    return least
