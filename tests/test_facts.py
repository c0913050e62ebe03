# SPDX-License-Identifier: Apache-2.0
"""What the kernel program is told of the kernel: all of something, or that it is not there."""

import json
import platform
import re
import subprocess
from pathlib import Path

import pytest

from bpfsnoop.tracer import btf, facts, libc, own
from bpfsnoop.tracer.cache import Cache, Form
from bpfsnoop.tracer.facts import Facts
from bpfsnoop.tracer.installed import KERNEL

TASK, PATHS, OBJECTS = facts._TASK, facts._PATHS, (*facts._OBJECTS, *facts._SIZES)
EXE, USER_NAMESPACE = facts._EXE, facts._USER_NAMESPACE
TASK_PT_REGS, CURRENT_TASK_BTF = 175, 158

OFFSETS = {
    member: 8 * number
    for number, member in enumerate([*TASK, *PATHS, *OBJECTS, *EXE, *USER_NAMESPACE], 1)
}
OFFSETS |= {"bpf_map.map_type": 24, "bpf_map.key_size": 28, "bpf_map.value_size": 32}
OFFSETS |= {"bpf_prog.len": 4, "bpf_prog.insnsi": 72}
OFFSETS |= {"bpf_prog_aux.used_maps": 80, "bpf_prog_aux.used_map_cnt": 88}
OFFSETS |= {"bpf_map.max_entries": 36, "task_struct.loginuid": 4, "task_struct.pid": 12}

FULL = Facts(
    {"bpf_cmd": {0: "BPF_MAP_CREATE", 70: "BPF_NEW"}},
    OFFSETS,
    16,
    frozenset({TASK_PT_REGS, CURRENT_TASK_BTF}),
    {"sys_enter": 11, "sys_exit": 12},
    {"__sys_bpf": (21, 4), "bpf_check": (22, 5)},
    "",
)


def haves(known: Facts, *, kernel_reads: bool = True) -> set[str]:
    """What of it the kernel program does."""
    flags = known.flags(kernel_reads=kernel_reads)
    assert all(re.fullmatch(r"-D\w+=\d+", flag) for flag in flags)
    names = [flag[2:].partition("=")[0] for flag in flags]
    assert len(names) == len(set(names))
    return {name for name in names if name.startswith(("HAVE_", "ARG"))}


def without(*members: str) -> Facts:
    offsets = {member: at for member, at in OFFSETS.items() if member not in members}
    return FULL._replace(offsets=offsets)


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


ARGUMENTS = {"ARG1_OFFSET", "ARG2_OFFSET", "ARG3_OFFSET", "ARG4_OFFSET", "ARG5_OFFSET",
             "HAVE_REGISTERS"}  # fmt: skip
ABOUT_OBJECTS = {"HAVE_OBJECTS", "HAVE_PROG_MAPS"}
ABOUT_PATHS = {"HAVE_PATHS", "HAVE_EXE"}
ALL = {"HAVE_KERNEL_READS", "HAVE_TASK", "HAVE_USER_NAMESPACE",
       *ABOUT_PATHS, *ABOUT_OBJECTS, *ARGUMENTS}  # fmt: skip


# --- All or nothing of it ----------------------------------------------------------------


@pytest.mark.usefixtures("x86")
def test_a_kernel_that_tells_everything() -> None:
    assert haves(FULL) == ALL
    flags = FULL.flags(kernel_reads=True)
    assert "-DOFF_task_struct_group_leader=8" in flags
    assert "-DOFF_task_struct_loginuid=4" in flags
    assert "-DOFF_file_f_path_dentry=" + str(OFFSETS["file.f_path.dentry"]) in flags
    assert "-DSIZE_upid=16" in flags
    assert {"-DARG4_OFFSET=56", "-DARG5_OFFSET=72"} <= set(flags)


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize("member", TASK)
def test_without_any_member_of_the_task_nothing_needs_it(member: str) -> None:
    left = {"HAVE_KERNEL_READS", *ARGUMENTS}
    assert haves(without(member)) == left
    assert not [flag for flag in without(member).flags(kernel_reads=True) if "OFF_" in flag]


