# SPDX-License-Identifier: Apache-2.0
"""BTF as a compiler would make it, type by type.

Format: Documentation/bpf/btf.rst of the kernel.
"""

import struct
from collections.abc import Iterable, Sequence

SIGNED, CHAR, BOOL = 1, 2, 4
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_CONST, _VAR, _DATASEC, _FLOAT, _ENUM64 = 10, 14, 15, 16, 19


class MadeBtf:
    """Each method adds a type and returns its id."""

    def __init__(self) -> None:
        self._strings = b"\0"
        self._types: list[bytes] = []

    def data(self) -> bytes:
        types = b"".join(self._types)
        header = (0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return struct.pack("=HBBIIIII", *header) + types + self._strings

    def add(
        self, kind: int, name: str = "", third: int = 0, vlen: int = 0, *, flag: bool = False,
        extra: bytes = b"",
    ) -> int:  # fmt: skip
        """:param third: the size, or the type that is meant."""
        info = flag << 31 | kind << 24 | vlen
        self._types.append(struct.pack("=III", self._name(name), info, third) + extra)
        return len(self._types)

    def integer(
        self, name: str, size: int, encoding: int = 0, *, offset: int = 0, bits: int = 0
    ) -> int:
        """:param bits: those that count, behind ``offset`` others, if that is not all."""
        about = encoding << 24 | offset << 16 | (bits or size * 8)
        return self.add(_INT, name, size, extra=struct.pack("=I", about))

    def pointer(self, to: int = 0) -> int:
        return self.add(_PTR, third=to)

    def array(self, element: int, count: int, index: int = 1) -> int:
        return self.add(_ARRAY, extra=struct.pack("=III", element, index, count))

    def struct(
        self, name: str, size: int, members: Iterable[tuple[str, int, int]], *, union: bool = False
    ) -> int:
        """:param members: name, type, and offset in bits."""
        return self._record(_UNION if union else _STRUCT, name, size, members, fields=False)

    def bitfields(self, name: str, size: int, members: Iterable[tuple[str, int, int, int]]) -> int:
        """:param members: the same, and the width in bits; 0: it is none."""
        shifted = [(name, type_, width << 24 | at) for name, type_, at, width in members]
        return self._record(_STRUCT, name, size, shifted, fields=True)

    def enum(
        self, name: str, size: int, names: Sequence[tuple[str, int]], *, signed: bool = False
    ) -> int:
        extra = b"".join(
            struct.pack("=II", self._name(name), number & 0xFFFFFFFF) for name, number in names
        )
        return self.add(_ENUM, name, size, len(names), flag=signed, extra=extra)

    def enum64(self, name: str, names: Sequence[tuple[str, int]]) -> int:
        extra = b"".join(
            struct.pack("=III", self._name(name), number & 0xFFFFFFFF, number >> 32)
            for name, number in names
        )
        return self.add(_ENUM64, name, 8, len(names), extra=extra)

    def typedef(self, name: str, of: int) -> int:
        return self.add(_TYPEDEF, name, of)

    def const(self, of: int) -> int:
        return self.add(_CONST, third=of)

    def forward(self, name: str) -> int:
        return self.add(_FWD, name)

    def real(self, name: str, size: int) -> int:
        return self.add(_FLOAT, name, size)

    def variable(self, name: str, of: int) -> int:
        return self.add(_VAR, name, of, extra=struct.pack("=I", 1))

    def section(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """:param variables: each with its offset and size in bytes."""
        extra = b"".join(struct.pack("=III", *each) for each in variables)
        return self.add(_DATASEC, name, size, len(variables), extra=extra)

    def _record(
        self, kind: int, name: str, size: int, members: Iterable[tuple[str, int, int]], *,
        fields: bool,
    ) -> int:  # fmt: skip
        packed = [struct.pack("=III", self._name(name), type_, at) for name, type_, at in members]
        return self.add(kind, name, size, len(packed), flag=fields, extra=b"".join(packed))

    def _name(self, name: str) -> int:
        if not name:
            return 0
        at = len(self._strings)
        self._strings += name.encode() + b"\0"
        return at


def of_a_map() -> tuple[bytes, int, int]:
    """A BTF, the type of keys of 20 bytes, and that of values of 24::

    struct { u32 pid; char comm[16]; }
    struct { u64 count; enum { IDLE, BUSY } state; u8 mac[6]; s16 nice; u32 x:3, y:29; }
    """
    btf = MadeBtf()
    u32 = btf.integer("unsigned int", 4)
    u64 = btf.integer("unsigned long long", 8)
    u8 = btf.integer("unsigned char", 1)
    s16 = btf.integer("short", 2, SIGNED)
    char = btf.integer("char", 1, SIGNED)
    comm, mac = btf.array(char, 16), btf.array(u8, 6)
    state = btf.enum("state", 4, [("IDLE", 0), ("BUSY", 1)])
    key = btf.struct("key", 20, [("pid", u32, 0), ("comm", comm, 32)])
    value = btf.bitfields("value", 24, [
        ("count", u64, 0, 0), ("state", state, 64, 0), ("mac", mac, 96, 0),
        ("nice", s16, 144, 0), ("x", u32, 160, 3), ("y", u32, 163, 29),
    ])  # fmt: skip
    return btf.data(), key, value


KEY = struct.pack("=I16s", 42, b"sshd")
VALUE = struct.pack("=QI6shI", 7, 1, bytes.fromhex("0200c0ffee01"), -5, 5 | 9 << 3)
KEY_TEXT = '{pid=42, comm="sshd"}'
VALUE_TEXT = (
    r'{count=7, state=BUSY, mac="\x02\x00\xc0\xff\xee\x01", nice=-5, x=5, y=9}'
)  # fmt: skip
