# SPDX-License-Identifier: Apache-2.0
"""What took long to make and can be used again: files in a directory of root's.

A file is used only if nobody else could have written it, and only for the very key
it was made for. Whatever is not as it should be is made again without a word.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import source_hash
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from .private import private_content, private_directory, write_whole

_FILE_MAX: Final = 1 << 24

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


class Keeper(Protocol):
    """Whoever keeps what was made."""

    def get(self, form: Form[T], key: str, make: Callable[[], T]) -> T:
        """The thing, kept for this key or made now."""


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
            with private_directory(self._path) as directory:
                content = private_content(directory, form.name, _FILE_MAX)
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
            with private_directory(self._path, make=True) as directory:
                write_whole(directory, form.name, _digest(body) + b"\n" + body, replace=True)


class Remembered:
    """What was asked for last, besides what another one keeps.

    A daemon that was root when it began can not use the directory any more.
    """

    def __init__(self, beside: Keeper) -> None:
        self._beside = beside
        self._last: tuple[str, str, Any] | None = None

    def get(self, form: Form[T], key: str, make: Callable[[], T]) -> T:
        """See :meth:`Cache.get`."""
        if self._last and self._last[:2] == (form.name, key):
            return cast(T, self._last[2])
        found = self._beside.get(form, key, make)
        self._last = form.name, key, found
        return found


def _digest(body: bytes) -> bytes:
    return source_hash(body).hex().encode()
