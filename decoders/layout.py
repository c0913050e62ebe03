# SPDX-License-Identifier: Apache-2.0
"""The little language of the command tables.

A command is a list of rows in the order of its C struct. Offsets are computed
from the C types, never typed::

    MAP_FREEZE = Command(22, "BPF_MAP_FREEZE", [fd("map_fd")])

A row is a :class:`Field`, a :class:`Union` of fields that share their bytes, a
:class:`Hole`, or a *group*: a list of rows that arrived in the kernel together.
A group is part of an event when the caller's ``size`` reaches into its first
field; what is missing of the rest counts as zero, as it does in the kernel. The
first group is always there.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum as PyEnum
from functools import cached_property, lru_cache
from struct import Struct as Packing
from typing import NamedTuple, Protocol

from ..events.memory import KEY, VALUE, Array, Content, Log, Text, Texts
from ..events.value import Address, Detail, Enum, Fd, Item, Items, Kind, Name, Struct, Wide
from ..events.wire import (
    CHUNK_MAX,
    COUNT_ONE,
    ROW_ENOENT,
    ROW_ENOSPC,
    ROW_ENTRY,
    ROW_FAILURE,
    ROW_SUCCESS,
    SHAPE_BYTES,
    SHAPE_LOG,
    SHAPE_STRING,
    SHAPE_STRINGS,
    UNIT_KEY,
    UNIT_VALUE,
)

Values = Mapping[str, int]
"""The fields read so far, raw, by name."""

Condition = Callable[[Values], bool]


class CType(NamedTuple):
    code: str
    """Of the ``struct`` module."""
    size: int
    align: int


U32 = CType("I", 4, 4)
S32 = CType("i", 4, 4)
U64 = CType("Q", 8, 8)
NAME = CType("s", 16, 1)  # char[BPF_OBJ_NAME_LEN]


class Moment(PyEnum):
    """Which copy of attr a field is read from."""

    ENTRY = "entry"
    EXIT = "exit"
    """Only the kernel writes it."""
    BOTH = "both"
    """The kernel may change it: shown as ``old => new``."""
    REPLY = "reply"
    """The same, but what changed is shown behind the struct."""


@dataclass(frozen=True)
class Target:
    """What a pointer leads to, and when and how much of it is read.

    The kernel program is told of it (decoders/capture.py); what it brings is spelled
    by ``content``.
    """

    content: Content
    shape: int
    """``SHAPE_...`` of events/wire.h."""
    when: int
    """``ROW_...``"""
    limit: int
    """Bytes taken at most; of instructions, the user says how much."""
    count: str | int = COUNT_ONE
    """The name of the field that counts, or ``COUNT_...``."""
    unit: int = 1
    """Bytes of each that is counted, or ``UNIT_...``."""
    true_size: str = ""
    """Of a log: the field in which the kernel tells how long it is."""
    aside: bool = False
    """A second look at a pointer that another target leads to as well."""
    inside: "Layout | None" = None
    """Of a struct: pointers in it are followed too, if the call succeeded."""


ALWAYS = ROW_SUCCESS | ROW_ENOENT | ROW_ENOSPC | ROW_FAILURE
FILLED = ROW_SUCCESS | ROW_ENOSPC
"""The kernel wrote what there was room for."""

_PATH_MAX = 4096
_BYTES = Content()
_PATH = Text(whole=True)


def string(limit: int, when: int = ALWAYS) -> Target:
    """A string that ends with a NUL."""
    return Target(Text(), SHAPE_STRING, when, limit)


def path() -> Target:
    return Target(_PATH, SHAPE_STRING, ALWAYS, _PATH_MAX)


def strings(count: str) -> Target:
    """An array of pointers to strings."""
    return Target(Texts(), SHAPE_STRINGS, ALWAYS, CHUNK_MAX, count)


def data(
    count: str | int,
    limit: int,
    when: int = ALWAYS,
    *,
    unit: int = 1,
    content: Content = _BYTES,
) -> Target:
    """Bytes, counted by a field of attr."""
    return Target(content, SHAPE_BYTES, when, limit, count, unit)


def array(kind: Kind, ctype: "CType", count: str, when: int = ALWAYS) -> Target:
    """Numbers of one kind."""
    content = Array(kind, ctype.code)
    return Target(content, SHAPE_BYTES, when, CHUNK_MAX, count, ctype.size)


def log(size: str, true_size: str) -> Target:
    """What the kernel has to say about a program or BTF; its end."""
    return Target(Log(), SHAPE_LOG, ALWAYS, CHUNK_MAX, size, true_size=true_size)


def key(when: int = ROW_ENTRY) -> Target:
    """Of the map behind the command's descriptor."""
    return Target(KEY, SHAPE_BYTES, when, _KEY_MAX, unit=UNIT_KEY)


