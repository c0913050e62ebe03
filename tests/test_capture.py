# SPDX-License-Identifier: Apache-2.0
"""What the kernel program is told to fetch, against the tables and against what C says.

It knows offsets only. One that is wrong would show bytes of something else under the name
of a field, so what the plans say is read back here as the kernel program reads it.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bpfsnoop.decoders import strace
from bpfsnoop.decoders.capture import plans
from bpfsnoop.decoders.layout import Command, Field, Layout
from bpfsnoop.decoders.links import LINK_CREATE
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events import wire
from bpfsnoop.events.value import Address, Fd
from calls import attr

LIMIT = 4096 * 8
PLANS = plans(LIMIT)
EVERY = (1 << 64) - 1

# As C lays them out, see events/wire.h.
ROW = "@QIIHHHBB"
HEAD = "@BBBB5sB6HH"


class MemoryRow(NamedTuple):
    choices: int
    unit: int
    limit: int
    pointer: int
    counter: int
    choice: int
    shape: int
    when: int


class PlanOf(NamedTuple):
    returns_fd: int
    special: dict[int, MemoryRow]
    """By shape."""
    fds: list[int]
    """Offsets."""
    value_flags: int
    rows: list[MemoryRow]


def plan_of(name: str) -> PlanOf:
    (number,) = (command.number for command in COMMANDS.values() if command.name == name)
    return read(PLANS[number])


def read(packed: bytes) -> PlanOf:
    fd_count, row_count, returns_fd, has_special, special, *rest = struct.unpack_from(HEAD, packed)
    _, *fds, value_flags = rest
    rows = [
        MemoryRow._make(row) for row in struct.iter_unpack(ROW, packed[struct.calcsize(HEAD) :])
    ]
    assert not any(fds[fd_count:])
    assert not any(any(row) for row in rows[row_count:])
    assert bool(has_special) == any(special)
    return PlanOf(
        returns_fd,
        {shape: rows[number - 1] for shape, number in enumerate(special) if number},
        fds[:fd_count],
        value_flags,
        rows[:row_count],
    )


def fields_of(command: Command) -> Iterator[tuple[Layout, int, Field]]:
    for layout in (command.layout, *(layout for _, layout in command.arm_layouts)):
        for slot in layout.slots:
            for field in slot.fields:
                yield layout, slot.offset, field


every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda c: c.name)


# --- Every command -----------------------------------------------------------------------


def test_every_command_has_a_plan_of_the_size_that_the_kernel_reads() -> None:
    assert PLANS.keys() == COMMANDS.keys()
    assert {len(plan) for plan in PLANS.values()} == {wire.COMMAND_PLAN.size}
    assert wire.COMMAND_PLAN.size == struct.calcsize(HEAD) + wire.ROWS_MAX * struct.calcsize(ROW)
    assert max(PLANS) < wire.COMMAND_OTHER


@every_command
def test_every_descriptor_is_asked_for(command: Command) -> None:
    fds = list(dict.fromkeys(
        offset for _, offset, field in fields_of(command) if type(field.kind) is Fd
    ))  # fmt: skip
    plan = read(PLANS[command.number])
    assert plan.fds == fds
    assert len(fds) <= wire.FDS_MAX
    assert plan.returns_fd == command.returns_fd


@every_command
def test_every_pointer_with_a_target_has_its_row(command: Command) -> None:
    rows = read(PLANS[command.number]).rows
    wanted = [
        (layout, at, field.target)
        for layout, at, field in fields_of(command)
        if field.target and isinstance(field.kind, Address)
    ]
    assert len(wanted) == len(rows) <= wire.ROWS_MAX
    assert [(row.pointer, row.shape, row.when) for row in rows] == [
        (at, target.shape, target.when) for _, at, target in wanted
    ]
    for row, (layout, _, target) in zip(rows, wanted, strict=True):
        assert (row.choices == EVERY) == (layout is command.layout)
        assert counted_by(row, layout, command) == target.count
        assert 0 < row.limit <= (LIMIT if row.shape == wire.SHAPE_BULK else wire.CHUNK_MAX)


def counted_by(row: MemoryRow, layout: Layout, command: Command) -> str | int:
    """The name of the __u32 at whose offset the row finds its count."""
    if row.counter in (wire.COUNT_ONE, wire.COUNT_RETVAL):
        return row.counter
    names = [
        field.name
        for within in (layout, command.layout)
        for slot in within.slots
        for field in slot.fields
        if slot.offset == row.counter and field.ctype.size == 4
    ]
    return names[0]


@every_command
def test_rows_say_when_they_are_read(command: Command) -> None:
    outcomes = wire.ROW_SUCCESS | wire.ROW_ENOENT | wire.ROW_ENOSPC | wire.ROW_FAILURE
    for row in read(PLANS[command.number]).rows:
        assert row.when & (outcomes | wire.ROW_ENTRY)
        assert row.when == row.when & (outcomes | wire.ROW_ENTRY | wire.ROW_NO_LIMIT)


@every_command
def test_of_special_shapes_there_is_one_of_each(command: Command) -> None:
    plan = read(PLANS[command.number])
    special = [row for row in plan.rows if row.shape != wire.SHAPE_BYTES]
    assert sorted(row.shape for row in special) == sorted(plan.special)
    for shape, row in plan.special.items():
        assert row.shape == shape


# --- Some by hand, as linux/bpf.h has them -----------------------------------------------


def test_prog_load() -> None:
    plan = plan_of("BPF_PROG_LOAD")
    insns = plan.special[wire.SHAPE_BULK]
    assert (insns.pointer, insns.counter, insns.unit, insns.limit) == (8, 4, 8, LIMIT)
    assert insns.when & wire.ROW_ENTRY
    license_ = plan.special[wire.SHAPE_STRING]
    assert license_.pointer == len(attr("IIQ", 0, 0, 0)) == 16
    log = plan.special[wire.SHAPE_LOG]
    assert (log.pointer, log.counter) == (32, 28)
    assert log.unit == 140, "the offset of log_true_size"
    assert not log.when & wire.ROW_ENTRY
    fd_array = next(row for row in plan.rows if row.pointer == 120)
    assert (fd_array.counter, fd_array.unit, fd_array.limit) == (148, 4, wire.CHUNK_MAX)
    assert plan.fds == [72, 112, 144]
    assert plan.returns_fd


def test_a_descriptor_of_another_process_is_none_of_ours() -> None:
    assert plan_of("BPF_TASK_FD_QUERY").fds == []


def test_map_elements() -> None:
    update = plan_of("BPF_MAP_UPDATE_ELEM")
    key, value = update.rows
    assert (key.pointer, key.unit, key.counter) == (8, wire.UNIT_KEY, wire.COUNT_ONE)
    assert key.when & wire.ROW_ENTRY
    assert (value.pointer, value.unit) == (16, wire.UNIT_VALUE)
    assert update.fds == [0]
    assert update.value_flags == 24
    lookup = plan_of("BPF_MAP_LOOKUP_ELEM").rows[1]
    assert lookup.when == wire.ROW_SUCCESS, "a value that was not found is not shown"


def test_batches_count_what_the_kernel_made_of_count() -> None:
    in_batch, out_batch, keys, values = plan_of("BPF_MAP_LOOKUP_BATCH").rows
    assert [row.pointer for row in (in_batch, out_batch, keys, values)] == [0, 8, 16, 24]
    assert keys.counter == values.counter == 32
    assert in_batch.unit == out_batch.unit == wire.UNIT_CURSOR
    assert (in_batch.when, out_batch.when) == (wire.ROW_ENTRY, wire.ROW_SUCCESS)
    assert keys.when == wire.ROW_SUCCESS | wire.ROW_ENOENT | wire.ROW_ENOSPC
    assert plan_of("BPF_MAP_LOOKUP_BATCH").value_flags == 40
    assert plan_of("BPF_MAP_GET_NEXT_KEY").value_flags == 0


def test_first_descriptor_of_a_command_with_keys_is_its_map() -> None:
    """The kernel program takes the sizes of keys and values from the first descriptor."""
    units = {wire.UNIT_KEY, wire.UNIT_VALUE, wire.UNIT_CURSOR}
    read_plans = {number: read(plan) for number, plan in PLANS.items()}
    of_maps = {
        number: plan
        for number, plan in read_plans.items()
        if units & {row.unit for row in plan.rows}
    }
    assert len(of_maps) == 9
    for number, plan in of_maps.items():
        first = plan.fds[0]
        names = [field.name for _, at, field in fields_of(COMMANDS[number]) if at == first]
        assert names == ["map_fd"]


def test_stream_counts_what_the_call_returned() -> None:
    (row,) = plan_of("BPF_PROG_STREAM_READ_BY_FD").rows
    assert (row.pointer, row.counter, row.unit) == (0, wire.COUNT_RETVAL, 1)
    assert row.when == wire.ROW_SUCCESS


# --- The arms of LINK_CREATE -------------------------------------------------------------

LINK_ROWS = plan_of("BPF_LINK_CREATE").rows
ATTACH_TYPE = 8  # its offset

# Attach types, the offset of the pointer, of its count, and bytes of one.
ARMS = {
    "iter_info": ({28}, 16, 24, 1),
    "ids": ({59, 60, 61}, 16, 32, 4),
    "tracing_multi cookies": ({59, 60, 61}, 24, 32, 8),
    "syms": ({42, 56}, 24, 20, 1),
    "addrs": ({42, 56}, 32, 20, 8),
    "kprobe_multi cookies": ({42, 56}, 40, 20, 8),
    "path": ({48, 57}, 16, wire.COUNT_ONE, 1),
    "offsets": ({48, 57}, 24, 48, 8),
    "ref_ctr_offsets": ({48, 57}, 32, 48, 8),
    "uprobe_multi cookies": ({48, 57}, 40, 48, 8),
}


def test_arms_of_link_create() -> None:
    rows = [(row.choices, row.pointer, row.counter, row.unit, row.choice) for row in LINK_ROWS]
    assert rows == [
        (sum(1 << number for number in types), pointer, count, unit, ATTACH_TYPE)
        for types, pointer, count, unit in ARMS.values()
    ]


def test_no_attach_type_has_two_rows_for_a_pointer() -> None:
    for number in range(64):
        pointers = [row.pointer for row in LINK_ROWS if row.choices >> number & 1]
        assert len(pointers) == len(set(pointers))


def test_of_the_arms_with_pointers_one_applies_at_most() -> None:
    """The kernel program does not know which comes first."""
    leading = [arm for arm, layout in LINK_CREATE.arm_layouts
               if any(field.target for slot in layout.slots for field in slot.fields)]  # fmt: skip
    assert len(leading) == 4
    for attach_type in range(64):
        for flags in (0, 8, 16):
            values = {"attach_type": attach_type, "flags": flags, "target_btf_id": 0}
            applying = [arm for arm in LINK_CREATE.arms if arm.when(values)]
            assert not set(map(id, applying[1:])) & set(map(id, leading))


@pytest.mark.parametrize("limit", [0, 8, 262_144 * 8])
def test_instructions_are_as_many_as_the_user_wants(limit: int) -> None:
    """And nothing else depends on it."""
    other = plans(limit)
    insns = read(other[5]).special[wire.SHAPE_BULK]
    assert insns.limit == limit
    assert [number for number in PLANS if other[number] != PLANS[number]] == [5]


# --- A second look -----------------------------------------------------------------------


def test_what_strace_would_read_is_taken_beside_ours() -> None:
    """The log before it is written, and what pointers in the info of a program lead to."""
    more = plans(LIMIT, strace.COMMANDS)
    load, loads = (read(each[5]).rows for each in (PLANS, more))
    (log,) = (row for row in loads if row not in load)
    assert (log.pointer, log.counter, log.unit) == (32, 28, 1)
    assert log.when == wire.ROW_ENTRY | wire.ROW_ASIDE
    ours, *rest = read(more[15]).rows
    assert [ours] == read(PLANS[15]).rows
    before, *inside = rest
    assert (before.pointer, before.counter, before.when) == (8, 4, log.when)
    # struct bpf_prog_info: jited_prog_insns, xlated_prog_insns, map_ids and their numbers.
    assert [(row.pointer, row.counter, row.unit, row.choice) for row in inside] == [
        (24, 16, 1, 8), (32, 20, 1, 8), (56, 52, 4, 8),
    ]  # fmt: skip
    assert {row.when for row in inside} == {wire.ROW_SUCCESS | wire.ROW_ASIDE | wire.ROW_INSIDE}
