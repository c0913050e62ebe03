# SPDX-License-Identifier: Apache-2.0
"""What a program uses, from its instructions alone.

They are read once, from the first to the last, and jumps are not followed. So the helpers,
kfuncs and maps are all that the program can reach, and maybe some that it never does. Constants
and texts are a help for readers: whoever writes a program can keep them from being found.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from ..events.value import printable
from .disasm import (
    BPF_CALL,
    BPF_LD_IMM64,
    BPF_PSEUDO_BTF_ID,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
)
from .helpers import BPF_FUNC_tail_call
from .insn import INSN

REFERENCES_MAX: Final = 256
"""Of helpers, of kfuncs and so on: as many subprograms as the kernel takes (BPF_MAX_SUBPROGS),
and more helpers and maps than there can be."""
CONSTANTS_MAX: Final = 32
STRINGS_MAX: Final = 32
STRING_MAX: Final = 512
"""Bytes, of which a stack has no more (MAX_BPF_STACK)."""

_SMALL: Final = 1 << 16
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1


class Kfunc(NamedTuple):
    """A kernel function that is called."""

    btf_id: int
    fd_index: int
    """Where in fd_array the BTF of its module is; 0 for vmlinux."""


class Variable(NamedTuple):
    """A variable or function of the kernel whose address is taken."""

    btf_id: int
    btf_fd: int
    """The BTF of its module; 0 for vmlinux."""


class Map(NamedTuple):
    """A map that is referred to."""

    kind: str
    """``fd``, or ``idx`` for a place in fd_array."""
    number: int


class Uses(NamedTuple):
    """What a program uses: each thing once, in the order in which it is first mentioned."""

    helpers: tuple[int, ...] = ()
    """``enum bpf_func_id``, or any other ``__s32``: what none has is spelled by
    :func:`.helpers.name`."""
    kfuncs: tuple[Kfunc, ...] = ()
    variables: tuple[Variable, ...] = ()
    maps: tuple[Map, ...] = ()
    subprograms: tuple[int, ...] = ()
    """Where they begin, in instructions, as the calls have it: not all may be in the program."""
    constants: tuple[int, ...] = ()
    """Numbers that may mean something to a reader, as unsigned ones: addresses, magic numbers,
    keys. Those that take more than 16 bits and a sign, unless they are a single run of ones
    (masks, single bits) or text. Offsets of jumps, ids and references are not among them."""
    strings: tuple[str, ...] = ()
    """Text of four characters or more, escaped as in documents: first what is put together on
    the stack or in other memory, then numbers that are text and are never stored, such as those
    that a name is compared with."""
    cut: tuple[str, ...] = ()
    """Which of the fields above would have had more, if they had no limit."""

    @property
    def tail_calls(self) -> bool:
        """Whether it goes on to other programs, which only its maps know."""
        return BPF_FUNC_tail_call in self.helpers


def uses(insns: bytes) -> Uses:
    """What these instructions use; total: any bytes have an answer, in linear time.

    :param insns: ``struct bpf_insn`` one behind the other, as they are passed to the kernel. An
        incomplete one at the end is left out.
    """
    return _Reader().read(insns)


_Thing = TypeVar("_Thing", bound=Hashable)


class _First(Generic[_Thing]):
    """The first of many things, each once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[_Thing, None] = {}
        self.cut = False

    def add(self, thing: _Thing) -> None:
        if len(self._seen) < self._limit:
            self._seen[thing] = None
        elif thing not in self._seen:
            self.cut = True

    def all(self) -> tuple[_Thing, ...]:
        return tuple(self._seen)


# --- Text ---------------------------------------------------------------------------------------

_TEXT: Final = re.compile(rb"[!-~][\t\n\r -~]{3,}")
_TEXT_NUMBER: Final = re.compile(rb"[\t\n\r -~]{3,}\0*")  # the end of a text has few
_NOT_ASCII: Final = 0x8080808080808080
_PIECES_MAX: Final = 512  # behind one register, so that memory has bounds
_CLOBBERED: Final = 6  # R0 to R5, by a call


def _is_text(number: int) -> bool:
    if number & _NOT_ASCII:
        return False
    return _TEXT_NUMBER.fullmatch(number.to_bytes(8, "little")) is not None


