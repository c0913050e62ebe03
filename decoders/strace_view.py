# SPDX-License-Identifier: Apache-2.0
"""A call as strace 7.2 shows it: ``--strace-compat``."""

from collections.abc import Collection
from struct import Struct as Packing
from typing import Any, Final, NamedTuple, Protocol

from ..events import text
from ..events.call import RESULT, Blob, Call, ObjectKind
from ..events.event import Event
from ..events.memory import Memory
from ..events.value import ANGLED, Detail, DirFd, Fd, IfIndex, Style, constant, escape
from ..events.wire import ATTR_MAX
from .decode import fields, passed
from .layout import Command, Field, Target
from .objects import OBJ_GET_INFO_BY_FD
from .strace import COMMANDS, DESCRIPTORS
from .strace_info import info
from .strace_memory import Answers, IterInfo

_INT_MAX: Final = (1 << 31) - 1
_NAMES: Final = {
    ObjectKind.MAP: b"anon_inode:bpf-map",
    ObjectKind.PROG: b"anon_inode:bpf-prog",
    ObjectKind.LINK: b"anon_inode:bpf_link",
    ObjectKind.BTF: b"anon_inode:btf",
}
"""What the kernel calls the files behind descriptors of objects."""
_LINK_AGAIN: Final = DESCRIPTORS["BPF_LINK_GET_FD_BY_ID"]
_INFO_FD: Final = OBJ_GET_INFO_BY_FD.layout.offset_of("bpf_fd")
_GONE: Final = b" (deleted)"
_NOWHERE: Final = ATTR_MAX  # an offset of which the kernel program tells nothing
_U32, _S32, _U64 = Packing("=I"), Packing("=i"), Packing("=Q")


def _offsets(command: Command) -> frozenset[int]:
    layouts = [command.layout, *(layout for _, layout in command.arm_layouts)]
    return frozenset(slot.offset for layout in layouts for slot in layout.slots if slot.fields)


_OFFSETS: Final = {number: _offsets(command) for number, command in COMMANDS.items()}


class Names(Protocol):
    """What the host knows, and the kernel program did not tell."""

    def descriptor(self, tid: int, fd: int) -> bytes:
        """What a descriptor of a thread leads to, as in /proc; empty if it cannot be told.

        :param fd: or ``AT_FDCWD``.
        """

    def interface(self, index: int) -> bytes:
        """The name of a network interface; empty if there is none."""

    def time_of_day(self, time_ns: int) -> str:
        """As in ISO 8601; empty if there is no such time.

        :param time_ns: since the epoch.
        """


class View:
    """Spells calls as strace does.

    :param descriptors: say what is behind them; strace's ``-y``.
    """

    def __init__(self, names: Names, *, descriptors: bool = False) -> None:
        self._names = names
        self._descriptors = descriptors

    def line(self, call: Call, style: Style, time_ns: int) -> tuple[str, str]:
        """``bpf(...)`` and what follows ``= ``.

        :param time_ns: when the call began, ns since the epoch.
        """
        command = COMMANDS.get(call.cmd)
        event = Event(call, command.name if command else "", None, None)
        if command and _is_readable(call):
            event = self._shown(command, call, time_ns)
        return text.call(event, style), text.result(event) + self._returned(event)

    def _shown(self, command: Command, call: Call, time_ns: int) -> Event:
        data, _ = passed(call)
        details = _Details(
            call, data, self._names,
            booted_ns=time_ns - call.start_ns, descriptors=self._descriptors,
        )  # fmt: skip
        shown = fields(command, call, data, details)
        return Event(
            call, command.name, shown.items, None, command.wrapper, shown.after, shown.trailing
        )

    def _returned(self, event: Event) -> str:
        call = event.call
        decorated = self._descriptors and event.attr is not None and event.command in DESCRIPTORS
        if not decorated or not call.returned or not 0 <= call.retval <= _INT_MAX:
            return ""
        name = DESCRIPTORS[event.command] or _file(call, RESULT, call.retval, self._names)
        return _bracketed(name)


