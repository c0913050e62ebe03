# SPDX-License-Identifier: Apache-2.0
"""What only the running kernel's BTF knows: names of new constants, places of members.

/sys/kernel/btf/vmlinux is a few MB with over a hundred thousand types. Making objects
of all of them takes Python a second. An enum is found by its name in milliseconds,
without a walk; for structs one walk notes where each type begins, and nothing else.

Format: Documentation/bpf/btf.rst of the kernel, include/uapi/linux/btf.h.
"""

from array import array
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from struct import Struct, pack
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

HELPERS: Final = "bpf_func_id"
"""The enum of the helper functions that this kernel has."""

_HEADER: Final = Struct("=HBBIIIII")  # magic, version, flags, hdr_len, then two sections
_MAGIC: Final = 0xEB9F
_TYPE: Final = Struct("=III")  # name_off, info, size
_ENUMERATOR: Final = Struct("=Ii")  # name_off, val
_MEMBER: Final = Struct("=III")  # name_off, type, offset
_WORD: Final = 4  # bytes; all of the types section is made of these
_KIND_STRUCT: Final = 4
_KIND_UNION: Final = 5
_KIND_ENUM: Final = 6
_KIND_TYPEDEF: Final = 8
_KIND_FUNC: Final = 12
_KIND_DECL_TAG: Final = 17
_MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag: the third word is the type meant."""
_TYPE_WORDS: Final = 3
_MORE_WORDS: Final = {
    1: (1, 0), 2: (0, 0), 3: (3, 0), 4: (0, 3), 5: (0, 3), 6: (0, 2), 7: (0, 0), 8: (0, 0),
    9: (0, 0), 10: (0, 0), 11: (0, 0), 12: (0, 0), 13: (0, 2), 14: (1, 0), 15: (0, 3),
    16: (0, 0), 17: (1, 0), 18: (0, 0), 19: (0, 3),
}  # fmt: skip
"""By kind: words behind struct btf_type, and words for each of its vlen elements."""
_ENUM_SIZE: Final = 4  # bytes; a wider one is another kind
_MAX_ENUMERATORS: Final = 4096
_MAX_MODIFIERS: Final = 32  # in a row, as the kernel's own MAX_RESOLVE_DEPTH
_MAX_NAMESAKES: Final = 16  # structs of one name; a distribution's kernel has a handful


class _Lengths(dict[int, int]):
    """Words that a type takes, by its info word. There are only some hundred of these.

    :raises KeyError: the kind is unknown.
    """

    def __missing__(self, info: int) -> int:
        fixed, each = _MORE_WORDS[info >> 24 & 0x1F]
        self[info] = length = _TYPE_WORDS + fixed + each * (info & 0xFFFF)
        return length


class Btf:
    """A BTF blob, searched by name.

    :raises ValueError: the blob is not BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise ValueError("too short for BTF")
        magic, _, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not BTF of this machine's byte order")
        # Copies of the sections would be as large as the blob: keep their bounds.
        self._data = data
        self._types = min(header + type_off, len(data))
        self._types_end = min(header + type_off + type_len, len(data))
        self._strings = min(header + str_off, len(data))
        self._strings_end = min(header + str_off + str_len, len(data))

    def enum(self, name: str) -> dict[int, str]:
        """The constants of ``enum name`` by value, the first name of each; empty if unknown.

        The type is found by the number that stands for its name. Other fields may
        hold the same number, so every hit is checked to be an enum of that name.
        """
        name_offset = self._name_offset(name)
        if not name_offset:
            return {}
        needle = pack("=I", name_offset)
        at = self._data.find(needle, self._types, self._types_end)
        while at >= 0:
            if (at - self._types) % _WORD == 0 and (found := self._enumerators(at)):
                return found
            at = self._data.find(needle, at + 1, self._types_end)
        return {}

    def offsets(self, members: Iterable[str]) -> dict[str, int]:
        """Offsets in bytes of members of structs, by the names given; unknown ones are left out.

        A name is ``struct.member``, as ``task_struct.files``. It may go on through
        members that are structs or unions themselves (``file.f_path.dentry``), not
        through pointers or arrays. Members of unnamed structs and unions are the outer
        struct's, as in C. Of structs with one name, the first that has the member
        counts. A bitfield has an offset if it begins with a byte.
        """
        paths = {
            member: names
            for member in members
            if len(names := member.split(".")) > 1 and all(map(str.isidentifier, names))
        }
        structs = self._types_named({names[0] for names in paths.values()}, _KIND_STRUCT)
        found: dict[str, int] = {}
        for member, (name, *inner) in paths.items():
            for number in structs[name]:
                if (offset := self._offset(self._places[number - 1], inner)) is not None:
                    found[member] = offset
                    break
        return found

    def struct_size(self, name: str) -> int | None:
        """Bytes of the first ``struct name``, or None if there is no such struct."""
        found = self._types_named({name}, _KIND_STRUCT)[name]
        return self._words[self._places[found[0] - 1] + 2] if found else None

    def typedefs(self, names: Iterable[str]) -> dict[str, int]:
        """The ids of type definitions, by the names given; unknown ones are left out."""
        found = self._types_named(set(names), _KIND_TYPEDEF)
        return {name: ids[0] for name, ids in found.items() if ids}

    def functions(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The ids of functions, and how many words of 8 bytes their arguments take, by the names
        given; unknown ones are left out.

        A struct that is passed by value takes as many as it has.
        """
        names = list(names)
        found = self._types_named(set(names), _KIND_FUNC)
        first = {name: ids[0] for name in names if (ids := found.get(name))}  # in the order given
        return {name: (number, self._argument_words(number)) for name, number in first.items()}

    def tagged(self, tag: str) -> dict[int, str]:
        """The functions that a declaration tag marks, names by id."""
        wanted = self._name_offset(tag)
        words, places = self._words, self._places
        marked = [
            words[at + 2]
            for at in places
            if wanted and words[at] == wanted and _kind(words[at + 1]) == _KIND_DECL_TAG
        ]
        return {
            number: self._string(words[places[number - 1]])
            for number in marked
            if 0 < number <= len(places) and _kind(words[places[number - 1] + 1]) == _KIND_FUNC
        }

    def _argument_words(self, function: int) -> int:
        words, places = self._words, self._places
        proto = words[places[function - 1] + 2]
        if not 0 < proto <= len(places):
            return 0
        at = places[proto - 1]
        parameters = (words[at + _TYPE_WORDS + 2 * n + 1] for n in range(words[at + 1] & 0xFFFF))
        return sum(self._argument_size(number) for number in parameters)

    def _argument_size(self, number: int) -> int:
        # In words; all but structs and unions fit into one.
        record = self._record(number)
        return 1 if record is None else (self._words[record + 2] + 7) // 8

    @cached_property
    def _words(self) -> "memoryview[int]":
        """The section of types."""
        end = self._types_end - (self._types_end - self._types) % _WORD
        return memoryview(self._data)[self._types : end].cast("I")

    @cached_property
    def _places(self) -> "array[int]":
        """Where each type begins, in words; that of type 1 is the first.

        Ends before a kind that we do not know, as its length is unknown as well.
        """
        words = self._words
        places = array("I")
        append = places.append
        lengths = _Lengths()
        at = 0
        try:
            while True:
                length = lengths[words[at + 1]]
                append(at)
                at += length
        except LookupError:
            if places and at > len(words):
                places.pop()  # cut short
        return places

    def _types_named(self, names: set[str], kind: int) -> dict[str, list[int]]:
        """The ids of the types of each name."""
        words = self._words
        found: dict[str, list[int]] = {name: [] for name in names}
        by_offset = {self._name_offset(name): found[name] for name in names}
        by_offset.pop(0, None)  # the names that are nowhere
        numbered = enumerate(self._places, 1)
        for number, at in [(n, at) for n, at in numbered if words[at] in by_offset]:
            same = by_offset[words[at]]
            if _kind(words[at + 1]) == kind and len(same) < _MAX_NAMESAKES:
                same.append(number)
        return found

    def _offset(self, at: int, names: list[str]) -> int | None:
        """In bytes, within the struct at word ``at``."""
        size = self._words[at + 2]
        inner: int | None = at
        bits = 0
        for name in names:
            if inner is None or not (member := self._member(inner, name)):
                return None
            place, number = member
            bits += place
            inner = self._record(number)
        # Only in damaged BTF is a member outside its struct.
        return bits // 8 if bits % 8 == 0 and bits // 8 <= size else None

    def _member(self, at: int, name: str) -> tuple[int, int] | None:
        """Offset in bits, and type, of a member of the struct or union at word ``at``."""
        wanted = name.encode() + b"\0"
        # In damaged BTF a struct may contain itself: look into each one once.
        records = {at: 0}
        queue = [at]
        for record in queue:
            info = self._words[record + 1]
            begin = self._types + record * _WORD + _TYPE.size
            end = begin + (info & 0xFFFF) * _MEMBER.size
            for name_offset, number, offset in _MEMBER.iter_unpack(self._data[begin:end]):
                # With kind_flag, the upper 8 bits are the width of a bitfield.
                place = records[record] + (offset & 0xFFFFFF if info >> 31 else offset)
                text = self._strings + name_offset
                if self._data.startswith(wanted, text, self._strings_end):
                    return place, number
                if self._data.startswith(b"\0", text, self._strings_end):
                    inner = self._record(number)
                    if inner is not None and inner not in records:
                        records[inner] = place
                        queue.append(inner)
        return None

    def _record(self, number: int) -> int | None:
        """The word where a struct or union begins, behind modifiers; None if it is neither."""
        for _ in range(_MAX_MODIFIERS):
            if not 0 < number <= len(self._places):
                return None
            at = self._places[number - 1]
            kind = _kind(self._words[at + 1])
            if kind in (_KIND_STRUCT, _KIND_UNION):
                return at
            if kind not in _MODIFIERS:
                return None
            number = self._words[at + 2]
        return None

    def _enumerators(self, at: int) -> dict[int, str]:
        if at + _TYPE.size > self._types_end:
            return {}
        _, info, size = _TYPE.unpack_from(self._data, at)
        count = info & 0xFFFF
        end = at + _TYPE.size + count * _ENUMERATOR.size
        if _kind(info) != _KIND_ENUM or size != _ENUM_SIZE or not 0 < count <= _MAX_ENUMERATORS:
            return {}
        if end > self._types_end:
            return {}
        names: dict[int, str] = {}
        for offset, value in _ENUMERATOR.iter_unpack(self._data[at + _TYPE.size : end]):
            name = self._string(offset)
            if not name.startswith(("BPF_", "__")):
                return {}
            if name.startswith("BPF_") and value >= 0:
                names.setdefault(value, name)
        return names

    def _name_offset(self, name: str) -> int:
        """The number that stands for a name, which BTF holds once; 0 if it does not."""
        at = self._data.find(b"\0" + name.encode() + b"\0", self._strings, self._strings_end)
        return at + 1 - self._strings if at >= 0 else 0

    def _string(self, offset: int) -> str:
        begin = self._strings + offset
        end = self._data.find(b"\0", begin, self._strings_end)
        return self._data[begin : end if end >= 0 else self._strings_end].decode("ascii", "replace")


def _kind(info: int) -> int:
    return info >> 24 & 0x1F


def kernel_names(enums: Iterable[str], path: Path = VMLINUX) -> dict[str, dict[int, str]]:
    """The constants of each enum, by its C name.

    :raises OSError: the kernel was built without BTF, or does not show it to us.
    :raises ValueError: the file is not BTF.
    """
    btf = Btf(path.read_bytes())
    return {name: constants for name in enums if (constants := btf.enum(name))}
