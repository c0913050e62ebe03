# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop rules``: what a user reads about rules."""

import json
from pathlib import Path

import pytest

from rule_texts import correlation, detection
from terminal import shown

RIGHT = """\
title: A program that writes to user memory
name: user_write
level: {level}
tags: [attack.defense-evasion, attack.t1014, attack.t1562.001]
logsource: {{product: linux, service: bpfsnoop}}
detection:
  load:
    event.action: prog_load
    bpf.prog.helpers: bpf_probe_write_user
  condition: load
"""
WRONG = """\
title: Misspelt
level: high
logsource: {product: linux, service: bpfsnoop}
detection:
  load:
    event.acton: prog_load
    bpf.prog.helpers|contain: x
  condition: lod
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "low.yml").write_text(detection({"event.action": "map_create"}, name="maps"))
    (tmp_path / "user_write.yml").write_text(RIGHT.format(level="critical"))
    (tmp_path / "often.yml").write_text(
        correlation("often", type="event_count", rules=["maps"], condition={"gte": 3})
    )
    return tmp_path


def test_rules_that_are_right_are_counted(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counted = ["2 rules, 1 correlation: nothing is wrong"]
    assert shown(capfd, "rules", "check", directory) == (0, counted, "")


def test_all_mistakes_are_told_at_once_with_their_lines(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong, missing = directory / "wrong.yml", directory / "missing"
    wrong.write_text(WRONG)
    status, lines, said = shown(capfd, "rules", "check", directory, missing)
    assert (status, lines) == (2, [])
    told = said.splitlines()
    assert f"bpfsnoop: {missing}: cannot read it: No such file or directory" in told
    places = {line.split(": ")[1] for line in told if str(wrong) in line}
    assert places == {f"{wrong}:{number}" for number in (6, 7, 8)}
    assert "did you mean event.action?" in said
    assert "did you mean contains?" in said


def test_the_most_severe_come_first(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, lines, _ = shown(capfd, "rules", "list", directory)
    assert status == 0
    level, *techniques, name = lines[0].partition(" A program")[0].split()
    assert (level, techniques, name) == ("critical", ["T1014", "T1562.001"], "user_write")
    assert lines[0].endswith("A program that writes to user memory")
    assert lines[3:] == [
        "",
        "T1014     Rootkit                 user_write",
        "T1562.001 Disable or Modify Tools user_write",
    ]


def test_a_line_of_json_a_rule(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = shown(capfd, "rules", "list", "--json", directory)
    rules = {rule["name"]: rule for rule in map(json.loads, lines)}
    assert rules["user_write"]["techniques"] == [
        {"id": "T1014", "name": "Rootkit"},
        {"id": "T1562.001", "name": "Disable or Modify Tools"},
    ]
    assert rules["user_write"]["level"] == "critical"
    assert rules["often"]["kind"] == "event_count"
    assert {rule["kind"] for rule in rules.values()} == {"detection", "event_count"}


def test_a_title_cannot_write_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = RIGHT.format(level="low").replace("A program", '"\\e[2J')
    text = text.replace("user memory\n", 'user memory"\n', 1)
    (tmp_path / "odd.yml").write_text(text)
    status, lines, said = shown(capfd, "rules", "list", tmp_path)
    assert status == 0, said
    assert "\x1b" not in lines[0]
    assert r"\33[2J" in lines[0]
