# SPDX-License-Identifier: Apache-2.0
"""The pack on a running kernel: what attackers do raises its rules, what hosts do does not.

What a kernel refuses differs (lockdown, unprivileged_bpf_disabled, what is built in), so the
loader tells what came of each of its acts, and the rules are held against that.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import stimulus
from bpfsnoop.tracer import btf
from documents import VALIDATOR
from running import NOBODY, Argument, Tracer, bpfsnoop_run, command_line

pytestmark = pytest.mark.live

SOURCE = Path(__file__).with_name("loader.c")
BPFFS = ("unshare", "-m", "sh", "-c", 'mount -t bpf bpf "$0" && exec "$@"')
"""And where: a bpf file system that nobody else sees."""
NETNS = ("unshare", "-n")
RULES = ("--rules", "default", "--alerts-only", "--alert-interval", "0", "--json")
SERIOUS = ("high", "critical")
CONTAINER = "5b1c0d2f4e3a9b6c" * 4

Outcomes = Mapping[str, int]
"""Of each act, what the kernel said: a number, or -errno."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that is not one of those for temporary files, with the loader in it."""
    with tempfile.TemporaryDirectory(prefix="bpfsnoop-tests-", dir="/var/lib") as directory:
        os.chmod(directory, 0o755)
        program = Path(directory, "loader")
        subprocess.run(["gcc", "-static", "-O1", "-o", program, SOURCE], check=True)
        yield Path(directory)


class Judged(NamedTuple):
    seen: int
    """Calls of bpf(2)."""
    rules: Mapping[str, str]
    """The names of those that raised an alert, with their levels."""
    outcomes: Outcomes
    alerts: Sequence[Any]


def judged(directory: Path, *command: Argument) -> Judged:
    out = directory / "alerts"
    finished = bpfsnoop_run(*RULES, "-o", out, "--", *command)
    *told_of, closing = map(json.loads, out.read_bytes().splitlines())
    for document in (*told_of, closing):
        VALIDATOR.validate(document)
    alerts = [document for document in told_of if document["event"]["kind"] == "alert"]
    told = [line.rpartition(" ") for line in finished.lines]
    outcomes = {act: int(result) for act, _, result in told if result.lstrip("-").isdigit()}
    rules = {alert["rule"]["name"]: alert["bpf"]["alert"]["level"] for alert in alerts}
    return Judged(closing["bpf"]["loss"]["seen"], rules, outcomes, alerts)


# --- What attackers do -------------------------------------------------------------------


class Attack(NamedTuple):
    acts: Sequence[str]
    raises: Callable[[Outcomes], set[str]]
    under: Sequence[str] = ()


def always(*rules: str) -> Callable[[Outcomes], set[str]]:
    return lambda _: set(rules)


def installed(did: Outcomes) -> set[str]:
    """A rootkit, as far as the kernel let it."""
    if did["helper:36"] < 0:
        return {"bpf_tampering_refused"}
    return {
        "bpf_user_memory_write", "bpf_rootkit_install_sequence", "bpf_syscall_view_tampering",
    }  # fmt: skip


def overridden(did: Outcomes) -> set[str]:
    return {"bpf_tampering_refused" if did["helper:58"] < 0 else "bpf_override_return"}


def hooked(did: Outcomes) -> set[str]:
    return {"bpf_net_hook_untrusted"} if did["link:37"] >= 0 else set()


def knocked(did: Outcomes) -> set[str]:
    both = did["link:37"] >= 0 and did["link:47"] >= 0
    return hooked(did) | ({"bpf_knock_backdoor_pair"} if both else set())


def unprivileged(did: Outcomes) -> set[str]:
    """Where it is let, it tries until something is taken; else it is told no again and again."""
    if did["helper:5"] < 0:
        return {"bpf_unprivileged_spray"}
    return {
        "bpf_unprivileged_load", "bpf_unprivileged_exploit_chain", "bpf_verifier_bruteforce",
    }  # fmt: skip


