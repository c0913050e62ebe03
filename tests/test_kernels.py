# SPDX-License-Identifier: Apache-2.0
"""What boots other kernels, as far as that needs none."""

import lzma
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from bpfsnoop.tracer.config import PROBES
from kernels import matrix
from kernels.archive import by_number, kernel, mirrors, newest, unpacked
from kernels.guest import LOST, Ended, accelerator, outcome
from kernels.initramfs import File, depends, initramfs, load_order, newc
from kernels.refused import CannotRun
from kernels.report import Counts
from kernels.table import GUESTS, SERIES
from running import ROOT

# --- The table ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_is_of_a_series_and_runs_tests_that_are_there(name: str) -> None:
    guest = GUESTS[name]
    assert name.startswith(f"{guest.series}-")
    assert guest.series in SERIES
    assert guest.probe in PROBES
    files = [test for test in guest.tests if test.startswith("tests/")]
    assert files
    assert all((ROOT / test.partition("::")[0]).exists() for test in files)


def test_every_kernel_runs_with_every_probe() -> None:
    whole = {
        (guest.series, guest.probe)
        for guest in GUESTS.values()
        if not guest.kernel and not guest.prepare
    }
    every = {(series, probe) for series in SERIES for probe in PROBES if probe != "auto"}
    assert whole == every


# --- The archive -------------------------------------------------------------------------


def test_the_newest_release_is_taken_with_all_its_parts() -> None:
    packages = [
        "linux-binary-7.2.9+deb14-cloud-amd64", "linux-modules-7.2.9+deb14-cloud-amd64",
        "linux-modules-7.2.12+deb14-cloud-amd64", "linux-base-7.2.12+deb14-cloud-amd64",
        "linux-binary-7.2.12+deb14-cloud-amd64",
    ]  # fmt: skip
    release, parts = newest(packages)
    assert release == "7.2.12+deb14-cloud-amd64"
    assert parts == sorted(packages[2:])


def test_numbers_are_compared_as_such() -> None:
    releases = ["6.1.0-50-cloud-amd64", "6.1.0-9-cloud-amd64", "6.1.0-47-cloud-amd64"]
    assert sorted(releases, key=by_number) == [releases[1], releases[2], releases[0]]


def test_a_suite_without_the_series_says_so() -> None:
    with pytest.raises(CannotRun, match="has none"):
        newest([])


def test_the_first_mirror_of_an_archive_is_used() -> None:
    targets = "Debian|http://one/debian/\nDebian-Security|http://two/\nDebian|http://three/\n"
    assert mirrors(targets) == {"Debian": "http://one/debian/", "Debian-Security": "http://two/"}


def test_a_kernel_that_was_fetched_is_not_asked_for_again(tmp_path: Path) -> None:
    """The newest of its series; 6.1 does not begin 6.12."""
    for release in ("6.1.0-9", "6.1.0-50", "6.12.9"):
        tree = tmp_path / "cloud-amd64" / release
        (tree / "boot").mkdir(parents=True)
        (tree / "boot" / f"vmlinuz-{release}").touch()
        (tree / "lib" / "modules" / release).mkdir(parents=True)
    found = kernel("6.1", "cloud-amd64", tmp_path)
    assert found.release == "6.1.0-50"
    assert found.image.name == "vmlinuz-6.1.0-50"
    assert found.modules.name == "6.1.0-50"


def test_an_empty_tree_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no kernel in"):
        unpacked(tmp_path)


# --- What a guest starts from ------------------------------------------------------------


def _unpack(archive: bytes, directory: Path) -> None:
    busybox = shutil.which("busybox")
    command = [busybox, "cpio"] if busybox else ["cpio"]
    if not busybox and not shutil.which("cpio"):
        pytest.skip("neither cpio nor busybox is here")
    subprocess.run([*command, "-id"], input=archive, cwd=directory, check=True)


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    content = {"etc/odd": b"12345", "etc/even": b"1234", "empty": b"", "binary": bytes(range(256))}
    etc = File(mode=stat.S_IFDIR | 0o755)
    _unpack(newc({"etc": etc} | {name: File(data) for name, data in content.items()}), tmp_path)
    for name, data in content.items():
        assert (tmp_path / name).read_bytes() == data
        assert os.access(tmp_path / name, os.X_OK)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(content)


