# SPDX-License-Identifier: Apache-2.0
"""What /proc says about a process, in proc(5)'s words: argv, cwd, ancestors, cgroup.

It is read after the call, while the process goes on or has ended, and may be made to
mislead. So every read is bounded, all of one process go through one descriptor of its
directory (which never comes to mean another process), and what is missing has its reason.
"""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from ..decoders.container import container_of
from ..events.process import Ancestor, Container, Missing, Surroundings
from .cgroup import CgroupPaths
from .recent import Recent

ARGS_BYTES: Final = 32 << 10
ARGS_COUNT: Final = 1024
ANCESTORS: Final = 16
CACHE_ENTRIES: Final = 2048
CACHE_BYTES: Final = 8 << 20
"""What the cached values may take in all: arguments and paths are as long as a caller likes."""

_STAT_BYTES: Final = 4096
_CGROUP_BYTES: Final = 128 << 10  # some fifteen hierarchies, with paths of up to 4096 bytes
_TIMENS_BYTES: Final = 4096
_THREADS: Final = 16  # how many are tried for one that lives

_NS_PER_S: Final = 1_000_000_000
_PF_KTHREAD: Final = 0x00200000  # include/linux/sched.h
_DEAD: Final = {b"Z", b"X"}
_DELETED: Final = b" (deleted)"

_T = TypeVar("_T")

_REASONS: Final = {
    errno.ENOENT: Missing.GONE,
    errno.ESRCH: Missing.GONE,
    errno.ENAMETOOLONG: Missing.TOO_LONG,
}


class _Stat(NamedTuple):
    """What we need of /proc/PID/stat; the fields' numbers are those of proc_pid_stat(5)."""

    name: bytes  # 2
    state: bytes  # 3
    parent: int  # 4
    flags: int  # 9
    start_ticks: int  # 22

    @classmethod
    def parse(cls, data: bytes) -> "_Stat":
        """:raises ValueError: that is not what stat looks like."""
        # The name is put in parentheses and may have any byte in it, these too.
        head, _, tail = data.rpartition(b")")
        fields = tail.split()
        name = head.partition(b"(")[2]
        try:
            # The field behind the last one that counts shows that this one is whole.
            state, parent, flags, start, _ = (fields[at - 3] for at in (3, 4, 9, 22, 23))
        except IndexError:
            raise ValueError("too few fields") from None
        return cls(name, state, int(parent), int(flags), int(start))

    @property
    def dead(self) -> bool:
        return self.state in _DEAD


class _Known(NamedTuple):
    cgroup_id: int
    start_ticks: int
    """0 if nobody was there."""
    surroundings: Surroundings


