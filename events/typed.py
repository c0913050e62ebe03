# SPDX-License-Identifier: Apache-2.0
"""Bytes of which the type is known, spelled as C would initialise them: ``{pid=12, comm="sh"}``.

As with other contents (events/memory.py), whatever the bytes are there is a spelling.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

from .call import Blob
from .memory import InMap
from .value import JSON, Style, constant, escape

DOCUMENT_MAX: Final = 2048
"""Characters of the spelling that a document has, about: beside it are the bytes, what indexes
whole strings takes no more than 32,766, and names in it are an attacker's to choose.
"""
_TEXT_MAX: Final = 1 << 14
_DOTS: Final = "..."
_ALL: Final = Style(verbose=True, strings=DOCUMENT_MAX)
_ORDER: Final = sys.byteorder
_number = int.from_bytes


class Pen:
    """How something is to be spelled, and with how many more characters.

    :param dots: what stands for what is missing; for what is left out, ``...`` does.
    """

    __slots__ = ("dots", "left", "shown", "style")

    def __init__(self, style: Style, dots: str, left: int) -> None:
        self.style = style
        self.dots = dots
        self.left = left
        self.shown = left if style.verbose else style.strings

    @property
    def bytes(self) -> int:
        """As many of a string are shown; each may take four characters."""
        return max(0, min(self.style.strings, self.left // 4))

    def wrote(self, text: str) -> str:
        """The same; what it took is gone."""
        self.left -= len(text)
        return text


class Type:
    """One of which only the size is known: its bytes.

    :param size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def text(self, data: bytes, pen: Pen) -> str:
        """:param data: of it as many bytes as there are, and no more than its size."""
        shown = data[: pen.bytes]
        quoted = '"' + "".join(f"\\x{byte:02x}" for byte in shown) + '"'
        return pen.wrote(quoted + self._dots(data, len(shown) < len(data), pen))

    def within(self, skipped: int, width: int) -> "Type":
        """The same as a member that does not begin with a byte, or of which these bits count.

        :param width: in bits; 0: those that it has.
        """
        return self

    def _dots(self, data: bytes, cut: bool, pen: Pen) -> str:
        missing = pen.dots if len(data) < self.size else ""
        return _DOTS if cut else missing


class Scalar(Type):
    """A number, the base of those that mean more."""

    def __init__(self, size: int, *, signed: bool = False) -> None:
        super().__init__(size)
        self._signed = signed

    def text(self, data: bytes, pen: Pen) -> str:
        if len(data) < self.size:
            return pen.dots
        text = self.spelled(_number(data, _ORDER, signed=self._signed), pen.style)
        pen.left -= len(text)
        return text

    def spelled(self, number: int, style: Style) -> str:
        """:param number: as it is meant: with its sign."""
        return str(number)

    def within(self, skipped: int, width: int) -> Type:
        if not skipped and not width:
            return self
        return Bits(self, skipped, min(width or self.size * 8, self.size * 8))

    def signed(self, number: int, bits: int) -> int:
        """What an unsigned number of so many bits means."""
        return number - (1 << bits) if self._signed and number >> bits - 1 & 1 else number


class Bool(Scalar):
    def spelled(self, number: int, style: Style) -> str:
        return {0: "false", 1: "true"}.get(number) or str(number)


class Char(Scalar):
    def spelled(self, number: int, style: Style) -> str:
        if number < 0 or not chr(number).isascii() or not chr(number).isprintable():
            return str(number)
        return "'\\''" if number == ord("'") else f"'{escape(bytes([number]))}'"


class Pointer(Scalar):
    def spelled(self, number: int, style: Style) -> str:
        return hex(number) if number else "NULL"


class Enumeration(Scalar):
    """:param names: by what the bytes are as an unsigned number."""

    def __init__(self, size: int, names: Mapping[int, str], *, signed: bool) -> None:
        super().__init__(size, signed=signed)
        self._names = {self.signed(number, size * 8): name for number, name in names.items()}

    def spelled(self, number: int, style: Style) -> str:
        name = self._names.get(number)
        return constant(str(number), name, style.xlat) if name else str(number)


class Float(Type):
    """``float`` or ``double``; wider ones are bytes."""

    CODES: Final = {4: "=f", 8: "=d"}

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._packing = Struct(self.CODES[size])

    def text(self, data: bytes, pen: Pen) -> str:
        if len(data) < self.size:
            return pen.dots
        return pen.wrote(repr(self._packing.unpack(data)[0]))


