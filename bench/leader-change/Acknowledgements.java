import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** A producer of Java's own at its default settings, acks=all, a record each millisecond: for how long nothing was acknowledged. */
public final class Acknowledgements {
    /** What is shorter happens without any change of leader. */
    private static final long TOLD_NS = 20_000_000;

    /** BOOTSTRAP TOPIC SECONDS: all records go to partition 0. */
    public static void main(String[] arguments) throws Exception {
        var settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("key.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        settings.put("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        long forNs = Long.parseLong(arguments[2]) * 1_000_000_000L;
        var value = new byte[100];
        var failed = new AtomicLong();
        var acknowledged = new AtomicLong();
        try (var producer = new KafkaProducer<byte[], byte[]>(settings)) {
            producer.send(new ProducerRecord<>(arguments[1], 0, null, value)).get();
            long begin = System.nanoTime();
            var last = new AtomicLong(begin);
            while (System.nanoTime() - begin < forNs) {
                producer.send(new ProducerRecord<>(arguments[1], 0, null, value), (place, error) -> {
                    long now = System.nanoTime();
                    if (error != null) {
                        failed.incrementAndGet();
                        System.out.println(error);
                        return;
                    }
                    acknowledged.incrementAndGet();
                    long silent = now - last.getAndSet(now);
                    if (silent > TOLD_NS) {
                        System.out.printf("%.2f s: nothing for %.0f ms%n", (now - begin) / 1e9, silent / 1e6);
                    }
                });
                LockSupport.parkNanos(1_000_000);
            }
        }
        System.out.printf("%d acknowledged, %d failed%n", acknowledged.get(), failed.get());
    }
}
