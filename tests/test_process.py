# SPDX-License-Identifier: Apache-2.0
"""What /proc says about a process, and the reasons where it says nothing."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.process import Ancestor, Container, Missing, Surroundings
from bpfsnoop.tracer import process
from bpfsnoop.tracer.cgroup import CgroupPaths
from bpfsnoop.tracer.process import ProcFs

HZ = os.sysconf("SC_CLK_TCK")
NS_PER_TICK = 1_000_000_000 // HZ
START = 5000 * NS_PER_TICK
ID = "0123456789abcdef" * 4
KERNEL_THREAD = 0x00200000
THREE = ("args", "working_directory", "ancestors")


def stat(
    pid: int,
    parent: int,
    *,
    name: bytes = b"sh",
    state: bytes = b"S",
    ticks: int = 5000,
    flags: int = 0,
) -> bytes:
    before = b"%d (%s) %s %d 1 1 0 -1 %d" % (pid, name, state, parent, flags)
    return before + b" 0" * 12 + b" %d 1 2 3 4 5 6 7\n" % ticks


class FakeProc:
    """A /proc in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def add(
        self,
        pid: int,
        parent: int,
        *,
        name: bytes = b"sh",
        state: bytes = b"S",
        ticks: int = 5000,
        flags: int = 0,
        cmdline: bytes = b"sh\0-c\0true\0",
        cgroup: bytes | None = b"0::/system.slice\n",
    ) -> Path:
        directory = self.root / str(pid)
        directory.mkdir()
        (directory / "stat").write_bytes(
            stat(pid, parent, name=name, state=state, ticks=ticks, flags=flags)
        )
        (directory / "cmdline").write_bytes(cmdline)
        (directory / "cwd").symlink_to(f"/work/{pid}")
        (directory / "exe").symlink_to(f"/bin/exe{pid}")
        if cgroup is not None:
            (directory / "cgroup").write_bytes(cgroup)
        return directory

    def look(self, pid: int = 30, start_ns: int = START) -> Surroundings:
        return ProcFs(str(self.root)).surroundings(pid, start_ns, 0)


class FakeCgroups(CgroupPaths):
    """Paths of cgroups that exist nowhere."""

    def __init__(self, paths: dict[int, bytes]) -> None:
        super().__init__("/dev/null")
        self.paths = paths

    @property
    def mounted(self) -> bool:
        return True

    def path(self, cgroup_id: int) -> bytes | None:
        return self.paths.get(cgroup_id)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    """30, its parent 20, and theirs, 1."""
    proc = FakeProc(tmp_path / "proc")
    proc.add(1, 0, name=b"systemd", ticks=3)
    proc.add(20, 1, name=b"bash", ticks=4000)
    proc.add(30, 20)
    return proc


Opening = Callable[[str, Callable[[], object]], None]


@pytest.fixture
def on_opening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opening]:
    """Has something happen just before a file of this name is opened, once."""
    real = os.open
    actions: dict[str, Callable[[], object]] = {}

    def opens(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        action = actions.pop(os.path.basename(path), None)
        if action is not None:
            action()
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opens)
    yield actions.__setitem__
    assert not actions


# --- A process that is there -------------------------------------------------------------


def test_all_of_it(proc: FakeProc) -> None:
    assert proc.look() == Surroundings(
        args=(b"sh", b"-c", b"true"),
        args_cut=False,
        cwd=b"/work/30",
        ancestors=(
            Ancestor(20, b"bash", b"/bin/exe20", 4000),
            Ancestor(1, b"systemd", b"/bin/exe1", 3),
        ),
        ancestors_cut=False,
        cgroup=b"/system.slice",
        container=None,
        missing={},
    )


@pytest.mark.parametrize(
    ("cmdline", "args"),
    [
        (b"a\0", (b"a",)),
        (b"a", (b"a",)),
        (b"a\0\0", (b"a", b"")),
        (b"\0", (b"",)),
        (b"\xff\x1b[2J\n\0 \0", (b"\xff\x1b[2J\n", b" ")),
        (b"", ()),
    ],
)
def test_arguments(proc: FakeProc, cmdline: bytes, args: tuple[bytes, ...]) -> None:
    proc.add(40, 1, cmdline=cmdline)
    found = proc.look(40)
    assert (found.args, found.args_cut, found.missing) == (args, False, {})


