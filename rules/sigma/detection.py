# SPDX-License-Identifier: Apache-2.0
"""Detections, item by item, so that each mistake has its line; and the conditions over them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sigma.modifiers import modifier_mapping
from sigma.rule import SigmaDetectionItem, SigmaRule

from ...events.errors import Mistake
from ..check import nearest
from ..condition import condition
from ..fields import Fields
from ..rule import AnyOf, Ask, Node
from .lines import Lined, Path
from .values import Lists, node, test

_CONDITION_MAX: Final = 2_000  # characters
_PARENTHESES_MAX: Final = 16  # of conditions: what pySigma parses them with takes long for many
_WORDS_MAX: Final = 200
_NO_ITEMS: Final = ("condition", "rules", "timeframe")


class Known(NamedTuple):
    """What rules may refer to."""

    fields: Fields
    lists: Lists


def field_fault(name: str, fields: Fields, *, existence: bool = False) -> str:
    """What is wrong with the name of a field, or nothing.

    :param existence: it is only asked whether it is there, which objects can be asked too.
    """
    if name not in fields:
        return f"there is no field {name}{nearest(name, fields.keys())}"
    if not fields[name] and not existence:
        return f"{name} has no value itself, only fields in it"
    return ""


def item_mistakes(document: Lined, section: str, known: Known) -> Iterator[Mistake]:
    """All that is wrong with the detections in this section, but for its condition."""
    detections = document.value.get(section)
    if not isinstance(detections, Mapping):
        return
    for name, definition in detections.items():
        if name not in _NO_ITEMS:
            yield from _definition(document, (section, name), definition, known)
        elif name == "timeframe":
            yield document.mistake("a time frame is what correlations have", section, name)


def _definition(document: Lined, where: Path, definition: Any, known: Known) -> Iterator[Mistake]:
    if isinstance(definition, Mapping) and definition:
        for key, value in definition.items():
            try:
                _checked(key, value, known)
            except ValueError as error:  # SigmaError is one
                yield document.mistake(f"{key}: {error}", *where, key)
            except Exception as error:  # of what pySigma expects, it does not check all
                fault = f"pySigma cannot read this: {type(error).__name__}"
                yield document.mistake(f"{key}: {fault}", *where, key)
    elif isinstance(definition, list) and definition:
        for at, inner in enumerate(definition):
            yield from _definition(document, (*where, at), inner, known)
    else:
        yield document.mistake("must have fields and their values", *where)


def _checked(key: str, value: Any, known: Known) -> None:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("an empty list matches nothing: null is for what is absent")
    if len(values) > 1 and None in values:
        raise ValueError("null must stand alone: use another item for it")
    if not all(one is None or isinstance(one, str | int | float) for one in values):
        raise ValueError("must be text, a number, true, false, null or a list of such")
    if any(isinstance(one, int) and not _exact(one) for one in values):
        raise ValueError("pySigma rounds a number that large: write it as text")
    modifiers = key.split("|")[1:]
    if len(set(modifiers)) < len(modifiers):  # thirty times "wide" is 1 GB of text
        raise ValueError("a modifier stands here twice")
    if "re" in modifiers and not all(isinstance(one, str) for one in values):
        raise ValueError("a regular expression must be text")
    if "re" in modifiers and not {"startswith", "endswith"}.isdisjoint(modifiers):
        raise ValueError("a regular expression says itself, by ^ and $, where it begins and ends")
    for modifier in modifiers:
        if modifier not in modifier_mapping:
            near = nearest(modifier, modifier_mapping.keys())
            raise ValueError(f"there is no modifier {modifier}{near}")
    item = SigmaDetectionItem.from_mapping(key, value)
    if not item.field:
        raise ValueError("words without a field are not supported: say which field has them")
    for one in item.value:
        made = test(item.field, one, known.lists)
        condition(made)  # or else its pattern is none
        if fault := _fault(made, known.fields):
            raise ValueError(fault)


def _exact(number: int) -> bool:
    # As pySigma looks at it.
    try:
        return float(number) == number
    except OverflowError:
        return False


def _fault(made: Node, fields: Fields) -> str:
    match made:
        case Ask(field, "exists"):
            return field_fault(field, fields, existence=True)
        case Ask(field, op, value) if op.startswith("field"):
            return field_fault(field, fields) or field_fault(str(value), fields)
        case Ask(field):
            return field_fault(field, fields)
        case AnyOf(nodes):  # of the same field, all of them
            return _fault(nodes[0], fields)
    return ""


def stand_in(section: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what items may have wrong, so that pySigma says what else is."""
    return {
        name: part if name in _NO_ITEMS else {"any": 1}
        for name, part in section.items()
        if name != "condition" or not list(condition_faults(part))
    }


def condition_faults(conditions: Any) -> Iterator[str]:
    """What pySigma should not see of a condition, or of a list of them."""
    for text in conditions if isinstance(conditions, list) else [conditions]:
        if not isinstance(text, str):
            yield "the condition must be text"
        elif (
            len(text) > _CONDITION_MAX
            or text.count("(") > _PARENTHESES_MAX
            or len(text.split()) > _WORDS_MAX
        ):
            yield "the condition is too long"


def detection(rule: SigmaRule, lists: Lists) -> Node:
    """The whole condition; one of several is enough.

    :raises ValueError: SigmaError included: it is none.
    """
    made: Sequence[Node] = [node(one.parsed, lists) for one in rule.detection.parsed_condition]
    return made[0] if len(made) == 1 else AnyOf(tuple(made))
