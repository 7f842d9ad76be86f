// Connect's own classes behind a pipe: one request a line, one answer a line, both JSON.
// See judge.py for the requests, and for how values and schemas travel.

import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.Configurable;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.ConnectSchema;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.SchemaProjector;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Values;
import org.apache.kafka.connect.header.ConnectHeaders;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.header.Headers;
import org.apache.kafka.connect.runtime.errors.Errors;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.Converter;
import org.apache.kafka.connect.storage.HeaderConverter;
import org.apache.kafka.connect.transforms.Transformation;
import org.apache.kafka.connect.transforms.predicates.Predicate;

public class Judge {
    static final ObjectMapper JSON =
        JsonMapper.builder().enable(JsonWriteFeature.ESCAPE_NON_ASCII).build();
    static final JsonNodeFactory NODES = JsonNodeFactory.instance;
    static final Map<String, Object> INSTANCES = new HashMap<>();

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        System.setOut(System.err); // what a class prints is no answer
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(JSON.writeValueAsString(answer(JSON.readTree(line))));
            out.flush();
        }
    }

    static JsonNode answer(JsonNode request) {
        ObjectNode answer = NODES.objectNode();
        SCHEMAS.clear();
        try {
            answer.set("ok", perform(request));
        } catch (Throwable thrown) {
            Throwable error =
                thrown instanceof InvocationTargetException ? thrown.getCause() : thrown;
            answer.put("error", error.getClass().getName()).put("message", error.getMessage());
            Throwable cause = error.getCause();
            if (cause != null) {
                answer.put("cause", cause.getClass().getName());
                answer.put("causeMessage", cause.getMessage());
            }
        }
        return answer;
    }

    static JsonNode perform(JsonNode r) throws Exception {
        switch (r.get("do").asText()) {
            case "from_connect":
                return bytes(converter(r).fromConnectData(
                    text(r, "topic"), schema(r.get("schema")), value(r.get("value"))));
            case "to_connect":
                return pair(converter(r).toConnectData(text(r, "topic"), raw(r.get("data"))));
            case "from_connect_header":
                return bytes(((HeaderConverter) configurable(r)).fromConnectHeader(
                    text(r, "topic"), text(r, "name"), schema(r.get("schema")),
                    value(r.get("value"))));
            case "to_connect_header":
                return pair(((HeaderConverter) configurable(r)).toConnectHeader(
                    text(r, "topic"), text(r, "name"), raw(r.get("data"))));
            case "transform":
                return record(transform(r));
            case "predicate":
                return NODES.booleanNode(test(r));
            case "values":
                return values(r);
            case "validate":
                ConnectSchema.validateValue(schema(r.get("schema")), value(r.get("value")));
                return NODES.nullNode();
            case "put":
                Struct struct = new Struct(schema(r.get("schema")));
                struct.put(text(r, "field"), value(r.get("value")));
                return NODES.nullNode();
            case "validate_struct":
                ((Struct) value(r.get("value"))).validate();
                return NODES.nullNode();
            case "get":
                return value(((Struct) value(r.get("value"))).get(text(r, "field")));
            case "schema":
                return schema(schema(r.get("schema")));
            case "same_schema":
                Schema one = schema(r.get("one"));
                SCHEMAS.clear(); // the other one is to be another object
                return NODES.booleanNode(one.equals(schema(r.get("other"))));
            case "project":
                return value(SchemaProjector.project(
                    schema(r.get("schema")), value(r.get("value")), schema(r.get("target"))));
            case "errors":
                return Errors.perform(r);
            default:
                return Configs.perform(r);
        }
    }

    // --- instances: one per class and configuration ---

    interface Maker { Object make(Object fresh, Map<String, Object> config); }

    static Object instance(JsonNode r, Maker maker) throws Exception {
        String name = r.get("class").asText();
        String id = name + r.get("config") + r.get("key") + r.get("do").asText();
        Object found = INSTANCES.get(id);
        if (found == null) {
            if (INSTANCES.size() > 1000) {
                INSTANCES.clear();
            }
            Object fresh = Class.forName(name).getDeclaredConstructor().newInstance();
            found = maker.make(fresh, config(r));
            INSTANCES.put(id, found);
        }
        return found;
    }

    static Map<String, Object> config(JsonNode r) {
        Map<String, Object> config = new HashMap<>();
        r.get("config").fields().forEachRemaining(
            e -> config.put(e.getKey(), e.getValue().isNull() ? null : e.getValue().asText()));
        return config;
    }

    static Converter converter(JsonNode r) throws Exception {
        return (Converter) instance(r, (fresh, config) -> {
            ((Converter) fresh).configure(config, r.get("key").asBoolean());
            return fresh;
        });
    }

    static Object configurable(JsonNode r) throws Exception {
        return instance(r, (fresh, config) -> {
            ((Configurable) fresh).configure(config);
            return fresh;
        });
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static ConnectRecord<?> transform(JsonNode r) throws Exception {
        return ((Transformation) configurable(r)).apply(record(r.get("record")));
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static boolean test(JsonNode r) throws Exception {
        return ((Predicate) configurable(r)).test(record(r.get("record")));
    }

    static JsonNode values(JsonNode r) throws Exception {
        String method = r.get("method").asText();
        if (method.equals("parseString")) {
            return pair(Values.parseString(text(r, "text")));
        }
        return value(Values.class.getMethod(method, Schema.class, Object.class)
            .invoke(null, schema(r.get("schema")), value(r.get("value"))));
    }

    // --- records ---

    static ConnectRecord<?> record(JsonNode n) {
        Headers headers = new ConnectHeaders();
        for (JsonNode h : n.get("headers")) {
            headers.add(text(h, "name"), value(h.get("value")), schema(h.get("schema")));
        }
        Object key = value(n.get("key")), value = value(n.get("value"));
        Schema keySchema = schema(n.get("key_schema"));
        Schema valueSchema = schema(n.get("value_schema"));
        Integer partition = n.get("partition").isNull() ? null : n.get("partition").asInt();
        Long timestamp = n.get("timestamp").isNull() ? null : n.get("timestamp").asLong();
        String topic = text(n, "topic");
        if (n.get("offset").asLong() < 0) {
            return new SourceRecord(Map.of(), Map.of(), topic, partition, keySchema, key,
                valueSchema, value, timestamp, headers);
        }
        return new SinkRecord(topic, partition, keySchema, key, valueSchema, value,
            n.get("offset").asLong(), timestamp, TimestampType.CREATE_TIME, headers);
    }

    static JsonNode record(ConnectRecord<?> r) {
        if (r == null) {
            return NODES.nullNode();
        }
        ObjectNode n = NODES.objectNode();
        n.put("topic", r.topic()).put("partition", r.kafkaPartition());
        n.set("key_schema", schema(r.keySchema()));
        n.set("key", value(r.key()));
        n.set("value_schema", schema(r.valueSchema()));
        n.set("value", value(r.value()));
        n.put("timestamp", r.timestamp());
        n.put("offset", r instanceof SinkRecord ? ((SinkRecord) r).kafkaOffset() : -1);
        ArrayNode headers = n.putArray("headers");
        for (Header h : r.headers()) {
            ObjectNode header = headers.addObject();
            header.put("name", h.key());
            header.set("value", value(h.value()));
            header.set("schema", schema(h.schema()));
        }
        return n;
    }

    // --- schemas ---

    /** Of one request: in Connect a value's schema and the one beside it are one object. */
    static final Map<JsonNode, Schema> SCHEMAS = new HashMap<>();

    static Schema schema(JsonNode n) {
        if (n == null || n.isNull()) {
            return null;
        }
        Schema found = SCHEMAS.get(n);
        if (found == null) {
            found = build(n);
            SCHEMAS.put(n, found);
        }
        return found;
    }

    static Schema build(JsonNode n) {
        Schema.Type type = Schema.Type.valueOf(n.get("type").asText());
        SchemaBuilder b;
        if (type == Schema.Type.ARRAY) {
            b = SchemaBuilder.array(schema(n.get("items")));
        } else if (type == Schema.Type.MAP) {
            b = SchemaBuilder.map(schema(n.get("keys")), schema(n.get("values")));
        } else {
            b = SchemaBuilder.type(type);
        }
        for (JsonNode f : n.path("fields")) {
            b.field(text(f, "name"), schema(f.get("schema")));
        }
        if (n.get("optional").asBoolean()) {
            b.optional();
        }
        if (n.hasNonNull("name")) {
            b.name(text(n, "name"));
        }
        if (n.hasNonNull("version")) {
            b.version(n.get("version").asInt());
        }
        if (n.hasNonNull("doc")) {
            b.doc(text(n, "doc"));
        }
        n.path("parameters").fields().forEachRemaining(
            e -> b.parameter(e.getKey(), e.getValue().asText()));
        if (n.hasNonNull("default")) {
            JsonNode tagged = n.get("default");
            // A struct's own schema is not built yet; Connect's reader does the same.
            b.defaultValue(type == Schema.Type.STRUCT ? struct(b, tagged) : value(tagged));
        }
        return b.build();
    }

    static JsonNode schema(Schema s) {
        if (s == null) {
            return NODES.nullNode();
        }
        ObjectNode n = NODES.objectNode();
        n.put("type", s.type().name()).put("optional", s.isOptional()).put("name", s.name());
        n.put("version", s.version()).put("doc", s.doc());
        if (s.parameters() != null) {
            ObjectNode parameters = n.putObject("parameters");
            s.parameters().forEach(parameters::put);
        }
        n.set("default", s.defaultValue() instanceof Struct
            ? values((Struct) s.defaultValue()) : value(s.defaultValue()));
        if (s.type() == Schema.Type.STRUCT) {
            ArrayNode fields = n.putArray("fields");
            for (Field f : s.fields()) {
                fields.addObject().put("name", f.name()).set("schema", schema(f.schema()));
            }
        } else if (s.type() == Schema.Type.ARRAY) {
            n.set("items", schema(s.valueSchema()));
        } else if (s.type() == Schema.Type.MAP) {
            n.set("keys", schema(s.keySchema()));
            n.set("values", schema(s.valueSchema()));
        }
        return n;
    }

    // --- values, each with the name of its Java type ---

    static Object value(JsonNode n) {
        if (n == null || n.isNull()) {
            return null;
        }
        JsonNode v = n.get("v");
        switch (n.get("t").asText()) {
            case "int8": return (byte) v.asLong();
            case "int16": return (short) v.asLong();
            case "int32": return (int) v.asLong();
            case "int64": return v.asLong();
            case "float": return Float.intBitsToFloat((int) v.asLong());
            case "double": return Double.longBitsToDouble(v.asLong());
            case "boolean": return v.asBoolean();
            case "string": return v.asText();
            case "bytes": return Base64.getDecoder().decode(v.asText());
            case "buffer": return ByteBuffer.wrap(Base64.getDecoder().decode(v.asText()));
            case "decimal": return new BigDecimal(v.asText());
            case "integer": return new BigInteger(v.asText());
            case "date": return new java.util.Date(v.asLong());
            case "object": return new Object();
            case "array": {
                List<Object> list = new ArrayList<>();
                v.forEach(each -> list.add(value(each)));
                return list;
            }
            case "map": {
                Map<Object, Object> map = new LinkedHashMap<>();
                v.forEach(each -> map.put(value(each.get(0)), value(each.get(1))));
                return map;
            }
            case "struct": return struct(schema(n.get("schema")), n);
            default: throw new IllegalArgumentException("unknown type " + n.get("t"));
        }
    }

    static Struct struct(Schema schema, JsonNode n) {
        Struct struct = new Struct(schema);
        int index = 0;
        for (Field field : schema.fields()) {
            Object each = value(n.get("v").get(index++));
            if (each != null) {
                struct.put(field, each);
            }
        }
        return struct;
    }

    /** A struct without its schema: as a default, that would have it for its own default. */
    static ObjectNode values(Struct struct) {
        ObjectNode n = NODES.objectNode().put("t", "struct");
        ArrayNode list = n.putArray("v");
        struct.schema().fields().forEach(f -> list.add(value(struct.getWithoutDefault(f.name()))));
        return n;
    }

    static JsonNode value(Object o) {
        if (o == null) {
            return NODES.nullNode();
        }
        ObjectNode n = NODES.objectNode();
        if (o instanceof Byte) {
            return n.put("t", "int8").put("v", (Byte) o);
        } else if (o instanceof Short) {
            return n.put("t", "int16").put("v", (Short) o);
        } else if (o instanceof Integer) {
            return n.put("t", "int32").put("v", (Integer) o);
        } else if (o instanceof Long) {
            return n.put("t", "int64").put("v", (Long) o);
        } else if (o instanceof Float) {
            return n.put("t", "float").put("v", Float.floatToIntBits((Float) o));
        } else if (o instanceof Double) {
            return n.put("t", "double").put("v", Double.doubleToLongBits((Double) o));
        } else if (o instanceof Boolean) {
            return n.put("t", "boolean").put("v", (Boolean) o);
        } else if (o instanceof String) {
            return n.put("t", "string").put("v", (String) o);
        } else if (o instanceof byte[]) {
            return n.put("t", "bytes").put("v", Base64.getEncoder().encodeToString((byte[]) o));
        } else if (o instanceof ByteBuffer) {
            ByteBuffer buffer = ((ByteBuffer) o).duplicate();
            byte[] content = new byte[buffer.remaining()];
            buffer.get(content);
            return n.put("t", "bytes").put("v", Base64.getEncoder().encodeToString(content));
        } else if (o instanceof BigDecimal) {
            return n.put("t", "decimal").put("v", o.toString());
        } else if (o instanceof java.util.Date) {
            return n.put("t", "date").put("v", ((java.util.Date) o).getTime());
        } else if (o instanceof List) {
            ArrayNode list = n.put("t", "array").putArray("v");
            ((List<?>) o).forEach(each -> list.add(value(each)));
            return n;
        } else if (o instanceof Map) {
            ArrayNode pairs = n.put("t", "map").putArray("v");
            ((Map<?, ?>) o).forEach((k, v) -> pairs.addArray().add(value(k)).add(value(v)));
            return n;
        } else if (o instanceof Struct) {
            return values((Struct) o).set("schema", schema(((Struct) o).schema()));
        }
        throw new IllegalArgumentException("no tag for " + o.getClass());
    }

    // --- small things ---

    static JsonNode pair(SchemaAndValue pair) {
        if (pair == null) {
            return NODES.nullNode();
        }
        ArrayNode n = NODES.arrayNode();
        return n.add(schema(pair.schema())).add(value(pair.value()));
    }

    static String text(JsonNode n, String member) {
        JsonNode found = n.get(member);
        return found == null || found.isNull() ? null : found.asText();
    }

    static byte[] raw(JsonNode n) {
        return n == null || n.isNull() ? null : Base64.getDecoder().decode(n.asText());
    }

    static JsonNode bytes(byte[] data) {
        return data == null ? NODES.nullNode()
            : NODES.textNode(Base64.getEncoder().encodeToString(data));
    }
}
