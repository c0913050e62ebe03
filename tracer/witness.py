# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says of BPF programs that come and go.

``PERF_RECORD_BPF_EVENT`` (include/uapi/linux/perf_event.h, since Linux 5.0) is written by
``perf_event_bpf_event()`` wherever a program gets its id or loses its last reference,
whoever asked for it and however. No BPF program takes part, so this bears witness beside
the ones that trace bpf(2).

* LOADED is written within ``BPF_PROG_LOAD``, by the thread that loads, when the program has
  its id and before it has its descriptor (``bpf_prog_load()``). If there is none left, the
  call fails with EMFILE, and UNLOADED follows at once. Loads by ``bpf_sys_bpf`` within a
  SYSCALL program have it too. What the verifier refuses never was a program: nothing is
  written. Subprograms belong to theirs. Classic filters have no id and are not seen.
* UNLOADED is written when the last reference is put (``bpf_prog_put_deferred()``). Whoever
  closes a descriptor, ends or unlinks a pin does that himself. References of maps, sockets,
  cgroups and most links to tracepoints are put later, by a kworker or by RCU in a softirq:
  then the thread is whichever happened to run, and has nothing to do with it.
"""

import errno
import mmap
import os
import select
import sys
from collections.abc import Iterable
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple, NoReturn

from ..events.errors import CannotStart, WireError
from . import libc

_PERF_TYPE_SOFTWARE: Final = 1
_PERF_COUNT_SW_DUMMY: Final = 9
_PERF_SAMPLE: Final = 1 << 1 | 1 << 2 | 1 << 7  # PERF_SAMPLE_TID, _TIME, _CPU
_PERF_FORMAT_LOST: Final = 1 << 4  # since Linux 6.0
_CLOCK_BOOTTIME: Final = 7

# disabled, watermark, sample_id_all, use_clockid, bpf_event
_BITS: Final = (0, 14, 18, 25, 30)
# Compilers count bit fields from the other end where the other byte comes first.
_FLAGS: Final = sum(1 << (bit if sys.byteorder == "little" else 63 - bit) for bit in _BITS)

# type, size, config, sample_period, sample_type, read_format, flags, wakeup_watermark, clockid
PERF_EVENT_ATTR: Final = Struct("=IIQQQQQI40xi32x")
# value, lost
_READ_FORMAT: Final = Struct("=8xQ")

PERF_EVENT_HEADER: Final = Struct("=I2xH")  # type, size
# header, type, flags, id, tag; struct sample_id: pid, tid, time, cpu, res
_BPF_EVENT: Final = Struct("=8xH2xI8siiQ8x")
_LOST: Final = Struct("=16xQ")  # header, id, lost

_PERF_RECORD_LOST: Final = 2
_PERF_RECORD_BPF_EVENT: Final = 18

# struct perf_event_mmap_page
DATA_HEAD: Final = 1024
DATA_TAIL: Final = 1032

_DATA_SIZE: Final = max(32 << 10, mmap.PAGESIZE)
_ROUNDS: Final = 16

_ONLINE: Final = "/sys/devices/system/cpu/online"
_PARANOID: Final = "/proc/sys/kernel/perf_event_paranoid"


class What(Enum):
    """``enum perf_bpf_event_type``: what became of a program."""

    LOADED = 1
    UNLOADED = 2


class Life(NamedTuple):
    """One ``PERF_RECORD_BPF_EVENT``."""

    what: What
    prog_id: int
    """``__u32``. In UNLOADED some kernels before 6.2 say 0 of every program; "bpf: restore the
    ebpf program ID for BPF_AUDIT_UNLOAD and PERF_BPF_EVENT_PROG_UNLOAD" is what they lack."""
    tag: bytes
    """``__u8[8]``, as in ``struct bpf_prog_info``."""
    time_ns: int
    """``CLOCK_BOOTTIME``."""
    tgid: int
    """``current`` as the pid namespace of whoever watches has it: 0 for the idle task and
    for one that is not of that namespace, -1 for one that has been reaped (``perf_event_pid()``).
    In UNLOADED it may be a bystander."""
    tid: int
    """The same of the thread."""


class Lost(NamedTuple):
    """One ``PERF_RECORD_LOST``: written ahead of the next record that finds room again."""

    records: int
    """``__u64``: how many."""


def parse(record: bytes) -> Life | Lost | None:
    """:param record: as long as its ``struct perf_event_header`` says.
    :returns: None for what is neither of the two.
    :raises WireError: it is too short, or of another length than it says.
    """
    if len(record) < PERF_EVENT_HEADER.size:
        raise WireError(f"a perf record of {len(record)} bytes")
    kind, size = PERF_EVENT_HEADER.unpack_from(record)
    if size != len(record):
        raise WireError(f"a perf record of {len(record)} bytes that claims {size}")
    if kind not in (_PERF_RECORD_BPF_EVENT, _PERF_RECORD_LOST):
        return None
    layout = _BPF_EVENT if kind == _PERF_RECORD_BPF_EVENT else _LOST
    if size < layout.size:
        raise WireError(f"a perf record of type {kind} with {size} bytes")
    if kind == _PERF_RECORD_LOST:
        return Lost(*_LOST.unpack_from(record))
    return _life(record)


