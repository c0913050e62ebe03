# SPDX-License-Identifier: Apache-2.0
"""Reading configuration and rules anew, beside the tracing."""

import os
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Final, NamedTuple

from ...events.errors import BpfsnoopError, Mistake, UsageError
from ...rules.engine import Engine
from ...rules.rule import Rule
from ..attach import commands_of_this_kernel
from ..config import FIXED, Config
from ..volume import Folding
from ..watch import Watch

_CLOSE_S: Final = 2.0


class Fresh(NamedTuple):
    """What was read, and nothing is wrong with it."""

    options: Config
    rules: Sequence[Rule]
    folding: Folding


class Reload:
    """Reads in a thread, since rules take a second and rings do not wait.

    :param reread: gives the configuration as it is now.
    :param rules_of: gives its rules.
    :param finished: called while ``watch`` waits, with what was read or all that is wrong.
    """

    def __init__(
        self,
        watch: Watch,
        reread: Callable[[], Config],
        rules_of: Callable[[Config], Sequence[Rule]],
        finished: Callable[[Fresh | BpfsnoopError], None],
    ) -> None:
        self._watch = watch
        self._reread = reread
        self._rules_of = rules_of
        self._finished = finished
        self._result: Fresh | BpfsnoopError | None = None
        self._thread: Thread | None = None
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        watch.on_ready(self._event, self._read)

    def start(self, options: Config, rules: Sequence[Rule]) -> None:
        """:param options: those in force, with their rules."""
        self._thread = Thread(target=self._work, args=(options, rules), daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._thread:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():  # at a file server, perhaps: it ends with us
                return
        self._watch.forget(self._event)
        os.close(self._event)

    def _work(self, options: Config, rules: Sequence[Rule]) -> None:
        try:
            self._result = self._fresh(options, rules)
        except BpfsnoopError as error:
            self._result = error
        except Exception as error:
            self._result = UsageError([Mistake(f"{type(error).__name__}: {error}")])
        os.eventfd_write(self._event, 1)

    def _fresh(self, options: Config, rules: Sequence[Rule]) -> Fresh:
        fresh = self._reread()
        fixed = [key for key in FIXED if getattr(fresh, key) != getattr(options, key)]
        if fixed:
            raise UsageError([Mistake(f"{', '.join(fixed)}: takes a restart")])
        found = self._rules_of(fresh)
        if found != rules:
            Engine(found)  # raises what is wrong with rules that are right each by itself
        return Fresh(fresh, found, Folding.of(fresh, commands_of_this_kernel))

    def _read(self) -> None:
        os.eventfd_read(self._event)
        if self._thread:
            self._thread.join()
        self._thread = None
        result, self._result = self._result, None
        if result is not None:
            self._finished(result)
