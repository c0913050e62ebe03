# SPDX-License-Identifier: Apache-2.0
"""Debian's packages: found in the archive, fetched, unpacked. Nothing gets installed.

Whatever is asked of apt is asked within a root of its own below ``.kernels/``. Which
mirror it uses, and how it gets there, it has from the host's own apt.
"""

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from .refused import CannotRun
from .table import SERIES, Suite

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PARTS: Final = "image|binary|modules|base"
_DIRECTORIES: Final = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/lib/dpkg",
    "var/cache/apt/archives/partial",
)  # fmt: skip
"""What apt takes to be there."""
_PATIENCE_S: Final = 900


class Kernel(NamedTuple):
    """An unpacked one."""

    release: str
    """As uname(2) says it."""
    image: Path
    modules: Path


def kernel(series: str, flavour: str, cache: Path) -> Kernel:
    """The one of this series that was fetched before, or else the newest there is.

    :param flavour: what Debian has behind the version.
    :raises CannotRun: it is neither here nor to be had.
    """
    trees = cache / flavour
    trees.mkdir(parents=True, exist_ok=True)
    if kept := [tree.name for tree in trees.glob(f"{series}.*")]:
        return unpacked(trees / max(kept, key=by_number))
    reasons = []
    for suite in SERIES[series]:
        try:
            apt = Apt(suite, cache / "apt" / suite.name)
            release, packages = newest(apt.kernels(series, flavour))
            apt.unpack(packages, trees / release)
            return unpacked(trees / release)
        except CannotRun as reason:
            reasons.append(f"{suite.name}: {reason}")
    raise CannotRun(f"no Linux {series} {flavour}; {'; '.join(reasons)}")


def unpacked(tree: Path) -> Kernel:
    """What came out of the packages.

    :param tree: named after the release.
    """
    images = [*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")]
    if not images or not modules:
        raise CannotRun(f"there is no kernel in {tree}")
    return Kernel(tree.name, images[0], modules[0])


def newest(packages: Iterable[str]) -> tuple[str, list[str]]:
    """The latest release, and those of the packages that make it up.

    What was one package is several where there is a ``linux-binary``.

    :raises CannotRun: there are none.
    """
    releases = defaultdict(list)
    for package in packages:
        releases[package.split("-", 2)[2]].append(package)
    if not releases:
        raise CannotRun("has none")
    release = max(releases, key=by_number)
    return release, sorted(releases[release])


def by_number(release: str) -> list[int]:
    """Sorts 6.12.9 before 6.12.10."""
    return [int(number) for number in re.findall(r"\d+", release)]


def mirrors(targets: str) -> dict[str, str]:
    """Which archive is where, by its label.

    :param targets: ``label|URI`` a line, the one to prefer first.
    """
    found: dict[str, str] = {}
    for line in targets.splitlines():
        label, _, uri = line.partition("|")
        found.setdefault(label, uri)
    return found


class Apt:
    """apt with a root of its own, which knows one suite.

    :raises CannotRun: the host's apt has no mirror of Debian, or it cannot be reached.
    """

    def __init__(self, suite: Suite, root: Path) -> None:
        targets = output("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)")
        uri = mirrors(targets).get(suite.label)
        if not uri:
            raise CannotRun(f"the host's apt has no lists of {suite.label}, see apt-get update")
        if not KEYRING.exists():
            raise CannotRun(f"there is no {KEYRING}")
        for directory in _DIRECTORIES:
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").write_text(
            f"deb [arch=amd64 signed-by={KEYRING}] {uri} {suite.name} main\n"
        )
        configuration = root / "apt.conf"
        configuration.write_text(output("apt-config", "dump", "Acquire") + _settings(root))
        self._env = os.environ | {"APT_CONFIG": str(configuration)}
        self._run("apt-get", "-q", "update")

    def kernels(self, series: str, flavour: str) -> list[str]:
        """What kernels of the series are made of."""
        pattern = rf"^linux-({_PARTS})-{re.escape(series)}\.[^-]*(-[0-9]+)?-{flavour}$"
        found = self._run("apt-cache", "search", "--names-only", pattern)
        return [line.split()[0] for line in found.splitlines()]

    def unpack(self, packages: Iterable[str], tree: Path) -> None:
        """Leaves all that is in them below ``tree``, which then comes to be at once."""
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".") as directory:
            self._run("apt-get", "-q", "download", *packages, cwd=directory)
            making = Path(directory, "tree")
            for package in Path(directory).glob("*.deb"):
                self._run("dpkg-deb", "-x", str(package), str(making))
            if not tree.exists():
                making.rename(tree)

    def _run(self, *command: str, cwd: str | None = None) -> str:
        return output(*command, cwd=cwd, env=self._env)


def _settings(root: Path) -> str:
    """Those of the host that have to do with other places than the root are replaced."""
    return "".join(
        f'{key} "{value}";\n'
        for key, value in {
            "Dir": root, "Dir::State": "var/lib/apt", "Dir::State::status": "../dpkg/status",
            "Dir::Cache": "var/cache/apt", "Dir::Etc": "etc/apt", "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Acquire::Retries": "3",
            "APT::Update::Error-Mode": "any",
        }.items()
    )  # fmt: skip


def output(*command: str, cwd: str | None = None, env: dict[str, str] | None = None) -> str:
    """What a command wrote to its standard output.

    :raises CannotRun: the program is missing, or does not do it.
    """
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
            cwd=cwd, env=env, timeout=_PATIENCE_S,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        raise CannotRun(f"there is no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{' '.join(command[:2])} hangs") from None
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.startswith("E: ")]
        why = said[0] if said else f"status {error.returncode}"
        raise CannotRun(f"{' '.join(command[:3])}: {why}") from None
