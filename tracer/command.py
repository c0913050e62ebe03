# SPDX-License-Identifier: Apache-2.0
"""A program that is started to be traced, held back until tracing has begun."""

import os
import shutil
import signal
from collections.abc import Collection
from typing import NoReturn

from ..events.errors import CannotStart

_NOT_EXECUTABLE = 126

# What we handle, and what Python ignores.
_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
_SHELL_SIGNAL_BASE = 128


def find_program(name: str) -> str:
    """The path that a shell would run.

    :raises CannotStart: there is no such program.
    """
    path = shutil.which(name)
    if path:
        return path
    if os.path.exists(name) and "/" in name:
        raise CannotStart(f"cannot run {name}: it is not an executable file")
    raise CannotStart(f"cannot find a program named {name!r} to run: give its path")


class TracedCommand:
    """``-- CMD ARGS``: a child that waits at a gate before it becomes CMD.

    If the tracer ends before it opens the gate, so does the child.

    :param ignored: signals that the tracer was started to ignore, and so is CMD.
    """

    def __init__(self, path: str, argv: list[str], ignored: Collection[int] = ()) -> None:
        self.ended = False
        gate, self._gate_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate_end)
            _wait_and_become(gate, path, argv, ignored)
        os.close(gate)
        self.pidfd = os.pidfd_open(self.pid)

    def open_gate(self) -> None:
        """Lets it run."""
        os.write(self._gate_end, b"\n")
        os.close(self._gate_end)

    def signalled(self, number: int) -> None:
        """Passes a signal on; Ctrl-C at a terminal reaches it without us."""
        if number == signal.SIGINT and _in_foreground():
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass  # it has just ended

    def has_ended(self, pidfd: int) -> None:
        """To be called when the pidfd becomes readable."""
        self.ended = True

    def status(self) -> int:
        """Its exit status, as a shell reports it; to be asked for when it has ended."""
        return _shell_status(os.waitpid(self.pid, 0)[1])


def _in_foreground() -> bool:
    # Whether a terminal sends its Ctrl-C to us, and so to CMD as well.
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SHELL_SIGNAL_BASE - code


def _wait_and_become(gate: int, path: str, argv: list[str], ignored: Collection[int]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in _OURS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        if os.read(gate, 1):
            os.execv(path, argv)
    except OSError as error:
        os.write(2, f"bpfsnoop: cannot run {path}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_EXECUTABLE)
