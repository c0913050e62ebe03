# SPDX-License-Identifier: Apache-2.0
"""Odd and hostile programs: each says of its calls what is to be seen of them.

As a program it plays one of them and prints every call that it made, in order, with what
it knows about some of them::

    python tests/scenes.py objects
"""

import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import stimulus as bpf

Expected = dict[str, Any]

# What bpf.map, bpf.prog, bpf.link and bpf.btf are named after: enums of linux/bpf.h.
TYPES = {
    "map": {1: "BPF_MAP_TYPE_HASH", 2: "BPF_MAP_TYPE_ARRAY", 6: "BPF_MAP_TYPE_PERCPU_ARRAY"},
    "prog": {
        1: "BPF_PROG_TYPE_SOCKET_FILTER",
        17: "BPF_PROG_TYPE_RAW_TRACEPOINT",
        22: "BPF_PROG_TYPE_FLOW_DISSECTOR",
    },
    "link": {1: "BPF_LINK_TYPE_RAW_TRACEPOINT", 5: "BPF_LINK_TYPE_NETNS"},
}
CLOSED = 4321
"""A descriptor that nobody has."""


class Story:
    """The calls of this process, and what is to be seen of some of them."""

    def __init__(self) -> None:
        self._recording = bpf.recorded()
        self._calls = self._recording.__enter__()
        self._notes: dict[int, tuple[str, Expected]] = {}

    def note(self, scene: str, **expected: Any) -> None:
        """Of the last call: parts of ``bpf``; None for what is not to be there."""
        self._notes[len(self._calls) - 1] = (scene, expected)

    def begin_again(self) -> None:
        """In a child: what the parent did is the parent's to tell."""
        self._calls.clear()
        self._notes.clear()

    def tell(self) -> None:
        """Prints all of it."""
        for number, made in enumerate(self._calls):
            scene, expected = self._notes.get(number, ("", {}))
            line = {**made.as_json(), "scene": scene, "expected": expected}
            os.write(1, json.dumps(line).encode() + b"\n")


# --- Objects -----------------------------------------------------------------------------


def about(kind: str, fd: int) -> Expected:
    """What the kernel says of an object (struct bpf_map_info and so on)."""
    info = bpf.obj_get_info_by_fd(fd)
    number = struct.Struct("=I").unpack_from

    def name(at: int) -> str:
        return info[at : at + 16].split(b"\0")[0].decode()

    if kind == "btf":
        return {"id": number(info, 12)[0]}
    about: Expected = {"id": number(info, 4)[0], "type": TYPES[kind][number(info, 0)[0]]}
    if kind == "map":
        sizes = struct.unpack_from("=III", info, 8)
        about |= dict(zip(("key_size", "value_size", "max_entries"), sizes, strict=True))
        about["name"] = name(24)
    elif kind == "prog":
        about |= {"tag": info[8:16].hex(), "name": name(64)}
    else:
        about["prog_id"] = number(info, 8)[0]
    return about


def only(kind: str, told: Expected, field: str) -> Expected:
    """Nothing is named but this one."""
    objects: Expected = dict.fromkeys(("map", "prog", "link", "btf"))
    named = [{"name": field, "kind": kind, "id": told["id"]}]
    return {**objects, kind: told, "fd": named}


NO_OBJECT: Expected = dict.fromkeys(("map", "prog", "link", "btf", "fd"))


def _one_of_each(story: Story, stack: ExitStack) -> Iterator[tuple[str, int]]:
    def made(kind: str, fd: int) -> tuple[str, int]:
        stack.callback(os.close, fd)
        created = len(story._calls)
        told = about(kind, fd)
        story._notes[created - 1] = (f"{kind} created", only(kind, told, "result"))
        if kind == "link":  # what it was made from is named too
            expected = story._notes[created - 1][1]
            del expected["prog"], expected["fd"]
        story.note(f"{kind} argument", **only(kind, told, "bpf_fd"))
        return kind, fd

    yield made(
        "map", bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 12, 40, 77, map_name=b"o.bject_15_long")
    )
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bpf.RETURN_0, prog_name=b"object_prog")
    yield made("prog", prog)
    yield made("link", bpf.raw_tracepoint_open(b"task_rename", prog))
    yield made("btf", bpf.btf_load(bpf.minimal_btf()))


