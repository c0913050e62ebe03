# SPDX-License-Identifier: Apache-2.0
"""Programs that calls loaded, as files: each distinct one once (``--save-progs``)."""

import os
from collections.abc import Mapping
from typing import Final

from ..decoders.elf import object_file
from ..decoders.progs import PROG_LOAD
from ..events.call import Totals
from ..events.ecs import Cause
from ..events.errors import CannotStart
from ..events.event import Event
from ..events.folded import Folded
from ..events.notice import Notice
from ..events.process import Process
from ..rules.alert import Alert
from .private import private_directory, write_whole
from .say import say

FILES_MAX: Final = 4096
"""In the directory, those that were there before among them."""
BYTES_MAX: Final = 256 << 20
_SUFFIX: Final = ".o"
_INSNS: Final = PROG_LOAD.layout.offset_of("insns")
_LICENSE: Final = PROG_LOAD.layout.offset_of("license")
_TYPE, _NAME = "prog_type", "prog_name"


class SavedPrograms:
    """A sink that keeps programs, by the SHA-256 of their instructions; nothing is overwritten.

    :param path: a directory, made if it is missing. Only we may be able to write to it.
    :raises CannotStart: it is none, or others may write to it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            with private_directory(path, make=True) as directory:
                found = [entry for entry in os.scandir(directory) if entry.name.endswith(_SUFFIX)]
                self._bytes = sum(entry.stat(follow_symlinks=False).st_size for entry in found)
        except OSError as error:
            raise CannotStart(f"--save-progs {path}: {error.strerror or error}") from None
        self._known = {entry.name for entry in found}
        self._left_out = 0
        self._problem = ""

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        program = event.program
        if program is None or not program.sha256:
            return
        name = program.sha256 + _SUFFIX
        if name in self._known:
            return
        if len(self._known) >= FILES_MAX or self._bytes >= BYTES_MAX:
            self._left_out += 1
            self._problem = self._problem or f"{self._path} holds as much as it may"
            return
        content = _content(event)
        try:
            with private_directory(self._path) as directory:
                write_whole(directory, name, content, replace=False)
        except OSError as error:
            self._left_out += 1
            self._problem = self._problem or f"{self._path}: {error.strerror or error}"
            return
        self._known.add(name)
        self._bytes += len(content)

    def folded(self, folded: Folded, sequence: int) -> None:
        pass

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        pass

    def alert(self, alert: Alert, sequence: int) -> None:
        pass

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        pass

    def end(self) -> None:
        if self._left_out:
            say(f"{self._left_out} programs were not saved: {self._problem}")


def _content(event: Event) -> bytes:
    fields = {item.name: item.value for item in event.attr or ()}
    license_ = event.call.memory.get(_LICENSE)
    return object_file(
        event.call.memory[_INSNS].data,
        name=bytes(fields.get(_NAME, b"")).partition(b"\0")[0],
        prog_type=int(fields.get(_TYPE, 0)),
        licensed=license_.data.partition(b"\0")[0] if license_ else b"",
    )
