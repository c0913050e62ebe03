# SPDX-License-Identifier: Apache-2.0
"""The fields that rules may name, from the schema of documents."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bpfsnoop.rules.fields import fields
from calls import call_of
from documents import document_of
from golden import ROWS, Row
from rule_texts import FIELDS

SCHEMA: Mapping[str, Any] = {
    "oneOf": [{"$ref": "#/$defs/one"}, {"properties": {"other": {"type": "string"}}}],
    "$defs": {
        "one": {
            "properties": {
                "object": {"type": "object", "properties": {"inner": {"const": 1}}},
                "list": {
                    "type": "array",
                    "items": {"properties": {"in_list": {"type": "integer"}}},
                },
                "strings": {"type": "array", "items": {"type": "string"}},
                "either": {"anyOf": [{"type": "string"}, {"properties": {"x": {"enum": ["a"]}}}]},
                "anything": True,
            },
            "if": {"properties": {"list": False}},
            "then": {"properties": {"then": {"$ref": "#/$defs/text"}}},
        },
        "text": {"type": "string"},
    },
}


def test_all_fields_of_a_schema_are_found() -> None:
    assert fields(SCHEMA) == {
        "object": False, "object.inner": True,
        "list": False, "list.in_list": True,
        "strings": True,
        "either": True, "either.x": True,
        "anything": False,
        "then": True,
        "other": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [
        "@timestamp", "event.action", "event.outcome", "process.executable", "process.args",
        "process.ancestors.name", "bpf.prog.helpers", "bpf.attr.kprobe_multi.flags",
        "bpf.fd.map.id", "bpf.integrity.reason", "user.id", "container.id",
    ],
)  # fmt: skip
def test_fields_that_rules_need_are_known(field: str) -> None:
    assert FIELDS[field]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_field_of_every_command_is_known(row: Row) -> None:
    """So a rule may name whatever a document shows."""
    document = document_of(call_of(row.cmd, row.attr))
    assert set(_names(document)) <= FIELDS.keys()


def _names(part: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from _names(one, prefix)
    elif isinstance(part, dict):
        for name, inner in part.items():
            yield prefix + name
            yield from _names(inner, f"{prefix}{name}.")