BY_ID: dict[str, tuple[Callable[[int], int], str]] = {
    "map": (bpf.map_get_fd_by_id, "map_id"),
    "prog": (bpf.prog_get_fd_by_id, "prog_id"),
    "link": (bpf.link_get_fd_by_id, "link_id"),
    "btf": (bpf.btf_get_fd_by_id, "btf_id"),
}


def objects(story: Story) -> None:
    """Every kind of object through every way to a descriptor of it."""
    with ExitStack() as stack:
        kept = list(_one_of_each(story, stack))
        bpffs = stack.enter_context(bpf.private_bpffs())
        told = {kind: about(kind, fd) for kind, fd in kept}
        for kind, fd in kept:
            named = only(kind, told[kind], "bpf_fd")
            if kind == "btf":
                bpf.attempt(bpf.obj_pin, f"{bpffs}/{kind}", fd)  # that cannot be done
                story.note("btf pinned", **named)
            else:
                path = f"{bpffs}/{kind}"
                bpf.obj_pin(path, fd)
                story.note(f"{kind} pinned", **named)
                other = bpf.obj_get(path)
                story.note(f"{kind} got", **only(kind, told[kind], "result"))
                os.unlink(path)
                os.close(other)
            get, key = BY_ID[kind]
            other = get(told[kind]["id"])
            story.note(f"{kind} by {key}", **only(kind, told[kind], "result"))
            os.close(other)
            other = os.dup2(fd, 700)
            bpf.obj_get_info_by_fd(other)
            story.note(f"{kind} dup", **named)
            os.close(other)
        _many_descriptors(story, kept, told)
        _not_objects(story)
        _in_a_child(story, kept, told)


def _many_descriptors(story: Story, kept: list[tuple[str, int]], told: Expected) -> None:
    by_kind = dict(kept)
    bpf.prog_bind_map(by_kind["prog"], by_kind["map"])
    story.note(
        "two descriptors",
        map=told["map"],
        prog=told["prog"],
        fd=[
            {"name": "prog_fd", "kind": "prog", "id": told["prog"]["id"]},
            {"name": "map_fd", "kind": "map", "id": told["map"]["id"]},
        ],
    )
    bpf.attempt(bpf.prog_bind_map, by_kind["map"], by_kind["link"])
    story.note(
        "wrong kinds",
        map=told["map"],
        prog=None,
        link=told["link"],
        fd=[
            {"name": "prog_fd", "kind": "map", "id": told["map"]["id"]},
            {"name": "map_fd", "kind": "link", "id": told["link"]["id"]},
        ],
    )


def _not_objects(story: Story) -> None:
    with ExitStack() as stack:
        null = os.open("/dev/null", os.O_RDWR)
        stack.callback(os.close, null)
        event = os.eventfd(0)
        stack.callback(os.close, event)
        path = os.open("/", os.O_PATH)
        stack.callback(os.close, path)
        for name, fd in {
            "/dev/null": null, "eventfd": event, "O_PATH": path, "closed": CLOSED, "-1": -1,
            "huge": 0x7FFFFFFF, "lowest": -0x80000000, "standard input": 0,
        }.items():  # fmt: skip
            bpf.attempt(bpf.obj_get_info_by_fd, fd)
            story.note(f"no object: {name}", **NO_OBJECT)


def _in_a_child(story: Story, kept: list[tuple[str, int]], told: Expected) -> None:
    # It has none of the descriptors but those that it inherits and is sent.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        story.begin_again()
        for kind, fd in kept:
            bpf.obj_get_info_by_fd(fd)
            story.note(f"{kind} inherited", **only(kind, told[kind], "bpf_fd"))
            os.close(fd)
            bpf.attempt(bpf.obj_get_info_by_fd, fd)
            story.note(f"{kind} closed", **NO_OBJECT)
        _, sent, _, _ = socket.recv_fds(theirs, 1, len(kept))
        for (kind, _), fd in zip(kept, sent, strict=True):
            bpf.obj_get_info_by_fd(fd)
            story.note(f"{kind} sent", **only(kind, told[kind], "bpf_fd"))
        story.tell()
        os._exit(0)
    socket.send_fds(ours, [b"."], [fd for _, fd in kept])
    assert os.waitpid(pid, 0)[1] == 0
    ours.close()
    theirs.close()


