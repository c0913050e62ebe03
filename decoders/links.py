# SPDX-License-Identifier: Apache-2.0
"""Commands on links, and every arm of the union that ends LINK_CREATE."""

from ..events.value import Hex, IfIndex, Kind, Signed
from . import uapi
from .layout import (
    U32,
    U64,
    Arm,
    Command,
    Condition,
    Union,
    Values,
    among,
    array,
    data,
    fd,
    has,
    never,
    path,
    pointer,
    s32,
    strings,
    u32,
    u64,
)

_RELATIVE = [[
    Union(
        u32("relative_id", when=has("flags", uapi.BPF_F_ID)),
        fd("relative_fd", zero=has("flags", uapi.BPF_F_LINK)),
    ),
    u64("expected_revision", Hex()),
]]  # fmt: skip

_ITER = [[pointer("iter_info", data("iter_info_len", limit=64)), u32("iter_info_len")]]
_MULTI_COOKIES = pointer("cookies", array(Hex(), U64, "cnt"))


def _cgroup_in_order(values: Values) -> bool:
    placed = values["flags"] & (uapi.BPF_F_BEFORE | uapi.BPF_F_AFTER)
    return values["attach_type"] in uapi.CGROUP and bool(placed)


def _to(attach_types: frozenset[int]) -> Condition:
    return among("attach_type", attach_types)


# Which arm it is depends on the program's type, which attr does not tell; the
# attach type does, but for the program that replaces another (BPF_PROG_TYPE_EXT),
# whose attach type is 0, that of a cgroup program.
_ARMS = (
    Arm(_to(uapi.TCX), _RELATIVE, "tcx"),
    Arm(_to(uapi.NETKIT), _RELATIVE, "netkit"),
    Arm(_cgroup_in_order, _RELATIVE, "cgroup"),
    Arm(_to(uapi.CGROUP), [u32("target_btf_id", when=lambda v: v["target_btf_id"] != 0)]),
    Arm(_to(uapi.ITER), _ITER),
    Arm(_to(uapi.PERF_EVENT), [u64("bpf_cookie", Hex())], "perf_event"),
    Arm(_to(uapi.TRACING), [[u32("target_btf_id"), u64("cookie", Hex())]], "tracing"),
    Arm(
        _to(uapi.TRACING_MULTI),
        [[pointer("ids", array(Kind(), U32, "cnt")), _MULTI_COOKIES, u32("cnt")]],
        "tracing_multi",
    ),
    Arm(
        _to(uapi.NETFILTER),
        [[
            u32("pf"),
            u32("hooknum"),
            s32("priority", Signed()),
            u32("flags", uapi.NETFILTER_FLAGS),
        ]],
        "netfilter",
    ),
    Arm(
        _to(uapi.KPROBE_MULTI),
        [[
            u32("flags", uapi.KPROBE_MULTI_FLAGS),
            u32("cnt"),
            pointer("syms", strings("cnt")),
            pointer("addrs", array(Hex(), U64, "cnt")),
            _MULTI_COOKIES,
        ]],
        "kprobe_multi",
    ),
    Arm(
        _to(uapi.UPROBE_MULTI),
        [
            [
                pointer("path", path()),
                pointer("offsets", array(Hex(), U64, "cnt")),
                pointer("ref_ctr_offsets", array(Hex(), U64, "cnt")),
                _MULTI_COOKIES,
                u32("cnt"),
                u32("flags", uapi.UPROBE_MULTI_FLAGS),
                s32("pid", Signed()),
            ],
            fd("path_fd", zero=never),
        ],
        "uprobe_multi",
    ),
)  # fmt: skip

LINK_CREATE = Command(28, "BPF_LINK_CREATE", [[
    Union(
        fd("map_fd", when=among("attach_type", uapi.STRUCT_OPS)),
        fd("prog_fd"),
    ),
    Union(
        u32("target_ifindex", IfIndex(), when=among("attach_type", uapi.TO_NETDEV)),
        fd("target_fd"),
    ),
    u32("attach_type", uapi.ATTACH_TYPE),
    Union(
        u32("flags", uapi.XDP_FLAGS, when=among("attach_type", uapi.XDP)),
        u32("flags", uapi.ATTACH_FLAGS),
    ),
]], wrapper="link_create", arms=_ARMS, returns_fd=True, vital=True)  # fmt: skip

LINK_UPDATE = Command(29, "BPF_LINK_UPDATE", [[
    fd("link_fd"),
    fd("new_prog_fd"),
    u32("flags", uapi.ATTACH_FLAGS),
    fd("old_prog_fd", when=has("flags", uapi.BPF_F_REPLACE)),
]], wrapper="link_update", vital=True)  # fmt: skip

ITER_CREATE = Command(33, "BPF_ITER_CREATE", [[
    fd("link_fd"),
    u32("flags", uapi.NO_FLAGS),
]], wrapper="iter_create", returns_fd=True)  # fmt: skip

LINK_DETACH = Command(34, "BPF_LINK_DETACH", [fd("link_fd")], wrapper="link_detach", vital=True)

COMMANDS = (LINK_CREATE, LINK_UPDATE, ITER_CREATE, LINK_DETACH)
