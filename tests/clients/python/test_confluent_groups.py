"""confluent-kafka: groups share partitions, remember where they were, and fence who is late."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from conftest import fresh
from librdkafka import DEADLINE_S, admin, consumer, create_topic, poll_until, produce, producer

STRATEGIES = ["range", "roundrobin", "cooperative-sticky"]


class Member:
    """A consumer of a group, which notes what it reads and what it was given."""

    def __init__(self, topic, group, **config):
        config = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 500, **config}
        self.client = consumer(group, **config)
        self.rebalances = 0
        self.values = []
        self.client.subscribe([topic], on_assign=self.assigned)

    def assigned(self, _client, _partitions):
        self.rebalances += 1

    def poll(self):
        message = self.client.poll(0.05)
        if message is not None:
            if message.error():
                raise KafkaException(message.error())
            self.values.append(message.value())

    def partitions(self):
        return sorted(p.partition for p in self.client.assignment())


def poll_all(members, until):
    """Polls all members until the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline, [m.partitions() for m in members]
        for member in members:
            member.poll()


def shared(members, count):
    """Whether each partition has one owner, and each member an equal share."""
    owned = [m.partitions() for m in members]
    fair = max(map(len, owned)) - min(map(len, owned)) <= 1
    return fair and sorted(sum(owned, [])) == list(range(count))


def fill(topic, partitions, count, start=0):
    client = producer()
    for i in range(start, start + count):
        client.produce(topic, b"%d" % i, partition=i % partitions)
    assert client.flush(DEADLINE_S) == 0


def begin_at_zero(topic, partitions, group):
    """Commits offset 0 of each partition, so that no member has to ask where a log begins.

    librdkafka (2.12 and 2.16) asks by a timer which outlives the assignment that set it: where a
    partition is given anew meanwhile, it throws that back to its beginning, committed or not.
    """
    client = consumer(group)
    offsets = [TopicPartition(topic, partition, 0) for partition in range(partitions)]
    client.commit(offsets=offsets, asynchronous=False)
    client.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_three_members_share_and_take_over(strategy):
    topic, group = create_topic(partitions=6), fresh("group")
    begin_at_zero(topic, 6, group)
    members = [
        Member(topic, group, partition_assignment_strategy=strategy, client_id=f"member-{i}")
        for i in range(3)
    ]
    poll_all(members, lambda: shared(members, 6))
    fill(topic, 6, 300)
    poll_all(members, lambda: sum(len(m.values) for m in members) >= 300)
    assert sorted(int(v) for m in members for v in m.values) == list(range(300))
    for member in members:
        committed = member.client.commit(asynchronous=False)
        assert [(p.offset, p.error) for p in committed] == [(50, None)] * 2
    # One leaves; the others take over from where it committed.
    members.pop().client.close()
    poll_all(members, lambda: shared(members, 6))
    for member in members:
        member.values.clear()
    fill(topic, 6, 300, start=300)
    poll_all(members, lambda: sum(len(m.values) for m in members) >= 300)
    assert sorted(int(v) for m in members for v in m.values) == list(range(300, 600))
    for member in members:
        member.client.close()


def test_a_dead_member_is_missed():
    topic, group = create_topic(partitions=4), fresh("group")
    alive = Member(topic, group)
    # Polls too rarely: the client itself gives up its place, and so does the broker.
    silent = Member(topic, group, session_timeout_ms=6000, max_poll_interval_ms=6000)
    poll_all([alive, silent], lambda: shared([alive, silent], 4))
    poll_all([alive], lambda: alive.partitions() == [0, 1, 2, 3])
    alive.client.close()
    silent.client.close()


def test_a_group_goes_on_where_it_was():
    topic, group = create_topic(), fresh("group")
    produce(topic, [b"%d" % i for i in range(100)])
    first = consumer(group)
    first.subscribe([topic])
    messages = poll_until(first, 30)
    first.commit(messages[-1], asynchronous=False)
    first.close()
    second = consumer(group)
    second.subscribe([topic])
    assert [int(m.value()) for m in poll_until(second, 70)] == list(range(30, 100))
    second.close()


def test_commits_with_metadata():
    topic, group = create_topic(partitions=2), fresh("group")
    client = consumer(group)
    offsets = [TopicPartition(topic, 0, 7, metadata="here"), TopicPartition(topic, 1, 9)]
    client.commit(offsets=offsets, asynchronous=False)
    committed = client.committed([TopicPartition(topic, p) for p in range(2)], DEADLINE_S)
    assert [(p.offset, p.metadata or "") for p in committed] == [(7, "here"), (9, "")]
    client.close()


def test_a_static_member_returns_without_a_rebalance():
    topic, group = create_topic(partitions=2), fresh("group")
    config = {"session_timeout_ms": 20_000}
    stays = Member(topic, group, group_instance_id="stays", **config)
    returns = Member(topic, group, group_instance_id="returns", **config)
    poll_all([stays, returns], lambda: shared([stays, returns], 2))
    before, owned = stays.rebalances, returns.partitions()
    returns.client.close()
    returns = Member(topic, group, group_instance_id="returns", **config)
    poll_all([stays, returns], lambda: returns.partitions() == owned)
    assert stays.rebalances == before
    assert shared([stays, returns], 2)
    stays.client.close()
    returns.client.close()


def test_a_static_member_fences_its_double():
    topic, group = create_topic(), fresh("group")
    old = Member(topic, group, group_instance_id="one")
    poll_all([old], lambda: old.partitions() == [0])
    new = Member(topic, group, group_instance_id="one")
    with pytest.raises(KafkaException) as caught:
        poll_all([new, old], lambda: False)
    assert caught.value.args[0].code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL)
    poll_all([new], lambda: new.partitions() == [0])
    new.client.close()
    old.client.close()


def test_a_stranger_cannot_commit_into_a_live_group():
    topic, group = create_topic(), fresh("group")
    member = Member(topic, group)
    poll_all([member], lambda: member.partitions() == [0])
    stranger = consumer(group)
    with pytest.raises(KafkaException) as caught:
        stranger.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    stranger.close()
    member.client.close()


def test_a_group_survives_a_restart(restart):
    topic, group = create_topic(partitions=2), fresh("group")
    member = Member(topic, group, reconnect_backoff_max_ms=500)
    poll_all([member], lambda: member.partitions() == [0, 1])
    fill(topic, 2, 100)
    poll_all([member], lambda: len(member.values) >= 100)
    member.client.commit(asynchronous=False)
    restart()
    fill(topic, 2, 100, start=100)
    deadline = time.monotonic() + DEADLINE_S
    while len(member.values) < 200 and time.monotonic() < deadline:
        try:
            member.poll()
        except KafkaException as error:
            # The broker was away.
            assert error.args[0].retriable() or error.args[0].code() < 0
    assert sorted(map(int, member.values)) == list(range(200))
    member.client.close()
    listed = admin().list_consumer_groups().result(DEADLINE_S)
    assert group in [g.group_id for g in listed.valid]
