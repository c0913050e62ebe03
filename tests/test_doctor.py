# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop doctor``: each plan and path, the table, the JSON, and what hosts it says of."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import conditions, doctor, libc, loader, privilege
from bpfsnoop.tracer.cli import main
from bpfsnoop.tracer.conditions import Host, Status
from bpfsnoop.tracer.config import Config, configured
from bpfsnoop.tracer.doctor import PATHS, PLANS, Finding, Kind, Report, document, examine, table
from bpfsnoop.tracer.hooks import COMPAT_CALLS, INNER_CALLS
from bpfsnoop.tracer.loader import Loaded
from running import BPFSNOOP, PATIENCE_S, Finished, bpfsnoop_run, code_cache
from test_cli import AS_NOBODY, NEW_PIDS, REFUSE_BPF, as_root
from test_facts import FULL

OK, WARNING, BAD = Status.OK, Status.WARNING, Status.BAD

# --- Plans -------------------------------------------------------------------------------


class FakeLoader:
    """Takes these plans, in this order; refuses others."""

    def __init__(self, *takes: str, blind: tuple[str, ...] = ()) -> None:
        self.takes = takes
        self.blind = blind
        self.asked: list[str] = []
        self.warnings: list[str] = []

    def __call__(self, *_: object, probe: str, follow: bool) -> Loaded:
        assert follow
        self.asked.append(probe)
        automatic = [name for name in self.takes if name != "lsm"]
        for name in automatic if probe == "auto" else self.takes:
            if probe in ("auto", name.rpartition("+")[2]):
                fds = {"config": os.open("/dev/null", os.O_RDONLY)}
                return Loaded(fds, FULL, self.warnings, name, self.blind)
        raise CannotStart("this kernel has no kprobes" if probe == "kprobe" else f"no {probe}")


def _examined(monkeypatch: pytest.MonkeyPatch, fake: FakeLoader) -> Report:
    monkeypatch.setattr(privilege, "require", lambda: None)
    monkeypatch.setattr(loader, "load", fake)
    monkeypatch.setattr(conditions, "CHECKS", ())
    before = os.listdir("/proc/self/fd")
    report = examine(_options())
    assert os.listdir("/proc/self/fd") == before
    return report


def _options() -> Config:
    return configured(argparse.Namespace(cache=code_cache()))


def _of(report: Report, kind: Kind) -> dict[str, tuple[Status, str, str]]:
    return {f.name: (f.status, f.found, f.cure) for f in report.findings if f.kind is kind}


def test_the_plan_that_auto_takes_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLoader("raw_tracepoint+fentry", "raw_tracepoint", "lsm")
    report = _examined(monkeypatch, fake)
    assert (report.plan, report.probe, report.works) == ("fentry", "raw_tracepoint+fentry", True)
    assert _of(report, Kind.PLAN) == {
        "fentry": (OK, "works, and is what auto takes", ""),
        "kprobe": (WARNING, "this kernel has no kprobes",
                   "boot a kernel with CONFIG_KPROBE_EVENTS"),
        "lsm": (OK, "works", ""),
        "raw_tracepoint": (OK, "works", ""),
        "tracepoint": (WARNING, "no tracepoint", ""),
    }  # fmt: skip
    assert fake.asked == ["auto", "kprobe", "lsm", "raw_tracepoint", "tracepoint"]


