# SPDX-License-Identifier: Apache-2.0
"""Whether the daemon works, for whoever would start it anew if it does not."""

import json
from collections.abc import Mapping, Set
from http import HTTPStatus
from typing import Any, Final, TypedDict

from .web import Page

STALE_S: Final = 30.0
"""A daemon that has said nothing for so long hangs: it says something every five seconds or so."""

READY: Final = frozenset({"ok", "degraded"})
"""States in which calls are seen."""
ALIVE: Final = READY | {"starting", "not ready"}
"""States that to start anew would not make better."""


class Snapshot(TypedDict):
    """All that is known at a moment."""

    status: Mapping[str, Any]
    """The last STATUS (:mod:`.frames`), or empty if there was none yet."""
    age_s: float
    """Since then, or since the process began."""
    sinks: Mapping[str, Mapping[str, Any]]
    """What PROGRESS says of each, by its name."""


def state(now: Snapshot, good: Set[str]) -> Page:
    """The page that says it: 200 if it is one of these, else 503."""
    problems = {
        name: sink["problem"] or "it is away"
        for name, sink in now["sinks"].items()
        if sink["problem"] or not sink["up"]
    }
    name = _name(now, problems)
    status = HTTPStatus.OK if name in good else HTTPStatus.SERVICE_UNAVAILABLE
    said = {"state": name, "status_age_seconds": round(now["age_s"], 3), "sinks": problems}
    return Page(status, "application/json", json.dumps(said).encode() + b"\n")


def _name(now: Snapshot, problems: Mapping[str, str]) -> str:
    if not now["status"]:
        return "starting"  # whoever starts us knows how long that may take
    if now["age_s"] > STALE_S:
        return "stale"
    if not now["status"]["ready"]:
        return "not ready"
    # Lines wait in spools while a sink is away: to start us anew would not bring it back.
    return "degraded" if problems else "ok"
