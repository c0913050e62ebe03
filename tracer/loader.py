# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernel program and attaches it, in a process of its own.

BCC brings libLLVM, over 100 MB that only the compilation needs. So the tracer
forks a child that imports BCC, compiles, attaches, sends the file descriptors of
everything home over a socket and ends; the tracer never maps any of it. The
programs stay attached, because the descriptors do.
"""

import json
import mmap
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from ..decoders import uapi
from ..events.errors import CannotStart
from . import btf, installed, libc
from .privilege import NOT_PERMITTED

# Where struct pt_regs keeps system call arguments 4 and 5 (arch/*/include/asm/ptrace.h).
_ARGUMENT_OFFSETS: Final = {"x86_64": (56, 72), "aarch64": (24, 32)}
_TASK_PT_REGS: Final = 175  # BPF_FUNC_task_pt_regs, since Linux 5.15

MAPS: Final = ("config", "pids", "uids", "comms", "counts", "calls", "unfollowed")
"""The maps of the C source that user space works with."""

_TRACEFS: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_DETAIL_LIMIT: Final = 16_384
_MAX_FDS: Final = 32
_MAX_MESSAGE: Final = 1 << 18

INSTALL_BCC: Final = (
    "install it with your distribution's package manager: python3-bpfcc (Debian, Ubuntu),"
    " python3-bcc (Fedora, RHEL, openSUSE), python-bcc (Arch) or py3-bcc (Alpine)"
)


class Loaded(NamedTuple):
    """What the child hands over."""

    fds: Mapping[str, int]
    """Maps by their name in the C source, ``program:NAME``, ``attached:CATEGORY:EVENT``."""
    kernel_names: Mapping[str, Mapping[int, str]]
    warnings: list[str]
    """What is missing here though tracing works."""


def load(*, ring_pages: int, follow: bool) -> Loaded:
    """Compiles and attaches; the programs look at nothing until they are told to.

    :param ring_pages: size of the ring, a power of two.
    :param follow: also attach to fork and exit of processes.
    :raises CannotStart: with the reason and the cure.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE)
    child = os.fork()
    if child == 0:
        ours.close()
        _child(theirs, lambda: _compile_and_attach(ring_pages, follow))
    theirs.close()
    try:
        with ours:
            message, fds, _, _ = socket.recv_fds(ours, _MAX_MESSAGE, _MAX_FDS)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    for fd in fds:
        os.set_inheritable(fd, False)
    if not message:
        raise CannotStart(
            "the compilation of the kernel program ended early"
            f" (wait status {status}); is there enough memory (about 200 MB)?"
        )
    answer = json.loads(message)
    if "error" in answer:
        raise CannotStart(answer["error"], answer["detail"])
    names = {
        enum: {int(value): name for value, name in constants.items()}
        for enum, constants in answer["kernel_names"].items()
    }
    return Loaded(dict(zip(answer["fds"], fds, strict=True)), names, answer["warnings"])


def _child(home: socket.socket, work: Callable[[], tuple[dict[str, Any], list[int]]]) -> NoReturn:
    # Never returns into the parent's code, and never runs its exit handlers.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        noise = os.memfd_create("bcc-output")
        os.dup2(noise, 1)
        os.dup2(noise, 2)
        try:
            answer, fds = work()
        except CannotStart as error:
            answer, fds = {"error": str(error), "detail": _printed(noise)}, []
        except Exception as error:
            message = f"cannot load the kernel program: {type(error).__name__}: {error}"
            answer, fds = {"error": message, "detail": _printed(noise)}, []
        socket.send_fds(home, [json.dumps(answer).encode()], fds)
    finally:
        os._exit(0)


def _printed(noise: int) -> str:
    # The end of what BCC, clang and the verifier wrote.
    start = max(0, os.fstat(noise).st_size - _DETAIL_LIMIT)
    return os.pread(noise, _DETAIL_LIMIT, start).decode("utf-8", "replace")


