# SPDX-License-Identifier: Apache-2.0
"""Rules as the engine takes them: what Sigma says, without its grammar.

All of it can be written as JSON and read again, for rules are parsed in another process
and kept. Whatever is read is checked: nothing here believes a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from ..events.value import JSON

SECOND: Final = 1_000_000_000
DEPTH_MAX: Final = 64
"""Of a condition; the interpreter's own limit is further away."""
COUNT_MAX: Final = 10_000
"""What a correlation may be asked to count to: so many events may have to be kept."""
TIMESPAN_MAX_S: Final = 366 * 86_400
TIMES_MAX: Final = 10_000
"""How often an example may repeat an event."""

_NUMBER: Final = (int, float)
OPERATORS: Final[Mapping[str, tuple[type, ...]]] = {
    "equals": (str,),
    "startswith": (str,),
    "endswith": (str,),
    "contains": (str,),
    "like": (str,),  # with * and ?, and \ before what stands for itself
    "matches": (str,),  # a regular expression
    "cidr": (str,),
    "number": _NUMBER,
    "lt": _NUMBER,
    "lte": _NUMBER,
    "gt": _NUMBER,
    "gte": _NUMBER,
    "boolean": (bool,),
    "exists": (bool,),
    "field": (str,),  # the name of another field
    "field_startswith": (str,),
    "field_endswith": (str,),
    "field_contains": (str,),
}
"""What a test can ask of a value, and the types of what it is held against."""

KINDS: Final = ("event_count", "value_count", "temporal", "temporal_ordered")
"""Of correlations."""


class Ask(NamedTuple):
    """One question about one field."""

    field: str
    """Its dotted name."""
    op: str
    """One of :data:`OPERATORS`."""
    value: str | int | float | bool
    cased: bool = False
    """Of text: capital and small letters differ."""


class All(NamedTuple):
    nodes: "tuple[Node, ...]"


class AnyOf(NamedTuple):
    nodes: "tuple[Node, ...]"


class Not(NamedTuple):
    node: "Node"


Node = Ask | All | AnyOf | Not


@dataclass(frozen=True)
class Correlation:
    """What has to happen how often, or after what."""

    kind: str
    """One of :data:`KINDS`."""
    rules: tuple[str, ...]
    """By name or id; in this order, if the kind is ordered."""
    timespan_s: int
    at_least: int
    """Events, different values, or rules."""
    group_by: tuple[str, ...] = ()
    """Fields, or aliases of fields; of all events in a group, they have the same values."""
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Alias -> rule, by name or id -> field."""
    fields: tuple[str, ...] = ()
    """Whose different values are counted."""
    generate: bool = False
    """The rules that it refers to have results of their own as well."""
    line: int = 0
    """Where it says which rules."""


class Step(NamedTuple):
    """One or several events of an example."""

    fields: Mapping[str, JSON]
    """Dotted name -> a value, or several."""
    times: int = 1
    after_s: float = 1.0
    """How long each comes after the event before it."""


class Example(NamedTuple):
    """Events that together must be found, or must not be."""

    steps: tuple[Step, ...]
    line: int


@dataclass(frozen=True)
class Rule:
    title: str
    body: "Node | Correlation"
    name: str = ""
    id: str = ""
    level: str = ""
    status: str = ""
    description: str = ""
    author: str = ""
    date: str = ""
    modified: str = ""
    tags: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    """Those worth showing beside what matched."""
    filters: tuple[str, ...] = ()
    """Names or titles of the filters that the condition has in it already."""
    examples: tuple[Example, ...] = ()
    """Only whoever asked for them gets them."""
    counterexamples: tuple[Example, ...] = ()
    path: str = ""
    line: int = 0
    """Of the file at ``path``, where the rule begins."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or self.id or self.title


# --- As JSON -----------------------------------------------------------------------------


def to_json(rules: tuple[Rule, ...]) -> JSON:
    return [
        {**{key: _plain(getattr(rule, key)) for key in _RULE}, "body": _body_json(rule.body)}
        for rule in rules
    ]


def _body_json(body: Node | Correlation) -> JSON:
    if isinstance(body, Correlation):
        return {key: _plain(getattr(body, key)) for key in _CORRELATION}
    return _node_json(body)


def _node_json(node: Node) -> JSON:
    match node:
        case Ask():
            return node._asdict()
        case Not(inner):
            return {"not": _node_json(inner)}
        case All(nodes):
            return {"all": list(map(_node_json, nodes))}
        case AnyOf(nodes):
            return {"any": list(map(_node_json, nodes))}


def _plain(value: Any) -> JSON:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Example | Step):
        return _plain(value._asdict())
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def from_json(data: Any) -> tuple[Rule, ...]:
    """What :func:`to_json` made.

    :raises ValueError: it is something else; says where and what.
    """
    return _items(_rule)(data)


