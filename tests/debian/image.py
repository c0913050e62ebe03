# SPDX-License-Identifier: Apache-2.0
"""A small system of this host's release of Debian, made by mmdebstrap and kept."""

import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Final

from kernels.archive import KEYRING, mirrors, output
from kernels.refused import CannotRun

SERIES: Final = {"bookworm": "6.1", "trixie": "6.12"}
"""The kernel of each release that there are systems of."""

_PACKAGES: Final = ("systemd-sysv", "python3-bpfcc", "python3-pytest")
_SUITES: Final = (("Debian", ""), ("Debian-Security", "-security"))


def release() -> str:
    """:raises CannotRun: this host has none of them."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if name not in SERIES:
        raise CannotRun(
            f"the package is tested on {', '.join(SERIES)}, this is {name or 'neither'}"
        )
    return name


def image(name: str, cache: Path) -> Path:
    """The directory that is its root, as it was made before or else anew.

    :raises CannotRun: it is neither here nor to be had.
    """
    contents = hashlib.sha256(" ".join(_PACKAGES).encode()).hexdigest()[:12]
    tree = cache / f"{name}-{contents}"
    if tree.exists():
        return tree
    if os.geteuid():
        raise CannotRun("making a system needs root")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as directory:
        settings = Path(directory, "apt.conf")
        settings.write_text(output("apt-config", "dump", "Acquire"))
        made = Path(directory, "root")
        output(
            "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}",
            f"--aptopt={settings}", name, str(made), *_sources(name),
        )  # fmt: skip
        made.rename(tree)
    return tree


def _sources(name: str) -> list[str]:
    found = mirrors(output("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"))
    missing = [label for label, _ in _SUITES if label not in found]
    if missing:
        raise CannotRun(f"the host's apt has no lists of {missing[0]}, see apt-get update")
    return [
        f"deb [signed-by={KEYRING}] {found[label]} {name}{suffix} main" for label, suffix in _SUITES
    ]
