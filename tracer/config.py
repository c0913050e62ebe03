# SPDX-License-Identifier: Apache-2.0
"""Options: one table that the command line, config.yaml and the help are made from."""

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from ..events.errors import Mistake, UsageError
from ..events.wire import CGROUPS_MAX
from . import installed
from .config_file import from_file, from_settings
from .option_types import (
    PID_MAX,
    Parser,
    at_least,
    boolean,
    comm,
    duration,
    list_of,
    named_lists,
    number,
    one_of,
    path,
    pid_namespace,
    ring_size,
    text,
    user,
)
from .sink_options import SinkOptions, absolute, listen_address, sinks

_INSNS_MAX: Final = 262_144
PROBES: Final = ("auto", "tracepoint", "raw_tracepoint", "fentry", "kprobe", "lsm")
_RATE_MAX: Final = 1_000_000


@dataclass(frozen=True)
class Config:
    """Every option with its final value. Durations are ns, sizes bytes."""

    pids: tuple[int, ...]
    follow: bool
    users: tuple[int, ...]
    comms: tuple[str, ...]
    cgroups: tuple[str, ...]
    pid_namespace: str
    events: tuple[str, ...]
    results: str
    min_duration: int
    format: str
    message: bool
    timestamps: str
    relative: bool
    syscall_times: bool
    verbose: bool
    dump_insns: bool
    strings: int
    constants: str
    strace_compat: bool
    descriptors: bool
    column: int
    color: str
    summary: str
    quiet: bool
    rules: tuple[str, ...]
    rule_lists: Mapping[str, tuple[str, ...]]
    alert_interval: int
    alerts_only: bool
    aggregate: int
    full: tuple[str, ...]
    rate_limit: int
    output: str
    save_progs: str
    record: str
    duration: int
    max_events: int
    strict: bool
    probe: str
    witness: bool
    map_types: bool
    ring_size: int
    max_insns: int
    cache: str
    sinks: tuple[SinkOptions, ...]
    state: str
    user: str
    heartbeat: int
    metrics: str


@dataclass(frozen=True)
class Option:
    """A key of config.yaml and what sets it on the command line."""

    key: str
    parse: Parser
    flags: tuple[str, ...]
    metavar: str
    """Empty for a switch."""
    help: str
    sets: Any = None
    """A switch's value, where it is not simply true."""
    replay: bool = True
    """Means something for a recording too."""
    repeats: bool = False
    """Each time it is given adds to it."""
    daemon: bool = True
    """Means something to the daemon too."""
    reload: bool = True
    """The daemon takes another value while it runs."""


WHICH, SHOWN, JUDGED, VOLUME, WHERE, WHEN, CAPTURE, DAEMON = (
    "which calls", "how they are shown", "what is judged", "what is told as one",
    "where they go", "when it ends", "capture", "the daemon",
)  # fmt: skip

