# SPDX-License-Identifier: Apache-2.0
"""strace 7.2 of Debian sid, with that suite's C library. Nothing gets installed.

Debian 12 has 6.1, which decodes fewer commands and less of each.
"""

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kernels.archive import Apt
from kernels.refused import CannotRun
from kernels.table import Suite

VERSION: Final = "7.2"
_SUITE: Final = Suite("Debian", "sid")
_PACKAGES: Final = (
    "strace", "libc6", "libunwind8", "liblzma5", "libdw1t64", "libelf1t64", "zlib1g", "libzstd1",
    "libbz2-1.0",
)  # fmt: skip


class Broken(Exception):
    """It is here, but does not run."""


def strace(cache: Path) -> Sequence[str]:
    """How to run the one that was fetched before, or else is fetched now.

    :raises CannotRun: it is neither here nor to be had.
    :raises Broken: see there.
    """
    if platform.machine() != "x86_64":
        raise CannotRun(f"strace is fetched for x86_64, and this is {platform.machine()}")
    tree = cache / "strace"
    if not tree.exists():
        cache.mkdir(exist_ok=True)
        Apt(_SUITE, cache / "apt" / _SUITE.name).unpack(_PACKAGES, tree)
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    command = [
        str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries),
        str(tree / "usr/bin/strace"),
    ]  # fmt: skip
    version = _version(command)
    if version != VERSION:
        raise CannotRun(f"{_SUITE.name} has strace {version} by now, not {VERSION}")
    return command


def _version(command: Sequence[str]) -> str:
    try:
        said = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Broken(f"strace of {_SUITE.name}: {error}") from None
    return said.stdout.split("\n", 1)[0].rpartition(" ")[2]
