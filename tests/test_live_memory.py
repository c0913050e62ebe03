# SPDX-License-Identifier: Apache-2.0
"""What pointers lead to: all of it, or marked as not all."""

from pathlib import Path

import pytest

from running import Played, Scene, bpfsnoop_run, played
from scenes import long_program

pytestmark = pytest.mark.live

SCENES = (
    "update", "lookup", "lookup of nothing", "refused update", "first key", "one buffer",
    "last key", "taken", "deleted",
    "update batch", "lookup batch 0", "lookup batch 1", "delete batch", "batch of maps",
    "end of a page", "over the end", "NULL", "wild", "kernel", "key not in memory",
    "value not in memory", "value half in memory", "key half in memory",
    "large", "large, with a hole", "large key half in memory", "a value for each CPU",
    "license", "long license", "license at the end of a page", "license without an end",
    "tracepoint", "task_fd_query", "pathname", "longest pathname",
    "long pathname", "hostile pathname",
    "test run", "test run, no room", "full run", "full run, long attr", "full run, 200 bytes",
    "query", "info", "btf", "btf log",
    "verifier", "short log", "old caller",
    "kprobe_multi", "long symbol", "uprobe_multi",
    "attr not in memory", "attr half in memory", "hidden program", "half hidden program",
    "22 bytes", "14 bytes", "1 byte", "zeros not in memory",
)  # fmt: skip


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("memory"), "memory")


@pytest.mark.parametrize("scene", SCENES)
def test_memory_is_what_the_caller_passed_and_got(memory: Played, scene: str) -> None:
    """Nothing is silently short: what is missing has its reason under ``missing``."""
    memory.scenes[scene].check()


def test_no_scene_is_left_out(memory: Played) -> None:
    assert set(memory.scenes) == {*SCENES}


def test_lines_show_memory(memory: Played) -> None:
    (line, *_) = bpfsnoop_run("replay", "-q", memory.recording, "-e", "map_update_elem").lines
    assert r'key="\x01\x02\x03\x04", value="\x61\x62\x63\x64\x65\x66\x67\x68"' in line
    lines = bpfsnoop_run("replay", "-q", memory.recording, "-e", "prog_load").lines
    assert 'license="Dual BSD/GPL"' in lines[0]


# --- Programs ----------------------------------------------------------------------------

COUNTS = ("1", "2", "511", "512", "513", "4096", "100000")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("programs"), "programs", "--max-insns", "262144")


@pytest.mark.parametrize("scene", [*COUNTS, "unread"])
def test_all_of_a_program_is_there(programs: Played, scene: str) -> None:
    shown, count = _insns(programs.scenes[scene])
    assert shown == {
        "hex": long_program(count).hex(),
        "size": 8 * count,
        **({"read_at_exit": True} if scene == "unread" else {}),
    }


def test_a_program_of_more_than_is_wanted_is_cut(tmp_path: Path) -> None:
    few = played(tmp_path, "programs")
    for scene in COUNTS:
        shown, count = _insns(few.scenes[scene])
        assert shown["hex"] == long_program(count).hex()[: 16 * 4096]
        assert shown["size"] == 8 * count
        assert shown.get("missing") == (["cut"] if count > 4096 else None)


def _insns(scene: Scene) -> tuple[dict[str, object], int]:
    return scene.document["bpf"]["memory"]["insns"], scene.expected["insns"]


# --- A recording is as good as the run ---------------------------------------------------


def test_replay_gives_the_same_documents(memory: Played, programs: Played) -> None:
    for run in (memory, programs):
        finished = bpfsnoop_run("replay", run.recording, "--json")
        assert (finished.status, finished.out) == (0, run.out)
