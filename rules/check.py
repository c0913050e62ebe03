# SPDX-License-Identifier: Apache-2.0
"""What is wrong with rules that are right each by itself."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from ..events.errors import Mistake
from .rule import Correlation, Rule

_SHORT_FOR: Final = 4  # letters


def nearest(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """``; did you mean ...?``, or nothing if none of those known is near.

    One that the name is short for is nearer than one that it is like.

    :param cutoff: 1 for the same, 0 for anything.
    """
    longer = (one for one in known if len(name) >= _SHORT_FOR and one.startswith(name))
    near = sorted(longer, key=len) or difflib.get_close_matches(name, known, 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def by_reference(rules: Sequence[Rule]) -> dict[str, Rule]:
    """The rules by what correlations and filters can call them: name or id."""
    return {key: rule for rule in rules for key in (rule.id, rule.name) if key}


def mistakes(rules: Sequence[Rule]) -> Iterator[Mistake]:
    """Names and ids that two have, references that lead nowhere or round in circles."""
    yield from _duplicates(rules)
    known = by_reference(rules)
    for rule in rules:
        if isinstance(rule.body, Correlation):
            yield from _lost(rule, rule.body, known)
    yield from _circles(rules, known)


def _duplicates(rules: Sequence[Rule]) -> Iterator[Mistake]:
    taken: dict[str, Rule] = {}
    for rule in rules:
        for key in filter(None, dict.fromkeys((rule.name, rule.id))):
            first = taken.setdefault(key, rule)
            if first is not rule:
                where = f" ({first.path}:{first.line})" if first.path else ""
                yield Mistake(f"another rule is called {key} already{where}", rule.path, rule.line)


def _lost(rule: Rule, body: Correlation, known: dict[str, Rule]) -> Iterator[Mistake]:
    aliased = (reference for fields in body.aliases.values() for reference in fields)
    for reference in dict.fromkeys((*body.rules, *aliased)):
        if reference not in known:
            message = f"there is no rule {reference}{nearest(reference, known)}"
            yield Mistake(message, rule.path, body.line)
        elif reference not in body.rules:
            message = f"an alias is for {reference}, which is not among the correlation's rules"
            yield Mistake(message, rule.path, body.line)
    for alias, fields in body.aliases.items():
        for reference in dict.fromkeys(body.rules):
            if reference not in fields:  # its events would belong to no group
                message = f"the alias {alias} has no field for {reference}"
                yield Mistake(message, rule.path, body.line)


def _circles(rules: Sequence[Rule], known: dict[str, Rule]) -> Iterator[Mistake]:
    for rule in rules:
        if isinstance(rule.body, Correlation) and any(one is rule for one in _reached(rule, known)):
            yield Mistake("the correlation refers to itself", rule.path, rule.body.line)


def _reached(rule: Rule, known: dict[str, Rule]) -> list[Rule]:
    reached: dict[int, Rule] = {}
    waiting = [rule]
    while waiting:
        body = waiting.pop().body
        if isinstance(body, Correlation):
            found = [known[name] for name in body.rules if name in known]
            waiting += [one for one in found if id(one) not in reached]
            reached |= {id(one): one for one in found}
    return list(reached.values())
