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


def returned(at: int, tid: int = 1, cmd: int = 22) -> bytes:
    """The record of a call that took a while and returned then."""
    call = call_of(cmd)._replace(tid=tid, start_ns=at - 30, entry_ns=10, duration_ns=20)
    return record_of(call)


class FakeRing:
    """What is in it can be read in pieces, up to a record that is still being written."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.busy = False
        self.piece = 1000

    def drain(self, limit: int) -> tuple[list[bytes], bool]:
        piece = self.piece if limit < 1 << 32 else len(self.records)
        taken, self.records = self.records[:piece], self.records[piece:]
        return taken, not self.records and not self.busy

    def close(self) -> None:
        pass


class Host:
    """Rings, a clock and their reader."""

    def __init__(self) -> None:
        self.fakes = {number: FakeRing() for number in (*CALLS, RING_BULK)}
        self.now = 1 << 40
        self.taken = 0
        self.rings = Rings(self.fakes, lambda: self.now, self._count)  # type: ignore[arg-type]

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
    host.fakes[RING_DATA].piece = 2
    host.put(RING_DATA, *map(returned, (100, 200, 300, 400)))
    host.put(RING_VITAL, returned(150), returned(350))
    drained = host.drain()
    assert (times(drained), drained.held) == ([100, 150, 200], True)
    drained = host.drain()
    assert (times(drained), drained.held) == ([300, 350], True)
    drained = host.drain()
    assert (times(drained), drained.held) == ([400], False)


def test_calls_of_several_cpus_may_stand_out_of_order() -> None:
    host = Host()
    host.now = 104
    host.put(RING_CONTROL, returned(105, 1), returned(100, 2))
    assert host.drain().held
    host.now = 200
    drained = host.drain()
    assert (times(drained), drained.held) == ([105, 100], False)


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
    steps: list[tuple[int, int, int]], piece: int, reads: int
) -> None:
    """However they are spread over rings, and whenever somebody reads them."""
    host = Host()
    for fake in host.fakes.values():
        fake.piece = piece
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
