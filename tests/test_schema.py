# SPDX-License-Identifier: Apache-2.0
"""events/schema.json: exactly as wide as the tables are, and strict beside them.

A SIEM's mapping is made from it, so a field that may come must be in it, and one that
can no longer come must not linger.
"""

import json
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bpfsnoop.decoders.layout import Command, Field, Layout, Moment
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import ecs
from bpfsnoop.events.call import COMMON_ATTRS, RESULT, CallFlag, CommandCount, PartState, Totals
from bpfsnoop.events.event import (
    ATTR_PARTLY_READ,
    ATTR_READ_AT_EXIT,
    ENTRY_UNSEEN,
    EXIT_UNSEEN,
    INNER_CALLS_UNSEEN,
    OUTPUT_UNREADABLE,
    PARTS_MISSING,
    TOCTOU_SUSPECT,
    UNPROVEN,
    Absence,
)
from bpfsnoop.events.folded import Folded, Reason, Who, folded_document
from bpfsnoop.events.memory import MISSING_REASONS
from bpfsnoop.events.object import Described
from bpfsnoop.events.process import Ancestor, Container, Missing, Surroundings
from bpfsnoop.events.value import JSON
from bpfsnoop.events.wire import PROCESS_ARGS_CUT, PROCESS_EXE_CUT
from calls import (
    attr,
    blob,
    btf_of,
    call_of,
    image_of,
    link_of,
    map_of,
    process_of,
    prog_of,
    without_task,
)
from documents import ORIGIN, SCHEMA, VALIDATOR, checked, document_of
from golden import ROWS, Row

CALL = SCHEMA["$defs"]["call"]["properties"]
BPF = CALL["bpf"]["properties"]
EVENT = CALL["event"]["properties"]


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


_DEFS = "#/$defs/memory_"
_BESIDE_CONTENT = {name: {"$ref": f"{_DEFS}{name}"} for name in ("size", "missing", "read_at_exit")}


def memory_properties() -> dict[str, JSON]:
    """What ``bpf.memory`` may hold: what pointers with a target lead to."""
    layouts = [command.layout for command in COMMANDS.values()]
    layouts += [layout for command in COMMANDS.values() for _, layout in command.arm_layouts]
    targets = ((field.name, field.target) for layout in layouts for field in _fields(layout))
    return _properties(
        (name, {
            "type": "object",
            "additionalProperties": False,
            "required": [*target.content.schema, "size"],
            "properties": {
                **target.content.schema, **target.content.optional, **_BESIDE_CONTENT
            },
        })
        for name, target in targets if target
    )  # fmt: skip


def _assert_properties(of: str, wanted: dict[str, JSON]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(wanted[name])}" for name in wanted)
    assert BPF[of]["properties"] == wanted, f"the properties of bpf.{of} should be\n{lines}"


def test_attr_has_the_fields_of_the_tables() -> None:
    _assert_properties("attr", attr_properties())


def test_memory_has_the_pointers_of_the_tables() -> None:
    _assert_properties("memory", memory_properties())


def test_no_field_has_two_types() -> None:
    # A database has one mapping for a field, whatever the command.
    properties = [*attr_properties().items(), *memory_properties().items()]
    assert [name for name, schema in properties if "anyOf" in schema] == []


def test_attr_after_has_the_fields_that_the_kernel_changes() -> None:
    _assert_properties("attr_after", attr_after_properties())


def test_all_notes_are_there() -> None:
    notes = {absence.value for absence in Absence}
    notes |= {ATTR_PARTLY_READ, ATTR_READ_AT_EXIT, OUTPUT_UNREADABLE, PARTS_MISSING}
    notes |= {ENTRY_UNSEEN, EXIT_UNSEEN, INNER_CALLS_UNSEEN, TOCTOU_SUSPECT, UNPROVEN}
    assert set(BPF["notes"]["items"]["enum"]) == notes


def test_all_reasons_are_there() -> None:
    reasons = SCHEMA["$defs"]["reason"]
    assert set(reasons["enum"]) == {reason.value for reason in Missing}
    missing = SCHEMA["$defs"]["memory_missing"]
    assert set(missing["items"]["enum"]) == set(MISSING_REASONS)
    for definition, words in ((reasons, reasons["enum"]), (missing, missing["items"]["enum"])):
        assert [word for word in words if f" {word}, " not in definition["description"]] == []


