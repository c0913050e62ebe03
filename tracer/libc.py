# SPDX-License-Identifier: Apache-2.0
"""System calls that Python 3.11 has no binding for."""

import ctypes
import os
import platform
import struct
from typing import Final

SYS_BPF: Final = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280,
    "ppc64le": 361, "s390x": 351,
}.get(platform.machine(), 280)  # fmt: skip

_SYS_PERF_EVENT_OPEN: Final = {
    "x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241,
    "ppc64le": 319, "s390x": 331,
}.get(platform.machine(), 241)  # fmt: skip

_SYS_FSOPEN: Final = 430  # the same on all architectures
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_OPENAT2: Final = 437
_FSCONFIG_CMD_CREATE: Final = 6
_CLOEXEC: Final = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC

_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_CACHED: Final = 0x20  # since Linux 5.12
_RESOLVE: Final = _RESOLVE_NO_SYMLINKS | _RESOLVE_IN_ROOT | _RESOLVE_CACHED

_PERF_TYPE_TRACEPOINT: Final = 2
PERF_ATTR_SIZE: Final = 128  # PERF_ATTR_SIZE_VER7
_X32_BIT: Final = 1 << 30
_SYS_GETPID: Final = 39  # x86-64
_KPROBE_TYPE: Final = "/sys/bus/event_source/devices/kprobe/type"
_RETPROBE: Final = 1  # bit 0 of config, as format/retprobe there says
_PERF_FLAG_FD_CLOEXEC: Final = 8
_PERF_SET_BPF: Final = 0x40042408  # PERF_EVENT_IOC_SET_BPF
_PERF_ENABLE: Final = 0x2400  # PERF_EVENT_IOC_ENABLE

_libc = ctypes.CDLL(None, use_errno=True)


_calls = 0


def bpf_calls() -> int:
    """How many times this process has called :func:`bpf`."""
    return _calls


def bpf(cmd: int, attr: bytes) -> int:
    """bpf(2).

    :raises OSError: with the kernel's errno.
    """
    global _calls  # noqa: PLW0603 - of the process, as what it counts
    _calls += 1
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _checked(_libc.syscall(SYS_BPF, ctypes.c_long(cmd), buffer, ctypes.c_long(len(attr))))


def detached_mount(fstype: str) -> int:
    """Mounts a file system that needs no device, for nobody but whoever has the descriptor.

    fsopen(2), fsmount(2), since Linux 5.2.

    :returns: of its root directory; the caller's.
    :raises OSError: not permitted, or there is no such file system.
    """
    context = _checked(_libc.syscall(_SYS_FSOPEN, fstype.encode(), ctypes.c_long(_CLOEXEC)))
    try:
        create = ctypes.c_long(_FSCONFIG_CMD_CREATE)
        _checked(_libc.syscall(_SYS_FSCONFIG, ctypes.c_long(context), create, None, None, 0))
        zero = ctypes.c_long(0)
        return _checked(
            _libc.syscall(_SYS_FSMOUNT, ctypes.c_long(context), ctypes.c_long(_CLOEXEC), zero)
        )
    finally:
        os.close(context)


def open_path(root_fd: int, path: bytes) -> int:
    """openat2(2): names a file, and does not open it. No file system is asked for anything.

    :param root_fd: a directory, which is the root of path.
    :returns: a descriptor with O_PATH and close-on-exec, the caller's.
    :raises OSError: with the kernel's errno; ELOOP if there is a symbolic link on the way, EAGAIN
        if the kernel does not remember all names on it, or something there just changed.
    """
    # struct open_how: flags, mode, resolve
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE)
    buffer = ctypes.create_string_buffer(how, len(how))
    root, size = ctypes.c_long(root_fd), ctypes.c_long(len(how))
    return _checked(_libc.syscall(_SYS_OPENAT2, root, path, buffer, size))


