# SPDX-License-Identifier: Apache-2.0
"""A whole BTF blob, read type by type: slower than the tracer's reader, and independent of it.

Format: Documentation/bpf/btf.rst of the kernel.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

_HEADER = Struct("=HBBIIIII")
_TYPE = Struct("=III")
_MEMBER = Struct("=III")
_ENUMERATOR = {6: Struct("=Ii"), 19: Struct("=III")}

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _ENUM64 = 1, 2, 3, 4, 5, 6, 19
_ALIASES = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag
# Bytes behind struct btf_type: for the type and for each of its vlen elements.
_EXTRA = {
    _INT: (4, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8),
    13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0), _ENUM64: (0, 12),
}  # fmt: skip


class _Type(NamedTuple):
    kind: int
    name: str
    size: int
    """Or the type that is referred to."""
    vlen: int
    flag: bool
    extra: int
    """Offset of what follows struct btf_type."""


class Member(NamedTuple):
    offset: int
    size: int


class Btf:
    """The types of a kernel."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        _, _, _, start, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        self._data = data[start + type_off : start + type_off + type_len]
        self._strings = data[start + str_off : start + str_off + str_len]
        self._types = [_Type(0, "", 0, 0, False, 0), *self._walk()]

    def enum(self, name: str) -> dict[str, int]:
        """The constants of ``enum name`` by name; none if no code of this kernel uses it."""
        found = self._find(name, _ENUM)
        return dict(self._constants(found)) if found else {}

    def enums(self) -> list[dict[str, int]]:
        """Those of every enum, with a name or without."""
        return [dict(self._constants(type_)) for type_ in self._types if type_.kind in _ENUMERATOR]

    def union(self, name: str) -> dict[str, Member]:
        """Every member by its C path, that of unnamed structs and unions included."""
        found = self._find(name, _UNION)
        return dict(self._members(found, "", 0)) if found else {}

    def _walk(self) -> Iterator[_Type]:
        at = 0
        while at < len(self._data):
            name, info, size = _TYPE.unpack_from(self._data, at)
            at += _TYPE.size
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            yield _Type(kind, self._string(name), size, vlen, bool(info >> 31), at)
            fixed, each = _EXTRA.get(kind, (0, 0))
            at += fixed + each * vlen

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(0, offset)].decode()

    def _find(self, name: str, kind: int) -> _Type | None:
        wanted = (name, kind)
        return next((type_ for type_ in self._types if (type_.name, type_.kind) == wanted), None)

    def _constants(self, type_: _Type) -> Iterator[tuple[str, int]]:
        packing = _ENUMERATOR[type_.kind]
        end = type_.extra + packing.size * type_.vlen
        for name, *words in packing.iter_unpack(self._data[type_.extra : end]):
            yield self._string(name), words[0] | words[1] << 32 if len(words) > 1 else words[0]

    def _members(self, type_: _Type, path: str, base: int) -> Iterator[tuple[str, Member]]:
        end = type_.extra + _MEMBER.size * type_.vlen
        for name, number, place in _MEMBER.iter_unpack(self._data[type_.extra : end]):
            bits = place & 0xFFFFFF if type_.flag else place
            offset = base + bits // 8
            member = self._resolved(number)
            inner = path + self._string(name)
            if member.kind in (_STRUCT, _UNION):
                yield from self._members(member, f"{inner}." if name else path, offset)
            elif name:
                yield inner, Member(offset, self._size(member))

    def _resolved(self, number: int) -> _Type:
        type_ = self._types[number]
        while type_.kind in _ALIASES:
            type_ = self._types[type_.size]
        return type_

    def _size(self, type_: _Type) -> int:
        if type_.kind == _ARRAY:
            element, _, count = _TYPE.unpack_from(self._data, type_.extra)
            return self._size(self._resolved(element)) * int(count)
        return 8 if type_.kind == _PTR else type_.size
