# SPDX-License-Identifier: Apache-2.0
"""Classic BPF: its lines against tcpdump's, its tables against the kernel's headers."""

import hashlib
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders import cbpf
from bpfsnoop.decoders.cbpf import SOCK_FILTER, lines, looks_like_seccomp, parse, sha256, uses

RETURN_0 = (0x06, 0, 0, 0)
ALLOW = (0x06, 0, 0, 0x7FFF0000)

# What tcpdump 4.99.3 (libpcap 1.10.3) prints of an expression with -i lo -y EN10MB: with -ddd,
# its lines joined by commas, and with -d, but for the blanks at the end of lines.
TCPDUMP = [
    ("ip",
     "4,40 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 3
(002) ret      #262144
(003) ret      #0
"""),
    ("vlan 5 and ip",
     "22,0 0 0 0,2 0 0 1,48 0 0 4294963248,21 6 0 1,0 0 0 4,2 0 0 1,40 0 0 12,21 2 0 33024,21 "
     "1 0 34984,21 0 11 37120,48 0 0 4294963248,21 0 2 1,48 0 0 4294963244,5 0 0 1,40 0 0 "
     "14,84 0 0 4095,21 0 4 5,97 0 0 1,72 0 0 12,21 0 1 2048,6 0 0 262144,6 0 0 0",
     """\
(000) ld       #0x0
(001) st       M[1]
(002) ldb      [vlanp]
(003) jeq      #0x1             jt 10\tjf 4
(004) ld       #0x4
(005) st       M[1]
(006) ldh      [12]
(007) jeq      #0x8100          jt 10\tjf 8
(008) jeq      #0x88a8          jt 10\tjf 9
(009) jeq      #0x9100          jt 10\tjf 21
(010) ldb      [vlanp]
(011) jeq      #0x1             jt 12\tjf 14
(012) ldb      [vlan_tci]
(013) ja       15
(014) ldh      [14]
(015) and      #0xfff
(016) jeq      #0x5             jt 17\tjf 21
(017) ldx      M[1]
(018) ldh      [x + 12]
(019) jeq      #0x800           jt 20\tjf 21
(020) ret      #262144
(021) ret      #0
"""),
    ("ifindex 2 and inbound",
     "6,32 0 0 4294963208,21 0 3 2,40 0 0 4294963204,21 1 0 4,6 0 0 262144,6 0 0 0",
     """\
(000) ld       [ifidx]
(001) jeq      #0x2             jt 2\tjf 5
(002) ldh      [type]
(003) jeq      #0x4             jt 5\tjf 4
(004) ret      #262144
(005) ret      #0
"""),
    ("len<=100",
     "4,128 0 0 0,37 0 1 100,6 0 0 0,6 0 0 262144",
     """\
(000) ld       #pktlen
(001) jgt      #0x64            jt 2\tjf 3
(002) ret      #0
(003) ret      #262144
"""),
    ("ip[8]*2+len>-ip[3]",
     "17,40 0 0 12,21 0 14 2048,48 0 0 22,36 0 0 2,2 0 0 2,128 0 0 0,7 0 0 3,96 0 0 2,12 0 0 "
     "0,2 0 0 3,48 0 0 17,132 0 0 0,7 0 0 5,96 0 0 3,45 0 1 0,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 16
(002) ldb      [22]
(003) mul      #2
(004) st       M[2]
(005) ld       #pktlen
(006) tax
(007) ld       M[2]
(008) add      x
(009) st       M[3]
(010) ldb      [17]
(011) neg
(012) tax
(013) ld       M[3]
(014) jgt      x                jt 15\tjf 16
(015) ret      #262144
(016) ret      #0
"""),
    ("tcp[tcpflags]&tcp-syn!=0",
     "11,40 0 0 12,21 0 8 2048,48 0 0 23,21 0 6 6,40 0 0 20,69 4 0 8191,177 0 0 14,80 0 0 "
     "27,69 0 1 2,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 10
(002) ldb      [23]
(003) jeq      #0x6             jt 4\tjf 10
(004) ldh      [20]
(005) jset     #0x1fff          jt 10\tjf 6
(006) ldxb     4*([14]&0xf)
(007) ldb      [x + 27]
(008) jset     #0x2             jt 9\tjf 10
(009) ret      #262144
(010) ret      #0
"""),
    ("ip[2:2]>=ip[len]&7 and ip[4:4]%ip[1]=ip[5]^ip[6]",
     "29,40 0 0 12,21 0 26 2048,40 0 0 16,2 0 0 1,128 0 0 0,7 0 0 2,80 0 0 14,84 0 0 7,7 0 0 "
     "4,96 0 0 1,61 0 17 0,32 0 0 18,2 0 0 5,48 0 0 15,7 0 0 7,96 0 0 5,156 0 0 0,2 0 0 7,48 0 "
     "0 19,2 0 0 9,48 0 0 20,7 0 0 11,96 0 0 9,172 0 0 0,7 0 0 11,96 0 0 7,29 0 1 0,6 0 0 "
     "262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 28
(002) ldh      [16]
(003) st       M[1]
(004) ld       #pktlen
(005) tax
(006) ldb      [x + 14]
(007) and      #0x7
(008) tax
(009) ld       M[1]
(010) jge      x                jt 11\tjf 28
(011) ld       [18]
(012) st       M[5]
(013) ldb      [15]
(014) tax
(015) ld       M[5]
(016) mod      x
(017) st       M[7]
(018) ldb      [19]
(019) st       M[9]
(020) ldb      [20]
(021) tax
(022) ld       M[9]
(023) xor      x
(024) tax
(025) ld       M[7]
(026) jeq      x                jt 27\tjf 28
(027) ret      #262144
(028) ret      #0
"""),
    ("ip[0]%3=1 and ip[1]^5=2 and (ip[2]|4)/2=3",
     "14,40 0 0 12,21 0 11 2048,48 0 0 14,148 0 0 3,21 0 8 1,48 0 0 15,164 0 0 5,21 0 5 2,48 0 "
     "0 16,68 0 0 4,52 0 0 2,21 0 1 3,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 13
(002) ldb      [14]
(003) mod      #3
(004) jeq      #0x1             jt 5\tjf 13
(005) ldb      [15]
(006) xor      #0x5
(007) jeq      #0x2             jt 8\tjf 13
(008) ldb      [16]
(009) or       #0x4
(010) div      #2
(011) jeq      #0x3             jt 12\tjf 13
(012) ret      #262144
(013) ret      #0
"""),
    ("net 10.0.0.0/8",
     "18,40 0 0 12,21 0 6 2048,32 0 0 26,84 0 0 4278190080,21 11 0 167772160,32 0 0 30,84 0 0 "
     "4278190080,21 8 9 167772160,21 1 0 2054,21 0 7 32821,32 0 0 28,84 0 0 4278190080,21 3 0 "
     "167772160,32 0 0 38,84 0 0 4278190080,21 0 1 167772160,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 8
(002) ld       [26]
(003) and      #0xff000000
(004) jeq      #0xa000000       jt 16\tjf 5
(005) ld       [30]
(006) and      #0xff000000
(007) jeq      #0xa000000       jt 16\tjf 17
(008) jeq      #0x806           jt 10\tjf 9
(009) jeq      #0x8035          jt 10\tjf 17
(010) ld       [28]
(011) and      #0xff000000
(012) jeq      #0xa000000       jt 16\tjf 13
(013) ld       [38]
(014) and      #0xff000000
(015) jeq      #0xa000000       jt 16\tjf 17
(016) ret      #262144
(017) ret      #0
"""),
    ("ip protochain 6",
     "24,40 0 0 12,21 0 21 2048,48 0 0 23,177 0 0 14,21 15 0 6,21 14 0 59,4 0 0 0,21 0 12 "
     "51,135 0 0 0,80 0 0 14,2 0 0 0,135 0 0 0,4 0 0 1,7 0 0 0,80 0 0 14,4 0 0 2,36 0 0 4,7 0 "
     "0 0,96 0 0 0,5 0 0 4294967280,4 0 0 0,21 0 1 6,6 0 0 262144,6 0 0 0",
     """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 23
(002) ldb      [23]
(003) ldxb     4*([14]&0xf)
(004) jeq      #0x6             jt 20\tjf 5
(005) jeq      #0x3b            jt 20\tjf 6
(006) add      #0
(007) jeq      #0x33            jt 8\tjf 20
(008) txa
(009) ldb      [x + 14]
(010) st       M[0]
(011) txa
(012) add      #1
(013) tax
(014) ldb      [x + 14]
(015) add      #2
(016) mul      #4
(017) tax
(018) ld       M[0]
(019) ja       4
(020) add      #0
(021) jeq      #0x6             jt 22\tjf 23
(022) ret      #262144
(023) ret      #0
"""),
]  # fmt: skip


