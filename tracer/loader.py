# SPDX-License-Identifier: Apache-2.0
"""From the source of the kernel program to maps, programs and attachments."""

import hashlib
import importlib.util
import mmap
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from ..events.call import ObjectKind
from ..events.errors import CannotStart
from ..events.wire import OBJECT, OBJECT_KINDS
from . import compiler, facts, installed, libc, own
from .cache import Cache, Form
from .compiler import Bytecode
from .facts import Facts
from .own import BpfMap, NotLoaded
from .privilege import NOT_PERMITTED
from .tracefs import Tracefs

MAPS: Final = (
    "config", "plans", "pids", "uids", "comms", "cgroups", "blank_thread", "counts", "calls",
    "unfollowed", "threads_used",
)  # fmt: skip
"""The maps of the C source that user space works with."""

_ENTER, _EXIT = ("syscalls", "sys_enter_bpf"), ("syscalls", "sys_exit_bpf")
_NEW_TASK = ("task", "task_newtask")
_EXEC_TASK, _END_TASK = ("sched", "sched_process_exec"), ("sched", "sched_process_exit")
_FUNCTIONS: Final = {
    "enter_bpf": _ENTER, "exit_bpf": _EXIT, "new_task": _NEW_TASK, "exec_task": _EXEC_TASK,
    "exit_task": _END_TASK,
}  # fmt: skip
"""The programs of the C source by their tracepoints."""
_STEPS: Final = ("step_process", "step_enter_bulk", "step_exit_bulk", "step_exit_long")
"""Programs that others go on to, in the order of enum step."""
_CALIBRATE: Final = "calibrate"
_QUIET_TRACEPOINT: Final = "task_rename"  # a program that does nothing hangs there briefly

_BYTECODE: Final = Form("bytecode.json", Bytecode.to_json, Bytecode.from_json)
_FACTS: Final = Form("kernel.json", Facts.to_json, Facts.from_json)

_U32: Final = Struct("=I")
_KEY_0: Final = bytes(4)
_OBJECT_OPS: Final = 2 * OBJECT_KINDS * 8  # bytes of struct object_ops
_LOG_LIMIT: Final = 16_384


class Sizes(NamedTuple):
    """Of what is made in the kernel."""

    ring: int
    """Bytes, a power of two."""
    cpus: int
    """Possible ones."""

    @property
    def threads(self) -> int:
        """Threads that have called bpf(2) and live, or are in it: about 2 KB each."""
        return min(max(1024, 256 * self.cpus), 2048)

    @property
    def processes(self) -> int:
        """Traced ones, if only some are: about 64 bytes each."""
        return 16_384


class Loaded(NamedTuple):
    """What runs in the kernel and is ours."""

    fds: Mapping[str, int]
    """Maps by their name in the C source, ``program:NAME``, ``attached:NAME``."""
    facts: Facts
    warnings: list[str]
    """What is missing here though tracing works."""
    has_objects: bool


def load(sizes: Sizes, cache: Cache, *, follow: bool) -> Loaded:
    """Makes everything and attaches it; the programs look at nothing until they are told to.

    :param follow: also attach to the fork of processes.
    :raises CannotStart: with the reason and the cure.
    """
    known = cache.get(_FACTS, f"{_version()} {facts.kernel_identity()}", facts.gather)
    warnings: list[str] = []
    kernel_reads = facts.may_read_kernel_memory()
    _warn(known, kernel_reads, warnings)
    with Tracefs() as tracefs, ExitStack() as stack:
        flags = _flags(sizes, tracefs, known, kernel_reads=kernel_reads)
        fds = _made(sizes, cache, flags, stack)
        has_objects = f"program:{_CALIBRATE}" in fds and _calibrate(fds, warnings)
        for function, tracepoint in _FUNCTIONS.items():
            if tracepoint == _NEW_TASK and not follow:
                continue
            event = _attached(tracefs, tracepoint, fds[f"program:{function}"])
            stack.callback(os.close, event)
            fds[f"attached:{function}"] = event
        stack.pop_all()
    return Loaded(fds, known, warnings, has_objects)


def _version() -> str:
    """Of all that makes what is kept: changes with any file of ours that takes part."""
    digest = hashlib.sha256()
    for path in installed.sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bcc_version() -> str:
    """Without importing it, which is what we are at pains not to do.

    Empty if there is none: then what another one compiled will do.
    """
    spec = importlib.util.find_spec("bcc")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    try:
        return version.read_text(encoding="utf-8") if version else ""
    except OSError:
        return "unknown"


def _warn(known: Facts, kernel_reads: bool, warnings: list[str]) -> None:
    if known.problem:
        warnings.append(
            f"no BTF of this kernel ({known.problem}): objects behind descriptors, what"
            " process calls besides its ids, keys and values are not shown; constants newer than"
            " this bpfsnoop show as numbers, the arguments of BPF_COMMON_ATTRS as 0"
        )
    elif not kernel_reads:
        warnings.append(
            "this kernel does not permit BPF to read its memory (lockdown=confidentiality?):"
            " objects behind descriptors, keys and values, and paths of executables are not shown"
        )
    elif not known.has_objects:
        warnings.append(
            "the structs of this kernel are not as expected: objects behind descriptors,"
            " keys and values are not shown"
        )