# --- Memory ------------------------------------------------------------------------------


def whole(data: bytes) -> Expected:
    """The bytes, all of them."""
    return {"hex": data.hex(), "size": len(data)}


def partly(data: bytes, size: int, *why: str) -> Expected:
    return {"hex": data.hex(), "size": size, "missing": list(why)}


class Unread:
    """Data at the end of a page or across it, of a file that was never touched.

    :param beyond: so many bytes fall on a second page; only that has not been touched.
    """

    def __init__(self, data: bytes, beyond: int = 0) -> None:
        page = mmap.PAGESIZE
        with tempfile.TemporaryFile() as file:
            start = page + beyond - len(data)
            file.write(bytes(start) + data + bytes(page))
            file.flush()
            self._memory = mmap.mmap(
                file.fileno(), 2 * page, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
            )
        self.address = bpf._address(self._memory) + start
        if beyond:
            # By writing: reading would also bring the pages around it.
            self._memory[0] = 0


def memory(story: Story) -> None:
    """What pointers lead to."""
    with ExitStack() as stack:
        stack.enter_context(bpf.private_netns())
        bpffs = stack.enter_context(bpf.private_bpffs())
        table = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"memory")
        _keys_and_values(story, table)
        _batches(story, table)
        _odd_places(story, table)
        _large_elements(story)
        _values_a_cpu(story)
        _names(story, bpffs)
        _runs(story)
        _questions(story)
        _hidden_attr(story, table)
        _odd_sizes(story)


def _keys_and_values(story: Story, table: int) -> None:
    key, value = b"\1\2\3\4", b"abcdefgh"
    bpf.map_update_elem(table, key, value)
    story.note("update", memory={"key": whole(key), "value": whole(value)})
    bpf.map_lookup_elem(table, key, 8)
    story.note("lookup", memory={"key": whole(key), "value": whole(value)})
    bpf.attempt(bpf.map_lookup_elem, table, b"none", 8)
    story.note("lookup of nothing", memory={"key": whole(b"none")})
    bpf.attempt(bpf.map_update_elem, table, key, b"exists..", 1)  # BPF_NOEXIST
    story.note("refused update", memory={"key": whole(key), "value": whole(b"exists..")})
    bpf.map_get_next_key(table, None, 4)
    story.note("first key", memory={"next_key": whole(key)})
    bpf.map_update_elem(table, b"\5\6\7\x08", value)
    first = bpf.map_get_next_key(table, None, 4)
    buffer = ctypes.create_string_buffer(first, 4)
    bpf.bpf(bpf.BPF_MAP_GET_NEXT_KEY, bpf.MAP_ELEM.pack(map_fd=table, key=buffer, next_key=buffer))
    story.note("one buffer", memory={"key": whole(first), "next_key": whole(buffer.raw)})
    last = buffer.raw
    bpf.attempt(bpf.map_get_next_key, table, last, 4)
    story.note("last key", memory={"key": whole(last)})
    bpf.map_lookup_and_delete_elem(table, key, 8)
    story.note("taken", memory={"key": whole(key), "value": whole(value)})
    other = b"\5\6\7\x08"
    bpf.map_delete_elem(table, other)
    story.note("deleted", memory={"key": whole(other)})


