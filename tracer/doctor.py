# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop doctor``: what works on this host, what does not, and what helps.

Nothing is guessed that can be tried: each way to trace is compiled, loaded and attached as
for a run, and let go at once.
"""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..events.errors import CannotStart
from ..events.value import printable
from . import hooks, libc, loader, privilege
from .cache import Cache
from .conditions import (
    Host,
    Status,
    Verdict,
    bad,
    conditions,
    looked_at,
    ok,
    reason,
    refusal,
    warning,
)
from .config import Config
from .daemon.checks import daemon_checks
from .facts import REGISTERS
from .hooks import AUTO, COMPAT_CALLS, INNER_CALLS
from .loader import Loaded
from .program import possible_cpus


class Kind(StrEnum):
    """What a finding is about."""

    HOST = "host"
    PLAN = "plan"
    """A way to trace, as ``--probe`` names it."""
    PATH = "path"
    """A way into bpf(2)."""
    DAEMON = "daemon"
    """What the daemon needs besides."""


class Finding(NamedTuple):
    kind: Kind
    name: str
    status: Status
    found: str
    """In a few words, printable ASCII."""
    cure: str
    """In the imperative, or empty."""


class Report(NamedTuple):
    """All that was found out."""

    plan: str
    """What ``--probe auto`` takes, empty if nothing that it tries works."""
    probe: str
    """What traces then, as documents have it (a plan may stand on another one). Without a
    plan, what works if it is asked for; empty if nothing does."""
    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether this host can be traced."""
        return bool(self.probe)

    @property
    def keeps_daemon(self) -> bool:
        """Whether the daemon that was looked at, if one was, would not start."""
        return any(each.kind is Kind.DAEMON and each.status is Status.BAD for each in self.findings)


Trial = Loaded | CannotStart
"""What came of trying a plan."""


def examine(options: Config, daemon: Config | None = None) -> Report:
    """Looks at this host, and tries every plan. Nothing of it stays in the kernel.

    :param options: of which the cache and the size of the rings count.
    :param daemon: options of a daemon that is looked at too.
    """
    trials, taken = _trials(options)
    working = [trial for trial in trials.values() if isinstance(trial, Loaded)]
    loaded = next((trial for trial in working if _plan_of(trial) == taken), None)
    running = loaded or next(iter(working), None)
    host = Host(works=bool(running), cache=options.cache, ring_size=options.ring_size)
    plans = ((name, _of_plan(name, trial, taken, host)) for name, trial in trials.items())
    findings: dict[Kind, Iterable[tuple[str, Verdict]]] = {
        Kind.HOST: conditions(host), Kind.PLAN: plans, Kind.PATH: _paths(host, running),
        Kind.DAEMON: daemon_checks(daemon) if daemon else (),
    }  # fmt: skip
    return Report(taken, running.probe if running else "", tuple(
        _finding(kind, name, verdict)
        for kind, found in findings.items() for name, verdict in found
    ))  # fmt: skip


def _finding(kind: Kind, name: str, verdict: Verdict) -> Finding:
    found, cure = (
        printable(text.encode("utf-8", "surrogateescape")) for text in (verdict.found, verdict.cure)
    )
    return Finding(kind, name, verdict.status, found, cure)


# --- Plans -------------------------------------------------------------------------------

PLANS: Final = tuple(sorted(set(hooks.PROBES) - {AUTO}))


def _trials(options: Config) -> tuple[dict[str, Trial], str]:
    """:returns: what came of each plan, and the one that ``auto`` takes, empty if none."""
    try:
        privilege.require()
    except CannotStart as error:
        return dict.fromkeys(PLANS, CannotStart(f"not tried: {error}")), ""
    trials: dict[str, Trial] = {}
    taken = ""
    first = _tried(options, AUTO)
    if isinstance(first, Loaded):
        taken = _plan_of(first)
        trials[taken] = first
    return {name: trials.get(name) or _tried(options, name) for name in PLANS}, taken


def _tried(options: Config, probe: str) -> Trial:
    try:
        sizes = loader.Sizes(options.ring_size, possible_cpus())
        loaded = loader.load(sizes, Cache(options.cache), probe=probe, follow=True)
    except CannotStart as error:
        return error
    except Exception as error:  # one plan that fails oddly says nothing of the others
        return CannotStart(reason(error))
    for fd in loaded.fds.values():
        os.close(fd)
    return loaded


def _plan_of(loaded: Loaded) -> str:
    """As ``--probe`` names it."""
    return loaded.probe.rpartition("+")[2]


def _of_plan(name: str, trial: Trial, taken: str, host: Host) -> Verdict:
    if isinstance(trial, CannotStart):
        found, cure = refusal(trial)
        if host.works:
            return warning(found, cure)
        return bad(found, cure or f"see the details with 'bpfsnoop -v --probe {name}'")
    works = "works, and is what auto takes" if name == taken else "works"
    if trial.warnings:
        return warning(f"{works}; {'; '.join(trial.warnings)}")
    return ok(works)


# --- Paths -------------------------------------------------------------------------------

_ANOTHER_PLAN: Final = "make {} of the plans above work"
_VSYSCALL32: Final = "proc/sys/abi/vsyscall32"


def _native(_: Host, loaded: Loaded) -> Verdict:
    return ok(f"watched by {loaded.probe}")


def _compat(host: Host, loaded: Loaded) -> Verdict:
    kernel = _takes_compat(host)
    return _other_abi(loaded, kernel, possible=kernel != _NO_COMPAT)


