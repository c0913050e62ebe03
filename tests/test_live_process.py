# SPDX-License-Identifier: Apache-2.0
"""Who makes a call: executable, arguments, parent, credentials, namespaces, cgroup.

Against /proc, which is asked while the process waits, or against what the process was given.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import stimulus
from bpfsnoop.events.value import printable
from running import PATIENCE_S, Document, Trace, Tracer, bpfsnoop_run

pytestmark = pytest.mark.live

SOURCE = Path(__file__).with_name("tiny.c")
ARGS_MAX = 512
"""So much of the arguments is read at the call itself; the rest comes from /proc."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that makes one bpf(2) call and ends."""
    program = tmp_path_factory.mktemp("tiny") / "tiny"
    subprocess.run(["gcc", "-static", "-O1", "-o", program, SOURCE], check=True)
    return program


# --- Ended before anybody could look -----------------------------------------------------

TIMES = 200
CHILDREN = """
    import json, os, sys

    program, times, copies = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    for number in range(times):
        copy = f"{copies}/copy{number}"
        os.link(program, copy)
        argv = [f"child {number}", *(str(each) for each in range(number % 7))]
        pid = os.fork()
        if pid == 0:
            os.execv(copy, argv)
        os.waitpid(pid, 0)
        os.unlink(copy)
        print(json.dumps([pid, copy, argv]))
    print(os.getpid())
"""


