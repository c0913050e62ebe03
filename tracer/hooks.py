# SPDX-License-Identifier: Apache-2.0
"""What makes the kernel run our programs: tracepoints, by one of two ways to them, and
functions beside them.
"""

import errno
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from ..events.errors import CannotStart
from . import functions, libc, own
from .facts import REGISTERS, Facts
from .functions import Functions, SecurityModule
from .own import ProgramType
from .tracefs import Tracefs


class Tracepoint(NamedTuple):
    """As tracefs calls it, and as BTF does."""

    category: str
    event: str
    raw: str

    def __str__(self) -> str:
        return f"{self.category}:{self.event}"


_ENTER: Final = Tracepoint("syscalls", "sys_enter_bpf", "sys_enter")
_EXIT: Final = Tracepoint("syscalls", "sys_exit_bpf", "sys_exit")
_NEW_TASK: Final = Tracepoint("task", "task_newtask", "task_newtask")
_EXEC_TASK: Final = Tracepoint("sched", "sched_process_exec", "sched_process_exec")
_END_TASK: Final = Tracepoint("sched", "sched_process_exit", "sched_process_exit")

ATTACHED: Final = {
    "enter_bpf": _ENTER, "exit_bpf": _EXIT, "new_task": _NEW_TASK, "exec_task": _EXEC_TASK,
    "exit_task": _END_TASK,
}  # fmt: skip
"""The programs of the C source that tracepoints run."""
FOLLOWING: Final = "new_task"
"""Of these, the one that only is needed to follow children."""
STEPS: Final = {
    "entry_steps": ("step_enter_bulk", "step_enter_give_up", "enter_bpf"),
    "exit_steps": (
        "step_exit_process", "step_exit_bulk", "step_exit_long", "step_exit_give_up", "exit_bpf",
    ),
}  # fmt: skip
"""Tables of programs that others go on to, in the order of enum entry_step and exit_step."""
PARANOID_MAINLINE: Final = 2
"""The highest kernel.perf_event_paranoid that mainline has."""
_RUN_BY: Final = (
    ATTACHED
    | dict.fromkeys(STEPS["entry_steps"], _ENTER)
    | dict.fromkeys(STEPS["exit_steps"], _EXIT)
)


class Hooks(ABC):
    """A way to the tracepoints."""

    probe: ClassVar[str]
    """What documents and people call it."""

    @abstractmethod
    def settings(self) -> Mapping[str, int]:
        """What the C source is compiled with, see hooks.h."""

    @abstractmethod
    def program_type(self, function: str) -> ProgramType:
        """:param function: in the C source."""

    @abstractmethod
    def attached(self, function: str, prog_fd: int) -> int:
        """Has the program run.

        :returns: a descriptor that keeps it attached; the caller's.
        :raises CannotStart: the kernel does not.
        """


class TracefsHooks(Hooks):
    """By perf events, with the records that tracefs describes. Costs other calls least.

    :raises CannotStart: a tracepoint is not there, or not as expected.
    """

    probe = "tracepoint"

    def __init__(self, tracefs: Tracefs) -> None:
        self._ids = {point: tracefs.event_id(point.category, point.event)
                     for point in ATTACHED.values()}  # fmt: skip
        enter, leave, fork, execute = (
            tracefs.offsets(point.category, point.event)
            for point in (_ENTER, _EXIT, _NEW_TASK, _EXEC_TASK)
        )
        try:
            self._settings = {
                "ENTER_CMD": enter["cmd"], "ENTER_UATTR": enter["uattr"],
                "ENTER_SIZE": enter["size"], "EXIT_RET": leave["ret"],
                "NEWTASK_PID": fork["pid"], "NEWTASK_CLONE_FLAGS": fork["clone_flags"],
                "EXEC_OLD_PID": execute["old_pid"],
            }  # fmt: skip
        except KeyError as error:
            raise CannotStart(f"the tracepoints of this kernel have no field {error}") from None

    def settings(self) -> Mapping[str, int]:
        return self._settings

    def program_type(self, function: str) -> ProgramType:
        return own.TRACEPOINT

    def attached(self, function: str, prog_fd: int) -> int:
        point = ATTACHED[function]
        try:
            return libc.attach_tracepoint(self._ids[point], prog_fd)
        except OSError as error:
            raise CannotStart(
                f"cannot attach to the tracepoint {point}: {error.strerror}{_paranoid(error)}"
            ) from error


