# SPDX-License-Identifier: Apache-2.0
"""What is known of a process beside its call: how it was started, by whom, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .call import Image
from .wire import (
    PROCESS_ARGS_CUT,
    PROCESS_ARGS_UNREAD,
    PROCESS_EXE_CUT,
    PROCESS_EXE_GONE,
    PROCESS_EXE_PSEUDO,
    PROCESS_KERNEL,
)

_PATHLESS = PROCESS_EXE_CUT | PROCESS_EXE_PSEUDO
_OTHERS_WRITE = 0o022  # S_IWGRP, S_IWOTH; the former also if an ACL lets anybody else

_OBJECT_BYTES = 64  # about what Python takes for a bytes object beside its contents


class Missing(Enum):
    """Why something about a process is not known; the value is its spelling in documents."""

    GONE = "process_gone"
    """It ended before we could look."""
    REPLACED = "pid_reused"
    """It ended, and another process has its id now."""
    UNREADABLE = "unreadable"
    """Not permitted, or the kernel could not read it."""
    NONSENSE = "unparsable"
    """What was read is not of the form that the kernel gives it."""
    TOO_LONG = "too_long"
    """A path longer than the 4096 bytes in which the kernel tells paths. Somebody made it so."""
    SUBVOLUMES = "subvolumes"
    """Its file system has the same numbers of inodes in each subvolume."""
    KERNEL_THREAD = "kernel_thread"
    """There is no such thing: it runs in the kernel only."""
    NO_CGROUP = "no_cgroup"
    """The process lives, and the kernel says nothing of its cgroup."""
    CGROUP_GONE = "cgroup_gone"
    """The cgroup in which the call was made has been removed since."""

    NO_BTF = "no_btf"
    """This kernel does not tell how its structs are laid out, or does not let us read them."""
    NO_BOOT_ID = "no_boot_id"
    """The host did not tell the id of this boot."""
    NOT_TOLD = "not_told"
    """The kernel program's record of it was lost, or is not in the recording."""
    EMPTY = "empty"
    """It has none: a program may be executed without arguments, or wipe them out."""


class Ancestor(NamedTuple):
    """The parent of a process, or the parent of that, and so on."""

    pid: int
    name: bytes
    """``comm`` in the kernel: any bytes."""
    executable: bytes | None
    """A path in the mount namespace of the ancestor; None if it has none, or hides it."""
    start_ticks: int
    """When it was started: clock ticks since the boot, field 22 of /proc/PID/stat."""


class Container(NamedTuple):
    """The container that a cgroup belongs to. All are printable ASCII: do not escape them."""

    id: str
    """64 hexadecimal digits, or the name with lxc and systemd-nspawn."""
    runtime: str
    """docker, containerd, cri-o, podman, lxc, systemd-nspawn; empty if the path does not tell."""
    pod_uid: str
    """Of the Kubernetes pod: a UUID with dashes, or the 32 digits of a static pod. Or empty."""


class Surroundings(NamedTuple):
    """A process as /proc and cgroupfs have it, at the time when we looked.

    That is later than its call: it may have changed its directory or executed another
    program since. ``args`` can be overwritten by the process at any time.
    """

    args: tuple[bytes, ...] | None
    """argv, the name of the program first. Some programs overwrite it with a title: that is
    one argument then, with empty ones behind it."""
    args_cut: bool
    """There were more than is kept; the last one may be incomplete."""
    cwd: bytes | None
    """In the mount namespace of the process; with `` (deleted)`` behind if it was removed."""
    ancestors: tuple[Ancestor, ...]
    """The parent first, then its parent, up to process 1."""
    ancestors_cut: bool
    """There were more than is kept, or one of them could not be looked at."""
    cgroup: bytes | None
    """The path from the root of cgroup v2; where there is none, the most telling one of v1."""
    container: Container | None
    """None if the cgroup is not known or not a container's."""
    missing: Mapping[str, Missing]
    """The reason for each of ``args``, ``working_directory``, ``ancestors``, ``cgroup`` and
    ``exe_on_host`` of which nothing is known."""
    exe_on_host: bool | None = None
    """Whether the file that it runs is what the host has at that path. None: there was no need
    to look, or no way."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about: most of it is as long as somebody likes."""
        parts = [*(self.args or ()), self.cwd or b"", self.cgroup or b""]
        for ancestor in self.ancestors:
            parts += ancestor.name, ancestor.executable or b""
        return sum(map(len, parts)) + _OBJECT_BYTES * len(parts)


@dataclass(frozen=True, eq=False)
class Process:
    """Who made a call: one program in one process, from its start or execve(2) to the next."""

    pid: int
    start_ns: int
    """``CLOCK_BOOTTIME``, ns; 0 if not known."""
    image: Image | None
    """As the kernel had it at the first call. None: for the reason in ``untold``."""
    surroundings: Surroundings | None
    """None: nobody looked."""
    untold: Missing = Missing.NOT_TOLD


def arguments(process: Process) -> tuple[list[bytes], bool]:
    """argv, and whether some of it is missing.

    What the kernel program read at the first call counts; /proc, which is read later,
    goes on where that had no room, if it begins the same.
    """
    image = process.image
    found = process.surroundings.args if process.surroundings else None
    found_cut = bool(process.surroundings and process.surroundings.args_cut)
    if image is None or image.flags & PROCESS_KERNEL:
        return list(found or ()), found_cut
    whole = not image.flags & (PROCESS_ARGS_CUT | PROCESS_ARGS_UNREAD)
    if not whole and found is not None and b"\0".join(found).startswith(image.args):
        return list(found), found_cut
    told = image.args.split(b"\0")
    if told[-1] == b"":  # behind the last NUL
        del told[-1]
    return told, not whole


def exe_by_itself(image: Image, host: int) -> bool | Missing | None:
    """What the kernel program told for :func:`exe_authentic`.

    :returns: None if it depends on what the host has at that path.
    """
    if image.flags & PROCESS_KERNEL:
        return Missing.KERNEL_THREAD
    if not image.exe:
        return Missing.UNREADABLE
    if image.flags & _PATHLESS:
        return False
    if not image.exe_mode:
        return Missing.NO_BTF
    return _exe_on_host(image, host) if _only_root_writes(image) else False


def _only_root_writes(image: Image) -> bool:
    return image.exe_uid == 0 and not image.exe_mode & _OTHERS_WRITE


def _exe_on_host(image: Image, host: int) -> bool | Missing | None:
    if not host:
        return Missing.UNREADABLE
    if image.exe_mount_namespace == host:
        return True
    return False if image.flags & PROCESS_EXE_GONE else None


def exe_authentic(process: Process, host: int) -> bool | Missing:
    """Whether the path of the executable means on the host what it says.

    It does if only root can write to the file, and the path leads to it on the host: in other
    mount namespaces anything may be at any path.

    :param host: the mount namespace of the host; 0 if that is not known.
    :returns: or why nobody knows.
    """
    if process.image is None:
        return process.untold
    told = exe_by_itself(process.image, host)
    if told is not None:
        return told
    found = process.surroundings
    if found is None:
        return Missing.NOT_TOLD
    if found.exe_on_host is None:
        return found.missing.get("exe_on_host", Missing.NOT_TOLD)
    return found.exe_on_host