def _batches(story: Story, table: int) -> None:
    keys = b"".join(struct.pack("=I", number) for number in range(20))
    values = b"".join(struct.pack("=Q", number) for number in range(20))
    bpf.map_update_batch(table, keys, values, 20)
    story.note("update batch", memory={"keys": whole(keys), "values": whole(values)})
    cursor = ctypes.create_string_buffer(4)
    room_k, room_v = ctypes.create_string_buffer(64), ctypes.create_string_buffer(128)
    before = 0
    for turn in range(4):
        count = 0
        attr = bpf.BATCH.pack(
            map_fd=table, keys=room_k, values=room_v, count=12,
            in_batch=cursor if turn else 0, out_batch=cursor,
        )  # fmt: skip
        at = cursor.raw
        made = bpf.call(bpf.BPF_MAP_LOOKUP_BATCH, attr)
        count = bpf.BATCH.get(made.exit, "count")
        expected = {
            "keys": whole(room_k.raw[: 4 * count]),
            "values": whole(room_v.raw[: 8 * count]),
        }
        if not count:
            expected = {}
        if turn:
            expected["in_batch"] = whole(at)
        if made.retval == 0:
            expected["out_batch"] = whole(cursor.raw)
        story.note(f"lookup batch {turn}", memory=expected, retval=made.retval)
        before += count
        if made.retval:
            break
    assert before == 20, before
    bpf.map_delete_batch(table, keys, 20)
    story.note("delete batch", memory={"keys": whole(keys)})
    _batch_of_maps(story, table)


def _batch_of_maps(story: Story, table: int) -> None:
    hash_of_maps, key = 13, bytes(range(16))
    outer = bpf.map_create(hash_of_maps, 16, 4, 8, inner_map_fd=table, map_name=b"outer")
    bpf.map_update_elem(outer, key, struct.pack("=I", table))
    room_k, room_v = ctypes.create_string_buffer(64), ctypes.create_string_buffer(16)
    cursor = ctypes.create_string_buffer(b"\xaa" * 16, 16)
    attr = bpf.BATCH.pack(
        map_fd=outer, keys=room_k, values=room_v, count=1, in_batch=0, out_batch=cursor
    )
    made = bpf.call(bpf.BPF_MAP_LOOKUP_BATCH, attr)
    count = bpf.BATCH.get(made.exit, "count")
    expected = {"keys": whole(room_k.raw[:16]), "values": whole(room_v.raw[:4])} if count else {}
    if made.retval == 0:
        expected["out_batch"] = whole(cursor.raw[:4])  # of hashes, a number of 32 bits
    story.note("batch of maps", memory=expected, retval=made.retval)
    os.close(outer)


def _odd_places(story: Story, table: int) -> None:
    key, value = b"\1\2\3\4", b"abcdefgh"
    page, beyond = bpf.Page(), bpf.Page()
    elem = bpf.MAP_ELEM.pack

    def update(scene: str, key: Any, value: Any, /, **memory: Expected) -> None:
        bpf.call(bpf.BPF_MAP_UPDATE_ELEM, elem(map_fd=table, key=key, value=value))
        story.note(scene, memory=memory)

    update("end of a page", page.put_at_end(key), value, key=whole(key), value=whole(value))
    update("over the end", beyond.put_at_end(key, beyond=1), value,
           key={**partly(key[:3], 4, "unreadable"), "read_at_exit": True},
           value=whole(value))  # fmt: skip
    update("NULL", 0, value, value=whole(value))
    for name, address in {"wild": 0xDEAD0000, "kernel": 0xFFFF_8000_0000_0000}.items():
        update(name, key, address, key=whole(key), value=partly(b"", 8, "unreadable"))
    unread = Unread(key)
    update("key not in memory", unread.address, value,
           key={**whole(key), "read_at_exit": True}, value=whole(value))  # fmt: skip
    unread = Unread(value)
    update("value not in memory", key, unread.address, key=whole(key), value=whole(value))
    unread = Unread(value, beyond=3)
    update("value half in memory", key, unread.address, key=whole(key), value=whole(value))
    unread = Unread(key, beyond=3)
    update("key half in memory", unread.address, value,
           key={**whole(key), "read_at_exit": True}, value=whole(value))  # fmt: skip


