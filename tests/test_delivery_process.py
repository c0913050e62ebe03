# SPDX-License-Identifier: Apache-2.0
"""The delivery process as a whole: settings, lines, and what becomes of them when it ends."""

import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from delivering import (
    Delivery,
    Progress,
    a_file,
    a_sink,
    a_socket,
    document,
    lines_of,
    sequence,
    unique,
    until,
)
from running import NOBODY, PATIENCE_S, ROOT

NOWHERE = "tcp://127.0.0.1:1"
"""Nobody listens at the first port of loopback."""


@pytest.fixture
def delivery(tmp_path: Path) -> Iterator[Delivery]:
    with Delivery(tmp_path / "spool") as delivery:
        yield delivery


def received(server: socket.socket, enough: int) -> list[int]:
    """The numbers of so many lines, by one connection; it is then closed."""
    with closing(server.accept()[0]) as connection:
        connection.settimeout(60)
        data = b""
        while data.count(b"\n") < enough:
            more = connection.recv(1 << 16)
            assert more, data
            data += more
    return list(map(sequence, data.splitlines(keepends=True)))


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def at(server: socket.socket) -> str:
    return f"tcp://127.0.0.1:{server.getsockname()[1]}"


# --- settings ----------------------------------------------------------------------------


def test_each_line_goes_where_its_bits_say(delivery: Delivery, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    sinks = [a_file(path.name, path) for path in files]
    assert delivery.settle_on(*sinks, bits={"a": 5, "b": 63}) == []
    first = delivery.lines(10, sinks=1 << 5)
    second = delivery.lines(10, sinks=1 << 63 | 1 << 5)
    delivery.lines(10, sinks=1 << 7)
    progress = delivery.until_done()
    assert [lines_of(path) for path in files] == [first + second, second]
    counts = [progress["sinks"][name]["delivered"] for name in "ab"]
    assert counts == [20, 10]


@pytest.mark.parametrize("bad", ["gone/file", ""])
def test_what_cannot_be_is_refused_and_the_rest_goes_on(
    delivery: Delivery, tmp_path: Path, bad: str
) -> None:
    good = a_file("good", tmp_path / "good")
    assert delivery.settle_on(good) == []
    delivery.lines(5)
    other = a_file("other", tmp_path / "other")
    reasons = delivery.settle_on(
        a_file("good", tmp_path / bad),
        other,
        a_socket("tls", "tls://127.0.0.1:1", ca=str(tmp_path / "ca.pem")),
        a_socket("nowhere", NOWHERE),
    )
    assert [reason.partition(":")[0] for reason in reasons] == ["sinks.good", "sinks.tls"]
    assert f"cannot write to {tmp_path / bad}" in reasons[0]
    assert reasons[1] == f"sinks.tls: cannot read {tmp_path}/ca.pem: No such file or directory"
    delivery.lines(5)
    delivery.until_done()
    assert lines_of(tmp_path / "good") == list(range(1, 11))
    assert delivery.progress["sinks"].keys() == {"good"}


def test_without_any_sinks_it_takes_no_lines(tmp_path: Path) -> None:
    """It would put them nowhere, and say that it is done with them."""
    delivery = Delivery(tmp_path / "spool")
    assert delivery.settle_on(a_file("bad", tmp_path / "gone/file"))
    with suppress(OSError):  # it has ended already
        delivery.lines(5)
    assert delivery.wait() == (0, b"")
    assert delivery.progress["done"] == 0


def test_a_network_that_is_away_is_no_reason(delivery: Delivery) -> None:
    assert delivery.settle_on(a_socket("away", NOWHERE)) == []
    sink = delivery.until_sink("away", lambda sink: sink["problem"])
    assert sink["problem"] == "Connection refused"
    assert not sink["up"]


def test_sinks_come_and_go_and_nothing_is_lost(delivery: Delivery, tmp_path: Path) -> None:
    stays, goes, comes = (a_file(name, tmp_path / name) for name in ("stays", "goes", "comes"))
    bits = {"stays": 0, "goes": 1, "comes": 2}
    assert delivery.settle_on(stays, goes, bits=bits) == []
    first = delivery.lines(2000, sinks=3)
    assert delivery.settle_on(stays, comes, bits=bits) == []
    second = delivery.lines(2000, sinks=5)
    assert delivery.settle_on(stays, goes, comes, bits=bits) == []
    third = delivery.lines(2000, sinks=7)
    delivery.end()
    assert lines_of(tmp_path / "stays") == first + second + third
    assert lines_of(tmp_path / "goes") == first + third
    assert lines_of(tmp_path / "comes") == second + third


def test_what_waits_for_a_sink_follows_it_to_another_address(delivery: Delivery) -> None:
    delivery.settle_on(a_socket("siem", NOWHERE))
    numbers = delivery.lines(100)
    delivery.until_sink("siem", lambda sink: sink["spooled"])
    with listening() as server:
        assert delivery.settle_on(a_socket("siem", at(server))) == []
        assert received(server, 100) == numbers


def test_what_waits_for_a_sink_that_was_removed_is_there_when_it_comes_back(
    delivery: Delivery, tmp_path: Path
) -> None:
    other = a_file("other", tmp_path / "other")
    delivery.settle_on(a_socket("siem", NOWHERE), other)
    numbers = delivery.lines(100)
    assert delivery.settle_on(other, bits={"other": 1}) == []
    delivery.until_done()
    with listening() as server:
        assert delivery.settle_on(a_socket("siem", at(server)), other) == []
        assert received(server, 100) == numbers


def test_what_a_sink_that_was_removed_dropped_is_told_by_the_one_in_its_place(
    delivery: Delivery, tmp_path: Path
) -> None:
    other = a_file("other", tmp_path / "other")
    siem = replace(a_socket("siem", NOWHERE), spool=0)
    bits = {"siem": 0, "other": 1}
    delivery.settle_on(siem, other, bits=bits)
    delivery.lines(100)
    delivery.until_sink("siem", lambda sink: sink["queued"] and sink["problem"])
    threads = delivery.threads
    assert delivery.settle_on(other, bits=bits) == []
    until(lambda: delivery.threads < threads, "the sink does not end")
    assert delivery.settle_on(siem, other, bits=bits) == []
    delivery.until_sink("siem", lambda sink: sink["dropped"] == 100)


def test_files_are_reopened(delivery: Delivery, tmp_path: Path) -> None:
    """logrotate: rename, then a signal that makes the daemon say its settings again."""
    sink = a_file("file", tmp_path / "events")
    delivery.settle_on(sink)
    delivery.lines(3)
    delivery.until_done()
    (tmp_path / "events").rename(tmp_path / "events.1")
    delivery.lines(3)
    assert delivery.settle_on(sink) == []
    delivery.lines(3)
    delivery.end()
    both = lines_of(tmp_path / "events.1") + lines_of(tmp_path / "events")
    assert both == list(range(1, 10))
    assert (tmp_path / "events").exists()


def test_a_thousand_settings_under_load(delivery: Delivery, tmp_path: Path) -> None:
    with listening() as server:
        got: list[int] = []
        receiver = threading.Thread(target=lambda: got.extend(received(server, 10_001)))
        receiver.start()
        stays = [a_file("file", tmp_path / "file"), a_socket("siem", at(server))]
        delivery.settle_on(*stays)
        delivery.lines(1, sinks=3)
        delivery.until_sink("siem", lambda sink: sink["up"])
        before = delivery.descriptors, delivery.threads
        for round_ in range(1000):
            comes = [a_file("now and then", tmp_path / "other")] if round_ % 2 else []
            assert delivery.settle_on(*stays, *comes) == []
            delivery.lines(10, sinks=7)
        assert delivery.settle_on(*stays) == []
        until(
            lambda: (delivery.descriptors, delivery.threads) == before,
            f"it had {before}, and has {delivery.descriptors, delivery.threads}",
        )
        numbers = list(range(1, 10_002))
        receiver.join(PATIENCE_S)
    delivery.end()
    assert lines_of(tmp_path / "file") == numbers
    assert got == numbers
    assert lines_of(tmp_path / "other") == [
        number for number in numbers[1:] if (number - 2) // 10 % 2
    ]


def test_another_directory_for_spools_takes_a_restart(delivery: Delivery, tmp_path: Path) -> None:
    sink = a_file("file", tmp_path / "file")
    delivery.settle_on(sink)
    delivery.spool = tmp_path / "elsewhere"
    assert delivery.settle_on(sink) == ["spool: another directory takes a restart"]


# --- sinks that are slow, away or in the way ---------------------------------------------


def test_a_slow_sink_holds_up_nobody_and_takes_no_memory(tmp_path: Path) -> None:
    with Delivery(tmp_path / "spool") as delivery, listening() as server:
        slow = replace(a_socket("slow", at(server)), queue=1 << 20, spool=1 << 24)
        assert delivery.settle_on(slow, a_file("fast", tmp_path / "fast")) == []
        connection = server.accept()[0]  # and never read
        with connection:
            for _ in range(40):
                delivery.lines(500, sinks=3, size=2000)
            delivery.until_sink("fast", lambda sink: sink["delivered"] == 20_000)
            assert lines_of(tmp_path / "fast") == list(range(1, 20_001))
            assert delivery.progress["sinks"]["slow"]["dropped"] > 1000
            assert delivery.memory < 40 << 20
            delivery.kill()


def test_less_room_than_is_sent_again_does_not_end_a_sink(delivery: Delivery) -> None:
    """As when the disk of the spool is full: what confirms a line is sent after it."""
    with listening() as server:
        got: list[bytes] = []
        reader = threading.Thread(target=read_each, args=(server, got), daemon=True)
        reader.start()
        small = replace(a_socket("siem", at(server)), queue=1 << 17, spool=0)
        assert delivery.settle_on(small) == []
        deadline = time.monotonic() + PATIENCE_S
        while len(got) < 3000:
            assert time.monotonic() < deadline, delivery.progress
            delivery.lines(20, size=300)
            threading.Event().wait(0.01)
        delivery.end()
        server.shutdown(socket.SHUT_RDWR)
        reader.join()
    numbers = list(map(sequence, got))
    assert numbers == sorted(numbers)


def read_each(server: socket.socket, got: list[bytes]) -> None:
    """Lines, of one connection after the other, each until its end."""
    with suppress(OSError):
        while True:
            with server.accept()[0] as connection, connection.makefile("rb") as file:
                got.extend(file)


def test_a_reader_of_standard_output_that_goes_is_counted(tmp_path: Path) -> None:
    read, write = os.pipe()
    with Delivery(tmp_path / "spool", stdout=write) as delivery:
        os.close(write)
        assert delivery.settle_on(a_sink("out", "stdout", {})) == []
        numbers = delivery.lines(10)
        with open(read, "rb") as pipe:
            assert [sequence(pipe.readline()) for _ in numbers] == numbers
        delivery.lines(5)
        sink = delivery.until_done()["sinks"]["out"]
    assert (sink["delivered"], sink["dropped"]) == (10, 5)
    assert sink["problem"] == "standard output takes no more: Broken pipe"


def test_a_reader_of_standard_output_that_stands_still_holds_up_nobody(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb") as pipe, Delivery(tmp_path / "spool", stdout=write) as delivery:
        os.close(write)
        sinks = a_sink("out", "stdout", {}), a_file("file", tmp_path / "file")
        assert delivery.settle_on(*sinks) == []
        numbers = delivery.lines(1000, sinks=3, size=1000)
        progress = delivery.end()
        assert progress["done"] == 1000
        assert progress["sinks"]["out"]["spooled"] > 900_000
        assert lines_of(tmp_path / "file") == numbers
        assert len(pipe.read()) < 100_000


# --- how it ends -------------------------------------------------------------------------


def test_at_the_end_what_cannot_be_sent_goes_into_the_spool(tmp_path: Path) -> None:
    sinks = a_socket("siem", NOWHERE), a_file("file", tmp_path / "file")
    with Delivery(tmp_path / "spool") as delivery:
        delivery.settle_on(*sinks)
        numbers = delivery.lines(500, sinks=3)
        progress = delivery.end()
        assert progress["done"] == 500
        assert progress["sinks"]["siem"]["spooled"] > 0
    assert lines_of(tmp_path / "file") == numbers
    with Delivery(tmp_path / "spool") as delivery, listening() as server:
        assert delivery.settle_on(a_socket("siem", at(server))) == []
        assert received(server, 500) == numbers


def test_a_daemon_that_is_gone_is_an_end_too(delivery: Delivery, tmp_path: Path) -> None:
    delivery.settle_on(a_file("file", tmp_path / "file"), a_socket("siem", NOWHERE))
    numbers = delivery.lines(500, sinks=3)
    delivery.hang_up()
    assert lines_of(tmp_path / "file") == numbers
    assert delivery.progress["done"] == 500


def test_signals_of_terminal_and_service_are_the_daemons(
    delivery: Delivery, tmp_path: Path
) -> None:
    delivery.settle_on(a_file("file", tmp_path / "file"))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGABRT):
        delivery.process.send_signal(number)
    delivery.lines(5)
    delivery.until_done()
    assert lines_of(tmp_path / "file") == [1, 2, 3, 4, 5]


def test_what_is_done_survives_kill_9(tmp_path: Path) -> None:
    """What PROGRESS calls done need not be said again; the rest the daemon says again."""
    last_done = 0
    for _ in range(5):
        with Delivery(tmp_path / "spool") as delivery:
            delivery.last = last_done
            delivery.settle_on(replace(a_socket("siem", NOWHERE), queue=50_000))
            delivery.lines(1000)
            delivery.until(partial(_has_moved_on, last_done))
            last_done = delivery.kill()["done"]
    with Delivery(tmp_path / "spool") as delivery, listening() as server:
        delivery.last = last_done
        delivery.settle_on(a_socket("siem", at(server)))
        last = delivery.lines(1)[-1]
        got: list[int] = []
        with closing(server.accept()[0]) as connection, connection.makefile("rb") as stream:
            while last not in got:
                got.append(sequence(stream.readline()))
    assert unique(got) == list(range(1, last + 1))


def _has_moved_on(done: int, progress: Progress) -> bool:
    return int(progress["done"]) > done


def test_every_line_of_a_file_is_whole_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sink = a_file("file", path)
    done = 0
    for _ in range(12):
        with Delivery(tmp_path / "spool") as delivery:
            delivery.last = done
            delivery.settle_on(sink)
            enough = path.stat().st_size + random.randrange(100_000, 5_000_000)
            feeder = threading.Thread(target=feed, args=(delivery,))
            feeder.start()
            until(partial(_is_as_long, path, enough), "it writes nothing")
            delivery.process.kill()
            delivery.process.wait()
            feeder.join()
            done = delivery.progress["done"]
        *whole, torn = path.read_bytes().split(b"\n")
        assert len(torn) < len(document(done, 60_000))
        assert list(map(sequence, (line + b"\n" for line in whole)))
    with Delivery(tmp_path / "spool") as delivery:
        delivery.last = done
        delivery.settle_on(sink)
        last = delivery.lines(1)[-1]
        delivery.until_done()
    numbers = lines_of(path)
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
    assert last in numbers


def _is_as_long(path: Path, size: int) -> bool:
    return path.stat().st_size >= size


def feed(delivery: Delivery) -> None:
    try:
        while True:
            delivery.lines(20, size=60_000)
    except OSError:
        pass  # it was killed


def test_what_is_no_frame_ends_it_with_a_sentence(tmp_path: Path) -> None:
    delivery = Delivery(tmp_path / "spool")
    delivery.settle_on(a_file("file", tmp_path / "file"))
    delivery.lines(5)
    delivery.until_done()
    delivery.send_bytes(b"\xff" * 100)
    status, said = delivery.wait()
    assert said == b"bpfsnoop: delivery: what the daemon says cannot be understood: not a frame\n"
    assert status == 1
    assert lines_of(tmp_path / "file") == [1, 2, 3, 4, 5]


# --- rights ------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_has_no_rights() -> None:
    with TemporaryDirectory() as name:  # tmp_path is below a directory that is root's alone
        place = Path(name)
        place.chmod(0o755)
        # So that the new user can read it, wherever this checkout is.
        shutil.copytree(ROOT, place / "bpfsnoop", ignore=all_but_modules)
        (place / "spool").mkdir()
        os.chown(place / "spool", NOBODY, NOBODY)
        user = f"{NOBODY}:{NOBODY}:{NOBODY},4"
        with Delivery(place / "spool", "--user", user, path=name) as delivery:
            assert delivery.settle_on(a_socket("siem", NOWHERE)) == []
            refused = delivery.settle_on(a_file("file", place / "file"))
            assert refused == [f"sinks.file: cannot write to {place}/file: Permission denied"]
            status = Path(f"/proc/{delivery.process.pid}/status").read_text()
            limits = Path(f"/proc/{delivery.process.pid}/limits").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split() == fields["Gid"].split() == [str(NOBODY)] * 4
    assert fields["Groups"].split() == ["4", str(NOBODY)]
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert int(fields["NoNewPrivs"]) == 1
    assert re.search(r"Max core file size +0 +0 ", limits)


def all_but_modules(_directory: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py")} - {"events", "tracer", "delivery"}
