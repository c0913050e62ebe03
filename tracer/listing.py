# SPDX-License-Identifier: Apache-2.0
"""``bpfsnoop insns``: a program in a file, in the kernel's notation."""

import sys
from collections.abc import Iterator
from typing import Final

from ..decoders import cbpf, disasm, elf, programs
from ..decoders.loads import KFUNCS
from ..decoders.tag import digest, stable
from ..events.errors import CannotStart
from ..events.value import printable
from . import btf

_FILE_MAX: Final = 64 << 20
_STDIN: Final = "-"


def of_file(path: str, *, classic: bool) -> Iterator[str]:
    """Its lines.

    :param path: ``-`` for standard input.
    :param classic: it is classic BPF.
    :raises CannotStart: it cannot be read, or holds no program.
    """
    data = _content(path)
    try:
        if classic:
            yield from _classic(cbpf.parse(data))
            return
        codes = elf.programs_in(data)
    except ValueError as error:
        raise CannotStart(f"{path}: {error}") from None
    if not any(code.insns for code in codes):
        raise CannotStart(f"{path}: there is no program in it")
    names = disasm.Names(ksyms=_kfuncs())
    for code in codes:
        if code.section:
            yield f"{printable(code.section.encode('ascii', 'replace'))}:"
        yield f"# sha256 {digest(stable(code.insns))}"
        yield from _uses(programs.uses(code.insns))
        yield from disasm.lines(code.insns, names)


def _uses(uses: programs.Uses) -> Iterator[str]:
    if uses.strings:
        yield "# strings " + " ".join(f'"{text}"' for text in uses.strings)
    if uses.constants:
        yield "# constants " + " ".join(map(hex, uses.constants))


def _classic(filters: bytes) -> Iterator[str]:
    yield f"# sha256 {cbpf.sha256(filters)}"
    yield from cbpf.lines(filters)


def _kfuncs() -> dict[int, str]:
    # Of this kernel: another one's programs may mean other functions by the same ids.
    try:
        return btf.Btf(btf.VMLINUX.read_bytes()).tagged(KFUNCS)
    except (OSError, ValueError):
        return {}


def _content(path: str) -> bytes:
    try:
        if path == _STDIN:
            data = sys.stdin.buffer.read(_FILE_MAX + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise CannotStart(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _FILE_MAX:
        raise CannotStart(f"{path}: larger than any program can be")
    return data