@pytest.mark.parametrize(
    ("cmdline", "count", "length", "cut"),
    [
        (b"x" * 32767 + b"\0", 1, 32767, False),
        (b"x" * 32768 + b"\0", 1, 32768, True),
        (b"x" * 9_000_000, 1, 32768, True),
        (b"x\0" * 1024, 1024, 1, False),
        (b"x\0" * 1025, 1024, 1, True),
        (b"\0" * 9_000_000, 1024, 0, True),
    ],
)
def test_arguments_are_bounded(
    proc: FakeProc, cmdline: bytes, count: int, length: int, cut: bool
) -> None:
    proc.add(40, 1, cmdline=cmdline)
    found = proc.look(40)
    assert found.args is not None
    assert (len(found.args), len(found.args[-1]), found.args_cut) == (count, length, cut)


@pytest.mark.parametrize(
    "name", [b"a b", b") R 7 7 (x", b"(", b")", b"))((", b"", b"\n", b"\xff\0", b"1) Z 1 1 1 1"]
)
def test_any_name_can_be_read(proc: FakeProc, name: bytes) -> None:
    proc.add(40, 20, name=name)
    proc.add(50, 40)
    assert proc.look(50).ancestors[0] == Ancestor(40, name, b"/bin/exe40", 5000)
    assert not proc.look(40).missing


def test_hostile_paths(proc: FakeProc) -> None:
    directory = proc.add(40, 1)
    for name in "cwd", "exe":
        (directory / name).unlink()
        os.symlink(b"/tmp/\xff\x1b[2J\n (deleted)", bytes(directory) + b"/" + name.encode())
    proc.add(50, 40)
    assert proc.look(40).cwd == b"/tmp/\xff\x1b[2J\n (deleted)"
    assert proc.look(50).ancestors[0].executable == b"/tmp/\xff\x1b[2J\n (deleted)"


def test_a_kernel_thread_has_no_arguments(proc: FakeProc) -> None:
    proc.add(40, 1, flags=KERNEL_THREAD, cmdline=b"")
    assert proc.look(40).missing == {"args": Missing.KERNEL_THREAD}


def test_many_ancestors(proc: FakeProc) -> None:
    for pid in range(100, 130):
        proc.add(pid, pid - 1 if pid > 100 else 1)
    found = proc.look(116)
    assert [each.pid for each in found.ancestors] == [*range(115, 99, -1)]
    assert found.ancestors_cut
    found = proc.look(115)
    assert [each.pid for each in found.ancestors] == [*range(114, 99, -1), 1]
    assert not found.ancestors_cut


def test_ancestors_in_a_circle(proc: FakeProc) -> None:
    proc.add(40, 50)
    proc.add(50, 40)
    found = proc.look(40)
    assert (len(found.ancestors), found.ancestors_cut) == (16, True)


def test_the_first_process_has_no_ancestors(proc: FakeProc) -> None:
    found = proc.look(1, 3 * NS_PER_TICK)
    assert (found.ancestors, found.ancestors_cut, found.missing) == ((), False, {})


# --- A process that is not there ---------------------------------------------------------


def test_nobody(proc: FakeProc) -> None:
    for pid in (31, 0, -1, 1 << 70):
        found = proc.look(pid)
        assert found.missing == dict.fromkeys((*THREE, "cgroup"), Missing.GONE)
        assert found == Surroundings(None, False, None, (), False, None, None, found.missing)


def test_another_process(proc: FakeProc) -> None:
    for start in (START + NS_PER_TICK, START - 1):
        found = proc.look(30, start)
        assert found.missing == dict.fromkeys((*THREE, "cgroup"), Missing.REPLACED)
        assert (found.args, found.cwd, found.cgroup) == (None, None, None)
    assert not proc.look(30, START + NS_PER_TICK - 1).missing
    assert not proc.look(30, 0).missing


def test_the_tick_is_that_of_our_time_namespace(proc: FakeProc) -> None:
    (proc.root / "self").mkdir()
    (proc.root / "self/timens_offsets").write_text(
        "monotonic           7         0\nboottime          -10 500000000\n"
    )
    assert not proc.look(30, START + 9_500_000_000).missing
    assert proc.look(30, START).missing["args"] is Missing.REPLACED


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"30", b"30 (sh) S 20", stat(30, 20)[:51], stat(30, 20).replace(b"20", b"x"), b")" * 99,
     b"\0" * 9_000_000, b"(" * 9_000_000, b"30 (sh)" + b" " * 9_000_000],
)  # fmt: skip
def test_nonsense(proc: FakeProc, nonsense: bytes) -> None:
    (proc.root / "30/stat").write_bytes(nonsense)
    found = proc.look()
    assert found.missing == dict.fromkeys((*THREE, "cgroup"), Missing.NONSENSE)


