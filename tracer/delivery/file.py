# SPDX-License-Identifier: Apache-2.0
"""Lines in a file, which others read while we write, move away, or empty.

Whatever happens, what is in the file are whole lines. A write that a full disk cuts short is taken
back to the last line that is whole, and what a process that was killed in the middle of a write
left (the kernel looks at signals between two pages of one) goes when the file is opened next.
Lines that were written are with the kernel; fsync(2) is not called.
"""

import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...events.errors import OutputError
from .frames import PAYLOAD_MAX
from .outlet import Line
from .rotation import Rotation

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MODE: Final = 0o640
_BLOCK: Final = 1 << 16


class FileOutlet:
    """:param options: of a file sink, as :class:`.settings.SinkSettings` has them.

    :raises OutputError: it cannot be written to, or not be rotated.
    """

    refused = 0
    problem = ""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._path: str = options["path"]
        self._rotation = Rotation(
            self._path, options["rotate_size"], options["rotate_every"], options["keep"]
        )
        self._broken: OSError | None = None
        self._fd = -1
        try:
            self._fd = _opened(self._path)
            self._rotation.check()
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {self._path}: {error.strerror}") from error

    def open(self) -> None:
        # Not when it was made: the one before this may still have been at work.
        self._broken = None
        if self._fd < 0:
            self._fd = _opened(self._path)
        _mend(self._fd)

    def send(self, lines: Sequence[Line]) -> int:
        if self._broken is not None:
            raise self._broken
        done = 0
        try:
            while done < len(lines):
                done += self._some(lines[done:])
            if not lines:
                self._rotate_if_due(0)
        except OSError as error:
            if not done:
                raise
            self._broken = error  # told by the next call: what is there must not come again
        return done

    def _some(self, lines: Sequence[Line]) -> int:
        """How many of them are in the file: one at least."""
        self._rotate_if_due(len(lines[0].text))
        written = self._write(lines[: self._rotation.fitting(self._fd, lines)])
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def _write(self, lines: Sequence[Line]) -> int:
        """How many whole lines are in the file."""
        data = b"".join(line.text for line in lines)
        written = os.write(self._fd, data)
        if written == len(data):
            return len(lines)
        end = os.lseek(self._fd, 0, os.SEEK_CUR)  # where O_APPEND has put it
        whole = data.rfind(b"\n", 0, written) + 1
        os.ftruncate(self._fd, end - written + whole)
        return data.count(b"\n", 0, whole)

    def _rotate_if_due(self, more: int) -> None:
        if not self._rotation.due(self._fd, more):
            return
        self._rotation.rotate(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._fd = _opened(self._path)
        _mend(self._fd)

    def settle(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _opened(path: str) -> int:
    fd = os.open(path, _FLAGS, _MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file")
    return fd


def _mend(fd: int) -> None:
    """Has the file end with a whole line.

    What was cut off goes: it was not confirmed, so it comes again. Only if it looks like the
    beginning of a document, though. What else there is, somebody else wrote.
    """
    size = os.fstat(fd).st_size
    tail = _last_line(fd, size)
    if not tail:
        return
    if tail.startswith(b"{") and not _is_json(tail):
        os.ftruncate(fd, size - len(tail))
    else:
        os.write(fd, b"\n")


def _last_line(fd: int, size: int) -> bytes:
    """What is behind the last newline; no more of it than a line may be long."""
    tail = b""
    at = size
    while at > 0 and len(tail) <= PAYLOAD_MAX:
        start = max(at - _BLOCK, 0)
        block = os.pread(fd, at - start, start)
        newline = block.rfind(b"\n")
        tail = block[newline + 1 :] + tail
        if newline >= 0:
            break
        at = start
    return tail


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
