# SPDX-License-Identifier: Apache-2.0
"""What can be had and is hardly meant: it keeps nobody from starting, and is told."""

import os
from collections.abc import Collection, Iterator

from ...events.value import printable
from ..config import Config
from ..config_file import hint
from ..delivery.spool import bytes_left
from .state import spool_of


def doubts(options: Config, rules: Collection[str]) -> Iterator[str]:
    """A sentence for each.

    :param rules: names of those that may raise alerts.
    """
    for sink in options.sinks:
        for pattern in sink.filter.idle_patterns(rules):
            name = sink.settings.name
            yield f"sink {name}: there is no rule {pattern!r}{hint(pattern, rules)}"
    yield from _left_over(options)


def _left_over(options: Config) -> Iterator[str]:
    # Lines on disk for sinks that are not configured any more: nobody brings them away.
    directory = spool_of(options.state)
    known = {sink.settings.name for sink in options.sinks}
    try:
        names = sorted(set(os.listdir(directory)) - known)
    except OSError:
        return  # it will be made, or tells what is wrong with it when it is used
    for name in names:
        path = os.path.join(directory, name)
        if size := bytes_left(path):
            yield (
                f"{size} bytes wait in {printable(os.fsencode(path))} for a sink of that name,"
                " and there is none: call one so, or remove the directory"
            )