Reader = Callable[[Any], Any]
"""A value of JSON -> what it stands for.

:raises ValueError: it stands for nothing.
"""


def _text(data: Any) -> str:
    if not isinstance(data, str):
        raise ValueError("must be a string")
    return data


def _boolean(data: Any) -> bool:
    if not isinstance(data, bool):
        raise ValueError("must be true or false")
    return data


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(data: Any) -> int:
        if type(data) is not int or not least <= data <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return data

    return read


def _seconds(data: Any) -> float:
    if not isinstance(data, int | float) or not 0 <= data <= TIMESPAN_MAX_S:
        raise ValueError(f"must be a number of seconds up to {TIMESPAN_MAX_S}")
    return float(data)


def _items(read_one: Reader, *, least: int = 0) -> Callable[[Any], tuple[Any, ...]]:
    def read(data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list) or len(data) < least:
            raise ValueError("must be a list" + (" that is not empty" if least else ""))
        return tuple(_at(f"[{at}]", read_one, item) for at, item in enumerate(data))

    return read


def _mapping(read_one: Reader) -> Callable[[Any], Mapping[str, Any]]:
    def read(data: Any) -> Mapping[str, Any]:
        if not isinstance(data, dict):
            raise ValueError("must be an object")
        return {_text(key): _at(str(key), read_one, value) for key, value in data.items()}

    return read


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def read(data: Any) -> str:
        if data not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(data)

    return read


def _at(where: str, read: Reader, data: Any) -> Any:
    try:
        return read(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _record(readers: Mapping[str, Reader], data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or data.keys() != readers.keys():
        raise ValueError(f"must be an object with {', '.join(readers)}")
    return {key: _at(key, read, data[key]) for key, read in readers.items()}


def _node(data: Any, depth: int = 0) -> Node:
    if depth > DEPTH_MAX:
        raise ValueError("is nested too deeply")
    if not isinstance(data, dict):
        raise ValueError("must be a test, all, any or not")

    def inner(part: Any) -> Node:
        return _node(part, depth + 1)

    match list(data):
        case ["not"]:
            return Not(_at("not", inner, data["not"]))
        case ["all"]:
            return All(_at("all", _items(inner, least=1), data["all"]))
        case ["any"]:
            return AnyOf(_at("any", _items(inner, least=1), data["any"]))
    return _test(data)


def _test(data: Any) -> Ask:
    values = _record(_TEST, data)
    value, types = values["value"], OPERATORS[values["op"]]
    if type(value) not in types:
        raise ValueError(f"value: must be {' or '.join(kind.__name__ for kind in types)}")
    return Ask(**values)


def _body(data: Any) -> Node | Correlation:
    if isinstance(data, dict) and "kind" in data:
        return Correlation(**_record(_CORRELATION, data))
    return _node(data)


def _rule(data: Any) -> Rule:
    return Rule(**_record(_RULE, data))


def _example(data: Any) -> Example:
    return Example(**_record(_EXAMPLE, data))


def _step(data: Any) -> Step:
    return Step(**_record(_STEP, data))


def _anything(data: Any) -> Any:
    return data


_LINE: Final = _whole(0, 1 << 40)
_TEXTS: Final = _items(_text)
_TEST: Final[Mapping[str, Reader]] = {
    "field": _text, "op": _one_of(tuple(OPERATORS)), "value": _anything, "cased": _boolean,
}  # fmt: skip
_CORRELATION: Final[Mapping[str, Reader]] = {
    "kind": _one_of(KINDS),
    "rules": _items(_text, least=1),
    "timespan_s": _whole(1, TIMESPAN_MAX_S),
    "at_least": _whole(1, COUNT_MAX),
    "group_by": _TEXTS,
    "aliases": _mapping(_mapping(_text)),
    "fields": _TEXTS,
    "generate": _boolean,
    "line": _LINE,
}
_STEP: Final[Mapping[str, Reader]] = {
    "fields": _mapping(_anything), "times": _whole(1, TIMES_MAX), "after_s": _seconds,
}  # fmt: skip
_EXAMPLE: Final[Mapping[str, Reader]] = {"steps": _items(_step, least=1), "line": _LINE}
_SPECIAL: Final[Mapping[str, Reader]] = {
    "body": _body, "line": _LINE,
    **dict.fromkeys(("tags", "references", "falsepositives", "fields", "filters"), _TEXTS),
    **dict.fromkeys(("examples", "counterexamples"), _items(_example)),
}  # fmt: skip
_RULE: Final[Mapping[str, Reader]] = {
    one.name: _SPECIAL.get(one.name, _text) for one in fields(Rule)
}
