# SPDX-License-Identifier: Apache-2.0
"""The tests in the guests of the table, as many at a time as there are CPUs."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final, NamedTuple

from .archive import Kernel, kernel
from .guest import REPORT, Command, Ended, programs, run
from .refused import CannotRun
from .report import Counts
from .table import GUESTS, Guest

ROOT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = ROOT / ".kernels"
_LOGS: Final = _CACHE / "logs"
_BYTECODE: Final = _CACHE / "bytecode"

_PYTEST: Final = (
    str(ROOT / ".venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider", "--tb=short",
    "-o", "junit_family=xunit1",
)  # fmt: skip
_TAIL: Final = 40
"""So many of the last lines of a console are shown."""


class Tested(NamedTuple):
    """How a guest's tests went."""

    name: str
    release: str
    counts: Counts
    seconds: float
    problem: str
    """Why that is a failure; nothing if it is none."""
    shown: str
    """What helps to find out."""

    def __str__(self) -> str:
        line = f"{self.name:22} {self.release:28} {self.counts}, {self.seconds:.0f} s"
        return f"{line}: {self.problem}" if self.problem else line


def in_guest(name: str, argv: Sequence[str]) -> Ended:
    """A command in one of the table's guests.

    :raises CannotRun: this host cannot boot it.
    """
    guest = GUESTS[name]
    return run(kernel(*_which(guest), _CACHE), _command(guest, argv), _LOGS / name)


def tested(names: Sequence[str]) -> Iterator[Tested | CannotRun]:
    """Runs the tests of these guests; each comes as it ends, or with why it cannot be run."""
    kernels = _kernels([GUESTS[name] for name in names])
    possible: dict[str, Kernel] = {}
    for name in names:
        its = kernels[_which(GUESTS[name])]
        if isinstance(its, CannotRun):
            yield CannotRun(f"{name}: {its}")
        else:
            possible[name] = its
    if not possible:
        return
    _compile()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        running = [pool.submit(_tested, name, its) for name, its in possible.items()]
        try:
            for ended in as_completed(running):
                yield ended.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _tested(name: str, its: Kernel) -> Tested | CannotRun:
    guest = GUESTS[name]
    begun = time.monotonic()
    try:
        ended = run(
            its, _command(guest, [*_PYTEST, f"--junitxml={REPORT}", *guest.tests]), _LOGS / name
        )
    except CannotRun as reason:
        return CannotRun(f"{name}: {reason}")
    seconds = time.monotonic() - begun
    counts = Counts() if ended.why else Counts.of(ended.text("report"))
    return Tested(name, its.release, counts, seconds, problem(ended, counts), shown(ended))


def _kernels(guests: Sequence[Guest]) -> dict[tuple[str, str], Kernel | CannotRun]:
    """What they boot, or why it cannot be had."""
    found: dict[tuple[str, str], Kernel | CannotRun] = {}
    for which in dict.fromkeys(map(_which, guests)):
        try:
            programs()  # before anything is fetched
            found[which] = kernel(*which, _CACHE)
        except CannotRun as reason:
            found[which] = reason
    return found


def _which(guest: Guest) -> tuple[str, str]:
    return guest.series, guest.flavour


_PATIENCE_S: Final = "600"  # guests are emulated


def _command(guest: Guest, argv: Sequence[str]) -> Command:
    env = {
        "BPFSNOOP_LIVE": "1", "BPFSNOOP_PROBE": guest.probe, "BPFSNOOP_DEAD": " ".join(guest.dead),
        "BPFSNOOP_PATIENCE": _PATIENCE_S, "PYTHONPYCACHEPREFIX": str(_BYTECODE),
    }  # fmt: skip
    return Command(argv, ROOT, env, guest.kernel, guest.prepare, guest.timeout_s)


def problem(ended: Ended, counts: Counts) -> str:
    """Why that is a failure; nothing if it is none."""
    if ended.why:
        return ended.why
    if ended.status or counts.failed:
        return f"pytest ended with status {ended.status}"
    if counts.skipped:
        return "tests that should run there were skipped"
    return "" if counts.passed else "no test ran"


def shown(ended: Ended) -> str:
    """What a guest said, and if it was lost those around it."""
    parts = [ended.text("out"), ended.text("err")]
    if ended.why:
        around = (ended.text(name).splitlines() for name in ("virtiofsd", "qemu", "console"))
        parts += ["\n".join(lines[-_TAIL:]) for lines in around]
    return "\n".join(part.strip() for part in parts if part.strip())


def _compile() -> None:
    """Has Python compile what the guests import: they are slow, and it would be lost in each."""
    env = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [*_PYTEST, "--collect-only"],
        env=env | {"PYTHONPYCACHEPREFIX": str(_BYTECODE)},
        cwd=ROOT, stdout=subprocess.DEVNULL, check=False,
    )  # fmt: skip
