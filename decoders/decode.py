# SPDX-License-Identifier: Apache-2.0
"""``decode(Call) -> Event``: total and pure."""

from collections.abc import Mapping
from typing import Final

from ..events.call import COMMON_ATTRS, Call
from ..events.event import ATTR_READ_AT_EXIT, OUTPUT_UNREADABLE, Absence, Event, Trailing
from ..events.value import Enum, Items
from ..events.wire import ATTR_MAX, COMMAND_OTHER
from .layout import Command, nested
from .table import COMMANDS

KernelNames = Mapping[str, Mapping[int, str]]
"""Constants by C type (``bpf_map_type``) and value, as the running kernel's BTF has them."""

_CMD: Final = "bpf_cmd"


class Decoder:
    """Decodes calls, with the running kernel's names for what our tables lack.

    :param kernel_names: may be empty, and may hold more than is needed.
    """

    def __init__(self, kernel_names: KernelNames | None = None) -> None:
        names = kernel_names or {}
        self._unknown_commands = {
            number: name
            for number, name in names.get(_CMD, {}).items()
            if number not in COMMANDS and number < COMMON_ATTRS
        }

        def extended(enum: Enum) -> Enum:
            return enum.extended(names.get(enum.c_type, {}))

        self._commands = (
            {number: command.renamed(extended) for number, command in COMMANDS.items()}
            if names
            else COMMANDS
        )

    def slot_names(self) -> dict[int, str]:
        """The names of the counter slots of :class:`Totals`; ``other`` for the shared one."""
        known = {number: command.name for number, command in self._commands.items()}
        return {**self._unknown_commands, **known, COMMAND_OTHER: "other"}

    def decode(self, call: Call) -> Event:
        """What the call was. Any call has an answer; nothing is raised."""
        command = self._commands.get(call.command)
        if command is None:
            name = self._unknown_commands.get(call.command, "")
            return Event(call, name, None, Absence.UNKNOWN_COMMAND)
        absence = _absence(call)
        if absence:
            return Event(call, command.name, None, absence)
        return _decoded(command, call)


def _absence(call: Call) -> Absence | None:
    if call.attr_addr == 0:
        return Absence.NULL
    if call.size == 0:
        return Absence.EMPTY
    if call.size > ATTR_MAX:
        return Absence.OVERSIZE
    if call.size > len(call.entry) and call.size > len(call.exit):
        return Absence.UNREADABLE
    return None


def _decoded(command: Command, call: Call) -> Event:
    size = call.size
    plan = command.layout.plan(size)
    entry, exit_ = call.entry, call.exit
    notes: tuple[str, ...] = ()
    if len(entry) < size:
        entry, notes = exit_, (ATTR_READ_AT_EXIT,)
    elif plan.has_outputs and len(exit_) < size:
        exit_, notes = entry, (OUTPUT_UNREADABLE,)

    raw = plan.unpack(entry)
    final = plan.unpack(exit_) if plan.has_outputs else raw
    items, after = plan.items(raw, final)
    known = command.layout.end

    if command.arms and size > known:
        arm_items, known = _arm(command, plan.values(raw), entry, size, known)
        items += arm_items

    rest = entry[known:]
    trailing = Trailing(known, rest) if rest.strip(b"\0") else None
    return Event(call, command.name, items, None, command.wrapper, after, trailing, notes)


def _arm(
    command: Command, values: Mapping[str, int], data: bytes, size: int, end: int
) -> tuple[Items, int]:
    # The fields of the arm that applies, and where the known bytes end with it.
    for arm, layout in command.arm_layouts:
        if arm.when(values):
            plan = layout.plan(size)
            raw = plan.unpack(data)
            items, _ = plan.items(raw, raw, values)
            return (nested(arm.name, items),) if arm.name else items, layout.end
    return (), end
