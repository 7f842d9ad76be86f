// What Connect says of configurations: declarations, values, chains, connectors, placeholders.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.config.ConfigData;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigTransformer;
import org.apache.kafka.common.config.ConfigValue;
import org.apache.kafka.common.config.provider.ConfigProvider;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.connect.runtime.ConnectorConfig;
import org.apache.kafka.connect.runtime.SinkConnectorConfig;
import org.apache.kafka.connect.runtime.SourceConnectorConfig;
import org.apache.kafka.connect.runtime.isolation.Plugins;

class Configs {
    static final JsonNodeFactory NODES = JsonNodeFactory.instance;
    static Plugins plugins;

    static JsonNode perform(JsonNode r) throws Exception {
        switch (r.get("do").asText()) {
            case "configdef":
                Object fresh =
                    Class.forName(r.get("class").asText()).getDeclaredConstructor().newInstance();
                return told((ConfigDef) fresh.getClass().getMethod("config").invoke(fresh), r);
            case "connectordef":
                return told(r.get("sink").asBoolean()
                    ? SinkConnectorConfig.configDef() : SourceConnectorConfig.configDef(), r);
            case "chain":
                return chain(r);
            case "sink":
                return sink(r);
            case "parse_type":
                Object parsed = ConfigDef.parseType(
                    "k", r.get("text").asText(), ConfigDef.Type.valueOf(r.get("type").asText()));
                return Judge.value(
                    parsed instanceof Password ? ((Password) parsed).value() : parsed);
            case "properties":
                Properties properties = new Properties();
                properties.load(new ByteArrayInputStream(Judge.raw(r.get("data"))));
                return Judge.value(new HashMap<>(properties));
            case "placeholders":
                return placeholders(r);
            default:
                throw new IllegalArgumentException("unknown request " + r.get("do"));
        }
    }

    static Map<String, String> texts(JsonNode r) {
        Map<String, String> texts = new LinkedHashMap<>();
        r.get("config").fields().forEachRemaining(
            e -> texts.put(e.getKey(), e.getValue().isNull() ? null : e.getValue().asText()));
        return texts;
    }

    // What a worker says of a connector's transforms and predicates when it validates them.
    static JsonNode chain(JsonNode r) {
        if (plugins == null) {
            plugins = new Plugins(Map.of("plugin.path", "", "plugin.discovery", "service_load"));
        }
        // as a worker does it: this loader knows classes by their short names, too
        Thread.currentThread().setContextClassLoader(plugins.delegatingLoader());
        ConfigDef def =
            ConnectorConfig.enrich(plugins, ConnectorConfig.configDef(), texts(r), false);
        ArrayNode errors = NODES.arrayNode();
        for (ConfigValue value : def.validate(texts(r))) {
            if (value.name().startsWith("transforms") || value.name().startsWith("predicates")) {
                told(value, errors);
            }
        }
        return errors;
    }

    // What a worker says of the keys that every sink has.
    static JsonNode sink(JsonNode r) {
        Map<String, ConfigValue> validated =
            SinkConnectorConfig.configDef().validateAll(texts(r));
        SinkConnectorConfig.validate(texts(r), validated);
        ArrayNode errors = NODES.arrayNode();
        validated.values().forEach(value -> told(value, errors));
        return errors;
    }

    static void told(ConfigValue value, ArrayNode errors) {
        value.errorMessages().forEach(text -> errors.addArray().add(value.name()).add(text));
    }

    /** What a class declares, and what it says of a configuration. */
    static JsonNode told(ConfigDef def, JsonNode r) {
        Map<String, ArrayNode> recommended = new HashMap<>();
        ArrayNode errors = NODES.arrayNode();
        for (ConfigValue value : def.validate(texts(r))) {
            ArrayNode offered = NODES.arrayNode();
            value.recommendedValues().forEach(each -> offered.add(String.valueOf(each)));
            recommended.put(value.name(), offered);
            told(value, errors);
        }
        ArrayNode keys = NODES.arrayNode();
        for (ConfigDef.ConfigKey key : def.configKeys().values()) {
            keys.addObject().put("name", key.name).put("type", key.type.name())
                .put("required", !key.hasDefault())
                .put("default_value", key.hasDefault() && key.defaultValue != null
                    ? ConfigDef.convertToString(key.defaultValue, key.type) : null)
                .put("importance", key.importance.name())
                .put("group", key.group).put("order", key.orderInGroup)
                .put("width", key.width.name()).put("display_name", key.displayName)
                .set("recommended", recommended.get(key.name));
        }
        return NODES.objectNode().<ObjectNode>set("keys", keys).set("errors", errors);
    }

    // A provider p that has every key but "none", and says which path and key it was asked for;
    // or, where the request names a class, that one of Kafka's.
    static JsonNode placeholders(JsonNode r) throws Exception {
        ConfigProvider provider = new ConfigProvider() {
            @Override public ConfigData get(String path) {
                throw new UnsupportedOperationException();
            }
            @Override public ConfigData get(String path, Set<String> keys) {
                Map<String, String> found = new HashMap<>();
                keys.forEach(k -> found.put(k, "<" + path + "|" + k + ">"));
                found.remove("none");
                return new ConfigData(found);
            }
            @Override public void configure(Map<String, ?> configs) { }
            @Override public void close() { }
        };
        if (r.hasNonNull("class")) {
            provider = (ConfigProvider)
                Class.forName(r.get("class").asText()).getDeclaredConstructor().newInstance();
            provider.configure(texts(r));
        }
        String text = r.get("text").asText();
        return NODES.textNode(new ConfigTransformer(Map.of("p", provider))
            .transform(Map.of("k", text)).data().get("k"));
    }
}
