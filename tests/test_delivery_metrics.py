# SPDX-License-Identifier: Apache-2.0
"""Metrics and health over HTTP: read by the official parsers, and asked for by who means harm."""

import http.client
import json
import os
import re
import resource
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from bpfsnoop.events.errors import OutputError
from bpfsnoop.tracer.delivery import local, web
from bpfsnoop.tracer.delivery.health import STALE_S, Snapshot
from bpfsnoop.tracer.delivery.metrics import FAMILIES, serve
from bpfsnoop.tracer.delivery.web import CONNECTIONS_MAX, HEAD_MAX, Page, Server, answer
from delivering import Delivery, a_file, until
from running import ROOT

Serve = Callable[[web.Pages], tuple[str, int]]

prometheus: Callable[[str], Iterable[Any]] = parser.text_string_to_metric_families
openmetrics: Callable[[str], Iterable[Any]] = openmetrics_parser.text_string_to_metric_families

SINKS = {
    "siem": {
        "delivered": 12, "dropped": 3, "queued": 4096, "spooled": 1 << 20, "up": False,
        "problem": "Connection refused",
    },
    "file": {
        "delivered": 15, "dropped": 0, "queued": 0, "spooled": 0, "up": True, "problem": "",
    },
}  # fmt: skip
STATUS = {
    "since_ns": 1_700_000_000_250_000_000,
    "time_ns": 1_700_000_100_000_000_000,
    "ready": True,
    "events": {"prog_load": 7, "map_create": 2},
    "folded": 900,
    "alerts": {'Rootkit "x"\\\nloaded, größer': 1},
    "rules": 31,
    "rule_seconds": 0.125,
    "drops": {"kernel": 5, "incomplete": 0, "missed_runs": 1, "delivery": 0},
    "rings": {"control": 0.5, "data": 0.0},
    "rss": 50_000_000,
}
EXPECTED = {
    ("bpfsnoop_events_total", "prog_load"): 7,
    ("bpfsnoop_events_total", "map_create"): 2,
    ("bpfsnoop_folded_total", ""): 900,
    ("bpfsnoop_alerts_total", 'Rootkit "x"\\\nloaded, größer'): 1,
    ("bpfsnoop_rules", ""): 31,
    ("bpfsnoop_rule_seconds_total", ""): 0.125,
    ("bpfsnoop_drops_total", "kernel"): 5,
    ("bpfsnoop_drops_total", "incomplete"): 0,
    ("bpfsnoop_drops_total", "missed_runs"): 1,
    ("bpfsnoop_drops_total", "delivery"): 0,
    ("bpfsnoop_ring_fill_ratio", "control"): 0.5,
    ("bpfsnoop_ring_fill_ratio", "data"): 0,
    ("bpfsnoop_sink_delivered_total", "siem"): 12,
    ("bpfsnoop_sink_delivered_total", "file"): 15,
    ("bpfsnoop_sink_dropped_total", "siem"): 3,
    ("bpfsnoop_sink_dropped_total", "file"): 0,
    ("bpfsnoop_sink_queue_bytes", "siem"): 4096,
    ("bpfsnoop_sink_queue_bytes", "file"): 0,
    ("bpfsnoop_sink_spool_bytes", "siem"): 1 << 20,
    ("bpfsnoop_sink_spool_bytes", "file"): 0,
    ("bpfsnoop_sink_up", "siem"): 0,
    ("bpfsnoop_sink_up", "file"): 1,
    ("bpfsnoop_resident_memory_bytes", "daemon"): 50_000_000,
    ("bpfsnoop_start_time_seconds", ""): 1_700_000_000.25,
    ("bpfsnoop_status_age_seconds", ""): 0.5,
    ("bpfsnoop_ready", ""): 1,
    ("bpfsnoop_build_info", metadata.version("bpfsnoop")): 1,
}


def snapshot(
    status: Mapping[str, Any] = STATUS,
    age_s: float = 0.5,
    sinks: Mapping[str, Mapping[str, Any]] = SINKS,
) -> Snapshot:
    return {"status": status, "age_s": age_s, "sinks": sinks}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def connection(where: str) -> http.client.HTTPConnection:
    if where.startswith("unix://"):
        return UnixConnection(where.removeprefix("unix://"))
    host, _, port = where.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=30)


