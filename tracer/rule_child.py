# SPDX-License-Identifier: Apache-2.0
"""Reads rules, in a process of its own; see rule_files.py, which starts it.

Standard input has one JSON object: files, fields and lists. Standard output gets the rules,
or all that is wrong with them.
"""

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

from ..events.errors import UsageError
from ..rules.rule import to_json
from ..rules.sigma.detection import Known
from ..rules.sigma.read import read

_LIMITS: Final[Mapping[int, int]] = {
    resource.RLIMIT_CPU: 60,  # seconds; a hundred rules take one
    resource.RLIMIT_AS: 1 << 29,  # a tenth of it is usual
    resource.RLIMIT_FSIZE: 1 << 24,  # of the answer
    resource.RLIMIT_CORE: 0,
}


def main() -> None:
    for limit, wanted in _LIMITS.items():
        _, hard = resource.getrlimit(limit)  # not everybody may raise it
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (most, most))
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """``rules`` in the form of rules/rule.py, or ``mistakes``."""
    known = Known(request["fields"], request["lists"])
    try:
        return {"rules": to_json(read(request["files"], known))}
    except UsageError as error:
        return {"mistakes": error.mistakes}


if __name__ == "__main__":
    main()
