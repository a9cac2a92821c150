"""confluent-kafka: records go in and come out as they were, with every codec and acks."""

import random
import time

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from conftest import CODECS, fresh, vltava_only
from librdkafka import (
    DEADLINE_S,
    consumer,
    create_topic,
    poll_until,
    produce,
    producer,
    read,
)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_records_come_back(codec, acks):
    topic = create_topic()
    records = [
        (b"key", b"value", [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)]),
        (None, b"no key", []),
        (b"tombstone", None, []),
        (b"", b"", [("", b"unnamed")]),
        (None, None, []),
    ]
    records += [(b"%d" % i, b"%d" % i * 50, [("i", b"%d" % i)]) for i in range(300)]
    client = producer(compression_type=codec, acks=acks)
    for index, (key, value, headers) in enumerate(records):
        timestamp = 1_600_000_000_000 + index
        client.produce(topic, value, key, 0, headers=headers, timestamp=timestamp)
    assert client.flush(DEADLINE_S) == 0
    messages = read(topic, len(records), check_crcs=True)
    for index, (message, (key, value, headers)) in enumerate(zip(messages, records)):
        assert message.offset() == index
        assert (message.key(), message.value()) == (key, value)
        assert (message.headers() or []) == headers
        assert message.timestamp() == (TIMESTAMP_CREATE_TIME, 1_600_000_000_000 + index)


def test_large_records():
    topic = create_topic(max_message_bytes=6_000_000)
    values = [random.Random(1).randbytes(5_000_000), b"small", random.Random(2).randbytes(3_000_000)]
    produce(topic, values, message_max_bytes=6_000_000)
    messages = read(topic, 3, fetch_message_max_bytes=1_000_000)
    assert [message.value() for message in messages] == values


def test_a_record_above_the_limit_is_refused():
    topic = create_topic(max_message_bytes=10_000)
    with pytest.raises(KafkaException) as caught:
        produce(topic, [b"x" * 20_000])
    assert caught.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert produce(topic, [b"x" * 5_000]) == [0]


@pytest.mark.parametrize("acks", ["all", "-1"])
def test_an_idempotent_producer_keeps_order(acks):
    topic = create_topic(partitions=3)
    client = producer(enable_idempotence=True, acks=acks, batch_num_messages=20, linger_ms=0)
    for i in range(3000):
        client.produce(topic, b"%d" % i, partition=i % 3)
        client.poll(0)
    assert client.flush(DEADLINE_S) == 0
    for partition in range(3):
        values = [int(message.value()) for message in read(topic, 1000, partition)]
        assert values == list(range(partition, 3000, 3))


def test_a_read_crosses_segments():
    # A fetch that meets the end of a segment must answer with an empty set of records, not null:
    # librdkafka stops reading otherwise.
    topic = create_topic(segment_bytes=1_048_576)
    rng = random.Random(7)
    values = [rng.randbytes(40_000) for _ in range(200)]
    assert produce(topic, values) == list(range(200))
    messages = read(topic, 200, max_partition_fetch_bytes=100_000, check_crcs=True)
    assert [message.value() for message in messages] == values
    # And from the middle, in large steps.
    messages = read(topic, 77, offset=123, max_partition_fetch_bytes=10_000_000)
    assert [message.value() for message in messages] == values[123:]


def test_one_connection_reads_many_partitions():
    topic = create_topic(partitions=16)
    client = producer()
    for i in range(1600):
        client.produce(topic, b"%d" % i, partition=i % 16)
    assert client.flush(DEADLINE_S) == 0
    reader = consumer()
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(16)])
    messages = poll_until(reader, 1600)
    reader.close()
    for partition in range(16):
        mine = [int(m.value()) for m in messages if m.partition() == partition]
        assert mine == list(range(partition, 1600, 16))


def test_a_waiting_fetch_is_answered_at_once():
    topic = create_topic()
    reader = consumer(fetch_wait_max_ms=5000, fetch_min_bytes=1)
    reader.assign([TopicPartition(topic, 0, 0)])
    writer = producer(linger_ms=0)
    delays = []
    for i in range(5):
        assert reader.poll(0.3) is None
        begin = time.monotonic()
        writer.produce(topic, b"%d" % i, partition=0)
        writer.poll(0)
        (message,) = poll_until(reader, 1)
        delays.append(time.monotonic() - begin)
        assert message.value() == b"%d" % i
    reader.close()
    # A poll that waited for its timer would need up to 5 s.
    assert min(delays) < 0.5, delays


def test_min_bytes_is_waited_for():
    topic = create_topic()
    produce(topic, [b"x" * 100])
    reader = consumer(fetch_wait_max_ms=1500, fetch_min_bytes=100_000)
    reader.assign([TopicPartition(topic, 0, 0)])
    begin = time.monotonic()
    poll_until(reader, 1)
    assert time.monotonic() - begin > 1.0
    reader.close()


