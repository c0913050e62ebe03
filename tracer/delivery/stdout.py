# SPDX-License-Identifier: Apache-2.0
"""Lines to standard output."""

import os
import select
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .outlet import Line

_STDOUT: Final = 1


class StdoutOutlet:
    """Whole lines, at the pace of the reader, however long that takes: half a line could not be
    taken back. Once nobody reads, nobody ever will: lines are refused and counted.

    :param options: none.
    :raises OSError: it is closed.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.refused = 0
        self.problem = ""
        os.fstat(_STDOUT)

    def open(self) -> None:
        pass

    def send(self, lines: Sequence[Line]) -> int:
        data = b"".join(line.text for line in lines)
        written = 0
        try:
            while written < len(data):
                written += _write(memoryview(data)[written:])
        except OSError as error:
            self.refused += len(lines) - data.count(b"\n", 0, written)
            self.problem = f"standard output takes no more: {error.strerror}"
        return len(lines)

    def settle(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        pass


def _write(data: memoryview) -> int:
    while True:
        try:
            return os.write(_STDOUT, data)
        except BlockingIOError:  # whoever shares the pipe wants it not to block
            poll = select.poll()
            poll.register(_STDOUT, select.POLLOUT)
            poll.poll()
