# SPDX-License-Identifier: Apache-2.0
"""Reader of a BPF ring buffer, straight from its pages."""

import mmap
from struct import Struct
from typing import Final

_HEADER: Final = Struct("=II")  # struct bpf_ringbuf_hdr: len, pg_off
_BUSY: Final = 1 << 31  # BPF_RINGBUF_BUSY_BIT
_DISCARD: Final = 1 << 30  # BPF_RINGBUF_DISCARD_BIT


class Ring:
    """The consumer's end of a ``BPF_MAP_TYPE_RINGBUF`` (kernel/bpf/ringbuf.c).

    The kernel maps three things one behind the other: a page with the consumer's
    position, which we write; a page with the producer's; and the data, twice, so
    that a record that wraps around can be read in one piece. We map the data once,
    since both copies count as memory of ours, and put such a record together. A
    record whose busy bit is clear is complete: the kernel clears it last.

    :param fd: of the map, which stays the caller's.
    :param size: ``max_entries`` of the map, bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._mask = size - 1
        self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED)
        self._producer = mmap.mmap(fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # Each is read and written as one word. Struct.pack_into() writes zeros first, and a
        # kernel that sees those takes the ring for full.
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._producer)[:page].cast("Q")
        self._position = self._consumed[0]
        self._fullest = 0

    def drain(self) -> tuple[list[bytes], bool]:
        """The records that are complete, oldest first.

        :returns: and whether those are all that had been begun.
        """
        records: list[bytes] = []
        pages, base = self._producer, mmap.PAGESIZE
        mask, wrap = self._mask, base + self._mask + 1
        header = _HEADER.unpack_from
        position = self._position
        begun = self._produced[0]
        self._fullest = max(self._fullest, begun - position)
        while position < begun:
            start = base + (position & mask)  # a header never wraps around: both are 8-aligned
            length = header(pages, start)[0]
            if length & _BUSY:
                break
            start += _HEADER.size
            if not length & _DISCARD:
                record = pages[start : start + length]
                if start + length > wrap:
                    record += pages[base : base + start + length - wrap]
                records.append(record)
            length &= ~_DISCARD
            position += (length + _HEADER.size + 7) & ~7
        if position != self._position:
            self._position = position
            self._consumed[0] = position
        return records, position >= begun

    def fill(self) -> float:
        """How full it was at most when it was drained, since this was asked: 0 to 1."""
        fullest, self._fullest = self._fullest, 0
        return fullest / (self._mask + 1)

    def close(self) -> None:
        self._consumed.release()
        self._produced.release()
        self._consumer.close()
        self._producer.close()