def test_it_is_bad_only_if_none_works(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _examined(monkeypatch, FakeLoader())
    assert (report.plan, report.probe, report.works) == ("", "", False)
    plans = _of(report, Kind.PLAN)
    assert [*plans] == list(PLANS)
    assert {status for status, _, _ in plans.values()} == {BAD}
    assert all(cure for _, _, cure in plans.values())
    assert _of(report, Kind.PATH) == {
        name: (BAD, "not watched: no plan works", "make one of the plans above work")
        for name, _ in PATHS
    }


def test_a_plan_that_auto_leaves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _examined(monkeypatch, FakeLoader("lsm"))
    assert (report.plan, report.probe, report.works) == ("", "lsm", True)
    assert _of(report, Kind.PLAN)["lsm"] == (OK, "works", "")
    shown = table(report, color=False, width=100).decode()
    assert shown.splitlines()[-1].startswith("tracing works only with --probe lsm (")


def test_what_a_plan_does_not_show_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLoader("tracepoint")
    fake.warnings = ["objects are not shown"]
    assert _of(_examined(monkeypatch, fake), Kind.PLAN)["tracepoint"] == (
        WARNING, "works, and is what auto takes; objects are not shown", "",
    )  # fmt: skip


def test_a_plan_that_fails_oddly_keeps_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeLoader("tracepoint")

    def load(*_: object, probe: str, follow: bool) -> Loaded:
        if probe == "fentry":
            raise RuntimeError("surprise\x1b[2J")
        return fake(probe=probe, follow=follow)

    monkeypatch.setattr(privilege, "require", lambda: None)
    monkeypatch.setattr(loader, "load", load)
    monkeypatch.setattr(conditions, "CHECKS", ())
    report = examine(_options())
    assert report.plan == "tracepoint"
    assert _of(report, Kind.PLAN)["fentry"] == (WARNING, r"RuntimeError: surprise\33[2J", "")


def test_nothing_is_tried_that_may_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise CannotStart("tracing needs root: run it with sudo")

    fake = FakeLoader("tracepoint")
    monkeypatch.setattr(privilege, "require", refuse)
    monkeypatch.setattr(loader, "load", fake)
    report = examine(_options())
    assert not report.works
    assert fake.asked == []
    assert set(_of(report, Kind.PLAN).values()) == {
        (BAD, "not tried: tracing needs root", "run it with sudo")
    }


# --- Paths -------------------------------------------------------------------------------


def _path(
    name: str, *blind: str, root: Path, machine: str = "x86_64", loaded: Loaded | None = None
) -> conditions.Verdict:
    host = Host(works=True, cache="", ring_size=0, root=root, machine=machine)
    found = dict(doctor._paths(host, loaded or Loaded({}, FULL, [], "tracepoint", blind)))
    return found[name]


COMPILED = "sys/abi/vsyscall32"


def _proc(root: Path, *, takes: bool, cmdline: str = "quiet") -> None:
    (root / "proc/sys/abi").mkdir(parents=True)
    (root / "proc/cmdline").write_text(f"{cmdline}\n")
    if takes:
        (root / "proc" / COMPILED).write_text("1\n")


@pytest.fixture(autouse=True)
def no_x32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "has_x32", lambda: False)


def test_all_ways_that_a_plan_can_be_blind_to_are_paths(tmp_path: Path) -> None:
    _proc(tmp_path, takes=True)
    seen = {name: _path(name, root=tmp_path).status for name, _ in PATHS}
    assert set(seen.values()) == {OK}
    blind = {
        name for name, _ in PATHS
        if _path(name, COMPAT_CALLS, INNER_CALLS, root=tmp_path).status is WARNING
    }  # fmt: skip
    assert blind == {"32-bit calls", "calls within the kernel"}


@pytest.mark.parametrize(
    ("takes", "cmdline", "status", "about"),
    [
        (True, "quiet", WARNING, "is built to take them, and most likely does"),
        (True, "ia32_emulation=off", WARNING, "and booted with ia32_emulation=off"),
        (False, "quiet", OK, "not watched, but this kernel is not built to take them"),
    ],
)
def test_32_bit_calls_where_they_are_not_seen(
    tmp_path: Path, takes: bool, cmdline: str, status: Status, about: str
) -> None:
    _proc(tmp_path, takes=takes, cmdline=cmdline)
    found = _path("32-bit calls", COMPAT_CALLS, root=tmp_path)
    assert found.status is status
    assert found.found.endswith(about)
    assert bool(found.cure) is (status is WARNING)


