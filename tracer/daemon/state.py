# SPDX-License-Identifier: Apache-2.0
"""The daemon's directory: a lock, so that there is one of it, and a mark of how the last one ended.

All goes by the descriptor of the directory, which is private to root and the daemon's user.
"""

import fcntl
import json
import os
import stat
from contextlib import suppress
from typing import Final

from ...events.errors import CannotStart
from ..private import require_private
from ..rights import Account
from ..source import boot_id

_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_LOCK: Final = "lock"
_MARK: Final = "running"
_SPOOL: Final = "spool"
_MARK_MAX: Final = 4096
_ITS_OWN: Final = frozenset({_LOCK, _MARK, _SPOOL, "lost+found"})
_MINE: Final = os.O_NOFOLLOW | os.O_CLOEXEC


def spool_of(path: str) -> str:
    """Directory, below this one, for what sinks could not take yet."""
    return os.path.join(path, _SPOOL)


def require_ours(fd: int, who: Account | None, *, empty: bool = True) -> None:
    """
    :param who: whose this directory is or becomes; None: ours.
    :param empty: nothing else may be in one that becomes theirs.
    :raises OSError: it cannot be.
    """
    require_private(fd, {os.geteuid(), who.uid if who else os.geteuid()})
    # Else one wrong word in the configuration makes somebody without rights the owner of /etc.
    given = who is not None and os.fstat(fd).st_uid != who.uid
    if empty and given and set(os.listdir(fd)) - _ITS_OWN:
        raise PermissionError(0, "other things are in it, so it is not given to 'user'")


class State:
    """Holds the directory until :meth:`close`.

    :param path: made if it is missing.
    :param who: whose it is to be; None: ours.
    :raises CannotStart: it cannot be used, or another daemon does.
    """

    def __init__(self, path: str, who: Account | None) -> None:
        self._who = who
        self.spool = spool_of(path)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._directory = self._opened(path)
            self._opened(_SPOOL, within=self._directory, keep=False)
            self._lock = os.open(
                _LOCK, os.O_RDWR | os.O_CREAT | _MINE, _FILE_MODE, dir_fd=self._directory
            )
        except OSError as error:
            raise CannotStart(f"cannot use the state directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(self._lock, _MARK_MAX).decode("ascii", "replace").strip()
            os.close(self._lock)
            os.close(self._directory)
            raise CannotStart(
                f"another bpfsnoop daemon (process {other}) has the state directory {path}:"
                " stop it, or give this one another 'state'"
            ) from None
        about = os.fstat(self._lock)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise CannotStart(f"{path}/{_LOCK} is not a file of its own: remove it")
        os.ftruncate(self._lock, 0)
        with suppress(OSError):  # the disk is full: nobody will be told who has it
            os.write(self._lock, b"%d\n" % os.getpid())

    def previous_end(self) -> str:
        """How the daemon before this one ended: ``stopped``, ``killed``, or ``rebooted`` if it
        ran when the host did; empty if there was none.
        """
        try:
            fd = os.open(_MARK, os.O_RDONLY | _MINE, dir_fd=self._directory)
            with open(fd, "rb") as file:
                mark = json.loads(file.read(_MARK_MAX))
            if mark["ended"]:
                return "stopped"
            return "killed" if mark["boot_id"] == boot_id() else "rebooted"
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, TypeError, KeyError):
            return "killed"  # it cannot be read: nobody ended in order

    def mark(self, *, ended: bool) -> None:
        """Leaves word for the next one.

        :raises OSError: there is no room for it.
        """
        content = json.dumps({"ended": ended, "boot_id": boot_id()}).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _MINE
        fd = os.open(_MARK, flags, _FILE_MODE, dir_fd=self._directory)
        try:
            self._give(fd)
            os.write(fd, content)
        finally:
            os.close(fd)

    def close(self) -> None:
        os.close(self._lock)
        os.close(self._directory)

    def _opened(self, path: str, within: int | None = None, *, keep: bool = True) -> int:
        with suppress(FileExistsError):
            os.mkdir(path, _DIR_MODE, dir_fd=within)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _MINE, dir_fd=within)
        try:
            require_ours(fd, self._who, empty=within is None)
            self._give(fd)
        except OSError:
            os.close(fd)
            raise
        if not keep:
            os.close(fd)
        return fd

    def _give(self, fd: int) -> None:
        if self._who and os.geteuid() == 0:
            os.fchown(fd, self._who.uid, self._who.gid)
