# SPDX-License-Identifier: Apache-2.0
"""``decode(Call) -> Event``: total and pure."""

import errno
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from ..events.call import COMMON_ATTRS, RESULT, Call, CallFlag, Object, ObjectKind
from ..events.event import (
    ATTR_PARTLY_READ,
    ATTR_READ_AT_EXIT,
    ENTRY_UNSEEN,
    EXIT_UNSEEN,
    INNER_CALLS_UNSEEN,
    OUTPUT_UNREADABLE,
    PARTS_MISSING,
    TOCTOU_SUSPECT,
    UNPROVEN,
    Absence,
    Behind,
    Event,
    Trailing,
)
from ..events.memory import Content, Memory
from ..events.object import Described
from ..events.value import Detail, Enum, Fd, Items
from ..events.wire import ATTR_MAX, COMMAND_OTHER
from . import info, truth, uapi, why
from .capture import VALUE_FLAGS
from .layout import Command, Details, Field, nested
from .loads import KFUNCS, program_of
from .map_types import KnownMap
from .objects import OBJ_GET_INFO_BY_FD
from .progs import PROG_LOAD, PROG_TEST_RUN
from .table import COMMANDS

KernelNames = Mapping[str, Mapping[int, str]]
"""Constants by C type (``bpf_map_type``) and value, as the running kernel's BTF has them."""

MapContents = Callable[[int], KnownMap | None]
"""How to spell what is in a map, by its id; None: as bytes."""

_CMD: Final = "bpf_cmd"
_RUN_PROG: Final = PROG_TEST_RUN.layout.offset_of("prog_fd")
_INFO_FD: Final = OBJ_GET_INFO_BY_FD.layout.offset_of("bpf_fd")
_LOADER: Final = 31  # BPF_PROG_TYPE_SYSCALL
_OBJECTS: Final = 4096
_TEMPLATES: Final = 512  # a KB each; callers use the same buffers again and again
# As int: the enum's own & takes ten times as long.
_NO_ENTRY: Final = int(CallFlag.NO_ENTRY)
_NO_ROOM: Final = int(CallFlag.NO_ROOM)
_NOT_SIMPLE: Final = ~int(CallFlag.COMPAT | CallFlag.SAME_ATTR)
_LOGS: Final = "log_buf", "btf_log_buf"
_MAP: Final = int(ObjectKind.MAP)
_new = tuple.__new__
_FLAGS: Final = Struct("=Q")
_ONE_VALUE: Final = uapi.BPF_F_CPU | uapi.BPF_F_ALL_CPUS


class _Template(NamedTuple):
    """What all calls of data have in common that pass the same attr, and that nobody changed."""

    command: Command
    items: Items
    descriptors: Mapping[int, str]
    """Fields that may lead to an object, by offset."""
    pointers: Mapping[int, tuple[str, Content]]
    """The same of memory, with what is there."""
    simple: bool
    """There is nothing else to be said of attr."""


