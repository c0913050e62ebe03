# SPDX-License-Identifier: Apache-2.0
"""Lines on disk, first in, first out, for a sink that does not take them now.

A directory with files of about 1 MB, numbered in the order in which they are read, each removed
when its last line is confirmed; and ``position``, which says how far that has come. After kill -9
at most the lines since the last :meth:`Spool.confirm` come a second time: what was appended is
with the kernel. After a power cut up to a second is missing, for only :meth:`Spool.unsynced` knows
of the disk, and who calls it once a second need not hold up those who append.

A file is never appended to by two processes, one after the other: what the first left unfinished
is at the end of its own, where reading passes over it.
"""

import errno
import fcntl
import os
import re
import stat
import time
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, takewhile
from struct import Struct
from typing import Final

from .frames import PAYLOAD_MAX
from .outlet import Line
from .segment import OVERHEAD, parse, record

SEGMENT: Final = 1 << 20
"""Bytes of a file, about: what is read at once, and what becomes free at once."""
_PARTS: Final = 8  # of a small spool: or else it would be full with one that is nearly read
_NAME: Final = re.compile(r"0[0-9]{15}")  # so that there is always a next one
_POSITION: Final = Struct("=QQ")  # number of a file, offset in it; a checksum follows
_CHECKSUM: Final = Struct("=I")
_FILE_MAX: Final = SEGMENT + OVERHEAD + PAYLOAD_MAX  # a file of ours is no longer
_SEALED_MAX: Final = 16
_DAMAGE_MAX: Final = 1000  # stretches of a file; who makes more wants us to compute checksums
_PAUSE_S: Final = 1.0  # before a full disk is tried again
LOCK_S: Final = 8.0
"""So long one that ends may still have the directory."""
_LOCK_EACH_S: Final = 0.05
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_GONE: Final = (errno.ENOENT, errno.ELOOP)  # or a link, which is not ours
_BAD: Final = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)
_UNREADABLE_S: Final = 300.0  # so long a file of which the disk says that is tried again

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_POSITION_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _lock(directory: int) -> None:
    # Whoever had it before has some seconds to finish, when a daemon is started again at once.
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_EACH_S)


