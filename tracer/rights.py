# SPDX-License-Identifier: Apache-2.0
"""Giving up rights for good: user, groups, capabilities, and every way to get them back."""

import ctypes
import os
import resource
import struct
from dataclasses import dataclass
from typing import Final

_VERSION_3: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = 64  # bits there are for them

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """A user and all of its groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """The first one too."""

    def __str__(self) -> str:
        """``UID:GID:GROUP,GROUP``"""
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"

    @classmethod
    def parse(cls, text: str) -> "Account":
        """What ``str()`` gave.

        :raises ValueError: it is not that.
        """
        uid, gid, groups = text.split(":")
        return cls(int(uid), int(gid), tuple(map(int, groups.split(","))))


def give_up(who: Account | None, keep: int) -> int:
    """Becomes that user, with these capabilities at most, and can never have more again.

    Of this thread, so before there are others. Nothing of us is dumped from here on.

    :param who: None: the user stays.
    :param keep: bit mask; those that are not there are no mistake.
    :returns: the capabilities that are left.
    :raises OSError: the kernel refuses; then it is undefined how far it has come.
    """
    left = effective_capabilities() & keep
    _lower_bound(left)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if who:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    _set_capabilities(left)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return effective_capabilities()


def effective_capabilities(status: str = "/proc/self/status") -> int:
    """:raises OSError: /proc is not mounted."""
    with open(status, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _lower_bound(keep: int) -> None:
    # Of what an execve(2) could bring back. Without CAP_SETPCAP it cannot be lowered, and then
    # no_new_privs has to do.
    for number in range(_CAPABILITIES):
        if not keep & 1 << number:
            try:
                _prctl(_PR_CAPBSET_DROP, number)
            except OSError:  # EPERM, or EINVAL: there are no more of them
                return


def _set_capabilities(mask: int) -> None:
    # struct __user_cap_data_struct twice: effective, permitted, inheritable, of 32 each
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    header, data = struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)
    _checked(_libc.capset(header, data))


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)  # the kernel looks at all arguments
    _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