class ProcFs:
    """Looks processes up in /proc, each of them once.

    To read argv, the kernel waits for the process's memory map. A process with privileges
    of its own (userfaultfd) can keep it waiting, and us.

    :param root: where proc is mounted.
    :param cgroups: tells the cgroup of a call by its id; without it, or where it does not
        know, /proc/PID/cgroup is asked. It stays the caller's.
    """

    def __init__(self, root: str = "/proc", cgroups: CgroupPaths | None = None) -> None:
        self._root = root
        self._cgroups = cgroups
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._boottime_offset_ns = _boottime_offset_ns(root)
        self._has_v1 = _has_v1(root)
        self._known: Recent[tuple[int, int, int], _Known] = Recent(
            CACHE_ENTRIES, CACHE_BYTES, lambda known: known.surroundings.size
        )

    def surroundings(
        self,
        pid: int,
        start_ns: int,
        cgroup_id: int,
        exec_id: int = 0,
        parent: tuple[int, int] | None = None,
    ) -> Surroundings:
        """What is known of a process. Never raises.

        What was found is kept, also when the process has gone; so is that nothing was.

        :param pid: of the process (the kernel's tgid).
        :param start_ns: when it was started: ``start_boottime`` of its first thread, ns of
            CLOCK_BOOTTIME. /proc has it in clock ticks, and a process that has the same pid
            but not the same tick is another one. 0 if unknown: then nothing tells whether
            this is still the process that made the call, and each look costs a read, to see
            whether it is another one than last time.
        :param cgroup_id: in which the call was made; 0 if unknown.
        :param exec_id: changes when the process executes another program, and with it
            what it is; 0 if unknown.
        :param parent: pid and start, ns, of its parent when it made the call: from there the
            ancestors are found also when it has ended.
        """
        key = pid, start_ns, exec_id
        known = self._known.get(key)
        if known is None or (not start_ns and self._is_another(pid, known)):
            known = self._look(pid, start_ns, cgroup_id)
            if parent and not known.surroundings.ancestors:
                known = self._with_ancestors(known, *parent)
            self._known[key] = known
        if known.cgroup_id != cgroup_id:
            return self._moved(known.surroundings, cgroup_id)
        return known.surroundings

    # --- What is kept --------------------------------------------------------------------

    def _is_another(self, pid: int, known: _Known) -> bool:
        fd = _attempt(self._open, pid)
        if isinstance(fd, Missing):
            return False
        try:
            stat = _attempt(_stat, fd)
        finally:
            os.close(fd)
        return isinstance(stat, _Stat) and stat.start_ticks != known.start_ticks

    def _moved(self, old: Surroundings, cgroup_id: int) -> Surroundings:
        """The same process in another cgroup, or another of its threads."""
        if not cgroup_id or self._cgroups is None or not self._cgroups.mounted:
            return old  # ids mean nothing to us: it is as /proc had it
        missing = {what: why for what, why in old.missing.items() if what != "cgroup"}
        cgroup = self._cgroups.path(cgroup_id)
        if cgroup is None:
            missing["cgroup"] = Missing.CGROUP_GONE
            return old._replace(cgroup=None, container=None, missing=missing)
        container = container_of(cgroup)
        if container is None and self._has_v1:  # it may have been a name of v1
            container = old.container
        return old._replace(cgroup=cgroup, container=container, missing=missing)

    # --- Looking -------------------------------------------------------------------------

    def _look(self, pid: int, start_ns: int, cgroup_id: int) -> _Known:
        fd = _attempt(self._open, pid)
        if isinstance(fd, Missing):
            return self._nothing(fd, cgroup_id)
        try:
            return self._look_into(fd, pid, start_ns, cgroup_id)
        finally:
            os.close(fd)

    def _look_into(self, fd: int, pid: int, start_ns: int, cgroup_id: int) -> _Known:
        before = _attempt(_stat, fd)
        if isinstance(before, Missing):
            return self._nothing(before, cgroup_id)
        if start_ns and before.start_ticks != self._ticks(start_ns):
            return self._nothing(Missing.REPLACED, cgroup_id)
        task = _living_thread(fd, pid) if before.dead else ""
        arguments = _attempt(_arguments, fd, task)
        cwd = _attempt(_link, fd, task + "cwd")
        ancestors, ancestors_missing = self._ancestors(fd, before)
        hierarchies = _attempt(_read, fd, task + "cgroup", _CGROUP_BYTES)
        after = _attempt(_stat, fd)
        if isinstance(after, _Stat) and after.start_ticks != before.start_ticks:
            return self._nothing(Missing.REPLACED, cgroup_id)
        dead = isinstance(after, Missing) or (after.dead and not task)

        missing: dict[str, Missing] = {}
        if not isinstance(arguments, Missing) and not arguments[0]:
            # Nothing is what a process without memory has. One may also empty its argv.
            if before.flags & _PF_KTHREAD:
                arguments = Missing.KERNEL_THREAD
            elif dead:
                arguments = Missing.GONE
        if isinstance(arguments, Missing):
            missing["args"] = arguments
        if isinstance(cwd, Missing):
            missing["working_directory"] = cwd
        if ancestors_missing is not None and not ancestors:
            missing["ancestors"] = ancestors_missing
        if hierarchies is Missing.GONE and not dead:
            hierarchies = Missing.NO_CGROUP
        cgroup, container = self._cgroup(cgroup_id, hierarchies, missing, dead=dead)
        args, args_cut = (None, False) if isinstance(arguments, Missing) else arguments
        found = Surroundings(
            args,
            args_cut,
            _value(cwd),
            ancestors,
            ancestors_missing is not None and bool(ancestors),
            cgroup,
            container,
            missing,
        )
        return _Known(cgroup_id, before.start_ticks, found)

    def _nothing(self, reason: Missing, cgroup_id: int) -> _Known:
        """Nothing but the cgroup, which can be known without a process."""
        missing = {"args": reason, "working_directory": reason, "ancestors": reason}
        cgroup, container = self._cgroup(cgroup_id, reason, missing, dead=True)
        found = Surroundings(None, False, None, (), False, cgroup, container, missing)
        return _Known(cgroup_id, 0, found)

    def _ticks(self, start_ns: int) -> int:
        """As the kernel divides it; /proc is in the time namespace of who reads it."""
        return (start_ns + self._boottime_offset_ns) * self._ticks_per_s // _NS_PER_S

    def _open(self, pid: int) -> int:
        return os.open(f"{self._root}/{pid}", os.O_RDONLY | os.O_DIRECTORY)

    def _ancestors(self, fd: int, stat: _Stat) -> tuple[tuple[Ancestor, ...], Missing | None]:
        """The ancestors as far as they are known, and why not further."""
        found: list[Ancestor] = []
        with ExitStack() as opened:
            while stat.parent > 0:
                if len(found) >= ANCESTORS:
                    return tuple(found), Missing.TOO_LONG
                pid = stat.parent
                parent = _attempt(self._parent, fd, pid, opened)
                if isinstance(parent, Missing):
                    return tuple(found), parent
                fd, stat = parent
                executable = _value(_attempt(_link, fd, "exe"))
                found.append(Ancestor(pid, stat.name, executable, stat.start_ticks))
        return tuple(found), None

    def _with_ancestors(self, known: _Known, pid: int, start_ns: int) -> _Known:
        """The same, with those of a process of which the parent is known."""
        fd = _attempt(self._open, pid)
        if isinstance(fd, Missing):
            return known
        try:
            stat = _attempt(_stat, fd)
            if isinstance(stat, Missing) or stat.start_ticks != self._ticks(start_ns):
                return known
            first = Ancestor(pid, stat.name, _value(_attempt(_link, fd, "exe")), stat.start_ticks)
            further, missing = self._ancestors(fd, stat)
        finally:
            os.close(fd)
        old = known.surroundings
        found = old._replace(
            ancestors=(first, *further[: ANCESTORS - 1]),
            ancestors_cut=missing is not None,
            missing={what: why for what, why in old.missing.items() if what != "ancestors"},
        )
        return known._replace(surroundings=found)

    def _parent(self, fd: int, pid: int, opened: ExitStack) -> tuple[int, _Stat]:
        """A parent's directory and stat.

        :raises ProcessLookupError: it is not the parent any more.
        """
        parent_fd = self._open(pid)
        opened.callback(os.close, parent_fd)
        stat = _stat(parent_fd)
        # A child whose parent ends gets another one at once. So if it still has this one,
        # the directory that was opened meanwhile was its parent's, not that of a later
        # process with the same id.
        if _stat(fd).parent != pid:
            raise ProcessLookupError(errno.ESRCH, "the parent has ended")
        return parent_fd, stat

    def _cgroup(
        self,
        cgroup_id: int,
        hierarchies: bytes | Missing,
        missing: dict[str, Missing],
        *,
        dead: bool,
    ) -> tuple[bytes | None, Container | None]:
        """The cgroup and its container; puts the reason into missing if there is none.

        :param hierarchies: /proc/PID/cgroup.
        """
        unified, others = _parse_hierarchies(_value(hierarchies) or b"", dead=dead)
        if self._cgroups is not None and (path := self._cgroups.path(cgroup_id)) is not None:
            unified = path  # what it was at the call, not what it is now
        paths = others if unified is None else [unified, *others]
        if not paths:
            if not hierarchies:
                hierarchies = Missing.NO_CGROUP
            missing["cgroup"] = (
                hierarchies if isinstance(hierarchies, Missing) else Missing.NONSENSE
            )
            return None, None
        # Where both versions are in use, a container may have a name in v1 only.
        for path in paths:
            if container := container_of(path):
                return path if unified is None else unified, container
        if self._has_v1 and isinstance(hierarchies, Missing):
            missing["container"] = hierarchies
        return paths[0], None


