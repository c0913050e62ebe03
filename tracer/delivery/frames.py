# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its delivery process say to each other, over a pair of stream sockets.

Each frame has a header and a payload. Daemon to delivery:

* ``SETTINGS``: JSON of :class:`.settings.Settings`; the first frame, and again at each reload,
  which also has files reopened. The answer is ``ACCEPTED``, or ``REFUSED`` with a JSON list of
  sentences: then all stays as it was, or, of the first ones, it ends. Of settings that a process
  before this one took (``again``), what cannot be had is away, and refuses nothing.
* ``LINE``: a document as JSON with its newline, for the sinks whose bits are set.
* ``STATUS``: JSON of numbers for metrics and health.
* ``END``: nothing follows. What cannot be sent at once goes into the spools.

Delivery to daemon, besides the answers:

* ``PROGRESS``, once a second if anything changed and at the end: JSON ``{"done": number, "sinks":
  {name: progress}}``. All lines up to this number are delivered, in a spool, or counted as
  dropped. Of each sink: ``delivered`` and ``dropped`` (lines since the process began),
  ``queued`` and ``spooled`` (bytes that wait in memory and on disk), ``up`` and ``problem`` (what
  is wrong if it is not up, or empty).
"""

from struct import Struct
from typing import Final, NamedTuple

SETTINGS, LINE, STATUS, END, ACCEPTED, REFUSED, PROGRESS = range(1, 8)

PAYLOAD_MAX: Final = 1 << 24
"""Bytes; a document has some hundred KB at most."""

_HEADER: Final = Struct("=IBBxxQQQ")  # length of the payload, kind, severity, then as below


class Frame(NamedTuple):
    kind: int
    payload: bytes = b""
    number: int = 0
    """Of a line: one more than that of the line before it."""
    sinks: int = 0
    """Of a line: a bit for each sink that it is for."""
    severity: int = 0
    """Of a line: syslog's, 0 to 7."""
    time_ns: int = 0
    """Of a line: when it happened, ns since the epoch."""

    def __bytes__(self) -> bytes:
        header = _HEADER.pack(
            len(self.payload), self.kind, self.severity, self.number, self.sinks, self.time_ns
        )
        return header + self.payload


class FrameReader:
    """Frames out of a stream that brings them in any pieces.

    :param payload_max: bytes that one may have.
    """

    def __init__(self, payload_max: int = PAYLOAD_MAX) -> None:
        self._payload_max = payload_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Those that are whole now.

        :raises ValueError: it is no such stream.
        """
        buffer = self._buffer
        buffer += data
        frames = []
        at = 0
        while len(buffer) - at >= _HEADER.size:
            length, kind, severity, number, sinks, time_ns = _HEADER.unpack_from(buffer, at)
            if length > self._payload_max or not SETTINGS <= kind <= PROGRESS:
                raise ValueError("not a frame")
            end = at + _HEADER.size + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[at + _HEADER.size : end])
            frames.append(Frame(kind, payload, number, sinks, severity, time_ns))
            at = end
        del buffer[:at]
        return frames
