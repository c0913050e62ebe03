# SPDX-License-Identifier: Apache-2.0
"""Instructions in the kernel's notation: rows, the kernel's own words, any bytes."""

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stimulus
from bpfsnoop.decoders.disasm import Names, lines
from bpfsnoop.tracer import btf

Release = tuple[int, int]

BPF_MAP_TYPE_INSN_ARRAY = 34

LONGEST = 200
LOG_LEVEL = 2  # also what is visited again; from Linux 6.17 on, a table of all instructions


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """``struct bpf_insn`` as a little-endian machine has it."""
    return pack("=BBhi", code, dst | src << 4, off, imm)


def wide(dst: int, src: int, low: int, high: int = 0, off: int = 0) -> bytes:
    return insn(0x18, dst, src, off, low) + insn(0, imm=high)


MOV_R0 = insn(0xB7)
EXIT = insn(0x95)
RETURN_0 = MOV_R0 + MOV_R0 + EXIT

# What the kernel prints, and since when; it does so before it looks whether that makes sense in
# the place.
ANY: Release = (0, 0)
KERNEL: list[tuple[bytes, str, Release]] = [
    # BPF_ALU64 and BPF_ALU
    (insn(0xB7, 0, 0, 0, 0), "(b7) r0 = 0", ANY),
    (insn(0xB7, 6, 0, 0, -1), "(b7) r6 = -1", ANY),
    (insn(0xBF, 6, 1), "(bf) r6 = r1", ANY),
    (insn(0xB4, 1, 0, 0, 1 << 30), "(b4) w1 = 1073741824", ANY),
    (insn(0xBC, 1, 2), "(bc) w1 = w2", ANY),
    (insn(0x07, 2, 0, 0, -8), "(07) r2 += -8", ANY),
    (insn(0x0C, 2, 3), "(0c) w2 += w3", ANY),
    (insn(0x1F, 1, 2), "(1f) r1 -= r2", ANY),
    (insn(0x27, 1, 0, 0, 3), "(27) r1 *= 3", ANY),
    (insn(0x37, 1, 0, 0, 3), "(37) r1 /= 3", ANY),
    (insn(0x3F, 1, 2), "(3f) r1 /= r2", ANY),
    (insn(0x47, 1, 0, 0, 3), "(47) r1 |= 3", ANY),
    (insn(0x57, 1, 0, 0, 255), "(57) r1 &= 255", ANY),
    (insn(0x67, 1, 0, 0, 32), "(67) r1 <<= 32", ANY),
    (insn(0x7C, 1, 2), "(7c) w1 >>= w2", ANY),
    (insn(0x94, 1, 0, 0, 3), "(94) w1 %= 3", ANY),
    (insn(0xAF, 1, 1), "(af) r1 ^= r1", ANY),
    (insn(0xC7, 1, 0, 0, 63), "(c7) r1 s>>= 63", ANY),
    (insn(0x84, 9), "(84) w9 = -w9", ANY),
    (insn(0x87, 9), "(87) r9 = -r9", ANY),
    (insn(0xD4, 1, 0, 0, 64), "(d4) r1 = le64 r1", ANY),
    (insn(0xDC, 1, 0, 0, 16), "(dc) r1 = be16 r1", ANY),
    (insn(0xD7, 1, 0, 0, 32), "(d7) r1 = bswap32 r1", (6, 6)),
    (insn(0x37, 1, 0, 1, -3), "(37) r1 s/= -3", (6, 6)),
    (insn(0x3C, 1, 2, 1), "(3c) w1 s/= w2", (6, 6)),
    (insn(0x97, 1, 0, 1, 3), "(97) r1 s%= 3", (6, 6)),
    (insn(0x9F, 1, 2, 1), "(9f) r1 s%= r2", (6, 6)),
    (insn(0xBF, 1, 2, 8), "(bf) r1 = (s8)r2", (6, 6)),
    (insn(0xBF, 1, 2, 32), "(bf) r1 = (s32)r2", (6, 6)),
    (insn(0xBC, 1, 2, 16), "(bc) w1 = (s16)w2", (6, 6)),
    (insn(0xBF, 1, 2, 1, 1), "(bf) r1 = addr_space_cast(r2, 0, 1)", (6, 9)),
    (insn(0xBF, 1, 2, 1, 1 << 16), "(bf) r1 = addr_space_cast(r2, 1, 0)", (6, 9)),
    # BPF_LDX, BPF_ST, BPF_STX, BPF_LD
    (insn(0x61, 1, 1, 0), "(61) r1 = *(u32 *)(r1 +0)", ANY),
    (insn(0x69, 1, 10, -2), "(69) r1 = *(u16 *)(r10 -2)", ANY),
    (insn(0x71, 1, 2, 32767), "(71) r1 = *(u8 *)(r2 +32767)", ANY),
    (insn(0x79, 1, 2, -32768), "(79) r1 = *(u64 *)(r2 -32768)", ANY),
    (insn(0x81, 1, 10, -4), "(81) r1 = *(s32 *)(r10 -4)", (6, 6)),
    (insn(0x89, 1, 10, -2), "(89) r1 = *(s16 *)(r10 -2)", (6, 6)),
    (insn(0x91, 1, 10, -1), "(91) r1 = *(s8 *)(r10 -1)", (6, 6)),
    (insn(0x62, 10, 0, -8, -5), "(62) *(u32 *)(r10 -8) = -5", ANY),
    (insn(0x6A, 10, 0, -8, 5), "(6a) *(u16 *)(r10 -8) = 5", ANY),
    (insn(0x72, 10, 0, -8, 5), "(72) *(u8 *)(r10 -8) = 5", ANY),
    (insn(0x7A, 10, 0, -8, 0), "(7a) *(u64 *)(r10 -8) = 0", ANY),
    (insn(0x63, 10, 1, -4), "(63) *(u32 *)(r10 -4) = r1", ANY),
    (insn(0x6B, 10, 1, -4), "(6b) *(u16 *)(r10 -4) = r1", ANY),
    (insn(0x73, 10, 1, -4), "(73) *(u8 *)(r10 -4) = r1", ANY),
    (insn(0x7B, 10, 1, -8), "(7b) *(u64 *)(r10 -8) = r1", ANY),
    (insn(0x20, imm=12), "(20) r0 = *(u32 *)skb[12]", ANY),
    (insn(0x28, imm=12), "(28) r0 = *(u16 *)skb[12]", ANY),
    (insn(0x30, imm=-4096), "(30) r0 = *(u8 *)skb[-4096]", ANY),
    (insn(0x48, src=3, imm=14), "(48) r0 = *(u16 *)skb[r3 + 14]", ANY),
    (insn(0x50, src=3, imm=-1), "(50) r0 = *(u8 *)skb[r3 + -1]", ANY),
    # BPF_ATOMIC
    (insn(0xDB, 1, 2, 8, 0x00), "(db) lock *(u64 *)(r1 +8) += r2", ANY),
    (insn(0xC3, 1, 2, -8, 0x40), "(c3) lock *(u32 *)(r1 -8) |= r2", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0x50), "(db) lock *(u64 *)(r1 +8) &= r2", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0xA0), "(db) lock *(u64 *)(r1 +8) ^= r2", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0x01), "(db) r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)", (5, 12)),
    (insn(0xC3, 1, 2, 8, 0x41), "(c3) r2 = atomic_fetch_or((u32 *)(r1 +8), r2)", (5, 12)),
    (insn(0xC3, 1, 2, 8, 0x51), "(c3) r2 = atomic_fetch_and((u32 *)(r1 +8), r2)", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0xA1), "(db) r2 = atomic64_fetch_xor((u64 *)(r1 +8), r2)", (5, 13)),
    (insn(0xDB, 1, 2, 8, 0xE1), "(db) r2 = atomic64_xchg((u64 *)(r1 +8), r2)", (5, 12)),
    (insn(0xC3, 1, 2, 8, 0xE1), "(c3) r2 = atomic_xchg((u32 *)(r1 +8), r2)", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0xF1), "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +8), r0, r2)", (5, 12)),
    (insn(0xC3, 1, 2, 8, 0xF1), "(c3) r0 = atomic_cmpxchg((u32 *)(r1 +8), r0, r2)", (5, 12)),
    (insn(0xDB, 1, 2, 8, 0x100), "(db) r1 = load_acquire((u64 *)(r2 +8))", (6, 15)),
    (insn(0xD3, 1, 2, 0, 0x100), "(d3) r1 = load_acquire((u8 *)(r2 +0))", (6, 15)),
    (insn(0xCB, 1, 2, 8, 0x110), "(cb) store_release((u16 *)(r1 +8), r2)", (6, 15)),
    (insn(0xC3, 1, 2, 8, 0x110), "(c3) store_release((u32 *)(r1 +8), r2)", (6, 15)),
    # BPF_JMP and BPF_JMP32
    (insn(0x05, off=0), "(05) goto pc+0", ANY),
    (insn(0x06, imm=0), "(06) gotol pc+0", (6, 6)),
    (insn(0xE5, off=1), "(e5) may_goto pc+1", (6, 9)),
    (insn(0x15, 1, 0, 1, 0), "(15) if r1 == 0x0 goto pc+1", ANY),
    (insn(0x1D, 1, 2, 1), "(1d) if r1 == r2 goto pc+1", ANY),
    (insn(0x16, 1, 0, 1, 5), "(16) if w1 == 0x5 goto pc+1", ANY),
    (insn(0x1E, 1, 2, 1), "(1e) if w1 == w2 goto pc+1", ANY),
    (insn(0x25, 1, 0, 1, 4), "(25) if r1 > 0x4 goto pc+1", ANY),
    (insn(0x35, 1, 0, 1, -1), "(35) if r1 >= 0xffffffff goto pc+1", ANY),
    (insn(0x45, 1, 0, 1, 16), "(45) if r1 & 0x10 goto pc+1", ANY),
    (insn(0x55, 1, 0, 1, 0), "(55) if r1 != 0x0 goto pc+1", ANY),
    (insn(0x6D, 1, 2, 1), "(6d) if r1 s> r2 goto pc+1", ANY),
    (insn(0x76, 1, 0, 1, -3), "(76) if w1 s>= 0xfffffffd goto pc+1", ANY),
    (insn(0xA5, 1, 0, 1, 9), "(a5) if r1 < 0x9 goto pc+1", ANY),
    (insn(0xBE, 1, 2, 1), "(be) if w1 <= w2 goto pc+1", ANY),
    (insn(0xC5, 1, 0, 1, 1), "(c5) if r1 s< 0x1 goto pc+1", ANY),
    (insn(0xDD, 1, 2, 1), "(dd) if r1 s<= r2 goto pc+1", ANY),
    # BPF_CALL
    (insn(0x85, imm=1), "(85) call bpf_map_lookup_elem#1", ANY),
    (insn(0x85, imm=0), "(85) call bpf_unspec#0", ANY),
    (insn(0x85, imm=5000), "(85) call unknown#5000", ANY),
    (insn(0x85, imm=-1), "(85) call unknown#-1", ANY),
    # BPF_LD_IMM64
    (wide(1, 0, 0x55667788, 0x11223344), "(18) r1 = 0x1122334455667788", ANY),
    (wide(1, 0, -1, 0), "(18) r1 = 0xffffffff", ANY),
    (wide(1, 0, 0, -1), "(18) r1 = 0xffffffff00000000", ANY),
    (wide(1, 0, 0), "(18) r1 = 0x0", ANY),
]  # fmt: skip

