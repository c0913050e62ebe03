# SPDX-License-Identifier: Apache-2.0
"""BTF, the types of a program or of the kernel: a blob in which they are numbered from 1.

A blob may have over a hundred thousand of them, and making objects of all takes Python a
second: one walk notes where each begins, and nothing else.

Format: Documentation/bpf/btf.rst of the kernel, include/uapi/linux/btf.h.
"""

from array import array
from functools import cached_property
from struct import Struct
from typing import Final

INT: Final = 1
PTR: Final = 2
ARRAY: Final = 3
STRUCT: Final = 4
UNION: Final = 5
ENUM: Final = 6
TYPEDEF: Final = 8
FUNC: Final = 12
VAR: Final = 14
DATASEC: Final = 15
FLOAT: Final = 16
DECL_TAG: Final = 17
ENUM64: Final = 19

MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag: the third word is the type meant."""
MAX_MODIFIERS: Final = 32
"""In a row, as the kernel's own MAX_RESOLVE_DEPTH."""

WORD: Final = 4
"""Bytes; all of the types section is made of these."""
TYPE_WORDS: Final = 3
"""Of struct btf_type: name_off, info, and a size or another type."""

_HEADER: Final = Struct("=HBBIIIII")  # magic, version, flags, hdr_len, then two sections
_MAGIC: Final = 0xEB9F
_MORE_WORDS: Final = {
    1: (1, 0), 2: (0, 0), 3: (3, 0), 4: (0, 3), 5: (0, 3), 6: (0, 2), 7: (0, 0), 8: (0, 0),
    9: (0, 0), 10: (0, 0), 11: (0, 0), 12: (0, 0), 13: (0, 2), 14: (1, 0), 15: (0, 3),
    16: (0, 0), 17: (1, 0), 18: (0, 0), 19: (0, 3),
}  # fmt: skip
"""By kind: words behind struct btf_type, and words for each of its vlen elements."""


class _Lengths(dict[int, int]):
    """Words that a type takes, by its info word. There are only some hundred of these.

    :raises KeyError: the kind is unknown.
    """

    def __missing__(self, info: int) -> int:
        fixed, each = _MORE_WORDS[kind_of(info)]
        self[info] = length = TYPE_WORDS + fixed + each * count_of(info)
        return length


class BtfData:
    """A blob.

    :raises ValueError: it is not BTF.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise ValueError("too short for BTF")
        magic, _, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not BTF of this machine's byte order")
        # Copies of the sections would be as large as the blob: keep their bounds.
        self.data = data
        self.types = min(header + type_off, len(data))
        self.types_end = min(header + type_off + type_len, len(data))
        self.strings = min(header + str_off, len(data))
        self.strings_end = min(header + str_off + str_len, len(data))

    @cached_property
    def words(self) -> "memoryview[int]":
        """The section of types."""
        end = self.types_end - (self.types_end - self.types) % WORD
        return memoryview(self.data)[self.types : end].cast("I")

    @cached_property
    def places(self) -> "array[int]":
        """Where each type begins, in words; that of type 1 is the first.

        Ends before a kind that we do not know, as its length is unknown as well.
        """
        words = self.words
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

    def meant(self, number: int) -> int | None:
        """The word where a type begins, behind modifiers; None if there is no such type."""
        for _ in range(MAX_MODIFIERS):
            if not 0 < number <= len(self.places):
                return None
            at = self.places[number - 1]
            if kind_of(self.words[at + 1]) not in MODIFIERS:
                return at
            number = self.words[at + 2]
        return None

    def name(self, offset: int) -> bytes:
        """A string by the number that stands for it."""
        begin = self.strings + offset
        end = self.data.find(b"\0", begin, self.strings_end)
        return self.data[begin : end if end >= 0 else self.strings_end]


def kind_of(info: int) -> int:
    """``BTF_INFO_KIND()``"""
    return info >> 24 & 0x1F


def count_of(info: int) -> int:
    """``BTF_INFO_VLEN()``"""
    return info & 0xFFFF


def kind_flag(info: int) -> bool:
    """``BTF_INFO_KFLAG()``: members of a struct may be bitfields; an enum is signed."""
    return bool(info >> 31)
