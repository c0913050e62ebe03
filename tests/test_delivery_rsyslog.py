# SPDX-License-Identifier: Apache-2.0
"""rsyslog receives, and has in its JSON what was sent, event by event."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delivering import SECOND_NS, Delivery, a_syslog, certificates, document, until
from running import PATIENCE_S

RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")

COMMON = """
global(workDirectory="{place}" maxMessageSize="256k" {tls})
template(name="document" type="list" option.jsonf="on") {{
    property(outname="facility" name="syslogfacility-text" format="jsonf")
    property(outname="severity" name="syslogseverity" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="program" name="app-name" format="jsonf")
    property(outname="id" name="msgid" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
}}
"""
ACTION = """
action(type="omfile" file="{place}/received" template="document" asyncWriting="off")
"""
INPUTS = {
    "tcp": 'module(load="imtcp") input(type="imtcp" address="127.0.0.1" port="{port}")',
    "tls": 'module(load="imtcp" StreamDriver.Name="{driver}" StreamDriver.Mode="1"'
    ' StreamDriver.AuthMode="anon") input(type="imtcp" address="127.0.0.1" port="{port}")',
    "udp": 'module(load="imudp") input(type="imudp" address="127.0.0.1" port="{port}")',
    "unix": 'module(load="imuxsock" SysSock.Use="off")'
    ' input(type="imuxsock" Socket="{place}/log" RateLimit.Interval="0" UseSpecialParser="off"'
    ' parseHostname="on")',
}
TLS = (
    'defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{ca}"'
    ' defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}"'
)


@contextmanager
def rsyslog(place: Path, scheme: str, driver: str) -> Iterator[dict[str, Any]]:
    """The daemon in this directory; the options of a sink that sends to it."""
    assert RSYSLOGD, "rsyslog is not installed: make setup-test"
    sort = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, sort) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pems = certificates(place) if scheme == "tls" else {}
    names = {"place": place, "port": port, "driver": driver, **pems}
    tls = TLS.format(**names) if pems else ""
    conf = place / "conf"
    conf.write_text(
        COMMON.format(tls=tls, **names) + INPUTS[scheme].format(**names) + ACTION.format(**names)
    )
    command = [RSYSLOGD, "-n", "-f", str(conf), "-i", str(place / "pid")]
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        until(lambda: _listens(place, scheme, port), (place / "said").read_text())
        where = f"unix://{place}/log" if scheme == "unix" else f"{scheme}://127.0.0.1:{port}"
        yield {"address": where, **({"ca": str(pems["ca"])} if pems else {})}
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _listens(place: Path, scheme: str, port: int) -> bool:
    if scheme == "unix":
        return (place / "log").exists()
    tables = {"udp": "/proc/net/udp"}.get(scheme, "/proc/net/tcp")
    return f"0100007F:{port:04X}" in Path(tables).read_text()


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [("tcp", ""), ("tls", "ossl"), ("tls", "gtls"), ("udp", ""), ("unix", "")],
)
def test_rsyslog_has_what_was_sent(tmp_path: Path, scheme: str, driver: str) -> None:
    count, size = 2000, 300
    with rsyslog(tmp_path, scheme, driver) as options, Delivery(tmp_path / "spool") as delivery:
        assert delivery.settle_on(a_syslog("siem", **options)) == []
        for first in range(count // 100):
            delivery.lines(100, size=size, severity=first % 8)
            if scheme == "udp":  # its reader must keep up
                until(lambda: len(_received(tmp_path)) == delivery.last, "some are lost")
        until(lambda: len(_received(tmp_path)) >= count, "some do not arrive")
        progress = delivery.end()["sinks"]["siem"]
    if driver == "gtls":
        # It ends without signing that, so it may have been somebody on the way: all comes again.
        assert (progress["delivered"], progress["spooled"] > count * size) == (0, True)
    else:
        assert (progress["delivered"], progress["spooled"]) == (count, 0)
    got = [json.loads(line) for line in _received(tmp_path)]
    if scheme == "unix":  # of local senders it believes the kernel's time, not theirs
        got = [{**event, "time": _expected(at, 0)["time"]} for at, event in enumerate(got, 1)]
    assert [_expected(number, size) for number in range(1, count + 1)] == got


def _received(place: Path) -> list[bytes]:
    path = place / "received"
    return path.read_bytes().splitlines() if path.exists() else []


def _expected(number: int, size: int) -> dict[str, Any]:
    minutes, seconds = divmod(number * SECOND_NS // SECOND_NS, 60)
    return {
        "facility": "local5",
        "severity": str((number - 1) // 100 % 8),
        "time": f"1970-01-01T00:{minutes:02}:{seconds:02}.000000Z",
        "host": socket.gethostname(),
        "program": "bpfsnoop",
        "id": "bpfsnoop.call",
        "message": document(number, size).decode().rstrip("\n"),
    }
