# SPDX-License-Identifier: Apache-2.0
"""Lines produced to a Kafka topic: librdkafka on both sides, with a cluster of its own."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import kafka_cluster
from bpfsnoop.events.errors import OutputError
from bpfsnoop.tracer.delivery import kafka
from bpfsnoop.tracer.delivery.kafka import KafkaOutlet
from bpfsnoop.tracer.delivery.outlet import Line
from delivering import Delivery, a_sink
from kafka_cluster import NO_SUCH_TOPIC, NOT_WITH_US, TAKEN, TOO_LARGE, Cluster

TOPIC = "bpf"
BEGAN_MS = 1_700_000_000_123


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with kafka_cluster.cluster() as made:
        yield made


def made(brokers: str, **settings: object) -> KafkaOutlet:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return KafkaOutlet({"brokers": brokers.split(","), "topic": TOPIC, "settings": named})


def lines(first: int, end: int, padding: str = "") -> list[Line]:
    return [
        Line(
            json.dumps({"event": {"sequence": number}, "padding": padding}).encode() + b"\n",
            6,
            (BEGAN_MS + number) * 1_000_000 + 999_999,
        )
        for number in range(first, end)
    ]


def confirmed(outlet: KafkaOutlet, count: int) -> None:
    """Waits until this many more are."""
    deadline = time.monotonic() + 30
    while count > 0:
        assert time.monotonic() < deadline, f"{count} lines are not confirmed"
        count -= outlet.settle(1)
    assert count == 0


def failure(outlet: KafkaOutlet, more: Sequence[Line] = ()) -> str:
    """What it says when it gives up, having confirmed nothing more."""
    deadline = time.monotonic() + 30
    try:
        assert outlet.send(more) == 0
        while time.monotonic() < deadline:
            assert outlet.settle(1) == 0
    except OSError as error:
        return str(error)
    raise AssertionError("it does not give up")


def sequence(cluster: Cluster) -> list[int]:
    """What consumers find, in their order."""
    values = [message.value() for message in cluster.messages(TOPIC)]
    return [json.loads(value)["event"]["sequence"] for value in values if value]


# --- What arrives -------------------------------------------------------------------------


def test_lines_arrive_whole_in_order_by_host_and_with_their_time(cluster: Cluster) -> None:
    sent = lines(0, 3000)
    with closing(made(cluster.address)) as outlet:
        outlet.open()
        count = sum(outlet.send(sent[at : at + 100]) for at in range(0, 3000, 100))
        confirmed(outlet, 3000 - count)
        assert outlet.refused == 0
        assert not outlet.problem
    found = cluster.messages(TOPIC)
    assert [message.value() for message in found] == [line.text[:-1] for line in sent]
    assert {message.key() for message in found} == {os.uname().nodename.encode()}
    assert len({message.partition() for message in found}) == 1
    assert [message.timestamp()[1] for message in found] == [BEGAN_MS + n for n in range(3000)]


def test_what_is_not_known_to_have_arrived_is_not_confirmed(cluster: Cluster) -> None:
    with closing(made(cluster.address)) as outlet:
        outlet.open()
        count = outlet.send(lines(0, 1))
        confirmed(outlet, 1 - count)  # there is a connection
        cluster.delay(600)
        assert outlet.send(lines(1, 5)) == 0
        assert outlet.settle(0.1) == 0
        confirmed(outlet, 4)


def test_more_lines_than_librdkafka_holds_all_arrive(cluster: Cluster) -> None:
    sent = lines(0, 500)
    with closing(made(cluster.address, queue_buffering_max_messages=10)) as outlet:
        outlet.open()
        confirmed(outlet, 500 - outlet.send(sent))
    assert sequence(cluster) == list(range(500))


# --- What goes wrong ----------------------------------------------------------------------


def test_after_an_outage_all_lines_are_there_once_in_order(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_OPEN_S", 1.0)
    with closing(made(cluster.address, message_timeout_ms=1500)) as outlet:
        outlet.open()
        confirmed(outlet, 10 - outlet.send(lines(0, 10)))
        cluster.down()
        assert "refused" in failure(outlet, lines(10, 20))
        outlet.close()
        with pytest.raises(OSError, match="refused"):
            outlet.open()
        outlet.close()
        cluster.up()
        outlet.open()
        confirmed(outlet, 20 - outlet.send(lines(10, 30)))
        assert not outlet.problem
    assert sequence(cluster) == list(range(30))


def test_while_lines_wait_the_reason_is_told(cluster: Cluster) -> None:
    with closing(made(cluster.address)) as outlet:
        outlet.open()
        cluster.down()
        assert outlet.send(lines(0, 10)) == 0
        deadline = time.monotonic() + 30
        while "refused" not in outlet.problem and time.monotonic() < deadline:
            assert outlet.settle(0.1) == 0
        assert "refused" in outlet.problem
        cluster.up()
        confirmed(outlet, 10)
        assert not outlet.problem
    assert sequence(cluster) == list(range(10))


def test_what_arrived_before_the_outage_does_not_come_again(cluster: Cluster) -> None:
    with closing(made(cluster.address, message_timeout_ms=1500)) as outlet:
        outlet.open()
        assert outlet.send(lines(0, 10)) == 0
        deadline = time.monotonic() + 30
        while len(sequence(cluster)) < 10:
            assert time.monotonic() < deadline
        cluster.down()
        # Reports of both are fetched at once by now: the good news comes first.
        count = outlet.send(lines(10, 20))
        confirmed(outlet, 10 - count)
        assert failure(outlet)
        outlet.close()
        cluster.up()
        outlet.open()
        confirmed(outlet, 10 - outlet.send(lines(10, 20)))
    assert sequence(cluster) == list(range(20))


def test_lines_that_do_not_go_out_are_given_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(made(cluster.address, queue_buffering_max_messages=10)) as outlet:
        outlet.open()
        cluster.down()
        with monkeypatch.context() as patched:
            patched.setattr(kafka, "_SEND_S", 2.0)
            with pytest.raises(OSError, match=r"lines do not go out .*refused"):
                outlet.send(lines(0, 20))
        outlet.close()
        cluster.up()
        outlet.open()
        confirmed(outlet, 20 - outlet.send(lines(0, 20)))
    assert sequence(cluster) == list(range(20))


def test_a_line_that_is_too_long_is_dropped_and_the_others_arrive(cluster: Cluster) -> None:
    sent = [*lines(0, 3), *lines(3, 4, padding="x" * 2_000_000), *lines(4, 6)]
    with closing(made(cluster.address)) as outlet:
        outlet.open()
        count = outlet.send(sent)
        assert outlet.refused == 0  # it is not its turn yet: those before it are not confirmed
        confirmed(outlet, 6 - count)
        assert outlet.refused == 1
        assert "too large" in outlet.problem
    assert sequence(cluster) == [0, 1, 2, 4, 5]


def test_of_a_batch_that_is_refused_only_what_is_too_long_alone_is_dropped(
    cluster: Cluster,
) -> None:
    """The broker's limit is on batches, so most of them holds what it would take."""
    with closing(made(cluster.address)) as outlet:
        outlet.open()
        cluster.refuse_batches(TOO_LARGE)
        assert "too large" in failure(outlet, lines(0, 10))
        assert outlet.refused == 0
        outlet.close()
        outlet.open()
        cluster.refuse_batches(TAKEN, TAKEN, TOO_LARGE)
        confirmed(outlet, 10 - outlet.send(lines(0, 10)))
        assert outlet.refused == 1
        # That is over: who is alone in a batch would be dropped again.
        cluster.refuse_batches(TOO_LARGE)
        assert "too large" in failure(outlet, lines(10, 20))
        assert outlet.refused == 1
    found = sequence(cluster)
    assert found == sorted(set(found))
    assert {0, 1}.issubset(found)
    assert len(found) == 9


