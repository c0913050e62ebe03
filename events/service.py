# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells of itself, so that its silence and its end are noticed too."""

from typing import Final, NamedTuple

from . import ecs
from .ecs import Document, Origin


class Kind(NamedTuple):
    """How ECS classes one of these."""

    kind: str
    category: str
    type: str


START, STOP, RELOAD, HEARTBEAT, DELIVERY = (
    "daemon_start", "daemon_stop", "daemon_reload", "heartbeat", "delivery_restart",
)  # fmt: skip

KINDS: Final = {
    START: Kind("event", "process", "start"),
    STOP: Kind("event", "process", "end"),
    RELOAD: Kind("event", "configuration", "change"),
    HEARTBEAT: Kind("metric", "host", "info"),
    DELIVERY: Kind("event", "process", "change"),
}
"""``event.action`` of each."""


class Told(NamedTuple):
    """One of them."""

    action: str
    message: str
    """One sentence for people."""
    about: Document
    """``bpf.daemon``"""
    outcome: str = "success"
    """ECS's: ``failure``, or ``unknown`` of what is only about to be done."""


def service_document(told: Told, origin: Origin, *, time_ns: int, sequence: int) -> Document:
    """:param time_ns: ns since the epoch."""
    kind = KINDS[told.action]
    return {
        "@timestamp": ecs.timestamp(time_ns),
        "ecs": {"version": ecs.ECS_VERSION},
        "event": {
            "kind": kind.kind,
            "module": "bpfsnoop",
            "dataset": "bpfsnoop.daemon",
            "action": told.action,
            "category": [kind.category],
            "type": [kind.type],
            "outcome": told.outcome,
            "sequence": sequence,
        },
        "message": told.message,
        "host": ecs.host_document(origin),
        "bpf": {"probe": origin.probe, "daemon": told.about},
    }
