# SPDX-License-Identifier: Apache-2.0
"""What the kernel program sends in several records, in whatever of it arrives."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.events.call import Blob, Call, CallFlag, PartState
from bpfsnoop.events.errors import WireError
from bpfsnoop.tracer import assembly
from bpfsnoop.tracer.assembly import Assembly
from calls import (
    PAGE,
    blob,
    call_of,
    call_record,
    chunk_record,
    chunks_of,
    image_of,
    part,
    process_record,
    records_of,
)

CHUNKED = PartState.CHUNKED
INSNS = bytes(range(256)) * 40  # more than two pages
LOAD = call_of(5, bytes(range(100)), memory={8: blob(INSNS, state=CHUNKED)})
FREEZE = call_of(22, b"\3\0\0\0")._replace(tid=77)


def fed(records: Iterable[bytes]) -> list[Call]:
    together = Assembly()
    return [call for record in records if (call := together.feed(record))]


def test_a_call_that_is_whole_comes_at_once() -> None:
    assert fed(records_of(FREEZE)) == [FREEZE]


def test_chunks_become_part_of_the_call_that_they_came_ahead_of() -> None:
    records = records_of(LOAD)
    assert len(records) == 1 + 3
    assert fed(records) == [LOAD]
    assert fed([*records, *records]) == [LOAD, LOAD]


def test_what_is_read_once_more_takes_the_place_of_what_was_there_before() -> None:
    """Half of it was in memory at entry, all of it at exit."""
    *chunks, call = records_of(LOAD)
    assert fed([*chunks[:1], *chunks, call]) == [LOAD]


def test_calls_of_other_threads_come_between() -> None:
    other = LOAD._replace(tid=4, memory={8: blob(INSNS[::-1], state=CHUNKED)})
    between = [record for pair in zip(records_of(LOAD), records_of(other), strict=True)
               for record in pair]  # fmt: skip
    assert fed([*between[:3], *records_of(FREEZE), *between[3:]]) == [FREEZE, LOAD, other]


def test_several_things_of_one_call_are_kept_apart() -> None:
    call = LOAD._replace(
        memory={
            8: blob(INSNS, state=CHUNKED),
            16: blob(b"GPL\0"),
            32: blob(b"log" * 500, state=CHUNKED),
        },
        aside={32: blob(b"old" * 400, state=CHUNKED), 16: blob(b"G")},
    )
    assert fed(records_of(call)) == [call]


# --- Attr --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [191, 192, 193, 200, 4096])
def test_an_attr_of_any_length_is_whole(size: int) -> None:
    entry = bytes(range(1, 251)) * 17
    call = call_of(5, entry[:size], entry[1 : size + 1])
    assert fed(records_of(call)) == [call]


def test_an_attr_that_is_lost_in_part_is_as_long_as_what_arrived() -> None:
    call = call_of(5, bytes(range(250)), bytes(range(1, 251)))
    entry_chunk, exit_chunk, record = records_of(call)
    assert fed([record]) == [call._replace(entry=call.entry[:192], exit=call.exit[:192])]
    assert fed([exit_chunk, record]) == [call._replace(entry=call.entry[:192])]
    assert fed([entry_chunk, record]) == [call._replace(exit=call.exit[:192])]


def test_an_attr_whose_end_is_the_same_is_sent_once() -> None:
    """The part for the exit is left out if it is what it was at entry."""
    call = call_of(5, bytes(range(250)))
    entry = part(1, call.entry[:192], state=CHUNKED, length=250)
    chunks = chunks_of(call, 1, 0, call.entry, 192)
    assert fed([*chunks, call_record(call, entry)]) == [call]


# --- Not all of it arrives ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "left"), [((0,), 0), ((1,), PAGE), ((2,), 2 * PAGE), ((0, 1, 2), 0), ((1, 2), PAGE)]
)
def test_what_follows_a_lost_chunk_is_not_put_in_its_place(
    lost: tuple[int, ...], left: int
) -> None:
    records = [record for number, record in enumerate(records_of(LOAD)) if number not in lost]
    (call,) = fed(records)
    assert call.memory[8] == Blob(INSNS[:left], len(INSNS), CHUNKED, len(INSNS))
    assert call.memory[8].lost
    assert call._replace(memory={}) == LOAD._replace(memory={})


def test_chunks_of_a_call_that_was_lost_are_not_taken_for_those_of_the_next() -> None:
    *chunks, _ = records_of(LOAD)
    later = LOAD._replace(start_ns=LOAD.start_ns + 1, memory={8: blob(b"", 800, CHUNKED, read=800)})
    (call,) = fed([*chunks, *records_of(later)])
    assert call == later
    assert call.memory[8].lost


def test_what_the_kernel_calls_within_a_call_leaves_its_parts_alone() -> None:
    """The inner one returns first, though it began later."""
    outer = call_of(10, bytes(300))._replace(start_ns=100)
    inner = call_of(0, bytes(20), flags=CallFlag.KERNEL)._replace(start_ns=200)
    *parts, last = records_of(outer)
    assert parts
    assert fed([*parts, *records_of(inner), last]) == [inner, outer]


def test_chunks_of_what_the_call_does_not_have_are_no_matter() -> None:
    stray = chunk_record(FREEZE, 5, 8, 0, b"stray")
    assert fed([stray, *records_of(FREEZE)]) == [FREEZE]


def test_calls_that_never_return_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first: what one program is waits for its call, however many others do not."""
    monkeypatch.setattr(assembly, "PENDING_MAX", 10 * PAGE)
    together = Assembly()
    for tid in range(1000):
        call = LOAD._replace(tid=tid)
        *chunks, _ = records_of(call)
        for chunk in chunks:
            assert together.feed(chunk) is None
        kept = sum(
            len(chunk.data)
            for calls in together._pending.values()
            for parts in calls.values()
            for chunks_ in parts.values()
            for chunk in chunks_
        )
        assert kept <= 10 * PAGE
    newest = LOAD._replace(tid=999)
    assert together.feed(records_of(newest)[-1]) == newest
    oldest = together.feed(records_of(LOAD._replace(tid=0))[-1])
    assert oldest
    assert oldest.memory[8].lost


