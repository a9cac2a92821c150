package vltava;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult.TopicMetadataAndConfig;
import org.apache.kafka.clients.admin.DeletedRecords;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.ReplicaInfo;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The admin client makes, changes, describes and removes what it should. */
class AdminTest {
    static Admin admin;

    @BeforeAll
    static void open() {
        admin = Broker.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    private static TopicDescription describe(String topic) throws Exception {
        return Broker.get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private static Set<String> topics() {
        try {
            return Broker.get(admin.listTopics().names());
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static void write(String topic, int count) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            for (int i = 0; i < count; i++) {
                producer.send(new ProducerRecord<>(topic, 0, 1000L + i, null, Broker.bytes("" + i)));
            }
        }
    }

    @Test
    void topicsComeAndGo() throws Exception {
        String topic = Broker.fresh("java");
        NewTopic created = new NewTopic(topic, 3, (short) 1);
        created.configs(Map.of("retention.ms", "12345"));
        var result = admin.createTopics(List.of(created));
        TopicMetadataAndConfig answer = answer(result, topic);
        assertEquals("12345", answer.config().get("retention.ms").value());
        assertNotEquals(Uuid.ZERO_UUID, answer.topicId());
        assertEquals(3, answer.numPartitions());
        TopicDescription description = describe(topic);
        assertEquals(3, description.partitions().size());
        assertEquals(answer.topicId(), description.topicId());
        assertEquals(1, description.partitions().get(2).isr().size());
        var byId =
                Broker.get(
                        admin.describeTopics(TopicCollection.ofTopicIds(List.of(answer.topicId())))
                                .allTopicIds());
        assertEquals(topic, byId.get(answer.topicId()).name());
        Broker.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        Broker.await(() -> count(topic) == 5, () -> "partitions");
        Broker.get(admin.deleteTopics(List.of(topic)).all());
        Broker.await(() -> !topics().contains(topic), () -> "deleted");
        Broker.failure(
                UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(topic)).all());
    }

    private static TopicMetadataAndConfig answer(
            org.apache.kafka.clients.admin.CreateTopicsResult result, String topic) throws Exception {
        Broker.get(result.all());
        return new TopicMetadataAndConfig(
                Broker.get(result.topicId(topic)),
                Broker.get(result.numPartitions(topic)),
                Broker.get(result.replicationFactor(topic)),
                Broker.get(result.config(topic)));
    }

    private static int count(String topic) {
        try {
            return describe(topic).partitions().size();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    @Test
    void topicsGoById() throws Exception {
        String topic = Broker.createTopic(1);
        Uuid id = describe(topic).topicId();
        Broker.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        Broker.await(() -> !topics().contains(topic), () -> "deleted");
    }

    @Test
    void whatCannotBeIsRefused() throws Exception {
        String existing = Broker.createTopic(1);
        refused(TopicExistsException.class, new NewTopic(existing, 1, (short) 1));
        refused(InvalidTopicException.class, new NewTopic("a/b", 1, (short) 1));
        refused(InvalidPartitionsException.class, new NewTopic(Broker.fresh("t"), 0, (short) 1));
        refused(
                InvalidReplicationFactorException.class,
                new NewTopic(Broker.fresh("t"), 1, (short) 3));
        refused(
                InvalidConfigurationException.class,
                new NewTopic(Broker.fresh("t"), 1, (short) 1).configs(Map.of("no.such", "1")));
        Broker.failure(
                InvalidPartitionsException.class,
                admin.createPartitions(Map.of(existing, NewPartitions.increaseTo(1))).all());
        String validated = Broker.fresh("validated");
        var options = new CreateTopicsOptions().validateOnly(true);
        Broker.get(
                admin.createTopics(List.of(new NewTopic(validated, 2, (short) 1)), options).all());
        assertFalse(topics().contains(validated));
    }

    private static void refused(Class<? extends Throwable> expected, NewTopic topic)
            throws Exception {
        Broker.failure(expected, admin.createTopics(List.of(topic)).all());
    }

    @Test
    void replicasAndDefaultsMayBeLeftToTheBroker() throws Exception {
        String topic = Broker.fresh("defaults");
        NewTopic created = new NewTopic(topic, java.util.Optional.empty(), java.util.Optional.empty());
        Broker.get(admin.createTopics(List.of(created)).all());
        assertEquals(1, describe(topic).partitions().get(0).replicas().size());
    }

    private static Config configs(String topic) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try {
            return Broker.get(admin.describeConfigs(List.of(resource)).all()).get(resource);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static void alter(String topic, String name, String value, AlterConfigOp.OpType type)
            throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp operation = new AlterConfigOp(new ConfigEntry(name, value), type);
        Broker.get(admin.incrementalAlterConfigs(Map.of(resource, List.of(operation))).all());
    }

    private static void awaitConfig(String topic, String name, String value) {
        Broker.await(
                () -> value.equals(configs(topic).get(name).value()),
                () -> configs(topic).get(name).toString());
    }

    @Test
    void settingsChangeAndReturn() throws Exception {
        String topic = Broker.createTopic(1);
        assertTrue(configs(topic).get("retention.ms").isDefault());
        alter(topic, "retention.ms", "777", AlterConfigOp.OpType.SET);
        awaitConfig(topic, "retention.ms", "777");
        assertEquals(
                ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG,
                configs(topic).get("retention.ms").source());
        alter(topic, "retention.ms", null, AlterConfigOp.OpType.DELETE);
        awaitConfig(topic, "retention.ms", "604800000");
        alter(topic, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        awaitConfig(topic, "cleanup.policy", "delete,compact");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp invalid =
                new AlterConfigOp(new ConfigEntry("segment.bytes", "1"), AlterConfigOp.OpType.SET);
        Broker.failure(
                InvalidConfigurationException.class,
                admin.incrementalAlterConfigs(Map.of(resource, List.of(invalid))).all());
    }

    @Test
    void recordsAreDeleted() throws Exception {
        String topic = Broker.createTopic(1);
        write(topic, 100);
        TopicPartition partition = new TopicPartition(topic, 0);
        DeletedRecords deleted =
                Broker.get(
                        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(40)))
                                .lowWatermarks()
                                .get(partition));
        assertEquals(40, deleted.lowWatermark());
        assertEquals(40, offset(partition, OffsetSpec.earliest()));
        assertEquals(40, Broker.read(topic, 0, 60).get(0).offset());
        Broker.failure(
                OffsetOutOfRangeException.class,
                admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(1000))).all());
        deleted =
                Broker.get(
                        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1)))
                                .lowWatermarks()
                                .get(partition));
        assertEquals(100, deleted.lowWatermark());
        String compacted = Broker.createTopic(1, "cleanup.policy", "compact");
        Broker.failure(
                PolicyViolationException.class,
                admin.deleteRecords(
                                Map.of(
                                        new TopicPartition(compacted, 0),
                                        RecordsToDelete.beforeOffset(0)))
                        .all());
    }

    private static long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return Broker.get(admin.listOffsets(Map.of(partition, spec)).partitionResult(partition))
                .offset();
    }

    @Test
    void offsetsAreListed() throws Exception {
        String topic = Broker.createTopic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        assertEquals(-1, offset(partition, OffsetSpec.maxTimestamp()));
        assertEquals(0, offset(partition, OffsetSpec.latest()));
        write(topic, 50);
        assertEquals(0, offset(partition, OffsetSpec.earliest()));
        assertEquals(50, offset(partition, OffsetSpec.latest()));
        assertEquals(49, offset(partition, OffsetSpec.maxTimestamp()));
        assertEquals(30, offset(partition, OffsetSpec.forTimestamp(1030)));
        assertEquals(-1, offset(partition, OffsetSpec.forTimestamp(5000)));
        assertEquals(0, offset(partition, OffsetSpec.earliestLocal()));
    }

    @Test
    void groupsAreDescribedAndDeleted() throws Exception {
        String topic = Broker.createTopic(2);
        String group = Broker.fresh("group");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> member =
                Broker.consumer("group.id", group, "client.id", "a-member")) {
            member.subscribe(List.of(topic));
            Broker.await(
                    () -> {
                        member.poll(Duration.ofMillis(50));
                        return member.assignment().size() == 2;
                    },
                    () -> "assignment");
            ConsumerGroupDescription description = describeGroup(group);
            assertEquals(GroupState.STABLE, description.groupState());
            assertEquals(GroupType.CLASSIC, description.type());
            var found = description.members().iterator().next();
            assertEquals("a-member", found.clientId());
            assertEquals(2, found.assignment().topicPartitions().size());
            assertNotNull(description.coordinator());
            member.commitSync(Map.of(partition, new OffsetAndMetadata(7)));
            Broker.failure(
                    GroupNotEmptyException.class,
                    admin.deleteConsumerGroups(List.of(group)).all());
            Broker.failure(
                    GroupSubscribedToTopicException.class,
                    admin.deleteConsumerGroupOffsets(group, Set.of(partition))
                            .partitionResult(partition));
        }
        assertEquals(GroupState.EMPTY, describeGroup(group).groupState());
        var listed =
                Broker.get(
                        admin.listGroups(
                                        new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY)))
                                .valid());
        assertTrue(listed.stream().anyMatch(listing -> listing.groupId().equals(group)));
        assertEquals(7, committed(group).get(partition).offset());
        Broker.get(
                admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3)))
                        .all());
        assertEquals(3, committed(group).get(partition).offset());
        Broker.get(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all());
        assertTrue(committed(group).isEmpty());
        // Its last offset gone, an empty group is gone, too, or still there to be deleted.
        try {
            Broker.get(admin.deleteConsumerGroups(List.of(group)).all());
        } catch (java.util.concurrent.ExecutionException error) {
            assertTrue(error.getCause() instanceof GroupIdNotFoundException);
        }
        Broker.failure(
                GroupIdNotFoundException.class, admin.deleteConsumerGroups(List.of(group)).all());
        Broker.failure(
                GroupIdNotFoundException.class,
                admin.describeConsumerGroups(List.of(group)).all());
    }

    private static ConsumerGroupDescription describeGroup(String group) throws Exception {
        return Broker.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private static Map<TopicPartition, OffsetAndMetadata> committed(String group) throws Exception {
        return Broker.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    @Test
    void theClusterIsDescribed() throws Exception {
        var cluster = admin.describeCluster();
        assertEquals(1, Broker.get(cluster.nodes()).size());
        assertEquals(
                Broker.get(cluster.controller()).id(),
                Broker.get(cluster.nodes()).iterator().next().id());
        assertFalse(Broker.get(cluster.clusterId()).isEmpty());
    }

    @Test
    void logDirectoriesAndProducersAreDescribed() throws Exception {
        String topic = Broker.createTopic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(topic, 0, null, new byte[10_000])).get();
            }
            ProducerState state =
                    Broker.get(admin.describeProducers(List.of(partition)).all())
                            .get(partition)
                            .activeProducers()
                            .get(0);
            assertEquals(9, state.lastSequence());
            assertEquals(0, state.producerEpoch());
            assertTrue(state.currentTransactionStartOffset().isEmpty());
        }
        int node = Broker.get(admin.describeCluster().nodes()).iterator().next().id();
        var directories = Broker.get(admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
        ReplicaInfo replica =
                directories.values().stream()
                        .map(directory -> directory.replicaInfos().get(partition))
                        .filter(info -> info != null)
                        .findFirst()
                        .orElseThrow();
        assertTrue(replica.size() > 100_000, "bytes: " + replica.size());
        assertEquals(0, replica.offsetLag());
    }
}
