# SPDX-License-Identifier: Apache-2.0
"""bpfsnoop and the stimulus as processes of their own, the way a user runs them.

Nothing here sleeps: a tracer has begun when it says so, and a stimulus waits until
it is told to go on.
"""

import atexit
import json
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from jsonschema.exceptions import best_match

import bpfsnoop
import stimulus
from documents import VALIDATOR
from stimulus import MadeCall

ROOT = Path(str(bpfsnoop.__file__)).parent
BPFSNOOP = str(Path(sys.executable).with_name("bpfsnoop"))
STIMULUS = (sys.executable, str(stimulus.__file__))
COMM = Path(sys.executable).name[: stimulus.COMM_LEN - 1]
"""The name that the kernel gives to a stimulus."""

PROBE = os.environ.get("BPFSNOOP_PROBE", "auto")
"""What the live tests have bpfsnoop attach to, unless they are about that."""

STARTED = "tracing bpf(2) of"
NOBODY = 65534

PATIENCE_S = int(os.environ.get("BPFSNOOP_PATIENCE", "60"))
"""Nothing takes this long: it hangs. Emulated machines are slower."""

Document = dict[str, Any]

Argument = str | bytes | Path


@cache
def code_cache() -> str:
    """A directory for compiled code that all tracers of this run share, gone with us."""
    directory = tempfile.mkdtemp(prefix="bpfsnoop-tests-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def command_line(*args: Argument, under: Sequence[str] = ()) -> list[Argument]:
    """bpfsnoop with these arguments, and with our cache and probe unless they name some."""
    kept: list[Argument] = ["--set", f"cache={code_cache()}", "--set", f"probe={PROBE}"]
    if args and args[0] == "doctor":
        return [*under, BPFSNOOP, "doctor", "--set", f"cache={code_cache()}", *args[1:]]
    if args and args[0] == "daemon":
        return [*under, BPFSNOOP, "daemon", *kept, *args[1:]]
    if args and args[0] in ("replay", "schema", "insns"):
        kept = []
    return [*under, BPFSNOOP, *kept, *args]


PREEMPTIBLE = int(platform.release().partition(".")[0]) >= 7
"""Tracepoints of system calls are preempted on this kernel, and runs of them left out."""

_LEFT_OUT = re.compile(r"bpfsnoop: the kernel left out \d+ runs of a probe[^\n]*\n")


def _said(err: bytes) -> str:
    """Standard error, without what cannot be helped on this kernel."""
    text = err.decode()
    return _LEFT_OUT.sub("", text) if PREEMPTIBLE else text


class Finished(NamedTuple):
    """A process that has ended."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """Of standard output, each of them whole."""
        assert self.out.endswith(b"\n") or not self.out
        return self.out.decode("ascii").splitlines()

    @property
    def complaint(self) -> str:
        """The only line on standard error."""
        assert self.err.endswith("\n"), self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def bpfsnoop_run(
    *args: Argument,
    under: Sequence[str] = (),
    env: dict[str, str] | None = None,
    stdout: int = subprocess.PIPE,
) -> Finished:
    """bpfsnoop from start to end.

    :param under: what to run it under, such as ``unshare``.
    :param env: on top of our own.
    """
    process = subprocess.run(
        command_line(*args, under=under),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | (env or {}),
        timeout=PATIENCE_S,
        check=False,
    )
    return Finished(process.returncode, process.stdout or b"", _said(process.stderr))


class Running:
    """A child process; leaving the context ends it, if it has not ended by itself."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def read_until(self, pipe: IO[bytes] | None, text: str, times: int = 1) -> str:
        """The lines that come out of the pipe, until so many of them had the text in them."""
        assert pipe
        lines = [b""]
        deadline = time.monotonic() + PATIENCE_S
        while times:
            ready, _, _ = select.select([pipe], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"waited in vain for {text!r} behind {lines}"
            byte = os.read(pipe.fileno(), 1)
            assert byte, f"it ended without {text!r}: {lines}"
            lines[-1] += byte
            if byte == b"\n":
                times -= text.encode() in lines[-1]
                lines.append(b"")
        return b"".join(lines).decode()


class Tracer(Running):
    """bpfsnoop while it runs."""

    def __init__(self, *args: Argument, under: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            command_line(*args, under=under),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._said = ""

    def ready(self) -> Self:
        """Waits until it traces."""
        self._said += self.read_until(self.process.stderr, STARTED)
        return self

    def stop(self, number: int = signal.SIGINT) -> Finished:
        """Tells it to end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Finished:
        """Waits until it has ended by itself; reads all that it still writes."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return Finished(self.process.returncode, out or b"", self._said + _said(err))

    def status(self, key: str) -> str:
        """A line of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)[key].strip()


class Stimulus(Running):
    """The stimulus while it runs; with ``--wait`` or as ``sleepy`` it waits for lines.

    :param program: another one that says when it is ready, and waits.
    """

    def __init__(
        self, *args: str, under: Sequence[str] = (), program: Sequence[str] = STIMULUS
    ) -> None:
        self.process = subprocess.Popen(
            [*under, *program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.read_until(self.process.stdout, "ready")

    def go(self) -> Self:
        """Gives it a line to go on."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self

    def poke(self, times: int) -> list[MadeCall]:
        """Lets a ``sleepy`` one make that many calls, and waits for them."""
        return [
            calls_of(self.go().read_until(self.process.stdout, "}").encode())[0]
            for _ in range(times)
        ]

    def end(self) -> bytes:
        """Waits until it has ended; what it printed since."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        return out


def stimulate(*args: str | bytes, user: int | None = None) -> list[MadeCall]:
    """The stimulus from start to end; a user other than us need not be able to read it."""
    argv: Sequence[str | bytes] = STIMULUS
    if user is not None:
        argv = os.path.realpath(sys.executable), "-c", Path(STIMULUS[1]).read_text()
    process = subprocess.run(
        [*argv, *args], stdout=subprocess.PIPE, user=user, timeout=PATIENCE_S, check=True
    )
    return calls_of(process.stdout)


def calls_of(out: bytes) -> list[MadeCall]:
    """What a stimulus printed."""
    made = []
    for line in out.splitlines():
        about = json.loads(line)
        fields = {name: about[name] for name in MadeCall._fields}
        for name in ("entry", "exit"):
            fields[name] = bytes.fromhex(fields[name])
        made.append(MadeCall(**fields))
    return made


def validated(document: Document) -> Document:
    """Itself, if it is as events/schema.json says."""
    error = best_match(VALIDATOR.iter_errors(document))
    assert error is None, f"{error.json_path}: {error.message}\nin {document}"
    return document


class Trace(NamedTuple):
    """What ``--json`` wrote."""

    events: list[Document]
    """Of calls."""
    loss: Document
    """The closing document."""
    notices: list[Document]
    losses: list[Document]
    """Told while they happened."""
    folded: list[Document]
    """Calls that were told as one."""

    @classmethod
    def of(cls, out: bytes, *, validate_each: int = 1) -> Self:
        """Parses, validates and checks what holds for every trace.

        :param validate_each: only every n-th event, for traces of thousands that
            are much alike.
        """
        assert out.endswith(b"\n"), out[-200:]
        assert not any(byte < ord(" ") or byte > ord("~") for byte in set(out) - {ord("\n")})
        *documents, loss = (json.loads(line) for line in out.splitlines())
        for document in [*documents[::validate_each], loss]:
            validated(document)
        of = {dataset: [d for d in documents if d["event"]["dataset"] == f"bpfsnoop.{dataset}"]
              for dataset in ("call", "notice", "loss", "folded")}  # fmt: skip
        assert sum(map(len, of.values())) == len(documents)
        assert loss["event"]["dataset"] == "bpfsnoop.loss"
        assert [told["bpf"]["loss"]["final"] for told in [*of["loss"], loss]] == [
            *[False] * len(of["loss"]), True,
        ]  # fmt: skip
        sequence = [document["event"]["sequence"] for document in [*documents, loss]]
        gaps = sum(after - before - 1 for before, after in pairwise([0, *sequence]))
        assert gaps == loss["bpf"]["loss"]["lost"]
        assert sequence == sorted(set(sequence))
        return cls(of["call"], loss, of["notice"], of["loss"], of["folded"])

    @property
    def seen(self) -> int:
        return int(self.loss["bpf"]["loss"]["seen"])

    @property
    def lost(self) -> int:
        return int(self.loss["bpf"]["loss"]["lost"])

    def of_processes(self, pids: Collection[int]) -> list[Document]:
        return [document for document in self.events if document["process"]["pid"] in pids]

    def map_names(self) -> list[str]:
        """What the maps are called that were made, or were to be."""
        return [document["bpf"]["attr"]["map_name"] for document in self.events]


def identity(made: MadeCall | Document) -> tuple[int, int, str, int, int]:
    """What tells calls apart, from the one side or the other: pid, tid, address, size, result."""
    if isinstance(made, MadeCall):
        return made.tgid, made.tid, hex(made.attr_addr), made.size, made.retval
    process, bpf = made["process"], made["bpf"]
    return process["pid"], process["thread"]["id"], bpf["attr_address"], bpf["size"], bpf["retval"]


class Scene(NamedTuple):
    """A call that a program of tests/scenes.py made, and what is to be seen of it."""

    expected: Document
    document: Document

    def check(self, keys: Collection[str] = ()) -> None:
        """:param keys: of ``bpf``; all that are expected, if empty."""
        bpf = self.document["bpf"]
        for key in keys or self.expected:
            expected, shown = self.expected[key], bpf.get(key)
            if expected and shown and key == "memory":
                for name in {*expected, *shown}:  # one by one: they are long
                    bare = dict(shown.get(name) or ())
                    bare.pop("fields", None)  # of info, see test_info.py
                    assert bare == (expected.get(name) or {}), name
            elif expected and shown and key == "prog":  # of a load there is more
                assert {name: shown.get(name) for name in expected} == expected
            else:
                assert shown == expected, key


SCENES = Path(__file__).with_name("scenes.py")


class Played(NamedTuple):
    """One of tests/scenes.py, traced."""

    scenes: dict[str, Scene]
    trace: Trace
    out: bytes
    recording: Path


def played(directory: Path, name: str, *options: str) -> Played:
    """Each of its calls is there, once and in order, or this fails."""
    out, recording = directory / "out", directory / "recording"
    finished = bpfsnoop_run(
        "--json", "-o", out, "--record", recording, *options,
        "--", sys.executable, SCENES, name,
    )  # fmt: skip
    assert (finished.status, finished.err) == (0, "")
    told = [json.loads(line) for line in finished.out.splitlines()]
    trace = Trace.of(out.read_bytes())
    assert (trace.seen, trace.lost) == (len(trace.events), 0)
    scenes: dict[str, Scene] = {}
    for pid in {line["tgid"] for line in told}:
        lines = [line for line in told if line["tgid"] == pid]
        documents = trace.of_processes({pid})
        assert [*map(identity, documents)] == [
            (line["tgid"], line["tid"], hex(line["attr_addr"]), line["size"], line["retval"])
            for line in lines
        ]
        scenes |= {
            line["scene"]: Scene(line["expected"], document)
            for line, document in zip(lines, documents, strict=True)
            if line["scene"]
        }
    return Played(scenes, trace, out.read_bytes(), recording)
