# SPDX-License-Identifier: Apache-2.0
"""How the daemon and its sinks are, for Prometheus and for whoever restarts what hangs.

Nothing is counted here: each answer is made from the numbers that there are when it is asked for.
docs/metrics.md says what they mean and when to worry.
"""

import resource
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...events.errors import OutputError
from ..version import VERSION
from . import local
from .health import ALIVE, READY, Snapshot, state
from .web import Page, Server

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = "application/openmetrics-text"


class Family(NamedTuple):
    """A metric, with all of its labels."""

    name: str
    kind: str
    """``counter`` or ``gauge``."""
    label: str
    """Its only one, or empty."""
    meaning: str
    values: Callable[[Snapshot], Mapping[str, float]]
    """By the value of the label; without one, of the empty string."""


def _counts(key: str) -> Callable[[Snapshot], Mapping[str, float]]:
    return lambda snapshot: snapshot["status"].get(key, {})


def _number(key: str, unit: float = 1) -> Callable[[Snapshot], Mapping[str, float]]:
    def values(snapshot: Snapshot) -> Mapping[str, float]:
        status = snapshot["status"]
        return {"": status[key] * unit} if key in status else {}

    return values


def _of_sinks(key: str) -> Callable[[Snapshot], Mapping[str, float]]:
    return lambda snapshot: {name: sink[key] for name, sink in snapshot["sinks"].items()}


def _resident(snapshot: Snapshot) -> Mapping[str, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # proc_pid_statm(5)
    resident = {"delivery": pages * resource.getpagesize()}
    if "rss" in snapshot["status"]:
        resident["daemon"] = snapshot["status"]["rss"]
    return resident


FAMILIES: Final = (
    Family("bpfsnoop_events_total", "counter", "action",
           "Events by what was done.", _counts("events")),
    Family("bpfsnoop_folded_total", "counter", "",
           "Events that are told together, as a count in a document.", _number("folded")),
    Family("bpfsnoop_drops_total", "counter", "stage",
           "Events that were lost, by where.", _counts("drops")),
    Family("bpfsnoop_ring_fill_ratio", "gauge", "ring",
           "How full a ring buffer was at most since the last status.", _counts("rings")),
    Family("bpfsnoop_alerts_total", "counter", "rule",
           "Alerts by the rule that was met.", _counts("alerts")),
    Family("bpfsnoop_rules", "gauge", "", "Rules that may raise alerts.", _number("rules")),
    Family("bpfsnoop_rule_seconds_total", "counter", "",
           "Processor time that rules took.", _number("rule_seconds")),
    Family("bpfsnoop_sink_delivered_total", "counter", "sink",
           "Lines that arrived.", _of_sinks("delivered")),
    Family("bpfsnoop_sink_dropped_total", "counter", "sink",
           "Lines that will never arrive.", _of_sinks("dropped")),
    Family("bpfsnoop_sink_queue_bytes", "gauge", "sink",
           "Lines that wait in memory.", _of_sinks("queued")),
    Family("bpfsnoop_sink_spool_bytes", "gauge", "sink",
           "Lines that wait on disk.", _of_sinks("spooled")),
    Family("bpfsnoop_sink_up", "gauge", "sink",
           "1 if the sink takes lines, 0 if it is away.", _of_sinks("up")),
    Family("bpfsnoop_resident_memory_bytes", "gauge", "process",
           "Resident memory of each process.", _resident),
    Family("bpfsnoop_start_time_seconds", "gauge", "",
           "When the daemon started, since the epoch.", _number("since_ns", 1e-9)),
    Family("bpfsnoop_status_age_seconds", "gauge", "",
           "How long ago the daemon said anything.", lambda snapshot: {"": snapshot["age_s"]}),
    Family("bpfsnoop_ready", "gauge", "",
           "1 if the daemon is attached and sees calls.", _number("ready")),
    Family("bpfsnoop_build_info", "gauge", "version",
           "1, for the version.", lambda _: {VERSION: 1}),
)  # fmt: skip


def serve(where: str, snapshot: Callable[[], Snapshot]) -> Server:
    """``/metrics``, ``/health`` and ``/ready`` over HTTP, until the server is closed.

    :param where: ``host:port``, a loopback address, or ``unix:///path``: the numbers tell an
        attacker what is watched, and when nothing is.
    :param snapshot: called in the server's thread.
    :raises OutputError: this cannot be listened at, or prometheus-client is not installed.
    """
    metrics = _exposition(snapshot)

    def pages(path: str, accept: str) -> Page | None:
        match path:
            case "/metrics":
                return metrics(_OPENMETRICS in accept)
            case "/health":
                return state(snapshot(), ALIVE)
            case "/ready":
                return state(snapshot(), READY)
        return None

    return Server(local.listen(where), pages)


def _exposition(snapshot: Callable[[], Snapshot]) -> Callable[[bool], Page]:
    """The page of metrics, in OpenMetrics or else in Prometheus' own format."""
    try:
        from prometheus_client import core, exposition  # noqa: PLC0415 - may be missing
        from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415
    except ImportError as error:
        raise OutputError(
            "metrics need the Python package prometheus-client (pip install 'bpfsnoop[metrics]')"
        ) from error
    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}

    class Collector:
        def collect(self) -> Iterator[core.Metric]:
            now = snapshot()
            for family in FAMILIES:
                labels = [family.label] if family.label else []
                metric = kinds[family.kind](family.name, family.meaning, labels=labels)
                for value, number in family.values(now).items():
                    metric.add_metric([_encodable(value)] if labels else [], number)
                yield metric

    written: Mapping[bool, Callable[[Any], bytes]] = {
        False: exposition.generate_latest,
        True: openmetrics.generate_latest,
    }
    types = {False: _TEXT, True: openmetrics.CONTENT_TYPE_LATEST}

    def page(as_openmetrics: bool) -> Page:
        body = written[as_openmetrics](Collector())
        return Page(HTTPStatus.OK, types[as_openmetrics], body)

    return page


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()