def _other_abi(loaded: Loaded, kernel: str, *, possible: bool) -> Verdict:
    """Calls that only some plans see, and that not every kernel takes."""
    if COMPAT_CALLS not in loaded.blind:
        return ok(f"watched by {loaded.probe}; {kernel}")
    if not possible:
        return ok(f"not watched, but {kernel}")
    cure = _ANOTHER_PLAN.format("fentry, kprobe or raw_tracepoint")
    return warning(f"not watched: {loaded.probe} does not see them; {kernel}", cure)


_NO_COMPAT: Final = "this kernel is not built to take them"


def _takes_compat(host: Host) -> str:
    """What is known of 32-bit calls without making one."""
    if host.machine != "x86_64":
        return "whether this kernel takes them is not known"
    if not host.has(_VSYSCALL32):  # CONFIG_IA32_EMULATION
        return _NO_COMPAT
    options = [word for word in host.text("proc/cmdline").split() if "ia32_emulation=" in word]
    if options:
        return f"this kernel is built to take them, and booted with {options[-1]}"
    return "this kernel is built to take them, and most likely does"


def _x32(host: Host, loaded: Loaded) -> Verdict:
    takes = libc.has_x32() if host.machine == "x86_64" else False
    kernel = {
        True: "this kernel takes them, as a call has shown",
        False: "this kernel takes none, as a call has shown",
        None: "a seccomp filter of ours hides whether this kernel takes them",
    }[takes]
    if host.machine != "x86_64":
        return ok("only x86-64 has them")
    return _other_abi(loaded, kernel, possible=takes is not False)


def _inner(_: Host, loaded: Loaded) -> Verdict:
    if INNER_CALLS not in loaded.blind:
        return ok(f"watched by {loaded.probe}")
    return warning(
        f"not watched: {loaded.probe} sees calls of processes, not those of loader programs"
        " (light skeletons)", _ANOTHER_PLAN.format("fentry or kprobe"),
    )  # fmt: skip


def _common(host: Host, loaded: Loaded) -> Verdict:
    if loaded.facts.has_registers and host.machine in REGISTERS:
        return ok(f"watched by {loaded.probe}, with its arguments")
    found = "watched, but its arguments show as 0: they are in registers that cannot be read"
    return warning(found, "boot Linux 5.15 or newer with CONFIG_DEBUG_INFO_BTF")


PATHS: Final[tuple[tuple[str, Callable[[Host, Loaded], Verdict]], ...]] = (
    ("native calls", _native),
    ("32-bit calls", _compat),
    ("x32 calls", _x32),
    ("calls within the kernel", _inner),
    ("BPF_COMMON_ATTRS", _common),
)
"""The ways into bpf(2), and what says whether they are watched."""


def _paths(host: Host, loaded: Loaded | None) -> Iterator[tuple[str, Verdict]]:
    for name, check in PATHS:
        if loaded:
            yield name, looked_at(partial(check, host, loaded))
        else:
            yield name, bad("not watched: no plan works", _ANOTHER_PLAN.format("one"))


# --- What is shown -----------------------------------------------------------------------

_TITLES: Final = {
    Kind.HOST: "this host",
    Kind.PLAN: "probe plans",
    Kind.PATH: "paths into bpf(2)",
    Kind.DAEMON: "the daemon",
}
_NARROWEST: Final = 30  # a terminal that has less wraps by itself; Rich would leave out
_ANY: Final = 100  # lines: given both, Rich does not ask the environment
_STYLES: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.BAD: "bold red"}


def document(report: Report) -> bytes:
    """One JSON object on a line."""
    about = {
        "works": report.works,
        "plan": report.plan,
        "probe": report.probe,
        "findings": [finding._asdict() for finding in report.findings],
    }
    return json.dumps(about).encode() + b"\n"


def table(report: Report, *, color: bool, width: int) -> bytes:
    """For people.

    :param width: columns there are.
    """
    width = max(width, _NARROWEST)
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=_ANY, force_terminal=color, no_color=not color,
        color_system="standard" if color else None, highlight=False, markup=False, emoji=False,
        legacy_windows=False,
    )  # fmt: skip
    names = min(max(len(finding.name) for finding in report.findings), width // 3)
    for kind, title in _TITLES.items():
        if found := [finding for finding in report.findings if finding.kind is kind]:
            console.print(Text(title, "bold"))
            console.print(_section(found, names))
    console.print(_sum(report))
    lines = (line.rstrip() for line in file.getvalue().splitlines())
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _section(findings: list[Finding], names: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=len(Status.WARNING))
    grid.add_column(width=names, overflow="fold")
    grid.add_column(overflow="fold")
    cures = [*(finding.cure for finding in findings), ""]
    for finding, (cure, following) in zip(findings, pairwise(cures), strict=True):
        style = _STYLES[finding.status]
        grid.add_row(Text(finding.status, style), Text(finding.name), Text(finding.found))
        if cure and cure != following:  # of several with the same, behind the last one
            grid.add_row("", "", Text.assemble(("cure: ", "bold"), cure))
    return grid


def _sum(report: Report) -> Text:
    counts: Mapping[Status, int] = {
        status: sum(finding.status is status for finding in report.findings) for status in Status
    }
    if report.plan:
        style, begin = "bold green", f"tracing works, by {report.probe}"
    elif report.works:
        style, begin = "bold yellow", f"tracing works only with --probe {report.probe}"
    else:
        style, begin = "bold red", "tracing does not work here"
    if report.works and report.keeps_daemon:
        style, begin = "bold red", f"{begin}; the daemon would not start"
    rest = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Text.assemble((begin, style), f" ({rest})")
