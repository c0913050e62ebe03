# SPDX-License-Identifier: Apache-2.0
"""A Kafka cluster on loopback: the one that librdkafka has for tests of its own.

Its functions have no Python binding (rdkafka_mock.h says what they do), so the very library that
confluent-kafka uses is asked through ctypes.
"""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

TAKEN = 0
TOO_LARGE = int(KafkaError.MSG_SIZE_TOO_LARGE)
NOT_WITH_US = int(KafkaError.CLUSTER_AUTHORIZATION_FAILED)
NO_SUCH_TOPIC = int(KafkaError.UNKNOWN_TOPIC_OR_PART)

_PRODUCER = 0  # rd_kafka_type_t
_PRODUCE, _INIT_PRODUCER_ID = 0, 22  # the protocol's numbers of such requests
_PARTITIONS = 4
_BROKER = 1
_POINTER, _TEXT, _INT, _ID = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int32

# Those that are used: what each returns, and its arguments.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "conf_new": (_POINTER, []),
    "conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t]),
    "new": (_POINTER, [_INT, _POINTER, _TEXT, ctypes.c_size_t]),
    "destroy": (None, [_POINTER]),
    "mock_cluster_new": (_POINTER, [_POINTER, _INT]),
    "mock_cluster_destroy": (None, [_POINTER]),
    "mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
    "mock_topic_set_error": (None, [_POINTER, _TEXT, _INT]),
    "mock_broker_set_down": (_INT, [_POINTER, _ID]),
    "mock_broker_set_up": (_INT, [_POINTER, _ID]),
    "mock_broker_set_rtt": (_INT, [_POINTER, _ID, _INT]),
    "mock_push_request_errors_array": (
        None,
        [_POINTER, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_INT)],
    ),
}


class Cluster:
    """One broker, with topics of four partitions that are made when they are first asked for."""

    def __init__(self) -> None:
        self._library = _librdkafka()
        config = self._call("conf_new")
        self._call("conf_set", config, b"log_level", b"0", None, 0)
        self._client = self._call("new", _PRODUCER, config, None, 0)
        self._cluster = self._call("mock_cluster_new", self._client, 1)
        self.address: str = self._call("mock_cluster_bootstraps", self._cluster).decode()

    def close(self) -> None:
        self._call("mock_cluster_destroy", self._cluster)
        self._call("destroy", self._client)

    def down(self) -> None:
        """Closes connections, and refuses new ones."""
        self._call("mock_broker_set_down", self._cluster, _BROKER)

    def up(self) -> None:
        self._call("mock_broker_set_up", self._cluster, _BROKER)

    def delay(self, milliseconds: int) -> None:
        """Each answer from here on."""
        self._call("mock_broker_set_rtt", self._cluster, _BROKER, milliseconds)

    def refuse_topic(self, topic: str, code: int) -> None:
        """What is answered to who asks for the topic; 0: that it is there."""
        self._call("mock_topic_set_error", self._cluster, topic.encode(), code)

    def refuse_batches(self, *codes: int) -> None:
        """What is answered to the batches that come next, one after the other; 0: take it."""
        self._answer(_PRODUCE, codes)

    def refuse_producers(self, *codes: int) -> None:
        """The same for who wants to be an idempotent producer."""
        self._answer(_INIT_PRODUCER_ID, codes)

    def messages(self, topic: str) -> list[Message]:
        """All that the topic has by now, partition by partition."""
        source = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "test",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        source.assign([TopicPartition(topic, number, 0) for number in range(_PARTITIONS)])
        try:
            return [message for message in _until_ends(source) if not message.error()]
        finally:
            source.close()

    def _answer(self, request: int, codes: tuple[int, ...]) -> None:
        array = (_INT * len(codes))(*codes)
        self._call("mock_push_request_errors_array", self._cluster, request, len(codes), array)

    def _call(self, name: str, *arguments: object) -> Any:
        function = self._library[f"rd_kafka_{name}"]
        function.restype, function.argtypes = _FUNCTIONS[name]
        return function(*arguments)


@contextmanager
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


def _until_ends(source: Consumer) -> Iterator[Message]:
    open_ends = _PARTITIONS
    deadline = time.monotonic() + 30
    while open_ends:
        assert time.monotonic() < deadline, "the topic cannot be read to its end"
        message = source.poll(1)
        if message is None:
            continue
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            open_ends -= 1
        yield message


def _librdkafka() -> ctypes.CDLL:
    assert confluent_kafka.libversion()  # it is loaded
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if "/librdkafka" in path:
            return ctypes.CDLL(path)
    raise AssertionError("confluent-kafka does not use a librdkafka that can be found")
