# SPDX-License-Identifier: Apache-2.0
"""From the source of the kernel program to maps, programs and attachments."""

import importlib.util
import mmap
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.util import source_hash
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from ..events.call import ObjectKind
from ..events.errors import CannotStart
from ..events.wire import (
    OBJECT,
    OBJECT_KINDS,
    OWN_CHECKED,
    OWN_COPIED,
    OWN_INSIDE,
    OWN_OUTCOME,
    OWN_RETURN,
    RING_BULK,
    RING_CONTROL,
    RING_DATA,
    RING_VITAL,
    TRACER_CONFIG,
)
from . import compiler, facts, hooks, installed, own
from .cache import Cache, Form
from .compiler import Bytecode
from .facts import Facts
from .functions import Functions
from .hooks import AUTO, Plan
from .own import BpfMap, NotLoaded
from .privilege import NOT_PERMITTED

_CALIBRATE: Final = "calibrate"
_QUIET_TRACEPOINT: Final = "task_rename"  # a program that does nothing hangs there briefly

RING_NAMES: Final = {
    RING_DATA: "data_ring",
    RING_CONTROL: "control_ring",
    RING_VITAL: "vital_ring",
    RING_BULK: "bulk_ring",
}
"""The maps of the C source that are rings."""

_FACTS: Final = Form("kernel.json", Facts.to_json, Facts.from_json)

_TRIES: Final = 5
_NO_DESCRIPTOR: Final = (1 << 31) - 1
_U32: Final = Struct("=I")
_KEY_0: Final = bytes(4)
_OBJECT_OPS: Final = 2 * OBJECT_KINDS * 8  # bytes of struct object_ops
_LOG_LIMIT: Final = 16_384


class Sizes(NamedTuple):
    """Of what is made in the kernel."""

    ring: int
    """Bytes of the two larger rings, a power of two."""
    cpus: int
    """Possible ones."""
    processes: int = 1
    """That may be traced, if only some are: about 64 bytes each."""

    def of_ring(self, number: int) -> int:
        """:param number: ``RING_...``
        :returns: bytes.
        """
        return self.ring if number in (RING_CONTROL, RING_BULK) else self.ring // 2

    @property
    def threads(self) -> int:
        """Threads that have called bpf(2) and live, or are in it: about 2 KB each."""
        return min(max(1024, 256 * self.cpus), 2048)


class Loaded(NamedTuple):
    """What runs in the kernel and is ours."""

    fds: Mapping[str, int]
    """Maps by their name in the C source, ``program:NAME``, ``attached:NAME``."""
    facts: Facts
    warnings: list[str]
    """What is missing here though tracing works."""
    probe: str
    """What it is attached to."""
    blind: tuple[str, ...] = ()
    """The ways into bpf(2) that it does not see, in words."""


def load(sizes: Sizes, cache: Cache, *, probe: str = AUTO, follow: bool) -> Loaded:
    """Makes everything and attaches it; the programs look at nothing until they are told to.

    :param probe: what to attach to, of ``hooks.PROBES``.
    :param follow: also attach to the fork of processes.
    :raises CannotStart: with the reason and the cure.
    """
    known = cache.get(_FACTS, f"{_version()} {facts.kernel_identity()}", facts.gather)
    warnings: list[str] = []
    kernel_reads = facts.may_read_kernel_memory()
    _warn(known, kernel_reads, warnings)
    failed: CannotStart | None = None
    for plan in hooks.plans(probe, known, kernel_reads=kernel_reads):
        try:
            by = plan()
            flags = _flags(sizes, by, known, kernel_reads=kernel_reads)
            fds, remarks = _attached(sizes, cache, by, flags, follow=follow)
        except CannotStart as error:
            failed = error
        else:
            return Loaded(fds, known, warnings + remarks, by.probe, tuple(by.blind))
    assert failed
    raise failed


def _attached(
    sizes: Sizes, cache: Cache, by: Plan, flags: list[str], *, follow: bool
) -> tuple[dict[str, int], list[str]]:
    # Maps, programs and attachments by name, and what is to be said of them.
    remarks: list[str] = []
    with ExitStack() as stack:
        fds = _made(sizes, cache, by, flags, stack)
        if f"program:{_CALIBRATE}" in fds:
            _calibrate(fds, remarks)
        for function in by.attached():
            if function == hooks.FOLLOWING and not follow:
                continue
            event = by.of(function).attached(function, fds[f"program:{function}"])
            stack.callback(os.close, event)
            fds[f"attached:{function}"] = event
        if by.layer:
            _require_runs(fds, by.layer)
        stack.pop_all()
    return fds, remarks


