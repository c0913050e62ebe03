# SPDX-License-Identifier: Apache-2.0
"""What -e asks for, and which calls pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events.call import COMMON_ATTRS, CallFlag
from bpfsnoop.events.errors import UsageError
from bpfsnoop.events.wire import COMMAND_OTHER, COMMAND_SLOTS
from bpfsnoop.tracer.selection import CommandSet, Selection, command_set, kernel_comm
from calls import call_of

NUMBERS = [*range(80), 4000, 0xFFFF]
NAMES = {command.name.removeprefix("BPF_").lower(): number for number, command in COMMANDS.items()}
DATA = {number for number, command in COMMANDS.items() if command.data}


def _nobody_asks() -> Mapping[int, str]:
    raise AssertionError("the kernel is asked for names that our tables have")


def _chosen(*expressions: str) -> set[int]:
    chosen = command_set(expressions, _nobody_asks)
    return {number for number in NUMBERS if number in chosen}


def _but(*numbers: int) -> set[int]:
    return set(NUMBERS) - {*numbers}


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ([], _but()),
        (["prog_load"], {5}),
        (["PROG_LOAD"], {5}),
        (["BPF_PROG_LOAD"], {5}),
        (["bpf_prog_load"], {5}),
        (["trace=prog_load"], {5}),
        (["map_create,prog_load"], {0, 5}),
        ([" map_create , prog_load "], {0, 5}),
        (["map_create", "prog_load"], {0, 5}),
        (["prog_run"], {10}),
        (["prog_test_run"], {10}),
        (["5"], {5}),
        (["63,4000"], {63, 4000}),
        (["!map_create"], _but(0)),
        (["!map_create,prog_load"], _but(0, 5)),
        (["!map_create", "!prog_load"], _but(0, 5)),
        (["trace=!map_create"], _but(0)),
        (["!4000"], _but(4000)),
        (["@data"], DATA),
        (["@control"], _but(*DATA)),  # what nobody knows is not left out with the masses
        (["@data,@control"], _but()),
        (["!@data"], _but(*DATA)),
        (["@data,!map_lookup_elem"], DATA - {1}),
        (["@data", "!map_lookup_elem"], DATA - {1}),
        (["!map_lookup_elem", "@data"], DATA - {1}),
        (["@data", "prog_load"], DATA | {5}),
        (["prog_load,!prog_load"], set()),
        (["!@data,@control"], set()),
        (["!@control"], DATA),
        (["@control,map_lookup_elem"], _but(*DATA) | {1}),
        (["0x3f,0xfa0"], {63, 4000}),
    ],
)
def test_expression(expressions: Sequence[str], expected: set[int]) -> None:
    assert _chosen(*expressions) == expected


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(NAMES))), min_size=1))
def test_the_order_of_expressions_does_not_matter(items: list[tuple[bool, str]]) -> None:
    """Added is what any of them names; what any of them excludes is never there."""
    expressions = ["!" * negated + name for negated, name in items]
    added = {NAMES[name] for negated, name in items if not negated}
    removed = {NAMES[name] for negated, name in items if negated}
    expected = (added or _but()) - removed
    assert _chosen(*expressions) == expected
    assert _chosen(*reversed(expressions)) == expected


def test_the_kernel_knows_names_that_we_do_not() -> None:
    kernel = {5: "BPF_PROG_LOAD", 70: "BPF_MAP_TELEPORT"}
    chosen = command_set(["map_teleport", "prog_load"], lambda: kernel)
    assert [number for number in NUMBERS if number in chosen] == [5, 70]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("prog_laod", "-e prog_laod: there is no such command; did you mean prog_load?"),
        ("BPF_MAP_CRATE", "-e BPF_MAP_CRATE: there is no such command; did you mean map_create?"),
        ("@datum", "-e @datum: there is no such command; did you mean @data?"),
        ("!map_lookup", "-e map_lookup: there is no such command; did you mean map_lookup_elem?"),
        ("xyzzy", "-e xyzzy: there is no such command; the names are those of enum bpf_cmd"),
        ("", "-e is to be followed by the names of commands"),
        ("-1", "-e -1: there is no such command; the names are those of enum bpf_cmd"),
        ("\N{SUPERSCRIPT TWO}", "-e \N{SUPERSCRIPT TWO}: there is no such command;"
         " the names are those of enum bpf_cmd"),
        ("prog_load,,map_create", "-e is to be followed by the names of commands"),
    ],
)  # fmt: skip
def test_a_name_that_nobody_knows(expression: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        command_set([expression], dict)
    assert str(error.value) == told


def test_all_unknown_names_are_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        command_set(["prog_laod,map_create", "!map_crate"], dict)
    assert [mistake.message.split(":")[0] for mistake in error.value.mistakes] == [
        "-e prog_laod", "-e map_crate",
    ]  # fmt: skip


SETS = st.builds(
    CommandSet,
    st.frozensets(st.sampled_from(NUMBERS)),
    st.booleans(),
    st.frozensets(st.sampled_from(NUMBERS)),
)


@given(SETS, st.sampled_from(NUMBERS))
def test_the_kernel_lets_through_what_is_wanted(chosen: CommandSet, number: int) -> None:
    """And nothing else that has a bit of its own."""
    bit = chosen.slots() >> min(number, COMMAND_OTHER) & 1
    if number in chosen:
        assert bit
    elif number < COMMAND_OTHER:
        assert not bit
    assert chosen.slots() < 1 << COMMAND_SLOTS


def test_the_shared_bit_is_only_set_if_it_may_be_needed() -> None:
    assert not command_set(["@data"], _nobody_asks).slots() >> COMMAND_OTHER
    for number in ("4000", "63"):
        assert command_set([number], _nobody_asks).slots() == 1 << COMMAND_OTHER


@pytest.mark.parametrize(
    ("selection", "passes", "not_"),
    [
        (Selection(), {"cmd": 4000, "duration_ns": 0}, None),
        (Selection(command_set(["prog_load"], dict)), {"cmd": 5}, {"cmd": 6}),
        (Selection(command_set(["prog_load"], dict)), {"cmd": 5 | COMMON_ATTRS},
         {"cmd": 6 | COMMON_ATTRS}),
        (Selection(pids=frozenset({7, 8})), {"tgid": 7}, {"tgid": 9, "tid": 7}),
        (Selection(uids=frozenset({0})), {"uid": 0}, {"uid": 1, "gid": 0}),
        (Selection(comms=frozenset({b"\xff"})), {"comm": b"\xff"}, {"comm": b"\xff2"}),
        (Selection(results="successful"), {"retval": 0}, {"retval": -1}),
        (Selection(results="failed"), {"retval": -524}, {"retval": 3}),
        (Selection(results="successful"), {"retval": 0}, {"retval": 0, "flags": CallFlag.NO_EXIT}),
        (Selection(results="failed"), {"retval": -1}, {"retval": -1, "flags": CallFlag.NO_EXIT}),
        (Selection(min_duration_ns=50), {"duration_ns": 50}, {"duration_ns": 49}),
        (Selection(min_duration_ns=5), {"duration_ns": 5}, {"flags": CallFlag.NO_EXIT}),
    ],
)  # fmt: skip
def test_selection(
    selection: Selection, passes: dict[str, Any], not_: dict[str, Any] | None
) -> None:
    call = call_of(0)
    assert selection.wants(call._replace(**passes))
    assert not_ is None or not selection.wants(call._replace(**not_))


def test_every_condition_must_hold() -> None:
    call = call_of(5, retval=-1)._replace(uid=0)
    selection = Selection(
        command_set(["prog_load"], dict), uids=frozenset({0}), results="failed", min_duration_ns=1
    )
    assert selection.wants(call)
    others: list[dict[str, Any]] = [{"cmd": 6}, {"uid": 1}, {"retval": 0}, {"duration_ns": 0}]
    for other in others:
        assert not selection.wants(call._replace(**other))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("short", b"short"),
        ("exactly15bytes!", b"exactly15bytes!"),
        ("sixteen bytes and more", b"sixteen bytes a"),
        ("a" * 14 + "\N{EURO SIGN}", b"a" * 14 + b"\xe2"),
        ("\udcff\x1b", b"\xff\x1b"),
    ],
)
def test_a_comm_is_what_the_kernel_keeps_of_it(name: str, kept: bytes) -> None:
    """Bytes, whatever they were in the shell."""
    assert kernel_comm(name) == kept