# For x86_64: execve fails with EACCES, socket(AF_NETLINK) with EAFNOSUPPORT, other ABIs are killed.
# Linux 6.18 takes it, and does so.
SECCOMP = [
    (0x20, 0, 0, 4),
    (0x15, 1, 0, 0xC000003E),
    (0x06, 0, 0, 0x80000000),
    (0x20, 0, 0, 0),
    (0x35, 0, 1, 0x40000000),
    (0x06, 0, 0, 0x00000000),
    (0x15, 4, 0, 59),
    (0x15, 0, 5, 41),
    (0x20, 0, 0, 16),
    (0x54, 0, 0, 0xFFFF),
    (0x15, 1, 2, 16),
    (0x06, 0, 0, 0x0005000D),
    (0x06, 0, 0, 0x00050061),
    ALLOW,
]
SECCOMP_LINES = """\
(000) ld       [4]              ; arch
(001) jeq      #0xc000003e      jt 3\tjf 2 ; AUDIT_ARCH_X86_64
(002) ret      #0x80000000      ; SECCOMP_RET_KILL_PROCESS
(003) ld       [0]              ; nr
(004) jge      #0x40000000      jt 5\tjf 6
(005) ret      #0x0             ; SECCOMP_RET_KILL_THREAD
(006) jeq      #0x3b            jt 11\tjf 7
(007) jeq      #0x29            jt 8\tjf 13
(008) ld       [16]             ; args[0] low
(009) and      #0xffff
(010) jeq      #0x10            jt 12\tjf 13
(011) ret      #0x5000d         ; SECCOMP_RET_ERRNO(13)
(012) ret      #0x50061         ; SECCOMP_RET_ERRNO(97)
(013) ret      #0x7fff0000      ; SECCOMP_RET_ALLOW
"""