def _compile_and_attach(ring_pages: int, follow: bool) -> tuple[dict[str, Any], list[int]]:
    bcc = _import_bcc()
    _provide_tracefs()
    warnings: list[str] = []
    names, has_pt_regs = _kernel_names(warnings)
    os.environ["BCC_KERNEL_SOURCE"] = str(installed.KERNEL)
    try:
        program = bcc.BPF(
            src_file=str(installed.KERNEL_PROGRAM), cflags=_flags(ring_pages, follow, has_pt_regs)
        )
    except Exception as error:
        raise CannotStart(_translated(str(error))) from error
    fds = {name: program[name].map_fd for name in MAPS}
    fds |= {f"program:{name.decode()}": function.fd for name, function in program.funcs.items()}
    fds |= {f"attached:{name.decode()}": fd for name, fd in program.tracepoint_fds.items()}
    answer = {"fds": list(fds), "kernel_names": names, "warnings": warnings}
    return answer, list(fds.values())


def _import_bcc() -> Any:
    try:
        import bcc  # noqa: PLC0415 - it maps libLLVM, which only this child may
    except ImportError as error:
        raise CannotStart(
            f"the Python module of BCC is missing: {INSTALL_BCC}{_hidden_by_venv()}"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CannotStart(
            "the Python module bcc that is installed is PyPI's, which has nothing to do with"
            f" BPF: remove it (pip uninstall bcc), then {INSTALL_BCC}"
        )
    return bcc


def _hidden_by_venv() -> str:
    try:
        settings = Path(sys.prefix, "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return ""  # not in a virtual environment
    if "include-system-site-packages = true" in settings:
        return ""
    return (
        "; if it is installed, this virtual environment does not see it: make it with"
        " /usr/bin/python3 -m venv --system-site-packages"
    )


def _provide_tracefs() -> None:
    # BCC reads the tracepoints' formats there. Where it is not mounted, it is for
    # this child alone.
    if any(map(_has_tracepoint, _TRACEFS)):
        return
    try:
        libc.unshare_mounts(_TRACEFS[0])
        libc.mount("tracefs", _TRACEFS[0])
    except OSError as error:
        raise CannotStart(
            f"tracefs is not mounted and cannot be mounted here ({error.strerror}):"
            f" mount it with 'mount -t tracefs tracefs {_TRACEFS[0]}'"
        ) from error
    if not _has_tracepoint(_TRACEFS[0]):
        raise CannotStart(
            "this kernel has no tracepoint syscalls:sys_enter_bpf: it needs"
            " CONFIG_FTRACE_SYSCALLS and CONFIG_BPF_SYSCALL"
        )


def _has_tracepoint(tracefs: str) -> bool:
    try:
        with open(f"{tracefs}/events/syscalls/sys_enter_bpf/format", "rb"):
            return True
    except PermissionError as error:
        raise CannotStart(
            f"{tracefs} is closed to this user, whatever its capabilities: run it as root"
        ) from error
    except OSError:
        return False


def _kernel_names(warnings: list[str]) -> tuple[dict[str, dict[int, str]], bool]:
    # Also whether this kernel lets us reach system call arguments 4 and 5.
    try:
        names = btf.kernel_names((*uapi.ENUMS, btf.HELPERS))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        warnings.append(
            f"no BTF of this kernel ({btf.VMLINUX}: {reason}): constants newer than this"
            " bpfsnoop show as numbers, the arguments of BPF_COMMON_ATTRS as 0"
        )
        return {}, False
    helpers = names.pop(btf.HELPERS, {})
    return names, _TASK_PT_REGS in helpers


def _flags(ring_pages: int, follow: bool, has_pt_regs: bool) -> list[str]:
    flags = [
        f"-I{installed.KERNEL / 'include'}",
        f"-I{installed.WIRE}",
        f"-DRING_PAGES={ring_pages}",
        f"-DPAGE_SIZE={mmap.PAGESIZE}",
    ]
    if follow:
        flags.append("-DFOLLOW_CHILDREN=1")
    offsets = _ARGUMENT_OFFSETS.get(platform.machine())
    if has_pt_regs and offsets:
        flags += [f"-DARG4_OFFSET={offsets[0]}", f"-DARG5_OFFSET={offsets[1]}"]
    return flags


def _translated(message: str) -> str:
    # What BCC says, in words that help; what it printed goes with them as detail.
    if "compile" in message:
        return "BCC could not compile the kernel program; -v shows what it printed"
    if "Operation not permitted" in message or "Permission denied" in message:
        return f"{NOT_PERMITTED}; -v shows the details"
    if "attach" in message:
        return f"cannot attach to the tracepoints of bpf(2): {message}"
    return f"the kernel did not take the program ({message}); -v shows the details"
