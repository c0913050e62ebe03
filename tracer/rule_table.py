# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop rules``: rules in files, looked at and listed."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from ..events.value import JSON, printable
from ..rules.attack import Technique, techniques
from ..rules.engine import Engine
from ..rules.rule import Correlation, Rule
from ..rules.trial import faults
from .cache import Cache
from .config import Config
from .rule_files import load

_LEVELS: Final = ("critical", "high", "medium", "low", "informational", "")


def rules_in(options: Config, paths: Sequence[str]) -> Sequence[Rule]:
    """The rules of an engine that would start with them, and their examples.

    :param paths: of files and directories; ``default`` for our own.
    :raises UsageError: with every mistake in any of them.
    """
    return Engine(load(paths, options.rule_lists, Cache(""), with_examples=True)).rules


def summary(rules: Sequence[Rule]) -> str:
    """How many there are, in words."""
    correlations = sum(isinstance(rule.body, Correlation) for rule in rules)
    return ", ".join([
        _counted(len(rules) - correlations, "rule"), _counted(correlations, "correlation"),
    ])  # fmt: skip


def tried(rules: Sequence[Rule]) -> tuple[list[str], str]:
    """The rules put to their examples: what is wrong, and in words how many there were."""
    wrong = list(map(str, faults(rules)))
    found, left = (
        sum(len(getattr(rule, key)) for rule in rules) for key in ("examples", "counterexamples")
    )
    counted = f"{summary(rules)}; {_counted(found, 'example')}, {_counted(left, 'counterexample')}"
    return wrong, f"{counted}: {f'{len(wrong)} wrong' if wrong else 'all are as they should be'}"


def coverage(rules: Sequence[Rule]) -> Iterator[str]:
    """A line for each ATT&CK technique: its id, its name, and the rules that are about it."""
    about: dict[Technique, list[str]] = {}
    for rule in rules:
        for technique in techniques(rule.tags):
            about.setdefault(technique, []).append(_plain(rule.label))
    width = max((len(technique.name) for technique in about), default=0)
    for technique, names in sorted(about.items()):
        yield f"{technique.id:<9} {technique.name:<{width}} {', '.join(names)}"


def lines(rules: Sequence[Rule]) -> Iterator[str]:
    """A table, the most severe first: level, ATT&CK techniques, name, title."""
    rows = [
        (rule.level or "-", _ids(rule) or "-", _plain(rule.label), _plain(rule.title))
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


def _ids(rule: Rule) -> str:
    return " ".join(technique.id for technique in techniques(rule.tags))


def _document(rule: Rule) -> dict[str, JSON]:
    kind = rule.body.kind if isinstance(rule.body, Correlation) else "detection"
    about: dict[str, JSON] = {"title": rule.title, "kind": kind}
    for name in ("id", "name", "level", "status", "description", "author", "date", "modified"):
        if value := getattr(rule, name):
            about[name] = value
    for name in ("tags", "references", "falsepositives", "filters"):
        if values := getattr(rule, name):
            about[name] = list(values)
    known: list[JSON] = [technique._asdict() for technique in techniques(rule.tags)]
    return {**about, "techniques": known, "path": rule.path, "line": rule.line}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _plain(text: str) -> str:
    return printable(text.encode("utf-8", "replace"))
