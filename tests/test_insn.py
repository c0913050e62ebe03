# SPDX-License-Identifier: Apache-2.0
"""Instructions in strace's spelling, held against the kernel's header."""

import re
import subprocess
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.insn import text
from bpfsnoop.events.value import Style, Xlat

ALL = Style(verbose=True)
INSN = re.compile(
    r"\{code=([^,]+), dst_reg=([^,]+), src_reg=([^,]+), off=(-?\d+), imm=(0|0x[0-9a-f]+)\}"
)


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """``struct bpf_insn`` as a little-endian machine has it."""
    return pack("=BBhi", code, dst | src << 4, off, imm)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (insn(0xB7, 0, 0, 0, 0),
         "{code=BPF_ALU64|BPF_K|BPF_MOV, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0}"),
        (insn(0x95),
         "{code=BPF_JMP|BPF_K|BPF_EXIT, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0}"),
        (insn(0x85, 0, 1, 0, 0x2A),
         "{code=BPF_JMP|BPF_K|BPF_CALL, dst_reg=BPF_REG_0, src_reg=BPF_REG_1, off=0, imm=0x2a}"),
        (insn(0x7B, 10, 1, -8, 0),
         "{code=BPF_STX|BPF_DW|BPF_MEM, dst_reg=BPF_REG_10, src_reg=BPF_REG_1, off=-8, imm=0}"),
        (insn(0x07, 2, 0, 0, -8),
         "{code=BPF_ALU64|BPF_K|BPF_ADD, dst_reg=BPF_REG_2, src_reg=BPF_REG_0, off=0,"
         " imm=0xfffffff8}"),
        (insn(0x18, 1, 1, 0, 5) + insn(0, 0, 0, 0, 1),
         "{code=BPF_LD|BPF_DW|BPF_IMM, dst_reg=BPF_REG_1, src_reg=BPF_REG_1, off=0, imm=0x5}, "
         "{code=BPF_LD|BPF_W|BPF_IMM, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0, imm=0x1}"),
        (insn(0xDB, 1, 2, 32767, 0),
         "{code=BPF_STX|BPF_DW|BPF_ATOMIC, dst_reg=BPF_REG_1, src_reg=BPF_REG_2, off=32767,"
         " imm=0}"),
        # strace shows what is behind BPF_JMP32 as a number.
        (insn(0x16, 1, 0, 2, 7),
         "{code=BPF_JMP32|BPF_K|BPF_JEQ, dst_reg=BPF_REG_1, src_reg=BPF_REG_0, off=2, imm=0x7}"),
        # What nobody has defined.
        (insn(0xE1, 11, 15, -32768, -1),
         "{code=BPF_LDX|BPF_W|0xe0 /* BPF_??? */, dst_reg=0xb /* BPF_REG_??? */,"
         " src_reg=0xf /* BPF_REG_??? */, off=-32768, imm=0xffffffff}"),
        (insn(0xFF),
         "{code=BPF_ALU64|BPF_X|0xf0 /* BPF_??? */, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=0,"
         " imm=0}"),
    ],
)  # fmt: skip
def test_instruction(data: bytes, shown: str) -> None:
    assert text(data, "", ALL) == f"[{shown}]"


def test_other_ways_to_show_constants() -> None:
    data = insn(0x18, 1, 12)
    assert text(data, "", Style(Xlat.RAW, verbose=True)) == (
        "[{code=0x18, dst_reg=0x1, src_reg=0xc, off=0, imm=0}]"
    )
    assert text(data, "", Style(Xlat.VERBOSE, verbose=True)) == (
        "[{code=0x18 /* BPF_LD|BPF_DW|BPF_IMM */, dst_reg=0x1 /* BPF_REG_1 */,"
        " src_reg=0xc /* BPF_REG_??? */, off=0, imm=0}]"
    )


def test_every_opcode_is_what_the_header_makes_of_its_name() -> None:
    codes = [found[0] for found in INSN.findall(text(b"".join(map(insn, range(256))), "", ALL))]
    assert len(codes) == 256
    lines = ["#include <linux/bpf.h>", "#ifndef BPF_JCOND", "#define BPF_JCOND 0xe0", "#endif"]
    lines += ["#ifndef BPF_MEMSX", "#define BPF_MEMSX 0x80", "#endif"]
    lines += [f'_Static_assert(({name}) == {code}, "{code}");' for code, name in enumerate(codes)]
    done = subprocess.run(
        ["gcc", "-x", "c", "-fsyntax-only", "-"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_as_many_are_shown_as_were_taken() -> None:
    assert text(insn(0x95) * 5000, "", ALL).count("{") == 5000
    assert text(insn(0x95) * 2, "... /* 0x1234 */", ALL).endswith("}, ... /* 0x1234 */]")


@given(st.binary(max_size=200), st.sampled_from(["", "...", "... /* 0x10 */"]))
def test_any_bytes_read_back_as_what_they_are(data: bytes, dots: str) -> None:
    shown = text(data, dots, Style(Xlat.RAW, verbose=True))
    back = [
        insn(int(code, 16), int(dst, 16), int(src, 16), int(off), imm_of(int(imm, 16)))
        for code, dst, src, off, imm in INSN.findall(shown)
    ]
    assert b"".join(back) == data[: len(data) // 8 * 8]
    assert shown.endswith(f"{dots}]")
    assert shown.isprintable()


def imm_of(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
