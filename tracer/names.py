# SPDX-License-Identifier: Apache-2.0
"""Names that strace looks up while it prints: :class:`decoders.strace_view.Names`."""

import os
import socket
import time
from typing import Final

from ..events.value import DirFd

_SECOND: Final = 1_000_000_000
_LOOPBACK: Final = 1  # LOOPBACK_IFINDEX


class ReplayNames:
    """Of a recording: what is the same on every host."""

    def descriptor(self, tid: int, fd: int) -> bytes:
        return b""

    def interface(self, index: int) -> bytes:
        return b"lo" if index == _LOOPBACK else b""

    def time_of_day(self, time_ns: int) -> str:
        try:
            return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time_ns // _SECOND))
        except (OverflowError, ValueError, OSError):  # a caller may claim any number
            return ""


class HostNames(ReplayNames):
    """Of this host, as it is by the time that a call is shown."""

    def descriptor(self, tid: int, fd: int) -> bytes:
        link = "cwd" if fd == DirFd.AT_FDCWD else f"fd/{fd}"
        try:
            return os.readlink(f"/proc/{tid}/{link}".encode())
        except OSError:
            return b""

    def interface(self, index: int) -> bytes:
        try:
            return os.fsencode(socket.if_indextoname(index))
        except (OSError, OverflowError):
            return b""
