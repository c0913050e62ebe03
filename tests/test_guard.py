# SPDX-License-Identifier: Apache-2.0
"""Calls that touch what is the tracer's."""

import os

import pytest

from bpfsnoop.events.call import RESULT, Call, Object
from bpfsnoop.events.notice import Reason
from bpfsnoop.tracer.guard import Guard, identities
from calls import attr, call_of, link_of, map_of, prog_of
from documents import DECODER

OURS = frozenset({(1, 12), (2, 31), (3, 4)})


def noticed(guard: Guard, call: Call) -> tuple[Reason, str] | None:
    notice = guard.noticed(DECODER.decode(call))
    if notice is None:
        return None
    assert notice.touched
    assert notice.time_ns == call.returned_ns
    return notice.reason, str(notice.touched)


@pytest.mark.parametrize(
    ("cmd", "passed", "objects", "reason"),
    [
        (14, attr("I", 12), {RESULT: map_of(id=12)}, Reason.OWN_OPENED),
        (13, attr("I", 31), {RESULT: prog_of(id=31)}, Reason.OWN_OPENED),
        (30, attr("I", 4), {RESULT: link_of(id=4)}, Reason.OWN_OPENED),
        (1, attr("iQQ", 3, 1, 2), {0: map_of(id=12)}, Reason.OWN_READ),
        (15, attr("iIQ", 3, 8, 1), {0: prog_of(id=31)}, Reason.OWN_READ),
        (2, attr("iQQ", 3, 1, 2), {0: map_of(id=12)}, Reason.OWN_CHANGED),
        (3, attr("iQ", 3, 1), {0: map_of(id=12)}, Reason.OWN_CHANGED),
        (22, attr("i", 3), {0: map_of(id=12)}, Reason.OWN_CHANGED),
        (34, attr("i", 3), {0: link_of(id=4)}, Reason.OWN_CHANGED),
        (6, attr("QI", 1, 3), {8: prog_of(id=31)}, Reason.OWN_CHANGED),
    ],
)  # fmt: skip
def test_what_is_done_with_it(
    cmd: int, passed: bytes, objects: dict[int, Object], reason: Reason
) -> None:
    found = noticed(Guard(OURS), call_of(cmd, passed, objects=objects))
    assert found
    assert found[0] is reason
    assert found[1].split()[0] in ("map:12", "prog:31", "link:4")


def test_an_attempt_counts_too() -> None:
    call = call_of(22, attr("i", 3), retval=-1, objects={0: map_of(id=12)})
    assert noticed(Guard(OURS), call) == (Reason.OWN_CHANGED, 'map:12 hash "config"')


def test_a_descriptor_that_was_swapped_for_ours_counts_too() -> None:
    pinned = call_of(6, attr("QI", 1, 3), objects={8: map_of(id=99)})
    swapped = pinned._replace(objects_after={8: map_of(id=12)})
    assert noticed(Guard(OURS), swapped) == (Reason.OWN_CHANGED, 'map:12 "config"')


def test_others_objects_are_others_business() -> None:
    guard = Guard(OURS)
    assert noticed(guard, call_of(22, attr("i", 3))) is None
    assert noticed(guard, call_of(22, attr("i", 3), objects={0: map_of(id=13)})) is None
    assert noticed(guard, call_of(22, attr("i", 3), objects={0: prog_of(id=12)})) is None


def test_looking_is_told_once_for_each_process_and_changes_each_time() -> None:
    guard = Guard(OURS)
    reads = call_of(1, attr("iQQ", 3, 1, 2), objects={0: map_of(id=12)})
    change = call_of(22, attr("i", 3), objects={0: map_of(id=12)})
    assert noticed(guard, reads)
    assert noticed(guard, reads) is None
    assert noticed(guard, reads._replace(tgid=99))
    assert noticed(guard, change)
    assert noticed(guard, change)


def test_descriptors_of_other_things_are_left_out() -> None:
    reader, writer = os.pipe()
    try:
        assert identities([reader, writer]) == frozenset()
    finally:
        os.close(reader)
        os.close(writer)
