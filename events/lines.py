# SPDX-License-Identifier: Apache-2.0
"""Documents of one stream as lines of JSON; what is the same in many is spelled once."""

import re
from collections.abc import Hashable
from typing import Final, TypeVar

from . import ecs
from .call import Call
from .ecs import Origin, Parts, Shared
from .event import Event
from .memory import Content, InMap, Memory
from .process import Process
from .typed import Typed

_KEPT: Final = 512  # of each kind
_BYTES: Final = frozenset({Content, InMap, Typed})

# Of calls that pass the same attr, one is made into a document with these in the place of what
# differs, and its JSON is cut there.
_DURATION, _SEQUENCE, _RETVAL = range(9_000_000_000_000_000_001, 9_000_000_000_000_000_004)
_ADDRESS: Final = 0x7FFF_FFFF_FFFF_FFF4
_PROCESS: Final = "@process@"
_CALLER: Final = "@caller@"
_END: Final = f'}},"{_CALLER}":0}}\n'
_MARKS: Final = (
    ecs.timestamp(0), str(_DURATION), str(_SEQUENCE), str(_RETVAL), f'"{_PROCESS}"',
    hex(_ADDRESS), _END,
)  # fmt: skip
_UNKNOWN: Final[list[str]] = []
_MARK: Final = re.compile("|".join(map(re.escape, _MARKS)))

T = TypeVar("T")


class _Who:
    """What documents say of a thread, until its rights change."""

    def __init__(self, process: Process, shared: Shared) -> None:
        self.process = process  # kept, so that nothing else gets its id()
        self.shared = shared
        self.about = ecs.json_text(shared.process)
        self.caller = ecs.json_text(shared.caller)[1:-1]


class JsonLines:
    """Spells events as :func:`events.ecs.event_document` says, and much faster."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._host = ecs.host_document(origin)
        self._threads: dict[Hashable, _Who] = {}
        self._forms: dict[Hashable, list[str] | None] = {}
        self._objects: dict[Hashable, tuple[object, str]] = {}

    def event(
        self, event: Event, process: Process, *, time_ns: int, sequence: int, message: str = ""
    ) -> bytes:
        """One event as a line; for the arguments see there."""
        who = self._who(event.call, process, time_ns - event.call.start_ns)
        form = self._form(event) if event.simple and not message else None
        if form:
            return self._filled(form, event, who, time_ns, sequence)
        parts = self._parts(event, who.shared)
        return ecs.json_line(
            ecs.assembled(event, parts, time_ns=time_ns, sequence=sequence, message=message)
        )

    def _parts(self, event: Event, shared: Shared) -> Parts:
        attr, objects = ecs.attr_document(event), ecs.objects_document(event)
        return Parts(shared, attr, objects, self._host, self._origin.probe)

    def _who(self, call: Call, process: Process, offset_ns: int) -> _Who:
        key = id(process), offset_ns, call.who
        who = self._threads.get(key)
        if who is None:
            who = _Who(process, ecs.shared(call, process, self._origin, offset_ns))
            _keep(self._threads, key, who)
        return who

    def _form(self, event: Event) -> list[str] | None:
        call = event.call
        key = call.cmd, call.size, call.flags, call.entry
        known = self._forms.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        bare = call._replace(duration_ns=_DURATION, retval=_RETVAL, attr_addr=_ADDRESS)
        specimen = event._replace(call=bare, behind=(), memory=())
        parts = self._parts(specimen, Shared({_CALLER: 0}, _PROCESS))
        document = ecs.assembled(specimen, parts, time_ns=0, sequence=_SEQUENCE)
        text = ecs.json_line(document).decode()
        # A caller may have chosen one of the marks for its attr.
        form = _MARK.split(text) if _MARK.findall(text) == [*_MARKS] else None
        _keep(self._forms, key, form)
        return form

    def _filled(
        self, form: list[str], event: Event, who: _Who, time_ns: int, sequence: int
    ) -> bytes:
        call = event.call
        start, to_duration, to_sequence, to_retval, to_process, to_address, attr, _ = form
        behind = self._behind(event) if event.behind else ""
        memory = ",".join([_memory(name, found) for name, found in event.memory])
        if memory:
            behind += f',"memory":{{{memory}}}'
        return (
            f"{start}{ecs.timestamp(time_ns)}{to_duration}{call.duration_ns}{to_sequence}"
            f"{sequence}{to_retval}{call.retval}{to_process}{who.about}{to_address}"
            f"{call.attr_addr:#x}{attr}{behind}}},{who.caller}}}\n"
        ).encode()

    def _behind(self, event: Event) -> str:
        first = event.behind[0]
        key: Hashable = first[0], id(first[1])
        if len(event.behind) > 1:
            key = tuple([(field, id(described)) for field, described in event.behind])
        known = self._objects.get(key)
        if known is None:
            text = ecs.json_text(ecs.objects_document(event))
            known = event.behind, f",{text[1:-1]}"  # kept, as above
            _keep(self._objects, key, known)
        return known[1]


def _memory(name: str, memory: Memory) -> str:
    content, blob = memory
    if type(content) in _BYTES and not blob.state and len(blob.data) == blob.read:
        typed = content.typed(blob) if type(content) is Typed else ""
        more = f',"typed":{ecs.json_text(typed)}' if typed else ""
        return f'"{name}":{{"hex":"{blob.data.hex()}"{more},"size":{blob.wanted}}}'
    return f'"{name}":{ecs.json_text(memory.document())}'


def _keep(known: dict[Hashable, T], key: Hashable, thing: T) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = thing
