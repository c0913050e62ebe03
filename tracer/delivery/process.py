# SPDX-License-Identifier: Apache-2.0
"""The process: frames in, lines to sinks, answers and progress back.

The main thread only reads and queues, whatever the sinks do; each sink has a thread; a clerk
reports and looks after what need not be at once.
"""

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from threading import Event, Lock, Thread
from typing import Any, Final, Protocol, cast

from ...events.errors import BpfsnoopError
from ..say import say
from .frames import ACCEPTED, END, LINE, PROGRESS, REFUSED, SETTINGS, STATUS, Frame, FrameReader
from .settings import Settings
from .sinks import Refused, Sinks

_READ: Final = 1 << 18  # bytes
_PROGRESS_S: Final = 1.0
_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGABRT)
"""The last one is that of systemd's watchdog."""


class _Closable(Protocol):
    def close(self) -> None: ...


class Process:
    """:param connection: to the daemon."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = Lock()
        self._sinks = Sinks()
        self._is_set_up = False
        self._status: Mapping[str, Any] = {}
        self._status_at = time.monotonic()
        self._metrics: _Closable | None = None
        self._metrics_at = ""
        self._reported: Mapping[str, Any] = {}
        self._over = Event()
        self._clerk = Thread(target=self._report_on, name="clerk", daemon=True)

    def run(self) -> None:
        """Until the daemon says so, or is gone.

        :raises ValueError: what comes are no frames.
        """
        for number in _SIGNALS:  # of the terminal or service that we share with the daemon
            signal.signal(number, signal.SIG_IGN)
        self._clerk.start()
        try:
            self._read()
        finally:
            self._sinks.end()
            self._over.set()
            self._clerk.join()
            self._report()
            if self._metrics is not None:
                self._metrics.close()

    # --- in ------------------------------------------------------------------------------

    def _read(self) -> None:
        reader = FrameReader()
        while data := self._receive():
            lines: list[Frame] = []
            for frame in reader.feed(data):
                if frame.kind == LINE:
                    lines.append(frame)
                    continue
                self._put(lines)  # ahead of what may change where they go
                lines = []
                if frame.kind == END:
                    return
                self._obey(frame)
                if frame.kind == SETTINGS and not self._is_set_up:
                    return  # without sinks: lines would be put nowhere, and count as done
            self._put(lines)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_READ)
        except ConnectionError:
            return b""

    def _put(self, lines: Sequence[Frame]) -> None:
        if lines:
            self._sinks.put(lines)

    def _obey(self, frame: Frame) -> None:
        if frame.kind == STATUS:
            self._status, self._status_at = json.loads(frame.payload), time.monotonic()
        elif frame.kind == SETTINGS:
            settings = Settings.from_json(json.loads(frame.payload))
            try:
                self._sinks.apply(settings, lambda: self._serve_metrics(settings))
            except Refused as error:
                self._send(Frame(REFUSED, json.dumps(error.sentences).encode()))
            else:
                self._is_set_up = True
                self._send(Frame(ACCEPTED))

    def _serve_metrics(self, settings: Settings) -> None:
        listen = settings.metrics
        if listen == self._metrics_at:
            return
        try:
            serving = _metrics_server(listen, self._snapshot) if listen else None
        except (BpfsnoopError, ImportError) as error:
            if not settings.again:
                raise
            # Whoever took the port meanwhile must not keep lines from all sinks.
            say(f"delivery: metrics: {error}; a reload tries that again")
            return
        if self._metrics is not None:
            self._metrics.close()
        self._metrics, self._metrics_at = serving, listen

    def _snapshot(self) -> Mapping[str, Any]:
        """All that metrics and health are made of: the last STATUS, and what PROGRESS says."""
        age_s = time.monotonic() - self._status_at
        return {"status": self._status, "age_s": age_s, **self._sinks.progress()}

    # --- out -----------------------------------------------------------------------------

    def _report_on(self) -> None:
        while not self._over.wait(_PROGRESS_S):
            # Not while the daemon reads nothing: then this would wait, and with it the spools.
            if select.select((), (self._connection,), (), 0)[1]:
                self._report()
            self._sinks.look_after()

    def _report(self) -> None:
        progress = self._sinks.progress()
        if progress != self._reported:
            self._reported = progress
            self._send(Frame(PROGRESS, json.dumps(progress).encode()))

    def _send(self, frame: Frame) -> None:
        with self._sending, suppress(ConnectionError):  # it is gone, which reading tells too
            self._connection.sendall(bytes(frame))


def _metrics_server(listen: str, snapshot: Callable[[], Mapping[str, Any]]) -> _Closable:
    # Megabytes, for those who want metrics.
    return cast(_Closable, import_module(".metrics", __package__).serve(listen, snapshot))


def _thread_died(about: threading.ExceptHookArgs) -> None:
    # None of them may be missing without anybody's notice: the daemon starts another process.
    say(f"delivery: {about.exc_type.__name__}: {about.exc_value}")
    os._exit(1)


def main(connection: int) -> int:
    """:param connection: descriptor of a stream socket to the daemon; ours from here on."""
    threading.excepthook = _thread_died
    os.umask(0o027)  # of files that others may read: their mode is 0640
    with socket.socket(fileno=connection) as daemon:
        try:
            Process(daemon).run()
        except ValueError as error:
            say(f"delivery: what the daemon says cannot be understood: {error}")
            return 1
    return 0
