package vltava;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Short words for the client under test, shared by all tests. */
final class Broker {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    static final Duration DEADLINE = Duration.ofSeconds(60);

    private Broker() {}

    /** A name that nothing used before. */
    static String fresh(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", BOOTSTRAP));
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
    }

    /** The error that a call ends with. */
    static <T extends Throwable> T failure(Class<T> expected, KafkaFuture<?> future) throws Exception {
        try {
            get(future);
        } catch (ExecutionException error) {
            assertTrue(expected.isInstance(error.getCause()), "" + error.getCause());
            return expected.cast(error.getCause());
        }
        return fail("no " + expected.getSimpleName());
    }

    /** A new topic; settings as name, value, name, value. */
    static String createTopic(int partitions, String... settings) throws Exception {
        String name = fresh("java");
        NewTopic topic = new NewTopic(name, partitions, (short) 1);
        Map<String, String> configs = new java.util.HashMap<>();
        for (int i = 0; i < settings.length; i += 2) {
            configs.put(settings[i], settings[i + 1]);
        }
        try (Admin admin = admin()) {
            get(admin.createTopics(List.of(topic.configs(configs))).all());
        }
        return name;
    }

    static KafkaProducer<byte[], byte[]> producer(String... settings) {
        Properties properties = properties(settings);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String... settings) {
        Properties properties = properties(settings);
        properties.putIfAbsent("auto.offset.reset", "earliest");
        properties.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(
                properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static Properties properties(String... settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", BOOTSTRAP);
        for (int i = 0; i < settings.length; i += 2) {
            properties.put(settings[i], settings[i + 1]);
        }
        return properties;
    }

    /** Records, until there are so many. */
    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        await(
                () -> {
                    consumer.poll(Duration.ofMillis(100)).forEach(records::add);
                    return records.size() >= count;
                },
                () -> records.size() + " of " + count + " records");
        return records;
    }

    /** The first records of a partition. */
    static List<ConsumerRecord<byte[], byte[]>> read(String topic, int partition, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(new TopicPartition(topic, partition)));
            return poll(consumer, count);
        }
    }

    /** Tries until the condition holds. */
    static void await(BooleanSupplier condition, Supplier<String> state) {
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                fail("timed out: " + state.get());
            }
        }
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }
}
