# SPDX-License-Identifier: Apache-2.0
"""The whole daemon under load for minutes: memory, CPU time, and what it loses.

Needs root. Its user has to be able to read bpfsnoop where it lies; nobody is.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

import stimulus

TICK_S: Final = 0.01
EACH_S: Final = 5.0
HZ: Final = os.sysconf("SC_CLK_TCK")
MAPS: Final = 100
WARM_S: Final = 30.0
"""After which memory is to be flat."""


class Sample(NamedTuple):
    """Of the daemon and its delivery process."""

    at_s: float
    cpu_s: tuple[float, float]
    resident: tuple[int, int]
    """RSS, bytes: pages that both have count in both."""
    together: int
    """PSS, bytes: what the two take together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=5000, help="control calls a second")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.rate)
    else:
        soak(options.minutes * 60, options.rate)


def load(rate: int) -> None:
    """Maps are made at this rate, each looked up twice, until somebody ends us."""
    made = 0
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(print(made)))
    while True:
        while made < (time.monotonic() - began) * rate:
            fd = stimulus.map_create(2, 4, 8, 16, map_name=b"soak%d" % (made % MAPS))
            stimulus.map_lookup_elem(fd, b"\0\0\0\0", 8)
            stimulus.map_lookup_elem(fd, b"\1\0\0\0", 8)
            os.close(fd)
            made += 1
        time.sleep(TICK_S)


class Receiver(threading.Thread):
    """Counts the lines that come in over TCP."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.lines = 0
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self.server.accept()
            while data := connection.recv(1 << 20):
                self.lines += data.count(b"\n")


def soak(seconds: float, rate: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="bpfsnoop-soak-"))
    home.chmod(0o755)
    shutil.chown(home, "nobody")
    receiver = Receiver()
    host, port = receiver.server.getsockname()
    config = {
        "user": "nobody", "state": str(home / "state"), "rate_limit": 0, "heartbeat": "10s",
        "sinks": [
            {"type": "file", "path": str(home / "events.json"), "rotate_size": "50M", "keep": 1},
            {"type": "socket", "address": f"tcp://{host}:{port}"},
        ],
    }  # fmt: skip
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "bpfsnoop", "daemon", "-c", home / "config.yaml"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert daemon.stderr
    print(daemon.stderr.readline().strip())
    try:
        idle = [sample(daemon.pid) for _ in waits(20)]
        loader = subprocess.Popen(
            [sys.executable, __file__, "--load", "--rate", str(rate)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        busy = [sample(daemon.pid) for _ in waits(seconds)]
        loader.terminate()
        made = int(loader.communicate()[0])
        daemon.terminate()
        said = daemon.communicate()[1]
        last = (home / "events.json").read_bytes().splitlines()[-1]
        tell(idle, busy, made, json.loads(last), receiver.lines)
        print(said, end="")
    finally:
        daemon.kill()
        shutil.rmtree(home)


def waits(seconds: float) -> Iterator[float]:
    """Yields now, every few seconds, and when it is over."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        yield passed
        time.sleep(min(EACH_S, seconds - passed))
    yield seconds


def sample(pid: int) -> Sample:
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    both = pid, child
    fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in both]
    cpu = [(int(field[11]) + int(field[12])) / HZ for field in fields]
    return Sample(
        time.monotonic(), (cpu[0], cpu[1]), (memory(pid, "Rss"), memory(child, "Rss")),
        memory(pid, "Pss") + memory(child, "Pss"),
    )  # fmt: skip


def memory(pid: int, kind: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) << 10
    raise ValueError(kind)


def tell(
    idle: list[Sample], busy: list[Sample], made: int, loss: dict[str, Any], received: int
) -> None:
    took = busy[-1].at_s - busy[0].at_s
    control = {"BPF_MAP_CREATE"}
    counts = {each["cmd"]: each for each in loss["bpf"]["loss"]["commands"]}
    seen = sum(counts[name]["seen"] for name in control)
    lost = sum(counts[name]["lost"] for name in control)
    print(f"idle CPU         {share(idle):.2%} of a core")
    print(
        f"load             {made / took:,.0f} map_create/s for {took / 60:.1f} min, and twice as"
        " many lookups"
    )
    print(f"control calls    {seen:,} seen, {lost} lost; all {loss['bpf']['loss']['lost']} lost")
    print(f"undelivered      {loss['bpf']['loss'].get('undelivered', 'nothing')}")
    print(f"TCP sink         {received:,} lines")
    print(
        f"CPU              {share(busy):.1%} of a core: tracing {part(busy, 0):.1%}, delivery"
        f" {part(busy, 1):.1%}"
    )
    print("memory           tracing RSS, delivery RSS, together PSS, MB:")
    warm = [each for each in busy if each.at_s - busy[0].at_s >= WARM_S] or busy
    for name, one in (("begin", idle[0]), ("after 30 s", warm[0]), ("end", busy[-1])):
        rss = ", ".join(f"{each / 2**20:.1f}" for each in (*one.resident, one.together))
        print(f"  {name:<14} {rss}")
    most = max(each.together for each in busy)
    print(f"  {'most':<14} {most / 2**20:.1f} together")


def share(samples: list[Sample]) -> float:
    return part(samples, 0) + part(samples, 1)


def part(samples: list[Sample], which: int) -> float:
    first, last = samples[0], samples[-1]
    return (last.cpu_s[which] - first.cpu_s[which]) / (last.at_s - first.at_s)


if __name__ == "__main__":
    main()