def test_on_other_machines_32_bit_calls_are_not_known(tmp_path: Path) -> None:
    found = _path("32-bit calls", COMPAT_CALLS, root=tmp_path, machine="aarch64")
    assert (found.status, found.found) == (
        WARNING, "not watched: tracepoint does not see them; whether this kernel takes them is"
        " not known",
    )  # fmt: skip
    assert _path("x32 calls", COMPAT_CALLS, root=tmp_path, machine="aarch64") == (
        OK, "only x86-64 has them", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("takes", "blind", "status"),
    [(False, True, OK), (True, True, WARNING), (None, True, WARNING), (True, False, OK)],
)
def test_x32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: bool | None, blind: bool, status: Status
) -> None:
    monkeypatch.setattr(libc, "has_x32", lambda: takes)
    assert _path("x32 calls", *[COMPAT_CALLS] * blind, root=tmp_path).status is status


def test_arguments_that_are_not_seen(tmp_path: Path) -> None:
    blind = Loaded({}, FULL._replace(helpers=frozenset()), [], "tracepoint", ())
    assert _path("BPF_COMMON_ATTRS", root=tmp_path).status is OK
    assert _path("BPF_COMMON_ATTRS", root=tmp_path, loaded=blind).status is WARNING
    assert _path("BPF_COMMON_ATTRS", root=tmp_path, machine="s390x").status is WARNING


# --- What is shown -----------------------------------------------------------------------

CURE = "mount it with 'mount -t securityfs none /sys/kernel/security'"
REPORT = Report("kprobe", "raw_tracepoint+kprobe", (
    Finding(Kind.HOST, "kernel", OK, "Linux 6.12.1 on x86_64", ""),
    Finding(Kind.HOST, "securityfs", WARNING, "not mounted", CURE),
    Finding(Kind.HOST, "lockdown", WARNING, "cannot tell: securityfs is not mounted", CURE),
    Finding(Kind.HOST, "cache", BAD, "[red]no[/] :smile:", "make it"),
    Finding(Kind.PLAN, "fentry", WARNING, "refused", ""),
    Finding(Kind.PLAN, "kprobe", OK, "works, and is what auto takes", ""),
    Finding(Kind.PATH, "native calls", OK, "watched by raw_tracepoint+kprobe", ""),
))  # fmt: skip

PLAIN = """\
this host
ok       kernel        Linux 6.12.1 on x86_64
warning  securityfs    not mounted
warning  lockdown      cannot tell: securityfs is not mounted
                       cure: mount it with 'mount -t securityfs none /sys/kernel/security'
bad      cache         [red]no[/] :smile:
                       cure: make it
probe plans
warning  fentry        refused
ok       kprobe        works, and is what auto takes
paths into bpf(2)
ok       native calls  watched by raw_tracepoint+kprobe
tracing works, by raw_tracepoint+kprobe (3 ok, 3 warning, 1 bad)
"""

COLORED = """\
<1>this host<0>
<32>ok     <0>  kernel        Linux 6.12.1 on x86_64
<33>warning<0>  securityfs    not mounted
<33>warning<0>  lockdown      cannot tell: securityfs is not mounted
                       <1>cure: <0>mount it with 'mount -t securityfs none /sys/kernel/security'
<1;31>bad    <0>  cache         [red]no[/] :smile:
                       <1>cure: <0>make it
<1>probe plans<0>
<33>warning<0>  fentry        refused
<32>ok     <0>  kprobe        works, and is what auto takes
<1>paths into bpf(2)<0>
<32>ok     <0>  native calls  watched by raw_tracepoint+kprobe
<1;32>tracing works, by raw_tracepoint+kprobe<0> (3 ok, 3 warning, 1 bad)
"""


