# SPDX-License-Identifier: Apache-2.0
"""Calls of every command at every edge, for two tracers to watch at once.

As a program it says who it is, waits for a line, makes them, and waits for another. Whatever
succeeds is undone before the next one, so that it can be run anywhere::

    python tests/parity.py [SCENE...]
"""

import ctypes
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

import stimulus as bpf
from golden import ROWS, Row

PAGE = bpf.PAGE_SIZE
WILD = 0xDEAD_0000
"""An address that nothing is mapped at."""
UNKNOWN_COMMANDS = (39, 63, 4000, 0xCAFEF00D, bpf.BPF_COMMON_ATTRS | bpf.BPF_MAP_FREEZE)

# What a success of these commands leaves open.
OPENS = frozenset({
    bpf.BPF_MAP_CREATE, bpf.BPF_PROG_LOAD, bpf.BPF_OBJ_GET, bpf.BPF_PROG_GET_FD_BY_ID,
    bpf.BPF_MAP_GET_FD_BY_ID, bpf.BPF_RAW_TRACEPOINT_OPEN, bpf.BPF_BTF_LOAD,
    bpf.BPF_BTF_GET_FD_BY_ID, bpf.BPF_LINK_CREATE, bpf.BPF_LINK_GET_FD_BY_ID,
    bpf.BPF_ENABLE_STATS, bpf.BPF_ITER_CREATE, bpf.BPF_TOKEN_CREATE,
})  # fmt: skip


def made(cmd: int, address: int, size: int) -> int:
    """One bare call, closed again if it opened something."""
    result = bpf.raw_bpf(cmd, address, size)
    if result >= 0 and cmd in OPENS:
        os.close(result)
    return result


def tried(cmd: int, attr: bytes, size: int | None = None) -> None:
    """The same from bytes, with room behind them: the kernel answers even if that is not there."""
    size = len(attr) if size is None else size
    memory = ctypes.create_string_buffer(attr, max(len(attr), size) + PAGE)
    made(cmd, ctypes.addressof(memory), size)


# --- Every command at the edges of attr --------------------------------------------------


def edges(cmd: int, attr: bytes) -> None:
    """The places and sizes in which an attr may be."""
    page, beyond = bpf.Page(), bpf.Page()
    made(cmd, 0, len(attr))
    made(cmd, WILD, len(attr))
    tried(cmd, attr, 0)
    made(cmd, page.put_at_end(attr), len(attr))
    made(cmd, beyond.put_at_end(attr, beyond=1), len(attr))
    for more in (1, 8, 100, PAGE - len(attr), PAGE + 1 - len(attr)):
        tried(cmd, attr, len(attr) + more)
    tried(cmd, attr + b"\0\xde\0")
    tried(cmd, attr + bytes(7) + b"\1")
    tried(cmd, attr + bytes(PAGE - 1 - len(attr)) + b"\xff")


def cuts(cmd: int, attr: bytes) -> None:
    for size in range(1, len(attr)):
        if not _leads_somewhere(attr[size & -8 : size]):
            tried(cmd, attr[:size])


def _leads_somewhere(cut: bytes) -> bool:
    # The first bytes of a pointer may be those of one into the heap, wherever that is this time,
    # and then an array that no count was made for goes on for as long as there is memory.
    with open("/proc/self/mem", "rb", 0) as memory:
        try:
            return bool(os.pread(memory.fileno(), 1, int.from_bytes(cut, sys.byteorder)))
        except OSError:
            return False


def of_row(row: Row) -> None:
    tried(row.cmd, row.attr)
    edges(row.cmd, row.attr)
    cuts(row.cmd, row.attr)


def zeroes(cmd: int) -> None:
    """Nothing at all, in all sizes that matter."""
    for size in (4, 8, 12, 16, 24, 32, 48, 64, 128, 160):
        tried(cmd, bytes(size))


def ones(cmd: int) -> None:
    for size in (4, 8, 16, 32, 64, 92, 168, 176):
        tried(cmd, b"\xff" * size)


def every_command() -> None:
    for row in ROWS:
        of_row(row)
    for cmd in dict.fromkeys(row.cmd for row in ROWS):
        zeroes(cmd)
        ones(cmd)
    for cmd in UNKNOWN_COMMANDS:
        edges(cmd, bytes(range(1, 33)))


