# SPDX-License-Identifier: Apache-2.0
"""What the user types, and what is said when it will not do: one sentence, with the cure."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import stimulus
from bpfsnoop.tracer.cli import main
from bpfsnoop.tracer.config import DAEMON, OPTIONS
from running import (
    BPFSNOOP,
    NOBODY,
    PATIENCE_S,
    ROOT,
    STIMULUS,
    Finished,
    Trace,
    bpfsnoop_run,
    calls_of,
    identity,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take away what root has")


def _told(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit status, and what is said; nothing is shown."""
    status: object
    try:
        status = main(argv)
    except SystemExit as error:  # argparse
        status = error.code
    out, err = capfd.readouterr()
    assert out == ""
    assert isinstance(status, int)
    return status, err


# --- What needs no kernel ----------------------------------------------------------------


def test_ebpf_is_the_kernel_program() -> None:
    finished = bpfsnoop_run("--ebpf")
    assert (finished.status, finished.err) == (0, "")
    kernel = ROOT / "tracer" / "kernel"
    whole = (kernel / "bpf_calls.c").read_text()
    for header in kernel.glob("*.h"):
        assert whole.count(f'#include "{header.name}"\n') == 1
        whole = whole.replace(f'#include "{header.name}"\n', header.read_text())
    assert finished.out.decode() == whole


def test_schema_is_a_schema() -> None:
    finished = bpfsnoop_run("schema")
    assert (finished.status, finished.err) == (0, "")
    Draft202012Validator.check_schema(json.loads(finished.out))


def test_version() -> None:
    finished = bpfsnoop_run("--version")
    version = metadata.version("bpfsnoop")
    assert (finished.status, finished.lines) == (0, [f"bpfsnoop {version}"])


def test_help_has_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capfd.readouterr().out
    for group, options in OPTIONS.items():
        assert (f"\n{group}:\n" in shown) == (group != DAEMON)
        for option in options:
            assert all(f"{flag} " in shown or f"{flag}\n" in shown or f"{flag}," in shown
                       for flag in option.flags)  # fmt: skip
    assert "exit status: 0 done; 1 cannot" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_module_is_the_program() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "bpfsnoop", "--version"], stdout=subprocess.PIPE, check=True
    )
    assert shown.stdout == bpfsnoop_run("--version").out


def test_help_into_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = bpfsnoop_run("schema", stdout=writer)
    finally:
        os.close(writer)
    assert (finished.status, finished.err) == (0, "")


# --- Wrong usage -------------------------------------------------------------------------

FOLLOW = (
    "-f follows the children of the processes that -p names: add -p PID"
    " (without -p and -- CMD all processes are traced)"
)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-e", "prog_laod"], "-e prog_laod: there is no such command; did you mean prog_load?"),
        (
            ["--full", "prog_laod"],
            "--full prog_laod: there is no such command; did you mean prog_load?",
        ),
        (["-f"], FOLLOW),
        (["--json", "-c"], "a summary (-c, -C) is text: leave out --json"),
        (["--"], "-- is to be followed by the program to trace"),
        (["ls", "-l"], None),
        (["ls"], "what is 'ls'? To run and trace a program, put -- before it: bpfsnoop -- ls"),
        (["ls", "x y"],
         "what is 'ls'? To run and trace a program, put -- before it: bpfsnoop -- ls 'x y'"),
        (["--json", "replay", "F"], "a subcommand comes first: bpfsnoop replay ..."),
        (["-p", "\udcff"], r"-p \udcff: must be a whole number"),
        (["-e", "\udcff\x1b[2J"],
         r"-e \udcff\x1b[2J: there is no such command; the names are those of enum bpf_cmd"),
        (["-u", "\udcff"], r"-u \udcff: there is no user \udcff"),
        (["-X", "\udcff"], "-X \\udcff: must be abbrev, raw or verbose"),
        (["--nonsense"], None),
        (["--quie"], None),
        (["-p"], None),
        (["replay"], None),
        (["replay", "a", "b"], None),
        (["replay", "-f", "a"], None),
        (["schema", "a"], None),
    ],
)  # fmt: skip
def test_wrong_usage(capfd: pytest.CaptureFixture[str], argv: list[str], told: str | None) -> None:
    """None stands for what argparse says: usage, and a sentence."""
    status, err = _told(capfd, *argv)
    assert status == 2
    if told is None:
        assert err.startswith("usage: bpfsnoop")
        assert re.search(r"\nbpfsnoop[ a-z]*: error: .+\n$", err)
    else:
        assert err == f"bpfsnoop: {told}\n"


