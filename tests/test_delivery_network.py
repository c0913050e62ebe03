# SPDX-License-Identifier: Apache-2.0
"""Lines over sockets: what arrives, what comes again, what is refused."""

import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import OutputError
from bpfsnoop.tracer.delivery import connection
from bpfsnoop.tracer.delivery.address import Address, parse
from bpfsnoop.tracer.delivery.outlet import Line, Outlet
from bpfsnoop.tracer.delivery.stream import StreamOutlet
from bpfsnoop.tracer.delivery.syslog import Form, SyslogOutlet
from bpfsnoop.tracer.delivery.window import Window
from delivering import (
    NO_TLS,
    Delivery,
    a_socket,
    certificates,
    document,
    sequence,
    unique,
    until,
)
from running import PATIENCE_S

RESEND = 10_000
LOAD_S = float(os.environ.get("BPFSNOOP_DELIVERY_LOAD", "12"))
"""Seconds for which a receiver is killed again and again."""


def lines(first: int, last: int, size: int = 0) -> list[Line]:
    return [Line(document(at, size), 6, at * 1_000_000_007) for at in range(first, last + 1)]


def options(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "resend": RESEND, "facility": "local5", **NO_TLS, **more}


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket, scheme: str = "tcp") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}"


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


def read_and_close(connection: socket.socket) -> None:
    with connection:
        read_all(connection)


def numbers(data: bytes) -> list[int]:
    return list(map(sequence, data.splitlines(keepends=True)))


# --- addresses ---------------------------------------------------------------------------


def test_addresses() -> None:
    assert parse("tcp://siem.example:601") == Address("tcp", "siem.example", 601)
    assert parse("tls://[::1]:6514") == Address("tls", "::1", 6514)
    assert parse("unix:///run/a%20b") == Address("unix", path="/run/a%20b")


@pytest.mark.parametrize(
    "text", ["", "tcp://host", "tcp://:1", "tcp://host:0", "tcp://host:99999", "http://host:1",
             "unix://run/x", "unix:", "/dev/log", f"tcp://{'a' * 70}.example:1"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    with pytest.raises(OutputError, match="not an address"):
        parse(text)


# --- the window --------------------------------------------------------------------------


@given(
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 200), st.integers(0, 300))),
)
def test_so_many_bytes_stay_unconfirmed(limit: int, batches: list[tuple[int, int, int]]) -> None:
    window = Window(limit)
    arrived = least = 0
    for count, (sent, size, on_the_way) in enumerate(batches, 1):
        window.add(sent, size)
        arrived += window.arrived(on_the_way, 0)
        # Those after which the other side has got more than the limit.
        behind = [sum(size for _, size, _ in batches[at:count]) for at in range(1, count + 1)]
        there = zip(batches, behind, strict=False)
        least = max(least, sum(one[0] for one, size in there if size >= limit + on_the_way))
        assert arrived == least
    assert arrived + window.all() == sum(sent for sent, _, _ in batches)


def test_nothing_arrives_where_nobody_seems_to_read() -> None:
    window = Window(1000)
    for _ in range(10):
        window.add(1, 500)
    assert window.arrived(0, 501) == 0
    assert window.arrived(0, 500) == 8
    window.add(1, 1 << 26)
    assert window.arrived(0, 1 << 20) == 2


def test_what_was_sent_long_ago() -> None:
    now = [0.0]
    window = Window(1000, clock=lambda: now[0])
    window.add(2, 100)
    now[0] = 5
    window.add(3, 100)
    now[0] = 12
    assert window.older_than(10) == 2
    assert window.older_than(10) == 0
    assert window.all() == 3


