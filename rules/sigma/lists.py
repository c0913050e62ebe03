# SPDX-License-Identifier: Apache-2.0
"""What ``%name%`` stands for in rules: our lists, and those of the site."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import yaml

from ...events.errors import Mistake
from ..check import nearest

_NAMED: Final = re.compile(r"%(\w+)%", re.ASCII)


def lists(
    ours: str, site: Mapping[str, Sequence[str]], mistakes: list[Mistake]
) -> Mapping[str, Sequence[str]]:
    """Those of the site in the place of ours.

    :param ours: rules/lists.yaml.
    :param site: an item ``%name%`` stands for all that our list of that name has.
    :param mistakes: what is wrong with the site's is added here.
    """
    known: dict[str, Sequence[str]] = yaml.safe_load(ours)
    found = dict(known)
    for name, items in site.items():
        filled: dict[str, None] = {}
        for item in items:
            named = _NAMED.fullmatch(item)
            if named and named[1] not in known:
                message = f"there is no list {named[1]}{nearest(named[1], known.keys())}"
                mistakes.append(Mistake(f"rule_lists: {name}: {message}"))
            filled |= dict.fromkeys(known.get(named[1], ()) if named else [item])
        found[name] = list(filled)
    return found