class RawHooks(Hooks):
    """By BTF (``BPF_TRACE_RAW_TP``, since Linux 5.5), where tracefs is of no use.

    The kernel then runs us at every system call of every process.

    :raises CannotStart: this kernel does not say enough of itself.
    """

    probe = "raw_tracepoint"

    def __init__(self, known: Facts) -> None:
        registers = REGISTERS.get(platform.machine())
        if not registers:
            raise CannotStart(f"raw tracepoints are not used on {platform.machine()}")
        member, _ = registers.compat
        missing = [name for name in ("task_struct.pid", member) if name not in known.offsets]
        missing += {point.raw for point in ATTACHED.values()} - known.tracepoints.keys()
        if missing or not known.has_task or not known.has_registers:
            about = known.problem or f"no {missing[0]}" if missing else "no task_struct"
            raise CannotStart(f"raw tracepoints need the kernel's BTF: {about}")
        self._types = known.tracepoints

    def settings(self) -> Mapping[str, int]:
        return {"RAW_TRACEPOINTS": 1}

    def program_type(self, function: str) -> ProgramType:
        point = _RUN_BY[function]
        return own.TRACING_RAW_TP._replace(attach_btf_id=self._types[point.raw])

    def attached(self, function: str, prog_fd: int) -> int:
        try:
            return own.open_raw_tracepoint(prog_fd)
        except OSError as error:
            raise CannotStart(
                f"cannot attach to the raw tracepoint {ATTACHED[function].raw}: {error.strerror}"
            ) from error


def _paranoid(error: OSError) -> str:
    # Debian, Ubuntu and Android have a level that asks for more than CAP_PERFMON.
    try:
        level = Path("/proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    if error.errno != errno.EACCES or int(level) <= PARANOID_MAINLINE:
        return ""
    return f" (kernel.perf_event_paranoid is {level}, which wants CAP_SYS_ADMIN)"


AUTO: Final = "auto"
PROBES: Final = (
    AUTO, TracefsHooks.probe, RawHooks.probe, *(layer.probe for layer in functions.FUNCTIONS)
)  # fmt: skip


COMPAT_CALLS: Final = "32-bit calls"
INNER_CALLS: Final = "calls that the kernel makes itself"
"""Ways into bpf(2), as people call them."""


class Plan(NamedTuple):
    """What runs our programs."""

    base: Hooks
    """That which sees each call begin and return."""
    layer: Functions | None
    """That which sees what the kernel copies, and the calls that it makes itself."""

    @property
    def probe(self) -> str:
        """What documents and people call it."""
        if not self.layer:
            return self.base.probe
        raw = f"{self.base.probe}+" if isinstance(self.base, RawHooks) else ""
        return raw + self.layer.probe

    @property
    def blind(self) -> list[str]:
        """The ways into bpf(2) that it does not see."""
        if self.layer:
            return []
        compat = [] if isinstance(self.base, RawHooks) else [COMPAT_CALLS]
        return [*compat, INNER_CALLS]

    def settings(self) -> Mapping[str, int]:
        """What the C source is compiled with, see hooks.h."""
        of_layer = self.layer.settings() if self.layer else {}
        return {**self.base.settings(), **of_layer}

    def of(self, function: str) -> Hooks | Functions:
        """What runs this program of the C source."""
        return self.base if function in _RUN_BY or not self.layer else self.layer

    def attached(self) -> tuple[str, ...]:
        """The programs that are to be attached."""
        return (*ATTACHED, *(functions.ATTACHED if self.layer else ()))

    def steps(self) -> Mapping[str, tuple[str, ...]]:
        """Tables of programs that others go on to."""
        return STEPS | (functions.STEPS if self.layer else {})


def plans(probe: str, known: Facts, *, kernel_reads: bool) -> Iterator[Callable[[], Plan]]:
    """What can be tried, the best first. Each may raise CannotStart.

    :param probe: of ``PROBES``; ``auto`` for all of them. That which only sees tracepoints of
        bpf(2) is the last: it is blind to 32-bit calls.
    :param kernel_reads: a program may read kernel memory.
    """
    for layer in functions.FUNCTIONS:
        by_itself = probe == AUTO and kernel_reads and layer is not SecurityModule
        if probe == layer.probe or by_itself:
            yield partial(_with_functions, layer, known, kernel_reads)
    if probe in (AUTO, RawHooks.probe):
        yield lambda: Plan(RawHooks(known), None)
    if probe in (AUTO, TracefsHooks.probe):
        yield lambda: Plan(_tracefs_hooks(), None)


def _with_functions(kind: type[Functions], known: Facts, kernel_reads: bool) -> Plan:
    if not kernel_reads:
        raise CannotStart(f"{kind.probe} needs leave to read kernel memory (lockdown?)")
    layer = kind(known)
    try:
        return Plan(_tracefs_hooks(), layer)
    except CannotStart:
        return Plan(RawHooks(known), layer)


def _tracefs_hooks() -> TracefsHooks:
    with Tracefs() as tracefs:
        return TracefsHooks(tracefs)
