# SPDX-License-Identifier: Apache-2.0
"""What the running kernel's BTF knows that our tables may not: names of constants.

/sys/kernel/btf/vmlinux is a few MB with over a hundred thousand types. Walking
all of them takes Python a second; finding an enum by its name takes milliseconds.

Format: Documentation/bpf/btf.rst of the kernel, include/uapi/linux/btf.h.
"""

from collections.abc import Iterable
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
_KIND_ENUM: Final = 6
_ENUM_SIZE: Final = 4  # bytes; a wider one is another kind
_MAX_ENUMERATORS: Final = 4096


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
        self._types = data[header + type_off : header + type_off + type_len]
        self._strings = data[header + str_off : header + str_off + str_len]

    def enum(self, name: str) -> dict[int, str]:
        """The constants of ``enum name`` by value, the first name of each; empty if unknown.

        The type is found by the number that stands for its name. Other fields may
        hold the same number, so every hit is checked to be an enum of that name.
        """
        name_offset = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not name_offset:
            return {}
        needle = pack("=I", name_offset)
        at = self._types.find(needle)
        while at >= 0:
            if at % 4 == 0 and (found := self._enumerators(at)):
                return found
            at = self._types.find(needle, at + 1)
        return {}

    def _enumerators(self, at: int) -> dict[int, str]:
        if at + _TYPE.size > len(self._types):
            return {}
        _, info, size = _TYPE.unpack_from(self._types, at)
        count = info & 0xFFFF
        kind = info >> 24 & 0x1F
        end = at + _TYPE.size + count * _ENUMERATOR.size
        if kind != _KIND_ENUM or size != _ENUM_SIZE or not 0 < count <= _MAX_ENUMERATORS:
            return {}
        if end > len(self._types):
            return {}
        names: dict[int, str] = {}
        for offset, value in _ENUMERATOR.iter_unpack(self._types[at + _TYPE.size : end]):
            name = self._string(offset)
            if not name.startswith(("BPF_", "__")):
                return {}
            if name.startswith("BPF_") and value >= 0:
                names.setdefault(value, name)
        return names

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("ascii", "replace")


def kernel_names(enums: Iterable[str], path: Path = VMLINUX) -> dict[str, dict[int, str]]:
    """The constants of each enum, by its C name.

    :raises OSError: the kernel was built without BTF, or does not show it to us.
    :raises ValueError: the file is not BTF.
    """
    btf = Btf(path.read_bytes())
    return {name: constants for name in enums if (constants := btf.enum(name))}