def _module(modinfo: bytes) -> bytes:
    """An ELF file with such a section and one of names."""
    names = b"\0.shstrtab\0.modinfo\0"
    content = names + modinfo
    header = struct.pack("<40xQ10xHHH", 64 + len(content), 64, 3, 1)
    sections = [(0, 0, 0), (1, 64, len(names)), (11, 64 + len(names), len(modinfo))]
    return header + content + b"".join(struct.pack("<I20xQQ24x", *section) for section in sections)


@pytest.mark.parametrize(
    ("modinfo", "expected"),
    [
        (b"license=GPL\0depends=fuse,virtio_ring\0name=virtiofs\0", ["fuse", "virtio_ring"]),
        (b"depends=\0name=fuse\0", []),
        (b"license=GPL\0", []),
        (b"", []),
    ],
)
def test_dependencies_are_read_from_the_module(modinfo: bytes, expected: list[str]) -> None:
    assert depends(_module(modinfo)) == expected


def test_modules_are_loaded_after_what_they_need() -> None:
    needs = {"a": ["b", "c"], "b": ["d"], "c": ["d", "builtin"], "d": [], "e": ["b"]}
    order = load_order(["builtin", "a", "e"], needs.__getitem__, ["builtin"])
    assert order == ["d", "b", "c", "a", "e"]


def test_a_guest_starts_from_its_modules_in_order(tmp_path: Path) -> None:
    """Files may be compressed, and called with dashes."""
    modules, out = tmp_path / "modules", tmp_path / "out"
    (modules / "kernel" / "fs").mkdir(parents=True)
    out.mkdir()
    (modules / "modules.builtin").write_text("kernel/virtio_pci.ko\nkernel/overlay.ko\n")
    console, fuse, virtiofs = (
        _module(b"name=%s\0depends=%s\0" % about)
        for about in ((b"virtio_console", b""), (b"fuse", b""), (b"virtiofs", b"fuse"))
    )
    (modules / "kernel/fs/fuse.ko").write_bytes(fuse)
    (modules / "kernel/fs/virtiofs.ko.xz").write_bytes(lzma.compress(virtiofs))
    (modules / "kernel/fs/virtio-console.ko").write_bytes(console)
    _unpack(initramfs(modules, {"init": b"#!", "guest/command": b"true"}), out)
    loaded = [path.read_bytes() for path in sorted((out / "modules").iterdir())]
    assert loaded == [console, fuse, virtiofs]
    assert (out / "guest" / "command").read_bytes() == b"true"


# --- How it ended ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("started 6.1.0\nended 0\n", 0),
        ("started 6.1.0\nended 137\n", 137),
        ("started 6.1.0\n", LOST),
        ("unprepared\n", LOST),
        ("", LOST),
    ],
)
def test_a_guest_that_did_not_end_was_lost(told: str, status: int) -> None:
    found, why = outcome(told)
    assert found == status
    assert bool(why) == (status == LOST)


def test_kvm_is_used_only_where_guests_need_not_know_of_it(tmp_path: Path) -> None:
    (tmp_path / "kvm_pvm").mkdir()
    assert "kvm" not in accelerator(tmp_path)
    (tmp_path / "kvm_amd").mkdir()
    assert "kvm" in accelerator(tmp_path)


JUNIT = (
    '<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="2" '
    'skipped="3" tests="10"/></testsuites>'
)


def test_tests_are_counted() -> None:
    assert Counts.of(JUNIT) == Counts(passed=4, failed=3, skipped=3)
    assert Counts.of("") == Counts()


@pytest.mark.parametrize(
    ("ended", "counts", "problem"),
    [
        ((0, ""), Counts(passed=7), ""),
        ((0, ""), Counts(), "no test ran"),
        ((5, ""), Counts(), "status 5"),
        ((0, ""), Counts(passed=7, skipped=1), "skipped"),
        ((1, ""), Counts(passed=7, failed=1), "status 1"),
        ((LOST, "gone"), Counts(), "gone"),
    ],
)
def test_only_a_guest_in_which_all_passed_has_passed(
    tmp_path: Path, ended: tuple[int, str], counts: Counts, problem: str
) -> None:
    told = matrix.problem(Ended(*ended, tmp_path), counts)
    assert problem in told
    assert bool(problem) == bool(told)
