# SPDX-License-Identifier: Apache-2.0
"""Tracepoints as tracefs describes them, in directories that look like it."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import libc, tracefs
from bpfsnoop.tracer.tracefs import Tracefs

# Linux 6.18, x86_64
FORMAT = """\
name: task_newtask
ID: 205
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:pid_t pid;	offset:8;	size:4;	signed:1;
	field:char comm[16];	offset:12;	size:16;	signed:0;
	field:unsigned long clone_flags;	offset:32;	size:8;	signed:0;
	field:union bpf_attr * uattr;	offset:40;	size:8;	signed:0;
	field:__data_loc char[] what;	offset:48;	size:4;	signed:1;

print fmt: "pid=%d comm=%s clone_flags=%lx", REC->pid, REC->comm, REC->clone_flags
"""

CLOSED = "tracefs is closed to this user, whatever its capabilities: run it as root"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is found where tracefs mostly is mounted."""
    point = tmp_path / "tracing"
    event = point / "events" / "task" / "task_newtask"
    event.mkdir(parents=True)
    (event / "id").write_text("205\n")
    (event / "format").write_text(FORMAT)
    monkeypatch.setattr(tracefs, "_MOUNTS", (str(tmp_path / "nowhere"), str(point)))
    return point


def test_fields_by_name(mounted: Path) -> None:
    with Tracefs() as found:
        assert found.event_id("task", "task_newtask") == 205
        offsets = found.offsets("task", "task_newtask")
    assert {name: offsets[name] for name in ("pid", "comm", "clone_flags", "uattr", "what")} == {
        "pid": 8, "comm": 12, "clone_flags": 32, "uattr": 40, "what": 48,
    }  # fmt: skip


def test_it_is_closed_when_it_is_left(mounted: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Tracefs() as found:
        found.event_id("task", "task_newtask")
    assert os.listdir("/proc/self/fd") == before


def test_a_tracepoint_that_is_not_there(mounted: Path) -> None:
    told = (
        "this kernel shows no tracepoint syscalls:sys_enter_bpf: it has no"
        " CONFIG_FTRACE_SYSCALLS, or was booted with lockdown=confidentiality"
    )
    with Tracefs() as found:
        for ask in (found.event_id, found.offsets):
            with pytest.raises(CannotStart) as error:
                ask("syscalls", "sys_enter_bpf")
            assert str(error.value) == told


def test_a_tracepoint_that_is_closed_to_us(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with Tracefs() as found, monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(CannotStart) as error:
            found.event_id("task", "task_newtask")
    assert str(error.value) == CLOSED


def test_a_mount_that_is_closed_to_us_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To mount it would not help, whoever may: what helps is another user."""

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(libc, "detached_mount", refuse)
    with pytest.raises(CannotStart) as error:
        Tracefs()
    assert str(error.value) == CLOSED


def test_an_empty_mount_point_is_passed_over(
    tmp_path: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(tracefs, "_MOUNTS", (str(empty), str(mounted)))
    with Tracefs() as found:
        assert found.event_id("task", "task_newtask") == 205


def test_where_nobody_mounted_it_it_is_ours_alone(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []

    def mount(fstype: str) -> int:
        kinds.append(fstype)
        return os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)

    monkeypatch.setattr(tracefs, "_MOUNTS", ())
    monkeypatch.setattr(libc, "detached_mount", mount)
    with Tracefs() as found:
        assert found.event_id("task", "task_newtask") == 205
    assert kinds == ["tracefs"]


def test_where_it_cannot_be_mounted_it_is_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(tracefs, "_MOUNTS", ("/sys/kernel/tracing/nowhere",))
    monkeypatch.setattr(libc, "detached_mount", refuse)
    with pytest.raises(CannotStart) as error:
        Tracefs()
    assert str(error.value) == (
        "tracefs is not mounted and cannot be mounted here (Operation not permitted):"
        " mount it with 'mount -t tracefs tracefs /sys/kernel/tracing/nowhere'"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"field:", b"int pid", b";", b"offset:", b"8", b"[", b"\xff", b"\t"])
    ).map(b"".join)
)
def test_any_description_is_survived(mounted: Path, content: bytes) -> None:
    (mounted / "events" / "task" / "task_newtask" / "format").write_bytes(content)
    with Tracefs() as found:
        offsets = found.offsets("task", "task_newtask")
    assert all(name.isidentifier() or name[0].isdigit() for name in offsets)