def test_a_producer_that_cannot_go_on_says_so_and_the_next_one_can(cluster: Cluster) -> None:
    with closing(made(cluster.address)) as outlet:
        cluster.refuse_producers(NOT_WITH_US)  # which it finds out on its own after opening
        outlet.open()
        assert "Cluster authorization failed" in failure(outlet, lines(0, 10))
        outlet.close()
        outlet.open()
        confirmed(outlet, 10 - outlet.send(lines(0, 10)))
    assert sequence(cluster) == list(range(10))


def test_a_topic_that_is_not_there_is_named(cluster: Cluster) -> None:
    cluster.refuse_topic(TOPIC, NO_SUCH_TOPIC)
    with closing(made(cluster.address)) as outlet:
        with pytest.raises(OSError, match=f"topic {TOPIC}: .*[Uu]nknown topic"):
            outlet.open()
        outlet.close()
        cluster.refuse_topic(TOPIC, TAKEN)
        outlet.open()


def test_closing_twice_or_before_opening_is_nothing(cluster: Cluster) -> None:
    outlet = made(cluster.address)
    outlet.close()
    outlet.open()
    outlet.close()
    outlet.close()


def test_nothing_is_left_of_many_connections(cluster: Cluster) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task"))

    before = held()
    for _ in range(50):
        outlet = made(cluster.address)
        outlet.open()
        outlet.send(lines(0, 100))
        outlet.close()
    deadline = time.monotonic() + 30  # the cluster's side of the connections goes a little later
    while held() > before and time.monotonic() < deadline:
        cluster.messages(TOPIC)
    assert held() <= before