def _large_elements(story: Story) -> None:
    table = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 400, 9000, 4, map_name=b"large")
    key, value = bytes(range(200)) * 2, bytes(range(250)) * 36
    bpf.map_update_elem(table, key, value)
    story.note("large", memory={"key": whole(key), "value": partly(value[:4096], 9000, "cut")})
    page = bpf.Page()
    short = page.put_at_end(value[:3000])
    attr = bpf.MAP_ELEM.pack(map_fd=table, key=key, value=short)
    bpf.call(bpf.BPF_MAP_UPDATE_ELEM, attr)
    story.note("large, with a hole", memory={
        "key": whole(key), "value": partly(value[:3000], 9000, "cut", "unreadable"),
    })  # fmt: skip
    unread = Unread(key, beyond=150)
    attr = bpf.MAP_ELEM.pack(map_fd=table, key=unread.address, value=value)
    bpf.call(bpf.BPF_MAP_UPDATE_ELEM, attr).check()
    story.note("large key half in memory", memory={
        "key": {**whole(key), "read_at_exit": True}, "value": partly(value[:4096], 9000, "cut"),
    })  # fmt: skip
    os.close(table)


def _values_a_cpu(story: Story) -> None:
    cpus = _possible_cpus()
    table = bpf.map_create(6, 4, 12, 1, map_name=b"percpu")
    value = bytes(range(16)) * cpus
    attr = bpf.MAP_ELEM.pack(map_fd=table, key=bytes(4), value=value)
    bpf.bpf(bpf.BPF_MAP_UPDATE_ELEM, attr)
    story.note("a value for each CPU", memory={"key": whole(bytes(4)), "value": whole(value)})
    os.close(table)


def _possible_cpus() -> int:
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return sum(int(part.split("-")[-1]) - int(part.split("-")[0]) + 1 for part in text.split(","))


def text(string: bytes) -> Expected:
    """All of it, with its NUL."""
    return {"text": spelled(string), "size": len(string) + 1}


def spelled(string: bytes) -> str:
    """As documents have it; only what the scenes need."""
    return string.decode().replace("\n", "\\n")


def _names(story: Story, bpffs: str) -> None:
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bpf.RETURN_0, license=b"Dual BSD/GPL")
    insns = {"hex": bpf.RETURN_0.hex(), "size": len(bpf.RETURN_0)}
    story.note("license", memory={"insns": insns, "license": text(b"Dual BSD/GPL")})
    bpf.attempt(bpf.prog_load, bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bpf.RETURN_0, license=b"x" * 200)
    story.note("long license", memory={
        "insns": insns, "license": {"text": "x" * 128, "size": 128, "missing": ["cut"]},
    })  # fmt: skip
    page = bpf.Page()
    attr = bpf.prog_load_attr(1, bpf.RETURN_0, license=page.put_at_end(b"GPL\0"))
    os.close(bpf.bpf(bpf.BPF_PROG_LOAD, attr))
    story.note("license at the end of a page", memory={"insns": insns, "license": text(b"GPL")})
    attr = bpf.prog_load_attr(1, bpf.RETURN_0, license=page.put_at_end(b"GPL"))
    bpf.call(bpf.BPF_PROG_LOAD, attr)
    story.note("license without an end", memory={
        "insns": insns, "license": {"text": "GPL", "size": 3, "missing": ["unreadable"]},
    })  # fmt: skip
    link = bpf.raw_tracepoint_open(b"task_rename", prog)
    story.note("tracepoint", memory={"name": text(b"task_rename")})
    name, prog_id, _ = bpf.task_fd_query(os.getpid(), link)
    story.note("task_fd_query", memory={"buf": text(name)})
    assert (name, prog_id) == (b"task_rename", bpf.fdinfo(prog, "prog_id"))
    os.close(link)
    deep = os.fsencode(bpffs) + b"/" + b"d" * 200 + b"/" + b"p" * 100
    bpf.attempt(bpf.obj_get, deep)
    story.note("pathname", memory={"pathname": text(deep)})
    bpf.attempt(bpf.obj_get, b"/" * 4095)
    story.note("longest pathname", memory={"pathname": text(b"/" * 4095)})
    bpf.attempt(bpf.obj_get, b"/" * 5000)
    story.note("long pathname", memory={
        "pathname": {"text": "/" * 4096, "size": 4096, "missing": ["cut"]},
    })  # fmt: skip
    bpf.attempt(bpf.obj_pin, b"\x1b[31m\n\xff", prog)
    story.note("hostile pathname", memory={
        "pathname": {"text": r"\33[31m\n\377", "size": 8},
    })  # fmt: skip
    os.close(prog)