def value(when: int) -> Target:
    """Of the map behind the command's descriptor."""
    return Target(VALUE, SHAPE_BYTES, when, CHUNK_MAX, unit=UNIT_VALUE)


_KEY_MAX = 512  # MAX_BPF_STACK: no hash or array has longer ones


class Row:
    """One line of a table."""


@dataclass(frozen=True)
class Field(Row):
    name: str
    ctype: CType
    kind: Kind
    moment: Moment = Moment.ENTRY
    when: Condition | None = None
    """Shown only if this holds; the bytes are there in any case."""
    target: Target | None = None
    """Of a pointer."""
    zero: Condition | None = None
    """Of a descriptor: 0 is one only if this holds; else it stands for none."""


@dataclass(frozen=True)
class Union(Row):
    """Fields in the same bytes: the first one whose ``when`` holds, or has none."""

    fields: tuple[Field, ...]

    def __init__(self, *fields: Field) -> None:
        object.__setattr__(self, "fields", fields)


@dataclass(frozen=True)
class Hole(Row):
    """Bytes that C leaves unnamed."""

    ctype: CType = U32


Rows = Sequence[Row | Sequence[Row]]

_UNSIGNED = Kind()
_WIDE = Wide()
_ADDRESS = Address()
_FD = Fd()
_NAME = Name()
_STRUCT = Struct()
_NOTHING: Values = {}
_REPEATED = 512
SIZE = "size of attr"
"""Among the values a condition may refer to: as much of the struct as the caller passed."""


class Details(Protocol):
    """What came with a call for some of its fields."""

    offsets: Collection[int]
    """Of those fields in attr."""

    def of(self, offset: int, field: "Field") -> Detail | None:
        """What the field there leads to, if it is one that leads to such a thing."""


def u32(
    name: str,
    kind: Kind = _UNSIGNED,
    *,
    moment: Moment = Moment.ENTRY,
    when: Condition | None = None,
) -> Field:
    return Field(name, U32, kind, moment, when)


def s32(name: str, kind: Kind, *, when: Condition | None = None) -> Field:
    return Field(name, S32, kind, when=when)


def u64(name: str, kind: Kind = _WIDE, *, moment: Moment = Moment.ENTRY) -> Field:
    return Field(name, U64, kind, moment)


def fd(name: str, *, when: Condition | None = None, zero: Condition | None = None) -> Field:
    """A file descriptor: ``__u32`` or ``__s32`` in C, which the kernel reads as int.

    :param zero: 0 stands for none unless this holds.
    """
    return Field(name, S32, _FD, when=when, zero=zero)


def pointer(name: str, target: Target | None = None) -> Field:
    """An ``__aligned_u64`` that holds a user address."""
    return Field(name, U64, _ADDRESS, target=target)


def obj_name(name: str) -> Field:
    """``char name[BPF_OBJ_NAME_LEN]``"""
    return Field(name, NAME, _NAME)


def has(name: str, bit: int) -> Condition:
    """The flag is set in the named field."""
    return lambda values: bool(values[name] & bit)


