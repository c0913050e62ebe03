# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop rules``: rules in files, looked at and listed."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from ..events.value import JSON, printable
from ..rules.engine import Engine
from ..rules.rule import Correlation, Rule
from .cache import Cache
from .rule_files import load

_TECHNIQUE: Final = "attack.t"
_LEVELS: Final = ("critical", "high", "medium", "low", "informational", "")


def rules_in(paths: Sequence[str]) -> Sequence[Rule]:
    """The rules of an engine that would start with them.

    :param paths: of files and directories.
    :raises UsageError: with every mistake in any of them.
    """
    return Engine(load(paths, {}, Cache(""))).rules


def summary(rules: Sequence[Rule]) -> str:
    """How many there are, in words."""
    correlations = sum(isinstance(rule.body, Correlation) for rule in rules)
    return ", ".join([
        _counted(len(rules) - correlations, "rule"), _counted(correlations, "correlation"),
    ])  # fmt: skip


def lines(rules: Sequence[Rule]) -> Iterator[str]:
    """A table, the most severe first: level, ATT&CK techniques, file, title."""
    rows = [
        (rule.level or "-", " ".join(techniques(rule)) or "-", rule.path, _plain(rule.title))
        for rule in sorted(rules, key=lambda rule: _LEVELS.index(rule.level))
    ]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield " ".join(cells).rstrip()


def documents(rules: Sequence[Rule]) -> Iterator[str]:
    """A line of JSON a rule, with Sigma's names."""
    for rule in rules:
        yield json.dumps(_document(rule))


def techniques(rule: Rule) -> list[str]:
    """``T1014``, ``T1562.001``: what its tags say of MITRE ATT&CK."""
    tags = (tag.lower() for tag in rule.tags)
    return [tag.removeprefix("attack.").upper() for tag in tags
            if tag.startswith(_TECHNIQUE) and tag[len(_TECHNIQUE) :][:1].isdigit()]  # fmt: skip


def _document(rule: Rule) -> dict[str, JSON]:
    kind = rule.body.kind if isinstance(rule.body, Correlation) else "detection"
    about: dict[str, JSON] = {"title": rule.title, "kind": kind}
    for name in ("id", "name", "level", "status", "description", "author", "date", "modified"):
        if value := getattr(rule, name):
            about[name] = value
    for name in ("tags", "references", "falsepositives", "filters"):
        if values := getattr(rule, name):
            about[name] = list(values)
    return {**about, "techniques": techniques(rule), "path": rule.path, "line": rule.line}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _plain(text: str) -> str:
    return printable(text.encode("utf-8", "replace"))
