# SPDX-License-Identifier: Apache-2.0
"""The pack becomes queries of a SIEM, by pySigma's backends; docs/rules.md, "In a SIEM"."""

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from running import ROOT

PACK = ROOT / "rules" / "pack"
SIEM = ROOT / "docs" / "siem"
ENVIRONMENT = ROOT / ".venv" / "convert"
"""Made by packaging/setup, because the backends want another pySigma than we do."""

NO_CORRELATIONS = "Backend does not support correlation rules."
NOT_ORDERED = "Correlation type 'temporal_ordered' is not supported by backend."
NO_EXISTS = "Field exists expressions are not supported by the backend."

REFUSED = {
    "lucene": dict.fromkeys(
        ("event_count", "value_count", "temporal", "temporal_ordered"), NO_CORRELATIONS
    ),
    "esql": {"temporal_ordered": NOT_ORDERED},
    "splunk": {"temporal_ordered": NOT_ORDERED},
}
"""All that a backend does not convert, by the type of the correlation."""

Converted = Mapping[str, Mapping[str, Any]]
"""Rule -> kind, and queries or the reason why there are none."""


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    if (ENVIRONMENT / ".ready").exists():
        return
    reason = "the backends are missing: packaging/setup test installs them"
    if os.environ.get("BPFSNOOP_LIVE") == "1":
        pytest.fail(f"BPFSNOOP_LIVE=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our lists as a pipeline."""
    path = tmp_path_factory.mktemp("lists") / "lists.yml"
    known = yaml.safe_load((ROOT / "rules" / "lists.yaml").read_text())
    path.write_text(yaml.safe_dump({"vars": known}))
    return path


@pytest.fixture(scope="module")
def converted(lists: Path) -> Mapping[str, Converted]:
    """Of each backend."""
    answer: Mapping[str, Converted] = _convert(SIEM / "pipeline.yml", lists)
    return answer


def _convert(*pipelines: Path) -> Any:
    command = [ENVIRONMENT / "bin" / "python", ROOT / "tests" / "convert.py", *pipelines]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _documents() -> Iterator[Mapping[str, Any]]:
    for path in PACK.rglob("*.yml"):
        yield from yaml.safe_load_all(path.read_text())


@pytest.mark.parametrize("backend", ["lucene", "esql", "splunk"])
def test_every_rule_is_converted(converted: Mapping[str, Converted], backend: str) -> None:
    """But for types of correlations that the backend says itself it has none of."""
    rules = converted[backend]
    assert rules.keys() == {document["name"] for document in _documents()} - _filters()
    refused = defaultdict(set)
    for name, rule in rules.items():
        if "refused" in rule:
            refused[rule["kind"]].add(rule["refused"])
            assert rule["kind"] != "detection", f"{name}: {rule['refused']}"
        else:
            assert len(rule["queries"]) == 1, name
            assert rule["kind"] not in REFUSED[backend], name
    assert refused == {kind: {why} for kind, why in REFUSED[backend].items()}


def _filters() -> set[str]:
    return {document["name"] for document in _documents() if "filter" in document}


def test_detections_without_exists_are_converted_to_eql(
    converted: Mapping[str, Converted],
) -> None:
    """What that backend makes of correlations is not what they say, so they are not asked for."""
    detections = [rule for rule in converted["eql"].values() if rule["kind"] == "detection"]
    assert any("queries" in rule for rule in detections)
    for rule in detections:
        assert NO_EXISTS in rule.get("refused", NO_EXISTS)


def test_lists_and_filters_are_in_the_queries(converted: Mapping[str, Converted]) -> None:
    for backend in ("esql", "splunk"):
        (query,) = converted[backend]["bpf_send_signal"]["queries"]
        assert "/usr/lib/systemd/systemd-executor" in query  # of %trusted_bpf_loaders%
        assert "/usr/local/bin/tetragon" in query  # of a filter
    for rules in converted.values():
        for rule in rules.values():
            assert not re.search(r"%\w+%", " ".join(rule.get("queries", ())))


def test_splunk_finds_what_is_in_lists(lists: Path) -> None:
    """Every field that is a list in an example has the name that Splunk gives to its values."""
    mapping = yaml.safe_load((SIEM / "splunk.yml").read_text())["transformations"][0]["mapping"]
    queries = json.dumps(_convert(SIEM / "pipeline.yml", SIEM / "splunk.yml", lists)["splunk"])
    unmapped = {field for field in _fields_with_lists() if re.search(rf"\b{field}\b=", queries)}
    assert not unmapped
    assert all(re.search(re.escape(name), queries) for name in mapping.values())


def _fields_with_lists() -> set[str]:
    return {
        field
        for document in _documents()
        for event in _events([document.get("examples", []), document.get("counterexamples", [])])
        for field, value in event.items()
        if isinstance(value, list)
    }


def _events(example: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(example, dict):
        yield example
        return
    for inner in example:
        yield from _events(inner)


def test_the_commands_in_the_manual_work(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "rules.md").read_text().split("## In a SIEM\n")[1]
    commands = section.split("```sh\n")[1].split("```")[0]
    assert commands.count("sigma convert") == 3
    for name in ("rules", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=tmp_path, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert b"bpf.prog.helpers:bpf_probe_write_user" in done.stdout  # Lucene
    assert b"date_trunc(1minutes" in done.stdout  # ES|QL
    assert b'"bpf.prog.helpers{}"' in done.stdout  # Splunk
