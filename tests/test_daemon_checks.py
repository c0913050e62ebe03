# SPDX-License-Identifier: Apache-2.0
"""What ``bpfsnoop doctor --config`` says of the daemon's configuration."""

import argparse
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from bpfsnoop.tracer.conditions import Status
from bpfsnoop.tracer.config import configured
from bpfsnoop.tracer.daemon.checks import daemon_checks
from bpfsnoop.tracer.daemon.doubts import doubts
from bpfsnoop.tracer.delivery.outlet import Line
from bpfsnoop.tracer.delivery.segment import OVERHEAD
from bpfsnoop.tracer.delivery.spool import Spool
from service import alerting_rules, user


def _said(tmp_path: Path, **changes: Any) -> dict[str, tuple[Status, str]]:
    config = tmp_path / "c.yaml"
    values = {"user": "", "state": str(tmp_path / "state"), "cache": "", **changes}
    config.write_text(yaml.safe_dump(values))
    options = configured(argparse.Namespace(config=str(config)), daemon=True)
    return {name: (each.status, each.found) for name, each in daemon_checks(options)}


def test_what_is_well_is_said_in_a_few_words(tmp_path: Path) -> None:
    said = _said(tmp_path, user=user(), rules=["default"])
    assert said["state"] == (Status.OK, f"{tmp_path}/state is not there, and will be made")
    assert said["rules"][0] is Status.OK
    assert int(said["rules"][1]) == alerting_rules()
    assert said["sink stdout"] == (Status.OK, "stdout")
    if user():
        assert said["user"] == (Status.OK, "nobody (65534), which can read bpfsnoop")


@pytest.mark.parametrize(
    ("sink", "status", "found"),
    [
        ({"type": "file", "path": "/nowhere/x.json"}, Status.BAD, "/nowhere is not a directory"),
        ({"type": "file", "path": "/proc/x.json"}, Status.BAD,
         "cannot write to /proc, which rotation needs"),
        ({"type": "socket", "address": "tls://127.0.0.1:1", "ca": "/nope.pem"}, Status.BAD,
         "cannot read /nope.pem: No such file or directory"),
        ({"type": "socket", "address": "tcp://127.0.0.1:1"}, Status.WARNING, "Connection refused"),
        ({"type": "socket", "address": "unix:///nowhere/x"}, Status.WARNING,
         "No such file or directory"),
    ],
)  # fmt: skip
def test_a_sink_that_does_not_take_lines(
    tmp_path: Path, sink: dict[str, str], status: Status, found: str
) -> None:
    if user():  # root without capabilities may write where root may
        said = _said(tmp_path, user=user(), sinks=[{"name": "x", **sink}])
        assert said["sink x"] == (status, found)


def test_a_sink_that_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        said = _said(tmp_path, sinks=[{"type": "socket", "address": address}])
    assert said["sink socket"] == (Status.OK, f"socket {address}")


def test_what_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o777)
    (tmp_path / "state").chmod(0o777)
    said = _said(tmp_path, user="no-such-user", rules=["/nowhere.yml"])
    assert said["user"][0] is Status.BAD
    assert said["user"][1].startswith("there is no user no-such-user to go on as")
    assert said["state"] == (Status.BAD, f"{tmp_path}/state: it is not ours alone")
    assert said["sink stdout"][0] is Status.BAD
    assert said["sink stdout"][1].startswith("there is no user no-such-user to go on as")
    assert said["rules"][0] is Status.BAD
    assert "/nowhere.yml: cannot read it" in said["rules"][1]


def test_a_state_directory_that_the_daemon_refuses(tmp_path: Path) -> None:
    """The doctor says what the daemon would."""
    (tmp_path / "file").touch()
    said = _said(tmp_path, state=str(tmp_path / "file"))
    assert said["state"] == (Status.BAD, f"{tmp_path}/file: Not a directory")
    if user():
        (tmp_path / "used").mkdir(mode=0o700)
        (tmp_path / "used" / "theirs").touch()
        said = _said(tmp_path, user=user(), state=str(tmp_path / "used"))
        assert said["state"] == (
            Status.BAD,
            f"{tmp_path}/used: other things are in it, so it is not given to 'user'",
        )


def test_where_metrics_cannot_be_served(tmp_path: Path) -> None:
    said = _said(tmp_path, metrics="unix:///nowhere/metrics")
    assert said["metrics"] == (Status.BAD, "/nowhere is not a directory")
    said = _said(tmp_path, metrics=f"unix://{tmp_path}/metrics")
    assert said["metrics"] == (Status.OK, f"at unix://{tmp_path}/metrics")
    assert not (tmp_path / "metrics").exists()
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        said = _said(tmp_path, metrics=where)
    assert said["metrics"] == (
        Status.WARNING, f"cannot listen at {where}: Address already in use",
    )  # fmt: skip
    assert _said(tmp_path, metrics=where)["metrics"] == (Status.OK, f"at {where}")


def test_what_is_hardly_meant(tmp_path: Path) -> None:
    sinks = [{"type": "stdout", "rules": ["bpf_prob_write_user*", "bpf_*"]}, {"type": "syslog"}]
    for name, lines in (("old", 3), ("empty", 0), ("stdout", 2)):
        spool = Spool(str(tmp_path / "state/spool" / name), 1 << 20)
        spool.append([Line(b"{}\n", 6, 0)] * lines)
        spool.close()
    (tmp_path / "state").chmod(0o700)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"state": str(tmp_path / "state"), "cache": "",
                                      "sinks": sinks, "rules": ["default"]}))  # fmt: skip
    options = configured(argparse.Namespace(config=str(config)), daemon=True)
    rules = ["bpf_probe_write_user", "tokens"]
    size = 3 * (OVERHEAD + 3)
    assert list(doubts(options, rules)) == [
        "sink stdout: there is no rule 'bpf_prob_write_user*'; did you mean bpf_probe_write_user?",
        f"{size} bytes wait in {tmp_path}/state/spool/old for a sink of that name, and there is"
        " none: call one so, or remove the directory",
    ]


def test_spools_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    said = _said(tmp_path, sinks=[{"type": "stdout", "spool": "1024G"}])
    status, found = said["state"]
    assert status is Status.WARNING
    assert found.endswith("MB left, and spools may take 1048576")