Fields = tuple[int, int, int, int]


def packed(*insns: Fields) -> bytes:
    """``struct sock_filter[]``"""
    return b"".join(SOCK_FILTER.pack(*fields) for fields in insns)


def line(fields: Fields, *, seccomp: bool = False) -> str:
    """The line of an instruction that stands where no jump leaves the filter."""
    filters = packed(fields, *[RETURN_0] * 300)
    return next(lines(filters, seccomp=seccomp)).removeprefix("(000) ")


def text_of(filters: bytes, *, seccomp: bool | None = None) -> str:
    return "".join(f"{each}\n" for each in lines(filters, seccomp=seccomp))


# --- Lines of sockets' filters ---------------------------------------------------------------


@pytest.mark.parametrize(("expression", "bytecode", "shown"), TCPDUMP)
def test_it_is_what_tcpdump_prints(expression: str, bytecode: str, shown: str) -> None:
    ours = text_of(parse(bytecode.encode()))
    if expression == "ip protochain 6":  # a loop, with which libpcap filters in user space
        ours = ours.replace("ja       4                ; out of range", "ja       4")
    assert ours == shown.replace("[vlanp]", "[vlan_avail]")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ((0x00, 0, 0, 42), "ld       #0x2a"),
        ((0x60, 0, 0, 15), "ld       M[15]"),
        ((0x80, 0, 0, 0), "ld       #pktlen"),
        ((0x20, 0, 0, 26), "ld       [26]"),
        ((0x28, 0, 0, 12), "ldh      [12]"),
        ((0x30, 0, 0, 0x7FFFFFFF), "ldb      [2147483647]"),
        ((0x40, 0, 0, 14), "ld       [x + 14]"),
        ((0x48, 0, 0, 14), "ldh      [x + 14]"),
        ((0x50, 0, 0, 0xFFFFFFFC), "ldb      [x + -4]"),
        ((0x01, 0, 0, 0xFFFFFFFF), "ldx      #0xffffffff"),
        ((0x61, 0, 0, 3), "ldx      M[3]"),
        ((0x81, 0, 0, 0), "ldx      #pktlen"),
        ((0xB1, 0, 0, 14), "ldxb     4*([14]&0xf)"),
        ((0x02, 0, 0, 1), "st       M[1]"),
        ((0x03, 0, 0, 2), "stx      M[2]"),
        ((0x04, 0, 0, 0xFFFFFFFF), "add      #-1"),
        ((0x0C, 0, 0, 0), "add      x"),
        ((0x14, 0, 0, 7), "sub      #7"),
        ((0x1C, 0, 0, 0), "sub      x"),
        ((0x24, 0, 0, 7), "mul      #7"),
        ((0x2C, 0, 0, 0), "mul      x"),
        ((0x34, 0, 0, 7), "div      #7"),
        ((0x3C, 0, 0, 0), "div      x"),
        ((0x44, 0, 0, 16), "or       #0x10"),
        ((0x4C, 0, 0, 0), "or       x"),
        ((0x54, 0, 0, 0xFFFFFFF0), "and      #0xfffffff0"),
        ((0x5C, 0, 0, 0), "and      x"),
        ((0x64, 0, 0, 31), "lsh      #31"),
        ((0x6C, 0, 0, 0), "lsh      x"),
        ((0x74, 0, 0, 31), "rsh      #31"),
        ((0x7C, 0, 0, 0), "rsh      x"),
        ((0x84, 0, 0, 0), "neg"),
        ((0x94, 0, 0, 3), "mod      #3"),
        ((0x9C, 0, 0, 0), "mod      x"),
        ((0xA4, 0, 0, 3), "xor      #0x3"),
        ((0xAC, 0, 0, 0), "xor      x"),
        ((0x05, 0, 0, 290), "ja       291"),
        ((0x15, 0, 255, 0), "jeq      #0x0             jt 1\tjf 256"),
        ((0x1D, 1, 2, 0), "jeq      x                jt 2\tjf 3"),
        ((0x25, 1, 2, 1500), "jgt      #0x5dc           jt 2\tjf 3"),
        ((0x2D, 1, 2, 0), "jgt      x                jt 2\tjf 3"),
        ((0x35, 1, 2, 1536), "jge      #0x600           jt 2\tjf 3"),
        ((0x3D, 1, 2, 0), "jge      x                jt 2\tjf 3"),
        ((0x45, 1, 2, 0x1FFF), "jset     #0x1fff          jt 2\tjf 3"),
        ((0x4D, 1, 2, 0), "jset     x                jt 2\tjf 3"),
        ((0x06, 0, 0, 262144), "ret      #262144"),
        ((0x06, 0, 0, 0xFFFFFFFF), "ret      #-1"),
        ((0x16, 0, 0, 0), "ret      a"),
        ((0x07, 0, 0, 0), "tax"),
        ((0x87, 0, 0, 0), "txa"),
        # What the instruction does not use is not shown.
        ((0x0C, 1, 2, 3), "add      x"),
        # What the kernel does not know: BPF_RET|BPF_X, eBPF's BPF_JNE, an upper half.
        ((0x0E, 0, 0, 0), "unimp    0xe              ; { 0xe, 0, 0, 0x00000000 }"),
        ((0x55, 1, 2, 3), "unimp    0x55             ; { 0x55, 1, 2, 0x00000003 }"),
        ((0xFF06, 9, 8, 7), "unimp    0xff06           ; { 0xff06, 9, 8, 0x00000007 }"),
    ],
)
def test_instruction(fields: Fields, shown: str) -> None:
    assert line(fields) == shown


