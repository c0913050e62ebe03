# SPDX-License-Identifier: Apache-2.0
"""The kernel's word on programs against the calls that were seen."""

import pytest

from bpfsnoop.decoders.tag import tags
from bpfsnoop.events.call import RESULT, Call, CallFlag
from bpfsnoop.events.notice import Notice, Reason
from bpfsnoop.tracer.lives import GRACE_NS, Lives
from bpfsnoop.tracer.witness import Life, What
from calls import blob, call_of, prog_of

SINCE = 1_000
OWN = 4_242
TAG = bytes(range(8))


def loaded(at: int, tid: int = 7, prog_id: int = 31, tgid: int = 6) -> Life:
    return Life(What.LOADED, prog_id, TAG, at, tgid, tid)


def unloaded(at: int, prog_id: int = 31) -> Life:
    return Life(What.UNLOADED, prog_id, TAG, at, 0, 0)


def call(begun: int, returned: int, tid: int = 7, cmd: int = 5, retval: int = 3) -> Call:
    made = {RESULT: prog_of(id=31, name=b"watch", tag=TAG)} if cmd == 5 and retval >= 0 else {}
    about = call_of(cmd, retval=retval, objects=made)
    return about._replace(tid=tid, start_ns=begun, entry_ns=1, duration_ns=returned - begun - 1)


@pytest.fixture
def lives() -> Lives:
    return Lives(SINCE, OWN)


def unseen(notices: list[Notice]) -> list[tuple[int, str]]:
    assert all(notice.reason is Reason.LOAD_UNSEEN for notice in notices)
    return [(notice.tid, notice.during) for notice in notices]


def test_a_load_during_a_call_of_its_thread_was_seen(lives: Lives) -> None:
    assert lives.feed([loaded(2_000)], [call(1_990, 2_010)], 3_000) == []
    assert not lives.waiting
    assert lives.end() == []


def test_its_call_may_come_later(lives: Lives) -> None:
    assert lives.feed([loaded(2_000)], [], 3_000) == []
    assert lives.waiting
    assert lives.feed([], [call(1_990, 2_010)], 4_000) == []
    assert not lives.waiting


def test_a_load_that_failed_after_it_was_one_was_seen(lives: Lives) -> None:
    """As with EMFILE."""
    assert lives.feed([loaded(2_000)], [call(1_990, 2_010, retval=-24)], 3_000) == []
    assert lives.end() == []


def test_a_load_whose_call_never_comes_is_told_after_a_while(lives: Lives) -> None:
    assert lives.feed([loaded(2_000)], [], 2_000 + GRACE_NS) == []
    assert unseen(lives.feed([], [], 2_001 + GRACE_NS)) == [(7, "")]
    assert lives.end() == []


def test_at_the_end_nothing_is_waited_for(lives: Lives) -> None:
    lives.feed([loaded(2_000)], [], 3_000)
    assert unseen(lives.end()) == [(7, "")]


@pytest.mark.parametrize(
    "other",
    [
        call(1_990, 2_010, tid=8),
        call(1_990, 2_010, cmd=0),
        call(1_000, 1_999, retval=-24),
        call(2_001, 2_010, retval=-24),
    ],
)
def test_another_call_is_no_excuse(lives: Lives, other: Call) -> None:
    lives.feed([loaded(2_000)], [other], 3_000)
    assert unseen(lives.end()) == [(7, "")]


def test_a_loader_program_is_named_at_once(lives: Lives) -> None:
    """What it loads are calls of the kernel, which had come by now."""
    run = call(1_990, 2_010, cmd=10, retval=0)
    assert unseen(lives.feed([loaded(2_000)], [run], 3_000)) == [(7, "BPF_PROG_TEST_RUN")]
    inner = call(1_995, 2_005)
    assert lives.feed([loaded(2_000)], [inner, run], 3_000) == []


def test_a_call_whose_begin_was_not_seen_vouches_for_what_it_made_alone(lives: Lives) -> None:
    """Anybody may have such calls: what seccomp(2) denies has no begin."""
    late = call(2_500, 2_501)._replace(flags=int(CallFlag.NO_ENTRY))
    assert lives.feed([loaded(2_000), loaded(2_100, prog_id=777)], [late], 3_000) == []
    (left,) = lives.end()
    assert left.prog
    assert left.prog.id == 777
    lives.feed([loaded(2_000)], [late._replace(retval=-1, objects={})], 3_000)
    assert unseen(lives.end()) == [(7, "")]