def keep_asking(outlet: Outlet, what: Sequence[Line] = ()) -> None:
    """Until it raises something."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert outlet.send(what) in (0, len(what))


# --- streams -----------------------------------------------------------------------------


def test_what_was_sent_last_is_confirmed_by_the_end_alone(server: socket.socket) -> None:
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    size = len(document(1, 1000))
    thread = threading.Thread(target=read_and_close, args=(server.accept()[0],))
    thread.start()
    sent = confirmed = 0
    deadline = time.monotonic() + PATIENCE_S
    while not confirmed:
        assert time.monotonic() < deadline
        confirmed += outlet.send(lines(1, 5, 1000))
        sent += 5
        assert confirmed == 0 or (sent - confirmed) * size >= RESEND
    assert outlet.settle(PATIENCE_S) == sent - confirmed
    thread.join()
    outlet.close()


def test_a_peer_that_never_answers_the_end_confirms_nothing(server: socket.socket) -> None:
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    with closing(server.accept()[0]):
        outlet.send(lines(1, 5))
        assert outlet.settle(0.05) == 0
        outlet.close()


def test_a_peer_that_goes_on_talking_does_not_prolong_the_end(server: socket.socket) -> None:
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    with closing(server.accept()[0]) as connection:
        outlet.send(lines(1, 5))
        connection.sendall(b"hello " * 10_000)
        connection.shutdown(socket.SHUT_WR)  # the end is behind that
        assert outlet.settle(0) == 0
        outlet.close()


def test_a_peer_that_closed_is_noticed_before_more_is_sent(server: socket.socket) -> None:
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    server.accept()[0].close()
    with pytest.raises(OSError, match="the other side closed the connection"):
        keep_asking(outlet)
    outlet.close()


def test_a_peer_that_hardly_reads_is_a_problem_as_long_as_it_does(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SLOW_S", 0.05)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    peer, _ = server.accept()
    sending = threading.Thread(target=outlet.send, args=[lines(1, 1000, size=10_000)])
    sending.start()
    until(lambda: bool(outlet.problem), "it is not called slow")
    assert re.fullmatch(
        r"the other side reads slowly: \d+ of 100\d+ bytes in \d+ s", outlet.problem
    )
    reading = threading.Thread(target=read_and_close, args=[peer])
    reading.start()
    sending.join()
    assert outlet.problem == ""
    outlet.close()
    reading.join()


def test_what_a_peer_says_is_ignored(server: socket.socket) -> None:
    outlet = StreamOutlet(options(address_of(server)))
    outlet.open()
    with closing(server.accept()[0]) as connection:
        for first in range(1, 51):
            connection.sendall(b"hello " * 500)
            outlet.send(lines(first, first))
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match="the other side closed"):
            keep_asking(outlet)
        outlet.close()
        assert numbers(read_all(connection)) == list(range(1, 51))


def test_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        outlet = StreamOutlet(options(f"unix://{tmp_path}/socket"))
        outlet.open()
        with closing(server.accept()[0]) as connection:
            outlet.send(lines(1, 20))
            outlet.close()
            assert numbers(read_all(connection)) == list(range(1, 21))


def test_nobody_there(tmp_path: Path) -> None:
    for address, why in [
        ("tcp://127.0.0.1:1", "refused"),
        (f"unix://{tmp_path}/none", "No such file"),
    ]:
        outlet = StreamOutlet(options(address))
        with pytest.raises(OSError, match=why):
            outlet.open()
        outlet.close()


@pytest.mark.parametrize("buffer", [0, 4 << 20])
@pytest.mark.parametrize("megabytes", [0, 1, 20, 60])
def test_what_a_receiver_that_hangs_has_not_read_is_not_confirmed(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch, megabytes: int, buffer: int
) -> None:
    """Its kernel takes more than what is sent again, if it may or has seen it read fast."""
    monkeypatch.setattr(connection, "_STALL_S", 0.2)
    if buffer:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    resend = 1 << 22
    outlet = StreamOutlet(options(address_of(server), resend=resend))
    outlet.open()
    line = Line(document(1, 1000), 6, 1)
    sizes: list[int] = []
    with closing(server.accept()[0]) as receiver:
        thread = threading.Thread(target=read_so_much, args=(receiver, megabytes << 20, sizes))
        thread.start()
        confirmed = 0
        with suppress(TimeoutError):  # nothing more goes into the buffers
            while thread.is_alive() or confirmed * len(line.text) <= sum(sizes):
                confirmed += outlet.send([line] * 200)
        outlet.close()
        thread.join()
    assert confirmed * len(line.text) <= sum(sizes)


def read_so_much(connection: socket.socket, least: int, sizes: list[int]) -> None:
    while sum(sizes) < least and (data := connection.recv(1 << 16)):
        sizes.append(len(data))


# --- TLS ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certificates(tmp_path_factory.mktemp("pems"))


class TlsServer:
    """Takes one connection and all that comes over it; says so if it fails."""

    def __init__(self, certificate: Path, key: Path, ca: Path | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if ca:
            self._context.load_verify_locations(ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = address_of(self._server, "tls")
        self.data = b""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._server, self._server.accept()[0] as plain:
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self.data = read_all(connection)
                    connection.unwrap().close()
            except OSError as error:
                self.error = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_tls_and_its_end(pems: dict[str, Path]) -> None:
    server = TlsServer(pems["cert"], pems["key"])
    outlet = StreamOutlet(options(server.address, ca=str(pems["ca"])))
    outlet.open()
    for first in range(1, 100, 10):
        outlet.send(lines(first, first + 9, 50))
    assert outlet.settle(30) > 0
    outlet.close()
    server.join()
    assert server.error is None
    assert numbers(server.data) == list(range(1, 101))


def test_tls_with_a_certificate_of_ours_and_another_name(pems: dict[str, Path]) -> None:
    server = TlsServer(pems["cert"], pems["key"], ca=pems["ca"])
    outlet = StreamOutlet(
        options(
            server.address, ca=str(pems["ca"]), certificate=str(pems["cert"]),
            key=str(pems["key"]), server_name="collector",
        )
    )  # fmt: skip
    outlet.open()
    outlet.send(lines(1, 3))
    assert outlet.settle(30) == 3
    outlet.close()
    server.join()


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ({"ca": "ca"}, ("other", "other_key"), "certificate verify failed"),
        ({"ca": "ca", "server_name": "elsewhere"}, ("cert", "key"), "mismatch"),
        ({}, ("cert", "key"), "certificate verify failed"),
    ],
)
def test_tls_trusts_nobody_else(
    pems: dict[str, Path], ours: dict[str, str], theirs: tuple[str, str], why: str
) -> None:
    server = TlsServer(pems[theirs[0]], pems[theirs[1]])
    ours = {name: str(pems.get(value, value)) for name, value in ours.items()}
    outlet = StreamOutlet(options(server.address, **ours))
    with pytest.raises(OSError, match=why):
        outlet.open()
    outlet.close()
    server.join()
    assert server.data == b""


def test_an_end_that_tls_did_not_sign_confirms_nothing(pems: dict[str, Path]) -> None:
    """Anybody on the way can send a FIN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pems["cert"], pems["key"])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut() -> None:
            with context.wrap_socket(server.accept()[0], server_side=True) as connection:
                while sequence_of_last(connection.recv(1 << 16)) < 5:
                    pass

        thread = threading.Thread(target=cut)
        thread.start()
        outlet = StreamOutlet(options(address_of(server, "tls"), ca=str(pems["ca"])))
        outlet.open()
        assert outlet.send(lines(1, 5)) == 0
        with pytest.raises(OSError, match=r"EOF|reset"):
            keep_asking(outlet)
        outlet.close()
        thread.join()