def every_attach_type() -> None:
    """The arms of LINK_CREATE, and what else hangs on the attach type."""
    for attach_type in range(64):
        for flags in (0, 1 << 3, 1 << 5 | 1 << 4):
            head = struct.pack("=iiII", -5, 1, attach_type, flags)
            tried(bpf.BPF_LINK_CREATE, head)
            tried(bpf.BPF_LINK_CREATE, head + bytes(48))
            tried(bpf.BPF_LINK_CREATE, head + struct.pack("=IIQ", 7, 0, 9))
            tried(bpf.BPF_LINK_CREATE, head + bytes([7]) + bytes(40))
            tried(bpf.BPF_LINK_CREATE, head + bytes(23) + b"\1")
        attr = bpf.PROG_ATTACH.pack(target_fd=-5, attach_bpf_fd=-6, attach_type=attach_type)
        tried(bpf.BPF_PROG_ATTACH, attr)
        tried(bpf.BPF_PROG_QUERY, bpf.QUERY.pack(target_fd=-5, attach_type=attach_type))


def every_flag() -> None:
    """Each bit of each field of flags by itself."""
    for bit in range(32):
        flag = 1 << bit
        # That no hash has keys of no bytes keeps maps from being made.
        tried(bpf.BPF_MAP_CREATE, bpf.MAP_CREATE.pack(map_type=1, map_flags=flag))
        tried(bpf.BPF_PROG_LOAD, bpf.PROG_LOAD.pack(prog_type=1, prog_flags=flag))
        tried(bpf.BPF_OBJ_GET, bpf.OBJ_PIN.pack(pathname=WILD, file_flags=flag, path_fd=-5))
        attach = bpf.PROG_ATTACH.pack(target_fd=-5, attach_bpf_fd=-6, attach_flags=flag)
        tried(bpf.BPF_PROG_ATTACH, attach)
        tried(bpf.BPF_PROG_TEST_RUN, bpf.TEST.pack(prog_fd=-5, flags=flag))
        query = bpf.QUERY.pack(target_fd=-5, query_flags=flag, attach_flags=flag)
        tried(bpf.BPF_PROG_QUERY, query)
        tried(bpf.BPF_MAP_GET_FD_BY_ID, bpf.GET_ID.pack(map_id=0xFFFFFFF0, open_flags=flag)[:12])
        tried(bpf.BPF_BTF_GET_FD_BY_ID, bpf.GET_ID.pack(btf_id=0xFFFFFFF0, open_flags=flag))
        tried(bpf.BPF_BTF_LOAD, bpf.BTF_LOAD.pack(btf_flags=flag))
        update = bpf.LINK_UPDATE.pack(link_fd=-5, new_prog_fd=-6, flags=flag, old_prog_fd=-7)
        tried(bpf.BPF_LINK_UPDATE, update)
        for cmd in (bpf.BPF_MAP_LOOKUP_ELEM, bpf.BPF_MAP_UPDATE_ELEM):
            tried(cmd, bpf.MAP_ELEM.pack(map_fd=-5, flags=flag | flag << 32))
        for cmd in (bpf.BPF_MAP_LOOKUP_BATCH, bpf.BPF_MAP_UPDATE_BATCH):
            tried(cmd, bpf.BATCH.pack(map_fd=-5, elem_flags=flag, flags=flag))
        for attach_type, arm in ((42, "kprobe_multi"), (48, "uprobe_multi"), (45, "netfilter")):
            tail = bpf.LINK_CREATE_ARMS[arm].pack(flags=flag)
            head = bpf.LINK_CREATE.pack(prog_fd=-5, attach_type=attach_type, flags=flag)
            tried(bpf.BPF_LINK_CREATE, head + tail)


def every_constant() -> None:
    for number in range(70):
        tried(bpf.BPF_MAP_CREATE, bpf.MAP_CREATE.pack(map_type=number))
        attr = bpf.PROG_LOAD.pack(prog_type=number, expected_attach_type=number)
        tried(bpf.BPF_PROG_LOAD, attr)
        tried(bpf.BPF_TASK_FD_QUERY, bpf.TASK_FD_QUERY.pack(pid=-1, fd_type=number))
    for number in (1, 2, 0xFFFFFFFF):
        tried(bpf.BPF_ENABLE_STATS, bpf.ENABLE_STATS.pack(type=number))
        map_create = bpf.MAP_CREATE.pack(
            map_type=1, map_flags=4, numa_node=number, map_ifindex=number, map_extra=number
        )
        tried(bpf.BPF_MAP_CREATE, map_create)
    tried(bpf.BPF_MAP_CREATE, bpf.MAP_CREATE.pack(map_extra=-1, map_name=b"x" * 16))


