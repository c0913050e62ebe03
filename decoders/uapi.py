# SPDX-License-Identifier: Apache-2.0
"""Enums and flags of linux/bpf.h, as of Linux 7.2.

The constants of an enum stand in the order of the header, where position is
value; flags are bit: name. A test compiles all of them against a header and
against the running kernel's BTF. The few that the tables must tell apart have a
name in Python too.
"""

from ..events.value import Enum, Flags


def _enum(c_type: str, prefix: str, family: str, names: str) -> Enum:
    return Enum(c_type, family, dict(enumerate(prefix + name for name in names.split())))


MAP_TYPE = _enum("bpf_map_type", "BPF_MAP_TYPE_", "BPF_MAP_TYPE", """
    UNSPEC HASH ARRAY PROG_ARRAY PERF_EVENT_ARRAY PERCPU_HASH PERCPU_ARRAY STACK_TRACE
    CGROUP_ARRAY LRU_HASH LRU_PERCPU_HASH LPM_TRIE ARRAY_OF_MAPS HASH_OF_MAPS DEVMAP
    SOCKMAP CPUMAP XSKMAP SOCKHASH CGROUP_STORAGE REUSEPORT_SOCKARRAY
    PERCPU_CGROUP_STORAGE QUEUE STACK SK_STORAGE DEVMAP_HASH STRUCT_OPS
    RINGBUF INODE_STORAGE TASK_STORAGE BLOOM_FILTER USER_RINGBUF CGRP_STORAGE ARENA
    INSN_ARRAY RHASH
""")

PROG_TYPE = _enum("bpf_prog_type", "BPF_PROG_TYPE_", "BPF_PROG_TYPE", """
    UNSPEC SOCKET_FILTER KPROBE SCHED_CLS SCHED_ACT TRACEPOINT XDP PERF_EVENT CGROUP_SKB
    CGROUP_SOCK LWT_IN LWT_OUT LWT_XMIT SOCK_OPS SK_SKB CGROUP_DEVICE SK_MSG
    RAW_TRACEPOINT CGROUP_SOCK_ADDR LWT_SEG6LOCAL LIRC_MODE2 SK_REUSEPORT FLOW_DISSECTOR
    CGROUP_SYSCTL RAW_TRACEPOINT_WRITABLE CGROUP_SOCKOPT TRACING STRUCT_OPS EXT LSM
    SK_LOOKUP SYSCALL NETFILTER
""")

ATTACH_TYPE = _enum("bpf_attach_type", "BPF_", "BPF", """
    CGROUP_INET_INGRESS CGROUP_INET_EGRESS CGROUP_INET_SOCK_CREATE CGROUP_SOCK_OPS
    SK_SKB_STREAM_PARSER SK_SKB_STREAM_VERDICT CGROUP_DEVICE SK_MSG_VERDICT
    CGROUP_INET4_BIND CGROUP_INET6_BIND CGROUP_INET4_CONNECT CGROUP_INET6_CONNECT
    CGROUP_INET4_POST_BIND CGROUP_INET6_POST_BIND CGROUP_UDP4_SENDMSG
    CGROUP_UDP6_SENDMSG LIRC_MODE2 FLOW_DISSECTOR CGROUP_SYSCTL CGROUP_UDP4_RECVMSG
    CGROUP_UDP6_RECVMSG CGROUP_GETSOCKOPT CGROUP_SETSOCKOPT TRACE_RAW_TP TRACE_FENTRY
    TRACE_FEXIT MODIFY_RETURN LSM_MAC TRACE_ITER CGROUP_INET4_GETPEERNAME
    CGROUP_INET6_GETPEERNAME CGROUP_INET4_GETSOCKNAME CGROUP_INET6_GETSOCKNAME
    XDP_DEVMAP CGROUP_INET_SOCK_RELEASE XDP_CPUMAP SK_LOOKUP XDP SK_SKB_VERDICT
    SK_REUSEPORT_SELECT SK_REUSEPORT_SELECT_OR_MIGRATE PERF_EVENT TRACE_KPROBE_MULTI
    LSM_CGROUP STRUCT_OPS NETFILTER TCX_INGRESS TCX_EGRESS TRACE_UPROBE_MULTI
    CGROUP_UNIX_CONNECT CGROUP_UNIX_SENDMSG CGROUP_UNIX_RECVMSG CGROUP_UNIX_GETPEERNAME
    CGROUP_UNIX_GETSOCKNAME NETKIT_PRIMARY NETKIT_PEER TRACE_KPROBE_SESSION
    TRACE_UPROBE_SESSION TRACE_FSESSION TRACE_FENTRY_MULTI TRACE_FEXIT_MULTI
    TRACE_FSESSION_MULTI
""")

LINK_TYPE = _enum("bpf_link_type", "BPF_LINK_TYPE_", "BPF_LINK_TYPE", """
    UNSPEC RAW_TRACEPOINT TRACING CGROUP ITER NETNS XDP PERF_EVENT KPROBE_MULTI
    STRUCT_OPS NETFILTER TCX UPROBE_MULTI NETKIT SOCKMAP TRACING_MULTI
""")