def _runs(story: Story) -> None:
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_XDP, bpf.mov64_imm(0, 2) + bpf.exit_insn())
    packet = bytes(range(64))
    buffer = ctypes.create_string_buffer(packet, 64)
    attr = bpf.TEST.pack(
        prog_fd=prog, data_in=buffer, data_out=buffer, data_size_in=64, data_size_out=64
    )
    bpf.bpf(bpf.BPF_PROG_TEST_RUN, attr)
    story.note("test run", memory={"data_in": whole(packet), "data_out": whole(buffer.raw)})
    large = bytes(range(200)) * 5
    guard = ctypes.create_string_buffer(b"\xee" * 4096)
    attr = bpf.TEST.pack(
        prog_fd=prog, data_in=large, data_out=guard, data_size_in=1000, data_size_out=64
    )
    made = bpf.call(bpf.BPF_PROG_TEST_RUN, attr)
    assert made.retval == -28, made
    story.note("test run, no room", memory={
        "data_in": partly(large[:256], 1000, "cut"), "data_out": whole(large[:64]),
    })  # fmt: skip
    os.close(prog)
    # As much as can be, and an attr that is longer than any kernel's.
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_SOCKET_FILTER, bpf.RETURN_0)
    data, context = bytes(range(250)) + b"abcdef", bytes(256)
    out, context_out = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
    for scene, size, out_size in (
        ("full run", 80, 256), ("full run, long attr", 4096, 256), ("full run, 200 bytes", 80, 200),
    ):  # fmt: skip
        attr = bpf.TEST.pack(
            prog_fd=prog, data_in=data, data_out=out, data_size_in=256, data_size_out=out_size,
            ctx_in=context, ctx_size_in=256, ctx_out=context_out, ctx_size_out=256,
        )  # fmt: skip
        made = bpf.call(bpf.BPF_PROG_TEST_RUN, attr, size=size)
        expected = {"data_in": whole(data), "ctx_in": whole(context)}
        if made.retval >= 0 or made.retval == -28:
            shown = min(out_size, bpf.TEST.get(made.exit, "data_size_out"))
            expected["data_out"] = whole(out.raw[:shown])
        if made.retval >= 0:  # the kernel does not get as far when the data has no room
            expected["ctx_out"] = whole(context_out.raw[: bpf.TEST.get(made.exit, "ctx_size_out")])
        story.note(scene, memory=expected, retval=made.retval)
    os.close(prog)


def _questions(story: Story) -> None:
    progs = [bpf.prog_load(bpf.BPF_PROG_TYPE_FLOW_DISSECTOR, bpf.RETURN_0)]
    bpf.prog_attach(0, progs[0], bpf.BPF_FLOW_DISSECTOR)
    netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    ids = bpf.prog_query(netns, bpf.BPF_FLOW_DISSECTOR)
    assert ids == [bpf.fdinfo(progs[0], "prog_id")]
    story.note("query", memory={"prog_ids": {"values": ids, "size": 4}})
    bpf.prog_detach(0, progs[0], bpf.BPF_FLOW_DISSECTOR)
    os.close(netns)
    info = bpf.obj_get_info_by_fd(progs[0])
    story.note("info", memory={"info": whole(info)})
    head = bpf.minimal_btf()
    bpf.btf_load(head)
    story.note("btf", memory={"btf": whole(head)})
    log = ctypes.create_string_buffer(1 << 16)
    bad = head[:24] + struct.pack("=IIII", 1, 1 << 24, 4, 0xFF << 24 | 32) + head[40:]
    bpf.attempt(bpf.btf_load, bad, btf_log_buf=log, btf_log_size=len(log), btf_log_level=1)
    assert log.value
    story.note("btf log", memory={"btf": whole(bad), "btf_log_buf": text(log.value)})
    os.close(progs[0])
    _rejected(story)
    _multi(story)


