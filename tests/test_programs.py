# SPDX-License-Identifier: Apache-2.0
"""What a program uses, from its instructions."""

import re
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.disasm import lines
from bpfsnoop.decoders.programs import (
    CONSTANTS_MAX,
    REFERENCES_MAX,
    STRING_MAX,
    STRINGS_MAX,
    Kfunc,
    Map,
    Uses,
    Variable,
    uses,
)

R10 = 10


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """``struct bpf_insn`` as a little-endian machine has it."""
    return pack("=BBhi", code, dst | src << 4, off, imm)


def wide(dst: int, src: int, low: int, high: int = 0) -> bytes:
    return insn(0x18, dst, src, 0, low) + insn(0, imm=high)


def call(imm: int, src: int = 0, off: int = 0) -> bytes:
    return insn(0x85, 0, src, off, imm)


def mov(dst: int, imm: int) -> bytes:
    return insn(0xB7, dst, imm=imm)


def imm(data: bytes) -> int:
    """Up to four bytes as an imm."""
    return int.from_bytes(data.ljust(4, b"\0"), "little", signed=True)


def load(dst: int, data: bytes) -> bytes:
    """Eight bytes into a register."""
    return wide(dst, 0, imm(data[:4]), imm(data[4:8]))


EXIT = insn(0x95)


# --- References --------------------------------------------------------------------------


def test_a_program() -> None:
    program = (
        wide(1, 1, 5) + call(1) + insn(0x15, 0, 0, 1, 0) + call(12) + call(1)
        + call(2, 1) + mov(0, 0) + EXIT
        + wide(1, 2, 6, 8) + wide(2, 5, 0) + wide(3, 6, 1, 4) + wide(1, 1, 5)
        + wide(4, 3, 77) + wide(5, 3, 78, 9) + wide(2, 4, -12)
        + call(29284, 2) + call(11, 2, off=3) + EXIT
    )  # fmt: skip
    found = uses(program)
    assert found == Uses(
        helpers=(1, 12),
        kfuncs=(Kfunc(29284, 0), Kfunc(11, 3)),
        variables=(Variable(77, 0), Variable(78, 9)),
        maps=(Map("fd", 5), Map("fd", 6), Map("idx", 0), Map("idx", 1)),
        subprograms=(9, 10),
    )
    assert found.tail_calls
    assert not uses(call(1)).tail_calls


def test_nothing_is_used() -> None:
    assert uses(b"") == uses(mov(0, 0) + EXIT) == Uses()


def test_numbers_of_any_kind_stay_what_they_are() -> None:
    found = uses(call(-1) + call(5000) + wide(1, 1, -1) + call(-5, 1) + call(1, 7))
    assert found.helpers == (-1, 5000)
    assert found.maps == (Map("fd", -1),)
    assert found.subprograms == (0,)


def test_the_second_half_is_no_instruction() -> None:
    assert uses(insn(0x18, 1) + call(1)) == Uses()
    assert uses(insn(0x18, 1) + insn(0x18, 1) + call(1)).helpers == (1,)


def test_what_is_cut_short_is_told_as_far_as_it_goes() -> None:
    assert uses(wide(1, 1, 5)[:8]).maps == (Map("fd", 5),)
    assert uses(wide(1, 0, 0x12345678, 0x12345678)[:8]) == Uses()
    assert uses(call(1) + call(2)[:7]).helpers == (1,)


def test_lists_have_ends() -> None:
    many = range(1, REFERENCES_MAX + 1)
    program = b"".join(call(n) + wide(1, 1, n) + call(n, 2) for n in many)
    assert uses(program + call(1) + wide(1, 1, 1)).cut == ()
    assert uses(program + call(REFERENCES_MAX + 1)).cut == ("helpers",)
    found = uses(program + wide(1, 5, 1) + call(1, 2, 1))
    assert found.cut == ("kfuncs", "maps")
    assert found.maps == tuple(Map("fd", n) for n in many)


