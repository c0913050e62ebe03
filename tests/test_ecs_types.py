# SPDX-License-Identifier: Apache-2.0
"""Fields that we borrow from ECS are what ECS says they are, and the index template is ours."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.rules.fields import fields, said_of
from calls import call_of
from documents import SCHEMA, document_of
from ecs_fields import ALLOWED, EVENT_TYPES, LISTS, TYPES
from running import ROOT

TEMPLATE_PATH = ROOT / "docs" / "siem" / "elastic-index-template.json"
TEMPLATE = json.loads(TEMPLATE_PATH.read_bytes())["template"]

OURS = ("bpf.", "process.ancestors.")
"""What ECS has no field for."""


def _leaves(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, mapped in properties.items():
        if "properties" in mapped:
            yield from _leaves(mapped["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, mapped["type"]


MAPPED = dict(_leaves(TEMPLATE["mappings"]["properties"]))
BORROWED = {name: kind for name, kind in MAPPED.items() if not name.startswith(OURS)}


def test_borrowed_fields_are_of_ecs_and_of_its_type() -> None:
    assert {name: TYPES.get(name) for name in BORROWED} == BORROWED


def test_no_field_of_the_table_is_left_over() -> None:
    assert TYPES.keys() == BORROWED.keys()
    assert TYPES.keys() >= LISTS | ALLOWED.keys()


def test_lists_are_where_ecs_has_lists() -> None:
    said = said_of(SCHEMA)
    lists = {name for name in BORROWED if any(map(_takes_lists, said[name]))}
    assert lists == LISTS


def _takes_lists(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "array" or any(isinstance(one, list) for one in _values(part))


def _values(part: Mapping[str, Any]) -> list[Any]:
    """All that a schema takes, if it takes no others."""
    return [*part.get("enum", ()), *([part["const"]] if "const" in part else ())]


@pytest.mark.parametrize("field", ALLOWED)
def test_values_are_those_that_ecs_allows(field: str) -> None:
    assert {value for part in said_of(SCHEMA)[field] for value in _values(part)} <= ALLOWED[field]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_type_of_a_call_goes_with_one_of_its_categories(command: int) -> None:
    event = document_of(call_of(command))["event"]
    possible = set().union(*(EVENT_TYPES[name] for name in event["category"]))
    assert set(event["type"]) <= possible


@pytest.mark.parametrize("reference", [one["$ref"] for one in SCHEMA["oneOf"]])
def test_types_of_other_documents_go_with_their_categories(reference: str) -> None:
    said = said_of({"$ref": reference, "$defs": SCHEMA["$defs"]})
    categories, types = (
        {word for part in said[field] for value in _values(part) for word in _words(value)}
        for field in ("event.category", "event.type")
    )
    assert categories
    assert types
    assert types <= set().union(*(EVENT_TYPES[name] for name in categories))


def _words(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


# --- The index template ------------------------------------------------------------------


def test_the_template_is_made_from_the_schema_as_it_is() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "packaging" / "elastic_template.py"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == TEMPLATE_PATH.read_text(), "see packaging/elastic_template.py"


def test_the_template_has_every_field_that_holds_values() -> None:
    assert {name for name, holds in fields(SCHEMA).items() if holds} == MAPPED.keys()


def test_the_template_leaves_room_for_the_fields_of_shippers() -> None:
    """Elasticsearch counts objects too, and refuses documents when there are too many."""
    limit = TEMPLATE["settings"]["index.mapping.total_fields.limit"]
    assert len(fields(SCHEMA)) + 500 < limit
