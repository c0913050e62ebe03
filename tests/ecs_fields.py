# SPDX-License-Identifier: Apache-2.0
"""What ECS says of the fields that we borrow from it: facts of its published field list.

Read from the releases 8.11.5 and 9.0.0 of npm's ``@elastic/ecs`` (Apache-2.0), which is made
from generated/ecs/ecs_flat.yml of github.com/elastic/ecs: they agree on all that is here, so
8.17, which is between them, does too.
"""

from collections.abc import Mapping
from typing import Final

_TYPES: Final = {
    "keyword": (
        "container.id", "container.runtime", "ecs.version", "event.action", "event.category",
        "event.dataset", "event.kind", "event.module", "event.outcome", "event.type",
        "host.boot.id", "host.hostname", "host.id", "host.name", "host.os.type",
        "orchestrator.resource.id", "orchestrator.resource.type", "orchestrator.type",
        "process.args", "process.entity_id", "process.executable", "process.name",
        "process.parent.entity_id", "process.parent.executable", "process.parent.name",
        "process.thread.capabilities.effective", "process.thread.name",
        "process.working_directory", "rule.author", "rule.description", "rule.id", "rule.name",
        "rule.reference", "threat.framework", "threat.tactic.name", "threat.technique.id",
        "threat.technique.name", "threat.technique.subtechnique.id",
        "threat.technique.subtechnique.name", "user.effective.id", "user.group.id", "user.id",
    ),
    "long": (
        "event.duration", "event.sequence", "event.severity", "process.parent.pid",
        "process.pid", "process.thread.id",
    ),
    "date": ("@timestamp", "event.end", "event.start", "process.start"),
    "match_only_text": ("error.message", "message"),
}  # fmt: skip

TYPES: Final[Mapping[str, str]] = {name: kind for kind, names in _TYPES.items() for name in names}
"""Field -> type, as Elasticsearch calls it."""

LISTS: Final = frozenset({
    "event.category", "event.type", "process.args", "process.thread.capabilities.effective",
    "rule.author", "threat.tactic.name", "threat.technique.id", "threat.technique.name",
    "threat.technique.subtechnique.id", "threat.technique.subtechnique.name",
})  # fmt: skip
"""Those that are to be lists, even of one value (``normalize: array``)."""

ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "event.kind": frozenset({
        "alert", "asset", "enrichment", "event", "metric", "pipeline_error", "signal", "state",
    }),
    "event.outcome": frozenset({"failure", "success", "unknown"}),
    "host.os.type": frozenset({"android", "ios", "linux", "macos", "unix", "windows"}),
    "threat.framework": frozenset({"MITRE ATT&CK"}),
}  # fmt: skip
"""All values that a field may have; ECS knows more frameworks."""

EVENT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "api": frozenset({
        "access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info",
        "start", "user",
    }),
    "configuration": frozenset({"access", "change", "creation", "deletion", "info"}),
    "driver": frozenset({"change", "end", "info", "start"}),
    "host": frozenset({"access", "change", "end", "info", "start"}),
    "intrusion_detection": frozenset({"allowed", "denied", "info"}),
    "process": frozenset({"access", "change", "end", "info", "start"}),
}  # fmt: skip
"""Which ``event.type`` goes with which ``event.category``, of those that we use."""
