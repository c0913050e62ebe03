# SPDX-License-Identifier: Apache-2.0
"""Files of Sigma rules -> rules, or all that is wrong with them.

pySigma says what a rule means. What it does not say, or not where, is looked at first:
lines, fields, names that nobody has, and all that a live engine cannot do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum
from typing import Any, Final

from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.filters import SigmaFilter
from sigma.rule import SigmaRule

from ...events.errors import Mistake, UsageError
from ..check import mistakes as mistakes_among
from ..check import nearest
from ..rule import AnyOf, Correlation, Rule, from_json, to_json
from .correlation import STAND_IN, correlation, names, shape_mistakes
from .detection import (
    Known,
    condition_faults,
    detection,
    field_fault,
    item_mistakes,
    stand_in,
)
from .examples import KEYS as EXAMPLES
from .examples import example_mistakes, examples
from .lines import Lined, documents

Sigma = SigmaRule | SigmaCorrelationRule | SigmaFilter

_PARSERS: Final[Mapping[str, type[Sigma]]] = {
    "detection": SigmaRule, "correlation": SigmaCorrelationRule, "filter": SigmaFilter,
}  # fmt: skip
"""What a document is, by the section that it has."""
_KEYS: Final = (
    *EXAMPLES,
    "author", "correlation", "date", "description", "detection", "falsepositives", "fields",
    "filter", "id", "level", "license", "logsource", "modified", "name", "references", "related",
    "scope", "status", "tags", "taxonomy", "title",
)  # fmt: skip


@dataclass
class _Draft:
    """A document that is, or should be, a rule or a filter."""

    document: Lined
    sigma: Sigma | None
    """None if something is wrong with it."""
    filters: tuple[str, ...] = ()


def read(
    files: Sequence[tuple[str, str]], known: Known, *, with_examples: bool = False
) -> tuple[Rule, ...]:
    """:param files: the path and the text of each.
    :param with_examples: the rules have them; else they are only looked at.
    :raises UsageError: with every mistake in any of them.
    """
    mistakes: list[Mistake] = []
    order = {path: at for at, (path, _) in enumerate(files)}
    found = [one for path, text in files for one in documents(path, text, mistakes)]
    drafts = [draft for one in found for draft in _drafts(one, known, mistakes)]
    _filter(drafts, mistakes)
    rules = _rules(drafts, known, mistakes, with_examples=with_examples)
    mistakes += mistakes_among(rules)
    if mistakes:
        raise UsageError(
            sorted(dict.fromkeys(mistakes), key=lambda one: (order[one.path], one.line))
        )
    return rules


# --- One document ------------------------------------------------------------------------


def _drafts(document: Lined, known: Known, mistakes: list[Mistake]) -> list[_Draft]:
    value = document.value
    if not isinstance(value, Mapping):
        mistakes.append(document.mistake("must be a rule: 'title: ...' and so on"))
        return []
    sections = [section for section in _PARSERS if section in value]
    if len(sections) != 1:
        mistakes.append(document.mistake("must have a detection, a correlation or a filter"))
        return []
    faults = [
        *_key_mistakes(document), *_field_mistakes(document, known),
        *example_mistakes(document, known.fields),
    ]  # fmt: skip
    for key, fault in _metadata_faults(value):
        faults.append(document.mistake(f"{key}: {fault}", key))
        value = {**value, key: None if key != "title" else "-"}
    broken = list(_section_mistakes(document, sections[0], known))
    if broken:
        value = {**value, sections[0]: _stand_in(value[sections[0]], sections[0])}
    sigma, more = _parsed(document, value, sections[0])
    mistakes += [*faults, *broken, *more]
    return [_Draft(document, None if faults or broken or more else sigma)]


def _stand_in(about: Any, section: str) -> Mapping[str, Any]:
    if section == "correlation":
        return STAND_IN
    return stand_in(about if isinstance(about, Mapping) else {})


def _key_mistakes(document: Lined) -> list[Mistake]:
    # Sigma lets everybody add keys, so one is only wrong if it looks like one that there is.
    return [
        document.mistake(f"{key}: unknown{near}", key)
        for key in document.value
        if key not in _KEYS and (near := nearest(key, _KEYS, cutoff=0.75))
    ]


def _metadata_faults(value: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    # What pySigma stumbles over, or blames on the detection.
    for key in _TEXTS:
        if not isinstance(value.get(key, ""), str if key not in _DATES else str | date):
            yield key, "must be text"
    tags = value.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and "." in tag for tag in tags):
        yield "tags", "must be a list of such as attack.t1014"


def _field_mistakes(document: Lined, known: Known) -> list[Mistake]:
    names = document.value.get("fields")
    return [
        document.mistake(f"fields: {fault}", "fields", at)
        for at, name in enumerate(names if isinstance(names, list) else [])
        if (fault := field_fault(str(name), known.fields, existence=True))
    ]


def _section_mistakes(document: Lined, section: str, known: Known) -> Iterable[Mistake]:
    if section == "correlation":
        yield from shape_mistakes(document, known.fields)
        return
    yield from item_mistakes(document, section, known)
    about = document.value[section]
    if isinstance(about, Mapping):
        for fault in condition_faults(about.get("condition", "")):
            yield document.mistake(fault, section, "condition")
        if section == "filter" and about.get("rules") == []:  # pySigma takes it for all
            yield document.mistake("rules: must be any, or a list of rules", section, "rules")


def _parsed(
    document: Lined, value: Mapping[str, Any], section: str
) -> tuple[Sigma | None, list[Mistake]]:
    parser: Any = _PARSERS[section]
    try:
        sigma = parser.from_dict(dict(value), collect_errors=True)
        errors = list(sigma.errors)
        if isinstance(sigma, SigmaRule):
            errors += _condition_errors(sigma)
    except SigmaError as error:
        sigma, errors = None, [error]
    except Exception as error:  # of what it expects, it does not check all
        fault = f"pySigma cannot read this {section}: {type(error).__name__}"
        return None, [document.mistake(fault, section)]
    return sigma, [document.mistake(_message(error), *_where(error, section)) for error in errors]


def _condition_errors(sigma: SigmaRule) -> list[SigmaError]:
    errors = []
    for condition in getattr(sigma.detection, "parsed_condition", ()):  # none if it is broken
        try:
            condition.parse()
        except SigmaError as error:
            errors.append(error)
    return errors


def _message(error: SigmaError) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__


def _where(error: SigmaError, section: str) -> tuple[str, ...]:
    # SigmaLevelError is about level, SigmaReferencesError about references.
    about = type(error).__name__.removeprefix("Sigma").removesuffix("Error").lower()
    key = "id" if about == "identifier" else about
    if key in _KEYS:
        return (key,)
    return (section, "condition") if "condition" in about else (section,)


# --- All of them -------------------------------------------------------------------------


def _filter(drafts: list[_Draft], mistakes: list[Mistake]) -> None:
    # Into the conditions of the rules that filters are for.
    rules = [(draft, draft.sigma) for draft in drafts if isinstance(draft.sigma, SigmaRule)]
    for draft in drafts:
        site = draft.sigma
        if not isinstance(site, SigmaFilter):
            continue
        wanted = site.filter.rules
        references = [str(one.reference) for one in wanted] if isinstance(wanted, list) else []
        mistakes += [
            draft.document.mistake(fault, "filter", "rules")
            for reference in references
            if (fault := _reference_fault(reference, site, drafts))
        ]
        try:
            for filtered, rule in rules:
                if _apply(site, rule):
                    filtered.filters += (str(site.name or site.title),)
        except SigmaError as error:
            mistakes.append(draft.document.mistake(_message(error), "filter", "condition"))


def _reference_fault(name: str, site: SigmaFilter, drafts: Sequence[_Draft]) -> str:
    # Whoever names a rule relies on it that its events are left out.
    named = {
        _text(draft.document.value.get(key)): draft
        for draft in drafts
        if not isinstance(draft.sigma, SigmaFilter)
        for key in ("id", "name")
    }
    if not name or name not in named:
        return f"there is no rule {name}{nearest(name, named.keys())}"
    if "correlation" in named[name].document.value:
        return f"{name} is a correlation: filter the rules that it is about"
    rule = named[name].sigma
    if isinstance(rule, SigmaRule) and rule.logsource not in site.logsource:
        return f"{name} has another log source"
    return ""


def _apply(site: SigmaFilter, rule: SigmaRule) -> bool:
    """Whether it is for this rule.

    :raises SigmaError: its condition is none.
    """
    before = list(rule.detection.condition)
    site.apply_on_rule(rule)
    if errors := _condition_errors(rule):
        raise errors[0]
    return rule.detection.condition != before


def _rules(
    drafts: Sequence[_Draft], known: Known, mistakes: list[Mistake], *, with_examples: bool
) -> tuple[Rule, ...]:
    # Of those with something wrong, as much as others may refer to.
    rules = []
    for draft in drafts:
        if "filter" in draft.document.value:
            continue
        rule = _outline(draft.document)
        if draft.sigma and not isinstance(draft.sigma, SigmaFilter):
            try:
                rule = _rule(draft.sigma, draft, known)
                if with_examples:
                    good, bad = (examples(draft.document, key) for key in EXAMPLES)
                    rule = replace(rule, examples=good, counterexamples=bad)
            except (ValueError, RecursionError) as error:
                section = "correlation" if "correlation" in draft.document.value else "detection"
                message = str(error) if isinstance(error, ValueError) else "nested too deeply"
                mistakes.append(draft.document.mistake(message, section, "condition"))
        rules.append(rule)
    return tuple(rules)


def _outline(document: Lined) -> Rule:
    about = document.value.get("correlation")
    references = tuple(names(about.get("rules"))) if isinstance(about, Mapping) else ()
    line = document.line("correlation", "rules")
    body = Correlation("temporal", references, 1, 1, line=line) if references else AnyOf(())
    name, id_ = (_text(document.value.get(key)) for key in ("name", "id"))
    return Rule("", body, name, id_, path=document.path, line=document.line())


def _rule(sigma: SigmaRule | SigmaCorrelationRule, draft: _Draft, known: Known) -> Rule:
    document = draft.document
    if isinstance(sigma, SigmaCorrelationRule):
        body: Any = correlation(sigma, document.line("correlation", "rules"))
    else:
        body = detection(sigma, known.lists)
    about: dict[str, Any] = {key: _text(getattr(sigma, key)) for key in _TEXTS}
    about |= {key: tuple(map(_text, getattr(sigma, key) or ())) for key in _LISTS}
    rule = Rule(body=body, filters=draft.filters, path=document.path, line=document.line(), **about)
    from_json(to_json((rule,)))  # what the other side would not take is a mistake here
    return rule


_TEXTS: Final = (
    "title", "name", "id", "level", "status", "description", "author", "date", "modified",
)  # fmt: skip
_DATES: Final = ("date", "modified")
_LISTS: Final = ("tags", "references", "falsepositives", "fields")


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name.lower()
    return "" if value is None else str(value)
