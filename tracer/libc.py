"""System calls that Python 3.11 has no binding for."""

import ctypes
import os
import platform
from typing import Final

_SYS_BPF: Final = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280,
    "ppc64le": 361, "s390x": 351,
}.get(platform.machine(), 280)  # fmt: skip

_CLONE_NEWNS: Final = 0x00020000
_MS_REC_SLAVE: Final = 16384 | (1 << 19)

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: bytes) -> int:
    """bpf(2).

    :raises OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _checked(_libc.syscall(_SYS_BPF, ctypes.c_long(cmd), buffer, ctypes.c_long(len(attr))))


def unshare_mounts() -> None:
    """Gives this process a mount namespace of its own: what it mounts, nobody else sees.

    :raises OSError: not permitted.
    """
    _checked(_libc.unshare(_CLONE_NEWNS))
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_SLAVE), None))


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
