# SPDX-License-Identifier: Apache-2.0
"""The figures of bench/README.md, measured on this machine: ``make bench``.

Every figure that others depend on stands beside its baseline from the same run:
machines differ, and the same machine differs from one minute to the next. Costs
are CPU time, the least of many short runs taken in turn.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.events import ecs, text, wire
from stream import records

BPFSNOOP = [sys.executable, "-m", "bpfsnoop"]
HERE = Path(__file__).resolve().parent
ROUNDS = 5
STREAM = 50_000


class Setting(NamedTuple):
    """A way to run beside a program that makes calls."""

    name: str
    options: Sequence[str] | None
    """None: not traced at all."""


SETTINGS = (
    Setting("untraced", None),
    Setting("traced, process filtered out", ["-p", "1"]),
    Setting("traced, command filtered out", ["-e", "prog_load"]),
    Setting("traced", []),
)


def main() -> None:
    start, resident = _start_and_memory()
    print(f"start-up to attached    {start:8.2f} s   least of {ROUNDS}")
    print(f"resident memory (RSS)   {resident:8.1f} MB  while tracing")
    print()
    _decoding()
    print()
    _overhead()


@contextmanager
def _tracer(options: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A tracer of this host that is attached."""
    command = [*BPFSNOOP, "-o", "/dev/null", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        for line in tracer.stderr:
            if "tracing bpf(2)" in line:
                break
        try:
            yield tracer
        finally:
            tracer.terminate()


def _start_and_memory() -> tuple[float, float]:
    """Seconds from exec to attached, and MB after some thousand calls."""
    least = float("inf")
    for _ in range(ROUNDS):
        begin = time.monotonic()
        with _tracer([]) as tracer:
            least = min(least, time.monotonic() - begin)
            subprocess.run([_built(), "lookup", "20"], check=True, stdout=subprocess.DEVNULL)
            status = Path(f"/proc/{tracer.pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return least, int(kilobytes) / 1000


def _decoding() -> None:
    """Events per second on one core, after each stage."""
    stream = records(STREAM)
    decoder = Decoder()
    origin = ecs.Origin("host", "", "tracepoint")

    def to_json(record: bytes) -> None:
        event = decoder.decode(wire.parse(record))
        ecs.json_line(ecs.event_document(event, origin, time_ns=event.call.start_ns, sequence=1))

    def to_text(record: bytes) -> None:
        event = decoder.decode(wire.parse(record))
        text.call(event)
        text.result(event)

    stages: dict[str, Callable[[bytes], object]] = {
        "parsed": wire.parse,
        "parsed and decoded": lambda record: decoder.decode(wire.parse(record)),
        "... to a text line": to_text,
        "... to a JSON line": to_json,
    }
    print("one core, 90 % lookups and updates, 9 % others, 1 % loads:")
    for name, stage in stages.items():
        seconds = min(_cpu_seconds(stage, stream) for _ in range(ROUNDS))
        print(f"  {name:<22} {STREAM / seconds:10,.0f} events/s")


def _cpu_seconds(stage: Callable[[bytes], object], stream: Sequence[bytes]) -> float:
    begin = time.process_time()
    for record in stream:
        stage(record)
    return time.process_time() - begin


def _overhead() -> None:
    """What tracing adds to a call, and to system calls that are not bpf(2)."""
    least: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for setting in SETTINGS:
            for call, ns in _costs(setting).items():
                key = (setting.name, call)
                least[key] = min(ns, least.get(key, float("inf")))
    print(f"CPU ns per call, least of {ROUNDS} rounds in turn:")
    print(f"  {'':<30} {'MAP_LOOKUP_ELEM':>18} {'getppid':>18}")
    for setting in SETTINGS:
        cells = []
        for call in ("lookup", "getppid"):
            ns = least[setting.name, call]
            added = ns - least[SETTINGS[0].name, call]
            cells.append(f"{ns:8.0f} ({added:+5.0f})  ")
        print(f"  {setting.name:<30} {cells[0]:>18} {cells[1]:>18}")


def _costs(setting: Setting) -> dict[str, float]:
    if setting.options is None:
        return {call: _cost(call) for call in ("lookup", "getppid")}
    with _tracer(setting.options):
        return {call: _cost(call) for call in ("lookup", "getppid")}


def _cost(call: str) -> float:
    done = subprocess.run([_built(), call, "40"], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


_build_dir = tempfile.TemporaryDirectory(prefix="bpfsnoop-bench-")


def _built() -> str:
    program = Path(_build_dir.name) / "calls"
    if not program.exists():
        source = HERE / "calls.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return str(program)


if __name__ == "__main__":
    main()
