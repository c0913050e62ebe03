# SPDX-License-Identifier: Apache-2.0
"""All sinks: which there are, which line is for which, how far each has come."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final

from ...events.errors import BpfsnoopError
from .backlog import Backlog, Numbered
from .frames import Frame
from .outlet import Line, Outlet
from .outlets import LateOutlet, make_outlet
from .settings import Settings, SinkSettings
from .worker import Worker, sentence

FINISH_S: Final = 5.0
"""How long a sink may deliver what waits, once it is to go."""

_REOPENED: Final = ("file",)  # at each reload, whether it changed or not


class Refused(Exception):
    """New settings that cannot be had, with a sentence for each reason."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class Sink:
    """One of them, at work from the beginning."""

    def __init__(self, settings: SinkSettings, outlet: Outlet, backlog: Backlog) -> None:
        self.settings = settings
        self.backlog = backlog
        self._deadline = math.inf
        self._worker = Worker(settings.name, outlet, backlog)
        self._worker.start()

    def change(self, settings: SinkSettings, outlet: Outlet) -> None:
        """Other settings, the same lines."""
        self.settings = settings
        self.backlog.resize(settings.queue, settings.spool)
        self._worker.replace(outlet)

    def finish(self, deadline: float) -> None:
        """Delivers until then (monotonic, s), or until there is nothing left."""
        self._deadline = deadline
        self._worker.finish(deadline)

    def stay(self) -> bool:
        """Takes :meth:`finish` back; False if it is too late for that."""
        if self.backlog.closed or not self._worker.stay():
            return False
        self._deadline = math.inf
        return True

    def wait(self) -> None:
        """Until it has finished, or should have."""
        self._worker.join(self._deadline - time.monotonic())

    @property
    def over(self) -> bool:
        """It has finished, or should have: it may be waiting for somebody who does not answer."""
        return time.monotonic() > self._deadline or not self._worker.alive

    def progress(self) -> dict[str, Any]:
        worker = self._worker
        return {**self.backlog.counts(), "up": worker.up, "problem": worker.problem}