def test_all_mistakes_are_told_each_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    status, err = _told(capfd, "-p", "x", "-X", "y")
    assert status == 2
    assert err == (
        "bpfsnoop: -p x: must be a whole number\nbpfsnoop: -X y: must be abbrev, raw or verbose\n"
    )


def test_a_configuration_file_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("quiet: 1\nevents: prog_laod\n")
    assert _told(capfd, "--config", str(file)) == (
        2, f"bpfsnoop: {file}:1: quiet: must be true or false\n",
    )  # fmt: skip
    file.write_text("events: prog_laod\n")
    assert _told(capfd, "--config", str(file)) == (
        2, "bpfsnoop: -e prog_laod: there is no such command; did you mean prog_load?\n",
    )  # fmt: skip


# --- What cannot be traced ---------------------------------------------------------------


@pytest.mark.live
def test_a_process_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
        assert _told(capfd, "-p", str(gone.pid)) == (
            1, f"bpfsnoop: there is no process {gone.pid}\n",
        )  # fmt: skip


@pytest.mark.live
def test_a_thread(capfd: pytest.CaptureFixture[str]) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        told = _told(capfd, "-p", str(thread.native_id))
    finally:
        done.set()
        thread.join()
    pid = os.getpid()
    assert told == (
        1, f"bpfsnoop: {thread.native_id} is a thread of process {pid}: use -p {pid}\n",
    )  # fmt: skip


@pytest.mark.live
def test_a_program_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for name in ("no-such-program", "./no-such-program", "\udcff"):
        assert _told(capfd, "-o", str(out), "--", name) == (
            1, f"bpfsnoop: cannot find a program named {name!r} to run: give its path\n",
        )  # fmt: skip
        assert not out.exists()


def test_a_program_that_may_not_be_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for path in (script, tmp_path):
        assert _told(capfd, "--", str(path)) == (
            1, f"bpfsnoop: cannot run {path}: it is not an executable file\n",
        )  # fmt: skip


@pytest.mark.live
def test_a_file_that_is_no_program(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes"
    path.write_text("not a program")
    assert _told(capfd, "--", str(path)) == (
        1, f"bpfsnoop: cannot run {path}: it is not an executable file\n",
    )  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("option", ["-o", "--record"])
@pytest.mark.parametrize(
    ("name", "reason"), [(".", "Is a directory"), ("no/such", "No such file or directory")]
)
def test_an_output_that_cannot_be_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, name: str, reason: str
) -> None:
    """Nothing is begun: the other file is left as it was."""
    target, other = tmp_path / name, tmp_path / "other"
    other.write_text("precious")
    rest = {"-o": "--record", "--record": "-o"}[option]
    assert _told(capfd, option, str(target), rest, str(other)) == (
        1, f"bpfsnoop: cannot open {target}: {reason}\n",
    )  # fmt: skip
    assert other.read_text() == "precious"


@pytest.mark.live
@pytest.mark.parametrize("option", ["-o", "--record"])
def test_a_full_disk(option: str) -> None:
    """Noticed with the first call; the program that is traced goes on all the same."""
    finished = bpfsnoop_run(option, "/dev/full", "--", *STIMULUS, "count", "1")
    assert finished.status == 1
    assert finished.complaint == "bpfsnoop: cannot write to /dev/full: No space left on device"
    assert finished.out.count(b'"cmd": 0, ') == 1


# --- Not permitted -----------------------------------------------------------------------


def _as_nobody_with(*capabilities: str) -> tuple[str, ...]:
    wanted = ",".join(("-all", *(f"+{capability}" for capability in capabilities)))
    return (
        "setpriv", "--reuid", str(NOBODY), "--clear-groups",
        f"--inh-caps={wanted}", f"--ambient-caps={wanted}",
    )  # fmt: skip


