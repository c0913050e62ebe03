# SPDX-License-Identifier: Apache-2.0
"""Instructions of BPF as the kernel spells them, in the verifier's log and in what bpftool dumps.

::

       0: (18) r1 = map[fd:3]
       2: (85) call bpf_map_lookup_elem#1
       3: (15) if r0 == 0x0 goto pc+1
       4: (db) lock *(u64 *)(r0 +0) += r6

The notation is that of kernel/bpf/disasm.c as of Linux 7.2. Where it has none, here is one: the
kernel stops at an instruction that it does not know (``???``), is silent about fields that must
be zero and are not (``/* src_reg=3 */``), and sees no descriptors any more, as it has replaced
them (``map[fd:3]``). So lines differ wherever instructions do.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ..events.value import hexadecimal
from .helpers import HELPERS
from .insn import INSN

BPF_LD_IMM64: Final = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: a number of 64 bits, in the room of two instructions."""
BPF_CALL: Final = 0x85
"""BPF_JMP | BPF_CALL"""

# src_reg of BPF_LD_IMM64: what the number is.
BPF_PSEUDO_MAP_FD: Final = 1
BPF_PSEUDO_MAP_VALUE: Final = 2
BPF_PSEUDO_BTF_ID: Final = 3
BPF_PSEUDO_FUNC: Final = 4
BPF_PSEUDO_MAP_IDX: Final = 5
BPF_PSEUDO_MAP_IDX_VALUE: Final = 6

# src_reg of BPF_CALL: what is called; 0 is a helper.
BPF_PSEUDO_CALL: Final = 1
BPF_PSEUDO_KFUNC_CALL: Final = 2

_NOTHING: Final[Mapping[int, str]] = MappingProxyType({})


class Names(NamedTuple):
    """What the numbers in a program stand for; where nobody knows, the number is shown."""

    helpers: Mapping[int, str] = HELPERS
    """Helper functions by ``enum bpf_func_id``."""
    ksyms: Mapping[int, str] = _NOTHING
    """Kernel functions and variables by their id in the BTF of vmlinux."""
    fds: Mapping[int, str] = _NOTHING
    """Maps by descriptor, as ``map[id:12]``."""
    indexes: Mapping[int, str] = _NOTHING
    """Maps by index in fd_array, as ``map[id:12]``."""


UNNAMED: Final = Names()


def lines(insns: bytes, names: Names = UNNAMED) -> Iterator[str]:
    """One line an instruction, with its number in front as bpftool has it.

    A number of 64 bits takes two instructions and one line. Any bytes have lines: what is
    incomplete at the end has one as well. A line has less than 200 characters beside a name,
    and is printable if names are.

    :param insns: ``struct bpf_insn`` one behind the other, as they are passed to the kernel.
    """
    end = len(insns) // INSN.size * INSN.size
    numbered = enumerate(INSN.iter_unpack(insns[:end]))
    for number, insn in numbered:
        fields = _fields(insn)
        code = fields["code"]
        if code == BPF_LD_IMM64:
            second = next(numbered, None)
            text = _wide(fields, _fields(second[1] if second else _ZERO), names)
            text += "" if second else " /* the second half is missing */"
        elif code == BPF_CALL:
            text = _call(fields, names)
        else:
            text = _form(code, fields).text(fields)
        yield f"{number:4}: ({code:02x}) {text}"
    if rest := insns[end:]:
        yield f"{end // INSN.size:4}: ({rest[0]:02x}) ??? /* cut: {rest.hex(' ')} */"


_Insn = tuple[int, int, int, int]
_Fields = Mapping[str, int]

_ZERO: Final[_Insn] = (0, 0, 0, 0)


def _fields(insn: _Insn) -> _Fields:
    code, registers, off, imm = insn
    return {
        "code": code, "dst_reg": registers & 15, "src_reg": registers >> 4, "off": off, "imm": imm,
        "u32": imm & 0xFFFFFFFF, "high": imm >> 16 & 0xFFFF, "low": imm & 0xFFFF,
    }  # fmt: skip


# --- Instructions whose code says what they are -------------------------------------------------

_SHOWN: Final = ("dst_reg", "src_reg", "off", "imm")
_IMM: Final = dict.fromkeys(("u32", "high", "low"), "imm")
_HEXADECIMAL: Final = ("code", "imm")


class _Form(NamedTuple):
    """How instructions of a kind are spelled."""

    spelled: Callable[[_Fields], str]
    silent: tuple[str, ...]
    """The fields that this does not tell: they should be zero."""

    def text(self, fields: _Fields) -> str:
        return self.spelled(fields) + _remark(fields, self.silent)


