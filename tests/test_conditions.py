# SPDX-License-Identifier: Apache-2.0
"""What is said of a host, in directories that look like one."""

import ast
import errno
import importlib.machinery
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import compiler, conditions, facts, libc, own, privilege
from bpfsnoop.tracer.conditions import CHECKS, CURES, Host, Status, Verdict, refusal
from bpfsnoop.tracer.facts import Facts
from running import ROOT
from test_facts import FULL, without

OK, WARNING, BAD = Status.OK, Status.WARNING, Status.BAD
UNKNOWN = Facts({}, {}, 0, frozenset(), {}, {}, "no such file")
ALL_RIGHTS = (1 << 41) - 1
SYS_ADMIN, BPF, PERFMON, PTRACE, SEARCH = 1 << 21, 1 << 39, 1 << 38, 1 << 19, 1 << 2

FILES = {
    "proc/self/status": f"Name:\tx\nCapEff:\t{ALL_RIGHTS:016x}\n",
    "proc/self/mountinfo": "",
    "proc/filesystems": "nodev\tsysfs\nnodev\tsecurityfs\n\text4\n",
    "proc/sys/kernel/perf_event_paranoid": "2\n",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
    "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    "sys/kernel/security/lsm": "capability,landlock,bpf",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where nothing is wrong, but that nothing is mounted."""
    for name, content in FILES.items():
        _write(tmp_path / "root", name, content)
    namespace = tmp_path / "root/proc/self/ns"
    namespace.mkdir()
    (namespace / "pid").symlink_to(privilege.INIT_PID_NAMESPACE)
    return tmp_path / "root"


@pytest.fixture
def host(root: Path, tmp_path: Path) -> Host:
    return Host(
        works=True, cache=str(tmp_path / "cache"), ring_size=1 << 21, known=lambda: FULL,
        root=root, release="6.12.1-generic", machine="x86_64", euid=0,
    )  # fmt: skip


def _write(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)


def _mount(root: Path, fstype: str, point: str, device: int | None = None) -> None:
    (root / point).mkdir(parents=True, exist_ok=True)
    of = os.stat(root / point).st_dev if device is None else device
    with open(root / "proc/self/mountinfo", "a") as file:
        file.write(f"41 31 {os.major(of)}:{os.minor(of)} / /{point} rw shared:9 - {fstype} x rw\n")


def verdict(name: str, host: Host) -> Verdict:
    return conditions.looked_at(lambda: dict(CHECKS)[name](host))


def told(name: str, host: Host) -> tuple[Status, str]:
    """A verdict without its cure."""
    return verdict(name, host)[:2]


# --- The kernel --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "status", "about"),
    [
        ("6.12.1-generic", OK, "Linux 6.12.1-generic on x86_64"),
        ("5.15.0", OK, "Linux 5.15.0 on x86_64"),
        ("5.14.21", WARNING, "older than 5.15: may lack 32-bit calls"),
        ("5.10.1", WARNING, "older than 5.11: may lack objects"),
        ("4.18.0-553.el8", WARNING, "older than 5.8: may lack ring buffers"),
        ("strange", WARNING, "older than 5.8"),
    ],
)
def test_old_kernels_lack_something(host: Host, release: str, status: Status, about: str) -> None:
    found = verdict("kernel", replace(host, release=release))
    assert found.status is status
    assert about in found.found
    assert bool(found.cure) is (status is not OK)


def test_other_machines_are_not_known_in_full(host: Host) -> None:
    status, found = told("kernel", replace(host, machine="riscv64"))
    assert status is WARNING
    assert found.endswith("BPF_COMMON_ATTRS are only known on aarch64 and x86_64")


def test_a_kernel_that_tells_everything(host: Host) -> None:
    assert told("BTF", host) == (OK, "has all that is asked for")


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        (without("bpf_map.id"), "objects behind descriptors"),
        (
            without("dentry.d_parent"),
            "paths of executables, owners and mounts of executables",
        ),
        (without("inode.i_uid"), "owners and mounts of executables"),
        (without("cred.user_ns"), "user namespaces"),
        (without("bpf_prog.len"), "instructions as the kernel has them"),
        (FULL._replace(helpers=frozenset({158})), "registers of calls"),
    ],
)
def test_a_kernel_that_tells_less(host: Host, known: Facts, missing: str) -> None:
    found = told("BTF", replace(host, known=lambda: known))
    assert found == (WARNING, f"does not tell: {missing}")


