package vltava;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Classic groups: members share partitions, go on where the group was, and are fenced when late. */
class GroupsTest {
    /** A member of a group: its own client, what it read, how often it was given partitions. */
    private static final class Member implements AutoCloseable, ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> client;
        final List<Integer> values = new ArrayList<>();
        int rebalances;
        boolean commitsWhatItGivesUp = true;

        Member(String topic, String group, String... settings) {
            List<String> all = new ArrayList<>(List.of(settings));
            all.addAll(List.of("group.id", group, "heartbeat.interval.ms", "300"));
            client = Broker.consumer(all.toArray(new String[0]));
            client.subscribe(List.of(topic), this);
        }

        void poll() {
            for (ConsumerRecord<byte[], byte[]> record : client.poll(Duration.ofMillis(20))) {
                values.add(Integer.parseInt(Broker.text(record.value())));
            }
        }

        Set<Integer> owned() {
            Set<Integer> partitions = new TreeSet<>();
            client.assignment().forEach(partition -> partitions.add(partition.partition()));
            return partitions;
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            if (commitsWhatItGivesUp) {
                client.commitSync();
            }
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            // They belong to another member already.
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            rebalances++;
        }

        @Override
        public void close() {
            client.close();
        }
    }

    /** Polls all members until each partition has one owner, and each member a fair share. */
    private static void awaitShares(List<Member> members, int partitions) {
        Broker.await(
                () -> {
                    members.forEach(Member::poll);
                    List<Integer> all =
                            members.stream().flatMap(m -> m.owned().stream()).sorted().toList();
                    int most = members.stream().mapToInt(m -> m.owned().size()).max().orElse(0);
                    int least = members.stream().mapToInt(m -> m.owned().size()).min().orElse(0);
                    return most - least <= 1
                            && all.equals(IntStream.range(0, partitions).boxed().toList());
                },
                () -> "shares " + members.stream().map(Member::owned).toList());
    }

    private static void fill(String topic, int partitions, int begin, int end) {
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            for (int i = begin; i < end; i++) {
                byte[] value = Broker.bytes("" + i);
                producer.send(new ProducerRecord<>(topic, i % partitions, null, value));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(
            classes = {
                RangeAssignor.class,
                RoundRobinAssignor.class,
                StickyAssignor.class,
                CooperativeStickyAssignor.class
            })
    void threeMembersShareAndTakeOver(Class<?> assignor) throws Exception {
        String topic = Broker.createTopic(6);
        String group = Broker.fresh("group");
        String[] settings = {"partition.assignment.strategy", assignor.getName()};
        List<Member> members = new ArrayList<>();
        List<Member> everyone = new ArrayList<>();
        try {
            for (int i = 0; i < 3; i++) {
                members.add(new Member(topic, group, settings));
                everyone.add(members.get(i));
            }
            awaitShares(members, 6);
            fill(topic, 6, 0, 300);
            awaitValues(members, everyone, 300);
            members.forEach(member -> member.client.commitSync());
            members.remove(2).close();
            awaitShares(members, 6);
            fill(topic, 6, 300, 600);
            awaitValues(members, everyone, 600);
        } finally {
            members.forEach(Member::close);
        }
        List<Integer> all = everyone.stream().flatMap(m -> m.values.stream()).sorted().toList();
        assertEquals(IntStream.range(0, 600).boxed().toList(), all);
    }

    private static void awaitValues(List<Member> members, List<Member> everyone, int count) {
        Broker.await(
                () -> {
                    members.forEach(Member::poll);
                    return everyone.stream().mapToInt(m -> m.values.size()).sum() >= count;
                },
                () -> "values");
    }

    @Test
    void aGroupGoesOnWhereItWas() throws Exception {
        String topic = Broker.createTopic(1);
        String group = Broker.fresh("group");
        fill(topic, 1, 0, 100);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (Member member = new Member(topic, group, "max.poll.records", "10")) {
            member.commitsWhatItGivesUp = false;
            Broker.await(() -> { member.poll(); return member.values.size() >= 30; }, () -> "30");
            member.client.commitSync(Map.of(partition, new OffsetAndMetadata(30, "thirty")));
        }
        try (Member member = new Member(topic, group)) {
            OffsetAndMetadata committed = member.client.committed(Set.of(partition)).get(partition);
            assertEquals(30, committed.offset());
            assertEquals("thirty", committed.metadata());
            Broker.await(() -> { member.poll(); return member.values.size() >= 70; }, () -> "70");
            assertEquals(IntStream.range(30, 100).boxed().toList(), member.values);
        }
    }

    @Test
    void aStaticMemberReturnsWithoutARebalance() throws Exception {
        String topic = Broker.createTopic(2);
        String group = Broker.fresh("group");
        try (Member stays = new Member(topic, group, "group.instance.id", "stays")) {
            Member leaves = new Member(topic, group, "group.instance.id", "returns");
            awaitShares(List.of(stays, leaves), 2);
            Set<Integer> owned = leaves.owned();
            int before = stays.rebalances;
            leaves.close();
            try (Member returns = new Member(topic, group, "group.instance.id", "returns")) {
                awaitShares(List.of(stays, returns), 2);
                assertEquals(owned, returns.owned());
                assertEquals(before, stays.rebalances);
            }
        }
    }

    @Test
    void aStaticMemberFencesItsDouble() throws Exception {
        String topic = Broker.createTopic(1);
        String group = Broker.fresh("group");
        try (Member old = new Member(topic, group, "group.instance.id", "one")) {
            awaitShares(List.of(old), 1);
            try (Member young = new Member(topic, group, "group.instance.id", "one")) {
                awaitShares(List.of(young), 1);
                assertThrows(
                        FencedInstanceIdException.class,
                        () -> Broker.await(() -> { old.poll(); return false; }, () -> "fenced"));
            }
        }
    }
}
