// What Connect does about one record's error, in the package whose members this needs.

package org.apache.kafka.connect.runtime.errors;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.lang.reflect.Field;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.metrics.KafkaMetric;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.runtime.ConnectMetrics;
import org.apache.kafka.connect.runtime.ConnectorConfig;
import org.apache.kafka.connect.runtime.isolation.Plugins;
import org.apache.kafka.connect.runtime.standalone.StandaloneConfig;
import org.apache.kafka.connect.util.ConnectorTaskId;

public class Errors {
    static final JsonNodeFactory NODES = JsonNodeFactory.instance;
    static final ConnectorTaskId TASK = new ConnectorTaskId("copy", 3);

    public static JsonNode perform(JsonNode r) throws Exception {
        return r.get("about").asText().equals("operator") ? operator(r) : letter(r);
    }

    static Exception error(JsonNode n) throws Exception {
        String text = n.hasNonNull("message") ? n.get("message").asText() : null;
        switch (n.get("kind").asText()) {
            case "retriable": return new RetriableException(text);
            case "data": return new DataException(text);
            case "network": return new org.apache.kafka.common.errors.NetworkException(text);
            default: return new IllegalArgumentException(text);
        }
    }

    /** The headers of a dead letter, and the lines of the log. */
    static JsonNode letter(JsonNode r) throws Exception {
        ConsumerRecord<byte[], byte[]> consumed = new ConsumerRecord<>(
            r.get("topic").asText(), 0, r.get("offset").asLong(), r.get("timestamp").asLong(),
            TimestampType.CREATE_TIME, -1, -1, null, null, new RecordHeaders(), null);
        ProcessingContext<ConsumerRecord<byte[], byte[]>> context =
            new ProcessingContext<>(consumed);
        context.currentContext(Stage.valueOf(r.get("stage").asText()),
            Class.forName(r.get("class").asText()));
        context.error(error(r.get("error")));
        ProducerRecord<byte[], byte[]> out = new ProducerRecord<>("dead", new byte[0]);
        DeadLetterQueueReporter reporter = fresh(DeadLetterQueueReporter.class);
        set(reporter, "connectorTaskId", TASK);
        reporter.populateContextHeaders(out, context);
        ArrayNode headers = NODES.arrayNode();
        for (Header header : out.headers()) {
            headers.addArray().add(header.key()).add(header.value() == null
                ? null : new String(header.value(), StandardCharsets.UTF_8));
        }
        ArrayNode lines = NODES.arrayNode();
        for (String messages : List.of("false", "true")) {
            Map<String, String> config = Map.of("name", "copy", "connector.class", "x",
                "errors.log.enable", "true", "errors.log.include.messages", messages);
            if (plugins == null) {
                plugins =
                    new Plugins(Map.of("plugin.path", "", "plugin.discovery", "service_load"));
            }
            lines.add(new LogReporter.Sink(
                TASK, new ConnectorConfig(plugins, config), metrics()).message(context));
        }
        return NODES.objectNode().<ObjectNode>set("headers", headers).set("lines", lines);
    }

    /** One record's operation, which fails as told and then succeeds, on a clock of its own. */
    static JsonNode operator(JsonNode r) throws Exception {
        long[] now = {1_000_000};
        ArrayNode delays = NODES.arrayNode();
        Time time = (Time) Proxy.newProxyInstance(Errors.class.getClassLoader(),
            new Class<?>[] {Time.class}, (proxy, method, args) -> {
                switch (method.getName()) {
                    case "milliseconds": return now[0];
                    default: throw new UnsupportedOperationException(method.getName());
                }
            });
        CountDownLatch latch = new CountDownLatch(1) {
            @Override public boolean await(long timeout, TimeUnit unit) {
                delays.add(unit.toMillis(timeout));
                now[0] += unit.toMillis(timeout);
                return false;
            }
        };
        Map<String, Long> before = counted();
        RetryWithToleranceOperator<String> operator = new RetryWithToleranceOperator<>(
            r.get("timeout").asLong(), r.get("most").asLong(),
            ToleranceType.valueOf(r.get("tolerance").asText().toUpperCase()), time,
            metrics(), latch);
        int[] reported = {0}, calls = {0};
        operator.reporters(List.of(context -> {
            reported[0]++;
            return java.util.concurrent.CompletableFuture.completedFuture(null);
        }));
        ObjectNode found = NODES.objectNode();
        ProcessingContext<String> context = new ProcessingContext<>("record");
        JsonNode failures = r.get("failures");
        try {
            String result = operator.execute(context, () -> {
                int call = calls[0]++;
                if (call < failures.size()) {
                    throw error(failures.get(call));
                }
                return "done";
            }, Stage.valueOf(r.get("stage").asText()), Errors.class);
            found.put("result", result == null && context.failed() ? "skipped" : result);
        } catch (Exception raised) {
            found.put("result", raised.getMessage());
            found.put("cause", raised.getCause().getMessage());
        }
        found.put("calls", calls[0]).put("reported", reported[0]).set("delays", delays);
        counted().forEach((name, count) -> found.put(name, count - before.get(name)));
        return found;
    }

    static Map<String, Long> counted() {
        Map<String, Long> found = new HashMap<>();
        for (KafkaMetric each : metrics().metricGroup().metrics().metrics().values()) {
            String name = each.metricName().name();
            if (name.startsWith("total-record") || name.equals("total-retries")) {
                found.put(name, ((Number) each.metricValue()).longValue());
            }
        }
        return found;
    }

    // Both are made once: that takes long.
    static Plugins plugins;
    static ErrorHandlingMetrics metrics;

    static ErrorHandlingMetrics metrics() {
        if (metrics != null) {
            return metrics;
        }
        Map<String, String> worker = new HashMap<>();
        worker.put("key.converter", "org.apache.kafka.connect.json.JsonConverter");
        worker.put("value.converter", "org.apache.kafka.connect.json.JsonConverter");
        worker.put("offset.storage.file.filename", "none");
        worker.put("bootstrap.servers", "localhost:1");
        worker.put("metric.reporters", "");
        metrics = new ErrorHandlingMetrics(TASK,
            new ConnectMetrics("w", new StandaloneConfig(worker), Time.SYSTEM, "cluster"));
        return metrics;
    }

    // A reporter without its producer: nothing is sent here.
    static <T> T fresh(Class<T> of) throws Exception {
        Class<?> kind = Class.forName("sun.misc.Unsafe"); // by name: the compiler warns of it
        Field unsafe = kind.getDeclaredField("theUnsafe");
        unsafe.setAccessible(true);
        return of.cast(kind.getMethod("allocateInstance", Class.class)
            .invoke(unsafe.get(null), of));
    }

    static void set(Object of, String name, Object value) throws Exception {
        Field field = of.getClass().getDeclaredField(name);
        field.setAccessible(true);
        field.set(of, value);
    }
}