@pytest.mark.parametrize(("works", "status"), [(True, WARNING), (False, BAD)])
def test_a_kernel_that_tells_nothing(host: Host, works: bool, status: Status) -> None:
    """It is bad only if nothing works: tracing can do without."""
    found = verdict("BTF", replace(host, known=lambda: UNKNOWN, works=works))
    assert found == (status, "none (no such file)", "boot a kernel with CONFIG_DEBUG_INFO_BTF")


# --- BCC ---------------------------------------------------------------------------------

Modules = Callable[[str | None], None]


@pytest.fixture
def bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Modules:
    """Sets what the module is that an import would find."""

    def is_(source: str | None) -> None:
        path = tmp_path / "bcc" / "__init__.py"
        if source is not None:
            _write(path.parent, path.name, source)
            _write(path.parent, "version.py", "__version__ = '0.31.0'\n")
        spec = importlib.machinery.ModuleSpec("bcc", None, origin=str(path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec if source else None)

    return is_


def test_bcc_is_not_imported(host: Host, bcc: Modules) -> None:
    bcc("raise SystemExit\nclass BPF(object): pass\n")
    assert told("BCC", host) == (OK, "0.31.0; no clang is needed beside it")


def test_the_other_bcc(host: Host, bcc: Modules) -> None:
    bcc("raise SystemExit\ndef get_code(): pass\n")
    found = verdict("BCC", replace(host, works=False))
    assert found.status is BAD
    assert found.found.endswith("/bcc/__init__.py is PyPI's, which has nothing to do with BPF")
    assert found.cure == f"remove it (pip uninstall bcc), then {compiler.INSTALL_BCC}"


@pytest.mark.parametrize(("works", "status"), [(True, WARNING), (False, BAD)])
def test_bcc_is_not_needed_while_the_cache_will_do(
    host: Host, bcc: Modules, works: bool, status: Status
) -> None:
    bcc(None)
    found = verdict("BCC", replace(host, works=works))
    assert (found.status, found.cure) == (status, compiler.INSTALL_BCC)
    assert found.found.startswith("missing")
    assert found.found.endswith("will do for this kernel") is works


# --- What is permitted -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rights", "euid", "expected"),
    [
        (ALL_RIGHTS, 0, (OK, "CAP_SYS_ADMIN and all that is of use", "")),
        (BPF | PERFMON | PTRACE | SEARCH, 7, (WARNING,
         "without CAP_SYS_ADMIN, not known are types of keys and values", "add CAP_SYS_ADMIN")),
        (SYS_ADMIN | PTRACE, 0, (WARNING,
         "without CAP_DAC_READ_SEARCH, not known are paths of cgroups", "add CAP_DAC_READ_SEARCH")),
        (BPF | PERFMON, 7, (WARNING,
         "without CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE and CAP_SYS_ADMIN, not known are paths of"
         " cgroups, directories and executables of others' processes, types of keys and values",
         "add CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE and CAP_SYS_ADMIN")),
        (BPF, 7, (BAD, "neither CAP_SYS_ADMIN nor CAP_BPF and CAP_PERFMON", "run it with sudo")),
        (0, 0, (BAD, "neither CAP_SYS_ADMIN nor CAP_BPF and CAP_PERFMON",
         "add CAP_BPF and CAP_PERFMON, in a container with --cap-add")),
    ],
)  # fmt: skip
def test_capabilities(
    root: Path, host: Host, rights: int, euid: int, expected: tuple[Status, str, str]
) -> None:
    _write(root, "proc/self/status", f"CapEff:\t{rights:016x}\n")
    assert verdict("capabilities", replace(host, euid=euid)) == expected


def test_a_pid_namespace_of_its_own(root: Path, host: Host) -> None:
    assert told("pid namespace", host) == (OK, "the host's")
    link = root / "proc/self/ns/pid"
    link.unlink()
    link.symlink_to("pid:[4026532999]")
    found = verdict("pid namespace", host)
    assert found.status is BAD
    assert found.found == "pid:[4026532999], where process ids are not the kernel's"
    assert "hostPID" in found.cure


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, (OK, "takes calls of ours")),
        (errno.EPERM, (BAD, "the kernel does not permit BPF here")),
        (errno.ENOMEM, (BAD, "bpf(2) does not work here: Cannot allocate memory")),
    ],
)
def test_bpf(
    host: Host, monkeypatch: pytest.MonkeyPatch, number: int, expected: tuple[Status, str]
) -> None:
    def bpf(*_: object) -> int:
        if number:
            raise OSError(number, os.strerror(number))
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(libc, "bpf", bpf)
    assert told("bpf(2)", host) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[none] integrity confidentiality\n", (OK, "none")),
        ("none [integrity] confidentiality\n", (OK, "integrity")),
        ("none integrity [confidentiality]\n",
         (WARNING, "confidentiality: the kernel's memory may be hidden, and its tracefs")),
        ("?", (OK, "unknown")),
    ],
)  # fmt: skip
def test_lockdown(root: Path, host: Host, content: str, expected: tuple[Status, str]) -> None:
    _write(root, "sys/kernel/security/lockdown", content)
    assert told("lockdown", host) == expected


