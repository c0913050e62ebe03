# SPDX-License-Identifier: Apache-2.0
"""Which object a descriptor leads to, however the caller came by it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stimulus
from running import Played, bpfsnoop_run, played

pytestmark = pytest.mark.live

KINDS = ("map", "prog", "link", "btf")
WAYS = ("created", "argument", "pinned", "dup", "inherited", "closed", "sent")
SCENES = (
    *(f"{kind} {way}" for kind in KINDS for way in WAYS),
    *(f"{kind} got" for kind in KINDS if kind != "btf"),  # BTF cannot be pinned
    *(f"{kind} by {kind}_id" for kind in KINDS),
    "two descriptors",
    "wrong kinds",
)
NOT_OBJECTS = (
    "/dev/null", "eventfd", "O_PATH", "closed", "-1", "huge", "lowest", "standard input",
)  # fmt: skip


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("objects"), "objects")


@pytest.mark.parametrize("scene", SCENES)
def test_a_descriptor_is_named_after_its_object(objects: Played, scene: str) -> None:
    """By what the kernel itself says of that (BPF_OBJ_GET_INFO_BY_FD)."""
    objects.scenes[scene].check()


@pytest.mark.parametrize("what", NOT_OBJECTS)
def test_what_is_no_object_is_not_named(objects: Played, what: str) -> None:
    objects.scenes[f"no object: {what}"].check()


def test_no_scene_is_left_out(objects: Played) -> None:
    assert set(objects.scenes) == {*SCENES, *(f"no object: {what}" for what in NOT_OBJECTS)}


def test_the_lines_say_the_same(objects: Played) -> None:
    bpf = objects.scenes["map created"].document["bpf"]
    shown = bpfsnoop_run("replay", "-q", objects.recording, "-e", "map_create").lines
    assert shown[0].endswith(f'= {bpf["retval"]}<map:{bpf["map"]["id"]} hash "o.bject_15_long">')
    link = objects.scenes["link created"].document["bpf"]
    (line,) = bpfsnoop_run(
        "replay", "-q", objects.recording, "-e", "raw_tracepoint_open"
    ).lines  # fmt: skip
    prog = objects.scenes["prog created"].document["bpf"]["prog"]["id"]
    told = f"<link:{link['link']['id']} raw_tracepoint prog:{prog}>"
    assert f'<prog:{prog} raw_tracepoint "object_prog">' in line
    assert line.endswith(f"= {link['retval']}{told}")


def _bpftool(kind: str, number: int) -> dict[str, Any]:
    command = "bpftool", "-j", kind, "show", "id", str(number)
    shown = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    found: dict[str, Any] = shown[0] if isinstance(shown, list) else shown
    return found


def test_bpftool_calls_them_the_same(tmp_path: Path) -> None:
    """It shows objects that live, so they are made here, and asked about under the tracer."""
    table = stimulus.map_create(stimulus.BPF_MAP_TYPE_HASH, 12, 40, 77, map_name=b"other_opinion")
    prog = stimulus.prog_load(
        stimulus.BPF_PROG_TYPE_RAW_TRACEPOINT, stimulus.RETURN_0, prog_name=b"other_opinion"
    )
    link = stimulus.raw_tracepoint_open(b"task_rename", prog)
    btf = stimulus.btf_load(stimulus.minimal_btf())
    with stimulus.closed(table, prog, link, btf):
        ids = {
            kind: stimulus.fdinfo(fd, f"{kind}_id")
            for kind, fd in zip(KINDS, (table, prog, link, btf), strict=True)
        }
        out = tmp_path / "out"
        numbers = " ".join(map(str, ids.values()))
        asking = (
            "import sys; sys.path.insert(0, sys.argv[1]); from stimulus import *;"
            "m, p, l, b = map(int, sys.argv[2].split()); map_get_fd_by_id(m);"
            "prog_get_fd_by_id(p); link_get_fd_by_id(l); btf_get_fd_by_id(b)"
        )
        finished = bpfsnoop_run(
            "--json", "-o", out, "--",
            sys.executable, "-c", asking, str(Path(__file__).parent), numbers,
        )  # fmt: skip
        assert (finished.status, finished.err) == (0, "")
        told = {kind: _bpftool(kind, number) for kind, number in ids.items()}
    events = [json.loads(line)["bpf"] for line in out.read_bytes().splitlines()[:-1]]
    shown = {kind: bpf[kind] for kind, bpf in zip(KINDS, events, strict=True)}
    assert {kind: about["id"] for kind, about in shown.items()} == ids
    same = {"key_size": "bytes_key", "value_size": "bytes_value", "max_entries": "max_entries"}
    for name, theirs in {**same, "name": "name"}.items():
        assert shown["map"][name] == told["map"][theirs]
    assert shown["map"]["type"] == f"BPF_MAP_TYPE_{told['map']['type'].upper()}"
    for name in ("name", "tag"):
        assert shown["prog"][name] == told["prog"][name]
    assert shown["prog"]["type"] == f"BPF_PROG_TYPE_{told['prog']['type'].upper()}"
    assert shown["link"]["type"] == f"BPF_LINK_TYPE_{told['link']['type'].upper()}"
    assert shown["link"]["prog_id"] == told["link"]["prog_id"] == ids["prog"]


def test_replay_names_them_too(objects: Played) -> None:
    finished = bpfsnoop_run("replay", objects.recording, "--json")
    assert (finished.status, finished.out) == (0, objects.out)
