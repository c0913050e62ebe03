# SPDX-License-Identifier: Apache-2.0
"""What tracing needs of a host, and whether it is there: a table of checks, each by itself."""

import errno
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ..events.errors import BpfsnoopError, CannotStart
from ..events.process_document import capabilities
from . import compiler, facts, own, privilege, rights
from .cgroup import mounts
from .facts import REGISTERS, Facts
from .hooks import PARANOID_MAINLINE
from .own import MapSpec
from .private import private_directory
from .tracefs import Tracefs
from .witness import Witness, online_cpus


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Tracing works, but shows less, or one way to it is closed."""
    BAD = "bad"
    """Tracing does not work."""


class Verdict(NamedTuple):
    """What came of looking at one thing."""

    status: Status
    found: str
    """In a few words."""
    cure: str = ""
    """What to do about it, in the imperative; empty if it is well or nobody knows."""


def ok(found: str) -> Verdict:
    return Verdict(Status.OK, found)


def warning(found: str, cure: str = "") -> Verdict:
    return Verdict(Status.WARNING, found, cure)


def bad(found: str, cure: str) -> Verdict:
    return Verdict(Status.BAD, found, cure)


@dataclass(frozen=True)
class Host:
    """What is looked at, and what is known of it already."""

    works: bool
    """Whether anything at all can trace here."""
    cache: str
    """The directory of compiled code."""
    ring_size: int
    """Bytes of each ring."""
    known: Callable[[], Facts] = facts.gather
    """What the kernel's BTF says."""
    root: Path = Path("/")
    """Where proc and sys are."""
    release: str = os.uname().release
    machine: str = os.uname().machine
    euid: int = os.geteuid()

    def text(self, path: str) -> str:
        """:raises OSError: there is no such file, or it is closed to us."""
        return (self.root / path).read_text(encoding="utf-8", errors="surrogateescape").strip()

    def has(self, path: str) -> bool:
        return (self.root / path).exists()

    @property
    def version(self) -> tuple[int, int]:
        """The kernel's, as in (5, 15); (0, 0) if its release does not say."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def capable(self, bit: int) -> bool:
        """:raises OSError: /proc is not mounted."""
        return bool(rights.effective_capabilities(str(self.root / _STATUS)) >> bit & 1)

    def mount(self, fstype: str) -> str:
        """Where a file system of this type is mounted and not covered; empty if nowhere.

        :raises OSError: /proc is not mounted.
        """
        mountinfo = (self.root / "proc/self/mountinfo").read_bytes()
        for mount in mounts(mountinfo, fstype.encode()):
            with suppress(OSError):
                point = os.fsdecode(mount.point)
                if os.stat(self.root / point.lstrip("/")).st_dev == mount.device:
                    return point
        return ""

    def lacks(self, found: str, cure: str) -> Verdict:
        """Something that tracing can do without if other things are there."""
        return Verdict(Status.WARNING if self.works else Status.BAD, found, cure)


Check = Callable[[Host], Verdict]

_STATUS: Final = "proc/self/status"
_SECURITY: Final = "sys/kernel/security"
_DAC_READ_SEARCH, _SYS_PTRACE, _SYS_ADMIN, _PERFMON, _BPF = 2, 19, 21, 38, 39
_RINGBUF: Final = 27  # BPF_MAP_TYPE_RINGBUF
_RINGS: Final = 4
_BCC: Final = re.compile(r"^class BPF\b", re.MULTILINE)
_VERSION: Final = re.compile(r"__version__\s*=\s*['\"]([^'\"]+)")
_UNLOCKED: Final = 5, 11  # from here on, BPF memory is not counted as locked

SINCE: Final = (
    ((5, 8), "ring buffers, which tracing needs"),
    ((5, 11), "objects behind descriptors, keys and values, and who calls"),
    ((5, 15), "32-bit calls, and what the kernel itself has"),
)
"""What older kernels lack, unless their distribution has brought it there."""

_SUDO: Final = "run it with sudo"
_ADD_BOTH: Final = "add CAP_BPF and CAP_PERFMON, in a container with --cap-add"
_HOST_PIDS: Final = "run it in the host's (docker: --pid=host, Kubernetes: hostPID: true)"
_NEW_KERNEL: Final = "boot Linux {}.{} or newer with CONFIG_DEBUG_INFO_BTF".format(*SINCE[-1][0])
_UNLOCK: Final = "boot without lockdown=confidentiality"
_LESS_PARANOID: Final = f"lower it with 'sysctl kernel.perf_event_paranoid={PARANOID_MAINLINE}'"
_REMOVE_BCC: Final = f"remove it (pip uninstall bcc), then {compiler.INSTALL_BCC}"

CURES: Final = (
    ("tracing needs root", _SUDO),
    ("root is not enough here", _ADD_BOTH),
    ("a pid namespace of its own", _HOST_PIDS),
    ("/proc is not mounted", "mount it with 'mount -t proc proc /proc'"),
    ("this kernel has no bpf(2)",
     "boot a kernel with CONFIG_BPF_SYSCALL, or lift the seccomp filter"),
    (*privilege.NOT_PERMITTED.split(": ", 1),),
    ("Python module of BCC is missing", compiler.INSTALL_BCC),
    ("that is installed is PyPI's", _REMOVE_BCC),
    ("this kernel has no kprobes", "boot a kernel with CONFIG_KPROBE_EVENTS"),
    ("is not run", "switch on what is off: kprobes in /sys/kernel/debug/kprobes/enabled, for lsm"
     " add bpf to lsm= of the kernel's command line"),
    ("kernel's BTF", _NEW_KERNEL),
    ("leave to read kernel memory", _UNLOCK),
    ("tracefs is not mounted",
     "mount it with 'mount -t tracefs tracefs /sys/kernel/tracing'"),
    ("tracefs is closed to this user", "run it as root"),
    ("this kernel shows no tracepoint",
     "boot a kernel with CONFIG_FTRACE_SYSCALLS, without lockdown=confidentiality"),
    ("perf events of all processes are not permitted", "give it CAP_PERFMON, or run it as root"),
    ("kernel.perf_event_paranoid is", _LESS_PARANOID),
    ("two descriptors a CPU are needed", "raise the limit with 'ulimit -n'"),
    ("writes no PERF_RECORD_BPF_EVENT", "boot Linux 5.0 or newer"),
    ("this kernel has no perf_event_open(2)",
     "boot a kernel with CONFIG_PERF_EVENTS, or lift the seccomp filter"),
)  # fmt: skip
"""What helps, by words of the sentence that says what is wrong; the first one counts."""


def refusal(error: Exception) -> tuple[str, str]:
    """:returns: what is wrong, and what helps, empty if nobody knows."""
    sentence = reason(error)
    cure = next((cure for words, cure in CURES if words in sentence), "")
    # The sentence may end in the cure, to be read alone.
    head, _, _ = sentence.partition(f": {cure}" if cure else "\n")
    return head, cure


def reason(error: Exception) -> str:
    """Why something failed, as a person would say it."""
    if isinstance(error, BpfsnoopError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return f"{type(error).__name__}: {error}"


def looked_at(check: Callable[[], Verdict]) -> Verdict:
    """What comes of a check, also if it fails: then nobody can tell."""
    try:
        return check()
    except Exception as error:
        return warning(f"cannot tell: {reason(error)}")


# --- The kernel --------------------------------------------------------------------------


def _kernel(host: Host) -> Verdict:
    found = f"Linux {host.release} on {host.machine}"
    for version, what in SINCE:
        if host.version < version:
            wanted = ".".join(map(str, version))
            return warning(f"{found}, older than {wanted}: may lack {what}", _NEW_KERNEL)
    if host.machine not in REGISTERS:
        known = " and ".join(sorted(REGISTERS))
        return warning(f"{found}: 32-bit calls and BPF_COMMON_ATTRS are only known on {known}")
    return ok(found)


def _btf(host: Host) -> Verdict:
    known = host.known()
    if known.problem:
        return host.lacks(f"none ({known.problem})", "boot a kernel with CONFIG_DEBUG_INFO_BTF")
    parts = {
        "who calls": known.has_task,
        "paths of executables": known.has_paths,
        "owners and mounts of executables": known.has_exe,
        "user namespaces": known.has_user_namespace,
        "objects behind descriptors": known.has_objects,
        "instructions as the kernel has them": known.has_insns,
        "registers of calls": known.has_registers,
    }
    missing = [part for part, there in parts.items() if not there]
    if missing:
        return warning(f"does not tell: {', '.join(missing)}", _NEW_KERNEL)
    return ok("has all that is asked for")


def _bcc(host: Host) -> Verdict:
    spec = importlib.util.find_spec("bcc")
    if spec is None or not spec.origin:
        found = f"missing{compiler.hidden_by_venv()}"
        if host.works:
            found = f"{found}; what is kept in {host.cache} will do for this kernel"
        return host.lacks(found, compiler.INSTALL_BCC)
    path = Path(spec.origin)
    # Not imported: it would stay, and the impostor's code would run.
    if not _BCC.search(path.read_text(encoding="utf-8", errors="replace")):
        found = f"{path} is PyPI's, which has nothing to do with BPF"
        return host.lacks(found, _REMOVE_BCC)
    version = _VERSION.search(path.with_name("version.py").read_text(encoding="utf-8"))
    return ok(f"{version[1] if version else 'of unknown version'}; no clang is needed beside it")


# --- What is permitted -------------------------------------------------------------------


def _capabilities(host: Host) -> Verdict:
    if not host.capable(_SYS_ADMIN) and not (host.capable(_BPF) and host.capable(_PERFMON)):
        found = "neither CAP_SYS_ADMIN nor CAP_BPF and CAP_PERFMON"
        return bad(found, _more_rights(host))
    useful = {
        _DAC_READ_SEARCH: "paths of cgroups",
        _SYS_PTRACE: "directories and executables of others' processes",
        _SYS_ADMIN: "types of keys and values",
    }
    missing = {bit: what for bit, what in useful.items() if not host.capable(bit)}
    if missing:
        names = " and ".join(capabilities(sum(1 << bit for bit in missing)))
        return warning(f"without {names}, not known are {', '.join(missing.values())}",
                       f"add {names}")  # fmt: skip
    return ok("CAP_SYS_ADMIN and all that is of use")


def _more_rights(host: Host) -> str:
    return _SUDO if host.euid else _ADD_BOTH


def _pid_namespace(host: Host) -> Verdict:
    found = os.readlink(host.root / "proc/self/ns/pid")
    if found == privilege.INIT_PID_NAMESPACE:
        return ok("the host's")
    return bad(f"{found}, where process ids are not the kernel's", _HOST_PIDS)


def _bpf(_: Host) -> Verdict:
    try:
        privilege.require_bpf()
    except CannotStart as error:
        return bad(*refusal(error))
    return ok("takes calls of ours")


def _lockdown(host: Host) -> Verdict:
    if not host.has(f"{_SECURITY}/lockdown"):
        return _not_told(host, "no lockdown here")
    found = re.search(r"\[(\w+)\]", host.text(f"{_SECURITY}/lockdown"))
    level = found[1] if found else "unknown"
    if level == "confidentiality":
        return warning(f"{level}: the kernel's memory may be hidden, and its tracefs", _UNLOCK)
    return ok(level)


def _lsm(host: Host) -> Verdict:
    if not host.has(f"{_SECURITY}/lsm"):
        return _not_told(host, "no list of security modules here")
    modules = host.text(f"{_SECURITY}/lsm")
    without = "" if "bpf" in modules.split(",") else "; without bpf, '--probe lsm' is not run"
    return ok(f"{modules or 'none'}{without}")


def _not_told(host: Host, absent: str) -> Verdict:
    if "securityfs" in host.text("proc/filesystems").split() and not host.mount("securityfs"):
        return warning("cannot tell: securityfs is not mounted", _mount_of("securityfs"))
    return ok(absent)


def _paranoid(host: Host) -> Verdict:
    level = host.text("proc/sys/kernel/perf_event_paranoid")
    if int(level) > PARANOID_MAINLINE and not host.capable(_SYS_ADMIN):
        return warning(f"{level}, which wants CAP_SYS_ADMIN", _LESS_PARANOID)
    return ok(level)


def _unprivileged(host: Host) -> Verdict:
    meaning = {
        "0": "others may load some programs too",
        "1": "others may not load programs, until the next boot",
        "2": "others may not load programs",
    }
    level = host.text("proc/sys/kernel/unprivileged_bpf_disabled")
    return ok(f"{level}: {meaning.get(level, 'not known')}")


def _kernel_memory(host: Host) -> Verdict:
    if facts.may_read_kernel_memory():
        return ok("BPF may read it")
    if not host.works:
        return warning("cannot tell: BPF is not permitted")
    return warning("closed to BPF: objects, keys and values, and paths are not shown", _UNLOCK)


def _witness(_: Host) -> Verdict:
    try:
        Witness(online_cpus()).close()
    except CannotStart as error:
        return warning(*refusal(error))
    return ok("tells of programs that come and go")


# --- File systems and memory -------------------------------------------------------------

_POINTS: Final = {
    "tracefs": "/sys/kernel/tracing",
    "securityfs": "/sys/kernel/security",
    "cgroup2": "/sys/fs/cgroup",
    "bpf": "/sys/fs/bpf",
}
"""Where each file system is expected."""


def _mount_of(fstype: str) -> str:
    return f"mount it with 'mount -t {fstype} {fstype} {_POINTS[fstype]}'"


def _tracefs(host: Host) -> Verdict:
    try:
        with Tracefs() as found:
            found.event_id("syscalls", "sys_enter_bpf")
    except CannotStart as error:
        return host.lacks(*refusal(error))
    point = host.mount("tracefs")
    return ok(f"at {point}" if point else "not mounted; bpfsnoop mounts it for itself")


def _securityfs(host: Host) -> Verdict:
    if point := host.mount("securityfs"):
        return ok(f"at {point}")
    if "securityfs" not in host.text("proc/filesystems").split():
        return ok("this kernel has none")
    return warning("not mounted", _mount_of("securityfs"))


def _cgroup2(host: Host) -> Verdict:
    if point := host.mount("cgroup2"):
        return ok(f"at {point}")
    return warning("not mounted: --cgroup is refused, paths of cgroups come from /proc",
                   _mount_of("cgroup2"))  # fmt: skip


def _bpffs(host: Host) -> Verdict:
    point = host.mount("bpf")
    return ok(f"at {point}" if point else "not mounted, and not needed")


def _rings(host: Host) -> Verdict:
    size = f"{_RINGS} of {host.ring_size >> 10} KiB"
    try:
        with ExitStack() as stack:
            for number in range(_RINGS):
                ring = own.create_map(MapSpec(_RINGBUF, 0, 0, host.ring_size, 0), f"ring{number}")
                stack.callback(os.close, ring)
    except OSError as error:
        return bad(f"{size} cannot be had: {error.strerror}", _cure_of_rings(host, error))
    return ok(f"{size} can be had")


def _cure_of_rings(host: Host, error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return "give a smaller --ring-size"
    if error.errno == errno.EINVAL:
        return "boot Linux 5.8 or newer"
    if host.capable(_SYS_ADMIN) and host.version < _UNLOCKED:
        return "raise the limit of locked memory with 'ulimit -l unlimited'"
    return _more_rights(host)


_ANOTHER_CACHE: Final = "name one with --cache that is yours and writable for nobody else"


def _cache(host: Host) -> Verdict:
    if not host.cache:
        return ok("none: each start compiles")
    if not os.path.lexists(host.cache):
        found = f"{host.cache} is not there and was not made: each start compiles"
        return warning(found, _ANOTHER_CACHE)
    try:
        with private_directory(host.cache):
            pass
    except OSError as error:
        return warning(f"{host.cache} is not used: {error.strerror or error}", _ANOTHER_CACHE)
    if not os.access(host.cache, os.W_OK):
        found = f"{host.cache} cannot be written: changes are compiled at each start"
        return warning(found, _ANOTHER_CACHE)
    return ok(f"{host.cache}, ours alone")


CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("kernel", _kernel),
    ("BTF", _btf),
    ("BCC", _bcc),
    ("capabilities", _capabilities),
    ("pid namespace", _pid_namespace),
    ("bpf(2)", _bpf),
    ("kernel memory", _kernel_memory),
    ("ring buffers", _rings),
    ("perf events", _witness),
    ("perf_event_paranoid", _paranoid),
    ("unprivileged_bpf_disabled", _unprivileged),
    ("tracefs", _tracefs),
    ("cgroup2", _cgroup2),
    ("bpffs", _bpffs),
    ("securityfs", _securityfs),
    ("lockdown", _lockdown),
    ("security modules", _lsm),
    ("cache", _cache),
)
"""By the name that people see."""


def conditions(host: Host) -> Iterator[tuple[str, Verdict]]:
    """Looks at all of it; nothing keeps one check from the next one."""
    for name, check in CHECKS:
        yield name, looked_at(partial(check, host))