def test_security_modules(root: Path, host: Host) -> None:
    assert told("security modules", host) == (OK, "capability,landlock,bpf")
    _write(root, "sys/kernel/security/lsm", "capability")
    assert told("security modules", host) == (
        OK, "capability; without bpf, '--probe lsm' is not run",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["lockdown", "security modules"])
def test_without_securityfs_nobody_can_tell(root: Path, host: Host, name: str) -> None:
    """Unless it is there, or this kernel has none."""
    for file in ("lockdown", "lsm"):
        (root / "sys/kernel/security" / file).unlink()
    status, found, cure = verdict(name, host)
    assert (status, found) == (WARNING, "cannot tell: securityfs is not mounted")
    assert cure == "mount it with 'mount -t securityfs securityfs /sys/kernel/security'"
    _mount(root, "securityfs", "sys/kernel/security")
    assert told(name, host)[0] is OK
    _write(root, "proc/self/mountinfo", "")
    _write(root, "proc/filesystems", "\text4\n")
    assert told(name, host)[0] is OK


@pytest.mark.parametrize(
    ("level", "rights", "status"),
    [("2", BPF, OK), ("4", SYS_ADMIN, OK), ("3", BPF, WARNING), ("-1", 0, OK)],
)
def test_perf_event_paranoid(
    root: Path, host: Host, level: str, rights: int, status: Status
) -> None:
    _write(root, "proc/sys/kernel/perf_event_paranoid", f"{level}\n")
    _write(root, "proc/self/status", f"CapEff:\t{rights:016x}\n")
    found = verdict("perf_event_paranoid", host)
    assert found.status is status
    assert ("sysctl" in found.cure) is (status is WARNING)


@pytest.mark.parametrize("level", ["0", "1", "2", "7"])
def test_unprivileged_bpf_is_told_and_no_more(root: Path, host: Host, level: str) -> None:
    _write(root, "proc/sys/kernel/unprivileged_bpf_disabled", f"{level}\n")
    status, found = told("unprivileged_bpf_disabled", host)
    assert status is OK
    assert found.startswith(f"{level}: ")


@pytest.mark.parametrize(
    ("may", "works", "status"), [(True, True, OK), (False, True, WARNING), (False, False, WARNING)]
)
def test_kernel_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch, may: bool, works: bool, status: Status
) -> None:
    monkeypatch.setattr(facts, "may_read_kernel_memory", lambda: may)
    found = verdict("kernel memory", replace(host, works=works))
    assert found.status is status
    assert ("cannot tell" in found.found) is (not works)


