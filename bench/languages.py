# SPDX-License-Identifier: Apache-2.0
"""The same conditions in other languages for rules: what each takes to be put to a document.

rule-engine and CEL (cel-python) tell capital letters apart and ours do not, which spares them
work; CEL's own form of a document is made ahead of the clock.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import celpy
import rule_engine

from bpfsnoop.events.ecs import Document
from bpfsnoop.rules.condition import condition
from bpfsnoop.rules.document import nested
from bpfsnoop.rules.rule import Correlation, Rule
from bpfsnoop.tracer import installed
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.rule_files import load
from stages import Stage, documents, least

LOADS: Final = 100


class Spelled(NamedTuple):
    """A detection of the pack in two other languages."""

    rule_engine: str
    cel: str


SPELLED: Final = {
    "bpf_block_rejected_load": Spelled(
        "event.action == 'prog_load' and event.outcome == 'failure'"
        " and bpf.errno in ['EACCES', 'EINVAL', 'E2BIG']"
        " and bpf.prog.insn_count != null and bpf.prog.insn_count >= 7",
        "event.action == 'prog_load' && event.outcome == 'failure'"
        " && has(bpf.errno) && bpf.errno in ['EACCES', 'EINVAL', 'E2BIG']"
        " && has(bpf.prog) && has(bpf.prog.insn_count) && bpf.prog.insn_count >= 7",
    ),
    "bpf_block_attached": Spelled(
        "event.action in ['link_create', 'raw_tracepoint_open', 'prog_attach']"
        " and event.outcome == 'success'",
        "event.action in ['link_create', 'raw_tracepoint_open', 'prog_attach']"
        " && event.outcome == 'success'",
    ),
    "bpf_unprivileged_load": Spelled(
        "event.action == 'prog_load' and event.outcome == 'success'"
        " and bpf.process.cap_bpf == false"
        " and not (bpf.attr.prog_flags != null and 'BPF_F_TOKEN_FD' in bpf.attr.prog_flags)",
        "event.action == 'prog_load' && event.outcome == 'success'"
        " && has(bpf.process) && has(bpf.process.cap_bpf) && bpf.process.cap_bpf == false"
        " && !(has(bpf.attr) && has(bpf.attr.prog_flags)"
        " && 'BPF_F_TOKEN_FD' in bpf.attr.prog_flags)",
    ),
    "bpf_block_unprivileged_info": Spelled(
        "event.action == 'obj_get_info_by_fd' and bpf.process.cap_bpf == false",
        "event.action == 'obj_get_info_by_fd'"
        " && has(bpf.process) && has(bpf.process.cap_bpf) && bpf.process.cap_bpf == false",
    ),
}
"""Those that need no lists, and without the filters of the pack."""

Asked = Callable[[Any], bool]


def main() -> None:
    paths = [str(installed.RULES / f"{name}.yml") for name in SPELLED]
    rules = load(paths, {}, Cache(""), with_examples=True)
    examples = list(_examples(rules))
    _agree(rules, examples)
    loads = list(documents("prog_load", LOADS))
    seconds = least(lambda: _stages(rules, loads))
    print(f"{len(rules)} conditions, alike on {len(examples)} examples, put to a program load:")
    for name, taken in seconds.items():
        print(f"  {name:<32} {taken / LOADS / len(rules) * 1e6:10.2f} us each")


def _languages(rule: Rule) -> dict[str, tuple[Asked, Callable[[Document], Any]]]:
    # What is asked, and of what form of a document.
    assert not isinstance(rule.body, Correlation)
    spelled = SPELLED[rule.name]
    context = rule_engine.Context(default_value=None, resolver=rule_engine.resolve_item)
    environment = celpy.Environment()
    program = environment.program(environment.compile(spelled.cel))
    return {
        "bpfsnoop": (condition(rule.body).holds, lambda document: document),
        "rule-engine": (
            rule_engine.Rule(spelled.rule_engine, context=context).matches,
            lambda document: document,
        ),
        "cel-python": (program.evaluate, _cel),
    }


def _cel(document: Document) -> Any:
    # Not @timestamp, which is no name of a variable there.
    return celpy.json_to_cel({name: document[name] for name in ("event", "bpf")})


def _agree(rules: Iterable[Rule], examples: Iterable[Document]) -> None:
    for rule in rules:
        languages = _languages(rule)
        verdicts = set()
        for document in examples:
            found = {bool(asked(form(document))) for asked, form in languages.values()}
            assert len(found) == 1, (rule.name, document)
            verdicts |= found
        assert len(verdicts) == 2, rule.name


def _stages(rules: Iterable[Rule], loads: Iterable[Document]) -> dict[str, Stage]:
    asked: dict[str, list[Asked]] = {}
    forms: dict[str, list[Any]] = {}
    for rule in rules:
        for name, (ask, form) in _languages(rule).items():
            asked.setdefault(name, []).append(ask)
            forms.setdefault(name, list(map(form, loads)))
    return {name: (partial(_ask, asked[name]), forms[name]) for name in asked}


def _ask(asked: Iterable[Asked], document: Any) -> None:
    for ask in asked:
        ask(document)


def _examples(rules: Iterable[Rule]) -> Iterator[Document]:
    for rule in rules:
        for example in (*rule.examples, *rule.counterexamples):
            for step in example.steps:
                yield {"bpf": {}, **nested(step.fields)}


if __name__ == "__main__":
    main()