def _require_runs(fds: Mapping[str, int], layer: Functions) -> None:
    """What is attached need not be run: kprobes can be switched off, BPF be no security module.

    :raises CannotStart: it is not, or does not see what functions return.
    """
    try:
        settings = BpfMap(fds["config"], 4, TRACER_CONFIG.size)
        settings[_KEY_0] = TRACER_CONFIG.pack(0, 0, 0, os.getpid(), 0, 0, 0, 0)
        # More than once: another thread may be in one of them, and ours then be left out.
        problem = ""
        for _ in range(_TRIES):
            problem = _run_through(fds)
            if not problem:
                return
    except OSError as error:
        problem = f"cannot be tried ({error.strerror})"
    raise CannotStart(f"{layer.probe} attaches to functions of this kernel but {problem}")


def _run_through(fds: Mapping[str, int]) -> str:
    # Makes calls of ours, and says what our programs did not see of them.
    os.close(own.load_program(own.RAW_TRACEPOINT, own.NOTHING, "nothing"))
    failure = 0
    try:
        own.object_id(_NO_DESCRIPTOR)
    except OSError as error:
        failure = error.errno or 0
    runs = BpfMap(fds["own_runs"], 4, 8)
    outcome, *counts = (
        int.from_bytes(runs[_U32.pack(number)], sys.byteorder)
        for number in (OWN_OUTCOME, OWN_INSIDE, OWN_RETURN, OWN_COPIED, OWN_CHECKED)
    )
    if not all(counts):
        return "is not run"
    return "" if outcome == (1 << 64) - failure else "does not tell what they return"


def _version() -> str:
    """Of all that makes what is kept: changes with any file of ours that takes part."""
    return source_hash(b"".join(path.read_bytes() for path in installed.sources())).hex()


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


def _flags(sizes: Sizes, by: Plan, known: Facts, *, kernel_reads: bool) -> list[str]:
    settings = {
        **by.settings(),
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


def _made(
    sizes: Sizes, cache: Cache, by: Plan, flags: list[str], stack: ExitStack
) -> dict[str, int]:
    # Maps and programs by name. Which BCC compiled what was kept comes last in the key:
    # where there is none, any will do.
    form = Form(f"bytecode-{by.probe}.json", Bytecode.to_json, Bytecode.from_json)
    bcc = _bcc_version()
    key = " ".join([_version(), platform.machine(), *flags, bcc])
    kept = cache.find(form, key, prefix=not bcc)
    if kept:
        with suppress(OSError, KeyError):  # it may be no good after all
            return _loaded(kept, sizes, by, stack)
    bytecode = compiler.compiled(flags)
    try:
        fds = _loaded(bytecode, sizes, by, stack)
    except (OSError, KeyError) as error:
        raise _not_loaded(error) from error
    cache.keep(form, key, bytecode)
    return fds


def _loaded(bytecode: Bytecode, sizes: Sizes, by: Plan, stack: ExitStack) -> dict[str, int]:
    with ExitStack() as ours:
        fds = _put_into_kernel(bytecode, sizes, by, ours)
        stack.push(ours.pop_all())
        return fds


def _put_into_kernel(
    bytecode: Bytecode, sizes: Sizes, by: Plan, stack: ExitStack
) -> dict[str, int]:
    most = {name: sizes.of_ring(number) for number, name in RING_NAMES.items()}
    most["pids"] = sizes.processes
    fds: dict[str, int] = {}
    for name, spec in bytecode.maps.items():
        asked = spec._replace(max_entries=most.get(name, spec.max_entries))
        fds[name] = own.create_map(asked, name)
        stack.callback(os.close, fds[name])
    for name, function in bytecode.functions.items():
        code = bytearray(function.insns)
        for number, of in function.maps.items():
            code[8 * number + 4 : 8 * number + 8] = fds[of].to_bytes(4, sys.byteorder)
        kind = own.RAW_TRACEPOINT if name == _CALIBRATE else by.of(name).program_type(name)
        fd = own.load_program(kind, bytes(code), name)
        stack.callback(os.close, fd)
        fds[f"program:{name}"] = fd
    for table, names in by.steps().items():
        steps = BpfMap(fds[table], 4, 4)
        for number, name in enumerate(names):
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


def _calibrate(fds: dict[str, int], warnings: list[str]) -> None:
    """Shows the kernel program a descriptor of each kind, and compares what it makes of them."""
    try:
        with ExitStack() as stack:
            quiet = own.load_program(own.RAW_TRACEPOINT, own.NOTHING, "nothing")
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
