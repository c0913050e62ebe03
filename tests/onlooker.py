# SPDX-License-Identifier: Apache-2.0
"""A process that watches a word of memory which is shared with it, as the kernel does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WATCH = """
import mmap, os, sys
word = memoryview(mmap.mmap(0, mmap.PAGESIZE)).cast("Q")[int(sys.argv[1]) // 8 :][:1]
highest = fallen = 0
os.write(1, b"watching\\n")
while (now := word[0]) != int(sys.argv[2]):
    fallen += now < highest
    highest = max(highest, now)
print(fallen)
"""


class Onlooker:
    fallen = -1
    """How often the word was seen to have become less; known at the end."""


@contextmanager
def onlooker(fd: int, offset: int, until: int) -> Iterator[Onlooker]:
    """Watches the word at this offset of a file until it has this value."""
    seen = Onlooker()
    argv = [sys.executable, "-c", _WATCH, str(offset), str(until)]
    with subprocess.Popen(argv, stdin=fd, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        yield seen
        seen.fallen = int(child.stdout.read())
