# SPDX-License-Identifier: Apache-2.0
"""The figures of bench/README.md, measured on this machine: ``make bench``.

Every figure that others depend on stands beside its baseline from the same run:
machines differ, and the same machine differs from one minute to the next. Costs
are CPU time, the least of many short runs taken in turn.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import languages
import stages
from bpfsnoop.tracer import libc, own
from bpfsnoop.tracer.tracefs import Tracefs

BPFSNOOP = [sys.executable, "-m", "bpfsnoop"]
HERE = Path(__file__).resolve().parent
ROUNDS = 5

CALLS = ("lookup", "load", "getppid")
BPFTRACE = """
tracepoint:syscalls:sys_enter_bpf %s {
    printf("%%d %%d %%p %%d\\n", tid, args->cmd, args->uattr, args->size);
}
tracepoint:syscalls:sys_exit_bpf %s { printf("%%d %%d\\n", tid, args->ret); }
"""
"""What a user would write; each takes a filter."""


class Setting(NamedTuple):
    """What runs beside a program that makes calls, as a context."""

    name: str
    beside: Callable[[], AbstractContextManager[object]]
    needs: str = ""


def _settings() -> list[Setting]:
    settings = [
        Setting("untraced", nullcontext),
        Setting("two empty programs there", _empty_programs),
        Setting("bpfsnoop, process filtered out", lambda: _tracer(["-p", "1"])),
        Setting("bpfsnoop, command filtered out", lambda: _tracer(["-e", "map_freeze"])),
        Setting("bpftrace, process filtered out", lambda: _bpftrace("/pid == 1/"), "bpftrace"),
        Setting("bpfsnoop", lambda: _tracer([])),
        Setting("bpfsnoop --json", lambda: _tracer(["--json"])),
        Setting("bpfsnoop, 32-bit calls too", lambda: _tracer(["--probe", "raw_tracepoint"])),
        Setting("bpftrace, entry and exit", lambda: _bpftrace(""), "bpftrace"),
    ]
    return [setting for setting in settings if not setting.needs or shutil.which(setting.needs)]


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        cold = min(_start(["--set", 'cache=""']).seconds for _ in range(ROUNDS))
        _start(["--cache", cache])
        warm = [_start(["--cache", cache]) for _ in range(ROUNDS)]
        print(f"start to attached, cold {cold:8.2f} s   least of {ROUNDS}")
        print(f"start to attached, warm {min(run.seconds for run in warm):8.2f} s")
        print(f"resident memory (RSS)   {warm[-1].resident:8.1f} MB  while tracing")
    print()
    stages.main()
    print()
    languages.main()
    print()
    _overhead()


@contextmanager
def _tracer(options: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A tracer of this host that is attached."""
    command = [*BPFSNOOP, "-o", "/dev/null", "--probe", "tracepoint", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        for line in tracer.stderr:
            if "tracing bpf(2)" in line:
                break
        try:
            yield tracer
        finally:
            tracer.terminate()


@contextmanager
def _bpftrace(wanted: str) -> Iterator[None]:
    """:param wanted: a filter of its language."""
    # The last probe only tells when all are attached, which it does in their order.
    script = BPFTRACE % (wanted, wanted) + 'interval:ms:10 { printf("ready\\n"); }'
    with subprocess.Popen(
        ["bpftrace", "-e", script],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as tracer:  # fmt: skip
        assert tracer.stdout
        for line in tracer.stdout:
            if line == "ready\n":
                break
        drain = threading.Thread(target=tracer.stdout.read)
        drain.start()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            drain.join()


@contextmanager
def _empty_programs() -> Iterator[None]:
    """What the kernel takes for running two programs at all."""
    returns = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit
    with ExitStack() as stack:
        program = own.load_program(own.TRACEPOINT, returns, "empty")
        stack.callback(os.close, program)
        tracefs = stack.enter_context(Tracefs())
        for event in ("sys_enter_bpf", "sys_exit_bpf"):
            number = tracefs.event_id("syscalls", event)
            stack.callback(os.close, libc.attach_tracepoint(number, program))
        yield


class Start(NamedTuple):
    seconds: float
    """From exec to attached."""
    resident: float
    """MB, after 100,000 calls."""


def _start(options: Sequence[str]) -> Start:
    begin = time.monotonic()
    with _tracer(options) as tracer:
        seconds = time.monotonic() - begin
        subprocess.run([_built(), "lookup", "20"], check=True, stdout=subprocess.DEVNULL)
        status = Path(f"/proc/{tracer.pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return Start(seconds, int(kilobytes) * 1024 / 1e6)


def _overhead() -> None:
    """What tracing adds to a call, and to system calls that are not bpf(2)."""
    settings = _settings()
    least: dict[tuple[str, str], Cost] = {}
    for _ in range(ROUNDS):
        for setting in settings:
            with setting.beside():
                for call in CALLS:
                    key = (setting.name, call)
                    least[key] = _cost(call).least(least.get(key, NEVER))
    if shutil.which("strace"):
        settings.append(Setting(STRACE, nullcontext))
        for call in CALLS:
            least[STRACE, call] = _cost(call, under=STRACE.split())
    print(f"CPU ns per call (by the clock), least of {ROUNDS} rounds in turn:")
    print(f"  {'':<32}" + "".join(f"{call:>26}" for call in CALLS))
    for setting in settings:
        cells = []
        for call in CALLS:
            cost, base = least[setting.name, call], least[settings[0].name, call]
            cells.append(f"{cost.cpu:8.0f} {cost.cpu - base.cpu:+8.0f} ({cost.clock:.0f})")
        print(f"  {setting.name:<32}" + "".join(f"{cell:>26}" for cell in cells))


STRACE = "strace -f --seccomp-bpf -e trace=bpf -o /dev/null"


class Cost(NamedTuple):
    """Of one call, ns."""

    cpu: float
    clock: float

    def least(self, other: "Cost") -> "Cost":
        return Cost(min(self.cpu, other.cpu), min(self.clock, other.clock))


NEVER = Cost(float("inf"), float("inf"))


def _cost(call: str, under: Sequence[str] = ()) -> Cost:
    runs = "40" if not under else "3"
    done = subprocess.run(
        [*under, _built(), call, runs], check=True, stdout=subprocess.PIPE, text=True
    )
    return Cost(*map(float, done.stdout.split()))


_build_dir = tempfile.TemporaryDirectory(prefix="bpfsnoop-bench-")


def _built() -> str:
    program = Path(_build_dir.name) / "calls"
    if not program.exists():
        source = HERE / "calls.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return str(program)


if __name__ == "__main__":
    main()