@given(st.binary())
def test_any_stat_is_read_or_refused(data: bytes) -> None:
    for each in data, b"30 (sh) S " + data, b"1 (x) R" + data.hex(" ").encode():
        try:
            process._Stat.parse(each)
        except ValueError:
            pass


def test_unreadable(proc: FakeProc) -> None:
    for name in "cmdline", "cwd", "cgroup":
        (proc.root / "30" / name).unlink()
        (proc.root / "30" / name).mkdir()  # read(2) and readlink(2) fail on it, even for root
    assert proc.look().missing == dict.fromkeys(
        ("args", "working_directory", "cgroup"), Missing.UNREADABLE
    )
    (proc.root / "30/stat").unlink()
    (proc.root / "30/stat").mkdir()
    assert proc.look().missing == dict.fromkeys((*THREE, "cgroup"), Missing.UNREADABLE)


def test_a_file_in_place_of_a_process(proc: FakeProc) -> None:
    (proc.root / "40").write_bytes(b"")
    assert set(proc.look(40).missing.values()) == {Missing.UNREADABLE}


def test_a_zombie(proc: FakeProc) -> None:
    directory = proc.add(40, 20, state=b"Z", cmdline=b"", cgroup=b"0::/a.scope (deleted)\n")
    (directory / "cwd").unlink()
    found = proc.look(40)
    assert found.missing == {"args": Missing.GONE, "working_directory": Missing.GONE}
    assert [each.pid for each in found.ancestors] == [20, 1]
    assert found.cgroup == b"/a.scope"


def test_a_process_whose_first_thread_has_ended(proc: FakeProc) -> None:
    directory = proc.add(40, 20, state=b"Z", cmdline=b"", cgroup=b"0::/a.scope (deleted)\n")
    (directory / "cwd").unlink()
    for tid, state in (40, b"Z"), (41, b"Z"), (42, b"S"):
        thread = directory / "task" / str(tid)
        thread.mkdir(parents=True)
        (thread / "stat").write_bytes(stat(tid, 20, state=state))
        (thread / "cmdline").write_bytes(b"hidden\0" if tid == 42 else b"")
        if tid == 42:
            (thread / "cwd").symlink_to("/lair")
            (thread / "cgroup").write_bytes(b"0::/b.scope (deleted)\n")
    found = proc.look(40)
    assert (found.args, found.cwd, found.missing) == ((b"hidden",), b"/lair", {})
    assert found.cgroup == b"/b.scope (deleted)"


# --- A process that ends while we look ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "still_known"),
    [("cmdline", ()), ("cgroup", (*THREE,)), ("20", ("args", "working_directory"))],
)
def test_it_ends_between_two_reads(
    proc: FakeProc, on_opening: Opening, name: str, still_known: tuple[str, ...]
) -> None:
    on_opening(name, lambda: shutil.rmtree(proc.root / "30"))
    found = proc.look()
    assert found.missing == dict.fromkeys({*THREE, "cgroup"} - {*still_known}, Missing.GONE)
    assert (found.args is None) == ("args" in found.missing)
    assert bool(found.ancestors) == ("ancestors" not in found.missing)


def test_another_one_takes_its_place_between_two_reads(proc: FakeProc, on_opening: Opening) -> None:
    def replace() -> None:
        shutil.rmtree(proc.root / "30")
        proc.add(30, 1, cmdline=b"other\0")

    on_opening("cmdline", replace)
    found = proc.look()
    assert (found.args, found.cwd, found.cgroup) == (None, None, None)
    assert set(found.missing.values()) == {Missing.GONE}


def test_it_dies_between_two_reads_and_is_not_buried(proc: FakeProc, on_opening: Opening) -> None:
    def die() -> None:
        (proc.root / "30/stat").write_bytes(stat(30, 20, state=b"Z"))
        (proc.root / "30/cmdline").write_bytes(b"")

    on_opening("cmdline", die)
    assert proc.look().missing == {"args": Missing.GONE}


def test_stat_is_read_again(proc: FakeProc, on_opening: Opening) -> None:
    on_opening("cgroup", lambda: (proc.root / "30/stat").write_bytes(stat(30, 20, ticks=5001)))
    assert set(proc.look().missing.values()) == {Missing.REPLACED}


