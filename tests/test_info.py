# SPDX-License-Identifier: Apache-2.0
"""The structs of BPF_OBJ_GET_INFO_BY_FD, field by field."""

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders import info
from bpfsnoop.events import text
from bpfsnoop.events.call import Object, ObjectKind
from bpfsnoop.events.value import Style
from bpfsnoop.tracer import btf
from calls import attr, blob, btf_of, call_of, link_of, map_of, prog_of
from documents import DECODER, document_of

MAP = struct.pack("=6I16s2I", 1, 12, 4, 8, 1024, 0, b"sessions", 0, 0)
LINK = struct.pack("=3I4xI4xQ2IQ", 7, 4, 31, 3, 0x7FFE0000, 10, 0x20, 0xFFFFFFFF81000000)
BTF = struct.pack("=Q2IQ2I", 0, 4096, 7, 0x7FFE0000, 8, 1)


def fields_of(data: bytes, found: Object) -> object:
    call = call_of(
        15, attr("IIQ", 3, len(data), 0x1000), memory={8: blob(data)}, objects={0: found}
    )
    return document_of(call)["bpf"]["memory"]["info"]["fields"]


def test_of_a_map() -> None:
    fields = fields_of(MAP, map_of())
    assert fields == {
        "type": "BPF_MAP_TYPE_HASH", "id": 12, "key_size": 4, "value_size": 8,
        "max_entries": 1024, "map_flags": [], "name": "sessions", "ifindex": 0,
        "btf_vmlinux_value_type_id": 0,
    }  # fmt: skip


def test_of_a_link_its_type_says_which_fields_there_are() -> None:
    assert fields_of(LINK, link_of()) == {
        "type": "BPF_LINK_TYPE_PERF_EVENT", "id": 4, "prog_id": 31,
        "perf_event": {
            "type": "BPF_PERF_EVENT_KPROBE",
            "kprobe": {
                "func_name": "0x7ffe0000", "name_len": 10, "offset": "0x20",
                "addr": "0xffffffff81000000",
            },
        },
    }  # fmt: skip


def test_of_btf_and_of_what_nobody_knows() -> None:
    about = fields_of(BTF, btf_of())
    assert about == {"btf": "0x0", "btf_size": 4096, "id": 7, "name": "0x7ffe0000",
                     "name_len": 8, "kernel_btf": 1}  # fmt: skip
    call = call_of(15, attr("IIQ", 3, 8, 0x1000), memory={8: blob(bytes(8))})
    assert document_of(call)["bpf"]["memory"]["info"] == {"hex": "00" * 8, "fields": {}, "size": 8}


def test_lines_have_it_with_v() -> None:
    call = call_of(15, attr("IIQ", 3, 88, 0x1000), memory={8: blob(LINK)}, objects={0: link_of()})
    event = DECODER.decode(call)
    assert "info=0x1000" in text.call(event)
    assert "perf_event={type=BPF_PERF_EVENT_KPROBE, kprobe={" in text.call(
        event, Style(verbose=True)
    )


KINDS = {ObjectKind.MAP: map_of(), ObjectKind.PROG: prog_of(), ObjectKind.LINK: link_of(),
         ObjectKind.BTF: btf_of()}  # fmt: skip


@given(st.binary(min_size=1, max_size=300), st.sampled_from(ObjectKind), st.integers(0, 16))
def test_any_bytes_have_a_line_and_a_document(data: bytes, kind: ObjectKind, number: int) -> None:
    data = bytes([number]) + data[1:]
    fields_of(data, KINDS[kind])
    call = call_of(15, attr("IIQ", 3, 88, 0x1000), memory={8: blob(data)}, objects={0: KINDS[kind]})
    assert re.fullmatch("[ -~]+", text.call(DECODER.decode(call), Style(verbose=True)))


@pytest.mark.live
@pytest.mark.parametrize("kind", ObjectKind)
def test_fields_are_where_this_kernel_has_them(kind: ObjectKind) -> None:
    struct_name = f"bpf_{kind.name.lower()}_info"
    layout = info.CONTENTS[kind].layout
    ours = {
        f"{struct_name}.{slot.fields[0].name}": slot.offset for slot in layout.slots if slot.fields
    }
    theirs = btf.Btf(btf.VMLINUX.read_bytes()).offsets(ours)
    assert theirs
    assert {name: ours[name] for name in theirs} == theirs
