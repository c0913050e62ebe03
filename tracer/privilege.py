"""Whether this process may trace at all, found out before anything is begun."""

import os
from typing import Final

from ..events.errors import CannotStart

_CAP_SYS_ADMIN: Final = 1 << 21
_CAP_PERFMON: Final = 1 << 38
_CAP_BPF: Final = 1 << 39
_INIT_PID_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h


def require() -> None:
    """:raises CannotStart: with what is missing and how to get it."""
    capabilities = _effective_capabilities()
    modern = _CAP_BPF | _CAP_PERFMON
    if not capabilities & _CAP_SYS_ADMIN and capabilities & modern != modern:
        if os.geteuid():
            raise CannotStart("tracing needs root: run it with sudo")
        raise CannotStart(
            "root is not enough here: CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN) are missing;"
            " in a container add them, for example with --cap-add"
        )
    if os.readlink("/proc/self/ns/pid") != _INIT_PID_NAMESPACE:
        raise CannotStart(
            "this is a pid namespace of its own, where process ids are not the kernel's:"
            " run it in the host's (docker: --pid=host, Kubernetes: hostPID: true)"
        )


def _effective_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
