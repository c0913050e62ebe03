# SPDX-License-Identifier: Apache-2.0
"""What is compiled, kept and put into the kernel, and what is said when that will not do."""

import ast
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bpfsnoop.events.call import ObjectKind
from bpfsnoop.events.errors import CannotStart
from bpfsnoop.events.wire import OBJECT
from bpfsnoop.tracer import compiler, facts, hooks, installed, loader, own
from bpfsnoop.tracer.cache import Cache
from bpfsnoop.tracer.compiler import Bytecode, Function
from bpfsnoop.tracer.facts import Facts
from bpfsnoop.tracer.hooks import ATTACHED, Hooks, Plan
from bpfsnoop.tracer.own import MapSpec, NotLoaded, ProgramType
from test_architecture import FILES, own_imports
from test_facts import FULL, without

SIZES = loader.Sizes(1 << 16, 2)
STEPS = [name for names in hooks.STEPS.values() for name in names]
PROGRAMS = [*ATTACHED, *STEPS, "calibrate"]
BYTECODE = Bytecode(
    {name: MapSpec(2, 4, 8, 1, 0) for name in
     ("config", *loader.RING_NAMES.values(), "pids", "calibrated", "object_ops", *hooks.STEPS)},
    {name: Function(bytes(16), {0: "config"}) for name in PROGRAMS},
)  # fmt: skip


class FakeHooks(Hooks):
    probe = "fake"

    def settings(self) -> dict[str, int]:
        return {"ENTER_CMD": 16}

    def program_type(self, function: str) -> ProgramType:
        return own.TRACEPOINT

    def attached(self, function: str, prog_fd: int) -> int:
        return os.dup(prog_fd)


