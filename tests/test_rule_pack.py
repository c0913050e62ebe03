# SPDX-License-Identifier: Apache-2.0
"""The rules that are installed: each finds what it says, and trusts nobody by name alone."""

import errno
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bpfsnoop.decoders import uapi
from bpfsnoop.decoders.helpers import HELPERS
from bpfsnoop.events.ecs import TYPED_COMMANDS
from bpfsnoop.events.text import errno_name
from bpfsnoop.rules import attack
from bpfsnoop.rules.alert import SEVERITIES
from bpfsnoop.rules.rule import All, AnyOf, Ask, Correlation, Example, Node, Not, Rule, Step
from bpfsnoop.rules.trial import faults
from bpfsnoop.tracer import installed
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.rule_files import load
from documents import SCHEMA, VALIDATOR
from running import ROOT

PACK = load(["default"], {}, Cache(""), with_examples=True)
BY_NAME = {rule.name: rule for rule in PACK}
LISTS: Mapping[str, Sequence[str]] = yaml.safe_load(installed.RULE_LISTS.read_text())
FILES = sorted(installed.RULES.glob("*.yml"))
FILTERS = [
    document
    for path in sorted((installed.RULES / "filters").glob("*.yml"))
    for document in yaml.safe_load_all(path.read_text())
]
DETECTIONS = [rule for rule in PACK if not isinstance(rule.body, Correlation)]
CORRELATIONS = [rule for rule in PACK if isinstance(rule.body, Correlation)]
BLOCK = "bpf_block_"

# Places that only root can write to are left out without asking whose file it is.
BY_PLACE = {"bpf_load_from_volatile_binary", "bpf_loader_masquerades"}