def test_an_ancestor_ends_and_its_id_is_used_again(proc: FakeProc, on_opening: Opening) -> None:
    """What is in its place by then is nobody's ancestor."""
    on_opening("1", lambda: (proc.root / "20/stat").write_bytes(stat(20, 7)))
    found = proc.look()
    assert [each.pid for each in found.ancestors] == [20]
    assert found.ancestors_cut
    assert not found.missing


def test_the_parent_ends(proc: FakeProc, on_opening: Opening) -> None:
    on_opening("20", lambda: shutil.rmtree(proc.root / "20"))
    found = proc.look()
    assert (found.ancestors, found.ancestors_cut) == ((), False)
    assert found.missing == {"ancestors": Missing.GONE}


@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(24, "too many"), OSError()])
def test_whatever_the_kernel_says(
    proc: FakeProc, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", fail)
    assert set(proc.look().missing.values()) == {Missing.UNREADABLE}


def test_a_path_that_is_too_long_to_tell(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(36, "too long")

    monkeypatch.setattr(os, "readlink", fail)
    assert proc.look().missing == {"working_directory": Missing.TOO_LONG}


def test_no_descriptor_is_left_open(proc: FakeProc) -> None:
    before = os.listdir("/proc/self/fd")
    for pid in (1, 20, 30, 99):
        proc.look(pid)
        proc.look(pid, 0)
    assert os.listdir("/proc/self/fd") == before


# --- Its cgroup --------------------------------------------------------------------------

V1 = b"9:name=systemd:/a.scope\n8:pids:/long/path/of/it\n7:cpu,cpuacct:/\n"
DOCKER = b"/docker/" + ID.encode()
IN_DOCKER = Container(ID, "docker", "")


@pytest.mark.parametrize(
    ("data", "path", "container"),
    [
        (b"0::/\n", b"/", None),
        (b"0::" + DOCKER + b"\n", DOCKER, IN_DOCKER),
        (b"0::/a:b:c \xff\n", b"/a:b:c \xff", None),
        (b"0::/x (deleted)\n", b"/x (deleted)", None),
        (V1 + b"0::/unified\n", b"/unified", None),
        (V1 + b"0::/unified\n6:memory:" + DOCKER + b"\n", b"/unified", IN_DOCKER),
        (V1, b"/a.scope", None),
        (V1.replace(b"a.scope", b""), b"/long/path/of/it", None),
        (V1 + b"6:memory:" + DOCKER + b"\n", DOCKER, IN_DOCKER),
        (b"7:cpu,cpuacct:/\n", b"/", None),
        (b"nonsense\n::\n\0\n0::/a\n", b"/a", None),
    ],
)
def test_cgroup(proc: FakeProc, data: bytes, path: bytes, container: Container | None) -> None:
    proc.add(40, 1, cgroup=data)
    found = proc.look(40)
    assert (found.cgroup, found.container, found.missing) == (path, container, {})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Missing.NO_CGROUP),
        (None, Missing.NO_CGROUP),
        (b"\n", Missing.NONSENSE),
        (b"\xff" * 9_000_000, Missing.NONSENSE),
    ],
)
def test_no_cgroup(proc: FakeProc, data: bytes | None, reason: Missing) -> None:
    proc.add(40, 1, cgroup=data)
    found = proc.look(40)
    assert (found.cgroup, found.container) == (None, None)
    assert found.missing == {"cgroup": reason}


@given(st.binary(), st.booleans())
def test_any_bytes_for_cgroups(data: bytes, dead: bool) -> None:
    for each in data, b"0::/" + data, b"1:name=systemd:/" + data:
        process._parse_hierarchies(each, dead=dead)


def test_the_id_says_where_it_was_at_the_call(proc: FakeProc) -> None:
    look = ProcFs(str(proc.root), FakeCgroups({7: DOCKER})).surroundings
    found = look(30, START, 7)
    assert (found.cgroup, found.container, found.missing) == (DOCKER, IN_DOCKER, {})
    found = look(99, START, 7)
    assert (found.cgroup, found.container) == (DOCKER, IN_DOCKER)
    assert found.missing == dict.fromkeys(THREE, Missing.GONE)


