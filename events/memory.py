# SPDX-License-Identifier: Apache-2.0
"""What a pointer of the caller leads to: kinds of content, and how they are spelled.

As with kinds of values (events/value.py), every content has a spelling whatever its
bytes are, and says what of it is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

from .call import Blob, PartState
from .value import JSON, Kind, Style, escape, hexadecimal, printable
from .wire import STRING_MAX

_DOTS = "..."
_POINTER = 8  # bytes
_STATISTICS = b"\nprocessed "  # print_verification_stats() of kernel/bpf/verifier.c
_AT_EXIT = int(PartState.AT_EXIT)  # the enum's own & takes ten times as long


class Content:
    """Bytes without a meaning that we know, the base of the others: ``"\\x01\\x02"``."""

    schema: Mapping[str, JSON] = {"hex": {"type": "string", "pattern": "^([0-9a-f]{2})*$"}}
    """JSON Schema of the properties that :meth:`document` gives."""
    optional: Mapping[str, JSON] = {}
    """The same of those that it may give."""

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        """Empty if the pointer says enough.

        :param dots: what stands for what is missing; for what is left out, ``...`` does.
        """
        shown = blob.data[: style.strings]
        quoted = '"' + "".join(f"\\x{byte:02x}" for byte in shown) + '"'
        if len(shown) < len(blob.data):
            return quoted + _DOTS
        return quoted + dots * (len(shown) < blob.wanted)

    def reached(self, blob: Blob) -> int:
        """How far behind the pointer what is there goes, bytes."""
        return len(blob.data)

    def document(self, blob: Blob) -> dict[str, JSON]:
        return {"hex": blob.data.hex()}


class InMap(Content):
    """What is in the map that a call is about; of which type that is, its BTF may say.

    :param values: and not keys.
    :param several: one behind the other.
    """

    optional = {"typed": {"type": "string"}}

    def __init__(self, *, values: bool, several: bool) -> None:
        self.values = values
        self.several = several


KEY = InMap(values=False, several=False)
VALUE = InMap(values=True, several=False)
KEYS = InMap(values=False, several=True)
VALUES = InMap(values=True, several=True)


class Quoted(Content):
    """Bytes that are spelled as a string, of which the length is known: ``"\\237\\353\\1\\0"``."""

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        quoted = f'"{escape(blob.data[: style.strings])}"'
        if len(blob.data) > style.strings:
            return quoted + _DOTS
        return quoted + dots * (len(blob.data) < blob.wanted)


class Text(Content):
    """A string that ends with a NUL.

    :param whole: all of it is shown, whatever ``-s`` says: a path.
    """

    schema = {"text": {"type": "string"}}

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        string, nul, _ = blob.data.partition(b"\0")
        limit = len(string) if self._whole else style.strings
        quoted = f'"{escape(string[:limit])}"'
        return quoted + (_DOTS if len(string) > limit else dots * (not nul))

    def document(self, blob: Blob) -> dict[str, JSON]:
        return {"text": printable(blob.data.partition(b"\0")[0])}


class Log(Text):
    """A string of which the end matters: what is left out stands before it.

    Last comes what the verifier counted (``processed 1 insns ...``), and just before that,
    why it refused. Where there is no room for all, it is that which is shown.
    """

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        string, nul, _ = blob.data.partition(b"\0")
        limit = len(string) if style.verbose else style.strings
        end = len(string)
        if limit < end:
            end = string.rfind(_STATISTICS) + 1 or end
        start = max(0, end - limit)
        before = bool(blob.state & PartState.TAIL) or start > 0
        behind = end < len(string) or (not nul and len(blob.data) < blob.wanted)
        return _DOTS * before + f'"{escape(string[start:end])}"' + _DOTS * behind


class Array(Content):
    """Numbers of one kind.

    :param code: of one element, as the ``struct`` module has it.
    """

    def __init__(self, kind: Kind, code: str) -> None:
        self._kind = kind
        self._packing = Struct(f"={code}")
        self.schema = {"values": {"type": "array", "items": kind.schema}}

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        values = self._values(blob.data)
        spelled = [self._kind.text(value, style) for value in shown_of(values, style)]
        if len(spelled) < len(values):
            return f"[{', '.join([*spelled, _DOTS])}]"
        missing = blob.wanted > self.reached(blob)
        return f"[{', '.join(spelled + [dots] * missing)}]"

    def reached(self, blob: Blob) -> int:
        return len(blob.data) // self._packing.size * self._packing.size

    def document(self, blob: Blob) -> dict[str, JSON]:
        return {"values": [self._kind.document(value) for value in self._values(blob.data)]}

    def _values(self, data: bytes) -> list[int]:
        size = self._packing.size
        return [value for (value,) in self._packing.iter_unpack(data[: len(data) // size * size])]


class Texts(Content):
    """Strings, which an array of pointers led to."""

    schema = {"values": {"type": "array", "items": {"type": "string"}}}

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        strings = blob.data.split(b"\0")[:-1]
        spelled = []
        for string in shown_of(strings, style):
            # Of those that are as long as is taken, nobody can tell which of them were cut.
            cut_here = blob.state & PartState.CUT and len(string) == STRING_MAX - 1
            cut = _DOTS * bool(len(string) > style.strings or cut_here)
            spelled.append(f'"{escape(string[: style.strings])}"{cut}')
        if len(spelled) < len(strings):
            return f"[{', '.join([*spelled, _DOTS])}]"
        missing = blob.wanted > len(strings)
        return f"[{', '.join(spelled + [dots] * missing)}]"

    def reached(self, blob: Blob) -> int:
        return blob.data.count(b"\0") * _POINTER

    def document(self, blob: Blob) -> dict[str, JSON]:
        return {"values": [printable(string) for string in blob.data.split(b"\0")[:-1]]}


class Verbose(Content):
    """What is so long that lines have it only with ``-v``, and an address without.

    :param spell: the text of the bytes; the second argument stands for missing ones,
        and is empty if there are none.
    """

    def __init__(self, spell: Callable[[bytes, str, Style], str] | None = None) -> None:
        self._spell = spell

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        if not style.verbose:
            return ""
        if self._spell is None:
            return super().text(blob, style, dots)
        return self._spell(blob.data, dots if len(blob.data) < blob.wanted else "", style)


class Memory(NamedTuple):
    """Content with its bytes; as a :class:`events.value.Detail` it stands for its pointer."""

    content: Content
    blob: Blob

    def text(self, value: Any, plain: str, style: Style) -> str:
        """Its spelling, or that of the pointer if nothing could be read."""
        blob = self.blob
        if not blob.data and (blob.state & PartState.UNREADABLE or blob.lost):
            return plain
        dots = _DOTS
        if blob.state & PartState.UNREADABLE and not blob.lost:
            dots += f" /* {hexadecimal(value + self.content.reached(blob))} */"
        return self.content.text(blob, style, dots) or plain

    def document(self) -> dict[str, JSON]:
        """What could be read, and under ``missing`` why that is not all."""
        blob = self.blob
        document = self.content.document(blob)
        document["size"] = blob.wanted
        if blob.state or blob.lost:
            missing = [word for bit, word in _REASONS.items() if blob.state & bit]
            missing += [LOST] * blob.lost
            if missing:
                document["missing"] = missing
            if blob.state & _AT_EXIT:
                document["read_at_exit"] = True
        return document


_REASONS = {
    int(PartState.CUT): "cut",
    int(PartState.TAIL): "cut_in_front",
    int(PartState.UNREADABLE): "unreadable",
}
LOST = "lost"
"""It found no room in the ring."""
MISSING_REASONS = (*_REASONS.values(), LOST)


def shown_of(values: Sequence[Any], style: Style) -> Sequence[Any]:
    """As many elements of an array as are to be shown."""
    return values if style.verbose else values[: style.strings]
