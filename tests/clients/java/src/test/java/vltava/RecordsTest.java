package vltava;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TransactionalIdAuthorizationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Records go in and come out as they were. */
class RecordsTest {
    static Stream<Arguments> codecsAndAcks() {
        return Stream.of("none", "gzip", "snappy", "lz4", "zstd")
                .flatMap(codec -> Stream.of("0", "1", "all").map(acks -> Arguments.of(codec, acks)));
    }

    @ParameterizedTest
    @MethodSource("codecsAndAcks")
    void recordsComeBack(String codec, String acks) throws Exception {
        String topic = Broker.createTopic(1);
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        List<Header> headers =
                List.of(
                        new RecordHeader("h", Broker.bytes("1")),
                        new RecordHeader("h", Broker.bytes("2")),
                        new RecordHeader("empty", new byte[0]),
                        new RecordHeader("null", (byte[]) null));
        sent.add(new ProducerRecord<>(topic, 0, 1L, Broker.bytes("k"), Broker.bytes("v"), headers));
        sent.add(new ProducerRecord<>(topic, 0, 2L, (byte[]) null, Broker.bytes("no key")));
        sent.add(new ProducerRecord<>(topic, 0, 3L, Broker.bytes("tombstone"), (byte[]) null));
        sent.add(new ProducerRecord<>(topic, 0, 4L, new byte[0], new byte[0]));
        for (int i = 0; i < 500; i++) {
            byte[] value = Broker.bytes(("" + i).repeat(30));
            sent.add(new ProducerRecord<>(topic, 0, 1000L + i, Broker.bytes("k" + i), value));
        }
        try (KafkaProducer<byte[], byte[]> producer =
                Broker.producer(
                        "compression.type", codec, "acks", acks, "enable.idempotence", "false")) {
            sent.forEach(producer::send);
            producer.flush();
        }
        List<ConsumerRecord<byte[], byte[]>> found = Broker.read(topic, 0, sent.size());
        for (int i = 0; i < sent.size(); i++) {
            assertEquals(i, found.get(i).offset());
            assertArrayEquals(sent.get(i).key(), found.get(i).key());
            assertArrayEquals(sent.get(i).value(), found.get(i).value());
            assertArrayEquals(
                    sent.get(i).headers().toArray(), found.get(i).headers().toArray());
            assertEquals(sent.get(i).timestamp(), found.get(i).timestamp());
            assertEquals(TimestampType.CREATE_TIME, found.get(i).timestampType());
        }
    }

