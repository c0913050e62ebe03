# SPDX-License-Identifier: Apache-2.0
"""The files that are installed with the package and read while it runs."""

from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent

DEFAULTS: Final = _ROOT / "config.yaml"
SCHEMA: Final = _ROOT / "events" / "schema.json"
KERNEL: Final = _ROOT / "tracer" / "kernel"
"""Where the kernel program is, and below it the headers that stand in for the kernel's."""
KERNEL_PROGRAM: Final = KERNEL / "bpf_calls.c"
WIRE: Final = _ROOT / "events"
"""Where wire.h is."""