# What this kernel prints only as part of more, or does not have.
OTHERS = [
    (EXIT, "(95) exit"),
    (insn(0x85, 0, 1, 0, 3), "(85) call pc+3"),
    (insn(0x85, 0, 1, 0, -7), "(85) call pc-7"),
    (insn(0x05, off=-2), "(05) goto pc-2"),
    (insn(0x05, off=32767), "(05) goto pc+32767"),
    (insn(0x06, imm=-100000), "(06) gotol pc-100000"),
    (insn(0x0D, 1), "(0d) gotox r1"),  # Linux 6.19
    (insn(0x8D, 1), "(8d) callx r1"),  # as LLVM has it
    (insn(0x8D, 0, 0, 0, 1), "(8d) callx r0 /* imm=0x1 */"),  # by LLVM before 19
    (insn(0xC2), "(c2) nospec"),
    (insn(0xBF, 1, 2, -1), "(bf) r1 = &(void __percpu *)(r2)"),
    (insn(0xBF, 1, 2, 1, -1), "(bf) r1 = addr_space_cast(r2, 65535, 65535)"),
    (insn(0x7B, 11, 1, -8), "(7b) *(u64 *)(r11 -8) = r1"),  # the sixth argument, Linux 7.2
    # References, before the kernel has replaced them.
    (wide(1, 1, 5), "(18) r1 = map[fd:5]"),
    (wide(1, 1, -1), "(18) r1 = map[fd:-1]"),
    (wide(1, 2, 5, 8), "(18) r1 = map[fd:5][0]+8"),
    (wide(1, 2, 5, -1), "(18) r1 = map[fd:5][0]+4294967295"),
    (wide(1, 3, 99), "(18) r1 = btf[id:99]"),
    (wide(1, 3, 99, 7), "(18) r1 = btf[fd:7][id:99]"),
    (wide(1, 4, 6), "(18) r1 = subprog[+6]"),
    (wide(1, 4, -6), "(18) r1 = subprog[-6]"),
    (wide(1, 5, 2), "(18) r1 = map[idx:2]"),
    (wide(1, 6, 2, 8), "(18) r1 = map[idx:2]+8"),
    (insn(0x85, 0, 2, 0, 29284), "(85) call kernel-function#29284"),
    (insn(0x85, 0, 2, 1, 29284), "(85) call kernel-function#29284 /* off=1 */"),
    # What nobody has defined.
    (insn(0xE7, 1, 2, -3, -4), "(e7) ??? /* dst_reg=1, src_reg=2, off=-3, imm=0xfffffffc */"),
    (insn(0x00), "(00) ???"),
    (insn(0x86, 0, 1, 0, 3), "(86) ??? /* src_reg=1, imm=0x3 */"),
    (insn(0xDB, 1, 2, 8, 0x02), "(db) ??? /* dst_reg=1, src_reg=2, off=8, imm=0x2 */"),
    (insn(0xE5, 0, 1, 4), "(e5) ??? /* src_reg=1, off=4 */"),
    (insn(0x85, 0, 3, 0, 1), "(85) call unknown#1 /* src_reg=3 */"),
    (wide(1, 7, 2, 8), "(18) r1 = 0x800000002 /* src_reg=7 */"),
    (insn(0xB7, 15, 0, 0, 1), "(b7) r15 = 1"),
    # What should be zero and is not.
    (insn(0x95, 1, 2, 3, 4), "(95) exit /* dst_reg=1, src_reg=2, off=3, imm=0x4 */"),
    (insn(0x0F, 1, 2, 0, -1), "(0f) r1 += r2 /* imm=0xffffffff */"),
    (insn(0x3F, 1, 2, 5), "(3f) r1 /= r2 /* off=5 */"),
    (insn(0x07, 1, 2, 0, 1), "(07) r1 += 1 /* src_reg=2 */"),
    (wide(1, 0, 1, 0, 5), "(18) r1 = 0x1 /* off=5 */"),
    (insn(0x18, 1, 1, 0, 5) + insn(0xB7, 1, 2, 3, 4),
     "(18) r1 = map[fd:5] /* second half: code=0xb7, dst_reg=1, src_reg=2, off=3, imm=0x4 */"),
    (insn(0x18, 1, 0, 0, 5) + insn(0x95), "(18) r1 = 0x5 /* second half: code=0x95 */"),
    # What is not all there.
    (insn(0x18, 1, 0, 0, 5), "(18) r1 = 0x5 /* the second half is missing */"),
    (insn(0x18, 1, 1, 0, 5), "(18) r1 = map[fd:5] /* the second half is missing */"),
    (b"\xb7", "(b7) ??? /* cut: b7 */"),
    (insn(0xB7, 1, 0, 0, 1)[:7], "(b7) ??? /* cut: b7 01 00 00 01 00 00 */"),
]  # fmt: skip


