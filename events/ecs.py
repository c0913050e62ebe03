# SPDX-License-Identifier: Apache-2.0
"""Events as documents: ECS field names plus the custom object ``bpf``.

events/schema.json describes every document that is made here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import orjson

from .call import Call, Totals
from .event import Event
from .notice import Notice
from .object import Described
from .process import Missing, Process
from .process_document import NOBODY, ProcessFacts, bpf_capable, capabilities, facts
from .text import errno_name
from .value import JSON, items_document, printable

ECS_VERSION = "8.17.0"

Document = dict[str, JSON]

_ECS = {"version": ECS_VERSION}

# What ECS's event.type says about each command. The category of all is api (they
# are system calls) and, where code enters or leaves the kernel, also driver.
_ACCESS, _CREATION, _CHANGE, _DELETION, _INFO, _START, _END = (
    ["access"], ["creation"], ["change"], ["deletion"], ["info"], ["start"], ["end"],
)  # fmt: skip
_TAKE = ["access", "deletion"]
_TYPES: Mapping[str, list[str]] = {
    "BPF_MAP_CREATE": _CREATION,
    "BPF_MAP_LOOKUP_ELEM": _ACCESS,
    "BPF_MAP_UPDATE_ELEM": _CHANGE,
    "BPF_MAP_DELETE_ELEM": _DELETION,
    "BPF_MAP_GET_NEXT_KEY": _ACCESS,
    "BPF_PROG_LOAD": _START,
    "BPF_OBJ_PIN": _CREATION,
    "BPF_OBJ_GET": _ACCESS,
    "BPF_PROG_ATTACH": _START,
    "BPF_PROG_DETACH": _END,
    "BPF_PROG_TEST_RUN": _START,
    "BPF_PROG_GET_NEXT_ID": _INFO,
    "BPF_MAP_GET_NEXT_ID": _INFO,
    "BPF_PROG_GET_FD_BY_ID": _ACCESS,
    "BPF_MAP_GET_FD_BY_ID": _ACCESS,
    "BPF_OBJ_GET_INFO_BY_FD": _INFO,
    "BPF_PROG_QUERY": _INFO,
    "BPF_RAW_TRACEPOINT_OPEN": _START,
    "BPF_BTF_LOAD": _CREATION,
    "BPF_BTF_GET_FD_BY_ID": _ACCESS,
    "BPF_TASK_FD_QUERY": _INFO,
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": _TAKE,
    "BPF_MAP_FREEZE": _CHANGE,
    "BPF_BTF_GET_NEXT_ID": _INFO,
    "BPF_MAP_LOOKUP_BATCH": _ACCESS,
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": _TAKE,
    "BPF_MAP_UPDATE_BATCH": _CHANGE,
    "BPF_MAP_DELETE_BATCH": _DELETION,
    "BPF_LINK_CREATE": _START,
    "BPF_LINK_UPDATE": _CHANGE,
    "BPF_LINK_GET_FD_BY_ID": _ACCESS,
    "BPF_LINK_GET_NEXT_ID": _INFO,
    "BPF_ENABLE_STATS": _CHANGE,
    "BPF_ITER_CREATE": _CREATION,
    "BPF_LINK_DETACH": _END,
    "BPF_PROG_BIND_MAP": _CHANGE,
    "BPF_TOKEN_CREATE": _CREATION,
    "BPF_PROG_STREAM_READ_BY_FD": _ACCESS,
    "BPF_PROG_ASSOC_STRUCT_OPS": _CHANGE,
}
TYPED_COMMANDS = frozenset(_TYPES)
"""The commands whose ``event.type`` is known; a test holds them against the tables."""

_API = ["api"]
_API_AND_DRIVER = ["api", "driver"]
INFO: Document = {"category": _API, "type": _INFO}
"""``event.category`` and ``event.type`` of calls by which somebody only looks."""
_DRIVER_COMMANDS = {
    "BPF_PROG_LOAD", "BPF_PROG_ATTACH", "BPF_PROG_DETACH", "BPF_RAW_TRACEPOINT_OPEN",
    "BPF_LINK_CREATE", "BPF_LINK_UPDATE", "BPF_LINK_DETACH",
}  # fmt: skip


class Origin(NamedTuple):
    """Where a stream of events comes from: the same in all of its documents."""

    hostname: str
    host_id: str
    """machine-id(5), or empty."""
    probe: str
    """The probe plan that saw the calls."""
    boot_id: str = ""
    """/proc/sys/kernel/random/boot_id, or empty."""
    mount_namespace: int = 0
    """The inode number of the host's, as ``/proc/1/ns/mnt`` has it; 0 if not known."""


