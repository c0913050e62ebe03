# SPDX-License-Identifier: Apache-2.0
"""When a file makes room for the next one, and how: path.1 is the newest of those before."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate

from .outlet import Line


class Rotation:
    """Of one path.

    :param size: bytes that a file may have, unless one line alone is longer; 0: any.
    :param every: ns. Such intervals count from the epoch, so that a restart changes nothing: with
        a day, each file is of one day (UTC). 0: no such limit.
    :param keep: files beside the one that is written.
    """

    def __init__(self, path: str, size: int, every: int, keep: int) -> None:
        self._path = path
        self._size = size
        self._every = every
        self._keep = keep

    def check(self) -> None:
        """:raises OSError: files there cannot be renamed."""
        directory = os.path.dirname(self._path) or "."
        if (self._size or self._every) and not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(0, f"files in {directory} cannot be renamed, to rotate it")

    def due(self, fd: int, more: int) -> bool:
        """Before so many bytes more are written."""
        about = os.fstat(fd)
        if not about.st_nlink:
            return True  # somebody has removed it, and nobody would ever read it
        if not about.st_size:
            return False
        if self._size and about.st_size + more > self._size:
            return True
        return (
            bool(self._every) and time.time_ns() // self._every > about.st_mtime_ns // self._every
        )

    def fitting(self, fd: int, lines: Sequence[Line]) -> int:
        """How many of these go into the file: one at least."""
        if not self._size:
            return len(lines)
        room = self._size - os.fstat(fd).st_size
        ends = accumulate(len(line.text) for line in lines)
        return max(sum(end <= room for end in ends), 1)

    def rotate(self, fd: int) -> None:
        """Moves the file away that this descriptor is of.

        :raises OSError: it cannot be moved.
        """
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not os.path.samestat(there, os.fstat(fd)):
            return  # somebody else has done so already
        if not self._keep:
            os.unlink(self._path)
            return
        surplus = self._keep + 1  # of a time when more were kept
        while os.path.lexists(f"{self._path}.{surplus}"):
            os.unlink(f"{self._path}.{surplus}")
            surplus += 1
        for number in range(self._keep, 1, -1):
            with suppress(FileNotFoundError):
                os.rename(f"{self._path}.{number - 1}", f"{self._path}.{number}")
        os.rename(self._path, f"{self._path}.1")
