# SPDX-License-Identifier: Apache-2.0
"""Containers by the paths of their cgroups.

No runtime tells the kernel that something is a container: all that there is are the
names that it gives to cgroups. Anyone who may make cgroups may use the same names, so
this is a help for readers and no proof.
"""

import re
from collections.abc import Sequence
from typing import Final

from ..events.process import Container
from ..events.value import printable

# What comes before the id in the name of a cgroup. The processes that look after a
# container have cgroups of their own, crio-conmon-ID and libpod-conmon-ID: they are not
# in the container.
_RUNTIMES: Final = {
    b"docker": "docker",
    b"cri-containerd": "containerd",
    b"nerdctl": "containerd",
    b"crio": "cri-o",
    b"libpod": "podman",
    b"libpod-payload": "podman",  # podman run --cgroups=split
}
_ID: Final = rb"([0-9a-f]{64})"
_MARK: Final = b"(" + b"|".join(map(re.escape, _RUNTIMES)) + b")"

# As a systemd scope, or with the cgroupfs driver a plain directory.
_MARKED: Final = re.compile(_MARK + b"-" + _ID + rb"(?:\.scope)?")
# SLICE:PREFIX:ID is how systemd's driver of runc is addressed. A runtime that uses the
# other driver takes it for a name.
_ADDRESSED: Final = re.compile(rb".*:" + _MARK + b":" + _ID, re.DOTALL)
_BARE: Final = re.compile(_ID)

_LXC: Final = re.compile(rb"lxc\.payload\.(.+)", re.DOTALL)
_LXC_PARENTS: Final = {b"lxc", b"lxc.payload"}  # before LXC 4.0

# Virtual machines of libvirt are machine-qemu\x2dNUMBER\x2dNAME.scope.
_MACHINE: Final = re.compile(rb"machine-(?!qemu\\x2d[0-9]+\\x2d)(.+)\.scope", re.DOTALL)
_NSPAWN: Final = re.compile(rb"systemd-nspawn@(.+)\.service", re.DOTALL)
_SYSTEMD_ESCAPE: Final = re.compile(rb"\\x([0-9a-fA-F]{2})")

_POD: Final = re.compile(
    rb"(?:^|kubepods-(?:burstable-|besteffort-)?)pod"
    rb"([0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})"
    rb"(?:\.slice(?::.*)?)?\Z",
    re.DOTALL,
)


def container_of(path: bytes | str) -> Container | None:
    """The container that a cgroup, or one above it, belongs to; None if to none.

    Of containers within containers, it is the innermost. A cgroup that is called by 64
    hexadecimal digits, as with Kubernetes and the cgroupfs driver, is a container of which
    the path does not say who runs it: its runtime is empty.

    :param path: from the root of the hierarchy, as in /proc/PID/cgroup. Any bytes have an
        answer, in linear time.
    """
    if isinstance(path, str):
        path = path.encode("utf-8", "backslashreplace")
    names = path.split(b"/")
    for at in range(len(names) - 1, -1, -1):
        found = _container(names, at)
        if found is not None:
            name, runtime = found
            return Container(printable(name), runtime, _pod_uid(names[: at + 1]))
    return None


def _container(names: Sequence[bytes], at: int) -> tuple[bytes, str] | None:
    """The id and the runtime of the container that begins with this very cgroup."""
    name = names[at]
    parent = names[at - 1] if at else b""
    below = names[at + 1] if at + 1 < len(names) else b""
    if match := _MARKED.fullmatch(name) or _ADDRESSED.fullmatch(name):
        return match[2], _RUNTIMES[match[1]]
    if match := _LXC.fullmatch(name):
        return match[1], "lxc"
    if parent in _LXC_PARENTS and name:
        return name, "lxc"
    if _BARE.fullmatch(name):
        return name, "docker" if parent == b"docker" else ""
    # systemd-nspawn itself is in "supervisor", next to the "payload" that it runs. In a
    # service it always is; a scope was made for the payload.
    match = _MACHINE.fullmatch(name) if below != b"supervisor" else None
    if match is None and below == b"payload":
        match = _NSPAWN.fullmatch(name)
    return (_unescape(match[1]), "systemd-nspawn") if match else None


def _pod_uid(names: Sequence[bytes]) -> str:
    """Of the pod that the last of the names is in; systemd's names have _ in place of -."""
    for name in reversed(names):
        if match := _POD.search(name):
            return str(match[1], "ascii").replace("_", "-")
    return ""


def _unescape(name: bytes) -> bytes:
    r"""The name of a machine in that of its unit: ``my\x2dmachine`` is ``my-machine``."""
    return _SYSTEMD_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name)
