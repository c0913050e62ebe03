# SPDX-License-Identifier: Apache-2.0
"""What somebody reads who types a command."""

from pathlib import Path

import pytest

from bpfsnoop.tracer.cli import main


def shown(capfd: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, list[str], str]:
    """:returns: the exit status, the lines of standard output, standard error."""
    status = main(list(map(str, argv)))
    out, err = capfd.readouterr()
    return status, out.splitlines(), err
