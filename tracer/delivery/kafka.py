# SPDX-License-Identifier: Apache-2.0
"""Lines as messages of a Kafka topic, by librdkafka.

What its properties mean and when it says what: librdkafka's CONFIGURATION.md and
INTRODUCTION.md.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ...events.errors import OutputError
from .outlet import Line

_OPEN_S: Final = 5.0
_SEND_S: Final = 10.0
_CLOSE_S: Final = 1.0

# What we want of librdkafka unless the sink's settings say otherwise.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "client.id": "bpfsnoop",
    "acks": "all",
    "enable.idempotence": True,  # what it retries by itself is not there twice, nor out of order
    "partitioner": "murmur2_random",  # the Java client's: who joins topics by host expects it
    "compression.type": "lz4",  # in every build of librdkafka, and cheap
    "linger.ms": 50,
    "queue.buffering.max.kbytes": 16 * 1024,
    # Then lines are given back, and wait in the spool instead of here.
    "message.timeout.ms": 30_000,
    "socket.timeout.ms": 10_000,
    "socket.keepalive.enable": True,
    "log_level": 2,  # of syslog: what is wrong is told by callbacks, not on standard error
}

# Properties that are not for a sink's settings, each with the reason.
_OURS: Final = {
    "bootstrap.servers": "brokers stand in 'brokers'",
    "metadata.broker.list": "brokers stand in 'brokers'",
    "delivery.report.only.error": "without reports no line is ever known to have arrived",
    "transactional.id": "bpfsnoop makes no transactions",
    "logger": "it takes a function",
    "default.topic.config": "what is in it may stand beside the other settings",
}


class KafkaOutlet:
    """Produces each line, without its newline, with the host's name as key.

    One key is one partition, so that the lines of a host stay in order. What Kafka will not take
    for its size or its form is refused; all else that goes wrong can go right another time.

    :param options: of a kafka sink, as :class:`.settings.SinkSettings` has them.
    :raises OutputError: confluent-kafka is not installed, or will not have these settings.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._kafka = _library()
        self._topic: str = options["topic"]
        self._key = os.fsencode(os.uname().nodename)
        self._config = {
            "bootstrap.servers": ",".join(options["brokers"]),
            "error_cb": self._on_error,
            **_DEFAULTS,
            **options["settings"],
        }
        errors = self._kafka.KafkaError
        # Each is about one message, but it is its batch that is refused.
        self._refusals = {
            errors.MSG_SIZE_TOO_LARGE,
            errors.INVALID_RECORD,
            errors._INVALID_DIFFERENT_RECORD,
        }
        self._producer: Any = None
        self._suspects = 0
        """Lines from the first that go in a batch each: Kafka refused a batch with them."""
        self.refused = 0
        self._refusal = ""
        self._begin()
        self._check(options["settings"])

    def _begin(self) -> None:
        self._sent = self._first = self._confirmed = self._newly_refused = 0
        self._early: dict[int, str] = {}
        """Why each was refused, or empty: of lines that were over sooner than an earlier one."""
        self._failure = self._reason = ""

    def _check(self, settings: Mapping[str, Any]) -> None:
        for name in settings:
            if why := _OURS.get(name):
                raise OutputError(f"{name} cannot be set: {why}")
        # Without brokers: nothing is connected to.
        config = {k: v for k, v in self._config.items() if k != "bootstrap.servers"}
        try:
            self._kafka.Producer(config | {"log_level": 0})
        except self._kafka.KafkaException as error:
            raise OutputError(error.args[0].str()) from error
        except (AttributeError, TypeError, ValueError) as error:
            raise OutputError(str(error)) from error

    @property
    def problem(self) -> str:
        """Why lines do not arrive, or else why one was dropped last; or empty."""
        return (self._first < self._sent and self._reason) or self._refusal

    # --- The outlet --------------------------------------------------------------------------

    def open(self) -> None:
        """:raises OSError: no broker answers, or there is no such topic for us."""
        self._begin()
        alone = {"batch.num.messages": 1} if self._suspects else {}
        try:
            self._producer = self._kafka.Producer(self._config | alone)
            topic = self._producer.list_topics(self._topic, _OPEN_S).topics[self._topic]
        except self._kafka.KafkaException as error:
            if self._producer is not None:
                self._serve(self._producer.poll, 0)  # brings the reason
            raise OSError(self._described(error.args[0])) from error
        if topic.error is not None:
            raise OSError(f"topic {self._topic}: {self._described(topic.error)}")

    def send(self, lines: Sequence[Line]) -> int:
        if 0 < self._suspects <= self._first == self._sent and not self._confirmed:
            self.close()
            self._suspects = 0
            self.open()
        deadline = time.monotonic() + _SEND_S
        for line in lines:
            self._produce(line, deadline)
            if self._failure:
                break
        self._serve(self._producer.poll, 0)
        return self._news()

    def settle(self, timeout_s: float) -> int:
        self._serve(self._producer.flush, timeout_s)
        return self._news()

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.purge()
        except self._kafka.KafkaException as error:
            self._failure = error.args[0].str()
        self._serve(producer.flush, _CLOSE_S)  # what nobody hears of is never freed

    # --- What became of each line -------------------------------------------------------------

    def _produce(self, line: Line, deadline: float) -> None:
        number = self._sent
        while not self._failure:
            try:
                self._producer.produce(
                    self._topic,
                    line.text.rstrip(b"\n"),
                    self._key,
                    on_delivery=partial(self._on_delivery, number),
                    timestamp=line.time_ns // 1_000_000,
                )
            except BufferError:
                if time.monotonic() > deadline:
                    self._failure = "lines do not go out as fast as they come" + self._why()
                self._serve(self._producer.poll, 0.1)
                continue
            except self._kafka.KafkaException as error:
                self._on_produce_error(number, error.args[0])
            self._sent += 1
            return

    def _serve(self, wait: Callable[[float], int], timeout_s: float) -> None:
        """Lets librdkafka call us, for so long at most."""
        try:
            wait(timeout_s)
        # After a fatal error the producer is of no use. confluent-kafka raises that from its own
        # callback, and then calls ours all the same, which ends as a SystemError.
        except (self._kafka.KafkaException, SystemError) as error:
            first: BaseException = error
            while first.__cause__ is not None:
                first = first.__cause__
            known = isinstance(first, self._kafka.KafkaException)
            self._failure = first.args[0].str() if known else str(first)

    def _on_produce_error(self, number: int, error: Any) -> None:
        if error.code() == self._kafka.KafkaError.MSG_SIZE_TOO_LARGE:
            self._over(number, refusal=error.str())
        else:
            self._failure = self._described(error)

    def _on_delivery(self, number: int, error: Any, message: object) -> None:
        if error is None:
            self._reason = ""
            self._over(number)
        elif error.code() in self._refusals and self._suspects:
            self._over(number, refusal=error.str())
        elif not self._failure:
            if error.code() in self._refusals:
                self._suspects = self._sent - self._first
            self._failure = self._described(error)

    def _over(self, number: int, refusal: str = "") -> None:
        self._early[number] = refusal
        while self._first in self._early:
            if refusal := self._early.pop(self._first):
                self._newly_refused += 1
                self._refusal = f"a line was not taken: {refusal}"
            self._first += 1
            self._confirmed += 1

    def _news(self) -> int:
        # What has arrived is told before what has not: else it would be sent again.
        confirmed, self._confirmed = self._confirmed, 0
        self.refused += self._newly_refused
        self._newly_refused = 0
        if self._failure and not confirmed:
            raise OSError(self._failure)
        return confirmed

    # --- What is wrong ------------------------------------------------------------------------

    def _on_error(self, error: Any) -> None:
        if error.code() != self._kafka.KafkaError._ALL_BROKERS_DOWN:  # follows one that says why
            self._reason = error.str()

    def _described(self, error: Any) -> str:
        return str(error.str()) + self._why()

    def _why(self) -> str:
        return f" ({self._reason})" if self._reason else ""


def _library() -> Any:
    try:
        import confluent_kafka  # noqa: PLC0415 - 9 MB, only for sinks of this kind
    except ImportError as error:
        raise OutputError(
            "kafka needs the Python package confluent-kafka (pip install 'bpfsnoop[kafka]')"
        ) from error
    return confluent_kafka