class Decoder:
    """Decodes calls, with the running kernel's names for what our tables lack.

    :param kernel_names: may be empty, and may hold more than is needed.
    :param sees_inside: calls come with the kernel's own copy of attr, and those that the kernel
        makes itself come too; None: nobody knows.
    :param listings: disassemble programs that are loaded.
    :param of_map: how to spell what is in a map.
    """

    def __init__(
        self,
        kernel_names: KernelNames | None = None,
        *,
        sees_inside: bool | None = None,
        listings: bool = False,
        of_map: MapContents = lambda _: None,
    ) -> None:
        self._sees_inside = sees_inside
        self._listings = listings
        self._of_map = of_map
        names = kernel_names or {}
        self._kfuncs = names.get(KFUNCS, {})
        self._unknown_commands = {
            number: name
            for number, name in names.get(_CMD, {}).items()
            if number not in COMMANDS and number < COMMON_ATTRS
        }

        def extended(enum: Enum) -> Enum:
            return enum.extended(names.get(enum.c_type, {}))

        self._object_types: Mapping[int, Enum] = {
            ObjectKind.MAP: extended(uapi.MAP_TYPE),
            ObjectKind.PROG: extended(uapi.PROG_TYPE),
            ObjectKind.LINK: extended(uapi.LINK_TYPE),
        }
        self._describe = lru_cache(_OBJECTS)(self._described_once)
        self._templates: dict[tuple[int, int, bytes], _Template] = {}
        self._commands = (
            {number: command.renamed(extended) for number, command in COMMANDS.items()}
            if names
            else COMMANDS
        )

    def slot_names(self) -> dict[int, str]:
        """The names of the counter slots of :class:`Totals`; ``other`` for the shared one."""
        known = {number: command.name for number, command in self._commands.items()}
        return {**self._unknown_commands, **known, COMMAND_OTHER: "other"}

    def described(self, found: Object) -> Described:
        """An object with the names of what it is."""
        return self._describe(found)

    def is_plain(self, call: Call) -> bool:
        """Whether the event of a call has no remarks and nothing that differs, at a glance.

        That of others may not have any either.
        """
        return (
            0 < call.size == len(call.entry)
            and call.attr_addr != 0
            and not call.flags & _NOT_SIMPLE
            and truth.is_unchanged(call)
            and not call.objects_after
            and RESULT not in call.objects
            and call.command in self._commands
            and not self._blind_spots(call)
        )

    def decode(self, call: Call) -> Event:
        """What the call was. Any call has an answer; nothing is raised."""
        # Most calls succeed and are like others before them.
        if call.retval >= 0 and call.exit is call.entry and not call.flags & _NOT_SIMPLE:
            known = self._templates.get((call.cmd, call.size, call.entry))
            copied = call.kernel is call.entry or (call.kernel is None and not self._sees_inside)
            if known and known.simple and copied:
                return self._like_others(call, known)
        event = self._decode(call)
        if call.command == PROG_LOAD.number:
            event = event._replace(program=program_of(call, self._kfuncs, listings=self._listings))
        return event._replace(reason=_reason(event)) if call.retval < 0 else event

    def _like_others(self, call: Call, template: _Template) -> Event:
        # Made as by the classes themselves, but that Python checks no argument once more.
        command, items, descriptors, pointers, _ = template
        behind = []
        in_map = None
        for at, found in call.objects.items():
            if found.kind == _MAP:
                in_map = self._of_map(found.id)
            if at in descriptors:
                behind.append(_new(Behind, (descriptors[at], self._describe(found))))
        memory = []
        for at, blob in call.memory.items():
            if at in pointers:
                name, content = pointers[at]
                if in_map or content is info.ANY:
                    content = _content(content, call, in_map)
                memory.append((name, _new(Memory, (content, blob))))
        return _new(Event, (
            call, command.name, items, None, command.wrapper, (), None, tuple(behind), None,
            tuple(memory), (), (), True, None, "",
        ))  # fmt: skip

    def _decode(self, call: Call) -> Event:
        command = self._commands.get(call.command)
        notes = _circumstances(call) + self._blind_spots(call)
        if command is None:
            name = self._unknown_commands.get(call.command, "")
            return Event(call, name, None, Absence.UNKNOWN_COMMAND, notes=notes)
        objects = self._described(call.objects)
        absence = _absence(call)
        if absence:
            return Event(call, command.name, None, absence, result=objects.get(RESULT), notes=notes)
        if command.data and len(call.entry) == call.size:
            self._remember(command, call)
        return _decoded(command, call, _Details(call, objects, self._in_map(call)), notes)

    def _in_map(self, call: Call) -> KnownMap | None:
        for found in call.objects.values():
            if found.kind == _MAP:
                return self._of_map(found.id)
        return None

    def _remember(self, command: Command, call: Call) -> None:
        key = call.cmd, call.size, call.entry
        if key not in self._templates:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[key] = _template_of(command, call.entry)

    def _blind_spots(self, call: Call) -> tuple[str, ...]:
        if self._sees_inside is False and call.command == PROG_TEST_RUN.number:
            run = call.objects.get(_RUN_PROG)
            loader = run and (run.kind, run.type) == (ObjectKind.PROG, _LOADER)
            return (INNER_CALLS_UNSEEN,) if loader else ()
        copied = call.kernel is not None or call.retval < 0 or call.attr_addr == 0
        return (UNPROVEN,) if self._sees_inside and not copied else ()

    def _described(self, objects: Mapping[int, Object]) -> Mapping[int, Described]:
        return {at: self._describe(found) for at, found in objects.items()}

    def _described_once(self, found: Object) -> Described:
        types = self._object_types.get(found.kind)
        return Described(found, types.names.get(found.type) or hex(found.type) if types else "")


def _reason(event: Event) -> str:
    log = next((memory.blob.data for name, memory in event.memory if name in _LOGS), b"")
    return why.reason(event.command, event.call, event.attr, log)


def _absence(call: Call) -> Absence | None:
    if call.attr_addr == 0:
        return Absence.NULL
    if call.size == 0:
        return Absence.EMPTY
    if call.size > ATTR_MAX:
        return Absence.OVERSIZE
    incomplete = call.kernel is None and call.size > max(len(call.entry), len(call.exit))
    # What the kernel could not read either, it did not act on.
    faulted = call.retval == -errno.EFAULT or not (call.entry or call.exit)
    return Absence.UNREADABLE if incomplete and faulted else None


def _circumstances(call: Call) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if call.flags & _NO_ENTRY:
        notes += (ENTRY_UNSEEN,)
    if not call.returned:
        notes += (EXIT_UNSEEN,)
    if call.flags & _NO_ROOM:
        notes += (PARTS_MISSING,)
    return notes


