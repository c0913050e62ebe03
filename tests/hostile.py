# SPDX-License-Identifier: Apache-2.0
"""tests/hostile.c as a program, and what it says that it did."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from running import PATIENCE_S, Running

SOURCE = Path(__file__).with_suffix(".c")
MISSING = 77
"""It ends so where the kernel does not offer the means."""

Told = dict[str, Any]


@cache
def hostile(directory: Path) -> Path:
    """The compiled program."""
    program = directory / "hostile"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", program, SOURCE], check=True)
    return program


def told(out: bytes) -> list[Told]:
    """Its lines about calls; the words that it is waited for with are left out."""
    return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]


class Attack(Running):
    """One of them; flood and park go on until their standard input is closed."""

    def __init__(self, program: Path, *args: str) -> None:
        self.process = subprocess.Popen(
            [program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def wait_for(self, word: str) -> None:
        """Waits until it says so; skips the test if it cannot be done here."""
        try:
            self.read_until(self.process.stdout, word)
        except AssertionError:
            self.end()
            raise

    def end(self) -> list[Told]:
        """Closes its standard input and waits; skips the test if it cannot be done here."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode == MISSING:
            pytest.skip(err.decode().strip())
        assert (self.process.returncode, err) == (0, b"")
        return told(out)
