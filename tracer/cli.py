"""The command line: ``bpfsnoop [options] [-- CMD ARG...]`` and its subcommands."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from typing import Final

from ..events.errors import BpfsnoopError, CannotStart, Mistake, UsageError
from . import btf, loader, privilege
from .command import TracedCommand, find_program
from .config import Config, add_options, configured
from .pipeline import Outcome, run
from .program import KernelFilter, Program
from .selection import CommandSet, Selection, command_set, kernel_comm
from .sinks import Output, say, sinks_for
from .source import PROBE, Live, Replay
from .watch import Watch

_DONE: Final = 0
_CANNOT: Final = 1
_USAGE: Final = 2
_LOST: Final = 3
_INTERRUPTED: Final = 130

_DESCRIPTION: Final = """\
Shows every bpf(2) call of this host as it returns, in strace's spelling or as
JSON lines. With '-- CMD', those of CMD and its children."""

_EXAMPLES: Final = """\
examples:
  bpfsnoop                              all processes, until Ctrl-C
  bpfsnoop -p 1234 -T                   one process, with times
  bpfsnoop -e @control -z --json        what succeeded in changing BPF, for machines
  bpfsnoop -o trace.txt -- bpftool prog run bpftool and trace it
  bpfsnoop -d 10s -c                    ten seconds in a table
  bpfsnoop --record calls.rec           keep everything for 'bpfsnoop replay'

subcommands:
  bpfsnoop replay FILE                  show a recording, with the same options
  bpfsnoop schema                       print the JSON Schema of the documents

exit status: 0 done; 1 cannot start or go on; 2 wrong usage; 3 events were lost
under --strict; with '-- CMD', that of CMD."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    :returns: the exit status.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    subcommand = _SUBCOMMANDS.get(argv[0]) if argv else None
    try:
        return subcommand(argv[1:]) if subcommand else _trace(argv)
    except UsageError as error:
        for mistake in error.mistakes:
            say(str(mistake))
        return _USAGE
    except BpfsnoopError as error:
        say(str(error))
        return _CANNOT
    except BrokenPipeError:
        return _DONE  # nobody reads any more, such as after '| head'
    except KeyboardInterrupt:
        return _INTERRUPTED


