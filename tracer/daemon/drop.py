# SPDX-License-Identifier: Apache-2.0
"""Giving up rights for good, once they were used.

What is left is what reading of others takes: /proc of their processes, cgroups by their id.
"""

import os
import platform
import pwd
import re
from typing import Final

from ...events.errors import CannotStart
from ..rights import Account, give_up

CAP_DAC_READ_SEARCH: Final = 1 << 2
"""Directories in /proc of processes that hide; open_by_handle_at(2) of cgroups."""
CAP_SYS_PTRACE: Final = 1 << 19
"""/proc/PID/cwd and what else ptrace_may_access() guards."""
CAP_SYS_ADMIN: Final = 1 << 21
"""BPF_MAP_GET_FD_BY_ID and BPF_BTF_GET_FD_BY_ID."""
CAP_BPF: Final = 1 << 39
"""Reading our own counters, where the kernel permits nothing of bpf(2) without."""

_BPF_BY_DESCRIPTOR: Final = 5, 19
"""Since this Linux ``kernel.unprivileged_bpf_disabled`` forbids to make maps and programs, and no
longer to use those that one has a descriptor of (``__sys_bpf()`` in kernel/bpf/syscall.c)."""


def account(name: str) -> Account:
    """:raises CannotStart: there is no such user."""
    try:
        is_number = name.isascii() and name.isdigit()
        entry = pwd.getpwuid(int(name)) if is_number else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise CannotStart(
            f"there is no user {name} to go on as: make one"
            f" (useradd --system --no-create-home --shell /usr/sbin/nologin {name}),"
            " or name another with 'user' in config.yaml"
        ) from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_uid, entry.pw_gid, tuple(groups))


def needed(*, map_types: bool) -> int:
    """The capabilities that a running tracer cannot do without, as a bit mask.

    :param map_types: it opens maps of others, to ask for their types.
    """
    found = CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH
    if map_types:
        found |= CAP_SYS_ADMIN
    if _release() < _BPF_BY_DESCRIPTOR:
        found |= CAP_BPF
    return found


def drop(who: Account | None, keep: int) -> None:
    """See :func:`tracer.rights.give_up`.

    :raises CannotStart: the kernel refuses.
    """
    try:
        left = give_up(who, keep)
    except OSError as error:
        raise CannotStart(f"cannot give up rights: {error.strerror}") from error
    if left & ~keep:
        raise CannotStart(f"cannot give up capabilities: {left & ~keep:#x} are left")


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