AS_NOBODY = _as_nobody_with("dac_read_search")  # to read this package wherever it lies
# Root as it is in a container.
WITHOUT_BPF = "setpriv", "--bounding-set=-bpf,-sys_admin"
NEW_PIDS = "unshare", "--pid", "--fork"


@as_root
@pytest.mark.parametrize(
    ("under", "told"),
    [
        (AS_NOBODY, "tracing needs root: run it with sudo"),
        (WITHOUT_BPF, "root is not enough here: CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN) are"
                      " missing; in a container add them, for example with --cap-add"),
        (NEW_PIDS, "this is a pid namespace of its own, where process ids are not the kernel's:"
                   " run it in the host's (docker: --pid=host, Kubernetes: hostPID: true)"),
    ],
)  # fmt: skip
def test_not_permitted(tmp_path: Path, under: tuple[str, ...], told: str) -> None:
    out = tmp_path / "out"
    out.write_text("precious")
    finished = bpfsnoop_run("-o", out, under=under)
    assert finished.status == 1
    assert finished.complaint == f"bpfsnoop: {told}"
    assert out.read_text() == "precious"


@as_root
def test_what_only_shows_needs_no_permission() -> None:
    for argv in (["--version"], ["--ebpf"], ["schema"], ["--help"]):
        finished = bpfsnoop_run(*argv, under=AS_NOBODY)
        assert (finished.status, finished.err) == (0, "")


# Makes bpf(2) fail for whoever it runs, as a container's seccomp profile does.
REFUSE_BPF = """
import ctypes, os, struct, sys
number, error, rest = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
load_number, if_equal = (0x20, 0, 0, 0), (0x15, 0, 1, number)
refuse, allow = (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000)
program = b"".join(struct.pack("HBBI", *i) for i in (load_number, if_equal, refuse, allow))
memory = ctypes.create_string_buffer(program, len(program))
prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(memory)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, prog) == 0, os.strerror(ctypes.get_errno())
os.execvp(rest[0], rest)
"""


@as_root
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errno.EPERM, "the kernel does not permit BPF here: run as root on the host, not in a"
                      " container without CAP_BPF and CAP_PERFMON or with a seccomp profile that"
                      " forbids bpf(2), and look at /sys/kernel/security/lockdown"),
        (errno.ENOSYS, "this kernel has no bpf(2), or something hides it: it needs"
                       " CONFIG_BPF_SYSCALL, and no seccomp filter in its way"),
        (errno.ENOMEM, "bpf(2) does not work here: Cannot allocate memory"),
    ],
)  # fmt: skip
def test_a_kernel_that_refuses_bpf(error: int, told: str) -> None:
    under = sys.executable, "-c", REFUSE_BPF, str(stimulus.SYS_BPF), str(error)
    finished = bpfsnoop_run(under=under)
    assert (finished.status, finished.complaint) == (1, f"bpfsnoop: {told}")


def _with(mounts: str) -> tuple[str, ...]:
    # Other mounts, for this run alone.
    return "unshare", "--mount", "sh", "-c", f'{mounts}; exec "$@"', "sh"


def _without(*paths: str) -> tuple[str, ...]:
    return _with("; ".join(f"[ ! -d {path} ] || mount -t tmpfs none {path}" for path in paths))


# Of a process that makes no call meanwhile.
A_MOMENT = "-q", "-d", "10ms", "-p", str(os.getpid())

WITH_TRACEFS = _with(
    "[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing"
)
WITHOUT_TRACEFS = _without("/sys/kernel/debug", "/sys/kernel/tracing")
WITHOUT_SYS_ADMIN = "setpriv", "--bounding-set=-sys_admin"


@pytest.mark.live
@pytest.mark.parametrize(
    "who", [WITHOUT_SYS_ADMIN, _as_nobody_with("bpf", "perfmon", "dac_read_search")]
)
def test_the_two_capabilities_are_enough(who: tuple[str, ...]) -> None:
    """Where tracefs is mounted and can be read."""
    finished = bpfsnoop_run(*A_MOMENT, under=(*WITH_TRACEFS, *who))
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    if level <= 2:
        assert finished == Finished(0, b"", "")
    else:  # as distributions have patched it
        assert finished.status == 1
        assert finished.complaint == (
            "bpfsnoop: cannot attach to the tracepoint syscalls:sys_enter_bpf: Permission denied"
            f" (kernel.perf_event_paranoid is {level}, which wants CAP_SYS_ADMIN)"
        )


