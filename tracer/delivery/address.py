# SPDX-License-Identifier: Apache-2.0
"""Where a sink connects to, as config.yaml spells it."""

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ...events.errors import OutputError

SCHEMES: Final = ("tcp", "tls", "udp", "unix")


class Address(NamedTuple):
    scheme: str
    """One of :data:`SCHEMES`."""
    host: str = ""
    """A name, or a number without brackets."""
    port: int = 0
    path: str = ""
    """Of a unix socket."""


def parse(text: str) -> Address:
    """``tcp://host:port``, ``tls://[::1]:6514``, ``udp://host:514``, ``unix:///dev/log``.

    :raises OutputError: it is none of these.
    """
    try:
        parts = urlsplit(text)
        if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
            return Address("unix", path=text.removeprefix("unix://"))
        if parts.scheme in SCHEMES[:3] and parts.hostname and parts.port:
            parts.hostname.encode("idna")  # which is what connecting does with it
            return Address(parts.scheme, parts.hostname, parts.port)
    except ValueError:
        pass  # no number, no name
    raise OutputError(f"{text}: not an address such as tcp://host:port or unix:///path")
