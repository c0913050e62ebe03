# SPDX-License-Identifier: Apache-2.0
"""What a newcomer watches being traced: the life of a small BPF agent, in real bpf(2) calls.

For ``make demo``: needs root, takes two seconds, undoes all it does, and prints nothing unless
it fails.
"""

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import stimulus as bpf
from made_btf import MadeBtf

COUNTER_KEY = bytes(4)
PACKET = bytes(64)
ALICE, BOB, NOBODY = (struct.pack("=I", uid) for uid in (1000, 1001, 65534))


def pause() -> None:
    """Let whoever watches follow."""
    time.sleep(0.25)


def opened(stack: ExitStack, fd: int) -> int:
    """The descriptor, closed when the stack is."""
    stack.callback(os.close, fd)
    return fd


def keep_sessions(stack: ExitStack) -> None:
    # A hash table of who is logged in, with types.
    btf = MadeBtf()
    uid = btf.integer("unsigned int", 4)
    tty = btf.array(btf.integer("char", 1), 12)
    session = btf.struct("session", 16, [("logins", uid, 0), ("tty", tty, 32)])
    table = bpf.map_create(
        bpf.BPF_MAP_TYPE_HASH, 4, 16, 128, map_name=b"sessions",
        btf_fd=opened(stack, bpf.btf_load(btf.data())), btf_key_type_id=uid,
        btf_value_type_id=session,
    )  # fmt: skip
    opened(stack, table)
    # Two users come.
    bpf.map_update_elem(table, ALICE, struct.pack("=I12s", 1, b"tty1"))
    bpf.map_update_elem(table, BOB, struct.pack("=I12s", 1, b"pts/0"))
    pause()
    # One of them is found, a third is not: ENOENT.
    bpf.map_lookup_elem(table, ALICE, 16)
    bpf.attempt(bpf.map_lookup_elem, table, NOBODY, 16)
    # Walk over the keys; ENOENT says that there are no more.
    key = None
    with suppress(FileNotFoundError):
        while True:
            key = bpf.map_get_next_key(table, key, 4)
    pause()
    # They leave.
    bpf.map_delete_elem(table, ALICE)
    bpf.map_delete_elem(table, BOB)


def count_packets(counter: int) -> bytes:
    """XDP: add one to the only element of the map, and let the packet pass."""
    return (
        bpf.st_mem(bpf.BPF_W, bpf.BPF_REG_10, -4, 0)
        + bpf.mov64_reg(bpf.BPF_REG_2, bpf.BPF_REG_10)
        + bpf.alu64_imm(bpf.BPF_ADD, bpf.BPF_REG_2, -4)
        + bpf.ld_map_fd(bpf.BPF_REG_1, counter)
        + bpf.emit_call(bpf.BPF_FUNC_map_lookup_elem)
        + bpf.jmp_imm(bpf.BPF_JEQ, bpf.BPF_REG_0, 0, 2)
        + bpf.mov64_imm(bpf.BPF_REG_1, 1)
        + bpf.atomic_op(bpf.BPF_DW, bpf.BPF_ADD, bpf.BPF_REG_0, bpf.BPF_REG_1, 0)
        + bpf.mov64_imm(bpf.BPF_REG_0, bpf.XDP_PASS)
        + bpf.exit_insn()
    )


def watch_packets(stack: ExitStack) -> None:
    # An array of one: the counter.
    counter = opened(
        stack, bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 1, map_name=b"packet_count")
    )
    # The program that counts.
    prog = opened(
        stack,
        bpf.prog_load(bpf.BPF_PROG_TYPE_XDP, count_packets(counter), prog_name=b"count_packets"),
    )
    # What has the kernel made of it?
    bpf.obj_get_info_by_fd(prog)
    pause()
    # Try it on ten packets, and read the counter.
    bpf.attempt(bpf.prog_test_run, prog, PACKET, repeat=10)
    bpf.map_lookup_elem(counter, COUNTER_KEY, 8)
    pause()
    for optional in (pin, attach):
        with suppress(OSError):
            optional(prog)
            pause()


def pin(prog: int) -> None:
    with bpf.private_bpffs() as bpffs, ExitStack() as stack:
        path = f"{bpffs}/count_packets"
        # Keep the program beyond the life of this process.
        bpf.obj_pin(path, prog)
        stack.callback(os.unlink, path)
        # Another process would get it back so.
        opened(stack, bpf.obj_get(path))


def attach(prog: int) -> None:
    with bpf.private_netns(), ExitStack() as stack:
        # From now on every packet of the loopback interface goes through it.
        link = opened(stack, bpf.link_create(prog, bpf.LO_IFINDEX, bpf.BPF_XDP))
        # Which program, on which interface?
        bpf.obj_get_info_by_fd(link)
        pause()
        # No more.
        bpf.link_detach(link)


def be_rejected(_: ExitStack) -> None:
    # It returns a register that nobody set: the verifier says no, and why.
    careless = bpf.mov64_reg(bpf.BPF_REG_0, bpf.BPF_REG_3) + bpf.exit_insn()
    log = ctypes.create_string_buffer(4096)
    bpf.attempt(bpf.prog_load, bpf.BPF_PROG_TYPE_XDP, careless, log, prog_name=b"careless")


STORY: tuple[Callable[[ExitStack], None], ...] = (keep_sessions, watch_packets, be_rejected)


def main() -> int:
    bpf.set_comm(b"demo-agent")
    try:
        with ExitStack() as stack:
            for scene in STORY:
                scene(stack)
                pause()
    except OSError as error:
        cure = ": run it as root" if isinstance(error, PermissionError) else ""
        sys.stderr.write(f"The demo cannot go on: {error.strerror}{cure}.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
