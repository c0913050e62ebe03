# SPDX-License-Identifier: Apache-2.0
"""The tracer's own BPF maps and programs, through bpf(2)."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..decoders.map_types import MapBtf
from .libc import bpf

_MAP_CREATE: Final = 0
_MAP_LOOKUP_ELEM: Final = 1
_MAP_UPDATE_ELEM: Final = 2
_MAP_DELETE_ELEM: Final = 3
_MAP_GET_NEXT_KEY: Final = 4
_PROG_LOAD: Final = 5
_PROG_TEST_RUN: Final = 10
_OBJ_GET_INFO_BY_FD: Final = 15
_RAW_TRACEPOINT_OPEN: Final = 17
_MAP_GET_FD_BY_ID: Final = 14
_BTF_GET_FD_BY_ID: Final = 19
_F_RDONLY: Final = 1 << 3

_NAME_MAX: Final = 15
_LOG_SIZE: Final = 1 << 20
# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version,
# prog_flags, prog_name, expected_attach_type, attach_btf_id
_LOAD: Final = struct.Struct("=IIQQIIQII16s4xI36xI")
# map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
_CREATE: Final = struct.Struct("=IIIIIII16s")
# prog_fd, retval, data sizes and pointers, repeat, duration, ctx_size_in and _out, ctx_in
_TEST: Final = struct.Struct("=IIIIQQIIIIQ")
_OPEN: Final = struct.Struct("=QI4x")  # name, prog_fd

# map_fd, key, value or next_key, flags
_ELEM: Final = struct.Struct("=I4xQQQ")
# bpf_fd, info_len, info
_INFO: Final = struct.Struct("=IIQ")

_PROG_INFO_SIZE: Final = 256
# type, id, key_size, value_size, btf_id, btf_key_type_id, btf_value_type_id, since Linux 4.18
_MAP_BTF: Final = struct.Struct("=4I48x3I")
_BTF_INFO: Final = struct.Struct("=QI20x")  # btf, btf_size
RECURSION_MISSES: Final = struct.Struct("=208xQ")  # in struct bpf_prog_info, since Linux 5.12


class MapSpec(NamedTuple):
    """What a map is made from."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class ProgramType(NamedTuple):
    """What a program is to be, and where it may be attached."""

    type: int
    """``enum bpf_prog_type``."""
    attach_type: int = 0
    """``enum bpf_attach_type``."""
    attach_btf_id: int = 0
    """The type of the kernel's BTF that stands for what it is attached to."""


TRACEPOINT: Final = ProgramType(5)  # BPF_PROG_TYPE_TRACEPOINT
RAW_TRACEPOINT: Final = ProgramType(17)  # BPF_PROG_TYPE_RAW_TRACEPOINT
KPROBE: Final = ProgramType(2)  # BPF_PROG_TYPE_KPROBE
FENTRY: Final = ProgramType(26, 24)  # BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY
FEXIT: Final = ProgramType(26, 25)  # BPF_PROG_TYPE_TRACING, BPF_TRACE_FEXIT
LSM: Final = ProgramType(29, 27)  # BPF_PROG_TYPE_LSM, BPF_LSM_MAC
TRACING_RAW_TP: Final = ProgramType(26, 23)  # BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP


NOTHING: Final = bytes.fromhex("b700000000000000 9500000000000000")
"""The least that a program can be: ``r0 = 0; exit``."""


class NotLoaded(OSError):
    """The kernel did not take a program.

    :param log: the end of what the verifier said, or empty.
    """

    def __init__(self, error: OSError, log: str) -> None:
        super().__init__(error.errno, error.strerror)
        self.log = log


def create_map(spec: MapSpec, name: str) -> int:
    """:returns: a descriptor, the caller's.
    :raises OSError: the kernel does not know such maps, or has no memory.
    """
    return bpf(
        _MAP_CREATE,
        _CREATE.pack(
            spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags, 0, 0,
            name.encode()[:_NAME_MAX],
        ),
    )  # fmt: skip


