# SPDX-License-Identifier: Apache-2.0
"""The reader of BTF, which finds enums and members of structs by name."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct, pack, unpack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btf_reader
from bpfsnoop.decoders.uapi import ENUMS
from bpfsnoop.tracer.btf import HELPERS, VMLINUX, Btf, kernel_names

HEADER = Struct("=HBBIIIII")
MAGIC = 0xEB9F
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, TYPE_TAG = 11, 18
KIND_FLAG = 1 << 31

MEMBERS = [
    f"{struct}.{member}"
    for struct, members in {
        "task_struct": (
            "files cred real_parent group_leader start_boottime self_exec_id "
            "loginuid nsproxy mm tgid thread_pid"
        ),
        "files_struct": "fdt",
        "fdtable": "max_fds fd",
        "file": "f_op private_data f_path.dentry f_path.mnt",
        "file_operations": "release",
        "mm_struct": "exe_file arg_start arg_end",
        "dentry": "d_parent d_name.name d_hash.pprev d_inode",
        "inode": "i_nlink",
        "vfsmount": "mnt_root",
        "mount": "mnt_parent mnt_mountpoint mnt",
        "nsproxy": "mnt_ns",
        "mnt_namespace": "ns.inum",
        "pid": "level numbers",
        "upid": "ns",
        "pid_namespace": "ns.inum",
        "cred": "uid euid gid cap_effective",
        "bpf_map": "id name map_type key_size value_size max_entries",
        "bpf_prog": "aux type tag",
        "bpf_prog_aux": "id name",
        "bpf_link": "id type prog",
        "btf": "id",
    }.items()
    for member in members.split()
]
"""Of structs of the kernel, some of them nested, some in unnamed unions."""


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

    def record(
        self, name: str, *members: tuple[str, int, int], kind: int = STRUCT, size: int = 64
    ) -> "Blob":
        """Of each member the name, the type and the offset in bits; "" is no name."""
        self._types += pack("=III", self._name(name), kind << 24 | len(members), size)
        for member, number, offset in members:
            self._types += pack("=III", self._name(member), number, offset)
        return self

    def bitfields(self, name: str, *members: tuple[str, int, int, int]) -> "Blob":
        """As a record, and the width in bits."""
        self._types += pack("=III", self._name(name), KIND_FLAG | STRUCT << 24 | len(members), 64)
        for member, number, offset, width in members:
            self._types += pack("=III", self._name(member), number, width << 24 | offset)
        return self

    def reference(self, kind: int, number: int, name: str = "") -> "Blob":
        """A pointer, a typedef or a modifier of another type."""
        return self.words(self._name(name), kind << 24, number)

    def _name(self, text: str) -> int:
        return self.string(text) if text else 0

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


def test_members_have_offsets_in_bytes() -> None:
    blob = Blob().integer("int", 32).record("pair", ("a", 1, 0), ("b", 1, 32), size=8)
    btf = Btf(blob.data)
    assert btf.offsets(["pair.a", "pair.b"]) == {"pair.a": 0, "pair.b": 4}
    assert btf.struct_size("pair") == 8


def test_a_path_goes_through_embedded_structs_and_unions() -> None:
    blob = Blob().integer("int", 32)
    blob.record("path", ("mnt", 1, 0), ("dentry", 1, 64))  # type 2
    blob.record("both", ("path", 2, 64), ("other", 1, 0), kind=UNION)  # type 3
    blob.record("file", ("f_path", 2, 128), ("f_both", 3, 256))
    paths = {
        "file.f_path": 16,
        "file.f_path.dentry": 24,
        "file.f_both.other": 32,
        "file.f_both.path.dentry": 48,
    }
    assert Btf(blob.data).offsets(paths) == paths


@pytest.mark.parametrize("middle", [CONST, VOLATILE, TYPEDEF, RESTRICT, TYPE_TAG])
def test_modifiers_are_seen_through(middle: int) -> None:
    blob = Blob().integer("int", 32).record("inner", ("x", 1, 32))
    blob.reference(TYPEDEF, 4, "alias").reference(middle, 5).reference(CONST, 2)  # types 3 to 5
    blob.record("outer", ("member", 3, 64), ("", 3, 128))
    assert Btf(blob.data).offsets(["outer.member.x", "outer.x"]) == {
        "outer.member.x": 12,
        "outer.x": 20,
    }


def test_pointers_and_arrays_end_a_path() -> None:
    blob = Blob().integer("int", 32).record("inner", ("x", 1, 32)).reference(PTR, 2)
    blob.words(0, ARRAY << 24, 0, 2, 1, 4)  # type 4
    blob.record("outer", ("pointer", 3, 64), ("array", 4, 128), ("number", 1, 256), ("", 3, 0))
    found = Btf(blob.data).offsets(
        ["outer.pointer", "outer.array", "outer.x"]
        + [f"outer.{member}.x" for member in ("pointer", "array", "number")]
    )
    assert found == {"outer.pointer": 8, "outer.array": 16}


def test_members_of_unnamed_unions_are_those_of_the_struct_around_them() -> None:
    blob = Blob().integer("int", 32)
    blob.record("", ("deep", 1, 32), ("deeper", 1, 64))  # type 2
    blob.record("", ("first", 1, 0), ("", 2, 64), kind=UNION)  # type 3
    blob.record("prog", ("", 3, 64), ("", 1, 0), ("last", 3, 256))
    paths = {"prog.first": 8, "prog.deep": 20, "prog.deeper": 24, "prog.last.deep": 44}
    assert Btf(blob.data).offsets([*paths, "prog.", "prog.last.", "."]) == paths


def test_bitfields_have_an_offset_if_they_begin_with_a_byte() -> None:
    blob = Blob().integer("int", 32).record("inner", ("x", 1, 32))
    blob.bitfields("bits", ("a", 1, 0, 3), ("b", 1, 3, 5), ("c", 1, 8, 1), ("d", 2, 64, 0))
    blob.record("old", ("a", 1, 3), ("far", 1, 1 << 24), size=1 << 24)
    assert Btf(blob.data).offsets(
        ["bits.a", "bits.b", "bits.c", "bits.d", "bits.d.x", "old.a", "old.far"]
    ) == {"bits.a": 0, "bits.c": 1, "bits.d": 8, "bits.d.x": 12, "old.far": 1 << 21}


@pytest.mark.parametrize(
    "member",
    ["pair.c", "pair.a.b", "pai.a", "air.a", "a.a", "pair", "pair.", ".a", "", "pair..a",
     "pair.a\0b", "pair\0a.b", "pair.\udc80", "int.a", "mode.a", "either.a"],
)  # fmt: skip
def test_members_that_are_not_there_are_left_out(member: str) -> None:
    blob = Blob().integer("int", 32).record("pair", ("a", 1, 0), ("b", 1, 32))
    blob.enum("mode", MODES).record("either", ("a", 1, 0), kind=UNION)
    assert Btf(blob.data).offsets([member, "pair.b"]) == {"pair.b": 4}


def test_an_unknown_struct_has_no_size() -> None:
    blob = Blob().record("either", kind=UNION).words(0, FWD << 24, 0)
    assert Btf(blob.data).struct_size("either") is None
    assert Btf(blob.data).struct_size("nothing") is None
    assert Btf(Blob().data).struct_size("nothing") is None


def test_of_structs_with_one_name_the_first_that_has_the_member_counts() -> None:
    blob = Blob().integer("int", 32).record("inner", ("x", 1, 32))
    blob.words(blob.string("mount"), FWD << 24, 0)
    blob.record("mount", ("a", 1, 0), ("b", 1, 32), size=8)
    blob.record("mount", ("b", 2, 64), ("c", 1, 32), size=24)
    btf = Btf(blob.data)
    paths = {"mount.a": 0, "mount.b": 4, "mount.c": 4, "mount.b.x": 12}
    assert btf.offsets(paths) == paths
    assert btf.struct_size("mount") == 8


def test_a_member_outside_its_struct_is_left_out() -> None:
    """A flexible array begins at the end, so that is not outside."""
    blob = Blob().integer("int", 32).record("list", ("end", 1, 64), ("behind", 1, 72), size=8)
    assert Btf(blob.data).offsets(["list.end", "list.behind"]) == {"list.end": 8}


def test_types_that_go_round_in_circles_are_given_up() -> None:
    blob = Blob().integer("int", 32).reference(TYPEDEF, 3, "a").reference(CONST, 2)
    blob.record("self", ("", 4, 8), ("", 5, 8), ("", 2, 0), ("me", 4, 8), ("a", 1, 0))  # type 4
    blob.record("", ("", 4, 8), ("b", 1, 16), ("", 99, 0), ("", 0, 0))
    members = ["self.a", "self.b", "self.c", "self.me.me.a"]
    assert Btf(blob.data).offsets(members) == {"self.a": 0, "self.b": 3, "self.me.me.a": 2}


def test_what_comes_after_an_unknown_kind_is_not_read() -> None:
    blob = Blob().integer("int", 32).record("one", ("a", 1, 0)).words(0, 31 << 24, 0)
    blob.record("two", ("a", 1, 0))
    assert Btf(blob.data).offsets(["one.a", "two.a"]) == {"one.a": 0}


def test_a_struct_that_is_cut_short_is_none() -> None:
    blob = Blob().integer("int", 32).record("one", ("a", 1, 0))
    blob.words(blob.string("two"), STRUCT << 24 | 2, 8, blob.string("a"), 1, 0)
    btf = Btf(blob.data)
    assert btf.offsets(["one.a", "two.a"]) == {"one.a": 0}
    assert btf.struct_size("two") is None


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


PATHS = ["outer.a", "outer.x", "outer.flag", "outer.alias.x", "outer.alias.deep.x", "either.x"]


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_offsets_survive_any_damage(data: st.DataObject) -> None:
    """Whatever is found is a number that fits where sizes do; nothing is raised."""
    whole = Blob().integer("int", 32).record("inner", ("x", 1, 32), ("deep", 2, 0))
    whole.reference(TYPEDEF, 4, "alias").reference(CONST, 2)
    whole.record("either", ("x", 1, 0), ("", 2, 64), kind=UNION)
    whole.bitfields(
        "outer", ("a", 1, 0, 0), ("flag", 1, 8, 1), ("alias", 3, 64, 0), ("", 5, 128, 0)
    )
    whole.enum("mode", MODES).record("outer", ("x", 1, 32))
    blob = bytearray(whole.data)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(2, len(blob) - 1))
        blob[at] = data.draw(st.one_of(st.integers(0, 20), st.integers(0, 255)))
    del blob[data.draw(st.one_of(st.just(len(blob)), st.integers(HEADER.size, len(blob)))) :]
    found = Btf(bytes(blob)).offsets(PATHS)
    assert found.keys() <= set(PATHS)
    assert all(0 <= offset < 1 << 32 for offset in found.values())


@settings(deadline=None, max_examples=500)
@given(st.lists(st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1)), max_size=60), st.data())
def test_any_words_are_types(words: list[int], data: st.DataObject) -> None:
    """Types that are likely to refer to each other, in any order."""
    blob = Blob()
    names = [blob.string(name) for name in ("outer", "x", "alias")]
    numbers = st.one_of(st.integers(0, 9), st.sampled_from(names))
    for _ in range(data.draw(st.integers(0, 6))):
        kind = data.draw(st.sampled_from([STRUCT, STRUCT, UNION, CONST, TYPEDEF]))
        count = data.draw(st.integers(0, 4)) if kind in (STRUCT, UNION) else 0
        flag = data.draw(st.sampled_from([0, KIND_FLAG]))
        name = data.draw(st.sampled_from([0, *names]))
        blob.words(name, flag | kind << 24 | count, data.draw(numbers))
        blob.words(*(data.draw(numbers) for _ in range(3 * count)))
    found = Btf(blob.words(*words).data).offsets(["outer.x", "outer.alias.x", "outer.x.x"])
    assert all(0 <= offset < 1 << 32 for offset in found.values())


def _places(types: Mapping[int, Any], record: Any, path: list[str], base: int) -> Iterator[int]:
    """Offsets in bits of the member at the path, after bpftool's list of the types."""
    for member in record["members"]:
        inner = types.get(member["type_id"], {})
        while inner.get("kind") in ("CONST", "VOLATILE", "TYPEDEF", "RESTRICT", "TYPE_TAG"):
            inner = types.get(inner["type_id"], {})
        place = base + member["bits_offset"]
        if member["name"] == path[0] and len(path) == 1:
            yield place
        elif inner.get("kind") in ("STRUCT", "UNION"):
            if member["name"] == path[0]:
                yield from _places(types, inner, path[1:], place)
            elif member["name"] == "(anon)":
                yield from _places(types, inner, path, place)


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel shows no BTF")
@pytest.mark.skipif(not shutil.which("bpftool"), reason="there is no bpftool to compare with")
def test_members_of_the_running_kernel_are_where_bpftool_finds_them() -> None:
    dump = ["bpftool", "-j", "btf", "dump", "file", str(VMLINUX)]
    listed = json.loads(subprocess.run(dump, check=True, stdout=subprocess.PIPE).stdout)["types"]
    types = {type_["id"]: type_ for type_ in listed}
    structs: dict[str, list[Any]] = {}
    for type_ in listed:
        if type_["kind"] == "STRUCT":
            structs.setdefault(type_["name"], []).append(type_)
    expected: dict[str, int] = {}
    for member in MEMBERS:
        name, *path = member.split(".")
        for struct in structs.get(name, []):
            for place in _places(types, struct, path, 0):
                expected.setdefault(member, place // 8)
    btf = Btf(VMLINUX.read_bytes())
    assert btf.offsets(MEMBERS) == expected
    assert {"task_struct.files", "file.f_path.dentry", "bpf_prog.tag"} <= expected.keys()
    for name in {member.split(".")[0] for member in expected}:
        assert btf.struct_size(name) == structs[name][0]["size"]
