# SPDX-License-Identifier: Apache-2.0
"""Sleeping until there is something to do, and knowing when it is over."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

_FAMILY_POLL_S: Final = 0.2
_LONGEST_S: Final = 86_400.0  # epoll_wait(2) takes no more than 24 days
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watch:
    """Waits for descriptors to become readable, for signals, processes and time.

    Signals do not interrupt anything: they are noticed in :meth:`wait`, so that no
    line is ever cut in two. Use as a context manager; it puts the handlers back.

    :param fds: those whose readiness ends :meth:`wait`, such as rings.
    """

    def __init__(self, fds: Iterable[int]) -> None:
        self.over = False
        self.insisted = False
        """There was a second signal: whoever sent it does not want to wait."""
        self.pulse_s: float | None = None
        """:meth:`wait` takes no longer than that."""
        self._deadline: float | None = None
        self._actions: dict[int, Callable[[], None]] = {}
        self._family: Callable[[], bool] | None = None
        self._on_signal: Callable[[int], None] = lambda number: self.finish()
        self._on_hangup: Callable[[], None] | None = None
        self._masks: dict[int, int] = {}
        self._signals = 0
        self._poll = select.epoll()
        self._fds = list(fds)
        for fd in self._fds:
            self._poll.register(fd, select.EPOLLIN)
        self._wakeup, self._wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._wakeup, select.EPOLLIN)
        self._actions[self._wakeup] = self._signalled

    def __enter__(self) -> Self:
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        self._old_handlers = {
            number: signal.signal(number, _noticed)
            for number in _SIGNALS
            # nohup means that we stay when the terminal goes
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        self.ignored = frozenset(
            number
            for number in _SIGNALS
            if self._old_handlers.get(number, signal.SIG_IGN) is signal.SIG_IGN
        )
        """Those that whoever started us wants to be ignored."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._poll.close()
        os.close(self._wakeup)
        os.close(self._wakeup_end)

    def finish(self) -> None:
        self.over = True

    def release(self) -> None:
        """From here on only signals and processes end :meth:`wait`."""
        for fd in self._fds:
            self._poll.unregister(fd)
        self._deadline = None
        self._family = None

    def on_signal(self, action: Callable[[int], None]) -> None:
        """What the first SIGINT, SIGTERM or SIGHUP does instead; the second still ends it."""
        self._on_signal = action

    def on_hangup(self, action: Callable[[], None]) -> None:
        """What each SIGHUP does, which then ends nothing."""
        self._on_hangup = action

    def on_ready(self, fd: int, action: Callable[[], None], *, writable: bool = False) -> None:
        """Called whenever there is something to read, until :meth:`forget`.

        :param writable: also whenever it can be written to. May be asked for anew.
        """
        mask = select.EPOLLIN | (select.EPOLLOUT if writable else 0)
        if fd not in self._masks:
            self._poll.register(fd, mask)
        elif self._masks[fd] != mask:
            self._poll.modify(fd, mask)
        self._masks[fd] = mask
        self._actions[fd] = action

    def forget(self, fd: int) -> None:
        """What :meth:`on_ready` or :meth:`on_exit` were told of; nothing if they were not."""
        if self._actions.pop(fd, None):
            self._masks.pop(fd, None)
            self._poll.unregister(fd)

    def until(self, seconds: float) -> None:
        """It is over this long from now."""
        self._deadline = time.monotonic() + seconds

    def while_alive(
        self,
        pidfds: Iterable[int],
        on_exit: Callable[[int], None],
        family: Callable[[], bool] | None,
    ) -> None:
        """It is over when all of these processes have ended.

        :param on_exit: called with the pidfd of each that ends.
        :param family: whether anything is left of them when they have ended
            themselves; None to leave that out.
        """
        alive = set(pidfds)

        def ended(pidfd: int) -> None:
            alive.discard(pidfd)
            on_exit(pidfd)
            if not alive:
                if family is None:
                    self.finish()
                self._family = family

        for pidfd in list(alive):
            self.on_exit(pidfd, ended)

    def on_exit(self, pidfd: int, action: Callable[[int], None]) -> None:
        """Called once, with the pidfd, when its process ends."""

        def ended() -> None:
            self.forget(pidfd)
            action(pidfd)

        self._poll.register(pidfd, select.EPOLLIN)
        self._actions[pidfd] = ended

    def wait(self, *, at_most_s: float | None = None) -> None:
        """Returns when a descriptor is readable or something else happened, or then."""
        limits = [
            limit for limit in (self._timeout(), at_most_s, self.pulse_s) if limit is not None
        ]
        for fd, _ in self._poll.poll(min(limits, default=None)):
            action = self._actions.get(fd)
            if action:
                action()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.finish()
        if self._family and not self._family():
            self.finish()

    def _timeout(self) -> float | None:
        longest = _LONGEST_S if self._family is None else _FAMILY_POLL_S
        if self._deadline is None:
            return None if self._family is None else longest
        return min(longest, max(0.0, self._deadline - time.monotonic()))

    def _signalled(self) -> None:
        for number in os.read(self._wakeup, 4096):
            if number not in _SIGNALS:
                continue
            if number == signal.SIGHUP and self._on_hangup:
                self._on_hangup()
                continue
            self._signals += 1
            if self._signals == 1:
                self._on_signal(number)
            else:
                self.insisted = True
                self.finish()


def _noticed(number: int, frame: object) -> None:
    # Python runs this between two instructions; the byte in the pipe does the work.
    pass
