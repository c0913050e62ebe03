# SPDX-License-Identifier: Apache-2.0
"""Which way to the tracepoints is taken, and what the kernel program is told of it."""

import errno
import platform
import re
from pathlib import Path

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import config, functions, hooks, libc, own
from bpfsnoop.tracer.facts import TRACEPOINTS, Facts
from bpfsnoop.tracer.functions import Function, Functions
from bpfsnoop.tracer.hooks import STEPS, Plan, RawHooks, TracefsHooks, plans
from bpfsnoop.tracer.installed import KERNEL
from bpfsnoop.tracer.own import ProgramType
from bpfsnoop.tracer.tracefs import Tracefs
from test_facts import FULL

COMPAT = "task_struct.thread_info.status"
NEED = "raw tracepoints need the kernel's BTF: "
KNOWN = FULL._replace(
    offsets={**FULL.offsets, COMPAT: 16},
    tracepoints={name: number for number, name in enumerate(TRACEPOINTS, 100)},
)
UNKNOWN = Facts({}, {}, 0, frozenset(), {}, {}, "no BTF")
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


class FakeLayer(Functions):
    """Can be had or not, as it is told."""

    probe = "fake"
    refused = ""

    def __init__(self, known: Facts) -> None:
        if self.refused:
            raise CannotStart(self.refused)

    def settings(self) -> dict[str, int]:
        return {"HAVE_FUNCTIONS": 1}

    def program_type(self, function: str) -> ProgramType:
        return own.KPROBE

    def _try(self) -> None:
        pass

    def _attached(self, function: Function, prog_fd: int) -> int:
        return prog_fd


class Layer(FakeLayer):
    probe = "fentry"


class OtherLayer(FakeLayer):
    probe = "kprobe"


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "FUNCTIONS", (Layer, OtherLayer))


@pytest.fixture
def tracefs(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Tracefs() gives is used as a context.
    monkeypatch.setattr(FakeTracefs, "__exit__", lambda *_: None)
    monkeypatch.setattr(hooks, "Tracefs", lambda: FakeTracefs(FIELDS))


def tried(probe: str, known: Facts = KNOWN, *, kernel_reads: bool = True) -> list[str]:
    """What is tried: the name of the plan, or why it cannot be had."""
    found = []
    for plan in plans(probe, known, kernel_reads=kernel_reads):
        try:
            found.append(plan().probe)
        except CannotStart as error:
            found.append(str(error))
    return found


def test_the_options_are_the_probes_that_there_are() -> None:
    assert sorted(hooks.PROBES) == sorted(config.PROBES)


@pytest.mark.usefixtures("tracefs", "layers")
def test_what_sees_most_is_tried_first_and_what_costs_least_last() -> None:
    assert tried("auto") == ["fentry", "kprobe", "raw_tracepoint", "tracepoint"]
    for probe in ("fentry", "kprobe", "raw_tracepoint", "tracepoint"):
        assert tried(probe) == [probe]


@pytest.mark.usefixtures("no_tracefs", "layers")
def test_without_tracefs_raw_tracepoints_do() -> None:
    """And what sees functions stands on these."""
    assert tried("auto") == [
        "raw_tracepoint+fentry", "raw_tracepoint+kprobe", "raw_tracepoint", NO_TRACEFS,
    ]  # fmt: skip
    assert tried("tracepoint") == [NO_TRACEFS]


@pytest.mark.usefixtures("tracefs", "layers")
def test_without_leave_to_read_kernel_memory_functions_are_of_no_use() -> None:
    assert tried("auto", kernel_reads=False) == ["raw_tracepoint", "tracepoint"]
    (reason,) = tried("fentry", kernel_reads=False)
    assert reason.startswith("fentry needs leave to read kernel memory")


@pytest.mark.usefixtures("tracefs", "layers")
def test_a_layer_that_the_kernel_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layer, "refused", "no fentry")
    assert tried("auto") == ["no fentry", "kprobe", "raw_tracepoint", "tracepoint"]


@pytest.mark.usefixtures("no_tracefs")
def test_where_nothing_is_known_nothing_can_be_had() -> None:
    *reasons, last = tried("auto", UNKNOWN)
    assert all(reason.endswith("no BTF") for reason in reasons)
    assert last == NO_TRACEFS


def test_each_plan_knows_what_it_does_not_see() -> None:
    base, raw, layer = TracefsHooks(FakeTracefs(FIELDS)), RawHooks(KNOWN), Layer(KNOWN)
    inside = "calls that the kernel makes itself"
    assert Plan(base, None).blind == ["32-bit calls", inside]
    assert Plan(raw, None).blind == [inside]
    assert Plan(base, layer).blind == Plan(raw, layer).blind == []


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
    source = (KERNEL / "bpf_calls.c").read_text() + (KERNEL / "functions.h").read_text()
    programs = set(re.findall(r"^int (\w+)\(void \*ctx\)", source, re.MULTILINE))
    base, raw = TracefsHooks(FakeTracefs(FIELDS)), RawHooks(KNOWN)
    plan = Plan(base, Layer(KNOWN))
    steps = [name for names in plan.steps().values() for name in names]
    assert programs == {*plan.attached(), *steps}
    for name in programs:
        by = plan.of(name)
        assert by.program_type(name).type == (own.TRACEPOINT if by is base else own.KPROBE).type
        if by is base:
            assert raw.program_type(name).attach_btf_id in KNOWN.tracepoints.values()


@pytest.mark.parametrize("table", STEPS)
def test_steps_stand_in_the_order_of_the_source(table: str) -> None:
    source = (KERNEL / "bpf_calls.c").read_text()
    enum = re.search(rf"enum {table.removesuffix('s')} {{(.*?)}}", source, re.DOTALL)
    assert enum
    *names, _ = re.findall(r"\w+", enum[1])
    again = {"step_enter_again": "enter_bpf", "step_exit_again": "exit_bpf"}
    programs = [name.lower() for name in names]
    assert [again.get(name, name) for name in programs] == list(STEPS[table])


def test_every_setting_is_used_in_the_source_and_all_that_is_used_is_set() -> None:
    header = "".join(path.read_text() for path in KERNEL.glob("*.[ch]"))
    raw, by_tracefs = RawHooks(KNOWN).settings(), TracefsHooks(FakeTracefs(FIELDS)).settings()
    registers = {flag[2:].partition("=")[0] for flag in KNOWN.flags(kernel_reads=True)}
    unused = {name for name in registers if name.startswith(("OFF_", "SIZE_"))}
    for name in {*raw, *by_tracefs, *registers} - unused:
        assert re.search(rf"\b{name}\b", header), name
    for name in set(re.findall(r"FIELD\(\w+, regs, (\w+)\)", header)):
        assert name in registers


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