# --- What pointers lead to ---------------------------------------------------------------


class Memory:
    """Places that a pointer may lead to."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def at_end(self, data: bytes) -> int:
        """The last bytes of a page, with none behind them."""
        page = bpf.Page()
        self._kept.append(page)
        return page.put_at_end(data)

    def buffer(self, data: bytes, size: int = 0) -> int:
        buffer = ctypes.create_string_buffer(data, max(size, len(data), 1))
        self._kept.append(buffer)
        return ctypes.addressof(buffer)

    def strings(self, strings: Sequence[bytes | int]) -> bytes:
        """An array of pointers to them."""
        addresses = [
            each if isinstance(each, int) else self.buffer(each + b"\0") for each in strings
        ]
        return struct.pack(f"={len(addresses)}Q", *addresses)


STRINGS = (
    b"", b"GPL", b"a" * 31, b"b" * 32, b"c" * 33, b"d" * 100, b'q"uo\\te', b"\a\b\t\n\v\f\r\x1b",
    b"\x001", b"\xff\x80\x7f", b"tab\t9", b"\x017", b"\x018",
)  # fmt: skip


def strings() -> None:
    """A string in every place where one may stand."""
    memory = Memory()
    places: list[tuple[int, Callable[[int], bytes]]] = [
        (bpf.BPF_PROG_LOAD, lambda at: bpf.PROG_LOAD.pack(prog_type=1, license=at)[:48]),
        (bpf.BPF_OBJ_GET, lambda at: bpf.OBJ_PIN.pack(pathname=at)),
        (bpf.BPF_OBJ_PIN, lambda at: bpf.OBJ_PIN.pack(pathname=at, bpf_fd=-5)),
        (bpf.BPF_RAW_TRACEPOINT_OPEN, lambda at: bpf.RAW_TRACEPOINT.pack(name=at, prog_fd=-5)),
    ]
    for cmd, attr in places:
        for string in (*STRINGS, b"long" * 50, b"longer" * 300, b"/" * 5000):
            tried(cmd, attr(memory.buffer(string + b"\0")))
        tried(cmd, attr(WILD))
        for string in (b"ends with its page\0", b"does not end", b"x" * 31, b"x" * 32, b"x" * 33):
            tried(cmd, attr(memory.at_end(string)))


def counted() -> None:
    """Bytes of which a field has the number."""
    memory = Memory()
    odd = bytes(range(256))
    for size in (0, 1, 4, 5, 6, 31, 32, 33, 64, 200, 256):
        btf = memory.buffer(odd)
        tried(bpf.BPF_BTF_LOAD, bpf.BTF_LOAD.pack(btf=btf, btf_size=size))
        signature = bpf.PROG_LOAD.pack(
            prog_type=1, signature=memory.buffer(odd), signature_size=size, keyring_id=-3
        )
        tried(bpf.BPF_PROG_LOAD, signature)
        tried(bpf.BPF_BTF_LOAD, bpf.BTF_LOAD.pack(btf=memory.at_end(odd[:16]), btf_size=size))
        short = bpf.PROG_LOAD.pack(
            prog_type=1, signature=memory.at_end(odd[:16]), signature_size=size
        )
        tried(bpf.BPF_PROG_LOAD, short)
        stream = bpf.PROG_STREAM_READ.pack(
            stream_buf=memory.buffer(odd), stream_buf_len=size, stream_id=1, prog_fd=-5
        )
        tried(bpf.BPF_PROG_STREAM_READ_BY_FD, stream)
    tried(bpf.BPF_BTF_LOAD, bpf.BTF_LOAD.pack(btf=WILD, btf_size=5))
    tried(bpf.BPF_BTF_LOAD, bpf.BTF_LOAD.pack(btf=0, btf_size=5))
    tried(bpf.BPF_PROG_LOAD, bpf.PROG_LOAD.pack(signature=WILD, signature_size=5))


def logs() -> None:
    """The buffer that the verifier writes to, with something in it before."""
    memory = Memory()
    for content in (b"", b"old log", b"o" * 31, b"o" * 32, b"o" * 64):
        for size in (0, 1, 5, 8, 32, 33, 64, 200):
            attr = bpf.PROG_LOAD.pack(
                prog_type=1, insn_cnt=1, insns=memory.buffer(bpf.exit_insn()),
                license=memory.buffer(b"GPL\0"), log_level=1, log_size=size,
                log_buf=memory.buffer(content, 256),
            )  # fmt: skip
            tried(bpf.BPF_PROG_LOAD, attr)
    for log_buf in (WILD, memory.at_end(b"at the end")):
        for size in (0, 10, 200):
            attr = bpf.PROG_LOAD.pack(log_level=1, log_size=size, log_buf=log_buf)
            tried(bpf.BPF_PROG_LOAD, attr)
    btf = bytearray(bpf.minimal_btf())
    btf[0] ^= 1
    log = ctypes.create_string_buffer(200)
    attr = bpf.BTF_LOAD.pack(
        btf=bytes(btf), btf_size=len(btf), btf_log_level=1, btf_log_size=200, btf_log_buf=log
    )
    tried(bpf.BPF_BTF_LOAD, attr)


def instructions() -> None:
    memory = Memory()
    all_codes = b"".join(
        bpf.raw_insn(code, code % 16, code // 16, off=code - 128, imm=code * 16777259 & 0x7FFFFFFF)
        for code in range(256)
    )
    negative = bpf.raw_insn(0xB7, 1, 2, -1, -1)

    def load(insns: int, count: int) -> None:
        attr = bpf.PROG_LOAD.pack(
            prog_type=1, insn_cnt=count, insns=insns, license=memory.buffer(b"GPL\0")
        )
        tried(bpf.BPF_PROG_LOAD, attr)

    load(memory.buffer(all_codes), 256)
    load(memory.buffer(negative), 1)
    load(memory.buffer(negative), 0)
    for count in (31, 32, 33):
        load(memory.buffer(negative * 33), count)
    load(memory.at_end(negative * 2), 3)
    load(memory.at_end(negative * 2 + b"\x85"), 3)
    load(WILD, 2)
    load(0, 2)
    for count in (4096, 4097):
        load(memory.buffer(negative * 4098), count)


def arrays() -> None:
    """Arrays of every kind, whole and not."""
    memory = Memory()
    numbers = struct.pack("=40Q", *range(1 << 40, (1 << 40) + 40))
    ends = memory.at_end(numbers[:24])
    # As descriptors: those that are open all the time, and some that never are. -y looks at them
    # when a line is printed, and others may have become something by then.
    fds_of_maps = struct.pack("=40Q", *((1 << 40) + n + 1000 * (n > 2) for n in range(40)))
    few_fds = memory.at_end(fds_of_maps[:24])

    def link(attach_type: int, arm: str, **fields: int) -> None:
        head = bpf.LINK_CREATE.pack(prog_fd=-5, target_fd=-6, attach_type=attach_type)
        tried(bpf.BPF_LINK_CREATE, head + bpf.LINK_CREATE_ARMS[arm].pack(**fields))

    for count in (0, 1, 3, 4, 32, 33, 40):
        for at in (memory.buffer(numbers), ends, WILD):
            link(42, "kprobe_multi", cnt=count, addrs=at, cookies=at)
            link(48, "uprobe_multi", cnt=count, offsets=at, ref_ctr_offsets=at, cookies=at)
            link(59, "tracing_multi", cnt=count, ids=at, cookies=at)
        link(28, "iter", iter_info=memory.buffer(fds_of_maps), iter_info_len=count)
        link(28, "iter", iter_info=few_fds, iter_info_len=count)
    link(28, "iter", iter_info=WILD, iter_info_len=16)
    link(28, "iter", iter_info=0, iter_info_len=16)
    names = [b"bpf_fentry_test1", b"vfs_read", b"", b"x" * 40, b"y" * 33]
    for syms in (memory.strings(names), memory.strings([b"n%d" % n for n in range(40)])):
        link(42, "kprobe_multi", cnt=len(syms) // 8, syms=memory.buffer(syms))
        link(42, "kprobe_multi", cnt=len(syms) // 8 + 1, syms=memory.at_end(syms))
    for path in (*STRINGS, b"/" * 5000):
        link(48, "uprobe_multi", path=memory.buffer(path + b"\0"))
    fds = struct.pack("=4i", 0, 1, -1, 1 << 20)
    for count in (0, 4, 5):
        attr = bpf.PROG_LOAD.pack(fd_array=memory.at_end(fds), fd_array_cnt=count)
        tried(bpf.BPF_PROG_LOAD, attr)


# --- Real objects ------------------------------------------------------------------------


def objects() -> None:
    """Every command on what there is, as stimulus.py does it."""
    bpf.every_command()


def maps() -> None:
    with ExitStack() as stack:
        hash_fd = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"sixteen__letter")
        stack.callback(os.close, hash_fd)
        keys = b"".join(struct.pack("=I", number) for number in range(5))
        bpf.map_update_batch(hash_fd, keys, bytes(40), 5)
        bpf.attempt(bpf.map_update_batch, hash_fd, keys, bytes(40), 5, elem_flags=1)
        for cmd in (bpf.BPF_MAP_LOOKUP_BATCH, bpf.BPF_MAP_LOOKUP_AND_DELETE_BATCH):
            for count in (2, 0, 50):
                attr = bpf.BATCH.pack(
                    map_fd=hash_fd, keys=bytes(400), values=bytes(800), out_batch=bytes(8),
                    count=count,
                )  # fmt: skip
                tried(cmd, attr)
        bpf.attempt(bpf.map_delete_batch, hash_fd, keys, 5)
        for flags in (0, 1, 2, 4, 8, 16, 1 << 32 | 8):
            bpf.attempt(bpf.map_update_elem, hash_fd, b"abcd", b"12345678", flags)
            bpf.attempt(bpf.map_lookup_elem, hash_fd, b"abcd", 8, flags)
        inner = bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, 4, 4, 1, map_name=b"inner")
        stack.callback(os.close, inner)
        outer = bpf.map_create(12, 4, 4, 1, inner_map_fd=inner, map_name=b"outer")
        stack.callback(os.close, outer)
        bpf.map_update_elem(outer, bytes(4), struct.pack("=I", inner))
        numa = bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, 4, 4, 1, map_flags=4, numa_node=0)
        os.close(numa)


def infos() -> None:
    """All that OBJ_GET_INFO_BY_FD says, in buffers of all sizes."""
    with ExitStack() as stack:
        map_fd = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"info_map")
        insns = bpf.ld_map_fd(bpf.BPF_REG_1, map_fd) + bpf.RETURN_0
        prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, insns, prog_name=b"info_prog")
        link = bpf.raw_tracepoint_open(b"task_rename", prog)
        btf = bpf.btf_load(bpf.minimal_btf())
        for fd in (map_fd, prog, link, btf):
            stack.callback(os.close, fd)
        for fd in (map_fd, prog, link, btf, 0, -5):
            for fill in (b"\0", b"\xa5"):
                for room in (
                    0,
                    1,
                    8,
                    40,
                    80,
                    88,
                    104,
                    128,
                    200,
                    228,
                    232,
                    240,
                    256,
                    PAGE,
                    PAGE + 1,
                ):
                    if fd == prog and fill != b"\0" and room > 16:
                        continue  # it would be taken for pointers
                    info = ctypes.create_string_buffer(fill * room, max(1, room))
                    attr = bpf.INFO.pack(bpf_fd=fd, info_len=room, info=info)
                    tried(bpf.BPF_OBJ_GET_INFO_BY_FD, attr)
            for wild in (0, WILD):
                attr = bpf.INFO.pack(bpf_fd=fd, info_len=80, info=wild)
                tried(bpf.BPF_OBJ_GET_INFO_BY_FD, attr)


def prog_infos() -> None:
    """What a program's info points to."""
    with ExitStack() as stack:
        map_fd = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"info_map")
        insns = bpf.ld_map_fd(bpf.BPF_REG_1, map_fd) + bpf.RETURN_0
        prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, insns, prog_name=b"info_prog")
        stack.callback(os.close, map_fd)
        stack.callback(os.close, prog)
        for jited, xlated, ids in ((0, 0, 4), (64, 64, 4), (8, 16, 1), (400, 24, 0)):
            memory = Memory()
            info = bytearray(232)
            struct.pack_into("=II", info, 16, jited, xlated)
            struct.pack_into("=QQ", info, 24, memory.buffer(b"", 512), memory.buffer(b"", 512))
            struct.pack_into("=I", info, 52, ids)
            struct.pack_into("=Q", info, 56, memory.buffer(b"", 64))
            attr = bpf.INFO.pack(bpf_fd=prog, info_len=232, info=bytes(info))
            tried(bpf.BPF_OBJ_GET_INFO_BY_FD, attr)


