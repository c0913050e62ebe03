# SPDX-License-Identifier: Apache-2.0
"""Reads rules, in a process of its own; see rule_files.py, which starts it.

Standard input has one JSON object: files, fields, lists, our_lists and with_examples. Standard
output gets the rules, or all that is wrong with them.
"""

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

from ..events.errors import Mistake, UsageError
from ..rules.rule import to_json
from ..rules.sigma.detection import Known
from ..rules.sigma.lists import lists
from ..rules.sigma.read import read
from .rights import give_up

_LIMITS: Final[Mapping[int, int]] = {
    resource.RLIMIT_CPU: 60,  # seconds; a hundred rules take one
    resource.RLIMIT_AS: 1 << 29,  # a tenth of it is usual
    resource.RLIMIT_FSIZE: 1 << 24,  # of the answer
    resource.RLIMIT_CORE: 0,
}


def main() -> None:
    give_up(None, 0)  # who wrote the files may know a bug of the parser
    for limit, wanted in _LIMITS.items():
        _, hard = resource.getrlimit(limit)  # not everybody may raise it
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (most, most))
    try:
        found = answer(json.load(sys.stdin))
    except MemoryError:
        found = {"mistakes": [Mistake("the rules take more than 512 MB to read")]}
    json.dump(found, sys.stdout)


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """``rules`` in the form of rules/rule.py, or ``mistakes``."""
    mistakes: list[Mistake] = []
    found = lists(request["our_lists"], request["lists"], mistakes)
    known = Known(request["fields"], found)
    try:
        rules = read(request["files"], known, with_examples=request["with_examples"])
    except UsageError as error:
        mistakes += error.mistakes
    return {"mistakes": mistakes} if mistakes else {"rules": to_json(rules)}


if __name__ == "__main__":
    main()
