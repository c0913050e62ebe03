# SPDX-License-Identifier: Apache-2.0
"""``examples`` and ``counterexamples``: events that a rule must find, and must leave alone.

They are keys of ours, which Sigma permits. Each is the fields of one event, or a list of
such as they happen one after the other, with ``times`` and ``after`` among the fields.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sigma.correlations import SigmaCorrelationTimespan
from sigma.exceptions import SigmaError

from ...events.errors import Mistake
from ...events.value import JSON
from ..fields import Fields
from ..rule import TIMES_MAX, TIMESPAN_MAX_S, Example, Step
from .detection import field_fault
from .lines import Lined, Path

KEYS: Final = ("examples", "counterexamples")
_TIMES: Final = "times"
_AFTER: Final = "after"
_AT_ONCE: Final = "0s"
_SCALARS: Final = (str, int, float, bool)


def examples(document: Lined, key: str) -> tuple[Example, ...]:
    """Those of a document in which :func:`example_mistakes` finds nothing."""
    return tuple(
        Example(tuple(map(_step, _events(one))), document.line(key, at))
        for at, one in enumerate(document.value.get(key, ()))
    )


def _events(example: Any) -> list[Mapping[str, Any]]:
    return example if isinstance(example, list) else [example]


def _step(event: Mapping[str, Any]) -> Step:
    fields: dict[str, JSON] = {
        name: value for name, value in event.items() if name not in (_TIMES, _AFTER)
    }
    return Step(fields, event.get(_TIMES, 1), float(_seconds(event.get(_AFTER, "1s"))))


def _seconds(timespan: Any) -> int:
    """:raises ValueError: it is no time span, SigmaError included."""
    # Of correlations none is permitted.
    return 0 if timespan == _AT_ONCE else SigmaCorrelationTimespan(str(timespan)).seconds


def example_mistakes(document: Lined, fields: Fields) -> Iterator[Mistake]:
    """All that is wrong with the examples of a rule."""
    for key in KEYS:
        given = document.value.get(key, [])
        if not isinstance(given, list):
            yield document.mistake(f"{key}: must be a list of events", key)
            continue
        for at, one in enumerate(given):
            if one == []:
                yield document.mistake(f"{key}: has no event", key, at)
            for number, event in enumerate(_events(one)):
                where = (key, at, number) if isinstance(one, list) else (key, at)
                yield from _event_mistakes(document, where, event, fields)


def _event_mistakes(document: Lined, where: Path, event: Any, fields: Fields) -> Iterator[Mistake]:
    if not isinstance(event, Mapping) or not event:
        yield document.mistake(f"{where[0]}: must be fields with their values", *where)
        return
    for name, value in event.items():
        if fault := _fault(name, value, fields):
            yield document.mistake(f"{where[0]}: {fault}", *where, name)


def _fault(name: str, value: Any, fields: Fields) -> str:
    if name == _TIMES:
        right = type(value) is int and 1 <= value <= TIMES_MAX
        return "" if right else f"times: must be a whole number from 1 to {TIMES_MAX}"
    if name == _AFTER:
        try:
            right = 0 <= _seconds(value) <= TIMESPAN_MAX_S
        except (SigmaError, ValueError):
            right = False
        return "" if right else "after: must be such as 30s, 5m, 2h or 1d"
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, _SCALARS) for one in values):
        return f"{name}: must be a value, or a list of values"
    return field_fault(name, fields)
