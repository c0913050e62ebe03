# SPDX-License-Identifier: Apache-2.0
"""What a service tells systemd: sd_notify(3), a datagram to the socket that it named."""

import os
import socket
import time
from typing import Final

_SECOND_US: Final = 1_000_000


class Notify:
    """Says nothing where nobody asked: ``NOTIFY_SOCKET`` is not set then.

    The variables are taken out of the environment, so that no child speaks for us.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        wanted = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / _SECOND_US if wanted and path else None
        """Within which it wants a sign of life; None: it wants none."""
        self._socket: socket.socket | None = None
        if path.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._path = "\0" + path[1:] if path[0] == "@" else path

    def ready(self, status: str) -> None:
        """The start is over, or a reload is."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        # The time is what tells this reload from others, for Type=notify-reload.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """What the watchdog waits for."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _tell(self, message: str) -> None:
        if self._socket:
            try:
                self._socket.sendto(message.encode(), self._path)
            except OSError:
                pass  # systemd is away or busy: the watchdog decides whether that matters