def _flags(sizes: Sizes, tracefs: Tracefs, known: Facts, *, kernel_reads: bool) -> list[str]:
    events = (_ENTER, _EXIT, _NEW_TASK, _EXEC_TASK)
    enter, leave, fork, execute = (tracefs.offsets(*event) for event in events)
    try:
        places = {
            "ENTER_CMD": enter["cmd"], "ENTER_UATTR": enter["uattr"], "ENTER_SIZE": enter["size"],
            "EXIT_RET": leave["ret"], "NEWTASK_PID": fork["pid"],
            "NEWTASK_CLONE_FLAGS": fork["clone_flags"], "EXEC_OLD_PID": execute["old_pid"],
        }  # fmt: skip
    except KeyError as error:
        raise CannotStart(f"the tracepoints of this kernel have no field {error}") from None
    settings = places | {
        "PAGE_SIZE": mmap.PAGESIZE,
        "POSSIBLE_CPUS": sizes.cpus,
        "THREADS_MAX": sizes.threads,
    }
    return [
        f"-I{installed.KERNEL / 'include'}",
        f"-I{installed.WIRE}",
        f"-I{installed.KERNEL}",
        *(f"-D{name}={value}" for name, value in settings.items()),
        *known.flags(kernel_reads=kernel_reads),
    ]


def _made(sizes: Sizes, cache: Cache, flags: list[str], stack: ExitStack) -> dict[str, int]:
    # Maps and programs by name. What was kept may be no good after all.
    bcc = _bcc_version()
    key = " ".join([_version(), platform.machine(), *flags, bcc])
    for attempt in ("kept", "new"):
        with ExitStack() as attempted:
            bytecode = cache.get(_BYTECODE, key, lambda: compiler.compiled(flags), near=not bcc)
            try:
                fds = _loaded(bytecode, sizes, attempted)
            except (OSError, KeyError) as error:
                cache.drop(_BYTECODE)
                if attempt == "new":
                    raise _not_loaded(error) from error
                continue
            stack.push(attempted.pop_all())
            return fds
    raise AssertionError("not reached")


def _loaded(bytecode: Bytecode, sizes: Sizes, stack: ExitStack) -> dict[str, int]:
    most = {"calls": sizes.ring, "pids": sizes.processes}
    fds: dict[str, int] = {}
    for name, spec in bytecode.maps.items():
        asked = spec._replace(max_entries=most.get(name, spec.max_entries))
        fds[name] = own.create_map(asked, name)
        stack.callback(os.close, fds[name])
    for name, function in bytecode.functions.items():
        code = bytearray(function.insns)
        for number, of in function.maps.items():
            code[8 * number + 4 : 8 * number + 8] = fds[of].to_bytes(4, sys.byteorder)
        kind = own.RAW_TRACEPOINT if name == _CALIBRATE else own.TRACEPOINT
        fd = own.load_program(kind, bytes(code), name)
        stack.callback(os.close, fd)
        fds[f"program:{name}"] = fd
    steps = BpfMap(fds["steps"], 4, 4)
    for number, name in enumerate(_STEPS):
        if step := fds.get(f"program:{name}"):
            steps[_U32.pack(number)] = _U32.pack(step)
    return fds


def _not_loaded(error: Exception) -> CannotStart:
    detail = error.log[-_LOG_LIMIT:] if isinstance(error, NotLoaded) else ""
    if isinstance(error, PermissionError) and not detail:
        return CannotStart(f"{NOT_PERMITTED}; -v shows the details", detail)
    return CannotStart(
        f"the kernel did not take the program ({error}); -v shows the details", detail
    )


def _attached(tracefs: Tracefs, tracepoint: tuple[str, str], prog_fd: int) -> int:
    try:
        return libc.attach_tracepoint(tracefs.event_id(*tracepoint), prog_fd)
    except OSError as error:
        raise CannotStart(
            f"cannot attach to the tracepoint {':'.join(tracepoint)}: {error.strerror}"
        ) from error


def _calibrate(fds: dict[str, int], warnings: list[str]) -> bool:
    """Shows the kernel program a descriptor of each kind, and compares what it makes of them."""
    try:
        with ExitStack() as stack:
            nothing = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit
            quiet = own.load_program(own.RAW_TRACEPOINT, nothing, "nothing")
            stack.callback(os.close, quiet)
            examples = {ObjectKind.MAP: fds["config"], ObjectKind.PROG: quiet}
            examples[ObjectKind.LINK] = own.open_raw_tracepoint(quiet, _QUIET_TRACEPOINT)
            stack.callback(os.close, examples[ObjectKind.LINK])
            with suppress(OSError):  # the kernel's own, if it has BTF
                examples[ObjectKind.BTF] = own.open_btf(1)
                stack.callback(os.close, examples[ObjectKind.BTF])
            for kind, fd in examples.items():
                own.run_raw_tracepoint(fds[f"program:{_CALIBRATE}"], (kind, fd))
                seen = OBJECT.unpack(BpfMap(fds["calibrated"], 4, OBJECT.size)[_KEY_0])
                wanted = 1 if kind is ObjectKind.BTF else own.object_id(fd)
                if seen[:2] != (kind, wanted):
                    raise OSError(0, f"a {kind.name.lower()} looks like {seen[:2]}")
    except OSError as error:
        BpfMap(fds["object_ops"], 4, _OBJECT_OPS)[_KEY_0] = bytes(_OBJECT_OPS)
        warnings.append(
            "objects behind descriptors, keys and values are not shown: calibration failed"
            f" ({error.strerror})"
        )
        return False
    return True
