# SPDX-License-Identifier: Apache-2.0
"""Tracepoints as tracefs describes them, mounted anywhere or not."""

import os
import re
from typing import Final

from ..events.errors import CannotStart
from . import libc

_MOUNTS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_FORMAT_MAX: Final = 1 << 16
_CLOSED: Final = "tracefs is closed to this user, whatever its capabilities: run it as root"
_FIELD: Final = re.compile(r"field:[^;]*?(\w+)(?:\[\d+\])?;\s*offset:(\d+);")


class Tracefs:
    """The file system, by a descriptor: where nobody has mounted it, it is ours alone.

    Use as a context manager.

    :raises CannotStart: it is not there, or closed to us.
    """

    def __init__(self) -> None:
        self._fd = _opened()

    def __enter__(self) -> "Tracefs":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def event_id(self, category: str, event: str) -> int:
        """What perf_event_open(2) takes as ``config``.

        :raises CannotStart: this kernel has no such tracepoint.
        """
        return int(self._read(category, event, "id"))

    def offsets(self, category: str, event: str) -> dict[str, int]:
        """Where the fields of its record stand, bytes.

        :raises CannotStart: this kernel has no such tracepoint.
        """
        text = self._read(category, event, "format").decode("ascii", "replace")
        return {name: int(offset) for name, offset in _FIELD.findall(text)}

    def _read(self, category: str, event: str, name: str) -> bytes:
        try:
            fd = os.open(f"events/{category}/{event}/{name}", os.O_RDONLY, dir_fd=self._fd)
        except PermissionError as error:
            raise CannotStart(_CLOSED) from error
        except OSError as error:
            raise CannotStart(
                f"this kernel shows no tracepoint {category}:{event}: it has no"
                " CONFIG_FTRACE_SYSCALLS, or was booted with lockdown=confidentiality"
            ) from error
        try:
            return os.read(fd, _FORMAT_MAX)
        finally:
            os.close(fd)


def _opened() -> int:
    closed = False
    for path in _MOUNTS:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            closed = True
            continue
        except OSError:
            continue
        if "events" in os.listdir(fd):
            return fd
        os.close(fd)
    try:
        return libc.detached_mount("tracefs")
    except OSError as error:
        if closed:
            raise CannotStart(_CLOSED) from error
        raise CannotStart(
            f"tracefs is not mounted and cannot be mounted here ({error.strerror}):"
            f" mount it with 'mount -t tracefs tracefs {_MOUNTS[0]}'"
        ) from error
