# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernel program with BCC, in a process of its own.

BCC brings libLLVM, over 100 MB that only the compilation needs. So the tracer forks
a child that imports BCC, compiles, sends home what came out and ends; the tracer
never maps any of it. What came out is kept (tracer/cache.py), so that mostly there
is no such child either.
"""

import base64
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from ..events.errors import CannotStart
from . import installed, own
from .facts import KFUNC
from .own import MapSpec

_DETAIL_LIMIT: Final = 16_384
_INSN: Final = 8  # bytes
_LD_IMM64: Final = 0x18
_CALL: Final = 0x85
_PSEUDO_KFUNC_CALL: Final = 2
_PSEUDO_MAP_FD: Final = 1

INSTALL_BCC: Final = (
    "install it with your distribution's package manager: python3-bpfcc (Debian, Ubuntu),"
    " python3-bcc (Fedora, RHEL, openSUSE), python-bcc (Arch) or py3-bcc (Alpine)"
)


class Function(NamedTuple):
    """One compiled program."""

    insns: bytes
    """``struct bpf_insn`` one behind the other, without the descriptors of maps."""
    maps: Mapping[int, str]
    """Where a descriptor belongs, by number of the instruction."""


class Bytecode(NamedTuple):
    """All that came out."""

    maps: Mapping[str, MapSpec]
    functions: Mapping[str, Function]

    def to_json(self) -> dict[str, Any]:
        return {
            "maps": {name: list(spec) for name, spec in self.maps.items()},
            "functions": {
                name: [base64.b64encode(insns).decode(), maps]
                for name, (insns, maps) in self.functions.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Bytecode":
        """:raises ValueError, KeyError, TypeError, AttributeError: it is not ours."""
        return cls(
            {str(name): MapSpec(*map(int, spec)) for name, spec in data["maps"].items()},
            {
                str(name): Function(
                    base64.b64decode(insns), {int(at): str(of) for at, of in maps.items()}
                )
                for name, (insns, maps) in data["functions"].items()
            },
        )


def compiled(flags: Sequence[str]) -> Bytecode:
    """:param flags: ``-D`` and ``-I``, as clang takes them.
    :raises CannotStart: with the reason and the cure.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _child(theirs, lambda: _compile(flags).to_json())
    os.close(theirs)
    try:
        with open(ours, "rb") as answer:
            message = answer.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not message or status:
        raise CannotStart(
            "the compilation of the kernel program ended early"
            f" (wait status {status}); is there enough memory (about 200 MB)?"
        )
    outcome = json.loads(message)
    if "error" in outcome:
        raise CannotStart(outcome["error"], outcome["detail"])
    return Bytecode.from_json(outcome)


def _child(home: int, work: Callable[[], dict[str, Any]]) -> NoReturn:
    # Never returns into the parent's code, and never runs its exit handlers.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        noise = os.memfd_create("bcc-output")
        os.dup2(noise, 1)
        os.dup2(noise, 2)
        try:
            answer = work()
        except CannotStart as error:
            answer = {"error": str(error), "detail": _printed(noise)}
        except Exception as error:
            message = f"cannot compile the kernel program: {type(error).__name__}: {error}"
            answer = {"error": message, "detail": _printed(noise)}
        with open(home, "wb") as file:
            file.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _printed(noise: int) -> str:
    # The end of what BCC and clang wrote.
    start = max(0, os.fstat(noise).st_size - _DETAIL_LIMIT)
    return os.pread(noise, _DETAIL_LIMIT, start).decode("utf-8", "replace")


def _compile(flags: Sequence[str]) -> Bytecode:
    bcc = _import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(installed.KERNEL)
    try:
        program = bcc.BPF(text=installed.kernel_program(), cflags=list(flags))
    except Exception as error:
        raise CannotStart(
            "BCC could not compile the kernel program; -v shows what it printed"
        ) from error
    library, module = bcc.lib, ctypes.c_void_p(program.module)
    library.bpf_table_name.restype = ctypes.c_char_p
    fds = {
        library.bpf_table_fd_id(module, n): library.bpf_table_name(module, n).decode()
        for n in map(ctypes.c_size_t, range(library.bpf_num_tables(module)))
    }
    functions = [library.bpf_function_name(module, n)
                 for n in range(library.bpf_num_functions(module))]  # fmt: skip
    return Bytecode(
        {name: own.map_spec(fd) for fd, name in fds.items()},
        {name.decode(): _function(program.dump_func(name), fds) for name in functions},
    )


def _function(insns: bytes, names: Mapping[int, str]) -> Function:
    code = bytearray(insns)
    maps = {}
    at = 0
    while at < len(code):
        wide = code[at] == _LD_IMM64
        number = int.from_bytes(code[at + 4 : at + 8], sys.byteorder)
        if code[at] == _CALL and code[at + 1] == 0 and number & KFUNC:
            code[at + 1] = _PSEUDO_KFUNC_CALL << 4
            code[at + 4 : at + 8] = (number & ~KFUNC).to_bytes(4, sys.byteorder)
        if wide and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
            maps[at // _INSN] = names[int.from_bytes(code[at + 4 : at + 8], sys.byteorder)]
            code[at + 4 : at + 8] = bytes(4)
        at += _INSN * (1 + wide)
    return Function(bytes(code), maps)


def _import_bcc() -> Any:
    try:
        import bcc  # noqa: PLC0415 - it maps libLLVM, which only this child may
    except ImportError as error:
        raise CannotStart(
            f"the Python module of BCC is missing: {INSTALL_BCC}{hidden_by_venv()}"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CannotStart(
            "the Python module bcc that is installed is PyPI's, which has nothing to do with"
            f" BPF: remove it (pip uninstall bcc), then {INSTALL_BCC}"
        )
    return bcc


def hidden_by_venv() -> str:
    """Why BCC may not be seen though it is installed; mostly empty."""
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
