# SPDX-License-Identifier: Apache-2.0
"""Conditions as closures: a tree of tests in, a function of documents out.

docs/rules.md says what each test means. What a test asks of a single value is a row of
``_ASKED``; that one of several values is enough is said once, in ``_test``.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from ..events.ecs import Document
from .document import getter, number, text, values
from .pattern import regular_expression, wildcards
from .rule import All, AnyOf, Ask, Node, Not

ACTION: Final = "event.action"

Asked = Callable[[Any], bool]
"""What is asked of one value."""
Judge = Callable[[Document], bool]
Evidence = Callable[[Document], Iterator[tuple[str, Any]]]


class Condition(NamedTuple):
    """A condition that can be put to documents. Neither function ever raises."""

    holds: Judge
    evidence: Evidence
    """If it holds: the fields, and of their values those, that made it so."""


def condition(node: Node) -> Condition:
    """:raises ValueError: a pattern, expression or network in it is not one."""
    match node:
        case Ask():
            return _test(node)
        case Not(inner):
            return _negated(condition(inner).holds)
        case All(nodes):
            return _all(list(map(condition, nodes)))
        case AnyOf(nodes):
            return _any(_alternatives(nodes))


def possible(node: Node, action: str | None) -> tuple[bool, bool]:
    """Whether it can hold for a document with this ``event.action``, and whether it can fail.

    :param action: None: the document has none.
    """
    match node:
        case Not(inner):
            holds, fails = possible(inner, action)
            return fails, holds
        case All(nodes):
            outcomes = [possible(inner, action) for inner in nodes]
            return all(holds for holds, _ in outcomes), any(fails for _, fails in outcomes)
        case AnyOf(nodes):
            outcomes = [possible(inner, action) for inner in nodes]
            return any(holds for holds, _ in outcomes), all(fails for _, fails in outcomes)
        case Ask(field, op) if field != ACTION or op in _COMPARED:
            return True, True
    known = _test(node).holds({"event": {"action": action}})
    return known, not known


# --- Trees -------------------------------------------------------------------------------


def _no_evidence(_: Document) -> Iterator[tuple[str, Any]]:
    return iter(())


def _negated(holds: Judge) -> Condition:
    return Condition(lambda document: not holds(document), _no_evidence)


def _all(parts: Sequence[Condition]) -> Condition:
    def evidence(document: Document) -> Iterator[tuple[str, Any]]:
        for part in parts:
            yield from part.evidence(document)

    match [part.holds for part in parts]:
        case [first]:
            return Condition(first, evidence)
        case [first, second]:
            return Condition(lambda document: first(document) and second(document), evidence)
        case judges:
            return Condition(_every(judges), evidence)


def _every(judges: Sequence[Judge]) -> Judge:
    def holds(document: Document) -> bool:
        for judge in judges:  # noqa: SIM110 - all() with a generator takes three times as long
            if not judge(document):
                return False
        return True

    return holds


def _any(parts: Sequence[Condition]) -> Condition:
    judges = [part.holds for part in parts]

    def holds(document: Document) -> bool:
        for judge in judges:  # noqa: SIM110 - as above
            if judge(document):
                return True
        return False

    def evidence(document: Document) -> Iterator[tuple[str, Any]]:
        for part in parts:
            if part.holds(document):
                yield from part.evidence(document)

    return Condition(holds, evidence)


def _alternatives(nodes: Sequence[Node]) -> list[Condition]:
    # A list of a thousand paths is one look into a set.
    parts: list[Condition] = []
    equal: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for node in nodes:
        if isinstance(node, Ask) and node.op == "equals":
            equal[node.field, node.cased].add(_folded(node))
        else:
            parts.append(condition(node))
    sets = [
        _asking(field, _of_text(wanted.__contains__, cased=cased))
        for (field, cased), wanted in equal.items()
    ]
    return [*sets, *parts]


# --- Tests -------------------------------------------------------------------------------


def _test(test: Ask) -> Condition:
    if test.op == "exists":
        return _existence(test)
    if test.op in _COMPARED:
        return _comparison(test)
    return _asking(test.field, _ASKED[test.op](test))


def _asking(field: str, asked: Asked) -> Condition:
    # Any of the values will do.
    get = getter(field)

    def holds(document: Document) -> bool:
        found = get(document)
        if found is None:
            return False
        if type(found) is list:
            return any(map(asked, values(found)))
        return asked(found)

    def evidence(document: Document) -> Iterator[tuple[str, Any]]:
        return ((field, value) for value in values(get(document)) if asked(value))

    return Condition(holds, evidence)


def _existence(test: Ask) -> Condition:
    get = getter(test.field)

    def there(document: Document) -> bool:
        return any(True for _ in values(get(document)))

    def evidence(document: Document) -> Iterator[tuple[str, Any]]:
        return ((test.field, value) for value in values(get(document)))

    return Condition(there, evidence) if test.value else _negated(there)


def _comparison(test: Ask) -> Condition:
    # One field with another.
    get, get_other = getter(test.field), getter(str(test.value))
    compare = _COMPARED[test.op]

    def evidence(document: Document) -> Iterator[tuple[str, Any]]:
        others = [text(other) for other in values(get_other(document))]
        for value in values(get(document)):
            seen = text(value)
            if seen is not None and any(o is not None and compare(seen, o) for o in others):
                yield test.field, value

    return Condition(lambda document: any(True for _ in evidence(document)), evidence)


_COMPARED: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "field": lambda one, other: one == other,
    "field_startswith": lambda one, other: one.startswith(other),
    "field_endswith": lambda one, other: one.endswith(other),
    "field_contains": lambda one, other: other in one,
}


def _folded(test: Ask) -> str:
    wanted = str(test.value)
    return wanted if test.cased else wanted.lower()


def _of_text(matches: Callable[[str], Any], *, cased: bool) -> Asked:
    def asked(value: Any) -> bool:
        seen = value if type(value) is str else text(value)
        return seen is not None and bool(matches(seen if cased else seen.lower()))

    return asked


def _equals(test: Ask) -> Asked:
    return _of_text(_folded(test).__eq__, cased=test.cased)


def _startswith(test: Ask) -> Asked:
    wanted = _folded(test)
    return _of_text(lambda seen: seen.startswith(wanted), cased=test.cased)


def _endswith(test: Ask) -> Asked:
    wanted = _folded(test)
    return _of_text(lambda seen: seen.endswith(wanted), cased=test.cased)


def _contains(test: Ask) -> Asked:
    wanted = _folded(test)
    return _of_text(lambda seen: wanted in seen, cased=test.cased)


def _like(test: Ask) -> Asked:
    return _of_text(wildcards(_folded(test)), cased=test.cased)


def _matches(test: Ask) -> Asked:
    return _of_text(regular_expression(str(test.value)), cased=True)


def _cidr(test: Ask) -> Asked:
    network = ip_network(str(test.value), strict=False)

    def asked(value: Any) -> bool:
        try:
            return isinstance(value, str) and ip_address(value) in network
        except ValueError:
            return False

    return asked


def _boolean(test: Ask) -> Asked:
    return lambda value: value is test.value


def _numeric(compare: Callable[[Any, Any], bool]) -> Callable[[Ask], Asked]:
    def made(test: Ask) -> Asked:
        def asked(value: Any) -> bool:
            seen = number(value)
            return seen is not None and compare(seen, test.value)

        return asked

    return made


_ASKED: Final[Mapping[str, Callable[[Ask], Asked]]] = {
    "equals": _equals,
    "startswith": _startswith,
    "endswith": _endswith,
    "contains": _contains,
    "like": _like,
    "matches": _matches,
    "cidr": _cidr,
    "boolean": _boolean,
    "number": _numeric(lambda seen, wanted: seen == wanted),
    "lt": _numeric(lambda seen, wanted: seen < wanted),
    "lte": _numeric(lambda seen, wanted: seen <= wanted),
    "gt": _numeric(lambda seen, wanted: seen > wanted),
    "gte": _numeric(lambda seen, wanted: seen >= wanted),
}