class FakeKernel:
    """Gives descriptors for maps and programs, and objects that look as they should."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.refuses: Callable[[str], OSError | None] = lambda _: None
        self.shown = 0
        self.lies_about: ObjectKind | None = None

    def fd(self, *_: object) -> int:
        return os.open("/dev/null", os.O_RDONLY)

    def load(self, kind: ProgramType, insns: bytes, name: str) -> int:
        self.loads.append(name)
        if error := self.refuses(name):
            raise error
        return self.fd()

    def run(self, prog_fd: int, arguments: tuple[ObjectKind, int]) -> None:
        self.shown = arguments[0]

    def lookup(self, key: bytes) -> bytes:
        seen = 0 if self.shown is self.lies_about else 1
        return OBJECT.pack(self.shown, seen, 0, 0, 0, 0, 0, 0, b"", b"")


class FakeCompiler:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, flags: list[str]) -> Bytecode:
        self.runs += 1
        return BYTECODE


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    fake = FakeKernel()
    monkeypatch.setattr(own, "create_map", fake.fd)
    monkeypatch.setattr(own, "load_program", fake.load)
    monkeypatch.setattr(own, "open_raw_tracepoint", fake.fd)
    monkeypatch.setattr(own, "open_btf", fake.fd)
    monkeypatch.setattr(own, "run_raw_tracepoint", fake.run)
    monkeypatch.setattr(own, "object_id", lambda fd: 1)
    monkeypatch.setattr(own.BpfMap, "__setitem__", lambda *_: None)
    monkeypatch.setattr(own.BpfMap, "__getitem__", lambda _, key: fake.lookup(key))
    monkeypatch.setattr(hooks, "plans", lambda *_, **__: [lambda: Plan(FakeHooks(), None)])
    monkeypatch.setattr(facts, "gather", lambda: FULL)
    monkeypatch.setattr(facts, "may_read_kernel_memory", lambda: True)
    return fake


class Host(NamedTuple):
    kernel: FakeKernel
    clang: FakeCompiler
    cache: Cache

    def loaded(self, *, follow: bool = True) -> loader.Loaded:
        """With the descriptors closed again."""
        result = loader.load(SIZES, self.cache, follow=follow)
        for fd in result.fds.values():
            os.close(fd)
        return result


@pytest.fixture
def host(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    clang = FakeCompiler()
    monkeypatch.setattr(compiler, "compiled", clang)
    return Host(kernel, clang, Cache(str(tmp_path / "cache")))


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- Compiled once -----------------------------------------------------------------------


def test_all_of_it_is_loaded_and_attached(host: Host) -> None:
    result = host.loaded()
    assert result.warnings == []
    assert result.probe == "fake"
    assert {name.partition(":")[2] for name in result.fds if ":" in name} == set(PROGRAMS)
    assert {f"attached:{name}" for name in ATTACHED} <= result.fds.keys()


def test_new_tasks_are_listened_to_only_to_follow_them(host: Host) -> None:
    result = host.loaded(follow=False)
    attached = {name for name in result.fds if name.startswith("attached:")}
    assert attached == {f"attached:{name}" for name in ATTACHED if name != "new_task"}


def test_it_is_compiled_once(host: Host) -> None:
    for _ in range(3):
        host.loaded()
    assert host.clang.runs == 1


def test_what_was_kept_and_does_not_load_is_compiled_anew(host: Host) -> None:
    host.loaded()
    fail_at = len(host.kernel.loads)
    host.kernel.refuses = lambda _: (
        OSError(22, "no") if len(host.kernel.loads) == fail_at + 1 else None
    )
    before = open_fds()
    host.loaded()
    assert host.clang.runs == 2
    assert open_fds() == before


@pytest.mark.parametrize(
    ("error", "told", "detail"),
    [
        (NotLoaded(OSError(22, "Invalid argument"), "R1 !read_ok"),
         "the kernel did not take the program ([Errno 22] Invalid argument); -v shows the details",
         "R1 !read_ok"),
        (NotLoaded(OSError(13, "Permission denied"), "R1 invalid mem access"),
         "the kernel did not take the program ([Errno 13] Permission denied); -v shows the"
         " details", "R1 invalid mem access"),
        (PermissionError(errno.EPERM, "no"), None, ""),
    ],
)  # fmt: skip
def test_a_kernel_that_refuses_is_asked_once(
    host: Host, error: OSError, told: str | None, detail: str,
) -> None:  # fmt: skip
    host.kernel.refuses = lambda name: error if name == "exit_bpf" else None
    before = open_fds()
    with pytest.raises(CannotStart) as raised:
        host.loaded()
    assert told is None or str(raised.value) == told
    assert raised.value.detail == detail
    assert (host.clang.runs, open_fds()) == (1, before)
    # Nothing is kept that was never taken.
    host.kernel.refuses = lambda _: None
    host.loaded()
    assert host.clang.runs == 2


def test_all_that_takes_part_is_in_the_key() -> None:
    """Else an upgrade would go on with what an earlier version compiled."""
    sources = {path.relative_to(installed._ROOT) for path in installed.sources()}
    parts = {"tracer.loader"}
    while (
        new := {
            name for part in parts for name in own_imports(part, _parsed(part)) if name in FILES
        }
        - parts
    ):
        parts |= new
    tracer = {name for name in parts if name.startswith("tracer.")} | {"decoders.uapi"}
    assert {Path(name.replace(".", "/") + ".py") for name in tracer} <= sources
    assert Path("tracer/kernel/hooks.h") in sources
    assert Path("events/wire.h") in sources


def _parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


# --- What is missing here ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ObjectKind)
def test_objects_that_look_otherwise_than_expected_are_not_shown(
    host: Host, kind: ObjectKind
) -> None:
    host.kernel.lies_about = kind
    assert host.loaded().warnings == [
        "objects behind descriptors, keys and values are not shown: calibration failed"
        f" (a {kind.name.lower()} looks like ({int(kind)}, 0))"
    ]


@pytest.mark.parametrize(
    ("known", "reads", "begins"),
    [
        (Facts({}, {}, 0, frozenset(), {}, {}, "gone"), True, "no BTF of this kernel (gone): "),
        (FULL, False, "this kernel does not permit BPF to read its memory"),
        (without("bpf_map.id"), True, "the structs of this kernel are not as expected: "),
    ],
)
def test_what_is_missing_is_said_once(
    host: Host, monkeypatch: pytest.MonkeyPatch,
    known: Facts, reads: bool, begins: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(facts, "gather", lambda: known)
    monkeypatch.setattr(facts, "may_read_kernel_memory", lambda: reads)
    (warning,) = host.loaded().warnings
    assert warning.startswith(begins)