def attach_tracepoint(event_id: int, prog_fd: int) -> int:
    """Runs a BPF program at a tracepoint, on all CPUs and for all processes.

    perf_event_open(2) with ``PERF_TYPE_TRACEPOINT``; which CPU and process the event
    is opened for does not matter to its program.

    :returns: a descriptor that keeps it attached; the caller's.
    :raises OSError: not permitted, or the program reads beyond the tracepoint's record.
    """
    return _attached(
        struct.pack("=IIQQ", _PERF_TYPE_TRACEPOINT, PERF_ATTR_SIZE, event_id, 1), prog_fd
    )


def has_kprobes() -> bool:
    """Whether the kernel was built with them."""
    return os.path.exists(_KPROBE_TYPE)


def has_x32() -> bool | None:
    """Whether this kernel takes calls of the x32 ABI: found out by making one, in a child.

    :returns: None if a seccomp filter has killed the child.
    """
    child = os.fork()
    if child == 0:
        os._exit(_libc.syscall(ctypes.c_long(_X32_BIT | _SYS_GETPID)) <= 0)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else status == 0


def attach_kprobe(name: str, prog_fd: int, *, returns: bool) -> int:
    """Runs a BPF program whenever a function of the kernel is called, or returns.

    :param name: a symbol of /proc/kallsyms.
    :returns: a descriptor that keeps it attached; the caller's.
    :raises OSError: not permitted, no such symbol, or the kernel has no kprobes.
    """
    with open(_KPROBE_TYPE, encoding="ascii") as file:
        kind = int(file.read())
    symbol = ctypes.create_string_buffer(name.encode())
    # sample_period 1; config1 (kprobe_func) stands at 56
    head = struct.pack("=IIQQ", kind, PERF_ATTR_SIZE, _RETPROBE * returns, 1)
    return _attached(head + struct.pack("=32xQ", ctypes.addressof(symbol)), prog_fd)


def _attached(attr: bytes, prog_fd: int) -> int:
    event = perf_event_open(attr, 0)
    try:
        _checked(_libc.ioctl(event, ctypes.c_ulong(_PERF_SET_BPF), ctypes.c_long(prog_fd)))
        perf_event_enable(event)
    except BaseException:
        os.close(event)
        raise
    return event


def perf_event_open(attr: bytes, cpu: int) -> int:
    """perf_event_open(2) of all processes on one CPU.

    :param attr: the beginning of a ``struct perf_event_attr`` whose ``size`` is
        ``PERF_ATTR_SIZE``; the rest is zeros.
    :returns: a descriptor with close-on-exec, the caller's.
    :raises OSError: with the kernel's errno.
    """
    buffer = ctypes.create_string_buffer(attr, PERF_ATTR_SIZE)
    arguments = [ctypes.c_long(number) for number in (-1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)]
    return _checked(_libc.syscall(_SYS_PERF_EVENT_OPEN, buffer, *arguments))


def perf_event_enable(event: int) -> None:
    """``PERF_EVENT_IOC_ENABLE``: nothing happens to an event that is enabled already.

    :param event: what :func:`perf_event_open` returned.
    """
    _checked(_libc.ioctl(event, ctypes.c_ulong(_PERF_ENABLE), ctypes.c_long(0)))


def open_by_handle(mount_fd: int, handle_type: int, handle: bytes) -> int:
    """open_by_handle_at(2): a directory by what its file system calls it, without a path.

    No other files: of those, the kernel may not know where they are.

    :param mount_fd: any file of that file system, not opened with O_PATH.
    :param handle_type: how the file system reads the handle.
    :returns: a descriptor with O_PATH and close-on-exec, which is the caller's.
    :raises OSError: ESTALE if there is no such file (any more), ENOTDIR if it is no
        directory, EPERM without CAP_DAC_READ_SEARCH.
    """
    # struct file_handle: handle_bytes, handle_type, f_handle
    data = struct.pack("=Ii", len(handle), handle_type) + handle
    buffer = ctypes.create_string_buffer(data, len(data))
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    return _checked(_libc.open_by_handle_at(mount_fd, buffer, flags))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