PERF_EVENT_TYPE = _enum("bpf_perf_event_type", "BPF_PERF_EVENT_", "BPF_PERF_EVENT", """
    UNSPEC UPROBE URETPROBE KPROBE KRETPROBE TRACEPOINT EVENT
""")

FD_TYPE = _enum("bpf_task_fd_type", "BPF_FD_TYPE_", "BPF_FD_TYPE", """
    RAW_TRACEPOINT TRACEPOINT KPROBE KRETPROBE UPROBE URETPROBE
""")

STATS_TYPE = _enum("bpf_stats_type", "BPF_STATS_", "BPF_STATS", "RUN_TIME")

ENUMS = ("bpf_cmd", *(
    enum.c_type
    for enum in (
        MAP_TYPE, PROG_TYPE, ATTACH_TYPE, LINK_TYPE, PERF_EVENT_TYPE, FD_TYPE, STATS_TYPE,
    )
))
"""The C types of the enums, with that of the commands in table.py.

No table needs the types of links and perf events yet: they stand in what
BPF_OBJ_GET_INFO_BY_FD gives, behind a pointer.
"""


def attach_types(*names: str) -> frozenset[int]:
    wanted = {f"BPF_{name}" for name in names}
    found = frozenset(value for value, name in ATTACH_TYPE.names.items() if name in wanted)
    assert len(found) == len(wanted), f"misspelt attach type among {names}"
    return found


# What the meaning of other fields hangs on.
TO_NETDEV = attach_types("XDP", "TCX_INGRESS", "TCX_EGRESS", "NETKIT_PRIMARY", "NETKIT_PEER")
XDP = attach_types("XDP")
STRUCT_OPS = attach_types("STRUCT_OPS")
TCX = attach_types("TCX_INGRESS", "TCX_EGRESS")
NETKIT = attach_types("NETKIT_PRIMARY", "NETKIT_PEER")
NETFILTER = attach_types("NETFILTER")
PERF_EVENT = attach_types("PERF_EVENT")
ITER = attach_types("TRACE_ITER")
KPROBE_MULTI = attach_types("TRACE_KPROBE_MULTI", "TRACE_KPROBE_SESSION")
UPROBE_MULTI = attach_types("TRACE_UPROBE_MULTI", "TRACE_UPROBE_SESSION")
TRACING = attach_types(
    "TRACE_FENTRY", "TRACE_FEXIT", "TRACE_FSESSION", "MODIFY_RETURN", "LSM_MAC", "TRACE_RAW_TP"
)
TRACING_MULTI = attach_types("TRACE_FENTRY_MULTI", "TRACE_FEXIT_MULTI", "TRACE_FSESSION_MULTI")
CGROUP = frozenset(
    value for value, name in ATTACH_TYPE.names.items() if name.startswith("BPF_CGROUP_")
) | attach_types("LSM_CGROUP")



def _prog_types(names: str) -> frozenset[int]:
    wanted = {f"BPF_PROG_TYPE_{name}" for name in names.split()}
    found = frozenset(value for value, name in PROG_TYPE.names.items() if name in wanted)
    assert len(found) == len(wanted), f"misspelt program type in {names}"
    return found


# is_net_admin_prog_type() and is_perfmon_prog_type() of kernel/bpf/syscall.c: what loading one
# takes besides CAP_BPF.
NEEDS_NET_ADMIN = _prog_types("""
    SCHED_CLS SCHED_ACT XDP CGROUP_SOCK LWT_IN LWT_OUT LWT_XMIT SOCK_OPS SK_SKB CGROUP_DEVICE
    SK_MSG CGROUP_SOCK_ADDR LWT_SEG6LOCAL FLOW_DISSECTOR CGROUP_SYSCTL CGROUP_SOCKOPT EXT
    NETFILTER
""")
NEEDS_PERFMON = _prog_types("""
    KPROBE TRACEPOINT PERF_EVENT RAW_TRACEPOINT RAW_TRACEPOINT_WRITABLE TRACING STRUCT_OPS LSM
    EXT
""")

OF_MAPS = frozenset(value for value, name in MAP_TYPE.names.items() if name.endswith("_OF_MAPS"))

BPF_F_REPLACE = 1 << 2
BPF_F_BEFORE = 1 << 3
BPF_F_AFTER = 1 << 4
BPF_F_ID = 1 << 5
BPF_F_NUMA_NODE = 1 << 2
BPF_F_LINK = 1 << 13
BPF_F_VTYPE_BTF_OBJ_FD = 1 << 15
BPF_F_CPU = 1 << 3
BPF_F_ALL_CPUS = 1 << 4

_OBJECT_ACCESS = {
    1 << 3: "BPF_F_RDONLY",
    1 << 4: "BPF_F_WRONLY",
}
_TOKEN_FD = {1 << 16: "BPF_F_TOKEN_FD"}