class Cause(NamedTuple):
    """A call that gave reason for a notice."""

    event: Event
    process: Process
    sequence: int
    """Of its own document."""


class Shared(NamedTuple):
    """What the calls of a thread have in common until its rights change."""

    caller: Document
    """``process``, ``user`` and, of a container, what it is."""
    process: JSON
    """``bpf.process``"""


class Parts(NamedTuple):
    """What a document is made of that other ones may have too."""

    shared: Shared
    attr: Document
    """Of :func:`attr_document`."""
    objects: Document
    """Of :func:`objects_document`."""
    host: JSON
    """Of :func:`host_document`."""
    probe: str


def shared(call: Call, process: Process, origin: Origin, offset_ns: int) -> Shared:
    """:param offset_ns: the wall-clock time of the call less ``start_ns``."""
    known = facts(process, origin.boot_id, origin.mount_namespace)
    return Shared(_caller(call, known, offset_ns), _bpf_process(call, known))


def event_document(
    event: Event,
    process: Process,
    origin: Origin,
    *,
    time_ns: int,
    sequence: int,
    message: str = "",
) -> Document:
    """One call as a document.

    :param time_ns: when the call began, ns since the epoch.
    :param sequence: number of the event in its stream.
    :param message: the line for people, if it shall be in the document.
    """
    parts = Parts(
        shared(event.call, process, origin, time_ns - event.call.start_ns),
        attr_document(event), objects_document(event), host_document(origin), origin.probe,
    )  # fmt: skip
    return assembled(event, parts, time_ns=time_ns, sequence=sequence, message=message)


def assembled(
    event: Event, parts: Parts, *, time_ns: int, sequence: int, message: str = ""
) -> Document:
    """The document of a call from its parts, which may be spelled as JSON already."""
    call = event.call
    about: Document = {
        "kind": "event",
        "module": "bpfsnoop",
        "dataset": "bpfsnoop.call",
        "action": event.action,
        **kinds(event.command),
        "outcome": _outcome(event),
    }
    if call.timed:  # else nobody knows how long it took
        about["duration"] = call.duration_ns
    about["sequence"] = sequence
    document: Document = {
        "@timestamp": timestamp(time_ns),
        "ecs": _ECS,
        "event": about,
        "host": parts.host,
        "bpf": _bpf(event, parts),
        **parts.shared.caller,
    }
    if event.reason:
        document["error"] = {"message": event.reason}
    if message:
        document["message"] = message
    return document


def kinds(command: str) -> Document:
    """``event.category`` and ``event.type`` of a command's calls.

    :param command: ``BPF_MAP_CREATE``, or what has no name.
    """
    category = _API_AND_DRIVER if command in _DRIVER_COMMANDS else _API
    return {"category": category, "type": _TYPES.get(command, _ACCESS)}


def _result(event: Event) -> Document:
    call = event.call
    if not call.returned:
        return {}
    if not event.failed:
        return {"retval": call.retval}
    return {"retval": call.retval, "errno": errno_name(-call.retval) or str(-call.retval)}


def _outcome(event: Event) -> str:
    if not event.call.returned:
        return "unknown"
    return "failure" if event.failed else "success"


