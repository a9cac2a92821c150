package vltava;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.Test;

/**
 * Reads a partition from the replica of its rack. Not one of the suite: broker/tests/cluster/racks.rs
 * runs it, against a cluster, and sees which node gives it what it reads.
 *
 * <p>NEAR_READ is a file that holds how many records it has read; once NEAR_STOP is there, it ends.
 */
class Near {
    private static final TopicPartition PARTITION =
            new TopicPartition(System.getenv("NEAR_TOPIC"), 0);
    private static final Path READ = Path.of(System.getenv("NEAR_READ"));
    private static final Path STOP = Path.of(System.getenv("NEAR_STOP"));

    @Test
    void read() throws Exception {
        String rack = System.getenv("NEAR_RACK");
        try (KafkaConsumer<byte[], byte[]> consumer =
                Broker.consumer("client.rack", rack, "metadata.max.age.ms", "500")) {
            consumer.assign(List.of(PARTITION));
            consumer.seekToBeginning(List.of(PARTITION));
            long next = 0;
            while (!Files.exists(STOP)) {
                for (ConsumerRecord<byte[], byte[]> record :
                        consumer.poll(Duration.ofMillis(100))) {
                    assertEquals(next, record.offset());
                    next++;
                }
                Files.writeString(READ, "" + next);
            }
        }
    }
}
