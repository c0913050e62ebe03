# SPDX-License-Identifier: Apache-2.0
"""Whether this process may trace at all, found out before anything is begun."""

import errno
import os
import struct
from typing import Final

from ..events.errors import CannotStart
from . import libc
from .rights import effective_capabilities

_CAP_SYS_ADMIN: Final = 1 << 21
_CAP_PERFMON: Final = 1 << 38
_CAP_BPF: Final = 1 << 39
_MAP_CREATE: Final = 0
_SMALLEST_MAP: Final = struct.pack("=IIII", 2, 4, 4, 1)  # an array of one number
INIT_PID_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h

NOT_PERMITTED: Final = (
    "the kernel does not permit BPF here: run as root on the host, not in a container"
    " without CAP_BPF and CAP_PERFMON or with a seccomp profile that forbids bpf(2), and"
    " look at /sys/kernel/security/lockdown"
)


def require() -> None:
    """:raises CannotStart: with what is missing and how to get it."""
    try:
        capabilities = effective_capabilities()
        pid_namespace = os.readlink("/proc/self/ns/pid")
    except OSError as error:
        raise CannotStart(
            f"/proc is not mounted here ({error.strerror}): mount it with"
            " 'mount -t proc proc /proc'"
        ) from error
    modern = _CAP_BPF | _CAP_PERFMON
    if not capabilities & _CAP_SYS_ADMIN and capabilities & modern != modern:
        if os.geteuid():
            raise CannotStart("tracing needs root: run it with sudo")
        raise CannotStart(
            "root is not enough here: CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN) are missing;"
            " in a container add them, for example with --cap-add"
        )
    if pid_namespace != INIT_PID_NAMESPACE:
        raise CannotStart(
            "this is a pid namespace of its own, where process ids are not the kernel's:"
            " run it in the host's (docker: --pid=host, Kubernetes: hostPID: true)"
        )
    require_bpf()


def require_bpf() -> None:
    """:raises CannotStart: bpf(2) refuses what takes no more than leave to use it."""
    # BCC would only say that it could not compile.
    try:
        os.close(libc.bpf(_MAP_CREATE, _SMALLEST_MAP))
    except PermissionError as error:
        raise CannotStart(NOT_PERMITTED) from error
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise CannotStart(f"bpf(2) does not work here: {error.strerror}") from error
        raise CannotStart(
            "this kernel has no bpf(2), or something hides it: it needs CONFIG_BPF_SYSCALL,"
            " and no seccomp filter in its way"
        ) from error


def may_open_by_id() -> bool:
    """Whether objects of others may be opened (``BPF_MAP_GET_FD_BY_ID`` and the like)."""
    return bool(effective_capabilities() & _CAP_SYS_ADMIN)