def _check_tracefs(reason: str, under: Sequence[str]) -> None:
    """Without it there are other tracepoints, unless the user wants just these."""
    finished = bpfsnoop_run(*A_MOMENT, "--probe", "tracepoint", under=under)
    assert (finished.status, finished.complaint) == (1, f"bpfsnoop: {reason}")
    finished = bpfsnoop_run(*A_MOMENT, "--probe", "auto", under=under)
    assert (finished.status, finished.err) == (0, "")


@pytest.mark.live
def test_tracefs_that_cannot_be_mounted() -> None:
    _check_tracefs(
        "tracefs is not mounted and cannot be mounted here (Operation not permitted):"
        " mount it with 'mount -t tracefs tracefs /sys/kernel/tracing'",
        (*WITHOUT_TRACEFS, *WITHOUT_SYS_ADMIN),
    )


def _others_may_read(path: Path) -> bool:
    return all(directory.stat().st_mode & 0o5 == 0o5 for directory in (path, *path.parents))


@pytest.mark.live
@pytest.mark.skipif(not _others_may_read(ROOT), reason="others may not read this package")
def test_tracefs_that_cannot_be_read() -> None:
    _check_tracefs(
        "tracefs is closed to this user, whatever its capabilities: run it as root",
        (*WITH_TRACEFS, *_as_nobody_with("bpf", "perfmon")),
    )


@pytest.mark.live
def test_raw_tracepoints_without_btf() -> None:
    finished = bpfsnoop_run(
        "--probe", "raw_tracepoint", "--cache", "", under=_without("/sys/kernel/btf")
    )
    assert finished.status == 1
    assert finished.complaint == (
        "bpfsnoop: raw tracepoints need the kernel's BTF: /sys/kernel/btf/vmlinux:"
        " No such file or directory"
    )


# --- Something is missing ----------------------------------------------------------------


@pytest.mark.live
def test_without_btf_it_traces_and_says_what_is_missing() -> None:
    command = "--json", "--cache", "", "--", *STIMULUS, "every"
    finished = bpfsnoop_run(*command, under=_without("/sys/kernel/btf"))
    assert finished.status == 0
    assert finished.complaint == (
        "bpfsnoop: no BTF of this kernel (/sys/kernel/btf/vmlinux: No such file or directory):"
        " objects behind descriptors, what process calls besides its ids, keys and values are"
        " not shown; constants newer than this bpfsnoop show as numbers, the arguments of"
        " BPF_COMMON_ATTRS as 0"
    )
    lines = finished.out.splitlines(keepends=True)
    trace = Trace.of(b"".join(line for line in lines if line.startswith(b'{"@timestamp"')))
    made = calls_of(b"".join(line for line in lines if not line.startswith(b'{"@timestamp"')))
    assert [*map(identity, trace.events)] == [*map(identity, made)]
    common = [d["bpf"]["common_attrs"] for d in trace.events if "common_attrs" in d["bpf"]]
    assert common == [{"address": "0x0", "size": 0}]


@pytest.mark.live
def test_tracefs_need_not_be_mounted_and_is_not_for_others() -> None:
    before = Path("/proc/mounts").read_text()
    finished = bpfsnoop_run(*A_MOMENT, under=WITHOUT_TRACEFS)
    assert finished == Finished(0, b"", "")
    assert Path("/proc/mounts").read_text() == before


@pytest.mark.live
def test_without_proc_it_is_said_so() -> None:
    finished = bpfsnoop_run(under=_without("/proc"))
    assert finished.status == 1
    assert finished.complaint.startswith("bpfsnoop: /proc is not mounted here")


INSTALL = (
    "install it with your distribution's package manager: python3-bpfcc (Debian, Ubuntu),"
    " python3-bcc (Fedora, RHEL, openSUSE), python-bcc (Arch) or py3-bcc (Alpine)"
)


