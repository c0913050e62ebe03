# SPDX-License-Identifier: Apache-2.0
"""One sink's thread: from its backlog to its outlet, for as long as it takes."""

import random
import time
from threading import Event, Lock, Thread
from typing import Final

from .backlog import Backlog
from .outlet import Outlet

BATCH: Final = 1 << 18
"""Bytes that are taken at once, about."""

_IDLE_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_ONCE_OPEN_S: Final = 2.0  # it is there, and lines wait: only not to send the same nonstop
_IN_VAIN_S: Final = 60.0  # so long it can be opened and confirms nothing: then not that often
_GOOD_S: Final = 5.0  # what stood this long did not fail at once
_SETTLE_S: Final = 1.0  # for an outlet in whose place another comes


class Worker:
    """Delivers from :meth:`start` until :meth:`finish`.

    :param outlet: the worker's, also to close.
    """

    def __init__(self, name: str, outlet: Outlet, backlog: Backlog) -> None:
        self.up = False
        self._failure = ""
        self._outlet = outlet
        self._refused = 0  # of those that this outlet refused, how many are counted
        self._next_outlet: Outlet | None = None
        self._deadline: float | None = None
        self._ended = False
        self._lock = Lock()  # of these
        self._backlog = backlog
        self._pause_s = _FIRST_PAUSE_S
        self._longest_s = _LONGEST_PAUSE_S
        self._open_since: float | None = None  # and has confirmed nothing since then
        self._stir = Event()  # ends a pause
        # A daemon: who does not answer holds up a thread of ours, not our end.
        self._thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def problem(self) -> str:
        """What is wrong, or empty."""
        spool = self._backlog.problem
        every = (self._failure, self._outlet.problem, spool and f"spool: {spool}")
        return "; ".join(filter(None, every))

    def start(self) -> None:
        self._thread.start()

    def replace(self, outlet: Outlet) -> None:
        """From the next line on, what this worker delivers to."""
        with self._lock:
            unused, self._next_outlet = self._next_outlet, outlet
        if unused is not None:
            unused.close()
        self._wake()

    def finish(self, deadline: float) -> None:
        """Has it end when all is delivered, or at this time (monotonic, s)."""
        self._deadline = deadline
        self._wake()

    def stay(self) -> bool:
        """Takes :meth:`finish` back; False if it is too late for that."""
        with self._lock:
            if not self._ended:
                self._deadline = None
            return not self._ended

    def join(self, timeout_s: float) -> None:
        """Waits until it has ended, but no longer than that."""
        self._thread.join(max(timeout_s, 0))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _wake(self) -> None:
        self._stir.set()
        self._backlog.wake()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        last_try = False
        while True:
            failed = self._serve()
            if self._exchange():
                continue
            if self._deadline is None:
                last_try = False
                if failed:
                    self._pause()
            elif (last_try or not failed) and self._may_end():
                return
            else:
                last_try = True  # what was away may be back, now that it matters

    def _pause(self) -> None:
        self._backlog.park()
        self._pause_s = min(self._pause_s, self._longest_s)
        self._stir.wait(self._pause_s * random.uniform(0.5, 1))  # not all hosts at once
        self._stir.clear()
        self._pause_s *= 2

    def _may_end(self) -> bool:
        with self._lock:
            self._ended = self._deadline is not None and self._next_outlet is None
            return self._ended

    def _serve(self) -> bool:
        """Whether it failed."""
        began = time.monotonic()
        failed = False
        try:
            self._open(began)
            self._deliver()
        # An OSError is what outlets raise. Anything else is a mistake in one of them, which must
        # not end the sink in silence either.
        except Exception as error:
            failed = True
            self._failure = sentence(error)
        self.up = False
        self._outlet.close()
        self._backlog.again()
        if time.monotonic() - began > _GOOD_S:
            self._pause_s = _FIRST_PAUSE_S
        return failed

    def _open(self, now: float) -> None:
        try:
            self._outlet.open()
        except OSError:
            self._open_since, self._longest_s = None, _LONGEST_PAUSE_S
            raise
        self.up, self._failure = True, ""
        if self._open_since is None:
            self._open_since = now
        in_vain = now - self._open_since > _IN_VAIN_S
        self._longest_s = _LONGEST_PAUSE_S if in_vain else _LONGEST_ONCE_OPEN_S

    def _deliver(self) -> None:
        """Until there is a next outlet, or it is over."""
        while self._next_outlet is None:
            lines = self._backlog.take(BATCH, _IDLE_S)
            self._confirm(self._outlet.send(lines))
            deadline = self._deadline
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if not lines or left_s <= 0:
                    self._settle(max(left_s, 0))
                    return
            elif self._backlog.stuck:
                self._free()
                return
        self._settle(_SETTLE_S)

    def _free(self) -> None:
        # A stream confirms a line by what is sent after it, and for that there is no room.
        confirmed = self._outlet.settle(_SETTLE_S)
        self._confirm(confirmed)
        if not confirmed:
            raise OSError("queue and spool are full of lines that may not have arrived")

    def _settle(self, timeout_s: float) -> None:
        try:
            self._confirm(self._outlet.settle(timeout_s))
        except OSError as error:
            # No reason to send all that once more at once: most of it is there already.
            self._failure = sentence(error)

    def _confirm(self, count: int) -> None:
        refused = self._outlet.refused - self._refused
        self._refused += refused
        self._backlog.confirm(count, refused)
        if count:
            self._pause_s, self._open_since = _FIRST_PAUSE_S, None

    def _exchange(self) -> bool:
        with self._lock:
            outlet, self._next_outlet = self._next_outlet, None
            if outlet is None:
                return False
            self._outlet, self._refused = outlet, 0
            return True


def sentence(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
