# SPDX-License-Identifier: Apache-2.0
"""What strace looks up while it prints."""

import os
import socket
import threading
from datetime import datetime
from pathlib import Path

from bpfsnoop.events.value import DirFd
from bpfsnoop.tracer.names import HostNames, ReplayNames

LOOPBACK = 1


def test_descriptors_are_those_of_the_thread(tmp_path: Path) -> None:
    names, tid = HostNames(), threading.get_native_id()
    fd = os.open(tmp_path, os.O_RDONLY)
    assert names.descriptor(tid, fd) == os.fsencode(tmp_path)
    os.close(fd)
    assert names.descriptor(tid, fd) == b""
    assert names.descriptor(tid, DirFd.AT_FDCWD) == os.fsencode(Path.cwd())
    assert names.descriptor(1 << 30, 0) == b""


def test_interfaces() -> None:
    names = HostNames()
    assert names.interface(LOOPBACK) == os.fsencode(socket.if_indextoname(LOOPBACK))
    assert [names.interface(index) for index in (0, 0x7FFFFFF0, 0xFFFFFFFF)] == [b"", b"", b""]


def test_a_recording_knows_what_is_so_everywhere() -> None:
    names = ReplayNames()
    assert names.descriptor(threading.get_native_id(), 0) == b""
    assert (names.interface(LOOPBACK), names.interface(2)) == (b"lo", b"")


def test_the_time_of_day() -> None:
    told = ReplayNames().time_of_day(1_700_000_000_999_999_999)
    assert datetime.strptime(told, "%Y-%m-%dT%H:%M:%S%z").timestamp() == 1_700_000_000
    assert ReplayNames().time_of_day(1 << 90) == ""
