# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of bytes that were sent over a socket."""

import fcntl
import socket
import struct
import termios
from typing import Any, Final

_SND_WND: Final = 228  # offset of tcpi_snd_wnd in struct tcp_info, u32, since Linux 5.4
_INFO_SIZE: Final = 232


class Transit:
    """:param connection: a connected stream socket, also one with TLS over it."""

    def __init__(self, connection: Any) -> None:
        self._socket = connection
        self._is_tcp = connection.family != socket.AF_UNIX
        self._widest = 0
        self.unread()

    def on_the_way(self) -> int:
        """Bytes that the other kernel has not acknowledged; of a unix socket, that the other
        process has not read. SIOCOUTQ: tcp(7), unix(7).
        """
        (size,) = struct.unpack("=i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))
        return int(size)

    def unread(self) -> int:
        """Bytes that the other kernel has and the process has not read, about.

        TCP offers as much room as is free there. What it is short of the most that it ever
        offered is taken. The room may have grown while some of it was full: then it is more.
        """
        if not self._is_tcp:
            return 0
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        if len(info) < _INFO_SIZE:
            return 0
        (room,) = struct.unpack_from("=I", info, _SND_WND)
        self._widest = max(self._widest, room)
        return self._widest - int(room)