    @Test
    void anIdempotentProducerKeepsOrder() throws Exception {
        String topic = Broker.createTopic(3);
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                Broker.producer("batch.size", "200", "max.in.flight.requests.per.connection", "5")) {
            for (int i = 0; i < 3000; i++) {
                byte[] value = Broker.bytes("" + i);
                futures.add(producer.send(new ProducerRecord<>(topic, i % 3, null, value)));
            }
            producer.flush();
        }
        for (int i = 0; i < 3000; i++) {
            assertEquals(i / 3, futures.get(i).get().offset());
        }
        for (int partition = 0; partition < 3; partition++) {
            List<ConsumerRecord<byte[], byte[]>> found = Broker.read(topic, partition, 1000);
            for (int i = 0; i < 1000; i++) {
                assertEquals("" + (i * 3 + partition), Broker.text(found.get(i).value()));
            }
        }
    }

    @Test
    void largeRecordsAndThoseThatAreTooLarge() throws Exception {
        String topic = Broker.createTopic(1, "max.message.bytes", "6000000");
        byte[] large = new byte[5_000_000];
        new Random(1).nextBytes(large);
        try (KafkaProducer<byte[], byte[]> producer =
                Broker.producer("max.request.size", "9000000")) {
            producer.send(new ProducerRecord<>(topic, 0, null, large)).get();
            ExecutionException error =
                    assertThrows(
                            ExecutionException.class,
                            () ->
                                    producer.send(
                                                    new ProducerRecord<>(
                                                            topic, 0, null, new byte[7_000_000]))
                                            .get());
            assertInstanceOf(RecordTooLargeException.class, error.getCause());
            producer.send(new ProducerRecord<>(topic, 0, null, Broker.bytes("small"))).get();
        }
        List<ConsumerRecord<byte[], byte[]>> found = Broker.read(topic, 0, 2);
        assertArrayEquals(large, found.get(0).value());
        assertEquals("small", Broker.text(found.get(1).value()));
    }

    @Test
    void aKeyIsNeededOnACompactedTopic() throws Exception {
        String topic = Broker.createTopic(1, "cleanup.policy", "compact");
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            ExecutionException error =
                    assertThrows(
                            ExecutionException.class,
                            () -> producer.send(new ProducerRecord<>(topic, Broker.bytes("v"))).get());
            assertInstanceOf(InvalidRecordException.class, error.getCause());
            producer.send(new ProducerRecord<>(topic, Broker.bytes("k"), null)).get();
        }
    }

    @Test
    void aReadCrossesSegments() throws Exception {
        String topic = Broker.createTopic(1, "segment.bytes", "1048576");
        Random random = new Random(3);
        List<byte[]> values = IntStream.range(0, 150).mapToObj(i -> new byte[50_000]).toList();
        values.forEach(random::nextBytes);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            values.forEach(value -> producer.send(new ProducerRecord<>(topic, 0, null, value)));
        }
        List<ConsumerRecord<byte[], byte[]>> found = Broker.read(topic, 0, 150);
        for (int i = 0; i < 150; i++) {
            assertArrayEquals(values.get(i), found.get(i).value());
        }
    }

    @Test
    void offsetsByTimeSeekAndPause() throws Exception {
        String topic = Broker.createTopic(2);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            for (int i = 0; i < 100; i++) {
                long time = 1_600_000_000_000L + i * 1000L;
                byte[] value = Broker.bytes("" + i);
                producer.send(new ProducerRecord<>(topic, 0, time, null, value)).get();
                producer.send(new ProducerRecord<>(topic, 1, time, null, value));
            }
        }
        TopicPartition first = new TopicPartition(topic, 0);
        TopicPartition second = new TopicPartition(topic, 1);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            var found = consumer.offsetsForTimes(Map.of(first, 1_600_000_050_500L));
            assertEquals(51, found.get(first).offset());
            assertEquals(1_600_000_051_000L, found.get(first).timestamp());
            assertEquals(Map.of(first, 0L, second, 0L),
                    consumer.beginningOffsets(List.of(first, second)));
            assertEquals(Map.of(first, 100L, second, 100L),
                    consumer.endOffsets(List.of(first, second)));
            consumer.assign(List.of(first, second));
            Broker.poll(consumer, 200);
            consumer.seek(first, 90);
            consumer.pause(List.of(second));
            consumer.seekToBeginning(List.of(second));
            List<ConsumerRecord<byte[], byte[]>> records = Broker.poll(consumer, 10);
            assertEquals(90, records.get(0).offset());
            assertTrue(records.stream().allMatch(record -> record.partition() == 0));
            consumer.resume(List.of(second));
            assertEquals(0, Broker.poll(consumer, 100).get(0).offset());
        }
    }

    @Test
    void anOffsetOutOfRangeIsTold() throws Exception {
        String topic = Broker.createTopic(1);
        try (KafkaConsumer<byte[], byte[]> consumer =
                Broker.consumer("auto.offset.reset", "none")) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1000);
            OffsetOutOfRangeException error =
                    assertThrows(
                            OffsetOutOfRangeException.class, () -> Broker.poll(consumer, 1));
            assertEquals(Map.of(partition, 1000L), error.offsetOutOfRangePartitions());
        }
    }

    @Test
    void aWaitingFetchIsAnsweredAtOnce() throws Exception {
        String topic = Broker.createTopic(1);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("fetch.max.wait.ms", "3000");
                KafkaProducer<byte[], byte[]> producer = Broker.producer("linger.ms", "0")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            long fastest = Long.MAX_VALUE;
            for (int i = 0; i < 5; i++) {
                assertTrue(consumer.poll(Duration.ofMillis(200)).isEmpty());
                long begin = System.nanoTime();
                producer.send(new ProducerRecord<>(topic, 0, null, Broker.bytes("" + i)));
                Broker.poll(consumer, 1);
                fastest = Math.min(fastest, System.nanoTime() - begin);
            }
            assertTrue(fastest < 500_000_000, "ns: " + fastest);
        }
    }

    @Test
    void aTopicIsMadeByItsFirstUse() throws Exception {
        String topic = Broker.fresh("auto");
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            producer.send(new ProducerRecord<>(topic, Broker.bytes("first"))).get();
        }
        assertEquals("first", Broker.text(Broker.read(topic, 0, 1).get(0).value()));
    }

    @Test
    void writingAndReadingGoOnOverARestart() throws Exception {
        String restart = System.getenv("RESTART_CMD");
        Assumptions.assumeTrue(restart != null && !restart.isEmpty(), "no RESTART_CMD");
        String topic = Broker.createTopic(1);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer();
                KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
            for (int i = 0; i < 400; i++) {
                producer.send(new ProducerRecord<>(topic, 0, null, Broker.bytes("" + i)));
                if (i == 200) {
                    found.addAll(Broker.poll(consumer, 150));
                    int status = new ProcessBuilder("sh", "-c", restart).start().waitFor();
                    assertEquals(0, status);
                }
            }
            producer.flush();
            found.addAll(Broker.poll(consumer, 400 - found.size()));
            assertFalse(found.isEmpty());
            for (int i = 0; i < 400; i++) {
                assertEquals("" + i, Broker.text(found.get(i).value()));
            }
        }
    }

    /** There are none yet: the client must not try for ever. */
    @Test
    void transactionsAreRefusedForGood() {
        Assumptions.assumeTrue("vltava".equals(System.getenv("BROKER")), "another broker");
        try (KafkaProducer<byte[], byte[]> producer =
                Broker.producer("transactional.id", Broker.fresh("transaction"))) {
            assertThrows(
                    TransactionalIdAuthorizationException.class, producer::initTransactions);
        }
    }
}
