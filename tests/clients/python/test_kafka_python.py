"""kafka-python: pure Python, so a second opinion on every byte (its codecs are other libraries)."""

import threading
import time

import pytest
from conftest import BOOTSTRAP, CODECS, fresh
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.structs import OffsetAndMetadata

DEADLINE_S = 60


@pytest.fixture(scope="module")
def admin():
    client = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    yield client
    client.close()


@pytest.fixture
def create_topic(admin):
    def create(partitions=1, **config):
        name = fresh("kafka-python")
        configs = {key.replace("_", "."): str(value) for key, value in config.items()}
        options = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        admin.create_topics({name: options}, wait_for_metadata=True)
        return name

    return create


def producer(**config):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=5, **config)


def consumer(**config):
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **config,
    )


def poll_until(client, count):
    records, deadline = [], time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records"
        for batch in client.poll(timeout_ms=500).values():
            records.extend(batch)
    return records


def read(topic, count, **config):
    client = consumer(**config)
    client.assign([TopicPartition(topic, 0)])
    try:
        return poll_until(client, count)
    finally:
        client.close()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_records_come_back(create_topic, codec, acks):
    topic = create_topic()
    records = [
        (b"key", b"value", [("h", b"1"), ("h", b"2"), ("empty", b"")]),
        (None, b"no key", []),
        (b"tombstone", None, []),
        (b"", b"", []),
    ]
    records += [(b"%d" % i, b"%d" % i * 50, []) for i in range(200)]
    compression = None if codec == "none" else codec
    client = producer(acks=acks, compression_type=compression, enable_idempotence=False)
    for index, (key, value, headers) in enumerate(records):
        client.send(topic, value, key, headers, 0, timestamp_ms=1_600_000_000_000 + index)
    client.flush(DEADLINE_S)
    client.close()
    found = read(topic, len(records), check_crcs=True)
    for index, (record, (key, value, headers)) in enumerate(zip(found, records)):
        assert record.offset == index
        assert (record.key, record.value) == (key, value)
        assert list(map(tuple, record.headers)) == headers
        assert record.timestamp == 1_600_000_000_000 + index


def test_an_idempotent_producer_keeps_order(create_topic):
    topic = create_topic()
    client = producer(enable_idempotence=True, acks="all", batch_size=200)
    futures = [client.send(topic, b"%d" % i, partition=0) for i in range(1000)]
    assert [f.get(DEADLINE_S).offset for f in futures] == list(range(1000))
    client.close()
    assert [int(record.value) for record in read(topic, 1000)] == list(range(1000))


def test_large_records(create_topic):
    topic = create_topic(max_message_bytes=4_000_000)
    client = producer(max_request_size=4_000_000)
    client.send(topic, b"x" * 3_000_000, partition=0).get(DEADLINE_S)
    client.close()
    (record,) = read(topic, 1)
    assert record.value == b"x" * 3_000_000


def test_a_read_crosses_segments(create_topic):
    topic = create_topic(segment_bytes=1_048_576)
    client = producer()
    for i in range(100):
        client.send(topic, b"%03d" % i * 10_000, partition=0)
    client.flush(DEADLINE_S)
    client.close()
    assert [record.value[:3] for record in read(topic, 100)] == [b"%03d" % i for i in range(100)]


class Member(threading.Thread):
    """A consumer of a group in a thread of its own."""

    def __init__(self, topic, group, assignor, **config):
        super().__init__()
        self.client = consumer(
            group_id=group,
            partition_assignment_strategy=[assignor],
            heartbeat_interval_ms=500,
            **config,
        )
        self.client.subscribe([topic])
        self.stopping, self.values, self.owned, self.error = False, [], [], None
        self.start()

    def run(self):
        try:
            while not self.stopping:
                # Long enough for a whole rebalance: kafka-python 3.0.12 forgets the answer to a
                # SyncGroup that comes just as a poll ends, and the member then stays silent for
                # ever (every answer was seen to arrive, with a proxy between).
                batches = self.client.poll(timeout_ms=2_000)
                for batch in batches.values():
                    self.values.extend(int(record.value) for record in batch)
                if batches:
                    self.client.commit()
                self.owned = sorted(p.partition for p in self.client.assignment())
            self.client.close()
        except Exception as error:  # noqa: BLE001, shown by `stop`
            self.error = error

    def stop(self):
        self.stopping = True
        self.join(DEADLINE_S)
        assert self.error is None, self.error


