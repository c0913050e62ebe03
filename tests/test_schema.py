# SPDX-License-Identifier: Apache-2.0
"""events/schema.json: exactly as wide as the tables are, and strict beside them.

A SIEM's mapping is made from it, so a field that may come must be in it, and one that
can no longer come must not linger.
"""

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bpfsnoop.decoders.layout import Command, Field, Layout, Moment
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs
from bpfsnoop.events.call import COMMON_ATTRS, CommandCount, Totals
from bpfsnoop.events.event import ATTR_READ_AT_EXIT, OUTPUT_UNREADABLE, Absence
from bpfsnoop.events.value import JSON
from calls import attr, call_of
from documents import ORIGIN, SCHEMA, VALIDATOR, checked, document_of
from golden import ROWS, Row

BPF = SCHEMA["$defs"]["call"]["properties"]["bpf"]["properties"]
EVENT = SCHEMA["$defs"]["call"]["properties"]["event"]["properties"]


# --- What the tables can produce ---------------------------------------------------------


def _properties(fields: Iterable[tuple[str, JSON]]) -> dict[str, JSON]:
    # A name may stand for different things in different commands.
    schemas: dict[str, set[str]] = {}
    for name, schema in fields:
        schemas.setdefault(name, set()).add(json.dumps(dict(schema)))
    choices = {name: list(map(json.loads, sorted(found))) for name, found in schemas.items()}
    return {
        name: found[0] if len(found) == 1 else {"anyOf": found}
        for name, found in sorted(choices.items())
    }


def _fields(layout: Layout) -> Iterator[Field]:
    return (field for slot in layout.slots for field in slot.fields)


def _attr(command: Command) -> Iterator[tuple[str, JSON]]:
    yield from ((field.name, field.kind.schema) for field in _fields(command.layout))
    for arm, layout in command.arm_layouts:
        members = [(field.name, field.kind.schema) for field in _fields(layout)]
        if arm.name:
            properties = _properties(members)
            yield (
                arm.name,
                {"type": "object", "additionalProperties": False, "properties": properties},
            )
        else:
            yield from members


def attr_properties() -> dict[str, JSON]:
    """What ``bpf.attr`` may hold."""
    return _properties(pair for command in COMMANDS.values() for pair in _attr(command))


def attr_after_properties() -> dict[str, JSON]:
    """What ``bpf.attr_after`` may hold: the fields that have an old and a new value."""
    return _properties(
        (field.name, field.kind.schema)
        for command in COMMANDS.values()
        for field in _fields(command.layout)
        if field.moment in (Moment.BOTH, Moment.REPLY)
    )


def _assert_properties(of: str, wanted: dict[str, JSON]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(wanted[name])}" for name in wanted)
    assert BPF[of]["properties"] == wanted, f"the properties of bpf.{of} should be\n{lines}"


def test_attr_has_the_fields_of_the_tables() -> None:
    _assert_properties("attr", attr_properties())


def test_no_field_of_attr_has_two_types() -> None:
    # A database has one mapping for a field, whatever the command.
    several = [name for name, schema in attr_properties().items() if "anyOf" in schema]
    assert several == []


def test_attr_after_has_the_fields_that_the_kernel_changes() -> None:
    _assert_properties("attr_after", attr_after_properties())


def test_all_notes_are_there() -> None:
    notes = {absence.value for absence in Absence} | {ATTR_READ_AT_EXIT, OUTPUT_UNREADABLE}
    assert set(BPF["notes"]["items"]["enum"]) == notes


def test_all_categories_and_types_are_there() -> None:
    events = [document_of(call_of(number))["event"] for number in COMMANDS]
    for key in ("category", "type"):
        assert set(EVENT[key]["items"]["enum"]) == {value for e in events for value in e[key]}