def _caller(call: Call, known: ProcessFacts, offset_ns: int) -> Document:
    comm = printable(call.comm)
    thread: Document = {"id": call.tid, "name": comm}
    process = {"pid": call.tgid, "name": comm, "thread": thread, **known.process}
    user: Document = {"id": str(call.uid), "group": {"id": str(call.gid)}}
    if call.has_task:
        process["start"] = timestamp(offset_ns + call.process_start_ns)
        thread["capabilities"] = {"effective": capabilities(call.capabilities)}
        user["effective"] = {"id": str(call.euid)}
    return {"process": process, "user": user, **known.container}


_CATEGORIES = {"prog_unload": (["driver"], _END), "integrity": (["intrusion_detection"], _INFO)}


def notice_document(
    notice: Notice,
    origin: Origin,
    *,
    time_ns: int,
    sequence: int,
    cause: Cause | None = None,
) -> Document:
    """What is no call.

    :param time_ns: when it happened, ns since the epoch.
    :param cause: the call that it is about, if it is about one.
    """
    category, kind = _CATEGORIES[notice.action]
    bpf: Document = {"probe": origin.probe}
    document: Document = {
        "@timestamp": timestamp(time_ns),
        "ecs": _ECS,
        "event": {
            "kind": "event",
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.notice",
            "action": notice.action,
            "category": category,
            "type": kind,
            "sequence": sequence,
        },
        "host": host_document(origin),
        "bpf": bpf,
        "message": str(notice),
    }
    if notice.prog:
        bpf["prog"] = {"id": notice.prog.id, "tag": notice.prog.tag.hex()}
        if notice.prog.name:
            bpf["prog"]["name"] = printable(notice.prog.name)
    if notice.action == "integrity":
        bpf["integrity"] = _integrity(notice, cause)
    if cause:
        known = facts(cause.process, origin.boot_id, origin.mount_namespace)
        document |= _caller(cause.event.call, known, time_ns - notice.time_ns)
        bpf["process"] = _bpf_process(cause.event.call, known)
    elif notice.pid:
        document["process"] = {"pid": notice.pid, "thread": {"id": notice.tid}}
    return document


def _integrity(notice: Notice, cause: Cause | None) -> Document:
    integrity: Document = {"reason": notice.reason.value}
    if notice.during:
        integrity["during"] = notice.during
    if notice.probe:
        integrity["program"] = printable(notice.probe.encode("utf-8", "replace"))
    if notice.touched:
        integrity["object"] = {"kind": notice.touched.kind, **notice.touched.document()}
    if cause:
        integrity["cmd"] = cause.event.command or hex(cause.event.call.command)
        if cause.event.call.returned:
            integrity["retval"] = cause.event.call.retval
        integrity["sequence"] = cause.sequence
    return integrity


def _bpf_process(call: Call, known: ProcessFacts) -> Document:
    process: Document = {"cgroup_id": call.cgroup_id, **known.bpf_process}
    if not call.has_task:
        return process
    process |= {"exec_id": call.exec_id, "mount_namespace": call.mount_namespace}
    absent: Document = {}
    if call.pid_namespace:  # without leave to read kernel memory only the first is known
        process["pid_namespace"] = call.pid_namespace
    else:
        absent["pid_namespace"] = Missing.UNREADABLE.value
    if call.user_namespace:
        process["user_namespace"] = call.user_namespace
    else:
        absent["user_namespace"] = Missing.NO_BTF.value
    capable = bpf_capable(call)
    if capable is None:
        absent["cap_bpf"] = Missing.NO_BTF.value
    else:
        process["cap_bpf"] = capable
    if absent:  # what is kept of the process has none of these
        process["absent"] = {**process.get("absent", {}), **absent}
    if call.login_uid != NOBODY:
        process["login_uid"] = str(call.login_uid)
    return process


def attr_document(event: Event) -> Document:
    """``bpf.attr``, and ``bpf.attr_after`` if the kernel changed something."""
    if event.attr is None:
        return {}
    changed = {
        item.name: item.kind.document(item.after) for item in event.attr if item.after is not None
    } | items_document(event.after)
    attr = {"attr": items_document(event.attr)}
    return {**attr, "attr_after": changed} if changed else attr


