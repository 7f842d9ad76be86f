import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.Properties;

/**
 * Counts Debezium's events and says how far it is: a line "seconds rows cpu_seconds" after the
 * first batch, then about four a second, and after the last. The events are rendered to JSON
 * by Debezium and thrown away here; offsets are marked once a batch, which costs it least.
 */
public final class Consumer {
    private static final long STEP_NS = 250_000_000L;

    private static long rows;
    private static long bytes;
    private static long said;

    public static void main(String[] args) throws Exception {
        var properties = new Properties();
        try (InputStream in = new FileInputStream(args[0])) {
            properties.load(in);
        }
        var out = new PrintStream(args[1]);
        long expected = Long.parseLong(args[2]);
        var clock = (com.sun.management.OperatingSystemMXBean)
            ManagementFactory.getOperatingSystemMXBean();
        DebeziumEngine.ChangeConsumer<ChangeEvent<String, String>> count = (records, committer) -> {
            take(records);
            committer.markProcessed(records.get(records.size() - 1));
            committer.markBatchFinished();
            long now = System.nanoTime();
            if (said == 0 || now - said >= STEP_NS || rows >= expected) {
                said = now;
                out.printf("%.6f %d %.6f%n", now / 1e9, rows, clock.getProcessCpuTime() / 1e9);
                out.flush();
            }
            if (rows >= expected) {
                Runtime.getRuntime().halt(0);
            }
        };
        DebeziumEngine.create(Json.class)
            .using(properties)
            .using((success, message, error) -> {
                System.err.println("Debezium ended: " + message);
                Runtime.getRuntime().halt(1);
            })
            .notifying(count)
            .build()
            .run();
    }

    private static void take(List<ChangeEvent<String, String>> records) {
        for (var record : records) {
            if (record.value() != null) {
                rows++;
                bytes += record.value().length();
            }
        }
    }

    private Consumer() {
    }
}
