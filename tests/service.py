# SPDX-License-Identifier: Apache-2.0
"""The daemon as a service manager runs it, with the tests in the manager's place."""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

from running import (
    NOBODY,
    PATIENCE_S,
    ROOT,
    Document,
    Finished,
    Running,
    command_line,
    validated,
)

WATCHDOG_S = 2


@cache
def user() -> str:
    """Whom the daemon may become: one who can read it where it lies, or else who we are."""
    program = "import bpfsnoop.tracer.cli, bpfsnoop.tracer.delivery.process"
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", program], user=NOBODY, group=NOBODY, extra_groups=[],
            stderr=subprocess.DEVNULL, cwd="/", check=True,
        )  # fmt: skip
    except (PermissionError, subprocess.CalledProcessError):
        return ""
    return "nobody"


def directory() -> Path:
    """One that the daemon's user can write to, whoever that is; it goes with us."""
    path = Path(tempfile.mkdtemp(prefix="bpfsnoop-daemon-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    if user():
        os.chown(path, NOBODY, NOBODY)
    path.chmod(0o755)
    return path


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives, once that is something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def alerting_rules() -> int:
    """How many there are in the pack, by their names."""
    names = (path.stem for path in (ROOT / "rules/pack").glob("bpf_*.yml"))
    return sum(not name.startswith("bpf_block_") for name in names)


class Daemon(Running):
    """``bpfsnoop daemon`` while it runs.

    :param home: see :func:`directory`; its state and file are there.
    :param changes: keys of its configuration.
    """

    def __init__(self, home: Path, under: Sequence[str] = (), **changes: Any) -> None:
        self.home = home
        self.file = home / "events.json"
        self.config = home / "config.yaml"
        self.configure(**changes)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = home / "notify"
        path.unlink(missing_ok=True)
        self._manager.bind(str(path))
        path.chmod(0o777)
        self._manager.settimeout(PATIENCE_S)
        self.told: list[dict[str, str]] = []
        """What it told the service manager."""
        watchdog = str(WATCHDOG_S * 1_000_000)
        self._out, self._err = (home / "out").open("wb"), (home / "err").open("wb")
        self.process = subprocess.Popen(
            command_line("daemon", "-c", self.config, under=under),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=os.environ | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": watchdog},
            cwd="/",
        )

    def configure(self, **changes: Any) -> None:
        """Writes its configuration; :meth:`hang_up` has it read."""
        values = {
            "state": str(self.home / "state"), "user": user(), "quiet": True,
            "sinks": [{"type": "file", "path": str(self.file)}], "aggregate": 0, "rate_limit": 0,
            **changes,
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(values))

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)
        self._manager.close()
        self._out.close()
        self._err.close()

    def ready(self) -> Self:
        """Waits until it says so."""
        self.until_told("READY", "1")
        return self

    def until_told(self, key: str, value: str = "") -> dict[str, str]:
        """The next message with that."""
        while True:
            try:
                message = self._manager.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"waited in vain for {key}: {self.said()}") from None
            told = dict(line.split("=", 1) for line in message.splitlines())
            self.told.append(told)
            if key in told and (not value or told[key] == value):
                return told

    def hang_up(self) -> Document:
        """Reloads; the document that says how that went."""
        before = len(self.reloads())
        self.process.send_signal(signal.SIGHUP)
        self.until_told("RELOADING", "1")
        self.until_told("READY", "1")
        done: Document = until(lambda: self.reloads()[before:], "the document of a reload")[0]
        return done

    def reloads(self) -> list[Document]:
        """Those that are over."""
        found = self.documents("daemon_reload")
        return [each for each in found if each["event"]["outcome"] != "unknown"]

    def stop(self, number: int = signal.SIGTERM) -> Finished:
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        return Finished(self.process.returncode, b"", self.said())

    def said(self) -> str:
        """On standard error, so far."""
        return (self.home / "err").read_text()

    def delivery_pid(self) -> int:
        """Of its child; 0 if there is none."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def documents(self, *actions: str) -> list[Document]:
        """In its file so far, all of them or those with these actions; each is valid."""
        return documents_in(self.file, *actions)


def documents_in(path: Path, *actions: str) -> list[Document]:
    """Of a file of JSON lines that may still be written to."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    found = [json.loads(line) for line in lines]
    return [
        validated(document)
        for document in found
        if not actions or document["event"]["action"] in actions
    ]


def once(documents: Sequence[Document]) -> list[Document]:
    """Without those that came twice, as a SIEM would tell them."""
    keys = {
        (document["host"]["boot"]["id"], document["event"]["sequence"]): document
        for document in documents
    }
    return list(keys.values())