ANCILLARY = {
    "SKF_AD_PROTOCOL": "proto", "SKF_AD_PKTTYPE": "type", "SKF_AD_IFINDEX": "ifidx",
    "SKF_AD_NLATTR": "nla", "SKF_AD_NLATTR_NEST": "nlan", "SKF_AD_MARK": "mark",
    "SKF_AD_QUEUE": "queue", "SKF_AD_HATYPE": "hatype", "SKF_AD_RXHASH": "rxhash",
    "SKF_AD_CPU": "cpu", "SKF_AD_ALU_XOR_X": "xor_x", "SKF_AD_VLAN_TAG": "vlan_tci",
    "SKF_AD_VLAN_TAG_PRESENT": "vlan_avail", "SKF_AD_PAY_OFFSET": "poff",
    "SKF_AD_RANDOM": "rand", "SKF_AD_VLAN_TPID": "vlan_tpid",
}  # fmt: skip


@pytest.mark.parametrize(("at", "name"), list(enumerate(ANCILLARY.values())))
def test_ancillary_data_have_names(at: int, name: str) -> None:
    k = 0xFFFFF000 + 4 * at
    assert line((0x20, 0, 0, k)) == f"ld       [{name}]"
    assert line((0x28, 0, 0, k)) == f"ldh      [{name}]"
    assert line((0x30, 0, 0, k)) == f"ldb      [{name}]"
    assert uses(packed((0x30, 0, 0, k))).ancillary == (name,)
    # Relative to X, it is a negative offset like any other.
    assert line((0x40, 0, 0, k)) == f"ld       [x + {k - (1 << 32)}]"
    assert not uses(packed((0x40, 0, 0, k))).ancillary


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ((0x30, 0, 0, 0xFFF00009), "ldb      [-1048567]       ; SKF_NET_OFF + 9"),
        ((0x28, 0, 0, 0xFFE0000C), "ldh      [-2097140]       ; SKF_LL_OFF + 12"),
        ((0x40, 0, 0, 0xFFF00000), "ld       [x + -1048576]   ; SKF_NET_OFF + 0"),
        ((0xB1, 0, 0, 0xFFF00000), "ldxb     4*([-1048576]&0xf) ; SKF_NET_OFF + 0"),
        ((0x20, 0, 0, 0xFFFFEFFF), "ld       [-4097]          ; SKF_NET_OFF + 1044479"),
        ((0x20, 0, 0, 0xFFDFFFFF), "ld       [-2097153]"),
        # Within SKF_AD_OFF, but nothing is there.
        ((0x20, 0, 0, 0xFFFFF001), "ld       [-4095]          ; SKF_AD_OFF + 1"),
        ((0x20, 0, 0, 0xFFFFF040), "ld       [-4032]          ; SKF_AD_OFF + 64"),
        # A number, not a place.
        ((0x00, 0, 0, 0xFFF00009), "ld       #0xfff00009"),
    ],
)
def test_what_negative_offsets_count_from(fields: Fields, shown: str) -> None:
    assert line(fields) == shown