def test_all_kinds_of_objects_are_there() -> None:
    kinds = [Described(made(), "").kind for made in (btf_of, link_of, map_of, prog_of)]
    assert BPF["fd"]["items"]["properties"]["kind"]["enum"] == kinds
    assert BPF.keys() >= set(kinds)


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


_OF_TABLES = r"\.(attr|memory)\.properties\."


def test_every_property_but_those_of_the_tables_is_described() -> None:
    for path, schema in _objects(SCHEMA["$defs"], ""):
        if path.endswith((".attr", ".attr_after", ".memory")) or re.search(_OF_TABLES, path):
            continue
        for name, property_ in schema["properties"].items():
            named = property_.get("$ref", "").rpartition("/")[2]
            text = property_.get("description") or SCHEMA["$defs"].get(named, {}).get("description")
            assert text, f"{path}.{name}"


def test_every_object_is_closed() -> None:
    objects = dict(_objects(SCHEMA["$defs"], ""))
    assert len(objects) > 20
    assert not [path for path, schema in objects.items() if schema["additionalProperties"]]


# --- Documents ---------------------------------------------------------------------------

_FULL_CALL = call_of(
    15 | COMMON_ATTRS,
    attr("iIQ", 3, 8, 0xCAFE) + b"\1",
    attr("iIQ", 3, 4, 0xCAFE) + b"\1",
    retval=-7,
    common=(0xBEEF, 24),
    objects={0: map_of()},
    memory={8: blob(b"\1\2", 9, PartState.CUT | PartState.AT_EXIT)},
)
_SURROUNDINGS = Surroundings(
    args=(b"loader", b"-v"),
    args_cut=True,
    cwd=b"/root",
    ancestors=(Ancestor(1_200, b"bash", b"/bin/bash", 30), Ancestor(1, b"init", None, 0)),
    ancestors_cut=True,
    cgroup=b"/kubepods/pod/x",
    container=Container(
        "0123456789abcdef" * 4, "containerd", "8a7e5b1c-0d2f-4e3a-9b6c-112233445566"
    ),
    missing={},
)
_CUT = image_of(flags=PROCESS_EXE_CUT | PROCESS_ARGS_CUT, args=b"loader\0-")

FULL = document_of(_FULL_CALL, process_of(_FULL_CALL, _CUT, _SURROUNDINGS), message="bpf(...)")
"""A document with everything that one can have, but for what only the next two have."""

_CREATE = call_of(
    28,
    attr("iiIIIiQ", 3, 4, 46, 0, 7, 0, 0),
    retval=9,
    objects={0: prog_of(), 16: btf_of(), RESULT: link_of()},
    flags=CallFlag.NO_ENTRY,
)._replace(objects_after={0: prog_of()._replace(id=1)})
CREATED = document_of(_CREATE, process_of(_CREATE, _CUT, _SURROUNDINGS))
"""With the other kinds of objects."""

STRANGER = document_of(without_task(call_of(22, size=4, attr_addr=0)))
"""With notes and reasons: little is known of it."""
UNENDED = document_of(call_of(22, b"\3\0\0\0", flags=CallFlag.NO_EXIT))
"""Nobody saw it return."""
_HYBRID = Surroundings(
    None, False, None, (), False, b"/", None, {"container": Missing.GONE, "args": Missing.GONE}
)
_LOCKED = call_of(22, b"\3\0\0\0")._replace(pid_namespace=0, user_namespace=0)
LOCKED = document_of(_LOCKED, process_of(_LOCKED, image_of(parent_comm=b""), _HYBRID))
"""Kernel memory could not be read, and the process was gone."""

LOSS = checked(
    ecs.loss_document(
        Totals({0: CommandCount(5, 1), 62: CommandCount(1, 0)}, 1, 1, 1, time_ns=1),
        {0: "BPF_MAP_CREATE"},
        ORIGIN,
        sequence=7,
    )
)


Place = tuple[str | int, ...]


def _places(document: Any, path: Place = ()) -> Iterator[Place]:
    """The way to every object within."""
    if isinstance(document, dict):
        yield path
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def _dotted(*place: str | int) -> str:
    return ".".join(str(key) for key in place if not isinstance(key, int))


