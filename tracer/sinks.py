# SPDX-License-Identifier: Apache-2.0
"""Where events go: lines for people, documents for machines, a table at the end."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol
from weakref import ReferenceType, ref

from ..events import ecs, text
from ..events.call import Call, Totals
from ..events.ecs import Cause, Origin
from ..events.event import Event
from ..events.folded import Folded, folded_document
from ..events.lines import JsonLines
from ..events.notice import Notice
from ..events.process import Process
from ..events.value import Style, Xlat, printable
from ..rules.alert import Alert, alert_document
from .config import Config
from .names import ReplayNames
from .output import Output
from .recent import Recent
from .saved import SavedPrograms
from .say import say

_RED, _CYAN, _DIM, _PLAIN = "\x1b[31m", "\x1b[36m", "\x1b[2m", "\x1b[0m"
_LEVELS: Final[Mapping[str, str]] = {
    "critical": "\x1b[1;31m", "high": _RED, "medium": "\x1b[33m", "low": _CYAN,
    "informational": _DIM,
}  # fmt: skip
_SECOND: Final = 1_000_000_000
_INTRODUCED_MAX: Final = 4096


class Sink(Protocol):
    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        """One event.

        :param process: that made the call.

        :param time_ns: when the call began, ns since the epoch.
        """

    def folded(self, folded: Folded, sequence: int) -> None:
        """Calls that are told as one."""

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        """What is no call.

        :param cause: the call that it is about, if it is about one.
        :param time_ns: when it happened, ns since the epoch.
        """

    def alert(self, alert: Alert, sequence: int) -> None:
        """What a rule found in the event before it, or in several."""

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        """What was seen and lost so far; at the end even if nothing was.

        :param names: of the counter slots in ``totals``.
        """

    def end(self) -> None:
        """The last thing that happens."""


@dataclass(frozen=True)
class TextStyle:
    """How a line looks, after the options of the same names."""

    calls: Style
    timestamps: str
    relative: bool
    syscall_times: bool
    column: int
    color: bool
    process: bool
    """Begin with ``comm[pid]``, for there may be several."""
    introduce: bool = False
    """Say who it is before the first call of a process."""

    @classmethod
    def of(cls, config: Config, *, terminal: bool, several: bool) -> "TextStyle":
        wanted = terminal and not os.environ.get("NO_COLOR")
        return cls(
            calls=Style(Xlat(config.constants), config.verbose, config.strings),
            timestamps=config.timestamps,
            relative=config.relative,
            syscall_times=config.syscall_times,
            column=config.column,
            color=config.color == "always" or (config.color == "auto" and wanted),
            process=several,
            introduce=several and not config.quiet and not config.strace_compat,
        )


Spelling = Callable[[Event, int], tuple[str, str]]
"""From a call and the time at which it began (ns since the epoch) to ``bpf(...)`` and to what
follows ``= ``.
"""


def spelling(config: Config, names: ReplayNames) -> Spelling:
    """How the options want calls to be spelled: our way, or strace's."""
    style = Style(Xlat(config.constants), config.verbose, config.strings)
    if config.strace_compat:
        from ..decoders import strace_view  # noqa: PLC0415 - nobody else needs it

        view = strace_view.View(names, descriptors=config.descriptors)
        return lambda event, time_ns: view.line(event.call, style, time_ns)
    return _ours(style)


def _ours(style: Style) -> Spelling:
    return lambda event, _: (text.call(event, style), text.result(event))


class _Introduced(NamedTuple):
    process: ReferenceType[Process]
    rights: tuple[int, ...]


