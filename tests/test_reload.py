# SPDX-License-Identifier: Apache-2.0
"""Reading configuration and rules anew, where that takes its time."""

from threading import Event
from typing import Any, cast

import pytest

from bpfsnoop.events.errors import CannotStart
from bpfsnoop.tracer.config import Config
from bpfsnoop.tracer.daemon import reload as module
from bpfsnoop.tracer.daemon.reload import Reload
from bpfsnoop.tracer.watch import Watch
from running import PATIENCE_S


def test_what_hangs_while_it_is_read_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CLOSE_S", 0.05)
    hangs, reads = Event(), Event()
    found: list[Any] = []

    def reread() -> Config:
        reads.set()
        hangs.wait()
        raise CannotStart("too late")

    with Watch([]) as watch:
        reload = Reload(watch, reread, lambda options: (), found.append)
        reload.start(cast(Config, None), ())
        assert reads.wait(PATIENCE_S)
        reload.close()
        hangs.set()
    assert not found