def test_chunks_of_little_do_not_add_up_to_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them takes memory beside its bytes."""
    monkeypatch.setattr(assembly, "PENDING_MAX", 10 * PAGE)
    together = Assembly()
    for tid in range(10_000):
        together.feed(chunk_record(LOAD._replace(tid=tid), 5, 8, 0, b""))
    assert len(together._pending) < 1000


def test_nothing_is_kept_of_calls_that_returned() -> None:
    together = Assembly()
    for number in range(100):
        for record in records_of(LOAD._replace(start_ns=number)):
            together.feed(record)
    assert (together._pending, together._pending_bytes) == ({}, 0)


def test_what_came_of_a_lost_call_goes_with_the_next_of_its_thread() -> None:
    """Nobody else will ask for it; a call that is nested in another one comes before that."""
    together = Assembly()
    for number in range(100):
        *chunks, record = records_of(LOAD._replace(start_ns=number))
        for chunk in chunks:
            together.feed(chunk)
    assert together.feed(record) == LOAD._replace(start_ns=99)
    assert (together._pending, together._pending_bytes) == ({}, 0)


# --- Any order ---------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations(range(3)), st.lists(st.integers(0, 2), max_size=3))
def test_what_is_shown_is_a_prefix_of_what_there_was(order: list[int], again: list[int]) -> None:
    *chunks, record = records_of(LOAD)
    (call,) = fed([*(chunks[number] for number in [*order, *again]), record])
    assert INSNS.startswith(call.memory[8].data)
    if list(order) == [0, 1, 2] and not again:
        assert call == LOAD


@settings(deadline=None)
@given(st.data())
def test_any_records_left_out_leave_the_others_right(data: st.DataObject) -> None:
    calls = [LOAD._replace(tid=tid, start_ns=tid) for tid in range(4)] + [FREEZE]
    records = [record for call in calls for record in records_of(call)]
    kept = data.draw(st.lists(st.integers(0, len(records) - 1), unique=True).map(sorted))
    seen = fed(records[number] for number in kept)
    assert [(call.tid, call.start_ns) for call in seen] == [
        (call.tid, call.start_ns) for call in calls if records.index(records_of(call)[-1]) in kept
    ]
    for call in seen:
        if 8 in call.memory:
            assert INSNS.startswith(call.memory[8].data)
            assert call.memory[8].read == len(INSNS)


# --- Processes ---------------------------------------------------------------------------


def test_a_process_is_known_to_its_calls() -> None:
    together = Assembly()
    assert together.image(LOAD) is None
    image = image_of()
    assert together.feed(process_record(image)) is None
    assert together.image(LOAD) == image
    others = LOAD._replace(tgid=5), LOAD._replace(process_start_ns=5), LOAD._replace(exec_id=6)
    assert [together.image(other) for other in others] == [None] * 3


def test_what_was_told_last_counts() -> None:
    together = Assembly()
    for args in (b"old\0", b"new\0"):
        together.feed(process_record(image_of(args=args)))
    found = together.image(LOAD)
    assert found
    assert found.args == b"new\0"


def test_the_processes_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "IMAGES_MAX", 10)
    together = Assembly()
    for number in range(100):
        together.feed(process_record(image_of(exec_id=number)))
        together.feed(process_record(image_of(exec_id=0)))
    known = [number for number in range(100) if together.image(LOAD._replace(exec_id=number))]
    assert known == [0, *range(91, 100)]


def test_what_is_no_record_changes_nothing() -> None:
    together = Assembly()
    *chunks, record = records_of(LOAD)
    for chunk in chunks:
        together.feed(chunk)
    with pytest.raises(WireError):
        together.feed(record[:-1])
    assert together.feed(record) == LOAD
