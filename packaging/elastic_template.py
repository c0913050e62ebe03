# SPDX-License-Identifier: Apache-2.0
"""Elasticsearch's index template for our documents, made from their schema.

    .venv/bin/python packaging/elastic_template.py >docs/siem/elastic-index-template.json

The schema decides: text is a keyword, whole numbers are long, and so on. Two that ECS has as text
for people are a table here; a test holds all others against ECS.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from bpfsnoop.rules.fields import said_of
from bpfsnoop.tracer.installed import SCHEMA

_TEXT: Final = {"message", "error.message"}
"""Sentences: searched by their words."""
_KEYWORD_BYTES: Final = 32_766
"""Lucene refuses a document with a longer one. Ours are ASCII: a character is a byte."""
_FIELDS: Final = 2_000
"""Elasticsearch's limit is 1,000 fields unless told; objects count, and shippers add theirs."""
_PRIORITY: Final = 200
"""Above that of Elasticsearch's own template for logs-*-*, which is 100."""

_WORDS: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
_TYPES: Final = {"string": "keyword", "integer": "long", "boolean": "boolean", "number": "double"}
_LEAF: Final = re.compile(r'\{\s+("type": [^{}]*?)\s+\}')


def template(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``PUT _index_template/bpfsnoop``.

    :raises ValueError: a field has two types, or none.
    """
    properties: dict[str, Any] = {}
    for name, said in sorted(said_of(schema).items()):
        *above, last = name.split(".")
        level = properties
        for part in above:
            level = level.setdefault(part, {}).setdefault("properties", {})
        if mapped := _mapped(name, said):
            level[last] = mapped
    # What a later bpfsnoop adds is kept, and not indexed until this template is new too.
    properties["bpf"] = {"dynamic": False, **properties["bpf"]}
    return {
        "index_patterns": ["logs-bpfsnoop*-*"],
        "data_stream": {},
        "priority": _PRIORITY,
        # What shippers add: agent.*, log.*, data_stream.*
        "composed_of": ["ecs@mappings"],
        "ignore_missing_component_templates": ["ecs@mappings"],
        "template": {
            "settings": {
                "index.mapping.total_fields.limit": _FIELDS,
                "index.codec": "best_compression",
            },
            "mappings": {"date_detection": False, "properties": properties},
        },
        "_meta": {"description": "Documents of bpfsnoop, made from their JSON Schema"},
    }


def _mapped(name: str, said: list[Mapping[str, Any]]) -> dict[str, Any]:
    """:returns: nothing for an object: what is in it says so."""
    types = set().union(*map(_types, said))
    if not types and any("properties" in part for part in said):
        return {}
    if len(types) != 1:
        raise ValueError(f"{name} is {' and '.join(sorted(types)) or 'of no type'}")
    (kind,) = types
    if name in _TEXT:
        return {"type": "match_only_text"}
    return {"type": kind, "ignore_above": _KEYWORD_BYTES} if kind == "keyword" else {"type": kind}


def _types(part: Mapping[str, Any]) -> set[str]:
    """Elasticsearch's names for what such a schema takes, as far as it says."""
    if part.get("pattern", "").startswith("^[0-9]{4}-"):  # our times, and nothing else
        return {"date"}
    values = [*part.get("enum", ()), *([part["const"]] if "const" in part else ())]
    words = {_WORDS[type(one)] for value in values for one in _items(value)}
    return {_TYPES[word] for word in {part.get("type"), *words} if word in _TYPES}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _printed(value: Mapping[str, Any]) -> str:
    """As JSON, a field a line."""
    return _LEAF.sub(
        lambda leaf: "{" + re.sub(r"\s+", " ", leaf[1]) + "}", json.dumps(value, indent=1)
    )


if __name__ == "__main__":
    sys.stdout.write(_printed(template(json.loads(SCHEMA.read_bytes()))) + "\n")