def _rejected(story: Story) -> None:
    """The verifier walks a long way before it says no."""
    insns = bpf.mov64_imm(0, 0) + bpf.alu64_imm(bpf.BPF_ADD, 0, 1) * 3000
    insns += bpf.mov64_reg(bpf.BPF_REG_0, bpf.BPF_REG_3) + bpf.exit_insn()
    memory = {"insns": whole(insns), "license": text(b"GPL")}
    for scene, room, size in (
        ("verifier", 1 << 20, 168), ("short log", 1000, 168), ("old caller", 1 << 20, 120),
    ):  # fmt: skip
        log = ctypes.create_string_buffer(room)
        attr = bpf.prog_load_attr(1, insns, log, log_level=2)
        made = bpf.call(bpf.BPF_PROG_LOAD, attr[:size])
        assert made.retval in (-13, -28), made.retval
        end = (log.value + b"\0")[-4096:]
        shown: Expected = {"text": spelled(end[:-1]), "size": len(log.value) + 1}
        # Where the kernel tells how long the log is, it keeps its end; others keep its head.
        told = bpf.PROG_LOAD.get(made.exit, "log_true_size") if size == len(attr) else 0
        if len(log.value) >= 4096 or told > room:
            shown["missing"] = ["cut_in_front"]
        story.note(scene, memory={**memory, "log_buf": shown})


def _multi(story: Story) -> None:
    """Arrays of LINK_CREATE, whatever the kernel makes of them."""
    prog = bpf.prog_load(bpf.BPF_PROG_TYPE_RAW_TRACEPOINT, bpf.RETURN_0)
    symbols = [b"vfs_read", b"vfs_write", b"x" * 300]
    buffers = [ctypes.create_string_buffer(symbol) for symbol in symbols]
    pointers = struct.pack("=3Q", *map(ctypes.addressof, buffers))
    cookies = struct.pack("=3Q", 1, 2, 0xFFFF_FFFF_FFFF_FFFF)
    kprobe_multi = 42
    arm: dict[str, bpf.Value] = {"cnt": 2, "syms": pointers, "cookies": cookies}
    bpf.attempt(bpf.link_create, prog, 0, kprobe_multi, kprobe_multi=arm)
    story.note("kprobe_multi", memory={
        "syms": {"values": ["vfs_read", "vfs_write"], "size": 2},
        "cookies": {"values": ["0x1", "0x2"], "size": 16},
    })  # fmt: skip
    bpf.attempt(bpf.link_create, prog, 0, kprobe_multi, kprobe_multi={**arm, "cnt": 3})
    story.note("long symbol", memory={
        "syms": {"values": ["vfs_read", "vfs_write", "x" * 127], "size": 3, "missing": ["cut"]},
        "cookies": {"values": ["0x1", "0x2", "0xffffffffffffffff"], "size": 24},
    })  # fmt: skip
    offsets = struct.pack("=2Q", 0x10, 0x20)
    arm = {"cnt": 2, "path": b"/proc/self/exe", "offsets": offsets, "cookies": cookies}
    bpf.attempt(bpf.link_create, prog, 0, 48, uprobe_multi=arm)
    story.note("uprobe_multi", memory={
        "path": text(b"/proc/self/exe"),
        "offsets": {"values": ["0x10", "0x20"], "size": 16},
        "cookies": {"values": ["0x1", "0x2"], "size": 16},
    })  # fmt: skip
    os.close(prog)


def _hidden_attr(story: Story, table: int) -> None:
    """The caller lays attr where it cannot be read before the kernel has."""
    key, value = b"\1\2\3\4", b"abcdefgh"
    memory = {"key": {**whole(key), "read_at_exit": True}, "value": whole(value)}
    told = about("map", table)
    for scene, beyond in (("attr not in memory", 0), ("attr half in memory", 20)):
        attr = bpf.MAP_ELEM.pack(map_fd=table, key=key, value=value)
        unread = Unread(attr, beyond)
        _raw(story, bpf.BPF_MAP_UPDATE_ELEM, unread.address, attr)
        story.note(scene, map=told, memory=memory)
    attr = bpf.prog_load_attr(1, bpf.RETURN_0)
    for scene, beyond in (("hidden program", 0), ("half hidden program", len(attr) - 4)):
        unread = Unread(attr, beyond)
        _raw(story, bpf.BPF_PROG_LOAD, unread.address, attr)
        story.note(scene, memory={
            "insns": {**whole(bpf.RETURN_0), "read_at_exit": True}, "license": text(b"GPL"),
        })  # fmt: skip


