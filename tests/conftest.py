# SPDX-License-Identifier: Apache-2.0
"""The mark ``live``: tests that trace this host's kernel."""

import importlib.util
import os
import signal
from functools import cache

import pytest
from hypothesis import settings

import stimulus

settings.register_profile("patient", deadline=None)  # machines are slow at times
settings.load_profile("patient")


def pytest_configure() -> None:
    """Signals are what they are at a terminal, also under nohup and in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a live test where nothing can be traced, unless that is what is to be shown."""
    if item.get_closest_marker("live") is None or not (reason := _why_not_live()):
        return
    if os.environ.get("BPFSNOOP_LIVE") == "1":
        pytest.fail(f"BPFSNOOP_LIVE=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@cache
def _why_not_live() -> str:
    # Asked of the kernel, not of bpfsnoop: one that cannot start is to fail.
    if os.geteuid():
        return "tracing needs root"
    if importlib.util.find_spec("bcc") is None:
        return "the Python module of BCC is missing"
    program = stimulus.attempt(
        stimulus.prog_load, stimulus.BPF_PROG_TYPE_RAW_TRACEPOINT, stimulus.RETURN_0
    )
    if program is None:
        return "this kernel does not let us load BPF programs"
    os.close(program)
    return ""