def each(rules: Sequence[Rule]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", rules, ids=lambda rule: rule.name)


class Asked(NamedTuple):
    ask: Ask
    excludes: bool
    """That it holds keeps the rule from matching."""
    beside: tuple[Ask, ...]
    """What has to hold as well where it stands."""


def asked(node: Node, *, excludes: bool = False, beside: tuple[Ask, ...] = ()) -> Iterator[Asked]:
    match node:
        case Ask():
            yield Asked(node, excludes, beside)
        case Not(inner):
            yield from asked(inner, excludes=not excludes)
        case All(nodes):
            beside += tuple(one for one in nodes if isinstance(one, Ask))
            for one in nodes:
                yield from asked(one, excludes=excludes, beside=beside)
        case AnyOf(nodes):
            for one in nodes:
                yield from asked(one, excludes=excludes, beside=beside)


def all_asked(rule: Rule) -> list[Asked]:
    assert not isinstance(rule.body, Correlation)
    return list(asked(rule.body))


def needed(rule: Rule) -> list[Rule]:
    """It and those that it refers to."""
    found = [rule]
    for one in found:
        if isinstance(one.body, Correlation):
            found += [BY_NAME[name] for name in one.body.rules if BY_NAME[name] not in found]
    return found


def is_found(rule: Rule, example: Example) -> bool:
    changed = replace(rule, examples=(example,), counterexamples=())
    others = [replace(one, examples=(), counterexamples=()) for one in needed(rule)[1:]]
    return not any(fault.message.startswith("example") for fault in faults([changed, *others]))


# --- What each rule has ------------------------------------------------------------------


def test_there_are_rules_and_filters() -> None:
    assert len(PACK) >= 40
    assert len(FILES) == len(PACK)
    assert len(FILTERS) >= 6


def test_every_example_is_found_and_no_counterexample() -> None:
    assert list(map(str, faults(PACK))) == []


@each(PACK)
def test_a_rule_is_whole(rule: Rule) -> None:
    assert rule.level in SEVERITIES
    assert rule.level
    assert uuid.UUID(rule.id).version == 4
    assert rule.status == "experimental"
    assert rule.author == "bpfsnoop"
    assert rule.date == "2026-11-22"
    assert rule.references
    assert all(reference.startswith("https://") for reference in rule.references)
    assert rule.falsepositives
    assert rule.examples
    assert rule.counterexamples
    if not rule.name.startswith(BLOCK):
        assert rule.fields
        assert 2 <= rule.description.count(". ") + 1 <= 6
    assert len(rule.title) <= 100
    assert rule.title[0].isupper() or rule.title.startswith("bpfsnoop")
    assert not rule.title.endswith(".")


def test_a_file_is_called_as_its_rule() -> None:
    assert {Path(rule.path).name for rule in PACK} == {f"{rule.name}.yml" for rule in PACK}
    assert {Path(rule.path) for rule in PACK} == set(FILES)


def test_no_two_have_one_id_or_title() -> None:
    ids = [rule.id for rule in PACK] + [one["id"] for one in FILTERS]
    assert len(set(ids)) == len(ids)
    titles = [rule.title for rule in PACK if not rule.name.startswith(BLOCK)]
    assert len(set(titles)) == len(titles)


@each(PACK)
def test_counterexamples_are_two_at_least(rule: Rule) -> None:
    assert len(rule.counterexamples) >= 2


@each(PACK)
def test_tags_are_techniques_and_tactics_that_have_names(rule: Rule) -> None:
    techniques = attack.techniques(rule.tags)
    assert techniques
    assert all(technique.id in attack.TECHNIQUES for technique in techniques)
    assert all(tag.startswith("attack.") for tag in rule.tags)
    assert len(techniques) + len(attack.tactics(rule.tags)) == len(rule.tags)
    assert not {technique.id for technique in techniques} & {"T1562", "T1562.001"}  # gone in v19
    assert "attack.defense-evasion" not in rule.tags


@each([rule for rule in PACK if rule.name.startswith(BLOCK)])
def test_a_building_block_says_nothing_itself(rule: Rule) -> None:
    assert rule.level == "informational"
    users = [one for one in CORRELATIONS if rule.name in _body(one).rules]
    assert users
    assert not any(_body(user).generate for user in users)
    assert any(user.name in rule.description for user in CORRELATIONS)


@each(CORRELATIONS)
def test_a_correlation_takes_no_alerts_away(rule: Rule) -> None:
    if not _body(rule).generate:
        assert all(name.startswith(BLOCK) for name in _body(rule).rules)


def _body(rule: Rule) -> Correlation:
    assert isinstance(rule.body, Correlation)
    return rule.body


# --- Whom rules trust --------------------------------------------------------------------


@each(DETECTIONS)
def test_who_is_left_out_is_known_by_more_than_a_path(rule: Rule) -> None:
    for ask, excludes, beside in all_asked(rule):
        if excludes and ask.field == "process.executable":
            assert ask.cased
            authentic = Ask("bpf.process.exe_authentic", "boolean", value=True)
            assert authentic in beside or (rule.name in BY_PLACE and ask.op == "startswith")


@each(DETECTIONS)
def test_every_path_that_is_left_out_tells_capital_letters(rule: Rule) -> None:
    for ask, excludes, _ in all_asked(rule):
        if excludes and isinstance(ask.value, str) and ask.value.startswith("/"):
            assert ask.cased


@each(DETECTIONS)
def test_nobody_is_left_out_by_what_they_choose_themselves(rule: Rule) -> None:
    chosen = (
        "process.name", "process.args", "process.thread", "process.parent", "process.ancestors",
        "process.working_directory", "bpf.process.argv0", "bpf.prog.name", "bpf.map.name",
        "bpf.attr.prog_name", "bpf.attr.map_name", "container.",
    )  # fmt: skip
    for ask, excludes, _ in all_asked(rule):
        assert not (excludes and ask.field.startswith(chosen))


@each(DETECTIONS)
def test_an_example_says_that_a_trusted_path_is_not_enough(rule: Rule) -> None:
    """Of each rule with a list of trusted ones: not the host's file, and capital letters."""
    excluded = {ask.value for ask, excludes, _ in all_asked(rule) if excludes}
    if not excluded & set(LISTS["trusted_bpf_loaders"]):
        return
    events = [step.fields for example in rule.examples for step in example.steps]
    assert any(
        event.get("process.executable") in excluded
        and event.get("bpf.process.exe_authentic") is False
        for event in events
    )
    lower = {str(path).lower() for path in excluded}
    assert any(
        str(event.get("process.executable")).lower() in lower
        and event.get("process.executable") not in excluded
        and event.get("bpf.process.exe_authentic") is True
        for event in events
    )


def test_general_tools_are_no_trusted_loaders() -> None:
    general = {"python", "bpftool", "bpftrace", "tc", "ip", "perl", "bash", "sh", "dash", "perf"}
    for path in LISTS["trusted_bpf_loaders"]:
        assert path.startswith("/usr/")
        assert "*" not in path
        name = Path(path).name
        assert name not in general
        assert not name.startswith("python")


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_list_is_lower_case_used_and_has_nothing_twice(name: str) -> None:
    items = LISTS[name]
    assert len(set(items)) == len(items)
    assert all(item == item.lower() for item in items)
    texts = [path.read_text() for path in installed.RULES.rglob("*.yml")]
    assert any(f"%{name}%" in text for text in texts)


def test_names_of_objects_are_as_long_as_the_kernel_keeps_them() -> None:
    for name in ("rootkit_object_names", "bpf_tool_names"):
        assert all(len(item) <= 15 for item in LISTS[name])


# --- Filters -----------------------------------------------------------------------------


@pytest.mark.parametrize("document", FILTERS, ids=lambda document: document["name"])
def test_a_filter_names_its_rules(document: dict[str, Any]) -> None:
    assert uuid.UUID(document["id"]).version == 4
    assert document["description"]
    assert isinstance(document["filter"]["rules"], list)
    assert set(document["filter"]["rules"]) <= BY_NAME.keys()


LOADED = {
    "event.action": "prog_load", "event.outcome": "success", "bpf.prog.proven": True,
    "bpf.prog.tail_calls": False, "process.executable": "/usr/bin/python3.11",
    "bpf.process.exe_authentic": True,
}  # fmt: skip
DEVICES = {
    **LOADED, "bpf.prog.type": "BPF_PROG_TYPE_CGROUP_DEVICE", "bpf.prog.map_ids": [],
    "process.executable": "memfd:runc_cloned:/proc/self/exe", "bpf.process.exe_memfd": True,
    "bpf.process.exe_authentic": False, "bpf.process.in_container": True,
}  # fmt: skip
PROBE = {
    **LOADED, "bpf.prog.type": "BPF_PROG_TYPE_KPROBE", "bpf.prog.insn_count": 2,
    "bpf.prog.helpers": ["bpf_send_signal"], "process.executable": "/tmp/probe",
    "bpf.process.cap_bpf": False,
}  # fmt: skip
TETRAGON = {
    **LOADED, "process.executable": "/usr/local/bin/tetragon",
    "bpf.prog.helpers": ["bpf_override_return", "bpf_probe_write_user"],
    "bpf.prog.type": "BPF_PROG_TYPE_KPROBE",
}  # fmt: skip
CILIUM = {
    "event.action": "link_create", "event.outcome": "success",
    "bpf.attr.attach_type": "BPF_TCX_EGRESS", "process.executable": "/usr/bin/cilium-agent",
    "bpf.process.exe_authentic": True,
}  # fmt: skip
ROOTLESS = {
    "event.action": "prog_load", "event.outcome": "failure", "bpf.errno": "EPERM",
    "bpf.process.cap_bpf": False, "bpf.attr.prog_type": "BPF_PROG_TYPE_CGROUP_DEVICE",
    "process.executable": "/usr/bin/crun", "bpf.process.exe_authentic": True,
}  # fmt: skip
SYSTEMD = {
    **ROOTLESS, "process.executable": "/usr/lib/systemd/systemd", "bpf.attr.insn_cnt": 2,
    "bpf.attr.prog_type": "BPF_PROG_TYPE_SOCKET_FILTER",
}  # fmt: skip
LONG = {**TETRAGON, "bpf.prog.cut": ["insns"], "bpf.prog.insn_count": 9000}


@pytest.mark.parametrize(
    ("name", "event", "odd"),
    [
        ("bpf_load_from_volatile_binary", DEVICES, {"bpf.prog.helpers": ["bpf_trace_printk"]}),
        ("bpf_load_from_volatile_binary", DEVICES, {"bpf.prog.map_ids": [7]}),
        ("bpf_load_from_volatile_binary", DEVICES, {"bpf.prog.proven": False}),
        ("bpf_load_from_volatile_binary", DEVICES, {"bpf.prog.cut": ["helpers"]}),
        ("bpf_load_in_container", DEVICES, {"bpf.prog.type": "BPF_PROG_TYPE_CGROUP_SKB"}),
        ("bpf_load_in_container", DEVICES, {"bpf.prog.tail_calls": True}),
        ("bpf_send_signal", PROBE, {"bpf.prog.insn_count": 3}),
        ("bpf_send_signal", PROBE, {"bpf.prog.proven": False}),
        ("bpf_load_from_volatile_binary", PROBE, {"bpf.prog.insn_count": 3}),
        ("bpf_load_from_volatile_binary", PROBE, {"bpf.prog.type": "BPF_PROG_TYPE_XDP"}),
        ("bpf_unprivileged_load", PROBE, {"bpf.prog.insn_count": 20}),
        ("bpf_user_memory_write", TETRAGON, {"bpf.process.exe_authentic": False}),
        ("bpf_override_return", TETRAGON, {"process.executable": "/usr/local/bin/Tetragon"}),
        ("bpf_block_tampering_load", TETRAGON, {"process.executable": "/tmp/tetragon"}),
        ("bpf_net_hook_untrusted", CILIUM, {"bpf.process.exe_authentic": False}),
        ("bpf_block_egress_hook", CILIUM, {"process.executable": "/usr/bin/CILIUM-agent"}),
        ("bpf_block_unprivileged_refused", ROOTLESS, {"bpf.process.exe_authentic": False}),
        ("bpf_block_unprivileged_refused", SYSTEMD, {"bpf.attr.insn_cnt": 3}),
        ("bpf_load_half_seen", LONG, {"bpf.process.exe_authentic": False}),
        (
            "bpf_block_unprivileged_refused", ROOTLESS,
            {"bpf.attr.prog_type": "BPF_PROG_TYPE_SOCKET_FILTER"},
        ),
    ],
)  # fmt: skip
def test_a_filter_leaves_out_what_it_is_for_and_no_more(
    name: str, event: dict[str, Any], odd: dict[str, Any]
) -> None:
    assert not is_found(BY_NAME[name], Example((Step(event),), 0))
    assert is_found(BY_NAME[name], Example((Step(event | odd),), 0))


# --- Whether rules can match anything ----------------------------------------------------


def _constants(field: str) -> frozenset[str]:
    last = field.rpartition(".")[2]
    if last in ("expected_attach_type", "attach_type"):
        return frozenset(uapi.ATTACH_TYPE.names.values())
    if field in ("bpf.prog.type", "bpf.attr.prog_type"):
        return frozenset(uapi.PROG_TYPE.names.values())
    if field == "event.action":
        commands = {command.removeprefix("BPF_").lower() for command in TYPED_COMMANDS}
        return frozenset(commands | {"integrity", "prog_unload"})
    if field == "bpf.errno":
        return frozenset(map(errno_name, errno.errorcode))
    if field == "bpf.prog.helpers":
        return frozenset(HELPERS.values())
    return frozenset()


def _spelled() -> Iterator[tuple[str, str]]:
    for rule in DETECTIONS:
        for ask, _, _ in all_asked(rule):
            if isinstance(ask.value, str):
                pattern = f"{ask.value}*" if ask.op == "startswith" else ask.value
                yield ask.field, pattern
    for rule in PACK:
        for example in (*rule.examples, *rule.counterexamples):
            for step in example.steps:
                for field, value in step.fields.items():
                    values = value if isinstance(value, list) else [value]
                    yield from ((field, one) for one in values if isinstance(one, str))


def test_constants_are_spelled_as_documents_have_them() -> None:
    checked = 0
    for field, pattern in _spelled():
        if known := _constants(field):
            assert any(fnmatchcase(name, pattern) for name in known), (field, pattern)
            checked += 1
    assert checked > 500


def _schemas(schema: Any, path: Sequence[str]) -> Iterator[Any]:
    # All that the schema says of what is at this path, through lists and alternatives.
    if not isinstance(schema, dict):
        return
    if reference := schema.get("$ref"):
        target: Any = SCHEMA
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]
        yield from _schemas(target, path)
    if not path:
        yield {key: value for key, value in schema.items() if key != "$ref"}
    for key in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(key, ()):
            yield from _schemas(inner, path)
    if path and "items" in schema:
        yield from _schemas(schema["items"], path)
    if path and path[0] in schema.get("properties", {}):
        yield from _schemas(schema["properties"][path[0]], path[1:])