def _remark(fields: _Fields, silent: Iterable[str], whose: str = "") -> str:
    told = [f"{name}={_number(name, fields[name])}" for name in silent if fields[name]]
    return f" /* {whose}{', '.join(told)} */" if told else ""


def _number(name: str, value: int) -> str:
    return hexadecimal(value & 0xFFFFFFFF) if name in _HEXADECIMAL else str(value)


def _of(template: str, chosen_by: str = "") -> _Form:
    """:param chosen_by: the field whose value made the choice, and so is told."""
    told = {_IMM.get(field, field) for field in re.findall(r"\{(\w+)", template)} | {chosen_by}
    return _Form(template.format_map, tuple(name for name in _SHOWN if name not in told))


# linux/bpf_common.h and linux/bpf.h; numbers are those of the whole byte.
_SIZES: Final = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_ALU: Final = {
    0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=",
    0x70: ">>=", 0x90: "%=", 0xA0: "^=", 0xB0: "=", 0xC0: "s>>=",
}  # fmt: skip
_JMP: Final = {
    0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=", 0xA0: "<",
    0xB0: "<=", 0xC0: "s<", 0xD0: "s<=",
}  # fmt: skip

_FORMS: Final[dict[int, _Form]] = {
    # BPF_JMP and BPF_JMP32
    0x05: _of("goto pc{off:+d}"),
    0x06: _of("gotol pc{imm:+d}"),
    0x0D: _of("gotox r{dst_reg}"),
    0x8D: _of("callx r{dst_reg}"),  # compilers make it; reserved in the kernel
    0x95: _of("exit"),
    # BPF_ALU and BPF_ALU64
    0x84: _of("w{dst_reg} = -w{dst_reg}"),
    0x87: _of("r{dst_reg} = -r{dst_reg}"),
    0xD4: _of("r{dst_reg} = le{imm} r{dst_reg}"),
    0xDC: _of("r{dst_reg} = be{imm} r{dst_reg}"),
    0xD7: _of("r{dst_reg} = bswap{imm} r{dst_reg}"),
    0xC2: _of("nospec"),  # the kernel's own
}

_CHOICES: Final[dict[int, tuple[str, dict[int, _Form]]]] = {
    0xE5: ("src_reg", {0: _of("may_goto pc{off:+d}", "src_reg")}),
}
"""Where a field chooses among forms; if it has none of these values, then that of _FORMS."""

_UNKNOWN: Final = _of("???")


def _form(code: int, fields: _Fields) -> _Form:
    if choice := _CHOICES.get(code):
        field, forms = choice
        if form := forms.get(fields[field]):
            return form
    return _FORMS.get(code, _UNKNOWN)


def _loads_and_stores() -> None:
    for size, name in _SIZES.items():
        place = f"*({name} *)(r{{dst_reg}} {{off:+d}})"
        _FORMS[0x61 | size] = _of(f"r{{dst_reg}} = *({name} *)(r{{src_reg}} {{off:+d}})")
        _FORMS[0x62 | size] = _of(f"{place} = {{imm}}")
        _FORMS[0x63 | size] = _of(f"{place} = r{{src_reg}}")
        _CHOICES[0xC3 | size] = "imm", _atomics(name)
        if name != "u64":
            signed = name.replace("u", "s")
            _FORMS[0x81 | size] = _of(f"r{{dst_reg}} = *({signed} *)(r{{src_reg}} {{off:+d}})")
            _FORMS[0x20 | size] = _of(f"r0 = *({name} *)skb[{{imm}}]")
            _FORMS[0x40 | size] = _of(f"r0 = *({name} *)skb[r{{src_reg}} + {{imm}}]")


def _atomics(size: str) -> dict[int, _Form]:
    """By imm."""
    at = f"({size} *)(r{{dst_reg}} {{off:+d}})"
    atomic = "atomic64" if size == "u64" else "atomic"
    templates = {
        0xE1: f"r{{src_reg}} = {atomic}_xchg({at}, r{{src_reg}})",
        0xF1: f"r0 = {atomic}_cmpxchg({at}, r0, r{{src_reg}})",
        0x100: f"r{{dst_reg}} = load_acquire(({size} *)(r{{src_reg}} {{off:+d}}))",
        0x110: f"store_release({at}, r{{src_reg}})",
    }
    for operation, name in {0x00: "add", 0x40: "or", 0x50: "and", 0xA0: "xor"}.items():
        templates[operation] = f"lock *{at} {_ALU[operation]} r{{src_reg}}"
        templates[operation | 1] = f"r{{src_reg}} = {atomic}_fetch_{name}({at}, r{{src_reg}})"
    return {imm: _of(template, "imm") for imm, template in templates.items()}