def longer_than(size: int) -> Condition:
    """More bytes were passed."""
    return lambda values: values[SIZE] > size


def any_of(*names: str) -> Condition:
    """One of the named fields is not 0."""
    return lambda values: any(values.get(name) for name in names)


def never(_: Values) -> bool:
    """Of a descriptor: 0 always stands for none."""
    return False


def among(name: str, choices: frozenset[int]) -> Condition:
    """The named field has one of these values."""
    return lambda values: values[name] in choices


@dataclass(frozen=True)
class Arm:
    """One shape of the union that ends a command's struct."""

    when: Condition
    rows: Rows
    name: str = ""
    """Of the nested struct; empty if its fields stand in the union itself."""


@dataclass(frozen=True)
class Command:
    """One ``enum bpf_cmd`` and the part of ``union bpf_attr`` that it reads."""

    number: int
    name: str
    rows: Rows
    wrapper: str = ""
    """The name of the struct within the union, if it has one."""
    arms: tuple[Arm, ...] = ()
    """The first whose condition holds follows the rows."""
    returns_fd: bool = False
    """A descriptor, if it succeeds."""
    data: bool = False
    """Works on the contents of maps or walks ids, and so comes by the million."""
    vital: bool = False
    """What runs in the kernel, or stays there, is other than before if it succeeds."""

    @cached_property
    def layout(self) -> "Layout":
        return Layout(self.rows)

    @cached_property
    def arm_layouts(self) -> tuple[tuple[Arm, "Layout"], ...]:
        start = _aligned(self.layout.end, 8)  # every arm of union bpf_attr has a u64
        return tuple((arm, Layout(arm.rows, start)) for arm in self.arms)

    def field_at(self, offset: int) -> str:
        """The name of the field at this offset; of a union's, the first; or empty."""
        layouts = [self.layout, *(layout for _, layout in self.arm_layouts)]
        slots = (slot for layout in layouts for slot in layout.slots if slot.fields)
        return next((slot.fields[0].name for slot in slots if slot.offset == offset), "")

    def renamed(self, rename: Callable[[Enum], Enum]) -> "Command":
        """The same with every enum replaced by what ``rename`` makes of it."""

        def renamed(field: Field) -> Field:
            kind = field.kind
            return replace(field, kind=rename(kind)) if isinstance(kind, Enum) else field

        return self.changed(renamed)

    def changed(self, change: Callable[[Field], Field]) -> "Command":
        """The same with every field replaced by what ``change`` makes of it."""
        arms = tuple(replace(arm, rows=changed(arm.rows, change)) for arm in self.arms)
        return replace(self, rows=changed(self.rows, change), arms=arms)


class Slot(NamedTuple):
    """Where a row came to lie."""

    fields: tuple[Field, ...]
    """More than one for a union, none for a hole."""
    offset: int
    threshold: int
    """Shown if the caller's size is larger; -1 for the first group."""

    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)


class Layout:
    """Rows with their offsets.

    :param start: offset of the first row in ``union bpf_attr``, bytes.
    """

    def __init__(self, rows: Rows, start: int = 0) -> None:
        self.slots = tuple(_slots(rows, start))
        last = self.slots[-1]
        self.end = last.offset + _ctype(last).size if last.fields else last.offset
        """Offset of the first byte behind the last field."""
        self._plans: dict[tuple[int, int], Plan] = {}

    def offset_of(self, name: str) -> int:
        """Of a field in ``union bpf_attr``, bytes.

        :raises StopIteration: there is none of that name.
        """
        return next(slot.offset for slot in self.slots if name in slot.names())

    def plan(self, size: int, read: int | None = None) -> "Plan":
        """How to read a struct of which the caller passed this many bytes.

        :param read: so many of them are known: fields that do not end within are left out.
        """
        size = min(size, self.end)
        known = self.end if read is None or read >= size else read
        plan = self._plans.get((size, known))
        if plan is None:
            slots = [slot for slot in self.slots if not slot.fields or _end(slot) <= known]
            plan = self._plans[size, known] = Plan(slots, size)
        return plan


