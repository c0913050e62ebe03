# SPDX-License-Identifier: Apache-2.0
"""What the delivery process is told of each sink."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

KINDS: Final = ("stdout", "file", "syslog", "socket", "kafka")


@dataclass(frozen=True)
class SinkSettings:
    """One sink, as config.yaml has it; all that is there has been checked."""

    name: str
    """Unique among the sinks; of letters, digits, ``_`` and ``-``, for it names a directory."""
    kind: str
    """One of :data:`KINDS`."""
    queue: int
    """Bytes of lines that wait in memory."""
    spool: int
    """Bytes of lines that wait on disk when those are full; 0: there they are dropped."""
    options: Mapping[str, Any]
    """By kind; sizes are bytes, durations ns, and what is not given is there with its default:

    * file: ``path``, ``rotate_size`` and ``rotate_every`` (0: never), ``keep`` (rotated files)
    * syslog: ``address``, ``facility`` (its name), and what TLS takes
    * socket: ``address``, and what TLS takes
    * kafka: ``brokers`` (``host:port``, a list), ``topic``, ``settings`` (librdkafka's, by name)

    ``address`` is ``tcp://host:port``, ``tls://host:port``, ``udp://host:port`` (syslog alone)
    or ``unix:///path``. What TLS takes: ``ca``, ``certificate``, ``key`` (paths, or empty) and
    ``server_name`` (empty: the host of the address). ``resend`` goes with tcp, tls and unix
    streams: bytes that were sent last, and are sent again after the connection broke.
    """


@dataclass(frozen=True)
class Settings:
    """All that the delivery process is told, at first and after each reload."""

    sinks: Sequence[SinkSettings]
    bits: Mapping[str, int]
    """Which bit of a line's ``sinks`` stands for which sink, by its name. A name keeps its bit."""
    spool: str
    """Directory in which each sink has its own, by its name."""
    metrics: str
    """``host:port`` or ``unix:///path`` to serve metrics and health at; empty: nowhere."""
    again: bool = False
    """They were taken before: a sink that cannot be made now is one that is away."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Settings":
        """What :meth:`to_json` made."""
        sinks = tuple(SinkSettings(**sink) for sink in value["sinks"])
        return cls(sinks, value["bits"], value["spool"], value["metrics"], value["again"])
