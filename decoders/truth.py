# SPDX-License-Identifier: Apache-2.0
"""Whether what was read of a call is what the kernel acted on.

The memory of the caller may change while the kernel looks at it. What tells of that: attr
when the call returned, the kernel's own copy of it, the object that came out of it, and
where descriptors lead afterwards.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from ..events.call import RESULT, Call, Object, ObjectKind, PartState
from .layout import Command, Layout, Values
from .progs import PROG_LOAD
from .tag import tags

TRAILING: Final = "trailing bytes"
INSNS: Final = "insns"

_ROUNDED: Final = frozenset({9, 10})  # BPF_MAP_TYPE_LRU_HASH, ..._LRU_PERCPU_HASH
_INSNS_AT: Final = PROG_LOAD.layout.offset_of(INSNS)


class _Claim(NamedTuple):
    """A field of attr that the object has too."""

    field: str
    of: Callable[[Object], object]
    unless: Callable[[Object], bool] = lambda made: False


def _rounded(made: Object) -> bool:
    # The kernel makes it fit the number of CPUs.
    return made.type in _ROUNDED


_CLAIMS: Final[Mapping[str, tuple[_Claim, ...]]] = {
    "BPF_MAP_CREATE": (
        _Claim("map_type", lambda made: made.type),
        _Claim("key_size", lambda made: made.key_size),
        _Claim("value_size", lambda made: made.value_size),
        _Claim("max_entries", lambda made: made.max_entries, _rounded),
        _Claim("map_name", lambda made: made.name),
    ),
    "BPF_PROG_LOAD": (
        _Claim("prog_type", lambda made: made.type),
        _Claim("prog_name", lambda made: made.name),
    ),
    "BPF_MAP_GET_FD_BY_ID": (_Claim("map_id", lambda made: made.id),),
    "BPF_PROG_GET_FD_BY_ID": (_Claim("prog_id", lambda made: made.id),),
    "BPF_LINK_GET_FD_BY_ID": (_Claim("link_id", lambda made: made.id),),
    "BPF_BTF_GET_FD_BY_ID": (_Claim("btf_id", lambda made: made.id),),
}
"""What a command asks for and its result is to have."""

_MADE_OF: Final = {"BPF_LINK_CREATE": "prog_fd", "BPF_RAW_TRACEPOINT_OPEN": "prog_fd"}
"""The descriptor of the program that the resulting link is to run."""


def differences(command: Command, call: Call, passed: bytes) -> tuple[str, ...]:
    """The fields of which the kernel has, or may have, something else than was read of them.

    :param passed: attr as it is shown.
    """
    made = call.objects.get(RESULT)
    if is_unchanged(call) and not made and not call.objects_after:
        return ()
    found = dict.fromkeys(_changed(command, call))
    if made:
        values = _values(command.layout, passed, call.size)
        found |= dict.fromkeys(_denied(command, values, made))
        found |= dict.fromkeys(_other_program(command, call, made))
    found |= dict.fromkeys(_led_elsewhere(command, call))
    if command.number == PROG_LOAD.number and made and _other_insns(call, passed, made):
        found[INSNS] = None
    return tuple(found)


def is_unchanged(call: Call) -> bool:
    """Whether attr was the same whenever it was looked at."""
    return call.exit is call.entry and (call.kernel is None or call.kernel is call.entry)


def _changed(command: Command, call: Call) -> Iterator[str]:
    # Between two looks at attr. The kernel's copy was taken in between, if it is there.
    later = call.exit if call.kernel is None else call.kernel
    if later is call.entry:
        return
    size = min(len(call.entry), len(later))
    before, after = call.entry[:size], later[:size]
    if before == after:
        return
    layouts = [command.layout]
    values = _values(command.layout, before, size)
    layouts += [layout for arm, layout in command.arm_layouts if arm.when(values)][:1]
    for layout in layouts:
        plan = layout.plan(size)
        yield from plan.changed_inputs(plan.unpack(before), plan.unpack(after), values)
    known = layouts[-1].end
    # Without the kernel's copy it may be what a newer kernel wrote there.
    if call.kernel is not None and before[known:] != after[known:]:
        yield TRAILING


def _denied(command: Command, values: Values, made: Object) -> Iterator[str]:
    for claim in _CLAIMS.get(command.name, ()):
        if claim.field in values and not claim.unless(made):
            claimed: object = values[claim.field]
            if isinstance(claimed, bytes):
                claimed = claimed.partition(b"\0")[0]
            if claimed != claim.of(made):
                yield claim.field


def _other_program(command: Command, call: Call, made: Object) -> Iterator[str]:
    field = _MADE_OF.get(command.name)
    if not field or made.kind != ObjectKind.LINK or not made.prog_id:
        return
    passed = call.objects.get(command.layout.offset_of(field))
    if passed and passed.kind == ObjectKind.PROG and passed.id != made.prog_id:
        yield field


def _led_elsewhere(command: Command, call: Call) -> Iterator[str]:
    for at, after in call.objects_after.items():
        before = call.objects.get(at)
        if before is None or (before.kind, before.id) != (after.kind, after.id):
            yield command.field_at(at) or f"fd at {at}"


def _other_insns(call: Call, passed: bytes, made: Object) -> bool:
    insns = call.memory.get(_INSNS_AT)
    if insns is None or insns.lost or insns.state & PartState.CUT:
        return False
    if len(insns.data) < insns.wanted or not made.tag.strip(b"\0"):
        return False
    values = _values(PROG_LOAD.layout, passed, call.size)
    if values.get("core_relo_cnt"):  # the kernel changes instructions before it makes the tag
        return False
    return made.tag not in tags(insns.data)


def _values(layout: Layout, data: bytes, size: int) -> Values:
    plan = layout.plan(size, len(data))
    return plan.values(plan.unpack(data))
