# SPDX-License-Identifier: Apache-2.0
"""What tells programs apart: the tag, as the kernel makes it (``bpf_prog_calc_tag()``,
kernel/bpf/core.c), and a digest.
"""

from typing import Final

try:  # what OpenSSL does for hashlib is not worth its 5 MB here
    from _sha1 import sha1
    from _sha256 import sha256
except ImportError:
    from hashlib import sha1, sha256

TAG_LEN: Final = 8

_INSN: Final = 8
_WIDE: Final = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_MAP_FD: Final = (1, 2)  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE


def tags(insns: bytes) -> frozenset[bytes]:
    """The tags that kernels give to these instructions: of SHA-256 since Linux 6.18, of SHA-1
    before.

    :param insns: ``struct bpf_insn`` one behind the other, as they were passed.
    """
    same = stable(insns)
    return frozenset(each(same).digest()[:TAG_LEN] for each in (sha1, sha256))


def digest(insns: bytes) -> str:
    """Their SHA-256, in hexadecimal: the same for the same bytes, whoever loads them."""
    return str(sha256(insns).hexdigest())


def stable(insns: bytes) -> bytes:
    """The same without the descriptors of maps, which differ each time that it is loaded."""
    codes = insns[: len(insns) // _INSN * _INSN : _INSN]
    same = bytearray(insns)
    number = codes.find(_WIDE)
    while number >= 0:
        at = number * _INSN
        following = insns[at + _INSN : at + _INSN + 4]
        if insns[at + 1] >> 4 in _MAP_FD:
            same[at + 4 : at + 8] = bytes(4)
            if following == bytes(4):
                same[at + 12 : at + 16] = bytes(4)
                number += 1
        number = codes.find(_WIDE, number + 1)
    return bytes(same)
