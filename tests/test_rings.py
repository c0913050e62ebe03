# SPDX-License-Identifier: Apache-2.0
"""Several rings as one stream: a thread's calls in their order, and what belongs to them first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.call import Call
from bpfsnoop.events.wire import RING_BULK, RING_CONTROL, RING_DATA, RING_VITAL, parse
from bpfsnoop.tracer.rings import Drained, Rings
from calls import call_of, chunk_record, image_of, process_record, record_of

CALLS = RING_DATA, RING_CONTROL, RING_VITAL
BACKLOG = 100_000


def returned(at: int, tid: int = 1, cmd: int = 22) -> bytes:
    """The record of a call that took a while and returned then."""
    call = call_of(cmd)._replace(tid=tid, start_ns=at - 30, entry_ns=10, duration_ns=20)
    return record_of(call)


class FakeRing:
    """Of what is in it, so many can be read: the one behind them is still being written."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.busy = False
        self.written = 1000

    def drain(self) -> tuple[list[bytes], bool]:
        taken, self.records = self.records[: self.written], self.records[self.written :]
        return taken, not self.records and not self.busy

    def close(self) -> None:
        pass


class Host:
    """Rings, a clock and their reader."""

    def __init__(self) -> None:
        self.fakes = {number: FakeRing() for number in (*CALLS, RING_BULK)}
        self.now = 1 << 40
        self.taken = 0
        self.rings = Rings(self.fakes, lambda: self.now, self._count, BACKLOG)  # type: ignore[arg-type]

    def _count(self, size: int) -> None:
        self.taken += size

    def put(self, ring: int, *records: bytes) -> None:
        self.fakes[ring].records += records

    def drain(self) -> Drained:
        return self.rings.drain()


def times(drained: Drained) -> list[int]:
    calls = [thing for thing in map(parse, drained.records) if isinstance(thing, Call)]
    return [call.returned_ns for call in calls]


def test_nothing_is_there_at_first() -> None:
    host = Host()
    assert host.drain() == Drained([], held=False, until_ns=host.now)


def test_calls_come_in_the_order_in_which_they_returned() -> None:
    host = Host()
    host.put(RING_DATA, returned(100), returned(400))
    host.put(RING_CONTROL, returned(200), returned(500))
    host.put(RING_VITAL, returned(300))
    drained = host.drain()
    assert times(drained) == [100, 200, 300, 400, 500]
    assert not drained.held


def test_what_belongs_to_a_call_comes_before_it() -> None:
    host = Host()
    call = returned(100)
    bulk = chunk_record(call_of(5), 5, 8, 0, b"insns")
    process = process_record(image_of())
    host.put(RING_VITAL, process, call)
    host.put(RING_BULK, bulk)
    assert host.drain().records == [bulk, process, call]
    assert host.taken == len(bulk)


def test_a_call_that_returned_while_we_read_waits_for_those_before_it() -> None:
    """Another one may have come into a ring that had been read already."""
    host = Host()
    host.now = 150
    host.put(RING_CONTROL, returned(100), returned(200))
    drained = host.drain()
    assert (times(drained), drained.held) == ([100], True)
    host.put(RING_DATA, returned(180))
    host.now = 300
    drained = host.drain()
    assert (times(drained), drained.held) == ([180, 200], False)


def test_a_ring_that_was_not_read_to_its_end_holds_back_the_others() -> None:
    host = Host()
    host.fakes[RING_DATA].written = 2
    host.put(RING_DATA, *map(returned, (100, 200, 300, 400, 500)))
    host.put(RING_VITAL, returned(150), returned(350))
    drained = host.drain()
    assert (times(drained), drained.held) == ([100, 150, 200], True)
    drained = host.drain()
    assert (times(drained), drained.held) == ([300, 350, 400], False)
    drained = host.drain()
    assert (times(drained), drained.held) == ([500], False)


def test_calls_of_several_cpus_may_stand_out_of_order() -> None:
    host = Host()
    host.now = 104
    host.put(RING_CONTROL, returned(105, 1), returned(100, 2))
    assert host.drain().held
    host.now = 200
    drained = host.drain()
    assert (times(drained), drained.held) == ([100, 105], False)


