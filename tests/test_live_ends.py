# SPDX-License-Identifier: Apache-2.0
"""How a run ends: its exit status, what is said about it, what was lost."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from running import (
    BPFSNOOP,
    PATIENCE_S,
    STARTED,
    STIMULUS,
    Finished,
    Running,
    Stimulus,
    Trace,
    Tracer,
    bpfsnoop_run,
    calls_of,
    identity,
)

pytestmark = pytest.mark.live

LINE = re.compile(r".+\[\d+\] bpf\(.+\) += .+|--- .+\[\d+\] \{.+\} ---|\+\+\+ .+ \+\+\+|!!! .+ !!!")
"""A call, or who it is that makes the next ones."""

SAID = re.compile(
    rf"bpfsnoop: ({re.escape(STARTED)} .+; Ctrl-C ends it|lost \d+ of \d+ calls .+"
    r"|\d+ calls had begun but not returned, .+|the kernel left out \d+ runs of a probe, .+)"
)

FLOOD = "BPF_MAP_LOOKUP_ELEM"
"""What the flood is made of."""


def _shell(*stimulus: str) -> str:
    return " ".join((*STIMULUS, *stimulus))


# --- A command of ours -------------------------------------------------------------------


def _traced(tmp_path: Path, script: str, *options: str) -> tuple[Finished, Trace]:
    out = tmp_path / "out"
    finished = bpfsnoop_run("--json", "-o", out, *options, "--", "sh", "-c", script)
    return finished, Trace.of(out.read_bytes())


@pytest.mark.parametrize(
    ("ending", "status"), {"exit 7": 7, "kill -KILL $$": 128 + signal.SIGKILL}.items()
)
def test_the_status_of_the_command_is_passed_on(tmp_path: Path, ending: str, status: int) -> None:
    finished, trace = _traced(tmp_path, f"{_shell('fork', '1')}; {ending}")
    assert (finished.status, finished.err) == (status, "")
    # Its children are traced too, and theirs.
    assert trace.map_names() == ["g1", "g0"]
    assert [*map(identity, trace.events)] == [*map(identity, calls_of(finished.out))]
    assert (trace.seen, trace.lost) == (2, 0)


def test_not_even_the_first_call_is_missed(tmp_path: Path) -> None:
    for _ in range(3):
        finished, trace = _traced(tmp_path, f"exec {_shell('count', '1')}")
        assert (finished.status, finished.err) == (0, "")
        assert trace.map_names() == ["n0"]


def test_a_command_that_is_none_is_said_so(tmp_path: Path) -> None:
    """It is an executable file, but not one that the kernel runs."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    finished = bpfsnoop_run("--", program)
    assert finished.status == 126
    assert finished.complaint == f"bpfsnoop: cannot run {program}: Exec format error"


def test_the_command_goes_on_when_nobody_reads(tmp_path: Path) -> None:
    """As after '| head': what is traced must not suffer from it."""
    proof = tmp_path / "proof"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        script = f"{_shell('count', '2')} > {proof}; exit 5"
        finished = bpfsnoop_run("--", "sh", "-c", script, stdout=writer)
    finally:
        os.close(writer)
    assert (finished.status, finished.err) == (5, "")
    assert len(calls_of(proof.read_bytes())) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_command(number: signal.Signals) -> None:
    """Whose own end then ends the tracing, so that its last calls are not missed."""
    last = f"{_shell('count', '1')} >/dev/null; kill -KILL $!; exit 3"
    script = f"trap '{last}' INT TERM; sleep 60 & echo ready; wait"
    with Tracer("-q", "--", "sh", "-c", script) as tracer:
        tracer.read_until(tracer.process.stdout, "ready")
        finished = tracer.stop(number)
    assert (finished.status, finished.err) == (3, "")
    (line,) = finished.lines
    assert LINE.fullmatch(line)
    assert 'map_name="n0"' in line


def test_a_signal_reaches_the_command_when_tracing_is_over() -> None:
    script = (
        f"trap 'kill -KILL $!; exit 3' TERM; {_shell('count', '1')}; sleep 60 & echo ready; wait"
    )
    with Tracer("-M1", "-o", "/dev/null", "--", "sh", "-c", script) as tracer:
        tracer.read_until(tracer.process.stdout, "ready")
        finished = tracer.stop(signal.SIGTERM)
    assert (finished.status, finished.err) == (3, "")


