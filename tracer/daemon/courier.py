# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of its delivery process: hands it lines, and starts it again if it ends."""

import json
import os
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ...events.errors import CannotStart
from .. import delivery
from ..delivery import frames
from ..delivery.frames import Frame, FrameReader
from ..delivery.settings import Settings
from ..rights import Account
from ..watch import Watch

WAITING_MAX: Final = 8 << 20
"""Bytes that wait for the delivery process to read; what comes then is lost, and counted."""
KEPT_MAX: Final = 4 << 20
"""Bytes that it was given and may not have put anywhere: it gets them again if it ends."""
_START_S: Final = 30.0
_END_S: Final = 10.0
_LEAVE_S: Final = 1.0
_PAUSES_S: Final = (0.0, 1.0, 5.0, 30.0)
"""Between its end and its next start, if it goes on ending."""
_HUNG_S: Final = 30.0
_ASLEEP_S: Final = 10.0  # no round of ours takes that long
_STEADY_S: Final = 60.0  # after which it counts as one that stays
_MODULE: Final = delivery.__name__
_AT_A_TIME: Final = 1 << 18
_NOT_ITS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT)
"""Signals of the terminal or service that it shares with us: we say when it is over."""
_COUNTS: Final = "delivered", "dropped", "queued", "spooled"
_PROBLEM_MAX: Final = 1000  # characters
_SAID_MAX: Final = 1 << 18  # bytes that it says at once: of each sink some hundred
_LAST_READS: Final = 4  # more than a socket holds
_COUNT_MAX: Final = (1 << 63) - 1
_CHILD_SOCKET: Final = 3  # behind the standard streams

Answered = Callable[[Sequence[str]], None]
"""Called with what is wrong with settings, or with nothing if they were taken."""


@dataclass
class _Packed:
    number: int
    """Of the line; 0 of what is none."""
    data: bytes