def test_a_burst_leaves_the_rings_at_once_and_is_handed_out_in_order() -> None:
    """Or there would be no room for what comes while events are made of its beginning."""
    host = Host()
    host.put(RING_CONTROL, *(returned(time) for time in range(1000, 2000)))
    host.put(RING_BULK, chunk_record(call_of(5), 5, 8, 0, b"insns"))
    first = host.drain()
    assert not any(fake.records for fake in host.fakes.values())
    assert 0 < len(first.records) < 1000
    last = times(first)[-1]
    assert (first.held, first.until_ns) == (True, last - 1)
    seen = times(first)
    while (drained := host.drain()).held:
        seen += times(drained)
        assert drained.until_ns == seen[-1] - 1
    assert drained.until_ns == host.now
    assert [*seen, *times(drained)] == [*range(1000, 2000)]


def test_what_waits_is_limited() -> None:
    """The rest stays in the rings, where the kernel knows what may be lost first."""
    host = Host()
    record = returned(100)
    burst = BACKLOG // len(record) + 1000
    host.put(RING_CONTROL, *[record] * burst)
    seen = len(host.drain().records)
    host.put(RING_VITAL, returned(200))
    while host.fakes[RING_VITAL].records:
        assert (burst - seen) * len(record) >= BACKLOG
        seen += len(host.drain().records)
    while (drained := host.drain()).held:
        seen += len(drained.records)
    assert seen + len(drained.records) == burst + 1
    assert times(drained)[-1] == 200


def test_what_is_held_back_is_limited_too() -> None:
    """A thread may be kept from finishing its record for as long as somebody likes."""
    host = Host()
    host.fakes[RING_BULK].busy = True
    record = returned(100)
    some = BACKLOG // len(record) // 2
    for _ in range(10):
        host.put(RING_CONTROL, *[record] * some)
        assert host.drain().held
    taken = 10 * some - len(host.fakes[RING_CONTROL].records)
    assert BACKLOG <= taken * len(record) <= 2 * BACKLOG
    host.fakes[RING_BULK].busy = False
    seen = 0
    while (drained := host.drain()).held or drained.records:
        seen += len(drained.records)
    assert seen == 10 * some


def test_a_record_that_is_still_written_holds_back_what_is_later() -> None:
    host = Host()
    host.put(RING_DATA, returned(100))
    host.fakes[RING_DATA].busy = True
    host.put(RING_VITAL, returned(150))
    drained = host.drain()
    assert (times(drained), drained.held) == ([100], True)
    host.fakes[RING_DATA].busy = False
    assert times(host.drain()) == [150]


def test_a_chunk_that_is_still_written_holds_back_all_calls() -> None:
    host = Host()
    host.fakes[RING_BULK].busy = True
    host.put(RING_VITAL, returned(150))
    drained = host.drain()
    assert (times(drained), drained.held) == ([], True)
    host.fakes[RING_BULK].busy = False
    assert times(host.drain()) == [150]


STEPS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(CALLS), st.integers(0, 3)))


@given(STEPS, st.integers(1, 4), st.integers(0, 5))
def test_a_threads_calls_stay_in_order(
    steps: list[tuple[int, int, int]], written: int, reads: int
) -> None:
    """However they are spread over rings, and whenever somebody reads them."""
    host = Host()
    for fake in host.fakes.values():
        fake.written = written
    seen: list[Call] = []

    def drain() -> bool:
        drained = host.drain()
        things = map(parse, drained.records)
        seen.extend(thing for thing in things if isinstance(thing, Call))
        return drained.held or bool(drained.records)

    host.now = 1000
    for number, (tid, ring, pause) in enumerate(steps):
        host.now += 1 + pause
        host.put(ring, returned(host.now, tid))
        if reads and number % reads == 0:
            drain()
    host.now += 1
    while drain():
        pass
    assert Counter(call.tid for call in seen) == Counter(tid for tid, _, _ in steps)
    for tid in {call.tid for call in seen}:
        own = [call.returned_ns for call in seen if call.tid == tid]
        assert own == sorted(own)
