# SPDX-License-Identifier: Apache-2.0
"""--save-progs, and reading such files again with bpfsnoop insns."""

import os
from pathlib import Path

import pytest

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.elf import programs_in
from bpfsnoop.events.call import PartState
from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import saved
from bpfsnoop.tracer.saved import SavedPrograms
from calls import attr, blob, call_of, process_of
from running import bpfsnoop_run

RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")
RETURN_1 = bytes.fromhex("b700000001000000 9500000000000000")


def keep(sink: SavedPrograms, insns: bytes, *, state: int = 0, wanted: int | None = None) -> None:
    passed = attr("IIQQIIQII16s", 6, 2, 1, 2, 0, 0, 0, 0, 0, b"watch")
    memory = {8: blob(insns, wanted, state), 16: blob(b"GPL\0")}
    call = call_of(5, passed, memory=memory, retval=-13)
    sink.event(Decoder().decode(call), process_of(call), 0, 1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "programs"


def test_each_program_is_kept_once(directory: Path) -> None:
    for _ in range(2):
        sink = SavedPrograms(str(directory))
        for insns in (RETURN_0, RETURN_1, RETURN_0):
            keep(sink, insns)
        sink.end()
    kept = sorted(directory.iterdir())
    found = {programs_in(path.read_bytes())[0].insns for path in kept}
    assert found == {RETURN_0, RETURN_1}
    assert len(kept) == 2
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_what_is_there_is_not_overwritten(directory: Path) -> None:
    sink = SavedPrograms(str(directory))
    keep(sink, RETURN_0)
    (path,) = directory.iterdir()
    sink = SavedPrograms(str(directory))
    path.write_bytes(b"somebody's")
    keep(sink, RETURN_0)
    path.rename(directory / "elsewhere")
    (directory / path.name).symlink_to("elsewhere")
    keep(SavedPrograms(str(directory)), RETURN_0)
    assert {entry.name for entry in directory.iterdir()} == {path.name, "elsewhere"}
    assert (directory / "elsewhere").read_bytes() == b"somebody's"


def test_a_program_that_is_not_whole_is_not_kept(directory: Path) -> None:
    keep(SavedPrograms(str(directory)), RETURN_0, wanted=8000, state=int(PartState.CUT))
    assert list(directory.iterdir()) == []


def test_there_is_a_limit_and_it_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saved, "FILES_MAX", 1)
    sink = SavedPrograms(str(directory))
    keep(sink, RETURN_0)
    keep(sink, RETURN_1)
    sink.end()
    assert len(list(directory.iterdir())) == 1
    assert "1 programs were not saved" in capsys.readouterr().err


def test_a_directory_that_goes_away_is_told(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SavedPrograms(str(directory))
    directory.rmdir()
    keep(sink, RETURN_0)
    sink.end()
    assert "No such file or directory" in capsys.readouterr().err


def test_a_directory_that_is_not_ours_alone_any_more_is_told(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SavedPrograms(str(directory))
    directory.chmod(0o777)
    keep(sink, RETURN_0)
    sink.end()
    assert list(directory.iterdir()) == []
    assert "it is not ours alone" in capsys.readouterr().err


def test_a_directory_of_others_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(CannotStart, match="--save-progs"):
        SavedPrograms(str(directory))
    with pytest.raises(CannotStart, match="--save-progs"):
        SavedPrograms(os.devnull)


# --- bpfsnoop insns ----------------------------------------------------------------------


def test_insns_reads_what_was_saved(directory: Path) -> None:
    keep(SavedPrograms(str(directory)), RETURN_0)
    (path,) = directory.iterdir()
    finished = bpfsnoop_run("insns", path)
    assert (finished.status, finished.err) == (0, "")
    assert finished.lines == [
        "xdp:", f"# sha256 {path.stem}", "   0: (b7) r0 = 0", "   1: (95) exit",
    ]  # fmt: skip


def test_insns_reads_classic_programs(tmp_path: Path) -> None:
    path = tmp_path / "filter"
    path.write_text("2\n48 0 0 9\n6 0 0 65535\n")
    finished = bpfsnoop_run("insns", "--classic", path)
    assert [line.split() for line in finished.lines[1:]] == [
        ["(000)", "ldb", "[9]"], ["(001)", "ret", "#65535"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "options", "complaint"),
    [
        (b"", (), "there is no program in it"),
        (b"", ("--classic",), "there are no instructions"),
        (b"odd", (), "3 bytes are not instructions of 8 bytes each"),
        (b"\x7fELFodd", (), "a broken object file"),
        (b"rubbish", ("--classic",), "line 1"),
        (None, (), "No such file or directory"),
    ],
)
def test_insns_says_what_is_wrong(
    tmp_path: Path, content: bytes | None, options: tuple[str, ...], complaint: str
) -> None:
    path = tmp_path / "program"
    if content is not None:
        path.write_bytes(content)
    finished = bpfsnoop_run("insns", *options, path)
    assert finished.status == 1
    assert complaint in finished.complaint
