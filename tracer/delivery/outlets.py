# SPDX-License-Identifier: Apache-2.0
"""Which class is which kind of destination.

Each is imported when it is first asked for: most sites have one or two kinds, and TLS or Kafka
are megabytes that others need not hold.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, cast

from .outlet import Outlet

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