def pins() -> None:
    with ExitStack() as stack:
        bpffs = stack.enter_context(bpf.private_bpffs())
        map_fd = bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, 4, 8, 1, map_name=b"pinned")
        directory = os.open(bpffs, os.O_RDONLY)
        stack.callback(os.close, map_fd)
        stack.callback(os.close, directory)
        bpf.obj_pin(f"{bpffs}/pin", map_fd)
        os.close(bpf.obj_get(f"{bpffs}/pin"))
        os.close(bpf.obj_get(f"{bpffs}/pin", file_flags=8))
        bpf.attempt(bpf.obj_pin, "relative", map_fd, file_flags=1 << 14, path_fd=directory)
        os.chdir(bpffs)
        bpf.attempt(bpf.obj_pin, "here", map_fd, file_flags=1 << 14, path_fd=-100)
        os.chdir("/")


def queries() -> None:
    with ExitStack() as stack:
        stack.enter_context(bpf.private_netns())
        prog = bpf.prog_load(bpf.BPF_PROG_TYPE_FLOW_DISSECTOR, bpf.RETURN_0, prog_name=b"q")
        stack.callback(os.close, prog)
        netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, netns)
        bpf.prog_attach(0, prog, bpf.BPF_FLOW_DISSECTOR)
        for room in (0, 1, 3):
            attr = bpf.QUERY.pack(
                target_fd=netns, attach_type=bpf.BPF_FLOW_DISSECTOR, prog_cnt=room,
                prog_ids=bytes(64),
            )  # fmt: skip
            tried(bpf.BPF_PROG_QUERY, attr)
        bpf.prog_detach(0, prog, bpf.BPF_FLOW_DISSECTOR)
        tried(bpf.BPF_PROG_QUERY, attr)
        tcx = bpf.prog_load(3, bpf.RETURN_0, prog_name=b"tcx")
        stack.callback(os.close, tcx)
        for _ in range(3):
            link = bpf.attempt(bpf.link_create, tcx, bpf.LO_IFINDEX, 46, tcx={})
            if link is not None:
                stack.callback(os.close, link)
        for room in (0, 1, 3, 8, 40):
            for arrays in (True, False):
                ids = (
                    {
                        name: bytes(160)
                        for name in ("prog_attach_flags", "link_ids", "link_attach_flags")
                    }
                    if arrays
                    else {}
                )
                attr = bpf.QUERY.pack(
                    target_fd=bpf.LO_IFINDEX, attach_type=46, prog_cnt=room,
                    prog_ids=bytes(160), **ids,
                )  # fmt: skip
                tried(bpf.BPF_PROG_QUERY, attr)
                tried(bpf.BPF_PROG_QUERY, attr[:32])
                tried(bpf.BPF_PROG_QUERY, attr[:40])