def test_a_command_that_takes_no_hint_is_left_behind() -> None:
    """The second signal means bpfsnoop itself."""
    script = "trap '' INT TERM; echo $$ ready; exec >&- 2>&-; while :; do sleep 0.1; done"
    with Tracer("-o", "/dev/null", "--", "sh", "-c", script) as tracer:
        pid = int(tracer.read_until(tracer.process.stdout, "ready").split()[0])
        try:
            tracer.process.send_signal(signal.SIGTERM)
            finished = tracer.stop(signal.SIGINT)
        finally:
            os.kill(pid, signal.SIGKILL)
    assert (finished.status, finished.err) == (130, "")


@pytest.mark.parametrize("option", ["-M3", "-d50ms"])
def test_the_command_goes_on_when_tracing_is_over(tmp_path: Path, option: str) -> None:
    finished, trace = _traced(tmp_path, f"{_shell('count', '5')}; sleep 0.2; exit 4", option)
    assert (finished.status, finished.err) == (4, "")
    assert len(calls_of(finished.out)) == 5
    if option == "-M3":
        assert trace.map_names() == ["n0", "n1", "n2"]


# --- By itself ---------------------------------------------------------------------------


def test_after_so_long_or_so_many(tmp_path: Path) -> None:
    """Both end while the process that they look at goes on."""
    long, many = tmp_path / "long", tmp_path / "many"
    with Stimulus("sleepy") as sleepy:
        options = "-q", "--json", "-p", str(sleepy.pid)
        assert bpfsnoop_run(*options, "-d", "100ms", "-o", long) == Finished(0, b"", "")
        with Tracer("--json", "-p", str(sleepy.pid), "-M", "3", "-o", many) as tracer:
            tracer.ready()
            sleepy.poke(4)
            assert tracer.wait().status == 0
    assert not Trace.of(long.read_bytes()).events
    assert Trace.of(many.read_bytes()).map_names() == ["s0", "s1", "s2"]


def test_nothing_is_left_in_the_ring(tmp_path: Path) -> None:
    """The tracer is held up until all is over: much more waits for it than it takes at once."""
    out = tmp_path / "out"
    with (
        Stimulus("--wait", "count", "3000") as counting,
        Tracer("--json", "-o", str(out), "-p", str(counting.pid)) as tracer,
    ):
        tracer.ready()
        tracer.process.send_signal(signal.SIGSTOP)
        made = calls_of(counting.go().end())
        tracer.process.send_signal(signal.SIGCONT)
        assert tracer.wait().status == 0
    trace = Trace.of(out.read_bytes(), validate_each=100)
    assert [*map(identity, trace.events)] == [*map(identity, made)]
    assert trace.map_names() == [f"n{number}" for number in range(3000)]
    assert (trace.seen, trace.lost) == (3000, 0)


# --- By a signal, under load -------------------------------------------------------------


@contextmanager
def _flooded() -> Iterator[Stimulus]:
    # Something makes as many calls as it can.
    with Stimulus("--wait", "flood", "60") as flood:
        yield flood.go()


