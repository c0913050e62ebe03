# SPDX-License-Identifier: Apache-2.0
"""What pointers lead to, as strace reads and spells it.

It reads what it is going to show and a byte more, all or nothing: where that is not there,
the address is shown. Ours (events/memory.py) show what there is.
"""

from collections.abc import Callable
from typing import Final

from ..events.call import Blob, PartState
from ..events.memory import Array, Content
from ..events.value import Fd, Style, escape, hexadecimal
from . import insn

_DOTS: Final = "..."


class Text(Content):
    """A string that ends with a NUL.

    :param cap: bytes that are shown at most.
    :param whole: whatever ``-s`` says.
    """

    def __init__(self, cap: int = 1 << 20, *, whole: bool = False) -> None:
        self._cap = cap
        self._whole = whole

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        limit = self._cap if self._whole else min(self._cap, style.strings)
        return _text(blob, limit)


class Counted(Text):
    """The same in a buffer of which the caller says how long it is."""

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        return _text(blob, min(style.strings, blob.wanted))


def _text(blob: Blob, limit: int) -> str:
    string, nul, _ = blob.data.partition(b"\0")
    if nul and len(string) <= limit:
        return f'"{escape(string)}"'
    if len(blob.data) <= limit and blob.state & PartState.UNREADABLE:
        return ""
    return f'"{escape(string[:limit])}"{_DOTS * bool(limit or blob.wanted)}'


class Data(Content):
    """Bytes of which the number is known: ``"\\237\\353\\1\\0"``, or ``"\\x9f\\xeb\\x01\\x00"``."""

    def __init__(self, *, hex_: bool = False) -> None:
        self._hex = hex_

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        limit = style.strings
        if len(blob.data) < min(blob.wanted, limit + 1) and blob.state & PartState.UNREADABLE:
            return ""
        shown = blob.data[:limit]
        spelled = hexadecimal_bytes(shown) if self._hex else escape(shown)
        return f'"{spelled}"{_DOTS * (len(shown) < blob.wanted)}'


class Elements(Array):
    """Numbers of one kind, of which the first must be there."""

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        if blob.wanted and not self.reached(blob):
            return ""
        return super().text(blob, style, dots)


class Answers(Elements):
    """The same of what the kernel wrote: shown if it did."""


class IterInfo(Elements):
    """``union bpf_iter_link_info`` taken for a descriptor of a map, each."""

    def __init__(self, behind: Callable[[int], str] | None = None) -> None:
        """:param behind: what to say of a descriptor behind it."""
        super().__init__(_IterMap(behind), "i")


class _IterMap(Fd):
    def __init__(self, behind: Callable[[int], str] | None) -> None:
        self._behind = behind

    def text(self, value: int, style: Style) -> str:
        behind = self._behind(value) if self._behind else ""
        return f"{{map={{map_fd={value}{behind}}}}}"


class Instructions(Content):
    """At most 4096 of them, and only with ``-v``."""

    _MOST: Final = 4096 * insn.INSN.size

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        if not style.verbose or (blob.wanted and len(blob.data) < insn.INSN.size):
            return ""
        cut = blob.data[: self._MOST]
        missing = _DOTS if len(cut) < len(blob.data) else dots * (len(cut) < blob.wanted)
        return insn.text(cut, missing, style, insn.code_in_parts)

    def reached(self, blob: Blob) -> int:
        return len(blob.data) // insn.INSN.size * insn.INSN.size


def hexadecimal_bytes(data: bytes) -> str:
    """``\\x01\\x02``"""
    return "".join(f"\\x{byte:02x}" for byte in data)


def device(value: int) -> str:
    """A ``dev_t`` as the C library takes it apart: ``makedev(0, 0x4)``."""
    major = value >> 8 & 0xFFF | value >> 32 & 0xFFFFF000
    minor = value & 0xFF | value >> 12 & 0xFFFFFF00
    return f"makedev({hexadecimal(major)}, {hexadecimal(minor)})"
