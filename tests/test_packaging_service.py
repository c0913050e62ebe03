# SPDX-License-Identifier: Apache-2.0
"""Unit, package, image and manifest say the same, and what is carried is pinned."""

import configparser
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator

import pytest
import yaml

from manifest import CAPABILITIES, CONTAINER, POD
from running import ROOT, bpfsnoop_run

PACKAGING = ROOT / "packaging"
UNIT = (PACKAGING / "bpfsnoop.service").read_text()
HARDENING = (ROOT / "docs" / "hardening.md").read_text()
CONFIGS = ("packaging/daemon.yaml", "packaging/kubernetes/config.yaml")


# --- The unit ------------------------------------------------------------------------------


def _settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


SETTINGS = _settings()
BOUNDS = " ".join(SETTINGS["CapabilityBoundingSet"]).split()
OBVIOUS = {"Description", "Documentation", "After", "ExecStart", "WantedBy", "RestartSec"}
FAMILIES = {  # told together
    "CacheDirectoryMode": "CacheDirectory", "SystemCallErrorNumber": "SystemCallFilter",
    "SystemCallArchitectures": "SystemCallFilter", "UMask": "ReadWritePaths",
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(SETTINGS.keys() - OBVIOUS))
def test_every_line_of_the_unit_is_explained(key: str) -> None:
    assert f"`{FAMILIES.get(key, key)}=" in HARDENING


def test_every_capability_has_a_reason_beside_it() -> None:
    reasons = " ".join(line for line in UNIT.splitlines() if line.startswith("# CAP_"))
    assert [name for name in BOUNDS if name not in reasons] == []


def test_what_the_unit_lets_it_write_is_what_tmpfiles_makes() -> None:
    lines = (PACKAGING / "bpfsnoop.tmpfiles").read_text().splitlines()
    made = {line.split()[1] for line in lines if not line.startswith("#")}
    (paths,) = SETTINGS["ReadWritePaths"]
    assert set(paths.split()) == made


# --- Containers ----------------------------------------------------------------------------


def test_a_container_has_the_capabilities_of_the_unit() -> None:
    assert {f"CAP_{name}" for name in CAPABILITIES} == set(BOUNDS)
    assert CONTAINER["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert not CONTAINER["securityContext"]["privileged"]


def test_the_image_says_the_same() -> None:
    dockerfile = (PACKAGING / "Dockerfile").read_text()
    assert set(re.findall(r"--cap-add=(\w+)", dockerfile)) == set(CAPABILITIES)
    mounts = set(re.findall(r"-v (/\S+?):\1:ro", dockerfile))
    assert mounts == {
        volume["hostPath"]["path"]
        for volume in POD["volumes"]
        if volume["name"] in ("machine-id", "tracing", "cgroup")
    }


def test_every_volume_is_mounted_and_the_other_way_round() -> None:
    assert {volume["name"] for volume in POD["volumes"]} == {
        mount["name"] for mount in CONTAINER["volumeMounts"]
    }


def test_probes_ask_where_metrics_are_served() -> None:
    served = yaml.safe_load((ROOT / CONFIGS[1]).read_text())["metrics"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[name]["httpGet"]
        assert f"{asked['host']}:{asked['port']}" == served
        assert asked["path"] in ("/ready", "/health")


# --- Configurations ------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS)
def test_a_configuration_that_is_installed_is_right(path: str) -> None:
    checked = bpfsnoop_run("daemon", "-c", ROOT / path, "--check")
    assert (checked.status, checked.err) == (0, "")


# --- What is carried -----------------------------------------------------------------------


def _name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-")


def _pinned() -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and hashes of each package."""
    for entry in re.split(r"\n(?=[a-z])", (PACKAGING / "requirements.txt").read_text()):
        if match := re.match(r"([a-z0-9-]+)==(\S+)", entry):
            yield match[1], match[2], re.findall(r"sha256:[0-9a-f]{64}", entry)


PINNED = {name: (version, hashes) for name, version, hashes in _pinned()}


def _wanted() -> set[str]:
    """What setup.cfg wants of a daemon with all its parts."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    lists = setup["options"]["install_requires"], extras["kafka"], extras["metrics"]
    return {_name(line) for text in lists for line in text.splitlines() if line}


def test_everything_that_is_needed_is_pinned_with_its_hashes() -> None:
    wanted = {name for name in _wanted() if not name.startswith("#")}
    assert wanted
    assert wanted <= PINNED.keys()
    assert [name for name, (_, hashes) in PINNED.items() if not hashes] == []


def test_the_licence_of_everything_that_is_carried_is_named() -> None:
    text = (PACKAGING / "debian" / "copyright").read_text()
    files = " ".join(line for line in text.splitlines() if line.startswith("Files: usr/lib"))
    assert [name for name in PINNED if f"/{name.replace('-', '_')}*" not in files] == []
    used = {
        licence
        for line in re.findall(r"^License: (.*)$", text, re.MULTILINE)
        for licence in re.split(r" and | or |[()]", line)
        if licence
    }
    described = set(re.findall(r"^License: (\S+)\n ", text, re.MULTILINE))
    assert used == described


def test_scripts_of_the_package_are_shell_that_ends_at_the_first_mistake() -> None:
    for name in ("postinst", "prerm", "postrm"):
        script = PACKAGING / "debian" / f"bpfsnoop.{name}"
        assert script.read_text().startswith("#!/bin/sh\nset -e\n")
        assert "\n#DEBHELPER#\n" in script.read_text()
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def test_what_installed_pages_link_to_is_installed_beside_them() -> None:
    listed = (PACKAGING / "debian" / "bpfsnoop.docs").read_text().split()
    pages = [ROOT / path for path in listed if path.startswith("docs/") and path.endswith(".md")]
    links = {
        f"docs/{link}"
        for page in pages
        for link in re.findall(r"\]\(([a-z][^):#]*)[)#]", page.read_text())
    }
    assert len(links) > 5
    assert [link for link in links if not link.startswith(tuple(listed))] == []
