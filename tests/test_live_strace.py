# SPDX-License-Identifier: Apache-2.0
"""``--strace-compat`` beside strace itself: the same calls of the same process, line by line.

Both see every call of tests/parity.py, in one run a mode.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest

import oracle
import parity
from golden import ROWS
from kernels.refused import CannotRun
from running import PATIENCE_S, ROOT, Running, Tracer, bpfsnoop_run

pytestmark = pytest.mark.live

_SHOWN = 5  # lines that differ are told


@pytest.fixture(scope="module")
def strace() -> Sequence[str]:
    """How to run it."""
    try:
        return oracle.strace(ROOT / ".kernels")
    except CannotRun as reason:
        pytest.skip(str(reason))
    except oracle.Broken as reason:
        if os.environ.get("BPFSNOOP_LIVE") == "1":
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


class _Straced(Running):
    """tests/parity.py under strace, which writes to a file."""

    def __init__(self, strace: Sequence[str], out: Path, *args: str, scenes: Sequence[str]) -> None:
        # Not -f: with it each line begins with who it is, and so do ours.
        self.process = subprocess.Popen(
            [*strace, "-o", out, "-e", "trace=bpf", *args, "--",
             sys.executable, parity.__file__, *scenes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.traced = int(self.read_until(self.process.stdout, "ready").split()[-1])

    def go(self) -> None:
        """Gives it a line to go on."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


class Lines(NamedTuple):
    """Of the same calls."""

    theirs: list[str]
    ours: list[str]
    traced: int
    """The process that made them."""

    def differing(self) -> list[tuple[str | None, str | None]]:
        return [pair for pair in zip_longest(self.theirs, self.ours) if pair[0] != pair[1]]


def _calls(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith("bpf(")]


def _wait_for_the_last(file: Path) -> None:
    # Until its line is there the process has to stay: its descriptors are looked up.
    deadline = time.monotonic() + PATIENCE_S
    while f"bpf({parity.END:#x}" not in file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def both(
    directory: Path,
    strace: Sequence[str],
    *options: str,
    scenes: Sequence[str],
    record: Path | None = None,
) -> Lines:
    """What either tracer makes of the scenes."""
    theirs, ours = directory / "strace", directory / "bpfsnoop"
    recording: list[Path | str] = ["--record", record] if record else []
    with _Straced(strace, theirs, *options, scenes=scenes) as straced:
        with Tracer(
            "--strict", "--strace-compat", "-o", ours, "--ring-size", "64M", *options, *recording,
            "-p", str(straced.traced),
        ) as tracer:  # fmt: skip
            tracer.ready()
            straced.go()
            _wait_for_the_last(ours)
            straced.go()
            finished = tracer.wait()
        assert finished.status == 0, finished.err
        assert straced.process.wait(PATIENCE_S) == 0
    return Lines(_calls(theirs), _calls(ours), straced.traced)


def check(lines: Lines) -> None:
    different = lines.differing()
    told = "\n".join(f"strace   {their}\nbpfsnoop {our}\n" for their, our in different[:_SHOWN])
    assert not different, f"{len(different)} of {len(lines.theirs)} lines differ:\n{told}"


NAMES = [scene.__name__ for scene in parity.SCENES]
# Their files come and go before anybody can look; see STRACE in the manual.
_FILES = "objects", "pins", "queries", "cgroup_queries", "tracepoints", "files"
NO_FILES = [name for name in NAMES if name not in _FILES]


@pytest.mark.parametrize(
    ("options", "scenes"),
    [
        ("", NAMES),
        ("-X raw", NAMES),
        ("-X verbose", NAMES),
        ("-s 5", NAMES),
        ("-a 20", ["ids"]),
        ("-v", NAMES),
        ("-v -X raw", NAMES),
        ("-v -X verbose", NAMES),
        ("-v -s 5", NAMES),
        ("-y", NO_FILES),
        ("-y", ["files"]),
    ],
)
def test_lines_are_those_of_strace(
    tmp_path: Path, strace: Sequence[str], options: str, scenes: Sequence[str]
) -> None:
    lines = both(tmp_path, strace, *options.split(), scenes=scenes)
    assert len(lines.theirs) > len(scenes)
    check(lines)


def test_a_recording_gives_the_same_lines(tmp_path: Path, strace: Sequence[str]) -> None:
    recording = tmp_path / "recording"
    scenes = ["logs", "counted", "arrays", "infos", "queries", "tracepoints"]
    lines = both(tmp_path, strace, "-v", scenes=scenes, record=recording)
    pid = lines.traced
    replayed = bpfsnoop_run("replay", "-v", "--strace-compat", "-p", str(pid), recording).lines
    assert replayed == lines.theirs


def test_the_lines_that_need_no_kernel_are_straces(tmp_path: Path, strace: Sequence[str]) -> None:
    """As far as they are about the call, and not about its result."""
    lines = both(tmp_path, strace, scenes=["every_command"])
    shown = {line[: line.rindex(")", 0, line.rindex(" = ")) + 1] for line in lines.theirs}
    for row in ROWS:
        assert row.strace_line.removesuffix(" = 0") in shown, row.name
