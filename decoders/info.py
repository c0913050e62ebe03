# SPDX-License-Identifier: Apache-2.0
"""What BPF_OBJ_GET_INFO_BY_FD gives: ``struct bpf_map_info``, ``bpf_prog_info``,
``bpf_link_info`` and ``bpf_btf_info`` of linux/bpf.h, as of Linux 7.2.

Pointers in them lead to memory of the caller, which is not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..events.call import Blob, ObjectKind
from ..events.memory import Verbose
from ..events.value import (
    JSON,
    Hex,
    IfIndex,
    Item,
    Items,
    Kind,
    Signed,
    Style,
    items_document,
    items_text,
)
from . import uapi
from .layout import (
    CType,
    Field,
    Layout,
    Row,
    Rows,
    grouped,
    nested,
    obj_name,
    pointer,
    s32,
    u32,
    u64,
)


class _Tag(Kind):
    """``__u8 tag[8]``, as bpftool shows it."""

    schema = {"type": "string", "pattern": "^[0-9a-f]*$"}

    def text(self, value: bytes, style: Style) -> str:
        return value.hex()

    def document(self, value: bytes) -> JSON:
        return value.hex()


MAP: Final = (
    u32("type", uapi.MAP_TYPE), u32("id"), u32("key_size"), u32("value_size"),
    u32("max_entries"), u32("map_flags", uapi.MAP_FLAGS), obj_name("name"),
    u32("ifindex", IfIndex()), u32("btf_vmlinux_value_type_id"),
    u64("netns_dev", Hex()), u64("netns_ino"),
    u32("btf_id"), u32("btf_key_type_id"), u32("btf_value_type_id"), u32("btf_vmlinux_id"),
    u64("map_extra", Hex()), u64("hash", Hex()), u32("hash_size"),
)  # fmt: skip

PROG: Final = (
    u32("type", uapi.PROG_TYPE), u32("id"), Field("tag", CType("8s", 8, 1), _Tag()),
    u32("jited_prog_len"), u32("xlated_prog_len"),
    pointer("jited_prog_insns"), pointer("xlated_prog_insns"),
    u64("load_time"), u32("created_by_uid"), u32("nr_map_ids"), pointer("map_ids"),
    obj_name("name"), u32("ifindex", IfIndex()), u32("gpl_compatible"),
    u64("netns_dev", Hex()), u64("netns_ino"),
    u32("nr_jited_ksyms"), u32("nr_jited_func_lens"), pointer("jited_ksyms"),
    pointer("jited_func_lens"),
    u32("btf_id"), u32("func_info_rec_size"), pointer("func_info"), u32("nr_func_info"),
    u32("nr_line_info"), pointer("line_info"), pointer("jited_line_info"),
    u32("nr_jited_line_info"), u32("line_info_rec_size"), u32("jited_line_info_rec_size"),
    u32("nr_prog_tags"), pointer("prog_tags"),
    u64("run_time_ns"), u64("run_cnt"), u64("recursion_misses"), u32("verified_insns"),
    u32("attach_btf_obj_id"), u32("attach_btf_id"),
)  # fmt: skip

_MAP: Final = grouped(MAP, "ifindex", "netns_dev", "btf_id", "btf_vmlinux_id", "map_extra", "hash")
_PROG: Final = grouped(
    PROG, "load_time", "ifindex", "netns_dev", "nr_jited_ksyms", "btf_id", "run_time_ns",
    "recursion_misses", "verified_insns", "attach_btf_obj_id",
)  # fmt: skip

_BTF: Final[Rows] = [
    [pointer("btf"), u32("btf_size"), u32("id")],
    [pointer("name"), u32("name_len"), u32("kernel_btf")],
]

_LINK: Final[Rows] = [[u32("type", uapi.LINK_TYPE), u32("id"), u32("prog_id")]]

_COOKIE: Final = u64("cookie", Hex())
_AT: Final = u32("attach_type", uapi.ATTACH_TYPE)
_TO_DEVICE: Final[Sequence[Row]] = [u32("ifindex", IfIndex()), _AT]

_ARMS: Final[Mapping[str, Rows]] = {
    "RAW_TRACEPOINT": [[pointer("tp_name"), u32("tp_name_len")], _COOKIE],
    "TRACING": [[_AT, u32("target_obj_id"), u32("target_btf_id")], _COOKIE],
    "CGROUP": [[u64("cgroup_id"), _AT]],
    "ITER": [[pointer("target_name"), u32("target_name_len"), u32("map_id")]],
    "NETNS": [[u32("netns_ino"), _AT]],
    "XDP": [[u32("ifindex", IfIndex())]],
    "KPROBE_MULTI": [
        [pointer("addrs"), u32("count"), u32("flags", uapi.KPROBE_MULTI_FLAGS)],
        u64("missed"), pointer("cookies"),
    ],
    "STRUCT_OPS": [[u32("map_id")]],
    "NETFILTER": [[
        u32("pf"), u32("hooknum"), s32("priority", Signed()),
        u32("flags", uapi.NETFILTER_FLAGS),
    ]],
    "TCX": [_TO_DEVICE],
    "UPROBE_MULTI": [[
        pointer("path"), pointer("offsets"), pointer("ref_ctr_offsets"), pointer("cookies"),
        u32("path_size"), u32("count"), u32("flags", uapi.UPROBE_MULTI_FLAGS), u32("pid"),
    ]],
    "NETKIT": [_TO_DEVICE],
    "SOCKMAP": [[u32("map_id"), _AT]],
}  # fmt: skip

_UPROBE: Final[Rows] = [
    [pointer("file_name"), u32("name_len"), u32("offset", Hex())], _COOKIE,
    u64("ref_ctr_offset", Hex()),
]  # fmt: skip
_KPROBE: Final[Rows] = [
    [pointer("func_name"), u32("name_len"), u32("offset", Hex()), u64("addr", Hex())],
    u64("missed"), _COOKIE,
]  # fmt: skip
_PERF: Final[Mapping[str, tuple[str, Rows]]] = {
    "UPROBE": ("uprobe", _UPROBE),
    "URETPROBE": ("uprobe", _UPROBE),
    "KPROBE": ("kprobe", _KPROBE),
    "KRETPROBE": ("kprobe", _KPROBE),
    "TRACEPOINT": ("tracepoint", [[pointer("tp_name"), u32("name_len")], _COOKIE]),
    "EVENT": ("event", [[u64("config", Hex()), u32("type")], _COOKIE]),
}
_PERF_EVENT: Final = "PERF_EVENT"

_UNION: Final = 16  # where it begins in struct bpf_link_info
_PERF_TYPE: Final = Layout([[u32("type", uapi.PERF_EVENT_TYPE)]], _UNION)
_PERF_UNION: Final = 24
_PERF_ARMS: Final = {kind: (name, Layout(rows, _PERF_UNION))
                     for kind, (name, rows) in _PERF.items()}  # fmt: skip
_LINK_ARMS: Final = {kind: Layout(rows, _UNION) for kind, rows in _ARMS.items()}


def _schema(*layouts: Layout) -> dict[str, JSON]:
    properties: dict[str, JSON] = {}
    for field in (field for layout in layouts for slot in layout.slots for field in slot.fields):
        known = properties.get(field.name, field.kind.schema)
        same = known == field.kind.schema
        properties[field.name] = known if same else {"type": known["type"]}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _fields_schema() -> dict[str, JSON]:
    whole = _schema(*map(Layout, (_MAP, _PROG, _LINK, _BTF)))
    arms = {kind.lower(): _schema(layout) for kind, layout in _LINK_ARMS.items()}
    perf = _schema(_PERF_TYPE)
    perf["properties"] |= {name: _schema(layout) for name, layout in _PERF_ARMS.values()}
    whole["properties"] |= arms | {_PERF_EVENT.lower(): perf}
    return whole


class AnyInfo(Verbose):
    """One of these structs, of nobody knows which kind."""

    schema = {**Verbose.schema, "fields": _fields_schema()}

    def document(self, blob: Blob) -> dict[str, JSON]:
        return {"hex": blob.data.hex(), "fields": items_document(self.items(blob.data))}

    def items(self, data: bytes) -> Items:
        """The fields that are in so many bytes."""
        return ()


ANY: Final = AnyInfo()


class Info(AnyInfo):
    """One of these structs.

    :param rows: those that it has whatever it is about.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.layout: Final = Layout(rows)

    def text(self, blob: Blob, style: Style, dots: str) -> str:
        if not style.verbose:
            return ""
        spelled = items_text(self.items(blob.data), style)
        return f"{{{spelled}}}" if spelled else super().text(blob, style, dots)

    def items(self, data: bytes) -> Items:
        return _read(self.layout, data)