class TextSink:
    """A line a call."""

    def __init__(self, output: Output, style: TextStyle, spell: Spelling | None = None) -> None:
        self._output = output
        self._style = style
        self._spell = spell or _ours(style.calls)
        self._previous_ns: int | None = None
        self._introduced: Recent[int, _Introduced] = Recent(_INTRODUCED_MAX)

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        style = self._style
        if style.introduce:
            self._introduce(process, event.call)
        leader = self._leader(event, time_ns)
        call, outcome = self._spell(event, time_ns)
        padding = " " * max(1, style.column - len(leader) - len(call))
        result = f"= {outcome}"
        if style.syscall_times:
            result += f" <{_duration(event.call)}>"
        if style.color:
            leader, call, result = self._colored(leader, call, result, event)
        self._output.write(f"{leader}{call}{padding}{result}\n".encode())
        for line in event.program.listing if event.program else ():
            self._output.write(f"\t{line}\n".encode())

    def folded(self, folded: Folded, sequence: int) -> None:
        style = self._style
        who = "many processes "
        if folded.who:
            call, process, _ = folded.who
            if style.introduce:
                self._introduce(process, call)
            who = _who(call) if style.process else ""
        line = f"+++ {who}{_stamp(style.timestamps, folded.end_ns)}{folded} +++"
        if style.color:
            line = f"{_DIM}{line}{_PLAIN}"
        self._output.write(f"{line}\n".encode())

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        integrity = notice.action == "integrity"
        mark = "!!!" if integrity else "+++"
        line = f"{mark} {_stamp(self._style.timestamps, time_ns)}{notice} {mark}"
        if self._style.color:
            line = f"{_RED if integrity else _DIM}{line}{_PLAIN}"
        self._output.write(f"{line}\n".encode())

    def alert(self, alert: Alert, sequence: int) -> None:
        line = f"*** {alert.level}: {alert} [{alert.label}] ***"
        if self._style.color:
            line = f"{_LEVELS[alert.level]}{line}{_PLAIN}"
        self._output.write(f"{line}\n".encode())

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        if not final:  # the sum is told on standard error, at the end
            lost = totals.lost + totals.incomplete
            self._output.write(f"!!! {lost} calls lost or incomplete so far !!!\n".encode())

    def end(self) -> None:
        pass

    def _introduce(self, process: Process, call: Call) -> None:
        verbose = self._style.calls.verbose
        known = self._introduced.get(process.pid)
        now = text.rights(call, verbose=verbose)
        if known and known.process() is process and known.rights == now:
            return
        self._introduced[process.pid] = _Introduced(ref(process), now)
        line = text.process(process, call, verbose=verbose)
        if self._style.color:
            line = f"{_DIM}{line}{_PLAIN}"
        self._output.write(f"{line}\n".encode())

    def _leader(self, event: Event, time_ns: int) -> str:
        style = self._style
        leader = _who(event.call) if style.process else ""
        stamp = _stamp(style.timestamps, time_ns)
        if style.relative:
            since = time_ns - (time_ns if self._previous_ns is None else self._previous_ns)
            self._previous_ns = time_ns
            sign = "-" * (since < 0)
            seconds, ns = divmod(abs(since), _SECOND)
            delta = f"{f'{sign}{seconds}':>6}.{ns // 1000:06}"
            stamp += f"(+{delta}) " if stamp else f"{delta} "
        return leader + stamp

    def _colored(self, leader: str, call: str, result: str, event: Event) -> tuple[str, str, str]:
        command = text.command(event, self._style.calls.xlat)
        call = call.replace(command, f"{_CYAN}{command}{_PLAIN}", 1)
        if event.failed:
            result = f"{_RED}{result}{_PLAIN}"
        return f"{_DIM}{leader}{_PLAIN}" if leader else "", call, result


def _who(call: Call) -> str:
    return f"{printable(call.comm)}[{call.tgid}] "


def _duration(call: Call) -> str:
    if not call.timed:
        return "unknown"
    seconds, ns = divmod(call.duration_ns, _SECOND)
    return f"{seconds}.{ns // 1000:06}"


