# SPDX-License-Identifier: Apache-2.0
"""What a BPF_PROG_LOAD asks the kernel to load."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ..events.call import RESULT, Call, PartState
from ..events.program import Program
from ..events.value import printable
from . import disasm, helpers, programs
from .insn import INSN
from .programs import Uses
from .progs import PROG_LOAD
from .tag import digest, stable, tags

KFUNCS: Final = "bpf_kfunc"
"""What BTF has the kfuncs of a kernel under: it is the tag that marks them."""

_INSNS: Final = PROG_LOAD.layout.offset_of("insns")
_LICENSE: Final = PROG_LOAD.layout.offset_of("license")
_KEPT: Final = 128  # programs; loaders load the same ones again and again


class _Known(NamedTuple):
    uses: Uses
    sha256: str
    tags: frozenset[bytes]


_kept: dict[str, _Known] = {}


def _known(insns: bytes) -> _Known:
    # By a digest: a program may have a million instructions, and many programs may.
    key = digest(insns)
    known = _kept.get(key)
    if known is None:
        if len(_kept) >= _KEPT:
            _kept.pop(next(iter(_kept)))
        known = _kept[key] = _Known(programs.uses(insns), digest(stable(insns)), tags(insns))
    return known


def program_of(call: Call, kfuncs: Mapping[int, str], *, listings: bool = False) -> Program | None:
    """What the instructions of a load show; None if there are none.

    :param kfuncs: names by BTF id, as far as they are known.
    :param listings: disassemble it, too.
    """
    blob = call.memory.get(_INSNS)
    if blob is None or not blob.data:
        return None
    uses, sha256, possible = _known(blob.data)
    whole = len(blob.data) == blob.wanted
    made = call.objects.get(RESULT)
    license_ = call.memory.get(_LICENSE)
    return Program(
        insn_count=blob.wanted // INSN.size,
        sha256=sha256 if whole else "",
        proven=bool(blob.state & PartState.KERNEL) or (made is not None and made.tag in possible),
        license=printable(license_.data.partition(b"\0")[0]) if license_ else None,
        helpers=tuple(map(helpers.name, uses.helpers)),
        kfuncs=tuple(_kfunc(each, kfuncs) for each in uses.kfuncs),
        variables=tuple(f"btf#{each.btf_id}" for each in uses.variables),
        subprogram_count=len(uses.subprograms),
        tail_calls=uses.tail_calls,
        map_ids=call.maps.ids if call.maps else None,
        constants=uses.constants,
        strings=uses.strings,
        listing=tuple(_listing(call, blob.data, uses, kfuncs)) if listings else (),
        cut=_cut(call, uses, whole),
    )


def _listing(call: Call, insns: bytes, uses: Uses, kfuncs: Mapping[int, str]) -> Iterator[str]:
    # The verifier came upon the maps in the order of the instructions, each of them once.
    ids = call.maps.ids if call.maps else ()
    fds: dict[int, str] = {}
    if len(ids) == len(uses.maps) and all(found.kind == "fd" for found in uses.maps):
        pairs = zip(uses.maps, ids, strict=True)
        fds = {found.number: f"map[id:{number}]" for found, number in pairs}
    return disasm.lines(insns, disasm.Names(ksyms=kfuncs, fds=fds))


def _kfunc(found: programs.Kfunc, names: Mapping[int, str]) -> str:
    if found.fd_index:
        return f"kfunc#{found.btf_id}@{found.fd_index}"
    return names.get(found.btf_id) or f"kfunc#{found.btf_id}"


def _cut(call: Call, uses: Uses, whole: bool) -> tuple[str, ...]:
    cut = uses.cut if whole else ("insns", *uses.cut)
    more = call.maps is not None and len(call.maps.ids) < call.maps.total
    return (*cut, "map_ids") if more else cut