def _python(script: str, *argv: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", textwrap.dedent(script), *argv]


def test_short_lived_processes_are_known(tmp_path: Path, tiny: Path) -> None:
    out, copies = tmp_path / "out", tiny.parent / "copies"
    copies.mkdir()
    script = _python(CHILDREN, tiny, str(TIMES), copies)
    finished = bpfsnoop_run("--json", "-o", out, "-e", "map_freeze", "--", *map(str, script))
    assert (finished.status, finished.err) == (0, "")
    *told, parent = map(json.loads, finished.lines)
    events = Trace.of(out.read_bytes()).events
    assert len(events) == len(told) == TIMES
    starts = []
    for (pid, executable, argv), document in zip(told, events, strict=True):
        process = document["process"]
        assert (process["pid"], process["executable"]) == (pid, executable)
        assert process["args"] == argv
        assert process["parent"]["pid"] == parent
        assert process["parent"]["name"] == Path(sys.executable).name[:15]
        assert document["bpf"]["process"]["exe_deleted"] is False
        assert process["start"] <= document["@timestamp"]
        starts.append(process["start"])
    assert starts == sorted(starts)
    assert len({document["process"]["entity_id"] for document in events}) == TIMES
    assert len({document["process"]["parent"]["entity_id"] for document in events}) == 1


# --- While it waits ----------------------------------------------------------------------


class Waiting:
    """A process that makes its call when it is told, and stays until it is told to go."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.pid = process.pid

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def link(self, name: str) -> str:
        return os.readlink(f"/proc/{self.pid}/{name}")

    def status(self, key: str) -> str:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines)[key].strip()

    def read(self, name: str) -> bytes:
        return Path(f"/proc/{self.pid}/{name}").read_bytes()


@contextmanager
def _waiting(
    executable: str | Path, argv: Sequence[str | bytes], **options: Any
) -> Iterator[Waiting]:
    process = subprocess.Popen(
        argv, executable=executable, stdin=subprocess.PIPE, bufsize=0, **options
    )
    try:
        yield Waiting(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()


def _seen(out: Path, waiting: Waiting) -> Document:
    """What is told of its call, which it makes now, while it goes on."""
    options = "--json", "-o", out, "-p", str(waiting.pid), "-M", "1"
    with Tracer(*options) as tracer:
        tracer.ready()
        waiting.go()
        assert tracer.wait().status == 0
    (document,) = Trace.of(out.read_bytes()).events
    return document


def test_everything_is_as_proc_has_it(tmp_path: Path, tiny: Path) -> None:
    with _waiting(tiny, ["tiny", "wait", "  odd\targ\n"], cwd=tmp_path) as waiting:
        document = _seen(tmp_path / "out", waiting)
        process, extra = document["process"], document["bpf"]["process"]
        assert process["executable"] == waiting.link("exe")
        assert process["args"] == ["tiny", "wait", r"  odd\targ\n"]
        assert process["working_directory"] == str(tmp_path)
        assert process["parent"]["pid"] == os.getpid()
        assert process["parent"]["executable"] == os.readlink("/proc/self/exe")
        assert process["ancestors"][0]["pid"] == os.getpid()
        assert process["ancestors"][-1]["pid"] == 1
        assert f"pid:[{extra['pid_namespace']}]" == waiting.link("ns/pid")
        assert f"mnt:[{extra['mount_namespace']}]" == waiting.link("ns/mnt")
        assert f"user:[{extra['user_namespace']}]" == waiting.link("ns/user")
        assert extra["argv0"] == "tiny"
        file = os.stat(f"/proc/{waiting.pid}/exe")
        assert extra["exe_uid"] == str(file.st_uid)
        assert extra["exe_mode"] == f"{stat.S_IMODE(file.st_mode):04o}"
        assert extra["exe_authentic"] is True
        login = waiting.read("loginuid").decode()
        assert extra.get("login_uid") == (None if login == str((1 << 32) - 1) else login)
        effective = process["thread"]["capabilities"]["effective"]
        assert len(effective) == int(waiting.status("CapEff"), 16).bit_count()
        unified = [line for line in waiting.read("cgroup").decode().splitlines() if "::" in line]
        assert [f"0::{extra['cgroup']}"] == unified


CAPSET = """
    import struct
    header = ctypes.create_string_buffer(struct.pack("=II", 0x20080522, 0))
    few = 1 << 39 | 1 << 12 | 1 << 7  # CAP_BPF, CAP_NET_ADMIN, CAP_SETUID
    data = ctypes.create_string_buffer(struct.pack("=6I", few & 0xffffffff, few & 0xffffffff, 0,
                                                   few >> 32, few >> 32, 0))
    # Not over execve(2), so the call is made here.
    assert libc.capset(header, data) == 0
"""
HERE = """
    import ctypes, os, sys
    sys.path.insert(0, {tests!r})
    libc = ctypes.CDLL(None, use_errno=True)
    import stimulus
"""
CALL = """
    sys.stdin.readline()
    stimulus.attempt(stimulus.map_freeze, -1 & 0xffffffff)
    sys.stdin.readline()
"""


def _script(*parts: str) -> str:
    head = textwrap.dedent(HERE).format(tests=str(SOURCE.parent))
    return head + "".join(textwrap.dedent(part) for part in (*parts, CALL))


@contextmanager
def _waiting_python(*parts: str) -> Iterator[Waiting]:
    argv = [sys.executable, "-c", _script(*parts)]
    with _waiting(sys.executable, argv) as waiting:
        yield waiting


def _ready(waiting: Waiting) -> None:
    # It has prepared itself as soon as it waits for its line.
    deadline = time.monotonic() + PATIENCE_S
    while waiting.read("wchan") not in (b"pipe_read", b"anon_pipe_read"):
        assert waiting.process.poll() is None
        assert time.monotonic() < deadline
        os.sched_yield()


def test_credentials_are_those_at_the_call(tmp_path: Path) -> None:
    with _waiting_python("os.setresuid(0, 12345, 0)") as waiting:
        _ready(waiting)
        document = _seen(tmp_path / "out", waiting)
    assert document["user"]["effective"] == {"id": "12345"}
    assert document["user"]["id"] == "0"
    assert document["process"]["thread"]["capabilities"]["effective"] == []


def test_capabilities_are_those_at_the_call(tmp_path: Path) -> None:
    with _waiting_python(CAPSET) as waiting:
        _ready(waiting)
        document = _seen(tmp_path / "out", waiting)
    assert document["process"]["thread"]["capabilities"]["effective"] == [
        "CAP_SETUID", "CAP_NET_ADMIN", "CAP_BPF",
    ]  # fmt: skip
    assert document["bpf"]["process"]["cap_bpf"] is True


def test_capabilities_in_a_user_namespace_are_worth_nothing(tmp_path: Path, tiny: Path) -> None:
    with _waiting("/usr/bin/unshare", ["unshare", "-Ur", str(tiny), "wait"]) as waiting:
        _ready(waiting)
        document = _seen(tmp_path / "out", waiting)
        extra = document["bpf"]["process"]
        assert f"user:[{extra['user_namespace']}]" == waiting.link("ns/user")
    assert extra["user_namespace"] != os.stat("/proc/self/ns/user").st_ino
    assert "CAP_BPF" in document["process"]["thread"]["capabilities"]["effective"]
    assert extra["cap_bpf"] is False


def test_a_title_is_what_was_there_at_the_call(tmp_path: Path) -> None:
    """As setproctitle(3) does it: argv is overwritten in place."""
    title = """
        stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
        start, end = int(stat[45]), int(stat[46])
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, b"a title\\x1b[31m", 12)
    """
    with _waiting_python(title) as waiting:
        _ready(waiting)
        shown = waiting.read("cmdline")
        document = _seen(tmp_path / "out", waiting)
    assert shown.startswith(b"a title\x1b[31m\0")
    assert document["process"]["args"][0] == r"a title\33[31m"


@pytest.mark.parametrize(
    ("name", "argv"),
    {
        "hostile": [b'\x1b[2J\n"\\\xff', b"wait", b"", b" ", b"--- x[1] {} ---"],
        "long": [b"tiny", b"wait", b"l" * 3000],
        "many": [b"tiny", b"wait", *(b"%d" % number for number in range(400))],
        "too long": [b"tiny", b"wait", b"t" * 100_000],
    }.items(),
)
def test_arguments(tmp_path: Path, tiny: Path, name: str, argv: list[bytes]) -> None:
    with _waiting(tiny, argv) as waiting:
        document = _seen(tmp_path / "out", waiting)
    process, extra = document["process"], document["bpf"]["process"]
    if name == "too long":
        assert extra["args_cut"] is True
        assert process["args"][:2] == ["tiny", "wait"]
        assert process["args"][2].startswith("t" * (ARGS_MAX - 10))
    else:
        assert process["args"] == [printable(arg) for arg in argv]
        assert "args_cut" not in extra


def test_no_arguments_at_all(tmp_path: Path, tiny: Path) -> None:
    """Since Linux 5.18 the kernel makes that a single empty one."""
    out = tmp_path / "out"
    script = """
        import ctypes, os, sys
        nothing = (ctypes.c_char_p * 1)(None)
        ctypes.CDLL(None).execve(os.fsencode(sys.argv[1]), nothing, nothing)
    """
    command = [*map(str, _python(script, tiny))]
    finished = bpfsnoop_run("--json", "-o", out, "-e", "map_freeze", "--", *command)
    assert (finished.status, finished.err) == (0, "")
    (document,) = Trace.of(out.read_bytes()).events
    absent = document["bpf"]["process"].get("absent", {})
    assert document["process"].get("args") == [""] or absent["args"] == "empty"
    assert document["process"]["executable"] == str(tiny)


def test_long_arguments_of_what_has_ended_are_marked_as_cut(tmp_path: Path, tiny: Path) -> None:
    """Nobody can look at them any more, so there is what was read at the call."""
    out = tmp_path / "out"
    argv = [str(tiny), "x" * 2000]
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with (
        _waiting_python_command(script, argv) as (pid, go),
        Tracer("--json", "-o", out, "-f", "-p", str(pid)) as tracer,
    ):
        tracer.ready()
        tracer.process.send_signal(signal.SIGSTOP)  # so that it looks when all is over
        go()
        tracer.process.send_signal(signal.SIGCONT)
        assert tracer.wait().status == 0
    (document,) = Trace.of(out.read_bytes()).events
    assert document["process"]["args"] == [str(tiny), "x" * (ARGS_MAX - len(str(tiny)) - 1)]
    assert document["bpf"]["process"]["args_cut"] is True


@contextmanager
def _waiting_python_command(script: str, argv: Sequence[str]) -> Iterator[tuple[int, Any]]:
    command = [sys.executable, "-c", f"import sys; sys.stdin.readline(); {script}", *argv]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:

        def go() -> None:
            process.communicate(b"\n")

        yield process.pid, go


# --- Executables in odd places -----------------------------------------------------------


def test_a_deleted_executable(tmp_path: Path, tiny: Path) -> None:
    copy = tmp_path / "deleted"
    os.link(tiny, copy)
    with _waiting(copy, ["tiny", "wait"]) as waiting:
        copy.unlink()
        document = _seen(tmp_path / "out", waiting)
        assert waiting.link("exe") == f"{copy} (deleted)"
    assert document["process"]["executable"] == str(copy)
    assert document["bpf"]["process"]["exe_deleted"] is True
    assert document["bpf"]["process"]["exe_memfd"] is False
    assert document["bpf"]["process"]["exe_authentic"] is True


def test_an_executable_named_as_if_deleted(tmp_path: Path, tiny: Path) -> None:
    copy = tmp_path / "still there (deleted)"
    os.link(tiny, copy)
    with _waiting(copy, ["tiny", "wait"]) as waiting:
        document = _seen(tmp_path / "out", waiting)
    assert document["process"]["executable"] == str(copy)
    assert document["bpf"]["process"]["exe_deleted"] is False


def test_an_executable_that_never_had_a_path(tmp_path: Path, tiny: Path) -> None:
    """memfd_create(2) and fexecve(3)"""
    fd = os.memfd_create("ghost\n", 0)
    try:
        os.write(fd, tiny.read_bytes())
        with _waiting(f"/proc/self/fd/{fd}", ["tiny", "wait"], pass_fds=[fd]) as waiting:
            document = _seen(tmp_path / "out", waiting)
            assert waiting.link("exe") == "/memfd:ghost\n (deleted)"
    finally:
        os.close(fd)
    assert document["process"]["executable"] == r"memfd:ghost\n"
    assert document["bpf"]["process"]["exe_memfd"] is True
    assert document["bpf"]["process"]["exe_authentic"] is False


def test_an_executable_deeper_than_is_followed(tmp_path: Path, tiny: Path) -> None:
    home = os.getcwd()
    os.chdir(tmp_path)
    try:
        for number in range(60):
            os.mkdir(f"d{number}")
            os.chdir(f"d{number}")
        os.link(tiny, "deep")
        with _waiting("./deep", ["tiny", "wait"]) as waiting:
            os.chdir(home)
            document = _seen(tmp_path / "out", waiting)
            true = waiting.link("exe")
    finally:
        os.chdir(home)
    shown = document["process"]["executable"]
    if shown != true:
        assert document["bpf"]["process"]["exe_cut"] is True
        assert true.endswith("/" + shown)
        assert shown.endswith("d58/d59/deep")


@pytest.mark.parametrize(
    ("uid", "mode"), [(12345, 0o755), (0, 0o777), (0, 0o775), (0, 0o757), (0, 0o4755), (0, 0o555)]
)
def test_an_executable_that_others_can_write_to(
    tmp_path: Path, tiny: Path, uid: int, mode: int
) -> None:
    copy = Path(shutil.copy(tiny, tmp_path / "copy"))
    os.chown(copy, uid, 0)
    copy.chmod(mode)
    with _waiting(copy, ["tiny", "wait"]) as waiting:
        extra = _seen(tmp_path / "out", waiting)["bpf"]["process"]
    assert (extra["exe_uid"], extra["exe_mode"]) == (str(uid), f"{mode:04o}")
    assert extra["exe_authentic"] is (uid == 0 and not mode & 0o022)


FROM_ELSEWHERE = """
    mount --bind {other} {program}
    exec 3<{program}
    tail -f /dev/null --pid=$$ >/dev/null 2>&1 &
    exec nsenter --mount=/proc/{host}/ns/mnt /proc/self/fd/3 wait
