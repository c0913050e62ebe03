# SPDX-License-Identifier: Apache-2.0
"""Where calls come from: the running kernel, or a recording of one."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple, Protocol

from ..events.call import Call, Totals
from ..events.ecs import Origin
from ..events.errors import RecordingError, WireError
from ..events.notice import Notice
from ..events.process import Process, Surroundings, exe_by_itself
from ..events.value import printable
from . import recording
from .assembly import Assembly
from .callers import Callers, Key
from .checks import Checks
from .guard import Identity, identities
from .host import HostMounts
from .loader import Loaded
from .map_types import AskedTypes, KnownTypes
from .process import ProcFs
from .program import Program, boottime_ns
from .recent import Recent
from .recording import Header, Recorder, Recording, Writer
from .rings import Drained
from .watch import Watch
from .witness import Witness

_MOMENT_S: Final = 0.001
_REPLAY_BATCH: Final = 4096
_CLOCK_TOLERANCE_NS: Final = 1_000_000
_TOLD_MAX: Final = 16_384
_TOLD_BYTES: Final = 64 << 20


class Seen(NamedTuple):
    """A call, and who made it."""

    call: Call
    process: Process


class Batch(NamedTuple):
    calls: list[Seen]
    clock_offset_ns: int
    """Wall-clock time minus boot time, for all of them."""
    notices: list[Notice] = []
    totals: Totals | None = None
    """What was seen and lost so far, if more was lost than when it was last told."""
    now_ns: int = 0
    """``CLOCK_BOOTTIME``; 0 in a replay, which has no now."""


class End(NamedTuple):
    """How a source ended."""

    totals: Totals | None
    """None if nobody knows them: it was over early, or is not over yet."""
    problem: str = ""
    """One sentence on why it was over early."""


class Source(Protocol):
    """An iterator of calls that counts its losses."""

    origin: Origin
    kernel_names: Mapping[str, Mapping[int, str]]
    own: frozenset[Identity]
    """The maps, programs and links of the tracer."""
    types: KnownTypes
    """Of maps, as soon as a call about one has come."""

    def batches(self) -> Iterator[Batch]:
        """Calls in the order in which they returned, until it is over."""

    def finish(self) -> None:
        """Enough: what still comes may be ignored."""

    def end(self) -> "End":
        """To be asked for when it is over."""


class Live:
    """Calls of this host, as they happen.

    :param watch: decides when it is over.
    :param proc: where processes are looked up.
    :param record: where to keep the raw records, or None.
    :param witness: what the kernel says of programs, if calls of all processes are seen.
    :param map_types: ask what is in maps.
    :param linger_s: let so much time pass when something has come, for more to come: to wake up
        for each call costs more than to read it. Rings hold what may come within some ms.
    """

    def __init__(
        self,
        program: Program,
        loaded: Loaded,
        watch: Watch,
        proc: ProcFs,
        *,
        record: Writer | None = None,
        witness: Witness | None = None,
        map_types: bool = True,
        linger_s: float = 0.0,
    ) -> None:
        self._host = HostMounts()
        self._linger_s = linger_s
        self.origin = Origin(
            _hostname(), _machine_id(), loaded.probe, boot_id(), self._host.namespace
        )
        self.kernel_names = loaded.facts.names
        self.own = identities(loaded.fds.values())
        self._program = program
        self._watch = watch
        self._clock_offset_ns = _clock_offset_ns()
        self._arrived = 0
        self._assembly = Assembly()
        self._proc = proc
        self._callers = Callers(self._look)
        self._recorder = self._start_recording(record) if record else None
        self._asked = AskedTypes(self._recorder) if map_types else None
        self.types = self._asked or KnownTypes()
        self._checks = Checks(program, witness, boottime_ns())
        self._end = End(None)

    def batches(self) -> Iterator[Batch]:
        pause_s = self._checks.pause_s
        while not self._watch.over:
            self._watch.wait(at_most_s=pause_s)
            if self._linger_s and pause_s:
                time.sleep(self._linger_s)
            drained = self._program.rings.drain()
            yield self._batch(drained)
            pause_s = self._checks.pause_s
            if drained.held:  # for a record that is being written, it may take a moment
                pause_s = 0 if drained.records else _MOMENT_S
        self._checks.stop(boottime_ns())
        self._program.stop()
        yield from self._rest()
        totals = self._program.totals(time.time_ns())
        yield from self._rest()  # of calls that returned meanwhile
        yield self._noticed([], self._checks.end(boottime_ns()))
        # One that began meanwhile may have come without being counted.
        unfinished = max(0, totals.seen - totals.lost - self._arrived)
        totals = totals._replace(unfinished=unfinished)
        self._end = End(totals)
        if self._recorder:
            self._recorder.end(totals)

    def _rest(self) -> Iterator[Batch]:
        while True:
            drained = self._program.rings.drain()
            yield self._batch(drained)
            if not drained.records and not drained.held:
                return

    def finish(self) -> None:
        self._watch.finish()

    def end(self) -> End:
        return self._end

    def _batch(self, drained: Drained) -> Batch:
        records = drained.records
        offset = _clock_offset_ns()
        if abs(offset - self._clock_offset_ns) > _CLOCK_TOLERANCE_NS:
            self._clock_offset_ns = offset
            if self._recorder:
                self._recorder.clock(offset)
        calls = [call for record in records if (call := self._assembly.feed(record))]
        # Processes and maps first: they may end at any time, and a replay must know them by then.
        seen = [Seen(call, self._callers.of(call, self._assembly.image(call)))
                for call in calls]  # fmt: skip
        if self._asked:
            self._asked.look(calls, boottime_ns())
        self._arrived += len(calls)
        if self._recorder:
            self._recorder.calls(records)
        return self._noticed(seen, self._checks.after(calls, drained.until_ns, boottime_ns()))

    def _noticed(self, seen: list[Seen], notices: list[Notice]) -> Batch:
        if self._recorder:
            for notice in notices:
                self._recorder.notice(notice)
        totals = self._checks.losses(boottime_ns(), time.time_ns()) if seen or notices else None
        if totals and self._recorder:
            self._recorder.losses(totals)
        return Batch(seen, self._clock_offset_ns, notices, totals, boottime_ns())

    def _look(self, key: Key) -> Surroundings:
        image = self._assembly.run_by(key.pid, key.start_ns, key.exec_id)
        parent = (image.parent_tgid, image.parent_start_ns) if image else None
        found = self._proc.surroundings(key.pid, key.start_ns, key.cgroup_id, key.exec_id, parent)
        if image and exe_by_itself(image, self.origin.mount_namespace) is None:
            found = self._host.with_exe(found, image)
        if self._recorder:
            self._recorder.process(key, found)
        return found

    def _start_recording(self, file: Writer) -> Recorder:
        origin = self.origin
        header = Header(
            _kernel_release(), origin.hostname, origin.host_id, origin.boot_id, origin.probe,
            self.kernel_names, self.own, origin.mount_namespace,
        )  # fmt: skip
        recorder = Recorder(file, header)
        recorder.clock(self._clock_offset_ns)
        return recorder


class Replay:
    """Calls of a recording.

    :raises RecordingError: it is not one that can be read.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._recording = Recording(file, path)
        self._path = path
        header = self._recording.header
        self.origin = Origin(
            header.hostname, header.host_id, header.probe, header.boot_id, header.mount_namespace
        )
        self.kernel_names = header.kernel_names
        self.own = header.own
        self._finished = False
        self._end = End(None)
        self._assembly = Assembly()
        self._told: Recent[Key, Surroundings] = Recent(
            _TOLD_MAX, _TOLD_BYTES, lambda told: told.size
        )
        self._callers = Callers(self._told.get)
        self.types = KnownTypes()

    def batches(self) -> Iterator[Batch]:
        calls: list[Seen] = []
        offset = 0
        try:
            for kind, payload in self._recording.frames():
                if kind == recording.CALL and not self._finished:
                    if call := self._assembly.feed(payload):
                        process = self._callers.of(call, self._assembly.image(call))
                        calls.append(Seen(call, process))
                elif kind == recording.NOTICE:
                    notice = recording.parse_notice(payload, self._path)
                    yield Batch(calls, offset, [notice])
                    calls = []
                elif kind == recording.LOSSES:
                    totals = recording.parse_totals(payload, self._path)
                    yield Batch(calls, offset, totals=totals)
                    calls = []
                elif kind == recording.CLOCK:
                    later = recording.parse_clock(payload, self._path)
                    yield Batch(calls, offset)
                    calls, offset = [], later
                elif kind == recording.END:
                    self._end = End(recording.parse_totals(payload, self._path))
                else:
                    self._learn(kind, payload)
                if len(calls) >= _REPLAY_BATCH:
                    yield Batch(calls, offset)
                    calls = []
        except RecordingError as error:
            self._end = End(None, str(error))
        except WireError as error:
            self._end = End(None, f"{self._path}: {error}")
        yield Batch(calls, offset)

    def _learn(self, kind: bytes, payload: bytes) -> None:
        # What calls that follow need.
        if kind == recording.PROCESS:
            key, surroundings = recording.parse_process(payload, self._path)
            self._told[key] = surroundings
        elif kind == recording.MAP_BTF:
            self.types.learn_map(recording.parse_map_btf(payload, self._path))
        elif kind == recording.BTF:
            number, data = recording.parse_btf(payload, self._path)
            try:
                self.types.learn_btf(number, data)
            except ValueError as error:
                raise RecordingError(f"{self._path}: has BTF that is none: {error}") from None

    def finish(self) -> None:
        self._finished = True

    def end(self) -> End:
        return self._end


def _clock_offset_ns() -> int:
    return time.time_ns() - boottime_ns()


def _hostname() -> str:
    return printable(os.fsencode(os.uname().nodename))


def _machine_id() -> str:
    return _line("/etc/machine-id")


def boot_id() -> str:
    """The UUID of this boot of the host (random(4)); empty if the kernel does not tell."""
    return _line("/proc/sys/kernel/random/boot_id")


def _line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return printable(file.read(64).strip())
    except OSError:
        return ""


def _kernel_release() -> str:
    """``uname -srm`` of this machine."""
    about = os.uname()
    return f"{about.sysname} {about.release} {about.machine}"
