# SPDX-License-Identifier: Apache-2.0
"""Programs as object files: what bpftool, llvm-objdump and ``bpfsnoop insns`` read.

An object file has a section for the instructions, one for the license, and a symbol with the
program's name (ELF-64, elf(5); EM_BPF of linux/elf-em.h; sections as libbpf wants them).
"""

import re
from collections.abc import Iterator, Mapping
from struct import Struct, error
from typing import Final, NamedTuple

from .insn import INSN
from .uapi import PROG_TYPE

_MAGIC: Final = b"\x7fELF"
_CLASS64: Final = 2
_DATA: Final = 1 if Struct("=H").pack(1)[0] else 2  # ELFDATA2LSB, ELFDATA2MSB
_EM_BPF: Final = 247
_ET_REL: Final = 1
_HEADER: Final = Struct("=16sHHIQQQIHHHHHH")
_SECTION: Final = Struct("=IIQQQQIIQQ")
_SYMBOL: Final = Struct("=IBBHQQ")
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALLOC, _EXEC = 2, 4
_GLOBAL_FUNC: Final = 0x12
_SECTIONS_MAX: Final = 1024
_ANY: Final = re.compile(rb"[^A-Za-z0-9_.]")

# What libbpf makes of the name of a section; of the others it has to be told the type.
_NAMES: Final[Mapping[str, bytes]] = {
    "SOCKET_FILTER": b"socket", "KPROBE": b"kprobe", "SCHED_CLS": b"tc", "SCHED_ACT": b"action",
    "TRACEPOINT": b"tracepoint", "XDP": b"xdp", "PERF_EVENT": b"perf_event",
    "CGROUP_SKB": b"cgroup/skb", "LWT_IN": b"lwt_in", "LWT_OUT": b"lwt_out",
    "LWT_XMIT": b"lwt_xmit", "SOCK_OPS": b"sockops", "SK_SKB": b"sk_skb",
    "CGROUP_DEVICE": b"cgroup/dev", "SK_MSG": b"sk_msg", "RAW_TRACEPOINT": b"raw_tp",
    "LWT_SEG6LOCAL": b"lwt_seg6local", "LIRC_MODE2": b"lirc_mode2",
    "SK_REUSEPORT": b"sk_reuseport", "FLOW_DISSECTOR": b"flow_dissector",
    "CGROUP_SYSCTL": b"cgroup/sysctl", "SYSCALL": b"syscall", "NETFILTER": b"netfilter",
}  # fmt: skip
_OTHERS: Final = b"prog"


class Code(NamedTuple):
    """Instructions in a file."""

    section: str
    """Empty if the file is nothing but them."""
    insns: bytes


def object_file(insns: bytes, *, name: bytes, prog_type: int, licensed: bytes) -> bytes:
    """An object file with one program.

    :param insns: ``struct bpf_insn`` one behind the other.
    :param name: of the program; what no symbol may have in it becomes ``_``.
    :param prog_type: ``enum bpf_prog_type``
    :param licensed: the license, without a NUL.
    """
    kind = PROG_TYPE.names.get(prog_type, "").removeprefix("BPF_PROG_TYPE_")
    section = _NAMES.get(kind, _OTHERS)
    symbol = _ANY.sub(b"_", name) or _OTHERS
    strings = b"\0" + b"\0".join([section, b"license", b".symtab", b".strtab", symbol, b""])
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(
        strings.index(symbol + b"\0", strings.index(b".strtab") + 8), _GLOBAL_FUNC, 0, 1, 0,
        len(insns),
    )  # fmt: skip
    contents = [
        (section, _PROGBITS, _ALLOC | _EXEC, insns, 0, 0, 8, 0),
        (b"license", _PROGBITS, _ALLOC, licensed + b"\0", 0, 0, 1, 0),
        (b".symtab", _SYMTAB, 0, symbols, 4, 1, 8, _SYMBOL.size),
        (b".strtab", _STRTAB, 0, strings, 0, 0, 1, 0),
    ]
    body = bytearray()
    table = bytearray(_SECTION.size)
    for title, kind_, flags, data, link, info, align, entry in contents:
        body += bytes(-len(body) % 8)
        table += _SECTION.pack(
            strings.index(title + b"\0"), kind_, flags, 0, _HEADER.size + len(body), len(data),
            link, info, align, entry,
        )  # fmt: skip
        body += data
    body += bytes(-len(body) % 8)
    ident = _MAGIC + bytes([_CLASS64, _DATA, 1]) + bytes(9)
    header = _HEADER.pack(
        ident, _ET_REL, _EM_BPF, 1, 0, 0, _HEADER.size + len(body), 0, _HEADER.size, 0, 0,
        _SECTION.size, len(contents) + 1, len(contents),
    )  # fmt: skip
    return bytes(header + body + table)


def programs_in(data: bytes) -> list[Code]:
    """The instructions in a file: of an object file each section that is code, else all of it.

    :raises ValueError: it is an object file of another machine, or broken; or its length is no
        multiple of 8.
    """
    if not data.startswith(_MAGIC):
        if len(data) % INSN.size:
            raise ValueError(f"{len(data)} bytes are not instructions of {INSN.size} bytes each")
        return [Code("", data)]
    try:
        return [code for code in _sections(data) if code.insns]
    except (error, IndexError, OverflowError) as reason:
        raise ValueError("a broken object file") from reason


def _sections(data: bytes) -> Iterator[Code]:
    ident, _, machine, *_, size, count, names = _HEADER.unpack_from(data)
    if ident[4:6] != bytes([_CLASS64, _DATA]) or machine != _EM_BPF:
        raise ValueError("an object file of another machine than BPF of this byte order")
    if size != _SECTION.size or count > _SECTIONS_MAX:
        raise ValueError("a broken object file")
    start = _HEADER.unpack_from(data)[6]
    headers = [_SECTION.unpack_from(data, start + size * number) for number in range(count)]
    strings = headers[names][4]
    for title, kind, flags, _, offset, length, *_ in headers:
        if kind == _PROGBITS and flags & _EXEC:
            end = data.find(b"\0", strings + title)
            name = data[strings + title : end].decode("ascii", "replace")
            yield Code(name, data[offset : offset + length])
