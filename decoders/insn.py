# SPDX-License-Identifier: Apache-2.0
"""Instructions of BPF (``struct bpf_insn``), field by field in strace's spelling."""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from ..events.memory import Verbose, shown_of
from ..events.value import Enum, Style, Xlat, constant, hexadecimal
from ..events.wire import ROW_ENTRY, SHAPE_BULK
from .layout import ALWAYS, Target

INSN: Final = Struct("=BBhi")
"""code, dst_reg in the low half of a byte and src_reg in the high one, off, imm."""


def _names(prefix: str, step: int, names: str) -> Mapping[int, str]:
    return {step * at: prefix + name for at, name in enumerate(names.split()) if name != "-"}


# linux/bpf_common.h and linux/bpf.h
_CLASS = _names("BPF_", 1, "LD LDX ST STX ALU JMP JMP32 ALU64")
_SIZE = _names("BPF_", 8, "W H B DW")
_MODE = _names("BPF_", 0x20, "IMM ABS IND MEM MEMSX - ATOMIC -")
_ALU = _names("BPF_", 0x10, "ADD SUB MUL DIV OR AND LSH RSH NEG MOD XOR MOV ARSH END")
_JMP = _names("BPF_", 0x10, "JA JEQ JGT JGE JSET JNE JSGT JSGE CALL EXIT JLT JLE JSLT JSLE JCOND")
_SOURCE = {0: "BPF_K", 8: "BPF_X"}
_LOADS: Final = 4  # classes below this one load and store
_JMP_CLASS: Final = 5
_JMP32_CLASS: Final = 6

_REGISTER = Enum("", "BPF_REG", {number: f"BPF_REG_{number}" for number in range(11)})


Spelling = Callable[[int, Style], str]


def instructions(count: str) -> Target:
    """All of a program.

    :param count: the field that has their number.
    """
    return Target(Verbose(text), SHAPE_BULK, ROW_ENTRY | ALWAYS, 0, count, INSN.size)


def text(insns: bytes, dots: str, style: Style, spell_code: Spelling | None = None) -> str:
    """``[{code=BPF_JMP|BPF_K|BPF_EXIT, dst_reg=BPF_REG_0, ...}, ...]``

    :param insns: an incomplete one at the end is left out.
    :param dots: what stands for those that are missing; empty if none are.
    :param spell_code: what instructions do, if not in our way.
    """
    spell_code = spell_code or _code
    whole = len(insns) // INSN.size * INSN.size
    fields: list[tuple[int, int, int, int]] = list(INSN.iter_unpack(insns[:whole]))
    spelled = [_one(each, style, spell_code) for each in shown_of(fields, style)]
    if len(spelled) < len(fields):
        dots = "..."
    return f"[{', '.join(spelled + [dots] * bool(dots))}]"


def _one(fields: tuple[int, int, int, int], style: Style, spell_code: Spelling) -> str:
    code, registers, off, imm = fields
    target, source = (_REGISTER.text(half, style) for half in (registers & 15, registers >> 4))
    return (
        f"{{code={spell_code(code, style)}, dst_reg={target}, src_reg={source},"
        f" off={off}, imm={hexadecimal(imm & 0xFFFFFFFF)}}}"
    )


def _code(code: int, style: Style) -> str:
    number = hexadecimal(code)
    if style.xlat is Xlat.RAW:
        return number
    names = [table.get(bits) or f"{bits:#x} /* BPF_??? */" for bits, table in _parts(code)]
    name = "|".join(names)
    return name if style.xlat is Xlat.ABBREV else f"{number} /* {name} */"


def code_in_parts(code: int, style: Style) -> str:
    """strace's way: each part for itself, and no names for what ``BPF_JMP32`` does."""
    parts = _parts(code)
    if code & 7 != _JMP32_CLASS:
        return "|".join(_part(bits, table, style) for bits, table in parts)
    does = f"|{code & ~7:#x} /* BPF_??? */" if code & ~7 else ""
    return _part(*parts[0], style) + does


def _part(bits: int, names: Mapping[int, str], style: Style) -> str:
    number = hexadecimal(bits)
    if style.xlat is Xlat.RAW:
        return number
    if bits not in names:
        return f"{number} /* BPF_??? */"
    return constant(number, names[bits], style.xlat)


def _parts(code: int) -> list[tuple[int, Mapping[int, str]]]:
    kind = code & 7
    if kind < _LOADS:
        return [(kind, _CLASS), (code & 0x18, _SIZE), (code & 0xE0, _MODE)]
    does = _JMP if kind in (_JMP_CLASS, _JMP32_CLASS) else _ALU
    return [(kind, _CLASS), (code & 8, _SOURCE), (code & 0xF0, does)]
