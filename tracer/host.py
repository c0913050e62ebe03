# SPDX-License-Identifier: Apache-2.0
"""Whether an executable of another mount namespace is what the host has at its path.

Whoever calls has chosen the path, and could have us wait for ever at a file server or an
automounter of theirs. So it is looked up only where the host has the executable's own file
system, without following symbolic links, and only among the names that the kernel remembers: of
a file that runs it does, with all directories above. Something else may be mounted there between
one look and the next.
"""

import errno
import os
import re
from typing import Final, NamedTuple

from ..events.call import Image
from ..events.process import Missing, Surroundings
from . import libc

_MOUNTS_BYTES: Final = 16 << 20
_FDINFO_BYTES: Final = 4096
_MINOR_BITS: Final = 20  # MINORBITS, include/linux/kdev_t.h
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})")  # proc_pid_mountinfo(5)
_TRIES: Final = 8

_SUBVOLUMES: Final = {b"btrfs", b"bcachefs"}
"""File systems whose numbers of inodes are unique in a subvolume only."""
_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class _Mount(NamedTuple):
    id: int
    device: bytes
    """Major and minor number."""
    kind: bytes
    """The type of its file system."""


class HostMounts:
    """What is mounted on the host: for process 1 or, if we may not look, for us.

    :param root: where proc is mounted.
    """

    def __init__(self, root: str = "/proc") -> None:
        self._self = f"{root}/self"
        self._host = f"{root}/1"
        self.namespace = _namespace(self._host)
        """The inode number of its mount namespace; 0 if not even ours is known."""
        if not self.namespace:
            self._host = self._self
            self.namespace = _namespace(self._host)

    def with_exe(self, surroundings: Surroundings, image: Image) -> Surroundings:
        """The same, and whether the host has the executable at its path."""
        found = self.has(image.exe, image.exe_dev, image.exe_ino)
        if isinstance(found, Missing):
            missing = {**surroundings.missing, "exe_on_host": found}
            return surroundings._replace(missing=missing)
        return surroundings._replace(exe_on_host=found)

    def has(self, path: bytes, dev: int, ino: int) -> bool | Missing:
        """Whether the host has a certain file at a path.

        :param dev: the device of its file system, as the kernel encodes it. stat(2) has
            another one on btrfs.
        :param ino: the number of its inode; of this, too, stat(2) may have another one.
        """
        try:
            mount = _mount_of(path, dev, _read(f"{self._host}/mountinfo", _MOUNTS_BYTES))
            if mount is None:
                return False
            return Missing.SUBVOLUMES if mount.kind in _SUBVOLUMES else self._is(path, mount, ino)
        except ValueError:
            return Missing.NONSENSE
        except (OSError, KeyError):  # the number of the inode is there since Linux 5.14
            return Missing.UNREADABLE

    def _is(self, path: bytes, mount: _Mount, ino: int) -> bool:
        root_fd = os.open(f"{self._host}/root", os.O_PATH | os.O_DIRECTORY)
        try:
            fd = _open(root_fd, path)
        finally:
            os.close(root_fd)
        if fd is None:
            return False
        try:
            about = _read(f"{self._self}/fdinfo/{fd}", _FDINFO_BYTES)
        finally:
            os.close(fd)
        fields = dict(line.split(b":", 1) for line in about.split(b"\n") if b":" in line)
        return (int(fields[b"mnt_id"]), int(fields[b"ino"])) == (mount.id, ino)


def _open(root_fd: int, path: bytes) -> int | None:
    for _ in range(_TRIES):
        try:
            return libc.open_path(root_fd, path)
        except BlockingIOError:  # it is not remembered, or somewhere something was just mounted
            continue
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return None
    return None


def _namespace(process: str) -> int:
    try:
        return os.stat(f"{process}/ns/mnt").st_ino
    except OSError:
        return 0


def _read(path: str, limit: int) -> bytes:
    """:raises ValueError: there is more than limit bytes of it."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is longer than {limit} bytes")
    return data


def _mount_of(path: bytes, dev: int, mounts: bytes) -> _Mount | None:
    """The mount that a path leads to, if that has the file system of dev.

    :param mounts: of /proc/PID/mountinfo.
    :raises ValueError: that is not what it looks like.
    """
    device = b"%d:%d" % (dev >> _MINOR_BITS, dev & ((1 << _MINOR_BITS) - 1))
    if b" %s " % device not in mounts:  # as with most containers; there may be thousands
        return None
    nearest, found = b"", _Mount(0, b"", b"")
    for line in mounts.split(b"\n"):
        if line:
            number, _, its_device, _, point, rest = line.split(b" ", 5)
            point = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 8)]), point)
            # Of several at one place the last one counts.
            if len(point) >= len(nearest) and _is_below(path, point):
                kind = rest.partition(b" - ")[2].partition(b" ")[0]
                nearest, found = point, _Mount(int(number), its_device, kind)
    return found if found.device == device else None


def _is_below(path: bytes, point: bytes) -> bool:
    return path == point or path.startswith(point.rstrip(b"/") + b"/")
