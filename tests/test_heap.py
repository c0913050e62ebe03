# SPDX-License-Identifier: Apache-2.0
"""What a process keeps of memory that it does not use."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from bpfsnoop.tracer import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "give_back":
    heap.give_back()
large = bytes(30 << 20)
del large  # now malloc takes this for a usual size
before = resident()
pieces = [b"x" * (200 << 10) for _ in range(100)]
del pieces
print(resident() - before)
"""


def _kept(what: str) -> int:
    argv = [sys.executable, "-c", PROGRAM, what]
    return int(subprocess.run(argv, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_was_taken_in_pieces_goes_back() -> None:
    assert _kept("nothing") > 15 << 20
    assert _kept("give_back") < 1 << 20
