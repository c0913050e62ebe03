# SPDX-License-Identifier: Apache-2.0
"""Options: one table behind the command line, the configuration file and its mistakes."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpfsnoop.events.errors import Mistake, UsageError
from bpfsnoop.tracer.config import OPTIONS, Config, Option, add_options, configured
from bpfsnoop.tracer.daemon.routes import Filter
from bpfsnoop.tracer.delivery.settings import SinkSettings
from bpfsnoop.tracer.installed import DEFAULTS
from bpfsnoop.tracer.sink_options import SinkOptions

ALL = [option for group in OPTIONS.values() for option in group]
KEYS = list(dict.fromkeys(option.key for option in ALL))
TYPED = list(dict.fromkeys(option.key for option in ALL if option.flags))
"""Those that can be set on the command line."""
ALL_OF_IT = Filter(None, None, None)


def _parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, replay=False)
    return parser.parse_args(argv)


def _config(*argv: str) -> Config:
    return configured(_parsed(*argv))


def _mistakes(*argv: str) -> list[str]:
    with pytest.raises(UsageError) as error:
        _config(*argv)
    return [str(mistake) for mistake in error.value.mistakes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"


# --- The defaults ------------------------------------------------------------------------


def test_defaults() -> None:
    assert _config() == Config(
        pids=(), follow=False, users=(), comms=(), cgroups=(), pid_namespace="", events=(),
        results="all", min_duration=0, format="text", message=False, timestamps="none",
        relative=False, syscall_times=False, verbose=False, dump_insns=False, strings=32,
        constants="abbrev", strace_compat=False, descriptors=False,
        column=40, color="auto", summary="none", quiet=False,
        rules=(), rule_lists={}, alert_interval=60 * 10**9, alerts_only=False,
        aggregate=0, full=(), rate_limit=0,
        output="", save_progs="", record="", duration=0, max_events=0,
        strict=False, probe="auto", witness=True, map_types=True,
        ring_size=2 << 20, max_insns=4096,
        cache="/var/cache/bpfsnoop",
        sinks=(SinkOptions(SinkSettings("stdout", "stdout", 2 << 20, 1 << 28, {}), ALL_OF_IT),),
        state="/var/lib/bpfsnoop", user="bpfsnoop", heartbeat=60 * 10**9, metrics="",
    )  # fmt: skip


def test_every_option_is_in_the_file_once_and_nothing_else() -> None:
    keys = re.findall(r"^(\w+):", DEFAULTS.read_text(), re.MULTILINE)
    assert keys == KEYS == [field.name for field in fields(Config)]
    assert list(yaml.safe_load(DEFAULTS.read_text())) == KEYS


def test_every_option_has_its_line_of_why() -> None:
    """Options that belong together may share one."""
    paragraphs = DEFAULTS.read_text().split("\n\n")
    explained = [
        paragraph for paragraph in paragraphs if re.search(r"^\w+:", paragraph, re.MULTILINE)
    ]
    assert len(explained) > 20
    for paragraph in explained:
        first = paragraph.strip().splitlines()[0]
        assert re.fullmatch(r"# \w.{20,}", first), paragraph


def test_every_switch_is_there_once() -> None:
    flags = [flag for option in ALL for flag in option.flags]
    assert len(flags) == len(set(flags))
    _parsed()  # or argparse says so


def test_a_replay_takes_what_means_something_for_it() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, replay=True)
    taken = {flag for action in parser._actions for flag in action.option_strings}
    for option in ALL:
        assert set(option.flags) <= taken or not option.replay
        assert not set(option.flags) & taken or option.replay
    only_live = {"-f", "--record", "-d", "--ring-size", "--cgroup", "--pidns", "--max-insns"}
    only_live |= {"--probe"}
    assert (only_live | {"--cache"}) & taken == set()
    assert {"-p", "-e", "-s", "-z", "--json", "-T", "-o", "-M", "--config", "--set"} <= taken


def test_defaults_that_lack_an_option_are_told_and_not_guessed(file: Path) -> None:
    """Whoever packages it may have edited them."""
    file.write_text(DEFAULTS.read_text().replace("quiet: false", "").replace("column: 40", ""))
    with pytest.raises(UsageError) as error:
        configured(_parsed(), file)
    assert str(error.value) == f"{file}:1: column, quiet not set"


# --- The command line over the file over the defaults ------------------------------------


class Sample(NamedTuple):
    """Ways to set an option."""

    yaml: str
    in_file: Any
    argv: str
    """Words with spaces between them."""
    on_command_line: Any


SAMPLES: dict[str, list[Sample]] = {
    "pids": [Sample("[1, 2]", (1, 2), "-p 3 -p 4,5", (3, 4, 5)),
             Sample("1", (1,), "--pid 4194304", (4194304,)),
             Sample('"1, 2 3"', (1, 2, 3), "-p3,3", (3,))],
    "follow": [Sample("true", True, "-f", True), Sample("no", False, "--follow", True)],
    "users": [Sample("[root, 7]", (0, 7), "-u 8,root -u 9", (8, 0, 9)),
              Sample("root", (0,), "--user 4294967294", (4294967294,))],
    "comms": [Sample("[a, 'b,c']", ("a", "b,c"), "--comm d,e --comm f", ("d,e", "f"))],
    "cgroups": [Sample("[/a, 'b c,d']", ("/a", "b c,d"), "--cgroup /x,y --cgroup z", ("/x,y", "z")),
                Sample("a", ("a",), "--cgroup a --cgroup a", ("a",))],
    "pid_namespace": [Sample("5", "/proc/5/ns/pid", "--pidns /run/ns", "/run/ns"),
                      Sample("/run/ns", "/run/ns", "--pidns 7", "/proc/7/ns/pid")],
    "events": [Sample("prog_load", ("prog_load",), "-e a,b -e !c", ("a,b", "!c")),
               Sample("['@data', '!map_create']", ("@data", "!map_create"), "--event x", ("x",))],
    "results": [Sample("failed", "failed", "-z", "successful"),
                Sample("successful", "successful", "-Z", "failed"),
                Sample("all", "all", "-z --failed-only", "failed")],
    "min_duration": [Sample("50us", 50_000, "--min-duration 10ms", 10_000_000),
                     Sample("1", 10**9, "--min-duration 0.5", 500_000_000),
                     Sample("0.25", 250_000_000, "--min-duration 1.5us", 1_500)],
    "format": [Sample("json", "json", "--json", "json"), Sample("text", "text", "--json", "json")],
    "message": [Sample("true", True, "--message", True)],
    "timestamps": [Sample("epoch", "epoch", "-t", "seconds"),
                   Sample("seconds", "seconds", "-tt", "microseconds"),
                   Sample("none", "none", "-t -t -t", "epoch"),
                   Sample("microseconds", "microseconds", "-ttttt", "epoch")],
    "relative": [Sample("true", True, "-r", True)],
    "syscall_times": [Sample("true", True, "-T", True)],
    "verbose": [Sample("true", True, "-v", True)],
    "dump_insns": [Sample("true", True, "--dump-insns", True)],
    "strings": [Sample("0", 0, "-s 1048576", 1 << 20),
                Sample("5", 5, "--string-limit 6 -s 7", 7)],
    "constants": [Sample("raw", "raw", "-X verbose", "verbose"),
                  Sample("abbrev", "abbrev", "-Xraw", "raw")],
    "strace_compat": [Sample("true", True, "--strace-compat", True)],
    "descriptors": [Sample("true", True, "-y", True), Sample("false", False, "--decode-fds", True)],
    "column": [Sample("0", 0, "-a 1000", 1000)],
    "color": [Sample("never", "never", "--color always", "always"),
              Sample("auto", "auto", "--color=never", "never")],
    "summary": [Sample("only", "only", "-C", "also"), Sample("also", "also", "-c", "only")],
    "quiet": [Sample("true", True, "-q", True)],
    "rules": [Sample("[default, b]", ("default", "b"), "--rules a --rules b,c", ("a", "b,c"))],
    "rule_lists": [Sample("{a: [b], c: ['%c%', d]}", {"a": ("b",), "c": ("%c%", "d")},
                          "--rule-list a=b,c --rule-list d=e=f --rule-list a=g",
                          {"a": ("b", "c", "g"), "d": ("e=f",)})],
    "alert_interval": [Sample("2m", 120 * 10**9, "--alert-interval 0", 0)],
    "alerts_only": [Sample("true", True, "--alerts-only", True)],
    "aggregate": [Sample("10s", 10 * 10**9, "--aggregate 500ms", 500_000_000)],
    "full": [Sample("['@data']", ("@data",), "--full a,b --full c", ("a,b", "c"))],
    "rate_limit": [Sample("0", 0, "--rate-limit 1000000", 1_000_000)],
    "output": [Sample("a", "a", "-o b", "b"), Sample("''", "", "-o b -o c", "c")],
    "save_progs": [Sample("a", "a", "--save-progs b", "b")],
    "record": [Sample("a", "a", "--record b", "b")],
    "duration": [Sample("5m", 300 * 10**9, "-d 10", 10 * 10**9),
                 Sample("500ms", 500_000_000, "--duration 2h", 7200 * 10**9)],
    "max_events": [Sample("7", 7, "-M 0", 0)],
    "strict": [Sample("true", True, "--strict", True)],
    "probe": [Sample("tracepoint", "tracepoint", "--probe raw_tracepoint", "raw_tracepoint")],
    "witness": [Sample("false", False, "--no-witness", False)],
    "map_types": [Sample("false", False, "--no-map-types", False)],
    "ring_size": [Sample("64K", 1 << 16, "--ring-size 1G", 1 << 30),
                  Sample("131072", 1 << 17, "--ring-size 1048576", 1 << 20)],
    "max_insns": [Sample("0", 0, "--max-insns 262144", 262_144)],
    "cache": [Sample("''", "", "--cache /x", "/x"), Sample("/y", "/y", "--cache=", "")],
}  # fmt: skip


# What an option is nothing without.
BESIDE = {
    "message": ["--json"], "descriptors": ["--strace-compat"], "alerts_only": ["--rules", "x"],
}  # fmt: skip


def test_every_option_has_a_sample() -> None:
    """Those of the daemon stand in a file alone: test_sink_options.py."""
    assert list(SAMPLES) == TYPED


@pytest.mark.parametrize(
    ("key", "sample"),
    [(key, sample) for key, samples in SAMPLES.items() for sample in samples],
    ids=lambda value: value if isinstance(value, str) else value.argv,
)
def test_the_command_line_is_over_the_file_over_the_defaults(
    file: Path, key: str, sample: Sample
) -> None:
    beside = BESIDE.get(key, [])
    others = {name: value for name, value in vars(_config(*beside)).items() if name != key}

    def only(*argv: str) -> Any:
        values = vars(_config(*argv, *beside))
        value = values.pop(key)
        assert values == others
        return value

    file.write_text(f"{key}: {sample.yaml}\n")
    argv = sample.argv.split()
    assert only("--config", str(file)) == sample.in_file
    assert only(*argv) == sample.on_command_line
    assert only("--config", str(file), *argv) == sample.on_command_line
    assert only(*argv, "--config", str(file)) == sample.on_command_line
    # --set stands between the two.
    setting = "--set", f"{key}={sample.yaml}"
    assert only(*setting) == sample.in_file
    assert only(*argv, *setting) == sample.on_command_line
    file.write_text(f"{key}: {SAMPLES[key][-1].yaml}\n")
    assert only("--config", str(file), *setting) == sample.in_file


def test_an_empty_file_changes_nothing(file: Path) -> None:
    for text in ("", "\n", "# only a comment\n", "---\n"):
        file.write_text(text)
        assert _config("--config", str(file)) == _config()


# --- Mistakes ----------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    """In the order of the file, then of the command line, each with its place."""
    file.write_text(
        "# mine\n"
        "follow: maybe\n"
        "\n"
        "colour: never\n"
        "quiet: true\n"
        "quiet: true\n"
        "5: 6\n"
        "ring_size: 5M\n"
        "users:\n"
        "  - nobody-by-that-name\n"
    )
    assert _mistakes("--config", str(file), "-p", "x", "-X", "none", "-d", "soon") == [
        f"{file}:2: follow: must be true or false",
        f"{file}:4: colour: unknown option; did you mean color?",
        f"{file}:6: quiet: stands here twice",
        f"{file}:7: 5: is not the name of an option",
        f"{file}:8: ring_size: must be a power of two from 64K to 1G, such as 4M",
        f"{file}:9: users: there is no user nobody-by-that-name",
        "-p x: must be a whole number",
        "-X none: must be abbrev, raw or verbose",
        "-d soon: must be a duration such as 50us, 10ms, 2s, 5m or 1h, or seconds",
    ]


DURATION = "must be a duration such as 50us, 10ms, 2s, 5m or 1h, or seconds"
LONGEST = "must be at most 876000h"
POWER = "must be a power of two from 64K to 1G, such as 4M"
NUMBER = "must be a whole number"
BOOLEAN = "must be true or false"
STRING = "must be a string"


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("pids", "0", "must be from 1 to 4194304"),
        ("pids", "[1, 4194305]", "must be from 1 to 4194304"),
        ("pids", "-1", NUMBER),
        ("pids", "'\N{ARABIC-INDIC DIGIT ONE}'", NUMBER),
        ("pids", "true", NUMBER),
        ("pids", "null", NUMBER),
        ("pids", "{a: 1}", NUMBER),
        ("pids", "[[1]]", NUMBER),
        ("pids", "'1,,2'", "has an empty item"),
        ("pids", "''", "has an empty item"),
        ("cgroups", "5", STRING),
        ("cgroups", r'"a\0b"', "must be text"),
        ("pid_namespace", "0", "must be from 1 to 4194304"),
        ("pid_namespace", "4194305", "must be from 1 to 4194304"),
        ("pid_namespace", "[1]", STRING),
        ("pid_namespace", r'"\ud800"', "must be text"),
        ("strings", "-1", NUMBER),
        ("strings", "1048577", "must be from 0 to 1048576"),
        ("strings", "true", NUMBER),
        ("max_insns", "262145", "must be from 0 to 262144"),
        ("max_insns", "4K", NUMBER),
        ("cache", "5", STRING),
        ("cache", "null", STRING),
        ("follow", "1", BOOLEAN),
        ("follow", "'true'", BOOLEAN),
        ("users", "''", "has an empty item"),
        ("users", "4294967295", "must be from 0 to 4294967294"),
        ("users", "[[root]]", STRING),
        ("users", r'"\ud800"', "must be text"),
        ("comms", "''", "must be the name of a process"),
        ("comms", r'"a\0b"', "must be text"),
        ("comms", r'"\ud800"', "must be text"),
        ("comms", "5", STRING),
        ("events", "5", STRING),
        ("events", "null", STRING),
        ("results", "good", "must be all, successful or failed"),
        ("results", "true", "must be all, successful or failed"),
        ("min_duration", "-1", DURATION),
        ("min_duration", "1 s", DURATION),
        ("min_duration", "1d", DURATION),
        ("min_duration", "true", DURATION),
        ("min_duration", ".inf", DURATION),
        ("min_duration", "[1]", DURATION),
        ("min_duration", "'\N{ARABIC-INDIC DIGIT ONE}'", DURATION),
        ("duration", "876001h", LONGEST),
        ("duration", "9" * 400, LONGEST),
        ("format", "xml", "must be text or json"),
        ("timestamps", "[seconds]", "must be none, seconds, microseconds or epoch"),
        ("column", "1001", "must be from 0 to 1000"),
        ("column", "1.5", NUMBER),
        ("color", "yes", "must be auto, always or never"),
        ("summary", "", "must be none, only or also"),
        ("output", "[a]", STRING),
        ("output", "1", STRING),
        ("output", r'"a\0b"', "must be text"),
        ("record", r'"\ud800"', "must be text"),
        ("max_events", "1e3", NUMBER),
        ("max_events", "2020-01-01", NUMBER),
        ("ring_size", "32K", POWER),
        ("ring_size", "2G", POWER),
        ("ring_size", "4m", POWER),
        ("ring_size", "0", POWER),
        ("ring_size", "true", POWER),
        ("ring_size", "4.0", POWER),
    ],
)
def test_a_value_that_will_not_do(file: Path, key: str, text: str, problem: str) -> None:
    file.write_text(f"{key}: {text}\n")
    assert _mistakes("--config", str(file)) == [f"{file}:1: {key}: {problem}"]


COUNTS_EACH = "a summary (-c, -C) counts each call: give --aggregate 0 and --rate-limit 0"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("-p 1,x", "-p 1,x: must be a whole number"),
        ("-p 1 -p 0", "-p 1 0: must be from 1 to 4194304"),
        ("-p -1", "-p -1: must be a whole number"),
        ("-u nobody-by-that-name", "-u nobody-by-that-name: there is no user nobody-by-that-name"),
        ("-M -5", "-M -5: must be a whole number"),
        ("-a x", "-a x: must be a whole number"),
        ("--ring-size 3M", f"--ring-size 3M: {POWER}"),
        ("--color sometimes", "--color sometimes: must be auto, always or never"),
        ("--min-duration=-1", f"--min-duration -1: {DURATION}"),
        (f"-d {'9' * 400}", f"-d {'9' * 400}: {LONGEST}"),
        ("--set pids", "--set pids: must be KEY=VALUE"),
        ("--set =5", "--set =5: unknown option"),
        ("--set colour=never", "--set colour=never: unknown option; did you mean color?"),
        ("--set column=x", "--set column=x: must be a whole number"),
        ("--set pids=[1", "--set pids=[1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("--set output=!!bool", "--set output=!!bool: is not of the YAML type that it seems to be"),
        ("-o |less", "output |less: no program is started: use a pipe of the shell"),
        ("--record !less", "record !less: no program is started: use a pipe of the shell"),
        ("-s x", "-s x: must be a whole number"),
        ("--pidns 0", "--pidns 0: must be from 1 to 4194304"),
        ("--max-insns 300000", "--max-insns 300000: must be from 0 to 262144"),
        (" ".join(f"--cgroup /{number}" for number in range(9)), "cgroups: must be at most 8"),
        ("--json -c", "a summary (-c, -C) is text: leave out --json"),
        (
            "--strace-compat --json",
            "--strace-compat is about lines: add --message, or leave out --json",
        ),
        ("-y", "-y is strace's: add --strace-compat (BPF objects are named without it)"),
        ("-C --json", "a summary (-c, -C) is text: leave out --json"),
        ("-c --aggregate 1s", COUNTS_EACH),
        ("-C --rate-limit 1", COUNTS_EACH),
        ("-o a --record a", "-o and --record name the same file"),
        ("-o a --record ./a", "-o and --record name the same file"),
    ],
)
def test_a_command_line_that_will_not_do(argv: str, told: str) -> None:
    assert _mistakes(*argv.split()) == [told]


def test_a_contradiction_may_come_from_the_file(file: Path) -> None:
    file.write_text("format: json\n")
    assert _mistakes("--config", str(file), "-c") == [
        "a summary (-c, -C) is text: leave out --json"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pids: [1", "1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("quiet: true\n\tpids: 1",
         "2: not YAML: found character '\\t' that cannot start any token"),
        ("quiet: true\nevents: @data",
         "2: not YAML: found character '@' that cannot start any token"),
        ("quiet: true\nevents: !map_create",
         "2: not YAML: could not determine a constructor for the tag '!map_create'"),
        ("events: !!python/object:os.system x",
         "1: not YAML: could not determine a constructor for the tag"
         " 'tag:yaml.org,2002:python/object:os.system'"),
        ("quiet: *no", "1: not YAML: found undefined alias 'no'"),
        ("- quiet", "1: must be a list of 'key: value' lines"),
        ("quiet", "1: must be a list of 'key: value' lines"),
        ("quiet: true\n---\nquiet: true", "2: not YAML: but found another document"),
        ("output: !!bool x", "1: output: is not of the YAML type that it seems to be"),
        ("output: !!timestamp x", "1: output: is not of the YAML type that it seems to be"),
        ("quiet: true\n!!int x: 1", "2: x: is not of the YAML type that it seems to be"),
        ("[quiet]: true", "1: ['quiet']: is not the name of an option"),
        ("quiet: " + "[" * 5000, "1: not YAML: nested too deeply"),
        ("quiet: \0", "1: not YAML: unacceptable character #x0000: special characters"
         " are not allowed"),
    ],
)  # fmt: skip
def test_a_file_that_will_not_do(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    (mistake,) = _mistakes("--config", str(file))
    assert mistake.startswith(f"{file}:{told}")


def test_a_file_that_is_not_text(file: Path) -> None:
    file.write_bytes(b"quiet: \xff\n")
    (mistake,) = _mistakes("--config", str(file))
    assert mistake.startswith(f"{file}:1: not YAML: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "No such file or directory"), (".", "Is a directory")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    assert _mistakes("--config", str(path)) == [f"{path}: cannot read it: {reason}"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60) | st.text("quiet:pids[]{}&*!|>'\"%@,#- \n1", max_size=40))
def test_any_text_is_options_or_mistakes(file: Path, text: str) -> None:
    """Nothing that stands in the file is a crash."""
    file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    mistakes: Sequence[Mistake] = ()
    try:
        _config("--config", str(file))
    except UsageError as error:
        mistakes = error.mistakes
    assert all(str(mistake).startswith(f"{file}:") for mistake in mistakes)


def _option(key: str) -> Option:
    return next(option for option in ALL if option.key == key)


@given(st.floats(0, 876_000), st.sampled_from(["us", "ms", "s", "m", "h", ""]))
def test_durations_are_ns(number: float, unit: str) -> None:
    text = f"{number:f}"
    scale = {"us": 1e3, "ms": 1e6, "s": 1e9, "": 1e9, "m": 6e10, "h": 3.6e12}[unit]
    parsed = _option("duration").parse(text + unit)
    assert isinstance(parsed, int)
    assert parsed == pytest.approx(float(text) * scale, rel=1e-9, abs=1)


@given(st.integers(0, 40), st.sampled_from(["", "K", "M", "G"]))
def test_ring_sizes_are_powers_of_two_within_bounds(power: int, unit: str) -> None:
    size = (1 << power) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit]
    parse = _option("ring_size").parse
    if 1 << 16 <= size <= 1 << 30:
        assert parse(f"{1 << power}{unit}") == size
    else:
        with pytest.raises(ValueError, match="power of two"):
            parse(f"{1 << power}{unit}")