def sequence_of_last(data: bytes) -> int:
    return numbers(data)[-1]


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
def test_files_of_tls_that_are_none(tmp_path: Path, pems: dict[str, Path], name: str) -> None:
    junk = tmp_path / "junk"
    junk.write_text("nothing")
    good = {"ca": pems["ca"], "certificate": pems["cert"], "key": pems["key"]}
    for bad in (junk, tmp_path / "missing"):
        files = {which: str(path) for which, path in {**good, name: bad}.items()}
        with pytest.raises(OSError, match=f"cannot read .*{bad}"):
            StreamOutlet(options("tls://127.0.0.1:1", **files))


# --- a receiver that is killed again and again -------------------------------------------

RECEIVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection = server.accept()[0]
    rest = b""
    while data := connection.recv(65536):
        *whole, rest = (rest + data).split(b"\\n")
        # Whole lines, of which this is the first place where they are safe.
        os.write(1, b"".join(line + b"\\n" for line in whole))
    connection.close()
    os.write(1, b"\\n")
"""


class Receiver:
    """Writes what it gets into a file, with an empty line after each connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self) -> None:
        with self._path.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", RECEIVER, str(self.port)], stdout=file
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        with self._path.open("rb+") as file:  # half a line is not received
            torn = self._last(file).rpartition(b"\n")[2]
            file.truncate(self.size - len(torn))
            file.seek(0, os.SEEK_END)
            file.write(b"\n")

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def ends_with(self, number: int) -> bool:
        with self._path.open("rb") as file:
            return b'"sequence":%d}' % number in self._last(file)

    def _last(self, file: IO[bytes]) -> bytes:
        file.seek(-min(self.size, 2000), os.SEEK_END)
        return file.read()

    def connections(self) -> list[list[int]]:
        content = self._path.read_bytes()
        return [numbers(part + b"\n") for part in re.split(rb"\n\n+", content.strip()) if part]