# --- Constants ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "constants"),
    [
        (load(1, bytes.fromhex("bebafecaefbeadde")), (0xDEADBEEFCAFEBABE,)),
        (mov(1, 0x0100A8C0), (0x0100A8C0,)),  # 192.168.0.1
        (insn(0xB4, 1, imm=-1640531527), (0x9E3779B9,)),
        (insn(0x62, R10, 0, -4, 0x04030201), (0x04030201,)),
        (insn(0x27, 1, imm=0x9E3779B), (0x9E3779B,)),
        (insn(0x55, 1, 0, 3, 0x0100007F), (0x0100007F,)),
        (insn(0x16, 1, 0, 3, 0x0100007F), (0x0100007F,)),
        (mov(1, 0x1234567) + mov(2, 0x2345678) + mov(3, 0x1234567), (0x1234567, 0x2345678)),
        # Small, masks, single bits.
        (mov(1, 65535) + mov(1, -65536) + mov(1, 4096) + mov(1, -1), ()),
        (insn(0x57, 1, imm=0xFFFFFF) + insn(0x57, 1, imm=0x00FFFF00) + mov(1, 1 << 20), ()),
        (wide(1, 0, -1) + wide(1, 0, 0, -1) + wide(1, 0, -5, -1) + wide(1, 0, 0, 1), ()),
        # No numbers.
        (wide(1, 1, 0x1234567) + call(0x1234567) + insn(0x06, imm=0x1234567), ()),
        (insn(0xDB, 1, 2, 0, 0x1234567) + insn(0x20, imm=0x1234567), ()),
        (insn(0xBF, 1, 2, 1, 0x1234567) + insn(0xD4, 1, imm=0x1234567), ()),
    ],
)  # fmt: skip
def test_constants(program: bytes, constants: tuple[int, ...]) -> None:
    found = uses(program)
    assert found.constants == constants
    assert not found.strings


def test_constants_have_an_end() -> None:
    numbers = [0x81000081 + 0x100 * n for n in range(CONSTANTS_MAX + 1)]
    program = b"".join(wide(1, 0, imm(pack("=I", number))) for number in numbers)
    assert uses(program[:-16]).constants == tuple(numbers[:-1])
    assert uses(program[:-16]).cut == ()
    assert uses(program) == Uses(constants=tuple(numbers[:-1]), cut=("constants",))


# --- Text --------------------------------------------------------------------------------


def _stored(off: int, text: bytes, src: int = 1) -> bytes:
    """As clang does it: the end first, from a register."""
    pieces = [(at, text[at : at + 8]) for at in range(0, len(text), 8)]
    program = b""
    for at, piece in reversed(pieces):
        code = 0x7B if len(piece) > 4 else 0x63
        number = load(src, piece) if len(piece) > 4 else mov(src, imm(piece))
        program += number + insn(code, R10, src, off + at)
    return program


def test_text_on_the_stack_whatever_the_order() -> None:
    text = b"hello from %d, this is long\n\0"
    assert uses(_stored(-32, text)) == Uses(strings=(r"hello from %d, this is long\n",))


def test_text_stored_as_immediates() -> None:
    program = b"".join(
        insn(0x62, R10, 0, -16 + at, imm(b"/etc/shadow"[at : at + 4])) for at in (0, 4, 8)
    )
    assert uses(program) == Uses(strings=("/etc/shadow",))
    program = insn(0x72, R10, 0, -8, 0x61) + insn(0x6A, R10, 0, -7, 0x6362)
    assert uses(program + insn(0x72, R10, 0, -5, 0x64)).strings == ("abcd",)
    assert uses(insn(0x7A, R10, 0, -8, imm(b"abcd"))).strings == ("abcd",)


def test_what_is_cleared_first_is_no_gap() -> None:
    cleared = mov(1, 0) + insn(0x7B, R10, 1, -16) + insn(0x7A, R10, 0, -8, 0)
    assert uses(cleared + _stored(-16, b"rootkit.service")).strings == ("rootkit.service",)


