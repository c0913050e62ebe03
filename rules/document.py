# SPDX-License-Identifier: Apache-2.0
"""What a field of a document holds.

A field has any number of values: none if it is absent, several if it is a list or lies
within objects in a list. Documents may have any shape; nothing here raises.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..events.ecs import Document
from ..events.value import JSON

Getter = Callable[[Document], Any]
"""A document -> what is in a field: a scalar, an object, a list of such; None if it is absent."""

_SPELLED: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?|0x[0-9a-f]{1,16}")


def getter(field: str) -> Getter:
    """:param field: its dotted name."""
    names = tuple(field.split("."))
    take = _TAKERS.get(len(names), _take_many)(*names)

    def get(document: Document) -> Any:
        try:
            return take(document)
        except KeyError:
            return None
        except (TypeError, IndexError):  # a list, or no object at all
            return list(_walked(document, names)) or None

    return get


def nested(fields: Mapping[str, JSON]) -> Document:
    """The document that has these fields: dotted name -> what is in it."""
    document: Document = {}
    for name, value in fields.items():
        *path, last = name.split(".")
        inner: Any = document
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return document


def _take_many(*names: str) -> Getter:
    def take(document: Any) -> Any:
        for name in names:
            document = document[name]
        return document

    return take


# Written out, because this is most of what judging an event costs.
_TAKERS: Final[Mapping[int, Callable[..., Getter]]] = {
    1: lambda a: lambda document: document[a],
    2: lambda a, b: lambda document: document[a][b],
    3: lambda a, b, c: lambda document: document[a][b][c],
}


def _walked(value: Any, names: Sequence[str]) -> Iterator[Any]:
    # Lists within, element by element.
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, list):
            waiting += [(element, depth) for element in reversed(value)]
        elif depth == len(names):
            yield value
        elif isinstance(value, dict) and names[depth] in value:
            waiting.append((value[names[depth]], depth + 1))


def values(found: Any) -> Iterator[Any]:
    """The single values of what a :data:`Getter` found, none of them null or a list."""
    return (value for value in _walked(found, ()) if value is not None)


def text(value: Any) -> str | None:
    """What a test of text sees: a number is its digits. None for an object."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else None


def number(value: Any) -> int | float | None:
    """What a test of numbers sees: text that spells one is that number.

    User ids are text in ECS, and what has 64 bits is text because JSON's numbers have not.
    """
    if type(value) is int or type(value) is float:
        return value
    if type(value) is not str or not _SPELLED.fullmatch(value):
        return None
    if value.startswith("0x"):
        return int(value, 16)
    return float(value) if "." in value else int(value)