def test_perf_events(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(libc, "perf_event_open", refuse)
    status, found, cure = verdict("perf events", host)
    assert status is WARNING
    assert found.startswith("programs that come and go cannot be watched: ")
    assert cure == "give it CAP_PERFMON, or run it as root"


# --- File systems and memory -------------------------------------------------------------

POINTS = {"cgroup2": "sys/fs/cgroup", "bpf": "sys/fs/bpf", "securityfs": "sys/kernel/security"}
NAMES = {"bpf": "bpffs"}


@pytest.mark.parametrize(("fstype", "point"), POINTS.items())
def test_mounts(root: Path, host: Host, fstype: str, point: str) -> None:
    name = NAMES.get(fstype, fstype)
    assert "not mounted" in verdict(name, host).found
    _mount(root, fstype, point, device=os.makedev(9, 9))  # covered by another one
    assert "not mounted" in verdict(name, host).found
    _mount(root, fstype, point)
    assert told(name, host) == (OK, f"at /{point}")


def test_a_kernel_without_securityfs(root: Path, host: Host) -> None:
    _write(root, "proc/filesystems", "nodev\tsysfs\n")
    assert told("securityfs", host) == (OK, "this kernel has none")


class FakeTracefs:
    problem: CannotStart | None = None

    def __enter__(self) -> "FakeTracefs":
        if self.problem:
            raise self.problem
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event_id(self, category: str, event: str) -> int:
        return 1


NO_TRACEFS = (
    "tracefs is not mounted and cannot be mounted here (Operation not permitted):"
    " mount it with 'mount -t tracefs tracefs /sys/kernel/tracing'"
)


def test_tracefs(root: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "Tracefs", FakeTracefs)
    assert told("tracefs", host) == (OK, "not mounted; bpfsnoop mounts it for itself")
    _mount(root, "tracefs", "sys/kernel/tracing")
    assert told("tracefs", host) == (OK, "at /sys/kernel/tracing")
    monkeypatch.setattr(FakeTracefs, "problem", CannotStart(NO_TRACEFS))
    found, cure = NO_TRACEFS.split(": ")
    assert verdict("tracefs", host) == (WARNING, found, cure)
    assert verdict("tracefs", replace(host, works=False)) == (BAD, found, cure)


@pytest.mark.parametrize(
    ("number", "here", "cure"),
    [
        (errno.ENOMEM, {}, "give a smaller --ring-size"),
        (errno.EINVAL, {}, "boot Linux 5.8 or newer"),
        (
            errno.EPERM,
            {"release": "5.9"},
            "raise the limit of locked memory with 'ulimit -l unlimited'",
        ),
        (errno.EPERM, {"euid": 7}, "run it with sudo"),
    ],
)
def test_ring_buffers(
    host: Host, monkeypatch: pytest.MonkeyPatch, number: int, here: dict[str, Any], cure: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(own, "create_map", lambda *_: os.open("/dev/null", os.O_RDONLY))
    assert told("ring buffers", host) == (OK, "4 of 2048 KiB can be had")
    monkeypatch.setattr(own, "create_map", refuse)
    found = verdict("ring buffers", replace(host, **here))
    assert found == (BAD, f"4 of 2048 KiB cannot be had: {os.strerror(number)}", cure)
    assert os.listdir("/proc/self/fd") == before


def test_the_cache(host: Host) -> None:
    cache = Path(host.cache)
    assert told("cache", replace(host, cache="")) == (OK, "none: each start compiles")
    assert told("cache", host) == (
        WARNING, f"{cache} is not there and was not made: each start compiles",
    )  # fmt: skip
    cache.mkdir(mode=0o700)
    assert told("cache", host) == (OK, f"{cache}, ours alone")
    cache.chmod(0o777)
    assert told("cache", host) == (WARNING, f"{cache} is not used: it is not ours alone")
    cache.rmdir()
    cache.symlink_to("/tmp")
    assert told("cache", host)[0] is WARNING


# --- All of them -------------------------------------------------------------------------


@pytest.mark.parametrize("name", dict(CHECKS))
def test_an_empty_host_is_survived(tmp_path: Path, name: str) -> None:
    """Without /proc and /sys, that is."""

    def fail() -> Facts:
        raise RuntimeError("no facts")

    empty = Host(works=False, cache="", ring_size=1 << 21, known=fail, root=tmp_path)
    found = verdict(name, empty)
    assert found.found


def test_a_check_that_fails_keeps_nothing_from_the_others(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Host) -> Verdict:
        raise ValueError("nonsense")

    checks = ("first", fail), ("second", lambda _: conditions.ok("well"))
    monkeypatch.setattr(conditions, "CHECKS", checks)
    assert dict(conditions.conditions(host)) == {
        "first": (WARNING, "cannot tell: ValueError: nonsense", ""),
        "second": (OK, "well", ""),
    }


def test_names_are_said_once() -> None:
    assert len(dict(CHECKS)) == len(CHECKS)


# --- What helps --------------------------------------------------------------------------


def _sentences() -> str:
    """All text in the source of the tracer, but for the table that is looked up in it."""
    paths = [path for path in (ROOT / "tracer").glob("*.py") if path.name != "conditions.py"]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text())))
    return "\n".join(str(node.value) for node in nodes if isinstance(node, ast.Constant))


@pytest.mark.parametrize("words", [words for words, _ in CURES])
def test_every_cure_is_of_something_that_is_said(words: str) -> None:
    assert words in _sentences()


@pytest.mark.parametrize(
    ("error", "found", "cure"),
    [
        (CannotStart("tracing needs root: run it with sudo"),
         "tracing needs root", "run it with sudo"),
        (CannotStart(f"not tried: {privilege.NOT_PERMITTED}; -v shows the details"),
         "not tried: the kernel does not permit BPF here",
         privilege.NOT_PERMITTED.split(": ", 1)[1]),
        (CannotStart("surprise"), "surprise", ""),
        (FileNotFoundError(2, "No such file", "/x"), "/x: No such file", ""),
        (OSError("odd"), "OSError: odd", ""),
    ],
)  # fmt: skip
def test_the_cure_of_a_refusal(error: Exception, found: str, cure: str) -> None:
    assert refusal(error) == (found, cure)


def test_the_host_is_this_one() -> None:
    host = Host(works=True, cache="", ring_size=0)
    assert (host.release, host.machine) == (platform.release(), platform.machine())
    assert host.euid == os.geteuid()
