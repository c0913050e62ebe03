# SPDX-License-Identifier: Apache-2.0
"""The reader of the ring, on pages that a test has laid out as kernel/bpf/ringbuf.c does."""

import mmap
import os
from collections.abc import Iterator
from struct import Struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.tracer.ring import Ring
from onlooker import onlooker

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARD = 1 << 31, 1 << 30
POSITION, HEADER = Struct("=Q"), Struct("=II")


class Producer:
    """The kernel's end.

    :param position: where it begins, as if so many bytes had come and gone.
    """

    def __init__(self, position: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + SIZE)
        self._pages = mmap.mmap(self.fd, 2 * PAGE + SIZE)
        self.position = position
        POSITION.pack_into(self._pages, 0, position)
        POSITION.pack_into(self._pages, PAGE, position)

    def close(self) -> None:
        self._pages.close()
        os.close(self.fd)

    @property
    def consumed(self) -> int:
        """What the reader says that it has done with."""
        position: int = POSITION.unpack_from(self._pages, 0)[0]
        return position

    def reserve(self, length: int) -> int | None:
        """The place of a record that is being written; None if there is no room."""
        room = (HEADER.size + length + 7) & ~7
        if self.position + room - self.consumed > SIZE - 1:
            return None
        start = self.position
        self._write(start, HEADER.pack(length | BUSY, 0xFFFF_FFFF))
        self.position += room
        POSITION.pack_into(self._pages, PAGE, self.position)
        return start

    def commit(self, start: int, data: bytes, *, discard: bool = False) -> None:
        self._write(start + HEADER.size, data)
        self._write(start, HEADER.pack(len(data) | DISCARD * discard, 0xFFFF_FFFF))

    def put(self, data: bytes, *, discard: bool = False) -> bool:
        """Whether there was room."""
        start = self.reserve(len(data))
        if start is not None:
            self.commit(start, data, discard=discard)
        return start is not None

    def _write(self, position: int, data: bytes) -> None:
        for offset, byte in enumerate(data, position):
            self._pages[2 * PAGE + offset % SIZE] = byte


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.close()


@pytest.fixture
def ring(producer: Producer) -> Iterator[Ring]:
    made = Ring(producer.fd, SIZE)
    yield made
    made.close()


def test_nothing_is_there_at_first(ring: Ring) -> None:
    assert ring.drain() == ([], True)


def test_records_come_in_order_and_once(producer: Producer, ring: Ring) -> None:
    for data in (b"one", b"", b"three and more", b"8 bytes."):
        producer.put(data)
    assert ring.drain() == ([b"one", b"", b"three and more", b"8 bytes."], True)
    assert producer.consumed == producer.position
    assert ring.drain() == ([], True)


def test_a_record_that_is_still_written_is_waited_for(producer: Producer, ring: Ring) -> None:
    """And so is everything behind it, or the order would be lost."""
    producer.put(b"before")
    start = producer.reserve(6)
    assert start is not None
    producer.put(b"behind")
    assert ring.drain() == ([b"before"], False)
    assert ring.drain() == ([], False)
    assert producer.consumed == start
    producer.commit(start, b"busy..")
    assert ring.drain() == ([b"busy..", b"behind"], True)


def test_a_record_that_was_given_up_is_left_out(producer: Producer, ring: Ring) -> None:
    producer.put(b"never", discard=True)
    assert ring.drain() == ([], True)
    assert producer.consumed == producer.position
    producer.put(b"one")
    producer.put(b"not this", discard=True)
    producer.put(b"two")
    assert ring.drain() == ([b"one", b"two"], True)


def test_the_largest_record_fits_in_wherever_it_begins(producer: Producer, ring: Ring) -> None:
    largest = bytes(range(256)) * (SIZE // 256)
    largest = largest[: SIZE - HEADER.size - 8]
    begins = set()
    for _ in range(SIZE // 8):
        begins.add(producer.position % SIZE)
        assert producer.put(largest)
        assert ring.drain() == ([largest], True)
        producer.put(b"")
        producer.put(b"")
        assert ring.drain() == ([b"", b""], True)
    assert len(begins) == SIZE // 8


def test_a_reader_begins_where_the_last_one_ended(producer: Producer, ring: Ring) -> None:
    producer.put(b"one")
    ring.drain()
    producer.put(b"two")
    another = Ring(producer.fd, SIZE)
    assert another.drain() == ([b"two"], True)
    another.close()


def test_the_kernel_never_sees_the_position_fall_back(producer: Producer, ring: Ring) -> None:
    """It would take the ring for full, and refuse a record."""
    many = 100_000
    with onlooker(producer.fd, 0, until=8 * many) as seen:
        for _ in range(many):
            producer.put(b"")
            ring.drain()
    assert seen.fallen == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.binary(max_size=SIZE // 3), st.booleans()),  # a record, perhaps given up
        st.none(),  # a drain
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.integers(0, 1 << 40).map(lambda number: number * 8), STEPS)
def test_what_is_put_in_comes_out(position: int, steps: list[tuple[bytes, bool] | None]) -> None:
    """All of it, in order, whatever the sizes and however often the ring goes round."""
    producer = Producer(position)
    ring = Ring(producer.fd, SIZE)
    put, taken = [], []
    for step in steps:
        if step is None:
            taken += ring.drain()[0]
        elif producer.put(step[0], discard=step[1]) and not step[1]:
            put.append(step[0])
        assert put[: len(taken)] == taken
    while producer.consumed < producer.position:
        taken += ring.drain()[0]
    assert taken == put
    ring.close()
    producer.close()