# --- The delivery process -----------------------------------------------------------------


def test_a_sink_gets_through_an_outage_what_came_meanwhile(
    cluster: Cluster, tmp_path: Path
) -> None:
    options = {
        "brokers": [cluster.address],
        "topic": TOPIC,
        "settings": {"message.timeout.ms": 1500},
    }
    with Delivery(tmp_path / "spool") as delivery:
        delivery.settle_on(a_sink("fleet", "kafka", options, queue=1 << 16))
        delivery.lines(100)
        delivery.until_sink("fleet", lambda sink: sink["delivered"] == 100)
        cluster.down()
        delivery.lines(1000)
        delivery.until_sink("fleet", lambda sink: not sink["up"] and "refused" in sink["problem"])
        assert delivery.until_sink("fleet", lambda sink: sink["spooled"])["delivered"] == 100
        cluster.up()
        after = delivery.until_sink("fleet", lambda sink: sink["delivered"] == 1100)
        assert (after["dropped"], after["problem"]) == (0, "")
    assert sequence(cluster) == list(range(1, 1101))


def test_a_sink_counts_as_dropped_what_kafka_refuses(cluster: Cluster, tmp_path: Path) -> None:
    options = {"brokers": [cluster.address], "topic": TOPIC, "settings": {}}
    with Delivery(tmp_path / "spool") as delivery:
        delivery.settle_on(a_sink("fleet", "kafka", options))
        delivery.lines(10)
        delivery.lines(1, size=2_000_000)
        delivery.lines(10)
        after = delivery.until_sink("fleet", lambda sink: sink["delivered"] == 20)
        assert after["dropped"] == 1
        assert "too large" in after["problem"]
    assert sequence(cluster) == [*range(1, 11), *range(12, 22)]


def test_a_wrong_setting_refuses_the_configuration(tmp_path: Path) -> None:
    options = {"brokers": ["127.0.0.1:9"], "topic": TOPIC, "settings": {"no.such": 1}}
    with Delivery(tmp_path / "spool") as delivery:
        (refusal,) = delivery.settle_on(a_sink("fleet", "kafka", options))
    assert refusal == 'sinks.fleet: No such configuration property: "no.such"'


# --- Settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"no.such.thing": 1}, 'No such configuration property: "no.such.thing"'),
        ({"acks": "most"}, "acks"),
        ({"acks": 1}, "`acks` must be set to `all`"),
        ({"message.timeout.ms": 5}, "greater than `linger.ms`"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/no/such/file"}, "ssl.ca.location"),
        ({"sasl.mechanisms": "PLAIN", "security.protocol": "sasl_ssl"}, "sasl.username"),
        ({"error_cb": "print"}, "error_cb"),
        ({"bootstrap.servers": "elsewhere:9092"}, "brokers stand in 'brokers'"),
        ({"delivery.report.only.error": True}, "delivery.report.only.error cannot be set"),
        ({"transactional.id": "x"}, "transactional.id cannot be set"),
    ],
)
def test_a_wrong_setting_is_found_when_the_sink_is_made(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(OutputError) as caught:
        KafkaOutlet({"brokers": ["127.0.0.1:9"], "topic": TOPIC, "settings": settings})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_go_over_ours(cluster: Cluster) -> None:
    settings = {"enable.idempotence": False, "acks": 1, "compression.type": "none"}
    outlet = KafkaOutlet({"brokers": [cluster.address], "topic": TOPIC, "settings": settings})
    cluster.refuse_producers(NOT_WITH_US)  # which only idempotent ones come by
    with closing(outlet):
        outlet.open()
        confirmed(outlet, 10 - outlet.send(lines(0, 10)))
    assert sequence(cluster) == list(range(10))


def test_a_password_is_not_in_what_is_said(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_OPEN_S", 1.0)
    settings = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "us",
        "sasl.password": "hunter2",
    }
    outlet = KafkaOutlet({"brokers": [cluster.address], "topic": TOPIC, "settings": settings})
    with closing(outlet), pytest.raises(OSError, match="metadata") as caught:
        outlet.open()
    assert "hunter2" not in str(caught.value) + outlet.problem


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(OutputError, match="confluent-kafka"):
        made("127.0.0.1:9")