def _is_permitted(field: str, value: Any) -> bool:
    """Of a field within a list of objects, each value that it has."""
    about = [
        schema
        for kind in ("call", "notice")
        for schema in _schemas(SCHEMA["$defs"][kind], field.split("."))
        if schema.keys() & {"type", "enum", "const"}
    ]

    def valid(one: Any) -> bool:
        return any(VALIDATOR.evolve(schema=schema).is_valid(one) for schema in about)

    return valid(value) or (isinstance(value, list) and all(map(valid, value)))


@each(PACK)
def test_examples_are_as_documents_are(rule: Rule) -> None:
    for example in (*rule.examples, *rule.counterexamples):
        for step in example.steps:
            for field, value in step.fields.items():
                assert _is_permitted(field, value), (field, value)
            if step.fields["event.action"] not in ("integrity", "prog_unload"):
                assert "event.outcome" in step.fields


def test_what_is_no_document_is_not_taken_for_one() -> None:
    assert _is_permitted("user.id", "0")
    assert not _is_permitted("user.id", 0)
    assert not _is_permitted("event.outcome", "ok")
    assert not _is_permitted("bpf.prog.helpers", "bpf_tail_call")
    assert not _is_permitted("bpf.notes", ["odd"])
    assert not _is_permitted("bpf.process.exe_authentic", "true")