def _arithmetic() -> None:
    for kind, letter in {0x04: "w", 0x07: "r"}.items():
        target, source = f"{letter}{{dst_reg}}", f"{letter}{{src_reg}}"
        for operation, sign in _ALU.items():
            for code, operand in (kind | operation, "{imm}"), (kind | operation | 8, source):
                _FORMS[code] = _of(f"{target} {sign} {operand}")
                if sign in ("/=", "%="):
                    signed = _of(f"{target} s{sign} {operand}", "off")
                    _CHOICES[code] = "off", {1: signed}
        moves = {bits: f"{target} = (s{bits}){source}" for bits in (8, 16, 32)}
        if letter == "r":
            moves[1] = f"{target} = addr_space_cast({source}, {{high}}, {{low}})"
            moves[-1] = f"{target} = &(void __percpu *)({source})"
        _CHOICES[kind | 0xB8] = "off", {off: _of(text, "off") for off, text in moves.items()}


def _jumps() -> None:
    for kind, letter in {0x05: "r", 0x06: "w"}.items():
        for operation, sign in _JMP.items():
            condition = f"if {letter}{{dst_reg}} {sign}"
            _FORMS[kind | operation] = _of(f"{condition} {{u32:#x}} goto pc{{off:+d}}")
            register = f"{letter}{{src_reg}}"
            _FORMS[kind | operation | 8] = _of(f"{condition} {register} goto pc{{off:+d}}")


_loads_and_stores()
_arithmetic()
_jumps()


# --- Those that refer to something --------------------------------------------------------------


def _call(fields: _Fields, names: Names) -> str:
    kind, imm = fields["src_reg"], fields["imm"]
    if kind == BPF_PSEUDO_CALL:
        return f"call pc{imm:+d}" + _remark(fields, ("dst_reg", "off"))
    if kind == BPF_PSEUDO_KFUNC_CALL:
        # With an offset, the id is one of a module's BTF.
        name = "" if fields["off"] else names.ksyms.get(imm, "")
        return f"call {name or 'kernel-function'}#{imm}" + _remark(fields, ("dst_reg", "off"))
    name = "unknown" if kind else names.helpers.get(imm, "unknown")
    return f"call {name}#{imm}" + _remark(fields, ("dst_reg", "src_reg", "off"))


def _wide(first: _Fields, second: _Fields, names: Names) -> str:
    """:param second: what the second half has in the places of an instruction's fields."""
    low, high = first["imm"], second["imm"]
    silent = ["code", "dst_reg", "src_reg", "off"]
    if reference := _REFERENCES.get(first["src_reg"]):
        text = reference(low, high, names) + _remark(first, ("off",))
        if reference in _NARROW:
            silent.append("imm")
    else:
        text = f"{first['u32'] | second['u32'] << 32:#x}" + _remark(first, ("src_reg", "off"))
    return f"r{first['dst_reg']} = {text}" + _remark(second, silent, "second half: ")


def _map(low: int, _: int, names: Names) -> str:
    return names.fds.get(low) or f"map[fd:{low}]"


def _map_value(low: int, high: int, names: Names) -> str:
    return f"{_map(low, high, names)}[0]+{high & 0xFFFFFFFF}"


def _ksym(low: int, high: int, names: Names) -> str:
    # With a descriptor, the id is one of a module's BTF.
    if high == 0 and (name := names.ksyms.get(low)):
        return f"&{name}"
    return f"btf[fd:{high}][id:{low}]" if high else f"btf[id:{low}]"


def _subprogram(low: int, _: int, __: Names) -> str:
    return f"subprog[{low:+d}]"


def _map_index(low: int, _: int, names: Names) -> str:
    return names.indexes.get(low) or f"map[idx:{low}]"


def _map_index_value(low: int, high: int, names: Names) -> str:
    # Without a name as bpftool has it.
    name = names.indexes.get(low)
    return (f"{name}[0]" if name else f"map[idx:{low}]") + f"+{high & 0xFFFFFFFF}"


_REFERENCES: Final[Mapping[int, Callable[[int, int, Names], str]]] = {
    BPF_PSEUDO_MAP_FD: _map,
    BPF_PSEUDO_MAP_VALUE: _map_value,
    BPF_PSEUDO_BTF_ID: _ksym,
    BPF_PSEUDO_FUNC: _subprogram,
    BPF_PSEUDO_MAP_IDX: _map_index,
    BPF_PSEUDO_MAP_IDX_VALUE: _map_index_value,
}
_NARROW: Final = (_map, _subprogram, _map_index)
"""Those that leave the second half out."""
