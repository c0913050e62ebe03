# SPDX-License-Identifier: Apache-2.0
"""What was read of a call against what the kernel has: any difference is said, and no other."""

import hashlib
from typing import Any

import pytest

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events.call import RESULT, Blob, Call, Object, PartState
from calls import attr, blob, call_of, link_of, map_of, prog_of
from documents import DECODER, document_of

INSNS = bytes.fromhex("b700000000000000 9500000000000000")
TAG = hashlib.sha256(INSNS).digest()[:8]
OLD_TAG = hashlib.sha1(INSNS).digest()[:8]

MAP = attr("4I", 1, 4, 8, 1024) + bytes(12) + b"config".ljust(16, b"\0")
MADE = map_of(type=1, key_size=4, value_size=8, max_entries=1024, name=b"config")

LOAD = attr("IIQQIIQII16s", 2, 2, 0xA, 0xB, 0, 0, 0, 0, 0, b"watch".ljust(16, b"\0"))
LOADED = prog_of(type=2, name=b"watch", tag=TAG)


def created(**changes: Any) -> Call:
    return call_of(0, MAP, retval=3, objects={RESULT: MADE._replace(**changes)})


def loaded(made: Object = LOADED, insns: Blob | None = None) -> Call:
    memory = {8: insns or blob(INSNS)}
    return call_of(5, LOAD, retval=3, objects={RESULT: made}, memory=memory)


NAMING = Decoder({"bpf_prog_type": {77: "BPF_PROG_TYPE_NEW"}})
"""As on a kernel with constants that our tables lack."""


def differs(call: Call) -> list[str]:
    event = DECODER.decode(call)
    assert NAMING.decode(call).differs == event.differs
    assert ("toctou_suspect" in event.notes) == bool(event.differs)
    return list(event.differs)


def test_an_honest_call_has_no_difference() -> None:
    assert differs(created()) == []
    assert differs(loaded()) == []
    assert differs(loaded(LOADED._replace(tag=OLD_TAG))) == []


@pytest.mark.parametrize(
    ("field", "made"),
    [
        ("map_type", {"type": 2}),
        ("key_size", {"key_size": 8}),
        ("value_size", {"value_size": 4}),
        ("max_entries", {"max_entries": 1}),
        ("map_name", {"name": b"evil"}),
    ],
)
def test_a_map_is_what_was_asked_for(field: str, made: dict[str, Any]) -> None:
    assert differs(created(**made)) == [field]


def test_the_kernel_may_round_the_size_of_some_maps() -> None:
    lru = attr("4I", 9, 4, 8, 1000) + bytes(12) + b"config".ljust(16, b"\0")
    made = MADE._replace(type=9, max_entries=1024)
    assert differs(call_of(0, lru, retval=3, objects={RESULT: made})) == []


def test_a_field_that_was_not_passed_claims_nothing() -> None:
    short = call_of(0, MAP[:16], retval=3, objects={RESULT: MADE})
    assert differs(short) == []


def test_a_program_is_what_was_asked_for() -> None:
    assert differs(loaded(LOADED._replace(type=1))) == ["prog_type"]
    assert differs(loaded(LOADED._replace(name=b"evil"))) == ["prog_name"]


def test_instructions_are_held_against_the_tag() -> None:
    assert differs(loaded(insns=blob(INSNS[8:] * 2))) == ["insns"]


def test_instructions_that_are_not_all_there_prove_nothing() -> None:
    other = INSNS[8:] * 2
    for part in (
        blob(other, 4000, PartState.CUT),
        blob(other, 4000, PartState.UNREADABLE),
        Blob(other, 4000, PartState.CHUNKED, 4000),  # the rest was lost on the way
    ):
        assert differs(loaded(insns=part)) == []


def test_the_kernel_changes_instructions_that_it_relocates() -> None:
    """CO-RE relocations that it does itself come before the tag."""
    layout = COMMANDS[5].layout
    load = bytearray(LOAD.ljust(layout.end, b"\0"))
    call = loaded(insns=blob(INSNS[8:] * 2))
    assert differs(call._replace(entry=bytes(load), exit=bytes(load), size=len(load))) == ["insns"]
    load[layout.offset_of("core_relo_cnt")] = 1
    assert differs(call._replace(entry=bytes(load), exit=bytes(load), size=len(load))) == []


