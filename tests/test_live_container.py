# SPDX-License-Identifier: Apache-2.0
"""The capabilities and mounts of the Kubernetes manifest are enough, as far as that can be tried
without a container runtime, whose seccomp and AppArmor profiles are not there.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifest import CAPABILITIES
from running import Stimulus
from service import Daemon, directory, until

pytestmark = pytest.mark.live

SCRIPT = Path(__file__).with_name("container.sh")


@pytest.fixture
def home() -> Path:
    return directory()


def _confined(home: Path, map_types: bool) -> tuple[str, ...]:
    wanted = [name for name in CAPABILITIES if map_types or name != "SYS_ADMIN"]
    bounds = ",".join(f"+{name.lower()}" for name in wanted)
    return str(SCRIPT), bounds, str(home)


@pytest.fixture(params=[True, False], ids=["map_types", "no_map_types"])
def daemon(home: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    types: bool = request.param
    under = _confined(home, types)
    with Daemon(home, under=under, map_types=types, metrics="") as running:
        yield running.ready()


def test_calls_of_the_host_are_known_in_full(daemon: Daemon) -> None:
    """Of a process outside: executable, directory, ancestors, cgroup."""
    with Stimulus("sleepy", under=("env", "-C", "/proc")) as sleepy:
        (made,) = sleepy.poke(1)
        (document,) = until(
            lambda: [
                one for one in daemon.documents() if one.get("process", {}).get("pid") == made.tgid
            ],
            "its call",
        )
    process, ours = document["process"], document["bpf"]["process"]
    assert process["working_directory"] == "/proc"
    assert process["executable"].startswith("/")
    assert process["ancestors"][-1]["pid"] == 1
    assert ours["exe_authentic"] in (True, False)
    assert ours["cgroup"].startswith("/")
    assert "absent" not in ours


def test_it_reloads_and_ends_in_order(daemon: Daemon) -> None:
    assert daemon.hang_up()["event"]["outcome"] == "success"
    assert daemon.stop().status == 0
    assert daemon.documents("loss")[-1]["bpf"]["loss"]["final"] is True
