# SPDX-License-Identifier: Apache-2.0
"""What took long to make and can be used again: files in a directory of root's.

A file is used only if nobody else could have written it, and only for the very key
it was made for. Whatever is not as it should be is made again without a word.
"""

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import source_hash
from typing import Any, Final, Generic, TypeVar

_FILE_MAX: Final = 1 << 24
_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

# What reading JSON that is not as expected ends in.
_NONSENSE: Final = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a thing becomes JSON and again itself."""

    name: str
    """Of the file."""
    to_json: Callable[[T], Any]
    from_json: Callable[[Any], T]
    """May raise any of what nonsense in JSON leads to."""


class Cache:
    """A directory, made when it is needed.

    :param path: empty: nothing is kept.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, form: Form[T], key: str, make: Callable[[], T]) -> T:
        """The thing, from the file if that was made for this key; else it is made and kept.

        :raises Exception: what ``make`` raises.
        """
        found = self.find(form, key)
        if found is not None:
            return found
        made = make()
        self.keep(form, key, made)
        return made

    def find(self, form: Form[T], key: str, *, prefix: bool = False) -> T | None:
        """What is in the file, if that was made for this key.

        :param prefix: one that begins like it will do.
        """
        if not self._path:
            return None
        try:
            with _private_directory(self._path) as directory:
                content = _private_content(directory, form.name)
            digest, _, body = content.partition(b"\n")
            if digest != _digest(body):
                return None
            envelope = json.loads(body)
            kept = str(envelope["key"])
            fits = kept.startswith(key) if prefix else kept == key
            return form.from_json(envelope["made"]) if fits else None
        except (OSError, *_NONSENSE):
            return None

    def keep(self, form: Form[T], key: str, made: T) -> None:
        """In the place of what was kept before, if it can be."""
        if not self._path:
            return
        body = json.dumps({"key": key, "made": form.to_json(made)}).encode()
        # A full disk or a read-only one is no reason not to trace.
        with suppress(OSError):
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self._path, _DIR_MODE)
            with _private_directory(self._path) as directory:
                _replace(directory, form.name, _digest(body) + b"\n" + body)


def require_private(path: str) -> None:
    """:raises OSError: it is not a directory that only we can write to."""
    with _private_directory(path):
        pass


class _private_directory:  # noqa: N801 - reads as a function
    """A directory that only we can write to, by descriptor.

    :raises OSError: it is not that.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags)

    def __enter__(self) -> int:
        try:
            _require_private(self._fd)
        except OSError:
            os.close(self._fd)
            raise
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _require_private(fd: int) -> None:
    about = os.fstat(fd)
    if about.st_uid != os.geteuid() or about.st_mode & _OTHERS:
        raise PermissionError("it is not ours alone")


def _private_content(directory: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        _require_private(file.fileno())
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise PermissionError("not a file")
        return file.read(_FILE_MAX)


def _replace(directory: int, name: str, content: bytes) -> None:
    # Whole or not at all, even if two start at the same time.
    draft = f".{name}.{os.getpid()}"
    with suppress(FileNotFoundError):  # left by one that was killed and had our process id
        os.unlink(draft, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, _FILE_MODE, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise


def _digest(body: bytes) -> bytes:
    return source_hash(body).hex().encode()
