# SPDX-License-Identifier: Apache-2.0
"""What is seen of programs that the kernel takes or refuses, on this kernel."""

import json
import sys
from pathlib import Path

import pytest

from bpfsnoop.decoders import disasm
from bpfsnoop.decoders.helpers import HELPERS
from running import Document, Trace, bpfsnoop_run

pytestmark = pytest.mark.live


def loads_of(trace: Trace) -> list[Document]:
    return [event["bpf"] for event in trace.events if event["event"]["action"] == "prog_load"]


def test_every_program_that_bpftool_tries_is_understood(tmp_path: Path) -> None:
    """One for each helper and type; most of them are refused."""
    out, saved = tmp_path / "out", tmp_path / "saved"
    probe = "sh", "-c", "exec bpftool feature probe >/dev/null 2>&1"
    options = "--json", "--max-insns", "8192", "-e", "prog_load", "-o", out, "--save-progs", saved
    assert bpfsnoop_run(*options, "--", *probe).status == 0
    loads = loads_of(Trace.of(out.read_bytes(), validate_each=20))
    unknown = []
    called = set()
    loads = [bpf for bpf in loads if "insns" in bpf.get("memory", {})]  # some pass none
    assert len(loads) > 1000
    for bpf in loads:
        insns = bytes.fromhex(bpf["memory"]["insns"]["hex"])
        unknown += [line for line in disasm.lines(insns) if "???" in line or "unknown" in line]
        assert bpf["prog"]["insn_count"] == len(insns) // 8
        called |= set(bpf["prog"].get("helpers", ()))
    assert unknown == []
    assert len(called) > 150
    assert called <= set(HELPERS.values())
    digests = {bpf["prog"]["sha256"] for bpf in loads}
    assert {path.stem for path in saved.iterdir()} == digests


WITH_MAPS = """
import json, os, struct
from bpfsnoop.tracer import own
maps = [own.create_map(own.MapSpec(2, 4, 8, 1, 0), name) for name in ("one", "other")]
insn = struct.Struct("=BBhi").pack
def look_up(fd):
    return (insn(0x18, 0x11, 0, fd) + insn(0, 0, 0, 0) + insn(0xBF, 0xA2, 0, 0)
            + insn(0x07, 2, 0, -8) + insn(0x7A, 10, -8, 0) + insn(0x85, 0, 0, 1))
code = look_up(maps[0]) + look_up(maps[1]) + insn(0xB7, 0, 0, 0) + insn(0x95, 0, 0, 0)
prog = own.load_program(own.TRACEPOINT, code, "two_maps")
print(json.dumps([own.object_id(fd) for fd in maps]))
"""


def test_the_maps_of_a_program_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = sys.executable, "-c", WITH_MAPS
    finished = bpfsnoop_run("--json", "-o", out, "--", *command)
    one, other = json.loads(finished.out)
    (bpf,) = loads_of(Trace.of(out.read_bytes()))
    assert bpf["prog"]["map_ids"] == [one, other]
    assert bpf["prog"]["helpers"] == ["bpf_map_lookup_elem"]
    assert bpf["prog"]["proven"] is True
    assert bpf["prog"]["license"] == "GPL"
    lines = bpfsnoop_run("--dump-insns", "-e", "prog_load", "--", *command).out.decode()
    assert lines.count("\t") == 12
    assert "(18) r1 = map[id:" in lines
    assert "call bpf_map_lookup_elem#1" in lines
