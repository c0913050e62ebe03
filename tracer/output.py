# SPDX-License-Identifier: Apache-2.0
"""The file that a run writes to, or standard output."""

import errno
import fcntl
import os
import select
from typing import Final

from ..events.errors import OutputError

_BUFFER: Final = 1 << 16


class Output:
    """A file, or standard output: whole lines only, each at once if a person watches.

    A file is created or opened at once, but emptied only by :meth:`begin`, so that
    a run that cannot start destroys nothing.

    :param path: empty for standard output.
    :param kept: that its reader goes away is an error, not the end of the interest.
    :raises OutputError: it cannot be opened.
    """

    def __init__(self, path: str, *, mode: int = 0o666, kept: bool = False) -> None:
        self._path = path
        self._kept = kept
        self._begun = False
        self._created = "" if not path or os.path.exists(path) else os.path.realpath(path)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, mode) if path else _stdout()
        except OSError as error:
            raise self._failed("open", error) from error
        self._buffer = bytearray()
        self.is_terminal = os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def begin(self) -> None:
        """Tracing has begun: what the file held before makes room."""
        self._begun = True
        if self._path:
            try:
                os.ftruncate(self._fd, 0)
            except OSError:
                pass  # a pipe or device, which has no length

    def end(self) -> None:
        """Closes it; a file that was made for a run which never began goes."""
        try:
            self.flush()
        except (OutputError, BrokenPipeError):
            pass  # it was reported when it happened first
        os.close(self._fd)
        if self._created and not self._begun:
            try:
                os.unlink(self._created)
            except FileNotFoundError:
                pass  # somebody was faster

    def write(self, line: bytes) -> None:
        """:raises OutputError, BrokenPipeError: see :meth:`flush`."""
        self._buffer += line
        if self.is_terminal or len(self._buffer) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Writes what is waiting, however long the other side takes.

        :raises BrokenPipeError: nobody reads it any more.
        :raises OutputError: it takes no more.
        """
        waiting, self._buffer = memoryview(self._buffer), bytearray()
        while waiting:
            try:
                waiting = waiting[os.write(self._fd, waiting) :]
            except BlockingIOError:  # whoever shares the pipe wants it not to block
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError as error:
                if isinstance(error, BrokenPipeError) and not self._kept:
                    raise
                raise self._failed("write to", error) from error

    def _failed(self, verb: str, error: OSError) -> OutputError:
        return OutputError(f"cannot {verb} {self._path or 'standard output'}: {error.strerror}")


def _stdout() -> int:
    # Where standard output was closed, something to read from stands in its place.
    if fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return os.dup(1)
