# SPDX-License-Identifier: Apache-2.0
"""The reader of BTF, which finds enums by name without walking through all types."""

from collections.abc import Mapping
from pathlib import Path
from struct import Struct, pack, unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btf_reader
from bpfsnoop.decoders.uapi import ENUMS
from bpfsnoop.tracer.btf import HELPERS, VMLINUX, Btf, kernel_names

HEADER = Struct("=HBBIIIII")
MAGIC = 0xEB9F
INT, STRUCT, ENUM = 1, 4, 6


class Blob:
    """BTF made by hand."""

    def __init__(self) -> None:
        self._strings = b"\0"
        self._types = b""

    def string(self, text: str) -> int:
        """Its offset; the same text has the same one."""
        data = b"\0" + text.encode() + b"\0"
        if data not in self._strings:
            self._strings += data[1:]
        return self._strings.index(data) + 1

    def enum(self, name: str, constants: Mapping[str, int], size: int = 4) -> "Blob":
        self._types += pack("=III", self.string(name), ENUM << 24 | len(constants), size)
        for constant, value in constants.items():
            self._types += pack("=Ii", self.string(constant), value)
        return self

    def integer(self, name: str, bits: int) -> "Blob":
        self._types += pack("=IIII", self.string(name), INT << 24, 4, bits)
        return self

    def words(self, *words: int) -> "Blob":
        """Anything else."""
        self._types += pack(f"={len(words)}I", *words)
        return self

    @property
    def data(self) -> bytes:
        header = HEADER.pack(
            MAGIC, 1, 0, HEADER.size,
            8, len(self._types), 8 + len(self._types), len(self._strings),
        )  # fmt: skip
        return header + b"whatever" + self._types + self._strings


MODES = {"BPF_ONE": 1, "BPF_TWO": 2, "BPF_UNSPEC": 0}


def test_constants_are_found_by_value() -> None:
    blob = Blob().integer("int", 32).enum("other", {"BPF_X": 9}).enum("mode", MODES)
    assert Btf(blob.data).enum("mode") == {1: "BPF_ONE", 2: "BPF_TWO", 0: "BPF_UNSPEC"}


def test_one_constant_is_enough() -> None:
    assert Btf(Blob().enum("mode", {"BPF_ONE": 1}).data).enum("mode") == {1: "BPF_ONE"}


def test_an_enum_of_others_is_not_ours() -> None:
    """Somebody else's by the same name, in a driver perhaps."""
    assert Btf(Blob().enum("mode", {"BPF_ONE": 1, "FAST": 2}).data).enum("mode") == {}


def test_the_first_of_two_names_stands() -> None:
    """Aliases come later: BPF_PROG_TEST_RUN, then BPF_PROG_RUN = BPF_PROG_TEST_RUN."""
    blob = Blob().enum("mode", {"BPF_NEW": 4, "BPF_OLD": 4})
    assert Btf(blob.data).enum("mode") == {4: "BPF_NEW"}


def test_what_only_counts_is_no_constant() -> None:
    blob = Blob().enum("mode", {"BPF_ONE": 1, "__MAX_BPF_MODE": 2, "BPF_NONE": -1})
    assert Btf(blob.data).enum("mode") == {1: "BPF_ONE"}


@pytest.mark.parametrize("name", ["mod", "ode", "modes", "", "BPF_ONE", "mode\0x"])
def test_another_name_is_not_found(name: str) -> None:
    assert Btf(Blob().enum("mode", MODES).data).enum(name) == {}


def test_a_number_that_happens_to_be_the_same_is_no_name() -> None:
    """As a size, as a struct's name, as an enum of another size, unaligned."""
    blob = Blob()
    number = blob.string("mode")
    blob.integer("int", number)
    blob.words(number, STRUCT << 24, 4)
    unaligned = pack("=IIIIi", number, ENUM << 24 | 1, 4, blob.string("BPF_ONE"), 1)
    blob.words(*unpack("=6I", b"\1" + unaligned + b"\0\0\0"))
    blob.enum("mode", MODES, size=8)
    assert Btf(blob.data).enum("mode") == {}
    assert Btf(blob.enum("mode", MODES).data).enum("mode") == {
        value: name for name, value in MODES.items()
    }


def test_an_enum_that_is_cut_short_is_none() -> None:
    blob = Blob()
    blob.words(blob.string("mode"), ENUM << 24 | 3, 4, blob.string("BPF_ONE"), 1)
    assert Btf(blob.data).enum("mode") == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "too short for BTF"),
        (b"\x9f\xeb", "too short for BTF"),
        (b"\x7fELF".ljust(64, b"\0"), "not BTF of this machine's byte order"),
        (b"\xeb\x9f".ljust(64, b"\0"), "not BTF of this machine's byte order"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=problem):
        kernel_names(ENUMS, path)


def test_enums_that_a_kernel_lacks_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(Blob().enum("bpf_cmd", MODES).data)
    assert kernel_names(ENUMS, path) == {"bpf_cmd": {value: name for name, value in MODES.items()}}


def _sound(found: dict[int, str]) -> bool:
    return all(name.startswith("BPF_") and number >= 0 for number, name in found.items())


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["mode", "", "a"]))
def test_any_bytes_are_refused_or_searched(data: bytes, name: str) -> None:
    magic = MAGIC.to_bytes(2, "little" if pack("=H", 1) == b"\1\0" else "big")
    assert _sound(Btf(magic + data.ljust(HEADER.size, b"\0")).enum(name))
    try:
        assert _sound(Btf(data).enum(name))
    except ValueError:
        pass


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_damage_is_survived(data: st.DataObject) -> None:
    """Bytes changed anywhere, and the end missing."""
    blob = bytearray(Blob().integer("int", 32).enum("mode", MODES).enum("next", MODES).data)
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(2, len(blob) - 1))] = data.draw(st.integers(0, 255))
    del blob[data.draw(st.integers(HEADER.size, len(blob))) :]
    assert _sound(Btf(bytes(blob)).enum("mode"))


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel shows no BTF")
def test_the_running_kernel_is_read_as_a_full_reader_does() -> None:
    full = btf_reader.Btf(VMLINUX)
    found = kernel_names((*ENUMS, HELPERS))
    assert {"bpf_cmd", "bpf_map_type", "bpf_prog_type", HELPERS} <= set(found)
    for name, constants in found.items():
        expected: dict[int, str] = {}
        for constant, value in full.enum(name).items():
            if constant.startswith("BPF_"):
                expected.setdefault(value, constant)
        assert constants == expected
