# SPDX-License-Identifier: Apache-2.0
"""Lines in files: whole ones, whatever happens to the file."""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import OutputError
from bpfsnoop.tracer.delivery.file import FileOutlet
from bpfsnoop.tracer.delivery.outlet import Line
from delivering import FILE, document, lines_of

DAY_NS = 86_400 * 10**9


def made(path: Path, **options: Any) -> FileOutlet:
    return FileOutlet({"path": str(path), **FILE, **options})


def lines(first: int, last: int, size: int = 0) -> list[Line]:
    return [Line(document(at, size), 6, at) for at in range(first, last + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.json"


@pytest.fixture
def outlet(path: Path) -> Iterator[FileOutlet]:
    outlet = made(path)
    outlet.open()
    yield outlet
    outlet.close()


def test_lines_are_added_and_at_once_there(path: Path, outlet: FileOutlet) -> None:
    assert outlet.send(lines(1, 3)) == 3
    assert lines_of(path) == [1, 2, 3]
    outlet.close()
    outlet.open()
    assert outlet.send(lines(4, 5)) == 2
    assert lines_of(path) == [1, 2, 3, 4, 5]


def test_others_of_its_group_may_read_it(path: Path) -> None:
    old = os.umask(0)
    try:
        made(path).close()
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


@given(st.integers(0, 20), st.data())
def test_half_a_line_goes_when_it_is_opened(count: int, data: st.DataObject) -> None:
    whole = b"".join(line.text for line in lines(1, count))
    one = document(99, size=data.draw(st.sampled_from([0, 70_000])))
    torn = one[: data.draw(st.integers(0, len(one)))]
    with TemporaryDirectory() as name:
        path = Path(name) / "file"
        path.write_bytes(whole + torn)
        outlet = made(path)
        outlet.open()
        outlet.send(lines(100, 100))
        outlet.close()
        kept = [99] if len(torn) >= len(one) - 1 else []
        assert lines_of(path) == [*range(1, count + 1), *kept, 100]


def test_what_somebody_else_wrote_is_not_cut(path: Path) -> None:
    path.write_bytes(b"a note\nwithout its end")
    outlet = made(path)
    outlet.open()
    outlet.send(lines(1, 1))
    outlet.close()
    assert path.read_bytes() == b"a note\nwithout its end\n" + document(1)


def test_a_write_that_is_cut_short_leaves_whole_lines(path: Path, outlet: FileOutlet) -> None:
    """RLIMIT_FSIZE does to a write what a disk does that becomes full (setrlimit(2))."""
    size = len(document(1, 100))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * size + size // 2, before[1]))
    try:
        assert outlet.send(lines(1, 9, 100)) == 5
        assert lines_of(path) == [1, 2, 3, 4, 5]
        with pytest.raises(OSError, match="No space left on device"):
            outlet.send(lines(10, 10, 100))
        assert lines_of(path) == [1, 2, 3, 4, 5]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    outlet.close()
    outlet.open()
    assert outlet.send(lines(6, 9, 100)) == 4
    assert lines_of(path) == list(range(1, 10))


def test_somebody_else_may_empty_it(path: Path, outlet: FileOutlet) -> None:
    """logrotate's copytruncate."""
    outlet.send(lines(1, 5))
    os.truncate(path, 0)
    outlet.send(lines(6, 7))
    assert lines_of(path) == [6, 7]


def test_rotation_by_size_keeps_so_many(path: Path) -> None:
    size = len(document(1, 100))
    outlet = made(path, rotate_size=3 * size, keep=2)
    outlet.open()
    assert outlet.send(lines(1, 9, 100)) == 9
    outlet.send(lines(10, 11, 100))
    outlet.close()
    there = {file.name: lines_of(file) for file in path.parent.iterdir()}
    assert there == {
        "events.json": [10, 11], "events.json.1": [7, 8, 9], "events.json.2": [4, 5, 6],
    }  # fmt: skip


def test_a_line_longer_than_a_file_may_be_has_one_of_its_own(path: Path) -> None:
    outlet = made(path, rotate_size=100)
    outlet.open()
    outlet.send(lines(1, 2, 500))
    outlet.close()
    assert lines_of(path) == [2]
    assert lines_of(path.with_name("events.json.1")) == [1]


def test_rotation_by_time_and_a_restart_in_between(path: Path) -> None:
    outlet = made(path, rotate_every=DAY_NS)
    outlet.open()
    outlet.send(lines(1, 2))
    outlet.send(lines(3, 3))
    assert lines_of(path) == [1, 2, 3]
    outlet.close()
    yesterday = time.time() - 86_400
    os.utime(path, (yesterday, yesterday))
    outlet = made(path, rotate_every=DAY_NS)
    outlet.open()
    outlet.send([])
    outlet.send(lines(4, 4))
    outlet.close()
    assert lines_of(path) == [4]
    assert lines_of(path.with_name("events.json.1")) == [1, 2, 3]


def test_fewer_are_kept_than_before(path: Path) -> None:
    for number in range(1, 6):
        path.with_name(f"events.json.{number}").write_bytes(document(number))
    path.write_bytes(document(9, 100))
    outlet = made(path, rotate_size=100, keep=1)
    outlet.open()
    outlet.send(lines(10, 10))
    outlet.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["events.json", "events.json.1"]
    assert lines_of(path.with_name("events.json.1")) == [9]


def test_rotation_leaves_alone_what_somebody_else_has_moved(path: Path) -> None:
    outlet = made(path, rotate_size=100)
    outlet.open()
    outlet.send(lines(1, 1, 100))
    path.rename(path.with_name("theirs"))
    path.write_bytes(document(5))
    outlet.send(lines(2, 2, 100))
    outlet.close()
    assert lines_of(path.with_name("theirs")) == [1]
    assert lines_of(path) == [5, 2]


def test_a_file_that_somebody_removed_is_made_anew(path: Path, outlet: FileOutlet) -> None:
    outlet.send(lines(1, 1))
    path.unlink()
    outlet.send(lines(2, 3))
    assert lines_of(path) == [2, 3]


def test_a_rotation_that_fails_doubles_nothing(path: Path) -> None:
    outlet = made(path, rotate_size=3 * len(document(1, 100)), keep=1)
    outlet.open()
    path.with_name("events.json.1").mkdir()
    assert outlet.send(lines(1, 5, 100)) == 3
    with pytest.raises(OSError, match="Is a directory"):
        outlet.send(lines(6, 6, 100))
    outlet.close()
    path.with_name("events.json.1").rmdir()
    outlet.open()
    assert outlet.send(lines(4, 6, 100)) == 3
    outlet.close()
    assert [*lines_of(path.with_name("events.json.1")), *lines_of(path)] == [1, 2, 3, 4, 5, 6]


def test_links_are_not_followed(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"")
    path.symlink_to(target)
    with pytest.raises(OutputError, match=rf"cannot write to {path}: Too many levels of symbolic"):
        made(path)


@pytest.mark.parametrize(
    ("place", "why"),
    [("gone/x", "No such file or directory"), ("", "Is a directory"), ("pipe", "not a file")],
)
def test_where_it_cannot_write(tmp_path: Path, place: str, why: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=why):
        made(tmp_path / place)
