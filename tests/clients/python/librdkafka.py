"""Short words for confluent-kafka, shared by its tests."""

import functools
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from conftest import BOOTSTRAP, fresh

DEADLINE_S = 60


@functools.cache
def admin():
    """One client for all tests: its answers are lost where it is dropped before them."""
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def create_topic(partitions=1, **config):
    """A new topic; its settings are written with `_` in place of `.`."""
    name = fresh("librdkafka")
    config = {key.replace("_", "."): str(value) for key, value in config.items()}
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
    for future in admin().create_topics([topic]).values():
        future.result(DEADLINE_S)
    return name


def producer(**config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    return Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 5, **config})


def consumer(group=None, **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    return Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": group or fresh("group"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **config,
        }
    )


def produce(topic, values, partition=0, **config):
    """Writes the values and returns the offsets that were acknowledged, in order."""
    client, offsets = producer(**config), []

    def delivered(error, message):
        if error:
            raise KafkaException(error)
        offsets.append(message.offset())

    for value in values:
        client.produce(topic, value, partition=partition, on_delivery=delivered)
        client.poll(0)
    assert client.flush(DEADLINE_S) == 0
    return offsets


def poll_until(client, count):
    """Messages, until there are `count` of them."""
    messages, deadline = [], time.monotonic() + DEADLINE_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"only {len(messages)} of {count} messages"
        message = client.poll(0.5)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        messages.append(message)
    return messages


def read(topic, count, partition=0, offset=0, **config):
    """The messages of one partition from an offset on, without a group."""
    client = consumer(**config)
    client.assign([TopicPartition(topic, partition, offset)])
    try:
        return poll_until(client, count)
    finally:
        client.close()
