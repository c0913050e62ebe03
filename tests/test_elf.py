# SPDX-License-Identifier: Apache-2.0
"""Programs as object files, which other tools read too."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bpfsnoop.decoders.elf import Code, object_file, programs_in

RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")
SOCKET_FILTER, XDP, LSM = 1, 6, 29


def made(insns: bytes = RETURN_0, prog_type: int = XDP, name: bytes = b"drop_all") -> bytes:
    return object_file(insns, name=name, prog_type=prog_type, licensed=b"Dual BSD/GPL")


@given(st.binary(min_size=1, max_size=400), st.integers(0, 100), st.binary(max_size=16))
def test_what_is_put_in_comes_out(insns: bytes, prog_type: int, name: bytes) -> None:
    (code,) = programs_in(made(insns, prog_type, name))
    assert code.insns == insns
    assert code.section.isascii()


@given(st.binary(max_size=300))
def test_a_broken_file_is_refused(data: bytes) -> None:
    whole = made()
    for broken in (whole[: len(data)] if len(data) > 4 else b"\x7fELF", b"\x7fELF" + data):
        with suppress(ValueError):
            programs_in(broken)


@given(st.integers(0, len(made()) - 1), st.integers(0, 255))
@example(47, 128)  # of e_shoff: the section headers begin further away than a file can reach
def test_a_file_with_a_wrong_byte_is_read_or_refused(at: int, byte: int) -> None:
    damaged = bytearray(made())
    damaged[at] = byte
    with suppress(ValueError):
        programs_in(bytes(damaged))


def test_a_file_of_nothing_but_instructions_is_one() -> None:
    assert programs_in(RETURN_0) == [Code("", RETURN_0)]
    with pytest.raises(ValueError, match="15 bytes are not instructions of 8 bytes each"):
        programs_in(RETURN_0[1:])


def test_a_file_of_another_machine_is_refused() -> None:
    other = bytearray(made())
    other[18] = 62  # EM_X86_64
    with pytest.raises(ValueError, match="another machine than BPF"):
        programs_in(bytes(other))


def test_the_section_says_what_type_it_is() -> None:
    sections = [programs_in(made(prog_type=kind))[0].section for kind in (SOCKET_FILTER, XDP, LSM)]
    assert sections == ["socket", "xdp", "prog"]


def test_llvm_reads_it(tmp_path: Path) -> None:
    objdump = shutil.which("llvm-objdump") or shutil.which("llvm-objdump-14")
    if not objdump:
        pytest.skip("there is no llvm-objdump")
    path = tmp_path / "prog.o"
    path.write_bytes(made(name=b"odd name"))
    shown = subprocess.run([objdump, "-d", path], capture_output=True, text=True, check=True).stdout
    assert "<odd_name>:" in shown
    assert shown.rstrip().endswith("exit")


@pytest.mark.live
def test_bpftool_loads_it(tmp_path: Path) -> None:
    path = tmp_path / "prog.o"
    path.write_bytes(made())
    pin = Path("/sys/fs/bpf") / f"bpfsnoop-test-{tmp_path.name}"
    subprocess.run(["bpftool", "prog", "load", path, pin], check=True, capture_output=True)
    try:
        shown = subprocess.run(
            ["bpftool", "prog", "dump", "xlated", "pinned", pin],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        pin.unlink()
    assert "(b7) r0 = 0" in shown
