# SPDX-License-Identifier: Apache-2.0
"""What the delivery process takes: lines a second to one TCP sink, CPU time and memory."""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bpfsnoop.tracer.delivery.frames import LINE, Frame
from bpfsnoop.tracer.delivery.settings import SinkSettings
from delivering import Delivery, a_file, a_socket, document

SIZE: Final = 2000  # bytes of a line, about
FLOOD: Final = 300_000  # lines
PACED: Final = 10_000  # lines/s
PACED_S: Final = 20
BATCH: Final = 100
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    print(f"the delivery process, lines of {SIZE} bytes:")
    with tempfile.TemporaryDirectory() as name, _receiver() as address:
        place = Path(name)
        for title, sinks in (
            ("to a TCP sink", [a_socket("tcp", address)]),
            ("to a file", [a_file("file", place / "file")]),
        ):
            _measure(place, f"{title}, as fast as it goes", sinks, FLOOD, 0)
            _measure(place, f"{title}, {PACED:,} lines/s", sinks, PACED * PACED_S, PACED)


def _measure(place: Path, title: str, sinks: Sequence[SinkSettings], count: int, pace: int) -> None:
    with Delivery(place / "spool") as delivery:
        assert not delivery.settle_on(*sinks)
        before, began = _cpu(delivery), time.monotonic()
        for first in range(1, count + 1, BATCH):
            delivery.send(*_lines(first))
            ahead = (first + BATCH) / pace - (time.monotonic() - began) if pace else 0
            time.sleep(max(ahead, 0))
        (sink,) = sinks
        wanted = count - (4 << 20) // SIZE * (sink.kind == "socket") - 2 * BATCH
        delivery.until_sink(sink.name, lambda sink: sink["delivered"] >= wanted)
        took, cpu = time.monotonic() - began, _cpu(delivery) - before
        memory = delivery.memory
        dropped = delivery.end()["sinks"][sink.name]["dropped"]
    print(
        f"  {title:<40} {count / took:9,.0f} lines/s, {cpu / count * 1e6:5.1f} us CPU time each,"
        f" {memory / 1e6:.0f} MB at most, {dropped} dropped"
    )


def _lines(first: int) -> Iterator[Frame]:
    for number in range(first, first + BATCH):
        yield Frame(LINE, document(number, SIZE - 90), number, 1, 6, number)


def _cpu(delivery: Delivery) -> float:
    """Seconds, of all its threads."""
    fields = Path(f"/proc/{delivery.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


@contextmanager
def _receiver() -> Iterator[str]:
    """Reads what comes over any connection, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if not child:
            while True:
                threading.Thread(target=_read, args=(server.accept()[0],)).start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def _read(connection: socket.socket) -> None:
    with connection:
        while connection.recv(1 << 20):
            pass


if __name__ == "__main__":
    main()
