package vltava;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.junit.jupiter.api.Test;

/**
 * Rides through changes of leader and coordinator: an idempotent producer and a group, while
 * somebody else stops and kills nodes. Not one of the suite: broker/tests/cluster/riders.rs runs it,
 * against a cluster, and looks at the log afterwards.
 *
 * <p>RIDE_TOPIC has three partitions. RIDE_STOP is a file; once it is there, what was begun is
 * finished.
 */
class Ride {
    private static final String TOPIC = System.getenv("RIDE_TOPIC");
    private static final Path STOP = Path.of(System.getenv("RIDE_STOP"));
    private static final int PARTITIONS = 3;

    private final List<List<String>> values = new ArrayList<>();
    private final long[] committed = new long[PARTITIONS];
    private final AtomicReference<Exception> error = new AtomicReference<>();
    private int sent;

    @Test
    void ride() {
        for (int i = 0; i < PARTITIONS; i++) {
            values.add(new ArrayList<>());
        }
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer("acks", "all", "linger.ms", "5");
                KafkaConsumer<byte[], byte[]> consumer =
                        // A commit may wait twice for a node that stands still, 30 s each: for its
                        // answer, and for the coordinator that it is asked for.
                        Broker.consumer(
                                "group.id",
                                TOPIC + "-readers",
                                "default.api.timeout.ms",
                                "120000")) {
            consumer.subscribe(List.of(TOPIC));
            while (!Files.exists(STOP)) {
                for (int i = 0; i < 3; i++) {
                    byte[] value = ("java " + sent).getBytes(StandardCharsets.UTF_8);
                    producer.send(
                            new ProducerRecord<>(TOPIC, sent % PARTITIONS, null, value),
                            (metadata, failure) -> error.compareAndSet(null, failure));
                    sent++;
                }
                read(consumer, Duration.ofMillis(10));
                assertNull(error.get(), () -> "" + error.get());
            }
            producer.flush();
            assertNull(error.get(), () -> "" + error.get());
            Broker.await(
                    () -> {
                        read(consumer, Duration.ofMillis(100));
                        return values.stream().mapToInt(List::size).sum() >= sent;
                    },
                    () -> sent + " sent, read " + values.stream().map(List::size).toList());
        }
        for (int partition = 0; partition < PARTITIONS; partition++) {
            List<String> expected = new ArrayList<>();
            for (int number = partition; number < sent; number += PARTITIONS) {
                expected.add("java " + number);
            }
            assertEquals(expected, values.get(partition));
        }
        System.out.println("RIDE sent=" + sent);
    }

    /** Reads on where the group was, and commits what was read. */
    private void read(KafkaConsumer<byte[], byte[]> consumer, Duration wait) {
        boolean any = false;
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(wait)) {
            any = true;
            List<String> before = values.get(record.partition());
            String value = new String(record.value(), StandardCharsets.UTF_8);
            String where = record.partition() + "@" + record.offset();
            assertTrue(record.offset() <= before.size(), where + ": skipped from " + before.size());
            assertTrue(record.offset() >= committed[record.partition()], where + ": went back");
            if (record.offset() == before.size()) {
                before.add(value);
            }
            assertEquals(before.get((int) record.offset()), value, where);
        }
        if (any) {
            consumer.commitSync();
            consumer.assignment().forEach(at -> committed[at.partition()] = consumer.position(at));
        }
    }
}
