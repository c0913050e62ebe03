# SPDX-License-Identifier: Apache-2.0
"""Whether the host has a file at a path, and that nothing is waited for to find out."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfsnoop.events.process import Missing, Surroundings
from bpfsnoop.tracer import host, libc
from bpfsnoop.tracer.host import HostMounts
from calls import image_of

DEV = 8 << 20 | 300
"""8:300"""
LINE = b"%d 25 %s / %s rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
NOTHING = Surroundings(None, False, None, (), False, None, None, {})


class Known(NamedTuple):
    """What fdinfo says of a file, as there is no other way to ask for it."""

    mount: int
    ino: int


def known(path: Path) -> Known:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    finally:
        os.close(fd)
    fields = dict(line.split(":\t") for line in lines)
    return Known(int(fields["mnt_id"]), int(fields["ino"]))


class FakeHost:
    """A /proc in a directory, and the root of process 1 in another."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        self.proc = path / "proc"
        (self.root / "usr/bin").mkdir(parents=True)
        self.exe = self.root / "usr/bin/agent"
        self.exe.write_bytes(b"")
        self.known = known(self.exe)
        (self.proc / "1/ns").mkdir(parents=True)
        (self.proc / "1/ns/mnt").write_bytes(b"")
        (self.proc / "1/root").symlink_to(self.root)
        (self.proc / "self").symlink_to("/proc/self")
        self.mounted((b"8:300", b"/"))

    def mounted(self, *mounts: tuple[bytes, bytes]) -> None:
        """Device and place of each mount; all have the number of the one that we are in."""
        lines = [LINE % (self.known.mount, device, point) for device, point in mounts]
        (self.proc / "1/mountinfo").write_bytes(b"".join(lines))

    def has(self, path: bytes = b"/usr/bin/agent", dev: int = DEV) -> bool | Missing:
        return HostMounts(str(self.proc)).has(path, dev, self.known.ino)


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_the_same_file(fake: FakeHost) -> None:
    assert fake.has() is True


def test_another_file_at_that_path(fake: FakeHost) -> None:
    """It has a number of its own while the other one is there."""
    fake.exe.rename(fake.root / "old")
    fake.exe.write_bytes(b"")
    assert fake.has() is False
    assert fake.has(b"/old") is True


@pytest.mark.parametrize("path", [b"/usr/bin/none", b"/none/agent", b"/usr/bin/agent/x"])
def test_no_such_path(fake: FakeHost, path: bytes) -> None:
    assert fake.has(path) is False


def test_symbolic_links_are_not_followed(fake: FakeHost) -> None:
    """They lead where somebody likes, and are no part of a path that the kernel tells."""
    (fake.root / "bin").symlink_to("usr/bin")
    (fake.root / "agent").symlink_to("usr/bin/agent")
    assert fake.has(b"/bin/agent") is False
    assert fake.has(b"/agent") is False


def test_the_root_is_that_of_process_1(fake: FakeHost) -> None:
    assert fake.has(bytes(fake.exe)) is False
    assert fake.has(b"/../usr/bin/agent") is True  # it is not left


@pytest.mark.parametrize(
    ("mounts", "same"),
    [
        ([(b"8:300", b"/")], True),
        ([(b"8:301", b"/")], False),
        ([(b"0:8300", b"/")], False),
        ([(b"8:301", b"/"), (b"8:300", b"/usr")], True),
        ([(b"8:301", b"/"), (b"8:300", b"/usr/bin/agent")], True),
        ([(b"8:300", b"/usr"), (b"8:301", b"/")], True),
        ([(b"8:300", b"/"), (b"8:301", b"/usr/bin")], False),
        ([(b"8:300", b"/"), (b"8:301", b"/usr/bin"), (b"8:300", b"/usr/bin")], True),
        ([(b"8:300", b"/"), (b"8:301", b"/us"), (b"8:301", b"/usr/bin/agents")], True),
        ([(b"8:301", b"/"), (b"8:300", b"/opt")], False),
        ([], False),
    ],
)
def test_the_mount_of_a_path_is_the_nearest_one(
    fake: FakeHost, mounts: list[tuple[bytes, bytes]], same: bool
) -> None:
    fake.mounted(*mounts)
    assert fake.has() is same


def test_places_of_mounts_are_escaped(fake: FakeHost) -> None:
    (fake.root / "a b\\").mkdir()
    fake.exe.rename(fake.root / "a b\\/agent")
    fake.mounted((b"8:301", b"/"), (b"8:300", rb"/a\040b\134"))
    assert fake.has(b"/a b\\/agent") is True


@pytest.mark.parametrize("mounts", [[(b"8:301", b"/")], [(b"8:300", b"/"), (b"0:9", b"/usr")]])
def test_what_is_on_another_file_system_is_not_looked_up(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, mounts: list[tuple[bytes, bytes]]
) -> None:
    """It may be anybody's, who would not answer."""
    fake.mounted(*mounts)
    monkeypatch.setattr(libc, "open_path", lambda *_: pytest.fail("looked up"))
    assert fake.has() is False


