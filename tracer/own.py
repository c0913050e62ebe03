# SPDX-License-Identifier: Apache-2.0
"""The tracer's own BPF maps and programs, through bpf(2)."""

import ctypes
import errno
import struct
from collections.abc import Iterator
from typing import Final

from .libc import bpf

_MAP_LOOKUP_ELEM: Final = 1
_MAP_UPDATE_ELEM: Final = 2
_MAP_DELETE_ELEM: Final = 3
_MAP_GET_NEXT_KEY: Final = 4
_OBJ_GET_INFO_BY_FD: Final = 15

# map_fd, key, value or next_key, flags
_ELEM: Final = struct.Struct("=I4xQQQ")
# bpf_fd, info_len, info
_INFO: Final = struct.Struct("=IIQ")

_PROG_INFO_SIZE: Final = 256
RECURSION_MISSES: Final = struct.Struct("=208xQ")  # in struct bpf_prog_info, since Linux 5.12


class BpfMap:
    """A map by its descriptor, which stays the caller's.

    :param value_size: bytes that a lookup returns; of a per-CPU map, those of all
        possible CPUs, each rounded up to a multiple of 8.
    """

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._elem(_MAP_UPDATE_ELEM, key, ctypes.create_string_buffer(value, len(value)))

    def __getitem__(self, key: bytes) -> bytes:
        value = ctypes.create_string_buffer(self._value_size)
        self._elem(_MAP_LOOKUP_ELEM, key, value)
        return value.raw

    def discard(self, key: bytes) -> None:
        """Removes the key if it is there."""
        try:
            self._elem(_MAP_DELETE_ELEM, key, None)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def __iter__(self) -> Iterator[bytes]:
        """The keys; one that others remove meanwhile may start the walk anew."""
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self._key_size)
            try:
                self._elem(_MAP_GET_NEXT_KEY, key, following)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return
            key = following.raw
            yield key

    def _elem(
        self, cmd: int, key: bytes | None, other: "ctypes.Array[ctypes.c_char] | None"
    ) -> None:
        key_buffer = None if key is None else ctypes.create_string_buffer(key, len(key))
        bpf(cmd, _ELEM.pack(self._fd, _address(key_buffer), _address(other), 0))


def _address(buffer: "ctypes.Array[ctypes.c_char] | None") -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def missed_runs(prog_fd: int) -> int:
    """How often the kernel left out a program because another one was running on that CPU.

    Kernels before 6.7 do not count it for tracepoints and say 0.
    """
    info = ctypes.create_string_buffer(_PROG_INFO_SIZE)
    bpf(_OBJ_GET_INFO_BY_FD, _INFO.pack(prog_fd, len(info), ctypes.addressof(info)))
    misses: int = RECURSION_MISSES.unpack_from(info)[0]
    return misses
