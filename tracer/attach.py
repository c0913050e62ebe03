# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of a live run: what is loaded, attached, and told whom to look at."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from ..decoders.capture import plans
from ..decoders.insn import INSN
from ..decoders.progs import PROG_LOAD
from ..events.errors import CannotStart
from ..events.value import printable
from . import btf, loader
from .cache import Cache
from .cgroup import cgroup_directory
from .config import Config
from .program import KernelFilter, Program, possible_cpus
from .say import say
from .selection import CommandSet, kernel_comm
from .witness import Witness, online_cpus

_PID_NAMESPACE: Final = "pid:"
_PROCESSES: Final = 16_384  # that can be followed at one time


class Attached(NamedTuple):
    """What runs in the kernel for us, and still looks at nothing."""

    program: Program
    loaded: loader.Loaded
    witness: Witness | None

    @property
    def fds(self) -> list[int]:
        """That become readable when there is something to read."""
        witness = [self.witness.fileno()] if self.witness else []
        return [*self.program.ring_fds, *witness]


def attached(
    options: Config, commands: CommandSet, stack: ExitStack, *, some: bool, follow: bool
) -> Attached:
    """Loads and attaches; the stack detaches.

    :param some: not all processes are traced.
    :param follow: some are traced together with their children.
    :raises CannotStart: with what is missing.
    """
    sizes = loader.Sizes(options.ring_size, possible_cpus(), _PROCESSES if some else 1)
    witness = _witness(options, commands, some, stack)
    loaded = _loaded(options, sizes, follow=follow)
    program = Program(loaded, sizes, _plans(options))
    stack.callback(program.close)
    return Attached(program, loaded, witness)


def _witness(options: Config, commands: CommandSet, some: bool, stack: ExitStack) -> Witness | None:
    # It sees loads of all processes, and so is of use only where we see them too.
    narrowed = some or options.users or options.comms or options.cgroups or options.pid_namespace
    if narrowed or not options.witness or PROG_LOAD.number not in commands:
        return None
    try:
        witness = Witness(online_cpus())
    except CannotStart as error:
        say(f"no independent witness of loaded programs: {error}")
        return None
    stack.callback(witness.close)
    return witness


def _plans(options: Config) -> dict[int, bytes]:
    bulk_limit = options.max_insns * INSN.size
    if not options.strace_compat:
        return plans(bulk_limit)
    from ..decoders import strace  # noqa: PLC0415 - nobody else needs it

    return plans(bulk_limit, strace.COMMANDS)


def start(program: Program, wanted: KernelFilter) -> None:
    """From here on it looks.

    :raises CannotStart: the kernel does not take the filters.
    """
    try:
        program.start(wanted)
    except OSError as error:
        raise CannotStart(f"the kernel does not take the filters: {error.strerror}") from error


def _loaded(options: Config, sizes: loader.Sizes, *, follow: bool) -> loader.Loaded:
    try:
        loaded = loader.load(sizes, Cache(options.cache), probe=options.probe, follow=follow)
    except CannotStart as error:
        if options.verbose and error.detail and sys.stderr:
            sys.stderr.write(error.detail)
        raise
    for warning in loaded.warnings:
        say(warning)
    return loaded


def kernel_filter(
    options: Config, commands: CommandSet, *, families: frozenset[int] = frozenset()
) -> KernelFilter:
    """What the options want of the kernel program.

    :param families: processes that are traced together with their children.
    :raises CannotStart: a cgroup or namespace is not there.
    """
    return KernelFilter(
        pids=frozenset(options.pids) - families,
        families=families,
        uids=frozenset(options.users),
        comms=frozenset(map(kernel_comm, options.comms)),
        cgroups=tuple(map(_cgroup, options.cgroups)),
        pid_namespace=_namespace(options.pid_namespace),
        slots=commands.slots(),
    )


def narrowed(options: Config) -> Iterator[str]:
    """What the filters leave, as a person would say it."""
    if options.users:
        yield f"of user {' or '.join(map(str, options.users))}"
    if options.comms:
        yield f"named {' or '.join(map(printable, map(os.fsencode, options.comms)))}"
    if options.cgroups:
        yield f"in cgroup {' or '.join(map(printable, map(os.fsencode, options.cgroups)))}"
    if options.pid_namespace:
        yield f"in pid namespace {printable(os.fsencode(options.pid_namespace))}"


def seen_by(loaded: loader.Loaded) -> str:
    """The probe plan, and what it does not see."""
    return ", ".join([loaded.probe, *(f"blind to {way}" for way in loaded.blind)])


def _cgroup(path: str) -> str:
    try:
        return cgroup_directory(path)
    except ValueError as error:
        raise CannotStart(f"--cgroup: {error}") from None


def _namespace(path: str) -> tuple[int, int] | None:
    if not path:
        return None
    try:
        about = os.stat(path)
        kind = os.readlink(path) if os.path.islink(path) else _PID_NAMESPACE
        nsfs = os.stat("/proc/self/ns/pid").st_dev
    except OSError as error:
        raise CannotStart(f"--pidns: cannot look at {path}: {error.strerror}") from None
    if about.st_dev != nsfs or not kind.startswith(_PID_NAMESPACE):
        raise CannotStart(f"--pidns: {path} is not a pid namespace: give a PID or /proc/PID/ns/pid")
    return about.st_dev, about.st_ino


def commands_of_this_kernel() -> dict[int, str]:
    """Commands of bpf(2) by their number; empty if the kernel does not say."""
    try:
        return btf.kernel_names(["bpf_cmd"]).get("bpf_cmd", {})
    except (OSError, ValueError):
        return {}
