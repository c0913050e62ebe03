# SPDX-License-Identifier: Apache-2.0
"""Classic BPF (``struct sock_filter`` of linux/filter.h): filters of sockets and of seccomp(2).

The notation is that of ``tcpdump -d``, which that of the kernel's tools/bpf/bpf_dbg and
bpf_asm resembles. What is known beyond it stands behind a semicolon, where bpf_asm has
comments::

    (000) ld       [4]              ; arch
    (001) jeq      #0xc000003e      jt 2    jf 3 ; AUDIT_ARCH_X86_64
    (002) ret      #0x7fff0000      ; SECCOMP_RET_ALLOW

It differs from tcpdump's (libpcap 1.10) in that lines have no blanks at the end, that ``ret a``
and ``ldx #pktlen`` are spelled out, in ``vlan_avail`` and ``rand``, which are bpf_asm's for
libpcap's ``vlanp`` and ``random``, and in that what seccomp filters return is hexadecimal.

Any bytes have lines and uses; only :func:`parse` refuses some. All of it takes time in proportion
to their number.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal, NamedTuple

from . import tag

SOCK_FILTER: Final = Struct("=HBBI")
"""``struct sock_filter``: code, jt, jf, k, in the byte order of this machine."""

CONSTANTS_MAX: Final = 64
"""As many different constants of a kind are in :class:`Uses`."""

# linux/bpf_common.h and linux/filter.h
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_W, _H, _B = range(0, 0x18, 8)
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = range(0, 0xC0, 0x20)
_ADD, _SUB, _MUL, _DIV, _OR, _AND, _LSH, _RSH, _NEG, _MOD, _XOR = range(0, 0xB0, 0x10)
_JA, _JEQ, _JGT, _JGE, _JSET = range(0, 0x50, 0x10)
_K, _X, _A = range(0, 0x18, 8)
_TAX, _TXA = 0x00, 0x80

_HEX: Final = "#{k:#x}"
_INT: Final = "#{signed}"
_WORD: Final = "M[{signed}]"

_K_OR_X: Final[Mapping[int, tuple[str, str]]] = {
    _ALU | _ADD: ("add", _INT),
    _ALU | _SUB: ("sub", _INT),
    _ALU | _MUL: ("mul", _INT),
    _ALU | _DIV: ("div", _INT),
    _ALU | _OR: ("or", _HEX),
    _ALU | _AND: ("and", _HEX),
    _ALU | _LSH: ("lsh", _INT),
    _ALU | _RSH: ("rsh", _INT),
    _ALU | _MOD: ("mod", _INT),
    _ALU | _XOR: ("xor", _HEX),
    _JMP | _JEQ: ("jeq", _HEX),
    _JMP | _JGT: ("jgt", _HEX),
    _JMP | _JGE: ("jge", _HEX),
    _JMP | _JSET: ("jset", _HEX),
}
# All that chk_code_allowed() of net/core/filter.c lets through, to mnemonic and operand.
_FORMS: Final[Mapping[int, tuple[str, str]]] = {
    _LD | _IMM: ("ld", _HEX),
    _LD | _MEM: ("ld", _WORD),
    _LD | _LEN: ("ld", "#pktlen"),
    _LD | _W | _ABS: ("ld", "[{signed}]"),
    _LD | _H | _ABS: ("ldh", "[{signed}]"),
    _LD | _B | _ABS: ("ldb", "[{signed}]"),
    _LD | _W | _IND: ("ld", "[x + {signed}]"),
    _LD | _H | _IND: ("ldh", "[x + {signed}]"),
    _LD | _B | _IND: ("ldb", "[x + {signed}]"),
    _LDX | _IMM: ("ldx", _HEX),
    _LDX | _MEM: ("ldx", _WORD),
    _LDX | _LEN: ("ldx", "#pktlen"),
    _LDX | _B | _MSH: ("ldxb", "4*([{signed}]&0xf)"),
    _ST: ("st", _WORD),
    _STX: ("stx", _WORD),
    **_K_OR_X,
    **{code | _X: (mnemonic, "x") for code, (mnemonic, _) in _K_OR_X.items()},
    _ALU | _NEG: ("neg", ""),
    _JMP | _JA: ("ja", "{target}"),
    _RET | _K: ("ret", _INT),
    _RET | _A: ("ret", "a"),
    _MISC | _TAX: ("tax", ""),
    _MISC | _TXA: ("txa", ""),
}
_SECCOMP_FORMS: Final = {**_FORMS, _RET | _K: ("ret", _HEX)}

_ABSOLUTE: Final = frozenset({_LD | _W | _ABS, _LD | _H | _ABS, _LD | _B | _ABS})
_FROM_PACKET: Final = _ABSOLUTE | {_LD | size | _IND for size in (_W, _H, _B)} | {_LDX | _B | _MSH}
_JUMPS: Final = frozenset(code for code in _FORMS if code & 7 == _JMP)
_COMPARISONS: Final = frozenset(code for code in _K_OR_X if code & 7 == _JMP)
_KEEP_A: Final = frozenset(
    code for code in _FORMS if code & 7 in (_LDX, _ST, _STX, _JMP) or code == _MISC | _TAX
)
# What seccomp_check_filter() of kernel/seccomp.c lets through of the above.
_NOT_SECCOMP: Final = _FROM_PACKET - {_LD | _W | _ABS} | {_ALU | _MOD | _K, _ALU | _MOD | _X}
_SECCOMP_CODES: Final = _FORMS.keys() - _NOT_SECCOMP

# linux/filter.h: where negative offsets lead to. SKF_AD_OFF counts with absolute loads only.
_SKF_AD_OFF: Final = -0x1000
_BASES: Final = {-0x200000: "SKF_LL_OFF", -0x100000: "SKF_NET_OFF", _SKF_AD_OFF: "SKF_AD_OFF"}
# SKF_AD_*, in the spelling of tools/bpf/bpf_exp.l; which has none for SKF_AD_ALU_XOR_X.
_ANCILLARY: Final[Mapping[int, str]] = {
    (_SKF_AD_OFF + 4 * at) & 0xFFFFFFFF: name
    for at, name in enumerate((
        "proto", "type", "ifidx", "nla", "nlan", "mark", "queue", "hatype", "rxhash", "cpu",
        "xor_x", "vlan_tci", "vlan_avail", "poff", "rand", "vlan_tpid",
    ))
}  # fmt: skip

# linux/seccomp.h: struct seccomp_data by words. Halves stand in the byte order of this machine.
_HALVES: Final = ("low", "high") if Struct("=H").pack(1)[0] else ("high", "low")
_ARCH: Final = 4
_SIZEOF_SECCOMP_DATA: Final = 64
_SECCOMP_DATA: Final[Mapping[int, str]] = {
    0: "nr",
    _ARCH: "arch",
    8: f"instruction_pointer {_HALVES[0]}",
    12: f"instruction_pointer {_HALVES[1]}",
    **{16 + 4 * at: f"args[{at // 2}] {_HALVES[at % 2]}" for at in range(12)},
}
_RET_DATA: Final = 0xFFFF  # SECCOMP_RET_DATA
_ACTIONS: Final[Mapping[int, str]] = {
    0x80000000: "SECCOMP_RET_KILL_PROCESS",
    0x00000000: "SECCOMP_RET_KILL_THREAD",
    0x00030000: "SECCOMP_RET_TRAP",
    0x00050000: "SECCOMP_RET_ERRNO",
    0x7FC00000: "SECCOMP_RET_USER_NOTIF",
    0x7FF00000: "SECCOMP_RET_TRACE",
    0x7FFC0000: "SECCOMP_RET_LOG",
    0x7FFF0000: "SECCOMP_RET_ALLOW",
}
# To whoever gets to know of the call, the kernel hands the data of these on, also a zero.
_WITH_DATA: Final = frozenset({0x00030000, 0x00050000, 0x7FF00000})

# linux/audit.h, of machines with filters for seccomp(2)
_ARCHES: Final[Mapping[int, str]] = {
    0xC000003E: "AUDIT_ARCH_X86_64",
    0x40000003: "AUDIT_ARCH_I386",
    0xC00000B7: "AUDIT_ARCH_AARCH64",
    0x40000028: "AUDIT_ARCH_ARM",
    0x00000028: "AUDIT_ARCH_ARMEB",
    0xC00000F3: "AUDIT_ARCH_RISCV64",
    0x400000F3: "AUDIT_ARCH_RISCV32",
    0xC0000015: "AUDIT_ARCH_PPC64LE",
    0x80000015: "AUDIT_ARCH_PPC64",
    0x00000014: "AUDIT_ARCH_PPC",
    0x80000016: "AUDIT_ARCH_S390X",
    0x00000016: "AUDIT_ARCH_S390",
    0xC0000102: "AUDIT_ARCH_LOONGARCH64",
    0x40000102: "AUDIT_ARCH_LOONGARCH32",
    0x00000008: "AUDIT_ARCH_MIPS",
    0x40000008: "AUDIT_ARCH_MIPSEL",
    0x80000008: "AUDIT_ARCH_MIPS64",
    0xA0000008: "AUDIT_ARCH_MIPS64N32",
    0xC0000008: "AUDIT_ARCH_MIPSEL64",
    0xE0000008: "AUDIT_ARCH_MIPSEL64N32",
    0x0000000F: "AUDIT_ARCH_PARISC",
    0x8000000F: "AUDIT_ARCH_PARISC64",
    0x0000002A: "AUDIT_ARCH_SH",
    0x4000002A: "AUDIT_ARCH_SHEL",
    0x400000FC: "AUDIT_ARCH_CSKY",
    0x00000004: "AUDIT_ARCH_M68K",
    0x0000005C: "AUDIT_ARCH_OPENRISC",
    0x0000005E: "AUDIT_ARCH_XTENSA",
}

_COMMENT_COLUMN: Final = 31  # behind the operand, which tcpdump gives 16 columns
_UNREACHED: Final = -1


class _Insn(NamedTuple):
    code: int
    jt: int
    jf: int
    k: int


# --- What a filter is ----------------------------------------------------------------------


@dataclass(frozen=True)
class Uses:
    """What can be said of a filter without running it."""

    kind: Literal["seccomp", "socket"]
    """What it was made for, as :func:`looks_like_seccomp` guesses."""
    count: int
    """Whole instructions."""
    incomplete: int
    """Bytes behind the last of them."""
    compared: tuple[int, ...]
    """k, __u32, of ``jeq``, ``jgt``, ``jge`` and ``jset``: different ones in the order in which
    they come, :data:`CONSTANTS_MAX` at most. Comparisons with X have none."""
    returns: tuple[int, ...]
    """k, __u32, of ``ret``, likewise: bytes of a packet that are to be kept, or what seccomp(2)
    is to do."""
    left_out: int
    """Different constants that found no room in ``compared`` and ``returns``."""
    returns_a: bool
    """It may return something else: what it has computed (``ret a``)."""
    ancillary: tuple[str, ...]
    """The different extensions of SKF_AD_OFF that it loads, spelled as in :func:`lines`, in the
    order in which they come; none if it sees nothing but the packet."""
    out_of_range: int
    """Jumps that lead behind the last instruction, for which the kernel refuses the filter. To
    it k is unsigned: a ``ja`` that leads back, as tcpdump makes of ``ip protochain``, is one."""


def uses(filters: bytes) -> Uses:
    """What a filter compares with, returns and loads.

    :param filters: ``struct sock_filter`` one behind the other; any bytes.
    """
    insns = _insns(filters)
    compared = dict.fromkeys(insn.k for insn in insns if insn.code in _COMPARISONS)
    returns = dict.fromkeys(insn.k for insn in insns if insn.code == _RET | _K)
    absolute = (insn.k for insn in insns if insn.code in _ABSOLUTE)
    ancillary = dict.fromkeys(_ANCILLARY[k] for k in absolute if k in _ANCILLARY)
    return Uses(
        kind="seccomp" if _like_seccomp(insns) else "socket",
        count=len(insns),
        incomplete=len(filters) % SOCK_FILTER.size,
        compared=tuple(compared)[:CONSTANTS_MAX],
        returns=tuple(returns)[:CONSTANTS_MAX],
        left_out=sum(max(0, len(found) - CONSTANTS_MAX) for found in (compared, returns)),
        returns_a=any(insn.code == _RET | _A for insn in insns),
        ancillary=tuple(ancillary),
        out_of_range=sum(_leaves(at, insn, len(insns)) for at, insn in enumerate(insns)),
    )


def sha256(filters: bytes) -> str:
    """The SHA-256 of the bytes as they are, in hexadecimal.

    Unlike the tag of a BPF program it depends on all of them, also on fields that an
    instruction does not use.
    """
    return tag.digest(filters)


def looks_like_seccomp(filters: bytes) -> bool:
    """Whether a filter seems made for seccomp(2): a guess, as nothing in it says so.

    It does if the kernel would take it for one (``seccomp_check_filter()``: absolute loads of
    aligned words within ``struct seccomp_data``, no others), if each constant that it returns
    is a SECCOMP_RET_ action, without data where the kernel has no use for data, and if one of
    them is not zero. For a socket these would be odd lengths; 0, which drops a packet or kills
    a thread, is returned by filters of both kinds.

    :param filters: ``struct sock_filter`` one behind the other; any bytes.
    """
    return _like_seccomp(_insns(filters))


def _like_seccomp(insns: Sequence[_Insn]) -> bool:
    returned = {insn.k for insn in insns if insn.code == _RET | _K}
    return (
        all(insn.code in _SECCOMP_CODES for insn in insns)
        and all(insn.k in _SECCOMP_DATA for insn in insns if insn.code in _ABSOLUTE)
        and all(k in _ACTIONS or k & ~_RET_DATA in _WITH_DATA for k in returned)
        and any(returned)
    )


def _insns(filters: bytes) -> list[_Insn]:
    whole = len(filters) // SOCK_FILTER.size * SOCK_FILTER.size
    return [_Insn(*fields) for fields in SOCK_FILTER.iter_unpack(filters[:whole])]


def _next(number: int, insn: _Insn) -> tuple[int, ...]:
    # The instructions that may run behind this one.
    if insn.code in (_RET | _K, _RET | _A):
        return ()
    if insn.code not in _JUMPS:
        return (number + 1,)
    if insn.code == _JMP | _JA:
        return (number + 1 + insn.k,)
    return (number + 1 + insn.jt, number + 1 + insn.jf)


def _leaves(number: int, insn: _Insn, count: int) -> bool:
    return insn.code in _JUMPS and max(_next(number, insn)) >= count


# --- Its lines -----------------------------------------------------------------------------


def lines(filters: bytes, *, seccomp: bool | None = None) -> Iterator[str]:
    """A line for each instruction, and one for bytes behind the last whole one.

    Each is printable but for the tab between ``jt`` and ``jf``, which is tcpdump's. Fields that an
    instruction does not use are not shown. What the kernel does not know is ``unimp <code>``, with
    all of its fields behind it as C has them. Jumps that the kernel refuses
    (:attr:`Uses.out_of_range`) are marked.

    :param filters: ``struct sock_filter`` one behind the other; any bytes.
    :param seccomp: whether it is a filter for seccomp(2), of which actions, fields of ``struct
        seccomp_data`` and architectures have names; system calls stay numbers, because what they
        mean depends on the architecture. If not given, :func:`looks_like_seccomp` decides.
    """
    insns = _insns(filters)
    if seccomp is None:
        seccomp = _like_seccomp(insns)
    loaded = _loaded(insns)
    for number, insn in enumerate(insns):
        name = _seccomp_name(insn, loaded[number]) if seccomp else _place(insn)
        unknown = f"{{ {insn.code:#x}, {insn.jt}, {insn.jf}, {insn.k:#010x} }}"
        comments = [
            name,
            unknown * (insn.code not in _FORMS),
            "out of range" * _leaves(number, insn, len(insns)),
        ]
        comment = ", ".join(filter(None, comments))
        line = _line(number, insn, _SECCOMP_FORMS if seccomp else _FORMS)
        yield f"{line:<{_COMMENT_COLUMN}} ; {comment}" if comment else line
    rest = filters[len(insns) * SOCK_FILTER.size :]
    if rest:
        yield (
            f"({len(insns):03}) incomplete: {len(rest)} of {SOCK_FILTER.size} bytes, {rest.hex()}"
        )


def _line(number: int, insn: _Insn, forms: Mapping[int, tuple[str, str]]) -> str:
    code, jt, jf, k = insn
    mnemonic, form = forms.get(code, ("unimp", f"{code:#x}"))
    operand = form.format(k=k, signed=_signed(k), target=number + 1 + _signed(k))
    if code in _ABSOLUTE and k in _ANCILLARY:
        operand = f"[{_ANCILLARY[k]}]"
    if code in _JUMPS and code != _JMP | _JA:
        operand = f"{operand:<16} jt {number + 1 + jt}\tjf {number + 1 + jf}"
    return f"({number:03}) {mnemonic:<8} {operand}".rstrip()


def _signed(k: int) -> int:
    return k - (k >> 31 << 32)


def _place(insn: _Insn) -> str:
    # Where a load with a negative offset reads; empty for others.
    k = _signed(insn.k)
    below = [base for base in _BASES if base <= k < 0]
    if insn.code not in _FROM_PACKET or not below:
        return ""
    base = below[-1]
    if base == _SKF_AD_OFF and (insn.code not in _ABSOLUTE or insn.k in _ANCILLARY):
        return ""
    return f"{_BASES[base]} + {k - base}"


def _seccomp_name(insn: _Insn, loaded: int | None) -> str:
    code, _, _, k = insn
    if code == _LD | _W | _ABS:
        return _SECCOMP_DATA.get(k, "")
    if code == _JMP | _JEQ | _K and loaded == _ARCH:
        return _ARCHES.get(k, "")
    if code != _RET | _K:
        return ""
    action, data = k & ~_RET_DATA, k & _RET_DATA
    name = _ACTIONS.get(action, "SECCOMP_RET_???")
    return f"{name}({data})" if data or action in _WITH_DATA else name


def _loaded(insns: Sequence[_Insn]) -> list[int | None]:
    # From where comes the word that A holds when an instruction runs, if that is the same on
    # all ways there. Jumps lead forward only: when it is an instruction's turn, all are known.
    loaded: list[int | None] = [_UNREACHED] * len(insns)
    loaded[:1] = [None] * bool(insns)
    for number, insn in enumerate(insns):
        if loaded[number] == _UNREACHED:
            continue
        after = loaded[number] if insn.code in _KEEP_A else None
        if insn.code == _LD | _W | _ABS:
            after = insn.k
        for target in _next(number, insn):
            if target < len(insns):
                same = loaded[target] in (_UNREACHED, after)
                loaded[target] = after if same else None
    return loaded


# --- Its text ------------------------------------------------------------------------------

# No octal numbers: nobody prints them, and 010 may be meant either way. No more digits than
# fit k, which also keeps the time that they take within bounds.
_NUMBER: Final = r"(0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9})"
_COUNT: Final = re.compile(_NUMBER)
_QUADRUPLE: Final = re.compile(rf"{_NUMBER}\s++{_NUMBER}\s++{_NUMBER}\s++{_NUMBER}")
_INITIALISER: Final = re.compile(
    rf"\{{\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+\}}\s*+(,?+)\s*+"
)
_LIMITS: Final = {"code": 0xFFFF, "jt": 0xFF, "jf": 0xFF, "k": 0xFFFFFFFF}
_QUOTED_MAX: Final = 40  # characters of the input in an error


def parse(data: bytes) -> bytes:
    """A filter out of a file: ``struct sock_filter`` one behind the other.

    Data with a NUL in it are such already and come back as they are: each opcode that the
    kernel knows has one in its upper half. All else is text, which is one of

    * what ``tcpdump -ddd`` prints: the number of instructions, then for each a line of code, jt,
      jf and k; also with commas instead of line ends, as for iptables' ``--bytecode`` and as
      bpf_asm prints it;
    * what ``tcpdump -dd`` and ``bpf_asm -c`` print: ``{ 0x28, 0, 0, 0x0000000c },`` and so on.

    Numbers are decimal or, with ``0x``, hexadecimal.

    :raises ValueError: the text is neither, or has no instructions; it says in which line and
        what is wrong there, as one sentence without a full stop.
    """
    if b"\0" in data:
        return data
    text = data.decode("ascii", "backslashreplace")
    if not text.strip():
        raise ValueError("line 1: there are no instructions")
    insns = _initialisers(text) if text.lstrip().startswith("{") else _quadruples(text)
    return b"".join(SOCK_FILTER.pack(*fields) for fields in insns)


def _initialisers(text: str) -> Iterator[list[int]]:
    at = len(text) - len(text.lstrip())
    line, comma = 1 + text.count("\n", 0, at), ","
    while at < len(text):
        match = _INITIALISER.match(text, at)
        if match is None or not comma:
            expected = "{ code, jt, jf, k }" if comma else "a comma between instructions"
            raise ValueError(f"line {line}: expected {expected}, found {_quoted(text, at)}")
        *numbers, comma = match.groups()
        yield _fields(numbers, line)
        line += text.count("\n", at, match.end())
        at = match.end()


def _quadruples(text: str) -> Iterator[list[int]]:
    parts = _parts(text)
    line, first = next(parts)
    if not _COUNT.fullmatch(first):
        raise ValueError(
            f"line {line}: expected the number of instructions or {{ code, jt, jf, k }},"
            f" found {_quoted(first)}"
        )
    announced, count = int(first, 0), 0
    for at, part in parts:
        match = _QUADRUPLE.fullmatch(part)
        if match is None:
            raise ValueError(f"line {at}: expected code, jt, jf and k, found {_quoted(part)}")
        yield _fields(match.groups(), at)
        count += 1
    if count != announced:
        raise ValueError(f"line {line}: {announced} instructions are announced, {count} follow")
    if not count:
        raise ValueError(f"line {line}: there are no instructions")


def _parts(text: str) -> Iterator[tuple[int, str]]:
    # What stands between commas and ends of lines, with the number of its line. Behind a comma
    # at the end of a line comes nothing.
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.strip():
            yield from ((number, part.strip()) for part in line.removesuffix(",").split(","))


def _fields(numbers: Iterable[str], line: int) -> list[int]:
    fields = [int(number, 0) for number in numbers]
    for (name, limit), value in zip(_LIMITS.items(), fields, strict=True):
        if value > limit:
            raise ValueError(f"line {line}: {name} is {value}, more than {limit}")
    return fields


def _quoted(text: str, at: int = 0) -> str:
    found = text[at : at + _QUOTED_MAX].partition("\n")[0]
    return repr(found) if found else "nothing"
