# SPDX-License-Identifier: Apache-2.0
"""Which kernels there are, and which guests boot them. A new guest is a new row."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Suite(NamedTuple):
    """Where packages are published."""

    label: str
    """Of the archive, as its Release file has it: it tells which mirror of the host's."""
    name: str


_SECURITY: Final = "Debian-Security"
_DEBIAN: Final = "Debian"

SERIES: Final[Mapping[str, tuple[Suite, ...]]] = {
    "6.1": (Suite(_SECURITY, "bookworm-security"), Suite(_DEBIAN, "bookworm")),
    "6.12": (
        Suite(_SECURITY, "bookworm-security"), Suite(_SECURITY, "trixie-security"),
        Suite(_DEBIAN, "trixie"),
    ),
    "7.2": (Suite(_DEBIAN, "trixie-backports"), Suite(_DEBIAN, "sid")),
}  # fmt: skip
"""The first suite that has a kernel of the series gives its newest one."""


class Guest(NamedTuple):
    """A kernel, what is wrong with it, and the tests that pass there all the same."""

    series: str
    tests: tuple[str, ...]
    """Arguments of pytest."""
    probe: str = "auto"
    """``BPFSNOOP_PROBE``: what the tests have bpfsnoop attach to."""
    kernel: str = ""
    """More of the kernel's command line."""
    prepare: str = ""
    """A line of shell that makes the guest what it is to be, or checks that it is."""
    dead: tuple[str, ...] = ()
    """Probes that cannot trace there, and of which bpfsnoop is to say so (degraded.py)."""
    flavour: str = "cloud-amd64"
    """Of the kernel. Debian's ``amd64`` has more built in, and is three times as large."""
    timeout_s: int = 1800
    """Far more than it takes, as hosts differ."""


_OBJECTS: Final = ("tests/test_live_objects.py", "-k", "not replay and not lines")
_NOTICED: Final = "tests/kernels/degraded.py"
_CALLS: Final = (
    "tests/test_live.py", "tests/test_live_memory.py", "tests/test_live_objects.py",
    # What a recording holds is shown alike on every host.
    "-k", "not replay and not line and not summary and not column and not times and not named_only",
)  # fmt: skip


_ATTACKS: Final = (
    "tests/test_live_hostile.py", "tests/test_live_paths.py", "--deselect",
    "tests/test_live_paths.py::test_calls_of_the_other_abis[x32]",  # see 6.1-x32
)  # fmt: skip
_TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tracepoint": _CALLS,
    "raw_tracepoint": _CALLS,
    "fentry": _ATTACKS,
    "kprobe": _ATTACKS,
    "lsm": _ATTACKS,
}
_SOUND: Final = {
    f"{series}-{probe}": Guest(series, tests, probe)
    for series in SERIES
    for probe, tests in _TESTS.items()
}
_WORKING: Final = (_NOTICED, *_OBJECTS)
# Where anybody may try to load programs, and root may load all kinds.
_JUDGED: Final = {
    f"{series}-rules": Guest(
        series, ("tests/test_live_rules.py", "-k", "not what_hosts_do and not within_systemd"),
        prepare="echo 0 >/proc/sys/kernel/unprivileged_bpf_disabled",
    )
    for series in ("6.12", "7.2")
}  # fmt: skip
_DEGRADED: Final = {
    "6.12-no-lsm": Guest(
        "6.12", _WORKING, kernel="lsm=landlock,yama", dead=("lsm",),
        prepare="! grep -q bpf /sys/kernel/security/lsm",
    ),
    "6.12-no-kprobes": Guest(
        "6.12", _WORKING, dead=("kprobe",), prepare="echo 0 >/sys/kernel/debug/kprobes/enabled",
    ),
    "6.12-lockdown": Guest(
        "6.12", (_NOTICED,), kernel="lsm=lockdown,yama,bpf lockdown=confidentiality",
        prepare="grep -qF '[confidentiality]' /sys/kernel/security/lockdown",
        dead=("tracepoint", "fentry", "kprobe", "lsm"),
    ),
    "6.1-x32": Guest(
        "6.1", (*_WORKING, "tests/test_live_paths.py"), kernel="syscall.x32=y", flavour="amd64",
        prepare="grep -q Y /sys/module/syscall/parameters/x32",
    ),
}  # fmt: skip
GUESTS: Final[Mapping[str, Guest]] = _SOUND | _JUDGED | _DEGRADED