def test_ancestors_of_a_process_that_has_gone(proc: FakeProc) -> None:
    """Its parent lives, and whose start is that of the parent it had."""
    looks = ProcFs(str(proc.root))
    parent_start = 4000 * NS_PER_TICK
    gone = looks.surroundings(99, START, 0, 0, (20, parent_start))
    assert [ancestor.pid for ancestor in gone.ancestors] == [20, 1]
    assert gone.ancestors[0].executable == b"/bin/exe20"
    assert "ancestors" not in gone.missing
    assert gone.missing["args"] is Missing.GONE
    other = looks.surroundings(98, START, 0, 0, (20, parent_start + 10**9))
    assert (other.ancestors, other.missing["ancestors"]) == ((), Missing.GONE)
    nobody = looks.surroundings(97, START, 0, 0, (96, parent_start))
    assert (nobody.ancestors, nobody.missing["ancestors"]) == ((), Missing.GONE)


def test_where_v1_is_in_use_the_id_does_not_rule_out_a_container(proc: FakeProc) -> None:
    """It tells the cgroup of v2 only, and that is the root for such containers."""
    container = b"1:name=systemd:/docker/" + b"a" * 64 + b"\n0::/\n"
    proc.add(31, 20, cgroup=container)
    (proc.root / "self").mkdir()
    (proc.root / "self" / "cgroup").write_bytes(b"1:name=systemd:/\n0::/\n")
    looks = ProcFs(str(proc.root), FakeCgroups({7: b"/", 8: b"/x"}))
    alive = looks.surroundings(31, START, 7)
    assert alive.container is not None
    assert looks.surroundings(31, START, 8).container == alive.container
    gone = looks.surroundings(99, START, 7)
    assert (gone.cgroup, gone.container, gone.missing["container"]) == (b"/", None, Missing.GONE)
    (proc.root / "self" / "cgroup").write_bytes(b"0::/\n")
    unified = ProcFs(str(proc.root), FakeCgroups({7: b"/"})).surroundings(99, START, 7)
    assert "container" not in unified.missing


def test_a_cgroup_that_the_id_does_not_tell(proc: FakeProc) -> None:
    look = ProcFs(str(proc.root), FakeCgroups({})).surroundings
    assert look(30, START, 7).cgroup == b"/system.slice"
    assert look(99, START, 7).missing["cgroup"] is Missing.GONE


def test_a_process_that_moves(proc: FakeProc) -> None:
    procfs = ProcFs(str(proc.root), FakeCgroups({7: b"/first", 8: DOCKER}))
    first = procfs.surroundings(30, START, 7)
    shutil.rmtree(proc.root / "30")
    second = procfs.surroundings(30, START, 8)
    assert second == first._replace(cgroup=DOCKER, container=IN_DOCKER)
    third = procfs.surroundings(30, START, 9)
    assert third == first._replace(cgroup=None, missing={"cgroup": Missing.CGROUP_GONE})
    assert procfs.surroundings(30, START, 0) == first
    assert procfs.surroundings(30, START, 7) is first


def test_ids_that_nobody_knows_change_nothing(proc: FakeProc) -> None:
    with CgroupPaths("/dev/null") as nothing:
        for cgroups in nothing, None:
            procfs = ProcFs(str(proc.root), cgroups)
            first = procfs.surroundings(30, START, 7)
            assert first.cgroup == b"/system.slice"
            assert procfs.surroundings(30, START, 8) is first


# --- What is kept ------------------------------------------------------------------------