@pytest.mark.live
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise ImportError('no module named bcc')",
         f"the Python module of BCC is missing: {INSTALL}"),
        ("def get_code(): pass",
         "the Python module bcc that is installed is PyPI's, which has nothing to do with BPF:"
         f" remove it (pip uninstall bcc), then {INSTALL}"),
        ("import os; os._exit(7)", None),
        ("def BPF(**options): raise RuntimeError('Failed to compile BPF module x')",
         "BCC could not compile the kernel program; -v shows what it printed"),
        ("def BPF(**options): raise Exception('surprise')",
         "BCC could not compile the kernel program; -v shows what it printed"),
        ("def BPF(**options): return None",
         "cannot compile the kernel program: AttributeError: module 'bcc' has no attribute 'lib'"),
    ],
)  # fmt: skip
def test_without_the_right_bcc(tmp_path: Path, source: str, told: str | None) -> None:
    (tmp_path / "bcc.py").write_text(source)
    out = tmp_path / "out"
    finished = bpfsnoop_run("-o", out, env={"PYTHONPATH": str(tmp_path)})
    assert finished.status == 1
    if told is None:
        assert "ended early (wait status 1792)" in finished.complaint
    else:
        assert finished.complaint == f"bpfsnoop: {told}"
    assert not out.exists()


@pytest.mark.live
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_standard_stream_may_be_closed(tmp_path: Path, closed: int) -> None:
    """As under some supervisors: no file of ours takes its place."""
    out = tmp_path / "out"
    under = "sh", "-c", f'exec "$@" {closed}>&-', "sh"
    script = f"{' '.join(STIMULUS)} count 1 >/dev/null"
    finished = bpfsnoop_run("--json", "-o", out, "--", "sh", "-c", script, under=under)
    assert (finished.status, finished.err) == (0, "")
    assert Trace.of(out.read_bytes()).map_names() == ["n0"]


@pytest.mark.live
def test_without_standard_output_there_is_nothing_to_show_on() -> None:
    finished = bpfsnoop_run(under=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert finished.status == 1
    assert finished.complaint == "bpfsnoop: cannot open standard output: Bad file descriptor"


@pytest.mark.live
def test_a_host_may_have_any_name() -> None:
    """The kernel takes any bytes for it; in documents they are escaped."""
    rename = r"printf 'a\377\033b' >/proc/sys/kernel/hostname"
    under = "unshare", "--uts", "sh", "-c", f'{rename}; exec "$@"', "sh"
    finished = bpfsnoop_run("--json", *A_MOMENT, under=under)
    assert (finished.status, finished.err) == (0, "")
    assert Trace.of(finished.out).loss["host"]["hostname"] == r"a\377\33b"


# --- Ctrl-C before it has begun ----------------------------------------------------------


@pytest.mark.live
def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    """The compilation takes a second, and the terminal's Ctrl-C goes to both processes."""
    compiling, out = tmp_path / "compiling", tmp_path / "out"
    os.mkfifo(compiling)
    (tmp_path / "bcc.py").write_text(
        f"import signal\nopen({str(compiling)!r}, 'w').close()\nsignal.pause()\n"
    )
    with subprocess.Popen(
        [BPFSNOOP, "-o", out],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    ) as starting:
        compiling.read_bytes()
        os.killpg(starting.pid, signal.SIGINT)
        _, err = starting.communicate(timeout=PATIENCE_S)
    assert (starting.returncode, err) == (130, b"")
    assert not out.exists()


# --- Arguments that are not text ---------------------------------------------------------


@pytest.mark.live
def test_arguments_may_be_any_bytes(tmp_path: Path) -> None:
    name = b"\xff\x1b[31m"
    out = os.fsencode(tmp_path) + b"/" + name
    finished = bpfsnoop_run("--comm", name, "--json", b"-o" + out, "--", *STIMULUS, "comm", name)
    assert (finished.status, finished.err) == (0, "")
    with open(out, "rb") as file:
        (document,) = Trace.of(file.read()).events
    assert document["process"]["name"] == r"\377\33[31m"