def test_a_receiver_that_is_killed_under_load_loses_nothing(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "received")
    with Delivery(tmp_path / "spool") as delivery:
        sink = replace(a_socket("siem", f"tcp://127.0.0.1:{receiver.port}"), spool=1 << 30)
        assert delivery.settle_on(sink) == []
        deadline = time.monotonic() + LOAD_S
        over = threading.Event()
        feeder = threading.Thread(target=feed, args=(delivery, over))
        feeder.start()
        while time.monotonic() < deadline:
            receiver.start()
            enough = receiver.size + random.randrange(200_000, 8_000_000)
            until(lambda enough=enough: receiver.size > enough, "it receives nothing")  # type: ignore[misc]
            receiver.kill()
        over.set()
        feeder.join()
        receiver.start()
        # Those before may all have arrived before it was killed: nobody would need to connect.
        last = delivery.lines(20, size=300)[-1]
        until(lambda: receiver.ends_with(last), "the last does not arrive")
        sink_progress = delivery.end()["sinks"]["siem"]
        receiver.kill()
    connections = receiver.connections()
    assert len(connections) > 2
    for numbers in connections:
        assert all(one < other for one, other in pairwise(numbers))
    got = unique(number for numbers in connections for number in numbers)
    assert sorted(got) == list(range(1, last + 1))
    assert got == sorted(got)
    assert sink_progress["dropped"] == 0
    assert sink_progress["delivered"] == last


def feed(delivery: Delivery, over: threading.Event) -> None:
    while not over.wait(0.005):
        delivery.lines(20, size=300)


# --- syslog ------------------------------------------------------------------------------


def test_a_message_is_what_rfc_5424_says(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        outlet = SyslogOutlet(options(f"unix://{tmp_path}/log"))
        outlet.open()
        time_ns = 1_700_000_000_123_456_789
        assert outlet.send([Line(document(7), 2, time_ns)]) == 1
        message = server.recv(1 << 16)
        outlet.close()
    host = socket.gethostname()
    head = f"<170>1 2023-11-14T22:13:20.123456Z {host} bpfsnoop {os.getppid()} bpfsnoop.call - "
    assert message.decode() == head + document(7).decode().rstrip("\n")


def test_a_line_longer_than_a_datagram_is_refused_whole(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        outlet = SyslogOutlet(options(address_of(server, "udp")))
        outlet.open()
        assert outlet.send([*lines(1, 1), *lines(2, 2, 66_000), *lines(3, 3)]) == 3
        assert outlet.refused == 1
        assert re.fullmatch(
            r"a line of 66\d\d\d bytes is longer than a datagram may be", outlet.problem
        )
        got = [server.recv(1 << 16) for _ in range(2)]
        outlet.close()
    assert [sequence(message.partition(b" - ")[2] + b"\n") for message in got] == [1, 3]


def test_nobody_at_the_other_end_of_udp_is_noticed() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = address_of(server, "udp")
    outlet = SyslogOutlet(options(address))
    outlet.open()
    with pytest.raises(OSError, match="refused"):
        keep_asking(outlet, lines(1, 3))
    outlet.close()


def test_a_line_that_is_refused_while_nobody_listens_is_counted_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        address = address_of(server, "udp")
    outlet = SyslogOutlet(options(address))
    batch = [*lines(1, 1, 66_000), *lines(2, 4)]
    outlet.open()
    with pytest.raises(OSError, match="refused"):
        keep_asking(outlet, batch[1:])
    outlet.close()
    outlet.open()
    before = outlet.refused
    failed = 0
    for _ in range(20):
        try:
            outlet.send(batch)
            before += 1
        except OSError:
            failed += 1
    outlet.close()
    assert failed
    assert outlet.refused == before
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        outlet.open()
        assert outlet.send(batch) == 4
        outlet.close()
    assert outlet.refused == before + 1


def test_where_a_stream_listens_lines_are_ended(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "log"))
        server.listen()
        outlet = SyslogOutlet(options(f"unix://{tmp_path}/log"))
        outlet.open()
        with closing(server.accept()[0]) as connection:
            outlet.send(lines(1, 3))
            outlet.close()
            messages = read_all(connection).splitlines(keepends=True)
    assert [sequence(message.partition(b" - ")[2]) for message in messages] == [1, 2, 3]


@given(st.binary(max_size=200), st.integers(0, 7), st.integers(0, 2**63))
def test_any_line_has_a_message(text: bytes, severity: int, time_ns: int) -> None:
    form = Form(21)
    message = form.counted(Line(text + b"\n", severity, time_ns))
    length, _, rest = message.partition(b" ")
    assert int(length) == len(rest)
    head = re.match(
        rb"<(\d+)>1 \d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]+ bpfsnoop \d+ [!-~]{1,32} - ",
        rest,
    )
    assert head
    assert int(head[1]) == 21 * 8 + severity
