# SPDX-License-Identifier: Apache-2.0
"""The kernel program while it is attached: its filters, its ring, its counters."""

import mmap
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import Final

from ..events.call import Totals
from ..events.wire import (
    CALL_COUNT,
    COMM_LEN,
    COMMAND_PLAN,
    COMMAND_SLOTS,
    FILTER_CGROUP,
    FILTER_COMM,
    FILTER_PID,
    FILTER_PIDNS,
    FILTER_UID,
    OWN_COPIED,
    OWN_ENTRY,
    OWN_EXIT,
    OWN_INSIDE,
    OWN_RETURN,
    TRACE_CHILDREN,
    TRACE_NAMED,
    TRACE_PROCESS,
    TRACED_PROCESS,
    TRACER_CONFIG,
    parse_counts,
)
from . import libc
from .loader import RING_NAMES, Loaded, Sizes
from .own import BpfMap, missed_runs
from .ring import Ring
from .rings import Rings

_U32: Final = Struct("=I")
_U64: Final = Struct("=Q")
_KEY_0: Final = _U32.pack(0)
_SET: Final = b"\1"
_OWN_RUNS: Final = {
    "enter_bpf": OWN_ENTRY, "exit_bpf": OWN_EXIT, "enter_inside": OWN_INSIDE,
    "exit_inside": OWN_RETURN, "copied_attr": OWN_COPIED,
}  # fmt: skip
"""What a call of ours leaves behind, by the program that it goes through."""
_SEEING: Final = "enter_bpf", "enter_inside"
"""Programs of which a run that is left out may be a call that is not seen."""
_BACKLOG: Final = 4
"""Times the size of a ring: what is taken out while events are made of what came before."""
ALL_SLOTS: Final = (1 << COMMAND_SLOTS) - 1
_POSSIBLE_CPUS: Final = "/sys/devices/system/cpu/possible"


@dataclass(frozen=True)
class KernelFilter:
    """What the kernel program lets through; an empty set means any."""

    pids: frozenset[int] = frozenset()
    families: frozenset[int] = frozenset()
    """Processes that are traced together with what they fork; needs ``follow``."""
    uids: frozenset[int] = frozenset()
    comms: frozenset[bytes] = frozenset()
    cgroups: tuple[str, ...] = ()
    """Directories of cgroup v2; what is below counts."""
    pid_namespace: tuple[int, int] | None = None
    """Device and inode number of its file in /proc/PID/ns."""
    slots: int = ALL_SLOTS
    """Bit n: commands of counter slot n (``struct tracer_config.commands``)."""


