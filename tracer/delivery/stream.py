# SPDX-License-Identifier: Apache-2.0
"""Lines over stream sockets: JSON lines, or whatever each line is made."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from .connection import Connection
from .outlet import Line

JSON_LINE: Final[Callable[[Line], bytes]] = attrgetter("text")


class StreamOutlet:
    """Over TCP, TLS or a unix socket.

    :param options: of a sink: ``address``, what TLS takes, ``resend``.
    :param framed: what a line is on the wire.
    :raises OutputError, OSError: the address is none, or a file that TLS needs.
    """

    refused = 0

    def __init__(
        self, options: Mapping[str, Any], framed: Callable[[Line], bytes] = JSON_LINE
    ) -> None:
        self._connection = Connection(options)
        self._framed = framed
        self.open = self._connection.open
        self.settle = self._connection.settle
        self.close = self._connection.close

    @property
    def problem(self) -> str:
        return self._connection.problem

    def send(self, lines: Sequence[Line]) -> int:
        return self._connection.send(len(lines), b"".join(map(self._framed, lines)))
