# SPDX-License-Identifier: Apache-2.0
"""A memory with bounds: what came last is kept."""

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The things that were set last; when there are too many, the oldest go.

    :param most: how many are kept.
    :param room: bytes that all of them may take.
    :param weigh: bytes that one takes, the same whenever it is asked.
    """

    def __init__(self, most: int, room: int = 0, weigh: Callable[[V], int] = lambda _: 0) -> None:
        self._most = most
        self._room = room
        self._weigh = weigh
        self._things: dict[K, V] = {}
        self._bytes = 0

    def get(self, key: K) -> V | None:
        return self._things.get(key)

    def __setitem__(self, key: K, thing: V) -> None:
        if key in self._things:
            self._forget(key)
        self._things[key] = thing
        self._bytes += self._weigh(thing)
        while len(self._things) > self._most or self._bytes > self._room:
            self._forget(next(iter(self._things)))

    def __contains__(self, key: K) -> bool:
        return key in self._things

    def __len__(self) -> int:
        return len(self._things)

    def _forget(self, key: K) -> None:
        self._bytes -= self._weigh(self._things.pop(key))
