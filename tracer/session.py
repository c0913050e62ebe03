# SPDX-License-Identifier: Apache-2.0
"""One run on the live kernel: what is opened, attached, begun, watched and ended."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..events.errors import CannotStart, Mistake, OutputError, UsageError
from . import attach, privilege
from .cgroup import CgroupPaths
from .command import TracedCommand, find_program
from .config import Config
from .judge import Judge, engine_of, judge_for
from .names import HostNames
from .output import Output
from .pipeline import Outcome, run
from .process import ProcFs
from .program import Program
from .say import say
from .selection import CommandSet, Selection, command_set
from .sinks import sinks_for
from .source import Live
from .volume import Folding
from .watch import Watch

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
    commands = command_set(options.events, attach.commands_of_this_kernel)
    wanted = _Wanted(commands, Folding.of(options, attach.commands_of_this_kernel))
    path = find_program(command_argv[0]) if command_argv else ""
    engine = engine_of(options)
    privilege.require()
    with ExitStack() as stack:
        targets = _Targets({_pidfd(pid, stack): pid for pid in options.pids}, options.follow)
        outputs = _open_outputs(options, stack)
        attached = attach.attached(
            options, commands, stack, some=bool(options.pids or command_argv),
            follow=options.follow or bool(command_argv),
        )  # fmt: skip
        program, loaded, witness = attached
        watch = stack.enter_context(Watch(attached.fds))
        if command_argv:
            targets.command = TracedCommand(path, command_argv, watch.ignored)
        targets.watched_by(watch, program)
        if options.duration:
            watch.until(options.duration / 1e9)
        families = targets.families
        attach.start(program, attach.kernel_filter(options, commands, families=families))
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
                whom = " ".join([str(targets), *attach.narrowed(options)])
                say(f"tracing bpf(2) of {whom} ({attach.seen_by(loaded)}); Ctrl-C ends it")
            return Run(_outcome(options, wanted, targets, source, outputs, judge=judge), None)
        targets.command.open_gate()
        try:
            outcome = _outcome(options, wanted, targets, source, outputs, judge=judge)
        except BrokenPipeError:
            outcome = None
        except OutputError as error:
            say(str(error))
            outcome = Outcome(None, {}, "")
        program.stop()
        return Run(outcome, _status(targets.command, watch))


def _outcome(
    options: Config,
    wanted: "_Wanted",
    targets: "_Targets",
    source: Live,
    outputs: "_Outputs",
    *,
    judge: Judge | None,
) -> Outcome:
    # What the kernel filters by, it has filtered; of the commands that it counts
    # together, it let all through.
    selection = Selection(
        wanted.commands, results=options.results, min_duration_ns=options.min_duration
    )
    sinks = sinks_for(
        options, outputs.shown, source.origin, several=targets.several, names=HostNames()
    )
    outcome = run(
        source, selection, sinks, outputs.shown, judge=judge, folding=wanted.folding,
        max_events=options.max_events, listings=options.dump_insns,
    )  # fmt: skip
    for output in outputs.each():
        output.flush()
    return outcome


class _Wanted(NamedTuple):
    commands: CommandSet
    folding: Folding


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

    @property
    def families(self) -> frozenset[int]:
        """Those that are traced together with their children."""
        followed = self.pids.values() if self.follow else ()
        return frozenset([*followed, *([self.command.pid] if self.command else [])])

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