class _Texts:
    """Puts together what a program stores number by number, in whatever order.

    What is stored behind one register belongs together until the register is written, or
    something else is stored in the same place.
    """

    def __init__(self) -> None:
        self.found = _First[bytes](STRINGS_MAX)
        self._numbers: list[int | None] = [None] * 16  # in registers, where known
        self._pieces: dict[int, dict[int, bytes]] = {}  # by register and offset
        self._loose: dict[int, None] = {}

    def mention(self, number: int) -> None:
        """A number that is text, and may be a piece of a longer one."""
        if len(self._loose) < STRINGS_MAX:
            self._loose[number] = None
        elif number not in self._loose:
            self.found.cut = True

    def put(self, register: int, number: int | None) -> None:
        """The register is written; None is any number."""
        self._numbers[register] = number
        if register in self._pieces:
            self._take(register)

    def copy(self, register: int, source: int) -> None:
        self.put(register, self._numbers[source])

    def call(self) -> None:
        self._numbers[:_CLOBBERED] = [None] * _CLOBBERED
        for register in [each for each in self._pieces if each < _CLOBBERED]:
            self._take(register)

    def store_register(self, base: int, off: int, size: int, source: int) -> None:
        number = self._numbers[source]
        if number is not None:
            self.store(base, off, size, number)

    def store(self, base: int, off: int, size: int, number: int) -> None:
        """:param size: in bytes."""
        self._loose.pop(number, None)
        piece = number.to_bytes(8, "little")[:size]
        pieces = self._pieces.get(base, {})
        if pieces.get(off, piece) != piece or len(pieces) == _PIECES_MAX:
            self._take(base)
        if number:  # what is cleared before it is filled is no gap
            self._pieces.setdefault(base, {})[off] = piece

    def leave(self) -> None:
        """The end of a subprogram; another one has another stack."""
        for register in list(self._pieces):
            self._take(register)

    def end(self) -> None:
        self.leave()
        for number in self._loose:
            self._look_at(number.to_bytes(8, "little"))

    def _take(self, register: int) -> None:
        pieces = self._pieces.pop(register)
        for run in pieces.values() if len(pieces) == 1 else _runs(pieces):
            self._look_at(run)

    def _look_at(self, data: bytes) -> None:
        for text in _TEXT.findall(data):
            self.found.add(text[:STRING_MAX])
            if len(text) > STRING_MAX:
                self.found.cut = True


def _runs(pieces: dict[int, bytes]) -> Iterator[bytes]:
    """What lies side by side in memory, as one."""
    run, begin = bytearray(), 0
    for off, piece in sorted(pieces.items()):
        if not run or off > begin + len(run):
            yield bytes(run)
            run, begin = bytearray(), off
        run[off - begin : off - begin + len(piece)] = piece
    yield bytes(run)


# --- Instructions -------------------------------------------------------------------------------

_Insn = tuple[int, int, int, int]

_MAPS: Final = {
    BPF_PSEUDO_MAP_FD: "fd",
    BPF_PSEUDO_MAP_VALUE: "fd",
    BPF_PSEUDO_MAP_IDX: "idx",
    BPF_PSEUDO_MAP_IDX_VALUE: "idx",
}
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_BPF_LOAD_ACQ: Final = 0x100


