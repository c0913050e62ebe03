# SPDX-License-Identifier: Apache-2.0
"""Calls that are told as one, on a running kernel: the counts are those of what was done."""

import sys
import textwrap
from pathlib import Path

import pytest

from running import Trace, bpfsnoop_run

pytestmark = pytest.mark.live

# It takes 0.4 s at least: several intervals.
BUSY = """
    import time
    from stimulus import *

    table = map_create(BPF_MAP_TYPE_HASH, 4, 8, 256, map_name=b"folded")
    for number in range(200):
        map_update_elem(table, number.to_bytes(4, "little"), bytes(8))
        map_lookup_elem(table, number.to_bytes(4, "little"), 8)
        if number % 25 == 0:
            time.sleep(0.05)
    for _ in range(7):
        attempt(map_lookup_elem, table, b"none", 8)
    obj_get_info_by_fd(table)
"""


def test_counts_are_those_of_what_was_done_and_a_replay_has_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    kept = tmp_path / "kept"
    options = "--json", "--aggregate", "100ms"
    script = [sys.executable, "-c", textwrap.dedent(BUSY)]
    trace = Trace.of(bpfsnoop_run(*options, "--record", kept, "--", *script).out)
    folded = sum(each["bpf"]["folded"]["calls"] for each in trace.folded)
    assert len(trace.events) + folded == trace.seen
    of_map = [each for each in trace.folded if "map" in each["bpf"]]
    assert {each["bpf"]["map"]["name"] for each in of_map} == {"folded"}
    for action, bytes_ in ("map_update_elem", 200 * 12), ("map_lookup_elem", 200 * 12 + 7 * 4):
        told = [each["bpf"]["folded"] for each in of_map if each["event"]["action"] == action]
        assert len(told) > 2
        in_full = sum(each["event"]["action"] == action for each in trace.events)
        assert sum(each["bytes"] for each in told) + 12 * in_full == bytes_
    assert sum(each["bpf"]["folded"]["failed"] for each in of_map) == 7
    (inventory,) = [each for each in trace.folded if each["event"]["action"] == "inventory"]
    assert inventory["bpf"]["inventory"] == {"map": 1}
    replayed = Trace.of(bpfsnoop_run("replay", *options, kept).out)
    assert (replayed.events, replayed.folded) == (trace.events, trace.folded)
