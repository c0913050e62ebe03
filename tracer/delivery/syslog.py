# SPDX-License-Identifier: Apache-2.0
"""Lines as syslog messages: RFC 5424, over whatever carries them.

==========  ======================  =====================================================
``unix``    a datagram each         where a stream listens, a line each (RFC 6587, 3.4.2)
``udp``     a datagram each         RFC 5426
``tcp``     octet counting          RFC 6587, 3.4.1
``tls``     octet counting          RFC 5425
==========  ======================  =====================================================

The message is the JSON document, without a byte order mark: parsers of JSON stumble over that.
There is no structured data, for the document has it all.
"""

import errno
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import address as addresses
from .datagram import DatagramOutlet
from .outlet import Line
from .stream import StreamOutlet

FACILITIES: Final = {
    name: number
    for number, name in enumerate(
        (
            "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news",
            "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
            "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        )
    )
}  # fmt: skip
"""RFC 5424, table 1, by the names that syslog daemons have for them."""

_HOSTNAME_MAX: Final = 255
_NOT_PRINTABLE: Final = re.compile("[^!-~]")
# Quotes within a value are escaped, so that no value can look like this.
_DATASET: Final = re.compile(rb'"dataset":"([a-z0-9._-]{1,32})"')
_SECOND_NS: Final = 1_000_000_000


class Form:
    """What a line is as a message."""

    def __init__(self, facility: int) -> None:
        self._facility = facility << 3
        host = _NOT_PRINTABLE.sub("", socket.gethostname())[:_HOSTNAME_MAX] or "-"
        self._from = b"%s bpfsnoop %d" % (host.encode(), os.getppid())  # the daemon
        self._second = -1
        self._time = b""

    def message(self, line: Line) -> bytes:
        """``<PRI>1 TIMESTAMP HOSTNAME bpfsnoop PROCID MSGID - JSON``."""
        second, rest = divmod(line.time_ns, _SECOND_NS)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        dataset = _DATASET.search(line.text)
        return b"<%d>1 %s.%06dZ %s %s - %s" % (
            self._facility | line.severity,
            self._time,
            rest // 1000,  # RFC 5424, 6.2.3: no more digits than these
            self._from,
            dataset[1] if dataset else b"-",
            line.text.rstrip(b"\n"),
        )

    def counted(self, line: Line) -> bytes:
        message = self.message(line)
        return b"%d %s" % (len(message), message)

    def ended(self, line: Line) -> bytes:
        return self.message(line) + b"\n"


class SyslogOutlet:
    """:param options: of a syslog sink, as :class:`.settings.SinkSettings` has them.

    :raises OutputError, OSError: the address is none, or a file that TLS needs.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        form = Form(FACILITIES[options["facility"]])
        where = addresses.parse(options["address"])
        self._carriers: list[DatagramOutlet | StreamOutlet] = []
        if where.scheme in ("unix", "udp"):
            self._carriers.append(DatagramOutlet(where, form.message))
        if where.scheme != "udp":
            framed = form.ended if where.scheme == "unix" else form.counted
            self._carriers.append(StreamOutlet(options, framed))
        self._carrier = self._carriers[0]

    def open(self) -> None:
        for carrier in self._carriers:
            self._carrier = carrier
            try:
                carrier.open()
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:  # unix(7): the other kind of socket
                    raise
                carrier.close()
            else:
                return
        raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))

    def send(self, lines: Sequence[Line]) -> int:
        return self._carrier.send(lines)

    def settle(self, timeout_s: float) -> int:
        return self._carrier.settle(timeout_s)

    def close(self) -> None:
        self._carrier.close()

    @property
    def refused(self) -> int:
        return self._carrier.refused

    @property
    def problem(self) -> str:
        return self._carrier.problem