def _changed(document: ecs.Document, place: Place) -> tuple[ecs.Document, Any]:
    copy = deepcopy(document)
    inner: Any = copy
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
    assert FULL["process"].keys() == CALL["process"]["properties"].keys()
    assert {*FULL["bpf"], *CREATED["bpf"], "notes"} == BPF.keys()
    about = {*FULL["bpf"]["process"], *STRANGER["bpf"]["process"]}
    assert about == BPF["process"]["properties"].keys()
    absent = BPF["process"]["properties"]["absent"]["properties"]
    reasons = {key for of in (STRANGER, LOCKED) for key in of["bpf"]["process"]["absent"]}
    assert reasons == absent.keys()


DOCUMENTS = {
    "call": FULL, "created": CREATED, "stranger": STRANGER, "locked": LOCKED, "unended": UNENDED,
    "loss": LOSS,
}  # fmt: skip
every_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


_WHO = Who(_FULL_CALL, process_of(_FULL_CALL, _CUT, _SURROUNDINGS), 0)
_INVENTORY = Folded(
    Reason.AGGREGATE, "", _WHO, None, False, ("attr_null",), 1, 2, 5, 1, 2, {1: 2}, 7,
    {"map": 3}, True,
)  # fmt: skip
FOLDED = checked(folded_document(_INVENTORY, ORIGIN, sequence=1, message="inventory"))


@pytest.mark.parametrize("document", [*DOCUMENTS.values(), FOLDED], ids=[*DOCUMENTS, "folded"])
def test_a_field_that_is_not_in_the_schema_is_refused(document: ecs.Document) -> None:
    for place in _places(document):
        changed, inner = _changed(document, place)
        inner["surprise"] = 1
        assert not VALIDATOR.is_valid(changed), f"{_dotted(*place)}.surprise was not noticed"


OPTIONAL = {
    "message", "error", "host.id", "host.boot", "container", "container.runtime", "orchestrator",
    "process.entity_id", "process.executable", "process.args", "process.start",
    "process.working_directory", "process.parent", "process.parent.entity_id",
    "process.parent.executable", "process.parent.name",
    "process.ancestors", "process.ancestors.executable",
    "process.thread.capabilities", "user.effective",
    "event.duration", "bpf.differs",
    "bpf.common_attrs", "bpf.attr_after", "bpf.attr_trailing", "bpf.memory",
    "bpf.memory.info.missing", "bpf.memory.info.read_at_exit",
    "bpf.map", "bpf.prog", "bpf.link", "bpf.link.prog_id", "bpf.btf", "bpf.fd",
}  # fmt: skip


def _may_be_absent(path: str, document: ecs.Document) -> bool:
    # There is no attr, or result, without a note on why.
    if path == "bpf.attr":
        return "notes" in document["bpf"]
    if path == "bpf.notes":
        return {"attr", "retval"} <= set(document["bpf"])
    of, _, name = path.rpartition(".")
    if of == "bpf.process":
        return name != "cgroup_id"
    return (
        path in OPTIONAL
        or of in ("bpf.attr", "bpf.attr.tcx", "bpf.memory.info.fields")
        or (of == "bpf.process.absent")
    )


@every_document
def test_only_what_may_be_absent_may_be_absent(document: ecs.Document) -> None:
    for place in _places(document):
        for key in _changed(document, place)[1]:
            changed, inner = _changed(document, place)
            del inner[key]
            path = _dotted(*place, key)
            assert VALIDATOR.is_valid(changed) == _may_be_absent(path, document), path


def test_an_attr_that_is_absent_has_a_reason() -> None:
    null = document_of(call_of(22, size=4, attr_addr=0))
    assert null["bpf"].pop("notes") == ["attr_null"]
    assert not VALIDATOR.is_valid(null)


def test_a_result_that_is_absent_has_a_reason() -> None:
    assert UNENDED["event"]["outcome"] == "unknown"
    assert not {"retval", "errno"} & set(UNENDED["bpf"])
    changed, bpf = _changed(UNENDED, ("bpf",))
    bpf["retval"] = 0
    assert not VALIDATOR.is_valid(changed)
    bpf["notes"] = ["parts_missing"]
    assert VALIDATOR.is_valid(changed)


def test_success_has_no_errno() -> None:
    changed, bpf = _changed(FULL, ("bpf",))
    bpf["retval"] = 0
    assert not VALIDATOR.is_valid(changed)
    del bpf["errno"]
    assert VALIDATOR.is_valid(changed)