OPTIONS: Final[Mapping[str, tuple[Option, ...]]] = {
    WHICH: (
        Option("pids", list_of(number(1, PID_MAX)), ("-p", "--pid"), "PID",
               "of these processes (repeatable, or PID,PID)", repeats=True, daemon=False),
        Option("follow", boolean, ("-f", "--follow"), "",
               "with -p, also the children they fork from now on", replay=False, daemon=False),
        Option("users", list_of(user), ("-u", "--user"), "USER",
               "of these users, by name or number", repeats=True, reload=False),
        Option("comms", list_of(comm, commas=False), ("--comm",), "NAME",
               "of processes with this name (the kernel's 15 bytes)", repeats=True, reload=False),
        Option("cgroups", list_of(path, commas=False), ("--cgroup",), "PATH",
               "of processes in this cgroup or below it (repeatable)",
               repeats=True, replay=False, reload=False),
        Option("pid_namespace", pid_namespace, ("--pidns",), "NS",
               "of processes in this pid namespace: that of a PID, or a file such as"
               " /proc/PID/ns/pid", replay=False, reload=False),
        Option("events", list_of(text, commas=False), ("-e", "--event"), "EXPR",
               "commands: prog_load,map_create; '!...' leaves out; @data is map"
               " contents and id walks, @control the rest",
               repeats=True, reload=False),
        Option("results", one_of("all", "successful", "failed"), ("-z", "--successful-only"), "",
               "that succeeded", sets="successful", reload=False),
        Option("results", one_of("all", "successful", "failed"), ("-Z", "--failed-only"), "",
               "that failed", sets="failed", reload=False),
        Option("min_duration", duration, ("--min-duration",), "TIME",
               "that took at least this long: 50us, 10ms, 1s", reload=False),
    ),
    SHOWN: (
        Option("format", one_of("text", "json"), ("--json",), "",
               "as ECS documents, one a line", sets="json", daemon=False),
        Option("message", boolean, ("--message",), "",
               "with --json, also the text line"),
        Option("timestamps", one_of("none", "seconds", "microseconds", "epoch"), ("-t",), "",
               "time of day; -tt with microseconds, -ttt as seconds since 1970",
               sets=("none", "seconds", "microseconds", "epoch"), daemon=False),
        Option("relative", boolean, ("-r", "--relative-timestamps"), "",
               "time since the call before", daemon=False),
        Option("syscall_times", boolean, ("-T", "--syscall-times"), "",
               "time spent in the call", daemon=False),
        Option("verbose", boolean, ("-v", "--verbose"), "",
               "arrays, logs and unknown bytes in full, instructions; details of errors"),
        Option("dump_insns", boolean, ("--dump-insns",), "",
               "programs that are loaded, disassembled, below their calls", daemon=False),
        Option("strings", number(0, 1 << 20), ("-s", "--string-limit"), "N",
               "at most N bytes of a string, N elements of an array (32); -v shows whole arrays"),
        Option("constants", one_of("abbrev", "raw", "verbose"), ("-X", "--const-print-style"),
               "STYLE", "constants as abbrev (names, the default), raw or verbose (both)"),
        Option("strace_compat", boolean, ("--strace-compat",), "",
               "calls exactly as strace 7.2 prints them, also where it is wrong"),
        Option("descriptors", boolean, ("-y", "--decode-fds"), "",
               "with --strace-compat, the files behind descriptors"),
        Option("column", number(0, 1000), ("-a", "--columns"), "N",
               "column of the result (40)", daemon=False),
        Option("color", one_of("auto", "always", "never"), ("--color",), "WHEN",
               "auto (the default), always or never", daemon=False),
        Option("summary", one_of("none", "only", "also"), ("-c", "--summary-only"), "",
               "counts and times of each command instead of lines", sets="only", daemon=False),
        Option("summary", one_of("none", "only", "also"), ("-C", "--summary"), "",
               "the same after the lines", sets="also", daemon=False),
        Option("quiet", boolean, ("-q", "--quiet"), "",
               "nothing but calls, warnings and losses"),
    ),
    JUDGED: (
        Option("rules", list_of(path, commas=False), ("--rules",), "PATH",
               "by these Sigma rules, with an alert below a call that one matches: default for"
               " bpfsnoop's own, a file or a directory (repeatable)", repeats=True),
        Option("rule_lists", named_lists, ("--rule-list",), "NAME=ITEM,...",
               "what %%NAME%% stands for in rules; %%NAME%% as an item is what it stood for"
               " (repeatable)", repeats=True),
        Option("alert_interval", duration, ("--alert-interval",), "TIME",
               "alerts of one rule and process within it become one (1m); 0 for never"),
        Option("alerts_only", boolean, ("--alerts-only",), "",
               "with --rules, show alerts and no calls", daemon=False),
    ),
    VOLUME: (
        Option("aggregate", duration, ("--aggregate",), "TIME",
               "calls of one process and command on one map within it, after the first; and"
               " those that look at what there is: 10s; 0 for none"),
        Option("full", list_of(text, commas=False), ("--full",), "EXPR",
               "but for these commands, as -e takes them", repeats=True),
        Option("rate_limit", number(0, _RATE_MAX), ("--rate-limit",), "N",
               "other calls of a process beyond N a second, but for what changed what runs; 0 for"
               " none"),
    ),
    WHERE: (
        Option("output", text, ("-o", "--output"), "FILE",
               "to a file instead of standard output", daemon=False),
        Option("save_progs", text, ("--save-progs",), "DIR",
               "and each distinct program that is loaded to a file in DIR", daemon=False),
        Option("record", text, ("--record",), "FILE",
               "and, raw, to a file for 'bpfsnoop replay'", replay=False, daemon=False),
    ),
    WHEN: (
        Option("duration", duration, ("-d", "--duration"), "TIME",
               "after this long: 10 (seconds), 500ms, 5m", replay=False, daemon=False),
        Option("max_events", number(0, 1 << 62), ("-M", "--max-events"), "N",
               "after this many events", daemon=False),
        Option("strict", boolean, ("--strict",), "",
               "exit with status 3 if any event was lost", daemon=False),
    ),
    CAPTURE: (
        Option("probe", one_of(*PROBES), ("--probe",), "NAME",
               "attach to: auto, fentry, kprobe, lsm, raw_tracepoint or tracepoint",
               replay=False, reload=False),
        Option("witness", boolean, ("--no-witness",), "",
               "without what the kernel itself says of loaded programs", sets=False,
               replay=False, reload=False),
        Option("map_types", boolean, ("--no-map-types",), "",
               "do not ask the kernel for the types of keys and values", sets=False,
               replay=False, reload=False),
        Option("ring_size", ring_size, ("--ring-size",), "SIZE",
               "bytes of the larger rings (2M)", replay=False, reload=False),
        Option("max_insns", number(0, _INSNS_MAX), ("--max-insns",), "N",
               "at most N instructions of a program (4096)", replay=False, reload=False),
        Option("cache", text, ("--cache",), "DIR",
               "where compiled code is kept; empty for nowhere", replay=False, reload=False),
    ),
    DAEMON: (
        Option("sinks", sinks, (), "", "where its documents go"),
        Option("state", absolute, (), "", "directory of its lock and spools", reload=False),
        Option("user", text, (), "", "whom it becomes once it traces", reload=False),
        Option("heartbeat", at_least("100ms"), (), "", "time between signs of life; 0 for none"),
        Option("metrics", listen_address, (), "", "where metrics and health are served"),
    ),
}  # fmt: skip