def _line(data: bytes, names: Names = Names()) -> str:  # noqa: B008 - it is never changed
    (line,) = lines(data, names)
    number, _, text = line.partition(": ")
    assert number == "   0"
    return text


@pytest.mark.parametrize(
    ("data", "line"), [(data, line) for data, line, _ in KERNEL] + OTHERS,
    ids=[line for _, line, _ in KERNEL] + [line for _, line in OTHERS],
)  # fmt: skip
def test_line(data: bytes, line: str) -> None:
    assert _line(data) == line


def test_names_of_what_is_referred_to() -> None:
    names = Names(
        helpers={1: "bpf_one"}, ksyms={29284: "bpf_cast_to_kern_ctx", 99: "bpf_prog_active"},
        fds={5: "map[id:12]"}, indexes={2: "map[id:13]"},
    )  # fmt: skip
    assert _line(wide(1, 1, 5), names) == "(18) r1 = map[id:12]"
    assert _line(wide(1, 2, 5, 8), names) == "(18) r1 = map[id:12][0]+8"
    assert _line(wide(1, 5, 2), names) == "(18) r1 = map[id:13]"
    assert _line(wide(1, 6, 2, 8), names) == "(18) r1 = map[id:13][0]+8"
    assert _line(wide(1, 3, 99), names) == "(18) r1 = &bpf_prog_active"
    assert _line(insn(0x85, 0, 0, 0, 1), names) == "(85) call bpf_one#1"
    assert _line(insn(0x85, 0, 0, 0, 2), names) == "(85) call unknown#2"
    assert _line(insn(0x85, 0, 2, 0, 29284), names) == "(85) call bpf_cast_to_kern_ctx#29284"