def test_a_signal_ends_it_between_two_lines() -> None:
    """It is in the middle of writing thousands of them, which all come out whole."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    with Tracer() as one, Tracer() as two, Tracer() as three:
        tracers = [tracer.ready() for tracer in (one, two, three)]
        with _flooded():
            firsts = [tracer.read_until(tracer.process.stdout, FLOOD, 100) for tracer in tracers]
            ended = [tracer.stop(number) for tracer, number in zip(tracers, numbers, strict=True)]
    for first, finished in zip(firsts, ended, strict=True):
        assert finished.status == 0
        lines = [*first.splitlines(), *finished.lines]
        assert all(LINE.fullmatch(line) for line in lines)
        assert all(SAID.fullmatch(line) for line in finished.err.splitlines())


def test_under_nohup_a_hangup_does_not_end_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Stimulus("sleepy") as sleepy:
        options = "--json", "-o", str(out), "-p", str(sleepy.pid)
        with Tracer(*options, under=("nohup",)) as tracer:
            tracer.ready().process.send_signal(signal.SIGHUP)
            sleepy.poke(1)
            sleepy.end()
            assert tracer.wait().status == 0
    assert Trace.of(out.read_bytes()).map_names() == ["s0"]


def test_ctrl_c_at_a_terminal_ends_it_between_two_lines() -> None:
    """Which are coloured there, and shown as they come."""
    terminal, inner = pty.openpty()
    attributes = termios.tcgetattr(inner)
    # Neither show the Ctrl-C itself nor throw away what is on its way to the screen.
    attributes[3] = attributes[3] & ~termios.ECHO | termios.NOFLSH
    termios.tcsetattr(inner, termios.TCSANOW, attributes)
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with ExitStack() as stack:
        screen = stack.enter_context(os.fdopen(terminal, "r+b", buffering=0))
        sleepy = stack.enter_context(Stimulus("sleepy"))
        tracer = stack.enter_context(_Terminal(inner, environment))
        shown = tracer.read_until(screen, STARTED)
        sleepy.poke(1)
        first = tracer.read_until(screen, "= ")
        with _flooded():
            first += tracer.read_until(screen, FLOOD, 100)
            screen.write(b"\x03")
            lines = _rest(screen).split("\r\n")
        assert tracer.process.wait(PATIENCE_S) == 0
    assert SAID.fullmatch(shown.strip())
    assert "\x1b[36mBPF_MAP_CREATE\x1b[0m" in first
    assert lines.pop() == ""
    for line in (*first.splitlines(), *lines):
        plain = re.sub(r"\x1b\[\d*m", "", line)
        assert LINE.fullmatch(plain) or SAID.fullmatch(plain), line


class _Terminal(Running):
    """bpfsnoop at a terminal of its own."""

    def __init__(self, terminal: int, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [BPFSNOOP],
            env=environment,
            preexec_fn=lambda: os.login_tty(terminal),  # noqa: PLW1509 - there are no threads
        )
        os.close(terminal)


def _rest(screen: IO[bytes]) -> str:
    # A terminal that nobody has open any more is an error to read from, not the end.
    data = b""
    while select.select([screen], [], [], PATIENCE_S)[0]:
        try:
            data += screen.read(1 << 16)
        except OSError:
            return data.decode()
    raise AssertionError("it does not end")


def test_a_closed_pipe_ends_it_quietly() -> None:
    """bpfsnoop | head -n 1"""
    with Tracer() as tracer:
        tracer.ready()
        with _flooded():
            line = tracer.read_until(tracer.process.stdout, "\n")
            assert tracer.process.stdout
            tracer.process.stdout.close()
            tracer.process.stdout = None
            finished = tracer.wait()
    assert LINE.fullmatch(line.rstrip("\n"))
    assert finished.status == 0
    assert STARTED in finished.complaint


# --- With losses -------------------------------------------------------------------------


def test_what_is_lost_is_counted_to_the_last_call(tmp_path: Path) -> None:
    """Nobody reads what is shown until all is over, so that the smallest ring must run over."""
    recording = tmp_path / "recording"
    options = "--json", "--strict", "--ring-size", "64K", "--record", str(recording)
    with (
        Stimulus("--wait", "flood", "0.2") as flood,
        Tracer(*options, "-p", str(flood.pid)) as tracer,
    ):
        tracer.ready()
        (made,) = map(json.loads, flood.go().end().splitlines())
        finished = tracer.wait()
    trace = Trace.of(finished.out, validate_each=20)
    shown = Counter(document["bpf"]["cmd"] for document in trace.events)
    counted = {row["cmd"]: row for row in trace.loss["bpf"]["loss"]["commands"]}
    assert set(counted) == {"BPF_MAP_CREATE", "BPF_MAP_LOOKUP_ELEM"}
    for cmd, row in counted.items():
        assert row["seen"] == shown[cmd] + row["lost"] == made[cmd.removeprefix("BPF_").lower()]
    assert trace.lost > 0
    assert trace.losses == [] or trace.losses[-1]["bpf"]["loss"]["lost"] <= trace.lost
    assert trace.loss["bpf"]["loss"]["complete"] is False

    told = (
        f"bpfsnoop: lost {trace.lost} of {trace.seen} calls (BPF_MAP_LOOKUP_ELEM {trace.lost}):"
        " narrow the filter or give a larger --ring-size"
    )
    assert finished.err.splitlines()[1:] == [told]
    assert finished.status == 3
    replayed = bpfsnoop_run("replay", recording, "--json")
    assert replayed == Finished(0, finished.out, told + "\n")
    assert bpfsnoop_run("replay", recording, "--strict", "-q", "-M1").status == 3
