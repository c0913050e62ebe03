# SPDX-License-Identifier: Apache-2.0
"""One run on the live kernel: what is opened, attached, begun, watched and ended."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..decoders.capture import plans
from ..decoders.insn import INSN
from ..decoders.progs import PROG_LOAD
from ..events.errors import CannotStart, Mistake, OutputError, UsageError
from ..events.value import printable
from . import btf, loader, privilege
from .cache import Cache
from .cgroup import CgroupPaths, cgroup_directory
from .command import TracedCommand, find_program
from .config import Config
from .judge import Judge, engine_of, judge_for
from .names import HostNames
from .pipeline import Outcome, run
from .process import ProcFs
from .program import KernelFilter, Program, possible_cpus
from .say import say
from .selection import CommandSet, Selection, command_set, kernel_comm
from .sinks import Output, sinks_for
from .source import Live
from .watch import Watch
from .witness import Witness, online_cpus

_PID_NAMESPACE: Final = "pid:"
_PROCESSES: Final = 16_384  # that can be followed at one time

INTERRUPTED: Final = 130
"""The exit status of what Ctrl-C ended, as shells have it."""


class Run(NamedTuple):
    """How a run ended."""

    outcome: Outcome | None
    """None if nobody read the output to the end."""
    command_status: int | None
    """The exit status of ``-- CMD``; None without one."""


def trace(options: Config, command_argv: list[str] | None) -> Run:
    """Traces what the options name, or a command and its children, until it is over.

    What can be wrong is found out first: nothing is begun that cannot go on.

    :raises CannotStart, UsageError, OutputError: see there.
    :raises BrokenPipeError: nobody reads the output any more.
    """
    if options.follow and not options.pids and not command_argv:
        raise UsageError([Mistake(
            "-f follows the children of the processes that -p names: add -p PID"
            " (without -p and -- CMD all processes are traced)"
        )])  # fmt: skip
    commands = command_set(options.events, _commands_of_this_kernel)
    path = find_program(command_argv[0]) if command_argv else ""
    engine = engine_of(options)
    privilege.require()
    with ExitStack() as stack:
        targets = _Targets({_pidfd(pid, stack): pid for pid in options.pids}, options.follow)
        outputs = _open_outputs(options, stack)
        some = bool(options.pids or command_argv)
        sizes = loader.Sizes(options.ring_size, possible_cpus(), _PROCESSES if some else 1)
        witness = _witness(options, commands, some, stack)
        loaded = _loaded(options, sizes, follow=options.follow or bool(command_argv))
        program = Program(loaded, sizes, _plans(options))
        stack.callback(program.close)
        fds = [*program.ring_fds, *([witness.fileno()] if witness else [])]
        watch = stack.enter_context(Watch(fds))
        if command_argv:
            targets.command = TracedCommand(path, command_argv, watch.ignored)
        targets.watched_by(watch, program)
        if options.duration:
            watch.until(options.duration / 1e9)
        _start(program, _kernel_filter(options, commands, targets))
        for output in outputs.each():
            output.begin()
        proc = ProcFs(cgroups=stack.enter_context(CgroupPaths()))
        source = Live(
            program, loaded, watch, proc, record=outputs.record, witness=witness,
            map_types=options.map_types and privilege.may_open_by_id(),
        )  # fmt: skip
        judge = judge_for(options, engine, source.origin)
        if not targets.command:
            if not options.quiet:
                whom = " ".join([str(targets), *_narrowed(options)])
                say(f"tracing bpf(2) of {whom} ({_seen_by(loaded)}); Ctrl-C ends it")
            return Run(_outcome(options, commands, targets, source, outputs, judge=judge), None)
        targets.command.open_gate()
        try:
            outcome = _outcome(options, commands, targets, source, outputs, judge=judge)
        except BrokenPipeError:
            outcome = None
        except OutputError as error:
            say(str(error))
            outcome = Outcome(None, {}, "")
        program.stop()
        return Run(outcome, _status(targets.command, watch))


def _outcome(
    options: Config,
    commands: CommandSet,
    targets: "_Targets",
    source: Live,
    outputs: "_Outputs",
    *,
    judge: Judge | None,
) -> Outcome:
    # What the kernel filters by, it has filtered; of the commands that it counts
    # together, it let all through.
    selection = Selection(commands, results=options.results, min_duration_ns=options.min_duration)
    sinks = sinks_for(
        options, outputs.shown, source.origin, several=targets.several, names=HostNames()
    )
    outcome = run(
        source, selection, sinks, outputs.shown, judge=judge,
        max_events=options.max_events, listings=options.dump_insns,
    )  # fmt: skip
    for output in outputs.each():
        output.flush()
    return outcome


def _status(command: TracedCommand, watch: Watch) -> int:
    # Tracing may be over before the command is; signals still reach it.
    watch.release()
    while not command.ended and not watch.insisted:
        watch.wait()
    return command.status() if command.ended else INTERRUPTED


@dataclass
class _Targets:
    """Whom the user wants to be traced."""

    pids: dict[int, int]
    """Those that ``-p`` names, by pidfd."""
    follow: bool
    command: TracedCommand | None = None

    @property
    def several(self) -> bool:
        """Whether lines may come from more than one process."""
        return len(self.pids) != 1 or self.follow or self.command is not None

    def __str__(self) -> str:
        if not self.pids:
            return "all processes"
        noun = "process" if len(self.pids) == 1 else "processes"
        return f"{noun} {', '.join(map(str, self.pids.values()))}{' and children' * self.follow}"

    def watched_by(self, watch: Watch, program: Program) -> None:
        """It is over with the command, or else with the last process."""

        def forget(pidfd: int) -> None:
            program.discard_pid(self.pids[pidfd])

        if self.command:
            for pidfd in self.pids:
                watch.on_exit(pidfd, forget)
            watch.while_alive([self.command.pidfd], self.command.has_ended, None)
            watch.on_signal(self.command.signalled)
        elif self.pids:
            watch.while_alive(self.pids, forget, program.has_pids if self.follow else None)


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


def _start(program: Program, wanted: KernelFilter) -> None:
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


class _Outputs(NamedTuple):
    shown: Output
    record: Output | None

    def each(self) -> Iterator[Output]:
        return (output for output in self if output)


def _open_outputs(options: Config, stack: ExitStack) -> _Outputs:
    # What is not begun leaves no trace.
    shown = Output(options.output)
    stack.callback(shown.end)
    if not options.record:
        return _Outputs(shown, None)
    record = Output(options.record, mode=0o600, kept=True)
    stack.callback(record.end)
    return _Outputs(shown, record)


def _kernel_filter(options: Config, commands: CommandSet, targets: _Targets) -> KernelFilter:
    pids = frozenset(options.pids)
    families = pids if options.follow else frozenset()
    if targets.command:
        families |= {targets.command.pid}
    return KernelFilter(
        pids=pids - families,
        families=families,
        uids=frozenset(options.users),
        comms=frozenset(map(kernel_comm, options.comms)),
        cgroups=tuple(map(_cgroup, options.cgroups)),
        pid_namespace=_namespace(options.pid_namespace),
        slots=commands.slots(),
    )


def _narrowed(options: Config) -> Iterator[str]:
    # As a person would say it.
    if options.users:
        yield f"of user {' or '.join(map(str, options.users))}"
    if options.comms:
        yield f"named {' or '.join(map(printable, map(os.fsencode, options.comms)))}"
    if options.cgroups:
        yield f"in cgroup {' or '.join(map(printable, map(os.fsencode, options.cgroups)))}"
    if options.pid_namespace:
        yield f"in pid namespace {printable(os.fsencode(options.pid_namespace))}"


def _seen_by(loaded: loader.Loaded) -> str:
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


def _pidfd(pid: int, stack: ExitStack) -> int:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise CannotStart(f"there is no process {pid}") from None
    except OSError as error:
        leader = _leader_of(pid)
        if leader and leader != pid:
            raise CannotStart(f"{pid} is a thread of process {leader}: use -p {leader}") from None
        raise CannotStart(f"cannot watch process {pid}: {error.strerror}") from None
    stack.callback(os.close, pidfd)
    return pidfd


def _leader_of(tid: int) -> int:
    try:
        with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Tgid:")), 0)
    except OSError:
        return 0


def _commands_of_this_kernel() -> dict[int, str]:
    try:
        return btf.kernel_names(["bpf_cmd"]).get("bpf_cmd", {})
    except (OSError, ValueError):
        return {}
