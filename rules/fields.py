# SPDX-License-Identifier: Apache-2.0
"""Which fields documents have, from their JSON Schema."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Fields = Mapping[str, bool]
"""Dotted name -> it holds values; else only other fields."""

_SAME_LEVEL: Final = ("anyOf", "oneOf", "allOf", "then", "else", "items", "prefixItems")
_VALUES: Final = {"string", "integer", "number", "boolean"}


def fields(schema: Mapping[str, Any]) -> Fields:
    """Of all documents that a JSON Schema describes, those within lists of objects included.

    :param schema: whose references, if it has any, lead to places in itself, not in circles.
    """
    return {name: any(map(_holds_values, said)) for name, said in said_of(schema).items()}


def said_of(schema: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Dotted name of a field -> all that a JSON Schema says of it, as schemas without references.

    :param schema: as :func:`fields` takes it.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, said in _named(schema, schema, ""):
        found.setdefault(name, []).extend(said)
    return found


def _named(
    schema: Mapping[str, Any], part: Any, prefix: str
) -> Iterator[tuple[str, Iterator[Mapping[str, Any]]]]:
    for same in _same_level(schema, part):
        for name, inner in same.get("properties", {}).items():
            yield prefix + name, _same_level(schema, inner)
            yield from _named(schema, inner, f"{prefix}{name}.")


def _same_level(schema: Mapping[str, Any], part: Any) -> Iterator[Mapping[str, Any]]:
    # All that is said of the same thing, or of what is in a list of it.
    if not isinstance(part, dict):  # true and false are schemas too
        return
    yield part
    if "$ref" in part:
        yield from _same_level(schema, _at(schema, part["$ref"]))
    for key in _SAME_LEVEL:
        inner = part.get(key, ())
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _same_level(schema, one)


def _at(schema: Any, reference: str) -> Any:
    for name in reference.removeprefix("#/").split("/"):
        schema = schema[name]
    return schema


def _holds_values(part: Mapping[str, Any]) -> bool:
    return "enum" in part or "const" in part or part.get("type") in _VALUES
