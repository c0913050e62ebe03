# SPDX-License-Identifier: Apache-2.0
"""Cgroups (version 2): the id of a path, and the path of an id.

The id of a cgroup is the number of its directory's inode, and what
bpf_get_current_cgroup_id() says. It is not used again while the system runs.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple

from . import libc
from .recent import Recent

MOUNTINFO: Final = "/proc/self/mountinfo"
CACHE_ENTRIES: Final = 4096
CACHE_BYTES: Final = 4 << 20

_MOUNTINFO_MAX: Final = 16 << 20  # bytes; a host with many containers has tens of thousands of them
_FILEID_KERNFS: Final = 0xFE  # include/linux/exportfs.h, since Linux 5.5: a 64-bit inode number
_U64_MAX: Final = (1 << 64) - 1
_DELETED: Final = b" (deleted)"

# Fields of a line of mountinfo, proc_pid_mountinfo(5). Optional ones follow, then "-".
_DEVICE, _ROOT, _POINT, _OPTIONAL = 2, 3, 4, 6
_OCTAL: Final = re.compile(rb"\\([0-3][0-7]{2})")


class Mount(NamedTuple):
    """A mount, as mountinfo has it."""

    point: bytes
    """Where it is mounted: a path."""
    root: bytes
    """The directory that is seen there, from the root of the file system; empty for all of it:
    of cgroup2 a cgroup."""
    device: int


class _Opened(NamedTuple):
    mount: Mount
    fd: int


def cgroup_directory(path: str, mountinfo: str = MOUNTINFO) -> str:
    """The directory of a cgroup, whose inode number is its id.

    :param path: of its directory (/sys/fs/cgroup/system.slice), or from the root of the
        hierarchy as /proc/PID/cgroup has it (/system.slice, system.slice). The former counts
        if both exist.
    :raises ValueError: with a sentence for the user.
    """
    found = _open_mount(mountinfo)
    if found is None:
        raise ValueError(
            "no cgroup2 file system is mounted here: mount it with"
            " 'mount -t cgroup2 none /sys/fs/cgroup'"
        )
    mount, fd = found
    os.close(fd)
    for candidate in _candidates(os.fsencode(path), mount):
        try:
            status = os.stat(candidate + b"/.")  # the dot: only a directory will do
        except (OSError, ValueError):  # no such file, or a NUL in its name
            continue
        if status.st_dev == mount.device:
            return os.fsdecode(candidate)
    raise ValueError(
        f"{path!r} is not a cgroup: there is no such directory under"
        f" {os.fsdecode(mount.point)!r}, where cgroup2 is mounted"
    )


def _candidates(path: bytes, mount: Mount) -> Iterator[bytes]:
    if path.startswith(b"/"):
        yield path
    relative = path.lstrip(b"/")
    yield mount.point + b"/" + relative
    root = mount.root.lstrip(b"/")
    if root and (relative == root or relative.startswith(root + b"/")):
        yield mount.point + b"/" + relative[len(root) :]


class CgroupPaths:
    """Paths of cgroups by their ids, also for processes that are no more.

    The kernel is asked by file handle, which needs no search and no process. Without
    cgroup2, or without permission, no path is known.

    :param mountinfo: where cgroup2 is looked for, once.
    """

    def __init__(self, mountinfo: str = MOUNTINFO) -> None:
        self._known: Recent[int, bytes] = Recent(CACHE_ENTRIES, CACHE_BYTES, len)
        self._resources = ExitStack()
        self._opened = _open_mount(mountinfo)
        if self._opened is not None:
            self._resources.callback(os.close, self._opened.fd)

    def __enter__(self) -> "CgroupPaths":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """What is known stays known."""
        self._opened = None
        self._resources.close()

    @property
    def mounted(self) -> bool:
        """Whether there is a cgroup2 file system to ask."""
        return self._opened is not None

    def path(self, cgroup_id: int) -> bytes | None:
        """From the root of the hierarchy, as in /proc/PID/cgroup; None if it cannot be told.

        That is: the cgroup was removed, its path is longer than the kernel tells, or it
        cannot be asked. A path that is known outlives its cgroup. (Cgroups cannot be renamed.)
        """
        known = self._known.get(cgroup_id)
        if known is None and (known := self._look(cgroup_id)) is not None:
            self._known[cgroup_id] = known
        return known

    def _look(self, cgroup_id: int) -> bytes | None:
        if self._opened is None or not 0 < cgroup_id <= _U64_MAX:
            return None
        mount, mount_fd = self._opened
        try:
            handle = struct.pack("=Q", cgroup_id)
            fd = libc.open_by_handle(mount_fd, _FILEID_KERNFS, handle)
        except OSError:
            return None
        try:
            top = os.readlink(b"/proc/self/fd/%d" % mount_fd)
            path = os.readlink(b"/proc/self/fd/%d" % fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        return self._relative(path, top, mount, cgroup_id)

    def _relative(self, path: bytes, top: bytes, mount: Mount, cgroup_id: int) -> bytes:
        top = top.rstrip(b"/")
        if path.endswith(_DELETED) and not _is_cgroup(path, cgroup_id):
            path = path.removesuffix(_DELETED)  # it was removed between two lines of ours
        if path == top:
            return mount.root or b"/"
        if path.startswith(top + b"/"):
            return mount.root + path[len(top) :]
        # It is not below what is mounted here (we are in a cgroup namespace); then the
        # kernel begins at the root of the hierarchy.
        return path


def _is_cgroup(path: bytes, cgroup_id: int) -> bool:
    try:
        return os.stat(path).st_ino == cgroup_id
    except OSError:
        return False


def _open_mount(mountinfo: str) -> _Opened | None:
    """The mount of cgroup2 that shows most, and its directory, opened; None if there is none."""
    try:
        with open(mountinfo, "rb") as file:
            found = list(mounts(file.read(_MOUNTINFO_MAX), b"cgroup2"))
    except OSError:
        return None
    for mount in sorted(found, key=lambda mount: len(mount.root)):
        try:
            fd = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        # Something else may have been mounted over it.
        if os.fstat(fd).st_dev == mount.device:
            return _Opened(mount, fd)
        os.close(fd)
    return None


def mounts(mountinfo: bytes, fstype: bytes) -> Iterator[Mount]:
    """The mounts of this type; something else may have been mounted over them."""
    for line in mountinfo.split(b"\n"):
        fields = line.split(b" ")
        try:
            if fields[fields.index(b"-", _OPTIONAL) + 1] != fstype:
                continue
            major, minor = fields[_DEVICE].split(b":")
            device = os.makedev(int(major), int(minor))
        except (ValueError, IndexError, OverflowError):
            continue  # not a line as we know it
        root = _unescape(fields[_ROOT])
        # From within a cgroup namespace, what is above it is seen as /..: a mount of all,
        # made outside, or at least of more than is ours.
        if root == b"/" or root.startswith(b"/.."):
            root = b""
        yield Mount(_unescape(fields[_POINT]), root, device)


def _unescape(field: bytes) -> bytes:
    r"""A space is ``\040`` in mountinfo; so are tab, newline and backslash."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
