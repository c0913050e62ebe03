# SPDX-License-Identifier: Apache-2.0
"""Kinds of values: what a number from the kernel means, and how it is spelled.

Every field of an event is an :class:`Item`: a name, a kind and a raw value. The
kind spells the value for people (``text``, strace's way) and for documents
(``document``, JSON). Both are total: any value of the field's C type has a
spelling, known or not.
"""

import re
from collections.abc import Mapping
from enum import Enum as PyEnum
from typing import Any, NamedTuple, Protocol


class Xlat(PyEnum):
    """How constants are shown; strace's ``-X``."""

    ABBREV = "abbrev"
    RAW = "raw"
    VERBOSE = "verbose"


class Style(NamedTuple):
    """How text is to be."""

    xlat: Xlat = Xlat.ABBREV
    verbose: bool = False
    """Nothing is left out for being long; strace's ``-v``."""
    strings: int = 32
    """Bytes of a string and, unless verbose, elements of an array; strace's ``-s``."""


class Detail(Protocol):
    """What a value leads to, such as the memory behind a pointer."""

    def text(self, value: Any, plain: str, style: Style) -> str:
        """The spelling of the value with what it leads to.

        :param plain: the spelling without.
        """


class Item(NamedTuple):
    """A field with its value.

    ``after`` is set where the kernel changed what the caller passed; ``value``
    is then what was passed.
    """

    name: str
    kind: "Kind"
    value: Any
    after: Any = None
    detail: Detail | None = None


Items = tuple[Item, ...]

JSON = Any

_U64_MAX = (1 << 64) - 1


class Kind:
    """Unsigned decimal, the plainest kind and the base of the others."""

    schema: Mapping[str, JSON] = {"type": "integer", "minimum": 0}
    """JSON Schema of what :meth:`document` gives."""

    def text(self, value: Any, style: Style) -> str:
        return str(value)

    def document(self, value: Any) -> JSON:
        return value


class Signed(Kind):
    schema = {"type": "integer"}


class Wide(Kind):
    """A ``__u64``.

    Its document is a hex string: what reads JSON keeps 53 bits of a number, and
    databases refuse what is above 63, so a caller could get rid of its own event.

    :param ones: what text calls the value of all ones, if it has a name.
    """

    schema = {"type": "string", "pattern": "^0x[0-9a-f]+$"}

    def __init__(self, ones: str = "") -> None:
        self._ones = ones

    def text(self, value: int, style: Style) -> str:
        if self._ones and value == _U64_MAX:
            return constant(str(value), self._ones, style.xlat)
        return str(value)

    def document(self, value: int) -> JSON:
        return hex(value)


class Hex(Wide):
    """A ``__u64`` that people read as bits, such as a cookie or a revision."""

    def text(self, value: int, style: Style) -> str:
        return hexadecimal(value)


class Address(Wide):
    """A pointer into the caller's memory."""

    def text(self, value: int, style: Style) -> str:
        return hex(value) if value else "NULL"


class NumaNode(Kind):
    """A NUMA node; all ones stands for any, which is a remark beside the number."""

    NO_NODE = 0xFFFFFFFF

    def text(self, value: int, style: Style) -> str:
        remark = value == self.NO_NODE and style.xlat is not Xlat.RAW
        return f"{value} /* NUMA_NO_NODE */" if remark else str(value)


class Fd(Signed):
    """A file descriptor: ``__u32`` in C, but small or negative in truth."""


class ForeignFd(Fd):
    """One of another process, which is named beside it."""


class DirFd(Fd):
    """A directory file descriptor as openat(2) takes it."""

    AT_FDCWD = -100

    def text(self, value: int, style: Style) -> str:
        if value != self.AT_FDCWD:
            return str(value)
        return constant(str(value), "AT_FDCWD", style.xlat)


class IfIndex(Kind):
    """A network interface, as its index in the caller's network namespace.

    Only the loopback device has the same index in all of them (the kernel's
    ``LOOPBACK_IFINDEX``); any other name would be a guess.
    """

    def text(self, value: int, style: Style) -> str:
        if value != 1:
            return str(value)
        return constant("1", 'if_nametoindex("lo")', style.xlat)


class KernelVersion(Kind):
    """``KERNEL_VERSION(a, b, c)`` of linux/version.h."""

    schema = {"type": "string"}

    def text(self, value: int, style: Style) -> str:
        major, minor, patch = self._parts(value)
        name = f"KERNEL_VERSION({major}, {minor}, {patch})"
        return constant(hexadecimal(value), name, style.xlat)

    def document(self, value: int) -> JSON:
        return ".".join(map(str, self._parts(value)))

    @staticmethod
    def _parts(value: int) -> tuple[int, int, int]:
        return value >> 16, value >> 8 & 0xFF, value & 0xFF


class Enum(Kind):
    """One of a set of constants.

    :param c_type: the C type in linux/bpf.h, ``enum ...``; the kernel's BTF has
        it under this name, with constants that may be newer than ours.
    :param family: what a constant that we do not know is marked with,
        ``FAMILY_???``, after strace's example.
    """

    schema = {"type": "string"}

    def __init__(self, c_type: str, family: str, names: Mapping[int, str]) -> None:
        self.c_type = c_type
        self.family = family
        self.names = names

    def extended(self, newer: Mapping[int, str]) -> "Enum":
        """The same with names for values that have none yet."""
        return Enum(self.c_type, self.family, {**newer, **self.names})

    def text(self, value: int, style: Style) -> str:
        name = self.names.get(value)
        if name is None:
            return _unknown(value, self.family, style.xlat)
        return constant(hexadecimal(value), name, style.xlat)

    def document(self, value: int) -> JSON:
        return self.names.get(value) or hex(value)


