# SPDX-License-Identifier: Apache-2.0
"""All commands of bpf(2)."""

from . import btf, links, maps, objects, progs
from .layout import Command

COMMANDS: dict[int, Command] = {
    command.number: command
    for command in sorted(
        maps.COMMANDS + progs.COMMANDS + links.COMMANDS + objects.COMMANDS + btf.COMMANDS,
        key=lambda command: command.number,
    )
}
"""By number (``enum bpf_cmd``), in its order."""