def cgroup_queries() -> None:
    """Attached more than once, with flags."""
    with ExitStack() as stack, suppress(OSError):
        path = stack.enter_context(bpf.temporary_cgroup())
        target = os.open(path, os.O_RDONLY)
        stack.callback(os.close, target)
        for _ in range(3):
            prog = bpf.prog_load(8, bpf.mov64_imm(0, 1) + bpf.exit_insn(), prog_name=b"cg")
            stack.callback(os.close, prog)
            bpf.prog_attach(target, prog, 0, attach_flags=2)
            stack.callback(bpf.attempt, bpf.prog_detach, target, prog, 0)
        for room in (0, 2, 8):
            for flags in (0, 1):
                attr = bpf.QUERY.pack(
                    target_fd=target, attach_type=0, query_flags=flags, prog_cnt=room,
                    prog_ids=bytes(64), prog_attach_flags=bytes(64),
                )  # fmt: skip
                tried(bpf.BPF_PROG_QUERY, attr)


def runs() -> None:
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, bpf.mov64_imm(0, 7) + bpf.exit_insn())
    for size in (0, 14, 64):
        for out in (0, 8, 64):
            attr = bpf.TEST.pack(
                prog_fd=prog, data_in=bytes(64), data_size_in=size, data_out=bytes(64),
                data_size_out=out, repeat=2,
            )  # fmt: skip
            tried(bpf.BPF_PROG_TEST_RUN, attr)
    os.close(prog)


