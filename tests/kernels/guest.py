# SPDX-License-Identifier: Apache-2.0
"""A command in a guest: boots a kernel in qemu, and brings back what the command said.

virtiofsd serves the host's root directory, or another one; qemu has the command's output, its
status and a report come out of serial ports into files, each of its own.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from .archive import Kernel
from .initramfs import initramfs
from .refused import CannotRun

HERE: Final = Path(__file__).resolve().parent
_CHILD: Final = str(HERE / "child.py")
TIMED_OUT: Final = 124
LOST: Final = 125
CANNOT_RUN: Final = 126

REPORT: Final = "/run/report"
"""What a command leaves there comes back with its output."""

_QEMU: Final = "qemu-system-x86_64"
_VIRTIOFSD: Final = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
_PACKAGES: Final = {
    _QEMU: "qemu-system-x86", "busybox": "busybox-static", "virtiofsd": "virtiofsd",
}  # fmt: skip
_PORTS: Final = ("status", "out", "err", "report")
_MEMORY: Final = "2G"
_CPUS: Final = "1"
"""As many guests as there are cores run side by side."""

_BOOTED_WITHIN_S: Final = 240
"""It takes seconds, unless the host has others to serve."""
_LOOK_S: Final = 0.2

# Quiet, dead at once if anything is wrong, and without what only costs time.
_COMMAND_LINE: Final = (
    "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off random.trust_cpu=on "
    "nowatchdog rcupdate.rcu_cpu_stall_suppress=1 no_timer_check tsc=reliable cryptomgr.notests"
)


class Command(NamedTuple):
    """What is to run in a guest."""

    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str] = {}
    kernel: str = ""
    """More of the kernel's command line."""
    prepare: str = ""
    """A line of shell that is run before; if it fails, the command does not run."""
    timeout_s: float = 3600
    root: Path = Path("/")
    """The directory of the host that is the guest's root."""
    first: Path = HERE / "inside.sh"
    """Its process 1, which runs told.sh or sees to it."""
    files: Mapping[str, bytes] = {}
    """What else it finds in /run/guest."""


class Ended(NamedTuple):
    """How it went, and where to read what came of it: a file for each port."""

    status: int
    """The command's own, or one of the constants above."""
    why: str
    """Why it is not the command's own."""
    files: Path

    def text(self, name: str) -> str:
        """What is in such a file; ``console`` is the kernel's."""
        return _text(self.files / name)


def run(kernel: Kernel, command: Command, files: Path) -> Ended:
    """The command in a guest of its own, from boot to end.

    :param files: a directory; whatever is in it goes.
    :raises CannotRun: this host has not what it takes.
    """
    found = programs()
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    (files / "initramfs").write_bytes(initramfs(kernel.modules, _scripts(found, command)))
    with _shared(found["virtiofsd"], command.root, files), _qemu(kernel, command, files) as qemu:
        status, why = _awaited(qemu, files, command.timeout_s)
    (files / "initramfs").unlink()
    return Ended(status, why, files)


def programs() -> dict[str, str]:
    """Where qemu and the others are.

    :raises CannotRun: this host has not what it takes.
    """
    if os.geteuid():
        raise CannotRun("sharing the host's files with a guest needs root")
    if os.uname().machine != "x86_64":
        raise CannotRun("the guests are x86-64")
    found = {name: shutil.which(name) for name in (_QEMU, "busybox")}
    found["virtiofsd"] = next(filter(os.path.exists, _VIRTIOFSD), None)
    missing = [name for name, path in found.items() if not path]
    if missing:
        needed = ", ".join(_PACKAGES[name] for name in missing)
        raise CannotRun(f"there is no {', '.join(missing)} (packages {needed})")
    private = subprocess.run(
        [sys.executable, _CHILD, "--read-only", "true"], capture_output=True, text=True, check=False
    )
    if private.returncode:
        raise CannotRun(f"no mount namespace of its own: {private.stderr.splitlines()[-1]}")
    return {name: path for name, path in found.items() if path}