def wait(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.mark.parametrize(
    "assignor",
    [
        RangePartitionAssignor,
        RoundRobinPartitionAssignor,
        StickyPartitionAssignor,
        CooperativeStickyAssignor,
    ],
)
def test_three_members_share_and_take_over(admin, create_topic, assignor):
    topic, group = create_topic(partitions=6), fresh("group")
    partitions = [TopicPartition(topic, p) for p in range(6)]
    members = [Member(topic, group, assignor) for _ in range(3)]

    def shared():
        owned = [member.owned for member in members]
        fair = max(map(len, owned)) - min(map(len, owned)) <= 1
        return fair and sorted(sum(owned, [])) == list(range(6))

    def fill(begin, end):
        client = producer()
        for i in range(begin, end):
            client.send(topic, b"%d" % i, partition=i % 6)
        client.flush(DEADLINE_S)
        client.close()

    def seen():
        return sorted(value for member in everyone for value in member.values)

    def committed():
        found = admin.list_group_offsets({group: partitions})[group]
        return sum(max(0, offset.offset) for offset in found.values())

    everyone = list(members)
    try:
        wait(shared, lambda: [member.owned for member in members])
        fill(0, 120)
        wait(lambda: committed() >= 120, seen)
        members.pop().stop()
        wait(shared, lambda: [member.owned for member in members])
        fill(120, 240)
        wait(lambda: committed() >= 240, seen)
    finally:
        for member in members:
            member.stop()
    assert seen() == list(range(240))


def test_commits_return_with_their_metadata(create_topic):
    topic, group = create_topic(), fresh("group")
    partition = TopicPartition(topic, 0)
    client = consumer(group_id=group)
    client.assign([partition])
    client.commit({partition: OffsetAndMetadata(5, "five", -1)})
    client.close()
    client = consumer(group_id=group)
    found = client.committed(partition, metadata=True)
    assert (found.offset, found.metadata) == (5, "five")
    client.close()


def test_topics_and_partitions(admin, create_topic):
    topic = create_topic(partitions=2)
    (described,) = admin.describe_topics([topic])
    assert len(described["partitions"]) == 2
    admin.create_partitions({topic: 4})

    def partitions():
        return len(admin.describe_topics([topic])[0]["partitions"])

    wait(lambda: partitions() == 4, partitions)
    admin.delete_topics([topic])
    wait(lambda: topic not in admin.list_topics(), admin.list_topics)


def test_settings(admin, create_topic):
    topic = create_topic(retention_ms=777)

    def settings():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, None)
        return admin.describe_configs([resource])["topic"][topic]

    assert settings()["retention.ms"]["value"] == "777"
    # The older call replaces all settings at once, the newer one changes what it names.
    change = {"retention.ms": "888"}
    for incremental in (True, False):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, change)
        admin.alter_configs([resource], incremental=incremental)
        wait(lambda: settings()["retention.ms"]["value"] == change["retention.ms"], settings)
        change = {"retention.ms": "999"}


def test_records_are_deleted_and_offsets_listed(admin, create_topic):
    topic = create_topic()
    partition = TopicPartition(topic, 0)
    client = producer()
    for i in range(50):
        client.send(topic, b"x", partition=0, timestamp_ms=1000 + i)
    client.flush(DEADLINE_S)
    client.close()
    deleted = admin.delete_records({partition: 20})
    assert deleted[partition]["low_watermark"] == 20
    for spec, offset in [
        (OffsetSpec.EARLIEST, 20),
        (OffsetSpec.LATEST, 50),
        (OffsetSpec.MAX_TIMESTAMP, 49),
        (1030, 30),
    ]:
        assert admin.list_partition_offsets({partition: spec})[partition].offset == offset


def test_groups(admin, create_topic):
    topic, group = create_topic(), fresh("group")
    partition = TopicPartition(topic, 0)
    client = consumer(group_id=group)
    client.assign([partition])
    client.commit({partition: OffsetAndMetadata(3, "", -1)})
    client.close()
    assert group in [found["group_id"] for found in admin.list_groups()]
    assert admin.list_group_offsets({group: [partition]})[group][partition].offset == 3
    deleted = admin.delete_group_offsets(group, [partition])
    assert deleted[partition].errno == 0
    admin.delete_groups([group])


def test_the_node_describes_itself(admin, create_topic):
    topic = create_topic()
    client = producer(enable_idempotence=True)
    client.send(topic, b"x" * 1000, partition=0).get(DEADLINE_S)
    client.close()
    assert len(admin.describe_cluster()["brokers"]) == 1
    dirs = admin.describe_log_dirs([topic])
    assert topic in str(dirs)
    partition = TopicPartition(topic, 0)
    state = admin.describe_producers([partition])[partition]
    (found,) = state.active_producers
    assert (found.last_sequence, found.producer_epoch) == (0, 0)
