# SPDX-License-Identifier: Apache-2.0
"""What the daemon's configuration may say, and how its mistakes are told."""

import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import UsageError
from bpfsnoop.tracer.config import OPTIONS, Config, configured
from bpfsnoop.tracer.daemon.routes import ACTIONS, Filter, Routes, bits_for
from bpfsnoop.tracer.delivery.settings import KINDS, Settings
from bpfsnoop.tracer.option_types import Wrong
from bpfsnoop.tracer.sink_options import SinkOptions, sinks

WHOLE: dict[str, dict[str, Any]] = {
    "stdout": {},
    "file": {"path": "/var/log/x.json"},
    "syslog": {},
    "socket": {"address": "tcp://127.0.0.1:5170"},
    "kafka": {"brokers": ["a:9092", "b:9092"], "topic": "bpf"},
}
"""The least that each kind takes."""


def _read(file: Path, text: str) -> Config:
    file.write_text(text)
    return configured(argparse.Namespace(config=str(file)), daemon=True)


def _mistakes(file: Path, text: str) -> list[str]:
    with pytest.raises(UsageError) as error:
        _read(file, text)
    return [str(mistake).removeprefix(f"{file}:") for mistake in error.value.mistakes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon.yaml"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_needs_little(kind: str) -> None:
    (sink,) = sinks([{"type": kind, **WHOLE[kind]}])
    assert (sink.settings.name, sink.settings.kind) == (kind, kind)
    assert (sink.settings.queue, sink.settings.spool) == (2 << 20, 1 << 28)
    assert sink.filter == Filter(None, None, None)
    assert (
        WHOLE[kind].items()
        <= {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in sink.settings.options.items()
        }.items()
    )


def test_what_is_told_to_the_delivery_process_comes_back_the_same() -> None:
    found = sinks([{"type": kind, **WHOLE[kind]} for kind in KINDS])
    settings = Settings(
        tuple(sink.settings for sink in found), bits_for(KINDS, {}), "/spool", "127.0.0.1:9464"
    )
    assert Settings.from_json(settings.to_json()) == settings


def test_all_that_is_wrong_is_told_with_its_line(file: Path) -> None:
    text = """\
rules: [default]
sinks:
  - type: file
    path: events.json
    rotate_size: 5X
    path: /x
  - type: syslog
    adress: tls://x:1
    facility: locale0
  - type: socket
    address: tcp://x
    actions: ["@contrl", prog_load]
    levels: [hi]
  - name: a
  - type: kafka
    brokers: [a:1]
  - type: stdout
  - type: stdout
  - type: socket
    address: tcp://x:99999
    ca: /ca.pem
  - {type: socket, name: ../x, address: "unix:///x", ca: /ca.pem}
  - {type: socket, name: x, address: "tls://x:1", key: /key.pem}
  - {type: file, name: one, path: /log}
  - {type: file, name: two, path: /log}
output: x
heartbeat: often
"""
    assert _mistakes(file, text) == [
        "4: sinks[0].path: stands here twice",
        "5: sinks[0].rotate_size: must be a size from 0 to 1024G",
        "8: sinks[1].adress: a sink of type syslog has no such key; did you mean address?",
        "9: sinks[1].facility: must be kern, user, mail, daemon, auth, syslog, lpr, news, uucp,"
        " cron, authpriv, ftp, local0, local1, local2, local3, local4, local5, local6 or local7",
        "11: sinks[2].address: must be tcp://host:port or tls://host:port or unix:///path",
        "12: sinks[2].actions: there is no action '@contrl'; did you mean @control?",
        "13: sinks[2].levels: must be critical, high, medium, low or informational",
        "14: sinks[3]: type: must be stdout, file, syslog, socket or kafka",
        "15: sinks[4]: a sink of type kafka needs topic",
        "18: sinks[6]: a sink 'stdout' stands above: give it a name",
        "20: sinks[7].address: the port must be from 1 to 65535",
        "22: sinks[8].name: must be of at most 64 letters, digits, _ and -",
        "23: sinks[9]: certificate and key go together",
        "25: sinks[11].path: another sink above writes to the same file",
        "26: output: is about runs at a terminal; the daemon's documents go to its sinks",
        "27: heartbeat: must be a duration such as 50us, 10ms, 2s, 5m or 1h, or seconds",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sinks: []", "must be from 1 to 16 sinks"),
        ("sinks: stdout", "must be a list of sinks, each with a type"),
        ("sinks: [stdout]", "must be a list of sinks, each with a type"),
        ("state: var", "must be a path that begins with /"),
        ("metrics: localhost", "must be host:port, such as 127.0.0.1:9464, or unix:///path"),
        ("metrics: ':9464'", "must be host:port, such as 127.0.0.1:9464, or unix:///path"),
        ("metrics: '127.0.0.1:0'", "the port must be from 1 to 65535"),
        (
            "metrics: '0.0.0.0:9464'",
            "must be a loopback address, such as 127.0.0.1:9464, or unix:///path",
        ),
        (
            "metrics: '[::]:9464'",
            "must be a loopback address, such as 127.0.0.1:9464, or unix:///path",
        ),
        ("user: 5", "must be a string"),
    ],
)
def test_a_mistake_in_one_key(file: Path, text: str, what: str) -> None:
    key = text.partition(":")[0]
    assert _mistakes(file, text) == [f"1: {key}: {what}"]


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:9464", "localhost:9464", "[::1]:9464", "unix:///run/x/metrics"]
)
def test_where_metrics_are_served(file: Path, address: str) -> None:
    assert _read(file, f"metrics: '{address}'").metrics == address