def _odd_sizes(story: Story) -> None:
    """attr ends within a field; the kernel takes the rest of it for zero."""
    table = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"odd")
    key, value, told = b"\1\2\3\4", b"abcdefgh", about("map", table)
    bpf.map_update_elem(table, key, value)
    room = ctypes.create_string_buffer(value, 8)
    attr = ctypes.create_string_buffer(bpf.MAP_ELEM.pack(map_fd=table, key=key, value=room), 64)
    address = ctypes.addressof(attr)
    _raw(story, bpf.BPF_MAP_LOOKUP_ELEM, address, attr.raw[:22])
    story.note("22 bytes", map=told, memory={"key": whole(key), "value": whole(value)})
    _raw(story, bpf.BPF_MAP_DELETE_ELEM, address, attr.raw[:14])
    story.note("14 bytes", map=told, memory={"key": whole(key)})
    _raw(story, bpf.BPF_MAP_FREEZE, address, attr.raw[:1])
    story.note("1 byte", map=told)

    # More than the caller needs to pass, of which the kernel wants to see zeros. What could
    # be read at entry is not what the call has left there since.
    other = bpf.map_create(bpf.BPF_MAP_TYPE_HASH, 4, 8, 64, map_name=b"walk")
    for number in range(2):
        bpf.map_update_elem(other, struct.pack("=I", number), value)
    told, first = about("map", other), bpf.map_get_next_key(other, None, 4)
    buffer = ctypes.create_string_buffer(first, 4)
    walk = bpf.MAP_ELEM.pack(map_fd=other, key=buffer, next_key=buffer)[:24].ljust(64, b"\0")
    unread = Unread(walk, beyond=40)
    _raw(story, bpf.BPF_MAP_GET_NEXT_KEY, unread.address, walk)
    story.note("zeros not in memory", map=told, memory={
        "key": whole(first), "next_key": whole(buffer.raw),
    })  # fmt: skip
    for fd in (table, other):
        os.close(fd)


def _raw(story: Story, cmd: int, address: int, attr: bytes) -> None:
    result = bpf.raw_bpf(cmd, address, len(attr))
    story._calls.append(bpf.MadeCall(
        cmd, len(attr), result, address, attr, attr, 0, 0, os.getpid(), os.getpid(),
    ))  # fmt: skip
    assert result >= 0, result


# --- Programs ----------------------------------------------------------------------------


def programs(story: Story) -> None:
    """Of many sizes, and on pages that have not been read."""
    for count in (1, 2, 511, 512, 513, 4096, 100_000):
        insns = long_program(count)
        loaded = bpf.attempt(bpf.prog_load, bpf.BPF_PROG_TYPE_SOCKET_FILTER, insns)
        story.note(f"{count}", insns=count)
        if loaded is not None:
            os.close(loaded)
    insns = long_program(3000)
    with tempfile.TemporaryFile() as file:
        file.write(insns)
        file.flush()
        mapped = mmap.mmap(file.fileno(), len(insns), mmap.MAP_PRIVATE)
    mapped.madvise(mmap.MADV_RANDOM)
    address = bpf._address(mapped)
    attr = bpf.PROG_LOAD.pack(
        prog_type=1, insn_cnt=3000, insns=address, license=b"GPL", prog_name=b"unread"
    )
    os.close(bpf.bpf(bpf.BPF_PROG_LOAD, attr))
    story.note("unread", insns=3000, at_exit=True)


def long_program(count: int) -> bytes:
    """A valid one of so many instructions, no two of them alike but the last."""
    if count == 1:
        return bpf.exit_insn()
    body = b"".join(bpf.mov64_imm(bpf.BPF_REG_0, number) for number in range(count - 1))
    return body + bpf.exit_insn()


SCENES: dict[str, Callable[[Story], None]] = {
    scene.__name__: scene for scene in (objects, memory, programs)
}


def main() -> None:
    story = Story()
    SCENES[sys.argv[1]](story)
    story.tell()


if __name__ == "__main__":
    main()
