# SPDX-License-Identifier: Apache-2.0
"""Keys and values of maps that have BTF, typed while the maps are there."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from made_btf import KEY_TEXT, VALUE_TEXT
from running import PATIENCE_S, Document, Stimulus, Trace, Tracer, bpfsnoop_run

pytestmark = pytest.mark.live

MAPS = sys.executable, str(Path(__file__).with_name("typed_maps.py"))
LAST = "BPF_MAP_LOOKUP_ELEM, {map_fd="


class Seen(NamedTuple):
    lines: list[str]
    recording: Path
    pid: int
    maps: Document
    """What the program said of them."""
    dumped: list[Any]
    """What bpftool makes of the map with types, meanwhile."""


def _watched(directory: Path, *options: str) -> Seen:
    out, recording = directory / "out", directory / "recording"
    with (
        Stimulus(program=MAPS) as made,
        Tracer("-o", out, "--record", recording, "-p", str(made.pid), *options) as tracer,
    ):
        tracer.ready()
        made.go()
        maps: Document = json.loads(made.read_until(made.process.stdout, "}"))
        deadline = time.monotonic() + PATIENCE_S
        while '"plain"' not in out.read_text().rpartition("BPF_MAP_LOOKUP_ELEM")[2]:
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.05)
        number = str(maps["ids"][0])
        dump = subprocess.run(
            ["/usr/sbin/bpftool", "-j", "map", "dump", "id", number],
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        made.go()
        made.end()
        finished = tracer.wait()
    assert finished.status == 0, finished.err
    return Seen(out.read_text().splitlines(), recording, made.pid, maps, json.loads(dump.stdout))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return _watched(tmp_path_factory.mktemp("types"))


def test_lines_have_the_members_by_name(seen: Seen) -> None:
    (update,) = (line for line in seen.lines if "BPF_MAP_UPDATE_ELEM" in line)
    assert f"key={KEY_TEXT}, value={VALUE_TEXT}, flags=BPF_ANY" in update
    (batch,) = (line for line in seen.lines if "BPF_MAP_UPDATE_BATCH" in line)
    assert 'keys=[{pid=0, comm="batch"}, {pid=1, comm="batch"}, {pid=2, comm="batch"}]' in batch
    assert batch.count(VALUE_TEXT) == 3


def test_of_each_cpu_there_is_one(seen: Seen) -> None:
    (line,) = (line for line in seen.lines if '"cpus"' in line and LAST in line)
    assert f"key=3, value=[{', '.join(['0'] * seen.maps['cpus'])}]" in line


def test_without_types_they_are_bytes(seen: Seen) -> None:
    (line,) = (line for line in seen.lines if '"plain"' in line and LAST in line)
    assert r'key="\x00\x00\x00\x00", value="\x00\x00\x00\x00"' in line


def test_it_is_what_bpftool_finds_there(seen: Seen) -> None:
    (entry,) = (each["formatted"] for each in seen.dumped if each["formatted"]["key"]["pid"] == 42)
    value = entry["value"]
    assert entry["key"]["comm"] == "sshd"
    assert value["state"] == "BUSY"
    assert VALUE_TEXT.startswith(f"{{count={value['count']}, state=BUSY, ")
    rest = ", ".join(f"{name}={int(str(value[name]), 0)}" for name in ("nice", "x", "y"))
    assert VALUE_TEXT.endswith(f", {rest}}}")


def test_a_recording_keeps_the_types(seen: Seen) -> None:
    """When the maps are long gone."""
    assert bpfsnoop_run("replay", "-p", str(seen.pid), seen.recording).lines == seen.lines
    trace = Trace.of(bpfsnoop_run("replay", "--json", seen.recording).out)
    (update,) = (event for event in trace.events if event["event"]["action"] == "map_update_elem")
    assert update["bpf"]["memory"]["value"]["typed"] == VALUE_TEXT


def test_if_so_wished_no_map_is_touched(tmp_path: Path) -> None:
    """Another bpfsnoop would see it."""
    with Tracer("--json", "-o", tmp_path / "other") as other:
        other.ready()
        seen = _watched(tmp_path, "--no-map-types")
        assert other.stop().status == 0
    assert not [line for line in seen.lines if KEY_TEXT in line]
    trace = Trace.of((tmp_path / "other").read_bytes())
    opened = [event for event in trace.events
              if event["event"]["action"] == "map_get_fd_by_id"
              and event["process"]["name"] != "bpftool"]  # fmt: skip
    assert not opened