class Spool:
    """Of one sink; for one thread at a time.

    :param limit: bytes on disk. Without any, only what is there already is read.
    :raises OSError: it cannot be made or read, or another process has it.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.limit = limit
        self.damaged = 0
        """Stretches that hold no whole line, as a crash or a bad disk leaves them."""
        self.problem = ""
        """Why nothing could be written when that was tried last."""
        self._path = path
        self._directory = self._position = -1
        self._sizes: dict[int, int] = {}  # of each file, in the order of their numbers
        self._used = 0  # the sum of them
        self._next_number = 0
        self._tail = -1  # descriptor of the file that is appended to: the last one
        self._sealed: list[int] = []  # descriptors of full files that may not be on disk yet
        self._dirty = False
        self._wait_until = 0.0
        self._read = self._confirmed = (0, 0)  # number of a file, offset
        self._data = b""  # of the file that is read, from here on:
        self._data_at = (0, 0)
        self._stretches = 0  # damaged ones of that file
        self._unreadable = (0, 0.0)  # number of a file, since when
        self._taken: deque[tuple[int, int]] = deque()  # where each ends
        if limit or os.path.isdir(path):
            self._open_if_room()

    @property
    def bytes_used(self) -> int:
        """On disk."""
        return self._used

    @property
    def bytes_waiting(self) -> int:
        """Of these, not confirmed."""
        number, offset = self._confirmed
        return self._used - min(offset, self._sizes.get(number, 0))

    @property
    def taken(self) -> int:
        """Lines that were taken and not confirmed."""
        return len(self._taken)

    @property
    def empty(self) -> bool:
        """There is nothing to confirm and nothing to take."""
        return not self._sizes

    def prepare(self, limit: int) -> None:
        """Makes it, for this limit to be set.

        :raises OSError: it cannot be made.
        """
        if limit:
            self._open_if_room()

    # --- writing -------------------------------------------------------------------------

    def has_room(self, line: Line) -> bool:
        """Cheaply, also where many ask while there is none."""
        fits = self._used + OVERHEAD + len(line.text) <= self.limit
        return fits and time.monotonic() >= self._wait_until

    def hurry(self) -> None:
        """A disk that was full a moment ago is tried at once: there will not be another time."""
        self._wait_until = 0.0

    def append(self, lines: Sequence[Line], *, taken: bool = False) -> int:
        """How many of them are there now, the first ones: the others found no room.

        :param taken: the caller has got them already; all that was there before, too.
        """
        written = 0
        while written < len(lines):
            records = self._fitting(lines[written:])
            if not records:
                break
            done = self._write(records, taken=taken)
            written += done
            if done < len(records):
                self._wait_until = time.monotonic() + _PAUSE_S
                break
            self.problem = ""
        return written

    def _fitting(self, lines: Sequence[Line]) -> list[bytes]:
        # What goes into one file; it is never so full that not even one does.
        room = self.limit - self._used
        rest = min(SEGMENT, self.limit // _PARTS) - (self._tail_size() or 0)
        records: list[bytes] = []
        for line in lines:
            size = OVERHEAD + len(line.text)
            if size > room or (records and size > rest):
                break
            records.append(record(line))
            room -= size
            rest -= size
        return records

    def _tail_size(self) -> int | None:
        return self._sizes[self._next_number - 1] if self._tail >= 0 else None

    def _write(self, records: Sequence[bytes], *, taken: bool) -> int:
        try:
            if self._directory < 0:
                self._open()
            size = self._tail_size()
            if size is None:
                size = self._begin_tail()
            # Not O_APPEND: it goes over what a failed attempt may have left.
            written = os.pwrite(self._tail, b"".join(records), size)
        except OSError as error:
            self.problem = str(error.strerror)
            return 0
        ends = list(takewhile(lambda end: end <= written, accumulate(map(len, records))))
        whole = ends[-1] if ends else 0
        if len(ends) < len(records):
            self.problem = os.strerror(errno.ENOSPC)
            with suppress(OSError):  # then the next record goes over it
                os.ftruncate(self._tail, size + whole)
        self._sizes[self._next_number - 1] = size + whole
        self._used += whole
        self._dirty = True
        if taken and ends:
            self._taken += [(self._next_number - 1, size + end) for end in ends]
            self._read = self._taken[-1]
        if size + whole >= min(SEGMENT, self.limit // _PARTS):
            self._seal()
        return len(ends)

    def _begin_tail(self) -> int:
        self._tail = os.open(_name(self._next_number), _NEW, 0o600, dir_fd=self._directory)
        self._sizes[self._next_number] = 0
        self._next_number += 1
        return 0

    def _seal(self) -> None:
        self._sealed.append(self._tail)
        self._tail = -1
        if len(self._sealed) > _SEALED_MAX:  # nobody syncs; the kernel does in half a minute
            os.close(self._sealed.pop(0))

    def unsynced(self) -> list[int]:
        """Descriptors, now the caller's, of all that may not be on disk, the directory last."""
        if not self._dirty:
            return []
        self._dirty = False
        sealed, self._sealed = self._sealed, []
        tail = [os.dup(self._tail)] if self._tail >= 0 else []
        return [*sealed, *tail, os.dup(self._directory)]

    # --- reading -------------------------------------------------------------------------

    def take(self, max_bytes: int) -> list[Line]:
        """The next lines: one at least if there are any, and no more than so many bytes.

        :raises OSError: they cannot be read now.
        """
        lines: list[Line] = []
        try:
            while max_bytes > 0 and (line := self._next()):
                lines.append(line)
                max_bytes -= len(line.text)
        except OSError:
            if not lines:
                raise
        return lines

    def _next(self) -> Line | None:
        while True:
            number, offset = self._read
            size = self._sizes.get(number, 0)
            if offset >= size:
                after = [other for other in self._sizes if other > number]
                if not after:
                    return None
                self._go((after[0], 0))
                continue
            line, end = self._parse(number, offset, size)
            if line is None:
                self._note_damage(number, size, end)
                continue
            self._read = number, end
            self._taken.append(self._read)
            return line

    def _parse(self, number: int, offset: int, size: int) -> tuple[Line | None, int]:
        at = offset - self._data_at[1]
        if self._data_at[0] != number or at >= len(self._data):
            self._data, self._data_at = self._load(number, offset, size), (number, offset)
            at = 0
        if not self._data:  # shorter than it was, or gone
            return None, size
        line, end = parse(self._data, at)
        return line, self._data_at[1] + end

    def _load(self, number: int, offset: int, size: int) -> bytes:
        # Empty if that will never be read: what is read is removed, but not what could not be for
        # want of a descriptor or of memory, or while a disk is away.
        try:
            fd = os.open(_name(number), _OLD, dir_fd=self._directory)
            try:
                data = os.pread(fd, size - offset, offset)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in _GONE and not self._is_spoilt(number, error):
                raise OSError(error.errno, f"cannot read the spool: {error.strerror}") from error
            data = b""
        self._unreadable = (0, 0.0)
        return data

    def _is_spoilt(self, number: int, error: OSError) -> bool:
        # A bad sector gets no better, and the lines behind it are worth more.
        now = time.monotonic()
        if error.errno not in _BAD or self._unreadable[0] != number:
            self._unreadable = number, now
        return now - self._unreadable[1] > _UNREADABLE_S

    def _note_damage(self, number: int, size: int, end: int) -> None:
        self._stretches += 1
        self.damaged += 1
        self._go((number, end if self._stretches < _DAMAGE_MAX else size))

    def _go(self, place: tuple[int, int]) -> None:
        if place[0] != self._read[0]:
            self._stretches = 0
        self._read = place
        if not self._taken:
            self._confirm_up_to(place)

    def confirm(self, count: int) -> None:
        """The oldest lines of those that were taken need not come again."""
        for _ in range(count):
            place = self._taken.popleft()
        if count:
            self._confirm_up_to(place if self._taken else self._read)

    def again(self) -> None:
        """What was taken and not confirmed comes again."""
        self._taken.clear()
        self._read = self._confirmed
        self._data, self._data_at = b"", (0, 0)

    def _confirm_up_to(self, place: tuple[int, int]) -> None:
        self._confirmed = place
        for number in list(self._sizes):
            last = number == self._next_number - 1 and self._tail >= 0
            if number > place[0] or (number == place[0] and place[1] < self._sizes[number]):
                break
            self._remove(number, last=last)
        # In place: it takes no room on a full disk, and so few bytes change all at once.
        entry = _POSITION.pack(*place)
        with suppress(OSError):  # then more lines come twice
            os.pwrite(self._position, entry + _CHECKSUM.pack(zlib.crc32(entry)), 0)

    def _remove(self, number: int, *, last: bool) -> None:
        if last:
            os.close(self._tail)
            self._tail = -1
        with suppress(OSError):  # then it is passed over by its position
            os.unlink(_name(number), dir_fd=self._directory)
        self._used -= self._sizes.pop(number)
        if self._data_at[0] == number:
            self._data, self._data_at = b"", (0, 0)

    # --- from one process to the next ----------------------------------------------------

    def _open_if_room(self) -> None:
        if self._directory >= 0:
            return
        try:
            self._open()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.problem = str(error.strerror)  # tried again when there is something to write

    def _open(self) -> None:
        os.makedirs(self._path, 0o700, exist_ok=True)
        self._directory = os.open(self._path, _DIRECTORY)
        try:
            _lock(self._directory)
            if not os.access(self._path, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            self._position = os.open("position", _POSITION_FILE, 0o600, dir_fd=self._directory)
            self._find_segments()
        except BlockingIOError as error:
            self._release()
            raise OSError(errno.EBUSY, "another process uses it") from error
        except OSError:
            self._release()
            raise

    def _find_segments(self) -> None:
        names = sorted(name for name in os.listdir(self._directory) if _NAME.fullmatch(name))
        for name in names:
            about = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            if stat.S_ISREG(about.st_mode):
                self._sizes[int(name)] = min(about.st_size, _FILE_MAX)
        self._used = sum(self._sizes.values())
        place = self._stored_position()
        # Also above a file that the position knows and the disk has lost.
        self._next_number = max([*map(int, names), place[0], 0]) + 1
        first = min(self._sizes, default=0)
        self._read = place if place[0] >= first else (first, 0)
        self._confirm_up_to(self._read)

    def _stored_position(self) -> tuple[int, int]:
        entry = os.pread(self._position, _POSITION.size + _CHECKSUM.size, 0)
        if len(entry) == _POSITION.size + _CHECKSUM.size:
            number, offset = _POSITION.unpack_from(entry)
            (checksum,) = _CHECKSUM.unpack_from(entry, _POSITION.size)
            if checksum == zlib.crc32(entry[: _POSITION.size]) and number < 10**15:
                return number, offset
        return 0, 0

    def _release(self) -> None:
        if self._directory >= 0:
            # Not only by closing: who has the disk keep it may still have a copy.
            fcntl.flock(self._directory, fcntl.LOCK_UN)
        for fd in (self._tail, self._position, self._directory, *self._sealed):
            if fd >= 0:
                os.close(fd)
        self._tail = self._position = self._directory = -1
        self._sealed = []

    def close(self) -> None:
        """What is not confirmed comes again from the next one for this directory."""
        for fd in self.unsynced():
            with suppress(OSError):
                os.fdatasync(fd)
            os.close(fd)
        self._release()


def _name(number: int) -> str:
    return f"{number:016d}"


def bytes_left(path: str) -> int:
    """In the files of a spool that nobody may have open; of what is none, 0."""
    size = 0
    with suppress(OSError):
        directory = os.open(path, _DIRECTORY)
        try:
            for name in filter(_NAME.fullmatch, os.listdir(directory)):
                size += os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
        finally:
            os.close(directory)
    return size