class Flags(Kind):
    """Bits with names.

    :param names: in the order in which they are printed.
    :param family: as with :class:`Enum`; empty for a field of which no bit has
        been defined.
    :param zero: the name of no bit at all, if it has one.
    """

    schema = {"type": "array", "items": {"type": "string"}}

    def __init__(self, family: str, names: Mapping[int, str], zero: str = "") -> None:
        self.family = family
        self.names = names
        self.zero = zero

    def text(self, value: int, style: Style) -> str:
        if not value:
            return constant("0", self.zero, style.xlat) if self.zero else "0"
        known = self._known(value)
        if not known:
            return _unknown(value, self.family, style.xlat)
        return constant(hexadecimal(value), "|".join(self.document(value)), style.xlat)

    def document(self, value: int) -> JSON:
        known = self._known(value)
        names = [self.names[bit] for bit in known]
        rest = value & ~sum(known)
        if rest:
            names.append(hex(rest))
        return names

    def _known(self, value: int) -> list[int]:
        return [bit for bit in self.names if value & bit]


class DecimalFlags(Flags):
    """Flags of which no bit is defined and which strace shows as a number."""

    def __init__(self) -> None:
        super().__init__("", {})

    def text(self, value: int, style: Style) -> str:
        return str(value)


class Name(Kind):
    """``char[BPF_OBJ_NAME_LEN]`` within attr: as many of its bytes as were passed.

    The text shows one byte less than there is room for and dots where the NUL
    is missing, as strace does; the document has all of them.
    """

    schema = {"type": "string"}

    def text(self, value: bytes, style: Style) -> str:
        name, nul, _ = value.partition(b"\0")
        return f'"{escape(name)}"' if nul else f'"{escape(value[:-1])}"...'

    def document(self, value: bytes) -> JSON:
        return printable(value.partition(b"\0")[0])


class Struct(Kind):
    """A struct within attr; its value is :data:`Items`."""

    schema = {"type": "object"}

    def text(self, value: Items, style: Style) -> str:
        return "{" + items_text(value, style) + "}"

    def document(self, value: Items) -> JSON:
        return items_document(value)


def items_text(items: Items, style: Style) -> str:
    """``name=value, name=value``, with `` => value`` where the kernel changed one."""
    parts = []
    for name, kind, value, after, detail in items:
        spelled = kind.text(value, style)
        if detail is not None:
            spelled = detail.text(value, spelled, style)
        part = f"{name}={spelled}"
        if after is not None:
            part += f" => {kind.text(after, style)}"
        parts.append(part)
    return ", ".join(parts)


def items_document(items: Items) -> dict[str, JSON]:
    return {item.name: item.kind.document(item.value) for item in items}


def hexadecimal(value: int) -> str:
    """As strace writes it: ``0x2a``, but plain ``0``."""
    return hex(value) if value else "0"


def constant(number: str, name: str, xlat: Xlat) -> str:
    """A number, its name, or both, as ``-X`` has it."""
    if xlat is Xlat.ABBREV:
        return name
    return number if xlat is Xlat.RAW else f"{number} /* {name} */"


def _unknown(value: int, family: str, xlat: Xlat) -> str:
    number = hexadecimal(value)
    return number if xlat is Xlat.RAW or not family else f"{number} /* {family}_??? */"


# A byte that is neither printable ASCII nor harmless in a quoted C string, and
# the digit behind it, which would be read as part of a short octal escape.
_AWKWARD = re.compile(rb"[^ !#-\[\]-~](?=([0-7])?)")
_SHORT_ESCAPES = {
    ord('"'): '\\"', ord("\\"): "\\\\", ord("\f"): "\\f", ord("\n"): "\\n",
    ord("\r"): "\\r", ord("\t"): "\\t", ord("\v"): "\\v",
}  # fmt: skip


ANGLED = re.compile(rb"[^ !#-;=?-\[\]-~](?=([0-7])?)")
"""For :func:`escape`: angle brackets, which stand around the bytes, count as awkward too."""


def escape(data: bytes, awkward: "re.Pattern[bytes]" = _AWKWARD) -> str:
    r"""The inside of a C string literal, in strace's spelling.

    Printable ASCII stays, ``\" \\ \f \n \r \t \v`` are short, every other byte
    is octal with as few digits as its neighbour allows. The result is printable
    ASCII whatever the bytes are: nothing in it can end a line or reach a
    terminal as a control sequence.
    """
    return awkward.sub(_escaped, data).decode("ascii")


def _escaped(match: "re.Match[bytes]") -> bytes:
    byte = match[0][0]
    short = _SHORT_ESCAPES.get(byte)
    if short is None:
        short = f"\\{byte:03o}" if match[1] else f"\\{byte:o}"
    return short.encode("ascii")


def printable(data: bytes) -> str:
    """:func:`escape` for places without quotes: a document, a line's prefix."""
    return escape(data).replace('\\"', '"')
