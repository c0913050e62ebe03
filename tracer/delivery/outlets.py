# SPDX-License-Identifier: Apache-2.0
"""Which class is which kind of destination.

Each is imported when it is first asked for: most sites have one or two kinds, and TLS or Kafka
are megabytes that others need not hold.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, cast

from ...events.errors import BpfsnoopError
from .outlet import Line, Outlet

OUTLETS: Final = {
    "stdout": ("stdout", "StdoutOutlet"),
    "file": ("file", "FileOutlet"),
    "syslog": ("syslog", "SyslogOutlet"),
    "socket": ("stream", "StreamOutlet"),
    "kafka": ("kafka", "KafkaOutlet"),
}
"""Kind (settings.KINDS) -> module of this package, class."""


def make_outlet(kind: str, options: Mapping[str, Any]) -> Outlet:
    """A destination that is not open yet.

    :raises OutputError, OSError, ImportError: it can never be.
    """
    module, name = OUTLETS[kind]
    made = getattr(import_module(f".{module}", __package__), name)(options)
    return cast(Outlet, made)


class LateOutlet:
    """A destination that could be made once and cannot now: that is tried whenever it is opened."""

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._options = options
        self._made: Outlet | None = None

    @property
    def refused(self) -> int:
        return self._made.refused if self._made else 0

    @property
    def problem(self) -> str:
        return self._made.problem if self._made else ""

    def open(self) -> None:
        if self._made is None:
            try:
                self._made = make_outlet(self._kind, self._options)
            except (BpfsnoopError, ImportError) as error:
                raise OSError(str(error)) from error
        self._made.open()

    def send(self, lines: Sequence[Line]) -> int:
        return self._made.send(lines) if self._made else 0

    def settle(self, timeout_s: float) -> int:
        return self._made.settle(timeout_s) if self._made else 0

    def close(self) -> None:
        if self._made:
            self._made.close()
