# SPDX-License-Identifier: Apache-2.0
"""Directories that only we can write to, and files in them.

All goes by the descriptor of the directory, so that what is used is what was looked at.
"""

import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def private_directory(path: str, *, make: bool = False) -> Iterator[int]:
    """Its descriptor.

    :param make: it is made if it is missing.
    :raises OSError: it is not a directory that only we can write to.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(path, _DIR_MODE)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        require_private(fd, {os.geteuid()})
        yield fd
    finally:
        os.close(fd)


def private_content(directory: int, name: str, limit: int) -> bytes:
    """What is in a file, so many bytes of it at most.

    :raises OSError: it is not a file that only we can write to.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        require_private(file.fileno(), {os.geteuid()})
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PermissionError("not a file")
        return file.read(limit)


def write_whole(directory: int, name: str, content: bytes, *, replace: bool) -> None:
    """Makes a file that only we can read: whole or not at all, even if two start at the same
    time.

    :param replace: in the place of what is there; else that stays, whatever it is.
    :raises OSError: it cannot be written.
    """
    draft = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):  # left by one that was killed and had our process id
        os.unlink(draft, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, _FILE_MODE, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        within = {"src_dir_fd": directory, "dst_dir_fd": directory}
        if replace:
            os.rename(draft, name, **within)
        else:
            with suppress(FileExistsError):
                os.link(draft, name, **within, follow_symlinks=False)
    finally:
        with suppress(OSError):  # once renamed, it is not there
            os.unlink(draft, dir_fd=directory)


def require_private(fd: int, owners: Container[int]) -> None:
    """
    :param owners: user ids, one of which it must belong to.
    :raises PermissionError: others can write to it.
    """
    about = os.fstat(fd)
    if about.st_uid not in owners or about.st_mode & _OTHERS:
        raise PermissionError(0, "it is not ours alone")