def test_jumps_out_of_the_filter_are_marked() -> None:
    filters = packed((0x15, 0, 3, 1), (0x25, 1, 2, 1), (0x05, 0, 0, 1), (0x05, 0, 0, 2**32 - 1))
    assert text_of(filters) == (
        "(000) jeq      #0x1             jt 1\tjf 4 ; out of range\n"
        "(001) jgt      #0x1             jt 3\tjf 4 ; out of range\n"
        "(002) ja       4                ; out of range\n"
        "(003) ja       3                ; out of range\n"
    )
    assert uses(filters).out_of_range == 4
    assert uses(filters + packed(RETURN_0)).out_of_range == 1


def test_an_incomplete_instruction_says_so() -> None:
    filters = packed(RETURN_0) + b"\x06\0\x1b"
    assert text_of(filters) == (
        "(000) ret      #0\n(001) incomplete: 3 of 8 bytes, 06001b\n"
    )  # fmt: skip
    assert (uses(filters).count, uses(filters).incomplete) == (1, 3)


def test_numbers_beyond_three_digits_do_not_move_what_is_behind() -> None:
    last = list(lines(packed(*[(0x15, 0, 0, 5)] * 1001, RETURN_0)))[1000]
    assert last == "(1000) jeq      #0x5             jt 1001\tjf 1001"


# --- Lines of filters for seccomp(2) ---------------------------------------------------------


def test_a_filter_for_seccomp() -> None:
    filters = packed(*SECCOMP)
    assert text_of(filters) == SECCOMP_LINES
    assert text_of(filters, seccomp=True) == SECCOMP_LINES
    plain = [each.partition(" ;")[0].rstrip() for each in lines(filters, seccomp=False)]
    assert plain[1] == "(001) jeq      #0xc000003e      jt 3\tjf 2"
    assert plain[13] == "(013) ret      #2147418112"


@pytest.mark.parametrize(
    ("k", "shown"),
    [
        (0x80000000, "SECCOMP_RET_KILL_PROCESS"),
        (0x00000000, "SECCOMP_RET_KILL_THREAD"),
        (0x00030000, "SECCOMP_RET_TRAP(0)"),
        (0x00050000, "SECCOMP_RET_ERRNO(0)"),
        (0x00050001, "SECCOMP_RET_ERRNO(1)"),
        (0x7FC00000, "SECCOMP_RET_USER_NOTIF"),
        (0x7FF0FFFF, "SECCOMP_RET_TRACE(65535)"),
        (0x7FFC0000, "SECCOMP_RET_LOG"),
        (0x7FFF0000, "SECCOMP_RET_ALLOW"),
        (0x7FFF0002, "SECCOMP_RET_ALLOW(2)"),
        (0x00040000, "SECCOMP_RET_???"),
        (0xFFFFFFFF, "SECCOMP_RET_???(65535)"),
    ],
)
def test_actions(k: int, shown: str) -> None:
    assert line((6, 0, 0, k), seccomp=True) == f"ret      {f'#{k:#x}':<16} ; {shown}"


def test_each_word_of_seccomp_data_has_a_name() -> None:
    shown = [line((0x20, 0, 0, at), seccomp=True) for at in range(0, 68, 4)]
    low, high = ("low", "high") if SOCK_FILTER.pack(1, 0, 0, 0)[0] else ("high", "low")
    pairs = ["instruction_pointer", *(f"args[{number}]" for number in range(6))]
    names = ["nr", "arch", *(f"{name} {half}" for name in pairs for half in (low, high))]
    operands = [f"[{at}]" for at in range(0, 64, 4)]
    expected = zip(operands, names, strict=True)
    assert shown[:16] == [f"ld       {operand:<16} ; {name}" for operand, name in expected]
    assert shown[16] == "ld       [64]"  # behind the end
    assert line((0x20, 0, 0, 2), seccomp=True) == "ld       [2]"
    assert line((0x28, 0, 0, 4), seccomp=True) == "ldh      [4]"


def arch_lines(*before: Fields) -> str:
    """What becomes of ``jeq #AUDIT_ARCH_I386`` behind these instructions."""
    filters = packed(*before, (0x15, 0, 0, 0x40000003), ALLOW)
    return list(lines(filters, seccomp=True))[len(before)].partition(" ; ")[2]


