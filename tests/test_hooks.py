# SPDX-License-Identifier: Apache-2.0
"""Which way to the tracepoints is taken, and what the kernel program is told of it."""

import errno
import platform
import re
from pathlib import Path

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import config, hooks, libc
from bpfsnoop.tracer.facts import TRACEPOINTS, Facts
from bpfsnoop.tracer.hooks import ATTACHED, STEPS, RawHooks, TracefsHooks, chosen
from bpfsnoop.tracer.installed import KERNEL
from bpfsnoop.tracer.tracefs import Tracefs
from test_facts import FULL

COMPAT = "task_struct.thread_info.status"
NEED = "raw tracepoints need the kernel's BTF: "
KNOWN = FULL._replace(
    offsets={**FULL.offsets, COMPAT: 16},
    tracepoints={name: number for number, name in enumerate(TRACEPOINTS, 100)},
)
UNKNOWN = Facts({}, {}, 0, frozenset(), {}, "no BTF")
NO_TRACEFS = "tracefs is not here"


class FakeTracefs(Tracefs):
    """Has any tracepoint."""

    def __init__(self, fields: tuple[str, ...] = ()) -> None:
        self._fields = fields

    def event_id(self, category: str, event: str) -> int:
        return len(event)

    def offsets(self, category: str, event: str) -> dict[str, int]:
        return {name: 8 * number for number, name in enumerate(self._fields, 1)}


FIELDS = "cmd", "uattr", "size", "ret", "pid", "clone_flags", "old_pid"


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def no_tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Tracefs:
        raise CannotStart(NO_TRACEFS)

    monkeypatch.setattr(hooks, "Tracefs", refuse)


def test_the_options_are_the_probes_that_there_are() -> None:
    assert (hooks.AUTO, TracefsHooks.probe, RawHooks.probe) == config.PROBES


def test_tracepoints_of_bpf_alone_are_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Tracefs() gives is used as a context.
    monkeypatch.setattr(FakeTracefs, "__exit__", lambda *_: None)
    monkeypatch.setattr(hooks, "Tracefs", lambda: FakeTracefs(FIELDS))
    by, remark = chosen("auto", KNOWN)
    assert (type(by), remark) == (TracefsHooks, "")
    by, remark = chosen("raw_tracepoint", KNOWN)
    assert (type(by), remark) == (RawHooks, "")


@pytest.mark.usefixtures("no_tracefs")
def test_where_they_cannot_be_had_raw_ones_do_and_it_is_said() -> None:
    by, remark = chosen("auto", KNOWN)
    assert type(by) is RawHooks
    assert remark.startswith(f"{NO_TRACEFS}; raw tracepoints do it too, but every system call")


@pytest.mark.usefixtures("no_tracefs")
@pytest.mark.parametrize(("probe", "known"), [("auto", UNKNOWN), ("tracepoint", KNOWN)])
def test_where_neither_can_be_had_the_reason_is_the_first_one_s(probe: str, known: Facts) -> None:
    with pytest.raises(CannotStart) as error:
        chosen(probe, known)
    assert str(error.value) == NO_TRACEFS


@pytest.mark.parametrize("field", FIELDS)
def test_records_that_are_not_as_expected(field: str) -> None:
    with pytest.raises(CannotStart) as error:
        TracefsHooks(FakeTracefs(tuple(name for name in FIELDS if name != field)))
    assert str(error.value) == f"the tracepoints of this kernel have no field '{field}'"


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (UNKNOWN, f"{NEED}no BTF"),
        (KNOWN._replace(offsets=FULL.offsets), f"{NEED}no {COMPAT}"),
        (KNOWN._replace(upid_size=0), f"{NEED}no task_struct"),
        (KNOWN._replace(tracepoints={name: 1 for name in TRACEPOINTS if name != "sys_exit"}),
         f"{NEED}no sys_exit"),
    ],
)  # fmt: skip
def test_what_raw_tracepoints_need(known: Facts, reason: str) -> None:
    with pytest.raises(CannotStart) as error:
        RawHooks(known)
    assert str(error.value) == reason


def test_raw_tracepoints_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine keeps the arguments of a system call has to be known."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(CannotStart) as error:
        RawHooks(KNOWN)
    assert str(error.value) == "raw tracepoints are not used on riscv64"


def test_every_program_has_a_type_and_is_in_the_source() -> None:
    source = (KERNEL / "bpf_calls.c").read_text()
    functions = set(re.findall(r"^int (\w+)\(void \*ctx\)", source, re.MULTILINE))
    steps = [name for names in STEPS.values() for name in names]
    assert functions == {*ATTACHED, *steps}
    raw, by_tracefs = RawHooks(KNOWN), TracefsHooks(FakeTracefs(FIELDS))
    for name in functions:
        assert by_tracefs.program_type(name)[1:] == (0, 0)
        assert raw.program_type(name).attach_btf_id in KNOWN.tracepoints.values()


@pytest.mark.parametrize("table", STEPS)
def test_steps_stand_in_the_order_of_the_source(table: str) -> None:
    source = (KERNEL / "bpf_calls.c").read_text()
    enum = re.search(rf"enum {table.removesuffix('s')} {{(.*?)}}", source, re.DOTALL)
    assert enum
    *names, _ = re.findall(r"\w+", enum[1])
    assert [name.lower() for name in names] == list(STEPS[table])


def test_every_setting_is_used_in_the_source_and_all_that_is_used_is_set() -> None:
    header = (KERNEL / "hooks.h").read_text() + (KERNEL / "bpf_calls.c").read_text()
    raw, by_tracefs = RawHooks(KNOWN).settings(), TracefsHooks(FakeTracefs(FIELDS)).settings()
    for name in {*raw, *by_tracefs}:
        assert re.search(rf"\b{name}\b", header), name
    assert {"ENTER_CMD", "ENTER_UATTR", "ENTER_SIZE"} <= raw.keys() & by_tracefs.keys()
    assert raw["NR_BPF"] == libc.SYS_BPF
    assert all(isinstance(value, int) for value in raw.values())


@pytest.mark.parametrize(
    ("number", "level", "told"),
    [
        (errno.EACCES, "3", " (kernel.perf_event_paranoid is 3, which wants CAP_SYS_ADMIN)"),
        (errno.EACCES, "2", ""),
        (errno.EINVAL, "4", ""),
        (errno.EACCES, None, ""),
    ],
)
def test_a_kernel_that_does_not_let_us_attach(
    monkeypatch: pytest.MonkeyPatch, number: int, level: str | None, told: str
) -> None:
    def refuse(event_id: int, prog_fd: int) -> int:
        raise OSError(number, "refused")

    def read_text(path: Path, **_: object) -> str:
        if level is None:
            raise FileNotFoundError
        return f"{level}\n"

    monkeypatch.setattr(libc, "attach_tracepoint", refuse)
    by = TracefsHooks(FakeTracefs(FIELDS))
    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(CannotStart) as error:
        by.attached("exit_bpf", 3)
    assert str(error.value) == (
        f"cannot attach to the tracepoint syscalls:sys_exit_bpf: refused{told}"
    )