class Sinks:
    """The set of them, as the last accepted settings have it.

    ``apply``, ``put`` and ``end`` are for one thread; the others for any.
    """

    def __init__(self) -> None:
        self._directory = ""
        self._sinks: dict[str, Sink] = {}
        self._leaving: dict[str, Sink] = {}  # were removed, and have some seconds left
        self._lock = Lock()  # of these
        self._routes: Mapping[int, Backlog] = {}
        self._last = 0

    # --- settings ------------------------------------------------------------------------

    def apply(self, settings: Settings, also: Callable[[], None]) -> None:
        """All of it, or nothing.

        :param also: done when nothing else is in the way; raises what it cannot do.
        :raises Refused: then all is as it was.
        """
        if self._sinks and settings.spool != self._directory:
            raise Refused(["spool: another directory takes a restart"])
        made = _Made()
        problems: list[str] = []
        for sink in settings.sinks:
            try:
                self._prepare(sink, settings, made)
            except (BpfsnoopError, OSError, ImportError) as error:
                problems.append(f"sinks.{sink.name}: {sentence(error)}")
        try:
            if not problems:
                also()
        except (BpfsnoopError, OSError, ImportError) as error:
            problems.append(f"metrics: {sentence(error)}")
        if problems:
            made.undo()
            raise Refused(problems)
        self._directory = settings.spool
        self._commit(settings, made)

    def _prepare(self, wanted: SinkSettings, settings: Settings, made: "_Made") -> None:
        """What a sink needs to come or change, if it does."""
        name = wanted.name
        sink = self._sinks.get(name) or self._returning(name, made)
        if sink and sink.settings == wanted and wanted.kind not in _REOPENED:
            return
        made.outlets[name] = _outlet(wanted, again=settings.again)
        path = f"{settings.spool}/{name}"
        try:
            if sink:
                sink.backlog.prepare(wanted.spool)
            else:
                before = self._leaving.get(name)  # which may not have told what it dropped
                dropped = before.backlog.counts()["dropped"] if before else 0
                made.backlogs[name] = Backlog(wanted.queue, path, wanted.spool, dropped)
        except OSError as error:
            raise OSError(error.errno, f"cannot spool in {path}: {sentence(error)}") from error

    def _returning(self, name: str, made: "_Made") -> Sink | None:
        """It was removed, and is still there: so its lines go on in their order."""
        with self._lock:
            sink = self._leaving.get(name)
            if sink and sink.stay():
                made.returning[name] = sink
                return sink
        if sink:  # too late for that; one directory has one owner
            sink.backlog.close()
        return None

    def _commit(self, settings: Settings, made: "_Made") -> None:
        wanted = {sink.name: sink for sink in settings.sinks}
        sinks = {**self._sinks, **made.returning}
        gone = {name: sinks.pop(name) for name in self._sinks.keys() - wanted.keys()}
        for sink in gone.values():
            sink.finish(time.monotonic() + FINISH_S)
        for name, outlet in made.outlets.items():
            if name in made.backlogs:
                sinks[name] = Sink(wanted[name], outlet, made.backlogs[name])
            else:
                sinks[name].change(wanted[name], outlet)
        with self._lock:
            leaving = {**self._leaving, **gone}
            self._leaving = {name: sink for name, sink in leaving.items() if name not in sinks}
            self._sinks = sinks
        self._routes = {1 << settings.bits[name]: sink.backlog for name, sink in sinks.items()}

    # --- lines ---------------------------------------------------------------------------

    def put(self, frames: Sequence[Frame]) -> None:
        """Lines, in their order, to each of those that they are for."""
        lines: list[tuple[int, Numbered]] = [
            (frame.sinks, (frame.number, Line(frame.payload, frame.severity, frame.time_ns)))
            for frame in frames
        ]
        for bit, backlog in self._routes.items():
            wanted = [line for sinks, line in lines if sinks & bit]
            if wanted:
                backlog.put(wanted)
        self._last = frames[-1].number

    def end(self) -> None:
        """Delivers what it can within :data:`FINISH_S`; the rest goes into the spools."""
        deadline = time.monotonic() + FINISH_S
        every = self._all()
        for sink in every:
            sink.finish(deadline)
        for sink in every:
            sink.wait()
        for sink in every:  # all are with the kernel before any waits for the disk
            sink.backlog.park()
        for sink in every:
            sink.backlog.close()

    # --- how it is -----------------------------------------------------------------------

    def progress(self) -> dict[str, Any]:
        """What PROGRESS says. Sinks that were removed are in it until they have ended."""
        last = self._last  # ahead of the rest: what comes meanwhile counts as not done
        every = self._all()
        unsafe = [number for sink in every if (number := sink.backlog.first_unsafe()) is not None]
        sinks = {sink.settings.name: sink.progress() for sink in every}
        return {"done": min([last, *(number - 1 for number in unsafe)]), "sinks": sinks}

    def look_after(self) -> None:
        """Once a second: the disk keeps what is in the spools, and removed sinks end."""
        for sink in self._all():
            sink.backlog.sync()
        with self._lock:
            for name, sink in list(self._leaving.items()):
                if sink.backlog.closed:  # and that was in the last progress
                    del self._leaving[name]
                elif sink.over:
                    sink.backlog.close()

    def _all(self) -> list[Sink]:
        with self._lock:
            return [*self._leaving.values(), *self._sinks.values()]


def _outlet(wanted: SinkSettings, *, again: bool) -> Outlet:
    try:
        return make_outlet(wanted.kind, wanted.options)
    except (BpfsnoopError, OSError, ImportError):
        if not again:
            raise
        return LateOutlet(wanted.kind, wanted.options)


class _Made:
    """What new settings need, before it is known whether they can be had."""

    def __init__(self) -> None:
        self.outlets: dict[str, Outlet] = {}
        self.backlogs: dict[str, Backlog] = {}
        self.returning: dict[str, Sink] = {}

    def undo(self) -> None:
        for outlet in self.outlets.values():
            outlet.close()
        for backlog in self.backlogs.values():
            backlog.close()
        for sink in self.returning.values():
            sink.finish(time.monotonic() + FINISH_S)
