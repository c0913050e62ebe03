# SPDX-License-Identifier: Apache-2.0
"""Cgroups: whose container a path is, the directory of a path and the path of an id."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.decoders.container import container_of
from bpfsnoop.events.process import Container
from bpfsnoop.tracer import cgroup, libc
from bpfsnoop.tracer.cgroup import CgroupPaths, cgroup_directory
from bpfsnoop.tracer.process import ProcFs

ID = "0123456789abcdef" * 4
INNER = "fedcba9876543210" * 4
UID = "8a7e5b1c-0d2f-4e3a-9b6c-112233445566"
UID_ = UID.replace("-", "_")
STATIC = "00112233445566778899aabbccddeeff"

# --- Whose container it is ---------------------------------------------------------------

CONTAINERS = [
    # docker
    (f"/docker/{ID}", ID, "docker", ""),
    (f"/system.slice/docker-{ID}.scope", ID, "docker", ""),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope",
     ID, "docker", ""),
    (f"/system.slice:docker:{ID}", ID, "docker", ""),
    (f"/system.slice/docker-{ID}.scope/init.scope", ID, "docker", ""),
    (f"/system.slice/docker-{ID}.scope/system.slice/ssh.service", ID, "docker", ""),
    (f"/docker/{ID}/docker/{INNER}", INNER, "docker", ""),
    (f"/ci-jobs/{ID}", ID, "", ""),  # docker run --cgroup-parent
    # containerd and Kubernetes
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"
     f"/cri-containerd-{ID}.scope", ID, "containerd", UID),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
     ID, "containerd", UID),
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{STATIC}.slice"
     f"/cri-containerd-{ID}.scope", ID, "containerd", STATIC),
    (f"/kubepods/besteffort/pod{UID}/{ID}", ID, "", UID),
    (f"/kubepods/pod{STATIC}/{ID}", ID, "", STATIC),
    (f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}",
     ID, "containerd", UID),
    (f"/kubepods/burstable/pod{UID}/{ID}/init.scope", ID, "", UID),
    (f"/docker/{INNER}/kubelet.slice/kubelet-kubepods.slice"
     f"/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope", ID, "containerd", UID),
    (f"/kubepods/pod{STATIC}/{INNER}/kubelet/kubepods/pod{UID}/{ID}", ID, "", UID),
    (f"/kubepods/pod{UID}/{ID}/docker/{INNER}", INNER, "docker", UID),
    (f"/user.slice/nerdctl-{ID}.scope", ID, "containerd", ""),
    (f"/default/{ID}", ID, "", ""),
    # cri-o
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope", ID, "cri-o", UID),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container", ID, "cri-o", UID),
    (f"/kubepods/besteffort/pod{UID}/crio-{ID}", ID, "cri-o", UID),
    # podman
    (f"/machine.slice/libpod-{ID}.scope", ID, "podman", ""),
    (f"/machine.slice/libpod-{ID}.scope/container", ID, "podman", ""),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
     ID, "podman", ""),
    (f"/system.slice/web.service/libpod-payload-{ID}", ID, "podman", ""),
    (f"/libpod_parent/libpod-{ID}", ID, "podman", ""),
    # lxc
    ("/lxc/web", "web", "lxc", ""),
    ("/lxc/101/ns/init.scope", "101", "lxc", ""),
    ("/lxc.payload.web", "web", "lxc", ""),
    ("/lxc.payload.my.web/system.slice/cron.service", "my.web", "lxc", ""),
    ("/lxc.payload/web", "web", "lxc", ""),
    ("/user/1000.user/1.session/lxc/c1", "c1", "lxc", ""),
    ("/lxc.payload.a/lxc.payload.b", "b", "lxc", ""),
    ("/lxc.payload.a/lxc.monitor.b", "a", "lxc", ""),
    (f"/lxc.payload.a/docker/{ID}", ID, "docker", ""),
    # systemd-nspawn
    ("/machine.slice/machine-deb.scope", "deb", "systemd-nspawn", ""),
    (r"/machine.slice/machine-my\x2ddeb.scope/payload/init.scope", "my-deb",
     "systemd-nspawn", ""),
    ("/machine.slice/systemd-nspawn@deb.service/payload", "deb", "systemd-nspawn", ""),
    (r"/machine.slice/systemd-nspawn@my\x2ddeb-1.service/payload/system.slice", "my-deb-1",
     "systemd-nspawn", ""),
    (r"/machine.slice/machine-qemu.scope", "qemu", "systemd-nspawn", ""),
]  # fmt: skip

NO_CONTAINERS = [
    "",
    "/",
    "/init.scope",
    "/system.slice/docker.service",
    "/system.slice/containerd.service",
    "/docker",
    "/docker/buildkit",
    f"/docker-{ID[:-1]}.scope",
    f"/docker-{ID}0.scope",
    f"/docker-{ID.upper()}.scope",
    f"/docker-{ID}.scope.d",
    f"/docker-{ID}.scope\n",
    f"/x-docker-{ID}.scope",
    f"/kubepods/besteffort/pod{UID}",
    f"/kubepods.slice/kubepods-pod{UID_}.slice",
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope",
    f"/machine.slice/libpod-conmon-{ID}.scope",
    "/system.slice/web.service/runtime",
    "/libpod_parent/conmon",
    "/lxc",
    "/lxc/",
    "/lxc.monitor.web",
    "/lxc.monitor/web",
    "/lxc.payload.",
    "/machine.slice",
    "/machine.slice/machine-deb.scope/supervisor",
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
    "/machine.slice/systemd-nspawn@deb.service",
    "/machine.slice/systemd-nspawn@deb.service/supervisor",
]


@pytest.mark.parametrize(("path", "identity", "runtime", "pod"), CONTAINERS)
def test_container(path: str, identity: str, runtime: str, pod: str) -> None:
    expected = Container(identity, runtime, pod)
    assert container_of(path) == expected
    assert container_of(path.encode()) == expected


@pytest.mark.parametrize("path", NO_CONTAINERS)
def test_no_container(path: str) -> None:
    assert container_of(path) is None


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        (b"/lxc/\x1b[2J\n\xff", r"\33[2J\n\377"),
        (rb"/machine-\x1b\x5b2J\x0a.scope", r"\33[2J\n"),
        (b"/lxc.payload.a\\b", r"a\\b"),
    ],
)
def test_a_name_cannot_reach_the_terminal(path: bytes, identity: str) -> None:
    found = container_of(path)
    assert found is not None
    assert found.id == identity


PIECES = st.sampled_from(
    [b"/", b"docker", b"lxc", b"lxc.payload.", b"machine-", b".scope", b".slice", b"payload",
     b":cri-containerd:", b"crio-", b"systemd-nspawn@", b".service", b"kubepods-", b"pod",
     b"\\x2d", b"\n", b"\0", b"\xff", ID.encode(), UID.encode(), STATIC.encode()]
)  # fmt: skip


@given(st.binary() | st.lists(PIECES).map(b"".join))
def test_any_bytes_have_an_answer(path: bytes) -> None:
    found = container_of(path)
    assert found is None or all(part.isascii() and part.isprintable() for part in found)
    assert found is None or found.id


@given(st.text())
def test_any_text_has_an_answer(path: str) -> None:
    container_of(path)
    container_of(path + "\ud800")


@given(st.sampled_from([path.encode() for path, *_ in CONTAINERS if path[-1] != "/"]), st.binary())
def test_what_is_below_a_container_is_in_one(path: bytes, below: bytes) -> None:
    assert container_of(path + b"/system.slice/" + below.replace(b"/", b"")) is not None


@pytest.mark.parametrize(
    "piece",
    [b"/", b"a", b"/docker", b"machine-", b"kubepods-", b"kubepods-pod", b":docker:", b"\\x2d",
     b"/pod", b"0", b"lxc.payload.", b"systemd-nspawn@", b".scope", b"/machine-a/payload"],
)  # fmt: skip
def test_time_is_linear(piece: bytes) -> None:
    """A square would be minutes here."""
    start = time.process_time()
    container_of(piece * (1_000_000 // len(piece)))
    container_of(b"/docker/" + ID.encode() + b"/" + piece * (1_000_000 // len(piece)))
    assert time.process_time() - start < 10


# --- Ids and mounts, in a directory that stands in for cgroupfs --------------------------


def _line(point: Path, root: str = "/", fstype: str = "cgroup2") -> str:
    device = point.stat().st_dev
    escaped = str(point).replace("\\", r"\134").replace(" ", r"\040")
    return (
        f"41 31 {os.major(device)}:{os.minor(device)} {root} {escaped}"
        f" rw,relatime shared:9 master:1 - {fstype} none rw\n"
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    point = tmp_path / "a cgroup\\2"
    (point / "system.slice" / "x.service").mkdir(parents=True)
    (point / "file").write_bytes(b"")
    return point


@pytest.fixture
def mountinfo(tmp_path: Path, mounted: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(
        "nonsense\n\n1 2 - cgroup2\n" + _line(tmp_path, fstype="tmpfs") + _line(mounted)
    )
    return path


@pytest.mark.parametrize(
    "spelling",
    ["{}/system.slice/x.service", "{}/system.slice/x.service/", "/system.slice/x.service",
     "system.slice/x.service", "//system.slice/../system.slice/x.service"],
)  # fmt: skip
def test_directory_of_a_path(mounted: Path, mountinfo: Path, spelling: str) -> None:
    found = cgroup_directory(spelling.format(mounted), str(mountinfo))
    assert Path(found).samefile(mounted / "system.slice/x.service")
    assert os.path.isabs(found)


def test_directory_of_the_root(mounted: Path, mountinfo: Path) -> None:
    for spelling in "", ".", str(mounted):
        assert Path(cgroup_directory(spelling, str(mountinfo))).samefile(mounted)


@pytest.mark.parametrize("path", ["/nowhere", "file", "/proc", "a\0b", "\udcff", "x" * 5000])
def test_what_is_no_cgroup_is_said(mounted: Path, mountinfo: Path, path: str) -> None:
    with pytest.raises(ValueError, match="is not a cgroup: there is no such directory under"):
        cgroup_directory(path, str(mountinfo))


def test_no_cgroup2_is_said(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(_line(tmp_path, fstype="cgroup"))
    for name in "mountinfo", "nowhere":
        with pytest.raises(ValueError, match="no cgroup2 file system is mounted here: mount it"):
            cgroup_directory("/", str(tmp_path / name))
        with CgroupPaths(str(tmp_path / name)) as paths:
            assert not paths.mounted
            assert paths.path(1) is None


def test_a_mount_of_all_is_preferred(tmp_path: Path, mounted: Path) -> None:
    other = tmp_path / "part"
    (other / "web").mkdir(parents=True)
    part = _line(other, root="/docker")
    info = tmp_path / "mountinfo"
    info.write_text(part + _line(mounted))
    assert Path(cgroup_directory("/system.slice", str(info))).samefile(mounted / "system.slice")
    # As seen from a cgroup namespace, all is below /..
    info.write_text(part + _line(mounted, root="/../.."))
    assert Path(cgroup_directory("/system.slice", str(info))).samefile(mounted / "system.slice")
    info.write_text(part)
    assert Path(cgroup_directory("/docker/web", str(info))).samefile(other / "web")
    assert Path(cgroup_directory("/docker", str(info))).samefile(other)


def test_a_mount_that_something_covers_is_not_used(tmp_path: Path, mounted: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(_line(mounted).replace(":", ":9", 1))
    with pytest.raises(ValueError, match="no cgroup2"):
        cgroup_directory("/system.slice", str(info))


@given(st.binary())
def test_any_mountinfo_is_survived(data: bytes) -> None:
    list(cgroup.mounts(data, b"cgroup2"))
    list(cgroup.mounts(b"1 2 " + data + b" - cgroup2 none rw", b"cgroup2"))


@pytest.fixture
def by_handle(monkeypatch: pytest.MonkeyPatch) -> dict[int, Path]:
    """Stands in for open_by_handle_at(2): what is found by which id."""
    found: dict[int, Path] = {}

    def open_by_handle(mount_fd: int, handle_type: int, handle: bytes) -> int:
        assert (handle_type, len(handle)) == (0xFE, 8)
        try:
            return os.open(found[int.from_bytes(handle, sys.byteorder)], os.O_PATH)
        except KeyError:
            raise OSError(116, "stale") from None

    monkeypatch.setattr(libc, "open_by_handle", open_by_handle)
    return found


def test_path_of_an_id(mounted: Path, mountinfo: Path, by_handle: dict[int, Path]) -> None:
    by_handle.update({1: mounted, 2: mounted / "system.slice/x.service"})
    with CgroupPaths(str(mountinfo)) as paths:
        assert paths.path(1) == b"/"
        assert paths.path(2) == b"/system.slice/x.service"
        for unknown in (0, 3, -1, 1 << 64):
            assert paths.path(unknown) is None
        by_handle.clear()
        assert paths.path(2) == b"/system.slice/x.service"
    assert paths.path(2) == b"/system.slice/x.service"
    assert paths.path(3) is None


def test_path_in_a_mount_of_a_part(
    tmp_path: Path, mounted: Path, by_handle: dict[int, Path]
) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(_line(mounted, root="/docker/abc"))
    by_handle.update({1: mounted, 2: mounted / "system.slice", 3: Path("/proc")})
    with CgroupPaths(str(info)) as paths:
        assert paths.path(1) == b"/docker/abc"
        assert paths.path(2) == b"/docker/abc/system.slice"
        assert paths.path(3) == b"/proc"


def test_what_is_kept_is_bounded(
    mounted: Path, mountinfo: Path, by_handle: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "CACHE_ENTRIES", 10)
    by_handle.update(dict.fromkeys(range(1, 100), mounted))
    with CgroupPaths(str(mountinfo)) as paths:
        for number in by_handle:
            assert paths.path(number) == b"/"
        by_handle.clear()
        assert [number for number in range(1, 100) if paths.path(number)] == [*range(90, 100)]


# --- The real one ------------------------------------------------------------------------


@pytest.fixture
def cgroup2(tmp_path: Path) -> Iterator[Path]:
    """Where cgroup2 is mounted; it is for the length of a test, if it was not."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, fstype, *_ = line.split(" ")
        if fstype == "cgroup2":
            yield Path(point)
            return
    subprocess.run(["mount", "-t", "cgroup2", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.live
@pytest.mark.parametrize(
    "name", [b"plain", b"a b\\c", b"\xff\x1b[2J", b"gone (deleted)", b"x" * 200]
)
def test_a_cgroup_by_its_id(cgroup2: Path, name: bytes) -> None:
    name = b"bpfsnoop-test-%d-" % os.getpid() + name
    directory = bytes(cgroup2) + b"/" + name
    os.mkdir(directory)
    try:
        number = os.stat(directory).st_ino
        for spelling in (b"/" + name, directory):
            assert os.stat(cgroup_directory(os.fsdecode(spelling))).st_ino == number
        with CgroupPaths() as paths:
            assert paths.mounted
            assert paths.path(number) == b"/" + name
            assert paths.path(os.stat(cgroup_directory("/")).st_ino) == b"/"
            a_file = os.stat(directory + b"/cgroup.procs").st_ino
            assert paths.path(a_file) is None
            os.rmdir(directory)
            assert paths.path(number) == b"/" + name
        with CgroupPaths() as paths:
            assert paths.path(number) is None
    finally:
        if os.path.exists(directory):
            os.rmdir(directory)


@pytest.mark.live
def test_a_cgroup_that_is_no_more_while_we_hold_it(
    cgroup2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed after it was opened: the kernel says so in the path."""
    directory = cgroup2 / f"bpfsnoop-test-{os.getpid()}"
    directory.mkdir()
    real = libc.open_by_handle

    def open_and_remove(mount_fd: int, handle_type: int, handle: bytes) -> int:
        fd = real(mount_fd, handle_type, handle)
        directory.rmdir()
        assert os.readlink(f"/proc/self/fd/{fd}").endswith(" (deleted)")
        return fd

    number = directory.stat().st_ino
    monkeypatch.setattr(libc, "open_by_handle", open_and_remove)
    with CgroupPaths() as paths:
        assert paths.path(number) == b"/" + os.fsencode(directory.name)


@pytest.mark.live
def test_the_cgroup_of_a_process_that_is_no_more(cgroup2: Path) -> None:
    directory = cgroup2 / f"docker-{ID}.scope"
    directory.mkdir()
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            (directory / "cgroup.procs").write_text(str(child.pid))
        with CgroupPaths() as cgroups:
            found = ProcFs(cgroups=cgroups).surroundings(child.pid, 1, directory.stat().st_ino)
        assert found.args is None
        assert "cgroup" not in found.missing
        assert found.cgroup == b"/" + bytes(directory.relative_to(cgroup2))
        assert found.container == Container(ID, "docker", "")
    finally:
        directory.rmdir()