def test_a_process_is_looked_up_once(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    procfs = ProcFs(str(proc.root))
    first = procfs.surroundings(30, START, 7)
    nobody = procfs.surroundings(99, START, 7)

    def fail(*_: object, **__: object) -> int:
        raise AssertionError("it asks again")

    for name in "open", "readlink", "stat":
        monkeypatch.setattr(os, name, fail)
    assert procfs.surroundings(30, START, 7) is first
    assert procfs.surroundings(99, START, 7) is nobody


def test_a_process_whose_start_is_not_known(proc: FakeProc) -> None:
    """It is kept until there is another one."""
    procfs = ProcFs(str(proc.root))
    first = procfs.surroundings(30, 0, 0)
    assert procfs.surroundings(30, 0, 0) is first
    shutil.rmtree(proc.root / "30")
    assert procfs.surroundings(30, 0, 0) is first
    proc.add(30, 1, ticks=6000, cmdline=b"other\0")
    assert procfs.surroundings(30, 0, 0).args == (b"other",)
    assert procfs.surroundings(31, 0, 0).args is None
    proc.add(31, 1, cmdline=b"late\0")
    assert procfs.surroundings(31, 0, 0).args == (b"late",)
    assert len(procfs._known) == 2


def test_a_process_that_executes_another_program_is_looked_up_again(proc: FakeProc) -> None:
    procfs = ProcFs(str(proc.root))
    first = procfs.surroundings(30, START, 7, 1)
    shutil.rmtree(proc.root / "30")
    proc.add(30, 1, cmdline=b"other\0")
    assert procfs.surroundings(30, START, 7, 1) is first
    assert procfs.surroundings(30, START, 7, 2).args == (b"other",)


def test_what_is_kept_is_bounded(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CACHE_ENTRIES", 10)
    procfs = ProcFs(str(proc.root))
    for pid in range(1000, 1100):
        procfs.surroundings(pid, START, 0)
    assert len(procfs._known) == 10
    assert procfs._known.get((1090, START, 0))
    assert not procfs._known.get((1089, START, 0))


def test_so_is_its_size(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CACHE_BYTES", 200_000)
    procfs = ProcFs(str(proc.root))
    for pid in range(1000, 1020):
        proc.add(pid, 1, cmdline=b"x" * 40_000)
        assert procfs.surroundings(pid, START, 0).args == (b"x" * process.ARGS_BYTES,)
    assert 2 < len(procfs._known) < 7


# --- The real one ------------------------------------------------------------------------


def _start_ns(pid: int) -> int:
    """As the kernel has it, to a tick."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]) * NS_PER_TICK


@pytest.mark.live
def test_this_process() -> None:
    found = ProcFs().surroundings(os.getpid(), _start_ns(os.getpid()), 0)
    assert found.args is not None
    assert [os.fsdecode(arg) for arg in found.args[:64]] == sys.orig_argv[:64]
    assert found.cwd == os.getcwdb()
    assert found.ancestors[0].pid == os.getppid()
    assert found.ancestors[0].start_ticks * NS_PER_TICK == _start_ns(os.getppid())
    assert found.ancestors_cut or found.ancestors[-1].pid == 1
    assert found.cgroup is not None
    assert not found.missing


@pytest.mark.live
def test_children_of_this_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        ["/bin/sh", "-c", "echo; read x", "", b"\xff\n"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    start = _start_ns(child.pid)
    procfs = ProcFs()
    found = procfs.surroundings(child.pid, start, 0)
    assert found.args == (b"/bin/sh", b"-c", b"echo; read x", b"", b"\xff\n")
    assert found.cwd == bytes(tmp_path)
    assert found.ancestors[0].pid == os.getpid()
    assert found.ancestors[0].executable == os.fsencode(os.readlink("/proc/self/exe"))
    other = ProcFs().surroundings(child.pid, start + NS_PER_TICK, 0)
    assert set(other.missing.values()) == {Missing.REPLACED}

    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = ProcFs().surroundings(child.pid, start, 0)
    assert zombie.missing == {"args": Missing.GONE, "working_directory": Missing.GONE}
    assert zombie.ancestors == found.ancestors
    assert zombie.cgroup == found.cgroup
    child.wait()
    child.stdout.close()
    gone = ProcFs().surroundings(child.pid, start, 0)
    assert gone.missing == dict.fromkeys((*THREE, "cgroup"), Missing.GONE)
    assert procfs.surroundings(child.pid, start, 0) is found


@pytest.mark.live
def test_a_child_whose_first_thread_has_ended() -> None:
    """exit(2), which pthread_exit() comes to, ends only the thread that calls it."""
    script = (
        "import ctypes, threading, sys\n"
        "threading.Thread(target=lambda: (print(flush=True), sys.stdin.read())).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        hidden = threading.Event()
        while b") Z" not in Path(f"/proc/{child.pid}/stat").read_bytes():
            assert not hidden.wait(0.01)
        found = ProcFs().surroundings(child.pid, _start_ns(child.pid), 0)
        child.kill()
    assert found.args is not None
    assert found.args[1] == b"-c"
    assert found.cwd == os.getcwdb()
    assert not found.missing


@pytest.mark.live
def test_every_process_of_this_host() -> None:
    with CgroupPaths() as cgroups:
        procfs = ProcFs(cgroups=cgroups)
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            found = procfs.surroundings(int(pid), 0, 0)
            assert (found.args is None) == ("args" in found.missing)
            assert (found.cwd is None) == ("working_directory" in found.missing)
            assert (found.cgroup is None) == ("cgroup" in found.missing)
