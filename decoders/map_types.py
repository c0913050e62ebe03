# SPDX-License-Identifier: Apache-2.0
"""What the keys and values of maps are, as the BTF says that the maps were made with."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from ..events.memory import Content, InMap
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

BTF_MAX: Final = 1 << 18
"""Bytes of BTF that are looked at: more than large programs have, as nobody should be able to
keep us busy.
"""
_ROOM: Final = 1 << 15
"""What one type may take, as :attr:`Built.weight` has it."""
_EACH: Final = 16
"""What a member or a constant takes there, beside its name."""
_DEPTH_MAX: Final = 40  # the kernel's is 32
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


class Built(NamedTuple):
    type: Type | None
    """None: there is none, or it is too much."""
    weight: int
    """How much it is: what it takes to make, to keep and to show all grows with it."""


class Types:
    """The types of one BTF.

    :raises ValueError: it is not BTF.
    """

    def __init__(self, data: bytes) -> None:
        self._data = BtfData(data)
        self.size: Final = len(data)

    def built(self, number: int) -> Built:
        """A type and all that is in it."""
        builder = _Builder(self._data)
        try:
            return Built(builder.type(number), builder.weight)
        except _TooMuch:
            return Built(None, builder.weight)


class _TooMuch(Exception):
    """Half of a type would look like all of it."""


class _Builder:
    def __init__(self, data: BtfData) -> None:
        self._data = data
        self._made: dict[int, Type] = {}
        self.weight = 0
        self._kinds: dict[int, Callable[[int, int], Type]] = {
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

    def type(self, number: int, depth: int = 0) -> Type:
        if number not in self._made:
            at = self._data.meant(number)
            make = None if at is None else self._kinds.get(kind_of(self._data.words[at + 1]))
            # In damaged BTF a type may contain itself, or be none that has values.
            if at is None or make is None or depth > _DEPTH_MAX:
                raise _TooMuch
            self._take(_EACH)
            self._made[number] = make(at, depth + 1)
        return self._made[number]

    def _take(self, weight: int) -> None:
        self.weight += weight
        if self.weight > _ROOM:
            raise _TooMuch

    def _name(self, at: int) -> str:
        name = self._data.name(self._data.words[at])
        self._take(_EACH + len(name))
        return printable(name)

    def _size(self, at: int) -> int:
        return self._data.words[at + 2]

    def _elements(self, at: int, words: int) -> Iterator[int]:
        first = at + TYPE_WORDS
        return (first + n * words for n in range(count_of(self._data.words[at + 1])))

    def _int(self, at: int, depth: int) -> Type:
        size = self._size(at)
        about = self._data.words[at + TYPE_WORDS]
        encoding, offset, bits = about >> 24, about >> 16 & 0xFF, about & 0xFF
        if not 0 < size <= _WIDEST:
            return Type(size)
        signed = bool(encoding & _SIGNED)
        if encoding & _BOOL:
            number: Scalar = Bool(size)
        elif size == 1 and (encoding & _CHAR or self._data.name(self._data.words[at]) == b"char"):
            number = Char(size, signed=signed)
        else:
            number = Scalar(size, signed=signed)
        if (offset, bits) == (0, size * _BYTE):
            return number
        if not 0 < bits <= size * _BYTE - offset:
            return Type(size)
        return Bits(number, offset, bits, size)

    def _float(self, at: int, depth: int) -> Type:
        size = self._size(at)
        return Float(size) if size in Float.CODES else Type(size)

    def _enum(self, at: int, depth: int) -> Type:
        words, info, size = self._data.words, self._data.words[at + 1], self._size(at)
        wide = kind_of(info) == ENUM64
        if not 0 < size <= _POINTER:
            return Type(size)
        names: dict[int, str] = {}
        for where in self._elements(at, 3 if wide else 2):
            number = words[where + 1] | (words[where + 2] << 32 if wide else 0)
            names.setdefault(number & (1 << size * _BYTE) - 1, self._name(where))
        return Enumeration(size, names, signed=kind_flag(info))

    def _array(self, at: int, depth: int) -> Type:
        number, _, count = self._data.words[at + TYPE_WORDS : at + TYPE_WORDS + 3]
        element = self.type(number, depth)
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
            type_ = self.type(words[where + 1], depth).within(place % _BYTE, width)
            members.append(Member(self._name(where), place // _BYTE, type_))
        return Several(self._size(at), members)

    def _var(self, at: int, depth: int) -> Type:
        return self.type(self._size(at), depth)

    def _section(self, at: int, depth: int) -> Type:
        members = []
        words = self._data.words
        for where in self._elements(at, 3):
            number, offset, _ = words[where : where + 3]
            variable = self._data.meant(number)
            name = "" if variable is None else self._name(variable)
            members.append(Member(name, offset, self.type(number, depth)))
        return Several(self._size(at), members)


Find = Callable[[int, int], Type | None]
"""The type with this id in the BTF with that one (``btf_id``, ``type_id``)."""


class KnownMap:
    """How to spell what is in a map that was made with BTF.

    :param find: asked when something is to be spelled.
    """

    def __init__(self, about: MapBtf, find: Find) -> None:
        self._about = about
        self._find = find
        self._contents: dict[tuple[InMap, bool], Content] = {}

    def instead_of(self, content: Content, *, one_value: bool) -> Content:
        """:param one_value: the call is about that of one CPU, or is one for all
        (``BPF_F_CPU``, ``BPF_F_ALL_CPUS``).
        """
        if not isinstance(content, InMap):
            return content
        key = content, one_value
        if key not in self._contents:
            self._contents[key] = self._made(content, one_value=one_value)
        return self._contents[key]

    def _made(self, like: InMap, *, one_value: bool) -> Content:
        about = self._about
        number, size = about.key_type_id, about.key_size
        listed = like.several
        stride = size
        if like.values:
            number, stride = about.value_type_id, about.value_size
            size = stride
            if about.type in _PER_CPU and not one_value:
                stride = (size + 7) & ~7
                listed = True
        if not number or not size:
            return like
        return Typed(like, partial(self._of_size, number, size), stride, listed=listed)

    def _of_size(self, number: int, size: int) -> Type | None:
        # The kernel has seen to it that a map's types are as large as what is in it.
        found = self._find(self._about.btf_id, number)
        return found if found and found.size == size else None
