# SPDX-License-Identifier: Apache-2.0
"""Who touches what is ours: the maps, programs and links of this tracer."""

import os
from collections.abc import Iterable
from typing import Final

from ..events.call import RESULT, Call, Object, ObjectKind
from ..events.event import Event
from ..events.notice import Notice, Reason
from ..events.object import Described
from . import own
from .recent import Recent

Identity = tuple[int, int]
"""Kind (:class:`ObjectKind`) and id of an object."""

_READS: Final = frozenset({
    "BPF_MAP_LOOKUP_ELEM", "BPF_MAP_GET_NEXT_KEY", "BPF_MAP_LOOKUP_BATCH",
    "BPF_OBJ_GET_INFO_BY_FD", "BPF_PROG_QUERY", "BPF_TASK_FD_QUERY",
})  # fmt: skip
"""Commands that leave an object as it is."""

_TOLD_MAX: Final = 4096


class Guard:
    """Knows our objects by their ids.

    A process is told of once that it opened and once that it read; of each change.

    :param ours: what is ours.
    """

    def __init__(self, ours: frozenset[Identity]) -> None:
        self._ours = ours
        self._told: Recent[tuple[int, int, Reason], bool] = Recent(_TOLD_MAX)

    def is_touched(self, call: Call) -> bool:
        """Whether the call is about an object of ours."""
        # And where descriptors led afterwards, if they were swapped.
        for objects in call.objects, call.objects_after:
            for found in objects.values():
                if (found.kind, found.id) in self._ours:
                    return True
        return False

    def noticed(self, event: Event) -> Notice | None:
        """What is to be said of a call, mostly nothing."""
        call = event.call
        if not self.is_touched(call):
            return None
        for at, found in (*call.objects.items(), *call.objects_after.items()):
            if (found.kind, found.id) in self._ours:
                touched = _described(event, at, found)
                reason = _reason(event.command, opened=at == RESULT)
                who = call.tgid, call.process_start_ns, reason
                if reason is not Reason.OWN_CHANGED and self._told.get(who):
                    return None
                self._told[who] = True
                return Notice(reason, call.returned_ns, touched=touched)
        return None


def _reason(command: str, *, opened: bool) -> Reason:
    if opened:
        return Reason.OWN_OPENED
    return Reason.OWN_READ if command in _READS else Reason.OWN_CHANGED


def _described(event: Event, at: int, found: Object) -> Described:
    if at == RESULT and event.result:
        return event.result
    known = (behind.described for behind in event.behind)
    return next((each for each in known if each.object == found), Described(found, ""))


_KINDS: Final = {
    "anon_inode:bpf-map": ObjectKind.MAP,
    "anon_inode:bpf-prog": ObjectKind.PROG,
    "anon_inode:bpf_link": ObjectKind.LINK,
}


def identities(fds: Iterable[int]) -> frozenset[Identity]:
    """Of the objects behind descriptors of ours; others are left out."""
    kinds = {fd: _KINDS.get(os.readlink(f"/proc/self/fd/{fd}")) for fd in fds}
    return frozenset((kind, own.object_id(fd)) for fd, kind in kinds.items() if kind)
