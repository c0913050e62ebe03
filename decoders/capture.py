# SPDX-License-Identifier: Apache-2.0
"""What the kernel program is to fetch for each command, worked out from the tables."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ..events.value import Fd
from ..events.wire import (
    COMMAND_OTHER,
    COMMAND_PLAN,
    FDS_MAX,
    MEMORY_ROW,
    RING_CONTROL,
    RING_DATA,
    RING_VITAL,
    ROW_ASIDE,
    ROW_INSIDE,
    ROWS_MAX,
    SHAPE_BULK,
    SHAPE_BYTES,
    SHAPE_LOG,
    SHAPES,
    UNIT_VALUE,
)
from .layout import Command, Layout, Target
from .table import COMMANDS

_ANY: Final = (1 << 64) - 1
_CHOICES: Final = 64  # so many values of a field the kernel program can tell apart
_CHOSEN_BY: Final = "attach_type"


class _Pointer(NamedTuple):
    """A field that leads somewhere, and for which values of the field that chooses."""

    target: Target
    offset: int
    choices: int
    offsets: Mapping[str, int]
    """Of the fields beside it, by name."""
    within: int = -1
    """The offset of the pointer that leads to where this one is; -1: it is in attr."""


def plans(bulk_limit: int, aside: Mapping[int, Command] = MappingProxyType({})) -> dict[int, bytes]:
    """``struct command_plan`` by counter slot; other commands are read as they stand.

    :param bulk_limit: bytes of one program's instructions that are taken at most.
    :param aside: other tables of the same commands, of which the targets that are a second
        look are taken too.
    """
    return {
        number: _plan(command, bulk_limit, aside.get(number))
        for number, command in COMMANDS.items()
        if number < COMMAND_OTHER
    }


def _plan(command: Command, bulk_limit: int, other: Command | None) -> bytes:
    layouts = [command.layout, *(layout for _, layout in command.arm_layouts)]
    fds = dict.fromkeys(
        slot.offset
        for layout in layouts
        for slot in layout.slots
        for field in slot.fields
        if type(field.kind) is Fd  # the others lead to no object of the caller's
    )
    rows = [row for row in _pointers(command) if not row.target.aside]
    if other:
        rows += [row for row in _pointers(other) if row.target.aside]
    special = bytearray(SHAPES)
    for number, row in enumerate(rows, 1):
        if row.target.shape != SHAPE_BYTES:
            assert not special[row.target.shape], command.name
            special[row.target.shape] = number
    assert len(fds) <= FDS_MAX, command.name
    assert len(rows) <= ROWS_MAX, command.name
    return COMMAND_PLAN.pack(
        len(fds), len(rows), command.returns_fd, any(special), special,
        _ring(command), *fds, *[0] * (FDS_MAX - len(fds)), _value_flags(command),
        b"".join(_row(row, bulk_limit) for row in rows),
    )  # fmt: skip


def _ring(command: Command) -> int:
    if command.data:
        return RING_DATA
    return RING_VITAL if command.vital else RING_CONTROL


def _value_flags(command: Command) -> int:
    if not any(row.target.unit == UNIT_VALUE for row in _pointers(command)):
        return 0
    offsets = _offsets(command.layout)
    return offsets.get("elem_flags") or offsets.get("flags", 0)


def _pointers(command: Command) -> Iterator[_Pointer]:
    main = _offsets(command.layout)
    yield from _of_layout(command.layout, _ANY, main)
    for arm, layout in command.arm_layouts:
        choices = sum(
            1 << value
            for value in range(_CHOICES)
            if arm.when(defaultdict(int, {_CHOSEN_BY: value}))
        )
        yield from _of_layout(layout, choices, {**main, **_offsets(layout)})


def _of_layout(layout: Layout, choices: int, offsets: Mapping[str, int]) -> Iterator[_Pointer]:
    for slot in layout.slots:
        for field in slot.fields:
            if field.target:
                yield _Pointer(field.target, slot.offset, choices, offsets)
                if field.target.inside:
                    yield from _inside(field.target.inside, slot.offset)


def _inside(layout: Layout, within: int) -> Iterator[_Pointer]:
    for pointer in _of_layout(layout, _ANY, _offsets(layout)):
        yield pointer._replace(within=within)


def _offsets(layout: Layout) -> dict[str, int]:
    return {field.name: slot.offset for slot in layout.slots for field in slot.fields}


def _row(row: _Pointer, bulk_limit: int) -> bytes:
    target = row.target
    return MEMORY_ROW.pack(
        row.choices,
        row.offsets[target.true_size] if target.shape == SHAPE_LOG else target.unit,
        bulk_limit if target.shape == SHAPE_BULK else target.limit,
        row.offset,
        target.count if isinstance(target.count, int) else row.offsets[target.count],
        row.offsets.get(_CHOSEN_BY, 0) if row.within < 0 else row.within,
        target.shape,
        target.when | ROW_ASIDE * target.aside | ROW_INSIDE * (row.within >= 0),
    )


VALUE_FLAGS: Final[Mapping[int, int]] = {
    number: offset for number, command in COMMANDS.items() if (offset := _value_flags(command))
}
"""Of commands on values: the offset of the ``__u64`` that may say ``BPF_F_CPU``."""
