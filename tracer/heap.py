# SPDX-License-Identifier: Apache-2.0
"""How the C library deals with memory, for processes that run for months."""

import ctypes
from contextlib import suppress
from typing import Final

_OPTIONS: Final = (
    (-8, 1),  # M_ARENA_MAX: threads have no heaps of their own, each as large as it ever was
    (-3, 128 << 10),  # M_MMAP_THRESHOLD, bytes: what is larger goes back when it is freed,
    (-1, 128 << 10),  # M_TRIM_THRESHOLD: and what is free at the end of the heap above that
)
"""Of mallopt(3): malloc.h of glibc. The last two have these values already, but grow by themselves
with what is freed, up to 32 and 64 MB, unless somebody sets them.
"""


def give_back() -> None:
    """Memory that is not used any more belongs to the host again, at the cost of some time.

    Where the C library has no such options, as musl, nothing happens.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _OPTIONS:
            mallopt(option, value)
