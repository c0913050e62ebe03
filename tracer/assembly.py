# SPDX-License-Identifier: Apache-2.0
"""Puts together what the kernel program sent in several records."""

from typing import Final

from ..events.call import Call, CallFlag, Chunk, Image
from ..events.wire import (
    ANNOUNCE_AGAIN,
    PART_ASIDE,
    PART_ATTR_ENTRY,
    PART_ATTR_EXIT,
    PART_MEMORY,
    parse,
)
from .recent import Recent

IMAGES_MAX: Final = 2 * ANNOUNCE_AGAIN
"""More than the kernel program lets pass before it tells a process again."""
IMAGES_BYTES: Final = 8 << 20
"""What they take, about: more than it lets pass of the longest ones."""
PENDING_MAX: Final = 32 << 20
"""Bytes of calls that have not returned: 40 programs of 100,000 instructions."""

_KERNEL: Final = int(CallFlag.KERNEL)
_EACH: Final = 256
"""Bytes that a chunk takes here beside its data, about."""

_Parts = dict[tuple[int, int], list[Chunk]]  # part kind, slot


class Assembly:
    """Chunks become part of the call that they came ahead of; processes are kept."""

    def __init__(self) -> None:
        self._pending: dict[int, dict[int, _Parts]] = {}  # by tid and start_ns
        self._pending_bytes = 0
        self._images: Recent[tuple[int, int, int], Image] = Recent(
            IMAGES_MAX, IMAGES_BYTES, lambda image: len(image.exe) + len(image.args)
        )

    def feed(self, record: bytes) -> Call | None:
        """Takes a record; a call comes out when it is whole.

        :raises WireError: it is not one.
        """
        thing = parse(record)
        if isinstance(thing, Call):
            parts = self._parts_of(thing) if thing.tid in self._pending else None
            return thing if parts is None else self._joined(thing, parts)
        if isinstance(thing, Chunk):
            self._keep(thing)
        else:
            self._remember(thing)
        return None

    def image(self, call: Call) -> Image | None:
        """What the process of the call runs, if the kernel has told and it was not lost."""
        return self.run_by(call.tgid, call.process_start_ns, call.exec_id)

    def run_by(self, pid: int, start_ns: int, exec_id: int) -> Image | None:
        """The same by what tells a process, and its programs, from others."""
        return self._images.get((pid, start_ns, exec_id))

    def _remember(self, image: Image) -> None:
        # Each of its threads may tell the same: then it stays the same.
        key = (image.tgid, image.start_ns, image.exec_id)
        known = self._images.get(key)
        self._images[key] = image if known is None or known != image else known

    def _keep(self, chunk: Chunk) -> None:
        calls = self._pending.setdefault(chunk.tid, {})
        parts = calls.setdefault(chunk.start_ns, {})
        parts.setdefault((chunk.part, chunk.slot), []).append(chunk)
        self._pending_bytes += _EACH + len(chunk.data)
        while self._pending_bytes > PENDING_MAX:
            for forgotten in self._pending.pop(next(iter(self._pending))).values():
                self._forget(forgotten)

    def _parts_of(self, call: Call) -> _Parts | None:
        # A thread's calls come in their order: of earlier ones only these parts came. That
        # within which the kernel made this one is still under way.
        calls = self._pending[call.tid]
        while (
            not call.flags & _KERNEL and (first := next(iter(calls), call.start_ns)) < call.start_ns
        ):
            self._forget(calls.pop(first))
        parts = calls.pop(call.start_ns, None)
        if not calls:
            del self._pending[call.tid]
        if parts:
            self._forget(parts)
        return parts

    def _forget(self, parts: _Parts) -> None:
        for chunks in parts.values():
            self._pending_bytes -= sum(_EACH + len(chunk.data) for chunk in chunks)

    def _joined(self, call: Call, parts: _Parts) -> Call:
        memory, aside = dict(call.memory), dict(call.aside)
        blobs = {PART_MEMORY: memory, PART_ASIDE: aside}
        for (part, slot), chunks in parts.items():
            if part in blobs and slot in blobs[part]:
                blobs[part][slot] = blobs[part][slot]._replace(data=_data(chunks, 0))
        same = call.exit is call.entry  # its part was left out
        copied = call.kernel is call.entry
        entry, exit_ = call.entry, call.exit
        entry += _data(parts.get((PART_ATTR_ENTRY, 0), []), len(entry))
        exit_ = entry if same else exit_ + _data(parts.get((PART_ATTR_EXIT, 0), []), len(exit_))
        kernel = entry if copied else call.kernel
        return call._replace(entry=entry, exit=exit_, memory=memory, aside=aside, kernel=kernel)


def _data(chunks: list[Chunk], start: int) -> bytes:
    # As far as they follow each other. What begins anew was not all there before.
    data = b""
    for chunk in chunks:
        if chunk.offset == start:
            data = b""
        if chunk.offset != start + len(data):
            break
        data += chunk.data
    return data
