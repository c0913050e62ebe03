# SPDX-License-Identifier: Apache-2.0
"""What only the running kernel's BTF knows: names of new constants, places of members.

/sys/kernel/btf/vmlinux is a few MB with over a hundred thousand types. An enum is found by
its name in milliseconds, without a walk; for structs there is one.
"""

from collections.abc import Iterable
from pathlib import Path
from struct import Struct, pack
from typing import Final

from ..decoders.btf_data import (
    DECL_TAG,
    ENUM,
    FUNC,
    STRUCT,
    TYPE_WORDS,
    TYPEDEF,
    UNION,
    WORD,
    BtfData,
    count_of,
    kind_flag,
    kind_of,
)

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

HELPERS: Final = "bpf_func_id"
"""The enum of the helper functions that this kernel has."""

_TYPE: Final = Struct("=III")  # name_off, info, size
_ENUMERATOR: Final = Struct("=Ii")  # name_off, val
_MEMBER: Final = Struct("=III")  # name_off, type, offset
_ENUM_SIZE: Final = 4  # bytes; a wider one is another kind
_MAX_ENUMERATORS: Final = 4096
_MAX_NAMESAKES: Final = 16  # structs of one name; a distribution's kernel has a handful


class Btf(BtfData):
    """A BTF blob, searched by name.

    :raises ValueError: the blob is not BTF.
    """

    def enum(self, name: str) -> dict[int, str]:
        """The constants of ``enum name`` by value, the first name of each; empty if unknown.

        The type is found by the number that stands for its name. Other fields may
        hold the same number, so every hit is checked to be an enum of that name.
        """
        name_offset = self._name_offset(name)
        if not name_offset:
            return {}
        needle = pack("=I", name_offset)
        at = self.data.find(needle, self.types, self.types_end)
        while at >= 0:
            if (at - self.types) % WORD == 0 and (found := self._enumerators(at)):
                return found
            at = self.data.find(needle, at + 1, self.types_end)
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
        structs = self._types_named({names[0] for names in paths.values()}, STRUCT)
        found: dict[str, int] = {}
        for member, (name, *inner) in paths.items():
            for number in structs[name]:
                if (offset := self._offset(self.places[number - 1], inner)) is not None:
                    found[member] = offset
                    break
        return found

    def struct_size(self, name: str) -> int | None:
        """Bytes of the first ``struct name``, or None if there is no such struct."""
        found = self._types_named({name}, STRUCT)[name]
        return self.words[self.places[found[0] - 1] + 2] if found else None

    def typedefs(self, names: Iterable[str]) -> dict[str, int]:
        """The ids of type definitions, by the names given; unknown ones are left out."""
        found = self._types_named(set(names), TYPEDEF)
        return {name: ids[0] for name, ids in found.items() if ids}

    def functions(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The ids of functions, and how many words of 8 bytes their arguments take, by the names
        given; unknown ones are left out.

        A struct that is passed by value takes as many as it has.
        """
        names = list(names)
        found = self._types_named(set(names), FUNC)
        first = {name: ids[0] for name in names if (ids := found.get(name))}  # in the order given
        return {name: (number, self._argument_words(number)) for name, number in first.items()}

    def tagged(self, tag: str) -> dict[int, str]:
        """The functions that a declaration tag marks, names by id."""
        wanted = self._name_offset(tag)
        words, places = self.words, self.places
        marked = [
            words[at + 2]
            for at in places
            if wanted and words[at] == wanted and kind_of(words[at + 1]) == DECL_TAG
        ]
        return {
            number: self._string(words[places[number - 1]])
            for number in marked
            if 0 < number <= len(places) and kind_of(words[places[number - 1] + 1]) == FUNC
        }

    def _argument_words(self, function: int) -> int:
        words, places = self.words, self.places
        proto = words[places[function - 1] + 2]
        if not 0 < proto <= len(places):
            return 0
        at = places[proto - 1]
        parameters = (words[at + TYPE_WORDS + 2 * n + 1] for n in range(count_of(words[at + 1])))
        return sum(self._argument_size(number) for number in parameters)

    def _argument_size(self, number: int) -> int:
        # In words; all but structs and unions fit into one.
        record = self._record(number)
        return 1 if record is None else (self.words[record + 2] + 7) // 8

    def _types_named(self, names: set[str], kind: int) -> dict[str, list[int]]:
        """The ids of the types of each name."""
        words = self.words
        found: dict[str, list[int]] = {name: [] for name in names}
        by_offset = {self._name_offset(name): found[name] for name in names}
        by_offset.pop(0, None)  # the names that are nowhere
        numbered = enumerate(self.places, 1)
        for number, at in [(n, at) for n, at in numbered if words[at] in by_offset]:
            same = by_offset[words[at]]
            if kind_of(words[at + 1]) == kind and len(same) < _MAX_NAMESAKES:
                same.append(number)
        return found

    def _offset(self, at: int, names: list[str]) -> int | None:
        """In bytes, within the struct at word ``at``."""
        size = self.words[at + 2]
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
            info = self.words[record + 1]
            begin = self.types + record * WORD + _TYPE.size
            end = begin + count_of(info) * _MEMBER.size
            for name_offset, number, offset in _MEMBER.iter_unpack(self.data[begin:end]):
                # With kind_flag, the upper 8 bits are the width of a bitfield.
                place = records[record] + (offset & 0xFFFFFF if kind_flag(info) else offset)
                text = self.strings + name_offset
                if self.data.startswith(wanted, text, self.strings_end):
                    return place, number
                if self.data.startswith(b"\0", text, self.strings_end):
                    inner = self._record(number)
                    if inner is not None and inner not in records:
                        records[inner] = place
                        queue.append(inner)
        return None

    def _record(self, number: int) -> int | None:
        """The word where a struct or union begins, behind modifiers; None if it is neither."""
        at = self.meant(number)
        is_record = at is not None and kind_of(self.words[at + 1]) in (STRUCT, UNION)
        return at if is_record else None

    def _enumerators(self, at: int) -> dict[int, str]:
        if at + _TYPE.size > self.types_end:
            return {}
        _, info, size = _TYPE.unpack_from(self.data, at)
        count = count_of(info)
        end = at + _TYPE.size + count * _ENUMERATOR.size
        if kind_of(info) != ENUM or size != _ENUM_SIZE or not 0 < count <= _MAX_ENUMERATORS:
            return {}
        if end > self.types_end:
            return {}
        names: dict[int, str] = {}
        for offset, value in _ENUMERATOR.iter_unpack(self.data[at + _TYPE.size : end]):
            name = self._string(offset)
            if not name.startswith(("BPF_", "__")):
                return {}
            if name.startswith("BPF_") and value >= 0:
                names.setdefault(value, name)
        return names

    def _name_offset(self, name: str) -> int:
        """The number that stands for a name, which BTF holds once; 0 if it does not."""
        at = self.data.find(b"\0" + name.encode() + b"\0", self.strings, self.strings_end)
        return at + 1 - self.strings if at >= 0 else 0

    def _string(self, offset: int) -> str:
        return self.name(offset).decode("ascii", "replace")


def kernel_names(enums: Iterable[str], path: Path = VMLINUX) -> dict[str, dict[int, str]]:
    """The constants of each enum, by its C name.

    :raises OSError: the kernel was built without BTF, or does not show it to us.
    :raises ValueError: the file is not BTF.
    """
    btf = Btf(path.read_bytes())
    return {name: constants for name in enums if (constants := btf.enum(name))}