def _parse_hierarchies(data: bytes, *, dead: bool) -> tuple[bytes | None, list[bytes]]:
    """The path in cgroup v2, if there is one, and those in v1, the most telling one first.

    Lines are ``number:controllers:path``, cgroups(7). The kernel allows no newline
    in the name of a cgroup.
    """
    unified = None
    others: list[tuple[bytes, bytes]] = []
    for line in data.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if not path.startswith(b"/"):
            continue
        # Only the dead are in cgroups that were removed; with others it is part of a name.
        if dead:
            path = path.removesuffix(_DELETED) or b"/"
        if number == b"0" and not controllers:
            unified = path
        else:
            others.append((controllers, path))
    others.sort(key=lambda each: (each[1] == b"/", each[0] != b"name=systemd", -len(each[1])))
    return unified, [path for _, path in others]


def _attempt(read: Callable[..., _T], *args: object) -> _T | Missing:
    try:
        return read(*args)
    except OSError as error:
        return _REASONS.get(error.errno or 0, Missing.UNREADABLE)
    except ValueError:
        return Missing.NONSENSE


def _value(found: _T | Missing) -> _T | None:
    return None if isinstance(found, Missing) else found


def _read(directory_fd: int, name: str, limit: int) -> bytes:
    """At most limit bytes of a file."""
    fd = os.open(name, os.O_RDONLY, dir_fd=directory_fd)
    try:
        data = b""
        while len(data) < limit and (more := os.read(fd, limit - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def _link(directory_fd: int, name: str) -> bytes:
    return os.fsencode(os.readlink(name, dir_fd=directory_fd))


def _stat(directory_fd: int) -> _Stat:
    return _Stat.parse(_read(directory_fd, "stat", _STAT_BYTES))


def _arguments(directory_fd: int, task: str) -> tuple[tuple[bytes, ...], bool]:
    """argv, and whether it was cut."""
    data = _read(directory_fd, task + "cmdline", ARGS_BYTES + 1)
    if not data:
        return (), False
    cut = len(data) > ARGS_BYTES
    data = data[:ARGS_BYTES] if cut else data.removesuffix(b"\0")
    args = data.split(b"\0", ARGS_COUNT)
    if len(args) > ARGS_COUNT:
        del args[ARGS_COUNT:]
        cut = True
    return tuple(args), cut


def _living_thread(directory_fd: int, pid: int) -> str:
    """``task/TID/`` of a thread that goes on although the first one has ended; or empty.

    The first thread may end before the others. What is asked of the process is asked of
    that thread, which has nothing any more: a cheap way to hide argv.
    """
    try:
        fd = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory_fd)
    except OSError:
        return ""
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in islice(entries, _THREADS)]
    except OSError:
        return ""
    finally:
        os.close(fd)
    for name in names:
        stat = _attempt(_read, directory_fd, f"task/{name}/stat", _STAT_BYTES)
        if name != str(pid) and isinstance(stat, bytes):
            thread = _attempt(_Stat.parse, stat)
            if isinstance(thread, _Stat) and not thread.dead:
                return f"task/{name}/"
    return ""


def _has_v1(root: str) -> bool:
    """Whether cgroups of version 1 are in use, which ids say nothing of."""
    try:
        with open(f"{root}/self/cgroup", "rb") as file:
            return any(
                not line.startswith(b"0::") for line in file.read(_CGROUP_BYTES).splitlines()
            )
    except OSError:
        return False


def _boottime_offset_ns(root: str) -> int:
    """How far ahead of the kernel's our CLOCK_BOOTTIME is: time_namespaces(7)."""
    try:
        with open(f"{root}/self/timens_offsets", "rb") as file:
            for line in file.read(_TIMENS_BYTES).split(b"\n"):
                name, seconds, ns = line.split()
                if name == b"boottime":
                    return int(seconds) * _NS_PER_S + int(ns)
    except (OSError, ValueError):
        pass  # a kernel without time namespaces
    return 0