def test_ids_of_a_module_are_not_those_of_vmlinux() -> None:
    names = Names(ksyms={99: "wrong"})
    assert "wrong" not in _line(insn(0x85, 0, 2, 1, 99), names)
    assert "wrong" not in _line(wide(1, 3, 99, 7), names)


def test_numbers_count_both_halves() -> None:
    program = MOV_R0 + wide(1, 1, 3) + insn(0x85, imm=1) + EXIT + b"\x95\0"
    assert list(lines(program)) == [
        "   0: (b7) r0 = 0",
        "   1: (18) r1 = map[fd:3]",
        "   3: (85) call bpf_map_lookup_elem#1",
        "   4: (95) exit",
        "   5: (95) ??? /* cut: 95 00 */",
    ]
    assert list(lines(MOV_R0 * 10001))[10000] == "10000: (b7) r0 = 0"
    assert not list(lines(b""))


# --- Any bytes ---------------------------------------------------------------------------

_PLAIN = st.binary(max_size=400)
_OF_INSNS = st.lists(
    st.builds(
        insn,
        st.one_of(st.integers(0, 255), st.sampled_from([0x18, 0x85, 0xBF, 0xDB, 0xE5])),
        st.integers(0, 15), st.integers(0, 15), st.integers(-(1 << 15), (1 << 15) - 1),
        st.integers(-(1 << 31), (1 << 31) - 1),
    )
).map(b"".join)  # fmt: skip


