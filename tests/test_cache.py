# SPDX-License-Identifier: Apache-2.0
"""What is kept between runs: used if nobody else can have written it, else made anew.

It is code that the kernel will run, so what is not sure to be ours is not looked at, and
nothing that is wrong with a file is worth a word to the user.
"""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from importlib.util import source_hash
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpfsnoop.tracer.cache import Cache, Form

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def _strings(made: Any) -> list[str]:
    if not all(isinstance(item, str) for item in made["items"]):
        raise TypeError("not strings")
    return list(made["items"])


FORM = Form("thing.json", lambda items: {"items": items}, _strings)


class Maker:
    """Counts how often it has to make the thing."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> list[str]:
        self.made += 1
        return [f"made {self.made}"]


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def kept(directory: Path, make: Maker) -> Path:
    """A file that was made for the key ``k``."""
    assert Cache(str(directory)).get(FORM, "k", make) == ["made 1"]
    return directory / "thing.json"


def again(directory: Path, make: Maker, key: str = "k") -> list[str]:
    return Cache(str(directory)).get(FORM, key, make)


# --- It is used again --------------------------------------------------------------------


def test_it_is_made_once(directory: Path, kept: Path, make: Maker) -> None:
    assert again(directory, make) == ["made 1"]
    assert make.made == 1


def test_the_directory_and_the_file_are_for_the_owner_only(directory: Path, make: Maker) -> None:
    """Whatever the umask, and the directories above are made too."""
    deep = directory / "a" / "b"
    old = os.umask(0)
    try:
        again(deep, make)
    finally:
        os.umask(old)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    assert stat.S_IMODE((deep / "thing.json").stat().st_mode) == 0o600
    assert again(deep, make) == ["made 1"]
    assert [path.name for path in deep.iterdir()] == ["thing.json"], "no draft stays behind"


def test_a_directory_that_all_may_read_will_do(directory: Path, make: Maker) -> None:
    directory.mkdir(mode=0o755)
    again(directory, make)
    assert again(directory, make) == ["made 1"]


def test_for_another_key_it_is_made_anew_and_replaced(
    directory: Path, kept: Path, make: Maker
) -> None:
    assert again(directory, make, "another") == ["made 2"]
    assert again(directory, make, "another") == ["made 2"]
    assert again(directory, make) == ["made 3"]


def test_one_that_was_made_for_nearly_the_same_will_do_if_asked_for(
    directory: Path, make: Maker
) -> None:
    """As without the compiler, when nobody knows which one it would be."""
    cache = Cache(str(directory))
    assert cache.get(FORM, "source flags 0.31", make) == ["made 1"]
    assert cache.find(FORM, "source flags ", prefix=True) == ["made 1"]
    assert cache.find(FORM, "source flags 0.31", prefix=True) == ["made 1"]
    assert cache.find(FORM, "source other ", prefix=True) is None
    assert cache.find(FORM, "source flags ") is None


def test_things_of_other_names_are_apart(directory: Path, kept: Path, make: Maker) -> None:
    other = replace(FORM, name="other.json")
    cache = Cache(str(directory))
    assert cache.get(other, "k", make) == ["made 2"]
    assert again(directory, make) == ["made 1"]
    cache.keep(FORM, "k", ["better"])
    assert cache.find(FORM, "k") == ["better"]
    assert cache.get(other, "k", make) == ["made 2"]


def test_nothing_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Cache("")
    assert [cache.get(FORM, "k", make) for _ in range(2)] == [["made 1"], ["made 2"]]
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_made_is_told_and_not_kept(directory: Path, make: Maker) -> None:
    def fail() -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Cache(str(directory)).get(FORM, "k", fail)
    assert again(directory, make) == ["made 1"]


# --- It is not to be trusted -------------------------------------------------------------


def _others_write_file(directory: Path) -> None:
    (directory / "thing.json").chmod(0o622)


def _others_write_directory(directory: Path) -> None:
    directory.chmod(0o770)


def _given_away(directory: Path) -> None:
    os.chown(directory / "thing.json", 12_345, -1)


def _directory_given_away(directory: Path) -> None:
    os.chown(directory, 12_345, -1)


def _linked_file(directory: Path) -> None:
    (directory / "thing.json").rename(directory / "real.json")
    (directory / "thing.json").symlink_to("real.json")


def _linked_directory(directory: Path) -> None:
    directory.rename(directory.with_name("real"))
    directory.symlink_to("real")


def _pipe(directory: Path) -> None:
    (directory / "thing.json").unlink()
    os.mkfifo(directory / "thing.json", 0o600)


def _directory_for_a_file(directory: Path) -> None:
    (directory / "thing.json").unlink()
    (directory / "thing.json").mkdir()


def _device(directory: Path) -> None:
    (directory / "thing.json").unlink()
    os.mknod(directory / "thing.json", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zero(4)


@as_root
@pytest.mark.parametrize(
    "spoil",
    [_others_write_file, _others_write_directory, _given_away, _directory_given_away,
     _linked_file, _linked_directory, _pipe, _directory_for_a_file, _device],
)  # fmt: skip
def test_what_others_may_have_written_is_made_anew(
    directory: Path, kept: Path, make: Maker, spoil: Callable[[Path], None]
) -> None:
    """And none of it is waited for or followed."""
    spoil(directory)
    assert again(directory, make) == ["made 2"]


@as_root
@pytest.mark.parametrize("spoil", [_others_write_file, _given_away, _linked_file, _pipe])
def test_a_file_of_others_makes_room_for_ours(
    directory: Path, kept: Path, make: Maker, spoil: Callable[[Path], None]
) -> None:
    spoil(directory)
    again(directory, make)
    assert again(directory, make) == ["made 2"]
    assert not kept.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@as_root
@pytest.mark.parametrize(
    "spoil", [_others_write_directory, _directory_given_away, _linked_directory]
)
def test_nothing_is_put_into_a_directory_of_others(
    directory: Path, kept: Path, make: Maker, spoil: Callable[[Path], None]
) -> None:
    kept.unlink()
    spoil(directory)
    again(directory, make)
    assert [*directory.iterdir()] == []


# --- It is no good -----------------------------------------------------------------------


def _whole(body: bytes) -> bytes:
    return source_hash(body).hex().encode() + b"\n" + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}",
        _whole(b""),
        _whole(b"null"),
        _whole(b"[]"),
        _whole(b"5"),
        _whole(b"{}"),
        _whole(b'{"key": "k"}'),
        _whole(b'{"key": "k", "made": null}'),
        _whole(b'{"key": "k", "made": {"items": 5}}'),
        _whole(b'{"key": "k", "made": {"items": [5]}}'),
        _whole(b'{"key": ["k"], "made": {"items": []}}'),
        _whole(b"\xff"),
        _whole(b"[" * 100_000),
    ],
)
def test_nonsense_is_made_anew(directory: Path, kept: Path, make: Maker, content: bytes) -> None:
    kept.write_bytes(content)
    assert again(directory, make) == ["made 2"]
    assert again(directory, make) == ["made 2"]


def test_a_file_that_is_cut_or_changed_anywhere_is_made_anew(
    directory: Path, kept: Path, make: Maker
) -> None:
    content = kept.read_bytes()
    spoilt = [content[:length] for length in range(len(content))]
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        spoilt.append(bytes(changed))
    for number, wrong in enumerate(spoilt, 2):
        kept.write_bytes(wrong)
        assert again(directory, make) == [f"made {number}"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60).map(_whole) | st.binary(max_size=60))
def test_any_content_is_survived(directory: Path, content: bytes) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "thing.json").write_bytes(content)
    (directory / "thing.json").chmod(0o600)
    assert again(directory, Maker()) == ["made 1"]


# --- It cannot be kept -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/proc/nowhere/cache", "/dev/null/cache", "/dev/null"])
def test_what_cannot_be_kept_is_made_each_time(path: str, make: Maker) -> None:
    cache = Cache(path)
    assert [cache.get(FORM, "k", make) for _ in range(2)] == [["made 1"], ["made 2"]]


def test_a_full_disk_leaves_what_was_there(
    directory: Path, kept: Path, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all, and nothing half-written lies about."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        assert again(directory, make, "another") == ["made 2"]
    assert [path.name for path in directory.iterdir()] == ["thing.json"]
    assert again(directory, make) == ["made 1"]


def test_a_draft_that_a_crash_left_behind_is_no_obstacle(
    directory: Path, kept: Path, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the process may have the same id each time."""
    drafts: list[str] = []
    real = os.rename

    def crash(source: str, *rest: Any, **where: Any) -> None:
        drafts.append(source)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            again(directory, make, "another")
    assert os.rename is real
    (directory / drafts[0]).write_bytes(b"half")
    assert again(directory, make, "another") == ["made 3"]
    assert again(directory, make, "another") == ["made 3"]
    assert [path.name for path in directory.iterdir()] == ["thing.json"]


def test_what_is_kept_is_json(kept: Path) -> None:
    """So that nothing in it can run by being read."""
    digest, _, body = kept.read_bytes().partition(b"\n")
    assert len(digest) == 16
    assert json.loads(body) == {"key": "k", "made": {"items": ["made 1"]}}