def get(where: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    with closing(connection(where)) as asking:
        asking.request(method, path, headers=headers)
        response = asking.getresponse()
        return response.status, response.headers.get_content_type(), response.read().decode()


def free(host: str) -> str:
    """Where nobody listens."""
    family, bracketed = (socket.AF_INET6, f"[{host}]") if ":" in host else (socket.AF_INET, host)
    with socket.create_server((host, 0), family=family) as probe:
        return f"{bracketed}:{probe.getsockname()[1]}"


@pytest.fixture(params=["127.0.0.1", "::1", "unix"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "unix":
        return f"unix://{tmp_path}/metrics"
    try:
        return free(request.param)
    except OSError as error:
        pytest.skip(f"no {request.param} here: {error}")


@pytest.fixture
def served() -> Iterator[Serve]:
    """Serves pages, and says where."""
    servers = []

    def start(pages: web.Pages) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        address: tuple[str, int] = listener.getsockname()
        servers.append(Server(listener, pages))
        return address

    yield start
    for server in servers:
        server.close()


def hello(path: str, accept: str) -> Page | None:
    return Page(HTTPStatus.OK, "text/plain", b"hello") if path == "/" else None


def talk(address: tuple[str, int], said: bytes) -> bytes:
    """All that is answered, until the other side ends it."""
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(said)
        return until_end(client)


def until_end(client: socket.socket) -> bytes:
    answered = b""
    with suppress(ConnectionError):
        while data := client.recv(1 << 16):
            answered += data
    return answered


def held() -> int:
    """Descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task"))


def comes_down_to(count: int) -> None:
    """What ends shows in /proc a little later."""
    deadline = time.monotonic() + 30
    while held() > count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Numbers ------------------------------------------------------------------------------


def values(families: Iterable[Any]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_are_what_the_snapshot_says(where: str) -> None:
    with closing(serve(where, snapshot)):
        status, content_type, body = get(where, "/metrics")
    assert (status, content_type) == (200, "text/plain")
    found = values(prometheus(body))
    assert found.pop(("bpfsnoop_resident_memory_bytes", "delivery")) > 1 << 20
    assert found == EXPECTED


def test_who_asks_for_openmetrics_gets_it(where: str) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    with closing(serve(where, snapshot)):
        _, content_type, body = get(where, "/metrics", Accept=accept)
    assert content_type == "application/openmetrics-text"
    found = values(openmetrics(body))
    assert found.pop(("bpfsnoop_resident_memory_bytes", "delivery")) > 1 << 20
    assert found == EXPECTED


def test_each_scrape_is_of_its_moment(where: str) -> None:
    ages = iter(range(1, 100))
    with closing(serve(where, lambda: snapshot(age_s=next(ages)))):
        found = [values(prometheus(get(where, "/metrics")[2])) for _ in range(3)]
    assert [them["bpfsnoop_status_age_seconds", ""] for them in found] == [1, 2, 3]


def test_before_the_daemon_said_anything_there_are_the_sinks() -> None:
    where = free("127.0.0.1")
    with closing(serve(where, lambda: snapshot(status={}))):
        found = values(prometheus(get(where, "/metrics")[2]))
    assert found["bpfsnoop_sink_delivered_total", "siem"] == 12
    assert not [name for name, _ in found if name in {"bpfsnoop_events_total", "bpfsnoop_ready"}]


def test_a_name_that_is_no_text_does_not_hide_the_others() -> None:
    where = free("127.0.0.1")
    status = STATUS | {"alerts": {"\ud800": 1, "other": 2}}
    with closing(serve(where, lambda: snapshot(status=status))):
        found = values(prometheus(get(where, "/metrics")[2]))
    assert found["bpfsnoop_alerts_total", "?"] == 1
    assert found["bpfsnoop_alerts_total", "other"] == 2


def test_the_documentation_has_every_metric_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(bpfsnoop_\w+)` \| (\w+) \| (?:`(\w+)`)? *\|",
        (ROOT / "docs" / "metrics.md").read_text(),
        re.MULTILINE,
    )
    assert rows == [(family.name, family.kind, family.label) for family in FAMILIES]


def test_the_rules_for_prometheus_are_about_metrics_that_there_are() -> None:
    groups = yaml.safe_load((ROOT / "docs" / "siem" / "prometheus.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    named = {name for rule in rules for name in re.findall(r"bpfsnoop_\w+", rule["expr"])}
    assert named
    assert named <= {family.name for family in FAMILIES}
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys()
        labels = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        known = {f.label for f in FAMILIES if f.name in rule["expr"]} | {"instance"}
        assert labels <= known, rule["alert"]


# --- The delivery process -----------------------------------------------------------------


def test_the_delivery_process_serves_what_it_and_the_daemon_know(tmp_path: Path) -> None:
    first, second = f"unix://{tmp_path}/metrics", free("127.0.0.1")
    with Delivery(tmp_path / "spool") as delivery:
        out = a_file("out", tmp_path / "out.json")
        assert not delivery.settle_on(out, metrics=first)
        assert get(first, "/ready")[0] == 503
        delivery.status(STATUS)
        delivery.lines(5)
        delivery.until_sink("out", lambda sink: sink["delivered"] == 5)
        until(lambda: get(first, "/ready")[0] == 200, "it does not become ready")
        found = values(prometheus(get(first, "/metrics")[2]))
        assert found["bpfsnoop_sink_delivered_total", "out"] == 5
        assert found["bpfsnoop_events_total", "prog_load"] == 7
        assert 0 <= found["bpfsnoop_status_age_seconds", ""] < STALE_S

        (refusal,) = delivery.settle_on(out, metrics="192.0.2.1:9464")
        assert "loopback" in refusal
        assert get(first, "/ready")[0] == 200
        assert not delivery.settle_on(out, metrics=second)
        assert get(second, "/ready")[0] == 200
        assert not (tmp_path / "metrics").exists()


# --- Health -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "state", "health", "ready"),
    [
        (snapshot(sinks={"file": SINKS["file"]}), "ok", 200, 200),
        (snapshot(), "degraded", 200, 200),
        (snapshot(status=STATUS | {"ready": False}), "not ready", 200, 503),
        (snapshot(status={}, age_s=STALE_S + 1), "starting", 200, 503),
        (snapshot(age_s=STALE_S + 1), "stale", 503, 503),
    ],
)
def test_health_is_for_who_restarts_and_ready_for_who_waits(
    now: Snapshot, state: str, health: int, ready: int
) -> None:
    where = free("127.0.0.1")
    with closing(serve(where, lambda: now)):
        for path, expected in (("/health", health), ("/ready", ready)):
            status, content_type, body = get(where, path)
            assert (status, content_type) == (expected, "application/json")
            assert json.loads(body)["state"] == state


def test_health_says_which_sinks_are_away_and_why(where: str) -> None:
    with closing(serve(where, snapshot)):
        _, _, body = get(where, "/health")
    assert json.loads(body) == {
        "state": "degraded",
        "status_age_seconds": 0.5,
        "sinks": {"siem": "Connection refused"},
    }


# --- HTTP ---------------------------------------------------------------------------------


def test_nothing_else_is_there(where: str) -> None:
    with closing(serve(where, snapshot)):
        assert get(where, "/")[0] == 404
        assert get(where, "/metrics/../../etc/passwd")[0] == 404
        assert get(where, "/metrics?name[]=x")[0] == 200
        assert get(where, "/metrics", "POST")[0] == 501
        assert get(where, "/metrics", "HEAD") == (200, "text/plain", "")


def test_a_mistake_of_ours_is_an_answer_too() -> None:
    where = free("127.0.0.1")
    moments = iter([snapshot(status={"rss": "much"}), snapshot()])
    with closing(serve(where, lambda: next(moments))):
        assert get(where, "/metrics")[0] == 500
        assert get(where, "/metrics")[0] == 200


@given(st.binary(max_size=400) | st.builds(lambda head: b"GET / " + head, st.binary(max_size=200)))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    said = answer(head, hello)
    assert said in {b"", b"hello"} or said.startswith(b"HTTP/1.1 ") or b"<html" in said


def test_a_request_may_come_in_pieces(served: Serve) -> None:
    address = served(hello)
    with socket.create_connection(address, timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (b"GET ", b"/ HTTP/1.1\r\nHost: x\r", b"\n\r", b"\n"):
            client.sendall(piece)
        assert until_end(client).endswith(b"\r\n\r\nhello")


def test_a_request_without_end_is_refused(
    served: Serve,
) -> None:
    address = served(hello)
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX
    answered = talk(address, endless)
    assert answered.startswith(b"HTTP/1.1 431 ") or not answered  # as the end was unread
    assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")


def test_who_says_nothing_is_left_in_time_and_holds_up_nobody(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 2.0)
    address = served(hello)
    with socket.create_connection(address, timeout=30) as slow:
        slow.sendall(b"GET / HT")
        assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")
        assert until_end(slow) == b""


def test_who_does_not_read_is_left_in_time_and_holds_up_nobody(
    served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 2.0)
    large = Page(HTTPStatus.OK, "text/plain", b"x" * (1 << 26))
    address = served(lambda path, accept: large if path == "/large" else hello(path, accept))
    with socket.create_connection(address, timeout=30) as slow:
        slow.sendall(b"GET /large HTTP/1.0\r\n\r\n")
        assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")
        comes_down_to(held() - 1)
        assert 0 < len(until_end(slow)) < 1 << 26


def test_many_who_say_nothing_keep_nobody_out(
    served: Serve,
) -> None:
    address = served(hello)
    before = held()
    idle = [socket.create_connection(address, timeout=30) for _ in range(200)]
    try:
        assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")
        assert held() - before <= 200 + CONNECTIONS_MAX
        assert until_end(idle[0]) == b""  # the oldest made room
    finally:
        for client in idle:
            client.close()
    assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")


def test_two_hundred_at_once_are_answered_or_sent_away(
    served: Serve,
) -> None:
    address = served(hello)
    answers: list[bytes] = []

    def ask() -> None:
        with suppress(ConnectionError):
            answers.append(talk(address, b"GET / HTTP/1.0\r\n\r\n"))

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(said.endswith(b"hello") for said in answers) >= CONNECTIONS_MAX
    assert all(said.endswith(b"hello") or not said for said in answers)
    assert talk(address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"hello")


def test_without_a_descriptor_it_waits(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PAUSE_S", 0.05)
    address = served(hello)
    before = held()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(address, timeout=30) as first:
        assert until_answered(first)
    comes_down_to(before)  # or a descriptor below that of the client would become free
    with socket.socket() as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            client.connect(address)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.settimeout(30)
        assert until_end(client).endswith(b"hello")


def until_answered(client: socket.socket) -> bool:
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return until_end(client).endswith(b"hello")


def test_closing_leaves_nothing(where: str) -> None:
    before = held()
    for _ in range(20):
        with closing(serve(where, snapshot)), closing(connection(where)) as idle:
            idle.connect()
            assert get(where, "/ready")[0] == 200
    comes_down_to(before)
    assert not Path(where.removeprefix("unix://")).exists()


# --- Where --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("0.0.0.0:9464", "must be a loopback address"),
        ("[::]:9464", "must be a loopback address"),
        ("192.0.2.1:9464", "must be a loopback address"),
        ("example.org:9464", "must be a loopback address"),
        ("udp://127.0.0.1:9464", "must be a loopback address"),
        ("127.0.0.1", "not an address"),
        ("127.0.0.1:http", "not an address"),
        ("127.0.0.1:70000", "not an address"),
        ("unix://relative/path", "not an address"),
        ("unix:///no/such/directory/socket", "No such file or directory"),
        ("unix:///" + "x" * 200, "path too long"),
        ("", "not an address"),
    ],
)
def test_where_it_cannot_be_served_is_said(where: str, sentence: str) -> None:
    with pytest.raises(OutputError, match=re.escape(sentence)):
        serve(where, snapshot)


def test_localhost_is_a_loopback_address() -> None:
    port = free("127.0.0.1").rpartition(":")[2]
    with closing(serve(f"localhost:{port}", snapshot)):
        assert get(f"127.0.0.1:{port}", "/ready")[0] == 200


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OutputError, match="Address already in use"):
            serve(f"127.0.0.1:{port}", snapshot)


def test_a_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    mask = os.umask(0)
    try:
        with closing(serve(f"unix://{path}", snapshot)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(mask)


def test_what_a_dead_process_left_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    where = f"unix://{path}"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with closing(serve(where, snapshot)):
        assert get(where, "/ready")[0] == 200
        with pytest.raises(OutputError, match="in use"):
            serve(where, snapshot)
        assert get(where, "/ready")[0] == 200
    path.write_text("precious")
    with pytest.raises(OutputError, match="not ours"):
        serve(where, snapshot)
    assert path.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to leave a socket of somebody else's")
def test_what_somebody_else_left_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
    os.chown(path, 65534, 65534)
    with pytest.raises(OutputError, match="not ours"):
        local.listen(f"unix://{path}")
    assert path.exists()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(OutputError, match="prometheus-client"):
        serve("127.0.0.1:9464", snapshot)