@pytest.mark.usefixtures("x86")
def test_without_other_members_the_rest_goes_on() -> None:
    for member in PATHS:
        objects = ABOUT_OBJECTS if member in OBJECTS else set()
        assert haves(without(member)) == ALL - ABOUT_PATHS - objects
    for member in OBJECTS:
        assert haves(without(member)) == ALL - ABOUT_OBJECTS
    for member in EXE:
        assert haves(without(member)) == ALL - {"HAVE_EXE"}
    for member in USER_NAMESPACE:
        assert haves(without(member)) == ALL - {"HAVE_USER_NAMESPACE"}
    assert haves(without("bpf_prog_aux.used_maps")) == ALL - {"HAVE_PROG_MAPS"}
    assert haves(without("task_struct.loginuid")) == ALL
    flags = without("task_struct.loginuid").flags(kernel_reads=True)
    assert not [flag for flag in flags if "loginuid" in flag]


@pytest.mark.usefixtures("x86")
def test_what_may_not_be_read_is_not() -> None:
    assert haves(FULL, kernel_reads=False) == {"HAVE_TASK", "HAVE_USER_NAMESPACE", *ARGUMENTS}


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize(
    ("helpers", "left"),
    [
        (set(), {"HAVE_KERNEL_READS"}),
        ({TASK_PT_REGS}, {"HAVE_KERNEL_READS"}),
        ({CURRENT_TASK_BTF}, ALL - ARGUMENTS),
    ],
)
def test_without_the_helpers(helpers: set[int], left: set[str]) -> None:
    assert haves(FULL._replace(helpers=frozenset(helpers))) == left


@pytest.mark.usefixtures("x86")
def test_without_the_size_of_a_pid_there_is_no_task() -> None:
    assert not FULL._replace(upid_size=0).has_task
    assert not FULL._replace(upid_size=0).has_objects


@pytest.mark.parametrize("member", ["key_size", "value_size", "max_entries"])
def test_sizes_of_a_map_that_stand_elsewhere_are_not_read(member: str) -> None:
    """They are read at once with the type, behind which they stand."""
    moved = FULL._replace(offsets=OFFSETS | {f"bpf_map.{member}": 100})
    assert moved.has_task
    assert not moved.has_objects