_BY_KEY: Final[Mapping[str, Option]] = {
    option.key: option for group in OPTIONS.values() for option in group
}
FIXED: Final = tuple(key for key, option in _BY_KEY.items() if not option.reload)
"""Keys that the daemon takes at its start alone."""


_OF_THE_DAEMON: Final[Mapping[str, Any]] = {
    "rules": ("default",), "aggregate": 10 * 10**9, "rate_limit": 1000,
}  # fmt: skip
"""Its defaults where they are others: nobody reads along, and it runs for months."""


def _not_the_daemons(value: Any) -> Any:
    raise ValueError("is about runs at a terminal; the daemon's documents go to its sinks")


_PARSERS: Final = {key: option.parse for key, option in _BY_KEY.items()}
_DAEMON_PARSERS: Final = {
    key: option.parse if option.daemon else _not_the_daemons for key, option in _BY_KEY.items()
}


_DOCTOR: Final = {"format": "as one JSON object", "color": "", "ring_size": "", "cache": ""}
"""Keys that ``bpfsnoop doctor`` has flags for, and their help if it is another one there."""


def add_options(parser: argparse.ArgumentParser, *, replay: bool) -> "argparse._ArgumentGroup":
    """Puts the table's options on a parser; their values stay as they were typed.

    :returns: the group of the options that are no keys of config.yaml.
    """
    for title, group in OPTIONS.items():
        if title == DAEMON:  # a file says these: nobody types them
            continue
        section = parser.add_argument_group(title)
        for option in group:
            if replay and not option.replay:
                continue
            section.add_argument(*option.flags, **_argparse_action(option))
    other = parser.add_argument_group("other")
    add_settings(other)
    return other


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Those that mean something to ``bpfsnoop doctor``."""
    for option in (option for group in OPTIONS.values() for option in group):
        if option.key in _DOCTOR:
            action = _argparse_action(option) | {"help": _DOCTOR[option.key] or option.help}
            parser.add_argument(*option.flags, **action)
    add_settings(parser)


def add_settings(other: "argparse.ArgumentParser | argparse._ArgumentGroup", *short: str) -> None:
    """:param short: another name of ``--config``."""
    other.add_argument(
        *short, "--config", metavar="FILE", help="options from this file, laid out like config.yaml"
    )
    other.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="any key of config.yaml, such as quiet=false (repeatable)",
    )


def _argparse_action(option: Option) -> dict[str, Any]:
    common = {"dest": option.key, "help": option.help, "default": argparse.SUPPRESS}
    if option.metavar:
        return common | {"metavar": option.metavar, "action": "append"}
    if isinstance(option.sets, tuple):
        return common | {"action": "count"}
    const = True if option.sets is None else option.sets
    return common | {"action": "store_const", "const": const}


def configured(
    arguments: argparse.Namespace, defaults: Path = installed.DEFAULTS, *, daemon: bool = False
) -> Config:
    """The defaults, under the file of ``--config``, under ``--set``, under the other flags.

    :param daemon: what means nothing to it is a mistake.
    :raises UsageError: with every mistake in any of them.
    """
    mistakes: list[Mistake] = []
    parsers = _DAEMON_PARSERS if daemon else _PARSERS
    values = from_file(defaults, _PARSERS, mistakes) | (dict(_OF_THE_DAEMON) if daemon else {})
    if file := getattr(arguments, "config", None):
        values |= from_file(Path(file), parsers, mistakes)
    values |= from_settings(getattr(arguments, "set", None) or (), parsers, mistakes)
    values |= _from_command_line(vars(arguments), mistakes)
    missing = [field.name for field in fields(Config) if field.name not in values]
    if not mistakes and missing:
        mistakes.append(Mistake(f"{', '.join(missing)} not set", str(defaults), 1))
    if not mistakes:
        mistakes += _contradictions(values)
    if mistakes:
        raise UsageError(mistakes)
    return Config(**values)


def _contradictions(values: Mapping[str, Any]) -> Iterable[Mistake]:
    if values["format"] == "json" and values["summary"] != "none":
        yield Mistake("a summary (-c, -C) is text: leave out --json")
    if values["format"] == "json" and values["strace_compat"] and not values["message"]:
        yield Mistake("--strace-compat is about lines: add --message, or leave out --json")
    if values["summary"] != "none" and (values["aggregate"] or values["rate_limit"]):
        yield Mistake("a summary (-c, -C) counts each call: give --aggregate 0 and --rate-limit 0")
    if values["descriptors"] and not values["strace_compat"]:
        yield Mistake("-y is strace's: add --strace-compat (BPF objects are named without it)")
    if values["alerts_only"] and not values["rules"]:
        yield Mistake("--alerts-only shows what rules find: add --rules default")
    if len(values["cgroups"]) > CGROUPS_MAX:
        yield Mistake(f"cgroups: must be at most {CGROUPS_MAX}")
    for key in ("output", "record"):
        if values[key].startswith(("|", "!")):
            yield Mistake(f"{key} {values[key]}: no program is started: use a pipe of the shell")
    if values["output"] and _same_file(values["output"], values["record"]):
        yield Mistake("-o and --record name the same file")


def _same_file(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _from_command_line(given: Mapping[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    values = {}
    for key, typed in given.items():
        option = _BY_KEY.get(key)
        if option is None:
            continue
        raw = typed
        if isinstance(option.sets, tuple):  # a switch that is repeated: -t, -tt, -ttt
            raw = option.sets[min(typed, len(option.sets) - 1)]
        elif isinstance(typed, list) and not option.repeats:
            raw = typed[-1]
        try:
            values[key] = option.parse(raw)
        except ValueError as error:
            shown = " ".join(raw) if isinstance(raw, list) else raw
            mistakes.append(Mistake(f"{option.flags[0]} {shown}: {error}"))
    return values
