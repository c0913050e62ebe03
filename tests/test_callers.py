# SPDX-License-Identifier: Apache-2.0
"""Who made a call: each process once, and no process for another."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.call import Call
from bpfsnoop.events.process import Missing, Surroundings
from bpfsnoop.tracer import callers
from bpfsnoop.tracer.callers import Callers, Key
from calls import call_of, image_of, without_task

CALL = call_of(22, b"\3\0\0\0")
IMAGE = image_of()


def surroundings(cwd: bytes) -> Surroundings:
    return Surroundings(
        args=(b"loader",), args_cut=False, cwd=cwd, ancestors=(), ancestors_cut=False,
        cgroup=b"/", container=None, missing={},
    )  # fmt: skip


class Looks:
    """Finds something else each time, unless told otherwise."""

    def __init__(self, *found: Surroundings | None) -> None:
        self.asked: list[Key] = []
        self._found = list(found)

    def __call__(self, key: Key) -> Surroundings | None:
        self.asked.append(key)
        return self._found.pop(0) if self._found else surroundings(b"/%d" % len(self.asked))


def test_a_process_is_put_together_once() -> None:
    looks = Looks()
    known = Callers(looks)
    process = known.of(CALL, IMAGE)
    assert (process.pid, process.start_ns) == (1_234, 700_000_003)
    assert process.image is IMAGE
    assert process.surroundings == surroundings(b"/1")
    assert known.of(CALL, IMAGE) is process
    assert known.of(CALL._replace(tid=5, comm=b"other", uid=9), IMAGE) is process
    assert looks.asked == [Key(1_234, 700_000_003, 5, 4_242)]


@pytest.mark.parametrize(
    "change", [{"tgid": 9}, {"process_start_ns": 9}, {"exec_id": 9}, {"cgroup_id": 9}]
)
def test_another_process_program_or_cgroup_is_looked_up(change: dict[str, Any]) -> None:
    looks = Looks()
    known = Callers(looks)
    process = known.of(CALL, IMAGE)
    other = known.of(CALL._replace(**change), IMAGE)
    assert other is not process
    assert other.surroundings == surroundings(b"/2")
    assert known.of(CALL, IMAGE) is process
    assert len(looks.asked) == 2


def test_a_process_that_is_told_late_is_put_together_again() -> None:
    known = Callers(Looks())
    before = known.of(CALL, None)
    assert (before.image, before.untold) == (None, Missing.NOT_TOLD)
    after = known.of(CALL, IMAGE)
    assert after.image is IMAGE
    # What is known does not go again.
    assert known.of(CALL, None) is after


def test_a_process_that_is_told_again_is_the_same() -> None:
    """The kernel program repeats itself now and then; a line would introduce it twice."""
    looks = Looks()
    known = Callers(looks)
    process = known.of(CALL, IMAGE)
    assert known.of(CALL, image_of()) is process
    changed = known.of(CALL, image_of(args=b"other\0"))
    assert changed is not process
    assert changed.image
    assert changed.image.args == b"other\0"


def test_without_a_start_it_may_be_another_each_time() -> None:
    """And the reason why so little is known is the kernel."""
    call = without_task(CALL)
    first, second = surroundings(b"/a"), surroundings(b"/b")
    looks = Looks(first, first, second, None, None)
    known = Callers(looks)
    process = known.of(call, None)
    assert (process.untold, process.start_ns) == (Missing.NO_BTF, 0)
    # What looks the same is not introduced again.
    assert known.of(call, None) is process
    other = known.of(call, None)
    assert other is not process
    assert other.surroundings == second
    nothing = known.of(call, None)
    assert nothing.surroundings is None
    assert known.of(call, None) is nothing
    assert len(looks.asked) == 5


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "KEPT", 10)
    looks = Looks()
    known = Callers(looks)
    for tgid in range(1, 101):
        known.of(CALL._replace(tgid=tgid), None)
    assert len(looks.asked) == 100
    for tgid in range(91, 101):
        known.of(CALL._replace(tgid=tgid), None)
    assert len(looks.asked) == 100
    known.of(CALL._replace(tgid=90), None)
    assert len(looks.asked) == 101


IDS = st.integers(0, 3)
CALLS = st.builds(
    lambda tgid, start, exec_id, cgroup: CALL._replace(
        tgid=tgid, process_start_ns=start, exec_id=exec_id, cgroup_id=cgroup
    ),
    IDS, IDS, IDS, IDS,
)  # fmt: skip


@given(st.lists(st.tuples(CALLS, st.none() | st.builds(image_of, exec_id=IDS))))
def test_a_process_is_always_that_of_its_call(calls: list[tuple[Call, None]]) -> None:
    known = Callers(lambda key: surroundings(b"/%d/%d" % (key.pid, key.cgroup_id)))
    for call, image in calls:
        process = known.of(call, image)
        assert (process.pid, process.start_ns) == (call.tgid, call.process_start_ns)
        assert image in (None, process.image)
        assert process.surroundings == surroundings(b"/%d/%d" % (call.tgid, call.cgroup_id))


def test_what_they_take_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments are as long as a caller likes."""
    monkeypatch.setattr(callers, "KEPT_BYTES", 200_000)
    known = Callers(lambda key: surroundings(b"x" * 40_000))
    made = [known.of(CALL._replace(tgid=pid), None) for pid in range(1, 11)]
    again = [known.of(CALL._replace(tgid=pid), None) for pid in range(10, 0, -1)]
    assert sum(one is other for one, other in zip(made, reversed(again), strict=True)) == 4
