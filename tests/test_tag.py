# SPDX-License-Identifier: Apache-2.0
"""The tag of a program from its instructions."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.tag import tags

RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")


def _wide(source: int, low: int, high: int) -> bytes:
    """``ld_imm64``: one instruction in the room of two."""
    first = bytes([0x18, source << 4 | 1, 0, 0]) + low.to_bytes(4, "little")
    return first + bytes(4) + high.to_bytes(4, "little")


def _hashed(insns: bytes) -> frozenset[bytes]:
    return frozenset({hashlib.sha1(insns).digest()[:8], hashlib.sha256(insns).digest()[:8]})


def test_it_is_the_start_of_a_hash() -> None:
    """Of which one, depends on the kernel."""
    assert tags(RETURN_0) == _hashed(RETURN_0)


def test_descriptors_of_maps_do_not_count() -> None:
    for source in (1, 2):
        program = RETURN_0 + _wide(source, 7, 9) + _wide(source, 8, 10) + RETURN_0
        assert tags(program) == _hashed(RETURN_0 + _wide(source, 0, 0) * 2 + RETURN_0)


def test_other_wide_constants_do() -> None:
    for source in (0, 3, 5, 6):
        program = RETURN_0 + _wide(source, 7, 9) + RETURN_0
        assert tags(program) == _hashed(program)


def test_what_stands_in_the_second_half_is_no_instruction() -> None:
    """Only its constant may be other than zero there; else the kernel takes it for one."""
    first, second = _wide(1, 7, 9)[:8], bytes([0x18, 0x11, 0, 0, 5, 0, 0, 0])
    zeroed = first[:4] + bytes(4)
    assert tags(first + second) == _hashed(zeroed + second[:4] + bytes(4))


@given(st.binary(max_size=200))
def test_any_bytes_have_tags(data: bytes) -> None:
    assert all(len(tag) == 8 for tag in tags(data))
