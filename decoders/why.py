# SPDX-License-Identifier: Apache-2.0
"""Why a call failed, as far as the kernel tells: what the errno means for this command, what
the verifier said last, which capability is missing.

Where several things have the same errno, the likely ones are named. The errnos are those of
kernel/bpf/ as of Linux 7.2.
"""

import re
from collections.abc import Mapping
from errno import (
    E2BIG,
    EACCES,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTDIR,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)
from typing import Final

from ..events.call import Call
from ..events.value import Items, printable
from . import uapi

ENOTSUPP: Final = 524
"""The kernel's own, which has no name for user space (include/linux/errno.h)."""
_LONGEST: Final = 240
"""Characters of what the verifier said."""

_Meanings = Mapping[int, str]

_ANY: Final[_Meanings] = {
    ENOMEM: "no memory, or the limit of the memory cgroup is reached",
    E2BIG: "attr is larger than this kernel knows, and what it does not know is not zero",
}
"""Of any command. What strerror(3) says as well is left to it."""

_READ: Final[_Meanings] = {
    ENOENT: "the map has no such key",
    EPERM: "the map may not be read by this descriptor (BPF_F_WRONLY)",
    ENOTSUPP: "maps of this type cannot be read from user space",
    EOPNOTSUPP: "maps of this type cannot be read from user space",
}
_BATCH: Final[_Meanings] = {
    ENOENT: "that was the end of the map",
    ENOSPC: "a bucket of the map has more elements than there is room for",
    ENOTSUPP: "maps of this type have no batches",
    EOPNOTSUPP: "maps of this type have no batches",
}
_NO_MORE: Final[_Meanings] = {ENOENT: "there is none with a higher id"}
_BY_ID: Final[_Meanings] = {ENOENT: "there is none with this id, or no longer"}
_ATTACH: Final[_Meanings] = {
    EPERM: "another program is attached there that does not let more be (BPF_F_ALLOW_MULTI)",
    EEXIST: "this program is attached there",
    EBUSY: "another program is attached there",
    ESRCH: "there is no such function or type in the kernel's BTF",
    ENOENT: "there is no such function, tracepoint or program to be placed beside",
    EINVAL: "the program's type and the attach type do not fit, or flags that it does not know",
}

_OF: Final[Mapping[str, _Meanings]] = {
    "BPF_MAP_CREATE": {
        EINVAL: "sizes, flags or a type of map that this kernel does not take",
        E2BIG: "keys, values or entries are more than a map of this type may have",
        ENOMEM: "no memory: the limit of the memory cgroup, or RLIMIT_MEMLOCK before Linux 5.11",
    },
    "BPF_MAP_LOOKUP_ELEM": _READ,
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": _READ,
    "BPF_MAP_UPDATE_ELEM": {
        EEXIST: "the map has this key (BPF_NOEXIST)",
        ENOENT: "the map does not have this key (BPF_EXIST)",
        E2BIG: "the map is full, or has no element of this index",
        EPERM: "the map is frozen, or may not be written by this descriptor (BPF_F_RDONLY)",
        EBUSY: "the element is in use, or other elements of its bucket are",
    },
    "BPF_MAP_DELETE_ELEM": {
        ENOENT: "the map has no such key",
        EINVAL: "elements of an array cannot be deleted",
        EPERM: "the map is frozen, or may not be written by this descriptor (BPF_F_RDONLY)",
    },
    "BPF_MAP_GET_NEXT_KEY": {ENOENT: "that was the last key", EPERM: _READ[EPERM]},
    "BPF_MAP_FREEZE": {
        EBUSY: "the map is frozen, mapped writable, or just being written to",
        ENOTSUPP: "maps of this type cannot be frozen",
    },
    "BPF_MAP_LOOKUP_BATCH": _BATCH,
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": _BATCH,
    "BPF_MAP_UPDATE_BATCH": _BATCH,
    "BPF_MAP_DELETE_BATCH": _BATCH,
    "BPF_PROG_LOAD": {
        EACCES: "the verifier refused the program",
        EINVAL: "the verifier refused the program, or its type, flags or BTF are not as wanted",
        E2BIG: "too many instructions: in the program, or to be looked at by the verifier",
        ENOSPC: "the log of the verifier had no room in log_buf",
        ESRCH: "there is no such function or type to attach to in the kernel's BTF",
        ENOENT: "what is to be attached to is not there",
        ENOTSUPP: "this kernel, or its JIT, lacks what the program uses",
    },
    "BPF_OBJ_PIN": {
        EEXIST: "there is something by this name",
        EPERM: "the directory is not in a bpf file system",
        ENOENT: "there is no such directory",
        EACCES: "the directory may not be written to",
    },
    "BPF_OBJ_GET": {
        ENOENT: "nothing is pinned there",
        EACCES: "what is there is no pinned object, or its mode does not let you",
        ENOTDIR: "part of the path is no directory",
    },
    "BPF_PROG_ATTACH": _ATTACH,
    "BPF_LINK_CREATE": _ATTACH,
    "BPF_LINK_UPDATE": {
        EPERM: "the program that is to be replaced is another one (BPF_F_REPLACE)",
        ENOENT: "the link has been detached",
    },
    "BPF_LINK_DETACH": {EOPNOTSUPP: "links of this type go only with their last descriptor"},
    "BPF_PROG_DETACH": {ENOENT: "it is not attached there"},
    "BPF_PROG_TEST_RUN": {
        ENOTSUPP: "programs of this type cannot be run like this",
        ENOSPC: "the result is larger than data_size_out",
    },
    "BPF_PROG_QUERY": {ENOSPC: "there are more programs than prog_cnt"},
    "BPF_RAW_TRACEPOINT_OPEN": {
        ENOENT: "there is no such tracepoint",
        EINVAL: "the program is of another type, or has no name of a tracepoint",
    },
    "BPF_TASK_FD_QUERY": {
        ENOENT: "there is no such process",
        EBADF: "the process has no such descriptor",
        ENOTSUPP: "the descriptor is no perf event or link that could tell",
    },
    "BPF_BTF_LOAD": {
        EINVAL: "the BTF is not well-formed",
        E2BIG: "the BTF is too large",
    },
    "BPF_PROG_GET_NEXT_ID": _NO_MORE,
    "BPF_MAP_GET_NEXT_ID": _NO_MORE,
    "BPF_BTF_GET_NEXT_ID": _NO_MORE,
    "BPF_LINK_GET_NEXT_ID": _NO_MORE,
    "BPF_PROG_GET_FD_BY_ID": _BY_ID,
    "BPF_MAP_GET_FD_BY_ID": _BY_ID,
    "BPF_BTF_GET_FD_BY_ID": _BY_ID,
    "BPF_LINK_GET_FD_BY_ID": _BY_ID,
    "BPF_TOKEN_CREATE": {
        ENOENT: "the bpf file system delegates nothing",
        EINVAL: "bpffs_fd is not the root of a bpf file system",
        EPERM: "the bpf file system is of another user namespace, or of the initial one",
    },
}