class Program:
    """The attached program, by the descriptors that the loader sent.

    :param plans: what to fetch for each command, ``struct command_plan`` by counter slot.
    """

    def __init__(self, loaded: Loaded, sizes: Sizes, plans: Mapping[int, bytes]) -> None:
        self._fds: Mapping[str, int] = loaded.fds
        self._wanted = KernelFilter()
        self._taken = 0
        cpus = sizes.cpus
        self._config = BpfMap(self._fds["config"], 4, TRACER_CONFIG.size)
        self._pids = BpfMap(self._fds["pids"], 4, TRACED_PROCESS.size)
        self._uids = BpfMap(self._fds["uids"], 4, 1)
        self._comms = BpfMap(self._fds["comms"], COMM_LEN, 1)
        self._counts = BpfMap(self._fds["counts"], 4, cpus * CALL_COUNT.size)
        self._unfollowed = BpfMap(self._fds["unfollowed"], 4, cpus * _U64.size)
        self._recovered = BpfMap(self._fds["recovered"], 4, _U64.size)
        self._own_seen = self._own_calls = 0
        self._own_missed_at_end: int | None = None
        self._own = BpfMap(self._fds["own_runs"], 4, _U64.size)
        self._watched = {
            name: run for name, run in _OWN_RUNS.items() if f"attached:{name}" in self._fds
        }
        self._seeing = [name for name in _SEEING if f"attached:{name}" in self._fds]
        self._bulk_size = sizes.ring
        self._bulk_page = mmap.mmap(self._fds["bulk_taken"], mmap.PAGESIZE)
        self._bulk_taken = memoryview(self._bulk_page).cast("Q")  # written as one word
        self.ring_fds = [self._fds[name] for name in RING_NAMES.values()]
        rings = {
            number: Ring(self._fds[name], sizes.of_ring(number))
            for number, name in RING_NAMES.items()
        }
        self.rings = Rings(rings, boottime_ns, self._count_taken, _BACKLOG * sizes.ring)
        table = BpfMap(self._fds["plans"], 4, COMMAND_PLAN.size)
        for slot, plan in plans.items():
            table[_U32.pack(slot)] = plan

    def start(self, wanted: KernelFilter) -> None:
        """From here on calls are recorded; this process's own never are."""
        for pids, flags in ((wanted.pids, 0), (wanted.families, TRACE_CHILDREN)):
            process = TRACED_PROCESS.pack(TRACE_PROCESS | TRACE_NAMED | flags, 0)
            for pid in pids:
                self._pids[_U32.pack(pid)] = process
        for uid in wanted.uids:
            self._uids[_U32.pack(uid)] = _SET
        for comm in wanted.comms:
            self._comms[comm[: COMM_LEN - 1].ljust(COMM_LEN, b"\0")] = _SET
        cgroups = BpfMap(self._fds["cgroups"], 4, 4)
        for number, path in enumerate(wanted.cgroups):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                cgroups[_U32.pack(number)] = _U32.pack(directory)
            finally:
                os.close(directory)
        self._wanted = wanted
        self._configure(running=True)
        self._own_seen = _number(self._own, OWN_ENTRY)
        self._own_calls = libc.bpf_calls()

    def stop(self) -> None:
        """No call that begins from here on is recorded; those under way still are."""
        if self._own_missed_at_end is None:
            self._own_missed_at_end = self._own_missed()
        self._configure(running=False)

    def discard_pid(self, pid: int) -> None:
        """To be called when the process ends, before another one gets its number."""
        self._pids.discard(_U32.pack(pid))

    def has_pids(self) -> bool:
        """Whether any process that the filter names is alive, children included.

        The kernel may have missed the end of one; it is taken away here.
        """
        for key in list(self._pids):
            if os.path.exists(f"/proc/{_U32.unpack(key)[0]}"):
                return True
            self._pids.discard(key)
        return False

    def silent(self) -> list[str]:
        """The programs of ours that the kernel does not run, though it should have just now.

        Our own calls, which are not recorded, go through all but one of them.
        """
        before = self._own_runs()
        after = self._own_runs()
        return [name for name, was, now in zip(self._watched, before, after, strict=True)
                if now == was]  # fmt: skip

    def _own_runs(self) -> list[int]:
        # All are looked up twice: one of them may be passed by while another thread is in it.
        numbers = [*self._watched.values(), *self._watched.values()]
        found = [_number(self._own, number) for number in numbers]
        return found[len(self._watched) :]

    def totals(self, time_ns: int) -> Totals:
        """What was seen and lost so far; how much of it arrived is for the reader to say.

        :param time_ns: now, ns since the epoch.
        """
        counts = {
            slot: parse_counts(self._counts[_U32.pack(slot)]) for slot in range(COMMAND_SLOTS)
        }
        no_room = sum(number for (number,) in _U64.iter_unpack(self._unfollowed[_KEY_0]))
        return Totals(
            counts={slot: count for slot, count in counts.items() if count.seen},
            unfinished=0,
            missed_runs=self._missed_entries(),
            unfollowed=no_room + self._missed("new_task"),
            time_ns=time_ns,
        )

    def _missed_entries(self) -> int:
        # A call whose entry was missed is still told when it returns; one whose return was
        # missed remains unfinished. Calls of our own may be missed too: right behind those
        # that woke us, for one.
        missed = sum(map(self._missed, self._seeing))
        return max(0, missed - _number(self._recovered, 0) - self._own_missed())

    def _own_missed(self) -> int:
        if self._own_missed_at_end is not None:  # nothing is seen of them any more
            return self._own_missed_at_end
        seen = _number(self._own, OWN_ENTRY) - self._own_seen
        return max(0, libc.bpf_calls() - self._own_calls - seen)

    def _missed(self, program: str) -> int:
        return missed_runs(self._fds[f"program:{program}"])

    def close(self) -> None:
        """Detaches and frees everything."""
        self._bulk_taken.release()
        self._bulk_page.close()
        self.rings.close()
        for fd in self._fds.values():
            with suppress(OSError):  # somebody with the right to trace us has closed it
                os.close(fd)

    def _configure(self, *, running: bool) -> None:
        wanted = self._wanted
        filters = (
            FILTER_PID * bool(wanted.pids | wanted.families)
            | FILTER_UID * bool(wanted.uids)
            | FILTER_COMM * bool(wanted.comms)
            | FILTER_CGROUP * bool(wanted.cgroups)
            | FILTER_PIDNS * bool(wanted.pid_namespace)
        )
        device, inode = wanted.pid_namespace or (0, 0)
        self._config[_KEY_0] = TRACER_CONFIG.pack(
            wanted.slots, running, filters, os.getpid(), len(wanted.cgroups), inode,
            os.minor(device), self._bulk_size,
        )  # fmt: skip

    def _count_taken(self, size: int) -> None:
        self._taken += size
        self._bulk_taken[0] = self._taken


def _number(array: BpfMap, index: int) -> int:
    """An element of an array of u64."""
    number: int = _U64.unpack(array[_U32.pack(index)])[0]
    return number


def boottime_ns() -> int:
    """``CLOCK_BOOTTIME``, the clock of the kernel program."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def possible_cpus() -> int:
    """How many CPUs a per-CPU map has values for: the kernel's possible ones."""
    with open(_POSSIBLE_CPUS, encoding="ascii") as file:
        return _count(file.read().strip().split(","))


def _count(ranges: Iterable[str]) -> int:
    total = 0
    for text in ranges:
        first, _, last = text.partition("-")
        total += int(last or first) - int(first) + 1
    return total
