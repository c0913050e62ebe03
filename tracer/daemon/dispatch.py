# SPDX-License-Identifier: Apache-2.0
"""The daemon's one sink: documents as lines, each for those of its sinks that want it."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ...events import ecs
from ...events.call import Totals
from ...events.ecs import Cause, Document, Origin
from ...events.event import Event
from ...events.folded import Folded, folded_document
from ...events.lines import JsonLines
from ...events.notice import Notice
from ...events.process import Process
from ...events.service import Told, service_document
from ...rules.alert import Alert, alert_document
from ..config import Config
from ..names import HostNames
from ..sinks import spelling
from .courier import Courier
from .routes import Routes

_SEVERITIES: Final[Mapping[str, int]] = {
    "critical": 2, "high": 3, "medium": 4, "low": 5, "informational": 6,
}  # fmt: skip
"""syslog's (RFC 5424, 6.2.1) of the level of a rule."""
_WARNING: Final = 4
_INFORMATIONAL: Final = 6


class Dispatch:
    """Implements :class:`.sinks.Sink`.

    :param bits: which stands for which sink, by name.
    """

    def __init__(
        self, courier: Courier, origin: Origin, options: Config, bits: Mapping[str, int]
    ) -> None:
        self._courier = courier
        self._origin = origin
        self._lines = JsonLines(origin)
        self.adopt(options, bits)
        self.events: Counter[str] = Counter()
        """Documents that are no alerts, by ``event.action``."""
        self.folded_calls = 0
        """That have no document of their own."""
        self.alerts: Counter[str] = Counter()
        """By the name of the rule."""

    def adopt(self, options: Config, bits: Mapping[str, int]) -> None:
        """Goes by these from here on; the delivery process does already."""
        self._routes = Routes((bits[sink.settings.name], sink.filter) for sink in options.sinks)
        self._spell = spelling(options, HostNames()) if options.message else None

    def event(self, event: Event, process: Process, time_ns: int, sequence: int) -> None:
        self.events[event.action] += 1
        sinks = self._routes.of_action(event.action)
        if not sinks:
            return
        message = " = ".join(self._spell(event, time_ns)) if self._spell else ""
        line = self._lines.event(
            event, process, time_ns=time_ns, sequence=sequence, message=message
        )
        self._courier.line(line, sinks=sinks, severity=_INFORMATIONAL, time_ns=time_ns)

    def folded(self, folded: Folded, sequence: int) -> None:
        self.folded_calls += folded.calls
        message = str(folded) if self._spell else ""
        document = folded_document(folded, self._origin, sequence=sequence, message=message)
        action = document["event"]["action"]
        self._send(action, document, folded.end_ns, _INFORMATIONAL)

    def notice(self, notice: Notice, cause: Cause | None, time_ns: int, sequence: int) -> None:
        document = ecs.notice_document(
            notice, self._origin, time_ns=time_ns, sequence=sequence, cause=cause
        )
        integrity = notice.action == "integrity"
        self._send(notice.action, document, time_ns, _WARNING if integrity else _INFORMATIONAL)

    def alert(self, alert: Alert, sequence: int) -> None:
        self.alerts[alert.rule.label] += 1
        sinks = self._routes.of_alert(alert.level, alert.rule.label)
        if sinks:
            line = ecs.json_line(alert_document(alert, sequence=sequence))
            severity = _SEVERITIES[alert.level]
            # Of many that are told as one, the last may be a minute ago: this is when it is told.
            self._courier.line(line, sinks=sinks, severity=severity, time_ns=time.time_ns())

    def losses(
        self, totals: Totals, names: Mapping[int, str], sequence: int, *, final: bool
    ) -> None:
        document = ecs.loss_document(
            totals, names, self._origin, sequence=sequence, final=final,
            undelivered=self.undelivered(),
        )  # fmt: skip
        self._send("loss", document, totals.time_ns, _WARNING)

    def end(self) -> None:
        pass

    def tell(self, told: Told, time_ns: int, sequence: int) -> None:
        """What the daemon says of itself."""
        document = service_document(told, self._origin, time_ns=time_ns, sequence=sequence)
        severity = _WARNING if told.outcome == "failure" else _INFORMATIONAL
        self._send(told.action, document, time_ns, severity)

    def undelivered(self) -> dict[str, int]:
        """Lines that will never arrive: by sink, and as ``""`` those that reached none."""
        counts = {**self._courier.dropped, "": self._courier.lost}
        return {name: count for name, count in counts.items() if count}

    def _send(self, action: str, document: Document, time_ns: int, severity: int) -> None:
        self.events[action] += 1
        if sinks := self._routes.of_action(action):
            line = ecs.json_line(document)
            self._courier.line(line, sinks=sinks, severity=severity, time_ns=time_ns)
