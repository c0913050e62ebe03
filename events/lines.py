# SPDX-License-Identifier: Apache-2.0
"""Documents of one stream as lines of JSON; what is the same in many is spelled once."""

from collections.abc import Hashable
from typing import Final, TypeVar

from . import ecs
from .call import Call
from .ecs import Document, Origin, Parts, Shared, spelled
from .event import Event
from .process import Process

_KEPT: Final = 1024  # of each kind


T = TypeVar("T")


class JsonLines:
    """Spells events as :func:`events.ecs.event_document` says, and much faster."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._host = spelled(ecs.host_document(origin))
        # What a key names by its id() is kept beside it, so that nothing else gets that.
        self._shared: dict[Hashable, tuple[Process, Shared]] = {}
        self._attrs: dict[Hashable, Document] = {}
        self._objects: dict[Hashable, tuple[object, Document]] = {}

    def event(
        self, event: Event, process: Process, *, time_ns: int, sequence: int, message: str = ""
    ) -> bytes:
        """One event as a line; for the arguments see there."""
        parts = Parts(
            self._caller(event.call, process, time_ns - event.call.start_ns),
            self._attr(event), self._about(event), self._host, self._origin.probe,
        )  # fmt: skip
        return ecs.json_line(
            ecs.assembled(event, parts, time_ns=time_ns, sequence=sequence, message=message)
        )

    def _caller(self, call: Call, process: Process, offset_ns: int) -> Shared:
        key = (id(process), offset_ns, call.who)
        known = self._shared.get(key)
        if known is None:
            parts = ecs.shared(call, process, self._origin, offset_ns)
            known = process, Shared(_all_spelled(parts.caller), spelled(parts.process))
            _keep(self._shared, key, known)
        return known[1]

    def _attr(self, event: Event) -> Document:
        call = event.call
        if call.exit is not call.entry or not (call.kernel is None or call.kernel is call.entry):
            return ecs.attr_document(event)
        key = call.cmd, call.size, call.entry
        known = self._attrs.get(key)
        if known is None:
            known = _all_spelled(ecs.attr_document(event))
            _keep(self._attrs, key, known)
        return known

    def _about(self, event: Event) -> Document:
        if not event.behind and not event.result and not event.program:
            return {}
        if event.program:
            return ecs.objects_document(event)
        key = id(event.result), *[(field, id(described)) for field, described in event.behind]
        known = self._objects.get(key)
        if known is None:
            known = (event.behind, event.result), _all_spelled(ecs.objects_document(event))
            _keep(self._objects, key, known)
        return known[1]


def _keep(known: dict[Hashable, T], key: Hashable, thing: T) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = thing


def _all_spelled(parts: Document) -> Document:
    return {name: spelled(part) for name, part in parts.items()}