def _bpf(event: Event, parts: Parts) -> Document:
    call = event.call
    bpf: Document = {
        "cmd": event.command or hex(call.command),
        "size": call.size,
        **_result(event),
        "via": call.via,
        "probe": parts.probe,
        "process": parts.shared.process,
    }
    if call.has_common_attrs and event.command:
        bpf["common_attrs"] = {"address": hex(call.common_addr), "size": call.common_size}
    bpf["attr_address"] = hex(call.attr_addr)
    bpf.update(parts.attr)
    if event.trailing:
        bpf["attr_trailing"] = {
            "offset": event.trailing.offset,
            "hex": event.trailing.data.hex(),
        }
    bpf.update(parts.objects)
    if event.memory:
        bpf["memory"] = {name: memory.document() for name, memory in event.memory}
    if remarks := event.remarks:
        bpf["notes"] = list(remarks)
    if event.differs:
        bpf["differs"] = list(event.differs)
    return bpf


def _descriptor(field: str, described: Described, objects: Document) -> Document:
    kind = described.kind
    document: Document = {"name": field, "kind": kind, "id": described.object.id}
    if described.object.id != objects[kind]["id"]:  # of that all is said already
        document[kind] = described.document()
    return document


def objects_document(event: Event) -> Document:
    """``bpf.map`` and so on, and ``bpf.fd``: the object that the call is about, of each kind.

    That is the one it returned, else the first that it named. ``bpf.fd`` has all.
    """
    if not event.behind and not event.result and not event.program:
        return {}
    named = [(behind.field, behind.described) for behind in event.behind]
    if event.result:
        named.insert(0, ("result", event.result))
    objects: Document = {}
    for _, described in named:
        objects.setdefault(described.kind, described.document())
    if event.program:
        objects["prog"] = {**objects.get("prog", {}), **event.program.document()}
    if named:
        objects["fd"] = [_descriptor(field, described, objects) for field, described in named]
    return objects


def loss_document(
    totals: Totals,
    names: Mapping[int, str],
    origin: Origin,
    *,
    sequence: int,
    final: bool = True,
    undelivered: Mapping[str, int] | None = None,
) -> Document:
    """What was seen and what of it did not arrive, so far.

    :param names: of the counter slots, as in ``bpf.cmd``.
    :param final: nothing follows it.
    :param undelivered: lines that a sink will never get, by its name; ``""``: that none will.
    """
    document: Document = {
        "@timestamp": timestamp(totals.time_ns),
        "ecs": _ECS,
        "event": {
            "kind": "metric",
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.loss",
            "action": "loss",
            "category": ["host"],
            "type": ["info"],
            "sequence": sequence,
        },
        "host": host_document(origin),
        "bpf": {
            "probe": origin.probe,
            "loss": {
                "final": final,
                "complete": totals.complete,
                "seen": totals.seen,
                "lost": totals.lost,
                "incomplete": totals.incomplete,
                "unfinished": totals.unfinished,
                "missed_runs": totals.missed_runs,
                "unfollowed": totals.unfollowed,
                "commands": [
                    {"cmd": names.get(slot) or hex(slot), **count._asdict()}
                    for slot, count in totals.counts.items()
                ],
            },
        },
    }
    if undelivered:
        document["bpf"]["loss"]["undelivered"] = [
            {"sink": name, "lines": lines} if name else {"lines": lines}
            for name, lines in undelivered.items()
        ]
    return document


def json_line(document: Document) -> bytes:
    """One line of JSON, newline included. Everything in it is printable ASCII or a number."""
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def json_text(part: JSON) -> str:
    """A part of a document as JSON."""
    return orjson.dumps(part).decode()


def timestamp(time_ns: int) -> str:
    """ISO 8601, UTC, with nanoseconds.

    :param time_ns: ns since the epoch.
    """
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def host_document(origin: Origin) -> Document:
    """``host``"""
    host: Document = {
        "name": origin.hostname,
        "hostname": origin.hostname,
        "os": {"type": "linux"},
    }
    if origin.host_id:
        host["id"] = origin.host_id
    if origin.boot_id:
        host["boot"] = {"id": origin.boot_id}
    return host
