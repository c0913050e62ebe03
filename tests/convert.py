# SPDX-License-Identifier: Apache-2.0
"""Turns the pack into queries, and prints as JSON what became of each rule.

Runs in an environment of its own (.venv/convert, see packaging/setup), where pySigma is that of
its backends and not ours: so it knows nothing of bpfsnoop. The arguments are files of pipelines.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sigma.backends.elasticsearch import EqlBackend, ESQLBackend, LuceneBackend
from sigma.backends.splunk import SplunkBackend
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaConversionError
from sigma.processing.pipeline import ProcessingPipeline

PACK: Final = Path(__file__).resolve().parent.parent / "rules" / "pack"
BACKENDS: Final[Mapping[str, Any]] = {
    "lucene": LuceneBackend, "eql": EqlBackend, "esql": ESQLBackend, "splunk": SplunkBackend,
}  # fmt: skip


def main() -> None:
    pipeline = sum(
        (ProcessingPipeline.from_yaml(Path(path).read_text()) for path in sys.argv[1:]),
        start=ProcessingPipeline(),
    )
    json.dump({name: _converted(make(pipeline)) for name, make in BACKENDS.items()}, sys.stdout)


def _rules() -> list[Any]:
    texts = (path.read_text() for path in sorted(PACK.rglob("*.yml")))
    collection = SigmaCollection.from_yaml("\n---\n".join(texts))
    collection.resolve_rule_references()  # those that others name come before these
    return list(collection.rules)


def _converted(backend: Any) -> dict[str, dict[str, Any]]:
    # Of each rule its kind, and either the queries or why there are none.
    found = {}
    for rule in _rules():
        correlates = isinstance(rule, SigmaCorrelationRule)
        kind = rule.type.name.lower() if correlates else "detection"
        convert = backend.convert_correlation_rule if correlates else backend.convert_rule
        try:
            convert(rule)  # has nothing to say of rules that only serve correlations
            result = {"queries": rule.get_conversion_result()}
        except (NotImplementedError, SigmaConversionError) as error:
            result = {"refused": str(error)}
        found[rule.name] = {"kind": kind, **result}
    return found


if __name__ == "__main__":
    main()