def test_a_run_at_a_terminal_takes_a_file_of_the_daemon(file: Path) -> None:
    """What is said in it of calls and rules holds for both."""
    file.write_text("rules: [default]\nsinks: [{type: file, path: /x}]\nuser: nobody\n")
    assert configured(argparse.Namespace(config=str(file))).rules == ("default",)


def test_what_the_daemon_does_not_take_is_told_by_name(file: Path) -> None:
    refused = {option.key for group in OPTIONS.values() for option in group if not option.daemon}
    assert {"pids", "output", "record", "summary", "duration", "format"} <= refused
    for key in refused:
        (mistake,) = _mistakes(file, f"{key}: 1\n")
        assert mistake.startswith(f"1: {key}: is about runs at a terminal")


# --- Which documents are for which sinks --------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "taken"),
    [
        (None, set(ACTIONS)),
        ((), set()),
        (("prog_load",), {"prog_load"}),
        (("prog_*", "!prog_unload"), {a for a in ACTIONS if a[:5] == "prog_"} - {"prog_unload"}),
        (("!map_*",), {action for action in ACTIONS if not action.startswith("map_")}),
        (("daemon_*", "heartbeat"),
         {"daemon_start", "daemon_stop", "daemon_reload", "heartbeat"}),
    ],
)  # fmt: skip
def test_a_filter_of_actions(actions: tuple[str, ...] | None, taken: set[str]) -> None:
    one = Filter(actions, None, None)
    assert {action for action in ACTIONS if one.takes_action(action)} == taken


def test_the_sets_part_all_actions_between_them() -> None:
    control = {a for a in ACTIONS if Filter(("@control",), None, None).takes_action(a)}
    data = {a for a in ACTIONS if Filter(("@data",), None, None).takes_action(a)}
    own = {a for a in ACTIONS if Filter(("@daemon",), None, None).takes_action(a)}
    assert {"prog_load", "map_create", "link_create", "unknown", "prog_unload"} <= control
    assert {"map_update_elem", "map_get_next_id", "inventory"} <= data
    assert {"integrity", "loss", "heartbeat", "daemon_stop"} <= own
    assert sorted([*control, *data, *own]) == sorted(ACTIONS)


def test_a_command_of_a_newer_kernel_is_control() -> None:
    assert Filter(("@control",), None, None).takes_action("prog_teleport")
    assert not Filter(("@data", "@daemon"), None, None).takes_action("prog_teleport")


def test_a_filter_of_alerts() -> None:
    one = Filter((), ("high", "critical"), ("bpf_*",))
    assert one.takes_alert("high", "bpf_rootkit")
    assert not one.takes_alert("low", "bpf_rootkit")
    assert not one.takes_alert("high", "my_rule")
    assert not Filter(None, (), None).takes_alert("high", "x")
    assert Filter((), None, None).takes_alert("informational", "x")


def test_each_line_goes_to_those_that_want_it() -> None:
    routes = Routes([
        (0, Filter(("prog_load",), ("high",), None)), (5, Filter(None, None, ("a",))),
    ])  # fmt: skip
    assert routes.of_action("prog_load") == 0b100001
    assert routes.of_action("map_create") == 0b100000
    assert routes.of_alert("high", "a") == 0b100001
    assert routes.of_alert("high", "b") == 0b1
    assert routes.of_alert("low", "b") == 0


@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, unique=True), max_size=9))
def test_a_sink_keeps_its_bit_and_gets_none_of_one_that_has_just_gone(
    steps: list[list[str]],
) -> None:
    bits: Any = {}
    for names in steps:
        after = bits_for(names, bits)
        assert list(after) == names
        assert len(set(after.values())) == len(names)
        for name in names:
            if name in bits:
                assert after[name] == bits[name]
            else:
                assert after[name] not in bits.values()
        bits = after


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
LIKE_SINKS = st.lists(
    st.dictionaries(
        st.sampled_from([
            "type", "name", "path", "address", "actions", "levels", "rules", "queue", "spool",
            "brokers", "topic", "settings", "ca", "key", "certificate", "resend", "keep",
        ]),
        st.sampled_from([*KINDS, "/x", "tcp://a:1", "a", 5, "1M", ["a:1"], {"a": 1}]) | JSON,
        max_size=6,
    ),
    max_size=4,
)  # fmt: skip


@given(JSON | LIKE_SINKS)
def test_whatever_stands_there_is_taken_or_told(value: Any) -> None:
    told = ""
    found: tuple[SinkOptions, ...] = ()
    try:
        found = sinks(value)
    except Wrong as error:
        told = "\n".join(what for _, what in error.each)
    except ValueError as error:
        told = str(error)
    assert bool(told) != bool(found)
