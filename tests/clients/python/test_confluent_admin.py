"""confluent-kafka: the admin client makes, changes, describes and removes what it should."""

import time

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions, TopicCollection
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from conftest import fresh
from librdkafka import DEADLINE_S, admin, consumer, create_topic, produce, producer, read


def result(futures):
    """The one result of an admin call."""
    (future,) = futures.values() if isinstance(futures, dict) else [futures]
    return future.result(DEADLINE_S)


def code(futures):
    with pytest.raises(KafkaException) as caught:
        result(futures)
    return caught.value.args[0].code()


def until(condition):
    """Waits for what another thread of the broker may still be about to do."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_topics_come_and_go():
    topic = create_topic(partitions=3)
    described = result(admin().describe_topics(TopicCollection([topic])))
    assert described.name == topic and not described.is_internal
    assert [p.id for p in described.partitions] == [0, 1, 2]
    assert all(len(p.replicas) == len(p.isr) == 1 for p in described.partitions)
    assert topic in admin().list_topics(timeout=DEADLINE_S).topics
    result(admin().create_partitions([NewPartitions(topic, 5)]))
    until(lambda: len(admin().list_topics(topic, DEADLINE_S).topics[topic].partitions) == 5)
    produce(topic, [b"new"], partition=4)
    assert [m.value() for m in read(topic, 1, partition=4)] == [b"new"]
    result(admin().delete_topics([topic]))
    until(lambda: topic not in admin().list_topics(timeout=DEADLINE_S).topics)
    assert code(admin().delete_topics([topic])) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_topic_that_returns_is_empty():
    topic = create_topic()
    produce(topic, [b"old"] * 10)
    result(admin().delete_topics([topic]))
    until(lambda: topic not in admin().list_topics(timeout=DEADLINE_S).topics)
    result(admin().create_topics([NewTopic(topic, 1, 1)]))
    assert produce(topic, [b"new"]) == [0]
    assert [m.value() for m in read(topic, 1)] == [b"new"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "x" * 250])
def test_invalid_names_are_refused(name):
    if not name:
        with pytest.raises((KafkaException, ValueError)):
            result(admin().create_topics([NewTopic(name, 1, 1)]))
    else:
        assert code(admin().create_topics([NewTopic(name, 1, 1)])) == KafkaError.TOPIC_EXCEPTION


def test_invalid_topics_are_refused():
    existing, new = create_topic(), fresh("invalid")
    cases = [
        (NewTopic(existing, 1, 1), KafkaError.TOPIC_ALREADY_EXISTS),
        (NewTopic(new, 0, 1), KafkaError.INVALID_PARTITIONS),
        (NewTopic(new, 1, 5), KafkaError.INVALID_REPLICATION_FACTOR),
        (NewTopic(new, 1, 1, config={"no.such.setting": "1"}), KafkaError.INVALID_CONFIG),
        (NewTopic(new, 1, 1, config={"segment.bytes": "10"}), KafkaError.INVALID_CONFIG),
        (NewTopic(new, 1, 1, config={"retention.ms": "long"}), KafkaError.INVALID_CONFIG),
    ]
    for topic, expected in cases:
        assert code(admin().create_topics([topic])) == expected, topic.config
    assert code(admin().create_partitions([NewPartitions(existing, 1)])) == (
        KafkaError.INVALID_PARTITIONS
    )
    assert code(admin().create_partitions([NewPartitions(new, 3)])) == (
        KafkaError.UNKNOWN_TOPIC_OR_PART
    )
    # A topic that is only validated is not made.
    name = fresh("validated")
    result(admin().create_topics([NewTopic(name, 1, 1)], validate_only=True))
    assert name not in admin().list_topics(timeout=DEADLINE_S).topics


def configs_of(topic):
    return result(admin().describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))


def alter(topic, name, value, operation):
    entry = ConfigEntry(name, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    return admin().incremental_alter_configs([resource])


def test_settings_change_and_return():
    topic = create_topic(retention_ms=1000_000)
    entries = configs_of(topic)
    assert entries["retention.ms"].value == "1000000"
    assert entries["retention.ms"].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert entries["cleanup.policy"].value == "delete"
    assert entries["cleanup.policy"].is_default
    result(alter(topic, "retention.ms", "5000000", AlterConfigOpType.SET))
    until(lambda: configs_of(topic)["retention.ms"].value == "5000000")
    result(alter(topic, "retention.ms", None, AlterConfigOpType.DELETE))
    until(lambda: configs_of(topic)["retention.ms"].value == "604800000")
    result(alter(topic, "cleanup.policy", "compact", AlterConfigOpType.APPEND))
    until(lambda: configs_of(topic)["cleanup.policy"].value == "delete,compact")
    result(alter(topic, "cleanup.policy", "compact", AlterConfigOpType.SUBTRACT))
    until(lambda: configs_of(topic)["cleanup.policy"].value == "delete")
    invalid = alter(topic, "segment.bytes", "10", AlterConfigOpType.SET)
    assert code(invalid) == KafkaError.INVALID_CONFIG
    unknown = alter(fresh("none"), "retention.ms", "1", AlterConfigOpType.SET)
    assert code(unknown) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_broker_tells_its_settings():
    (broker,) = admin().list_topics(timeout=DEADLINE_S).brokers
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    entries = result(admin().describe_configs([resource]))
    for name in ["num.partitions", "auto.create.topics.enable", "log.retention.ms", "node.id"]:
        assert name in entries


def test_records_are_deleted():
    topic = create_topic()
    produce(topic, [b"%d" % i for i in range(100)])
    deleted = result(admin().delete_records([TopicPartition(topic, 0, 40)]))
    assert deleted.low_watermark == 40
    reader = consumer()
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), DEADLINE_S) == (40, 100)
    reader.close()
    assert read(topic, 1, offset=0, auto_offset_reset="earliest")[0].offset() == 40
    beyond = admin().delete_records([TopicPartition(topic, 0, 1000)])
    assert code(beyond) == KafkaError.OFFSET_OUT_OF_RANGE


def test_offsets_are_listed():
    topic = create_topic()
    client = producer()
    for timestamp in [5000, 9000, 7000]:
        client.produce(topic, b"x", partition=0, timestamp=timestamp)
        assert client.flush(DEADLINE_S) == 0
    cases = [
        (OffsetSpec.earliest(), 0),
        (OffsetSpec.latest(), 3),
        (OffsetSpec.max_timestamp(), 1),
        (OffsetSpec.for_timestamp(6000), 1),
        (OffsetSpec.for_timestamp(10_000), -1),
    ]
    for spec, offset in cases:
        found = result(admin().list_offsets({TopicPartition(topic, 0): spec}))
        assert found.offset == offset, spec


def test_groups_are_listed_described_and_deleted():
    topic, group = create_topic(partitions=2), fresh("group")
    member = consumer(group, client_id="a-member")
    member.subscribe([topic])
    deadline = time.monotonic() + DEADLINE_S
    while len(member.assignment()) < 2:
        member.poll(0.1)
        assert time.monotonic() < deadline
    described = result(admin().describe_consumer_groups([group]))
    assert described.state == ConsumerGroupState.STABLE
    assert described.partition_assignor == "range"
    (found,) = described.members
    assert found.client_id == "a-member"
    assert len(found.assignment.topic_partitions) == 2
    listed = result(admin().list_consumer_groups(states={ConsumerGroupState.STABLE}))
    assert group in [g.group_id for g in listed.valid]
    assert code(admin().delete_consumer_groups([group])) == KafkaError.NON_EMPTY_GROUP
    member.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    member.close()
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    (found,) = result(admin().list_consumer_group_offsets([asked])).topic_partitions
    assert found.offset == 3
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 1)])
    result(admin().alter_consumer_group_offsets([moved]))
    (found,) = result(admin().list_consumer_group_offsets([asked])).topic_partitions
    assert found.offset == 1
    described = result(admin().describe_consumer_groups([group]))
    assert described.state == ConsumerGroupState.EMPTY
    result(admin().delete_consumer_groups([group]))
    assert code(admin().delete_consumer_groups([group])) == KafkaError.GROUP_ID_NOT_FOUND


def test_the_cluster_is_described():
    cluster = result(admin().describe_cluster())
    assert len(cluster.nodes) == 1
    assert cluster.controller.id == cluster.nodes[0].id
    assert cluster.cluster_id