def test_an_architecture_is_named_where_it_is_one() -> None:
    """0x40000003 is also the number of close(2) of x32."""
    arch, nr = (0x20, 0, 0, 4), (0x20, 0, 0, 0)
    assert arch_lines(arch) == "AUDIT_ARCH_I386"
    assert arch_lines(nr, arch, (0x02, 0, 0, 1), (0x01, 0, 0, 1), (0x07, 0, 0, 0)) != ""
    assert arch_lines(arch, (0x15, 0, 1, 0xC000003E), (0x45, 0, 0, 1)) != ""
    assert arch_lines(nr) == ""
    assert arch_lines() == ""
    assert arch_lines(arch, nr) == ""
    assert arch_lines(arch, (0x54, 0, 0, 0x40000003)) == ""
    assert arch_lines(arch, (0x87, 0, 0, 0)) == ""
    # On one of two ways, A holds something else.
    assert arch_lines(arch, (0x15, 0, 1, 0xC000003E), nr) == ""
    assert arch_lines(nr, (0x15, 0, 1, 1), arch) == ""
    # The one in between is jumped over; it is not on the way.
    assert arch_lines(arch, (0x05, 0, 0, 1), nr) == "AUDIT_ARCH_I386"
    assert arch_lines(arch, (0x15, 1, 0, 0xC000003E), RETURN_0) == "AUDIT_ARCH_I386"


# --- The guess -------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [0x80000000, 0x30007, 0x50000, 0x7FC00000, 0x7FFF0000])
def test_what_looks_like_seccomp(action: int) -> None:
    assert looks_like_seccomp(packed(*SECCOMP, (6, 0, 0, action)))
    assert looks_like_seccomp(packed((0x20, 0, 0, 60), RETURN_0, (6, 0, 0, action)))
    assert uses(packed((6, 0, 0, action))).kind == "seccomp"


@pytest.mark.parametrize(
    "insn",
    [
        (0x28, 0, 0, 12),  # half a word
        (0x20, 0, 0, 2),  # not aligned
        (0x20, 0, 0, 64),  # behind the end
        (0x20, 0, 0, 0xFFFFF024),  # SKF_AD_CPU
        (0x40, 0, 0, 0),  # relative to X
        (0xB1, 0, 0, 14),
        (0x94, 0, 0, 3),  # seccomp_check_filter() has no BPF_MOD
        (0x0E, 0, 0, 0),
        (0x06, 0, 0, 262144),
        (0x06, 0, 0, 0x7FFFFFFF),  # SECCOMP_RET_ALLOW, but for the data
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 96),
    ],
)
def test_what_does_not(insn: Fields) -> None:
    assert not looks_like_seccomp(packed(*SECCOMP, insn))


def test_a_filter_that_returns_only_zero_is_no_sign() -> None:
    for filters in (b"", packed(RETURN_0), packed((0x20, 0, 0, 0), (0x15, 0, 0, 5), RETURN_0)):
        assert not looks_like_seccomp(filters)
        assert uses(filters).kind == "socket"


# --- What is in a filter ---------------------------------------------------------------------


def test_uses() -> None:
    assert uses(packed(*SECCOMP)) == cbpf.Uses(
        kind="seccomp",
        count=14,
        incomplete=0,
        compared=(0xC000003E, 0x40000000, 59, 41, 16),
        returns=(0x80000000, 0, 0x5000D, 0x50061, 0x7FFF0000),
        left_out=0,
        returns_a=False,
        ancillary=(),
        out_of_range=0,
    )
    # jgt x has a k that counts for nothing; each constant is there once.
    filters = packed(
        (0x30, 0, 0, 0xFFFFF030), (0x45, 0, 0, 7), (0x2D, 0, 0, 8), (0x15, 0, 0, 7),
        (0x20, 0, 0, 0xFFFFF024), (0x30, 0, 0, 0xFFFFF030), (0x16, 0, 0, 9),
    )  # fmt: skip
    found = uses(filters)
    assert (found.compared, found.returns, found.returns_a) == ((7,), (), True)
    assert found.ancillary == ("vlan_avail", "cpu")


def test_constants_that_are_left_out_are_counted() -> None:
    found = uses(packed(*((0x15, 0, 0, k) for k in range(100)), *((6, 0, 0, k) for k in range(65))))
    assert found.compared == found.returns == tuple(range(64))
    assert found.left_out == 37


def test_the_hash_is_that_of_all_bytes() -> None:
    filters = packed(*SECCOMP) + b"\x01"
    assert sha256(filters) == hashlib.sha256(filters).hexdigest()


