# SPDX-License-Identifier: Apache-2.0
"""What each way to write a test means, from Sigma's spelling to a document."""

from collections.abc import Mapping
from typing import Any

import pytest

from bpfsnoop.events.errors import UsageError
from bpfsnoop.rules.engine import Engine
from bpfsnoop.rules.pattern import regular_expression
from bpfsnoop.tracer.process import ARGS_BYTES
from rule_texts import event, matches, rules

LISTS = {"trusted": ["/usr/bin/bpftool", "/opt/agent/*"], "dirs": ["/tmp", "/dev/shm"]}

# The key, what stands behind it, the values of the field that match, and those that do not.
# None: the field is absent.
TEXT = "process.executable"
NUMBER = "bpf.prog.insn_count"
LIST = "bpf.prog.helpers"
ROWS: list[tuple[str, Any, list[Any], list[Any]]] = [
    # text
    (TEXT, "/bin/a", ["/bin/a", "/BIN/A"], ["/bin/ab", "x/bin/a", "", None, ["x"], {"a": 1}]),
    (f"{TEXT}|cased", "/bin/a", ["/bin/a"], ["/BIN/A", "/bin/A", None]),
    (TEXT, ["/a", "/b"], ["/a", "/B"], ["/c", None]),
    (f"{TEXT}|cased", ["/a", "/b"], ["/a"], ["/B"]),
    (TEXT, "", [""], ["a", None]),
    (TEXT, "7", ["7", 7], [8, "07", True]),
    (TEXT, "true", ["true", True], [False, 1]),
    # wildcards
    (TEXT, "/tmp/*", ["/tmp/", "/tmp/x", "/TMP/a/b"], ["/tmp", "x/tmp/"]),
    (TEXT, "*.so", [".so", "/x.SO"], [".so.1"]),
    (TEXT, "*tmp*", ["tmp", "/tmp/x"], ["tm"]),
    (TEXT, "S*?", ["sx"], ["\u017fx"]),  # as without wildcards: only lower() makes them the same
    (TEXT, "/*/x?", ["/a/xy", "//x1", "/a/b/xz"], ["/a/x", "/xy"]),
    (f"{TEXT}|cased", "/*/X?", ["/a/Xy"], ["/a/xy"]),
    (TEXT, "*", ["", "a\nb"], [None]),
    (TEXT, r"a\*b", ["a*b", "A*B"], ["axb"]),
    (TEXT, r"a\?*", ["a?", "a?x"], ["ax"]),
    (TEXT, r"a\b", [r"a\b"], ["ab"]),
    (TEXT, r"*a\*?\\", ["xa*y\\"], ["xaay\\", "a*y"]),
    # where in the text
    (f"{TEXT}|contains", "mid", ["mid", "aMIDb"], ["mi d"]),
    (f"{TEXT}|startswith", "/tmp", ["/tmp", "/Tmp/x"], ["x/tmp"]),
    (f"{TEXT}|endswith", ".so", ["a.so", ".SO"], ["a.so "]),
    (f"{TEXT}|cased|contains", "Mid", ["aMidb"], ["amidb"]),
    (f"{TEXT}|cased|startswith", ["/T", "/u"], ["/Tx", "/ux"], ["/tx"]),
    (f"{TEXT}|contains|all", ["a", "b"], ["xbya"], ["a", "b"]),
    (f"{TEXT}|contains", "a*b", ["xaqqbx"], ["ba"]),
    # regular expressions
    (f"{TEXT}|re", r"^/tmp/.*\.so(\.\d+)?$", ["/tmp/a.so", "/tmp/a.so.1"], ["/tmp/A.SO"]),
    (f"{TEXT}|re", "b+c", ["abbcd"], ["ac", None]),
    (f"{TEXT}|re|i", "b+c", ["aBbC"], ["ac"]),
    (f"{TEXT}|re|m", "^b$", ["a\nb\nc"], ["abc"]),
    (f"{TEXT}|re|s", "a.b", ["a\nb"], ["ab"]),
    (f"{TEXT}|re", "a.b", ["axb"], ["a\nb"]),
    (f"{TEXT}|re", "^[0-9]+$", [17, "17"], ["x17"]),
    (f"{TEXT}|re", r"\.", ["\udcff."], ["\udcff"]),
    # numbers
    (NUMBER, 7, [7, 7.0, "7", "0x7"], [8, "seven", True, None, "7 ", [8]]),
    (NUMBER, [7, 8], [7, "8"], [9]),
    (NUMBER, 1, [1, "1"], [True]),
    (f"{NUMBER}|gt", 7, [8, "0x10", 7.5], [7, "x", None, True]),
    (f"{NUMBER}|gte", 7, [7, 8], [6]),
    (f"{NUMBER}|lt", 7, [6, "-1"], [7, None]),
    (f"{NUMBER}|lte", 7.5, [7, "7.5"], [8]),
    # true, false, nothing
    ("bpf.process.exe_deleted", True, [True], [False, 1, "true", None]),
    ("bpf.process.exe_deleted", False, [False], [True, 0, None]),
    (TEXT, None, [None, []], ["", "x", 0, False]),
    (f"{TEXT}|exists", True, ["", 0, False, {"a": 1}, ["x"]], [None, [], [None]]),
    (f"{TEXT}|exists", False, [None, []], [""]),
    # networks
    (f"{TEXT}|cidr", "10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "10.1", "x", 10, "::1", None]),
    (f"{TEXT}|cidr", "fe80::/10", ["fe80::1"], ["10.0.0.1", "ff00::1"]),
    # lists: any value will do, with |all each has to be there
    (LIST, "probe_write_user", [["x", "Probe_Write_User"]], [["x"], []]),
    (f"{LIST}|all", ["a", "b"], [["b", "x", "a"]], [["a"], "a"]),
    (f"{LIST}|contains", "write", [["x", "a_write_b"]], [["w", "rite"]]),
    (f"{LIST}|re", "^sk", ["sk_a", ["x", "sk_a"]], [["xsk"]]),
    (LIST, ["a", "b*"], [["x", "bc"], ["a"]], [["x"]]),
    # not
    (f"{TEXT}|neq", "/a", ["/b", None, ["/b"]], ["/A", ["/b", "/a"]]),
    (f"{TEXT}|neq", ["/a", "/b"], ["/c"], ["/a", "/b"]),
    (f"{TEXT}|startswith|neq", "/tmp", ["/usr"], ["/tmp/x"]),
    # lists of the site
    (f"{TEXT}|expand", "%trusted%", ["/usr/bin/BPFTOOL", "/opt/agent/x"], ["/opt/agent", "/x"]),
    (f"{TEXT}|cased|expand", "%trusted%", ["/usr/bin/bpftool"], ["/usr/bin/BPFTOOL"]),
    (f"{TEXT}|expand", "%dirs%/*", ["/tmp/x", "/dev/shm/y"], ["/usr/x"]),
    (f"{TEXT}|expand", "50%", ["50%"], ["50"]),
    # encodings, which pySigma works out
    (f"{TEXT}|base64", "foo", ["Zm9v"], ["foo"]),
    (f"{TEXT}|base64offset|contains", "foo", ["xxZm9vxx", "xmZvb"], ["foo"]),
    (f"{TEXT}|wide|base64", "a", ["YQA="], ["a"]),
    (f"{TEXT}|windash", "-a", ["-a", "/a"], ["a"]),
]  # fmt: skip


def _named(field: str, value: Any) -> Mapping[str, Any]:
    return event() if value is None else event(**{field.replace(".", "__"): value})


@pytest.mark.parametrize(("key", "given", "held", "failed"), ROWS)
def test_a_test_matches(key: str, given: Any, held: list[Any], failed: list[Any]) -> None:
    field = key.partition("|")[0]
    for value in held:
        assert matches({key: given}, dict(_named(field, value)), LISTS), value
    for value in failed:
        assert not matches({key: given}, dict(_named(field, value)), LISTS), value


@pytest.mark.parametrize(
    ("modifier", "one", "other", "holds"),
    [
        ("fieldref", "/a", "/a", True),
        ("fieldref", "/a", "/A", False),
        ("fieldref", ["/x", "/a"], "/a", True),
        ("fieldref", 7, "7", True),
        ("fieldref", None, "/a", False),
        ("fieldref", None, None, False),
        ("fieldref|startswith", "/a/b", "/a", True),
        ("fieldref|startswith", "/b/a", "/a", False),
        ("fieldref|endswith", "/b/a", "/a", True),
        ("fieldref|contains", "/b/a/c", "/a", True),
        ("fieldref|neq", "/a", "/b", True),
        ("fieldref|neq", "/a", "/a", False),
    ],
)
def test_one_field_is_held_against_another(
    modifier: str, one: Any, other: Any, holds: bool
) -> None:
    found = {"process__executable": one, "process__parent__executable": other}
    document = event(**{key: value for key, value in found.items() if value is not None})
    item = {f"process.executable|{modifier}": "process.parent.executable"}
    assert matches(item, document) is holds


def test_fields_of_objects_in_lists_are_values_of_one_field() -> None:
    document = event(process__ancestors=[{"name": "sh"}, {"pid": 7}, {"name": "sshd"}])
    assert matches({"process.ancestors.name": "sshd"}, document)
    assert matches({"process.ancestors.name|all": ["sh", "sshd"]}, document)
    assert matches({"process.ancestors.pid": 7}, document)
    assert not matches({"process.ancestors.name": "cron"}, document)
    assert matches({"process.ancestors.executable": None}, document)


def test_an_exclusion_by_path_has_to_be_cased() -> None:
    """As Sigma has it, TETRAGON would be excluded too."""
    fake = event(process__executable="/usr/bin/TETRAGON")
    assert not matches({"process.executable|neq": "/usr/bin/tetragon"}, fake)
    assert matches({"process.executable|cased|neq": "/usr/bin/tetragon"}, fake)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"process.pid|minute": 3}, "parts of a time"),
        ({"process.name|re": "(?=a)b"}, "invalid"),
        ({"process.name|re": r"(a)\1"}, "invalid"),
        ({"process.name|re": None}, "must be text"),
        ({"process.name|re": ["a", 7]}, "must be text"),
        ({"process.name|re": "a" * 1001}, "1000 characters at most"),
        ({"process.name|re": "(a{1,99}){1,99}"}, "too large|invalid|repetition"),
        ({"process.name|re|expand": "%dirs%"}, "not supported within"),
        ({"process.name|cidr": "10.0.0.0/99"}, "CIDR"),
        ({"process.pid|gt": "many"}, "incompatible"),
        ({"process.name|fieldref": "process.nmae"}, "did you mean process.name"),
        ({"process.name": []}, "empty list"),
        ({"process.name": ["a", None]}, "null must stand alone"),
        ({"process.name": {"a": 1}}, "must be text"),
        ({"process.name": ["a", ["b"]]}, "must be text"),
        ({"|contains": "a"}, "which field"),
        ({"process": "a"}, "no value itself"),
        ({"process.name|expand": "%nobody%"}, "there is no list nobody"),
        ({"process.name|contians": "a"}, "did you mean contains"),
        ({"process.name": "?" * 1001 + "a"}, "1000 characters"),
    ],
)
def test_what_cannot_be_judged_is_refused(item: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        matches(item, event(), LISTS)


@pytest.mark.parametrize(
    ("condition", "one", "other", "third", "holds"),
    [
        ("one and other", True, True, False, True),
        ("one and other", True, False, True, False),
        ("one or other", False, True, False, True),
        ("not one", False, True, True, True),
        ("one and not other", True, True, True, False),
        ("not (one or other)", False, False, True, True),
        ("1 of them", False, False, True, True),
        ("1 of them", False, False, False, False),
        ("any of th*", False, False, True, True),
        ("all of them", True, True, True, True),
        ("all of them", True, True, False, False),
        ("1 of o* and third", False, True, True, True),
        ("1 of o* and third", True, True, False, False),
        ("not 1 of o*", False, False, False, True),
        ("one or other and third", True, False, False, True),
    ],
)
def test_conditions_are_put_together(
    condition: str, one: bool, other: bool, third: bool, holds: bool
) -> None:
    text = f"""
title: t
logsource: {{product: linux}}
detection:
  one: {{process.name: a}}
  other: {{process.args: b}}
  third: {{process.executable: c}}
  condition: {condition}
"""
    document = event(
        process__name="a" if one else "-",
        process__args=["b" if other else "-"],
        process__executable="c" if third else "-",
    )
    assert bool(Engine(rules(text)).feed(document, 0)) is holds


def test_padding_hides_nothing_from_a_regular_expression() -> None:
    """The longest value of any document: an argument of 32 KB with each byte escaped."""
    padding = "\\1" * (ARGS_BYTES - 4)
    found = regular_expression("evil$")
    left_out = regular_expression(r"^/opt/agent( --\w+)*$")
    assert found(f"{padding}evil")
    assert not left_out("/opt/agent" + " --flag" * 4_000 + " ; rm -rf /")
