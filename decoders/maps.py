# SPDX-License-Identifier: Apache-2.0
"""Commands on maps and their elements, as they stand in ``union bpf_attr``."""

from ..events.memory import KEYS, VALUES
from ..events.value import IfIndex, NumaNode, Wide
from ..events.wire import (
    CHUNK_MAX,
    COUNT_ONE,
    ROW_ENOENT,
    ROW_ENTRY,
    ROW_SUCCESS,
    UNIT_CURSOR,
    UNIT_KEY,
    UNIT_VALUE,
)
from . import uapi
from .layout import (
    ALWAYS,
    FILLED,
    U64,
    Command,
    Hole,
    Moment,
    Target,
    among,
    any_of,
    data,
    fd,
    has,
    key,
    never,
    obj_name,
    pointer,
    u32,
    u64,
    value,
)

_HAS_TYPES = any_of("btf_key_type_id", "btf_value_type_id", "btf_vmlinux_value_type_id")

MAP_CREATE = Command(0, "BPF_MAP_CREATE", [
    [
        u32("map_type", uapi.MAP_TYPE),
        u32("key_size"),
        u32("value_size"),
        u32("max_entries"),
    ],
    u32("map_flags", uapi.MAP_FLAGS),
    fd("inner_map_fd", zero=among("map_type", uapi.OF_MAPS)),
    u32("numa_node", NumaNode(), when=has("map_flags", uapi.BPF_F_NUMA_NODE)),
    obj_name("map_name"),
    u32("map_ifindex", IfIndex()),
    [
        fd("btf_fd", zero=_HAS_TYPES),
        u32("btf_key_type_id"),
        u32("btf_value_type_id"),
    ],
    u32("btf_vmlinux_value_type_id"),
    u64("map_extra", Wide("UINT64_MAX")),
    fd("value_type_btf_obj_fd", zero=has("map_flags", uapi.BPF_F_VTYPE_BTF_OBJ_FD)),
    fd("map_token_fd", zero=never),
    [
        pointer("excl_prog_hash", data("excl_prog_hash_size", limit=64)),
        u32("excl_prog_hash_size"),
    ],
], returns_fd=True)  # fmt: skip

_MAP_FD_KEY = [fd("map_fd"), pointer("key", key())]
_READ = [*_MAP_FD_KEY, pointer("value", value(ROW_SUCCESS))]
_WRITE = [*_MAP_FD_KEY, pointer("value", value(ALWAYS))]

MAP_LOOKUP_ELEM = Command(1, "BPF_MAP_LOOKUP_ELEM", [
    _READ,
    u64("flags", uapi.ELEM_FLAGS),
], data=True)  # fmt: skip

MAP_UPDATE_ELEM = Command(2, "BPF_MAP_UPDATE_ELEM", [
    [*_WRITE, u64("flags", uapi.UPDATE_ELEM_FLAGS)],
], data=True)  # fmt: skip

MAP_DELETE_ELEM = Command(3, "BPF_MAP_DELETE_ELEM", [_MAP_FD_KEY], data=True)

MAP_GET_NEXT_KEY = Command(4, "BPF_MAP_GET_NEXT_KEY", [
    [*_MAP_FD_KEY, pointer("next_key", key(ROW_SUCCESS))],
], data=True)  # fmt: skip

MAP_LOOKUP_AND_DELETE_ELEM = Command(21, "BPF_MAP_LOOKUP_AND_DELETE_ELEM", [
    _READ,
    u64("flags", uapi.ELEM_FLAGS),
], data=True)  # fmt: skip

MAP_FREEZE = Command(22, "BPF_MAP_FREEZE", [fd("map_fd")])

# Commands that do not use a pointer leave its bytes unread.
_UNUSED = Hole(U64)
_COUNT_AND_FD = [u32("count", moment=Moment.REPLY), fd("map_fd")]
_NO_FLAGS = u64("flags", uapi.NO_FLAGS)

_FOUND = FILLED | ROW_ENOENT  # at the end of the map there may be fewer than wanted
_CURSOR_MAX = 512


def _keys(when: int) -> Target:
    return data("count", CHUNK_MAX, when, unit=UNIT_KEY, content=KEYS)


def _values(when: int) -> Target:
    return data("count", CHUNK_MAX, when, unit=UNIT_VALUE, content=VALUES)


def _cursor(when: int) -> Target:
    return data(COUNT_ONE, _CURSOR_MAX, when, unit=UNIT_CURSOR)


_LOOKUP_BATCH = [[
    pointer("in_batch", _cursor(ROW_ENTRY)),
    pointer("out_batch", _cursor(ROW_SUCCESS)),
    pointer("keys", _keys(_FOUND)),
    pointer("values", _values(_FOUND)),
    *_COUNT_AND_FD,
    u64("elem_flags", uapi.ELEM_FLAGS),
    _NO_FLAGS,
]]  # fmt: skip

MAP_LOOKUP_BATCH = Command(24, "BPF_MAP_LOOKUP_BATCH", _LOOKUP_BATCH, wrapper="batch", data=True)

MAP_LOOKUP_AND_DELETE_BATCH = Command(
    25, "BPF_MAP_LOOKUP_AND_DELETE_BATCH", _LOOKUP_BATCH, wrapper="batch", data=True
)

MAP_UPDATE_BATCH = Command(26, "BPF_MAP_UPDATE_BATCH", [[
    _UNUSED,
    _UNUSED,
    pointer("keys", _keys(ALWAYS)),
    pointer("values", _values(ALWAYS)),
    *_COUNT_AND_FD,
    u64("elem_flags", uapi.UPDATE_ELEM_FLAGS),
    _NO_FLAGS,
]], wrapper="batch", data=True)  # fmt: skip

MAP_DELETE_BATCH = Command(27, "BPF_MAP_DELETE_BATCH", [[
    _UNUSED,
    _UNUSED,
    pointer("keys", _keys(ALWAYS)),
    _UNUSED,
    *_COUNT_AND_FD,
    u64("elem_flags", uapi.ELEM_FLAGS),
    _NO_FLAGS,
]], wrapper="batch", data=True)  # fmt: skip

COMMANDS = (
    MAP_CREATE,
    MAP_LOOKUP_ELEM,
    MAP_UPDATE_ELEM,
    MAP_DELETE_ELEM,
    MAP_GET_NEXT_KEY,
    MAP_LOOKUP_AND_DELETE_ELEM,
    MAP_FREEZE,
    MAP_LOOKUP_BATCH,
    MAP_LOOKUP_AND_DELETE_BATCH,
    MAP_UPDATE_BATCH,
    MAP_DELETE_BATCH,
)