def _trace(argv: Sequence[str]) -> int:
    options, command_argv = _split(argv)
    parser = argparse.ArgumentParser(
        "bpfsnoop",
        usage="bpfsnoop [options] [-- CMD ARG...]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, replay=False)
    other = parser.add_argument_group("other")
    other.add_argument("--ebpf", action="store_true", help="print the kernel program and exit")
    other.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    parsed = parser.parse_args(options)
    if parsed.version:
        return _print(f"bpfsnoop {metadata.version('bpfsnoop')}\n".encode())
    if parsed.ebpf:
        return _print(loader.SOURCE.read_bytes())
    if parsed.stray:
        raise UsageError([Mistake(
            f"what is {parsed.stray[0]!r}? To run and trace a program, put -- before it:"
            f" bpfsnoop -- {' '.join(parsed.stray)}"
        )])  # fmt: skip
    return _trace_live(configured(parsed), command_argv)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    # Options, and what stands behind the first "--".
    if "--" not in argv:
        return list(argv), None
    at = argv.index("--")
    if at + 1 == len(argv):
        raise UsageError([Mistake("-- is to be followed by the program to trace")])
    return list(argv[:at]), list(argv[at + 1 :])


def _trace_live(options: Config, command_argv: list[str] | None) -> int:
    # What can be wrong is found out first: nothing is begun that cannot go on.
    if options.follow and not options.pids:
        raise UsageError([Mistake(
            "-f follows the children of the processes that -p names: add -p PID"
            " (without -p all processes are traced, with -- CMD its children are)"
        )])  # fmt: skip
    commands = command_set(options.events, _commands_of_this_kernel)
    path = find_program(command_argv[0]) if command_argv else ""
    privilege.require()
    with ExitStack() as stack:
        pidfds = {_pidfd(pid, stack): pid for pid in options.pids}
        outputs = _open_outputs(options, stack)
        loaded = _loaded(options, follow=options.follow or bool(command_argv))
        program = Program(loaded, options.ring_size)
        stack.callback(program.close)
        watch = stack.enter_context(Watch(program.ring_fd))
        command = TracedCommand(path, command_argv) if command_argv else None
        _end_conditions(watch, program, options, pidfds, command)
        program.start(_kernel_filter(options, commands, command))
        for output in outputs:
            output.begin()
        record = outputs[1] if options.record else None
        source = Live(program, loaded.kernel_names, watch, record)
        if command:
            command.open_gate()
        elif not options.quiet:
            say(_started(options))
        try:
            outcome = _run_live(options, source, commands, outputs)
        except BrokenPipeError:
            if command:
                return command.wait()
            raise
    return _exit_status(options, outcome, command)


def _run_live(
    options: Config, source: Live, commands: CommandSet, outputs: Sequence[Output]
) -> Outcome:
    # What the kernel filters by, it has filtered; of the commands that it counts
    # together, it let all through.
    selection = Selection(commands, results=options.results, min_duration_ns=options.min_duration)
    sinks = sinks_for(options, outputs[0], source.origin)
    outcome = run(source, selection, sinks, outputs[0], max_events=options.max_events)
    for output in outputs:
        output.flush()
    return outcome


def _loaded(options: Config, *, follow: bool) -> loader.Loaded:
    pages = options.ring_size // os.sysconf("SC_PAGESIZE")
    try:
        loaded = loader.load(ring_pages=pages, follow=follow)
    except CannotStart as error:
        if options.verbose and error.detail:
            sys.stderr.write(error.detail)
        raise
    for warning in loaded.warnings:
        say(warning)
    return loaded


def _open_outputs(options: Config, stack: ExitStack) -> list[Output]:
    # The output and, if asked for, the recording; what is not begun leaves no trace.
    outputs = [Output(options.output)]
    stack.callback(outputs[0].end)
    if options.record:
        outputs.append(Output(options.record, mode=0o600))
        stack.callback(outputs[1].end)
    return outputs


def _kernel_filter(
    options: Config, commands: CommandSet, command: TracedCommand | None
) -> KernelFilter:
    pids = frozenset(options.pids)
    families = pids if options.follow else frozenset()
    if command:
        families |= {command.pid}
    return KernelFilter(
        pids=pids - families,
        families=families,
        uids=frozenset(options.users),
        comms=frozenset(map(kernel_comm, options.comms)),
        slots=commands.slots(),
    )


def _end_conditions(
    watch: Watch,
    program: Program,
    options: Config,
    pidfds: Mapping[int, int],
    command: TracedCommand | None,
) -> None:
    if options.duration:
        watch.until(options.duration / 1e9)
    if command:
        watch.while_alive([command.pidfd], lambda pidfd: None, None)
        watch.on_signal(command.signalled)
    elif pidfds:
        watch.while_alive(
            pidfds,
            lambda pidfd: program.discard_pid(pidfds[pidfd]),
            program.has_pids if options.follow else None,
        )


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
        return btf.kernel_names(enums=("bpf_cmd",)).get("bpf_cmd", {})
    except (OSError, ValueError):
        return {}


def _started(options: Config) -> str:
    whom = "all processes"
    if options.pids:
        noun = "process" if len(options.pids) == 1 else "processes"
        whom = f"{noun} {', '.join(map(str, options.pids))}"
        whom += " and children" * options.follow
    return f"tracing bpf(2) of {whom} ({PROBE}); Ctrl-C ends it"


def _exit_status(options: Config, outcome: Outcome, command: TracedCommand | None) -> int:
    if outcome.problem:
        say(outcome.problem)
        return _CANNOT
    for sentence in _losses(outcome):
        say(sentence)
    if options.strict and not outcome.totals.complete:
        return _LOST
    return command.wait() if command else _DONE


def _losses(outcome: Outcome) -> Iterator[str]:
    totals = outcome.totals
    if totals.lost:
        each = ", ".join(
            f"{outcome.names.get(slot, slot)} {count.lost}"
            for slot, count in totals.counts.items()
            if count.lost
        )
        yield (
            f"lost {totals.lost} of {totals.seen} calls ({each}):"
            " narrow the filter or give a larger --ring-size"
        )
    if totals.missed_runs:
        yield (
            f"the kernel left out {totals.missed_runs} runs of a probe, each perhaps a lost"
            " call: another tracing program was running on that CPU"
        )
    if totals.unfollowed:
        yield f"{totals.unfollowed} children were not traced: more than there is room for"


def _replay(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop replay",
        description="Shows the calls of a recording that --record made.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the recording")
    add_options(parser, replay=True)
    parsed = parser.parse_args(argv)
    options = configured(parsed)
    try:
        file = open(parsed.file, "rb")  # noqa: SIM115 - closed by the stack
    except OSError as error:
        raise CannotStart(f"cannot open {parsed.file}: {error.strerror}") from None
    with ExitStack() as stack:
        stack.enter_context(file)
        source = Replay(file, parsed.file)
        output = Output(options.output)
        stack.callback(output.end)
        output.begin()
        names = source.kernel_names.get("bpf_cmd", {})
        selection = Selection(
            command_set(options.events, lambda: names),
            frozenset(options.pids),
            frozenset(options.users),
            frozenset(map(kernel_comm, options.comms)),
            options.results,
            options.min_duration,
        )
        sinks = sinks_for(options, output, source.origin)
        outcome = run(source, selection, sinks, output, max_events=options.max_events)
        return _exit_status(options, outcome, None)


def _schema(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop schema", description="Prints the JSON Schema of the documents of --json."
    )
    parser.parse_args(argv)
    return _print((loader.ROOT / "events" / "schema.json").read_bytes())


def _print(content: bytes) -> int:
    output = Output("")
    output.write(content)
    output.flush()
    return _DONE


_SUBCOMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "replay": _replay,
    "schema": _schema,
}
