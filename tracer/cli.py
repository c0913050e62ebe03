# SPDX-License-Identifier: Apache-2.0
"""The command line: ``bpfsnoop [options] [-- CMD ARG...]`` and its subcommands."""

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from ..events.call import Totals
from ..events.errors import BpfsnoopError, CannotStart, Mistake, UsageError
from . import installed, session
from .config import Config, add_doctor_options, add_options, add_settings, configured
from .judge import engine_of, judge_for
from .names import ReplayNames
from .output import Output
from .pipeline import Outcome, run
from .say import say
from .selection import Selection, command_set, kernel_comm
from .session import INTERRUPTED
from .sinks import TextStyle, sinks_for
from .source import Replay
from .version import VERSION
from .volume import Folding

_DONE: Final = 0
_CANNOT: Final = 1
_USAGE: Final = 2
_LOST: Final = 3
_FIRST_OF_OURS: Final = 3
_WIDE: Final = 100  # columns, where there is no terminal to ask

_DESCRIPTION: Final = """\
Shows every bpf(2) call of this host as it returns, in strace's spelling or as
JSON lines. With '-- CMD', those of CMD and its children."""

_EXAMPLES: Final = """\
examples:
  bpfsnoop                              all processes, until Ctrl-C
  bpfsnoop -p 1234 -T                   one process, with times
  bpfsnoop -e @control -z --json        what succeeded in changing BPF, for machines
  bpfsnoop -- bpftool prog show         a program and its children
  bpfsnoop --rules default              with alerts where a rule matches
  bpfsnoop -d 10s -c                    ten seconds in a table
  bpfsnoop --record calls.rec           keep everything for 'bpfsnoop replay'

subcommands:
  bpfsnoop daemon -c FILE               trace until told to stop, for a SIEM
  bpfsnoop replay FILE                  show a recording, with the same options
  bpfsnoop insns FILE                   disassemble a program
  bpfsnoop rules list                   the rules of --rules default
  bpfsnoop rules check FILE...          find mistakes in Sigma rules
  bpfsnoop schema                       print the JSON Schema of the documents
  bpfsnoop doctor                       what works on this host, and what helps

exit status: 0 done; 1 cannot start or go on; 2 wrong usage; 3 events were lost
under --strict; with '-- CMD', that of CMD."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    :returns: the exit status.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    subcommand = _SUBCOMMANDS.get(argv[0]) if argv else None
    _fill_standard_streams()
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C, until tracing handles them
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
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
        return INTERRUPTED


def _fill_standard_streams() -> None:
    # A file that we open must not become a standard stream that was closed. The
    # null device is opened for reading only: to write to it is still an error.
    while (fd := os.open(os.devnull, os.O_RDONLY)) < _FIRST_OF_OURS:
        os.set_inheritable(fd, True)
    os.close(fd)


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
    other = add_options(parser, replay=False)
    other.add_argument("--ebpf", action="store_true", help="print the kernel program and exit")
    other.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    parsed = parser.parse_args(options)
    if parsed.version:
        return _print(f"bpfsnoop {VERSION}\n".encode())
    if parsed.ebpf:
        return _print(installed.kernel_program().encode())
    if parsed.stray:
        raise UsageError([Mistake(_stray(parsed.stray))])
    configuration = configured(parsed)
    outcome, command_status = session.trace(configuration, command_argv)
    status = _judged(outcome, configuration) if outcome else _DONE
    return status or command_status or _DONE


def _stray(words: Sequence[str]) -> str:
    if words[0] in _SUBCOMMANDS:
        return f"a subcommand comes first: bpfsnoop {words[0]} ..."
    return (
        f"what is {words[0]!r}? To run and trace a program, put -- before it:"
        f" bpfsnoop -- {shlex.join(words)}"
    )


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    # Options, and what stands behind the first "--".
    if "--" not in argv:
        return list(argv), None
    at = argv.index("--")
    if at + 1 == len(argv):
        raise UsageError([Mistake("-- is to be followed by the program to trace")])
    return list(argv[:at]), list(argv[at + 1 :])


def _judged(outcome: Outcome, options: Config) -> int:
    """Says what is missing.

    :returns: an exit status.
    """
    totals = outcome.totals
    if totals is None:
        if outcome.problem:
            say(outcome.problem)
        return _CANNOT
    for sentence in _losses(totals, outcome.names):
        say(sentence)
    if outcome.forgotten:
        say(f"{outcome.forgotten} groups of events had to make room: a correlation may be missing")
    return _LOST if options.strict and not totals.complete else _DONE


def _losses(totals: Totals, names: Mapping[int, str]) -> Iterator[str]:
    if totals.lost:
        each = ", ".join(
            f"{names.get(slot, slot)} {count.lost}"
            for slot, count in totals.counts.items()
            if count.lost
        )
        yield (
            f"lost {totals.lost} of {totals.seen} calls ({each}):"
            " narrow the filter or give a larger --ring-size"
        )
    if totals.incomplete:
        yield (
            f"{totals.incomplete} calls came without some of their data:"
            " give a larger --ring-size, or less --max-insns"
        )
    if totals.unfinished:
        yield f"{totals.unfinished} calls had begun but not returned, and are not shown"
    if totals.missed_runs:
        yield (
            f"the kernel left out {totals.missed_runs} runs of a probe, each perhaps a lost"
            " call of this host: another probe or a map update was under way on that CPU"
        )
    if totals.unfollowed:
        yield f"{totals.unfollowed} children are not traced: the kernel had no room or no time"


def _daemon(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop daemon",
        description="Traces all processes until SIGTERM, judges what they do by rules, and"
        " delivers documents to the sinks of its configuration. SIGHUP reloads that and the"
        " rules, and reopens files.",
        epilog="exit status: 0 it was told to stop; 1 it cannot start or go on; 2 the"
        " configuration is wrong.",
        allow_abbrev=False,
    )
    add_settings(parser, "-c")
    parser.add_argument(
        "--check", action="store_true", help="only say what is wrong with configuration and rules"
    )
    parsed = parser.parse_args(argv)
    if parsed.config:
        parsed.config = os.path.abspath(parsed.config)
    options = configured(parsed, daemon=True)
    if parsed.check:
        return _check(options)
    from .daemon.run import serve  # noqa: PLC0415 - what runs at a terminal does without

    return _judged(serve(options, lambda: configured(parsed, daemon=True)), options)


def _check(options: Config) -> int:
    from .daemon.doubts import doubts  # noqa: PLC0415 - only the daemon has any

    engine = engine_of(options)
    telling = engine.telling if engine else []
    found = list(doubts(options, telling))
    for sentence in found:
        say(sentence)
    verdict = "it can start all the same" if found else "nothing is wrong"
    return _print_lines([f"{len(telling)} rules, {len(options.sinks)} sinks: {verdict}"])


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
    engine = engine_of(options)
    try:
        file = open(parsed.file, "rb")  # noqa: SIM115 - closed by the stack
    except OSError as error:
        raise CannotStart(f"cannot open {parsed.file}: {error.strerror}") from None
    with ExitStack() as stack:
        stack.enter_context(file)
        source = Replay(file, parsed.file)
        names = source.kernel_names.get("bpf_cmd", {})
        selection = Selection(
            command_set(options.events, lambda: names),
            frozenset(options.pids),
            frozenset(options.users),
            frozenset(map(kernel_comm, options.comms)),
            options.results,
            options.min_duration,
        )
        folding = Folding.of(options, lambda: names)
        output = Output(options.output)
        stack.callback(output.end)
        if os.path.sameopenfile(file.fileno(), output.fileno()):
            raise UsageError([Mistake(f"-o {options.output} is the recording itself")])
        output.begin()
        sinks = sinks_for(
            options, output, source.origin, several=len(options.pids) != 1, names=ReplayNames()
        )
        outcome = run(
            source, selection, sinks, output, judge=judge_for(options, engine, source.origin),
            folding=folding, max_events=options.max_events, listings=options.dump_insns,
        )  # fmt: skip
        return _judged(outcome, options)


def _insns(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop insns",
        description="Disassembles a program in the kernel's notation: an object file, as"
        " --save-progs and clang make them, or nothing but instructions.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the program; - for standard input")
    parser.add_argument(
        "--classic", action="store_true",
        help="classic BPF: instructions, or what tcpdump -ddd, -dd and iptables print",
    )  # fmt: skip
    parsed = parser.parse_args(argv)
    from . import listing  # noqa: PLC0415 - classic BPF and more, which tracing does without

    output = Output("")
    for line in listing.of_file(parsed.file, classic=parsed.classic):
        output.write(f"{line}\n".encode())
    output.flush()
    return _DONE


def _rules(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop rules",
        description="Sigma rules about bpf(2) calls. All that is wrong with them is told at once,"
        " with file and line.",
        epilog="exit status: 0 they are right; 1 an example is not as it should be; 2 they are"
        " not right.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, about in _RULE_ACTIONS.items():
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        action.add_argument(
            "paths", metavar="FILE", nargs="*", default=["default"],
            help="a file, a directory, or default (which it is) for bpfsnoop's own",
        )  # fmt: skip
        if name == "list":
            action.add_argument("--json", action="store_true", help="a line of JSON a rule")
        add_settings(action)
    parsed = parser.parse_args(argv)
    from . import rule_table  # noqa: PLC0415 - the engine, and what starts a parser

    rules = rule_table.rules_in(configured(parsed), parsed.paths)
    if parsed.action == "check":
        return _print_lines([f"{rule_table.summary(rules)}: nothing is wrong"])
    if parsed.action == "test":
        wrong, counted = rule_table.tried(rules)
        _print_lines([*wrong, counted])
        return _CANNOT if wrong else _DONE
    if parsed.json:
        return _print_lines(rule_table.documents(rules))
    return _print_lines([*rule_table.lines(rules), "", *rule_table.coverage(rules)])


_RULE_ACTIONS: Final = {
    "check": "say what is wrong with rules",
    "list": "show level, ATT&CK techniques, name and title of rules, then the rules of each"
    " technique",
    "test": "put rules to their examples and counterexamples",
}


def _schema(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop schema", description="Prints the JSON Schema of the documents of --json."
    )
    parser.parse_args(argv)
    return _print(installed.SCHEMA.read_bytes())


def _doctor(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "bpfsnoop doctor",
        description="Looks at this host and tries each probe plan: says what works, what does"
        " not, and what helps. With --config, also at what the daemon needs: its user, rules and"
        " sinks.",
        epilog="exit status: 0 tracing works; 1 it does not, or the daemon would not start; 2"
        " wrong usage.",
        allow_abbrev=False,
    )
    add_doctor_options(parser)
    parsed = parser.parse_args(argv)
    options = configured(parsed)
    daemon = configured(parsed, daemon=True) if parsed.config else None
    from . import doctor  # noqa: PLC0415 - Rich, which tracing does without

    output = Output("")
    terminal = output.is_terminal
    if terminal and options.format == "text":
        say("trying each probe plan, which takes some seconds the first time")
    report = doctor.examine(options, daemon)
    if options.format == "json":
        output.write(doctor.document(report))
    else:
        style = TextStyle.of(options, terminal=terminal, several=False)
        columns, _ = shutil.get_terminal_size((_WIDE, 0))
        output.write(doctor.table(report, color=style.color, width=columns))
    output.flush()
    return _DONE if report.works and not report.keeps_daemon else _CANNOT


def _print(content: bytes) -> int:
    output = Output("")
    output.write(content)
    output.flush()
    return _DONE


def _print_lines(lines: Iterable[str]) -> int:
    return _print("".join(f"{line}\n" for line in lines).encode())


_SUBCOMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "daemon": _daemon,
    "replay": _replay,
    "insns": _insns,
    "rules": _rules,
    "schema": _schema,
    "doctor": _doctor,
}
