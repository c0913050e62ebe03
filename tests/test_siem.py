# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/siem.md that can be tried here."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bpfsnoop.tracer.delivery.settings import SinkSettings
from delivering import Delivery, a_syslog, certificates, document, until
from running import PATIENCE_S, ROOT

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
RECIPE = ROOT / "docs/siem/rsyslog.conf"
COUNT, SIZE = 300, 20_000


@contextmanager
def log_host(place: Path, pems: dict[str, Path]) -> Iterator[str]:
    """rsyslog with the recipe, but for its paths and port; its address."""
    assert RSYSLOGD, "rsyslog is not installed: make setup-test"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = RECIPE.read_text()
    for ours, here in (
        ("/etc/rsyslog.d/bpfsnoop/ca.pem", str(pems["ca"])),
        ("/etc/rsyslog.d/bpfsnoop/cert.pem", str(pems["cert"])),
        ("/etc/rsyslog.d/bpfsnoop/key.pem", str(pems["key"])),
        ("/var/log/bpfsnoop-hosts", str(place / "hosts")),
        ('port="6514"', f'address="127.0.0.1" port="{port}"'),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, here)
    (place / "conf").write_text(f'global(workDirectory="{place}")\n{text}')
    command = [RSYSLOGD, "-n", "-f", str(place / "conf"), "-i", str(place / "pid")]
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        listening = f"0100007F:{port:04X} 00000000:0000 0A"
        until(lambda: listening in Path("/proc/net/tcp").read_text(), (place / "said").read_text())
        yield f"tls://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _received(place: Path) -> bytes:
    path = place / "hosts" / f"{socket.gethostname()}.json"
    return path.read_bytes() if path.exists() else b""


def test_rsyslog_writes_the_lines_that_were_sent(tmp_path: Path) -> None:
    """Large ones among them, as those of programs are."""
    pems = certificates(tmp_path)
    expected = b"".join(document(number, SIZE) for number in range(1, COUNT + 1))
    with log_host(tmp_path, pems) as address, Delivery(tmp_path / "spool") as delivery:
        assert delivery.settle_on(_to(address, pems, "cert")) == []
        delivery.lines(COUNT, size=SIZE)
        until(lambda: len(_received(tmp_path)) >= len(expected), "some do not arrive")
        assert delivery.end()["sinks"]["siem"]["delivered"] == COUNT
    assert _received(tmp_path) == expected


@pytest.mark.parametrize("certificate", ["", "other"])
def test_rsyslog_takes_nothing_from_strangers(tmp_path: Path, certificate: str) -> None:
    pems = certificates(tmp_path)
    with log_host(tmp_path, pems) as address, Delivery(tmp_path / "spool") as delivery:
        assert delivery.settle_on(_to(address, pems, certificate)) == []
        delivery.lines(3)
        delivery.until_sink("siem", lambda sink: sink["problem"])
        assert delivery.end()["sinks"]["siem"]["delivered"] == 0
    assert _received(tmp_path) == b""


def _to(address: str, pems: dict[str, Path], certificate: str) -> SinkSettings:
    """:param certificate: ours, by its name; empty for none."""
    key = {"cert": "key", "other": "other_key"}.get(certificate, "")
    return a_syslog(
        "siem", address, ca=str(pems["ca"]),
        certificate=str(pems[certificate]) if certificate else "",
        key=str(pems[key]) if key else "",
    )  # fmt: skip
