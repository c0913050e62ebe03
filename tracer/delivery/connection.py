# SPDX-License-Identifier: Apache-2.0
"""Stream connections: TCP, TLS, unix sockets.

Nobody says at this level that a line has arrived, so :mod:`.window` guesses, on the safe side.
The kernel knows a little: it answers with a reset, not with an end, where a process goes away
from bytes that it has not read (Linux, tcp_close() and unix_release_sock()). What a process has
read and not dealt with when it is killed is known to nobody, so those bytes are given some time.
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import address as addresses
from .transit import Transit
from .window import Window

_CONNECT_S: Final = 10.0
_STALL_S: Final = 30.0  # nothing at all moves for so long: the other side is dead
_TCP: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),  # s
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALL_S * 1000)),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # lines are batched here
)
_SLOW_S: Final = 10.0
"""Who takes longer than that over one batch reads too slowly, though not so that nothing moves."""
_DEALT_WITH_S: Final = 10.0
_HEARD: Final = 1 << 14  # bytes of what a peer says that are read, and ignored, at a time


@dataclass
class _Batch:
    size: int
    since_s: float
    sent: int = 0


class Connection:
    """To one address, again and again; used as an outlet is.

    :param options: of a sink: ``address``, what TLS takes, ``resend``.
    :raises OutputError, OSError: the address is none, or a file that TLS needs.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._address = addresses.parse(options["address"])
        self._options = options
        self._socket: Any = None
        self._not_now: tuple[type[OSError], ...] = (BlockingIOError,)
        self._window = Window(options["resend"])
        self._broken: OSError | None = None
        self._sending: _Batch | None = None
        if self._address.scheme == "tls":
            from . import tls  # noqa: PLC0415 - 5 MB, for those who want TLS

            tls.context(options)  # what is wrong with it is known at once
            self._not_now = tls.NOT_NOW

    def open(self) -> None:
        self._window = Window(self._options["resend"])
        self._broken = None
        where = self._address
        if where.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(_CONNECT_S)
            self._socket.connect(where.path)
        else:
            self._socket = socket.create_connection((where.host, where.port), _CONNECT_S)
            for option in _TCP:
                self._socket.setsockopt(*option)
        if where.scheme == "tls":
            from . import tls  # noqa: PLC0415 - 5 MB, for those who want TLS

            name = self._options["server_name"] or where.host
            self._socket = tls.wrap(tls.context(self._options), self._socket, name)
        self._transit = Transit(self._socket)

    def send(self, lines: int, data: bytes) -> int:
        """:returns: how many lines are confirmed.
        :raises OSError: it is broken; some of the data may have arrived.
        """
        if self._broken is not None:
            raise self._broken
        arrived = self._listen()
        if self._broken is not None:
            if arrived:
                return arrived  # and the next call raises
            raise self._broken
        if lines:
            self._send(data)
            self._window.add(lines, len(data))
        transit = self._transit
        return self._window.arrived(transit.on_the_way(), transit.unread())

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(_STALL_S)
        self._sending = batch = _Batch(len(data), time.monotonic())
        try:
            whole = memoryview(data)
            while batch.sent < batch.size:
                batch.sent += self._socket.send(whole[batch.sent :])
        finally:
            self._sending = None

    @property
    def problem(self) -> str:
        """That the other side reads too slowly, or nothing; for any thread."""
        batch = self._sending
        seconds = time.monotonic() - batch.since_s if batch else 0
        if not batch or seconds < _SLOW_S:
            return ""
        return f"the other side reads slowly: {batch.sent} of {batch.size} bytes in {seconds:.0f} s"

    def _listen(self) -> int:
        """Notices that the peer is gone, before more is sent. Returns lines confirmed by that."""
        self._socket.settimeout(0)
        try:
            if self._socket.recv(_HEARD):
                return 0
        except self._not_now:
            return 0
        self._broken = ConnectionResetError(0, "the other side closed the connection")
        # It has read all, or there were a reset; unless it was on the way when it closed.
        return 0 if self._transit.on_the_way() else self._window.older_than(_DEALT_WITH_S)

    def settle(self, timeout_s: float) -> int:
        """Says that nothing follows, and waits for the other side to say the same: it has got
        all. There is no sending after that.
        """
        if self._broken is not None:
            return 0
        deadline = time.monotonic() + timeout_s
        try:
            self._end(deadline)
            while self._socket.recv(_HEARD):
                self._allow_until(deadline)
                if time.monotonic() > deadline:
                    return 0  # it goes on talking
        except TimeoutError:
            return 0
        self._broken = ConnectionResetError(0, "closed")
        return self._window.all()

    def _end(self, deadline: float) -> None:
        self._allow_until(deadline)
        if self._address.scheme == "tls":
            self._socket = self._socket.unwrap()  # once the other side has signed its end
            self._allow_until(deadline)
        self._socket.shutdown(socket.SHUT_WR)

    def _allow_until(self, deadline: float) -> None:
        # Zero would mean not to wait at all, which fails in other ways.
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
