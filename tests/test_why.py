# SPDX-License-Identifier: Apache-2.0
"""Why calls fail: what the line says behind the errno, and documents as error.message."""

import ctypes
import errno
import os
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders import uapi, why
from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.decoders.table import COMMANDS
from bpfsnoop.events.call import Call
from calls import attr, blob, call_of, without_task

DECODER = Decoder()
NET_ADMIN, SYS_ADMIN, PERFMON, BPF = 12, 21, 38, 39


def failed(cmd: int, number: int, data: bytes = b"", capabilities: tuple[int, ...] = ()) -> Call:
    call = call_of(cmd, data, size=max(4, len(data)), retval=-number)
    return call._replace(capabilities=sum(1 << each for each in capabilities))


def reason_of(call: Call) -> str:
    return DECODER.decode(call).reason


def test_a_call_that_succeeds_needs_no_reason() -> None:
    assert reason_of(call_of(22, attr("i", 3))) == ""


def test_an_errno_means_something_else_with_each_command() -> None:
    meanings = {reason_of(failed(cmd, errno.ENOENT)) for cmd in (1, 2, 4, 7, 11, 13, 17, 20)}
    assert "the map has no such key" in meanings
    assert "nothing is pinned there" in meanings
    assert len(meanings) == 8


def test_what_strerror_says_as_well_is_left_to_it() -> None:
    assert reason_of(failed(1, errno.EFAULT)) == ""
    assert reason_of(failed(4000, errno.EINVAL)) == ""


# --- What the verifier said --------------------------------------------------------------

LOG = (
    b"func#0 @0\n0: R1=ctx() R10=fp0\n; int x = *key; @ prog.c:12\n"
    b"0: (61) r0 = *(u32 *)(r2 +0)\nR2 !read_ok\n"
    b"processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0"
    b" mark_read 0\n\0rubbish"
)


def test_a_load_fails_for_what_the_verifier_said() -> None:
    load = failed(5, errno.EACCES, attr("IIQQIIQ", 1, 1, 1, 2, 1, 4096, 3))
    assert reason_of(load._replace(memory={32: blob(LOG)})) == "R2 !read_ok"
    assert reason_of(load) == "the verifier refused the program"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (b"", ""),
        (b"processed 9 insns (limit 1000000)\n", ""),
        (b"0: (95) exit\n", ""),
        (b"jump out of range from insn 1 to 9\n", "jump out of range from insn 1 to 9"),
        (b"BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns\n",
         "BPF program is too large. Processed 1000001 insn"),
        (b"from 1 to 2: R0=0\n2: (b7) r0 = 1\ninvalid bpf_context access off=4 size=8\n",
         "invalid bpf_context access off=4 size=8"),
        (b"\x1b[31m forged \xff\n", r"\33[31m forged \377"),
    ],
)  # fmt: skip
def test_the_last_words_of_a_log(log: bytes, said: str) -> None:
    assert why.last_words(log) == said


@given(st.binary(max_size=600))
def test_any_log_has_last_words_of_printable_ascii(log: bytes) -> None:
    said = why.last_words(log)
    assert re.fullmatch("[ -~]*", said)
    assert len(said) <= 240


@given(st.sampled_from([*COMMANDS, 4000]), st.integers(1, 600), st.integers(0, (1 << 41) - 1))
def test_any_failure_has_a_reason_or_none(cmd: int, number: int, capabilities: int) -> None:
    call = failed(cmd, number, bytes(20))._replace(capabilities=capabilities)
    assert re.fullmatch("[ -~]*", reason_of(call))


# --- What is missing ---------------------------------------------------------------------


def load_of(name: str) -> bytes:
    (kind,) = (kind for kind, each in uapi.PROG_TYPE.names.items() if each.endswith(f"_{name}"))
    return attr("IIQQ", kind, 1, 1, 2)


@pytest.mark.parametrize(
    ("name", "has", "needs"),
    [
        ("SOCKET_FILTER", (), "needs CAP_BPF, unless kernel.unprivileged_bpf_disabled is 0"),
        ("KPROBE", (), "needs CAP_BPF and CAP_PERFMON"),
        ("KPROBE", (BPF,), "needs CAP_PERFMON"),
        ("XDP", (BPF, PERFMON), "needs CAP_NET_ADMIN"),
        ("EXT", (BPF,), "needs CAP_NET_ADMIN and CAP_PERFMON"),
    ],
)
def test_a_load_without_the_rights_to_it(name: str, has: tuple[int, ...], needs: str) -> None:
    assert reason_of(failed(5, errno.EPERM, load_of(name), has)) == needs


def test_a_walk_over_ids_without_the_rights_to_it() -> None:
    assert reason_of(failed(11, errno.EPERM, bytes(8), (BPF,))) == "needs CAP_SYS_ADMIN"


def test_who_has_all_rights_is_held_back_by_something_else() -> None:
    assert "lockdown" in reason_of(failed(5, errno.EPERM, load_of("XDP"), (SYS_ADMIN,)))
    pinned = reason_of(failed(6, errno.EPERM, bytes(12), (SYS_ADMIN,)))
    assert pinned == "the directory is not in a bpf file system"


def test_rights_that_are_not_known_are_not_guessed() -> None:
    assert reason_of(without_task(failed(5, errno.EPERM, load_of("XDP")))) == ""


SYS_BPF, SYS_CAPSET = 321, 126
CAPABILITY_VERSION_3 = 0x20080522


def _errnos_with(capabilities: tuple[int, ...]) -> bytes:
    """What loading a program of each type fails with, in a process with these alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    insns = ctypes.create_string_buffer(bytes.fromhex("b700000000000000 9500000000000000"))
    gpl = ctypes.create_string_buffer(b"GPL")

    def load(kind: int) -> int:
        passed = struct.pack("=IIQQ", kind, 2, ctypes.addressof(insns), ctypes.addressof(gpl))
        fd = libc.syscall(SYS_BPF, 5, ctypes.create_string_buffer(passed, len(passed)), len(passed))
        if fd >= 0:
            os.close(fd)
        return min(ctypes.get_errno(), 255) if fd < 0 else 0

    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        low, high = (
            sum(1 << each for each in capabilities) >> part & 0xFFFFFFFF for part in (0, 32)
        )
        header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
        libc.syscall(SYS_CAPSET, header, struct.pack("=6I", low, low, 0, high, high, 0))
        os.write(theirs, bytes(load(kind) for kind in uapi.PROG_TYPE.names))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        return pipe.read()


@pytest.mark.live
def test_the_kernel_wants_the_same_for_each_type() -> None:
    """Whoever has that gets further than to EPERM; a kernel may not offer EXT and LSM at all."""
    names = list(uapi.PROG_TYPE.names.values())
    both = _errnos_with((BPF, NET_ADMIN, PERFMON))
    for missing, needing in ((NET_ADMIN, uapi.NEEDS_NET_ADMIN), (PERFMON, uapi.NEEDS_PERFMON)):
        few = _errnos_with(tuple({BPF, NET_ADMIN, PERFMON} - {missing}))
        refused = {kind for kind, number in enumerate(few)
                   if number == errno.EPERM != both[kind]}  # fmt: skip
        offered = {kind for kind, number in enumerate(both) if number != errno.EPERM}
        assert {names[kind] for kind in refused} == {names[kind] for kind in needing & offered}
