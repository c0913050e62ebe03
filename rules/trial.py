# SPDX-License-Identifier: Apache-2.0
"""Rules put to the examples that stand beside them."""

from collections.abc import Iterator, Sequence

from ..events.errors import Mistake
from .check import by_reference
from .document import nested
from .engine import Engine
from .rule import SECOND, Correlation, Example, Rule


def faults(rules: Sequence[Rule]) -> Iterator[Mistake]:
    """The examples that no alert comes of, the counterexamples that one comes of, and the rules
    that have no examples.

    :param rules: of which each is right by itself, with its examples.
    """
    for rule in rules:
        if not rule.examples:
            yield Mistake(f"{rule.label} has no examples", rule.path, rule.line)
        needed = _needed(rule, rules)
        for number, example in enumerate(rule.examples, 1):
            if not _is_found(rule, needed, example):
                message = f"example {number} raises no {rule.label}"
                yield Mistake(message, rule.path, example.line)
        for number, example in enumerate(rule.counterexamples, 1):
            if _is_found(rule, needed, example):
                message = f"counterexample {number} raises {rule.label}"
                yield Mistake(message, rule.path, example.line)


def _needed(rule: Rule, rules: Sequence[Rule]) -> list[Rule]:
    # Those that it refers to, and so on. Among them nothing refers to the rule itself, so
    # that it has results of its own even if elsewhere it only serves others.
    known = by_reference(rules)
    needed = [rule]
    for one in needed:  # it grows
        if isinstance(one.body, Correlation):
            found = (known[name] for name in one.body.rules)
            needed += [each for each in found if not any(each is other for other in needed)]
    return needed


def _is_found(rule: Rule, rules: Sequence[Rule], example: Example) -> bool:
    engine = Engine(rules)
    time_ns = sequence = 0
    for step in example.steps:
        for _ in range(step.times):
            sequence += 1
            time_ns += round(step.after_s * SECOND)
            document = nested({"event.sequence": sequence, **step.fields})
            if any(match.rule is rule for match in engine.feed(document, time_ns)):
                return True
    return False