# --- Whether an example is found for the right reason ------------------------------------


def _without(example: Example, fields: Sequence[str]) -> Example:
    steps = (
        step._replace(fields={key: step.fields[key] for key in step.fields if key not in fields})
        for step in example.steps
    )
    return example._replace(steps=tuple(steps))


@each(DETECTIONS)
def test_without_what_makes_it_match_an_example_is_silent(rule: Rule) -> None:
    asks = {ask.field for ask, excludes, _ in all_asked(rule) if not excludes}
    for example in rule.examples:
        (step,) = example.steps
        assert not is_found(rule, _without(example, ["event.action"]))
        facts = [key for key in step.fields if key in asks and not key.startswith("event.")]
        if facts:  # else the action alone is what it is about
            assert not is_found(rule, _without(example, facts))


@each(DETECTIONS)
def test_what_failed_is_silent_unless_the_rule_is_about_attempts(rule: Rule) -> None:
    outcomes = {ask.value for ask, excludes, _ in all_asked(rule) if ask.field == "event.outcome"}
    if outcomes != {"success"}:
        return
    for example in rule.examples:
        (step,) = example.steps
        failed = step._replace(fields={**step.fields, "event.outcome": "failure"})
        assert not is_found(rule, example._replace(steps=(failed,)))


@each(CORRELATIONS)
def test_no_event_of_a_correlation_s_example_is_too_many(rule: Rule) -> None:
    for example in rule.examples:
        for at, step in enumerate(example.steps):
            less = [*example.steps]
            less[at : at + 1] = [step._replace(times=step.times - 1)] if step.times > 1 else []
            if less:
                assert not is_found(rule, example._replace(steps=tuple(less)))


@each(CORRELATIONS)
def test_a_correlation_is_about_one_process_program_or_user(rule: Rule) -> None:
    (group,) = _body(rule).group_by
    assert group in ("process.entity_id", "bpf.prog.id", "user.id")
    for example in rule.examples:
        for step in example.steps:
            assert group in step.fields


# --- What is said of the pack ------------------------------------------------------------


def test_the_manual_has_a_row_for_each_rule() -> None:
    rows = re.findall(
        r"^\| `(bpf_\w+)` \| (\w+) \| (.+) \| ([T\d., ]+) \|$",
        (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    alerting = [rule for rule in PACK if not rule.name.startswith(BLOCK)]
    assert sorted(rows) == sorted(
        (
            rule.name,
            rule.level,
            rule.title,
            ", ".join(technique.id for technique in attack.techniques(rule.tags)),
        )
        for rule in alerting
    )
    said = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"- {len(alerting)} rules with ATT&CK" in said