def load_program(kind: ProgramType, insns: bytes, name: str) -> int:
    """:param insns: ``struct bpf_insn`` one behind the other.
    :returns: a descriptor, the caller's.
    :raises NotLoaded: with what the verifier said.
    """
    code = ctypes.create_string_buffer(insns, len(insns))
    license_ = ctypes.create_string_buffer(b"GPL")
    attr = [kind.type, len(insns) // 8, ctypes.addressof(code), ctypes.addressof(license_)]
    end = [0, 0, name.encode()[:_NAME_MAX], kind.attach_type, kind.attach_btf_id]
    try:
        return bpf(_PROG_LOAD, _LOAD.pack(*attr, 0, 0, 0, *end))
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            os.close(bpf(_PROG_LOAD, _LOAD.pack(*attr, 1, len(log), ctypes.addressof(log), *end)))
        except OSError:
            pass  # as expected; this time it said why
        raise NotLoaded(error, log.value.decode("utf-8", "replace")) from error


def run_raw_tracepoint(prog_fd: int, arguments: Sequence[int]) -> None:
    """Runs a program once, in this process (``BPF_PROG_TEST_RUN``, since Linux 5.10).

    :param arguments: the tracepoint's, each a ``__u64``.
    :raises OSError: the kernel cannot do that.
    """
    context = struct.pack(f"={len(arguments)}Q", *arguments)
    buffer = ctypes.create_string_buffer(context, len(context))
    bpf(_PROG_TEST_RUN, _TEST.pack(prog_fd, *[0] * 7, len(buffer), 0, ctypes.addressof(buffer)))


def open_raw_tracepoint(prog_fd: int, name: str = "") -> int:
    """:param name: of the tracepoint; that of the program's ``attach_btf_id`` if empty.
    :returns: the descriptor of a link, the caller's.
    :raises OSError: there is no such tracepoint.
    """
    text = ctypes.create_string_buffer(name.encode())
    return bpf(_RAW_TRACEPOINT_OPEN, _OPEN.pack(ctypes.addressof(text) if name else 0, prog_fd))


def open_btf(number: int) -> int:
    """:returns: the descriptor of the BTF object with this id, the caller's.
    :raises OSError: there is none.
    """
    return bpf(_BTF_GET_FD_BY_ID, struct.pack("=I", number))


def btf_of_map(number: int) -> MapBtf:
    """:param number: the id of any map on this host.
    :returns: the ids of its types are zero if it was made without.
    :raises OSError: ENOENT if there is no such map, EPERM without CAP_SYS_ADMIN.
    """
    fd = bpf(_MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, _F_RDONLY))
    try:
        return MapBtf._make(_MAP_BTF.unpack_from(_info(fd)))
    finally:
        os.close(fd)


def btf_data(number: int, most: int) -> bytes | None:
    """:param most: bytes.
    :returns: None if it is longer.
    :raises OSError: as with maps.
    """
    fd = open_btf(number)
    try:
        size = _btf_info(fd, 0)[1]
        if size > most:
            return None
        data = ctypes.create_string_buffer(size)
        _btf_info(fd, ctypes.addressof(data), size)
        return data.raw
    finally:
        os.close(fd)


def _btf_info(fd: int, address: int, size: int = 0) -> tuple[int, int]:
    info = ctypes.create_string_buffer(_BTF_INFO.pack(address, size), _BTF_INFO.size)
    bpf(_OBJ_GET_INFO_BY_FD, _INFO.pack(fd, len(info), ctypes.addressof(info)))
    address, size = _BTF_INFO.unpack(info.raw)
    return address, size


def map_spec(fd: int) -> MapSpec:
    """What a map was made from."""
    # struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags
    kind, _, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", _info(fd))
    return MapSpec(kind, key_size, value_size, max_entries, flags)


def object_id(fd: int) -> int:
    """The id of a map, program or link: the second field of its info."""
    number: int = struct.unpack_from("=II", _info(fd))[1]
    return number


def _info(fd: int) -> bytes:
    info = ctypes.create_string_buffer(_PROG_INFO_SIZE)
    bpf(_OBJ_GET_INFO_BY_FD, _INFO.pack(fd, len(info), ctypes.addressof(info)))
    return info.raw


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
    misses: int = RECURSION_MISSES.unpack_from(_info(prog_fd))[0]
    return misses
