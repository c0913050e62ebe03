# SPDX-License-Identifier: Apache-2.0
"""What documents say of who made a call."""

import re
from functools import lru_cache
from typing import NamedTuple

from .call import Call, Image
from .process import (
    Ancestor,
    Container,
    Missing,
    Process,
    Surroundings,
    arguments,
    exe_authentic,
)
from .value import JSON, printable
from .wire import (
    PROCESS_ARGS_UNREAD,
    PROCESS_EXE_CUT,
    PROCESS_EXE_GONE,
    PROCESS_EXE_PSEUDO,
    PROCESS_KERNEL,
)

Document = dict[str, JSON]

_MEMFD = b"memfd:"
_PERMISSIONS = 0o7777
_BOOT_ID = re.compile(r"[0-9a-f]{32}")

# linux/capability.h, in its order
_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())
ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1
_BPF_CAPABLE = 1 << CAPABILITIES.index("CAP_BPF") | 1 << CAPABILITIES.index("CAP_SYS_ADMIN")
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO, linux/proc_ns.h
NOBODY = 0xFFFFFFFF
"""The login uid of what no login began (``AUDIT_UID_UNSET``)."""


class ProcessFacts(NamedTuple):
    """The parts of a document that are the same for all calls of a process."""

    process: Document
    """For ``process``."""
    bpf_process: Document
    """For ``bpf.process``."""
    container: Document
    """``container`` and ``orchestrator``, or nothing."""


@lru_cache(maxsize=256)
def capabilities(bits: int) -> list[str]:
    """The names of a set of capabilities; those nobody can name as ``CAP_41``."""
    return [
        CAPABILITIES[bit] if bit < len(CAPABILITIES) else f"CAP_{bit}"
        for bit in range(bits.bit_length())
        if bits >> bit & 1
    ]


def bpf_capable(call: Call) -> bool | None:
    """What the kernel's ``bpf_capable()`` says of who made the call; None if nobody knows.

    Capabilities of other user namespaces than the initial one do not count, whoever has them; but
    a call that brings a token of such a namespace (BPF_TOKEN_CREATE) may be granted all the same.
    """
    if not call.capabilities & _BPF_CAPABLE:
        return False
    return call.user_namespace == _INITIAL_USER_NAMESPACE if call.user_namespace else None


@lru_cache(maxsize=256)
def entity_id(boot_id: str, pid: int, start_ns: int) -> str:
    """``process.entity_id``: the same for all events of a process, and of no other one.

    The boot of a host has a random number of 122 bits; a pid and the time of its start, ns
    since the boot, say which process.

    :param boot_id: as ``/proc/sys/kernel/random/boot_id`` has it.
    :returns: empty if that is no such number.
    """
    boot = boot_id.replace("-", "")
    return f"{boot}-{pid:x}-{start_ns:x}" if _BOOT_ID.fullmatch(boot) else ""


@lru_cache(maxsize=128)  # one may take some hundred KB
def facts(process: Process, boot_id: str, host: int) -> ProcessFacts:
    """What a process is, for its documents.

    :param host: the mount namespace of the host; 0 if not known.
    """
    about: Document = {}
    extra: Document = {}
    absent: dict[str, str] = {}
    if not process.start_ns:
        absent["entity_id"] = absent["start"] = process.untold.value
    elif entity := entity_id(boot_id, process.pid, process.start_ns):
        about["entity_id"] = entity
    else:
        absent["entity_id"] = Missing.NO_BOOT_ID.value
    image = process.image
    if image:
        _executable(image, about, extra, absent)
        about["parent"] = _parent(image, process.surroundings, boot_id)
        if not image.parent_comm:
            absent["parent_name"] = Missing.UNREADABLE.value
    else:
        absent["executable"] = absent["parent"] = process.untold.value
    authentic = exe_authentic(process, host)
    if isinstance(authentic, Missing):
        absent["exe_authentic"] = authentic.value
    else:
        extra["exe_authentic"] = authentic
    _arguments(process, about, extra, absent)
    container = _surroundings(process.surroundings, about, extra, absent)
    if absent:
        extra["absent"] = absent
    return ProcessFacts(about, extra, container)