def tracepoints() -> None:
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bpf.RETURN_0, prog_name=b"tp")
    link = bpf.raw_tracepoint_open(b"task_rename", prog, cookie=0xC0FFEE)
    for room in (0, 1, 5, 11, 12, 13, 64):
        for buf in (ctypes.create_string_buffer(b"before", 64), 0, WILD):
            attr = bpf.TASK_FD_QUERY.pack(pid=os.getpid(), fd=link, buf=buf, buf_len=room)
            tried(bpf.BPF_TASK_FD_QUERY, attr)
    os.close(link)
    os.close(prog)


def ids() -> None:
    """From one to the next, also where there is no room for it."""
    for cmd in (bpf.BPF_PROG_GET_NEXT_ID, bpf.BPF_MAP_GET_NEXT_ID, bpf.BPF_BTF_GET_NEXT_ID,
                bpf.BPF_LINK_GET_NEXT_ID):  # fmt: skip
        for start in (0, 1, 0xFFFFFFF0):
            for size in (4, 5, 7, 8, 12, 16):
                tried(cmd, bpf.GET_ID.pack(start_id=start), size)
    for struct_ in (b"\0\0\0\0\1\0\0\0", b"\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0"):
        for cmd in (bpf.BPF_MAP_GET_FD_BY_ID, bpf.BPF_BTF_GET_FD_BY_ID,
                    bpf.BPF_LINK_GET_FD_BY_ID, bpf.BPF_PROG_GET_FD_BY_ID):  # fmt: skip
            tried(cmd, struct_)