def test_offsets_by_time():
    topic = create_topic()
    client = producer()
    for i in range(100):
        client.produce(topic, b"%d" % i, partition=0, timestamp=1_700_000_000_000 + i * 1000)
        if i % 10 == 9:
            client.flush(DEADLINE_S)
    assert client.flush(DEADLINE_S) == 0
    reader = consumer()
    for timestamp, offset in [(0, 0), (1_700_000_050_000, 50), (1_700_000_050_001, 51)]:
        (found,) = reader.offsets_for_times([TopicPartition(topic, 0, timestamp)], DEADLINE_S)
        assert found.offset == offset
    (found,) = reader.offsets_for_times([TopicPartition(topic, 0, 1_800_000_000_000)], DEADLINE_S)
    assert found.offset == OFFSET_END
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), DEADLINE_S) == (0, 100)
    reader.close()


def test_log_append_time():
    topic = create_topic(message_timestamp_type="LogAppendTime")
    client = producer()
    client.produce(topic, b"x", partition=0, timestamp=1_000)
    assert client.flush(DEADLINE_S) == 0
    (message,) = read(topic, 1)
    kind, timestamp = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert abs(timestamp / 1000 - time.time()) < 60


def test_seek_pause_and_resume():
    topic = create_topic(partitions=2)
    for partition in range(2):
        produce(topic, [b"%d" % i for i in range(100)], partition)
    reader = consumer()
    partitions = [TopicPartition(topic, partition, 0) for partition in range(2)]
    reader.assign(partitions)
    poll_until(reader, 200)
    reader.seek(TopicPartition(topic, 0, 90))
    assert [m.offset() for m in poll_until(reader, 10)] == list(range(90, 100))
    reader.pause(partitions[:1])
    produce(topic, [b"paused"], 0)
    produce(topic, [b"not paused"], 1)
    assert [m.value() for m in poll_until(reader, 1)] == [b"not paused"]
    assert reader.poll(0.5) is None
    reader.resume(partitions[:1])
    assert [m.value() for m in poll_until(reader, 1)] == [b"paused"]
    reader.close()


def test_an_offset_out_of_range_is_reset():
    topic = create_topic()
    produce(topic, [b"%d" % i for i in range(10)])
    (message,) = read(topic, 1, offset=1000, auto_offset_reset="earliest")
    assert message.offset() == 0
    with pytest.raises(KafkaException) as caught:
        read(topic, 1, offset=1000, auto_offset_reset="error")
    assert caught.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET


def test_a_topic_is_made_by_its_first_use():
    topic = fresh("auto")
    assert produce(topic, [b"first"], partition=-1) == [0]
    assert [m.value() for m in read(topic, 1)] == [b"first"]


def test_a_key_is_needed_on_a_compacted_topic():
    topic = create_topic(cleanup_policy="compact")
    with pytest.raises(KafkaException) as caught:
        produce(topic, [b"no key"])
    assert caught.value.args[0].code() == KafkaError.INVALID_RECORD


def test_the_broker_compresses_where_asked():
    topic = create_topic(compression_type="zstd")
    values = [b"a" * 1000 + b"%d" % i for i in range(100)]
    produce(topic, values, compression_type="gzip")
    assert [m.value() for m in read(topic, 100, check_crcs=True)] == values


def test_old_timestamps_are_refused_where_asked():
    topic = create_topic(message_timestamp_before_max_ms=3_600_000)
    client, errors = producer(), []
    client.produce(
        topic, b"old", partition=0, timestamp=1_000, on_delivery=lambda e, _: errors.append(e)
    )
    assert client.flush(DEADLINE_S) == 0
    assert errors[0].code() == KafkaError.INVALID_TIMESTAMP


@vltava_only
def test_transactions_are_refused_for_good():
    client = producer(transactional_id=fresh("transaction"))
    with pytest.raises(KafkaException) as caught:
        client.init_transactions(20)
    assert not caught.value.args[0].retriable()


def test_reading_and_writing_go_on_over_a_restart(restart):
    topic = create_topic(partitions=2)
    writer = producer(enable_idempotence=True)
    reader = consumer()
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(2)])
    count, seen = 0, []
    for _ in range(2):
        for _ in range(200):
            writer.produce(topic, b"%d" % count, partition=count % 2)
            count += 1
        seen += ignoring_lost_connections(reader, 200)
        restart()
        for _ in range(200):
            writer.produce(topic, b"%d" % count, partition=count % 2)
            count += 1
        assert writer.flush(DEADLINE_S) == 0
        seen += ignoring_lost_connections(reader, 200)
    reader.close()
    for partition in range(2):
        mine = [int(m.value()) for m in seen if m.partition() == partition]
        assert mine == list(range(partition, count, 2))


def ignoring_lost_connections(reader, count):
    """Messages, while the broker comes and goes."""
    messages, deadline = [], time.monotonic() + DEADLINE_S
    while len(messages) < count and time.monotonic() < deadline:
        message = reader.poll(0.5)
        if message is not None and not message.error():
            messages.append(message)
    assert len(messages) == count
    return messages
