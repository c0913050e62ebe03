# SPDX-License-Identifier: Apache-2.0
"""Rules from a few words of YAML, and engines of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from bpfsnoop.events.ecs import Document
from bpfsnoop.rules.document import nested
from bpfsnoop.rules.engine import Engine, Match
from bpfsnoop.rules.fields import fields
from bpfsnoop.rules.rule import Rule
from bpfsnoop.rules.sigma.detection import Known
from bpfsnoop.rules.sigma.read import read
from bpfsnoop.tracer import installed

FIELDS: Final = fields(json.loads(installed.SCHEMA.read_bytes()))
Lists = Mapping[str, Sequence[str]]
SECOND: Final = 1_000_000_000


def rules(*texts: str, lists: Lists | None = None) -> tuple[Rule, ...]:
    """Each text is a file: ``1.yml`` and so on."""
    files = [(f"{number}.yml", text) for number, text in enumerate(texts, 1)]
    return read(files, Known(FIELDS, lists or {}))


def detection(items: Mapping[str, Any], *, name: str = "rule", condition: str = "it") -> str:
    """A rule that matches events with these items; JSON is YAML."""
    about = {
        "title": name.capitalize(),
        "name": name,
        "logsource": {"product": "linux", "service": "bpfsnoop"},
        "detection": {"it": items, "condition": condition},
    }
    return f"{json.dumps(about)}\n"


def correlation(name: str, **about: Any) -> str:
    """One over other rules, of the last minute if nothing else is said."""
    keys = {key.replace("_", "-"): value for key, value in about.items()}
    keys.setdefault("timespan", "1m")
    return f"{json.dumps({'title': name, 'name': name, 'correlation': keys})}\n"


def event(sequence: int = 0, **fields: Any) -> Document:
    """A document; ``__`` in names stands for a dot."""
    dotted = {name.replace("__", "."): value for name, value in fields.items()}
    return nested({"event.sequence": sequence, **dotted})


def matches(items: Mapping[str, Any], document: Document, lists: Lists | None = None) -> bool:
    """Whether a rule of these items matches."""
    return bool(Engine(rules(detection(items), lists=lists)).feed(document, 0))


def told(found: Sequence[Match]) -> list[tuple[str, tuple[int, ...]]]:
    """Which rules matched, and by which events."""
    return [(match.rule.label, match.sequences) for match in found]


def with_another_part(data: st.DataObject, whole: Any, parts: st.SearchStrategy[Any]) -> Any:
    """JSON of which something, somewhere within, is replaced by one of these."""
    part = whole
    while True:
        key = data.draw(st.sampled_from(range(len(part)) if isinstance(part, list) else list(part)))
        inner = part[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        part = inner
    part[key] = data.draw(parts)
    return whole