def _content(content: Content, call: Call, in_map: KnownMap | None) -> Content:
    # What it is of depends on what the descriptor leads to.
    if content is info.ANY:
        about = call.objects.get(_INFO_FD)
        return info.CONTENTS.get(about.kind, content) if about else content
    return in_map.instead_of(content, one_value=_is_one_value(call)) if in_map else content


def _is_one_value(call: Call) -> bool:
    at = VALUE_FLAGS.get(call.command, 0)
    flags = call.entry[at : at + _FLAGS.size]
    return bool(at) and len(flags) == _FLAGS.size and bool(_FLAGS.unpack(flags)[0] & _ONE_VALUE)


class _Details:
    """What came with a call, for the fields that it belongs to; notes what was asked for."""

    def __init__(
        self, call: Call, objects: Mapping[int, Described], in_map: KnownMap | None
    ) -> None:
        self._memory = call.memory
        self._call = call
        self._objects = objects
        self._in_map = in_map
        self.offsets: Collection[int] = [*objects, *call.memory]
        self.result = objects.get(RESULT)
        self.behind: list[Behind] = []
        self.memory: list[tuple[str, Memory]] = []

    def of(self, offset: int, field: Field) -> Detail | None:
        """A :class:`decoders.layout.Details`."""
        if field.target:
            blob = self._memory.get(offset)
            if blob is not None:
                content = _content(field.target.content, self._call, self._in_map)
                memory = Memory(content, blob)
                self.memory.append((field.name, memory))
                return memory
        elif isinstance(field.kind, Fd):
            described = self._objects.get(offset)
            if described is not None:
                self.behind.append(Behind(field.name, described))
                return described
        return None


def passed(call: Call) -> tuple[bytes, tuple[str, ...]]:
    """attr as the kernel has it, or else as it was found, and what is to be said of that."""
    if call.kernel is not None:  # behind its end the kernel saw to it that all is zero
        return call.kernel[: call.size].ljust(call.size, b"\0"), ()
    data, notes = call.entry, tuple[str, ...]()
    if len(call.entry) < call.size and len(call.exit) > len(call.entry):
        data, notes = call.exit, (ATTR_READ_AT_EXIT,)
    if len(data) < call.size:
        notes += (ATTR_PARTLY_READ,)
    return data, notes


class Fields(NamedTuple):
    """What attr says."""

    items: Items
    after: Items
    trailing: Trailing | None
    output_known: bool
    """What the kernel wrote could be read, or it writes nothing."""


def fields(command: Command, call: Call, data: bytes, details: Details) -> Fields:
    """The fields of a call's attr.

    :param data: attr, see :func:`passed`.
    """
    size = call.size
    plan = command.layout.plan(size, len(data))
    exit_ = call.exit
    read = call.returned and len(exit_) >= min(size, len(data))
    output_known = read or not plan.has_outputs
    raw = plan.unpack(data)
    final = plan.unpack(exit_ if output_known else data) if plan.has_outputs else raw
    items, after = plan.items(raw, final, details=details)
    known = command.layout.end

    if command.arms and size > known:
        arm_items, known = _arm(command, plan.values(raw), data, size, details)
        items += arm_items

    rest = data[known:]
    trailing = Trailing(known, rest) if rest.strip(b"\0") else None
    return Fields(items, after, trailing, output_known)


def _decoded(command: Command, call: Call, details: _Details, notes: tuple[str, ...]) -> Event:
    data, how = passed(call)
    differs = truth.differences(command, call, data)
    items, after, trailing, output_known = fields(command, call, data, details)
    if not output_known:
        how += (OUTPUT_UNREADABLE,)
    notes = how + notes + (TOCTOU_SUSPECT,) * bool(differs)
    return Event(
        call, command.name, items, None, command.wrapper, after, trailing,
        tuple(details.behind), details.result, tuple(details.memory), notes, differs,
    )  # fmt: skip


def _template_of(command: Command, attr: bytes) -> _Template:
    plan = command.layout.plan(len(attr), len(attr))
    raw = plan.unpack(attr)
    leads = plan.leading(raw)
    trailing = attr[command.layout.end :].strip(b"\0")
    return _Template(
        command, plan.items(raw, raw)[0],
        {at: field.name for at, field in leads.items() if not field.target},
        {at: (field.name, field.target.content) for at, field in leads.items() if field.target},
        not trailing and not command.arms and not command.returns_fd,
    )  # fmt: skip


def _arm(
    command: Command, values: Mapping[str, int], data: bytes, size: int, details: Details
) -> tuple[Items, int]:
    # The fields of the arm that applies, and where the known bytes end with it.
    for arm, layout in command.arm_layouts:
        if arm.when(values):
            plan = layout.plan(size, len(data))
            raw = plan.unpack(data)
            items, _ = plan.items(raw, raw, values, details)
            return (nested(arm.name, items),) if arm.name else items, layout.end
    return (), command.layout.end
