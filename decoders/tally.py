# SPDX-License-Identifier: Apache-2.0
"""What counts of calls that are told together: bytes that were moved, objects that were met."""

from collections.abc import Mapping
from errno import ENOENT
from struct import Struct
from typing import Final

from ..events.call import RESULT, Call, ObjectKind
from ..events.wire import UNIT_KEY, UNIT_VALUE
from . import objects
from .layout import Command
from .table import COMMANDS

Met = tuple[int, int]
"""Kind (:class:`ObjectKind`) and id of an object."""

_ID: Final = Struct("=I")

_NEXT_ID: Final[Mapping[int, ObjectKind]] = {
    objects.PROG_GET_NEXT_ID.number: ObjectKind.PROG,
    objects.MAP_GET_NEXT_ID.number: ObjectKind.MAP,
    objects.BTF_GET_NEXT_ID.number: ObjectKind.BTF,
    objects.LINK_GET_NEXT_ID.number: ObjectKind.LINK,
}
_NEXT_ID_AT: Final = objects.PROG_GET_NEXT_ID.layout.offset_of("next_id")
_OBJECT_AT: Final[Mapping[int, int]] = {
    objects.PROG_GET_FD_BY_ID.number: RESULT,
    objects.MAP_GET_FD_BY_ID.number: RESULT,
    objects.BTF_GET_FD_BY_ID.number: RESULT,
    objects.LINK_GET_FD_BY_ID.number: RESULT,
    objects.OBJ_GET_INFO_BY_FD.number: objects.OBJ_GET_INFO_BY_FD.layout.offset_of("bpf_fd"),
}

WALKS: Final = frozenset({*_NEXT_ID, *_OBJECT_AT})
"""The commands by which somebody looks at what there is: from id to id, to a descriptor, to
what it is."""


def met(call: Call) -> Met | None:
    """The object that one of ``WALKS`` came upon; None if it failed, or if it is not known."""
    if call.retval < 0:
        return None
    kind = _NEXT_ID.get(call.command)
    if kind is None:
        found = call.objects.get(_OBJECT_AT.get(call.command, RESULT))
        return (found.kind, found.id) if found else None
    told = call.exit[_NEXT_ID_AT : _NEXT_ID_AT + _ID.size]
    return (kind, _ID.unpack(told)[0]) if len(told) == _ID.size else None


def _keys_and_values(command: Command) -> frozenset[int]:
    return frozenset(
        slot.offset
        for slot in command.layout.slots
        for field in slot.fields
        if field.target and field.target.unit in (UNIT_KEY, UNIT_VALUE)
    )


_MOVED: Final[Mapping[int, frozenset[int]]] = {
    number: offsets
    for number, command in COMMANDS.items()
    if (offsets := _keys_and_values(command))
}
"""Where in attr pointers to keys and values are."""


def moved(call: Call) -> int | None:
    """Bytes of the keys and values that a call passed to the kernel or got from it.

    Of a map with values for each CPU, those of all; of a batch, of all its elements, whether
    they were captured or not. A call that failed moved none, unless there was nothing (more) to
    be found: ENOENT also ends the last batch of a map.

    :returns: None if it is not known, as without BTF of the kernel, or if the command has none.
    """
    offsets = _MOVED.get(call.command)
    if offsets is None:
        return None
    if call.retval < 0 and call.retval != -ENOENT:
        return 0
    total = None
    for at, blob in call.memory.items():
        if at in offsets:
            total = blob.wanted + (total or 0)
    return total
