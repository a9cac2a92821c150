"""librdkafka rides through changes of leader and coordinator: an idempotent producer and a group,
while somebody else stops and kills nodes. Not one of the suite: broker/tests/cluster/riders.rs runs
it, against a cluster, and looks at the log afterwards.

RIDE_TOPIC: has three partitions. RIDE_STOP: a file; once it is there, what was begun is finished.
"""

import os
import time

from confluent_kafka import Consumer, KafkaException, Producer

from conftest import BOOTSTRAP

TOPIC = os.environ["RIDE_TOPIC"]
PARTITIONS = 3
DEADLINE_S = 60


class Reader:
    """A member of a group that reads on where it was, and knows what was committed."""

    def __init__(self):
        self.values = [[] for _ in range(PARTITIONS)]
        self.committed = [0] * PARTITIONS
        self.client = Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": f"{TOPIC}-readers",
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": 200,
                "on_commit": self.on_commit,
            }
        )
        self.client.subscribe([TOPIC])

    def on_commit(self, error, partitions):
        # One that failed is sent again.
        for at in [] if error else partitions:
            if not at.error and at.offset >= 0:
                self.committed[at.partition] = max(self.committed[at.partition], at.offset)

    def read(self, wait_s):
        message = self.client.poll(wait_s)
        if message is None:
            return False
        if message.error():
            raise KafkaException(message.error())
        values, offset = self.values[message.partition()], message.offset()
        where = f"{message.partition()}@{offset}"
        assert offset <= len(values), f"{where}: skipped from {len(values)}"
        assert offset >= self.committed[message.partition()], f"{where}: went back"
        if offset == len(values):
            values.append(message.value())
        assert values[offset] == message.value(), f"{where}: another value than before"
        return True


def test_ride():
    errors, fatal = [], []
    writer = Producer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "error_cb": lambda error: fatal.append(error) if error.fatal() else None,
        }
    )
    reader, sent = Reader(), 0
    delivered = lambda error, message: errors.append(error) if error else None
    while not os.path.exists(os.environ["RIDE_STOP"]):
        for _ in range(3):
            value = f"librdkafka {sent}"
            writer.produce(TOPIC, value, partition=sent % PARTITIONS, on_delivery=delivered)
            sent += 1
        writer.poll(0)
        # Newer records may wait; none is left out.
        for _ in range(30):
            if not reader.read(0.005):
                break
        assert not errors and not fatal, f"{errors} {fatal}"
    assert writer.flush(DEADLINE_S) == 0
    assert not errors and not fatal, f"{errors} {fatal}"
    deadline = time.monotonic() + DEADLINE_S
    while sum(map(len, reader.values)) < sent:
        reader.read(0.1)
        assert time.monotonic() < deadline, f"{sent} sent, read {list(map(len, reader.values))}"
    reader.client.close()
    for partition, values in enumerate(reader.values):
        expected = [f"librdkafka {number}".encode() for number in range(partition, sent, PARTITIONS)]
        assert values == expected
    print(f"RIDE sent={sent}")
