# SPDX-License-Identifier: Apache-2.0
"""The delivery process as the daemon has it, and who receives from it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bpfsnoop.tracer.delivery.frames import (
    ACCEPTED,
    END,
    LINE,
    PROGRESS,
    REFUSED,
    SETTINGS,
    STATUS,
    Frame,
    FrameReader,
)
from bpfsnoop.tracer.delivery.settings import Settings, SinkSettings
from running import PATIENCE_S

Progress = Mapping[str, Any]

NO_TLS: Final = {"ca": "", "certificate": "", "key": "", "server_name": ""}
FILE: Final = {"rotate_size": 0, "rotate_every": 0, "keep": 3}
SECOND_NS: Final = 1_000_000_000


def until(what: Callable[[], bool], why: str) -> None:
    """:raises AssertionError: it never comes true."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def a_sink(
    name: str, kind: str, options: Mapping[str, Any], *, queue: int = 1 << 22, spool: int = 1 << 26
) -> SinkSettings:
    return SinkSettings(name, kind, queue, spool, options)


def a_file(name: str, path: Path, **options: int) -> SinkSettings:
    return a_sink(name, "file", {"path": str(path), **FILE, **options})


def a_socket(name: str, address: str, *, resend: int = 1 << 22, **options: Any) -> SinkSettings:
    return a_sink(name, "socket", {"address": address, "resend": resend, **NO_TLS, **options})


def a_syslog(name: str, address: str, *, resend: int = 1 << 22, **options: Any) -> SinkSettings:
    took = {"address": address, "resend": resend, "facility": "local5", **NO_TLS, **options}
    return a_sink(name, "syslog", took)


def document(number: int, size: int = 0) -> bytes:
    """Told from all others by its number, as ours are by boot id and sequence."""
    made = {
        "event": {"dataset": "bpfsnoop.call", "sequence": number},
        "host": {"boot": {"id": "a"}},
        "text": 'é\\" ' + "x" * size,
    }
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def sequence(line: bytes) -> int:
    """Of a line that :func:`document` made.

    :raises AssertionError: it is another.
    """
    number = int(json.loads(line)["event"]["sequence"])
    size = len(line) - len(document(number))
    assert line == document(number, size)
    return number