class Courier:
    """Lines to the delivery process, which is somebody without rights.

    :param who: whom it becomes; None: it remains who we are.
    :param ended: called with a sentence when it has ended by itself.
    :raises CannotStart: it cannot be started, or does not take the settings.
    """

    def __init__(
        self, settings: Settings, who: Account | None, ended: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._who = who
        self._ended = ended
        self._watch: Watch | None = None
        self._number = 0
        self._waiting: deque[_Packed] = deque()
        self._waiting_bytes = 0
        self._leaving: list[_Packed] = []
        self._rest = memoryview(b"")
        """Of those that leave, what has not."""
        self._kept: deque[_Packed] = deque()
        self._kept_bytes = 0
        self._done = 0
        self._pid = 0
        self._answers: deque[tuple[Settings, Answered]] = deque()
        self._failures = 0
        self._over = False
        self._start_at: float | None = None
        self._moved = self._awake_at = 0.0
        self._unheard: float | None = None
        """When the first line left of which it has said nothing."""
        self.lost = 0
        """Lines that found no room here, or may have been with it when it ended."""
        self.progress: Mapping[str, Mapping[str, Any]] = {}
        """Of each sink, as the PROGRESS frame has it."""
        self.dropped: Counter[str] = Counter()
        """Lines by sink, of all delivery processes and of sinks that are gone."""
        self._names = _names(settings)
        self._dropped_by_this: dict[str, int] = {}
        self._start()
        try:
            self._first_answer()
        except BaseException:
            self._kill()
            raise

    @property
    def pid(self) -> int:
        """Of the delivery process; 0 while there is none."""
        return self._pid

    def line(self, text: bytes, *, sinks: int, severity: int, time_ns: int) -> None:
        """Takes a line; :meth:`flush` sends it.

        :param sinks: a bit for each.
        :param severity: syslog's, 0 to 7.
        :param time_ns: ns since the epoch.
        """
        if self._waiting_bytes + len(text) > WAITING_MAX:
            self.lost += 1
            return
        self._number += 1
        self._put(Frame(frames.LINE, text, self._number, sinks, severity, time_ns))

    def status(self, about: Mapping[str, Any]) -> None:
        """Numbers for metrics and health."""
        if self._waiting_bytes < WAITING_MAX // 2:
            self._put(Frame(frames.STATUS, json.dumps(about).encode()))

    def offer(self, settings: Settings, answered: Answered) -> None:
        """Asks it to go by these from here on; the answer comes while :class:`Watch` waits."""
        self._answers.append((settings, answered))
        self._names |= _names(settings)
        self._put(_told(settings))

    def watched_by(self, watch: Watch) -> None:
        """From now on its words and its end are noticed."""
        self._watch = watch
        self._register(watch)

    def flush(self) -> None:
        """Sends what it takes without waiting."""
        if self._start_at is not None and time.monotonic() >= self._start_at:
            self._try_to_start()
        if self._pid:
            self._send()
            self._forgive_sleep()
            if self._hangs():
                self._moved, self._unheard = time.monotonic(), None
                self._strike()  # it reads whatever its sinks do, or hangs
            if self._watch:
                self._watch.on_ready(self._socket.fileno(), self._ready, writable=self._unsent)

    def _forgive_sleep(self) -> None:
        # Where we were stopped ourselves, as by a freezer, it was too, or was not listened to.
        now = time.monotonic()
        slept_s, self._awake_at = now - self._awake_at, now
        if slept_s > _ASLEEP_S:
            self._moved += slept_s
            if self._unheard is not None:
                self._unheard += slept_s

    def _hangs(self) -> bool:
        # A line brings about a PROGRESS. Few of them could lie in the socket for days.
        since = self._moved if self._unsent else self._unheard
        return since is not None and time.monotonic() - since > _HUNG_S

    def end(self) -> None:
        """Lets it bring away what it can, in some seconds; the rest it puts on disk.

        Once: what comes later is nobody's.
        """
        if self._over:
            return
        self._over = True
        # Whoever waits for an answer would have something to tell, and there is nobody to tell it.
        self._answers = deque((settings, _nobody) for settings, _ in self._answers)
        if not self._pid and self._unsent:
            self._try_to_start()
        self._put(Frame(frames.END))
        deadline = time.monotonic() + _END_S
        while self._pid and (left_s := deadline - time.monotonic()) > 0:
            if not self._converse(left_s):
                break
        # What it had and did not say to be done, it may have brought away or not.
        self.lost += max(0, self._number - self._done)
        self._kill()

    # --- Its life ------------------------------------------------------------------------

    def _start(self, *, again: bool = False) -> None:
        self._start_at = None
        try:
            self._socket, self._pid, self._pidfd = _spawned(self._who)
        except OSError as error:
            raise CannotStart(f"cannot start the delivery process: {error.strerror}") from error
        self._started = self._moved = self._awake_at = time.monotonic()
        self._reader, self._unheard = FrameReader(_SAID_MAX), None
        self._dropped_by_this = {}
        # Ahead of lines, and of settings that were offered meanwhile.
        told = _Packed(0, bytes(_told(replace(self._settings, again=again))))
        self._waiting.appendleft(told)
        self._waiting_bytes += len(told.data)
        self._answers.appendleft((self._settings, self._started_again))
        if self._watch:
            self._register(self._watch)

    def _try_to_start(self) -> None:
        try:
            self._start(again=True)
        except CannotStart as error:
            self._start_at = time.monotonic() + _PAUSES_S[-1]
            self._ended(f"{error}; the next attempt is in {_PAUSES_S[-1]:.0f} s")

    def _register(self, watch: Watch) -> None:
        watch.on_exit(self._pidfd, self._exited)
        watch.on_ready(self._socket.fileno(), self._ready, writable=self._unsent)

    def _first_answer(self) -> None:
        wrong: list[str] = []
        self._answers = deque([(self._settings, wrong.extend)])
        deadline = time.monotonic() + _START_S
        while self._answers:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise CannotStart("the delivery process does not answer")
            if not self._converse(left_s) and self._answers:
                raise CannotStart("the delivery process ended at once: see what it said above")
        if wrong:
            raise CannotStart("; ".join(wrong))

    def _exited(self, pidfd: int) -> None:
        for _ in range(_LAST_READS):
            if not self._read():
                break
        with suppress(OSError):  # it is nobody's child where SIGCHLD is ignored
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        steady = time.monotonic() - self._started > _STEADY_S
        self._failures = 0 if steady else self._failures + 1
        self._forget()
        self._take_back()
        answers, self._answers = self._answers, deque()
        for _, answered in answers:
            answered(["the delivery process has just ended"])
        pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
        self._start_at = time.monotonic() + pause_s
        self._ended(f"the delivery process ended, and is started again in {pause_s:.0f} s")

    def _take_back(self) -> None:
        """Has all lines wait that it may not have put anywhere."""
        lines = [each for each in self._with_us() if each.number > self._done]
        # What it had and is not kept any more, it may have brought away or not.
        first = lines[0].number if lines else self._number + 1
        self.lost += max(0, first - 1 - self._done)
        self._done = max(self._done, first - 1)  # and that is not counted again
        self._waiting = deque(lines)
        self._waiting_bytes = sum(len(each.data) for each in lines)
        self._kept.clear()
        self._kept_bytes = 0
        self._leaving, self._rest = [], memoryview(b"")

    def _with_us(self) -> Iterator[_Packed]:
        yield from self._kept
        yield from self._leaving
        yield from self._waiting

    def _started_again(self, wrong: Sequence[str]) -> None:
        if wrong and self._pid:
            self._ended(f"the delivery process does not take its settings any more: {wrong[0]}")

    def _forget(self) -> None:
        if self._watch:
            self._watch.forget(self._socket.fileno())
        self._socket.close()
        os.close(self._pidfd)
        self._pid = 0

    def _kill(self) -> None:
        if not self._pid:
            return
        if not _poll(self._pidfd, 0, _LEAVE_S):
            self._strike()
            _poll(self._pidfd, 0, _LEAVE_S)  # a file server may hold it up for longer
        with suppress(OSError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if self._watch:
            self._watch.forget(self._pidfd)
        self._forget()

    def _strike(self) -> None:
        with suppress(OSError):  # it has ended already
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # --- What is said --------------------------------------------------------------------

    @property
    def _unsent(self) -> bool:
        return bool(self._rest or self._waiting)

    def _put(self, frame: Frame) -> None:
        packed = _Packed(frame.number, bytes(frame))
        self._waiting.append(packed)
        self._waiting_bytes += len(packed.data)

    def _send(self) -> None:
        while self._rest or self._waiting:
            if not self._rest:
                self._take()
            try:
                self._rest = self._rest[self._socket.send(self._rest) :]
            except BlockingIOError:
                return
            except OSError:
                return  # it has ended, which is noticed elsewhere
            self._moved = time.monotonic()
            if not self._rest:
                self._keep()

    def _take(self) -> None:
        size = 0
        while self._waiting and size < _AT_A_TIME:
            packed = self._waiting.popleft()
            self._leaving.append(packed)
            size += len(packed.data)
        self._waiting_bytes -= size
        self._rest = memoryview(b"".join(packed.data for packed in self._leaving))

    def _keep(self) -> None:
        for packed in self._leaving:
            if packed.number:
                self._kept.append(packed)
                self._kept_bytes += len(packed.data)
                self._unheard = self._unheard or self._moved
        self._leaving = []
        while self._kept and (self._kept_bytes > KEPT_MAX or self._kept[0].number <= self._done):
            self._kept_bytes -= len(self._kept.popleft().data)

    def _ready(self) -> None:
        if self._read():
            self.flush()
        elif self._watch:
            self._watch.forget(self._socket.fileno())
            self._strike()  # the pidfd tells when it has ended

    def _converse(self, timeout_s: float) -> bool:
        """Sends what it takes and reads what there is, once; waits for one of the two.

        :returns: whether more may come.
        """
        self._send()
        _poll(self._socket.fileno(), select.POLLOUT if self._unsent else 0, timeout_s)
        return self._read()

    def _read(self) -> bool:
        """What there is, but not for as long as it goes on talking.

        :returns: whether more may come.
        """
        try:
            data = self._socket.recv(_AT_A_TIME)
            for frame in self._reader.feed(data):
                self._heard(frame)
        except BlockingIOError:
            return True
        except (OSError, ValueError, TypeError, RecursionError):
            return False
        return bool(data)

    def _heard(self, frame: Frame) -> None:
        self._unheard = None
        if frame.kind == frames.PROGRESS:
            done, self.progress = _progress(frame.payload, self._names)
            if done > self._number:
                raise ValueError("done with lines that there were not")
            self._done = max(self._done, done)
            self._count_dropped()
            return
        wrong = [str(one) for one in json.loads(frame.payload or b"[]")]
        if self._answers:
            settings, answered = self._answers.popleft()
            if not wrong:
                self._settings = settings
            answered(wrong)

    def _count_dropped(self) -> None:
        for name, about in self.progress.items():
            now, before = about["dropped"], self._dropped_by_this.get(name, 0)
            # Less than before: it was removed, and this is another one of that name.
            more = now - before if now >= before else now
            self.dropped[name] = min(self.dropped[name] + more, _COUNT_MAX)
            self._dropped_by_this[name] = now


def _progress(payload: bytes, names: Set[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """``done``, and what is said of each sink; whoever speaks to networks may have been taken over.

    :param names: that sinks may have.
    :raises ValueError: it is not that.
    """
    try:
        told = json.loads(payload)
        if not told["sinks"].keys() <= names:
            raise ValueError("sinks that there are not")
        return int(told["done"]), {
            name: {
                **{key: _count(about[key]) for key in _COUNTS},
                "up": bool(about["up"]),
                "problem": str(about["problem"])[:_PROBLEM_MAX],
            }
            for name, about in told["sinks"].items()
        }
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("not what PROGRESS is") from error


def _count(value: Any) -> int:
    # One that is larger can be written in no document.
    if not 0 <= (count := int(value)) <= _COUNT_MAX:
        raise ValueError("not a count")
    return count


def _names(settings: Settings) -> frozenset[str]:
    return frozenset(sink.name for sink in settings.sinks)


def _poll(fd: int, more: int, timeout_s: float) -> bool:
    # poll(2): select(2) takes no descriptor above 1023.
    poll = select.poll()
    poll.register(fd, select.POLLIN | more)
    return bool(poll.poll(timeout_s * 1000))


def _nobody(wrong: Sequence[str]) -> None:
    pass


def _told(settings: Settings) -> Frame:
    return Frame(frames.SETTINGS, json.dumps(settings.to_json()).encode())


def _spawned(who: Account | None) -> tuple[socket.socket, int, int]:
    # Our end of its connection, its number and a descriptor of it.
    ours, theirs = socket.socketpair()
    with ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            pid = _process(theirs, who)
        undo.callback(_end_of, pid)
        pidfd = os.pidfd_open(pid)
        ours.setblocking(False)
        undo.pop_all()
    return ours, pid, pidfd


def _end_of(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _process(theirs: socket.socket, who: Account | None) -> int:
    argv = [sys.executable, "-P", "-m", _MODULE, str(_CHILD_SOCKET)]
    if who and os.geteuid() != who.uid:
        argv += ["--user", str(who)]
    return os.posix_spawn(
        sys.executable, argv, os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHILD_SOCKET),
        ],
        setsigmask=_NOT_ITS,
    )  # fmt: skip