# --- Files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"2\n40 0 0 12\n6 0 0 4294967295\n",
        b"2\r\n40 0 0 12\r\n6 0 0 4294967295\r\n",
        b"\n2\n\n 40 0\t0  12\n6 0 0 4294967295",
        b"2,40 0 0 12,6 0 0 4294967295",
        b"2,40 0 0 12,6 0 0 4294967295,\n",
        b"2,\n40 0 0 12,\n6 0 0 4294967295\n",
        b"2\n0x28 0 0 0xC\n6 0 0 0xffffffff\n",
        b"{ 0x28, 0, 0, 0x0000000c },\n{ 0x6, 0, 0, 0xffffffff },\n",
        b"{ 0x28,  0,  0, 0x0000000c },\n{ 0x06,  0,  0, 0xffffffff }",
        b"\n {0x28,0,0,12},{6,0,0,4294967295}\n\n",
        b"{ 0x28,\n0, 0,\n12 }\n,\n{ 6, 0, 0, 0xffffffff }",
    ],
)
def test_text_is_read(data: bytes) -> None:
    assert parse(data) == packed((0x28, 0, 0, 12), (6, 0, 0, 0xFFFFFFFF))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1: there are no instructions"),
        (b" \n\t\n", "line 1: there are no instructions"),
        (b"0\n", "line 1: there are no instructions"),
        (b"\nhello\n",
         "line 2: expected the number of instructions or { code, jt, jf, k }, found 'hello'"),
        (b"\xef\xbb\xbf1\n6 0 0 0\n",
         "line 1: expected the number of instructions or { code, jt, jf, k },"
         r" found '\\xef\\xbb\\xbf1'"),
        (b"6 0 0 0\n",
         "line 1: expected the number of instructions or { code, jt, jf, k }, found '6 0 0 0'"),
        (b"3\n6 0 0 0\n", "line 1: 3 instructions are announced, 1 follow"),
        (b"1,6 0 0 0,6 0 0 0", "line 1: 1 instructions are announced, 2 follow"),
        (b"1\n6 0 0\n", "line 2: expected code, jt, jf and k, found '6 0 0'"),
        (b"1\n6 0 0 0 0\n", "line 2: expected code, jt, jf and k, found '6 0 0 0 0'"),
        (b"1\n6 0 0 -1\n", "line 2: expected code, jt, jf and k, found '6 0 0 -1'"),
        (b"1\n6 0 0 010\n", "line 2: expected code, jt, jf and k, found '6 0 0 010'"),
        (b"2,6 0 0 0,,6 0 0 0", "line 1: expected code, jt, jf and k, found nothing"),
        (b"1\n65536 0 0 0\n", "line 2: code is 65536, more than 65535"),
        (b"1\n6 256 0 0\n", "line 2: jt is 256, more than 255"),
        (b"1\n6 0 256 0\n", "line 2: jf is 256, more than 255"),
        (b"1\n6 0 0 4294967296\n", "line 2: k is 4294967296, more than 4294967295"),
        (b"{ 6, 0, 0, 0 },\n{ 6, 0, 0 },\n",
         "line 2: expected { code, jt, jf, k }, found '{ 6, 0, 0 },'"),
        (b"{ 6, 0, 0, 0 }\n{ 6, 0, 0, 0 }\n",
         "line 2: expected a comma between instructions, found '{ 6, 0, 0, 0 }'"),
        (b"{ 6, 0,\n0, 256 },\n\n{ 6, 256, 0, 0 }", "line 4: jt is 256, more than 255"),
        (b"{ 6, 0, 0, 0 };", "line 1: expected a comma between instructions, found ';'"),
    ],
)  # fmt: skip
def test_what_is_no_filter_says_why(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        parse(data)


def test_bytes_with_a_nul_are_a_filter_already() -> None:
    for data in (packed(RETURN_0), packed(RETURN_0) + b"\x01", b"\0", b"1\n6 0 0 0\0"):
        assert parse(data) is data


@pytest.mark.parametrize("start", [b"{", b"{ 6, 0, 0, 0", b"1\n", b"1\n6 0 0 ", b"1,", b""])
@pytest.mark.parametrize("filling", [b" ", b"\n", b",", b"7", b"{", b"0x", b"7 ", b"{7,"])
def test_long_nonsense_takes_no_longer_than_it_is(start: bytes, filling: bytes) -> None:
    """Were it the square of its length, this would take hours."""
    with pytest.raises(ValueError, match=r"^line \d+: "):
        parse(start + filling * 300_000 + b"!")


# --- Any bytes -------------------------------------------------------------------------------

K = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(2**32 - 4200, 2**32 - 1))
CODE = st.one_of(st.integers(0, 0xFFFF), st.sampled_from(sorted(cbpf._FORMS)))
BYTE = st.integers(0, 255)
INSNS = st.lists(st.tuples(CODE, BYTE, BYTE, K), max_size=40)
FILTERS = st.one_of(st.binary(max_size=400), INSNS.map(lambda insns: packed(*insns)))


