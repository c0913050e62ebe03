# SPDX-License-Identifier: Apache-2.0
"""Programs that come and go, by the kernel's own word, held against the calls that were seen."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final

from ..decoders.progs import PROG_LOAD, PROG_TEST_RUN
from ..decoders.tag import tags
from ..events.call import RESULT, Call, CallFlag, Object, ObjectKind
from ..events.notice import Notice, Reason
from .recent import Recent
from .witness import Life, What

GRACE_NS: Final = 2_000_000_000
"""So long a load waits for its call: calls come late when there are many."""

_NEVER: Final = 1 << 64
_INSNS_AT: Final = PROG_LOAD.layout.offset_of("insns")
_KNOWN_MAX: Final = 16_384  # programs of which the names are kept


class Lives:
    """Matches each load with a call of its thread that was under way at that time.

    :param since_ns: ``CLOCK_BOOTTIME`` from which calls are seen; earlier loads do not count.
    :param own_pid: the tracer's, whose calls are never seen.
    """

    def __init__(self, since_ns: int, own_pid: int) -> None:
        self._since_ns = since_ns
        self._until_ns = _NEVER
        self._own_pid = own_pid
        self._own_ids: set[int] = set()
        # Those that wait for their call: by thread and program, in the order of time.
        self._loads: dict[int, dict[int, Life]] = {}
        self._gone: list[Life] = []  # that may still be waited for
        self._known: Recent[int, Object] = Recent(_KNOWN_MAX)

    @property
    def waiting(self) -> bool:
        """Whether a load waits for its call."""
        return bool(self._loads)

    def stop(self, at_ns: int) -> None:
        """What happens from this ``CLOCK_BOOTTIME`` on is not seen."""
        self._until_ns = at_ns

    def feed(self, lives: Iterable[Life], calls: Iterable[Call], until_ns: int) -> list[Notice]:
        """Takes what has come. The word on a load must not come later than its call.

        :param until_ns: all calls that returned up to this ``CLOCK_BOOTTIME`` have come.
        """
        for life in lives:
            if life.what is What.LOADED and life.tgid == self._own_pid:
                self._own_ids.add(life.prog_id)
            elif not self._since_ns <= life.time_ns < self._until_ns:
                continue
            elif life.what is What.LOADED:
                self._loads.setdefault(life.tid, {})[life.prog_id] = life
            elif life.prog_id not in self._own_ids:  # they go whenever the kernel finds time
                self._gone.append(life)
        notices = [notice for call in calls for notice in self._match(call)]
        notices += self._unmatched(until_ns - GRACE_NS)
        return notices + self._unloaded()

    def end(self) -> list[Notice]:
        """No call will come any more."""
        return self._unmatched(_NEVER) + self._unloaded()

    def _match(self, call: Call) -> list[Notice]:
        waiting = self._loads.get(call.tid)
        if call.command == PROG_LOAD.number:
            made = call.objects.get(RESULT)
            if made and made.kind == ObjectKind.PROG:
                self._known[made.id] = made
                self._forget(call.tid, [made.id])
            elif waiting and not call.returned:
                self._forget(call.tid, _made_of(call, waiting))
            elif waiting and not call.flags & CallFlag.NO_ENTRY:
                # What it made did not get a descriptor.
                self._forget(call.tid, _during(call, waiting))
        elif waiting and call.command == PROG_TEST_RUN.number and call.returned:
            # Calls that the kernel made within it have come before it, if they were seen.
            taken = [waiting[prog_id] for prog_id in _during(call, waiting)]
            self._forget(call.tid, [life.prog_id for life in taken])
            return [_unseen(life, PROG_TEST_RUN.name) for life in taken]
        return []

    def _forget(self, tid: int, prog_ids: Iterable[int]) -> None:
        waiting = self._loads.get(tid, {})
        for prog_id in prog_ids:
            waiting.pop(prog_id, None)
        if not waiting:
            self._loads.pop(tid, None)

    def _unmatched(self, until_ns: int) -> list[Notice]:
        late = []
        for tid, waiting in list(self._loads.items()):
            over = list(takewhile(lambda life: life.time_ns < until_ns, waiting.values()))
            late += over
            self._forget(tid, [life.prog_id for life in over])
        return [_unseen(life) for life in late]

    def _unloaded(self) -> list[Notice]:
        # Not before it is known what they were.
        if not self._gone:
            return []
        waiting = {prog_id for loads in self._loads.values() for prog_id in loads}
        gone, self._gone = self._gone, [life for life in self._gone if life.prog_id in waiting]
        return [
            Notice(Reason.PROG_UNLOADED, life.time_ns, self._known.get(life.prog_id) or _prog(life))
            for life in gone
            if life.prog_id not in waiting
        ]


def _during(call: Call, waiting: Mapping[int, Life]) -> list[int]:
    """The programs that were loaded while the call was under way."""
    started = takewhile(lambda life: life.time_ns <= call.returned_ns, waiting.values())
    return [life.prog_id for life in started if life.time_ns >= call.start_ns]


def _made_of(call: Call, waiting: Mapping[int, Life]) -> list[int]:
    """The first that was loaded from the call's instructions.

    Nobody saw it return: it may have been over long before it was known to be.
    """
    insns = call.memory.get(_INSNS_AT)
    if insns is None or len(insns.data) < insns.wanted:
        return []
    possible = tags(insns.data)
    return [prog_id for prog_id in _during(call, waiting) if waiting[prog_id].tag in possible][:1]


def _unseen(life: Life, during: str = "") -> Notice:
    return Notice(Reason.LOAD_UNSEEN, life.time_ns, _prog(life), life.tgid, life.tid, during)


def _prog(life: Life) -> Object:
    return Object(ObjectKind.PROG, life.prog_id, 0, 0, 0, 0, 0, b"", life.tag)
