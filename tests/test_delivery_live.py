# SPDX-License-Identifier: Apache-2.0
"""Lines when a disk is full: a small tmpfs, which takes root to mount."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from delivering import Delivery, a_file, a_socket, lines_of, sequence, until

pytestmark = pytest.mark.live

DISK = 2 << 20
BALLAST = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Half of it is taken by a file that may go."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], check=True)
    try:
        (place / "ballast").write_bytes(bytes(BALLAST))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_lines_wait_while_the_disk_of_their_file_is_full(disk: Path, tmp_path: Path) -> None:
    path = disk / "events"
    sink = replace(a_file("file", path), queue=100_000)
    with Delivery(tmp_path / "spool") as delivery:
        assert delivery.settle_on(sink) == []
        for _ in range(15):
            delivery.lines(100, size=900)
        progress = delivery.until_sink("file", lambda sink: sink["problem"])
        assert progress["problem"] == "No space left on device"
        before = lines_of(path)
        assert before == list(range(1, len(before) + 1))
        assert before
        delivery.until_sink("file", lambda sink: sink["spooled"])
        (disk / "ballast").unlink()
        numbers = list(range(1, 1501))
        progress = delivery.until_sink("file", lambda sink: sink["delivered"] == 1500)
        assert (progress["dropped"], progress["problem"], progress["up"]) == (0, "", True)
    assert lines_of(path) == numbers


def test_what_a_full_disk_does_not_spool_is_counted(disk: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    sink = replace(a_socket("siem", f"tcp://127.0.0.1:{port}"), queue=100_000)
    with Delivery(disk / "spool") as delivery:
        assert delivery.settle_on(sink) == []
        for _ in range(15):
            delivery.lines(100, size=900)
        problem = delivery.until_sink("siem", lambda sink: sink["dropped"])["problem"]
        assert problem == "Connection refused; spool: No space left on device"
        (disk / "ballast").unlink()
        until(lambda: one_fits(delivery), "it does not recover")
        last = delivery.last
        dropped = delivery.end()["sinks"]["siem"]["dropped"]
        assert dropped < 1500
    with Delivery(disk / "spool") as delivery, socket.create_server(("127.0.0.1", port)) as server:
        assert delivery.settle_on(sink) == []
        got: list[int] = []
        with closing(server.accept()[0]) as connection, connection.makefile("rb") as stream:
            while last not in got:
                got.append(sequence(stream.readline()))
    assert got == sorted(set(got))
    assert len(got) == last - dropped


def one_fits(delivery: Delivery) -> bool:
    before = delivery.until_done()["sinks"]["siem"]["dropped"]
    delivery.lines(1)
    return bool(delivery.until_done()["sinks"]["siem"]["dropped"] == before)