# linux/capability.h
_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 12, 21, 38, 39
_NAMES: Final = {
    _CAP_NET_ADMIN: "CAP_NET_ADMIN", _CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    _CAP_PERFMON: "CAP_PERFMON", _CAP_BPF: "CAP_BPF",
}  # fmt: skip

_WALKS: Final = frozenset({
    "BPF_PROG_GET_NEXT_ID", "BPF_MAP_GET_NEXT_ID", "BPF_BTF_GET_NEXT_ID",
    "BPF_LINK_GET_NEXT_ID", "BPF_PROG_GET_FD_BY_ID", "BPF_MAP_GET_FD_BY_ID",
    "BPF_BTF_GET_FD_BY_ID", "BPF_LINK_GET_FD_BY_ID", "BPF_ENABLE_STATS", "BPF_TASK_FD_QUERY",
})  # fmt: skip
_FREE: Final = "unless kernel.unprivileged_bpf_disabled is 0"
"""Then others may load socket filters and make simple maps, as long as no more is asked."""

_LAST_WORDS: Final = re.compile(
    r"(?:processed \d+ insns|verification time|stack depth|peak_states|mark_read|max_states"
    r"|\(limit \d+\)|from \d+ to \d+|-- BEGIN|-- END)"
)
_INSN: Final = re.compile(r"\d+: (?:\([0-9a-f]{2}\)|R\d+|frame\d+|;|\.)|; ")


def reason(command: str, call: Call, attr: Items | None, log: bytes) -> str:
    """Why a failed call failed: a few words of printable ASCII, or nothing.

    :param command: ``BPF_MAP_CREATE``
    :param attr: its fields; None if they are not known.
    :param log: the end of what the verifier wrote, or nothing.
    """
    number = -call.retval
    if said := last_words(log):
        return said
    if number == EPERM and (missing := _missing(command, call, attr)):
        return missing
    return _OF.get(command, _ANY).get(number) or _ANY.get(number, "")


def last_words(log: bytes) -> str:
    """The line of a verifier's log that says why: the last that is neither an instruction, nor
    a state of registers, nor a count.

    :param log: text up to a NUL; the end of a longer one.
    """
    for line in reversed(log.partition(b"\0")[0].split(b"\n")):
        text = printable(line.strip())
        if text and not _LAST_WORDS.match(text) and not _INSN.match(text):
            return text[:_LONGEST]
    return ""


def _missing(command: str, call: Call, attr: Items | None) -> str:
    # What kernel/bpf/syscall.c asks for, in its order; who has CAP_SYS_ADMIN has all of it.
    if not call.has_task:
        return ""
    if _has(call, _CAP_SYS_ADMIN):
        return "" if command in _OF and EPERM in _OF[command] else (
            "the caller has CAP_SYS_ADMIN: perhaps in another user namespace, or kernel lockdown"
            " or a security module forbids it"
        )  # fmt: skip
    if command in _WALKS:
        return f"needs {_NAMES[_CAP_SYS_ADMIN]}"
    if command not in ("BPF_PROG_LOAD", "BPF_MAP_CREATE", "BPF_BTF_LOAD"):
        return ""
    wanted = [_CAP_BPF]
    if command == "BPF_PROG_LOAD":
        kind = next((item.value for item in attr or () if item.name == "prog_type"), None)
        wanted += [_CAP_NET_ADMIN] * (kind in uapi.NEEDS_NET_ADMIN)
        wanted += [_CAP_PERFMON] * (kind in uapi.NEEDS_PERFMON)
    lacks = [_NAMES[each] for each in wanted if not _has(call, each)]
    if not lacks:
        return ""
    free = f", {_FREE}" if wanted == [_CAP_BPF] and command != "BPF_BTF_LOAD" else ""
    return f"needs {' and '.join(lacks)}{free}"


def _has(call: Call, capability: int) -> bool:
    return bool(call.capabilities >> capability & 1)
