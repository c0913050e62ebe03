# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON that have much in common: each is its own document all the same."""

import json
from collections.abc import Iterable
from itertools import count

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.events import ecs
from bpfsnoop.events.call import Call
from bpfsnoop.events.ecs import Origin
from bpfsnoop.events.lines import JsonLines
from bpfsnoop.events.process import Process
from calls import attr, blob, call_of, map_of, process_of

ORIGIN = Origin("host.example", "", "fentry", "00000000-0000-0000-0000-00000000002a")
LOOKUP = call_of(1, attr("I4xQQQ", 5, 0x1000, 0x2000, 0))
DECODER = Decoder()


def documents(seen: Iterable[tuple[Call, Process]]) -> list[ecs.Document]:
    """Each as its line has it, which is as it would be alone."""
    lines = JsonLines(ORIGIN)
    read = []
    for sequence, (call, process) in zip(count(1), seen):
        event = DECODER.decode(call)
        time_ns = call.start_ns + (1 << 60)
        line = lines.event(event, process, time_ns=time_ns, sequence=sequence)
        assert line == ecs.json_line(
            ecs.event_document(event, process, ORIGIN, time_ns=time_ns, sequence=sequence)
        )
        read.append(json.loads(line))
    return read


def test_what_differs_between_calls_of_a_thread_shows() -> None:
    who = process_of(LOOKUP)
    first, second, third = documents((call, who) for call in (
        LOOKUP._replace(memory={8: blob(b"key1"), 16: blob(b"one")}, objects={0: map_of()}),
        LOOKUP._replace(memory={8: blob(b"key2")}, retval=-2, duration_ns=9),
        LOOKUP._replace(objects={0: map_of(id=99)}),
    ))  # fmt: skip
    assert [one["bpf"].get("memory", {}).get("key", {}).get("hex") for one in (first, second)] == [
        b"key1".hex(), b"key2".hex(),
    ]  # fmt: skip
    assert (first["event"]["outcome"], second["event"]["outcome"]) == ("success", "failure")
    assert (first["bpf"]["map"]["id"], third["bpf"]["map"]["id"]) == (map_of().id, 99)
    assert "map" not in second["bpf"]


def test_a_thread_whose_rights_change_is_another_user() -> None:
    who = process_of(LOOKUP)
    before, after = documents((call, who) for call in (LOOKUP, LOOKUP._replace(uid=0, euid=0)))
    assert before["user"]["id"] != after["user"]["id"] == "0"


def test_a_process_that_becomes_another_one_is_told_as_that() -> None:
    mine = LOOKUP._replace(exec_id=6)
    before, after = documents([(LOOKUP, process_of(LOOKUP)), (mine, process_of(mine))])
    assert before["bpf"]["process"]["exec_id"] != after["bpf"]["process"]["exec_id"] == 6


def test_it_stays_right_when_there_are_more_than_are_kept() -> None:
    calls = [LOOKUP._replace(tid=number, entry=attr("I4xQQQ", number, 1, 2, 0))
             for number in range(3000)]  # fmt: skip
    calls = [call._replace(exit=call.entry) for call in calls]
    who = process_of(LOOKUP)
    shown = documents((call, who) for call in [*calls, *calls[::-500]])
    assert [one["process"]["thread"]["id"] for one in shown[-6:]] == [
        one["bpf"]["attr"]["map_fd"] for one in shown[-6:]
    ]