def _stamp(timestamps: str, time_ns: int) -> str:
    if timestamps == "none":
        return ""
    seconds, ns = divmod(time_ns, _SECOND)
    if timestamps == "epoch":
        return f"{seconds}.{ns // 1000:06} "
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{clock}.{ns // 1000:06} " if timestamps == "microseconds" else f"{clock} "


class JsonSink:
    """A document a line.

    :param spell: for the text line as ``message``; None to leave that out.
    """

    def __init__(self, output: Output, origin: Origin, spell: Spelling | None) -> None:
        self._output = output
        self._origin = origin
        self._lines = JsonLines(origin)
        self._spell = spell

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        message = ""
        if self._spell:
            message = " = ".join(self._spell(event, time_ns))
        self._output.write(
            self._lines.event(event, process, time_ns=time_ns, sequence=sequence, message=message)
        )

    def folded(self, folded: Folded, sequence: int) -> None:
        message = str(folded) if self._spell else ""
        document = folded_document(folded, self._origin, sequence=sequence, message=message)
        self._output.write(ecs.json_line(document))

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        document = ecs.notice_document(
            notice, self._origin, time_ns=time_ns, sequence=sequence, cause=cause
        )
        self._output.write(ecs.json_line(document))

    def alert(self, alert: Alert, sequence: int) -> None:
        self._output.write(ecs.json_line(alert_document(alert, sequence=sequence)))

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        document = ecs.loss_document(totals, names, self._origin, sequence=sequence, final=final)
        self._output.write(ecs.json_line(document))

    def end(self) -> None:
        pass


class AlertsOnly:
    """Of what another sink would write, alerts, losses, and that somebody fools us."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.alert = sink.alert
        self.losses = sink.losses
        self.end = sink.end

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        pass

    def folded(self, folded: Folded, sequence: int) -> None:
        pass

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        if notice.action == "integrity":
            self._sink.notice(notice, cause, time_ns, sequence)


@dataclass
class _Sum:
    calls: int = 0
    timed: int = 0
    """Calls of which it is known how long they took."""
    errors: int = 0
    ns: int = 0


@dataclass
class SummarySink:
    """strace's ``-c`` table, a row a command, the dearest first."""

    output: Output
    alone: bool = True
    """No other sink shows what is not to be missed."""
    _sums: dict[str, _Sum] = field(default_factory=dict)

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        name = event.command or text.command(event, Xlat.RAW)
        row = self._sums.setdefault(name, _Sum())
        row.calls += 1
        row.errors += event.failed
        if event.call.timed:
            row.timed += 1
            row.ns += event.call.duration_ns

    def folded(self, folded: Folded, sequence: int) -> None:
        pass  # the options see to it that there is none

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        if self.alone and notice.action == "integrity":
            say(str(notice))

    def alert(self, alert: Alert, sequence: int) -> None:
        if self.alone:
            say(f"{alert.level}: {alert}")

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        pass

    def end(self) -> None:
        rows = sorted(self._sums.items(), key=lambda item: (-item[1].ns, item[0]))
        total = _Sum(
            sum(row.calls for _, row in rows),
            sum(row.timed for _, row in rows),
            sum(row.errors for _, row in rows),
            sum(row.ns for _, row in rows),
        )
        rule = "------ ----------- ----------- --------- --------- ----------------"
        lines = ["% time     seconds  usecs/call     calls    errors command", rule]
        lines += [_summary_row(name, row, total.ns) for name, row in rows]
        lines += [rule, _summary_row("total", total, total.ns)]
        self.output.write("".join(f"{line}\n" for line in lines).encode())


def _summary_row(name: str, row: _Sum, total_ns: int) -> str:
    percent = 100 * row.ns / total_ns if total_ns else 0.0
    per_call = row.ns // 1000 // row.timed if row.timed else 0
    errors = str(row.errors or "")
    return f"{percent:6.2f} {row.ns / _SECOND:11.6f} {per_call:11} {row.calls:9} {errors:>9} {name}"


def sinks_for(
    config: Config, output: Output, origin: Origin, *, several: bool, names: ReplayNames
) -> list[Sink]:
    """What the options ask for.

    :param several: calls may come from more than one process.
    :param names: what can be asked for beside the calls.
    """
    spell = spelling(config, names)
    style = TextStyle.of(config, terminal=output.is_terminal, several=several)
    sinks: list[Sink] = []
    if config.format == "json":
        sinks.append(JsonSink(output, origin, spell if config.message else None))
    elif config.summary != "only":
        sinks.append(TextSink(output, style, spell))
    if config.alerts_only:
        sinks = [AlertsOnly(sink) for sink in sinks]
    if config.summary != "none":
        sinks.append(SummarySink(output, alone=config.summary == "only"))
    if config.save_progs:
        sinks.insert(0, SavedPrograms(config.save_progs))
    return sinks
