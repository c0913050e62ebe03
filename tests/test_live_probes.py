# SPDX-License-Identifier: Apache-2.0
"""Whatever it attaches to, what it shows is the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bpfsnoop.tracer.config import PROBES as ALL
from running import PATIENCE_S, STIMULUS, Trace, bpfsnoop_run, calls_of, identity, played

pytestmark = pytest.mark.live

REFUSED = "this kernel has no kprobes", "this kernel refuses programs"


def _offered(probe: str) -> bool:
    """Whether this kernel offers it at all; if it does, it has to work."""
    finished = bpfsnoop_run("--probe", probe, "-d", "10ms")
    refused = finished.err.removeprefix("bpfsnoop: ").startswith(REFUSED)
    assert finished.status == refused, finished.err
    return not refused


@pytest.fixture(scope="module", params=ALL)
def probe(request: pytest.FixtureRequest) -> str:
    """Each that this kernel offers."""
    name: str = request.param
    if not _offered(name):
        pytest.skip(f"this kernel does not offer {name}")
    return name


# signalfd(2) of 32-bit programs has the number that bpf(2) has for others.
COMPAT_CALL = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53 b8 41010000 31db 31c9 31d2 cd80 5b c3"))
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(call())
"""
EBADF_OR_EINVAL = (-9, -22)


def _traced(tmp_path: Path, probe: str, *command: str, follow: bool = True) -> Trace:
    out = tmp_path / f"out-{probe}"
    options = "--json", "--strict", "--probe", probe, "-o", out
    finished = bpfsnoop_run(*options, "--", *command)
    assert (finished.status, finished.err) == (0, "")
    trace = Trace.of(out.read_bytes())
    made = calls_of(finished.out)
    assert [*map(identity, trace.events)] == [*map(identity, made)]
    return trace


@pytest.mark.parametrize("story", ["objects", "memory"])
def test_each_shows_all_of_it(tmp_path: Path, probe: str, story: str) -> None:
    """Scene by scene, as tests/scenes.py tells it."""
    scenes = played(tmp_path, story, "--probe", probe).scenes
    assert len(scenes) > 40
    for scene in scenes.values():
        scene.check()


def test_each_shows_every_command(tmp_path: Path, probe: str) -> None:
    trace = _traced(tmp_path, probe, *STIMULUS, "every")
    assert len({document["bpf"]["cmd"] for document in trace.events}) > 35


def test_each_says_which_it_is(tmp_path: Path, probe: str) -> None:
    (document,) = _traced(tmp_path, probe, *STIMULUS, "count", "1").events
    named = document["bpf"]["probe"]
    assert named in ALL if probe == "auto" else named == probe


def test_each_follows_children_and_what_they_run(tmp_path: Path, probe: str) -> None:
    trace = _traced(tmp_path, probe, "sh", "-c", f"{' '.join(STIMULUS)} fork 3; exit 0")
    assert trace.map_names() == ["g3", "g2", "g1", "g0"]


def test_calls_of_32_bit_programs_are_numbered_otherwise(tmp_path: Path, probe: str) -> None:
    out = tmp_path / "out"
    command = bpfsnoop_run(
        "--json", "--probe", probe, "-o", out, "--", sys.executable, "-c", COMPAT_CALL
    )
    assert command.status == 0
    assert json.loads(command.out) in EBADF_OR_EINVAL
    assert Trace.of(out.read_bytes()).events == []


LEFT_OUT = """
import sys
from bpfsnoop.tracer import hooks
from bpfsnoop.tracer.cli import main
del hooks.ATTACHED["exit_bpf"]
sys.exit(main(sys.argv[1:]))
"""


def test_a_call_that_is_not_seen_to_return_is_told_all_the_same(tmp_path: Path, probe: str) -> None:
    """When its thread makes another one, and when the thread ends."""
    out = tmp_path / "out"
    options = "--json", "--set", "cache=", "--probe", probe, "-o", str(out)
    command = [sys.executable, "-c", LEFT_OUT, *options, "--", *STIMULUS, "count", "3"]
    finished = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True)
    trace = Trace.of(out.read_bytes())
    made = calls_of(finished.stdout)
    assert trace.map_names() == ["n0", "n1", "n2"]
    for call, event in zip(made, trace.events, strict=True):
        assert event["bpf"]["attr_address"] == hex(call.attr_addr)
        assert event["bpf"]["notes"] == ["exit_unseen"]
        assert event["event"]["outcome"] == "unknown"
        assert not {"retval", "map"} & set(event["bpf"])
    # Of the last one the process was gone, but it had been told of by then.
    assert all("executable" in event["process"] for event in trace.events)
    assert trace.loss["bpf"]["loss"]["complete"]
