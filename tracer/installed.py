# SPDX-License-Identifier: Apache-2.0
"""The files that are installed with the package and read while it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent

DEFAULTS: Final = _ROOT / "config.yaml"
SCHEMA: Final = _ROOT / "events" / "schema.json"
RULES: Final = _ROOT / "rules" / "pack"
"""Rules of our own, a file each."""
RULE_LISTS: Final = _ROOT / "rules" / "lists.yaml"
"""What they refer to."""
KERNEL: Final = _ROOT / "tracer" / "kernel"
"""Where the kernel program is, and below it the headers that stand in for the kernel's."""
WIRE: Final = _ROOT / "events"
"""Where wire.h is."""


def sources() -> Iterator[Path]:
    """All files that decide what is compiled, and what the kernel's BTF is asked for."""
    yield WIRE / "wire.h"
    yield from sorted(KERNEL.glob("*.[ch]"))
    yield from sorted(KERNEL.glob("include/**/*.h"))
    yield from sorted((_ROOT / "tracer").glob("*.py"))
    yield _ROOT / "decoders" / "uapi.py"


def rule_sources() -> Iterator[Path]:
    """All files that decide what is made of a file of rules."""
    yield from sorted((_ROOT / "rules").rglob("*.py"))


def kernel_program() -> str:
    """The source of the kernel program in one piece, as BCC wants it: what map methods such as
    ``pids.lookup()`` mean, it works out in the file that it compiles and in no other.
    """
    lines = []
    for line in (KERNEL / "bpf_calls.c").read_text(encoding="utf-8").splitlines():
        name = line.removeprefix('#include "').rstrip('"')
        beside = KERNEL / name
        if name != line and beside.is_file():
            lines += beside.read_text(encoding="utf-8").splitlines()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