def _scripts(found: Mapping[str, str], command: Command) -> dict[str, bytes]:
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in command.env.items())
    return {
        "busybox": Path(found["busybox"]).read_bytes(),
        "init": (HERE / "init.sh").read_bytes(),
        "guest/inside.sh": command.first.read_bytes(),
        "guest/told.sh": (HERE / "told.sh").read_bytes(),
        "guest/prepare": command.prepare.encode(),
        "guest/command": (
            f"cd {shlex.quote(str(command.directory))} &&\n"
            f"exec env {variables} {shlex.join(command.argv)}\n"
        ).encode(),
    } | {f"guest/{name}": content for name, content in command.files.items()}


@contextlib.contextmanager
def _shared(virtiofsd: str, root: Path, files: Path) -> Iterator[None]:
    """A directory of the host, for whoever connects to the socket in ``files``."""
    with socket.socket(socket.AF_UNIX) as listener, (files / "virtiofsd").open("wb") as log:
        with _directory(files) as path:
            listener.bind(f"{path}/socket")
        listener.listen()
        options = f"--fd={listener.fileno()}", "-o", f"source={root},sandbox=chroot,cache=always"
        server = _child(
            "--read-only", virtiofsd, *options, stderr=log, pass_fds=(listener.fileno(),)
        )
    with _ended(server):
        yield
    (files / "socket").unlink()


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[str]:
    """A short name for it, as there is little room for one in an address."""
    fd = os.open(path, os.O_PATH)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def _qemu(kernel: Kernel, command: Command, files: Path) -> Iterator[subprocess.Popen[bytes]]:
    ports = [
        option
        for name in _PORTS
        for option in (
            "-chardev", f"file,id={name},path={name}",
            "-device", f"virtserialport,chardev={name},name={name}",
        )
    ]  # fmt: skip
    with (files / "qemu").open("wb") as log:
        qemu = _child(
            _QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-machine", "q35", *accelerator(Path("/sys/module")), "-smp", _CPUS, "-m", _MEMORY,
            "-object", f"memory-backend-memfd,id=memory,size={_MEMORY},share=on",
            "-numa", "node,memdev=memory",
            "-serial", "file:console", "-device", "virtio-rng-pci",
            "-chardev", "socket,id=host,path=socket",
            "-device", "vhost-user-fs-pci,chardev=host,tag=host",
            "-device", "virtio-serial-pci", *ports,
            "-kernel", str(kernel.image), "-initrd", "initramfs",
            "-append", f"{_COMMAND_LINE} {command.kernel}",
            stderr=log, cwd=files,
        )  # fmt: skip
    with _ended(qemu):
        yield qemu


def accelerator(modules: Path) -> tuple[str, ...]:
    """Options of qemu.

    A ``/dev/kvm`` alone does not tell: with kvm_pvm a guest hangs that does not know of it.

    :param modules: the directory of those that are loaded.
    """
    if any((modules / name).exists() for name in ("kvm_intel", "kvm_amd")):
        return "-accel", "kvm", "-accel", "tcg", "-cpu", "max"
    return "-accel", "tcg,thread=multi", "-cpu", "max"


def _child(
    *arguments: str, stderr: IO[bytes], cwd: Path | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, _CHILD, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=stderr, cwd=cwd, pass_fds=pass_fds,
    )  # fmt: skip


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _awaited(qemu: subprocess.Popen[bytes], files: Path, timeout_s: float) -> tuple[int, str]:
    """Waits until the guest is gone.

    :returns: the status, and why it is not the command's own.
    """
    begun = time.monotonic()
    while qemu.poll() is None:
        passed = time.monotonic() - begun
        if passed > timeout_s:
            return TIMED_OUT, f"not done after {timeout_s:.0f} s"
        if passed > _BOOTED_WITHIN_S and not _text(files / "status"):
            return LOST, f"not booted after {_BOOTED_WITHIN_S} s"
        time.sleep(_LOOK_S)
    return outcome(_text(files / "status"))


def _text(path: Path) -> str:
    """Of a file that qemu makes, perhaps not yet."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def outcome(told: str) -> tuple[int, str]:
    """:param told: what the guest wrote to its port ``status``."""
    match [line.split() for line in told.splitlines()]:
        case [["started", _], ["ended", status]]:
            return int(status), ""
        case [["started", _]]:
            return LOST, "gone before the command had ended"
        case [["unprepared"]]:
            return LOST, "not as it was to be: what is run beforehand failed"
    return LOST, "gone before it had booted"
