# SPDX-License-Identifier: Apache-2.0
"""Which calls the user asked for."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ..decoders.progs import PROG_LOAD
from ..decoders.table import COMMANDS
from ..events.call import COMMON_ATTRS, Call
from ..events.errors import Mistake, UsageError
from ..events.wire import COMM_LEN, COMMAND_OTHER, COMMAND_SLOTS

_CMD_MAX = (1 << 32) - 1
_ALIASES = {"prog_run": "prog_test_run"}  # as in enum bpf_cmd

DATA: Final = frozenset(number for number, command in COMMANDS.items() if command.data)
"""``@data``"""
_SETS: Mapping[str, frozenset[int]] = {"@data": DATA, "@control": frozenset(COMMANDS) - DATA}


@dataclass(frozen=True)
class CommandSet:
    """Commands by number.

    :param listed: those of our tables, and others that were asked for by number or
        by the running kernel's name.
    :param unknown: all that our tables do not know besides. They count as control:
        what nobody knows is not to be left out with the masses.
    """

    listed: frozenset[int] = frozenset(COMMANDS)
    unknown: bool = True
    excluded: frozenset[int] = frozenset()

    def __contains__(self, number: int) -> bool:
        if number in self.excluded:
            return False
        return number in self.listed or (self.unknown and number not in COMMANDS)

    def slots(self) -> int:
        """The counter slots that any of these commands falls into, as a bit mask."""
        known = sum(1 << number for number in range(COMMAND_OTHER) if number in self)
        other = self.unknown or any(number >= COMMAND_OTHER for number in self.listed)
        return known | other << (COMMAND_SLOTS - 1)


NO_COMMANDS: Final = CommandSet(frozenset(), unknown=False)


def command_set(
    expressions: Iterable[str], newer: Callable[[], Mapping[int, str]], flag: str = "-e"
) -> CommandSet:
    """What ``-e`` asks for.

    An expression is a list of names with commas between them: a command in either
    case, with or without ``BPF_``, or its number, or ``@control`` or ``@data``.
    ``!`` in front of the list excludes all of it, in front of a name that name.
    Several expressions add up.

    :param newer: gives the running kernel's commands; asked for only where our
        tables do not know a name.
    :param flag: that the expressions were given with.
    :raises UsageError: with every name that nobody knows.
    """
    chosen: dict[bool, set[int]] = {False: set(), True: set()}
    control: dict[bool, bool] = {False: False, True: False}
    mistakes: list[Mistake] = []
    names = {command.name: number for number, command in COMMANDS.items()}
    for expression in expressions:
        text = expression.strip().removeprefix("trace=")
        whole = text.startswith("!")
        for item in text.removeprefix("!").split(","):
            name = item.strip().lower()
            negated = whole or name.startswith("!")
            name = name.removeprefix("!")
            found = _numbers(name, names)
            if found is None:
                names |= {kernel: number for number, kernel in newer().items()}
                found = _numbers(name, names)
            if found is None:
                mistakes.append(Mistake(_unknown(item.strip(), names, flag)))
                continue
            chosen[negated] |= found
            control[negated] |= name == "@control"
    if mistakes:
        raise UsageError(mistakes)
    if not chosen[False]:
        return CommandSet(unknown=not control[True], excluded=frozenset(chosen[True]))
    unknown = control[False] and not control[True]
    return CommandSet(frozenset(chosen[False]), unknown, frozenset(chosen[True]))


def _numbers(name: str, names: Mapping[str, int]) -> frozenset[int] | None:
    if name in _SETS:
        return _SETS[name]
    if re.fullmatch(r"0x[0-9a-f]{1,8}|[0-9]{1,10}", name):
        typed = int(name, 16 if name.startswith("0x") else 10) & ~COMMON_ATTRS
        return frozenset({typed}) if typed <= _CMD_MAX else None
    short = name.removeprefix("bpf_")
    number = names.get(f"BPF_{_ALIASES.get(short, short).upper()}")
    return None if number is None else frozenset({number})


def _unknown(name: str, names: Iterable[str], flag: str) -> str:
    if not name:
        return f"{flag} is to be followed by the names of commands"
    known = [*_SETS, *(full.removeprefix("BPF_").lower() for full in names)]
    near = difflib.get_close_matches(name.lower().removeprefix("bpf_"), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "; the names are those of enum bpf_cmd"
    return f"{flag} {name}: there is no such command{hint}"


@dataclass(frozen=True)
class Selection:
    """A filter over calls; empty sets let everything through."""

    commands: CommandSet = CommandSet()
    pids: frozenset[int] = frozenset()
    uids: frozenset[int] = frozenset()
    comms: frozenset[bytes] = frozenset()
    """As the kernel has them: at most 15 bytes."""
    results: str = "all"
    """``all``, ``successful`` or ``failed``."""
    min_duration_ns: int = 0

    @property
    def wants_notices(self) -> bool:
        """Whether loads of all processes are wanted, and so what else is told of programs."""
        narrowed = self.pids or self.uids or self.comms
        return not narrowed and PROG_LOAD.number in self.commands

    def wants(self, call: Call) -> bool:
        return (
            call.command in self.commands
            and (not self.pids or call.tgid in self.pids)
            and (not self.uids or call.uid in self.uids)
            and (not self.comms or call.comm in self.comms)
            and self._wants_duration(call)
            and self._wants_result(call)
        )

    def _wants_duration(self, call: Call) -> bool:
        if not self.min_duration_ns:
            return True
        return call.timed and call.duration_ns >= self.min_duration_ns

    def _wants_result(self, call: Call) -> bool:
        if self.results == "all":
            return True
        return call.returned and (call.retval < 0) == (self.results == "failed")


def kernel_comm(name: str) -> bytes:
    """A process name as the kernel keeps it (``TASK_COMM_LEN``)."""
    return name.encode("utf-8", "surrogateescape")[: COMM_LEN - 1]
