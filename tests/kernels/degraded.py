# SPDX-License-Identifier: Apache-2.0
"""Run in guests where not everything works: bpfsnoop has to notice."""

import os
from pathlib import Path

import pytest

from bpfsnoop.tracer.config import PROBES
from running import STIMULUS, Trace, bpfsnoop_run, calls_of, identity

pytestmark = pytest.mark.live

DEAD = os.environ.get("BPFSNOOP_DEAD", "").split()
"""Probes that cannot trace here, even if they seem to attach."""


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_shows_every_call_or_is_found_out(tmp_path: Path, probe: str) -> None:
    """Other warnings are right here, where the kernel keeps something from it."""
    out = tmp_path / "out"
    options = "--json", "--strict", "--probe", probe, "-o", out
    finished = bpfsnoop_run(*options, "--", *STIMULUS, "every")
    if probe in DEAD:  # the command that was to be traced has not begun
        assert (finished.status, finished.out) == (1, b"")
        assert finished.complaint.startswith("bpfsnoop: ")
        return
    assert finished.status == 0, finished.err
    made = calls_of(finished.out)
    assert [*map(identity, Trace.of(out.read_bytes()).events)] == [*map(identity, made)]
    assert len(made) > 35