class Delivery:
    """The process, with some sinks. Used as a context, it ends in order."""

    def __init__(
        self,
        spool: Path,
        *arguments: str,
        stdout: int | None = None,
        path: str | None = None,
    ) -> None:
        self.spool = spool
        self.last = 0
        self.progress: Progress = {"done": 0, "sinks": {}}
        self._answers: list[Frame] = []
        self._news = threading.Condition()
        self._connection, theirs = socket.socketpair()
        argv = [sys.executable, "-P", "-m", "bpfsnoop.tracer.delivery", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                [*argv, *arguments],
                pass_fds=[theirs.fileno()],
                stdout=stdout,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path} if path else None,
            )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self.process.poll() is None:
            self.process.kill()
        self.end()

    # --- what the daemon says ------------------------------------------------------------

    def settle_on(
        self, *sinks: SinkSettings, bits: Mapping[str, int] | None = None, metrics: str = ""
    ) -> list[str]:
        """Why it does not want to, or nothing."""
        bits = bits or {sink.name: bit for bit, sink in enumerate(sinks)}
        settings = Settings(sinks, bits, str(self.spool), metrics)
        before = len(self._answers)
        self.send(Frame(SETTINGS, json.dumps(settings.to_json()).encode()))
        with self._news:
            answered = self._news.wait_for(lambda: len(self._answers) > before, PATIENCE_S)
        assert answered, "no answer"
        answer = self._answers[-1]
        return [] if answer.kind == ACCEPTED else list(json.loads(answer.payload))

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(map(bytes, frames)))

    def send_bytes(self, data: bytes) -> None:
        self._connection.sendall(data)

    def lines(self, count: int, *, sinks: int = 1, size: int = 0, severity: int = 6) -> list[int]:
        """So many more documents; their numbers."""
        numbers = range(self.last + 1, self.last + count + 1)
        frames = (
            Frame(LINE, document(number, size), number, sinks, severity, number * SECOND_NS)
            for number in numbers
        )
        self.send(*frames)
        self.last = numbers[-1]
        return list(numbers)

    def status(self, status: Mapping[str, Any]) -> None:
        self.send(Frame(STATUS, json.dumps(status).encode()))

    def until(self, what: Callable[[Progress], Any]) -> Progress:
        """The first progress of which that is true."""
        until(lambda: bool(what(self.progress)), f"it stays at {self.progress}")
        return self.progress

    def until_sink(self, name: str, what: Callable[[Progress], Any]) -> Progress:
        """The first progress of this sink of which that is true."""
        nothing = {"delivered": 0, "dropped": 0, "queued": 0, "spooled": 0, "up": 0, "problem": ""}
        progress = self.until(lambda progress: what(progress["sinks"].get(name, nothing)))
        return dict(progress["sinks"][name])

    def until_done(self) -> Progress:
        return self.until(lambda progress: progress["done"] == self.last)

    # --- how it ends ---------------------------------------------------------------------

    def end(self) -> Progress:
        """In order; the last progress."""
        try:
            self.send(Frame(END))
        except OSError:
            pass  # it has ended already
        return self._wait()

    def hang_up(self) -> Progress:
        """As a daemon does that is killed."""
        self._connection.shutdown(socket.SHUT_WR)
        return self._wait()

    def kill(self) -> Progress:
        self.process.kill()
        return self._wait()

    def _wait(self) -> Progress:
        status, said = self.wait()
        assert status in (0, -signal.SIGKILL), said
        assert not said
        return self.progress

    def wait(self) -> tuple[int, bytes]:
        """Its exit status and what it said."""
        _, said = self.process.communicate(timeout=PATIENCE_S)
        self._listener.join()
        self._connection.close()
        return self.process.returncode, said

    def _listen(self) -> None:
        reader = FrameReader()
        while data := self._received():
            for frame in reader.feed(data):
                with self._news:
                    if frame.kind == PROGRESS:
                        self.progress = json.loads(frame.payload)
                    else:
                        assert frame.kind in (ACCEPTED, REFUSED)
                        self._answers.append(frame)
                    self._news.notify_all()

    def _received(self) -> bytes:
        try:
            return self._connection.recv(1 << 16)
        except OSError:
            return b""

    # --- how it is -----------------------------------------------------------------------

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    @property
    def memory(self) -> int:
        """Bytes, the most that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10


def unique(numbers: Iterable[int]) -> list[int]:
    """Without those that came again, in the order in which each came first."""
    return list(dict.fromkeys(numbers))


def lines_of(path: Path) -> list[int]:
    """The numbers of documents in a file, each of whose lines is whole."""
    content = path.read_bytes()
    assert not content or content.endswith(b"\n")
    return list(map(sequence, content.splitlines(keepends=True)))


def certificates(directory: Path) -> dict[str, Path]:
    """An authority's and, signed by it, one of 127.0.0.1 and its key; one of nobody's and its."""
    made = {name: directory / f"{name}.pem" for name in ("ca", "cert", "key", "other", "other_key")}
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    ca_key = directory / "ca_key.pem"
    _openssl(f"{new} -subj /CN=authority -keyout {ca_key} -out {made['ca']}")
    _openssl(
        f"{new} -subj /CN=collector -addext subjectAltName=IP:127.0.0.1,DNS:collector"
        f" -addext basicConstraints=CA:FALSE -CA {made['ca']} -CAkey {ca_key}"
        f" -keyout {made['key']} -out {made['cert']}"
    )
    _openssl(f"{new} -subj /CN=other -keyout {made['other_key']} -out {made['other']}")
    return made


def _openssl(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)
