# SPDX-License-Identifier: Apache-2.0
"""Functions of the kernel that run our programs: what it acts on, as it has it itself.

Whether that can be had is found out by trying: a kernel may refuse such programs, have no
kprobes, or attach programs that it never runs.
"""

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple

from ..events.errors import CannotStart
from . import libc, own
from .facts import REGISTERS, Facts
from .own import ProgramType


class Function(NamedTuple):
    """Where a program runs."""

    name: str
    """A symbol of the kernel, and of its BTF."""
    returns: bool = False


_CALL: Final = Function("__sys_bpf")
_RETURN: Final = Function("__sys_bpf", returns=True)
_COPIED: Final = Function("security_bpf")
_CHECKED: Final = Function("bpf_check")

ATTACHED: Final = {
    "exit_inside": _RETURN, "enter_inside": _CALL, "copied_attr": _COPIED,
    "checked_insns": _CHECKED,
}  # fmt: skip
"""The programs of the C source that these functions run."""
STEPS: Final = {
    "inside_entry_steps": ("enter_give_up", "enter_inside"),
    "inside_steps": (
        "inside_process", "inside_bulk", "inside_long", "inside_give_up", "exit_inside",
    ),
}  # fmt: skip
"""Tables of programs that others go on to, in the order of enum inside_step and exit_step."""
_RUN_BY: Final = (
    ATTACHED
    | dict.fromkeys(STEPS["inside_entry_steps"], _CALL)
    | dict.fromkeys(STEPS["inside_steps"], _RETURN)
)
_WORD: Final = 8


class Functions(ABC):
    """A way to functions of the kernel.

    :raises CannotStart: this kernel does not say enough of itself.
    """

    probe: ClassVar[str]
    """What documents and people call it."""

    def __init__(self, known: Facts) -> None:
        self._known = known
        registers = REGISTERS.get(platform.machine())
        if not registers or not known.has_insns or not known.has_registers:
            reason = known.problem or "it is too old, or of another machine"
            raise CannotStart(f"{self.probe} needs more of the kernel's BTF: {reason}")
        self._registers = registers
        self._try()

    @abstractmethod
    def _try(self) -> None:
        """:raises CannotStart: the kernel refuses such programs: before they are compiled."""

    @abstractmethod
    def settings(self) -> Mapping[str, int]:
        """What the C source is compiled with, see hooks.h."""

    @abstractmethod
    def program_type(self, function: str) -> ProgramType:
        """:param function: in the C source."""

    @abstractmethod
    def _attached(self, function: Function, prog_fd: int) -> int:
        """:raises OSError: see :meth:`attached`."""

    def attached(self, function: str, prog_fd: int) -> int:
        """Has the program run.

        :returns: a descriptor that keeps it attached; the caller's.
        :raises CannotStart: the kernel does not.
        """
        where = _RUN_BY[function]
        try:
            return self._attached(where, prog_fd)
        except OSError as error:
            raise CannotStart(
                f"cannot attach to {where.name}() by {self.probe}: {error.strerror}"
            ) from error


class Trampolines(Functions):
    """By BTF (``BPF_TRACE_FENTRY`` and ``_FEXIT``; with ``bpf_get_func_arg()``, Linux 5.17)."""

    probe = "fentry"

    def _try(self) -> None:
        missing = {where.name for where in ATTACHED.values()} - self._known.functions.keys()
        if missing:
            raise CannotStart(f"{self.probe} needs {min(missing)}() in the kernel's BTF")
        for function in ATTACHED:
            try:
                os.close(own.load_program(self.program_type(function), own.NOTHING, "nothing"))
            except OSError as error:
                raise CannotStart(
                    f"this kernel refuses programs for {self.probe}: {error.strerror}"
                ) from error

    def settings(self) -> Mapping[str, int]:
        words = self._known.functions[_RETURN.name][1]
        arguments = {f"FUNCTION_ARG{n}": _WORD * n for n in range(4)}
        result = {"FUNCTION_RESULT": _WORD * words}
        return arguments | result | {"HAVE_FUNCTIONS": 1, "FUNCTIONS_BY_BTF": 1}

    def program_type(self, function: str) -> ProgramType:
        where = _RUN_BY[function]
        kind = own.FEXIT if where.returns else own.FENTRY
        return kind._replace(attach_btf_id=self._known.functions[where.name][0])

    def _attached(self, function: Function, prog_fd: int) -> int:
        return own.open_raw_tracepoint(prog_fd)


class SecurityModule(Trampolines):
    """The same, but attr as a BPF security module is shown it (``BPF_LSM_MAC``, since 5.7)."""

    probe = "lsm"
    _HOOK: Final = "bpf_lsm_bpf"

    def program_type(self, function: str) -> ProgramType:
        if _RUN_BY[function] is not _COPIED:
            return super().program_type(function)
        if self._HOOK not in self._known.functions:
            raise CannotStart(f"{self.probe} needs {self._HOOK}() in the kernel's BTF")
        return own.LSM._replace(attach_btf_id=self._known.functions[self._HOOK][0])


class Kprobes(Functions):
    """By breakpoints, or ftrace: needs no BTF of functions."""

    probe = "kprobe"

    def _try(self) -> None:
        if not libc.has_kprobes():
            raise CannotStart("this kernel has no kprobes")

    def settings(self) -> Mapping[str, int]:
        places = enumerate(self._registers.function_arguments)
        arguments = {f"FUNCTION_ARG{n}": offset for n, offset in places}
        result = self._registers.function_result
        return arguments | {"FUNCTION_RESULT": result, "HAVE_FUNCTIONS": 1}

    def program_type(self, function: str) -> ProgramType:
        return own.KPROBE

    def _attached(self, function: Function, prog_fd: int) -> int:
        return libc.attach_kprobe(function.name, prog_fd, returns=function.returns)


FUNCTIONS: Final = (Trampolines, Kprobes, SecurityModule)
"""The ways, in the order in which they are tried; the last one only if it is asked for."""


def sees_inside(probe: str) -> bool:
    """Whether a plan of this name has such a way."""
    return probe.rpartition("+")[2] in {kind.probe for kind in FUNCTIONS}