# --- The schema itself -------------------------------------------------------------------


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def _objects(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from _objects(value, f"{path}.{key}")


def test_every_property_but_those_of_attr_is_described() -> None:
    for path, schema in _objects(SCHEMA["$defs"], ""):
        if path.endswith((".attr", ".attr_after")) or ".attr." in path:
            continue
        for name, property_ in schema["properties"].items():
            named = property_.get("$ref", "").rpartition("/")[2]
            text = property_.get("description") or SCHEMA["$defs"][named].get("description")
            assert text, f"{path}.{name}"


def test_every_object_is_closed() -> None:
    objects = dict(_objects(SCHEMA["$defs"], ""))
    assert len(objects) > 20
    assert not [path for path, schema in objects.items() if schema["additionalProperties"]]


# --- Documents ---------------------------------------------------------------------------

FULL = document_of(
    call_of(
        15 | COMMON_ATTRS,
        attr("iIQ", 3, 8, 0xCAFE) + b"\1",
        attr("iIQ", 3, 4, 0xCAFE) + b"\1",
        retval=-22,
        common=(0xBEEF, 24),
    ),
    message="bpf(...)",
)
"""A document with everything that one can have, but for notes, which say what is amiss."""

LOSS = checked(
    ecs.loss_document(
        Totals({0: CommandCount(5, 1), 62: CommandCount(1, 0)}, 1, 1, 1, time_ns=1),
        {0: "BPF_MAP_CREATE"},
        ORIGIN,
        sequence=7,
    )
)


def _places(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every object within."""
    if isinstance(document, dict):
        yield path
        for key, value in document.items():
            yield from _places(value, (*path, key))


def _changed(document: ecs.Document, place: tuple[str, ...]) -> tuple[ecs.Document, Any]:
    copy = deepcopy(document)
    inner = copy
    for key in place:
        inner = inner[key]
    return copy, inner


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_command_makes_a_document(row: Row) -> None:
    shown = document_of(call_of(row.cmd, row.attr))
    assert shown["bpf"]["cmd"] == row.command
    assert shown["event"]["action"] == row.command.removeprefix("BPF_").lower()
    assert "notes" not in shown["bpf"]


def test_the_full_document_has_everything() -> None:
    assert FULL.keys() == SCHEMA["$defs"]["call"]["properties"].keys()
    assert FULL["bpf"].keys() == BPF.keys() - {"notes"}


@pytest.mark.parametrize("document", [FULL, LOSS], ids=["call", "loss"])
def test_a_field_that_is_not_in_the_schema_is_refused(document: ecs.Document) -> None:
    for place in _places(document):
        changed, inner = _changed(document, place)
        inner["surprise"] = 1
        assert not VALIDATOR.is_valid(changed), f"{'.'.join(place)}.surprise was not noticed"


OPTIONAL = {
    "message", "host.id", "bpf.common_attrs", "bpf.attr_after", "bpf.attr_trailing",
    "bpf.attr.bpf_fd", "bpf.attr.info_len", "bpf.attr.info",
}  # fmt: skip


@pytest.mark.parametrize("document", [FULL, LOSS], ids=["call", "loss"])
def test_only_what_may_be_absent_may_be_absent(document: ecs.Document) -> None:
    for place in _places(document):
        for key in _changed(document, place)[1]:
            changed, inner = _changed(document, place)
            del inner[key]
            path = ".".join((*place, key))
            assert VALIDATOR.is_valid(changed) == (path in OPTIONAL), path


def test_an_attr_that_is_absent_has_a_reason() -> None:
    null = document_of(call_of(22, size=4, attr_addr=0))
    assert null["bpf"].pop("notes") == ["attr_null"]
    assert not VALIDATOR.is_valid(null)


def test_success_has_no_errno() -> None:
    changed, bpf = _changed(FULL, ("bpf",))
    bpf["retval"] = 0
    assert not VALIDATOR.is_valid(changed)
    del bpf["errno"]
    assert VALIDATOR.is_valid(changed)