def test_a_file_server_that_came_since_is_not_waited_for(fake: FakeHost) -> None:
    """Who may mount one below a directory of his own chooses the moment, and when to answer."""
    place = fake.root / "usr/bin/served"
    place.mkdir()
    with silent_file_server(place):
        assert fake.has(b"/usr/bin/served/agent") is False


@contextmanager
def silent_file_server(place: Path) -> Iterator[None]:
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
    mount = ["mount", "-i", "-t", "fuse", "-o", options, "none", str(place)]
    gives_up = threading.Timer(5, os.close, [fd])  # so that whoever waits fails
    try:
        if os.geteuid() or subprocess.run(mount, pass_fds=[fd], check=False).returncode:
            pytest.skip("no file server can be mounted")
        gives_up.start()
        yield
    finally:
        if gives_up.is_alive():
            gives_up.cancel()
            os.close(fd)
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_another_mount_than_the_list_has(fake: FakeHost) -> None:
    """One that hides the nearest, or that came since."""
    line = LINE % (fake.known.mount + 1, b"8:300", b"/")
    (fake.proc / "1/mountinfo").write_bytes(line)
    assert fake.has() is False


@pytest.mark.parametrize("kind", [b"btrfs", b"bcachefs"])
def test_numbers_of_inodes_that_are_not_unique(fake: FakeHost, kind: bytes) -> None:
    """There each subvolume has its own: whoever may write to one makes files with the number
    that a file of the host has in another."""
    mountinfo = fake.proc / "1/mountinfo"
    mountinfo.write_bytes(mountinfo.read_bytes().replace(b" ext4 ", b" %s " % kind))
    assert fake.has() is Missing.SUBVOLUMES
    fake.mounted((b"8:301", b"/"), (b"8:300", b"/mnt"))
    mountinfo.write_bytes(mountinfo.read_bytes().replace(b" ext4 ", b" %s " % kind))
    assert fake.has() is False


@pytest.mark.parametrize("mounts", [b" 8:300 ", b"\n8 8:300 \n", b"x y 8:300 / / rw\n"])
def test_a_list_that_is_none(fake: FakeHost, mounts: bytes) -> None:
    (fake.proc / "1/mountinfo").write_bytes(mounts)
    assert fake.has() is Missing.NONSENSE


@given(st.binary(), st.binary(max_size=20))
def test_any_list_is_read_or_refused(data: bytes, path: bytes) -> None:
    try:
        host._mount_of(path, DEV, data + b"1 2 8:300 / / rw")
    except ValueError:
        pass


def test_a_list_that_has_no_end(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_MOUNTS_BYTES", 10)
    assert fake.has() is Missing.NONSENSE


def test_what_cannot_be_read(fake: FakeHost) -> None:
    (fake.proc / "1/root").unlink()
    (fake.proc / "1/root").write_bytes(b"")
    assert fake.has() is Missing.UNREADABLE
    (fake.proc / "1/mountinfo").unlink()
    assert fake.has() is Missing.UNREADABLE


def test_a_kernel_that_does_not_tell_the_number_of_an_inode(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fdinfo has it since Linux 5.14."""
    (fake.proc / "self").unlink()
    fdinfo = fake.proc / "self/fdinfo"
    fdinfo.mkdir(parents=True)
    fd = os.open(fake.exe, os.O_PATH)
    (fdinfo / str(fd)).write_bytes(b"pos:\t0\nflags:\t012000000\nmnt_id:\t28\n")
    monkeypatch.setattr(libc, "open_path", lambda *_: fd)
    assert fake.has() is Missing.UNREADABLE


def test_it_keeps_nothing_open(fake: FakeHost) -> None:
    before = os.listdir("/proc/self/fd")
    for path in b"/usr/bin/agent", b"/none":
        fake.has(path)
    assert os.listdir("/proc/self/fd") == before


def test_the_host_is_process_1_or_else_us(fake: FakeHost) -> None:
    assert HostMounts(str(fake.proc)).namespace == (fake.proc / "1/ns/mnt").stat().st_ino
    (fake.proc / "1/ns/mnt").unlink()
    assert HostMounts(str(fake.proc)).namespace == os.stat("/proc/self/ns/mnt").st_ino
    (fake.proc / "self").unlink()
    assert HostMounts(str(fake.proc)).namespace == 0


def test_what_is_found_goes_with_the_process(fake: FakeHost) -> None:
    mounts = HostMounts(str(fake.proc))
    image = image_of(exe=b"/usr/bin/agent", exe_dev=DEV, exe_ino=fake.known.ino)
    assert mounts.with_exe(NOTHING, image) == NOTHING._replace(exe_on_host=True)
    other = image._replace(exe_ino=fake.known.ino + 1)
    assert mounts.with_exe(NOTHING, other) == NOTHING._replace(exe_on_host=False)
    (fake.proc / "1/mountinfo").write_bytes(b" 8:300 ")
    found = NOTHING._replace(missing={"args": Missing.GONE})
    assert mounts.with_exe(found, image) == NOTHING._replace(
        missing={"args": Missing.GONE, "exe_on_host": Missing.NONSENSE}
    )