def _executable(image: Image, about: Document, extra: Document, absent: dict[str, str]) -> None:
    flags = image.flags
    if flags & PROCESS_KERNEL:
        absent["executable"] = Missing.KERNEL_THREAD.value
        return
    if not image.exe:
        absent["executable"] = Missing.UNREADABLE.value
        return
    about["executable"] = printable(image.exe)
    if flags & PROCESS_EXE_CUT:
        extra["exe_cut"] = True
    extra["exe_deleted"] = bool(flags & PROCESS_EXE_GONE)
    extra["exe_memfd"] = _is_memfd(image)
    if image.exe_mode:
        extra["exe_uid"] = str(image.exe_uid)
        extra["exe_mode"] = f"{image.exe_mode & _PERMISSIONS:04o}"


def _is_memfd(image: Image) -> bool:
    """Whether it runs from a file that memfd_create(2) made."""
    return bool(image.flags & PROCESS_EXE_PSEUDO) and image.exe.startswith(_MEMFD)


def _parent(image: Image, surroundings: Surroundings | None, boot_id: str) -> Document:
    parent: Document = {"pid": image.parent_tgid}
    if image.parent_comm:
        parent["name"] = printable(image.parent_comm)
    entity = entity_id(boot_id, image.parent_tgid, image.parent_start_ns)
    if image.parent_start_ns and entity:
        parent["entity_id"] = entity
    first = surroundings.ancestors[0] if surroundings and surroundings.ancestors else None
    if first and first.pid == image.parent_tgid and first.executable is not None:
        parent["executable"] = printable(first.executable)
    return parent


def _arguments(process: Process, about: Document, extra: Document, absent: dict[str, str]) -> None:
    args, cut = arguments(process)
    if not args:
        absent["args"] = _why_no_arguments(process).value
        return
    about["args"] = [printable(arg) for arg in args]
    if len(args) > 1 or not cut:
        extra["argv0"] = about["args"][0]
    if cut:
        extra["args_cut"] = True


def _why_no_arguments(process: Process) -> Missing:
    image = process.image
    if image and image.flags & PROCESS_KERNEL:
        return Missing.KERNEL_THREAD
    if image and image.flags & PROCESS_ARGS_UNREAD:
        return Missing.UNREADABLE
    surroundings = process.surroundings
    if surroundings and "args" in surroundings.missing:
        return surroundings.missing["args"]
    looked = surroundings is not None and surroundings.args is not None
    return Missing.EMPTY if image or looked else process.untold


def _surroundings(
    surroundings: Surroundings | None, about: Document, extra: Document, absent: dict[str, str]
) -> Document:
    if surroundings is None:
        for what in ("working_directory", "ancestors", "cgroup"):
            absent[what] = Missing.NOT_TOLD.value
        return {}
    missing = surroundings.missing
    if surroundings.cwd is not None:
        about["working_directory"] = printable(surroundings.cwd)
    else:
        absent["working_directory"] = missing.get("working_directory", Missing.NOT_TOLD).value
    if surroundings.ancestors:
        about["ancestors"] = [_ancestor(ancestor) for ancestor in surroundings.ancestors]
        if surroundings.ancestors_cut:
            extra["ancestors_cut"] = True
    else:
        absent["ancestors"] = missing.get("ancestors", Missing.EMPTY).value
    _cgroup(surroundings, extra, absent)
    return _container(surroundings.container) if surroundings.container else {}


def _cgroup(surroundings: Surroundings, extra: Document, absent: dict[str, str]) -> None:
    missing = surroundings.missing
    if surroundings.cgroup is None:
        absent["cgroup"] = missing.get("cgroup", Missing.NOT_TOLD).value
        return
    extra["cgroup"] = printable(surroundings.cgroup)
    if surroundings.container is None and "container" in missing:
        absent["in_container"] = missing["container"].value
    else:
        extra["in_container"] = surroundings.container is not None


def _container(container: Container) -> Document:
    document: Document = {"container": {"id": container.id}}
    if container.runtime:
        document["container"]["runtime"] = container.runtime
    if container.pod_uid:
        document["orchestrator"] = {
            "type": "kubernetes",
            "resource": {"type": "pod", "id": container.pod_uid},
        }
    return document


def _ancestor(ancestor: Ancestor) -> Document:
    document: Document = {"pid": ancestor.pid, "name": printable(ancestor.name)}
    if ancestor.executable is not None:
        document["executable"] = printable(ancestor.executable)
    return document