def test_a_place_that_is_used_again() -> None:
    program = _stored(-16, b"first text") + call(6) + _stored(-16, b"second text")
    assert uses(program).strings == ("first text", "second text")


def test_the_same_text_is_told_once() -> None:
    assert uses(_stored(-16, b"again") * 3 + _stored(-32, b"again")).strings == ("again",)


def test_text_behind_other_registers() -> None:
    """Such as one that points into a map; written, it points elsewhere."""

    def store(text: bytes) -> bytes:
        return insn(0x62, 6, 0, 4, imm(text))

    assert uses(insn(0x62, 6, 0, 0, imm(b"abcd")) + store(b"efgh")).strings == ("abcdefgh",)
    moved = insn(0x62, 6, 0, 0, imm(b"abcd")) + insn(0xBF, 6, 7) + store(b"efgh")
    assert uses(moved).strings == ("abcd", "efgh")
    clobbered = insn(0x62, 0, 0, 0, imm(b"abcd")) + call(1) + insn(0x62, 0, 0, 4, imm(b"efgh"))
    assert uses(clobbered).strings == ("abcd", "efgh")
    kept = insn(0x62, 6, 0, 0, imm(b"abcd")) + call(1) + store(b"efgh")
    assert uses(kept).strings == ("abcdefgh",)


def test_each_subprogram_has_a_stack() -> None:
    program = insn(0x62, R10, 0, -8, imm(b"abcd")) + EXIT + insn(0x62, R10, 0, -4, imm(b"efgh"))
    assert uses(program).strings == ("abcd", "efgh")


@pytest.mark.parametrize(
    "between",
    [
        insn(0x79, 1, 6, 0), insn(0x81, 1, 6, 0), call(1), insn(0x07, 1, imm=1), insn(0x0F, 1, 2),
        insn(0x87, 1), insn(0xDC, 1, imm=16), wide(1, 1, 5), wide(1, 4, 5), insn(0x20, imm=0),
        insn(0xDB, 6, 1, 0, 1), insn(0xDB, 1, 6, 0, 0x100), insn(0xBF, 1, 2), insn(0xBF, 1, 1, 8),
    ],
)  # fmt: skip
def test_a_register_that_was_written_is_not_known(between: bytes) -> None:
    known = mov(1, imm(b"abcd"))
    store = insn(0x63, R10, 1, -4) + insn(0x62, R10, 0, -8, imm(b"1234"))
    assert uses(known + store).strings == ("1234abcd",)
    assert "1234abcd" not in uses(known + between + store).strings


def test_a_copy_of_a_register() -> None:
    program = mov(1, imm(b"abcd")) + insn(0xBF, 2, 1) + insn(0x63, R10, 2, -4)
    assert uses(program).strings == ("abcd",)


def test_text_that_is_compared_with() -> None:
    program = load(2, b"sshd-ses") + insn(0x5D, 1, 2, 9) + insn(0x56, 3, 0, 8, imm(b"sion"))
    assert uses(program) == Uses(strings=("sshd-ses", "sion"))
    assert uses(insn(0xA7, 1, imm=imm(b"bash"))).strings == ("bash",)
    assert uses(load(1, b"sh\0\0\0\0\0\0")) == Uses()


def test_pieces_are_no_constants() -> None:
    """Nor texts of their own."""
    assert uses(_stored(-16, b"hello, wor\t\n%d")) == Uses(strings=(r"hello, wor\t\n%d",))


def test_what_is_no_text() -> None:
    assert uses(_stored(-8, b"abc\0def\0")).strings == ()
    assert uses(_stored(-8, b"\x80abcd\xff\0\0")).strings == ("abcd",)
    assert uses(mov(1, 0x20202020)).strings == ()


def test_text_is_harmless_to_show() -> None:
    assert uses(_stored(-16, b'a"b\\c\td\n')).strings == (r'a"b\\c\td\n',)
    assert uses(_stored(-16, b"abcd\x1b[2J")).strings == ("abcd",)