"""


@pytest.mark.parametrize(
    ("script", "authentic"),
    [
        # As a service with PrivateTmp= has it.
        ("exec {program} wait", True),
        ("mount -t tmpfs none /mnt; exec {program} wait", True),
        ("mount --bind {other} {program}; exec {program} wait", False),
        ("mount -t tmpfs none {place}; cp {other} {program}; exec {program} wait", False),
        ("mount --bind {inner} {place}; exec {program} wait", False),
        # Back in the namespace of the host, but the file is from a mount of this one.
        (FROM_ELSEWHERE, False),
    ],
)
def test_the_same_path_in_another_mount_namespace(
    tmp_path: Path, tiny: Path, script: str, authentic: bool
) -> None:
    place, inner = tmp_path / "place", tmp_path / "inner"
    for directory in place, inner:
        directory.mkdir()
        shutil.copy(tiny, directory / "agent")
    names = {"program": place / "agent", "place": place, "inner": inner, "host": os.getpid(),
             "other": inner / "agent"}  # fmt: skip
    command = ["unshare", "-m", "sh", "-ec", textwrap.dedent(script).format(**names)]
    with _waiting("/usr/bin/unshare", command) as waiting:
        _ready(waiting)
        document = _seen(tmp_path / "out", waiting)
        true = waiting.link("exe")
    assert document["process"]["executable"] == true == str(place / "agent")
    assert document["bpf"]["process"]["exe_authentic"] is authentic


@pytest.mark.parametrize("place", ["bind mount", "bound file", "chroot", "tmpfs", "hidden"])
def test_an_executable_in_a_mount_namespace_of_its_own(
    tmp_path: Path, tiny: Path, place: str
) -> None:
    """The path is what /proc/PID/exe is for us, who are in another one."""
    where = tmp_path / "where"
    where.mkdir()
    inner = tmp_path / "inner"
    inner.mkdir()
    program = where / "tiny"
    os.link(tiny, inner / "tiny")
    script = {
        "bind mount": f"mount --bind {inner} {where}",
        "bound file": f"touch {where}/tiny; mount --bind {tiny} {where}/tiny",
        "chroot": f"mount --bind {inner} {where}",
        "tmpfs": f"mount -t tmpfs none {where}; cp {tiny} {where}/tiny",
        "hidden": f"mount -t tmpfs none {where}; cp {tiny} {where}/tiny",
    }[place]
    run = f"exec {program} wait"
    if place == "chroot":
        run = f"exec chroot {where} /tiny wait"
    if place == "hidden":  # something else is mounted over it while it runs
        run = f"exec 3<{program}; mount -t tmpfs none {where}; exec /proc/self/fd/3 wait"
    command = ["unshare", "-m", "sh", "-ec", f"{script}; {run}"]
    with _waiting("/usr/bin/unshare", command) as waiting:
        _ready(waiting)
        document = _seen(tmp_path / "out", waiting)
        true = waiting.link("exe")
        assert f"mnt:[{document['bpf']['process']['mount_namespace']}]" == waiting.link("ns/mnt")
    assert document["process"]["executable"] == true
    assert document["bpf"]["process"]["mount_namespace"] != os.stat("/proc/self/ns/mnt").st_ino


def test_a_pid_namespace_of_its_own(tmp_path: Path) -> None:
    """Ids are those that we see, not those that it sees."""
    out = tmp_path / "out"
    script = _script("print(os.getpid(), os.stat('/proc/thread-self/ns/pid').st_ino, flush=True)")
    command = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", script]
    with _waiting("/usr/bin/unshare", command, stdout=subprocess.PIPE) as waiting:
        assert waiting.process.stdout
        its_pid, namespace = map(int, waiting.process.stdout.readline().split())
        assert its_pid == 1
        children = Path(f"/proc/{waiting.pid}/task/{waiting.pid}/children").read_text()
        child = int(children)
        with Tracer("--json", "-o", out, "-p", str(child), "-M", "1") as tracer:
            tracer.ready()
            waiting.go()
            assert tracer.wait().status == 0
        os.kill(child, 9)
        waiting.process.stdout.close()
    (document,) = Trace.of(out.read_bytes()).events
    assert document["process"]["pid"] == child
    assert document["process"]["parent"]["pid"] == waiting.pid
    assert document["bpf"]["process"]["pid_namespace"] == namespace
    assert namespace != os.stat("/proc/self/ns/pid").st_ino


# --- Cgroups -----------------------------------------------------------------------------


def test_the_cgroup_is_that_of_the_call(tmp_path: Path, tiny: Path) -> None:
    with (
        stimulus.temporary_cgroup() as cgroup,
        _waiting(tiny, ["tiny", "wait"]) as waiting,
    ):
        (cgroup / "cgroup.procs").write_text(str(waiting.pid))
        document = _seen(tmp_path / "out", waiting)
        extra = document["bpf"]["process"]
        assert f"0::{extra['cgroup']}" in waiting.read("cgroup").decode().splitlines()
        assert extra["cgroup_id"] == cgroup.stat().st_ino
        assert extra["cgroup"].endswith(cgroup.name)


# --- Lines -------------------------------------------------------------------------------


def test_lines_introduce_a_process_once(tiny: Path) -> None:
    script = f"{tiny} one; {tiny} two"
    lines = bpfsnoop_run("--", "sh", "-c", script).lines
    assert [line.startswith("--- tiny[") for line in lines] == [True, False, True, False]
    assert f'{{exe="{tiny}", args=["{tiny}", "one"], uid=0, parent=sh[' in lines[0]
    assert lines[0].endswith("} ---")
    quiet = bpfsnoop_run("-q", "--", "sh", "-c", script).lines
    assert [line.startswith("tiny[") for line in quiet] == [True, True]