@given(FILTERS, st.sampled_from([None, False, True]))
def test_each_instruction_has_a_line(filters: bytes, seccomp: bool | None) -> None:
    shown = list(lines(filters, seccomp=seccomp))
    assert len(shown) == -(-len(filters) // SOCK_FILTER.size)
    for number, each in enumerate(shown):
        assert each.startswith(f"({number:03}) ")
        assert each.replace("\t", "").isprintable()
        assert each == each.rstrip()


@given(FILTERS)
def test_any_bytes_have_uses(filters: bytes) -> None:
    found = uses(filters)
    assert found.count * SOCK_FILTER.size + found.incomplete == len(filters)
    assert found.kind == ("seccomp" if looks_like_seccomp(filters) else "socket")
    assert found.out_of_range == sum("out of range" in each for each in lines(filters))
    assert sha256(filters) == hashlib.sha256(filters).hexdigest()


SPELLINGS = {
    "-ddd": ("{count}\n", "{0} {1} {2} {3}\n"),
    "-dd": ("", "{{ {0:#x}, {1}, {2}, {3:#010x} }},\n"),
    "--bytecode": ("{count}", ",{0} {1} {2} {3}"),
    "bpf_asm": ("{count},", "{0} {1} {2} {3},"),
    "bpf_asm -c": ("", "{{ {0:#04x}, {1:2}, {2:2}, {3:#010x} }},\n"),
}


@pytest.mark.parametrize("form", SPELLINGS)
@given(insns=INSNS.filter(bool))
def test_what_is_printed_reads_back(form: str, insns: list[Fields]) -> None:
    head, each = SPELLINGS[form]
    text = head.format(count=len(insns)) + "".join(each.format(*fields) for fields in insns)
    assert parse(text.encode()) == packed(*insns)


@given(st.one_of(st.binary(), st.text("0123456789abx{}, \n").map(str.encode)))
def test_any_bytes_are_read_or_refused_in_one_line(data: bytes) -> None:
    said = ""
    try:
        filters = parse(data)
    except ValueError as refusal:
        said = str(refusal)
        filters = data
    if filters is not data:
        assert len(filters) % SOCK_FILTER.size == 0
        assert filters
    elif b"\0" not in data:
        assert re.fullmatch(r"line \d+: [ -~]+", said)


# --- Headers ---------------------------------------------------------------------------------


def test_tables_are_what_the_headers_say() -> None:
    claims = [f"{name} == {value}u" for value, name in cbpf._ACTIONS.items()]
    claims += [f"{name} == {value}u" for value, name in cbpf._ARCHES.items()]
    claims += [f"SECCOMP_RET_DATA == {cbpf._RET_DATA}"]
    claims += [f"{name} == {value}" for value, name in cbpf._BASES.items()]
    offsets = [at for at, name in cbpf._ANCILLARY.items() if name in ANCILLARY.values()]
    for at, name in zip(offsets, ANCILLARY, strict=True):
        claims.append(f"(unsigned)(SKF_AD_OFF + {name}) == {at}u")
    for at, name in cbpf._SECCOMP_DATA.items():
        member, _, half = name.partition(" ")
        later = 4 if half and half != cbpf._HALVES[0] else 0
        claims.append(f"__builtin_offsetof(struct seccomp_data, {member}) + {later} == {at}")
    claims.append(f"sizeof(struct sock_filter) == {SOCK_FILTER.size}")
    claims += [f"({opcode(code)}) == {code}" for code in cbpf._FORMS]
    headers = [f"#include <linux/{name}.h>" for name in ("audit", "filter", "seccomp")]
    asserts = [f'_Static_assert({claim}, "");' for claim in claims]
    done = subprocess.run(
        ["gcc", "-x", "c", "-fsyntax-only", "-"],
        input="\n".join([*headers, *asserts]), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def opcode(code: int) -> str:
    """Its C, from how it is shown."""
    mnemonic, _, operand = line((code, 0, 0, 0)).partition(" ")
    source = "BPF_X" if operand.strip().startswith("x ") or operand.strip() == "x" else "BPF_K"
    if mnemonic.startswith("ld"):
        base = "BPF_LDX" if mnemonic.startswith("ldx") else "BPF_LD"
        size = {"h": "BPF_H", "b": "BPF_B"}.get(mnemonic.removeprefix("ldx")[-1:], "BPF_W")
        modes = {"#0x0": "IMM", "#pktlen": "LEN", "M[0]": "MEM", "[0]": "ABS", "[x + 0]": "IND"}
        return f"{base} | {size} | BPF_{modes.get(operand.strip(), 'MSH')}"
    if mnemonic == "ret":
        return "BPF_RET | BPF_A" if operand.strip() == "a" else "BPF_RET | BPF_K"
    if mnemonic in ("tax", "txa"):
        return f"BPF_MISC | BPF_{mnemonic.upper()}"
    if mnemonic in ("st", "stx"):
        return f"BPF_{mnemonic.upper()}"
    kind = "BPF_JMP" if mnemonic.startswith("j") else "BPF_ALU"
    return f"{kind} | BPF_{mnemonic.upper()} | {source}"