def files() -> None:
    """Descriptors of all kinds, where one of a map or a program ought to be."""
    directory = tempfile.mkdtemp(prefix="odd <\t1>")
    gone = os.open(f"{directory}/gone", os.O_CREAT | os.O_RDWR)
    os.unlink(f"{directory}/gone")
    os.rmdir(directory)
    pipe, *_ = os.pipe()
    opened = [0, 1, 2, gone, pipe, os.open("/dev/null", os.O_RDONLY), os.open("/proc", os.O_RDONLY)]
    opened += [os.eventfd(0), os.memfd_create("odd"), os.open("/proc/self/ns/net", os.O_RDONLY)]
    for fd in (*opened, 1000, 0x7FFFFFFF, -1, -100):
        tried(bpf.BPF_MAP_FREEZE, bpf.MAP_FREEZE.pack(map_fd=fd))
        tried(bpf.BPF_TASK_FD_QUERY, bpf.TASK_FD_QUERY.pack(pid=-1, fd=fd))
        attr = bpf.OBJ_PIN.pack(pathname=WILD, bpf_fd=fd, file_flags=1 << 14, path_fd=fd)
        tried(bpf.BPF_OBJ_GET, attr)
        head = bpf.LINK_CREATE.pack(prog_fd=fd, target_fd=fd, attach_type=28)
        arm = bpf.LINK_CREATE_ARMS["iter"].pack(
            iter_info=struct.pack("=2i", fd, fd), iter_info_len=2
        )
        tried(bpf.BPF_LINK_CREATE, head + arm)
    # They stay open: whoever looks up what they lead to may take a while.


SCENES: tuple[Callable[[], None], ...] = (
    every_command, every_attach_type, every_flag, every_constant, strings, counted, logs,
    instructions, arrays, objects, maps, infos, prog_infos, pins, queries, cgroup_queries, runs,
    tracepoints, ids, files,
)  # fmt: skip


def chosen(names: Sequence[str]) -> Iterator[Callable[[], None]]:
    for scene in SCENES:
        if not names or scene.__name__ in names:
            yield scene


END = 0xE4D
"""No command: the last call."""


def main() -> None:
    os.write(1, b"ready %d\n" % os.getpid())
    sys.stdin.readline()
    for scene in chosen(sys.argv[1:]):
        scene()
    bpf.raw_bpf(END, 0, 0)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
