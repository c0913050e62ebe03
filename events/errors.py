# SPDX-License-Identifier: Apache-2.0
"""Every exception that is raised on purpose.

::

    BpfsnoopError              one sentence for the user, with the cure
    ├── CannotStart            exit status 1
    ├── UsageError             exit status 2: all mistakes at once
    ├── OutputError            an output that cannot be written to
    ├── RecordingError         a recording that cannot be read (further)
    └── WireError              a record from the kernel that is not one

They carry plain data only, so that anything may raise them.
"""

from collections.abc import Sequence
from typing import NamedTuple


class BpfsnoopError(Exception):
    """Base of all; ``str()`` of it is what the user reads."""


class CannotStart(BpfsnoopError):
    """Tracing is not possible here; the sentence says what to do about it."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
        """What a tool below us printed, such as the compiler; shown with ``-v``."""


class Mistake(NamedTuple):
    """One thing that is wrong with what the user wrote."""

    message: str
    path: str = ""
    """The file, or empty for the command line."""
    line: int = 0
    """Counted from 1; 0 for the file as a whole."""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        return f"{where if self.path else ''}{self.message}"


class UsageError(BpfsnoopError):
    """The command line or a configuration file is wrong."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


class OutputError(BpfsnoopError):
    """A file or pipe that was asked for cannot be opened, or takes no more."""


class RecordingError(BpfsnoopError):
    """A recording is not one, is from another version, is cut short or corrupt."""


class WireError(BpfsnoopError):
    """Bytes that should be a record of events/wire.h are not."""