class Plan:
    """The fields that are there for one size, ready to be unpacked at once."""

    def __init__(self, slots: Sequence[Slot], size: int) -> None:
        shown = [slot for slot in slots if slot.fields and size > slot.threshold]
        code = "="
        end = 0
        for slot in shown:
            ctype = _ctype(slot)
            width = ctype.size
            # A name of which only some bytes were passed is that short.
            if ctype is NAME:
                width = max(0, min(width, size - slot.offset))
            code += f"{slot.offset - end}x" + (f"{width}s" if ctype is NAME else _code(slot))
            end = slot.offset + width
        self._packing = Packing(code)
        self._slots = tuple(slot.fields for slot in shown)
        self._offsets = tuple(slot.offset for slot in shown)
        self._numbers = {offset: number for number, offset in enumerate(self._offsets)}
        fields = [field for slot in self._slots for field in slot]
        self._plain = len(fields) == len(shown) and not any(
            field.when or field.moment is not Moment.ENTRY for field in fields
        )
        self._names = tuple(field.name for field in fields)
        self._kinds = tuple(field.kind for field in fields)
        self._size = size
        self.has_outputs = any(field.moment is not Moment.ENTRY for field in fields)

    def unpack(self, data: bytes) -> tuple[int, ...]:
        """The raw values, a slot each; bytes that are missing are zero."""
        packing = self._packing
        if len(data) < packing.size:
            data = data.ljust(packing.size, b"\0")
        return packing.unpack_from(data)

    def values(self, raw: Sequence[int]) -> Values:
        """By name, each member of a union under its own; 0 for those that are not there."""
        return defaultdict(int, (
            (field.name, value)
            for fields, value in zip(self._slots, raw, strict=True)
            for field in fields
        ))  # fmt: skip

    def changed_inputs(
        self, before: Sequence[int], after: Sequence[int], outer: Values = _NOTHING
    ) -> Iterator[str]:
        """The fields that only the caller writes and that differ.

        :param outer: what conditions may refer to besides these fields.
        """
        values = defaultdict(int, {**outer, **self.values(before)})
        for fields, old, new in zip(self._slots, before, after, strict=True):
            if old != new and fields[0].moment is Moment.ENTRY:
                yield next((f for f in fields if not f.when or f.when(values)), fields[0]).name

    def items(
        self,
        entry: Sequence[int],
        final: Sequence[int],
        outer: Values = _NOTHING,
        details: Details | None = None,
    ) -> tuple[Items, Items]:
        """The fields to show, and those to show behind the struct.

        :param entry: values unpacked from attr as it was at entry.
        :param final: the same at exit.
        :param outer: what conditions may refer to besides these fields.
        :param details: what fields lead to.
        """
        if self._plain:
            plain = list(map(Item, self._names, self._kinds, entry))
            if details:
                self._fill_in(plain, details, entry)
            return tuple(plain), ()
        lead = details and any(at in self._numbers for at in details.offsets)
        if not lead and outer is _NOTHING and entry == final:
            return _alone(self, tuple(entry))
        return self.every(entry, final, outer, details)

    def every(
        self, entry: Sequence[int], final: Sequence[int], outer: Values, details: Details | None
    ) -> tuple[Items, Items]:
        """The same, whatever fields there are."""
        values = defaultdict(int, {**outer, **self.values(entry), SIZE: self._size})
        items: list[Item] = []
        reply: list[Item] = []
        for fields, at, old, new in zip(self._slots, self._offsets, entry, final, strict=True):
            shown = next((f for f in fields if f.when is None or f.when(values)), None)
            if shown is None:
                continue
            passed, now = _member(shown, old), _member(shown, new)
            value = now if shown.moment is Moment.EXIT else passed
            changed = now if shown.moment is Moment.BOTH and now != passed else None
            detail = None
            if details and at in details.offsets and _leads(shown, passed, values):
                detail = details.of(at, shown)
            items.append(Item(shown.name, shown.kind, value, changed, detail))
            if shown.moment is Moment.REPLY and now != passed:
                reply.append(Item(shown.name, shown.kind, now))
        return tuple(items), tuple(reply)

    def leading(self, raw: Sequence[int]) -> dict[int, Field]:
        """The fields that may lead somewhere, by offset.

        :param raw: what was unpacked; no field has another value at exit.
        """
        values = self.values(raw)
        found = {}
        for fields, at, value in zip(self._slots, self._offsets, raw, strict=True):
            shown = next((f for f in fields if f.when is None or f.when(values)), None)
            if shown and _leads(shown, _member(shown, value), values):
                found[at] = shown
        return found

    def _fill_in(self, items: list[Item], details: Details, entry: Sequence[int]) -> None:
        for offset in details.offsets:
            number = self._numbers.get(offset)
            if number is not None:
                name, kind, value, *_ = items[number]
                field = self._slots[number][0]
                if value or field.zero is None or _leads(field, value, self.values(entry)):
                    items[number] = Item(name, kind, value, None, details.of(offset, field))