def _life(record: bytes) -> Life | None:
    # sample_id is read behind the tag, where it is written, and not at the record's end: the
    # kernel may claim more than it wrote, since perf_event_bpf_output() adds up the headers
    # of all who watch (seen in Linux 6.1 and 6.18, not in 6.12.117 and 7.2).
    what, prog_id, tag, tgid, tid, time_ns = _BPF_EVENT.unpack_from(record)
    if what not in (What.LOADED.value, What.UNLOADED.value):
        return None
    return Life(What(what), prog_id, tag, time_ns, tgid, tid)


class PerfRing:
    """The reader's end of a perf event's ring (kernel/events/ring_buffer.c).

    The kernel maps a page with two positions, ``data_head`` of its own and ``data_tail``,
    which we write, and behind it the data, once: a record that wraps around is put
    together. The positions only grow; what lies before ``data_head`` is complete.

    The header asks for a barrier between reading ``data_head`` and the data, and one
    between reading the data and writing ``data_tail``. Python has none. On x86 there is
    no need: reads stay in order there, and no write passes an earlier read. Elsewhere it
    is only the many instructions of the interpreter that keep them apart.

    :param fd: of the event, which stays the caller's.
    :param size: of the data, bytes: a power of two of pages.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._pages = mmap.mmap(fd, mmap.PAGESIZE + size)
        # Each is read and written as one word. Struct.pack_into() writes zeros first, and a
        # kernel that sees those takes the ring for full.
        words = memoryview(self._pages)[: mmap.PAGESIZE].cast("Q")
        self._head, self._tail = words[DATA_HEAD // 8 :], words[DATA_TAIL // 8 :]
        words.release()
        self._position: int = self._tail[0]

    def drain(self) -> list[bytes]:
        """The records that are there, oldest first, each with its header.

        :raises WireError: these are no records. All of them are given up then, so that
            the next call begins behind them.
        """
        begin, head = self._position, self._head[0]
        if head == begin:
            return []
        self._position = head
        try:
            return self._between(begin, head)
        finally:
            self._tail[0] = head

    def _between(self, position: int, head: int) -> list[bytes]:
        if not 0 < head - position <= self._size or position % 8 or head % 8:
            raise WireError(f"a perf ring of {self._size} bytes from {position} to {head}")
        records = []
        while position < head:
            size = self._record_size(position)
            if size < PERF_EVENT_HEADER.size or size % 8 or size > head - position:
                raise WireError(f"a perf record of {size} bytes where {head - position} are left")
            records.append(self._bytes(position, size))
            position += size
        return records

    def _record_size(self, position: int) -> int:
        # A header never wraps around: all sizes are multiples of 8.
        start = mmap.PAGESIZE + position % self._size
        size: int = PERF_EVENT_HEADER.unpack_from(self._pages, start)[1]
        return size

    def _bytes(self, position: int, size: int) -> bytes:
        start = mmap.PAGESIZE + position % self._size
        over = start + size - (mmap.PAGESIZE + self._size)
        piece = self._pages[start : start + size]
        return piece + self._pages[mmap.PAGESIZE : mmap.PAGESIZE + over] if over > 0 else piece

    def close(self) -> None:
        self._head.release()
        self._tail.release()
        self._pages.close()


class _Event:
    """A perf event that counts nothing, for the records that come with it, of one CPU.

    :raises OSError: with the kernel's errno; ENODEV of a CPU that is offline.
    """

    def __init__(self, cpu: int) -> None:
        self.fd, self._tells_lost = _open(cpu)
        self._lost = 0
        try:
            self._ring = PerfRing(self.fd, _DATA_SIZE)
        except BaseException:
            os.close(self.fd)
            raise

    def drain(self) -> list[Life]:
        found = [parse(record) for record in self._ring.drain()]
        self._lost += sum(record.records for record in found if isinstance(record, Lost))
        return [record for record in found if isinstance(record, Life)]

    @property
    def lost(self) -> int:
        if not self._tells_lost:
            return self._lost
        count: int = _READ_FORMAT.unpack(os.read(self.fd, _READ_FORMAT.size))[0]
        return count

    def close(self) -> None:
        self._ring.close()
        os.close(self.fd)


def _open(cpu: int) -> tuple[int, bool]:
    """:returns: the event, still disabled; whether it can be asked what was lost."""
    try:
        return libc.perf_event_open(_attr(_PERF_FORMAT_LOST), cpu), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return libc.perf_event_open(_attr(0), cpu), False


def _attr(read_format: int) -> bytes:
    # A watermark of one byte wakes whoever waits at each record; wakeup_events only counts
    # samples, of which there are none.
    return PERF_EVENT_ATTR.pack(
        _PERF_TYPE_SOFTWARE, libc.PERF_ATTR_SIZE, _PERF_COUNT_SW_DUMMY, 0, _PERF_SAMPLE,
        read_format, _FLAGS, 1, _CLOCK_BOOTTIME,
    )  # fmt: skip


class Witness:
    """All programs that come and go from the moment that this is made.

    There is a ring a CPU, because the kernel writes a record where it runs and redirects
    none to another CPU's ring (``perf_event_set_output()``): 36 KiB, and two descriptors,
    since a mapping of Python's has one of its own. A ring holds 682 records.

    :param cpus: those that are online, as :func:`online_cpus` says.
    :raises CannotStart: perf events are refused here.
    """

    def __init__(self, cpus: Iterable[int]) -> None:
        self._events: dict[int, _Event] = {}
        self._poll = select.epoll()
        try:
            self.follow(cpus)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """To wait with: it is readable once for each time that records have come.

        Once, because asking a perf event whether it is readable is what resets it
        (``perf_poll()``). So drain after it was readable, and also after it was registered
        with an epoll, which asks too.
        """
        return self._poll.fileno()

    def follow(self, cpus: Iterable[int]) -> None:
        """To be called now and then, and after a suspend, with the CPUs that are online now.

        When a CPU goes offline the kernel disables its event without a word and leaves it so
        when the CPU is back, which is what a suspend does to all but one of them. Here it
        is enabled again (tried with Linux 6.1, 6.12 and 7.2), and CPUs that are new are
        watched. What happened on a CPU between its return and this call has not been seen,
        and is not counted either.

        :raises CannotStart: perf events are refused here.
        """
        for cpu in cpus:
            try:
                self._watch(cpu)
            except OSError as error:
                if error.errno != errno.ENODEV:  # it went offline meanwhile
                    _refuse(error)

    def _watch(self, cpu: int) -> None:
        event = self._events.get(cpu)
        if event is None:
            event = self._events[cpu] = _Event(cpu)
            self._poll.register(event.fd, select.EPOLLIN)
        # Disabled until now: what came before it had a ring would be lost without a count.
        libc.perf_event_enable(event.fd)

    def drain(self) -> list[Life]:
        """What has come, in the order of time.

        Whatever came before one of them is among them too, or has been returned before: that
        a program was loaded is never told after its end. For that all rings are read until
        nothing is found in any, or 16 times if there is no end to it.

        :raises WireError: a ring does not hold records; they are given up.
        """
        lives: list[Life] = []
        for _ in range(_ROUNDS):
            found = [life for event in self._events.values() for life in event.drain()]
            if not found:
                break
            lives += found
        return sorted(lives, key=_time)

    @property
    def lost(self) -> int:
        """Records that found no room in a ring.

        Before Linux 6.0 only those that ``PERF_RECORD_LOST`` has told of: what was
        lost after the last record of a CPU is missing.
        """
        return sum(event.lost for event in self._events.values())

    def close(self) -> None:
        self._poll.close()
        for event in self._events.values():
            event.close()
        self._events.clear()


def _time(life: Life) -> int:
    return life.time_ns


def online_cpus(path: str = _ONLINE) -> list[int]:
    """The CPUs that are running, from a list such as ``0-3,6``.

    :raises CannotStart: sysfs is not mounted.
    """
    try:
        with open(path, encoding="ascii") as file:
            ranges = [part.split("-") for part in file.read().strip().split(",") if part]
    except OSError as error:
        raise CannotStart(
            f"which CPUs are online is not known ({error.strerror}): mount sysfs with"
            " 'mount -t sysfs sysfs /sys'"
        ) from error
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


def _refuse(error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        reason = (
            "perf events of all processes are not permitted; they need CAP_PERFMON or"
            f" CAP_SYS_ADMIN (kernel.perf_event_paranoid is {_paranoid()}), and no seccomp profile"
            " or security module in their way"
        )
    elif error.errno == errno.ENOSYS:
        reason = (
            "this kernel has no perf_event_open(2), or something hides it; it needs"
            " CONFIG_PERF_EVENTS, and no seccomp filter in its way"
        )
    elif error.errno in (errno.EINVAL, errno.E2BIG):
        reason = "this kernel writes no PERF_RECORD_BPF_EVENT, which Linux 5.0 brought"
    elif error.errno == errno.EMFILE:
        reason = "two descriptors a CPU are needed; raise the limit with 'ulimit -n'"
    raise CannotStart(f"programs that come and go cannot be watched: {reason}") from error


def _paranoid() -> str:
    try:
        with open(_PARANOID, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "not known"
