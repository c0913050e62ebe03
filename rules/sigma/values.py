# SPDX-License-Identifier: Apache-2.0
"""pySigma's values and conditions -> ours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
)
from sigma.types import (
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
)

from ..check import nearest
from ..pattern import escaped
from ..rule import All, AnyOf, Ask, Node, Not

Lists = Mapping[str, Sequence[str]]
"""What ``%name%`` stands for with the modifier expand: any of these, wildcards allowed."""

_ALTERNATIVES_MAX: Final = 10_000
_STAR: Final = SpecialChars.WILDCARD_MULTI
_WILDCARDS: Final = {_STAR: "*", SpecialChars.WILDCARD_SINGLE: "?"}
_FLAGS: Final = {
    SigmaRegularExpressionFlag.IGNORECASE: "i",
    SigmaRegularExpressionFlag.MULTILINE: "m",
    SigmaRegularExpressionFlag.DOTALL: "s",
}
Parts = tuple[str | SpecialChars | Placeholder, ...]
"""Of text: what stands for itself, and what does not."""


def node(parsed: Any, lists: Lists) -> Node:
    """A condition that pySigma has parsed.

    :raises ValueError: something in it is not supported, or not known.
    """
    match parsed:
        case ConditionAND():
            return All(tuple(_parts(parsed.args, All, lists)))
        case ConditionOR():
            return AnyOf(tuple(_parts(parsed.args, AnyOf, lists)))
        case ConditionNOT():
            return Not(node(parsed.args[0], lists))
        case ConditionFieldEqualsValueExpression():
            return test(parsed.field, parsed.value, lists)
    raise ValueError("words without a field are not supported: say which field has them")


def _parts(parsed: Sequence[Any], kind: type[All | AnyOf], lists: Lists) -> Iterator[Node]:
    # One in another of its kind is as well a part of that.
    for one in parsed:
        made = node(one, lists)
        if isinstance(made, kind):
            yield from made.nodes
        else:
            yield made


def test(field: str, value: Any, lists: Lists) -> Node:
    """One value of one field, after pySigma's modifiers.

    :raises ValueError: as :func:`node`.
    """
    for kind, made in _MADE:
        if isinstance(value, kind):
            return made(field, value, lists)
    raise ValueError(f"a value of this kind ({type(value).__name__}) is not supported")


def _refused(_: str, value: Any, __: Lists) -> Node:
    raise ValueError("parts of a time (hour, day and so on) are not supported")


def _expansion(field: str, value: SigmaExpansion, lists: Lists) -> Node:
    return AnyOf(tuple(test(field, inner, lists) for inner in value.values))


def _regular_expression(field: str, value: SigmaRegularExpression, _: Lists) -> Node:
    if any(isinstance(part, Placeholder) for part in value.regexp.s):
        raise ValueError("expand is not supported within regular expressions")
    flags = "".join(sorted(_FLAGS[flag] for flag in value.flags))
    return Ask(field, "matches", (f"(?{flags})" if flags else "") + str(value.regexp))


def _reference(field: str, value: SigmaFieldReference, _: Lists) -> Node:
    op = _REFERENCES[value.starts_with, value.ends_with]
    return Ask(field, op, value.field)


# After "contains", pySigma says both.
_REFERENCES: Final = {
    (False, False): "field",
    (True, False): "field_startswith",
    (False, True): "field_endswith",
    (True, True): "field_contains",
}


def _text(field: str, value: SigmaString, lists: Lists) -> Node:
    cased = isinstance(value, SigmaCasedString)
    tests = tuple(_pattern(field, parts, cased=cased) for parts in _filled_in(value, lists))
    return tests[0] if len(tests) == 1 else AnyOf(tests)


def _filled_in(value: SigmaString, lists: Lists) -> Iterator[Parts]:
    choices: list[Sequence[Parts]] = []
    count = 1
    for part in value.s:
        choices.append(_choices(part, lists))
        count *= len(choices[-1])
    if count > _ALTERNATIVES_MAX:
        raise ValueError(f"these lists make more than {_ALTERNATIVES_MAX} values")
    for chosen in product(*choices):
        yield tuple(part for parts in chosen for part in parts)


def _choices(part: str | SpecialChars | Placeholder, lists: Lists) -> Sequence[Parts]:
    if not isinstance(part, Placeholder):
        return [(part,)]
    if part.name not in lists:
        raise ValueError(f"there is no list {part.name}{nearest(part.name, lists.keys())}")
    if not lists[part.name]:
        raise ValueError(f"the list {part.name} is empty")
    return [tuple(SigmaString(item).s) for item in lists[part.name]]


def _pattern(field: str, parts: Parts, *, cased: bool) -> Ask:
    joined = _joined(parts)
    match joined:
        case () | (str(),):
            return Ask(field, "equals", "".join(map(str, joined)), cased)
        case (str(literal), last) if last is _STAR:
            return Ask(field, "startswith", literal, cased)
        case (first, str(literal)) if first is _STAR:
            return Ask(field, "endswith", literal, cased)
        case (first, str(literal), last) if first is _STAR and last is _STAR:
            return Ask(field, "contains", literal, cased)
    return Ask(field, "like", "".join(map(_spelled, joined)), cased)


def _joined(parts: Parts) -> Parts:
    # Literals beside each other, as lists leave them, are one.
    joined: list[str | SpecialChars | Placeholder] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        else:
            joined.append(part)
    return tuple(joined)


def _spelled(part: str | SpecialChars | Placeholder) -> str:
    if isinstance(part, str):
        return escaped(part)
    return _WILDCARDS[part] if isinstance(part, SpecialChars) else ""


Made = Callable[[str, Any, Lists], Node]

_MADE: Final[Sequence[tuple[type, Made]]] = (
    (SigmaTimestampPart, _refused),  # is a SigmaNumber too
    (SigmaString, _text),
    (SigmaNumber, lambda field, value, _: Ask(field, "number", value.number)),
    (SigmaBool, lambda field, value, _: Ask(field, "boolean", value.boolean)),
    (SigmaNull, lambda field, value, _: Ask(field, "exists", value=False)),
    (SigmaExists, lambda field, value, _: Ask(field, "exists", value.exists)),
    (SigmaCompareExpression, lambda field, value, _:
        Ask(field, value.op.name.lower(), value.number.number)),
    (SigmaCIDRExpression, lambda field, value, _: Ask(field, "cidr", value.cidr)),
    (SigmaRegularExpression, _regular_expression),
    (SigmaFieldReference, _reference),
    (SigmaExpansion, _expansion),
)  # fmt: skip
