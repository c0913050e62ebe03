# SPDX-License-Identifier: Apache-2.0
"""Options: one table that the command line, config.yaml and the help are made from."""

import argparse
import difflib
import os
import pwd
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import yaml

from ..events.errors import Mistake, UsageError
from ..events.wire import CGROUPS_MAX, FILTER_LIST_MAX
from . import installed

_PID_MAX: Final = 1 << 22
_UID_MAX: Final = (1 << 32) - 2
_LONGEST_H: Final = 876_000  # a hundred years
_INSNS_MAX: Final = 262_144
PROBES: Final = ("auto", "tracepoint", "raw_tracepoint", "fentry", "kprobe", "lsm")
_RING_MIN: Final = 1 << 16
_RING_MAX: Final = 1 << 30
_NULL: Final = "tag:yaml.org,2002:null"
_NOT_YAML: Final = (yaml.YAMLError, UnicodeDecodeError, RecursionError)
_UNITS: Final = {"us": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


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


Parser = Callable[[Any], Any]
"""From a string of the command line, or any YAML value, to an option's value.

:raises ValueError: with what would be right.
"""


def _one_of(*choices: str) -> Parser:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return str(value)

    return parse


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a pair of surrogates: YAML can say that
        raise ValueError("must be text") from None
    if "\0" in value:
        raise ValueError("must be text")
    return value


def _number(least: int, most: int) -> Parser:
    def parse(value: Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not text.isascii() or not text.isdigit():
            raise ValueError("must be a whole number")
        if not least <= int(text) <= most:
            raise ValueError(f"must be from {least} to {most}")
        return int(text)

    return parse


def _duration(value: Any) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)?", str(value), re.ASCII)
    if isinstance(value, bool) or not match:
        raise ValueError("must be a duration such as 50us, 10ms, 2s, 5m or 1h, or seconds")
    number = float(match[1]) * _UNITS[match[2] or "s"]
    if number > _LONGEST_H * _UNITS["h"]:
        raise ValueError(f"must be at most {_LONGEST_H}h")
    return round(number)


def _ring_size(value: Any) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", str(value), re.ASCII)
    size = int(match[1]) * _SIZES[match[2]] if match and not isinstance(value, bool) else 0
    if size & (size - 1) or not _RING_MIN <= size <= _RING_MAX:
        raise ValueError("must be a power of two from 64K to 1G, such as 4M")
    return size


def _path(value: Any) -> str:
    if not value:
        raise ValueError("must be a path")
    return _text(value)


def _pid_namespace(value: Any) -> str:
    text = str(value)
    if text.isascii() and text.isdigit():
        return f"/proc/{_number(1, _PID_MAX)(value)}/ns/pid"
    return str(_text(value))


def _user(value: Any) -> int:
    if str(value).isascii() and str(value).isdigit():
        uid: int = _number(0, _UID_MAX)(value)
        return uid
    try:
        return pwd.getpwnam(_text(value)).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {value}") from None


def _comm(value: Any) -> str:
    if not _text(value):
        raise ValueError("must be the name of a process")
    return str(value)


def _list(parse_one: Parser, *, commas: bool = True) -> Parser:
    """Items from a YAML list or a single one, each perhaps several with commas between."""

    def parse(value: Any) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else [value]
        if commas:
            items = [part for item in items for part in _split(item)]
        values = tuple(dict.fromkeys(parse_one(item) for item in items))
        if len(values) > FILTER_LIST_MAX:
            raise ValueError(f"must be at most {FILTER_LIST_MAX}")
        return values

    return parse


def _lists(value: Any) -> Mapping[str, tuple[str, ...]]:
    """What names stand for in rules: a mapping, or ``NAME=ITEM,ITEM`` of the command line."""
    if isinstance(value, list) and all(isinstance(one, str) and "=" in one for one in value):
        given: dict[str, list[str]] = {}
        for name, _, items in (one.partition("=") for one in value):
            given.setdefault(name, []).extend(items.split(","))
        value = given
    if not isinstance(value, dict):
        raise ValueError("must be names, each with a list: NAME=ITEM,ITEM")
    return {_list_name(name): _list_items(items) for name, items in value.items()}


def _list_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w+", value, re.ASCII):
        raise ValueError("a name must be of letters, digits and _")
    return value


def _list_items(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list must have items")
    if not all(isinstance(item, str) and _text(item) for item in value):
        raise ValueError("items of a list must be text")
    return tuple(value)


def _split(item: Any) -> list[Any]:
    if not isinstance(item, str):
        return [item]
    parts = re.split(r"\s*,\s*|\s+", item.strip())  # "1,2", and "1 2" as pidof(1) prints it
    if not all(parts):
        raise ValueError("has an empty item")
    return parts


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


WHICH, SHOWN, JUDGED, WHERE, WHEN, CAPTURE = (
    "which calls", "how they are shown", "what is judged", "where they go", "when it ends",
    "capture",
)  # fmt: skip

OPTIONS: Final[Mapping[str, tuple[Option, ...]]] = {
    WHICH: (
        Option("pids", _list(_number(1, _PID_MAX)), ("-p", "--pid"), "PID",
               "of these processes (repeatable, or PID,PID)", repeats=True),
        Option("follow", _boolean, ("-f", "--follow"), "",
               "with -p, also the children they fork from now on", replay=False),
        Option("users", _list(_user), ("-u", "--user"), "USER",
               "of these users, by name or number", repeats=True),
        Option("comms", _list(_comm, commas=False), ("--comm",), "NAME",
               "of processes with this name (the kernel's 15 bytes)", repeats=True),
        Option("cgroups", _list(_path, commas=False), ("--cgroup",), "PATH",
               "of processes in this cgroup or below it (repeatable)",
               repeats=True, replay=False),
        Option("pid_namespace", _pid_namespace, ("--pidns",), "NS",
               "of processes in this pid namespace: that of a PID, or a file such as"
               " /proc/PID/ns/pid", replay=False),
        Option("events", _list(_text, commas=False), ("-e", "--event"), "EXPR",
               "commands: prog_load,map_create; '!...' leaves out; @data is map"
               " contents and id walks, @control the rest",
               repeats=True),
        Option("results", _one_of("all", "successful", "failed"), ("-z", "--successful-only"), "",
               "that succeeded", sets="successful"),
        Option("results", _one_of("all", "successful", "failed"), ("-Z", "--failed-only"), "",
               "that failed", sets="failed"),
        Option("min_duration", _duration, ("--min-duration",), "TIME",
               "that took at least this long: 50us, 10ms, 1s"),
    ),
    SHOWN: (
        Option("format", _one_of("text", "json"), ("--json",), "",
               "as ECS documents, one a line", sets="json"),
        Option("message", _boolean, ("--message",), "",
               "with --json, also the text line"),
        Option("timestamps", _one_of("none", "seconds", "microseconds", "epoch"), ("-t",), "",
               "time of day; -tt with microseconds, -ttt as seconds since 1970",
               sets=("none", "seconds", "microseconds", "epoch")),
        Option("relative", _boolean, ("-r", "--relative-timestamps"), "",
               "time since the call before"),
        Option("syscall_times", _boolean, ("-T", "--syscall-times"), "",
               "time spent in the call"),
        Option("verbose", _boolean, ("-v", "--verbose"), "",
               "arrays, logs and unknown bytes in full, instructions; details of errors"),
        Option("dump_insns", _boolean, ("--dump-insns",), "",
               "programs that are loaded, disassembled, below their calls"),
        Option("strings", _number(0, 1 << 20), ("-s", "--string-limit"), "N",
               "at most N bytes of a string, N elements of an array (32); -v shows whole arrays"),
        Option("constants", _one_of("abbrev", "raw", "verbose"), ("-X", "--const-print-style"),
               "STYLE", "constants as abbrev (names, the default), raw or verbose (both)"),
        Option("strace_compat", _boolean, ("--strace-compat",), "",
               "calls exactly as strace 7.2 prints them, also where it is wrong"),
        Option("descriptors", _boolean, ("-y", "--decode-fds"), "",
               "with --strace-compat, the files behind descriptors"),
        Option("column", _number(0, 1000), ("-a", "--columns"), "N",
               "column of the result (40)"),
        Option("color", _one_of("auto", "always", "never"), ("--color",), "WHEN",
               "auto (the default), always or never"),
        Option("summary", _one_of("none", "only", "also"), ("-c", "--summary-only"), "",
               "counts and times of each command instead of lines", sets="only"),
        Option("summary", _one_of("none", "only", "also"), ("-C", "--summary"), "",
               "the same after the lines", sets="also"),
        Option("quiet", _boolean, ("-q", "--quiet"), "",
               "nothing but calls, warnings and losses"),
    ),
    JUDGED: (
        Option("rules", _list(_path, commas=False), ("--rules",), "PATH",
               "by these Sigma rules, with an alert below a call that one matches: default for"
               " bpfsnoop's own, a file or a directory (repeatable)", repeats=True),
        Option("rule_lists", _lists, ("--rule-list",), "NAME=ITEM,...",
               "what %%NAME%% stands for in rules; %%NAME%% as an item is what it stood for"
               " (repeatable)", repeats=True),
        Option("alert_interval", _duration, ("--alert-interval",), "TIME",
               "alerts of one rule and process within it become one (1m); 0 for never"),
        Option("alerts_only", _boolean, ("--alerts-only",), "",
               "with --rules, show alerts and no calls"),
    ),
    WHERE: (
        Option("output", _text, ("-o", "--output"), "FILE",
               "to a file instead of standard output"),
        Option("save_progs", _text, ("--save-progs",), "DIR",
               "and each distinct program that is loaded to a file in DIR"),
        Option("record", _text, ("--record",), "FILE",
               "and, raw, to a file for 'bpfsnoop replay'", replay=False),
    ),
    WHEN: (
        Option("duration", _duration, ("-d", "--duration"), "TIME",
               "after this long: 10 (seconds), 500ms, 5m", replay=False),
        Option("max_events", _number(0, 1 << 62), ("-M", "--max-events"), "N",
               "after this many events"),
        Option("strict", _boolean, ("--strict",), "",
               "exit with status 3 if any event was lost"),
    ),
    CAPTURE: (
        Option("probe", _one_of(*PROBES), ("--probe",), "NAME",
               "attach to: auto, fentry, kprobe, lsm, raw_tracepoint or tracepoint", replay=False),
        Option("witness", _boolean, ("--no-witness",), "",
               "without what the kernel itself says of loaded programs", sets=False,
               replay=False),
        Option("map_types", _boolean, ("--no-map-types",), "",
               "do not ask the kernel for the types of keys and values", sets=False,
               replay=False),
        Option("ring_size", _ring_size, ("--ring-size",), "SIZE",
               "bytes of the larger rings (2M)", replay=False),
        Option("max_insns", _number(0, _INSNS_MAX), ("--max-insns",), "N",
               "at most N instructions of a program (4096)", replay=False),
        Option("cache", _text, ("--cache",), "DIR",
               "where compiled code is kept; empty for nowhere", replay=False),
    ),
}  # fmt: skip

_BY_KEY: Final[Mapping[str, Option]] = {
    option.key: option for group in OPTIONS.values() for option in group
}


_DOCTOR: Final = {"format": "as one JSON object", "color": "", "ring_size": "", "cache": ""}
"""Keys that ``bpfsnoop doctor`` has flags for, and their help if it is another one there."""


def add_options(parser: argparse.ArgumentParser, *, replay: bool) -> "argparse._ArgumentGroup":
    """Puts the table's options on a parser; their values stay as they were typed.

    :returns: the group of the options that are no keys of config.yaml.
    """
    for title, group in OPTIONS.items():
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


def add_settings(other: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    other.add_argument(
        "--config", metavar="FILE", help="options from this file, laid out like config.yaml"
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


def configured(arguments: argparse.Namespace, defaults: Path = installed.DEFAULTS) -> Config:
    """The defaults, under the file of ``--config``, under ``--set``, under the other flags.

    :raises UsageError: with every mistake in any of them.
    """
    mistakes: list[Mistake] = []
    values = _from_file(defaults, mistakes)
    if file := getattr(arguments, "config", None):
        values |= _from_file(Path(file), mistakes)
    values |= _from_settings(getattr(arguments, "set", None) or (), mistakes)
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


def _from_settings(settings: Iterable[str], mistakes: list[Mistake]) -> dict[str, Any]:
    # KEY=VALUE, the value in YAML as it would stand in a file.
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            if not equals:
                raise ValueError("must be KEY=VALUE")
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            value = "" if node is None else _constructed(loader, node)
            values[key] = _file_option(key, ()).parse(value)
        except _NOT_YAML as error:
            mistakes.append(Mistake(f"--set {setting}: not YAML: {_problem(error)}"))
        except ValueError as error:
            mistakes.append(Mistake(f"--set {setting}: {error}"))
    return values


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


def _from_file(path: Path, mistakes: list[Mistake]) -> dict[str, Any]:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        mistakes.append(Mistake(f"cannot read it: {error.strerror}", str(path)))
        return {}
    except _NOT_YAML as error:
        mistakes.append(_syntax_mistake(error, path))
        return {}
    if root is None or root.tag == _NULL:
        return {}
    if not isinstance(root, yaml.MappingNode):
        mistakes.append(Mistake("must be a list of 'key: value' lines", str(path), 1))
        return {}
    values: dict[str, Any] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        try:
            key = _constructed(loader, key_node)
            value = _constructed(loader, value_node)
            values[key] = _file_option(key, values).parse(value)
        except _NOT_YAML as error:
            mistakes.append(_syntax_mistake(error, path))
        except ValueError as error:
            mistakes.append(Mistake(f"{key}: {error}", str(path), line))
    return values


def _constructed(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, KeyError, AttributeError, TypeError):  # '!!bool 7', '2024-02-31'
        raise ValueError("is not of the YAML type that it seems to be") from None


def _file_option(key: Any, seen: Collection[str]) -> Option:
    if not isinstance(key, str):
        raise ValueError("is not the name of an option")
    if key in seen:
        raise ValueError("stands here twice")
    if key in _BY_KEY:
        return _BY_KEY[key]
    near = difflib.get_close_matches(key, _BY_KEY, n=1, cutoff=0.7)
    raise ValueError(f"unknown option{f'; did you mean {near[0]}?' if near else ''}")


def _syntax_mistake(error: Exception, path: Path) -> Mistake:
    mark = getattr(error, "problem_mark", None)
    return Mistake(f"not YAML: {_problem(error)}", str(path), mark.line + 1 if mark else 1)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return getattr(error, "problem", None) or str(error).partition("\n")[0]
