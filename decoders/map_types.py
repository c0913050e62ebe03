# SPDX-License-Identifier: Apache-2.0
"""What the keys and values of maps are, as the BTF says that the maps were made with."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ..events.memory import KEYS, VALUES, Content
from ..events.typed import (
    Array,
    Bits,
    Bool,
    Char,
    Chars,
    Enumeration,
    Float,
    Member,
    Pointer,
    Scalar,
    Several,
    Type,
    Typed,
)
from ..events.value import printable
from . import btf_data
from .btf_data import ENUM64, TYPE_WORDS, BtfData, count_of, kind_flag, kind_of

BTF_MAX: Final = 1 << 20
"""Bytes of BTF that are looked at. That of a large program is a third of it, and nobody should
be able to keep us busy.
"""
_MEMBERS_MAX: Final = 1 << 14
"""Members, constants and types of one BTF that are made: more than is ever shown."""
_DEPTH_MAX: Final = 32
_BYTE: Final = 8  # bits
_POINTER: Final = 8  # bytes: of BPF programs, whatever the machine is
_WIDEST: Final = 16  # bytes: __int128
_SIGNED, _CHAR, _BOOL = 1, 2, 4  # BTF_INT_...
_PER_CPU: Final = frozenset({5, 6, 10, 21})
"""BPF_MAP_TYPE_PERCPU_HASH and the like: values of all CPUs, each in multiples of 8 bytes."""


class MapBtf(NamedTuple):
    """A map, and where its types are: members of ``struct bpf_map_info``."""

    type: int
    id: int
    key_size: int
    value_size: int
    btf_id: int
    key_type_id: int
    """0: none."""
    value_type_id: int
    """The same."""


class Contents(NamedTuple):
    """How to spell what is in a map."""

    key: Content
    value: Content

    def instead_of(self, content: Content) -> Content:
        """:data:`KEYS` and :data:`VALUES` as they are here, and any other as it is."""
        if content is KEYS:
            return self.key
        return self.value if content is VALUES else content


class Types:
    """The types of one BTF, made when they are asked for.

    :raises ValueError: it is not BTF, or longer than is looked at.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > BTF_MAX:
            raise ValueError(f"{len(data)} bytes of BTF")
        self._data = BtfData(data)
        self.size: Final = len(data)
        self._made: dict[int, Type | None] = {}
        self._left = _MEMBERS_MAX
        self._kinds: dict[int, Callable[[int, int], Type | None]] = {
            btf_data.INT: self._int,
            btf_data.PTR: lambda at, depth: Pointer(_POINTER),
            btf_data.ARRAY: self._array,
            btf_data.STRUCT: self._several,
            btf_data.UNION: self._several,
            btf_data.ENUM: self._enum,
            ENUM64: self._enum,
            btf_data.VAR: self._var,
            btf_data.DATASEC: self._section,
            btf_data.FLOAT: self._float,
        }

    def type(self, number: int, depth: int = 0) -> Type | None:
        """None: there is no such type, or it has no values."""
        if number not in self._made:
            at = self._data.meant(number)
            make = None if at is None else self._kinds.get(kind_of(self._data.words[at + 1]))
            # In damaged BTF a type may contain itself.
            known = make is not None and depth < _DEPTH_MAX and self._take()
            self._made[number] = make(at, depth + 1) if known and make and at is not None else None
        return self._made[number]

    def _take(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def _name(self, at: int) -> str:
        return printable(self._data.name(self._data.words[at]))

    def _size(self, at: int) -> int:
        return self._data.words[at + 2]

    def _int(self, at: int, depth: int) -> Type:
        size = self._size(at)
        encoding = self._data.words[at + TYPE_WORDS] >> 24
        if size > _WIDEST:
            return Type(size)
        if size == 1 and (encoding & _CHAR or self._name(at) == "char"):
            return Char()
        return Bool(size) if encoding & _BOOL else Scalar(size, signed=bool(encoding & _SIGNED))

    def _float(self, at: int, depth: int) -> Type:
        size = self._size(at)
        return Float(size) if size in Float.CODES else Type(size)

    def _enum(self, at: int, depth: int) -> Type:
        words, info, size = self._data.words, self._data.words[at + 1], self._size(at)
        wide = kind_of(info) == ENUM64
        if not 0 < size <= _POINTER:
            return Type(size)
        names = {}
        for where in self._elements(at, 3 if wide else 2):
            number = words[where + 1] | (words[where + 2] << 32 if wide else 0)
            names[number & (1 << size * _BYTE) - 1] = self._name(where)
        return Enumeration(size, names, signed=kind_flag(info))

    def _elements(self, at: int, words: int) -> Iterator[int]:
        # As many as are worth it.
        first = at + TYPE_WORDS
        for n in range(count_of(self._data.words[at + 1])):
            if not self._take():
                return
            yield first + n * words

    def _array(self, at: int, depth: int) -> Type | None:
        number, _, count = self._data.words[at + TYPE_WORDS : at + TYPE_WORDS + 3]
        element = self.type(number, depth)
        if element is None:
            return None
        if isinstance(element, Char):
            return Chars(count)
        if type(element) is Scalar and element.size == 1:
            return Type(count)
        return Array(element, count)

    def _several(self, at: int, depth: int) -> Type:
        members = []
        words, fields = self._data.words, kind_flag(self._data.words[at + 1])
        for where in self._elements(at, 3):
            place = words[where + 2]
            width = place >> 24 if fields else 0
            place = place & 0xFFFFFF if fields else place
            type_ = self.type(words[where + 1], depth)
            if type_ is None:
                break  # where it ends is not known, nor what is behind it worth much
            name = self._name(where)
            if isinstance(type_, Scalar) and type_.size and (width or place % _BYTE):
                width = min(width or type_.size * _BYTE, type_.size * _BYTE)
                type_ = Bits(type_, place % _BYTE, width)
            members.append(Member(name, place // _BYTE, type_))
        return Several(self._size(at), members)

    def _var(self, at: int, depth: int) -> Type | None:
        return self.type(self._size(at), depth)

    def _section(self, at: int, depth: int) -> Type:
        members = []
        words = self._data.words
        for where in self._elements(at, 3):
            number, offset, size = words[where : where + 3]
            variable = self._data.meant(number)
            name = "" if variable is None else self._name(variable)
            members.append(Member(name, offset, self.type(number, depth) or Type(size)))
        return Several(self._size(at), members)


def contents(types: Types, about: MapBtf) -> Contents | None:
    """None: it is made of bytes."""
    key = _typed(types, about.key_type_id, about.key_size, about.key_size)
    stride = about.value_size
    if about.type in _PER_CPU:
        stride = (stride + 7) & ~7
    value = _typed(types, about.value_type_id, about.value_size, stride)
    return Contents(key or KEYS, value or VALUES) if key or value else None


def _typed(types: Types, number: int, size: int, stride: int) -> Content | None:
    # The kernel has seen to it that a map's types are as large as what is in it.
    type_ = types.type(number) if number else None
    return Typed(type_, stride) if type_ and size and type_.size == size else None
