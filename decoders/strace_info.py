# SPDX-License-Identifier: Apache-2.0
"""``struct bpf_map_info`` and ``struct bpf_prog_info``, as strace shows them with ``-v``."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from struct import Struct as Packing
from typing import Any, Final, NamedTuple

from ..events.call import Blob, ObjectKind
from ..events.event import Trailing
from ..events.memory import Content, Memory
from ..events.text import trailing
from ..events.value import (
    Detail,
    Flags,
    Item,
    Items,
    Kind,
    Style,
    Wide,
    Xlat,
    constant,
    hexadecimal,
    items_text,
)
from ..events.wire import CHUNK_MAX, ROW_SUCCESS, SLOT_INSIDE
from . import uapi
from .info import MAP, PROG
from .layout import (
    Field,
    Layout,
    Moment,
    Target,
    changed,
    data,
    grouped,
    longer_than,
)
from .strace_memory import Data, Elements, Instructions, device, hexadecimal_bytes


def first_bits(flags: Flags, count: int) -> Flags:
    """The same without the names of the others, which strace does not know."""
    names = {bit: name for bit, name in flags.names.items() if bit < 1 << count}
    return Flags(flags.family, names, flags.zero)


MAP_FLAGS: Final = first_bits(uapi.MAP_FLAGS, 14)


class _Tag(Kind):
    def text(self, value: bytes, style: Style) -> str:
        return f'"{hexadecimal_bytes(value)}"'


class _Device(Kind):
    def text(self, value: int, style: Style) -> str:
        return constant(hexadecimal(value), device(value), style.xlat)


class _OptionalId(Kind):
    """All ones stands for none."""

    _NONE: Final = 0xFFFFFFFF

    def text(self, value: int, style: Style) -> str:
        return "-1" if value == self._NONE else str(value)


class LoadTime(Kind):
    """Since the host was booted, ns."""


_LOAD_TIME: Final = LoadTime()


def _inside(content: Content, count: str, unit: int = 1) -> Target:
    target = data(count, CHUNK_MAX, ROW_SUCCESS, unit=unit, content=content)
    return replace(target, aside=True)


# Numbers that the caller passes and the kernel replaces; all others it only writes.
_TOLD: Final = frozenset({
    "jited_prog_len", "xlated_prog_len", "nr_map_ids", "nr_jited_ksyms", "nr_jited_func_lens",
    "func_info_rec_size", "nr_func_info", "nr_line_info", "nr_jited_line_info",
    "line_info_rec_size", "jited_line_info_rec_size", "nr_prog_tags",
})  # fmt: skip

_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "map_flags": {"kind": MAP_FLAGS},
    "netns_dev": {"kind": _Device()},
    "btf_vmlinux_id": {"when": longer_than(80)},
    "tag": {"kind": _Tag()},
    "jited_prog_insns": {"target": _inside(Data(hex_=True), "jited_prog_len")},
    "xlated_prog_insns": {"target": _inside(Instructions(), "xlated_prog_len")},
    "load_time": {"kind": _LOAD_TIME},
    "created_by_uid": {"kind": _OptionalId()},
    "map_ids": {"target": _inside(Elements(Kind(), "I"), "nr_map_ids", unit=4)},
    "recursion_misses": {"kind": Wide("UINT64_MAX")},
}


def _seen(field: Field) -> Field:
    moment = Moment.BOTH if field.name in _TOLD else Moment.EXIT
    return replace(field, moment=moment, **_FIELDS.get(field.name, {}))


# It takes other members together than we do.
_MAP: Final = grouped(MAP, "name", "ifindex", "btf_id", "map_extra", "hash")
_PROG: Final = grouped(
    PROG, "load_time", "ifindex", "nr_jited_ksyms", "btf_id", "run_time_ns",
    "recursion_misses", "verified_insns", "attach_btf_obj_id",
)  # fmt: skip

PROG_INFO: Final = Layout(changed(_PROG, _seen))
LAYOUTS: Final[Mapping[int, Layout]] = {
    ObjectKind.MAP: Layout(changed(_MAP, _seen)),
    ObjectKind.PROG: PROG_INFO,
}
"""By kind of object; of others it shows the address."""

# Where it does not keep to the order in C: what stands behind what.
_BEHIND: Final = {"jited_prog_insns": "jited_prog_len"}
_LONGEST: Final = 4096


class Info(NamedTuple):
    """The struct in place of its address; a :class:`events.value.Detail`."""

    items: Items
    rest: Trailing | None

    def text(self, value: Any, plain: str, style: Style) -> str:
        if not style.verbose:
            return plain
        rest = trailing(self.rest, verbose=True) if self.rest else ""
        return f"{{{items_text(self.items, style)}{rest}}}"


class _Beside(NamedTuple):
    """A remark; a :class:`events.value.Detail`."""

    remark: str

    def text(self, value: Any, plain: str, style: Style) -> str:
        return plain if style.xlat is Xlat.RAW else f"{plain} /* {self.remark} */"


# Of these it reads no more than there was room for.
_LIMITED: Final = frozenset({"xlated_prog_insns", "map_ids"})
_U32, _U64 = Packing("=I"), Packing("=Q")


class _Inside:
    """A :class:`decoders.layout.Details`: what pointers in ``struct bpf_prog_info`` lead to."""

    def __init__(self, before: bytes, after: bytes, aside: Mapping[int, Blob]) -> None:
        self._before = before
        self._after = after
        self._aside = aside
        self.offsets: Collection[int] = [at & ~SLOT_INSIDE for at in aside if at & SLOT_INSIDE]

    def of(self, offset: int, field: Field) -> Detail | None:
        target = field.target
        if target is None or not _number(self._after, offset, _U64):
            return None
        blob = self._aside[offset | SLOT_INSIDE]
        if field.name in _LIMITED and isinstance(target.count, str):
            room = _number(self._before, PROG_INFO.offset_of(target.count), _U32)
            blob = _first(blob, room * target.unit)
        return Memory(target.content, blob)


def _first(blob: Blob, size: int) -> Blob:
    if size >= blob.wanted:
        return blob
    state = 0 if size <= blob.read else blob.state
    return Blob(blob.data[:size], size, state, min(size, blob.read))


def _number(data: bytes, offset: int, packing: Packing) -> int:
    return int(packing.unpack_from(data.ljust(offset + packing.size, b"\0"), offset)[0])


def info(
    kind: int,
    before: bytes,
    after: bytes,
    aside: Mapping[int, Blob],
    time_of_day: Callable[[int], str],
) -> Info | None:
    """What was asked for, or None where only the address is shown.

    :param before: the struct as the caller passed it; ``after``: when the call is over.
    :param aside: what came with the call for pointers in the struct.
    :param time_of_day: of ns since the host was booted; empty if nobody knows.
    """
    layout = LAYOUTS.get(kind)
    if not layout or not 0 < len(after) <= _LONGEST:
        return None
    plan = layout.plan(len(after))
    inside = _Inside(before, after, aside if kind == ObjectKind.PROG else {})
    entry, final = plan.unpack(before[: len(after)]), plan.unpack(after)
    items, _ = plan.items(entry, final, details=inside)
    rest = after[layout.end :]
    return Info(
        tuple(_dated(item, time_of_day) for item in _in_order(items)),
        Trailing(layout.end, rest) if rest.strip(b"\0") else None,
    )


def _in_order(items: Items) -> Iterator[Item]:
    moved = {_BEHIND[item.name]: item for item in items if item.name in _BEHIND}
    for item in items:
        if item.name not in _BEHIND:
            yield item
        if item.name in moved:
            yield moved[item.name]


def _dated(item: Item, time_of_day: Callable[[int], str]) -> Item:
    if item.kind is not _LOAD_TIME or not item.value:
        return item
    told = time_of_day(item.value)
    return item._replace(detail=_Beside(told)) if told else item
