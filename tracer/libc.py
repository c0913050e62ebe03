# SPDX-License-Identifier: Apache-2.0
"""System calls that Python 3.11 has no binding for."""

import ctypes
import errno
import os
import platform
from pathlib import PurePath
from typing import Final

_SYS_BPF: Final = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280,
    "ppc64le": 361, "s390x": 351,
}.get(platform.machine(), 280)  # fmt: skip

_CLONE_NEWNS: Final = 0x00020000
_MS_SLAVE: Final = 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: bytes) -> int:
    """bpf(2).

    :raises OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _checked(_libc.syscall(_SYS_BPF, ctypes.c_long(cmd), buffer, ctypes.c_long(len(attr))))


def unshare_mounts(target: str) -> None:
    """Gives this process mounts of its own: what it mounts on target, nobody else sees.

    Whether a mount spreads to other namespaces depends on the mount it is put on,
    which is the first one on the way from target to the root. (In a chroot that
    need not be the root.)

    :raises OSError: not permitted.
    """
    _checked(_libc.unshare(_CLONE_NEWNS))
    for path in (target, *map(str, PurePath(target).parents)):
        slave = ctypes.c_ulong(_MS_SLAVE)
        if _libc.mount(b"none", os.fsencode(path), None, slave, None) == 0:
            return
        if ctypes.get_errno() != errno.EINVAL:  # "not a mount point"
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def mount(fstype: str, target: str) -> None:
    """Mounts a file system that needs no device.

    :raises OSError: not permitted, or there is no such file system or directory.
    """
    name = fstype.encode()
    _checked(_libc.mount(name, os.fsencode(target), name, ctypes.c_ulong(0), None))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