ATTACKS: Mapping[str, Attack] = {
    "a rootkit is installed": Attack(
        ["name:hider", "helper:36", "tracepoint:sys_exit", "pin:/sys/fs/bpf/hider"], installed,
        [*BPFFS, "/sys/fs/bpf"],
    ),
    "calls can be made to fail": Attack(["type:2", "helper:58"], overridden),
    "processes can be killed": Attack(["helper:109"], always("bpf_send_signal")),
    "most of a program is out of sight": Attack(
        ["pad:5000", "helper:109"], always("bpf_load_half_seen")
    ),
    "a loader that loads": Attack(["nested"], always("bpf_nested_loader")),
    "a rootkit's name": Attack(
        ["name:handle_getdents", "helper:5"], always("bpf_rootkit_object_name")
    ),
    "the verifier is tried": Attack(["reject:30"], always("bpf_verifier_bruteforce")),
    "the verifier is tried without room for its log": Attack(
        ["log:200", "reject:30"], always("bpf_verifier_bruteforce")
    ),
    "other's objects are opened": Attack(["maps:15"], always("bpf_object_enumeration")),
    "a pin in an odd place": Attack(
        ["map:x", "pin:/mnt/x"], always("bpf_pin_suspicious_path"), [*BPFFS, "/mnt"]
    ),
    "a network hook": Attack(["type:6", "helper:5", "link:37"], hooked, NETNS),
    "a knock and its answer": Attack(
        ["type:6", "helper:5", "link:37", "type:3", "helper:5", "link:47"], knocked,
        NETNS,
    ),
    "nobody tries": Attack([f"user:{NOBODY}", "type:1", "reject:30", "helper:5"], unprivileged),
    "nobody asks": Attack(
        ["map:x", f"user:{NOBODY}", "info:500"], always("bpf_info_read_primitive")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_raises_its_rules_and_no_others(tmp_path: Path, place: Path, name: str) -> None:
    attack = ATTACKS[name]
    found = judged(tmp_path, *attack.under, place / "loader", *attack.acts)
    assert found.outcomes.keys() == set(attack.acts)
    assert found.rules.keys() == attack.raises(found.outcomes), found.outcomes


@pytest.mark.parametrize("act", ["unlink:{copy}", "type:17"])
def test_a_loader_in_a_temporary_place(place: Path, act: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        copy = shutil.copy(place / "loader", directory)
        found = judged(Path(directory), copy, act.format(copy=copy), "helper:5")
    assert found.rules == {"bpf_load_from_volatile_binary": "high"}


def test_a_loader_that_was_deleted(tmp_path: Path, place: Path) -> None:
    copy = shutil.copy(place / "loader", place / "deleted")
    found = judged(tmp_path, copy, f"unlink:{copy}", "helper:5")
    assert not Path(copy).exists()
    assert found.rules == {"bpf_load_from_volatile_binary": "high"}


def test_a_loader_in_memory_only(tmp_path: Path, place: Path) -> None:
    script = (
        "import os, sys; fd = os.memfd_create('kworker', 0);"
        "os.write(fd, open(sys.argv[1], 'rb').read());"
        "os.execv(f'/proc/self/fd/{fd}', ['loader', 'helper:5'])"
    )
    found = judged(tmp_path, sys.executable, "-c", script, place / "loader")
    assert found.outcomes["helper:5"] >= 0
    assert found.rules == {"bpf_load_from_volatile_binary": "high"}


def test_a_loader_that_pretends_to_be_another(tmp_path: Path, place: Path) -> None:
    copy = shutil.copy(place / "loader", place / "falco")
    assert judged(tmp_path, copy, "helper:5").rules == {"bpf_loader_masquerades": "high"}
    script = "import os, sys; os.execv(sys.argv[1], ['[kworker/0:1]', 'helper:5'])"
    found = judged(tmp_path, sys.executable, "-c", script, place / "loader")
    assert found.rules == {"bpf_loader_masquerades": "high"}
    found = judged(tmp_path, place / "loader", "comm:kworker/0:1", "helper:5")
    assert found.rules == {"bpf_loader_masquerades": "high"}


def test_several_processes_of_nobody_ask(tmp_path: Path, place: Path) -> None:
    """None of them often enough by itself."""
    ask = f"{place}/loader user:{NOBODY} info:250"
    found = judged(tmp_path, "sh", "-c", f"{ask}; {ask}")
    assert found.rules == {"bpf_info_read_primitive": "high"}


PRELOADED = """
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((constructor)) static void tries(void)
{
    for (int at = 0; at < 10; at++)
        syscall(SYS_bpf, 0, (unsigned[16]){ 2, 4, 8, 1 }, 64);
    _exit(0);
}
"""


def test_nobody_tries_from_within_systemd(tmp_path: Path, place: Path) -> None:
    systemd = Path("/usr/lib/systemd/systemd")
    restricted = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
    if not systemd.exists() or not restricted.exists() or restricted.read_text() == "0\n":
        pytest.skip("no systemd, or users may make maps")
    library = place / "preloaded.so"
    compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(compiler, input=PRELOADED.encode(), check=True)
    script = (
        f"import os; os.setuid({NOBODY});"
        f"os.execve('{systemd}', ['systemd', '--user'], {{'LD_PRELOAD': '{library}'}})"
    )
    found = judged(tmp_path, sys.executable, "-c", script)
    assert found.rules == {"bpf_unprivileged_spray": "medium"}


def test_a_load_below_a_network_service(place: Path) -> None:
    """The loader is gone when somebody looks, and the service goes on."""
    service = shutil.copy(os.path.realpath("/bin/sh"), place / "nginx")
    with Tracer(*RULES).ready() as tracer:
        argv = [service, "-c", f"{place}/loader helper:5; read line"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
            line = tracer.read_until(tracer.process.stdout, "bpf_load_by_service_descendant")
            running.communicate(b"over\n")
        alert = json.loads(line.splitlines()[-1])
        tracer.stop()
    assert alert["process"]["name"] == "loader"
    assert alert["process"]["ancestors"][0]["executable"] == str(service)


def test_a_load_in_a_container(tmp_path: Path, place: Path) -> None:
    with ExitStack() as stack:
        cgroup = stack.enter_context(stimulus.temporary_cgroup())
        inner = cgroup / f"docker-{CONTAINER}.scope"
        inner.mkdir()
        stack.callback(inner.rmdir)
        script = f"echo $$ >{inner}/cgroup.procs; exec {place}/loader helper:5"
        found = judged(tmp_path, "sh", "-c", script)
    assert found.rules == {"bpf_load_in_container": "medium"}
    (alert,) = found.alerts
    assert alert["container"]["id"] == CONTAINER


TOKEN = """
import ctypes, os, socket, stimulus
FSOPEN, FSCONFIG, FSMOUNT, SET_STRING, CREATE = 430, 431, 432, 1, 6
libc = ctypes.CDLL(None, use_errno=True)
def checked(*args):
    got = libc.syscall(*args)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got
ours, theirs = socket.socketpair()
child = os.fork()
if child == 0:
    libc.unshare(0x10000000 | 0x00020000)  # CLONE_NEWUSER | CLONE_NEWNS
    socket.send_fds(theirs, [b"x"], [checked(FSOPEN, b"bpf", 0)])
    _, (mount,), *_ = socket.recv_fds(theirs, 1, 1)
    stimulus.token_create(os.open(".", os.O_RDONLY, dir_fd=mount))
    os._exit(0)
_, (context,), *_ = socket.recv_fds(ours, 1, 1)
for option in (b"delegate_cmds", b"delegate_maps", b"delegate_progs", b"delegate_attachs"):
    checked(FSCONFIG, context, SET_STRING, option, b"any", 0)
checked(FSCONFIG, context, CREATE, None, None, 0)
socket.send_fds(ours, [b"x"], [checked(FSMOUNT, context, 0, 0)])
os.waitpid(child, 0)
"""


def test_a_token_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root delegates bpf(2) to a user namespace, in which somebody takes it."""
    if "BPF_TOKEN_CREATE" not in btf.kernel_names(["bpf_cmd"])["bpf_cmd"].values():
        pytest.skip("this kernel has no tokens")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = judged(tmp_path, sys.executable, "-c", TOKEN)
    assert found.rules == {"bpf_token_delegation": "medium"}


def test_the_tracer_s_own_map_is_touched(tmp_path: Path, place: Path) -> None:
    out = tmp_path / "alerts"
    with Tracer(*RULES, "-o", out).ready() as tracer:
        infos = [path.read_text() for path in Path(f"/proc/{tracer.pid}/fdinfo").iterdir()]
        ids = [line.split()[1] for info in infos for line in info.splitlines()
               if line.startswith("map_id")]  # fmt: skip
        subprocess.run([place / "loader", f"write:{ids[0]}"], check=True, stdout=subprocess.DEVNULL)
        tracer.stop()
    alerts = [alert for alert in map(json.loads, out.read_bytes().splitlines())
              if alert.get("process", {}).get("name") == "loader"
                  and alert["event"]["kind"] == "alert"]  # fmt: skip
    assert [alert["rule"]["name"] for alert in alerts] == [
        "bpf_sensor_inspected", "bpf_sensor_tampered",
    ]  # fmt: skip
    assert alerts[1]["bpf"]["integrity"]["reason"] == "own_object_changed"
    assert alerts[1]["event"]["severity"] == 99


# --- What hosts do -----------------------------------------------------------------------

DEVICES = """
import stimulus as s
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6
with s.temporary_cgroup() as cgroup:
    import os
    fd = os.open(cgroup, os.O_RDONLY)
    program = s.prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, s.RETURN_0, prog_name=b"sd_devices")
    s.prog_attach(fd, program, BPF_CGROUP_DEVICE)
    s.prog_detach(fd, program, BPF_CGROUP_DEVICE)
"""
QUIET: Mapping[str, Sequence[Argument]] = {
    "bpftool feature probe": ["bpftool", "feature", "probe"],
    "bpftool prog show": ["bpftool", "prog", "show"],
    "bpftool map show": ["bpftool", "map", "show"],
    "bpftool link show": ["bpftool", "link", "show"],
    "bpftool btf show": ["bpftool", "btf", "show"],
    "bpftool cgroup tree": ["bpftool", "cgroup", "tree"],
    "tcpdump": ["timeout", "2", "tcpdump", "-i", "lo", "-c", "1", "port", "1"],
    "syscount-bpfcc": ["syscount-bpfcc", "-d", "1"],
    "tcpstates-bpfcc": ["tcpstates-bpfcc"],
    "bpftrace": ["bpftrace", "-e",
                 "tracepoint:syscalls:sys_enter_getppid { @ = count(); } interval:s:1 { exit(); }"],
    "a tracer made with BCC": command_line("-d", "1", "--cache="),
    "cgroup device": [sys.executable, "-c", DEVICES],
}  # fmt: skip


@pytest.mark.parametrize("name", QUIET)
def test_what_hosts_do_is_nothing_serious(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command = QUIET[name]
    if not shutil.which(str(command[0])):
        pytest.skip(f"{name} is not here")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = judged(tmp_path, "timeout", "-s", "INT", "20", *command)
    if not found.seen:
        pytest.skip(f"{name} makes no bpf(2) call here")
    assert {rule for rule, level in found.rules.items() if level in SERIOUS} == set()
