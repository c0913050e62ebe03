# SPDX-License-Identifier: Apache-2.0
"""Becomes another program, which ends with its parent: ``child.py [--read-only] COMMAND``.

With ``--read-only`` that can write to none of the host's files, though it may be root:
it gets a mount namespace of its own in which all of them are read-only.
"""

import ctypes
import os
import signal
import struct
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWNS: Final = 0x0002_0000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_SYS_MOUNT_SETATTR: Final = 442  # the same on all architectures; since Linux 5.12
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _main(argv: list[str]) -> None:
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if argv[0] == "--read-only":
        argv = argv[1:]
        _make_all_read_only()
    os.execvp(argv[0], argv)


def _make_all_read_only() -> None:
    _checked(_libc.unshare(_CLONE_NEWNS))
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    attr = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)  # struct mount_attr
    numbers = [ctypes.c_long(number) for number in (_AT_RECURSIVE, len(attr))]
    _checked(
        _libc.syscall(
            _SYS_MOUNT_SETATTR, ctypes.c_long(_AT_FDCWD), b"/", numbers[0], attr, numbers[1]
        )
    )


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    _main(sys.argv[1:])
