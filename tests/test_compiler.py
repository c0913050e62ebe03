# SPDX-License-Identifier: Apache-2.0
"""Compiling in a process of its own: what comes home, and what is said when nothing does."""

import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer import compiler
from bpfsnoop.tracer.compiler import INSTALL_BCC, Bytecode, Function
from bpfsnoop.tracer.own import MapSpec


def insn(code: int, registers: int, imm: int) -> bytes:
    return struct.pack("=BBhi", code, registers, 0, imm)


EXIT = insn(0x95, 0, 0)
BYTECODE = Bytecode(
    {"pids": MapSpec(1, 4, 8, 16, 0)}, {"enter_bpf": Function(EXIT * 3, {0: "pids", 2: "pids"})}
)


def said(flags: Sequence[str] = ()) -> str:
    with pytest.raises(CannotStart) as error:
        compiler.compiled(flags)
    return str(error.value)


# --- Descriptors of maps -----------------------------------------------------------------


def test_descriptors_become_names() -> None:
    """They are those of the child, which is gone when the code is loaded."""
    code = (
        insn(0x18, 0x12, 7) + insn(0, 0, 0)  # r2 = map fd 7
        + insn(0xB7, 0, 7)  # r0 = 7
        + insn(0x18, 0x01, 7) + insn(0, 0, 0)  # r1 = 7
        + insn(0x18, 0x11, 9) + insn(0, 0, 0)  # r1 = map fd 9
        + EXIT
    )  # fmt: skip
    insns, maps = compiler._function(code, {7: "pids", 9: "calls"})
    assert maps == {0: "pids", 5: "calls"}
    blank = bytearray(code)
    for number in maps:
        blank[8 * number + 4 : 8 * number + 8] = bytes(4)
    assert insns == bytes(blank)


def test_the_second_half_of_a_long_constant_is_not_taken_for_an_instruction() -> None:
    code = insn(0x18, 0x01, 5) + insn(0x18, 0x11, 5) + EXIT
    assert compiler._function(code, {}) == Function(code, {})


# --- Kept and read again -----------------------------------------------------------------


def test_bytecode_is_what_it_was_when_it_comes_back() -> None:
    assert Bytecode.from_json(json.loads(json.dumps(BYTECODE.to_json()))) == BYTECODE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({"maps": JSON, "functions": JSON}))
def test_nonsense_is_refused_in_a_way_that_is_foreseen(data: Any) -> None:
    try:
        found = Bytecode.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return
    assert Bytecode.from_json(json.loads(json.dumps(found.to_json()))) == found


# --- The child ---------------------------------------------------------------------------


def test_what_the_child_made_comes_home(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing of what it printed, or changed of itself."""
    seen: list[int] = []

    def compile_(flags: Sequence[str]) -> Bytecode:
        seen.append(os.getpid())
        os.write(1, b"noise")
        os.environ["BCC_KERNEL_SOURCE"] = "changed"
        assert list(flags) == ["-DX=1"]
        return BYTECODE

    monkeypatch.setattr(compiler, "_compile", compile_)
    before = os.environ.get("BCC_KERNEL_SOURCE")
    assert compiler.compiled(["-DX=1"]) == BYTECODE
    assert seen == []
    assert os.environ.get("BCC_KERNEL_SOURCE") == before
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ChildProcessError):
        os.wait()


def _compiling(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def compile_(_: Sequence[str]) -> Bytecode:
        os.write(2, b"x" * 20_000 + b"the end of what clang said\n")
        raise error

    monkeypatch.setattr(compiler, "_compile", compile_)


def test_what_the_compiler_printed_is_the_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    _compiling(monkeypatch, CannotStart("BCC could not"))
    with pytest.raises(CannotStart, match="BCC could not") as error:
        compiler.compiled([])
    assert error.value.detail.endswith("x" * 1000 + "the end of what clang said\n")
    assert len(error.value.detail) <= 16_384


def test_what_nobody_foresaw_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _compiling(monkeypatch, ZeroDivisionError("surprise"))
    assert said() == "cannot compile the kernel program: ZeroDivisionError: surprise"


def test_a_child_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the kernel kills it for want of memory."""

    def die(_: Sequence[str]) -> Bytecode:
        os.kill(os.getpid(), 9)
        raise AssertionError("still there")

    monkeypatch.setattr(compiler, "_compile", die)
    assert said() == (
        "the compilation of the kernel program ended early (wait status 9);"
        " is there enough memory (about 200 MB)?"
    )


# --- BCC ---------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix that is no virtual environment."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def test_bcc_is_missing(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    assert said() == f"the Python module of BCC is missing: {INSTALL_BCC}"


@pytest.mark.parametrize(
    ("setting", "hidden"),
    [("true", ""), ("false", "; if it is installed, this virtual environment does not see it:"
      " make it with /usr/bin/python3 -m venv --system-site-packages")],
)  # fmt: skip
def test_bcc_is_hidden_by_the_environment(
    outside: Path, monkeypatch: pytest.MonkeyPatch, setting: str, hidden: str
) -> None:
    (outside / "pyvenv.cfg").write_text(f"include-system-site-packages = {setting}\n")
    monkeypatch.setitem(sys.modules, "bcc", None)
    assert said() == f"the Python module of BCC is missing: {INSTALL_BCC}{hidden}"


def test_another_bcc_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", SimpleNamespace(get_code=None))
    assert said() == (
        "the Python module bcc that is installed is PyPI's, which has nothing to do with"
        f" BPF: remove it (pip uninstall bcc), then {INSTALL_BCC}"
    )


def test_bcc_does_not_take_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise Exception(f"Failed to compile {options['cflags']}")

    monkeypatch.setitem(sys.modules, "bcc", SimpleNamespace(BPF=refuse))
    assert said(["-DX=1"]) == "BCC could not compile the kernel program; -v shows what it printed"