def _is_readable(call: Call) -> bool:
    there = max(len(call.entry), len(call.exit), len(call.kernel or b""))
    return bool(call.attr_addr) and 0 < call.size <= min(there, ATTR_MAX)


class _Details:
    """A :class:`decoders.layout.Details`: what strace looks up while it prints."""

    def __init__(
        self, call: Call, data: bytes, names: Names, *, booted_ns: int, descriptors: bool
    ) -> None:
        self._call = call
        self._data = data
        self._names = names
        self._booted_ns = booted_ns
        self._descriptors = descriptors
        self.offsets: Collection[int] = _OFFSETS[call.command]

    def of(self, offset: int, field: Field) -> Detail | None:
        if field.target:
            return self._memory(offset, field.target) if self._number(offset, _U64) else None
        if isinstance(field.kind, IfIndex):
            index = self._number(offset, _U32)
            name = self._names.interface(index) if index else b""
            return _Named(f'if_nametoindex("{escape(name)}")') if name else None
        if isinstance(field.kind, Fd) and self._descriptors:
            return self._file(offset, field, self._number(offset, _S32))
        return None

    def _number(self, offset: int, packing: Packing) -> int:
        return int(packing.unpack_from(self._data.ljust(offset + packing.size, b"\0"), offset)[0])

    def _file(self, offset: int, field: Field, fd: int) -> Detail | None:
        here = isinstance(field.kind, DirFd) and fd == DirFd.AT_FDCWD
        return _Behind(_file(self._call, offset, fd, self._names)) if fd >= 0 or here else None

    def _memory(self, offset: int, target: Target) -> Detail | None:
        call, content = self._call, target.content
        blob = call.aside.get(offset) if target.aside else call.memory.get(offset)
        if isinstance(content, Answers):
            blob = blob or call.memory.get(offset)  # of a recording that was made without
            if blob and blob.wanted and call.retval < 0:
                return None
        if blob is None:
            return None
        if call.command == OBJ_GET_INFO_BY_FD.number:
            return self._info(blob, call.memory.get(offset, blob))
        if self._descriptors and isinstance(content, IterInfo):
            content = IterInfo(self._behind)
        return Memory(content, blob)

    def _behind(self, fd: int) -> str:
        return _bracketed(_file(self._call, _NOWHERE, fd, self._names)) if fd >= 0 else ""

    def _info(self, before: Blob, after: Blob) -> Detail | None:
        whose = self._call.objects.get(_INFO_FD)
        if whose is None or len(after.data) < after.wanted:
            return None
        aside, time_of_day = self._call.aside, self._time_of_day
        return info(whose.kind, before.data, after.data, aside, time_of_day)

    def _time_of_day(self, boottime_ns: int) -> str:
        return self._names.time_of_day(boottime_ns + self._booted_ns)


class _Named(NamedTuple):
    """A number with a name; a :class:`events.value.Detail`."""

    name: str

    def text(self, value: Any, plain: str, style: Style) -> str:
        return constant(str(value), self.name, style.xlat)


class _Behind(NamedTuple):
    """What a descriptor leads to; a :class:`events.value.Detail`."""

    path: bytes

    def text(self, value: Any, plain: str, style: Style) -> str:
        return plain + _bracketed(self.path)


def _file(call: Call, offset: int, fd: int, names: Names) -> bytes:
    found = call.objects.get(offset)
    if found is None:
        return names.descriptor(call.tid, fd)
    if found.kind == ObjectKind.LINK and names.descriptor(call.tid, fd) == _LINK_AGAIN:
        return _LINK_AGAIN
    return _NAMES[ObjectKind(found.kind)]


def _bracketed(path: bytes) -> str:
    name = path.removesuffix(_GONE)
    return f"<{escape(name, ANGLED)}>{'(deleted)' * (name != path)}" if path else ""