@pytest.mark.parametrize(
    ("machine", "places"),
    [("x86_64", ["ARG1_OFFSET=112", "ARG2_OFFSET=104", "ARG3_OFFSET=96", "ARG4_OFFSET=56",
                 "ARG5_OFFSET=72"]),
     ("aarch64", ["ARG1_OFFSET=272", "ARG2_OFFSET=8", "ARG3_OFFSET=16", "ARG4_OFFSET=24",
                  "ARG5_OFFSET=32"]),
     ("riscv64", [])],
)  # fmt: skip
def test_arguments_are_where_the_machine_has_them(
    monkeypatch: pytest.MonkeyPatch, machine: str, places: list[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    flags = FULL.flags(kernel_reads=True)
    assert [flag[2:] for flag in flags if flag.startswith("-DARG")] == places


def test_a_kernel_that_tells_nothing() -> None:
    nothing = Facts({}, {}, 0, frozenset(), {}, {}, "no BTF")
    assert nothing.flags(kernel_reads=False) == []
    assert not nothing.has_task
    assert not nothing.has_objects


# --- Against other words -----------------------------------------------------------------


def test_the_kernel_program_uses_what_it_is_told_and_nothing_else() -> None:
    source = "".join(path.read_text() for path in KERNEL.glob("*.[ch]"))
    used = set(re.findall(r"\bOFF_\w+", source))
    given = {flag[2:].partition("=")[0] for flag in FULL.flags(kernel_reads=True)}
    told = {name for name in given if name.startswith("OFF_")}
    assert used <= told, "not among what is gathered"
    # These are only there to be counted from.
    assert {name for name in told - used if "value_size" not in name} <= {
        "OFF_bpf_map_key_size", "OFF_bpf_map_max_entries",
    }  # fmt: skip
    by_plan = {"HAVE_FUNCTIONS"}  # of tracer/functions.py
    assert set(re.findall(r"\bHAVE_\w+", source)) - {"HAVE_"} <= given | by_plan


def test_numbers_of_helpers_and_registers_are_the_header_s() -> None:
    checks = [
        f"BPF_FUNC_task_pt_regs == {facts._TASK_PT_REGS}",
        f"BPF_FUNC_get_current_task_btf == {facts._CURRENT_TASK_BTF}",
        f"BPF_FUNC_probe_read_kernel == {facts._PROBE_READ_KERNEL}",
        f"BPF_PROG_TYPE_TRACEPOINT == {own.TRACEPOINT.type}",
        f"BPF_PROG_TYPE_RAW_TRACEPOINT == {own.RAW_TRACEPOINT.type}",
        f"BPF_PROG_TYPE_TRACING == {own.TRACING_RAW_TP.type}",
        f"BPF_TRACE_RAW_TP == {own.TRACING_RAW_TP.attach_type}",
        f"BPF_PROG_TYPE_KPROBE == {own.KPROBE.type}",
        f"BPF_PROG_TYPE_TRACING == {own.FENTRY.type} && {own.FENTRY.type} == {own.FEXIT.type}",
        f"BPF_TRACE_FENTRY == {own.FENTRY.attach_type}",
        f"BPF_TRACE_FEXIT == {own.FEXIT.attach_type}",
        f"BPF_PROG_TYPE_LSM == {own.LSM.type} && BPF_LSM_MAC == {own.LSM.attach_type}",
        f"__NR_bpf == {libc.SYS_BPF}",
    ]
    if platform.machine() == "x86_64":
        registers = facts.REGISTERS["x86_64"]
        places = zip(("rdi", "rsi", "rdx", "r10", "r8"), registers.arguments, strict=True)
        compat = zip(("rbx", "rcx", "rdx", "rsi", "rdi"), registers.compat_arguments, strict=True)
        function = zip(("rdi", "rsi", "rdx", "rcx"), registers.function_arguments, strict=True)
        others = ("orig_rax", registers.number), ("rax", registers.function_result)
        for name, offset in (*places, *compat, *function, *others):
            checks.append(f"offsetof(struct pt_regs, {name}) == {offset}")
    headers = "stddef.h", "linux/bpf.h", "asm/ptrace.h", "asm/unistd.h"
    lines = [f"#include <{name}>" for name in headers]
    lines += [f'_Static_assert({check}, "{check}");' for check in checks]
    done = subprocess.run(
        ["gcc", "-x", "c", "-fsyntax-only", "-"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- Gathered and kept -------------------------------------------------------------------


def test_facts_are_what_they_were_when_they_come_back() -> None:
    assert Facts.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


@pytest.mark.parametrize("content", [None, b"", b"not BTF", b"\x9f\xeb\1\0"])
def test_without_btf_they_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(btf, "VMLINUX", path)
    found = facts.gather()
    assert found.problem.startswith(f"{path}: ")
    assert found._replace(problem="") == Facts({}, {}, 0, frozenset(), {}, {}, "")
    if content is None:
        assert found.problem.endswith(": No such file or directory")


def test_that_there_was_no_btf_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been hidden from that run alone, as from a container."""
    form = Form("kernel.json", Facts.to_json, Facts.from_json)
    cache = Cache(str(tmp_path / "cache"))
    nothing = Facts({}, {}, 0, frozenset(), {}, {}, "no BTF")
    assert cache.get(form, "kernel", lambda: nothing) == nothing
    assert cache.get(form, "kernel", lambda: FULL) == FULL
    assert cache.get(form, "kernel", lambda: nothing) == FULL


@pytest.mark.skipif(not btf.VMLINUX.exists(), reason="this kernel has no BTF")
def test_this_kernel_tells_all_that_is_asked() -> None:
    found = facts.gather()
    assert found.problem == ""
    wanted = {*TASK, *PATHS, *OBJECTS}
    assert wanted - found.offsets.keys() == set()
    assert found.has_task
    assert found.has_objects
    assert found.has_insns
    assert found.functions.keys() >= set(facts.FUNCTIONS)
    assert found.functions["security_bpf"][1] in (3, 4)
    assert found.functions["__sys_bpf"][1] in (4, 7)
    assert found.names["bpf_cmd"][5] == "BPF_PROG_LOAD"
    assert {TASK_PT_REGS, CURRENT_TASK_BTF} <= found.helpers


def test_the_kernel_is_the_same_as_long_as_it_runs() -> None:
    name = facts.kernel_identity()
    assert name == facts.kernel_identity()
    assert platform.release() in name
    assert platform.machine() in name


@pytest.mark.parametrize("error", [PermissionError(1, "no"), own.NotLoaded(OSError(13, "no"), "")])
def test_a_kernel_that_refuses_is_believed(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(own, "load_program", refuse)
    assert facts.may_read_kernel_memory() is False


@pytest.mark.live
def test_this_kernel_may_be_read() -> None:
    assert facts.may_read_kernel_memory() is True