MAP_FLAGS = Flags("BPF_F", {
    1 << 0: "BPF_F_NO_PREALLOC",
    1 << 1: "BPF_F_NO_COMMON_LRU",
    BPF_F_NUMA_NODE: "BPF_F_NUMA_NODE",
    **_OBJECT_ACCESS,
    1 << 5: "BPF_F_STACK_BUILD_ID",
    1 << 6: "BPF_F_ZERO_SEED",
    1 << 7: "BPF_F_RDONLY_PROG",
    1 << 8: "BPF_F_WRONLY_PROG",
    1 << 9: "BPF_F_CLONE",
    1 << 10: "BPF_F_MMAPABLE",
    1 << 11: "BPF_F_PRESERVE_ELEMS",
    1 << 12: "BPF_F_INNER_MAP",
    BPF_F_LINK: "BPF_F_LINK",
    1 << 14: "BPF_F_PATH_FD",
    BPF_F_VTYPE_BTF_OBJ_FD: "BPF_F_VTYPE_BTF_OBJ_FD",
    **_TOKEN_FD,
    1 << 17: "BPF_F_SEGV_ON_FAULT",
    1 << 18: "BPF_F_NO_USER_CONV",
    1 << 19: "BPF_F_RB_OVERWRITE",
})

# The header keeps these in the enum of the map flags.
_FILE_BITS = (1 << 3, 1 << 4, *(1 << bit for bit in range(14, 20)))
FILE_FLAGS = Flags("BPF_F", {bit: MAP_FLAGS.names[bit] for bit in _FILE_BITS})

OPEN_FLAGS = Flags("BPF_F", {**_OBJECT_ACCESS, **_TOKEN_FD})

PROG_FLAGS = Flags("BPF_F", {
    1 << 0: "BPF_F_STRICT_ALIGNMENT",
    1 << 1: "BPF_F_ANY_ALIGNMENT",
    1 << 2: "BPF_F_TEST_RND_HI32",
    1 << 3: "BPF_F_TEST_STATE_FREQ",
    1 << 4: "BPF_F_SLEEPABLE",
    1 << 5: "BPF_F_XDP_HAS_FRAGS",
    1 << 6: "BPF_F_XDP_DEV_BOUND_ONLY",
    1 << 7: "BPF_F_TEST_REG_INVARIANTS",
    **_TOKEN_FD,
})

ATTACH_FLAGS = Flags("BPF_F", {
    1 << 0: "BPF_F_ALLOW_OVERRIDE",
    1 << 1: "BPF_F_ALLOW_MULTI",
    BPF_F_REPLACE: "BPF_F_REPLACE",
    BPF_F_BEFORE: "BPF_F_BEFORE",
    BPF_F_AFTER: "BPF_F_AFTER",
    BPF_F_ID: "BPF_F_ID",
    1 << 6: "BPF_F_PREORDER",
    BPF_F_LINK: "BPF_F_LINK",
})

# XDP links take the flags of linux/if_link.h.
XDP_FLAGS = Flags("XDP_FLAGS", {
    1 << 0: "XDP_FLAGS_UPDATE_IF_NOEXIST",
    1 << 1: "XDP_FLAGS_SKB_MODE",
    1 << 2: "XDP_FLAGS_DRV_MODE",
    1 << 3: "XDP_FLAGS_HW_MODE",
    1 << 4: "XDP_FLAGS_REPLACE",
})

# strace prints these from the highest bit down; so do we.
_ELEM_ACCESS = {
    BPF_F_ALL_CPUS: "BPF_F_ALL_CPUS",
    BPF_F_CPU: "BPF_F_CPU",
    4: "BPF_F_LOCK",
}
ELEM_FLAGS = Flags("BPF", _ELEM_ACCESS, zero="BPF_ANY")
UPDATE_ELEM_FLAGS = Flags(
    "BPF", {**_ELEM_ACCESS, 2: "BPF_EXIST", 1: "BPF_NOEXIST"}, zero="BPF_ANY"
)

QUERY_FLAGS = Flags("BPF_F_QUERY", {1 << 0: "BPF_F_QUERY_EFFECTIVE"})

TEST_RUN_FLAGS = Flags("BPF_F_TEST", {
    1 << 0: "BPF_F_TEST_RUN_ON_CPU",
    1 << 1: "BPF_F_TEST_XDP_LIVE_FRAMES",
    1 << 2: "BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
})

KPROBE_MULTI_FLAGS = Flags("BPF_F_KPROBE_MULTI", {1 << 0: "BPF_F_KPROBE_MULTI_RETURN"})

UPROBE_MULTI_FLAGS = Flags("BPF_F_UPROBE_MULTI", {
    1 << 0: "BPF_F_UPROBE_MULTI_RETURN",
    1 << 1: "BPF_F_UPROBE_MULTI_PATH_FD",
})

NETFILTER_FLAGS = Flags("BPF_F_NETFILTER", {1 << 0: "BPF_F_NETFILTER_IP_DEFRAG"})

NO_FLAGS = Flags("", {})
"""Fields of which no bit has been defined yet."""
