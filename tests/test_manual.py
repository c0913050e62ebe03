# SPDX-License-Identifier: Apache-2.0
"""docs/bpfsnoop.8 against the program: nothing that can be typed is missing there."""

import re

import pytest

from bpfsnoop.tracer import cli, config
from bpfsnoop.tracer.config import FIXED, OPTIONS
from running import ROOT

ALL = [option for group in OPTIONS.values() for option in group]
FLAGS = [flag for option in ALL for flag in option.flags]
FLAGS += ["--config", "--set", "--ebpf", "--version"]
KEYS = list(dict.fromkeys(option.key for option in ALL))


def _manual() -> str:
    """The source of the page, with options as they are typed: ``Fl -pid`` is ``--pid``."""
    lines = (ROOT / "docs" / "bpfsnoop.8").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith('.\\"'))
    text = re.sub(r"\bFl ", "-", text.replace(r"\-", "-").replace(r"\&", ""))
    return re.sub(r" , -(?=\w)", " , --", text)  # Fl goes on behind the comma


def _section(title: str) -> str:
    _, found, rest = _manual().partition(f"\n.Sh {title}\n")
    assert found, f"docs/bpfsnoop.8 has no section {title}"
    return rest.partition("\n.Sh ")[0]


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_has_an_entry(flag: str) -> None:
    lines = [line for line in _section("DESCRIPTION").splitlines() if line.startswith(".It ")]
    assert _has("\n".join(lines), flag), (
        f"docs/bpfsnoop.8 has no entry for {flag}: add '.It Fl {flag[1:]}' to DESCRIPTION"
    )


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_configuration_is_in_files(key: str) -> None:
    assert _has(_section("FILES"), key), (
        f"docs/bpfsnoop.8 does not name the key {key}: add it to config.yaml in FILES"
    )


@pytest.mark.parametrize("name", sorted(cli._SUBCOMMANDS))
def test_every_subcommand_is_in_the_synopsis(name: str) -> None:
    assert f"\n.Cm {name}\n" in _section("SYNOPSIS"), (
        f"docs/bpfsnoop.8 does not name the subcommand {name}: add '.Cm {name}' to SYNOPSIS"
    )


@pytest.mark.parametrize("key", sorted({*config._OF_THE_DAEMON, *FIXED}))
def test_what_the_daemon_does_otherwise_is_in_its_section(key: str) -> None:
    """Keys with another default, and those that take a restart."""
    assert _has(_section("DAEMON"), key), f"docs/bpfsnoop.8 does not name {key} in DAEMON"