INSNS = bytes.fromhex("b700000000000000 9500000000000000")


def left_open(begun: int, given_up: int) -> Call:
    """A load that was not seen to return."""
    late = call(begun, given_up)._replace(flags=int(CallFlag.NO_EXIT), objects={})
    return late._replace(memory={8: blob(INSNS)})


def test_a_call_whose_end_was_not_seen_vouches_for_its_own_program(lives: Lives) -> None:
    """It is told when its thread has got further, and may have been over long before."""
    (tag, *_) = tags(INSNS)
    others = [loaded(1_995, prog_id=30), loaded(2_100, prog_id=777)]
    late = left_open(1_990, 2_500)
    assert lives.feed([*others, loaded(2_000)._replace(tag=tag)], [late], 3_000) == []
    assert sorted(left.prog.id for left in lives.end() if left.prog) == [30, 777]


def test_a_call_whose_end_was_not_seen_vouches_once(lives: Lives) -> None:
    (tag, *_) = tags(INSNS)
    same = [loaded(at, prog_id=at)._replace(tag=tag) for at in (2_000, 2_100)]
    assert lives.feed(same, [left_open(1_990, 2_500)], 3_000) == []
    (left,) = lives.end()
    assert left.prog
    assert left.prog.id == 2_100


def test_a_run_whose_end_was_not_seen_is_not_blamed(lives: Lives) -> None:
    """For loads that its thread made afterwards."""
    run = call(1_990, 2_500, cmd=10)._replace(flags=int(CallFlag.NO_EXIT))
    assert lives.feed([loaded(2_400)], [run], 3_000) == []
    assert lives.feed([], [call(2_390, 2_410)], 3_000) == []
    assert lives.end() == []


def test_a_call_that_made_another_program_is_no_excuse(lives: Lives) -> None:
    lives.feed([loaded(2_000, prog_id=777)], [call(1_990, 2_010)], 3_000)
    assert unseen(lives.end()) == [(7, "")]


def test_what_happens_after_the_end_does_not_count(lives: Lives) -> None:
    lives.stop(2_000)
    assert lives.feed([loaded(2_000), unloaded(2_001)], [], 3_000) == []
    assert lives.end() == []


def test_each_load_has_a_call_of_its_own(lives: Lives) -> None:
    both = [loaded(2_000, prog_id=30), loaded(2_100)]
    lives.feed(both, [call(2_090, 2_110)], 3_000)
    (left,) = lives.end()
    assert left.time_ns == 2_000


def test_what_was_before_us_and_what_is_ours_does_not_count(lives: Lives) -> None:
    lives.feed([loaded(SINCE - 1), loaded(2_000, tgid=OWN, prog_id=99)], [], 3_000)
    assert lives.end() == []
    assert lives.feed([unloaded(3_000, 99)], [], 3_000) == []


def test_a_program_that_goes_is_named_if_it_was_seen_to_come(lives: Lives) -> None:
    (stranger,) = lives.feed([unloaded(1_900)], [], 3_000)
    assert (stranger.reason, stranger.time_ns) == (Reason.PROG_UNLOADED, 1_900)
    assert stranger.prog
    assert (stranger.prog.id, stranger.prog.tag, stranger.prog.name) == (31, TAG, b"")
    gone = lives.feed([loaded(2_000), unloaded(2_050)], [call(1_990, 2_010)], 3_000)
    assert [notice.prog.name for notice in gone if notice.prog] == [b"watch"]


def test_that_a_program_is_gone_is_not_told_before_what_it_was(lives: Lives) -> None:
    """Its call may have been held back meanwhile."""
    assert lives.feed([loaded(2_000), unloaded(2_050)], [], 3_000) == []
    (gone,) = lives.feed([], [call(1_990, 2_010)], 4_000)
    assert gone.prog
    assert gone.prog.name == b"watch"
    lives.feed([loaded(5_000, prog_id=32), unloaded(5_050, 32)], [], 6_000)
    assert [notice.reason for notice in lives.end()] == [
        Reason.LOAD_UNSEEN, Reason.PROG_UNLOADED,
    ]  # fmt: skip