@pytest.mark.parametrize("variable", ["", "NO_COLOR", "FORCE_COLOR", "JUPYTER_COLUMNS", "COLUMNS"])
def test_the_table(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Whatever Rich would make of its environment: we have decided already."""
    monkeypatch.setenv("TERM", "dumb" if variable else "xterm")
    if variable:
        monkeypatch.setenv(variable, "1")
    assert table(REPORT, color=False, width=100).decode() == PLAIN
    codes = re.sub(r"<([\d;]+)>", "\x1b[\\1m", COLORED)
    assert table(REPORT, color=True, width=100).decode() == codes


@pytest.mark.parametrize("width", [1, 30, 45, 60])
def test_a_narrow_terminal_loses_nothing(width: int) -> None:
    shown = table(REPORT, color=False, width=width).decode()
    assert max(map(len, shown.splitlines())) <= max(width, 30)
    assert sorted("".join(shown.split())) == sorted("".join(PLAIN.split()))


def test_nothing_works() -> None:
    shown = table(REPORT._replace(plan="", probe=""), color=False, width=100).decode()
    assert shown.splitlines()[-1] == "tracing does not work here (3 ok, 3 warning, 1 bad)"


def test_the_document() -> None:
    line = document(REPORT)
    assert line.count(b"\n") == 1
    about = json.loads(line)
    assert {key: value for key, value in about.items() if key != "findings"} == {
        "works": True, "plan": "kprobe", "probe": "raw_tracepoint+kprobe",
    }  # fmt: skip
    assert about["findings"][1] == {
        "kind": "host", "name": "securityfs", "status": "warning", "found": "not mounted",
        "cure": CURE,
    }  # fmt: skip
    assert len(about["findings"]) == len(REPORT.findings)


NO_STATE = Finding(Kind.DAEMON, "state", BAD, "others can write to it", "")


def test_a_daemon_that_would_not_start() -> None:
    report = REPORT._replace(findings=(*REPORT.findings, NO_STATE))
    assert table(report, color=False, width=100).decode().splitlines()[-1].startswith(
        "tracing works, by raw_tracepoint+kprobe; the daemon would not start ("
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (REPORT, 0),
        (REPORT._replace(plan="", probe=""), 1),
        (REPORT._replace(findings=(*REPORT.findings, NO_STATE)), 1),
        (REPORT._replace(findings=(*REPORT.findings, NO_STATE._replace(status=WARNING))), 0),
    ],
)
def test_the_exit_status_says_whether_it_works(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], report: Report, status: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: report)
    monkeypatch.setenv("COLUMNS", "100")
    for options in ([], ["--color", "always"], ["--json"]):
        assert main(["doctor", *options]) == status
        out, err = capfd.readouterr()
        assert err == ""
        assert ("\x1b" in out) is bool(options and options[0] == "--color")
        assert out.startswith("{") is (options == ["--json"])


@pytest.mark.parametrize("argv", [["x"], ["--quiet"], ["--set", "cache"], ["--ring-size", "5"]])
def test_wrong_usage(capfd: pytest.CaptureFixture[str], argv: list[str]) -> None:
    status: object
    try:
        status = main(["doctor", *argv])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert capfd.readouterr().out == ""


# --- This host ---------------------------------------------------------------------------


def _diagnosed(
    *options: str, under: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The exit status, what ``--json`` says, and status by name."""
    finished = bpfsnoop_run("doctor", "--json", *options, under=under, env=env)
    assert finished.err == ""
    about = json.loads(finished.out)
    assert about["works"] is (finished.status == 0)
    return finished.status, about, {f["name"]: f["status"] for f in about["findings"]}


def _run(*options: str, under: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Finished:
    return bpfsnoop_run("--set", "probe=auto", "-d", "0.1", *options, under=under, env=env)


def _agree(
    *options: str, under: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The doctor, where he says of a run what it says itself."""
    status, about, statuses = _diagnosed(*options, under=under, env=env)
    run = _run(*options, under=under, env=env)
    assert run.status == status
    if about["works"]:
        assert f"all processes ({about['probe']}" in run.err
        (taken,) = (f["name"] for f in about["findings"] if "what auto takes" in f["found"])
        assert taken == about["plan"] == about["probe"].rpartition("+")[2]
    return about, statuses


@pytest.mark.live
def test_this_host() -> None:
    about, statuses = _agree()
    assert about["works"]
    for name in ("kernel", "bpf(2)", "ring buffers", "pid namespace", "native calls"):
        assert statuses[name] == "ok"
    for name in PLANS:
        alone = bpfsnoop_run("-q", "-d", "1ms", "--probe", name)
        (plan,) = (f for f in about["findings"] if (f["kind"], f["name"]) == ("plan", name))
        assert (plan["status"] == "ok") is (alone.status == 0)
        assert plan["status"] == "ok" or plan["found"] in alone.err


@pytest.mark.live
def test_nothing_stays_behind() -> None:
    """Neither mounts nor, of the second time, files."""
    _diagnosed()
    cache = Path(code_cache())
    before = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    mounts = Path("/proc/mounts").read_text()
    _diagnosed()
    assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == before
    assert Path("/proc/mounts").read_text() == mounts


@as_root
@pytest.mark.parametrize(
    ("under", "name"),
    [(AS_NOBODY, "capabilities"), (NEW_PIDS, "pid namespace"),
     (("setpriv", "--bounding-set=-bpf,-sys_admin"), "capabilities")],
)  # fmt: skip
def test_what_is_missing_is_said(under: tuple[str, ...], name: str) -> None:
    about, statuses = _agree(under=under)
    assert not about["works"]
    assert statuses[name] == "bad"
    for finding in about["findings"]:
        assert finding["cure"] or finding["status"] != "bad"


@as_root
@pytest.mark.parametrize("error", [1, 38])
def test_a_kernel_that_refuses_bpf(error: int) -> None:
    number = str(libc.SYS_BPF)
    about, statuses = _agree(under=(sys.executable, "-c", REFUSE_BPF, number, str(error)))
    assert not about["works"]
    assert statuses["bpf(2)"] == "bad"


def _hiding(*paths: str) -> tuple[str, ...]:
    mounts = "; ".join(f"[ ! -d {path} ] || mount -t tmpfs none {path}" for path in paths)
    return "unshare", "--mount", "sh", "-c", f'{mounts}; exec "$@"', "sh"


TRACEFS = _hiding("/sys/kernel/debug", "/sys/kernel/tracing")


@pytest.mark.live
def test_without_tracefs() -> None:
    about, statuses = _agree(under=TRACEFS)
    (found,) = (f["found"] for f in about["findings"] if f["name"] == "tracefs")
    assert (statuses["tracefs"], found) == ("ok", "not mounted; bpfsnoop mounts it for itself")
    about, statuses = _agree(under=(*TRACEFS, "setpriv", "--bounding-set=-sys_admin"))
    assert (statuses["tracefs"], statuses["tracepoint"]) == ("warning", "warning")


@pytest.mark.live
def test_without_btf() -> None:
    about, statuses = _agree("--cache", "", under=_hiding("/sys/kernel/btf"))
    assert about["plan"] == "tracepoint"
    assert statuses["BTF"] == statuses["raw_tracepoint"] == "warning"


@pytest.mark.live
def test_without_proc() -> None:
    status, about, statuses = _diagnosed(under=_hiding("/proc"))
    assert (status, about["plan"]) == (1, "")
    assert statuses["capabilities"] == "warning"


@pytest.mark.live
def test_without_the_right_bcc(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("def get_code(): pass\n")
    about, statuses = _agree("--cache", "", env={"PYTHONPATH": str(tmp_path)})
    assert not about["works"]
    assert statuses["BCC"] == "bad"


@pytest.mark.live
def test_on_a_terminal_it_is_coloured_unless_that_is_not_wanted() -> None:
    for environment, colored in (("NO_COLOR=", True), ("NO_COLOR=1", False)):
        line = f"{environment} {BPFSNOOP} doctor --cache {code_cache()}"
        shown = subprocess.run(
            ["script", "-qec", line, "/dev/null"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, timeout=PATIENCE_S, check=True,
        ).stdout  # fmt: skip
        assert (b"\x1b[32mok" in shown) is colored
        assert b"tracing works" in shown
