# SPDX-License-Identifier: Apache-2.0
"""Lines on disk, against a list in memory: also after kill -9, and with damage."""

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bpfsnoop.tracer.delivery import spool as module
from bpfsnoop.tracer.delivery.outlet import Line
from bpfsnoop.tracer.delivery.segment import MARK, OVERHEAD, record
from bpfsnoop.tracer.delivery.spool import SEGMENT, Spool

LIMIT = 8_000  # so that a file of it has 1000 bytes
LINES = st.lists(
    st.builds(
        Line, st.binary(max_size=700).map(lambda text: text + b"\n"), st.integers(0, 7),
        st.integers(0, 2**64 - 1),
    ),
    max_size=6,
)  # fmt: skip


def made(count: int, size: int = 100) -> list[Line]:
    return [Line(b"%0*d\n" % (size - 1, number), 6, number) for number in range(count)]


def files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.name != "position")


def all_of(spool: Spool) -> list[Line]:
    return spool.take(1 << 30)


class Spooling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.generation = 0
        self.pending: list[Line] = []  # the first of these are taken
        self.taken = 0
        self.torn = 0
        self.spool = Spool(str(self.place / "0"), LIMIT)

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.place)

    @rule(lines=LINES)
    def append(self, lines: list[Line]) -> None:
        self.pending += lines[: self.spool.append(lines)]

    @rule(size=st.integers(1, 3000))
    def take(self, size: int) -> None:
        lines = self.spool.take(size)
        assert lines == self.pending[self.taken : self.taken + len(lines)]
        assert lines or self.taken == len(self.pending)
        assert sum(len(line.text) for line in lines[:-1]) < size
        self.taken += len(lines)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, self.taken))
        self.spool.confirm(count)
        del self.pending[:count]
        self.taken -= count

    @rule()
    def again(self) -> None:
        self.spool.again()
        self.taken = 0

    @rule()
    def end_and_begin(self) -> None:
        self.spool.close()
        self.begin()

    @rule(torn=st.integers(0, OVERHEAD + 50))
    def be_killed(self, torn: int) -> None:
        """What is in the directory now, with the beginning of one more record or without."""
        self.generation += 1
        after = self.place / str(self.generation)
        shutil.copytree(self.place / str(self.generation - 1), after)
        self.spool.close()
        if torn and (segments := files(after)):
            with segments[-1].open("ab") as file:
                file.write(record(Line(b"x" * 100, 1, 1))[:torn])
        self.begin()

    def begin(self) -> None:
        self.taken = 0
        self.spool = Spool(str(self.place / str(self.generation)), LIMIT)

    @invariant()
    def it_keeps_within_its_bounds(self) -> None:
        on_disk = sum(file.stat().st_size for file in files(self.place / str(self.generation)))
        assert on_disk <= LIMIT + OVERHEAD + 50
        assert self.spool.bytes_used == on_disk
        assert self.spool.taken == self.taken

    @precondition(lambda self: not self.pending)
    @invariant()
    def nothing_stays_behind(self) -> None:
        self.spool.take(1)  # passes over what was torn
        assert self.spool.empty
        assert not files(self.place / str(self.generation))


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(max_examples=150, stateful_step_count=30)


@given(st.integers(2, 30), st.data())
def test_a_damaged_line_takes_no_other_with_it(count: int, data: st.DataObject) -> None:
    lines = made(count)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        spool = Spool(name, LIMIT)
        assert spool.append(lines) == count
        spool.close()
        file = data.draw(st.sampled_from(files(place)))
        at = data.draw(st.integers(0, file.stat().st_size - 1))
        content = bytearray(file.read_bytes())
        content[at] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        spool = Spool(name, LIMIT)
        got = all_of(spool)
        assert len(got) == count - 1
        assert got == [line for line in lines if line in got]
        assert spool.damaged == 1
        spool.close()


HOSTILE = st.dictionaries(
    st.sampled_from(["0000000000000001", "0000000000000007", "9999999999999999", "position", "x"]),
    st.one_of(
        st.binary(max_size=400),
        st.lists(st.one_of(st.just(MARK), st.binary(max_size=30), st.just(record(made(1)[0])))).map(
            b"".join
        ),
    ),
)