def _numbers(data: bytes) -> list[int]:
    """Of the instructions, without second halves."""
    found, at = [], 0
    while at < len(data):
        found.append(at // 8)
        at += 16 if data[at] == 0x18 and at + 8 <= len(data) else 8
        if at > len(data) - 8 and len(data) % 8 and at < len(data):
            found.append(at // 8)
            break
    return found


@given(st.one_of(_PLAIN, _OF_INSNS))
def test_any_bytes_have_lines(data: bytes) -> None:
    shown = list(lines(data))
    assert all(len(line) < LONGEST and line.isprintable() for line in shown)
    assert all(re.match(r" *\d+: \([0-9a-f]{2}\) ", line) for line in shown)
    assert [int(line.split(":")[0]) for line in shown] == _numbers(data)


def test_lines_differ_where_instructions_do() -> None:
    seen: dict[str, bytes] = {}
    fields = product(
        range(256), (0, 1, 2), (0, 1, 2, 3, 7), (0, 1, -1, 8, 16, 32), (0, 1, -1, 0x50, 0xE1, 0x100)
    )
    for values in fields:
        for second in (insn(0), insn(0, imm=1), insn(1)) if values[0] == 0x18 else (b"",):
            data = insn(*values) + second
            line = _line(data)
            assert seen.setdefault(line, data) == data
            assert len(line) < LONGEST


# --- The kernel's own words --------------------------------------------------------------


def _kernel_release() -> Release:
    major, minor = platform.release().split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


# A line of the log is an instruction and a remark on the state, or, in a table ahead of them
# all, one with the registers that are in use.
LOGGED = re.compile(
    r"^ *(\d+): (?:[.\d]{10,} )?(\([0-9a-f]{2}\) [^;\n]*?) *(?:;.*)?$", re.MULTILINE
)
REMARK = re.compile(r" /\* .*=.* \*/$")
LOG = ctypes.create_string_buffer(1 << 16)


def _logged(program: bytes, **fields: stimulus.Value) -> dict[int, set[str]]:
    """What the kernel says of the instructions of a program that it takes or not."""
    ctypes.memset(LOG, 0, len(LOG))
    with suppress(OSError):
        os.close(
            stimulus.prog_load(
                stimulus.BPF_PROG_TYPE_SOCKET_FILTER, program, LOG, log_level=LOG_LEVEL, **fields
            )
        )
    found: dict[int, set[str]] = {}
    for number, text in LOGGED.findall(LOG.value.decode()):
        found.setdefault(int(number), set()).add(text)
    return found


@pytest.mark.live
@pytest.mark.parametrize(
    ("data", "line", "since"), KERNEL, ids=[line for _, line, _ in KERNEL]
)  # fmt: skip
def test_the_kernel_says_the_same(data: bytes, line: str, since: Release) -> None:
    if _kernel_release() < since:
        pytest.skip(f"from Linux {since} on")
    assert _logged(data + RETURN_0)[0] == {line}


def _odd_insns() -> Iterator[bytes]:
    """Every code with fields that make sense or not."""
    for code in range(256):
        if code == 0x18:
            continue
        for off in (0, 1, 2) if code & 7 in JUMPS else (0, 1, -1, 5, 8, 16, 32):
            for dst, src, imm in FIELDS:
                yield insn(code, dst, src, off, imm)


JUMPS = (5, 6)  # BPF_JMP, BPF_JMP32: not too far
FIELDS = [
    (0, 0, 0), (1, 0, 0), (1, 3, 0), (0, 0, 1), (1, 0, 16), (0, 3, 1), (1, 3, 0x51), (1, 3, 0x100),
]  # fmt: skip
NOT_SHOWN = {"(0d)", "(8d)", "(95)", "(c2)"}
"""What we know and kernels from 6.15 on do not show in the first line of a program."""


@pytest.mark.live
def test_the_kernel_says_the_same_of_every_code() -> None:
    """Whatever is in the other fields, of which it leaves some out."""
    if _kernel_release() < (6, 15):
        pytest.skip("older kernels know less")
    said, wrong = set(), {}
    for data in _odd_insns():
        ours = _line(data)
        for theirs in _logged(data + RETURN_0).get(0, ()):
            if "null" in theirs or "BUG" in theirs:
                assert ours[5:8] == "???"
            elif theirs != REMARK.sub("", ours):
                wrong[ours] = theirs
            said.add(theirs[:4])
    assert not wrong
    known = {_line(data)[:4] for data in _odd_insns() if "???" not in _line(data)}
    assert known - said <= NOT_SHOWN


def _programs() -> Iterator[tuple[str, bytes, Names]]:
    loop = MOV_R0 + insn(0x07, 0, imm=1) + insn(0xA5, 0, 0, -2, 3) + EXIT
    yield "loop", loop, Names()
    callee = insn(0xBF, 0, 1) + EXIT
    yield "subprogram", insn(0x85, 0, 1, 0, 2) + MOV_R0 + EXIT + callee, Names()
    text = wide(1, 0, 0x6C6C6568, 0x6F) + insn(0x7B, 10, 1, -8) + insn(0x79, 0, 10, -8)
    yield "text", text + MOV_R0 + EXIT, Names()
    diamond = insn(0x85, imm=7) + insn(0x26, 0, 0, 2, 9) + insn(0xB4, 0, 0, 0, 1)
    diamond += insn(0x05, off=1) + insn(0xB4, 0, 0, 0, 2) + insn(0x54, 0, imm=1) + EXIT
    yield "diamond", diamond, Names()


@pytest.mark.live
@pytest.mark.parametrize(
    ("program", "names"), [each[1:] for each in _programs()], ids=[each[0] for each in _programs()]
)
def test_the_kernel_says_the_same_of_programs(program: bytes, names: Names) -> None:
    """In whatever order it follows them."""
    _check_all(program, names, _logged(program))


def _check_all(program: bytes, names: Names, logged: dict[int, set[str]]) -> None:
    ours = dict(line.strip().split(": ", 1) for line in lines(program, names))
    assert {str(number): texts for number, texts in logged.items()} == {
        number: {text} for number, text in ours.items()
    }


@pytest.mark.live
def test_the_kernel_calls_kfuncs_the_same() -> None:
    wanted = ["bpf_rcu_read_lock", "bpf_rcu_read_unlock"]
    found = btf.Btf(btf.VMLINUX.read_bytes()).functions(wanted) if btf.VMLINUX.exists() else {}
    if found.keys() != set(wanted):
        pytest.skip("this kernel has no kfunc without arguments")
    ids = [found[name][0] for name in wanted]
    program = b"".join(insn(0x85, 0, 2, 0, number) for number in ids) + MOV_R0 + EXIT
    _check_all(program, Names(ksyms=dict(zip(ids, wanted, strict=True))), _logged(program))


@pytest.mark.live
def test_the_kernel_says_the_same_of_an_indirect_jump() -> None:
    if _kernel_release() < (6, 19):
        pytest.skip("gotox came with Linux 6.19")
    targets = [4, 6]
    table = stimulus.map_create(BPF_MAP_TYPE_INSN_ARRAY, 4, 16, len(targets))
    program = wide(1, 2, table) + insn(0x79, 1, 1, 0) + insn(0x0D, 1)
    program += (MOV_R0 + EXIT) * len(targets)
    with stimulus.closed(table):
        for index, target in enumerate(targets):
            stimulus.map_update_elem(table, pack("=I", index), pack("=4I", target, 0, 0, 0))
        stimulus.map_freeze(table)
        logged = _logged(program)
    assert logged[3] == {"(0d) gotox r1"}
    assert logged[2] == {"(79) r1 = *(u64 *)(r1 +0)"}


@pytest.mark.live
def test_bpftool_says_the_same_of_maps() -> None:
    """It has their ids, as descriptors are gone."""
    table = stimulus.map_create(stimulus.BPF_MAP_TYPE_ARRAY, 4, 16, 1)
    program = wide(1, 1, table) + wide(2, 2, table, 8) + wide(3, 5, 1) + wide(4, 6, 1, 4)
    program += MOV_R0 + EXIT
    prog = stimulus.prog_load(
        stimulus.BPF_PROG_TYPE_SOCKET_FILTER, program, fd_array=pack("=ii", table, table)
    )
    with stimulus.closed(table, prog):
        name = f"map[id:{_fdinfo(table, 'map_id')}]"
        command = "bpftool", "prog", "dump", "xlated", "id", _fdinfo(prog, "prog_id")
        theirs = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    names = Names(fds={table: name}, indexes={1: name})
    assert theirs.splitlines() == list(lines(program, names))


def _fdinfo(fd: int, field: str) -> str:
    told = Path(f"/proc/self/fdinfo/{fd}").read_text()
    found = re.search(rf"^{field}:\s*(\d+)$", told, re.MULTILINE)
    assert found
    return found[1]