class Bits(Type):
    """A number of which the bits are not just whole bytes.

    :param kind: of the number.
    :param skipped: bits in front of it that are not its own.
    :param width: in bits.
    :param size: of all in bytes, if it is more than these bits touch.
    """

    def __init__(self, kind: Scalar, skipped: int, width: int, size: int = 0) -> None:
        super().__init__(max(size, (skipped + width + 7) // 8))
        self._kind = kind
        self._skipped = skipped
        self._shift = skipped if _ORDER == "little" else self.size * 8 - skipped - width
        self._width = width
        self._mask = (1 << width) - 1

    def text(self, data: bytes, pen: Pen) -> str:
        if len(data) < self.size:
            return pen.dots
        number = self._kind.signed(_number(data, _ORDER) >> self._shift & self._mask, self._width)
        return pen.wrote(self._kind.spelled(number, pen.style))

    def within(self, skipped: int, width: int) -> Type:
        # Of an int that says itself which of its bits count, these are all the same.
        return Bits(self._kind, skipped + self._skipped, width or self._width)


class Chars(Type):
    """``char[]``: a string, without the zeros that fill it up."""

    def text(self, data: bytes, pen: Pen) -> str:
        string = data.rstrip(b"\0")
        shown = string[: pen.bytes]
        dots = self._dots(data, len(shown) < len(string), pen)
        return pen.wrote(f'"{escape(shown)}"{dots}')


class Member(NamedTuple):
    name: str
    """Empty: it has none."""
    at: int
    """Bytes from the beginning."""
    type: Type


class Several(Type):
    """A struct or a union, or variables of a program."""

    def __init__(self, size: int, members: Sequence[Member]) -> None:
        super().__init__(size)
        self._members = members

    def text(self, data: bytes, pen: Pen) -> str:
        return "{" + _listed(self._members, data, pen) + "}"


class Array(Type):
    """Elements of one type; those that take no room are none."""

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(element.size * count)
        self._element = element
        self._count = count

    def text(self, data: bytes, pen: Pen) -> str:
        step = self._element.size or 1
        members = (Member("", at, self._element) for at in range(0, self.size, step))
        return "[" + _listed(members, data, pen) + "]"


def _listed(members: Iterable[Member], data: bytes, pen: Pen) -> str:
    parts: list[str] = []
    for name, at, type_ in members:
        if len(parts) >= pen.shown or pen.left <= 0:
            parts.append(_DOTS)
            break
        part = data[at : at + type_.size]
        if not part and type_.size:
            parts.append(pen.dots)
            break
        pen.left -= len(name) + 3  # what stands between them
        text = type_.text(part, pen)
        parts.append(f"{name}={text}" if name else text)
    return ", ".join(parts)


class Typed(InMap):
    """Of a map that was made with BTF.

    :param like: what it stands for.
    :param find: its type; None: it is not known any more, and these are bytes.
    :param stride: bytes from one to the next.
    :param listed: in brackets, even if there is only one.
    """

    def __init__(
        self, like: InMap, find: Callable[[], Type | None], stride: int, *, listed: bool
    ) -> None:
        super().__init__(values=like.values, several=like.several)
        self._find = find
        self._stride = stride
        self._listed = listed

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        type_ = self._find()
        if type_ is None:
            return super().text(blob, style, dots)
        return self._spelled(type_, blob, Pen(style, dots, _TEXT_MAX))

    def document(self, blob: Blob) -> dict[str, JSON]:
        document = super().document(blob)
        if typed := self.typed(blob):
            document["typed"] = typed
        return document

    def typed(self, blob: Blob) -> str:
        """The spelling that documents have; empty if there is none."""
        type_ = self._find() if blob.data else None
        return self._spelled(type_, blob, Pen(_ALL, _DOTS, DOCUMENT_MAX)) if type_ else ""

    def _spelled(self, type_: Type, blob: Blob, pen: Pen) -> str:
        if not self._listed:
            return type_.text(blob.data[: type_.size], pen)
        elements = (Member("", at, type_) for at in range(0, blob.wanted, self._stride))
        return "[" + _listed(elements, blob.data, pen) + "]"
