# SPDX-License-Identifier: Apache-2.0
"""Calls as the kernel would have recorded them, for tests that need no kernel."""

import struct

from bpfsnoop.events.call import Call

ATTR_ADDRESS = 0x7FFD_BADC_0DE8


def attr(layout: str, *values: int | bytes) -> bytes:
    """The bytes of a C struct.

    :param layout: of its members, as the ``struct`` module has them. They are
        aligned as C aligns them, so this is a second opinion on every offset.
    """
    return struct.pack(f"@{layout}", *values)


def call_of(
    cmd: int,
    entry: bytes = b"",
    exit_: bytes | None = None,
    *,
    size: int | None = None,
    retval: int = 0,
    attr_addr: int = ATTR_ADDRESS,
    common: tuple[int, int] = (0, 0),
    comm: bytes = b"loader",
) -> Call:
    """A call that passed ``entry``; ``exit_`` is what attr held when it returned.

    :param size: argument 3, if it is not the length of ``entry``.
    :param common: arguments 4 and 5.
    """
    return Call(
        cpu=1,
        start_ns=1_000_000_007,
        duration_ns=31_337,
        retval=retval,
        cgroup_id=4_242,
        attr_addr=attr_addr,
        common_addr=common[0],
        common_size=common[1],
        cmd=cmd,
        size=len(entry) if size is None else size,
        tgid=1_234,
        tid=1_235,
        uid=1_000,
        gid=100,
        comm=comm,
        entry=entry,
        exit=entry if exit_ is None else exit_,
    )