def test_texts_have_an_end() -> None:
    texts = [f"text {n:03}" for n in range(STRINGS_MAX + 1)]
    program = b"".join(_stored(-8, text.encode()) for text in texts)
    assert uses(program[: -len(_stored(-8, b"text 000"))]).cut == ()
    assert uses(program) == Uses(strings=tuple(texts[:-1]), cut=("strings",))


def test_a_text_has_an_end() -> None:
    """Longer than the stack it is nothing that a kernel would take."""
    program = b"".join(insn(0x7A, R10, 0, 8 * at, imm(b"abcd")) for at in range(200))
    assert uses(program).strings == ("abcd",)
    program = b"".join(insn(0x62, R10, 0, 4 * at, imm(b"abcd")) for at in range(200))
    assert uses(program) == Uses(strings=("abcd" * (STRING_MAX // 4),), cut=("strings",))


# --- Any bytes ---------------------------------------------------------------------------

_PROGRAMS = st.one_of(
    st.binary(max_size=400),
    st.lists(
        st.builds(
            insn,
            st.one_of(
                st.integers(0, 255),
                st.sampled_from([0x18, 0x85, 0xB7, 0xBF, 0x62, 0x6A, 0x72, 0x7A, 0x63, 0x7B, 0x15]),
            ),
            st.sampled_from([0, 1, 6, 10, 15]), st.integers(0, 15),
            st.one_of(st.integers(-24, -1), st.integers(-(1 << 15), (1 << 15) - 1)),
            st.one_of(
                st.integers(-(1 << 31), (1 << 31) - 1),
                st.binary(min_size=4, max_size=4).map(imm), st.sampled_from([1, imm(b"abcd")]),
            ),
        ),
        max_size=60,
    ).map(b"".join),
)  # fmt: skip


@given(_PROGRAMS)
def test_any_bytes_have_an_answer(data: bytes) -> None:
    found = uses(data)
    assert len(found.constants) <= CONSTANTS_MAX
    assert len(found.strings) <= STRINGS_MAX
    assert all(1 << 16 <= number < 1 << 64 for number in found.constants)
    assert all(text.isprintable() and len(text) >= 4 for text in found.strings)
    assert all(len(set(each)) == len(each) for each in found)


@given(_PROGRAMS)
def test_references_are_those_that_the_lines_show(data: bytes) -> None:
    shown = "\n".join(lines(data))

    def numbers(pattern: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(int, re.findall(pattern, shown))))

    found = uses(data)
    assert found.helpers == numbers(r" call (?!kernel-f)\w+#(-?\d+)(?!.*src_reg)")
    assert tuple(n for kind, n in found.maps if kind == "fd") == numbers(r" map\[fd:(-?\d+)\]")
    assert tuple(n for kind, n in found.maps if kind == "idx") == numbers(r" map\[idx:(-?\d+)\]")
    kfuncs = re.findall(r"kernel-function#(-?\d+)(?:.* off=(-?\d+))?", shown)
    assert found.kfuncs == tuple(dict.fromkeys((int(n), int(off or 0)) for n, off in kfuncs))
    calls = re.findall(r"^ *(\d+): .*?(?:call pc|subprog\[)([+-]\d+)", shown, re.MULTILINE)
    assert found.subprograms == tuple(dict.fromkeys(int(at) + int(to) + 1 for at, to in calls))


@pytest.mark.parametrize(
    "unit",
    [
        insn(0x62, R10, 0, -8, imm(b"abcd")) + insn(0x62, R10, 0, -8, imm(b"abce")),
        insn(0x62, 1, 0, -8, imm(b"abcd")) + call(1),
        b"".join(insn(0x7A, R10, 0, -8 * at, imm(b"abcd") + at) for at in range(600)),
    ],
    ids=["one place", "one register", "many places"],
)
def test_linear(unit: bytes) -> None:
    """The kernel takes a million instructions (BPF_COMPLEXITY_LIMIT_INSNS)."""
    count = 100_000
    assert uses(unit * (8 * count // len(unit))).strings