def _leads(field: Field, value: int, values: Values) -> bool:
    return bool(value) or field.zero is None or field.zero(values)


def nested(name: str, items: Items) -> Item:
    """An item that holds a struct."""
    return Item(name, _STRUCT, items)


def _slots(rows: Rows, start: int) -> Iterator[Slot]:
    offset = start
    for number, group in enumerate(rows):
        members = [group] if isinstance(group, Row) else group
        threshold = -1
        for position, row in enumerate(members):
            fields = _fields(row)
            ctype = row.ctype if isinstance(row, Hole) else fields[0].ctype
            offset = _aligned(offset, ctype.align)
            if position == 0 and (number or start):
                threshold = offset
            yield Slot(fields, offset, threshold)
            offset += ctype.size


def _fields(row: Row) -> tuple[Field, ...]:
    if isinstance(row, Field):
        return (row,)
    return row.fields if isinstance(row, Union) else ()


def _ctype(slot: Slot) -> CType:
    return slot.fields[0].ctype


def _end(slot: Slot) -> int:
    return slot.offset + _ctype(slot).size


def _code(slot: Slot) -> str:
    # The members of a union may differ in sign: it is read unsigned, see _member.
    code = _ctype(slot).code
    return code.upper() if len(slot.fields) > 1 else code


@lru_cache(_REPEATED)
def _alone(plan: Plan, raw: tuple[int, ...]) -> tuple[Items, Items]:
    # Who makes many calls mostly makes the same one again.
    return plan.every(raw, raw, _NOTHING, None)


def _member(field: Field, value: int) -> int:
    """What was read of a union, as this member's type."""
    return value - (1 << 32) if field.ctype is S32 and value >= 1 << 31 else value


def _aligned(offset: int, align: int) -> int:
    return (offset + align - 1) // align * align


def grouped(fields: Sequence[Field], *starts: str) -> Rows:
    """The same cut into groups: each begins with one of the named fields, but the first.

    :raises ValueError: there is none of a name.
    """
    names = [field.name for field in fields]
    cuts = [names.index(start) for start in starts]
    return [fields[begin:end] for begin, end in zip([0, *cuts], [*cuts, None], strict=True)]


def changed(rows: Rows, change: Callable[[Field], Field]) -> Rows:
    """The same with every field replaced by what ``change`` makes of it."""

    def one(row: Row) -> Row:
        if isinstance(row, Field):
            return change(row)
        if isinstance(row, Union):
            return Union(*map(change, row.fields))
        return row

    return [one(group) if isinstance(group, Row) else [one(row) for row in group]
            for group in rows]  # fmt: skip
