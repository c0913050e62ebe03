# SPDX-License-Identifier: Apache-2.0
"""What documents say of a program that is loaded, from its instructions."""

import struct
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.loads import KFUNCS
from bpfsnoop.decoders.tag import tags
from bpfsnoop.events.call import RESULT, Call, CallFlag, PartState, ProgramMaps
from calls import attr, blob, call_of, prog_of
from documents import VALIDATOR, document_of

EXIT = bytes.fromhex("9500000000000000")


def insn(code: int, registers: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, off, imm)


def load(insns: bytes, *, state: int = 0, wanted: int | None = None, **about: object) -> Call:
    memory = {8: blob(insns, wanted, state), 16: blob(b"GPL\0")}
    passed = attr("IIQQ", 6, len(insns) // 8, 0x1000, 0x2000)
    return call_of(5, passed, memory=memory)._replace(**about)  # type: ignore[arg-type]


def prog_of_document(call: Call) -> dict[str, object]:
    document = document_of(call)
    assert VALIDATOR.is_valid(document), [e.message for e in VALIDATOR.iter_errors(document)]
    prog: dict[str, object] = document["bpf"]["prog"]
    return prog


CALLS = insn(0x85, imm=36) + insn(0x85, 0x20, imm=4711) + insn(0x85, 0x20, 3, 12) + EXIT


def test_what_it_calls_has_names() -> None:
    assert prog_of_document(load(CALLS))["helpers"] == ["bpf_probe_write_user"]
    program = Decoder({KFUNCS: {4711: "bpf_task_acquire"}}).decode(load(CALLS)).program
    assert program
    assert program.kfuncs == ("bpf_task_acquire", "kfunc#12@3")
    nameless = Decoder().decode(load(CALLS)).program
    assert nameless
    assert nameless.kfuncs == ("kfunc#4711", "kfunc#12@3")


def test_a_program_that_was_refused_is_described_as_well() -> None:
    refused = prog_of_document(load(CALLS, retval=-13))
    assert refused["insn_count"] == 4
    assert refused["license"] == "GPL"
    assert not {"id", "map_ids"} & set(refused)
    assert refused["proven"] is False


def test_it_is_proven_by_its_tag_or_by_the_kernels_copy() -> None:
    (tag, *_) = tags(CALLS)
    made = prog_of(tag=tag)
    assert prog_of_document(load(CALLS, objects={RESULT: made}))["proven"] is True
    other = prog_of_document(load(CALLS, objects={RESULT: prog_of(tag=bytes(range(8)))}))
    assert other["proven"] is False
    copied = load(CALLS, state=int(PartState.KERNEL), retval=-13)
    assert prog_of_document(copied)["proven"] is True


def test_the_maps_are_those_that_the_verifier_found() -> None:
    made = {RESULT: prog_of()}
    few = prog_of_document(load(CALLS, objects=made, maps=ProgramMaps((12, 31), 2)))
    assert few["map_ids"] == [12, 31]
    many = prog_of_document(load(CALLS, objects=made, maps=ProgramMaps((12, 31), 40)))
    assert many["cut"] == ["map_ids"]


def test_the_same_program_has_the_same_digest_whatever_descriptors_its_maps_have() -> None:
    def with_map(fd: int) -> bytes:
        return insn(0x18, 0x11, imm=fd) + insn(0) + EXIT

    one, other = (prog_of_document(load(with_map(fd)))["sha256"] for fd in (5, 6))
    assert one == other
    assert one != prog_of_document(load(CALLS))["sha256"]


def test_of_instructions_that_are_missing_there_is_no_digest() -> None:
    part = prog_of_document(load(CALLS, wanted=8 * 5000, state=int(PartState.CUT)))
    assert part["insn_count"] == 5000
    assert part["cut"] == ["insns"]
    assert "sha256" not in part


def test_what_was_seen_of_large_programs_takes_little_room() -> None:
    """Whoever loads many of them must not fill our memory."""
    decoder = Decoder()
    tracemalloc.start()
    try:
        for number in range(40):
            insns = insn(0xB7, imm=number) + EXIT * 50_000
            assert decoder.decode(load(insns)).program
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * len(EXIT) * 50_000


def test_without_instructions_nothing_is_said() -> None:
    document = document_of(load(b"", wanted=16, state=int(PartState.UNREADABLE)))
    assert "prog" not in document["bpf"]


@given(st.binary(max_size=200), st.sampled_from([0, int(CallFlag.NO_EXIT)]))
def test_any_instructions_have_a_document(insns: bytes, flags: int) -> None:
    if insns:
        prog_of_document(load(insns, flags=flags))
