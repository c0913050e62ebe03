# SPDX-License-Identifier: Apache-2.0
"""Lines as datagrams, over UDP or a unix socket: sent is as good as it gets."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from .address import Address
from .outlet import Line

_SEND_S: Final = 5.0  # a unix socket waits for its reader
_BUFFER: Final = 1 << 20  # bytes; the kernel makes it less (net.core.wmem_max)


class DatagramOutlet:
    """One datagram a line. One that is longer than a datagram takes is refused and counted: half
    a JSON document is worth nothing to whoever parses it, and looks as if it were all.

    :param framed: what a line is on the wire.
    """

    def __init__(self, address: Address, framed: Callable[[Line], bytes]) -> None:
        self.refused = 0
        self.problem = ""
        self._address = address
        self._framed = framed
        self._socket: socket.socket | None = None

    def open(self) -> None:
        where = self._address
        family, target = socket.AF_UNIX, cast(Any, where.path)
        if where.scheme == "udp":
            found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM)
            family, target = found[0][0], found[0][4]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket.settimeout(_SEND_S)
        self._socket.connect(target)  # so that we are told where nobody listens

    def send(self, lines: Sequence[Line]) -> int:
        assert self._socket is not None
        refused = 0  # counted when all are sent: else they come again
        for line in lines:
            message = self._framed(line)
            try:
                self._socket.send(message)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                refused += 1
                self.problem = f"a line of {len(message)} bytes is longer than a datagram may be"
        # The one before may have come back.
        if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
        self.refused += refused
        return len(lines)

    def settle(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