class _LinkInfo(Info):
    def items(self, data: bytes) -> Items:
        items = super().items(data)
        if len(data) <= _UNION or not items:
            return items
        kind = uapi.LINK_TYPE.names.get(items[0].value, "").removeprefix("BPF_LINK_TYPE_")
        return (*items, *_arm(kind, data))


def _arm(kind: str, data: bytes) -> Iterator[Item]:
    if kind in _LINK_ARMS:
        yield nested(kind.lower(), _read(_LINK_ARMS[kind], data))
    elif kind == _PERF_EVENT:
        about = _read(_PERF_TYPE, data)
        what = uapi.PERF_EVENT_TYPE.names.get(about[0].value, "") if about else ""
        arm = _PERF_ARMS.get(what.removeprefix("BPF_PERF_EVENT_"))
        if arm and len(data) > _PERF_UNION:
            about = (*about, nested(arm[0], _read(arm[1], data)))
        yield nested(kind.lower(), about)


def _read(layout: Layout, data: bytes) -> Items:
    plan = layout.plan(len(data), len(data))
    raw = plan.unpack(data)
    return plan.items(raw, raw)[0]


CONTENTS: Final[Mapping[int, Info]] = {
    ObjectKind.MAP: Info(_MAP),
    ObjectKind.PROG: Info(_PROG),
    ObjectKind.LINK: _LinkInfo(_LINK),
    ObjectKind.BTF: Info(_BTF),
}
"""By kind of object."""