def test_ids_are_those_that_were_asked_for() -> None:
    for cmd, made in ((13, prog_of(id=31)), (14, map_of(id=31)), (30, link_of(id=31))):
        assert differs(call_of(cmd, attr("I", 31), retval=3, objects={RESULT: made})) == []
        (field,) = differs(call_of(cmd, attr("I", 32), retval=3, objects={RESULT: made}))
        assert field.endswith("_id")


def test_a_link_runs_the_program_that_was_passed() -> None:
    opened = attr("QI4x", 0, 4)
    prog, link = prog_of(id=31), link_of(prog_id=31)
    assert differs(call_of(17, opened, retval=3, objects={8: prog, RESULT: link})) == []
    link = link._replace(prog_id=32)
    assert differs(call_of(17, opened, retval=3, objects={8: prog, RESULT: link})) == ["prog_fd"]


def test_descriptors_lead_to_the_same_thing_all_the_time() -> None:
    pinned = call_of(6, attr("QII", 0xA, 3, 0), objects={8: map_of(id=1)})
    assert differs(pinned._replace(objects_after={8: map_of(id=1)})) == []
    assert differs(pinned._replace(objects_after={8: map_of(id=2)})) == ["bpf_fd"]


def test_attr_is_the_same_at_entry_and_exit() -> None:
    evil = MAP.replace(b"config", b"evil\0\0")
    assert differs(call_of(0, MAP, evil, retval=-1)) == ["map_name"]


def test_what_the_kernel_writes_may_change() -> None:
    call = call_of(11, attr("III", 1, 0, 0), attr("III", 1, 9, 0))  # next_id
    assert differs(call) == []


def test_bytes_behind_the_known_fields_count_too() -> None:
    """Where only the caller can have written them."""
    entry, other = attr("i", 3) + b"\0", attr("i", 3) + b"\1"
    assert differs(call_of(22, entry)._replace(kernel=other)) == ["trailing bytes"]
    assert differs(call_of(22, entry, other)) == []


def test_what_was_not_read_claims_nothing() -> None:
    part = call_of(0, MAP[:4], size=len(MAP), retval=3, objects={RESULT: MADE})
    assert differs(part) == []


def test_fields_of_an_arm_count_too() -> None:
    before = attr("iiIIIiQ", 3, 4, 46, 0, 7, 0, 0)
    after = attr("iiIIIiQ", 3, 4, 46, 0, 8, 0, 0)
    assert differs(call_of(28, before, after, retval=-1)) == ["relative_fd"]


def test_the_kernels_own_copy_is_what_is_shown() -> None:
    evil = MAP.replace(b"config", b"evil\0\0")
    call = created(name=b"evil")._replace(kernel=evil)
    assert differs(call) == ["map_name"]
    document = document_of(call)
    assert document["bpf"]["attr"]["map_name"] == "evil"
    assert document["bpf"]["map"]["name"] == "evil"


def test_the_kernels_own_copy_stands_in_for_memory_that_was_not_there() -> None:
    call = created()._replace(entry=b"", exit=b"", kernel=MAP)
    assert differs(call) == []
    document = document_of(call)
    assert document["bpf"]["attr"]["map_name"] == "config"
    assert "notes" not in document["bpf"]


def test_a_call_that_the_caller_made_larger_than_attr_is_zero_behind() -> None:
    call = call_of(22, attr("i", 3), size=300)._replace(kernel=attr("i", 3) + bytes(148))
    document = document_of(call)
    assert document["bpf"]["attr"] == {"map_fd": 3}
    assert "attr_trailing" not in document["bpf"]


def notes(call: Call, *, sees_inside: bool | None) -> tuple[str, ...]:
    return Decoder(sees_inside=sees_inside).decode(call).notes


def test_a_probe_that_reads_the_kernels_copy_says_where_it_has_none() -> None:
    """Of what succeeded: calls may fail before there is a copy."""
    assert notes(created(), sees_inside=True) == ("attr_unproven",)
    assert notes(created()._replace(kernel=MAP), sees_inside=True) == ()
    assert notes(call_of(0, MAP, retval=-7), sees_inside=True) == ()
    assert notes(created(), sees_inside=False) == ()
    assert notes(created(), sees_inside=None) == ()


def test_what_a_loader_program_does_may_be_unseen() -> None:
    run = call_of(10, attr("iIII", 3, 0, 0, 0), retval=-1, objects={0: prog_of(type=31)})
    assert notes(run, sees_inside=False) == ("inner_calls_unseen",)
    assert notes(run, sees_inside=True) == ()
    other = run._replace(objects={0: prog_of(type=1)})
    assert notes(other, sees_inside=False) == ()