class _Reader:
    """Reads a program once."""

    def __init__(self) -> None:
        self._helpers = _First[int](REFERENCES_MAX)
        self._kfuncs = _First[Kfunc](REFERENCES_MAX)
        self._variables = _First[Variable](REFERENCES_MAX)
        self._maps = _First[Map](REFERENCES_MAX)
        self._subprograms = _First[int](REFERENCES_MAX)
        self._constants = _First[int](CONSTANTS_MAX)
        self._texts = _Texts()

    def read(self, insns: bytes) -> Uses:
        numbered = enumerate(INSN.iter_unpack(insns[: len(insns) // INSN.size * INSN.size]))
        for number, insn in numbered:
            code = insn[0]
            if code == BPF_LD_IMM64:
                second = next(numbered, None)
                self._wide(number, insn, second and second[1])
            elif code == BPF_CALL:
                self._call(number, insn)
            elif read := _METHODS.get(code):
                read(self, insn)
        self._texts.end()
        return self._uses()

    def _uses(self) -> Uses:
        cut = {
            "helpers": self._helpers.cut, "kfuncs": self._kfuncs.cut,
            "variables": self._variables.cut, "maps": self._maps.cut,
            "subprograms": self._subprograms.cut, "constants": self._constants.cut,
            "strings": self._texts.found.cut,
        }  # fmt: skip
        return Uses(
            self._helpers.all(), self._kfuncs.all(), self._variables.all(), self._maps.all(),
            self._subprograms.all(), self._constants.all(),
            tuple(map(printable, self._texts.found.all())),
            tuple(name for name, too_many in cut.items() if too_many),
        )  # fmt: skip

    def _wide(self, number: int, first: _Insn, second: _Insn | None) -> None:
        _, registers, _, low = first
        high = second[3] if second else 0
        target, kind = registers & 15, registers >> 4
        value = None
        if kind in _MAPS:
            self._maps.add(Map(_MAPS[kind], low))
        elif kind == BPF_PSEUDO_BTF_ID:
            self._variables.add(Variable(low, high))
        elif kind == BPF_PSEUDO_FUNC:
            self._subprograms.add(number + low + 1)
        elif second:
            value = low & _U32 | (high & _U32) << 32
            if _SMALL <= value < _U64 - _SMALL:
                self._see(value)
        self._texts.put(target, value)

    def _call(self, number: int, insn: _Insn) -> None:
        _, registers, off, imm = insn
        kind = registers >> 4
        if kind == 0:
            self._helpers.add(imm)
        elif kind == BPF_PSEUDO_CALL:
            self._subprograms.add(number + imm + 1)
        elif kind == BPF_PSEUDO_KFUNC_CALL:
            self._kfuncs.add(Kfunc(imm, off))
        self._texts.call()

    def _see(self, value: int) -> None:
        """:param value: unsigned, and not small."""
        if _is_text(value):
            self._texts.mention(value)
        elif (filled := value | value - 1) & filled + 1:  # ones below the lowest of its own
            self._constants.add(value)

    def operand(self, insn: _Insn) -> None:
        imm = insn[3]
        if not -_SMALL <= imm < _SMALL:
            self._see(imm & _U32)

    def written(self, insn: _Insn) -> None:
        self._texts.put(insn[1] & 15, None)

    def arithmetic(self, insn: _Insn) -> None:
        self.operand(insn)
        self.written(insn)

    def move(self, insn: _Insn) -> None:
        code, registers, _, imm = insn
        self.operand(insn)
        self._texts.put(registers & 15, imm & (_U64 if code == _MOV64 else _U32))

    def copy(self, insn: _Insn) -> None:
        _, registers, off, _ = insn
        if off:
            self.written(insn)
        else:
            self._texts.copy(registers & 15, registers >> 4)

    def store(self, insn: _Insn) -> None:
        code, registers, off, imm = insn
        self.operand(insn)
        self._texts.store(registers & 15, off, _SIZES[code & 0x18], imm & _U64)

    def store_register(self, insn: _Insn) -> None:
        code, registers, off, _ = insn
        self._texts.store_register(registers & 15, off, _SIZES[code & 0x18], registers >> 4)

    def atomic(self, insn: _Insn) -> None:
        _, registers, _, imm = insn
        self._texts.put(0, None)
        self._texts.put(registers & 15 if imm == _BPF_LOAD_ACQ else registers >> 4, None)

    def packet(self, _: _Insn) -> None:
        self._texts.call()

    def leave(self, _: _Insn) -> None:
        self._texts.leave()


_MOV64: Final = 0xB7


def _methods() -> Iterator[tuple[int, Callable[[_Reader, _Insn], None]]]:
    # linux/bpf_common.h and linux/bpf.h; numbers are those of the whole byte.
    for kind in (0x04, 0x07):  # BPF_ALU, BPF_ALU64
        for operation in range(0x00, 0xE0, 0x10):
            yield kind | operation, _Reader.arithmetic
            yield kind | operation | 8, _Reader.written
        for unary in (0x80, 0xD0):  # BPF_NEG, BPF_END
            yield kind | unary, _Reader.written
        yield kind | 0xB0, _Reader.move
    yield 0xBF, _Reader.copy
    for kind in (0x05, 0x06):  # BPF_JMP, BPF_JMP32
        for operation in (*range(0x10, 0x80, 0x10), *range(0xA0, 0xE0, 0x10)):
            yield kind | operation, _Reader.operand
    yield 0x95, _Reader.leave
    for size in _SIZES:
        yield 0x20 | size, _Reader.packet
        yield 0x40 | size, _Reader.packet
        yield 0x61 | size, _Reader.written
        yield 0x81 | size, _Reader.written
        yield 0x62 | size, _Reader.store
        yield 0x63 | size, _Reader.store_register
        yield 0xC3 | size, _Reader.atomic


_METHODS: Final = dict(_methods())