@given(HOSTILE)
def test_whatever_is_there_it_works(content: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for file, data in content.items():
            (Path(name) / file).write_bytes(data)
        spool = Spool(name, LIMIT)
        there = all_of(spool)
        assert set(there) <= set(made(1))
        spool.confirm(len(there))
        fresh = [Line(b"fresh\n", 5, 5)]
        assert spool.append(fresh) == 1
        spool.close()
        spool = Spool(name, LIMIT)
        assert all_of(spool) == fresh
        spool.close()


def test_many_marks_do_not_keep_it_busy(tmp_path: Path) -> None:
    """Each could be the beginning of a record as long as the rest of the file."""
    bait = MARK + bytes(4) + (1 << 19).to_bytes(4, "little") + bytes(12)
    (tmp_path / "0000000000000001").write_bytes(bait * (SEGMENT // len(bait)))
    spool = Spool(str(tmp_path), LIMIT)
    assert all_of(spool) == []
    assert 0 < spool.damaged <= 1000
    spool.close()


def test_links_and_pipes_are_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(record(made(1)[0]))
    place = tmp_path / "spool"
    place.mkdir()
    (place / "0000000000000001").symlink_to(target)
    os.mkfifo(place / "0000000000000002")
    spool = Spool(str(place), LIMIT)
    assert all_of(spool) == []
    spool.close()
    assert target.exists()


def test_a_file_that_is_taken_away_is_missed(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append(made(30))
    files(tmp_path)[1].unlink()
    got = all_of(spool)
    assert spool.damaged == 1
    assert 0 < len(got) < 30
    assert got == [line for line in made(30) if line in got]
    spool.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
def test_what_cannot_be_read_for_a_moment_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    assert spool.append(made(30)) == 30
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", _failing(number))
        for _ in range(3):
            with pytest.raises(OSError, match="cannot read the spool"):
                all_of(spool)
    assert len(files(tmp_path)) > 1
    assert all_of(spool) == made(30)
    assert spool.damaged == 0
    spool.close()


def test_what_a_disk_will_never_read_does_not_hold_up_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path), LIMIT)
    spool.append(made(9))
    before = len(files(tmp_path))
    monkeypatch.setattr(module, "_UNREADABLE_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", _failing(errno.EIO))
        with pytest.raises(OSError, match="cannot read the spool"):
            all_of(spool)
        spool.append(made(20)[9:])
        with pytest.raises(OSError, match="cannot read the spool"):
            all_of(spool)  # the next file, which is tried as long
    assert spool.damaged == before == 1
    assert all_of(spool) == made(20)[9:]
    spool.close()


def _failing(number: int) -> Callable[..., bytes]:
    def pread(*about: object) -> bytes:
        raise OSError(number, os.strerror(number))

    return pread


def test_only_we_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        spool = Spool(str(tmp_path / "spool"), LIMIT)
        spool.append(made(1))
    finally:
        os.umask(old)
    spool.close()
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "spool").iterdir()} == {0o600}


def test_one_that_still_ends_is_waited_for(tmp_path: Path) -> None:
    """As when a daemon is killed and started again at once."""
    before = Spool(str(tmp_path), LIMIT)
    before.append(made(1))
    ends = threading.Timer(0.2, before.close)
    ends.start()
    after = Spool(str(tmp_path), LIMIT)
    assert all_of(after) == made(1)
    after.close()
    ends.join()


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_S", 0.0)
    spool = Spool(str(tmp_path), LIMIT)
    with pytest.raises(OSError, match="another process uses it"):
        Spool(str(tmp_path), LIMIT)
    spool.append(made(1))
    copies = spool.unsynced()  # somebody is at work on them
    spool.close()
    Spool(str(tmp_path), LIMIT).close()
    for copy in copies:
        os.close(copy)


def test_without_a_limit_it_makes_nothing_but_reads_what_is_there(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    none = Spool(str(place), 0)
    assert none.append(made(1)) == 0
    none.close()
    assert not place.exists()
    before = Spool(str(place), LIMIT)
    before.append(made(3))
    before.close()
    after = Spool(str(place), 0)
    assert all_of(after) == made(3)
    after.close()


def test_a_line_that_is_longer_than_a_file(tmp_path: Path) -> None:
    lines: Sequence[Line] = [*made(3), Line(b"y" * 3 * SEGMENT + b"\n", 3, 3), *made(3)]
    spool = Spool(str(tmp_path), 8 * SEGMENT)
    assert spool.append(lines) == len(lines)
    assert all_of(spool) == lines
    spool.close()


def test_a_disk_that_is_full_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", full)
        spool = Spool(str(tmp_path / "spool"), LIMIT)
        assert spool.append(made(3)) == 0
        assert spool.problem == "No space left on device"
    assert spool.append(made(3)) == 3
    assert all_of(spool) == made(3)
    spool.close()
