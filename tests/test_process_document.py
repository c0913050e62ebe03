# SPDX-License-Identifier: Apache-2.0
"""Who made a call, in documents and in the line that introduces a process."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfsnoop.events.call import Call, Image
from bpfsnoop.events.process import (
    Ancestor,
    Container,
    Missing,
    Process,
    Surroundings,
    arguments,
    exe_authentic,
    exe_by_itself,
)
from bpfsnoop.events.process_document import CAPABILITIES, capabilities, entity_id
from bpfsnoop.events.text import process as line
from bpfsnoop.events.wire import (
    PROCESS_ARGS_CUT,
    PROCESS_ARGS_UNREAD,
    PROCESS_EXE_CUT,
    PROCESS_EXE_GONE,
    PROCESS_EXE_PSEUDO,
    PROCESS_KERNEL,
)
from calls import call_of, image_of, process_of, without_task
from documents import ORIGIN, document_of

CALL = call_of(22, b"\3\0\0\0")
HOST = ORIGIN.mount_namespace
ID = "0123456789abcdef" * 4
POD = "8a7e5b1c-0d2f-4e3a-9b6c-112233445566"

FOUND = Surroundings(
    args=(b"loader", b"-v", b"x"),
    args_cut=False,
    cwd=b"/root",
    ancestors=(Ancestor(1_200, b"bash", b"/bin/bash", 30), Ancestor(1, b"init", None, 0)),
    ancestors_cut=False,
    cgroup=b"/system.slice",
    container=None,
    missing={},
)
NOTHING = Surroundings(
    args=None, args_cut=False, cwd=None, ancestors=(), ancestors_cut=False, cgroup=None,
    container=None, missing={},
)  # fmt: skip


def about(image: Image | None, surroundings: Surroundings | None = FOUND) -> dict[str, Any]:
    """``process`` of a document."""
    process: dict[str, Any] = document_of(CALL, process_of(CALL, image, surroundings))["process"]
    return process


def beside(image: Image | None, surroundings: Surroundings | None = FOUND) -> dict[str, Any]:
    """``bpf.process`` of a document."""
    document = document_of(CALL, process_of(CALL, image, surroundings))
    extra: dict[str, Any] = document["bpf"]["process"]
    return extra


def absent(image: Image | None, surroundings: Surroundings | None = FOUND) -> Mapping[str, str]:
    reasons: dict[str, str] = beside(image, surroundings).get("absent", {})
    return reasons


# --- Everything is known -----------------------------------------------------------------


def test_all_that_can_be_known() -> None:
    shown = about(image_of())
    assert shown["executable"] == "/usr/bin/loader"
    assert shown["args"] == ["loader", "-v", "x"]
    assert shown["working_directory"] == "/root"
    assert shown["parent"]["pid"] == 1_200
    assert shown["parent"]["name"] == "bash"
    assert shown["parent"]["executable"] == "/bin/bash"
    assert shown["ancestors"] == [
        {"pid": 1_200, "name": "bash", "executable": "/bin/bash"},
        {"pid": 1, "name": "init"},
    ]
    extra = beside(image_of())
    assert (extra["exe_deleted"], extra["exe_memfd"]) == (False, False)
    assert (extra["cgroup"], extra["in_container"]) == ("/system.slice", False)
    assert not {"absent", "exe_cut", "args_cut", "ancestors_cut"} & extra.keys()


@pytest.mark.parametrize(
    ("flags", "exe", "shown"),
    [
        (PROCESS_EXE_GONE, b"/tmp/x", {"exe_deleted": True, "exe_memfd": False}),
        (PROCESS_EXE_PSEUDO | PROCESS_EXE_GONE, b"memfd:x", {"exe_memfd": True}),
        (PROCESS_EXE_PSEUDO, b"[aio]", {"exe_memfd": False}),
        # A file of that name is not one.
        (0, b"memfd:x", {"exe_memfd": False}),
        (PROCESS_EXE_CUT, b"deep/x", {"exe_cut": True}),
    ],
)
def test_what_a_process_runs_from(flags: int, exe: bytes, shown: dict[str, bool]) -> None:
    image = image_of(flags=flags, exe=exe)
    extra = beside(image)
    assert extra | shown == extra
    assert about(image)["executable"] == exe.decode()


def test_hostile_names_are_spelled_out() -> None:
    evil = b'\x1b[2J\n"\xff'
    spelled = '\\33[2J\\n"\\377'
    found = FOUND._replace(cwd=evil, cgroup=evil, ancestors=(Ancestor(1_200, evil, evil, 3),))
    image = image_of(exe=evil, args=evil + b"\0", parent_comm=evil)
    shown = about(image, found)
    assert shown["executable"] == shown["working_directory"] == spelled
    assert shown["args"] == [spelled]
    assert shown["parent"]["name"] == shown["parent"]["executable"] == spelled
    assert shown["ancestors"][0] == {"pid": 1_200, "name": spelled, "executable": spelled}
    assert beside(image, found)["cgroup"] == spelled


def test_the_parent_s_executable_is_that_of_the_parent() -> None:
    """The parent may have ended since, and the process have another one now."""
    other = FOUND._replace(ancestors=(Ancestor(1, b"init", b"/sbin/init", 0),))
    assert "executable" not in about(image_of(), other)["parent"]
    assert "executable" not in about(image_of(), NOTHING)["parent"]


# --- Arguments ---------------------------------------------------------------------------

CUT = PROCESS_ARGS_CUT


@pytest.mark.parametrize(
    ("flags", "told", "found", "args", "cut"),
    [
        (0, b"a\0b\0", None, [b"a", b"b"], False),
        (0, b"a\0\0", None, [b"a", b""], False),
        (0, b"a title", None, [b"a title"], False),
        (0, b"", None, [], False),
        (0, b"\0", None, [b""], False),
        # What it was at the call counts, not what it is now.
        (0, b"a\0b\0", (b"c",), [b"a", b"b"], False),
        # Where the kernel program had no room, /proc goes on.
        (CUT, b"a\0b", (b"a", b"bc", b"d"), [b"a", b"bc", b"d"], False),
        (CUT, b"a\0b", (b"a", b"x"), [b"a", b"b"], True),
        (CUT, b"a\0b", None, [b"a", b"b"], True),
        (CUT, b"a\0b\0", None, [b"a", b"b"], True),
        (PROCESS_ARGS_UNREAD, b"", (b"a",), [b"a"], False),
    ],
)
def test_arguments(
    flags: int, told: bytes, found: tuple[bytes, ...] | None, args: list[bytes], cut: bool
) -> None:
    image = image_of(flags=flags, args=told)
    process = process_of(CALL, image, NOTHING._replace(args=found))
    assert arguments(process) == (args, cut)
    assert beside(image, process.surroundings).get("args_cut", False) == cut


def test_arguments_that_only_proc_knows() -> None:
    assert about(None)["args"] == ["loader", "-v", "x"]
    cut = FOUND._replace(args_cut=True)
    assert beside(None, cut)["args_cut"] is True


@pytest.mark.parametrize(
    ("flags", "told", "argv0"),
    [
        (0, b"a\0b\0", "a"),
        (0, b"\0b\0", ""),
        (0, b"a title", "a title"),
        (0, b"\x1b\0", r"\33"),
        (0, b"", None),
        (CUT, b"a\0b", "a"),
        # There may be more of it.
        (CUT, b"a", None),
        (PROCESS_ARGS_UNREAD, b"", None),
    ],
)
def test_the_first_argument(flags: int, told: bytes, argv0: str | None) -> None:
    assert beside(image_of(flags=flags, args=told), NOTHING).get("argv0") == argv0


# --- Whether the executable is what its path says ----------------------------------------

ELSEWHERE = 4_026_532_999
GONE = PROCESS_EXE_GONE
SAME, OTHER = NOTHING._replace(exe_on_host=True), NOTHING._replace(exe_on_host=False)


@pytest.mark.parametrize(
    ("change", "found", "authentic"),
    [
        ({}, None, True),
        ({"exe_mode": 0o104755}, None, True),
        ({"exe_mode": 0o100555}, OTHER, True),
        ({"exe_uid": 1000}, SAME, False),
        ({"exe_uid": 0xFFFF_FFFF}, SAME, False),
        ({"exe_mode": 0o100775}, SAME, False),
        ({"exe_mode": 0o100757}, SAME, False),
        ({"exe_mode": 0o100777}, SAME, False),
        ({"exe_mode": 0}, SAME, "no_btf"),
        ({"exe": b""}, SAME, "unreadable"),
        ({"flags": PROCESS_EXE_CUT}, SAME, False),
        ({"flags": PROCESS_EXE_CUT, "exe_mode": 0}, SAME, False),
        ({"flags": PROCESS_EXE_PSEUDO, "exe": b"memfd:x"}, SAME, False),
        ({"flags": PROCESS_KERNEL, "exe": b"", "exe_mode": 0}, None, "kernel_thread"),
        # Deleted, as when its package was upgraded while it ran.
        ({"flags": GONE}, None, True),
        ({"flags": GONE, "exe_uid": 1000}, None, False),
        ({"flags": GONE, "exe_mount_namespace": ELSEWHERE}, SAME, False),
        # From a mount of another namespace, or of none.
        ({"exe_mount_namespace": ELSEWHERE}, SAME, True),
        ({"exe_mount_namespace": ELSEWHERE}, OTHER, False),
        ({"exe_mount_namespace": 0}, SAME, True),
        ({"exe_mount_namespace": 0}, OTHER, False),
        ({"exe_mount_namespace": ELSEWHERE, "exe_uid": 1000}, None, False),
        ({"exe_mount_namespace": ELSEWHERE}, None, "not_told"),
        ({"exe_mount_namespace": ELSEWHERE}, NOTHING, "not_told"),
        *(({"exe_mount_namespace": ELSEWHERE},
           NOTHING._replace(missing={"exe_on_host": why}), why.value) for why in Missing),
    ],
)  # fmt: skip
def test_an_executable_is_what_its_path_says(
    change: dict[str, Any], found: Surroundings | None, authentic: bool | str
) -> None:
    image = image_of(**change)
    reason = {} if isinstance(authentic, bool) else {"exe_authentic": authentic}
    told = {"exe_authentic": authentic} if isinstance(authentic, bool) else {}
    extra = beside(image, found)
    assert {key: extra[key] for key in extra if key == "exe_authentic"} == told
    reasons = absent(image, found)
    assert {key: reasons[key] for key in reasons if key == "exe_authentic"} == reason


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({}, True),
        ({"exe_mount_namespace": 0}, True),
        ({"exe_mount_namespace": HOST}, False),
        ({"exe_uid": 1}, False),
        ({"exe_mode": 0o100775}, False),
        ({"exe_mode": 0}, False),
        ({"flags": GONE}, False),
        ({"flags": PROCESS_EXE_CUT}, False),
        ({"flags": PROCESS_KERNEL}, False),
    ],
)
def test_the_host_is_asked_only_if_that_decides(change: dict[str, int], asked: bool) -> None:
    """Whoever calls has chosen the path."""
    image = image_of(**{"exe_mount_namespace": ELSEWHERE, **change})
    assert (exe_by_itself(image, HOST) is None) == asked


def test_a_namespace_that_nobody_knows_is_nobody_s() -> None:
    """Neither is a mount without a namespace one of a host without."""
    process = process_of(CALL, image_of(exe_mount_namespace=0), SAME)
    extra = document_of(CALL, process, origin=ORIGIN._replace(mount_namespace=0))["bpf"]["process"]
    assert "exe_authentic" not in extra
    assert extra["absent"]["exe_authentic"] == "unreadable"


@pytest.mark.parametrize(
    ("mode", "shown"),
    [(0o100755, "0755"), (0o104711, "4711"), (0o101777, "1777"), (0o100000, "0000")],
)
def test_whose_file_it_is(mode: int, shown: str) -> None:
    extra = beside(image_of(exe_uid=0xFFFF_FFFE, exe_mode=mode))
    assert (extra["exe_uid"], extra["exe_mode"]) == ("4294967294", shown)
    assert not {"exe_uid", "exe_mode"} & beside(image_of(exe_mode=0)).keys()


# --- What is not known, and why ----------------------------------------------------------


def test_of_a_process_of_which_nothing_was_told() -> None:
    assert absent(None, None) == dict.fromkeys(
        ("executable", "exe_authentic", "parent", "args", "working_directory", "ancestors",
         "cgroup"), "not_told",
    )  # fmt: skip


def test_on_a_kernel_that_does_not_tell() -> None:
    call = without_task(CALL)
    process = process_of(call, None, FOUND, Missing.NO_BTF)
    document = document_of(call, process)
    assert document["bpf"]["process"]["absent"] == dict.fromkeys(
        ("entity_id", "start", "executable", "exe_authentic", "parent"), "no_btf"
    )
    assert not {"entity_id", "start", "executable", "parent"} & document["process"].keys()
    assert "capabilities" not in document["process"]["thread"]
    assert "effective" not in document["user"]
    assert document["bpf"]["process"].keys() == {
        "cgroup_id", "cgroup", "in_container", "argv0", "absent",
    }  # fmt: skip


@pytest.mark.parametrize("reason", list(Missing))
@pytest.mark.parametrize("what", ["args", "working_directory", "ancestors", "cgroup"])
def test_every_reason_is_told(what: str, reason: Missing) -> None:
    found = NOTHING._replace(missing={what: reason})
    assert absent(None, found)[what] == reason.value


@pytest.mark.parametrize(
    ("image", "found", "reasons"),
    [
        (image_of(flags=PROCESS_KERNEL, exe=b"", args=b""), FOUND._replace(args=None),
         {"executable": "kernel_thread", "exe_authentic": "kernel_thread",
          "args": "kernel_thread"}),
        (image_of(exe=b""), FOUND, {"executable": "unreadable", "exe_authentic": "unreadable"}),
        (image_of(args=b""), FOUND, {"args": "empty"}),
        (image_of(args=b"", flags=PROCESS_ARGS_UNREAD), FOUND._replace(args=None),
         {"args": "unreadable"}),
        (None, FOUND._replace(args=()), {"executable": "not_told", "exe_authentic": "not_told",
                                         "parent": "not_told", "args": "empty"}),
        # The first process has no ancestors.
        (image_of(), FOUND._replace(ancestors=()), {"ancestors": "empty"}),
        (image_of(), FOUND._replace(cgroup=None), {"cgroup": "not_told"}),
        (image_of(), FOUND, {}),
    ],
)  # fmt: skip
def test_reasons(image: Image | None, found: Surroundings, reasons: Mapping[str, str]) -> None:
    assert absent(image, found) == reasons


def test_ancestors_that_are_cut_say_so() -> None:
    assert beside(image_of(), FOUND._replace(ancestors_cut=True))["ancestors_cut"] is True


# --- Containers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "shown"),
    [
        (Container(ID, "docker", ""), {"container": {"id": ID, "runtime": "docker"}}),
        (Container(ID, "", ""), {"container": {"id": ID}}),
        (Container("web", "lxc", ""), {"container": {"id": "web", "runtime": "lxc"}}),
        (Container(ID, "cri-o", POD), {
            "container": {"id": ID, "runtime": "cri-o"},
            "orchestrator": {"type": "kubernetes", "resource": {"type": "pod", "id": POD}},
        }),
        (None, {}),
    ],
)  # fmt: skip
def test_containers(container: Container | None, shown: dict[str, Any]) -> None:
    found = FOUND._replace(container=container)
    document = document_of(CALL, process_of(CALL, image_of(), found))
    assert {key: document[key] for key in ("container", "orchestrator") if key in document} == shown
    assert document["bpf"]["process"]["in_container"] == (container is not None)


# --- entity_id ---------------------------------------------------------------------------


def test_an_entity_id_is_for_ever() -> None:
    """Another one for the same process would break what was stored of it."""
    boot_id = "0fc5d1b6-2d7e-4c39-8a61-5b9e0f2c7d13"
    named = "0fc5d1b62d7e4c398a615b9e0f2c7d13-4d2-29b92703"
    assert entity_id(boot_id, 1_234, 700_000_003) == named


def test_calls_and_children_agree_on_a_process() -> None:
    process = about(image_of())
    child = call_of(22, b"\3\0\0\0")._replace(tgid=5, process_start_ns=9)
    told = image_of(tgid=5, start_ns=9, parent_tgid=1_234, parent_start_ns=700_000_003)
    parent = document_of(child, process_of(child, told))["process"]["parent"]
    assert parent["entity_id"] == process["entity_id"]
    # execve(2) makes no other process of it.
    after = CALL._replace(exec_id=6)
    assert document_of(after, process_of(after))["process"]["entity_id"] == process["entity_id"]


def test_a_parent_whose_start_is_not_known_has_no_entity_id() -> None:
    assert "entity_id" not in about(image_of(parent_start_ns=0))["parent"]


BOOTS = st.sampled_from([f"{number:032x}" for number in range(3)])
PROCESSES = st.tuples(BOOTS, st.integers(0, 300), st.integers(0, 300))


@given(PROCESSES, PROCESSES)
def test_processes_differ_in_their_entity_ids(
    one: tuple[str, int, int], other: tuple[str, int, int]
) -> None:
    assert (entity_id(*one) == entity_id(*other)) == (one == other)


@pytest.mark.parametrize("boot_id", ["", "boot", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n"])
def test_a_boot_without_an_id_has_processes_without_one(boot_id: str) -> None:
    """Another boot of that host could have a process of the same pid and start."""
    origin = ORIGIN._replace(boot_id=boot_id)
    document = document_of(CALL, process_of(CALL, image_of()), origin=origin)
    assert "entity_id" not in document["process"]
    assert "entity_id" not in document["process"]["parent"]
    assert document["bpf"]["process"]["absent"]["entity_id"] == "no_boot_id"


# --- Capabilities ------------------------------------------------------------------------


def test_capabilities_are_named() -> None:
    assert capabilities(0) == []
    assert capabilities(1 << 21 | 1 << 39) == ["CAP_SYS_ADMIN", "CAP_BPF"]
    assert capabilities(1 << 40 | 1 << 41 | 1 << 63) == [
        "CAP_CHECKPOINT_RESTORE", "CAP_41", "CAP_63",
    ]  # fmt: skip
    assert capabilities((1 << 41) - 1) == list(CAPABILITIES)


INITIAL, NESTED = 0xEFFFFFFD, 4_026_532_500
BPF, ADMIN, ALL = 1 << 39, 1 << 21, (1 << 41) - 1


@pytest.mark.parametrize(
    ("bits", "namespace", "capable"),
    [
        (BPF, INITIAL, True),
        (ADMIN, INITIAL, True),
        (ALL, INITIAL, True),
        (ALL & ~BPF & ~ADMIN, INITIAL, False),
        (0, INITIAL, False),
        # Whoever makes a user namespace has all of them there.
        (ALL, NESTED, False),
        # Without any it does not matter where.
        (0, 0, False),
        (BPF, 0, None),
    ],
)
def test_capabilities_count_in_the_initial_user_namespace(
    bits: int, namespace: int, capable: bool | None
) -> None:
    call = CALL._replace(capabilities=bits, user_namespace=namespace)
    extra = document_of(call)["bpf"]["process"]
    assert extra.get("cap_bpf") == capable
    reasons = {"cap_bpf": "no_btf"} if capable is None else {}
    reasons |= {} if namespace else {"user_namespace": "no_btf"}
    assert {key: why for key, why in extra["absent"].items() if why == "no_btf"} == reasons
    assert extra.get("user_namespace", 0) == namespace


# --- The line that introduces a process --------------------------------------------------


@pytest.mark.parametrize(
    ("image", "found", "shown"),
    [
        (image_of(), FOUND,
         'exe="/usr/bin/loader", args=["loader", "-v", "x"], uid=7, parent=bash[1200],'
         ' cgroup="/system.slice"'),
        (image_of(flags=PROCESS_EXE_GONE), NOTHING,
         'exe="/usr/bin/loader" (deleted), args=["loader", "-v", "x"], uid=7,'
         " parent=bash[1200]"),
        (None, None, "uid=7"),
        (None, FOUND._replace(cgroup=b"/"), 'args=["loader", "-v", "x"], uid=7'),
        (image_of(args=b"a\0b", flags=PROCESS_ARGS_CUT), NOTHING,
         'exe="/usr/bin/loader", args=["a", "b", ...], uid=7, parent=bash[1200]'),
        (image_of(args=b"a" * 256 + b"\0b\0"), NOTHING,
         f'exe="/usr/bin/loader", args=["{"a" * 256}", ""...], uid=7, parent=bash[1200]'),
        (image_of(args=b"a" * 257 + b"\0"), NOTHING,
         f'exe="/usr/bin/loader", args=["{"a" * 256}"...], uid=7, parent=bash[1200]'),
        (None, NOTHING._replace(cgroup=b"/x", container=Container(ID, "docker", "")),
         "uid=7, container=docker:0123456789ab"),
        (None, NOTHING._replace(cgroup=b"/x", container=Container(ID, "", "")),
         "uid=7, container=unknown:0123456789ab"),
        (image_of(exe=b'/\x1b[2J"\n', args=b'"\x9b\0', parent_comm=b"\x07]"),
         NOTHING._replace(cgroup=b'/"\n'),
         r'exe="/\33[2J\"\n", args=["\"\233"], uid=7, parent=\7][1200], cgroup="/\"\n"'),
    ],
)  # fmt: skip
def test_line(image: Image | None, found: Surroundings | None, shown: str) -> None:
    process = process_of(CALL, image, found)
    call = CALL._replace(uid=7, euid=7, comm=b"loader")
    assert line(process, call) == f"--- loader[1234] {{{shown}}} ---"
    hostile = call._replace(comm=b"\x1b\n")
    assert line(process, hostile) == f"--- \\33\\n[1234] {{{shown}}} ---"


@pytest.mark.parametrize(
    ("change", "verbose", "shown"),
    [
        ({"euid": 0}, False, "uid=7, euid=0"),
        ({}, True, "uid=7, gid=100, loginuid=1001, caps=CAP_PERFMON|CAP_BPF, mntns=4026531841,"
                   " pidns=4026531836, userns=4026531837"),
        ({"capabilities": (1 << 41) - 1, "login_uid": (1 << 32) - 1, "pid_namespace": 0,
          "user_namespace": 0}, True,
         "uid=7, gid=100, caps=all, mntns=4026531841"),
        ({"capabilities": 0}, True,
         "uid=7, gid=100, loginuid=1001, caps=0, mntns=4026531841, pidns=4026531836,"
         " userns=4026531837"),
    ],
)  # fmt: skip
def test_rights_in_a_line(change: dict[str, Any], verbose: bool, shown: str) -> None:
    call = CALL._replace(uid=7, euid=7)._replace(**change)
    assert line(process_of(call), call, verbose=verbose).endswith(f" {{{shown}}} ---")
    unknown = without_task(call)
    few = line(process_of(unknown), unknown, verbose=verbose)
    assert few.endswith(f" {{uid=7{', gid=100' * verbose}}} ---")


# --- Anything ----------------------------------------------------------------------------

BYTES = st.binary(max_size=12)
U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
IMAGES = st.builds(
    Image, U32, st.just(0) | U64, U64, st.just(0) | U64, U64, U32,
    st.integers(0, 127), st.just(0) | U32, st.just(0) | U32, U32, st.just(HOST) | U32,
    BYTES, BYTES | st.just(b"memfd:x"), BYTES | st.just(b"a\0b\0"),
)  # fmt: skip
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
SURROUNDINGS = st.builds(
    Surroundings,
    args=st.none() | st.lists(BYTES, max_size=3).map(tuple),
    args_cut=st.booleans(),
    cwd=st.none() | BYTES,
    ancestors=st.lists(st.builds(Ancestor, U32, BYTES, st.none() | BYTES, U64), max_size=3).map(
        tuple
    ),
    ancestors_cut=st.booleans(),
    cgroup=st.none() | BYTES,
    container=st.none() | st.builds(Container, PRINTABLE, PRINTABLE, PRINTABLE),
    missing=st.dictionaries(
        st.sampled_from(["args", "working_directory", "ancestors", "cgroup", "exe_on_host"])
        | PRINTABLE,
        st.sampled_from(Missing),
    ),
    exe_on_host=st.none() | st.booleans(),
)

EXPLAINED = ("entity_id", "start", "executable", "parent", "args", "working_directory", "ancestors")


@settings(deadline=None, max_examples=500)
@given(
    st.none() | IMAGES,
    st.none() | SURROUNDINGS,
    st.sampled_from(Missing),
    st.sampled_from(
        [
            CALL,
            CALL._replace(pid_namespace=0),
            CALL._replace(user_namespace=0),
            CALL._replace(user_namespace=0, capabilities=0),
            without_task(CALL),
        ]
    ),
    BYTES,
)
def test_any_process_has_a_line_and_a_document_that_explains_what_it_lacks(
    image: Image | None,
    found: Surroundings | None,
    untold: Missing,
    call: Call,
    comm: bytes,
) -> None:
    process: Process = process_of(call, image, found, untold)
    shown = line(process, call._replace(comm=comm), verbose=True)
    assert shown.isascii()
    assert shown.isprintable()
    document = document_of(call, process)
    reasons = document["bpf"]["process"].get("absent", {})
    for what in EXPLAINED:
        assert (what in document["process"]) != (what in reasons), what
    assert ("cgroup" in document["bpf"]["process"]) != ("cgroup" in reasons)
    if "cgroup" in document["bpf"]["process"]:
        assert ("in_container" in document["bpf"]["process"]) != ("in_container" in reasons)
    of_task = ["pid_namespace", "user_namespace", "cap_bpf"] if call.has_task else []
    for what in ["exe_authentic", *of_task]:
        assert (what in document["bpf"]["process"]) != (what in reasons), what
    if parent := document["process"].get("parent"):
        assert ("name" in parent) != ("parent_name" in reasons)


@settings(deadline=None)
@given(IMAGES, SURROUNDINGS)
def test_what_others_can_write_is_never_authentic(image: Image, found: Surroundings) -> None:
    for other in (
        image._replace(exe_uid=1),
        image._replace(exe_mode=0o100666),
        image._replace(flags=PROCESS_EXE_PSEUDO),
    ):
        assert exe_authentic(process_of(CALL, other, found), HOST) is not True


def test_documents_of_two_hosts_do_not_mix() -> None:
    """What is kept for a process is kept for its origin."""
    process = process_of(CALL)
    for boot_id in (ORIGIN.boot_id, "f" * 32, ORIGIN.boot_id):
        origin = ORIGIN._replace(boot_id=boot_id)
        document = document_of(CALL, process, origin=origin)
        assert document["process"]["entity_id"] == entity_id(boot_id, 1_234, 700_000_003)
