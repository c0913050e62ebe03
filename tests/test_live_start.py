# SPDX-License-Identifier: Apache-2.0
"""The first start compiles, the next ones do not."""

import os
import re
import shutil
from pathlib import Path

import pytest

from running import STIMULUS, bpfsnoop_run

pytestmark = pytest.mark.live

COMPILER = re.compile(r"libbcc|LLVM|libclang|bcc/__init__")
FORK = re.compile(r"\b(?:clone3?|v?fork)\(")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a start leaves: one plan, where other tests may have tried several."""
    directory = tmp_path_factory.mktemp("first") / "cache"
    bpfsnoop_run("--set", f"cache={directory}", "-q", "-d", "1ms")
    return directory


@pytest.fixture
def cache(first: Path, tmp_path: Path) -> Path:
    """As a start has left it."""
    directory = tmp_path / "cache"
    shutil.copytree(first, directory)
    directory.chmod(0o700)
    return directory


def _strace(log: Path, cache: Path) -> str:
    # What a start opens and whom it forks.
    under = (
        "strace", "-f", "-e", "trace=openat,open,clone,clone3,fork,vfork,execve", "-o", str(log),
    )  # fmt: skip
    finished = bpfsnoop_run("--set", f"cache={cache}", "-q", "-d", "1ms", under=under)
    assert (finished.status, finished.err) == (0, "")
    return log.read_text()


def test_a_first_start_compiles_and_the_next_ones_do_not(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    cold = _strace(tmp_path / "cold", cache)
    assert COMPILER.search(cold)
    assert FORK.search(cold)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in cache.iterdir())
    warm = _strace(tmp_path / "warm", cache)
    assert not COMPILER.search(warm)
    assert not FORK.search(warm)


@pytest.mark.parametrize(
    "name", ["empty", "nonsense", "cut", "one bit", "not a file", "another's", "all writable"]
)
def test_what_is_not_as_it_was_left_is_made_again(cache: Path, name: str) -> None:
    """Without a word, and what is traced is the same."""
    kept = {file.name: file.read_bytes() for file in cache.iterdir()}
    assert len(kept) == 2
    for file in cache.iterdir():
        content = file.read_bytes()
        middle = len(content) // 2
        match name:
            case "empty":
                file.write_bytes(b"")
            case "nonsense":
                file.write_bytes(os.urandom(1000))
            case "cut":
                file.write_bytes(content[:middle])
            case "one bit":
                flipped = bytes([content[middle] ^ 1])
                file.write_bytes(content[:middle] + flipped + content[middle + 1 :])
            case "not a file":
                file.unlink()
                file.symlink_to("/etc/passwd")
            case "another's":
                os.chown(file, 1, 1)
            case _:
                file.chmod(0o666)
    options = "--strict", "-q", "--set", f"cache={cache}"
    finished = bpfsnoop_run(*options, "-o", "/dev/null", "--", *STIMULUS, "count", "1")
    assert (finished.status, finished.err) == (0, "")
    for file in cache.iterdir():
        assert not file.is_symlink()
        assert file.read_bytes() == kept[file.name]
        assert file.stat().st_uid == os.geteuid()
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_directory_of_others_is_not_used(tmp_path: Path) -> None:
    """Whoever can write there could have the kernel run what they like."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    finished = bpfsnoop_run("-q", "--set", f"cache={cache}", "-d", "1ms")
    assert (finished.status, finished.err) == (0, "")
    assert list(cache.iterdir()) == []
